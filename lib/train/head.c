/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Cross entropy and its gradient. With l the logits of a token, capped, and p = softmax(l), the loss is
 * log(sum(exp(l))) - l[label], and
 *     dl = p - (1 at the label)        before the soft cap: dl (1 - (l / cap)^2)
 */
#include "train/head.h"

#include <math.h>
#include <string.h>

#include "base/parallel.h"
#include "model/loss.h"
#include "train/random.h"

typedef struct loss_task {
    pgi_train_head *head;
    const pgi_train_label *labels;
    int64_t vocabulary;
    float soft_cap;
    int wants_gradient;
} loss_task;

pgi_train_head pgi_train_head_lay_out(pgi_arena *arena, const pgi_train_pass *pass, const pgi_trained_model *trained) {
    const pgi_text_config *config = &trained->model->config.text;
    const size_t h = (size_t)config->hidden_size;
    pgi_train_head head = {.pass = pass, .trained = trained};
    head.x = pgi_arena_take(arena, PGI_TRAIN_LABELS * h, sizeof(float));
    head.normed = pgi_arena_take(arena, PGI_TRAIN_LABELS * h, sizeof(float));
    head.back = pgi_arena_take(arena, PGI_TRAIN_LABELS * h, sizeof(float));
    head.logits = pgi_arena_take(arena, PGI_TRAIN_LABELS * (size_t)config->vocab_size, sizeof(float));
    return head;
}

/* Item: a label. Its logits become their gradient. */
static void label_losses(void *context, int64_t begin, int64_t end, int thread) {
    const loss_task *t = context;
    (void)thread;
    for (int64_t r = begin; r < end; r++) {
        float *logits = t->head->logits + r * t->vocabulary;
        float max;
        const double sum = pgi_exp_sum(logits, t->vocabulary, &max);
        t->head->losses[r] = log(sum) + (double)max - (double)logits[t->labels[r].id];
        for (int64_t i = 0; i < t->vocabulary && t->wants_gradient; i++) {
            const double capped = t->soft_cap > 0 ? (double)(logits[i] / t->soft_cap) : 0;
            const double p = exp((double)logits[i] - (double)max) / sum - (i == t->labels[r].id);
            logits[i] = (float)(p * (1 - capped * capped));
        }
    }
}

/* Up to PGI_TRAIN_LABELS labels. */
static pg_status run_labels(pgi_train_head *head, const pgi_train_pass *pass, const float *x,
                            const pgi_train_label *labels, int64_t n, double *loss, float *dx) {
    const pgi_text_config *config = &head->trained->model->config.text;
    const pgi_trained_model *trained = head->trained;
    const int64_t h = config->hidden_size, v = config->vocab_size;
    for (int64_t i = 0; i < n; i++) memcpy(head->x + i * h, x + labels[i].token * h, (size_t)h * sizeof *x);
    PGI_TRY(pgi_train_norm(pass, &trained->norm, head->x, n, h, config->rms_norm_eps, head->normed));
    PGI_TRY(pgi_train_linear(pass, &trained->head, head->normed, n, head->logits));
    if (config->final_soft_cap > 0) PGI_TRY(pgi_soft_cap(pass->run, head->logits, n * v, config->final_soft_cap));
    loss_task t = {head, labels, v, config->final_soft_cap, dx != NULL};
    PGI_TRY(pgi_parallel_for(pass->run, n, 1, label_losses, &t));
    for (int64_t i = 0; i < n; i++) *loss += head->losses[i];
    if (!dx) return PG_OK;
    PGI_TRY(pgi_train_linear_back(pass, &trained->head, head->normed, n, head->logits, head->back, 0));
    PGI_TRY(pgi_train_norm_back(pass, &trained->norm, head->x, n, h, config->rms_norm_eps, head->back, head->back, 0));
    for (int64_t i = 0; i < n; i++) memcpy(dx + labels[i].token * h, head->back + i * h, (size_t)h * sizeof *dx);
    return PG_OK;
}

pg_status pgi_train_head_run(pgi_train_head *head, const float *x, const pgi_train_label *labels, int64_t n,
                             double *loss, float *dx) {
    pgi_train_pass pass = *head->pass;
    *loss = 0;
    for (int64_t at = 0; at < n; at += PGI_TRAIN_LABELS) {
        pass.dropout_key = pgi_mix64(head->pass->dropout_key + (uint64_t)at); /* another for each block of them */
        PGI_TRY(run_labels(head, &pass, x, labels + at, pgi_min64(PGI_TRAIN_LABELS, n - at), loss, dx));
    }
    return PG_OK;
}
