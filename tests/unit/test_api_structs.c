/* Structs of the public API as older, this and newer headers have them: options in, info and tensors out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "api_fixture.h"

typedef pg_status (*init_fn)(void *options, size_t struct_size);

#define INIT(type) \
    static pg_status init_##type(void *options, size_t size) { return type##_init(options, size); }
INIT(pg_model_options)
INIT(pg_processor_options)
INIT(pg_encode_options)
INIT(pg_generate_options)
INIT(pg_run_options)
INIT(pg_session_options)

static pg_status init_path(void *image, size_t size) { return pg_image_from_path(image, size, "x"); }
static pg_status init_bytes(void *image, size_t size) { return pg_image_from_bytes(image, size, "x", 1); }
static pg_status init_pixels(void *image, size_t size) {
    return pg_image_from_pixels(image, size, PG_IMAGE_GRAY8, 1, 1, "x", 0);
}

static const struct {
    init_fn init;
    size_t size;
} inits[] = {
    {init_pg_model_options, sizeof(pg_model_options)},       {init_pg_processor_options, sizeof(pg_processor_options)},
    {init_pg_encode_options, sizeof(pg_encode_options)},     {init_pg_generate_options, sizeof(pg_generate_options)},
    {init_pg_run_options, sizeof(pg_run_options)},           {init_pg_session_options, sizeof(pg_session_options)},
    {init_path, sizeof(pg_image)},                           {init_bytes, sizeof(pg_image)},
    {init_pixels, sizeof(pg_image)},
};

static void init_fills_exactly_what_it_is_told(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof inits / sizeof *inits; i++) {
        uint64_t room[64], whole[64];
        uint8_t *p = (uint8_t *)room;
        ARGUMENT(inits[i].init(NULL, inits[i].size));
        ARGUMENT(inits[i].init(room, 0));
        ARGUMENT(inits[i].init(room, 4));
        ARGUMENT(inits[i].init(room, inits[i].size + 1));
        ARGUMENT(inits[i].init(room, (size_t)1 << 32));
        ARGUMENT(inits[i].init(room, SIZE_MAX));
        memset(whole, 0xEE, sizeof whole);
        OK(inits[i].init(whole, inits[i].size));
        /* a program built with an older, with this, and with a newer header */
        for (size_t size = 16; size <= inits[i].size + 32; size += 8) {
            uint32_t said;
            memset(room, 0xEE, sizeof room);
            OK(inits[i].init(room, size));
            memcpy(&said, room, 4);
            assert_int_equal(said, size);
            size_t common = size < inits[i].size ? size : inits[i].size;
            assert_memory_equal(p + 4, (uint8_t *)whole + 4, common - 4);
            for (size_t k = common; k < size; k++) assert_int_equal(p[k], 0);
            for (size_t k = size; k < sizeof room; k++) assert_int_equal(p[k], 0xEE); /* not a byte more */
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
    assert_int_equal(generate.max_new_tokens, 128);
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

static const struct {
    const char *name;
    init_fn init;
    options_fn call;
    size_t size;
    size_t oldest; /* bytes that version 0.1's programs have; less was never published */
} calls[] = {
    {"pg_model_options", init_pg_model_options, with_model, sizeof(pg_model_options), 64},
    {"pg_processor_options", init_pg_processor_options, with_processor, sizeof(pg_processor_options), 32},
    {"pg_encode_options", init_pg_encode_options, with_encode, sizeof(pg_encode_options), 16},
    {"pg_generate_options", init_pg_generate_options, with_generate, sizeof(pg_generate_options), 64},
    {"pg_run_options", init_pg_run_options, with_run, sizeof(pg_run_options), 32},
    {"pg_session_options", init_pg_session_options, with_session, sizeof(pg_session_options), 40},
    {"pg_image", init_pixels, with_pixels, sizeof(pg_image), 96},
    {"pg_allocator", init_allocator, with_allocator, sizeof(pg_allocator), 32},
};

static void options_of_other_versions(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        uint64_t room[64] = {0};
        static const uint32_t wrong[] = {0, 1, 4, 7, 4294967295u, 1 << 20};
        for (size_t size = calls[i].oldest; size <= calls[i].size + 64; size += 8) {
            OK(calls[i].init(room, size));
            pg_status status = calls[i].call(room);
            if (status != PG_OK) fail_msg("%s of %zu bytes: %s", calls[i].name, size, pg_last_error());
            if (size > calls[i].size) { /* a field that we do not know is set */
                ((uint8_t *)room)[size - 1] = 1;
                ARGUMENT(calls[i].call(room));
                assert_non_null(strstr(pg_last_error(), calls[i].name));
            }
        }
        for (size_t k = 0; k < sizeof wrong / sizeof *wrong; k++) {
            OK(calls[i].init(room, calls[i].size));
            memcpy(room, &wrong[k], 4);
            ARGUMENT(calls[i].call(room));
            assert_non_null(strstr(pg_last_error(), "struct_size"));
        }
    }
}

typedef pg_status (*getter_fn)(void *out);
static pg_result *a_result;
static pg_status get_model_info(void *out) { return pg_model_get_info(model, out); }
static pg_status get_processor_info(void *out) { return pg_processor_get_info(processor, out); }
static pg_status get_result_info(void *out) { return pg_result_get_info(a_result, out); }
static pg_status get_tensor(void *out) { return pg_inputs_get(inputs, "input_ids", out); }
static pg_status get_ids(void *out) { return pg_result_ids(a_result, out); }

static void getters_write_what_there_is_room_for(void **state) {
    static const struct {
        getter_fn get;
        size_t size;
    } getters[] = {{get_model_info, sizeof(pg_model_info)},
                   {get_processor_info, sizeof(pg_processor_info)},
                   {get_result_info, sizeof(pg_result_info)},
                   {get_tensor, sizeof(pg_tensor)},
                   {get_ids, sizeof(pg_tensor)}};
    (void)state;
    OK(pg_generate(model, processor, inputs, NULL, &a_result));
    for (size_t i = 0; i < sizeof getters / sizeof *getters; i++) {
        uint64_t room[64], whole[64] = {0};
        uint8_t *p = (uint8_t *)room;
        static const uint32_t wrong[] = {0, 3, 4, 4294967295u};
        ARGUMENT(getters[i].get(NULL));
        memcpy(whole, &(uint32_t){(uint32_t)getters[i].size}, 4);
        OK(getters[i].get(whole));
        for (size_t size = 8; size <= getters[i].size + 32; size += 8) {
            memset(room, 0xEE, sizeof room);
            memcpy(room, &(uint32_t){(uint32_t)size}, 4);
            OK(getters[i].get(room));
            assert_memory_equal(room, &(uint32_t){(uint32_t)size}, 4);
            size_t common = size < getters[i].size ? size : getters[i].size;
            assert_memory_equal(p + 4, (uint8_t *)whole + 4, common - 4);
            for (size_t k = common; k < size; k++) assert_int_equal(p[k], 0);
            for (size_t k = size; k < sizeof room; k++) assert_int_equal(p[k], 0xEE);
        }
        for (size_t k = 0; k < 4; k++) {
            memset(room, 0xEE, sizeof room);
            memcpy(room, &wrong[k], 4);
            ARGUMENT(getters[i].get(room));
        }
    }
    pg_result_close(&a_result);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(init_fills_exactly_what_it_is_told),
        cmocka_unit_test(defaults),
        cmocka_unit_test(options_of_other_versions),
        cmocka_unit_test(getters_write_what_there_is_room_for),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
