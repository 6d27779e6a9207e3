/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Rows of a training's data as a model takes them. */
#ifndef PALIGEMMA_TOOL_TRAIN_ROWS_H
#define PALIGEMMA_TOOL_TRAIN_ROWS_H

#include "train_data.h"

/* Some rows of the data, in their order. */
typedef struct tool_train_set {
    tool_train_data *data;
    size_t *rows; /* [n] indices into data->rows; malloc'ed */
    size_t n;
} tool_train_set;

typedef struct tool_train_encoder {
    const pg_processor *processor;
    pg_cancel *cancel;
    uint32_t flags; /* PG_ENCODE_* */
} tool_train_encoder;

/* The inputs of rows [n] of the data, with labels. PG_ERROR_CANCELLED, or TOOL_TOLD. */
pg_status tool_train_encode(const tool_train_encoder *encoder, tool_train_data *data, const size_t *rows, size_t n,
                            pg_inputs **out);

/* Encodes each row once, so that no training ends at a damaged image after hours; the data then has those that can be.
 * PG_ERROR_CANCELLED, or TOOL_TOLD. */
pg_status tool_train_check(const tool_train_encoder *encoder, tool_train_data *data, tool_progress *progress);

/* Deals the data's rows out: a part of them, which follows from the seed alone, becomes the validation (part 0: none),
 * and both have at least one. TOOL_FAILED: told. */
int tool_train_deal(tool_train_data *data, double part, uint64_t seed, tool_train_set *training,
                    tool_train_set *validation);
/* All rows, in the order of the file. */
int tool_train_take_all(tool_train_data *data, tool_train_set *out);

#endif
