/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The inputs of the model: a batch of rows, built by the processor or given by the caller. The public handle is this
 * struct.
 */
#ifndef PGI_PROCESSOR_INPUTS_H
#define PGI_PROCESSOR_INPUTS_H

#include <stdatomic.h>

#include "base/memory.h"

/* In labels: no label (HF: torch.nn.CrossEntropyLoss, ignore_index). */
enum { PGI_NO_LABEL = -100 };

/* Most tokens of a row, and of one that padding makes longer. RoPE has no end of its own; up to here f32 holds every
 * position. A folder's own pad_to_multiple_of must not take the machine's memory. */
enum { PGI_MAX_ROW_TOKENS = 1 << 24 };

/* Tokens of a row unless the caller says otherwise: 16 times PaliGemma's context. */
enum { PGI_DEFAULT_MAX_TOKENS = 1 << 17 };
/* Of a text, for each of max_tokens; and at the most: what the symbols of the tokenizer can be counted by. */
enum { PGI_TEXT_BYTES_A_TOKEN = 16, PGI_MAX_TEXT_BYTES = INT32_MAX / 4 };

/* One row. Its tokens are first_token .. first_token + n_tokens of the T of the batch, the rest is padding. The last
 * n_suffix of them are causal (token type 1); those before see each other. */
typedef struct pgi_row {
    int64_t first_token, n_tokens, n_suffix;
    int64_t n_hidden;              /* of n_tokens: the caller's attention_mask hides them. Not in n_suffix */
    int64_t n_truncated;           /* tokens lost to truncation */
    int64_t first_image, n_images; /* in pixels; or, without pixels, images that the layout has tokens for */
    uint32_t events;               /* PG_ROW_* */
} pgi_row;

struct pg_inputs {
    atomic_int references;
    pgi_memory memory;
    int64_t n_rows, n_tokens; /* B, T; both 0: images alone */
    pgi_row *rows;            /* [B] */
    int64_t *ids;             /* [B, T], or NULL: embeds are given */
    float *embeds;            /* [B, T, embed_width], rows as the decoder takes them, or NULL */
    int64_t embed_width;
    int64_t *attention_mask; /* [B, T] 1, 0 on padding */
    int without_mask;        /* the caller gave none: all are 1 above */
    int64_t *token_type_ids; /* [B, T] 0 prefix and padding, 1 suffix */
    int without_types;       /* the caller gave no types: all are 1 above, and the model chooses */
    int64_t *labels;         /* [B, T] ids, -100 where there is none; or NULL: no loss is asked for */
    int64_t *position_ids;   /* [B, T] from 1, padding skipped; the caller's own when own_positions */
    int own_positions;
    int64_t *image_counts; /* [B] images of each row, or NULL: from the caller's arrays, which do not say */
    int64_t n_images;      /* images that `pixels` holds */
    int64_t *image_sizes;  /* [n_images, 2] height and width before the resize, or NULL: the caller's own pixels */
    int32_t image_width, image_height;
    float *pixels; /* [n_images, 3, height, width], or NULL: the layout may have image tokens, but no pixels */
};

/* An empty handle with one reference. */
pg_status pgi_inputs_new(const pgi_memory *memory, pg_inputs **out);
/* The same handle, which now counts one more reference. Handles that never change are const everywhere else: only their
 * count does. NULL is ignored. */
pg_inputs *pgi_inputs_retain(const pg_inputs *inputs);
void pgi_inputs_release(pg_inputs *inputs); /* NULL is ignored */

/* Sets B and T and makes rows (zero), attention_mask (zero), token_type_ids (zero) and position_ids. */
pg_status pgi_inputs_add_rows(pg_inputs *inputs, int64_t n_rows, int64_t n_tokens);
/* Room for images of width x height, contents undefined. */
pg_status pgi_inputs_add_pixels(pg_inputs *inputs, int64_t n_images, int32_t width, int32_t height);
/* A [B, T] array of numbers, contents undefined, or NULL (PG_ERROR_MEMORY). */
int64_t *pgi_inputs_new_numbers(const pg_inputs *inputs);
/* attention_mask and position_ids from the rows: 1 on tokens, positions from 1; on padding 0 and 1. */
void pgi_inputs_fill_rows(pg_inputs *inputs);
/* position_ids from attention_mask. */
void pgi_inputs_count_positions(pg_inputs *inputs);

/* A copy of the caller's arrays, checked. arrays: complete, and so are the tensors it points to. */
pg_status pgi_inputs_create(const pgi_memory *memory, const pg_input_arrays *arrays, pg_inputs **out);

#endif
