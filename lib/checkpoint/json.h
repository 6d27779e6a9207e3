/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Small JSON files as trees, with messages that name the file and the place. The values of a tree live in a document,
 * and go with it all at once; so does what is made or changed.
 */
#ifndef PGI_CHECKPOINT_JSON_H
#define PGI_CHECKPOINT_JSON_H

#include "base/memory.h"
#include "checkpoint/json_reader.h"

typedef enum pgi_json_kind {
    PGI_JSON_NULL = 1,
    PGI_JSON_FALSE,
    PGI_JSON_TRUE,
    PGI_JSON_INTEGER, /* of 64 bits */
    PGI_JSON_REAL,    /* finite */
    PGI_JSON_STRING,
    PGI_JSON_ARRAY,
    PGI_JSON_OBJECT
} pgi_json_kind;

/* A value. Copies of an array or object are the same array or object. */
typedef struct pgi_json {
    uint32_t kind; /* pgi_json_kind */
    uint32_t size; /* bytes of a string, items of an array */
    union {
        int64_t integer;
        double real;
        const char *text; /* UTF-8, with a NUL behind */
        struct pgi_json *items;
        struct pgi_json_object *object;
    } as;
} pgi_json;

typedef struct pgi_json_doc {
    const pgi_memory *memory;
    struct pgi_json_block *blocks; /* the newest first */
    size_t n_values;               /* that were read */
} pgi_json_doc;

void pgi_json_doc_init(pgi_json_doc *doc, const pgi_memory *memory);
void pgi_json_doc_empty(pgi_json_doc *doc); /* its values are gone, some memory stays for the next ones */
void pgi_json_doc_free(pgi_json_doc *doc);  /* zeroed is fine */

/* All documents: PG_ERROR_LIMIT for more values, or deeper ones (PGI_JSON_MAX_DEPTH). Published folders have some
 * thousand values in a file. */
enum { PGI_JSON_MAX_VALUES = 200000 };

typedef enum pgi_json_rules {
    /* One reading alone: refused are two values under one key, U+0000, and integers of more than 64 bits. */
    PGI_JSON_STRICT,
    /* As Python reads: of two values under one key the later counts, and large integers are reals;
     * tokenizer_config.json holds 10^30. U+0000 may stand in values. */
    PGI_JSON_AS_PYTHON
} pgi_json_rules;

/* Reads a whole file of at most max_size bytes; its top level must be an object. *out lives in `doc`.
 * PG_ERROR_NOT_FOUND, _IO, _LIMIT, _FORMAT (the message has line and column), _MEMORY. */
pg_status pgi_json_load(pgi_json_doc *doc, const char *path, size_t max_size, pgi_json_rules rules,
                        const pgi_json **out);
/* The same for `size` bytes that are in memory already; `path` is for the messages. */
pg_status pgi_json_parse(pgi_json_doc *doc, const char *path, const void *data, size_t size, pgi_json_rules rules,
                         const pgi_json **out);
/* The next value of a reader, of any kind. */
pg_status pgi_json_read(pgi_json_doc *doc, pgi_json_reader *reader, pgi_json_rules rules, const pgi_json **out);

/* ---- looking: a node may be NULL, which is nothing ---- */

int pgi_json_is(const pgi_json *node, pgi_json_kind kind);
int pgi_json_is_number(const pgi_json *node);
int pgi_json_is_boolean(const pgi_json *node);
int pgi_json_is_set(const pgi_json *node); /* there, and not null */

int64_t pgi_json_integer(const pgi_json *node);                      /* 0 of all but integers */
double pgi_json_number(const pgi_json *node);                        /* 0 of all but integers and reals */
const char *pgi_json_text(const pgi_json *node);                     /* NULL of all but strings */
size_t pgi_json_text_size(const pgi_json *node);                     /* in bytes; 0 of all but strings */
size_t pgi_json_n_items(const pgi_json *node);                       /* 0 of all but arrays */
size_t pgi_json_n_members(const pgi_json *node);                     /* 0 of all but objects */
const pgi_json *pgi_json_item(const pgi_json *node, size_t i);       /* NULL: none */
const pgi_json *pgi_json_get(const pgi_json *node, const char *key); /* likewise */
const pgi_json *pgi_json_get_part(const pgi_json *node, const char *key, size_t size); /* of the key's first bytes */
/* Member i of n, in the order of the file. */
const pgi_json *pgi_json_member(const pgi_json *node, size_t i, const char **key);

/* ---- making ---- */

pgi_json pgi_json_of_text(const char *text); /* kept as it is */
pgi_json pgi_json_of_integer(int64_t value);
pgi_json pgi_json_of_real(double value); /* finite */
pg_status pgi_json_new_object(pgi_json_doc *doc, pgi_json *out);
pg_status pgi_json_new_array(pgi_json_doc *doc, size_t n, pgi_json *out); /* of n nulls, at as.items */
/* The same value, of memory of `doc` alone. */
pg_status pgi_json_copy(pgi_json_doc *doc, const pgi_json *node, pgi_json *out);
pg_status pgi_json_copy_text(pgi_json_doc *doc, const char *text, size_t size, const char **out);
/* Puts a value under a key, in the place of one that is there. The key is kept as it is. */
pg_status pgi_json_set(pgi_json_doc *doc, const pgi_json *object, const char *key, pgi_json value);
void pgi_json_remove(const pgi_json *object, const char *key);

/* ---- telling ---- */

/* Appends compact JSON text of a node to `out`: independent of the locale, reals with 15 digits where those read back
 * the same, else 16 or 17. */
pg_status pgi_json_dump(const pgi_json *node, pgi_buffer *out);

/* Describes a node for messages: null, 3, "text", an array of 2, an object, nothing (NULL). Writes to `buffer`
 * (PGI_JSON_DESCRIPTION bytes are enough) and returns it. */
enum { PGI_JSON_DESCRIPTION = 64 };
const char *pgi_json_describe(const pgi_json *node, char *buffer, size_t size);

#endif
