/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The vocabulary: one text with all pieces in it, a table by id, and a hash table that finds ids by their text. */
#include "tokenizer/vocab.h"

#include <string.h>

void pgi_vocab_init(pgi_vocab *vocab, const pgi_memory *memory) {
    *vocab = (pgi_vocab){.memory = memory, .key = pgi_hash_key_new()};
    pgi_buffer_init(&vocab->text, memory);
}

void pgi_vocab_free(pgi_vocab *vocab) {
    if (!vocab->memory) return;
    pgi_buffer_free(&vocab->text);
    pgi_free(vocab->memory, vocab->pieces);
    pgi_free(vocab->memory, vocab->slots);
    *vocab = (pgi_vocab){.memory = vocab->memory, .key = vocab->key};
}

static uint32_t hash(const pgi_vocab *vocab, const uint8_t *text, size_t size) {
    return (uint32_t)pgi_hash_bytes(&vocab->key, text, size);
}

/* The slot that holds `text`, or the empty one where it belongs. Pieces are spread over memory and most texts that are
 * looked up are no pieces, so a piece is compared only when its hash is equal. */
static size_t find_slot(const pgi_vocab *vocab, const uint8_t *text, size_t size, uint32_t h) {
    size_t mask = vocab->n_slots - 1;
    for (size_t i = h & mask;; i = (i + 1) & mask) {
        uint64_t entry = vocab->slots[i];
        if (!entry) return i;
        if (entry >> 32 != h) continue;
        const pgi_vocab_piece *piece = &vocab->pieces[(uint32_t)entry - 1];
        if (piece->size == size && (size == 0 || memcmp(vocab->text.data + piece->begin, text, size) == 0)) return i;
    }
}

static pg_status grow_slots(pgi_vocab *vocab) {
    size_t n_slots = vocab->n_slots ? vocab->n_slots * 2 : 1024, mask = n_slots - 1;
    uint64_t *slots = pgi_alloc_zero(vocab->memory, n_slots, sizeof *slots), *old = vocab->slots;
    if (!slots) return PG_ERROR_MEMORY;
    for (size_t i = 0; i < vocab->n_slots; i++) {
        if (!old[i]) continue;
        size_t slot = (old[i] >> 32) & mask;
        while (slots[slot]) slot = (slot + 1) & mask;
        slots[slot] = old[i];
    }
    vocab->slots = slots;
    vocab->n_slots = n_slots;
    pgi_free(vocab->memory, old);
    return PG_OK;
}

static pg_status grow_ids(pgi_vocab *vocab, size_t n) {
    PGI_TRY(pgi_grow(vocab->memory, &vocab->pieces, &vocab->capacity, n, sizeof *vocab->pieces));
    while (vocab->n < n) vocab->pieces[vocab->n++] = (pgi_vocab_piece){.begin = PGI_NO_PIECE};
    return PG_OK;
}

pg_status pgi_vocab_put(pgi_vocab *vocab, uint64_t id, const void *text, size_t size, const char *file,
                        const char *key) {
    int shown = size < 60 ? (int)size : 60;
    if (id >= PGI_MAX_IDS)
        return pgi_error(PG_ERROR_LIMIT, "%s: %s: \"%.*s\" has the id %llu, expected less than %d", file, key, shown,
                         (const char *)text, (unsigned long long)id, (int)PGI_MAX_IDS);
    if (size > PGI_MAX_PIECE)
        return pgi_error(PG_ERROR_LIMIT, "%s: %s: found a piece of %zu bytes, \"%.*s...\", expected at most %d", file,
                         key, size, shown, (const char *)text, (int)PGI_MAX_PIECE);
    if (size >= PGI_NO_PIECE - vocab->text.size - 1)
        return pgi_error(PG_ERROR_LIMIT, "%s: %s: more than 4 GiB of pieces", file, key);
    if (vocab->n_used * 2 >= vocab->n_slots) PGI_TRY(grow_slots(vocab));
    const uint32_t h = hash(vocab, text, size);
    size_t slot = find_slot(vocab, text, size, h);
    if (vocab->slots[slot])
        return pgi_error(PG_ERROR_FORMAT, "%s: %s: the piece \"%.*s\" stands there twice, as %u and as %llu", file, key,
                         shown, (const char *)text, (uint32_t)vocab->slots[slot] - 1, (unsigned long long)id);
    if (id >= vocab->n) PGI_TRY(grow_ids(vocab, (size_t)id + 1));
    if (vocab->pieces[id].begin != PGI_NO_PIECE)
        return pgi_error(PG_ERROR_FORMAT, "%s: %s: the id %llu is both \"%.60s\" and \"%.*s\"", file, key,
                         (unsigned long long)id, pgi_vocab_text(vocab, (size_t)id, NULL), shown, (const char *)text);
    size_t begin = vocab->text.size;
    PGI_TRY(pgi_buffer_append(&vocab->text, text, size));
    PGI_TRY(pgi_buffer_append(&vocab->text, "", 1));
    vocab->pieces[id] = (pgi_vocab_piece){(uint32_t)begin, (uint32_t)size};
    vocab->slots[slot] = (uint64_t)h << 32 | ((uint32_t)id + 1);
    vocab->n_used++;
    if (size > vocab->longest) vocab->longest = size;
    return PG_OK;
}

pg_status pgi_vocab_check(const pgi_vocab *vocab, const char *file, const char *key) {
    if (vocab->n == 0) return pgi_error(PG_ERROR_FORMAT, "%s: %s is empty, expected pieces", file, key);
    for (size_t i = 0; i < vocab->n; i++)
        if (vocab->pieces[i].begin == PGI_NO_PIECE)
            return pgi_error(PG_ERROR_FORMAT, "%s: %s: no piece has the id %zu, expected one for each id below %zu",
                             file, key, i, vocab->n);
    return PG_OK;
}

int64_t pgi_vocab_find(const pgi_vocab *vocab, const void *text, size_t size) {
    if (!vocab->n_slots) return -1;
    uint32_t entry = (uint32_t)vocab->slots[find_slot(vocab, text, size, hash(vocab, text, size))];
    return (int64_t)entry - 1;
}
