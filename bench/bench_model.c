/* bench_model.c - how fast a model runs here, beside how fast this machine reads its weights.
 *
 *     cc -O2 bench/bench_model.c -o bench_model -lpthread
 *     ./bench_model -m model.gguf -p 512 -n 128 -t 2
 *
 * The prompt is P random ids, evaluated at once; then N tokens are decoded one by one, greedily.
 * The first of the runs warms up and is not counted; best and median of the others are given.
 * With --ids and --logits it evaluates the ids of a text file instead and writes the logits after
 * every one of them as raw float32, to be compared with another engine's. */
static const char usage[] =
    "usage: bench_model -m MODEL [options]\n"
    "  -p N          prompt tokens (512)            -n N         decoded tokens (128)\n"
    "  -t THREADS    0 = all processors (0)\n"
    "  --isa LEVEL   scalar sse41 avx2 avx512 amx neon\n"
    "  --reps R      counted runs (3)               --json       one line of JSON\n"
    "  --kv TYPE     f32 f16 bf16 q8_0 q4_0 (f16), or two: KEYS,VALUES\n"
    "  --profile     time of every kind of step\n"
    "  --batch N     tokens evaluated at once (0 = automatic)\n"
    "  --seqs S      S sequences decoded together, 1 to 64 (1); tok/s counts all of them\n"
    "  --pairs N     then N more tokens, each beside a reading of the weights: their share is the\n"
    "                one to believe where others use the machine too (a median)\n"
    "  --lora F[:S]  with a LoRA adapter [times S]\n"
    "  --ids FILE --logits FILE   write the logits after every id of a text file\n";
#include "bench.h"

#define MAX_REPS 100

#ifdef __clang__
#define COMPILER "clang " __clang_version__
#elif defined(__GNUC__)
#define COMPILER "gcc " __VERSION__
#else
#define COMPILER "unknown"
#endif

typedef struct options {
    const char *model, *ids, *logits, *lora;
    int prompt, decode, threads, isa, reps, json, profile, batch, seqs, pairs;
    sm_adapter *adapter; /* what lora names, and its share */
    float share;
    sm_ctx_params kv; /* its types */
} options;

#define MAX_SEQS 64

static options parse(int argc, char **argv) {
    options o;
    int i;
    memset(&o, 0, sizeof o);
    o.prompt = 512;
    o.decode = 128;
    o.reps = 3;
    o.kv.key_type = o.kv.value_type = SM_TYPE_F16;
    o.seqs = 1;
    o.share = 1.0f;
    for (i = 1; i < argc; i++) {
        const char *a = argv[i];
        if (!strcmp(a, "-m")) o.model = arg_text(argc, argv, &i);
        else if (!strcmp(a, "-p")) o.prompt = arg_int(argc, argv, &i, 0, 1 << 24);
        else if (!strcmp(a, "-n")) o.decode = arg_int(argc, argv, &i, 0, 1 << 24);
        else if (!strcmp(a, "--pairs")) o.pairs = arg_int(argc, argv, &i, 0, MAX_REPS);
        else if (!strcmp(a, "-t")) o.threads = arg_int(argc, argv, &i, 0, 256);
        else if (!strcmp(a, "--isa")) o.isa = arg_isa(argc, argv, &i);
        else if (!strcmp(a, "--reps")) o.reps = arg_int(argc, argv, &i, 1, MAX_REPS);
        else if (!strcmp(a, "--json")) o.json = 1;
        else if (!strcmp(a, "--profile")) o.profile = 1;
        else if (!strcmp(a, "--batch")) o.batch = arg_int(argc, argv, &i, 0, 1 << 16);
        else if (!strcmp(a, "--seqs")) o.seqs = arg_int(argc, argv, &i, 1, MAX_SEQS);
        else if (!strcmp(a, "--lora")) o.lora = arg_text(argc, argv, &i);
        else if (!strcmp(a, "--ids")) o.ids = arg_text(argc, argv, &i);
        else if (!strcmp(a, "--logits")) o.logits = arg_text(argc, argv, &i);
        else if (!strcmp(a, "--kv")) arg_kv(argc, argv, &i, &o.kv);
        else arg_fail("what is \"%s\"?", a);
    }
    if (!o.model) arg_fail("-m MODEL is missing");
    if (!o.ids != !o.logits) arg_fail("--ids and --logits go together");
    if (!o.prompt && !o.decode) arg_fail("-p 0 -n 0 leaves nothing to measure");
    return o;
}

static sm_status make_ctx(const options *o, const sm_model *model, const sm_ctx_params *cp,
                          sm_ctx **ctx, sm_error *error) {
    sm_status status = sm_ctx_create(model, cp, ctx, error);
    if (status || !o->adapter) return status;
    status = sm_ctx_set_adapter(*ctx, o->adapter, o->share);
    format(error->text, sizeof error->text, "%s", sm_ctx_error(*ctx));
    return status;
}

/* --- logits of every position ----------------------------------------------------------------- */

/* The whole numbers of a text file; NULL after a message. */
static int32_t *read_ids(const char *path, int *n) {
    FILE *file = fopen(path, "r");
    int32_t *ids = NULL;
    int max = 0, id, got = 0;
    *n = 0;
    if (!file) {
        say(stderr, "bench_model: %s: %s\n", path, strerror(errno));
        return NULL;
    }
    while ((got = fscanf(file, "%d", &id)) == 1) {
        if (*n == max) {
            max = max ? 2 * max : 1024;
            ids = (int32_t *)realloc(ids, (size_t)max * sizeof *ids);
            if (!ids) break;
        }
        ids[(*n)++] = id;
    }
    if (got != EOF || !*n) {
        say(stderr, "bench_model: %s: %s after %d numbers\n", path,
            *n ? "something else stands" : "no number", *n);
        free(ids);
        ids = NULL;
    }
    fclose(file);
    return ids;
}

/* In chunks as a prompt is, so that the rows of logits that are held stay few. */
static int write_logits(const options *o, const sm_model *model, sm_ctx_params cp) {
    int n, i, j, failed = 1, n_vocab = sm_model_get_info(model)->n_vocab;
    int32_t *ids = read_ids(o->ids, &n);
    uint8_t want[64];
    sm_ctx *ctx = NULL;
    sm_error error;
    FILE *file = NULL;
    memset(want, 1, sizeof want);
    if (!ids) return 1;
    cp.n_ctx = n;
    cp.max_logits = (int)sizeof want;
    if (make_ctx(o, model, &cp, &ctx, &error)) {
        say(stderr, "bench_model: %s\n", error.text);
    } else if ((file = fopen(o->logits, "wb")) == NULL) {
        say(stderr, "bench_model: %s: %s\n", o->logits, strerror(errno));
    } else {
        for (i = 0, failed = 0; i < n && !failed; i += (int)sizeof want) {
            sm_batch batch;
            batch.n = n - i < (int)sizeof want ? n - i : (int)sizeof want;
            batch.tokens = ids + i;
            batch.seqs = NULL;
            batch.want = want;
            if (sm_eval(ctx, &batch)) {
                say(stderr, "bench_model: %s\n", sm_ctx_error(ctx));
                failed = 1;
            }
            for (j = 0; j < batch.n && !failed; j++)
                failed = fwrite(sm_logits(ctx, j), sizeof(float), (size_t)n_vocab, file) !=
                         (size_t)n_vocab;
        }
        failed |= fclose(file) != 0;
        if (!failed) say(stdout, "%d rows of %d logits to %s\n", n, n_vocab, o->logits);
    }
    sm_ctx_destroy(ctx);
    free(ids);
    return failed;
}

/* --- profile ---------------------------------------------------------------------------------- */

typedef struct profile_rows { /* the steps of the tape, summed by name */
    sm_profile rows[64];
    int n;
} profile_rows;

/* Adds (sign 1) or takes away (sign -1) what the context counted so far. */
static void profile_add(profile_rows *p, const sm_ctx *ctx, int sign) {
    int i, j, n_steps = sm_ctx_get_stats(ctx).n_steps;
    uint64_t times = (uint64_t)sign;
    for (i = 0; i < n_steps; i++) {
        sm_profile step;
        if (sm_ctx_profile(ctx, i, &step)) continue;
        for (j = 0; j < p->n && strcmp(p->rows[j].step, step.step); j++) {}
        if (j == 64) continue;
        if (j == p->n) memset(&p->rows[p->n++], 0, sizeof *p->rows);
        p->rows[j].step = step.step;
        p->rows[j].calls += times * step.calls;
        p->rows[j].ns += times * step.ns;
        p->rows[j].bytes += times * step.bytes;
        p->rows[j].ops += times * step.ops;
    }
}

static void profile_print(const char *title, const profile_rows *p, int tokens) {
    double total = 0.0;
    int i;
    for (i = 0; i < p->n; i++) total += (double)p->rows[i].ns;
    if (total <= 0.0 || !tokens) return;
    say(stdout, "\n%-16s %9s %11s %7s %8s %9s\n", title, "calls", "us/token", "share", "GB/s",
        "Gop/s");
    for (i = 0; i < p->n; i++) {
        double ns = (double)p->rows[i].ns;
        say(stdout, "  %-14s %9llu %11.2f %6.1f%% %8.2f %9.2f\n", p->rows[i].step,
            (unsigned long long)p->rows[i].calls, ns * 1e-3 / tokens, ns / total * 100.0,
            ns > 0.0 ? (double)p->rows[i].bytes / ns : 0.0,
            ns > 0.0 ? (double)p->rows[i].ops / ns : 0.0);
    }
    say(stdout, "  %-14s %9s %11.2f\n", "sum", "", total * 1e-3 / tokens);
}

/* --- the measurement -------------------------------------------------------------------------- */

typedef struct result {
    double load_s, ctx_s, first_token_s;           /* first_token: of the run that warms up */
    double prompt_s[MAX_REPS], decode_s[MAX_REPS]; /* sorted at the end */
    double prompt_median, decode_median;
    double rss_mb, read_gbs, heap_calls; /* heap_calls: of a decoded token; -1 = not counted */
    int read_kind;                /* of bench_read_kinds */
    double pair_share, pair_gbs;  /* medians of --pairs: of the rate of reading; that rate */
    profile_rows prompt_steps, decode_steps;
} result;

static sm_status eval(sm_ctx *ctx, const int32_t *ids, int n) {
    sm_batch batch;
    batch.n = n;
    batch.tokens = ids;
    batch.seqs = NULL;
    batch.want = NULL;
    return sm_eval(ctx, &batch);
}

/* The plain loop that tools/peerbench.c has, so that both engines carry the same weight. */
static int32_t best_id(const float *logits, int n_vocab) {
    int best = 0, i;
    for (i = 1; i < n_vocab; i++)
        if (logits[i] > logits[best]) best = i;
    return best;
}

/* Decodes o->decode tokens of every sequence, one of each at a time. All begin with the prompt. */
static sm_status decode(const options *o, sm_ctx *ctx, int32_t first) {
    int n_vocab = sm_model_get_info(sm_ctx_model(ctx))->n_vocab, i, s;
    int32_t ids[MAX_SEQS], seqs[MAX_SEQS];
    uint8_t want[MAX_SEQS];
    sm_batch batch;
    memset(want, 1, sizeof want);
    for (s = 0; s < o->seqs; s++) ids[s] = (first + s) % n_vocab, seqs[s] = s;
    batch.n = o->seqs;
    batch.tokens = ids;
    batch.seqs = seqs;
    batch.want = want;
    for (i = 0; i < o->decode; i++) {
        sm_status status = sm_eval(ctx, &batch);
        if (status) return status;
        for (s = 0; s < o->seqs; s++) ids[s] = best_id(sm_logits(ctx, s), n_vocab);
    }
    return SM_OK;
}

static sm_status measure(const options *o, sm_ctx *ctx, const int32_t *ids, result *r) {
    int n_vocab = sm_model_get_info(sm_ctx_model(ctx))->n_vocab, rep, i;
    for (rep = 0; rep <= o->reps; rep++) {
        uint64_t heap;
        double start;
        int32_t id = o->prompt ? ids[o->prompt - 1] : 1 % n_vocab;
        sm_status status = SM_OK;
        for (i = 0; i < o->seqs && !status; i++) status = sm_seq_release(ctx, i);
        if (status) return status;
        if (rep) profile_add(&r->prompt_steps, ctx, -1);
        start = bench_now();
        if (o->prompt && (status = eval(ctx, ids, o->prompt)) != SM_OK) return status;
        if (o->prompt && !rep) bench_sink = (uint64_t)best_id(sm_logits(ctx, -1), n_vocab);
        if (rep) r->prompt_s[rep - 1] = bench_now() - start;
        else r->first_token_s = bench_now() - start;
        if (rep) profile_add(&r->prompt_steps, ctx, 1);
        for (i = 1; i < o->seqs && !status; i++) status = sm_seq_fork(ctx, 0, i);
        if (status) return status;
        if (rep) profile_add(&r->decode_steps, ctx, -1);
        heap = bench_heap_calls();
        start = bench_now();
        if ((status = decode(o, ctx, id)) != SM_OK) return status;
        if (rep) r->decode_s[rep - 1] = bench_now() - start;
        if (o->decode) r->heap_calls = (double)(bench_heap_calls() - heap) / o->decode;
        if (rep) profile_add(&r->decode_steps, ctx, 1);
    }
    if (!BENCH_COUNTS_HEAP) r->heap_calls = -1.0;
    r->rss_mb = bench_rss_mb();
    r->prompt_median = bench_median(r->prompt_s, o->reps);
    r->decode_median = bench_median(r->decode_s, o->reps);
    return SM_OK;
}

/* The weights that a token needs, *n spans to be freed: rows of embeddings that are only looked up
 * do not count. */
static bench_span *weights_of(const sm_model *model, int *n) {
    int n_tensors = sm_model_get_info(model)->n_tensors, i, untied = 0;
    bench_span *spans = (bench_span *)bench_alloc((size_t)n_tensors * sizeof *spans);
    sm_tensor t;
    for (i = 0; i < n_tensors; i++)
        if (!sm_model_tensor(model, i, &t) && !strcmp(t.name, "output.weight")) untied = 1;
    for (i = *n = 0; i < n_tensors; i++) {
        if (sm_model_tensor(model, i, &t) || !t.data) continue;
        if (untied && !strcmp(t.name, "token_embd.weight")) continue;
        if (!strcmp(t.name, "position_embd.weight")) continue;
        spans[*n].data = (const unsigned char *)t.data;
        spans[(*n)++].bytes = t.bytes;
    }
    return spans;
}

/* Tokens and readings of the same weights by the same number of threads, in turn: what slows the
 * machine for a while slows both of a pair. */
static sm_status measure_pairs(const options *o, sm_ctx *ctx, const bench_span *spans, int n,
                               result *r) {
    double share[MAX_REPS], gbs[MAX_REPS];
    int i, threads = sm_ctx_get_stats(ctx).plan.n_threads;
    double bytes = (double)sm_model_get_info(sm_ctx_model(ctx))->decode_bytes * 1e-9;
    options one = *o;
    one.decode = 1;
    for (i = 0; i < o->pairs; i++) {
        double start = bench_now(), seconds;
        sm_status status = decode(&one, ctx, 1);
        if (status) return status;
        seconds = bench_now() - start;
        bench_sleep(0.002); /* until the context's threads sleep */
        gbs[i] = bytes / bench_read_once(spans, n, threads, r->read_kind);
        share[i] = bytes / seconds / gbs[i];
    }
    r->pair_share = bench_median(share, o->pairs);
    r->pair_gbs = bench_median(gbs, o->pairs);
    return SM_OK;
}

/* The rate at which the weights can be read at all. */
static sm_status measure_reading(const options *o, sm_ctx *ctx, result *r) {
    int n, threads = sm_ctx_get_stats(ctx).plan.n_threads;
    bench_span *spans = weights_of(sm_ctx_model(ctx), &n);
    sm_status status = SM_OK;
    r->read_gbs = bench_read_rate(spans, n, threads, &r->read_kind);
    if (o->pairs) status = measure_pairs(o, ctx, spans, n, r);
    free(spans);
    return status;
}

static double rate(int tokens, double seconds) { return seconds > 0.0 ? tokens / seconds : 0.0; }

static void print_text(const options *o, const sm_model_info *m, const sm_plan *plan,
                       const result *r) {
    const sm_type_info *type = sm_type_get_info(m->type);
    double weight_gbs = (double)m->decode_bytes * 1e-9 * rate(o->decode, r->decode_s[0]);
    say(stdout, "model    %s %s %s, %.1f M parameters, %.2f MB of weights a token\n", o->model,
        m->arch, type ? type->name : "?", (double)m->n_params * 1e-6,
        (double)m->decode_bytes * 1e-6);
    say(stdout, "run      kernels %s, %d threads, keys %s, values %s, context %.2f MB\n",
        sm_isa_name(plan->isa), plan->n_threads, type_name(plan->key_type),
        type_name(plan->value_type), (double)plan->total_bytes * 1e-6);
    say(stdout, "load     %.2f ms, context %.2f ms, RSS %.1f MB\n", r->load_s * 1e3, r->ctx_s * 1e3,
        r->rss_mb);
    if (o->prompt)
        say(stdout, "prompt   %d tokens, %.1f tok/s (median %.1f), cold first token %.2f ms\n",
            o->prompt, rate(o->prompt, r->prompt_s[0]), rate(o->prompt, r->prompt_median),
            r->first_token_s * 1e3);
    if (!o->decode) return;
    say(stdout, "decode   %d tokens, %.2f tok/s (median %.2f), %.3f ms a token\n", o->decode,
        rate(o->decode * o->seqs, r->decode_s[0]), rate(o->decode * o->seqs, r->decode_median),
        r->decode_s[0] * 1e3 / o->decode);
    say(stdout, "weights  %.2f GB/s; reading alone reaches %.2f GB/s (%s): %.0f %% of it\n",
        weight_gbs, r->read_gbs, bench_read_kinds[r->read_kind].name,
        weight_gbs / (r->read_gbs + 1e-9) * 100.0);
    if (o->pairs)
        say(stdout, "pairs    %d tokens, each beside a reading (median %.2f GB/s): %.0f %% of it\n",
            o->pairs, r->pair_gbs, r->pair_share * 100.0);
    if (r->heap_calls < 0.0) say(stdout, "heap     calls are not counted on this system\n");
    else say(stdout, "heap     %.3f calls a decoded token\n", r->heap_calls);
}

static void print_json(const options *o, const sm_model_info *m, const sm_plan *plan,
                       const result *r) {
    const char *slash = strrchr(o->model, '/');
    const sm_type_info *type = sm_type_get_info(m->type);
    say(stdout,
        "{\"engine\":\"smallmind\",\"model\":\"%s\",\"arch\":\"%s\",\"type\":\"%s\","
        "\"threads\":%d,\"seqs\":%d,\"isa\":\"%s\",\"keys\":\"%s\",\"values\":\"%s\",",
        slash ? slash + 1 : o->model, m->arch, type ? type->name : "?", plan->n_threads,
        o->seqs, sm_isa_name(plan->isa), type_name(plan->key_type), type_name(plan->value_type));
    say(stdout,
        "\"pp\":%d,\"pp_tok_s\":%.1f,\"pp_tok_s_median\":%.1f,\"tg\":%d,\"tg_tok_s\":%.2f,"
        "\"tg_tok_s_median\":%.2f,",
        o->prompt, rate(o->prompt, r->prompt_s[0]), rate(o->prompt, r->prompt_median), o->decode,
        rate(o->decode * o->seqs, r->decode_s[0]), rate(o->decode * o->seqs, r->decode_median));
    say(stdout,
        "\"load_ms\":%.3f,\"ctx_ms\":%.3f,\"first_token_ms\":%.3f,\"rss_mb\":%.1f,"
        "\"ctx_bytes\":%llu,",
        r->load_s * 1e3, r->ctx_s * 1e3, r->first_token_s * 1e3, r->rss_mb,
        (unsigned long long)plan->total_bytes);
    say(stdout,
        "\"decode_bytes\":%llu,\"weight_gb_s\":%.3f,\"read_gb_s\":%.3f,\"read_loop\":\"%s\","
        "\"pairs\":%d,\"pair_gb_s\":%.3f,\"pair_share\":%.3f,"
        "\"heap_calls_per_token\":%.3f,\"compiler\":\"%s\"}\n",
        (unsigned long long)m->decode_bytes,
        (double)m->decode_bytes * 1e-9 * rate(o->decode, r->decode_s[0]), r->read_gbs,
        bench_read_kinds[r->read_kind].name, o->pairs, r->pair_gbs, r->pair_share, r->heap_calls,
        COMPILER);
}

/* With an open model: the context, the runs, the figures. */
static int run(const options *o, const sm_model *model, sm_ctx_params cp, result *r) {
    const sm_model_info *info = sm_model_get_info(model);
    int32_t *ids = (int32_t *)bench_alloc(((size_t)o->prompt + 1) * sizeof *ids);
    uint32_t state = 12345;
    sm_ctx *ctx = NULL;
    sm_error error;
    sm_plan plan;
    double start = bench_now();
    int i, failed = 1;
    for (i = 0; i < o->prompt; i++) ids[i] = (int32_t)(bench_lcg(&state) % (uint32_t)info->n_vocab);
    cp.n_ctx = o->prompt + o->decode + o->pairs + 8;
    cp.n_seqs = cp.max_logits = o->seqs;
    cp.profile = o->profile;
    if (make_ctx(o, model, &cp, &ctx, &error)) {
        say(stderr, "bench_model: %s\n", error.text);
    } else {
        r->ctx_s = bench_now() - start;
        plan = sm_ctx_get_stats(ctx).plan;
        if (measure(o, ctx, ids, r) || measure_reading(o, ctx, r)) {
            say(stderr, "bench_model: %s\n", sm_ctx_error(ctx));
        } else {
            (o->json ? print_json : print_text)(o, info, &plan, r);
            profile_print("prompt", &r->prompt_steps, o->prompt * o->reps);
            profile_print("decode", &r->decode_steps, o->decode * o->reps);
            failed = 0;
        }
    }
    sm_ctx_destroy(ctx);
    free(ids);
    return failed;
}

int main(int argc, char **argv) {
    static result r; /* large */
    options o = parse(argc, argv);
    sm_model_params mp = sm_model_default();
    sm_ctx_params cp = sm_ctx_default();
    sm_model *model = NULL;
    sm_error error;
    double start = bench_now();
    int failed;
    mp.file.path = o.model;
    cp.n_threads = o.threads;
    cp.isa = o.isa;
    cp.amx = 1;
    cp.key_type = o.kv.key_type;
    cp.value_type = o.kv.value_type;
    cp.n_batch = o.batch;
    if (sm_model_open(&mp, &model, &error) ||
        (o.lora && open_lora(model, o.lora, &o.adapter, &o.share, &cp, &error))) {
        say(stderr, "bench_model: %s\n", error.text);
        sm_model_close(model);
        return 1;
    }
    r.load_s = bench_now() - start;
    failed = o.ids ? write_logits(&o, model, cp) : run(&o, model, cp, &r);
    sm_adapter_close(o.adapter);
    sm_model_close(model);
    return failed;
}
