/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The group `resample` for NEON: exact integers, so the same bits as plain C. */
#include <arm_neon.h>
#include <string.h>

#include "kernels/kernels.h"
#include "kernels/resample.h"

enum {
    TAPS = 4,  /* pixels of a step */
    STEP = 16, /* bytes that it reads, of which it uses 12 */
    ROWS = 4   /* rows that share the loads of weights */
};

/* Output x of `rows` <= ROWS rows, the inputs `stride` bytes apart: a pixel's channels in the words of a vector, by its
 * weight. */
static inline __attribute__((always_inline)) void columns_of(const int rows, const pgi_resample *c, int32_t x,
                                                             const uint8_t *in, int64_t stride, uint8_t *out) {
    static const uint8_t words[TAPS][16] = {
        {0, 255, 255, 255, 1, 255, 255, 255, 2, 255, 255, 255, 255, 255, 255, 255},
        {3, 255, 255, 255, 4, 255, 255, 255, 5, 255, 255, 255, 255, 255, 255, 255},
        {6, 255, 255, 255, 7, 255, 255, 255, 8, 255, 255, 255, 255, 255, 255, 255},
        {9, 255, 255, 255, 10, 255, 255, 255, 11, 255, 255, 255, 255, 255, 255, 255},
    };
    const int32_t *weights = c->weights + (int64_t)x * c->n_max, n = c->n[x];
    const uint8_t *p = in + (int64_t)c->first[x] * 3;
    int32x4_t sum[ROWS];
    for (int r = 0; r < rows; r++) sum[r] = vdupq_n_s32(PGI_RESAMPLE_HALF);
    for (int32_t k = 0; k < n; k += TAPS, p += TAPS * 3) {
        int32_t w[TAPS] = {0};
        memcpy(w, weights + k, sizeof(int32_t) * (size_t)(n - k < TAPS ? n - k : TAPS));
        for (int r = 0; r < rows; r++) {
            const uint8x16_t pixels = vld1q_u8(p + r * stride);
            for (int t = 0; t < TAPS; t++) {
                const uint8x16_t pixel = vqtbl1q_u8(pixels, vld1q_u8(words[t]));
                sum[r] = vmlaq_n_s32(sum[r], vreinterpretq_s32_u8(pixel), w[t]);
            }
        }
    }
    for (int r = 0; r < rows; r++) {
        const uint16x4_t half = vqmovun_s32(vshrq_n_s32(sum[r], PGI_RESAMPLE_BITS));
        const uint32_t rgb = vget_lane_u32(vreinterpret_u32_u8(vqmovn_u16(vcombine_u16(half, half))), 0);
        memcpy(out + ((int64_t)r * c->n_out + x) * 3, &rgb, 3);
    }
}

static void resample_columns(const pgi_resample *c, const uint8_t *in, int64_t stride, int64_t width, int64_t rows,
                             uint8_t *out) {
    for (int64_t y = 0; y < rows;) {
        const int block = rows - y >= ROWS ? ROWS : 1;
        for (int32_t x = 0; x < c->n_out; x++) {
            const int64_t end = c->first[x] + (int64_t)(c->n[x] + TAPS - 1) / TAPS * TAPS;
            if (end * 3 + STEP - TAPS * 3 > width * 3) /* a step would read behind the row */
                for (int r = 0; r < block; r++)
                    pgi_resample_pixel(c, x, in + r * stride, out + ((int64_t)r * c->n_out + x) * 3);
            else if (block == ROWS)
                columns_of(ROWS, c, x, in, stride, out);
            else
                columns_of(1, c, x, in, stride, out);
        }
        y += block;
        in += block * stride;
        out += (int64_t)block * c->n_out * 3;
    }
}

/* 16 samples of up to `rows` rows, each by its weight. */
static inline __attribute__((always_inline)) void add_rows(const int rows, const int32_t *weights, const uint8_t *in,
                                                           int64_t stride, int32_t *sums) {
    int32x4_t sum[4];
    for (int v = 0; v < 4; v++) sum[v] = vld1q_s32(sums + 4 * v);
    for (int r = 0; r < rows; r++) {
        const uint8x16_t x = vld1q_u8(in + r * stride);
        const uint16x8_t low = vmovl_u8(vget_low_u8(x)), high = vmovl_high_u8(x);
        const int32x4_t wide[4] = {
            vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(low))), vreinterpretq_s32_u32(vmovl_high_u16(low)),
            vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(high))), vreinterpretq_s32_u32(vmovl_high_u16(high))};
        for (int v = 0; v < 4; v++) sum[v] = vmlaq_n_s32(sum[v], wide[v], weights[r]);
    }
    for (int v = 0; v < 4; v++) vst1q_s32(sums + 4 * v, sum[v]);
}

/* Some rows of a long part at a time: an output row of a tall image is made of thousands, whose pages and lines the
 * caches would forget from one short part to the next. */
static void resample_row(const int32_t *weights, int32_t n, const uint8_t *in, int64_t stride, int64_t line,
                         uint8_t *out) {
    enum { PART = 1024, SUMMED = 8, GROUP = 16 };
    int32_t sums[PART];
    int64_t i = 0, size;
    for (; line - i >= GROUP; i += size) {
        size = line - i < PART ? (line - i) / GROUP * GROUP : PART;
        for (int64_t j = 0; j < size; j++) sums[j] = PGI_RESAMPLE_HALF;
        int32_t k = 0;
        for (; k + SUMMED <= n; k += SUMMED)
            for (int64_t j = 0; j < size; j += GROUP)
                add_rows(SUMMED, weights + k, in + k * stride + i + j, stride, sums + j);
        for (; k < n; k++)
            for (int64_t j = 0; j < size; j += GROUP)
                add_rows(1, weights + k, in + k * stride + i + j, stride, sums + j);
        for (int64_t j = 0; j < size; j += GROUP) {
            uint16x4_t part[4];
            for (int v = 0; v < 4; v++)
                part[v] = vqmovun_s32(vshrq_n_s32(vld1q_s32(sums + j + 4 * v), PGI_RESAMPLE_BITS));
            vst1q_u8(out + i + j, vcombine_u8(vqmovn_u16(vcombine_u16(part[0], part[1])),
                                              vqmovn_u16(vcombine_u16(part[2], part[3]))));
        }
    }
    for (; i < line; i++) {
        int32_t sum = PGI_RESAMPLE_HALF;
        for (int32_t k = 0; k < n; k++) sum += in[k * stride + i] * weights[k];
        out[i] = pgi_resample_clip(sum);
    }
}

static void set_resample(pgi_kernels *kernels) {
#define K(type, name, parameters) kernels->name = name;
#include "kernels/lists/resample.inc"
#undef K
}
