/* check.h - what the tests stand on: checks, a runner with filters, random numbers, memory that
 * ends at a forbidden page, an allocator that fails on request and counts, test data. Included by
 * test.c after smallmind.h; not part of the library. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct test {
    const char *name; /* the claim: "area: what holds" */
    void (*run)(void);
} test;

typedef struct suite {
    const test *tests;
    size_t n;
} suite;
#define SUITE(table) {table, sizeof table / sizeof *table}

/* --- checks: a failure is shown and counted, the test goes on --------------------------------- */

static struct check_state {
    int passed, failed, skipped; /* tests */
    int errors, skips;           /* in the test that runs */
    uint64_t seed, random;
} check;

SM__PRINTF(3, 4) static int check_fail(const char *file, int line, const char *fmt, ...) {
    va_list args;
    if (++check.errors == 21) printf("\n    (more failures are not shown)");
    if (check.errors > 20) return 0;
    printf("\n    %s:%d: ", file, line);
    va_start(args, fmt);
    vprintf(fmt, args);
    va_end(args);
    return 0;
}

static int check_near(const char *file, int line, const char *text, double got, double want,
                      double tol) {
    if (fabs(got - want) <= tol) return 1; /* false for NaN */
    return check_fail(file, line, "%s = %.17g, not %.17g (off by %.3g, %.3g allowed)", text, got,
                      want, fabs(got - want), tol);
}

static int check_status(const char *file, int line, const char *text, int got, int want) {
    if (got == want) return 1;
    return check_fail(file, line, "%s = %d (%s), not %d (%s)", text, got, sm_status_text(got), want,
                      sm_status_text(want));
}

static int check_str(const char *file, int line, const char *text, const char *got,
                     const char *want) {
    if (got && want && strcmp(got, want) == 0) return 1;
    return check_fail(file, line, "%s = \"%s\", not \"%s\"", text, got ? got : "(null)",
                      want ? want : "(null)");
}

/* All of them are 1 when the check holds, so that a test can stop: if (!CHECK(p)) return; */
#define CHECK(x) ((x) ? 1 : check_fail(__FILE__, __LINE__, "%s", #x))
#define CHECK_NEAR(got, want, tol) check_near(__FILE__, __LINE__, #got, got, want, tol)
#define CHECK_STATUS(got, want) check_status(__FILE__, __LINE__, #got, got, want)
#define CHECK_STR(got, want) check_str(__FILE__, __LINE__, #got, got, want)
#define FAIL(...) check_fail(__FILE__, __LINE__, __VA_ARGS__)
/* Ends the test: what it needs is not here. */
#define SKIP(why)                                                                                  \
    do {                                                                                           \
        printf("(%s) ", why);                                                                      \
        check.skips++;                                                                             \
        return;                                                                                    \
    } while (0)

/* --- numbers ---------------------------------------------------------------------------------- */

/* Every test starts from a seed of its own: a filter does not change what it sees. */
static uint64_t random_u64(void) { /* SplitMix64 (Steele, Lea and Flood 2014) */
    uint64_t z = check.random += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}
static uint32_t random_u32(void) { return (uint32_t)(random_u64() >> 32); }
static int random_below(int n) { return (int)((random_u64() >> 33) % (uint64_t)n); }
/* In [-1, 1), a multiple of 2^-23. */
static float random_float(void) {
    return (float)((int)(random_u32() >> 8) - 0x800000) / 8388608.0f;
}

static double larger(double a, double b) { return a > b ? a : b; } /* gcc 12 breaks on fmax */

/* FNV-1a, 64 bits: results are compared by it where the bytes themselves would be too many. */
SM__UNUSED static uint64_t hash_bytes(const void *data, size_t n) {
    const uint8_t *p = (const uint8_t *)data;
    uint64_t h = 0xcbf29ce484222325u;
    for (; n; n--) h = (h ^ *p++) * 0x100000001b3u;
    return h;
}

/* The same bits; any NaN equals any NaN, since processors differ in sign and payload. */
static int same_float(float a, float b) {
    uint32_t u = sm__bits(a), v = sm__bits(b);
    return u == v || ((u & 0x7fffffffu) > 0x7f800000u && (v & 0x7fffffffu) > 0x7f800000u);
}

/* --- memory between forbidden pages ----------------------------------------------------------- */

typedef struct guard {
    uint8_t *base, *end; /* usable bytes; the pages before base and at end trap any access */
    size_t page;
} guard;

static guard guard_make(size_t bytes) {
    guard g;
#ifdef _WIN32
    g.page = 4096;
    g.base = (uint8_t *)malloc(sm__round_up(bytes, g.page)); /* no trap here */
    g.end = g.base + sm__round_up(bytes, g.page);
#else
    size_t total;
#if defined(MAP_ANONYMOUS) || defined(MAP_ANON)
    int file = -1;
#else /* -std=c99 hides it */
    int file = open("/dev/zero", O_RDWR);
#define MAP_ANON 0
#endif
    g.page = (size_t)sysconf(_SC_PAGESIZE);
    total = sm__round_up(bytes ? bytes : 1, g.page) + 2 * g.page;
    g.base = (uint8_t *)mmap(NULL, total, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON, file, 0);
    if (file >= 0) close(file);
    if (g.base == (uint8_t *)MAP_FAILED) exit(3);
    g.base += g.page;
    g.end = g.base + (total - 2 * g.page);
    if (mprotect(g.base - g.page, g.page, PROT_NONE) || mprotect(g.end, g.page, PROT_NONE)) exit(3);
#endif
    return g;
}

static void guard_free(guard *g) {
#ifdef _WIN32
    free(g->base);
#else
    munmap(g->base - g->page, (size_t)(g->end - g->base) + 2 * g->page);
#endif
}

/* --- allocators ------------------------------------------------------------------------------- */

/* The sm_allocator of the tests. Blocks start at odd addresses (the contract promises no
 * alignment), are filled with garbage, and have their end and their size checked when freed. */
static struct heap_state {
    uint32_t held, calls; /* blocks not freed yet; alloc calls */
    uint32_t fail_at;     /* the number of the alloc call that fails (1 = the first); 0 = none */
    size_t bytes;         /* held now, as asked for; only of one thread at a time */
} heap;

#define HEAP_FRONT 25 /* malloc aligns to 8 at least: 25 bytes on, the address is odd */

static void *heap_alloc(size_t bytes, void *user) {
    uint8_t *p;
    (void)user;
    if (sm__add32(&heap.calls, 1) + 1 == heap.fail_at) return NULL;
    if (bytes > SIZE_MAX / 2 || !(p = (uint8_t *)malloc(bytes + HEAP_FRONT + 8))) return NULL;
    memcpy(p, &bytes, sizeof bytes);
    memset(p + HEAP_FRONT, 0xA5, bytes);
    memset(p + HEAP_FRONT + bytes, 0x5C, 8);
    sm__add32(&heap.held, 1);
    heap.bytes += bytes;
    return p + HEAP_FRONT;
}

static void heap_free(void *memory, size_t bytes, void *user) {
    uint8_t *p = (uint8_t *)memory;
    size_t size;
    int i;
    (void)user;
    if (!CHECK(p != NULL)) return;
    memcpy(&size, p - HEAP_FRONT, sizeof size);
    if (size != bytes) FAIL("free(%p): %lu bytes were allocated, %lu are freed", memory,
                            (unsigned long)size, (unsigned long)bytes);
    for (i = 0; i < 8; i++) CHECK(p[size + (size_t)i] == 0x5C); /* written past the end? */
    memset(p, 0xDD, size);
    free(p - HEAP_FRONT);
    sm__add32(&heap.held, (uint32_t)-1);
    heap.bytes -= size;
}

SM__UNUSED static sm_allocator heap_allocator(void) {
    sm_allocator a = {heap_alloc, heap_free, NULL};
    return a;
}
/* Let the k-th alloc call from now fail (1 = the next one, 0 = none). */
SM__UNUSED static void heap_fail(uint32_t k) { heap.fail_at = k ? heap.calls + k : 0; }

/* How often anyone in the process called malloc, calloc, realloc or free. Ours stand before
 * glibc's, weakly: in a static program, and under a sanitizer, there is no count (heap_counts() is
 * 0). */
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) ||                         \
    __has_feature(memory_sanitizer)
#define HEAP_NO_COUNT
#endif
#endif
static volatile uint32_t heap_process_calls;
#if defined(__GLIBC__) && !defined(HEAP_NO_COUNT) && !defined(__SANITIZE_ADDRESS__) &&             \
    !defined(__SANITIZE_THREAD__)
#ifdef __cplusplus
#define HEAP_HOOK extern "C" __attribute__((weak))
#define HEAP_THROW noexcept
extern "C" {
#else
#define HEAP_HOOK __attribute__((weak))
#define HEAP_THROW
#endif
extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t);
extern void __libc_free(void *);
#ifdef __cplusplus
}
#endif
HEAP_HOOK void *malloc(size_t n) HEAP_THROW {
    sm__add32(&heap_process_calls, 1);
    return __libc_malloc(n);
}
HEAP_HOOK void *calloc(size_t n, size_t size) HEAP_THROW {
    sm__add32(&heap_process_calls, 1);
    return __libc_calloc(n, size);
}
HEAP_HOOK void *realloc(void *p, size_t n) HEAP_THROW {
    sm__add32(&heap_process_calls, 1);
    return __libc_realloc(p, n);
}
HEAP_HOOK void free(void *p) HEAP_THROW {
    sm__add32(&heap_process_calls, 1);
    __libc_free(p);
}
#endif
SM__UNUSED static uint32_t heap_calls(void) { return sm__load32(&heap_process_calls); }
/* Whether heap_calls counts at all in this build. */
SM__UNUSED static int heap_counts(void) {
    uint32_t before = heap_calls();
    void *volatile p = malloc(1);
    free(p);
    return heap_calls() != before;
}

/* --- test data -------------------------------------------------------------------------------- */

/* The path of a file of the shared test data, valid for the next 8 calls. NULL when it is missing:
 * the test counts as skipped (failed under REQUIRE_DATA=1) and should return. */
static const char *data_path(const char *name) {
    static char paths[8][1024];
    static int next;
    const char *dir = getenv("DATA"), *required = getenv("REQUIRE_DATA");
    char *path = paths[next++ & 7];
    FILE *file;
    snprintf(path, sizeof paths[0], "%s/%s", dir && *dir ? dir : "../shared/data", name);
    file = fopen(path, "rb");
    if (file) {
        fclose(file);
        return path;
    }
    if (required && *required == '1') FAIL("%s is missing", path);
    else if (check.skips++ == 0) printf("(no %s) ", path);
    return NULL;
}

/* A whole file into memory from malloc, with a NUL behind it; NULL when it cannot be read. */
SM__UNUSED static uint8_t *file_read(const char *path, size_t *bytes) {
    FILE *file = path ? fopen(path, "rb") : NULL;
    uint8_t *data = NULL;
    long size;
    *bytes = 0;
    if (!file) return NULL;
    if (fseek(file, 0, SEEK_END) == 0 && (size = ftell(file)) >= 0 &&
        fseek(file, 0, SEEK_SET) == 0 && (data = (uint8_t *)malloc((size_t)size + 1)) != NULL) {
        *bytes = fread(data, 1, (size_t)size, file);
        data[*bytes] = 0;
    }
    fclose(file);
    return data;
}

/* --- the runner ------------------------------------------------------------------------------- */

static void check_run(const test *t) {
    uint64_t start = sm__now_ns(), fp = sm__fp_enter();
    double ms;
    sm__fp_leave(fp);
    printf("%-68s ", t->name);
    fflush(stdout); /* after a crash, the last line says where */
    check.errors = check.skips = 0;
    check.random = check.seed ^ hash_bytes(t->name, strlen(t->name));
    memset(&heap, 0, sizeof heap);
    t->run();
    sm__fp_leave(fp); /* tests of private functions enter it themselves */
    if (heap.held) FAIL("%u blocks were not freed", (unsigned)heap.held);
    ms = (double)(sm__now_ns() - start) / 1e6;
    if (check.errors) check.failed++, printf("\nFAIL  %s\n", t->name);
    else if (check.skips) check.skipped++, printf("skipped\n");
    else check.passed++, printf("ok %6.0f ms\n", ms);
    fflush(stdout);
}

/* Arguments: texts, a test runs when its name contains one of them (none = all); --list; --seed
 * N. */
static int check_main(int argc, char **argv, const suite *suites, size_t n_suites) {
    size_t s, i;
    int a, n_filters = 0, list = 0;
    for (a = 1; a < argc; a++) {
        if (strcmp(argv[a], "--list") == 0) list = 1;
        else if (strcmp(argv[a], "--seed") == 0 && a + 1 < argc)
            check.seed = strtoul(argv[++a], 0, 0);
        else argv[++n_filters] = argv[a];
    }
    for (s = 0; s < n_suites; s++)
        for (i = 0; i < suites[s].n; i++) {
            const test *t = &suites[s].tests[i];
            int wanted = n_filters == 0;
            for (a = 1; a <= n_filters; a++) wanted |= strstr(t->name, argv[a]) != NULL;
            if (wanted && list) printf("%s\n", t->name);
            else if (wanted) check_run(t);
        }
    if (list) return 0;
    printf("%d passed, %d failed, %d skipped\n", check.passed, check.failed, check.skipped);
    return check.failed > 0 || check.passed == 0;
}
