/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* What decides the numbers of a model's features, as one number that another process can compare. */
#ifndef PGI_MODEL_MODEL_IDENTITY_H
#define PGI_MODEL_MODEL_IDENTITY_H

#include "model/model.h"

/*
 * A hash (64-bit FNV-1a) of the vision settings, and of each tensor of encoder and projector by its role: its shape,
 * its dtype, and of its content all of biases and norms, and of a matrix all up to 64 KiB and otherwise 8 samples of
 * 512 bytes, evenly from its beginning to its end. So models of one shape are told apart, and fine-tunes, which change
 * every matrix that they train all over, at the cost of some 1,300 pages of the mapped files and 1.6 MB in the
 * published models. The same weights have the same hash in every key layout and sharding, and converted or quantized on
 * opening.
 */
uint64_t pgi_model_features_hash(const pg_model *model);

/* What products of the encoder are computed in: "f32", "bf16 attention", "bf16". */
const char *pgi_model_arithmetic_name(const pg_model *model);

#endif
