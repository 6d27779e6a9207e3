/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * An answer to "detect" or "segment" as a small automaton:
 *
 *     [ box label { " ; " box label } ] eos        box: y0 x0 y1 x1 with y1 > y0 and x1 > x0
 *     [ box segs label { " ; " box segs label } ] eos, or box segs eos        segs: 16
 *
 * An answer with masks may end without a label, as those of RefCOCO do.
 * A label is text without ';', '<', '>' and control characters that is more than white space. What follows depends on
 * the tokens so far alone, so there is no state to keep.
 */
#include "answers/detect_mask.h"

#include <math.h>
#include <string.h>

#include "answers/parse.h"
#include "tokenizer/piece.h"

enum { FORBIDDEN, LOC, SEG, TEXT, SPACE, SEPARATOR, END }; /* kinds of tokens */

/* Text of a label, or what stands between objects. */
static uint8_t kind_of_text(const char *text, size_t size) {
    size_t n_spaces = 0, n_semicolons = 0;
    for (size_t i = 0; i < size; i++) {
        const unsigned char c = (unsigned char)text[i];
        if (c < ' ' || c == '<' || c == '>' || c == 0x7F) return FORBIDDEN;
        n_spaces += c == ' ';
        n_semicolons += c == ';';
    }
    if (n_spaces + n_semicolons < size) return n_semicolons ? FORBIDDEN : TEXT;
    return n_semicolons > 1 ? FORBIDDEN : n_semicolons == 1 ? SEPARATOR : size > 0 ? SPACE : FORBIDDEN;
}

/* The number of "<locNNNN>" or "<segNNN>", at most `most`, or -1. begin: "<loc" or "<seg". */
static int32_t number_of(const char *piece, size_t size, const char *begin, size_t n_digits, int32_t most) {
    int32_t value = 0;
    if (size != n_digits + 5 || memcmp(piece, begin, 4) != 0 || piece[size - 1] != '>') return -1;
    for (size_t i = 4; i < size - 1; i++) {
        if (piece[i] < '0' || piece[i] > '9') return -1;
        value = value * 10 + (piece[i] - '0');
    }
    return value <= most ? value : -1;
}

static pg_status classify(const pgi_tokenizer *tokenizer, int64_t id, pgi_buffer *text, pgi_detect_mask *mask) {
    size_t size;
    if ((uint64_t)id >= tokenizer->vocab.n || pgi_tokenizer_skips(tokenizer, id)) return PG_OK;
    const char *piece = pgi_vocab_text(&tokenizer->vocab, (size_t)id, &size);
    const int32_t loc = number_of(piece, size, "<loc", 4, PGI_MAX_LOC);
    if (loc >= 0) {
        mask->kinds[id] = LOC;
        mask->values[id] = (int16_t)loc;
        if (loc > mask->most) mask->most = loc;
        return PG_OK;
    }
    if (mask->n_segs > 0 && number_of(piece, size, "<seg", 3, PGI_MAX_SEG) >= 0) {
        mask->kinds[id] = SEG;
        return PG_OK;
    }
    const int byte = pgi_piece_byte(piece, size);
    if (byte >= 0) { /* a part of a character beyond ASCII; letters of ASCII have pieces of their own */
        mask->kinds[id] = byte >= 0x80 ? TEXT : FORBIDDEN;
        return PG_OK;
    }
    text->size = 0;
    PGI_TRY(pgi_piece_append(piece, size, text));
    mask->kinds[id] = kind_of_text((const char *)text->data, text->size);
    return PG_OK;
}

pg_status pgi_detect_mask_init(const pgi_tokenizer *tokenizer, int64_t vocab_size, int masks,
                               int (*is_eos)(const void *user, int64_t id), const void *user, const pgi_memory *memory,
                               pgi_detect_mask *mask) {
    *mask =
        (pgi_detect_mask){.memory = memory, .vocab_size = vocab_size, .most = -1, .n_segs = masks ? PGI_MASK_SEGS : 0};
    mask->kinds = pgi_alloc_zero(memory, (size_t)vocab_size, sizeof *mask->kinds);
    mask->values = pgi_alloc_zero(memory, (size_t)vocab_size, sizeof *mask->values);
    if (!mask->kinds || !mask->values) return PG_ERROR_MEMORY;
    pgi_buffer text;
    pgi_buffer_init(&text, memory);
    pg_status status = PG_OK;
    int n[END + 1] = {0};
    for (int64_t id = 0; id < vocab_size && status >= 0; id++) {
        if (is_eos(user, id))
            mask->kinds[id] = END;
        else
            status = classify(tokenizer, id, &text, mask);
        n[mask->kinds[id]]++;
    }
    pgi_buffer_free(&text);
    if (status < 0) return status;
    int least = PGI_MAX_LOC + 1;
    for (int64_t id = 0; id < vocab_size; id++)
        if (mask->kinds[id] == LOC && mask->values[id] < least) least = mask->values[id];
    if (least >= mask->most || n[TEXT] == 0 || n[END] == 0)
        return pgi_error(PG_ERROR_UNSUPPORTED,
                         "%s: the vocabulary has %d <loc> tokens, %d of text and %d that end a row, "
                         "expected at least 2, 1 and 1",
                         masks ? "PG_GENERATE_SEGMENT" : "PG_GENERATE_DETECT", n[LOC], n[TEXT], n[END]);
    if (masks && n[SEG] == 0)
        return pgi_error(
            PG_ERROR_UNSUPPORTED,
            "PG_GENERATE_SEGMENT: the vocabulary has no <seg> tokens, <seg000> to <seg127>, expected some");
    return PG_OK;
}

void pgi_detect_mask_free(pgi_detect_mask *mask) {
    if (!mask->memory) return;
    pgi_free(mask->memory, mask->kinds);
    pgi_free(mask->memory, mask->values);
}

/* What may follow: kinds as bits, and locs from `least` to `most`. */
typedef struct follow {
    uint32_t kinds;
    int32_t least, most;
} follow;

#define KIND(kind) (UINT32_C(1) << (kind))

/* Where the answer stands after ids [n]. */
static follow what_follows(const pgi_detect_mask *mask, const int64_t *ids, size_t n) {
    int32_t box[PGI_BOX_LOCS] = {0}, n_locs = 0, n_segs = 0;
    int has_label = 0, has_space = 0; /* of the label, or of what is behind the last separator */
    for (size_t i = 0; i < n; i++) {
        const int64_t id = ids[i];
        switch (id >= 0 && id < mask->vocab_size ? mask->kinds[id] : FORBIDDEN) {
            case LOC:
                if (n_locs < PGI_BOX_LOCS) box[n_locs++] = mask->values[id];
                has_space = 0;
                break;
            case SEG: n_segs++; break;
            case TEXT: has_label = 1; break;
            case SPACE: has_space = 1; break;
            case SEPARATOR: n_locs = n_segs = has_label = has_space = 0; break;
            default: break;
        }
    }
    if (n_locs == PGI_BOX_LOCS && n_segs < mask->n_segs) return (follow){KIND(SEG), 0, -1};
    if (n_locs == PGI_BOX_LOCS && has_label)
        return (follow){KIND(TEXT) | KIND(SPACE) | KIND(SEPARATOR) | KIND(END), 0, -1};
    if (n_locs == PGI_BOX_LOCS && n_segs > 0 && !has_space)
        return (follow){KIND(TEXT) | KIND(SPACE) | KIND(END), 0, -1};
    if (n_locs == PGI_BOX_LOCS) return (follow){KIND(TEXT) | (has_space ? 0 : KIND(SPACE)), 0, -1};
    if (n_locs >= 2) return (follow){KIND(LOC), box[n_locs - 2] + 1, PGI_MAX_LOC};
    if (n_locs == 1) return (follow){KIND(LOC), 0, mask->most - 1};
    const uint32_t more = n == 0 ? KIND(END) : has_space ? 0 : KIND(SPACE);
    return (follow){KIND(LOC) | more, 0, mask->most - 1};
}

void pgi_detect_mask_apply(const pgi_detect_mask *mask, const int64_t *ids, size_t n, float *logits) {
    const follow next = what_follows(mask, ids, n);
    for (int64_t id = 0; id < mask->vocab_size; id++) {
        const uint8_t kind = mask->kinds[id];
        const int32_t value = mask->values[id];
        if (!(next.kinds & KIND(kind)) || (kind == LOC && (value < next.least || value > next.most)))
            logits[id] = -INFINITY;
    }
}
