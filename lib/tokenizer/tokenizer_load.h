/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* A tokenizer from the files of a checkpoint folder. */
#ifndef PGI_TOKENIZER_TOKENIZER_LOAD_H
#define PGI_TOKENIZER_TOKENIZER_LOAD_H

#include "tokenizer/tokenizer.h"

/* flags: PG_PROCESSOR_TEXT_ONLY, without the tokens that PaliGemmaProcessor adds, as AutoTokenizer opens the folder;
 * PG_PROCESSOR_SENTENCEPIECE. */
pg_status pgi_tokenizer_open(const pgi_memory *memory, const char *folder, uint32_t flags, const pg_cancel *cancel,
                             pgi_tokenizer **out);

/* Fills a zeroed tokenizer whose `memory` is set. On error what was filled is still to be closed. */
pg_status pgi_tokenizer_load(pgi_tokenizer *tokenizer, const char *folder, uint32_t flags, const pg_cancel *cancel);

#endif
