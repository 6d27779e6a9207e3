/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* pg_inputs_create: what it copies and what it refuses, with the array, the row and the numbers named. */
#include "run_tests.h"

#include <math.h>

#include "api_fixture.h"

enum { B = 2, T = 6, WIDTH = 3, SIDE = 4, N_IMAGES = 2, N_PIXELS = N_IMAGES * 3 * SIDE * SIDE };

/* A sound set of arrays: row 0 is padded on the left, row 1 on the right as the processor does it. */
static struct {
    int64_t ids[B * T], mask[B * T], types[B * T], labels[B * T], positions[B * T];
    float embeds[B * T * WIDTH], pixels[N_PIXELS];
    pg_tensor t_ids, t_mask, t_types, t_labels, t_positions, t_embeds, t_pixels;
    pg_input_arrays arrays;
} a;

static pg_tensor view(int32_t dtype, const void *data, int32_t n_dims, ...) {
    pg_tensor t = {.struct_size = sizeof t, .dtype = dtype, .n_dims = n_dims, .shape = {1, 1, 1, 1}, .data = data};
    va_list shape;
    va_start(shape, n_dims);
    for (int i = 0; i < n_dims && i < 4; i++) t.shape[i] = va_arg(shape, int);
    va_end(shape);
    return t;
}

static int fill(void **state) {
    (void)state;
    static const int64_t mask[] = {0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0}, types[] = {0, 0, 0, 0, 1, 1, 0, 0, 0, 1, 1, 0};
    memset(&a, 0, sizeof a);
    for (int i = 0; i < B * T; i++) {
        a.ids[i] = 100 + i;
        a.mask[i] = mask[i];
        a.types[i] = types[i];
        a.labels[i] = types[i] ? 100 + i : -100;
        a.positions[i] = 7 * i;
    }
    for (int i = 0; i < B * T * WIDTH; i++) a.embeds[i] = (float)i;
    for (int i = 0; i < N_PIXELS; i++) a.pixels[i] = (float)-i;
    a.t_ids = view(PG_DTYPE_I64, a.ids, 2, B, T);
    a.t_mask = view(PG_DTYPE_I64, a.mask, 2, B, T);
    a.t_types = view(PG_DTYPE_I64, a.types, 2, B, T);
    a.t_labels = view(PG_DTYPE_I64, a.labels, 2, B, T);
    a.t_positions = view(PG_DTYPE_I64, a.positions, 2, B, T);
    a.t_embeds = view(PG_DTYPE_F32, a.embeds, 3, B, T, WIDTH);
    a.t_pixels = view(PG_DTYPE_F32, a.pixels, 4, N_IMAGES, 3, SIDE, SIDE);
    OK(pg_input_arrays_init(&a.arrays, sizeof a.arrays));
    a.arrays.input_ids = &a.t_ids;
    a.arrays.attention_mask = &a.t_mask;
    a.arrays.token_type_ids = &a.t_types;
    a.arrays.labels = &a.t_labels;
    a.arrays.position_ids = &a.t_positions;
    a.arrays.pixel_values = &a.t_pixels;
    return 0;
}

static void fails(const char *part, const char *other) {
    pg_inputs *none = (pg_inputs *)&none;
    ARGUMENT(pg_inputs_create(&a.arrays, &none));
    assert_null(none);
    if (!strstr(pg_last_error(), part) || !strstr(pg_last_error(), other))
        fail_msg("\"%s\" lacks \"%s\" or \"%s\"", pg_last_error(), part, other);
}

static void assert_same(const pg_inputs *made, const char *name, const pg_tensor *wanted, size_t element) {
    pg_tensor t = {.struct_size = sizeof t};
    OK(pg_inputs_get_tensor(made, name, &t));
    assert_int_equal(t.dtype, wanted->dtype);
    assert_int_equal(t.n_dims, wanted->n_dims);
    assert_memory_equal(t.shape, wanted->shape, sizeof t.shape);
    assert_ptr_not_equal(t.data, wanted->data);
    for (int i = 0; i < t.n_dims; i++) element *= (size_t)t.shape[i];
    assert_memory_equal(t.data, wanted->data, element);
}

static const int64_t *numbers(const pg_inputs *made, const char *name) {
    pg_tensor t = {.struct_size = sizeof t};
    OK(pg_inputs_get_tensor(made, name, &t));
    return t.data;
}

static void all_is_copied(void **state) {
    (void)state;
    pg_inputs *made = NULL;
    pg_row_info info = {.struct_size = sizeof info};
    OK(pg_inputs_create(&a.arrays, &made));
    assert_same(made, "input_ids", &a.t_ids, 8);
    assert_same(made, "attention_mask", &a.t_mask, 8);
    assert_same(made, "token_type_ids", &a.t_types, 8);
    assert_same(made, "labels", &a.t_labels, 8);
    assert_same(made, "position_ids", &a.t_positions, 8);
    assert_same(made, "pixel_values", &a.t_pixels, 4);
    ERROR(pg_inputs_get_tensor(made, "image_counts", &(pg_tensor){.struct_size = sizeof(pg_tensor)}),
          PG_ERROR_NOT_FOUND);
    OK(pg_inputs_get_row_info(made, 0, &info));
    assert_int_equal(info.first_token, 2);
    assert_int_equal(info.n_tokens, 4);
    assert_int_equal(info.n_suffix, 2);
    OK(pg_inputs_get_row_info(made, 1, &info));
    assert_int_equal(info.first_token, 0);
    assert_int_equal(info.n_tokens, 5);
    assert_int_equal(info.n_suffix, 2);
    assert_int_equal(info.events, 0);
    ARGUMENT(pg_inputs_get_row_info(made, 2, &info));
    ARGUMENT(pg_inputs_get_row_info(made, -1, &info));
    ARGUMENT(pg_inputs_get_row_info(NULL, 0, &info));
    pg_inputs_close(&made);
}

static void what_is_left_out_is_filled_in(void **state) {
    (void)state;
    static const int64_t counted[] = {1, 1, 1, 2, 3, 4, 1, 2, 3, 4, 5, 1};
    pg_inputs *made = NULL;
    pg_row_info info = {.struct_size = sizeof info};
    a.arrays.token_type_ids = a.arrays.position_ids = a.arrays.labels = a.arrays.pixel_values = NULL;
    OK(pg_inputs_create(&a.arrays, &made));
    assert_memory_equal(numbers(made, "position_ids"), counted, sizeof counted);
    for (int i = 0; i < B * T; i++) assert_int_equal(numbers(made, "token_type_ids")[i], 1);
    ERROR(pg_inputs_get_tensor(made, "labels", &(pg_tensor){.struct_size = sizeof(pg_tensor)}), PG_ERROR_NOT_FOUND);
    ERROR(pg_inputs_get_tensor(made, "pixel_values", &(pg_tensor){.struct_size = sizeof(pg_tensor)}),
          PG_ERROR_NOT_FOUND);
    pg_inputs_close(&made);
    a.arrays.attention_mask = NULL;
    a.arrays.input_ids = NULL;
    a.arrays.inputs_embeds = &a.t_embeds;
    OK(pg_inputs_create(&a.arrays, &made));
    assert_same(made, "inputs_embeds", &a.t_embeds, 4);
    ERROR(pg_inputs_get_tensor(made, "input_ids", &(pg_tensor){.struct_size = sizeof(pg_tensor)}), PG_ERROR_NOT_FOUND);
    OK(pg_inputs_get_row_info(made, 1, &info));
    assert_int_equal(info.n_tokens, T);
    assert_int_equal(info.n_suffix, T);
    pg_inputs_close(&made);
    OK(pg_input_arrays_init(&a.arrays, sizeof a.arrays));
    a.arrays.pixel_values = &a.t_pixels;
    OK(pg_inputs_create(&a.arrays, &made)); /* images alone */
    assert_same(made, "pixel_values", &a.t_pixels, 4);
    ARGUMENT(pg_inputs_get_row_info(made, 0, &info));
    pg_inputs_close(&made);
}

static void arrays_must_go_together(void **state) {
    (void)state;
    a.arrays.inputs_embeds = &a.t_embeds;
    fails("both input_ids and inputs_embeds", "one of them");
    a.arrays.input_ids = a.arrays.inputs_embeds = NULL;
    fails("neither input_ids nor inputs_embeds", "pixel_values alone");
    OK(pg_input_arrays_init(&a.arrays, sizeof a.arrays));
    fails("neither", "");
    ARGUMENT(pg_inputs_create(NULL, &(pg_inputs *){NULL}));
    ARGUMENT(pg_inputs_create(&a.arrays, NULL));
}

static void shapes_are_held_against_each_other(void **state) {
    (void)state;
    a.t_labels.shape[1] = T - 1;
    fails("labels: found the shape [2, 5]", "[2, 6] as input_ids");
    fill(state);
    a.t_mask.shape[0] = 3;
    fails("attention_mask: found the shape [3, 6]", "[2, 6]");
    fill(state);
    a.t_types.n_dims = 1;
    fails("token_type_ids: found 1 dimensions", "2");
    fill(state);
    a.t_ids.dtype = 6; /* no array of the API has it */
    fails("input_ids: found dtype 6 (?)", "4 (i64)");
    fill(state);
    a.t_ids.dtype = 99;
    fails("dtype 99 (?)", "i64");
    fill(state);
    a.t_ids.shape[1] = 0;
    fails("input_ids", "[2, 0]");
    fill(state);
    a.t_ids.shape[0] = INT64_MIN;
    fails("input_ids", "[-9223372036854775808, 6]");
    fill(state);
    a.t_positions.data = NULL;
    fails("position_ids", "data is NULL");
    fill(state);
    a.t_pixels.shape[1] = 4;
    fails("pixel_values", "[2, 4, 4, 4]");
    fill(state);
    a.t_pixels.shape[3] = 3;
    fails("pixel_values", "[2, 3, 4, 3]");
    fill(state);
    a.t_pixels.struct_size = 9;
    fails("pixel_values", "struct_size");
    fill(state);
    a.arrays.input_ids = NULL;
    a.arrays.inputs_embeds = &a.t_embeds;
    a.t_embeds.shape[1] = 5;
    fails("attention_mask: found the shape [2, 6]", "[2, 5] as inputs_embeds");
    fill(state);
    pg_inputs *none = NULL;
    OK(pg_input_arrays_init(&a.arrays, sizeof a.arrays));
    a.arrays.input_ids = &a.t_ids;
    a.t_ids.shape[0] = a.t_ids.shape[1] = INT64_MAX; /* more than an address space */
    ERROR(pg_inputs_create(&a.arrays, &none), PG_ERROR_MEMORY);
}

static void masks_may_have_holes(void **state) {
    static const int64_t counted[] = {1, 1, 1, 2, 3, 4, 1, 1, 2, 3, 1, 1};
    pg_inputs *made = NULL;
    pg_row_info info = {.struct_size = sizeof info};
    (void)state;
    a.mask[T + 1] = a.mask[T + 4] = 0;
    a.types[T + 1] = 1; /* hidden: whatever stands there */
    a.arrays.position_ids = NULL;
    OK(pg_inputs_create(&a.arrays, &made));
    assert_memory_equal(numbers(made, "attention_mask"), a.mask, sizeof a.mask);
    assert_memory_equal(numbers(made, "position_ids"), counted, sizeof counted);
    OK(pg_inputs_get_row_info(made, 1, &info));
    assert_int_equal(info.first_token, 0);
    assert_int_equal(info.n_tokens, 4); /* 0, 2, 3, and 1 between them */
    assert_int_equal(info.n_suffix, 1);
    pg_inputs_close(&made);
}

static void masks_are_checked(void **state) {
    (void)state;
    a.mask[T + 2] = 2;
    fails("attention_mask: row 1, token 2: found 2", "0 or 1");
    fill(state);
    for (int i = 0; i < T; i++) a.mask[i] = 0;
    fails("attention_mask: row 0", "6 zeros");
}

static void types_rise_once(void **state) {
    (void)state;
    a.types[5] = 0;
    fails("token_type_ids: row 0, token 5: found 0 after 1", "");
    a.types[5] = -1;
    fails("token_type_ids: row 0, token 5: found -1", "0 or 1");
    fill(state);
    a.types[0] = a.types[2 * T - 1] = 1; /* on padding: whatever the collator put there */
    pg_inputs *made = NULL;
    OK(pg_inputs_create(&a.arrays, &made));
    pg_inputs_close(&made);
}

static void numbers_have_ranges(void **state) {
    (void)state;
    a.labels[T + 3] = -1;
    fails("labels: row 1, token 3: found -1", "-100");
    fill(state);
    a.positions[3] = -1;
    fails("position_ids: row 0, token 3: found -1", "0 to");
    fill(state);
    a.pixels[N_PIXELS - 1] = NAN;
    fails("pixel_values: image 1, channel 2, row 3, column 3", "nan");
    a.pixels[N_PIXELS - 1] = -INFINITY;
    fails("pixel_values: image 1", "-inf");
    fill(state);
    a.arrays.input_ids = NULL;
    a.arrays.inputs_embeds = &a.t_embeds;
    a.embeds[(T + 4) * WIDTH + 1] = INFINITY;
    fails("inputs_embeds: row 1, token 4, column 1", "inf");
}

static void every_failing_allocation_is_survived(void **state) {
    (void)state;
    counter memory;
    pg_inputs *made = NULL;
    pg_status status = PG_ERROR_MEMORY;
    for (int64_t n = 1; status != PG_OK; n++) {
        counter_init(&memory);
        memory.fail_at = n;
        a.arrays.allocator = &memory.hooks;
        status = pg_inputs_create(&a.arrays, &made);
        if (status != PG_OK) assert_int_equal(status, PG_ERROR_MEMORY);
        pg_inputs_close(&made);
        assert_true(counter_clean(&memory));
        assert_in_range(n, 1, 50);
    }
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(all_is_copied, fill),
        cmocka_unit_test_setup(what_is_left_out_is_filled_in, fill),
        cmocka_unit_test_setup(arrays_must_go_together, fill),
        cmocka_unit_test_setup(shapes_are_held_against_each_other, fill),
        cmocka_unit_test_setup(masks_may_have_holes, fill),
        cmocka_unit_test_setup(masks_are_checked, fill),
        cmocka_unit_test_setup(types_rise_once, fill),
        cmocka_unit_test_setup(numbers_have_ranges, fill),
        cmocka_unit_test_setup(every_failing_allocation_is_survived, fill),
    };
    return RUN_TESTS(tests, setup, teardown);
}
