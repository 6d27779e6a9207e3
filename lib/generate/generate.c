/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * All rows of the inputs to text: each is prefilled by itself, then up to PGI_STEP_ROWS of those that still run take
 * each step together.
 */
#include "generate/generate.h"

#include "base/clock.h"
#include "base/environment.h"
#include "base/parallel.h"
#include "generate/sampler.h"
#include "tokenizer/stream_decoder.h"

typedef struct generated_row {
    pgi_decoding decoding;
    pgi_stream_decoder decoder;
    pgi_result_row *result;
    int ended;
} generated_row;

typedef struct generate_call {
    const pgi_run *run;
    const pg_model *model;
    const pg_generate_options *options;
    const pgi_merged_inputs *merged;
    generated_row *rows; /* [n_rows] */
    int64_t n_rows;
    int64_t group;         /* PGI_STEP_ROWS, or the rows when they are fewer */
    pgi_workspace prefill; /* for the longest row's prefill; empty when all are done */
    pgi_workspace step;    /* for a step of a group */
} generate_call;

void pgi_result_close(pg_result *result) {
    if (!result) return;
    pgi_memory memory = result->memory;
    for (int64_t r = 0; r < result->n_rows; r++) {
        pgi_buffer_free(&result->rows[r].text);
        pgi_id_list_free(&result->rows[r].ids);
    }
    pgi_free(&memory, result->rows);
    pgi_free(&memory, result);
}

static pg_status new_result(const pg_model *model, const pg_inputs *inputs, pg_result **out) {
    pg_result *result = pgi_alloc_zero(&model->memory, 1, sizeof *result);
    if (!result) return PG_ERROR_MEMORY;
    result->memory = model->memory;
    result->rows = pgi_alloc_zero(&result->memory, (size_t)inputs->n_rows, sizeof *result->rows);
    if (!result->rows) {
        pgi_result_close(result);
        return PG_ERROR_MEMORY;
    }
    result->n_rows = inputs->n_rows;
    for (int64_t r = 0; r < result->n_rows; r++) {
        pgi_buffer_init(&result->rows[r].text, &result->memory);
        pgi_id_list_init(&result->rows[r].ids, &result->memory);
        result->rows[r].n_prompt_tokens = inputs->rows[r].n_tokens - inputs->rows[r].n_hidden;
    }
    *out = result;
    return PG_OK;
}

static void generate_call_free(generate_call *g) {
    const pgi_memory *memory = &g->model->memory;
    for (int64_t r = 0; g->rows && r < g->n_rows; r++) {
        pgi_decoding_free(&g->rows[r].decoding, memory);
        pgi_stream_decoder_free(&g->rows[r].decoder);
    }
    pgi_free(memory, g->rows);
    pgi_workspace_free(&g->prefill, memory);
    pgi_workspace_free(&g->step, memory);
}

/* The ids and the text that a row may come to, so that nothing is allocated while it grows. Only a tokenizer with
 * absurdly long pieces makes texts that grow beyond this. */
static pg_status reserve_result(generated_row *row, const pgi_tokenizer *tokenizer) {
    enum { MOST_TEXT = 1 << 20 };
    const size_t n = (size_t)row->decoding.max_tokens, piece = pgi_tokenizer_longest_text(tokenizer);
    PGI_TRY(pgi_id_list_reserve(&row->result->ids, n));
    PGI_TRY(pgi_stream_decoder_reserve(&row->decoder, n));
    return pgi_buffer_reserve(&row->result->text, n < MOST_TEXT / piece ? n * piece : MOST_TEXT);
}

/* Memory for everything, before anything is computed. On error too, generate_call_free() is due. */
static pg_status generate_call_init(generate_call *g, const pgi_tokenizer *tokenizer, pg_result *result) {
    const pgi_memory *memory = &g->model->memory;
    int64_t n_tokens = 0, n_keys = 0; /* the most of a row */
    g->n_rows = result->n_rows;
    g->group = pgi_min64(g->n_rows, PGI_STEP_ROWS);
    g->rows = pgi_alloc_zero(memory, (size_t)g->n_rows, sizeof *g->rows);
    if (!g->rows) return PG_ERROR_MEMORY;
    for (int64_t r = 0; r < g->n_rows; r++) {
        g->rows[r].result = &result->rows[r];
        pgi_stream_decoder_init(&g->rows[r].decoder, tokenizer, 1);
    }
    for (int64_t r = 0; r < g->n_rows; r++) {
        PGI_TRY(pgi_decoding_reset(&g->rows[r].decoding, g->merged, r, g->options->max_new_tokens));
        const int64_t tokens = g->merged->inputs->rows[r].n_tokens, keys = g->rows[r].decoding.cache.capacity;
        if (tokens > n_tokens) n_tokens = tokens;
        if (keys > n_keys) n_keys = keys;
    }
    const int64_t n_logits = (int64_t)PGI_SAMPLER_ROWS * PGI_SAMPLER_BLOCK;
    const pgi_limits prefill = {.n_tokens = n_tokens, .n_keys = n_keys};
    const pgi_limits step = {.n_step_tokens = g->group, .n_keys = n_keys, .n_logits = n_logits};
    PGI_TRY(pgi_workspace_reserve(&g->prefill, g->run, g->model, &prefill));
    PGI_TRY(pgi_workspace_reserve(&g->step, g->run, g->model, &step));
    for (int64_t r = 0; r < g->n_rows; r++) PGI_TRY(reserve_result(&g->rows[r], tokenizer));
    return PG_OK;
}

/* Chooses the token that follows in each of n decodings, by their last hidden states [n, hidden]. */
static pg_status sample(generate_call *g, pgi_decoding *const *decodings, int64_t n, const float *last,
                        const pgi_head_workspace *head) {
    const pg_model *model = g->model;
    int64_t tokens[PGI_SAMPLER_ROWS];
    PGI_TRY(
        pgi_sample_hidden(g->run, &model->config.text, &model->weights.text, last, n, tokens, g->step.logits, head));
    for (int64_t i = 0; i < n; i++) pgi_decoding_push(decodings[i], tokens[i]);
    return PG_OK;
}

static pg_status prefill_rows(generate_call *g) {
    const int64_t n_layers = g->model->config.text.n_layers;
    for (int64_t r = 0; r < g->n_rows; r++) {
        const pgi_pass_workspace *workspace = &g->prefill.pass;
        pgi_decoding *decoding = &g->rows[r].decoding;
        const float *last; /* [hidden] */
        PGI_TRY(
            pgi_decoding_prefill(g->run, g->merged, r, decoding, r * n_layers, g->n_rows * n_layers, workspace, &last));
        PGI_TRY(sample(g, &decoding, 1, last, &workspace->head));
    }
    pgi_workspace_free(&g->prefill, &g->model->memory);
    return PG_OK;
}

/* Hands the text of a row that appeared since `before` to the host; returns non-zero when it wants to stop. */
static int32_t emit(const generate_call *g, int64_t r, size_t before, int64_t token) {
    const pg_generate_options *options = g->options;
    const pgi_buffer *text = &g->rows[r].result->text;
    const char *piece = text->data ? (const char *)text->data + before : "";
    if (!options->on_text) return 0;
    pgi_border *border = pgi_callback_begin();
    int32_t answer = options->on_text(options->on_text_user, r, piece, text->size - before, token);
    pgi_callback_end(border);
    return answer;
}

/* Takes the token that was sampled last into the row's text, and sees whether the row ends. */
static pg_status take_token(generate_call *g, int64_t r) {
    generated_row *row = &g->rows[r];
    pgi_buffer *text = &row->result->text;
    const int64_t token = row->decoding.pending;
    size_t before = text->size;
    PGI_TRY(pgi_id_list_push(&row->result->ids, token));
    PGI_TRY(pgi_stream_decoder_push(&row->decoder, token, text));
    int32_t wants_stop = emit(g, r, before, token);
    if (pgi_is_eos(&g->model->config, token))
        row->result->stop = PG_STOP_EOS;
    else if (wants_stop)
        row->result->stop = PG_STOP_CALLBACK;
    else if (row->decoding.n_returned >= row->decoding.max_tokens)
        row->result->stop = PG_STOP_LENGTH;
    else
        return PG_OK;
    row->ended = 1;
    before = text->size;
    PGI_TRY(pgi_stream_decoder_flush(&row->decoder, text));
    if (text->size > before) emit(g, r, before, token);
    return PG_OK;
}

static pg_status report_progress(const generate_call *g) {
    int64_t done = 0, total = 0;
    for (int64_t r = 0; r < g->n_rows; r++) {
        done += g->rows[r].decoding.n_returned;
        total += g->rows[r].decoding.max_tokens;
    }
    return pgi_run_progress(g->run, PG_PHASE_DECODE, done, total);
}

/* Feeds the next rows from *r on that still run, up to a group of them, and samples the token that follows in each. */
static pg_status step_group(generate_call *g, int64_t *r) {
    pgi_decoding *decodings[PGI_STEP_ROWS];
    int64_t n = 0;
    for (; *r < g->n_rows && n < g->group; ++*r)
        if (!g->rows[*r].ended) decodings[n++] = &g->rows[*r].decoding;
    if (n == 0) return PG_OK;
    PGI_TRY(report_progress(g));
    PGI_TRY(pgi_decoding_step_group(g->run, g->model, decodings, n, &g->step.step));
    return sample(g, decodings, n, g->step.step.x, &g->step.step.head);
}

static pg_status decode_rows(generate_call *g) {
    for (int64_t n_running = g->n_rows; n_running > 0;) {
        n_running = 0;
        for (int64_t r = 0; r < g->n_rows; r++) {
            if (g->rows[r].ended) continue;
            PGI_TRY(take_token(g, r));
            n_running += !g->rows[r].ended;
        }
        for (int64_t r = 0; r < g->n_rows;) PGI_TRY(step_group(g, &r));
    }
    return PG_OK;
}

static pg_status generate(generate_call *g, const pgi_tokenizer *tokenizer, pg_result *result) {
    PGI_TRY(generate_call_init(g, tokenizer, result));
    double start = pgi_now();
    PGI_TRY(prefill_rows(g));
    result->vision_seconds = g->merged->vision_seconds;
    result->prefill_seconds = pgi_now() - start;
    start = pgi_now();
    PGI_TRY(decode_rows(g));
    result->decode_seconds = pgi_now() - start;
    return PG_OK;
}

static pg_status run_call(generate_call *g, const pgi_merged_inputs *merged, const pgi_tokenizer *tokenizer,
                          pg_result **out) {
    pg_result *result = NULL;
    PGI_TRY(new_result(g->model, merged->inputs, &result));
    g->merged = merged;
    pg_status status = generate(g, tokenizer, result);
    generate_call_free(g);
    if (status < 0)
        pgi_result_close(result);
    else
        *out = result;
    return status;
}

pg_status pgi_generate(const pg_model *model, const pg_processor *processor, const pg_inputs *inputs,
                       const pg_generate_options *options, pg_result **out) {
    pgi_thread_pool pool;
    pgi_run run = pgi_run_init(&pool, &model->kernels, PGI_RUN_OPTIONS(options));
    generate_call g = {.run = &run, .model = model, .options = options};
    pgi_merged_inputs merged;
    pg_status status = pgi_merged_inputs_init(&run, model, inputs, options->features, NULL, &merged);
    if (status >= 0) {
        status = run_call(&g, &merged, processor->tokenizer, out);
        pgi_merged_inputs_free(&merged);
    }
    pgi_run_free(&run);
    return status;
}
