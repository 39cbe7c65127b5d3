/* test_shift.c - tokens that move to earlier positions: their keys become what the tokens would
 * have there, for every kind of rotation and type of cache, whatever is shared, kept or refused.
 * Included by test.c after test_kv.c. That llama.cpp makes the same of it is shown by parity.sh. */
#include "runs.h"

enum { SHIFT_N = 140, SHIFT_FROM = 7, SHIFT_TO = 50 };

/* Key d of a layer, head and position. */
static float shift_key(const sm_ctx *ctx, int layer, int seq, int pos, int head, int d) {
    unsigned char temp[1024];
    float k[128];
    void *block = sm__kv_layer(ctx, layer, seq)[pos / SM__KV_BLOCK];
    sm__kv_get_key(ctx, sm__kv_head(ctx, block, layer, head), pos % SM__KV_BLOCK, k, temp);
    return k[d];
}

/* Element d of a value, with its scale. */
static float shift_value(const sm_ctx *ctx, int seq, int pos, int head, int d) {
    int type = ctx->kv.value_type, dim = ctx->model->hp.head_dim, lane = pos % SM__KV_BLOCK;
    const unsigned char *at =
        sm__kv_head(ctx, sm__kv_layer(ctx, 0, seq)[pos / SM__KV_BLOCK], 0, head);
    const uint8_t *scale = sm__kv_scales(type, at + ctx->kv.key_bytes, dim);
    float x;
    at += ctx->kv.key_bytes + (size_t)lane * sm__kv_value(type, dim) + sm__kv_value(type, d);
    x = sm__kv_element(type, at, d & 16);
    scale += 2 * (lane * (dim / SM__QK) + d / SM__QK);
    return sm__kv_scaled(type) ? x * sm__f16_to_f32(sm__load_u16(scale)) : x;
}

/* A context of n_seqs sequences of 256 tokens, one thread. */
static sm_ctx *shift_ctx(const sm_model *m, run_way w, int n_seqs) {
    sm_ctx_params p = sm_ctx_default();
    p.n_ctx = 256;
    p.n_seqs = n_seqs;
    p.isa = w.isa;
    p.n_batch = 64;
    p.n_threads = w.n_threads ? w.n_threads : 1;
    p.key_type = w.key_type;
    p.value_type = w.value_type;
    p.window_keep = w.window_keep;
    return run_ctx(m, &p);
}

static sm_model *shift_model(const char *family, int n_layers) {
    gguf_model_params p = gguf_model_default(family, SM_TYPE_F32);
    p.vocab = GGUF_NO_VOCAB;
    p.n_ctx = 256;
    if (n_layers) p.n_layers = n_layers;
    return gguf_model_open(&p);
}

/* --- the keys --------------------------------------------------------------------------------- */

/* Where attention adds nothing, a token's keys depend on it and its position only: moved ones are
 * those of a sequence that never had the others, but for rounding. */
static void shift_compare(const char *name, const sm_ctx *got, const sm_ctx *want, int n) {
    const sm__hparams *hp = &got->model->hp;
    int layer, pos, h, d;
    for (layer = 0; layer < hp->n_layers && !check.errors; layer++)
        for (pos = 0; pos < n; pos++)
            for (h = 0; h < hp->n_kv_heads; h++) {
                double most = 0.0, off = 0.0;
                for (d = 0; d < hp->head_dim; d++) {
                    double a = (double)shift_key(got, layer, 0, pos, h, d);
                    double b = (double)shift_key(want, layer, 0, pos, h, d);
                    if (fabs(b) > most) most = fabs(b);
                    if (!(fabs(a - b) <= off)) off = fabs(a - b);
                }
                if (pos < SHIFT_FROM ? off != 0.0 : !(off <= 4e-7 * most))
                    FAIL("%s: layer %d, head %d: key %d is off by %.3g of %.3g", name, layer, h,
                         pos, off, most);
            }
}

static void shift_one(const char *name, sm_model *m) {
    int32_t tokens[SHIFT_N];
    int layer, h, pos, n = SHIFT_N - (SHIFT_TO - SHIFT_FROM);
    sm_ctx *got = shift_ctx(m, run_plain(SM_TYPE_F32), 1);
    sm_ctx *want = shift_ctx(m, run_plain(SM_TYPE_F32), 1);
    for (layer = 0; layer < m->hp.n_layers; layer++) {
        const sm__weight *w = &m->weights->layers[layer].attn_out;
        memset((void *)(uintptr_t)w->data, 0, w->stride * (size_t)w->n);
        if (w->bias) memset((void *)(uintptr_t)w->bias, 0, (size_t)w->n * sizeof(float));
    }
    run_tokens(m, tokens, SHIFT_N);
    if (got && want && CHECK_STATUS(run_eval(got, 0, tokens, SHIFT_N), SM_OK) &&
        CHECK_STATUS(sm_seq_shift(got, 0, SHIFT_FROM, SHIFT_TO), SM_OK) &&
        CHECK_STATUS(run_eval(want, 0, tokens, SHIFT_FROM), SM_OK) &&
        CHECK_STATUS(run_eval(want, 0, tokens + SHIFT_TO, SHIFT_N - SHIFT_TO), SM_OK)) {
        CHECK(sm_seq_length(got, 0) == n && sm_seq_length(want, 0) == n);
        shift_compare(name, got, want, n);
        for (layer = 0; layer < m->hp.n_layers; layer++) /* values: to the bit */
            for (pos = 0; pos < n; pos++)
                for (h = 0; h < m->hp.n_kv_heads; h++) {
                    size_t bytes = (size_t)m->hp.head_dim * 4;
                    size_t at = got->kv.key_bytes + (size_t)(pos % SM__KV_BLOCK) * bytes;
                    const unsigned char *a = sm__kv_head(
                        got, sm__kv_layer(got, layer, 0)[pos / SM__KV_BLOCK], layer, h);
                    const unsigned char *b = sm__kv_head(
                        want, sm__kv_layer(want, layer, 0)[pos / SM__KV_BLOCK], layer, h);
                    if (memcmp(a + at, b + at, bytes))
                        FAIL("%s: layer %d, head %d: value %d", name, layer, h, pos);
                }
    }
    sm_ctx_destroy(got);
    sm_ctx_destroy(want);
}

static void shift_keys_are_those_of_their_new_places(void) {
    static const char *const names[] = {/* half and a quarter of a head, factors by length */
                                        "phi2", "gptneox", "phi3-long",
                                        /* two bases, the same base unscaled, layers without */
                                        "gemma3", "olmo3", "smollm3", "cohere2", "exaone4-window"};
    int i, scaling;
    for (i = 0; i < 8 && !check.errors; i++) {
        sm_model *m = shift_model(names[i], 0);
        shift_one(names[i], m);
        sm_model_close(m);
    }
    for (i = 0; i < 2; i++) /* all pairs scaled; YaRN, which makes keys longer, too */
        for (scaling = SM__SCALING_LINEAR; scaling <= SM__SCALING_YARN; scaling++) {
            sm_model *m = shift_model(i ? "llama" : "qwen2", 0);
            m->hp.scaling = scaling;
            m->hp.scaling_factor = 8.0;
            m->hp.original_ctx = 32.0;
            shift_one(scaling == SM__SCALING_YARN ? "yarn" : "linear", m);
            sm_model_close(m);
        }
}

/* One layer: its logits depend on the keys of all tokens, and these on nothing before. */
static void shift_logits_are_those_without_the_tokens(void) {
    static const char *const names[] = {"llama", "qwen3", "phi2", "gemma2", "cohere2", "phi3-long"};
    int i, k;
    for (k = 0; k < 6; k++) {
        sm_model *m = shift_model(names[k], 1);
        sm_ctx *got = shift_ctx(m, run_plain(SM_TYPE_F32), 1);
        sm_ctx *want = shift_ctx(m, run_plain(SM_TYPE_F32), 1);
        int32_t tokens[SHIFT_N];
        double off = 0.0, low = 1e30, high = -1e30;
        if (!got || !want) break;
        run_tokens(m, tokens, SHIFT_N);
        CHECK_STATUS(run_eval(got, 0, tokens, SHIFT_N - 20), SM_OK);
        CHECK_STATUS(sm_seq_shift(got, 0, SHIFT_FROM, SHIFT_TO), SM_OK);
        CHECK_STATUS(run_eval(got, 0, tokens + SHIFT_N - 20, 20), SM_OK);
        CHECK_STATUS(run_eval(want, 0, tokens, SHIFT_FROM), SM_OK);
        CHECK_STATUS(run_eval(want, 0, tokens + SHIFT_TO, SHIFT_N - SHIFT_TO), SM_OK);
        for (i = 0; i < m->hp.n_vocab; i++) {
            double a = (double)sm_logits(got, -1)[i], b = (double)sm_logits(want, -1)[i];
            if (!(fabs(a - b) <= off)) off = fabs(a - b);
            low = b < low ? b : low, high = b > high ? b : high;
        }
        if (!(off <= 2e-6 * (high - low)))
            FAIL("%s: logits are off by %.3g of %.3g", names[k], off, high - low);
        sm_ctx_destroy(got);
        sm_ctx_destroy(want);
        sm_model_close(m);
    }
}

/* Of every type: what was stored is rotated and stored again, which rounds by half a unit of the
 * type (Q4_0: by a whole one, at the end that has no code); values are what they were. */
static void shift_of_every_type_rounds_once(void) {
    static const double units[] = {2e-7, 4.9e-4, 0.57 / 127, 4e-3, 1.0 / 8}; /* of the largest */
    sm_model *m = shift_model("qwen3", 2);
    int32_t tokens[SHIFT_N];
    int k, h, d, pos, i;
    run_tokens(m, tokens, SHIFT_N);
    for (k = 0; k < RUN_KV_ALL; k++) {
        sm_ctx *ctx = shift_ctx(m, run_pair(run_kv_types[k], run_kv_types[(k + 2) % 5]), 2);
        int n = SHIFT_TO - SHIFT_FROM;
        if (!ctx || !CHECK_STATUS(run_eval(ctx, 0, tokens, SHIFT_N), SM_OK)) break;
        CHECK_STATUS(sm_seq_fork(ctx, 0, 1), SM_OK);
        CHECK_STATUS(sm_seq_shift(ctx, 1, SHIFT_FROM, SHIFT_TO), SM_OK);
        for (pos = SHIFT_FROM; pos < SHIFT_N - n && !check.errors; pos++)
            for (h = 0; h < m->hp.n_kv_heads; h++) {
                double want[32], most = 0.0;
                for (i = 0; i < 16; i++) { /* base 10000, (i, i + 16): by the formula itself */
                    double angle = n * pow(10000.0, -i / 16.0), c = cos(angle), s = sin(angle);
                    double a = (double)shift_key(ctx, 1, 0, pos + n, h, i);
                    double b = (double)shift_key(ctx, 1, 0, pos + n, h, i + 16);
                    want[i] = a * c + b * s, want[i + 16] = b * c - a * s;
                }
                for (d = 0; d < 32; d++)
                    if (fabs(want[d]) > most) most = fabs(want[d]);
                for (d = 0; d < 32; d++) {
                    float v = shift_value(ctx, 1, pos, h, d);
                    CHECK_NEAR(shift_key(ctx, 1, 1, pos, h, d), want[d], units[k] * most);
                    CHECK(sm__bits(v) == sm__bits(shift_value(ctx, 0, pos + n, h, d)));
                }
            }
        sm_ctx_destroy(ctx);
    }
    sm_model_close(m);
}

/* Instruction sets and threads give the same bytes. */
static void shift_bits_are_the_same_everywhere(void) {
    int isas[8], n = run_isas(isas), i, k;
    sm_model *m = shift_model("phi2", 1); /* half of a head, pairs apart */
    sm_model *pairs = shift_model("llama", 1);
    int32_t tokens[SHIFT_N];
    run_tokens(m, tokens, SHIFT_N);
    for (k = 0; k < 4; k++) {
        uint64_t want = 0, got;
        for (i = 0; i <= n; i++) { /* the last: three threads */
            run_way w = run_plain(k & 1 ? SM_TYPE_F16 : SM_TYPE_F32);
            sm_ctx *ctx;
            uint8_t *data;
            size_t bytes;
            w.isa = isas[i < n ? i : 0];
            w.n_threads = i < n ? 1 : 3;
            ctx = shift_ctx(k & 2 ? m : pairs, w, 1);
            if (!ctx || !CHECK_STATUS(run_eval(ctx, 0, tokens, SHIFT_N), SM_OK)) break;
            CHECK_STATUS(sm_seq_shift(ctx, 0, SHIFT_FROM, SHIFT_TO), SM_OK);
            CHECK_STATUS(sm_seq_shift(ctx, 0, 64, 65), SM_OK);
            CHECK_STATUS(run_eval(ctx, 0, tokens, 32), SM_OK); /* to the end of a block */
            CHECK(sm_seq_length(ctx, 0) == 128);
            bytes = sm_seq_save_bytes(ctx, 0);
            data = (uint8_t *)malloc(bytes);
            CHECK_STATUS(sm_seq_save(ctx, 0, data, bytes), SM_OK);
            got = hash_bytes(data, bytes);
            if (!i) want = got;
            if (!CHECK(got == want)) FAIL("level %d, threads %d", w.isa, w.n_threads);
            free(data);
            sm_ctx_destroy(ctx);
        }
    }
    sm_model_close(m);
    sm_model_close(pairs);
}

/* --- sharing, errors, windows ----------------------------------------------------------------- */

static void shift_leaves_forks_alone(void) {
    kv_fixture f;
    if (kv_make(&f, "llama", SM_TYPE_F32, run_plain(SM_TYPE_F16), 7 * 64)) {
        int32_t moved[100];
        memcpy(moved, f.tokens, 30 * sizeof *moved);
        memcpy(moved + 30, f.tokens + 50, 70 * sizeof *moved);
        kv_extend(&f, 0, 120);
        CHECK_STATUS(sm_seq_fork(f.ctx, 0, 1), SM_OK);
        CHECK_STATUS(sm_seq_fork(f.ctx, 0, 2), SM_OK);
        CHECK(kv_blocks(f.ctx, 1) == 2);
        CHECK_STATUS(sm_seq_shift(f.ctx, 1, 30, 50), SM_OK);
        CHECK(sm_seq_length(f.ctx, 1) == 100 && kv_blocks(f.ctx, 1) == 4);
        CHECK(!memcmp(sm__seq_ids(f.ctx, 1), moved, sizeof moved));
        CHECK_STATUS(sm_seq_shift(f.ctx, 1, 70, 95), SM_OK); /* its own blocks now */
        CHECK(kv_blocks(f.ctx, 1) == 4);
        CHECK_STATUS(sm_seq_shift(f.ctx, 2, 64, 100), SM_OK); /* the second block only */
        CHECK(kv_blocks(f.ctx, 1) == 5);
        CHECK_STATUS(sm_seq_shift(f.ctx, 2, 64, 84), SM_OK); /* to the end: as rewound */
        CHECK(sm_seq_length(f.ctx, 2) == 64 && kv_blocks(f.ctx, 1) == 4);
        CHECK_STATUS(sm_seq_shift(f.ctx, 2, 0, 64), SM_OK); /* all of it */
        CHECK(sm_seq_length(f.ctx, 2) == 0);
        kv_extend(&f, 2, 90);
        kv_extend(&f, 0, 128);
        kv_extend(&f, 0, 150);
        CHECK_STATUS(sm_seq_release(f.ctx, 0), SM_OK);
        CHECK_STATUS(sm_seq_release(f.ctx, 1), SM_OK);
        CHECK_STATUS(sm_seq_release(f.ctx, 2), SM_OK);
        CHECK(kv_blocks(f.ctx, 1) == 0);
    }
    kv_free(&f);
}

/* What is refused changes nothing: not a number, not a block. */
static void shift_refused_changes_nothing(void) {
    static const int bad[][2] = {{-1, 3}, {-5, -2}, {5, 4}, {3, 71}, {71, 71}, {71, 72}, {0, -8},
                                 {INT32_MIN, INT32_MAX}, {INT32_MAX, INT32_MIN}};
    kv_fixture f, old;
    sm_batch b;
    int i;
    if (kv_make(&f, "llama", SM_TYPE_F32, run_plain(SM_TYPE_F16), 3 * 64)) {
        kv_extend(&f, 0, 70);
        for (i = 0; i < 9; i++) {
            CHECK_STATUS(sm_seq_shift(f.ctx, 0, bad[i][0], bad[i][1]), SM_ERR_ARG);
            CHECK(strstr(sm_ctx_error(f.ctx), "sequence 0 has 70 tokens"));
        }
        CHECK_STATUS(sm_seq_shift(f.ctx, KV_SEQS, 0, 0), SM_ERR_ARG);
        CHECK_STATUS(sm_seq_shift(f.ctx, -1, 0, 0), SM_ERR_ARG);
        CHECK_STATUS(sm_seq_shift(NULL, 0, 0, 0), SM_ERR_ARG);
        CHECK_STATUS(sm_seq_shift(f.ctx, 0, 70, 70), SM_OK); /* nothing, and nothing happens */
        CHECK_STATUS(sm_seq_shift(f.ctx, 0, 9, 9), SM_OK);
        CHECK_STATUS(sm_seq_fork(f.ctx, 0, 1), SM_OK);
        kv_extend(&f, 2, 64);
        CHECK_STATUS(sm_seq_shift(f.ctx, 0, 3, 4), SM_ERR_FULL); /* two shared, none free */
        CHECK_STR(sm_ctx_error(f.ctx), "shift: 2 KV blocks to copy, 0 are free");
        CHECK_STATUS(sm_seq_shift(f.ctx, 0, 66, 70), SM_OK); /* nothing moves: no block */
        memset(&b, 0, sizeof b);
        b.n = 1, b.tokens = f.tokens + 64;
        CHECK_STATUS(sm_seq_release(f.ctx, 2), SM_OK);
        CHECK_STATUS(sm_eval_begin(f.ctx, &b), SM_OK);
        CHECK_STATUS(sm_seq_shift(f.ctx, 0, 3, 4), SM_ERR_BUSY);
        sm_cancel(f.ctx, 0);
        CHECK_STATUS(sm_eval_step(f.ctx, -1), SM_ERR_CANCELLED);
        kv_extend(&f, 0, 80);
    }
    if (kv_make(&old, "gpt2", SM_TYPE_F32, run_plain(SM_TYPE_F16), 0)) {
        kv_extend(&old, 0, 70);
        CHECK_STATUS(sm_seq_shift(old.ctx, 0, 3, 30), SM_ERR_UNSUPPORTED);
        CHECK(strstr(sm_ctx_error(old.ctx), "learned positions"));
        kv_extend(&old, 0, 80);
    }
    kv_free(&f);
    kv_free(&old);
}

/* Contexts whose windowed layers keep all or little go the same way, wherever the second one can
 * go: the same tokens seen, to the bit. What one saved the other's like can load. */
static void shift_walk(const char *name, int window_keep) {
    enum { ROUNDS = 45, SEQS = 3 };
    sm_model *m = shift_model(name, 0);
    run_way w = run_plain(SM_TYPE_F16);
    sm_ctx *all = shift_ctx(m, w, SEQS), *less;
    int round, refused = 0, shifted = 0;
    uint8_t *data = NULL;
    w.window_keep = window_keep;
    less = shift_ctx(m, w, SEQS);
    for (round = 0; round < ROUNDS && all && less && !check.errors; round++) {
        int seq = random_below(SEQS), length = sm_seq_length(less, seq), what = random_below(8);
        int from = random_below(length + 1), to = from + random_below(length - from + 1);
        sm_status status = SM_OK;
        if (what == 0) {
            if (round & 1) from = sm__max(from, length - 30);
            status = sm_seq_rewind(less, seq, from);
            if (!status) status = sm_seq_rewind(all, seq, from);
        } else if (what == 1) {
            status = sm_seq_fork(less, seq, from % SEQS);
            if (!status) status = sm_seq_fork(all, seq, from % SEQS);
        } else if (what == 2 && length) {
            size_t bytes = sm_seq_save_bytes(less, seq);
            data = (uint8_t *)realloc(data, bytes);
            CHECK_STATUS(sm_seq_save(less, seq, data, bytes), SM_OK);
            CHECK_STATUS(sm_seq_release(less, seq), SM_OK);
            CHECK_STATUS(sm_seq_load(less, seq, data, bytes), SM_OK);
        } else if (what < 5 && length > 40) {
            if (what == 3) from = 5, to = length - 40 - random_below(length - 40);
            if (from > to) continue;
            status = sm_seq_shift(less, seq, from, to);
            if (!status) status = sm_seq_shift(all, seq, from, to);
            if (!status) shifted++;
        }
        if (status == SM_ERR_UNSUPPORTED) refused++;
        else CHECK_STATUS(status, SM_OK);
        {
            int32_t tokens[64];
            int n = sm__min(1 + random_below(64), 256 - sm_seq_length(less, seq));
            run_tokens(m, tokens, n);
            CHECK(sm_seq_length(less, seq) == sm_seq_length(all, seq));
            if (!n) continue;
            CHECK_STATUS(run_eval(less, seq, tokens, n), SM_OK);
            CHECK_STATUS(run_eval(all, seq, tokens, n), SM_OK);
            SAME(name, sm_logits(less, -1), sm_logits(all, -1), 1, m->hp.n_vocab);
        }
        for (seq = 0; seq < SEQS; seq++) { /* and no more blocks are held than without shifts */
            const sm__kv_class *in = sm__kv_windows(less);
            int i, n = 0;
            for (i = 0; i < less->kv.blocks_per_seq; i++) n += sm__kv_row(less, in, seq)[i] != NULL;
            CHECK(n <= in->reach / SM__KV_BLOCK + 2);
        }
    }
    CHECK(shifted > 3);
    if (window_keep < 100) CHECK(refused > 0);
    free(data);
    sm_ctx_destroy(all);
    sm_ctx_destroy(less);
    sm_model_close(m);
}

static void shift_with_windows_that_let_go(void) {
    shift_walk("mistral-window", 20); /* no layer keeps all */
    shift_walk("gemma2", 1);
    shift_walk("gemma2", 90);
}

/* Tokens of a block that was only half moved are not there to be rewound to. */
static void shift_knows_the_first_token(void) {
    run_way w = run_plain(SM_TYPE_F32);
    sm_model *m = shift_model("gemma2", 0);
    sm_ctx *ctx;
    int32_t tokens[250];
    w.window_keep = 90; /* with a window of 24: 113 tokens are kept, blocks from 128 on */
    run_tokens(m, tokens, 250);
    ctx = shift_ctx(m, w, 2);
    if (ctx && CHECK_STATUS(run_eval(ctx, 0, tokens, 250), SM_OK)) {
        CHECK_STATUS(sm_seq_fork(ctx, 0, 1), SM_OK);
        CHECK_STATUS(sm_seq_shift(ctx, 1, 5, 13), SM_OK); /* 129 are wanted: a block goes back */
        CHECK(ctx->seq_first[1] == 128 && !sm__kv_row(ctx, sm__kv_windows(ctx), 1)[1]);
        CHECK_STATUS(sm_seq_release(ctx, 1), SM_OK);
        CHECK_STATUS(sm_seq_shift(ctx, 0, 130, 240), SM_ERR_UNSUPPORTED); /* 117 were to be seen */
        CHECK(sm_seq_length(ctx, 0) == 250);
        CHECK_STATUS(sm_seq_shift(ctx, 0, 5, 42), SM_OK); /* 128 is 91 now */
        CHECK_STATUS(sm_seq_rewind(ctx, 0, 113), SM_ERR_UNSUPPORTED);
        CHECK(strstr(sm_ctx_error(ctx), "would see 90, and hold 91 and later"));
        CHECK_STATUS(sm_seq_shift(ctx, 0, 100, 200), SM_ERR_UNSUPPORTED);
        CHECK_STATUS(sm_seq_rewind(ctx, 0, 114), SM_OK);
    }
    sm_ctx_destroy(ctx);
    sm_model_close(m);
}

/* A sequence longer than its context: what is left after many shifts is whole. */
static void shift_again_and_again(void) {
    sm_model *m = shift_model("llama", 1);
    sm_ctx *got = shift_ctx(m, run_plain(SM_TYPE_F32), 1);
    sm_ctx *want = shift_ctx(m, run_plain(SM_TYPE_F32), 1);
    int32_t tokens[2000], kept[256];
    int i, at, n, d;
    double off = 0.0, most = 0.0;
    run_tokens(m, tokens, 2000);
    for (at = 0; at < 2000 && got && !check.errors; at += n) {
        n = sm__min(1 + random_below(90), 2000 - at);
        if (sm_seq_length(got, 0) + n > 256)
            CHECK_STATUS(sm_seq_shift(got, 0, 4, 4 + (sm_seq_length(got, 0) - 4) / 2), SM_OK);
        CHECK_STATUS(run_eval(got, 0, tokens + at, n), SM_OK);
    }
    n = sm_seq_length(got, 0);
    memcpy(kept, sm__seq_ids(got, 0), (size_t)n * sizeof *kept);
    CHECK(!memcmp(kept, tokens, 4 * sizeof *kept));
    CHECK(!memcmp(kept + 4, tokens + 2000 - (n - 4), (size_t)(n - 4) * sizeof *kept));
    CHECK_STATUS(run_eval(want, 0, kept, n), SM_OK);
    for (i = 0; i < n; i++)
        for (d = 0; d < 16; d++) {
            double b = (double)shift_key(want, 0, 0, i, 1, d);
            double e = fabs((double)shift_key(got, 0, 0, i, 1, d) - b);
            off = e > off ? e : off, most = fabs(b) > most ? fabs(b) : most;
        }
    CHECK(off <= 2e-6 * most);
    sm_ctx_destroy(got);
    sm_ctx_destroy(want);
    sm_model_close(m);
}

static const test tests_shift[] = {
    {"shift: keys are those of their new places, by every rotation",
     shift_keys_are_those_of_their_new_places},
    {"shift: one layer's logits are those without the tokens",
     shift_logits_are_those_without_the_tokens},
    {"shift: every type of cache rounds once more", shift_of_every_type_rounds_once},
    {"shift: the same bits by every level and number of threads",
     shift_bits_are_the_same_everywhere},
    {"shift: forks are left alone, shared blocks copied", shift_leaves_forks_alone},
    {"shift: what is refused changes nothing", shift_refused_changes_nothing},
    {"shift: windows that let go see the same tokens", shift_with_windows_that_let_go},
    {"shift: what windows hold begins where it does", shift_knows_the_first_token},
    {"shift: again and again", shift_again_and_again},
};
