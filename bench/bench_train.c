/* bench_train.c - how long a training step takes here: forward, backward, clipping, AdamW.
 *
 *     cc -O2 bench/bench_train.c -o bench_train -lpthread
 *     ./bench_train -m nano-gpt2 -n 20 -t 2
 *
 * The tokens are random and the same in every step, so the loss falls and shows that it learns. The
 * first step is not counted. bench/train_torch.py has the same shapes, tokens and options. */
static const char usage[] =
    "usage: bench_train [options]\n"
    "  -m SHAPE      nano-llama, nano-gpt2, gpt2-124m or small-llama (nano-llama)\n"
    "  -n STEPS      that are counted (10)          -t THREADS   0 = all processors (0)\n"
    "  --isa LEVEL   scalar sse41 avx2 avx512 neon  --json       one line of JSON\n"
    "  --bf16          products of BF16 factors; --bf16-amx: by AMX's tiles\n";
#include "bench.h"

#define MAX_STEPS 1000

typedef struct shape {
    const char *name, *arch;
    int layers, heads, dim, ff, vocab, tied, length, batch;
} shape;

/* nanoGPT's preset for processors, in two architectures; GPT-2; what `make model` trains. */
static const shape shapes[] = {
    {"nano-llama", "llama", 4, 4, 128, 352, 65, 0, 64, 12},
    {"nano-gpt2", "gpt2", 4, 4, 128, 512, 65, 1, 64, 12},
    {"gpt2-124m", "gpt2", 12, 12, 768, 3072, 50257, 1, 64, 4},
    {"small-llama", "llama", 6, 6, 192, 512, 2048, 1, 128, 16},
};
enum { N_SHAPES = sizeof shapes / sizeof *shapes };

typedef struct options {
    const shape *of;
    int steps, threads, isa, compute, json;
} options;

static options parse(int argc, char **argv) {
    options o;
    int i, j;
    memset(&o, 0, sizeof o);
    o.of = shapes;
    o.steps = 10;
    for (i = 1; i < argc; i++) {
        const char *a = argv[i];
        if (!strcmp(a, "-n")) o.steps = arg_int(argc, argv, &i, 1, MAX_STEPS);
        else if (!strcmp(a, "-t")) o.threads = arg_int(argc, argv, &i, 0, 256);
        else if (!strcmp(a, "--isa")) o.isa = arg_isa(argc, argv, &i);
        else if (!strcmp(a, "--bf16")) o.compute = SM_COMPUTE_BF16;
        else if (!strcmp(a, "--bf16-amx")) o.compute = SM_COMPUTE_BF16_AMX;
        else if (!strcmp(a, "--json")) o.json = 1;
        else if (!strcmp(a, "-m")) {
            const char *name = arg_text(argc, argv, &i);
            for (j = 0; j < N_SHAPES && strcmp(name, shapes[j].name); j++) {
            }
            if (j == N_SHAPES) arg_fail("no shape is called \"%s\"", name);
            o.of = &shapes[j];
        } else arg_fail("what is \"%s\"?", a);
    }
    return o;
}

static sm_trainer_params params(const options *o) {
    const shape *s = o->of;
    sm_trainer_params p = sm_trainer_default();
    p.arch = s->arch;
    p.n_vocab = s->vocab;
    p.n_embd = s->dim;
    p.n_layers = s->layers;
    p.n_heads = s->heads;
    p.n_ff = s->ff;
    p.tied = s->tied;
    p.seed = 1;
    p.n_ctx = s->length;
    p.n_batch = s->batch;
    p.rate.rate = 0.0003f;
    p.beta2 = 0.95f;
    p.weight_decay = 0.1f;
    p.clip_norm = 1.0f;
    p.n_threads = o->threads;
    p.compute = o->compute;
    p.huge_pages = 1;
    p.isa = o->isa;
    return p;
}

/* 6 for every weight of a matrix and token (2 forward, 4 backward; the embedding is not multiplied,
 * but the output is), and of attention 12 dim for every pair of tokens; half of them are needed. */
static double flops(const shape *s) {
    double dim = s->dim, tokens = (double)s->length * s->batch;
    double ff = dim * s->ff * (strcmp(s->arch, "llama") ? 2 : 3);
    double weights = s->layers * (4 * dim * dim + ff) + dim * s->vocab;
    return tokens * (6 * weights + 6 * dim * s->layers * s->length);
}

/* Seconds of processor time that this process has used: where other programs run too, that says
 * more than the clock. */
static double processor_time(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1e-6;
}

int main(int argc, char **argv) {
    static double times[MAX_STEPS];
    options o = parse(argc, argv);
    const shape *s = o.of;
    sm_trainer_params p = params(&o);
    sm_trainer *t = NULL;
    sm_train_batch batch;
    sm_train_stats stats;
    sm_train_plan plan;
    sm_error error;
    int i, j, n = s->length * s->batch;
    int32_t *tokens = (int32_t *)bench_alloc((size_t)n * 2 * sizeof *tokens), *targets = tokens + n;
    double loss = 0.0, median, cpu = 0.0;
    uint32_t state = 12345;
    for (i = 0; i < s->batch; i++) {
        int32_t *row = tokens + i * s->length, *next = targets + i * s->length;
        for (j = 0; j <= s->length; j++) {
            int32_t id = (int32_t)(bench_lcg(&state) % (uint32_t)s->vocab);
            if (j < s->length) row[j] = id;
            if (j > 0) next[j - 1] = id;
        }
    }
    memset(&batch, 0, sizeof batch);
    batch.n_seqs = s->batch;
    batch.tokens = tokens;
    batch.targets = targets;
    if (sm_trainer_create(&p, &t, &error)) {
        say(stderr, "bench_train: %s\n", error.text);
        return 1;
    }
    plan = sm_trainer_get_plan(t);
    for (i = -1; i < o.steps; i++) {
        double start = bench_now();
        if (sm_trainer_step(t, &batch, &stats)) {
            say(stderr, "bench_train: %s\n", sm_trainer_error(t));
            return 1;
        }
        if (i < 0) loss = stats.loss, cpu = processor_time();
        else times[i] = bench_now() - start;
    }
    cpu = (processor_time() - cpu) / o.steps;
    median = bench_median(times, o.steps);
    say(stdout,
        o.json ? "{\"shape\":\"%s\",\"isa\":\"%s\",\"threads\":%d,\"params\":%llu,\"steps\":%d,"
                 "\"min_ms\":%.3f,\"median_ms\":%.3f,\"cpu_ms\":%.3f,\"tok_s\":%.1f,"
                 "\"gflops\":%.2f,\"rss_mb\":%.1f,\"first_loss\":%.5f,\"loss\":%.5f}\n"
               : "%s, %s, %d threads, %llu parameters; %d steps\n"
                 "step     best %.2f ms, median %.2f ms (processors %.2f ms): %.0f tok/s, "
                 "%.1f GFLOPS\n"
                 "memory   %.1f MB at most; loss %.4f, at the end %.4f\n",
        s->name, sm_isa_name(plan.isa), plan.n_threads, (unsigned long long)plan.n_params, o.steps,
        times[0] * 1e3, median * 1e3, cpu * 1e3, n / median, flops(s) * 1e-9 / median,
        bench_rss_mb(), loss, stats.loss);
    sm_trainer_destroy(t);
    free(tokens);
    return 0;
}
