/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The text of one row to ids as transformers 5.23 does it (PaliGemmaProcessor.prepare_inputs_layout and
 * ProcessorMixin.get_text_with_replacements): `<image>` x N for each image, bos, the prompt and a newline are one
 * text, the suffix with its eos is another. docs/PROCESSOR.md has the details.
 */
#ifndef PGI_PROCESSOR_LAYOUT_H
#define PGI_PROCESSOR_LAYOUT_H

#include "tokenizer/tokenizer.h"

/* UTF-8, may hold NUL. */
typedef struct pgi_text {
    const char *data;
    size_t size;
} pgi_text;

/* How often `<image>` stands in a text. */
int64_t pgi_layout_count_images(pgi_text text);

typedef struct pgi_layout {
    const pgi_tokenizer *tokenizer;
    int32_t n_image_tokens; /* N */
    int literal;            /* as PG_ENCODE_LITERAL: nothing in the texts is taken for a special token */
    int placed;             /* some text of the batch has `<image>`: images stand where the texts say, not in front */
} pgi_layout;

/* Appends the ids of images, bos, prompt and newline; n_images: the images in front, when they are not `placed`.
 * *events: PG_ROW_BOS_MISPLACED, PG_ROW_NEWLINE_MERGED or 0. On an error `out` may have grown. */
pg_status pgi_layout_prefix(const pgi_layout *layout, pgi_text prompt, int64_t n_images, pgi_id_list *out,
                            uint32_t *events);

/* Appends the ids of the suffix and, unless `open`, eos. */
pg_status pgi_layout_suffix(const pgi_layout *layout, pgi_text suffix, int open, pgi_id_list *out);

#endif
