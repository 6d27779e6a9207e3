#include "model/features.h"

#include "encoder/encoder.h"
#include "projector/projector.h"

typedef struct workspace {
    float *encoded;            /* [n_patches, vision hidden] */
    void *encoder, *projector; /* not alive at once, but small beside the rest */
} workspace;

static workspace lay_out(pgi_arena *arena, const pgi_run *run, const pg_model *model) {
    const pgi_vision_config *vision = &model->config.vision;
    workspace w;
    w.encoded = pgi_arena_take(arena, (size_t)vision->n_patches * (size_t)vision->hidden_size, sizeof(float));
    w.encoder = pgi_arena_take(arena, pgi_encoder_workspace(run, vision), 1);
    w.projector = pgi_arena_take(arena, pgi_projector_workspace(run), 1);
    return w;
}

size_t pgi_features_count(const pg_model *model, int64_t n_images) {
    size_t count;
    size_t one = (size_t)model->config.vision.n_patches * (size_t)model->config.text.hidden_size;
    return pgi_mul_size(one, (size_t)n_images, &count) ? count : SIZE_MAX;
}

size_t pgi_features_scratch(const pgi_run *run, const pg_model *model) {
    pgi_arena arena = {0};
    lay_out(&arena, run, model);
    return arena.used;
}

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

pg_status pgi_features_compute(const pgi_run *run, const pg_model *model, const pg_inputs *inputs, float *rows,
                               void *scratch) {
    const pgi_vision_config *vision = &model->config.vision;
    const int64_t image = 3 * (int64_t)vision->image_size * vision->image_size;
    PGI_TRY(check_pixels(model, inputs));
    pgi_arena arena = {.base = scratch};
    workspace w = lay_out(&arena, run, model);
    for (int64_t i = 0; i < inputs->n_images; i++) {
        pgi_run_trace(run, "pixels", (int)i, inputs->pixels + i * image, 3 * (int64_t)vision->image_size,
                      vision->image_size);
        PGI_TRY(pgi_encoder_forward(run, vision, &model->weights.vision, inputs->pixels + i * image, i,
                                    inputs->n_images, w.encoded, w.encoder));
        PGI_TRY(pgi_projector_forward(run, &model->weights.projector, w.encoded, vision->n_patches,
                                      rows + i * vision->n_patches * (int64_t)model->config.text.hidden_size,
                                      w.projector));
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

    void *scratch = pgi_alloc(&model->memory, pgi_features_scratch(run, model), 1);
    if (scratch) features->data = pgi_alloc(&model->memory, pgi_features_count(model, inputs->n_images), sizeof(float));
    pg_status status = PG_ERROR_MEMORY;
    if (features->data) status = pgi_features_compute(run, model, inputs, features->data, scratch);
    pgi_free(&model->memory, scratch);
    if (status < 0)
        pgi_features_release(features);
    else
        *out = features;
    return status;
}
