/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* From logits to a token, by the settings. */
#ifndef PGI_GENERATE_SAMPLING_H
#define PGI_GENERATE_SAMPLING_H

#include "generate/settings.h"

/* Makes workspace->scores of logits [vocab_size] by all settings. *stop: a callback wants to end the row.
 * PG_ERROR_ARGUMENT: no id is left. */
pg_status pgi_sampling_score(const pgi_sampling *sampling, const pgi_sampled_row *row, const float *logits,
                             const pgi_sampling_workspace *workspace, int *stop);

/* The same, but it is no error when no id is left: *left says whether one is. */
pg_status pgi_sampling_process(const pgi_sampling *sampling, const pgi_sampled_row *row, const float *logits,
                               const pgi_sampling_workspace *workspace, int *left, int *stop);
/* The error of pgi_sampling_score(), of a row of the batch and the new tokens it has. */
pg_status pgi_sampling_none_left(const pgi_sampling *sampling, int64_t row, int64_t n_new);

/* The token, by scores [vocab_size]. */
int64_t pgi_sampling_choose(const pgi_sampling *sampling, const pgi_sampled_row *row, const float *scores);

#endif
