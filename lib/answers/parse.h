/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The grammar of answers with <loc> and <seg> (docs/ANSWERS.md): a text to the objects that it names. */
#ifndef PGI_ANSWERS_PARSE_H
#define PGI_ANSWERS_PARSE_H

#include "base/memory.h"

/* Bytes of a text. */
typedef struct pgi_span {
    size_t begin, end; /* equal: nothing */
} pgi_span;

enum { PGI_BOX_LOCS = 4, PGI_POINT_LOCS = 2, PGI_MASK_SEGS = 16, PGI_MAX_LOC = 1023, PGI_MAX_SEG = 127 };

/* An object, and where its parts stand. */
typedef struct pgi_found {
    pg_object object;             /* flags, locs, segs, text_begin, text_size; the rest is zero or "none" */
    pgi_span locs, label, before; /* before: the text in front of it in its part */
} pgi_found;

typedef struct pgi_found_list {
    const pgi_memory *memory;
    pgi_found *data;
    size_t n, capacity;
} pgi_found_list;

/* Appends the objects in `text` (valid UTF-8) in their order. points: two locs are an object, not four. unfinished: the
 * text was broken off. Time and memory grow with the text and no faster. */
pg_status pgi_answer_parse(const uint8_t *text, size_t size, int points, int unfinished, pgi_found_list *out);

#endif
