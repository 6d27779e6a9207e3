/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The one reader of JSON fields: config.json, the image settings, the metadata of converted weights. */
#include "checkpoint/json_field.h"

#include <float.h>
#include <math.h>
#include <stdio.h>

const pgi_json *pgi_json_field(const pgi_json_section *section, const char *key) {
    return pgi_json_get(section->object, key);
}

const char *pgi_json_field_text(const pgi_json_section *section, const char *key) {
    return pgi_json_text(pgi_json_field(section, key));
}

int pgi_json_field_is_set(const pgi_json_section *section, const char *key) {
    const pgi_json *node = pgi_json_field(section, key);
    return node && !pgi_json_is(node, PGI_JSON_NULL);
}

pg_status pgi_json_field_wrong_node(const pgi_json_section *section, pg_status status, const char *key,
                                    const pgi_json *node, const char *expected) {
    char found[PGI_JSON_DESCRIPTION];
    return pgi_error(status, "%s: %s%s: found %s, expected %s", section->path, section->prefix, key,
                     pgi_json_describe(node, found, sizeof found), expected);
}

pg_status pgi_json_field_wrong(const pgi_json_section *section, pg_status status, const char *key,
                               const char *expected) {
    return pgi_json_field_wrong_node(section, status, key, pgi_json_field(section, key), expected);
}

pg_status pgi_json_field_bool(const pgi_json_section *section, const char *key, int32_t *out) {
    const pgi_json *node = pgi_json_field(section, key);
    if (!pgi_json_is_boolean(node)) return pgi_json_field_wrong(section, PG_ERROR_FORMAT, key, "true or false");
    *out = pgi_json_is(node, PGI_JSON_TRUE);
    return PG_OK;
}

pg_status pgi_json_field_positive(const pgi_json_section *section, const char *key, double *out) {
    const pgi_json *node = pgi_json_field(section, key);
    *out = pgi_json_number(node);
    if (pgi_json_is_number(node) && *out >= FLT_MIN && *out <= FLT_MAX) return PG_OK;
    return pgi_json_field_wrong(section, PG_ERROR_FORMAT, key, "a positive finite number");
}

int pgi_json_to_integer(const pgi_json *node, int64_t *out) {
    if (pgi_json_is(node, PGI_JSON_INTEGER)) {
        *out = pgi_json_integer(node);
        return 1;
    }
    double value = pgi_json_is(node, PGI_JSON_REAL) ? pgi_json_number(node) : 0.5;
    if (value != floor(value) || fabs(value) > 9e15) return 0; /* 2^53: beyond it a double is no exact integer */
    *out = (int64_t)value;
    return 1;
}

pg_status pgi_json_field_int(const pgi_json_section *section, const char *key, int64_t min, int64_t max, int32_t *out) {
    char expected[80];
    int64_t value;
    snprintf(expected, sizeof expected, "an integer from %lld to %lld", (long long)min, (long long)max);
    if (!pgi_json_to_integer(pgi_json_field(section, key), &value) || value < min)
        return pgi_json_field_wrong(section, PG_ERROR_FORMAT, key, expected);
    if (value > max)
        return pgi_error(PG_ERROR_LIMIT, "%s: %s%s: found %lld, expected %s", section->path, section->prefix, key,
                         (long long)value, expected);
    *out = (int32_t)value;
    return PG_OK;
}
