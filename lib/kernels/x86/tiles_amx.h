/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Tiles of AMX: eight matrices of up to 16 rows of 64 bytes, in registers of the thread. tiles_c.h has the same in
 * plain C. `t` is a constant, 0 to 7.
 */
#ifndef PGI_KERNELS_X86_TILES_AMX_H
#define PGI_KERNELS_X86_TILES_AMX_H

#include <immintrin.h>
#include <stdint.h>

typedef struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} tile_config;

/* Tiles 0 .. 3 and 4 .. 5 have m rows, 6 and 7 have 16; a call's tiles hold nothing for the caller, as the ABI has it.
 */
static inline void tiles_begin(int m) {
    __attribute__((aligned(64))) tile_config config = {.palette = 1};
    for (int t = 0; t < 8; t++) {
        config.row_bytes[t] = 64;
        config.rows[t] = (uint8_t)(t < 6 ? m : 16);
    }
    _tile_loadconfig(&config);
}
static inline void tiles_end(void) { _tile_release(); }

#define tile_zero(t) _tile_zero(t)
#define tile_load(t, from, row_stride) _tile_loadd(t, from, row_stride)
#define tile_store(t, to, row_stride) _tile_stored(t, to, row_stride)
/* sums += a b: s32 [m][16] += s8 [m][64] x u8 [16 fours][16][4] */
#define tile_dot_s8_u8(sums, a, b) _tile_dpbsud(sums, a, b)

/* c[j] = fma(sums[j] + start, scales[j] * factor, c[j]), j < 16: what is done with a row of sums. scales: f32 */
static inline __attribute__((always_inline)) void add_sums(const int32_t *sums, int32_t start, const void *scales,
                                                           float factor, float *c) {
    const __m512i sum = _mm512_add_epi32(_mm512_load_si512(sums), _mm512_set1_epi32(start));
    const __m512 scale = _mm512_mul_ps(_mm512_loadu_ps(scales), _mm512_set1_ps(factor));
    _mm512_store_ps(c, _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), scale, _mm512_load_ps(c)));
}

#endif
