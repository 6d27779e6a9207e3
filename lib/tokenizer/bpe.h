/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Byte pair encoding as HF's `tokenizers` does it (models/bpe): by the list of merges. With
 * PG_PROCESSOR_SENTENCEPIECE by sentencepiece where that gives the same ids: the vocabulary and merges become a
 * sentencepiece model in memory. sentencepiece merges any two neighbours whose concatenation is a piece, HF only the
 * pairs in its list, in the list's order; where the two could differ, the list is followed all the same. It is no
 * default: a malloc that it is refused can end the process.
 */
#ifndef PGI_TOKENIZER_BPE_H
#define PGI_TOKENIZER_BPE_H

#include "tokenizer/id_list.h"
#include "tokenizer/merges.h"

typedef struct pgi_bpe pgi_bpe;

/* Ids below n_pieces are the model's. `vocab` must outlive the result; the merges are copied where needed. */
pg_status pgi_bpe_create(const pgi_memory *memory, const pgi_vocab *vocab, size_t n_pieces, const pgi_merges *merges,
                         const pgi_bpe_settings *settings, pgi_bpe **out);
void pgi_bpe_close(pgi_bpe **bpe);

/* 1: sentencepiece does the work; 0: the list is followed. */
int pgi_bpe_uses_sentencepiece(const pgi_bpe *bpe);

/* Appends the ids of a text: valid UTF-8, spaces replaced already. */
pg_status pgi_bpe_encode(const pgi_bpe *bpe, const char *text, size_t size, pgi_id_list *out);

#endif
