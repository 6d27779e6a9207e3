/*
 * The settings of HF's SiglipImageProcessor and its arithmetic (transformers
 * 5.23, Pillow backend): ImageProcessingMixin.get_image_processor_dict for the
 * files, PilBackend._preprocess and image_transforms.rescale and .normalize for
 * the pixels. A key that is missing has the default of the class; null is no
 * default: it switches a do_* off, and transformers refuses it where a value is
 * needed. do_convert_rgb (null in the official files) is not asked: images are
 * always made RGB, which is what the model needs.
 */
#include "image/image_settings.h"

#include <math.h>
#include <string.h>

#include "base/file.h"
#include "checkpoint/json.h"
#include "image/resize.h"

enum { MAX_SIDE = 16384, MAX_IMAGE_TOKENS = 65536 /* as config.c allows patches */ };
#define MAX_JSON_SIZE ((size_t)16 << 20)

/* The object that holds the settings, and how its keys are called in messages. */
typedef struct source {
    const json_t *object;
    const char *path;
    const char *prefix; /* "image_processor." or "" */
} source;

/* NULL when the key has its default: it is missing, or it is null and `needed`, the switch that it serves, is off. */
static const json_t *find(const source *s, const char *key, int needed) {
    const json_t *node = json_object_get(s->object, key);
    return json_is_null(node) && !needed ? NULL : node;
}

static pg_status wrong(const source *s, pg_status status, const char *key, const json_t *node, const char *expected) {
    char found[PGI_JSON_DESCRIPTION];
    return pgi_error(status, "%s: %s%s: found %s, expected %s", s->path, s->prefix, key,
                     pgi_json_describe(node, found, sizeof found), expected);
}

static pg_status read_bool(const source *s, const char *key, int32_t *value) {
    const json_t *node = find(s, key, 1);
    if (!node) return PG_OK;
    if (!json_is_boolean(node) && !json_is_null(node)) return wrong(s, PG_ERROR_FORMAT, key, node, "true or false");
    *value = json_is_true(node);
    return PG_OK;
}

static int is_integer_in(const json_t *node, json_int_t low, json_int_t high) {
    return json_is_integer(node) && json_integer_value(node) >= low && json_integer_value(node) <= high;
}

/* A number, or one for each of the three channels. */
static pg_status read_channels(const source *s, const char *key, int needed, int zero_allowed, float values[3]) {
    const char *expected = zero_allowed ? "a number, or an array of 3" : "a number other than 0, or an array of 3";
    const json_t *node = find(s, key, needed);
    if (!node) return PG_OK;
    if (!json_is_number(node) && !(json_is_array(node) && json_array_size(node) == 3))
        return wrong(s, PG_ERROR_FORMAT, key, node, expected);
    for (size_t i = 0; i < 3; i++) {
        const json_t *item = json_is_array(node) ? json_array_get(node, i) : node;
        double value = json_number_value(item);
        if (!json_is_number(item) || !isfinite((float)value) || (!zero_allowed && (float)value == 0.0f))
            return wrong(s, PG_ERROR_FORMAT, key, item, expected);
        values[i] = (float)value; /* numpy casts them to the f32 of the image */
    }
    return PG_OK;
}

static pg_status read_size(const source *s, pgi_image_settings *out) {
    const json_t *node = find(s, "size", out->do_resize), *height = NULL, *width = NULL;
    int32_t to_square = 0; /* SiglipImageProcessor.default_to_square */
    PGI_TRY(read_bool(s, "default_to_square", &to_square));
    if (!node) return PG_OK;
    if (json_is_object(node)) {
        height = json_object_get(node, "height");
        width = json_object_get(node, "width");
        if (!height && !width)
            return wrong(s, PG_ERROR_UNSUPPORTED, "size", node,
                         "\"height\" and \"width\" in it (the image is stretched)");
    } else if (json_is_array(node) && json_array_size(node) == 2) {
        height = json_array_get(node, 0);
        width = json_array_get(node, 1);
    } else if (json_is_integer(node) && to_square) {
        height = width = node;
    } else if (json_is_integer(node)) { /* transformers takes it as the shortest edge */
        return wrong(s, PG_ERROR_UNSUPPORTED, "size", node, "an object with \"height\" and \"width\"");
    } else {
        return wrong(s, PG_ERROR_FORMAT, "size", node, "an object with \"height\" and \"width\"");
    }
    if (!is_integer_in(height, 1, MAX_SIDE))
        return wrong(s, PG_ERROR_FORMAT, "size.height", height, "a whole number from 1 to 16384");
    if (!is_integer_in(width, 1, MAX_SIDE))
        return wrong(s, PG_ERROR_FORMAT, "size.width", width, "a whole number from 1 to 16384");
    if (json_integer_value(height) != json_integer_value(width))
        return pgi_error(PG_ERROR_UNSUPPORTED, "%s: %ssize: found height %d and width %d, expected a square", s->path,
                         s->prefix, (int)json_integer_value(height), (int)json_integer_value(width));
    out->height = (int32_t)json_integer_value(height);
    out->width = (int32_t)json_integer_value(width);
    return PG_OK;
}

static pg_status refuse_if_true(const source *s, const char *key) {
    int32_t value = 0;
    PGI_TRY(read_bool(s, key, &value));
    return value ? wrong(s, PG_ERROR_UNSUPPORTED, key, find(s, key, 1), "false") : PG_OK;
}

static pg_status check_type(const source *s) {
    static const char *const known[] = {"SiglipImageProcessor", "SiglipImageProcessorFast", "SiglipImageProcessorPil"};
    const json_t *node = find(s, "image_processor_type", 0);
    if (!node) return PG_OK;
    for (size_t i = 0; json_is_string(node) && i < sizeof known / sizeof *known; i++)
        if (strcmp(json_string_value(node), known[i]) == 0) return PG_OK;
    return wrong(s, PG_ERROR_UNSUPPORTED, "image_processor_type", node, "\"SiglipImageProcessor\"");
}

static pg_status read_settings(const source *s, pgi_image_settings *out) {
    *out = (pgi_image_settings){.width = 224,
                                .height = 224,
                                .do_resize = 1,
                                .do_rescale = 1,
                                .do_normalize = 1,
                                .resample = PGI_BICUBIC,
                                .rescale_factor = 1.0 / 255.0,
                                .mean = {0.5f, 0.5f, 0.5f},
                                .std = {0.5f, 0.5f, 0.5f}};
    PGI_TRY(check_type(s));
    PGI_TRY(read_bool(s, "do_resize", &out->do_resize));
    PGI_TRY(read_bool(s, "do_rescale", &out->do_rescale));
    PGI_TRY(read_bool(s, "do_normalize", &out->do_normalize));
    PGI_TRY(refuse_if_true(s, "do_center_crop"));
    PGI_TRY(refuse_if_true(s, "do_pad"));
    PGI_TRY(read_size(s, out));
    PGI_TRY(read_channels(s, "image_mean", out->do_normalize, 1, out->mean));
    PGI_TRY(read_channels(s, "image_std", out->do_normalize, 0, out->std));
    const json_t *resample = find(s, "resample", out->do_resize);
    if (resample && !is_integer_in(resample, PGI_NEAREST, PGI_HAMMING))
        return wrong(s, json_is_integer(resample) ? PG_ERROR_UNSUPPORTED : PG_ERROR_FORMAT, "resample", resample,
                     "Pillow's number of a filter, 0 to 5");
    if (resample) out->resample = (int32_t)json_integer_value(resample);
    const json_t *factor = find(s, "rescale_factor", out->do_rescale);
    if (factor && !(json_is_number(factor) && json_number_value(factor) > 0.0 && isfinite(json_number_value(factor))))
        return wrong(s, PG_ERROR_FORMAT, "rescale_factor", factor, "a number above 0");
    if (factor) out->rescale_factor = json_number_value(factor);
    /* No default: transformers fails without it too. */
    const json_t *n_tokens = find(s, "image_seq_length", 0);
    if (!n_tokens)
        return wrong(s, PG_ERROR_NOT_FOUND, "image_seq_length", NULL, "the number of <image> tokens per image");
    if (!is_integer_in(n_tokens, 1, MAX_IMAGE_TOKENS))
        return wrong(s, PG_ERROR_FORMAT, "image_seq_length", n_tokens, "a whole number from 1 to 16777216");
    out->n_image_tokens = (int32_t)json_integer_value(n_tokens);
    return PG_OK;
}

/* *found: 1 when the file has settings. */
static pg_status load_file(const pgi_memory *memory, const char *path, int nested, pgi_image_settings *out,
                           int *found) {
    json_t *root = NULL;
    *found = 0;
    if (!pgi_file_exists(path)) return PG_OK;
    PGI_TRY(pgi_json_load(memory, path, MAX_JSON_SIZE, &root));
    source s = {root, path, ""};
    pg_status status = PG_OK;
    if (nested) {
        s.object = json_object_get(root, "image_processor");
        s.prefix = "image_processor.";
        if (s.object && !json_is_null(s.object) && !json_is_object(s.object)) {
            char text[PGI_JSON_DESCRIPTION];
            status = pgi_error(PG_ERROR_FORMAT, "%s: image_processor: found %s, expected an object", path,
                               pgi_json_describe(s.object, text, sizeof text));
        }
    }
    if (status == PG_OK && json_is_object(s.object)) {
        *found = 1;
        status = read_settings(&s, out);
    }
    json_decref(root);
    return status;
}

/* In transformers' order: processor_config.json when it has image settings in it, then preprocessor_config.json. */
pg_status pgi_image_settings_load(const pgi_memory *memory, const char *folder, pgi_image_settings *out) {
    char *nested = pgi_path_join(memory, folder, "processor_config.json");
    char *flat = pgi_path_join(memory, folder, "preprocessor_config.json");
    int found = 0;
    pg_status status = nested && flat ? PG_OK : PG_ERROR_MEMORY;
    if (status == PG_OK) status = load_file(memory, nested, 1, out, &found);
    if (status == PG_OK && !found) status = load_file(memory, flat, 0, out, &found);
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
