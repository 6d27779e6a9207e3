/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Structs of the public API as older, this and newer headers have them: options in, info and tensors out. */
#include "run_tests.h"

#include "api_fixture.h"

typedef pg_status (*init_fn)(void *options, size_t struct_size);

#define INIT(type) \
    static pg_status init_##type(void *options, size_t size) { return type##_init(options, size); }
INIT(pg_model_options)
INIT(pg_processor_options)
INIT(pg_encode_options)
INIT(pg_sampling_options)
INIT(pg_generate_options)
INIT(pg_score_options)
INIT(pg_run_options)
INIT(pg_session_options)
INIT(pg_forward_options)
INIT(pg_convert_options)
INIT(pg_batch)
INIT(pg_input_arrays)

static pg_status init_path(void *image, size_t size) { return pg_image_from_path(image, size, "x"); }
static pg_status init_bytes(void *image, size_t size) { return pg_image_from_bytes(image, size, "x", 1); }
static pg_status init_pixels(void *image, size_t size) {
    return pg_image_from_pixels(image, size, PG_IMAGE_GRAY8, 1, 1, "x", 0);
}

static const struct {
    init_fn init;
    size_t size;
} inits[] = {
    {init_pg_model_options, sizeof(pg_model_options)},
    {init_pg_processor_options, sizeof(pg_processor_options)},
    {init_pg_encode_options, sizeof(pg_encode_options)},
    {init_pg_sampling_options, sizeof(pg_sampling_options)},
    {init_pg_generate_options, sizeof(pg_generate_options)},
    {init_pg_score_options, sizeof(pg_score_options)},
    {init_pg_run_options, sizeof(pg_run_options)},
    {init_pg_session_options, sizeof(pg_session_options)},
    {init_pg_forward_options, sizeof(pg_forward_options)},
    {init_pg_batch, sizeof(pg_batch)},
    {init_pg_input_arrays, sizeof(pg_input_arrays)},
    {init_pg_convert_options, sizeof(pg_convert_options)},
    {init_path, sizeof(pg_image)},
    {init_bytes, sizeof(pg_image)},
    {init_pixels, sizeof(pg_image)},
};

static void init_fills_exactly_what_it_is_told(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof inits / sizeof *inits; i++) {
        uint64_t buffer[64], whole[64];
        uint8_t *p = (uint8_t *)buffer;
        ARGUMENT(inits[i].init(NULL, inits[i].size));
        ARGUMENT(inits[i].init(buffer, 0));
        ARGUMENT(inits[i].init(buffer, 4));
        ARGUMENT(inits[i].init(buffer, inits[i].size + 1));
        ARGUMENT(inits[i].init(buffer, (size_t)1 << 32));
        ARGUMENT(inits[i].init(buffer, SIZE_MAX));
        memset(whole, 0xEE, sizeof whole);
        OK(inits[i].init(whole, inits[i].size));
        /* a program built with an older, with this, and with a newer header */
        for (size_t size = 16; size <= inits[i].size + 32; size += 8) {
            uint32_t said;
            memset(buffer, 0xEE, sizeof buffer);
            OK(inits[i].init(buffer, size));
            memcpy(&said, buffer, 4);
            assert_int_equal(said, size);
            size_t common = size < inits[i].size ? size : inits[i].size;
            assert_memory_equal(p + 4, (uint8_t *)whole + 4, common - 4);
            for (size_t k = common; k < size; k++) assert_int_equal(p[k], 0);
            for (size_t k = size; k < sizeof buffer; k++) assert_int_equal(p[k], 0xEE); /* not a byte more */
        }
    }
}

static void defaults(void **state) {
    pg_encode_options encode;
    pg_generate_options generate;
    pg_session_options session;
    (void)state;
    OK(pg_encode_options_init(&encode, sizeof encode));
    assert_int_equal(encode.max_image_pixels, 178956970);
    assert_int_equal(encode.flags, 0);
    OK(pg_generate_options_init(&generate, sizeof generate));
    assert_int_equal(generate.max_new_tokens, 0);
    assert_null(generate.features);
    OK(pg_session_options_init(&session, sizeof session));
    assert_int_equal(session.max_new_tokens, 128);
}

/* Calls something with the options. */
typedef pg_status (*options_fn)(void *options);

static counter allocator_memory;
static pg_status init_allocator(void *hooks, size_t size) {
    uint32_t said = (uint32_t)size;
    counter_init(&allocator_memory);
    memset(hooks, 0, size);
    memcpy(hooks, &allocator_memory.hooks, size < sizeof(pg_allocator) ? size : sizeof(pg_allocator));
    memcpy(hooks, &said, 4);
    return PG_OK;
}
static pg_status with_allocator(void *hooks) {
    pg_model_options options;
    pg_model_options_init(&options, sizeof options);
    options.allocator = hooks;
    return with_model(&options);
}

static pg_status with_forward(void *options) {
    pg_outputs *out = NULL;
    pg_status status = pg_forward(model, inputs, options, &out);
    pg_outputs_close(&out);
    return status;
}

static pg_status with_sampling(void *sampling) {
    pg_generate_options options;
    OK(pg_generate_options_init(&options, sizeof options));
    options.sampling = sampling;
    return with_generate(&options);
}

static pg_status with_convert(void *options) {
    char out[600];
    snprintf(out, sizeof out, "%s-converted", folder);
    pg_status status = pg_model_convert(folder, out, options);
    if (status == PG_OK) remove_folder(out);
    return status;
}

static const char *const a_prompt = "x";
static pg_status init_batch(void *batch, size_t size) {
    pg_batch value;
    OK(pg_batch_init(&value, sizeof value));
    value.n_prompts = 1;
    value.prompts = &a_prompt;
    memset(batch, 0, size);
    memcpy(batch, &value, size < sizeof value ? size : sizeof value);
    memcpy(batch, &(uint32_t){(uint32_t)size}, 4);
    return PG_OK;
}
static pg_status with_batch(void *batch) {
    pg_inputs *out = NULL;
    pg_status status = pg_processor_encode_batch(processor, batch, NULL, &out);
    pg_inputs_close(&out);
    return status;
}

static const int64_t an_id = 3;
static const pg_tensor some_ids = {
    .struct_size = sizeof some_ids, .dtype = PG_DTYPE_I64, .n_dims = 2, .shape = {1, 1, 1, 1}, .data = &an_id};
static pg_status init_arrays(void *arrays, size_t size) {
    pg_input_arrays value;
    OK(pg_input_arrays_init(&value, sizeof value));
    value.input_ids = &some_ids;
    memset(arrays, 0, size);
    memcpy(arrays, &value, size < sizeof value ? size : sizeof value);
    memcpy(arrays, &(uint32_t){(uint32_t)size}, 4);
    return PG_OK;
}
static pg_status with_arrays(void *arrays) {
    pg_inputs *out = NULL;
    pg_status status = pg_inputs_create(arrays, &out);
    pg_inputs_close(&out);
    return status;
}
static pg_status init_tensor(void *tensor, size_t size) {
    memset(tensor, 0, size);
    memcpy(tensor, &some_ids, size < sizeof some_ids ? size : sizeof some_ids);
    memcpy(tensor, &(uint32_t){(uint32_t)size}, 4);
    return PG_OK;
}
static pg_status with_tensor(void *tensor) {
    pg_input_arrays arrays;
    OK(pg_input_arrays_init(&arrays, sizeof arrays));
    arrays.input_ids = tensor;
    return with_arrays(&arrays);
}

static const struct {
    const char *name;
    init_fn init;
    options_fn call;
    size_t size;
    size_t oldest; /* bytes that the programs of its first version have; less was never published */
} calls[] = {
    {"pg_model_options", init_pg_model_options, with_model, sizeof(pg_model_options), 64},
    {"pg_processor_options", init_pg_processor_options, with_processor, sizeof(pg_processor_options), 32},
    {"pg_encode_options", init_pg_encode_options, with_encode, sizeof(pg_encode_options), 16},
    {"pg_sampling_options", init_pg_sampling_options, with_sampling, sizeof(pg_sampling_options),
     sizeof(pg_sampling_options)},
    {"pg_generate_options", init_pg_generate_options, with_generate, sizeof(pg_generate_options), 64},
    {"pg_score_options", init_pg_score_options, with_score, sizeof(pg_score_options), sizeof(pg_score_options)},
    {"pg_run_options", init_pg_run_options, with_run, sizeof(pg_run_options), 32},
    {"pg_session_options", init_pg_session_options, with_session, sizeof(pg_session_options), 40},
    {"pg_forward_options", init_pg_forward_options, with_forward, sizeof(pg_forward_options), 56},
    {"pg_convert_options", init_pg_convert_options, with_convert, sizeof(pg_convert_options), 80},
    {"pg_batch", init_batch, with_batch, sizeof(pg_batch), 72},
    {"pg_input_arrays", init_arrays, with_arrays, sizeof(pg_input_arrays), 72},
    {"pg_tensor", init_tensor, with_tensor, sizeof(pg_tensor), 56},
    {"pg_image", init_pixels, with_pixels, sizeof(pg_image), 96},
    {"pg_allocator", init_allocator, with_allocator, sizeof(pg_allocator), 32},
};

static void options_of_other_versions(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        uint64_t buffer[64] = {0};
        static const uint32_t wrong[] = {0, 1, 4, 7, 4294967295u, 1 << 20};
        for (size_t size = calls[i].oldest; size <= calls[i].size + 64; size += 8) {
            OK(calls[i].init(buffer, size));
            pg_status status = calls[i].call(buffer);
            if (status != PG_OK) fail_msg("%s of %zu bytes: %s", calls[i].name, size, pg_last_error());
            if (size > calls[i].size) { /* a field that we do not know is set */
                ((uint8_t *)buffer)[size - 1] = 1;
                ARGUMENT(calls[i].call(buffer));
                assert_non_null(strstr(pg_last_error(), calls[i].name));
            }
        }
        for (size_t k = 0; k < sizeof wrong / sizeof *wrong; k++) {
            OK(calls[i].init(buffer, calls[i].size));
            memcpy(buffer, &wrong[k], 4);
            ARGUMENT(calls[i].call(buffer));
            assert_non_null(strstr(pg_last_error(), "struct_size"));
        }
    }
}

/* One day it may mean something: a program that left it undefined must be told now. */
static void reserved_is_refused(void **state) {
    (void)state;
    static const struct {
        const char *name;
        size_t offset;
    } reserved[] = {
        {"pg_model_options", offsetof(pg_model_options, reserved)},
        {"pg_forward_options", offsetof(pg_forward_options, reserved)},
        {"pg_convert_options", offsetof(pg_convert_options, reserved)},
        {"pg_batch", offsetof(pg_batch, reserved)},
        {"pg_input_arrays", offsetof(pg_input_arrays, reserved)},
        {"pg_tensor", offsetof(pg_tensor, reserved)},
        {"pg_allocator", offsetof(pg_allocator, reserved)},
    };
    for (size_t r = 0; r < sizeof reserved / sizeof *reserved; r++) {
        size_t i = 0;
        uint64_t buffer[64] = {0};
        while (i < sizeof calls / sizeof *calls && strcmp(calls[i].name, reserved[r].name) != 0) i++;
        assert_in_range(i, 0, sizeof calls / sizeof *calls - 1);
        OK(calls[i].init(buffer, calls[i].size));
        memcpy((uint8_t *)buffer + reserved[r].offset, &(uint32_t){7}, 4);
        ARGUMENT(calls[i].call(buffer));
        assert_non_null(strstr(pg_last_error(), ".reserved is 7, expected 0"));
        assert_non_null(strstr(pg_last_error(), reserved[r].name));
    }
}

typedef pg_status (*getter_fn)(void *out);
static pg_result *a_result;
static pg_status get_model_info(void *out) { return pg_model_get_info(model, out); }
static pg_status get_processor_info(void *out) { return pg_processor_get_info(processor, out); }
static pg_status get_settings(void *out) { return pg_processor_get_image_settings(processor, out); }
static pg_status get_result_info(void *out) { return pg_result_get_info(a_result, 0, out); }
static pg_status get_row(void *out) { return pg_inputs_get_row_info(inputs, 0, out); }
static pg_status get_tensor(void *out) { return pg_inputs_get_tensor(inputs, "input_ids", out); }
static pg_status get_ids(void *out) { return pg_result_get_ids(a_result, 0, out); }

static void getters_write_what_there_is_room_for(void **state) {
    static const struct {
        getter_fn get;
        size_t size;
    } getters[] = {{get_model_info, sizeof(pg_model_info)},
                   {get_processor_info, sizeof(pg_processor_info)},
                   {get_settings, sizeof(pg_image_settings)},
                   {get_result_info, sizeof(pg_result_info)},
                   {get_row, sizeof(pg_row_info)},
                   {get_tensor, sizeof(pg_tensor)},
                   {get_ids, sizeof(pg_tensor)}};
    (void)state;
    OK(pg_generate(model, processor, inputs, NULL, &a_result));
    for (size_t i = 0; i < sizeof getters / sizeof *getters; i++) {
        uint64_t buffer[64], whole[64] = {0};
        uint8_t *p = (uint8_t *)buffer;
        static const uint32_t wrong[] = {0, 3, 4, 4294967295u};
        ARGUMENT(getters[i].get(NULL));
        memcpy(whole, &(uint32_t){(uint32_t)getters[i].size}, 4);
        OK(getters[i].get(whole));
        for (size_t size = 8; size <= getters[i].size + 32; size += 8) {
            memset(buffer, 0xEE, sizeof buffer);
            memcpy(buffer, &(uint32_t){(uint32_t)size}, 4);
            OK(getters[i].get(buffer));
            assert_memory_equal(buffer, &(uint32_t){(uint32_t)size}, 4);
            size_t common = size < getters[i].size ? size : getters[i].size;
            assert_memory_equal(p + 4, (uint8_t *)whole + 4, common - 4);
            for (size_t k = common; k < size; k++) assert_int_equal(p[k], 0);
            for (size_t k = size; k < sizeof buffer; k++) assert_int_equal(p[k], 0xEE);
        }
        for (size_t k = 0; k < 4; k++) {
            memset(buffer, 0xEE, sizeof buffer);
            memcpy(buffer, &wrong[k], 4);
            ARGUMENT(getters[i].get(buffer));
        }
    }
    pg_result_close(&a_result);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(init_fills_exactly_what_it_is_told),
        cmocka_unit_test(defaults),
        cmocka_unit_test(options_of_other_versions),
        cmocka_unit_test(reserved_is_refused),
        cmocka_unit_test(getters_write_what_there_is_room_for),
    };
    return RUN_TESTS(tests, setup, teardown);
}
