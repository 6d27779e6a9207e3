/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The text of a safetensors header, as the safetensors crate writes it but for the padding. */
#include "checkpoint/tensor_header_text.h"

#include <string.h>

#include "base/shape.h"
#include "checkpoint/json.h"

pg_status pgi_header_text_begin(pgi_buffer *text) {
    text->size = 0;
    return pgi_buffer_append(text, "\0\0\0\0\0\0\0", 8);
}

pg_status pgi_header_text_key(pgi_buffer *text, const char *prefix, const char *name) {
    size_t begin = text->size + 1;
    PGI_TRY(pgi_buffer_append(text, ",", 1));
    const pgi_json string = pgi_json_of_text(name);
    PGI_TRY(pgi_json_dump(&string, text)); /* "name" */
    size_t n = strlen(prefix);
    PGI_TRY(pgi_buffer_reserve(text, n));
    memmove(text->data + begin + 1 + n, text->data + begin + 1, text->size - begin - 1);
    memcpy(text->data + begin + 1, prefix, n);
    text->size += n;
    text->data[text->size] = 0;
    return PG_OK;
}

pg_status pgi_header_text_tensor(pgi_buffer *text, const char *name, const char *dtype, int32_t n_dims,
                                 const int64_t *shape, uint64_t begin, uint64_t end) {
    char list[PGI_SHAPE_TEXT];
    PGI_TRY(pgi_header_text_key(text, "", name));
    return pgi_buffer_printf(text, ":{\"dtype\":\"%s\",\"shape\":%s,\"data_offsets\":[%llu,%llu]}", dtype,
                             pgi_shape_text(n_dims, shape, ",", list), (unsigned long long)begin,
                             (unsigned long long)end);
}

pg_status pgi_header_text_finish(pgi_buffer *text) {
    while (text->size % 64) PGI_TRY(pgi_buffer_append(text, " ", 1));
    const uint64_t size = text->size - 8;
    for (int i = 0; i < 8; i++) text->data[i] = (uint8_t)(size >> (8 * i));
    return PG_OK;
}
