/*
 * The tokenizer as HF's GemmaTokenizer behaves: added tokens in the text are
 * parsed, the rest goes through sentencepiece. Where the folder has a tokenizer.json,
 * its BPE, which is the one HF reads, becomes a sentencepiece model in memory; otherwise
 * tokenizer.model does, with the merges that HF derives from it.
 */
#ifndef PGI_TOKENIZER_TOKENIZER_H
#define PGI_TOKENIZER_TOKENIZER_H

#include "base/memory.h"
#include "tokenizer/added_tokens.h"
#include "tokenizer/ids.h"

typedef struct pgi_tokenizer pgi_tokenizer;

pg_status pgi_tokenizer_open(const pgi_memory *memory, const char *folder, pgi_tokenizer **out);
void pgi_tokenizer_close(pgi_tokenizer **tokenizer);

/* Appends the ids of `text` (UTF-8, `size` bytes); nothing is added around them.
 * literal: PGI_PARSED, PGI_LITERAL (PG_TEXT_LITERAL) or PGI_LITERAL_CONTROL (as sentencepiece alone), see
 * added_tokens.h. PG_ERROR_ARGUMENT: invalid UTF-8, with its offset. */
pg_status pgi_tokenizer_encode(const pgi_tokenizer *tokenizer, const char *text, size_t size, int literal,
                               pgi_ids *out);

/* Appends the text of ids as HF's decode(): ids beyond the last, which a model may have rows for, give nothing.
 * PG_ERROR_ARGUMENT: an id that is negative or has more than 32 bits. */
pg_status pgi_tokenizer_decode(const pgi_tokenizer *tokenizer, const int64_t *ids, size_t n_ids, int skip_special,
                               pgi_buffer *out);

/* Bytes that one id can add to a text at the most: the longest piece, or U+FFFD for a byte. */
size_t pgi_tokenizer_longest_text(const pgi_tokenizer *tokenizer);
int64_t pgi_tokenizer_n_ids(const pgi_tokenizer *tokenizer);
const char *pgi_tokenizer_piece(const pgi_tokenizer *tokenizer, int64_t id); /* NULL: out of range */
int64_t pgi_tokenizer_piece_id(const pgi_tokenizer *tokenizer, const char *piece); /* -1: unknown */

enum { PGI_TOKEN_PAD, PGI_TOKEN_EOS, PGI_TOKEN_BOS, PGI_TOKEN_UNK, PGI_TOKEN_IMAGE };
int64_t pgi_tokenizer_special(const pgi_tokenizer *tokenizer, int which); /* -1: none */
int pgi_tokenizer_is_special(const pgi_tokenizer *tokenizer, int64_t id);

/* What transformers takes from tokenizer_config.json, or from the settings saved in tokenizer.json, where a call leaves
 * it open. */
typedef struct pgi_tokenizer_defaults {
    int pad_left;               /* padding_side */
    int cut_left;               /* truncation_side */
    int64_t pad_to_multiple_of; /* 0: none */
    int64_t max_length;         /* max_length, else model_max_length; 0: none, or more than 1e20 */
} pgi_tokenizer_defaults;

const pgi_tokenizer_defaults *pgi_tokenizer_get_defaults(const pgi_tokenizer *tokenizer);
/* 1: tokenizer.model, alone or with the same pieces as tokenizer.json; 2: tokenizer.json */
int32_t pgi_tokenizer_source(const pgi_tokenizer *tokenizer);

/*
 * Decoding id by id; all that push and flush append equals pgi_tokenizer_decode() of all ids. A run of
 * byte pieces is held back until it ends: HF makes it text when it is valid UTF-8 as a whole, and U+FFFD
 * for each byte otherwise, so nothing of it is known before.
 */
typedef struct pgi_stream_decoder {
    const pgi_tokenizer *tokenizer;
    int skip_special;
    pgi_buffer held; /* the bytes of the run */
} pgi_stream_decoder;

void pgi_stream_decoder_init(pgi_stream_decoder *decoder, const pgi_tokenizer *tokenizer, int skip_special);
/* Room for a run of n byte pieces; longer ones allocate. */
pg_status pgi_stream_decoder_reserve(pgi_stream_decoder *decoder, size_t n);
void pgi_stream_decoder_free(pgi_stream_decoder *decoder);
pg_status pgi_stream_decoder_push(pgi_stream_decoder *decoder, int64_t id, pgi_buffer *out);
/* Afterwards the decoder starts anew. */
pg_status pgi_stream_decoder_flush(pgi_stream_decoder *decoder, pgi_buffer *out);

#endif
