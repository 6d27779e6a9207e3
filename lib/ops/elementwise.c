/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Operations on every value of an array: pgi_activate(), pgi_gate(), pgi_add() and pgi_soft_cap(). */
#include "ops/ops.h"

#include "base/parallel.h"
#include "kernels/kernels.h"

enum { CHUNK = 16384, CAP_CHUNK = 2048 }; /* values of a task */

typedef struct value_task {
    float *x;
    const float *y; /* of `gate` */
    void (*apply)(float *x, int64_t n);
    void (*gate)(float *x, const float *y, int64_t n);
    void (*soft_cap)(float *x, int64_t n, float cap);
    float cap;
} value_task;

static void apply_values(void *context, int64_t begin, int64_t end, int thread) {
    const value_task *task = context;
    (void)thread;
    task->apply(task->x + begin, end - begin);
}

static void gate_values(void *context, int64_t begin, int64_t end, int thread) {
    const value_task *task = context;
    (void)thread;
    task->gate(task->x + begin, task->y + begin, end - begin);
}

static void cap_values(void *context, int64_t begin, int64_t end, int thread) {
    const value_task *task = context;
    (void)thread;
    task->soft_cap(task->x + begin, end - begin, task->cap);
}

pg_status pgi_activate(const pgi_run *run, int32_t activation, float *x, int64_t n) {
    value_task task = {.x = x};
    PGI_TRY(pgi_find_activation(run->kernels, activation, &task.apply, &task.gate));
    return pgi_parallel_for(run, n, CHUNK, apply_values, &task);
}

pg_status pgi_gate(const pgi_run *run, int32_t activation, float *gate, const float *up, int64_t n) {
    value_task task = {.x = gate, .y = up};
    PGI_TRY(pgi_find_activation(run->kernels, activation, &task.apply, &task.gate));
    return pgi_parallel_for(run, n, CHUNK, gate_values, &task);
}

pg_status pgi_add(const pgi_run *run, float *x, const float *y, int64_t n) {
    value_task task = {.x = x, .y = y, .gate = run->kernels->add};
    return pgi_parallel_for(run, n, 4 * CHUNK, gate_values, &task);
}

pg_status pgi_soft_cap(const pgi_run *run, float *x, int64_t n, float cap) {
    value_task task = {.x = x, .soft_cap = run->kernels->soft_cap, .cap = cap};
    return pgi_parallel_for(run, n, CAP_CHUNK, cap_values, &task);
}
