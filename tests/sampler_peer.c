/* sampler_peer.c - our sampler beside llama.cpp's, by its library, which is opened at run time: the
 * ids that each stage and each chain keep, and their probabilities, on random logits; mirostat's
 * average behaviour. Run by sampler_peer.sh.
 *
 *     PEER=folder of libllama ./sampler_peer model.gguf */
#define SMALLMIND_IMPLEMENTATION
#include "../smallmind.h"

#include "../bench/peer.h"

#include <math.h>

static int passed, failed;
static const void *vocab; /* the peer's */

static uint64_t state = 1;
static double uniform(void) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (double)(state >> 11) / 9007199254740992.0;
}
static int below(int n) { return (int)(uniform() * n); }

/* The peer's sampler for a stage, or NULL when it is off. */
static void *peer_stage(const sm_sampler *s, int n_vocab, int stage, const char **breakers,
                        int n_breakers) {
    size_t keep = (size_t)s->min_keep;
    switch (stage) {
    case SM_STAGE_PENALTIES:
        return peer.penalties(n_vocab, s->repeat_window ? s->repeat_window : 64,
                              s->repeat_penalty > 0 ? s->repeat_penalty : 1.0f,
                              s->frequency_penalty, s->presence_penalty);
    case SM_STAGE_DRY:
        if (s->dry_multiplier == 0) return NULL;
        return peer.dry(vocab, s->dry_multiplier, s->dry_base, s->dry_allowed_length,
                        s->dry_window ? s->dry_window : 4096, breakers, (size_t)n_breakers);
    case SM_STAGE_TOP_N_SIGMA: return s->top_n_sigma > 0 ? peer.top_n_sigma(s->top_n_sigma) : NULL;
    case SM_STAGE_TOP_K: return s->top_k ? peer.top_k(s->top_k) : NULL;
    case SM_STAGE_TYPICAL: return s->typical_p > 0 ? peer.typical(s->typical_p, keep) : NULL;
    case SM_STAGE_TOP_P: return s->top_p > 0 ? peer.top_p(s->top_p, keep) : NULL;
    case SM_STAGE_MIN_P: return s->min_p > 0 ? peer.min_p(s->min_p, keep) : NULL;
    case SM_STAGE_XTC:
        return s->xtc_probability > 0 ? peer.xtc(1.0f, s->xtc_threshold, keep, 1) : NULL;
    case SM_STAGE_TEMPERATURE:
        return peer.temp_ext(s->temperature, s->dynatemp_range,
                             s->dynatemp_exponent > 0 ? s->dynatemp_exponent : 1.0f);
    default: return NULL;
    }
}

static void run_peer(const sm_sampler *s, peer_tokens *a, const int32_t *recent, int n_recent,
                     const char **breakers, int n_breakers) {
    int i, k, stage;
    size_t n = a->size;
    if (s->n_biases) {
        void *p = peer.logit_bias((int)n, s->n_biases, s->biases);
        peer.apply(p, a);
        peer.free(p);
    }
    for (i = 0; i < SMALLMIND_MAX_STAGES; i++) {
        void *p;
        stage = s->order[0] ? s->order[i] : i + 1;
        if (stage == 0 || stage >= SM_STAGE_COUNT) break;
        p = peer_stage(s, (int)n, stage, breakers, n_breakers);
        if (!p) continue;
        for (k = 0; k < n_recent; k++) peer.accept(p, recent[k]);
        peer.apply(p, a);
        peer.free(p);
    }
}

/* Probabilities by id of what a list of logits has; the ids that it lacks stay -1. */
static void fill(double *p, int V, const int32_t *ids, const float *x, size_t n) {
    double best = -HUGE_VAL, sum = 0;
    size_t i;
    for (i = 0; i < (size_t)V; i++) p[i] = -1;
    for (i = 0; i < n; i++) best = (double)x[i] > best ? (double)x[i] : best;
    for (i = 0; i < n; i++) sum += exp((double)x[i] - best);
    for (i = 0; i < n; i++)
        if (x[i] > -SM__INFINITY) p[ids[i]] = exp((double)x[i] - best) / sum;
}

static void compare(const char *what, const sm_sampler *s, const float *logits, int V,
                    const int32_t *recent, int n_recent, const char **breakers, int n_breakers) {
    peer_tokens a;
    peer_token *first;
    sm__choice c;
    sm_sampler_state st;
    void *work = malloc(SMALLMIND_SAMPLE_BYTES(V, n_recent));
    double *p = (double *)malloc((size_t)V * 16), *q = p + V, worst = 0, lost = 0;
    float *x = (float *)malloc((size_t)V * 4);
    int32_t *ids = (int32_t *)malloc((size_t)V * 4);
    int i, missing = 0, kept = 0;
    first = (peer_token *)malloc((size_t)V * sizeof *first);
    a = peer_candidates(first, logits, V);
    run_peer(s, &a, recent, n_recent, breakers, n_breakers);
    for (i = 0; i < (int)a.size; i++) ids[i] = a.data[i].id, x[i] = a.data[i].logit;
    fill(p, V, ids, x, a.size);
    sm__choice_init(&c, V, n_recent, work);
    memset(&st, 0, sizeof st);
    c.s = s, c.state = &st, c.recent = recent;
    if (sm__first_candidates(&c, logits) < 0) exit(3);
    sm__run_stages(&c);
    for (i = 0; i < c.n; i++) ids[i] = sm__id(&c, i);
    fill(q, V, ids, c.x, (size_t)c.n);
    for (i = 0; i < V; i++) {
        kept += p[i] >= 0;
        if ((p[i] < 0) != (q[i] < 0)) missing++, lost += p[i] > q[i] ? p[i] : q[i];
        else if (p[i] >= 0 && fabs(p[i] - q[i]) > worst) worst = fabs(p[i] - q[i]);
    }
    /* Its sums are floats of V terms, ours are not: what lies within such a sum's rounding of an
     * edge may be on either side of it, and an entropy is as exact as its sum. */
    if (lost > 1e-7 * V || worst > 1e-5 + lost + V / 4294967296.0) {
        failed++;
        printf("%s, %d ids: %d kept by the peer, %d by us, %d differ (%g), worst %g\n", what, V,
               kept, c.n, missing, lost, worst);
    } else {
        passed++;
    }
    if (getenv("VERBOSE"))
        printf("%-40s V %6d kept %6d differ %4d (%.2g) worst %.2g\n", what, V, kept, missing, lost,
               worst);
    free(work), free(p), free(x), free(ids), free(first);
}

/* Logits as models have them: a bell curve, and a tail of a few that lead. */
static void random_logits(float *x, int V, int kind) {
    int i;
    for (i = 0; i < V; i++) {
        double g = sqrt(-2 * log(uniform() + 1e-12)) * cos(6.283185307179586 * uniform());
        x[i] = (float)(kind == 0 ? g : kind == 1 ? 3 * g - 4 : 2.5 * g + (below(V) < 30 ? 9 : 0));
    }
}

typedef struct setting {
    const char *what;
    sm_sampler s;
} setting;

static sm_sampler plain(void) {
    sm_sampler s;
    memset(&s, 0, sizeof s);
    s.temperature = 1;
    return s;
}

/* One of the samplers with random numbers of its range; which = -1: all of them, each perhaps. */
static sm_sampler random_sampler(int which) {
    sm_sampler s = plain();
    int i;
    for (i = 0; i < 12; i++) {
        int on = which == i || (which < 0 && below(3) == 0);
        if (!on) continue;
        switch (i) {
        case 0: s.top_k = 1 + below(below(2) ? 60 : 3000); break;
        case 1: s.top_p = (float)(0.05 + 0.94 * uniform()); break;
        case 2: s.min_p = (float)(0.001 + 0.3 * uniform()); break;
        case 3: s.typical_p = (float)(0.05 + 0.9 * uniform()); break;
        case 4: s.top_n_sigma = (float)(0.3 + 3 * uniform()); break;
        case 5: s.xtc_probability = 1, s.xtc_threshold = (float)(0.001 + 0.2 * uniform()); break;
        case 6: s.temperature = (float)(0.2 + 2 * uniform()); break;
        case 7:
            s.dynatemp_range = (float)(0.1 + uniform());
            s.dynatemp_exponent = (float)(0.3 + 2 * uniform());
            break;
        case 8:
            s.repeat_penalty = (float)(0.8 + uniform());
            s.repeat_window = 1 + below(200);
            break;
        case 9:
            s.presence_penalty = (float)(2 * uniform() - 1);
            s.frequency_penalty = (float)(uniform() - 0.3);
            break;
        case 10:
            s.dry_multiplier = (float)(0.2 + uniform());
            s.dry_base = (float)(1 + uniform());
            s.dry_allowed_length = 1 + below(3);
            s.dry_window = below(2) ? 0 : 5 + below(200);
            break;
        default: s.min_keep = 1 + below(20); break;
        }
    }
    /* What top_n_sigma leaves out it keeps with a logit of -inf. Then its dynamic temperature
     * counts it, and its entropy for typical is not a number. */
    if (which < 0 && (s.dynatemp_range > 0 || s.typical_p > 0)) s.top_n_sigma = 0;
    if (which == 11) s.top_p = 0.05f, s.min_p = 0.5f, s.typical_p = 0.05f;
    return s;
}

static void compare_all(int V, int rounds) {
    static const char *const names[] = {"top_k", "top_p", "min_p", "typical", "top_n_sigma", "xtc",
                                        "temperature", "dynatemp", "repeat", "presence", "dry",
                                        "min_keep"};
    float *x = (float *)malloc((size_t)V * 4);
    int32_t recent[300];
    int round, which, i;
    for (round = 0; round < rounds; round++)
        for (which = -1; which < 12; which++) {
            sm_sampler s = random_sampler(which);
            sm_bias biases[3];
            int n = below(300), few = 2 + below(6);
            random_logits(x, V, below(3));
            for (i = 0; i < n; i++) recent[i] = below(V < few ? V : few);
            if (which < 0 && below(2)) { /* in another order, some twice or never */
                for (i = 0; i < 9; i++) s.order[i] = (uint8_t)(1 + below(9));
                s.order[9] = 0;
            }
            if (which < 0) {
                for (i = 0; i < 3; i++) biases[i].id = i, biases[i].bias = (float)(i - 1);
                s.biases = biases, s.n_biases = 3;
            }
            compare(which < 0 ? "chain" : names[which], &s, x, V, recent, n, NULL, 0);
        }
    free(x);
}

/* DRY with breakers of a vocabulary; the breakers are single characters, which need no tokens after
 * them. */
static void compare_breakers(const char *path, int rounds) {
    const char *breakers[] = {"\n", ":", "\"", "*"};
    sm_model_params mp = sm_model_default();
    sm_model *m = NULL;
    sm_error error;
    float x[8192];
    uint32_t bits[256] = {0};
    int32_t recent[200], texts[8192];
    int i, round, n_texts = 0, V;
    mp.file.path = path;
    if (sm_model_open(&mp, &m, &error)) exit(2);
    V = sm_model_get_info(m)->n_vocab;
    if (V > 8192) exit(2);
    for (i = 0; i < V; i++) {
        size_t bytes = 0;
        const char *text = sm_token_text(m, i, &bytes);
        size_t k;
        for (k = 0; k < bytes; k++)
            if (strchr("\n:\"*", text[k]) && text[k]) bits[i >> 5] |= (uint32_t)1 << (i & 31);
        if (bits[i >> 5] >> (i & 31) & 1) texts[n_texts++] = i;
    }
    for (round = 0; round < rounds; round++) {
        sm_sampler s = random_sampler(10);
        int n = 100 + below(100);
        for (i = 0; i < n; i++)
            recent[i] = below(12) == 0 ? texts[below(n_texts)] : 300 + below(3);
        random_logits(x, V, 0);
        for (i = 0; i < V; i++) x[i] *= 0.01f;
        s.dry_breakers = bits;
        compare("breakers", &s, x, V, recent, n, breakers, 4);
    }
    sm_model_close(m);
}

/* Both versions over many draws from one distribution, whose entropy is above tau: how surprising
 * the choice was among all, on average. (Where it is below, the peer's k grows beyond an int.) */
static void compare_mirostat(int version, int V, float tau, float eta) {
    enum { DRAWS = 3000 };
    float *x = (float *)malloc((size_t)V * 4);
    peer_token *data = (peer_token *)malloc((size_t)V * sizeof *data);
    void *work = malloc(SMALLMIND_SAMPLE_BYTES(V, 0));
    double theirs = 0, ours = 0, sum = 0, squares = 0, limit;
    sm_sampler s = plain();
    sm_sampler_state st;
    void *p;
    int i, k;
    random_logits(x, V, 0);
    for (i = 0; i < V; i++) sum += exp((double)x[i]);
    p = version == 1 ? peer.mirostat(V, 7, tau, eta, 100) : peer.mirostat_v2(7, tau, eta);
    memset(&st, 0, sizeof st);
    s.mirostat = version, s.mirostat_tau = tau, s.mirostat_eta = eta;
    for (k = 0; k < DRAWS; k++) {
        peer_tokens a = peer_candidates(data, x, V);
        double bits;
        int32_t id;
        peer.apply(p, &a);
        bits = log(sum / exp((double)x[a.data[a.selected].id])) / log(2.0);
        theirs += bits;
        squares += bits * bits;
        id = sm_sample(&s, &st, x, V, NULL, 0, work);
        ours += log(sum / exp((double)x[id])) / log(2.0);
    }
    theirs /= DRAWS, ours /= DRAWS;
    squares = squares / DRAWS - theirs * theirs;
    limit = 5 * sqrt(2 * squares / DRAWS) + 1e-3; /* five deviations of the difference */
    if (fabs(theirs - ours) > limit) {
        failed++;
        printf("mirostat %d, %d ids, tau %g: %.3f bits by the peer, %.3f by us, limit %.3f\n",
               version, V, (double)tau, theirs, ours, limit);
    } else {
        passed++;
    }
    if (getenv("VERBOSE"))
        printf("mirostat %d V %d tau %g: %.4f and %.4f bits, mu %.4f\n", version, V, (double)tau,
               theirs, ours, (double)st.mu);
    peer.free(p);
    free(x), free(data), free(work);
}

int main(int argc, char **argv) {
    static const int sizes[] = {10, 100, 1000, 4099, 32000};
    char why[512];
    size_t i;
    if (argc != 2) return fprintf(stderr, "usage: PEER=folder sampler_peer M.gguf\n"), 2;
    if (!peer_open(why, sizeof why)) return fprintf(stderr, "sampler_peer: %s\n", why), 2;
    vocab = peer_vocab(argv[1]);
    if (!vocab) return fprintf(stderr, "sampler_peer: the peer does not open %s\n", argv[1]), 2;
    for (i = 0; i < sizeof sizes / sizeof *sizes; i++)
        compare_all(sizes[i], sizes[i] < 2000 ? 100 : sizes[i] < 5000 ? 30 : 5);
    compare_all(151936, 2);
    compare_breakers(argv[1], 200);
    for (i = 1; i <= 2; i++) {
        compare_mirostat((int)i, 1000, 3.0f, 0.1f);
        compare_mirostat((int)i, 1000, 5.0f, 0.1f);
        compare_mirostat((int)i, 4099, 4.0f, 0.3f);
    }
    printf("%d passed, %d failed, 0 skipped\n", passed, failed);
    return failed > 0;
}
