/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* pg_calibration: sums for a calibrated pg_model_convert(). */
#include "api/calls.h"
#include "api/structs.h"
#include "model/calibrate.h"

pg_status pg_calibration_create(const pg_model *model, pg_calibration **out) {
    PGI_ENTER;
    PGI_NOT_NULL(out);
    *out = NULL;
    PGI_NOT_NULL(model);
    PGI_TRY(pgi_tensor_files_unchanged(model->files));
    pgi_call call = pgi_call_begin(model, NULL, NULL, NULL);
    pg_status status = pgi_calibration_create(model, out);
    pgi_call_end(&call);
    return status;
}

void pg_calibration_close(pg_calibration **calibration) {
    if (!calibration || !*calibration) return;
    pg_calibration *closed = *calibration;
    *calibration = NULL;
    if (pgi_in_use_close(&closed->in_use)) pgi_calibration_close(closed);
}

pg_status pg_calibration_add(pg_calibration *calibration, const pg_inputs *inputs, const pg_run_options *options) {
    PGI_ENTER;
    pg_run_options complete = {.struct_size = sizeof complete};
    PGI_NOT_NULL(calibration);
    PGI_NOT_NULL(inputs);
    PGI_TRY(pgi_struct_in(&complete, options, PGI_STRUCT(pg_run_options)));
    PGI_TRY(pgi_thread_count(complete.n_threads, &complete.n_threads));
    PGI_TRY(pgi_calibration_begin(calibration));
    pgi_call call = pgi_call_begin(NULL, inputs, NULL, complete.cancel); /* the calibration itself keeps the model */
    pg_status status = pgi_tensor_files_unchanged(calibration->model->files);
    if (status >= 0) status = pgi_calibration_add(calibration, inputs, &complete);
    pgi_call_end(&call);
    return pgi_calibration_end(calibration, status);
}

pg_status pg_calibration_get_rows(const pg_calibration *calibration, int64_t *n_rows) {
    PGI_ENTER;
    PGI_NOT_NULL(calibration);
    PGI_NOT_NULL(n_rows);
    PGI_TRY(pgi_calibration_begin(calibration));
    *n_rows = calibration->n_rows;
    return pgi_calibration_end(calibration, PG_OK);
}

pg_status pg_calibration_save(const pg_calibration *calibration, const char *path, uint64_t tag) {
    PGI_ENTER;
    PGI_NOT_NULL(calibration);
    PGI_NOT_NULL(path);
    PGI_TRY(pgi_calibration_begin(calibration));
    pg_status status = pgi_calibration_check(calibration);
    if (status >= 0) status = pgi_calibration_save(calibration, path, tag);
    return pgi_calibration_end(calibration, status);
}

pg_status pg_calibration_load(const pg_model *model, const char *path, uint64_t tag, pg_calibration **out) {
    PGI_ENTER;
    pg_calibration *made = NULL;
    PGI_NOT_NULL(out);
    *out = NULL;
    PGI_NOT_NULL(model);
    PGI_NOT_NULL(path);
    pgi_call call = pgi_call_begin(model, NULL, NULL, NULL);
    pg_status status = pgi_calibration_create(model, &made);
    if (status >= 0) status = pgi_calibration_load(made, path, tag);
    pgi_call_end(&call);
    if (status < 0)
        pgi_calibration_close(made);
    else
        *out = made;
    return status;
}
