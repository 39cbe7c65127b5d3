/* grammar_peer.c - our masks beside llama.cpp's, by its library, which is opened at run time:
 * random texts under grammars, a token at a time, and before each of them which tokens may come.
 * Compared are tokens that say whole characters, and ends. The peer takes control tokens for their
 * names, and with bytes that are a part of a character, which it reads as a range, it is not exact.
 * Run by grammar_peer.sh.
 *
 *     PEER=folder of libllama ./grammar_peer VOCABULARY.gguf FILE.gbnf... */
#define SMALLMIND_IMPLEMENTATION
#include "../smallmind.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct token_data {
    int32_t id;
    float logit, p;
} token_data;

typedef struct token_array {
    token_data *data;
    size_t size;
    int64_t selected;
    uint8_t sorted;
} token_array;

typedef struct blob { /* parameters of a model, passed through as they come */
    unsigned char bytes[1024];
} blob;

static struct {
    void *(*grammar)(const void *vocab, const char *text, const char *root);
    void (*apply)(void *, token_array *), (*accept)(void *, int32_t), (*free)(void *);
    const void *vocab;
} peer;

static int passed, failed;

static uint64_t state = 1;
static int below(int n) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (int)((state >> 33) % (uint64_t)n);
}

static void quiet(int level, const char *text, void *user) { (void)level, (void)text, (void)user; }

static void *library(const char *folder, const char *name) {
    char path[4096];
    void *p;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    p = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
    if (!p) fprintf(stderr, "grammar_peer: %s\n", dlerror()), exit(2);
    return p;
}

/* A function pointer from dlsym, in the way that POSIX wants it. */
static void take(void *from, const char *name, void *target) {
    void *p = dlsym(from, name);
    if (!p) fprintf(stderr, "grammar_peer: the library has no %s\n", name), exit(2);
    memcpy(target, &p, sizeof p);
}

static void peer_open(const char *folder, const char *file) {
    void (*log_set)(void (*)(int, const char *, void *), void *);
    blob (*defaults)(void), params;
    void *(*load)(const char *, blob), *llama, *model;
    const void *(*get_vocab)(void *);
    int i = 64;
    library(folder, "libggml-base.so");
    library(folder, "libggml.v0.5.0.so");
    llama = library(folder, "libllama.v0.5.0.so");
    take(llama, "llama_sampler_init_grammar", &peer.grammar);
    take(llama, "llama_sampler_apply", &peer.apply);
    take(llama, "llama_sampler_accept", &peer.accept);
    take(llama, "llama_sampler_free", &peer.free);
    take(llama, "llama_log_set", &log_set);
    take(llama, "llama_model_default_params", &defaults);
    take(llama, "llama_model_load_from_file", &load);
    take(llama, "llama_model_get_vocab", &get_vocab);
    log_set(quiet, NULL);
    params = defaults();
    while (i < 96 && (params.bytes[i] || !(params.bytes[i + 1] | params.bytes[i + 2]))) i += 8;
    params.bytes[i] = 1; /* vocab_only, the first of the switches, of which one is on */
    model = load(file, params);
    if (!model) fprintf(stderr, "grammar_peer: llama.cpp does not open %s\n", file), exit(2);
    peer.vocab = get_vocab(model);
}

/* Whether a token says whole characters, none of them zero. */
static int whole(const char *text, size_t n) {
    uint32_t code;
    size_t at;
    int length = 1;
    for (at = 0; at < n && length > 0; at += (size_t)length) {
        length = sm__utf8_read((const unsigned char *)text + at, n - at, &code);
        if (!code) return 0;
    }
    return at == n && length > 0;
}

/* One random text. */
static void one_text(const sm_trie *t, sm_matcher *m, const sm_grammar *g, const char *name,
                    const char *text, token_data *data, uint32_t *mask) {
    void *theirs = peer.grammar(peer.vocab, text, "root");
    int turn, i, pick, seen;
    if (!theirs || sm_matcher_start(m, g) != SM_OK) {
        printf("%s: not read, or too large\n", name);
        failed++;
        return;
    }
    for (turn = 0; turn < 30; turn++) {
        token_array a = {data, (size_t)t->n_vocab, -1, 0};
        int differ = 0;
        for (i = 0; i < t->n_vocab; i++) data[i].id = i, data[i].logit = data[i].p = 0;
        peer.apply(theirs, &a);
        if (sm_matcher_mask(m, mask) != SM_OK) differ++;
        for (i = 0, pick = -1, seen = 0; i < t->n_vocab; i++) {
            size_t bytes;
            int ours = (int)(mask[i >> 5] >> (i & 31) & 1), their = data[i].logit == 0.0f;
            const char *s = sm__token_says(t->model, i, &bytes);
            if (s ? !whole(s, bytes) : !sm_token_is_end(t->model, i)) continue;
            if (ours != their && differ++ < 3)
                printf("%s: token %d \"%.*s\" at %d: %d, by the peer %d\n", name, i, (int)bytes,
                       s ? s : "", turn, ours, their);
            if (ours && their && s && below(++seen) == 0) pick = i;
        }
        if (differ) failed++;
        else passed++;
        if (pick < 0) break;
        peer.accept(theirs, pick);
        if (sm_matcher_accept(m, pick) != SM_OK) failed++;
    }
    peer.free(theirs);
}

int main(int argc, char **argv) {
    const char *folder = getenv("PEER");
    sm_model_params mp = sm_model_default();
    sm_model *model;
    sm_trie *trie;
    sm_error error;
    size_t room = (size_t)16 << 20;
    sm_matcher *matcher;
    token_data *data;
    uint32_t *mask;
    int i, k;
    if (argc < 3 || !folder) return fprintf(stderr, "usage: PEER=folder grammar_peer V G...\n"), 2;
    mp.file.path = argv[1];
    mp.vocab_only = 1;
    if (sm_model_open(&mp, &model, &error) || sm_trie_create(model, NULL, &trie, &error))
        return fprintf(stderr, "%s\n", error.text), 2;
    peer_open(folder, argv[1]);
    data = (token_data *)malloc((size_t)trie->n_vocab * sizeof *data);
    mask = (uint32_t *)malloc((size_t)trie->n_words * sizeof *mask);
    matcher = sm_matcher_init(malloc(room), room, trie);
    for (i = 2; i < argc; i++) {
        static char text[1 << 16];
        FILE *f = fopen(argv[i], "rb");
        sm_grammar_params p = sm_grammar_default();
        sm_grammar *g = NULL;
        if (!f) return fprintf(stderr, "cannot read %s\n", argv[i]), 2;
        text[fread(text, 1, sizeof text - 1, f)] = 0;
        fclose(f);
        p.text = text;
        p.model = model;
        if (sm_grammar_create(&p, &g, &error)) {
            printf("%s: %s\n", argv[i], error.text);
            failed++;
            continue;
        }
        for (k = 0; k < 2; k++) one_text(trie, matcher, g, argv[i], text, data, mask);
        sm_grammar_destroy(g);
    }
    printf("%d passed, %d failed, 0 skipped\n", passed, failed);
    return failed > 0;
}
