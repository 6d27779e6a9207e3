/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Opening a model: find the folder, read the config, map the files, bind and perhaps quantize the weights. */
#include "model/model.h"

#include "base/parallel.h"
#include "checkpoint/hf_cache.h"
#include "checkpoint/mix.h"
#include "checkpoint/quantized_store.h"

static void model_close(pg_model *model) {
    pgi_memory memory = model->memory;
    if (model->base) {
        pg_model *base = model->base;
        model->end_adapted(model);
        pgi_free(&memory, model);
        pgi_model_release(base);
        return;
    }
    for (int i = 0; i < 2; i++) pgi_background_end(&model->ahead.threads[i].thread);
    pgi_weights_free(&model->weights);
    pgi_tensor_files_close(&model->files);
    pgi_config_free(&model->config);
    pgi_free(&memory, model);
}

/* How the weights were found. */
static pg_status log_weights(const pg_model *model, const char *folder, int in_memory) {
    const uint64_t n_loaded = pgi_tensor_files_n_bytes_loaded(model->files);
    if (n_loaded > 0 && !in_memory)
        PGI_TRY(pgi_log_line(&model->log, PG_LOG_WARNING,
                             "%s: its file system cannot map the weights: %llu bytes were read into memory instead, "
                             "which no other process shares",
                             folder, (unsigned long long)n_loaded));
    if (!model->weights.transposed) return PG_OK;
    return pgi_log_line(
        &model->log, PG_LOG_INFO,
        "%s: tensor %s: found in the layout of MLX (channels last), transposed to [out, 3, rows, columns]", folder,
        model->weights.transposed);
}

/* What the model is, and what of its folder is not followed. */
static pg_status log_opened(const pg_model *model, const char *folder) {
    const uint32_t n_files = pgi_tensor_files_n_files(model->files);
    PGI_TRY(pgi_log_line(&model->log, PG_LOG_INFO,
                         "opened %s: %sPaliGemma %d, %llu parameters in %u file%s, cpu 0x%llx", folder,
                         model->weights.retrieval.weight.data ? "ColPali on " : "", model->config.text.gemma_version,
                         (unsigned long long)model->weights.n_parameters, n_files, n_files == 1 ? "" : "s",
                         (unsigned long long)model->kernels.cpu));
    if (*model->config.generation.unfollowed)
        PGI_TRY(pgi_log_line(&model->log, PG_LOG_WARNING,
                             "%s/generation_config.json: transformers' generate() follows %s, this library does not",
                             folder, model->config.generation.unfollowed));
    if (model->config.n_eos > 0) return PG_OK;
    return pgi_log_line(&model->log, PG_LOG_WARNING,
                        "%s: found no eos_token_id (generation_config.json where it is there, else config.json): "
                        "nothing but max_new_tokens ends an answer",
                        folder);
}

pg_status pgi_model_open(const pgi_memory *memory, const char *name, const pg_model_options *options, pg_model **out) {
    pgi_config config;
    char *folder = NULL;
    pg_status status;

    pg_model *model = pgi_alloc_zero(memory, 1, sizeof *model);
    if (!model) return PG_ERROR_MEMORY;
    pgi_thread_pool pool; /* starts when there are weights to verify or to quantize */
    pgi_run run = pgi_run_init(&pool, NULL, PGI_RUN_OPTIONS(options));
    model->memory = *memory;
    memory = &model->memory; /* the parts keep the pointer: it must live as long as they do */
    model->log = (pgi_log){options->log, options->log_user};
    atomic_init(&model->references, 1);
    atomic_init(&model->ties_head, PGI_TIES_UNKNOWN);

    PGI_GOTO(pgi_hf_cache_find(memory, name, NULL, &folder), fail);
    PGI_GOTO(pgi_kernels_init(&model->kernels, options->cpu_mask), fail);
    PGI_GOTO(pgi_config_load(memory, folder, &config), fail);
    model->config = config;
    const int in_memory = (options->flags & PG_MODEL_IN_MEMORY) != 0;
    PGI_GOTO(pgi_tensor_files_open(memory, folder, in_memory, options->cancel, &model->files), fail);
    PGI_GOTO(pgi_weights_bind(memory, &run, &model->config, model->files, options->weights, &model->weights), fail);
    PGI_GOTO(log_weights(model, folder, in_memory), fail);
    if (options->flags & PG_MODEL_VERIFY) PGI_GOTO(pgi_quantized_store_verify(memory, &run, model->files), fail);
    if (options->weights != PG_WEIGHTS_STORED && options->weights != model->weights.format) {
        if (model->weights.format != PG_WEIGHTS_STORED) {
            status = pgi_error(PG_ERROR_ARGUMENT, "%s: found weights converted to %s, expected %s as the options say",
                               folder, pgi_weights_name(model->weights.format), pgi_weights_name(options->weights));
            goto fail;
        }
        PGI_GOTO(pgi_model_quantize(model, &run, options->weights, options->int8_layers), fail);
    } else if (options->int8_layers) {
        PGI_GOTO(pgi_mix_check(options->int8_layers, &model->weights, &model->config), fail);
        PGI_GOTO(pgi_mix_compare(options->weights, options->int8_layers, &model->weights, &model->config), fail);
    }
    model->weights.n_int8 = pgi_mix_count_int8(&model->weights, &model->config);
    pgi_tensor_files_finish(model->files);
    const int quantized = model->weights.format != PG_WEIGHTS_STORED || options->weights != PG_WEIGHTS_STORED;
    pgi_kernels_arithmetic(&model->kernels, options->arithmetic, quantized);
    model->kv_bf16 = options->kv == PG_KV_BF16 || (options->kv == PG_KV_DEFAULT && quantized);
    PGI_GOTO(log_opened(model, folder), fail);
    pgi_run_free(&run);
    pgi_free(memory, folder);
    *out = model;
    return PG_OK;
fail:
    pgi_run_free(&run);
    pgi_free(memory, folder);
    model_close(model);
    return status;
}

const pg_model *pgi_model_base(const pg_model *model) { return model->base ? model->base : model; }

pg_model *pgi_model_retain(const pg_model *model) {
    pg_model *counted = (pg_model *)(uintptr_t)model;
    if (counted) atomic_fetch_add_explicit(&counted->references, 1, memory_order_relaxed);
    return counted;
}

void pgi_model_release(pg_model *model) {
    if (model && atomic_fetch_sub_explicit(&model->references, 1, memory_order_acq_rel) == 1) model_close(model);
}
