/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* pg_detokenizer: ids to text one by one. */
#include "api/structs.h"
#include "base/in_use.h"
#include "processor/processor.h"
#include "tokenizer/stream_decoder.h"

struct pg_detokenizer {
    pg_processor *processor; /* counted */
    pgi_stream_decoder decoder;
    pgi_buffer text; /* of the last call */
    pgi_in_use in_use;
};

/* So that pushing ids allocates nothing: runs of byte pieces that are longer than this come in no text. */
static pg_status reserve_detokenizer(pg_detokenizer *detokenizer, const pgi_tokenizer *tokenizer) {
    enum { BYTE_RUN = 1024, MOST_TEXT = 1 << 20 };
    size_t longest = pgi_tokenizer_longest_text(tokenizer);
    PGI_TRY(pgi_stream_decoder_reserve(&detokenizer->decoder, BYTE_RUN));
    return pgi_buffer_reserve(&detokenizer->text, 3 * BYTE_RUN + (longest < MOST_TEXT ? longest : MOST_TEXT));
}

static void free_detokenizer(pg_detokenizer *detokenizer) {
    pg_processor *processor = detokenizer->processor;
    pgi_stream_decoder_free(&detokenizer->decoder);
    pgi_buffer_free(&detokenizer->text);
    pgi_free(&processor->memory, detokenizer);
    pgi_processor_release(processor);
}

pg_status pg_detokenizer_create(const pg_processor *processor, uint32_t flags, pg_detokenizer **out) {
    PGI_ENTER;
    PGI_NOT_NULL(out);
    *out = NULL;
    PGI_NOT_NULL(processor);
    PGI_TRY(pgi_flags_in(flags, PG_DECODE_SKIP_SPECIAL, "PG_DECODE_SKIP_SPECIAL or 0"));
    PGI_TRY(pgi_processor_needs_text(processor));
    pg_processor *kept = pgi_processor_retain(processor); /* its allocator may close the handle */
    pg_detokenizer *detokenizer = pgi_alloc_zero(&kept->memory, 1, sizeof *detokenizer);
    if (!detokenizer) {
        pgi_processor_release(kept);
        return PG_ERROR_MEMORY;
    }
    detokenizer->processor = kept;
    pgi_stream_decoder_init(&detokenizer->decoder, processor->tokenizer, (flags & PG_DECODE_SKIP_SPECIAL) != 0);
    pgi_buffer_init(&detokenizer->text, &detokenizer->processor->memory);
    const pg_status status = reserve_detokenizer(detokenizer, processor->tokenizer);
    if (status < 0)
        free_detokenizer(detokenizer);
    else
        *out = detokenizer;
    return status;
}

void pg_detokenizer_close(pg_detokenizer **detokenizer) {
    if (!detokenizer || !*detokenizer) return;
    pg_detokenizer *closed = *detokenizer;
    *detokenizer = NULL;
    if (pgi_in_use_close(&closed->in_use)) free_detokenizer(closed);
}

/* Makes the detokenizer this call's, with no text yet. */
static pg_status begin(pg_detokenizer *detokenizer) {
    PGI_TRY(pgi_in_use_begin(&detokenizer->in_use, "detokenizer"));
    pgi_buffer *text = &detokenizer->text;
    text->size = 0;
    if (text->data) text->data[0] = 0;
    return PG_OK;
}

/* Hands out the text, unless the allocator of the host closed the detokenizer meanwhile. */
static pg_status end(pg_detokenizer *detokenizer, pg_status status, const char **text, size_t *size) {
    const pgi_buffer *found = &detokenizer->text;
    const char *whole = found->data ? (const char *)found->data : "";
    const size_t whole_size = found->size;
    if (pgi_in_use_end(&detokenizer->in_use)) {
        free_detokenizer(detokenizer);
        return pgi_error(PG_ERROR_STATE, "the detokenizer was closed during the call, expected it to stay");
    }
    if (status < 0) return status;
    *text = whole;
    if (size) *size = whole_size;
    return PG_OK;
}

pg_status pg_detokenizer_push(pg_detokenizer *detokenizer, int64_t id, const char **text, size_t *size) {
    PGI_ENTER;
    PGI_NOT_NULL(detokenizer);
    PGI_NOT_NULL(text);
    PGI_TRY(begin(detokenizer));
    return end(detokenizer, pgi_stream_decoder_push(&detokenizer->decoder, id, &detokenizer->text), text, size);
}

pg_status pg_detokenizer_flush(pg_detokenizer *detokenizer, const char **text, size_t *size) {
    PGI_ENTER;
    PGI_NOT_NULL(detokenizer);
    PGI_NOT_NULL(text);
    PGI_TRY(begin(detokenizer));
    return end(detokenizer, pgi_stream_decoder_flush(&detokenizer->decoder, &detokenizer->text), text, size);
}
