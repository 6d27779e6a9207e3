/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The ids of one row in PG_MODE_BIG_VISION, as google-research/big_vision makes them for PaliGemma, the code it was
 * trained with: big_vision/configs/proj/paligemma/transfers/common.py (combine_and_keep_train and _eval) with the
 * tokenizer of big_vision/pp/ops_text.py (SentencepieceTokenizer). docs/PROCESSOR.md has each behaviour with its
 * source. The pixels of this mode: image/preprocess.h.
 */
#ifndef PGI_PROCESSOR_LAYOUT_BIG_VISION_H
#define PGI_PROCESSOR_LAYOUT_BIG_VISION_H

#include "processor/layout.h"

typedef struct pgi_big_vision_row {
    int32_t n_images;
    pgi_text prompt; /* data NULL: "" */
    pgi_text suffix; /* data NULL: no suffix, and no eos */
    int open;        /* no eos after the suffix (big_vision: eos="no") */
} pgi_big_vision_row;

/*
 * Appends `<image>` x n_image_tokens for each image, bos, the prompt, a newline [, the suffix [, eos]]. Prompt, newline
 * and suffix are tokenized apart, each as sentencepiece alone does it (PGI_LITERAL_CONTROL).
 * layout: its tokenizer and n_image_tokens are read. *n_prefix: the ids appended before the suffix (mask_ar 0).
 * Errors: PG_ERROR_ARGUMENT (invalid UTF-8, with its offset), PG_ERROR_UNSUPPORTED (a tokenizer without bos, eos or
 * `<image>` where one is needed), _MEMORY. After one `out` may have a part of the row.
 */
pg_status pgi_layout_big_vision(const pgi_layout *layout, const pgi_big_vision_row *row, pgi_id_list *out,
                                int64_t *n_prefix);

#endif
