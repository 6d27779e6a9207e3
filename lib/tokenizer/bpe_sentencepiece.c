/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Byte pair encoding by sentencepiece: makes a model of vocabulary and merges after checking that it gives the same ids
 * as the list of merges (bpe_list.c).
 */
#include "tokenizer/bpe_sentencepiece.h"

#include <string.h>

#include "base/utf8.h"
#include "tokenizer/bpe_list.h"
#include "tokenizer/spm_model.h"

static int is_char(const char *text, size_t size) { return size > 0 && pgi_utf8_char_size(text, size) == size; }

/* Facts about the pieces, for the checks before a sentencepiece model is made of them. */
typedef struct plan {
    const pgi_vocab *vocab;
    size_t n_pieces;
    const pgi_merges *merges;
    const pgi_bpe_settings *settings;
    int64_t byte_ids[256];
    int use_bytes;
    uint8_t *reachable; /* [n_pieces], 1: some merge makes it */
    uint32_t *n_splits; /* [n_pieces], merges that make it of symbols that can come about */
    uint8_t *loose;     /* [n_pieces], 1: a byte piece or unk, which stands for characters that it does not show */
    uint32_t *order;    /* [n_pieces], 1 for the pieces of the first merges, and so on; 0: none makes it */
} plan;

/* Characters, known or not, and what merges make: what can stand in the text while it is merged. */
static int is_symbol(const plan *p, const char *text, size_t size) {
    if (is_char(text, size)) return 1;
    int64_t id = pgi_vocab_find(p->vocab, text, size);
    return id >= 0 && (size_t)id < p->n_pieces && p->reachable[id];
}

/* The order of the pieces: sentencepiece has one score for a piece, so its merges must stand together in the list. */
static int order_pieces(plan *p) {
    uint32_t last = 0, order = 0;
    for (size_t i = 0; i < p->merges->size; i++) {
        const pgi_merge *m = &p->merges->data[i];
        if (!p->settings->banned[m->merged]) p->reachable[m->merged] = 1;
    }
    for (size_t i = 0; i < p->merges->size; i++) {
        const pgi_merge *m = &p->merges->data[i];
        size_t n_left, n_right;
        const char *left = pgi_vocab_text(p->vocab, m->left, &n_left);
        const char *right = pgi_vocab_text(p->vocab, m->right, &n_right);
        if (p->settings->banned[m->merged] || !is_symbol(p, left, n_left) || !is_symbol(p, right, n_right)) continue;
        p->n_splits[m->merged]++;
        if (order && last == m->merged) continue;
        if (p->order[m->merged]) return 0;
        p->order[last = m->merged] = ++order;
    }
    return 1;
}

/* sentencepiece merges every split of a piece into symbols; the list must have them all, and each once. */
static int splits_complete(const plan *p) {
    for (size_t id = 0; id < p->n_pieces; id++) {
        size_t size;
        const char *text = pgi_vocab_text(p->vocab, id, &size);
        if (size == 0) return 0;
        if (!p->reachable[id]) continue;
        uint32_t n = 0;
        for (size_t at = pgi_utf8_char_size(text, size); at < size; at += pgi_utf8_char_size(text + at, size - at))
            n += is_symbol(p, text, at) && is_symbol(p, text + at, size - at);
        if (n != p->n_splits[id]) return 0;
    }
    return 1;
}

/* sentencepiece wants all 256 byte pieces or none. Those that no character needs may be missing. */
static int bytes_complete(plan *p) {
    int n = 0;
    for (int byte = 0; byte < 256; byte++) n += p->byte_ids[byte] >= 0;
    p->use_bytes = p->settings->byte_fallback && n > 0;
    if (!p->use_bytes) /* then there must be an unknown piece, and sentencepiece fuses its runs */
        return p->settings->unk_id >= 0 && p->settings->fuse_unk;
    for (int byte = 0; byte < 256; byte++) {
        if (p->byte_ids[byte] >= 0) continue;
        if (byte == 0xC0 || byte == 0xC1 || byte >= 0xF5) continue; /* not in UTF-8 */
        char c = (char)byte;
        int64_t id = byte < 0x80 ? pgi_vocab_find(p->vocab, &c, 1) : -1; /* Gemma 1: "\t" instead of <0x09> */
        if (id < 0 || (size_t)id >= p->n_pieces || p->settings->banned[id]) return 0;
    }
    return 1;
}

/* sentencepiece only outputs byte pieces and unk; HF may merge them. */
static int bytes_and_unk_unmerged(plan *p) {
    for (int byte = 0; p->use_bytes && byte < 256; byte++)
        if (p->byte_ids[byte] >= 0) p->loose[p->byte_ids[byte]] = 1;
    if (p->settings->unk_id >= 0) {
        size_t size;
        const char *unk = pgi_vocab_text(p->vocab, (size_t)p->settings->unk_id, &size);
        if (is_char(unk, size)) return 0;
        p->loose[p->settings->unk_id] = 1;
    }
    for (size_t i = 0; i < p->merges->size; i++) {
        const pgi_merge *m = &p->merges->data[i];
        if (p->loose[m->left] || p->loose[m->right] || p->loose[m->merged]) return 0;
    }
    return 1;
}

/* A name that no piece has. */
static pg_status write_placeholder(const plan *p, pgi_buffer *name, int number, int type, pgi_buffer *out) {
    do {
        name->size = 0;
        PGI_TRY(pgi_buffer_printf(name, "\x01%d", number++));
    } while (pgi_vocab_find(p->vocab, name->data, name->size) >= 0);
    return pgi_spm_model_write_piece(out, (const char *)name->data, name->size, 0, type);
}

static pg_status write_model(const plan *p, uint8_t *types, pgi_buffer *out) {
    pgi_buffer name;
    pg_status status = PG_OK;
    int number = 0;
    pgi_buffer_init(&name, out->memory);
    for (size_t id = 0; id < p->n_pieces; id++) types[id] = p->order[id] ? PGI_PIECE_NORMAL : PGI_PIECE_CONTROL;
    for (int byte = 0; p->use_bytes && byte < 256; byte++)
        if (p->byte_ids[byte] >= 0) types[p->byte_ids[byte]] = PGI_PIECE_BYTE;
    if (p->settings->unk_id >= 0) types[p->settings->unk_id] = PGI_PIECE_UNKNOWN;
    for (size_t id = 0; id < p->n_pieces; id++) {
        size_t size;
        const char *text = pgi_vocab_text(p->vocab, id, &size);
        if (is_char(text, size) && p->settings->banned[id]) {
            /* As a character it would be found whatever its type is. */
            PGI_GOTO(write_placeholder(p, &name, number, PGI_PIECE_CONTROL, out), done);
            number += 1 << 8;
            continue;
        }
        if (is_char(text, size)) types[id] = PGI_PIECE_NORMAL;
        PGI_GOTO(pgi_spm_model_write_piece(out, text, size, -(float)p->order[id], types[id]), done);
    }
    /* What sentencepiece wants beyond n_pieces never comes out of it. */
    for (int byte = 0; p->use_bytes && byte < 256; byte++) {
        if (p->byte_ids[byte] >= 0) continue;
        name.size = 0;
        PGI_GOTO(pgi_buffer_printf(&name, "<0x%02X>", (unsigned)byte), done);
        PGI_GOTO(pgi_spm_model_write_piece(out, (const char *)name.data, name.size, 0, PGI_PIECE_BYTE), done);
    }
    if (p->settings->unk_id < 0) PGI_GOTO(write_placeholder(p, &name, number, PGI_PIECE_UNKNOWN, out), done);
    PGI_GOTO(pgi_spm_model_write_settings(out, p->use_bytes), done);
done:
    pgi_buffer_free(&name);
    return status;
}

static pg_status open_model(const pgi_memory *memory, plan *p, pgi_spm **out) {
    pgi_buffer model;
    char reason[256] = "";
    pg_status status = PG_ERROR_MEMORY;
    pgi_buffer_init(&model, memory);
    uint8_t *types = pgi_alloc(memory, p->n_pieces, 1);
    p->reachable = pgi_alloc_zero(memory, p->n_pieces, 1);
    p->loose = pgi_alloc_zero(memory, p->n_pieces, 1);
    p->n_splits = pgi_alloc_zero(memory, p->n_pieces, sizeof *p->n_splits);
    p->order = pgi_alloc_zero(memory, p->n_pieces, sizeof *p->order);
    if (!types || !p->reachable || !p->loose || !p->n_splits || !p->order) goto done;
    pgi_bpe_byte_ids(p->vocab, p->n_pieces, p->settings->banned, p->byte_ids);
    status = PG_OK;
    if (!order_pieces(p) || !splits_complete(p) || !bytes_complete(p) || !bytes_and_unk_unmerged(p)) goto done;
    PGI_GOTO(write_model(p, types, &model), done);
    int code = pgi_spm_open(model.data, model.size, out, reason, sizeof reason);
    if (code == PGI_SPM_MEMORY)
        status = pgi_error(PG_ERROR_MEMORY, "sentencepiece: out of memory");
    else if (code != PGI_SPM_OK)
        status = pgi_error(PG_ERROR_INTERNAL, "sentencepiece refuses the model made of the vocabulary: %s", reason);
done:
    pgi_buffer_free(&model);
    pgi_free(memory, types);
    pgi_free(memory, p->reachable);
    pgi_free(memory, p->loose);
    pgi_free(memory, p->n_splits);
    pgi_free(memory, p->order);
    return status;
}

pg_status pgi_bpe_sentencepiece_open(const pgi_memory *memory, const pgi_vocab *vocab, size_t n_pieces,
                                     const pgi_merges *merges, const pgi_bpe_settings *settings, pgi_spm **out) {
    plan p = {.vocab = vocab, .n_pieces = n_pieces, .merges = merges, .settings = settings};
    *out = NULL;
    return pgi_spm_usable() ? open_model(memory, &p, out) : PG_OK;
}

pg_status pgi_bpe_sentencepiece_encode(const pgi_spm *spm, size_t n_pieces, const char *text, size_t size,
                                       pgi_id_list *out) {
    char reason[256] = "";
    int32_t *ids;
    size_t n;
    pg_status status = PG_OK;
    if (size > INT32_MAX / 4) return pgi_error(PG_ERROR_LIMIT, "a text of %zu bytes is too long", size);
    int code = pgi_spm_encode(spm, text, size, &ids, &n, reason, sizeof reason);
    if (code != PGI_SPM_OK)
        return pgi_error(code == PGI_SPM_MEMORY ? PG_ERROR_MEMORY : PG_ERROR_INTERNAL, "sentencepiece: %s", reason);
    for (size_t i = 0; i < n && status >= 0; i++) {
        if (ids[i] < 0 || (size_t)ids[i] >= n_pieces)
            status = pgi_error(PG_ERROR_INTERNAL, "sentencepiece gave the id %d of %zu", ids[i], n_pieces);
        else
            status = pgi_id_list_push(out, ids[i]);
    }
    pgi_spm_free_ids(ids);
    return status;
}
