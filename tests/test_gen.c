/* test_gen.c - choosing and generating. The sampler against published random numbers, exact
 * probabilities and a reference that sorts everything; generation with models that say what a test
 * wants (runs.h), so that every stop, slice and piece has a known answer. Included by test.c after
 * build_gguf.h. */
#include "runs.h"

/* --- random numbers --------------------------------------------------------------------------- */

/* The first words of the known answers of Random123 (kat_vectors, philox4x32 10). Our counter is
 * (index, stream), our key the seed, each low word first. */
static void random_is_philox(void) {
    static const struct {
        uint64_t seed, stream, index;
        uint32_t want;
    } known[] = {
        {0, 0, 0, 0x6627e8d5u},
        {0xffffffffffffffffu, 0xffffffffffffffffu, 0xffffffffffffffffu, 0x408f276du},
        {0x299f31d0a4093822u, 0x0370734413198a2eu, 0x85a308d3243f6a88u, 0xd16cfe09u},
    };
    size_t i;
    for (i = 0; i < 3; i++)
        if (sm_random(known[i].seed, known[i].stream, known[i].index) != known[i].want)
            FAIL("%d: %08x, not %08x", (int)i,
                 (unsigned)sm_random(known[i].seed, known[i].stream, known[i].index),
                 (unsigned)known[i].want);
}

/* --- the sampler ------------------------------------------------------------------------------ */

enum { GEN_MAX = 600 };

static uint8_t gen_work[SMALLMIND_SAMPLE_BYTES(GEN_MAX, 100)];

/* One choice from the state of a stream. */
static int32_t sample_of(const sm_sampler *s, const float *logits, int n, const int32_t *recent,
                         int n_recent, uint64_t stream, uint64_t index, void *work) {
    sm_sampler_state state;
    memset(&state, 0, sizeof state);
    state.stream = stream;
    state.index = index;
    return sm_sample(s, &state, logits, n, recent, n_recent, work);
}

static sm_sampler sampler_of(float temperature, int top_k, float top_p, float min_p) {
    sm_sampler s;
    memset(&s, 0, sizeof s);
    s.temperature = temperature;
    s.top_k = top_k;
    s.top_p = top_p;
    s.min_p = min_p;
    s.seed = 42;
    return s;
}

/* The reference sorts everything by logit, then id, and works in double: p [n] gets each id's
 * probability; doubt [n] is 1 where rounding may decide whether the id is kept. */
static void sample_reference(const sm_sampler *s, const float *logits, int n,
                             const int32_t *recent, int n_recent, double *p, uint8_t *doubt) {
    double x[GEN_MAX], sum = 0.0, before = 0.0, best;
    int order[GEN_MAX], i, j, kept = n, window = s->repeat_window ? s->repeat_window : 64;
    if (n < 1 || n > GEN_MAX) exit(3);
    x[0] = order[0] = 0;
    for (i = 0; i < n; i++) {
        x[i] = logits[i] == logits[i] ? (double)logits[i] : -HUGE_VAL;
        for (j = n_recent > window ? n_recent - window : 0; j < n_recent; j++)
            if (recent[j] == i) break;
        if (j < n_recent && s->repeat_penalty > 0) {
            if (x[i] > 0) x[i] = (double)(float)(x[i] / (double)s->repeat_penalty);
            else x[i] = (double)(float)(x[i] * (double)s->repeat_penalty);
        }
        for (j = i; j > 0 && x[order[j - 1]] < x[i]; j--) order[j] = order[j - 1];
        order[j] = i; /* insertion: equal ones stay in order of id */
        p[i] = 0.0;
        doubt[i] = 0;
    }
    if (s->top_k > 0 && s->top_k < n) kept = s->top_k;
    best = x[order[0]];
    for (i = 0; i < kept; i++) sum += exp(x[order[i]] - best);
    if (s->top_p > 0 && s->top_p < 1) {
        for (i = 0; i < kept; i++) { /* kept while what is better has less than top_p */
            double off = before - (double)s->top_p * sum;
            if (i && fabs(off) < 1e-4 * sum) doubt[order[i]] = 1;
            if (i && off >= 0) break;
            before += exp(x[order[i]] - best);
        }
        kept = i;
    }
    for (i = 0; i < kept && s->min_p > 0; i++) {
        double share = exp(x[order[i]] - best) / (s->min_p < 1 ? (double)s->min_p : 1.0);
        if (i && fabs(share - 1) < 1e-4) doubt[order[i]] = 1;
        if (i && share < 1) {
            kept = i;
            break;
        }
    }
    for (i = 0, sum = 0.0; i < kept; i++) sum += exp((x[order[i]] - best) / (double)s->temperature);
    for (i = 0; i < kept; i++)
        p[order[i]] = exp((x[order[i]] - best) / (double)s->temperature) / sum;
}

/* Draws ids and compares their numbers with the reference's probabilities by chi-square; those that
 * have none must not come. */
static void sample_check(const char *what, const sm_sampler *s, const float *logits, int n,
                         const int32_t *recent, int n_recent, int draws) {
    static int count[GEN_MAX];
    static double p[GEN_MAX];
    static uint8_t doubt[GEN_MAX];
    double chi = 0.0, rest = 0.0, rest_p = 0.0, limit;
    int i, cells = 0, doubts = 0;
    memset(count, 0, sizeof count);
    sample_reference(s, logits, n, recent, n_recent, p, doubt);
    for (i = 0; i < n; i++) doubts += doubt[i];
    for (i = 0; i < draws; i++) {
        int32_t id = sample_of(s, logits, n, recent, n_recent, 7, (uint64_t)i, gen_work);
        if (!CHECK(id >= 0 && id < n)) return;
        count[id]++;
    }
    for (i = 0; i < n; i++) {
        double expected = p[i] * draws;
        if (p[i] == 0.0 && !doubt[i] && count[i]) {
            FAIL("%s: id %d came %d times and is not among the kept", what, i, count[i]);
            return;
        }
        if (expected >= 8) {
            chi += (count[i] - expected) * (count[i] - expected) / expected;
            cells++;
        } else {
            rest += count[i];
            rest_p += expected;
        }
    }
    if (rest_p >= 8) chi += (rest - rest_p) * (rest - rest_p) / rest_p, cells++;
    /* mean cells - 1, variance twice that; seven deviations: once in 10^11, but for the doubts */
    limit = cells - 1 + 7 * sqrt(2.0 * cells) + 10;
    if (!doubts && chi > limit)
        FAIL("%s: chi-square %.1f of %d cells, at most %.1f", what, chi, cells, limit);
}

static void random_logits(float *logits, int n, float spread) {
    int i;
    for (i = 0; i < n; i++) logits[i] = spread * (random_float() + random_float() + random_float());
}

static void sampler_draws_from_the_distribution(void) {
    float logits[200];
    int round;
    for (round = 0; round < 4; round++) {
        sm_sampler s = sampler_of(0.5f + 0.25f * (float)round, 0, 0.0f, 0.0f);
        random_logits(logits, 200, 2.0f);
        s.seed = (uint64_t)round;
        sample_check("temperature", &s, logits, 200, NULL, 0, 10000);
    }
}

/* Each filter, all together, with a penalty, on random logits; with many ties too. */
static void sampler_filters_as_the_reference(void) {
    static const struct {
        int top_k;
        float top_p, min_p, penalty;
    } cases[] = {{1, 0, 0, 0},       {5, 0, 0, 0},          {40, 0, 0, 0},      {1000, 0, 0, 0},
                 {0, 0.1f, 0, 0},    {0, 0.5f, 0, 0},       {0, 0.95f, 0, 0},   {0, 1.0f, 0, 0},
                 {0, 0, 0.02f, 0},   {0, 0, 0.3f, 0},       {0, 0, 1.0f, 0},    {0, 0, 5.0f, 0},
                 {0, 0, 0, 1.3f},    {0, 0, 0, 0.7f},       {30, 0.9f, 0.05f, 1.2f},
                 {20, 0.7f, 0, 1.1f}, {0, 0.8f, 0.1f, 1.0f}, {50, 0, 0.01f, 2.0f}};
    float logits[150];
    int32_t recent[90];
    size_t c;
    int i, ties;
    for (c = 0; c < sizeof cases / sizeof *cases; c++)
        for (ties = 0; ties < 2; ties++) {
            char what[60];
            sm_sampler s = sampler_of(0.9f, cases[c].top_k, cases[c].top_p, cases[c].min_p);
            s.repeat_penalty = cases[c].penalty;
            s.repeat_window = ties ? 30 : 0;
            random_logits(logits, 150, 2.0f);
            for (i = 0; i < 150 && ties; i++) logits[i] = floorf(logits[i]);
            for (i = 0; i < 90; i++) recent[i] = random_below(150);
            snprintf(what, sizeof what, "case %d, ties %d", (int)c, ties);
            sample_check(what, &s, logits, 150, recent, 90, 3000);
        }
}

/* llama.cpp's tests/test-sampling.cpp: which of the probabilities 0.1 to 0.4 are kept, and what
 * becomes of the kept ones. */
static void sampler_filters_as_llama_cpp(void) {
    static const struct {
        int top_k;
        float top_p, min_p;
        double kept[4];
    } cases[] = {{1, 0, 0, {0, 0, 0, 1}},
                 {3, 0, 0, {0, 0.22222, 0.33333, 0.44444}},
                 {4, 0, 0, {0.1, 0.2, 0.3, 0.4}},
                 {0, 0, 0, {0.1, 0.2, 0.3, 0.4}},
                 {0, 0.7f, 0, {0, 0, 0.428571, 0.571429}},
                 {0, 0.8f, 0, {0, 0.22222, 0.33333, 0.44444}},
                 {0, 1.0f, 0, {0.1, 0.2, 0.3, 0.4}},
                 {0, 0, 0.24f, {0.1, 0.2, 0.3, 0.4}},
                 {0, 0, 0.26f, {0, 0.22222, 0.33333, 0.44444}},
                 {0, 0, 0.49f, {0, 0.22222, 0.33333, 0.44444}},
                 {0, 0, 0.51f, {0, 0, 0.428571, 0.571429}},
                 {0, 0, 0.74f, {0, 0, 0.428571, 0.571429}},
                 {0, 0, 0.76f, {0, 0, 0, 1}},
                 {0, 0, 1.05f, {0, 0, 0, 1}}};
    enum { DRAWS = 20000 };
    float logits[4];
    size_t c;
    int i;
    for (i = 0; i < 4; i++) logits[i] = (float)log(0.1 * (i + 1));
    for (c = 0; c < sizeof cases / sizeof *cases; c++) {
        sm_sampler s = sampler_of(1.0f, cases[c].top_k, cases[c].top_p, cases[c].min_p);
        int count[4] = {0};
        for (i = 0; i < DRAWS; i++)
            count[sample_of(&s, logits, 4, NULL, 0, 0, (uint64_t)i, gen_work) & 3]++;
        for (i = 0; i < 4; i++) {
            double p = cases[c].kept[i];
            if (p == 0) CHECK(count[i] == 0);
            else CHECK_NEAR(count[i] / (double)DRAWS, p, 6 * sqrt(p * (1 - p) / (double)DRAWS));
        }
    }
}

static void sampler_is_greedy_without_temperature(void) {
    float logits[50];
    int32_t recent[3] = {9, 9, 4}, id;
    sm_sampler s = sampler_of(0.0f, 3, 0.5f, 0.1f);
    int round, i;
    for (round = 0; round < 100; round++) {
        int best = 0;
        random_logits(logits, 50, 3.0f);
        if (round % 2) /* ties: the lowest id */
            for (i = 0; i < 50; i++) logits[i] = floorf(logits[i]);
        for (i = 1; i < 50; i++)
            if (logits[i] > logits[best]) best = i;
        CHECK(sample_of(&s, logits, 50, NULL, 0, 0, (uint64_t)round, NULL) == best);
        CHECK(sample_of(&s, logits, 50, recent, 3, 1, 5, gen_work) == best); /* no penalty */
    }
    for (i = 0; i < 50; i++) logits[i] = i == 9 ? 2.0f : i == 4 ? 1.9f : i == 30 ? 1.0f : -1.0f;
    s.repeat_penalty = 1.9f; /* 2 / 1.9 = 1.05, 1.9 / 1.9 = 1: each id once, though 9 came twice */
    CHECK(sample_of(&s, logits, 50, recent, 3, 0, 0, gen_work) == 9);
    CHECK(sample_of(&s, logits, 50, recent, 3, 0, 0, NULL) == -1); /* it needs the workspace */
    s.repeat_penalty = 2.1f;
    CHECK(sample_of(&s, logits, 50, recent, 3, 0, 0, gen_work) == 30);
    s.repeat_window = 1; /* only the latest one, 4 */
    CHECK(sample_of(&s, logits, 50, recent, 3, 0, 0, gen_work) == 9);
    s = sampler_of(1e-40f, 0, 0.0f, 0.0f); /* the inverse is infinite */
    random_logits(logits, 50, 3.0f);
    for (i = 0; i < 20; i++) {
        id = sample_of(&s, logits, 50, NULL, 0, 0, (uint64_t)i, gen_work);
        CHECK(id == run_best(logits, 50));
    }
}

/* NaN is never chosen; what is infinitely likely is; nothing to choose from is an error. */
static void sampler_rules_for_what_is_not_finite(void) {
    const float nan = sm__from_bits(0x7fc00000u), minus_nan = sm__from_bits(0xffc12345u);
    const float inf = sm__from_bits(0x7f800000u);
    float logits[20];
    int round, i;
    for (round = 0; round < 60; round++) {
        sm_sampler s = sampler_of(round % 3 ? 1.0f : 0.0f, round % 4 == 1 ? 5 : 0,
                                  round % 5 == 2 ? 0.9f : 0.0f, round % 7 == 3 ? 0.1f : 0.0f);
        int32_t id;
        for (i = 0; i < 20; i++) logits[i] = i % 2 ? random_float() : i % 4 ? nan : minus_nan;
        id = sample_of(&s, logits, 20, NULL, 0, 0, (uint64_t)round, gen_work);
        CHECK(id >= 0 && id % 2 == 1);
        for (i = 0; i < 20; i++) logits[i] = i == 13 ? 0.5f : i % 2 ? -inf : nan;
        CHECK(sample_of(&s, logits, 20, NULL, 0, 0, (uint64_t)round, gen_work) == 13);
        logits[6] = inf;
        CHECK(sample_of(&s, logits, 20, NULL, 0, 0, (uint64_t)round, gen_work) == 6);
        for (i = 0; i < 20; i++) logits[i] = i % 3 ? -inf : nan;
        id = sample_of(&s, logits, 20, NULL, 0, 0, (uint64_t)round, gen_work);
        CHECK(id == SM_ERR_NUMBER);
        for (i = 0; i < 20; i++) logits[i] = i == 4 ? 3e38f : -3e38f;
        CHECK(sample_of(&s, logits, 20, NULL, 0, 0, (uint64_t)round, gen_work) == 4);
    }
}

/* A function of (logits, recent ids, seed, stream, index), which it does not change. */
static void sampler_is_a_pure_function(void) {
    float logits[300], before[300];
    int32_t recent[40], ids[60], was[40];
    sm_sampler s = sampler_of(1.1f, 200, 0.98f, 0.001f);
    int i, same_seed = 0, same_stream = 0;
    random_logits(logits, 300, 0.5f);
    for (i = 0; i < 40; i++) recent[i] = random_below(320) - 10; /* ids out of range are nobody */
    s.repeat_penalty = 1.2f;
    memcpy(before, logits, sizeof logits);
    memcpy(was, recent, sizeof recent);
    for (i = 0; i < 60; i++)
        ids[i] = sample_of(&s, logits, 300, recent, 40, 3, (uint64_t)i, gen_work);
    for (i = 59; i >= 0; i--) { /* in another order, with garbage in the workspace */
        memset(gen_work, i, sizeof gen_work);
        CHECK(sample_of(&s, logits, 300, recent, 40, 3, (uint64_t)i, gen_work) == ids[i]);
    }
    for (i = 0; i < 60; i++) {
        same_stream += sample_of(&s, logits, 300, recent, 40, 4, (uint64_t)i, gen_work) == ids[i];
        s.seed = 43;
        same_seed += sample_of(&s, logits, 300, recent, 40, 3, (uint64_t)i, gen_work) == ids[i];
        s.seed = 42;
    }
    CHECK(same_seed < 20 && same_stream < 20);
    CHECK(memcmp(before, logits, sizeof logits) == 0 && memcmp(was, recent, sizeof was) == 0);
}

static void sampler_refuses_bad_arguments(void) {
    float logits[4] = {0, 1, 2, 3};
    int32_t recent[1] = {0};
    sm_sampler s = sampler_of(1.0f, 0, 0.0f, 0.0f);
    CHECK(sample_of(NULL, logits, 4, NULL, 0, 0, 0, gen_work) == -1);
    CHECK(sample_of(&s, NULL, 4, NULL, 0, 0, 0, gen_work) == -1);
    CHECK(sample_of(&s, logits, 0, NULL, 0, 0, 0, gen_work) == -1);
    CHECK(sample_of(&s, logits, 4, recent, -1, 0, 0, gen_work) == -1);
    CHECK(sample_of(&s, logits, 4, NULL, 1, 0, 0, gen_work) == -1);
    CHECK(sample_of(&s, logits, 4, NULL, 0, 0, 0, NULL) == -1);
    CHECK(sample_of(&s, logits, 1, NULL, 0, 0, 0, gen_work) == 0);
}

/* Workspace and logits that end at a forbidden page. */
static void sampler_stays_in_its_memory(void) {
    static const int sizes[] = {1, 2, 3, 17, 333};
    size_t c;
    for (c = 0; c < sizeof sizes / sizeof *sizes; c++) {
        int n = sizes[c], i;
        guard a = guard_make((size_t)n * 4), b = guard_make(SMALLMIND_SAMPLE_BYTES(n, 0));
        float *logits = (float *)(void *)(a.end - (size_t)n * 4);
        uint8_t *work = b.end - SMALLMIND_SAMPLE_BYTES(n, 0);
        for (i = 0; i < 40; i++) {
            sm_sampler s = sampler_of(1.0f, i % 2 ? n / 2 : 0, i % 3 ? 0.9f : 0.0f,
                                      i % 5 ? 0.1f : 0.0f);
            int32_t id;
            random_logits(logits, n, 2.0f);
            id = sample_of(&s, logits, n, NULL, 0, 0, (uint64_t)i, work);
            CHECK(id >= 0 && id < n);
        }
        guard_free(&a);
        guard_free(&b);
    }
}

/* --- generation: models that say what they are told ------------------------------------------- */

#define SP "\xe2\x96\x81" /* the space of SentencePiece */
enum { SCRIPT_CTX = 96 };

typedef struct speaker {
    sm_model *m;
    sm_ctx *ctx;
    int32_t script[SCRIPT_CTX];
} speaker;

/* pieces, repeated until the context is full. Position 0 is the prompt's: what is said first is
 * pieces[0]. */
static int speaker_make(speaker *s, const char *const *pieces, int n, int n_ctx) {
    sm_ctx_params p = sm_ctx_default();
    int i;
    memset(s, 0, sizeof *s);
    for (i = 0; i < SCRIPT_CTX; i++) s->script[i] = script_id(pieces[i % n]);
    s->m = script_model(s->script, SCRIPT_CTX);
    p.n_ctx = n_ctx;
    p.n_seqs = 3;
    p.n_threads = 1;
    s->ctx = run_ctx(s->m, &p);
    return s->ctx != NULL;
}

static void speaker_free(speaker *s) {
    sm_ctx_destroy(s->ctx);
    sm_model_close(s->m);
}

/* Collects pieces; stops after so many when `most` is set. */
typedef struct listener {
    char text[2048];
    size_t bytes;
    int pieces, most, broken;
} listener;

/* Whether bytes are whole characters of UTF-8 (of those that the tests use). */
static int whole_characters(const char *s, size_t n) {
    size_t i = 0;
    while (i < n) {
        uint8_t c = (uint8_t)s[i];
        size_t length = c < 0x80 ? 1 : c < 0xC0 ? 0 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : 4;
        if (!length || i + length > n) return 0;
        while (--length)
            if (((uint8_t)s[++i] & 0xC0) != 0x80) return 0;
        i++;
    }
    return 1;
}

static int listen(void *user, const char *piece, size_t bytes) {
    listener *l = (listener *)user;
    if (!CHECK(bytes > 0 && piece[bytes] == 0 && l->bytes + bytes < sizeof l->text)) return 1;
    memcpy(l->text + l->bytes, piece, bytes);
    l->bytes += bytes;
    l->text[l->bytes] = 0;
    l->broken |= !whole_characters(piece, bytes);
    return ++l->pieces == l->most;
}

static sm_gen_params speech(void) {
    static const int32_t bos[1] = {1};
    sm_gen_params p = sm_gen_default();
    p.prompt_ids = bos;
    p.n_prompt_ids = 1;
    return p;
}

/* Generates and checks text and reason. */
static void speech_check(const char *file, int line, speaker *s, const sm_gen_params *p,
                         const char *text, int n_tokens, sm_finish finish) {
    listener l;
    sm_gen_stats stats;
    sm_status status;
    memset(&l, 0, sizeof l);
    status = sm_generate(s->ctx, p, listen, &l, &stats);
    check_status(file, line, "sm_generate", status, SM_OK);
    check_str(file, line, "text", l.text, text);
    if (stats.finish != finish)
        check_fail(file, line, "finish is %d, not %d", stats.finish, finish);
    if (stats.new_tokens != n_tokens)
        check_fail(file, line, "%d new tokens, not %d", stats.new_tokens, n_tokens);
    if (l.broken) check_fail(file, line, "a piece ended inside a character");
}
#define SPEECH(s, p, text, n, finish) speech_check(__FILE__, __LINE__, s, p, text, n, finish)

static const char *const cat_pieces[] = {SP "the", SP "cat", SP "sat", "on", SP "the", SP "a", "t",
                                         "!", SP, "</s>"};

static void gen_ends_for_each_reason(void) {
    static const int32_t stop_ids[2] = {5, 261}; /* 261 is "t" */
    speaker s;
    if (speaker_make(&s, cat_pieces, 10, SCRIPT_CTX)) {
        sm_gen_params p = speech();
        CHECK(script_id("t") == 261);
        SPEECH(&s, &p, "the cat saton the at! ", 10, SM_FINISH_END);
        p.max_tokens = 4;
        SPEECH(&s, &p, "the cat saton", 4, SM_FINISH_LENGTH);
        p.max_tokens = 10;
        SPEECH(&s, &p, "the cat saton the at! ", 10, SM_FINISH_END);
        p.max_tokens = 0;
        p.stop_ids = stop_ids;
        p.n_stop_ids = 2;
        SPEECH(&s, &p, "the cat saton the a", 7, SM_FINISH_END);
        p.n_stop_ids = 0;
        p.ignore_end = 1; /* the end id itself has no text */
        p.max_tokens = 12;
        SPEECH(&s, &p, "the cat saton the at!  the cat", 12, SM_FINISH_LENGTH);
    }
    speaker_free(&s);
}

static void gen_fills_the_context(void) {
    static const char *const pieces[] = {"a"};
    int32_t prompt[SCRIPT_CTX] = {1, 1, 1, 1, 1};
    char want[64];
    speaker s;
    int n;
    if (speaker_make(&s, pieces, 1, 30)) {
        for (n = 1; n <= 30; n++) { /* one token more than fits is chosen, but not evaluated */
            sm_gen_params p = speech();
            p.prompt_ids = prompt;
            p.n_prompt_ids = n;
            memset(want, 'a', sizeof want);
            want[31 - n] = 0;
            SPEECH(&s, &p, want, 31 - n, SM_FINISH_FULL);
            CHECK(sm_seq_length(s.ctx, 0) == 30);
        }
    }
    speaker_free(&s);
}

/* Stop strings: inside a token, across tokens, overlapping starts, at the very end. */
static void gen_stops_at_strings(void) {
    static const struct {
        const char *stops[3], *text;
        int n_tokens;
        sm_finish finish;
    } cases[] = {
        {{"cat", NULL, NULL}, "the ", 2, SM_FINISH_STOP},
        {{" cat", NULL, NULL}, "the", 2, SM_FINISH_STOP},
        {{"the", NULL, NULL}, "", 1, SM_FINISH_STOP},
        {{"t sat", NULL, NULL}, "the ca", 3, SM_FINISH_STOP},
        {{"t s", NULL, NULL}, "the ca", 3, SM_FINISH_STOP},
        {{"at!", NULL, NULL}, "the cat saton the ", 8, SM_FINISH_STOP},
        {{"e cat saton the at! ", NULL, NULL}, "th", 9, SM_FINISH_STOP},
        {{"cat sat!", "satan", "the at"}, "the cat saton ", 7, SM_FINISH_STOP},
        {{"cat sap", "at s", "cat"}, "the ", 2, SM_FINISH_STOP},
        {{"sat", "cat sat", "x"}, "the ", 3, SM_FINISH_STOP}, /* the leftmost */
        {{"never", "the cat saton the cat", "! the"}, "the cat saton the at! ", 10, SM_FINISH_END},
        {{"!", "! ", "!!"}, "the cat saton the at", 8, SM_FINISH_STOP},
    };
    speaker s;
    size_t c;
    int i;
    if (speaker_make(&s, cat_pieces, 10, SCRIPT_CTX))
        for (c = 0; c < sizeof cases / sizeof *cases; c++) {
            sm_gen_params p = speech();
            p.stops = cases[c].stops;
            for (i = 0; i < 3 && cases[c].stops[i]; i++) p.n_stops++;
            SPEECH(&s, &p, cases[c].text, cases[c].n_tokens, cases[c].finish);
        }
    speaker_free(&s);
}

/* What may become a stop string is held back, and comes out as soon as it cannot; never more. */
static void gen_holds_back_no_more_than_needed(void) {
    static const char *const stops[] = {"cat sit", "on the cat"};
    speaker s;
    int i;
    if (speaker_make(&s, cat_pieces, 10, SCRIPT_CTX)) {
        sm_gen_params p = speech();
        sm_gen *g = NULL;
        p.stops = stops;
        p.n_stops = 2;
        CHECK_STATUS(sm_gen_start(s.ctx, &p, &g), SM_OK);
        for (i = 0; i < 10; i++) {
            /* "cat" is held until "cat sa", "on the" until "on the a" */
            static const char *const pieces[] = {"the", " ", "cat sat", "", "", "on the a",
                                                 "t",   "!", " ",       ""};
            size_t n;
            CHECK_STATUS(sm_gen_step(g, -1), i < 9 ? SM_PENDING : SM_OK);
            CHECK_STR(sm_gen_piece(g, &n), pieces[i]);
            CHECK(n == strlen(pieces[i]));
        }
    }
    speaker_free(&s);
}

/* Held-back text comes out when the generation ends for another reason. */
static void gen_releases_what_it_held(void) {
    static const char *const stops[] = {"the cat sat on"};
    speaker s;
    if (speaker_make(&s, cat_pieces, 10, SCRIPT_CTX)) {
        sm_gen_params p = speech();
        p.stops = stops;
        p.n_stops = 1;
        p.max_tokens = 2;
        SPEECH(&s, &p, "the cat", 2, SM_FINISH_LENGTH);
        p.max_tokens = 0;
        SPEECH(&s, &p, "the cat saton the at! ", 10, SM_FINISH_END);
    }
    speaker_free(&s);
}

/* Characters in bytes: none is ever cut, bad ones become U+FFFD, an incomplete one at the end too.
 * */
static void gen_never_splits_a_character(void) {
    static const char *const pieces[] = {"\xe2", "\x82", "\xac", "\xf0", "\x9f", "\x98", "\x80",
                                         "\xc3\xa9", "\xff", "\xe2", "a", "\xc3", "\xa9", "\xf0",
                                         "\x9f", "</s>"};
    static const char *const stops[] = {"\xa9", "\x98\x81"}; /* of bytes inside: never found */
    speaker s;
    if (speaker_make(&s, pieces, 16, SCRIPT_CTX)) {
        sm_gen_params p = speech();
        SPEECH(&s, &p,
               "\xe2\x82\xac\xf0\x9f\x98\x80\xc3\xa9\xef\xbf\xbd\xef\xbf\xbd"
               "a\xc3\xa9\xef\xbf\xbd",
               16, SM_FINISH_END);
        p.max_tokens = 2;
        SPEECH(&s, &p, "\xef\xbf\xbd", 2, SM_FINISH_LENGTH);
        p.max_tokens = 3;
        SPEECH(&s, &p, "\xe2\x82\xac", 3, SM_FINISH_LENGTH);
        p.max_tokens = 0;
        p.stops = stops + 1;
        p.n_stops = 1;
        SPEECH(&s, &p,
               "\xe2\x82\xac\xf0\x9f\x98\x80\xc3\xa9\xef\xbf\xbd\xef\xbf\xbd"
               "a\xc3\xa9\xef\xbf\xbd",
               16, SM_FINISH_END);
    }
    speaker_free(&s);
}

static void gen_callback_stops(void) {
    speaker s;
    int n;
    if (speaker_make(&s, cat_pieces, 10, SCRIPT_CTX)) {
        sm_gen_params p = speech();
        sm_gen_stats stats;
        for (n = 1; n <= 9; n++) {
            listener l;
            memset(&l, 0, sizeof l);
            l.most = n;
            CHECK_STATUS(sm_generate(s.ctx, &p, listen, &l, &stats), SM_OK);
            CHECK(stats.finish == SM_FINISH_CALLBACK);
            CHECK(l.pieces == n && stats.new_tokens == n);
        }
        CHECK_STATUS(sm_generate(s.ctx, &p, NULL, NULL, NULL), SM_OK); /* nobody listens */
    }
    speaker_free(&s);
}

/* --- generation: slices, continuation, several at once ---------------------------------------- */

static sm_model *gen_model(void) {
    gguf_model_params p = gguf_model_default("llama", SM_TYPE_Q8_0);
    return gguf_model_open(&p);
}

static sm_ctx *gen_ctx(const sm_model *m, int isa) {
    sm_ctx_params p = sm_ctx_default();
    p.n_ctx = 100;
    p.n_seqs = 3;
    p.n_threads = 2;
    p.isa = isa;
    return run_ctx(m, &p);
}

static sm_gen_params gen_params(const char *prompt, int max_tokens) {
    sm_gen_params p = sm_gen_default();
    p.prompt = prompt;
    p.max_tokens = max_tokens;
    p.ignore_end = 1;
    p.sampler = sampler_of(0.8f, 100, 0.95f, 0.0f);
    p.sampler.repeat_penalty = 1.1f;
    return p;
}

/* All of a generation: its ids, its text. */
typedef struct spoken {
    int32_t ids[128];
    char text[1024];
    size_t bytes;
    int n, steps;
    sm_gen_stats stats;
} spoken;

static void speak(sm_ctx *ctx, const sm_gen_params *p, int64_t budget, spoken *out) {
    sm_gen *g = NULL;
    sm_status status;
    memset(out, 0, sizeof *out);
    if (!CHECK_STATUS(sm_gen_start(ctx, p, &g), SM_OK)) return;
    CHECK(sm_gen_token(g) == -1 && sm_gen_get_stats(g).finish == SM_FINISH_NONE);
    do {
        size_t n;
        const char *piece;
        status = sm_gen_step(g, budget);
        piece = sm_gen_piece(g, &n);
        CHECK(whole_characters(piece, n) && piece[n] == 0);
        if (CHECK(out->bytes + n < sizeof out->text)) memcpy(out->text + out->bytes, piece, n);
        out->bytes += n; /* random models also say NUL */
        if (sm_gen_token(g) >= 0 && out->n < 128) out->ids[out->n++] = sm_gen_token(g);
        out->steps++;
    } while (status == SM_PENDING);
    CHECK_STATUS(status, SM_OK);
    out->stats = sm_gen_get_stats(g);
    CHECK_STATUS(sm_gen_step(g, -1), SM_OK); /* it stays finished, and says nothing more */
    CHECK_STR(sm_gen_piece(g, NULL), "");
    CHECK(sm_gen_token(g) == -1);
}

static void spoken_check(const char *what, const spoken *got, const spoken *want) {
    if (got->n != want->n || memcmp(got->ids, want->ids, (size_t)want->n * sizeof *want->ids))
        FAIL("%s: other ids", what);
    if (got->bytes != want->bytes || memcmp(got->text, want->text, want->bytes))
        FAIL("%s: another text", what);
}

static void gen_in_slices_says_the_same(void) {
    static const int64_t budgets[] = {0, 1, 50, 1000};
    sm_model *m = gen_model();
    sm_ctx *ctx = m ? gen_ctx(m, SM_ISA_SCALAR) : NULL;
    spoken whole, sliced;
    int i;
    if (ctx) {
        sm_gen_params p = gen_params("the cat and the", 40);
        speak(ctx, &p, -1, &whole);
        CHECK(whole.n == 40 && whole.steps == 40 && whole.bytes > 0);
        for (i = 0; i < 4; i++) {
            speak(ctx, &p, budgets[i], &sliced);
            spoken_check("sliced", &sliced, &whole);
            if (budgets[i] < 2) CHECK(sliced.steps > 400);
        }
    }
    sm_ctx_destroy(ctx);
    sm_model_close(m);
}

/* Greedy, the recent ids do not matter: 40 tokens are 15 tokens, then 25 that are appended after a
 * prompt; the prompt's own place is the token that was chosen last. */
static void gen_append_goes_on(void) {
    sm_model *m = gen_model();
    sm_ctx *ctx = m ? gen_ctx(m, SM_ISA_AUTO) : NULL;
    spoken first, second;
    int i, n;
    if (ctx) {
        sm_gen_params p = gen_params("the cat", 15);
        int32_t prompt[64], all[128];
        float *want = run_rows(1, 320);
        memset(&p.sampler, 0, sizeof p.sampler);
        CHECK_STATUS(sm_tokenize(sm_ctx_tokenizer(ctx), "the cat", 7, SM_TEXT_BOS, all, 64, &n),
                     SM_OK);
        speak(ctx, &p, -1, &first);
        CHECK(sm_seq_length(ctx, 0) == n + 14); /* the last id was chosen, not evaluated */
        memcpy(all + n, first.ids, 15 * sizeof *all);
        n += 15;
        CHECK_STATUS(sm_tokenize(sm_ctx_tokenizer(ctx), " sat", 4, 0, prompt, 64, &i), SM_OK);
        memcpy(all + n, prompt, (size_t)i * sizeof *all);
        n += i;
        p.prompt = " sat";
        p.text_flags = 0;
        p.append = 1;
        speak(ctx, &p, -1, &second);
        CHECK(second.stats.prompt_tokens == i);
        CHECK(sm_seq_length(ctx, 0) == n + 14);
        /* the same by sm_eval: every id must be the best after all before it */
        for (i = 0; i < 15; i++) {
            CHECK_STATUS(sm_seq_release(ctx, 1), SM_OK);
            if (!CHECK_STATUS(run_eval(ctx, 1, all, n), SM_OK)) break;
            if (!CHECK(run_best(sm_logits(ctx, -1), 320) == second.ids[i])) break;
            all[n++] = second.ids[i];
        }
        free(want);
    }
    sm_ctx_destroy(ctx);
    sm_model_close(m);
}

/* What was said before an appended prompt counts: with penalties and DRY the second half of a
 * conversation is what one prompt of all its ids is followed by. */
static void gen_append_remembers_what_was_said(void) {
    sm_model *m = gen_model();
    sm_ctx *ctx = m ? gen_ctx(m, SM_ISA_AUTO) : NULL;
    static const char *const breakers[] = {"at"};
    spoken first, second, whole, blind;
    int way, n, more, differ = 0;
    for (way = 0; way < 3 && ctx; way++) {
        sm_gen_params p = gen_params("the cat and the cat", 30);
        int32_t all[128];
        memset(&p.sampler, 0, sizeof p.sampler);
        if (way == 0) p.sampler.repeat_penalty = 1.5f, p.sampler.repeat_window = 40;
        if (way == 1) p.sampler.frequency_penalty = 0.2f, p.sampler.presence_penalty = 0.1f;
        if (way == 2) {
            p.sampler.dry_multiplier = 4.0f;
            p.dry_breakers = breakers;
            p.n_dry_breakers = 1;
        }
        CHECK_STATUS(sm_tokenize(sm_ctx_tokenizer(ctx), p.prompt, 19, SM_TEXT_BOS, all, 64, &n),
                     SM_OK);
        speak(ctx, &p, -1, &first);
        memcpy(all + n, first.ids, 30 * sizeof *all);
        n += 30;
        CHECK_STATUS(sm_tokenize(sm_ctx_tokenizer(ctx), "sat", 3, 0, all + n, 20, &more), SM_OK);
        p.prompt = "sat";
        p.text_flags = 0;
        p.append = 1;
        speak(ctx, &p, -1, &second);
        p.prompt = NULL;
        p.append = 0;
        p.prompt_ids = all;
        p.n_prompt_ids = n + more;
        speak(ctx, &p, -1, &whole);
        spoken_check("remembered", &second, &whole);
        memset(&p.sampler, 0, sizeof p.sampler);
        speak(ctx, &p, -1, &blind);
        differ += memcmp(blind.ids, whole.ids, sizeof whole.ids) != 0;
    }
    CHECK(differ == 3);
    sm_ctx_destroy(ctx);
    sm_model_close(m);
}

/* A text longer than its context: each id is the best after what a sequence holds that was
 * evaluated and shifted by hand. */
static void gen_goes_on_when_the_context_is_full(void) {
    static const int64_t budgets[] = {-1, 0};
    sm_model *m = gen_model();
    sm_ctx *ctx = m ? gen_ctx(m, SM_ISA_AUTO) : NULL;
    int32_t ids[20], start[3];
    sm_ctx_params cp = sm_ctx_default();
    spoken told;
    int i, k, n = 0, removed, at;
    for (k = 0; k < 2 && ctx; k++) {
        sm_gen_params p = gen_params("the cat sat on the cat and", 120);
        memset(&p.sampler, 0, sizeof p.sampler);
        p.shift = 1;
        p.n_keep = k ? 5 : 0; /* 0: a BOS */
        speak(ctx, &p, budgets[k], &told);
        CHECK(told.n == 120 && told.stats.finish == SM_FINISH_LENGTH);
        CHECK_STATUS(sm_tokenize(sm_ctx_tokenizer(ctx), p.prompt, 26, SM_TEXT_BOS, ids, 20, &n),
                     SM_OK);
        CHECK_STATUS(sm_seq_release(ctx, 1), SM_OK);
        CHECK_STATUS(run_eval(ctx, 1, ids, n), SM_OK);
        for (i = removed = 0; i < 120; i++) {
            int keep = k ? 5 : 1;
            if (!CHECK(run_best(sm_logits(ctx, -1), 320) == told.ids[i]) || i == 119) break;
            at = sm_seq_length(ctx, 1);
            if (at == 100) {
                CHECK_STATUS(sm_seq_shift(ctx, 1, keep, keep + (100 - keep + 1) / 2), SM_OK);
                removed += 100 - sm_seq_length(ctx, 1);
            }
            CHECK_STATUS(run_eval(ctx, 1, &told.ids[i], 1), SM_OK);
        }
        CHECK(removed > 0 && told.stats.shifted_tokens == removed);
        CHECK(sm_seq_length(ctx, 0) == n + 119 - removed);
        /* a prompt appended to a full sequence makes room, too; the last id is not lost */
        p.append = 1;
        p.n_keep = 3;
        p.max_tokens = 60;
        speak(ctx, &p, -1, &told);
        at = sm_seq_length(ctx, 0);
        memcpy(start, sm__seq_ids(ctx, 0), sizeof start);
        p.max_tokens = 1;
        for (i = 0; i < 10 && !check.errors; i++) {
            speak(ctx, &p, -1, &told);
            CHECK(told.stats.finish == SM_FINISH_LENGTH && told.stats.prompt_tokens == n);
            at += n + 1 - told.stats.shifted_tokens; /* with the id before, without the new one */
            CHECK(sm_seq_length(ctx, 0) == at && at <= 100);
            CHECK(!memcmp(sm__seq_ids(ctx, 0), start, sizeof start));
            CHECK(!memcmp(sm__seq_ids(ctx, 0) + at - n, ids, (size_t)n * sizeof *ids));
            removed += told.stats.shifted_tokens;
        }
        CHECK(removed > 60);
    }
    sm_ctx_destroy(ctx);
    cp.n_ctx = 100;
    cp.kv_tokens = 64; /* what is full is the KV cache */
    ctx = m ? run_ctx(m, &cp) : NULL;
    if (ctx) {
        sm_gen_params p = gen_params("the cat sat on the cat and", 120);
        p.shift = 1;
        speak(ctx, &p, -1, &told);
        CHECK(told.n == 120 && told.stats.shifted_tokens >= 64 && sm_seq_length(ctx, 0) <= 64);
    }
    sm_ctx_destroy(ctx);
    sm_model_close(m);
}

/* A generation whose sequence is shifted goes on, and what it knows of its ids (a breaker of DRY
 * that is of two of them) moves along. Whatever else is done to the sequence is found out. */
static void gen_knows_when_its_sequence_changes(void) {
    gguf_model_params gp = gguf_model_default("gpt2", SM_TYPE_F32);
    sm_model *m = gen_model(), *old = gguf_model_open(&gp);
    sm_ctx *ctx = m ? gen_ctx(m, SM_ISA_AUTO) : NULL, *other;
    int what, i;
    for (what = 0; what < 4 && ctx; what++) {
        static const char *const breakers[] = {"at c"}; /* no id has it */
        sm_gen_params p = gen_params("the cat sat on a cat cat the", 20), q = p;
        int32_t more = 7;
        sm_gen *g = NULL, *whole;
        p.sampler.dry_multiplier = 1.0f;
        p.dry_breakers = breakers;
        p.n_dry_breakers = 1;
        CHECK_STATUS(sm_gen_start(ctx, &p, &g), SM_OK);
        for (i = 0; i < 5; i++) CHECK_STATUS(sm_gen_step(g, -1), SM_PENDING);
        if (what == 0) {
            CHECK(g->state.dry_from > 4);
            CHECK_STATUS(sm_seq_shift(ctx, 0, 1, 4), SM_OK);
            q = p;
            q.prompt = NULL;
            q.prompt_ids = g->ids;
            q.n_prompt_ids = g->n_ids;
            q.seq = 1;
            CHECK_STATUS(sm_gen_start(ctx, &q, &whole), SM_OK);
            CHECK(whole->state.dry_from == g->state.dry_from && whole->state.dry_from > 1);
        }
        if (what == 1) CHECK_STATUS(sm_seq_rewind(ctx, 0, 4), SM_OK);
        if (what == 2) CHECK_STATUS(run_eval(ctx, 0, &more, 1), SM_OK);
        if (what == 3) CHECK_STATUS(sm_seq_release(ctx, 0), SM_OK);
        CHECK_STATUS(sm_gen_step(g, -1), what ? SM_ERR_ARG : SM_PENDING);
        if (what) CHECK_STR(sm_ctx_error(ctx), "generate: sequence 0 was changed meanwhile");
        CHECK(sm_gen_get_stats(g).finish == (what ? SM_FINISH_ERROR : SM_FINISH_NONE));
    }
    if (ctx) {
        sm_gen_params p = gen_params("the", 3);
        sm_gen *g = NULL;
        p.n_keep = 100;
        CHECK_STATUS(sm_gen_start(ctx, &p, &g), SM_ERR_ARG);
        p.n_keep = -1;
        CHECK_STATUS(sm_gen_start(ctx, &p, &g), SM_ERR_ARG);
        p.n_keep = 99; /* nothing that could go but the last half of one */
        p.shift = 1;
        p.max_tokens = 0;
        CHECK_STATUS(sm_gen_start(ctx, &p, &g), SM_OK);
        for (i = 0; i < 200; i++) CHECK_STATUS(sm_gen_step(g, -1), SM_PENDING);
        other = old ? gen_ctx(old, SM_ISA_AUTO) : NULL;
        if (other) CHECK_STATUS(sm_gen_start(other, &p, &g), SM_ERR_UNSUPPORTED);
        if (other) CHECK(strstr(sm_ctx_error(other), "gpt2 has learned positions"));
        sm_ctx_destroy(other);
    }
    sm_ctx_destroy(ctx);
    sm_model_close(m);
    sm_model_close(old);
}

/* Generations of three sequences, stepped in turn, say what each says alone. */
static void gen_of_several_sequences_in_turn(void) {
    static const char *const prompts[] = {"the cat", "and a", "sat on the"};
    sm_model *m = gen_model();
    sm_ctx *ctx = m ? gen_ctx(m, SM_ISA_AUTO) : NULL;
    spoken alone[3];
    sm_gen *g[3];
    static spoken turn[3];
    int s, left = 3, done[3] = {0};
    if (ctx) {
        memset(turn, 0, sizeof turn);
        for (s = 0; s < 3; s++) {
            sm_gen_params p = gen_params(prompts[s], 20 + s);
            p.seq = s;
            speak(ctx, &p, -1, &alone[s]);
        }
        for (s = 0; s < 3; s++) {
            sm_gen_params p = gen_params(prompts[s], 20 + s);
            p.seq = s;
            CHECK_STATUS(sm_gen_start(ctx, &p, &g[s]), SM_OK);
        }
        while (left && check.errors == 0)
            for (s = 0; s < 3; s++) {
                size_t bytes;
                const char *piece;
                sm_status status;
                if (done[s]) continue;
                status = sm_gen_step(g[s], -1);
                piece = sm_gen_piece(g[s], &bytes);
                memcpy(turn[s].text + turn[s].bytes, piece, bytes);
                turn[s].bytes += bytes;
                turn[s].ids[turn[s].n++] = sm_gen_token(g[s]);
                if (!CHECK(sm_gen_token(g[s]) == alone[s].ids[turn[s].n - 1])) break;
                if (status != SM_PENDING) done[s] = 1, left--;
            }
        for (s = 0; s < 3; s++) spoken_check("in turn", &turn[s], &alone[s]);
        for (s = 0; s < 3; s++) { /* streams differ: so do the texts of the same prompt */
            sm_gen_params p = gen_params("the", 20);
            p.seq = s;
            speak(ctx, &p, -1, &alone[s]);
        }
        CHECK(memcmp(alone[0].ids, alone[1].ids, sizeof alone[0].ids) &&
              memcmp(alone[1].ids, alone[2].ids, sizeof alone[1].ids));
    }
    sm_ctx_destroy(ctx);
    sm_model_close(m);
}

/* While another pass is pending, a step is refused and harms neither. */
static void gen_step_while_another_pass_is_pending(void) {
    sm_model *m = gen_model();
    sm_ctx *ctx = m ? gen_ctx(m, SM_ISA_SCALAR) : NULL;
    spoken want;
    if (ctx) {
        sm_gen_params p = gen_params("the cat", 10);
        sm_gen *g = NULL;
        sm_batch b;
        int32_t tokens[20], steps = 0;
        run_way w = run_plain(SM_TYPE_F16);
        float *rows = run_rows(20, 320);
        int i;
        run_tokens(m, tokens, 20);
        run_logits(m, &w, tokens, 20, rows);
        p.seq = 2;
        speak(ctx, &p, -1, &want);
        CHECK_STATUS(sm_gen_start(ctx, &p, &g), SM_OK);
        for (i = 0; i < 3; i++) {
            CHECK_STATUS(sm_gen_step(g, -1), SM_PENDING);
            CHECK(sm_gen_token(g) == want.ids[i]);
        }
        memset(&b, 0, sizeof b);
        b.n = 20;
        b.tokens = tokens;
        CHECK_STATUS(sm_eval_begin(ctx, &b), SM_OK);
        do {
            CHECK_STATUS(sm_gen_step(g, -1), SM_ERR_BUSY);
            steps++;
        } while (sm_eval_step(ctx, 0) == SM_PENDING);
        CHECK(steps > 10);
        SAME("the other", sm_logits(ctx, -1), rows + 19 * 320, 1, 320);
        for (; i < 10; i++) {
            CHECK_STATUS(sm_gen_step(g, -1), i < 9 ? SM_PENDING : SM_OK);
            CHECK(sm_gen_token(g) == want.ids[i]);
        }
        free(rows);
    }
    sm_ctx_destroy(ctx);
    sm_model_close(m);
}

static void gen_is_cancelled(void) {
    sm_model *m = gen_model();
    sm_ctx *ctx = m ? gen_ctx(m, SM_ISA_SCALAR) : NULL;
    if (ctx) {
        sm_gen_params p = gen_params("the cat", 10);
        sm_gen *g = NULL;
        CHECK_STATUS(sm_gen_start(ctx, &p, &g), SM_OK);
        CHECK_STATUS(sm_gen_step(g, 0), SM_PENDING);
        CHECK(sm_eval_pass(ctx) != 0);
        sm_cancel(ctx, sm_eval_pass(ctx));
        CHECK_STATUS(sm_gen_step(g, -1), SM_ERR_CANCELLED);
        CHECK(sm_gen_get_stats(g).finish == SM_FINISH_CANCELLED);
        CHECK_STATUS(sm_gen_step(g, -1), SM_OK);
        CHECK(sm_seq_length(ctx, 0) == 0);
    }
    sm_ctx_destroy(ctx);
    sm_model_close(m);
}

static void gen_counts_and_times(void) {
    sm_model *m = gen_model();
    sm_ctx *ctx = m ? gen_ctx(m, SM_ISA_SCALAR) : NULL;
    if (ctx) {
        sm_gen_params p = gen_params("the cat", 10);
        sm_gen_stats s;
        uint64_t start = sm__now_ns(), all;
        int n = 0;
        CHECK_STATUS(sm_tokenize(sm_ctx_tokenizer(ctx), "the cat", 7, SM_TEXT_BOS, NULL, 0, &n),
                     SM_OK);
        CHECK_STATUS(sm_generate(ctx, &p, NULL, NULL, &s), SM_OK);
        all = sm__now_ns() - start;
        CHECK(n == 3 && s.prompt_tokens == n && s.new_tokens == 10);
        CHECK(s.finish == SM_FINISH_LENGTH);
        CHECK(s.prompt_ns > 0 && s.prompt_ns <= s.first_token_ns && s.decode_ns > 0);
        CHECK(s.first_token_ns + s.decode_ns <= all);
        CHECK(sm_gen_get_stats(NULL).new_tokens == 0);
        CHECK_STR(sm_gen_piece(NULL, NULL), "");
        CHECK(sm_gen_token(NULL) == -1);
        CHECK_STATUS(sm_gen_step(NULL, -1), SM_ERR_ARG);
    }
    sm_ctx_destroy(ctx);
    sm_model_close(m);
}

/* --- generation: errors ----------------------------------------------------------------------- */

static void gen_bad_parameters_are_refused(void) {
    static const char *const stops[9] = {"a", "b", "c", "d", "e", "f", "g", "h", "i"};
    static const char *const no_stop[1] = {""}, *const null_stop[1] = {NULL};
    const char *long_stop[1];
    char text[80];
    static const int32_t ids[2] = {1, 320}, minus[2] = {1, -1}, good[1] = {1};
    sm_model *m = gen_model();
    sm_ctx *ctx = m ? gen_ctx(m, SM_ISA_AUTO) : NULL;
    sm_gen *g = NULL;
    int i;
    memset(text, 'x', sizeof text);
    text[65] = 0;
    long_stop[0] = text;
    for (i = 0; i < 18 && ctx; i++) {
        sm_gen_params p = gen_params("the", 3);
        switch (i) {
        case 0: p.prompt = NULL; break;
        case 1: p.prompt_ids = good, p.n_prompt_ids = 1; break; /* both */
        case 2: p.seq = 3; break;
        case 3: p.seq = -1; break;
        case 4: p.stops = stops, p.n_stops = 9; break;
        case 5: p.stops = stops, p.n_stops = -1; break;
        case 6: p.stops = NULL, p.n_stops = 1; break;
        case 7: p.stops = no_stop, p.n_stops = 1; break;
        case 8: p.stops = null_stop, p.n_stops = 1; break;
        case 9: p.stops = long_stop, p.n_stops = 1; break;
        case 10: p.stop_ids = ids, p.n_stop_ids = 9; break;
        case 11: p.stop_ids = NULL, p.n_stop_ids = 1; break;
        case 12: p.max_tokens = -1; break;
        case 13: p.prompt = NULL, p.prompt_ids = ids, p.n_prompt_ids = 2; break;
        case 14: p.prompt = NULL, p.prompt_ids = minus, p.n_prompt_ids = 2; break;
        case 15: p.prompt = NULL, p.prompt_ids = good, p.n_prompt_ids = 0; break;
        case 16: p.prompt = NULL, p.prompt_ids = good, p.n_prompt_ids = -1; break;
        default: p.prompt = "", p.text_flags = 0; break; /* no token at all */
        }
        g = (sm_gen *)(void *)&p;
        CHECK_STATUS(sm_gen_start(ctx, &p, &g), SM_ERR_ARG);
        CHECK(g == NULL && sm_ctx_error(ctx)[0] != 0);
        CHECK_STATUS(sm_generate(ctx, &p, NULL, NULL, NULL), SM_ERR_ARG);
    }
    if (ctx) {
        sm_gen_params p = gen_params("the", 3);
        text[64] = 0; /* the longest stop string there may be */
        p.stops = long_stop;
        p.n_stops = 1;
        CHECK_STATUS(sm_generate(ctx, &p, NULL, NULL, NULL), SM_OK);
        CHECK_STATUS(sm_gen_start(ctx, NULL, &g), SM_ERR_ARG);
        CHECK_STATUS(sm_gen_start(ctx, &p, NULL), SM_ERR_ARG);
        CHECK_STATUS(sm_gen_start(NULL, &p, &g), SM_ERR_ARG);
    }
    sm_ctx_destroy(ctx);
    sm_model_close(m);
}

/* A prompt that is too long changes nothing: what runs on the sequence goes on. */
static void gen_too_long_a_prompt_changes_nothing(void) {
    sm_model *m = gen_model();
    sm_ctx *ctx = m ? gen_ctx(m, SM_ISA_AUTO) : NULL;
    static int32_t many[200];
    spoken want;
    int i, append;
    if (ctx) {
        sm_gen_params p = gen_params("the cat", 12), bad = gen_params(NULL, 5);
        static char words[1200];
        sm_gen *g = NULL, *other;
        speak(ctx, &p, -1, &want);
        for (i = 0; i < 200; i++) many[i] = 7;
        for (i = 0; i < 300; i++) memcpy(words + 4 * i, " cat", 4);
        words[1199] = 0;
        CHECK_STATUS(sm_gen_start(ctx, &p, &g), SM_OK);
        for (i = 0; i < 12; i++) {
            CHECK_STATUS(sm_gen_step(g, -1), i < 11 ? SM_PENDING : SM_OK);
            CHECK(sm_gen_token(g) == want.ids[i]);
            append = i % 2;
            bad.append = append;
            bad.prompt = NULL;
            bad.prompt_ids = many;
            bad.n_prompt_ids = 200;
            CHECK_STATUS(sm_gen_start(ctx, &bad, &other), SM_ERR_FULL);
            bad.prompt_ids = NULL;
            bad.n_prompt_ids = 0;
            bad.prompt = words;
            CHECK_STATUS(sm_gen_start(ctx, &bad, &other), SM_ERR_FULL);
            bad.prompt = NULL;
            bad.prompt_ids = many;
            bad.n_prompt_ids = 3;
            many[2] = 1000;
            CHECK_STATUS(sm_gen_start(ctx, &bad, &other), SM_ERR_ARG);
            many[2] = 7;
            CHECK(sm_seq_length(ctx, 0) == 3 + i);
        }
        CHECK(sm_gen_get_stats(g).finish == SM_FINISH_LENGTH);
    }
    sm_ctx_destroy(ctx);
    sm_model_close(m);
}

/* Without a vocabulary there are ids, and no text; the end ids of the file count. */
static void gen_without_a_vocabulary(void) {
    gguf_model_params gp = gguf_model_default("llama", SM_TYPE_F32);
    static const int32_t prompt[2] = {1, 5};
    sm_model *m;
    sm_ctx *ctx;
    gp.vocab = GGUF_NO_VOCAB;
    m = gguf_model_open(&gp);
    ctx = m ? gen_ctx(m, SM_ISA_AUTO) : NULL;
    if (ctx) {
        sm_gen_params p = gen_params(NULL, 6);
        spoken s;
        int32_t stop;
        CHECK(sm_ctx_tokenizer(ctx) == NULL);
        p.prompt_ids = prompt;
        p.n_prompt_ids = 2;
        speak(ctx, &p, -1, &s);
        CHECK(s.n == 6 && s.bytes == 0);
        stop = s.ids[3];
        p.stop_ids = &stop;
        p.n_stop_ids = 1;
        speak(ctx, &p, -1, &s);
        CHECK(s.n <= 4 && s.ids[s.n - 1] == stop && s.stats.finish == SM_FINISH_END);
        p.n_stop_ids = 0;
        p.ignore_end = 0;
        m->vocab.eos = stop; /* as a safetensors file's config.json would say */
        speak(ctx, &p, -1, &s);
        CHECK(s.n <= 4 && s.ids[s.n - 1] == stop && s.stats.finish == SM_FINISH_END);
        p = gen_params("the", 3);
        CHECK_STATUS(sm_generate(ctx, &p, NULL, NULL, NULL), SM_ERR_UNSUPPORTED);
    }
    sm_ctx_destroy(ctx);
    sm_model_close(m);
}

static const test tests_gen[] = {
    {"gen: sm_random has Philox's known answers", random_is_philox},
    {"gen: the sampler draws from the distribution", sampler_draws_from_the_distribution},
    {"gen: top-k, top-p, min-p and penalty are the reference's", sampler_filters_as_the_reference},
    {"gen: top-k, top-p and min-p keep what llama.cpp keeps", sampler_filters_as_llama_cpp},
    {"gen: without temperature the sampler is greedy", sampler_is_greedy_without_temperature},
    {"gen: NaN is never chosen, +inf is", sampler_rules_for_what_is_not_finite},
    {"gen: the sampler is a pure function", sampler_is_a_pure_function},
    {"gen: the sampler refuses bad arguments", sampler_refuses_bad_arguments},
    {"gen: the sampler stays in its memory", sampler_stays_in_its_memory},
    {"gen: each reason to end", gen_ends_for_each_reason},
    {"gen: a full context ends it, with any prompt", gen_fills_the_context},
    {"gen: stop strings end it, wherever they begin", gen_stops_at_strings},
    {"gen: no more is held back than may become a stop string",
     gen_holds_back_no_more_than_needed},
    {"gen: what was held back comes out at the end", gen_releases_what_it_held},
    {"gen: no piece ends inside a character", gen_never_splits_a_character},
    {"gen: the callback can stop it after any piece", gen_callback_stops},
    {"gen: in slices of any budget it says the same", gen_in_slices_says_the_same},
    {"gen: append remembers what was said", gen_append_remembers_what_was_said},
    {"gen: a full context goes on by shifts", gen_goes_on_when_the_context_is_full},
    {"gen: a sequence that is changed meanwhile", gen_knows_when_its_sequence_changes},
    {"gen: append goes on where the last one stopped", gen_append_goes_on},
    {"gen: several sequences in turn say what each says alone", gen_of_several_sequences_in_turn},
    {"gen: a step while another pass is pending is busy and harmless",
     gen_step_while_another_pass_is_pending},
    {"gen: a cancelled generation changes nothing", gen_is_cancelled},
    {"gen: counts and times", gen_counts_and_times},
    {"gen: bad parameters are refused", gen_bad_parameters_are_refused},
    {"gen: too long a prompt changes nothing", gen_too_long_a_prompt_changes_nothing},
    {"gen: without a vocabulary there are ids and no text", gen_without_a_vocabulary},
};
