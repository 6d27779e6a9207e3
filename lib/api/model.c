/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* pg_model: open, close, describe, convert; and where a checkpoint lies. */
#include <math.h>
#include <string.h>

#include "api/structs.h"
#include "checkpoint/convert.h"
#include "checkpoint/hf_cache.h"
#include "checkpoint/json.h"
#include "checkpoint/quantized_store.h"
#include "generate/session.h"
#include "model/adapter.h"
#include "model/adapter_merge.h"
#include "model/calibrate.h"

PGI_OPTIONS(pg_model_options, .struct_size = sizeof(pg_model_options))

/* What can be said of int8_layers before the model is known. */
static pg_status mix_in(int32_t weights, const char *int8_layers, const char *options) {
    if (!int8_layers || weights == PG_WEIGHTS_INT4) return PG_OK;
    return pgi_error(PG_ERROR_ARGUMENT,
                     "%s.int8_layers is \"%.60s\" beside %s weights, expected PG_WEIGHTS_INT4, or no int8_layers",
                     options, int8_layers, pgi_weights_name(weights));
}

pg_status pg_model_open(const char *model, const pg_model_options *options, pg_model **out) {
    PGI_ENTER;
    PGI_NOT_NULL(out);
    *out = NULL;
    PGI_NOT_NULL(model);
    PGI_OPTIONS_IN(pg_model_options, complete, options);
    if (complete.weights < PG_WEIGHTS_STORED || complete.weights > PG_WEIGHTS_INT4)
        return pgi_error(PG_ERROR_ARGUMENT, "pg_model_options.weights is %d, expected a PG_WEIGHTS_*",
                         (int)complete.weights);
    if (complete.arithmetic < PG_ARITHMETIC_DEFAULT || complete.arithmetic > PG_ARITHMETIC_BF16)
        return pgi_error(PG_ERROR_ARGUMENT, "pg_model_options.arithmetic is %d, expected a PG_ARITHMETIC_*",
                         (int)complete.arithmetic);
    if (complete.kv < PG_KV_DEFAULT || complete.kv > PG_KV_BF16)
        return pgi_error(PG_ERROR_ARGUMENT, "pg_model_options.kv is %d, expected a PG_KV_*", (int)complete.kv);
    if (complete.flags & ~(uint32_t)(PG_MODEL_VERIFY | PG_MODEL_IN_MEMORY))
        return pgi_error(PG_ERROR_ARGUMENT,
                         "pg_model_options.flags is 0x%x, expected PG_MODEL_VERIFY, PG_MODEL_IN_MEMORY, both or 0",
                         (unsigned)complete.flags);
    PGI_TRY(mix_in(complete.weights, complete.int8_layers, "pg_model_options"));
    PGI_TRY(pgi_open_thread_count(complete.n_threads, &complete.n_threads));
    pgi_memory memory;
    PGI_TRY(pgi_allocator_in(complete.allocator, &memory));
    pgi_cancel_retain(complete.cancel); /* the host may close it while the call is under way */
    pg_status status = pgi_model_open(&memory, model, &complete, out);
    pgi_cancel_release(complete.cancel);
    return status;
}

void pg_model_close(pg_model **model) {
    if (!model) return;
    pg_model *closed = *model;
    *model = NULL; /* before its memory goes: the allocator's callback may close it, too */
    pgi_model_release(closed);
}

static pg_status find_field(const pg_model *model, const char *key, const pgi_json **out) {
    PGI_NOT_NULL(model);
    PGI_NOT_NULL(key);
    *out = pgi_config_field(&model->config, key);
    if (!*out) return pgi_error(PG_ERROR_NOT_FOUND, "the config has no field \"%s\"", key);
    return PG_OK;
}

static pg_status wrong_type(const char *key, const pgi_json *field, const char *expected) {
    char buffer[64];
    return pgi_error(PG_ERROR_ARGUMENT, "the config's field \"%s\" is %s, expected %s", key,
                     pgi_json_describe(field, buffer, sizeof buffer), expected);
}

pg_status pg_model_get_config_int(const pg_model *model, const char *key, int64_t *out) {
    PGI_ENTER;
    const pgi_json *field;
    PGI_NOT_NULL(out);
    PGI_TRY(find_field(model, key, &field));
    if (pgi_json_is(field, PGI_JSON_INTEGER))
        *out = pgi_json_integer(field);
    else if (pgi_json_is_boolean(field))
        *out = pgi_json_is(field, PGI_JSON_TRUE);
    else
        return wrong_type(key, field, "an integer or a boolean");
    return PG_OK;
}

pg_status pg_model_get_config_float(const pg_model *model, const char *key, double *out) {
    PGI_ENTER;
    const pgi_json *field;
    PGI_NOT_NULL(out);
    PGI_TRY(find_field(model, key, &field));
    if (!pgi_json_is_number(field)) return wrong_type(key, field, "a number");
    *out = pgi_json_number(field);
    return PG_OK;
}

pg_status pg_model_get_config(const pg_model *model, const char *key, char *text, size_t capacity, size_t *needed) {
    PGI_ENTER;
    const pgi_json *field;
    PGI_TRY(find_field(model, key, &field));
    pgi_buffer buffer;
    pg_model *kept = pgi_model_retain(model); /* its allocator may close the handle */
    pgi_buffer_init(&buffer, &model->memory);
    pg_status status = pgi_json_dump(field, &buffer);
    if (status >= 0) status = pgi_copy_text_out((const char *)buffer.data, buffer.size, text, capacity, needed);
    pgi_buffer_free(&buffer);
    pgi_model_release(kept);
    return status;
}

pg_status pg_model_get_info(const pg_model *model, pg_model_info *info) {
    PGI_ENTER;
    PGI_NOT_NULL(model);
    PGI_TRY(pgi_struct_out_check(info, PGI_STRUCT(pg_model_info)));
    pg_model_info value = {
        .struct_size = sizeof value,
        .gemma_version = model->config.text.gemma_version,
        .n_parameters = model->weights.n_parameters,
        .n_bytes_mapped = pgi_tensor_files_n_bytes_mapped(model->files),
        .cpu_used = model->kernels.cpu,
        .n_files = pgi_tensor_files_n_files(model->files),
        .n_tensors = model->weights.n_tensors,
        .dtypes = model->weights.dtypes,
        .image_size = model->config.vision.image_size,
        .n_image_tokens = model->config.vision.n_patches,
        .vocab_size = model->config.text.vocab_size,
        .weights = model->weights.format,
        .arithmetic = model->kernels.bf16_attention ? PG_ARITHMETIC_BF16 : PG_ARITHMETIC_F32,
        .embedding_dim = (int32_t)model->weights.retrieval.weight.rows,
        .n_int8_matrices = model->weights.n_int8,
        .kv = model->kv_bf16 ? PG_KV_BF16 : PG_KV_F32,
    };
    pgi_struct_out(info, &value, sizeof value);
    return PG_OK;
}

/* Bytes of the files that are read again and again. */
static uint64_t mapped_bytes(const pg_model *model) {
    uint64_t n = 0;
    if (!model->weights.blocks) return pgi_tensor_files_n_bytes_mapped(model->files);
    for (size_t i = 0; i < pgi_tensor_files_count(model->files); i++) { /* quantized ones are not in use any more */
        const pgi_stored_tensor *tensor = pgi_tensor_files_at(model->files, i);
        if (tensor->used && tensor->data && !tensor->loaded) n += tensor->n_bytes;
    }
    return n;
}

pg_status pg_model_get_memory(const pg_model *model, pg_memory *memory) {
    PGI_ENTER;
    PGI_NOT_NULL(model);
    PGI_TRY(pgi_struct_out_check(memory, PGI_STRUCT(pg_memory)));
    pg_memory value = {.struct_size = sizeof value};
    PGI_TRY(pgi_struct_in(&value, memory, PGI_STRUCT(pg_memory)));
    if (value.n_images == 0) value.n_images = 1;
    if (value.n_tokens == 0) value.n_tokens = (int64_t)model->config.vision.n_patches + 64 + 128;
    if (value.n_images < 0 || value.n_images > 4096)
        return pgi_error(PG_ERROR_ARGUMENT, "n_images is %lld, expected 0 to 4096", (long long)value.n_images);
    if (value.n_tokens < 0 || value.n_tokens > PGI_MAX_ROW_TOKENS)
        return pgi_error(PG_ERROR_ARGUMENT, "n_tokens is %lld, expected 0 to %d", (long long)value.n_tokens,
                         PGI_MAX_ROW_TOKENS);

    pgi_run run = {.kernels = &model->kernels};
    PGI_TRY(pgi_thread_count(value.n_threads, &run.n_threads));
    value.n_threads = run.n_threads;
    value.weights = mapped_bytes(model);
    value.weights_copied =
        model->weights.n_bytes_copied + pgi_tensor_files_n_bytes_loaded(model->files) + pgi_adapted_bytes(model);
    const int64_t in_prompt =
        value.n_tokens / model->config.vision.n_patches; /* images that a session's prompt can have */
    value.activations =
        pgi_session_workspace(&run, model, value.n_tokens, value.n_images > in_prompt ? value.n_images : in_prompt);
    value.kv_cache = 2 * (uint64_t)pgi_kv_cache_size(&model->config.text, model->kv_bf16, value.n_tokens);
    pgi_struct_out(memory, &value, sizeof value);
    return PG_OK;
}

pg_status pg_checkpoint_find(const char *model, const char *cache, char *path, size_t capacity, size_t *needed) {
    PGI_ENTER;
    PGI_NOT_NULL(model);
    char *folder;
    PGI_TRY(pgi_hf_cache_find(&pgi_memory_default, model, cache, &folder));
    pg_status status = pgi_copy_text_out(folder, strlen(folder), path, capacity, needed);
    pgi_free(&pgi_memory_default, folder);
    return status;
}

pg_status pg_checkpoint_get_config(const char *model, char *text, size_t capacity, size_t *needed) {
    PGI_ENTER;
    PGI_NOT_NULL(model);
    const pgi_memory *memory = &pgi_memory_default;
    pgi_config config;
    pgi_buffer buffer;
    char *folder;
    PGI_TRY(pgi_hf_cache_find(memory, model, NULL, &folder));
    pg_status status = pgi_config_load(memory, folder, &config);
    pgi_free(memory, folder);
    PGI_TRY(status);
    pgi_buffer_init(&buffer, memory);
    status = pgi_json_dump(pgi_config_field(&config, ""), &buffer);
    if (status >= 0) status = pgi_copy_text_out((const char *)buffer.data, buffer.size, text, capacity, needed);
    pgi_buffer_free(&buffer);
    pgi_config_free(&config);
    return status;
}

PGI_OPTIONS(pg_convert_options, .struct_size = sizeof(pg_convert_options), .weights = PG_WEIGHTS_INT8)

/* What can be said of the adapters before they are opened. */
static pg_status merging_in(const pg_convert_options *options) {
    PGI_TRY(pgi_reserved_in(options->reserved_end, "pg_convert_options"));
    if (options->n_adapters < 0 || options->n_adapters > PGI_MAX_ADAPTERS)
        return pgi_error(PG_ERROR_ARGUMENT, "pg_convert_options.n_adapters is %d, expected 0 to %d",
                         (int)options->n_adapters, PGI_MAX_ADAPTERS);
    if (options->n_adapters > 0 && !options->adapters)
        return pgi_error(PG_ERROR_ARGUMENT, "pg_convert_options.adapters is NULL, expected %d of them",
                         (int)options->n_adapters);
    if (options->n_adapters > 0 && options->calibration)
        return pgi_error(PG_ERROR_ARGUMENT,
                         "pg_convert_options has adapters and a calibration, expected one of them: "
                         "merge first, then calibrate what was written");
    for (int32_t i = 0; i < options->n_adapters; i++) {
        if (!options->adapters[i])
            return pgi_error(PG_ERROR_ARGUMENT, "pg_convert_options.adapters[%d] is NULL, expected a folder", (int)i);
        if (options->adapter_weights && !isfinite(options->adapter_weights[i]))
            return pgi_error(PG_ERROR_ARGUMENT, "pg_convert_options.adapter_weights[%d] is %f, expected a number",
                             (int)i, (double)options->adapter_weights[i]);
    }
    return PG_OK;
}

static pg_status convert_merged(const pgi_memory *memory, const pgi_run *run, const pgi_log *log, const char *model,
                                const pg_convert_options *options, pgi_convert_target *target) {
    pgi_adapter_merge merger;
    if (options->n_adapters == 0) return pgi_convert(memory, run, log, model, target);
    PGI_TRY(pgi_adapter_merge_open(memory, run, model, options->adapters, options->adapter_weights,
                                   (size_t)options->n_adapters, &merger));
    target->changes = &merger.calls;
    const pg_status status = pgi_convert(memory, run, log, model, target);
    pgi_adapter_merge_close(&merger);
    return status;
}

static const uint64_t DEFAULT_FILE_BYTES = 5000000000u; /* as transformers cuts checkpoints */

pg_status pg_model_convert(const char *model, const char *out, const pg_convert_options *options) {
    PGI_ENTER;
    PGI_NOT_NULL(model);
    PGI_NOT_NULL(out);
    PGI_OPTIONS_IN(pg_convert_options, complete, options);
    PGI_TRY(pgi_reserved_in(complete.reserved, "pg_convert_options"));
    PGI_TRY(merging_in(&complete));
    const int stores = complete.weights == PG_WEIGHTS_STORED && complete.n_adapters > 0;
    if (!stores && complete.weights != PG_WEIGHTS_INT8 && complete.weights != PG_WEIGHTS_INT4)
        return pgi_error(PG_ERROR_ARGUMENT,
                         "pg_convert_options.weights is %d, expected PG_WEIGHTS_INT8 (1) or PG_WEIGHTS_INT4 (2), or "
                         "PG_WEIGHTS_STORED (0) beside adapters",
                         (int)complete.weights);
    PGI_TRY(mix_in(complete.weights, complete.int8_layers, "pg_convert_options"));
    if (complete.calibration && complete.weights != PG_WEIGHTS_INT4)
        return pgi_error(PG_ERROR_ARGUMENT,
                         "pg_convert_options.calibration is given beside %s weights, expected PG_WEIGHTS_INT4",
                         pgi_weights_name(complete.weights));
    pgi_memory memory;
    PGI_TRY(pgi_allocator_in(complete.allocator, &memory));
    PGI_TRY(pgi_thread_count(complete.n_threads, &complete.n_threads));
    pgi_convert_target target = {out,
                                 complete.weights,
                                 complete.int8_layers,
                                 complete.calibration,
                                 complete.max_file_bytes ? complete.max_file_bytes : DEFAULT_FILE_BYTES,
                                 NULL};
    pgi_thread_pool pool;
    pgi_run run = pgi_run_init(&pool, NULL, PGI_RUN_OPTIONS(&complete));
    const pgi_log log = {complete.log, complete.log_user};
    pgi_cancel_retain(complete.cancel); /* the host may close it while the call is under way */
    pg_status status = PG_OK;
    if (complete.calibration) status = pgi_calibration_begin(complete.calibration);
    if (status >= 0) {
        if (complete.calibration) status = pgi_calibration_check(complete.calibration);
        if (status >= 0) status = convert_merged(&memory, &run, &log, model, &complete, &target);
        if (complete.calibration) status = pgi_calibration_end(complete.calibration, status);
    }
    pgi_run_free(&run);
    pgi_cancel_release(complete.cancel);
    return status;
}
