/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Byte pair encoding by the list of merges (HF: tokenizers, models/bpe/model.rs and word.rs). */
#include "tokenizer/bpe_list.h"

#include <stdio.h>
#include <string.h>

#include "base/utf8.h"

enum { CANCEL_STEPS = 4096 };

/* A stretch of the text; merged ones hang together by prev and next. */
typedef struct symbol {
    uint32_t id;
    int32_t prev, next; /* -1: none */
    int32_t merged;     /* 1: now part of the symbol before it */
} symbol;

/* A pair that may be merged, in a heap: lowest rank first, then leftmost. */
typedef struct candidate {
    uint32_t rank, merged;
    int32_t at; /* the left symbol */
} candidate;

typedef struct word {
    symbol *symbols;
    size_t n_symbols;
    candidate *heap; /* [3 x n_symbols]: one for each pair at first, two more for each merge */
    size_t n_heap;
} word;

static size_t find_slot(const pgi_bpe_list *list, uint32_t left, uint32_t right) {
    size_t mask = ((size_t)1 << list->n_bits) - 1;
    for (size_t i = (size_t)(pgi_hash_pair(&list->key, left, right) >> (64 - list->n_bits));; i = (i + 1) & mask) {
        if (!list->slots[i]) return i;
        const pgi_merge *merge = &list->merges.data[list->slots[i] - 1];
        if (merge->left == left && merge->right == right) return i;
    }
}

void pgi_bpe_byte_ids(const pgi_vocab *vocab, size_t n_pieces, const uint8_t *banned, int64_t ids[256]) {
    for (int byte = 0; byte < 256; byte++) {
        char piece[8];
        snprintf(piece, sizeof piece, "<0x%02X>", (unsigned)byte);
        int64_t id = pgi_vocab_find(vocab, piece, 6);
        ids[byte] = id >= 0 && (size_t)id < n_pieces && !banned[id] ? id : -1;
    }
}

pg_status pgi_bpe_list_init(pgi_bpe_list *list, const pgi_memory *memory, const pgi_vocab *vocab, size_t n_pieces,
                            const pgi_merges *merges, const pgi_bpe_settings *settings) {
    *list = (pgi_bpe_list){.memory = memory,
                           .vocab = vocab,
                           .n_pieces = n_pieces,
                           .key = pgi_hash_key_new(),
                           .n_bits = 4,
                           .unk_id = settings->unk_id,
                           .byte_fallback = settings->byte_fallback,
                           .fuse_unk = settings->fuse_unk};
    pgi_merges_init(&list->merges, memory);
    while ((size_t)1 << list->n_bits < merges->size * 2) list->n_bits++;
    list->slots = pgi_alloc_zero(memory, (size_t)1 << list->n_bits, sizeof *list->slots);
    list->banned = pgi_alloc(memory, n_pieces, 1);
    if (!list->slots || !list->banned) return PG_ERROR_MEMORY;
    if (n_pieces) memcpy(list->banned, settings->banned, n_pieces);
    pgi_bpe_byte_ids(vocab, n_pieces, list->banned, list->byte_ids);
    for (size_t i = 0; i < merges->size; i++) {
        PGI_TRY(pgi_merges_push(&list->merges, merges->data[i]));
        if (list->banned[merges->data[i].merged]) continue;
        /* Of a pair that stands there twice the later counts, as in a map that is filled in order. */
        list->slots[find_slot(list, merges->data[i].left, merges->data[i].right)] = (uint32_t)i + 1;
    }
    return PG_OK;
}

void pgi_bpe_list_free(pgi_bpe_list *list) {
    if (!list->memory) return;
    pgi_merges_free(&list->merges);
    pgi_free(list->memory, list->slots);
    pgi_free(list->memory, list->banned);
    *list = (pgi_bpe_list){.memory = list->memory};
}

static int before(const candidate *a, const candidate *b) {
    return a->rank != b->rank ? a->rank < b->rank : a->at < b->at;
}

static void push(word *w, candidate c) {
    size_t i = w->n_heap++;
    for (; i > 0 && before(&c, &w->heap[(i - 1) / 2]); i = (i - 1) / 2) w->heap[i] = w->heap[(i - 1) / 2];
    w->heap[i] = c;
}

static candidate pop(word *w) {
    candidate top = w->heap[0], last = w->heap[--w->n_heap];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < w->n_heap; i = child) {
        if (child + 1 < w->n_heap && before(&w->heap[child + 1], &w->heap[child])) child++;
        if (!before(&w->heap[child], &last)) break;
        w->heap[i] = w->heap[child];
    }
    w->heap[i] = last;
    return top;
}

/* Puts the pair of `left` and the symbol after it on the heap when it is in the list. */
static void consider(const pgi_bpe_list *list, word *w, int32_t left) {
    if (left < 0 || w->symbols[left].next < 0) return;
    uint32_t found = list->slots[find_slot(list, w->symbols[left].id, w->symbols[w->symbols[left].next].id)];
    if (found) push(w, (candidate){.rank = found - 1, .merged = list->merges.data[found - 1].merged, .at = left});
}

static pg_status merge_all(const pgi_bpe_list *list, const pg_cancel *cancel, word *w) {
    for (size_t i = 0; i + 1 < w->n_symbols; i++) consider(list, w, (int32_t)i);
    for (size_t i = 1; w->n_heap; i++) {
        if (i % CANCEL_STEPS == 0) PGI_TRY(pgi_cancel_check(cancel));
        candidate top = pop(w);
        symbol *left = &w->symbols[top.at];
        if (left->merged || left->next < 0) continue;
        symbol *right = &w->symbols[left->next];
        uint32_t found = list->slots[find_slot(list, left->id, right->id)];
        /* The pair may be another by now; it counts as long as it gives the same piece. */
        if (!found || list->merges.data[found - 1].merged != top.merged) continue;
        left->id = top.merged;
        left->next = right->next;
        right->merged = 1;
        if (right->next >= 0) w->symbols[right->next].prev = top.at;
        consider(list, w, left->prev);
        consider(list, w, top.at);
    }
    return PG_OK;
}

static void add_symbol(word *w, int64_t id) {
    int32_t at = (int32_t)w->n_symbols++;
    w->symbols[at] = (symbol){.id = (uint32_t)id, .prev = at - 1, .next = -1};
    if (at > 0) w->symbols[at - 1].next = at;
}

static int has_bytes(const pgi_bpe_list *list, const uint8_t *text, size_t size) {
    int all = list->byte_fallback;
    for (size_t i = 0; i < size; i++) all = all && list->byte_ids[text[i]] >= 0;
    return all;
}

static pg_status no_piece(const pgi_bpe_list *list, uint32_t code) {
    if (list->unk_id >= 0 || list->unk_id == PGI_UNK_DROP) return PG_OK;
    return pgi_error(PG_ERROR_UNSUPPORTED,
                     "the text has the character U+%04X, for which the tokenizer has neither a "
                     "piece nor bytes nor an unknown piece",
                     code);
}

/* The first symbols: characters, byte pieces, unk (merge_word() in model.rs). As there, an unknown
 * character that waits to be fused waits past byte pieces too. */
static pg_status split(const pgi_bpe_list *list, const pg_cancel *cancel, const uint8_t *text, size_t size, word *w) {
    size_t next_look = CANCEL_STEPS;
    int unk_waits = 0;
    uint32_t code = 0;
    for (size_t at = 0, n; at < size; at += n) {
        n = pgi_utf8_next(text + at, size - at, &code);
        if (at >= next_look) {
            PGI_TRY(pgi_cancel_check(cancel));
            next_look = at + CANCEL_STEPS;
        }
        if (n == 0) return pgi_error(PG_ERROR_INTERNAL, "text is not valid UTF-8 at byte %zu", at);
        int64_t id = pgi_vocab_find(list->vocab, text + at, n);
        if (id >= 0 && (size_t)id < list->n_pieces) {
            if (unk_waits) add_symbol(w, list->unk_id);
            unk_waits = 0;
            add_symbol(w, id);
            continue;
        }
        if (has_bytes(list, text + at, n)) {
            for (size_t i = 0; i < n; i++) add_symbol(w, list->byte_ids[text[at + i]]);
            continue;
        }
        PGI_TRY(no_piece(list, code));
        if (list->unk_id < 0) continue;
        if (unk_waits && !list->fuse_unk) add_symbol(w, list->unk_id);
        unk_waits = 1;
    }
    if (unk_waits) add_symbol(w, list->unk_id);
    return PG_OK;
}

static pg_status put(const pgi_bpe_list *list, uint32_t id, pgi_id_list *out) {
    if (!list->banned[id] || id == list->unk_id) return pgi_id_list_push(out, id);
    /* A banned character that nothing was merged with. */
    size_t size;
    uint32_t code = 0;
    const uint8_t *text = (const uint8_t *)pgi_vocab_text(list->vocab, id, &size);
    if (!has_bytes(list, text, size)) {
        pgi_utf8_next(text, size, &code);
        PGI_TRY(no_piece(list, code));
        return list->unk_id >= 0 ? pgi_id_list_push(out, list->unk_id) : PG_OK;
    }
    for (size_t i = 0; i < size; i++) PGI_TRY(pgi_id_list_push(out, list->byte_ids[text[i]]));
    return PG_OK;
}

pg_status pgi_bpe_list_encode(const pgi_bpe_list *list, const char *text, size_t size, pgi_id_list *out) {
    word w = {0};
    pg_status status = PG_ERROR_MEMORY;
    if (size > INT32_MAX / 4) return pgi_error(PG_ERROR_LIMIT, "a text of %zu bytes is too long", size);
    w.symbols = pgi_alloc(list->memory, size + 1, sizeof *w.symbols);
    w.heap = pgi_alloc(list->memory, size + 1, 3 * sizeof *w.heap);
    if (!w.symbols || !w.heap) goto done;
    PGI_GOTO(split(list, out->cancel, (const uint8_t *)text, size, &w), done);
    PGI_GOTO(merge_all(list, out->cancel, &w), done);
    for (size_t i = 0; i < w.n_symbols; i++)
        if (!w.symbols[i].merged) PGI_GOTO(put(list, w.symbols[i].id, out), done);
    status = PG_OK;
done:
    pgi_free(list->memory, w.symbols);
    pgi_free(list->memory, w.heap);
    return status;
}
