/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* pg_adapter: open, close, describe; models with adapters added. */
#include "model/adapter.h"

#include <math.h>
#include <string.h>

#include "api/calls.h"
#include "api/structs.h"
#include "checkpoint/hf_cache.h"

PGI_OPTIONS(pg_adapter_options, .struct_size = sizeof(pg_adapter_options))

pg_status pg_adapter_open(const pg_model *model, const char *adapter, const pg_adapter_options *options,
                          pg_adapter **out) {
    PGI_ENTER;
    PGI_NOT_NULL(out);
    *out = NULL;
    PGI_NOT_NULL(model);
    PGI_NOT_NULL(adapter);
    PGI_OPTIONS_IN(pg_adapter_options, complete, options);
    PGI_TRY(pgi_open_thread_count(complete.n_threads, &complete.n_threads));
    PGI_TRY(pgi_tensor_files_unchanged(model->files));
    pgi_call call = pgi_call_begin(model, NULL, NULL, complete.cancel);
    pgi_thread_pool pool;
    pgi_run run = pgi_run_init(&pool, &model->kernels, PGI_RUN_OPTIONS(&complete));
    const pg_status status = pgi_adapter_open(&run, model, adapter, out);
    pgi_run_free(&run);
    pgi_call_end(&call);
    return status;
}

void pg_adapter_close(pg_adapter **adapter) {
    if (!adapter) return;
    pg_adapter *closed = *adapter;
    *adapter = NULL; /* before its memory goes: the allocator's callback may close it, too */
    pgi_adapter_release(closed);
}

pg_status pg_adapter_get_info(const pg_adapter *adapter, pg_adapter_info *info) {
    PGI_ENTER;
    PGI_NOT_NULL(adapter);
    PGI_TRY(pgi_struct_out_check(info, PGI_STRUCT(pg_adapter_info)));
    const pg_adapter_info value = {
        .struct_size = sizeof value,
        .rank = (int32_t)adapter->rank,
        .n_parameters = adapter->n_parameters,
        .n_bytes = pgi_adapter_bytes(adapter),
        .n_modules = (int32_t)adapter->n_modules,
        .adapts_images = adapter->adapts_vision,
        .base = adapter->config.base ? adapter->config.base : "",
    };
    pgi_struct_out(info, &value, sizeof value);
    return PG_OK;
}

/* Whether the adapters are of this base, and the weights numbers. */
static pg_status check_adapters(const pg_model *base, const pg_adapter *const *adapters, const float *weights,
                                size_t n) {
    if (n < 1 || n > PGI_MAX_ADAPTERS)
        return pgi_error(PG_ERROR_ARGUMENT, "n_adapters is %zu, expected 1 to %d", n, PGI_MAX_ADAPTERS);
    for (size_t i = 0; i < n; i++) {
        if (!adapters[i]) return pgi_error(PG_ERROR_ARGUMENT, "adapters[%zu] is NULL, expected an adapter", i);
        if (adapters[i]->model != base)
            return pgi_error(PG_ERROR_ARGUMENT, "adapters[%zu] was opened for another model handle, of %s", i,
                             pgi_tensor_files_folder(adapters[i]->model->files));
        if (weights && !isfinite(weights[i]))
            return pgi_error(PG_ERROR_ARGUMENT, "weights[%zu] is %f, expected a finite number", i, (double)weights[i]);
    }
    return PG_OK;
}

pg_status pg_model_adapt(const pg_model *model, const pg_adapter *const *adapters, const float *weights,
                         size_t n_adapters, pg_model **out) {
    PGI_ENTER;
    PGI_NOT_NULL(out);
    *out = NULL;
    PGI_NOT_NULL(model);
    PGI_NOT_NULL(adapters);
    PGI_TRY(check_adapters(model->base ? model->base : model, adapters, weights, n_adapters));
    float ones[PGI_MAX_ADAPTERS];
    for (size_t i = 0; i < n_adapters; i++) ones[i] = weights ? weights[i] : 1.0f;
    pgi_call call = pgi_call_begin(model, NULL, NULL, NULL);
    const pg_status status = pgi_model_adapt(model, adapters, ones, n_adapters, out);
    pgi_call_end(&call);
    return status;
}

pg_status pg_adapter_find_base(const char *adapter, char *text, size_t capacity, size_t *needed) {
    PGI_ENTER;
    PGI_NOT_NULL(adapter);
    char *folder = NULL, *base = NULL;
    pg_status status;
    PGI_GOTO(pgi_hf_cache_find(&pgi_memory_default, adapter, NULL, &folder), done);
    PGI_GOTO(pgi_adapter_config_base(&pgi_memory_default, folder, &base), done);
    if (base)
        status = pgi_copy_text_out(base, strlen(base), text, capacity, needed);
    else
        status = pgi_error(PG_ERROR_NOT_FOUND, "%s/adapter_config.json: found no base_model_name_or_path", folder);
done:
    pgi_free(&pgi_memory_default, base);
    pgi_free(&pgi_memory_default, folder);
    return status;
}
