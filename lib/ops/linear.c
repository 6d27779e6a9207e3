/*
 * pgi_linear_forward(): y = x W^T + b.
 *
 * Few rows (decode): the weights are streamed once, in their own format (gemv).
 * Many rows: x is cut into blocks of ROW_BLOCK rows and SPAN inputs, each copied once to where the tiles of all tasks
 * read it without conflicts in the cache. A task owns a block of output columns: for every PGI_GEMM_KC inputs it
 * expands and transposes its part of W to f32 panels that stay in the second-level cache, then goes through the rows of
 * x tile by tile, and prefetches the next part of W meanwhile.
 * The same in bf16 is in linear_bf16.c, int8 and int4 weights are in linear_quantized.c.
 * Every output is summed in the same order however the work is cut, so a row
 * does not depend on the threads; nor on the other rows, but for the two paths
 * rounding differently (at PGI_GEMV_ROWS rows).
 */
#include "ops/ops.h"

#include <stdatomic.h>
#include <string.h>

#include "base/parallel.h"
#include "ops/prefetch.h"
#include "kernels/kernels.h"
#include "ops/linear_bf16.h"
#include "kernels/quantized.h"
#include "ops/linear_quantized.h"

enum {
    COLUMN_BLOCK = 256,            /* output columns of a task at the most */
    GEMV_CHUNK_BYTES = 256 * 1024, /* weights of a streamed task */
    TASKS_PER_THREAD = 6,          /* cut finer than the threads, for threads are not equally fast */
    FEW_ROWS = 32,                 /* up to here packing takes the time: panel by panel, used at once */
    ROW_BLOCK = 512,               /* rows of x that lie copied at once, */
    SPAN = 4 * PGI_GEMM_KC,        /* with so many inputs; fewer rows with more */
    COPIED = 65536                 /* values of a task that copies */
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
    int64_t first_row, n_rows;   /* the rows of x, */
    int64_t first_input, inputs; /* and the inputs, that are under way */
    float *copy;                 /* of those: [inputs / PGI_GEMM_KC rounded up, n_rows, PGI_GEMM_LDA] */
    char *panels;                /* of the threads */
    atomic_int stopped;          /* a task saw the cancel flag and left its part undone */
} linear_task;

/* The panels of a column block. */
static size_t thread_bytes(void) { return (size_t)COLUMN_BLOCK * PGI_GEMM_KC * sizeof(float); }
static size_t copy_bytes(void) { return (size_t)ROW_BLOCK * (SPAN / PGI_GEMM_KC) * PGI_GEMM_LDA * sizeof(float); }

size_t pgi_linear_scratch(const pgi_kernels *kernels, int n_threads) {
    size_t dense = copy_bytes() + thread_bytes() * (size_t)n_threads, quantized = pgi_quantized_scratch(n_threads);
    size_t bf16 = kernels->bf16_linear ? pgi_bf16_scratch(n_threads) : 0, most = dense > quantized ? dense : quantized;
    return bf16 > most ? bf16 : most;
}

static void gemv_columns(void *context, int64_t begin, int64_t end, int thread) {
    const linear_task *task = context;
    const pgi_linear *linear = task->linear;
    (void)thread;
    task->gemv((int)task->rows, end - begin, linear->weight.columns, task->x, task->x_stride,
               (const char *)linear->weight.data + begin * task->w_bytes, task->w_bytes,
               linear->bias ? linear->bias + begin : NULL, task->y + begin, task->y_stride);
}

/* Item: a row of the copy. */
static void copy_rows(void *context, int64_t begin, int64_t end, int thread) {
    const linear_task *task = context;
    (void)thread;
    for (int64_t k0 = 0; k0 < task->inputs; k0 += PGI_GEMM_KC) {
        size_t bytes = (size_t)pgi_min64(PGI_GEMM_KC, task->inputs - k0) * sizeof(float);
        float *to = task->copy + k0 / PGI_GEMM_KC * task->n_rows * PGI_GEMM_LDA;
        const float *from = task->x + task->first_row * task->x_stride + task->first_input + k0;
        for (int64_t r = begin; r < end; r++) memcpy(to + r * PGI_GEMM_LDA, from + r * task->x_stride, bytes);
    }
}

static void gemm_columns(void *context, int64_t begin, int64_t end, int thread) {
    linear_task *task = context;
    const pgi_kernels *kernels = task->run->kernels;
    const pgi_matrix *w = &task->linear->weight;
    const float *bias = task->linear->bias;
    float *panels = (float *)(task->panels + (size_t)thread * thread_bytes()); /* [panels, kc, nr] */
    float *y = task->y + task->first_row * task->y_stride;
    const int64_t nr = kernels->gemm_nr, mr = kernels->gemm_mr, rows = task->n_rows;
    const int64_t n_tiles = (rows + mr - 1) / mr, n_panels = (end - begin + nr - 1) / nr;
    const int64_t element = (int64_t)pgi_dtype_size(w->dtype), last_input = task->first_input + task->inputs;

    for (int64_t k0 = task->first_input; k0 < last_input; k0 += PGI_GEMM_KC) {
        if (pgi_run_cancelled(task->run)) {
            atomic_store_explicit(&task->stopped, 1, memory_order_relaxed);
            return;
        }
        const int64_t kc = pgi_min64(PGI_GEMM_KC, last_input - k0), next_kc = pgi_min64(kc, last_input - k0 - kc);
        const char *part = (const char *)w->data + begin * task->w_bytes + k0 * element;
        const float *copy = task->copy + (k0 - task->first_input) / PGI_GEMM_KC * rows * PGI_GEMM_LDA;
        for (int64_t n = begin; n < end; n += nr)
            task->pack(part + (n - begin) * task->w_bytes, task->w_bytes, (int)pgi_min64(nr, end - n), kc,
                       panels + (n - begin) * kc);
        pgi_prefetch next = {.rows = 0};
        if (next_kc > 0 && rows > FEW_ROWS)
            next = pgi_prefetch_start(part + kc * element, task->w_bytes, end - begin, next_kc * element,
                                      n_tiles * n_panels);
        for (int64_t t = 0; t < n_tiles; t++) { /* tiles of nearly equal height */
            int64_t row = rows * t / n_tiles, m = rows * (t + 1) / n_tiles - row;
            for (int64_t n = begin; n < end; n += nr) {
                pgi_prefetch_step(&next);
                kernels->gemm((int)m, (int)pgi_min64(nr, end - n), kc, copy + row * PGI_GEMM_LDA,
                              panels + (n - begin) * kc, y + row * task->y_stride + n, task->y_stride, k0 > 0,
                              bias ? bias + n : NULL);
            }
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
                        .copy = scratch,
                        .panels = (char *)scratch + copy_bytes()};
    task.w_bytes = w->columns * (int64_t)pgi_dtype_size(w->dtype);
    switch (w->dtype) {
        case PG_DTYPE_F32: task.pack = kernels->pack_f32, task.gemv = kernels->gemv_f32; break;
        case PG_DTYPE_BF16: task.pack = kernels->pack_bf16, task.gemv = kernels->gemv_bf16; break;
        case PG_DTYPE_F16: task.pack = kernels->pack_f16, task.gemv = kernels->gemv_f16; break;
        case PGI_DTYPE_INT8_BLOCKS:
        case PGI_DTYPE_INT4_BLOCKS: {
            const pgi_linear_job output = {linear, y, y_stride};
            return pgi_quantized_linears(run, x, x_stride, rows, &output, 1, scratch);
        }
        default: return pgi_error(PG_ERROR_INTERNAL, "linear layer: found weights of dtype %d", (int)w->dtype);
    }
    if (rows <= PGI_GEMV_ROWS || w->columns == 0) {
        int64_t grain = GEMV_CHUNK_BYTES / (task.w_bytes ? task.w_bytes : 1);
        return pgi_parallel_for(run, w->rows, grain > 16 ? grain : 16, gemv_columns, &task);
    }
    if (kernels->bf16_linear) return pgi_bf16_linear(run, x, x_stride, rows, linear, y, y_stride, scratch);
    const int64_t nr = kernels->gemm_nr;
    /* A low tile is read again for fewer products, so it should meet more columns. */
    const int64_t most = kernels->gemm_mr > 8 ? COLUMN_BLOCK / 2 : COLUMN_BLOCK;
    int64_t block = w->rows / ((int64_t)run->n_threads * TASKS_PER_THREAD) / nr * nr;
    task.column_block = rows <= FEW_ROWS ? nr : block < 2 * nr ? 2 * nr : pgi_min64(block, most);
    const int64_t n_blocks = (rows + ROW_BLOCK - 1) / ROW_BLOCK;
    for (int64_t b = 0; b < n_blocks; b++) { /* of nearly equal height */
        task.first_row = rows * b / n_blocks;
        task.n_rows = rows * (b + 1) / n_blocks - task.first_row;
        const int64_t span = ROW_BLOCK / task.n_rows * SPAN;
        for (task.first_input = 0; task.first_input < w->columns; task.first_input += span) {
            task.inputs = pgi_min64(span, w->columns - task.first_input);
            PGI_TRY(pgi_parallel_for(run, task.n_rows, 1 + COPIED / task.inputs, copy_rows, &task));
            PGI_TRY(pgi_parallel_for(run, w->rows, task.column_block, gemm_columns, &task));
            if (atomic_load(&task.stopped)) return pgi_run_cancelled_error();
        }
    }
    return PG_OK;
}
