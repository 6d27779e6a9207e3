/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The JSON reader of every file: it walks a document once without building a tree. json.h makes small trees with it.
 * PaliGemma's tokenizer.json has 34 MB, and a tree of it would take ten times as much memory.
 */
#ifndef PGI_CHECKPOINT_JSON_READER_H
#define PGI_CHECKPOINT_JSON_READER_H

#include "base/memory.h"
#include "base/run.h"

typedef struct pgi_json_reader {
    const char *file; /* for messages */
    const uint8_t *data;
    size_t size, at;
    const char *key; /* what is being read, such as "model.vocab", for messages; NULL: nothing in particular */
    int is_whole;    /* 1: messages say "not valid JSON" */
    size_t key_at;   /* where the key read last stands */
    size_t n_values, max_values; /* members and items so far, and the most: PG_ERROR_LIMIT; at first no limit */
    pgi_buffer text;             /* the string or key read last */
    const pg_cancel *cancel;     /* looked at before each element; may be NULL */
} pgi_json_reader;

/* `data` is borrowed. */
void pgi_json_reader_init(pgi_json_reader *reader, const pgi_memory *memory, const char *file, const void *data,
                          size_t size);
void pgi_json_reader_free(pgi_json_reader *reader);

/* The first byte of the next value ('{', '[', '"', 't', 'f', 'n', '-' or a digit), or 0 at the end. */
int pgi_json_peek(pgi_json_reader *reader);

/* Containers: open, then next until *more is 0. `opener` is '{' or '['. *first, owned by the
 * caller, starts as 1. In an object, next leaves the key in reader->text. */
pg_status pgi_json_open(pgi_json_reader *reader, char opener);
pg_status pgi_json_next(pgi_json_reader *reader, char opener, int *first, int *more);

/* A key and its colon, where a key stands. */
pg_status pgi_json_key(pgi_json_reader *reader);

pg_status pgi_json_string(pgi_json_reader *reader); /* into reader->text, UTF-8, may hold NUL */
pg_status pgi_json_uint(pgi_json_reader *reader, uint64_t *value);

/* Passes over any value, checked; *begin and *end (may be NULL) say where it stands. */
pg_status pgi_json_skip(pgi_json_reader *reader, size_t *begin, size_t *end);

/* The text of a number: from *begin to reader->at. *is_real: it has a fraction or an exponent. */
pg_status pgi_json_number_text(pgi_json_reader *reader, size_t *begin, int *is_real);

typedef enum pgi_json_words { PGI_WORD_NULL, PGI_WORD_FALSE, PGI_WORD_TRUE } pgi_json_words;
pg_status pgi_json_word(pgi_json_reader *reader, pgi_json_words *out);

/* Nothing but white space may follow. */
pg_status pgi_json_end(pgi_json_reader *reader);

/* Containers in each other: more are PG_ERROR_LIMIT. */
enum { PGI_JSON_MAX_DEPTH = 32 };
pg_status pgi_json_too_deep(const pgi_json_reader *reader);

/* The message "file: key: line ..., column ...: " with what follows. */
pg_status pgi_json_error(const pgi_json_reader *reader, pg_status status, const char *format, ...) PGI_PRINTF(3, 4);
/* PG_ERROR_FORMAT "file: key: line ..., column ...: found ..., expected ...". */
pg_status pgi_json_expected(const pgi_json_reader *reader, const char *expected);

#endif
