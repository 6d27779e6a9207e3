/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* pgi_rms_norm(), pgi_layer_norm() and pgi_add_layer_norm(): rows are shared out over the threads. */
#include "ops/ops.h"

#include "base/parallel.h"
#include "kernels/kernels.h"

enum { CHUNK = 16384 }; /* values of a task */

typedef struct norm_task {
    const pgi_kernels *kernels;
    const float *x, *weight, *bias;
    float *y, *sum;
    const float *added; /* to sum, which is x; NULL: nothing */
    int64_t columns;
    float eps;
} norm_task;

static int64_t rows_of_chunk(int64_t columns) { return columns > 0 && columns < CHUNK ? CHUNK / columns : 1; }

static void rms_norm_rows(void *context, int64_t begin, int64_t end, int thread) {
    const norm_task *task = context;
    (void)thread;
    for (int64_t r = begin; r < end; r++)
        task->kernels->rms_norm(task->x + r * task->columns, task->columns, task->weight, task->eps,
                                task->y + r * task->columns);
}

pg_status pgi_rms_norm(const pgi_run *run, const float *x, int64_t rows, int64_t columns, const float *weight,
                       float eps, float *y) {
    norm_task task = {.kernels = run->kernels, .x = x, .y = y, .columns = columns, .weight = weight, .eps = eps};
    return pgi_parallel_for(run, rows, rows_of_chunk(columns), rms_norm_rows, &task);
}

static void layer_norm_rows(void *context, int64_t begin, int64_t end, int thread) {
    const norm_task *task = context;
    (void)thread;
    for (int64_t r = begin; r < end; r++) {
        const int64_t at = r * task->columns;
        if (task->added) task->kernels->add(task->sum + at, task->added + at, task->columns);
        task->kernels->layer_norm(task->x + at, task->columns, task->weight, task->bias, task->eps, task->y + at);
    }
}

pg_status pgi_layer_norm(const pgi_run *run, const float *x, int64_t rows, int64_t columns, const float *weight,
                         const float *bias, float eps, float *y) {
    norm_task task = {
        .kernels = run->kernels, .x = x, .y = y, .columns = columns, .weight = weight, .bias = bias, .eps = eps};
    return pgi_parallel_for(run, rows, rows_of_chunk(columns), layer_norm_rows, &task);
}

pg_status pgi_add_layer_norm(const pgi_run *run, float *x, const float *added, int64_t rows, int64_t columns,
                             const float *weight, const float *bias, float eps, float *y) {
    norm_task task = {.kernels = run->kernels,
                      .x = x,
                      .y = y,
                      .sum = x,
                      .added = added,
                      .columns = columns,
                      .weight = weight,
                      .bias = bias,
                      .eps = eps};
    return pgi_parallel_for(run, rows, rows_of_chunk(columns), layer_norm_rows, &task);
}
