/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Pieces of the vocabulary to text, as the decoder of HF's `tokenizers` does it. */
#ifndef PGI_TOKENIZER_PIECE_H
#define PGI_TOKENIZER_PIECE_H

#include "base/memory.h"

/* The byte that a piece <0x..> stands for, or -1. */
int pgi_piece_byte(const char *piece, size_t size);
/* Appends the text of a piece that is no byte: U+2581 as a space. */
pg_status pgi_piece_append(const char *piece, size_t size, pgi_buffer *out);
/* Appends a whole run of byte pieces: the text, or U+FFFD for each byte when it is not UTF-8. */
pg_status pgi_piece_append_bytes(const uint8_t *bytes, size_t size, pgi_buffer *out);

#endif
