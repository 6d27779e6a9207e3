/* What a tokenizer is made of; for tokenizer*.c, stream_decoder.c and tests. */
#ifndef PGI_TOKENIZER_TOKENIZER_PARTS_H
#define PGI_TOKENIZER_TOKENIZER_PARTS_H

#include "tokenizer/bpe.h"
#include "tokenizer/tokenizer.h"

enum { PGI_N_SPECIALS = PGI_TOKEN_IMAGE + 1 };

struct pgi_tokenizer {
    pgi_memory memory;
    pgi_vocab vocab;  /* the model's pieces, then the added tokens that are not among them */
    size_t n_pieces;  /* ids of the model */
    pgi_added_tokens added;
    pgi_bpe *bpe;
    int replace_spaces; /* the normaliser makes ' ' U+2581 */
    int32_t source;     /* 1: tokenizer.model, 2: tokenizer.json */
    int64_t specials[PGI_N_SPECIALS];
    pgi_tokenizer_defaults defaults;
    int avoid_sentencepiece; /* set by tests before pgi_tokenizer_load() */
};

/* Fills a zeroed tokenizer whose `memory` is set. On error what was filled is still to be closed. */
pg_status pgi_tokenizer_load(pgi_tokenizer *tokenizer, const char *folder);

/* 1 when decode(skip_special_tokens=True) leaves the id out. */
int pgi_tokenizer_skips(const pgi_tokenizer *tokenizer, int64_t id);
/* The byte that a piece <0x..> stands for, or -1. */
int pgi_byte_of_piece(const char *piece, size_t size);
/* Appends the text of a piece that is no byte: U+2581 as a space. */
pg_status pgi_append_piece(const char *piece, size_t size, pgi_buffer *out);
/* Appends a whole run of byte pieces: the text, or U+FFFD for each byte when it is not UTF-8. */
pg_status pgi_append_byte_run(const uint8_t *bytes, size_t size, pgi_buffer *out);

#endif
