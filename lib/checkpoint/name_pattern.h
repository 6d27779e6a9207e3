/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether the name of a module matches a regular expression of Python's re, with the answer of re.fullmatch() or of
 * re.match(): how PEFT finds the modules that its adapter_config.json means.
 *
 * Of the syntax there are literals and escapes (\. \- \n), . and classes, \d \w \s \D \W \S, groups (also (?: ) and
 * (?P<name> )), |, the quantifiers * + ? {m} {m,} {,n} {m,n} and their lazy forms, and ^ $ \A \Z \b \B. Others that
 * Python has are refused, and so are characters beyond ASCII in classes. Elsewhere such a character is one character,
 * and none of \d, \w or \s; where Python knows it for a letter or a digit, the answer may be another. An empty name
 * has no \B, as before Python 3.14.
 */
#ifndef PGI_CHECKPOINT_NAME_PATTERN_H
#define PGI_CHECKPOINT_NAME_PATTERN_H

#include <stddef.h>

#include "base/memory.h"

enum {
    PGI_NAME_PATTERN_MAX_SIZE = 4096,          /* bytes of the text */
    PGI_NAME_PATTERN_MAX_DEPTH = 32,           /* of groups in groups */
    PGI_NAME_PATTERN_MAX_INSTRUCTIONS = 65536, /* with counted repetitions written out */
};

typedef struct pgi_name_pattern pgi_name_pattern;

/* where: what messages begin with, "FILE: KEY". *out is NULL unless PG_OK is returned; pgi_name_pattern_free() it.
 * PG_ERROR_FORMAT: Python's re refuses the text, too. PG_ERROR_UNSUPPORTED: a construct that is not in the list above.
 * PG_ERROR_LIMIT: one of the limits. Messages name the pattern (its beginning), the construct, and the byte from 0 on
 * at which it is. */
pg_status pgi_name_pattern_compile(const pgi_memory *memory, const char *where, const char *pattern, size_t size,
                                   pgi_name_pattern **out);
void pgi_name_pattern_free(pgi_name_pattern *pattern); /* NULL is ignored */

/* Its instructions: what a match takes for each byte of a name, at most. */
size_t pgi_name_pattern_size(const pgi_name_pattern *pattern);

/* Whether the pattern matches the whole name (re.fullmatch), or, is_whole being 0, some beginning of it (re.match).
 * It takes a time of instructions x size at most, and nothing is allocated: it works in room of the pattern's own, so
 * that one thread at a time may ask one pattern. Bytes that are no UTF-8 are matched by nothing. */
int pgi_name_pattern_matches(pgi_name_pattern *pattern, const char *name, size_t size, int is_whole);

#endif
