/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Matrix products in plain C, and the expansion of weights to f32 that they begin with. */
#include "kernels/ref/ref.h"

#include <string.h>

#include "base/float16.h"

enum { MR = 4, NR = 8 };

static inline float load_f32(const void *w, int64_t i) { return pgi_load_f32((const char *)w + 4 * i); }
static inline float load_bf16(const void *w, int64_t i) {
    return pgi_f32_from_bf16(pgi_load_u16((const char *)w + 2 * i));
}
static inline float load_f16(const void *w, int64_t i) {
    return pgi_f32_from_f16(pgi_load_u16((const char *)w + 2 * i));
}

/* The kernels that read weights, once for each dtype. Sums of gemv go to eight lanes, as in a vector of eight. */
#define DEFINE_FOR_DTYPE(dtype)                                                                                        \
    static void expand_##dtype(const void *w, int64_t n, float scale, float *out) {                                    \
        for (int64_t i = 0; i < n; i++) out[i] = load_##dtype(w, i) * scale;                                           \
    }                                                                                                                  \
    static void pack_##dtype(const void *w, int64_t w_bytes, int rows, int64_t k, float *panel) {                      \
        for (int64_t i = 0; i < k; i++)                                                                                \
            for (int r = 0; r < NR; r++)                                                                               \
                panel[i * NR + r] = r < rows ? load_##dtype((const char *)w + r * w_bytes, i) : 0;                     \
    }                                                                                                                  \
    static void gemv_x_##dtype(int m, int64_t k, const float *x, int64_t x_stride, float *out) {                       \
        for (int i = 0; i < m; i++) memcpy(out + i * k, x + i * x_stride, (size_t)k * sizeof *out);                    \
    }                                                                                                                  \
    static void gemv_##dtype(int m, int64_t rows, int64_t k, const float *x, const void *w, int64_t w_bytes,           \
                             const float *bias, float *y, int64_t y_stride) {                                          \
        for (int64_t r = 0; r < rows; r++) {                                                                           \
            const char *row = (const char *)w + r * w_bytes;                                                           \
            for (int i = 0; i < m; i++) {                                                                              \
                const float *xi = x + i * k;                                                                           \
                float lane[8] = {0};                                                                                   \
                int64_t l = 0;                                                                                         \
                for (; l + 8 <= k; l += 8)                                                                             \
                    for (int j = 0; j < 8; j++) lane[j] += xi[l + j] * load_##dtype(row, l + j);                       \
                for (; l < k; l++) lane[l & 7] += xi[l] * load_##dtype(row, l);                                        \
                float sum = ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7])); \
                y[i * y_stride + r] = bias ? sum + bias[r] : sum;                                                      \
            }                                                                                                          \
        }                                                                                                              \
    }                                                                                                                  \
    static void gemv_one_stream_##dtype(int m, int64_t rows, int64_t k, const float *x, const void *w,                 \
                                        int64_t w_bytes, const float *bias, float *y, int64_t y_stride) {              \
        gemv_##dtype(m, rows, k, x, w, w_bytes, bias, y, y_stride);                                                    \
    }

DEFINE_FOR_DTYPE(f32)
DEFINE_FOR_DTYPE(bf16)
DEFINE_FOR_DTYPE(f16)

static void gemm(int m, int n, int64_t k, const float *a, const float *panel, float *c, int64_t c_stride,
                 int accumulate, const float *bias) {
    float sum[MR][NR] = {{0}};
    if (m == MR) {
        for (int64_t l = 0; l < k; l++)
            for (int i = 0; i < MR; i++)
                for (int j = 0; j < NR; j++) sum[i][j] += a[i * PGI_GEMM_LDA + l] * panel[l * NR + j];
    } else {
        for (int i = 0; i < m; i++)
            for (int64_t l = 0; l < k; l++)
                for (int j = 0; j < NR; j++) sum[i][j] += a[i * PGI_GEMM_LDA + l] * panel[l * NR + j];
    }
    for (int i = 0; i < m; i++) {
        for (int j = 0; j < n; j++) {
            float *out = &c[i * c_stride + j];
            *out = sum[i][j] + (accumulate ? *out : bias ? bias[j] : 0);
        }
    }
}

#define DEFINE_WEIGHTED_SUM(name, type, load)                                                             \
    static void name(int64_t n, int64_t d, const float *p, const type *v, int64_t v_stride, float *out) { \
        for (int64_t i = 0; i < d; i++) out[i] = 0;                                                       \
        for (int64_t j = 0; j < n; j++)                                                                   \
            for (int64_t i = 0; i < d; i++) out[i] += p[j] * load(v + j * v_stride, i);                   \
    }
DEFINE_WEIGHTED_SUM(weighted_sum, float, load_f32)
DEFINE_WEIGHTED_SUM(weighted_sum_bf16, uint16_t, load_bf16)

void pgi_ref_products(pgi_kernels *kernels) {
    kernels->gemm_mr = MR;
    kernels->gemm_nr = NR;
#define K(type, name, parameters) kernels->name = name;
#include "kernels/lists/products.inc"
#undef K
}
