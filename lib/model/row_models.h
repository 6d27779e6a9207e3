/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The model handles of the rows of a call: its own, or others with adapters on the same base. */
#ifndef PGI_MODEL_ROW_MODELS_H
#define PGI_MODEL_ROW_MODELS_H

#include "model/model.h"

/* A copy of the caller's handles [n], of inputs of n_rows, each counted and none NULL. n 0: *out is NULL, and all rows
 * are of `model`, which the call keeps. PG_ERROR_ARGUMENT: n is another number than that of the rows, a handle is of
 * another base. */
pg_status pgi_row_models_keep(const pg_model *model, const pg_model *const *models, int64_t n, int64_t n_rows,
                              pg_model ***out);
void pgi_row_models_release(const pgi_memory *memory, pg_model **models, int64_t n); /* NULL is ignored */

/* The kernels of a run of all these: scratch for the adapters of any. models [n]; NULL: of `model`. */
pgi_kernels pgi_row_models_kernels(const pg_model *model, const pg_model *const *models, int64_t n);

#endif
