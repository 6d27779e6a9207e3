/* Ids to text one by one; see tokenizer.c for what HF's decoder does with the pieces. */
#include "tokenizer/tokenizer_parts.h"

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
    int byte = pgi_byte_of_piece(piece, size);
    if (byte >= 0) {
        uint8_t value = (uint8_t)byte;
        return pgi_buffer_append(&decoder->held, &value, 1);
    }
    PGI_TRY(pgi_stream_decoder_flush(decoder, out));
    return pgi_append_piece(piece, size, out);
}

pg_status pgi_stream_decoder_flush(pgi_stream_decoder *decoder, pgi_buffer *out) {
    if (decoder->held.size == 0) return PG_OK;
    PGI_TRY(pgi_append_byte_run(decoder->held.data, decoder->held.size, out));
    decoder->held.size = 0;
    return PG_OK;
}
