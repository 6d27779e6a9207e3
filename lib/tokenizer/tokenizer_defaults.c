/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * What calls leave open, from the files: PreTrainedTokenizerBase.__init__ of transformers for tokenizer_config.json,
 * and TokenizersBackend.__init__ for the settings that tokenizer.json was saved with, where a processor that was used
 * in training leaves its lengths. What transformers or its `tokenizers` library would refuse is refused here.
 */
#include "tokenizer/tokenizer_defaults.h"

#include <math.h>
#include <string.h>

#include "checkpoint/json_field.h"

/* *left: 1 when `key` of tokenizer_config.json names the left side, or without it the word in tokenizer.json;
 * unchanged when neither is there. */
static pg_status read_side(const pgi_json_section *config, const char *key, const char *saved, int *left) {
    if (!pgi_json_field(config, key)) {
        if (saved) *left = strcmp(saved, "Left") == 0;
        return PG_OK;
    }
    const char *side = pgi_json_field_text(config, key);
    *left = side && strcmp(side, "left") == 0;
    if (side && (*left || strcmp(side, "right") == 0)) return PG_OK;
    return pgi_json_field_wrong(config, PG_ERROR_FORMAT, key, "\"left\" or \"right\"");
}

/* 1 and the value of a whole number. The files' integers come as reals (pgi_json_any()). */
static int is_whole(const pgi_json *node, double *value) {
    *value = pgi_json_number(node);
    return pgi_json_is_number(node) && *value == floor(*value);
}

/* A length of at least `least`; 0 for none: null, left out, or above `none_above` (LARGE_INTEGER of
 * tokenization_utils_base.py). Python takes true for 1. */
static pg_status read_length(const pgi_json_section *section, const char *key, int least, double none_above,
                             int64_t *out) {
    const pgi_json *node = pgi_json_field(section, key);
    double value;
    int whole = is_whole(node, &value);
    *out = 0;
    if (!node || pgi_json_is(node, PGI_JSON_NULL) || (whole && value > none_above)) return PG_OK;
    if (pgi_json_is(node, PGI_JSON_TRUE)) value = 1;
    if ((whole || pgi_json_is_boolean(node)) && value >= least && value <= 1e20) {
        *out = value < 0x1p62 ? (int64_t)value : INT64_C(1) << 62;
        return PG_OK;
    }
    return pgi_json_field_wrong(section, PG_ERROR_FORMAT, key,
                                least ? "a whole number of 1 or more, or null" : "a whole number, or null");
}

/* Fields of tokenizer.json that the `tokenizers` library demands, by type. */
static pg_status check_fields(const pgi_json_section *section, const char *const *whole, int n_whole,
                              const char *const *words, int n_words) {
    for (int i = 0; i < n_whole; i++) {
        double value;
        if (!is_whole(pgi_json_field(section, whole[i]), &value) || value < 0)
            return pgi_json_field_wrong(section, PG_ERROR_FORMAT, whole[i], "a whole number");
    }
    for (int i = 0; i < n_words; i++)
        if (!pgi_json_field_text(section, words[i]))
            return pgi_json_field_wrong(section, PG_ERROR_FORMAT, words[i], "a text");
    return PG_OK;
}

static pg_status check_direction(const pgi_json_section *section) {
    const char *direction = pgi_json_field_text(section, "direction");
    if (!pgi_json_field(section, "direction")) return PG_OK;
    if (direction && (strcmp(direction, "Left") == 0 || strcmp(direction, "Right") == 0)) return PG_OK;
    return pgi_json_field_wrong(section, PG_ERROR_FORMAT, "direction", "\"Left\" or \"Right\"");
}

/* "truncation" of tokenizer.json: TruncationParams of the `tokenizers` library. */
static pg_status check_truncation(const pgi_json_section *truncation) {
    static const char *const whole[] = {"max_length", "stride"}, *const words[] = {"strategy"};
    if (!truncation->object) return PG_OK;
    PGI_TRY(check_fields(truncation, whole, 2, words, 1));
    const char *strategy = pgi_json_field_text(truncation, "strategy");
    if (strcmp(strategy, "LongestFirst") != 0 && strcmp(strategy, "OnlyFirst") != 0 &&
        strcmp(strategy, "OnlySecond") != 0)
        return pgi_json_field_wrong(truncation, PG_ERROR_FORMAT, "strategy",
                                    "\"LongestFirst\", \"OnlyFirst\" or \"OnlySecond\"");
    return check_direction(truncation);
}

/* "padding" of tokenizer.json: PaddingParams of the `tokenizers` library. *fixed: the length it pads to, 0: none. */
static pg_status check_padding(const pgi_json_section *padding, int64_t *fixed) {
    static const char *const whole[] = {"pad_id", "pad_type_id"}, *const words[] = {"direction", "pad_token"};
    static const char *const length[] = {"Fixed"};
    *fixed = 0;
    if (!padding->object) return PG_OK;
    PGI_TRY(check_fields(padding, whole, 2, words, 2));
    const char *strategy = pgi_json_field_text(padding, "strategy");
    if (!strategy || strcmp(strategy, "BatchLongest") != 0) {
        const pgi_json *object = pgi_json_field(padding, "strategy");
        if (!pgi_json_is(object, PGI_JSON_OBJECT))
            return pgi_json_field_wrong(padding, PG_ERROR_FORMAT, "strategy",
                                        "\"BatchLongest\" or {\"Fixed\": length}");
        const pgi_json_section inner = {padding->path, "padding.strategy.", object};
        PGI_TRY(check_fields(&inner, length, 1, NULL, 0));
        PGI_TRY(read_length(&inner, "Fixed", 1, HUGE_VAL, fixed));
    }
    return check_direction(padding);
}

/* An object of tokenizer.json, or null. */
static pg_status saved_section(const char *path, const char *key, const char *prefix, const pgi_json *object,
                               pgi_json_section *out) {
    *out = (pgi_json_section){path, prefix, object};
    if (!object || pgi_json_is(object, PGI_JSON_OBJECT)) return PG_OK;
    const pgi_json_section file = {path, "", NULL};
    return pgi_json_field_wrong_node(&file, PG_ERROR_FORMAT, key, object, "an object or null");
}

pg_status pgi_tokenizer_defaults_read(const char *config_path, const pgi_json *config_object, const char *json_path,
                                      const pgi_tokenizer_json *json, pgi_tokenizer_defaults *out) {
    const pgi_json_section config = {config_path, "", config_object};
    pgi_json_section truncation, padding;
    int64_t fixed;
    PGI_TRY(saved_section(json_path, "truncation", "truncation.", json->truncation, &truncation));
    PGI_TRY(saved_section(json_path, "padding", "padding.", json->padding, &padding));
    PGI_TRY(check_truncation(&truncation));
    PGI_TRY(check_padding(&padding, &fixed));
    PGI_TRY(read_side(&config, "padding_side", pgi_json_field_text(&padding, "direction"), &out->pad_left));
    const char *direction = truncation.object ? pgi_json_field_text(&truncation, "direction") : NULL;
    PGI_TRY(read_side(&config, "truncation_side", direction, &out->truncate_left));
    const pgi_json_section *from = pgi_json_field(&config, "pad_to_multiple_of") ? &config : &padding;
    PGI_TRY(read_length(from, "pad_to_multiple_of", 0, HUGE_VAL, &out->pad_to_multiple_of));
    from = pgi_json_field(&config, "max_length") ? &config : &truncation;
    PGI_TRY(read_length(from, "max_length", 1, HUGE_VAL, &out->max_length));
    if (!pgi_json_field(from, "max_length")) out->max_length = fixed;
    const char *key = pgi_json_field(&config, "model_max_length") ? "model_max_length" : "max_len";
    return read_length(&config, key, 1, 1e20, &out->model_max_length);
}
