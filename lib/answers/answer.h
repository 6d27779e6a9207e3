/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* An answer as data: its text, its objects, their scores. The public handle is this struct. */
#ifndef PGI_ANSWERS_ANSWER_H
#define PGI_ANSWERS_ANSWER_H

#include <stdatomic.h>

#include "answers/parse.h"
#include "tokenizer/tokenizer.h"

struct pg_answer {
    atomic_int references;
    pgi_memory memory;
    int32_t width, height, convention; /* as the options say */
    pg_window window;                  /* what locs are fractions of, in pixels */
    pgi_buffer text;
    pgi_buffer labels;      /* each with a NUL behind it */
    pgi_found_list objects; /* object.label is set; everything as pg_answer_get_object() gives it */
};

/* Numbers of a window are at most this far from 0. */
#define PGI_MAX_WINDOW 4294967296.0

/* The ids of an answer, as they were generated. */
typedef struct pgi_answer_ids {
    const pgi_tokenizer *tokenizer;
    const int64_t *ids;     /* [n] */
    const float *log_probs; /* [n], or NULL: no scores */
    size_t n;
    int unfinished; /* the row did not end by eos */
} pgi_answer_ids;

/* options: complete and checked. On error *out needs no close. */
pg_status pgi_answer_from_ids(const pgi_memory *memory, const pgi_answer_ids *ids, const pg_answer_options *options,
                              pg_answer **out);
pg_status pgi_answer_from_text(const pgi_memory *memory, const char *text, size_t size,
                               const pg_answer_options *options, pg_answer **out);
pg_answer *pgi_answer_retain(const pg_answer *answer);
void pgi_answer_release(pg_answer *answer); /* NULL is ignored */

/* Sets PG_OBJECT_DUPLICATE and duplicate_of of the boxes of which a better one with the same label has an intersection
 * over union above max_iou. PG_ERROR_LIMIT: too many boxes to compare each with each. */
pg_status pgi_mark_duplicates(const pgi_memory *memory, pgi_found_list *objects, float max_iou);

#endif
