/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * pg_image_settings: what a processor tells of its own, and what one call does with others. The pixels of a call are
 * those of a folder that has the settings in its file, and for such folders tests/golden has transformers' own.
 */
#include "run_tests.h"

#include <math.h>

#include "api_fixture.h"

static pg_image_settings settings_now(void) {
    pg_image_settings settings = {.struct_size = sizeof settings};
    OK(pg_processor_get_image_settings(processor, &settings));
    return settings;
}

/* A processor of the fixture's folder with the given text in place of its preprocessor_config.json. */
static pg_processor *processor_with(const char *json) {
    pg_processor *out = NULL;
    bytes old = read_file(folder, "processor_config.json"), now = {0};
    bytes_printf(&now, "{\"image_processor\":%s}", json);
    write_file(folder, "processor_config.json", now.data, now.size);
    pg_status status = pg_processor_open(folder, NULL, &out);
    write_file(folder, "processor_config.json", old.data, old.size);
    bytes_free(&old);
    bytes_free(&now);
    OK(status);
    return out;
}

static pg_status encode(const pg_processor *with, const pg_image_settings *settings, int32_t mode, pg_inputs **out) {
    static bytes file;
    pg_encode_options options;
    pg_image image;
    if (!file.data) file = tiny_image(IMAGE_PNG, 30, 20, 1);
    OK(pg_image_from_bytes(&image, sizeof image, file.data, file.size));
    OK(pg_encode_options_init(&options, sizeof options));
    assert_null(options.image_settings);
    options.image_settings = settings;
    options.mode = mode;
    return pg_processor_encode(with, &image, "the cat", &options, out);
}

static void same(const pg_inputs *a, const pg_inputs *b, const char *name) {
    pg_tensor left = {.struct_size = sizeof left}, right = {.struct_size = sizeof right};
    OK(pg_inputs_get_tensor(a, name, &left));
    OK(pg_inputs_get_tensor(b, name, &right));
    assert_memory_equal(left.shape, right.shape, sizeof left.shape);
    size_t n = left.dtype == PG_DTYPE_F32 ? sizeof(float) : sizeof(int64_t);
    for (int d = 0; d < left.n_dims; d++) n *= (size_t)left.shape[d];
    assert_memory_equal(left.data, right.data, n);
}

static void a_call_does_what_a_folder_does(void **state) {
    (void)state;
    static const char json[] =
        "{\"do_convert_rgb\":%s,\"do_normalize\":%s,\"do_rescale\":%s,\"do_resize\":true,\"image_mean\":[0.1,-2,0.7],"
        "\"image_std\":[0.5,3,-0.25],\"image_seq_length\":%d,\"resample\":%d,\"rescale_factor\":%s,"
        "\"size\":{\"height\":%d,\"width\":%d}}";
    static const char *const factors[] = {"0.00392156862745098", "-1", "0.5"};
    for (int i = 0; i < 24; i++) {
        pg_image_settings s = settings_now();
        bytes text = {0};
        pg_inputs *ours = NULL, *theirs = NULL;
        s.do_convert_rgb = i & 1, s.do_normalize = (i & 2) != 0, s.do_rescale = (i & 4) != 0;
        s.resample = i % 6, s.height = s.width = 5 + 3 * i, s.n_image_tokens = 1 + i;
        s.rescale_factor = i % 3 == 0 ? 0.00392156862745098 : i % 3 == 1 ? -1.0 : 0.5;
        memcpy(s.image_mean, (float[3]){0.1f, -2.0f, 0.7f}, sizeof s.image_mean);
        memcpy(s.image_std, (float[3]){0.5f, 3.0f, -0.25f}, sizeof s.image_std);
        bytes_printf(&text, json, i & 1 ? "true" : "null", i & 2 ? "true" : "false", i & 4 ? "true" : "false",
                     s.n_image_tokens, s.resample, factors[i % 3], s.height, s.width);
        pg_processor *other = processor_with((const char *)text.data);
        pg_image_settings read = {.struct_size = sizeof read};
        OK(pg_processor_get_image_settings(other, &read));
        assert_memory_equal(&read, &s, sizeof s);
        for (int mode = PG_MODE_HF; mode <= PG_MODE_BIG_VISION; mode++) {
            OK(encode(processor, &s, mode, &ours));
            OK(encode(other, NULL, mode, &theirs));
            same(ours, theirs, "pixel_values");
            same(ours, theirs, "input_ids");
            pg_inputs_close(&ours);
            pg_inputs_close(&theirs);
        }
        bytes_free(&text);
        pg_processor_close(&other);
    }
}

static void the_processor_keeps_its_own(void **state) {
    (void)state;
    pg_image_settings s = settings_now(), again;
    pg_inputs *before = NULL, *after = NULL, *other = NULL;
    OK(encode(processor, NULL, PG_MODE_HF, &before));
    s.height = 9, s.width = 21;
    OK(encode(processor, &s, PG_MODE_HF, &other));
    pg_tensor pixels = {.struct_size = sizeof pixels};
    OK(pg_inputs_get_tensor(other, "pixel_values", &pixels));
    assert_true(pixels.shape[2] == 9 && pixels.shape[3] == 21); /* no square: for other models */
    pg_result *result = NULL;
    ERROR(pg_generate(model, processor, other, NULL, &result), PG_ERROR_ARGUMENT);
    assert_non_null(strstr(pg_last_error(), "21 x 9"));
    OK(encode(processor, NULL, PG_MODE_HF, &after));
    same(before, after, "pixel_values");
    again = settings_now();
    s = again;
    pg_inputs_close(&other);
    OK(encode(processor, &s, PG_MODE_HF, &other));
    same(before, other, "pixel_values");
    pg_inputs_close(&before);
    pg_inputs_close(&after);
    pg_inputs_close(&other);
}

static void without_resize_images_keep_their_size(void **state) {
    (void)state;
    pg_image_settings s = settings_now();
    pg_encode_options options;
    pg_batch batch;
    pg_image images[2];
    pg_inputs *out = NULL;
    uint8_t raw[2 * 5 * 3];
    for (size_t i = 0; i < sizeof raw; i++) raw[i] = (uint8_t)(7 * i);
    s.do_resize = s.do_rescale = s.do_normalize = 0;
    OK(pg_encode_options_init(&options, sizeof options));
    OK(pg_batch_init(&batch, sizeof batch));
    OK(pg_image_from_pixels(&images[0], sizeof images[0], PG_IMAGE_RGB8, 5, 2, raw, 0));
    images[1] = images[0];
    options.image_settings = &s;
    batch.n_images = 2;
    batch.images = images;
    OK(pg_processor_encode_batch(processor, &batch, &options, &out));
    pg_tensor t = {.struct_size = sizeof t};
    OK(pg_inputs_get_tensor(out, "pixel_values", &t));
    assert_true(t.shape[0] == 2 && t.shape[1] == 3 && t.shape[2] == 2 && t.shape[3] == 5);
    for (int i = 0; i < 60; i++) assert_true(((const float *)t.data)[i] == (float)raw[i % 10 * 3 + i / 10 % 3]);
    pg_inputs_close(&out);
    images[1].width = 4;
    ERROR(pg_processor_encode_batch(processor, &batch, &options, &out), PG_ERROR_ARGUMENT);
    assert_non_null(strstr(pg_last_error(), "image 1: image: found 4 x 2 pixels, expected 5 x 2"));
    options.mode = PG_MODE_BIG_VISION; /* which always resizes */
    OK(pg_processor_encode_batch(processor, &batch, &options, &out));
    pg_inputs_close(&out);
}

static void refused(const pg_image_settings *s, const char *part) {
    pg_inputs *none = (pg_inputs *)&none;
    ERROR(encode(processor, s, PG_MODE_HF, &none), PG_ERROR_ARGUMENT);
    assert_null(none);
    if (!strstr(pg_last_error(), part)) fail_msg("\"%s\" lacks \"%s\"", pg_last_error(), part);
}

static void values_out_of_range_are_named(void **state) {
    (void)state;
    static const int32_t bad[] = {INT32_MIN, -1, 0, 16385, INT32_MAX};
    static const float no_numbers[] = {NAN, INFINITY, -INFINITY};
    const pg_image_settings sound = settings_now();
    pg_image_settings s;
#define REFUSED(field, value, part)         \
    do {                                    \
        s = sound, s.field = value;         \
        refused(&s, "image_settings" part); \
    } while (0)
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        REFUSED(height, bad[i], ".height is ");
        REFUSED(width, bad[i], ".width is ");
    }
    REFUSED(height, 0, ".height is 0, expected 1 to 16384");
    REFUSED(n_image_tokens, -1, ".n_image_tokens is -1, expected 0 to 65536");
    REFUSED(n_image_tokens, 65537, ".n_image_tokens is 65537");
    REFUSED(resample, -1, ".resample is -1");
    REFUSED(resample, 6, ".resample is 6, expected 0 to 5");
    REFUSED(do_resize, 2, ".do_resize is 2, expected 0 or 1");
    REFUSED(do_rescale, 2, ".do_rescale is 2");
    REFUSED(do_normalize, UINT32_MAX, ".do_normalize is 4294967295");
    REFUSED(do_convert_rgb, 7, ".do_convert_rgb is 7");
    REFUSED(reserved, 1, ".reserved is 1");
    for (size_t i = 0; i < sizeof no_numbers / sizeof *no_numbers; i++) {
        REFUSED(image_mean[1], no_numbers[i], ".image_mean[1] is ");
        REFUSED(image_std[2], no_numbers[i], ".image_std[2] is ");
        REFUSED(rescale_factor, (double)no_numbers[i], ".rescale_factor is ");
    }
    REFUSED(image_std[0], 0.0f, ".image_std[0] is 0");
    REFUSED(image_std[0], -0.0f, ".image_std[0] is -0");
    REFUSED(image_std[1], 1e-40f, ": rescale_factor");
    REFUSED(rescale_factor, 1e300, ": rescale_factor 1e+300");
    REFUSED(struct_size, 4, "");
    s = sound, s.do_rescale = s.do_normalize = 0, s.rescale_factor = 1e300; /* sound, and not used */
    pg_inputs *out = NULL;
    OK(encode(processor, &s, PG_MODE_HF, &out));
    pg_inputs_close(&out);
}

static pg_processor *images_only(const char *model_folder) {
    pg_processor_options options;
    pg_processor *out = NULL;
    OK(pg_processor_options_init(&options, sizeof options));
    options.flags = PG_PROCESSOR_IMAGES_ONLY;
    OK(pg_processor_open(model_folder, &options, &out));
    return out;
}

static void encode_alone(const pg_processor *with, pg_inputs **out) {
    bytes file = tiny_image(IMAGE_PNG, 30, 20, 1);
    pg_batch batch;
    pg_image image;
    OK(pg_batch_init(&batch, sizeof batch));
    OK(pg_image_from_bytes(&image, sizeof image, file.data, file.size));
    batch.n_images = 1;
    batch.images = &image;
    OK(pg_processor_encode_batch(with, &batch, NULL, out));
    bytes_free(&file);
}

static void images_go_without_a_tokenizer(void **state) {
    (void)state;
    static const char settings[] = "{\"size\":{\"height\":8,\"width\":12},\"image_mean\":0.25}\n";
    char other[512];
    pg_inputs *a = NULL, *b = NULL;
    pg_processor_info info = {.struct_size = sizeof info};
    pg_image_settings s = {.struct_size = sizeof s};
    make_temp_folder(other, sizeof other);
    write_text(other, "preprocessor_config.json", settings); /* no image_seq_length, no tokenizer */
    pg_processor *whole = NULL, *images = images_only(other);
    ERROR(pg_processor_open(other, NULL, &whole), PG_ERROR_NOT_FOUND);
    OK(pg_processor_get_info(images, &info));
    assert_true(info.flags == PG_PROCESSOR_IMAGES_ONLY && info.vocab_size == 0 && info.n_image_tokens == 0);
    assert_true(info.pad_id == -1 && info.eos_id == -1 && info.image_id == -1 && info.padding_side == 0);
    OK(pg_processor_get_image_settings(images, &s));
    assert_true(s.height == 8 && s.width == 12 && s.image_mean[2] == 0.25f && s.n_image_tokens == 0);
    encode_alone(images, &a);
    s.n_image_tokens = 1;
    OK(encode(processor, &s, PG_MODE_HF, &b));
    same(a, b, "pixel_values");
    pg_inputs_close(&b);
    const char *piece;
    int64_t id = 1;
    size_t n;
    uint32_t flags;
    char text[8];
    pg_result *result = NULL;
    pg_detokenizer *detokenizer = NULL;
    ARGUMENT(pg_processor_encode(images, NULL, "cat", NULL, &b));
    ARGUMENT(encode(images, NULL, PG_MODE_BIG_VISION, &b));
    ARGUMENT(pg_processor_tokenize(images, "cat", 0, &id, 1, &n));
    ARGUMENT(pg_processor_decode(images, &id, 1, 0, text, sizeof text, &n));
    ARGUMENT(pg_processor_get_piece(images, 1, &piece));
    ARGUMENT(pg_processor_get_token_id(images, "cat", &id));
    ARGUMENT(pg_processor_get_token_flags(images, 1, &flags));
    pg_answer_options size;
    pg_answer *answer = NULL;
    OK(pg_answer_options_init(&size, sizeof size));
    size.width = size.height = 8;
    ARGUMENT(pg_answer_create_from_ids(images, &id, NULL, 1, &size, &answer));
    OK(pg_generate(model, processor, inputs, NULL, &result));
    ARGUMENT(pg_answer_create(images, result, 0, &size, &answer));
    assert_non_null(strstr(pg_last_error(), "PG_PROCESSOR_IMAGES_ONLY"));
    assert_null(answer);
    pg_result_close(&result);
    ARGUMENT(pg_detokenizer_create(images, 0, &detokenizer));
    ARGUMENT(pg_generate(model, images, inputs, NULL, &result));
    assert_non_null(strstr(pg_last_error(), "PG_PROCESSOR_IMAGES_ONLY"));
    pg_inputs_close(&a);
    pg_processor_close(&images);
    remove_folder(other);
}

static void the_defaults_need_no_folder(void **state) {
    (void)state;
    pg_processor_options options;
    pg_processor *defaults = images_only(NULL), *none = NULL;
    pg_image_settings s = {.struct_size = sizeof s};
    pg_inputs *a = NULL;
    OK(pg_processor_get_image_settings(defaults, &s));
    assert_true(s.height == 224 && s.width == 224 && s.resample == PG_RESAMPLE_BICUBIC && s.n_image_tokens == 0);
    assert_true(s.do_resize && s.do_rescale && s.do_normalize && s.do_convert_rgb && s.rescale_factor == 1.0 / 255.0);
    assert_true(s.image_mean[0] == 0.5f && s.image_std[2] == 0.5f);
    encode_alone(defaults, &a);
    pg_tensor t = {.struct_size = sizeof t};
    OK(pg_inputs_get_tensor(a, "pixel_values", &t));
    assert_true(t.shape[0] == 1 && t.shape[2] == 224 && t.shape[3] == 224);
    pg_inputs_close(&a);
    pg_processor_close(&defaults);
    OK(pg_processor_options_init(&options, sizeof options));
    ARGUMENT(pg_processor_open(NULL, &options, &none));
    options.flags = PG_PROCESSOR_TEXT_ONLY;
    ARGUMENT(pg_processor_open(NULL, &options, &none));
    options.flags |= PG_PROCESSOR_IMAGES_ONLY;
    ARGUMENT(pg_processor_open(folder, &options, &none));
    assert_non_null(strstr(pg_last_error(), "expected one"));
    options.flags = PG_PROCESSOR_SENTENCEPIECE | PG_PROCESSOR_IMAGES_ONLY;
    ARGUMENT(pg_processor_open(folder, &options, &none));
    assert_non_null(strstr(pg_last_error(), "PG_PROCESSOR_SENTENCEPIECE and PG_PROCESSOR_IMAGES_ONLY, expected one"));
    options.flags = 8;
    ARGUMENT(pg_processor_open(folder, &options, &none));
    options.flags = PG_PROCESSOR_TEXT_ONLY;
    OK(pg_processor_open(folder, &options, &none));
    ARGUMENT(pg_processor_get_image_settings(none, &s));
    pg_processor_close(&none);
}

static void structs_of_other_versions_are_taken(void **state) {
    (void)state;
    struct {
        pg_image_settings known;
        uint64_t newer;
    } long_one = {.known = {.struct_size = sizeof long_one}, .newer = 5};
    pg_image_settings whole = settings_now();
    pg_inputs *a = NULL, *b = NULL;
    ARGUMENT(pg_processor_get_image_settings(NULL, &whole));
    ARGUMENT(pg_processor_get_image_settings(processor, NULL));
    OK(pg_processor_get_image_settings(processor, &long_one.known));
    assert_true(long_one.newer == 0 && long_one.known.struct_size == sizeof long_one);
    OK(encode(processor, &long_one.known, PG_MODE_HF, &a));
    OK(encode(processor, &whole, PG_MODE_HF, &b));
    same(a, b, "pixel_values");
    same(a, b, "input_ids");
    pg_inputs_close(&a);
    pg_inputs_close(&b);
    whole.struct_size = 16; /* less than any release had */
    ARGUMENT(encode(processor, &whole, PG_MODE_HF, &a));
    long_one.newer = 1;
    ARGUMENT(encode(processor, &long_one.known, PG_MODE_HF, &a));
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_call_does_what_a_folder_does),        cmocka_unit_test(the_processor_keeps_its_own),
        cmocka_unit_test(without_resize_images_keep_their_size), cmocka_unit_test(values_out_of_range_are_named),
        cmocka_unit_test(images_go_without_a_tokenizer),         cmocka_unit_test(the_defaults_need_no_folder),
        cmocka_unit_test(structs_of_other_versions_are_taken),
    };
    return RUN_TESTS(tests, setup, teardown);
}
