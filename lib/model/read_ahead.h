/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Reads and maps the weights of a model ahead of their first use. */
#ifndef PGI_MODEL_READ_AHEAD_H
#define PGI_MODEL_READ_AHEAD_H

#include "model/model.h"

enum { PGI_AHEAD_IMAGE = 1, PGI_AHEAD_TEXT = 2 }; /* encoder and projector; decoder and head */

/* The first call for a part starts a thread that goes through its mapped weights in the order of their use: it asks for
 * them from the disk and maps them, so that whoever computes waits for neither. Later calls do nothing. Nothing is
 * started for weights in memory, for so few or so many bytes that it does not pay, or where the system refuses a
 * thread. The thread ends by itself, or with the model. */
void pgi_read_ahead(const pg_model *model, int parts);

/* The parts that a call with these inputs computes with; features: of their images, or NULL. */
int pgi_read_ahead_parts(const pg_inputs *inputs, const pg_features *features);

/* What such a thread does, until `stop` is set. Returns the bytes of the steps, whole pages in front of each counted.
 */
size_t pgi_read_ahead_now(const pg_model *model, int parts, const atomic_int *stop);

/* Matrix `i` of a part in the order of use, with its bytes; NULL: there are no more. */
const pgi_matrix *pgi_read_ahead_matrix(const pg_model *model, int part, int64_t i, size_t *n_bytes);

#endif
