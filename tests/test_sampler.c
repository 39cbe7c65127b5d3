/* test_sampler.c - the stages of the sampler: llama.cpp's own vectors, the states of mirostat and
 * DRY, masks, biases, log-probabilities, bad arguments; and that each parameter reaches the choice
 * through sm_generate. tests/sampler_peer.sh compares many more with llama.cpp's library. Included
 * by test.c after test_gen.c. */

enum { STAGE_MAX = 10000, STAGE_RECENT = 64 };

static uint8_t stage_work[SMALLMIND_SAMPLE_BYTES(STAGE_MAX, STAGE_RECENT)];

/* Runs the stages; the candidates stay in c. */
static int stages_run(sm__choice *c, const sm_sampler *s, const float *logits, int n,
                      const int32_t *recent, int n_recent) {
    static sm_sampler_state state;
    memset(&state, 0, sizeof state);
    sm__choice_init(c, n, n_recent, stage_work);
    c->s = s;
    c->state = &state;
    c->recent = recent;
    if (sm__first_candidates(c, logits) < 0) return 0;
    sm__run_stages(c);
    return c->n;
}

/* --- llama.cpp's vectors ---------------------------------------------------------------------- */

static int vector_floats(sm__json *j, double *out, int max) {
    int n = 0;
    if (!sm__json_enter(j, '[')) return 0;
    while (sm__json_item(j)) sm__json_number(j, n < max ? &out[n++] : &out[max - 1]);
    return n;
}

static void vector_sort(double *p, int n) {
    int i, j;
    for (i = 1; i < n; i++)
        for (j = i; j > 0 && p[j] > p[j - 1]; j--) {
            double x = p[j];
            p[j] = p[j - 1];
            p[j - 1] = x;
        }
}

/* Kept probabilities, largest first, to 1e-5 as llama.cpp's test-sampling.cpp compares them. Those
 * of XTC and typical are told there as they were before something was left out. */
static void vector_check(int line, const sm_sampler *s, const double *probs, int n,
                         const int32_t *recent, int n_recent, const double *expected, int n_want) {
    double p[16] = {0}, want[16] = {0}, sum = 0.0, want_sum = 0.0;
    float logits[16];
    sm__choice c;
    int i, kept;
    for (i = 0; i < n; i++) logits[i] = (float)log(probs[i]);
    kept = stages_run(&c, s, logits, n, recent, n_recent);
    for (i = 0; i < kept; i++) sum += p[i] = exp((double)c.x[i] - (double)c.best);
    for (i = 0; i < kept; i++) p[i] /= sum;
    for (i = 0; i < n_want; i++) want_sum += want[i] = expected[i];
    if (s->xtc_probability > 0 || s->typical_p > 0)
        for (i = 0; i < n_want; i++) want[i] /= want_sum;
    vector_sort(p, 16);
    vector_sort(want, 16);
    for (i = 0; i < 16; i++)
        if (fabs(p[i] - want[i]) > 1e-5)
            FAIL("line %d: %g, not %g (%d kept)", line, p[i], want[i], kept);
}

/* A queue of stages over probabilities that grow with the id: the kept ones are the last, and how
 * many is known in whole numbers. */
static void vector_queue(int line, int n, const char *queue, int k, double p, double min_p) {
    static float logits[STAGE_MAX];
    sm_sampler s = sampler_of(1.0f, k, p > 0 ? (float)p : 1e-30f, (float)min_p);
    sm__choice c;
    int i, first = 0;
    for (i = 0; i < n; i++) logits[i] = i ? (float)log((double)i) : -HUGE_VALF;
    for (i = 0; queue[i]; i++) {
        int64_t all = 0, sum = 0;
        int at;
        s.order[i] = queue[i] == 'k' ? SM_STAGE_TOP_K
                                     : queue[i] == 'p' ? SM_STAGE_TOP_P : SM_STAGE_MIN_P;
        for (at = first; at < n; at++) all += at;
        if (queue[i] == 'k') first = n - k > first ? n - k : first;
        if (queue[i] == 'p' && p < 1) {
            for (at = n; at > first && (at == n || (double)sum < (double)(float)p * (double)all);)
                sum += --at;
            first = at;
        }
        if (queue[i] == 'm')
            while (first < n - 1 && first < min_p * (n - 1)) first++;
        stages_run(&c, &s, logits, n, NULL, 0);
        if (c.n != n - first || sm__id(&c, 0) != first || sm__id(&c, c.n - 1) != n - 1)
            FAIL("line %d, %s: %d from %d on, not %d", line, queue, c.n, (int)sm__id(&c, 0), first);
    }
}

static void sampler_meets_the_vectors(void) {
    size_t bytes;
    uint8_t *text = file_read(data_path("sampling.json"), &bytes);
    sm__json cases, one, args;
    int n_cases = 0;
    if (!text) return;
    if (CHECK(sm__json_find(sm__json_make(text, bytes), "cases", &cases) &&
              sm__json_enter(&cases, '['))) {
        while (sm__json_item(&cases)) {
            double probs[16], want[16], a[8] = {0}, ids[16];
            int32_t recent[16];
            int n, n_want = 0, n_recent = 0, n_args = 0, i, line;
            char name[20], queue[8] = "";
            uint32_t breakers = 0;
            sm_sampler s = sampler_of(1.0f, 0, 0.0f, 0.0f);
            uint64_t number;
            one = cases;
            sm__json_find(one, "line", &args);
            sm__json_u64(&args, &number);
            line = (int)number;
            sm__json_text(sm__json_find_string(one, "test"), name, sizeof name);
            sm__json_find(one, "args", &args);
            sm__json_enter(&args, '[');
            sm__json_item(&args);
            n_cases++;
            if (!strcmp(name, "sampler_queue")) {
                sm__str q;
                sm__json_number(&args, &a[0]);
                sm__json_item(&args);
                sm__json_string(&args, &q);
                sm__json_text(q, queue, sizeof queue);
                for (i = 1; i < 4; i++) sm__json_item(&args), sm__json_number(&args, &a[i]);
                vector_queue(line, (int)a[0], queue, (int)a[1], a[2], a[3]);
                sm__json_skip(&cases);
                continue;
            }
            n = vector_floats(&args, probs, 16);
            sm__json_item(&args);
            if (!strcmp(name, "penalties") || !strcmp(name, "dry")) {
                n_recent = vector_floats(&args, ids, 16);
                for (i = 0; i < n_recent; i++) recent[i] = (int32_t)ids[i];
                sm__json_item(&args);
            }
            n_want = vector_floats(&args, want, 16);
            while (sm__json_item(&args)) {
                if (sm__json_peek(&args) == '[') { /* breakers: lists of one id */
                    sm__json_enter(&args, '[');
                    while (sm__json_item(&args)) {
                        CHECK(vector_floats(&args, ids, 16) == 1);
                        breakers |= (uint32_t)1 << (int)ids[0];
                    }
                } else if (n_args < 8) sm__json_number(&args, &a[n_args++]);
            }
            if (!strncmp(name, "temp", 4)) {
                s.temperature = (float)a[0];
                s.dynatemp_range = (float)a[1], s.dynatemp_exponent = (float)a[2];
            } else if (!strcmp(name, "top_k")) s.top_k = (int)a[0];
            else if (!strcmp(name, "top_p")) s.top_p = a[0] > 0 ? (float)a[0] : 1e-30f;
            else if (!strcmp(name, "min_p")) s.min_p = (float)a[0];
            else if (!strcmp(name, "typical")) s.typical_p = (float)a[0];
            else if (!strcmp(name, "top_n_sigma")) s.top_n_sigma = (float)a[0];
            else if (!strcmp(name, "xtc")) s.xtc_probability = 1.0f, s.xtc_threshold = (float)a[1];
            else if (!strcmp(name, "penalties")) {
                s.repeat_penalty = (float)a[0], s.repeat_window = n_recent;
                s.frequency_penalty = (float)a[1], s.presence_penalty = (float)a[2];
            } else if (!strcmp(name, "dry")) {
                s.dry_multiplier = (float)a[0], s.dry_base = (float)a[1];
                s.dry_allowed_length = (int)a[2], s.dry_window = (int)a[3];
                s.dry_breakers = &breakers;
            } else FAIL("line %d: what is %s?", line, name);
            vector_check(line, &s, probs, n, recent, n_recent, want, n_want);
            sm__json_skip(&cases);
        }
        CHECK(!cases.bad && n_cases == 65);
    }
    free(text);
}

/* --- what is kept from call to call ----------------------------------------------------------- */

/* Version 2 cuts at mu and learns by its rule, from the probabilities it drew with. */
static void mirostat_learns(void) {
    float logits[300];
    double mean = 0.0;
    int version, i, k;
    random_logits(logits, 300, 1.0f);
    for (version = 1; version <= 2; version++) {
        sm_sampler s = sampler_of(1.0f, 1, 0.0f, 0.0f); /* top_k does not count here */
        sm_sampler_state st;
        memset(&st, 0, sizeof st);
        s.mirostat = version;
        s.mirostat_tau = 4.0f;
        mean = 0.0;
        for (k = 0; k < 1000; k++) {
            double mu = k ? (double)st.mu : 8.0, all = 0.0, sum = 0.0;
            int32_t id = sm_sample(&s, &st, logits, 300, NULL, 0, stage_work);
            if (!CHECK(id >= 0) || !CHECK(st.index == (uint64_t)k + 1)) return;
            mean += (4.0 + (mu - (double)st.mu) / (double)0.1f) / 1000;
            if (version == 1) continue;
            for (i = 0; i < 300; i++) all += exp((double)logits[i]);
            for (i = 0; i < 300; i++)
                if (-log(exp((double)logits[i]) / all) / log(2.0) <= mu)
                    sum += exp((double)logits[i]);
            CHECK_NEAR(st.mu, mu - 0.1 * (-log(exp((double)logits[id]) / sum) / log(2.0) - 4.0),
                       2e-3);
        }
        CHECK_NEAR(mean, 4.0, 0.1);
    }
}

/* XTC runs as often as it shall, and its random numbers are not those of the draw. */
static void xtc_has_its_probability(void) {
    enum { DRAWS = 20000 };
    static const double want[3] = {0.7 * 0.5, 0.7 * 0.3, 0.3 + 0.7 * 0.2};
    float logits[3];
    sm_sampler s = sampler_of(1.0f, 0, 0.0f, 0.0f);
    sm_sampler_state st;
    int count[3] = {0}, i;
    for (i = 0; i < 3; i++) logits[i] = (float)log(i ? 0.4 - 0.1 * i : 0.5);
    memset(&st, 0, sizeof st);
    s.xtc_probability = 0.3f;
    for (i = 0; i < DRAWS; i++) count[sm_sample(&s, &st, logits, 3, NULL, 0, stage_work) % 3]++;
    for (i = 0; i < 3; i++)
        CHECK_NEAR(count[i] / (double)DRAWS, want[i], 5 * sqrt(want[i] * (1 - want[i]) / DRAWS));
}

/* A repetition costs multiplier * base^(length - allowed), but not across a breaker, nor for the
 * breaker itself. */
static void dry_looks_back_to_a_breaker(void) {
    static const int32_t recent[] = {1, 2, 3, 4, 9, 1, 2, 3};
    float logits[10] = {0};
    uint32_t breakers = 0;
    sm_sampler s = sampler_of(1.0f, 0, 0.0f, 0.0f);
    sm__choice c;
    s.dry_multiplier = 0.5f;
    s.dry_base = 2.0f;
    s.dry_breakers = &breakers;
    CHECK(stages_run(&c, &s, logits, 10, recent, 8) == 10);
    CHECK(c.x[4] == -1.0f && c.x[9] == 0.0f && c.x[1] == 0.0f);
    breakers = 1u << 4;
    stages_run(&c, &s, logits, 10, recent, 8);
    CHECK(c.x[4] == 0.0f);
    breakers = 1u << 1; /* two ids are left behind it */
    stages_run(&c, &s, logits, 10, recent, 8);
    CHECK(c.x[4] == -0.5f);
    breakers = 1u << 2;
    stages_run(&c, &s, logits, 10, recent, 8);
    CHECK(c.x[4] == 0.0f);
    breakers = 0;
    s.dry_window = 4;
    stages_run(&c, &s, logits, 10, recent, 8);
    CHECK(c.x[4] == 0.0f);
}

/* --- masks, biases, edits, log-probabilities -------------------------------------------------- */

static void edit_all(void *user, float *logits, int n) {
    int i;
    for (i = 0; i < n; i++) logits[i] = i == *(int *)user ? 1.0f : -SM__INFINITY;
}

static void sampler_obeys_masks_biases_and_edits(void) {
    float logits[100], inf = SM__INFINITY;
    uint32_t mask[4];
    sm_bias biases[2];
    int round, i, only = 77;
    for (round = 0; round < 200; round++) {
        sm_sampler s = sampler_of(round % 2 ? 1.0f : 0.0f, round % 3 == 1 ? 4 : 0,
                                  round % 5 == 1 ? 0.8f : 0.0f, 0.0f);
        int32_t id;
        random_logits(logits, 100, 3.0f);
        for (i = 0; i < 4; i++) mask[i] = random_below(4) ? 0 : (uint32_t)random_below(1 << 30) * 4;
        s.mask = mask;
        id = sample_of(&s, logits, 100, NULL, 0, 0, (uint64_t)round, stage_work);
        if (!(mask[0] | mask[1] | mask[2] | (mask[3] & 15))) CHECK(id == SM_ERR_NUMBER);
        else CHECK(id >= 0 && id < 100 && (mask[id >> 5] >> (id & 31) & 1));
        s.mask = NULL;
        s.biases = biases, s.n_biases = 2;
        biases[0].id = run_best(logits, 100), biases[0].bias = -inf;
        biases[1].id = (biases[0].id + 1) % 100, biases[1].bias = 0.5f;
        id = sample_of(&s, logits, 100, NULL, 0, 0, (uint64_t)round, stage_work);
        CHECK(id >= 0 && id != biases[0].id);
        biases[1].bias = inf;
        CHECK(sample_of(&s, logits, 100, NULL, 0, 0, 1, stage_work) == biases[1].id);
        s.n_biases = 0;
        s.edit = edit_all, s.edit_user = &only;
        CHECK(sample_of(&s, logits, 100, NULL, 0, 0, 1, stage_work) == only);
        s.mask = mask;
        mask[2] = 0;
        CHECK(sample_of(&s, logits, 100, NULL, 0, 0, 1, stage_work) == SM_ERR_NUMBER);
    }
}

static void logprobs_are_the_models(void) {
    float logits[500];
    sm_logprob out[501];
    int round, i, k;
    for (round = 0; round < 20; round++) {
        double sum = 0.0;
        int n = round % 2 ? 500 : 20;
        random_logits(logits, 500, 3.0f);
        if (round % 4 == 3)
            for (i = 0; i < 500; i++) logits[i] = floorf(logits[i]);
        logits[7] = -SM__INFINITY;
        for (i = 0; i < 500; i++) sum += exp((double)logits[i]);
        if (!CHECK(sm_logprobs(logits, 500, 7 + round, out, n, stage_work) == n + 1)) return;
        CHECK(out[0].id == 7 + round && (round || out[0].logprob == -SM__INFINITY));
        for (i = round ? 0 : 1; i <= n; i++)
            if (out[i].id != 7)
                CHECK_NEAR(out[i].logprob, (double)logits[out[i].id] - log(sum), 2e-6);
        for (i = 2; i <= n; i++)
            CHECK(logits[out[i].id] < logits[out[i - 1].id] ||
                  (logits[out[i].id] == logits[out[i - 1].id] && out[i].id > out[i - 1].id));
        for (i = k = 0; i < 500; i++) k += logits[i] > logits[out[n].id];
        CHECK(k < n);
    }
    CHECK(sm_logprobs(logits, 500, 500, out, 2, stage_work) == SM_ERR_ARG);
    CHECK(sm_logprobs(logits, 500, 0, out, 501, stage_work) == SM_ERR_ARG);
    for (i = 0; i < 500; i++) logits[i] = sm__from_bits(0x7fc00000u);
    CHECK(sm_logprobs(logits, 500, 0, out, 2, stage_work) == SM_ERR_NUMBER);
}

/* The same ids on every system: a hash of many choices by all stages, and of their states. */
static void sampler_has_the_same_bits_everywhere(void) {
    float logits[2000];
    int32_t recent[STAGE_RECENT], id;
    uint64_t hash = 0, x = 1;
    int round, i, mu;
    for (round = 0; round < 300; round++) {
        /* exact, for a compiler that may fuse the test's own sums */
        sm_sampler s = sampler_of(0.5f + (float)round / 128.0f, round % 7 ? 0 : 50, 0.0f, 0.0f);
        sm_sampler_state st;
        memset(&st, 0, sizeof st);
        for (i = 0; i < 2000; i++) {
            x = x * 6364136223846793005u + 1442695040888963407u;
            logits[i] = (float)(int32_t)(x >> 40) * (1.0f / (1 << 21)) - 4.0f;
        }
        for (i = 0; i < STAGE_RECENT; i++) recent[i] = (int32_t)((x >> 33) + (uint64_t)i) % 5;
        if (round % 2) s.top_p = 0.9f;
        if (round % 3 == 1) s.min_p = 0.02f;
        if (round % 5 == 1) s.typical_p = 0.8f;
        if (round % 5 == 2) s.top_n_sigma = 1.5f;
        if (round % 5 == 3) s.xtc_probability = 0.5f, s.xtc_threshold = 0.0005f;
        if (round % 5 == 4) s.dynatemp_range = 0.4f;
        if (round % 11 == 1) s.mirostat = 1 + round % 2, s.mirostat_tau = 6.0f;
        s.repeat_penalty = 1.1f, s.frequency_penalty = 0.1f, s.dry_multiplier = 0.8f;
        for (i = 0; i < 4; i++) {
            id = sm_sample(&s, &st, logits, 2000, recent, STAGE_RECENT, stage_work);
            mu = (int)sm__bits(st.mu);
            hash = (hash ^ (uint64_t)id ^ (uint64_t)(uint32_t)mu << 20) * 1099511628211u;
        }
    }
    if (hash != UINT64_C(0xafb01ab7fc5293a9)) FAIL("hash %llx", (unsigned long long)hash);
}

/* --- arguments -------------------------------------------------------------------------------- */

static void sampler_names_what_is_wrong(void) {
#define BAD(field, value) {#field, offsetof(sm_sampler, field), value, 1}
#define BAD_INT(field, value) {#field, offsetof(sm_sampler, field), value, 0}
    static const struct {
        const char *name;
        size_t at;
        double value;
        int is_float;
    } bad[] = {BAD(temperature, HUGE_VAL), BAD(dynatemp_range, -1), BAD(dynatemp_exponent, -1),
               BAD(top_p, -0.1), BAD(min_p, -1), BAD(typical_p, -1), BAD(top_n_sigma, HUGE_VAL),
               BAD(xtc_probability, -1), BAD(xtc_threshold, -1), BAD(repeat_penalty, -1),
               BAD(presence_penalty, HUGE_VAL), BAD(frequency_penalty, -HUGE_VAL),
               BAD(dry_multiplier, -1), BAD(dry_base, -1), BAD(mirostat_tau, -1),
               BAD(mirostat_eta, -1), BAD_INT(top_k, -1), BAD_INT(min_keep, -1),
               BAD_INT(repeat_window, -1), BAD_INT(dry_allowed_length, -1), BAD_INT(dry_window, -1),
               BAD_INT(mirostat, 3), BAD_INT(mirostat, -1), BAD_INT(n_biases, -1)};
#undef BAD
#undef BAD_INT
    float logits[4] = {0, 1, 2, 3}, nan = sm__from_bits(0x7fc00000u);
    sm_bias bias = {4, 0.0f};
    size_t i;
    sm_error error;
    sm_sampler s;
    for (i = 0; i < sizeof bad / sizeof *bad; i++) {
        float f = (float)bad[i].value;
        int k = (int)bad[i].value, twice;
        s = sampler_of(1.0f, 0, 0.0f, 0.0f);
        for (twice = 0; twice < (bad[i].is_float ? 2 : 1); twice++) {
            if (bad[i].is_float) memcpy((char *)&s + bad[i].at, twice ? &nan : &f, sizeof f);
            else memcpy((char *)&s + bad[i].at, &k, sizeof k);
            CHECK_STATUS(sm_sampler_check(&s, 4, &error), SM_ERR_ARG);
            if (!strstr(error.text, bad[i].name)) FAIL("%s: %s", bad[i].name, error.text);
            CHECK(sm_sample(&s, NULL, logits, 4, NULL, 0, stage_work) == SM_ERR_ARG);
        }
    }
    s = sampler_of(1.0f, 1000, 0.0f, 0.0f); /* more than there are: all */
    CHECK(sm_sample(&s, NULL, logits, 4, NULL, 0, stage_work) >= 0);
    s.biases = &bias, s.n_biases = 1;
    CHECK_STATUS(sm_sampler_check(&s, 4, &error), SM_ERR_ARG);
    bias.id = 3, bias.bias = nan;
    CHECK_STATUS(sm_sampler_check(&s, 4, &error), SM_ERR_ARG);
    s.n_biases = 0;
    s.order[0] = SM_STAGE_COUNT;
    CHECK_STATUS(sm_sampler_check(&s, 4, &error), SM_ERR_ARG);
    memset(s.order, SM_STAGE_TOP_K, sizeof s.order);
    CHECK_STATUS(sm_sampler_check(&s, 4, &error), SM_ERR_ARG);
    CHECK(sm_stage_name(SM_STAGE_END) == NULL && sm_stage_name(SM_STAGE_COUNT) == NULL);
    CHECK(!strcmp(sm_stage_name(SM_STAGE_TOP_K), "top_k"));
}

/* --- through sm_generate ---------------------------------------------------------------------- */

typedef struct through {
    sm_ctx *ctx;
    char text[4096];
    size_t bytes;
} through;

static int through_piece(void *user, const char *piece, size_t bytes) {
    through *t = (through *)user;
    if (t->bytes + bytes >= sizeof t->text) return 1;
    memcpy(t->text + t->bytes, piece, bytes);
    t->bytes += bytes;
    return 0;
}

static uint64_t through_hash(through *t, const sm_gen_params *p) {
    sm_gen_stats stats;
    t->bytes = 0;
    if (!CHECK_STATUS(sm_generate(t->ctx, p, through_piece, t, &stats), SM_OK)) return 0;
    return hash_bytes(t->text, t->bytes);
}

/* Every parameter changes what is said; a second time it is said again. */
static void every_option_reaches_the_choice(void) {
    gguf_model_params mp = gguf_model_default("llama", SM_TYPE_F32);
    sm_model *m = gguf_model_open(&mp);
    sm_ctx_params cp = sm_ctx_default();
    static const sm_bias bias[] = {{5, 9.0f}};
    static const char *const breakers[] = {"a", "e", "t", "o", " "};
    uint64_t plain;
    through t;
    int i;
    memset(&t, 0, sizeof t);
    cp.n_threads = 1;
    cp.n_ctx = 200;
    t.ctx = m ? run_ctx(m, &cp) : NULL;
    for (i = 0; i < 24 && t.ctx; i++) {
        sm_gen_params p = sm_gen_default(), q;
        sm_sampler *s = &q.sampler;
        p.prompt = "the cat sat on the mat, the cat sat";
        p.max_tokens = 40;
        p.ignore_end = 1;
        p.sampler.temperature = i == 21 ? 1e-3f : 1.0f; /* so that it repeats itself */
        if (i >= 13 && i <= 16) p.sampler.dry_multiplier = 2.0f;
        if (i == 16) p.n_dry_breakers = -1;
        if (i == 3 || i == 22) p.sampler.top_p = 0.3f;
        if (i == 8) p.sampler.xtc_probability = 1.0f, p.sampler.xtc_threshold = 0.02f;
        if (i == 18 || i == 19) p.sampler.mirostat = 2;
        if (i >= 10 && i <= 12) p.sampler.repeat_penalty = 1.5f;
        q = p;
        switch (i) {
        case 0: s->temperature = 0.5f; break;
        case 1: s->dynatemp_range = 0.9f; break;
        case 2: s->top_k = 5; break;
        case 3: s->min_keep = 300; break;
        case 4: s->top_p = 0.5f; break;
        case 5: s->min_p = 0.3f; break;
        case 6: s->typical_p = 0.3f; break;
        case 7: s->top_n_sigma = 0.8f; break;
        case 8: s->xtc_threshold = 0.001f; break;
        case 9: s->xtc_probability = 1.0f, s->xtc_threshold = 0.001f; break;
        case 10: s->repeat_penalty = 1.0f; break;
        case 11: s->presence_penalty = 2.0f; break;
        case 12: s->repeat_window = 1; break;
        case 13: s->dry_multiplier = 0.0f; break;
        case 14: s->dry_allowed_length = 5; break;
        case 15: s->dry_window = 4; break;
        case 16: q.dry_breakers = breakers, q.n_dry_breakers = 5; break;
        case 17: s->mirostat = 1; break;
        case 18: s->mirostat_tau = 1.0f; break;
        case 19: s->mirostat_eta = 3.0f; break;
        case 20: s->biases = bias, s->n_biases = 1; break;
        case 21: s->frequency_penalty = 5.0f; break;
        case 22: s->order[0] = SM_STAGE_TEMPERATURE; break; /* without top_p */
        default: s->seed = 5; break;
        }
        plain = through_hash(&t, &p);
        if (through_hash(&t, &q) == plain) FAIL("case %d changes nothing: %s", i, t.text);
        if (i % 6 == 0) CHECK(through_hash(&t, &p) == plain);
    }
    if (t.ctx) sm_ctx_destroy(t.ctx);
    sm_model_close(m);
}

/* Log-probabilities of each step, and what a mask that leaves nothing gives. */
static void generations_tell_logprobs(void) {
    gguf_model_params mp = gguf_model_default("llama", SM_TYPE_F32);
    sm_model *m = gguf_model_open(&mp);
    sm_ctx_params cp = sm_ctx_default();
    static const uint32_t none[64] = {0};
    static const sm_bias bad[] = {{1 << 20, 1.0f}};
    sm_gen_params p = sm_gen_default();
    sm_ctx *ctx;
    sm_gen *g;
    int n, steps = 0;
    cp.n_threads = 1;
    ctx = m ? run_ctx(m, &cp) : NULL;
    p.prompt = "the cat";
    p.max_tokens = 20;
    p.ignore_end = 1;
    p.n_logprobs = 3;
    p.sampler.temperature = 1.0f;
    if (ctx && CHECK_STATUS(sm_gen_start(ctx, &p, &g), SM_OK)) {
        while (sm_gen_step(g, -1) == SM_PENDING && steps++ < 30) {
            const sm_logprob *list = sm_gen_logprobs(g, &n);
            CHECK(n == 4 && list[0].id == sm_gen_token(g));
            CHECK(list[1].logprob >= list[0].logprob && list[1].logprob >= list[2].logprob);
            CHECK(list[0].logprob <= 0.0f && list[3].logprob <= list[2].logprob);
        }
        CHECK(steps == 19);
        p.sampler.mask = none;
        CHECK_STATUS(sm_gen_start(ctx, &p, &g), SM_OK);
        CHECK_STATUS(sm_gen_step(g, -1), SM_ERR_NUMBER);
        CHECK(sm_gen_get_stats(g).finish == SM_FINISH_ERROR && *sm_ctx_error(ctx));
        p.sampler.mask = NULL;
        p.n_logprobs = SMALLMIND_MAX_LOGPROBS + 1;
        CHECK_STATUS(sm_gen_start(ctx, &p, &g), SM_ERR_ARG);
        p.n_logprobs = 0, p.n_dry_breakers = 1;
        CHECK_STATUS(sm_gen_start(ctx, &p, &g), SM_ERR_ARG);
        p.n_dry_breakers = 0, p.sampler.biases = bad, p.sampler.n_biases = 1;
        CHECK_STATUS(sm_gen_start(ctx, &p, &g), SM_ERR_ARG);
    }
    if (ctx) sm_ctx_destroy(ctx);
    sm_model_close(m);
}

/* Breakers may begin in one id and end in another: where DRY begins is as the text says. */
static void breakers_span_ids(void) {
    static const char *const lists[][3] = {{"at s", NULL, NULL}, {"t", "cat", NULL},
                                           {"e ca", "n t", "at,"}, {"q", NULL, NULL},
                                           {"the cat sat on the mat", "zz", NULL}};
    gguf_model_params mp = gguf_model_default("llama", SM_TYPE_F32);
    sm_model *m = gguf_model_open(&mp);
    sm_ctx_params cp = sm_ctx_default();
    sm_ctx *ctx;
    int k, b, i;
    cp.n_threads = 1;
    ctx = m ? run_ctx(m, &cp) : NULL;
    for (k = 0; k < 5 && ctx; k++) {
        sm_gen_params p = sm_gen_default();
        sm_gen *g;
        char text[400];
        size_t n = 0, old = 0;
        int want = 0;
        p.prompt = "the cat sat on the mat, the cat sat on the ";
        p.sampler.dry_multiplier = 1.0f;
        p.dry_breakers = lists[k];
        while (p.n_dry_breakers < 3 && lists[k][p.n_dry_breakers]) p.n_dry_breakers++;
        if (!CHECK_STATUS(sm_gen_start(ctx, &p, &g), SM_OK)) break;
        for (i = 0; i < g->n_ids; i++) {
            size_t bytes = 0, at;
            const char *more = sm_token_text(m, g->ids[i], &bytes);
            memcpy(text + n, more, bytes);
            n += bytes;
            for (b = 0; b < p.n_dry_breakers; b++) {
                size_t long_ = strlen(lists[k][b]);
                for (at = 0; at + long_ <= n; at++)
                    if (at + long_ > old && !memcmp(text + at, lists[k][b], long_)) want = i + 1;
            }
            old = n;
        }
        CHECK((want > 0) == (k != 3));
        if (g->state.dry_from != want)
            FAIL("list %d: DRY looks from %d on, not %d", k, g->state.dry_from, want);
    }
    if (ctx) sm_ctx_destroy(ctx);
    sm_model_close(m);
}

static const test tests_sampler[] = {
    {"sampler: breakers of DRY span ids", breakers_span_ids},
    {"sampler: llama.cpp's vectors", sampler_meets_the_vectors},
    {"sampler: mirostat learns by its rule", mirostat_learns},
    {"sampler: XTC has its probability", xtc_has_its_probability},
    {"sampler: DRY looks back to a breaker", dry_looks_back_to_a_breaker},
    {"sampler: masks, biases and edits", sampler_obeys_masks_biases_and_edits},
    {"sampler: log-probabilities are the model's", logprobs_are_the_models},
    {"sampler: the same bits everywhere", sampler_has_the_same_bits_everywhere},
    {"sampler: bad arguments are named", sampler_names_what_is_wrong},
    {"sampler: every option reaches the choice", every_option_reaches_the_choice},
    {"sampler: generations tell log-probabilities, refuse empty masks", generations_tell_logprobs},
};
