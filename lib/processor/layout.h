/* The token layout: `<image>` x N, bos, prompt, newline (HF: PaliGemmaProcessor.__call__). */
#ifndef PGI_PROCESSOR_LAYOUT_H
#define PGI_PROCESSOR_LAYOUT_H

#include "processor/tokenizer.h"

/* Appends the whole prompt of one picture. prompt: UTF-8 or NULL; literal: as PG_TEXT_LITERAL.
 * `<image>` in the prompt: each becomes n_image_tokens, bos goes after the last one, none are put
 * in front (HF 5.23). *n_images (may be NULL) receives how many pictures the layout has room for. */
pg_status pgi_layout_prompt(const pgi_tokenizer *tokenizer, int32_t n_image_tokens, const char *prompt, int literal,
                            pgi_ids *out, int32_t *n_images);

#endif
