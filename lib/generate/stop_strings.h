/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Stop strings: a row ends with the token in whose text one of them ends. */
#ifndef PGI_GENERATE_STOP_STRINGS_H
#define PGI_GENERATE_STOP_STRINGS_H

#include "tokenizer/tokenizer.h"

typedef struct pgi_stop_strings {
    const char *const *strings; /* [n], borrowed; none is empty */
    const pgi_tokenizer *tokenizer;
    int64_t n;
    size_t longest; /* bytes */
} pgi_stop_strings;

/* PG_ERROR_ARGUMENT: one is NULL, empty or no UTF-8. */
pg_status pgi_stop_strings_init(const char *const *strings, int64_t n, const pgi_tokenizer *tokenizer,
                                pgi_stop_strings *out);

/* The end of a row's text, as long as a stop string may be that is not complete yet. */
typedef struct pgi_stop_tail {
    pgi_buffer text;
} pgi_stop_tail;

/* Bytes of a stop string that memory is made for at first. A longer one is seldom, and there is a tail for each beam
 * and each that follows it: so theirs grow with the text. */
enum { PGI_FIRST_STOP_BYTES = 4096 };

/* Nothing is allocated after this, but for stop strings of more than PGI_FIRST_STOP_BYTES. After an error, too,
 * pgi_stop_tail_free() is due. ids [n]: those of the prompt. */
pg_status pgi_stop_tail_init(const pgi_stop_strings *stop, const int64_t *ids, int64_t n, const pgi_memory *memory,
                             pgi_stop_tail *tail);
/* Begins anew behind other ids. */
pg_status pgi_stop_tail_begin(pgi_stop_tail *tail, const pgi_stop_strings *stop, const int64_t *ids, int64_t n);
void pgi_stop_tail_free(pgi_stop_tail *tail);
/* *found: whether a stop string ends in the text of this token. */
pg_status pgi_stop_tail_push(pgi_stop_tail *tail, const pgi_stop_strings *stop, int64_t id, int *found);

#endif
