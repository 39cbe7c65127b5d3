/* test_kernels.c - every kernel, in the way of dav1d's checkasm: the scalar truth must keep the
 * error bound of its contract against double precision; every variant that this processor has must
 * give the truth's bits, for every shape around its block sizes, at every alignment, with inputs,
 * outputs and scratch that end at a forbidden page. */

/* --- levels ----------------------------------------------------------------------------------- */

#define COUNT(a) ((int)(sizeof(a) / sizeof *(a)))

typedef struct level {
    const char *name;
    sm__kernels k;
} level;

static level levels[8]; /* levels[0] is the truth */
static int n_levels;

/* One more level: the last one under another name, of which the caller puts back some kernels. */
SM__UNUSED static sm__kernels *levels_again(const char *name) {
    levels[n_levels] = levels[n_levels - 1];
    levels[n_levels].name = name;
    return &levels[n_levels++].k;
}

static void levels_init(void) {
    int isa;
    n_levels = 0;
    sm__fp_enter();
    for (isa = SM_ISA_SCALAR; isa <= SM_ISA_NEON; isa++) {
        level *l = &levels[n_levels];
        if (sm__kernels_init(&l->k, isa) != SM_OK) continue;
        l->name = sm_isa_name(isa);
        n_levels++;
#ifdef SM__HAS_AVXVNNI
        if (isa == SM_ISA_AVX2 && sm__has_avxvnni()) { /* what a processor without it would run */
            sm__kernels *k = levels_again("avx2 without vnni");
            k->matmul[SM__T_Q8_0] = sm__matmul_q8_0__avx2;
            k->matmul[SM__T_Q4_0] = sm__matmul_q4_0__avx2;
        }
#endif
    }
#ifdef SM__HAS_GFNI
    if (levels[n_levels - 1].k.isa >= SM_ISA_AVX512 && sm__has_gfni())
        levels_again("avx512 without gfni")->matmul[SM__T_Q3_K] = sm__matmul_q3_k__avx512;
#endif
#ifdef SM__HAS_I8MM
    if (sm__has_dotprod() && sm__has_i8mm()) { /* what a processor without smmla would run */
        sm__kernels *k = levels_again("neon without smmla");
#define NEON(name, T) k->matmul[T] = sm__matmul_##name##__dotprod;
        SM__QUANT_LIST(NEON)
#undef NEON
    }
#endif
#ifdef SM__HAS_DOTPROD
    { /* what a processor without sdot would run */
        sm__kernels *k = levels_again("neon without sdot");
#define NEON(name, T) k->matmul[T] = sm__matmul_##name##__neon;
        SM__QUANT_LIST(NEON)
#undef NEON
    }
#endif
}

/* Starts a test that compares variants. */
#define NEED_VARIANTS()                                                                            \
    levels_init();                                                                                 \
    if (n_levels < 2) SKIP("only scalar here")

/* --- inputs ----------------------------------------------------------------------------------- */

enum {
    MODE_NORMAL,    /* uniform in [-1, 1) */
    MODE_WIDE,      /* exponents from 2^-40 to 2^40, zeros, denormals; products may be denormal */
    MODE_ZERO,      /* zeros of both signs, few ones */
    MODE_NOT_FINITE, /* normal with a few infinities, NaNs and huge values */
    N_MODES
};

static const uint32_t special_bits[] = {
    0x00000000u, 0x80000000u, 0x00000001u, 0x80000001u, 0x007fffffu, 0x00800000u, 0x3f800000u,
    0xbf800000u, 0x7f7fffffu, 0xff7fffffu, 0x7f800000u, 0xff800000u, 0x7fc00000u, 0xffc12345u,
    0x7f800001u, 0x42b170a4u, 0x42b17218u, 0xc2ae999au, 0xc2aeac50u, 0x0da24260u, 0x0da24261u,
    0x3f000000u, 0x3fc00000u, 0x477fe000u, 0x477ff000u, 0x33800000u, 0x33000000u, 0x38800000u,
    0x4f000000u, 0xcf000000u, 0x5f000000u, 0xdf000000u,
    /* exp's ends, from both sides: +-88.72, the logarithm of the largest float, +-87.3 */
    0x42b170a5u, 0xc2b170a4u, 0xc2b170a5u, 0xc2b17217u, 0xc2ae999bu, 0x42ae999au, 0x42ae999bu,
};

static float random_special(void) {
    return sm__from_bits(special_bits[random_below(COUNT(special_bits))]);
}

/* A float of a mode; of a row of n, in which about two are special under MODE_NOT_FINITE. */
static float random_of(int mode, int n) {
    float x = random_float();
    if (mode == MODE_WIDE) {
        int e = random_below(90) - 45;
        if (random_below(16) == 0) return sm__from_bits(random_u32() & 0x807fffffu);
        if (random_below(16) == 0) return x < 0 ? -0.0f : 0.0f;
        return x * (float)ldexp(1.0, e < -40 ? -40 : e > 40 ? 40 : e);
    }
    if (mode == MODE_ZERO) return random_below(40) == 0 ? x : x < 0 ? -0.0f : 0.0f;
    if (mode == MODE_NOT_FINITE && random_below(n < 4 ? 2 : (n + 1) / 2) == 0)
        return random_special();
    return x;
}

static void random_fill(float *x, int n, int mode) {
    int i;
    for (i = 0; i < n; i++) x[i] = random_of(mode, n);
}

/* The scale of a block as an f16: of a trained model, or anything. */
static uint16_t random_scale(int mode) {
    static const uint16_t special[] = {0, 0x8000, 1, 0x8001, 0x3ff, 0x400, 0x7bff, 0xfbff};
    static const uint16_t not_finite[] = {0x7c00, 0xfc00, 0x7e00, 0x7c01};
    if (mode == MODE_WIDE && random_below(3) == 0) return (uint16_t)(random_u32() & 0x7bffu);
    if (mode == MODE_ZERO && random_below(2) == 0) return special[random_below(8)];
    if (mode == MODE_NOT_FINITE && random_below(30) == 0) return not_finite[random_below(4)];
    return sm__f32_to_f16(0.02f * random_float());
}

/* A sum in twice double's precision, and a bound that grows along with it. */
typedef struct exact {
    double high, low, magnitude;
} exact;

static void exact_add(exact *e, double x) {
    double s = e->high + x, b = s - e->high;
    e->low += (e->high - (s - b)) + (x - b);
    e->high = s;
    e->magnitude += fabs(x);
}
static double exact_value(const exact *e) { return e->high + e->low; }

#define ULP (1.0 / 16777216) /* 2^-24: half a unit in the last place, the error of one rounding */
#define SENTINEL 12345.678f  /* what outputs hold before */

/* The first index where two rows differ, or -1. */
static int first_difference(const float *got, const float *want, int n) {
    int i;
    for (i = 0; i < n; i++)
        if (!same_float(got[i], want[i])) return i;
    return -1;
}

/* --- matmul ----------------------------------------------------------------------------------- */

#define MAX_N 33    /* outputs */
#define MAX_ROWS 65 /* rows of activations */
#define MAX_K 1536

static const int float_sizes[] = {1,   2,   3,   7,   8,   9,   15,   16,   17,  31,
                                  32,  33,  47,  48,  63,  64,  65,   100,  127, 128,
                                  129, 255, 256, 257, 288, 576, 1000, 1031, 0};
static const int block_sizes[] = {32,  64,  96,  128, 160, 192, 224,  256,  288,
                                  320, 352, 512, 544, 576, 992, 1024, 1536, 0};
static const int super_sizes[] = {256, 512, 768, 1024, 1536, 0};
static const int row_counts[] = {1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15,
                                 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30,
                                 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 63, 64, 65};

/* A problem at its largest shape. Row t, column o of the result depends on row t of the activations
 * and on row o of the weights only, so one truth serves every smaller shape. */
static struct matmul_case {
    int type, k;
    size_t row_bytes;
    uint8_t w[MAX_N * MAX_K * 4];
    float x[MAX_ROWS * MAX_K];
    int act_block; /* elements of a block of activations; 32 for the float types, unused */
    int8_t q[MAX_ROWS * MAX_K];
    float d[MAX_ROWS * MAX_K / 32];
    int16_t s[MAX_ROWS * MAX_K / 16];
    float want[MAX_ROWS * MAX_N];
} mc;

static const int *matmul_sizes(int type) {
    return sm__types[type].act_block == 0 ? float_sizes
           : sm__types[type].act_block == 32 ? block_sizes : super_sizes;
}

/* Where a block's scale is; its dmin or minimum, if it has one, is behind it. */
static size_t matmul_scale_at(int type) {
    size_t bytes = (size_t)sm__types[type].info.block_bytes;
    if (type == SM__T_Q2_K) return bytes - 4;
    return type == SM__T_Q6_K || type == SM__T_Q3_K || type == SM__T_TQ1_0 || type == SM__T_TQ2_0
               ? bytes - 2 : 0;
}

/* Random bytes, or the ends of the range, where saturating instructions go wrong: in each second
 * block the same one throughout, as in the activations, so that sums grow as they can; then
 * scales. */
static void matmul_fill_weights(int mode) {
    size_t bytes = (size_t)sm__types[mc.type].info.block_bytes, i, j;
    uint32_t same = 0;
    for (i = 0; i < MAX_N * mc.row_bytes; i += bytes) {
        uint16_t d = random_scale(mode), dmin = random_scale(mode);
        if (mode == MODE_WIDE) same = (uint32_t)random_below(4);
        for (j = 0; j < bytes; j++) {
            uint32_t u = random_u32();
            mc.w[i + j] = (uint8_t)(u >> 8);
            if (mode == MODE_WIDE && same > 1) u = same;
            if (mode != MODE_WIDE) continue;
            if (bytes == 34 || (mc.type == SM__T_Q6_K && j >= 192))
                mc.w[i + j] = u & 1 ? 0x80 : 0x7f;
            else mc.w[i + j] = u & 1 ? 0 : 255;
        }
        if (mc.type == SM__T_MXFP4) { /* a power of two */
            mc.w[i] = (uint8_t)(mode == MODE_NORMAL ? 118 + random_below(8) : random_below(256));
            continue;
        }
        memcpy(mc.w + i + matmul_scale_at(mc.type), &d, 2);
        if (sm__has_minima(mc.type)) memcpy(mc.w + i + matmul_scale_at(mc.type) + 2, &dmin, 2);
    }
}

static void matmul_fill_blocks(int mode) {
    int t, b, i, block = mc.act_block, same = 0;
    matmul_fill_weights(mode);
    for (t = 0; t < MAX_ROWS; t++)
        for (b = 0; b < mc.k / block; b++) {
            int8_t *q = mc.q + t * mc.k + b * block;
            int16_t *s = &mc.s[(t * mc.k + b * block) / 16];
            float *d = &mc.d[t * (mc.k / block) + b];
            *d = fabsf(random_float()) + 0.001f;
            memset(s, 0, (size_t)block / 16 * sizeof *s);
            if (mode == MODE_WIDE) same = random_below(4);
            if (mode == MODE_ZERO && random_below(3) == 0) *d = 0.0f;
            if (mode == MODE_WIDE) *d *= (float)ldexp(1.0, random_below(100) - 50);
            if (mode == MODE_NOT_FINITE && random_below(40) == 0) *d = sm__from_bits(0x7fc00000u);
            for (i = 0; i < block; i++) {
                q[i] = (int8_t)(random_below(255) - 127);
                if (mode == MODE_WIDE) q[i] = (int8_t)(q[i] < 0 ? -127 : 127);
                if (mode == MODE_WIDE && same > 1) q[i] = same == 2 ? -127 : 127;
                if (sm__not_finite(*d) || *d == 0.0f) q[i] = 0; /* as quant gives them */
                s[i / 16] = (int16_t)(s[i / 16] + q[i]);
            }
        }
}

static void matmul_fill(int type, int k, int mode) {
    int i;
    mc.type = type;
    mc.k = k;
    mc.row_bytes = sm__row_bytes(type, (size_t)k);
    mc.act_block = sm__types[type].act_block ? sm__types[type].act_block : 32;
    random_fill(mc.x, MAX_ROWS * k, MODE_NORMAL);
    for (i = 0; i < MAX_ROWS * k; i++) mc.x[i] = random_of(mode, 2 * k);
    if (sm__types[type].act_block) {
        matmul_fill_blocks(mode);
        return;
    }
    for (i = 0; i < MAX_N * k; i++) {
        float w = random_of(mode, 2 * k);
        sm__types[type].encode(&w, mc.w + (size_t)i * (size_t)sm__types[type].info.block_bytes, 1);
    }
}

static sm__acts matmul_acts(void) {
    sm__acts a;
    a.x = mc.x;
    a.x_stride = (size_t)mc.k;
    a.q = mc.q;
    a.q_stride = (size_t)mc.k;
    a.d = mc.d;
    a.d_stride = (size_t)(mc.k / mc.act_block);
    a.s = mc.s;
    a.s_stride = (size_t)mc.k / 16;
    return a;
}

static void matmul_truth(int n, int rows) {
    sm__acts a = matmul_acts();
    levels[0].k.matmul[mc.type](mc.w, mc.row_bytes, n, mc.k, &a, rows, mc.want, MAX_N, NULL);
}

/* Inputs, output and scratch, each with its end at a forbidden page. */
typedef struct matmul_place {
    guard w, x, q, d, s, out, scratch;
} matmul_place;

static matmul_place matmul_place_make(void) {
    matmul_place p;
    p.w = guard_make(MAX_N * (MAX_K * 4 + 8) + 64);
    p.x = guard_make(sizeof mc.x + MAX_ROWS * 16);
    p.q = guard_make(sizeof mc.q + MAX_ROWS * 128);
    p.d = guard_make(sizeof mc.d + MAX_ROWS * 16);
    p.s = guard_make(sizeof mc.s + MAX_ROWS * 16);
    p.out = guard_make(MAX_ROWS * (MAX_N + 4) * 4);
    p.scratch = guard_make(SM__MATMUL_SCRATCH(MAX_K));
    return p;
}

static void matmul_place_free(matmul_place *p) {
    guard_free(&p->w);
    guard_free(&p->x);
    guard_free(&p->q);
    guard_free(&p->d);
    guard_free(&p->s);
    guard_free(&p->out);
    guard_free(&p->scratch);
}

/* n rows of weights that end `gap` bytes before the page; what lies between rows is garbage. */
static const uint8_t *matmul_place_weights(matmul_place *p, int n, size_t stride, size_t gap) {
    uint8_t *w = p->w.end - gap - ((size_t)(n - 1) * stride + mc.row_bytes);
    int o;
    memset(w, 0xff, (size_t)(p->w.end - w));
    for (o = 0; o < n; o++)
        memcpy(w + (size_t)o * stride, mc.w + (size_t)o * mc.row_bytes, mc.row_bytes);
    return w;
}

static sm__acts matmul_place_acts(matmul_place *p, int rows) {
    size_t k = (size_t)mc.k, blocks = (size_t)(mc.k / mc.act_block), sums = k / 16;
    size_t n = (size_t)rows, t;
    sm__acts a;
    uint8_t *q;
    a.x_stride = k + n % 3;
    a.x = (float *)(void *)p->x.end - ((n - 1) * a.x_stride + k);
    a.q_stride = sm__round_up(k, 64) + n % 2 * 64;
    q = p->q.end - ((n - 1) * a.q_stride + sm__round_up(k, 64));
    a.q = (int8_t *)q;
    a.d_stride = blocks + n % 3;
    a.d = (float *)(void *)p->d.end - ((n - 1) * a.d_stride + blocks);
    a.s_stride = sums + n % 4;
    a.s = (int16_t *)(void *)p->s.end - ((n - 1) * a.s_stride + sums);
    memset((void *)a.x, 0xff, (size_t)(p->x.end - (const uint8_t *)a.x));
    memset(q, 0x7f, (size_t)(p->q.end - q));
    memset((void *)a.d, 0xff, (size_t)(p->d.end - (const uint8_t *)a.d));
    memset((void *)a.s, 0x3f, (size_t)(p->s.end - (const uint8_t *)a.s));
    for (t = 0; t < n; t++) {
        memcpy((void *)(a.x + t * a.x_stride), mc.x + t * k, k * 4);
        memcpy(q + t * a.q_stride, mc.q + t * k, k);
        memcpy((void *)(a.d + t * a.d_stride), mc.d + t * blocks, blocks * 4);
        memcpy((void *)(a.s + t * a.s_stride), mc.s + t * sums, sums * 2);
    }
    return a;
}

/* One call of one level, compared with the truth. */
static int matmul_compare(matmul_place *p, const level *l, const uint8_t *w, size_t stride, int n,
                          const sm__acts *a, int rows) {
    size_t out_stride = (size_t)(n + rows % 4), i;
    size_t total = (size_t)(rows - 1) * out_stride + (size_t)n;
    float *out = (float *)(void *)p->out.end - total;
    int t, at;
    for (i = 0; i < total; i++) out[i] = SENTINEL;
    l->k.matmul[mc.type](w, stride, n, mc.k, a, rows, out, out_stride,
                         p->scratch.end - SM__MATMUL_SCRATCH(mc.k));
    for (t = 0; t < rows; t++) {
        const float *got = out + (size_t)t * out_stride, *want = mc.want + t * MAX_N;
        at = first_difference(got, want, n);
        if (at >= 0)
            return FAIL("matmul %s %s: k %d, n %d, rows %d, weights at %u, stride %u: "
                        "[%d, %d] is %.9g (%08x), not %.9g (%08x)",
                        sm__types[mc.type].info.name, l->name, mc.k, n, rows,
                        (unsigned)((uintptr_t)w % 64), (unsigned)stride, t, at, (double)got[at],
                        sm__bits(got[at]), (double)want[at], sm__bits(want[at]));
        for (i = (size_t)n; t + 1 < rows && i < out_stride; i++)
            if (sm__bits(got[i]) != sm__bits(SENTINEL))
                return FAIL("matmul %s %s: k %d, n %d, rows %d: wrote beyond row %d",
                            sm__types[mc.type].info.name, l->name, mc.k, n, rows, t);
    }
    return 1;
}

/* Every n and many row counts for one k, others for the next one; the alignment walks through
 * 0 .. 15. */
static void matmul_shapes(matmul_place *p, int n_step, int row_step) {
    static size_t gap;
    static int first;
    int n, r, i;
    for (n = 1; n <= MAX_N; n += n_step) {
        size_t stride = mc.row_bytes + (n % 3 == 1 ? 1 : n % 3 == 2 ? 6 : 0);
        const uint8_t *w = matmul_place_weights(p, n, stride, gap++ % 16);
        for (r = (n + first) % row_step; r < COUNT(row_counts); r += row_step) {
            sm__acts a = matmul_place_acts(p, row_counts[r]);
            for (i = 1; i < n_levels; i++)
                if (levels[i].k.matmul[mc.type] != levels[i - 1].k.matmul[mc.type])
                    if (!matmul_compare(p, &levels[i], w, stride, n, &a, row_counts[r])) return;
        }
    }
    first++;
}

static void matmul_variants(int type) {
    const int *sizes = matmul_sizes(type);
    matmul_place p;
    int i, mode, errors = check.errors;
    NEED_VARIANTS();
    p = matmul_place_make();
    for (mode = 0; mode < N_MODES; mode++)
        for (i = 0; sizes[i] && check.errors < errors + 8; i++) {
            matmul_fill(type, sizes[i], mode);
            matmul_truth(MAX_N, MAX_ROWS);
            /* one size of superblocks, and enough others for each pair to come several times */
            if (mode == MODE_NORMAL && sizes[i] < 300) matmul_shapes(&p, 1, sizes[1] > 256 ? 1 : 4);
            else matmul_shapes(&p, 3 + mode % 2, 8);
        }
    /* every alignment, with the weights' start at a forbidden page, too */
    matmul_fill(type, mc.act_block == 256 ? 256 : 96, MODE_NORMAL);
    matmul_truth(MAX_N, MAX_ROWS);
    for (i = 0; i < 64; i++) {
        int n = 1 + i % MAX_N, j;
        int rows = 1 + i % 5 * 4; /* 1, 5, 9, 13, 17 */
        sm__acts a = matmul_place_acts(&p, rows);
        uint8_t *w = p.w.base + i / 4;
        for (j = 0; j < n; j++)
            memcpy(w + (size_t)j * mc.row_bytes, mc.w + (size_t)j * mc.row_bytes, mc.row_bytes);
        for (j = 1; j < n_levels; j++)
            matmul_compare(&p, &levels[j], w, mc.row_bytes, n, &a, rows);
    }
    matmul_place_free(&p);
}

/* The truth against sums in twice double's precision, within the contract's bound. */
static double matmul_exact(int t, int o, double *bound) {
    void (*unpack[SM__N_TYPES])(const void *, sm__plain *) = {NULL};
    exact e = {0, 0, 0};
    int i, b, k = mc.k, block = mc.act_block;
    if (!sm__types[mc.type].act_block) {
        size_t elem = (size_t)sm__types[mc.type].info.block_bytes;
        for (i = 0; i < k; i++) {
            float w;
            sm__types[mc.type].decode(mc.w + (size_t)o * mc.row_bytes + (size_t)i * elem, &w, 1);
            exact_add(&e, (double)w * (double)mc.x[t * k + i]);
        }
        *bound = (k / 16.0 + 5) * ULP * e.magnitude;
        return exact_value(&e);
    }
#define UNPACK(name, T) unpack[T] = sm__unpack_##name;
    SM__PLAIN_LIST(UNPACK)
#undef UNPACK
    for (b = 0; b < k / block && unpack[mc.type]; b++) {
        sm__plain w; /* which the types' own tests check */
        size_t at = (size_t)o * mc.row_bytes +
                    (size_t)b * (size_t)sm__types[mc.type].info.block_bytes;
        double isum = 0, msum = 0, d = (double)mc.d[t * (k / block) + b];
        unpack[mc.type](mc.w + at, &w);
        for (i = 0; i < block; i++) {
            isum += (double)w.sc[i / 16] * w.q[i] * mc.q[t * k + b * block + i];
            msum += (double)w.m[i / 16] * mc.q[t * k + b * block + i];
        }
        exact_add(&e, isum * (double)w.d * d);
        exact_add(&e, -msum * (double)w.dmin * d);
    }
    *bound = (k / (block == 256 ? 128.0 : sm__has_minima(mc.type) ? 16.0 : 32.0) + 3) * ULP *
             e.magnitude;
    if (unpack[mc.type]) return exact_value(&e);
    for (b = 0; b < k / 32; b++) {
        float w[32], one = 1.0f; /* the integers, by decoding with scale 1 */
        uint8_t one_block[34];
        uint16_t d, unit = sm__f32_to_f16(one);
        size_t bytes = (size_t)sm__types[mc.type].info.block_bytes;
        double isum = 0;
        memcpy(one_block, mc.w + (size_t)o * mc.row_bytes + (size_t)b * bytes, bytes);
        memcpy(&d, one_block, 2);
        memcpy(one_block, &unit, 2);
        sm__types[mc.type].decode(one_block, w, 32);
        for (i = 0; i < 32; i++) isum += (double)w[i] * mc.q[t * k + b * 32 + i];
        exact_add(&e, isum * (double)sm__f16_to_f32(d) * (double)mc.d[t * (k / 32) + b]);
    }
    *bound = (k / 32.0 + 2) * ULP * e.magnitude;
    return exact_value(&e);
}

static void matmul_bound(int type) {
    const int *sizes = matmul_sizes(type);
    int i, t, o;
    levels_init();
    for (i = 0; sizes[i]; i++) {
        matmul_fill(type, sizes[i], MODE_NORMAL);
        matmul_truth(MAX_N, 5);
        for (t = 0; t < 5; t++)
            for (o = 0; o < MAX_N; o++) {
                double bound, want = matmul_exact(t, o, &bound);
                if (!CHECK_NEAR(mc.want[t * MAX_N + o], want, bound)) return;
            }
    }
}

static void matmul_f32_keeps_its_bound(void) { matmul_bound(SM__T_F32); }
static void matmul_f16_keeps_its_bound(void) { matmul_bound(SM__T_F16); }
static void matmul_bf16_keeps_its_bound(void) { matmul_bound(SM__T_BF16); }
static void matmul_q8_0_keeps_its_bound(void) { matmul_bound(SM__T_Q8_0); }
static void matmul_q4_0_keeps_its_bound(void) { matmul_bound(SM__T_Q4_0); }
static void matmul_q4_k_keeps_its_bound(void) { matmul_bound(SM__T_Q4_K); }
static void matmul_q5_k_keeps_its_bound(void) { matmul_bound(SM__T_Q5_K); }
static void matmul_q6_k_keeps_its_bound(void) { matmul_bound(SM__T_Q6_K); }
static void matmul_q4_1_keeps_its_bound(void) { matmul_bound(SM__T_Q4_1); }
static void matmul_q5_0_keeps_its_bound(void) { matmul_bound(SM__T_Q5_0); }
static void matmul_q5_1_keeps_its_bound(void) { matmul_bound(SM__T_Q5_1); }
static void matmul_iq4_nl_keeps_its_bound(void) { matmul_bound(SM__T_IQ4_NL); }
static void matmul_mxfp4_keeps_its_bound(void) { matmul_bound(SM__T_MXFP4); }
static void matmul_q2_k_keeps_its_bound(void) { matmul_bound(SM__T_Q2_K); }
static void matmul_q3_k_keeps_its_bound(void) { matmul_bound(SM__T_Q3_K); }
static void matmul_iq4_xs_keeps_its_bound(void) { matmul_bound(SM__T_IQ4_XS); }
static void matmul_tq1_0_keeps_its_bound(void) { matmul_bound(SM__T_TQ1_0); }
static void matmul_tq2_0_keeps_its_bound(void) { matmul_bound(SM__T_TQ2_0); }
static void matmul_f32_variants_agree(void) { matmul_variants(SM__T_F32); }
static void matmul_f16_variants_agree(void) { matmul_variants(SM__T_F16); }
static void matmul_bf16_variants_agree(void) { matmul_variants(SM__T_BF16); }
static void matmul_q8_0_variants_agree(void) { matmul_variants(SM__T_Q8_0); }
static void matmul_q4_0_variants_agree(void) { matmul_variants(SM__T_Q4_0); }
static void matmul_q4_k_variants_agree(void) { matmul_variants(SM__T_Q4_K); }
static void matmul_q5_k_variants_agree(void) { matmul_variants(SM__T_Q5_K); }
static void matmul_q6_k_variants_agree(void) { matmul_variants(SM__T_Q6_K); }
static void matmul_q4_1_variants_agree(void) { matmul_variants(SM__T_Q4_1); }
static void matmul_q5_0_variants_agree(void) { matmul_variants(SM__T_Q5_0); }
static void matmul_q5_1_variants_agree(void) { matmul_variants(SM__T_Q5_1); }
static void matmul_iq4_nl_variants_agree(void) { matmul_variants(SM__T_IQ4_NL); }
static void matmul_mxfp4_variants_agree(void) { matmul_variants(SM__T_MXFP4); }
static void matmul_q2_k_variants_agree(void) { matmul_variants(SM__T_Q2_K); }
static void matmul_q3_k_variants_agree(void) { matmul_variants(SM__T_Q3_K); }
static void matmul_iq4_xs_variants_agree(void) { matmul_variants(SM__T_IQ4_XS); }
static void matmul_tq1_0_variants_agree(void) { matmul_variants(SM__T_TQ1_0); }
static void matmul_tq2_0_variants_agree(void) { matmul_variants(SM__T_TQ2_0); }

/* --- attend ----------------------------------------------------------------------------------- */

#define MAX_D 128
#define NO_ROWS SM__ATTEND_ROWS

static const int head_dims[] = {8, 16, 20, 32, 48, 64, 80, 96, 128};
static const int key_counts[] = {1,  2,  3,  15,  16,  17,  31,  33,  63,  64,  65,  80,
                                 96, 127, 128, 129, 160, 191, 192, 193, 240, 255, 256};

/* One part of one head with as many rows as a call can have; row i depends on q[i] and
 * n_keys[i]. Keys and values have the same type: they meet different kernels. */
static struct attend_case {
    int type, head_dim, most_keys;
    guard keys[4], values[4]; /* blocks that end at a forbidden page */
    const void *key_blocks[4], *value_blocks[4];
    float q[NO_ROWS][MAX_D], scale, cap;
    int n_keys[NO_ROWS], first[NO_ROWS];
    float m[NO_ROWS], s[NO_ROWS], o[NO_ROWS][MAX_D];
} ac;

static size_t attend_bytes(int type, int head_dim) {
    return sm__row_bytes(type, (size_t)head_dim) * SM__KV_BLOCK;
}

/* Elements that share a scale, 0 without; i counts keys as [D, 64], values as [64, D]. */
static int attend_group(void) {
    return ac.type == SM__T_Q8_0 || ac.type == SM__T_Q4_0 ? 32 : 0;
}
static uint8_t *attend_scale(const void *block, int i, int is_value) {
    int at = is_value ? i / 32 : i / (32 * SM__KV_BLOCK) * SM__KV_BLOCK + i % SM__KV_BLOCK;
    int bytes = ac.head_dim * SM__KV_BLOCK / (ac.type == SM__T_Q4_0 ? 2 : 1);
    return (uint8_t *)(uintptr_t)block + bytes + 2 * at;
}

/* Q4_0: the byte of an element, and how far up it is there. */
static uint8_t *attend_nibble(const void *block, int i, int is_value, int *shift) {
    int d = is_value ? i % ac.head_dim : i / SM__KV_BLOCK;
    uint8_t *at = (uint8_t *)(uintptr_t)block;
    *shift = is_value ? d / 16 % 2 * 4 : d % 2 * 4;
    if (!is_value) return at + d / 2 * SM__KV_BLOCK + i % SM__KV_BLOCK;
    return at + i / ac.head_dim * (ac.head_dim / 2) + d / 32 * 16 + d % 16;
}

/* Q8_0 and Q4_0: every number but -128, and the scale of its group over and over: the last one
 * stays. */
static void attend_store_scaled(uint8_t *block, int i, int is_value, float x, int mode) {
    int q = mode == MODE_ZERO ? (x != 0.0f) : random_below(255) - 127, shift;
    uint16_t h = sm__f32_to_f16(mode == MODE_NORMAL ? 0.001f + 0.01f * (x * x) : x);
    if (ac.type == SM__T_Q4_0) {
        uint8_t *at = attend_nibble(block, i, is_value, &shift);
        *at = (uint8_t)((*at & (240 >> shift)) | (q & 15) << shift);
    } else {
        block[i] = (uint8_t)q;
    }
    memcpy(attend_scale(block, i, is_value), &h, 2);
}

static void attend_store(uint8_t *block, int i, int is_value, float x, int mode) {
    if (attend_group()) attend_store_scaled(block, i, is_value, x, mode);
    else sm__types[ac.type].encode(&x, block + sm__types[ac.type].info.block_bytes * i, 1);
}

/* Keys and values beyond the last one are what uninitialised memory may hold: NaN. */
static void attend_fill(int most_keys, int mode) {
    size_t bytes = attend_bytes(ac.type, ac.head_dim);
    int b, j, d, i;
    ac.most_keys = most_keys;
    ac.scale = 1.0f / sqrtf((float)ac.head_dim);
    for (b = 0; b < 4; b++) {
        uint8_t *keys = ac.keys[b].end - bytes, *values = ac.values[b].end - bytes;
        ac.key_blocks[b] = keys;
        ac.value_blocks[b] = values;
        memset(keys, 0xff, bytes);
        memset(values, 0xff, bytes);
        for (j = 0; j < SM__KV_BLOCK && b * SM__KV_BLOCK + j < most_keys; j++)
            for (d = 0; d < ac.head_dim; d++) {
                attend_store(keys, d * SM__KV_BLOCK + j, 0, random_of(mode, 500), mode);
                attend_store(values, j * ac.head_dim + d, 1, random_of(mode, 500), mode);
            }
    }
    for (i = 0; i < NO_ROWS; i++) {
        random_fill(ac.q[i], ac.head_dim, MODE_NORMAL);
        if (mode == MODE_WIDE) /* far apart: most weights vanish */
            for (d = 0; d < ac.head_dim; d++) ac.q[i][d] *= 50.0f;
        if (mode == MODE_NOT_FINITE && i % 4 == 0)
            ac.q[i][random_below(ac.head_dim)] = random_special();
        /* as a prompt has it, all equal, any */
        ac.n_keys[i] = i < 16 ? sm__max(1, most_keys - 15 + i) : most_keys;
        if (i >= 32) ac.n_keys[i] = 1 + random_below(most_keys);
        ac.first[i] = i % 3 == 2 ? random_below(ac.n_keys[i]) : 0;
    }
    ac.cap = most_keys % 2 ? 0.0f : 1.5f;
}

static void attend_call(const level *l, int first, int n_q, float *m, float *s, float *const *o,
                        const float *const *q, float *scores) {
    const void *keys[4], *values[4];
    sm__attend_args a;
    int i, b, most = 0;
    memset(&a, 0, sizeof a);
    for (i = first; i < first + n_q; i++) most = sm__max(most, ac.n_keys[i]);
    for (b = 0; b < 4; b++) { /* a block that no row sees is not touched */
        int seen = b * SM__KV_BLOCK < most;
        keys[b] = seen ? ac.key_blocks[b] : ac.keys[b].end;
        values[b] = seen ? ac.value_blocks[b] : ac.values[b].end;
    }
    a.keys = keys;
    a.values = values;
    a.next = keys[0];
    a.q = q;
    a.n_keys = ac.n_keys + first;
    a.first = ac.first + first;
    a.cap = ac.cap;
    a.n_q = n_q;
    a.head_dim = ac.head_dim;
    a.scale = ac.scale;
    a.m = m;
    a.s = s;
    a.o = o;
    a.scores = scores;
    l->k.attend_keys(ac.type, &a);
    l->k.attend_values(ac.type, &a);
}

static float attend_scores[NO_ROWS * SM__PART + 16]; /* for the truth */

static void attend_truth(void) {
    float *o[NO_ROWS];
    const float *q[NO_ROWS];
    int i;
    for (i = 0; i < NO_ROWS; i++) o[i] = ac.o[i], q[i] = ac.q[i];
    attend_call(&levels[0], 0, NO_ROWS, ac.m, ac.s, o, q, attend_scores);
}

typedef struct attend_place {
    guard q, o, m, s, scores;
} attend_place;

static int attend_compare(attend_place *p, const level *l, int first, int n_q) {
    size_t width = (size_t)ac.head_dim + 1, n = (size_t)n_q, i;
    float *o[NO_ROWS], *rows = (float *)(void *)p->q.end - n * width;
    float *out = (float *)(void *)p->o.end - n * width;
    float *m = (float *)(void *)p->m.end - n, *s = (float *)(void *)p->s.end - n;
    const float *q[NO_ROWS];
    for (i = 0; i < n; i++) {
        q[i] = rows + i * width + 1; /* the last row ends at the page */
        memcpy(rows + i * width + 1, ac.q[(size_t)first + i], (size_t)ac.head_dim * 4);
        o[i] = out + i * width + 1;
        out[i * width] = SENTINEL;
    }
    memset(p->scores.base, 0xff, (size_t)(p->scores.end - p->scores.base));
    attend_call(l, first, n_q, m, s, o, q, (float *)(void *)p->scores.end - n * SM__PART);
    for (i = 0; i < n; i++) {
        size_t row = (size_t)first + i;
        int at = first_difference(o[i], ac.o[row], ac.head_dim);
        if (!same_float(m[i], ac.m[row]) || !same_float(s[i], ac.s[row]) || at >= 0 ||
            sm__bits(out[i * width]) != sm__bits(SENTINEL))
            return FAIL("attend %s %s: head_dim %d, n_q %d, row %d with %d of %d keys: m %.9g "
                        "(%.9g), s %.9g (%.9g), o differs at %d",
                        sm__types[ac.type].info.name, l->name, ac.head_dim, n_q, (int)i,
                        ac.n_keys[row], ac.most_keys, (double)m[i], (double)ac.m[row], (double)s[i],
                        (double)ac.s[row], at);
    }
    return 1;
}

/* Guarded blocks; 0 for a head_dim that the type cannot have. */
static int attend_begin(int type, int head_dim) {
    size_t bytes = attend_bytes(type, head_dim);
    int b;
    ac.type = type;
    ac.head_dim = head_dim;
    if (attend_group() && head_dim % 32) return 0;
    for (b = 0; b < 4; b++) ac.keys[b] = guard_make(bytes), ac.values[b] = guard_make(bytes);
    return 1;
}

static void attend_end(void) {
    int b;
    for (b = 0; b < 4; b++) guard_free(&ac.keys[b]), guard_free(&ac.values[b]);
}

/* Every second size, the others the next time. */
static void attend_windows(attend_place *p) {
    static const int sizes[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 16, 17, 33, 64};
    static int turn;
    int i, l;
    for (i = turn++ % 2; i < COUNT(sizes); i += 2) {
        int first = random_below(NO_ROWS - sizes[i] + 1);
        for (l = 1; l < n_levels; l++)
            if (levels[l].k.attend_keys != levels[0].k.attend_keys)
                if (!attend_compare(p, &levels[l], first, sizes[i])) return;
    }
}

static void attend_variants(int type) {
    attend_place p;
    int d, i, mode, errors = check.errors;
    int step = type == SM__T_F32 || type == SM__T_BF16 ? 2 : 1; /* F16's but for the loads */
    NEED_VARIANTS();
    p.q = guard_make(NO_ROWS * (MAX_D + 1) * 4);
    p.o = guard_make(NO_ROWS * (MAX_D + 1) * 4);
    p.m = guard_make(NO_ROWS * 4);
    p.s = guard_make(NO_ROWS * 4);
    p.scores = guard_make(NO_ROWS * SM__PART * 4);
    for (d = type == SM__T_BF16; d < COUNT(head_dims); d += step) {
        if (!attend_begin(type, head_dims[d])) continue;
        for (mode = 0; mode < N_MODES; mode++)
            for (i = (mode + d) % 4; i < COUNT(key_counts); i += mode == MODE_NORMAL ? 2 : 4) {
                if (check.errors >= errors + 8) break;
                attend_fill(key_counts[i], mode);
                attend_truth();
                attend_windows(&p);
            }
        attend_end();
    }
    guard_free(&p.q);
    guard_free(&p.o);
    guard_free(&p.m);
    guard_free(&p.s);
    guard_free(&p.scores);
}

static double attend_load(const void *block, int i, int is_value) {
    const uint8_t *at = (const uint8_t *)block;
    int shift = 0, q = ac.type == SM__T_Q8_0 ? (int8_t)at[i] : 0;
    uint16_t h;
    float x;
    if (ac.type == SM__T_Q4_0) {
        const uint8_t *nibble = attend_nibble(block, i, is_value, &shift);
        q = *nibble >> shift & 15;
        if (q > 7) q -= 16;
    }
    if (attend_group()) {
        memcpy(&h, attend_scale(block, i, is_value), 2);
        return (double)q * (double)sm__f16_to_f32(h);
    }
    sm__types[ac.type].decode(at + sm__types[ac.type].info.block_bytes * i, &x, 1);
    return (double)x;
}

/* A row in double. With e the largest error of a score ((D + 1) roundings; with scales 32 and one
 * for each group), every weight is off by 2 e (its own score and the largest one's), by the
 * rounding of the difference (at most 88 units) and by exp (below 2 ulp = 4 units); s adds
 * n / 16 + 5 roundings, o adds one for each key, and one for the weight's scale. A cap is no
 * steeper than 1 and adds its own error. */
static int attend_check_row(int i) {
    static double p[SM__PART];
    double m = -1e300, s = 0, e = 0, rest, cap = (double)ac.cap;
    int roundings = attend_group() ? 33 + ac.head_dim / 32 : ac.head_dim + 1;
    int j, d, n = ac.n_keys[i], first = ac.first[i];
    for (j = first; j < n; j++) {
        const void *block = ac.key_blocks[j / SM__KV_BLOCK];
        double magnitude = 0;
        p[j] = 0;
        for (d = 0; d < ac.head_dim; d++) {
            int at = d * SM__KV_BLOCK + j % SM__KV_BLOCK;
            double x = (double)ac.q[i][d] * attend_load(block, at, 0);
            p[j] += x;
            magnitude += fabs(x);
        }
        p[j] *= (double)ac.scale;
        if (cap > 0) p[j] = cap * tanh(p[j] / cap);
        e = larger(e, roundings * ULP * magnitude * (double)ac.scale + 8 * ULP * cap);
        m = larger(m, p[j]);
    }
    for (j = first; j < n; j++) p[j] = exp(p[j] - m), s += p[j];
    rest = (2 * e + (88 + 4) * ULP) * 1.01;
    if (!CHECK_NEAR(ac.m[i], m, e) || !CHECK_NEAR(ac.s[i], s, s * (rest + (n / 16.0 + 5) * ULP)))
        return 0;
    for (d = 0; d < ac.head_dim; d++) {
        double sum = 0, magnitude = 0;
        for (j = first; j < n; j++) {
            double x = p[j] * attend_load(ac.value_blocks[j / SM__KV_BLOCK],
                                          j % SM__KV_BLOCK * ac.head_dim + d, 1);
            sum += x;
            magnitude += fabs(x);
        }
        if (!CHECK_NEAR(ac.o[i][d], sum, magnitude * (rest + (n + (attend_group() > 0)) * ULP)))
            return 0;
    }
    return 1;
}

static void attend_bound(int type) {
    int d, i, row;
    levels_init();
    for (d = 0; d < COUNT(head_dims); d += type == SM__T_Q8_0 || type == SM__T_Q4_0 ? 1 : 2) {
        if (!attend_begin(type, head_dims[d])) continue;
        for (i = 0; i < COUNT(key_counts); i += 3) {
            attend_fill(key_counts[i], MODE_NORMAL);
            attend_truth();
            for (row = 0; row < NO_ROWS; row += 5)
                if (!attend_check_row(row)) break;
        }
        attend_end();
    }
}

static void attend_f32_keeps_its_bound(void) { attend_bound(SM__T_F32); }
static void attend_f16_keeps_its_bound(void) { attend_bound(SM__T_F16); }
static void attend_bf16_keeps_its_bound(void) { attend_bound(SM__T_BF16); }
static void attend_q8_0_keeps_its_bound(void) { attend_bound(SM__T_Q8_0); }
static void attend_q4_0_keeps_its_bound(void) { attend_bound(SM__T_Q4_0); }
static void attend_f32_variants_agree(void) { attend_variants(SM__T_F32); }
static void attend_f16_variants_agree(void) { attend_variants(SM__T_F16); }
static void attend_bf16_variants_agree(void) { attend_variants(SM__T_BF16); }
static void attend_q8_0_variants_agree(void) { attend_variants(SM__T_Q8_0); }
static void attend_q4_0_variants_agree(void) { attend_variants(SM__T_Q4_0); }

/* The rules for scores that are no numbers: NaN is skipped, -inf has no weight, none = (-inf,
 * 0). */
static void attend_rules_for_what_is_not_finite(void) {
    int i;
    levels_init();
    attend_begin(SM__T_F32, 8);
    attend_fill(5, MODE_NORMAL);
    for (i = 0; i < 8; i++) ac.q[0][i] = sm__from_bits(0x7fc00000u); /* every score NaN */
    memset(ac.q[1], 0, 8 * 4);
    ac.q[1][0] = -3e38f; /* every score -inf, but key 2's */
    memset(ac.q[2], 0, 8 * 4);
    ac.q[2][0] = SM__INFINITY; /* every score inf, but key 2's, which is NaN */
    for (i = 0; i < 3; i++) ac.n_keys[i] = 5;
    for (i = 0; i < 5; i++)
        attend_store((uint8_t *)ac.keys[0].end - 2048, i, 0, i == 2 ? 0.0f : 10.0f, 0);
    attend_truth();
    CHECK(sm__bits(ac.m[0]) == 0xff800000u && ac.s[0] == 0.0f && ac.o[0][0] == 0.0f);
    CHECK(ac.m[1] == 0.0f && ac.s[1] == 1.0f);
    CHECK(ac.o[1][3] == (float)attend_load(ac.value_blocks[0], 2 * 8 + 3, 1));
    CHECK(sm__bits(ac.m[2]) == 0x7f800000u && ac.s[2] == 0.0f); /* inf - inf: no weight at all */
    attend_end();
}

/* --- rows: norms, softmax, activations, small things ------------------------------------------ */

/* A kernel from rows to a row. Inputs x, y, z and out have n elements and end at forbidden
 * pages. */
typedef struct row_case {
    const float *x, *y, *z;
    float *out;
    int n;
} row_case;

typedef struct row_kernel {
    const char *name;
    void (*run)(const sm__kernels *k, const row_case *c);
} row_kernel;

static void copy_row(float *out, const float *x, int n) { memcpy(out, x, (size_t)n * 4); }

static void run_rms_norm(const sm__kernels *k, const row_case *c) {
    k->rms_norm(c->x, c->y, c->out, c->n, 1e-5f);
}
static void run_rms_norm_in_place(const sm__kernels *k, const row_case *c) {
    copy_row(c->out, c->x, c->n);
    k->rms_norm(c->out, c->y, c->out, c->n, 1e-6f);
}
static void run_layer_norm(const sm__kernels *k, const row_case *c) {
    k->layer_norm(c->x, c->y, c->z, c->out, c->n, 1e-5f);
}
static void run_layer_norm_in_place(const sm__kernels *k, const row_case *c) {
    copy_row(c->out, c->x, c->n);
    k->layer_norm(c->out, c->y, c->z, c->out, c->n, 1e-5f);
}
static void run_layer_norm_no_bias(const sm__kernels *k, const row_case *c) {
    k->layer_norm(c->x, c->y, NULL, c->out, c->n, 1e-5f);
}
static void run_softmax(const sm__kernels *k, const row_case *c) {
    copy_row(c->out, c->x, c->n);
    k->softmax(c->out, c->n);
}
static void run_softmax_wide(const sm__kernels *k, const row_case *c) {
    int i;
    for (i = 0; i < c->n; i++) c->out[i] = c->x[i] * 60.0f;
    k->softmax(c->out, c->n);
}
static void run_swiglu(const sm__kernels *k, const row_case *c) {
    k->swiglu(c->x, c->y, c->out, c->n);
}
static void run_swiglu_on_gate(const sm__kernels *k, const row_case *c) {
    int i;
    for (i = 0; i < c->n; i++) c->out[i] = c->x[i] * 100.0f;
    k->swiglu(c->out, c->y, c->out, c->n);
}
static void run_swiglu_on_up(const sm__kernels *k, const row_case *c) {
    copy_row(c->out, c->y, c->n);
    k->swiglu(c->x, c->out, c->out, c->n);
}
static void run_gelu_tanh(const sm__kernels *k, const row_case *c) {
    k->gelu_tanh(c->x, c->out, c->n);
}
static void run_gelu_erf(const sm__kernels *k, const row_case *c) {
    k->gelu_erf(c->x, c->out, c->n);
}
static void run_add(const sm__kernels *k, const row_case *c) {
    copy_row(c->out, c->y, c->n);
    k->add(c->x, c->out, c->n);
}
static void run_scale(const sm__kernels *k, const row_case *c) {
    copy_row(c->out, c->x, c->n);
    k->scale(c->out, c->y[0], c->n);
}
static void run_mul(const sm__kernels *k, const row_case *c) {
    copy_row(c->out, c->y, c->n);
    k->mul(c->x, c->out, c->n);
}
static void run_soft_cap(const sm__kernels *k, const row_case *c) {
    copy_row(c->out, c->x, c->n);
    k->soft_cap(c->out, 0.7f, 3.0f, c->n);
}
static void run_merge(const sm__kernels *k, const row_case *c) {
    float m = c->y[0] * 20.0f, s = c->z[0];
    copy_row(c->out, c->x, c->n);
    k->merge(&m, &s, c->out, c->y[c->n - 1] * 20.0f, c->z[c->n - 1], c->z, c->n);
    if (c->n > 2) c->out[0] += m, c->out[1] += s; /* so that they count too */
}
static void run_merge_nothing(const sm__kernels *k, const row_case *c) { /* two empty parts */
    float m = -SM__INFINITY, s = 0.0f;
    copy_row(c->out, c->x, c->n);
    k->merge(&m, &s, c->out, -SM__INFINITY, c->y[0], c->z, c->n);
    if (c->n > 2) c->out[0] += m, c->out[1] += s;
}

static const row_kernel row_kernels[] = {
    {"rms_norm", run_rms_norm},
    {"rms_norm in place", run_rms_norm_in_place},
    {"layer_norm", run_layer_norm},
    {"layer_norm in place", run_layer_norm_in_place},
    {"layer_norm without bias", run_layer_norm_no_bias},
    {"softmax", run_softmax},
    {"softmax of far values", run_softmax_wide},
    {"swiglu", run_swiglu},
    {"swiglu on gate", run_swiglu_on_gate},
    {"swiglu on up", run_swiglu_on_up},
    {"gelu_tanh", run_gelu_tanh},
    {"gelu_erf", run_gelu_erf},
    {"add", run_add},
    {"mul", run_mul},
    {"scale", run_scale},
    {"soft_cap", run_soft_cap},
    {"merge", run_merge},
    {"merge of nothing", run_merge_nothing},
};

#define MAX_ROW 1100

/* Rows of n that end `gap` floats before a forbidden page. */
typedef struct row_place {
    guard x, y, z, out;
} row_place;

static row_place row_place_make(void) {
    row_place p;
    p.x = guard_make(MAX_ROW * 4);
    p.y = guard_make(MAX_ROW * 4);
    p.z = guard_make(MAX_ROW * 4);
    p.out = guard_make(MAX_ROW * 4);
    return p;
}

static void row_place_free(row_place *p) {
    guard_free(&p->x);
    guard_free(&p->y);
    guard_free(&p->z);
    guard_free(&p->out);
}

static float *row_at(const guard *g, int n, int gap) {
    return (float *)(void *)g->end - gap - n;
}

static int row_compare(row_place *p, const row_kernel *r, int n, int mode, int gap) {
    static float want[MAX_ROW];
    row_case c;
    int l, i, at;
    float *x = row_at(&p->x, n, gap), *y = row_at(&p->y, n, gap * 3 % 16);
    float *z = row_at(&p->z, n, gap * 5 % 16);
    random_fill(x, n, mode);
    random_fill(y, n, mode);
    random_fill(z, n, mode == MODE_WIDE ? MODE_NORMAL : mode);
    for (i = 0; mode == MODE_NORMAL && i < n; i++) x[i] *= 8.0f;
    c.x = x;
    c.y = y;
    c.z = z;
    c.n = n;
    c.out = want;
    r->run(&levels[0].k, &c);
    for (l = 1; l < n_levels; l++) {
        c.out = row_at(&p->out, n, gap * 7 % 16);
        for (i = 0; i < n; i++) c.out[i] = SENTINEL;
        for (i = -16; i < 0; i++) c.out[i] = SENTINEL;
        for (i = n; i < n + gap * 7 % 16; i++) c.out[i] = SENTINEL;
        r->run(&levels[l].k, &c);
        at = first_difference(c.out, want, n);
        if (at >= 0)
            return FAIL("%s %s: n %d, mode %d, gap %d: [%d] is %.9g (%08x), not %.9g (%08x); "
                        "x %.9g, y %.9g", r->name, levels[l].name, n, mode, gap, at,
                        (double)c.out[at], sm__bits(c.out[at]), (double)want[at],
                        sm__bits(want[at]), (double)x[at], (double)y[at]);
        for (i = -16; i < n + gap * 7 % 16; i++)
            if ((i < 0 || i >= n) && sm__bits(c.out[i]) != sm__bits(SENTINEL))
                return FAIL("%s %s: n %d: wrote at %d", r->name, levels[l].name, n, i);
    }
    return 1;
}

static void rows_variants_agree(void) {
    row_place p;
    int r, n, mode, i, errors;
    NEED_VARIANTS();
    p = row_place_make();
    for (r = 0; r < COUNT(row_kernels); r++) {
        errors = check.errors;
        for (mode = 0; mode < N_MODES && check.errors == errors; mode++) {
            for (n = 1; n <= 70; n++) row_compare(&p, &row_kernels[r], n, mode, n * 11 % 16);
            for (i = 0; float_sizes[i]; i++)
                row_compare(&p, &row_kernels[r], float_sizes[i], mode, i * 3 % 16);
            for (i = 0; i < 16; i++) row_compare(&p, &row_kernels[r], 100 + i % 3, mode, i);
            if (check.errors > errors + 4) break;
        }
    }
    row_place_free(&p);
}

/* --- quant, to_f16 ---------------------------------------------------------------------------- */

static int quant_compare(row_place *p, guard *q_place, int k, int block, int mode, int gap) {
    static float d_want[MAX_ROW / 32];
    static int16_t s_want[MAX_ROW / 16];
    static int8_t q_want[MAX_ROW];
    int blocks = k / block, l, i;
    float *x = row_at(&p->x, k, gap), *d = row_at(&p->out, blocks, gap);
    int16_t *s = (int16_t *)(void *)row_at(&p->y, k / 32, gap);
    int8_t *q = (int8_t *)q_place->end - sm__round_up((size_t)k, 64);
    random_fill(x, k, mode);
    for (i = 0; i < k && mode == MODE_NORMAL; i++)
        if (random_below(8) == 0) x[i] = (float)(random_below(511) - 255) * 0.5f; /* ties */
    for (i = 0; i < k; i += 32)
        if (mode == MODE_NORMAL && random_below(2)) x[i + random_below(32)] = 127.0f;
    levels[0].k.quant(x, k, block, q_want, d_want, s_want);
    for (l = 1; l < n_levels; l++) {
        memset(q, 0x55, (size_t)k);
        levels[l].k.quant(x, k, block, q, d, s);
        for (i = 0; i < k; i++)
            if (q[i] != q_want[i] || s[i / 16] != s_want[i / 16] ||
                !same_float(d[i / block], d_want[i / block]))
                return FAIL("quant %s: k %d by %d, mode %d, gap %d: [%d] %.9g is %d (%d), d %.9g "
                            "(%.9g), s %d (%d)", levels[l].name, k, block, mode, gap, i,
                            (double)x[i], q[i], q_want[i], (double)d[i / block],
                            (double)d_want[i / block], s[i / 16], s_want[i / 16]);
    }
    return 1;
}

static void quant_variants_agree(void) {
    row_place p;
    guard q;
    int mode, i, k, gap;
    NEED_VARIANTS();
    p = row_place_make();
    q = guard_make(MAX_ROW + 64);
    for (mode = 0; mode < N_MODES; mode++)
        for (i = 0; i < 8; i++) {
            for (k = 32, gap = i * 2; k <= 1056; k += k < 320 ? 32 : 352)
                if (!quant_compare(&p, &q, k, 32, mode, gap++ % 16)) break;
            for (k = 256; k <= 1024; k += 256)
                if (!quant_compare(&p, &q, k, 256, mode, gap++ % 16)) break;
        }
    guard_free(&q);
    row_place_free(&p);
}

/* q is the integer nearest to x * 127 / amax, but for the two roundings of its computation, each of
 * which moves it by at most 127 units of the last place. */
static void quant_rounds_to_nearest(void) {
    static float x[512], d[16];
    static int8_t q[512];
    static int16_t s[32];
    int round, i, j;
    levels_init();
    for (round = 0; round < 500; round++) {
        int block = round % 2 ? 256 : 32;
        random_fill(x, 512, MODE_NORMAL);
        for (i = 0; i < 512; i++)
            x[i] *= (float)ldexp(1.0, (round * 7 + i / block * 11) % 120 - 60);
        levels[0].k.quant(x, 512, block, q, d, s);
        for (i = 0; i < 512; i += 16) {
            int sum = 0;
            for (j = i; j < i + 16; j++) sum += q[j];
            CHECK(sum == s[i / 16]);
        }
        for (i = 0; i < 512 / block; i++) {
            double amax = 0;
            for (j = i * block; j < i * block + block; j++) amax = larger(amax, fabs((double)x[j]));
            if (!CHECK_NEAR(d[i], amax / 127, amax / 127 * ULP)) return;
            for (j = i * block; j < i * block + block; j++)
                if (!CHECK_NEAR(q[j], (double)x[j] * 127 / amax, 0.5 + 2.01 * 127 * ULP)) return;
        }
    }
}

static void quant_rules(void) {
    static const float ties[] = {127, 0.5f, 1.5f, 2.5f, -0.5f, -1.5f, -2.5f, 126.5f, -126.5f, -127};
    static const int want[] = {127, 0, 2, 2, 0, -2, -2, 126, -126, -127};
    float x[32], d;
    int8_t q[32];
    int16_t s[2];
    int l, i;
    levels_init();
    for (l = 0; l < n_levels; l++) {
        memset(x, 0, sizeof x);
        memcpy(x, ties, sizeof ties);
        levels[l].k.quant(x, 32, 32, q, &d, s);
        for (i = 0; i < COUNT(want); i++) CHECK(q[i] == want[i]);
        CHECK(d == 1.0f && s[0] == 0 + 0 + 2 + 2 + 0 - 2 - 2 + 126 - 126 && s[1] == 0);
        for (i = 0; i < 32; i++) x[i] = 9e-31f; /* counts as zero */
        levels[l].k.quant(x, 32, 32, q, &d, s);
        CHECK(d == 0.0f && s[0] == 0 && s[1] == 0 && q[5] == 0);
        x[3] = 1e-30f; /* does not */
        levels[l].k.quant(x, 32, 32, q, &d, s);
        CHECK(d > 0.0f && q[3] == 127);
        x[7] = -SM__INFINITY;
        levels[l].k.quant(x, 32, 32, q, &d, s);
        CHECK(sm__bits(d) == 0x7fc00000u && s[0] == 0 && s[1] == 0 && q[7] == 0 && q[3] == 0);
        x[7] = sm__from_bits(0xff800001u);
        levels[l].k.quant(x, 32, 32, q, &d, s);
        CHECK(sm__bits(d) == 0x7fc00000u && s[0] == 0 && s[1] == 0 && q[7] == 0 && q[3] == 0);
    }
}

static void to_f16_variants_agree(void) {
    row_place p;
    int n, l, i, mode;
    NEED_VARIANTS();
    p = row_place_make();
    for (mode = 0; mode <= N_MODES; mode++)
        for (n = 1; n < 200; n++) {
            float *x = row_at(&p.x, n, n % 16);
            uint16_t *out = (uint16_t *)(void *)p.out.end - n % 13 - n;
            for (i = 0; i < n; i++) /* halves need other magnitudes than floats */
                x[i] = mode == N_MODES ? sm__from_bits(0x33000000u + random_u32() % 0x15000000u)
                       : mode == MODE_NOT_FINITE ? random_special()
                                                 : random_of(mode, n);
            for (l = 1; l < n_levels; l++) {
                memset(out, 0x55, (size_t)n * 2);
                levels[l].k.to_f16(x, out, n);
                for (i = 0; i < n; i++)
                    if (out[i] != sm__f32_to_f16(x[i])) {
                        FAIL("to_f16 %s: n %d: [%d] of %08x is %04x, not %04x", levels[l].name, n,
                             i, sm__bits(x[i]), out[i], sm__f32_to_f16(x[i]));
                        break;
                    }
            }
        }
    row_place_free(&p);
}

/* --- gemm ------------------------------------------------------------------------------------- */

#ifndef SMALLMIND_NO_TRAIN
enum { GEMM_ROWS = 30, GEMM_WIDE = SM__GEMM_PANELS * SM__GEMM_COLS + 4 };

/* Some panels at once where the level can, else one by one. */
static void gemm_panels(const sm__kernels *kernels, int panels, const sm__factor *f, int rows,
                        const float *b, int k, float *out, size_t out_stride, int add) {
    int j, step = sm__min(panels, kernels->gemm_columns / SM__GEMM_COLS);
    for (j = 0; j < panels; j += step)
        kernels->gemm(f, rows, b + j * k * SM__GEMM_COLS, k, step * SM__GEMM_COLS,
                      out + j * SM__GEMM_COLS, out_stride, add);
}

/* The truth's bound, and its bits at every level: rows and columns of memory, packed blocks; out
 * ends at a forbidden page, and so do a and b. */
static void gemm_compare(guard *ga, guard *gb, guard *go, int rows, int k, int layout, int add) {
    static float want[GEMM_ROWS * GEMM_WIDE];
    int panels = 1 + (rows + k / 2) % SM__GEMM_PANELS, wide = panels * SM__GEMM_COLS;
    size_t blocks = (size_t)((rows + SM__GEMM_ROWS - 1) / SM__GEMM_ROWS);
    size_t stride = (size_t)(layout ? rows : k) + 3, out_stride = (size_t)(wide + k % 5), n;
    size_t floats = layout == 2 ? blocks * (size_t)k * SM__GEMM_ROWS
                                : (size_t)((layout ? k : rows) - 1) * stride +
                                      (size_t)(layout ? rows : k);
    float *a = (float *)(void *)ga->end - floats;
    float *b = (float *)(void *)gb->end - k * wide, *out;
    sm__factor f;
    int i, j, l;
    f.p = a;
    f.row = layout ? 1 : stride, f.step = layout ? stride : 1, f.next = f.row * SM__GEMM_ROWS;
    if (layout == 2) f.step = SM__GEMM_ROWS, f.next = (size_t)k * SM__GEMM_ROWS;
    random_fill(a, (int)floats, MODE_NORMAL);
    random_fill(b, k * wide, MODE_NORMAL);
    n = (size_t)(rows - 1) * out_stride + (size_t)wide;
    random_fill(want, (int)n, MODE_NORMAL);
    out = (float *)(void *)go->end - n;
    for (l = 0; l < n_levels; l++) {
        static float before[GEMM_ROWS * GEMM_WIDE], truth[GEMM_ROWS * GEMM_WIDE];
        memcpy(before, want, n * sizeof *out);
        memcpy(out, want, n * sizeof *out);
        gemm_panels(&levels[l].k, panels, &f, rows, b, k, out, out_stride, add);
        if (l == 0) memcpy(truth, out, n * sizeof *out);
        else if (memcmp(truth, out, n * sizeof *out))
            FAIL("gemm %s: %d rows, k %d, layout %d, add %d", levels[l].name, rows, k, layout, add);
        for (i = 0; l == 0 && i < rows; i++)
            for (j = 0; j < wide; j++) {
                const float *y = b + j / SM__GEMM_COLS * k * SM__GEMM_COLS + j % SM__GEMM_COLS;
                double true_sum = add ? (double)before[(size_t)i * out_stride + (size_t)j] : 0.0;
                double sum = fabs(true_sum);
                const float *x = a + (size_t)(i / SM__GEMM_ROWS) * f.next +
                                 (size_t)(i % SM__GEMM_ROWS) * f.row;
                int c;
                for (c = 0; c < k; c++) {
                    double v = (double)x[(size_t)c * f.step] * (double)y[c * SM__GEMM_COLS];
                    true_sum += v;
                    sum += fabs(v);
                }
                if (!(fabs((double)out[(size_t)i * out_stride + (size_t)j] - true_sum) <=
                      (k + 1) * ldexp(1, -24) * sum))
                    FAIL("gemm: (%d, %d) of %d rows, k %d: beyond the bound", i, j, rows, k);
            }
    }
}

static void gemm_variants_agree(void) {
    static const int ks[] = {1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 31, 64, 129, 255, 256};
    guard a = guard_make(sizeof(float) * 300 * 300);
    guard b = guard_make(sizeof(float) * GEMM_WIDE * 256);
    guard out = guard_make(sizeof(float) * GEMM_ROWS * GEMM_WIDE);
    int rows, i, layout;
    levels_init();
    for (rows = 1; rows <= GEMM_ROWS; rows++)
        for (i = 0; i < COUNT(ks); i++)
            for (layout = 0; layout < 3; layout++)
                gemm_compare(&a, &b, &out, rows, ks[i], layout, (rows + i) % 2);
    guard_free(&a);
    guard_free(&b);
    guard_free(&out);
}

/* A product by BF16 tiles, against double on the rounded factors; cut in two by rows or columns it
 * has the same bits. Both layouts of both factors; every operand ends at a forbidden page. */
static void tiles_compare(sm__multiply_fn multiply, guard g[4], int m, int n, int k, int layout) {
    static float whole[80 * 80];
    size_t a_stride = (size_t)(layout & 1 ? m : k), b_stride = (size_t)(layout & 2 ? n : k);
    float *a = (float *)(void *)g[0].end - m * k, *b = (float *)(void *)g[1].end - n * k;
    float *out = (float *)(void *)g[2].end - m * n, *scratch = (float *)(void *)g[3].base;
    sm__view va, vb, low;
    int i, j, l, add = layout >> 2 & 1, part = (m + n + k) % 3;
    va.p = a, va.row = layout & 1 ? 1 : a_stride, va.step = layout & 1 ? a_stride : 1;
    vb.p = b, vb.row = layout & 2 ? 1 : b_stride, vb.step = layout & 2 ? b_stride : 1;
    random_fill(a, m * k, MODE_NORMAL);
    random_fill(b, n * k, MODE_NORMAL);
    for (i = 0; i < m * n; i++) out[i] = (float)i;
    multiply(va, vb, m, n, k, out, (size_t)n, add, scratch);
    for (i = 0; i < m; i++)
        for (j = 0; j < n; j++) {
            double sum = add ? (double)(i * n + j) : 0.0, size = fabs(sum);
            for (l = 0; l < k; l++) {
                double x = (double)a[(size_t)i * va.row + (size_t)l * va.step];
                double y = (double)b[(size_t)j * vb.row + (size_t)l * vb.step];
                x = (double)sm__bf16_to_f32(sm__f32_to_bf16((float)x));
                y = (double)sm__bf16_to_f32(sm__f32_to_bf16((float)y));
                sum += x * y;
                size += fabs(x * y);
            }
            if (!(fabs((double)out[i * n + j] - sum) <= (k + 1) * ldexp(1, -24) * size))
                FAIL("tiles: (%d, %d) of %d x %d, k %d, layout %d", i, j, m, n, k, layout);
        }
    memcpy(whole, out, (size_t)(m * n) * sizeof *out);
    for (i = 0; i < m * n; i++) out[i] = (float)i;
    i = part == 0 ? m / 2 : m, j = part == 1 ? n / 2 : n;
    if (i && j) multiply(va, vb, i, j, k, out, (size_t)n, add, scratch);
    low = part == 0 ? va : vb;
    low.p += (size_t)(part == 0 ? i : j) * low.row;
    if (part == 0) multiply(low, vb, m - i, n, k, out + i * n, (size_t)n, add, scratch);
    else if (j < n) multiply(va, low, m, n - j, k, out + j, (size_t)n, add, scratch);
    if (memcmp(whole, out, (size_t)(m * n) * sizeof *out))
        FAIL("tiles: %d x %d, k %d, layout %d: not the same in two parts", m, n, k, layout);
}

static void tiles_are_within_their_bound(void) {
    static const int sizes[] = {1, 15, 16, 17, 32, 33, 48, 79};
    static const int ks[] = {1, 2, 31, 32, 33, 64, 65, 513};
    sm__multiply_fn multiply = NULL;
    guard g[4];
    int i, m, l;
    levels_init();
    for (l = 0; l < n_levels; l++)
        if (levels[l].k.multiply_bf16) multiply = levels[l].k.multiply_bf16;
    if (!multiply) SKIP("no AMX with BF16");
    for (i = 0; i < 3; i++) g[i] = guard_make(sizeof(float) * 80 * 601);
    g[3] = guard_make(sizeof(float) * SM__MULTIPLY_FLOATS);
    for (m = 0; m < COUNT(sizes); m++)
        for (i = 0; i < COUNT(ks); i++)
            for (l = 0; l < 8; l++)
                tiles_compare(multiply, g, sizes[m], sizes[(m * 5 + i + l) % COUNT(sizes)], ks[i],
                              l);
    for (i = 0; i < 4; i++) guard_free(&g[i]);
}
#endif

/* --- rope ------------------------------------------------------------------------------------- */

static int rope_compare(row_place *p, int heads, int width, int n_rot, int half_split, int gap) {
    static float before[MAX_ROW], want[MAX_ROW];
    int n = heads * width, l, at;
    float *c = row_at(&p->y, n_rot / 2, gap * 3 % 16), *s = row_at(&p->z, n_rot / 2, gap * 5 % 16);
    random_fill(before, n, gap % N_MODES);
    random_fill(c, n_rot / 2, MODE_NORMAL);
    random_fill(s, n_rot / 2, MODE_NORMAL);
    copy_row(want, before, n);
    levels[0].k.rope(want, heads, width, n_rot, c, s, half_split);
    for (l = 1; l < n_levels; l++) {
        float *x = row_at(&p->out, n, gap);
        copy_row(x, before, n);
        levels[l].k.rope(x, heads, width, n_rot, c, s, half_split);
        at = first_difference(x, want, n);
        if (at >= 0)
            return FAIL("rope %s: %d heads of %d, n_rot %d, half_split %d: [%d] is %.9g, not %.9g",
                        levels[l].name, heads, width, n_rot, half_split, at, (double)x[at],
                        (double)want[at]);
    }
    return 1;
}

static void rope_variants_agree(void) {
    static const int widths[] = {2, 4, 6, 8, 10, 16, 20, 32, 40, 48, 64, 80, 96, 128};
    row_place p;
    int w, heads, n_rot, half_split, gap = 0, ok = 1;
    NEED_VARIANTS();
    p = row_place_make();
    for (w = 0; w < COUNT(widths); w++)
        for (heads = 1; heads <= 5; heads++)
            for (n_rot = 2; n_rot <= widths[w]; n_rot += 2)
                for (half_split = 0; half_split < 2; half_split++)
                    ok = ok && rope_compare(&p, heads, widths[w], n_rot, half_split, gap++ % 16);
    row_place_free(&p);
}

/* a' and b' have two roundings each. What is not rotated stays. */
static void rope_keeps_its_bound(void) {
    static float x[3 * 24], y[3 * 24], c[8], s[8];
    int h, i, half_split, n = 3 * 24;
    levels_init();
    for (half_split = 0; half_split < 2; half_split++) {
        random_fill(x, n, MODE_NORMAL);
        random_fill(c, 8, MODE_NORMAL);
        random_fill(s, 8, MODE_NORMAL);
        copy_row(y, x, n);
        levels[0].k.rope(y, 3, 24, 16, c, s, half_split);
        for (h = 0; h < n; h += 24) {
            for (i = 0; i < 8; i++) {
                int j = h + (half_split ? i : 2 * i), m = half_split ? j + 8 : j + 1;
                double a = (double)x[j], b = (double)x[m], cd = (double)c[i], sd = (double)s[i];
                CHECK_NEAR(y[j], a * cd - b * sd, 2.01 * ULP * (fabs(a * cd) + fabs(b * sd)));
                CHECK_NEAR(y[m], a * sd + b * cd, 2.01 * ULP * (fabs(a * sd) + fabs(b * cd)));
            }
            for (i = 16; i < 24; i++) CHECK(sm__bits(x[h + i]) == sm__bits(y[h + i]));
        }
    }
}

/* --- rows: the truth against double ----------------------------------------------------------- */

static float rx[MAX_ROW], ry[MAX_ROW], rz[MAX_ROW], rout[MAX_ROW];

static void rows_fill(int n, float factor) {
    int i;
    levels_init();
    random_fill(rx, n, MODE_NORMAL);
    random_fill(ry, n, MODE_NORMAL);
    random_fill(rz, n, MODE_NORMAL);
    for (i = 0; i < n; i++) rx[i] *= factor;
}

/* The sum of squares has n / 16 + 5 roundings, r half of those and of 2 more, then 2 of its own; x
 * r w has 2. */
static void rms_norm_keeps_its_bound(void) {
    int k, i;
    for (k = 0; float_sizes[k]; k++) {
        int n = float_sizes[k];
        double ss = 0, r;
        rows_fill(n, 3.0f);
        levels[0].k.rms_norm(rx, ry, rout, n, 1e-5f);
        for (i = 0; i < n; i++) ss += (double)rx[i] * (double)rx[i];
        r = 1 / sqrt(ss / n + (double)1e-5f);
        for (i = 0; i < n; i++) {
            double want = (double)rx[i] * r * (double)ry[i];
            if (!CHECK_NEAR(rout[i], want, fabs(want) * ((n / 16.0 + 7) / 2 + 4) * 1.01 * ULP))
                return;
        }
    }
}

/* The mean is off by at most n / 16 + 6 roundings of the mean magnitude (e); that shifts x - mean
 * by e and adds e^2 to the variance. */
static void layer_norm_keeps_its_bound(void) {
    int k, i, bias;
    for (k = 0; float_sizes[k]; k++)
        for (bias = 0; bias < 2; bias++) {
            int n = float_sizes[k];
            double mean = 0, magnitude = 0, var = 0, r, e, r_error;
            rows_fill(n, 3.0f);
            for (i = 0; i < n; i++) rx[i] += 5.0f;
            levels[0].k.layer_norm(rx, ry, bias ? rz : NULL, rout, n, 1e-5f);
            for (i = 0; i < n; i++) mean += (double)rx[i], magnitude += fabs((double)rx[i]);
            mean /= n;
            for (i = 0; i < n; i++) var += ((double)rx[i] - mean) * ((double)rx[i] - mean);
            var /= n;
            e = (n / 16.0 + 6) * ULP * magnitude / n;
            r = 1 / sqrt(var + (double)1e-5f);
            r_error = ((n / 16.0 + 9) * ULP + e * e / (var + 1e-5)) / 2 + 2 * ULP;
            for (i = 0; i < n; i++) {
                double y = ((double)rx[i] - mean) * r, b = bias ? (double)rz[i] : 0.0;
                double want = y * (double)ry[i] + b;
                double bound = fabs((double)ry[i]) * (e * r + fabs(y) * (r_error + 2 * ULP)) +
                               (fabs(want) + fabs(y * (double)ry[i])) * ULP;
                if (!CHECK_NEAR(rout[i], want, bound * 1.01)) return;
            }
        }
}

/* Each exp: the rounding of its argument (at most 88 units) and 2 ulp (4 units); the sum the same
 * and n / 16 + 5; two more. Below e^-87.3 there is nothing. */
static void softmax_keeps_its_bound(void) {
    int k, i;
    for (k = 0; float_sizes[k]; k++) {
        int n = float_sizes[k];
        double m = -1e300, sum = 0, total = 0;
        rows_fill(n, k % 2 ? 60.0f : 2.0f);
        for (i = 0; i < n; i++) m = larger(m, (double)rx[i]);
        for (i = 0; i < n; i++) sum += exp((double)rx[i] - m);
        copy_row(rout, rx, n);
        levels[0].k.softmax(rout, n);
        for (i = 0; i < n; i++) {
            double want = exp((double)rx[i] - m) / sum;
            if (!CHECK_NEAR(rout[i], want, want * (2 * 92 + n / 16.0 + 7) * 1.01 * ULP + 1.3e-38))
                return;
            total += (double)rout[i];
        }
        CHECK_NEAR(total, 1.0, (n / 16.0 + 7) * ULP * 1.01 + n * 1.3e-38);
    }
}

/* Activations: bounds by counting roundings; where exp(-x) is cut to 0 or infinity the result is
 * cut too, to a value below 1e-36. */
static double logistic(double x) { return 1 / (1 + exp(-x)); }

static void swiglu_keeps_its_bound(void) {
    int i, round;
    for (round = 0; round < 200; round++) {
        rows_fill(1000, round % 2 ? 8.0f : 100.0f);
        levels[0].k.swiglu(rx, ry, rout, 1000);
        for (i = 0; i < 1000; i++) {
            double want = (double)rx[i] * logistic((double)rx[i]) * (double)ry[i];
            if (!CHECK_NEAR(rout[i], want, fabs(want) * 7.01 * ULP + 1e-36)) return;
        }
    }
}

/* u has 4 roundings, so exp(-u) is off by 4 |u| units more. */
static void gelu_tanh_keeps_its_bound(void) {
    int i, round;
    for (round = 0; round < 200; round++) {
        rows_fill(1000, round % 2 ? 3.0f : 12.0f);
        levels[0].k.gelu_tanh(rx, rout, 1000);
        for (i = 0; i < 1000; i++) {
            double x = (double)rx[i];
            double u = (double)1.59576912f * x * (1 + (double)0.044715f * x * x);
            double want = x * logistic(u);
            double bound = fabs(want) * (4 * fabs(u) + 7) * 1.01 * ULP + 1e-36;
            if (!CHECK_NEAR(rout[i], want, bound)) return;
            /* and what the formula stands for */
            want = 0.5 * x * (1 + tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)));
            if (!CHECK_NEAR(rout[i], want, 1e-6 * fabs(x))) return;
        }
    }
}

/* erfc's own error is 1e-6 where it is above 1e-7, and its argument t has 2 roundings, which it
 * takes 2 t^2 + 1 times; then 3 more. */
static void gelu_erf_keeps_its_bound(void) {
    int i, round;
    for (round = 0; round < 200; round++) {
        rows_fill(1000, round % 2 ? 1.0f : 8.0f);
        levels[0].k.gelu_erf(rx, rout, 1000);
        for (i = 0; i < 1000; i++) {
            double x = (double)rx[i], t = fabs(x) * 0.7071067811865476, e = erfc(t) / 2;
            double off = e > 5e-8 ? e * (1e-6 + (2 * t * t + 1) * 2 * ULP) : 5e-8;
            double want = x * (x < 0 ? e : 1 - e);
            if (!CHECK_NEAR(rout[i], want, fabs(x) * off + fabs(want) * 3 * ULP)) return;
        }
    }
}

/* x and y are exps of rounded differences (at most 88 units) within 2 ulp (4 units). */
static void merge_keeps_its_bound(void) {
    int i, round;
    for (round = 0; round < 300; round++) {
        float m, s = 3.0f, part_m, part_s = 2.0f;
        double x, y, largest;
        rows_fill(100, 1.0f);
        m = rx[0] * 40.0f;
        part_m = round % 10 == 0 ? m : ry[0] * 40.0f;
        largest = larger((double)m, (double)part_m);
        x = exp((double)m - largest);
        y = exp((double)part_m - largest);
        copy_row(rout, rx, 100);
        levels[0].k.merge(&m, &s, rout, part_m, part_s, rz, 100);
        CHECK((double)m == largest);
        CHECK_NEAR(s, 3 * x + 2 * y, (3 * x + 2 * y) * 94.1 * ULP);
        for (i = 0; i < 100; i++) {
            double a = (double)rx[i] * x, b = (double)rz[i] * y;
            if (!CHECK_NEAR(rout[i], a + b, (fabs(a) + fabs(b)) * 94.1 * ULP + 1.3e-38)) return;
        }
    }
}

static void soft_cap_keeps_its_bound(void) {
    int i, round;
    for (round = 0; round < 200; round++) {
        double cap = (double)(round % 2 ? 3.0f : 50.0f);
        rows_fill(1000, round % 3 ? 3.0f : 300.0f);
        copy_row(rout, rx, 1000);
        levels[0].k.soft_cap(rout, 0.7f, (float)cap, 1000);
        for (i = 0; i < 1000; i++) {
            double want = cap * tanh((double)0.7f * (double)rx[i] / cap);
            if (!CHECK_NEAR(rout[i], want, 8 * ULP * cap)) return;
        }
    }
}

/* One sum, one product: exactly C's. */
static void add_and_scale_are_plain(void) {
    int i;
    rows_fill(1000, 2.0f);
    copy_row(rout, ry, 1000);
    levels[0].k.add(rx, rout, 1000);
    for (i = 0; i < 1000; i++) CHECK(rout[i] == (float)((double)ry[i] + (double)rx[i]));
    copy_row(rout, ry, 1000);
    levels[0].k.mul(rx, rout, 1000);
    for (i = 0; i < 1000; i++) CHECK(rout[i] == (float)((double)ry[i] * (double)rx[i]));
    copy_row(rout, rx, 1000);
    levels[0].k.scale(rout, 0.3f, 1000);
    for (i = 0; i < 1000; i++) CHECK(rout[i] == (float)((double)rx[i] * (double)0.3f));
}

/* --- SSE4.1's multiply-add -------------------------------------------------------------------- */

#ifdef SM__HAS_SSE41
SM__SSE41 static void fma_sse41(const float *x, const float *y, const float *z, float *out) {
    __m128 a = _mm_loadu_ps(x), b = _mm_loadu_ps(y), c = _mm_loadu_ps(z);
    _mm_storeu_ps(out, sm__fma_xmm(a, b, c));
    _mm_storeu_ps(out + 4, sm__fma_few(sm__widen(a), sm__widen(b), c, 1));
}

/* Operands whose sum lies half way between two floats or next to it: z of any exponent, denormal
 * too, and x * y about half of its last bit. */
static void fma_halfway(float *x, float *y, float *z) {
    int e = random_below(254), half = sm__max(e, 1) - 24, ex = random_below(60) - 30;
    *z = sm__from_bits((uint32_t)e << 23 | (random_u32() & 0x807fffffu));
    *x = (float)ldexp(random_below(2) ? 1.0 : -1.0, ex);
    *y = (float)ldexp(random_below(4) ? 1.0 : 3.0, half - 127 - ex);
    if (random_below(2)) *x = sm__from_bits(sm__bits(*x) + (uint32_t)random_below(3) - 1);
    if (random_below(2)) *y = sm__from_bits(sm__bits(*y) + (uint32_t)random_below(3) - 1);
}

static void fma_of_sse41(void) {
    sm__kernels k;
    float x[4], y[4], z[4], got[8];
    int i, j;
    sm__fp_enter();
    if (sm__kernels_init(&k, SM_ISA_SSE41) != SM_OK) SKIP("no SSE4.1 here");
    for (i = 0; i < 100000; i++) {
        for (j = 0; j < 4; j++) {
            x[j] = sm__from_bits(random_u32());
            y[j] = sm__from_bits(random_u32());
            z[j] = sm__from_bits(random_u32());
            if (i % 4 == 1) fma_halfway(&x[j], &y[j], &z[j]);
            if (i % 4 == 2) x[j] = random_special(), z[j] = random_special();
            if (i % 8 == 2) y[j] = random_special();
            if (i % 4 == 3) /* the product, moved a little, at other exponents too */
                z[j] = sm__from_bits(sm__bits((float)ldexp((double)x[j] * (double)y[j],
                                                           random_below(60) - 30)) ^
                                     (random_u32() & 0x80000003u));
        }
        fma_sse41(x, y, z, got);
        for (j = 0; j < 8; j++) {
            float want = libm_fma(x[j % 4], y[j % 4], z[j % 4]);
            if (same_float(got[j], want)) continue;
            FAIL("fma(%a, %a, %a) = %a, not %a", (double)x[j % 4], (double)y[j % 4],
                 (double)z[j % 4], (double)got[j], (double)want);
            return;
        }
    }
}
#else
static void fma_of_sse41(void) { SKIP("built without SSE4.1"); }
#endif

static const test tests_kernels[] = {
    {"kernels: SSE4.1's fma is the fma", fma_of_sse41},
    {"kernels: matmul f32 keeps its bound", matmul_f32_keeps_its_bound},
    {"kernels: matmul f16 keeps its bound", matmul_f16_keeps_its_bound},
    {"kernels: matmul bf16 keeps its bound", matmul_bf16_keeps_its_bound},
    {"kernels: matmul q8_0 keeps its bound", matmul_q8_0_keeps_its_bound},
    {"kernels: matmul q4_0 keeps its bound", matmul_q4_0_keeps_its_bound},
    {"kernels: matmul q4_k keeps its bound", matmul_q4_k_keeps_its_bound},
    {"kernels: matmul q5_k keeps its bound", matmul_q5_k_keeps_its_bound},
    {"kernels: matmul q6_k keeps its bound", matmul_q6_k_keeps_its_bound},
    {"kernels: matmul q4_1 keeps its bound", matmul_q4_1_keeps_its_bound},
    {"kernels: matmul q5_0 keeps its bound", matmul_q5_0_keeps_its_bound},
    {"kernels: matmul q5_1 keeps its bound", matmul_q5_1_keeps_its_bound},
    {"kernels: matmul iq4_nl keeps its bound", matmul_iq4_nl_keeps_its_bound},
    {"kernels: matmul mxfp4 keeps its bound", matmul_mxfp4_keeps_its_bound},
    {"kernels: matmul q2_k keeps its bound", matmul_q2_k_keeps_its_bound},
    {"kernels: matmul q3_k keeps its bound", matmul_q3_k_keeps_its_bound},
    {"kernels: matmul iq4_xs keeps its bound", matmul_iq4_xs_keeps_its_bound},
    {"kernels: matmul tq1_0 keeps its bound", matmul_tq1_0_keeps_its_bound},
    {"kernels: matmul tq2_0 keeps its bound", matmul_tq2_0_keeps_its_bound},
    {"kernels: attend f32 keeps its bound", attend_f32_keeps_its_bound},
    {"kernels: attend f16 keeps its bound", attend_f16_keeps_its_bound},
    {"kernels: attend bf16 keeps its bound", attend_bf16_keeps_its_bound},
    {"kernels: attend q8_0 keeps its bound", attend_q8_0_keeps_its_bound},
    {"kernels: attend q4_0 keeps its bound", attend_q4_0_keeps_its_bound},
    {"kernels: attend, what is not finite", attend_rules_for_what_is_not_finite},
    {"kernels: quant rounds to nearest", quant_rounds_to_nearest},
    {"kernels: quant, ties, tiny and not finite blocks", quant_rules},
    {"kernels: rms_norm keeps its bound", rms_norm_keeps_its_bound},
    {"kernels: layer_norm keeps its bound", layer_norm_keeps_its_bound},
    {"kernels: softmax keeps its bound", softmax_keeps_its_bound},
    {"kernels: rope keeps its bound", rope_keeps_its_bound},
    {"kernels: swiglu keeps its bound", swiglu_keeps_its_bound},
    {"kernels: soft_cap keeps its bound", soft_cap_keeps_its_bound},
    {"kernels: gelu_tanh keeps its bound", gelu_tanh_keeps_its_bound},
    {"kernels: gelu_erf keeps its bound", gelu_erf_keeps_its_bound},
    {"kernels: merge keeps its bound", merge_keeps_its_bound},
    {"kernels: add and scale are C's", add_and_scale_are_plain},
    {"kernels: matmul f32, all levels agree", matmul_f32_variants_agree},
    {"kernels: matmul f16, all levels agree", matmul_f16_variants_agree},
    {"kernels: matmul bf16, all levels agree", matmul_bf16_variants_agree},
    {"kernels: matmul q8_0, all levels agree", matmul_q8_0_variants_agree},
    {"kernels: matmul q4_0, all levels agree", matmul_q4_0_variants_agree},
    {"kernels: matmul q4_k, all levels agree", matmul_q4_k_variants_agree},
    {"kernels: matmul q5_k, all levels agree", matmul_q5_k_variants_agree},
    {"kernels: matmul q6_k, all levels agree", matmul_q6_k_variants_agree},
    {"kernels: matmul q4_1, all levels agree", matmul_q4_1_variants_agree},
    {"kernels: matmul q5_0, all levels agree", matmul_q5_0_variants_agree},
    {"kernels: matmul q5_1, all levels agree", matmul_q5_1_variants_agree},
    {"kernels: matmul iq4_nl, all levels agree", matmul_iq4_nl_variants_agree},
    {"kernels: matmul mxfp4, all levels agree", matmul_mxfp4_variants_agree},
    {"kernels: matmul q2_k, all levels agree", matmul_q2_k_variants_agree},
    {"kernels: matmul q3_k, all levels agree", matmul_q3_k_variants_agree},
    {"kernels: matmul iq4_xs, all levels agree", matmul_iq4_xs_variants_agree},
    {"kernels: matmul tq1_0, all levels agree", matmul_tq1_0_variants_agree},
    {"kernels: matmul tq2_0, all levels agree", matmul_tq2_0_variants_agree},
    {"kernels: attend f32, all levels agree", attend_f32_variants_agree},
    {"kernels: attend f16, all levels agree", attend_f16_variants_agree},
    {"kernels: attend bf16, all levels agree", attend_bf16_variants_agree},
    {"kernels: attend q8_0, all levels agree", attend_q8_0_variants_agree},
    {"kernels: attend q4_0, all levels agree", attend_q4_0_variants_agree},
    {"kernels: quant, all levels agree", quant_variants_agree},
    {"kernels: norms, softmax, activations, add, merge: all levels agree", rows_variants_agree},
    {"kernels: rope, all levels agree", rope_variants_agree},
    {"kernels: to_f16, all levels agree", to_f16_variants_agree},
#ifndef SMALLMIND_NO_TRAIN
    {"kernels: gemm, its bound, and all levels agree", gemm_variants_agree},
    {"kernels: products by BF16 tiles", tiles_are_within_their_bound},
#endif
};
