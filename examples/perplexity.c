/* perplexity.c - how well a model predicts a text: exp of the mean of -ln p(token | those before).
 *
 *     cc -O2 examples/perplexity.c -o perplexity -lpthread -lm
 *     ./perplexity -m model.gguf -f wiki.test.raw
 *
 * Counted as llama.cpp's llama-perplexity does, so that figures can be compared: the text becomes
 * ids once, BOS in front if the vocabulary asks for it; windows of N ids follow each other without
 * overlap, the first id of each is replaced by that BOS; only ids behind a window's middle count,
 * and what is left behind the last whole window does not. */
static const char usage[] =
    "usage: perplexity -m MODEL -f TEXT [options]\n"
    "  -c N          ids of a window (512, or what the model holds)\n"
    "  -n N          windows at most (all)\n"
    "  -t THREADS    0 = all processors (0)\n"
    "  --kv TYPE     of the cache: f16 (default), f32 or q8_0\n"
    "  --isa LEVEL   auto scalar sse41 avx2 avx512 amx neon\n";
#include "common.h"
#include <math.h>

typedef struct options {
    const char *text;
    int window, most;
    sm_model_params mp;
    sm_ctx_params cp;
} options;

typedef struct job {
    sm_ctx *ctx;
    int n_vocab, window;
    int32_t *ids, bos; /* bos: -1 = none */
    uint8_t *want;     /* [window] 1 for the ids that the counted ones follow */
    double sum, squares; /* of -ln p */
    long n;
} job;

static options parse(int argc, char **argv) {
    options o;
    int i;
    memset(&o, 0, sizeof o);
    o.mp = sm_model_default();
    o.cp = sm_ctx_default();
    o.most = 1 << 30;
    for (i = 1; i < argc; i++) {
        const char *a = argv[i];
        if (!strcmp(a, "-m")) o.mp.file.path = arg_text(argc, argv, &i);
        else if (!strcmp(a, "-f")) o.text = arg_text(argc, argv, &i);
        else if (!strcmp(a, "-c")) o.window = arg_int(argc, argv, &i, 4, 1 << 20);
        else if (!strcmp(a, "-n")) o.most = arg_int(argc, argv, &i, 1, 1 << 30);
        else if (!strcmp(a, "-t")) o.cp.n_threads = arg_int(argc, argv, &i, 0, 256);
        else if (!strcmp(a, "--kv")) o.cp.kv_type = arg_kv(argc, argv, &i);
        else if (!strcmp(a, "--isa")) o.cp.isa = arg_isa(argc, argv, &i);
        else arg_fail("what is \"%s\"?", a);
    }
    if (!o.mp.file.path || !o.text) arg_fail("-m and -f are needed");
    return o;
}

static int fail(const char *why) {
    say(stderr, "perplexity: %s\n", why);
    return 1;
}

/* -ln p of id under the softmax of the logits. */
static double surprise(const float *logits, int n, int32_t id) {
    double most = (double)logits[0], sum = 0.0;
    int i;
    for (i = 1; i < n; i++)
        if ((double)logits[i] > most) most = (double)logits[i];
    for (i = 0; i < n; i++) sum += exp((double)logits[i] - most);
    return log(sum) + most - (double)logits[id];
}

static sm_status count_window(job *j, int32_t *ids) {
    int32_t first = ids[0];
    sm_batch batch;
    sm_status status;
    int i;
    memset(&batch, 0, sizeof batch);
    batch.n = j->window;
    batch.tokens = ids;
    batch.want = j->want;
    if (j->bos >= 0) ids[0] = j->bos;
    status = sm_seq_release(j->ctx, 0);
    if (!status) status = sm_eval(j->ctx, &batch);
    ids[0] = first;
    for (i = j->window / 2; !status && i < j->window - 1; i++) {
        double x = surprise(sm_logits(j->ctx, i), j->n_vocab, ids[i + 1]);
        j->sum += x;
        j->squares += x * x;
        j->n++;
    }
    return status;
}

/* The text as ids; how many. */
static int make_ids(job *j, const sm_model *model, const char *text, size_t bytes,
                    sm_error *error) {
    sm_tokenizer *tokenizer = NULL;
    int n = 0, n_bos = 0;
    size_t most = 2 * bytes + 2;
    if (sm_tokenizer_create(model, bytes, NULL, &tokenizer, error)) return -1;
    j->ids = most < 1u << 30 ? (int32_t *)malloc(most * sizeof *j->ids) : NULL;
    if (j->ids && !sm_tokenize(tokenizer, "", 0, SM_TEXT_BOS, j->ids, 1, &n_bos))
        j->bos = n_bos ? j->ids[0] : -1;
    if (j->ids) sm_tokenize(tokenizer, text, bytes, SM_TEXT_BOS, j->ids, (int)most, &n);
    else format(error->text, sizeof error->text, "no memory for the ids of %zu bytes", bytes);
    sm_tokenizer_destroy(tokenizer);
    return j->ids ? n : -1;
}

static int run(const options *o, job *j, const sm_model *model, const char *text, size_t bytes) {
    sm_ctx_params cp = o->cp;
    sm_error error;
    int n = make_ids(j, model, text, bytes, &error), windows, w, i, terminal = isatty(2);
    if (n < 0) return fail(error.text);
    windows = n / j->window < o->most ? n / j->window : o->most;
    if (!windows) {
        say(stderr, "perplexity: %d ids are less than one window of %d\n", n, j->window);
        return 1;
    }
    cp.n_ctx = cp.n_batch = j->window;
    cp.max_logits = j->window - 1 - j->window / 2;
    j->want = (uint8_t *)calloc((size_t)j->window, 1);
    if (!j->want) return fail("no memory");
    for (i = j->window / 2; i < j->window - 1; i++) j->want[i] = 1;
    if (sm_ctx_create(model, &cp, &j->ctx, &error)) return fail(error.text);
    for (w = 0; w < windows; w++) {
        if (count_window(j, j->ids + (size_t)w * (size_t)j->window))
            return fail(sm_ctx_error(j->ctx));
        if (terminal || w % 50 == 49)
            say(stderr, "%swindow %d of %d  %.4f%s", terminal ? "\r" : "", w + 1, windows,
                exp(j->sum / (double)j->n), terminal ? "  " : "\n");
    }
    if (terminal) say(stderr, "\n");
    return 0;
}

int main(int argc, char **argv) {
    options o = parse(argc, argv);
    sm_model *model = NULL;
    sm_error error;
    size_t bytes = 0;
    char *text = read_file(o.text, &bytes);
    int status = 1;
    job j;
    memset(&j, 0, sizeof j);
    j.bos = -1;
    if (!text) return fail("the text cannot be read");
    if (sm_model_open(&o.mp, &model, &error)) status = fail(error.text);
    else {
        const sm_model_info *info = sm_model_get_info(model);
        int most = info->n_ctx_train > 4 ? info->n_ctx_train : 512;
        j.n_vocab = info->n_vocab;
        j.window = o.window ? o.window : most < 512 ? most : 512;
        status = run(&o, &j, model, text, bytes);
    }
    if (!status) {
        double mean = j.sum / (double)j.n, spread = j.squares / (double)j.n - mean * mean;
        double error_of_it = j.n > 1 && spread > 0 ? sqrt(spread / (double)(j.n - 1)) : 0.0;
        say(stdout, "perplexity %.6f +/- %.6f  (%ld ids, windows of %d)\n", exp(mean),
            error_of_it * exp(mean), j.n, j.window);
    }
    sm_ctx_destroy(j.ctx);
    sm_model_close(model);
    free(j.want);
    free(j.ids);
    free(text);
    return status;
}
