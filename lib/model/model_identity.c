/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* A hash of encoder and projector. */
#include "model/model_identity.h"

#include "checkpoint/quantized_store.h"
#include "ops/low_rank.h"

enum { WHOLE_BYTES = 65536, N_SAMPLES = 8, SAMPLE_BYTES = 512 };

static void add_bytes(uint64_t *hash, const void *data, int64_t size) {
    const uint8_t *bytes = data;
    for (int64_t i = 0; i < size; i++) *hash = (*hash ^ bytes[i]) * UINT64_C(0x100000001b3);
}

/* In this order of bytes on every machine. */
static void add_number(uint64_t *hash, int64_t number) {
    uint8_t bytes[8];
    for (int i = 0; i < 8; i++) bytes[i] = (uint8_t)((uint64_t)number >> (8 * i));
    add_bytes(hash, bytes, sizeof bytes);
}

static void add_vector(uint64_t *hash, const float *x, int64_t n) {
    add_number(hash, n);
    add_bytes(hash, x, n * (int64_t)sizeof *x);
}

static void add_matrix(uint64_t *hash, const pgi_matrix *matrix) {
    const uint8_t *data = matrix->data;
    const int64_t size = pgi_matrix_bytes(matrix);
    add_number(hash, matrix->dtype);
    add_number(hash, matrix->rows);
    add_number(hash, matrix->columns);
    if (size <= WHOLE_BYTES) {
        add_bytes(hash, data, size);
        return;
    }
    for (int64_t i = 0; i < N_SAMPLES; i++)
        add_bytes(hash, data + (size - SAMPLE_BYTES) / (N_SAMPLES - 1) * i, SAMPLE_BYTES);
}

static void add_low_rank(uint64_t *hash, const pgi_low_rank *of, int64_t n) {
    const int64_t blocks = (n + PGI_LOW_RANK_BLOCK - 1) / PGI_LOW_RANK_BLOCK;
    const pgi_matrix b = {of->b_blocks, of->b_dtype, blocks * of->a.weight.rows, PGI_LOW_RANK_BLOCK, NULL};
    add_matrix(hash, &of->a.weight);
    add_matrix(hash, &b);
    if (of->gain) add_vector(hash, of->gain, n);
    if (of->constant) add_vector(hash, of->constant, n);
}

static void add_linear(uint64_t *hash, const pgi_linear *linear) {
    add_matrix(hash, &linear->weight);
    add_vector(hash, linear->bias, linear->weight.rows);
    if (linear->low_rank) add_low_rank(hash, linear->low_rank, linear->weight.rows);
}

static void add_layer(uint64_t *hash, const pgi_vision_layer *layer, int64_t hidden) {
    add_vector(hash, layer->norm1_weight, hidden);
    add_vector(hash, layer->norm1_bias, hidden);
    add_linear(hash, &layer->q);
    add_linear(hash, &layer->k);
    add_linear(hash, &layer->v);
    add_linear(hash, &layer->out);
    add_vector(hash, layer->norm2_weight, hidden);
    add_vector(hash, layer->norm2_bias, hidden);
    add_linear(hash, &layer->fc1);
    add_linear(hash, &layer->fc2);
}

static void add_settings(uint64_t *hash, const pgi_vision_config *vision) {
    const int64_t numbers[] = {vision->hidden_size, vision->intermediate_size, vision->n_layers,
                               vision->n_heads,     vision->head_dim,          vision->image_size,
                               vision->patch_size,  vision->n_channels,        vision->activation};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) add_number(hash, numbers[i]);
    const float eps = (float)vision->layer_norm_eps;
    add_bytes(hash, &eps, sizeof eps);
}

uint64_t pgi_model_features_hash(const pg_model *model) {
    const pgi_vision_config *vision = &model->config.vision;
    const pgi_vision_weights *weights = &model->weights.vision;
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    add_settings(&hash, vision);
    add_linear(&hash, &model->weights.projector);
    add_linear(&hash, &weights->patch);
    add_matrix(&hash, &weights->position);
    for (int32_t i = 0; i < vision->n_layers; i++) add_layer(&hash, &weights->layers[i], vision->hidden_size);
    add_vector(&hash, weights->norm_weight, vision->hidden_size);
    add_vector(&hash, weights->norm_bias, vision->hidden_size);
    return hash;
}

const char *pgi_model_arithmetic_name(const pg_model *model) {
    return model->kernels.bf16_linear ? "bf16" : model->kernels.bf16_attention ? "bf16 attention" : "f32";
}
