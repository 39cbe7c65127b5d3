/* runs.h - what the tests of evaluation, of the KV cache, of threads and of generation share:
 * contexts, logits of a whole sequence computed in a given way, a model that says what a test
 * wants, pieces of JSON and safetensors. Each of those fragments includes it; the first one gets
 * it. */
#ifndef RUNS_H
#define RUNS_H

/* --- models and contexts ---------------------------------------------------------------------- */

static const char *const run_archs[] = {"llama", "qwen2", "qwen3", "gpt2", "cs336"};
static const int run_types[] = {SM_TYPE_F32,  SM_TYPE_F16,  SM_TYPE_BF16, SM_TYPE_Q8_0,
                                SM_TYPE_Q4_0, SM_TYPE_Q4_K, SM_TYPE_Q5_K, SM_TYPE_Q6_K,
                                /* the others, for llama only */
                                SM_TYPE_Q4_1, SM_TYPE_Q5_0, SM_TYPE_Q5_1, SM_TYPE_IQ4_NL,
                                SM_TYPE_MXFP4, SM_TYPE_Q2_K, SM_TYPE_Q3_K, SM_TYPE_IQ4_XS,
                                SM_TYPE_TQ1_0, SM_TYPE_TQ2_0};
static const int run_kv_types[] = {SM_TYPE_F32, SM_TYPE_F16, SM_TYPE_Q8_0, SM_TYPE_BF16,
                                   SM_TYPE_Q4_0};
#define RUN_ARCHS 5
#define RUN_TYPES 8
#define RUN_ALL_TYPES 18
#define RUN_KV_TYPES 3 /* that every model is tested with, keys and values alike */
#define RUN_KV_ALL 5

#if !defined(_WIN32) && !defined(SMALLMIND_NO_THREADS)
#define RUN_THREADS 1 /* the tests themselves make threads, by pthreads */
#endif

/* A context with the tests' allocator; NULL and a failed check when there is none. */
static sm_ctx *run_ctx(const sm_model *m, const sm_ctx_params *p) {
    sm_ctx_params q = *p;
    sm_ctx *ctx = NULL;
    sm_error error;
    if (!m) return NULL;
    q.allocator = heap_allocator();
    if (sm_ctx_create(m, &q, &ctx, &error)) FAIL("context: %s", error.text);
    return ctx;
}

/* Whether a model can have its KV cache in a type. */
SM__UNUSED static int run_kv_fits(const sm_model *m, int type) {
    return (type != SM_TYPE_Q8_0 && type != SM_TYPE_Q4_0) || m->hp.head_dim % 32 == 0;
}

/* The levels of this machine, scalar first. */
static int run_isas(int *isas) {
    int isa, n = 0;
    sm__kernels k;
    for (isa = SM_ISA_SCALAR; isa <= SM_ISA_NEON; isa++)
        if (sm__kernels_init(&k, isa) == SM_OK) isas[n++] = isa;
    return n;
}

SM__UNUSED static void run_tokens(const sm_model *m, int32_t *tokens, int n) {
    int i;
    for (i = 0; i < n; i++) tokens[i] = random_below(sm_model_get_info(m)->n_vocab);
}

/* Tokens i0 .. i1 of one sequence, all logits wanted; status as sm_eval's. */
static sm_status run_eval(sm_ctx *ctx, int seq, const int32_t *tokens, int n) {
    sm_batch b;
    int32_t seqs[64];
    uint8_t want[64];
    int i, done = 0;
    sm_status status = SM_OK;
    for (i = 0; i < 64; i++) seqs[i] = seq, want[i] = 0;
    memset(&b, 0, sizeof b);
    for (; done < n && status == SM_OK; done += b.n) {
        b.n = sm__min(64, n - done);
        b.tokens = tokens + done;
        b.seqs = seqs;
        want[b.n - 1] = 1;
        b.want = want;
        status = sm_eval(ctx, &b);
        want[b.n - 1] = 0;
    }
    return status;
}

/* --- the logits of a sequence, computed in some way ------------------------------------------- */

/* How to do it; zeros: the best level, one call, one chunk of 256, the context's F16, one thread.
 * */
typedef struct run_way {
    int isa, n_batch, key_type, value_type;
    int window_keep;
    int call;       /* tokens of a call; 0 = all of them */
    int n_threads;  /* of a team of the context's own; 0 = 1 */
    int sliced;     /* 1: sm_eval_step with `budget` */
    int64_t budget;
    sm_team *team;
    const sm_adapter *adapter; /* NULL: none, and no room for one */
    float scale;               /* of the adapter */
} run_way;

static run_way run_pair(int key_type, int value_type) {
    run_way w;
    memset(&w, 0, sizeof w);
    w.key_type = key_type;
    w.value_type = value_type;
    return w;
}
static run_way run_plain(int kv_type) { return run_pair(kv_type, kv_type); }

static sm_status run_step_to_end(sm_ctx *ctx, int64_t budget, int *steps) {
    sm_status status;
    do {
        status = sm_eval_step(ctx, budget);
        ++*steps;
    } while (status == SM_PENDING);
    return status;
}

/* out [n, n_vocab] = the logits after every token. Returns the calls of sm_eval_step, or -1. */
static int run_logits(const sm_model *m, const run_way *w, const int32_t *tokens, int n,
                      float *out) {
    sm_ctx_params p = sm_ctx_default();
    sm_ctx *ctx;
    uint8_t *want = (uint8_t *)malloc((size_t)n);
    int i, at = 0, steps = 0, call = w->call ? w->call : n, n_vocab;
    p.n_ctx = n;
    p.isa = w->isa;
    p.n_batch = w->n_batch;
    p.window_keep = w->window_keep;
    p.key_type = w->key_type;
    p.value_type = w->value_type;
    p.max_logits = call;
    p.n_threads = w->n_threads ? w->n_threads : 1;
    p.team = w->team;
    p.max_lora_rank = sm_adapter_rank(w->adapter);
    ctx = run_ctx(m, &p);
    if (ctx && w->adapter)
        CHECK_STATUS(sm_ctx_set_adapter(ctx, w->adapter, w->scale), SM_OK);
    if (!ctx || !want) {
        free(want);
        return -1;
    }
    n_vocab = sm_model_get_info(m)->n_vocab;
    memset(want, 1, (size_t)n);
    for (; at < n && steps >= 0; at += call) {
        sm_batch b;
        sm_status status;
        memset(&b, 0, sizeof b);
        b.n = sm__min(call, n - at);
        b.tokens = tokens + at;
        b.want = want;
        if (w->sliced) {
            status = sm_eval_begin(ctx, &b);
            if (status == SM_OK) status = run_step_to_end(ctx, w->budget, &steps);
        } else {
            status = sm_eval(ctx, &b);
            steps++;
        }
        if (!CHECK_STATUS(status, SM_OK)) steps = -1;
        for (i = 0; i < b.n && steps >= 0; i++) {
            const float *row = sm_logits(ctx, i);
            if (!CHECK(row != NULL)) steps = -1;
            else memcpy(out + (size_t)(at + i) * (size_t)n_vocab, row, (size_t)n_vocab * 4);
        }
    }
    sm_ctx_destroy(ctx);
    free(want);
    return steps;
}

/* Whether two sets of logits are the same bits; says where they are not. */
static int run_same(const char *file, int line, const char *what, const float *got,
                    const float *want, int rows, int n_vocab) {
    int t, i;
    for (t = 0; t < rows; t++)
        for (i = 0; i < n_vocab; i++) {
            float a = got[(size_t)t * (size_t)n_vocab + (size_t)i];
            float b = want[(size_t)t * (size_t)n_vocab + (size_t)i];
            if (sm__bits(a) != sm__bits(b))
                return check_fail(file, line, "%s: logit %d after token %d is %.9g, not %.9g", what,
                                  i, t, (double)a, (double)b);
        }
    return 1;
}
#define SAME(what, got, want, rows, n_vocab)                                                       \
    run_same(__FILE__, __LINE__, what, got, want, rows, n_vocab)

SM__UNUSED static float *run_rows(int rows, int n_vocab) {
    float *p = (float *)calloc((size_t)rows * (size_t)n_vocab, sizeof *p);
    if (!p) exit(3);
    return p;
}

SM__UNUSED static int run_best(const float *logits, int n) {
    int i, best = 0;
    for (i = 1; i < n; i++)
        if (logits[i] > logits[best]) best = i;
    return best;
}

/* --- many ways, the same bits ----------------------------------------------------------------- */

/* Logits of random tokens, computed in one way: what other ways must give, too. */
typedef struct run_trial {
    const sm_model *m; /* NULL: it did not open, and nothing is compared */
    const char *name;
    int n, n_vocab;
    int32_t *tokens;
    float *want, *got;
} run_trial;

SM__UNUSED static run_trial run_begin(const sm_model *m, const char *name, int n,
                                      const run_way *first) {
    run_trial r;
    r.m = m;
    r.name = name;
    r.n = n;
    r.n_vocab = m ? sm_model_get_info(m)->n_vocab : 1;
    r.tokens = (int32_t *)calloc((size_t)n, sizeof *r.tokens);
    r.want = run_rows(n, r.n_vocab);
    r.got = run_rows(n, r.n_vocab);
    if (!r.tokens) exit(3);
    if (m) run_tokens(m, r.tokens, n);
    if (m) run_logits(m, first, r.tokens, n, r.want);
    return r;
}

/* The scalar level, token by token: in this way everything is computed alone. */
SM__UNUSED static run_trial run_begin_plainly(const sm_model *m, const char *name, int n,
                                              run_way w) {
    w.isa = SM_ISA_SCALAR;
    w.call = w.n_batch = 1;
    return run_begin(m, name, n, &w);
}

/* Another way; the calls of sm_eval_step. */
SM__UNUSED static int run_try(const run_trial *r, const run_way *w) {
    char what[200];
    int steps;
    if (!r->m) return -1;
    snprintf(what, sizeof what, "%s, %s, batch %d, call %d, threads %d, budget %d", r->name,
             sm_isa_name(w->isa), w->n_batch, w->call, w->n_threads,
             w->sliced ? (int)w->budget : -1);
    steps = run_logits(r->m, w, r->tokens, r->n, r->got);
    SAME(what, r->got, r->want, r->n, r->n_vocab);
    return steps;
}

SM__UNUSED static void run_end(run_trial *r) {
    free(r->tokens);
    free(r->want);
    free(r->got);
}

/* Interleaved in one batch with others, in batches of any size, a sequence has the logits that it
 * has alone. w: types, batch and threads. */
SM__UNUSED static void run_neighbours(const sm_model *m, const char *name, const run_way *w) {
    enum { SEQS = 4, N = 40, MOST = 64 };
    run_way alone = run_pair(w->key_type, w->value_type);
    sm_ctx_params p = sm_ctx_default();
    run_trial r[SEQS];
    int done[SEQS] = {0}, left = SEQS * N, s, i;
    sm_ctx *ctx;
    p.n_ctx = N;
    p.n_seqs = SEQS;
    p.n_batch = w->n_batch;
    p.n_threads = w->n_threads;
    p.key_type = w->key_type;
    p.value_type = w->value_type;
    p.max_logits = MOST;
    ctx = run_ctx(m, &p);
    for (s = 0; s < SEQS; s++) r[s] = run_begin(m, name, N, &alone);
    while (ctx && left) {
        int32_t ids[MOST], seqs[MOST], at[MOST];
        uint8_t want[MOST];
        sm_batch b;
        b.n = sm__min(left, 1 + random_below(MOST));
        for (i = 0; i < b.n; i++) {
            do s = random_below(SEQS);
            while (done[s] == N);
            if (i && random_below(3) && done[seqs[i - 1]] < N) s = seqs[i - 1];
            seqs[i] = s;
            at[i] = done[s];
            ids[i] = r[s].tokens[done[s]++];
            want[i] = (uint8_t)random_below(2);
        }
        left -= b.n;
        b.tokens = ids;
        b.seqs = seqs;
        b.want = want;
        if (!CHECK_STATUS(sm_eval(ctx, &b), SM_OK)) break;
        for (i = 0; i < b.n; i++) {
            const float *row = sm_logits(ctx, i);
            if (!CHECK((row != NULL) == (want[i] != 0)) || !row) continue;
            SAME(name, row, r[seqs[i]].want + at[i] * r[0].n_vocab, 1, r[0].n_vocab);
        }
    }
    for (s = 0; s < SEQS; s++) run_end(&r[s]);
    sm_ctx_destroy(ctx);
}

/* An open model of what is in a builder. */
SM__UNUSED static sm_model *run_open(gguf_builder *g) {
    sm_model_params p = sm_model_default();
    sm_model *m = NULL;
    sm_error error;
    size_t bytes;
    uint8_t *file = gguf_finish(g, &bytes);
    p.file.data = file;
    p.file.bytes = bytes;
    p.load = SM_LOAD_COPY;
    p.allocator = heap_allocator();
    if (sm_model_open(&p, &m, &error)) FAIL("%s", error.text);
    free(file);
    return m;
}

/* --- a model that says what it is told -------------------------------------------------------- */

/* A tensor with given values. n: rows, 0 for a vector. */
SM__UNUSED static void gguf_tensor_f32(gguf_builder *g, const char *name, int k, int n,
                                       const float *values) {
    uint64_t dims[2], offset = gguf_align(g);
    dims[0] = (uint64_t)k;
    dims[1] = (uint64_t)n;
    gguf_bytes(&g->data, values, (size_t)k * (size_t)(n ? n : 1) * sizeof *values);
    gguf_entry(g, name, n ? 2 : 1, dims, SM_TYPE_F32, offset);
}

SM__UNUSED static void gguf_tensor_const(gguf_builder *g, const char *name, int k, int n,
                                         float value) {
    size_t i, count = (size_t)k * (size_t)(n ? n : 1);
    float *values = (float *)malloc(count * sizeof *values);
    if (!values) exit(3);
    for (i = 0; i < count; i++) values[i] = value;
    gguf_tensor_f32(g, name, k, n, values);
    free(values);
}

/* The id of a piece of the builder's SPM vocabulary; "\xNN" of one byte is its byte token. */
SM__UNUSED static int32_t script_id(const char *piece) {
    int i;
    for (i = 0; i < GGUF_N_SPM; i++)
        if (strcmp(piece, gguf_spm_pieces[i]) == 0) return GGUF_SPM_FIRST + i;
    if (strcmp(piece, "</s>") == 0) return 2;
    return 3 + (uint8_t)piece[0];
}

/* A model whose most likely token after position p is script[p], whatever came before: the learned
 * positions are unit vectors, and nothing else adds to them. */
SM__UNUSED static sm_model *script_model(const int32_t *script, int n_ctx) {
    gguf_model_params p = gguf_model_default("cs336", SM_TYPE_F32);
    gguf_builder g = gguf_make(3);
    float *w = (float *)calloc((size_t)n_ctx * (size_t)p.n_vocab, sizeof *w);
    float *unit = (float *)calloc((size_t)n_ctx * (size_t)n_ctx, sizeof *unit);
    int i;
    if (!w || !unit) exit(3);
    p.n_embd = p.n_ctx = n_ctx;
    p.n_heads = p.n_kv_heads = 1; /* attention and feed-forward add zeros */
    p.head_dim = n_ctx;
    p.n_layers = 1;
    p.n_ff = 1;
    p.vocab = GGUF_SPM;
    gguf_model_keys(&g, &p);
    for (i = 0; i < n_ctx; i++) {
        unit[i * n_ctx + i] = 1.0f;
        w[script[i] * n_ctx + i] = 1.0f;
    }
    gguf_tensor_const(&g, "token_embd.weight", n_ctx, p.n_vocab, 0.0f);
    gguf_tensor_f32(&g, "position_embd.weight", n_ctx, n_ctx, unit);
    gguf_tensor_const(&g, "blk.0.attn_norm.weight", n_ctx, 0, 1.0f);
    gguf_tensor_const(&g, "blk.0.attn_q.weight", n_ctx, n_ctx, 0.0f);
    gguf_tensor_const(&g, "blk.0.attn_k.weight", n_ctx, n_ctx, 0.0f);
    gguf_tensor_const(&g, "blk.0.attn_v.weight", n_ctx, n_ctx, 0.0f);
    gguf_tensor_const(&g, "blk.0.attn_output.weight", n_ctx, n_ctx, 0.0f);
    gguf_tensor_const(&g, "blk.0.ffn_norm.weight", n_ctx, 0, 1.0f);
    gguf_tensor_const(&g, "blk.0.ffn_up.weight", n_ctx, 1, 0.0f);
    gguf_tensor_const(&g, "blk.0.ffn_down.weight", 1, n_ctx, 0.0f);
    gguf_tensor_const(&g, "output_norm.weight", n_ctx, 0, 1.0f);
    gguf_tensor_f32(&g, "output.weight", n_ctx, p.n_vocab, w);
    free(w);
    free(unit);
    return run_open(&g);
}

/* --- known answers: JSON and safetensors ------------------------------------------------------ */

/* What follows the first "key" after `from` (NULL = the start of it): at the value. NULL: none. */
SM__UNUSED static const char *json_after(const char *json, const char *key) {
    char quoted[64];
    const char *at;
    if (!json) return NULL;
    snprintf(quoted, sizeof quoted, "\"%s\"", key);
    at = strstr(json, quoted);
    if (!at) return NULL;
    for (at += strlen(quoted); *at == ' ' || *at == ':' || *at == '\n'; at++) {
    }
    return at;
}

/* A string with simple escapes into out; its length. */
SM__UNUSED static size_t json_string_at(const char *json, char *out, size_t max) {
    size_t n = 0;
    if (!json || *json++ != '"') return 0;
    for (; *json && *json != '"' && n + 1 < max; json++) {
        if (*json == '\\') {
            json++;
            out[n++] = *json == 'n' ? '\n' : *json == 't' ? '\t' : *json;
        } else {
            out[n++] = *json;
        }
    }
    out[n] = 0;
    return n;
}

/* The numbers up to the bracket that closes the list at json (nested lists are run together). */
SM__UNUSED static int json_numbers(const char *json, double *out, int max) {
    int n = 0, depth = 0;
    char *end;
    if (!json || *json != '[') return 0;
    do {
        if (*json == '[') depth++, json++;
        else if (*json == ']') depth--, json++;
        else if (*json == '-' || (*json >= '0' && *json <= '9')) {
            double v = strtod(json, &end);
            if (n < max) out[n++] = v;
            json = end;
        } else json++;
    } while (depth && *json);
    return n;
}

SM__UNUSED static int json_ids_at(const char *json, int32_t *out, int max) {
    double v[512];
    int i, n = json_numbers(json, v, sm__min(max, 512));
    for (i = 0; i < n; i++) out[i] = (int32_t)v[i];
    return n;
}

/* A safetensors file of known answers. */
typedef struct st_file {
    uint8_t *file;
    char *header; /* NUL-terminated copy */
    const uint8_t *data;
} st_file;

SM__UNUSED static int st_open(st_file *st, const char *path) {
    size_t bytes = 0;
    uint64_t n;
    memset(st, 0, sizeof *st);
    if (!path) return 0;
    st->file = file_read(path, &bytes);
    if (!CHECK(st->file && bytes > 8)) return 0;
    memcpy(&n, st->file, 8);
    if (!CHECK(n < bytes - 8) || (st->header = (char *)malloc((size_t)n + 1)) == NULL) return 0;
    memcpy(st->header, st->file + 8, (size_t)n);
    st->header[n] = 0;
    st->data = st->file + 8 + n;
    return 1;
}

SM__UNUSED static void st_close(st_file *st) {
    free(st->file);
    free(st->header);
    memset(st, 0, sizeof *st);
}

/* The bytes of a tensor, which must have n of them; NULL and a failed check otherwise. */
SM__UNUSED static const void *st_bytes(const st_file *st, const char *name, size_t n) {
    double at[2];
    if (json_numbers(json_after(json_after(st->header, name), "data_offsets"), at, 2) != 2 ||
        at[1] - at[0] != (double)n) {
        FAIL("%s: not there, or of another size", name);
        return NULL;
    }
    return st->data + (size_t)at[0];
}

/* n floats of a tensor, from malloc. */
SM__UNUSED static float *st_floats(const st_file *st, const char *name, size_t n) {
    const void *p = st_bytes(st, name, n * sizeof(float));
    float *out = (float *)malloc(n * sizeof *out);
    if (p && out) memcpy(out, p, n * sizeof *out);
    else free(out), out = NULL;
    return out;
}

#endif /* RUNS_H */
