/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The low-rank parts of linear layers: low_rank.h. */
#include "ops/low_rank.h"

#include <string.h>

#include "kernels/kernels.h"
#include "ops/gemm_format.h"

/* The scratch of a thread: rows as `gemm` reads them, a tile of results, a panel of A. */
typedef struct thread_tiles {
    float a[PGI_GEMM_MR_MAX * PGI_GEMM_LDA];
    float c[PGI_GEMM_MR_MAX * PGI_GEMM_NR_MAX];
    float panel[PGI_GEMM_KC * PGI_GEMM_NR_MAX];
} thread_tiles;

size_t pgi_low_rank_panels_size(const pgi_kernels *kernels, int64_t n, int64_t rank) {
    return (size_t)(pgi_ceil_div64(n, kernels->gemm_nr) * rank * kernels->gemm_nr);
}

void pgi_low_rank_pack(const pgi_kernels *kernels, const float *b, int64_t n, int64_t rank, float *panels) {
    const int64_t nr = kernels->gemm_nr;
    for (int64_t i = 0; i < n; i += nr, panels += rank * nr)
        kernels->pack_f32(b + i * rank, rank * (int64_t)sizeof(float), (int)pgi_min64(nr, n - i), rank, panels);
}

static size_t ax_floats(const pgi_kernels *kernels, int64_t rows) {
    return (size_t)pgi_ceil_div64(rows * kernels->low_rank, 16) * 16;
}

size_t pgi_low_rank_scratch(const pgi_kernels *kernels, int n_threads, int64_t rows) {
    if (kernels->low_rank == 0) return 0;
    return sizeof(thread_tiles) * (size_t)n_threads +
           ax_floats(kernels, rows) * sizeof(float) * (size_t)PGI_LOW_RANK_LAYERS;
}

pgi_low_rank_rows pgi_low_rank_rows_in(const pgi_kernels *kernels, int n_threads, int64_t rows, void *scratch,
                                       int index, const pgi_linear *linear) {
    float *ax = (float *)((char *)scratch + sizeof(thread_tiles) * (size_t)n_threads);
    return (pgi_low_rank_rows){linear->low_rank, ax + (size_t)index * ax_floats(kernels, rows), scratch};
}

pg_status pgi_low_rank_begin(const pgi_run *run, const pgi_low_rank_rows *added, const float *x, int64_t x_stride,
                             int64_t rows, void *linear_scratch) {
    if (!added->of) return PG_OK;
    const int64_t rank = added->of->a.weight.rows;
    pgi_run unseen = *run;
    unseen.observer = NULL; /* it looks at the layers of the checkpoint */
    const int64_t at_once = rows <= PGI_LOW_RANK_GEMV ? PGI_GEMV_ROWS : rows;
    for (int64_t row = 0; row < rows; row += at_once)
        PGI_TRY(pgi_linear_forward(&unseen, x + row * x_stride, x_stride, pgi_min64(at_once, rows - row), &added->of->a,
                                   added->ax + row * rank, rank, linear_scratch));
    return PG_OK;
}

/* y0 to (1 + gain) y0 + constant. */
static void scale_rows(const pgi_low_rank *of, int64_t column, int64_t rows, int64_t n, float *y, int64_t y_stride) {
    const float *gain = of->gain ? of->gain + column : NULL, *constant = of->constant ? of->constant + column : NULL;
    for (int64_t r = 0; r < rows && (gain || constant); r++, y += y_stride) {
        for (int64_t i = 0; i < n && gain; i++) y[i] += gain[i] * y[i];
        for (int64_t i = 0; i < n && constant; i++) y[i] += constant[i];
    }
}

static void copy_rows(const float *from, int64_t stride, int64_t rows, int64_t n, float *to) {
    for (int64_t r = 0; r < rows; r++) memcpy(to + r * PGI_GEMM_LDA, from + r * stride, (size_t)n * sizeof *to);
}

/* y [m, n] += a [m, k] B^T, columns from `column` on, which may be within a panel. part: the k of the rank from there.
 */
static void add_tile(const pgi_kernels *kernels, const pgi_low_rank *of, thread_tiles *tiles, int64_t m, int64_t part,
                     int64_t k, int64_t column, int64_t n, float *y, int64_t y_stride) {
    const int64_t nr = kernels->gemm_nr, rank = of->a.weight.rows;
    for (int64_t done = 0; done < n;) {
        const int64_t within = (column + done) % nr, width = pgi_min64(nr - within, n - done);
        const float *panel = of->b_panels + ((column + done) / nr * rank + part) * nr;
        if (within == 0) {
            kernels->gemm((int)m, (int)width, k, tiles->a, panel, y + done, y_stride, 1, NULL);
        } else {
            kernels->gemm((int)m, (int)(within + width), k, tiles->a, panel, tiles->c, PGI_GEMM_NR_MAX, 0, NULL);
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
    if (!of) return;
    thread_tiles *tiles = (thread_tiles *)added->tiles + thread;
    const int64_t rank = of->a.weight.rows, mr = kernels->gemm_mr;
    scale_rows(of, column, rows, n, y, y_stride);
    for (int64_t row = 0; row < rows; row += mr) {
        const int64_t m = pgi_min64(mr, rows - row);
        for (int64_t part = 0; part < rank; part += PGI_GEMM_KC) {
            const int64_t k = pgi_min64(PGI_GEMM_KC, rank - part);
            copy_rows(added->ax + (first_row + row) * rank + part, rank, m, k, tiles->a);
            add_tile(kernels, of, tiles, m, part, k, column, n, y + row * y_stride, y_stride);
        }
    }
}

void pgi_low_rank_partial(const pgi_kernels *kernels, const pgi_low_rank_rows *added, int thread, const float *x,
                          int64_t x_stride, int64_t rows, int64_t column, int64_t n, float *out) {
    const pgi_matrix *a = &added->of->a.weight;
    const pgi_gemm_format format = pgi_gemm_format_of(kernels, 0);
    thread_tiles *tiles = (thread_tiles *)added->tiles + thread;
    const int64_t element = (int64_t)pgi_dtype_size(a->dtype), a_bytes = a->columns * element;
    for (int64_t i = 0; i < a->rows; i += format.nr) {
        const int64_t width = pgi_min64(format.nr, a->rows - i);
        pgi_gemm_pack(kernels, &format, a->dtype, (const char *)a->data + i * a_bytes + column * element, a_bytes,
                      width, n, (char *)tiles->panel);
        for (int64_t row = 0; row < rows; row += format.mr) {
            const int64_t m = pgi_min64(format.mr, rows - row);
            copy_rows(x + row * x_stride, x_stride, m, n, tiles->a);
            kernels->gemm((int)m, (int)width, n, tiles->a, tiles->panel, out + row * a->rows + i, a->rows, 0, NULL);
        }
    }
}

void pgi_low_rank_add_row(const pgi_kernels *kernels, const pgi_low_rank *of, int64_t row, int64_t columns, float scale,
                          float *x) {
    const pgi_matrix *a = &of->a.weight;
    const int64_t rank = a->rows, nr = kernels->gemm_nr, element = (int64_t)pgi_dtype_size(a->dtype);
    scale_rows(of, 0, 1, columns, x, columns);
    for (int64_t k = 0; k < rank; k++) {
        const pgi_matrix one = {(const char *)a->data + (k * a->columns + row) * element, a->dtype, 1, 1, NULL};
        float value;
        pgi_matrix_row(kernels, &one, 0, scale, &value);
        const float *panel = of->b_panels + k * nr;
        for (int64_t i = 0; i < columns; i += nr, panel += rank * nr)
            for (int64_t j = 0; j < nr && i + j < columns; j++) x[i + j] += value * panel[j];
    }
}
