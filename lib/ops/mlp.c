/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* pgi_mlp_forward() and pgi_linear_group(). Quantized layers that read the same x share one quantized copy of it
 * (linear_quantized.c); other layers are computed one after the other. */
#include "base/parallel.h"
#include "kernels/kernels.h"
#include "ops/ops.h"
#include "kernels/quantized.h"
#include "ops/linear_quantized.h"

/* The intermediate is up to 16 times as wide as x: at 896 px that would be half a gigabyte for all rows at once, so
 * rows go through it in blocks, large enough that reading the weights again costs little. */
enum { ROWS = 512 };

static int is_quantized(const pgi_linear *linear) { return pgi_dtype_is_blocks(linear->weight.dtype); }

pg_status pgi_linear_group(const pgi_run *run, const float *x, int64_t x_stride, int64_t rows,
                           const pgi_linear_job *outputs, int n, void *scratch) {
    int quantized = 1;
    double work = 0;
    for (int i = 0; i < n; i++) {
        const pgi_matrix *w = &outputs[i].linear->weight;
        quantized = quantized && is_quantized(outputs[i].linear);
        work += 2.0 * (double)rows * (double)w->rows * (double)w->columns;
    }
    if (quantized && rows > 0) {
        pgi_run alone;
        return pgi_quantized_linears(pgi_run_for_work(run, work, &alone), x, x_stride, rows, outputs, n, scratch);
    }
    for (int i = 0; i < n; i++)
        PGI_TRY(
            pgi_linear_forward(run, x, x_stride, rows, outputs[i].linear, outputs[i].y, outputs[i].y_stride, scratch));
    return PG_OK;
}

size_t pgi_mlp_intermediate(const pgi_kernels *kernels, int64_t rows, int64_t width, int gated) {
    size_t n = (size_t)pgi_min64(rows, ROWS) * (size_t)width * sizeof(float) * (gated ? 2 : 1);
    size_t quantized = pgi_quantized_intermediate(kernels, rows, width);
    return n > quantized ? n : quantized;
}

pg_status pgi_mlp_forward(const pgi_run *run, const pgi_mlp *mlp, const float *x, int64_t rows, float *y,
                          void *intermediate, void *scratch) {
    const int64_t in = mlp->up->weight.columns, width = mlp->up->weight.rows, out = mlp->down->weight.rows;
    const int64_t n_blocks = (rows + ROWS - 1) / ROWS;
    if (rows <= 0) return PG_OK;
    const int fused = !mlp->down->low_rank || mlp->down->low_rank->a.weight.rows <= PGI_LOW_RANK_FUSED;
    if (fused && is_quantized(mlp->up) && is_quantized(mlp->down) && (!mlp->gate || is_quantized(mlp->gate)))
        return pgi_quantized_mlp(run, mlp, x, rows, y, intermediate, scratch);
    for (int64_t b = 0; b < n_blocks; b++) { /* of nearly equal height */
        const int64_t row = rows * b / n_blocks, n = rows * (b + 1) / n_blocks - row;
        float *values = intermediate, *up = values + n * width;
        if (mlp->gate) {
            const pgi_linear_job both[] = {{mlp->gate, values, width}, {mlp->up, up, width}};
            PGI_TRY(pgi_linear_group(run, x + row * in, in, n, both, 2, scratch));
            PGI_TRY(pgi_gate(run, mlp->activation, values, up, n * width));
        } else {
            PGI_TRY(pgi_linear_forward(run, x + row * in, in, n, mlp->up, values, width, scratch));
            PGI_TRY(pgi_activate(run, mlp->activation, values, n * width));
        }
        PGI_TRY(pgi_linear_forward(run, values, width, n, mlp->down, y + row * out, out, scratch));
    }
    return PG_OK;
}
