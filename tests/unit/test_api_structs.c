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
INIT(pg_beam_options)
INIT(pg_answer_options)
INIT(pg_mask_decoder_options)
INIT(pg_tensor)

static pg_status init_path(void *image, size_t size) { return pg_image_from_path(image, size, "x"); }
static pg_status init_bytes(void *image, size_t size) { return pg_image_from_bytes(image, size, "x", 1); }
static pg_status init_pixels(void *image, size_t size) {
    return pg_image_from_pixels(image, size, PG_IMAGE_GRAY8, 1, 1, "x", 0);
}

static pg_status init_planes(void *image, size_t size) {
    static const void *const planes[] = {"x"};
    return pg_image_from_planes(image, size, PG_IMAGE_GRAY8, 1, 1, planes, NULL);
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
    {init_pg_beam_options, sizeof(pg_beam_options)},
    {init_pg_answer_options, sizeof(pg_answer_options)},
    {init_pg_mask_decoder_options, sizeof(pg_mask_decoder_options)},
    {init_pg_tensor, sizeof(pg_tensor)},
    {init_path, sizeof(pg_image)},
    {init_bytes, sizeof(pg_image)},
    {init_pixels, sizeof(pg_image)},
    {init_planes, sizeof(pg_image)},
};

/* Sizes that no header gives: smaller than the first release's, which is today's; half a field; left unset. */
static int is_wrong(size_t size, size_t known) { return size < known || size % 8 != 0 || size > known + 256; }

static void init_fills_exactly_what_it_is_told(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof inits / sizeof *inits; i++) {
        uint64_t buffer[64], whole[64];
        uint8_t *p = (uint8_t *)buffer;
        ARGUMENT(inits[i].init(NULL, inits[i].size));
        for (size_t size = 0; size < 700; size++)
            if (is_wrong(size, inits[i].size)) ARGUMENT(inits[i].init(buffer, size));
        ARGUMENT(inits[i].init(buffer, (size_t)1 << 32));
        ARGUMENT(inits[i].init(buffer, SIZE_MAX));
        memset(whole, 0xEE, sizeof whole);
        OK(inits[i].init(whole, inits[i].size));
        /* a program built with this header, and with a newer one */
        for (size_t size = inits[i].size; size <= inits[i].size + 32; size += 8) {
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

static pg_status with_beams(void *beams) {
    pg_generate_options options;
    OK(pg_generate_options_init(&options, sizeof options));
    options.beams = beams;
    return with_generate(&options);
}

static pg_status init_settings(void *settings, size_t size) {
    memset(settings, 0, size);
    memcpy(settings, &(uint32_t){(uint32_t)size}, 4);
    return pg_processor_get_image_settings(processor, settings);
}
static pg_status with_settings(void *settings) {
    pg_encode_options options;
    OK(pg_encode_options_init(&options, sizeof options));
    options.image_settings = settings;
    return with_encode(&options);
}

static pg_status init_answer(void *answer, size_t size) {
    pg_answer_options value;
    OK(pg_answer_options_init(&value, sizeof value));
    value.width = value.height = 10;
    memset(answer, 0, size);
    memcpy(answer, &value, size < sizeof value ? size : sizeof value);
    memcpy(answer, &(uint32_t){(uint32_t)size}, 4);
    return PG_OK;
}
static pg_status with_answer(void *options) {
    pg_answer *out = NULL;
    pg_status status = pg_answer_create_from_text("a", 1, options, &out);
    pg_answer_close(&out);
    return status;
}

/* The options are looked at before the file, which is not there. */
static pg_status with_mask_decoder(void *options) {
    pg_mask_decoder *out = NULL;
    pg_status status = pg_mask_decoder_open("/nowhere/x.npz", options, &out);
    return status == PG_ERROR_NOT_FOUND ? PG_OK : status;
}

static const struct {
    const char *name;
    init_fn init;
    options_fn call;
    size_t size;
} calls[] = {
    {"pg_model_options", init_pg_model_options, with_model, sizeof(pg_model_options)},
    {"pg_processor_options", init_pg_processor_options, with_processor, sizeof(pg_processor_options)},
    {"pg_encode_options", init_pg_encode_options, with_encode, sizeof(pg_encode_options)},
    {"pg_sampling_options", init_pg_sampling_options, with_sampling, sizeof(pg_sampling_options)},
    {"pg_generate_options", init_pg_generate_options, with_generate, sizeof(pg_generate_options)},
    {"pg_score_options", init_pg_score_options, with_score, sizeof(pg_score_options)},
    {"pg_run_options", init_pg_run_options, with_run, sizeof(pg_run_options)},
    {"pg_session_options", init_pg_session_options, with_session, sizeof(pg_session_options)},
    {"pg_forward_options", init_pg_forward_options, with_forward, sizeof(pg_forward_options)},
    {"pg_convert_options", init_pg_convert_options, with_convert, sizeof(pg_convert_options)},
    {"pg_batch", init_batch, with_batch, sizeof(pg_batch)},
    {"pg_input_arrays", init_arrays, with_arrays, sizeof(pg_input_arrays)},
    {"pg_tensor", init_tensor, with_tensor, sizeof(pg_tensor)},
    {"pg_image", init_pixels, with_pixels, sizeof(pg_image)},
    {"pg_allocator", init_allocator, with_allocator, sizeof(pg_allocator)},
    {"pg_beam_options", init_pg_beam_options, with_beams, sizeof(pg_beam_options)},
    {"pg_image_settings", init_settings, with_settings, sizeof(pg_image_settings)},
    {"pg_answer_options", init_answer, with_answer, sizeof(pg_answer_options)},
    {"pg_mask_decoder_options", init_pg_mask_decoder_options, with_mask_decoder, sizeof(pg_mask_decoder_options)},
};

static void options_of_other_versions(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        uint64_t buffer[64] = {0};
        static const uint32_t wrong[] = {4294967295u, 1 << 20, 0xEEEEEEEE, 0x7fff0000};
        for (size_t size = calls[i].size; size <= calls[i].size + 64; size += 8) {
            OK(calls[i].init(buffer, size));
            pg_status status = calls[i].call(buffer);
            if (status != PG_OK) fail_msg("%s of %zu bytes: %s", calls[i].name, size, pg_last_error());
            if (size > calls[i].size) { /* a field that we do not know is set */
                ((uint8_t *)buffer)[size - 1] = 1;
                ARGUMENT(calls[i].call(buffer));
                assert_non_null(strstr(pg_last_error(), calls[i].name));
            }
        }
        for (size_t k = 0; k < 700 + sizeof wrong / sizeof *wrong; k++) {
            const uint32_t size = k < 700 ? (uint32_t)k : wrong[k - 700];
            char text[128];
            if (!is_wrong(size, calls[i].size)) continue;
            OK(calls[i].init(buffer, calls[i].size));
            memcpy(buffer, &size, 4);
            ARGUMENT(calls[i].call(buffer));
            snprintf(text, sizeof text, "%s.struct_size is %u, expected sizeof(%s), %zu", calls[i].name, size,
                     calls[i].name, calls[i].size);
            assert_non_null(strstr(pg_last_error(), text));
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

static pg_status get_result_tensor(void *out) { return pg_result_get_tensor(a_result, 0, "ids", out); }
static pg_status get_sampling(void *out) { return pg_model_get_sampling(model, out); }
/* Its in fields are 0: the defaults. */
static pg_status get_memory(void *out) {
    uint32_t size;
    memcpy(&size, out ? out : &(uint32_t){0}, sizeof size);
    if (out && !is_wrong(size, sizeof(pg_memory))) memset((uint8_t *)out + 4, 0, size - 4);
    return pg_model_get_memory(model, out);
}
static pg_scores *some_scores;
static pg_status get_score(void *out) { return pg_scores_get_info(some_scores, 0, out); }
static pg_answer *an_answer;
static pg_status get_object(void *out) { return pg_answer_get_object(an_answer, 0, out); }

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
                   {get_ids, sizeof(pg_tensor)},
                   {get_result_tensor, sizeof(pg_tensor)},
                   {get_memory, sizeof(pg_memory)},
                   {get_score, sizeof(pg_score_info)},
                   {get_object, sizeof(pg_object)},
                   {get_sampling, sizeof(pg_sampling_options)}};
    (void)state;
    static const char *const answers[] = {"cat"};
    static const char boxes[] = "<loc0001><loc0002><loc0003><loc0004> a cat";
    pg_answer_options answer_options;
    OK(pg_generate(model, processor, inputs, NULL, &a_result));
    OK(pg_score(model, processor, inputs, answers, 1, NULL, &some_scores));
    OK(init_answer(&answer_options, sizeof answer_options));
    OK(pg_answer_create_from_text(boxes, strlen(boxes), &answer_options, &an_answer));
    for (size_t i = 0; i < sizeof getters / sizeof *getters; i++) {
        uint64_t buffer[64], whole[64] = {0};
        uint8_t *p = (uint8_t *)buffer;
        static const uint32_t wrong[] = {4294967295u, 0xEEEEEEEE, 1 << 20};
        ARGUMENT(getters[i].get(NULL));
        memcpy(whole, &(uint32_t){(uint32_t)getters[i].size}, 4);
        OK(getters[i].get(whole));
        for (size_t size = getters[i].size; size <= getters[i].size + 32; size += 8) {
            memset(buffer, 0xEE, sizeof buffer);
            memcpy(buffer, &(uint32_t){(uint32_t)size}, 4);
            OK(getters[i].get(buffer));
            assert_memory_equal(buffer, &(uint32_t){(uint32_t)size}, 4);
            size_t common = size < getters[i].size ? size : getters[i].size;
            assert_memory_equal(p + 4, (uint8_t *)whole + 4, common - 4);
            for (size_t k = common; k < size; k++) assert_int_equal(p[k], 0);
            for (size_t k = size; k < sizeof buffer; k++) assert_int_equal(p[k], 0xEE);
        }
        for (size_t k = 0; k < 700 + sizeof wrong / sizeof *wrong; k++) {
            const uint32_t size = k < 700 ? (uint32_t)k : wrong[k - 700];
            if (!is_wrong(size, getters[i].size)) continue;
            memset(buffer, 0xEE, sizeof buffer);
            memcpy(buffer, &size, 4);
            ARGUMENT(getters[i].get(buffer));
            for (size_t at = 4; at < sizeof buffer && size < sizeof buffer; at++) assert_int_equal(p[at], 0xEE);
        }
    }
    pg_answer_close(&an_answer);
    pg_scores_close(&some_scores);
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
