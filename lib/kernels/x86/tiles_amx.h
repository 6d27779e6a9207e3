/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Tiles of AMX: eight matrices of 16 rows of 64 bytes, in registers of the thread. tiles_c.h has the same in
 * plain C. `t` is a constant, 0 to 7.
 */
#ifndef PGI_KERNELS_X86_TILES_AMX_H
#define PGI_KERNELS_X86_TILES_AMX_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

typedef struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} tile_config;

/* All zero. A call's tiles hold nothing for the caller, as the ABI has it. */
static inline void tiles_begin(void) {
    __attribute__((aligned(64))) tile_config config = {.palette = 1};
    for (int t = 0; t < 8; t++) {
        config.row_bytes[t] = 64;
        config.rows[t] = 16;
    }
    __asm__ volatile("" ::"m"(config)); /* gcc 12's _tile_loadconfig says that it reads 8 bytes of the 64 */
    _tile_loadconfig(&config);
}
static inline void tiles_end(void) { _tile_release(); }

/* gcc 12 does not know that a tile is loaded from memory: here it must have written what it wrote before. */
#define tiles_see_memory() __asm__ volatile("" : : : "memory")
#define tile_zero(t) _tile_zero(t)
#define tile_load(t, from, row_stride) _tile_loadd(t, from, row_stride)
#define tile_store(t, to, row_stride) _tile_stored(t, to, row_stride)
/* sums += a b: s32 [16][16] += s8 [16][64] x u8 [16 fours][16][4] */
#define tile_dot_su8(sums, a, b) _tile_dpbsud(sums, a, b)

/* sums += a b: f32 [16][16] += bf16 [16][32] x bf16 [16 pairs][16][2]; subnormals count as 0. */
#define tile_dot_bf16(sums, a, b) _tile_dpbf16ps(sums, a, b)

/* A row of 16 values. */
typedef __m512 tile_row;

/* n <= 16 of them; what is loaded is 0 from there on. */
static inline __attribute__((always_inline)) tile_row tile_row_load(const float *from, int n) {
    return _mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), from);
}
static inline __attribute__((always_inline)) void tile_row_store(float *to, tile_row row, int n) {
    _mm512_mask_storeu_ps(to, (__mmask16)((1u << n) - 1), row);
}
/* fma(sums[j] + *excess, scales[j] * *factor, c[j]) */
static inline __attribute__((always_inline)) tile_row tile_row_add(tile_row c, const int32_t *sums, const void *excess,
                                                                   tile_row scales, const void *factor) {
    int32_t more;
    float value;
    memcpy(&more, excess, sizeof more);
    memcpy(&value, factor, sizeof value);
    const __m512i whole = _mm512_add_epi32(_mm512_load_si512(sums), _mm512_set1_epi32(more));
    const __m512 scale = _mm512_mul_ps(scales, _mm512_set1_ps(value));
    return _mm512_fmadd_ps(_mm512_cvtepi32_ps(whole), scale, c);
}

#endif
