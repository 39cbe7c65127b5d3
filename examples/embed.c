/* embed.c - embeddings of texts, or how alike the texts are.
 *
 *     cc -O2 examples/embed.c -o embed -lpthread
 *     printf 'a cat\na kitten\na stock exchange\n' | ./embed -m model.gguf --similar
 *
 * Every line of the file (or of stdin) is a text; empty lines are skipped. A vector a line goes to
 * stdout, or the matrix of cosines; progress goes to stderr. */
static const char usage[] =
    "usage: embed -m MODEL [options] [FILE]\n"
    "  -m FILE        the model (.gguf): an encoder, or any other\n"
    "  --pool P       mean, cls (the first token's) or last; without: as the model's file says,\n"
    "                 or mean\n"
    "  --similar      cosines of all pairs of texts, not vectors\n"
    "  --raw          vectors as they are, not of length 1\n"
    "  --threads T    0 = all processors (0)    --isa LEVEL  scalar sse41 avx2 avx512 amx neon\n";
#include "common.h"

typedef struct options {
    const char *model, *file;
    int pooling, similar, raw, threads, isa;
} options;

static int arg_pooling(const char *text) {
    if (!strcmp(text, "mean")) return SM_POOLING_MEAN;
    if (!strcmp(text, "cls")) return SM_POOLING_CLS;
    if (strcmp(text, "last")) arg_fail("--pool wants mean, cls or last, not \"%s\"", text);
    return SM_POOLING_LAST;
}

static options parse(int argc, char **argv) {
    options o;
    int i;
    memset(&o, 0, sizeof o);
    for (i = 1; i < argc; i++) {
        const char *a = argv[i];
        if (!strcmp(a, "-m")) o.model = arg_text(argc, argv, &i);
        else if (!strcmp(a, "--pool")) o.pooling = arg_pooling(arg_text(argc, argv, &i));
        else if (!strcmp(a, "--similar")) o.similar = 1;
        else if (!strcmp(a, "--raw")) o.raw = 1;
        else if (!strcmp(a, "--threads")) o.threads = arg_int(argc, argv, &i, 0, 256);
        else if (!strcmp(a, "--isa")) o.isa = arg_isa(argc, argv, &i);
        else if (*a != '-' && !o.file) o.file = a;
        else arg_fail("what is \"%s\"?", a);
    }
    if (!o.model) arg_fail("-m MODEL is missing");
    return o;
}

/* The embedding of a text in x [n_embd]; 0 = it failed, after a message. */
static int embed(sm_ctx *ctx, const char *text, int32_t *ids, int max, float *x) {
    sm_batch batch;
    const float *row;
    sm_status status;
    memset(&batch, 0, sizeof batch);
    status = sm_tokenize(sm_ctx_tokenizer(ctx), text, strlen(text), SM_TEXT_BOS, ids, max,
                         &batch.n);
    if (status || !batch.n) {
        say(stderr, "\nembed: %d ids, at most %d are taken: %.60s\n", batch.n, max, text);
        return 0;
    }
    batch.tokens = ids;
    if (sm_seq_release(ctx, 0) || sm_eval(ctx, &batch) || (row = sm_embedding(ctx, 0)) == NULL) {
        say(stderr, "\nembed: %s\n", sm_ctx_error(ctx));
        return 0;
    }
    memcpy(x, row, (size_t)sm_model_get_info(sm_ctx_model(ctx))->n_embd * sizeof *x);
    return 1;
}

static void print(const options *o, const float *all, int n, int c) {
    int i, j, k;
    for (i = 0; i < n; i++)
        for (j = 0; j < (o->similar ? n : c); j++) {
            double value = o->similar ? 0.0 : (double)all[i * c + j];
            for (k = 0; k < c && o->similar; k++)
                value += (double)all[i * c + k] * (double)all[j * c + k];
            say(stdout, o->similar ? "%s%7.4f%s" : "%s%.7g%s", j ? " " : "", value,
                j + 1 == (o->similar ? n : c) ? "\n" : "");
        }
}

int main(int argc, char **argv) {
    options o = parse(argc, argv);
    FILE *file = o.file ? fopen(o.file, "r") : stdin;
    sm_model_params mp = sm_model_default();
    sm_ctx_params cp = sm_ctx_default();
    sm_model *model = NULL;
    sm_ctx *ctx = NULL;
    sm_error error;
    static char line[65536]; /* large */
    float *all = NULL;
    int32_t *ids = NULL;
    int n = 0, room = 0, good = 1, c, max;
    if (!file) arg_fail("cannot open %s: %s", o.file, strerror(errno));
    mp.file.path = o.model;
    cp.n_threads = o.threads, cp.isa = o.isa, cp.amx = 1;
    cp.normalize = !o.raw || o.similar;
    if (sm_model_open(&mp, &model, &error)) return say(stderr, "embed: %s\n", error.text), 1;
    cp.embeddings = o.pooling ? o.pooling : sm_model_get_info(model)->pooling;
    if (cp.embeddings <= SM_POOLING_NONE) cp.embeddings = SM_POOLING_MEAN;
    if (sm_ctx_create(model, &cp, &ctx, &error) || !sm_ctx_tokenizer(ctx))
        return say(stderr, "embed: %s\n", ctx ? "no vocabulary" : error.text), 1;
    c = sm_model_get_info(model)->n_embd;
    max = sm_ctx_get_stats(ctx).plan.n_ctx;
    ids = (int32_t *)malloc((size_t)max * sizeof *ids);
    while (good && ids && fgets(line, sizeof line, file)) {
        line[strcspn(line, "\r\n")] = 0;
        if (!*line) continue;
        if (n == room) all = (float *)realloc(all, (size_t)(room += 256 + room) * (size_t)c * 4);
        good = all && embed(ctx, line, ids, max, all + (size_t)n * (size_t)c);
        if (good && ++n % 50 == 0) say(stderr, "\r%d texts", n);
    }
    if (n >= 50) say(stderr, "\n");
    if (good) print(&o, all, n, c);
    free(all);
    free(ids);
    sm_ctx_destroy(ctx);
    sm_model_close(model);
    return !good;
}
