/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* pg_features: features of images, computed once for many prompts. */
#include "model/features.h"

#include <string.h>

#include "api/calls.h"
#include "api/structs.h"
#include "model/features_file.h"
#include "model/read_ahead.h"

PGI_OPTIONS(pg_run_options, .struct_size = sizeof(pg_run_options))

pg_status pg_features_create(const pg_model *model, const pg_inputs *inputs, const pg_run_options *options,
                             pg_features **out) {
    PGI_ENTER;
    PGI_NOT_NULL(out);
    *out = NULL;
    PGI_NOT_NULL(model);
    PGI_NOT_NULL(inputs);
    PGI_OPTIONS_IN(pg_run_options, complete, options);
    PGI_TRY(pgi_thread_count(complete.n_threads, &complete.n_threads));
    pgi_thread_pool pool;
    pgi_run run = pgi_run_init(&pool, &model->kernels, &complete);
    PGI_TRY(pgi_tensor_files_unchanged(model->files));
    pgi_call call = pgi_call_begin(model, inputs, NULL, complete.cancel);
    pgi_read_ahead(model, PGI_AHEAD_IMAGE);
    pg_status status = pgi_features_create(&run, model, NULL, inputs, out);
    pgi_run_free(&run);
    pgi_call_end(&call);
    return status;
}

pg_status pg_features_from_tensor(const pg_model *model, const pg_tensor *values, pg_features **out) {
    PGI_ENTER;
    PGI_NOT_NULL(out);
    *out = NULL;
    PGI_NOT_NULL(model);
    PGI_NOT_NULL(values);
    pg_tensor complete = {.struct_size = sizeof complete};
    PGI_TRY(pgi_struct_in(&complete, values, PGI_STRUCT(pg_tensor)));
    PGI_TRY(pgi_reserved_in(complete.reserved, "pg_tensor"));
    pgi_call call = pgi_call_begin(model, NULL, NULL, NULL);
    pg_status status = pgi_features_from_tensor(model, &complete, out);
    pgi_call_end(&call);
    return status;
}

void pg_features_close(pg_features **features) {
    if (!features) return;
    pg_features *closed = *features;
    *features = NULL; /* before its memory goes: the allocator's callback may close it, too */
    pgi_features_release(closed);
}

pg_status pg_features_get_tensor(const pg_features *features, pg_tensor *out) {
    PGI_ENTER;
    PGI_NOT_NULL(features);
    PGI_TRY(pgi_struct_out_check(out, PGI_STRUCT(pg_tensor)));
    pg_tensor value = {
        .struct_size = sizeof value,
        .dtype = PG_DTYPE_F32,
        .n_dims = 3,
        .shape = {features->n_images, features->model->config.vision.n_patches,
                  features->model->config.text.hidden_size, 1},
        .data = features->data,
    };
    pgi_struct_out(out, &value, sizeof value);
    return PG_OK;
}

/* A callback of the allocator may close the features. */
pg_status pg_features_save(const pg_features *features, const char *path) {
    PGI_ENTER;
    PGI_NOT_NULL(features);
    PGI_NOT_NULL(path);
    pg_features *kept = pgi_features_retain(features);
    pg_status status = pgi_features_save(features, path);
    pgi_features_release(kept);
    return status;
}

pg_status pg_features_to_bytes(const pg_features *features, void *bytes, size_t capacity, size_t *needed) {
    PGI_ENTER;
    PGI_NOT_NULL(features);
    if (capacity > 0) PGI_NOT_NULL(bytes);
    pg_features *kept = pgi_features_retain(features);
    pgi_buffer head;
    pgi_buffer_init(&head, &features->model->memory);
    pg_status status = pgi_features_header(features, &head);
    if (status >= 0) {
        const size_t size = pgi_features_count(features->model, features->n_images) * sizeof(float);
        const size_t first = capacity < head.size ? capacity : head.size;
        if (first > 0) memcpy(bytes, head.data, first);
        if (capacity > first)
            memcpy((uint8_t *)bytes + first, features->data, capacity - first < size ? capacity - first : size);
        if (needed) *needed = head.size + size;
    }
    pgi_buffer_free(&head);
    pgi_features_release(kept);
    return status;
}

pg_status pg_features_load(const pg_model *model, const char *path, pg_features **out) {
    PGI_ENTER;
    PGI_NOT_NULL(out);
    *out = NULL;
    PGI_NOT_NULL(model);
    PGI_NOT_NULL(path);
    pgi_call call = pgi_call_begin(model, NULL, NULL, NULL);
    pg_status status = pgi_features_load(model, path, out);
    pgi_call_end(&call);
    return status;
}

pg_status pg_features_from_bytes(const pg_model *model, const void *bytes, size_t n_bytes, pg_features **out) {
    PGI_ENTER;
    PGI_NOT_NULL(out);
    *out = NULL;
    PGI_NOT_NULL(model);
    PGI_NOT_NULL(bytes);
    pgi_call call = pgi_call_begin(model, NULL, NULL, NULL);
    pg_status status = pgi_features_from_bytes(model, bytes, n_bytes, out);
    pgi_call_end(&call);
    return status;
}
