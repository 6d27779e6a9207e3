/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * One call of the processor: counts the images of each row, makes ids and pixels, and stacks the rows (HF:
 * PaliGemmaProcessor.__call__).
 */
#include "processor/batch.h"

#include <stdio.h>

#include <string.h>

#include "image/image.h"
#include "image/preprocess.h"
#include "processor/layout_big_vision.h"
#include "processor/truncation.h"

typedef struct batch_encoder {
    const pg_processor *processor;
    const pg_batch *batch;
    const pg_encode_options *options;
    pgi_layout layout;
    pgi_truncation truncation;
    int text_only;                /* of the processor: rows without an image, others are refused */
    int64_t max_length, multiple; /* 0: none */
    int64_t max_tokens;           /* of a row */
    pgi_id_list ids;              /* of all rows, one after the other, without padding */
    pgi_row *rows;                /* [n_prompts]; first_token: unused until T is known */
} batch_encoder;

static pgi_text text_of(const char *const *texts, const uint64_t *sizes, int32_t row) {
    pgi_text text = {texts && texts[row] ? texts[row] : "", 0};
    text.size = sizes ? (size_t)sizes[row] : strlen(text.data);
    return text;
}

static pgi_text prompt_of(const pg_batch *batch, int32_t row) {
    return text_of(batch->prompts, batch->prompt_sizes, row);
}

static pgi_text suffix_of(const pg_batch *batch, int32_t row) {
    return text_of(batch->suffixes, batch->suffix_sizes, row);
}

static void init_encoder(batch_encoder *e, const pg_processor *processor, const pg_batch *batch,
                         const pg_encode_options *options, int32_t n_image_tokens) {
    const pgi_tokenizer *tokenizer = processor->tokenizer;
    const pgi_tokenizer_defaults *defaults = pgi_tokenizer_get_defaults(tokenizer);
    int big_vision = options->mode == PG_MODE_BIG_VISION;
    *e = (batch_encoder){.processor = processor,
                         .batch = batch,
                         .options = options,
                         .text_only = (processor->flags & PG_PROCESSOR_TEXT_ONLY) != 0};
    e->max_length = options->max_length    ? options->max_length
                    : defaults->max_length ? defaults->max_length
                                           : defaults->model_max_length;
    e->max_tokens = options->max_tokens;
    e->multiple = options->pad_to_multiple_of ? options->pad_to_multiple_of : defaults->pad_to_multiple_of;
    e->layout = (pgi_layout){
        .tokenizer = tokenizer,
        .n_image_tokens = n_image_tokens,
        .literal = big_vision || (options->flags & PG_ENCODE_LITERAL),
    };
    e->truncation = (pgi_truncation){
        .part = options->truncation,
        .from_left = options->truncation_side == PG_SIDE_DEFAULT ? defaults->truncate_left && !big_vision
                                                                 : options->truncation_side == PG_SIDE_LEFT,
        .keep_ends = (options->flags & PG_ENCODE_KEEP_ENDS) != 0,
        .as_one = big_vision,
        .image_id = pgi_tokenizer_special(tokenizer, PGI_TOKEN_IMAGE),
        .bos_id = pgi_tokenizer_special(tokenizer, PGI_TOKEN_BOS),
        .has_eos = !(options->flags & PG_ENCODE_OPEN_SUFFIX),
    };
    if (options->flags & PG_ENCODE_TRUNCATE) e->truncation.max_length = e->max_length;
    pgi_id_list_init(&e->ids, &processor->memory);
    e->ids.cancel = options->cancel;
}

/* ---- how many images each row has ---- */

/* The number of `<image>` in each prompt counts; what the caller says must agree. */
static pg_status check_placed(const batch_encoder *e) {
    const pg_batch *batch = e->batch;
    int64_t total = 0;
    for (int32_t r = 0; r < batch->n_prompts; r++) {
        int64_t n = e->rows[r].n_images;
        if (batch->image_counts && batch->image_counts[r] != n)
            return pgi_error_of_row(pgi_error(PG_ERROR_ARGUMENT,
                                              "row %d: the prompt has %lld `<image>`, but image_counts[%d] is %d "
                                              "(PG_ENCODE_LITERAL takes them as text)",
                                              r, (long long)n, r, batch->image_counts[r]),
                                    r);
        total += n;
        if (batch->n_images > 0 && total > batch->n_images)
            return pgi_error_of_row(
                pgi_error(PG_ERROR_ARGUMENT,
                          "row %d: the prompt has %lld `<image>`, expected at most %lld: the "
                          "batch has %d images (PG_ENCODE_LITERAL takes `<image>` as text)",
                          r, (long long)n, (long long)(batch->n_images - (total - n)), batch->n_images),
                r);
    }
    if (batch->n_images > 0 && total != batch->n_images)
        return pgi_error(PG_ERROR_ARGUMENT,
                         "the prompts of rows 0 to %d have %lld `<image>`, but the batch has %d "
                         "images (PG_ENCODE_LITERAL takes `<image>` as text)",
                         batch->n_prompts - 1, (long long)total, batch->n_images);
    return PG_OK;
}

static pg_status count_in_front(batch_encoder *e) {
    const pg_batch *batch = e->batch;
    int64_t total = 0;
    for (int32_t r = 0; r < batch->n_prompts; r++) {
        e->rows[r].n_images = batch->image_counts ? batch->image_counts[r] : !e->text_only;
        total += e->rows[r].n_images;
    }
    if (batch->n_images == 0 || total == batch->n_images) return PG_OK;
    if (batch->image_counts)
        return pgi_error(PG_ERROR_ARGUMENT, "image_counts of rows 0 to %d make %lld, but the batch has %d images",
                         batch->n_prompts - 1, (long long)total, batch->n_images);
    return pgi_error(PG_ERROR_ARGUMENT,
                     "found %d images for %d prompts, expected one each (image_counts gives "
                     "rows more or fewer)",
                     batch->n_images, batch->n_prompts);
}

static pg_status count_images(batch_encoder *e) {
    const pg_batch *batch = e->batch;
    /* a stranger's `<image>` of 7 bytes stands for up to 4096 tokens: refused before they are made */
    int64_t first = 0, most = e->max_tokens / (e->layout.n_image_tokens > 0 ? e->layout.n_image_tokens : 1);
    for (int32_t r = 0; r < batch->n_prompts && !e->layout.literal; r++) {
        e->rows[r].n_images = pgi_layout_count_images(prompt_of(batch, r));
        if (e->rows[r].n_images > 0) e->layout.placed = 1;
    }
    if (e->layout.placed)
        PGI_TRY(check_placed(e));
    else
        PGI_TRY(count_in_front(e));
    for (int32_t r = 0; r < batch->n_prompts; r++) {
        if (e->rows[r].n_images > 0 && e->text_only)
            return pgi_error_of_row(pgi_error_context(pgi_processor_needs_images(e->processor), "row %d", r), r);
        if (e->rows[r].n_images > most)
            return pgi_error_of_row(
                pgi_error(PG_ERROR_LIMIT,
                          "row %d: found %lld images, expected at most %lld of %d tokens each, as max_tokens is %lld",
                          r, (long long)e->rows[r].n_images, (long long)most, e->layout.n_image_tokens,
                          (long long)e->max_tokens),
                r);
        e->rows[r].first_image = first;
        first += e->rows[r].n_images;
    }
    return PG_OK;
}

/* ---- the ids of each row ---- */

static int64_t count_id(const int64_t *ids, int64_t n, int64_t id) {
    int64_t count = 0;
    for (int64_t i = 0; i < n; i++) count += ids[i] == id;
    return count;
}

/* HF: ProcessorMixin._check_special_mm_tokens. */
static pg_status check_image_tokens(const batch_encoder *e, pgi_row *row, int64_t n_suffix_images) {
    const int64_t *ids = e->ids.data + e->ids.size - row->n_tokens;
    int64_t id = e->truncation.image_id, n_prefix = row->n_tokens - row->n_suffix;
    int64_t in_prefix = count_id(ids, n_prefix, id), in_suffix = count_id(ids + n_prefix, row->n_suffix, id);
    int64_t expected = row->n_images * e->layout.n_image_tokens;
    if (in_prefix < expected) row->events |= PG_ROW_TRUNCATED_IMAGE;
    if (in_prefix + in_suffix == expected) return PG_OK;
    if (n_suffix_images > 0)
        return pgi_error(PG_ERROR_ARGUMENT,
                         "the suffix has %lld `<image>`, expected none (PG_ENCODE_LITERAL takes them "
                         "as text)",
                         (long long)n_suffix_images);
    if (in_prefix < expected && row->n_truncated > 0)
        return pgi_error(PG_ERROR_ARGUMENT,
                         "found %lld of %lld image tokens after truncation to max_length %lld: "
                         "longer, or PG_ENCODE_KEEP_ENDS or PG_TRUNCATION_SUFFIX, keeps them",
                         (long long)in_prefix, (long long)expected, (long long)e->truncation.max_length);
    return pgi_error(PG_ERROR_ARGUMENT, "found %lld image tokens for %lld images, expected %lld",
                     (long long)(in_prefix + in_suffix), (long long)row->n_images, (long long)expected);
}

static pg_status check_bytes(const batch_encoder *e, const char *what, pgi_text text) {
    if (text.size <= (uint64_t)e->options->max_text_bytes) return PG_OK;
    return pgi_error(PG_ERROR_LIMIT, "found a %s of %zu bytes, expected at most max_text_bytes, %lld", what, text.size,
                     (long long)e->options->max_text_bytes);
}

static pg_status tokenize_row(batch_encoder *e, int32_t r, int64_t *n_prefix, int64_t *n_suffix) {
    const pg_batch *batch = e->batch;
    pgi_row *row = &e->rows[r];
    size_t begin = e->ids.size;
    int open = (e->options->flags & PG_ENCODE_OPEN_SUFFIX) != 0, has_suffix = batch->n_suffixes > 0;
    pgi_text prompt = prompt_of(batch, r), suffix = suffix_of(batch, r);
    PGI_TRY(check_bytes(e, "prompt", prompt));
    if (has_suffix) PGI_TRY(check_bytes(e, "suffix", suffix));
    if (e->options->mode == PG_MODE_BIG_VISION) {
        pgi_big_vision_row texts = {(int32_t)row->n_images, prompt, has_suffix ? suffix : (pgi_text){0}, open};
        PGI_TRY(pgi_layout_big_vision(&e->layout, &texts, &e->ids, n_prefix));
    } else {
        PGI_TRY(pgi_layout_prefix(&e->layout, prompt, row->n_images, &e->ids, &row->events));
        *n_prefix = (int64_t)(e->ids.size - begin);
        if (has_suffix) PGI_TRY(pgi_layout_suffix(&e->layout, suffix, open, &e->ids));
    }
    *n_suffix = (int64_t)(e->ids.size - begin) - *n_prefix;
    return PG_OK;
}

static pg_status encode_row(batch_encoder *e, int32_t r) {
    pgi_row *row = &e->rows[r];
    int64_t n_prefix, n_suffix;
    PGI_TRY(tokenize_row(e, r, &n_prefix, &n_suffix));
    int64_t n = n_prefix + n_suffix;
    int64_t suffix_images =
        n == 0 ? 0 : count_id(e->ids.data + e->ids.size - n_suffix, n_suffix, e->truncation.image_id);
    PGI_TRY(pgi_truncate(&e->truncation, &e->ids, &n_prefix, &n_suffix, &row->events));
    row->n_tokens = n_prefix + n_suffix;
    row->n_suffix = n_suffix;
    row->n_truncated = n - row->n_tokens;
    if (row->n_tokens > e->max_tokens)
        return pgi_error(PG_ERROR_LIMIT,
                         "found %lld tokens, expected at most max_tokens, %lld; raise it, or truncate with max_length",
                         (long long)row->n_tokens, (long long)e->max_tokens);
    return check_image_tokens(e, row, suffix_images);
}

/* ---- rows side by side ---- */

/* HF: PreTrainedTokenizerBase._get_padding_truncation_strategies and tokenizers, utils/padding.rs. */
static pg_status padded_length(const batch_encoder *e, int64_t *out) {
    int64_t multiple = e->multiple, longest = 0, shortest = INT64_MAX, total = 0, length;
    int32_t padding = e->options->padding, r_longest = 0, r_shortest = 0;
    for (int32_t r = 0; r < e->batch->n_prompts; r++) {
        int64_t n = e->rows[r].n_tokens;
        total += n;
        if (n > longest) longest = n, r_longest = r;
        if (n < shortest) shortest = n, r_shortest = r;
    }
    if (padding == PG_PADDING_MAX_LENGTH && e->max_length == 0) padding = PG_PADDING_NONE;
    length = padding == PG_PADDING_NONE ? 0 : padding == PG_PADDING_LONGEST ? longest : e->max_length;
    if (padding != PG_PADDING_NONE && multiple > 0 && length % multiple != 0) length += multiple - length % multiple;
    if (longest > length) { /* HF leaves such rows as they are, and then cannot stack them unless all are alike */
        if (shortest != longest)
            return pgi_error(PG_ERROR_ARGUMENT,
                             "row %d has %lld tokens and row %d has %lld: rows of different lengths "
                             "cannot be stacked%s",
                             r_longest, (long long)longest, r_shortest, (long long)shortest,
                             padding == PG_PADDING_NONE ? " without padding" : ", and max_length is less");
        length = longest;
    }
    if (length > longest && length > PGI_MAX_ROW_TOKENS)
        return pgi_error_of_row(
            pgi_error(PG_ERROR_LIMIT,
                      "row %d has %lld tokens, and max_length %lld and pad_to_multiple_of %lld pad it "
                      "to %lld, expected at most %d",
                      r_longest, (long long)longest, (long long)e->max_length, (long long)multiple, (long long)length,
                      PGI_MAX_ROW_TOKENS),
            r_longest);
    if (length * e->batch->n_prompts - total > PGI_MAX_ROW_TOKENS)
        return pgi_error_of_row(
            pgi_error(PG_ERROR_LIMIT,
                      "row %d has %lld tokens, so that %d rows of %lld tokens in all would be padded to %lld each, "
                      "expected at most %d tokens of padding; make batches of rows that are alike",
                      r_longest, (long long)longest, e->batch->n_prompts, (long long)total, (long long)length,
                      PGI_MAX_ROW_TOKENS),
            r_longest);
    *out = length;
    return PG_OK;
}

static pg_status stack_rows(const batch_encoder *e, pg_inputs *inputs) {
    int32_t n_rows = e->batch->n_prompts, side = e->options->padding_side;
    int64_t pad = pgi_tokenizer_special(e->layout.tokenizer, PGI_TOKEN_PAD), length = 0;
    int left =
        side == PG_SIDE_DEFAULT ? pgi_tokenizer_get_defaults(e->layout.tokenizer)->pad_left : side == PG_SIDE_LEFT;
    PGI_TRY(padded_length(e, &length));
    PGI_TRY(pgi_inputs_add_rows(inputs, n_rows, length));
    inputs->ids = pgi_inputs_new_numbers(inputs);
    inputs->labels = pgi_inputs_new_numbers(inputs);
    inputs->image_counts = pgi_alloc(&inputs->memory, (size_t)n_rows, sizeof(int64_t));
    if (!inputs->ids || !inputs->labels || !inputs->image_counts) return PG_ERROR_MEMORY;
    const int64_t *from = e->ids.data;
    for (int32_t r = 0; r < n_rows; r++) {
        pgi_row *row = &inputs->rows[r];
        *row = e->rows[r];
        row->first_token = left ? length - row->n_tokens : 0;
        if (row->n_tokens < length && pad < 0)
            return pgi_error_of_row(pgi_error(PG_ERROR_UNSUPPORTED,
                                              "row %d has %lld tokens and needs %lld, but the tokenizer has no "
                                              "pad token",
                                              r, (long long)row->n_tokens, (long long)length),
                                    r);
        int64_t *ids = inputs->ids + r * length, *labels = inputs->labels + r * length;
        int64_t *types = inputs->token_type_ids + r * length;
        int64_t end = row->first_token + row->n_tokens, suffix = end - row->n_suffix;
        for (int64_t t = 0; t < length; t++) {
            int is_suffix = t >= suffix && t < end;
            ids[t] = t >= row->first_token && t < end ? *from++ : pad;
            types[t] = is_suffix;
            labels[t] = is_suffix ? ids[t] : PGI_NO_LABEL;
        }
        inputs->image_counts[r] = row->n_images;
    }
    pgi_inputs_fill_rows(inputs);
    return PG_OK;
}

/* HF refuses that too: rows truncated to max_length and then padded beyond it are not what was asked for. */
static pg_status check_lengths(const batch_encoder *e) {
    if (e->truncation.max_length == 0 || e->options->padding == PG_PADDING_NONE || e->multiple == 0 ||
        e->max_length % e->multiple == 0)
        return PG_OK;
    return pgi_error(PG_ERROR_ARGUMENT,
                     "max_length is %lld%s, expected a multiple of pad_to_multiple_of, %lld%s, "
                     "where rows are both truncated and padded",
                     (long long)e->max_length, e->options->max_length ? "" : " (the tokenizer's)",
                     (long long)e->multiple, e->options->pad_to_multiple_of ? "" : " (the tokenizer's)");
}

static pg_status add_rows(const pg_processor *processor, const pg_batch *batch, const pg_encode_options *options,
                          int32_t n_image_tokens, pg_inputs *inputs) {
    batch_encoder e;
    pg_status status;
    init_encoder(&e, processor, batch, options, n_image_tokens);
    PGI_TRY(check_lengths(&e));
    e.rows = pgi_alloc_zero(&processor->memory, (size_t)batch->n_prompts, sizeof *e.rows);
    if (!e.rows) return PG_ERROR_MEMORY;
    PGI_GOTO(count_images(&e), done);
    for (int32_t r = 0; r < batch->n_prompts; r++) {
        status = pgi_cancel_check(options->cancel);
        if (status >= 0) status = encode_row(&e, r);
        if (status == PG_ERROR_MEMORY || status == PG_ERROR_CANCELLED) goto done;
        if (status < 0) {
            pgi_error_of_row(pgi_error_context(status, "row %d", r), r);
            goto done;
        }
    }
    status = stack_rows(&e, inputs);
done:
    pgi_free(&processor->memory, e.rows);
    pgi_id_list_free(&e.ids);
    return status;
}

/* ---- images ---- */

/* What is the same for all images of a call. */
typedef struct image_encoder {
    const pg_processor *processor;
    const pg_encode_options *options;
    const pgi_image_settings *settings;
    pg_inputs *inputs; /* pixels: made for the first image, which decides the size where nothing is resized */
} image_encoder;

static pg_status open_image(const image_encoder *e, const pg_image *image, pgi_opened *opened, int32_t *alpha_dropped) {
    static const uint8_t white[3] = {255, 255, 255};
    pgi_image_limits limits = {.max_pixels = e->options->max_image_pixels,
                               .exif = (e->options->flags & PG_ENCODE_EXIF) != 0,
                               .cancel = e->options->cancel,
                               .log = &e->processor->log,
                               .ground = e->options->flags & PG_ENCODE_OVER_WHITE ? white : NULL,
                               .alpha_dropped = alpha_dropped,
                               .over_white = e->settings->do_convert_rgb && e->options->mode != PG_MODE_BIG_VISION};
    PGI_TRY(pgi_cancel_check(e->options->cancel));
    return pgi_image_open(&e->processor->memory, &e->processor->kernels, image, &limits, opened);
}

static pg_status write_pixels(const image_encoder *e, int32_t n_images, int32_t i, const pgi_opened *opened) {
    const pgi_memory *memory = &e->processor->memory;
    const pgi_image_settings *settings = e->settings;
    pg_inputs *inputs = e->inputs;
    int big_vision = e->options->mode == PG_MODE_BIG_VISION, resized = big_vision || settings->do_resize;
    int32_t width = resized ? settings->width : opened->rows.width;
    int32_t height = resized ? settings->height : opened->rows.height;
    if (i == 0) PGI_TRY(pgi_inputs_add_pixels(inputs, n_images, width, height));
    if (width != inputs->image_width || height != inputs->image_height)
        return pgi_error(PG_ERROR_ARGUMENT,
                         "image: found %d x %d pixels, expected %d x %d as the first image has: the image settings "
                         "have do_resize false",
                         width, height, inputs->image_width, inputs->image_height);
    float *pixels = inputs->pixels + (size_t)i * 3 * (size_t)width * (size_t)height;
    const pg_cancel *cancel = e->options->cancel;
    return big_vision ? pgi_big_vision_pixels(memory, cancel, settings, opened, pixels)
                      : pgi_image_to_pixels(memory, &e->processor->kernels, cancel, settings, opened, pixels);
}

static pg_status add_image(const image_encoder *e, const pg_batch *batch, int32_t i, int32_t *alpha_dropped) {
    pgi_opened opened;
    PGI_TRY(open_image(e, &batch->images[i], &opened, alpha_dropped));
    e->inputs->image_sizes[2 * (int64_t)i] = opened.height;
    e->inputs->image_sizes[2 * (int64_t)i + 1] = opened.width;
    pg_status status = write_pixels(e, batch->n_images, i, &opened);
    pgi_image_close(&e->processor->memory, &opened);
    return status;
}

/* Says which image it was, where there are several. */
static pg_status image_error(const pg_inputs *inputs, int32_t i, pg_status status) {
    for (int64_t r = 0; r < inputs->n_rows; r++) {
        const pgi_row *row = &inputs->rows[r];
        if (i >= row->first_image && i < row->first_image + row->n_images)
            return pgi_error_of_row(
                pgi_error_context(status, "row %lld: image %lld", (long long)r, (long long)(i - row->first_image)), r);
    }
    return pgi_error_context(status, "image %d", i);
}

/* Users expect white where an image is transparent, and see what its pixels hide. */
static pg_status warn_of_alpha(const pg_processor *processor, const pg_batch *batch, int32_t first, int32_t n) {
    const pg_image *image = &batch->images[first];
    const char *name = image->format == PG_IMAGE_PATH    ? image->path
                       : image->format == PG_IMAGE_BYTES ? "image bytes"
                                                         : "pixels";
    char more[48] = "";
    if (n > 1) snprintf(more, sizeof more, " (and %d more of %d images)", n - 1, batch->n_images);
    return pgi_log_line(
        &processor->log, PG_LOG_WARNING,
        "%s%s: transparent pixels lose their alpha, as with a path in transformers; PG_ENCODE_OVER_WHITE lays "
        "them over white, as with an opened image there",
        name, more);
}

static pg_status add_pixels(const image_encoder *e, const pg_batch *batch) {
    int32_t first = -1, n_dropped = 0;
    pg_inputs *inputs = e->inputs;
    inputs->image_sizes = pgi_alloc(&inputs->memory, (size_t)batch->n_images, 2 * sizeof *inputs->image_sizes);
    if (!inputs->image_sizes) return PG_ERROR_MEMORY;
    for (int32_t i = 0; i < batch->n_images; i++) {
        int32_t dropped = 0;
        pg_status status = add_image(e, batch, i, &dropped);
        if (dropped && n_dropped++ == 0) first = i;
        if (status == PG_ERROR_CANCELLED) return status;
        if (status < 0) return batch->n_images > 1 ? image_error(inputs, i, status) : status;
    }
    return n_dropped ? warn_of_alpha(e->processor, batch, first, n_dropped) : PG_OK;
}

pg_status pgi_batch_encode(const pg_processor *processor, const pg_batch *batch, const pg_encode_options *options,
                           const pgi_image_settings *settings, pg_inputs **out) {
    pg_inputs *inputs = NULL;
    pg_status status;
    *out = NULL;
    PGI_TRY(pgi_inputs_new(&processor->memory, &inputs));
    if (batch->n_images > 0) PGI_GOTO(pgi_processor_needs_images(processor), fail);
    if (batch->n_prompts > 0) PGI_GOTO(pgi_processor_needs_text(processor), fail);
    image_encoder images = {processor, options, settings, inputs};
    if (batch->n_prompts > 0) PGI_GOTO(add_rows(processor, batch, options, settings->n_image_tokens, inputs), fail);
    if (batch->n_images > 0) PGI_GOTO(add_pixels(&images, batch), fail);
    *out = inputs;
    return PG_OK;
fail:
    pgi_inputs_release(inputs);
    return status;
}
