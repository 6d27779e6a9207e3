/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The vision encoder and the projector in training, of one image of N patches: forward and back. */
#ifndef PGI_TRAIN_ENCODER_H
#define PGI_TRAIN_ENCODER_H

#include "train/layers.h"

/* What a layer keeps: hidden size h, MLP of I. */
typedef struct pgi_vision_kept {
    float *normed;     /* [N, h] */
    float *q, *k, *v;  /* [N, h] */
    float *attended;   /* [N, h] */
    float *middle;     /* [N, h]: x after attention */
    float *mlp_normed; /* [N, h] */
    float *inner;      /* [N, I]: of fc1, before the activation */
} pgi_vision_kept;

typedef struct pgi_train_encoder {
    const pgi_train_pass *pass;
    const pgi_trained_model *trained;
    float *patches;  /* [N, 3 * P * P] */
    float *inputs;   /* [layers + 1, N, h]: what each layer reads, and the last gives; [2, N, h] without gradients */
    float *features; /* [N, h]: after the last norm, what the projector reads */
    pgi_vision_kept kept; /* of the layer under way: they are run again on the way back */
    float *residual;      /* [N, h] */
    float *hidden[2];     /* [N, I] */
    float *back[4];       /* [N, h] */
    float *dx;            /* [N, h] */
    void *attention;
} pgi_train_encoder;

pgi_train_encoder pgi_train_encoder_lay_out(pgi_arena *arena, const pgi_train_pass *pass,
                                            const pgi_trained_model *trained);

/* pixels [3, S, S] to out [N, text hidden]. done, total: of its progress, in layers. */
pg_status pgi_train_encoder_forward(pgi_train_encoder *encoder, const float *pixels, float *out, int64_t done,
                                    int64_t total);
/* After pgi_train_encoder_forward() of the same image: d_out [N, text hidden] to the gradients of the parameters. */
pg_status pgi_train_encoder_back(pgi_train_encoder *encoder, const float *d_out, int64_t done, int64_t total);

#endif
