/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The norms in training. With n the row normalized, r = 1 / sqrt(mean((x - m)^2) + eps) and g = dy times the factors,
 *     RMSNorm (m = 0, factors 1 + w):  dx = r (g - n mean(g n))
 *     LayerNorm (factors w):           dx = r (g - mean(g) - n mean(g n))
 *     dw = sum over rows of dy n,      dbias = sum of dy
 */
#include <math.h>

#include "base/parallel.h"
#include "kernels/kernels.h"
#include "train/layers.h"

enum { CHUNK = 16384, COLUMNS = 64 /* of a task */ };

typedef struct norm_task {
    const float *x, *dy, *weight; /* weight: of the norm */
    float *dx;
    int is_rms, accumulate;
    int64_t rows, columns;
    float eps;
    float *mean, *scale; /* [rows]: m and r */
    float *weight_gradient, *bias_gradient;
} norm_task;

static void row_back(const norm_task *t, int64_t row) {
    const int64_t n = t->columns;
    const float *x = t->x + row * n, *dy = t->dy + row * n;
    double sum = 0, squares = 0, of_g = 0, of_gn = 0;
    for (int64_t i = 0; i < n && !t->is_rms; i++) sum += (double)x[i];
    const double mean = sum / (double)n;
    for (int64_t i = 0; i < n; i++) squares += ((double)x[i] - mean) * ((double)x[i] - mean);
    const double r = 1 / sqrt(squares / (double)n + (double)t->eps);
    t->mean[row] = (float)mean;
    t->scale[row] = (float)r;
    if (!t->dx) return;
    for (int64_t i = 0; i < n; i++) {
        const double g = (double)dy[i] * (double)(t->is_rms ? 1 + t->weight[i] : t->weight[i]);
        of_g += g;
        of_gn += g * ((double)x[i] - mean) * r;
    }
    of_g = t->is_rms ? 0 : of_g / (double)n;
    of_gn /= (double)n;
    float *dx = t->dx + row * n;
    for (int64_t i = 0; i < n; i++) {
        const double g = (double)dy[i] * (double)(t->is_rms ? 1 + t->weight[i] : t->weight[i]);
        const float value = (float)(r * (g - of_g - ((double)x[i] - mean) * r * of_gn));
        dx[i] = t->accumulate ? dx[i] + value : value;
    }
}

static void rows_back(void *context, int64_t begin, int64_t end, int thread) {
    (void)thread;
    for (int64_t r = begin; r < end; r++) row_back(context, r);
}

/* Item: a column. dy is read before dx may take its place. */
static void sum_columns(void *context, int64_t begin, int64_t end, int thread) {
    const norm_task *t = context;
    (void)thread;
    for (int64_t r = 0; r < t->rows; r++)
        for (int64_t i = begin; i < end; i++) {
            const float dy = t->dy[r * t->columns + i];
            if (t->weight_gradient) t->weight_gradient[i] += dy * (t->x[r * t->columns + i] - t->mean[r]) * t->scale[r];
            if (t->bias_gradient) t->bias_gradient[i] += dy;
        }
}

static const float *weight_of(const pgi_train_pass *pass, const pgi_trained_norm *norm) {
    return norm->weight ? pgi_parameter_value(pass->parameters, norm->weight) : norm->frozen_weight;
}

pg_status pgi_train_norm(const pgi_train_pass *pass, const pgi_trained_norm *norm, const float *x, int64_t rows,
                         int64_t columns, float eps, float *y) {
    const float *weight = weight_of(pass, norm);
    if (!norm->frozen_bias) return pgi_rms_norm(pass->run, x, rows, columns, weight, eps, y);
    const float *bias = norm->bias ? pgi_parameter_value(pass->parameters, norm->bias) : norm->frozen_bias;
    return pgi_layer_norm(pass->run, x, rows, columns, weight, bias, eps, y);
}

pg_status pgi_train_norm_back(const pgi_train_pass *pass, const pgi_trained_norm *norm, const float *x, int64_t rows,
                              int64_t columns, float eps, const float *dy, float *dx, int accumulate) {
    norm_task t = {.x = x,
                   .dy = dy,
                   .weight = weight_of(pass, norm),
                   .is_rms = !norm->frozen_bias,
                   .accumulate = accumulate,
                   .rows = rows,
                   .columns = columns,
                   .eps = eps,
                   .mean = pass->row_numbers,
                   .scale = pass->row_numbers + rows};
    const int64_t grain = pgi_max64(1, CHUNK / columns);
    if (norm->weight || norm->bias) {
        if (norm->weight) t.weight_gradient = pgi_parameter_gradient(pass->parameters, norm->weight);
        if (norm->bias) t.bias_gradient = pgi_parameter_gradient(pass->parameters, norm->bias);
        PGI_TRY(pgi_parallel_for(pass->run, rows, grain, rows_back, &t));
        PGI_TRY(pgi_parallel_for(pass->run, columns, COLUMNS, sum_columns, &t));
    }
    t.dx = dx;
    return dx ? pgi_parallel_for(pass->run, rows, grain, rows_back, &t) : PG_OK;
}
