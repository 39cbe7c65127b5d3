/* test_eval.c - evaluation. The bits: logits depend on the model and the tokens, never on how the
 * work was cut or where it ran, and they are the ones of the table below on every machine. The
 * numbers: an independent forward pass in double agrees. The errors: what fails changes nothing.
 * Included by test.c after build_gguf.h. */
#include "runs.h"

/* --- the bits --------------------------------------------------------------------------------- */

enum { EVAL_N = 70 }; /* tokens: more than a KV block */

static sm_model *eval_model(const char *arch, int type) {
    gguf_model_params p = gguf_model_default(arch, type);
    p.vocab = GGUF_NO_VOCAB;
    return gguf_model_open(&p);
}

/* Tokens that do not depend on the test. */
static void eval_tokens(int32_t *tokens, int n, int n_vocab) {
    uint32_t x = 12345;
    int i;
    for (i = 0; i < n; i++) {
        x = x * 1664525u + 1013904223u;
        tokens[i] = (int32_t)((x >> 8) % (uint32_t)n_vocab);
    }
}

static const char *eval_name(const char *arch, int type, const run_way *w) {
    static char text[64];
    snprintf(text, sizeof text, "%s %s, K %s, V %s", arch, sm_type_get_info(type)->name,
             sm_type_get_info(w->key_type)->name, sm_type_get_info(w->value_type)->name);
    return text;
}

/* Hashes (FNV-1a) of all 70 rows of logits of the builder's models, with KV in F32, in F16
 * and, where heads are wide enough, in Q8_0. GOLDEN=1 in the environment prints the table anew: a
 * change here is a change of the contract, or of the builder's models. (Weights in F16 equal those
 * in F32 because the builder's numbers fit into halves.) */
static const uint64_t eval_golden[RUN_ARCHS * RUN_TYPES][RUN_KV_TYPES] = {
    {0x3a2824f650c4925fu, 0x5b23156e10d9de7fu}, /* llama F32 */
    {0x3a2824f650c4925fu, 0x5b23156e10d9de7fu}, /* llama F16 */
    {0xa5d2b41d2e7ef1c9u, 0x3928512f34748703u}, /* llama BF16 */
    {0xdd87ace29d89d149u, 0x2fff8dfed4fd7fd1u}, /* llama Q8_0 */
    {0x36b7aa6f1ec5cee1u, 0x0ea2dacdea9cd1dfu}, /* llama Q4_0 */
    {0xc2ecb87090d0f459u, 0x3c83ab3555304e10u, 0x1d263a1d87b9bbf0u}, /* llama Q4_K */
    {0xc42597ece6041548u, 0x402ed3add0dfa57au, 0x56495757cb110d0du}, /* llama Q5_K */
    {0x60a33a2aab3db240u, 0x92a28271be3de533u, 0x71384eece219f3c2u}, /* llama Q6_K */
    {0x58180197bae7d1b8u, 0x41c50ea4b1947a0eu}, /* qwen2 F32 */
    {0x58180197bae7d1b8u, 0x41c50ea4b1947a0eu}, /* qwen2 F16 */
    {0xebf2a1cc4d64607du, 0xebcc2441d2d2a9ecu}, /* qwen2 BF16 */
    {0x2e60afc156bceac5u, 0xd1a2832953c6a0c5u}, /* qwen2 Q8_0 */
    {0xf45bed572d328c14u, 0x408cde31b27c0332u}, /* qwen2 Q4_0 */
    {0x91b9593005a1b1b4u, 0x86defe7abcfa3a4du, 0x7922b7f78864909eu}, /* qwen2 Q4_K */
    {0x22ddcd9ac478db27u, 0x3c29216a59bd77e4u, 0x47cacf769820e96au}, /* qwen2 Q5_K */
    {0xc6c480cb1654c884u, 0x0d5d616cf88965a0u, 0x79918ee494791823u}, /* qwen2 Q6_K */
    {0xbcccdfeb409e758eu, 0xb534440ee8152ac9u, 0x4be0b2f99f6c5da2u}, /* qwen3 F32 */
    {0xbcccdfeb409e758eu, 0xb534440ee8152ac9u, 0x4be0b2f99f6c5da2u}, /* qwen3 F16 */
    {0x0a96ee01dae46990u, 0x077217ec30a37e48u, 0x590c893dc7a997a5u}, /* qwen3 BF16 */
    {0xc3d57a6dd9af3731u, 0xc484104f93641788u, 0x541cd0d34b567c93u}, /* qwen3 Q8_0 */
    {0xf79790c461076e4au, 0x3b6ff6f3038d59adu, 0xd6ed746e2fa4e4e3u}, /* qwen3 Q4_0 */
    {0x04fbb5f4d22bdba1u, 0x6f415760785c9692u, 0x61ee72e441c27decu}, /* qwen3 Q4_K */
    {0xc72d724744b35872u, 0x4a115fe442edd662u, 0x28993bf7784c7468u}, /* qwen3 Q5_K */
    {0x02f7d5afb09ba4ebu, 0x52dcbe40fa5ca4b6u, 0xe9195aae520a447cu}, /* qwen3 Q6_K */
    {0x55a402f8ab3caf3du, 0x52901179e6e13b33u}, /* gpt2 F32 */
    {0x55a402f8ab3caf3du, 0x52901179e6e13b33u}, /* gpt2 F16 */
    {0x300120e71a570630u, 0x12ef544f4bff557au}, /* gpt2 BF16 */
    {0xb09e44546f79db5fu, 0x5e1e61c192d6e3c6u}, /* gpt2 Q8_0 */
    {0x725ed79f455ab8b1u, 0x31e73a74d9804a40u}, /* gpt2 Q4_0 */
    {0x375dccda3d8aaee0u, 0xd305f6abf425cb9fu, 0xb21a79b410d0fb89u}, /* gpt2 Q4_K */
    {0x9ad3ebc6a77ebbdcu, 0xa0560ede04809784u, 0x95ff627af5cdda0cu}, /* gpt2 Q5_K */
    {0xe0454cf4ce8e3be6u, 0xaf996e4cd57fe96eu, 0x82da0ade296fb233u}, /* gpt2 Q6_K */
    {0x929a33d51f23872eu, 0x2712ce64c193f452u}, /* cs336 F32 */
    {0x929a33d51f23872eu, 0x2712ce64c193f452u}, /* cs336 F16 */
    {0xecd6c3dba7df8be1u, 0x3730ce3707a66ce0u}, /* cs336 BF16 */
    {0x5e6ccfa37fdbc898u, 0x10d38568344677ecu}, /* cs336 Q8_0 */
    {0xdccdf4d316ce3735u, 0x256886069c8e41edu}, /* cs336 Q4_0 */
    {0x6f50586d3bde8bb7u, 0xb4eb6ad6a403fb76u, 0xced179128e767e6du}, /* cs336 Q4_K */
    {0x01f5542575f98bf3u, 0x5df4519f322dc5dcu, 0xaf959b9314a747f5u}, /* cs336 Q5_K */
    {0x14a86cf1518aeb78u, 0x37fcf333a9e54128u, 0x11e2ce27a26e92e1u}, /* cs336 Q6_K */
};

/* The same of the other types, for llama. */
static const uint64_t eval_golden_more[RUN_ALL_TYPES - RUN_TYPES][RUN_KV_TYPES] = {
    {0xb4d779cc2bc54785u, 0xe0f035aef1a6b8a1u}, /* llama Q4_1 */
    {0xd4aaf067ff5680c9u, 0x24f60a70f2327068u}, /* llama Q5_0 */
    {0xb2b14ea6e5dc08f3u, 0xbf9fee5f9651aef9u}, /* llama Q5_1 */
    {0x6020d6013537fd9eu, 0x782f341f164531c8u}, /* llama IQ4_NL */
    {0xd37c3b3e07b6eea6u, 0x28f64b35a8a0e43bu}, /* llama MXFP4 */
    {0x487551b181bc3e1cu, 0xccb7e172a23d3167u, 0x2dd67b2214112e65u}, /* llama Q2_K */
    {0x62988f1a6d5b02a2u, 0x216bc5594da2de86u, 0xfe6b715ab5430d9fu}, /* llama Q3_K */
    {0x980a0a83e71f271au, 0xdb6aba7aaf3a7351u, 0xfade655a970b346au}, /* llama IQ4_XS */
    {0xff66ff8bb49bb7a8u, 0xa24ca1511e4b8bf1u, 0xeca441ce11239afdu}, /* llama TQ1_0 */
    {0x6221c5c535725418u, 0xfd6292beccd921fbu, 0xa452df91b733ee63u}, /* llama TQ2_0 */
};

static void eval_golden_of(const char *arch, int type, const uint64_t *want) {
    int k, print = getenv("GOLDEN") != NULL;
    int32_t tokens[EVAL_N];
    sm_model *m = eval_model(arch, type);
    if (print) printf("    {");
    for (k = 0; k < RUN_KV_TYPES && m && run_kv_fits(m, run_kv_types[k]); k++) {
        run_way w = run_plain(run_kv_types[k]);
        int n_vocab = sm_model_get_info(m)->n_vocab;
        float *got = run_rows(EVAL_N, n_vocab);
        uint64_t h;
        eval_tokens(tokens, EVAL_N, n_vocab);
        run_logits(m, &w, tokens, EVAL_N, got);
        h = hash_bytes(got, (size_t)EVAL_N * (size_t)n_vocab * sizeof *got);
        if (print) printf("%s0x%08x%08xu", k ? ", " : "", (unsigned)(h >> 32), (unsigned)h);
        else if (h != want[k])
            FAIL("%s: 0x%08x%08x", eval_name(arch, type, &w), (unsigned)(h >> 32),
                 (unsigned)h);
        free(got);
    }
    if (print) printf("}, /* %s %s */\n", arch, sm_type_get_info(type)->name);
    sm_model_close(m);
}

static void eval_bits_are_the_golden_ones(void) {
    int a, t;
    if (getenv("GOLDEN")) printf("\n");
    for (a = 0; a < RUN_ARCHS; a++)
        for (t = 0; t < RUN_TYPES; t++)
            eval_golden_of(run_archs[a], run_types[t], eval_golden[a * RUN_TYPES + t]);
    for (t = RUN_TYPES; t < RUN_ALL_TYPES; t++)
        eval_golden_of(run_archs[0], run_types[t], eval_golden_more[t - RUN_TYPES]);
}

/* The same of one model for every pair of types: keys down, values across, as run_kv_types. */
static const uint64_t eval_pairs[RUN_KV_ALL][RUN_KV_ALL] = {
    {0xbcccdfeb409e758eu, 0xebebd33b46589859u, 0x247adecdb56c5bcbu, 0xd9307c5b686573d1u,
     0xa31b4e3f2cfe155fu}, /* keys in F32 */
    {0xd8b5e6b6a4b8f3d3u, 0xb534440ee8152ac9u, 0xa2be5abf75724a88u, 0x82ccf736f4e69ad8u,
     0x7ea4411010ea3edeu}, /* keys in F16 */
    {0xda5ba9cab0c4cc5cu, 0x927307bc5716e60fu, 0x4be0b2f99f6c5da2u, 0x2441862d3154f5a7u,
     0xc9221d60032f778cu}, /* keys in Q8_0 */
    {0x009ee0e1a2c025cfu, 0xfa2cee58b8dccd13u, 0xc5a29a54b87c1820u, 0x6a6ef36a511a6522u,
     0xadcd42921129320au}, /* keys in BF16 */
    {0xd63460ffa0f23922u, 0x8ab4d15340fa4c59u, 0xdc25d53d92cfcd00u, 0xcd9477d315b405e9u,
     0xdbb573a1bd897776u}, /* keys in Q4_0 */
};

static void eval_bits_of_all_cache_types(void) {
    sm_model *m = eval_model("qwen3", SM_TYPE_F32);
    int k, v, i, isas[8], n_isas = run_isas(isas), n_vocab = sm_model_get_info(m)->n_vocab;
    float *got = run_rows(EVAL_N, n_vocab);
    int32_t tokens[EVAL_N];
    eval_tokens(tokens, EVAL_N, n_vocab);
    for (k = 0; k < RUN_KV_ALL; k++)
        for (v = 0; v < RUN_KV_ALL; v++) {
            run_way w = run_pair(run_kv_types[k], run_kv_types[v]);
            for (i = 0; i < n_isas; i++) {
                uint64_t h;
                w.isa = isas[i];
                run_logits(m, &w, tokens, EVAL_N, got);
                h = hash_bytes(got, (size_t)EVAL_N * (size_t)n_vocab * sizeof *got);
                if (getenv("GOLDEN") && i == 0)
                    printf("%s0x%08x%08xu%s", v ? " " : "\n    {", (unsigned)(h >> 32),
                           (unsigned)h, v < RUN_KV_ALL - 1 ? "," : "},");
                if (!getenv("GOLDEN") && h != eval_pairs[k][v])
                    FAIL("%s, %s: 0x%08x%08x", eval_name("qwen3", SM_TYPE_F32, &w),
                         sm_isa_name(w.isa), (unsigned)(h >> 32), (unsigned)h);
            }
        }
    free(got);
    sm_model_close(m);
}

/* Keys and values of types that differ, another pair for every n; BF16 where they cannot. */
static run_way eval_mixed(const sm_model *m, int n) {
    int key = run_kv_types[n % RUN_KV_ALL], value = run_kv_types[(n / 2 + 3) % RUN_KV_ALL];
    return run_pair(run_kv_fits(m, key) ? key : SM_TYPE_BF16,
                    run_kv_fits(m, value) ? value : SM_TYPE_BF16);
}

/* Chunks of every size and calls of every size, at every level, give the bits of token by token.
 * The usual types of the first architecture meet every type of keys and values, the others every
 * second. */
static void eval_variants(const char *arch) {
    static const int batches[] = {1, 2, 3, 7, 16, 64}, calls[] = {1, 5, 33};
    int isas[8], n_isas = run_isas(isas), first = strcmp(arch, run_archs[0]) == 0, t, k, i;
    for (t = 0; t < (first ? RUN_ALL_TYPES : RUN_TYPES); t++) {
        sm_model *m = eval_model(arch, run_types[t]);
        for (k = 0; k <= RUN_KV_TYPES && m; k++) {
            run_way w = k < RUN_KV_TYPES ? run_plain(run_kv_types[k]) : eval_mixed(m, t / 3);
            run_trial r;
            if (!run_kv_fits(m, w.key_type) || (k == RUN_KV_TYPES && t % 3)) continue;
            if ((!first || t >= RUN_TYPES) && k < RUN_KV_TYPES && (t + k) % 2) continue;
            r = run_begin_plainly(m, eval_name(arch, run_types[t], &w), EVAL_N, w);
            for (i = 1; i < n_isas; i++) {
                w.isa = isas[i];
                run_try(&r, &w);
            }
            for (i = 0; i < 6; i++) { /* one of them scalar; 64 rows of F32 are cut into tiles */
                w.isa = i == (t ? (t + k) % 6 : 5) ? SM_ISA_SCALAR : SM_ISA_AUTO;
                w.n_batch = batches[i];
                run_try(&r, &w);
            }
            w.isa = SM_ISA_AUTO;
            w.n_batch = 16;
            for (i = 0; i < 3; i++) {
                w.call = calls[i];
                run_try(&r, &w);
            }
            run_end(&r);
        }
        sm_model_close(m);
    }
}

/* However fast a level is said to be, results that wait in a member's scratch have room there. */
static void eval_results_fit_in_scratch(void) {
    static sm_ctx ctx;
    int isa, k, n, rows, op;
    for (isa = SM_ISA_SCALAR; isa <= SM_ISA_NEON; isa++)
        for (k = 32; k <= 8192; k *= 4)
            for (n = 32; n <= 131072; n *= 2)
                for (rows = 2; rows <= 4096; rows += rows / 2)
                    for (op = 0; op < 2; op++) {
                        sm__weight w;
                        sm__step s;
                        memset(&w, 0, sizeof w);
                        memset(&s, 0, sizeof s);
                        ctx.kernels.isa = isa;
                        ctx.n_members = 1 + rows % 3;
                        w.type = op ? SM__T_Q8_0 : SM__T_F32;
                        w.k = k;
                        w.n = n;
                        w.stride = sm__row_bytes(w.type, (size_t)k);
                        s.w[0] = &w;
                        s.n_w = 1;
                        s.op = op ? SM__OP_LOGITS : SM__OP_MATMUL;
                        s.accumulate = !op;
                        sm__shape_matmul(&ctx, &s, rows);
                        CHECK(s.tile_t >= 1 && s.tile_n >= 1);
                        CHECK((int64_t)s.tile_t * s.tile_n <= SM__TILE_FLOATS);
                    }
}

static void eval_variants_llama(void) { eval_variants("llama"); }
static void eval_variants_qwen2(void) { eval_variants("qwen2"); }
static void eval_variants_qwen3(void) { eval_variants("qwen3"); }
static void eval_variants_gpt2(void) { eval_variants("gpt2"); }
static void eval_variants_cs336(void) { eval_variants("cs336"); }

/* Eight combinations in which every architecture, type and KV type occurs, at the scalar level:
 * there a step has many tiles even in so small a model. */
typedef void (*eval_trial)(const run_trial *r, int number, run_way *w);

static void eval_for_some(eval_trial trial) {
    int c;
    for (c = 0; c < 8; c++) {
        sm_model *m = eval_model(run_archs[c % RUN_ARCHS], run_types[(c * 3 + 1) % RUN_TYPES]);
        run_way w = run_plain(c % 2 ? SM_TYPE_F16 : c % 6 ? SM_TYPE_Q8_0 : SM_TYPE_F32);
        run_trial r;
        w.isa = SM_ISA_SCALAR;
        r = run_begin(m, run_archs[c % RUN_ARCHS], 40, &w);
        w.n_batch = 16;
        if (m) trial(&r, c, &w);
        run_end(&r);
        sm_model_close(m);
    }
}

/* Three numbers of threads each; together every one from 1 to 8, three times. */
static void eval_try_threads(const run_trial *r, int number, run_way *w) {
    int i;
    for (i = 0; i < 3; i++) {
        w->n_threads = 1 + (number + 3 * i) % 8;
        w->n_batch = i ? 16 : 1;
        run_try(r, w);
    }
}
static void eval_any_threads_same_bits(void) { eval_for_some(eval_try_threads); }

static void eval_try_budgets(const run_trial *r, int number, run_way *w) {
    static const int64_t budgets[] = {0, 1, 50, 1000, -1};
    int i, steps;
    (void)number;
    w->sliced = 1;
    for (i = 0; i < 5; i++) {
        w->budget = budgets[i];
        w->n_threads = i % 2 ? 3 : 1;
        steps = run_try(r, w);
        if (i == 0) CHECK(steps > 3 * 20); /* three chunks of some twenty steps */
        if (i == 4) CHECK(steps == 1);
    }
}
static void eval_any_budget_same_bits(void) { eval_for_some(eval_try_budgets); }

/* More tiles than members at the best level too: a larger model. */
static void eval_threads_at_the_best_level(void) {
    gguf_model_params p = gguf_model_default("llama", SM_TYPE_Q8_0);
    sm_model *m;
    run_way w = run_plain(SM_TYPE_F16);
    run_trial r;
    int isas[8], n_isas = run_isas(isas), i;
    p.n_embd = 256;
    p.n_ff = 512;
    p.n_vocab = 1024;
    p.head_dim = 64;
    p.vocab = GGUF_NO_VOCAB;
    m = gguf_model_open(&p);
    r = run_begin(m, "threads", 100, &w);
    for (i = 1; i < n_isas; i++)
        for (w.n_threads = 2; w.n_threads <= 5; w.n_threads++) {
            w.isa = isas[i];
            w.n_batch = w.n_threads == 2 ? 0 : 32;
            w.sliced = w.n_threads == 4;
            w.budget = 50;
            run_try(&r, &w);
        }
    run_end(&r);
    sm_model_close(m);
}

static void eval_sequences_in_one_batch_are_alone(void) {
    int c;
    for (c = 0; c < RUN_ARCHS; c++) {
        sm_model *m = eval_model(run_archs[c], run_types[c]);
        int wide = m && m->hp.head_dim % 32 == 0; /* qwen3 */
        run_way w = wide    ? run_pair(SM_TYPE_Q8_0, SM_TYPE_Q4_0)
                    : c % 2 ? run_pair(SM_TYPE_F16, SM_TYPE_BF16)
                            : run_plain(SM_TYPE_F32);
        w.n_batch = 16;
        w.n_threads = 1;
        run_neighbours(m, run_archs[c], &w);
        sm_model_close(m);
    }
}

/* Past 256 keys attention has parts, past 1024 phases; up to eight rows split the parts among
 * tiles. */
static void eval_long(int key_type, int value_type) {
    enum { N = 1100 };
    static const struct {
        int scalar, n_batch, call, n_threads, sliced;
    } ways[] = {{0, 256, 0, 1, 0}, {0, 512, 0, 3, 0}, {0, 7, 0, 1, 0},   {0, 8, 0, 2, 0},
                {0, 9, 0, 1, 0},   {1, 100, 0, 4, 1}, {1, 5, 0, 3, 0}, {0, 64, 257, 1, 0}};
    gguf_model_params p = gguf_model_default("llama", SM_TYPE_F32);
    sm_model *m;
    run_way w = run_pair(key_type, value_type);
    run_trial r;
    size_t i;
    p.n_ctx = N;
    p.n_layers = 1;
    p.n_embd = 32;
    p.head_dim = key_type == SM_TYPE_Q8_0 ? 32 : 8;
    p.n_ff = 32;
    p.n_vocab = 32;
    p.vocab = GGUF_NO_VOCAB;
    m = gguf_model_open(&p);
    w.call = w.n_batch = 1;
    r = run_begin(m, "long", N, &w);
    for (i = 0; i < sizeof ways / sizeof *ways; i++) {
        w.isa = ways[i].scalar ? SM_ISA_SCALAR : SM_ISA_AUTO;
        w.n_batch = ways[i].n_batch;
        w.call = ways[i].call;
        w.n_threads = ways[i].n_threads;
        w.sliced = ways[i].sliced;
        run_try(&r, &w);
    }
    run_end(&r);
    sm_model_close(m);
}
static void eval_long_f32_bf16(void) { eval_long(SM_TYPE_F32, SM_TYPE_BF16); }
static void eval_long_f16(void) { eval_long(SM_TYPE_F16, SM_TYPE_F16); }
static void eval_long_q8_0_q4_0(void) { eval_long(SM_TYPE_Q8_0, SM_TYPE_Q4_0); }

/* --- teams and job systems -------------------------------------------------------------------- */

#ifdef RUN_THREADS

enum { JOBS_POOL, JOBS_SLOW, JOBS_INLINE, JOBS_LATE, JOBS_NEVER, JOBS_KINDS };

/* A host's job system, in some kinds: threads with a queue; threads that start late; the
 * dispatching thread itself; after the evaluation; not at all. */
typedef struct host_jobs {
    int kind, n, stop, ran;
    struct {
        void (*job)(void *arg);
        void *arg;
    } queue[256];
    pthread_mutex_t lock;
    pthread_cond_t wake;
    pthread_t threads[3];
} host_jobs;

static void host_jobs_dispatch(void *user, void (*job)(void *arg), void *arg, int n) {
    host_jobs *h = (host_jobs *)user;
    if (h->kind == JOBS_NEVER) return;
    if (h->kind == JOBS_INLINE) {
        for (; n; n--, h->ran++) job(arg);
        return;
    }
    pthread_mutex_lock(&h->lock);
    for (; n && h->n < 256; n--) {
        h->queue[h->n].job = job;
        h->queue[h->n++].arg = arg;
    }
    pthread_cond_broadcast(&h->wake);
    pthread_mutex_unlock(&h->lock);
}

static void *host_jobs_main(void *user) {
    host_jobs *h = (host_jobs *)user;
    pthread_mutex_lock(&h->lock);
    while (!h->stop) {
        void (*job)(void *arg);
        void *arg;
        if (h->n == 0) {
            pthread_cond_wait(&h->wake, &h->lock);
            continue;
        }
        job = h->queue[--h->n].job;
        arg = h->queue[h->n].arg;
        pthread_mutex_unlock(&h->lock);
        if (h->kind == JOBS_SLOW) { /* 0.2 ms */
            uint64_t until = sm__now_ns() + 200000;
            while (sm__now_ns() < until) sched_yield();
        }
        job(arg);
        pthread_mutex_lock(&h->lock);
        h->ran++;
    }
    pthread_mutex_unlock(&h->lock);
    return NULL;
}

static void host_jobs_start(host_jobs *h, int kind) {
    int i;
    memset(h, 0, sizeof *h);
    h->kind = kind;
    pthread_mutex_init(&h->lock, NULL);
    pthread_cond_init(&h->wake, NULL);
    for (i = 0; i < 3 && kind <= JOBS_SLOW; i++)
        CHECK(pthread_create(&h->threads[i], NULL, host_jobs_main, h) == 0);
}

static void host_jobs_finish(host_jobs *h) {
    int i;
    if (h->kind == JOBS_LATE) /* no pass is left: they return at once */
        for (; h->n; h->n--, h->ran++) h->queue[h->n - 1].job(h->queue[h->n - 1].arg);
    pthread_mutex_lock(&h->lock);
    h->stop = 1;
    pthread_cond_broadcast(&h->wake);
    pthread_mutex_unlock(&h->lock);
    for (i = 0; i < 3 && h->kind <= JOBS_SLOW; i++) pthread_join(h->threads[i], NULL);
    pthread_cond_destroy(&h->wake);
    pthread_mutex_destroy(&h->lock);
}

static void eval_try_jobs(const run_trial *r, int number, run_way *w) {
    int kind;
    (void)number;
    for (kind = 0; kind < JOBS_KINDS; kind++) {
        host_jobs h;
        sm_team_params p = sm_team_default();
        host_jobs_start(&h, kind);
        p.jobs.dispatch = host_jobs_dispatch;
        p.jobs.user = &h;
        p.jobs.n_workers = 3;
        p.allocator = heap_allocator();
        if (CHECK_STATUS(sm_team_create(&p, &w->team, NULL), SM_OK)) {
            w->sliced = kind == JOBS_SLOW;
            w->budget = 300;
            w->call = kind == JOBS_POOL ? 1 : 0;
            run_try(r, w);
        }
        host_jobs_finish(&h);
        if (kind == JOBS_INLINE || kind == JOBS_LATE) CHECK(h.ran > 0);
        sm_team_destroy(w->team);
        w->team = NULL;
    }
}
static void eval_with_host_jobs_same_bits(void) { eval_for_some(eval_try_jobs); }

#endif /* RUN_THREADS */

static void eval_try_shared_team(const run_trial *r, int number, run_way *w) {
    int i;
    sm_team_params p = sm_team_default();
    (void)number;
    p.n_threads = 4;
    p.allocator = heap_allocator();
    if (!CHECK_STATUS(sm_team_create(&p, &w->team, NULL), SM_OK)) return;
    for (i = 0; i < 4; i++) {
        w->n_batch = i % 2 ? 16 : 3;
        w->sliced = i > 1;
        w->budget = 50;
        run_try(r, w);
    }
    sm_team_destroy(w->team);
    w->team = NULL;
}
static void eval_with_a_shared_team_same_bits(void) { eval_for_some(eval_try_shared_team); }

/* A host may round towards infinity and flush denormals: the logits do not change, nor its state.
 * */
static void eval_ignores_the_hosts_floating_point_state(void) {
#if defined(SM__X86) || defined(SM__ARM64)
    enum { N = 20 };
#ifdef SM__X86
    const uint64_t hostile = 0xDFC0; /* flush, denormals are zero, round up, exceptions masked */
#else
    const uint64_t hostile = (uint64_t)5 << 22; /* flush to zero, round up */
#endif
    sm_model *m = eval_model("llama", SM_TYPE_Q8_0);
    run_way w = run_plain(SM_TYPE_F16);
    float *want = run_rows(N, 320), *got = run_rows(N, 320);
    int32_t tokens[N];
    uint64_t normal, after;
    sm_sampler sampler;
    uint8_t work[SMALLMIND_SAMPLE_BYTES(320, 0)];
    int32_t id;
    memset(&sampler, 0, sizeof sampler);
    sampler.temperature = 0.7f;
    if (m) {
        run_tokens(m, tokens, N);
        run_logits(m, &w, tokens, N, want);
        id = sm_sample(&sampler, NULL, want, 320, NULL, 0, work);
        normal = sm__fp_enter();
        sm__fp_leave(hostile);
        w.n_threads = 2;
        run_logits(m, &w, tokens, N, got);
        CHECK(sm_sample(&sampler, NULL, want, 320, NULL, 0, work) == id);
        after = sm__fp_enter();
        sm__fp_leave(normal);
        CHECK((after & ~(uint64_t)63) == (hostile & ~(uint64_t)63)); /* but for sticky flags */
        SAME("state", got, want, N, 320);
    }
    free(want);
    free(got);
    sm_model_close(m);
#else
    SKIP("this processor's state is not known");
#endif
}

/* --- the numbers: a forward pass in double ---------------------------------------------------- */

#define EXACT_MAX 512
#define HALF_ULP (1.0 / 16777216)

/* It reads the tensors by name through the public calls and shares no code with the library. With
 * noise, every operation's result is off by a random part of the error that float arithmetic may
 * have there (Parker 1997): how far the logits then move is the bound for the library. */
typedef struct exact_model {
    const sm_model *m;
    sm_model_info info;
    double eps, freq[64], magnitude, noise;
    int n_rot, pairs; /* pairs: (2i, 2i + 1) turn together, else (i, i + n_rot / 2) */
    int rms, learned, gelu_tanh, gelu_erf;
    double *k, *v; /* [layers, positions, kv heads * head_dim] */
} exact_model;

static double exact_round(const exact_model *e, double value, double bound) {
    return value + e->noise * bound * (double)random_float();
}

/* An F32 tensor's data; NULL when there is none. */
static const uint8_t *exact_find(const exact_model *e, int layer, const char *stem,
                                 const char *suffix) {
    char name[80];
    sm_tensor t;
    int i;
    if (layer < 0) snprintf(name, sizeof name, "%s%s", stem, suffix);
    else snprintf(name, sizeof name, "blk.%d.%s%s", layer, stem, suffix);
    for (i = 0; i < e->info.n_tensors; i++)
        if (sm_model_tensor(e->m, i, &t) == SM_OK && strcmp(t.name, name) == 0)
            return (const uint8_t *)t.data;
    return NULL;
}

static double exact_at(const uint8_t *data, size_t i) {
    float f;
    memcpy(&f, data + 4 * i, 4);
    return (double)f;
}

/* y = W x + b; row0: of a matrix that holds several. */
static void exact_matmul(const exact_model *e, int layer, const char *stem, int row0,
                         const double *x, int k, double *y, int n) {
    const uint8_t *w = exact_find(e, layer, stem, ".weight");
    const uint8_t *b = exact_find(e, layer, stem, ".bias");
    int o, i;
    if (!CHECK(w != NULL)) return;
    for (o = 0; o < n; o++) {
        double sum = 0.0, size = 0.0;
        for (i = 0; i < k; i++) {
            double p = exact_at(w, (size_t)(row0 + o) * (size_t)k + (size_t)i) * x[i];
            sum += p;
            size += fabs(p);
        }
        y[o] = exact_round(e, sum, (k / 16.0 + 5) * HALF_ULP * size);
        if (b) y[o] = exact_round(e, y[o] + exact_at(b, (size_t)(row0 + o)), HALF_ULP * fabs(y[o]));
    }
}

/* The norm's own error: a sum, a division, a root, a division, two products. */
static void exact_norm(const exact_model *e, int layer, const char *stem, const double *x,
                       double *y, int n, int rms) {
    const uint8_t *w = exact_find(e, layer, stem, ".weight");
    const uint8_t *b = exact_find(e, layer, stem, ".bias");
    double mean = 0.0, square = 0.0;
    int i;
    if (!CHECK(w != NULL)) return;
    for (i = 0; i < n && !rms; i++) mean += x[i] / n;
    for (i = 0; i < n; i++) square += (x[i] - mean) * (x[i] - mean) / n;
    square = exact_round(e, square, (n / 16.0 + 8) * HALF_ULP * square);
    for (i = 0; i < n; i++) {
        double v = (x[i] - mean) / sqrt(square + e->eps) * exact_at(w, (size_t)i);
        if (b) v += exact_at(b, (size_t)i);
        y[i] = exact_round(e, v, 6 * HALF_ULP * (fabs(v) + fabs(mean)));
    }
}

static void exact_rope(const exact_model *e, double *x, int heads, int pos) {
    int h, i, half = e->n_rot / 2;
    for (h = 0; h < heads; h++, x += e->info.head_dim)
        for (i = 0; i < half; i++) {
            double *a = e->pairs ? &x[2 * i] : &x[i], *b = e->pairs ? &x[2 * i + 1] : &x[i + half];
            double c = cos(pos * e->freq[i]) * e->magnitude;
            double s = sin(pos * e->freq[i]) * e->magnitude;
            double p = *a * c - *b * s, q = *a * s + *b * c, size = fabs(*a) + fabs(*b);
            *a = exact_round(e, p, 3 * HALF_ULP * size * e->magnitude);
            *b = exact_round(e, q, 3 * HALF_ULP * size * e->magnitude);
        }
}

static void exact_attention(exact_model *e, int layer, int pos, const double *q, double *out) {
    int heads = e->info.n_heads, kv = e->info.n_kv_heads, dim = e->info.head_dim, h, t, d;
    size_t row = (size_t)(kv * dim), first = (size_t)layer * EXACT_MAX * row;
    for (h = 0; h < heads; h++) {
        const double *k = e->k + first + (size_t)(h / (heads / kv) * dim);
        const double *v = e->v + first + (size_t)(h / (heads / kv) * dim);
        double score[EXACT_MAX], most = -1e300, sum = 0.0;
        for (t = 0; t <= pos; t++) {
            double s = 0.0, size = 0.0;
            for (d = 0; d < dim; d++) {
                s += q[h * dim + d] * k[(size_t)t * row + (size_t)d];
                size += fabs(q[h * dim + d] * k[(size_t)t * row + (size_t)d]);
            }
            score[t] = exact_round(e, s, (dim + 3) * HALF_ULP * size) / sqrt((double)dim);
            if (score[t] > most) most = score[t];
        }
        for (t = 0; t <= pos; t++) {
            score[t] = exp(score[t] - most);
            score[t] = exact_round(e, score[t], 4 * HALF_ULP * score[t]);
            sum += score[t];
        }
        for (d = 0; d < dim; d++) {
            double o = 0.0, size = 0.0;
            for (t = 0; t <= pos; t++) {
                o += score[t] / sum * v[(size_t)t * row + (size_t)d];
                size += fabs(score[t] / sum * v[(size_t)t * row + (size_t)d]);
            }
            out[h * dim + d] = exact_round(e, o, (pos + 8) * HALF_ULP * size);
        }
    }
}

/* One feed-forward block, `kind` at the end of its tensors' names: of a mixture expert `expert`. */
static void exact_block(const exact_model *e, int layer, const char *kind, int expert, int n,
                        const double *x, double *out) {
    static double up[EXACT_MAX], gate[EXACT_MAX];
    char name[32];
    int i, c = e->info.n_embd;
    snprintf(name, sizeof name, "ffn_up%s", kind);
    exact_matmul(e, layer, name, expert * n, x, c, up, n);
    snprintf(name, sizeof name, "ffn_gate%s", kind);
    if (!e->gelu_tanh && !e->gelu_erf) exact_matmul(e, layer, name, expert * n, x, c, gate, n);
    for (i = 0; i < n; i++) {
        double u = up[i], y;
        if (e->gelu_tanh)
            y = 0.5 * u * (1.0 + tanh(sqrt(2.0 / 3.14159265358979323846) *
                                      (u + 0.044715 * u * u * u)));
        else if (e->gelu_erf) y = 0.5 * u * (1.0 + erf(u / sqrt(2.0)));
        else y = gate[i] / (1.0 + exp(-gate[i])) * u;
        up[i] = exact_round(e, y, 8 * HALF_ULP * (fabs(y) + (e->gelu_erf ? fabs(u) : 0.0)));
    }
    snprintf(name, sizeof name, "ffn_down%s", kind);
    exact_matmul(e, layer, name, expert * c, up, n, out, c);
}

/* All experts, by weights of which all but the largest ones are 0. */
static void exact_mixture(const exact_model *e, int layer, const double *x, double *out) {
    static double y[EXACT_MAX];
    double p[64], gate, sum = 0.0, chosen = 0.0;
    int n = e->info.n_experts, c = e->info.n_embd, ff = e->m->hp.n_ff_expert, i, j;
    exact_matmul(e, layer, "ffn_gate_inp", 0, x, c, p, n);
    for (i = 0; i < n; i++) sum += exp(p[i]);
    for (i = 0; i < n; i++) p[i] = exact_round(e, exp(p[i]) / sum, 4 * HALF_ULP * exp(p[i]) / sum);
    for (i = 0; i < c; i++) out[i] = 0.0;
    for (i = 0; i < n; i++) {
        int better = 0;
        for (j = 0; j < n; j++) better += p[j] > p[i];
        y[i] = better < e->info.n_experts_used ? p[i] : 0.0;
    }
    for (i = 0; i < n; i++) p[i] = y[i], chosen += p[i];
    if (strcmp(e->info.arch, "qwen2moe") == 0) chosen = 1.0; /* not normalised */
    for (i = 0; i < n; i++) {
        if (p[i] == 0.0) continue;
        exact_block(e, layer, "_exps", i, ff, x, y);
        for (j = 0; j < c; j++)
            out[j] += exact_round(e, y[j] * p[i] / chosen, 3 * HALF_ULP * fabs(y[j]) * p[i]);
    }
    if (!exact_find(e, layer, "ffn_gate_inp_shexp", ".weight")) return;
    exact_matmul(e, layer, "ffn_gate_inp_shexp", 0, x, c, &gate, 1);
    exact_block(e, layer, "_shexp", 0, e->m->hp.n_ff_shared, x, y);
    for (j = 0; j < c; j++) {
        double v = y[j] / (1.0 + exp(-gate));
        out[j] += exact_round(e, v, 6 * HALF_ULP * fabs(v));
    }
}

/* The logits after `token` at `pos`; the cache holds what came before. */
static void exact_forward(exact_model *e, int32_t token, int pos, double *logits) {
    static double x[EXACT_MAX], h[EXACT_MAX], q[EXACT_MAX], o[EXACT_MAX];
    int c = e->info.n_embd, dim = e->info.head_dim, qn = e->info.n_heads * dim;
    int kvn = e->info.n_kv_heads * dim, il, i;
    const uint8_t *embed = exact_find(e, -1, "token_embd", ".weight");
    const uint8_t *place = e->learned ? exact_find(e, -1, "position_embd", ".weight") : NULL;
    int fused = exact_find(e, 0, "attn_qkv", ".weight") != NULL;
    for (i = 0; i < c; i++) {
        x[i] = exact_at(embed, (size_t)(token * c + i));
        if (place) x[i] += exact_at(place, (size_t)(pos * c + i));
    }
    for (il = 0; il < e->info.n_layers; il++) {
        double *k = e->k + ((size_t)il * EXACT_MAX + (size_t)pos) * (size_t)kvn;
        double *v = e->v + ((size_t)il * EXACT_MAX + (size_t)pos) * (size_t)kvn;
        exact_norm(e, il, "attn_norm", x, h, c, e->rms);
        exact_matmul(e, il, fused ? "attn_qkv" : "attn_q", 0, h, c, q, qn);
        exact_matmul(e, il, fused ? "attn_qkv" : "attn_k", fused ? qn : 0, h, c, k, kvn);
        exact_matmul(e, il, fused ? "attn_qkv" : "attn_v", fused ? qn + kvn : 0, h, c, v, kvn);
        if (exact_find(e, il, "attn_q_norm", ".weight")) {
            for (i = 0; i < qn; i += dim) exact_norm(e, il, "attn_q_norm", q + i, q + i, dim, 1);
            for (i = 0; i < kvn; i += dim) exact_norm(e, il, "attn_k_norm", k + i, k + i, dim, 1);
        }
        if (!e->learned) {
            exact_rope(e, q, e->info.n_heads, pos);
            exact_rope(e, k, e->info.n_kv_heads, pos);
        }
        exact_attention(e, il, pos, q, o);
        exact_matmul(e, il, "attn_output", 0, o, qn, h, c);
        for (i = 0; i < c; i++) x[i] = exact_round(e, x[i] + h[i], HALF_ULP * fabs(x[i] + h[i]));
        exact_norm(e, il, "ffn_norm", x, h, c, e->rms);
        if (e->info.n_experts) exact_mixture(e, il, h, o);
        else exact_block(e, il, "", 0, e->info.n_ff, h, o);
        for (i = 0; i < c; i++) x[i] = exact_round(e, x[i] + o[i], HALF_ULP * fabs(x[i] + o[i]));
    }
    exact_norm(e, -1, "output_norm", x, h, c, e->rms);
    exact_matmul(e, -1, exact_find(e, -1, "output", ".weight") ? "output" : "token_embd", 0, h, c,
                 logits, e->info.n_vocab);
}

static exact_model exact_make(const sm_model *m, double base) {
    exact_model e;
    const char *arch;
    int i;
    size_t cache;
    memset(&e, 0, sizeof e);
    e.m = m;
    e.info = *sm_model_get_info(m);
    arch = e.info.arch;
    e.eps = (double)1e-5f;
    e.rms = strcmp(arch, "gpt2") != 0;
    e.learned = !e.rms || strcmp(arch, "cs336") == 0;
    e.pairs = strcmp(arch, "llama") == 0 || strcmp(arch, "mistral") == 0;
    e.gelu_tanh = !e.rms;
    e.gelu_erf = strcmp(arch, "cs336") == 0;
    e.n_rot = e.info.head_dim;
    e.magnitude = 1.0;
    for (i = 0; i < e.n_rot / 2; i++) e.freq[i] = pow(base, -2.0 * i / e.n_rot);
    cache = (size_t)e.info.n_layers * EXACT_MAX * (size_t)(e.info.n_kv_heads * e.info.head_dim);
    e.k = (double *)malloc(cache * sizeof *e.k);
    e.v = (double *)malloc(cache * sizeof *e.v);
    if (!e.k || !e.v) exit(3);
    return e;
}

/* The library's logits of n random tokens against the pass in double, four times the largest move
 * that noise made being allowed. Frees e. */
static void exact_compare(exact_model *e, const char *what, int n) {
    static double logits[EXACT_MAX];
    int n_vocab = e->info.n_vocab, t, i, trial;
    int32_t tokens[128];
    float *got = run_rows(n, n_vocab);
    double *want = (double *)malloc((size_t)(n * n_vocab) * sizeof *want);
    double moved = 0.0, worst = 0.0, largest = 0.0;
    run_way w = run_plain(SM_TYPE_F32);
    if (!want || n > 128 || n_vocab > EXACT_MAX) exit(3);
    run_tokens(e->m, tokens, n);
    for (trial = 0; trial < 4; trial++) {
        e->noise = trial ? 1.0 : 0.0;
        for (t = 0; t < n; t++) {
            exact_forward(e, tokens[t], t, trial ? logits : want + t * n_vocab);
            for (i = 0; i < n_vocab && trial; i++) {
                double d = fabs(logits[i] - want[t * n_vocab + i]);
                if (d > moved) moved = d;
            }
        }
    }
    run_logits(e->m, &w, tokens, n, got);
    for (i = 0; i < n * n_vocab; i++) {
        double d = fabs((double)got[i] - want[i]);
        if (!(d <= worst)) worst = d;
        if (fabs(want[i]) > largest) largest = fabs(want[i]);
    }
    if (!(worst <= 4 * moved))
        FAIL("%s: off by %.3g, %.3g allowed, the largest logit is %.3g", what, worst, 4 * moved,
             largest);
    if (!(4 * moved < 1e-4 * largest)) FAIL("%s: %.3g is no bound", what, 4 * moved);
    free(got);
    free(want);
    free(e->k);
    free(e->v);
}

static void eval_agrees_with_double(void) {
    int a;
    for (a = 0; a < RUN_ARCHS; a++) {
        gguf_model_params p = gguf_model_default(run_archs[a], SM_TYPE_F32);
        sm_model *m;
        exact_model e;
        p.vocab = GGUF_NO_VOCAB;
        p.tied = a % 2;
        if (a == 0) p.n_kv_heads = 1; /* multi-query */
        if (a == 1) p.head_dim = 24;  /* 4 heads of 24 in a width of 64 */
        m = gguf_model_open(&p);
        if (!m) continue;
        e = exact_make(m, 10000.0);
        exact_compare(&e, run_archs[a], 40);
        sm_model_close(m);
    }
}

/* A llama or qwen2 (the two layouts of pairs) of 128 positions. */
static sm_model *rope_model(int pairs, double base, int n_rot, int factors, exact_model *e) {
    gguf_model_params p = gguf_model_default(pairs ? "llama" : "qwen2", SM_TYPE_F32);
    gguf_builder g;
    sm_model *m;
    int i;
    float divide[16];
    p.vocab = GGUF_NO_VOCAB;
    p.n_vocab = 64;
    p.n_layers = 1;
    g = gguf_model_begin(&p);
    gguf_key_f32(&g, gguf_arch_key(p.arch, "rope.freq_base"), (float)base);
    gguf_key_u32(&g, gguf_arch_key(p.arch, "rope.dimension_count"), (uint32_t)n_rot);
    for (i = 0; i < n_rot / 2; i++) divide[i] = 1.0f + 0.5f * (float)i;
    if (factors) gguf_tensor_f32(&g, "rope_freqs.weight", n_rot / 2, 0, divide);
    m = run_open(&g);
    if (!m) return NULL;
    *e = exact_make(m, base);
    e->n_rot = n_rot;
    for (i = 0; i < n_rot / 2; i++) {
        e->freq[i] = pow(base, -2.0 * i / n_rot);
        if (factors) e->freq[i] /= (double)divide[i];
    }
    return m;
}

static void eval_rope_of_part_of_a_head_agrees_with_double(void) {
    int pairs, factors;
    exact_model e;
    for (pairs = 0; pairs < 2; pairs++)
        for (factors = 0; factors < 2; factors++) {
            sm_model *m = rope_model(pairs, 500000.0, 10, factors, &e);
            if (m) exact_compare(&e, factors ? "rope_freqs" : "partial", 100);
            sm_model_close(m);
        }
}

/* The three ways to stretch a context, as their papers and Hugging Face's code have them. */
static void eval_rope_scaling_agrees_with_double(void) {
    const double pi = 3.14159265358979323846, factor = 8.0, original = 48.0;
    int pairs, kind, i, n;
    exact_model e;
    for (pairs = 0; pairs < 2; pairs++)
        for (kind = SM__SCALING_LINEAR; kind <= SM__SCALING_YARN; kind++) {
            sm_model *m = rope_model(pairs, 10000.0, 16, 0, &e);
            double low = 16 * log(original / (32.0 * 2 * pi)) / (2 * log(10000.0));
            double high = 16 * log(original / (1.0 * 2 * pi)) / (2 * log(10000.0));
            int changed = 0;
            if (!m) continue;
            low = floor(low) > 0 ? floor(low) : 0;
            high = ceil(high) < 15 ? ceil(high) : 15;
            m->hp.scaling = kind;
            m->hp.scaling_factor = factor;
            m->hp.original_ctx = original;
            for (i = 0, n = e.n_rot / 2; i < n; i++) {
                double f = e.freq[i], ramp;
                if (kind == SM__SCALING_LINEAR) {
                    e.freq[i] = f / factor;
                } else {
                    ramp = (i - low) / (high - low);
                    ramp = ramp < 0 ? 0 : ramp > 1 ? 1 : ramp;
                    e.freq[i] = f / factor * ramp + f * (1 - ramp);
                }
                changed += e.freq[i] > f / factor * 1.001 && e.freq[i] < f * 0.999;
            }
            CHECK(kind == SM__SCALING_LINEAR || changed > 0); /* some lie between */
            if (kind == SM__SCALING_YARN) e.magnitude = 0.1 * log(factor) + 1.0;
            exact_compare(&e, kind == SM__SCALING_LINEAR ? "linear" : "yarn", 100);
            sm_model_close(m);
        }
}

/* --- the errors: what fails changes nothing --------------------------------------------------- */

/* A context of a small llama, the tests' usual object. */
typedef struct fixture {
    sm_model *m;
    sm_ctx *ctx;
    int32_t tokens[128];
} fixture;

static int fixture_make(fixture *f, int n_ctx, int n_seqs, int max_logits) {
    sm_ctx_params p = sm_ctx_default();
    memset(f, 0, sizeof *f);
    f->m = eval_model("llama", SM_TYPE_Q8_0);
    p.n_ctx = n_ctx;
    p.n_seqs = n_seqs;
    p.max_logits = max_logits;
    p.n_threads = 1;
    if (f->m) run_tokens(f->m, f->tokens, 128);
    f->ctx = run_ctx(f->m, &p);
    return f->ctx != NULL;
}

static void fixture_free(fixture *f) {
    sm_ctx_destroy(f->ctx);
    sm_model_close(f->m);
}

static sm_batch batch_of(const int32_t *tokens, int n) {
    sm_batch b;
    memset(&b, 0, sizeof b);
    b.n = n;
    b.tokens = tokens;
    return b;
}

/* What a failure must leave alone. */
typedef struct seen {
    int lengths[4];
    size_t blocks;
    const float *last;
    float row[320];
} seen;

static seen see(const sm_ctx *ctx) {
    seen s;
    int i;
    memset(&s, 0, sizeof s);
    for (i = 0; i < 4; i++) s.lengths[i] = sm_seq_length(ctx, i);
    s.blocks = sm_ctx_get_stats(ctx).pool.outstanding_blocks;
    s.last = sm_logits(ctx, -1);
    if (s.last) memcpy(s.row, s.last, sizeof s.row);
    return s;
}

static int seen_again(const char *file, int line, const seen *before, const sm_ctx *ctx) {
    seen now = see(ctx);
    if (memcmp(before->lengths, now.lengths, sizeof now.lengths))
        return check_fail(file, line, "the lengths changed");
    if (before->blocks != now.blocks)
        return check_fail(file, line, "%d blocks are out, not %d", (int)now.blocks,
                          (int)before->blocks);
    if (before->last != now.last || memcmp(before->row, now.row, sizeof now.row))
        return check_fail(file, line, "the last logits changed");
    return 1;
}
#define UNCHANGED(before, ctx) seen_again(__FILE__, __LINE__, before, ctx)

static void eval_on_full_context_fails_unchanged(void) {
    fixture f;
    run_way w = run_plain(SM_TYPE_F16);
    float *want = run_rows(20, 320);
    if (fixture_make(&f, 20, 1, 1)) {
        sm_batch b = batch_of(f.tokens, 14);
        seen before;
        run_logits(f.m, &w, f.tokens, 20, want);
        CHECK_STATUS(sm_eval(f.ctx, &b), SM_OK);
        b = batch_of(f.tokens + 14, 1);
        CHECK_STATUS(sm_eval(f.ctx, &b), SM_OK);
        before = see(f.ctx);
        b = batch_of(f.tokens + 15, 6);
        CHECK_STATUS(sm_eval(f.ctx, &b), SM_ERR_FULL);
        CHECK(strstr(sm_ctx_error(f.ctx), "20") != NULL);
        UNCHANGED(&before, f.ctx);
        SAME("before", before.row, want + 14 * 320, 1, 320);
        b.n = 5;
        CHECK_STATUS(sm_eval(f.ctx, &b), SM_OK);
        SAME("after", sm_logits(f.ctx, -1), want + 19 * 320, 1, 320);
        before = see(f.ctx);
        b.n = 1;
        CHECK_STATUS(sm_eval(f.ctx, &b), SM_ERR_FULL);
        UNCHANGED(&before, f.ctx);
    }
    free(want);
    fixture_free(&f);
}

static void eval_of_bad_batches_fails_unchanged(void) {
    fixture f;
    int i;
    if (fixture_make(&f, 20, 2, 2)) {
        int32_t bad[4], seqs[4] = {0, 1, 0, 1};
        uint8_t want[4] = {1, 1, 1, 0};
        sm_batch b = batch_of(f.tokens, 1);
        seen before;
        CHECK_STATUS(sm_eval(f.ctx, &b), SM_OK);
        before = see(f.ctx);
        CHECK(before.last != NULL);
        CHECK_STATUS(sm_eval(f.ctx, NULL), SM_ERR_ARG);
        CHECK_STATUS(sm_eval(NULL, &b), SM_ERR_ARG);
        CHECK_STATUS(sm_eval_step(NULL, 0), SM_ERR_ARG);
        CHECK_STATUS(sm_eval_step(f.ctx, 0), SM_ERR_ARG); /* no pass */
        for (i = -1; i <= 0; i++) {
            b.n = i;
            CHECK_STATUS(sm_eval(f.ctx, &b), SM_ERR_ARG);
        }
        b = batch_of(NULL, 3);
        CHECK_STATUS(sm_eval(f.ctx, &b), SM_ERR_ARG);
        UNCHANGED(&before, f.ctx);
        for (i = 0; i < 8; i++) { /* a bad entry, and one behind good ones */
            b = batch_of(bad, 4);
            memcpy(bad, f.tokens, sizeof bad);
            seqs[0] = seqs[2] = 0;
            b.seqs = seqs;
            if (i < 4) bad[i % 2 ? 2 : 0] = i < 2 ? -1 : 320;
            else seqs[i % 2 ? 2 : 0] = i < 6 ? -1 : 2;
            CHECK_STATUS(sm_eval(f.ctx, &b), SM_ERR_ARG);
            UNCHANGED(&before, f.ctx);
        }
        seqs[0] = seqs[2] = 0;
        b = batch_of(f.tokens, 4); /* more rows of logits than max_logits */
        b.seqs = seqs;
        b.want = want;
        CHECK_STATUS(sm_eval(f.ctx, &b), SM_ERR_FULL);
        UNCHANGED(&before, f.ctx);
        b = batch_of(f.tokens, 41); /* more than the cache holds in all */
        CHECK_STATUS(sm_eval(f.ctx, &b), SM_ERR_FULL);
        UNCHANGED(&before, f.ctx);
    }
    fixture_free(&f);
}

static void eval_while_a_pass_is_pending_is_busy(void) {
    fixture f;
    if (fixture_make(&f, 40, 2, 1)) {
        sm_batch b = batch_of(f.tokens, 10), other = batch_of(f.tokens + 10, 3);
        sm_gen_params gp = sm_gen_default();
        sm_gen *g = NULL;
        run_way w = run_plain(SM_TYPE_F16);
        float *want = run_rows(10, 320);
        int steps = 0;
        run_logits(f.m, &w, f.tokens, 10, want);
        gp.prompt_ids = f.tokens;
        gp.n_prompt_ids = 3;
        CHECK(sm_eval_pass(f.ctx) == 0);
        CHECK_STATUS(sm_eval_begin(f.ctx, &b), SM_OK);
        CHECK(sm_eval_pass(f.ctx) != 0);
        do {
            CHECK_STATUS(sm_eval_begin(f.ctx, &other), SM_ERR_BUSY);
            CHECK_STATUS(sm_eval(f.ctx, &other), SM_ERR_BUSY);
            CHECK_STATUS(sm_seq_rewind(f.ctx, 0, 0), SM_ERR_BUSY);
            CHECK_STATUS(sm_seq_release(f.ctx, 1), SM_ERR_BUSY);
            CHECK_STATUS(sm_seq_fork(f.ctx, 0, 1), SM_ERR_BUSY);
            CHECK_STATUS(sm_gen_start(f.ctx, &gp, &g), SM_ERR_BUSY);
            CHECK(sm_logits(f.ctx, -1) == NULL);
            CHECK(sm_seq_length(f.ctx, 0) == 0);
            steps++;
        } while (sm_eval_step(f.ctx, 0) == SM_PENDING);
        CHECK(steps > 10);
        CHECK(sm_eval_pass(f.ctx) == 0);
        CHECK(sm_seq_length(f.ctx, 0) == 10);
        SAME("busy", sm_logits(f.ctx, -1), want + 9 * 320, 1, 320);
        free(want);
    }
    fixture_free(&f);
}

/* Cancelled after any number of tiles, everything is as before; the same pass then works. */
static void eval_cancelled_anywhere_changes_nothing(void) {
    enum { N = 12 };
    sm_model *m = eval_model("llama", SM_TYPE_F16);
    sm_ctx_params p = sm_ctx_default();
    run_way w = run_plain(SM_TYPE_F16);
    float *want = run_rows(70, 320);
    int32_t tokens[70];
    sm_ctx *ctx;
    int k, i, ended = 0;
    p.n_ctx = 100;
    p.n_batch = 5;
    p.n_threads = 2;
    p.isa = SM_ISA_SCALAR;
    ctx = run_ctx(m, &p);
    if (ctx) {
        run_tokens(m, tokens, 70);
        run_logits(m, &w, tokens, 70, want);
        run_eval(ctx, 0, tokens, 70 - N); /* the pass begins in one block and ends in the next */
        for (k = 0; k < 400 && !ended; k += 1 + k / 16) {
            sm_batch b = batch_of(tokens + 70 - N, N);
            size_t blocks = sm_ctx_get_stats(ctx).pool.outstanding_blocks;
            uint32_t pass;
            sm_status status = SM_PENDING;
            if (k == 0) blocks--; /* the row of logits of run_eval */
            if (!CHECK_STATUS(sm_eval_begin(ctx, &b), SM_OK)) break;
            pass = sm_eval_pass(ctx);
            for (i = 0; i < k && status == SM_PENDING; i++) status = sm_eval_step(ctx, 0);
            if (status == SM_OK) { /* it was over before */
                ended = 1;
                break;
            }
            sm_cancel(ctx, pass + 1); /* none of those is this pass */
            sm_cancel(ctx, pass - 1);
            CHECK((status = sm_eval_step(ctx, 0)) != SM_ERR_CANCELLED);
            if (status == SM_OK) {
                ended = 1;
                break;
            }
            sm_cancel(ctx, k % 2 ? pass : 0);
            CHECK_STATUS(sm_eval_step(ctx, k % 3 ? 0 : -1), SM_ERR_CANCELLED);
            CHECK(sm_eval_pass(ctx) == 0);
            CHECK(sm_seq_length(ctx, 0) == 70 - N);
            CHECK(sm_ctx_get_stats(ctx).pool.outstanding_blocks == blocks);
            sm_cancel(ctx, pass); /* stale: the next pass must not notice */
            sm_cancel(ctx, 0);
            CHECK(sm_logits(ctx, -1) == NULL);
        }
        CHECK(k > 30);
        if (!ended) {
            sm_batch b = batch_of(tokens + 70 - N, N);
            CHECK_STATUS(sm_eval(ctx, &b), SM_OK);
        }
        SAME("after cancels", sm_logits(ctx, -1), want + 69 * 320, 1, 320);
        CHECK(sm_seq_length(ctx, 0) == 70);
    }
    free(want);
    sm_ctx_destroy(ctx);
    sm_model_close(m);
}

#ifdef RUN_THREADS
static void *cancel_main(void *arg) {
    sm_ctx *ctx = (sm_ctx *)arg;
    uint32_t pass;
    int i;
    while ((pass = sm_eval_pass(ctx)) == 0) sched_yield();
    for (i = 0; i < 100; i++) sched_yield();
    sm_cancel(ctx, pass);
    return NULL;
}

static void eval_is_cancelled_from_another_thread(void) {
    enum { N = 1000 };
    gguf_model_params p = gguf_model_default("llama", SM_TYPE_F32);
    sm_ctx_params cp = sm_ctx_default();
    sm_model *m;
    sm_ctx *ctx;
    int32_t tokens[N];
    int round, cancelled = 0;
    p.vocab = GGUF_NO_VOCAB;
    m = gguf_model_open(&p);
    cp.n_ctx = N;
    cp.n_batch = 1;
    cp.isa = SM_ISA_SCALAR;
    cp.n_threads = 3;
    ctx = run_ctx(m, &cp);
    if (m) run_tokens(m, tokens, N);
    for (round = 0; round < 5 && ctx; round++) {
        pthread_t thread;
        sm_batch b = batch_of(tokens, N);
        uint64_t start = sm__now_ns();
        sm_status status;
        if (!CHECK(pthread_create(&thread, NULL, cancel_main, ctx) == 0)) break;
        status = sm_eval(ctx, &b); /* takes a second if nobody stops it */
        pthread_join(thread, NULL);
        if (status == SM_ERR_CANCELLED) {
            cancelled++;
            CHECK(sm_seq_length(ctx, 0) == 0);
        } else {
            CHECK_STATUS(status, SM_OK);
            sm_seq_release(ctx, 0);
        }
        if (sm__now_ns() - start > 30000000000u) break; /* a very slow machine */
    }
    CHECK(cancelled > 0);
    if (ctx) {
        sm_batch b = batch_of(tokens, 20);
        run_way w = run_plain(SM_TYPE_F16);
        float *want = run_rows(20, 320);
        CHECK_STATUS(sm_eval(ctx, &b), SM_OK);
        run_logits(m, &w, tokens, 20, want);
        SAME("after", sm_logits(ctx, -1), want + 19 * 320, 1, 320);
        free(want);
    }
    sm_ctx_destroy(ctx);
    sm_model_close(m);
}
#endif

/* --- memory ----------------------------------------------------------------------------------- */

/* Parameters of many kinds for a model, by number; 0 when there are no more. */
static int ctx_params_at(const sm_model *m, int i, sm_ctx_params *p) {
    static const struct {
        int n_ctx, n_seqs, n_batch, kv_tokens, key_type, value_type, max_logits, max_text;
        int n_threads, isa;
    } list[] = {
        {0, 0, 0, 0, SM_TYPE_AUTO, SM_TYPE_AUTO, 0, 0, 0, 0},
        {1, 1, 1, 0, SM_TYPE_F16, SM_TYPE_F16, 1, 0, 1, 0},
        {1, 1, 1, 0, SM_TYPE_F32, SM_TYPE_F32, 1, 1, 2, SM_ISA_SCALAR},
        {100, 3, 7, 0, SM_TYPE_BF16, SM_TYPE_F32, 5, 100, 4, 0},
        {128, 16, 300, 200, SM_TYPE_F16, SM_TYPE_F16, 40, 70000, 8, SM_ISA_SCALAR},
        {5000, 2, 64, 0, SM_TYPE_F16, SM_TYPE_F32, 0, 0, 1, 0},
        {300, 2, 64, 0, SM_TYPE_Q8_0, SM_TYPE_Q4_0, 0, 0, 1, 0},
    };
    if (i >= (int)(sizeof list / sizeof *list) || !run_kv_fits(m, list[i].key_type)) return 0;
    *p = sm_ctx_default();
    p->n_ctx = list[i].n_ctx;
    p->n_seqs = list[i].n_seqs;
    p->n_batch = list[i].n_batch;
    p->kv_tokens = list[i].kv_tokens;
    p->key_type = list[i].key_type;
    p->value_type = list[i].value_type;
    p->max_logits = list[i].max_logits;
    p->max_text = list[i].max_text;
    p->n_threads = list[i].n_threads;
    p->isa = list[i].isa;
    return 1;
}

/* plan = used = asked of the allocator, which is called once. */
static void ctx_plan_is_what_is_used(void) {
    sm_ctx_params p;
    int i, k;
    for (k = 0; k < 4; k++) { /* learned positions, a vocabulary, neither; wide heads */
        static const char *const archs[] = {"gpt2", "llama", "llama", "qwen3"};
        gguf_model_params gp = gguf_model_default(archs[k], SM_TYPE_Q4_0);
        sm_model *m;
        if (k == 2) gp.vocab = GGUF_NO_VOCAB;
        if (k == 0) gp.n_ctx = 5000;
        m = gguf_model_open(&gp);
        for (i = 0; m && ctx_params_at(m, i, &p); i++) {
            size_t held = heap.bytes;
            uint32_t calls = heap.calls;
            sm_plan plan;
            sm_ctx_stats stats;
            sm_ctx *ctx;
            if (!CHECK_STATUS(sm_ctx_plan(m, &p, &plan, NULL), SM_OK)) continue;
            CHECK(heap.calls == calls);
            CHECK(plan.kv_bytes + plan.scratch_bytes + plan.logits_bytes + plan.tape_bytes +
                      plan.text_bytes + plan.team_bytes <= plan.total_bytes);
            ctx = run_ctx(m, &p);
            if (!ctx) continue;
            stats = sm_ctx_get_stats(ctx);
            CHECK(stats.used_bytes == plan.total_bytes);
            CHECK(heap.bytes - held == plan.total_bytes);
            CHECK(heap.calls == calls + 1 && stats.heap_calls == 1);
            CHECK(memcmp(&stats.plan, &plan, sizeof plan) == 0);
            CHECK(stats.pool.capacity_bytes >= plan.logits_bytes);
            CHECK((plan.n_threads > 1) == (plan.team_bytes > 0));
            sm_ctx_destroy(ctx);
            CHECK(heap.bytes == held);
        }
        CHECK(i >= 6 + (k == 3));
        sm_model_close(m);
    }
}

/* In a block that ends at a forbidden page and begins at an odd address; one byte less fails. */
static void ctx_lives_in_a_given_block(void) {
    sm_model *m = eval_model("qwen3", SM_TYPE_Q8_0);
    int32_t tokens[128];
    int i, n;
    sm_ctx_params p;
    if (!m) return;
    run_tokens(m, tokens, 128);
    for (i = 0; ctx_params_at(m, i, &p); i++) {
        sm_plan plan;
        sm_ctx *ctx = NULL;
        sm_error error;
        uint32_t calls = heap.calls;
        guard g;
        uint8_t *at;
        p.allocator = heap_allocator();
        sm_ctx_plan(m, &p, &plan, NULL);
        g = guard_make(plan.total_bytes);
        at = g.end - plan.total_bytes;
        CHECK_STATUS(sm_ctx_create_in(m, &p, at, plan.total_bytes - 1, &ctx, &error), SM_ERR_FULL);
        CHECK(ctx == NULL && error.status == SM_ERR_FULL && error.text[0]);
        memset(at, 0xEE, plan.total_bytes);
        if (CHECK_STATUS(sm_ctx_create_in(m, &p, at, plan.total_bytes, &ctx, &error), SM_OK)) {
            run_way w = run_pair(plan.key_type, plan.value_type);
            n = sm__min(plan.n_ctx, 100);
            CHECK((uint8_t *)ctx >= at);
            CHECK_STATUS(run_eval(ctx, 0, tokens, n), SM_OK);
            if (n == 100) {
                float *want = run_rows(100, 320);
                run_logits(m, &w, tokens, 100, want);
                SAME("in a block", sm_logits(ctx, -1), want + 99 * 320, 1, 320);
                free(want);
            } else {
                CHECK(heap.calls == calls);
            }
            CHECK(sm_ctx_get_stats(ctx).heap_calls == 0);
            CHECK(sm_ctx_get_stats(ctx).used_bytes == plan.total_bytes);
            sm_ctx_destroy(ctx);
        }
        guard_free(&g);
    }
    sm_model_close(m);
}

/* A team and a context when the k-th allocation fails, for every k. */
static void ctx_out_of_memory_is_a_status(void) {
    sm_model *m = eval_model("llama", SM_TYPE_F16);
    uint32_t k, held = heap.held;
    int done = 0;
    for (k = 1; m && k < 10 && !done; k++) {
        sm_team_params tp = sm_team_default();
        sm_ctx_params p = sm_ctx_default();
        sm_team *team = NULL;
        sm_ctx *ctx = NULL, *own = NULL;
        sm_error error;
        sm_status status;
        tp.n_threads = 2;
        tp.allocator = p.allocator = heap_allocator();
        p.n_threads = 3;
        heap_fail(k);
        status = sm_team_create(&tp, &team, &error);
        CHECK((status == SM_OK) == (team != NULL));
        if (status == SM_OK) {
            p.team = team;
            status = sm_ctx_create(m, &p, &ctx, &error);
            CHECK((status == SM_OK) == (ctx != NULL));
        }
        if (status == SM_OK) {
            p.team = NULL;
            status = sm_ctx_create(m, &p, &own, &error);
            CHECK((status == SM_OK) == (own != NULL));
        }
        heap_fail(0);
        done = status == SM_OK;
        if (!done) {
            CHECK_STATUS(status, SM_ERR_NOMEM);
            CHECK(error.status == SM_ERR_NOMEM && error.text[0]);
        }
        sm_ctx_destroy(own);
        sm_ctx_destroy(ctx);
        sm_team_destroy(team);
        CHECK(heap.held == held);
    }
    CHECK(done && k == 5); /* three allocations in all */
    sm_model_close(m);
}

/* 1,000 tokens by generation with sampling and stops, and by batches with forks: nobody in the
 * process calls malloc or free, nor the allocator. */
static void no_heap_call_over_1000_tokens(void) {
    gguf_model_params gp = gguf_model_default("llama", SM_TYPE_Q4_0);
    sm_model *m = gguf_model_open(&gp);
    sm_ctx_params p = sm_ctx_default();
    static const char *const stops[] = {"never said", "\xff"};
    sm_ctx *ctx;
    uint32_t calls, process;
    int tokens = 0, round, i;
    p.n_seqs = 3;
    p.n_threads = 2;
    ctx = run_ctx(m, &p);
    if (ctx) {
        sm_batch b;
        int32_t ids[12], seqs[12];
        sm_status status = SM_OK;
        calls = heap.calls;
        process = heap_calls();
        for (round = 0; round < 8 && status == SM_OK; round++) {
            sm_gen_params g = sm_gen_default();
            sm_gen_stats stats;
            g.prompt = "the cat sat and the cat";
            g.sampler.temperature = 1.0f;
            g.sampler.top_k = 50;
            g.sampler.top_p = 0.9f;
            g.sampler.min_p = 0.01f;
            g.sampler.repeat_penalty = 1.1f;
            g.sampler.seed = (uint64_t)round;
            g.stops = stops;
            g.n_stops = 2;
            g.ignore_end = 1;
            g.max_tokens = 100;
            status = sm_generate(ctx, &g, NULL, NULL, &stats);
            tokens += stats.prompt_tokens + stats.new_tokens;
        }
        for (round = 0; round < 25 && status == SM_OK; round++) {
            if (round % 8 == 0) {
                sm_seq_release(ctx, 1);
                sm_seq_rewind(ctx, 0, 20);
                sm_seq_fork(ctx, 0, 2);
            }
            for (i = 0; i < 12; i++) ids[i] = (round * 12 + i) % 320, seqs[i] = i % 3;
            b.n = 12;
            b.tokens = ids;
            b.seqs = seqs;
            b.want = NULL;
            status = sm_eval(ctx, &b);
            tokens += 12;
        }
        calls = heap.calls - calls;
        process = heap_calls() - process;
        CHECK_STATUS(status, SM_OK);
        CHECK(tokens >= 1000);
        CHECK(calls == 0);
        CHECK(process == 0);
        CHECK(sm_ctx_get_stats(ctx).heap_calls == 1);
        if (!heap_counts()) printf("(the process is not counted here) ");
    }
    sm_ctx_destroy(ctx);
    sm_model_close(m);
}

/* --- edges ------------------------------------------------------------------------------------ */

static void ctx_of_one_token(void) {
    fixture f;
    int i;
    if (fixture_make(&f, 1, 2, 1)) {
        int32_t seqs[2] = {0, 1};
        run_way w = run_plain(SM_TYPE_F16);
        float *want = run_rows(1, 320);
        for (i = 0; i < 3; i++) {
            sm_batch b = batch_of(f.tokens + i, 1);
            run_logits(f.m, &w, f.tokens + i, 1, want);
            CHECK_STATUS(sm_eval(f.ctx, &b), SM_OK);
            SAME("one token", sm_logits(f.ctx, 0), want, 1, 320);
            CHECK_STATUS(sm_eval(f.ctx, &b), SM_ERR_FULL);
            b.n = 2;
            b.seqs = seqs;
            CHECK_STATUS(sm_eval(f.ctx, &b), SM_ERR_FULL);
            b.n = 1;
            b.seqs = seqs + 1;
            CHECK_STATUS(sm_eval(f.ctx, &b), SM_OK);
            SAME("other sequence", sm_logits(f.ctx, 0), want, 1, 320);
            CHECK_STATUS(sm_seq_release(f.ctx, 0), SM_OK);
            CHECK_STATUS(sm_seq_release(f.ctx, 1), SM_OK);
        }
        free(want);
    }
    fixture_free(&f);
}

/* The rows that were wanted, and no others; indices from both ends. */
static void eval_keeps_the_wanted_rows(void) {
    fixture f;
    unsigned mask;
    int i;
    float *want = run_rows(6, 320);
    if (fixture_make(&f, 20, 1, 3)) {
        run_way w = run_plain(SM_TYPE_F16);
        CHECK(sm_logits(f.ctx, 0) == NULL && sm_logits(f.ctx, -1) == NULL);
        CHECK(sm_logits(NULL, 0) == NULL);
        run_logits(f.m, &w, f.tokens, 6, want);
        for (mask = 0; mask < 64; mask++) {
            uint8_t flags[6];
            sm_batch b = batch_of(f.tokens, 6);
            int count = 0;
            for (i = 0; i < 6; i++) count += flags[i] = (uint8_t)(mask >> i & 1);
            b.want = flags;
            sm_seq_release(f.ctx, 0);
            CHECK_STATUS(sm_eval(f.ctx, &b), count > 3 ? SM_ERR_FULL : SM_OK);
            if (count > 3) continue;
            for (i = 0; i < 6; i++) {
                const float *row = sm_logits(f.ctx, i);
                CHECK((row != NULL) == (flags[i] != 0));
                CHECK(sm_logits(f.ctx, i - 6) == row);
                if (row) SAME("wanted", row, want + i * 320, 1, 320);
            }
            CHECK(sm_logits(f.ctx, 6) == NULL && sm_logits(f.ctx, -7) == NULL);
            CHECK(sm_ctx_get_stats(f.ctx).pool.outstanding_blocks == 1 + (size_t)count);
        }
    }
    free(want);
    fixture_free(&f);
}

static void ctx_checks_its_parameters(void) {
    sm_model *llama = eval_model("llama", SM_TYPE_F32), *gpt2 = eval_model("gpt2", SM_TYPE_F32);
    sm_ctx_params p;
    sm_plan plan;
    sm_ctx *ctx = NULL;
    sm_error error;
    int i;
    for (i = 0; i < 20 && llama && gpt2; i++) {
        sm_status want = SM_ERR_ARG;
        p = sm_ctx_default();
        p.n_threads = 1;
        switch (i) {
        case 0: p.n_ctx = -1; break;
        case 1: p.n_ctx = (1 << 20) + 1; break;
        case 2: p.n_seqs = -1; break;
        case 3: p.n_seqs = 1025; break;
        case 4: p.n_batch = -1; break;
        case 5: p.n_batch = 65537; break;
        case 6: p.kv_tokens = -5; break;
        case 7: p.max_logits = -1; break;
        case 8: p.max_text = -1; break;
        case 9: p.n_threads = -1; break;
        case 10: p.n_threads = 257; break;
        case 11: p.allocator.alloc = heap_alloc; break;
        case 12: p.allocator.free = heap_free; break;
        case 13: p.key_type = SM_TYPE_Q8_0, want = SM_ERR_UNSUPPORTED; break; /* heads of 16 */
        case 14: p.value_type = 77, want = SM_ERR_UNSUPPORTED; break;
        case 15: p.isa = 99, want = SM_ERR_UNSUPPORTED; break;
        case 16: p.isa = sm_isa_best() == SM_ISA_NEON ? SM_ISA_AVX2 : SM_ISA_NEON;
            want = SM_ERR_UNSUPPORTED;
            break;
        case 17: p.n_ctx = 1 << 20, p.n_seqs = 1024, p.kv_tokens = 1 << 30; want = SM_OK; break;
        case 18: p.n_ctx = 129; break; /* gpt2 has 128 positions */
        default: p.n_ctx = 128, want = SM_OK; break;
        }
        memset(&error, 0, sizeof error);
        if (sizeof(size_t) < 8 && i == 17) continue;
        CHECK_STATUS(sm_ctx_plan(i >= 18 ? gpt2 : llama, &p, &plan, &error), want);
        CHECK((error.text[0] != 0) == (want != SM_OK) && error.status == want);
        if (i == 13) CHECK(strstr(error.text, "head_dim") && strstr(error.text, "16"));
        if (i == 17) continue; /* terabytes */
        CHECK_STATUS(sm_ctx_create(i >= 18 ? gpt2 : llama, &p, &ctx, NULL), want);
        CHECK((ctx != NULL) == (want == SM_OK));
        sm_ctx_destroy(ctx);
    }
    p = sm_ctx_default();
    CHECK_STATUS(sm_ctx_plan(NULL, &p, &plan, NULL), SM_ERR_ARG);
    CHECK_STATUS(sm_ctx_plan(llama, NULL, &plan, NULL), SM_ERR_ARG);
    CHECK_STATUS(sm_ctx_plan(llama, &p, NULL, NULL), SM_ERR_ARG);
    CHECK_STATUS(sm_ctx_create(llama, &p, NULL, NULL), SM_ERR_ARG);
    CHECK_STATUS(sm_ctx_create(NULL, &p, &ctx, NULL), SM_ERR_ARG);
    CHECK_STATUS(sm_ctx_create_in(llama, &p, NULL, 1 << 20, &ctx, NULL), SM_ERR_ARG);
    CHECK_STR(sm_ctx_error(NULL), "");
    sm_ctx_destroy(NULL);
    sm_model_close(llama);
    sm_model_close(gpt2);
}

/* The level in use is told as it is; tiles are only for who asks for them. */
static void ctx_amx_is_asked_for(void) {
    sm_model *m = eval_model("llama", SM_TYPE_Q8_0);
    sm_ctx_params p = sm_ctx_default();
    sm__kernels k;
    sm_plan plan;
    int has = sm__kernels_init(&k, SM_ISA_AMX) == SM_OK, forced;
    CHECK(sm_isa_best() != SM_ISA_AMX);
    for (p.amx = 0; p.amx < 2 && m; p.amx++)
        for (forced = 0; forced < 2; forced++) {
            int want = p.amx && has ? SM_ISA_AMX : (int)sm_isa_best();
            sm_ctx *ctx;
            p.isa = forced ? SM_ISA_SCALAR : SM_ISA_AUTO;
            if (forced) want = SM_ISA_SCALAR;
            if ((ctx = run_ctx(m, &p)) == NULL) continue;
            CHECK_STR(sm_ctx_get_stats(ctx).isa, sm_isa_name(want));
            CHECK(sm_ctx_get_stats(ctx).plan.isa == want);
            sm_ctx_destroy(ctx);
        }
    p.isa = SM_ISA_AMX;
    p.amx = 0;
    if (m) CHECK_STATUS(sm_ctx_plan(m, &p, &plan, NULL), has ? SM_OK : SM_ERR_UNSUPPORTED);
    sm_model_close(m);
}

/* --- what can be watched ---------------------------------------------------------------------- */

static void count_calls(void *user, const sm_trace *t) {
    int *n = (int *)user;
    if (t->rows > 0 && t->data) ++*n;
}

/* A traced and profiled evaluation has the same bits; every step was called once a chunk. */
static void eval_watched_has_the_same_bits(void) {
    enum { N = 20 };
    sm_model *m = eval_model("qwen2", SM_TYPE_Q8_0);
    run_way w = run_plain(SM_TYPE_F16);
    float *want = run_rows(N, 320);
    int32_t tokens[N];
    int traced, i, seen_calls = 0;
    for (traced = 0; traced < 2 && m; traced++) {
        sm_ctx_params p = sm_ctx_default();
        sm_ctx *ctx;
        sm_ctx_stats stats;
        sm_profile s;
        uint64_t bytes = 0;
        p.n_ctx = N;
        p.n_batch = 6;
        p.n_threads = 2;
        p.profile = 1;
        memset(&s, 0, sizeof s);
        if (traced) {
            p.trace = count_calls;
            p.trace_user = &seen_calls;
        }
        run_tokens(m, tokens, N);
        run_logits(m, &w, tokens, N, want);
        if ((ctx = run_ctx(m, &p)) == NULL) continue;
        CHECK_STATUS(run_eval(ctx, 0, tokens, N), SM_OK); /* chunks of 6, 6, 6, 2 */
        SAME("watched", sm_logits(ctx, -1), want + (N - 1) * 320, 1, 320);
        stats = sm_ctx_get_stats(ctx);
        CHECK(stats.passes == 1 && stats.tokens == N && stats.n_steps > 10);
        CHECK_STR(stats.isa, sm_isa_name(stats.plan.isa));
        for (i = 0; i < stats.n_steps; i++) {
            int wanted;
            if (!CHECK_STATUS(sm_ctx_profile(ctx, i, &s), SM_OK)) break;
            wanted = strcmp(s.step, "logits") == 0 || strcmp(s.step, "output_norm") == 0;
            CHECK(s.calls == (wanted ? 1u : 4u));
            CHECK(s.layer >= -1 && s.layer < 2);
            bytes += s.bytes;
        }
        /* the matrices of the layers four times, the output once; not the embedding */
        CHECK(bytes >= 4 * 2 * 64 * 64 && bytes % 2 == 0);
        CHECK_STATUS(sm_ctx_profile(ctx, -1, &s), SM_ERR_ARG);
        CHECK_STATUS(sm_ctx_profile(ctx, stats.n_steps, &s), SM_ERR_ARG);
        CHECK_STATUS(sm_ctx_profile(ctx, 0, NULL), SM_ERR_ARG);
        sm_ctx_destroy(ctx);
    }
    CHECK(seen_calls > 40);
    free(want);
    sm_model_close(m);
}

/* A call with a budget comes back: half of them within the budget and two milliseconds. */
static void eval_step_keeps_its_budget(void) {
    enum { N = 128, MOST = 4000 };
    static double late[MOST];
    gguf_model_params gp = gguf_model_default("llama", SM_TYPE_Q8_0);
    sm_ctx_params p = sm_ctx_default();
    sm_model *m;
    sm_ctx *ctx;
    int32_t tokens[N];
    int n = 0, i, above = 0;
    sm_status status;
    gp.vocab = GGUF_NO_VOCAB;
    gp.n_embd = 256;
    gp.n_ff = 768;
    m = gguf_model_open(&gp);
    p.n_ctx = N;
    p.isa = SM_ISA_SCALAR;
    p.n_threads = 1;
    ctx = run_ctx(m, &p);
    if (ctx) {
        sm_batch b = batch_of(tokens, 64);
        run_tokens(m, tokens, N);
        CHECK_STATUS(sm_eval_begin(ctx, &b), SM_OK);
        do {
            uint64_t start = sm__now_ns();
            status = sm_eval_step(ctx, 300);
            if (n < MOST) late[n++] = (double)(sm__now_ns() - start) / 1e3 - 300;
        } while (status == SM_PENDING);
        CHECK_STATUS(status, SM_OK);
        CHECK(n > 20);
        for (i = 0; i < n; i++) above += late[i] > 2000;
        if (above > n / 2) FAIL("%d of %d calls were 2 ms late", above, n);
    }
    sm_ctx_destroy(ctx);
    sm_model_close(m);
}

static const test tests_eval[] = {
    {"eval: the bits are the golden ones", eval_bits_are_the_golden_ones},
    {"eval: every pair of cache types has its golden bits", eval_bits_of_all_cache_types},
    {"eval: results that wait fit in scratch", eval_results_fit_in_scratch},
    {"eval: llama, any chunks, calls and levels give the same bits", eval_variants_llama},
    {"eval: qwen2, any chunks, calls and levels give the same bits", eval_variants_qwen2},
    {"eval: qwen3, any chunks, calls and levels give the same bits", eval_variants_qwen3},
    {"eval: gpt2, any chunks, calls and levels give the same bits", eval_variants_gpt2},
    {"eval: cs336, any chunks, calls and levels give the same bits", eval_variants_cs336},
    {"eval: 1 to 8 threads give the same bits", eval_any_threads_same_bits},
    {"eval: threads at the best levels give the same bits", eval_threads_at_the_best_level},
    {"eval: any budget gives the same bits", eval_any_budget_same_bits},
    {"eval: sequences in one batch have the bits they have alone",
     eval_sequences_in_one_batch_are_alone},
    {"eval: 1100 keys in F32 and BF16, however cut, give the same bits", eval_long_f32_bf16},
    {"eval: 1100 keys in F16, however cut, give the same bits", eval_long_f16},
    {"eval: 1100 keys in Q8_0 and Q4_0, however cut, give the same bits", eval_long_q8_0_q4_0},
    {"eval: a shared team gives the same bits", eval_with_a_shared_team_same_bits},
#ifdef RUN_THREADS
    {"eval: a host's jobs, early, late or never, give the same bits",
     eval_with_host_jobs_same_bits},
#endif
    {"eval: the host's rounding and flushing change nothing",
     eval_ignores_the_hosts_floating_point_state},
    {"eval: every architecture agrees with a pass in double", eval_agrees_with_double},
    {"eval: partial rotation and rope_freqs agree with double",
     eval_rope_of_part_of_a_head_agrees_with_double},
    {"eval: linear and YaRN scaling agree with double",
     eval_rope_scaling_agrees_with_double},
    {"eval: on a full context fails, unchanged", eval_on_full_context_fails_unchanged},
    {"eval: of bad batches fails, unchanged", eval_of_bad_batches_fails_unchanged},
    {"eval: while a pass is pending is busy", eval_while_a_pass_is_pending_is_busy},
    {"eval: cancelled after any tile changes nothing", eval_cancelled_anywhere_changes_nothing},
#ifdef RUN_THREADS
    {"eval: is cancelled from another thread", eval_is_cancelled_from_another_thread},
#endif
    {"eval: the plan is what a context uses", ctx_plan_is_what_is_used},
    {"eval: a context lives in a given block, one byte less fails", ctx_lives_in_a_given_block},
    {"eval: out of memory at any allocation is a status", ctx_out_of_memory_is_a_status},
    {"eval: no heap call over 1,000 tokens", no_heap_call_over_1000_tokens},
    {"eval: a context of one token works", ctx_of_one_token},
    {"eval: the wanted rows are kept, and no others", eval_keeps_the_wanted_rows},
    {"eval: bad parameters of a context are refused", ctx_checks_its_parameters},
    {"eval: AMX is used when there and asked for", ctx_amx_is_asked_for},
    {"eval: traced and profiled has the same bits", eval_watched_has_the_same_bits},
    {"eval: a step keeps its budget", eval_step_keeps_its_budget},
};
