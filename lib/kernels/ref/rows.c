/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Norms, softmax and activations of one row in plain C, with the C library's
 * functions. The formulas are those of GemmaRMSNorm, torch.nn.LayerNorm,
 * apply_rotary_pos_emb and ACT2FN of transformers.
 */
#include "kernels/ref/ref.h"

#include <math.h>

static float row_max(const float *x, int64_t n) {
    float max = x[0];
    for (int64_t i = 1; i < n; i++)
        if (x[i] > max) max = x[i];
    return max;
}

static float exp_sum(float *x, int64_t n, float max) {
    float lane[8] = {0};
    for (int64_t i = 0; i < n; i++) {
        x[i] = expf(x[i] - max);
        lane[i & 7] += x[i];
    }
    return ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}

static void rms_norm(const float *x, int64_t n, const float *weight, float eps, float *y) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += (double)x[i] * x[i];
    float factor = 1 / sqrtf((float)(sum / (double)n) + eps);
    for (int64_t i = 0; i < n; i++) y[i] = x[i] * factor * (1 + weight[i]);
}

static void layer_norm(const float *x, int64_t n, const float *weight, const float *bias, float eps, float *y) {
    double sum = 0, squares = 0;
    for (int64_t i = 0; i < n; i++) sum += x[i];
    float mean = (float)(sum / (double)n);
    for (int64_t i = 0; i < n; i++) squares += ((double)x[i] - mean) * ((double)x[i] - mean);
    float factor = 1 / sqrtf((float)(squares / (double)n) + eps);
    for (int64_t i = 0; i < n; i++) y[i] = (x[i] - mean) * factor * weight[i] + bias[i];
}

static void rope(float *x, int64_t half, const float *cos, const float *sin) {
    for (int64_t i = 0; i < half; i++) {
        float a = x[i], b = x[i + half];
        x[i] = a * cos[i] - b * sin[i];
        x[i + half] = b * cos[i] + a * sin[i];
    }
}

static void soft_cap(float *x, int64_t n, float cap) {
    for (int64_t i = 0; i < n; i++) x[i] = cap * tanhf(x[i] / cap);
}

/* 0.5 x (1 + tanh u) = x / (1 + exp(-2u)), which keeps its digits where tanh u is near -1. */
static inline float act_gelu_tanh(float x) {
    const float c1 = -1.5957691216057308f, c3 = -0.07135481627159236f; /* -2 sqrt(2/pi), that times 0.044715 */
    return x / (1 + expf(x * (c1 + c3 * (x * x))));
}
static inline float act_gelu_erf(float x) { return (float)(0.5 * x * erfc(x * -0.70710678118654752)); }
static inline float act_silu(float x) { return x / (1 + expf(-x)); }
static inline float act_relu(float x) { return x < 0 ? 0 : x; }

#define DEFINE_ACTIVATION(name)                                         \
    static void name(float *x, int64_t n) {                             \
        for (int64_t i = 0; i < n; i++) x[i] = act_##name(x[i]);        \
    }                                                                   \
    static void gate_##name(float *x, const float *y, int64_t n) {      \
        for (int64_t i = 0; i < n; i++) x[i] = act_##name(x[i]) * y[i]; \
    }

DEFINE_ACTIVATION(gelu_tanh)
DEFINE_ACTIVATION(gelu_erf)
DEFINE_ACTIVATION(silu)
DEFINE_ACTIVATION(relu)

static void add(float *x, const float *y, int64_t n) {
    for (int64_t i = 0; i < n; i++) x[i] += y[i];
}

static void scale(float *x, int64_t n, float factor) {
    for (int64_t i = 0; i < n; i++) x[i] *= factor;
}

void pgi_ref_rows(pgi_kernels *kernels) {
#define K(type, name, parameters) kernels->name = name;
#include "kernels/lists/rows.inc"
#undef K
}
