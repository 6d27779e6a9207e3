/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Reading JSON files through jansson, with messages that name the file and the key. */
#ifndef PGI_CHECKPOINT_JSON_H
#define PGI_CHECKPOINT_JSON_H

#include <jansson.h>

#include "base/memory.h"

/* Parses a whole file; its top level must be an object. Release with json_decref().
 * PG_ERROR_NOT_FOUND, _IO, _LIMIT, _FORMAT (the message has line and column). */
pg_status pgi_json_load(const pgi_memory *memory, const char *path, size_t max_size, json_t **out);

/* The same for `size` bytes that are in memory already; `path` is for the messages. */
pg_status pgi_json_parse(const char *path, const void *data, size_t size, json_t **out);

/* Appends compact JSON text of a node to `out`: independent of the locale, reals with 15 digits where those read back
 * the same, else 16 or 17. */
pg_status pgi_json_dump(const json_t *node, pgi_buffer *out);

/* Describes a node for messages: null, 3, "text", an array of 2, an object, nothing (NULL). Writes to `buffer`
 * (PGI_JSON_DESCRIPTION bytes are enough) and returns it. */
enum { PGI_JSON_DESCRIPTION = 64 };
const char *pgi_json_describe(const json_t *node, char *buffer, size_t size);

#endif
