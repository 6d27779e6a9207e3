/* The public API as the header states it: sizes of structs, NULL arguments, copying out, states of a session. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support.h"
#include "tiny.h"

static char folder[512];
static pg_model *model;
static pg_processor *processor;
static pg_inputs *inputs; /* with a picture */
static pg_inputs *text_only;

#define OK(call) \
    do { \
        pg_status status_ = (call); \
        if (status_ != PG_OK) fail_msg("%s: %s: %s", #call, pg_status_name(status_), pg_last_error()); \
    } while (0)

#define ERROR(call, wanted) \
    do { \
        stale_error(); \
        pg_status status_ = (call); \
        const char *bad_ = status_ == (wanted) ? bad_error(status_) : "another status"; \
        if (!bad_ && error_is_stale() && (wanted) != PG_ERROR_ARGUMENT) bad_ = "no message of its own"; \
        if (bad_) fail_msg("%s: %s: %s %s", #call, bad_, pg_status_name(status_), pg_last_error()); \
    } while (0)

#define ARGUMENT(call) ERROR(call, PG_ERROR_ARGUMENT)

static int setup(void **state) {
    tiny_options options = tiny_saved_today();
    pg_image image;
    (void)state;
    make_temp_folder(folder, sizeof folder);
    tiny_write(folder, &options);
    bytes file = tiny_picture(PICTURE_JPEG, 30, 20, 1);
    OK(pg_model_open(folder, NULL, &model));
    OK(pg_processor_open(folder, NULL, &processor));
    OK(pg_image_from_bytes(&image, sizeof image, file.data, file.size));
    OK(pg_processor_encode(processor, &image, "the cat", NULL, &inputs));
    OK(pg_processor_encode(processor, NULL, "the cat", NULL, &text_only));
    bytes_free(&file);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    pg_inputs_close(&inputs);
    pg_inputs_close(&text_only);
    pg_processor_close(&processor);
    pg_model_close(&model);
    remove_folder(folder);
    return 0;
}

static void version_and_names(void **state) {
    static const pg_status all[] = {PG_OK, PG_EVENT_EOS, PG_EVENT_LENGTH, PG_ERROR_ARGUMENT, PG_ERROR_MEMORY, PG_ERROR_IO, PG_ERROR_NOT_FOUND,
                                    PG_ERROR_FORMAT, PG_ERROR_UNSUPPORTED, PG_ERROR_LIMIT, PG_ERROR_CANCELLED, PG_ERROR_STATE,
                                    PG_ERROR_INTERNAL};
    (void)state;
    assert_int_equal(pg_version_api(), PG_API_VERSION_MAJOR << 16 | PG_API_VERSION_MINOR << 8 | PG_API_VERSION_PATCH);
    assert_string_equal(pg_version_string(), PACKAGE_VERSION);
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        assert_memory_equal(pg_status_name(all[i]), "PG_", 3);
        for (size_t j = 0; j < i; j++) assert_string_not_equal(pg_status_name(all[i]), pg_status_name(all[j]));
    }
    assert_string_equal(pg_status_name(PG_ERROR_FORMAT), "PG_ERROR_FORMAT");
    assert_non_null(pg_status_name(12345));
    assert_non_null(pg_status_name(INT32_MIN));
    assert_non_null(pg_last_error());
}

/* ------------------------------------------------------------------------------------------------ sizes of structs */

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

/* Calls something with options of `size` bytes; everything made is closed again. */
typedef pg_status (*options_fn)(void *options);

static pg_status with_model(void *options) {
    pg_model *out = NULL;
    pg_status status = pg_model_open(folder, options, &out);
    pg_model_close(&out);
    return status;
}
static pg_status with_processor(void *options) {
    pg_processor *out = NULL;
    pg_status status = pg_processor_open(folder, options, &out);
    pg_processor_close(&out);
    return status;
}
static pg_status with_encode(void *options) {
    pg_inputs *out = NULL;
    pg_status status = pg_processor_encode(processor, NULL, "x", options, &out);
    pg_inputs_close(&out);
    return status;
}
static pg_status with_generate(void *options) {
    pg_result *out = NULL;
    pg_status status = pg_generate(model, processor, inputs, options, &out);
    pg_result_close(&out);
    return status;
}
static pg_status with_run(void *options) {
    pg_features *out = NULL;
    pg_status status = pg_encode_image(model, inputs, options, &out);
    pg_features_close(&out);
    return status;
}
static pg_status with_session(void *options) {
    pg_session *out = NULL;
    pg_status status = pg_session_create(model, options, &out);
    pg_session_close(&out);
    return status;
}
static pg_status with_pixels(void *image) {
    pg_inputs *out = NULL;
    pg_status status = pg_processor_encode(processor, image, "x", NULL, &out);
    pg_inputs_close(&out);
    return status;
}
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
        assert_int_equal(calls[i].oldest, calls[i].size); /* once the struct has grown: old and new sizes both below */
        for (size_t size = calls[i].size; size <= calls[i].size + 64; size += 8) {
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

/* ---------------------------------------------------------------------------------------------------------- NULLs */

static void null_arguments(void **state) {
    pg_model *m = NULL;
    pg_processor *p = NULL;
    pg_inputs *in = NULL;
    pg_features *f = NULL;
    pg_session *s = NULL;
    pg_result *r = NULL;
    pg_detokenizer *d = NULL;
    pg_image image;
    pg_tensor tensor = {.struct_size = sizeof tensor};
    pg_model_info model_info = {.struct_size = sizeof model_info};
    pg_processor_info processor_info = {.struct_size = sizeof processor_info};
    pg_result_info result_info = {.struct_size = sizeof result_info};
    pg_memory memory = {.struct_size = sizeof memory};
    int64_t id = 0;
    size_t n = 0;
    double real = 0;
    char text[8];
    const char *piece;
    (void)state;
    ARGUMENT(pg_cancel_create(NULL));
    ARGUMENT(pg_image_from_path(NULL, sizeof image, "x"));
    ARGUMENT(pg_image_from_path(&image, sizeof image, NULL));
    ARGUMENT(pg_image_from_bytes(NULL, sizeof image, "x", 1));
    ARGUMENT(pg_image_from_bytes(&image, sizeof image, NULL, 1));
    ARGUMENT(pg_image_from_pixels(NULL, sizeof image, PG_IMAGE_RGB8, 1, 1, "abc", 0));
    ARGUMENT(pg_image_from_pixels(&image, sizeof image, PG_IMAGE_RGB8, 1, 1, NULL, 0));
    ARGUMENT(pg_image_from_pixels(&image, sizeof image, 77, 1, 1, "abc", 0));
    ARGUMENT(pg_model_open(NULL, NULL, &m));
    ARGUMENT(pg_model_open(folder, NULL, NULL));
    ARGUMENT(pg_model_config_int(NULL, "x", &id));
    ARGUMENT(pg_model_config_int(model, NULL, &id));
    ARGUMENT(pg_model_config_int(model, "hidden_size", NULL));
    ARGUMENT(pg_model_config_float(NULL, "x", &real));
    ARGUMENT(pg_model_config_float(model, NULL, &real));
    ARGUMENT(pg_model_config_float(model, "text_config.rms_norm_eps", NULL));
    ARGUMENT(pg_model_config(NULL, "", text, sizeof text, &n));
    ARGUMENT(pg_model_config(model, NULL, text, sizeof text, &n));
    ARGUMENT(pg_model_config(model, "", NULL, 5, &n));
    ARGUMENT(pg_model_get_info(NULL, &model_info));
    ARGUMENT(pg_model_get_info(model, NULL));
    ARGUMENT(pg_model_memory(NULL, &memory));
    ARGUMENT(pg_model_memory(model, NULL));
    ARGUMENT(pg_checkpoint_find(NULL, text, sizeof text, &n));
    ARGUMENT(pg_checkpoint_find(folder, NULL, 5, &n));
    ARGUMENT(pg_processor_open(NULL, NULL, &p));
    ARGUMENT(pg_processor_open(folder, NULL, NULL));
    ARGUMENT(pg_processor_encode(NULL, NULL, "x", NULL, &in));
    ARGUMENT(pg_processor_encode(processor, NULL, "x", NULL, NULL));
    ARGUMENT(pg_inputs_get(NULL, "input_ids", &tensor));
    ARGUMENT(pg_inputs_get(inputs, NULL, &tensor));
    ARGUMENT(pg_inputs_get(inputs, "input_ids", NULL));
    ARGUMENT(pg_processor_tokenize(NULL, "x", 0, &id, 1, &n));
    ARGUMENT(pg_processor_tokenize(processor, NULL, 0, &id, 1, &n));
    ARGUMENT(pg_processor_tokenize(processor, "x", 0, NULL, 1, &n));
    ARGUMENT(pg_processor_tokenize(processor, "x", 0, &id, 1, NULL));
    ARGUMENT(pg_processor_tokenize(processor, "x", 0x80, &id, 1, &n));
    ARGUMENT(pg_processor_decode(NULL, &id, 1, 0, text, sizeof text, &n));
    ARGUMENT(pg_processor_decode(processor, NULL, 1, 0, text, sizeof text, &n));
    ARGUMENT(pg_processor_decode(processor, &id, 1, 0, NULL, 4, &n));
    ARGUMENT(pg_processor_decode(processor, &id, 1, 0x80, text, sizeof text, &n));
    ARGUMENT(pg_processor_piece(NULL, 0, &piece));
    ARGUMENT(pg_processor_piece(processor, 0, NULL));
    ARGUMENT(pg_processor_piece(processor, -1, &piece));
    ARGUMENT(pg_processor_piece(processor, INT64_MAX, &piece));
    ARGUMENT(pg_processor_token_id(NULL, "x", &id));
    ARGUMENT(pg_processor_token_id(processor, NULL, &id));
    ARGUMENT(pg_processor_token_id(processor, "x", NULL));
    ARGUMENT(pg_processor_get_info(NULL, &processor_info));
    ARGUMENT(pg_processor_get_info(processor, NULL));
    ARGUMENT(pg_generate(NULL, processor, inputs, NULL, &r));
    ARGUMENT(pg_generate(model, NULL, inputs, NULL, &r));
    ARGUMENT(pg_generate(model, processor, NULL, NULL, &r));
    ARGUMENT(pg_generate(model, processor, inputs, NULL, NULL));
    ARGUMENT(pg_generate(model, processor, text_only, NULL, &r)); /* neither pixels nor features */
    ARGUMENT(pg_result_ids(NULL, &tensor));
    ARGUMENT(pg_result_get_info(NULL, &result_info));
    ARGUMENT(pg_encode_image(NULL, inputs, NULL, &f));
    ARGUMENT(pg_encode_image(model, NULL, NULL, &f));
    ARGUMENT(pg_encode_image(model, inputs, NULL, NULL));
    ARGUMENT(pg_encode_image(model, text_only, NULL, &f));
    ARGUMENT(pg_features_get(NULL, &tensor));
    ARGUMENT(pg_session_create(NULL, NULL, &s));
    ARGUMENT(pg_session_create(model, NULL, NULL));
    OK(pg_session_create(model, NULL, &s));
    ARGUMENT(pg_session_prefill(NULL, inputs, NULL));
    ARGUMENT(pg_session_prefill(s, NULL, NULL));
    ARGUMENT(pg_session_prefill(s, text_only, NULL));
    ARGUMENT(pg_session_step(NULL, &id));
    ARGUMENT(pg_session_step(s, NULL));
    ARGUMENT(pg_session_logits(NULL, &tensor));
    pg_session_close(&s);
    ARGUMENT(pg_detokenizer_create(NULL, 0, &d));
    ARGUMENT(pg_detokenizer_create(processor, 0, NULL));
    ARGUMENT(pg_detokenizer_create(processor, 0x80, &d));
    OK(pg_detokenizer_create(processor, 0, &d));
    ARGUMENT(pg_detokenizer_push(NULL, 0, &piece, &n));
    ARGUMENT(pg_detokenizer_push(d, 0, NULL, &n));
    ARGUMENT(pg_detokenizer_push(d, -1, &piece, &n));
    ARGUMENT(pg_detokenizer_push(d, INT64_MAX, &piece, &n));
    ARGUMENT(pg_detokenizer_flush(NULL, &piece, &n));
    ARGUMENT(pg_detokenizer_flush(d, NULL, &n));
    pg_detokenizer_close(&d);
    assert_true(!m && !p && !in && !f && !s && !r && !d);
}

static void values_out_of_range(void **state) {
    pg_generate_options generate;
    pg_session_options session;
    pg_encode_options encode;
    pg_memory memory = {.struct_size = sizeof memory};
    (void)state;
    pg_generate_options_init(&generate, sizeof generate);
    generate.max_new_tokens = -1;
    ARGUMENT(with_generate(&generate));
    generate.max_new_tokens = 1;
    generate.n_threads = -1;
    ARGUMENT(with_generate(&generate));
    generate.n_threads = INT32_MAX;
    ARGUMENT(with_generate(&generate));
    generate.n_threads = 1;
    generate.flags = 1;
    ARGUMENT(with_generate(&generate));
    pg_session_options_init(&session, sizeof session);
    session.max_new_tokens = -5;
    ARGUMENT(with_session(&session));
    session.max_new_tokens = INT32_MAX; /* fine: the context ends it earlier, and memory is asked for when there is a prompt */
    OK(with_session(&session));
    pg_encode_options_init(&encode, sizeof encode);
    encode.flags = 0x80;
    ARGUMENT(with_encode(&encode));
    encode.flags = 0;
    encode.max_image_pixels = -1;
    ARGUMENT(with_encode(&encode));
    encode.max_image_pixels = 0;
    OK(with_encode(&encode));
    memory.n_tokens = -1;
    ARGUMENT(pg_model_memory(model, &memory));
    memory.n_tokens = INT64_MAX;
    ARGUMENT(pg_model_memory(model, &memory));
    memory.n_tokens = 0;
    memory.n_images = -1;
    ARGUMENT(pg_model_memory(model, &memory));
    memory.n_images = 0;
    memory.n_threads = -1;
    ARGUMENT(pg_model_memory(model, &memory));
}

/* ------------------------------------------------------------------------------------------------------ contents */

static void config_and_info(void **state) {
    int64_t value = 0;
    double real = 0;
    char text[4096];
    size_t needed = 0;
    pg_model_info info = {.struct_size = sizeof info};
    pg_processor_info about = {.struct_size = sizeof about};
    pg_memory memory = {.struct_size = sizeof memory};
    (void)state;
    OK(pg_model_config_int(model, "text_config.hidden_size", &value));
    assert_int_equal(value, 32);
    OK(pg_model_config_int(model, "vision_config.patch_size", &value));
    assert_int_equal(value, 4);
    OK(pg_model_config_float(model, "vision_config.layer_norm_eps", &real)); /* a default */
    assert_true(real == 1e-6);
    ERROR(pg_model_config_int(model, "text_config.no_such", &value), PG_ERROR_NOT_FOUND);
    ERROR(pg_model_config_int(model, "no_such_config.hidden_size", &value), PG_ERROR_NOT_FOUND);
    ERROR(pg_model_config_int(model, "text_config.hidden_size.x", &value), PG_ERROR_NOT_FOUND);
    ARGUMENT(pg_model_config_int(model, "text_config.model_type", &value));
    ARGUMENT(pg_model_config_int(model, "text_config", &value));
    OK(pg_model_config(model, "text_config.model_type", text, sizeof text, &needed));
    assert_string_equal(text, "\"gemma2\"");
    assert_int_equal(needed, 9);
    OK(pg_model_config(model, "", NULL, 0, &needed));
    assert_in_range(needed, 500, sizeof text);
    OK(pg_model_config(model, "", text, needed, NULL));
    assert_int_equal(strlen(text), needed - 1);
    assert_int_equal(text[0], '{');
    OK(pg_model_get_info(model, &info));
    assert_int_equal(info.generation, 2);
    assert_int_equal(info.n_files, 3);
    assert_int_equal(info.dtypes, 1u << PG_DTYPE_F32);
    assert_int_equal(info.n_image_tokens, 9);
    assert_int_equal(info.image_size, 12);
    assert_true(info.n_bytes_mapped > info.n_parameters * 4);
    assert_true(info.cpu_used & PG_CPU_BASELINE);
    OK(pg_processor_get_info(processor, &about));
    assert_int_equal(about.n_image_tokens, 9);
    assert_int_equal(about.image_size, 12);
    assert_int_equal(about.resample, 3);
    assert_int_equal(about.tokenizer_source, 2);
    assert_int_equal(about.pad_id, 0);
    assert_int_equal(about.eos_id, 1);
    assert_int_equal(about.bos_id, 2);
    assert_int_equal(about.unk_id, 3);
    assert_int_equal(about.image_id, 328);
    assert_int_equal(about.vocab_size, 329 + 1152 - 5); /* HF adds the <loc> and <seg> pieces that the vocabulary lacks */
    OK(pg_model_memory(model, &memory));
    assert_int_equal(memory.weights, info.n_bytes_mapped);
    assert_true(memory.n_tokens == 9 + 64 + 128 && memory.n_images == 1 && memory.n_threads >= 1);
    /* 2 x 2 layers x 2 heads of 8 x f32 */
    assert_true(memory.kv_cache >= (uint64_t)memory.n_tokens * 2 * 2 * 2 * 8 * 4);
    OK(pg_checkpoint_find(folder, text, sizeof text, &needed));
    assert_string_equal(text, folder);
    assert_int_equal(needed, strlen(folder) + 1);
}

/* What a session takes at the most is what pg_model_memory() says. */
static void memory_is_as_announced(void **state) {
    counter memory;
    pg_model_options options;
    pg_session_options session_options;
    pg_session *session = NULL;
    pg_model *own = NULL;
    (void)state;
    counter_init(&memory);
    pg_model_options_init(&options, sizeof options);
    options.allocator = &memory.hooks;
    OK(pg_model_open(folder, &options, &own));
    long long after_open = memory.live_bytes;
    pg_memory need = {.struct_size = sizeof need, .n_threads = 2, .n_images = 1};
    pg_tensor ids = {.struct_size = sizeof ids};
    OK(pg_inputs_get(inputs, "input_ids", &ids));
    need.n_tokens = ids.shape[1] + 16;
    OK(pg_model_memory(own, &need));
    pg_session_options_init(&session_options, sizeof session_options);
    session_options.n_threads = 2;
    session_options.max_new_tokens = 16;
    atomic_store(&memory.peak_bytes, after_open);
    OK(pg_session_create(own, &session_options, &session));
    for (int i = 0; i < 2; i++) OK(pg_session_prefill(session, inputs, NULL)); /* again, with all that a session keeps */
    long long taken = memory.peak_bytes - after_open;
    pg_session_close(&session);
    pg_model_close(&own);
    assert_true(counter_clean(&memory));
    say("announced %lld bytes, taken %lld\n", (long long)(need.activations + need.kv_cache), taken);
    assert_true(taken <= (long long)(need.activations + need.kv_cache) + 4096); /* the handles themselves are small */
    assert_true(taken * 4 >= (long long)(need.activations + need.kv_cache));    /* and it is no wild guess */
}

static void tensors_of_inputs(void **state) {
    pg_tensor ids = {.struct_size = sizeof ids}, mask = ids, types = ids, pixels = ids;
    int64_t image_id = 0, bos = 0;
    (void)state;
    OK(pg_inputs_get(inputs, "input_ids", &ids));
    OK(pg_inputs_get(inputs, "attention_mask", &mask));
    OK(pg_inputs_get(inputs, "token_type_ids", &types));
    OK(pg_inputs_get(inputs, "pixel_values", &pixels));
    assert_int_equal(ids.dtype, PG_DTYPE_I64);
    assert_int_equal(ids.n_dims, 2);
    assert_int_equal(ids.shape[0], 1);
    assert_true(ids.shape[1] > 11);
    assert_int_equal(ids.shape[2], 1);
    assert_int_equal(ids.reserved, 0);
    const int64_t *at = ids.data, *masked = mask.data, *typed = types.data;
    OK(pg_processor_token_id(processor, "<image>", &image_id));
    OK(pg_processor_token_id(processor, "<bos>", &bos));
    for (int i = 0; i < 9; i++) assert_int_equal(at[i], image_id);
    assert_int_equal(at[9], bos);
    for (int64_t i = 0; i < ids.shape[1]; i++) {
        assert_int_equal(masked[i], 1);
        assert_int_equal(typed[i], 0);
    }
    assert_int_equal(pixels.dtype, PG_DTYPE_F32);
    assert_int_equal(pixels.n_dims, 4);
    assert_true(pixels.shape[0] == 1 && pixels.shape[1] == 3 && pixels.shape[2] == 12 && pixels.shape[3] == 12);
    const float *value = pixels.data;
    for (int i = 0; i < 3 * 12 * 12; i++) assert_true(value[i] >= -1 && value[i] <= 1);
    ERROR(pg_inputs_get(inputs, "labels_of_nothing", &ids), PG_ERROR_NOT_FOUND);
    ERROR(pg_inputs_get(text_only, "pixel_values", &ids), PG_ERROR_NOT_FOUND);
}

static void text_to_ids_and_back(void **state) {
    static const char text[] = "the cat in a caf\xC3\xA9 <loc0001>\n\n  \xF0\x9F\x90\xB1 12<b>x</b>";
    int64_t ids[128], few[3] = {-7, -7, -7}, id;
    size_t n = 0, n_few = 0, needed = 0;
    char back[256], cut[8];
    const char *piece;
    (void)state;
    OK(pg_processor_tokenize(processor, text, 0, ids, 128, &n));
    assert_in_range(n, 10, 60);
    OK(pg_processor_tokenize(processor, text, 0, NULL, 0, &n_few));
    assert_int_equal(n_few, n);
    OK(pg_processor_tokenize(processor, text, 0, few, 2, &n_few));
    assert_int_equal(n_few, n);
    assert_true(few[0] == ids[0] && few[1] == ids[1] && few[2] == -7);
    OK(pg_processor_decode(processor, ids, n, 0, back, sizeof back, &needed));
    assert_string_equal(back, text);
    assert_int_equal(needed, sizeof text);
    memset(cut, '#', sizeof cut);
    OK(pg_processor_decode(processor, ids, n, 0, cut, 4, &needed));
    assert_int_equal(needed, sizeof text);
    assert_memory_equal(cut, "the\0####", 8);
    OK(pg_processor_decode(processor, NULL, 0, 0, back, sizeof back, &needed));
    assert_string_equal(back, "");
    assert_int_equal(needed, 1);
    OK(pg_processor_tokenize(processor, "", 0, ids, 128, &n_few));
    assert_int_equal(n_few, 0);
    for (size_t i = 0; i < n; i++) { /* an id's piece is an id's piece */
        OK(pg_processor_piece(processor, ids[i], &piece));
        OK(pg_processor_token_id(processor, piece, &id));
        assert_int_equal(id, ids[i]);
    }
    ERROR(pg_processor_token_id(processor, "no such piece", &id), PG_ERROR_NOT_FOUND);
    ERROR(pg_processor_token_id(processor, "", &id), PG_ERROR_NOT_FOUND);
    /* special tokens in the text: parsed, or plain characters */
    OK(pg_processor_tokenize(processor, "a<eos>", 0, ids, 128, &n));
    assert_int_equal(ids[n - 1], 1);
    OK(pg_processor_tokenize(processor, "a<eos>", PG_TEXT_LITERAL, ids, 128, &n));
    for (size_t i = 0; i < n; i++) assert_int_not_equal(ids[i], 1);
    OK(pg_processor_decode(processor, ids, n, PG_SKIP_SPECIAL, back, sizeof back, NULL));
    assert_string_equal(back, "a<eos>");
}

/* All pieces and the flush are what decode gives, for ids that no tokenizer would write too; no piece splits a character. */
static void pieces_add_up(void **state) {
    rng r = {5};
    pg_processor_info info = {.struct_size = sizeof info};
    pg_detokenizer *d = NULL;
    (void)state;
    OK(pg_processor_get_info(processor, &info));
    for (int round = 0; round < 400; round++) {
        int64_t ids[40];
        uint32_t flags = round % 2 ? PG_SKIP_SPECIAL : 0;
        size_t n = rng_below(&r, 40), size = 0;
        char whole[1024];
        const char *piece;
        bytes sum = {0};
        bytes_add(&sum, "", 0);
        /* half of them bytes, so that characters come to be in pieces, and break */
        for (size_t i = 0; i < n; i++)
            ids[i] = (int64_t)(rng_below(&r, 2) ? 15 + rng_below(&r, 256) : rng_below(&r, (uint64_t)info.vocab_size));
        OK(pg_processor_decode(processor, ids, n, flags, whole, sizeof whole, NULL));
        OK(pg_detokenizer_create(processor, flags, &d));
        for (int again = 0; again < 2; again++) { /* after a flush it starts anew */
            sum.size = 0;
            for (size_t i = 0; i < n; i++) {
                OK(pg_detokenizer_push(d, ids[i], &piece, &size));
                assert_int_equal(piece[size], 0);
                if (size) { /* whole characters: it neither begins with a continuation nor ends in a lead byte */
                    assert_true(((unsigned char)piece[0] & 0xC0) != 0x80);
                    assert_true((unsigned char)piece[size - 1] < 0xC0);
                }
                bytes_add(&sum, piece, size);
            }
            OK(pg_detokenizer_flush(d, &piece, &size));
            bytes_add(&sum, piece, size);
            assert_string_equal((char *)sum.data, whole);
        }
        bytes_free(&sum);
        pg_detokenizer_close(&d);
    }
}

/* ---------------------------------------------------------------------------------------------------- generating */

static int64_t arg_max(const pg_tensor *logits) {
    const float *value = logits->data;
    int64_t best = 0;
    for (int64_t i = 1; i < logits->shape[0]; i++)
        if (value[i] > value[best]) best = i;
    return best;
}

typedef struct heard {
    bytes text;
    int64_t ids[64];
    size_t n, stop_after;
} heard;

static int32_t on_text(void *user, const char *text, size_t size, int64_t token) {
    heard *h = user;
    bytes_add(&h->text, text, size);
    if (text[size] != 0) return -1;
    if (h->n < 64) h->ids[h->n] = token;
    h->n++;
    return h->stop_after && h->n >= h->stop_after;
}

static void session_states_and_generate_agree(void **state) {
    pg_session_options options;
    pg_generate_options generate;
    pg_session *session = NULL;
    pg_features *features = NULL;
    pg_result *result = NULL;
    pg_tensor logits = {.struct_size = sizeof logits}, ids = logits;
    pg_result_info info = {.struct_size = sizeof info};
    heard h = {0};
    int64_t tokens[2][8], token = -9;
    pg_status last = PG_OK;
    size_t n[2] = {0};
    (void)state;
    pg_session_options_init(&options, sizeof options);
    options.max_new_tokens = 6;
    OK(pg_session_create(model, &options, &session));
    ERROR(pg_session_step(session, &token), PG_ERROR_STATE);
    ERROR(pg_session_logits(session, &logits), PG_ERROR_STATE);
    OK(pg_encode_image(model, inputs, NULL, &features));
    for (int round = 0; round < 2; round++) { /* from pixels, then from features: a second prefill starts over */
        OK(pg_session_prefill(session, round ? text_only : inputs, round ? features : NULL));
        for (;;) {
            OK(pg_session_logits(session, &logits));
            int64_t expected = arg_max(&logits);
            last = pg_session_step(session, &token);
            if (last == PG_EVENT_LENGTH) break;
            assert_true(last >= 0);
            if (n[round] == 0) assert_int_equal(token, expected); /* right after the prefill: what the step picks from */
            OK(pg_session_logits(session, &logits));
            assert_int_equal(token, arg_max(&logits)); /* after a step: what it picked from */
            tokens[round][n[round]++] = token;
            if (last == PG_EVENT_EOS) break;
        }
        if (last == PG_EVENT_EOS) {
            ERROR(pg_session_step(session, &token), PG_ERROR_STATE);
        } else {
            assert_int_equal(n[round], 6);
            token = -9;
            assert_int_equal(pg_session_step(session, &token), PG_EVENT_LENGTH);
            assert_int_equal(token, -9);
        }
    }
    pg_session_close(&session);
    assert_int_equal(n[0], n[1]);
    assert_memory_equal(tokens[0], tokens[1], n[0] * sizeof token);

    pg_generate_options_init(&generate, sizeof generate);
    generate.max_new_tokens = 6;
    generate.on_text = on_text;
    generate.on_text_user = &h;
    for (int round = 0; round < 2; round++) {
        h.n = h.text.size = 0;
        generate.features = round ? features : NULL;
        OK(pg_generate(model, processor, round ? text_only : inputs, &generate, &result));
        OK(pg_result_ids(result, &ids));
        OK(pg_result_get_info(result, &info));
        assert_int_equal(ids.shape[0], n[0]);
        assert_memory_equal(ids.data, tokens[0], n[0] * sizeof token);
        assert_int_equal(info.n_new_tokens, n[0]);
        assert_int_equal(info.stop, last == PG_EVENT_EOS ? PG_STOP_EOS : PG_STOP_LENGTH);
        assert_true(info.n_prompt_tokens > 11 && info.encode_seconds >= 0 && info.prefill_seconds > 0 && info.decode_seconds >= 0);
        if (round) assert_true(info.encode_seconds == 0);
        char text[512];
        OK(pg_processor_decode(processor, ids.data, n[0], PG_SKIP_SPECIAL, text, sizeof text, NULL));
        assert_string_equal(pg_result_text(result), text);
        assert_string_equal((char *)h.text.data, text);
        assert_true(h.n >= n[0]);
        pg_result_close(&result);
    }
    h.n = h.text.size = 0;
    h.stop_after = 2;
    OK(pg_generate(model, processor, text_only, &generate, &result));
    OK(pg_result_get_info(result, &info));
    OK(pg_result_ids(result, &ids));
    assert_int_equal(info.stop, PG_STOP_CALLBACK);
    assert_int_equal(ids.shape[0], 2);
    assert_string_equal((char *)h.text.data, pg_result_text(result));
    pg_result_close(&result);
    bytes_free(&h.text);

    pg_tensor rows = {.struct_size = sizeof rows};
    OK(pg_features_get(features, &rows));
    assert_true(rows.dtype == PG_DTYPE_F32 && rows.n_dims == 3 && rows.shape[0] == 1 && rows.shape[1] == 9 && rows.shape[2] == 32);
    pg_features_close(&features);
}

/* The same picture in every form a caller may have it. */
static void pictures_in_every_form(void **state) {
    enum { W = 5, H = 4 };
    uint8_t rgb[H][W][3], grey[H][W];
    pg_tensor want = {.struct_size = sizeof want}, got = want;
    pg_inputs *first = NULL;
    pg_image image;
    (void)state;
    for (int y = 0; y < H; y++)
        for (int x = 0; x < W; x++)
            for (int c = 0; c < 3; c++) rgb[y][x][c] = (uint8_t)(x * 40 + y * 17 + c * 60);
    OK(pg_image_from_pixels(&image, sizeof image, PG_IMAGE_RGB8, W, H, rgb, 0));
    OK(pg_processor_encode(processor, &image, "x", NULL, &first));
    OK(pg_inputs_get(first, "pixel_values", &want));
    size_t size = 3 * 12 * 12 * sizeof(float);
    static const int channels[] = {0, 3, 3, 4, 4};
    for (int format = PG_IMAGE_RGB8; format <= PG_IMAGE_BGRA8; format++)
        for (int way = 0; way < 3; way++) { /* dense, with padding, upside down */
            uint8_t room[H * 64];
            pg_inputs *in = NULL;
            int n = channels[format], pitch = way == 0 ? W * n : 64;
            int bgr = format == PG_IMAGE_BGR8 || format == PG_IMAGE_BGRA8;
            memset(room, 0xAB, sizeof room);
            for (int y = 0; y < H; y++)
                for (int x = 0; x < W; x++)
                    for (int c = 0; c < 3; c++) room[(way == 2 ? H - 1 - y : y) * pitch + x * n + c] = rgb[y][x][bgr ? 2 - c : c];
            const uint8_t *top = way == 2 ? room + (H - 1) * pitch : room;
            OK(pg_image_from_pixels(&image, sizeof image, format, W, H, top, way == 0 ? 0 : way == 1 ? pitch : -pitch));
            OK(pg_processor_encode(processor, &image, "x", NULL, &in));
            OK(pg_inputs_get(in, "pixel_values", &got));
            assert_memory_equal(got.data, want.data, size);
            pg_inputs_close(&in);
        }
    pg_inputs_close(&first);
    for (int y = 0; y < H; y++)
        for (int x = 0; x < W; x++) {
            grey[y][x] = rgb[y][x][0];
            rgb[y][x][1] = rgb[y][x][2] = rgb[y][x][0];
        }
    pg_inputs *a = NULL, *b = NULL;
    OK(pg_image_from_pixels(&image, sizeof image, PG_IMAGE_RGB8, W, H, rgb, 0));
    OK(pg_processor_encode(processor, &image, "x", NULL, &a));
    OK(pg_image_from_pixels(&image, sizeof image, PG_IMAGE_GRAY8, W, H, grey, 0));
    OK(pg_processor_encode(processor, &image, "x", NULL, &b));
    OK(pg_inputs_get(a, "pixel_values", &want));
    OK(pg_inputs_get(b, "pixel_values", &got));
    assert_memory_equal(got.data, want.data, size);
    pg_inputs_close(&a);
    pg_inputs_close(&b);
}

/* One tiny checkpoint in every dtype, layout, sharding and head: the same numbers where the values are the same. */
static void every_form_of_checkpoint(void **state) {
    (void)state;
    for (int generation = 1; generation <= 2; generation++)
        for (int dtype = PG_DTYPE_F32; dtype <= PG_DTYPE_F16; dtype++)
            for (int form = 0; form < 6; form++) {
                tiny_options options = {.seed = 3, .generation = generation, .dtype = dtype, .n_shards = 1 + form % 3, .layout = form % 3,
                                        .head = form / 2, .new_style = form % 2, .image_size = 12, .n_layers = 2};
                char where[512];
                pg_model *m = NULL;
                pg_processor *p = NULL;
                pg_result *result = NULL;
                pg_generate_options generate;
                pg_model_info info = {.struct_size = sizeof info};
                make_temp_folder(where, sizeof where);
                tiny_write(where, &options);
                OK(pg_model_open(where, NULL, &m));
                OK(pg_processor_open(where, NULL, &p));
                OK(pg_model_get_info(m, &info));
                assert_int_equal(info.generation, generation);
                assert_int_equal(info.n_files, options.n_shards);
                assert_int_equal(info.dtypes, 1u << dtype);
                pg_generate_options_init(&generate, sizeof generate);
                generate.max_new_tokens = 2;
                OK(pg_generate(m, p, inputs, &generate, &result));
                pg_result_close(&result);
                pg_processor_close(&p);
                pg_model_close(&m);
                remove_folder(where);
            }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(version_and_names),
        cmocka_unit_test(init_fills_exactly_what_it_is_told),
        cmocka_unit_test(defaults),
        cmocka_unit_test(options_of_other_versions),
        cmocka_unit_test(getters_write_what_there_is_room_for),
        cmocka_unit_test(null_arguments),
        cmocka_unit_test(values_out_of_range),
        cmocka_unit_test(config_and_info),
        cmocka_unit_test(memory_is_as_announced),
        cmocka_unit_test(tensors_of_inputs),
        cmocka_unit_test(text_to_ids_and_back),
        cmocka_unit_test(pieces_add_up),
        cmocka_unit_test(session_states_and_generate_agree),
        cmocka_unit_test(pictures_in_every_form),
        cmocka_unit_test(every_form_of_checkpoint),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
