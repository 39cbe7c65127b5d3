/* emulate_amx.h - AMX's tiles in plain C, and AVX-512 as emulate_avx512.h has it: make unit
 * EMULATE=amx. As Intel's manual describes the instructions (SDM, volume 2: LDTILECFG, TILELOADD,
 * TILESTORED, TILEZERO, TDPBSSD and its kin); what faults there traps here: a wrong configuration,
 * tiles that are not configured, or shapes that do not fit each other. One thing more traps: a
 * configuration that finds an older one, which its owner has not released. */
#pragma GCC system_header
#define SM__EMULATED_AMX
#include "emulate_avx512.h"

typedef struct emu_config { /* the 64 bytes of LDTILECFG */
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} emu_config;

#define EMU_TILE static inline __attribute__((unused))

static __thread struct {
    emu_config shapes; /* palette 0: none */
    uint8_t tile[8][16][64];
} emu_amx;

EMU_TILE void emu_tile_must(int condition) {
    if (!condition) __builtin_trap();
}

EMU_TILE void emu_tile_release(void) { memset(&emu_amx, 0, sizeof emu_amx); }

EMU_TILE void emu_tile_loadconfig(const void *p) {
    emu_config c;
    int i;
    memcpy(&c, p, sizeof c);
    emu_tile_must(emu_amx.shapes.palette == 0);
    emu_tile_must(c.palette == 1 && c.start_row == 0);
    for (i = 0; i < 14; i++) emu_tile_must(c.reserved[i] == 0);
    for (i = 0; i < 16; i++) {
        emu_tile_must(c.rows[i] <= (i < 8 ? 16 : 0) && c.row_bytes[i] <= (i < 8 ? 64 : 0));
        emu_tile_must((c.rows[i] == 0) == (c.row_bytes[i] == 0));
    }
    emu_tile_release();
    emu_amx.shapes = c;
}

/* The rows of a tile that is configured. */
EMU_TILE int emu_tile_rows(int i) {
    emu_tile_must(emu_amx.shapes.palette == 1 && i >= 0 && i < 8 && emu_amx.shapes.rows[i] > 0);
    return emu_amx.shapes.rows[i];
}

EMU_TILE void emu_tile_zero(int i) {
    emu_tile_rows(i);
    memset(emu_amx.tile[i], 0, sizeof emu_amx.tile[i]);
}

EMU_TILE void emu_tile_load(int i, const void *p, size_t stride) {
    int r, rows = emu_tile_rows(i);
    emu_tile_zero(i);
    for (r = 0; r < rows; r++)
        memcpy(emu_amx.tile[i][r], (const char *)p + (size_t)r * stride,
               emu_amx.shapes.row_bytes[i]);
}

EMU_TILE void emu_tile_store(int i, void *p, size_t stride) {
    int r, rows = emu_tile_rows(i);
    for (r = 0; r < rows; r++)
        memcpy((char *)p + (size_t)r * stride, emu_amx.tile[i][r], emu_amx.shapes.row_bytes[i]);
}

/* sums[m, n] += of words: 4 bytes of a[m, k] times 4 bytes of b[k, n]; in 32 bits, which wrap. */
EMU_TILE void emu_tile_dp(int sums, int a, int b, int a_signed, int b_signed) {
    const uint16_t *row_bytes = emu_amx.shapes.row_bytes;
    int rows = emu_tile_rows(sums), m, n, k, i;
    emu_tile_must(sums != a && a != b && b != sums);
    emu_tile_must(emu_tile_rows(a) == rows && emu_tile_rows(b) * 4 == row_bytes[a]);
    emu_tile_must(row_bytes[sums] == row_bytes[b]);
    emu_tile_must(row_bytes[sums] % 4 == 0 && row_bytes[a] % 4 == 0 && row_bytes[b] % 4 == 0);
    for (m = 0; m < rows; m++)
        for (n = 0; n < row_bytes[sums] / 4; n++) {
            uint32_t sum;
            memcpy(&sum, emu_amx.tile[sums][m] + 4 * n, 4);
            for (k = 0; k < row_bytes[a] / 4; k++)
                for (i = 0; i < 4; i++) {
                    int x = emu_amx.tile[a][m][4 * k + i], y = emu_amx.tile[b][k][4 * n + i];
                    x -= a_signed && x > 127 ? 256 : 0;
                    y -= b_signed && y > 127 ? 256 : 0;
                    sum += (uint32_t)(x * y);
                }
            memcpy(emu_amx.tile[sums][m] + 4 * n, &sum, 4);
        }
}

/* sums[m, n] += of words: 2 BF16 of a[m, k] times 2 of b[k, n]. As the manual has it, denormals are
 * 0; its order of the sums is left to the processor, so that only errors can be compared. */
EMU_TILE float emu_bf16(const uint8_t *p) {
    uint32_t bits = (uint32_t)p[0] << 16 | (uint32_t)p[1] << 24;
    float x;
    if (!(bits & 0x7f800000)) bits &= 0x80000000;
    memcpy(&x, &bits, 4);
    return x;
}
EMU_TILE void emu_tile_dpbf16(int sums, int a, int b) {
    const uint16_t *row_bytes = emu_amx.shapes.row_bytes;
    int rows = emu_tile_rows(sums), m, n, k, i;
    emu_tile_must(sums != a && a != b && b != sums);
    emu_tile_must(emu_tile_rows(a) == rows && emu_tile_rows(b) * 4 == row_bytes[a]);
    emu_tile_must(row_bytes[sums] == row_bytes[b]);
    for (m = 0; m < rows; m++)
        for (n = 0; n < row_bytes[sums] / 4; n++) {
            float sum;
            memcpy(&sum, emu_amx.tile[sums][m] + 4 * n, 4);
            for (k = 0; k < row_bytes[a] / 4; k++)
                for (i = 0; i < 4; i += 2)
                    sum += emu_bf16(emu_amx.tile[a][m] + 4 * k + i) *
                           emu_bf16(emu_amx.tile[b][k] + 4 * n + i);
            memcpy(emu_amx.tile[sums][m] + 4 * n, &sum, 4);
        }
}

/* VCVTNE2PS2BF16: to the nearest, even on a tie; denormals are 0. */
EMU emu_si emu_to_bf16(emu_ps low, emu_ps high) {
    uint32_t bits[32];
    uint16_t half[32];
    emu_si r;
    int i;
    memcpy(bits, &low, 64);
    memcpy(bits + 16, &high, 64);
    for (i = 0; i < 32; i++) {
        uint32_t size = bits[i] & 0x7fffffff;
        if (size > 0x7f800000) bits[i] |= 0x400000;
        else if (size < 0x800000) bits[i] &= 0x80000000;
        else bits[i] += 0x7fff + (bits[i] >> 16 & 1);
        half[i] = (uint16_t)(bits[i] >> 16);
    }
    memcpy(&r, half, 64);
    return r;
}

#undef _tile_loadd
#undef _tile_stream_loadd
#undef _tile_stored
#undef _tile_zero
#undef _tile_dpbssd
#undef _tile_dpbsud
#undef _tile_dpbusd
#undef _tile_dpbuud
#undef _tile_dpbf16ps
#define _tile_loadconfig emu_tile_loadconfig
#define _tile_release emu_tile_release
#define _tile_loadd(i, p, stride) emu_tile_load(i, p, (size_t)(stride))
#define _tile_stream_loadd(i, p, stride) emu_tile_load(i, p, (size_t)(stride))
#define _tile_stored(i, p, stride) emu_tile_store(i, p, (size_t)(stride))
#define _tile_zero emu_tile_zero
#define _tile_dpbssd(c, a, b) emu_tile_dp(c, a, b, 1, 1)
#define _tile_dpbsud(c, a, b) emu_tile_dp(c, a, b, 1, 0)
#define _tile_dpbusd(c, a, b) emu_tile_dp(c, a, b, 0, 1)
#define _tile_dpbuud(c, a, b) emu_tile_dp(c, a, b, 0, 0)
#define _tile_dpbf16ps emu_tile_dpbf16
#define SM__TO_BF16 emu_to_bf16
