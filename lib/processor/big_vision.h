/*
 * What PG_MODE_BIG_VISION does: ids and pixels as google-research/big_vision makes them for PaliGemma, the code it was
 * trained with. Ids: big_vision/configs/proj/paligemma/transfers/common.py (combine_and_keep_train and _eval) with the
 * tokenizer of big_vision/pp/ops_text.py (SentencepieceTokenizer). Pixels: preprocess_image() of
 * big_vision/configs/proj/paligemma/finetune_paligemma.ipynb. docs/PROCESSOR.md has each behaviour with its source.
 */
#ifndef PGI_PROCESSOR_BIG_VISION_H
#define PGI_PROCESSOR_BIG_VISION_H

#include "tokenizer/tokenizer.h"

/*
 * Appends `<image>` x n_image_tokens for each of n_images images, bos, the prompt, a newline [, the suffix [, eos]].
 * Prompt, newline and suffix are tokenized apart, each as sentencepiece alone does it (PGI_LITERAL_CONTROL).
 * prompt, suffix: UTF-8 of so many bytes; prompt NULL: ""; suffix NULL: none, and no eos. open: no eos after the suffix
 * (big_vision: eos="no").
 * *n_prefix: the ids appended before the suffix, those with mask_ar 0.
 * Errors: PG_ERROR_ARGUMENT (invalid UTF-8, with its offset), PG_ERROR_UNSUPPORTED (a tokenizer without bos, eos or
 * `<image>` where one is needed), _MEMORY. After one `out` may have a part of the row.
 */
pg_status pgi_big_vision_layout(const pgi_tokenizer *tokenizer, int32_t n_image_tokens, int32_t n_images,
                                const char *prompt, size_t prompt_size, const char *suffix, size_t suffix_size,
                                int open, pgi_id_list *out, int64_t *n_prefix);

#endif
