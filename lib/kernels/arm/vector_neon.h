/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Vectors of 4 floats for the templates of simd/: what every AArch64 CPU has. */
#ifndef PGI_KERNELS_ARM_VECTOR_NEON_H
#define PGI_KERNELS_ARM_VECTOR_NEON_H

#include <arm_neon.h>
#include <stdint.h>
#include <string.h>

enum { LANES = 4, GEMM_MR = 8 };
#define GEMM_STEPS 4

/* A streamed product of m rows of x, as x86/vector_avx2.h has it: 16 to 24 sums. Nothing is fetched ahead: a step reads
 * 16 or 32 bytes of a row, so that it would be as many instructions as the loads. */
#define GEMV_TURNS(m, k) 0
#define GEMV_W(m, way) ((m) == 1 ? 8 : (m) == 2 ? 4 : 3)
#define GEMV_W_MAX 8
#define GEMV_AHEAD(m, way) 0
#define GEMV_REGISTER "w" /* the constraint of a vector register */

typedef float32x4_t vec;
typedef uint32x4_t ivec;

static inline vec v_zero(void) { return vdupq_n_f32(0); }
static inline vec v_set1(float x) { return vdupq_n_f32(x); }
static inline vec v_load(const float *p) { return vld1q_f32(p); }
static inline void v_store(float *p, vec x) { vst1q_f32(p, x); }
/* The first n < LANES values, the others 0; nothing behind them is touched. */
static inline vec v_load_n(const float *p, int64_t n) {
    float x[LANES] = {0};
    memcpy(x, p, (size_t)n * sizeof *x);
    return vld1q_f32(x);
}
static inline void v_store_n(float *p, vec x, int64_t n) {
    float all[LANES];
    vst1q_f32(all, x);
    memcpy(p, all, (size_t)n * sizeof *p);
}

static inline vec v_add(vec a, vec b) { return vaddq_f32(a, b); }
static inline vec v_sub(vec a, vec b) { return vsubq_f32(a, b); }
static inline vec v_mul(vec a, vec b) { return vmulq_f32(a, b); }
static inline vec v_div(vec a, vec b) { return vdivq_f32(a, b); }
static inline vec v_fma(vec a, vec b, vec c) { return vfmaq_f32(c, a, b); }            /* a b + c */
static inline vec v_fnma(vec a, vec b, vec c) { return vfmsq_f32(c, a, b); }           /* c - a b */
static inline vec v_fms(vec a, vec b, vec c) { return vnegq_f32(vfmsq_f32(c, a, b)); } /* a b - c */
/* a b + c, b one lane; written out because a lane has to be a literal number. */
static inline vec v_fma_lane(vec a, vec b, const int lane, vec c) {
    return lane == 0   ? vfmaq_laneq_f32(c, a, b, 0)
           : lane == 1 ? vfmaq_laneq_f32(c, a, b, 1)
           : lane == 2 ? vfmaq_laneq_f32(c, a, b, 2)
                       : vfmaq_laneq_f32(c, a, b, 3);
}
/* NaN when one is NaN. */
static inline vec v_min(vec a, vec b) { return vminq_f32(a, b); }
static inline vec v_max(vec a, vec b) { return vmaxq_f32(a, b); }
static inline vec v_abs(vec x) { return vabsq_f32(x); }
static inline vec v_copysign(vec magnitude, vec sign) { return vbslq_f32(vdupq_n_u32(0x80000000u), sign, magnitude); }
static inline vec v_if_negative(vec x, vec then, vec otherwise) { return vbslq_f32(vcltzq_f32(x), then, otherwise); }
static inline vec v_round(vec x) { return vrndnq_f32(x); }
/* x 2^n for a whole n, |n| <= 252; in two factors, for 2^n alone may be out of range. */
static inline vec v_scale(vec x, vec n) {
    const int32x4_t whole = vcvtq_s32_f32(n), half = vshrq_n_s32(whole, 1), rest = vsubq_s32(whole, half);
    const int32x4_t bias = vdupq_n_s32(127);
    const vec a = vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(half, bias), 23));
    const vec b = vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(rest, bias), 23));
    return vmulq_f32(vmulq_f32(x, a), b);
}

static inline float v_sum(vec x) { /* lanes that are half a vector apart first, as stream.inc.h asks */
    return vaddv_f32(vadd_f32(vget_low_f32(x), vget_high_f32(x)));
}
static inline float v_largest(vec x) { return vmaxvq_f32(x); }

/* Weights of any alignment to f32. */
static inline vec v_load_f32(const void *p) { return vreinterpretq_f32_u8(vld1q_u8(p)); }
static inline vec v_load_f32_n(const void *p, int64_t n) {
    vec x = v_zero();
    memcpy(&x, p, (size_t)n * 4);
    return x;
}
static inline uint16x4_t load_halves(const void *p) { return vreinterpret_u16_u8(vld1_u8(p)); }
static inline uint16x4_t load_halves_n(const void *p, int64_t n) {
    uint16x4_t x = vdup_n_u16(0);
    memcpy(&x, p, (size_t)n * 2);
    return x;
}
static inline vec v_from_bf16(uint16x4_t x) { return vreinterpretq_f32_u32(vshll_n_u16(x, 16)); }
static inline vec v_from_f16(uint16x4_t x) { return vcvt_f32_f16(vreinterpret_f16_u16(x)); }
static inline vec v_load_bf16(const void *p) { return v_from_bf16(load_halves(p)); }
static inline vec v_load_bf16_n(const void *p, int64_t n) { return v_from_bf16(load_halves_n(p, n)); }
static inline vec v_load_f16(const void *p) { return v_from_f16(load_halves(p)); }
static inline vec v_load_f16_n(const void *p, int64_t n) { return v_from_f16(load_halves_n(p, n)); }

/* Words of 32 bits; the first n < 2 LANES half words, the others 0. */
static inline ivec i_zero(void) { return vdupq_n_u32(0); }
static inline ivec i_load(const void *p) { return vreinterpretq_u32_u8(vld1q_u8(p)); }
static inline ivec i_load_halves(const void *p, int64_t n) {
    ivec x = vdupq_n_u32(0);
    memcpy(&x, p, (size_t)n * 2);
    return x;
}
static inline ivec i_from_v(vec x) { return vreinterpretq_u32_f32(x); }
static inline vec v_from_i(ivec x) { return vreinterpretq_f32_u32(x); }
/* bf16 in the low and in the high half of each word, as f32. */
static inline vec v_low_bf16(ivec x) { return vreinterpretq_f32_u32(vshlq_n_u32(x, 16)); }
static inline vec v_high_bf16(ivec x) { return vreinterpretq_f32_u32(vandq_u32(x, vdupq_n_u32(0xFFFF0000u))); }

/* r[i][j] <-> r[j][i]. */
static inline void i_transpose(ivec r[4]) {
    const uint64x2_t a = vreinterpretq_u64_u32(vtrn1q_u32(r[0], r[1]));
    const uint64x2_t b = vreinterpretq_u64_u32(vtrn2q_u32(r[0], r[1]));
    const uint64x2_t c = vreinterpretq_u64_u32(vtrn1q_u32(r[2], r[3]));
    const uint64x2_t d = vreinterpretq_u64_u32(vtrn2q_u32(r[2], r[3]));
    r[0] = vreinterpretq_u32_u64(vtrn1q_u64(a, c));
    r[1] = vreinterpretq_u32_u64(vtrn1q_u64(b, d));
    r[2] = vreinterpretq_u32_u64(vtrn2q_u64(a, c));
    r[3] = vreinterpretq_u32_u64(vtrn2q_u64(b, d));
}

#endif
