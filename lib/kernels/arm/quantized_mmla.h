/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Blocks of int8 weights for simd/quantized.inc.h: products of 2 x 8 by 8 x 2 bytes, the weights unsigned. The fours of
 * two rows become an eight of each by one instruction, of weights and of x alike. One row alone, and int4, are left to
 * dot products.
 */
#ifndef PGI_KERNELS_ARM_QUANTIZED_MMLA_H
#define PGI_KERNELS_ARM_QUANTIZED_MMLA_H

#define Q_OWN_INT8
#include "kernels/arm/quantized_dot.h"

static inline uint32x4_t q_words(const char *p) { return vreinterpretq_u32_u8(q_load(p)); }
static inline int32x4_t q_two_starts(const char *p) {
    int64_t both;
    memcpy(&both, p, sizeof both);
    return vreinterpretq_s32_s64(vdupq_n_s64(both));
}

/* Rows i0 .. i0 + rows of a tile of m times a block. sum[p][v][h]: rows 2 p and 2 p + 1 of x beside rows 2 h and
 * 2 h + 1 of a vector of weights, those first. The other row of an odd last one is not used. */
static ALWAYS_INLINE void mmla_int8(const int m, const int i0, const int rows, const char *x, const char *w, float *c) {
    const int pairs = (rows + 1) / 2, vectors = pairs > 2 ? 2 : 4; /* of weights: half a panel, or all */
    for (int first = 0; first < 4; first += vectors) {
        int32x4_t sum[PGI_TILE_ROWS / 2][4][2];
        UNROLL for (int p = 0; p < pairs; p++) {
            const int32x4_t start = q_two_starts(x + m * (PGI_GROUP_COLUMNS + 4) + 4 * (i0 + 2 * p));
            UNROLL for (int v = 0; v < vectors; v++) sum[p][v][0] = sum[p][v][1] = start;
        }
        for (int f = 0; f < PGI_GROUP_COLUMNS / 4; f += 2) {
            uint8x16_t block[4][2];
            UNROLL for (int v = 0; v < vectors; v++) {
                const char *at = w + 64 + 64 * f + 16 * (first + v);
                const uint32x4_t a = q_words(at), b = q_words(at + 64);
                block[v][0] = vreinterpretq_u8_u32(vzip1q_u32(a, b));
                block[v][1] = vreinterpretq_u8_u32(vzip2q_u32(a, b));
            }
            UNROLL for (int p = 0; p < pairs; p++) {
                const char *at = x + 4 * (m * f + i0 + p / 2 * 4);
                const uint32x4_t a = q_words(at), b = q_words(at + 4 * m);
                const int8x16_t eights = vreinterpretq_s8_u32(p % 2 ? vzip2q_u32(a, b) : vzip1q_u32(a, b));
                UNROLL for (int v = 0; v < vectors; v++) UNROLL for (int h = 0; h < 2; h++) sum[p][v][h] =
                    vusmmlaq_s32(sum[p][v][h], block[v][h], eights);
            }
        }
        UNROLL for (int v = 0; v < vectors; v++) {
            const qfloat scale = q_load_f32(w + 16 * (first + v));
            UNROLL for (int i = 0; i < rows; i++) {
                const int32x4_t a = sum[i / 2][v][0], b = sum[i / 2][v][1];
                q_add_group(i % 2 ? vuzp2q_s32(a, b) : vuzp1q_s32(a, b), scale,
                            x + m * PGI_GROUP_COLUMNS + 4 * (i0 + i), c + (i0 + i) * PGI_PANEL_ROWS + 4 * (first + v));
            }
        }
    }
}

static ALWAYS_INLINE void group_int8(const int64_t ahead, const int m, const int i0, const int rows, const int panels,
                                     const char *x, const char *w, int64_t panel_bytes, float *c) {
    (void)ahead, (void)panels, (void)panel_bytes;
    if (rows > 1)
        mmla_int8(m, i0, rows, x, w, c);
    else
        dot_int8(m, i0, rows, x, w, c);
}

#endif
