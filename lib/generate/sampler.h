/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Chooses the token that follows. Greedy: the likeliest one, of equally likely ones the lowest id. */
#ifndef PGI_GENERATE_SAMPLER_H
#define PGI_GENERATE_SAMPLER_H

#include "base/run.h"

/* By its logits [vocab_size]; NaN never wins (0 when all are NaN). */
int64_t pgi_sample(const float *logits, int64_t vocab_size);

/* tokens [n_rows]: what pgi_sample() takes in each row of logits [n_rows, vocab_size]. */
pg_status pgi_sample_rows(const pgi_run *run, const float *logits, int64_t n_rows, int64_t vocab_size, int64_t *tokens);

#endif
