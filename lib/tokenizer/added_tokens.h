/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Added tokens as HF's `tokenizers` keeps and finds them (tokenizer/added_vocabulary.rs): pieces that are cut out of
 * the text before the model sees it, the leftmost first, and the longest where several begin.
 */
#ifndef PGI_TOKENIZER_ADDED_TOKENS_H
#define PGI_TOKENIZER_ADDED_TOKENS_H

#include "base/run.h"
#include "tokenizer/vocab.h"

typedef struct pgi_token_flags {
    uint8_t single_word;    /* only between characters that are not of a word */
    uint8_t lstrip, rstrip; /* takes the white space before, after it along */
    uint8_t normalized;     /* found after spaces were replaced, otherwise before */
    uint8_t special;        /* skipped by decode(skip_special_tokens), plain text when the text is taken literally */
} pgi_token_flags;

typedef struct pgi_added_token {
    int64_t id;
    pgi_token_flags flags;
    uint8_t begins_another; /* a longer token that is found with it begins with it */
    uint16_t size;          /* bytes of its text as it is found: at most 3 PGI_MAX_PIECE */
} pgi_added_token;

/* Which tokens of a text are plain characters. */
enum {
    PGI_PARSED = 0,  /* none: HF's default */
    PGI_LITERAL = 1, /* the special ones (PG_ENCODE_LITERAL) */
    /* As sentencepiece alone reads a text. Plain: control pieces, unk, and special tokens that its model does not have,
     * such as `<image>`. Found: user-defined pieces (`<mask>`, which HF calls special) and runs of spaces that are
     * pieces. No token takes white space along. */
    PGI_LITERAL_CONTROL = 2
};

/* A tree of the bytes of tokens, each from its end to its begin; node 0 is the root. Aho and Corasick's links make it a
 * machine that reads a text backwards, and knows at each byte the longest token that begins there: some steps a byte,
 * whatever the tokens. */
typedef struct pgi_trie_node {
    int32_t parent;
    int32_t fail;   /* the node of the longest end of this one's text that the tree has; 0: none */
    int32_t token;  /* index of the longest added token that this one's text ends with, or -1 */
    int32_t child;  /* its first one; 0: none */
    uint16_t depth; /* bytes of its text */
    uint8_t byte;   /* the last of them */
    uint8_t forks;  /* it has more children, in slots */
} pgi_trie_node;

typedef struct pgi_trie {
    pgi_trie_node *nodes;
    size_t n, capacity, longest; /* longest: bytes of a token */
    int32_t *slots;              /* [n_slots]: by parent and byte, the children but the first of each; 0: none */
    size_t n_slots, n_in_slots;  /* a power of 2, or 0; those that are taken */
    pgi_hash_key key;            /* of the slots */
    int32_t first[256];          /* the root's children by their byte, 0: none */
} pgi_trie;

typedef struct pgi_added_tokens {
    const pgi_memory *memory;
    pgi_added_token *data;
    size_t n, capacity;
    uint32_t *by_id;  /* [n_ids]: index into data + 1, or 0 */
    uint8_t *special; /* [n_ids]: PGI_LITERAL once the token was added as a special one (that sticks), and the bit
                         PGI_LITERAL_CONTROL where pgi_added_tokens_set_control() put it */
    size_t n_ids;
    size_t n_bytes;           /* of their texts */
    pgi_trie raw, normalized; /* made by pgi_added_tokens_finish() */
} pgi_added_tokens;

void pgi_added_tokens_init(pgi_added_tokens *tokens, const pgi_memory *memory);
void pgi_added_tokens_free(pgi_added_tokens *tokens);

/* The token of an id, or NULL. */
const pgi_added_token *pgi_added_tokens_of(const pgi_added_tokens *tokens, int64_t id);
int pgi_added_tokens_is_special(const pgi_added_tokens *tokens, int64_t id);
/* Ids without a token are ignored. */
void pgi_added_tokens_set_control(pgi_added_tokens *tokens, int64_t id);

/* Adds a token, or gives an added one new flags. A text without an id gets the next one and enters `vocab`.
 * PG_ERROR_LIMIT: their texts have more than 512 KiB together. */
pg_status pgi_added_tokens_add(pgi_added_tokens *tokens, pgi_vocab *vocab, const char *text, size_t size,
                               pgi_token_flags flags, const char *file);
/* Call it after the last add. replace_spaces: the normalizer makes ' ' U+2581. */
pg_status pgi_added_tokens_finish(pgi_added_tokens *tokens, const pgi_vocab *vocab, int replace_spaces,
                                  const pg_cancel *cancel, const char *file);

/* Called for each part of a text in turn: `token` is NULL for what lies between tokens. */
typedef pg_status (*pgi_part_fn)(void *user, const pgi_added_token *token, const char *text, size_t size);

/* Cuts `text` at the tokens of `trie` (tokens->raw or tokens->normalized). literal: PGI_PARSED, PGI_LITERAL or
 * PGI_LITERAL_CONTROL; tokens that are plain characters by it are not cut out. */
pg_status pgi_added_tokens_split(const pgi_added_tokens *tokens, const pgi_trie *trie, const char *text, size_t size,
                                 int literal, pgi_part_fn part, void *user);

/* 1 when the text of a token, at the start of a text that is parsed, always becomes this token and nothing more,
 * whatever follows: it is found before spaces are replaced, takes no white space along, and no longer token begins with
 * it. */
int pgi_added_tokens_stands_alone(const pgi_added_tokens *tokens, int64_t id);

/* Appends `text` to `out`, each ' ' as U+2581. */
pg_status pgi_added_tokens_replace_spaces(const char *text, size_t size, pgi_buffer *out);

#endif
