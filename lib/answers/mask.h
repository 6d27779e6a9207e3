/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Masks in an image: a decoded one in its box, and COCO's run lengths. */
#ifndef PGI_ANSWERS_MASK_H
#define PGI_ANSWERS_MASK_H

#include "answers/answer.h"
#include "answers/mask_decoder.h"

/* The mask of an object in the image of its answer: out [height, width], 128 to 255 inside, 0 to 127 outside.
 * PG_ERROR_NOT_FOUND: it has none. */
pg_status pgi_mask_of_object(const pg_mask_decoder *decoder, const pg_answer *answer, int64_t index, uint8_t *out);

/* Run lengths of mask >= 128 [height, width], column by column, of outside and inside by turns, outside first: appended
 * as numbers of 32 bits, or as pycocotools writes them in text. */
pg_status pgi_mask_counts(const uint8_t *mask, int64_t width, int64_t height, pgi_buffer *out);
pg_status pgi_mask_rle(const pgi_buffer *counts, pgi_buffer *out);

#endif
