/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* pg_processor: open, encode, tokenize, decode, describe. */
#include "processor/processor.h"

#include <math.h>
#include <string.h>

#include "api/structs.h"
#include "image/image.h"
#include "processor/batch.h"
#include "tokenizer/stream_decoder.h"

enum {
    ENCODE_FLAGS = PG_ENCODE_LITERAL | PG_ENCODE_EXIF | PG_ENCODE_TRUNCATE | PG_ENCODE_KEEP_ENDS |
                   PG_ENCODE_OPEN_SUFFIX | PG_ENCODE_OVER_WHITE
};

PGI_OPTIONS(pg_processor_options, .struct_size = sizeof(pg_processor_options))

static pg_status check_flags(uint32_t flags) {
    const uint32_t text = flags & (PG_PROCESSOR_TEXT_ONLY | PG_PROCESSOR_SENTENCEPIECE);
    PGI_TRY(pgi_flags_in(flags, PG_PROCESSOR_TEXT_ONLY | PG_PROCESSOR_IMAGES_ONLY | PG_PROCESSOR_SENTENCEPIECE,
                         "PG_PROCESSOR_TEXT_ONLY, PG_PROCESSOR_IMAGES_ONLY, PG_PROCESSOR_SENTENCEPIECE or 0"));
    if ((flags & PG_PROCESSOR_IMAGES_ONLY) && text)
        return pgi_error(PG_ERROR_ARGUMENT, "flags has %s and PG_PROCESSOR_IMAGES_ONLY, expected one",
                         text & PG_PROCESSOR_TEXT_ONLY ? "PG_PROCESSOR_TEXT_ONLY" : "PG_PROCESSOR_SENTENCEPIECE");
#ifndef PGI_SENTENCEPIECE
    if (flags & PG_PROCESSOR_SENTENCEPIECE)
        return pgi_error(PG_ERROR_UNSUPPORTED,
                         "flags has PG_PROCESSOR_SENTENCEPIECE, but this library was built "
                         "without sentencepiece (-Dsentencepiece=disabled)");
#endif
    return PG_OK;
}

pg_status pg_processor_open(const char *model, const pg_processor_options *options, pg_processor **out) {
    PGI_ENTER;
    PGI_NOT_NULL(out);
    *out = NULL;
    PGI_OPTIONS_IN(pg_processor_options, complete, options);
    if (complete.flags != PG_PROCESSOR_IMAGES_ONLY) PGI_NOT_NULL(model);
    PGI_TRY(check_flags(complete.flags));
    pgi_memory memory;
    PGI_TRY(pgi_allocator_in(complete.allocator, &memory));
    pgi_cancel_retain(complete.cancel); /* the host may close it while the call is under way */
    pg_status status = pgi_processor_open(&memory, model, &complete, out);
    pgi_cancel_release(complete.cancel);
    return status;
}

void pg_processor_close(pg_processor **processor) {
    if (!processor) return;
    pg_processor *closed = *processor;
    *processor = NULL; /* before its memory goes: the allocator's callback may close it, too */
    pgi_processor_release(closed);
}

PGI_OPTIONS(pg_encode_options, .struct_size = sizeof(pg_encode_options), .max_image_pixels = PGI_DEFAULT_MAX_PIXELS,
            .max_tokens = PGI_DEFAULT_MAX_TOKENS)

static pg_status check_choice(int32_t value, int32_t last, const char *name, const char *expected) {
    if (value < 0 || value > last)
        return pgi_error(PG_ERROR_ARGUMENT, "%s is %d, expected 0 to %d (%s)", name, value, last, expected);
    return PG_OK;
}

static pg_status check_length(int64_t value, int64_t most, const char *name) {
    if (value < 0 || value > most)
        return pgi_error(PG_ERROR_ARGUMENT, "%s is %lld, expected 0 (default) to %lld", name, (long long)value,
                         (long long)most);
    return PG_OK;
}

/* Completes the options and holds each against its range. */
static pg_status encode_options_in(const pg_encode_options *options, pg_encode_options *out) {
    PGI_OPTIONS_IN(pg_encode_options, complete, options);
    *out = complete;
    PGI_TRY(pgi_flags_in(out->flags, ENCODE_FLAGS,
                         "PG_ENCODE_LITERAL | PG_ENCODE_EXIF | PG_ENCODE_TRUNCATE | "
                         "PG_ENCODE_KEEP_ENDS | PG_ENCODE_OPEN_SUFFIX | PG_ENCODE_OVER_WHITE or less"));
    PGI_TRY(check_length(out->max_image_pixels, INT64_MAX, "max_image_pixels"));
    if (out->max_image_pixels == 0) out->max_image_pixels = PGI_DEFAULT_MAX_PIXELS;
    PGI_TRY(check_choice(out->mode, PG_MODE_BIG_VISION, "mode", "PG_MODE_*"));
    PGI_TRY(check_choice(out->padding, PG_PADDING_NONE, "padding", "PG_PADDING_*"));
    PGI_TRY(check_choice(out->padding_side, PG_SIDE_RIGHT, "padding_side", "PG_SIDE_*"));
    PGI_TRY(check_choice(out->truncation, PG_TRUNCATION_SUFFIX, "truncation", "PG_TRUNCATION_*"));
    PGI_TRY(check_choice(out->truncation_side, PG_SIDE_RIGHT, "truncation_side", "PG_SIDE_*"));
    PGI_TRY(check_length(out->pad_to_multiple_of, INT32_MAX, "pad_to_multiple_of"));
    PGI_TRY(check_length(out->max_length, INT32_MAX, "max_length"));
    PGI_TRY(check_length(out->max_tokens, PGI_MAX_ROW_TOKENS, "max_tokens"));
    if (out->max_tokens == 0) out->max_tokens = PGI_DEFAULT_MAX_TOKENS;
    PGI_TRY(check_length(out->max_text_bytes, PGI_MAX_TEXT_BYTES, "max_text_bytes"));
    if (out->max_text_bytes == 0) out->max_text_bytes = PGI_TEXT_BYTES_A_TOKEN * out->max_tokens;
    uint32_t truncate = out->flags & (PG_ENCODE_TRUNCATE | PG_ENCODE_KEEP_ENDS);
    if (truncate == PG_ENCODE_KEEP_ENDS)
        return pgi_error(PG_ERROR_ARGUMENT, "flags has PG_ENCODE_KEEP_ENDS without PG_ENCODE_TRUNCATE");
    if ((truncate & PG_ENCODE_KEEP_ENDS) && out->truncation_side == PG_SIDE_LEFT)
        return pgi_error(PG_ERROR_ARGUMENT, "truncation_side is PG_SIDE_LEFT, but PG_ENCODE_KEEP_ENDS cuts tails only");
    return PG_OK;
}

/* The public form of the settings that a processor was opened with. */
static pg_image_settings settings_of(const pg_processor *processor) {
    const pgi_image_settings *image = &processor->image;
    pg_image_settings settings = {
        .struct_size = sizeof settings,
        .height = image->height,
        .width = image->width,
        .resample = image->resample,
        .do_resize = image->do_resize != 0,
        .do_rescale = image->do_rescale != 0,
        .do_normalize = image->do_normalize != 0,
        .do_convert_rgb = image->do_convert_rgb != 0,
        .n_image_tokens = image->n_image_tokens,
        .rescale_factor = image->rescale_factor,
    };
    memcpy(settings.image_mean, image->mean, sizeof settings.image_mean);
    memcpy(settings.image_std, image->std, sizeof settings.image_std);
    return settings;
}

pg_status pg_processor_get_image_settings(const pg_processor *processor, pg_image_settings *settings) {
    PGI_ENTER;
    PGI_NOT_NULL(processor);
    PGI_TRY(pgi_struct_out_check(settings, PGI_STRUCT(pg_image_settings)));
    PGI_TRY(pgi_processor_needs_images(processor));
    pg_image_settings value = settings_of(processor);
    pgi_struct_out(settings, &value, sizeof value);
    return PG_OK;
}

static pg_status check_setting(int32_t value, int32_t least, int32_t most, const char *name) {
    if (value >= least && value <= most) return PG_OK;
    return pgi_error(PG_ERROR_ARGUMENT, "image_settings.%s is %d, expected %d to %d", name, value, least, most);
}

static pg_status check_switch(uint32_t value, const char *name) {
    if (value <= 1) return PG_OK;
    return pgi_error(PG_ERROR_ARGUMENT, "image_settings.%s is %u, expected 0 or 1", name, value);
}

/* Those that are not used are held against their ranges, too. */
static pg_status check_settings(const pg_image_settings *s) {
    PGI_TRY(pgi_reserved_in(s->reserved, "image_settings"));
    PGI_TRY(check_setting(s->height, 1, PGI_MAX_SIDE, "height"));
    PGI_TRY(check_setting(s->width, 1, PGI_MAX_SIDE, "width"));
    PGI_TRY(check_setting(s->n_image_tokens, 0, PGI_MAX_IMAGE_TOKENS, "n_image_tokens"));
    PGI_TRY(check_choice(s->resample, PG_RESAMPLE_HAMMING, "image_settings.resample", "PG_RESAMPLE_*"));
    PGI_TRY(check_switch(s->do_resize, "do_resize"));
    PGI_TRY(check_switch(s->do_rescale, "do_rescale"));
    PGI_TRY(check_switch(s->do_normalize, "do_normalize"));
    PGI_TRY(check_switch(s->do_convert_rgb, "do_convert_rgb"));
    if (!isfinite(s->rescale_factor))
        return pgi_error(PG_ERROR_ARGUMENT, "image_settings.rescale_factor is %g, expected a finite number",
                         s->rescale_factor);
    for (int c = 0; c < 3; c++) {
        if (!isfinite(s->image_mean[c]))
            return pgi_error(PG_ERROR_ARGUMENT, "image_settings.image_mean[%d] is %g, expected a finite number", c,
                             (double)s->image_mean[c]);
        if (!isfinite(s->image_std[c]) || s->image_std[c] == 0.0f)
            return pgi_error(PG_ERROR_ARGUMENT, "image_settings.image_std[%d] is %g, expected a finite number, not 0",
                             c, (double)s->image_std[c]);
    }
    return PG_OK;
}

/* given: of any version's size; what it lacks is the processor's own. */
static pg_status image_settings_in(const pg_processor *processor, const pg_image_settings *given,
                                   pgi_image_settings *out) {
    pg_image_settings s = settings_of(processor);
    PGI_TRY(pgi_struct_in(&s, given, PGI_STRUCT(pg_image_settings)));
    PGI_TRY(check_settings(&s));
    *out = (pgi_image_settings){.width = s.width,
                                .height = s.height,
                                .n_image_tokens = s.n_image_tokens,
                                .do_resize = (int32_t)s.do_resize,
                                .do_rescale = (int32_t)s.do_rescale,
                                .do_normalize = (int32_t)s.do_normalize,
                                .do_convert_rgb = (int32_t)s.do_convert_rgb,
                                .resample = s.resample,
                                .rescale_factor = s.rescale_factor};
    memcpy(out->mean, s.image_mean, sizeof out->mean);
    memcpy(out->std, s.image_std, sizeof out->std);
    pg_status status = pgi_image_settings_check_range(out, PG_ERROR_ARGUMENT);
    return status < 0 ? pgi_error_context(status, "image_settings") : PG_OK;
}

/* options: complete. What the call was given stays while it is under way, whatever other threads close. */
static pg_status encode(const pg_processor *processor, const pg_batch *batch, const pg_encode_options *options,
                        pg_inputs **out) {
    pgi_image_settings settings = processor->image;
    if (options->image_settings) PGI_TRY(image_settings_in(processor, options->image_settings, &settings));
    pg_processor *kept = pgi_processor_retain(processor);
    pgi_cancel_retain(options->cancel);
    pg_status status = pgi_batch_encode(kept, batch, options, &settings, out);
    pgi_cancel_release(options->cancel);
    pgi_processor_release(kept);
    return status;
}

pg_status pg_processor_encode(const pg_processor *processor, const pg_image *image, const char *prompt,
                              const pg_encode_options *options, pg_inputs **out) {
    PGI_ENTER;
    PGI_NOT_NULL(out);
    *out = NULL;
    PGI_NOT_NULL(processor);
    pg_encode_options complete;
    PGI_TRY(encode_options_in(options, &complete));
    pg_image complete_image = {.struct_size = sizeof complete_image};
    PGI_TRY(pgi_struct_in(&complete_image, image, PGI_STRUCT(pg_image)));
    pg_batch batch = {.struct_size = sizeof batch, .n_prompts = 1, .prompts = &prompt};
    if (image) {
        batch.n_images = 1;
        batch.images = &complete_image;
    }
    return encode(processor, &batch, &complete, out);
}

PGI_OPTIONS(pg_batch, .struct_size = sizeof(pg_batch))

static pg_status check_array(int32_t n, const void *array, const char *count_name, const char *name) {
    if (n < 0) return pgi_error(PG_ERROR_ARGUMENT, "pg_batch.%s is %d, expected 0 or more", count_name, n);
    if ((n > 0) != (array != NULL))
        return pgi_error(PG_ERROR_ARGUMENT, "pg_batch.%s is %d, but %s is %s", count_name, n, name,
                         array ? "given" : "NULL");
    return PG_OK;
}

/* Sizes that no text can have. */
static pg_status check_sizes(int32_t n, const char *const *texts, const uint64_t *sizes, const char *name) {
    if (sizes && n == 0) return pgi_error(PG_ERROR_ARGUMENT, "pg_batch.%s_sizes is given without texts", name);
    for (int32_t r = 0; r < n && sizes; r++)
        if (sizes[r] > (texts[r] ? PTRDIFF_MAX : 0))
            return pgi_error_of_row(pgi_error(PG_ERROR_ARGUMENT, "row %d: the %s is %s, but its size is %llu", r, name,
                                              texts[r] ? "given" : "NULL", (unsigned long long)sizes[r]),
                                    r);
    return PG_OK;
}

static pg_status check_batch(const pg_batch *batch) {
    PGI_TRY(check_array(batch->n_prompts, batch->prompts, "n_prompts", "prompts"));
    PGI_TRY(check_array(batch->n_suffixes, batch->suffixes, "n_suffixes", "suffixes"));
    PGI_TRY(check_array(batch->n_images, batch->images, "n_images", "images"));
    PGI_TRY(check_array(batch->n_image_counts, batch->image_counts, "n_image_counts", "image_counts"));
    PGI_TRY(check_sizes(batch->n_prompts, batch->prompts, batch->prompt_sizes, "prompt"));
    PGI_TRY(check_sizes(batch->n_suffixes, batch->suffixes, batch->suffix_sizes, "suffix"));
    if (batch->n_prompts == 0 && batch->n_images == 0)
        return pgi_error(PG_ERROR_ARGUMENT, "the batch has 0 prompts and 0 images, expected some");
    if (batch->n_suffixes != 0 && batch->n_suffixes != batch->n_prompts)
        return pgi_error(PG_ERROR_ARGUMENT, "found %d suffixes for %d prompts, expected one each or none",
                         batch->n_suffixes, batch->n_prompts);
    if (batch->n_image_counts != 0 && batch->n_image_counts != batch->n_prompts)
        return pgi_error(PG_ERROR_ARGUMENT, "found %d image_counts for %d prompts, expected one each or none",
                         batch->n_image_counts, batch->n_prompts);
    for (int32_t r = 0; r < batch->n_image_counts; r++)
        if (batch->image_counts[r] < 0)
            return pgi_error_of_row(pgi_error(PG_ERROR_ARGUMENT, "row %d: image_counts is %d, expected 0 or more", r,
                                              batch->image_counts[r]),
                                    r);
    return PG_OK;
}

/* The caller's images, of any version's size, as an array of this version's. */
static pg_status images_in(const pgi_memory *memory, const pg_image *images, int32_t n, pg_image **out) {
    pg_image *complete = pgi_alloc_zero(memory, (size_t)n, sizeof *complete);
    const uint8_t *at = (const uint8_t *)images;
    uint32_t size = images[0].struct_size;
    *out = complete;
    if (!complete) return PG_ERROR_MEMORY;
    for (int32_t i = 0; i < n; i++) {
        pg_status status = PG_OK;
        uint32_t found;
        memcpy(&found, at, sizeof found);
        if (found != size) /* before anything is read that may lie beyond the array */
            status = pgi_error(PG_ERROR_ARGUMENT, "struct_size is %u, expected %u as in image 0", found, size);
        else
            status = pgi_struct_in(&complete[i], at, PGI_STRUCT(pg_image));
        if (status < 0) return pgi_error_context(status, "image %d", i);
        at += size;
    }
    return PG_OK;
}

pg_status pg_processor_encode_batch(const pg_processor *processor, const pg_batch *batch,
                                    const pg_encode_options *options, pg_inputs **out) {
    PGI_ENTER;
    PGI_NOT_NULL(out);
    *out = NULL;
    PGI_NOT_NULL(processor);
    PGI_NOT_NULL(batch);
    pg_encode_options complete;
    pg_batch rows = pg_batch_defaults;
    pg_image *images = NULL;
    pg_status status = PG_OK;
    PGI_TRY(encode_options_in(options, &complete));
    PGI_TRY(pgi_struct_in(&rows, batch, PGI_STRUCT(pg_batch)));
    PGI_TRY(pgi_reserved_in(rows.reserved, "pg_batch"));
    PGI_TRY(check_batch(&rows));
    pg_processor *kept = pgi_processor_retain(processor); /* its allocator may close the handle */
    if (rows.n_images > 0) status = images_in(&kept->memory, rows.images, rows.n_images, &images);
    rows.images = images;
    if (status >= 0) status = encode(kept, &rows, &complete, out);
    pgi_free(&kept->memory, images);
    pgi_processor_release(kept);
    return status;
}

pg_status pg_processor_tokenize(const pg_processor *processor, const char *text, uint32_t flags, int64_t *ids,
                                size_t capacity, size_t *n_ids) {
    PGI_ENTER;
    PGI_NOT_NULL(processor);
    PGI_NOT_NULL(text);
    PGI_NOT_NULL(n_ids);
    if (capacity > 0) PGI_NOT_NULL(ids);
    PGI_TRY(pgi_flags_in(flags, PG_ENCODE_LITERAL, "PG_ENCODE_LITERAL or 0"));
    PGI_TRY(pgi_processor_needs_text(processor));
    pgi_id_list list;
    pg_processor *kept = pgi_processor_retain(processor); /* its allocator may close the handle */
    pgi_id_list_init(&list, &processor->memory);
    pg_status status =
        pgi_tokenizer_tokenize(processor->tokenizer, text, strlen(text), (flags & PG_ENCODE_LITERAL) != 0, &list);
    if (status >= 0) {
        size_t n = list.size < capacity ? list.size : capacity;
        if (n) memcpy(ids, list.data, n * sizeof *ids);
        *n_ids = list.size;
    }
    pgi_id_list_free(&list);
    pgi_processor_release(kept);
    return status;
}

pg_status pg_processor_decode(const pg_processor *processor, const int64_t *ids, size_t n_ids, uint32_t flags,
                              char *text, size_t capacity, size_t *needed) {
    PGI_ENTER;
    PGI_NOT_NULL(processor);
    if (n_ids > 0) PGI_NOT_NULL(ids);
    PGI_TRY(pgi_flags_in(flags, PG_DECODE_SKIP_SPECIAL, "PG_DECODE_SKIP_SPECIAL or 0"));
    PGI_TRY(pgi_processor_needs_text(processor));
    pgi_buffer buffer;
    pg_processor *kept = pgi_processor_retain(processor);
    pgi_buffer_init(&buffer, &processor->memory);
    pg_status status =
        pgi_tokenizer_decode(processor->tokenizer, ids, n_ids, (flags & PG_DECODE_SKIP_SPECIAL) != 0, &buffer);
    if (status >= 0) status = pgi_copy_text_out((const char *)buffer.data, buffer.size, text, capacity, needed);
    pgi_buffer_free(&buffer);
    pgi_processor_release(kept);
    return status;
}

pg_status pg_processor_get_piece(const pg_processor *processor, int64_t id, const char **piece) {
    PGI_ENTER;
    PGI_NOT_NULL(processor);
    PGI_NOT_NULL(piece);
    PGI_TRY(pgi_processor_needs_text(processor));
    *piece = pgi_tokenizer_piece(processor->tokenizer, id);
    if (!*piece)
        return pgi_error(PG_ERROR_ARGUMENT, "id is %lld, expected 0 to %lld", (long long)id,
                         (long long)pgi_tokenizer_n_ids(processor->tokenizer) - 1);
    return PG_OK;
}

pg_status pg_processor_get_token_id(const pg_processor *processor, const char *piece, int64_t *id) {
    PGI_ENTER;
    PGI_NOT_NULL(processor);
    PGI_NOT_NULL(piece);
    PGI_NOT_NULL(id);
    PGI_TRY(pgi_processor_needs_text(processor));
    *id = pgi_tokenizer_piece_id(processor->tokenizer, piece);
    if (*id < 0) return pgi_error(PG_ERROR_NOT_FOUND, "the vocabulary has no piece \"%s\"", piece);
    return PG_OK;
}

pg_status pg_processor_get_token_flags(const pg_processor *processor, int64_t id, uint32_t *flags) {
    PGI_ENTER;
    PGI_NOT_NULL(processor);
    PGI_NOT_NULL(flags);
    const char *piece;
    PGI_TRY(pg_processor_get_piece(processor, id, &piece)); /* is there such an id? */
    *flags = pgi_tokenizer_token_flags(processor->tokenizer, id);
    return PG_OK;
}

/* What an info says of the tokenizer; without one, no ids. */
static void describe_tokenizer(const pgi_tokenizer *tokenizer, pg_processor_info *info) {
    info->pad_id = info->eos_id = info->bos_id = info->unk_id = info->image_id = -1;
    if (!tokenizer) return;
    const pgi_tokenizer_defaults *defaults = pgi_tokenizer_get_defaults(tokenizer);
    info->vocab_size = (int32_t)pgi_tokenizer_n_ids(tokenizer);
    info->n_model_ids = (int32_t)tokenizer->n_pieces;
    info->padding_side = defaults->pad_left ? PG_SIDE_LEFT : PG_SIDE_RIGHT;
    info->truncation_side = defaults->truncate_left ? PG_SIDE_LEFT : PG_SIDE_RIGHT;
    info->max_length = defaults->max_length;
    info->model_max_length = defaults->model_max_length;
    info->pad_to_multiple_of = defaults->pad_to_multiple_of;
    info->pad_id = pgi_tokenizer_special(tokenizer, PGI_TOKEN_PAD);
    info->eos_id = pgi_tokenizer_special(tokenizer, PGI_TOKEN_EOS);
    info->bos_id = pgi_tokenizer_special(tokenizer, PGI_TOKEN_BOS);
    info->unk_id = pgi_tokenizer_special(tokenizer, PGI_TOKEN_UNK);
    info->image_id = pgi_tokenizer_special(tokenizer, PGI_TOKEN_IMAGE);
}

pg_status pg_processor_get_info(const pg_processor *processor, pg_processor_info *info) {
    PGI_ENTER;
    PGI_NOT_NULL(processor);
    PGI_TRY(pgi_struct_out_check(info, PGI_STRUCT(pg_processor_info)));
    const pgi_image_settings *image = &processor->image;
    pg_processor_info value = {
        .struct_size = sizeof value,
        .image_size = image->width,
        .n_image_tokens = image->n_image_tokens,
        .resample = image->resample,
        .flags = processor->flags,
        .rescale_factor = image->rescale_factor,
        .do_resize = image->do_resize != 0,
        .do_rescale = image->do_rescale != 0,
        .do_normalize = image->do_normalize != 0,
    };
    describe_tokenizer(processor->tokenizer, &value);
    memcpy(value.image_mean, image->mean, sizeof value.image_mean);
    memcpy(value.image_std, image->std, sizeof value.image_std);
    pgi_struct_out(info, &value, sizeof value);
    return PG_OK;
}
