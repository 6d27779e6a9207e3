/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* pg_inputs: making, filling and freeing the arrays of a batch. */
#include "processor/inputs.h"

#include <string.h>

pg_status pgi_inputs_new(const pgi_memory *memory, pg_inputs **out) {
    pg_inputs *inputs = pgi_alloc_zero(memory, 1, sizeof *inputs);
    *out = inputs;
    if (!inputs) return PG_ERROR_MEMORY;
    atomic_init(&inputs->references, 1);
    inputs->memory = *memory;
    return PG_OK;
}

pg_inputs *pgi_inputs_retain(const pg_inputs *inputs) {
    pg_inputs *counted = (pg_inputs *)(uintptr_t)inputs;
    if (counted) atomic_fetch_add_explicit(&counted->references, 1, memory_order_relaxed);
    return counted;
}

void pgi_inputs_release(pg_inputs *inputs) {
    if (!inputs || atomic_fetch_sub_explicit(&inputs->references, 1, memory_order_acq_rel) != 1) return;
    pgi_memory memory = inputs->memory;
    pgi_free(&memory, inputs->rows);
    pgi_free(&memory, inputs->ids);
    pgi_free(&memory, inputs->embeds);
    pgi_free(&memory, inputs->attention_mask);
    pgi_free(&memory, inputs->token_type_ids);
    pgi_free(&memory, inputs->labels);
    pgi_free(&memory, inputs->position_ids);
    pgi_free(&memory, inputs->image_counts);
    pgi_free(&memory, inputs->image_sizes);
    pgi_free(&memory, inputs->pixels);
    pgi_free(&memory, inputs);
}

/* a x b elements that fit an address space with `size` bytes each, or SIZE_MAX, which no allocator gives. */
static size_t count_of(int64_t a, int64_t b) {
    size_t count;
    return a >= 0 && b >= 0 && (uint64_t)a <= SIZE_MAX && (uint64_t)b <= SIZE_MAX &&
                   pgi_mul_size((size_t)a, (size_t)b, &count)
               ? count
               : SIZE_MAX;
}

int64_t *pgi_inputs_new_numbers(const pg_inputs *inputs) {
    return pgi_alloc(&inputs->memory, count_of(inputs->n_rows, inputs->n_tokens), sizeof(int64_t));
}

pg_status pgi_inputs_add_rows(pg_inputs *inputs, int64_t n_rows, int64_t n_tokens) {
    const pgi_memory *memory = &inputs->memory;
    inputs->n_rows = n_rows;
    inputs->n_tokens = n_tokens;
    size_t count = count_of(n_rows, n_tokens);
    inputs->rows = pgi_alloc_zero(memory, count_of(n_rows, 1), sizeof *inputs->rows);
    inputs->attention_mask = pgi_alloc_zero(memory, count, sizeof(int64_t));
    inputs->token_type_ids = pgi_alloc_zero(memory, count, sizeof(int64_t));
    inputs->position_ids = pgi_inputs_new_numbers(inputs);
    return inputs->rows && inputs->attention_mask && inputs->token_type_ids && inputs->position_ids ? PG_OK
                                                                                                    : PG_ERROR_MEMORY;
}

pg_status pgi_inputs_add_pixels(pg_inputs *inputs, int64_t n_images, int32_t width, int32_t height) {
    size_t count = count_of(width, height);
    inputs->n_images = n_images;
    inputs->image_width = width;
    inputs->image_height = height;
    if (count == SIZE_MAX || !pgi_mul_size(count, 3 * sizeof(float), &count)) count = SIZE_MAX;
    inputs->pixels = pgi_alloc(&inputs->memory, count_of(n_images, 1), count);
    return inputs->pixels ? PG_OK : PG_ERROR_MEMORY;
}

/* HF: the running sum of the mask, less 1, 0 on padding (generation/utils.py, _prepare_position_ids_for_generation);
 * one more in PaliGemma's prepare_inputs_for_generation. */
void pgi_inputs_count_positions(pg_inputs *inputs) {
    for (int64_t r = 0; r < inputs->n_rows; r++) {
        const int64_t *mask = inputs->attention_mask + r * inputs->n_tokens;
        int64_t *positions = inputs->position_ids + r * inputs->n_tokens, n = 0;
        for (int64_t t = 0; t < inputs->n_tokens; t++) positions[t] = mask[t] ? ++n : 1;
    }
}

void pgi_inputs_fill_rows(pg_inputs *inputs) {
    for (int64_t r = 0; r < inputs->n_rows; r++) {
        const pgi_row *row = &inputs->rows[r];
        int64_t *mask = inputs->attention_mask + r * inputs->n_tokens;
        for (int64_t t = 0; t < inputs->n_tokens; t++)
            mask[t] = t >= row->first_token && t < row->first_token + row->n_tokens;
    }
    pgi_inputs_count_positions(inputs);
}
