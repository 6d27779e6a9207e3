/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Quantizing the matrices of a model while it is opened: pg_model_options.weights. The originals are read from the
 * files part by part and stay there.
 */
#include "checkpoint/mix.h"
#include "checkpoint/quantized_store.h"
#include "model/model.h"
#include "kernels/quantized.h"

enum { SLICE_BYTES = 64 * 1024 * 1024 }; /* of the original, between two reports */

typedef struct quantizer {
    pg_model *model;
    const pgi_run *run;
    int32_t weights;
    const char *int8_layers;
    uint8_t *next;       /* where the next matrix goes */
    size_t n_blocks;     /* bytes of all matrices quantized */
    int64_t done, total; /* bytes of the originals */
} quantizer;

static int64_t stored_row_bytes(const pgi_matrix *matrix) {
    return matrix->columns * (int64_t)pgi_dtype_size(matrix->dtype);
}

static pg_status measure(void *context, const pgi_matrix_role *role, pgi_matrix *matrix) {
    quantizer *q = context;
    const int32_t dtype = pgi_mix_blocks(q->weights, q->int8_layers, role);
    q->n_blocks += (size_t)pgi_quantized_bytes(dtype, matrix->rows, matrix->columns);
    q->total += matrix->rows * stored_row_bytes(matrix);
    return PG_OK;
}

static pg_status bad_weight(const pgi_stored_tensor *tensor, pg_status status) {
    if (status != PG_ERROR_ARGUMENT) return status;
    return pgi_error_context(status, "%s: tensor %s", tensor->file, tensor->name);
}

static pg_status quantize(void *context, const pgi_matrix_role *role, pgi_matrix *matrix) {
    quantizer *q = context;
    const int32_t dtype = pgi_mix_blocks(q->weights, q->int8_layers, role);
    pgi_stored_tensor *tensor = (pgi_stored_tensor *)(uintptr_t)matrix->tensor;
    const pgi_quantize_source from = {
        &q->model->memory, q->model->files, tensor, matrix->rows, matrix->columns, NULL, NULL};
    const int64_t panels = pgi_quantized_panels(matrix->rows), row_bytes = stored_row_bytes(matrix);
    const int64_t panel_bytes = pgi_quantized_groups(matrix->columns) * pgi_quantized_block(dtype);
    const int64_t slice = SLICE_BYTES / (row_bytes * PGI_PANEL_ROWS) + 1;
    for (int64_t p = 0; p < panels; p += slice) {
        const int64_t end = pgi_min64(p + slice, panels), row = p * PGI_PANEL_ROWS;
        const int64_t bytes = (pgi_min64(end * PGI_PANEL_ROWS, matrix->rows) - row) * row_bytes;
        pg_status status = pgi_quantize_parallel(q->run, &from, dtype, p, end, q->next + p * panel_bytes);
        if (status < 0) return bad_weight(tensor, status);
        q->done += bytes;
        PGI_TRY(pgi_run_progress(q->run, PG_PHASE_CONVERT, q->done, q->total));
    }
    *matrix = (pgi_matrix){q->next, dtype, matrix->rows, matrix->columns, tensor};
    q->next += panels * panel_bytes;
    tensor->used = 0; /* read for the last time */
    return PG_OK;
}

pg_status pgi_model_quantize(pg_model *model, const pgi_run *run, int32_t weights, const char *int8_layers) {
    pgi_weights *w = &model->weights;
    quantizer q = {.model = model, .run = run, .weights = weights, .int8_layers = int8_layers};
    PGI_TRY(pgi_mix_check(int8_layers, w, &model->config));
    PGI_TRY(pgi_weights_each_matrix(w, &model->config, measure, &q));
    w->blocks = pgi_alloc(w->memory, q.n_blocks, 1); /* freed with the weights, whatever happens from here on */
    if (!w->blocks) return PG_ERROR_MEMORY;
    q.next = w->blocks;
    PGI_TRY(pgi_run_progress(run, PG_PHASE_CONVERT, 0, q.total));
    PGI_TRY(pgi_weights_each_matrix(w, &model->config, quantize, &q));
    w->format = weights;
    w->n_bytes_copied += q.n_blocks;
    w->dtypes = 0;
    for (size_t i = 0; i < pgi_tensor_files_count(model->files); i++) { /* vectors and position embedding are left */
        const pgi_stored_tensor *tensor = pgi_tensor_files_at(model->files, i);
        if (tensor->used) w->dtypes |= 1u << tensor->dtype;
    }
    return PG_OK;
}
