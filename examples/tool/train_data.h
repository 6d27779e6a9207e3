/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * What a training learns from: a JSON object a line (JSON Lines) with
 *
 *   "image"   the name of a PNG or JPEG file; relative to `images`
 *   "prefix"  the prompt; lines without one take that of --prefix
 *   "suffix"  what the model is to say
 *
 * These are the keys of big_vision's data (which has its prefixes in its configs) and of published fine-tuning data for
 * PaliGemma. Other members are left alone. Of a line its place in the file is kept, and its text read again when its
 * turn comes: memory does not grow with the texts.
 */
#ifndef PALIGEMMA_TOOL_TRAIN_DATA_H
#define PALIGEMMA_TOOL_TRAIN_DATA_H

#include "tool.h"

/* A line that is an example. */
typedef struct tool_train_row {
    int64_t at;    /* its first byte */
    uint64_t line; /* from 1 */
} tool_train_row;

typedef struct tool_train_data {
    const char *name;   /* of the file */
    const char *images; /* the folder of the images; NULL: that of the file */
    const char *prefix; /* of lines that have none; NULL: these are bad */
    int skip_bad;       /* bad lines are left out and counted */
    tool_train_row *rows;
    size_t n, capacity;
    size_t n_bad;
    FILE *file;
    char *line; /* [MOST + 1] the line that was read last */
} tool_train_data;

typedef struct tool_train_example {
    json_t *object; /* has the texts */
    char *image;    /* a path that can be opened; malloc'ed */
    const char *prefix, *suffix;
} tool_train_example;

/* Reads all lines of data->name: name, images, prefix and skip_bad are set, the rest is zero. An image must be there;
 * it is not opened. TOOL_FAILED: told. */
int tool_train_data_open(tool_train_data *data);
void tool_train_data_close(tool_train_data *data);

/* A row's example. TOOL_FAILED: the file has changed, told. */
int tool_train_data_read(tool_train_data *data, const tool_train_row *row, tool_train_example *out);
void tool_train_example_free(tool_train_example *example);

/* A line is bad: TOOL_FAILED, told; or with skip_bad it is counted, the first ones are told, and TOOL_OK. Takes `why`,
 * which is malloc'ed, or NULL: no memory. */
int tool_train_data_bad(tool_train_data *data, uint64_t line, char *why);

/* 0 .. n - 1 in the order of an epoch: the same for a seed and an epoch, on every machine. */
void tool_train_shuffle(size_t *order, size_t n, uint64_t seed, uint64_t epoch);

#endif
