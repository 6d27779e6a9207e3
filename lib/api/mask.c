/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* pg_mask_decoder, the masks of an answer, and COCO's run lengths. */
#include "answers/mask.h"

#include <string.h>

#include "answers/answer.h"
#include "answers/mask_decoder.h"
#include "api/structs.h"

PGI_OPTIONS(pg_mask_decoder_options, .struct_size = sizeof(pg_mask_decoder_options))

pg_status pg_mask_decoder_open(const char *path, const pg_mask_decoder_options *options, pg_mask_decoder **out) {
    PGI_ENTER;
    PGI_NOT_NULL(out);
    *out = NULL;
    PGI_NOT_NULL(path);
    PGI_OPTIONS_IN(pg_mask_decoder_options, complete, options);
    PGI_TRY(pgi_reserved_in(complete.reserved, "pg_mask_decoder_options"));
    pgi_memory memory;
    PGI_TRY(pgi_allocator_in(complete.allocator, &memory));
    return pgi_mask_decoder_open(&memory, complete.cpu_mask, path, out);
}

void pg_mask_decoder_close(pg_mask_decoder **decoder) {
    if (!decoder) return;
    pg_mask_decoder *closed = *decoder;
    *decoder = NULL; /* before its memory goes: the allocator's callback may close it, too */
    pgi_mask_decoder_release(closed);
}

pg_status pg_mask_decoder_decode(const pg_mask_decoder *decoder, const int32_t *codes, float *mask) {
    PGI_ENTER;
    PGI_NOT_NULL(decoder);
    PGI_NOT_NULL(codes);
    PGI_NOT_NULL(mask);
    for (int i = 0; i < PGI_MASK_SEGS; i++)
        if (codes[i] < 0 || codes[i] >= PGI_MASK_CODES)
            return pgi_error(PG_ERROR_ARGUMENT, "codes[%d] is %d, expected 0 to %d", i, codes[i], PGI_MASK_CODES - 1);
    pg_mask_decoder *kept = pgi_mask_decoder_retain(decoder); /* its allocator may close the handle */
    const pg_status status = pgi_mask_decode(decoder, codes, mask);
    pgi_mask_decoder_release(kept);
    return status;
}

pg_status pg_answer_get_mask(const pg_answer *answer, int64_t index, const pg_mask_decoder *decoder, uint8_t *mask,
                             size_t size) {
    PGI_ENTER;
    PGI_NOT_NULL(answer);
    PGI_NOT_NULL(decoder);
    PGI_NOT_NULL(mask);
    if (answer->objects.n == 0)
        return pgi_error(PG_ERROR_ARGUMENT, "index is %lld, but the answer has no objects", (long long)index);
    if (index < 0 || (uint64_t)index >= answer->objects.n)
        return pgi_error(PG_ERROR_ARGUMENT, "index is %lld, expected 0 to %lld", (long long)index,
                         (long long)answer->objects.n - 1);
    if (size / (size_t)answer->width < (size_t)answer->height)
        return pgi_error(PG_ERROR_ARGUMENT, "size is %zu, expected at least width * height, %d * %d", size,
                         answer->width, answer->height);
    pg_answer *kept_answer = pgi_answer_retain(answer); /* the decoder's allocator may close both */
    pg_mask_decoder *kept_decoder = pgi_mask_decoder_retain(decoder);
    const pg_status status = pgi_mask_of_object(decoder, answer, index, mask);
    pgi_mask_decoder_release(kept_decoder);
    pgi_answer_release(kept_answer);
    return status;
}

static pg_status counts_of(const uint8_t *mask, int32_t width, int32_t height, pgi_buffer *counts) {
    pgi_buffer_init(counts, &pgi_memory_default);
    PGI_NOT_NULL(mask);
    if (width < 1 || height < 1 || (int64_t)width * height > UINT32_MAX)
        return pgi_error(PG_ERROR_ARGUMENT,
                         "width is %d and height %d, expected at least 1 each and at most 2^32 - 1 pixels", width,
                         height);
    return pgi_mask_counts(mask, width, height, counts);
}

pg_status pg_mask_get_counts(const uint8_t *mask, int32_t width, int32_t height, uint32_t *counts, size_t capacity,
                             size_t *needed) {
    PGI_ENTER;
    if (capacity > 0) PGI_NOT_NULL(counts);
    pgi_buffer buffer;
    pg_status status = counts_of(mask, width, height, &buffer);
    const size_t n = buffer.size / sizeof *counts;
    if (status >= 0) {
        if (needed) *needed = n;
        if (n <= capacity)
            memcpy(counts, buffer.data, buffer.size);
        else if (capacity > 0 || !needed)
            status = pgi_error(PG_ERROR_LIMIT, "capacity is %zu, expected at least %zu", capacity, n);
    }
    pgi_buffer_free(&buffer);
    return status;
}

pg_status pg_mask_get_rle(const uint8_t *mask, int32_t width, int32_t height, char *text, size_t capacity,
                          size_t *needed) {
    PGI_ENTER;
    pgi_buffer buffer, rle;
    pgi_buffer_init(&rle, &pgi_memory_default);
    pg_status status = counts_of(mask, width, height, &buffer);
    if (status >= 0) status = pgi_mask_rle(&buffer, &rle);
    if (status >= 0) status = pgi_copy_text_out((const char *)rle.data, rle.size, text, capacity, needed);
    pgi_buffer_free(&rle);
    pgi_buffer_free(&buffer);
    return status;
}
