/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Activations and the gated MLP's product, back. act'(x) of each PGI_ACTIVATION_*:
 *     tanh GELU  (1 + t) / 2 + x (1 - t^2) u' / 2,  u = sqrt(2/pi) (x + 0.044715 x^3), t = tanh(u)
 *     erf GELU   (1 + erf(x / sqrt 2)) / 2 + x exp(-x^2 / 2) / sqrt(2 pi)
 *     SiLU       s (1 + x (1 - s)),  s = 1 / (1 + exp(-x))
 *     ReLU       1 above 0, else 0
 */
#include <math.h>

#include "base/parallel.h"
#include "kernels/kernels.h"
#include "train/layers.h"

enum { CHUNK = 4096, PART = 256 };

static const float root_2_over_pi = 0.79788456f, cubic = 0.044715f;

typedef struct activation_task {
    const pgi_kernels *kernels;
    int32_t activation;
    const float *x, *up, *dy; /* up NULL: there is no gate */
    float *dx, *dup;
} activation_task;

/* out[i] = act'(x[i]) and act[i] = act(x[i]), n <= PART. */
static void derivatives(const activation_task *t, const float *x, int64_t n, float *out, float *act) {
    switch (t->activation) {
        case PGI_ACTIVATION_GELU_TANH:
            for (int64_t i = 0; i < n; i++) act[i] = root_2_over_pi * (x[i] + cubic * x[i] * x[i] * x[i]);
            t->kernels->soft_cap(act, n, 1.0f); /* tanh */
            for (int64_t i = 0; i < n; i++) {
                const float slope = root_2_over_pi * (1 + 3 * cubic * x[i] * x[i]), tanh_u = act[i];
                out[i] = 0.5f * (1 + tanh_u) + 0.5f * x[i] * (1 - tanh_u * tanh_u) * slope;
                act[i] = 0.5f * x[i] * (1 + tanh_u);
            }
            break;
        case PGI_ACTIVATION_GELU_ERF:
            for (int64_t i = 0; i < n; i++) {
                const float half = 0.5f * (1 + erff(x[i] * 0.70710678f));
                out[i] = half + x[i] * expf(-0.5f * x[i] * x[i]) * 0.39894228f;
                act[i] = x[i] * half;
            }
            break;
        case PGI_ACTIVATION_SILU:
            for (int64_t i = 0; i < n; i++) {
                const float s = 1 / (1 + expf(-x[i]));
                out[i] = s * (1 + x[i] * (1 - s));
                act[i] = x[i] * s;
            }
            break;
        default: /* PGI_ACTIVATION_RELU */
            for (int64_t i = 0; i < n; i++) {
                out[i] = x[i] > 0 ? 1.0f : 0.0f;
                act[i] = x[i] > 0 ? x[i] : 0;
            }
    }
}

static void values_back(void *context, int64_t begin, int64_t end, int thread) {
    const activation_task *t = context;
    float slope[PART], act[PART];
    (void)thread;
    for (int64_t at = begin; at < end; at += PART) {
        const int64_t n = pgi_min64(PART, end - at);
        derivatives(t, t->x + at, n, slope, act);
        for (int64_t i = 0; i < n; i++) {
            const float dy = t->dy[at + i];
            t->dx[at + i] = t->up ? dy * t->up[at + i] * slope[i] : dy * slope[i];
            if (t->up) t->dup[at + i] = dy * act[i];
        }
    }
}

pg_status pgi_train_activation_back(const pgi_run *run, int32_t activation, const float *x, int64_t n, const float *dy,
                                    float *dx) {
    activation_task t = {.kernels = run->kernels, .activation = activation, .x = x, .dy = dy, .dx = dx};
    return pgi_parallel_for(run, n, CHUNK, values_back, &t);
}

pg_status pgi_train_gate_back(const pgi_run *run, int32_t activation, const float *gate, const float *up, int64_t n,
                              const float *dy, float *dgate, float *dup) {
    activation_task t = {
        .kernels = run->kernels, .activation = activation, .x = gate, .up = up, .dy = dy, .dx = dgate, .dup = dup};
    return pgi_parallel_for(run, n, CHUNK, values_back, &t);
}
