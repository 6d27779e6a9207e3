/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Byte pair encoding that follows a list of merges to the letter (HF: tokenizers, models/bpe/word.rs). */
#ifndef PGI_TOKENIZER_BPE_LIST_H
#define PGI_TOKENIZER_BPE_LIST_H

#include "tokenizer/id_list.h"
#include "tokenizer/merges.h"

typedef struct pgi_bpe_list {
    const pgi_memory *memory;
    const pgi_vocab *vocab;
    size_t n_pieces;
    int64_t unk_id, byte_ids[256]; /* -1: none */
    int byte_fallback, fuse_unk;
    uint8_t *banned;   /* [n_pieces] */
    pgi_merges merges; /* by rank */
    pgi_hash_key key;  /* of the slots */
    uint32_t *slots;   /* [1 << n_bits], open addressing by (left, right): rank + 1, or 0 */
    int n_bits;
} pgi_bpe_list;

pg_status pgi_bpe_list_init(pgi_bpe_list *list, const pgi_memory *memory, const pgi_vocab *vocab, size_t n_pieces,
                            const pgi_merges *merges, const pgi_bpe_settings *settings);
void pgi_bpe_list_free(pgi_bpe_list *list);
pg_status pgi_bpe_list_encode(const pgi_bpe_list *list, const char *text, size_t size, pgi_id_list *out);

/* The ids of the 256 pieces <0x00> to <0xFF>, -1 where there is none. */
void pgi_bpe_byte_ids(const pgi_vocab *vocab, size_t n_pieces, const uint8_t *banned, int64_t ids[256]);

#endif
