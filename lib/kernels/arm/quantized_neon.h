/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Blocks of quantized weights for simd/quantized.inc.h with what every AArch64 CPU has: products of bytes to 16 bits.
 * Two of int8 fit there, at most 2 * 128 * 127; of int4 the eight of 32 columns, at most 8 * 15 * 127.
 */
#ifndef PGI_KERNELS_ARM_QUANTIZED_NEON_H
#define PGI_KERNELS_ARM_QUANTIZED_NEON_H

#include "kernels/arm/quantized_arm.h"

enum {
    Q_TILE_ROWS = 4, /* of half a panel: 16 sums, 4 vectors of weights, 2 of x, 2 products in 32 registers */
    Q_INT8_ROWS = 4, /* that are streamed */
    Q_INT4_ROWS = 4,
    Q_SUMS = 4 * Q_TILE_ROWS /* vectors of sums at the most */
};
#define Q_PART_INT8(m) (m)
#define Q_PART_INT4(m) (m)
#define Q_EACH_TILE_ROW EACH_4
#define Q_EACH_INT8_ROW EACH_4
#define Q_EACH_INT4_ROW EACH_4

static inline int8x16_t q_four(const char *p) { return vreinterpretq_s8_s32(q_set1(p)); }

/* Rows i0 .. i0 + rows of a tile of m times a block. Each row of w has two sums: of columns 0, 1 and 2, 3 of a four. */
static ALWAYS_INLINE void group_int8(const int64_t ahead, const int m, const int i0, const int rows, const int panels,
                                     const char *x, const char *w, int64_t panel_bytes, float *c) {
    const int vectors = rows > 2 ? 2 : 4; /* of weights at a time: half a panel, or all */
    (void)ahead, (void)panels, (void)panel_bytes;
    for (int first = 0; first < 4; first += vectors) {
        int32x4_t sum[4][4][2];
        UNROLL for (int i = 0; i < rows; i++) UNROLL for (int v = 0; v < vectors; v++) sum[i][v][0] = sum[i][v][1] =
            vdupq_n_s32(0);
        for (int f = 0; f < PGI_GROUP_COLUMNS / 4; f += 2) {
            const char *at = w + 64 + 64 * f + 16 * first;
            int8x16_t w0[4], w1[4];
            UNROLL for (int v = 0; v < vectors; v++) {
                w0[v] = q_signed(q_load(at + 16 * v));
                w1[v] = q_signed(q_load(at + 64 + 16 * v));
            }
            UNROLL for (int i = 0; i < rows; i++) {
                const int8x16_t x0 = q_four(x + 4 * (m * f + i0 + i)), x1 = q_four(x + 4 * (m * (f + 1) + i0 + i));
                UNROLL for (int v = 0; v < vectors; v++) {
                    int16x8_t low = vmull_s8(vget_low_s8(w0[v]), vget_low_s8(x0)), high = vmull_high_s8(w0[v], x0);
                    low = vmlal_s8(low, vget_low_s8(w1[v]), vget_low_s8(x1));
                    high = vmlal_high_s8(high, w1[v], x1);
                    sum[i][v][0] = vpadalq_s16(sum[i][v][0], low);
                    sum[i][v][1] = vpadalq_s16(sum[i][v][1], high);
                }
            }
        }
        UNROLL for (int v = 0; v < vectors; v++) {
            const qfloat scale = q_load_f32(w + 16 * (first + v));
            UNROLL for (int i = 0; i < rows; i++)
                q_add_group(vpaddq_s32(sum[i][v][0], sum[i][v][1]), scale, x + m * PGI_GROUP_COLUMNS + 4 * (i0 + i),
                            c + (i0 + i) * PGI_PANEL_ROWS + 4 * (first + v));
        }
    }
}

/* group_int8() with an int4 block. */
static ALWAYS_INLINE void group_int4(const int64_t ahead, const int m, const int i0, const int rows, const int panels,
                                     const char *x, const char *w, int64_t panel_bytes, float *c) {
    uint8x16_t factors[4];
    (void)ahead, (void)panels, (void)panel_bytes;
    UNROLL for (int s = 0; s < 4; s++) factors[s] = q_load_factors(w + 32 + 8 * s);
    for (int v = 0; v < 4; v++) {
        int32x4_t total[4];
        UNROLL for (int i = 0; i < rows; i++) total[i] = vdupq_n_s32(0);
        UNROLL for (int s = 0; s < 4; s++) {
            int16x8_t low[4], high[4]; /* sums of rows 0, 1 and 2, 3 of the four */
            UNROLL for (int i = 0; i < rows; i++) low[i] = high[i] = vdupq_n_s16(0);
            for (int e = 4 * s; e < 4 * s + 4; e++) {
                const uint8x16_t both = q_load(w + 64 + 64 * e + 16 * v);
                const int8x16_t w0 = q_low_nibbles(both), w1 = q_high_nibbles(both);
                UNROLL for (int i = 0; i < rows; i++) {
                    const int8x16_t x0 = q_four(x + 4 * (m * 2 * e + i0 + i));
                    const int8x16_t x1 = q_four(x + 4 * (m * (2 * e + 1) + i0 + i));
                    low[i] = vmlal_s8(low[i], vget_low_s8(w0), vget_low_s8(x0));
                    high[i] = vmlal_high_s8(high[i], w0, x0);
                    low[i] = vmlal_s8(low[i], vget_low_s8(w1), vget_low_s8(x1));
                    high[i] = vmlal_high_s8(high[i], w1, x1);
                }
            }
            const char *start = x + m * (PGI_GROUP_COLUMNS + 8 + 4 * s) + 4 * i0;
            UNROLL for (int i = 0; i < rows; i++) {
                const int32x4_t sum = vpaddq_s32(vpaddlq_s16(low[i]), vpaddlq_s16(high[i]));
                total[i] = vmlaq_s32(total[i], vaddq_s32(sum, q_set1(start + 4 * i)), q_factors(factors[s], v));
            }
        }
        const qfloat scale = q_load_bf16(w + 8 * v);
        UNROLL for (int i = 0; i < rows; i++) q_add_group(total[i], scale, x + m * PGI_GROUP_COLUMNS + 4 * (i0 + i),
                                                          c + (i0 + i) * PGI_PANEL_ROWS + 4 * v);
    }
}

#endif
