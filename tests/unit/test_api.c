/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The public API as the header states it: NULL arguments, values out of range, copying out, states of a session. */
#include "run_tests.h"

#include "api_fixture.h"

static void version_and_names(void **state) {
    static const pg_status all[] = {PG_OK,
                                    PG_EVENT_EOS,
                                    PG_EVENT_LENGTH,
                                    PG_ERROR_ARGUMENT,
                                    PG_ERROR_MEMORY,
                                    PG_ERROR_IO,
                                    PG_ERROR_NOT_FOUND,
                                    PG_ERROR_FORMAT,
                                    PG_ERROR_UNSUPPORTED,
                                    PG_ERROR_LIMIT,
                                    PG_ERROR_CANCELLED,
                                    PG_ERROR_STATE,
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

/* ---------------------------------------------------------------------------------------------------------- NULLs */

static void null_arguments(void **state) {
    uint32_t token_flags;
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
    pg_image_settings image_settings = {.struct_size = sizeof image_settings};
    pg_result_info result_info = {.struct_size = sizeof result_info};
    pg_memory memory = {.struct_size = sizeof memory};
    int64_t id = 0;
    size_t n = 0;
    double real = 0;
    char text[8];
    float row[1];
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
    ARGUMENT(pg_model_get_config_int(NULL, "x", &id));
    ARGUMENT(pg_model_get_config_int(model, NULL, &id));
    ARGUMENT(pg_model_get_config_int(model, "hidden_size", NULL));
    ARGUMENT(pg_model_get_config_float(NULL, "x", &real));
    ARGUMENT(pg_model_get_config_float(model, NULL, &real));
    ARGUMENT(pg_model_get_config_float(model, "text_config.rms_norm_eps", NULL));
    ARGUMENT(pg_model_get_config(NULL, "", text, sizeof text, &n));
    ARGUMENT(pg_model_get_config(model, NULL, text, sizeof text, &n));
    ARGUMENT(pg_model_get_config(model, "", NULL, 5, &n));
    ARGUMENT(pg_model_get_info(NULL, &model_info));
    ARGUMENT(pg_model_get_info(model, NULL));
    ARGUMENT(pg_model_get_memory(NULL, &memory));
    ARGUMENT(pg_model_get_memory(model, NULL));
    ARGUMENT(pg_checkpoint_get_config(NULL, text, sizeof text, &n));
    ARGUMENT(pg_checkpoint_get_config(folder, NULL, 5, &n));
    ERROR(pg_checkpoint_get_config("/nonexistent", text, sizeof text, &n), PG_ERROR_NOT_FOUND);
    ARGUMENT(pg_checkpoint_find(NULL, NULL, text, sizeof text, &n));
    ARGUMENT(pg_checkpoint_find(folder, NULL, NULL, 5, &n));
    ARGUMENT(pg_checkpoint_find(folder, "", text, sizeof text, &n));
    ARGUMENT(pg_processor_open(NULL, NULL, &p));
    ARGUMENT(pg_processor_open(folder, NULL, NULL));
    ARGUMENT(pg_processor_encode(NULL, NULL, "x", NULL, &in));
    ARGUMENT(pg_processor_encode(processor, NULL, "x", NULL, NULL));
    ARGUMENT(pg_inputs_get_tensor(NULL, "input_ids", &tensor));
    ARGUMENT(pg_inputs_get_tensor(inputs, NULL, &tensor));
    ARGUMENT(pg_inputs_get_tensor(inputs, "input_ids", NULL));
    ARGUMENT(pg_processor_tokenize(NULL, "x", 0, &id, 1, &n));
    ARGUMENT(pg_processor_tokenize(processor, NULL, 0, &id, 1, &n));
    ARGUMENT(pg_processor_tokenize(processor, "x", 0, NULL, 1, &n));
    ARGUMENT(pg_processor_tokenize(processor, "x", 0, &id, 1, NULL));
    ARGUMENT(pg_processor_tokenize(processor, "x", 0x80, &id, 1, &n));
    ARGUMENT(pg_processor_decode(NULL, &id, 1, 0, text, sizeof text, &n));
    ARGUMENT(pg_processor_decode(processor, NULL, 1, 0, text, sizeof text, &n));
    ARGUMENT(pg_processor_decode(processor, &id, 1, 0, NULL, 4, &n));
    ARGUMENT(pg_processor_decode(processor, &id, 1, 0x80, text, sizeof text, &n));
    ARGUMENT(pg_processor_get_piece(NULL, 0, &piece));
    ARGUMENT(pg_processor_get_piece(processor, 0, NULL));
    ARGUMENT(pg_processor_get_piece(processor, -1, &piece));
    ARGUMENT(pg_processor_get_piece(processor, INT64_MAX, &piece));
    ARGUMENT(pg_processor_get_token_id(NULL, "x", &id));
    ARGUMENT(pg_processor_get_token_id(processor, NULL, &id));
    ARGUMENT(pg_processor_get_token_id(processor, "x", NULL));
    ARGUMENT(pg_processor_get_token_flags(NULL, 0, &token_flags));
    ARGUMENT(pg_processor_get_token_flags(processor, 0, NULL));
    ARGUMENT(pg_processor_get_token_flags(processor, -1, &token_flags));
    ARGUMENT(pg_processor_get_token_flags(processor, INT64_MAX, &token_flags));
    ARGUMENT(pg_processor_get_info(NULL, &processor_info));
    ARGUMENT(pg_processor_get_info(processor, NULL));
    ARGUMENT(pg_processor_get_image_settings(NULL, &image_settings));
    ARGUMENT(pg_processor_get_image_settings(processor, NULL));
    ARGUMENT(pg_generate(NULL, processor, inputs, NULL, &r));
    ARGUMENT(pg_generate(model, processor, NULL, NULL, &r));
    ARGUMENT(pg_generate(model, processor, inputs, NULL, NULL));
    ARGUMENT(pg_generate(model, processor, text_only, NULL, &r)); /* neither pixels nor features */
    ARGUMENT(pg_result_get_ids(NULL, 0, &tensor));
    ARGUMENT(pg_result_get_info(NULL, 0, &result_info));
    ARGUMENT(pg_features_create(NULL, inputs, NULL, &f));
    ARGUMENT(pg_features_create(model, NULL, NULL, &f));
    ARGUMENT(pg_features_create(model, inputs, NULL, NULL));
    ARGUMENT(pg_features_create(model, text_only, NULL, &f));
    ARGUMENT(pg_model_embed(NULL, &id, 1, row));
    ARGUMENT(pg_model_embed(model, NULL, 1, row));
    ARGUMENT(pg_model_embed(model, &id, 1, NULL));
    ARGUMENT(pg_features_from_tensor(NULL, &tensor, &f));
    ARGUMENT(pg_features_from_tensor(model, NULL, &f));
    ARGUMENT(pg_features_from_tensor(model, &tensor, NULL));
    ARGUMENT(pg_features_get_tensor(NULL, &tensor));
    ARGUMENT(pg_session_create(NULL, NULL, &s));
    ARGUMENT(pg_session_create(model, NULL, NULL));
    OK(pg_session_create(model, NULL, &s));
    ARGUMENT(pg_session_prefill(NULL, inputs, NULL));
    ARGUMENT(pg_session_prefill(s, NULL, NULL));
    ARGUMENT(pg_session_prefill(s, text_only, NULL));
    ARGUMENT(pg_session_step(NULL, &id));
    ARGUMENT(pg_session_step(s, NULL));
    ARGUMENT(pg_session_get_logits(NULL, &tensor));
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
    generate.flags = 0x100;
    ARGUMENT(with_generate(&generate));
    pg_session_options_init(&session, sizeof session);
    session.max_new_tokens = -5;
    ARGUMENT(with_session(&session));
    /* fine: the context ends it earlier, and memory is asked for when there is a prompt */
    session.max_new_tokens = INT32_MAX;
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
    ARGUMENT(pg_model_get_memory(model, &memory));
    memory.n_tokens = INT64_MAX;
    ARGUMENT(pg_model_get_memory(model, &memory));
    memory.n_tokens = 0;
    memory.n_images = -1;
    ARGUMENT(pg_model_get_memory(model, &memory));
    memory.n_images = 0;
    memory.n_threads = -1;
    ARGUMENT(pg_model_get_memory(model, &memory));
}

/* ------------------------------------------------------------------------------------------------------ contents */

static void config_and_info(void **state) {
    int64_t value = 0;
    double real = 0;
    char text[4096];
    char alone[512], other[8192];
    size_t needed = 0;
    pg_model_info info = {.struct_size = sizeof info};
    pg_processor_info about = {.struct_size = sizeof about};
    pg_memory memory = {.struct_size = sizeof memory};
    (void)state;
    OK(pg_model_get_config_int(model, "text_config.hidden_size", &value));
    assert_int_equal(value, 32);
    OK(pg_model_get_config_int(model, "vision_config.patch_size", &value));
    assert_int_equal(value, 4);
    OK(pg_model_get_config_float(model, "vision_config.layer_norm_eps", &real)); /* a default */
    assert_true(real == 1e-6);
    ERROR(pg_model_get_config_int(model, "text_config.no_such", &value), PG_ERROR_NOT_FOUND);
    ERROR(pg_model_get_config_int(model, "no_such_config.hidden_size", &value), PG_ERROR_NOT_FOUND);
    ERROR(pg_model_get_config_int(model, "text_config.hidden_size.x", &value), PG_ERROR_NOT_FOUND);
    ARGUMENT(pg_model_get_config_int(model, "text_config.model_type", &value));
    ARGUMENT(pg_model_get_config_int(model, "text_config", &value));
    OK(pg_model_get_config(model, "text_config.model_type", text, sizeof text, &needed));
    assert_string_equal(text, "\"gemma2\"");
    assert_int_equal(needed, 9);
    OK(pg_model_get_config(model, "", NULL, 0, &needed));
    assert_in_range(needed, 500, sizeof text);
    OK(pg_model_get_config(model, "", text, needed, NULL));
    assert_int_equal(strlen(text), needed - 1);
    assert_int_equal(text[0], '{');
    make_temp_folder(alone, sizeof alone); /* config.json is all that it takes */
    bytes config = read_file(folder, "config.json");
    write_file(alone, "config.json", config.data, config.size);
    bytes_free(&config);
    OK(pg_checkpoint_get_config(alone, NULL, 0, &needed));
    OK(pg_checkpoint_get_config(alone, other, sizeof other, &needed));
    assert_string_equal(other, text);
    assert_int_equal(needed, strlen(other) + 1);
    write_text(alone, "config.json", "{\"model_type\": \"llama\"}");
    ERROR(pg_checkpoint_get_config(alone, other, sizeof other, &needed), PG_ERROR_UNSUPPORTED);
    remove_folder(alone);
    OK(pg_model_get_info(model, &info));
    assert_int_equal(info.gemma_version, 2);
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
    assert_int_equal(about.pad_id, 0);
    assert_int_equal(about.eos_id, 1);
    assert_int_equal(about.bos_id, 2);
    assert_int_equal(about.unk_id, 3);
    assert_int_equal(about.image_id, 328);
    /* HF adds the <loc> and <seg> pieces that the vocabulary lacks */
    assert_int_equal(about.vocab_size, 329 + 1152 - 5);
    OK(pg_model_get_memory(model, &memory));
    assert_int_equal(memory.weights, info.n_bytes_mapped);
    assert_true(memory.n_tokens == 9 + 64 + 128 && memory.n_images == 1 && memory.n_threads >= 1);
    /* 2 x 2 layers x 2 heads of 8 x f32 */
    assert_true(memory.kv_cache >= (uint64_t)memory.n_tokens * 2 * 2 * 2 * 8 * 4);
    OK(pg_checkpoint_find(folder, NULL, text, sizeof text, &needed));
    assert_string_equal(text, folder);
    assert_int_equal(needed, strlen(folder) + 1);
}

/* What a session takes at the most is what pg_model_get_memory() says. */
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
    OK(pg_inputs_get_tensor(inputs, "input_ids", &ids));
    need.n_tokens = ids.shape[1] + 16;
    OK(pg_model_get_memory(own, &need));
    pg_session_options_init(&session_options, sizeof session_options);
    session_options.n_threads = 2;
    session_options.max_new_tokens = 16;
    session_options.max_prompt_tokens = (int32_t)ids.shape[1];
    atomic_store(&memory.peak_bytes, after_open);
    OK(pg_session_create(own, &session_options, &session));
    /* again, with all that a session keeps */
    for (int i = 0; i < 2; i++) OK(pg_session_prefill(session, inputs, NULL));
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
    OK(pg_inputs_get_tensor(inputs, "input_ids", &ids));
    OK(pg_inputs_get_tensor(inputs, "attention_mask", &mask));
    OK(pg_inputs_get_tensor(inputs, "token_type_ids", &types));
    OK(pg_inputs_get_tensor(inputs, "pixel_values", &pixels));
    assert_int_equal(ids.dtype, PG_DTYPE_I64);
    assert_int_equal(ids.n_dims, 2);
    assert_int_equal(ids.shape[0], 1);
    assert_true(ids.shape[1] > 11);
    assert_int_equal(ids.shape[2], 1);
    assert_int_equal(ids.reserved, 0);
    const int64_t *at = ids.data, *masked = mask.data, *typed = types.data;
    OK(pg_processor_get_token_id(processor, "<image>", &image_id));
    OK(pg_processor_get_token_id(processor, "<bos>", &bos));
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
    ERROR(pg_inputs_get_tensor(inputs, "labels_of_nothing", &ids), PG_ERROR_NOT_FOUND);
    ERROR(pg_inputs_get_tensor(text_only, "pixel_values", &ids), PG_ERROR_NOT_FOUND);
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
        OK(pg_processor_get_piece(processor, ids[i], &piece));
        OK(pg_processor_get_token_id(processor, piece, &id));
        assert_int_equal(id, ids[i]);
    }
    ERROR(pg_processor_get_token_id(processor, "no such piece", &id), PG_ERROR_NOT_FOUND);
    ERROR(pg_processor_get_token_id(processor, "", &id), PG_ERROR_NOT_FOUND);
    /* special tokens in the text: parsed, or plain characters */
    OK(pg_processor_tokenize(processor, "a<eos>", 0, ids, 128, &n));
    assert_int_equal(ids[n - 1], 1);
    OK(pg_processor_tokenize(processor, "a<eos>", PG_ENCODE_LITERAL, ids, 128, &n));
    for (size_t i = 0; i < n; i++) assert_int_not_equal(ids[i], 1);
    OK(pg_processor_decode(processor, ids, n, PG_DECODE_SKIP_SPECIAL, back, sizeof back, NULL));
    assert_string_equal(back, "a<eos>");
}

/* All pieces and the flush are what decode gives, for ids that no tokenizer would write too; no piece splits a
 * character. */
static void pieces_add_up(void **state) {
    rng r = {5};
    pg_processor_info info = {.struct_size = sizeof info};
    pg_detokenizer *d = NULL;
    (void)state;
    OK(pg_processor_get_info(processor, &info));
    for (int round = 0; round < 400; round++) {
        int64_t ids[40];
        uint32_t flags = round % 2 ? PG_DECODE_SKIP_SPECIAL : 0;
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

static int32_t on_text(void *user, int64_t row, const char *text, size_t size, int64_t token) {
    heard *h = user;
    if (row != 0) return -1;
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
    ERROR(pg_session_get_logits(session, &logits), PG_ERROR_STATE);
    OK(pg_features_create(model, inputs, NULL, &features));
    for (int round = 0; round < 2; round++) { /* from pixels, then from features: a second prefill starts over */
        OK(pg_session_prefill(session, round ? text_only : inputs, round ? features : NULL));
        for (;;) {
            OK(pg_session_get_logits(session, &logits));
            int64_t expected = arg_max(&logits);
            last = pg_session_step(session, &token);
            if (last == PG_EVENT_LENGTH) break;
            assert_true(last >= 0);
            /* right after the prefill: what the step samples from */
            if (n[round] == 0) assert_int_equal(token, expected);
            OK(pg_session_get_logits(session, &logits));
            assert_int_equal(token, arg_max(&logits)); /* after a step: what it sampled from */
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
        OK(pg_result_get_ids(result, 0, &ids));
        OK(pg_result_get_info(result, 0, &info));
        assert_int_equal(ids.shape[0], n[0]);
        assert_memory_equal(ids.data, tokens[0], n[0] * sizeof token);
        assert_int_equal(info.n_new_tokens, n[0]);
        assert_int_equal(info.stop, last == PG_EVENT_EOS ? PG_STOP_EOS : PG_STOP_LENGTH);
        assert_true(info.n_prompt_tokens > 11 && info.vision_seconds >= 0 && info.prefill_seconds > 0 &&
                    info.decode_seconds >= 0);
        if (round) assert_true(info.vision_seconds == 0);
        char text[512];
        OK(pg_processor_decode(processor, ids.data, n[0], PG_DECODE_SKIP_SPECIAL, text, sizeof text, NULL));
        assert_string_equal(pg_result_get_text(result, 0), text);
        assert_string_equal((char *)h.text.data, text);
        assert_true(h.n >= n[0]);
        pg_result_close(&result);
    }
    h.n = h.text.size = 0;
    h.stop_after = 2;
    OK(pg_generate(model, processor, text_only, &generate, &result));
    OK(pg_result_get_info(result, 0, &info));
    OK(pg_result_get_ids(result, 0, &ids));
    assert_int_equal(info.stop, PG_STOP_CALLBACK);
    assert_int_equal(ids.shape[0], 2);
    assert_string_equal((char *)h.text.data, pg_result_get_text(result, 0));
    pg_result_close(&result);
    bytes_free(&h.text);

    pg_tensor rows = {.struct_size = sizeof rows};
    OK(pg_features_get_tensor(features, &rows));
    assert_true(rows.dtype == PG_DTYPE_F32 && rows.n_dims == 3);
    assert_true(rows.shape[0] == 1 && rows.shape[1] == 9 && rows.shape[2] == 32);
    pg_features_close(&features);
}

/* The same image in every form a caller may have it. */
static void images_in_every_form(void **state) {
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
    OK(pg_inputs_get_tensor(first, "pixel_values", &want));
    size_t size = 3 * 12 * 12 * sizeof(float);
    static const int channels[] = {0, 3, 3, 4, 4};
    for (int format = PG_IMAGE_RGB8; format <= PG_IMAGE_BGRA8; format++)
        for (int way = 0; way < 3; way++) { /* dense, with padding, upside down */
            uint8_t buffer[H * 64];
            pg_inputs *in = NULL;
            int n = channels[format], pitch = way == 0 ? W * n : 64;
            int bgr = format == PG_IMAGE_BGR8 || format == PG_IMAGE_BGRA8;
            memset(buffer, 0xAB, sizeof buffer);
            for (int y = 0; y < H; y++)
                for (int x = 0; x < W; x++)
                    for (int c = 0; c < 3; c++)
                        buffer[(way == 2 ? H - 1 - y : y) * pitch + x * n + c] = rgb[y][x][bgr ? 2 - c : c];
            const uint8_t *top = way == 2 ? buffer + (H - 1) * pitch : buffer;
            OK(pg_image_from_pixels(&image, sizeof image, format, W, H, top, way == 0 ? 0 : way == 1 ? pitch : -pitch));
            OK(pg_processor_encode(processor, &image, "x", NULL, &in));
            OK(pg_inputs_get_tensor(in, "pixel_values", &got));
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
    OK(pg_inputs_get_tensor(a, "pixel_values", &want));
    OK(pg_inputs_get_tensor(b, "pixel_values", &got));
    assert_memory_equal(got.data, want.data, size);
    pg_inputs_close(&a);
    pg_inputs_close(&b);
}

/* One tiny checkpoint in every dtype, layout, sharding and head: the same numbers where the values are the same. */
static void every_form_of_checkpoint(void **state) {
    (void)state;
    for (int gemma_version = 1; gemma_version <= 2; gemma_version++)
        for (int dtype = PG_DTYPE_F32; dtype <= PG_DTYPE_F16; dtype++)
            for (int form = 0; form < 6; form++) {
                tiny_options options = {.seed = 3,
                                        .gemma_version = gemma_version,
                                        .dtype = dtype,
                                        .n_shards = 1 + form % 3,
                                        .layout = form % 3,
                                        .head = form / 2,
                                        .new_style = form % 2,
                                        .image_size = 12,
                                        .n_layers = 2};
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
                assert_int_equal(info.gemma_version, gemma_version);
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

/* ---- cancelling what the processor does, threads of opening */

typedef struct late_cancel {
    pg_cancel *cancel;
    int after; /* allocations before the flag is set */
} late_cancel;

static void *counting_alloc(void *user, size_t size, size_t alignment) {
    late_cancel *late = user;
    if (late->after-- == 0) pg_cancel_request(late->cancel);
    void *memory = NULL;
    return posix_memalign(&memory, alignment < sizeof memory ? sizeof memory : alignment, size ? size : 1) ? NULL
                                                                                                           : memory;
}

static void plain_free(void *user, void *memory) {
    (void)user;
    free(memory);
}

/* The flag is set after each allocation in turn: the call stops with the status, or it was done already. */
static void opening_a_processor_is_cancelled(void **state) {
    (void)state;
    int n_cancelled = 0, n_done = 0;
    for (int after = 0; n_done < 3 && after < 10000; after++) {
        late_cancel late = {.after = after};
        pg_allocator allocator = {sizeof allocator, 0, &late, counting_alloc, plain_free};
        pg_processor_options options;
        pg_processor *opened = NULL;
        OK(pg_cancel_create(&late.cancel));
        OK(pg_processor_options_init(&options, sizeof options));
        options.allocator = &allocator;
        options.cancel = late.cancel;
        pg_status status = pg_processor_open(folder, &options, &opened);
        if (status == PG_ERROR_CANCELLED) {
            assert_null(opened);
            assert_non_null(strstr(pg_last_error(), "cancelled"));
            n_cancelled++;
        } else {
            assert_int_equal(status, PG_OK);
            n_done++;
        }
        pg_processor_close(&opened);
        pg_cancel_close(&late.cancel);
    }
    assert_true(n_cancelled > 10);
    assert_int_equal(n_done, 3);
}

static void encoding_is_cancelled(void **state) {
    (void)state;
    for (int kind = 0; kind < 2; kind++) {
        bytes file = tiny_image(kind ? IMAGE_PNG : IMAGE_JPEG, 30, 20, 1);
        pg_image image;
        pg_encode_options options;
        pg_cancel *cancel = NULL;
        pg_inputs *in = NULL;
        OK(pg_image_from_bytes(&image, sizeof image, file.data, file.size));
        OK(pg_encode_options_init(&options, sizeof options));
        OK(pg_cancel_create(&cancel));
        options.cancel = cancel;
        OK(pg_processor_encode(processor, &image, "the cat", &options, &in));
        pg_inputs_close(&in);
        pg_cancel_request(cancel);
        ERROR(pg_processor_encode(processor, &image, "the cat", &options, &in), PG_ERROR_CANCELLED);
        assert_null(in);
        ERROR(pg_processor_encode(processor, NULL, "the cat", &options, &in), PG_ERROR_CANCELLED);
        pg_cancel_close(&cancel);
        bytes_free(&file);
    }
}

static void threads_of_opening_have_a_range(void **state) {
    (void)state;
    const int32_t counts[] = {1, 3, 1024, -1, 1025};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        pg_model_options options;
        pg_model *opened = NULL;
        OK(pg_model_options_init(&options, sizeof options));
        options.n_threads = counts[i];
        options.weights = PG_WEIGHTS_INT8;
        if (i < 3)
            OK(pg_model_open(folder, &options, &opened));
        else
            ARGUMENT(pg_model_open(folder, &options, &opened));
        pg_model_close(&opened);
    }
}

/* ---- an allocator that closes the handle whose call asks for memory */

typedef struct closing {
    pg_model *model;
    pg_processor *processor;
    int armed;
} closing;

static void *closing_alloc(void *user, size_t size, size_t alignment) {
    closing *c = user;
    void *memory = NULL;
    if (c->armed) {
        pg_model_close(&c->model);
        pg_processor_close(&c->processor);
    }
    return posix_memalign(&memory, alignment < sizeof memory ? sizeof memory : alignment, size ? size : 1) ? NULL
                                                                                                           : memory;
}

static void handles_outlive_an_allocator_that_closes_them(void **state) {
    (void)state;
    for (int call = 0; call < 4; call++) {
        closing c = {0};
        pg_allocator allocator = {sizeof allocator, 0, &c, closing_alloc, plain_free};
        pg_model_options model_options;
        pg_processor_options processor_options;
        char text[64];
        size_t n = 0;
        int64_t ids[16];
        pg_session *session = NULL;
        OK(pg_model_options_init(&model_options, sizeof model_options));
        OK(pg_processor_options_init(&processor_options, sizeof processor_options));
        model_options.allocator = processor_options.allocator = &allocator;
        OK(pg_model_open(folder, &model_options, &c.model));
        OK(pg_processor_open(folder, &processor_options, &c.processor));
        c.armed = 1;
        if (call == 0) OK(pg_model_get_config(c.model, "model_type", text, sizeof text, &n));
        if (call == 1) OK(pg_processor_tokenize(c.processor, "the cat", 0, ids, 16, &n));
        if (call == 2) OK(pg_processor_decode(c.processor, (int64_t[]){10, 11, 12}, 3, 0, text, sizeof text, &n));
        if (call == 3) OK(pg_session_create(c.model, NULL, &session));
        assert_true(call == 3 || n > 0);
        assert_null(c.model);
        assert_null(c.processor);
        pg_session_close(&session);
    }
}

/* Without generation_config.json a model generates, samples and is scored as with one that says only the special ids.
 */
static void no_generation_config(void **state) {
    char without[512];
    tiny_options options = tiny_saved_today();
    pg_generate_options generate;
    pg_sampling_options sampling = {.struct_size = sizeof sampling}, defaults;
    pg_model *other = NULL;
    pg_session *session = NULL;
    pg_result *found = NULL, *wanted = NULL;
    pg_tensor a = {.struct_size = sizeof a}, b = {.struct_size = sizeof b};
    int64_t token;
    (void)state;
    make_temp_folder(without, sizeof without);
    tiny_write(without, &options);
    remove_file(without, "generation_config.json");
    OK(pg_model_open(without, NULL, &other));
    OK(pg_generate(other, processor, inputs, NULL, &found));
    OK(pg_generate(model, processor, inputs, NULL, &wanted));
    OK(pg_result_get_ids(found, 0, &a));
    OK(pg_result_get_ids(wanted, 0, &b));
    assert_true(a.shape[0] > 0 && a.shape[0] == b.shape[0]);
    assert_memory_equal(a.data, b.data, (size_t)a.shape[0] * sizeof(int64_t));
    pg_result_close(&found);
    OK(pg_generate_options_init(&generate, sizeof generate));
    generate.max_new_tokens = 3;
    generate.n_return = 1;
    OK(pg_generate(other, processor, inputs, &generate, &found));
    pg_result_close(&found);
    OK(pg_model_get_sampling(other, &sampling));
    OK(pg_sampling_options_init(&defaults, sizeof defaults));
    assert_memory_equal(&sampling, &defaults, sizeof sampling);
    OK(pg_session_create(other, NULL, &session));
    OK(pg_session_prefill(session, inputs, NULL));
    assert_true(pg_session_sample(session, NULL, &token) >= 0);
    assert_int_equal(token, ((const int64_t *)b.data)[0]);
    pg_session_close(&session);
    pg_result_close(&wanted);
    pg_model_close(&other);
    remove_folder(without);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(opening_a_processor_is_cancelled),
        cmocka_unit_test(encoding_is_cancelled),
        cmocka_unit_test(threads_of_opening_have_a_range),
        cmocka_unit_test(handles_outlive_an_allocator_that_closes_them),
        cmocka_unit_test(version_and_names),
        cmocka_unit_test(null_arguments),
        cmocka_unit_test(values_out_of_range),
        cmocka_unit_test(config_and_info),
        cmocka_unit_test(memory_is_as_announced),
        cmocka_unit_test(tensors_of_inputs),
        cmocka_unit_test(text_to_ids_and_back),
        cmocka_unit_test(pieces_add_up),
        cmocka_unit_test(session_states_and_generate_agree),
        cmocka_unit_test(images_in_every_form),
        cmocka_unit_test(every_form_of_checkpoint),
        cmocka_unit_test(no_generation_config),
    };
    return RUN_TESTS(tests, setup, teardown);
}
