/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Kernels that are almost right, for the self-test: each calls the real one and then damages what it wrote. */
#include "check.h"

#include <math.h>

#include "kernels/quantized.h"

const char *const damage_names[N_DAMAGES] = {"a value off by a thousandth", "the last value not computed",
                                             "a write behind the end"};

static pgi_kernels real; /* the self-test runs one at a time, on one thread */
static int damage_kind;

static void damage(float *out, int64_t n, float last_before) {
    if (damage_kind == 0) out[n / 2] += 1e-3f * (fabsf(out[n / 2]) + 1e-3f);
    if (damage_kind == 1) out[n - 1] = last_before;
    if (damage_kind == 2) out[n] = 1;
}

/* `out`, n: what the kernel writes last. */
#define BROKEN(name, parameters, arguments, out, n)      \
    static void broken_##name parameters {               \
        float *damaged = (out), before = damaged[(n)-1]; \
        real.name arguments;                             \
        damage(damaged, (n), before);                    \
    }

#define EXPAND(name) BROKEN(name, (const void *w, int64_t n, float factor, float *out), (w, n, factor, out), out, n)
EXPAND(expand_f32)
EXPAND(expand_bf16)
EXPAND(expand_f16)

#define PACK(name)                                                                                                  \
    BROKEN(name, (const void *w, int64_t w_bytes, int rows, int64_t k, float *panel), (w, w_bytes, rows, k, panel), \
           panel, k *real.gemm_nr)
PACK(pack_f32)
PACK(pack_bf16)
PACK(pack_f16)

BROKEN(gemm,
       (int m, int n, int64_t k, const float *a, const float *panel, float *c, int64_t c_stride, int accumulate,
        const float *bias),
       (m, n, k, a, panel, c, c_stride, accumulate, bias), c + (m - 1) * c_stride, n)

#define GEMV_X(name) \
    BROKEN(name, (int m, int64_t k, const float *x, int64_t x_stride, float *out), (m, k, x, x_stride, out), out, m *k)
GEMV_X(gemv_x_f32)
GEMV_X(gemv_x_bf16)
GEMV_X(gemv_x_f16)

#define GEMV(name)                                                                                             \
    BROKEN(name,                                                                                               \
           (int m, int64_t rows, int64_t k, const float *x, const void *w, int64_t w_bytes, const float *bias, \
            float *y, int64_t y_stride),                                                                       \
           (m, rows, k, x, w, w_bytes, bias, y, y_stride), y + (m - 1) * y_stride, rows)
GEMV(gemv_f32)
GEMV(gemv_bf16)
GEMV(gemv_f16)
GEMV(gemv_one_stream_f32)
GEMV(gemv_one_stream_bf16)
GEMV(gemv_one_stream_f16)

#define PRODUCT(name) BROKEN(name, (const pgi_row_product *p), (p), p->y + (p->m - 1) * p->y_stride, p->n)
PRODUCT(product_int8)
PRODUCT(stream_int8)
PRODUCT(stream_int4)

BROKEN(product_tiles, (const pgi_tile_product *p), (p), p->y + (p->rows - 1) * p->y_stride, p->n)

/* n bytes. */
static void damage_bytes(unsigned char *out, int64_t n, unsigned char last_before) {
    if (damage_kind == 0) out[n / 2] ^= 1;
    if (damage_kind == 1) out[n - 1] = last_before;
    if (damage_kind == 2) out[n] ^= 1;
}

/* n values of bf16. */
static void damage_bf16(uint16_t *out, int64_t n, uint16_t last_before) {
    if (damage_kind == 0) out[n / 2] ^= 1;
    if (damage_kind == 1) out[n - 1] = last_before;
    if (damage_kind == 2) out[n] ^= 1;
}
#define BROKEN_BF16(name, parameters, arguments, out, n)    \
    static void broken_##name parameters {                  \
        uint16_t *damaged = (out), before = damaged[(n)-1]; \
        real.name arguments;                                \
        damage_bf16(damaged, (n), before);                  \
    }
BROKEN_BF16(round_bf16, (const float *x, int64_t n, float factor, uint16_t *out), (x, n, factor, out), out, n)
#define PACK_PAIRS(name)                                                                      \
    BROKEN_BF16(name, (const void *w, int64_t w_bytes, int rows, int64_t k, uint16_t *panel), \
                (w, w_bytes, rows, k, panel), panel, (k + 1) / 2 * 2 * real.gemm_bf16_nr)
PACK_PAIRS(pack_pairs_f32)
PACK_PAIRS(pack_pairs_bf16)
PACK_PAIRS(pack_pairs_f16)
BROKEN_BF16(pair_rows, (const float *a, const float *b, int n, uint16_t *panel), (a, b, n, panel), panel,
            2 * real.gemm_bf16_nr)

BROKEN(gemm_bf16_panels, (const pgi_panel_product *p), (p), p->c + (p->m - 1) * p->c_stride, p->n)
BROKEN(gemm_bf16,
       (int m, int n, int64_t k, const uint16_t *a, const uint16_t *panel, float *c, int64_t c_stride, int accumulate,
        const float *bias),
       (m, n, k, a, panel, c, c_stride, accumulate, bias), c + (m - 1) * c_stride, n)

static void broken_quantize_rows(const float *x, int64_t x_stride, int rows, int64_t k, int m, void *tile) {
    int64_t n = pgi_quantized_groups(k) * PGI_TILE_ROW_BYTES * m;
    unsigned char before = ((unsigned char *)tile)[n - 1];
    real.quantize_rows(x, x_stride, rows, k, m, tile);
    damage_bytes(tile, n, before);
}
static void broken_resample_columns(const pgi_resample *s, const uint8_t *in, int64_t stride, int64_t width,
                                    int64_t rows, uint8_t *out) {
    int64_t n = rows * s->n_out * 3;
    unsigned char before = out[n - 1];
    real.resample_columns(s, in, stride, width, rows, out);
    damage_bytes(out, n, before);
}
static void broken_resample_row(const int32_t *weights, int32_t n, const uint8_t *in, int64_t stride, int64_t line,
                                uint8_t *out) {
    unsigned char before = out[line - 1];
    real.resample_row(weights, n, in, stride, line, out);
    damage_bytes(out, line, before);
}
static void broken_yuv_terms(const pgi_yuv *yuv, const uint8_t *chroma, int64_t n, int16_t *terms, int64_t stride) {
    unsigned char *last = (unsigned char *)(terms + 2 * stride), before = last[4 * n - 1];
    real.yuv_terms(yuv, chroma, n, terms, stride);
    damage_bytes(last, 4 * n, before);
}
static void broken_yuv_row(const pgi_yuv *yuv, const uint8_t *y, const int16_t *terms, int64_t stride, int64_t n,
                           uint8_t *out) {
    unsigned char before = out[3 * n - 1];
    real.yuv_row(yuv, y, terms, stride, n, out);
    damage_bytes(out, 3 * n, before);
}
#define UNPACK(name)                                                           \
    static void broken_##name(const void *blocks, int64_t n, void *out) {      \
        unsigned char before = ((unsigned char *)out)[n * PGI_INT8_BLOCK - 1]; \
        real.name(blocks, n, out);                                             \
        damage_bytes(out, n *PGI_INT8_BLOCK, before);                          \
    }
UNPACK(unpack_int4)

BROKEN(weighted_sum, (int64_t n, int64_t d, const float *p, const float *v, int64_t v_stride, float *out),
       (n, d, p, v, v_stride, out), out, d)
BROKEN(weighted_sum_bf16, (int64_t n, int64_t d, const float *p, const uint16_t *v, int64_t v_stride, float *out),
       (n, d, p, v, v_stride, out), out, d)

static float broken_row_max(const float *x, int64_t n) { /* writes nothing: it looks at the wrong values instead */
    if (damage_kind == 0) return real.row_max(x, n) * 1.001f;
    if (damage_kind == 1) return n > 1 ? real.row_max(x, n - 1) : x[0];
    return n > 1 ? real.row_max(x + 1, n - 1) : x[0];
}
static float broken_exp_sum(float *x, int64_t n, float max) {
    float before = x[n - 1], sum = real.exp_sum(x, n, max);
    damage(x, n, before);
    return sum;
}
static float broken_exp_sum_bf16(float *x, int64_t n, float max, uint16_t *out) {
    uint16_t before = out[n - 1];
    float sum = real.exp_sum_bf16(x, n, max, out);
    damage_bf16(out, n, before);
    return sum;
}

BROKEN(rms_norm, (const float *x, int64_t n, const float *weight, float eps, float *y), (x, n, weight, eps, y), y, n)
BROKEN(layer_norm, (const float *x, int64_t n, const float *weight, const float *bias, float eps, float *y),
       (x, n, weight, bias, eps, y), y, n)
BROKEN(rope, (float *x, int64_t half, const float *cosine, const float *sine), (x, half, cosine, sine), x, 2 * half)
BROKEN(soft_cap, (float *x, int64_t n, float cap), (x, n, cap), x, n)
BROKEN(scale, (float *x, int64_t n, float factor), (x, n, factor), x, n)

#define APPLY(name) BROKEN(name, (float *x, int64_t n), (x, n), x, n)
APPLY(gelu_tanh)
APPLY(gelu_erf)
APPLY(silu)
APPLY(relu)

#define GATE(name) BROKEN(name, (float *x, const float *y, int64_t n), (x, y, n), x, n)
GATE(gate_gelu_tanh)
GATE(gate_gelu_erf)
GATE(gate_silu)
GATE(gate_relu)
GATE(add)

void break_kernel(pgi_kernels *table, int kernel, int how) {
    real = *table;
    damage_kind = how;
    int i = 0;
#define K(type, name, parameters) \
    if (i++ == kernel) table->name = broken_##name;
#include "kernels/kernels.inc"
#undef K
}
