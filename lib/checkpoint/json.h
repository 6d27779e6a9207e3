/* Reading JSON files through jansson, with messages that name the file and the key. */
#ifndef PGI_CHECKPOINT_JSON_H
#define PGI_CHECKPOINT_JSON_H

#include <jansson.h>

#include "base/memory.h"

/* Parses a whole file; its top level must be an object. Release with json_decref().
 * PG_ERROR_NOT_FOUND, _IO, _LIMIT, _FORMAT (the message has line and column). */
pg_status pgi_json_load(const pgi_memory *memory, const char *path, size_t max_size, json_t **out);

/* Compact JSON text of a node appended to `out`, independent of the locale. */
pg_status pgi_json_dump(const json_t *node, pgi_buffer *out);

/* What a node is, for messages: "null", "a string", "the number 3", ... in a static or caller buffer. */
const char *pgi_json_describe(const json_t *node, char *buffer, size_t size);

#endif
