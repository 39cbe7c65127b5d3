/* test_kv.c - the KV cache: sequences share blocks until one of them writes, every block is given
 * back, and whatever was forked, rewound or refused, a sequence's logits are those of its tokens.
 * Included by test.c after build_gguf.h. */
#include "runs.h"

enum { KV_SEQS = 6, KV_CTX = 160, KV_VOCAB = 320 }; /* three blocks of 64 a sequence */

typedef struct kv_fixture {
    sm_model *m;
    sm_ctx *ctx;
    int32_t tokens[KV_CTX];
    float *want; /* [KV_CTX, KV_VOCAB] of tokens, alone */
} kv_fixture;

static int kv_make(kv_fixture *f, const char *arch, int type, run_way w, int kv_tokens) {
    gguf_model_params gp = gguf_model_default(arch, type);
    sm_ctx_params p = sm_ctx_default();
    memset(f, 0, sizeof *f);
    gp.vocab = GGUF_NO_VOCAB;
    gp.n_ctx = KV_CTX;
    f->m = gguf_model_open(&gp);
    f->want = run_rows(KV_CTX, KV_VOCAB);
    p.n_ctx = KV_CTX;
    p.n_seqs = KV_SEQS;
    p.kv_tokens = kv_tokens;
    p.key_type = w.key_type;
    p.value_type = w.value_type;
    p.n_threads = 1;
    f->ctx = run_ctx(f->m, &p);
    if (!f->ctx) return 0;
    run_tokens(f->m, f->tokens, KV_CTX);
    run_logits(f->m, &w, f->tokens, KV_CTX, f->want);
    return 1;
}

static void kv_free(kv_fixture *f) {
    sm_ctx_destroy(f->ctx);
    sm_model_close(f->m);
    free(f->want);
}

/* Blocks of KV that are out: all but the rows of logits, of which the last batch had n_rows. */
static int kv_blocks(const sm_ctx *ctx, int n_rows) {
    return (int)sm_ctx_get_stats(ctx).pool.outstanding_blocks - n_rows;
}

/* A sequence goes from its length to `to` tokens; its last logits must be those of the whole. */
static int kv_extend(kv_fixture *f, int seq, int to) {
    int at = sm_seq_length(f->ctx, seq);
    if (!CHECK_STATUS(run_eval(f->ctx, seq, f->tokens + at, to - at), SM_OK)) return 0;
    if (!CHECK(sm_seq_length(f->ctx, seq) == to)) return 0;
    return SAME("sequence", sm_logits(f->ctx, -1), f->want + (to - 1) * KV_VOCAB, 1, KV_VOCAB);
}

/* --- forks ------------------------------------------------------------------------------------ */

static void kv_fork_shares_until_written(void) {
    kv_fixture f;
    int s;
    if (kv_make(&f, "llama", SM_TYPE_F32, run_plain(SM_TYPE_F16), 0)) {
        size_t block = f.ctx->kv.classes[0].block_bytes;
        kv_extend(&f, 0, 100); /* a whole block and a begun one */
        CHECK(kv_blocks(f.ctx, 1) == 2);
        for (s = 1; s < KV_SEQS; s++) {
            CHECK_STATUS(sm_seq_fork(f.ctx, 0, s), SM_OK);
            CHECK(sm_seq_length(f.ctx, s) == 100);
        }
        CHECK(kv_blocks(f.ctx, 1) == 2); /* six sequences, two blocks */
        for (s = 1; s < KV_SEQS; s++) {
            kv_extend(&f, s, 101);                 /* the begun block is copied, */
            CHECK(kv_blocks(f.ctx, 1) == 2 + s);   /* the whole one still shared */
        }
        kv_extend(&f, 0, 101); /* the last holder owns the original */
        CHECK(kv_blocks(f.ctx, 1) == 1 + KV_SEQS);
        for (s = 0; s < KV_SEQS; s++) kv_extend(&f, s, 128 + s);
        CHECK(kv_blocks(f.ctx, 1) == 1 + KV_SEQS + 5); /* the first one has not begun another */
        CHECK(sm_ctx_get_stats(f.ctx).pool.outstanding_bytes >=
              block * (size_t)kv_blocks(f.ctx, 1));
        for (s = 0; s < KV_SEQS; s++) {
            CHECK_STATUS(sm_seq_release(f.ctx, s), SM_OK);
            CHECK(sm_seq_length(f.ctx, s) == 0);
        }
        CHECK(kv_blocks(f.ctx, 1) == 0);
        CHECK_STATUS(sm_seq_fork(f.ctx, 3, 3), SM_OK); /* a copy of itself, of nothing */
        CHECK_STATUS(sm_seq_fork(f.ctx, 2, 3), SM_OK);
        CHECK(kv_blocks(f.ctx, 1) == 0);
    }
    kv_free(&f);
}

/* What one writes, the others do not see: they part at every position of a block's length. */
static void kv_forks_do_not_disturb_each_other(void) {
    static const int lengths[] = {1, 2, 31, 63, 64, 65, 127, 128, 129};
    kv_fixture f;
    size_t i;
    int k, s;
    for (k = 0; k < 3; k++) {
        run_way w = k == 2   ? run_pair(SM_TYPE_Q4_0, SM_TYPE_F32)
                    : k == 1 ? run_plain(SM_TYPE_F16)
                             : run_pair(SM_TYPE_F32, SM_TYPE_BF16);
        if (!kv_make(&f, k ? "qwen3" : "gpt2", k ? SM_TYPE_F16 : SM_TYPE_Q8_0, w, 0)) {
            kv_free(&f);
            continue;
        }
        for (i = 0; i < sizeof lengths / sizeof *lengths; i++) {
            int32_t other[20];
            kv_extend(&f, 0, lengths[i]);
            for (s = 1; s < KV_SEQS; s++) CHECK_STATUS(sm_seq_fork(f.ctx, 0, s), SM_OK);
            for (s = 1; s < KV_SEQS; s++) { /* noise of its own into each of them */
                run_tokens(f.m, other, 20);
                CHECK_STATUS(run_eval(f.ctx, s, other, 3 * s), SM_OK);
            }
            kv_extend(&f, 0, lengths[i] + 20);
            for (s = 1; s < KV_SEQS; s++) {
                CHECK_STATUS(sm_seq_rewind(f.ctx, s, lengths[i]), SM_OK);
                kv_extend(&f, s, lengths[i] + 20);
                CHECK_STATUS(sm_seq_release(f.ctx, s), SM_OK);
            }
            CHECK_STATUS(sm_seq_release(f.ctx, 0), SM_OK);
            CHECK(kv_blocks(f.ctx, 1) == 0);
        }
        kv_free(&f);
    }
}

/* All holders of a shared block write in one batch, of any lengths, cancelled first: capacity for
 * every sequence's own blocks is enough, and nobody's tokens are lost. */
static void kv_all_forks_write_at_once(void) {
    kv_fixture f;
    int round, s, i;
    /* a block for each */
    if (kv_make(&f, "llama", SM_TYPE_F32, run_plain(SM_TYPE_F32), KV_SEQS * 64)) {
        for (round = 0; round < 40; round++) {
            int32_t tokens[KV_SEQS], seqs[KV_SEQS];
            uint8_t want[KV_SEQS];
            int order[KV_SEQS], length[KV_SEQS];
            sm_batch b;
            for (s = 0; s < KV_SEQS; s++) CHECK_STATUS(sm_seq_release(f.ctx, s), SM_OK);
            kv_extend(&f, 0, 40);
            for (s = 0; s < KV_SEQS; s++) {
                order[s] = s;
                length[s] = round % 4 == 0 ? 40 : 1 + random_below(40);
                CHECK_STATUS(sm_seq_fork(f.ctx, 0, s), SM_OK);
            }
            for (s = 0; s < KV_SEQS; s++)
                CHECK_STATUS(sm_seq_rewind(f.ctx, s, length[s]), SM_OK);
            for (s = KV_SEQS - 1; s > 0; s--) {
                int other = random_below(s + 1), x = order[s];
                order[s] = order[other];
                order[other] = x;
            }
            CHECK(kv_blocks(f.ctx, 1) == 1);
            for (i = 0; i < KV_SEQS; i++) {
                seqs[i] = order[i];
                tokens[i] = f.tokens[length[order[i]]];
                want[i] = 1;
            }
            b.n = KV_SEQS;
            b.tokens = tokens;
            b.seqs = seqs;
            b.want = want;
            if (round % 2) { /* half done, cancelled: the forks still hold what they held */
                if (!CHECK_STATUS(sm_eval_begin(f.ctx, &b), SM_OK)) break;
                for (i = 0; i < round; i++) sm_eval_step(f.ctx, 0);
                if (sm_eval_pass(f.ctx)) {
                    sm_cancel(f.ctx, 0);
                    CHECK_STATUS(sm_eval_step(f.ctx, -1), SM_ERR_CANCELLED);
                    CHECK(kv_blocks(f.ctx, 0) == 1);
                } else { /* it was over already */
                    for (s = 0; s < KV_SEQS; s++) sm_seq_rewind(f.ctx, s, length[s]);
                }
                for (s = 0; s < KV_SEQS; s++) CHECK(sm_seq_length(f.ctx, s) == length[s]);
            }
            if (!CHECK_STATUS(sm_eval(f.ctx, &b), SM_OK)) break;
            CHECK(kv_blocks(f.ctx, KV_SEQS) == KV_SEQS);
            for (i = 0; i < KV_SEQS; i++)
                SAME("fork", sm_logits(f.ctx, i), f.want + length[order[i]] * KV_VOCAB, 1,
                     KV_VOCAB);
            for (s = 0; s < KV_SEQS; s++) kv_extend(&f, s, 45);
        }
    }
    kv_free(&f);
}

/* --- rewind and release ----------------------------------------------------------------------- */

static void kv_rewound_anywhere_evaluates_alike(void) {
    kv_fixture f;
    static const char *const archs[] = {"gpt2", "qwen2", "cs336"}; /* cs336 with wide heads */
    static const int types[] = {SM_TYPE_BF16, SM_TYPE_Q4_0, SM_TYPE_Q5_K};
    int length, k;
    for (k = 0; k < 3; k++) {
        if (kv_make(&f, archs[k], types[k], run_plain(run_kv_types[k]), 0)) {
            kv_extend(&f, 0, 140);
            for (length = 139; length >= 0; length--) {
                CHECK_STATUS(sm_seq_rewind(f.ctx, 0, length), SM_OK);
                CHECK(sm_seq_length(f.ctx, 0) == length);
                CHECK(kv_blocks(f.ctx, 1) == (length + 63) / 64);
                if (!kv_extend(&f, 0, sm__min(140, length + 1 + length % 3))) break;
            }
            CHECK_STATUS(sm_seq_rewind(f.ctx, 0, 1000), SM_ERR_ARG);
            CHECK_STATUS(sm_seq_rewind(f.ctx, 0, -1), SM_ERR_ARG);
            CHECK_STATUS(sm_seq_rewind(f.ctx, KV_SEQS, 0), SM_ERR_ARG);
            CHECK_STATUS(sm_seq_rewind(f.ctx, -1, 0), SM_ERR_ARG);
            CHECK_STATUS(sm_seq_release(NULL, 0), SM_ERR_ARG);
            CHECK_STATUS(sm_seq_fork(f.ctx, 0, KV_SEQS), SM_ERR_ARG);
            CHECK_STATUS(sm_seq_fork(f.ctx, -1, 0), SM_ERR_ARG);
            CHECK_STATUS(sm_seq_fork(NULL, 0, 1), SM_ERR_ARG);
            CHECK(sm_seq_length(f.ctx, -1) == 0 && sm_seq_length(NULL, 0) == 0);
            CHECK(sm_seq_length(f.ctx, 0) == 1);
        }
        kv_free(&f);
    }
}

/* --- a full pool ------------------------------------------------------------------------------ */

/* The pool runs out in the middle of a batch: no sequence, block or logit changes. */
static void kv_full_pool_leaves_everything(void) {
    kv_fixture f;
    int s, i, k;
    /* five blocks for six sequences of up to three */
    if (kv_make(&f, "llama", SM_TYPE_Q8_0, run_plain(SM_TYPE_F16), 5 * 64)) {
        static const uint8_t want[KV_CTX] = {0};
        int32_t tokens[KV_CTX], seqs[KV_CTX];
        float last[KV_VOCAB];
        sm_pool_stats before, after;
        sm_batch b;
        kv_extend(&f, 0, 64);
        kv_extend(&f, 1, 30);
        CHECK_STATUS(sm_seq_fork(f.ctx, 1, 2), SM_OK); /* two blocks out, three left */
        memcpy(last, sm_logits(f.ctx, -1), sizeof last);
        before = sm_ctx_get_stats(f.ctx).pool;
        CHECK(kv_blocks(f.ctx, 1) == 2);
        for (k = 0; k < 3; k++) {
            int n[KV_SEQS] = {0}, length[KV_SEQS] = {64, 30, 30, 0, 0, 0};
            for (i = 0; i < KV_CTX; i++) { /* needs: each its own block, or two for the first */
                s = k == 0 ? i % KV_SEQS : k == 1 ? (i < 80 ? 0 : 1 + i % 4) : 5 - i / 27;
                seqs[i] = s;
                tokens[i] = f.tokens[(length[s] + n[s]++) % KV_CTX];
            }
            b.n = KV_CTX;
            b.tokens = tokens;
            b.seqs = seqs;
            b.want = want;
            CHECK_STATUS(sm_eval(f.ctx, &b), SM_ERR_FULL);
            CHECK(sm_ctx_error(f.ctx)[0] != 0);
            CHECK(sm_eval_pass(f.ctx) == 0);
            for (s = 0; s < KV_SEQS; s++) CHECK(sm_seq_length(f.ctx, s) == length[s]);
            after = sm_ctx_get_stats(f.ctx).pool;
            CHECK(after.outstanding_blocks == before.outstanding_blocks);
            CHECK(after.outstanding_bytes == before.outstanding_bytes);
            CHECK(after.rents - after.returns == after.outstanding_blocks);
            if (CHECK(sm_logits(f.ctx, -1) != NULL))
                SAME("kept", sm_logits(f.ctx, -1), last, 1, KV_VOCAB);
        }
        kv_extend(&f, 1, 64); /* what fits still works, and is right */
        kv_extend(&f, 2, 64);
        kv_extend(&f, 0, 140);
        CHECK(kv_blocks(f.ctx, 1) == 5);
        CHECK_STATUS(run_eval(f.ctx, 3, f.tokens, 1), SM_ERR_FULL);
        CHECK(sm_seq_length(f.ctx, 3) == 0);
        CHECK_STATUS(sm_seq_release(f.ctx, 1), SM_OK);
        kv_extend(&f, 3, 64);
        CHECK_STATUS(run_eval(f.ctx, 3, f.tokens + 64, 1), SM_ERR_FULL);
        kv_extend(&f, 0, 160);
    }
    kv_free(&f);
}

/* Forks, rewinds, releases, batches, cancels in any order, the pool too small for all: each
 * sequence always continues its own text, and the blocks that are out are those that are needed. */
static void kv_walk(run_way w) {
    enum { ROUNDS = 600 };
    kv_fixture f;
    int shift[KV_SEQS] = {0}, round, s, i, full = 0, forks = 0;
    /* sequence s holds tokens of one of two texts up to its length: the text is told by shift */
    if (kv_make(&f, "qwen3", SM_TYPE_Q8_0, w, 9 * 64)) {
        int32_t second[KV_CTX];
        float *rows[2];
        run_tokens(f.m, second, KV_CTX);
        rows[0] = f.want;
        rows[1] = run_rows(KV_CTX, KV_VOCAB);
        run_logits(f.m, &w, second, KV_CTX, rows[1]);
        for (round = 0; round < ROUNDS && check.errors == 0; round++) {
            int lengths[KV_SEQS], what = random_below(12), count = 0;
            s = random_below(KV_SEQS);
            for (i = 0; i < KV_SEQS; i++) lengths[i] = sm_seq_length(f.ctx, i);
            if (what == 0) {
                CHECK_STATUS(sm_seq_release(f.ctx, s), SM_OK);
                shift[s] = random_below(2);
            } else if (what == 1) {
                CHECK_STATUS(sm_seq_rewind(f.ctx, s, random_below(lengths[s] + 1)), SM_OK);
            } else if (what < 4) {
                int to = random_below(KV_SEQS);
                CHECK_STATUS(sm_seq_fork(f.ctx, s, to), SM_OK);
                shift[to] = shift[s];
                forks += to != s && lengths[s] > 0;
            } else { /* a batch of random sequences, maybe cancelled */
                int32_t tokens[48], seqs[48];
                uint8_t want[48] = {0};
                int at[48], n[KV_SEQS] = {0}, done = 0;
                sm_batch b;
                sm_status status;
                for (i = 0; i < 48; i++) {
                    int q = i && random_below(4) ? (int)seqs[count - 1] : random_below(KV_SEQS);
                    if (lengths[q] + n[q] >= KV_CTX) break;
                    seqs[count] = q;
                    at[count] = lengths[q] + n[q]++;
                    tokens[count] = (shift[q] ? second : f.tokens)[at[count]];
                    count++;
                }
                if (!count) continue;
                b.n = count;
                b.tokens = tokens;
                b.seqs = seqs;
                for (i = 0; i < sm__min(count, KV_SEQS); i++) want[random_below(count)] = 1;
                b.want = want;
                status = sm_eval_begin(f.ctx, &b);
                full += status == SM_ERR_FULL;
                for (i = random_below(30); i && status == SM_OK && !done; i--)
                    done = sm_eval_step(f.ctx, 0) != SM_PENDING;
                if (status == SM_OK && !done && what == 4) sm_cancel(f.ctx, 0);
                if (status == SM_OK && !done) status = sm_eval_step(f.ctx, -1);
                for (i = 0; i < KV_SEQS; i++)
                    CHECK(sm_seq_length(f.ctx, i) == lengths[i] + (status == SM_OK ? n[i] : 0));
                for (i = 0; i < count && status == SM_OK; i++)
                    if (want[i])
                        SAME("walk", sm_logits(f.ctx, i),
                             rows[shift[seqs[i]]] + at[i] * KV_VOCAB, 1, KV_VOCAB);
            }
        }
        CHECK(full > 0 && forks > 10);
        for (s = 0; s < KV_SEQS; s++) sm_seq_release(f.ctx, s);
        CHECK(sm_ctx_get_stats(f.ctx).pool.outstanding_blocks <= KV_SEQS); /* rows of logits */
        free(rows[1]);
    }
    kv_free(&f);
}

static void kv_random_walk(void) { kv_walk(run_plain(SM_TYPE_F16)); }
static void kv_random_walk_mixed(void) { kv_walk(run_pair(SM_TYPE_Q4_0, SM_TYPE_Q8_0)); }

/* 200 sequences, each with a text of its own, in batches of all of them. */
static void kv_many_sequences(void) {
    enum { SEQS = 200, N = 9 };
    gguf_model_params gp = gguf_model_default("llama", SM_TYPE_F32);
    sm_ctx_params p = sm_ctx_default();
    run_way w = run_plain(SM_TYPE_F16);
    sm_model *m;
    sm_ctx *ctx;
    static int32_t tokens[SEQS][N];
    float *want;
    int s, t;
    gp.vocab = GGUF_NO_VOCAB;
    gp.n_embd = 32;
    gp.head_dim = 8;
    gp.n_ff = 32;
    gp.n_vocab = 40;
    m = gguf_model_open(&gp);
    want = run_rows(N, 40);
    p.n_ctx = N;
    p.n_seqs = SEQS;
    p.n_threads = 2;
    ctx = run_ctx(m, &p);
    for (s = 0; s < SEQS && m; s++) run_tokens(m, tokens[s], N);
    for (t = 0; t < N && ctx; t++) {
        int32_t ids[SEQS], seqs[SEQS];
        uint8_t all[SEQS];
        sm_batch b;
        for (s = 0; s < SEQS; s++) {
            seqs[s] = (s * 37 + t) % SEQS;
            ids[s] = tokens[seqs[s]][t];
            all[s] = 1;
        }
        b.n = SEQS;
        b.tokens = ids;
        b.seqs = seqs;
        b.want = all;
        if (!CHECK_STATUS(sm_eval(ctx, &b), SM_OK)) break;
        CHECK(kv_blocks(ctx, SEQS) == SEQS);
        for (s = 0; s < SEQS && t == N - 1; s++) {
            run_logits(m, &w, tokens[seqs[s]], N, want);
            SAME("one of many", sm_logits(ctx, s), want + (N - 1) * 40, 1, 40);
        }
    }
    free(want);
    sm_ctx_destroy(ctx);
    sm_model_close(m);
}

static void kv_statistics_add_up(void) {
    kv_fixture f;
    int i;
    if (kv_make(&f, "llama", SM_TYPE_F32, run_plain(SM_TYPE_F16), 0)) {
        sm_ctx_stats s = sm_ctx_get_stats(f.ctx);
        size_t block = f.ctx->kv.classes[0].block_bytes, row = KV_VOCAB * sizeof(float);
        /* keys and values of 64 tokens, 2 layers, 2 heads of 16, in halves */
        CHECK(block == 2 * 64 * 2 * 2 * 16 * 2);
        CHECK(s.pool.rents == 0 && s.pool.outstanding_bytes == 0 && s.pool.peak_bytes == 0);
        CHECK(s.pool.capacity_bytes == 3 * KV_SEQS * block + KV_SEQS * row);
        CHECK(s.passes == 0 && s.tokens == 0);
        for (i = 1; i <= 3; i++) kv_extend(&f, 0, 50 * i); /* 50, 100, 150: one block a time */
        s = sm_ctx_get_stats(f.ctx);
        CHECK(s.tokens == 150 && s.passes == 3);
        CHECK(s.pool.rents == 3 + 3 && s.pool.returns == 2); /* blocks and rows; old rows */
        CHECK(s.pool.outstanding_bytes == 3 * block + row);
        CHECK(s.pool.peak_bytes == 3 * block + row);
        sm_seq_release(f.ctx, 0);
        s = sm_ctx_get_stats(f.ctx);
        CHECK(s.pool.returns == 5 && s.pool.outstanding_blocks == 1);
        CHECK(s.pool.peak_bytes == 3 * block + row);
    }
    kv_free(&f);
}

/* --- types ------------------------------------------------------------------------------------ */

/* Heads of 16 have no whole groups of 32: refused in words, and nothing is left behind. */
static void kv_blocks_want_whole_groups(void) {
    gguf_model_params gp = gguf_model_default("llama", SM_TYPE_F32);
    sm_model *m = gguf_model_open(&gp);
    sm_ctx_params p = sm_ctx_default();
    size_t held = heap.bytes;
    uint32_t calls = heap.calls;
    uint8_t *memory = (uint8_t *)malloc(1 << 22);
    sm_ctx *ctx = NULL;
    sm_plan plan;
    sm_error error;
    int i;
    p.allocator = heap_allocator();
    for (i = 0; i < 4 && m && memory; i++) {
        memset(&error, 0, sizeof error);
        p.key_type = i < 3 ? SM_TYPE_Q8_0 : SM_TYPE_F32;
        p.value_type = i < 3 ? SM_TYPE_F32 : SM_TYPE_Q4_0;
        CHECK_STATUS(i == 0   ? sm_ctx_plan(m, &p, &plan, &error)
                     : i == 1 ? sm_ctx_create_in(m, &p, memory, 1 << 22, &ctx, &error)
                              : sm_ctx_create(m, &p, &ctx, &error),
                     SM_ERR_UNSUPPORTED);
        CHECK_STR(error.text, i < 3 ? "context: key_type Q8_0 wants a head_dim that is a multiple "
                                      "of 32, not 16"
                                    : "context: value_type Q4_0 wants a head_dim that is a "
                                      "multiple of 32, not 16");
        CHECK(ctx == NULL && heap.bytes == held && heap.calls == calls);
    }
    p.key_type = SM_TYPE_Q4_K;
    if (m) CHECK_STATUS(sm_ctx_plan(m, &p, &plan, &error), SM_ERR_UNSUPPORTED);
    CHECK_STR(error.text, "context: key_type must be F32, F16, BF16, Q8_0 or Q4_0");
    free(memory);
    sm_model_close(m);
}

/* Element d of a key or value in the first layer's cache; of Q8_0 and Q4_0, q gets its number. */
static float kv_element(const sm_ctx *ctx, int pos, int head, int d, int is_value, int *q) {
    int type = is_value ? ctx->kv.value_type : ctx->kv.key_type, dim = ctx->model->hp.head_dim;
    int lane = pos % 64, index = is_value ? lane * dim + d : d * 64 + lane;
    const uint8_t *at = sm__kv_head(ctx, ctx->kv.classes[0].table[pos / 64], 0, head), *scales;
    float x;
    uint16_t h;
    if (is_value) at += ctx->kv.key_bytes;
    if (type == SM__T_F32 || type == SM__T_F16 || type == SM__T_BF16) {
        sm__types[type].decode(at + (size_t)(index * sm__types[type].info.block_bytes), &x, 1);
        return x;
    }
    scales = at + dim * (type == SM__T_Q8_0 ? 64 : 32);
    if (type == SM__T_Q8_0) *q = (int8_t)at[index];
    else if (is_value) *q = at[lane * dim / 2 + d / 32 * 16 + d % 16] >> (d & 16 ? 4 : 0) & 15;
    else *q = at[d / 2 * 64 + lane] >> d % 2 * 4 & 15;
    if (type == SM__T_Q4_0 && *q > 7) *q -= 16;
    memcpy(&h, scales + 2 * (is_value ? lane * (dim / 32) + d / 32 : d / 32 * 64 + lane), 2);
    return (float)*q * sm__f16_to_f32(h);
}

/* 32 elements in F32 and as stored by a cache of the same keys and values: what a type's encoder,
 * which is ggml's, makes of them. Q8_0 is rounded as activations are: the largest |q| is 127, the
 * scale is a 127th of the largest |x| in f16, all lie within 0.57 of a scale. */
static void kv_compare_group(const sm_ctx *plain, const sm_ctx *ctx, int pos, int head, int group,
                             int is_value) {
    int type = is_value ? ctx->kv.value_type : ctx->kv.key_type, i, q = 0, most = 0;
    float x[32], want[32], got[32], largest = 0.0f, scale;
    uint8_t encoded[128];
    for (i = 0; i < 32; i++) {
        x[i] = kv_element(plain, pos, head, 32 * group + i, is_value, &q);
        got[i] = kv_element(ctx, pos, head, 32 * group + i, is_value, &q);
        if (fabsf(x[i]) > largest) largest = fabsf(x[i]);
        if (type == SM__T_Q8_0) most = sm__max(most, q < 0 ? -q : q);
    }
    scale = sm__f16_to_f32(sm__f32_to_f16(largest / 127.0f));
    sm__types[type].encode(x, encoded, 32);
    sm__types[type].decode(encoded, want, 32);
    for (i = 0; i < 32; i++) {
        if (type == SM__T_Q8_0) CHECK_NEAR(got[i], (double)x[i], 0.57 * (double)scale);
        else CHECK(sm__bits(got[i]) == sm__bits(want[i]) || got[i] == want[i]);
    }
    if (type == SM__T_Q8_0) CHECK(most == 127);
}

/* One model: what its cache holds, and how far its logits are from those with KV in F32: on average
 * at most `bound` of a row's range. */
static void kv_near_f32(const char *arch, int type, run_way w, double bound) {
    enum { N = 130 };
    kv_fixture f, plain;
    int pos, head, group, i, ready;
    float *got = run_rows(KV_CTX, KV_VOCAB);
    double mean = 0.0;
    ready = kv_make(&f, arch, type, w, 0);
    ready = kv_make(&plain, arch, type, run_plain(SM_TYPE_F32), 0) && ready;
    if (ready && CHECK_STATUS(run_eval(plain.ctx, 0, plain.tokens, N), SM_OK) &&
        CHECK_STATUS(run_eval(f.ctx, 0, plain.tokens, N), SM_OK)) {
        for (pos = 0; pos < N; pos++)
            for (head = 0; head < f.m->hp.n_kv_heads; head++)
                for (group = 0; group < 2 * (f.m->hp.head_dim / 32); group++)
                    kv_compare_group(plain.ctx, f.ctx, pos, head, group / 2, group % 2);
        run_logits(plain.m, &w, plain.tokens, KV_CTX, got);
        for (pos = 0; pos < KV_CTX; pos++) {
            const float *a = got + pos * KV_VOCAB, *b = plain.want + pos * KV_VOCAB;
            double sum = 0.0, low = 1e300, high = -1e300;
            for (i = 0; i < KV_VOCAB; i++) {
                sum += fabs((double)a[i] - (double)b[i]);
                low = (double)b[i] < low ? (double)b[i] : low;
                high = (double)b[i] > high ? (double)b[i] : high;
            }
            mean += sum / (high - low);
        }
        mean /= (double)(KV_VOCAB * KV_CTX);
        if (getenv("GOLDEN")) printf("\n%s: mean error %.3g of the range\n", arch, mean);
        CHECK(mean > 0.0);
        CHECK_NEAR(mean, 0.0, bound);
    }
    free(got);
    kv_free(&f);
    kv_free(&plain);
}
static void kv_types_are_near_f32(void) {
    kv_near_f32("qwen3", SM_TYPE_F32, run_plain(SM_TYPE_Q8_0), 2.5e-3);
    kv_near_f32("llama", SM_TYPE_Q4_K, run_pair(SM_TYPE_F16, SM_TYPE_Q8_0), 7e-3);
    kv_near_f32("qwen3", SM_TYPE_F32, run_pair(SM_TYPE_Q4_0, SM_TYPE_BF16), 2.5e-2);
    kv_near_f32("gpt2", SM_TYPE_Q6_K, run_pair(SM_TYPE_Q8_0, SM_TYPE_Q4_0), 4.5e-2);
}

/* What is not finite shows in Q4_0 too, where ggml's encoder would lose it. */
static void kv_q4_0_shows_what_is_not_finite(void) {
    static const uint32_t bad[] = {0x7f800000u, 0xff800000u, 0x7fc00000u, 0xff812345u};
    sm_ctx *no_ctx = NULL;
    uint16_t scales[2];
    uint8_t out[32], temp[64];
    float x[64];
    int i, k;
    for (i = 0; i < 64 * 4; i++) {
        for (k = 0; k < 64; k++) x[k] = (float)k - 20.5f;
        x[i % 64] = sm__from_bits(bad[i / 64]);
        sm__kv_convert(no_ctx, SM__T_Q4_0, x, 64, out, scales, temp);
        CHECK(((scales[i % 64 / 32] & 0x7c00) == 0x7c00) && (scales[i % 64 / 32] & 0x3ff));
        CHECK((scales[1 - i % 64 / 32] & 0x7c00) != 0x7c00);
    }
}

/* --- saved sequences -------------------------------------------------------------------------- */

/* What was saved goes on to the bit in another sequence and in another context; what was changed or
 * cut is refused and changes nothing. */
static void kv_saved_goes_on(run_way w) {
    enum { AT = 70, MORE = 90 };
    kv_fixture f, other;
    if (kv_make(&f, "llama", SM_TYPE_F32, w, 0) && kv_make(&other, "llama", SM_TYPE_F32, w, 0)) {
        size_t bytes, i;
        uint8_t *data;
        memcpy(other.tokens, f.tokens, sizeof f.tokens);
        memcpy(other.want, f.want, KV_CTX * KV_VOCAB * sizeof *f.want);
        kv_extend(&f, 0, AT);
        bytes = sm_seq_save_bytes(f.ctx, 0);
        data = (uint8_t *)malloc(bytes + 1) + 1; /* any address */
        CHECK_STATUS(sm_seq_save(f.ctx, 0, data, bytes - 1), SM_ERR_FULL);
        CHECK_STATUS(sm_seq_save(f.ctx, 0, data, bytes), SM_OK);
        kv_extend(&f, 2, 5);
        for (i = 0; i < bytes; i += i < 100 ? 1 : 997) {
            data[i] ^= 4;
            if (sm_seq_load(f.ctx, 2, data, bytes) == SM_OK) FAIL("byte %d was changed", (int)i);
            data[i] ^= 4;
            if (sm_seq_load(f.ctx, 2, data, i) != SM_ERR_FORMAT) FAIL("cut at %d", (int)i);
        }
        kv_extend(&f, 2, 9); /* nothing happened to it */
        CHECK_STATUS(sm_seq_load(f.ctx, 2, data, bytes), SM_OK);
        kv_extend(&f, 2, MORE);
        kv_extend(&f, 0, MORE);
        CHECK_STATUS(sm_seq_load(other.ctx, 1, data, bytes), SM_OK);
        kv_extend(&other, 1, MORE);
        CHECK_STATUS(sm_seq_load(other.ctx, KV_SEQS, data, bytes), SM_ERR_ARG);
        CHECK(sm_seq_save_bytes(other.ctx, -1) == 0);
        /* hostile: a hash that fits does not make the rest right */
        for (i = 0; i < 7; i++) {
            sm__saved good, head;
            int32_t id = i == 6 ? KV_VOCAB : i == 5 ? -1 : f.tokens[AT - 1];
            memcpy(&good, data, sizeof good);
            head = good;
            if (i == 0) head.length = 1 << 30;
            if (i == 1) head.length = -1;
            if (i == 2) head.length = 10;
            if (i == 3) head.first = -1;
            if (i == 4) head.first = AT + 1;
            memcpy(data + sizeof head + (AT - 1) * sizeof id, &id, sizeof id);
            head.hash = sm__saved_hash(head, data);
            memcpy(data, &head, sizeof head);
            CHECK(sm_seq_load(other.ctx, 1, data, bytes) != SM_OK);
            memcpy(data, &good, sizeof good);
        }
        kv_extend(&other, 1, MORE + 1);
        free(data - 1);
        kv_free(&other);
    }
    kv_free(&f);
}

static void kv_saves_and_loads(void) {
    kv_saved_goes_on(run_plain(SM_TYPE_F16));
    kv_saved_goes_on(run_pair(SM_TYPE_F32, SM_TYPE_BF16));
}

static void kv_load_wants_its_model_and_room(void) {
    kv_fixture f, other, small;
    uint8_t *data;
    size_t bytes;
    if (kv_make(&f, "llama", SM_TYPE_F32, run_plain(SM_TYPE_F16), 0) &&
        kv_make(&other, "qwen2", SM_TYPE_F32, run_plain(SM_TYPE_F16), 0) &&
        kv_make(&small, "llama", SM_TYPE_F32, run_plain(SM_TYPE_F16), 128)) {
        memcpy(small.tokens, f.tokens, sizeof f.tokens);
        memcpy(small.want, f.want, KV_CTX * KV_VOCAB * sizeof *f.want);
        kv_extend(&f, 0, 70);
        bytes = sm_seq_save_bytes(f.ctx, 0);
        data = (uint8_t *)malloc(bytes);
        CHECK_STATUS(sm_seq_save(f.ctx, 0, data, bytes), SM_OK);
        CHECK_STATUS(sm_seq_load(other.ctx, 0, data, bytes), SM_ERR_UNSUPPORTED);
        kv_extend(&small, 0, 20);
        CHECK_STATUS(sm_seq_load(small.ctx, 1, data, bytes), SM_ERR_FULL);
        CHECK_STATUS(sm_seq_load(small.ctx, 0, data, bytes), SM_OK); /* it gives a block back */
        kv_extend(&small, 0, 100);
        free(data);
    }
    kv_free(&f);
    kv_free(&other);
    kv_free(&small);
}

static const test tests_kv[] = {
    {"kv: a saved sequence goes on to the bit", kv_saves_and_loads},
    {"kv: a saved sequence wants its model, and room", kv_load_wants_its_model_and_room},
    {"kv: forks share blocks until one writes, release gives all back",
     kv_fork_shares_until_written},
    {"kv: forks do not disturb each other", kv_forks_do_not_disturb_each_other},
    {"kv: all forks of a block write in one batch", kv_all_forks_write_at_once},
    {"kv: rewound to any length evaluates alike", kv_rewound_anywhere_evaluates_alike},
    {"kv: a full pool in mid-batch leaves everything as before", kv_full_pool_leaves_everything},
    {"kv: any order of forks, rewinds, batches and cancels is right", kv_random_walk},
    {"kv: any order, with keys in Q4_0 and values in Q8_0", kv_random_walk_mixed},
    {"kv: 200 sequences in one batch", kv_many_sequences},
    {"kv: the statistics add up", kv_statistics_add_up},
    {"kv: Q8_0 and Q4_0 want heads of whole groups", kv_blocks_want_whole_groups},
    {"kv: every type holds what was stored, logits stay near", kv_types_are_near_f32},
    {"kv: Q4_0 shows what is not finite", kv_q4_0_shows_what_is_not_finite},
};
