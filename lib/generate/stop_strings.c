/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Stop strings as HF matches them (StopStringCriteria): by the bytes that each token stands for, special tokens as they
 * are written, bytes of an unfinished character included. An id that the tokenizer does not have breaks every match.
 */
#include "generate/stop_strings.h"

#include <string.h>

#include "base/utf8.h"
#include "tokenizer/piece.h"

pg_status pgi_stop_strings_init(const char *const *strings, int64_t n, const pgi_tokenizer *tokenizer,
                                pgi_stop_strings *out) {
    *out = (pgi_stop_strings){.strings = strings, .n = n, .tokenizer = tokenizer};
    for (int64_t i = 0; i < n; i++) {
        const size_t size = strings[i] ? strlen(strings[i]) : 0;
        if (size == 0)
            return pgi_error(PG_ERROR_ARGUMENT, "stop_strings[%lld] is %s, expected a text of at least one character",
                             (long long)i, strings[i] ? "empty" : "NULL");
        const size_t valid = pgi_utf8_valid_prefix((const uint8_t *)strings[i], size);
        if (valid < size)
            return pgi_error(PG_ERROR_ARGUMENT,
                             "stop_strings[%lld] is not valid UTF-8: byte %zu is 0x%02X, expected UTF-8", (long long)i,
                             valid, (unsigned)(uint8_t)strings[i][valid]);
        if (size > out->longest) out->longest = size;
    }
    return PG_OK;
}

/* Appends what the token stands for; what an id without a piece follows is forgotten. */
static pg_status append(const pgi_tokenizer *tokenizer, int64_t id, pgi_buffer *text) {
    if (id < 0 || (uint64_t)id >= tokenizer->vocab.n) {
        text->size = 0;
        return PG_OK;
    }
    size_t size;
    const char *piece = pgi_vocab_text(&tokenizer->vocab, (size_t)id, &size);
    const int byte = pgi_piece_byte(piece, size);
    if (byte < 0) return pgi_piece_append(piece, size, text);
    return pgi_buffer_append(text, &(uint8_t){(uint8_t)byte}, 1);
}

/* Keeps the last `size` bytes, once there are twice as many: each byte is moved once at most. */
static void keep_end(pgi_buffer *text, size_t size) {
    if (text->size / 2 <= size) return;
    memmove(text->data, text->data + text->size - size, size);
    text->size = size;
}

pg_status pgi_stop_tail_init(const pgi_stop_strings *stop, const int64_t *ids, int64_t n, const pgi_memory *memory,
                             pgi_stop_tail *tail) {
    const size_t longest = stop->longest < PGI_FIRST_STOP_BYTES ? stop->longest : PGI_FIRST_STOP_BYTES;
    pgi_buffer_init(&tail->text, memory);
    PGI_TRY(pgi_buffer_reserve(&tail->text, 2 * longest + pgi_tokenizer_longest_text(stop->tokenizer)));
    return pgi_stop_tail_begin(tail, stop, ids, n);
}

pg_status pgi_stop_tail_begin(pgi_stop_tail *tail, const pgi_stop_strings *stop, const int64_t *ids, int64_t n) {
    tail->text.size = 0;
    const int64_t most = (int64_t)stop->longest; /* tokens that can reach into a match: each has a byte */
    for (int64_t i = n > most ? n - most : 0; i < n; i++) {
        PGI_TRY(append(stop->tokenizer, ids[i], &tail->text));
        keep_end(&tail->text, stop->longest - 1);
    }
    return PG_OK;
}

void pgi_stop_tail_free(pgi_stop_tail *tail) { pgi_buffer_free(&tail->text); }

/* Whether `text` has `string` at a place that ends behind its first `before` bytes. */
static int ends_behind(const pgi_buffer *text, size_t before, const char *string) {
    const size_t size = strlen(string);
    for (size_t end = before + 1 > size ? before + 1 : size; end <= text->size; end++)
        if (memcmp(text->data + end - size, string, size) == 0) return 1;
    return 0;
}

pg_status pgi_stop_tail_push(pgi_stop_tail *tail, const pgi_stop_strings *stop, int64_t id, int *found) {
    const size_t before = tail->text.size;
    PGI_TRY(append(stop->tokenizer, id, &tail->text));
    *found = 0;
    for (int64_t i = 0; i < stop->n && !*found; i++) *found = ends_behind(&tail->text, before, stop->strings[i]);
    keep_end(&tail->text, stop->longest - 1);
    return PG_OK;
}
