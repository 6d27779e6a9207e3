/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The order of a generation (HF: GenerationMixin):
 *
 *   prefill   embed the row's tokens, run them as one block
 *   sample    a token by the last hidden state: sampler.c
 *   step      feed the token, get a new last hidden state
 */
#include "generate/decoding.h"

int pgi_is_eos(const pgi_config *config, int64_t token) {
    for (int32_t i = 0; i < config->n_eos; i++)
        if (config->eos_ids[i] == token) return 1;
    return 0;
}

void pgi_decoding_free(pgi_decoding *decoding, const pgi_memory *memory) {
    pgi_free(memory, decoding->cache.keys);
    pgi_free(memory, decoding->cache.values);
    *decoding = (pgi_decoding){.pending = -1};
}

pg_status pgi_decoding_reserve(pgi_decoding *decoding, const pg_model *model, int64_t capacity) {
    const pgi_memory *memory = &model->memory;
    pgi_kv_cache *cache = &decoding->cache;
    if (cache->capacity >= capacity) return PG_OK;
    pgi_decoding_free(decoding, memory);
    size_t size = pgi_kv_cache_size(&model->config.text, capacity);
    cache->keys = pgi_alloc(memory, size, 1);
    cache->values = cache->keys ? pgi_alloc(memory, size, 1) : NULL;
    if (!cache->values) {
        pgi_decoding_free(decoding, memory);
        return PG_ERROR_MEMORY;
    }
    cache->capacity = capacity;
    return PG_OK;
}

pg_status pgi_decoding_reset(pgi_decoding *decoding, const pgi_merged_inputs *merged, int64_t row,
                             int64_t max_new_tokens) {
    const int64_t n = merged->inputs->rows[row].n_tokens, rest = pgi_context_limit(&merged->model->config) - n;
    if (n < 1)
        return pgi_error_of_row(
            pgi_error(PG_ERROR_ARGUMENT, "row %lld has no tokens but padding, expected at least 1", (long long)row),
            row);
    int64_t max_tokens = pgi_min64(max_new_tokens, rest + 1);
    const int64_t n_hidden = merged->inputs->rows[row].n_hidden, window = merged->model->config.text.sliding_window;
    if (n_hidden > 0 && window > 0 && n + max_tokens - 1 > window)
        return pgi_error_of_row(
            pgi_error(PG_ERROR_UNSUPPORTED,
                      "row %lld: attention_mask hides %lld tokens between others, and its %lld tokens with %lld new "
                      "ones are more than the sliding window, %lld: leave the hidden tokens out of the arrays",
                      (long long)row, (long long)n_hidden, (long long)n, (long long)max_tokens - 1, (long long)window),
            row);
    /* the last token returned is never fed */
    PGI_TRY(pgi_decoding_reserve(decoding, merged->model, n + max_tokens - 1));
    decoding->cache.n_tokens = 0;
    decoding->cache.next_position = 1;
    decoding->pending = -1;
    decoding->n_returned = 0;
    decoding->max_tokens = max_tokens;
    return PG_OK;
}

pg_status pgi_decoding_prefill(const pgi_run *run, const pgi_merged_inputs *merged, int64_t row, pgi_decoding *decoding,
                               int64_t layers_done, int64_t layers_total, const pgi_pass_workspace *workspace,
                               const float **last) {
    const pg_model *model = merged->model;
    const pgi_text_config *text = &model->config.text;
    const int64_t first = merged->inputs->rows[row].first_token, n = merged->inputs->rows[row].n_tokens;
    float *x = workspace->x;

    pgi_merged_inputs_embed(run, merged, row, first, n, x);
    pgi_run_trace(run, "embeddings", -1, x, n, text->hidden_size);
    pgi_sequence sequence = pgi_merged_inputs_sequence(merged, row, first, n);
    sequence.cache = &decoding->cache;
    /* HF's generate() counts the ones of the mask, its forward() all columns; they differ where it has a hole */
    if (sequence.n_hidden > 0)
        sequence.positions = merged->inputs->position_ids + row * merged->inputs->n_tokens + first;
    pgi_pass pass = {
        .x = x,
        .n_tokens = n,
        .sequences = &sequence,
        .n_sequences = 1,
        .first_out = n - 1,
        .n_out = 1,
        .layers_done = layers_done,
        .layers_total = layers_total,
    };
    PGI_TRY(pgi_decoder_forward(run, text, &model->weights.text, &pass, &workspace->decoder));
    *last = x + (n - 1) * text->hidden_size;
    return PG_OK;
}

pg_status pgi_decoding_step_group(const pgi_run *run, const pg_model *model, pgi_decoding *const *decodings, int64_t n,
                                  const pgi_pass_workspace *workspace) {
    const pgi_text_config *text = &model->config.text;
    pgi_sequence sequences[PGI_STEP_ROWS];
    for (int64_t i = 0; i < n; i++) {
        sequences[i] = (pgi_sequence){.cache = &decodings[i]->cache, .n_tokens = 1};
        pgi_decoder_embed(run, text, &model->weights.text, &decodings[i]->pending, 1,
                          workspace->x + i * text->hidden_size);
        decodings[i]->pending = -1;
    }
    pgi_pass pass = {.x = workspace->x, .n_tokens = n, .sequences = sequences, .n_sequences = n, .n_out = n};
    return pgi_decoder_forward(run, text, &model->weights.text, &pass, &workspace->decoder);
}

void pgi_decoding_push(pgi_decoding *decoding, int64_t token) {
    decoding->pending = token;
    decoding->n_returned++;
}
