/* bench_mask.c - how long grammars take to compile and masks to make.
 *
 *     bench_mask VOCABULARY.gguf FILE.jsonl...    MaskBench: a line has a schema and instances
 *     bench_mask VOCABULARY.gguf FILE.gbnf TEXT   a grammar, and a text to say under it
 *
 * A text is given in the longest tokens that the vocabulary has for it, a mask is made before each
 * of them, and the token must be in it. Prints how many schemas compiled, what was decided wrongly,
 * and times in microseconds: median, 99 of 100, and the largest. */
static const char usage[] = "usage: bench_mask [-v] VOCABULARY.gguf FILE...\n";
#include "bench.h"

enum { MAX_TIMES = 1 << 20 };

typedef struct bench_mask {
    sm_trie *trie;
    sm_matcher *matcher;
    uint32_t *mask;
    double *masks, *compiles, *starts;
    int n_masks, n_compiles, n_starts, schemas, wrong, outside, verbose;
} bench_mask;

static int compare_times(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static void print_times(const char *name, double *t, int n) {
    if (!n) return;
    qsort(t, (size_t)n, sizeof *t, compare_times);
    say(stdout, "%s: %d, median %.1f us, 99%% %.1f us, largest %.1f us\n", name, n, t[n / 2],
        t[(size_t)n * 99 / 100], t[n - 1]);
}

/* Of this thread's own work: others may run on the machine. */
static double microseconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}

/* The longest token at the beginning of a text, or -1. */
static int32_t longest(const sm_trie *t, const char *text, size_t n) {
    const sm__trie_node *nodes = t->all.nodes;
    uint32_t at = 0, end = t->all.n;
    int32_t found = -1;
    size_t i;
    for (i = 0; i < n; i++) {
        while (at < end && nodes[at].byte != (uint8_t)text[i]) at = nodes[at].skip;
        if (at >= end) break;
        if (nodes[at].token >= 0) found = nodes[at].token;
        end = nodes[at].skip;
        at++;
    }
    return found;
}

/* 1 = the grammar takes the whole text. */
static int say_text(bench_mask *b, const sm_grammar *g, const char *text, size_t n) {
    size_t at = 0, bytes = 0;
    double start = microseconds();
    if (sm_matcher_start(b->matcher, g) != SM_OK) return -1;
    if (b->n_starts < MAX_TIMES) b->starts[b->n_starts++] = microseconds() - start;
    while (at < n) {
        int32_t id = longest(b->trie, text + at, n - at);
        sm_status status;
        start = microseconds();
        status = sm_matcher_mask(b->matcher, b->mask);
        if (b->n_masks < MAX_TIMES) b->masks[b->n_masks++] = microseconds() - start;
        if (status != SM_OK || id < 0) return -1;
        status = sm_matcher_accept(b->matcher, id);
        if ((status == SM_OK) != (int)(b->mask[id >> 5] >> (id & 31) & 1)) b->outside++;
        if (status != SM_OK) return status == SM_ERR_ARG ? 0 : -1;
        sm_token_text(b->trie->model, id, &bytes);
        at += bytes;
    }
    return sm_matcher_is_complete(b->matcher) != 0;
}

static sm_grammar *compile(bench_mask *b, int kind, const char *text, size_t n, sm_error *error) {
    sm_grammar_params p = sm_grammar_default();
    sm_grammar *g = NULL;
    double start = microseconds();
    p.kind = kind;
    p.text = text;
    p.bytes = n;
    p.max_bytes = (size_t)8 << 20;
    if (sm_grammar_create(&p, &g, error)) return NULL;
    if (b->n_compiles < MAX_TIMES) b->compiles[b->n_compiles++] = microseconds() - start;
    return g;
}

/* One value of the tests: whether it is valid, and its text. */
static void one_test(bench_mask *b, const sm_grammar *g, sm__json test, sm__str name) {
    sm__json value = test, data = test;
    int valid, found;
    if (!sm__json_find(test, "valid", &value) || !sm__json_find(test, "data", &data)) return;
    valid = sm__json_word(&value);
    sm__json_peek(&data);
    value = data;
    sm__json_skip(&value);
    found = say_text(b, g, (const char *)data.p, (size_t)(value.p - data.p));
    if (found == valid) return;
    b->wrong++;
    if (b->verbose)
        say(stdout, "%.*s: %s instance %s: %.*s\n", (int)name.n, name.p,
            valid ? "valid" : "invalid",
            found < 0 ? "out of memory" : found ? "accepted" : "refused",
            (int)(value.p - data.p < 300 ? value.p - data.p : 300), (const char *)data.p);
}

static void one_line(bench_mask *b, const char *line, size_t n) {
    sm__json root = sm__json_make(line, n), schema = root, end, tests = root;
    sm__str name = sm__json_find_string(root, "file");
    sm_grammar *g;
    sm_error error;
    if (!sm__json_find(root, "schema", &schema)) return;
    b->schemas++;
    sm__json_peek(&schema);
    end = schema;
    sm__json_skip(&end);
    g = compile(b, SM_GRAMMAR_JSON_SCHEMA, (const char *)schema.p, (size_t)(end.p - schema.p),
                &error);
    if (!g) {
        if (b->verbose) say(stdout, "%.*s: %s\n", (int)name.n, name.p, error.text);
        return;
    }
    if (sm__json_find(root, "tests", &tests) && sm__json_enter(&tests, '['))
        for (; sm__json_item(&tests); sm__json_skip(&tests)) one_test(b, g, tests, name);
    sm_grammar_destroy(g);
}

int main(int argc, char **argv) {
    static bench_mask b;
    sm_model_params mp = sm_model_default();
    sm_model *model;
    sm_error error;
    size_t bytes, room = (size_t)8 << 20;
    double start;
    int i;
    if (argc > 1 && !strcmp(argv[1], "-v")) b.verbose = 1, argc--, argv++;
    if (argc < 3) return say(stderr, "%s", usage), 2;
    mp.file.path = argv[1];
    mp.vocab_only = 1;
    start = microseconds();
    if (sm_model_open(&mp, &model, &error)) return say(stderr, "%s\n", error.text), 1;
    start = microseconds();
    if (sm_trie_create(model, NULL, &b.trie, &error)) return say(stderr, "%s\n", error.text), 1;
    say(stdout, "trie of %d tokens: %.0f us, %u nodes\n", b.trie->n_vocab, microseconds() - start,
        (unsigned)(b.trie->all.n + b.trie->rest.n));
    b.mask = (uint32_t *)malloc((size_t)b.trie->n_words * sizeof *b.mask);
    b.masks = (double *)malloc(MAX_TIMES * sizeof *b.masks);
    b.compiles = (double *)malloc(MAX_TIMES * sizeof *b.compiles);
    b.starts = (double *)malloc(MAX_TIMES * sizeof *b.starts);
    b.matcher = sm_matcher_init(malloc(room), room, b.trie);
    for (i = 2; i < argc; i++) {
        char *text = read_file(argv[i], &bytes), *line = text, *next;
        if (!text) return say(stderr, "cannot read %s\n", argv[i]), 1;
        if (strstr(argv[i], ".gbnf")) {
            sm_grammar *g = compile(&b, SM_GRAMMAR_GBNF, text, bytes, &error);
            if (!g) return say(stderr, "%s\n", error.text), 1;
            if (++i < argc)
                say(stdout, "accepted: %d\n", say_text(&b, g, argv[i], strlen(argv[i])));
            continue;
        }
        for (; (next = strchr(line, '\n')) != NULL; line = next + 1)
            one_line(&b, line, (size_t)(next - line));
        if (*line) one_line(&b, line, strlen(line));
        free(text);
    }
    say(stdout, "compiled: %d of %d schemas; decided wrongly: %d; masks that differ: %d\n",
        b.n_compiles, b.schemas, b.wrong, b.outside);
    print_times("compile", b.compiles, b.n_compiles);
    print_times("start", b.starts, b.n_starts);
    print_times("mask", b.masks, b.n_masks);
    return b.wrong != 0;
}
