/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The tokenizer as HF's GemmaTokenizer behaves: added tokens in the text are parsed, the rest is merged (bpe.h). HF
 * reads tokenizer.json when the folder has one, otherwise tokenizer.model with the merges that HF derives from it.
 */
#ifndef PGI_TOKENIZER_TOKENIZER_H
#define PGI_TOKENIZER_TOKENIZER_H

#include "base/memory.h"
#include "tokenizer/added_tokens.h"
#include "tokenizer/bpe.h"
#include "tokenizer/id_list.h"

/* What transformers takes from tokenizer_config.json, or from the settings saved in tokenizer.json, where a call leaves
 * it open. */
typedef struct pgi_tokenizer_defaults {
    int pad_left;               /* padding_side */
    int truncate_left;          /* truncation_side */
    int64_t pad_to_multiple_of; /* 0: none */
    int64_t max_length;         /* 0: none */
    int64_t model_max_length;   /* where max_length is none; 0: none, or more than 1e20 */
} pgi_tokenizer_defaults;

enum { PGI_TOKEN_PAD, PGI_TOKEN_EOS, PGI_TOKEN_BOS, PGI_TOKEN_UNK, PGI_TOKEN_IMAGE, PGI_N_SPECIALS };

typedef struct pgi_tokenizer {
    pgi_memory memory;
    pgi_vocab vocab; /* the model's pieces, then the added tokens that are not among them */
    size_t n_pieces; /* ids of the model */
    pgi_added_tokens added;
    pgi_bpe *bpe;
    int replace_spaces; /* the normalizer makes ' ' U+2581 */
    int32_t source;     /* 1: tokenizer.model, alone or with the same pieces as tokenizer.json; 2: tokenizer.json */
    int64_t differs_from_model; /* the first id whose piece differs in tokenizer.model, which is there too and not used;
                                   -1: none, or there is one file */
    int64_t specials[PGI_N_SPECIALS];
    pgi_tokenizer_defaults defaults;
} pgi_tokenizer;

void pgi_tokenizer_close(pgi_tokenizer **tokenizer);

/* Appends the ids of `text` (UTF-8, `size` bytes); nothing is added around them.
 * literal: PGI_PARSED, PGI_LITERAL (PG_ENCODE_LITERAL) or PGI_LITERAL_CONTROL (as sentencepiece alone), see
 * added_tokens.h. PG_ERROR_ARGUMENT: invalid UTF-8, with its offset. */
pg_status pgi_tokenizer_tokenize(const pgi_tokenizer *tokenizer, const char *text, size_t size, int literal,
                                 pgi_id_list *out);

/* Bytes that one id can add to a text at the most: the longest piece, or U+FFFD for a byte. */
size_t pgi_tokenizer_longest_text(const pgi_tokenizer *tokenizer);
int64_t pgi_tokenizer_n_ids(const pgi_tokenizer *tokenizer);
const char *pgi_tokenizer_piece(const pgi_tokenizer *tokenizer, int64_t id);       /* NULL: out of range */
int64_t pgi_tokenizer_piece_id(const pgi_tokenizer *tokenizer, const char *piece); /* -1: unknown */

/* PG_TOKEN_* bits of an id that is in range. */
uint32_t pgi_tokenizer_token_flags(const pgi_tokenizer *tokenizer, int64_t id);

int64_t pgi_tokenizer_special(const pgi_tokenizer *tokenizer, int which); /* -1: none */

const pgi_tokenizer_defaults *pgi_tokenizer_get_defaults(const pgi_tokenizer *tokenizer);

/* 1 when decode(skip_special_tokens=True) leaves the id out. */
int pgi_tokenizer_skips(const pgi_tokenizer *tokenizer, int64_t id);

#endif
