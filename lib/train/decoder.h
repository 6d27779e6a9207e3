/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The decoder's layers in training, of one row of T tokens: forward, keeping what the gradients need, and back. */
#ifndef PGI_TRAIN_DECODER_H
#define PGI_TRAIN_DECODER_H

#include "decoder/decoder.h"
#include "train/layers.h"

/* What a layer keeps: hidden size h, A query heads and G KV heads of d values, MLP of I. */
typedef struct pgi_text_kept {
    float *normed;     /* [T, h]: what q, k and v read */
    float *q, *k, *v;  /* [T, A d], [T, G d] twice; rotated */
    float *attended;   /* [T, A d] */
    float *projected;  /* [T, h]: of out, before Gemma 2's norm */
    float *middle;     /* [T, h]: x after attention */
    float *mlp_normed; /* [T, h] */
    float *gate, *up;  /* [T, I] */
    float *down;       /* [T, h]: before Gemma 2's norm */
} pgi_text_kept;

typedef struct pgi_train_decoder {
    const pgi_train_pass *pass;
    const pgi_trained_model *trained;
    int checkpoints;              /* layers keep nothing, and are run again on the way back */
    float *inputs;                /* [layers + 1, T, h]: what each layer reads, and the last gives */
    pgi_text_kept *kept;          /* [layers]; with checkpoints all are the same, and else the last and those without
                                     gradients */
    float *cos, *sin, *minus_sin; /* [T, d / 2]; minus_sin: of the rotation back */
    pgi_key_ranges ranges;
    float *residual;      /* [T, h] */
    float *hidden[2];     /* [T, I] */
    float *normed_back;   /* [T, h] */
    float *attended_back; /* [T, A d] */
    float *q_back, *k_back, *v_back;
    void *attention;
    int64_t max_tokens, n_tokens; /* T that there is room for, and of the row under way */
} pgi_train_decoder;

/* Memory for rows of up to n_tokens. kept: [layers], the caller's. */
pgi_train_decoder pgi_train_decoder_lay_out(pgi_arena *arena, const pgi_train_pass *pass,
                                            const pgi_trained_model *trained, int checkpoints, int64_t n_tokens,
                                            pgi_text_kept *kept);

/* Where the embeddings of a row go [T, h], and where the last layer's output is. */
static inline float *pgi_train_decoder_input(const pgi_train_decoder *d, int32_t layer) {
    return d->inputs + layer * d->max_tokens * d->trained->model->config.text.hidden_size;
}

/* Runs the layers over the row's embeddings. done, total: of its progress, in layers. */
pg_status pgi_train_decoder_forward(pgi_train_decoder *decoder, const pgi_sequence *sequence, int64_t done,
                                    int64_t total);
/* dx [T, h]: of the last layer's output, becomes that of the embeddings where anything is trained there. */
pg_status pgi_train_decoder_back(pgi_train_decoder *decoder, float *dx, int64_t done, int64_t total);

#endif
