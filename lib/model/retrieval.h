/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Late-interaction embeddings (HF: ColPaliForRetrieval): the projection of last hidden states, of length 1. */
#ifndef PGI_MODEL_RETRIEVAL_H
#define PGI_MODEL_RETRIEVAL_H

#include "model/model.h"

/* PG_ERROR_NOT_FOUND when the model has no projection. */
pg_status pgi_retrieval_check(const pg_model *model);

/* out [n, dim] of last hidden states x [n, hidden]; zero where mask [n] is 0. scratch: of pgi_linear_forward(). */
pg_status pgi_retrieval_forward(const pgi_run *run, const pg_model *model, const float *x, int64_t n,
                                const int64_t *mask, float *out, void *scratch);

#endif
