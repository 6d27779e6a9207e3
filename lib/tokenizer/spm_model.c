/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Reading and writing the protocol buffers of a sentencepiece model. */
#include "tokenizer/spm_model.h"

#include <string.h>

#include "base/utf8.h"

enum { WIRE_VARINT = 0, WIRE_FIXED64 = 1, WIRE_BYTES = 2, WIRE_FIXED32 = 5 };

/* Field numbers of sentencepiece_model.proto. */
enum { MODEL_PIECES = 1, MODEL_TRAINER_SPEC = 2, MODEL_NORMALIZER_SPEC = 3 };
enum { PIECE_TEXT = 1, PIECE_SCORE = 2, PIECE_TYPE = 3 };
enum { TRAINER_MODEL_TYPE = 3, TRAINER_BYTE_FALLBACK = 35 };
enum { NORMALIZER_ADD_DUMMY_PREFIX = 3, NORMALIZER_REMOVE_EXTRA_WHITESPACES = 4, NORMALIZER_ESCAPE_WHITESPACES = 5 };

typedef struct field {
    uint32_t number, wire;
    uint64_t value;       /* WIRE_VARINT */
    const uint8_t *bytes; /* WIRE_BYTES */
    size_t size;
} field;

static int read_varint(const uint8_t **at, const uint8_t *end, uint64_t *value) {
    *value = 0;
    for (unsigned shift = 0; shift < 64 && *at < end; shift += 7) {
        uint8_t byte = *(*at)++;
        *value |= (uint64_t)(byte & 0x7F) << shift;
        if (byte < 0x80) return 1;
    }
    return 0;
}

/* 0 when what stands at *at is no whole field. */
static int read_field(const uint8_t **at, const uint8_t *end, field *out) {
    uint64_t tag, size;
    if (!read_varint(at, end, &tag) || tag >> 3 == 0 || tag > UINT32_MAX) return 0;
    *out = (field){.number = (uint32_t)(tag >> 3), .wire = (uint32_t)(tag & 7)};
    if (out->wire == WIRE_VARINT) return read_varint(at, end, &out->value);
    if (out->wire == WIRE_BYTES) {
        if (!read_varint(at, end, &size)) return 0;
    } else if (out->wire == WIRE_FIXED64 || out->wire == WIRE_FIXED32) {
        size = out->wire == WIRE_FIXED64 ? 8 : 4;
    } else {
        return 0;
    }
    if (size > (uint64_t)(end - *at)) return 0;
    out->bytes = *at;
    out->size = (size_t)size;
    *at += size;
    return 1;
}

static pg_status read_piece(const char *file, const field *message, pgi_vocab *vocab, pgi_buffer *types) {
    const uint8_t *at = message->bytes, *end = at + message->size;
    field text = {0}, part;
    uint64_t type = PGI_PIECE_NORMAL;
    while (at < end) {
        if (!read_field(&at, end, &part))
            return pgi_error(PG_ERROR_FORMAT, "%s: the piece %zu is damaged", file, vocab->n);
        if (part.number == PIECE_TEXT && part.wire == WIRE_BYTES) text = part;
        if (part.number == PIECE_TYPE && part.wire == WIRE_VARINT) type = part.value;
    }
    if (text.size == 0) return pgi_error(PG_ERROR_FORMAT, "%s: the piece %zu has no text", file, vocab->n);
    if (pgi_utf8_valid_prefix(text.bytes, text.size) != text.size)
        return pgi_error(PG_ERROR_FORMAT, "%s: the piece %zu is not valid UTF-8", file, vocab->n);
    if (type < PGI_PIECE_NORMAL || type > PGI_PIECE_BYTE)
        return pgi_error(PG_ERROR_FORMAT, "%s: the piece %zu has the type %llu, expected 1 to 6", file, vocab->n,
                         (unsigned long long)type);
    uint8_t byte = (uint8_t)type;
    PGI_TRY(pgi_vocab_put(vocab, vocab->n, text.bytes, text.size, file, "pieces"));
    return pgi_buffer_append(types, &byte, 1);
}

pg_status pgi_spm_model_read(const char *file, const uint8_t *bytes, size_t size, pgi_vocab *vocab, pgi_buffer *types) {
    const uint8_t *at = bytes, *end = bytes + size;
    field part;
    while (at < end) {
        size_t offset = (size_t)(at - bytes);
        if (!read_field(&at, end, &part))
            return pgi_error(PG_ERROR_FORMAT,
                             "%s: byte %zu: found a damaged or truncated field, expected a "
                             "sentencepiece model",
                             file, offset);
        if (part.number != MODEL_PIECES) continue;
        if (part.wire != WIRE_BYTES)
            return pgi_error(PG_ERROR_FORMAT, "%s: byte %zu: found wire type %u, expected a piece", file, offset,
                             part.wire);
        PGI_TRY(read_piece(file, &part, vocab, types));
    }
    if (vocab->n == 0) return pgi_error(PG_ERROR_FORMAT, "%s: found no pieces, expected a sentencepiece model", file);
    return PG_OK;
}

static size_t put_varint(uint8_t *out, uint64_t value) {
    size_t n = 0;
    for (; value >= 0x80; value >>= 7) out[n++] = (uint8_t)(value | 0x80);
    out[n++] = (uint8_t)value;
    return n;
}

pg_status pgi_spm_model_write_piece(pgi_buffer *out, const char *text, size_t size, float score, int type) {
    uint8_t head[32], tail[8], length[16];
    uint32_t bits;
    memcpy(&bits, &score, sizeof bits);
    tail[0] = PIECE_SCORE << 3 | WIRE_FIXED32;
    for (int i = 0; i < 4; i++) tail[1 + i] = (uint8_t)(bits >> 8 * i);
    tail[5] = PIECE_TYPE << 3 | WIRE_VARINT;
    tail[6] = (uint8_t)type;
    size_t n_length = put_varint(length, size), n = 0;
    head[n++] = MODEL_PIECES << 3 | WIRE_BYTES;
    n += put_varint(head + n, 1 + n_length + size + 7);
    head[n++] = PIECE_TEXT << 3 | WIRE_BYTES;
    memcpy(head + n, length, n_length);
    n += n_length;
    PGI_TRY(pgi_buffer_append(out, head, n));
    PGI_TRY(pgi_buffer_append(out, text, size));
    return pgi_buffer_append(out, tail, 7);
}

pg_status pgi_spm_model_write_settings(pgi_buffer *out, int byte_fallback) {
    enum { BPE = 2 };
    uint8_t trainer[16],
        normalizer[] = {NORMALIZER_ADD_DUMMY_PREFIX << 3,   0, NORMALIZER_REMOVE_EXTRA_WHITESPACES << 3, 0,
                        NORMALIZER_ESCAPE_WHITESPACES << 3, 0};
    size_t n = 0;
    trainer[n++] = TRAINER_MODEL_TYPE << 3;
    trainer[n++] = BPE;
    n += put_varint(trainer + n, TRAINER_BYTE_FALLBACK << 3);
    trainer[n++] = byte_fallback != 0;
    uint8_t head[2] = {MODEL_TRAINER_SPEC << 3 | WIRE_BYTES, (uint8_t)n};
    PGI_TRY(pgi_buffer_append(out, head, 2));
    PGI_TRY(pgi_buffer_append(out, trainer, n));
    head[0] = MODEL_NORMALIZER_SPEC << 3 | WIRE_BYTES;
    head[1] = sizeof normalizer;
    PGI_TRY(pgi_buffer_append(out, head, 2));
    return pgi_buffer_append(out, normalizer, sizeof normalizer);
}
