/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The fields of a JSON object, checked, with one form of message: "FILE: KEY: found ..., expected ...". */
#ifndef PGI_CHECKPOINT_JSON_FIELD_H
#define PGI_CHECKPOINT_JSON_FIELD_H

#include "checkpoint/json.h"

/* An object of a file. Everything is borrowed. */
typedef struct pgi_json_section {
    const char *path;       /* of the file */
    const char *prefix;     /* what stands before its keys in messages: "", "text_config.", "__metadata__: " */
    const pgi_json *object; /* NULL: no field is there */
} pgi_json_section;

/* The value, or NULL. */
const pgi_json *pgi_json_field(const pgi_json_section *section, const char *key);
/* The value when it is a string, else NULL. */
const char *pgi_json_field_text(const pgi_json_section *section, const char *key);
/* 1 when the value is there and not null. */
int pgi_json_field_is_set(const pgi_json_section *section, const char *key);

/* Required fields. PG_ERROR_FORMAT when they are not there or of another kind. */
pg_status pgi_json_field_bool(const pgi_json_section *section, const char *key, int32_t *out);    /* 0 or 1 */
pg_status pgi_json_field_positive(const pgi_json_section *section, const char *key, double *out); /* f32 holds it */
/* min to max; PG_ERROR_LIMIT above it. */
pg_status pgi_json_field_int(const pgi_json_section *section, const char *key, int64_t min, int64_t max, int32_t *out);

/* 1 and the value of an integer, or of a real that is one (2048.0, 1e4); else 0. */
int pgi_json_to_integer(const pgi_json *node, int64_t *out);

/* Returns `status`, with the message that the value of `key` is not what was expected. */
pg_status pgi_json_field_wrong(const pgi_json_section *section, pg_status status, const char *key,
                               const char *expected);
/* The same for what was found inside the value: `node`, NULL: nothing. */
pg_status pgi_json_field_wrong_node(const pgi_json_section *section, pg_status status, const char *key,
                                    const pgi_json *node, const char *expected);

#endif
