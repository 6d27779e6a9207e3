/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Images to features: each through the encoder and the projector, one after the other. */
#include "model/features.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "checkpoint/quantized_store.h"

pg_features *pgi_features_retain(const pg_features *features) {
    pg_features *counted = (pg_features *)(uintptr_t)features;
    atomic_fetch_add_explicit(&counted->references, 1, memory_order_relaxed);
    return counted;
}

void pgi_features_release(pg_features *features) {
    if (!features || atomic_fetch_sub_explicit(&features->references, 1, memory_order_acq_rel) != 1) return;
    pg_model *model = features->model;
    pgi_memory memory = model->memory;
    pgi_model_release(atomic_load_explicit(&features->also_of, memory_order_acquire));
    pgi_free(&memory, features->data);
    pgi_free(&memory, features);
    pgi_model_release(model);
}

static int same_vision(const pgi_vision_config *a, const pgi_vision_config *b) {
    return a->hidden_size == b->hidden_size && a->intermediate_size == b->intermediate_size &&
           a->n_layers == b->n_layers && a->n_heads == b->n_heads && a->head_dim == b->head_dim &&
           a->image_size == b->image_size && a->patch_size == b->patch_size && a->n_channels == b->n_channels &&
           a->n_patches == b->n_patches && a->activation == b->activation && a->layer_norm_eps == b->layer_norm_eps;
}

static int same_bytes(const void *a, const void *b, int64_t size) { return a == b || memcmp(a, b, (size_t)size) == 0; }

static int same_matrix(const pgi_matrix *a, const pgi_matrix *b) {
    if (a->dtype != b->dtype || a->rows != b->rows || a->columns != b->columns) return 0;
    return same_bytes(a->data, b->data, pgi_matrix_bytes(a));
}

static int same_vector(const float *a, const float *b, int64_t n) {
    return same_bytes(a, b, n * (int64_t)sizeof(float));
}

static int same_linear(const pgi_linear *a, const pgi_linear *b) {
    return a->low_rank == b->low_rank && same_matrix(&a->weight, &b->weight) &&
           same_vector(a->bias, b->bias, a->weight.rows);
}

static int same_layer(const pgi_vision_layer *a, const pgi_vision_layer *b, int64_t hidden) {
    return same_vector(a->norm1_weight, b->norm1_weight, hidden) && same_vector(a->norm1_bias, b->norm1_bias, hidden) &&
           same_linear(&a->q, &b->q) && same_linear(&a->k, &b->k) && same_linear(&a->v, &b->v) &&
           same_linear(&a->out, &b->out) && same_vector(a->norm2_weight, b->norm2_weight, hidden) &&
           same_vector(a->norm2_bias, b->norm2_bias, hidden) && same_linear(&a->fc1, &b->fc1) &&
           same_linear(&a->fc2, &b->fc2);
}

/* Encoder and projector are the same without a look at their weights. */
static int are_of_same_files(const pg_model *a, const pg_model *b) {
    return !a->adapts_vision && !b->adapts_vision && pgi_tensor_files_same(a->files, b->files);
}

/* What of the weights that features depend on is not the same, 0.8 GB each in a published checkpoint; NULL: all is. The
 * models have the same shapes. `text` is for a name. */
static const char *different_weights(const pg_model *ours, const pg_model *theirs, char text[32]) {
    const pgi_vision_weights *a = &ours->weights.vision, *b = &theirs->weights.vision;
    const int64_t hidden = ours->config.vision.hidden_size;
    if (are_of_same_files(ours, theirs)) return NULL;
    if (!same_linear(&ours->weights.projector, &theirs->weights.projector)) return "multi_modal_projector";
    if (!same_linear(&a->patch, &b->patch)) return "vision_tower patch_embedding";
    if (!same_matrix(&a->position, &b->position)) return "vision_tower position_embedding";
    for (int32_t i = 0; i < ours->config.vision.n_layers; i++) {
        snprintf(text, 32, "vision_tower layers.%d", i);
        if (!same_layer(&a->layers[i], &b->layers[i], hidden)) return text;
    }
    if (same_vector(a->norm_weight, b->norm_weight, hidden) && same_vector(a->norm_bias, b->norm_bias, hidden))
        return NULL;
    return "vision_tower post_layernorm";
}

static pg_status compare_models(const pg_model *ours, const pg_model *theirs) {
    const pgi_config *a = &ours->config, *b = &theirs->config;
    if (b->text.hidden_size != a->text.hidden_size || b->vision.n_patches != a->vision.n_patches)
        return pgi_error(PG_ERROR_ARGUMENT, "the features are of another model: %d rows of %d, expected %d rows of %d",
                         b->vision.n_patches, b->text.hidden_size, a->vision.n_patches, a->text.hidden_size);
    if (!same_vision(&a->vision, &b->vision))
        return pgi_error(PG_ERROR_ARGUMENT, "the features are of another model: its vision_config differs");
    if (theirs->weights.format != ours->weights.format)
        return pgi_error(PG_ERROR_ARGUMENT, "the features are of a model with %s weights, expected %s",
                         pgi_weights_name(theirs->weights.format), pgi_weights_name(ours->weights.format));
    if (theirs->kernels.bf16_linear != ours->kernels.bf16_linear ||
        theirs->kernels.bf16_attention != ours->kernels.bf16_attention)
        return pgi_error(PG_ERROR_ARGUMENT, "the features are of a model that was opened with another arithmetic");
    char text[32];
    const char *name = different_weights(ours, theirs, text);
    if (!name) return PG_OK;
    if (ours->adapts_vision || theirs->adapts_vision)
        return pgi_error(PG_ERROR_ARGUMENT,
                         "the features are of a model with other adapters: %s differs (make them with this one)", name);
    return pgi_error(PG_ERROR_ARGUMENT, "the features are of another model, %s: %s differs from that of %s",
                     pgi_tensor_files_folder(theirs->files), name, pgi_tensor_files_folder(ours->files));
}

pg_status pgi_features_check(const pg_model *model, const pg_features *features) {
    _Atomic(pg_model *) *also_of = &((pg_features *)(uintptr_t)features)->also_of;
    if (features->model == model || atomic_load_explicit(also_of, memory_order_relaxed) == model) return PG_OK;
    PGI_TRY(compare_models(model, features->model));
    if (are_of_same_files(model, features->model)) return PG_OK; /* as cheap the next time */
    pg_model *kept = pgi_model_retain(model), *none = NULL; /* its address is not another model's while it is counted */
    if (!atomic_compare_exchange_strong(also_of, &none, kept)) pgi_model_release(kept);
    return PG_OK;
}

pg_status pgi_features_check_pixels(const pg_model *model, const pg_inputs *inputs) {
    const int32_t size = model->config.vision.image_size;
    if (!inputs->pixels)
        return pgi_error(PG_ERROR_ARGUMENT,
                         "the inputs have no pixel_values: they were made without an image, so features are needed");
    if (inputs->image_width == size && inputs->image_height == size) return PG_OK;
    return pgi_error(PG_ERROR_ARGUMENT,
                     "the inputs' images are %d x %d pixels, the model expects %d x %d "
                     "(preprocessor_config.json and config.json disagree, or belong to different checkpoints)",
                     inputs->image_width, inputs->image_height, size, size);
}

pg_status pgi_features_compute(const pgi_run *run, const pg_model *model, const pg_model *const *image_models,
                               const pg_inputs *inputs, float *out, const pgi_workspace *workspace) {
    const pgi_vision_config *vision = &model->config.vision;
    const int64_t image = 3 * (int64_t)vision->image_size * vision->image_size;
    PGI_TRY(pgi_features_check_pixels(model, inputs));
    for (int64_t i = 0; i < inputs->n_images; i++) {
        const pgi_weights *weights = image_models ? &image_models[i]->weights : &model->weights;
        pgi_run_trace(run, "pixels", (int)i, inputs->pixels + i * image, 3 * (int64_t)vision->image_size,
                      vision->image_size);
        PGI_TRY(pgi_encoder_forward(run, vision, &weights->vision, inputs->pixels + i * image, i, inputs->n_images,
                                    workspace->encoded, &workspace->encoder));
        PGI_TRY(pgi_projector_forward(run, &weights->projector, workspace->encoded, vision->n_patches,
                                      out + i * vision->n_patches * (int64_t)model->config.text.hidden_size,
                                      &workspace->projector));
    }
    return PG_OK;
}

pg_status pgi_features_new(const pg_model *model, int64_t n_images, pg_features **out) {
    pg_features *features = pgi_alloc_zero(&model->memory, 1, sizeof *features);
    if (!features) return PG_ERROR_MEMORY;
    atomic_init(&features->references, 1);
    atomic_init(&features->also_of, NULL);
    features->model = pgi_model_retain(model);
    features->n_images = n_images;
    features->data = pgi_alloc(&model->memory, pgi_features_count(model, n_images), sizeof(float));
    if (!features->data) {
        pgi_features_release(features);
        return PG_ERROR_MEMORY;
    }
    *out = features;
    return PG_OK;
}

pg_status pgi_features_check_finite(const pg_features *features, pg_status status) {
    const pg_model *model = features->model;
    const size_t n = pgi_features_count(model, features->n_images), width = (size_t)model->config.text.hidden_size;
    const size_t n_rows = (size_t)model->config.vision.n_patches;
    for (size_t i = 0; i < n; i++)
        if (!isfinite(features->data[i]))
            return pgi_error(status,
                             "the features of image %zu, token %zu, column %zu are %f, expected a finite number",
                             i / width / n_rows, i / width % n_rows, i % width, (double)features->data[i]);
    return PG_OK;
}

static pg_status check_values(const pg_model *model, const pg_tensor *values) {
    const int64_t n_rows = model->config.vision.n_patches, width = model->config.text.hidden_size;
    if (values->dtype != PG_DTYPE_F32)
        return pgi_error(PG_ERROR_ARGUMENT, "the features' dtype is %d, expected PG_DTYPE_F32", values->dtype);
    if (values->n_dims != 3 || values->shape[0] < 1 || values->shape[0] > INT32_MAX || values->shape[1] != n_rows ||
        values->shape[2] != width || !values->data)
        return pgi_error(PG_ERROR_ARGUMENT,
                         "found features of %d dimensions, %lld x %lld x %lld, expected data of 3, images x %lld x "
                         "%lld",
                         values->n_dims, (long long)values->shape[0], (long long)values->shape[1],
                         (long long)values->shape[2], (long long)n_rows, (long long)width);
    return PG_OK;
}

pg_status pgi_features_from_tensor(const pg_model *model, const pg_tensor *values, pg_features **out) {
    pg_features *features = NULL;
    PGI_TRY(check_values(model, values));
    PGI_TRY(pgi_features_new(model, values->shape[0], &features));
    memcpy(features->data, values->data, pgi_features_count(model, features->n_images) * sizeof(float));
    pg_status status = pgi_features_check_finite(features, PG_ERROR_ARGUMENT);
    if (status < 0) {
        pgi_features_release(features);
        return status;
    }
    *out = features;
    return PG_OK;
}

pg_status pgi_features_create(const pgi_run *run, const pg_model *model, const pg_model *const *image_models,
                              const pg_inputs *inputs, pg_features **out) {
    pg_features *features = NULL;
    PGI_TRY(pgi_features_check_pixels(model, inputs)); /* before memory is asked for */
    PGI_TRY(pgi_features_new(model, inputs->n_images, &features));
    pgi_workspace workspace = {0};
    pg_status status = pgi_workspace_reserve(&workspace, run, model, &(pgi_limits){.runs_encoder = 1});
    if (status >= 0) status = pgi_features_compute(run, model, image_models, inputs, features->data, &workspace);
    pgi_workspace_free(&workspace, &model->memory);
    if (status < 0)
        pgi_features_release(features);
    else
        *out = features;
    return status;
}
