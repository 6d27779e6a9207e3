/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* pg_inputs from the caller's own arrays: every shape and number is checked before it is copied. */
#include <math.h>
#include <string.h>

#include "base/shape.h"
#include "processor/inputs.h"

static const char *dtype_name(int32_t dtype) {
    static const char *const names[] = {"?", "f32", "bf16", "f16", "i64"};
    return dtype >= PG_DTYPE_F32 && dtype <= PG_DTYPE_I64 ? names[dtype] : names[0];
}

static const char *shape_text(const pg_tensor *tensor, char text[PGI_SHAPE_TEXT]) {
    return pgi_shape_text(tensor->n_dims, tensor->shape, ", ", text);
}

static pg_status check_tensor(const char *name, const pg_tensor *tensor, int32_t dtype, int32_t n_dims) {
    char shape[PGI_SHAPE_TEXT];
    if (tensor->dtype != dtype)
        return pgi_error(PG_ERROR_ARGUMENT, "%s: found dtype %d (%s), expected %d (%s)", name, tensor->dtype,
                         dtype_name(tensor->dtype), dtype, dtype_name(dtype));
    if (tensor->n_dims != n_dims)
        return pgi_error(PG_ERROR_ARGUMENT, "%s: found %d dimensions, expected %d", name, tensor->n_dims, n_dims);
    for (int32_t i = 0; i < n_dims; i++)
        if (tensor->shape[i] < 1)
            return pgi_error(PG_ERROR_ARGUMENT, "%s: found the shape %s, expected 1 or more in each dimension", name,
                             shape_text(tensor, shape));
    if (!tensor->data) return pgi_error(PG_ERROR_ARGUMENT, "%s: data is NULL", name);
    return PG_OK;
}

/* An i64 array with a number for each token; `like` (`like_name`) says B and T. */
static pg_status check_numbers(const char *name, const pg_tensor *tensor, const char *like_name,
                               const pg_tensor *like) {
    char found[PGI_SHAPE_TEXT], wanted[PGI_SHAPE_TEXT];
    pg_tensor expected = *like;
    expected.n_dims = 2;
    PGI_TRY(check_tensor(name, tensor, PG_DTYPE_I64, 2));
    if (tensor->shape[0] != like->shape[0] || tensor->shape[1] != like->shape[1])
        return pgi_error(PG_ERROR_ARGUMENT, "%s: found the shape %s, expected %s as %s", name,
                         shape_text(tensor, found), shape_text(&expected, wanted), like_name);
    return PG_OK;
}

static int64_t number(const pg_tensor *tensor, int64_t row, int64_t token) {
    return ((const int64_t *)tensor->data)[row * tensor->shape[1] + token];
}

/* Where the ones of a row lie, which must be there: its tokens are those from the first to the last. `copy` [T]. */
static pg_status read_mask(const pg_tensor *mask, int64_t r, pgi_row *row, int64_t *copy) {
    int64_t n = mask->shape[1], n_ones = 0;
    for (int64_t t = 0; t < n; t++) {
        int64_t value = copy[t] = number(mask, r, t);
        if (value != 0 && value != 1)
            return pgi_error_of_row(
                pgi_error(PG_ERROR_ARGUMENT, "attention_mask: row %lld, token %lld: found %lld, expected 0 or 1",
                          (long long)r, (long long)t, (long long)value),
                r);
        if (!value) continue;
        if (n_ones++ == 0) row->first_token = t;
        row->n_tokens = t + 1 - row->first_token;
    }
    if (n_ones == 0)
        return pgi_error_of_row(
            pgi_error(PG_ERROR_ARGUMENT, "attention_mask: row %lld: found %lld zeros, expected at least one 1",
                      (long long)r, (long long)n),
            r);
    row->n_hidden = row->n_tokens - n_ones;
    return PG_OK;
}

/* mask [T]: of this row. */
static pg_status read_types(const pg_tensor *types, int64_t r, const int64_t *mask, pgi_row *row) {
    for (int64_t t = 0; t < types->shape[1]; t++) {
        int64_t value = number(types, r, t);
        if (value != 0 && value != 1)
            return pgi_error_of_row(
                pgi_error(PG_ERROR_ARGUMENT, "token_type_ids: row %lld, token %lld: found %lld, expected 0 or 1",
                          (long long)r, (long long)t, (long long)value),
                r);
        if (!mask[t]) continue; /* nobody sees it */
        if (row->n_suffix > 0 && value == 0)
            return pgi_error_of_row(pgi_error(PG_ERROR_ARGUMENT,
                                              "token_type_ids: row %lld, token %lld: found 0 after 1, expected the "
                                              "prompt's 0s before the suffix's 1s",
                                              (long long)r, (long long)t),
                                    r);
        row->n_suffix += value;
    }
    return PG_OK;
}

static pg_status check_range(const char *name, const pg_tensor *tensor, int64_t low, int64_t high, int64_t also,
                             const char *expected) {
    for (int64_t r = 0; r < tensor->shape[0]; r++)
        for (int64_t t = 0; t < tensor->shape[1]; t++) {
            int64_t value = number(tensor, r, t);
            if ((value < low || value > high) && value != also)
                return pgi_error_of_row(
                    pgi_error(PG_ERROR_ARGUMENT, "%s: row %lld, token %lld: found %lld, expected %s", name,
                              (long long)r, (long long)t, (long long)value, expected),
                    r);
        }
    return PG_OK;
}

/* A copy of all elements of a dense tensor, whose shape has been checked to be positive. */
static pg_status copy_tensor(const pgi_memory *memory, const pg_tensor *tensor, size_t element, void *out) {
    size_t count = 1;
    for (int32_t i = 0; i < tensor->n_dims; i++)
        if ((uint64_t)tensor->shape[i] > SIZE_MAX || !pgi_mul_size(count, (size_t)tensor->shape[i], &count))
            count = SIZE_MAX / 2; /* no allocator gives that */
    void *data = pgi_alloc(memory, count, element);
    if (!data) return PG_ERROR_MEMORY;
    memcpy(data, tensor->data, count * element);
    memcpy(out, &data, sizeof data);
    return PG_OK;
}

static pg_status add_pixels(const pg_tensor *pixels, pg_inputs *inputs) {
    char shape[PGI_SHAPE_TEXT];
    PGI_TRY(check_tensor("pixel_values", pixels, PG_DTYPE_F32, 4));
    int64_t height = pixels->shape[2], width = pixels->shape[3];
    if (pixels->shape[1] != 3 || height != width || width > INT16_MAX)
        return pgi_error(PG_ERROR_ARGUMENT, "pixel_values: found the shape %s, expected [images, 3, S, S]",
                         shape_text(pixels, shape));
    PGI_TRY(copy_tensor(&inputs->memory, pixels, sizeof(float), &inputs->pixels));
    inputs->n_images = pixels->shape[0];
    inputs->image_width = (int32_t)width;
    inputs->image_height = (int32_t)height;
    const float *at = inputs->pixels;
    for (int64_t i = 0; i < pixels->shape[0]; i++)
        for (int64_t c = 0; c < 3; c++)
            for (int64_t y = 0; y < height; y++)
                for (int64_t x = 0; x < width; x++, at++)
                    if (!isfinite(*at))
                        return pgi_error(PG_ERROR_ARGUMENT,
                                         "pixel_values: image %lld, channel %lld, row %lld, "
                                         "column %lld: found %f, expected a finite number",
                                         (long long)i, (long long)c, (long long)y, (long long)x, (double)*at);
    return PG_OK;
}

static pg_status add_embeds(const pg_tensor *embeds, pg_inputs *inputs) {
    PGI_TRY(copy_tensor(&inputs->memory, embeds, sizeof(float), &inputs->embeds));
    inputs->embed_width = embeds->shape[2];
    const float *at = inputs->embeds;
    for (int64_t r = 0; r < inputs->n_rows; r++)
        for (int64_t t = 0; t < inputs->n_tokens; t++)
            for (int64_t i = 0; i < inputs->embed_width; i++, at++)
                if (!isfinite(*at))
                    return pgi_error_of_row(pgi_error(PG_ERROR_ARGUMENT,
                                                      "inputs_embeds: row %lld, token %lld, column %lld: found %f, "
                                                      "expected a finite number",
                                                      (long long)r, (long long)t, (long long)i, (double)*at),
                                            r);
    return PG_OK;
}

static pg_status check_shapes(const pg_input_arrays *arrays) {
    const pg_tensor *first = arrays->input_ids ? arrays->input_ids : arrays->inputs_embeds;
    const char *name = arrays->input_ids ? "input_ids" : "inputs_embeds";
    PGI_TRY(arrays->input_ids ? check_tensor(name, first, PG_DTYPE_I64, 2)
                              : check_tensor(name, first, PG_DTYPE_F32, 3));
    if (arrays->attention_mask) PGI_TRY(check_numbers("attention_mask", arrays->attention_mask, name, first));
    if (arrays->token_type_ids) PGI_TRY(check_numbers("token_type_ids", arrays->token_type_ids, name, first));
    if (arrays->labels) PGI_TRY(check_numbers("labels", arrays->labels, name, first));
    if (arrays->position_ids) PGI_TRY(check_numbers("position_ids", arrays->position_ids, name, first));
    return PG_OK;
}

/* Rows, mask and types. */
static pg_status add_rows(const pg_input_arrays *arrays, pg_inputs *inputs) {
    const pg_tensor *first = arrays->input_ids ? arrays->input_ids : arrays->inputs_embeds;
    PGI_TRY(pgi_inputs_add_rows(inputs, first->shape[0], first->shape[1]));
    inputs->without_mask = !arrays->attention_mask;
    inputs->without_types = !arrays->token_type_ids;
    for (int64_t r = 0; r < inputs->n_rows; r++) {
        pgi_row *row = &inputs->rows[r];
        int64_t *mask = inputs->attention_mask + r * inputs->n_tokens;
        int64_t *types = inputs->token_type_ids + r * inputs->n_tokens;
        row->n_tokens = arrays->attention_mask ? 0 : inputs->n_tokens;
        for (int64_t t = 0; t < inputs->n_tokens; t++) {
            mask[t] = 1;
            types[t] = arrays->token_type_ids ? number(arrays->token_type_ids, r, t) : 1;
        }
        if (arrays->attention_mask) PGI_TRY(read_mask(arrays->attention_mask, r, row, mask));
        if (arrays->token_type_ids)
            PGI_TRY(read_types(arrays->token_type_ids, r, mask, row));
        else
            row->n_suffix = row->n_tokens - row->n_hidden;
    }
    pgi_inputs_count_positions(inputs);
    return PG_OK;
}

/* What else there is for each token. */
static pg_status add_numbers(const pg_input_arrays *arrays, pg_inputs *inputs) {
    const pgi_memory *memory = &inputs->memory;
    if (arrays->input_ids)
        PGI_TRY(copy_tensor(memory, arrays->input_ids, sizeof(int64_t), &inputs->ids));
    else
        PGI_TRY(add_embeds(arrays->inputs_embeds, inputs));
    if (arrays->labels) {
        PGI_TRY(check_range("labels", arrays->labels, 0, INT64_MAX, PGI_NO_LABEL, "an id (0 or more) or -100"));
        PGI_TRY(copy_tensor(memory, arrays->labels, sizeof(int64_t), &inputs->labels));
    }
    if (arrays->position_ids) {
        PGI_TRY(check_range("position_ids", arrays->position_ids, 0, INT32_MAX, 0, "0 to 2147483647"));
        pgi_free(memory, inputs->position_ids);
        inputs->position_ids = NULL;
        PGI_TRY(copy_tensor(memory, arrays->position_ids, sizeof(int64_t), &inputs->position_ids));
        inputs->own_positions = 1;
    }
    return PG_OK;
}

static pg_status check_together(const pg_input_arrays *arrays) {
    if (arrays->input_ids && arrays->inputs_embeds)
        return pgi_error(PG_ERROR_ARGUMENT, "found both input_ids and inputs_embeds, expected one of them");
    if (arrays->input_ids || arrays->inputs_embeds) return PG_OK;
    if (arrays->attention_mask || arrays->token_type_ids || arrays->labels || arrays->position_ids ||
        !arrays->pixel_values)
        return pgi_error(PG_ERROR_ARGUMENT,
                         "found neither input_ids nor inputs_embeds, expected one of them, or "
                         "pixel_values alone");
    return PG_OK;
}

pg_status pgi_inputs_create(const pgi_memory *memory, const pg_input_arrays *arrays, pg_inputs **out) {
    pg_inputs *inputs = NULL;
    pg_status status;
    *out = NULL;
    PGI_TRY(check_together(arrays));
    PGI_TRY(pgi_inputs_new(memory, &inputs));
    if (arrays->input_ids || arrays->inputs_embeds) {
        PGI_GOTO(check_shapes(arrays), fail);
        PGI_GOTO(add_rows(arrays, inputs), fail);
        PGI_GOTO(add_numbers(arrays, inputs), fail);
    }
    if (arrays->pixel_values) PGI_GOTO(add_pixels(arrays->pixel_values, inputs), fail);
    *out = inputs;
    return PG_OK;
fail:
    pgi_inputs_release(inputs);
    return status;
}
