/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The order of a generation (HF: GenerationMixin):
 *
 *   prefill   embed the row's tokens, run them as one block
 *   sample    a token by the last hidden state: sampler.c
 *   step      feed the token, get a new last hidden state
 */
#include "generate/decoding.h"

#include <string.h>

int64_t pgi_step_rows(const pg_model *model) {
    return model->weights.format == PG_WEIGHTS_STORED ? PGI_GEMV_ROWS : PGI_STEP_ROWS;
}

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

static pg_status new_cache(const pg_model *model, int64_t capacity, pgi_kv_cache *out) {
    const size_t size = pgi_kv_cache_size(&model->config.text, model->kv_bf16, capacity);
    *out = (pgi_kv_cache){.keys = pgi_alloc(&model->memory, size, 1), .bf16 = model->kv_bf16, .capacity = capacity};
    out->values = out->keys ? pgi_alloc(&model->memory, size, 1) : NULL;
    if (out->values) return PG_OK;
    pgi_free(&model->memory, out->keys);
    return PG_ERROR_MEMORY;
}

pg_status pgi_decoding_reserve(pgi_decoding *decoding, const pg_model *model, int64_t capacity) {
    if (decoding->cache.capacity >= capacity) return PG_OK;
    pgi_kv_cache cache;
    pgi_decoding_free(decoding, &model->memory); /* first: nothing in it is wanted */
    PGI_TRY(new_cache(model, capacity, &cache));
    decoding->cache = cache;
    return PG_OK;
}

/* Copies tokens first .. n of every layer's keys or values; the capacities may differ. */
static void copy_tokens(const pgi_text_config *text, int64_t first, int64_t n, const pgi_kv_cache *from,
                        pgi_kv_cache *to) {
    const int64_t row = text->head_dim * (from->bf16 ? 2 : 4);
    const size_t bytes = (size_t)((n - first) * row);
    for (int64_t i = 0; i < (int64_t)text->n_layers * text->n_kv_heads; i++) {
        const int64_t source = (i * from->capacity + first) * row, target = (i * to->capacity + first) * row;
        memcpy((char *)to->keys + target, (char *)from->keys + source, bytes);
        memcpy((char *)to->values + target, (char *)from->values + source, bytes);
    }
    to->n_tokens = n;
    to->next_position = from->next_position;
}

pg_status pgi_decoding_make_room(pgi_decoding *decoding, const pg_model *model) {
    pgi_kv_cache *cache = &decoding->cache, grown;
    if (cache->n_tokens < cache->capacity) return PG_OK;
    PGI_TRY(new_cache(model, pgi_min64(2 * cache->capacity, decoding->max_keys), &grown));
    copy_tokens(&model->config.text, 0, cache->n_tokens, cache, &grown);
    pgi_free(&model->memory, cache->keys);
    pgi_free(&model->memory, cache->values);
    *cache = grown;
    return PG_OK;
}

pg_status pgi_decoding_branch(pgi_decoding *to, const pgi_decoding *from, const pg_model *model, int64_t n_shared) {
    if (to->cache.capacity < from->cache.n_tokens) {
        PGI_TRY(pgi_decoding_reserve(to, model, from->cache.capacity));
        n_shared = 0;
    }
    const pgi_kv_cache cache = to->cache;
    *to = *from;
    to->cache = cache;
    copy_tokens(&model->config.text, n_shared, from->cache.n_tokens, &from->cache, &to->cache);
    return PG_OK;
}

static int64_t longest_row(const pgi_decoding_limits *limits) {
    return limits->max_context > 0 ? pgi_min64(limits->max_context, PGI_MAX_ROW_TOKENS) : PGI_MAX_ROW_TOKENS;
}

int64_t pgi_decoding_first_capacity(const pgi_decoding_limits *limits, int64_t n_tokens) {
    /* the last token returned is never fed */
    return pgi_min64(n_tokens + pgi_min64(limits->max_new_tokens, PGI_FIRST_NEW_TOKENS) - 1,
                     pgi_max64(longest_row(limits), n_tokens));
}

pg_status pgi_decoding_check(const pg_inputs *inputs, const pgi_decoding_limits *limits) {
    for (int64_t r = 0; limits->max_context > 0 && r < inputs->n_rows; r++) {
        const int64_t n = inputs->rows[r].n_tokens - inputs->rows[r].n_hidden;
        if (n > limits->max_context)
            return pgi_error_of_row(
                pgi_error(PG_ERROR_LIMIT,
                          "row %lld is %lld tokens long, image tokens included, expected at most max_context, %lld",
                          (long long)r, (long long)n, (long long)limits->max_context),
                r);
    }
    return PG_OK;
}

pg_status pgi_decoding_max_tokens(const pgi_merged_inputs *merged, int64_t row, const pgi_decoding_limits *limits,
                                  int64_t *max_tokens) {
    const int64_t n = merged->inputs->rows[row].n_tokens, n_hidden = merged->inputs->rows[row].n_hidden;
    if (n < 1)
        return pgi_error_of_row(
            pgi_error(PG_ERROR_ARGUMENT, "row %lld has no tokens but padding, expected at least 1", (long long)row),
            row);
    *max_tokens = pgi_min64(limits->max_new_tokens, longest_row(limits) - (n - n_hidden));
    const int64_t window = merged->model->config.text.sliding_window;
    if (n_hidden > 0 && window > 0 && n + *max_tokens - 1 > window)
        return pgi_error_of_row(
            pgi_error(PG_ERROR_UNSUPPORTED,
                      "row %lld: attention_mask hides %lld tokens between others, and its %lld tokens with %lld new "
                      "ones are more than the sliding window, %lld: leave the hidden tokens out of the arrays",
                      (long long)row, (long long)n_hidden, (long long)n, (long long)*max_tokens - 1, (long long)window),
            row);
    return PG_OK;
}

pg_status pgi_decoding_begin(pgi_decoding *decoding, const pgi_merged_inputs *merged, int64_t row,
                             const pgi_decoding_limits *limits) {
    PGI_TRY(pgi_decoding_max_tokens(merged, row, limits, &decoding->max_tokens));
    decoding->model = pgi_merged_inputs_model(merged, row);
    decoding->cache.n_tokens = 0;
    decoding->cache.next_position = 1;
    decoding->pending = -1;
    decoding->n_returned = 0;
    decoding->max_keys = merged->inputs->rows[row].n_tokens + decoding->max_tokens;
    decoding->ends_context = decoding->max_tokens < limits->max_new_tokens;
    return PG_OK;
}

pg_status pgi_decoding_reset(pgi_decoding *decoding, const pgi_merged_inputs *merged, int64_t row,
                             const pgi_decoding_limits *limits) {
    int64_t max_tokens;
    PGI_TRY(pgi_decoding_max_tokens(merged, row, limits, &max_tokens));
    const int64_t capacity = pgi_decoding_first_capacity(limits, merged->inputs->rows[row].n_tokens);
    PGI_TRY(pgi_decoding_reserve(decoding, merged->model, capacity));
    return pgi_decoding_begin(decoding, merged, row, limits);
}

int64_t pgi_prefill_rows(const pgi_run *run, const pgi_merged_inputs *merged, int64_t row, int64_t n_rows,
                         int64_t n_tokens) {
    const pg_model *model = pgi_merged_inputs_model(merged, row);
    int64_t n = 0, sum = 0;
    if (run->observer) return 1;                                    /* which sees a row at a time */
    if (model->replaces) n_rows = pgi_min64(n_rows, PGI_GEMV_ROWS); /* the last layer may have stored weights */
    for (; n < n_rows && pgi_merged_inputs_model(merged, row + n) == model; n++) {
        const int64_t here = merged->inputs->rows[row + n].n_tokens;
        sum += here;
        if (here <= pgi_linear_few_rows(run->kernels) || sum > n_tokens) break; /* alone it takes another path */
    }
    return pgi_max64(1, n);
}

pg_status pgi_decoding_prefill(const pgi_run *run, const pgi_merged_inputs *merged, int64_t row, int64_t n,
                               pgi_decoding *const *decodings, int64_t layers_done, int64_t layers_total,
                               const pgi_pass_workspace *workspace, const float **last) {
    const pg_model *model = pgi_merged_inputs_model(merged, row);
    const pgi_text_config *text = &model->config.text;
    pgi_sequence sequences[PGI_STEP_ROWS];
    int64_t outs[PGI_STEP_ROWS], n_tokens = 0;
    float *x = workspace->x;
    for (int64_t i = 0; i < n; i++) {
        const int64_t first = merged->inputs->rows[row + i].first_token, here = merged->inputs->rows[row + i].n_tokens;
        pgi_merged_inputs_embed(run, merged, row + i, first, here, x + n_tokens * text->hidden_size);
        sequences[i] = pgi_merged_inputs_sequence(merged, row + i, first, here);
        sequences[i].cache = &decodings[i]->cache;
        /* HF's generate() counts the ones of the mask, its forward() all columns; they differ where it has a hole */
        if (sequences[i].n_hidden > 0)
            sequences[i].positions = merged->inputs->position_ids + (row + i) * merged->inputs->n_tokens + first;
        n_tokens += here;
        outs[i] = n_tokens - 1;
    }
    pgi_run_trace(run, "embeddings", -1, x, n_tokens, text->hidden_size);
    pgi_pass pass = {
        .x = x,
        .n_tokens = n_tokens,
        .sequences = sequences,
        .n_sequences = n,
        .n_out = n,
        .outs = outs,
        .layers_done = layers_done,
        .layers_total = layers_total,
    };
    PGI_TRY(pgi_decoder_forward(run, text, &model->weights.text, &pass, &workspace->decoder));
    *last = x;
    return PG_OK;
}

/* The weights of each of n decodings. */
static void take_weights(pgi_decoding *const *decodings, int64_t n, const pgi_text_weights **out) {
    for (int64_t i = 0; i < n; i++) out[i] = &decodings[i]->model->weights.text;
}

pg_status pgi_decoding_step_group(const pgi_run *run, pgi_decoding *const *decodings, int64_t n,
                                  const pgi_pass_workspace *workspace) {
    const pgi_text_config *text = &decodings[0]->model->config.text;
    const pgi_text_weights *weights[PGI_STEP_ROWS];
    pgi_sequence sequences[PGI_STEP_ROWS];
    take_weights(decodings, n, weights);
    for (int64_t i = 0; i < n; i++) {
        sequences[i] = (pgi_sequence){.cache = &decodings[i]->cache, .n_tokens = 1};
        pgi_decoder_embed(run, text, weights[i], &decodings[i]->pending, 1, workspace->x + i * text->hidden_size);
        decodings[i]->pending = -1;
    }
    const pgi_pass pass = {
        .x = workspace->x, .n_tokens = n, .sequences = sequences, .n_sequences = n, .row_weights = weights, .n_out = n};
    return pgi_decoder_forward(run, text, NULL, &pass, &workspace->decoder);
}

pg_status pgi_decoding_logits(const pgi_run *run, pgi_decoding *const *decodings, int64_t n, const float *last,
                              float *logits, const pgi_head_workspace *workspace) {
    const pgi_text_weights *weights[PGI_STEP_ROWS];
    take_weights(decodings, n, weights);
    return pgi_head_forward_rows(run, &decodings[0]->model->config.text, weights, last, n, logits, workspace);
}

void pgi_decoding_push(pgi_decoding *decoding, int64_t token) {
    decoding->pending = token;
    decoding->n_returned++;
}
