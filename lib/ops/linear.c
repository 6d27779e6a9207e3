/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * pgi_linear_forward(): y = x W^T + b, with weights of f32, bf16 or f16. int8 and int4 weights are in
 * linear_quantized.c.
 *
 * Few rows (decode): the weights are streamed once, in their own format (gemv).
 * Many rows: x is cut into blocks of rows and spans of inputs. Each is copied once to where the tiles of all tasks
 * read it without conflicts in the cache. A task owns a block of output columns. For every kc inputs it packs its part
 * of W to panels that stay in the second-level cache, then goes through the rows of x tile by tile; meanwhile it
 * prefetches the next part of W. (gemm_bf16_panels takes more inputs at once. Beside it nothing is prefetched: lines on
 * their way from memory take the buffers that its tiles come through from the second-level cache.) Copy and panels are
 * f32, or bf16 where kernels->bf16_linear says so; sums are f32. Every output is summed in the same order however the
 * work is cut, so a row does not depend on the threads. Nor does it depend on the other rows, except that the two paths
 * round differently (at PGI_GEMV_ROWS rows).
 */
#include "ops/ops.h"

#include <stdatomic.h>
#include <string.h>

#include "base/parallel.h"
#include "kernels/kernels.h"
#include "kernels/prefetch.h"
#include "kernels/quantized.h"
#include "ops/gemm_format.h"
#include "ops/gemv_of.h"
#include "ops/linear_quantized.h"
#include "ops/low_rank.h"

enum {
    GEMV_CHUNK_BYTES = 256 * 1024, /* weights of a streamed task, */
    GEMV_CHUNK_ROWS = 24,          /* a multiple of so many rows: of what the kernels take side by side */
    ONE_STREAM_LEAST = 1024,       /* inputs of a layer that is read in one stream, */
    ONE_STREAM_X = 4608,           /* and values of x beside it: half of a first-level cache of 32 KiB, and a little */
    TASKS_PER_THREAD = 6,          /* more tasks than threads, because threads are not equally fast */
    FEW_ROWS = 32,                 /* up to here packing takes the time: panel by panel, used at once */
    COPIED = 65536,                /* values of a task that copies */
    DEEP_ROWS = 16,                /* of gemm_bf16_panels: multiples of these are filled up with zeros */
    DEEP_VALUES = 32
};

/* How the work of many rows is cut, by format. Fewer rows are copied with more inputs, in the same bytes. */
typedef struct block_limits {
    int64_t rows, spans;  /* of x that are copied at once, with `spans` times kc inputs */
    int64_t column_block; /* output columns of a task at the most */
} block_limits;

static block_limits limits_of(const pgi_gemm_format *f) {
    if (f->bf16) return (block_limits){8192, 1, 128}; /* 17 MB */
    /* A low tile is read again for fewer products, so it should meet more columns. */
    return (block_limits){512, 4, f->mr > 8 ? 128 : 256};
}

typedef struct linear_task {
    const pgi_run *run;
    const float *x; /* [rows, in] */
    int64_t x_stride, rows;
    const pgi_linear *linear;
    float *y; /* [rows, out] */
    int64_t y_stride;
    int64_t w_bytes;          /* of a row of W */
    pgi_gemv gemv;            /* of few rows; */
    pgi_gemv_product product; /* the one for those under way */
    pgi_gemm_format format;
    int64_t first_row, n_rows;   /* the rows of x, */
    int64_t copied_rows;         /* n_rows, or more where rows of zeros follow, */
    int64_t first_input, inputs; /* and the inputs, that are under way */
    char *copy;                  /* of those: [inputs / kc rounded up, copied_rows, PGI_GEMM_A_ROW] */
    char *panels;                /* of the threads */
    pgi_low_rank_rows added;     /* to the rows that are under way */
    atomic_int stopped;          /* a task saw the cancel flag and left its part undone */
} linear_task;

static size_t copy_bytes(const pgi_gemm_format *f) {
    const block_limits limits = limits_of(f);
    return (size_t)(limits.rows * limits.spans * PGI_GEMM_A_ROW);
}
/* The panels of a column block; of bf16 as many as gemm_bf16_panels takes. */
static size_t thread_bytes(const pgi_gemm_format *f) {
    return (size_t)(f->bf16 ? PGI_PANEL_COLUMNS * PGI_PANEL_VALUES : limits_of(f).column_block * f->kc) *
           (size_t)f->element;
}

/* Scratch of layers that adapters add nothing to. */
static size_t plain_scratch(const pgi_kernels *kernels, int n_threads) {
    size_t most = pgi_quantized_scratch(n_threads);
    const int with_bf16 = kernels->bf16_linear || (kernels->low_rank && kernels->bf16_attention);
    for (int bf16 = 0; bf16 <= with_bf16; bf16++) {
        const pgi_gemm_format f = pgi_gemm_format_of(kernels, bf16);
        size_t bytes = copy_bytes(&f) + thread_bytes(&f) * (size_t)n_threads;
        if (bytes > most) most = bytes;
    }
    return (most + 63) / 64 * 64;
}

/* Rows whose low-rank parts have room, as many as are copied at once. */
static int64_t low_rank_rows(const pgi_kernels *kernels) {
    const pgi_gemm_format f = pgi_gemm_format_of(kernels, kernels->bf16_linear);
    return limits_of(&f).rows;
}

size_t pgi_linear_scratch(const pgi_kernels *kernels, int n_threads) {
    return plain_scratch(kernels, n_threads) + pgi_low_rank_scratch(kernels, n_threads, low_rank_rows(kernels));
}

int64_t pgi_linear_few_rows(const pgi_kernels *kernels) { return kernels->low_rank ? PGI_LOW_RANK_FEW : PGI_GEMV_ROWS; }

pgi_low_rank_rows pgi_linear_low_rank(const pgi_run *run, const pgi_linear *linear, int index, void *scratch) {
    if (!linear->low_rank) return (pgi_low_rank_rows){0};
    return pgi_low_rank_rows_in(run->kernels, run->n_threads, low_rank_rows(run->kernels),
                                (char *)scratch + plain_scratch(run->kernels, run->n_threads), index, linear);
}

static void gemv_columns(void *context, int64_t begin, int64_t end, int thread) {
    const linear_task *task = context;
    const pgi_linear *linear = task->linear;
    float *y = task->y + task->first_row * task->y_stride + begin;
    task->product((int)task->n_rows, end - begin, linear->weight.columns, (const float *)task->copy,
                  (const char *)linear->weight.data + begin * task->w_bytes, task->w_bytes,
                  linear->bias ? linear->bias + begin : NULL, y, task->y_stride);
    pgi_low_rank_add(task->run->kernels, &task->added, thread, 0, task->n_rows, begin, end - begin, y, task->y_stride);
}

/* Whether A x is computed from the copies of x. */
static int adds_to_copies(const linear_task *task) {
    return task->added.of && !task->added.few && task->added.of->bf16 == task->format.bf16;
}

/* A x of the rows that are under way, unless it is. */
static pg_status begin_low_rank(linear_task *task, int on_tiles, void *scratch) {
    task->added = pgi_linear_low_rank(task->run, task->linear, 0, scratch);
    pgi_low_rank_set_rows(task->run->kernels, &task->added, task->first_row, task->n_rows, on_tiles);
    if (adds_to_copies(task)) return PG_OK;
    return pgi_low_rank_begin(task->run, &task->added, task->x + task->first_row * task->x_stride, task->x_stride,
                              task->n_rows);
}

/* Whether x stays in the first-level cache beside one stream of weights, and rows are so long that the end of each,
 * where its sums are added up, is of no account. */
static int in_one_stream(const pgi_kernels *kernels, int64_t rows, int64_t columns) {
    return kernels->one_stream && rows <= PGI_ONE_STREAM_ROWS && columns >= ONE_STREAM_LEAST &&
           rows * columns <= ONE_STREAM_X;
}

/* As many rows at once as the copy has room for: all, but of layers with more inputs than models have. */
static pg_status gemv_forward(linear_task *task, char *scratch) {
    const pgi_run *run = task->run;
    const pgi_matrix *w = &task->linear->weight;
    const pgi_gemm_format f = pgi_gemm_format_of(run->kernels, 0);
    const int64_t row =
        pgi_ceil_div64(pgi_max64(1, w->columns), PGI_GEMV_UNIT) * PGI_GEMV_UNIT * (int64_t)sizeof(float);
    const int64_t unit = GEMV_CHUNK_ROWS, chunk = GEMV_CHUNK_BYTES / pgi_max64(1, task->w_bytes) / unit * unit;
    const int64_t at_once = pgi_max64(1, (int64_t)copy_bytes(&f) / row);
    task->copy = scratch;
    for (task->first_row = 0; task->first_row < task->rows; task->first_row += task->n_rows) {
        task->n_rows = pgi_min64(at_once, task->rows - task->first_row);
        task->product =
            in_one_stream(run->kernels, task->n_rows, w->columns) ? task->gemv.one_stream : task->gemv.product;
        PGI_TRY(begin_low_rank(task, 0, scratch));
        task->gemv.x((int)task->n_rows, w->columns, task->x + task->first_row * task->x_stride, task->x_stride,
                     (float *)task->copy);
        PGI_TRY(pgi_parallel_for(run, w->rows, pgi_max64(unit, chunk), gemv_columns, task));
    }
    return PG_OK;
}

/* Whether the product is one of gemm_bf16_panels. */
static int deep(const linear_task *task) { return task->format.bf16 && task->run->kernels->gemm_bf16_deep; }

/* n values, and the zeros that fill them up for it. */
static int64_t filled_up(int64_t n) { return pgi_ceil_div64(n, DEEP_VALUES) * DEEP_VALUES; }

/* Item: a row of the copy, and A x of it. */
static void copy_rows(void *context, int64_t begin, int64_t end, int thread) {
    const linear_task *task = context;
    const pgi_gemm_format *f = &task->format;
    (void)thread;
    for (int64_t k0 = 0; k0 < task->inputs; k0 += f->kc) {
        const int64_t n = pgi_min64(f->kc, task->inputs - k0);
        char *to = task->copy + (k0 / f->kc * task->copied_rows + begin) * PGI_GEMM_A_ROW;
        const float *from = task->x + (task->first_row + begin) * task->x_stride + task->first_input + k0;
        for (int64_t r = begin; r < end; r++, to += PGI_GEMM_A_ROW, from += task->x_stride) {
            if (f->bf16)
                task->run->kernels->round_bf16(from, n, 1, (uint16_t *)to);
            else
                memcpy(to, from, (size_t)n * sizeof(float));
            if (deep(task)) memset(to + n * f->element, 0, (size_t)((filled_up(n) - n) * f->element));
        }
        if (end == task->n_rows) memset(to, 0, (size_t)((task->copied_rows - end) * PGI_GEMM_A_ROW));
    }
    if (adds_to_copies(task))
        pgi_low_rank_copied(task->run->kernels, &task->added, task->copy + begin * PGI_GEMM_A_ROW,
                            task->copied_rows * PGI_GEMM_A_ROW, task->first_input, task->inputs, begin, end - begin);
}

/* Item: an output column. */
static void gemm_columns(void *context, int64_t begin, int64_t end, int thread) {
    linear_task *task = context;
    const pgi_kernels *kernels = task->run->kernels;
    const pgi_gemm_format *f = &task->format;
    const pgi_matrix *w = &task->linear->weight;
    const float *bias = task->linear->bias;
    char *panels = task->panels + (size_t)thread * thread_bytes(f); /* [panels, pgi_gemm_panel_bytes(kc)] */
    float *y = task->y + task->first_row * task->y_stride;
    const int64_t nr = f->nr, rows = task->n_rows, w_bytes = task->w_bytes;
    const int64_t n_tiles = pgi_gemm_tiles(f, rows), n_panels = pgi_ceil_div64(end - begin, nr);
    const int64_t element = (int64_t)pgi_dtype_size(w->dtype), last_input = task->first_input + task->inputs;

    for (int64_t k0 = task->first_input; k0 < last_input; k0 += f->kc) {
        if (pgi_run_cancelled(task->run)) {
            atomic_store_explicit(&task->stopped, 1, memory_order_relaxed);
            return;
        }
        const int64_t kc = pgi_min64(f->kc, last_input - k0), next_kc = pgi_min64(kc, last_input - k0 - kc);
        const int64_t panel_bytes = pgi_gemm_panel_bytes(f, kc);
        const char *part = (const char *)w->data + begin * w_bytes + k0 * element;
        const char *copy = task->copy + (k0 - task->first_input) / f->kc * rows * PGI_GEMM_A_ROW;
        for (int64_t p = 0; p < n_panels; p++)
            pgi_gemm_pack(kernels, f, w->dtype, part + p * nr * w_bytes, w_bytes, pgi_min64(nr, end - begin - p * nr),
                          kc, panels + p * panel_bytes);
        pgi_prefetch next = {.rows = 0};
        if (next_kc > 0 && rows > FEW_ROWS)
            next = pgi_prefetch_start(part + kc * element, w_bytes, end - begin, next_kc * element, n_tiles * n_panels);
        for (int64_t t = 0; t < n_tiles; t++) { /* tiles of nearly equal height */
            const int64_t row = pgi_gemm_tile_row(f, rows, t, n_tiles);
            const int64_t m = pgi_gemm_tile_row(f, rows, t + 1, n_tiles) - row;
            const char *panel = panels;
            for (int64_t n = begin; n < end; n += nr, panel += panel_bytes) {
                pgi_prefetch_step(&next);
                pgi_gemm_tile(kernels, f, m, pgi_min64(nr, end - n), kc, copy + row * PGI_GEMM_A_ROW, panel,
                              y + row * task->y_stride + n, task->y_stride, k0 > 0, bias ? bias + n : NULL);
            }
        }
    }
    if (last_input == w->columns)
        pgi_low_rank_add(kernels, &task->added, thread, 0, rows, begin, end - begin, y + begin, task->y_stride);
}

/* Item: an output column, in column blocks. As gemm_columns, but of more inputs at once. */
static void panel_columns(void *context, int64_t begin, int64_t end, int thread) {
    linear_task *task = context;
    const pgi_kernels *kernels = task->run->kernels;
    const pgi_gemm_format *f = &task->format;
    const pgi_matrix *w = &task->linear->weight;
    const float *bias = task->linear->bias;
    char *panels = task->panels + (size_t)thread * thread_bytes(f);
    float *y = task->y + task->first_row * task->y_stride;
    const int64_t nr = f->nr, rows = task->n_rows, n_tiles = pgi_gemm_tiles(f, rows);
    const int64_t element = (int64_t)pgi_dtype_size(w->dtype), last_input = task->first_input + task->inputs;
    for (int64_t first = begin, n; first < end; first += n) {
        n = pgi_min64(end - first, PGI_PANEL_COLUMNS);
        for (int64_t k0 = task->first_input, k; k0 < last_input; k0 += k) {
            if (pgi_run_cancelled(task->run)) {
                atomic_store_explicit(&task->stopped, 1, memory_order_relaxed);
                return;
            }
            k = pgi_min64(last_input - k0, PGI_PANEL_VALUES);
            const int64_t panel_bytes = pgi_gemm_panel_bytes(f, filled_up(k)), packed = pgi_gemm_panel_bytes(f, k);
            for (int64_t p = 0; p * nr < n; p++) {
                pgi_gemm_pack(kernels, f, w->dtype,
                              (const char *)w->data + (first + p * nr) * task->w_bytes + k0 * element, task->w_bytes,
                              pgi_min64(nr, n - p * nr), k, panels + p * panel_bytes);
                memset(panels + p * panel_bytes + packed, 0, (size_t)(panel_bytes - packed));
            }
            for (int64_t t = 0; t < n_tiles; t++) {
                const int64_t row = pgi_gemm_tile_row(f, rows, t, n_tiles);
                kernels->gemm_bf16_panels(&(pgi_panel_product){
                    .m = (int)(pgi_gemm_tile_row(f, rows, t + 1, n_tiles) - row),
                    .n = (int)n,
                    .k = k,
                    .a = (const uint16_t *)(const void *)(task->copy +
                                                          ((k0 - task->first_input) / f->kc * task->copied_rows + row) *
                                                              PGI_GEMM_A_ROW),
                    .a_block = task->copied_rows * PGI_GEMM_BF16_LDA,
                    .panels = (const uint16_t *)(const void *)panels,
                    .panel = panel_bytes / 2,
                    .c = y + row * task->y_stride + first,
                    .c_stride = task->y_stride,
                    .accumulate = k0 > 0,
                    .bias = bias ? bias + first : NULL,
                    .low = k0 > 0 ? (pgi_low_rank_start){0} : pgi_low_rank_start_of(kernels, &task->added, row, first),
                });
            }
        }
        if (last_input == w->columns)
            pgi_low_rank_add(kernels, &task->added, thread, 0, rows, first, n, y + first, task->y_stride);
    }
}

/* More than PGI_GEMV_ROWS rows and at least one input. */
static pg_status gemm_forward(linear_task *task, char *scratch) {
    const pgi_run *run = task->run;
    const pgi_matrix *w = &task->linear->weight;
    task->format = pgi_gemm_format_of(run->kernels, run->kernels->bf16_linear);
    const pgi_gemm_format *f = &task->format;
    const block_limits limits = limits_of(f);
    task->copy = scratch;
    task->panels = scratch + copy_bytes(f);
    const int64_t rows = task->rows, nr = f->nr;
    const int64_t share = w->rows / ((int64_t)run->n_threads * TASKS_PER_THREAD) / nr * nr;
    int64_t column_block = rows <= FEW_ROWS ? nr : share < 2 * nr ? 2 * nr : pgi_min64(share, limits.column_block);
    const int64_t n_blocks = pgi_ceil_div64(rows, limits.rows);
    for (int64_t b = 0; b < n_blocks; b++) { /* of nearly equal height */
        task->first_row = rows * b / n_blocks;
        task->n_rows = rows * (b + 1) / n_blocks - task->first_row;
        PGI_TRY(begin_low_rank(task, deep(task), scratch));
        task->copied_rows = deep(task) ? pgi_ceil_div64(task->n_rows, DEEP_ROWS) * DEEP_ROWS : task->n_rows;
        const int64_t span = limits.rows / task->copied_rows * limits.spans * f->kc;
        for (task->first_input = 0; task->first_input < w->columns; task->first_input += span) {
            task->inputs = pgi_min64(span, w->columns - task->first_input);
            PGI_TRY(pgi_parallel_for(run, task->n_rows, 1 + COPIED / task->inputs, copy_rows, task));
            PGI_TRY(pgi_parallel_for(run, w->rows, column_block, deep(task) ? panel_columns : gemm_columns, task));
            if (atomic_load(&task->stopped)) return pgi_run_cancelled_error();
        }
    }
    return PG_OK;
}

pg_status pgi_linear_forward(const pgi_run *run, const float *x, int64_t x_stride, int64_t rows,
                             const pgi_linear *linear, float *y, int64_t y_stride, void *scratch) {
    const pgi_kernels *kernels = run->kernels;
    const pgi_matrix *w = &linear->weight;
    if (rows <= 0 || w->rows <= 0) return PG_OK;
    if (run->observer) PGI_TRY(run->observer->linear(run->observer->user, run, linear, x, x_stride, rows));
    pgi_run alone;
    run = pgi_run_for_work(run, 2.0 * (double)rows * (double)w->rows * (double)w->columns, &alone);
    if (pgi_dtype_is_blocks(w->dtype)) {
        const pgi_linear_job output = {linear, y, y_stride};
        return pgi_quantized_linears(run, x, x_stride, rows, &output, 1, scratch);
    }
    linear_task task = {.run = run,
                        .x = x,
                        .x_stride = x_stride,
                        .rows = rows,
                        .linear = linear,
                        .y = y,
                        .y_stride = y_stride,
                        .w_bytes = w->columns * (int64_t)pgi_dtype_size(w->dtype)};
    task.gemv = pgi_gemv_of(kernels, w->dtype);
    if (!task.gemv.product)
        return pgi_error(PG_ERROR_INTERNAL, "linear layer: found weights of dtype %d", (int)w->dtype);
    if (rows > PGI_GEMV_ROWS && w->columns > 0) return gemm_forward(&task, scratch);
    return gemv_forward(&task, scratch);
}
