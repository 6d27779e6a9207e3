/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The layers of encoder/encoder.c and the projector, one operation after the other as layers.h has them. */
#include "train/encoder.h"

#include <string.h>

#include "encoder/encoder.h"

static const pgi_vision_config *config_of(const pgi_train_encoder *e) { return &e->trained->model->config.vision; }

pgi_train_encoder pgi_train_encoder_lay_out(pgi_arena *arena, const pgi_train_pass *pass,
                                            const pgi_trained_model *trained) {
    const pgi_vision_config *config = &trained->model->config.vision;
    const size_t n = (size_t)config->n_patches, h = (size_t)config->hidden_size;
    const size_t inner = (size_t)config->intermediate_size, patch = (size_t)config->patch_size;
    const pgi_attention shape = pgi_encoder_attention(config);
    const size_t forward = pgi_attention_scratch(pass->run->kernels, &shape, pass->run->n_threads);
    const size_t back = trained->trains_encoder ? pgi_train_attention_scratch(config->n_patches) : 0;
    pgi_train_encoder e = {.pass = pass, .trained = trained};
    e.patches = pgi_arena_take(arena, n * 3 * patch * patch, sizeof(float));
    e.inputs =
        pgi_arena_take(arena, (trained->trains_encoder ? (size_t)config->n_layers + 1 : 2) * n * h, sizeof(float));
    e.features = pgi_arena_take(arena, n * h, sizeof(float));
    float **kept[] = {&e.kept.normed, &e.kept.q,   &e.kept.k,          &e.kept.v, &e.kept.attended,
                      &e.kept.middle, &e.residual, &e.kept.mlp_normed, &e.dx,     &e.back[0],
                      &e.back[1],     &e.back[2],  &e.back[3]};
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++) *kept[i] = pgi_arena_take(arena, n * h, sizeof(float));
    e.kept.inner = pgi_arena_take(arena, n * inner, sizeof(float));
    for (int i = 0; i < 2; i++) e.hidden[i] = pgi_arena_take(arena, n * inner, sizeof(float));
    e.attention = pgi_arena_take(arena, forward > back ? forward : back, 1);
    return e;
}

/* What layer `index` reads; without gradients two arrays take turns. */
static float *input_of(const pgi_train_encoder *e, int32_t index) {
    const int64_t size = (int64_t)config_of(e)->n_patches * config_of(e)->hidden_size;
    return e->inputs + (e->trained->trains_encoder ? index : index % 2) * size;
}

/* x = a + e->residual */
static pg_status add_residual(const pgi_train_encoder *e, const float *a, float *x) {
    const int64_t size = (int64_t)config_of(e)->n_patches * config_of(e)->hidden_size;
    memcpy(x, a, (size_t)size * sizeof *x);
    return pgi_add(e->pass->run, x, e->residual, size);
}

/* Layer `index` up to the activation of its MLP. */
static pg_status layer_begin(const pgi_train_encoder *e, int32_t index) {
    const pgi_vision_config *config = config_of(e);
    const pgi_trained_vision_layer *layer = &e->trained->vision[index];
    const pgi_vision_kept *k = &e->kept;
    const pgi_train_pass *pass = e->pass;
    const int64_t n = config->n_patches, h = config->hidden_size;
    const pgi_attention shape = pgi_encoder_attention(config);
    const pgi_attention_rows rows = {k->q, k->k, k->v, k->attended, h, h, h, h, 0, 0};
    PGI_TRY(pgi_train_norm(pass, &layer->norm1, input_of(e, index), n, h, config->layer_norm_eps, k->normed));
    PGI_TRY(pgi_train_linear(pass, &layer->q, k->normed, n, k->q));
    PGI_TRY(pgi_train_linear(pass, &layer->k, k->normed, n, k->k));
    PGI_TRY(pgi_train_linear(pass, &layer->v, k->normed, n, k->v));
    PGI_TRY(pgi_attention_forward(pass->run, &shape, &rows, e->attention));
    PGI_TRY(pgi_train_linear(pass, &layer->out, k->attended, n, e->residual));
    PGI_TRY(add_residual(e, input_of(e, index), k->middle));
    PGI_TRY(pgi_train_norm(pass, &layer->norm2, k->middle, n, h, config->layer_norm_eps, k->mlp_normed));
    return pgi_train_linear(pass, &layer->fc1, k->mlp_normed, n, k->inner);
}

/* act(k->inner) to hidden[0]. */
static pg_status activate(const pgi_train_encoder *e) {
    const int64_t size = (int64_t)config_of(e)->n_patches * config_of(e)->intermediate_size;
    memcpy(e->hidden[0], e->kept.inner, (size_t)size * sizeof(float));
    return pgi_activate(e->pass->run, config_of(e)->activation, e->hidden[0], size);
}

static pg_status layer_forward(const pgi_train_encoder *e, int32_t index) {
    PGI_TRY(layer_begin(e, index));
    PGI_TRY(activate(e));
    PGI_TRY(
        pgi_train_linear(e->pass, &e->trained->vision[index].fc2, e->hidden[0], config_of(e)->n_patches, e->residual));
    return add_residual(e, e->kept.middle, input_of(e, index + 1));
}

/* out [N, h]: rows of the position embedding, with LoRA. */
static pg_status add_positions(const pgi_train_encoder *e, float *out) {
    const pgi_vision_config *config = config_of(e);
    for (int64_t i = 0; i < config->n_patches; i++) {
        PGI_TRY(pgi_cancel_check(e->pass->run->cancel));
        pgi_train_embedding_row(e->pass, &e->trained->position, i, 1, out + i * config->hidden_size);
    }
    return PG_OK;
}

pg_status pgi_train_encoder_forward(pgi_train_encoder *e, const float *pixels, float *out, int64_t done,
                                    int64_t total) {
    const pgi_vision_config *config = config_of(e);
    const pgi_trained_model *trained = e->trained;
    const pgi_run *run = e->pass->run;
    const int64_t n = config->n_patches;
    pgi_encoder_cut_patches(config, pixels, e->patches);
    PGI_TRY(pgi_train_linear(e->pass, &trained->patch, e->patches, n, e->back[0]));
    PGI_TRY(add_positions(e, e->residual));
    PGI_TRY(add_residual(e, e->back[0], input_of(e, 0)));
    for (int32_t i = 0; i < config->n_layers; i++) {
        PGI_TRY(pgi_run_progress(run, PG_PHASE_TRAIN, done + i, total));
        PGI_TRY(layer_forward(e, i));
    }
    PGI_TRY(pgi_train_norm(e->pass, &trained->vision_norm, input_of(e, config->n_layers), n, config->hidden_size,
                           config->layer_norm_eps, e->features));
    return pgi_train_linear(e->pass, &trained->projector, e->features, n, out);
}

/* e->dx: of the layer's output, becomes that of `middle`. */
static pg_status mlp_back(const pgi_train_encoder *e, int32_t index) {
    const pgi_vision_config *config = config_of(e);
    const pgi_trained_vision_layer *layer = &e->trained->vision[index];
    const pgi_vision_kept *k = &e->kept;
    const int64_t n = config->n_patches;
    PGI_TRY(activate(e));
    PGI_TRY(pgi_train_linear_back(e->pass, &layer->fc2, e->hidden[0], n, e->dx, e->hidden[1], 0));
    PGI_TRY(pgi_train_activation_back(e->pass->run, config->activation, k->inner, n * config->intermediate_size,
                                      e->hidden[1], e->hidden[1]));
    PGI_TRY(pgi_train_linear_back(e->pass, &layer->fc1, k->mlp_normed, n, e->hidden[1], e->back[0], 0));
    return pgi_train_norm_back(e->pass, &layer->norm2, k->middle, n, config->hidden_size, config->layer_norm_eps,
                               e->back[0], e->dx, 1);
}

/* e->dx: of `middle`, becomes that of the layer's input. */
static pg_status attention_back(const pgi_train_encoder *e, int32_t index) {
    const pgi_vision_config *config = config_of(e);
    const pgi_trained_vision_layer *layer = &e->trained->vision[index];
    const pgi_vision_kept *k = &e->kept;
    const int64_t n = config->n_patches;
    const pgi_train_attention attention = {pgi_encoder_attention(config), k->q, k->k, k->v};
    float *dq = e->back[1], *dk = e->back[2], *dv = e->back[3], *dn = e->back[0];
    PGI_TRY(pgi_train_linear_back(e->pass, &layer->out, k->attended, n, e->dx, dn, 0));
    PGI_TRY(pgi_train_attention_back(e->pass, &attention, dn, dq, dk, dv, e->attention));
    PGI_TRY(pgi_train_linear_back(e->pass, &layer->q, k->normed, n, dq, dn, 0));
    PGI_TRY(pgi_train_linear_back(e->pass, &layer->k, k->normed, n, dk, dn, 1));
    PGI_TRY(pgi_train_linear_back(e->pass, &layer->v, k->normed, n, dv, dn, 1));
    return pgi_train_norm_back(e->pass, &layer->norm1, input_of(e, index), n, config->hidden_size,
                               config->layer_norm_eps, dn, e->dx, 1);
}

pg_status pgi_train_encoder_back(pgi_train_encoder *e, const float *d_out, int64_t done, int64_t total) {
    const pgi_vision_config *config = config_of(e);
    const pgi_trained_model *trained = e->trained;
    const int64_t n = config->n_patches, h = config->hidden_size;
    float *d_features = trained->trains_encoder ? e->back[0] : NULL;
    PGI_TRY(pgi_train_linear_back(e->pass, &trained->projector, e->features, n, d_out, d_features, 0));
    if (!d_features) return PG_OK;
    PGI_TRY(pgi_train_norm_back(e->pass, &trained->vision_norm, input_of(e, config->n_layers), n, h,
                                config->layer_norm_eps, d_features, e->dx, 0));
    for (int32_t i = config->n_layers - 1; i >= trained->first_vision; i--) {
        PGI_TRY(pgi_run_progress(e->pass->run, PG_PHASE_TRAIN, done + config->n_layers - 1 - i, total));
        PGI_TRY(layer_begin(e, i));
        PGI_TRY(mlp_back(e, i));
        PGI_TRY(attention_back(e, i));
    }
    if (!trained->trains_patches) return PG_OK;
    for (int64_t i = 0; i < n && (trained->position.a || trained->position.weight); i++) {
        PGI_TRY(pgi_cancel_check(e->pass->run->cancel));
        pgi_train_embedding_row_back(e->pass, &trained->position, i, 1, e->dx + i * h);
    }
    return pgi_train_linear_back(e->pass, &trained->patch, e->patches, n, e->dx, NULL, 0);
}
