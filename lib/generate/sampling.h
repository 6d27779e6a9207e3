/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* How tokens are chosen: the options of a call, checked, and the choice by them. */
#ifndef PGI_GENERATE_SAMPLING_H
#define PGI_GENERATE_SAMPLING_H

#include "generate/probability.h"
#include "model/model.h"

typedef struct pgi_sampling {
    pg_sampling_options options; /* complete; its arrays are the caller's */
    const pgi_config *config;
    int64_t vocab_size;
} pgi_sampling;

/* options: complete. PG_ERROR_ARGUMENT: one is out of range. */
pg_status pgi_sampling_init(const pg_sampling_options *options, const pg_model *model, pgi_sampling *out);

/* Whether the token is the one with the largest of the model's logits, whatever the row. */
int pgi_sampling_is_greedy(const pgi_sampling *sampling);

/* Whether `id` ends a row. */
int pgi_sampling_is_eos(const pgi_sampling *sampling, int64_t id);

/* A row of which the next token is to be chosen. */
typedef struct pgi_sampled_row {
    int64_t row;        /* of the batch */
    const int64_t *ids; /* [n_ids], the prompt's, if it has any, and the new ones */
    int64_t n_ids;
} pgi_sampled_row;

/* Makes scores of logits [vocab_size], in place, by all settings. *stop: on_logits wants to end the row. */
pg_status pgi_sampling_score(const pgi_sampling *sampling, const pgi_sampled_row *row, float *logits, int *stop);

#endif
