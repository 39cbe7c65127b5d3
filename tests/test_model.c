/* test_model.c - known answers: real files go in, the published text, ids, logits and activations
 * come out. Included by test.c after build_gguf.h. The data's origins are told in its README. */
#include "runs.h"

/* --- models of the shared data ---------------------------------------------------------------- */

/* NULL and a note when the files are not here. config: JSON for safetensors, or NULL. */
static sm_model *known_open(const char *path, const char *tokenizer, const char *config) {
    sm_model_params p = sm_model_default();
    sm_model *m = NULL;
    sm_error error;
    p.file.path = data_path(path);
    if (!p.file.path) return NULL;
    if (tokenizer && (p.tokenizer.path = data_path(tokenizer)) == NULL) return NULL;
    if (config) {
        p.config.data = config;
        p.config.bytes = strlen(config);
    }
    p.allocator = heap_allocator();
    if (sm_model_open(&p, &m, &error)) FAIL("%s: %s", path, error.text);
    return m;
}

static sm_model *stories_open(int gguf) {
    if (gguf) return known_open("models/stories260K/stories260K.gguf", NULL, NULL);
    return known_open("models/stories260K/stories260K.bin", "models/stories260K/tok512.bin", NULL);
}

/* --- stories260K: text, byte for byte --------------------------------------------------------- */

typedef struct story {
    char text[2048];
    int32_t ids[256]; /* with BOS in front */
    size_t bytes;
    int n;
} story;

/* "empty" or "zoo" of expected.json. 0 = not here. */
static int story_expected(const char *which, story *s) {
    size_t n;
    const char *path = data_path("models/stories260K/expected.json"), *at;
    char *json = (char *)file_read(path, &n);
    memset(s, 0, sizeof *s);
    if (!json) return 0;
    at = json_after(json_after(json, "helper_python"), which);
    s->bytes = json_string_at(json_after(at, "text"), s->text, sizeof s->text);
    s->n = json_ids_at(json_after(at, "ids"), s->ids, 256);
    free(json);
    return CHECK(s->bytes > 0 && s->n > 1);
}

/* The whole of a prompt's text, greedily, in slices of a budget (negative: token by token). */
static void story_tell(sm_ctx *ctx, const char *prompt, int max_tokens, int64_t budget, story *s) {
    sm_gen_params p = sm_gen_default();
    sm_gen *g = NULL;
    sm_status status;
    size_t n;
    memset(s, 0, sizeof *s);
    p.prompt = prompt;
    p.max_tokens = max_tokens;
    if (!CHECK_STATUS(sm_gen_start(ctx, &p, &g), SM_OK)) return;
    do {
        const char *piece;
        status = sm_gen_step(g, budget);
        piece = sm_gen_piece(g, &n);
        if (!CHECK(s->bytes + n < sizeof s->text && s->n < 256)) return;
        memcpy(s->text + s->bytes, piece, n);
        s->bytes += n;
        if (sm_gen_token(g) >= 0) s->ids[s->n++] = sm_gen_token(g);
    } while (status == SM_PENDING);
    CHECK_STATUS(status, SM_OK);
}

static void story_check(const sm_model *m, const sm_ctx_params *p, const char *prompt,
                        int prompt_ids, int64_t budget, const story *want) {
    story got;
    sm_ctx *ctx = run_ctx(m, p);
    size_t skip = strlen(prompt);
    if (!ctx) return;
    story_tell(ctx, prompt, want->n - prompt_ids, budget, &got);
    if (got.n != want->n - prompt_ids ||
        memcmp(got.ids, want->ids + prompt_ids, (size_t)got.n * sizeof *got.ids) ||
        strcmp(got.text, want->text + skip))
        FAIL("%s, %d threads, budget %d: \"%s\"", sm_isa_name(p->isa), p->n_threads, (int)budget,
             got.text);
    sm_ctx_destroy(ctx);
}

/* The 200 tokens at every level, with 1 to 4 threads (one for the GGUF, whose weights are the same
 * numbers), whole and in slices. */
static void story_everywhere(int gguf) {
    story want;
    int isas[8], n, i, threads;
    sm_model *m = story_expected("empty", &want) ? stories_open(gguf) : NULL;
    sm_ctx_params p = sm_ctx_default();
    if (!m) return;
    CHECK(want.n == 201);
    p.n_ctx = 256;
    n = run_isas(isas);
    for (i = 0; i < n; i++)
        for (threads = 1; threads <= (gguf ? 1 : 4); threads++) {
            p.isa = isas[i];
            p.n_threads = threads;
            if (i == 0 && threads % 2 == 0) continue; /* the scalar level takes its time */
            story_check(m, &p, "", 1, i && threads % 2 ? 50 : -1, &want);
        }
    p.key_type = p.value_type = SM_TYPE_F32;
    story_check(m, &p, "", 1, -1, &want);
    sm_model_close(m);
}

static void story_of_the_bin_file(void) { story_everywhere(0); }
static void story_of_the_gguf_file(void) { story_everywhere(1); }

static sm_model *story_open_memory(const uint8_t *data, size_t n) {
    sm_model_params p = sm_model_default();
    sm_model *m = NULL;
    sm_error error;
    p.file.data = data;
    p.file.bytes = n;
    p.tokenizer.path = data_path("models/stories260K/tok512.bin");
    p.allocator = heap_allocator();
    if (p.tokenizer.path && sm_model_open(&p, &m, &error)) FAIL("%s", error.text);
    return m;
}

/* The logits [512] behind n ids. */
static float *story_row(const sm_model *m, const int32_t *ids, int n) {
    sm_ctx_params p = sm_ctx_default();
    float *row = run_rows(1, 512);
    sm_ctx *ctx = NULL;
    p.n_threads = 2;
    if (m) ctx = run_ctx(m, &p);
    if (ctx && CHECK_STATUS(run_eval(ctx, 0, ids, n), SM_OK))
        memcpy(row, sm_logits(ctx, -1), 512 * sizeof *row);
    sm_ctx_destroy(ctx);
    return row;
}

/* Exported as version 1 it tells its story. As version 2, in groups of 64 that straddle the rows of
 * 172, it has the logits of the F32 file with the weights that the groups stand for. */
static void story_of_later_versions(void) {
    story want;
    size_t n, n1, n2;
    uint8_t *v0 = file_read(data_path("models/stories260K/stories260K.bin"), &n), *v1, *v2;
    sm_ctx_params p = sm_ctx_default();
    sm_model *m;
    float *row, *row2;
    if (!v0 || !story_expected("empty", &want)) return;
    v1 = files_llama2c_export(v0, 1, 0, &n1);
    v2 = files_llama2c_export(v0, 2, 64, &n2); /* v0 changes */
    p.n_ctx = 256;
    p.n_threads = 2;
    m = story_open_memory(v1, n1);
    if (m) story_check(m, &p, "", 1, -1, &want);
    sm_model_close(m);
    m = story_open_memory(v0, n);
    row = story_row(m, want.ids, 100);
    sm_model_close(m);
    m = story_open_memory(v2, n2);
    row2 = story_row(m, want.ids, 100);
    sm_model_close(m);
    CHECK(row[0] != 0.0f);
    SAME("version 2", row2, row, 1, 512);
    free(row);
    free(row2);
    free(v0);
    free(v1);
    free(v2);
}

/* The same by sm_eval_begin and sm_eval_step alone, the largest logit chosen here. */
static void story_by_eval_step(void) {
    story want;
    int32_t token = 1;
    int i, steps = 0;
    sm_model *m = story_expected("empty", &want) ? stories_open(1) : NULL;
    sm_ctx_params p = sm_ctx_default();
    sm_ctx *ctx;
    if (!m) return;
    p.n_threads = 2;
    p.n_ctx = 256;
    ctx = run_ctx(m, &p);
    for (i = 1; i < want.n && ctx; i++) {
        sm_batch b;
        memset(&b, 0, sizeof b);
        b.n = 1;
        b.tokens = &token;
        if (!CHECK_STATUS(sm_eval_begin(ctx, &b), SM_OK)) break;
        if (!CHECK_STATUS(run_step_to_end(ctx, 50, &steps), SM_OK)) break;
        token = run_best(sm_logits(ctx, -1), 512);
        if (!CHECK(token == want.ids[i])) break;
    }
    CHECK(steps >= 200);
    sm_ctx_destroy(ctx);
    sm_model_close(m);
}

/* The first i tokens, then the rest: the bits of the whole. */
static void story_cut_at_every_position(void) {
    enum { N = 80 };
    story want;
    int i;
    sm_model *m = story_expected("empty", &want) ? stories_open(1) : NULL;
    sm_ctx_params p = sm_ctx_default();
    sm_ctx *ctx;
    float *whole = run_rows(1, 512);
    p.n_threads = 1;
    ctx = m ? run_ctx(m, &p) : NULL;
    for (i = 0; i < N && ctx; i++) {
        sm_seq_release(ctx, 0);
        if (i && !CHECK_STATUS(run_eval(ctx, 0, want.ids, i), SM_OK)) break;
        if (!CHECK_STATUS(run_eval(ctx, 0, want.ids + i, N - i), SM_OK)) break;
        if (i == 0) memcpy(whole, sm_logits(ctx, -1), 512 * sizeof *whole);
        else if (!SAME("cut", sm_logits(ctx, -1), whole, 1, 512)) break;
    }
    free(whole);
    sm_ctx_destroy(ctx);
    sm_model_close(m);
}

static void story_of_zoo(void) {
    story want;
    int gguf;
    sm_ctx_params p = sm_ctx_default();
    p.n_threads = 1;
    if (!story_expected("zoo", &want)) return;
    for (gguf = 0; gguf < 2; gguf++) {
        sm_model *m = stories_open(gguf);
        if (m) story_check(m, &p, "Zoo", 4, -1, &want); /* <s>, space, Z, oo */
        sm_model_close(m);
    }
}

/* As llama.cpp tells it: the space between prompt and text belongs to the text. */
static void story_of_joe(void) {
    story got;
    sm_model *m = stories_open(1);
    sm_ctx_params p = sm_ctx_default();
    sm_ctx *ctx;
    p.n_threads = 1;
    if (!m) return;
    ctx = run_ctx(m, &p);
    if (ctx) story_tell(ctx, "Joe loves writing stories", 3, -1, &got);
    if (ctx) CHECK_STR(got.text, ". He li");
    sm_ctx_destroy(ctx);
    sm_model_close(m);
}

/* --- ids and logits of other trained and random models ---------------------------------------- */

static void known_prompt(sm_ctx *ctx, const char *text, const int32_t *want, int n) {
    int32_t ids[64];
    int n_ids = 0;
    CHECK_STATUS(sm_tokenize(sm_ctx_tokenizer(ctx), text, strlen(text), SM_TEXT_BOS, ids, 64,
                             &n_ids), SM_OK);
    CHECK(n_ids == n && memcmp(ids, want, (size_t)n * sizeof *ids) == 0);
}

/* Three prompts, by tokenizer.json: their ids; the five largest logits (printed with six decimals,
 * computed in double), then 60 greedy ids. */
static void tinystories_656k_known(void) {
    static const char *const prompts[] = {"Once upon a time", "Tom and Lily", "The big red dog"};
    size_t bytes;
    char *json = (char *)file_read(data_path("models/tinystories-656k/expected.json"), &bytes);
    const char *at = json;
    sm_model *m = json ? known_open("models/tinystories-656k/model.safetensors", NULL, NULL) : NULL;
    sm_ctx_params p = sm_ctx_default();
    sm_ctx *ctx = NULL;
    int run, i;
    p.n_threads = 2;
    p.key_type = p.value_type = SM_TYPE_F32;
    if (m) ctx = run_ctx(m, &p);
    for (run = 0; run < 3 && ctx; run++) {
        int32_t prompt[16], want[64];
        double top[10];
        int n, n_want;
        n = json_ids_at(at = json_after(at, "prompt_ids"), prompt, 16);
        known_prompt(ctx, prompts[run], prompt, n);
        if (!CHECK(json_numbers(at = json_after(at, "top5_logits_after_prompt"), top, 10) == 10))
            break;
        n_want = json_ids_at(at = json_after(at, "greedy_ids"), want, 64);
        if (!CHECK(n > 0 && n_want == 60)) break;
        sm_seq_release(ctx, 0);
        if (!CHECK_STATUS(run_eval(ctx, 0, prompt, n), SM_OK)) break;
        for (i = 0; i < 5; i++) /* 1e-6 of rounding in print, 32 half ulps of the largest */
            CHECK_NEAR((double)sm_logits(ctx, -1)[(int)top[2 * i]], top[2 * i + 1],
                       1e-6 + 32.0 / 16777216 * top[1]);
        for (i = 0; i < n_want; i++) {
            int32_t best = run_best(sm_logits(ctx, -1), 2048);
            if (!CHECK(best == want[i]) || run_eval(ctx, 0, &best, 1)) break;
        }
        CHECK(i == n_want);
    }
    sm_ctx_destroy(ctx);
    sm_model_close(m);
    free(json);
}

static void tiny_random_gpt2_known(void) {
    size_t bytes;
    char *json = (char *)file_read(data_path("models/tiny-random-gpt2/expected.json"), &bytes);
    const char *at = json_after(json, "greedy");
    sm_model *m = json ? known_open("models/tiny-random-gpt2/model.safetensors", NULL, NULL) : NULL;
    int isas[8], n_isas = run_isas(isas), i, run, k;
    for (run = 0; run < 2 && m; run++) {
        int32_t prompt[8], want[16];
        int n = json_ids_at(at = json_after(at, "prompt"), prompt, 8);
        int n_want = json_ids_at(at = json_after(at, "sequence"), want, 16);
        if (!CHECK(n == 4 && n_want == 10)) break;
        for (i = 0; i < n_isas; i++) {
            sm_ctx_params p = sm_ctx_default();
            sm_gen_params gp = sm_gen_default();
            sm_ctx *ctx;
            sm_gen *g = NULL;
            p.isa = isas[i];
            p.n_threads = 1;
            p.n_ctx = 32;
            if ((ctx = run_ctx(m, &p)) == NULL) break;
            gp.prompt_ids = prompt;
            gp.n_prompt_ids = n;
            gp.max_tokens = n_want - n;
            if (CHECK_STATUS(sm_gen_start(ctx, &gp, &g), SM_OK))
                for (k = n; k < n_want; k++) {
                    CHECK_STATUS(sm_gen_step(g, -1), k + 1 < n_want ? SM_PENDING : SM_OK);
                    CHECK(sm_gen_token(g) == want[k]);
                }
            sm_ctx_destroy(ctx);
        }
    }
    sm_model_close(m);
    free(json);
}

/* --- activations, through the trace callback -------------------------------------------------- */

typedef struct trace_entry {
    char step[24];
    int layer, rows, width;
    float *data; /* [rows, width] */
} trace_entry;

typedef struct trace_log {
    trace_entry entries[128];
    int n;
} trace_log;

static void trace_keep(void *user, const sm_trace *t) {
    trace_log *log = (trace_log *)user;
    trace_entry *e = &log->entries[log->n];
    int r;
    if (log->n == 128 || strcmp(t->step, "logits") == 0) return;
    log->n++;
    snprintf(e->step, sizeof e->step, "%s", t->step);
    e->layer = t->layer;
    e->rows = t->rows;
    e->width = t->width;
    e->data = (float *)malloc((size_t)t->rows * (size_t)t->width * sizeof(float));
    if (!e->data) exit(3);
    for (r = 0; r < t->rows; r++)
        memcpy(e->data + (size_t)r * (size_t)t->width, t->data + (size_t)r * t->stride,
               (size_t)t->width * sizeof(float));
}

static void trace_free(trace_log *log) {
    while (log->n) free(log->entries[--log->n].data);
}

/* The k-th output that a step showed: NULL and a failed check when there is none. */
static const float *trace_find(const trace_log *log, const char *step, int layer, int k, int rows,
                               int width) {
    int i;
    for (i = 0; i < log->n; i++) {
        const trace_entry *e = &log->entries[i];
        if (strcmp(e->step, step) || e->layer != layer || k--) continue;
        if (!CHECK(e->rows == rows && e->width == width)) return NULL;
        return e->data;
    }
    FAIL("no step %s in layer %d", step, layer);
    return NULL;
}

/* Within 32 half ulps (2^-24) of the largest value there is. What PyTorch computed in float is 4 to
 * 6 away from the exact result in these models. Strides are in floats. */
static void check_close(const char *what, const float *got, size_t got_stride, const float *want,
                        size_t want_stride, int rows, int width) {
    double largest = 0.0, worst = 0.0;
    int t, i;
    if (!got || !want) return;
    for (t = 0; t < rows; t++)
        for (i = 0; i < width; i++) {
            double w = (double)want[(size_t)t * want_stride + (size_t)i];
            double d = fabs((double)got[(size_t)t * got_stride + (size_t)i] - w);
            if (fabs(w) > largest) largest = fabs(w);
            if (!(d <= worst)) worst = d; /* NaN too */
        }
    if (!(worst <= 32.0 / 16777216 * largest))
        FAIL("%s: off by %.3g, that is %.3g of the largest, %.3g", what, worst, worst / largest,
             largest);
}

/* Evaluates n_seqs sequences of n tokens as one chunk, everything traced; logits [n_seqs * n]. */
static void trace_run(const sm_model *m, const int32_t *tokens, int n_seqs, int n, int isa,
                      trace_log *log, float *logits) {
    sm_ctx_params p = sm_ctx_default();
    sm_ctx *ctx;
    sm_batch b;
    int i, total = n_seqs * n, n_vocab = sm_model_get_info(m)->n_vocab;
    int32_t *seqs = (int32_t *)malloc((size_t)total * sizeof *seqs);
    uint8_t *want = (uint8_t *)malloc((size_t)total);
    if (!seqs || !want) exit(3);
    for (i = 0; i < total; i++) seqs[i] = i / n, want[i] = logits != NULL || i == total - 1;
    p.n_ctx = n;
    p.n_seqs = n_seqs;
    p.n_batch = total;
    p.max_logits = total;
    p.key_type = p.value_type = SM_TYPE_F32;
    p.n_threads = 1;
    p.isa = isa;
    if (log) {
        log->n = 0;
        p.trace = trace_keep;
        p.trace_user = log;
    }
    ctx = run_ctx(m, &p);
    b.n = total;
    b.tokens = tokens;
    b.seqs = seqs;
    b.want = want;
    if (ctx && CHECK_STATUS(sm_eval(ctx, &b), SM_OK))
        for (i = 0; i < total && logits; i++)
            memcpy(logits + (size_t)i * (size_t)n_vocab, sm_logits(ctx, i), (size_t)n_vocab * 4);
    sm_ctx_destroy(ctx);
    free(seqs);
    free(want);
}

/* minGPT with every activation of its first block, and what the blocks give. */
static void nano_gpt_sort_activations(void) {
    st_file st;
    static trace_log log;
    int32_t tokens[33];
    int isas[8], n_isas = run_isas(isas), i, k;
    float *idx, *want[16], logits[33 * 3];
    static const struct {
        const char *name, *step;
        int layer, width;
    } known[] = {{"x", "embed", -1, 48},          {"ln1", "attn_norm", 0, 48},
                 {"qkv", "qkv", 0, 144},          {"y", "merge", 0, 48},
                 {"attnResid", "attn_out", 0, 48}, {"ln2", "ffn_norm", 0, 48},
                 {"fc", "up", 0, 192},            {"gelu", "act", 0, 192},
                 {"mlpResid", "ffn_out", 0, 48},  {"block0", "ffn_out", 0, 48},
                 {"block1", "ffn_out", 1, 48},    {"block2", "ffn_out", 2, 48},
                 {"ln_f", "output_norm", -1, 48}, {"lm_head", "", -1, 3}};
    enum { N = sizeof known / sizeof *known };
    sm_model *m = known_open("models/nano-gpt-sort/model.safetensors", NULL, NULL);
    if (!m) return;
    if (!st_open(&st, data_path("models/nano-gpt-sort/partials.safetensors"))) {
        sm_model_close(m);
        return;
    }
    idx = st_floats(&st, "idx", 33);
    for (k = 0; k < N; k++) want[k] = st_floats(&st, known[k].name, 33 * (size_t)known[k].width);
    for (i = 0; i < 33 && idx; i++) tokens[i] = (int32_t)idx[i];
    for (i = 0; i < n_isas && idx; i++) {
        trace_run(m, tokens, 3, 11, isas[i], &log, logits);
        for (k = 0; k < N; k++) {
            int j, w = known[k].width;
            if (known[k].step[0] == 0) {
                check_close("lm_head", logits, 3, want[k], 3, 33, 3);
            } else if (w == 144) { /* three outputs of one step */
                for (j = 0; j < 3 && want[k]; j++)
                    check_close(known[k].name, trace_find(&log, "qkv", 0, j, 33, 48), 48,
                                want[k] + 48 * j, 144, 33, 48);
            } else {
                check_close(known[k].name,
                            trace_find(&log, known[k].step, known[k].layer, 0, 33, w), (size_t)w,
                            want[k], (size_t)w, 33, w);
            }
        }
        trace_free(&log);
    }
    for (k = 0; k < N; k++) free(want[k]);
    free(idx);
    st_close(&st);
    sm_model_close(m);
}

/* --- Stanford's CS336: PyTorch's outputs ------------------------------------------------------ */

#define CS336 "models/cs336/"
static const char cs336_config[] =
    "{\"model_type\": \"cs336\", \"vocab_size\": 100, \"context_length\": 64, \"d_model\": 128,\n"
    " \"num_layers\": 2, \"num_heads\": 2, \"d_ff\": 512}";

static int cs336_expected(st_file *st) {
    return st_open(st, data_path(CS336 "inputs_and_expected.safetensors"));
}

static void cs336_lm_logits(void) {
    static const struct {
        const char *in, *out;
        int n;
    } cases[2] = {{"in_indices", "transformer_lm_expected_output", 64},
                  {"in_indices_truncated", "transformer_lm_truncated_expected_output", 60}};
    st_file st;
    sm_model *m = known_open(CS336 "transformer_lm_weights.safetensors", NULL, cs336_config);
    int c, i;
    if (!m) return;
    if (!cs336_expected(&st)) {
        sm_model_close(m);
        return;
    }
    for (c = 0; c < 2; c++) {
        int n = cases[c].n, total = 8 * n;
        const void *in = st_bytes(&st, cases[c].in, (size_t)total * 8);
        float *want = st_floats(&st, cases[c].out, (size_t)total * 100);
        float *got = run_rows(total, 100);
        int32_t tokens[512];
        for (i = 0; i < total && in; i++) /* 64-bit integers */
            memcpy(&tokens[i], (const uint8_t *)in + 8 * (size_t)i, 4);
        if (in && want) {
            trace_run(m, tokens, 8, n, SM_ISA_AUTO, NULL, got);
            check_close(cases[c].out, got, 100, want, 100, total, 100);
        }
        free(want);
        free(got);
    }
    st_close(&st);
    sm_model_close(m);
}

/* A block around given weights: 1024 feature rows are the embeddings of as many tokens. */
typedef struct wrapped {
    gguf_builder g;
    int n_embd;
} wrapped;

static wrapped wrapped_begin(const float *x, int width, int n_embd, int n_heads, int head_dim,
                             int n_ff) {
    wrapped w;
    gguf_model_params p = gguf_model_default("cs336", SM_TYPE_F32);
    float *rows = run_rows(1024, n_embd);
    int t, i;
    w.g = gguf_make(3);
    w.n_embd = p.n_embd = n_embd;
    p.n_ctx = 128;
    p.n_layers = 1;
    p.n_heads = p.n_kv_heads = n_heads;
    p.head_dim = head_dim;
    p.n_ff = n_ff;
    p.n_vocab = 1024;
    p.vocab = GGUF_NO_VOCAB;
    gguf_model_keys(&w.g, &p);
    for (t = 0; t < 1024; t++) {
        double ss = 0.0;
        for (i = 0; i < width; i++) {
            float v = x[(size_t)t * (size_t)width + (size_t)i];
            rows[(size_t)t * (size_t)n_embd + (size_t)i] = v;
            ss += (double)v * (double)v;
        }
        /* one more coordinate makes the mean square 1 - eps: then RMSNorm changes nothing */
        if (n_embd > width)
            rows[(size_t)t * (size_t)n_embd + (size_t)width] =
                (float)sqrt((double)n_embd * (1.0 - 1e-5) - ss);
    }
    gguf_tensor_f32(&w.g, "token_embd.weight", n_embd, 1024, rows);
    gguf_tensor_const(&w.g, "position_embd.weight", n_embd, 128, 0.0f);
    gguf_tensor_const(&w.g, "output_norm.weight", n_embd, 0, 1.0f);
    free(rows);
    return w;
}

/* [n, k] from `from` [n_from, k_from] in its upper left corner, zeros elsewhere. from NULL: zeros.
 * */
static void wrapped_matrix(wrapped *w, const char *name, int k, int n, const float *from,
                           int k_from, int n_from) {
    float *rows = run_rows(n, k);
    int j;
    for (j = 0; j < n_from && from; j++)
        memcpy(rows + (size_t)j * (size_t)k, from + (size_t)j * (size_t)k_from,
               (size_t)k_from * sizeof *rows);
    gguf_tensor_f32(&w->g, name, k, n, rows);
    free(rows);
}

/* The output of `step` for all 8 x 128 tokens, minus the input when `less`. */
static void wrapped_check(wrapped *w, const char *what, const char *step, const float *less,
                          const float *want) {
    static trace_log log;
    sm_model *m = run_open(&w->g);
    int32_t tokens[1024];
    int t, i;
    for (t = 0; t < 1024; t++) tokens[t] = t;
    if (m) {
        float *got = run_rows(1024, 64);
        const float *rows;
        trace_run(m, tokens, 8, 128, SM_ISA_AUTO, &log, NULL);
        rows = trace_find(&log, step, 0, 0, 1024, w->n_embd);
        for (t = 0; t < 1024 && rows; t++)
            for (i = 0; i < 64; i++)
                got[t * 64 + i] =
                    rows[t * w->n_embd + i] - (less ? less[t * 64 + i] : 0.0f);
        check_close(what, got, 64, want, 64, 1024, 64);
        trace_free(&log);
        free(got);
    }
    sm_model_close(m);
}

static void cs336_block_output(void) {
    static const struct {
        const char *from, *to;
        int k, n;
    } parts[8] = {{"ln1.weight", "blk.0.attn_norm.weight", 64, 0},
                  {"attn.q_proj.weight", "blk.0.attn_q.weight", 64, 64},
                  {"attn.k_proj.weight", "blk.0.attn_k.weight", 64, 64},
                  {"attn.v_proj.weight", "blk.0.attn_v.weight", 64, 64},
                  {"attn.output_proj.weight", "blk.0.attn_output.weight", 64, 64},
                  {"ln2.weight", "blk.0.ffn_norm.weight", 64, 0},
                  {"ffn.w1.weight", "blk.0.ffn_up.weight", 64, 256},
                  {"ffn.w2.weight", "blk.0.ffn_down.weight", 256, 64}};
    st_file st, weights;
    float *x, *want;
    wrapped w;
    int i;
    if (!cs336_expected(&st)) return;
    if (st_open(&weights, data_path(CS336 "transformer_block_weights.safetensors"))) {
        x = st_floats(&st, "in_features", 1024 * 64);
        want = st_floats(&st, "transformer_block_expected_output", 1024 * 64);
        if (x && want) {
            w = wrapped_begin(x, 64, 64, 2, 32, 256);
            for (i = 0; i < 8; i++) {
                size_t n = (size_t)parts[i].k * (size_t)(parts[i].n ? parts[i].n : 1);
                float *v = st_floats(&weights, parts[i].from, n);
                if (v) gguf_tensor_f32(&w.g, parts[i].to, parts[i].k, parts[i].n, v);
                free(v);
            }
            wrapped_check(&w, "block", "ffn_out", NULL, want);
        }
        free(x);
        free(want);
        st_close(&weights);
    }
    st_close(&st);
}

/* Attention alone: the norm is made to change nothing, the input is taken off the sum. */
static void cs336_attention_output(void) {
    st_file st, weights;
    float *x, *want, *o;
    wrapped w;
    int i, h;
    if (!cs336_expected(&st)) return;
    if (st_open(&weights,
                data_path(CS336 "unbatched_multihead_self_attention_weights.safetensors"))) {
        x = st_floats(&st, "in_features", 1024 * 64);
        want = st_floats(&st, "unbatched_multihead_self_attention_expected_output", 1024 * 64);
        o = st_floats(&weights, "output_proj.weight", 64 * 64);
        if (x && want && o) {
            w = wrapped_begin(x, 64, 96, 2, 32, 16);
            gguf_tensor_const(&w.g, "blk.0.attn_norm.weight", 96, 0, 1.0f);
            gguf_tensor_const(&w.g, "blk.0.ffn_norm.weight", 96, 0, 1.0f);
            for (i = 0; i < 3; i++) {
                float both[64 * 64];
                char name[40];
                for (h = 0; h < 2; h++) {
                    const void *head;
                    snprintf(name, sizeof name, "%c_heads.%d.weight", "qkv"[i], h);
                    head = st_bytes(&weights, name, 32 * 64 * sizeof(float));
                    if (head) memcpy(both + 32 * 64 * h, head, 32 * 64 * sizeof(float));
                }
                snprintf(name, sizeof name, "blk.0.attn_%c.weight", "qkv"[i]);
                wrapped_matrix(&w, name, 96, 64, both, 64, 64);
            }
            wrapped_matrix(&w, "blk.0.attn_output.weight", 64, 96, o, 64, 64);
            wrapped_matrix(&w, "blk.0.ffn_up.weight", 96, 16, NULL, 0, 0);
            wrapped_matrix(&w, "blk.0.ffn_down.weight", 16, 96, NULL, 0, 0);
            wrapped_check(&w, "attention", "attn_out", x, want);
        }
        free(x);
        free(want);
        free(o);
        st_close(&weights);
    }
    st_close(&st);
}

static void cs336_ffn_output(void) {
    st_file st, weights;
    float *x, *want, *up, *down;
    wrapped w;
    int i;
    if (!cs336_expected(&st)) return;
    if (st_open(&weights, data_path(CS336 "positionwise_feedforward_weights.safetensors"))) {
        x = st_floats(&st, "in_features", 1024 * 64);
        want = st_floats(&st, "positionwise_feedforward_expected_output", 1024 * 64);
        up = st_floats(&weights, "w1.weight", 128 * 64);
        down = st_floats(&weights, "w2.weight", 64 * 128);
        if (x && want && up && down) {
            w = wrapped_begin(x, 64, 96, 1, 16, 128);
            gguf_tensor_const(&w.g, "blk.0.attn_norm.weight", 96, 0, 1.0f);
            gguf_tensor_const(&w.g, "blk.0.ffn_norm.weight", 96, 0, 1.0f);
            for (i = 0; i < 3; i++) {
                char name[40];
                snprintf(name, sizeof name, "blk.0.attn_%c.weight", "qkv"[i]);
                wrapped_matrix(&w, name, 96, 16, NULL, 0, 0);
            }
            wrapped_matrix(&w, "blk.0.attn_output.weight", 16, 96, NULL, 0, 0);
            wrapped_matrix(&w, "blk.0.ffn_up.weight", 96, 128, up, 64, 128);
            wrapped_matrix(&w, "blk.0.ffn_down.weight", 128, 96, down, 128, 64);
            wrapped_check(&w, "ffn", "ffn_out", x, want);
        }
        free(x);
        free(want);
        free(up);
        free(down);
        st_close(&weights);
    }
    st_close(&st);
}

static void cs336_rms_norm_output(void) {
    st_file st, weights;
    float *x, *want, *w, *got;
    int isas[8], n = run_isas(isas), i, t;
    if (!cs336_expected(&st)) return;
    if (st_open(&weights, data_path(CS336 "rmsnorm_weights.safetensors"))) {
        x = st_floats(&st, "in_features", 1024 * 64);
        want = st_floats(&st, "rmsnorm_expected_output", 1024 * 64);
        w = st_floats(&weights, "weight", 64);
        got = run_rows(1024, 64);
        for (i = 0; i < n && x && want && w; i++) {
            sm__kernels k;
            sm__kernels_init(&k, isas[i]);
            for (t = 0; t < 1024; t++) k.rms_norm(x + t * 64, w, got + t * 64, 64, 1e-5f);
            check_close(sm_isa_name(isas[i]), got, 64, want, 64, 1024, 64);
        }
        free(x);
        free(want);
        free(w);
        free(got);
        st_close(&weights);
    }
    st_close(&st);
}

/* 128 problems of 32 causal queries by the attention kernel. */
static void cs336_scaled_dot_product_attention(void) {
    enum { P = 128, T = 32, D = 64 };
    st_file st;
    float *q, *k, *v, *want, *got, *memory, *keys, *values, *scores;
    int isas[8], n = run_isas(isas), i, p, t, d;
    if (!cs336_expected(&st)) return;
    q = st_floats(&st, "scaled_dot_product_attention_Q", P * T * D);
    k = st_floats(&st, "scaled_dot_product_attention_K", P * T * D);
    v = st_floats(&st, "scaled_dot_product_attention_V", P * T * D);
    want = st_floats(&st, "scaled_dot_product_attention_expected_output", P * T * D);
    got = run_rows(P * T, D);
    memory = run_rows(1, 2 * 64 * D + SM__ATTEND_ROWS * SM__PART + 16);
    keys = (float *)(void *)sm__align_pointer(memory);
    values = keys + 64 * D;
    scores = values + 64 * D;
    for (i = 0; i < n && q && k && v && want; i++) {
        sm__kernels kernels;
        sm__kernels_init(&kernels, isas[i]);
        for (p = 0; p < P; p++) {
            const void *key_blocks[4], *value_blocks[4];
            const float *queries[T];
            float *out[T], m[T], s[T];
            int n_keys[T];
            sm__attend_args a;
            memset(&a, 0, sizeof a);
            for (t = 0; t < T; t++) {
                for (d = 0; d < D; d++) keys[d * 64 + t] = k[(p * T + t) * D + d];
                memcpy(values + t * D, v + (p * T + t) * D, D * sizeof(float));
                queries[t] = q + (p * T + t) * D;
                out[t] = got + (p * T + t) * D;
                n_keys[t] = t + 1;
            }
            for (t = 0; t < 4; t++) key_blocks[t] = keys, value_blocks[t] = values;
            a.keys = key_blocks, a.values = value_blocks;
            a.q = queries, a.n_keys = n_keys, a.n_q = T, a.head_dim = D;
            a.scale = 0.125f;
            a.m = m, a.s = s, a.o = out, a.scores = scores;
            kernels.attend_keys(SM__T_F32, &a);
            kernels.attend_values(SM__T_F32, &a);
            for (t = 0; t < T; t++)
                for (d = 0; d < D; d++) out[t][d] /= s[t];
        }
        check_close(sm_isa_name(isas[i]), got, D, want, D, P * T, D);
    }
    free(q);
    free(k);
    free(v);
    free(want);
    free(got);
    free(memory);
    st_close(&st);
}

static const test tests_model[] = {
    {"model: stories260K.bin tells its story at every level and thread count",
     story_of_the_bin_file},
    {"model: stories260K.gguf tells its story at every level and thread count",
     story_of_the_gguf_file},
    {"model: stories260K as llama2.c's versions 1 and 2", story_of_later_versions},
    {"model: stories260K by sm_eval_step in slices of 50 us", story_by_eval_step},
    {"model: stories260K, the prompt cut at every position", story_cut_at_every_position},
    {"model: stories260K goes on from Zoo, with its space", story_of_zoo},
    {"model: stories260K goes on from Joe as llama.cpp does", story_of_joe},
    {"model: tinystories-656k has the known logits and ids", tinystories_656k_known},
    {"model: tiny-random-gpt2 has the known ids", tiny_random_gpt2_known},
    {"model: nano-gpt-sort has every known activation", nano_gpt_sort_activations},
    {"model: cs336 transformer_lm has PyTorch's logits", cs336_lm_logits},
    {"model: cs336 transformer_block has PyTorch's output", cs336_block_output},
    {"model: cs336 self-attention has PyTorch's output", cs336_attention_output},
    {"model: cs336 feed-forward has PyTorch's output", cs336_ffn_output},
    {"model: cs336 RMSNorm has PyTorch's output", cs336_rms_norm_output},
    {"model: cs336 scaled dot product attention has PyTorch's output",
     cs336_scaled_dot_product_attention},
};
