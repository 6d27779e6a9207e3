/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * What the three ways of multiplying quantized blocks on ARM share: quantized_neon.h, quantized_dot.h,
 * quantized_mmla.h. Each defines group_int8() and group_int4(), which simd/quantized.inc.h calls for a block of one
 * panel. Rows of x are factors by lane: a vector has the fours of columns of four rows. It may be read beyond the last
 * row of a tile, never beyond the block of activations, where at least 24 bytes follow the values.
 */
#ifndef PGI_KERNELS_ARM_QUANTIZED_ARM_H
#define PGI_KERNELS_ARM_QUANTIZED_ARM_H

#include <arm_neon.h>
#include <stdint.h>
#include <string.h>

#include "kernels/quantized.h"
#include "kernels/simd/unroll.h"

#define Q_OWN_GROUPS
enum { Q_LANES = 4, Q_TILE_PANELS = 1 };
#define Q_STREAM_PANELS(m) 1 /* one stream, which every hardware prefetcher follows */

typedef float32x4_t qfloat;
static inline qfloat q_load_f32(const void *p) { return vreinterpretq_f32_u8(vld1q_u8(p)); }
static inline void q_store_f32(float *p, qfloat x) { vst1q_f32(p, x); }

static inline uint8x16_t q_load(const char *p) { return vld1q_u8((const uint8_t *)p); }
static inline int32x4_t q_set1(const char *p) {
    int32_t word;
    memcpy(&word, p, sizeof word);
    return vdupq_n_s32(word);
}
/* Weights without their excess of 128. */
static inline int8x16_t q_signed(uint8x16_t w) { return vreinterpretq_s8_u8(veorq_u8(w, vdupq_n_u8(0x80))); }
static inline int8x16_t q_low_nibbles(uint8x16_t w) { return vreinterpretq_s8_u8(vandq_u8(w, vdupq_n_u8(15))); }
static inline int8x16_t q_high_nibbles(uint8x16_t w) { return vreinterpretq_s8_u8(vshrq_n_u8(w, 4)); }

/* The factors of 16 rows and 32 columns: 16 nibbles to bytes. */
static inline uint8x16_t q_load_factors(const char *p) {
    const uint8x8_t x = vld1_u8((const uint8_t *)p), low = vand_u8(x, vdup_n_u8(15)), high = vshr_n_u8(x, 4);
    return vcombine_u8(vzip1_u8(low, high), vzip2_u8(low, high));
}
/* Four of them, of rows 4 v on, as words. */
static inline int32x4_t q_factors(uint8x16_t all, int v) {
    const uint8x16_t lanes = vreinterpretq_u8_u32(
        vaddq_u32(vdupq_n_u32((uint32_t)(4 * v)),
                  vcombine_u32(vcreate_u32(UINT64_C(0xFFFFFF01FFFFFF00)), vcreate_u32(UINT64_C(0xFFFFFF03FFFFFF02)))));
    return vreinterpretq_s32_u8(vqtbl1q_u8(all, lanes)); /* an index out of range gives 0 */
}
static inline qfloat q_load_bf16(const char *p) {
    return vreinterpretq_f32_u32(vshll_n_u16(vreinterpret_u16_u8(vld1_u8((const uint8_t *)p)), 16));
}

/* c += sums of a group * (scale of w * scale of x), of four outputs. */
static inline void q_add_group(int32x4_t sum, qfloat scale, const char *x, float *c) {
    float factor;
    memcpy(&factor, x, sizeof factor);
    vst1q_f32(c, vfmaq_f32(vld1q_f32(c), vcvtq_f32_s32(sum), vmulq_n_f32(scale, factor)));
}

#endif
