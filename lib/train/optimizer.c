/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * AdamW in the order of torch's single-tensor path, f32, its scalars worked out in double: decay, mean, square, step.
 * Mean and square have the bits that torch's vector kernels give; its square roots, MKL's, are a bit off now and then,
 * these are not. Chunks of the long vector are fixed, so that results are the same for every number of threads.
 */
#include "train/optimizer.h"

#include <math.h>

#include "base/parallel.h"

/* Values: a thread's work of some 20 microseconds. A multiple of LANES. */
enum { CHUNK = 1 << 14, LANES = 16 };

/* ---------------------------------------------------------------------------------------------------------- schedule
 */

/* _get_*_schedule_with_warmup_lr_lambda(); where transformers' cosine rises again behind its end, this stays at 0. */
static double factor(const pgi_optimizer *optimizer, int64_t step) {
    static const double pi = 3.14159265358979323846;
    const int64_t warmup = optimizer->warmup_steps, total = optimizer->total_steps;
    if (step < warmup) return (double)step / (double)warmup;
    if (optimizer->schedule == PG_SCHEDULE_CONSTANT || total == 0) return 1;
    const double length = total > warmup ? (double)(total - warmup) : 1;
    if (optimizer->schedule == PG_SCHEDULE_LINEAR) return step < total ? (double)(total - step) / length : 0;
    const double progress = (double)(step - warmup) / length;
    return progress < 1 ? 0.5 * (1 + cos(pi * progress)) : 0;
}

double pgi_optimizer_rate(const pgi_optimizer *optimizer, int64_t step) {
    return optimizer->learning_rate * factor(optimizer, step);
}

/* -------------------------------------------------------------------------------------------------------------- norm
 */

typedef struct norm_task {
    const float *gradients;
    double *sums; /* [n_chunks] */
} norm_task;

/* The sum of the squares of n values, a multiple of LANES. */
static double sum_of_squares(const float *x, int64_t n) {
    double lanes[LANES] = {0}, sum = 0;
    for (int64_t i = 0; i < n; i += LANES)
        for (int k = 0; k < LANES; k++) lanes[k] += (double)x[i + k] * (double)x[i + k];
    for (int k = 0; k < LANES; k++) sum += lanes[k];
    return sum;
}

static void add_squares(void *context, int64_t begin, int64_t end, int thread) {
    const norm_task *task = context;
    (void)thread;
    task->sums[begin / CHUNK] = sum_of_squares(task->gradients + begin, end - begin);
}

pg_status pgi_gradient_norm(const pgi_run *run, const pgi_parameters *parameters, double *norm) {
    const size_t n_chunks = (parameters->n_values + CHUNK - 1) / CHUNK;
    norm_task task = {parameters->gradients, pgi_alloc(parameters->memory, n_chunks, sizeof *task.sums)};
    double sum = 0;
    if (!task.sums) return PG_ERROR_MEMORY;
    const pg_status status = pgi_parallel_for(run, (int64_t)parameters->n_values, CHUNK, add_squares, &task);
    for (size_t i = 0; i < n_chunks && status >= 0; i++) sum += task.sums[i];
    pgi_free(parameters->memory, task.sums);
    *norm = sqrt(sum);
    return status;
}

/* ------------------------------------------------------------------------------------------------------------ update
 */

typedef struct update_task {
    const pgi_parameters *parameters;
    float clip, decay; /* decay: of values that decay */
    float mean_weight, square_kept, square_weight;
    float square_divisor, epsilon, step_size; /* step_size: negative */
} update_task;

/* a b + c, rounded once, but for the rarest of sums: the product is exact in double. Quick without FMA too. */
static inline float multiply_add(float a, float b, float c) { return (float)((double)a * (double)b + (double)c); }

/* lerp_() */
static inline float lerp(float from, float to, float weight) {
    return weight < 0.5f ? multiply_add(weight, to - from, from) : multiply_add(weight - 1, to - from, to);
}

static void update_values(const update_task *task, float decay, size_t at, size_t n) {
    float *restrict values = task->parameters->values + at, *restrict gradients = task->parameters->gradients + at;
    float *restrict mean = task->parameters->mean + at, *restrict square = task->parameters->square + at;
    const update_task t = *task;
    for (size_t i = 0; i < n; i++) {
        const float g = gradients[i] * t.clip;
        gradients[i] = g;
        mean[i] = lerp(mean[i], g, t.mean_weight);
        square[i] = multiply_add(t.square_weight * g, g, square[i] * t.square_kept);
        const float divisor = sqrtf(square[i]) / t.square_divisor + t.epsilon;
        values[i] = values[i] * decay + t.step_size * mean[i] / divisor;
    }
}

/* The parameter that holds the value `at`, or the last one before it. */
static const pgi_parameter *parameter_at(const pgi_parameters *parameters, size_t at) {
    size_t low = 0, high = parameters->n;
    while (high - low > 1) {
        const size_t middle = low + (high - low) / 2;
        if (parameters->list[middle].at <= at)
            low = middle;
        else
            high = middle;
    }
    return &parameters->list[low];
}

static void update_chunk(void *context, int64_t begin, int64_t end, int thread) {
    const update_task *task = context;
    const pgi_parameters *parameters = task->parameters;
    const size_t from = (size_t)begin, to = (size_t)end;
    (void)thread;
    for (const pgi_parameter *p = parameter_at(parameters, from); p < parameters->list + parameters->n; p++) {
        if (p->at >= to) return;
        const size_t first = p->at > from ? p->at : from, behind = p->at + p->n < to ? p->at + p->n : to;
        if (first < behind) update_values(task, p->decays ? task->decay : 1, first, behind - first);
    }
}

/* clip_grad_norm_(): norms are f32 there, and a number through a tensor is the tensor's reciprocal times the number. */
static float clip_of(const pgi_optimizer *optimizer, double norm) {
    if (optimizer->max_gradient_norm == 0) return 1;
    const float clip = 1 / ((float)norm + 1e-6f) * (float)optimizer->max_gradient_norm;
    return clip > 1 ? 1 : clip;
}

pg_status pgi_optimizer_update(const pgi_run *run, const pgi_optimizer *optimizer, int64_t step, double norm,
                               pgi_parameters *parameters) {
    const double rate = pgi_optimizer_rate(optimizer, step), n = (double)step + 1;
    const double correction1 = 1 - pow(optimizer->beta1, n), correction2 = 1 - pow(optimizer->beta2, n);
    update_task task = {.parameters = parameters,
                        .clip = clip_of(optimizer, norm),
                        .decay = (float)(1 - rate * optimizer->weight_decay),
                        .mean_weight = (float)(1 - optimizer->beta1),
                        .square_kept = (float)optimizer->beta2,
                        .square_weight = (float)(1 - optimizer->beta2),
                        .square_divisor = (float)sqrt(correction2),
                        .epsilon = (float)optimizer->epsilon,
                        .step_size = (float)-(rate / correction1)};
    pgi_run whole = *run;
    whole.cancel = NULL; /* half an update is none that could be gone on from */
    return pgi_parallel_for(&whole, (int64_t)parameters->n_values, CHUNK, update_chunk, &task);
}
