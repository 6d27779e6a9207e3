/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Handles of rows: row_models.h. */
#include "model/row_models.h"

static pg_status check(const pg_model *model, const pg_model *const *models, int64_t n, int64_t n_rows) {
    if (!models) return pgi_error(PG_ERROR_ARGUMENT, "row_models is NULL, expected %lld handles", (long long)n);
    if (n != n_rows)
        return pgi_error(PG_ERROR_ARGUMENT, "n_row_models is %lld, expected 0 or %lld, one for each row of the inputs",
                         (long long)n, (long long)n_rows);
    for (int64_t r = 0; r < n; r++)
        if (models[r] && pgi_model_base(models[r]) != pgi_model_base(model))
            return pgi_error_of_row(
                pgi_error(
                    PG_ERROR_ARGUMENT,
                    "row_models[%lld] is a handle on another base, of %s: expected the call's model, its base, or "
                    "what pg_model_adapt() made of that base",
                    (long long)r, pgi_tensor_files_folder(models[r]->files)),
                r);
    return PG_OK;
}

pg_status pgi_row_models_keep(const pg_model *model, const pg_model *const *models, int64_t n, int64_t n_rows,
                              pg_model ***out) {
    *out = NULL;
    if (n == 0) return PG_OK;
    PGI_TRY(check(model, models, n, n_rows));
    for (int64_t r = 0; r < n; r++) (void)pgi_model_retain(models[r]); /* first: the host's allocator may close them */
    pg_model **kept = pgi_alloc(&model->memory, (size_t)n, sizeof *kept);
    for (int64_t r = 0; r < n; r++) {
        pg_model *of = (pg_model *)(uintptr_t)models[r];
        if (kept)
            kept[r] = of ? of : pgi_model_retain(model);
        else
            pgi_model_release(of);
    }
    *out = kept;
    return kept ? PG_OK : PG_ERROR_MEMORY;
}

void pgi_row_models_release(const pgi_memory *memory, pg_model **models, int64_t n) {
    for (int64_t r = 0; models && r < n; r++) pgi_model_release(models[r]);
    pgi_free(memory, models);
}

pgi_kernels pgi_row_models_kernels(const pg_model *model, const pg_model *const *models, int64_t n) {
    pgi_kernels kernels = model->kernels;
    for (int64_t r = 0; models && r < n; r++)
        if (models[r]->kernels.low_rank > kernels.low_rank) kernels.low_rank = models[r]->kernels.low_rank;
    return kernels;
}
