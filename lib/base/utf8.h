/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* UTF-8 as Unicode 15 table 3-7 defines it: no surrogates, no overlong forms, at most U+10FFFF. */
#ifndef PGI_BASE_UTF8_H
#define PGI_BASE_UTF8_H

#include <stddef.h>
#include <stdint.h>

/* The length in bytes (1 to 4) of the character at `text`, or 0 when the bytes
 * there are no complete valid character. *code (may be NULL) receives the code point. */
size_t pgi_utf8_next(const uint8_t *text, size_t size, uint32_t *code);

/* The offset of the first byte that is not part of a valid character, or `size`. */
size_t pgi_utf8_valid_prefix(const uint8_t *text, size_t size);

/* Writes the 1 to 4 bytes of `code` to `out` and returns their number. */
size_t pgi_utf8_encode(uint32_t code, uint8_t out[4]);

/* Bytes of the first character of a text that is valid UTF-8; 0 of an empty one. */
size_t pgi_utf8_char_size(const char *text, size_t size);

#endif
