/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The loss of a batch, gathered label by label. */
#ifndef PGI_MODEL_LOSS_H
#define PGI_MODEL_LOSS_H

#include "decoder/head.h"
#include "model/model.h"
#include "processor/inputs.h"

/* Labels whose logits are computed and summed up at once: the head is read once for all of them. */
enum { PGI_LOSS_LABELS = 64 };

typedef struct pgi_loss_label {
    int64_t row, label;
    const float *logits; /* [vocab_size]; NULL: the next row of `x` waits for the head */
    double loss;
} pgi_loss_label;

typedef struct pgi_loss_row {
    double sum; /* of the row's losses */
    int64_t n;  /* its labels */
} pgi_loss_row;

typedef struct pgi_loss {
    const pg_model *model; /* borrowed; of the labels that wait */
    pgi_loss_row *rows;    /* [n_rows] */
    int64_t n_rows;
    pgi_loss_label labels[PGI_LOSS_LABELS];
    int64_t n, n_x; /* labels; of these, labels that wait for their logits */
    float *x;       /* [PGI_LOSS_LABELS, hidden]: last hidden states whose logits are not kept; NULL: all are */
    float *logits;  /* [PGI_LOSS_LABELS, vocab_size], of these; NULL as well */
} pgi_loss;

/* The sum of exp(logits - max), max the largest of the n >= 1 logits. */
double pgi_exp_sum(const float *logits, int64_t n, float *max);

/* PG_ERROR_ARGUMENT: a label that is neither an id nor -100; names row and token. */
pg_status pgi_loss_check_labels(const pg_model *model, const pg_inputs *inputs);

/* logits_are_kept: every label comes with its logits. On error too, pgi_loss_free() is due. */
pg_status pgi_loss_init(pgi_loss *loss, const pg_model *model, int64_t n_rows, int logits_are_kept);
void pgi_loss_free(pgi_loss *loss); /* {0} is ignored */

/* The labels that follow are of rows of this handle, on the same base. */
pg_status pgi_loss_take_model(const pgi_run *run, pgi_loss *loss, const pg_model *model,
                              const pgi_head_workspace *workspace);
/* Adds a label of row `row` that `hidden` [hidden], or where they are kept `logits`, predicts; hidden is copied, logits
 * must stay until the loss is flushed. A full list is flushed by itself. */
pg_status pgi_loss_add(const pgi_run *run, pgi_loss *loss, int64_t row, int64_t label, const float *hidden,
                       const float *logits, const pgi_head_workspace *workspace);
pg_status pgi_loss_flush(const pgi_run *run, pgi_loss *loss, const pgi_head_workspace *workspace);

/* HF (ForCausalLMLoss): the mean over all labels, NaN when there are none. per_row, big_vision
 * (trainers/proj/paligemma/train.py): the mean over each row's labels, 0 where it has none, then over all rows. */
double pgi_loss_mean(const pgi_loss *loss, int per_row);

#endif
