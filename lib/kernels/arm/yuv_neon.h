/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The group `yuv` for NEON: exact integers, so the same bits as plain C. */
#include <arm_neon.h>

#include "kernels/kernels.h"
#include "kernels/yuv.h"

/* The terms of four pairs. */
static inline int32x4_t terms_of(const pgi_yuv *yuv, int c, int16x4_t first, int16x4_t second) {
    int32x4_t low = vmlal_n_s16(vdupq_n_s32(yuv->start), first, yuv->low[c][0]);
    low = vmlal_n_s16(low, second, yuv->low[c][1]);
    int32x4_t high = vmlal_n_s16(vshrq_n_s32(low, PGI_YUV_LOW_BITS), first, yuv->high[c][0]);
    high = vmlal_n_s16(high, second, yuv->high[c][1]);
    return vaddq_s32(vshrq_n_s32(high, PGI_YUV_BITS - PGI_YUV_LOW_BITS), vdupq_n_s32(yuv->offset));
}

static void yuv_terms(const pgi_yuv *yuv, const uint8_t *chroma, int64_t n, int16_t *terms, int64_t stride) {
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) {
        const uint8x8x2_t bytes = vld2_u8(chroma + 2 * i);
        int16x8_t x[2];
        for (int k = 0; k < 2; k++) x[k] = vsubq_s16(vreinterpretq_s16_u16(vmovl_u8(bytes.val[k])), vdupq_n_s16(128));
        for (int c = 0; c < 3; c++) {
            const int16x8_t term = vcombine_s16(vmovn_s32(terms_of(yuv, c, vget_low_s16(x[0]), vget_low_s16(x[1]))),
                                                vmovn_s32(terms_of(yuv, c, vget_high_s16(x[0]), vget_high_s16(x[1]))));
            const int16x8x2_t twice = {{term, term}};
            vst2q_s16(terms + c * stride + 2 * i, twice);
        }
    }
    for (; i < n; i++)
        for (int c = 0; c < 3; c++) {
            const int32_t term = pgi_yuv_term(yuv, c, chroma[2 * i] - 128, chroma[2 * i + 1] - 128);
            terms[c * stride + 2 * i] = terms[c * stride + 2 * i + 1] = (int16_t)term;
        }
}

/* 8 samples of a channel. Sums that leave 16 bits are cut off, far beyond 255 or below 0. */
static inline uint8x8_t samples_of(int16x8_t scaled, const int16_t *terms) {
    const int16x8_t sum = vqaddq_s16(scaled, vld1q_s16(terms));
    /* vqdmulh doubles */
    return vqmovun_s16(vshrq_n_s16(vqdmulhq_n_s16(sum, PGI_YUV_INVERSE), PGI_YUV_INVERSE_BITS - 15));
}

static void yuv_row(const pgi_yuv *yuv, const uint8_t *y, const int16_t *terms, int64_t stride, int64_t n,
                    uint8_t *out) {
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) {
        const uint8x16_t bytes = vld1q_u8(y + i);
        const int16x8_t low = vmulq_n_s16(vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(bytes))), yuv->scale);
        const int16x8_t high = vmulq_n_s16(vreinterpretq_s16_u16(vmovl_high_u8(bytes)), yuv->scale);
        uint8x16x3_t rgb;
        for (int c = 0; c < 3; c++) {
            const int16_t *t = terms + c * stride + i;
            rgb.val[c] = vcombine_u8(samples_of(low, t), samples_of(high, t + 8));
        }
        vst3q_u8(out + 3 * i, rgb);
    }
    for (; i < n; i++)
        for (int c = 0; c < 3; c++) out[3 * i + c] = pgi_yuv_sample(yuv, y[i], terms[c * stride + i]);
}

static void set_yuv(pgi_kernels *kernels) {
#define K(type, name, parameters) kernels->name = name;
#include "kernels/lists/yuv.inc"
#undef K
}
