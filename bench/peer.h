/* peer.h - what bench_sample.c, bench_tokens.c, tests/sampler_peer.c and tests/grammar_peer.c call
 * of llama.cpp: its library is opened at run time, so nothing of it is needed to build them. POSIX,
 * with -ldl. */
#ifndef PEER_H
#define PEER_H

#include <dlfcn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct peer_token { /* llama_token_data */
    int32_t id;
    float logit, p;
} peer_token;

typedef struct peer_tokens { /* llama_token_data_array */
    peer_token *data;
    size_t size;
    int64_t selected;
    uint8_t sorted;
} peer_tokens;

typedef struct peer_params { /* llama_model_params, by value: more room than they take */
    unsigned char bytes[1024];
} peer_params;

typedef void (*peer_log)(int level, const char *text, void *user);

/* Result, name here, name behind llama_, arguments. Samplers, vocabularies and models are void;
 * biases have the layout of sm_bias. */
#define PEER_LIST(X)                                                                               \
    X(void, log_set, "log_set", (peer_log, void *))                                                \
    X(peer_params, defaults, "model_default_params", (void))                                       \
    X(void *, load, "model_load_from_file", (const char *, peer_params))                           \
    X(void *, get_vocab, "model_get_vocab", (void *))                                              \
    X(int32_t, tokenize, "tokenize",                                                               \
      (const void *, const char *, int32_t, int32_t *, int32_t, bool, bool))                       \
    X(void *, chain_init, "sampler_chain_init", (bool))                                            \
    X(void, chain_add, "sampler_chain_add", (void *, void *))                                      \
    X(void, accept, "sampler_accept", (void *, int32_t))                                           \
    X(void, apply, "sampler_apply", (void *, peer_tokens *))                                       \
    X(void, free, "sampler_free", (void *))                                                        \
    X(void *, greedy, "sampler_init_greedy", (void))                                               \
    X(void *, dist, "sampler_init_dist", (uint32_t))                                               \
    X(void *, top_k, "sampler_init_top_k", (int32_t))                                              \
    X(void *, top_p, "sampler_init_top_p", (float, size_t))                                        \
    X(void *, min_p, "sampler_init_min_p", (float, size_t))                                        \
    X(void *, typical, "sampler_init_typical", (float, size_t))                                    \
    X(void *, temp_ext, "sampler_init_temp_ext", (float, float, float))                            \
    X(void *, xtc, "sampler_init_xtc", (float, float, size_t, uint32_t))                           \
    X(void *, top_n_sigma, "sampler_init_top_n_sigma", (float))                                    \
    X(void *, mirostat, "sampler_init_mirostat", (int32_t, uint32_t, float, float, int32_t))       \
    X(void *, mirostat_v2, "sampler_init_mirostat_v2", (uint32_t, float, float))                   \
    X(void *, penalties, "sampler_init_penalties", (int32_t, int32_t, float, float, float))        \
    X(void *, dry, "sampler_init_dry",                                                             \
      (const void *, float, float, int32_t, int32_t, const char **, size_t))                       \
    X(void *, logit_bias, "sampler_init_logit_bias", (int32_t, int32_t, const void *))             \
    X(void *, grammar, "sampler_init_grammar", (const void *, const char *, const char *))

#define PEER_MEMBER(result, member, name, arguments) result(*member) arguments;
static struct {
    PEER_LIST(PEER_MEMBER)
} peer;
#undef PEER_MEMBER

static void peer_quiet(int level, const char *text, void *user) {
    (void)level, (void)text, (void)user;
}

/* Opens the libraries in the folder PEER, or where bench-peer puts them. Returns 1, or 0 and what
 * was wrong in why [n]. */
static int peer_open(char *why, size_t n) {
    static const char *const names[] = {"libggml-base.so", "libggml.v0.5.0.so",
                                        "libllama.v0.5.0.so"};
    const char *folder = getenv("PEER");
    void *library = NULL, *p;
    size_t i;
    if (!folder) folder = "build/peer/node_modules/@node-llama-cpp/linux-x64/bins/linux-x64";
    for (i = 0; i < sizeof names / sizeof *names; i++) {
        char path[4096];
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        library = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
        if (library) continue;
        snprintf(why, n, "%s", dlerror());
        return 0;
    }
/* A function pointer from dlsym, in the way that POSIX wants it. */
#define PEER_TAKE(result, member, name, arguments)                                                 \
    p = dlsym(library, "llama_" name);                                                             \
    if (!p) return snprintf(why, n, "the library has no llama_%s", name), 0;                       \
    memcpy(&peer.member, &p, sizeof p);
    PEER_LIST(PEER_TAKE)
#undef PEER_TAKE
    peer.log_set(peer_quiet, NULL);
    return 1;
}

/* The vocabulary of a GGUF file; NULL when the peer does not open it. */
static inline const void *peer_vocab(const char *file) {
    peer_params params = peer.defaults();
    void *model;
    int i = 64;
    while (i < 96 && (params.bytes[i] || !(params.bytes[i + 1] | params.bytes[i + 2]))) i += 8;
    params.bytes[i] = 1; /* vocab_only, the first of the switches, of which one is on */
    model = peer.load(file, params);
    return model ? peer.get_vocab(model) : NULL;
}

/* The candidates that all logits are, in data [n]. */
static inline peer_tokens peer_candidates(peer_token *data, const float *logits, int n) {
    peer_tokens a;
    int i;
    for (i = 0; i < n; i++) data[i].id = i, data[i].logit = logits[i], data[i].p = 0;
    a.data = data;
    a.size = (size_t)n;
    a.selected = -1;
    a.sorted = 0;
    return a;
}

#endif /* PEER_H */
