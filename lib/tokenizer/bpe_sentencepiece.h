/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Byte pair encoding by sentencepiece, where that gives the ids of the list of merges. Part of builds with
 * -Dsentencepiece=enabled. */
#ifndef PGI_TOKENIZER_BPE_SENTENCEPIECE_H
#define PGI_TOKENIZER_BPE_SENTENCEPIECE_H

#include "tokenizer/id_list.h"
#include "tokenizer/merges.h"
#include "tokenizer/spm_wrapper.h"

/* *out is NULL when sentencepiece could give other ids than the list, or cannot be called in this process. */
pg_status pgi_bpe_sentencepiece_open(const pgi_memory *memory, const pgi_vocab *vocab, size_t n_pieces,
                                     const pgi_merges *merges, const pgi_bpe_settings *settings, pgi_spm **out);
/* As pgi_bpe_encode(), size > 0. */
pg_status pgi_bpe_sentencepiece_encode(const pgi_spm *spm, size_t n_pieces, const char *text, size_t size,
                                       pgi_id_list *out);

#endif
