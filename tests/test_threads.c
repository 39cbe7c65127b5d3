/* test_threads.c - teams of workers: made and destroyed in any number and state, shared by contexts
 * that are evaluated at the same time, helped by the host's threads. Small enough for the thread
 * sanitizer (make san). Included by test.c after build_gguf.h. */
#include "runs.h"

static sm_model *threads_model(void) {
    gguf_model_params p = gguf_model_default("llama", SM_TYPE_F32);
    p.vocab = GGUF_NO_VOCAB;
    return gguf_model_open(&p);
}

static sm_team *team_make(int n_threads) {
    sm_team_params p = sm_team_default();
    sm_team *team = NULL;
    sm_error error;
    p.n_threads = n_threads;
    p.allocator = heap_allocator();
    if (sm_team_create(&p, &team, &error)) FAIL("team of %d: %s", n_threads, error.text);
    return team;
}

/* Scalar kernels: even a small model's steps have tiles to share. */
static sm_ctx *threads_ctx(const sm_model *m, sm_team *team, int n_threads) {
    sm_ctx_params p = sm_ctx_default();
    p.n_ctx = 128;
    p.n_batch = 16;
    p.isa = SM_ISA_SCALAR;
    p.team = team;
    p.n_threads = n_threads;
    return run_ctx(m, &p);
}

static void team_of_any_size_works(void) {
    sm_model *m = threads_model();
    float want[320];
    int32_t tokens[24];
    int n;
    if (!m) return;
    run_tokens(m, tokens, 24);
    for (n = 1; n <= 16; n++) {
        sm_team *team = team_make(n);
        sm_ctx *ctx = team ? threads_ctx(m, team, 0) : NULL;
        if (ctx) {
            CHECK(sm_ctx_get_stats(ctx).plan.n_threads == n);
            CHECK_STATUS(run_eval(ctx, 0, tokens, 24), SM_OK);
            if (n == 1) memcpy(want, sm_logits(ctx, -1), sizeof want);
            SAME("team", sm_logits(ctx, -1), want, 1, 320);
        }
        sm_ctx_destroy(ctx);
        sm_team_destroy(team);
    }
    sm_model_close(m);
}

static void team_checks_its_parameters(void) {
    sm_team_params p;
    sm_team *team = NULL;
    sm_error error;
    int i;
    for (i = 0; i < 6; i++) {
        p = sm_team_default();
        if (i == 0) p.n_threads = -1;
        if (i == 1) p.n_threads = 257;
        if (i == 2) p.jobs.n_workers = -1;
        if (i == 3) p.jobs.n_workers = 256;
        if (i == 4) p.allocator.alloc = heap_alloc;
        if (i == 5) p.allocator.free = heap_free;
        memset(&error, 0, sizeof error);
        CHECK_STATUS(sm_team_create(&p, &team, &error), SM_ERR_ARG);
        CHECK(team == NULL && error.text[0]);
    }
    p = sm_team_default();
    CHECK_STATUS(sm_team_create(&p, NULL, NULL), SM_ERR_ARG);
    CHECK_STATUS(sm_team_create(NULL, &team, NULL), SM_ERR_ARG);
    sm_team_lend(NULL);
    sm_team_destroy(NULL);
}

/* Most of them die before their workers ever ran. */
static void team_created_and_destroyed_1000_times(void) {
    int i;
    for (i = 0; i < 1000 && check.errors == 0; i++) {
        sm_team *team = team_make(1 + i % 4);
        if (i % 7 == 0) sm_team_lend(team); /* there is nothing to do */
        sm_team_destroy(team);
    }
}

static void ctx_with_its_own_team_200_times(void) {
    sm_model *m = threads_model();
    int32_t tokens[3] = {1, 2, 3};
    int i;
    for (i = 0; m && i < 200 && check.errors == 0; i++) {
        sm_ctx *ctx = threads_ctx(m, NULL, 1 + i % 5);
        sm_batch b;
        memset(&b, 0, sizeof b);
        b.n = 3;
        b.tokens = tokens;
        if (ctx && i % 3 == 0) CHECK_STATUS(sm_eval(ctx, &b), SM_OK);
        if (ctx && i % 3 == 1) { /* destroyed in the middle of a pass */
            CHECK_STATUS(sm_eval_begin(ctx, &b), SM_OK);
            CHECK_STATUS(sm_eval_step(ctx, 0), SM_PENDING);
        }
        sm_ctx_destroy(ctx);
    }
    sm_model_close(m);
}

#ifdef RUN_THREADS

static void rest_ms(int ms) {
    uint64_t until = sm__now_ns() + (uint64_t)ms * 1000000u;
    while (sm__now_ns() < until) sched_yield();
}

/* Workers that sleep are woken to work, and woken to die. */
static void team_parks_and_wakes(void) {
    sm_model *m = threads_model();
    sm_team *team = m ? team_make(4) : NULL;
    sm_ctx *ctx = team ? threads_ctx(m, team, 0) : NULL;
    float want[320];
    int32_t tokens[40];
    int i, round;
    if (ctx) {
        run_tokens(m, tokens, 40);
        for (round = 0; round < 5; round++) {
            for (i = 0; i < 500 && sm__load32(&team->parked) < 3; i++) rest_ms(2);
            CHECK(sm__load32(&team->parked) == 3); /* within a second */
            CHECK_STATUS(sm_seq_release(ctx, 0), SM_OK);
            CHECK_STATUS(run_eval(ctx, 0, tokens, 40), SM_OK);
            if (round == 0) memcpy(want, sm_logits(ctx, -1), sizeof want);
            SAME("woken", sm_logits(ctx, -1), want, 1, 320);
        }
        for (i = 0; i < 500 && sm__load32(&team->parked) < 3; i++) rest_ms(2);
    }
    sm_ctx_destroy(ctx);
    sm_team_destroy(team); /* returns although they sleep */
    sm_model_close(m);
}

/* --- contexts at the same time ---------------------------------------------------------------- */

enum { SHARE_N = 60 };

typedef struct sharer {
    const sm_model *m;
    sm_team *team;
    pthread_t thread;
    int32_t tokens[SHARE_N];
    float want[320], got[320];
    int rounds, sliced;
    sm_status status;
} sharer;

/* Own context, shared team: the same tokens again and again. */
static void *sharer_main(void *arg) {
    sharer *s = (sharer *)arg;
    sm_ctx_params p = sm_ctx_default();
    sm_ctx *ctx = NULL;
    int i;
    p.n_ctx = SHARE_N;
    p.n_batch = s->sliced ? 7 : 32;
    p.isa = SM_ISA_SCALAR;
    p.team = s->team;
    p.n_threads = 1;
    s->status = sm_ctx_create(s->m, &p, &ctx, NULL);
    for (i = 0; i < s->rounds && s->status == SM_OK; i++) {
        sm_batch b;
        memset(&b, 0, sizeof b);
        b.n = SHARE_N;
        b.tokens = s->tokens;
        sm_seq_release(ctx, 0);
        s->status = sm_eval_begin(ctx, &b);
        while (s->status == SM_OK || s->status == SM_PENDING)
            if ((s->status = sm_eval_step(ctx, s->sliced ? 200 : -1)) != SM_PENDING) break;
        if (s->status != SM_OK) break;
        memcpy(s->got, sm_logits(ctx, -1), sizeof s->got);
        if (i == 0) memcpy(s->want, s->got, sizeof s->want);
        if (memcmp(s->got, s->want, sizeof s->want)) s->status = SM_ERR_FORMAT; /* of the bits */
    }
    sm_ctx_destroy(ctx);
    return NULL;
}

static void team_is_shared_by_contexts_at_the_same_time(void) {
    enum { SHARERS = 3 };
    static sharer s[SHARERS];
    sm_model *m = threads_model();
    sm_team *team = m ? team_make(3) : NULL;
    float alone[SHARERS][320];
    int i;
    if (team) {
        for (i = 0; i < SHARERS; i++) {
            memset(&s[i], 0, sizeof s[i]);
            s[i].m = m;
            run_tokens(m, s[i].tokens, SHARE_N);
            s[i].rounds = 1; /* first alone, without the team */
            sharer_main(&s[i]);
            CHECK_STATUS(s[i].status, SM_OK);
            memcpy(alone[i], s[i].got, sizeof alone[i]);
            s[i].team = team;
            s[i].rounds = 6;
            s[i].sliced = i == 1;
        }
        for (i = 0; i < SHARERS; i++)
            CHECK(pthread_create(&s[i].thread, NULL, sharer_main, &s[i]) == 0);
        for (i = 0; i < SHARERS; i++) pthread_join(s[i].thread, NULL);
        for (i = 0; i < SHARERS; i++) {
            CHECK_STATUS(s[i].status, SM_OK);
            SAME("at the same time", s[i].got, alone[i], 1, 320);
        }
    }
    sm_team_destroy(team);
    sm_model_close(m);
}

/* --- the host's own threads help -------------------------------------------------------------- */

typedef struct lender {
    sm_team *team;
    volatile uint32_t stop;
} lender;

static void *lender_main(void *arg) {
    lender *l = (lender *)arg;
    while (!sm__load32(&l->stop)) {
        sm_team_lend(l->team);
        sched_yield();
    }
    return NULL;
}

static void no_dispatch(void *user, void (*job)(void *arg), void *arg, int n) {
    (void)user, (void)job, (void)arg, (void)n;
}

/* A team without threads; three of ours come by whenever they like. */
static void host_threads_lend_their_time(void) {
    sm_model *m = threads_model();
    sm_team_params p = sm_team_default();
    sm_team *team = NULL;
    sm_ctx *ctx;
    pthread_t threads[3];
    lender l;
    float want[320];
    int32_t tokens[40];
    int i, round;
    p.jobs.dispatch = no_dispatch;
    p.jobs.n_workers = 3;
    p.allocator = heap_allocator();
    if (!m || !CHECK_STATUS(sm_team_create(&p, &team, NULL), SM_OK)) return;
    ctx = threads_ctx(m, team, 0);
    run_tokens(m, tokens, 40);
    if (ctx && CHECK_STATUS(run_eval(ctx, 0, tokens, 40), SM_OK))
        memcpy(want, sm_logits(ctx, -1), sizeof want);
    memset(&l, 0, sizeof l);
    l.team = team;
    for (i = 0; i < 3; i++) CHECK(pthread_create(&threads[i], NULL, lender_main, &l) == 0);
    for (round = 0; ctx && round < 10; round++) {
        CHECK_STATUS(sm_seq_release(ctx, 0), SM_OK);
        CHECK_STATUS(run_eval(ctx, 0, tokens, 40), SM_OK);
        SAME("lent", sm_logits(ctx, -1), want, 1, 320);
    }
    sm_ctx_destroy(ctx); /* while they still ask for work */
    sm__store32(&l.stop, 1);
    for (i = 0; i < 3; i++) pthread_join(threads[i], NULL);
    sm_team_destroy(team);
    sm_model_close(m);
}

/* --- more members than processors ------------------------------------------------------------- */

/* Milliseconds of the quickest of a few evaluations. */
static double best_ms(const sm_model *m, int n_threads, const int32_t *tokens, int n) {
    sm_ctx *ctx = threads_ctx(m, NULL, n_threads);
    double best = 1e300;
    int round, i;
    for (round = 0; ctx && round < 5; round++) {
        uint64_t start;
        double ms;
        sm_seq_release(ctx, 0);
        start = sm__now_ns();
        for (i = 0; i < n; i++) CHECK_STATUS(run_eval(ctx, 0, tokens + i, 1), SM_OK);
        ms = (double)(sm__now_ns() - start) / 1e6;
        if (ms < best) best = ms;
    }
    sm_ctx_destroy(ctx);
    return best;
}

/* Four times as many members as processors are not ten times slower than two: nobody waits for a
 * member that does not run. */
static void too_many_members_do_not_collapse(void) {
    sm_model *m = threads_model();
    int32_t tokens[20];
    double two, many;
    int n = sm__min(64, sm__max(8, 4 * sm__cpu_count()));
    if (!m) return;
    run_tokens(m, tokens, 20);
    two = best_ms(m, 2, tokens, 20);
    many = best_ms(m, n, tokens, 20);
    if (!(many < 10 * two)) FAIL("%d members: %.1f ms, 2 members: %.1f ms", n, many, two);
    sm_model_close(m);
}

#endif /* RUN_THREADS */

static const test tests_threads[] = {
    {"threads: a team of 1 to 16 members works", team_of_any_size_works},
    {"threads: bad parameters of a team are refused", team_checks_its_parameters},
    {"threads: a team is made and destroyed 1000 times", team_created_and_destroyed_1000_times},
    {"threads: a context with a team of its own, 200 times, in mid-pass too",
     ctx_with_its_own_team_200_times},
#ifdef RUN_THREADS
    {"threads: a team sleeps, wakes, and dies asleep", team_parks_and_wakes},
    {"threads: contexts share a team at the same time",
     team_is_shared_by_contexts_at_the_same_time},
    {"threads: the host's threads lend their time", host_threads_lend_their_time},
    {"threads: more members than processors do not collapse", too_many_members_do_not_collapse},
#endif
};
