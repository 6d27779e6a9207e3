/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Ids to text, all at once or one by one. */
#ifndef PGI_TOKENIZER_STREAM_DECODER_H
#define PGI_TOKENIZER_STREAM_DECODER_H

#include "tokenizer/tokenizer.h"

/* Appends the text of ids as HF's decode(): ids beyond the last, which a model may have rows for, give nothing.
 * PG_ERROR_ARGUMENT: an id that is negative or has more than 32 bits. */
pg_status pgi_tokenizer_decode(const pgi_tokenizer *tokenizer, const int64_t *ids, size_t n_ids, int skip_special,
                               pgi_buffer *out);

/* Decoding id by id; all that push and flush append equals pgi_tokenizer_decode() of all ids. A run of byte pieces is
 * held back until it ends: HF decodes it when the whole is valid UTF-8, and else writes U+FFFD for each byte. */
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
