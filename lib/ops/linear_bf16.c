/*
 * pgi_linear_forward() in bf16: more than PGI_GEMV_ROWS rows, weights f32, bf16 or f16, where kernels->bf16_linear says
 * so.
 *
 * x is rounded to bf16 once for all tasks, weights while they are packed; sums are f32. A task owns a block of output
 * columns: for every PGI_GEMM_BF16_KC inputs it packs its part of W to panels that stay in the second-level cache, then
 * goes through all rows of x tile by tile, and prefetches the next part of W meanwhile. Every output is summed in the
 * same order however the work is cut.
 */
#include "ops/linear_bf16.h"

#include <stdatomic.h>

#include "base/parallel.h"
#include "ops/prefetch.h"
#include "kernels/kernels.h"

enum {
    COLUMN_BLOCK = 128,   /* output columns of a task at the most */
    TASKS_PER_THREAD = 6, /* cut finer than the threads, for threads are not equally fast */
    FEW_ROWS = 32,        /* up to here packing takes the time: panel by panel, used at once */
    COPY_ROWS = 8192,     /* rows of PGI_GEMM_BF16_KC inputs that lie rounded at once: 17 MB; fewer with more inputs */
    COPIED = 65536        /* values of a task that rounds */
};

typedef void (*pack_fn)(const void *w, int64_t w_bytes, int rows, int64_t k, uint16_t *panel);

typedef struct bf16_task {
    const pgi_run *run;
    const float *x; /* [rows, in]: the rows now summed */
    int64_t x_stride, rows;
    const pgi_linear *linear;
    float *y; /* [rows, out] */
    int64_t y_stride;
    int64_t w_bytes; /* of a row of W */
    pack_fn pack;
    int64_t column_block;
    int64_t first_input, inputs; /* that are under way */
    uint16_t *copy;              /* of those: [inputs / PGI_GEMM_BF16_KC rounded up, rows, PGI_GEMM_BF16_LDA] */
    char *panels;                /* of the threads */
    atomic_int stopped;          /* a task saw the cancel flag and left its part undone */
} bf16_task;

static size_t thread_bytes(void) { return (size_t)COLUMN_BLOCK * PGI_GEMM_BF16_KC * sizeof(uint16_t); }
static size_t copy_bytes(void) { return (size_t)COPY_ROWS * PGI_GEMM_BF16_LDA * sizeof(uint16_t); }

size_t pgi_bf16_scratch(int n_threads) { return copy_bytes() + thread_bytes() * (size_t)n_threads; }

/* Item: a row of the copy. */
static void round_rows(void *context, int64_t begin, int64_t end, int thread) {
    const bf16_task *task = context;
    (void)thread;
    for (int64_t k0 = 0; k0 < task->inputs; k0 += PGI_GEMM_BF16_KC) {
        int64_t n = pgi_min64(PGI_GEMM_BF16_KC, task->inputs - k0);
        uint16_t *to = task->copy + k0 / PGI_GEMM_BF16_KC * task->rows * PGI_GEMM_BF16_LDA;
        const float *from = task->x + task->first_input + k0;
        for (int64_t r = begin; r < end; r++)
            task->run->kernels->round_bf16(from + r * task->x_stride, n, 1, to + r * PGI_GEMM_BF16_LDA);
    }
}

/* Item: an output column. */
static void multiply_columns(void *context, int64_t begin, int64_t end, int thread) {
    bf16_task *task = context;
    const pgi_kernels *kernels = task->run->kernels;
    const pgi_matrix *w = &task->linear->weight;
    const float *bias = task->linear->bias;
    uint16_t *panels = (uint16_t *)(task->panels + (size_t)thread * thread_bytes()); /* [panels, kc / 2, nr, 2] */
    const int64_t nr = kernels->gemm_bf16_nr, mr = kernels->gemm_bf16_mr, rows = task->rows;
    const int64_t n_tiles = (rows + mr - 1) / mr, n_panels = (end - begin + nr - 1) / nr;
    const int64_t element = (int64_t)pgi_dtype_size(w->dtype), last_input = task->first_input + task->inputs;

    for (int64_t k0 = task->first_input; k0 < last_input; k0 += PGI_GEMM_BF16_KC) {
        if (pgi_run_cancelled(task->run)) {
            atomic_store_explicit(&task->stopped, 1, memory_order_relaxed);
            return;
        }
        const int64_t kc = pgi_min64(PGI_GEMM_BF16_KC, last_input - k0), depth = (kc + 1) / 2 * 2;
        const int64_t next_kc = pgi_min64(kc, last_input - k0 - kc);
        const char *part = (const char *)w->data + begin * task->w_bytes + k0 * element;
        const uint16_t *copy = task->copy + (k0 - task->first_input) / PGI_GEMM_BF16_KC * rows * PGI_GEMM_BF16_LDA;
        for (int64_t n = begin; n < end; n += nr)
            task->pack(part + (n - begin) * task->w_bytes, task->w_bytes, (int)pgi_min64(nr, end - n), kc,
                       panels + (n - begin) * depth);
        pgi_prefetch next = {.rows = 0};
        if (next_kc > 0 && rows > FEW_ROWS)
            next = pgi_prefetch_start(part + kc * element, task->w_bytes, end - begin, next_kc * element,
                                      n_tiles * n_panels);
        for (int64_t t = 0; t < n_tiles; t++) { /* tiles of nearly equal height */
            int64_t row = rows * t / n_tiles, m = rows * (t + 1) / n_tiles - row;
            for (int64_t n = begin; n < end; n += nr) {
                pgi_prefetch_step(&next);
                kernels->gemm_bf16((int)m, (int)pgi_min64(nr, end - n), kc, copy + row * PGI_GEMM_BF16_LDA,
                                   panels + (n - begin) * depth, task->y + row * task->y_stride + n, task->y_stride,
                                   k0 > 0, bias ? bias + n : NULL);
            }
        }
    }
}

pg_status pgi_bf16_linear(const pgi_run *run, const float *x, int64_t x_stride, int64_t rows, const pgi_linear *linear,
                          float *y, int64_t y_stride, void *scratch) {
    const pgi_kernels *kernels = run->kernels;
    const pgi_matrix *w = &linear->weight;
    bf16_task task = {.run = run,
                      .x_stride = x_stride,
                      .linear = linear,
                      .y_stride = y_stride,
                      .w_bytes = w->columns * (int64_t)pgi_dtype_size(w->dtype),
                      .pack = w->dtype == PG_DTYPE_F32    ? kernels->pack_pairs_f32
                              : w->dtype == PG_DTYPE_BF16 ? kernels->pack_pairs_bf16
                                                          : kernels->pack_pairs_f16,
                      .copy = scratch,
                      .panels = (char *)scratch + copy_bytes()};
    const int64_t nr = kernels->gemm_bf16_nr, block = w->rows / ((int64_t)run->n_threads * TASKS_PER_THREAD) / nr * nr;
    task.column_block = rows <= FEW_ROWS ? nr : block < 2 * nr ? 2 * nr : pgi_min64(block, COLUMN_BLOCK);
    const int64_t n_blocks = (rows + COPY_ROWS - 1) / COPY_ROWS;
    for (int64_t b = 0; b < n_blocks; b++) { /* of nearly equal height */
        const int64_t first_row = rows * b / n_blocks;
        task.rows = rows * (b + 1) / n_blocks - first_row;
        task.x = x + first_row * x_stride;
        task.y = y + first_row * y_stride;
        const int64_t span = COPY_ROWS / task.rows * PGI_GEMM_BF16_KC;
        for (task.first_input = 0; task.first_input < w->columns; task.first_input += span) {
            task.inputs = pgi_min64(span, w->columns - task.first_input);
            PGI_TRY(pgi_parallel_for(run, task.rows, 1 + COPIED / task.inputs, round_rows, &task));
            PGI_TRY(pgi_parallel_for(run, w->rows, task.column_block, multiply_columns, &task));
            if (atomic_load(&task.stopped)) return pgi_run_cancelled_error();
        }
    }
    return PG_OK;
}
