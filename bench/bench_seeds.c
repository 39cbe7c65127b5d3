/* bench_seeds.c - the shapes that the systems before this one published figures for, ours beside
 * theirs: SmallMind (C#, .NET 10) on 4 cores of a Xeon 8370C or an EPYC 7763.
 *
 *     cc -O2 bench/bench_seeds.c -o bench_seeds -lpthread
 *     ./bench_seeds -t 2
 *
 * The row numbers are those of the survey that collected the figures. Models are GPT-2 shaped with
 * random F32 weights, made as a GGUF file in memory; a model row takes the mean over as many runs
 * as the original did, a kernel row the best batch. Attention and MLP alone are the profile's sums
 * over those steps of a whole pass. "heap" counts allocating calls of the process in one
 * operation. */
static const char usage[] = "usage: bench_seeds [options]\n"
                            "  -t THREADS    0 = all processors (0)\n"
                            "  --isa LEVEL   scalar sse41 avx2 avx512 amx neon\n";
#include "bench.h"

typedef struct settings {
    int threads, isa;
} settings;

/* --- a GPT-2 shaped model as a GGUF file in memory -------------------------------------------- */

typedef struct shape {
    int vocab, ctx, embd, layers, heads;
    uint64_t params; /* as published or computed from it: says that ours is the same model */
} shape;

typedef struct image {
    unsigned char *data; /* NULL: only counts */
    size_t bytes;
} image;

static void put(image *im, const void *p, size_t bytes) {
    if (im->data) memcpy(im->data + im->bytes, p, bytes);
    im->bytes += bytes;
}
static void put_u32(image *im, uint32_t v) { put(im, &v, 4); }
static void put_u64(image *im, uint64_t v) { put(im, &v, 8); }
static void put_text(image *im, const char *text) {
    put_u64(im, strlen(text));
    put(im, text, strlen(text));
}
static void put_key_u32(image *im, const char *key, int value) {
    put_text(im, key);
    put_u32(im, 4); /* GGUF_TYPE_UINT32 */
    put_u32(im, (uint32_t)value);
}
static void pad(image *im) {
    static const unsigned char zeros[32] = {0};
    put(im, zeros, (32 - im->bytes % 32) % 32);
}

typedef struct weight {
    char name[48];
    int n_in, n_out; /* n_out 0: a vector [n_in] */
    float value;     /* > 0: all of this value (norms), else uniform in +-scale */
    float scale;
} weight;

static void add(weight *w, int *n, int layer, const char *name, int n_in, int n_out, float value) {
    weight *x = &w[(*n)++];
    if (layer < 0) format(x->name, sizeof x->name, "%s", name);
    else format(x->name, sizeof x->name, "blk.%d.%s", layer, name);
    x->n_in = n_in;
    x->n_out = n_out;
    x->value = value;
    x->scale = n_out ? 0.08f : 0.02f;
}

#define MAX_WEIGHTS 128

static int list_weights(const shape *s, weight *w) {
    int n = 0, i, C = s->embd;
    add(w, &n, -1, "token_embd.weight", C, s->vocab, 0.0f);
    add(w, &n, -1, "position_embd.weight", C, s->ctx, 0.0f);
    for (i = 0; i < s->layers; i++) {
        add(w, &n, i, "attn_norm.weight", C, 0, 1.0f);
        add(w, &n, i, "attn_norm.bias", C, 0, 0.0f);
        add(w, &n, i, "attn_qkv.weight", C, 3 * C, 0.0f);
        add(w, &n, i, "attn_qkv.bias", 3 * C, 0, 0.0f);
        add(w, &n, i, "attn_output.weight", C, C, 0.0f);
        add(w, &n, i, "attn_output.bias", C, 0, 0.0f);
        add(w, &n, i, "ffn_norm.weight", C, 0, 1.0f);
        add(w, &n, i, "ffn_norm.bias", C, 0, 0.0f);
        add(w, &n, i, "ffn_up.weight", C, 4 * C, 0.0f);
        add(w, &n, i, "ffn_up.bias", 4 * C, 0, 0.0f);
        add(w, &n, i, "ffn_down.weight", 4 * C, C, 0.0f);
        add(w, &n, i, "ffn_down.bias", C, 0, 0.0f);
    }
    add(w, &n, -1, "output_norm.weight", C, 0, 1.0f);
    add(w, &n, -1, "output_norm.bias", C, 0, 0.0f);
    add(w, &n, -1, "output.weight", C, s->vocab, 0.0f);
    return n;
}

static void write_gguf(const shape *s, image *im) {
    static weight w[MAX_WEIGHTS];
    int n = list_weights(s, w), i;
    uint64_t offset = 0;
    uint32_t seed = 42;
    float eps = 1e-5f;
    put(im, "GGUF", 4);
    put_u32(im, 3);
    put_u64(im, (uint64_t)n);
    put_u64(im, 7);
    put_text(im, "general.architecture");
    put_u32(im, 8); /* GGUF_TYPE_STRING */
    put_text(im, "gpt2");
    put_key_u32(im, "gpt2.block_count", s->layers);
    put_key_u32(im, "gpt2.context_length", s->ctx);
    put_key_u32(im, "gpt2.embedding_length", s->embd);
    put_key_u32(im, "gpt2.feed_forward_length", 4 * s->embd);
    put_key_u32(im, "gpt2.attention.head_count", s->heads);
    put_text(im, "gpt2.attention.layer_norm_epsilon");
    put_u32(im, 6); /* GGUF_TYPE_FLOAT32 */
    put(im, &eps, 4);
    for (i = 0; i < n; i++) {
        uint64_t elems = (uint64_t)w[i].n_in * (uint64_t)(w[i].n_out ? w[i].n_out : 1);
        put_text(im, w[i].name);
        put_u32(im, w[i].n_out ? 2 : 1);
        put_u64(im, (uint64_t)w[i].n_in);
        if (w[i].n_out) put_u64(im, (uint64_t)w[i].n_out);
        put_u32(im, SM_TYPE_F32);
        put_u64(im, offset);
        offset += (elems * 4 + 31) / 32 * 32;
    }
    pad(im);
    for (i = 0; i < n; i++) {
        size_t elems = (size_t)w[i].n_in * (size_t)(w[i].n_out ? w[i].n_out : 1), j;
        if (im->data) {
            float *x = (float *)(void *)(im->data + im->bytes); /* 32-byte aligned by pad */
            bench_fill(x, elems, w[i].scale, seed++);
            for (j = 0; j < elems && w[i].value > 0.0f; j++) x[j] = w[i].value;
        }
        im->bytes += elems * 4;
        pad(im);
    }
}

/* --- a context on such a model ---------------------------------------------------------------- */

typedef struct fixture {
    image file;
    sm_model *model;
    sm_ctx *ctx;
    int32_t *ids; /* random, enough for a batch */
    int32_t *seqs;
    uint8_t *want; /* all 1 */
} fixture;

#define MAX_TOKENS 512

static void check(int failed, const char *what, const char *text) {
    if (!failed) return;
    say(stderr, "bench_seeds: %s: %s\n", what, text);
    exit(1);
}

static void fixture_open(fixture *f, const settings *set, const shape *s, int n_seqs, int profile) {
    sm_model_params mp = sm_model_default();
    sm_ctx_params cp = sm_ctx_default();
    sm_error error;
    uint32_t state = 7;
    int i;
    memset(f, 0, sizeof *f);
    error.text[0] = 0;
    write_gguf(s, &f->file);
    f->file.data = (unsigned char *)bench_alloc(f->file.bytes);
    memset(f->file.data, 0, f->file.bytes);
    f->file.bytes = 0;
    write_gguf(s, &f->file);
    mp.file.data = f->file.data;
    mp.file.bytes = f->file.bytes;
    check(sm_model_open(&mp, &f->model, &error) != SM_OK, "model", error.text);
    check(sm_model_get_info(f->model)->n_params != s->params, "model", "not the published size");
    cp.n_seqs = n_seqs;
    cp.n_batch = MAX_TOKENS;
    cp.max_logits = MAX_TOKENS;
    cp.key_type = cp.value_type = SM_TYPE_F32; /* as theirs */
    cp.n_threads = set->threads;
    cp.isa = set->isa;
    cp.profile = profile;
    check(sm_ctx_create(f->model, &cp, &f->ctx, &error) != SM_OK, "context", error.text);
    f->ids = (int32_t *)bench_alloc(MAX_TOKENS * sizeof *f->ids);
    f->seqs = (int32_t *)bench_alloc(MAX_TOKENS * sizeof *f->seqs);
    f->want = (uint8_t *)bench_alloc(MAX_TOKENS);
    for (i = 0; i < MAX_TOKENS; i++)
        f->ids[i] = (int32_t)(bench_lcg(&state) % (uint32_t)s->vocab), f->want[i] = 1;
}

static void fixture_close(fixture *f) {
    sm_ctx_destroy(f->ctx);
    sm_model_close(f->model);
    free(f->file.data);
    free(f->ids);
    free(f->seqs);
    free(f->want);
}

/* Appends T tokens to each of B sequences; logits of all positions, or of the last only. */
static void forward(fixture *f, const int32_t *ids, int B, int T, int all) {
    sm_batch batch;
    int i;
    for (i = 0; i < B * T; i++) f->seqs[i] = i / T;
    batch.n = B * T;
    batch.tokens = ids;
    batch.seqs = f->seqs;
    batch.want = all ? f->want : NULL;
    check(sm_eval(f->ctx, &batch) != SM_OK, "eval", sm_ctx_error(f->ctx));
    bench_sink = (uint64_t)(sm_logits(f->ctx, -1)[0] > 0.0f);
}

/* The same into empty sequences: no cache, as theirs had none. */
static void forward_whole(fixture *f, const int32_t *ids, int B, int T, int all) {
    int i;
    for (i = 0; i < B; i++) sm_seq_release(f->ctx, i);
    forward(f, ids, B, T, all);
}

static int32_t greedy(const fixture *f) {
    sm_sampler sampler;
    memset(&sampler, 0, sizeof sampler);
    return sm_sample(&sampler, NULL, sm_logits(f->ctx, -1),
                     sm_model_get_info(f->model)->n_vocab, NULL, 0, NULL);
}

/* --- the table -------------------------------------------------------------------------------- */

static void section(const char *title) {
    say(stdout, "\n%s\n%-4s%-48s %12s %12s %8s  %s\n", title, "row", " what", "theirs", "ours",
        "times", "heap");
}

/* theirs 0: none published. heap: calls in an operation of ours; theirs_bytes: allocated in one. */
static void row(int number, const char *what, const char *unit, double theirs, double ours,
                int more_is_better, double heap, const char *theirs_bytes) {
    char name[64], left[32] = "-", right[32], times[16] = "-", calls[32] = "?";
    format(name, sizeof name, "%s, %s", what, unit);
    if (theirs > 0.0) format(left, sizeof left, "%.5g", theirs);
    format(right, sizeof right, "%.5g", ours);
    if (theirs > 0.0)
        format(times, sizeof times, "%.2fx", more_is_better ? ours / theirs : theirs / ours);
    if (BENCH_COUNTS_HEAP) format(calls, sizeof calls, "%.4g", heap);
    say(stdout, "%3d  %-48s%12s %12s %8s  %s%s%s\n", number, name, left, right, times, calls,
        *theirs_bytes ? "; theirs " : "", theirs_bytes);
    fflush(stdout);
}

static double heap_since(uint64_t before, int operations) {
    return (double)(bench_heap_calls() - before) / operations;
}

/* --- model rows ------------------------------------------------------------------------------- */

/* Row 1: prompt of 32, 3 x 50 tokens, the whole context again for every token; then cached. */
static void row_1(const settings *set) {
    const shape s = {512, 128, 256, 4, 8, 3454464};
    fixture f;
    double start;
    uint64_t heap;
    int run, t;
    int32_t id;
    fixture_open(&f, set, &s, 1, 0);
    forward_whole(&f, f.ids, 1, 81, 0);
    heap = bench_heap_calls();
    start = bench_now();
    for (run = 0; run < 3; run++)
        for (t = 32; t < 82; t++) {
            forward_whole(&f, f.ids, 1, t, 0);
            f.ids[t] = greedy(&f);
        }
    row(1, "3.45M, 32+50 tokens, no cache", "ms/token", 165.5, (bench_now() - start) / 150 * 1e3, 0,
        heap_since(heap, 150), "51,537 KB");
    heap = bench_heap_calls();
    start = bench_now();
    for (run = 0; run < 3; run++) {
        forward_whole(&f, f.ids, 1, 32, 0);
        id = greedy(&f);
        for (t = 33; t < 82; t++) {
            forward(&f, &id, 1, 1, 0);
            id = greedy(&f);
        }
    }
    row(1, "the same with our cache", "ms/token", 165.5, (bench_now() - start) / 150 * 1e3, 0,
        heap_since(heap, 150), "51,537 KB");
    fixture_close(&f);
}

/* Row 6: dropout in evaluation. A step that does not exist takes nothing; the tape shows it. */
static void row_6(const settings *set) {
    const shape s = {512, 256, 128, 2, 4, 560640};
    fixture f;
    sm_profile step;
    int i, n = 0;
    fixture_open(&f, set, &s, 1, 0);
    for (i = 0; sm_ctx_profile(f.ctx, i, &step) == SM_OK; i++) n += !!strstr(step.step, "drop");
    row(6, "dropout in evaluation", "steps on the tape", 0.0, n, 0, 0.0, "0.031 us, 35.63 B");
    fixture_close(&f);
}

/* What the steps of these names took since the context was made. */
static uint64_t steps_ns(const sm_ctx *ctx, const char *const *names) {
    sm_profile step;
    uint64_t ns = 0;
    int i, j;
    for (i = 0; sm_ctx_profile(ctx, i, &step) == SM_OK; i++)
        for (j = 0; names[j]; j++)
            if (!strcmp(step.step, names[j])) ns += step.ns;
    return ns;
}

/* Seconds of those steps in a pass of B x T tokens: the mean of 100 passes after 10. */
static double part_of_pass(const settings *set, const shape *s, int B, int T,
                           const char *const *names, double *heap) {
    fixture f;
    uint64_t ns = 0, calls = 0;
    int run;
    fixture_open(&f, set, s, B, 1);
    for (run = 0; run < 110; run++) {
        if (run == 10) ns = steps_ns(f.ctx, names), calls = bench_heap_calls();
        forward_whole(&f, f.ids, B, T, 1);
    }
    *heap = heap_since(calls, 100);
    ns = steps_ns(f.ctx, names) - ns;
    fixture_close(&f);
    return (double)ns * 1e-9 / 100.0;
}

static void rows_7_9_10(const settings *set) {
    static const char *const attention[] = {"qkv", "kv_put", "attend", "merge", "attn_out", NULL};
    static const char *const mlp[] = {"up", "act", "ffn_out", NULL};
    /* One layer is enough; the vocabulary does not matter, so it is small. */
    const shape heads4 = {64, 512, 256, 1, 4, 954112}, heads8 = {64, 512, 256, 1, 8, 954112};
    double heap, seconds;
    seconds = part_of_pass(set, &heads4, 2, 64, attention, &heap);
    row(7, "attention B2 T64 C256 H4", "ms", 7.655, seconds * 1e3, 0, heap, "536,841 B");
    seconds = part_of_pass(set, &heads8, 4, 64, attention, &heap);
    row(9, "attention B4 T64 C256 H8", "ms", 15.64, seconds * 1e3, 0, heap, "1,297 KB");
    seconds = part_of_pass(set, &heads8, 4, 64, mlp, &heap);
    row(10, "MLP B4 T64 256 -> 1024 GELU -> 256", "ms", 12.91, seconds * 1e3, 0, heap, "262 KB");
}

static void rows_8_11_12(const settings *set) {
    const shape small = {256, 64, 128, 2, 4, 470528}, longer = {512, 256, 128, 2, 4, 560640};
    fixture f;
    uint64_t heap;
    double start, ms;
    int i;
    int32_t id = 1;
    fixture_open(&f, set, &small, 2, 0);
    for (i = 0; i < 5; i++) forward_whole(&f, f.ids, 2, 32, 1);
    heap = bench_heap_calls();
    start = bench_now();
    for (i = 0; i < 50; i++) forward_whole(&f, f.ids, 2, 32, 1);
    ms = (bench_now() - start) / 50 * 1e3;
    row(8, "0.47M forward B2 T32", "ms", 4.650, ms, 0, heap_since(heap, 50), "368.4 KB");
    row(8, "the same", "tok/s", 13762, 64e3 / ms, 1, heap_since(heap, 50), "");
    fixture_close(&f);

    fixture_open(&f, set, &longer, 2, 0);
    forward_whole(&f, f.ids, 2, 32, 1);
    heap = bench_heap_calls();
    start = bench_now();
    for (i = 0; i < 50; i++) forward_whole(&f, f.ids, 2, 32, 1);
    ms = (bench_now() - start) / 50 * 1e3;
    row(11, "0.56M forward B2 T32", "ms", 6.16, ms, 0, heap_since(heap, 50), "591 KB");
    sm_seq_release(f.ctx, 0);
    heap = bench_heap_calls();
    start = bench_now();
    for (i = 0; i < 100; i++) {
        forward(&f, &id, 1, 1, 0);
        id = greedy(&f);
    }
    row(12, "0.56M decode, cached, 100 greedy (theirs: bug)", "tok/s", 0.0,
        100.0 / (bench_now() - start), 1, heap_since(heap, 100), "");
    fixture_close(&f);
}

/* Row 13: 32 tokens of prompt, 256 new ones, context 32: every token means the last 32 again. */
static void row_13(const settings *set) {
    const shape s = {50, 32, 64, 2, 4, 108544};
    fixture f;
    double start, prompt_s = 0.0, total_s = 0.0;
    uint64_t heap = 0;
    int run, t;
    fixture_open(&f, set, &s, 1, 0);
    for (run = 0; run < 35; run++) { /* 5 warm up */
        if (run == 5) heap = bench_heap_calls();
        start = bench_now();
        for (t = 0; t < 256; t++) {
            forward_whole(&f, f.ids + t, 1, 32, 0);
            f.ids[t + 32] = greedy(&f);
            if (run >= 5 && t == 0) prompt_s += bench_now() - start;
        }
        if (run >= 5) total_s += bench_now() - start;
    }
    row(13, "0.11M, 32+256 tokens, context 32, no cache", "tok/s", 777.73, 30 * 256 / total_s, 1,
        heap_since(heap, 30), "353.5 MB");
    row(13, "the same, first token", "ms", 1.55, prompt_s / 30 * 1e3, 0, 0.0, "");
    fixture_close(&f);
}

static void row_31_model(const settings *set) {
    const shape s = {71, 256, 64, 2, 4, 125568};
    fixture f;
    double start;
    uint64_t heap;
    int i, run;
    fixture_open(&f, set, &s, 1, 0);
    forward_whole(&f, f.ids, 1, 20, 0);
    heap = bench_heap_calls();
    start = bench_now();
    for (run = 0; run < 30; run++)
        for (i = 0; i < 20; i++) {
            forward_whole(&f, f.ids, 1, i + 1, 0);
            f.ids[i + 1] = greedy(&f);
        }
    row(31, "0.13M, 20 tokens, no cache", "ms", 17.15, (bench_now() - start) / 30 * 1e3, 0,
        heap_since(heap, 30), "");
    fixture_close(&f);
}

/* --- kernel rows ------------------------------------------------------------------------------ */

typedef struct kernel_job {
    const sm__kernels *k;
    bench_crew crew;
    int rows, n, depth;
    float *x, *y, *z;       /* inputs, weights, outputs */
    unsigned char *scratch; /* SCRATCH bytes for each thread */
    void (*share)(void *job, int index, int n_threads);
} kernel_job;

#define DOT_PIECE 65536
#define SCRATCH SM__MATMUL_SCRATCH(DOT_PIECE)

static void run_job(void *arg) {
    kernel_job *j = (kernel_job *)arg;
    bench_crew_run(&j->crew, j->share, j);
}
static double job_seconds(kernel_job *j, void (*share)(void *, int, int), double seconds) {
    j->share = share;
    return bench_time(run_job, j, seconds);
}

/* The part of total that a thread has: [*from, returned). */
static int part(int total, int index, int n_threads, int *from) {
    *from = (int)((int64_t)total * index / n_threads);
    return (int)((int64_t)total * (index + 1) / n_threads);
}

/* A product of x [rows, depth] and weights [n, depth] in tiles that the second cache holds. */
static void share_matmul(void *arg, int index, int n_threads) {
    const kernel_job *j = (const kernel_job *)arg;
    size_t depth = (size_t)j->depth;
    int tile = j->depth > 1024 ? 48 : 96, from, to = part(j->rows, index, n_threads, &from), t, o;
    for (t = from; t < to; t += tile)
        for (o = 0; o < j->n; o += tile) {
            sm__acts acts;
            memset(&acts, 0, sizeof acts);
            acts.x = j->x + (size_t)t * depth;
            acts.x_stride = depth;
            j->k->matmul[SM__T_F32](j->y + (size_t)o * depth, depth * 4, sm__min(tile, j->n - o),
                                    j->depth, &acts, sm__min(tile, to - t),
                                    j->z + (size_t)t * (size_t)j->n + o, (size_t)j->n,
                                    j->scratch + (size_t)index * SCRATCH);
        }
}
static void share_dot(void *arg, int index, int n_threads) { /* in pieces, as rows of weights are */
    const kernel_job *j = (const kernel_job *)arg;
    float sum = 0.0f, piece;
    int i, to = part(j->n, index, n_threads, &i), n;
    for (; i < to; i += n, sum += piece) {
        sm__acts acts;
        memset(&acts, 0, sizeof acts);
        n = sm__min(DOT_PIECE, to - i);
        acts.x = j->x + i;
        acts.x_stride = (size_t)n;
        j->k->matmul[SM__T_F32](j->y + i, (size_t)n * 4, 1, n, &acts, 1, &piece, 1,
                                j->scratch + (size_t)index * SCRATCH);
    }
    bench_sink = (uint64_t)(sum > 0.0f);
}
static void share_add(void *arg, int index, int n_threads) {
    const kernel_job *j = (const kernel_job *)arg;
    int from, to = part(j->n, index, n_threads, &from);
    j->k->add(j->x + from, j->z + from, to - from);
}
static void share_gelu(void *arg, int index, int n_threads) {
    const kernel_job *j = (const kernel_job *)arg;
    int from, to = part(j->n, index, n_threads, &from);
    j->k->gelu_tanh(j->x + from, j->z + from, to - from);
}
static void share_softmax(void *arg, int index, int n_threads) { /* in place, so from a copy */
    const kernel_job *j = (const kernel_job *)arg;
    int i, to = part(j->rows, index, n_threads, &i);
    for (; i < to; i++) {
        float *row = j->z + (size_t)i * (size_t)j->n;
        memcpy(row, j->x + (size_t)i * (size_t)j->n, (size_t)j->n * 4);
        j->k->softmax(row, j->n);
    }
}
static void run_layer_norm(void *arg) { /* one row: one thread */
    const kernel_job *j = (const kernel_job *)arg;
    j->k->layer_norm(j->x, j->y, j->y, j->z, j->n, 1e-5f);
}

static double matmul_gflops(kernel_job *j, int rows, int depth, int n) {
    j->rows = rows;
    j->depth = depth;
    j->n = n;
    return 2.0 * rows * depth * n * 1e-9 / job_seconds(j, share_matmul, 0.15);
}
static double softmax_ms(kernel_job *j, int rows, int n) {
    j->rows = rows;
    j->n = n;
    return job_seconds(j, share_softmax, 0.1) * 1e3;
}

static void kernel_rows(const settings *set) {
    static const struct {
        int row, m, k, n;
        double gflops;
    } products[] = {
        {19, 256, 256, 256, 17.56},  {19, 512, 512, 512, 29.26},    {19, 1024, 1024, 1024, 27.18},
        {19, 512, 2048, 512, 25.40}, {22, 128, 128, 128, 68.71},    {22, 256, 256, 256, 65.66},
        {22, 512, 512, 512, 33.49},  {22, 1024, 1024, 1024, 66.31}, {22, 2048, 2048, 2048, 79.41},
        {23, 512, 512, 512, 22.04},  {31, 128, 128, 128, 3.60},
    };
    static const struct {
        int t, d;
        double gflops;
    } scores[] = {{256, 64, 5.52},    {256, 128, 9.44},  {1024, 64, 14.59},
                  {1024, 128, 34.16}, {2048, 64, 49.16}, {2048, 128, 43.25}};
    const size_t elems = 10000000;
    sm__kernels k;
    kernel_job j;
    char what[64];
    size_t i;
    uint64_t heap;
    memset(&j, 0, sizeof j);
    check(sm__kernels_init(&k, set->isa) != SM_OK, "--isa", "this processor does not have it");
    j.k = &k;
    j.x = (float *)bench_alloc(elems * 4);
    j.y = (float *)bench_alloc(elems * 4);
    j.z = (float *)bench_alloc(elems * 4);
    j.scratch = (unsigned char *)bench_alloc(SCRATCH * (size_t)set->threads);
    bench_crew_start(&j.crew, set->threads);
    bench_fill(j.x, elems, 1.0f, 1);
    bench_fill(j.y, elems, 1.0f, 2);
    memset(j.z, 0, elems * 4);
    heap = bench_heap_calls();
    for (i = 0; i < sizeof products / sizeof *products; i++) {
        double g = matmul_gflops(&j, products[i].m, products[i].k, products[i].n);
        format(what, sizeof what, "matmul %d x %d x %d", products[i].m, products[i].k,
               products[i].n);
        row(products[i].row, what, "GFLOPS", products[i].gflops, g, 1, 0.0,
            products[i].row == 19 ? "1.8 KB" : "");
    }
    for (i = 0; i < sizeof scores / sizeof *scores; i++) {
        double g = matmul_gflops(&j, scores[i].t, scores[i].d, scores[i].t);
        format(what, sizeof what, "scores q k^T, T %d, d %d", scores[i].t, scores[i].d);
        row(20, what, "GFLOPS", scores[i].gflops, g, 1, 0.0, "");
    }
    row(21, "softmax 256 x 256", "ms", 0.229, softmax_ms(&j, 256, 256), 0, 0.0, "");
    row(21, "softmax 1024 x 1024", "ms", 3.544, softmax_ms(&j, 1024, 1024), 0, 0.0, "");
    row(21, "softmax 2048 x 2048", "ms", 14.028, softmax_ms(&j, 2048, 2048), 0, 0.0, "");
    row(23, "softmax 1000 x 1000", "ms", 7.540, softmax_ms(&j, 1000, 1000), 0, 0.0, "");
    row(31, "softmax 16 x 128", "ms", 0.0181, softmax_ms(&j, 16, 128), 0, 0.0, "");
    j.n = (int)elems;
    row(23, "add 10M (12 bytes an element)", "GB/s", 35.10,
        12e-9 * (double)elems / job_seconds(&j, share_add, 0.2), 1, 0.0, "");
    say(stdout, " 23  ReLU 10M: theirs 35.34 GB/s; no architecture here has a ReLU step\n");
    j.n = 1000000;
    row(23, "GELU 1M", "ms", 5.970, job_seconds(&j, share_gelu, 0.1) * 1e3, 0, 0.0, "");
    j.n = (int)elems;
    row(23, "dot 10M", "GFLOPS", 10.42, 0.02 / job_seconds(&j, share_dot, 0.2), 1, 0.0, "");
    j.n = 768;
    row(31, "layer norm 768", "ms", 0.0004, bench_time(run_layer_norm, &j, 0.05) * 1e3, 0, 0.0, "");
    if (BENCH_COUNTS_HEAP)
        say(stdout, "heap calls in all kernel rows together: %llu\n",
            (unsigned long long)(bench_heap_calls() - heap));
    bench_crew_stop(&j.crew);
    free(j.x);
    free(j.y);
    free(j.z);
    free(j.scratch);
}

int main(int argc, char **argv) {
    settings set;
    sm__kernels k;
    int i;
    memset(&set, 0, sizeof set);
    for (i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "-t")) set.threads = arg_int(argc, argv, &i, 0, 256);
        else if (!strcmp(argv[i], "--isa")) set.isa = arg_isa(argc, argv, &i);
        else arg_fail("what is \"%s\"?", argv[i]);
    }
    if (!set.threads) set.threads = sm__cpu_count();
    if (!set.isa)
        set.isa = sm__kernels_init(&k, SM_ISA_AMX) == SM_OK ? SM_ISA_AMX : (int)sm_isa_best();
    say(stdout, "kernels %s, %d threads; theirs had 4 cores\n", sm_isa_name(set.isa),
        set.threads);
    section("models: whole passes, and parts of them");
    row_1(&set);
    row_6(&set);
    rows_7_9_10(&set);
    rows_8_11_12(&set);
    row_13(&set);
    row_31_model(&set);
    section("kernels");
    kernel_rows(&set);
    return 0;
}
