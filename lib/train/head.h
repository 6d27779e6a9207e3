/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The last norm, the head and the loss in training: of the tokens alone that predict a label. */
#ifndef PGI_TRAIN_HEAD_H
#define PGI_TRAIN_HEAD_H

#include "train/layers.h"

/* A label, and the token of the row that predicts it. */
typedef struct pgi_train_label {
    int64_t token, id;
} pgi_train_label;

enum { PGI_TRAIN_LABELS = 32 }; /* that are under way at once */

typedef struct pgi_train_head {
    const pgi_train_pass *pass;
    const pgi_trained_model *trained;
    float *x, *normed, *back; /* [PGI_TRAIN_LABELS, h] */
    float *logits;            /* [PGI_TRAIN_LABELS, vocabulary] */
    double losses[PGI_TRAIN_LABELS];
} pgi_train_head;

pgi_train_head pgi_train_head_lay_out(pgi_arena *arena, const pgi_train_pass *pass, const pgi_trained_model *trained);

/* x [T, h]: what the last layer gave. *loss gets the sum over the n labels. dx [T, h], zero: gets the gradient of that
 * sum; NULL: only the loss is wanted. */
pg_status pgi_train_head_run(pgi_train_head *head, const float *x, const pgi_train_label *labels, int64_t n,
                             double *loss, float *dx);

#endif
