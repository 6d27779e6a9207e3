/* The loss of a batch, gathered label by label. */
#ifndef PGI_MODEL_LOSS_H
#define PGI_MODEL_LOSS_H

#include "model/model.h"

/* Labels whose logits are computed and summed up at once: the head is read once for so many. */
enum { PGI_LOSS_LABELS = 64 };

typedef struct pgi_loss_label {
    int64_t row, label;
    const float *logits; /* [vocab_size]; NULL: the next row of `x` waits for the head */
    double loss;
} pgi_loss_label;

typedef struct pgi_loss {
    const pg_model *model;
    float *x;      /* [PGI_LOSS_LABELS, hidden]: last hidden states whose logits are not kept */
    float *logits; /* [PGI_LOSS_LABELS, vocab_size], of these */
    int64_t n, n_x;
    pgi_loss_label labels[PGI_LOSS_LABELS];
    double *sums;    /* [B] of each row's losses */
    int64_t *counts; /* [B] of its labels */
} pgi_loss;

/* x, logits, sums (zero) and counts (zero) are the caller's; x and logits may be NULL when all logits are kept. */

/* Adds a label of row `row` that `hidden` [hidden], or where they are kept `logits`, predicts; hidden is copied, logits
 * must stay until the loss is flushed. A full list is flushed by itself. workspace: any decoder's. */
pg_status pgi_loss_add(const pgi_run *run, pgi_loss *loss, int64_t row, int64_t label, const float *hidden,
                       const float *logits, void *workspace);
pg_status pgi_loss_flush(const pgi_run *run, pgi_loss *loss, void *workspace);

/* HF (ForCausalLMLoss): the mean over all labels, NaN when there are none. per_row, big_vision
 * (trainers/proj/paligemma/train.py): the mean over each row's labels, 0 where it has none, then over all rows. */
double pgi_loss_mean(const pgi_loss *loss, int64_t n_rows, int per_row);

#endif
