/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Blocks of quantized weights for simd/quantized.inc.h: dot products of fours of bytes. Before i8mm both factors have
 * to be signed: the excess of int8 weights is taken off by turning a bit, that of int4 weights by where sums start.
 */
#ifndef PGI_KERNELS_ARM_QUANTIZED_DOT_H
#define PGI_KERNELS_ARM_QUANTIZED_DOT_H

#include "kernels/arm/quantized_arm.h"

enum {
    Q_TILE_ROWS = 12, /* of half a panel: 24 sums, 2 vectors of weights, 3 of x in 32 registers */
    Q_INT8_ROWS = 12, /* that are streamed */
    Q_INT4_ROWS = 8,
    Q_SUMS = 4 * Q_TILE_ROWS /* vectors of sums at the most */
};
#define Q_PART_INT8(m) (m)
#define Q_PART_INT4(m) (m)
#define Q_EACH_TILE_ROW EACH_12
#define Q_EACH_INT8_ROW EACH_12
#define Q_EACH_INT4_ROW EACH_8

/* sum + the dot products of four fours of w and the four `lane` of x; written out because a lane has to be a literal.
 */
static ALWAYS_INLINE int32x4_t q_dot(int32x4_t sum, int8x16_t w, int8x16_t x, const int lane) {
    return lane == 0   ? vdotq_laneq_s32(sum, w, x, 0)
           : lane == 1 ? vdotq_laneq_s32(sum, w, x, 1)
           : lane == 2 ? vdotq_laneq_s32(sum, w, x, 2)
                       : vdotq_laneq_s32(sum, w, x, 3);
}
static inline int8x16_t q_fours(const char *p) { return vld1q_s8((const int8_t *)p); }

/* Rows i0 .. i0 + rows of a tile of m times a block. */
static ALWAYS_INLINE void dot_int8(const int m, const int i0, const int rows, const char *x, const char *w, float *c) {
    const int vectors = rows > 3 ? 2 : 4; /* of weights at a time: half a panel, or all */
    for (int first = 0; first < 4; first += vectors) {
        int32x4_t sum[PGI_TILE_ROWS][4];
        UNROLL for (int i = 0; i < rows; i++) UNROLL for (int v = 0; v < vectors; v++) sum[i][v] = vdupq_n_s32(0);
        for (int f = 0; f < PGI_GROUP_COLUMNS / 4; f++) {
            int8x16_t block[4], fours[PGI_TILE_ROWS / 4];
            UNROLL for (int v = 0; v < vectors; v++) block[v] = q_signed(q_load(w + 64 + 64 * f + 16 * (first + v)));
            UNROLL for (int i = 0; i < rows; i += 4) fours[i / 4] = q_fours(x + 4 * (m * f + i0 + i));
            UNROLL for (int i = 0; i < rows; i++) UNROLL for (int v = 0; v < vectors; v++) sum[i][v] =
                q_dot(sum[i][v], block[v], fours[i / 4], i % 4);
        }
        UNROLL for (int v = 0; v < vectors; v++) {
            const qfloat scale = q_load_f32(w + 16 * (first + v));
            UNROLL for (int i = 0; i < rows; i++)
                q_add_group(sum[i][v], scale, x + m * PGI_GROUP_COLUMNS + 4 * (i0 + i),
                            c + (i0 + i) * PGI_PANEL_ROWS + 4 * (first + v));
        }
    }
}

#ifndef Q_OWN_INT8
static ALWAYS_INLINE void group_int8(const int64_t ahead, const int m, const int i0, const int rows, const int panels,
                                     const char *x, const char *w, int64_t panel_bytes, float *c) {
    (void)ahead, (void)panels, (void)panel_bytes;
    dot_int8(m, i0, rows, x, w, c);
}
#endif

/* group_int8() with an int4 block. */
static ALWAYS_INLINE void group_int4(const int64_t ahead, const int m, const int i0, const int rows, const int panels,
                                     const char *x, const char *w, int64_t panel_bytes, float *c) {
    uint8x16_t factors[4];
    (void)ahead, (void)panels, (void)panel_bytes;
    UNROLL for (int s = 0; s < 4; s++) factors[s] = q_load_factors(w + 32 + 8 * s);
    for (int v = 0; v < 4; v++) {
        int32x4_t total[Q_INT4_ROWS];
        UNROLL for (int i = 0; i < rows; i++) total[i] = vdupq_n_s32(0);
        UNROLL for (int s = 0; s < 4; s++) {
            const char *start = x + m * (PGI_GROUP_COLUMNS + 8 + 4 * s) + 4 * i0;
            int32x4_t sum[Q_INT4_ROWS];
            UNROLL for (int i = 0; i < rows; i++) sum[i] = q_set1(start + 4 * i);
            UNROLL for (int e = 4 * s; e < 4 * s + 4; e++) {
                const uint8x16_t both = q_load(w + 64 + 64 * e + 16 * v);
                const int8x16_t low = q_low_nibbles(both), high = q_high_nibbles(both);
                const char *fours = x + 4 * (m * 2 * e + i0);
                UNROLL for (int i = 0; i < rows; i++) {
                    sum[i] = q_dot(sum[i], low, q_fours(fours + 16 * (i / 4)), i % 4);
                    sum[i] = q_dot(sum[i], high, q_fours(fours + 4 * m + 16 * (i / 4)), i % 4);
                }
            }
            UNROLL for (int i = 0; i < rows; i++) total[i] = vmlaq_s32(total[i], sum[i], q_factors(factors[s], v));
        }
        const qfloat scale = q_load_bf16(w + 8 * v);
        UNROLL for (int i = 0; i < rows; i++) q_add_group(total[i], scale, x + m * PGI_GROUP_COLUMNS + 4 * (i0 + i),
                                                          c + (i0 + i) * PGI_PANEL_ROWS + 4 * v);
    }
}

#endif
