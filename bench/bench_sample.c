/* bench_sample.c - the time from logits to an id, beside llama.cpp's chain of samplers: its library
 * is opened at run time, and the two choose in turns from the same logits. Least of many runs.
 *
 *     make build/bench_sample && build/bench_sample
 *
 * PEER=folder of libllama, when it is not where bench-peer puts it; without it our times alone. The
 * peer's time has what llama_sampler_sample does: its list of candidates is written anew. */
#ifndef _POSIX_C_SOURCE
#define _POSIX_C_SOURCE 199309L
#endif
static const char usage[] = "usage: bench_sample [-r RUNS]   (PEER=folder of libllama)\n";
#include "../examples/common.h"
#include "peer.h"
#include <time.h>

static void *peer_chain(const sm_sampler *s, int n_vocab, const int32_t *recent, int n_recent) {
    void *chain = peer.chain_init(1);
    int i;
    if (s->repeat_penalty > 0)
        peer.chain_add(chain, peer.penalties(n_vocab, 64, s->repeat_penalty, s->frequency_penalty,
                                             s->presence_penalty));
    if (s->dry_multiplier > 0)
        peer.chain_add(chain, peer.dry(NULL, s->dry_multiplier, 1.75f, 2, 4096, NULL, 0));
    if (s->top_n_sigma > 0) peer.chain_add(chain, peer.top_n_sigma(s->top_n_sigma));
    if (s->top_k) peer.chain_add(chain, peer.top_k(s->top_k));
    if (s->typical_p > 0) peer.chain_add(chain, peer.typical(s->typical_p, 1));
    if (s->top_p > 0) peer.chain_add(chain, peer.top_p(s->top_p, 1));
    if (s->min_p > 0) peer.chain_add(chain, peer.min_p(s->min_p, 1));
    if (s->xtc_probability > 0) peer.chain_add(chain, peer.xtc(1.0f, s->xtc_threshold, 1, 1));
    if (s->temperature > 0)
        peer.chain_add(chain, peer.temp_ext(s->temperature, s->dynatemp_range, 1.0f));
    if (s->mirostat) peer.chain_add(chain, peer.mirostat_v2(1, 5.0f, 0.1f));
    else peer.chain_add(chain, s->temperature > 0 ? peer.dist(1) : peer.greedy());
    for (i = 0; i < n_recent; i++) peer.accept(chain, recent[i]);
    return chain;
}

static double now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}

static void compare(const char *name, const sm_sampler *s, const float *logits, int n, int runs) {
    enum { RECENT = 512 };
    int32_t recent[RECENT], id = 0;
    peer_token *data = (peer_token *)malloc((size_t)n * sizeof *data);
    void *work = malloc(SMALLMIND_SAMPLE_BYTES(n, RECENT)), *chain = NULL;
    double ours = 1e30, theirs = 1e30, t;
    sm_sampler_state state;
    peer_tokens candidates;
    int r, i;
    if (!data || !work) exit(1);
    memset(&state, 0, sizeof state);
    for (i = 0; i < RECENT; i++) recent[i] = (i * i + i / 50) % 97;
    if (peer.apply) chain = peer_chain(s, n, recent, RECENT);
    for (r = 0; r < runs; r++) {
        t = now_us();
        id = sm_sample(s, &state, logits, n, recent, RECENT, work);
        t = now_us() - t;
        if (t < ours) ours = t;
        if (!chain) continue;
        t = now_us();
        candidates = peer_candidates(data, logits, n);
        peer.apply(chain, &candidates);
        t = now_us() - t;
        if (t < theirs) theirs = t;
    }
    if (id < 0) say(stderr, "bench_sample: %s chose nothing\n", name);
    if (chain) {
        say(stdout, "%-34s %7d ids %9.1f us, llama.cpp %9.1f us: %.2f times as fast\n", name, n,
            ours, theirs, theirs / ours);
        peer.free(chain);
    } else {
        say(stdout, "%-34s %7d ids %9.1f us\n", name, n, ours);
    }
    free(data);
    free(work);
}

/* A bell curve and some that lead it, as models give. */
static void make_logits(float *x, int n) {
    uint64_t state = 12345;
    int i, k;
    for (i = 0; i < n; i++) {
        double sum = 0;
        for (k = 0; k < 12; k++) {
            state = state * 6364136223846793005u + 1442695040888963407u;
            sum += (double)(state >> 40) / 16777216.0;
        }
        x[i] = (float)(2.5 * (sum - 6) + (i % 5000 > 4990 ? 10 : 0));
    }
}

int main(int argc, char **argv) {
    static const int sizes[] = {32000, 151936};
    int runs = 60, i;
    char why[512];
    size_t k;
    for (i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "-r")) runs = arg_int(argc, argv, &i, 1, 100000);
        else arg_fail("what is \"%s\"?", argv[i]);
    }
    if (!peer_open(why, sizeof why)) say(stderr, "bench_sample: %s: our times alone\n", why);
    for (k = 0; k < 2; k++) {
        int n = sizes[k];
        float *x = (float *)malloc((size_t)n * sizeof *x);
        sm_sampler s, none;
        if (!x) return 1;
        make_logits(x, n);
        memset(&none, 0, sizeof none);
        s = none;
        compare("greedy", &s, x, n, runs);
        s.repeat_penalty = 1.1f;
        compare("greedy, penalty", &s, x, n, runs);
        s = none, s.temperature = 0.8f;
        compare("temperature", &s, x, n, runs);
        s.top_k = 40;
        compare("top_k 40", &s, x, n, runs);
        s.top_p = 0.95f, s.min_p = 0.05f;
        compare("top_k 40, top_p, min_p (default)", &s, x, n, runs);
        s.repeat_penalty = 1.1f, s.dry_multiplier = 0.8f, s.xtc_probability = 1.0f;
        s.xtc_threshold = 0.1f, s.typical_p = 0.9f;
        compare("all of them", &s, x, n, runs);
        s = none, s.temperature = 0.8f, s.top_k = 2000;
        compare("top_k 2000", &s, x, n, runs);
        s = none, s.temperature = 0.8f, s.top_p = 0.95f;
        compare("top_p 0.95", &s, x, n, runs);
        s = none, s.temperature = 0.8f, s.min_p = 0.05f;
        compare("min_p 0.05", &s, x, n, runs);
        s = none, s.temperature = 0.8f, s.typical_p = 0.9f;
        compare("typical 0.9", &s, x, n, runs / 3 + 1);
        s = none, s.temperature = 0.8f, s.top_n_sigma = 1.0f;
        compare("top_n_sigma 1", &s, x, n, runs / 3 + 1);
        s = none, s.temperature = 0.8f, s.dynatemp_range = 0.5f;
        compare("dynamic temperature", &s, x, n, runs / 3 + 1);
        s = none, s.temperature = 0.8f, s.mirostat = 2;
        compare("mirostat 2", &s, x, n, runs / 3 + 1);
        free(x);
    }
    return 0;
}
