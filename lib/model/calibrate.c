/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* pg_calibration: passes over inputs whose layers' inputs are watched and multiplied by themselves. */
#include "model/calibrate.h"

#include "checkpoint/quantized_store.h"
#include "kernels/kernels.h"
#include "model/forward.h"
#include "ops/ops.h"

enum { N = PGI_FEEDBACK_COLUMNS, ROWS = 512 /* of x that are multiplied at once */ };

typedef struct watch {
    pg_calibration *calibration;
    pgi_kernels kernels; /* the model's, in f32 */
    float *columns;      /* [N, ROWS]: of x, transposed */
    float *products;     /* [N, N] */
    void *scratch;
} watch;

static const pgi_calibration_site *site_of_linear(const pg_calibration *calibration, const pgi_linear *linear) {
    for (int32_t i = 0; i < calibration->n_sites; i++)
        if (calibration->sites[i].linear == linear) return &calibration->sites[i];
    return NULL;
}

/* sums += x^T x of n columns of up to ROWS rows. */
static pg_status add_block(const watch *w, const pgi_run *run, const float *x, int64_t stride, int64_t rows, int64_t n,
                           float *sums) {
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < n; c++) w->columns[c * rows + r] = x[r * stride + c];
    const pgi_linear transposed = {.weight = {w->columns, PG_DTYPE_F32, n, rows, NULL}};
    PGI_TRY(pgi_linear_forward(run, w->columns, rows, n, &transposed, w->products, N, w->scratch));
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < n; j++) sums[i * N + j] += w->products[i * N + j];
    return PG_OK;
}

static pg_status add_inputs(void *user, const pgi_run *run, const pgi_linear *linear, const float *x, int64_t stride,
                            int64_t rows) {
    const watch *w = user;
    const pgi_calibration_site *site = site_of_linear(w->calibration, linear);
    if (!site) return PG_OK;
    pgi_run unwatched = *run;
    unwatched.observer = NULL;
    unwatched.kernels = &w->kernels;
    for (int64_t row = 0; row < rows; row += ROWS) {
        const int64_t n_rows = rows - row < ROWS ? rows - row : ROWS;
        for (int64_t b = 0; b < pgi_calibration_blocks(site); b++) {
            const int64_t left = site->columns - b * N;
            PGI_TRY(add_block(w, &unwatched, x + row * stride + b * N, stride, n_rows, left < N ? left : N,
                              site->sums + b * N * N));
        }
    }
    return PG_OK;
}

static pg_status run_rows(pg_calibration *calibration, const pg_inputs *inputs, const pg_run_options *options,
                          int n_threads) {
    const pg_model *model = calibration->model;
    const pgi_memory *memory = &calibration->memory;
    watch w = {.calibration = calibration, .kernels = model->kernels};
    w.kernels.bf16_linear = 0;
    const pgi_observer observer = {add_inputs, &w};
    const pg_forward_options forward = {
        .struct_size = sizeof forward,
        .flags = PG_FORWARD_NO_LOGITS | PG_FORWARD_NO_LOSS | PG_FORWARD_LAST_HIDDEN | PG_FORWARD_SKIP_PADDING,
        .n_threads = n_threads,
        .progress = options->progress,
        .progress_user = options->progress_user,
        .cancel = options->cancel,
        .attention_layer = -1};
    pg_outputs *outputs = NULL;
    w.columns = pgi_alloc(memory, (size_t)N * ROWS, sizeof(float));
    w.products = pgi_alloc(memory, (size_t)N * N, sizeof(float));
    w.scratch = pgi_alloc(memory, pgi_linear_scratch(&w.kernels, n_threads), 1);
    pg_status status = w.columns && w.products && w.scratch ? pgi_forward(model, inputs, &forward, &observer, &outputs)
                                                            : PG_ERROR_MEMORY;
    pgi_free(memory, w.scratch);
    pgi_free(memory, w.products);
    pgi_free(memory, w.columns);
    if (status >= 0) pgi_outputs_close(outputs);
    return status;
}

pg_status pgi_calibration_check(const pg_calibration *calibration) {
    if (!calibration->is_torn) return PG_OK;
    return pgi_error(PG_ERROR_STATE,
                     "the calibration has a part of rows whose adding was not finished: load what was "
                     "saved before, or begin anew");
}

pg_status pgi_calibration_add(pg_calibration *calibration, const pg_inputs *inputs, const pg_run_options *options) {
    PGI_TRY(pgi_calibration_check(calibration));
    calibration->is_torn = 1;
    PGI_TRY(run_rows(calibration, inputs, options, options->n_threads));
    calibration->is_torn = 0;
    calibration->n_rows += inputs->n_rows;
    return PG_OK;
}

pg_status pgi_calibration_create(const pg_model *model, pg_calibration **out) {
    pg_calibration *made = NULL;
    *out = NULL;
    if (model->base)
        return pgi_error(PG_ERROR_UNSUPPORTED,
                         "%s: found a model with adapters, expected one without: what is converted is the folder",
                         pgi_tensor_files_folder(model->files));
    if (model->weights.format != PG_WEIGHTS_STORED)
        return pgi_error(PG_ERROR_UNSUPPORTED,
                         "%s: found %s weights, expected those that are stored: calibrate before "
                         "they are quantized",
                         pgi_tensor_files_folder(model->files), pgi_weights_name(model->weights.format));
    PGI_TRY(pgi_calibration_new(&model->memory, &model->weights, &model->config, &made));
    pg_status status = pgi_calibration_identity((pgi_weights *)(uintptr_t)&model->weights, &model->config, model->files,
                                                &made->identity);
    if (status < 0) {
        pgi_calibration_free(made);
        return status;
    }
    made->model = pgi_model_retain(model);
    *out = made;
    return PG_OK;
}

void pgi_calibration_close(pg_calibration *calibration) {
    if (!calibration) return;
    pg_model *model = calibration->model;
    pgi_calibration_free(calibration);
    pgi_model_release(model);
}

pg_status pgi_calibration_begin(const pg_calibration *calibration) {
    return pgi_in_use_begin(&((pg_calibration *)(uintptr_t)calibration)->in_use, "calibration");
}

pg_status pgi_calibration_end(const pg_calibration *calibration, pg_status status) {
    pg_calibration *used = (pg_calibration *)(uintptr_t)calibration;
    if (pgi_in_use_end(&used->in_use)) pgi_calibration_close(used);
    return status;
}
