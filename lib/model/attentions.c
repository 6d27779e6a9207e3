/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The attention weights of pg_forward() as HF's eager attention has them (output_attentions), or less of them: of one
 * layer, averaged, of the last tokens alone, to the image tokens alone. What is left out is never stored.
 */
#include "model/attentions.h"

#include <string.h>

#include "base/int64.h"

enum { DETAILS = PG_FORWARD_ATTENTION_HEAD_MEAN | PG_FORWARD_ATTENTION_LAYER_MEAN | PG_FORWARD_ATTENTION_TO_IMAGE };

pg_status pgi_attentions_check(const pg_model *model, const pg_inputs *inputs, const pg_forward_options *options) {
    const int32_t n_layers = model->config.text.n_layers;
    if (options->flags & DETAILS && !(options->flags & PG_FORWARD_ATTENTIONS))
        return pgi_error(PG_ERROR_ARGUMENT,
                         "flags is 0x%x: PG_FORWARD_ATTENTION_HEAD_MEAN, _LAYER_MEAN and _TO_IMAGE (0x%x) need "
                         "PG_FORWARD_ATTENTIONS (0x%x) beside them",
                         options->flags, (unsigned)DETAILS, (unsigned)PG_FORWARD_ATTENTIONS);
    if (options->attention_layer < -1 || options->attention_layer >= n_layers)
        return pgi_error(PG_ERROR_ARGUMENT, "attention_layer is %d, expected -1 (all) to %d, the last of %d layers",
                         options->attention_layer, n_layers - 1, n_layers);
    if (options->attention_queries < 0 || options->attention_queries > inputs->n_tokens)
        return pgi_error(PG_ERROR_ARGUMENT, "attention_queries is %lld, expected 0 (all) to %lld, the tokens of a row",
                         (long long)options->attention_queries, (long long)inputs->n_tokens);
    return PG_OK;
}

/* The most image tokens that a row has. */
static int64_t most_image_tokens(const pgi_merged_inputs *merged) {
    int64_t most = 0;
    for (int64_t r = 0; r < merged->inputs->n_rows; r++) {
        int64_t n = 0;
        for (int64_t t = 0; t < merged->inputs->n_tokens; t++) n += pgi_is_image_token(merged, r, t);
        most = pgi_max64(most, n);
    }
    return most;
}

pg_status pgi_attentions_init(const pgi_merged_inputs *merged, const pg_forward_options *options, pgi_attentions *out) {
    *out = (pgi_attentions){.flags = options->flags};
    if (!(options->flags & PG_FORWARD_ATTENTIONS)) return PG_OK;
    const pg_inputs *inputs = merged->inputs;
    const pgi_text_config *text = &merged->model->config.text;
    const pgi_memory *memory = &merged->model->memory;
    const int one_layer = options->attention_layer >= 0;
    const int to_image = (options->flags & PG_FORWARD_ATTENTION_TO_IMAGE) != 0;
    out->merged = merged;
    out->layer = one_layer ? options->attention_layer : 0;
    out->n_layers = one_layer ? 1 : text->n_layers;
    out->shape[0] = options->flags & PG_FORWARD_ATTENTION_LAYER_MEAN ? 1 : out->n_layers;
    out->shape[1] = options->flags & PG_FORWARD_ATTENTION_HEAD_MEAN ? 1 : text->n_heads;
    out->shape[2] = options->attention_queries ? options->attention_queries : inputs->n_tokens;
    out->shape[3] = to_image ? most_image_tokens(merged) : inputs->n_tokens;
    if (out->shape[3] == 0)
        return pgi_error(PG_ERROR_ARGUMENT, "PG_FORWARD_ATTENTION_TO_IMAGE is set, and no row has an image token");
    out->factor = 1 / (float)((out->n_layers / out->shape[0]) * (text->n_heads / out->shape[1]));
    out->shape[0] *= inputs->n_rows;
    size_t count = 1;
    for (int i = 0; i < 4; i++)
        if (!pgi_mul_size(count, (size_t)out->shape[i], &count)) count = SIZE_MAX;
    out->weights = pgi_alloc_zero(memory, count, sizeof(float));
    out->columns = pgi_alloc(memory, (size_t)inputs->n_tokens, sizeof(int64_t));
    return out->weights && out->columns ? PG_OK : PG_ERROR_MEMORY;
}

void pgi_attentions_free(pgi_attentions *attentions) {
    if (!attentions->merged) return;
    pgi_free(&attentions->merged->model->memory, attentions->weights);
    pgi_free(&attentions->merged->model->memory, attentions->columns);
}

/* Tokens begin .. end of the row that have keys, one after the other: the column of each. */
static void number_columns(pgi_attentions *attentions, int64_t row, int64_t begin, int64_t end) {
    const pg_inputs *inputs = attentions->merged->inputs;
    const int to_image = (attentions->flags & PG_FORWARD_ATTENTION_TO_IMAGE) != 0;
    int64_t *column = attentions->columns, n_image = 0;
    for (int64_t t = 0; t < end; t++) {
        int is_image = to_image && pgi_is_image_token(attentions->merged, row, t);
        if (t >= begin && inputs->attention_mask[row * inputs->n_tokens + t])
            *column++ = !to_image ? t : is_image ? n_image : -1;
        n_image += is_image;
    }
}

int64_t pgi_attentions_first(const pgi_attentions *attentions, int64_t n_tokens) {
    return attentions->merged ? n_tokens - attentions->shape[2] : n_tokens;
}

void pgi_attentions_row(pgi_attentions *attentions, int64_t row, int64_t begin, int64_t end, pgi_kept_attention *kept) {
    *kept = (pgi_kept_attention){.n = 0};
    if (!attentions->merged) return;
    const int64_t *shape = attentions->shape, n_rows = attentions->merged->inputs->n_rows;
    const int64_t first = pgi_attentions_first(attentions, attentions->merged->inputs->n_tokens);
    const int64_t from = pgi_max64(first, begin), of_row = shape[1] * shape[2] * shape[3];
    if (from >= end) return;
    number_columns(attentions, row, begin, end);
    *kept = (pgi_kept_attention){
        .weights = {.out = attentions->weights + row * of_row + (from - first) * shape[3],
                    .head_stride = shape[1] > 1 ? shape[2] * shape[3] : 0,
                    .query_stride = shape[3],
                    .columns = attentions->columns,
                    .factor = attentions->factor},
        .layer_stride = shape[0] > n_rows ? n_rows * of_row : 0,
        .layer = attentions->layer,
        .n_layers = attentions->n_layers,
        .first = from - begin,
        .n = end - from,
    };
}

void pgi_attentions_clear(const pgi_attentions *attentions, int64_t row, int64_t t) {
    if (!attentions->merged) return;
    const int64_t *shape = attentions->shape, n_rows = attentions->merged->inputs->n_rows;
    const int64_t query = t - pgi_attentions_first(attentions, attentions->merged->inputs->n_tokens);
    for (int64_t l = 0; query >= 0 && l < shape[0] / n_rows; l++)
        for (int64_t h = 0; h < shape[1]; h++)
            memset(attentions->weights + (((l * n_rows + row) * shape[1] + h) * shape[2] + query) * shape[3], 0,
                   (size_t)shape[3] * sizeof(float));
}
