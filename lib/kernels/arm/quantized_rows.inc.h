/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The group `quantized_rows` of kernels.inc for NEON: quantizes activations, and unpacks int4 blocks to int8 blocks. */
#include <arm_neon.h>
#include <math.h>
#include <string.h>

#include "kernels/arm/quantized_arm.h"
#include "kernels/kernels.h"
#include "kernels/quantized.h"

/* 128 values of row i. */
static inline void quantize_row(const float *x, int m, int i, char *block) {
    const uint32x4_t no_sign = vdupq_n_u32(0x7FFFFFFF);
    uint32x4_t all[4] = {vdupq_n_u32(0), vdupq_n_u32(0), vdupq_n_u32(0), vdupq_n_u32(0)};
    for (int j = 0; j < PGI_GROUP_COLUMNS; j += 16)
        for (int v = 0; v < 4; v++)
            all[v] = vmaxq_u32(all[v], vandq_u32(vreinterpretq_u32_f32(vld1q_f32(x + j + 4 * v)), no_sign));
    const uint32_t largest = vmaxvq_u32(vmaxq_u32(vmaxq_u32(all[0], all[1]), vmaxq_u32(all[2], all[3])));
    float max, factor = 0, scale = 0;
    memcpy(&max, &largest, sizeof max);
    if (largest >= 0x7F800000) /* an infinity or a NaN */
        scale = NAN;
    else if (max >= 0x1p-100f)
        factor = 127 / max, scale = max / 127;

    int32_t sum = 0;
    for (int s = 0; s < PGI_GROUP_COLUMNS / PGI_SUB_COLUMNS; s++) {
        int32x4_t sub = vdupq_n_s32(0);
        char *out = block + ((int64_t)8 * s * m + i) * 4;
        for (int f = 0; f < 8; f += 4) {
            int16x8_t half[2];
            for (int h = 0; h < 2; h++) {
                int32x4_t q[2];
                for (int v = 0; v < 2; v++) {
                    const float32x4_t values = vld1q_f32(x + 32 * s + 4 * f + 8 * h + 4 * v);
                    q[v] = factor == 0 ? vdupq_n_s32(0) : vcvtnq_s32_f32(vmulq_n_f32(values, factor));
                    sub = vaddq_s32(sub, q[v]);
                }
                half[h] = vcombine_s16(vmovn_s32(q[0]), vmovn_s32(q[1]));
            }
            const int8x16_t bytes = vcombine_s8(vmovn_s16(half[0]), vmovn_s16(half[1]));
            if (m == 1) {
                vst1q_s8((int8_t *)out + 4 * f, bytes);
            } else {
                int32_t fours[4];
                vst1q_s32(fours, vreinterpretq_s32_s8(bytes));
                for (int j = 0; j < 4; j++) memcpy(out + (int64_t)(f + j) * m * 4, &fours[j], 4);
            }
        }
        int32_t sub_sum = vaddvq_s32(sub);
        sum += sub_sum;
        sub_sum *= -8;
        memcpy(block + (int64_t)m * (PGI_GROUP_COLUMNS + 8 + 4 * s) + 4 * i, &sub_sum, 4);
    }
    sum *= -128;
    memcpy(block + (int64_t)m * PGI_GROUP_COLUMNS + 4 * i, &scale, 4);
    memcpy(block + (int64_t)m * (PGI_GROUP_COLUMNS + 4) + 4 * i, &sum, 4);
}

/* 128 values of each row. */
static void quantize_group(const float *x, int64_t x_stride, int rows, int m, char *block) {
    for (int i = 0; i < rows; i++) quantize_row(x + i * x_stride, m, i, block);
}

/* sub * (n - 8) + 128 of each byte. */
static void unpack_int4(const void *blocks, int64_t n, void *int8_blocks) {
    static const uint8_t rows_of_four[16] = {0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3};
    const uint8x16_t each = vld1q_u8(rows_of_four);
    const char *in = blocks;
    uint8_t *out = int8_blocks;
    for (; n > 0; n--, in += PGI_INT4_BLOCK, out += PGI_INT8_BLOCK) {
        for (int v = 0; v < 4; v++) vst1q_u8(out + 16 * v, vreinterpretq_u8_f32(q_load_bf16(in + 8 * v)));
        for (int s = 0; s < PGI_GROUP_COLUMNS / PGI_SUB_COLUMNS; s++) {
            const uint8x16_t all = q_load_factors(in + 2 * PGI_PANEL_ROWS + 8 * s);
            for (int v = 0; v < 4; v++) {
                const uint8x16_t sub = vqtbl1q_u8(all, vaddq_u8(each, vdupq_n_u8((uint8_t)(4 * v))));
                const uint8x16_t start = vsubq_u8(vdupq_n_u8(128), vshlq_n_u8(sub, 3));
                for (int e = 4 * s; e < 4 * s + 4; e++) {
                    const uint8x16_t both = q_load(in + 64 + 64 * e + 16 * v);
                    uint8_t *to = out + 64 + 128 * e + 16 * v;
                    vst1q_u8(to, vmlaq_u8(start, vandq_u8(both, vdupq_n_u8(15)), sub));
                    vst1q_u8(to + 64, vmlaq_u8(start, vshrq_n_u8(both, 4), sub));
                }
            }
        }
    }
}

#include "kernels/simd/quantize_rows.inc.h"
