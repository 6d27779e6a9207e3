/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Mixes: which matrices are int8 where the rest is int4. A list of names with commas between, "embedding,attention",
 * says it. A name is words with dots between, and means the matrices that all of its words fit:
 *
 *     embedding                    the token embedding and the head
 *     patches, projector           the encoder's convolution; the projector
 *     encoder, decoder             all layers of one of the two
 *     0, 1, 2, ...                 the layers of this number
 *     attention, mlp               of layers: q, k, v and out; fc1 and fc2, or gate, up and down
 *     q k v out fc1 fc2 gate up down
 *
 * so "decoder.0" is one layer, "decoder.down" one matrix of each layer.
 */
#ifndef PGI_CHECKPOINT_MIX_H
#define PGI_CHECKPOINT_MIX_H

#include "checkpoint/weights.h"
#include "kernels/quantized.h"

/* The blocks of a matrix, PGI_DTYPE_*_BLOCKS. weights: PG_WEIGHTS_INT8 or _INT4; list: NULL and "" name none. */
int32_t pgi_mix_blocks(int32_t weights, const char *list, const pgi_matrix_role *role);

/* PG_ERROR_ARGUMENT: a name of the list is that of no matrix of the model. */
pg_status pgi_mix_check(const char *list, pgi_weights *bound, const pgi_config *config);
/* PG_ERROR_ARGUMENT: a quantized matrix has other blocks than pgi_mix_blocks() says; names it. */
pg_status pgi_mix_compare(int32_t weights, const char *list, pgi_weights *bound, const pgi_config *config);

/* Matrices that are int8. */
uint32_t pgi_mix_count_int8(pgi_weights *bound, const pgi_config *config);

#endif
