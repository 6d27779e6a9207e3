/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The working memory of a call or a session: one block, laid out for limits. Features, generation, sessions and forward
 * passes take theirs from here, so that how much there is of it is told in one place.
 */
#ifndef PGI_MODEL_WORKSPACE_H
#define PGI_MODEL_WORKSPACE_H

#include "decoder/decoder.h"
#include "decoder/head.h"
#include "encoder/encoder.h"
#include "model/model.h"
#include "projector/projector.h"

/* The most that a workspace must do for; a layout for more does for less, too. 0: nothing of the kind. */
typedef struct pgi_limits {
    int64_t n_rows;        /* batch rows of merged inputs that lie in the workspace */
    int64_t n_images;      /* images whose features lie in the workspace */
    int runs_encoder;      /* whether features are computed */
    int64_t n_tokens;      /* tokens of a prefill or a forward pass, padding included */
    int64_t n_step_tokens; /* tokens of a decoding step: one of each sequence that takes it */
    int64_t n_keys;        /* tokens that a sequence comes to */
    int64_t n_logits;      /* values of `logits` */
} pgi_limits;

/* Memory of a pass through the decoder, and of the head after it, which lie one over the other. */
typedef struct pgi_pass_workspace {
    float *x; /* [n_tokens, hidden] */
    pgi_decoder_workspace decoder;
    pgi_head_workspace head;
} pgi_pass_workspace;

/* What lies in it; a part that the limits leave out is NULL. */
typedef struct pgi_workspace {
    void *block;
    size_t size; /* of the block */

    float *logits;          /* [n_logits] */
    int64_t *first_feature; /* [n_rows], of merged inputs */
    float *image_row;       /* [hidden], of merged inputs */
    float *features;        /* [n_images, n_patches, hidden] */

    /* What follows lies one over the other, encoder, pass and step: each overwrites what the others left. */
    float *encoded; /* [n_patches, vision hidden] */
    pgi_encoder_workspace encoder;
    pgi_projector_workspace projector;
    pgi_pass_workspace pass; /* of n_tokens */
    pgi_pass_workspace step; /* of n_step_tokens */
} pgi_workspace;

/* Tokens of a pass of several rows: rows so short that reading and packing the weights is much of their time. An image
 * alone has as many. Longer rows gain nothing (docs/SPEED.md), and the workspace stays at what a prompt with an image
 * takes. */
enum { PGI_TOGETHER_TOKENS = 256 };

/* Bytes of a workspace for these limits and the threads of the run; SIZE_MAX: more than can be addressed. */
size_t pgi_workspace_size(const pgi_run *run, const pg_model *model, const pgi_limits *limits);

/* Lays out *workspace, which begins as {0}, for these limits; what was in it is lost. Its block is kept where it is
 * large enough, or else replaced. After an error the workspace is empty. */
pg_status pgi_workspace_reserve(pgi_workspace *workspace, const pgi_run *run, const pg_model *model,
                                const pgi_limits *limits);
void pgi_workspace_free(pgi_workspace *workspace, const pgi_memory *memory);

/* Floats of the features of n_images; SIZE_MAX: more than there can be. */
size_t pgi_features_count(const pg_model *model, int64_t n_images);

#endif
