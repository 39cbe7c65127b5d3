/* test_moe.c - mixtures of experts. The bits: they do not depend on how rows were grouped by
 * expert, nor on anything else. The numbers: a pass in double agrees. The rules: which experts a
 * row gets. The files: what does not fit together is refused by name. What holds for every family
 * is tested in test_families.c. Included by test.c after test_lora.c. */
#include "runs.h"

enum { MOE_KINDS = 3 };
static const char *const moe_kinds[MOE_KINDS] = {"mixtral", "qwen2moe", "qwen3moe"};
/* F32, and mixes in which an expert's three matrices want their rows in different forms. */
static const int moe_types[MOE_KINDS] = {SM_TYPE_F32, SM_TYPE_Q4_K, SM_TYPE_Q5_K};

static gguf_model_params moe_params(const char *kind, int type) {
    gguf_model_params p = gguf_model_default(kind, type);
    p.vocab = GGUF_NO_VOCAB;
    return p;
}

static sm_model *moe_model(const char *kind, int type) {
    gguf_model_params p = moe_params(kind, type);
    return gguf_model_open(&p);
}

/* --- the bits --------------------------------------------------------------------------------- */

/* Token by token every expert has one row. */
static void moe_cut_anyhow_has_the_same_bits(void) {
    static const int batches[] = {2, 3, 7, 16, 64}, calls[] = {1, 5, 17};
    static const int64_t budgets[] = {0, 50, -1};
    int isas[8], n_isas = run_isas(isas), a, i;
    for (a = 0; a < MOE_KINDS; a++) {
        sm_model *m = moe_model(moe_kinds[a], moe_types[a]);
        run_way w = run_plain(SM_TYPE_F16);
        run_trial r = run_begin_plainly(m, moe_kinds[a], 24, w);
        for (i = 0; i < n_isas; i++) { /* all rows at once */
            w.isa = isas[i];
            run_try(&r, &w);
        }
        w.isa = SM_ISA_AUTO;
        for (i = 0; i < 5; i++) {
            w.n_batch = batches[i];
            run_try(&r, &w);
        }
        w.n_batch = 16;
        for (i = 0; i < 3; i++) {
            w.call = calls[i], w.n_threads = 1 + i;
            run_try(&r, &w);
        }
        w.call = 0;
        w.sliced = 1;
        w.isa = a ? SM_ISA_AUTO : SM_ISA_SCALAR;
        for (i = 0; i < 3; i++) {
            w.budget = budgets[i], w.n_threads = 1 + i;
            run_try(&r, &w);
        }
        run_end(&r);
        sm_model_close(m);
    }
}

/* Rows of several sequences share the experts' runs. */
static void moe_neighbours_change_nothing(void) {
    int a;
    for (a = 0; a < MOE_KINDS; a++) {
        sm_model *m = moe_model(moe_kinds[a], SM_TYPE_Q8_0);
        run_way w = run_plain(SM_TYPE_F16);
        w.n_batch = 12;
        w.n_threads = 2;
        run_neighbours(m, moe_kinds[a], &w);
        sm_model_close(m);
    }
}

/* --- the numbers ------------------------------------------------------------------------------ */

static void moe_agrees_with_double(void) {
    int a;
    for (a = 0; a < 2 * MOE_KINDS; a++) {
        gguf_model_params p = moe_params(moe_kinds[a / 2], SM_TYPE_F32);
        sm_model *m;
        exact_model e;
        if (a % 2) p.n_experts = p.n_used = 4; /* all of them */
        m = gguf_model_open(&p);
        if (!m) continue;
        e = exact_make(m, 10000.0);
        exact_compare(&e, moe_kinds[a / 2], 40);
        sm_model_close(m);
    }
}

/* --- the rules -------------------------------------------------------------------------------- */

typedef struct moe_route {
    float logits[6];
    int n, used, norm;
    float scale;
    int experts[6];
    double weights[6]; /* NAN: a NaN */
} moe_route;

static void moe_routes_by_the_rules(void) {
    const float nan = sm__from_bits(0x7fc00000u), inf = SM__INFINITY;
    const moe_route rows[] = {
        {{0, 2, 1, 2, 0, 1}, 6, 3, 0, 1, {1, 3, 2}, {0.332620, 0.332620, 0.122364}},
        {{0, 2, 1, 2, 0, 1}, 6, 3, 1, 1, {1, 3, 2}, {0.422319, 0.422319, 0.155362}},
        {{0, 2, 1, 2, 0, 1}, 6, 3, 1, 2.5f, {1, 3, 2}, {1.055797, 1.055797, 0.388406}},
        {{5, 5, 5, 5, 5, 5}, 6, 4, 1, 1, {0, 1, 2, 3}, {0.25, 0.25, 0.25, 0.25}},
        {{3, 2, 1, 0}, 4, 4, 0, 1, {0, 1, 2, 3}, {0.643914, 0.236883, 0.087144, 0.032059}},
        {{0, 1, 2, 3}, 4, 4, 0, 1, {3, 2, 1, 0}, {0.643914, 0.236883, 0.087144, 0.032059}},
        {{1, nan, 0}, 3, 2, 1, 1, {0, 2}, {0.731059, 0.268941}},
        {{nan, 1, nan}, 3, 2, 1, 1, {1, 0}, {1, 0}},
        {{nan, nan, nan}, 3, 2, 1, 1, {0, 1}, {NAN, NAN}},
        {{nan, nan, nan}, 3, 2, 0, 1, {0, 1}, {NAN, NAN}},
        {{-inf, 1, -inf}, 3, 2, 1, 1, {1, 0}, {1, 0}},
        {{0, inf, 0}, 3, 2, 1, 1, {0, 1}, {NAN, NAN}},
        {{-1000, 0, -2000}, 3, 3, 1, 1, {1, 0, 2}, {1, 0, 0}},
        {{7}, 1, 1, 0, 1, {0}, {1}},
    };
    static sm_ctx ctx;
    static sm_model m;
    size_t i;
    int j;
    for (i = 0; i < sizeof rows / sizeof *rows; i++) {
        const moe_route *r = &rows[i];
        float scores[6], weights[12];
        int experts[12];
        sm__step s;
        memset(&s, 0, sizeof s);
        memcpy(scores, r->logits, sizeof scores);
        memset(experts, 0xff, sizeof experts);
        m.hp.n_experts = r->n;
        m.hp.n_used = r->used;
        m.hp.expert_norm = r->norm;
        m.hp.expert_scale = r->scale;
        sm__kernels_init(&ctx.kernels, i % 2 ? SM_ISA_SCALAR : SM_ISA_AUTO);
        ctx.model = &m;
        ctx.scratch = (unsigned char *)scores;
        ctx.expert_weights = weights;
        ctx.experts = experts;
        sm__tile_route(&ctx, &s, 0);
        for (j = 0; j < r->used; j++) {
            double w = r->weights[j];
            if (experts[j] != r->experts[j]) FAIL("row %d: expert %d", (int)i, experts[j]);
            if (w != w ? weights[j] == weights[j] : !(fabs((double)weights[j] - w) <= 2e-6))
                FAIL("row %d: weight %d is %.9g", (int)i, j, (double)weights[j]);
        }
        CHECK(experts[r->used] == -1);
    }
}

/* Every slot is one row's, in runs of ascending experts, of ascending rows in them. */
static void moe_sorts_by_expert(void) {
    enum { ROWS = 50, USED = 3, EXPERTS = 9 };
    static sm_ctx ctx;
    static sm_model m;
    static int experts[ROWS * USED], slots[ROWS * USED], rows[ROWS * USED];
    static sm__run runs[EXPERTS];
    int trial, i, j, n, at;
    m.hp.n_experts = EXPERTS;
    m.hp.n_used = USED;
    ctx.model = &m;
    ctx.experts = experts;
    ctx.slots = slots;
    ctx.slot_rows = rows;
    ctx.runs = runs;
    for (trial = 0; trial < 100; trial++) {
        ctx.n_chunk = 1 + random_below(ROWS);
        n = ctx.n_chunk * USED;
        for (i = 0; i < ctx.n_chunk; i++) { /* different ones of a row */
            int first = random_below(trial % 2 ? EXPERTS : 2);
            for (j = 0; j < USED; j++) experts[i * USED + j] = (first + 2 * j) % EXPERTS;
        }
        sm__tile_sort(&ctx);
        for (i = at = 0; i < ctx.n_runs; i++) {
            CHECK(runs[i].slot == at && runs[i].n > 0);
            CHECK(i == 0 || runs[i].expert > runs[i - 1].expert);
            for (j = 0; j < runs[i].n; j++, at++)
                CHECK(j == 0 || rows[at] > rows[at - 1]);
        }
        CHECK(at == n);
        for (i = 0; i < n; i++) {
            CHECK(rows[slots[i]] == i / USED);
            for (j = 0; slots[i] >= runs[j].slot + runs[j].n; j++) {
            }
            CHECK(runs[j].expert == experts[i]);
        }
    }
}

/* --- the files -------------------------------------------------------------------------------- */

/* A tensor an expert, as files of early 2024 have them. */
static void moe_of_old_files_is_the_same(void) {
    int t, n_vocab = 320;
    for (t = 0; t < 2; t++) {
        gguf_model_params p = moe_params("mixtral", t ? SM_TYPE_Q8_0 : SM_TYPE_F32);
        run_way w = run_plain(SM_TYPE_F16);
        float *want = run_rows(8, n_vocab), *got = run_rows(8, n_vocab);
        int32_t tokens[8];
        for (p.apart = 0; p.apart < 2; p.apart++) {
            sm_model *m = gguf_model_open(&p);
            eval_tokens(tokens, 8, n_vocab);
            if (m) run_logits(m, &w, tokens, 8, p.apart ? got : want);
            sm_model_close(m);
        }
        SAME("apart", got, want, 8, n_vocab);
        free(got);
        free(want);
    }
}

/* The file with every `from` in it made a `to` of the same length. */
static sm_status moe_open_edited(gguf_builder *g, const char *from, const char *to,
                                 sm_error *error) {
    size_t n, i, length = strlen(from);
    uint8_t *file = gguf_finish(g, &n);
    sm_model *m = NULL;
    sm_status status;
    for (i = 0; *from && i + length <= n; i++)
        if (memcmp(file + i, from, length) == 0) memcpy(file + i, to, length);
    status = files_open(file, n, &m, error);
    CHECK((m != NULL) == (status == SM_OK));
    sm_model_close(m);
    free(file);
    return status;
}

static void moe_refuse(int line, gguf_builder *g, const char *from, const char *to, sm_status want,
                       const char *words) {
    sm_error error;
    sm_status status = moe_open_edited(g, from, to, &error);
    if (status != want || (want && !strstr(error.text, words)))
        FAIL("line %d: %d, %s", line, (int)status, error.text);
}
#define MOE_REFUSE(g, from, to, want, words) moe_refuse(__LINE__, g, from, to, want, words)

static gguf_builder moe_counts(const char *kind, uint32_t experts, uint32_t used) {
    gguf_model_params p = moe_params(kind, SM_TYPE_F32);
    gguf_builder g;
    p.n_experts = 0; /* no keys */
    p.n_layers = 1;
    g = gguf_model_begin(&p);
    gguf_key_u32(&g, gguf_arch_key(p.arch, "expert_count"), experts);
    if (used != 99) gguf_key_u32(&g, gguf_arch_key(p.arch, "expert_used_count"), used);
    return g;
}

static void moe_bad_keys_are_refused(void) {
    static const struct {
        const char *kind;
        uint32_t experts, used;
        const char *words;
    } rows[] = {
        {"mixtral", 4, 0, "key llama.expert_used_count is 0, not within 1 and 4"},
        {"mixtral", 4, 5, "key llama.expert_used_count is 5, not within 1 and 4"},
        {"mixtral", 4, 99, "key llama.expert_used_count is missing"},
        {"mixtral", 4, 0xffffffffu, "key llama.expert_used_count is out of range"},
        {"mixtral", 1025, 1, "key llama.expert_count is 1025, not within 1 and 1024"},
        {"mixtral", 0x7fffffffu, 0x7fffffffu, "key llama.expert_count is 2147483647"},
        {"mixtral", 0xffffffffu, 1, "key llama.expert_count is out of range"},
        {"qwen2moe", 0, 1, "key qwen2moe.expert_count is 0, not within 1 and 1024"},
        {"qwen3moe", 1, 2, "key qwen3moe.expert_used_count is 2, not within 1 and 1"},
    };
    gguf_model_params p = moe_params("qwen2moe", SM_TYPE_F32);
    gguf_builder g;
    size_t i;
    for (i = 0; i < sizeof rows / sizeof *rows; i++) {
        g = moe_counts(rows[i].kind, rows[i].experts, rows[i].used);
        MOE_REFUSE(&g, "", "", SM_ERR_FORMAT, rows[i].words);
    }
    g = moe_counts("mixtral", 0, 0); /* no mixture */
    MOE_REFUSE(&g, "", "", SM_OK, "");
    g = moe_counts("qwen2", 4, 2);
    MOE_REFUSE(&g, "", "", SM_ERR_UNSUPPORTED, "key qwen2.expert_count is 4: no such mixture");
    g = gguf_model_begin(&p);
    MOE_REFUSE(&g, "expert_count", "expert_cOunt", SM_ERR_FORMAT,
               "key qwen2moe.expert_count is missing");
    g = gguf_model_begin(&p);
    gguf_key_u32(&g, "qwen2moe.expert_gating_func", 2);
    MOE_REFUSE(&g, "", "", SM_ERR_UNSUPPORTED, "key qwen2moe.expert_gating_func is 2, not softmax");
    g = gguf_model_begin(&p);
    gguf_key_f32(&g, "qwen2moe.expert_weights_scale", sm__from_bits(0x7fc00000u));
    MOE_REFUSE(&g, "", "", SM_ERR_FORMAT, "key qwen2moe.expert_weights_scale");
    p.n_ff_expert = 1 << 21;
    g = gguf_make(3);
    gguf_model_keys(&g, &p);
    gguf_model_norm(&g, -1, "output_norm", p.n_embd, 0);
    MOE_REFUSE(&g, "", "", SM_ERR_FORMAT, "key qwen2moe.expert_feed_forward_length is 2097152");
}

static void moe_bad_tensors_are_refused(void) {
    gguf_model_params p = moe_params("qwen2moe", SM_TYPE_F32), wrong;
    gguf_builder g;
    static const char *const names[] = {"ffn_gate_inp.weight",  "ffn_gate_exps",
                                        "ffn_up_exps",          "ffn_down_exps",
                                        "ffn_gate_inp_shexp",   "ffn_gate_shexp",
                                        "ffn_up_shexp",         "ffn_down_shexp"};
    char from[64], to[64], words[96];
    size_t i;
    for (i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(from, sizeof from, "blk.1.%s", names[i]);
        snprintf(to, sizeof to, "blk.1.%s", names[i]);
        snprintf(words, sizeof words, "tensor %s%s is missing", from,
                 strchr(names[i], '.') ? "" : ".weight");
        to[8] = 'X';
        g = gguf_model_begin(&p);
        MOE_REFUSE(&g, from, to, SM_ERR_FORMAT, words);
    }
    for (i = 0; i < 4; i++) { /* the keys say one thing, the tensors another */
        static const char *const says[] = {
            "tensor blk.0.ffn_gate_inp.weight is [64, 6], expected [64, 5]",
            "tensor blk.0.ffn_gate_exps.weight is [64, 64, 5], expected [64, 32, 5]",
            "tensor blk.0.ffn_gate_shexp.weight is [64, 32], expected [64, 96]",
            "tensor blk.0.ffn_gate_exps.weight is [64, 160], expected [64, 32, 5]"};
        wrong = p;
        wrong.n_layers = 1;
        g = gguf_make(3);
        gguf_model_keys(&g, &wrong);
        if (i == 0) wrong.n_experts = 6;
        if (i == 1) wrong.n_ff_expert = 64;
        if (i == 2) wrong.n_ff_shared = 32;
        gguf_model_matrix(&g, &wrong, -1, "token_embd", p.n_vocab, p.n_embd, 0);
        if (i == 3) { /* two dimensions */
            gguf_model_matrix(&g, &wrong, 0, "ffn_gate_exps", 5 * 32, 64, 0);
            gguf_model_norm(&g, 0, "ffn_norm", 64, 0);
            gguf_model_matrix(&g, &wrong, 0, "ffn_gate_inp", 5, 64, 0);
            wrong.n_experts = 0; /* then this is not written below */
            wrong.n_ff = 32;
        }
        if (i == 3) {
            gguf_model_norm(&g, 0, "attn_norm", 64, 0);
            gguf_model_matrix(&g, &wrong, 0, "attn_q", 64, 64, 1);
            gguf_model_matrix(&g, &wrong, 0, "attn_k", 32, 64, 1);
            gguf_model_matrix(&g, &wrong, 0, "attn_v", 32, 64, 1);
            gguf_model_matrix(&g, &wrong, 0, "attn_output", 64, 64, 0);
        } else {
            gguf_model_layer(&g, &wrong, 0);
        }
        gguf_model_norm(&g, -1, "output_norm", p.n_embd, 0);
        MOE_REFUSE(&g, "", "", SM_ERR_FORMAT, says[i]);
    }
    p = moe_params("mixtral", SM_TYPE_F32);
    p.apart = 1;
    g = gguf_model_begin(&p);
    MOE_REFUSE(&g, "blk.1.ffn_up.4.", "blk.1.ffn_up.5.", SM_ERR_FORMAT,
               "tensor blk.1.ffn_up.4.weight is missing");
}

/* decode_bytes is what the steps of one token read; of many tokens every chosen expert is read
 * once. */
static void moe_counts_what_is_read(void) {
    int a, rows, i;
    for (a = 0; a < MOE_KINDS; a++) {
        sm_model *m = moe_model(moe_kinds[a], SM_TYPE_Q8_0);
        const sm_model_info *info = sm_model_get_info(m);
        size_t embed = m->weights->embed.stride;
        size_t expert = 3 * m->weights->layers[0].up.stride * (size_t)m->weights->layers[0].up.n;
        CHECK(info->n_experts == 5 && info->n_experts_used == 3);
        CHECK(info->decode_bytes < info->weight_bytes - 4 * expert);
        for (rows = 1; rows <= 16; rows += 15) {
            sm_ctx_params p = sm_ctx_default();
            sm_ctx *ctx;
            sm_profile s;
            int32_t tokens[16];
            uint64_t bytes = 0, ops = 0, experts = 0;
            p.n_threads = 1;
            p.profile = 1;
            run_tokens(m, tokens, 16);
            if ((ctx = run_ctx(m, &p)) == NULL) continue;
            CHECK_STATUS(run_eval(ctx, 0, tokens, rows), SM_OK);
            for (i = 0; sm_ctx_profile(ctx, i, &s) == SM_OK; i++) {
                bytes += s.bytes;
                ops += s.ops;
                if (!strncmp(s.step, "experts_", 8)) experts += s.bytes;
            }
            if (rows == 1) CHECK(bytes == info->decode_bytes - embed);
            CHECK(experts <= 2 * 5 * expert && experts >= 2 * 3 * expert);
            CHECK(rows == 1 || bytes - experts == info->decode_bytes - embed - 2 * 3 * expert);
            CHECK(ops >= (uint64_t)rows * 2 * 2 * 3 * 3 * 32 * 64);
            sm_ctx_destroy(ctx);
        }
        sm_model_close(m);
    }
}

#ifndef SMALLMIND_NO_WRITER
/* Stacks are encoded row by row, routers stay F32, and the mixes are those that llama.cpp's own
 * quantiser makes of such a file. */
static void moe_is_quantised(void) {
    gguf_model_params gp = moe_params("qwen2moe", SM_TYPE_F32);
    static const struct {
        const char *name;
        int type;
    } mix[] = {{"blk.0.attn_k.weight", SM_TYPE_Q8_0},
               {"blk.0.attn_v.weight", SM_TYPE_Q8_0},
               {"blk.0.attn_q.weight", SM_TYPE_Q4_K},
               {"blk.0.attn_output.weight", SM_TYPE_Q5_K},
               {"blk.0.ffn_down_exps.weight", SM_TYPE_Q4_K},
               {"blk.1.ffn_down_exps.weight", SM_TYPE_Q6_K},
               {"blk.1.ffn_down_shexp.weight", SM_TYPE_Q6_K},
               {"blk.0.ffn_up_exps.weight", SM_TYPE_Q4_K},
               {"output.weight", SM_TYPE_Q6_K}};
    sm_model *m = gguf_model_open(&gp), *back;
    static sm__quantizer q;
    write_sink s = write_empty();
    sm_quantize_params p;
    sm_tensor a, b;
    size_t r, j;
    int i;
    back = quantize_model(m, SM_TYPE_Q8_0, &s);
    for (i = 0; back && sm_model_tensor(m, i, &a) == SM_OK; i++) {
        float row[96];
        uint8_t bytes[400];
        int vector = a.n_dims == 1, keep = vector || strstr(a.name, "gate_inp") != NULL;
        sm_model_tensor(back, i, &b);
        CHECK(b.n_dims == a.n_dims && b.dims[2] == a.dims[2] && a.dims[0] <= 96);
        CHECK(b.type == (keep ? SM_TYPE_F32 : SM_TYPE_Q8_0));
        for (r = 0; r < (size_t)(a.dims[1] * a.dims[2]) && a.dims[0] <= 96; r++) {
            size_t stride = b.bytes / (size_t)(b.dims[1] * b.dims[2]);
            memcpy(row, (const uint8_t *)a.data + 4 * r * (size_t)a.dims[0], 4 * (size_t)a.dims[0]);
            sm_type_encode(b.type, row, bytes, (size_t)a.dims[0]);
            if (memcmp(bytes, (const uint8_t *)b.data + r * stride, stride)) {
                FAIL("%s, row %d", a.name, (int)r);
                break;
            }
        }
    }
    sm_model_close(back);
    sm_model_close(m);
    write_drop(&s);
    gp.n_experts = 8;
    m = gguf_model_open(&gp);
    memset(&q, 0, sizeof q);
    p = quantize_to(&s, SM_TYPE_Q4_K);
    p.mix = SM_MIX_M;
    q.model = m;
    q.params = &p;
    for (j = 0; m && j < sizeof mix / sizeof *mix; j++)
        if (sm__quantize_mix(&q, mix[j].name) != mix[j].type) FAIL("%s", mix[j].name);
    sm_model_close(m);
}
#endif

#ifndef SMALLMIND_NO_TRAIN
static void moe_is_not_trained(void) {
    sm_model *m = moe_model("mixtral", SM_TYPE_F32);
    sm_trainer_params p = sm_trainer_default();
    sm_trainer *t = NULL;
    sm_error error;
    int rank;
    for (rank = 0; rank < 8 && m; rank += 4) {
        p.model = m;
        p.lora_rank = rank;
        CHECK_STATUS(sm_trainer_create(&p, &t, &error), SM_ERR_UNSUPPORTED);
        CHECK_STR(error.text, "trainer: llama with 5 experts");
    }
    sm_model_close(m);
    p = sm_trainer_default();
    p.arch = "qwen3moe";
    p.n_vocab = p.n_ctx = p.n_embd = 32;
    p.n_layers = p.n_heads = 1;
    CHECK_STATUS(sm_trainer_create(&p, &t, &error), SM_ERR_UNSUPPORTED);
    CHECK_STR(error.text, "trainer: a model of architecture qwen3moe with this layout");
}
#endif

static const test tests_moe[] = {
    {"moe: cut in any way, at any level, the bits are the same", moe_cut_anyhow_has_the_same_bits},
    {"moe: rows of other sequences change nothing", moe_neighbours_change_nothing},
    {"moe: agrees with a pass in double", moe_agrees_with_double},
    {"moe: rows are routed by the rules", moe_routes_by_the_rules},
    {"moe: slots are sorted by expert", moe_sorts_by_expert},
    {"moe: a tensor an expert is the same", moe_of_old_files_is_the_same},
    {"moe: keys that do not fit are refused", moe_bad_keys_are_refused},
    {"moe: tensors that do not fit are refused", moe_bad_tensors_are_refused},
    {"moe: counts the experts that are read", moe_counts_what_is_read},
#ifndef SMALLMIND_NO_WRITER
    {"moe: is quantised", moe_is_quantised},
#endif
#ifndef SMALLMIND_NO_TRAIN
    {"moe: is not trained", moe_is_not_trained},
#endif
};
