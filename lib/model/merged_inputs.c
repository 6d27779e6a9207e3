/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Text tokens from the embedding, image tokens from the features, in order (HF: PaliGemmaModel.forward,
 * get_placeholder_mask and masked_scatter). As in HF the image tokens of all rows together take the images of all
 * rows together, one after the other; features that are given may also serve each row. With given embeddings the image
 * tokens are those that equal the embedding of the image token, if there are images at all.
 */
#include "model/merged_inputs.h"

#include <string.h>

#include "base/clock.h"

static pg_status check_rows(const pg_model *model, const pg_inputs *inputs) {
    const pgi_config *config = &model->config;
    const int64_t last_id = config->text.vocab_size - 1;
    if (inputs->n_rows < 1 || inputs->n_tokens < 1)
        return pgi_error(PG_ERROR_ARGUMENT, "the inputs have no tokens, expected at least 1");
    if (inputs->embeds && inputs->embed_width != config->text.hidden_size)
        return pgi_error(PG_ERROR_ARGUMENT, "inputs_embeds is %lld wide, the model's hidden_size is %d",
                         (long long)inputs->embed_width, config->text.hidden_size);
    for (int64_t r = 0; r < inputs->n_rows; r++) {
        if (inputs->rows[r].n_tokens > PGI_MAX_ROW_TOKENS)
            return pgi_error_of_row(
                pgi_error(PG_ERROR_LIMIT, "row %lld is %lld tokens long, image tokens included, expected at most %d",
                          (long long)r, (long long)inputs->rows[r].n_tokens, PGI_MAX_ROW_TOKENS),
                r);
        for (int64_t t = 0; inputs->ids && t < inputs->n_tokens; t++) {
            int64_t id = inputs->ids[r * inputs->n_tokens + t];
            /* image tokens need no row in the embedding, theirs are the features */
            if (id != config->image_token_id && (id < 0 || id > last_id))
                return pgi_error_of_row(
                    pgi_error(PG_ERROR_ARGUMENT,
                              "row %lld: token %lld is id %lld, expected 0 to %lld: the tokenizer is not the "
                              "model's",
                              (long long)r, (long long)t, (long long)id, (long long)last_id),
                    r);
        }
    }
    return PG_OK;
}

int pgi_is_image_token(const pgi_merged_inputs *merged, int64_t row, int64_t t) {
    const pg_inputs *inputs = merged->inputs;
    const pgi_config *config = &merged->model->config;
    int64_t at = row * inputs->n_tokens + t;
    if (inputs->ids) return inputs->ids[at] == config->image_token_id;
    if (!merged->image_row) return 0;
    const float *x = inputs->embeds + at * inputs->embed_width;
    const float *image_row = merged->image_row + (merged->row_models ? row * inputs->embed_width : 0);
    for (int64_t i = 0; i < inputs->embed_width; i++)
        if (x[i] != image_row[i]) return 0;
    return 1;
}

static int64_t count_image_tokens(const pgi_merged_inputs *merged, int64_t row) {
    int64_t n = 0;
    for (int64_t t = 0; t < merged->inputs->n_tokens; t++) n += pgi_is_image_token(merged, row, t);
    return n;
}

/* Whether each row with image tokens has as many as all features together: then each takes all of them. */
static int each_row_takes_all(const pgi_merged_inputs *merged, int64_t n_features) {
    int64_t n_rows = 0;
    for (int64_t r = 0; r < merged->inputs->n_rows; r++) {
        int64_t n = count_image_tokens(merged, r);
        if (n != 0 && n != n_features) return 0;
        n_rows += n != 0;
    }
    return n_rows > 1;
}

/* There must be as many image tokens as the images have; the message names the row where they part. shared: the images
 * may serve each row. */
static pg_status match_images(pgi_merged_inputs *merged, int64_t n_images, int shared) {
    const pg_inputs *inputs = merged->inputs;
    const int64_t per_image = merged->model->config.vision.n_patches, n_features = n_images * per_image;
    int64_t n = 0, in_row = 0;
    if (shared && each_row_takes_all(merged, n_features)) {
        memset(merged->first_feature, 0, (size_t)inputs->n_rows * sizeof *merged->first_feature);
        return PG_OK;
    }
    for (int64_t r = 0; r < inputs->n_rows; r++) {
        merged->first_feature[r] = n;
        in_row = count_image_tokens(merged, r);
        if (n + in_row > n_features && n_images == 0)
            return pgi_error_of_row(
                pgi_error(PG_ERROR_ARGUMENT,
                          "row %lld has %lld image tokens, but the inputs have no pixel_values: they were made "
                          "without an image, so features are needed",
                          (long long)r, (long long)in_row),
                r);
        if (n + in_row > n_features)
            return pgi_error_of_row(
                pgi_error(PG_ERROR_ARGUMENT,
                          "row %lld has %lld image tokens, the %lld image%s of %lld each have %lld left: image "
                          "tokens and images do not match",
                          (long long)r, (long long)in_row, (long long)n_images, n_images == 1 ? "" : "s",
                          (long long)per_image, (long long)(n_features - n)),
                r);
        n += in_row;
    }
    if (n == n_features) return PG_OK;
    return pgi_error(PG_ERROR_ARGUMENT,
                     "rows 0 to %lld have %lld image tokens (the last row %lld), the images have %lld (%lld of %lld "
                     "each): image tokens and images do not match",
                     (long long)inputs->n_rows - 1, (long long)n, (long long)in_row, (long long)n_features,
                     (long long)n_images, (long long)per_image);
}

/* Whether each token of a row sees all of it, types or not. HF's masks when no token_type_ids are given: Gemma 2 runs
 * eager attention, which is causal. Gemma 1 runs sdpa, which is given no mask when no row of the batch has padding
 * (masking_utils.py: _ignore_causal_mask_sdpa), and which then follows use_bidirectional_attention, true for PaliGemma
 * (GemmaAttention.is_causal). One row with padding brings a causal mask for all. */
static int sees_all(const pg_model *model, const pg_inputs *inputs) {
    if (!inputs->without_types || model->config.text.gemma_version != 1 || !model->config.text.bidirectional) return 0;
    for (int64_t r = 0; r < inputs->n_rows; r++)
        if (inputs->rows[r].n_tokens - inputs->rows[r].n_hidden < inputs->n_tokens) return 0;
    return 1;
}

/* The handles of all images, which may look at them in different ways: those of their rows. *out [n_images]: NULL where
 * all features are the base's. */
static pg_status find_image_models(const pgi_merged_inputs *merged, const pg_model ***out) {
    const pg_inputs *inputs = merged->inputs;
    const int64_t per_image = merged->model->config.vision.n_patches;
    int adapts = 0;
    for (int64_t r = 0; r < inputs->n_rows && merged->row_models; r++) adapts |= merged->row_models[r]->adapts_vision;
    *out = NULL;
    if (!adapts) return PG_OK;
    const pg_model **models =
        pgi_alloc_zero(&merged->model->memory, (size_t)pgi_max64(1, inputs->n_images), sizeof *models);
    if (!models) return PG_ERROR_MEMORY;
    *out = models;
    for (int64_t r = 0; r < inputs->n_rows; r++) {
        const int64_t first = merged->first_feature[r], end = first + count_image_tokens(merged, r);
        for (int64_t i = first / per_image; i * per_image < end; i++) {
            if (models[i] && models[i] != merged->row_models[r])
                return pgi_error_of_row(
                    pgi_error(PG_ERROR_ARGUMENT,
                              "row %lld has a part of image %lld, and a row before it with another of row_models has "
                              "the rest: expected whole images in each row where adapters change the encoder",
                              (long long)r, (long long)i),
                    r);
            models[i] = merged->row_models[r];
        }
    }
    return PG_OK;
}

/* The pixels of the inputs to features, into the workspace or a handle of their own. */
static pg_status compute_features(const pgi_run *run, const pg_model *model, const pgi_workspace *workspace,
                                  pgi_merged_inputs *merged) {
    double start = pgi_now();
    if (workspace) {
        PGI_TRY(pgi_features_compute(run, model, NULL, merged->inputs, workspace->features, workspace));
        merged->embedded = workspace->features;
    } else {
        const pg_model **image_models;
        pg_status status = find_image_models(merged, &image_models);
        if (status >= 0) status = pgi_features_create(run, model, image_models, merged->inputs, &merged->features);
        pgi_free(&model->memory, image_models);
        PGI_TRY(status);
        merged->embedded = merged->features->data;
    }
    merged->vision_seconds = pgi_now() - start;
    return PG_OK;
}

/* Whether the rows may take given features: each with image tokens by its own handle. */
static pg_status check_features(const pgi_merged_inputs *merged, const pg_features *features) {
    if (!merged->row_models) return pgi_features_check(merged->model, features);
    for (int64_t r = 0; r < merged->inputs->n_rows; r++) {
        if (count_image_tokens(merged, r) == 0) continue;
        const pg_status status = pgi_features_check(merged->row_models[r], features);
        if (status < 0) return pgi_error_of_row(pgi_error_context(status, "row_models[%lld]", (long long)r), r);
    }
    return PG_OK;
}

/* The embeddings that image tokens among given embeddings have. */
static pg_status embed_image_token(const pgi_run *run, const pgi_workspace *workspace, pgi_merged_inputs *merged) {
    const pg_model *model = merged->model;
    const pgi_text_config *text = &model->config.text;
    const int64_t n = merged->row_models ? merged->inputs->n_rows : 1;
    merged->image_row = workspace
                            ? workspace->image_row
                            : pgi_alloc(&model->memory, (size_t)(n * text->hidden_size), sizeof *merged->image_row);
    if (!merged->image_row) return PG_ERROR_MEMORY;
    for (int64_t r = 0; r < n; r++)
        pgi_decoder_embed(run, text, &pgi_merged_inputs_model(merged, r)->weights.text, &model->config.image_token_id,
                          1, merged->image_row + r * text->hidden_size);
    return PG_OK;
}

/* shared: the images of the features may serve each row. */
static pg_status init(const pgi_run *run, const pg_model *model, const pg_model *const *row_models,
                      const pg_inputs *inputs, const pg_features *features, int shared, const pgi_workspace *workspace,
                      pgi_merged_inputs *out) {
    const pgi_text_config *text = &model->config.text;
    const int64_t n_images = features ? features->n_images : inputs->pixels ? inputs->n_images : 0;
    pg_status status = PG_OK;
    *out = (pgi_merged_inputs){
        .model = model, .row_models = row_models, .inputs = inputs, .in_workspace = workspace != NULL};
    PGI_TRY(check_rows(model, inputs));
    out->sees_all = sees_all(model, inputs);
    out->first_feature =
        workspace ? workspace->first_feature : pgi_alloc(&model->memory, (size_t)inputs->n_rows, sizeof(int64_t));
    /* an image token outside the vocabulary has no embedding that a row could equal */
    int by_embedding = inputs->embeds && n_images > 0 && model->config.image_token_id < text->vocab_size;
    PGI_GOTO(out->first_feature ? PG_OK : PG_ERROR_MEMORY, fail);
    if (by_embedding) PGI_GOTO(embed_image_token(run, workspace, out), fail);
    if (features) PGI_GOTO(check_features(out, features), fail);
    PGI_GOTO(match_images(out, n_images, shared), fail);
    if (features) {
        out->features = pgi_features_retain(features);
        out->embedded = features->data;
    } else if (n_images > 0) {
        PGI_GOTO(compute_features(run, model, workspace, out), fail);
    }
    return PG_OK;
fail:
    pgi_merged_inputs_free(out);
    return status;
}

pg_status pgi_merged_inputs_init(const pgi_run *run, const pg_model *model, const pg_model *const *row_models,
                                 const pg_inputs *inputs, const pg_features *features, const pgi_workspace *workspace,
                                 pgi_merged_inputs *out) {
    return init(run, model, row_models, inputs, features, features != NULL, workspace, out);
}

pg_status pgi_merged_inputs_init_own(const pgi_run *run, const pg_model *model, const pg_inputs *inputs,
                                     const pg_features *features, pgi_merged_inputs *out) {
    return init(run, model, NULL, inputs, features, 0, NULL, out);
}

/* One row with several texts brings a mask for all rows: without types they are causal then (sees_all()). */
void pgi_merged_inputs_pack(pgi_merged_inputs *merged) {
    const pg_inputs *inputs = merged->inputs;
    if (!inputs->own_positions || !inputs->without_mask) return;
    for (int64_t r = 0; r < inputs->n_rows; r++) {
        const int64_t *positions = inputs->position_ids + r * inputs->n_tokens;
        for (int64_t t = 1; t < inputs->n_tokens; t++)
            if (positions[t] - positions[t - 1] != 1) merged->packed = 1;
    }
    if (merged->packed) merged->sees_all = 0;
}

void pgi_merged_inputs_free(pgi_merged_inputs *merged) {
    if (!merged->in_workspace) {
        pgi_free(&merged->model->memory, merged->first_feature);
        pgi_free(&merged->model->memory, merged->image_row);
    }
    pgi_features_release(merged->features);
}

void pgi_merged_inputs_embed(const pgi_run *run, const pgi_merged_inputs *merged, int64_t row, int64_t first, int64_t n,
                             float *x) {
    const pg_inputs *inputs = merged->inputs;
    const pgi_text_config *text = &merged->model->config.text;
    const pgi_text_weights *weights = &pgi_merged_inputs_model(merged, row)->weights.text;
    const int64_t h = text->hidden_size;
    const float *image_row = merged->embedded ? merged->embedded + merged->first_feature[row] * h : NULL;
    for (int64_t t = 0; t < first; t++) /* image tokens that are padding take theirs too, as in HF */
        if (pgi_is_image_token(merged, row, t)) image_row += h;
    for (int64_t t = first; t < first + n; t++, x += h) {
        int64_t at = row * inputs->n_tokens + t;
        if (pgi_is_image_token(merged, row, t)) {
            memcpy(x, image_row, (size_t)h * sizeof(float));
            image_row += h;
        } else if (inputs->ids) {
            pgi_decoder_embed(run, text, weights, &inputs->ids[at], 1, x);
        } else {
            memcpy(x, inputs->embeds + at * h, (size_t)h * sizeof(float));
        }
    }
}

pgi_sequence pgi_merged_inputs_sequence(const pgi_merged_inputs *merged, int64_t row, int64_t first, int64_t n) {
    const pg_inputs *inputs = merged->inputs;
    const pgi_row *of = &inputs->rows[row];
    int64_t at = row * inputs->n_tokens + first;
    return (pgi_sequence){
        .n_tokens = n,
        .n_left = of->first_token - first,
        .n_right = first + n - of->first_token - of->n_tokens,
        .n_prefix = of->n_tokens - of->n_hidden - (merged->sees_all ? 0 : of->n_suffix),
        .types = inputs->token_type_ids + at,
        .positions = inputs->own_positions ? inputs->position_ids + at : NULL,
        .mask = of->n_hidden > 0 ? inputs->attention_mask + at : NULL,
        .n_hidden = of->n_hidden,
        .packed = merged->packed,
    };
}
