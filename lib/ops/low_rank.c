/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The low-rank parts of linear layers: low_rank.h. */
#include "ops/low_rank.h"

#include <string.h>

#include "base/float16.h"
#include "base/parallel.h"
#include "kernels/kernels.h"
#include "kernels/quantized.h"
#include "ops/gemm_format.h"
#include "ops/gemv_of.h"

enum {
    BLOCK = PGI_LOW_RANK_BLOCK,
    WHOLE_VALUES = 32, /* of bf16, which tiles of AMX take without copies */
    TILE_ROWS = 16,    /* of AMX */
    PIECE = 8          /* rows of A that few rows meet in an item */
};

/* The scratch of a thread: rows as products read them, and a tile of results. */
typedef struct thread_tiles {
    char a[PGI_GEMM_MR_MAX * PGI_GEMM_A_ROW];
    float c[PGI_GEMM_MR_MAX * PGI_GEMM_NR_MAX];
} thread_tiles;

/* ------------------------------------------------------------------------------------------------------- layout */

static int rounds(const pgi_kernels *kernels, int32_t weights) {
    return weights != PG_WEIGHTS_STORED || kernels->bf16_linear;
}
static int panels_are_bf16(const pgi_kernels *kernels) { return kernels->bf16_linear || kernels->bf16_attention; }

static size_t aligned(size_t size) { return (size + 63) / 64 * 64; }

/* The rank with the zeros that fill up whole tiles. */
static int64_t filled_up(const pgi_gemm_format *f, int64_t rank) {
    return f->bf16 ? pgi_ceil_div64(rank, WHOLE_VALUES) * WHOLE_VALUES : rank;
}

/* Panels of a matrix [rows, k], and packs them; each has `filled` values, zeros behind the k. */
static size_t panel_bytes(const pgi_gemm_format *f, int64_t rows, int64_t filled) {
    return aligned((size_t)(pgi_ceil_div64(rows, f->nr) * pgi_gemm_panel_bytes(f, filled)));
}
static void pack(const pgi_kernels *kernels, const pgi_gemm_format *f, const pgi_matrix *w, int64_t filled,
                 char *panels) {
    const int64_t w_bytes = w->columns * (int64_t)pgi_dtype_size(w->dtype);
    const int64_t used = pgi_gemm_panel_bytes(f, w->columns), one = pgi_gemm_panel_bytes(f, filled);
    for (int64_t i = 0; i < w->rows; i += f->nr, panels += one) {
        pgi_gemm_pack(kernels, f, w->dtype, (const char *)w->data + i * w_bytes, w_bytes, pgi_min64(f->nr, w->rows - i),
                      w->columns, panels);
        memset(panels + used, 0, (size_t)(one - used));
    }
}

static size_t blocks_bytes(int64_t n, int64_t rank, int bf16) {
    return aligned((size_t)(pgi_ceil_div64(n, BLOCK) * BLOCK * rank) * (bf16 ? 2 : 4));
}

/* b [n, rank] to blocks, filled up with zeros. */
static void make_blocks(const float *b, int64_t n, int64_t rank, int32_t dtype, void *out) {
    for (int64_t i = 0, at = 0; i < n; i += BLOCK)
        for (int64_t k = 0; k < rank; k++)
            for (int64_t j = i; j < i + BLOCK; j++, at++) {
                const float value = j < n ? b[j * rank + k] : 0;
                if (dtype == PG_DTYPE_F32)
                    ((float *)out)[at] = value;
                else
                    ((uint16_t *)out)[at] = pgi_bf16_from_f32(value);
            }
}

float pgi_low_rank_b(const pgi_low_rank *of, int64_t output, int64_t k) {
    const int64_t at = (output / BLOCK * of->a.weight.rows + k) * BLOCK + output % BLOCK;
    return of->b_dtype == PG_DTYPE_F32 ? ((const float *)of->b_blocks)[at]
                                       : pgi_f32_from_bf16(((const uint16_t *)of->b_blocks)[at]);
}

/* A is copied where its values are rounded: bytes. */
static size_t copy_bytes(const pgi_kernels *kernels, int32_t weights, const pgi_matrix *a) {
    const int copies = rounds(kernels, weights) && a->dtype != PG_DTYPE_BF16;
    return copies ? aligned((size_t)(a->rows * a->columns) * 2) : 0;
}

static void round_a(const pgi_kernels *kernels, const pgi_matrix *a, uint16_t *out) {
    enum { PART = 256 };
    float part[PART];
    for (int64_t i = 0, n = a->rows * a->columns; i < n; i += PART) {
        const pgi_matrix of_a = {(const char *)a->data + i * (int64_t)pgi_dtype_size(a->dtype), a->dtype, 1,
                                 pgi_min64(PART, n - i), NULL};
        pgi_matrix_row(kernels, &of_a, 0, 1.0f, part);
        kernels->round_bf16(part, of_a.columns, 1, out + i);
    }
}

static size_t a_blocks_bytes(int32_t weights, const pgi_matrix *a) {
    return weights == PG_WEIGHTS_STORED ? 0 : (size_t)pgi_quantized_bytes(PGI_DTYPE_INT8_BLOCKS, a->rows, a->columns);
}

size_t pgi_low_rank_size(const pgi_kernels *kernels, int32_t weights, const pgi_matrix *a, int64_t n,
                         int is_embedding) {
    const pgi_gemm_format f = pgi_gemm_format_of(kernels, panels_are_bf16(kernels));
    const size_t blocks = blocks_bytes(n, a->rows, rounds(kernels, weights) && !is_embedding);
    if (is_embedding) return blocks;
    return blocks + a_blocks_bytes(weights, a) + copy_bytes(kernels, weights, a) +
           panel_bytes(&f, a->rows, a->columns) + panel_bytes(&f, n, filled_up(&f, a->rows));
}

pg_status pgi_low_rank_make(const pgi_kernels *kernels, int32_t weights, const pgi_matrix *a, const float *b, int64_t n,
                            int is_embedding, void *block, pgi_low_rank *out) {
    const pgi_gemm_format f = pgi_gemm_format_of(kernels, panels_are_bf16(kernels));
    const int bf16 = rounds(kernels, weights) && !is_embedding;
    const pgi_matrix all_b = {b, PG_DTYPE_F32, n, a->rows, NULL};
    char *next = block;
    out->a.weight = *a;
    out->b_dtype = bf16 ? PG_DTYPE_BF16 : PG_DTYPE_F32;
    out->b_blocks = next;
    make_blocks(b, n, a->rows, out->b_dtype, next);
    next += blocks_bytes(n, a->rows, bf16);
    if (is_embedding) return PG_OK;
    if (a_blocks_bytes(weights, a) > 0) {
        out->a_blocks.weight = (pgi_matrix){next, PGI_DTYPE_INT8_BLOCKS, a->rows, a->columns, NULL};
        PGI_TRY(pgi_quantize_panels(a, 0, PGI_DTYPE_INT8_BLOCKS, 0, pgi_quantized_panels(a->rows), next));
        next += a_blocks_bytes(weights, a);
    }
    if (copy_bytes(kernels, weights, a) > 0) {
        round_a(kernels, a, (uint16_t *)(void *)next);
        out->a.weight = (pgi_matrix){next, PG_DTYPE_BF16, a->rows, a->columns, NULL};
        next += copy_bytes(kernels, weights, a);
    }
    out->bf16 = f.bf16;
    out->a_panels = next;
    pack(kernels, &f, &out->a.weight, a->columns, next);
    next += panel_bytes(&f, a->rows, a->columns);
    out->b_panels = next;
    pack(kernels, &f, &all_b, filled_up(&f, a->rows), next);
    return PG_OK;
}

/* ------------------------------------------------------------------------------------------------------- scratch */

static size_t ax_floats(const pgi_kernels *kernels, int64_t rows) {
    return (size_t)pgi_ceil_div64(rows * kernels->low_rank, 16) * 16;
}
static size_t start_values(const pgi_kernels *kernels, int64_t rows) {
    const pgi_gemm_format f = pgi_gemm_format_of(kernels, 1);
    if (!panels_are_bf16(kernels) || !kernels->gemm_bf16_deep) return 0;
    return (size_t)(pgi_ceil_div64(rows, TILE_ROWS) * TILE_ROWS * filled_up(&f, kernels->low_rank));
}

size_t pgi_low_rank_scratch(const pgi_kernels *kernels, int n_threads, int64_t rows) {
    if (kernels->low_rank == 0) return 0;
    return sizeof(thread_tiles) * (size_t)n_threads +
           (ax_floats(kernels, rows) * sizeof(float) + start_values(kernels, rows) * sizeof(uint16_t)) *
               (size_t)PGI_LOW_RANK_LAYERS;
}

pgi_low_rank_rows pgi_low_rank_rows_in(const pgi_kernels *kernels, int n_threads, int64_t rows, void *scratch,
                                       int index, const pgi_linear *linear) {
    float *ax = (float *)((char *)scratch + sizeof(thread_tiles) * (size_t)n_threads);
    uint16_t *starts = (uint16_t *)(void *)(ax + PGI_LOW_RANK_LAYERS * ax_floats(kernels, rows));
    return (pgi_low_rank_rows){.of = linear->low_rank,
                               .ax = ax + (size_t)index * ax_floats(kernels, rows),
                               .start = starts + (size_t)index * start_values(kernels, rows),
                               .tiles = scratch};
}

void pgi_low_rank_set_rows(const pgi_kernels *kernels, pgi_low_rank_rows *added, int64_t first, int64_t n,
                           int on_tiles) {
    const pgi_low_rank *of = added->of;
    added->first_row = first;
    added->n_rows = n;
    added->few = n <= PGI_LOW_RANK_FEW;
    added->starts = of && !added->few && on_tiles && of->bf16 && kernels->gemm_bf16_deep && !of->gain && !of->constant;
}

/* What is added to a row of those under way; NULL: nothing. */
static const pgi_low_rank *part_of(const pgi_low_rank_rows *added, int64_t row) {
    return added->of->rows ? added->of->rows[added->first_row + row] : added->of;
}

/* The rows from `row` on that have the same part. */
static int64_t rows_alike(const pgi_low_rank_rows *added, int64_t row) {
    int64_t end = added->of->rows ? row + 1 : added->n_rows;
    while (end < added->n_rows && part_of(added, end) == part_of(added, row)) end++;
    return end - row;
}

static int64_t rank_of(const pgi_low_rank *part) { return part ? part->a.weight.rows : 0; }

int64_t pgi_low_rank_of_row(const pgi_low_rank_rows *added, int64_t row) { return rank_of(part_of(added, row)); }

/* ----------------------------------------------------------------------------------------------------------- A x */

/* To rows of products: `filled` values, zeros behind the n. */
static void copy_rows(const pgi_kernels *kernels, const pgi_gemm_format *f, const float *from, int64_t stride,
                      int64_t rows, int64_t n, int64_t filled, char *to) {
    for (int64_t r = 0; r < rows; r++, from += stride, to += PGI_GEMM_A_ROW) {
        if (f->bf16)
            kernels->round_bf16(from, n, 1, (uint16_t *)(void *)to);
        else
            memcpy(to, from, (size_t)n * sizeof *from);
        memset(to + n * f->element, 0, (size_t)((filled - n) * f->element));
    }
}

/* out [rows, n] = x [rows, columns] A^T of the rows of A from `first` on and the columns from `column` on: each row of
 * x as it is alone. n <= PIECE. */
static void few_rows(const pgi_kernels *kernels, const pgi_matrix *a, int64_t first, int64_t n, int64_t column,
                     int64_t columns, const float *x, int64_t x_stride, int64_t rows, float *out, int64_t out_stride,
                     thread_tiles *tiles) {
    enum { PART = sizeof tiles->a / sizeof(float) / PGI_GEMV_ROWS / PGI_GEMV_UNIT * PGI_GEMV_UNIT };
    const int64_t element = (int64_t)pgi_dtype_size(a->dtype), w_bytes = a->columns * element;
    const char *w = (const char *)a->data + first * w_bytes + column * element;
    const pgi_gemv gemv = pgi_gemv_of(kernels, a->dtype);
    float *room = (float *)(void *)tiles->a;
    if (!gemv.x) return; /* A is not quantized, and this does not happen */
    for (int64_t row = 0; row < rows; row += PGI_GEMV_ROWS)
        for (int64_t part = 0; part < columns; part += PART) {
            const int m = (int)pgi_min64(PGI_GEMV_ROWS, rows - row);
            const int64_t k = pgi_min64(PART, columns - part);
            gemv.x(m, k, x + row * x_stride + part, x_stride, room);
            gemv.product(m, n, k, room, w + part * element, w_bytes, NULL, tiles->c, n);
            for (int r = 0; r < m; r++)
                for (int64_t i = 0; i < n; i++) {
                    float *sum = out + (row + r) * out_stride + i;
                    *sum = (part ? *sum : 0) + tiles->c[r * n + i];
                }
        }
}

/* Of A: those of each part for the rows that have it. */
static int64_t pieces(const pgi_low_rank_rows *added) {
    int64_t n = 0;
    if (!added->of || !added->few) return 0;
    for (int64_t row = 0; row < added->n_rows; row += rows_alike(added, row))
        n += pgi_ceil_div64(rank_of(part_of(added, row)), PIECE);
    return n;
}

static void compute_piece(const pgi_kernels *kernels, const pgi_low_rank_rows *added, int thread, int64_t piece,
                          const float *x, int64_t x_stride) {
    const int64_t rank = added->of->a.weight.rows;
    for (int64_t row = 0, n; row < added->n_rows; row += n) {
        const pgi_low_rank *part = part_of(added, row);
        const int64_t here = pgi_ceil_div64(rank_of(part), PIECE), first = piece * PIECE;
        n = rows_alike(added, row);
        if (piece < here) {
            const pgi_matrix *a = &part->a.weight;
            few_rows(kernels, a, first, pgi_min64(PIECE, a->rows - first), 0, a->columns, x + row * x_stride, x_stride,
                     n, added->ax + row * rank + first, rank, (thread_tiles *)added->tiles + thread);
            return;
        }
        piece -= here;
    }
}

int64_t pgi_low_rank_items(const pgi_low_rank_rows *added, int n) {
    int64_t all = 0;
    for (int i = 0; i < n; i++) all += pieces(&added[i]);
    return all;
}

void pgi_low_rank_item(const pgi_kernels *kernels, const pgi_low_rank_rows *added, int n, int thread, int64_t item,
                       const float *x, int64_t x_stride) {
    for (int i = 0; i < n; item -= pieces(added), added++, i++) {
        if (item >= pieces(added)) continue;
        compute_piece(kernels, added, thread, item, x, x_stride);
        return;
    }
}

void pgi_low_rank_round(const pgi_kernels *kernels, const pgi_low_rank_rows *added, int64_t row) {
    const pgi_gemm_format f = pgi_gemm_format_of(kernels, 1);
    if (!added->starts) return;
    const int64_t rank = added->of->a.weight.rows, k = filled_up(&f, rank);
    kernels->round_bf16(added->ax + row * rank, rank, 1, added->start + row * k);
    memset(added->start + row * k + rank, 0, (size_t)(k - rank) * sizeof(uint16_t));
}

/* A x of m rows and of n_k columns of x, [m, PGI_GEMM_A_ROW]. */
static void tile_of_a(const pgi_kernels *kernels, const pgi_gemm_format *f, const pgi_low_rank_rows *added, int64_t m,
                      int64_t column, int64_t n_k, const char *x, float *ax) {
    const pgi_matrix *a = &added->of->a.weight;
    const int64_t one = pgi_gemm_panel_bytes(f, a->columns);
    for (int64_t i = 0; i < a->rows; i += f->nr)
        pgi_gemm_tile(kernels, f, m, pgi_min64(f->nr, a->rows - i), n_k, x,
                      added->of->a_panels + i / f->nr * one + column * f->nr * f->element, ax + i, a->rows, column > 0,
                      NULL);
}

/* A x of `rows` rows from `first_row` on, which is where x begins. */
static void tile(const pgi_kernels *kernels, const pgi_low_rank_rows *added, int thread, const float *x,
                 int64_t x_stride, int64_t first_row, int64_t rows) {
    const pgi_gemm_format f = pgi_gemm_format_of(kernels, added->of->bf16);
    const pgi_matrix *a = &added->of->a.weight;
    thread_tiles *tiles = (thread_tiles *)added->tiles + thread;
    if (f.bf16) kernels->gemm_bf16_begin();
    for (int64_t column = 0; column < a->columns; column += f.kc) {
        const int64_t n_k = pgi_min64(f.kc, a->columns - column);
        copy_rows(kernels, &f, x + column, x_stride, rows, n_k, n_k, tiles->a);
        tile_of_a(kernels, &f, added, rows, column, n_k, tiles->a, added->ax + first_row * a->rows);
    }
    if (f.bf16) kernels->gemm_bf16_end();
}

void pgi_low_rank_copied(const pgi_kernels *kernels, const pgi_low_rank_rows *added, const char *copy, int64_t block,
                         int64_t column, int64_t columns, int64_t first_row, int64_t rows) {
    const pgi_gemm_format f = pgi_gemm_format_of(kernels, added->of->bf16);
    const pgi_matrix *a = &added->of->a.weight;
    if (f.bf16) kernels->gemm_bf16_begin();
    for (int64_t row = 0; row < rows; row += f.mr)
        for (int64_t part = 0; part < columns; part += f.kc)
            tile_of_a(kernels, &f, added, pgi_min64(f.mr, rows - row), column + part, pgi_min64(f.kc, columns - part),
                      copy + part / f.kc * block + row * PGI_GEMM_A_ROW, added->ax + (first_row + row) * a->rows);
    if (f.bf16) kernels->gemm_bf16_end();
    for (int64_t row = first_row; row < first_row + rows && column + columns == a->columns; row++)
        pgi_low_rank_round(kernels, added, row);
}

typedef struct beginning {
    const pgi_kernels *kernels;
    const pgi_low_rank_rows *added;
    const float *x;
    int64_t x_stride, rows, tile;
} beginning;

/* Item: a piece of A, or a tile of rows. */
static void begin_items(void *context, int64_t begin, int64_t end, int thread) {
    const beginning *b = context;
    for (int64_t item = begin; item < end; item++) {
        const int64_t row = item * b->tile;
        if (b->added->few)
            pgi_low_rank_item(b->kernels, b->added, 1, thread, item, b->x, b->x_stride);
        else
            tile(b->kernels, b->added, thread, b->x + row * b->x_stride, b->x_stride, row,
                 pgi_min64(b->tile, b->rows - row));
    }
}

pg_status pgi_low_rank_begin(const pgi_run *run, const pgi_low_rank_rows *added, const float *x, int64_t x_stride,
                             int64_t rows) {
    if (!added->of) return PG_OK;
    const pgi_gemm_format f = pgi_gemm_format_of(run->kernels, added->of->bf16);
    beginning context = {run->kernels, added, x, x_stride, rows, f.mr};
    return pgi_parallel_for(run, added->few ? pieces(added) : pgi_ceil_div64(rows, f.mr), 1, begin_items, &context);
}

/* ----------------------------------------------------------------------------------------------------------- B p */

pgi_low_rank_start pgi_low_rank_start_of(const pgi_kernels *kernels, const pgi_low_rank_rows *added, int64_t row,
                                         int64_t column) {
    if (!added->starts) return (pgi_low_rank_start){0};
    const pgi_gemm_format f = pgi_gemm_format_of(kernels, 1);
    const int64_t k = filled_up(&f, added->of->a.weight.rows);
    return (pgi_low_rank_start){
        added->start + row * k,
        (const uint16_t *)(const void *)(added->of->b_panels + column / f.nr * pgi_gemm_panel_bytes(&f, k)), k};
}

void pgi_low_rank_scale(const pgi_low_rank *of, int64_t column, int64_t rows, int64_t n, float *y, int64_t y_stride) {
    const float *gain = of->gain ? of->gain + column : NULL, *constant = of->constant ? of->constant + column : NULL;
    for (int64_t r = 0; r < rows && (gain || constant); r++, y += y_stride) {
        for (int64_t i = 0; i < n && gain; i++) y[i] += gain[i] * y[i];
        for (int64_t i = 0; i < n && constant; i++) y[i] += constant[i];
    }
}

/* y [n] += sum over k of p[k] B[column .. column + n][first + k], k < n_k. */
static void add_row(const pgi_kernels *kernels, const pgi_low_rank *of, const float *p, int64_t first, int64_t n_k,
                    int64_t column, int64_t n, float *y) {
    const int64_t rank = of->a.weight.rows;
    float sums[BLOCK];
    for (int64_t done = 0; done < n;) {
        const int64_t within = (column + done) % BLOCK, width = pgi_min64(BLOCK - within, n - done);
        const int64_t at = ((column + done) / BLOCK * rank + first) * BLOCK + within;
        if (of->b_dtype == PG_DTYPE_BF16)
            kernels->weighted_sum_bf16(n_k, width, p, (const uint16_t *)of->b_blocks + at, BLOCK, sums);
        else
            kernels->weighted_sum(n_k, width, p, (const float *)of->b_blocks + at, BLOCK, sums);
        for (int64_t i = 0; i < width; i++) y[done + i] += sums[i];
        done += width;
    }
}

static void fetch(const char *from, int64_t bytes) {
    for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(from + i);
}

void pgi_low_rank_fetch(const pgi_kernels *kernels, const pgi_low_rank_rows *added, int64_t column, int64_t n) {
    const pgi_low_rank_start start = pgi_low_rank_start_of(kernels, added, 0, column);
    if (start.k) fetch((const char *)start.b, n * start.k * (int64_t)sizeof *start.b);
    if (!added->of || !added->few) return;
    const int64_t first = column / BLOCK, end = pgi_ceil_div64(column + n, BLOCK);
    for (int64_t row = 0; row < added->n_rows; row += rows_alike(added, row)) {
        const pgi_low_rank *part = part_of(added, row);
        const int64_t block = rank_of(part) * BLOCK * (int64_t)pgi_dtype_size(part ? part->b_dtype : PG_DTYPE_F32);
        if (part) fetch((const char *)part->b_blocks + first * block, (end - first) * block);
    }
}

void pgi_low_rank_fetch_partial(const pgi_low_rank_rows *added, int64_t column, int64_t n) {
    if (!added->of || !added->few) return;
    for (int64_t row = 0; row < added->n_rows; row += rows_alike(added, row)) {
        const pgi_low_rank *part = part_of(added, row);
        if (!part) continue;
        const pgi_matrix *a = &part->a.weight;
        const int64_t element = (int64_t)pgi_dtype_size(a->dtype);
        for (int64_t k = 0; k < a->rows; k++)
            fetch((const char *)a->data + (k * a->columns + column) * element, n * element);
    }
}

/* y [m, n] += a [m, k] B^T, columns from `column` on, which may be within a panel. part: the k of the rank from there.
 */
static void add_tile(const pgi_kernels *kernels, const pgi_gemm_format *f, const pgi_low_rank *of, thread_tiles *tiles,
                     int64_t m, int64_t part, int64_t k, int64_t column, int64_t n, float *y, int64_t y_stride) {
    const int64_t nr = f->nr, one = pgi_gemm_panel_bytes(f, filled_up(f, of->a.weight.rows));
    for (int64_t done = 0; done < n;) {
        const int64_t within = (column + done) % nr, width = pgi_min64(nr - within, n - done);
        const char *panel = of->b_panels + (column + done) / nr * one + part * nr * f->element;
        if (within == 0) {
            pgi_gemm_tile(kernels, f, m, width, k, tiles->a, panel, y + done, y_stride, 1, NULL);
        } else {
            pgi_gemm_tile(kernels, f, m, within + width, k, tiles->a, panel, tiles->c, PGI_GEMM_NR_MAX, 0, NULL);
            for (int64_t r = 0; r < m; r++)
                for (int64_t i = 0; i < width; i++)
                    y[r * y_stride + done + i] += tiles->c[r * PGI_GEMM_NR_MAX + within + i];
        }
        done += width;
    }
}

void pgi_low_rank_add(const pgi_kernels *kernels, const pgi_low_rank_rows *added, int thread, int64_t first_row,
                      int64_t rows, int64_t column, int64_t n, float *y, int64_t y_stride) {
    const pgi_low_rank *of = added->of;
    if (!of || added->starts) return;
    thread_tiles *tiles = (thread_tiles *)added->tiles + thread;
    const pgi_gemm_format f = pgi_gemm_format_of(kernels, of->bf16);
    const int64_t rank = of->a.weight.rows;
    for (int64_t r = 0; r < rows && added->few; r++) {
        const pgi_low_rank *part = part_of(added, first_row + r);
        if (!part) continue;
        pgi_low_rank_scale(part, column, 1, n, y + r * y_stride, y_stride);
        add_row(kernels, part, added->ax + (first_row + r) * rank, 0, rank_of(part), column, n, y + r * y_stride);
    }
    if (added->few) return;
    pgi_low_rank_scale(of, column, rows, n, y, y_stride);
    if (f.bf16) kernels->gemm_bf16_begin();
    for (int64_t row = 0; row < rows; row += f.mr) {
        const int64_t m = pgi_min64(f.mr, rows - row);
        for (int64_t part = 0; part < rank; part += f.kc) {
            const int64_t n_k = pgi_min64(f.kc, rank - part), k = filled_up(&f, n_k);
            copy_rows(kernels, &f, added->ax + (first_row + row) * rank + part, rank, m, n_k, k, tiles->a);
            add_tile(kernels, &f, of, tiles, m, part, k, column, n, y + row * y_stride, y_stride);
        }
    }
    if (f.bf16) kernels->gemm_bf16_end();
}

void pgi_low_rank_partial(const pgi_kernels *kernels, const pgi_low_rank_rows *added, int thread, const float *x,
                          int64_t x_stride, int64_t first_row, int64_t rows, int64_t column, int64_t n, float *out) {
    const int64_t rank = added->of->a.weight.rows;
    for (int64_t r = 0, m; r < rows; r += m) {
        const pgi_low_rank *part = part_of(added, first_row + r);
        m = pgi_min64(rows_alike(added, first_row + r), rows - r);
        for (int64_t i = 0; i < rank_of(part); i += PIECE)
            few_rows(kernels, &part->a.weight, i, pgi_min64(PIECE, rank_of(part) - i), column, n, x + r * x_stride,
                     x_stride, m, out + r * rank + i, rank, (thread_tiles *)added->tiles + thread);
    }
}

void pgi_low_rank_add_row(const pgi_kernels *kernels, const pgi_low_rank *of, int64_t row, int64_t columns, float scale,
                          float *x) {
    enum { PART = 64 };
    const pgi_matrix *a = &of->a.weight;
    const int64_t element = (int64_t)pgi_dtype_size(a->dtype);
    float values[PART];
    pgi_low_rank_scale(of, 0, 1, columns, x, columns);
    for (int64_t part = 0; part < a->rows; part += PART) {
        const int64_t n_k = pgi_min64(PART, a->rows - part);
        for (int64_t k = 0; k < n_k; k++) {
            const int64_t at = (part + k) * a->columns + row;
            const pgi_matrix one = {(const char *)a->data + at * element, a->dtype, 1, 1, NULL};
            pgi_matrix_row(kernels, &one, 0, scale, &values[k]);
        }
        add_row(kernels, of, values, part, n_k, 0, columns, x);
    }
}
