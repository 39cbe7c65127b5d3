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
    "  --kv TYPE     of the cache: f16 (default) f32 bf16 q8_0 q4_0, or two: KEYS,VALUES\n"
    "  --isa LEVEL   auto scalar sse41 avx2 avx512 amx neon\n";
#include "common.h"
#include <math.h>

static int window, most = 1 << 30, n_counted;
static double sum, squares; /* of -ln p */

static void fail(const char *why) {
    say(stderr, "perplexity: %s\n", why);
    exit(1);
}

static void parse(int argc, char **argv, sm_model_params *mp, sm_ctx_params *cp,
                  const char **text) {
    int i;
    for (i = 1; i < argc; i++) {
        const char *a = argv[i];
        if (!strcmp(a, "-m")) mp->file.path = arg_text(argc, argv, &i);
        else if (!strcmp(a, "-f")) *text = arg_text(argc, argv, &i);
        else if (!strcmp(a, "-c")) window = arg_int(argc, argv, &i, 4, 1 << 20);
        else if (!strcmp(a, "-n")) most = arg_int(argc, argv, &i, 1, 1 << 30);
        else if (!strcmp(a, "-t")) cp->n_threads = arg_int(argc, argv, &i, 0, 256);
        else if (!strcmp(a, "--kv")) arg_kv(argc, argv, &i, cp);
        else if (!strcmp(a, "--isa")) cp->isa = arg_isa(argc, argv, &i);
        else arg_fail("what is \"%s\"?", a);
    }
    if (!mp->file.path || !*text) arg_fail("-m and -f are needed");
}

/* Counts -ln p of id under the softmax of the logits. */
static void count(const float *logits, int n, int32_t id) {
    double largest = (double)logits[0], all = 0.0, x;
    int i;
    for (i = 1; i < n; i++) largest = fmax(largest, (double)logits[i]);
    for (i = 0; i < n; i++) all += exp((double)logits[i] - largest);
    x = log(all) + largest - (double)logits[id];
    sum += x, squares += x * x, n_counted++;
}

static void count_windows(sm_ctx *ctx, int32_t *ids, int n_windows, const int32_t *bos) {
    int n_vocab = sm_model_get_info(sm_ctx_model(ctx))->n_vocab, w, i, terminal = isatty(2);
    uint8_t *want = (uint8_t *)calloc((size_t)window, 1); /* of the ids before those that count */
    sm_batch batch;
    if (!want) fail("no memory");
    memset(&batch, 0, sizeof batch);
    for (i = window / 2; i < window - 1; i++) want[i] = 1;
    for (w = 0; w < n_windows; w++, ids += window) {
        if (bos) ids[0] = *bos;
        batch.n = window, batch.tokens = ids, batch.want = want;
        if (sm_seq_release(ctx, 0) || sm_eval(ctx, &batch)) fail(sm_ctx_error(ctx));
        for (i = window / 2; i < window - 1; i++) count(sm_logits(ctx, i), n_vocab, ids[i + 1]);
        if (terminal || w % 50 == 49)
            say(stderr, "%swindow %d of %d  %.4f%s", terminal ? "\r" : "", w + 1, n_windows,
                exp(sum / n_counted), terminal && w + 1 < n_windows ? "  " : "\n");
    }
    free(want);
}

int main(int argc, char **argv) {
    sm_model_params mp = sm_model_default();
    sm_ctx_params cp = sm_ctx_default();
    const char *path = NULL;
    sm_model *model = NULL;
    sm_tokenizer *tokenizer = NULL;
    sm_ctx *ctx = NULL;
    sm_error error;
    char *text;
    int32_t *ids = NULL, bos;
    int n = 0, n_bos = 0, longest;
    size_t bytes;
    double mean, spread;
    parse(argc, argv, &mp, &cp, &path);
    text = read_file(path, &bytes);
    if (!text || bytes > 1u << 28) fail(text ? "the text is too large" : "the text cannot be read");
    if (sm_model_open(&mp, &model, &error)) fail(error.text);
    longest = sm_model_get_info(model)->n_ctx_train;
    if (!window) window = longest > 4 && longest < 512 ? longest : 512;
    ids = (int32_t *)malloc((3 * bytes + 3) * sizeof *ids);
    if (!ids) fail("no memory");
    if (sm_tokenizer_create(model, bytes, NULL, &tokenizer, &error)) fail(error.text);
    sm_tokenize(tokenizer, "", 0, SM_TEXT_BOS, &bos, 1, &n_bos);
    sm_tokenize(tokenizer, text, bytes, SM_TEXT_BOS, ids, (int)(3 * bytes + 3), &n);
    if (n < window) fail("the text has fewer ids than a window");
    cp.n_ctx = cp.n_batch = window;
    cp.max_logits = window - 1 - window / 2;
    if (sm_ctx_create(model, &cp, &ctx, &error)) fail(error.text);
    count_windows(ctx, ids, n / window < most ? n / window : most, n_bos ? &bos : NULL);
    mean = sum / n_counted, spread = fmax(0.0, squares / n_counted - mean * mean);
    say(stdout, "perplexity %.6f +/- %.6f  (%d ids, windows of %d)\n", exp(mean),
        n_counted > 1 ? sqrt(spread / (n_counted - 1)) * exp(mean) : 0.0, n_counted, window);
    sm_ctx_destroy(ctx);
    sm_tokenizer_destroy(tokenizer);
    sm_model_close(model);
    free(ids);
    free(text);
    return 0;
}
