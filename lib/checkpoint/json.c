/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* JSON files through jansson. Its own memory is taken from the C library; the bytes of the file pass through ours. */
#include "checkpoint/json.h"

#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "checkpoint/diagnose.h"

pg_status pgi_json_parse(const char *path, const void *data, size_t size, json_t **out) {
    json_error_t error;
    *out = NULL;
    /* Two values under one key are refused: two readers might take different ones. */
    json_t *node = json_loadb(data ? data : "", size, JSON_REJECT_DUPLICATES, &error);
    if (!node) {
        if (json_error_code(&error) == json_error_out_of_memory)
            return pgi_error(PG_ERROR_MEMORY, "%s: out of memory while reading JSON", path);
        pg_status status = pgi_error(PG_ERROR_FORMAT, "%s: line %d, column %d: not valid JSON: %s", path, error.line,
                                     error.column, error.text);
        return pgi_diagnose_bytes(status, path, data, size);
    }
    if (!json_is_object(node)) {
        char found[PGI_JSON_DESCRIPTION];
        pgi_json_describe(node, found, sizeof found);
        json_decref(node);
        return pgi_error(PG_ERROR_FORMAT, "%s: found %s, expected a JSON object", path, found);
    }
    *out = node;
    return PG_OK;
}

pg_status pgi_json_load(const pgi_memory *memory, const char *path, size_t max_size, json_t **out) {
    pgi_buffer text;
    *out = NULL;
    pgi_buffer_init(&text, memory);
    pg_status status = pgi_file_read(path, max_size, &text);
    if (status >= 0) status = pgi_json_parse(path, text.data, text.size, out);
    pgi_buffer_free(&text);
    return status;
}

/* A number, a constant or a string, as jansson writes it (it undoes the locale's decimal point). */
static pg_status dump_leaf(const json_t *node, size_t flags, pgi_buffer *out) {
    size_t size = json_dumpb(node, NULL, 0, flags | JSON_ENCODE_ANY);
    if (size == 0) return pgi_error(PG_ERROR_MEMORY, "out of memory while writing JSON");
    PGI_TRY(pgi_buffer_reserve(out, size));
    json_dumpb(node, (char *)out->data + out->size, size, flags | JSON_ENCODE_ANY);
    out->size += size;
    out->data[out->size] = 0;
    return PG_OK;
}

/* With the fewest digits that read back as the same value: 1e-06 as "1e-6", not "9.9999999999999995e-7". */
static pg_status dump_real(const json_t *node, pgi_buffer *out) {
    for (size_t digits = 15; digits < 17; digits++) {
        char text[64];
        size_t size = json_dumpb(node, text, sizeof text, JSON_REAL_PRECISION(digits) | JSON_ENCODE_ANY);
        if (size == 0 || size > sizeof text) continue;
        json_t *back = json_loadb(text, size, JSON_DECODE_ANY, NULL);
        int same = back && json_number_value(back) == json_real_value(node);
        json_decref(back);
        if (same) return pgi_buffer_append(out, text, size);
    }
    return dump_leaf(node, JSON_REAL_PRECISION(17), out);
}

pg_status pgi_json_dump(const json_t *node, pgi_buffer *out) {
    if (json_is_real(node)) return dump_real(node, out);
    if (json_is_array(node)) {
        size_t n = json_array_size(node);
        PGI_TRY(pgi_buffer_append(out, "[", 1));
        for (size_t i = 0; i < n; i++) {
            if (i) PGI_TRY(pgi_buffer_append(out, ",", 1));
            PGI_TRY(pgi_json_dump(json_array_get(node, i), out));
        }
        return pgi_buffer_append(out, "]", 1);
    }
    if (json_is_object(node)) {
        int first = 1;
        PGI_TRY(pgi_buffer_append(out, "{", 1));
        /* The iterator does not change the object, though jansson's type says that it may. */
        json_t *object = (json_t *)(uintptr_t)node;
        for (void *at = json_object_iter(object); at; at = json_object_iter_next(object, at)) {
            if (!first) PGI_TRY(pgi_buffer_append(out, ",", 1));
            first = 0;
            json_t *key = json_string(json_object_iter_key(at));
            if (!key) return pgi_error(PG_ERROR_MEMORY, "out of memory while writing JSON");
            pg_status status = dump_leaf(key, 0, out);
            json_decref(key);
            PGI_TRY(status);
            PGI_TRY(pgi_buffer_append(out, ":", 1));
            PGI_TRY(pgi_json_dump(json_object_iter_value(at), out));
        }
        return pgi_buffer_append(out, "}", 1);
    }
    return dump_leaf(node, 0, out);
}

const char *pgi_json_describe(const json_t *node, char *buffer, size_t size) {
    if (!node) {
        snprintf(buffer, size, "nothing");
        return buffer;
    }
    switch (json_typeof(node)) {
        case JSON_NULL: snprintf(buffer, size, "null"); break;
        case JSON_TRUE: snprintf(buffer, size, "true"); break;
        case JSON_FALSE: snprintf(buffer, size, "false"); break;
        case JSON_ARRAY: snprintf(buffer, size, "an array of %zu", json_array_size(node)); break;
        case JSON_OBJECT: snprintf(buffer, size, "an object"); break;
        case JSON_STRING:
            snprintf(buffer, size, "\"%.40s%s\"", json_string_value(node), json_string_length(node) > 40 ? "..." : "");
            break;
        default: {
            char number[40];
            size_t n = json_dumpb(node, number, sizeof number - 1, JSON_ENCODE_ANY | JSON_REAL_PRECISION(9));
            number[n < sizeof number ? n : 0] = '\0';
            snprintf(buffer, size, "%s", number);
        }
    }
    return buffer;
}
