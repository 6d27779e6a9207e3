/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Pieces to text: Replace(U+2581, " ") and ByteFallback of HF's `tokenizers` (decoders/byte_fallback.rs). */
#include "tokenizer/piece.h"

#include <string.h>

#include "base/utf8.h"

static int hex_digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

int pgi_piece_byte(const char *piece, size_t size) {
    if (size != 6 || memcmp(piece, "<0x", 3) != 0 || piece[5] != '>') return -1;
    int high = piece[3] == '+' ? 0 : hex_digit(piece[3]), low = hex_digit(piece[4]); /* Rust's from_str_radix */
    return high < 0 || low < 0 ? -1 : high * 16 + low;
}

pg_status pgi_piece_append(const char *piece, size_t size, pgi_buffer *out) {
    PGI_TRY(pgi_buffer_reserve(out, size));
    for (size_t i = 0; i < size;) {
        int is_space = size - i >= 3 && memcmp(piece + i, "\xE2\x96\x81", 3) == 0;
        out->data[out->size++] = is_space ? ' ' : (uint8_t)piece[i];
        i += is_space ? 3 : 1;
    }
    out->data[out->size] = 0;
    return PG_OK;
}

pg_status pgi_piece_append_bytes(const uint8_t *bytes, size_t size, pgi_buffer *out) {
    if (pgi_utf8_valid_prefix(bytes, size) == size) return pgi_buffer_append(out, bytes, size);
    for (size_t i = 0; i < size; i++) PGI_TRY(pgi_buffer_append(out, "\xEF\xBF\xBD", 3));
    return PG_OK;
}
