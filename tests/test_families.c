/* test_families.c - what every row of gguf_families must keep: its known bits, the same bits
 * however the work is cut, errors that name what is wrong, and a trainer that refuses what it does
 * not know. A new row is tested by being there; its golden hash is printed by the failing test, or,
 * of all rows, with GOLDEN=1 in the environment.
 * That the bits are right is shown by parity.sh: families.py and llama.cpp have these logits.
 * Included by test.c after test_eval.c. */
#include "runs.h"

enum { FAMILY_N = 50 }; /* tokens: twice the windows */

/* A number of a family's own, which other rows do not change. */
static int family_number(int i) {
    return (int)(hash_bytes(gguf_families[i].name, strlen(gguf_families[i].name)) >> 8 & 0xffff);
}

/* A family's type and KV type. Two share a norm among readers of both kinds of blocks; encoding
 * K-quants takes too long for more. */
static const int family_types[] = {SM_TYPE_F32, SM_TYPE_Q8_0, SM_TYPE_BF16, SM_TYPE_Q4_0};

static gguf_model_params family_params(int i) {
    const char *name = gguf_families[i].name;
    int mixed = !strcmp(name, "phi2") || !strcmp(name, "cohere2");
    gguf_model_params p = gguf_model_default(name, mixed ? SM_TYPE_Q5_K
                                                    : family_types[family_number(i) % 4]);
    if (mixed) p.n_layers = 1;
    p.vocab = GGUF_NO_VOCAB;
    return p;
}

static sm_model *family_model(int i) {
    gguf_model_params p = family_params(i);
    return gguf_model_open(&p);
}

static int family_kv(int i) { return family_number(i) / 4 % 2 ? SM_TYPE_F16 : SM_TYPE_F32; }

/* --- the bits --------------------------------------------------------------------------------- */

static const struct {
    const char *name;
    uint64_t hash; /* FNV-1a of the rows of logits of fixed tokens */
} family_golden[] = {
    {"llama", 0x2fa98fd3d7efbac9u},
    {"mistral", 0x43800a8840801661u},
    {"qwen2", 0x14d392da5e2f3639u},
    {"qwen3", 0x9e39eca0d4236001u},
    {"gpt2", 0x8265e283891d478fu},
    {"cs336", 0x644446b2322b4bafu},
    {"mistral-window", 0x665bb6610bb81d70u},
    {"phi2", 0x190dca90c1757a78u},
    {"phi2-fused", 0x5aff5a645ff77d38u},
    {"phi3", 0x3c36214efa789c80u},
    {"phi3-window", 0x4321fc9701778131u},
    {"phi3-long", 0xd0e037b925aad60au},
    {"gemma", 0x7a67602af9c6f3d2u},
    {"gemma2", 0x360e52e346963183u},
    {"gemma3", 0x7698e348f0c6cf5du},
    {"olmo2", 0xce5c3639f5cbbff6u},
    {"olmo3", 0x48f46a3bcb24628cu},
    {"granite", 0x60d8fc54d88c8e04u},
    {"starcoder2", 0x8abce3b80b52ba21u},
    {"gptneox", 0x9c8a26f2edff150bu},
    {"gptneox-serial", 0x5435b6b6b3d047b7u},
    {"stablelm", 0x26921f73e737fb2eu},
    {"stablelm-12b", 0x8b7a320ae3f50d2bu},
    {"smollm3", 0x0a40370f1c958be3u},
    {"bitnet", 0x3efe786a7335ad48u},
    {"bitnet-relu2", 0x3c2ef76054436fd5u},
    {"internlm2", 0xc4c8977abb5ed01fu},
    {"exaone", 0x1a9f12a927b0e1a8u},
    {"exaone4", 0x40f805adb46753afu},
    {"exaone4-window", 0xcae3359df619bce4u},
    {"command-r", 0xa3029264d45bdca7u},
    {"command-r-plus", 0xf5045a57ddac976eu},
    {"cohere2", 0x8ac017f85639224eu},
    {"mixtral", 0x1fc0042513fe29f4u},
    {"qwen2moe", 0x2a5682dfc8234f5au},
    {"qwen3moe", 0x303e167cd65fab28u},
    {"olmoe", 0xf72ca0b588898b67u},
    {"granitemoe", 0xedd176df4155c60au},
    {"granitemoe-shared", 0xce77bef9d9eff330u},
};
#define N_GOLDEN ((int)(sizeof family_golden / sizeof *family_golden))

static void family_bits_are_the_golden_ones(void) {
    int32_t tokens[FAMILY_N];
    int i, g;
    for (i = 0; i < GGUF_N_FAMILIES; i++) {
        sm_model *m = family_model(i);
        run_way w = run_plain(family_kv(i));
        int n_vocab = m ? sm_model_get_info(m)->n_vocab : 1;
        float *got = run_rows(FAMILY_N, n_vocab);
        uint64_t h = 0;
        if (m) {
            eval_tokens(tokens, FAMILY_N, n_vocab);
            run_logits(m, &w, tokens, FAMILY_N, got);
            h = hash_bytes(got, (size_t)FAMILY_N * (size_t)n_vocab * sizeof *got);
        }
        for (g = 0; g < N_GOLDEN && strcmp(family_golden[g].name, gguf_families[i].name); g++) {
        }
        if (getenv("GOLDEN"))
            printf("    {\"%s\", 0x%08x%08xu},\n", gguf_families[i].name, (unsigned)(h >> 32),
                   (unsigned)h);
        else if (g == N_GOLDEN || h != family_golden[g].hash)
            FAIL("{\"%s\", 0x%08x%08xu},", gguf_families[i].name, (unsigned)(h >> 32), (unsigned)h);
        free(got);
        sm_model_close(m);
    }
}

static void family_bits_do_not_depend_on_cuts(void) {
    int isas[8], n_isas = run_isas(isas), i, k;
    for (i = 0; i < GGUF_N_FAMILIES; i++) {
        sm_model *m = family_model(i);
        run_way w = run_plain(family_kv(i));
        run_trial r = run_begin_plainly(m, gguf_families[i].name, FAMILY_N, w);
        for (k = 1; k < n_isas; k++) { /* levels, and chunks of the batch */
            w.isa = isas[k];
            w.n_batch = k % 2 ? 0 : 7;
            run_try(&r, &w);
        }
        w.isa = i % 3 ? SM_ISA_AUTO : SM_ISA_SCALAR; /* tiles for three members */
        w.n_threads = 3;
        w.n_batch = 16;
        run_try(&r, &w);
        w.n_batch = 0; /* calls, sliced into tiles */
        w.call = 33;
        w.sliced = 1;
        w.budget = i % 2 ? 0 : 20;
        run_try(&r, &w);
        run_end(&r);
        sm_model_close(m);
    }
}

/* Windows that begin and end anywhere in the parts of 256 keys; one wider than a part. Few rows are
 * split by parts, many walk through them in phases. */
static void family_windows_cross_parts(void) {
    enum { N = 330 };
    static const char *const names[] = {"gemma2", "mistral-window"};
    static const int windows[] = {24, 300}, batches[] = {1, 5, 256};
    int k, b;
    for (k = 0; k < 4; k++) {
        gguf_model_params p = gguf_model_default(names[k % 2], SM_TYPE_F32);
        gguf_family family = *p.family;
        run_way w = run_plain(k % 2 ? SM_TYPE_F16 : SM_TYPE_F32);
        run_trial r;
        sm_model *m;
        family.window = windows[k / 2];
        p.family = &family;
        p.n_ctx = N;
        p.vocab = GGUF_NO_VOCAB;
        m = gguf_model_open(&p);
        w.n_batch = batches[0];
        r = run_begin(m, names[k % 2], N, &w);
        for (b = 0; b < 3; b++) {
            w.n_batch = batches[b];
            w.n_threads = 1 + b % 2;
            if (b) run_try(&r, &w);
            w.window_keep = 1 + 40 * b; /* layers that let go of what is behind their window */
            w.call = 45 * b;
            run_try(&r, &w);
            w.window_keep = w.call = 0;
        }
        run_end(&r);
        sm_model_close(m);
    }
}

/* What is before the window of every layer does not matter, and what is in it does. */
static void family_window_is_the_end_of_sight(void) {
    enum { N = 60, WINDOW = 24 };
    gguf_model_params p = gguf_model_default("mistral-window", SM_TYPE_F32);
    run_way w = run_plain(SM_TYPE_F32);
    float *a = run_rows(N, 320), *b = run_rows(N, 320);
    int32_t tokens[N];
    int reach = 1 + 2 * (WINDOW - 1), t; /* of two layers, in tokens */
    sm_model *m;
    p.vocab = GGUF_NO_VOCAB;
    m = gguf_model_open(&p);
    if (m) {
        run_tokens(m, tokens, N);
        run_logits(m, &w, tokens, N, a);
        tokens[0] = (tokens[0] + 1) % 320;
        run_logits(m, &w, tokens, N, b);
        for (t = 0; t < N; t++)
            CHECK((memcmp(a + t * 320, b + t * 320, 320 * sizeof *a) == 0) == (t >= reach));
    }
    free(a);
    free(b);
    sm_model_close(m);
}

/* Layers that keep only their window: less memory, the same logits after forks, passes that were
 * undone, and as much of a rewind as was promised; what was let go is refused, and can be computed
 * anew. */
static void family_windows_keep_little(void) {
    enum { N = 900, V = 320 };
    static const char *const names[] = {"gemma2", "mistral-window"};
    static int32_t tokens[N];
    float *want = run_rows(N, V);
    int k;
    for (k = 0; k < 2; k++) {
        gguf_model_params gp = gguf_model_default(names[k], SM_TYPE_F32);
        gguf_family family = *gp.family;
        sm_ctx_params p = sm_ctx_default();
        run_way w = run_plain(SM_TYPE_F32);
        sm_plan all, less;
        sm_error error;
        sm_model *m;
        sm_ctx *ctx;
        sm_batch b;
        family.window = 24;
        gp.family = &family;
        gp.n_ctx = N;
        gp.vocab = GGUF_NO_VOCAB;
        m = gguf_model_open(&gp);
        run_tokens(m, tokens, N);
        run_logits(m, &w, tokens, N, want);
        p.n_ctx = N, p.n_seqs = 2, p.n_batch = 32, p.n_threads = 1;
        p.key_type = p.value_type = SM_TYPE_F32;
        CHECK_STATUS(sm_ctx_plan(m, &p, &all, &error), SM_OK);
        p.window_keep = 100;
        CHECK_STATUS(sm_ctx_plan(m, &p, &less, &error), SM_OK);
        CHECK(less.kv_bytes < all.kv_bytes * 3 / 4);
        ctx = run_ctx(m, &p);
        memset(&b, 0, sizeof b);
        b.tokens = tokens, b.n = 500;
        CHECK_STATUS(sm_eval(ctx, &b), SM_OK);
        SAME(names[k], sm_logits(ctx, -1), want + 499 * V, 1, V);
        CHECK_STATUS(sm_seq_fork(ctx, 0, 1), SM_OK);
        b.tokens = tokens + 500, b.n = 300; /* a pass of many chunks that does not happen */
        CHECK_STATUS(sm_eval_begin(ctx, &b), SM_OK);
        CHECK_STATUS(sm_eval_step(ctx, 200), SM_PENDING);
        sm_cancel(ctx, sm_eval_pass(ctx));
        CHECK_STATUS(sm_eval_step(ctx, -1), SM_ERR_CANCELLED);
        CHECK(sm_seq_length(ctx, 0) == 500);
        b.n = 400;
        CHECK_STATUS(sm_eval(ctx, &b), SM_OK);
        SAME(names[k], sm_logits(ctx, -1), want + 899 * V, 1, V);
        CHECK_STATUS(sm_seq_rewind(ctx, 0, 700), SM_ERR_UNSUPPORTED);
        CHECK(sm_seq_length(ctx, 0) == 900);
        CHECK_STATUS(sm_seq_rewind(ctx, 0, 800), SM_OK);
        b.tokens = tokens + 800, b.n = 100;
        CHECK_STATUS(sm_eval(ctx, &b), SM_OK);
        SAME(names[k], sm_logits(ctx, -1), want + 899 * V, 1, V);
        CHECK_STATUS(run_eval(ctx, 1, tokens + 500, 333), SM_OK); /* the fork goes its own way */
        SAME(names[k], sm_logits(ctx, -1), want + 832 * V, 1, V);
        CHECK_STATUS(sm_seq_release(ctx, 0), SM_OK);
        CHECK_STATUS(run_eval(ctx, 0, tokens, 70), SM_OK);
        SAME(names[k], sm_logits(ctx, -1), want + 69 * V, 1, V);
        CHECK_STATUS(sm_seq_release(ctx, 0), SM_OK);
        CHECK_STATUS(sm_seq_release(ctx, 1), SM_OK);
        CHECK(sm_ctx_get_stats(ctx).pool.outstanding_blocks <= 1); /* the row of logits */
        sm_ctx_destroy(ctx);
        sm_model_close(m);
    }
    free(want);
}

/* --- errors ----------------------------------------------------------------------------------- */

static sm_status family_open(const uint8_t *file, size_t bytes, sm_error *error) {
    sm_model_params p = sm_model_default();
    sm_model *m = NULL;
    sm_status status;
    p.file.data = file;
    p.file.bytes = bytes;
    p.allocator = heap_allocator();
    status = sm_model_open(&p, &m, error);
    sm_model_close(m);
    return status;
}

/* Where a tensor's name is in the file. */
static uint8_t *family_find(uint8_t *file, size_t bytes, const char *name) {
    size_t i, n = strlen(name);
    for (i = 8; i + n < bytes; i++)
        if (memcmp(file + i, name, n) == 0 && file[i - 8] == n) return file + i;
    return NULL;
}

/* Every tensor that a family's file has is missed by its name, but for those it may lack; so is
 * a shape that contradicts the hyperparameters. */
static void family_missing_tensors_are_named(void) {
    static const char *const optional[] = {".bias",         ".scale",   "output.weight",
                                           "ffn_norm.weight", "_norm.weight", NULL};
    int i, t, missed;
    for (i = 0; i < GGUF_N_FAMILIES; i++) {
        gguf_model_params p = family_params(i);
        sm_model *m = family_model(i);
        size_t bytes;
        uint8_t *file = gguf_model(&p, &bytes), *at;
        for (t = missed = 0; m && t < sm_model_get_info(m)->n_tensors; t++) {
            const char *name = m->tensors[t].name;
            sm_error error;
            sm_status status;
            int k, may = 0;
            if (strstr(name, "blk.") && !strstr(name, "blk.0.")) continue;
            if (!CHECK((at = family_find(file, bytes, name)) != NULL)) break;
            at[strlen(name) - 1] ^= 1;
            status = family_open(file, bytes, &error);
            at[strlen(name) - 1] ^= 1;
            for (k = 0; optional[k]; k++) may |= strstr(name, optional[k]) != NULL;
            if (status != SM_OK) missed++;
            else if (!may) FAIL("%s: %s is not missed", p.family->name, name);
            if (status != SM_OK && (status != SM_ERR_FORMAT || !strstr(error.text, "is missing")))
                FAIL("%s without %s: %s", p.family->name, name, error.text);
            at += strlen(name) + 4; /* behind the count of dimensions */
            at[0] ^= 32;
            status = family_open(file, bytes, &error);
            at[0] ^= 32;
            if (status == SM_OK || !strstr(error.text, name))
                FAIL("%s with another shape of %s: %s", p.family->name, name, error.text);
        }
        CHECK(missed >= 8);
        free(file);
        sm_model_close(m);
    }
}

/* A key that must be there, or that has a value out of its range, is named. */
static void family_bad_keys_are_named(void) {
    static const struct {
        const char *family, *key; /* key: real keys get `value`, the others `number` */
        float value;
        uint32_t number;
        const char *text;
    } cases[] = {
        {"granite", "residual_scale", -1.0f, 0, "scale of residuals"},
        {"granite", "embedding_scale", 1e-9f, 0, "scale of embeddings"},
        {"granite", "attention.scale", 1e9f, 0, "scale of attention"},
        {"granite", "logit_scale", 1e9f, 0, "scale of logits"},
        {"gemma2", "attn_logit_softcapping", -1.0f, 0, "soft cap"},
        {"gemma2", "final_logit_softcapping", 1e9f, 0, "soft cap"},
        {"gemma3", "rope.freq_base_swa", 0.5f, 0, "local base"},
        {"gemma3", "attention.sliding_window", 0.0f, 1u << 30, "sliding window"},
        {"gemma3", "attention.sliding_window", 0.0f, 0xffffffffu, "sliding_window"},
    };
    static const char *const needed[][2] = {{"gemma2", "attention.sliding_window"},
                                            {"gemma2", "attn_logit_softcapping"},
                                            {"gemma2", "final_logit_softcapping"},
                                            {"granite", "logit_scale"},
                                            {"gptneox", "use_parallel_residual"}};
    sm_error error;
    size_t bytes;
    int i;
    for (i = 0; i < (int)(sizeof cases / sizeof *cases); i++) {
        gguf_model_params p = gguf_model_default(cases[i].family, SM_TYPE_F32);
        gguf_family family = *p.family;
        gguf_builder g;
        uint8_t *file;
        p.family = &family; /* without the key, which comes below */
        family.residual_scale = family.embed_scale = family.score_scale = 0;
        if (strstr(cases[i].key, "logit_scale")) family.logit_scale = 0;
        if (strstr(cases[i].key, "attn_logit")) family.score_cap = 0;
        if (strstr(cases[i].key, "final_logit")) family.logit_cap = 0;
        if (strstr(cases[i].key, "sliding_window")) family.window = 0;
        g = gguf_model_begin(&p);
        if (cases[i].number) gguf_key_u32(&g, gguf_arch_key(p.arch, cases[i].key), cases[i].number);
        else gguf_key_f32(&g, gguf_arch_key(p.arch, cases[i].key), cases[i].value);
        file = gguf_finish(&g, &bytes);
        if (!CHECK_STATUS(family_open(file, bytes, &error), SM_ERR_FORMAT) ||
            !strstr(error.text, cases[i].text))
            FAIL("%s.%s: %s", cases[i].family, cases[i].key, error.text);
        free(file);
    }
    for (i = 0; i < (int)(sizeof needed / sizeof *needed); i++) {
        gguf_model_params p = gguf_model_default(needed[i][0], SM_TYPE_F32);
        uint8_t *file = gguf_model(&p, &bytes);
        uint8_t *at = family_find(file, bytes, gguf_arch_key(p.arch, needed[i][1]));
        if (!CHECK(at != NULL)) continue;
        at[strlen(p.arch) + 1] ^= 1;
        CHECK_STATUS(family_open(file, bytes, &error), SM_ERR_FORMAT);
        if (!strstr(error.text, needed[i][1])) FAIL("%s: %s", needed[i][0], error.text);
        free(file);
    }
}

/* The largest models of two families are known by their layers, and scale scores otherwise. */
static void family_large_models_scale_otherwise(void) {
    static const struct {
        const char *name;
        int n_layers;
        double scale; /* 0: head_dim^-0.5 */
    } cases[] = {{"gemma2", 46, 0.25}, {"gemma2", 45, 0}, {"gemma3", 62, 0.25}, {"gemma", 46, 0}};
    int i;
    for (i = 0; i < 4; i++) {
        gguf_model_params p = gguf_model_default(cases[i].name, SM_TYPE_F32);
        sm_model *m;
        p.vocab = GGUF_NO_VOCAB;
        p.n_layers = cases[i].n_layers;
        p.head_dim = 32; /* 4 heads of a width of 64 */
        m = gguf_model_open(&p);
        if (m) CHECK(m->hp.score_scale == cases[i].scale);
        sm_model_close(m);
    }
}

/* Which layers see a window: a number, or a list with a value for each layer. */
static void family_window_patterns(void) {
    static const uint8_t list[4] = {0, 1, 1, 0};
    int i;
    for (i = 0; i < 4; i++) {
        gguf_model_params p = gguf_model_default("olmo3", SM_TYPE_F32);
        const char *key = "olmo2.attention.sliding_window_pattern";
        gguf_builder g = gguf_model_begin(&p);
        uint8_t *file;
        size_t bytes;
        sm_error error;
        sm_model *m = NULL;
        sm_model_params mp = sm_model_default();
        if (i == 1) gguf_key_u32(&g, key, 2);
        if (i == 2) gguf_key_array(&g, key, SM__GGUF_BOOL, list, 4);
        if (i == 3) gguf_key_array(&g, key, SM__GGUF_BOOL, list, 3);
        file = gguf_finish(&g, &bytes);
        mp.file.data = file;
        mp.file.bytes = bytes;
        CHECK_STATUS(sm_model_open(&mp, &m, &error), i == 3 ? SM_ERR_FORMAT : SM_OK);
        if (i == 3) CHECK(strstr(error.text, key) != NULL);
        if (m) CHECK(m->hp.windowed[0] == (i == 0 ? 7u : i == 1 ? 5u : 6u));
        sm_model_close(m);
        free(file);
    }
}

/* --- the trainer ------------------------------------------------------------------------------ */

#ifndef SMALLMIND_NO_TRAIN
static void family_trainer_refuses_what_it_does_not_know(void) {
    static const char *const known[] = {"llama", "mistral",    "qwen2",     "qwen3", "gpt2",
                                        "cs336", "starcoder2", "internlm2", "exaone"};
    int i, k, knows, from;
    for (i = 0; i < GGUF_N_FAMILIES; i++) {
        gguf_model_params mp = gguf_model_default(gguf_families[i].name, SM_TYPE_F32);
        sm_model *m = gguf_model_open(&mp);
        for (from = 0; from < 2 && m; from++) { /* from the model, from scratch */
            sm_trainer_params p = sm_trainer_default();
            const char *name = from ? gguf_families[i].arch : gguf_families[i].name;
            sm_trainer *t = NULL;
            sm_error error;
            sm_status status;
            for (k = knows = 0; k < 9; k++) knows |= !strcmp(name, known[k]);
            p.model = from ? NULL : m;
            p.arch = name;
            p.n_vocab = 320, p.n_embd = 64, p.n_layers = 1, p.n_heads = 4, p.n_ctx = 16;
            p.n_threads = 1;
            p.allocator = heap_allocator();
            status = sm_trainer_create(&p, &t, &error);
            if (status != (knows ? SM_OK : SM_ERR_UNSUPPORTED))
                FAIL("%s: %d %s", name, status, status ? error.text : "");
            if (status && !strstr(error.text, gguf_families[i].arch)) FAIL("%s", error.text);
            sm_trainer_destroy(t);
        }
        sm_model_close(m);
    }
}
#endif

static const test tests_families[] = {
    {"families: the bits are the golden ones", family_bits_are_the_golden_ones},
    {"families: any chunks, calls, threads, budgets and levels, same bits",
     family_bits_do_not_depend_on_cuts},
    {"families: windows cross parts, however they are cut", family_windows_cross_parts},
    {"families: nothing before the window matters", family_window_is_the_end_of_sight},
    {"families: windowed layers may keep little", family_windows_keep_little},
    {"families: every missing tensor and bad shape is named", family_missing_tensors_are_named},
    {"families: bad and missing keys are named", family_bad_keys_are_named},
    {"families: large models scale scores otherwise", family_large_models_scale_otherwise},
    {"families: window patterns as a number and as a list", family_window_patterns},
#ifndef SMALLMIND_NO_TRAIN
    {"families: the trainer refuses what it does not know",
     family_trainer_refuses_what_it_does_not_know},
#endif
};
