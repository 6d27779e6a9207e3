/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Ids to text one by one; see tokenizer.c for what HF's decoder does with the pieces. */
#include "tokenizer/stream_decoder.h"

#include "tokenizer/piece.h"

void pgi_stream_decoder_init(pgi_stream_decoder *decoder, const pgi_tokenizer *tokenizer, int skip_special) {
    *decoder = (pgi_stream_decoder){.tokenizer = tokenizer, .skip_special = skip_special};
    pgi_buffer_init(&decoder->held, &tokenizer->memory);
}

pg_status pgi_stream_decoder_reserve(pgi_stream_decoder *decoder, size_t n) {
    return pgi_buffer_reserve(&decoder->held, n);
}

void pgi_stream_decoder_free(pgi_stream_decoder *decoder) { pgi_buffer_free(&decoder->held); }

pg_status pgi_stream_decoder_push(pgi_stream_decoder *decoder, int64_t id, pgi_buffer *out) {
    const pgi_tokenizer *tokenizer = decoder->tokenizer;
    if (id < 0 || id > UINT32_MAX)
        return pgi_error(PG_ERROR_ARGUMENT, "the id %lld is not one of 0 to %zu", (long long)id,
                         tokenizer->vocab.n - 1);
    /* Models have more rows than the tokenizer has ids; HF decodes those to nothing, and so they end no run of
     * bytes. */
    if ((uint64_t)id >= tokenizer->vocab.n) return PG_OK;
    if (decoder->skip_special && pgi_tokenizer_skips(tokenizer, id)) return PG_OK;
    size_t size;
    const char *piece = pgi_vocab_text(&tokenizer->vocab, (size_t)id, &size);
    int byte = pgi_piece_byte(piece, size);
    if (byte >= 0) {
        uint8_t value = (uint8_t)byte;
        return pgi_buffer_append(&decoder->held, &value, 1);
    }
    PGI_TRY(pgi_stream_decoder_flush(decoder, out));
    return pgi_piece_append(piece, size, out);
}

pg_status pgi_stream_decoder_flush(pgi_stream_decoder *decoder, pgi_buffer *out) {
    if (decoder->held.size == 0) return PG_OK;
    PGI_TRY(pgi_piece_append_bytes(decoder->held.data, decoder->held.size, out));
    decoder->held.size = 0;
    return PG_OK;
}

pg_status pgi_tokenizer_decode(const pgi_tokenizer *tokenizer, const int64_t *ids, size_t n_ids, int skip_special,
                               pgi_buffer *out) {
    pgi_stream_decoder decoder;
    pg_status status = PG_OK;
    pgi_stream_decoder_init(&decoder, tokenizer, skip_special);
    PGI_GOTO(pgi_buffer_reserve(out, 0), done);
    for (size_t i = 0; i < n_ids; i++) PGI_GOTO(pgi_stream_decoder_push(&decoder, ids[i], out), done);
    status = pgi_stream_decoder_flush(&decoder, out);
done:
    pgi_stream_decoder_free(&decoder);
    return status;
}
