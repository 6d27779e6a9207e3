/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The group bf16 for FEAT_BF16: tiles of 12 x 8. bfmmla multiplies 2 x 4 by 4 x 2 values; a row of such a factor is two
 * pairs of one column. It rounds to odd where others round to nearest, and takes subnormal values for 0.
 */
#include "kernels/arm/vector_neon.h"
#include "kernels/kernels.h"
#include "kernels/simd/unroll.h"

enum { MR = 12, NR = 2 * LANES };

/* A subnormal value becomes 0 of its sign, which bfcvtn leaves alone. */
static inline vec v_normal(vec x) {
    const uint32x4_t subnormal = vcltq_f32(vabsq_f32(x), vdupq_n_f32(0x1p-126f));
    return vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(x), vandq_u32(subnormal, vdupq_n_u32(0x7FFFFFFF))));
}
static inline ivec i_round(vec low, vec high) {
    const bfloat16x8_t half = vcvtq_low_bf16_f32(v_normal(low));
    return vreinterpretq_u32_bf16(vcvtq_high_bf16_f32(half, v_normal(high)));
}
static inline ivec i_pairs(vec a, vec b) {
    const uint16x8_t both = vreinterpretq_u16_u32(i_round(a, b));
    return vreinterpretq_u32_u16(vzip1q_u16(both, vextq_u16(both, both, 4)));
}
static inline void i_store(uint16_t *p, ivec x) { vst1q_u16(p, vreinterpretq_u16_u32(x)); }
static inline void i_store_halves(uint16_t *p, ivec x, int64_t n) { memcpy(p, &x, (size_t)n * sizeof *p); }
static inline vec v_first(vec x, int64_t n) {
    static const int32_t lanes[LANES] = {0, 1, 2, 3};
    const uint32x4_t there = vcltq_s32(vld1q_s32(lanes), vdupq_n_s32((int32_t)n));
    return vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(x), there));
}
static inline vec v_fraction(vec *t) {
    const vec within = v_max(v_min(*t, v_set1(200.0f)), v_set1(-200.0f));
    *t = vrndmq_f32(within);
    return v_sub(within, *t);
}

static ALWAYS_INLINE vec add_products(vec sum, uint32x4_t a, uint32x4_t b) {
    return vbfmmlaq_f32(sum, vreinterpretq_bf16_u32(a), vreinterpretq_bf16_u32(b));
}

/* Four values of rows i and i + 1; the first again where there is no second. */
static ALWAYS_INLINE uint32x4_t two_rows(const uint16_t *a, const int i, const int m) {
    const uint16_t *first = a + i * PGI_GEMM_BF16_LDA, *second = i + 1 < m ? first + PGI_GEMM_BF16_LDA : first;
    return vreinterpretq_u32_u16(vcombine_u16(vld1_u16(first), vld1_u16(second)));
}

/* Columns 0, 1; 2, 3; 4, 5; 6, 7 of two lines of a panel, or of one and zeros. */
static ALWAYS_INLINE void two_lines(const uint16_t *panel, const int both, uint32x4_t b[NR / 2]) {
    UNROLL for (int v = 0; v < 2; v++) {
        const uint32x4_t first = i_load(panel + 8 * v), second = both ? i_load(panel + 2 * NR + 8 * v) : i_zero();
        b[2 * v] = vzip1q_u32(first, second);
        b[2 * v + 1] = vzip2q_u32(first, second);
    }
}

/* sum[p][h]: rows 2 p and 2 p + 1 beside columns 2 h and 2 h + 1. */
static ALWAYS_INLINE void gemm_tile(const int m, int n, int64_t k, const uint16_t *a, const uint16_t *panel, float *c,
                                    int64_t c_stride, int accumulate, const float *bias) {
    const int pairs = (m + 1) / 2;
    vec sum[MR / 2][NR / 2];
    UNROLL for (int p = 0; p < pairs; p++) UNROLL for (int h = 0; h < NR / 2; h++) sum[p][h] = v_zero();
    int64_t l = 0;
    for (; l + 4 <= k; l += 4, a += 4, panel += 4 * NR) {
        uint32x4_t b[NR / 2];
        two_lines(panel, 1, b);
        UNROLL for (int p = 0; p < pairs; p++) {
            const uint32x4_t x = two_rows(a, 2 * p, m);
            UNROLL for (int h = 0; h < NR / 2; h++) sum[p][h] = add_products(sum[p][h], x, b[h]);
        }
    }
    if (l < k) { /* up to three more: zeros for what is not there */
        const int rest = (int)(k - l);
        uint32x4_t b[NR / 2];
        two_lines(panel, rest > 2, b);
        UNROLL for (int p = 0; p < pairs; p++) {
            uint16_t x[8] = {0};
            memcpy(x, a + 2 * p * PGI_GEMM_BF16_LDA, (size_t)rest * sizeof *x);
            if (2 * p + 1 < m) memcpy(x + 4, a + (2 * p + 1) * PGI_GEMM_BF16_LDA, (size_t)rest * sizeof *x);
            UNROLL for (int h = 0; h < NR / 2; h++) sum[p][h] = add_products(sum[p][h], i_load(x), b[h]);
        }
    }
    for (int v = 0; v < 2 && v * LANES < n; v++) {
        const int here = n - v * LANES;
        vec start = v_zero();
        if (!accumulate && bias) start = here >= LANES ? v_load(bias + v * LANES) : v_load_n(bias + v * LANES, here);
        UNROLL for (int i = 0; i < m; i++) {
            const vec low = sum[i / 2][2 * v], high = sum[i / 2][2 * v + 1];
            const float64x2_t l2 = vreinterpretq_f64_f32(low), h2 = vreinterpretq_f64_f32(high);
            const vec row = vreinterpretq_f32_f64(i % 2 ? vzip2q_f64(l2, h2) : vzip1q_f64(l2, h2));
            float *out = c + i * c_stride + v * LANES;
            if (here >= LANES)
                v_store(out, v_add(row, accumulate ? v_load(out) : start));
            else
                v_store_n(out, v_add(row, accumulate ? v_load_n(out, here) : start), here);
        }
    }
}

/* One copy of the tile for each height, so that its sums stay in registers. */
#define GEMM_CASE(height) \
    case height: gemm_tile(height, n, k, a, panel, c, c_stride, accumulate, bias); break;

static void gemm_bf16(int m, int n, int64_t k, const uint16_t *a, const uint16_t *panel, float *c, int64_t c_stride,
                      int accumulate, const float *bias) {
    switch (m) {
        GEMM_CASE(1)
        GEMM_CASE(2)
        GEMM_CASE(3)
        GEMM_CASE(4)
        GEMM_CASE(5)
        GEMM_CASE(6)
        GEMM_CASE(7)
        GEMM_CASE(8)
        GEMM_CASE(9)
        GEMM_CASE(10)
        GEMM_CASE(11)
        GEMM_CASE(12)
        default: break;
    }
}

#include "kernels/simd/bf16.inc.h"

void pgi_kernels_neon_bf16(pgi_kernels *kernels) { set_bf16(kernels); }
