/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Chooses the token that follows. Greedy: the likeliest one, of equally likely ones the lowest id. */
#ifndef PGI_GENERATE_SAMPLER_H
#define PGI_GENERATE_SAMPLER_H

#include "decoder/head.h"
#include "kernels/kernels.h"

enum {
    PGI_SAMPLER_ROWS = 16,   /* rows sampled at once at the most */
    PGI_SAMPLER_BLOCK = 8192 /* ids whose logits are made at a time */
};

/* By its logits [vocab_size]; NaN never wins (0 when all are NaN). */
int64_t pgi_sample(const float *logits, int64_t vocab_size);

/* tokens [n_rows], n_rows <= PGI_SAMPLER_ROWS: what pgi_sample() takes by the logits of the last hidden states
 * x [n_rows, hidden], which are made and dropped block by block. block: [n_rows * PGI_SAMPLER_BLOCK] */
pg_status pgi_sample_hidden(const pgi_run *run, const pgi_text_config *config, const pgi_text_weights *weights,
                            const float *x, int64_t n_rows, int64_t *tokens, float *block,
                            const pgi_head_workspace *workspace);

#endif
