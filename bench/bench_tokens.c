/* bench_tokens.c - text to ids, in MB a second on one thread: ours, and llama.cpp's beside it when
 * PEER names the folder of its libraries, on the same vocabulary, alternating, the best of several.
 *
 *     cc -O2 bench/bench_tokens.c -o bench_tokens -lpthread -ldl
 *     PEER=folder ./bench_tokens -m vocabulary.gguf -f text.txt
 *
 * A tokenizer that has seen no text before is made for each run: what it remembers of words, it
 * learns while the clock runs. See bench/tokens_peer.sh for tiktoken. */
static const char usage[] = "usage: bench_tokens -m FILE -f TEXT [options]\n"
                            "  -m FILE     GGUF, tokenizer.json or .tiktoken\n"
                            "  -p PRE      how text is cut into words, for .tiktoken\n"
                            "  -r N        runs (7)\n";
#include "bench.h"

#include <dlfcn.h>
#include <stdbool.h>

typedef struct params_blob { /* llama.cpp's parameters by value: more room than they take */
    unsigned char bytes[1024];
} params_blob;

typedef struct peer {
    void *vocab;
    int32_t (*tokenize)(const void *vocab, const char *text, int32_t n, int32_t *ids, int32_t max,
                        bool special, bool parse);
} peer;

static void quiet(int level, const char *text, void *user) { (void)level, (void)text, (void)user; }

static void *peer_open(const char *folder, const char *name) {
    char path[4096];
    void *library;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    library = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
    if (!library) arg_fail("%s", dlerror());
    return library;
}

/* The vocabulary of a GGUF file in llama.cpp. */
static peer peer_load(const char *folder, const char *file) {
    union {
        void *object;
        void (*log)(void (*fn)(int, const char *, void *), void *user);
        params_blob (*defaults)(void);
        void *(*load)(const char *path, params_blob params);
        void *(*vocab)(void *model);
        int32_t (*tokenize)(const void *, const char *, int32_t, int32_t *, int32_t, bool, bool);
    } f;
    params_blob params;
    void *library, *model;
    peer p;
    int i = 64;
    peer_open(folder, "libggml-base.so");
    peer_open(folder, "libggml.v0.5.0.so");
    library = peer_open(folder, "libllama.v0.5.0.so");
    f.object = dlsym(library, "llama_log_set");
    f.log(quiet, NULL);
    f.object = dlsym(library, "llama_model_default_params");
    params = f.defaults();
    while (i < 96 && (params.bytes[i] || !(params.bytes[i + 1] | params.bytes[i + 2]))) i += 8;
    params.bytes[i] = 1; /* vocab_only, the first of the switches, of which one is on */
    f.object = dlsym(library, "llama_model_load_from_file");
    model = f.load(file, params);
    if (!model) arg_fail("llama.cpp does not open %s", file);
    f.object = dlsym(library, "llama_model_get_vocab");
    p.vocab = f.vocab(model);
    f.object = dlsym(library, "llama_tokenize");
    p.tokenize = f.tokenize;
    return p;
}

static char *text_read(const char *name, size_t *n) {
    FILE *file = fopen(name, "rb");
    char *text = (char *)bench_alloc(64u << 20);
    if (!file) arg_fail("%s cannot be opened", name);
    *n = fread(text, 1, 64u << 20, file);
    fclose(file);
    return text;
}

static const char *base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

int main(int argc, char **argv) {
    const char *model = NULL, *name = NULL, *folder = getenv("PEER");
    sm_model_params mp = sm_model_default();
    sm_model *m = NULL;
    sm_error error;
    double ours = 1e30, theirs = 1e30;
    int i, runs = 7, n_ids = 0, n_peer = 0, n_same = 0;
    int32_t *ids, *peers;
    char *text;
    size_t n;
    peer p;
    memset(&p, 0, sizeof p);
    for (i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "-m")) model = arg_text(argc, argv, &i);
        else if (!strcmp(argv[i], "-f")) name = arg_text(argc, argv, &i);
        else if (!strcmp(argv[i], "-p")) mp.pre = arg_text(argc, argv, &i);
        else if (!strcmp(argv[i], "-r")) runs = arg_int(argc, argv, &i, 1, 1000);
        else arg_fail("what is \"%s\"?", argv[i]);
    }
    if (!model || !name) arg_fail("which vocabulary, and which text?");
    if (strstr(model, ".gguf")) mp.file.path = model;
    else mp.tokenizer.path = model;
    mp.vocab_only = 1;
    if (sm_model_open(&mp, &m, &error)) arg_fail("%s", error.text);
    if (folder && mp.file.path) p = peer_load(folder, model);
    text = text_read(name, &n);
    ids = (int32_t *)bench_alloc((3 * n + 3) * sizeof *ids);
    peers = (int32_t *)bench_alloc((3 * n + 3) * sizeof *peers);
    for (i = 0; i < runs; i++) {
        sm_tokenizer *t = NULL;
        double t0;
        if (sm_tokenizer_create(m, n, NULL, &t, &error)) arg_fail("%s", error.text);
        t0 = bench_now();
        if (sm_tokenize(t, text, n, 0, ids, (int)(3 * n + 3), &n_ids)) arg_fail("no room");
        ours = bench_now() - t0 < ours ? bench_now() - t0 : ours;
        sm_tokenizer_destroy(t);
        if (!p.tokenize) continue;
        t0 = bench_now();
        n_peer = p.tokenize(p.vocab, text, (int32_t)n, peers, (int32_t)(3 * n + 3), 0, 0);
        theirs = bench_now() - t0 < theirs ? bench_now() - t0 : theirs;
    }
    while (n_same < n_ids && n_same < n_peer && ids[n_same] == peers[n_same]) n_same++;
    say(stdout, "%-28s %-22s %8d ids  ours %7.2f MB/s", base_name(model), base_name(name), n_ids,
        1e-6 * (double)n / ours);
    if (p.tokenize)
        say(stdout, "  llama.cpp %6.2f  ratio %5.1f  ids %s", 1e-6 * (double)n / theirs,
            theirs / ours, n_same == n_ids && n_ids == n_peer ? "equal" : "DIFFER");
    say(stdout, "\n");
    sm_model_close(m);
    return 0;
}
