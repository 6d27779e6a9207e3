/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The pieces of a tokenizer: text by id, and id by text. Ids are dense. */
#ifndef PGI_TOKENIZER_VOCAB_H
#define PGI_TOKENIZER_VOCAB_H

#include "base/hash.h"
#include "base/memory.h"

enum { PGI_MAX_IDS = 1 << 22 }; /* 16 times PaliGemma's; guards against ids that lie */

/* Bytes of one piece. Gemma's longest, 31 spaces, has 93. What is done with all prefixes of a piece, or with all tokens
 * that may begin at a byte of a text, is linear in the file and in the text thanks to this. */
enum { PGI_MAX_PIECE = 1024 };

#define PGI_NO_PIECE UINT32_MAX

typedef struct pgi_vocab_piece {
    uint32_t begin, size; /* where in the text, bytes; begin PGI_NO_PIECE: no piece has this id yet */
} pgi_vocab_piece;

typedef struct pgi_vocab {
    const pgi_memory *memory;
    pgi_buffer text;         /* the pieces one after the other, a NUL after each */
    pgi_vocab_piece *pieces; /* [n], by id */
    size_t n, capacity;
    size_t longest;   /* bytes of the longest piece */
    pgi_hash_key key; /* of the slots */
    uint64_t *slots;  /* [n_slots], open addressing: hash << 32 | id + 1, or 0 */
    size_t n_slots, n_used;
} pgi_vocab;

void pgi_vocab_init(pgi_vocab *vocab, const pgi_memory *memory);
void pgi_vocab_free(pgi_vocab *vocab);

/* Gives `id` its piece. `file` and `key` are for messages. PG_ERROR_FORMAT: the id or the text is taken;
 * PG_ERROR_LIMIT: the id, or a text of more than PGI_MAX_PIECE bytes. */
pg_status pgi_vocab_put(pgi_vocab *vocab, uint64_t id, const void *text, size_t size, const char *file,
                        const char *key);
/* PG_ERROR_FORMAT when an id below the largest has no piece. */
pg_status pgi_vocab_check(const pgi_vocab *vocab, const char *file, const char *key);

/* The id, or -1. */
int64_t pgi_vocab_find(const pgi_vocab *vocab, const void *text, size_t size);

/* The piece of id < n, NUL-terminated; *size may be NULL. */
static inline const char *pgi_vocab_text(const pgi_vocab *vocab, size_t id, size_t *size) {
    if (size) *size = vocab->pieces[id].size;
    return (const char *)vocab->text.data + vocab->pieces[id].begin;
}

#endif
