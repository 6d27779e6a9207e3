/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * PaliGemmaForConditionalGeneration.forward of HF without a cache. A row gives what it gives alone, to the last bit: it
 * is run alone, or short rows are run together where nothing in their computation then changes.
 *
 * By default a row is run with its padding, whose logits and hidden states then are HF's, too. What nothing that was
 * asked for depends on is left out: the last layer and the head run on the tokens that are wanted, and a row of which
 * nothing is wanted is not run at all.
 */
#include "model/forward.h"

#include <math.h>
#include <string.h>

#include "base/parallel.h"
#include "model/attentions.h"
#include "model/loss.h"
#include "model/retrieval.h"
#include "model/row_models.h"

/* The most rows of a pass of PGI_TOGETHER_TOKENS: each has more tokens than gemv takes. */
enum { TOGETHER_ROWS = PGI_TOGETHER_TOKENS / (PGI_GEMV_ROWS + 1) };

/* Tokens begin .. end of a row. */
typedef struct span {
    int64_t begin, end;
} span;

typedef struct forward {
    const pgi_run *run;
    const pgi_merged_inputs *merged;
    uint32_t flags;
    pg_outputs *out;
    const int64_t *labels; /* [B, T], or NULL: no loss */
    pgi_loss loss;
    pgi_attentions attentions;
    int64_t pass_tokens;     /* the most in a pass of several rows; 0: there is none */
    pgi_workspace workspace; /* for such a pass, and for one of T tokens */
} forward;

void pgi_outputs_close(pg_outputs *outputs) {
    if (!outputs) return;
    pgi_memory memory = outputs->memory;
    if (outputs->last_hidden && !outputs->hidden_states) pgi_free(&memory, outputs->last_hidden);
    pgi_free(&memory, outputs->hidden_states);
    pgi_free(&memory, outputs->embeddings);
    pgi_free(&memory, outputs->attentions);
    pgi_free(&memory, outputs->logits);
    pgi_features_release(outputs->features);
    pgi_free(&memory, outputs);
}

/* A batch of `n` arrays [B, rows, columns], zero where padding is left out; NULL when memory is out. */
static float *new_output(const pg_outputs *out, uint32_t flags, int64_t n, int64_t rows, int64_t columns) {
    const int64_t sizes[] = {n, out->n_rows, rows, columns};
    size_t count = 1;
    for (int i = 0; i < 4; i++)
        if (!pgi_mul_size(count, (size_t)sizes[i], &count)) count = SIZE_MAX;
    if (flags & PG_FORWARD_SKIP_PADDING) return pgi_alloc_zero(&out->memory, count, sizeof(float));
    return pgi_alloc(&out->memory, count, sizeof(float));
}

static pg_status new_outputs(const pgi_merged_inputs *merged, uint32_t flags, int64_t logits_to_keep,
                             pg_outputs **result) {
    const pg_model *model = merged->model;
    pg_outputs *out = pgi_alloc_zero(&model->memory, 1, sizeof *out);
    *result = out;
    if (!out) return PG_ERROR_MEMORY;
    out->memory = model->memory;
    out->n_rows = merged->inputs->n_rows;
    out->n_tokens = merged->inputs->n_tokens;
    out->n_kept = flags & PG_FORWARD_NO_LOGITS ? 0 : logits_to_keep > 0 ? logits_to_keep : out->n_tokens;
    out->vocab_size = model->config.text.vocab_size;
    out->hidden_size = model->config.text.hidden_size;
    out->n_layers = model->config.text.n_layers;
    out->n_image_tokens = model->config.vision.n_patches;
    if (merged->features) out->features = pgi_features_retain(merged->features);
    if (out->n_kept > 0) {
        out->logits = new_output(out, flags, 1, out->n_kept, out->vocab_size);
        if (!out->logits) return PG_ERROR_MEMORY;
    }
    if (flags & PG_FORWARD_HIDDEN_STATES) {
        out->hidden_states = new_output(out, flags, out->n_layers + 1, out->n_tokens, out->hidden_size);
        if (!out->hidden_states) return PG_ERROR_MEMORY;
    }
    if (flags & PG_FORWARD_RETRIEVAL) {
        out->embedding_dim = model->weights.retrieval.weight.rows;
        out->embeddings = new_output(out, flags, 1, out->n_tokens, out->embedding_dim);
        if (!out->embeddings) return PG_ERROR_MEMORY;
    }
    if (flags & PG_FORWARD_LAST_HIDDEN) {
        int64_t size = out->n_rows * out->n_tokens * out->hidden_size;
        out->last_hidden = out->hidden_states ? out->hidden_states + out->n_layers * size
                                              : new_output(out, flags, 1, out->n_tokens, out->hidden_size);
        if (!out->last_hidden) return PG_ERROR_MEMORY;
    }
    return PG_OK;
}

/* Whether token t + 1 of the row has a label, which token t predicts. */
static int predicts_label(const forward *f, int64_t row, int64_t t) {
    return f->labels && t + 1 < f->out->n_tokens && f->labels[row * f->out->n_tokens + t + 1] != -100;
}

/* Whether something that token t of the row gives in the last layer is asked for. */
static int is_wanted(const forward *f, int64_t row, int64_t t) {
    const int64_t n_tokens = f->out->n_tokens;
    return t >= n_tokens - f->out->n_kept || t >= pgi_attentions_first(&f->attentions, n_tokens) ||
           predicts_label(f, row, t);
}

/* Of the tokens that are run, those from the first to the last whose last hidden state is needed. */
static span wanted(const forward *f, int64_t row, span all) {
    if (f->flags & (PG_FORWARD_HIDDEN_STATES | PG_FORWARD_LAST_HIDDEN | PG_FORWARD_RETRIEVAL)) return all;
    span some = all;
    while (some.begin < some.end && !is_wanted(f, row, some.begin)) some.begin++;
    while (some.begin < some.end && !is_wanted(f, row, some.end - 1)) some.end--;
    return some;
}

static pg_status add_labels(forward *f, int64_t row, span some, const float *last, const float *kept_logits) {
    const pg_outputs *out = f->out;
    const int64_t first_kept = out->n_tokens - out->n_kept;
    for (int64_t t = some.begin; t < some.end; t++) {
        if (!predicts_label(f, row, t)) continue;
        const float *logits = t >= first_kept ? kept_logits + (t - first_kept) * out->vocab_size : NULL;
        PGI_TRY(pgi_loss_add(f->run, &f->loss, row, f->labels[row * out->n_tokens + t + 1],
                             last + (t - some.begin) * out->hidden_size, logits, &f->workspace.pass.head));
    }
    return PG_OK;
}

/* What the tokens of `some`, whose last hidden states are `last`, were run for. */
static pg_status keep_outputs(forward *f, int64_t row, span some, const float *last) {
    pg_outputs *out = f->out;
    const pg_model *model = pgi_merged_inputs_model(f->merged, row);
    const int64_t h = out->hidden_size, first_kept = out->n_tokens - out->n_kept;
    float *row_logits = out->n_kept > 0 ? out->logits + row * out->n_kept * out->vocab_size : NULL;
    if (f->flags & (PG_FORWARD_HIDDEN_STATES | PG_FORWARD_LAST_HIDDEN)) {
        float *to =
            out->last_hidden ? out->last_hidden : out->hidden_states + out->n_layers * out->n_rows * out->n_tokens * h;
        memcpy(to + (row * out->n_tokens + some.begin) * h, last, (size_t)((some.end - some.begin) * h) * sizeof *to);
    }
    if (out->embeddings) {
        const int64_t at = row * out->n_tokens + some.begin;
        PGI_TRY(pgi_retrieval_forward(f->run, model, last, some.end - some.begin,
                                      f->merged->inputs->attention_mask + at, out->embeddings + at * out->embedding_dim,
                                      f->workspace.pass.decoder.linear));
    }
    int64_t first = some.begin > first_kept ? some.begin : first_kept;
    if (first < some.end)
        PGI_TRY(pgi_head_forward(f->run, &model->config.text, &model->weights.text, last + (first - some.begin) * h,
                                 some.end - first, row_logits + (first - first_kept) * out->vocab_size,
                                 &f->workspace.pass.head));
    return f->labels ? add_labels(f, row, some, last, row_logits) : PG_OK;
}

/* Zeros in place of what was computed for the tokens of the row that the mask hides: they are padding, too. */
static void clear_hidden(const forward *f, int64_t row) {
    const pg_outputs *out = f->out;
    const pg_inputs *inputs = f->merged->inputs;
    const int64_t h = out->hidden_size, v = out->vocab_size, first_kept = out->n_tokens - out->n_kept;
    const pgi_row *of = &inputs->rows[row];
    for (int64_t t = of->first_token; t < of->first_token + of->n_tokens; t++) {
        const int64_t at = row * out->n_tokens + t;
        if (inputs->attention_mask[at]) continue;
        pgi_attentions_clear(&f->attentions, row, t);
        if (t >= first_kept)
            memset(out->logits + (row * out->n_kept + t - first_kept) * v, 0, (size_t)v * sizeof(float));
        if (out->last_hidden) memset(out->last_hidden + at * h, 0, (size_t)h * sizeof(float));
        for (int64_t l = 0; out->hidden_states && l <= out->n_layers; l++)
            memset(out->hidden_states + (l * out->n_rows * out->n_tokens + at) * h, 0, (size_t)h * sizeof(float));
    }
}

/* The tokens of a row that are run. */
static span tokens_of(const forward *f, int64_t row) {
    const pgi_row *of = &f->merged->inputs->rows[row];
    if (f->flags & PG_FORWARD_SKIP_PADDING) return (span){of->first_token, of->first_token + of->n_tokens};
    return (span){0, f->out->n_tokens};
}

/* How many rows from `row` on are one pass. Several, if each would take the path of many rows alone, too
 * (pgi_linear_few_rows()), and all of its tokens are wanted, so that the last layer needs no gathering. */
static int64_t rows_together(const forward *f, int64_t row) {
    const pg_model *model = pgi_merged_inputs_model(f->merged, row);
    int64_t n = 0, n_tokens = 0;
    for (; row + n < f->out->n_rows && pgi_merged_inputs_model(f->merged, row + n) == model; n++) {
        const span all = tokens_of(f, row + n), some = wanted(f, row + n, all);
        const int64_t n_here = all.end - all.begin;
        n_tokens += n_here;
        if (n_here <= pgi_linear_few_rows(f->run->kernels) || some.end - some.begin < n_here ||
            n_tokens > f->pass_tokens)
            break;
    }
    return pgi_max64(1, n);
}

/* The rows from `row` on that rows_together() counts. */
static pg_status run_rows(forward *f, int64_t row, int64_t n_rows) {
    pg_outputs *out = f->out;
    const pg_model *model = pgi_merged_inputs_model(f->merged, row);
    const int64_t h = out->hidden_size, layer_size = out->n_rows * out->n_tokens * h,
                  total = out->n_rows * out->n_layers;
    const span all = tokens_of(f, row), some = wanted(f, row, all);
    if (some.begin == some.end) return pgi_run_progress(f->run, PG_PHASE_PREFILL, (row + 1) * out->n_layers, total);

    if (f->labels) PGI_TRY(pgi_loss_take_model(f->run, &f->loss, model, &f->workspace.pass.head));
    float *x = f->workspace.pass.x;
    pgi_sequence sequences[TOGETHER_ROWS];
    int64_t n = 0;
    for (int64_t i = 0; i < n_rows; i++) {
        const span here = tokens_of(f, row + i);
        sequences[i] = pgi_merged_inputs_sequence(f->merged, row + i, here.begin, here.end - here.begin);
        pgi_merged_inputs_embed(f->run, f->merged, row + i, here.begin, here.end - here.begin, x + n * h);
        n += here.end - here.begin;
    }
    pgi_kept_attention kept;
    pgi_attentions_row(&f->attentions, row, all.begin, all.end, &kept);
    pgi_pass pass = {
        .x = x,
        .n_tokens = n,
        .sequences = sequences,
        .n_sequences = n_rows,
        .first_out = some.begin - all.begin,
        .n_out = n_rows > 1 ? n : some.end - some.begin,
        .kept = kept.n > 0 ? &kept : NULL,
        .layers_done = row * out->n_layers,
        .layers_total = total,
    };
    if (out->hidden_states) {
        float *embeddings = out->hidden_states + (row * out->n_tokens + all.begin) * h;
        memcpy(embeddings, x, (size_t)(n * h) * sizeof(float));
        pass.hidden_states = embeddings + layer_size;
        pass.hidden_stride = layer_size;
    }
    PGI_TRY(pgi_decoder_forward(f->run, &model->config.text, &model->weights.text, &pass, &f->workspace.pass.decoder));
    const float *last = x + pass.first_out * h;
    for (int64_t i = row; i < row + n_rows; i++) {
        const span here = wanted(f, i, tokens_of(f, i));
        PGI_TRY(keep_outputs(f, i, here, last));
        if (f->flags & PG_FORWARD_SKIP_PADDING && f->merged->inputs->rows[i].n_hidden > 0) clear_hidden(f, i);
        last += (here.end - here.begin) * h;
    }
    return n_rows > 1 ? pgi_run_progress(f->run, PG_PHASE_PREFILL, (row + n_rows) * out->n_layers, total) : PG_OK;
}

/* The labels of the loss that is asked for [B, T], or NULL. */
static const int64_t *labels_of(const pg_inputs *inputs, const pg_forward_options *options) {
    return options->flags & PG_FORWARD_NO_LOSS ? NULL : inputs->labels;
}

static pg_status check_options(const pg_model *model, const pg_inputs *inputs, const pg_forward_options *options) {
    PGI_TRY(pgi_attentions_check(model, inputs, options));
    if (options->flags & PG_FORWARD_RETRIEVAL) PGI_TRY(pgi_retrieval_check(model));
    if (options->logits_to_keep < 0 || options->logits_to_keep > inputs->n_tokens)
        return pgi_error(PG_ERROR_ARGUMENT, "logits_to_keep is %lld, expected 0 (all) to %lld, the tokens of a row",
                         (long long)options->logits_to_keep, (long long)inputs->n_tokens);
    return labels_of(inputs, options) ? pgi_loss_check_labels(model, inputs) : PG_OK;
}

static pg_status run_batch(forward *f) {
    const pg_model *model = f->merged->model;
    const int64_t n_rows = f->out->n_rows, n_tokens = f->out->n_tokens;
    /* Row by row: what is kept of every layer, for it lies apart; and what an observer sees. */
    if (!f->attentions.merged && !f->out->hidden_states && !f->run->observer)
        f->pass_tokens = pgi_min64(PGI_TOGETHER_TOKENS, n_rows * n_tokens);
    const pgi_limits limits = {.n_tokens = pgi_max64(n_tokens, f->pass_tokens), .n_keys = n_tokens};
    PGI_TRY(pgi_workspace_reserve(&f->workspace, f->run, model, &limits));
    if (f->labels) PGI_TRY(pgi_loss_init(&f->loss, model, n_rows, f->out->n_kept == n_tokens));
    for (int64_t r = 0, n; r < n_rows; r += n) {
        n = rows_together(f, r);
        PGI_TRY(run_rows(f, r, n));
    }
    if (!f->labels) return PG_OK;
    PGI_TRY(pgi_loss_flush(f->run, &f->loss, &f->workspace.pass.head));
    f->out->has_loss = 1;
    f->out->loss = (float)pgi_loss_mean(&f->loss, (f->flags & PG_FORWARD_LOSS_PER_ROW) != 0);
    return PG_OK;
}

/* merged: of the inputs. */
static pg_status run_merged(const pgi_run *run, const pgi_merged_inputs *merged, const pg_forward_options *options,
                            pg_outputs **result) {
    pg_outputs *out = NULL;
    forward f = {.run = run, .merged = merged, .flags = options->flags, .labels = labels_of(merged->inputs, options)};
    pg_status status = new_outputs(merged, options->flags, options->logits_to_keep, &out);
    f.out = out;
    if (status >= 0) status = pgi_attentions_init(merged, options, &f.attentions);
    if (status >= 0) status = run_batch(&f);
    if (status >= 0) {
        out->attentions = f.attentions.weights;
        memcpy(out->attentions_shape, f.attentions.shape, sizeof out->attentions_shape);
        f.attentions.weights = NULL;
    }
    pgi_attentions_free(&f.attentions);
    pgi_loss_free(&f.loss);
    pgi_workspace_free(&f.workspace, &merged->model->memory);
    if (status < 0)
        pgi_outputs_close(out);
    else
        *result = out;
    return status;
}

pg_status pgi_forward(const pg_model *model, const pg_inputs *inputs, const pg_forward_options *options,
                      const pgi_observer *observer, pg_outputs **result) {
    PGI_TRY(check_options(model, inputs, options));
    const pgi_kernels kernels = pgi_row_models_kernels(model, options->row_models, inputs->n_rows);
    pgi_thread_pool pool;
    pgi_run run = pgi_run_init(&pool, &kernels, PGI_RUN_OPTIONS(options));
    run.observer = observer;
    pgi_merged_inputs merged;
    pg_status status =
        pgi_merged_inputs_init(&run, model, options->row_models, inputs, options->features, NULL, &merged);
    if (status >= 0) {
        pgi_merged_inputs_pack(&merged);
        status = run_merged(&run, &merged, options, result);
        pgi_merged_inputs_free(&merged);
    }
    pgi_run_free(&run);
    return status;
}
