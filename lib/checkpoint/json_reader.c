/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads JSON by RFC 8259, strictly: valid UTF-8, no control characters in strings, no lone surrogates, no trailing
 * commas. Whoever reads deeper than one container counts the depth: PGI_JSON_MAX_DEPTH is what a small stack holds.
 */
#include "checkpoint/json_reader.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/utf8.h"

void pgi_json_reader_init(pgi_json_reader *reader, const pgi_memory *memory, const char *file, const void *data,
                          size_t size) {
    *reader = (pgi_json_reader){.file = file, .data = data, .size = size, .max_values = SIZE_MAX};
    pgi_buffer_init(&reader->text, memory);
}

void pgi_json_reader_free(pgi_json_reader *reader) { pgi_buffer_free(&reader->text); }

pg_status pgi_json_error(const pgi_json_reader *reader, pg_status status, const char *format, ...) {
    size_t line = 1, column = 1;
    for (size_t i = 0; i < reader->at && i < reader->size; i++) {
        if ((reader->data[i] & 0xC0) != 0x80) column++; /* characters, as editors count */
        if (reader->data[i] == '\n') {
            line++;
            column = 1;
        }
    }
    char text[256];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    return pgi_error(status, "%s: %s%sline %zu, column %zu: %s%s", reader->file, reader->key ? reader->key : "",
                     reader->key ? ": " : "", line, column, reader->is_whole ? "not valid JSON: " : "", text);
}

pg_status pgi_json_expected(const pgi_json_reader *reader, const char *expected) {
    char found[32] = "the end of the file";
    if (reader->at < reader->size) {
        uint8_t byte = reader->data[reader->at];
        if (byte >= 0x20 && byte < 0x7F) {
            memcpy(found, "' '", 4);
            found[1] = (char)byte;
        } else {
            static const char digits[] = "0123456789ABCDEF";
            memcpy(found, "the byte 0x..", 14);
            found[11] = digits[byte >> 4];
            found[12] = digits[byte & 15];
        }
    }
    return pgi_json_error(reader, PG_ERROR_FORMAT, "found %s, expected %s", found, expected);
}

static pg_status too_many(const pgi_json_reader *reader) {
    return pgi_error(PG_ERROR_LIMIT, "%s: found more than %zu values, expected at most that many", reader->file,
                     reader->max_values);
}

pg_status pgi_json_too_deep(const pgi_json_reader *reader) {
    return pgi_json_error(reader, PG_ERROR_LIMIT, "found values nested deeper than %d, expected at most that depth",
                          PGI_JSON_MAX_DEPTH);
}

int pgi_json_peek(pgi_json_reader *reader) {
    while (reader->at < reader->size) {
        uint8_t byte = reader->data[reader->at];
        if (byte != ' ' && byte != '\n' && byte != '\r' && byte != '\t') return byte;
        reader->at++;
    }
    return 0;
}

/* Takes `byte` when it comes next. */
static int take(pgi_json_reader *reader, char byte) {
    if (pgi_json_peek(reader) != byte) return 0;
    reader->at++;
    return 1;
}

pg_status pgi_json_open(pgi_json_reader *reader, char opener) {
    if (take(reader, opener)) return PG_OK;
    return pgi_json_expected(reader, opener == '{' ? "an object" : "an array");
}

pg_status pgi_json_next(pgi_json_reader *reader, char opener, int *first, int *more) {
    PGI_TRY(pgi_cancel_check(reader->cancel));
    *more = !take(reader, opener == '{' ? '}' : ']');
    if (!*more) return PG_OK;
    if (++reader->n_values > reader->max_values) return too_many(reader);
    if (!*first && !take(reader, ',')) return pgi_json_expected(reader, opener == '{' ? "',' or '}'" : "',' or ']'");
    *first = 0;
    if (opener == '[') return PG_OK;
    return pgi_json_key(reader);
}

pg_status pgi_json_key(pgi_json_reader *reader) {
    if (pgi_json_peek(reader) != '"') return pgi_json_expected(reader, "a key");
    reader->key_at = reader->at;
    PGI_TRY(pgi_json_string(reader));
    return take(reader, ':') ? PG_OK : pgi_json_expected(reader, "':'");
}

/* Four hexadecimal digits, or -1. */
static int32_t hex4(const pgi_json_reader *reader, size_t at) {
    if (reader->size - at < 4) return -1;
    int32_t value = 0;
    for (size_t i = at; i < at + 4; i++) {
        int byte = reader->data[i], lower = byte | 0x20;
        if (byte >= '0' && byte <= '9')
            value = value * 16 + byte - '0';
        else if (lower >= 'a' && lower <= 'f')
            value = value * 16 + lower - 'a' + 10;
        else
            return -1;
    }
    return value;
}

/* The escape whose backslash is at reader->at. */
static pg_status read_escape(pgi_json_reader *reader) {
    static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
    if (reader->size - reader->at < 2) return pgi_json_expected(reader, "a whole escape");
    char letter = (char)reader->data[reader->at + 1];
    if (letter != 'u') {
        const char *found = letter ? strchr(names, letter) : NULL;
        if (!found) return pgi_json_expected(reader, "a valid escape");
        reader->at += 2;
        return pgi_buffer_append(&reader->text, &values[found - names], 1);
    }
    int32_t code = hex4(reader, reader->at + 2);
    if (code < 0) return pgi_json_expected(reader, "\\u and four hexadecimal digits");
    size_t length = 6;
    if (code >= 0xD800 && code < 0xE000) {
        int32_t low = -1;
        if (code < 0xDC00 && reader->size - reader->at >= 12 && memcmp(reader->data + reader->at + 6, "\\u", 2) == 0)
            low = hex4(reader, reader->at + 8);
        if (low < 0xDC00 || low >= 0xE000) return pgi_json_expected(reader, "a whole surrogate pair");
        code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
        length = 12;
    }
    uint8_t bytes[4];
    size_t n = pgi_utf8_encode((uint32_t)code, bytes);
    reader->at += length;
    return pgi_buffer_append(&reader->text, bytes, n);
}

pg_status pgi_json_string(pgi_json_reader *reader) {
    if (!take(reader, '"')) return pgi_json_expected(reader, "a string");
    reader->text.size = 0;
    PGI_TRY(pgi_buffer_reserve(&reader->text, 1));
    for (;;) {
        size_t begin = reader->at;
        while (reader->at < reader->size) {
            uint8_t byte = reader->data[reader->at];
            if (byte == '"' || byte == '\\' || byte < 0x20) break;
            size_t n = pgi_utf8_next(reader->data + reader->at, reader->size - reader->at, NULL);
            if (n == 0) return pgi_json_expected(reader, "valid UTF-8");
            reader->at += n;
        }
        PGI_TRY(pgi_buffer_append(&reader->text, reader->data + begin, reader->at - begin));
        if (reader->at == reader->size || reader->data[reader->at] < 0x20)
            return pgi_json_expected(reader, "the end of the string");
        if (reader->data[reader->at] == '"') {
            reader->at++;
            return PG_OK;
        }
        PGI_TRY(read_escape(reader));
    }
}

static int is_digit(const pgi_json_reader *reader) {
    return reader->at < reader->size && reader->data[reader->at] >= '0' && reader->data[reader->at] <= '9';
}

pg_status pgi_json_uint(pgi_json_reader *reader, uint64_t *value) {
    pgi_json_peek(reader);
    size_t begin = reader->at;
    *value = 0;
    for (; is_digit(reader) && reader->at - begin < 18; reader->at++)
        *value = *value * 10 + (uint64_t)(reader->data[reader->at] - '0');
    int more = is_digit(reader) || (reader->at < reader->size && memchr(".eE", reader->data[reader->at], 3));
    if (reader->at == begin || more || (reader->data[begin] == '0' && reader->at - begin > 1)) {
        reader->at = begin;
        return pgi_json_expected(reader, "a whole number of 0 or more");
    }
    return PG_OK;
}

static pg_status skip_digits(pgi_json_reader *reader) {
    if (!is_digit(reader)) return pgi_json_expected(reader, "a digit");
    while (is_digit(reader)) reader->at++;
    return PG_OK;
}

pg_status pgi_json_number_text(pgi_json_reader *reader, size_t *begin, int *is_real) {
    pgi_json_peek(reader);
    *begin = reader->at;
    *is_real = 0;
    if (reader->at < reader->size && reader->data[reader->at] == '-') reader->at++;
    if (is_digit(reader) && reader->data[reader->at] == '0')
        reader->at++;
    else
        PGI_TRY(skip_digits(reader));
    if (reader->at < reader->size && reader->data[reader->at] == '.') {
        *is_real = 1;
        reader->at++;
        PGI_TRY(skip_digits(reader));
    }
    if (reader->at < reader->size && (reader->data[reader->at] | 0x20) == 'e') {
        *is_real = 1;
        reader->at++;
        if (reader->at < reader->size && (reader->data[reader->at] == '+' || reader->data[reader->at] == '-'))
            reader->at++;
        PGI_TRY(skip_digits(reader));
    }
    return PG_OK;
}

pg_status pgi_json_word(pgi_json_reader *reader, pgi_json_words *out) {
    static const char *const words[] = {[PGI_WORD_NULL] = "null", [PGI_WORD_FALSE] = "false", [PGI_WORD_TRUE] = "true"};
    pgi_json_peek(reader);
    for (int i = PGI_WORD_NULL; i <= PGI_WORD_TRUE; i++) {
        const size_t n = strlen(words[i]);
        if (reader->size - reader->at < n || memcmp(reader->data + reader->at, words[i], n) != 0) continue;
        reader->at += n;
        *out = (pgi_json_words)i;
        return PG_OK;
    }
    return pgi_json_expected(reader, "a value");
}

static pg_status skip_value(pgi_json_reader *reader, int depth) {
    size_t begin;
    int is_real;
    pgi_json_words word;
    PGI_TRY(pgi_cancel_check(reader->cancel));
    const int byte = pgi_json_peek(reader);
    if (byte == '"') return pgi_json_string(reader);
    if (byte == '-' || (byte >= '0' && byte <= '9')) return pgi_json_number_text(reader, &begin, &is_real);
    if (byte != '{' && byte != '[') return pgi_json_word(reader, &word);
    if (depth == PGI_JSON_MAX_DEPTH) return pgi_json_too_deep(reader);
    int first = 1, more;
    PGI_TRY(pgi_json_open(reader, (char)byte));
    for (;;) {
        PGI_TRY(pgi_json_next(reader, (char)byte, &first, &more));
        if (!more) return PG_OK;
        PGI_TRY(skip_value(reader, depth + 1));
    }
}

pg_status pgi_json_skip(pgi_json_reader *reader, size_t *begin, size_t *end) {
    pgi_json_peek(reader);
    if (begin) *begin = reader->at;
    PGI_TRY(skip_value(reader, 0));
    if (end) *end = reader->at;
    return PG_OK;
}

pg_status pgi_json_end(pgi_json_reader *reader) {
    pgi_json_peek(reader);
    return reader->at == reader->size ? PG_OK : pgi_json_expected(reader, "the end of the file");
}
