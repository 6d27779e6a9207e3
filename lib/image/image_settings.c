/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The settings of HF's SiglipImageProcessor (transformers 5.23, Pillow backend), from the files that
 * ImageProcessingMixin.get_image_processor_dict reads. A missing key has the default of the class. null is no default:
 * it switches a do_* off, and transformers refuses it where a value is needed. do_convert_rgb is null in the official
 * files, true in those that transformers saved itself.
 */
#include "image/image_settings.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "checkpoint/json_field.h"
#include "image/resize.h"

#define MAX_JSON_SIZE ((size_t)4 << 20)
/* Of an image as the model sees it: 201 MB of f32. The largest published models have 896 x 896. */
enum { MAX_PIXELS = 4096 * 4096 };

/* NULL when the key has its default: it is missing, or it is null and `needed`, the switch that it serves, is off. */
static const pgi_json *find(const pgi_json_section *s, const char *key, int needed) {
    const pgi_json *node = pgi_json_field(s, key);
    return pgi_json_is(node, PGI_JSON_NULL) && !needed ? NULL : node;
}

static pg_status wrong(const pgi_json_section *s, const char *key, const pgi_json *node, const char *expected) {
    return pgi_json_field_wrong_node(s, PG_ERROR_FORMAT, key, node, expected);
}

static pg_status unsupported(const pgi_json_section *s, const char *key, const char *expected) {
    return pgi_json_field_wrong(s, PG_ERROR_UNSUPPORTED, key, expected);
}

/* null is false. */
static pg_status read_bool(const pgi_json_section *s, const char *key, int32_t *value) {
    const pgi_json *node = pgi_json_field(s, key);
    if (pgi_json_is(node, PGI_JSON_NULL)) *value = 0;
    return !node || pgi_json_is(node, PGI_JSON_NULL) ? PG_OK : pgi_json_field_bool(s, key, value);
}

/* Strictly: 224.0 is none. */
static int is_integer_in(const pgi_json *node, int64_t low, int64_t high) {
    return pgi_json_is(node, PGI_JSON_INTEGER) && pgi_json_integer(node) >= low && pgi_json_integer(node) <= high;
}

static pg_status read_whole(const pgi_json_section *s, const char *key, const pgi_json *node, int32_t most,
                            int32_t *out) {
    char expected[48];
    snprintf(expected, sizeof expected, "a whole number from 1 to %d", most);
    if (!is_integer_in(node, 1, most)) return wrong(s, key, node, expected);
    *out = (int32_t)pgi_json_integer(node);
    return PG_OK;
}

/* A number, or one for each of the three channels. */
static pg_status read_channels(const pgi_json_section *s, const char *key, int needed, int zero_allowed,
                               float values[3]) {
    const char *expected = zero_allowed ? "a number, or an array of 3" : "a number other than 0, or an array of 3";
    const pgi_json *node = find(s, key, needed);
    if (!node) return PG_OK;
    if (!pgi_json_is_number(node) && !(pgi_json_is(node, PGI_JSON_ARRAY) && pgi_json_n_items(node) == 3))
        return wrong(s, key, node, expected);
    for (size_t i = 0; i < 3; i++) {
        const pgi_json *item = pgi_json_is(node, PGI_JSON_ARRAY) ? pgi_json_item(node, i) : node;
        double value = pgi_json_number(item);
        if (!pgi_json_is_number(item) || !isfinite((float)value) || (!zero_allowed && (float)value == 0.0f))
            return wrong(s, key, item, expected);
        values[i] = (float)value; /* numpy casts them to the f32 of the image */
    }
    return PG_OK;
}

static pg_status read_size(const pgi_json_section *s, pgi_image_settings *out) {
    const pgi_json *node = find(s, "size", out->do_resize), *height = NULL, *width = NULL;
    int32_t to_square = 0; /* SiglipImageProcessor.default_to_square */
    PGI_TRY(read_bool(s, "default_to_square", &to_square));
    if (!node) return PG_OK;
    if (pgi_json_is(node, PGI_JSON_OBJECT)) {
        height = pgi_json_get(node, "height");
        width = pgi_json_get(node, "width");
        if (!height && !width) return unsupported(s, "size", "\"height\" and \"width\" in it (the image is stretched)");
    } else if (pgi_json_is(node, PGI_JSON_ARRAY) && pgi_json_n_items(node) == 2) {
        height = pgi_json_item(node, 0);
        width = pgi_json_item(node, 1);
    } else if (pgi_json_is(node, PGI_JSON_INTEGER) && to_square) {
        height = width = node;
    } else if (pgi_json_is(node, PGI_JSON_INTEGER)) { /* transformers takes it as the shortest edge */
        return unsupported(s, "size", "an object with \"height\" and \"width\"");
    } else {
        return wrong(s, "size", node, "an object with \"height\" and \"width\"");
    }
    PGI_TRY(read_whole(s, "size.height", height, PGI_MAX_SIDE, &out->height));
    PGI_TRY(read_whole(s, "size.width", width, PGI_MAX_SIDE, &out->width));
    if ((int64_t)out->height * out->width <= MAX_PIXELS) return PG_OK;
    return pgi_error(PG_ERROR_LIMIT, "%s: %ssize: found %d x %d pixels, expected at most %d in all", s->path, s->prefix,
                     out->height, out->width, MAX_PIXELS);
}

static pg_status refuse_if_true(const pgi_json_section *s, const char *key) {
    int32_t value = 0;
    PGI_TRY(read_bool(s, key, &value));
    return value ? unsupported(s, key, "false") : PG_OK;
}

static pg_status check_type(const pgi_json_section *s) {
    static const char *const known[] = {"SiglipImageProcessor", "SiglipImageProcessorFast", "SiglipImageProcessorPil"};
    const pgi_json *node = find(s, "image_processor_type", 0);
    if (!node) return PG_OK;
    for (size_t i = 0; pgi_json_is(node, PGI_JSON_STRING) && i < sizeof known / sizeof *known; i++)
        if (strcmp(pgi_json_text(node), known[i]) == 0) return PG_OK;
    return unsupported(s, "image_processor_type", "\"SiglipImageProcessor\"");
}

/* numpy: the product in f64, rounded to f32; then f32 throughout */
float pgi_pixel_value(const pgi_image_settings *settings, int channel, int sample) {
    float value = settings->do_rescale ? (float)((double)sample * settings->rescale_factor) : (float)sample;
    return settings->do_normalize ? (value - settings->mean[channel]) / settings->std[channel] : value;
}

pg_status pgi_image_settings_check_range(const pgi_image_settings *s, pg_status status) {
    for (int c = 0; c < 3; c++) {
        float low = pgi_pixel_value(s, c, 0), high = pgi_pixel_value(s, c, 255);
        if (isfinite(low) && isfinite(high)) continue;
        return pgi_error(status,
                         "rescale_factor %g, image_mean %g and image_std %g make pixels from %g to %g, expected "
                         "finite ones",
                         s->rescale_factor, (double)s->mean[c], (double)s->std[c], (double)low, (double)high);
    }
    return PG_OK;
}

void pgi_image_settings_default(pgi_image_settings *out) {
    *out = (pgi_image_settings){.width = 224,
                                .height = 224,
                                .do_resize = 1,
                                .do_rescale = 1,
                                .do_normalize = 1,
                                .do_convert_rgb = 1,
                                .resample = PGI_BICUBIC,
                                .rescale_factor = 1.0 / 255.0,
                                .mean = {0.5f, 0.5f, 0.5f},
                                .std = {0.5f, 0.5f, 0.5f}};
}

static pg_status read_settings(const pgi_json_section *s, int images_only, pgi_image_settings *out) {
    pgi_image_settings_default(out);
    PGI_TRY(check_type(s));
    PGI_TRY(read_bool(s, "do_resize", &out->do_resize));
    PGI_TRY(read_bool(s, "do_rescale", &out->do_rescale));
    PGI_TRY(read_bool(s, "do_normalize", &out->do_normalize));
    PGI_TRY(read_bool(s, "do_convert_rgb", &out->do_convert_rgb));
    PGI_TRY(refuse_if_true(s, "do_center_crop"));
    PGI_TRY(refuse_if_true(s, "do_pad"));
    PGI_TRY(read_size(s, out));
    PGI_TRY(read_channels(s, "image_mean", out->do_normalize, 1, out->mean));
    PGI_TRY(read_channels(s, "image_std", out->do_normalize, 0, out->std));
    const pgi_json *resample = find(s, "resample", out->do_resize);
    if (resample && !is_integer_in(resample, PGI_NEAREST, PGI_HAMMING))
        return pgi_json_field_wrong(s, pgi_json_is(resample, PGI_JSON_INTEGER) ? PG_ERROR_UNSUPPORTED : PG_ERROR_FORMAT,
                                    "resample", "Pillow's number of a filter, 0 to 5");
    if (resample) out->resample = (int32_t)pgi_json_integer(resample);
    const pgi_json *factor = find(s, "rescale_factor", out->do_rescale);
    if (factor && !(pgi_json_is_number(factor) && isfinite(pgi_json_number(factor))))
        return wrong(s, "rescale_factor", factor, "a finite number");
    if (factor) out->rescale_factor = pgi_json_number(factor);
    /* No default: transformers' PaliGemmaProcessor fails without it too. */
    const pgi_json *n_tokens = find(s, "image_seq_length", 0);
    if (!n_tokens && !images_only)
        return pgi_json_field_wrong_node(s, PG_ERROR_NOT_FOUND, "image_seq_length", NULL,
                                         "the number of <image> tokens per image");
    if (n_tokens) PGI_TRY(read_whole(s, "image_seq_length", n_tokens, PGI_MAX_IMAGE_TOKENS, &out->n_image_tokens));
    pg_status status = pgi_image_settings_check_range(out, PG_ERROR_FORMAT);
    return status < 0 ? pgi_error_context(status, "%s", s->path) : PG_OK;
}

/* *found: 1 when the file has settings. */
static pg_status load_file(const pgi_memory *memory, const char *path, int nested, int images_only,
                           pgi_image_settings *out, int *found) {
    const pgi_json *root;
    pgi_json_doc doc;
    *found = 0;
    if (!pgi_file_exists(path)) return PG_OK;
    pgi_json_doc_init(&doc, memory);
    pg_status status = pgi_json_load(&doc, path, MAX_JSON_SIZE, PGI_JSON_STRICT, &root);
    pgi_json_section s = {path, "", root};
    if (status == PG_OK && nested) {
        if (pgi_json_field_is_set(&s, "image_processor") &&
            !pgi_json_is(pgi_json_field(&s, "image_processor"), PGI_JSON_OBJECT))
            status = pgi_json_field_wrong(&s, PG_ERROR_FORMAT, "image_processor", "an object");
        s = (pgi_json_section){path, "image_processor.", pgi_json_field(&s, "image_processor")};
    }
    if (status == PG_OK && pgi_json_is(s.object, PGI_JSON_OBJECT)) {
        *found = 1;
        status = read_settings(&s, images_only, out);
    }
    pgi_json_doc_free(&doc);
    return status;
}

/* In transformers' order: processor_config.json when it has image settings in it, then preprocessor_config.json. */
pg_status pgi_image_settings_load(const pgi_memory *memory, const char *folder, int images_only,
                                  pgi_image_settings *out) {
    char *nested = pgi_path_join(memory, folder, "processor_config.json");
    char *flat = pgi_path_join(memory, folder, "preprocessor_config.json");
    int found = 0;
    pg_status status = nested && flat ? PG_OK : PG_ERROR_MEMORY;
    if (status == PG_OK) status = load_file(memory, nested, 1, images_only, out, &found);
    if (status == PG_OK && !found) status = load_file(memory, flat, 0, images_only, out, &found);
    if (status == PG_OK && !found)
        status =
            pgi_error(PG_ERROR_NOT_FOUND,
                      "%s: found neither \"image_processor\" in processor_config.json nor a preprocessor_config.json, "
                      "expected image settings",
                      folder);
    pgi_free(memory, nested);
    pgi_free(memory, flat);
    return status;
}
