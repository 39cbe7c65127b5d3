/* emulate_avx512.h - AVX-512 on AVX2: the intrinsics as functions on pairs of AVX2's registers, so
 * that the AVX-512 kernels run, and their bits are compared, where the processor has no AVX-512:
 * make unit EMULATE=avx512 (the compiler's -include puts this file before test.c).
 * The compiler has declared the real types and names; macros put ours in their place. What is not
 * here does not compile: add it to its group, unless it is more than F, BW, DQ, VL and VNNI, which
 * is what SM_ISA_AVX512 asks of a processor.
 * Where the real ones fault, so do these: aligned loads and stores trap when they are not, masked
 * ones touch the bytes of their lanes only. Undefined lanes hold rubbish. */
#pragma GCC system_header /* as the real one: some names are macros already, and no warning here */
#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#ifdef __FAST_MATH__
#error "not for -ffast-math, where compilers rearrange the real intrinsics in their own ways"
#endif
#define SM__EMULATED_AVX512
#ifndef SM__EMULATED_AMX
#define SMALLMIND_NO_AMX /* the real one needs real registers */
#endif

#define EMU static inline __attribute__((always_inline, unused, target("avx2,fma,f16c")))

typedef struct emu_ps {
    __m256 lo, hi;
} emu_ps;
typedef struct emu_si {
    __m256i lo, hi;
} emu_si;
#define __m512 emu_ps
#define __m512i emu_si

EMU emu_ps emu_pair_ps(__m256 lo, __m256 hi) {
    emu_ps r;
    r.lo = lo;
    r.hi = hi;
    return r;
}
EMU emu_si emu_pair_si(__m256i lo, __m256i hi) {
    emu_si r;
    r.lo = lo;
    r.hi = hi;
    return r;
}

/* --- what does the same to both halves ------------------------------------------------------- */

#define EMU_PS1(name)                                                                              \
    EMU emu_ps emu_##name(emu_ps a) {                                                              \
        return emu_pair_ps(_mm256_##name(a.lo), _mm256_##name(a.hi));                              \
    }
#define EMU_PS2(name)                                                                              \
    EMU emu_ps emu_##name(emu_ps a, emu_ps b) {                                                    \
        return emu_pair_ps(_mm256_##name(a.lo, b.lo), _mm256_##name(a.hi, b.hi));                  \
    }
#define EMU_PS3(name)                                                                              \
    EMU emu_ps emu_##name(emu_ps a, emu_ps b, emu_ps c) {                                          \
        return emu_pair_ps(_mm256_##name(a.lo, b.lo, c.lo), _mm256_##name(a.hi, b.hi, c.hi));      \
    }
#define EMU_SI1(name)                                                                              \
    EMU emu_si emu_##name(emu_si a) {                                                              \
        return emu_pair_si(_mm256_##name(a.lo), _mm256_##name(a.hi));                              \
    }
#define EMU_SI2(name)                                                                              \
    EMU emu_si emu_##name(emu_si a, emu_si b) {                                                    \
        return emu_pair_si(_mm256_##name(a.lo, b.lo), _mm256_##name(a.hi, b.hi));                  \
    }
#define EMU_SHIFT(name)                                                                            \
    EMU emu_si emu_##name(emu_si a, unsigned n) {                                                  \
        return emu_pair_si(_mm256_##name(a.lo, (int)n), _mm256_##name(a.hi, (int)n));              \
    }

EMU_PS1(moveldup_ps) EMU_PS1(movehdup_ps)
#define _mm512_moveldup_ps emu_moveldup_ps
#define _mm512_movehdup_ps emu_movehdup_ps

EMU_PS2(add_ps) EMU_PS2(sub_ps) EMU_PS2(mul_ps) EMU_PS2(div_ps) EMU_PS2(max_ps) EMU_PS2(min_ps)
EMU_PS2(and_ps) EMU_PS2(andnot_ps) EMU_PS2(or_ps) EMU_PS2(xor_ps)
#define _mm512_add_ps emu_add_ps
#define _mm512_sub_ps emu_sub_ps
#define _mm512_mul_ps emu_mul_ps
#define _mm512_div_ps emu_div_ps
#define _mm512_max_ps emu_max_ps
#define _mm512_min_ps emu_min_ps
#define _mm512_and_ps emu_and_ps
#define _mm512_andnot_ps emu_andnot_ps
#define _mm512_or_ps emu_or_ps
#define _mm512_xor_ps emu_xor_ps

EMU_PS3(fmadd_ps) EMU_PS3(fmsub_ps) EMU_PS3(fnmadd_ps) EMU_PS3(fnmsub_ps)
EMU_PS3(fmaddsub_ps) EMU_PS3(fmsubadd_ps)
#define _mm512_fmadd_ps emu_fmadd_ps
#define _mm512_fmsub_ps emu_fmsub_ps
#define _mm512_fnmadd_ps emu_fnmadd_ps
#define _mm512_fnmsub_ps emu_fnmsub_ps
#define _mm512_fmaddsub_ps emu_fmaddsub_ps
#define _mm512_fmsubadd_ps emu_fmsubadd_ps

EMU_SI1(abs_epi8) EMU_SI1(abs_epi16) EMU_SI1(abs_epi32)
#define _mm512_abs_epi8 emu_abs_epi8
#define _mm512_abs_epi16 emu_abs_epi16
#define _mm512_abs_epi32 emu_abs_epi32

EMU_SI2(add_epi8) EMU_SI2(add_epi16) EMU_SI2(add_epi32)
EMU_SI2(sub_epi8) EMU_SI2(sub_epi16) EMU_SI2(sub_epi32)
EMU_SI2(mullo_epi16) EMU_SI2(mullo_epi32)
EMU_SI2(madd_epi16) EMU_SI2(maddubs_epi16) EMU_SI2(sad_epu8)
#define _mm512_add_epi8 emu_add_epi8
#define _mm512_add_epi16 emu_add_epi16
#define _mm512_add_epi32 emu_add_epi32
#define _mm512_sub_epi8 emu_sub_epi8
#define _mm512_sub_epi16 emu_sub_epi16
#define _mm512_sub_epi32 emu_sub_epi32
#define _mm512_mullo_epi16 emu_mullo_epi16
#define _mm512_mullo_epi32 emu_mullo_epi32
#define _mm512_madd_epi16 emu_madd_epi16
#define _mm512_maddubs_epi16 emu_maddubs_epi16
#define _mm512_sad_epu8 emu_sad_epu8

EMU_SI2(max_epi32) EMU_SI2(min_epi32)
#define _mm512_max_epi32 emu_max_epi32
#define _mm512_min_epi32 emu_min_epi32

EMU_SI2(cmpgt_epi8) EMU_SI2(cmpgt_epi32) EMU_SI2(cmpeq_epi8) EMU_SI2(cmpeq_epi32)
EMU_SI2(and_si256) EMU_SI2(andnot_si256) EMU_SI2(or_si256) EMU_SI2(xor_si256)
#define _mm512_and_si512 emu_and_si256
#define _mm512_and_epi32 emu_and_si256
#define _mm512_andnot_si512 emu_andnot_si256
#define _mm512_andnot_epi32 emu_andnot_si256
#define _mm512_or_si512 emu_or_si256
#define _mm512_or_epi32 emu_or_si256
#define _mm512_xor_si512 emu_xor_si256
#define _mm512_xor_epi32 emu_xor_si256

EMU_SI2(unpacklo_epi8) EMU_SI2(unpacklo_epi16) EMU_SI2(unpacklo_epi32) EMU_SI2(unpacklo_epi64)
EMU_SI2(unpackhi_epi8) EMU_SI2(unpackhi_epi16) EMU_SI2(unpackhi_epi32) EMU_SI2(unpackhi_epi64)
EMU_SI2(packs_epi16) EMU_SI2(packs_epi32) EMU_SI2(packus_epi16) EMU_SI2(packus_epi32)
EMU_SI2(shuffle_epi8)
#define _mm512_unpacklo_epi8 emu_unpacklo_epi8
#define _mm512_unpacklo_epi16 emu_unpacklo_epi16
#define _mm512_unpacklo_epi32 emu_unpacklo_epi32
#define _mm512_unpacklo_epi64 emu_unpacklo_epi64
#define _mm512_unpackhi_epi8 emu_unpackhi_epi8
#define _mm512_unpackhi_epi16 emu_unpackhi_epi16
#define _mm512_unpackhi_epi32 emu_unpackhi_epi32
#define _mm512_unpackhi_epi64 emu_unpackhi_epi64
#define _mm512_packs_epi16 emu_packs_epi16
#define _mm512_packs_epi32 emu_packs_epi32
#define _mm512_packus_epi16 emu_packus_epi16
#define _mm512_packus_epi32 emu_packus_epi32
#define _mm512_shuffle_epi8 emu_shuffle_epi8

EMU_SHIFT(slli_epi16) EMU_SHIFT(srli_epi16) EMU_SHIFT(srai_epi16) EMU_SHIFT(slli_epi32)
EMU_SHIFT(srli_epi32) EMU_SHIFT(srai_epi32) EMU_SHIFT(slli_epi64) EMU_SHIFT(srli_epi64)
EMU_SI2(sllv_epi32) EMU_SI2(srlv_epi32) EMU_SI2(srav_epi32)
#define _mm512_slli_epi16 emu_slli_epi16
#define _mm512_srli_epi16 emu_srli_epi16
#define _mm512_srai_epi16 emu_srai_epi16
#define _mm512_slli_epi32 emu_slli_epi32
#define _mm512_srli_epi32 emu_srli_epi32
#define _mm512_srai_epi32 emu_srai_epi32
#define _mm512_slli_epi64 emu_slli_epi64
#define _mm512_srli_epi64 emu_srli_epi64
#define _mm512_sllv_epi32 emu_sllv_epi32
#define _mm512_srlv_epi32 emu_srlv_epi32
#define _mm512_srav_epi32 emu_srav_epi32

EMU emu_si emu_ternarylogic(emu_si a, emu_si b, emu_si c, int table) {
    emu_si r = emu_xor_si256(a, a), ones = emu_cmpeq_epi32(a, a);
    int i;
    for (i = 0; i < 8; i++) /* bit i of the table: the result for these bits of a, b, c */
        if (table >> i & 1) {
            emu_si x = i & 4 ? a : emu_xor_si256(a, ones), y = i & 2 ? b : emu_xor_si256(b, ones);
            emu_si z = i & 1 ? c : emu_xor_si256(c, ones);
            r = emu_or_si256(r, emu_and_si256(emu_and_si256(x, y), z));
        }
    return r;
}
#define _mm512_ternarylogic_epi32 emu_ternarylogic

/* VNNI. Products of bytes are summed in 32 bits: nothing saturates. */
EMU emu_si emu_dpwssd(emu_si sum, emu_si a, emu_si b) {
    return emu_add_epi32(sum, emu_madd_epi16(a, b));
}
EMU emu_si emu_dpbusd(emu_si sum, emu_si u, emu_si s) {
    emu_si even = emu_srli_epi16(emu_slli_epi16(u, 8), 8), odd = emu_srli_epi16(u, 8);
    sum = emu_dpwssd(sum, even, emu_srai_epi16(emu_slli_epi16(s, 8), 8));
    return emu_dpwssd(sum, odd, emu_srai_epi16(s, 8));
}
#define _mm512_dpbusd_epi32 emu_dpbusd
#define _mm512_dpwssd_epi32 emu_dpwssd

/* --- constants, casts, halves and quarters ---------------------------------------------------- */

EMU emu_ps emu_twice_ps(__m256 h) { return emu_pair_ps(h, h); }
EMU emu_si emu_twice_si(__m256i h) { return emu_pair_si(h, h); }
#define _mm512_setzero_ps() emu_twice_ps(_mm256_setzero_ps())
#define _mm512_setzero_si512() emu_twice_si(_mm256_setzero_si256())
#define _mm512_set1_ps(x) emu_twice_ps(_mm256_set1_ps(x))
#define _mm512_set1_epi8(x) emu_twice_si(_mm256_set1_epi8(x))
#define _mm512_set1_epi16(x) emu_twice_si(_mm256_set1_epi16(x))
#define _mm512_set1_epi32(x) emu_twice_si(_mm256_set1_epi32(x))
#define _mm512_set1_epi64(x) emu_twice_si(_mm256_set1_epi64x(x))
#define _mm512_setr_epi32(a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p)                          \
    emu_pair_si(_mm256_setr_epi32(a, b, c, d, e, f, g, h),                                         \
                _mm256_setr_epi32(i, j, k, l, m, n, o, p))
#define _mm512_set_epi32(a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p)                           \
    _mm512_setr_epi32(p, o, n, m, l, k, j, i, h, g, f, e, d, c, b, a)
#define _mm512_broadcast_f32x8 emu_twice_ps
#define _mm512_broadcast_f32x4(q) emu_castsi_ps(_mm512_broadcast_i32x4(_mm_castps_si128(q)))
#define _mm512_broadcast_i32x8 emu_twice_si
#define _mm512_broadcast_i64x4 emu_twice_si
#define _mm512_broadcast_i32x4(q) emu_twice_si(_mm256_broadcastsi128_si256(q))
#define _mm512_broadcastss_ps(q) emu_twice_ps(_mm256_broadcastss_ps(q))
#define _mm512_broadcastd_epi32(q) emu_twice_si(_mm256_broadcastd_epi32(q))

EMU emu_si emu_castps_si(emu_ps a) {
    return emu_pair_si(_mm256_castps_si256(a.lo), _mm256_castps_si256(a.hi));
}
EMU emu_ps emu_castsi_ps(emu_si a) {
    return emu_pair_ps(_mm256_castsi256_ps(a.lo), _mm256_castsi256_ps(a.hi));
}
EMU __m256i emu_rubbish(void) { return _mm256_set1_epi32(0x5aa5f00d); }
EMU emu_si emu_cast256(__m256i a) { return emu_pair_si(a, emu_rubbish()); }
EMU emu_si emu_cast128(__m128i a) {
    return emu_cast256(_mm256_inserti128_si256(emu_rubbish(), a, 0));
}
#define _mm512_castps_si512 emu_castps_si
#define _mm512_castsi512_ps emu_castsi_ps
#define _mm512_castsi256_si512 emu_cast256
#define _mm512_castsi128_si512 emu_cast128
#define _mm512_castps256_ps512(a) emu_castsi_ps(emu_cast256(_mm256_castps_si256(a)))
#define _mm512_castsi512_si256(a) ((a).lo)
#define _mm512_castps512_ps256(a) ((a).lo)
#define _mm512_castsi512_si128(a) _mm256_castsi256_si128((a).lo)
#define _mm512_castps512_ps128(a) _mm256_castps256_ps128((a).lo)
#define _mm512_cvtss_f32(a) _mm256_cvtss_f32((a).lo)
#define _mm512_cvtsi512_si32(a) _mm256_cvtsi256_si32((a).lo)

EMU __m256i emu_half(emu_si a, int i) { return i & 1 ? a.hi : a.lo; }
EMU __m256 emu_half_ps(emu_ps a, int i) { return i & 1 ? a.hi : a.lo; }
EMU emu_si emu_put_half(emu_si a, __m256i h, int i) {
    return i & 1 ? emu_pair_si(a.lo, h) : emu_pair_si(h, a.hi);
}
EMU __m128i emu_quarter(emu_si a, int i) {
    __m256i h = emu_half(a, i >> 1);
    return i & 1 ? _mm256_extracti128_si256(h, 1) : _mm256_castsi256_si128(h);
}
EMU emu_si emu_put_quarter(emu_si a, __m128i q, int i) {
    __m256i h = emu_half(a, i >> 1);
    h = i & 1 ? _mm256_inserti128_si256(h, q, 1) : _mm256_inserti128_si256(h, q, 0);
    return emu_put_half(a, h, i >> 1);
}
EMU emu_si emu_shuffle_quarters(emu_si a, emu_si b, int i) {
    return emu_pair_si(_mm256_set_m128i(emu_quarter(a, i >> 2), emu_quarter(a, i)),
                       _mm256_set_m128i(emu_quarter(b, i >> 6), emu_quarter(b, i >> 4)));
}
#define _mm512_extracti32x8_epi32 emu_half
#define _mm512_extracti64x4_epi64 emu_half
#define _mm512_extractf32x8_ps emu_half_ps
#define _mm512_extracti32x4_epi32 emu_quarter
#define _mm512_extracti64x2_epi64 emu_quarter
#define _mm512_extractf32x4_ps(a, i) _mm_castsi128_ps(emu_quarter(emu_castps_si(a), i))
#define _mm512_inserti32x8 emu_put_half
#define _mm512_inserti64x4 emu_put_half
#define _mm512_inserti32x4 emu_put_quarter
#define _mm512_inserti64x2 emu_put_quarter
#define _mm512_insertf32x4(a, q, i)                                                                \
    emu_castsi_ps(emu_put_quarter(emu_castps_si(a), _mm_castps_si128(q), i))
#define _mm512_shuffle_i32x4 emu_shuffle_quarters
#define _mm512_shuffle_i64x2 emu_shuffle_quarters
#define _mm512_shuffle_f32x4(a, b, i)                                                              \
    emu_castsi_ps(emu_shuffle_quarters(emu_castps_si(a), emu_castps_si(b), i))

/* --- memory ----------------------------------------------------------------------------------- */

EMU emu_si emu_load(const void *p) {
    const __m256i *h = (const __m256i *)p;
    return emu_pair_si(_mm256_loadu_si256(h), _mm256_loadu_si256(h + 1));
}
EMU void emu_store(void *p, emu_si a) {
    _mm256_storeu_si256((__m256i *)p, a.lo);
    _mm256_storeu_si256((__m256i *)p + 1, a.hi);
}
EMU const void *emu_aligned(const void *p) {
    if ((uintptr_t)p % 64) __builtin_trap();
    return p;
}
EMU void emu_store_aligned(void *p, emu_si a) {
    emu_aligned(p);
    emu_store(p, a);
}
#define _mm512_loadu_si512 emu_load
#define _mm512_loadu_epi8 emu_load
#define _mm512_loadu_epi32 emu_load
#define _mm512_loadu_ps(p) emu_castsi_ps(emu_load(p))
#define _mm512_load_si512(p) emu_load(emu_aligned(p))
#define _mm512_load_ps(p) emu_castsi_ps(emu_load(emu_aligned(p)))
#define _mm512_storeu_si512 emu_store
#define _mm512_storeu_epi8 emu_store
#define _mm512_storeu_epi32 emu_store
#define _mm512_storeu_ps(p, a) emu_store(p, emu_castps_si(a))
#define _mm512_store_si512 emu_store_aligned
#define _mm512_stream_si512 emu_store_aligned
#define _mm512_store_ps(p, a) emu_store_aligned(p, emu_castps_si(a))

/* A mask of 16 as lanes of 0 and -1. vmaskmov, as the real ones, does not touch the other lanes. */
EMU __m256i emu_mask8(unsigned m) {
    __m256i bits = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    return _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32((int)m), bits), bits);
}
EMU emu_si emu_mask(unsigned m) { return emu_pair_si(emu_mask8(m), emu_mask8(m >> 8)); }
EMU emu_si emu_load_mask(unsigned m, const void *p) {
    emu_si lanes = emu_mask(m);
    return emu_pair_si(_mm256_maskload_epi32((const int *)p, lanes.lo),
                       _mm256_maskload_epi32((const int *)p + 8, lanes.hi));
}
EMU void emu_store_mask(void *p, unsigned m, emu_si a) {
    emu_si lanes = emu_mask(m);
    _mm256_maskstore_epi32((int *)p, lanes.lo, a.lo);
    _mm256_maskstore_epi32((int *)p + 8, lanes.hi, a.hi);
}
/* n lanes of smaller elements, one by one. */
EMU void emu_copy_lanes(void *to, const void *from, uint64_t m, size_t n, size_t bytes) {
    size_t i;
    for (i = 0; i < n; i++)
        if (m >> i & 1) memcpy((char *)to + i * bytes, (const char *)from + i * bytes, bytes);
}
EMU __m128i emu_load_small128(uint64_t m, const void *p, size_t bytes) {
    __m128i r = _mm_setzero_si128();
    emu_copy_lanes(&r, p, m, 16 / bytes, bytes);
    return r;
}
EMU __m256i emu_load_small256(uint64_t m, const void *p, size_t bytes) {
    __m256i r = _mm256_setzero_si256();
    emu_copy_lanes(&r, p, m, 32 / bytes, bytes);
    return r;
}
EMU emu_si emu_load_small(uint64_t m, const void *p, size_t bytes) {
    emu_si r = emu_twice_si(_mm256_setzero_si256());
    emu_copy_lanes(&r, p, m, 64 / bytes, bytes);
    return r;
}
EMU void emu_store_small128(void *p, uint64_t m, __m128i a, size_t bytes) {
    emu_copy_lanes(p, &a, m, 16 / bytes, bytes);
}
EMU void emu_store_small256(void *p, uint64_t m, __m256i a, size_t bytes) {
    emu_copy_lanes(p, &a, m, 32 / bytes, bytes);
}
EMU void emu_store_small(void *p, uint64_t m, emu_si a, size_t bytes) {
    emu_copy_lanes(p, &a, m, 64 / bytes, bytes);
}
#define _mm512_maskz_loadu_epi32 emu_load_mask
#define _mm512_mask_storeu_epi32 emu_store_mask
#define _mm512_maskz_loadu_ps(m, p) emu_castsi_ps(emu_load_mask(m, p))
#define _mm512_mask_loadu_ps emu_load_select_ps
#define _mm512_mask_storeu_ps(p, m, a) emu_store_mask(p, m, emu_castps_si(a))
#define _mm_maskz_loadu_epi8(m, p) emu_load_small128(m, p, 1)
#define _mm_maskz_loadu_epi16(m, p) emu_load_small128(m, p, 2)
#define _mm_mask_storeu_epi8(p, m, a) emu_store_small128(p, m, a, 1)
#define _mm_mask_storeu_epi16(p, m, a) emu_store_small128(p, m, a, 2)
#define _mm256_maskz_loadu_epi8(m, p) emu_load_small256(m, p, 1)
#define _mm256_maskz_loadu_epi16(m, p) emu_load_small256(m, p, 2)
#define _mm256_mask_storeu_epi8(p, m, a) emu_store_small256(p, m, a, 1)
#define _mm256_mask_storeu_epi16(p, m, a) emu_store_small256(p, m, a, 2)
#define _mm512_maskz_loadu_epi8(m, p) emu_load_small(m, p, 1)
#define _mm512_maskz_loadu_epi16(m, p) emu_load_small(m, p, 2)
#define _mm512_mask_storeu_epi8(p, m, a) emu_store_small(p, m, a, 1)
#define _mm512_mask_storeu_epi16(p, m, a) emu_store_small(p, m, a, 2)

/* --- masks ------------------------------------------------------------------------------------ */

/* Lanes of b where m has a bit, of a elsewhere. */
EMU emu_ps emu_select_ps(unsigned m, emu_ps a, emu_ps b) {
    emu_ps lanes = emu_castsi_ps(emu_mask(m));
    return emu_pair_ps(_mm256_blendv_ps(a.lo, b.lo, lanes.lo),
                       _mm256_blendv_ps(a.hi, b.hi, lanes.hi));
}
EMU emu_si emu_select(unsigned m, emu_si a, emu_si b) {
    return emu_castps_si(emu_select_ps(m, emu_castsi_ps(a), emu_castsi_ps(b)));
}
EMU emu_si emu_select8(uint64_t m, emu_si a, emu_si b) {
    emu_copy_lanes(&a, &b, m, 64, 1);
    return a;
}
EMU emu_ps emu_load_select_ps(emu_ps a, unsigned m, const void *p) {
    return emu_select_ps(m, a, emu_castsi_ps(emu_load_mask(m, p)));
}
#define _mm512_mask_mov_ps(a, m, b) emu_select_ps(m, a, b)
#define _mm512_maskz_mov_ps(m, b) emu_select_ps(m, _mm512_setzero_ps(), b)
#define _mm512_mask_blend_ps emu_select_ps
#define _mm512_mask_max_ps(s, m, a, b) emu_select_ps(m, s, emu_max_ps(a, b))
#define _mm512_mask_fmadd_ps(a, m, b, c) emu_select_ps(m, a, emu_fmadd_ps(a, b, c))
#define _mm512_mask3_fmadd_ps(a, b, c, m) emu_select_ps(m, c, emu_fmadd_ps(a, b, c))
#define _mm512_mask_mov_epi32(a, m, b) emu_select(m, a, b)
#define _mm512_maskz_mov_epi32(m, b) emu_select(m, _mm512_setzero_si512(), b)
#define _mm512_mask_blend_epi32 emu_select
#define _mm512_mask_add_epi32(s, m, a, b) emu_select(m, s, emu_add_epi32(a, b))
#define _mm512_mask_sub_epi32(s, m, a, b) emu_select(m, s, emu_sub_epi32(a, b))
#define _mm512_mask_blend_epi8 emu_select8
#define _mm512_mask_sub_epi8(s, m, a, b) emu_select8(m, s, emu_sub_epi8(a, b))

EMU __mmask16 emu_signs(emu_si a) { /* the top bits of the 16 lanes */
    emu_ps f = emu_castsi_ps(a);
    return (__mmask16)(_mm256_movemask_ps(f.lo) | _mm256_movemask_ps(f.hi) << 8);
}
EMU __mmask64 emu_signs8(emu_si a) {
    return (uint32_t)_mm256_movemask_epi8(a.lo) |
           (uint64_t)(uint32_t)_mm256_movemask_epi8(a.hi) << 32;
}
#define _mm512_movepi32_mask emu_signs
#define _mm512_movepi8_mask emu_signs8
#define _mm512_cmpgt_epi32_mask(a, b) emu_signs(emu_cmpgt_epi32(a, b))
#define _mm512_cmplt_epi32_mask(a, b) emu_signs(emu_cmpgt_epi32(b, a))
#define _mm512_cmpeq_epi32_mask(a, b) emu_signs(emu_cmpeq_epi32(a, b))
#define _mm512_cmpgt_epi8_mask(a, b) emu_signs8(emu_cmpgt_epi8(a, b))
#define _mm512_cmplt_epi8_mask(a, b) emu_signs8(emu_cmpgt_epi8(b, a))
#define _mm512_cmpeq_epi8_mask(a, b) emu_signs8(emu_cmpeq_epi8(a, b))
#define _mm512_test_epi32_mask(a, b)                                                               \
    ((__mmask16)~emu_signs(emu_cmpeq_epi32(emu_and_si256(a, b), _mm512_setzero_si512())))

EMU emu_ps emu_compress_ps(unsigned m, emu_ps a) {
    float from[16], to[16] = {0};
    int i, n = 0;
    memcpy(from, &a, 64);
    for (i = 0; i < 16; i++)
        if (m >> i & 1) to[n++] = from[i];
    memcpy(&a, to, 64);
    return a;
}
#define _mm512_maskz_compress_ps emu_compress_ps

/* --- permutations ----------------------------------------------------------------------------- */

EMU emu_ps emu_permute_ps(emu_ps a, int i) {
    __m256i lanes = _mm256_set1_epi64x((int64_t)(i >> 2 & 3) << 32 | (i & 3));
    __m256i upper = _mm256_set1_epi64x((int64_t)(i >> 6 & 3) << 32 | (i >> 4 & 3));
    lanes = _mm256_blend_epi32(lanes, upper, 0xcc);
    return emu_pair_ps(_mm256_permutevar_ps(a.lo, lanes), _mm256_permutevar_ps(a.hi, lanes));
}
EMU emu_ps emu_shuffle_ps(emu_ps a, emu_ps b, int i) { /* quarter by quarter: two of a, two of b */
    emu_ps x = emu_permute_ps(a, i & 15), y = emu_permute_ps(b, i & 0xf0);
    return emu_pair_ps(_mm256_blend_ps(x.lo, y.lo, 0xcc), _mm256_blend_ps(x.hi, y.hi, 0xcc));
}
EMU __m256 emu_permute_half(__m256i index, emu_ps a) { /* bit 3 chooses the half */
    __m256 lo = _mm256_permutevar8x32_ps(a.lo, index), hi = _mm256_permutevar8x32_ps(a.hi, index);
    return _mm256_blendv_ps(lo, hi, _mm256_castsi256_ps(_mm256_slli_epi32(index, 28)));
}
EMU emu_ps emu_permute(emu_si index, emu_ps a) {
    return emu_pair_ps(emu_permute_half(index.lo, a), emu_permute_half(index.hi, a));
}
EMU emu_ps emu_permute2(emu_ps a, emu_si index, emu_ps b) { /* bit 4 chooses a or b */
    return emu_select_ps(emu_signs(emu_slli_epi32(index, 27)), emu_permute(index, a),
                         emu_permute(index, b));
}
EMU emu_si emu_permute16(emu_si a, emu_si index, emu_si b) { /* bit 5 chooses a or b */
    uint16_t from[64], lanes[32];
    int i;
    memcpy(from, &a, 64);
    memcpy(from + 32, &b, 64);
    memcpy(lanes, &index, 64);
    for (i = 0; i < 32; i++) lanes[i] = from[lanes[i] & 63];
    memcpy(&a, lanes, 64);
    return a;
}
#define _mm512_permute_ps emu_permute_ps
#define _mm512_shuffle_ps emu_shuffle_ps
#define _mm512_shuffle_epi32(a, i) emu_castps_si(emu_permute_ps(emu_castsi_ps(a), (int)(i)))
#define _mm512_permutexvar_ps emu_permute
#define _mm512_permutexvar_epi32(i, a) emu_castps_si(emu_permute(i, emu_castsi_ps(a)))
#define _mm512_permutexvar_epi16(i, a) emu_permute16(a, i, a)
#define _mm512_permutex2var_ps emu_permute2
#define _mm512_permutex2var_epi32(a, i, b)                                                         \
    emu_castps_si(emu_permute2(emu_castsi_ps(a), i, emu_castsi_ps(b)))
#define _mm512_permutex2var_epi16 emu_permute16

/* Quarter by quarter: the 32 bytes of a (above) and b, n bytes further on. */
EMU emu_si emu_alignr(emu_si a, emu_si b, unsigned n) {
    uint8_t x[64], y[64], r[64];
    unsigned i, j;
    memcpy(x, &a, 64);
    memcpy(y, &b, 64);
    for (i = 0; i < 64; i++) {
        j = i % 16 + n;
        r[i] = (uint8_t)(j < 16 ? y[i / 16 * 16 + j] : j < 32 ? x[i / 16 * 16 + j - 16] : 0);
    }
    memcpy(&a, r, 64);
    return a;
}
#define _mm512_alignr_epi8(a, b, n) emu_alignr(a, b, n)
#define _mm512_bsrli_epi128(a, n) emu_alignr(_mm512_setzero_si512(), a, n)
#define _mm512_bslli_epi128(a, n) emu_alignr(a, _mm512_setzero_si512(), (n) > 16 ? 32 : 16 - (n))

/* --- conversions and sums --------------------------------------------------------------------- */

EMU emu_si emu_cvtps_si(emu_ps a) {
    return emu_pair_si(_mm256_cvtps_epi32(a.lo), _mm256_cvtps_epi32(a.hi));
}
EMU emu_si emu_cvttps_si(emu_ps a) {
    return emu_pair_si(_mm256_cvttps_epi32(a.lo), _mm256_cvttps_epi32(a.hi));
}
EMU emu_ps emu_cvtsi_ps(emu_si a) {
    return emu_pair_ps(_mm256_cvtepi32_ps(a.lo), _mm256_cvtepi32_ps(a.hi));
}
EMU emu_ps emu_cvtph_ps(__m256i a) {
    return emu_pair_ps(_mm256_cvtph_ps(_mm256_castsi256_si128(a)),
                       _mm256_cvtph_ps(_mm256_extracti128_si256(a, 1)));
}
EMU __m256i emu_cvtps_ph(emu_ps a, int round) {
    if (round & 7) __builtin_trap(); /* only to nearest */
    return _mm256_set_m128i(_mm256_cvtps_ph(a.hi, 0), _mm256_cvtps_ph(a.lo, 0));
}
EMU __m256i emu_cvtps_ph_mask(unsigned m, emu_ps a, int round) {
    __m256i h = emu_cvtps_ph(a, round);
    return emu_load_small256(m, &h, 2);
}
#define EMU_WIDEN16(name) /* from 16 or 32 elements in half a register */                          \
    EMU emu_si emu_##name(__m256i a) {                                                             \
        return emu_pair_si(_mm256_##name(_mm256_castsi256_si128(a)),                               \
                           _mm256_##name(_mm256_extracti128_si256(a, 1)));                         \
    }
#define EMU_WIDEN8(name) /* from 16 bytes */                                                       \
    EMU emu_si emu_##name(__m128i a) {                                                             \
        return emu_pair_si(_mm256_##name(a), _mm256_##name(_mm_unpackhi_epi64(a, a)));             \
    }
EMU_WIDEN16(cvtepi16_epi32) EMU_WIDEN16(cvtepu16_epi32)
EMU_WIDEN16(cvtepi8_epi16) EMU_WIDEN16(cvtepu8_epi16)
EMU_WIDEN8(cvtepi8_epi32) EMU_WIDEN8(cvtepu8_epi32)
EMU __m128i emu_low_bytes(emu_si a) { /* of 16 lanes */
    /* the 4 of a quarter, at the place they have in the 8 of a half */
    __m256i low = _mm256_setr_epi32(0x0c080400, -1, -1, -1, -1, 0x0c080400, -1, -1);
    __m256i x = _mm256_shuffle_epi8(a.lo, low), y = _mm256_shuffle_epi8(a.hi, low);
    __m128i first = _mm_or_si128(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
    __m128i last = _mm_or_si128(_mm256_castsi256_si128(y), _mm256_extracti128_si256(y, 1));
    return _mm_unpacklo_epi64(first, last);
}
EMU __m256i emu_even_elements(emu_si a, size_t bytes) { /* the lower halves of lanes of 2 bytes */
    __m256i r;
    size_t i;
    for (i = 0; i < 32 / bytes; i++)
        memcpy((char *)&r + i * bytes, (const char *)&a + 2 * i * bytes, bytes);
    return r;
}
#define _mm512_cvtps_epi32 emu_cvtps_si
#define _mm512_cvttps_epi32 emu_cvttps_si
#define _mm512_cvtepi32_ps emu_cvtsi_ps
#define _mm512_cvtph_ps emu_cvtph_ps
#define _mm512_cvtps_ph emu_cvtps_ph
#define _mm512_maskz_cvtps_ph emu_cvtps_ph_mask
#define _mm512_cvtepi16_epi32 emu_cvtepi16_epi32
#define _mm512_cvtepu16_epi32 emu_cvtepu16_epi32
#define _mm512_cvtepi8_epi16 emu_cvtepi8_epi16
#define _mm512_cvtepu8_epi16 emu_cvtepu8_epi16
#define _mm512_cvtepi8_epi32 emu_cvtepi8_epi32
#define _mm512_cvtepu8_epi32 emu_cvtepu8_epi32
#define _mm512_cvtepi32_epi8 emu_low_bytes
#define _mm512_cvtepi32_epi16(a) emu_even_elements(a, 2)
#define _mm512_cvtepi16_epi8(a) emu_even_elements(a, 1)

EMU emu_ps emu_abs_ps(emu_ps a) { return emu_andnot_ps(_mm512_set1_ps(-0.0f), a); }
#define _mm512_abs_ps emu_abs_ps

/* a 2^floor(b): the product is exact in double precision, so it is rounded once. An exponent of
 * -inf is a factor of 0, inf and NaN are themselves; max and min let NaN through. */
EMU __m128 emu_scale_quarter(__m128 a, __m128 b) {
    __m256d x = _mm256_cvtps_pd(b), infinity = _mm256_set1_pd((double)__builtin_inff()), n, factor;
    __m256i e;
    n = _mm256_max_pd(_mm256_set1_pd(-300), _mm256_min_pd(_mm256_set1_pd(300), x));
    e = _mm256_cvtepi32_epi64(_mm256_cvtpd_epi32(_mm256_floor_pd(n)));
    e = _mm256_slli_epi64(_mm256_add_epi64(e, _mm256_set1_epi64x(1023)), 52);
    factor = _mm256_andnot_pd(_mm256_cmp_pd(x, _mm256_set1_pd(-(double)__builtin_inff()), 0),
                              _mm256_castsi256_pd(e));
    factor = _mm256_blendv_pd(factor, x, _mm256_cmp_pd(x, infinity, _CMP_NLT_UQ));
    return _mm256_cvtpd_ps(_mm256_mul_pd(_mm256_cvtps_pd(a), factor));
}
EMU __m256 emu_scale_half(__m256 a, __m256 b) {
    return _mm256_set_m128(
        emu_scale_quarter(_mm256_extractf128_ps(a, 1), _mm256_extractf128_ps(b, 1)),
        emu_scale_quarter(_mm256_castps256_ps128(a), _mm256_castps256_ps128(b)));
}
EMU emu_ps emu_scalef_ps(emu_ps a, emu_ps b) {
    return emu_pair_ps(emu_scale_half(a.lo, b.lo), emu_scale_half(a.hi, b.hi));
}
#define _mm512_scalef_ps emu_scalef_ps

#define EMU_REDUCE(name)                                                                           \
    EMU int emu_reduce_##name(emu_si a) {                                                          \
        __m256i h = _mm256_##name(a.hi, a.lo);                                                     \
        __m128i q = _mm_##name(_mm256_extracti128_si256(h, 1), _mm256_castsi256_si128(h));         \
        q = _mm_##name(q, _mm_shuffle_epi32(q, 0x4e));                                             \
        return _mm_cvtsi128_si32(_mm_##name(q, _mm_shuffle_epi32(q, 0xb1)));                       \
    }
#define EMU_REDUCE_PS(name)                                                                        \
    EMU float emu_reduce_##name(emu_ps a) {                                                        \
        __m256 h = _mm256_##name(a.hi, a.lo);                                                      \
        __m128 q = _mm_##name(_mm256_extractf128_ps(h, 1), _mm256_castps256_ps128(h));             \
        q = _mm_##name(q, _mm_permute_ps(q, 0x4e));                                                \
        return _mm_cvtss_f32(_mm_##name(q, _mm_permute_ps(q, 0xb1)));                              \
    }
EMU_REDUCE(add_epi32) EMU_REDUCE(max_epi32) EMU_REDUCE(min_epi32)
EMU_REDUCE_PS(max_ps) EMU_REDUCE_PS(min_ps)
#define _mm512_reduce_add_epi32 emu_reduce_add_epi32
#define _mm512_reduce_max_epi32 emu_reduce_max_epi32
#define _mm512_reduce_min_epi32 emu_reduce_min_epi32
#define _mm512_reduce_max_ps emu_reduce_max_ps
#define _mm512_reduce_min_ps emu_reduce_min_ps
