/* emulate_avxvnni.h - AVX-VNNI on AVX2: what vpdpbusd computes, so that the kernels that use it run
 * where the processor does not have it: make unit EMULATE=avxvnni (the compiler's -include puts
 * this file before test.c). Detection then says that it is there. */
#include <immintrin.h>
#define SM__EMULATED_AVXVNNI

/* Nothing saturates: bytes 0 and 2, then 1 and 3 of each lane, widened to 16 bits. */
static inline __attribute__((always_inline, unused, target("avx2"))) __m256i
emu_dpbusd(__m256i acc, __m256i u, __m256i s) {
    __m256i even = _mm256_and_si256(u, _mm256_set1_epi16(255)), odd = _mm256_srli_epi16(u, 8);
    even = _mm256_madd_epi16(even, _mm256_srai_epi16(_mm256_slli_epi16(s, 8), 8));
    odd = _mm256_madd_epi16(odd, _mm256_srai_epi16(s, 8));
    return _mm256_add_epi32(acc, _mm256_add_epi32(even, odd));
}
#define SM__DPBUSD(acc, u, s) ((acc) = emu_dpbusd(acc, u, s))
