/* test_numbers.c - the scalar arithmetic that every kernel must reproduce, against libm, double and
 * exhaustive neighbours; the block formats, against blocks written by ggml. */

static const uint32_t edge_bits[] = {
    0x00000000u, 0x80000000u, 0x00000001u, 0x80000001u, 0x00000002u, 0x007fffffu, 0x807fffffu,
    0x00800000u, 0x80800000u, 0x00800001u, 0x33800000u, 0xb3800000u, 0x33800001u, 0x34000000u,
    0x3f000000u, 0x3f7fffffu, 0x3f800000u, 0xbf800000u, 0x3f800001u, 0xbf800001u, 0x40490fdbu,
    0x4b7fffffu, 0x4b800000u, 0x5f000000u, 0xdf000000u, 0x7e800000u, 0x7f000000u, 0x7f7fffffu,
    0xff7fffffu, 0x7f800000u, 0xff800000u, 0x7fc00000u,
};
#define N_EDGES ((int)(sizeof edge_bits / sizeof *edge_bits))

/* By a pointer: clang's -ffast-math would make a product and a sum of it. */
static float (*volatile libm_fma)(float, float, float) = fmaf;

static int fma_agrees(float x, float y, float z) {
    float got = sm__fma(x, y, z), want = libm_fma(x, y, z);
    return same_float(got, want) ||
           FAIL("fma(%a, %a, %a) = %a, not %a", (double)x, (double)y, (double)z, (double)got,
                (double)want);
}

static void fma_of_edges(void) {
    int i, j, k;
    sm__fp_enter();
    for (i = 0; i < N_EDGES; i++)
        for (j = 0; j < N_EDGES; j++)
            for (k = 0; k < N_EDGES; k++)
                if (!fma_agrees(sm__from_bits(edge_bits[i]), sm__from_bits(edge_bits[j]),
                                sm__from_bits(edge_bits[k])))
                    return;
}

static void fma_of_random_numbers(void) {
    int i;
    sm__fp_enter();
    for (i = 0; i < 2000000; i++) {
        float x = sm__from_bits(random_u32()), y = sm__from_bits(random_u32());
        float z = sm__from_bits(random_u32());
        if (i & 1) { /* near cancellation: z is the product, a little moved */
            x = random_float();
            y = random_float();
            z = sm__from_bits(sm__bits(-(x * y)) + (uint32_t)(random_below(5) - 2));
        }
        if (i & 2) { /* the sum near the denormals */
            x = (float)ldexp((double)random_float(), -60 - random_below(20));
            y = (float)ldexp((double)random_float(), -60 - random_below(20));
            z = (float)ldexp((double)random_float(), -120 - random_below(30));
        }
        if (!fma_agrees(x, y, z)) return;
    }
}

/* Products of 25 bits that lie half way between two floats, and an addend that is too small to be
 * seen but decides: rounding twice goes wrong here. */
static void fma_does_not_round_twice(void) {
    int i, k;
    sm__fp_enter();
    for (i = 0; i < 20000; i++) {
        float x = (float)(4097 + 2 * random_below(2047));
        float y = (float)(2049 + 2 * random_below(1023));
        for (k = 0; k < 70; k += 3) {
            float tiny = (float)ldexp(1.0, -k);
            if (!fma_agrees(x, y, tiny) || !fma_agrees(x, y, -tiny)) return;
            if (!fma_agrees(-x, y, tiny)) return;
        }
        if (!fma_agrees(x, y, 0.0f) || !fma_agrees(x, y, (float)ldexp(x, 13))) return;
    }
}

static void rounding_to_integers(void) {
    int i;
    sm__fp_enter();
    for (i = 0; i < 2000000; i++) {
        float x = random_float() * (float)ldexp(1.0, random_below(34) - 3);
        if (i % 3 == 0) x = (float)(random_below(2001) - 1000) * 0.5f; /* ties */
        if (!(x > -2147483648.0f && x < 2147483648.0f)) continue;
        if (sm__round_even(x) != (int32_t)rint((double)x)) {
            FAIL("round_even(%a) = %d", (double)x, (int)sm__round_even(x));
            return;
        }
        if (fabsf(x) < 1e6f && sm__round_away(x) != (int)round((double)x)) {
            FAIL("round_away(%a) = %d", (double)x, sm__round_away(x));
            return;
        }
    }
    CHECK(sm__round_even(0.49999997f) == 0 && sm__round_even(-0.49999997f) == 0);
    CHECK(sm__round_even(8388607.5f) == 8388608 && sm__round_even(8388609.0f) == 8388609);
}

/* Double has more than twice the digits of float and two: its rounding before the last does no
 * harm. */
static void sqrt_and_division_are_correctly_rounded(void) {
    int i, j;
    sm__fp_enter();
    for (i = 0; i < 1000000; i++) {
        float x = sm__from_bits(random_u32() & 0x7fffffffu), y = sm__from_bits(random_u32());
        if (!same_float(sm__sqrt(x), (float)sqrt((double)x))) FAIL("sqrt(%a)", (double)x);
        if (!same_float(sm__div(x, y), (float)((double)x / (double)y)))
            FAIL("%a / %a", (double)x, (double)y);
        if (check.errors) return;
    }
    for (i = 0; i < N_EDGES; i++) {
        float x = sm__from_bits(edge_bits[i]);
        CHECK(same_float(sm__sqrt(x), (float)sqrt((double)x)));
        for (j = 0; j < N_EDGES; j++) {
            float y = sm__from_bits(edge_bits[j]);
            if (!same_float(sm__div(x, y), (float)((double)x / (double)y)))
                FAIL("%a / %a", (double)x, (double)y);
        }
    }
}

/* A unit in the last place of a float near x, x > 0. */
static double ulp_of(double x) {
    int e;
    frexp(x, &e);
    return ldexp(1.0, e < -125 ? -149 : e - 24);
}

static void exp_is_within_two_ulp(void) {
    uint32_t u;
    double worst = 0;
    sm__fp_enter();
    for (u = 0; u < 0x42b20000u; u += 499) { /* 0 .. 89, and the same below 0 */
        int sign;
        for (sign = 0; sign < 2; sign++) {
            float x = sm__from_bits(u | (uint32_t)sign << 31), got = sm__exp(x);
            double want = exp((double)x), off;
            if (x < -87.3f || x > 88.72f) {
                CHECK(sm__bits(got) == (sign ? 0 : 0x7f800000u));
                continue;
            }
            off = fabs((double)got - want) / ulp_of(want);
            if (off > worst) worst = off;
            if (off >= 2) {
                FAIL("exp(%a) = %a: %.2f ulp", (double)x, (double)got, off);
                return;
            }
        }
    }
    printf("(%.2f ulp) ", worst);
}

/* Bits in, bits out: constants that are not finite are not safe under clang's -ffast-math. */
static uint32_t exp_bits(uint32_t x) {
    volatile uint32_t bits = x;
    return sm__bits(sm__exp(sm__from_bits(bits)));
}

static void exp_of_what_is_special(void) {
    sm__fp_enter();
    CHECK(exp_bits(0) == 0x3f800000u && exp_bits(0x80000000u) == 0x3f800000u);
    CHECK(exp_bits(0x7fc00000u) == 0 && exp_bits(0xffc00001u) == 0);    /* NaN */
    CHECK(exp_bits(0x7f800000u) == 0x7f800000u && exp_bits(0xff800000u) == 0);
    CHECK(exp_bits(0x42b170a4u) < 0x7f800000u);                         /* 88.72 */
    CHECK(exp_bits(0x42b170a5u) == 0x7f800000u);
    CHECK(exp_bits(0xc2ae999au) >= 0x00800000u);                        /* -87.3 */
    CHECK(exp_bits(0xc2ae999bu) == 0);
}

static void erfc_keeps_its_bound(void) {
    double worst = 0;
    int i;
    sm__fp_enter();
    for (i = 0; i < 500000; i++) {
        float t = (float)i * 1e-5f;
        double want = erfc((double)t), off = fabs((double)sm__erfc(t) - want);
        if (want > 1e-7 && off / want > worst) worst = off / want;
        if (!CHECK_NEAR(sm__erfc(t), want, want > 1e-7 ? want * 1e-6 : 1e-7)) return;
    }
    for (i = 0x42c80000; i <= 0x7f800000; i += 0x1000) /* 100 to infinity */
        if (!CHECK(sm__bits(sm__erfc(sm__from_bits((uint32_t)i))) == 0)) return;
    printf("(%.2g) ", worst);
}

/* --- half floats ------------------------------------------------------------------------------ */

/* What a half, or a bfloat16, stands for, by the definition of the format. */
static double value_of_bits(uint32_t h, int exponent_bits, int fraction_bits) {
    int bias = (1 << (exponent_bits - 1)) - 1;
    int e = (int)(h >> fraction_bits) & ((1 << exponent_bits) - 1);
    double m = (double)(h & ((1u << fraction_bits) - 1u));
    double sign = h >> (exponent_bits + fraction_bits) ? -1.0 : 1.0;
    if (e == 0) return sign * ldexp(m, 1 - bias - fraction_bits);
    return sign * ldexp(m + ldexp(1.0, fraction_bits), e - bias - fraction_bits);
}

static void halves_decode_exactly(void) {
    uint32_t h;
    sm__fp_enter();
    for (h = 0; h < 0x10000u; h++) {
        float f = sm__f16_to_f32((uint16_t)h), b = sm__bf16_to_f32((uint16_t)h);
        uint32_t m = h & 0x3ffu, sign = h >> 15 << 31;
        if ((h & 0x7c00u) == 0x7c00u) /* infinity, NaN made quiet */
            CHECK(sm__bits(f) == (sign | 0x7f800000u | m << 13 | (m ? 0x400000u : 0)));
        else CHECK((double)f == value_of_bits(h, 5, 10) && sm__bits(f) >> 31 == h >> 15);
        CHECK(sm__bits(b) == h << 16);
        if ((h & 0x7f80u) != 0x7f80u) CHECK((double)b == value_of_bits(h, 8, 7));
        if (check.errors) return;
    }
}

/* Each value comes back; half way to the next one goes to the even one, and a float beside that to
 * the nearer one. The value after the largest is where infinity begins. */
static void check_halves(const char *name, uint16_t (*encode)(float), int exponent_bits,
                         int fraction_bits) {
    uint32_t infinity = ((1u << exponent_bits) - 1u) << fraction_bits, h, sign;
    for (sign = 0; sign < 0x10000u; sign += 0x8000u)
        for (h = 0; h < infinity; h++) {
            double low = value_of_bits(h, exponent_bits, fraction_bits);
            double high = value_of_bits(h + 1, exponent_bits, fraction_bits);
            uint32_t flip = sign << 16, middle = sm__bits((float)((low + high) / 2));
            uint32_t even = h & 1 ? h + 1 : h;
            if (encode(sm__from_bits(sm__bits((float)low) | flip)) != (h | sign) ||
                encode(sm__from_bits(middle | flip)) != (even | sign) ||
                encode(sm__from_bits((middle - 1) | flip)) != (h | sign) ||
                encode(sm__from_bits((middle + 1) | flip)) != ((h + 1) | sign)) {
                FAIL("%s: rounding at %04x", name, (unsigned)(h | sign));
                return;
            }
        }
    CHECK(encode(sm__from_bits(0x7f800000u)) == infinity);
    CHECK(encode(sm__from_bits(0xff800000u)) == (infinity | 0x8000u));
    for (h = 0x7f800001u; h < 0x80000000u; h += 4099) { /* NaN stays NaN, with its sign, quiet */
        uint32_t quiet = infinity | (1u << (fraction_bits - 1));
        CHECK((encode(sm__from_bits(h)) & (0x8000u | quiet)) == quiet);
        CHECK((encode(sm__from_bits(h | 0x80000000u)) & (0x8000u | quiet)) == (0x8000u | quiet));
    }
}

static void halves_round_to_nearest_even(void) {
    sm__fp_enter();
    check_halves("f16", sm__f32_to_f16, 5, 10);
    check_halves("bf16", sm__f32_to_bf16, 8, 7);
    CHECK(sm__f32_to_f16(3.4e38f) == 0x7c00 && sm__f32_to_f16(1e-30f) == 0);
    CHECK(sm__f32_to_f16(-1e-45f) == 0x8000);
}

/* Random floats against rounding done by double arithmetic. */
static void halves_against_double(void) {
    int i;
    sm__fp_enter();
    for (i = 0; i < 1000000; i++) {
        float x = sm__from_bits(random_u32() % 0x18000000u + 0x32000000u);
        int e;
        double quantum, want;
        frexp((double)x, &e);
        quantum = ldexp(1.0, (e < -13 ? -13 : e) - 11);
        want = rint((double)x / quantum) * quantum;
        if (want > 65504 ? sm__f32_to_f16(x) != 0x7c00
                         : (double)sm__f16_to_f32(sm__f32_to_f16(x)) != want) {
            FAIL("f16 of %a", (double)x);
            return;
        }
    }
}

/* --- double functions ------------------------------------------------------------------------- */

static int check_relative(const char *name, double x, double got, double want, double *worst) {
    double off = want == 0 ? fabs(got) : fabs(got - want) / fabs(want);
    if (off > *worst) *worst = off;
    return off < 1e-15 || FAIL("%s(%.17g) = %.17g, not %.17g", name, x, got, want);
}

static void exp_and_log_of_doubles(void) {
    double worst = 0, step = 700.0 / 40000, x;
    int i;
    sm__fp_enter();
    for (i = -40000; i <= 40000; i++) {
        x = i * step + (double)random_float() * 1e-3;
        if (fabs(x) < 700 && !check_relative("exp", x, sm__exp_double(x), exp(x), &worst)) return;
        x = ldexp(1 + fabs((double)random_float()), random_below(2045) - 1022);
        if (!check_relative("log", x, sm__log_double(x), log(x), &worst)) return;
        x = 1 + (double)random_float() * 0.5; /* around log's zero */
        if (!check_relative("log", x, sm__log_double(x), log(x), &worst)) return;
    }
    CHECK(sm__log_double(1.0) == 0.0 && sm__exp_double(0.0) == 1.0);
    check_relative("log", 1.7e308, sm__log_double(1.7e308), log(1.7e308), &worst);
    check_relative("log", 2.3e-308, sm__log_double(2.3e-308), log(2.3e-308), &worst);
    check_relative("log", 1e6, sm__log_double(1e6), log(1e6), &worst);
    printf("(%.2g) ", worst);
}

/* Angles as rotary tables have them: position * frequency, both over their whole range. Beside a
 * zero of sine or cosine an absolute error of 1e-15 is meant. */
static void sincos_of_doubles(void) {
    static const double most[] = {1.0, 100.0, 4096.0, 131072.0, 1e6, 1e7, 1e8, 1e9};
    double worst = 0;
    size_t k;
    int i;
    sm__fp_enter();
    for (k = 0; k < sizeof most / sizeof *most; k++)
        for (i = 0; i < 20000; i++) {
            double x = (double)random_float() * most[k], s, c, off;
            if (i % 2) x = rint(x); /* whole positions */
            sm__sincos_double(x, &s, &c);
            off = larger(fabs(s - sin(x)), fabs(c - cos(x)));
            if (off > worst) worst = off;
            if (off >= 1e-15) {
                FAIL("sin, cos(%.17g) = %.17g, %.17g: off by %.3g", x, s, c, off);
                return;
            }
        }
    printf("(%.2g) ", worst);
}

/* --- types ------------------------------------------------------------------------------------ */

static void types_have_ggml_sizes(void) {
    static const struct {
        int type, elems, bytes;
        const char *name;
    } want[] = {{0, 1, 4, "F32"}, {1, 1, 2, "F16"}, {2, 32, 18, "Q4_0"}, {8, 32, 34, "Q8_0"},
                {30, 1, 2, "BF16"}, {12, 256, 144, "Q4_K"}, {13, 256, 176, "Q5_K"},
                {14, 256, 210, "Q6_K"}, {3, 32, 20, "Q4_1"}, {6, 32, 22, "Q5_0"},
                {7, 32, 24, "Q5_1"}, {10, 256, 84, "Q2_K"}, {11, 256, 110, "Q3_K"},
                {20, 32, 18, "IQ4_NL"}, {23, 256, 136, "IQ4_XS"}, {39, 32, 17, "MXFP4"},
                {34, 256, 54, "TQ1_0"}, {35, 256, 66, "TQ2_0"}};
    static float x[257];
    static uint8_t bytes[257 * 4];
    int i;
    for (i = -5; i < 100; i++) {
        const sm_type_info *info = sm_type_get_info(i);
        size_t k;
        for (k = 0; k < sizeof want / sizeof *want && want[k].type != i; k++) {
        }
        if (k == sizeof want / sizeof *want) {
            CHECK(info == NULL);
            CHECK_STATUS(sm_type_decode(i, bytes, x, 32), SM_ERR_ARG);
            CHECK_STATUS(sm_type_encode(i, x, bytes, 32), SM_ERR_ARG);
            continue;
        }
        if (!CHECK(info != NULL)) continue;
        CHECK_STR(info->name, want[k].name);
        CHECK(info->block_elems == want[k].elems && info->block_bytes == want[k].bytes);
        CHECK_STATUS(sm_type_encode(i, x, bytes, 256), SM_OK);
        CHECK_STATUS(sm_type_decode(i, bytes, x, 256), SM_OK);
        CHECK_STATUS(sm_type_decode(i, bytes, x, 257), want[k].elems == 1 ? SM_OK : SM_ERR_ARG);
        CHECK_STATUS(sm_type_encode(i, NULL, bytes, 256), SM_ERR_ARG);
        CHECK_STATUS(sm_type_decode(i, bytes, NULL, 256), SM_ERR_ARG);
        CHECK_STATUS(sm_type_decode(i, NULL, NULL, 0), SM_OK);
    }
}

/* Random blocks, at odd addresses, with any scale: d * q, both taken from the bits here. */
static void blocks_decode_as_their_definition(void) {
    uint8_t memory[40];
    float got[32];
    int round, i;
    sm__fp_enter();
    for (round = 0; round < 200000; round++) {
        int q4 = round & 1, n = q4 ? 18 : 34;
        uint8_t *block = memory + round % 6;
        uint16_t d = (uint16_t)random_u32();
        double scale;
        for (i = 0; i < n; i++) block[i] = (uint8_t)random_u32();
        memcpy(block, &d, 2);
        scale = (d & 0x7c00) == 0x7c00 ? (double)sm__f16_to_f32(d) : value_of_bits(d, 5, 10);
        CHECK_STATUS(sm_type_decode(q4 ? SM_TYPE_Q4_0 : SM_TYPE_Q8_0, block, got, 32), SM_OK);
        for (i = 0; i < 32; i++) {
            int q = q4 ? (i < 16 ? block[2 + i] & 15 : block[2 + i - 16] >> 4) - 8
                       : block[2 + i] - (block[2 + i] > 127 ? 256 : 0);
            if (!same_float(got[i], (float)(scale * q))) { /* 19 bits: exact, but for infinities */
                FAIL("%s: d %04x, q %d: %a", q4 ? "q4_0" : "q8_0", d, q, (double)got[i]);
                return;
            }
        }
    }
}

/* One element of a K-quant, read bit by bit as ggml's block_q4_K, block_q5_K and block_q6_K define
 * them: the integers, and where d and dmin are. */
typedef struct k_element {
    int q, sc, m;
} k_element;

static int bits_of(const uint8_t *p, int from, int n) {
    return p[from / 8] >> from % 8 & ((1 << n) - 1);
}

static k_element k_element_of(int type, const uint8_t *b, int i) {
    k_element e = {0, 0, 0};
    int j = i / 32, half = i / 128, g = i % 128 / 32;
    if (type == SM_TYPE_Q6_K) {
        e.q = bits_of(b + 64 * half + 32 * (g & 1) + i % 32, g & 2 ? 4 : 0, 4) +
              16 * bits_of(b + 128 + 32 * half + i % 32, 2 * g, 2) - 32;
        e.sc = (int8_t)b[192 + i / 16];
        return e;
    }
    if (j < 4) {
        e.sc = bits_of(b + 4 + j, 0, 6);
        e.m = bits_of(b + 8 + j, 0, 6);
    } else {
        e.sc = bits_of(b + 8 + j, 0, 4) + 16 * bits_of(b + j, 6, 2);
        e.m = bits_of(b + 8 + j, 4, 4) + 16 * bits_of(b + 4 + j, 6, 2);
    }
    e.q = bits_of(b + (type == SM_TYPE_Q4_K ? 16 : 48) + i / 64 * 32 + i % 32, j % 2 * 4, 4);
    if (type == SM_TYPE_Q5_K) e.q += 16 * bits_of(b + 16 + i % 32, j, 1);
    return e;
}

/* Random superblocks at odd addresses, with any scales: (d * sc) * q - dmin * m, each operation
 * rounded once. */
static void superblocks_decode_as_their_definition(void) {
    static const int types[] = {SM_TYPE_Q4_K, SM_TYPE_Q5_K, SM_TYPE_Q6_K};
    uint8_t memory[220];
    float got[256];
    int round, i, t;
    sm__fp_enter();
    for (round = 0; round < 9000; round++) {
        int type = types[t = round % 3];
        uint8_t *block = memory + round % 7;
        uint16_t d, dmin = 0;
        for (i = 0; i < 210; i++) block[i] = (uint8_t)random_u32();
        memcpy(&d, block + (t == 2 ? 208 : 0), 2);
        if (t < 2) memcpy(&dmin, block + 2, 2);
        CHECK_STATUS(sm_type_decode(type, block, got, 256), SM_OK);
        for (i = 0; i < 256; i++) {
            k_element e = k_element_of(type, block, i);
            volatile float scale = sm__f16_to_f32(d) * (float)e.sc;
            volatile float product = scale * (float)e.q, least = sm__f16_to_f32(dmin) * (float)e.m;
            if (!same_float(got[i], product - least)) {
                FAIL("%s: d %04x, dmin %04x, element %d: %a", sm_type_get_info(type)->name, d, dmin,
                     i, (double)got[i]);
                return;
            }
        }
    }
}

/* What ggml encoded decodes to what it was made from, as near as the type's steps are. */
static void ggmls_superblocks_decode(void) {
    static const char *const names[] = {"q4_k", "q5_k", "q6_k"};
    static const int types[] = {SM_TYPE_Q4_K, SM_TYPE_Q5_K, SM_TYPE_Q6_K};
    static const double steps[] = {15, 31, 62};
    static float got[1024];
    char path[64];
    int t, i, j;
    for (t = 0; t < 3; t++) {
        size_t n_in, n_out;
        uint8_t *in, *blocks;
        const float *x;
        snprintf(path, sizeof path, "quants/%s_512_noim_input.bin", names[t]);
        if (!data_path(path)) return;
        in = file_read(data_path(path), &n_in);
        snprintf(path, sizeof path, "quants/%s_512_noim_expected.bin", names[t]);
        blocks = file_read(data_path(path), &n_out);
        x = (const float *)(const void *)in;
        if (CHECK(in && blocks && n_in == 4096 &&
                  n_out == 4 * (size_t)sm_type_get_info(types[t])->block_bytes)) {
            CHECK_STATUS(sm_type_decode(types[t], blocks, got, 1024), SM_OK);
            for (i = 0; i < 1024; i += 32) { /* half a step of a block's range, and the scales' */
                double low = 0, high = 0, off = 0;
                for (j = i; j < i + 32; j++) {
                    low = x[j] < low ? (double)x[j] : low;
                    high = x[j] > high ? (double)x[j] : high;
                    off = larger(off, fabs((double)x[j] - (double)got[j]));
                }
                if (t == 2) high = low = larger(high, -low);
                if (!CHECK(off <= 0.75 * (t == 2 ? 2 * high : high - low) / steps[t])) return;
            }
        }
        free(in);
        free(blocks);
    }
}

static void encoders_break_ties_as_ggml(void) {
    float x[32] = {0};
    uint8_t b[34];
    uint16_t one = sm__f32_to_f16(1.0f), minus_one = sm__f32_to_f16(-1.0f);
    sm__fp_enter();
    x[0] = 127, x[1] = 0.5f, x[2] = -0.5f, x[3] = 1.5f, x[4] = -2.5f, x[5] = 0.49999997f;
    CHECK_STATUS(sm_type_encode(SM_TYPE_Q8_0, x, b, 32), SM_OK);
    CHECK(memcmp(b, &one, 2) == 0); /* halves go away from zero */
    CHECK((int8_t)b[2] == 127 && (int8_t)b[3] == 1 && (int8_t)b[4] == -1 && (int8_t)b[5] == 2);
    CHECK((int8_t)b[6] == -3 && (int8_t)b[7] == 0);
    memset(x, 0, sizeof x);
    x[0] = -8, x[1] = 8, x[2] = 0.5f, x[3] = -0.5f, x[4] = 0.49f, x[16] = 7, x[17] = -7.5f;
    CHECK_STATUS(sm_type_encode(SM_TYPE_Q4_0, x, b, 32), SM_OK);
    CHECK(memcmp(b, &one, 2) == 0); /* the first of the largest decides the sign of d */
    CHECK((b[2] & 15) == 0 && (b[3] & 15) == 15 && (b[4] & 15) == 9 && (b[5] & 15) == 8);
    CHECK((b[6] & 15) == 8 && b[2] >> 4 == 15 && b[3] >> 4 == 1 && b[4] >> 4 == 8);
    x[0] = 8, x[1] = -8;
    CHECK_STATUS(sm_type_encode(SM_TYPE_Q4_0, x, b, 32), SM_OK);
    CHECK(memcmp(b, &minus_one, 2) == 0 && (b[2] & 15) == 0 && (b[3] & 15) == 15);
    memset(x, 0, sizeof x);
    CHECK_STATUS(sm_type_encode(SM_TYPE_Q4_0, x, b, 32), SM_OK);
    CHECK(b[0] == 0 && (b[1] == 0 || b[1] == 0x80) && b[2] == 0x88); /* all zero: q = 8 */
}

/* What was encoded comes back within half a step (q4_0: a whole one at the far end, which has 7
 * steps only), whatever the input: no index out of range, no undefined conversion. */
static void encoders_stay_near(void) {
    int round, i, q4;
    sm__fp_enter();
    for (round = 0; round < 20000; round++) {
        float x[32], y[32];
        uint8_t b[34];
        double d, scale = ldexp(1.0, random_below(16) - 4);
        uint16_t h;
        for (i = 0; i < 32; i++) x[i] = random_float() * (float)scale;
        for (q4 = 0; q4 < 2; q4++) {
            sm_type_encode(q4 ? SM_TYPE_Q4_0 : SM_TYPE_Q8_0, x, b, 32);
            sm_type_decode(q4 ? SM_TYPE_Q4_0 : SM_TYPE_Q8_0, b, y, 32);
            memcpy(&h, b, 2);
            d = fabs((double)sm__f16_to_f32(h));
            /* d itself is rounded to 2^-11, or 2^-25 among denormals */
            d = (q4 ? 1.01 : 0.51) * d + 128 * (d / 2048 + 3e-8);
            for (i = 0; i < 32; i++)
                if (!CHECK_NEAR(y[i], x[i], d)) return;
        }
        for (i = 0; i < 32; i++) x[i] = sm__from_bits(random_u32());
        if (round & 1) x[round % 32] = sm__from_bits(edge_bits[random_below(N_EDGES)]);
        sm_type_encode(SM_TYPE_Q8_0, x, b, 32);
        sm_type_encode(SM_TYPE_Q4_0, x, b, 32);
    }
}

/* K-quants: within a step and the rounding of scale and minimum; anything else without harm. */
static void superblock_encoders_stay_near(void) {
    static const int types[] = {SM_TYPE_Q4_K, SM_TYPE_Q5_K, SM_TYPE_Q6_K};
    static const float steps[] = {15, 31, 62};
    static float x[512], y[512];
    uint8_t b[420];
    int round, i, t;
    sm__fp_enter();
    for (round = 0; round < 600; round++) {
        float top = 0.0f, size = (float)ldexp(1.0, random_below(16) - 4);
        for (i = 0; i < 512; i++) {
            x[i] = random_float() * size;
            top = x[i] > top ? x[i] : -x[i] > top ? -x[i] : top;
        }
        for (t = 0; t < 3; t++) {
            CHECK_STATUS(sm_type_encode(types[t], x, b, 512), SM_OK);
            CHECK_STATUS(sm_type_decode(types[t], b, y, 512), SM_OK);
            for (i = 0; i < 512; i++)
                if (!CHECK_NEAR(y[i], x[i], 3.0f * top / steps[t])) return;
            x[random_below(512)] = sm__from_bits(edge_bits[random_below(N_EDGES)]);
            sm_type_encode(types[t], x, b, 512);
            for (i = 0; i < 512; i++)
                x[i] = sm__not_finite(x[i]) || x[i] > top || x[i] < -top ? 0 : x[i];
        }
        memset(x, 0, sizeof x);
        for (t = 0; t < 3; t++) {
            CHECK_STATUS(sm_type_encode(types[t], x, b, 512), SM_OK);
            CHECK_STATUS(sm_type_decode(types[t], b, y, 512), SM_OK);
            CHECK(memcmp(x, y, sizeof x) == 0 || t == 2); /* Q6_K: 0 * -0 may be -0 */
            for (i = 0; i < 512; i++) CHECK(y[i] == 0.0f);
        }
    }
}

/* The other types: blocks that ggml wrote, or else ours, decode to the numbers that were encoded,
 * as near as the type is on average; any bits are encoded without harm. (parity.py compares every
 * scale of every type with ggml's decoder.) */
static void other_types_come_back(void) {
    static const struct {
        const char *ggml; /* its golden blocks */
        int type, n;
        double most; /* error by the numbers' size; uniform ones, but for the ternary types' */
    } list[] = {{"q4_1", SM_TYPE_Q4_1, 64, 0.08},      {"q5_0", SM_TYPE_Q5_0, 64, 0.05},
                {"q5_1", SM_TYPE_Q5_1, 64, 0.05},      {"iq4_nl", SM_TYPE_IQ4_NL, 64, 0.1},
                {"q2_k", SM_TYPE_Q2_K, 512, 0.4},      {"q3_k", SM_TYPE_Q3_K, 512, 0.2},
                {NULL, SM_TYPE_IQ4_XS, 512, 0.1},      {NULL, SM_TYPE_MXFP4, 512, 0.2},
                {NULL, SM_TYPE_TQ1_0, 512, 1e-3},      {NULL, SM_TYPE_TQ2_0, 512, 1e-3}};
    static float x[1024], y[1024];
    static uint8_t blocks[1024];
    char path[64];
    size_t k, n_in;
    int i, n;
    sm__fp_enter();
    for (k = 0; k < sizeof list / sizeof *list; k++) {
        double error = 0, size = 0;
        uint8_t *file = NULL;
        n = 2 * list[k].n;
        for (i = 0; i < n; i++)
            x[i] = list[k].most < 0.01 ? 0.3f * (float)(random_below(3) - 1) : random_float();
        sm_type_encode(list[k].type, x, blocks, (size_t)n);
        snprintf(path, sizeof path, "quants/%s_%d_noim_input.bin", list[k].ggml ? list[k].ggml : "",
                 list[k].n);
        if (list[k].ggml && data_path(path)) {
            file = file_read(data_path(path), &n_in);
            memcpy(x, file, (size_t)n * 4);
            free(file);
            snprintf(path, sizeof path, "quants/%s_%d_noim_expected.bin", list[k].ggml, list[k].n);
            file = file_read(data_path(path), &n_in);
            memcpy(blocks, file, n_in);
            free(file);
        }
        CHECK_STATUS(sm_type_decode(list[k].type, blocks, y, (size_t)n), SM_OK);
        for (i = 0; i < n; i++) {
            error += ((double)y[i] - (double)x[i]) * ((double)y[i] - (double)x[i]);
            size += (double)x[i] * (double)x[i];
        }
        if (!(sqrt(error / size) <= list[k].most))
            FAIL("%s: %.3g of the numbers' size", sm_type_get_info(list[k].type)->name,
                 sqrt(error / size));
        for (i = 0; i < 64; i++) {
            x[random_below(n)] = sm__from_bits(edge_bits[random_below(N_EDGES)]);
            x[random_below(n)] = sm__from_bits(random_u32());
            sm_type_encode(list[k].type, x, blocks, (size_t)n);
        }
    }
}

/* Blocks that ggml wrote (shared/data/quants): the same bytes. */
static void check_golden(int type, const char *name, int n) {
    char path[64];
    size_t n_in, n_out, i, n_bad = 0;
    uint8_t *in, *want, *got;
    snprintf(path, sizeof path, "quants/%s_%d_noim_input.bin", name, n);
    if (!data_path(path)) return;
    in = file_read(data_path(path), &n_in);
    snprintf(path, sizeof path, "quants/%s_%d_noim_expected.bin", name, n);
    want = file_read(data_path(path), &n_out);
    got = (uint8_t *)malloc(n_out + 1);
    n *= 2;
    if (CHECK(in && want && got && n_in == 4 * (size_t)n &&
              n_out == sm__row_bytes(sm__type_index(type), (size_t)n))) {
        CHECK_STATUS(sm_type_encode(type, (const float *)(const void *)in, got, (size_t)n), SM_OK);
        for (i = 0; i < n_out; i++) n_bad += got[i] != want[i];
        if (n_bad) FAIL("%s: %u of %u bytes differ", name, (unsigned)n_bad, (unsigned)n_out);
    }
    free(in);
    free(want);
    free(got);
}
static void q8_0_gives_ggmls_bytes(void) { check_golden(SM_TYPE_Q8_0, "q8_0", 64); }
static void q4_0_gives_ggmls_bytes(void) { check_golden(SM_TYPE_Q4_0, "q4_0", 64); }
static void q4_k_gives_ggmls_bytes(void) { check_golden(SM_TYPE_Q4_K, "q4_k", 512); }
static void q5_k_gives_ggmls_bytes(void) { check_golden(SM_TYPE_Q5_K, "q5_k", 512); }
static void q6_k_gives_ggmls_bytes(void) { check_golden(SM_TYPE_Q6_K, "q6_k", 512); }
static void q4_1_gives_ggmls_bytes(void) { check_golden(SM_TYPE_Q4_1, "q4_1", 64); }
static void q5_0_gives_ggmls_bytes(void) { check_golden(SM_TYPE_Q5_0, "q5_0", 64); }
static void q5_1_gives_ggmls_bytes(void) { check_golden(SM_TYPE_Q5_1, "q5_1", 64); }
static void iq4_nl_gives_ggmls_bytes(void) { check_golden(SM_TYPE_IQ4_NL, "iq4_nl", 64); }
static void q2_k_gives_ggmls_bytes(void) { check_golden(SM_TYPE_Q2_K, "q2_k", 512); }
static void q3_k_gives_ggmls_bytes(void) { check_golden(SM_TYPE_Q3_K, "q3_k", 512); }

static const test tests_numbers[] = {
    {"numbers: fma of edges", fma_of_edges},
    {"numbers: fma of random numbers", fma_of_random_numbers},
    {"numbers: fma does not round twice", fma_does_not_round_twice},
    {"numbers: rounding to integers", rounding_to_integers},
    {"numbers: sqrt and division are correctly rounded", sqrt_and_division_are_correctly_rounded},
    {"numbers: exp is within 2 ulp", exp_is_within_two_ulp},
    {"numbers: exp of what is special", exp_of_what_is_special},
    {"numbers: erfc keeps its bound", erfc_keeps_its_bound},
    {"numbers: every half and bfloat decodes exactly", halves_decode_exactly},
    {"numbers: every half and bfloat rounds to nearest even", halves_round_to_nearest_even},
    {"numbers: halves against double arithmetic", halves_against_double},
    {"numbers: exp and log of doubles", exp_and_log_of_doubles},
    {"numbers: sine and cosine of doubles", sincos_of_doubles},
    {"numbers: types have ggml's sizes", types_have_ggml_sizes},
    {"numbers: blocks decode as their definition", blocks_decode_as_their_definition},
    {"numbers: superblocks decode as their definition", superblocks_decode_as_their_definition},
    {"numbers: ggml's superblocks decode", ggmls_superblocks_decode},
    {"numbers: encoders break ties as ggml does", encoders_break_ties_as_ggml},
    {"numbers: encoders stay near", encoders_stay_near},
    {"numbers: superblock encoders stay near", superblock_encoders_stay_near},
    {"numbers: the other types come back", other_types_come_back},
    {"numbers: q8_0 gives ggml's bytes", q8_0_gives_ggmls_bytes},
    {"numbers: q4_0 gives ggml's bytes", q4_0_gives_ggmls_bytes},
    {"numbers: q4_k gives ggml's bytes", q4_k_gives_ggmls_bytes},
    {"numbers: q5_k gives ggml's bytes", q5_k_gives_ggmls_bytes},
    {"numbers: q6_k gives ggml's bytes", q6_k_gives_ggmls_bytes},
    {"numbers: q4_1 gives ggml's bytes", q4_1_gives_ggmls_bytes},
    {"numbers: q5_0 gives ggml's bytes", q5_0_gives_ggmls_bytes},
    {"numbers: q5_1 gives ggml's bytes", q5_1_gives_ggmls_bytes},
    {"numbers: iq4_nl gives ggml's bytes", iq4_nl_gives_ggmls_bytes},
    {"numbers: q2_k gives ggml's bytes", q2_k_gives_ggmls_bytes},
    {"numbers: q3_k gives ggml's bytes", q3_k_gives_ggmls_bytes},
};
