/* The operations on rows and on single values: norms, activations, rotation, look-up. */
#include "ops/ops.h"

#include "base/parallel.h"
#include "kernels/kernels.h"
#include "kernels/quantized.h"

enum { CHUNK = 16384 }; /* values of a task */

typedef struct row_task {
    const pgi_kernels *kernels;
    const float *x, *weight, *bias, *cos, *sin;
    float *y;
    int64_t columns, stride;
    float value; /* eps or cap */
    int32_t n_heads, head_dim;
    void (*apply)(float *x, int64_t n);
    void (*gate)(float *x, const float *y, int64_t n);
} row_task;

static int64_t rows_of_chunk(int64_t columns) { return columns > 0 && columns < CHUNK ? CHUNK / columns : 1; }

static void rms_norm_rows(void *context, int64_t begin, int64_t end, int thread) {
    const row_task *task = context;
    (void)thread;
    for (int64_t r = begin; r < end; r++)
        task->kernels->rms_norm(task->x + r * task->columns, task->columns, task->weight, task->value,
                                task->y + r * task->columns);
}

pg_status pgi_rms_norm(const pgi_run *run, const float *x, int64_t rows, int64_t columns, const float *weight,
                       float eps, float *y) {
    row_task task = {.kernels = run->kernels, .x = x, .y = y, .columns = columns, .weight = weight, .value = eps};
    return pgi_parallel_for(run, rows, rows_of_chunk(columns), rms_norm_rows, &task);
}

static void layer_norm_rows(void *context, int64_t begin, int64_t end, int thread) {
    const row_task *task = context;
    (void)thread;
    for (int64_t r = begin; r < end; r++)
        task->kernels->layer_norm(task->x + r * task->columns, task->columns, task->weight, task->bias, task->value,
                                  task->y + r * task->columns);
}

pg_status pgi_layer_norm(const pgi_run *run, const float *x, int64_t rows, int64_t columns, const float *weight,
                         const float *bias, float eps, float *y) {
    row_task task = {
        .kernels = run->kernels, .x = x, .y = y, .columns = columns, .weight = weight, .bias = bias, .value = eps};
    return pgi_parallel_for(run, rows, rows_of_chunk(columns), layer_norm_rows, &task);
}

static void apply_values(void *context, int64_t begin, int64_t end, int thread) {
    const row_task *task = context;
    (void)thread;
    task->apply(task->y + begin, end - begin);
}

static void gate_values(void *context, int64_t begin, int64_t end, int thread) {
    const row_task *task = context;
    (void)thread;
    task->gate(task->y + begin, task->x + begin, end - begin);
}

pg_status pgi_find_activation(const pgi_kernels *kernels, int32_t activation, void (**apply)(float *x, int64_t n),
                              void (**gate)(float *x, const float *y, int64_t n)) {
    switch (activation) {
        case PGI_ACTIVATION_GELU_TANH: *apply = kernels->gelu_tanh, *gate = kernels->gate_gelu_tanh; break;
        case PGI_ACTIVATION_GELU_ERF: *apply = kernels->gelu_erf, *gate = kernels->gate_gelu_erf; break;
        case PGI_ACTIVATION_SILU: *apply = kernels->silu, *gate = kernels->gate_silu; break;
        case PGI_ACTIVATION_RELU: *apply = kernels->relu, *gate = kernels->gate_relu; break;
        default: return pgi_error(PG_ERROR_INTERNAL, "found activation %d", (int)activation);
    }
    return PG_OK;
}

pg_status pgi_activate(const pgi_run *run, int32_t activation, float *x, int64_t n) {
    row_task task = {.y = x};
    PGI_TRY(pgi_find_activation(run->kernels, activation, &task.apply, &task.gate));
    return pgi_parallel_for(run, n, CHUNK, apply_values, &task);
}

pg_status pgi_gate(const pgi_run *run, int32_t activation, float *gate, const float *up, int64_t n) {
    row_task task = {.y = gate, .x = up};
    PGI_TRY(pgi_find_activation(run->kernels, activation, &task.apply, &task.gate));
    return pgi_parallel_for(run, n, CHUNK, gate_values, &task);
}

pg_status pgi_add(const pgi_run *run, float *x, const float *y, int64_t n) {
    row_task task = {.y = x, .x = y, .gate = run->kernels->add};
    return pgi_parallel_for(run, n, 4 * CHUNK, gate_values, &task);
}

static void cap_values(void *context, int64_t begin, int64_t end, int thread) {
    const row_task *task = context;
    (void)thread;
    task->kernels->soft_cap(task->y + begin, end - begin, task->value);
}

pg_status pgi_soft_cap(const pgi_run *run, float *x, int64_t n, float cap) {
    row_task task = {.kernels = run->kernels, .y = x, .value = cap};
    return pgi_parallel_for(run, n, CHUNK, cap_values, &task);
}

static void rope_rows(void *context, int64_t begin, int64_t end, int thread) {
    const row_task *task = context;
    const int64_t half = task->head_dim / 2;
    (void)thread;
    for (int64_t r = begin; r < end; r++)
        for (int64_t h = 0; h < task->n_heads; h++)
            task->kernels->rope(task->y + r * task->stride + h * task->head_dim, half, task->cos + r * half,
                                task->sin + r * half);
}

pg_status pgi_rope(const pgi_run *run, float *x, int64_t x_stride, int64_t rows, int32_t n_heads, int32_t head_dim,
                   const float *cos, const float *sin) {
    row_task task = {.kernels = run->kernels,
                     .y = x,
                     .stride = x_stride,
                     .n_heads = n_heads,
                     .head_dim = head_dim,
                     .cos = cos,
                     .sin = sin};
    return pgi_parallel_for(run, rows, rows_of_chunk((int64_t)n_heads * head_dim), rope_rows, &task);
}

pgi_linear pgi_linear_rows(const pgi_linear *linear, int64_t first, int64_t n) {
    const pgi_matrix *w = &linear->weight;
    pgi_linear part = {.weight = {.dtype = w->dtype, .rows = n, .columns = w->columns}};
    int64_t before = first * w->columns * (int64_t)pgi_dtype_size(w->dtype);
    if (w->dtype == PGI_DTYPE_INT8_BLOCKS || w->dtype == PGI_DTYPE_INT4_BLOCKS)
        before = first / PGI_PANEL_ROWS * pgi_quantized_groups(w->columns) * pgi_quantized_block(w->dtype);
    part.weight.data = (const char *)w->data + before;
    part.bias = linear->bias ? linear->bias + first : NULL;
    return part;
}

void pgi_matrix_row(const pgi_kernels *kernels, const pgi_matrix *matrix, int64_t row, float scale, float *out) {
    const char *data = (const char *)matrix->data + row * matrix->columns * (int64_t)pgi_dtype_size(matrix->dtype);
    switch (matrix->dtype) {
        case PG_DTYPE_F32: kernels->expand_f32(data, matrix->columns, scale, out); break;
        case PG_DTYPE_BF16: kernels->expand_bf16(data, matrix->columns, scale, out); break;
        case PG_DTYPE_F16: kernels->expand_f16(data, matrix->columns, scale, out); break;
        case PGI_DTYPE_INT8_BLOCKS:
        case PGI_DTYPE_INT4_BLOCKS: pgi_quantized_row(matrix, row, scale, out); break;
        default: break; /* the checkpoint binds no other dtype */
    }
}
