/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* pgi_rope(): rotary position embedding of queries or keys. */
#include "ops/ops.h"

#include "base/parallel.h"
#include "kernels/kernels.h"

enum { CHUNK = 16384 }; /* values of a task */

typedef struct rope_task {
    const pgi_kernels *kernels;
    float *x;
    int64_t x_stride;
    int32_t n_heads, head_dim;
    const float *cos, *sin;
} rope_task;

static void rope_rows(void *context, int64_t begin, int64_t end, int thread) {
    const rope_task *task = context;
    const int64_t half = task->head_dim / 2;
    (void)thread;
    for (int64_t r = begin; r < end; r++)
        for (int64_t h = 0; h < task->n_heads; h++)
            task->kernels->rope(task->x + r * task->x_stride + h * task->head_dim, half, task->cos + r * half,
                                task->sin + r * half);
}

pg_status pgi_rope(const pgi_run *run, float *x, int64_t x_stride, int64_t rows, int32_t n_heads, int32_t head_dim,
                   const float *cos, const float *sin) {
    rope_task task = {run->kernels, x, x_stride, n_heads, head_dim, cos, sin};
    const int64_t columns = (int64_t)n_heads * head_dim;
    return pgi_parallel_for(run, rows, columns > 0 && columns < CHUNK ? CHUNK / columns : 1, rope_rows, &task);
}
