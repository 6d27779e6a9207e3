/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Which token may follow in an answer to "detect" or "segment" that is to stay well-formed (docs/ANSWERS.md). */
#ifndef PGI_ANSWERS_DETECT_MASK_H
#define PGI_ANSWERS_DETECT_MASK_H

#include "tokenizer/tokenizer.h"

typedef struct pgi_detect_mask {
    const pgi_memory *memory;
    int64_t vocab_size;
    uint8_t *kinds;  /* [vocab_size] what a token can be in an answer */
    int16_t *values; /* [vocab_size] of locs */
    int32_t most;    /* the largest loc of the vocabulary */
    int32_t n_segs;  /* behind each box: 0 or PGI_MASK_SEGS */
} pgi_detect_mask;

/* vocab_size: of the logits. masks: each box has its 16 segs. is_eos(user, id): whether the id ends a row.
 * PG_ERROR_UNSUPPORTED: a vocabulary in which no box, or no mask, can be written. After an error too,
 * pgi_detect_mask_free() is due. */
pg_status pgi_detect_mask_init(const pgi_tokenizer *tokenizer, int64_t vocab_size, int masks,
                               int (*is_eos)(const void *user, int64_t id), const void *user, const pgi_memory *memory,
                               pgi_detect_mask *mask);
void pgi_detect_mask_free(pgi_detect_mask *mask);

/* -INFINITY for every token that may not follow ids [n], the answer so far; at least one may. */
void pgi_detect_mask_apply(const pgi_detect_mask *mask, const int64_t *ids, size_t n, float *logits);

#endif
