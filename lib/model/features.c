/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Images to features: each through the encoder and the projector, one after the other. */
#include "model/features.h"

pg_features *pgi_features_retain(const pg_features *features) {
    pg_features *counted = (pg_features *)(uintptr_t)features;
    atomic_fetch_add_explicit(&counted->references, 1, memory_order_relaxed);
    return counted;
}

void pgi_features_release(pg_features *features) {
    if (!features || atomic_fetch_sub_explicit(&features->references, 1, memory_order_acq_rel) != 1) return;
    pg_model *model = features->model;
    pgi_memory memory = model->memory;
    pgi_free(&memory, features->data);
    pgi_free(&memory, features);
    pgi_model_release(model);
}

static pg_status check_pixels(const pg_model *model, const pg_inputs *inputs) {
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

pg_status pgi_features_compute(const pgi_run *run, const pg_model *model, const pg_inputs *inputs, float *out,
                               const pgi_workspace *workspace) {
    const pgi_vision_config *vision = &model->config.vision;
    const int64_t image = 3 * (int64_t)vision->image_size * vision->image_size;
    PGI_TRY(check_pixels(model, inputs));
    for (int64_t i = 0; i < inputs->n_images; i++) {
        pgi_run_trace(run, "pixels", (int)i, inputs->pixels + i * image, 3 * (int64_t)vision->image_size,
                      vision->image_size);
        PGI_TRY(pgi_encoder_forward(run, vision, &model->weights.vision, inputs->pixels + i * image, i,
                                    inputs->n_images, workspace->encoded, &workspace->encoder));
        PGI_TRY(pgi_projector_forward(run, &model->weights.projector, workspace->encoded, vision->n_patches,
                                      out + i * vision->n_patches * (int64_t)model->config.text.hidden_size,
                                      &workspace->projector));
    }
    return PG_OK;
}

pg_status pgi_features_create(const pgi_run *run, pg_model *model, const pg_inputs *inputs, pg_features **out) {
    PGI_TRY(check_pixels(model, inputs)); /* before memory is asked for */
    pg_features *features = pgi_alloc_zero(&model->memory, 1, sizeof *features);
    if (!features) return PG_ERROR_MEMORY;
    atomic_init(&features->references, 1);
    features->model = model;
    features->n_images = inputs->n_images;
    pgi_model_retain(model);

    pgi_workspace workspace = {0};
    pg_status status = pgi_workspace_reserve(&workspace, run, model, &(pgi_limits){.runs_encoder = 1});
    if (status >= 0) {
        features->data = pgi_alloc(&model->memory, pgi_features_count(model, inputs->n_images), sizeof(float));
        status =
            features->data ? pgi_features_compute(run, model, inputs, features->data, &workspace) : PG_ERROR_MEMORY;
    }
    pgi_workspace_free(&workspace, &model->memory);
    if (status < 0)
        pgi_features_release(features);
    else
        *out = features;
    return status;
}
