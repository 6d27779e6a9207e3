/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Cross entropy of a label under the logits of the token before it: log(sum(exp(logits))) - logits[label], summed in
 * double precision (HF: loss_utils.py, ForCausalLMLoss, in f32).
 */
#include "model/loss.h"

#include <math.h>
#include <string.h>

#include "base/parallel.h"

double pgi_exp_sum(const float *logits, int64_t n, float *max) {
    double sum = 0;
    *max = logits[0];
    for (int64_t i = 1; i < n; i++)
        if (logits[i] > *max) *max = logits[i];
    for (int64_t i = 0; i < n; i++) sum += exp((double)logits[i] - (double)*max);
    return sum;
}

static double cross_entropy(const float *logits, int64_t n, int64_t label) {
    float max;
    const double sum = pgi_exp_sum(logits, n, &max);
    return log(sum) + (double)max - (double)logits[label];
}

static void label_losses(void *context, int64_t begin, int64_t end, int thread) {
    pgi_loss *loss = context;
    (void)thread;
    for (int64_t i = begin; i < end; i++)
        loss->labels[i].loss =
            cross_entropy(loss->labels[i].logits, loss->model->config.text.vocab_size, loss->labels[i].label);
}

pg_status pgi_loss_check_labels(const pg_model *model, const pg_inputs *inputs) {
    const int64_t last_id = model->config.text.vocab_size - 1;
    for (int64_t i = 0; i < inputs->n_rows * inputs->n_tokens; i++) {
        const int64_t label = inputs->labels[i];
        if (label != PGI_NO_LABEL && (label < 0 || label > last_id))
            return pgi_error_of_row(
                pgi_error(PG_ERROR_ARGUMENT, "row %lld: the label of token %lld is %lld, expected 0 to %lld, or -100",
                          (long long)(i / inputs->n_tokens), (long long)(i % inputs->n_tokens), (long long)label,
                          (long long)last_id),
                i / inputs->n_tokens);
    }
    return PG_OK;
}

pg_status pgi_loss_init(pgi_loss *loss, const pg_model *model, int64_t n_rows, int logits_are_kept) {
    const size_t h = (size_t)model->config.text.hidden_size, v = (size_t)model->config.text.vocab_size;
    *loss = (pgi_loss){.model = model, .n_rows = n_rows};
    loss->rows = pgi_alloc_zero(&model->memory, (size_t)n_rows, sizeof *loss->rows);
    if (!loss->rows) return PG_ERROR_MEMORY;
    if (logits_are_kept) return PG_OK;
    loss->logits = pgi_alloc(&model->memory, PGI_LOSS_LABELS * v, sizeof(float));
    if (loss->logits) loss->x = pgi_alloc(&model->memory, PGI_LOSS_LABELS * h, sizeof(float));
    return loss->x ? PG_OK : PG_ERROR_MEMORY;
}

void pgi_loss_free(pgi_loss *loss) {
    if (!loss->model) return;
    pgi_free(&loss->model->memory, loss->rows);
    pgi_free(&loss->model->memory, loss->logits);
    pgi_free(&loss->model->memory, loss->x);
    *loss = (pgi_loss){0};
}

pg_status pgi_loss_flush(const pgi_run *run, pgi_loss *loss, const pgi_head_workspace *workspace) {
    const pgi_text_config *text = &loss->model->config.text;
    const float *next = loss->logits;
    if (loss->n_x > 0)
        PGI_TRY(pgi_head_forward(run, text, &loss->model->weights.text, loss->x, loss->n_x, loss->logits, workspace));
    for (int64_t i = 0; i < loss->n; i++) {
        if (loss->labels[i].logits) continue;
        loss->labels[i].logits = next;
        next += text->vocab_size;
    }
    pgi_run alone; /* an exp takes some 20 operations */
    PGI_TRY(pgi_parallel_for(pgi_run_for_work(run, 20.0 * (double)loss->n * text->vocab_size, &alone), loss->n, 1,
                             label_losses, loss));
    for (int64_t i = 0; i < loss->n; i++) {
        loss->rows[loss->labels[i].row].sum += loss->labels[i].loss;
        loss->rows[loss->labels[i].row].n++;
    }
    loss->n = loss->n_x = 0;
    return PG_OK;
}

pg_status pgi_loss_take_model(const pgi_run *run, pgi_loss *loss, const pg_model *model,
                              const pgi_head_workspace *workspace) {
    if (loss->model == model) return PG_OK;
    PGI_TRY(pgi_loss_flush(run, loss, workspace));
    loss->model = model;
    return PG_OK;
}

pg_status pgi_loss_add(const pgi_run *run, pgi_loss *loss, int64_t row, int64_t label, const float *hidden,
                       const float *logits, const pgi_head_workspace *workspace) {
    const int64_t h = loss->model->config.text.hidden_size;
    if (!logits) memcpy(loss->x + loss->n_x++ * h, hidden, (size_t)h * sizeof(float));
    loss->labels[loss->n++] = (pgi_loss_label){.row = row, .label = label, .logits = logits};
    return loss->n == PGI_LOSS_LABELS ? pgi_loss_flush(run, loss, workspace) : PG_OK;
}

double pgi_loss_mean(const pgi_loss *loss, int per_row) {
    double sum = 0, n = per_row ? (double)loss->n_rows : 0;
    for (int64_t r = 0; r < loss->n_rows; r++) {
        double count = (double)loss->rows[r].n;
        sum += !per_row ? loss->rows[r].sum : count > 0 ? loss->rows[r].sum / count : 0;
        n += per_row ? 0 : count;
    }
    return n > 0 ? sum / n : (double)NAN;
}
