/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * SigLIP's vision transformer:
 *
 *   x = conv_patch(pixels) + position_embedding                 [N, h]
 *   for each layer:
 *       x = x + out(attention(q, k, v of LN1(x)))               all patches see all patches
 *       x = x + fc2(gelu_tanh(fc1(LN2(x))))
 *   features = LN_post(x)
 *
 * Shapes: N patches in row order, hidden_size h, A heads of h / A values. No class token, biases everywhere.
 * HF: SiglipVisionTransformer. Paper: SigLIP, arXiv 2303.15343.
 */
#include "encoder/encoder.h"

#include <math.h>
#include <string.h>

#include "ops/ops.h"

pgi_attention pgi_encoder_attention(const pgi_vision_config *config) {
    return (pgi_attention){
        .n_heads = config->n_heads,
        .n_kv_heads = config->n_heads,
        .head_dim = config->head_dim,
        .scale = (float)(1.0 / sqrt((double)config->head_dim)),
        .n_queries = config->n_patches,
        .n_keys = config->n_patches,
    };
}

pgi_encoder_workspace pgi_encoder_lay_out(pgi_arena *arena, const pgi_run *run, const pgi_vision_config *config) {
    size_t n = (size_t)config->n_patches, h = (size_t)config->hidden_size;
    size_t patch = (size_t)config->n_channels * (size_t)config->patch_size * (size_t)config->patch_size;
    size_t pixels = n * patch * sizeof(float),
           intermediate = pgi_mlp_intermediate(run->kernels, config->n_patches, config->intermediate_size, 0);
    pgi_attention shape = pgi_encoder_attention(config);
    pgi_encoder_workspace w;
    w.normed = pgi_arena_take(arena, n * h, sizeof(float));
    w.q = pgi_arena_take(arena, n * h, sizeof(float));
    w.k = pgi_arena_take(arena, n * h, sizeof(float));
    w.v = pgi_arena_take(arena, n * h, sizeof(float));
    w.intermediate = pgi_arena_take(arena, pixels > intermediate ? pixels : intermediate, 1);
    w.linear = pgi_arena_take(arena, pgi_linear_scratch(run->kernels, run->n_threads), 1);
    w.attention = pgi_arena_take(arena, pgi_attention_scratch(run->kernels, &shape, run->n_threads), 1);
    return w;
}

void pgi_encoder_cut_patches(const pgi_vision_config *config, const float *pixels, float *patches) {
    size_t size = (size_t)config->image_size, patch = (size_t)config->patch_size, grid = size / patch;
    for (size_t gy = 0; gy < grid; gy++)
        for (size_t gx = 0; gx < grid; gx++)
            for (size_t c = 0; c < (size_t)config->n_channels; c++)
                for (size_t y = 0; y < patch; y++, patches += patch)
                    memcpy(patches, pixels + (c * size + gy * patch + y) * size + gx * patch, patch * sizeof(float));
}

/* x += added, which is what a layer reads, and the layer's first norm of it to w->normed. */
static pg_status enter_layer(const pgi_run *run, const pgi_vision_config *config, const pgi_vision_layer *layer,
                             float *x, const float *added, const pgi_encoder_workspace *w) {
    return pgi_add_layer_norm(run, x, added, config->n_patches, config->hidden_size, layer->norm1_weight,
                              layer->norm1_bias, config->layer_norm_eps, w->normed);
}

/* The rest of the layer, but that w->residual is not yet added to x. */
static pg_status layer_forward(const pgi_run *run, const pgi_vision_config *config, const pgi_vision_layer *layer,
                               float *x, const pgi_encoder_workspace *w) {
    int64_t n = config->n_patches, h = config->hidden_size;
    pgi_attention shape = pgi_encoder_attention(config);
    const pgi_linear_job qkv[] = {{&layer->q, w->q, h}, {&layer->k, w->k, h}, {&layer->v, w->v, h}};
    const pgi_attention_rows rows = {w->q, w->k, w->v, w->attention_out, h, h, h, h, 0, 0};
    const pgi_mlp mlp = {config->activation, NULL, &layer->fc1, &layer->fc2};

    PGI_TRY(pgi_linear_group(run, w->normed, h, n, qkv, 3, w->linear));
    PGI_TRY(pgi_attention_forward(run, &shape, &rows, w->attention));
    PGI_TRY(pgi_linear_forward(run, w->attention_out, h, n, &layer->out, w->residual, h, w->linear));
    PGI_TRY(pgi_add_layer_norm(run, x, w->residual, n, h, layer->norm2_weight, layer->norm2_bias,
                               config->layer_norm_eps, w->normed));
    return pgi_mlp_forward(run, &mlp, w->normed, n, w->residual, w->intermediate, w->linear);
}

pg_status pgi_encoder_forward(const pgi_run *run, const pgi_vision_config *config, const pgi_vision_weights *weights,
                              const float *pixels, int64_t image, int64_t n_images, float *out,
                              const pgi_encoder_workspace *w) {
    int64_t n = config->n_patches, h = config->hidden_size;
    pgi_encoder_cut_patches(config, pixels, w->patches);
    PGI_TRY(pgi_linear_forward(run, w->patches, weights->patch.weight.columns, n, &weights->patch, out, h, w->linear));
    for (int64_t i = 0; i < n; i++) pgi_matrix_row(run->kernels, &weights->position, i, 1.0f, w->position + i * h);
    PGI_TRY(enter_layer(run, config, &weights->layers[0], out, w->position, w));
    pgi_run_trace(run, "patches", -1, out, n, h);

    for (int32_t i = 0; i < config->n_layers; i++) {
        PGI_TRY(pgi_run_progress(run, PG_PHASE_VISION, image * config->n_layers + i, n_images * config->n_layers));
        PGI_TRY(layer_forward(run, config, &weights->layers[i], out, w));
        if (i + 1 < config->n_layers)
            PGI_TRY(enter_layer(run, config, &weights->layers[i + 1], out, w->residual, w));
        else
            PGI_TRY(pgi_add(run, out, w->residual, n * h));
        pgi_run_trace(run, "encoder_layer", i, out, n, h);
    }
    PGI_TRY(pgi_layer_norm(run, out, n, h, weights->norm_weight, weights->norm_bias, config->layer_norm_eps, out));
    pgi_run_trace(run, "encoder_norm", -1, out, n, h);
    return pgi_run_progress(run, PG_PHASE_VISION, (image + 1) * config->n_layers, n_images * config->n_layers);
}
