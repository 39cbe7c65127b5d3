/* test_memory.c - checked sizes, the host's allocator behind 64-byte alignment, the arena that
 * plans and places, the tensor pool; and the means by which other tests find leaks. */

static void sizes_that_overflow_are_told(void) {
    size_t n = 0, half = (size_t)1 << (sizeof(size_t) * 4);
    CHECK(sm__mul_size(half, half, &n) == 1 && n == SIZE_MAX);
    CHECK(sm__mul_size(half, half - 1, &n) == 0 && n == SIZE_MAX - half + 1);
    CHECK(sm__mul_size(SIZE_MAX, 1, &n) == 0 && n == SIZE_MAX);
    CHECK(sm__mul_size(SIZE_MAX / 2 + 1, 2, &n) == 1 && n == SIZE_MAX);
    CHECK(sm__mul_size(0, SIZE_MAX, &n) == 0 && n == 0);
    CHECK(sm__mul_size(SIZE_MAX, 0, &n) == 0 && n == 0);
    CHECK(sm__add_size(SIZE_MAX, 0, &n) == 0 && n == SIZE_MAX);
    CHECK(sm__add_size(SIZE_MAX - 5, 6, &n) == 1 && n == SIZE_MAX);
    CHECK(sm__add_size(SIZE_MAX - 5, 5, &n) == 0 && n == SIZE_MAX);
    CHECK(sm__round_up(0, 64) == 0 && sm__round_up(1, 64) == 64 && sm__round_up(64, 64) == 64);
}

static void pointers_are_aligned_upwards(void) {
    unsigned char memory[256];
    size_t i;
    for (i = 0; i < 128; i++) {
        unsigned char *p = sm__align_pointer(memory + i);
        CHECK((uintptr_t)p % SM__ALIGN == 0 && p >= memory + i && p < memory + i + SM__ALIGN);
    }
}

/* --- the heap ------------------------------------------------------------------------------- */

static void heap_aligns_counts_and_gives_back(void) {
    sm_allocator host = heap_allocator();
    sm__heap h = sm__heap_make(&host);
    unsigned char *blocks[40];
    size_t i, held = 0;
    for (i = 0; i < 40; i++) {
        size_t bytes = i * i * 7;
        blocks[i] = (unsigned char *)sm__heap_alloc(&h, bytes);
        if (!CHECK(blocks[i] && (uintptr_t)blocks[i] % SM__ALIGN == 0)) return;
        memset(blocks[i], (int)i, bytes); /* heap_free looks whether more was written */
        held += bytes;
    }
    CHECK(heap.held == 40 && h.calls == 40 && h.bytes == heap.bytes);
    CHECK(h.bytes >= held && h.bytes <= held + 40 * 3 * SM__ALIGN);
    for (i = 0; i < 40; i++) {
        size_t k, bytes = i * i * 7;
        for (k = 0; k < bytes; k++)
            if (!CHECK(blocks[i][k] == i)) break;
        sm__heap_free(&h, blocks[i]); /* and whether the size that is given back is the one asked */
    }
    CHECK(heap.held == 0 && h.calls == 80 && h.bytes == 0);
    sm__heap_free(&h, NULL);
    CHECK(h.calls == 80);
}

static void heap_without_memory_gives_null(void) {
    sm_allocator host = heap_allocator();
    sm__heap h = sm__heap_make(&host);
    heap_fail(1);
    CHECK(sm__heap_alloc(&h, 100) == NULL && h.bytes == 0 && heap.held == 0);
    CHECK(sm__heap_alloc(&h, SIZE_MAX) == NULL && sm__heap_alloc(&h, SIZE_MAX - 100) == NULL);
    CHECK(h.bytes == 0 && heap.held == 0);
}

static void heap_by_default_is_malloc(void) {
    sm_allocator none = sm_team_default().allocator;
    sm__heap h = sm__heap_make(&none);
    uint32_t before = heap_calls();
    void *p = sm__heap_alloc(&h, 1000);
    CHECK(p && (uintptr_t)p % SM__ALIGN == 0 && h.bytes >= 1000);
    sm__heap_free(&h, p);
    if (heap_counts()) CHECK(heap_calls() - before >= 2); /* the probe counts, too */
    CHECK(h.bytes == 0 && h.calls == 2);
}

static void allocators_are_whole_or_absent(void) {
    sm_allocator a = {NULL, NULL, NULL};
    CHECK(sm__allocator_ok(&a));
    a.alloc = heap_alloc;
    CHECK(!sm__allocator_ok(&a));
    a.free = heap_free;
    CHECK(sm__allocator_ok(&a));
    a.alloc = NULL;
    CHECK(!sm__allocator_ok(&a));
}

/* --- the arena ------------------------------------------------------------------------------ */

/* The same layout, counted and placed: the plan is what is used, nothing overlaps, all is
 * aligned. */
static void arena_plans_what_it_places(void) {
    static const size_t counts[] = {1, 0, 3, 64, 65, 1000, 7, 0, 1};
    static const size_t sizes[] = {1, 8, 40, 1, 1, 4, 64, 4, 4096};
    sm__arena plan = {NULL, 0, 0}, place = {NULL, 0, 0};
    guard g;
    size_t i, k;
    for (i = 0; i < 9; i++) CHECK(sm__arena_take(&plan, counts[i], sizes[i]) == NULL);
    CHECK(!plan.overflow && plan.used % SM__ALIGN == 0);
    g = guard_make(plan.used);
    place.base = g.end - plan.used; /* one byte more would trap */
    for (i = 0; i < 9; i++) {
        unsigned char *p = (unsigned char *)sm__arena_take(&place, counts[i], sizes[i]);
        CHECK(p && (uintptr_t)p % SM__ALIGN == 0);
        for (k = 0; k < counts[i] * sizes[i]; k++)
            if (!CHECK(p[k] == 0)) break; /* nobody else's */
        memset(p, 0xEE, counts[i] * sizes[i]);
    }
    CHECK(place.used == plan.used && !place.overflow);
    guard_free(&g);
}

static void arena_remembers_an_overflow(void) {
    sm__arena a = {NULL, 0, 0};
    CHECK(sm__arena_take(&a, SIZE_MAX / 2, 3) == NULL && a.overflow == 1 && a.used == 0);
    sm__arena_take(&a, 1, 1);
    CHECK(a.overflow == 1);
    memset(&a, 0, sizeof a);
    sm__arena_take(&a, 1, SIZE_MAX - 10); /* fits no more once rounded up */
    CHECK(a.overflow == 1);
    memset(&a, 0, sizeof a);
    sm__arena_take(&a, 1, SIZE_MAX - 200);
    CHECK(!a.overflow);
    sm__arena_take(&a, 1, 200);
    CHECK(a.overflow == 1);
}

/* --- the pool ------------------------------------------------------------------------------- */

/* A pool in memory that ends, to the byte, at a forbidden page, and starts at an odd address. */
typedef struct pool_fixture {
    guard g;
    sm_pool *pool;
} pool_fixture;

static int pool_make(pool_fixture *f, const size_t *sizes, const uint32_t *counts, int n) {
    size_t bytes = sm_pool_bytes(sizes, counts, n);
    f->pool = NULL;
    if (!CHECK(bytes > 0)) return 0;
    f->g = guard_make(bytes + 1);
    memset(f->g.base, 0xA5, (size_t)(f->g.end - f->g.base));
    f->pool = sm_pool_init(f->g.end - bytes, bytes, sizes, counts, n);
    return CHECK(f->pool != NULL);
}

static void pool_checks_its_arguments(void) {
    size_t sizes[5] = {64, 128, 256, 512, 1024};
    uint32_t counts[5] = {1, 1, 1, 1, 1};
    unsigned char memory[64];
    CHECK(sm_pool_bytes(NULL, counts, 1) == 0 && sm_pool_bytes(sizes, NULL, 1) == 0);
    CHECK(sm_pool_bytes(sizes, counts, 0) == 0 && sm_pool_bytes(sizes, counts, -1) == 0);
    CHECK(sm_pool_bytes(sizes, counts, SMALLMIND_POOL_CLASSES + 1) == 0);
    CHECK(sm_pool_bytes(sizes, counts, SMALLMIND_POOL_CLASSES) > 64 + 128 + 256 + 512);
    CHECK(sm_pool_init(NULL, 1 << 20, sizes, counts, 1) == NULL);
    CHECK(sm_pool_init(memory, sizeof memory, sizes, counts, 1) == NULL);
    sizes[0] = SIZE_MAX; /* one block that does not fit in any memory */
    CHECK(sm_pool_bytes(sizes, counts, 1) == 0);
    CHECK(sm_pool_init(memory, SIZE_MAX, sizes, counts, 1) == NULL);
    sizes[0] = SIZE_MAX / 2; /* three that do not */
    counts[0] = 3;
    CHECK(sm_pool_bytes(sizes, counts, 1) == 0);
    sizes[0] = SIZE_MAX - 70;
    counts[0] = 1;
    CHECK(sm_pool_bytes(sizes, counts, 1) == 0);
}

static void pool_needs_every_byte_it_asks_for(void) {
    size_t sizes[2] = {100, 3000}, bytes, shift;
    uint32_t counts[2] = {5, 2};
    guard g;
    bytes = sm_pool_bytes(sizes, counts, 2);
    g = guard_make(bytes + 64);
    for (shift = 0; shift < 64; shift++) {
        CHECK(sm_pool_init(g.base + shift, bytes - 1, sizes, counts, 2) == NULL);
        CHECK(sm_pool_init(g.end - bytes - shift, bytes, sizes, counts, 2) != NULL);
    }
    guard_free(&g);
}

/* Until it is empty, every block is a new one, aligned, as large as promised, and in the memory. */
static void pool_hands_out_all_blocks_once(void) {
    size_t sizes[3] = {64, 200, 1000}, total = 0;
    uint32_t counts[3] = {7, 5, 3};
    unsigned char *blocks[16];
    pool_fixture f;
    sm_pool_stats s;
    int c, i, n = 0, k;
    if (!pool_make(&f, sizes, counts, 3)) return;
    s = sm_pool_get_stats(f.pool);
    CHECK(s.capacity_bytes == 7 * 64 + 5 * 256 + 3 * 1024 && s.rents == 0 && s.peak_bytes == 0);
    for (c = 0; c < 3; c++)
        for (i = 0; i < (int)counts[c]; i++) {
            unsigned char *p = (unsigned char *)sm_pool_rent(f.pool, sizes[c]);
            if (!CHECK(p && (uintptr_t)p % SM__ALIGN == 0)) return;
            CHECK(p >= f.g.base && p + sizes[c] <= f.g.end && sm_pool_owners(f.pool, p) == 1);
            memset(p, n + 1, sizes[c]);
            blocks[n++] = p;
            total += sm__round_up(sizes[c], 64);
        }
    CHECK(sm_pool_rent(f.pool, 1) == NULL && sm_pool_rent(f.pool, 1000) == NULL);
    for (c = n = 0; c < 3; c++)
        for (i = 0; i < (int)counts[c]; i++, n++)
            for (k = 0; k < (int)sizes[c]; k++)
                if (!CHECK(blocks[n][k] == n + 1)) break;
    s = sm_pool_get_stats(f.pool);
    CHECK(s.rents == 15 && s.returns == 0 && s.outstanding_blocks == 15);
    CHECK(s.outstanding_bytes == total && s.peak_bytes == total && total == s.capacity_bytes);
    for (i = 0; i < 15; i++) sm_pool_return(f.pool, blocks[i]);
    s = sm_pool_get_stats(f.pool);
    CHECK(s.rents == 15 && s.returns == 15 && s.outstanding_blocks == 0);
    CHECK(s.outstanding_bytes == 0 && s.peak_bytes == total);
    guard_free(&f.g);
}

static void pool_takes_the_smallest_class_that_has_one(void) {
    size_t sizes[3] = {1024, 64, 256}; /* in any order */
    uint32_t counts[3] = {1, 1, 1};
    pool_fixture f;
    void *a, *b, *c;
    if (!pool_make(&f, sizes, counts, 3)) return;
    a = sm_pool_rent(f.pool, 10);
    CHECK(sm_pool_get_stats(f.pool).outstanding_bytes == 64);
    b = sm_pool_rent(f.pool, 64); /* the small one is gone */
    CHECK(sm_pool_get_stats(f.pool).outstanding_bytes == 64 + 256);
    CHECK(sm_pool_rent(f.pool, 1025) == NULL);
    c = sm_pool_rent(f.pool, 0);
    CHECK(sm_pool_get_stats(f.pool).outstanding_bytes == 64 + 256 + 1024);
    CHECK(a && b && c && sm_pool_rent(f.pool, 1) == NULL);
    sm_pool_return(f.pool, b);
    CHECK(sm_pool_rent(f.pool, 257) == NULL && sm_pool_rent(f.pool, 65) == b);
    guard_free(&f.g);
}

static void pool_counts_owners(void) {
    size_t size = 128;
    uint32_t count = 2;
    pool_fixture f;
    void *a, *b;
    if (!pool_make(&f, &size, &count, 1)) return;
    a = sm_pool_rent(f.pool, 100);
    b = sm_pool_rent(f.pool, 100);
    sm_pool_retain(f.pool, a);
    sm_pool_retain(f.pool, a);
    CHECK(sm_pool_owners(f.pool, a) == 3 && sm_pool_owners(f.pool, b) == 1);
    sm_pool_return(f.pool, a);
    sm_pool_return(f.pool, a);
    CHECK(sm_pool_owners(f.pool, a) == 1 && sm_pool_rent(f.pool, 1) == NULL);
    CHECK(sm_pool_get_stats(f.pool).returns == 0);
    sm_pool_return(f.pool, a); /* the last one */
    CHECK(sm_pool_get_stats(f.pool).returns == 1 && sm_pool_owners(f.pool, a) == 0);
    CHECK(sm_pool_rent(f.pool, 1) == a && sm_pool_owners(f.pool, a) == 1);
    guard_free(&f.g);
}

/* NULL, a block that is not rented, the inside of one, foreign memory: nothing happens. */
static void pool_ignores_what_is_not_its_block(void) {
    size_t size = 128;
    uint32_t count = 3;
    pool_fixture f;
    unsigned char *a, other[64];
    sm_pool_stats s;
    if (!pool_make(&f, &size, &count, 1)) return;
    a = (unsigned char *)sm_pool_rent(f.pool, 128);
    sm_pool_return(f.pool, NULL);
    sm_pool_return(f.pool, a + 64);
    sm_pool_return(f.pool, a + 1);
    sm_pool_return(f.pool, other);
    sm_pool_retain(f.pool, other);
    sm_pool_retain(f.pool, NULL);
    CHECK(sm_pool_owners(f.pool, other) == 0 && sm_pool_owners(f.pool, a) == 1);
    CHECK(sm_pool_owners(f.pool, NULL) == 0 && sm_pool_owners(f.pool, a + 128) == 0);
    sm_pool_return(f.pool, a);
    sm_pool_return(f.pool, a); /* once too often */
    sm_pool_retain(f.pool, a);
    s = sm_pool_get_stats(f.pool);
    CHECK(s.rents == 1 && s.returns == 1 && s.outstanding_blocks == 0);
    CHECK(sm_pool_rent(f.pool, 1) != sm_pool_rent(f.pool, 1));
    CHECK(sm_pool_rent(f.pool, 1) != NULL && sm_pool_rent(f.pool, 1) == NULL);
    guard_free(&f.g);
}

/* Any order of rent, retain and return, against a plain record of who has what. */
static void pool_survives_any_order(void) {
    size_t sizes[4] = {64, 192, 640, 128}, peak = 0;
    uint32_t counts[4] = {6, 4, 2, 5};
    struct {
        unsigned char *p;
        uint32_t owners;
        uint8_t mark;
    } held[17];
    pool_fixture f;
    sm_pool_stats s;
    uint64_t rents = 0;
    int round, i, n = 0;
    if (!pool_make(&f, sizes, counts, 4)) return;
    for (round = 0; round < 30000 && !check.errors; round++) {
        int what = random_below(5);
        if (what < 2) {
            size_t bytes = (size_t)random_below(700);
            unsigned char *p = (unsigned char *)sm_pool_rent(f.pool, bytes);
            if (!p) continue;
            for (i = 0; i < n; i++) CHECK(held[i].p != p);
            if (!CHECK(n < 17)) break;
            held[n].p = p;
            held[n].owners = 1;
            held[n].mark = (uint8_t)round;
            memset(p, held[n++].mark, bytes ? bytes : 1);
            rents++;
        } else if (n > 0) {
            i = random_below(n);
            CHECK(sm_pool_owners(f.pool, held[i].p) == held[i].owners);
            CHECK(held[i].p[0] == held[i].mark);
            if (what == 2) sm_pool_retain(f.pool, held[i].p), held[i].owners++;
            else {
                sm_pool_return(f.pool, held[i].p);
                if (--held[i].owners == 0) held[i] = held[--n];
            }
        }
        s = sm_pool_get_stats(f.pool);
        CHECK(s.rents == rents && s.outstanding_blocks == (size_t)n);
        CHECK(s.rents - s.returns == s.outstanding_blocks && s.peak_bytes <= s.capacity_bytes);
        CHECK(s.outstanding_bytes <= s.peak_bytes);
        if (s.outstanding_bytes > peak) peak = s.outstanding_bytes;
    }
    CHECK(sm_pool_get_stats(f.pool).peak_bytes == peak);
    guard_free(&f.g);
}

static void statuses_have_texts(void) {
    int i;
    CHECK_STR(sm_status_text(SM_OK), "ok");
    for (i = -1000; i < 1000; i++) CHECK(sm_status_text(i) && strlen(sm_status_text(i)) > 1);
    CHECK(strcmp(sm_status_text(SM_ERR_NOMEM), sm_status_text(SM_ERR_FULL)) != 0);
    CHECK_STR(sm_status_text(12345), sm_status_text(-777));
}

static const test tests_memory[] = {
    {"memory: sizes that overflow are told", sizes_that_overflow_are_told},
    {"memory: pointers are aligned upwards", pointers_are_aligned_upwards},
    {"memory: the heap aligns, counts and gives back", heap_aligns_counts_and_gives_back},
    {"memory: the heap without memory gives NULL", heap_without_memory_gives_null},
    {"memory: the heap by default is malloc", heap_by_default_is_malloc},
    {"memory: allocators are whole or absent", allocators_are_whole_or_absent},
    {"memory: the arena plans what it places", arena_plans_what_it_places},
    {"memory: the arena remembers an overflow", arena_remembers_an_overflow},
    {"memory: the pool checks its arguments", pool_checks_its_arguments},
    {"memory: the pool needs every byte it asks for", pool_needs_every_byte_it_asks_for},
    {"memory: the pool hands out all blocks once", pool_hands_out_all_blocks_once},
    {"memory: the pool takes the smallest class that has one",
     pool_takes_the_smallest_class_that_has_one},
    {"memory: the pool counts owners", pool_counts_owners},
    {"memory: the pool ignores what is not its block", pool_ignores_what_is_not_its_block},
    {"memory: the pool survives any order", pool_survives_any_order},
    {"memory: statuses have texts", statuses_have_texts},
};
