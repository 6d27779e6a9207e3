/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* What a byte pair encoding is made of besides its vocabulary: the list of merges, and settings. */
#ifndef PGI_TOKENIZER_MERGES_H
#define PGI_TOKENIZER_MERGES_H

#include "base/run.h"
#include "tokenizer/vocab.h"

/* Two neighbours that become one; its place in the list is its rank. */
typedef struct pgi_merge {
    uint32_t left, right, merged; /* ids */
} pgi_merge;

typedef struct pgi_merges {
    const pgi_memory *memory;
    pgi_merge *data;
    size_t size, capacity;
} pgi_merges;

void pgi_merges_init(pgi_merges *merges, const pgi_memory *memory);
void pgi_merges_free(pgi_merges *merges);
pg_status pgi_merges_push(pgi_merges *merges, pgi_merge merge);
/* The merges HF gives a tokenizer.model: each way to cut a piece in two pieces, in the order of the
 * pieces' ids, the shortest left part first (transformers 5.23, generate_merges). */
pg_status pgi_merges_generate(const pgi_vocab *vocab, const pg_cancel *cancel, pgi_merges *out);

enum { PGI_UNK_MISSING = -1, PGI_UNK_DROP = -2 };

typedef struct pgi_bpe_settings {
    int64_t unk_id;        /* PGI_UNK_MISSING: a character without piece or bytes is an error; PGI_UNK_DROP: left out */
    int byte_fallback;     /* characters without a piece become pieces <0x..> */
    int fuse_unk;          /* neighbouring unknown characters become one unk */
    const uint8_t *banned; /* [n_pieces], 1: text never becomes this piece (special tokens) */
    int by_sentencepiece;  /* 1: by sentencepiece where it gives the same ids */
} pgi_bpe_settings;

#endif
