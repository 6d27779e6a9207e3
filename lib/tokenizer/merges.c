/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The list of merges: growing it, and deriving it from a vocabulary (transformers 5.23: generate_merges). */
#include "tokenizer/merges.h"

#include "base/utf8.h"

void pgi_merges_init(pgi_merges *merges, const pgi_memory *memory) { *merges = (pgi_merges){.memory = memory}; }

void pgi_merges_free(pgi_merges *merges) {
    if (merges->memory) pgi_free(merges->memory, merges->data);
    *merges = (pgi_merges){.memory = merges->memory};
}

pg_status pgi_merges_push(pgi_merges *merges, pgi_merge merge) {
    if (merges->size == INT32_MAX) return pgi_error(PG_ERROR_LIMIT, "more than %d merges", INT32_MAX);
    PGI_TRY(pgi_grow(merges->memory, &merges->data, &merges->capacity, merges->size + 1, sizeof merge));
    merges->data[merges->size++] = merge;
    return PG_OK;
}

pg_status pgi_merges_generate(const pgi_vocab *vocab, const pg_cancel *cancel, pgi_merges *out) {
    for (size_t id = 0; id < vocab->n; id++) {
        size_t size;
        const char *text = pgi_vocab_text(vocab, id, &size);
        PGI_TRY(pgi_cancel_check(cancel));
        for (size_t at = pgi_utf8_char_size(text, size); at < size; at += pgi_utf8_char_size(text + at, size - at)) {
            int64_t left = pgi_vocab_find(vocab, text, at);
            if (left < 0) continue;
            int64_t right = pgi_vocab_find(vocab, text + at, size - at);
            if (right < 0) continue;
            PGI_TRY(pgi_merges_push(out, (pgi_merge){(uint32_t)left, (uint32_t)right, (uint32_t)id}));
        }
    }
    return PG_OK;
}
