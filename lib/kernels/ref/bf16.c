/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Products of bf16 summed in f32, in plain C. */
#include "kernels/ref/ref.h"

#include <math.h>

#include "base/float16.h"

enum { MR = 4, NR = 8 };

static void round_bf16(const float *x, int64_t n, float scale, uint16_t *out) {
    for (int64_t i = 0; i < n; i++) out[i] = pgi_bf16_from_f32(x[i] * scale);
}

static inline uint16_t bf16_of_f32(const char *w, int64_t i) { return pgi_bf16_from_f32(pgi_load_f32(w + 4 * i)); }
static inline uint16_t bf16_of_bf16(const char *w, int64_t i) { return pgi_load_u16(w + 2 * i); }
static inline uint16_t bf16_of_f16(const char *w, int64_t i) {
    return pgi_bf16_from_f32(pgi_f32_from_f16(pgi_load_u16(w + 2 * i)));
}

#define DEFINE_PACK(dtype)                                                                                 \
    static void pack_pairs_##dtype(const void *w, int64_t w_bytes, int rows, int64_t k, uint16_t *panel) { \
        for (int64_t i = 0; i < k + (k & 1); i++)                                                          \
            for (int r = 0; r < NR; r++)                                                                   \
                panel[(i >> 1) * 2 * NR + 2 * r + (i & 1)] =                                               \
                    r < rows && i < k ? bf16_of_##dtype((const char *)w + r * w_bytes, i) : 0;             \
    }
DEFINE_PACK(f32)
DEFINE_PACK(bf16)
DEFINE_PACK(f16)

static void pair_rows(const float *a, const float *b, int n, uint16_t *panel) {
    for (int r = 0; r < NR; r++) {
        panel[2 * r] = r < n ? pgi_bf16_from_f32(a[r]) : 0;
        panel[2 * r + 1] = r < n && b ? pgi_bf16_from_f32(b[r]) : 0;
    }
}

static void gemm_bf16(int m, int n, int64_t k, const uint16_t *a, const uint16_t *panel, float *c, int64_t c_stride,
                      int accumulate, const float *bias) {
    for (int i = 0; i < m; i++, a += PGI_GEMM_BF16_LDA) {
        float sum[NR] = {0};
        for (int64_t l = 0; l < k; l++) {
            const uint16_t *pairs = panel + (l >> 1) * 2 * NR + (l & 1);
            for (int j = 0; j < NR; j++) sum[j] += pgi_f32_from_bf16(a[l]) * pgi_f32_from_bf16(pairs[2 * j]);
        }
        for (int j = 0; j < n; j++) {
            float *out = &c[i * c_stride + j];
            *out = sum[j] + (accumulate ? *out : bias ? bias[j] : 0);
        }
    }
}

static void gemm_bf16_panels(const pgi_panel_product *p) {
    for (int i = 0; i < p->m; i++)
        for (int j = 0; j < p->n; j++) {
            const uint16_t *column = p->panels + j / NR * p->panel + 2 * (j % NR);
            float *out = p->c + i * p->c_stride + j, sum = p->accumulate ? *out : p->bias ? p->bias[j] : 0;
            for (int64_t l = 0; l < p->k; l++)
                sum += pgi_f32_from_bf16(
                           p->a[l / PGI_GEMM_BF16_KC * p->a_block + i * PGI_GEMM_BF16_LDA + l % PGI_GEMM_BF16_KC]) *
                       pgi_f32_from_bf16(column[(l >> 1) * 2 * NR + (l & 1)]);
            *out = sum;
        }
}

static float exp_sum_bf16(float *x, int64_t n, float max, uint16_t *out) {
    float lane[8] = {0};
    for (int64_t i = 0; i < n; i++) {
        float value = expf(x[i] - max);
        out[i] = pgi_bf16_from_f32(value);
        lane[i & 7] += value;
    }
    return ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}

static void nothing(void) {}

void pgi_ref_bf16(pgi_kernels *kernels) {
    kernels->gemm_bf16_mr = MR;
    kernels->gemm_bf16_nr = NR;
    kernels->gemm_bf16_step = 1;
    kernels->gemm_bf16_deep = 0;
    kernels->gemm_bf16_begin = kernels->gemm_bf16_end = nothing;
#define K(type, name, parameters) kernels->name = name;
#include "kernels/lists/bf16.inc"
#undef K
}
