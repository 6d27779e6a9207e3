/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * pgi_matmul_run(): as ops/linear.c multiplies many rows, for any layout of the factors.
 *
 * A block of rows of a is copied with a span of the summed dimension; tasks own a block of columns and, where there are
 * few of these, a part of the rows. A task packs its part of b and multiplies it by the copy, tile by tile.
 *
 * bf16 weights on a CPU with AMX: a is split into three values of bf16, a = high + middle + low exactly, and each is
 * multiplied by b with tiles. Products are exact and sums f32, so that nothing is lost beside f32 arithmetic, and three
 * products of tiles are several times as fast as one of f32.
 */
#include "train/matmul.h"

#include <stdatomic.h>
#include <string.h>

#include "base/parallel.h"
#include "ops/gemm_format.h"

enum {
    ROWS = 512,           /* of a that are copied at once */
    SPANS = 4,            /* of kc values that are copied at once */
    COLUMNS = 128,        /* of a task, a multiple of every nr */
    TASKS_PER_THREAD = 4, /* more tasks than threads, because threads are not equally fast */
    PLANES = 3,           /* that a is split into */
    COPIED = 16           /* rows of a task that copies */
};
_Static_assert(COLUMNS % PGI_GEMM_NR_MAX == 0, "panels fill a task");

typedef struct matmul_task {
    const pgi_run *run;
    const pgi_matmul *product;
    pgi_gemm_format format;
    int planes;
    int64_t element;                      /* bytes of a value of b */
    int64_t first_row, rows, first, span; /* what is under way of a's rows, and of the summed dimension */
    int64_t part_rows, n_blocks;          /* rows of a task; blocks of columns */
    char *copy;                           /* [planes, span / kc rounded up, rows, PGI_GEMM_A_ROW] */
    char *panels;                         /* of the threads */
    atomic_int stopped;                   /* a task saw the cancel flag */
} matmul_task;

static size_t copy_bytes(const pgi_kernels *kernels) {
    return (kernels->gemm_bf16_deep ? (size_t)PLANES : 1) * ROWS * SPANS * PGI_GEMM_A_ROW;
}
static size_t panel_bytes(void) { return (size_t)COLUMNS * PGI_GEMM_KC * sizeof(float); } /* as many of bf16 */

size_t pgi_matmul_scratch(const pgi_kernels *kernels, int n_threads) {
    return copy_bytes(kernels) + panel_bytes() * (size_t)n_threads;
}

static char *copy_of(const matmul_task *t, int plane, int64_t k0, int64_t row) {
    const int64_t kc = t->format.kc, blocks = pgi_ceil_div64(t->span, kc);
    return t->copy + ((plane * blocks + k0 / kc) * t->rows + row) * PGI_GEMM_A_ROW;
}

/* n values of row `row` of a from `k` on, times the scale. */
static void read_row(const pgi_matmul *p, int64_t row, int64_t k, int64_t n, float *to) {
    if (!p->a_transposed && p->scale == 1.0f) {
        memcpy(to, p->a + row * p->a_stride + k, (size_t)n * sizeof *to);
        return;
    }
    const float *from = p->a_transposed ? p->a + k * p->a_stride + row : p->a + row * p->a_stride + k;
    const int64_t step = p->a_transposed ? p->a_stride : 1;
    for (int64_t i = 0; i < n; i++) to[i] = from[i * step] * p->scale;
}

/* Item: a row of the copy. Rows of a transposed factor lie side by side, so that COPIED of them share cache lines. */
static void copy_rows(void *context, int64_t begin, int64_t end, int thread) {
    matmul_task *t = context;
    const pgi_matmul *p = t->product;
    float values[PGI_GEMM_BF16_KC];
    (void)thread;
    for (int64_t k0 = 0; k0 < t->span; k0 += t->format.kc) {
        const int64_t n = pgi_min64(t->format.kc, t->span - k0);
        for (int64_t r = begin; r < end; r++) {
            if (t->planes == 1) {
                read_row(p, t->first_row + r, t->first + k0, n, (float *)(void *)copy_of(t, 0, k0, r));
                continue;
            }
            read_row(p, t->first_row + r, t->first + k0, n, values);
            for (int plane = 0; plane < PLANES; plane++) {
                uint16_t *to = (uint16_t *)(void *)copy_of(t, plane, k0, r);
                t->run->kernels->round_bf16(values, n, 1, to);
                for (int64_t i = 0; i < n && plane + 1 < PLANES; i++) {
                    const uint32_t bits = (uint32_t)to[i] << 16;
                    float rounded;
                    memcpy(&rounded, &bits, sizeof rounded);
                    values[i] -= rounded;
                }
            }
        }
    }
}

/* A line of pairs of two rows of bf16, of any alignment; b NULL: zeros. */
static void pair_bf16(const char *a, const char *b, int64_t n, int64_t nr, char *to) {
    static const uint16_t zeros[PGI_GEMM_NR_MAX];
    if (!b) b = (const char *)zeros;
    for (int64_t i = 0; i < n; i++) {
        memcpy(to + 4 * i, a + 2 * i, 2);
        memcpy(to + 4 * i + 2, b + 2 * i, 2);
    }
    if (n < nr) memset(to + 4 * n, 0, (size_t)(4 * (nr - n)));
}

/* Comes into the cache while the rows before it are packed: each is on a page of its own. */
static void prefetch_row(const char *row, int64_t n_bytes) {
    for (int64_t i = 0; i < n_bytes; i += 64) __builtin_prefetch(row + i);
}

/* Panels of rows k .. k + n of b [k, n]. A row is read once for all of them. */
static void pack_natural(const matmul_task *t, int64_t k, int64_t n, int64_t column, int64_t columns, char *panels) {
    enum { AHEAD = 16 };
    const pgi_matmul *p = t->product;
    const pgi_kernels *kernels = t->run->kernels;
    void (*const expand)(const void *, int64_t, float, float *) = p->b_dtype == PG_DTYPE_F32    ? kernels->expand_f32
                                                                  : p->b_dtype == PG_DTYPE_BF16 ? kernels->expand_bf16
                                                                                                : kernels->expand_f16;
    const int64_t nr = t->format.nr, row_bytes = p->b_stride * t->element, step = t->format.pair;
    const int64_t size = pgi_gemm_panel_bytes(&t->format, n);
    const char *row = (const char *)p->b + (k * p->b_stride + column) * t->element;
    for (int64_t i = 0; i < n; i += step, row += step * row_bytes) {
        for (int64_t ahead = i + AHEAD; ahead < pgi_min64(n, i + AHEAD + step); ahead++)
            prefetch_row(row + (ahead - i) * row_bytes, columns * t->element);
        for (int64_t j = 0; j < columns; j += nr) {
            const int64_t width = pgi_min64(nr, columns - j);
            const char *from = row + j * t->element;
            char *to = panels + j / nr * size + i * nr * t->format.element;
            if (t->format.bf16) {
                pair_bf16(from, i + 1 < n ? from + row_bytes : NULL, width, nr, to);
                continue;
            }
            expand(from, width, 1, (float *)(void *)to);
            for (int64_t rest = width; rest < nr; rest++) ((float *)(void *)to)[rest] = 0;
        }
    }
}

/* The panels of n values of the sum and `columns` columns. */
static void pack(const matmul_task *t, int64_t k, int64_t n, int64_t column, int64_t columns, char *panels) {
    const pgi_matmul *p = t->product;
    const int64_t nr = t->format.nr, size = pgi_gemm_panel_bytes(&t->format, n);
    if (!p->b_transposed) {
        pack_natural(t, k, n, column, columns, panels);
        return;
    }
    for (int64_t j = 0; j < columns; j += nr) {
        const char *from = (const char *)p->b + ((column + j) * p->b_stride + k) * t->element;
        pgi_gemm_pack(t->run->kernels, &t->format, p->b_dtype, from, p->b_stride * t->element,
                      pgi_min64(nr, columns - j), n, panels + j / nr * size);
    }
}

/* The rows begin .. end of the copy, times the panels of `columns` columns and n values of the sum. */
static void multiply(const matmul_task *t, const char *panels, int64_t begin, int64_t end, int64_t k0, int64_t n,
                     int64_t column, int64_t columns) {
    const pgi_gemm_format *f = &t->format;
    const pgi_matmul *p = t->product;
    const int64_t size = pgi_gemm_panel_bytes(f, n), n_tiles = pgi_gemm_tiles(f, end - begin);
    for (int64_t tile = 0; tile < n_tiles; tile++) {
        const int64_t row = begin + pgi_gemm_tile_row(f, end - begin, tile, n_tiles);
        const int64_t m = begin + pgi_gemm_tile_row(f, end - begin, tile + 1, n_tiles) - row;
        float *c = p->c + (t->first_row + row) * p->c_stride + column;
        for (int64_t j = 0; j < columns; j += f->nr)
            for (int plane = 0; plane < t->planes; plane++)
                pgi_gemm_tile(t->run->kernels, f, m, pgi_min64(f->nr, columns - j), n, copy_of(t, plane, k0, row),
                              panels + j / f->nr * size, c + j, p->c_stride,
                              p->accumulate || plane > 0 || t->first + k0 > 0, NULL);
    }
}

/* Item: a block of columns and a part of the rows. */
static void multiply_blocks(void *context, int64_t begin, int64_t end, int thread) {
    matmul_task *t = context;
    const pgi_gemm_format *f = &t->format;
    char *panels = t->panels + (size_t)thread * panel_bytes();
    if (f->bf16) t->run->kernels->gemm_bf16_begin();
    for (int64_t item = begin; item < end; item++) {
        const int64_t column = item % t->n_blocks * COLUMNS, row = item / t->n_blocks * t->part_rows;
        const int64_t columns = pgi_min64(COLUMNS, t->product->n - column);
        for (int64_t k0 = 0; k0 < t->span; k0 += f->kc) {
            if (pgi_run_cancelled(t->run)) {
                atomic_store_explicit(&t->stopped, 1, memory_order_relaxed);
                break;
            }
            const int64_t n = pgi_min64(f->kc, t->span - k0);
            pack(t, t->first + k0, n, column, columns, panels);
            multiply(t, panels, row, pgi_min64(row + t->part_rows, t->rows), k0, n, column, columns);
        }
    }
    if (f->bf16) t->run->kernels->gemm_bf16_end();
}

/* A block of rows and a span. */
static pg_status run_block(matmul_task *t, const pgi_run *run) {
    const int64_t wanted = (int64_t)run->n_threads * TASKS_PER_THREAD;
    t->n_blocks = pgi_ceil_div64(t->product->n, COLUMNS);
    const int64_t parts = pgi_min64(pgi_ceil_div64(wanted, t->n_blocks), pgi_ceil_div64(t->rows, t->format.mr));
    t->part_rows = pgi_ceil_div64(pgi_ceil_div64(t->rows, parts), t->format.mr) * t->format.mr;
    PGI_TRY(pgi_parallel_for(run, t->rows, COPIED, copy_rows, t));
    PGI_TRY(pgi_parallel_for(run, t->n_blocks * pgi_ceil_div64(t->rows, t->part_rows), 1, multiply_blocks, t));
    return atomic_load_explicit(&t->stopped, memory_order_relaxed) ? pgi_run_cancelled_error() : PG_OK;
}

pg_status pgi_matmul_run(const pgi_run *run, const pgi_matmul *product, void *scratch) {
    const pgi_matmul *p = product;
    const int split = p->b_dtype == PG_DTYPE_BF16 && run->kernels->gemm_bf16_deep;
    matmul_task t = {.product = p,
                     .format = pgi_gemm_format_of(run->kernels, split),
                     .planes = split ? PLANES : 1,
                     .element = (int64_t)pgi_dtype_size(p->b_dtype),
                     .copy = scratch,
                     .panels = (char *)scratch + copy_bytes(run->kernels)};
    pgi_run alone;
    run = pgi_run_for_work(run, 2.0 * (double)p->m * (double)p->n * (double)p->k, &alone);
    t.run = run;
    if (p->n == 0) return PG_OK;
    if (p->k == 0 && !p->accumulate)
        for (int64_t r = 0; r < p->m; r++) memset(p->c + r * p->c_stride, 0, (size_t)p->n * sizeof *p->c);
    for (t.first_row = 0; t.first_row < p->m; t.first_row += ROWS)
        for (t.first = 0; t.first < p->k; t.first += SPANS * t.format.kc) {
            t.rows = pgi_min64(ROWS, p->m - t.first_row);
            t.span = pgi_min64(SPANS * t.format.kc, p->k - t.first);
            PGI_TRY(run_block(&t, run));
        }
    return PG_OK;
}
