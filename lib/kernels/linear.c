/*
 * pgi_linear_forward(): y = x W^T + b.
 *
 * Few rows (decode): the weights are streamed once, in their own format (gemv).
 * Many rows: a task owns a block of output columns. For each block of
 * PGI_GEMM_KC inputs it expands and transposes its part of W to f32 panels that
 * stay in the second-level cache, then goes through the rows of x tile by tile.
 * Every output is summed in the same order however the work is cut, so a row
 * does not depend on the threads; nor on the other rows, but for the two paths
 * rounding differently (at PGI_GEMV_ROWS rows).
 */
#include "kernels/ops.h"

#include <stdatomic.h>
#include <string.h>

#include "base/parallel.h"
#include "kernels/kernels.h"
#include "kernels/quantized.h"

enum {
    COLUMN_BLOCK = 256,            /* output columns of a task at the most */
    GEMV_CHUNK_BYTES = 256 * 1024, /* weights of a streamed task */
    TASKS_PER_THREAD = 6           /* cut finer than the threads, for threads are not equally fast */
};

typedef void (*pack_fn)(const void *w, int64_t w_bytes, int rows, int64_t k, float *panel);
typedef void (*gemv_fn)(int m, int64_t rows, int64_t k, const float *x, int64_t x_stride, const void *w,
                        int64_t w_bytes, const float *bias, float *y, int64_t y_stride);

typedef struct linear_task {
    const pgi_run *run;
    const float *x; /* [rows, in] */
    int64_t x_stride, rows;
    const pgi_linear *linear;
    float *y; /* [rows, out] */
    int64_t y_stride;
    int64_t w_bytes; /* of a row of W */
    pack_fn pack;
    gemv_fn gemv;
    int64_t column_block;
    char *scratch;
    atomic_int stopped; /* a task saw the cancel flag and left its part undone */
} linear_task;

/* Floats of one thread: the panels of a column block, and one tile of x. */
static size_t panel_floats(void) { return (size_t)COLUMN_BLOCK * PGI_GEMM_KC; }
static size_t thread_bytes(void) { return (panel_floats() + (size_t)PGI_GEMM_MR_MAX * PGI_GEMM_LDA) * sizeof(float); }

size_t pgi_linear_scratch(const pgi_kernels *kernels, int n_threads) {
    size_t dense = thread_bytes() * (size_t)n_threads, quantized = pgi_quantized_scratch(n_threads);
    (void)kernels;
    return dense > quantized ? dense : quantized;
}

static void gemv_columns(void *context, int64_t begin, int64_t end, int thread) {
    const linear_task *task = context;
    const pgi_linear *linear = task->linear;
    (void)thread;
    task->gemv((int)task->rows, end - begin, linear->weight.columns, task->x, task->x_stride,
               (const char *)linear->weight.data + begin * task->w_bytes, task->w_bytes,
               linear->bias ? linear->bias + begin : NULL, task->y + begin, task->y_stride);
}

static void gemm_columns(void *context, int64_t begin, int64_t end, int thread) {
    linear_task *task = context;
    const pgi_kernels *kernels = task->run->kernels;
    const pgi_matrix *w = &task->linear->weight;
    const float *bias = task->linear->bias;
    float *panels = (float *)(task->scratch + (size_t)thread * thread_bytes()); /* [panels, kc, nr] */
    float *tile = panels + panel_floats();                                      /* [mr, PGI_GEMM_LDA] */
    const int64_t nr = kernels->gemm_nr, mr = kernels->gemm_mr;
    const int64_t n_tiles = (task->rows + mr - 1) / mr;
    const int64_t element = (int64_t)pgi_dtype_size(w->dtype);

    for (int64_t k0 = 0; k0 < w->columns; k0 += PGI_GEMM_KC) {
        if (pgi_run_cancelled(task->run)) {
            atomic_store_explicit(&task->stopped, 1, memory_order_relaxed);
            return;
        }
        int64_t kc = pgi_min64(PGI_GEMM_KC, w->columns - k0);
        for (int64_t n = begin; n < end; n += nr)
            task->pack((const char *)w->data + n * task->w_bytes + k0 * element, task->w_bytes,
                       (int)pgi_min64(nr, end - n), kc, panels + (n - begin) * kc);
        for (int64_t t = 0; t < n_tiles; t++) { /* tiles of nearly equal height */
            int64_t row = task->rows * t / n_tiles, m = task->rows * (t + 1) / n_tiles - row;
            for (int64_t i = 0; i < m; i++)
                memcpy(tile + i * PGI_GEMM_LDA, task->x + (row + i) * task->x_stride + k0, (size_t)kc * sizeof(float));
            for (int64_t n = begin; n < end; n += nr)
                kernels->gemm((int)m, (int)pgi_min64(nr, end - n), kc, tile, panels + (n - begin) * kc,
                              task->y + row * task->y_stride + n, task->y_stride, k0 > 0, bias ? bias + n : NULL);
        }
    }
}

pg_status pgi_linear_forward(const pgi_run *run, const float *x, int64_t x_stride, int64_t rows,
                             const pgi_linear *linear, float *y, int64_t y_stride, void *scratch) {
    const pgi_kernels *kernels = run->kernels;
    const pgi_matrix *w = &linear->weight;
    if (rows <= 0 || w->rows <= 0) return PG_OK;
    pgi_run alone;
    run = pgi_run_for_work(run, 2.0 * (double)rows * (double)w->rows * (double)w->columns, &alone);
    linear_task task = {.run = run,
                        .x = x,
                        .x_stride = x_stride,
                        .rows = rows,
                        .linear = linear,
                        .y = y,
                        .y_stride = y_stride,
                        .scratch = scratch};
    task.w_bytes = w->columns * (int64_t)pgi_dtype_size(w->dtype);
    switch (w->dtype) {
        case PG_DTYPE_F32: task.pack = kernels->pack_f32, task.gemv = kernels->gemv_f32; break;
        case PG_DTYPE_BF16: task.pack = kernels->pack_bf16, task.gemv = kernels->gemv_bf16; break;
        case PG_DTYPE_F16: task.pack = kernels->pack_f16, task.gemv = kernels->gemv_f16; break;
        case PGI_DTYPE_INT8_BLOCKS:
        case PGI_DTYPE_INT4_BLOCKS: return pgi_quantized_linear(run, x, x_stride, rows, linear, y, y_stride, scratch);
        default: return pgi_error(PG_ERROR_INTERNAL, "linear layer: found weights of dtype %d", (int)w->dtype);
    }
    if (rows <= PGI_GEMV_ROWS || w->columns == 0) {
        int64_t grain = GEMV_CHUNK_BYTES / (task.w_bytes ? task.w_bytes : 1);
        return pgi_parallel_for(run, w->rows, grain > 16 ? grain : 16, gemv_columns, &task);
    }
    const int64_t nr = kernels->gemm_nr;
    int64_t block = w->rows / ((int64_t)run->n_threads * TASKS_PER_THREAD) / nr * nr;
    task.column_block = block < 2 * nr ? 2 * nr : pgi_min64(block, COLUMN_BLOCK);
    PGI_TRY(pgi_parallel_for(run, w->rows, task.column_block, gemm_columns, &task));
    if (atomic_load(&task.stopped)) return pgi_error(PG_ERROR_CANCELLED, "cancelled by request");
    return PG_OK;
}
