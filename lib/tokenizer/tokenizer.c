/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Text to ids and back as HF's `tokenizers` does it for Gemma: added tokens are cut out, spaces become U+2581, added
 * tokens marked `normalized` are cut out, the rest is byte pair encoded. Decoding is Sequence[Replace(U+2581, " "),
 * ByteFallback, Fuse].
 */
#include "tokenizer/tokenizer.h"

#include <string.h>

#include "base/utf8.h"

void pgi_tokenizer_close(pgi_tokenizer **tokenizer) {
    if (!*tokenizer) return;
    pgi_memory memory = (*tokenizer)->memory;
    pgi_bpe_close(&(*tokenizer)->bpe);
    pgi_added_tokens_free(&(*tokenizer)->added);
    pgi_vocab_free(&(*tokenizer)->vocab);
    pgi_free(&memory, *tokenizer);
    *tokenizer = NULL;
}

typedef struct encoding {
    const pgi_tokenizer *tokenizer;
    int literal;
    pgi_id_list *out;
} encoding;

static pg_status encode_normalized(void *user, const pgi_added_token *token, const char *text, size_t size) {
    const encoding *e = user;
    return token ? pgi_id_list_push(e->out, token->id) : pgi_bpe_encode(e->tokenizer->bpe, text, size, e->out);
}

static pg_status encode_raw(void *user, const pgi_added_token *token, const char *text, size_t size) {
    const encoding *e = user;
    const pgi_added_tokens *added = &e->tokenizer->added;
    if (token) return pgi_id_list_push(e->out, token->id);
    if (!e->tokenizer->replace_spaces)
        return pgi_added_tokens_split(added, &added->normalized, text, size, e->literal, encode_normalized, user);
    pgi_buffer normalized;
    pgi_buffer_init(&normalized, &e->tokenizer->memory);
    pg_status status = pgi_added_tokens_replace_spaces(text, size, &normalized);
    if (status >= 0)
        status = pgi_added_tokens_split(added, &added->normalized, (const char *)normalized.data, normalized.size,
                                        e->literal, encode_normalized, user);
    pgi_buffer_free(&normalized);
    return status;
}

pg_status pgi_tokenizer_tokenize(const pgi_tokenizer *tokenizer, const char *text, size_t size, int literal,
                                 pgi_id_list *out) {
    size_t valid = pgi_utf8_valid_prefix((const uint8_t *)text, size);
    if (valid < size)
        return pgi_error(PG_ERROR_ARGUMENT, "the text is not valid UTF-8: byte %zu is 0x%02X, expected UTF-8", valid,
                         (unsigned)(uint8_t)text[valid]);
    encoding e = {tokenizer, literal, out};
    const pgi_added_tokens *added = &tokenizer->added;
    if (literal != PGI_LITERAL_CONTROL || !tokenizer->replace_spaces)
        return pgi_added_tokens_split(added, &added->raw, text, size, literal, encode_raw, &e);
    /* sentencepiece replaces spaces first, and so finds the pieces that are runs of them, longest first */
    pgi_buffer normalized;
    pgi_buffer_init(&normalized, &tokenizer->memory);
    pg_status status = pgi_added_tokens_replace_spaces(text, size, &normalized);
    if (status >= 0)
        status = pgi_added_tokens_split(added, &added->raw, (const char *)normalized.data, normalized.size, literal,
                                        encode_raw, &e);
    pgi_buffer_free(&normalized);
    return status;
}

int pgi_tokenizer_skips(const pgi_tokenizer *tokenizer, int64_t id) {
    const pgi_added_token *token = pgi_added_tokens_of(&tokenizer->added, id);
    size_t size;
    const char *text = pgi_vocab_text(&tokenizer->vocab, (size_t)id, &size);
    /* HF looks up the text that the decoder gets, which for these tokens is not their own. */
    if (token && token->flags.normalized && tokenizer->replace_spaces && memchr(text, ' ', size)) return 0;
    return pgi_added_tokens_is_special(&tokenizer->added, id);
}

size_t pgi_tokenizer_longest_text(const pgi_tokenizer *tokenizer) {
    return tokenizer->vocab.longest > 3 ? tokenizer->vocab.longest : 3;
}

int64_t pgi_tokenizer_n_ids(const pgi_tokenizer *tokenizer) { return (int64_t)tokenizer->vocab.n; }

const char *pgi_tokenizer_piece(const pgi_tokenizer *tokenizer, int64_t id) {
    return id >= 0 && (uint64_t)id < tokenizer->vocab.n ? pgi_vocab_text(&tokenizer->vocab, (size_t)id, NULL) : NULL;
}

int64_t pgi_tokenizer_piece_id(const pgi_tokenizer *tokenizer, const char *piece) {
    return pgi_vocab_find(&tokenizer->vocab, piece, strlen(piece));
}

int64_t pgi_tokenizer_special(const pgi_tokenizer *tokenizer, int which) {
    return which >= 0 && which < PGI_N_SPECIALS ? tokenizer->specials[which] : -1;
}

const pgi_tokenizer_defaults *pgi_tokenizer_get_defaults(const pgi_tokenizer *tokenizer) {
    return &tokenizer->defaults;
}

uint32_t pgi_tokenizer_token_flags(const pgi_tokenizer *tokenizer, int64_t id) {
    const pgi_added_token *token = pgi_added_tokens_of(&tokenizer->added, id);
    if (!token) return 0;
    return PG_TOKEN_ADDED | (token->flags.special ? PG_TOKEN_SPECIAL : 0) |
           (token->flags.normalized ? PG_TOKEN_NORMALIZED : 0) | (token->flags.single_word ? PG_TOKEN_SINGLE_WORD : 0) |
           (token->flags.lstrip ? PG_TOKEN_LSTRIP : 0) | (token->flags.rstrip ? PG_TOKEN_RSTRIP : 0);
}
