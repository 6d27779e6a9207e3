/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Low-rank parts, made of the tensors of an adapter.
 *
 * DoRA (arXiv 2402.09353; PEFT: DoraLinearLayer): with m the magnitudes and |.| the norm of a row,
 *     y = bias + m / |W + s B A| (W x + s B A x)
 * so the gain on y0 = W x + bias is g = m / |W + s B A| - 1, the constant -g bias, and B is scaled by 1 + g.
 *
 * The norms need no product of the size of W: |w + b A|^2 = |w|^2 + 2 b (A w) + b (A A^T) b^T for each row w of W, b of
 * s B. Of an embedding the norms are those of the columns.
 */
#include <math.h>
#include <string.h>

#include "base/parallel.h"
#include "kernels/kernels.h"
#include "model/adapter.h"

enum { ROWS = 256, /* of W that are under way */ COLUMNS = 64 /* of an embedding: a task */ };

/* out [rank, rank] = A A^T, in double. */
static void gram(const float *a, int64_t rank, int64_t n, double *out) {
    for (int64_t i = 0; i < rank; i++)
        for (int64_t j = 0; j <= i; j++) {
            double sum = 0;
            for (int64_t k = 0; k < n; k++) sum += (double)a[i * n + k] * (double)a[j * n + k];
            out[i * rank + j] = out[j * rank + i] = sum;
        }
}

static double norm_of(const float *w, int64_t n, const float *b, const float *aw, const double *aa, int64_t rank) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += (double)w[i] * (double)w[i];
    for (int64_t i = 0; i < rank; i++) {
        double row = 0;
        for (int64_t j = 0; j < rank; j++) row += aa[i * rank + j] * (double)b[j];
        sum += (double)b[i] * (2 * (double)aw[i] + row);
    }
    return sqrt(sum > 0 ? sum : 0);
}

/* Memory for the norms of a matrix. */
typedef struct dora {
    float *a;      /* [rank, columns], or of an embedding [rank, ROWS] */
    float *w;      /* [ROWS, columns] */
    float *aw;     /* [ROWS, rank] */
    double *aa;    /* [rank, rank] */
    double *norms; /* [columns], of an embedding: squares */
    void *scratch;
    /* of an embedding: */
    const float *b;
    int64_t rows, columns, rank;
} dora;

static void dora_free(const pgi_memory *memory, dora *d) {
    pgi_free(memory, d->a);
    pgi_free(memory, d->w);
    pgi_free(memory, d->aw);
    pgi_free(memory, d->aa);
    pgi_free(memory, d->norms);
    pgi_free(memory, d->scratch);
}

static pg_status norms_of_rows(const pgi_run *run, const pgi_matrix *weight, const float *bias, const pgi_linear *a,
                               const float *magnitude, float *b, float *gain, float *constant, dora *d) {
    const int64_t n = weight->rows, columns = weight->columns, rank = a->weight.rows;
    for (int64_t i = 0; i < rank; i++) pgi_matrix_row(run->kernels, &a->weight, i, 1.0f, d->a + i * columns);
    gram(d->a, rank, columns, d->aa);
    for (int64_t row = 0; row < n; row += ROWS) {
        const int64_t m = pgi_min64(ROWS, n - row);
        for (int64_t i = 0; i < m; i++) pgi_matrix_row(run->kernels, weight, row + i, 1.0f, d->w + i * columns);
        PGI_TRY(pgi_linear_forward(run, d->w, columns, m, a, d->aw, rank, d->scratch));
        for (int64_t i = 0; i < m; i++) {
            const double norm =
                norm_of(d->w + i * columns, columns, b + (row + i) * rank, d->aw + i * rank, d->aa, rank);
            const double scale = (double)magnitude[row + i] / norm;
            gain[row + i] = (float)(scale - 1);
            if (bias) constant[row + i] -= gain[row + i] * bias[row + i];
            for (int64_t k = 0; k < rank; k++) b[(row + i) * rank + k] = (float)(scale * b[(row + i) * rank + k]);
        }
    }
    return PG_OK;
}

/* Of a layer, whose b holds s B [n, rank] and is scaled in place; gain and constant [n]. bias: the layer's, or NULL. */
static pg_status dora_of_layer(const pgi_run *run, const pgi_memory *memory, const pgi_matrix *weight,
                               const float *bias, const pgi_matrix *a, const float *magnitude, float *b, float *gain,
                               float *constant) {
    pgi_kernels kernels = *run->kernels;
    kernels.bf16_linear = 0; /* the norms are f32's */
    kernels.low_rank = 0;
    pgi_run exact = *run;
    exact.kernels = &kernels;
    const size_t columns = (size_t)weight->columns, rank = (size_t)a->rows;
    const pgi_linear linear = {.weight = *a};
    dora d = {.a = pgi_alloc(memory, rank * columns, sizeof(float)),
              .w = pgi_alloc(memory, ROWS * columns, sizeof(float)),
              .aw = pgi_alloc(memory, ROWS * rank, sizeof(float)),
              .aa = pgi_alloc(memory, rank * rank, sizeof(double)),
              .scratch = pgi_alloc(memory, pgi_linear_scratch(&kernels, run->n_threads), 1)};
    pg_status status = PG_ERROR_MEMORY;
    if (d.a && d.w && d.aw && d.aa && d.scratch)
        status = norms_of_rows(&exact, weight, bias, &linear, magnitude, b, gain, constant, &d);
    dora_free(memory, &d);
    return status;
}

/* Item: COLUMNS columns. Adds the squares of `rows` rows of W + A^T B^T. */
static void add_squares(void *context, int64_t begin, int64_t end, int thread) {
    const dora *d = context;
    (void)thread;
    for (int64_t c = begin * COLUMNS; c < pgi_min64(end * COLUMNS, d->columns); c++)
        for (int64_t r = 0; r < d->rows; r++) {
            double value = (double)d->w[r * d->columns + c];
            for (int64_t k = 0; k < d->rank; k++) value += (double)d->a[r * d->rank + k] * d->b[c * d->rank + k];
            d->norms[c] += value * value;
        }
}

static pg_status norms_of_columns(const pgi_run *run, const pgi_matrix *weight, const pgi_matrix *a, dora *d) {
    for (int64_t row = 0; row < weight->rows; row += ROWS) {
        d->rows = pgi_min64(ROWS, weight->rows - row);
        for (int64_t i = 0; i < d->rows; i++)
            pgi_matrix_row(run->kernels, weight, row + i, 1.0f, d->w + i * d->columns);
        for (int64_t k = 0; k < d->rank; k++) {
            pgi_matrix part = {(const char *)a->data + (k * a->columns + row) * (int64_t)pgi_dtype_size(a->dtype),
                               a->dtype, 1, d->rows, NULL};
            pgi_matrix_row(run->kernels, &part, 0, 1.0f, d->aw);
            for (int64_t i = 0; i < d->rows; i++) d->a[i * d->rank + k] = d->aw[i];
        }
        PGI_TRY(pgi_parallel_for(run, pgi_ceil_div64(d->columns, COLUMNS), 1, add_squares, d));
    }
    return PG_OK;
}

/* The same of an embedding, whose norms are those of its columns: a [rank, rows], b [columns, rank]. */
static pg_status dora_of_embedding(const pgi_run *run, const pgi_memory *memory, const pgi_matrix *weight,
                                   const pgi_matrix *a, const float *magnitude, float *b, float *gain) {
    const size_t columns = (size_t)weight->columns, rank = (size_t)a->rows;
    dora d = {.a = pgi_alloc(memory, ROWS * rank, sizeof(float)),
              .w = pgi_alloc(memory, ROWS * columns, sizeof(float)),
              .aw = pgi_alloc(memory, ROWS, sizeof(float)),
              .norms = pgi_alloc_zero(memory, columns, sizeof(double)),
              .b = b,
              .columns = weight->columns,
              .rank = a->rows};
    pg_status status = d.a && d.w && d.aw && d.norms ? norms_of_columns(run, weight, a, &d) : PG_ERROR_MEMORY;
    for (size_t c = 0; c < columns && status >= 0; c++) {
        const double scale = (double)magnitude[c] / sqrt(d.norms[c]);
        gain[c] = (float)(scale - 1);
        for (size_t k = 0; k < rank; k++) b[c * rank + k] = (float)(scale * b[c * rank + k]);
    }
    dora_free(memory, &d);
    return status;
}

/* B as f32, times the scale. */
static pg_status read_b(const pg_adapter *adapter, const pgi_adapter_part *part, int64_t n, float *b) {
    PGI_TRY(pgi_tensor_files_read_f32(adapter->files, part->b, 0, n, b));
    PGI_TRY(pgi_adapter_check_finite(part->b, b, n));
    for (int64_t i = 0; i < n; i++) b[i] = (float)(part->scale * (double)b[i]);
    return PG_OK;
}

pg_status pgi_adapter_make(const pgi_run *run, const pg_adapter *adapter, const pgi_adapter_part *part,
                           const pgi_module *module, pgi_kept *kept, pgi_low_rank *out) {
    const pgi_memory *memory = &adapter->memory;
    const int is_embedding = module->matrix != NULL, has_dora = part->magnitude != NULL;
    const pgi_matrix *weight = pgi_module_matrix(module), *a = &part->a;
    const float *bias = module->linear ? module->linear->bias : NULL;
    const int64_t n = is_embedding ? weight->columns : weight->rows;
    const int32_t format = adapter->model->weights.format;
    float *gain = NULL, *constant = NULL;
    void *block;
    if (has_dora) PGI_TRY(pgi_keep(memory, kept, (size_t)n * sizeof *gain, &gain));
    if ((has_dora && bias) || part->b_bias) PGI_TRY(pgi_keep(memory, kept, (size_t)n * sizeof *constant, &constant));
    PGI_TRY(pgi_keep(memory, kept, pgi_low_rank_size(run->kernels, format, a, n, is_embedding), &block));
    float *b = pgi_alloc(memory, (size_t)(n * a->rows), sizeof *b);
    pg_status status = b ? read_b(adapter, part, n * a->rows, b) : PG_ERROR_MEMORY;
    for (int64_t i = 0; i < n && constant; i++)
        constant[i] = part->b_bias ? (float)(part->scale * (double)part->b_bias[i]) : 0;
    if (status >= 0 && has_dora)
        status = is_embedding ? dora_of_embedding(run, memory, weight, a, part->magnitude, b, gain)
                              : dora_of_layer(run, memory, weight, bias, a, part->magnitude, b, gain, constant);
    if (status >= 0) status = pgi_low_rank_make(run->kernels, format, a, b, n, is_embedding, block, out);
    pgi_free(memory, b);
    out->gain = gain;
    out->constant = constant;
    return status;
}
