/* bench.h - what the benchmarks share: the implementation, a clock, statistics, a count of heap
 * calls, the size of the process, and how fast this machine reads memory. POSIX. */
#ifndef BENCH_H
#define BENCH_H

#define _DEFAULT_SOURCE
#include "../examples/common.h"

#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>
#include <time.h>

/* --- heap calls ----------------------------------------------------------------------------------
 * With glibc these definitions stand before its own, so every call of the process is counted: the
 * library's, libc's (stdio, threads) and ours. Elsewhere, and under sanitizers, nothing is. */

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define BENCH_SANITIZED 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define BENCH_SANITIZED 1
#endif

static uint64_t bench_heap_n, bench_heap_b; /* calls that allocate, bytes they asked for */

#if defined(__GLIBC__) && !defined(BENCH_SANITIZED)
#define BENCH_COUNTS_HEAP 1
#ifdef __cplusplus
#define BENCH_NOTHROW noexcept
extern "C" {
#else
#define BENCH_NOTHROW
#endif
extern void *__libc_malloc(size_t bytes);
extern void *__libc_calloc(size_t n, size_t bytes);
extern void *__libc_realloc(void *p, size_t bytes);
extern void *__libc_memalign(size_t align, size_t bytes);

static void bench_heap_add(size_t bytes) {
    __atomic_fetch_add(&bench_heap_n, 1, __ATOMIC_RELAXED);
    __atomic_fetch_add(&bench_heap_b, bytes, __ATOMIC_RELAXED);
}
void *malloc(size_t bytes) BENCH_NOTHROW {
    bench_heap_add(bytes);
    return __libc_malloc(bytes);
}
void *calloc(size_t n, size_t bytes) BENCH_NOTHROW {
    bench_heap_add(n * bytes);
    return __libc_calloc(n, bytes);
}
void *realloc(void *p, size_t bytes) BENCH_NOTHROW {
    bench_heap_add(bytes);
    return __libc_realloc(p, bytes);
}
void *aligned_alloc(size_t align, size_t bytes) BENCH_NOTHROW {
    bench_heap_add(bytes);
    return __libc_memalign(align, bytes);
}
int posix_memalign(void **p, size_t align, size_t bytes) BENCH_NOTHROW {
    bench_heap_add(bytes);
    *p = __libc_memalign(align, bytes);
    return *p ? 0 : ENOMEM;
}
#ifdef __cplusplus
}
#endif
#else
#define BENCH_COUNTS_HEAP 0
#endif

COMMON_UNUSED static uint64_t bench_heap_calls(void) {
    return __atomic_load_n(&bench_heap_n, __ATOMIC_RELAXED);
}
COMMON_UNUSED static uint64_t bench_heap_bytes(void) {
    return __atomic_load_n(&bench_heap_b, __ATOMIC_RELAXED);
}

/* --- time, statistics, memory ----------------------------------------------------------------- */

COMMON_UNUSED static double bench_now(void) { /* seconds */
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int bench_compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

COMMON_UNUSED static void bench_sleep(double seconds) {
    struct timespec t;
    t.tv_sec = (time_t)seconds;
    t.tv_nsec = (long)((seconds - (double)t.tv_sec) * 1e9);
    nanosleep(&t, NULL);
}

/* Sorts v [n]; v[0] is then the least. */
COMMON_UNUSED static double bench_median(double *v, int n) {
    qsort(v, (size_t)n, sizeof *v, bench_compare);
    return n % 2 ? v[n / 2] : 0.5 * (v[n / 2 - 1] + v[n / 2]);
}

/* The most memory that this process held, in MB. */
COMMON_UNUSED static double bench_rss_mb(void) {
    struct rusage usage_now;
    getrusage(RUSAGE_SELF, &usage_now);
#ifdef __APPLE__
    return (double)usage_now.ru_maxrss / 1048576.0;
#else
    return (double)usage_now.ru_maxrss / 1024.0;
#endif
}

COMMON_UNUSED static void *bench_alloc(size_t bytes) {
    void *p = NULL;
    if (posix_memalign(&p, 64, bytes ? bytes : 1)) {
        say(stderr, "no memory for %.1f MB\n", (double)bytes / 1048576.0);
        exit(1);
    }
    return p;
}

/* The numbers that tools/peerbench.c and this project's tests draw: an LCG, high bits. */
COMMON_UNUSED static uint32_t bench_lcg(uint32_t *state) {
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

/* Uniform in [-scale, scale). */
COMMON_UNUSED static void bench_fill(float *x, size_t n, float scale, uint32_t seed) {
    size_t i;
    for (i = 0; i < n; i++) x[i] = scale * ((float)bench_lcg(&seed) * (2.0f / 16777216.0f) - 1.0f);
}

/* Results go here, so that no compiler can leave a measured loop out. */
static volatile uint64_t bench_sink;

/* --- threads -------------------------------------------------------------------------------------
 * A crew of threads that spin between rounds; the caller is member 0. */

typedef struct bench_crew bench_crew;
typedef struct bench_member {
    bench_crew *crew;
    int index;
    pthread_t thread;
} bench_member;

struct bench_crew {
    int n;
    void (*fn)(void *arg, int index, int n);
    void *arg;
    uint32_t round, done; /* round: raised to start one; done: members that finished it */
    int quit;
    bench_member *members;
};

static void bench_wait(const uint32_t *p, uint32_t value) {
    int spins = 0;
    while (__atomic_load_n(p, __ATOMIC_ACQUIRE) != value)
        if (++spins > 2000) sched_yield();
}

static void *bench_member_main(void *arg) {
    bench_member *me = (bench_member *)arg;
    bench_crew *crew = me->crew;
    uint32_t round;
    for (round = 1;; round++) {
        bench_wait(&crew->round, round);
        if (crew->quit) return NULL;
        crew->fn(crew->arg, me->index, crew->n);
        __atomic_fetch_add(&crew->done, 1, __ATOMIC_RELEASE);
    }
}

/* n members, or as many as the system starts. */
COMMON_UNUSED static void bench_crew_start(bench_crew *crew, int n) {
    int i;
    memset(crew, 0, sizeof *crew);
    crew->n = 1;
    crew->members = (bench_member *)bench_alloc((size_t)n * sizeof *crew->members);
    for (i = 1; i < n; i++) {
        bench_member *m = &crew->members[i];
        m->crew = crew;
        m->index = i;
        if (pthread_create(&m->thread, NULL, bench_member_main, m)) break;
        crew->n++;
    }
}

/* fn(arg, index, n) on every member; returns when all are done. */
COMMON_UNUSED static void bench_crew_run(bench_crew *crew, void (*fn)(void *arg, int index, int n),
                                         void *arg) {
    crew->fn = fn;
    crew->arg = arg;
    crew->done = 0;
    __atomic_fetch_add(&crew->round, 1, __ATOMIC_RELEASE);
    fn(arg, 0, crew->n);
    bench_wait(&crew->done, (uint32_t)crew->n - 1);
}

COMMON_UNUSED static void bench_crew_stop(bench_crew *crew) {
    int i;
    crew->quit = 1;
    __atomic_fetch_add(&crew->round, 1, __ATOMIC_RELEASE);
    for (i = 1; i < crew->n; i++) pthread_join(crew->members[i].thread, NULL);
    free(crew->members);
}

/* --- how fast memory is read ---------------------------------------------------------------------
 * Decoding reads every weight once, so this is its limit. Several loops are tried, because none is
 * the fastest on every machine, and the best round of the best loop counts. */

typedef uint64_t (*bench_read_fn)(const unsigned char *p, size_t bytes);

/* As in smallmind.h no flag is needed: each function says what it is compiled for, and runs only
 * where sm_isa_best says that it can. */
#if defined(__x86_64__) && defined(__GNUC__)
#define BENCH_X86 1
#include <immintrin.h>
#elif defined(__aarch64__)
#define BENCH_NEON 1
#include <arm_neon.h>
#endif
#define BENCH_TARGET(isa) __attribute__((target(isa)))
#ifdef __clang__
#define BENCH_UNROLL _Pragma("clang loop unroll(full)")
#else
#define BENCH_UNROLL _Pragma("GCC unroll 8")
#endif

static uint64_t bench_read_plain(const unsigned char *p, size_t bytes) {
    uint64_t a = 0, b = 0, c = 0, d = 0, v[4];
    size_t i;
    for (i = 0; i + 32 <= bytes; i += 32) {
        memcpy(v, p + i, 32);
        a += v[0], b += v[1], c += v[2], d += v[3];
    }
    return a ^ b ^ c ^ d;
}

#ifdef BENCH_X86
#define BENCH_AVX2_LOOP(name, prefetch)                                                            \
    BENCH_TARGET("avx2") static uint64_t name(const unsigned char *p, size_t bytes) {              \
        __m256i a = _mm256_setzero_si256(), b = a, c = a, d = a;                                   \
        size_t i;                                                                                  \
        for (i = 0; i + 128 <= bytes; i += 128) {                                                  \
            const __m256i *v = (const __m256i *)(const void *)(p + i);                             \
            if (prefetch) _mm_prefetch((const char *)p + i + (prefetch), _MM_HINT_T0);             \
            if (prefetch) _mm_prefetch((const char *)p + i + (prefetch) + 64, _MM_HINT_T0);        \
            a = _mm256_add_epi64(a, _mm256_loadu_si256(v));                                        \
            b = _mm256_add_epi64(b, _mm256_loadu_si256(v + 1));                                    \
            c = _mm256_add_epi64(c, _mm256_loadu_si256(v + 2));                                    \
            d = _mm256_add_epi64(d, _mm256_loadu_si256(v + 3));                                    \
        }                                                                                          \
        a = _mm256_add_epi64(_mm256_add_epi64(a, b), _mm256_add_epi64(c, d));                      \
        return (uint64_t)_mm256_extract_epi64(a, 0) ^ (uint64_t)_mm256_extract_epi64(a, 2);        \
    }
BENCH_AVX2_LOOP(bench_read_avx2, 0)
BENCH_AVX2_LOOP(bench_read_avx2_2k, 2048)
BENCH_AVX2_LOOP(bench_read_avx2_4k, 4096)

/* Eight streams at once, a cache line of each in turn: more requests are under way. */
BENCH_TARGET("avx2") static uint64_t bench_read_avx2_8(const unsigned char *p, size_t bytes) {
    size_t each = bytes / 8 / 64 * 64, i, r;
    __m256i a[8], sum = _mm256_setzero_si256();
    for (r = 0; r < 8; r++) a[r] = sum;
    for (i = 0; i + 64 <= each; i += 64) {
        BENCH_UNROLL
        for (r = 0; r < 8; r++) {
            const __m256i *v = (const __m256i *)(const void *)(p + r * each + i);
            a[r] = _mm256_add_epi64(a[r], _mm256_loadu_si256(v));
            a[r] = _mm256_add_epi64(a[r], _mm256_loadu_si256(v + 1));
        }
    }
    for (r = 0; r < 8; r++) sum = _mm256_add_epi64(sum, a[r]);
    return (uint64_t)_mm256_extract_epi64(sum, 0) ^ (uint64_t)_mm256_extract_epi64(sum, 2) ^
           bench_read_avx2(p + 8 * each, bytes - 8 * each);
}

#define BENCH_AVX512_LOOP(name, prefetch)                                                          \
    BENCH_TARGET("avx512f") static uint64_t name(const unsigned char *p, size_t bytes) {           \
        __m512i a = _mm512_setzero_si512(), b = a, c = a, d = a;                                   \
        uint64_t sums[8];                                                                          \
        size_t i;                                                                                  \
        for (i = 0; i + 256 <= bytes; i += 256) {                                                  \
            const char *v = (const char *)p + i;                                                   \
            if (prefetch) _mm_prefetch(v + (prefetch), _MM_HINT_T0);                               \
            if (prefetch) _mm_prefetch(v + (prefetch) + 64, _MM_HINT_T0);                          \
            if (prefetch) _mm_prefetch(v + (prefetch) + 128, _MM_HINT_T0);                         \
            if (prefetch) _mm_prefetch(v + (prefetch) + 192, _MM_HINT_T0);                         \
            a = _mm512_add_epi64(a, _mm512_loadu_si512(v));                                        \
            b = _mm512_add_epi64(b, _mm512_loadu_si512(v + 64));                                   \
            c = _mm512_add_epi64(c, _mm512_loadu_si512(v + 128));                                  \
            d = _mm512_add_epi64(d, _mm512_loadu_si512(v + 192));                                  \
        }                                                                                          \
        a = _mm512_add_epi64(_mm512_add_epi64(a, b), _mm512_add_epi64(c, d));                      \
        _mm512_storeu_si512(sums, a);                                                              \
        return sums[0] ^ sums[3] ^ sums[7];                                                        \
    }
BENCH_AVX512_LOOP(bench_read_avx512, 0)
BENCH_AVX512_LOOP(bench_read_avx512_2k, 2048)
BENCH_AVX512_LOOP(bench_read_avx512_4k, 4096)
#endif

#ifdef BENCH_NEON
static uint64_t bench_read_neon(const unsigned char *p, size_t bytes) {
    uint8x16_t a = vdupq_n_u8(0), b = a, c = a, d = a;
    size_t i;
    for (i = 0; i + 64 <= bytes; i += 64) {
        a = vaddq_u8(a, vld1q_u8(p + i));
        b = vaddq_u8(b, vld1q_u8(p + i + 16));
        c = vaddq_u8(c, vld1q_u8(p + i + 32));
        d = vaddq_u8(d, vld1q_u8(p + i + 48));
    }
    return vgetq_lane_u64(vreinterpretq_u64_u8(vaddq_u8(vaddq_u8(a, b), vaddq_u8(c, d))), 0);
}
#endif

typedef struct bench_read_kind {
    const char *name;
    int isa;
    bench_read_fn fn;
} bench_read_kind;

static const bench_read_kind bench_read_kinds[] = {
    {"plain", SM_ISA_SCALAR, bench_read_plain},
#ifdef BENCH_X86
    {"avx2", SM_ISA_AVX2, bench_read_avx2},
    {"avx2, prefetch 2 KB", SM_ISA_AVX2, bench_read_avx2_2k},
    {"avx2, prefetch 4 KB", SM_ISA_AVX2, bench_read_avx2_4k},
    {"avx2, 8 streams", SM_ISA_AVX2, bench_read_avx2_8},
    {"avx512", SM_ISA_AVX512, bench_read_avx512},
    {"avx512, prefetch 2 KB", SM_ISA_AVX512, bench_read_avx512_2k},
    {"avx512, prefetch 4 KB", SM_ISA_AVX512, bench_read_avx512_4k},
#endif
#ifdef BENCH_NEON
    {"neon", SM_ISA_NEON, bench_read_neon},
#endif
};

typedef struct bench_span { /* a piece of memory to be read, a tensor say */
    const unsigned char *data;
    size_t bytes;
} bench_span;

typedef struct bench_reading { /* what the threads of one measurement share */
    const bench_span *spans;
    int n_spans, passes;
    size_t total;
    bench_read_fn fn;
} bench_reading;

/* Reads one thread's share: a contiguous piece of the spans laid end to end. */
static void bench_read_share(void *arg, int index, int n) {
    const bench_reading *r = (const bench_reading *)arg;
    size_t from = r->total / (size_t)n * (size_t)index, at;
    size_t to = index + 1 == n ? r->total : r->total / (size_t)n * (size_t)(index + 1);
    uint64_t sum = 0;
    int i, pass;
    for (pass = 0; pass < r->passes; pass++)
        for (i = 0, at = 0; i < r->n_spans; at += r->spans[i++].bytes) {
            size_t lo = from > at ? from - at : 0;
            size_t hi = to > at ? to - at : 0;
            if (hi > r->spans[i].bytes) hi = r->spans[i].bytes;
            if (lo < hi) sum += r->fn(r->spans[i].data + lo, hi - lo);
        }
    bench_sink = sum;
}

static double bench_read_round(bench_crew *crew, bench_reading *r) {
    double start = bench_now();
    bench_crew_run(crew, bench_read_share, r);
    return bench_now() - start;
}

static bench_reading bench_reading_of(const bench_span *spans, int n_spans, int kind) {
    bench_reading r;
    int i;
    memset(&r, 0, sizeof r);
    r.spans = spans;
    r.n_spans = n_spans;
    r.passes = 1;
    r.fn = bench_read_kinds[kind].fn;
    for (i = 0; i < n_spans; i++) r.total += spans[i].bytes;
    return r;
}

/* One pass over the spans by one kind of loop; its seconds. The crew lives no longer, so that it
 * takes nothing from the threads of what is measured in between. */
COMMON_UNUSED static double bench_read_once(const bench_span *spans, int n_spans, int n_threads,
                                            int kind) {
    bench_reading r = bench_reading_of(spans, n_spans, kind);
    bench_crew crew;
    double seconds;
    bench_crew_start(&crew, n_threads);
    seconds = bench_read_round(&crew, &r);
    bench_crew_stop(&crew);
    return seconds;
}

/* The best rate, in GB (1e9 bytes) a second, at which threads read all of the spans; *best (may be
 * NULL) is the kind of loop that reached it. A round takes at least 4 ms: small memory is read
 * several times, and then comes from the cache that holds it, as a small model's weights do. */
COMMON_UNUSED static double bench_read_rate(const bench_span *spans, int n_spans, int n_threads,
                                            int *best) {
    bench_crew crew;
    double rate = 0.0;
    int i, kind;
    bench_crew_start(&crew, n_threads);
    for (kind = 0; kind < (int)(sizeof bench_read_kinds / sizeof *bench_read_kinds); kind++) {
        bench_reading r = bench_reading_of(spans, n_spans, kind);
        double started = bench_now(), seconds;
        if (r.total == 0 || bench_read_kinds[kind].isa > (int)sm_isa_best()) continue;
        bench_read_round(&crew, &r); /* touches the pages */
        seconds = bench_read_round(&crew, &r);
        if (seconds < 0.004) r.passes = (int)(0.004 / (seconds + 1e-7)) + 1;
        for (i = 0; i < 8 && (i < 2 || bench_now() - started < 0.4); i++) {
            double now = (double)r.total * r.passes * 1e-9 / bench_read_round(&crew, &r);
            if (now > rate && best) *best = kind;
            if (now > rate) rate = now;
        }
    }
    bench_crew_stop(&crew);
    return rate;
}

/* Times fn(arg) in batches until `seconds` have passed and 5 batches were made (fewer where they
 * take long); returns the best time of one call, in seconds. A batch is long enough (20 us) for
 * the clock. */
COMMON_UNUSED static double bench_time(void (*fn)(void *arg), void *arg, double seconds) {
    double best = 1e30, started, t;
    int batch = 1, n = 0, i;
    fn(arg); /* warm */
    for (;;) {
        t = bench_now();
        for (i = 0; i < batch; i++) fn(arg);
        t = bench_now() - t;
        if (t >= 20e-6 || batch >= 1 << 24) break;
        batch *= 2;
    }
    for (started = bench_now(); n < 1 || bench_now() - started < (n < 5 ? 10 : 1) * seconds; n++) {
        t = bench_now();
        for (i = 0; i < batch; i++) fn(arg);
        t = (bench_now() - t) / batch;
        if (t < best) best = t;
    }
    return best;
}

#endif /* BENCH_H */
