/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* lib/image/resize.c and image_settings.c against Pillow's and transformers' results (tests/golden/images). */
#include "run_tests.h"

#include <math.h>
#include <string.h>
#include <unistd.h>

#include "golden_images.h"
#include "image/exif.h"
#include "image/preprocess.h"
#include "image/resize.h"
#include "image/resize_float.h"
#include "opened.h"
#include "processor/processor.h"
#include "temp_template.h"

static pgi_kernels kernels;

static pg_status resize(const pgi_memory *memory, const pgi_kernels *used, const pg_cancel *cancel, const pgi_rgb *in,
                        int32_t width, int32_t height, int32_t filter, pgi_rgb *out) {
    const pgi_rows rows = pgi_rows_of(in);
    return pgi_resize(memory, used, cancel, &rows, width, height, filter, out);
}

static void golden_resizes(void **state) {
    (void)state;
    FILE *file = open_golden("resize.txt");
    assert_non_null(file);
    int width, height, to_width, to_height, filter, n = 0;
    unsigned long long expected;
    while (fscanf(file, "%d %d %d %d %d %llx", &width, &height, &to_width, &to_height, &filter, &expected) == 6) {
        pgi_rgb in = {test_image(width, height), width, height}, out;
        assert_non_null(in.data);
        assert_int_equal(resize(&pgi_memory_default, &kernels, NULL, &in, to_width, to_height, filter, &out), PG_OK);
        assert_int_equal(out.width, to_width);
        assert_int_equal(out.height, to_height);
        unsigned long long found = digest(out.data, (size_t)to_width * (size_t)to_height * 3);
        if (found != expected)
            fail_msg("%d x %d to %d x %d, filter %d: digest %016llx, expected %016llx", width, height, to_width,
                     to_height, filter, found, expected);
        pgi_rgb_free(&pgi_memory_default, &out);
        free(in.data);
        n++;
    }
    fclose(file);
    assert_int_equal(n, 174);
}

static void resize_refuses(void **state) {
    (void)state;
    uint8_t pixel[3] = {1, 2, 3};
    pgi_rgb in = {pixel, 1, 1}, out;
    assert_int_equal(resize(&pgi_memory_default, &kernels, NULL, &in, 0, 4, PGI_BICUBIC, &out), PG_ERROR_ARGUMENT);
    assert_int_equal(resize(&pgi_memory_default, &kernels, NULL, &in, 4, -1, PGI_BICUBIC, &out), PG_ERROR_ARGUMENT);
    assert_int_equal(resize(&pgi_memory_default, &kernels, NULL, &in, 4, 4, 6, &out), PG_ERROR_UNSUPPORTED);
    assert_int_equal(resize(&pgi_memory_default, &kernels, NULL, &in, 4, 4, -1, &out), PG_ERROR_UNSUPPORTED);
    /* Pillow has no memory for the coefficients of this one either; the pixels are never touched. */
    in.width = 100000000;
    assert_int_equal(resize(&pgi_memory_default, &kernels, NULL, &in, 224, 1, PGI_BICUBIC, &out), PG_ERROR_LIMIT);
    assert_null(out.data);
}

/* Kernels that set the cancel flag in their k-th call. */
static pg_cancel *flag;
static int n_calls, cancel_at;

static void count(void) {
    if (++n_calls == cancel_at) pg_cancel_request(flag);
}

static void counting_columns(const pgi_resample *c, const uint8_t *in, int64_t stride, int64_t width, int64_t rows,
                             uint8_t *out) {
    count();
    assert_true(width * rows <= (1 << 18) + width); /* a band is a few milliseconds */
    kernels.resample_columns(c, in, stride, width, rows, out);
}

static void counting_row(const int32_t *weights, int32_t n, const uint8_t *in, int64_t stride, int64_t line,
                         uint8_t *out) {
    count();
    kernels.resample_row(weights, n, in, stride, line, out);
}

/* Large images are resized in bands: cancelled in one of them, the next is not begun, and nothing is kept. Bands change
 * no bit. */
static void resizing_is_cancelled_between_bands(void **state) {
    static const int32_t sizes[][4] = {
        {900, 900, 60, 60}, {700, 2000, 650, 40}, {3000, 200, 90, 200}, {200, 900, 200, 50}};
    pgi_kernels counting = kernels;
    (void)state;
    counting.resample_columns = counting_columns;
    counting.resample_row = counting_row;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        pgi_rgb in = {test_image(sizes[i][0], sizes[i][1]), sizes[i][0], sizes[i][1]}, whole, out;
        assert_int_equal(pg_cancel_create(&flag), PG_OK);
        cancel_at = n_calls = 0;
        assert_int_equal(resize(&pgi_memory_default, &counting, flag, &in, sizes[i][2], sizes[i][3], PGI_BICUBIC, &out),
                         PG_OK);
        assert_int_equal(
            resize(&pgi_memory_default, &kernels, NULL, &in, sizes[i][2], sizes[i][3], PGI_BICUBIC, &whole), PG_OK);
        assert_memory_equal(out.data, whole.data, (size_t)out.width * (size_t)out.height * 3);
        pgi_rgb_free(&pgi_memory_default, &whole);
        pgi_rgb_free(&pgi_memory_default, &out);
        const int total = n_calls;
        assert_true(total > 2);
        for (cancel_at = 1; cancel_at < total; cancel_at++) {
            n_calls = 0;
            assert_int_equal(
                resize(&pgi_memory_default, &counting, flag, &in, sizes[i][2], sizes[i][3], PGI_BICUBIC, &out),
                PG_ERROR_CANCELLED);
            assert_int_equal(n_calls, cancel_at);
            assert_null(out.data);
            pg_cancel_clear(flag);
        }
        pg_cancel_close(&flag);
        free(in.data);
    }
}

/* ------------------------------------------------------------------------------------------------ image settings */

static char folder[256];

static int make_folder(void **state) {
    (void)state;
    temp_template(folder, sizeof folder, "settings");
    return mkdtemp(folder) ? 0 : -1;
}

static void put(const char *name, const char *text) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    if (!text) {
        remove(path);
        return;
    }
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(fputs(text, file) < 0, 0);
    fclose(file);
}

static int remove_folder(void **state) {
    (void)state;
    put("preprocessor_config.json", NULL);
    put("processor_config.json", NULL);
    return rmdir(folder);
}

static pg_status load(const char *processor, const char *preprocessor, pgi_image_settings *settings) {
    put("processor_config.json", processor);
    put("preprocessor_config.json", preprocessor);
    return pgi_image_settings_load(&pgi_memory_default, folder, 0, settings);
}

static void golden_pixels(void **state) {
    (void)state;
    FILE *file = open_golden("pixels.txt");
    assert_non_null(file);
    int width, height, side, n = 0;
    unsigned long long expected;
    char json[512];
    while (fscanf(file, "%d %d %d %llx %511[^\n]", &width, &height, &side, &expected, json) == 5) {
        pgi_image_settings settings;
        assert_int_equal(load(NULL, json, &settings), PG_OK);
        assert_int_equal(settings.width, side);
        assert_int_equal(settings.height, side);
        pgi_rgb image = {test_image(width, height), width, height};
        const pgi_opened opened = opened_of(&image);
        size_t size = (size_t)side * (size_t)side * 3 * sizeof(float);
        float *pixels = malloc(size);
        assert_non_null(image.data);
        assert_non_null(pixels);
        assert_int_equal(pgi_image_to_pixels(&pgi_memory_default, &kernels, NULL, &settings, &opened, pixels), PG_OK);
        if (digest(pixels, size) != expected) fail_msg("%d x %d: wrong pixels for %s", width, height, json);
        free(pixels);
        free(image.data);
        n++;
    }
    fclose(file);
    assert_int_equal(n, 12);
}

static void settings_files_and_defaults(void **state) {
    (void)state;
    pgi_image_settings s;
    const char *nested = "{\"image_processor\": {\"size\": {\"height\": 56, \"width\": 56}, \"image_seq_length\": 16}}";
    const char *flat =
        "{\"image_seq_length\": 1024, \"size\": {\"height\": 448, \"width\": 448}, \"do_convert_rgb\": null,"
        "\"resample\": 2, \"image_mean\": [0.1, 0.2, 0.3], \"image_std\": [1, 2, 4], \"do_pad\": false,"
        "\"rescale_factor\": 0.5, \"image_processor_type\": \"SiglipImageProcessorFast\"}";
    assert_int_equal(load(nested, flat, &s), PG_OK); /* the nested one goes first, as in transformers */
    assert_int_equal(s.width, 56);
    assert_int_equal(s.n_image_tokens, 16);
    assert_int_equal(s.resample, PGI_BICUBIC);
    assert_true(s.do_resize && s.do_rescale && s.do_normalize && s.do_convert_rgb);
    assert_true(s.rescale_factor == 1.0 / 255.0 && s.mean[2] == 0.5f && s.std[0] == 0.5f);
    assert_int_equal(load("{\"processor_class\": \"PaliGemmaProcessor\"}", flat, &s), PG_OK);
    assert_int_equal(s.width, 448);
    assert_int_equal(s.do_convert_rgb, 0);
    assert_int_equal(s.n_image_tokens, 1024);
    assert_int_equal(s.resample, PGI_BILINEAR);
    assert_true(s.mean[1] == 0.2f && s.std[2] == 4.0f && s.rescale_factor == 0.5);
    assert_int_equal(load("{\"image_processor\": null}", flat, &s), PG_OK);
    assert_int_equal(s.height, 448);
    assert_int_equal(load(NULL, "{\"size\": [224, 448], \"image_seq_length\": 1}", &s), PG_OK); /* for other models */
    assert_true(s.height == 224 && s.width == 448);
    assert_int_equal(load(NULL, NULL, &s), PG_ERROR_NOT_FOUND);
    assert_int_equal(load("{}", NULL, &s), PG_ERROR_NOT_FOUND);
    assert_non_null(strstr(pgi_error_text(), folder));
}

static void settings_that_are_refused(void **state) {
    (void)state;
    static const struct {
        pg_status status;
        const char *json, *text; /* text: must be in the message, beside the file name */
    } cases[] = {
        {PG_ERROR_FORMAT, "{\"size\": ", "preprocessor_config.json"},
        {PG_ERROR_FORMAT, "[]", "object"},
        {PG_ERROR_NOT_FOUND, "{}", "image_seq_length: found nothing"},
        {PG_ERROR_NOT_FOUND, "{\"image_seq_length\": null}", "image_seq_length"},
        {PG_ERROR_FORMAT, "{\"image_seq_length\": 0}", "image_seq_length: found 0"},
        {PG_ERROR_FORMAT, "{\"image_seq_length\": 1e3}", "image_seq_length"},
        {PG_ERROR_FORMAT, "{\"image_seq_length\": 99999999999}", "image_seq_length"},
        {PG_ERROR_FORMAT, "{\"image_seq_length\": 65537}", "found 65537, expected a whole number from 1 to 65536"},
        {PG_ERROR_FORMAT, "{\"size\": {\"height\": -3, \"width\": 5}}", "size.height: found -3"},
        {PG_ERROR_FORMAT, "{\"size\": {\"height\": 5, \"width\": 0}}", "size.width: found 0"},
        {PG_ERROR_FORMAT, "{\"size\": {\"height\": 16385, \"width\": 16385}}", "found 16385"},
        {PG_ERROR_LIMIT, "{\"size\": {\"height\": 4097, \"width\": 4096}}", "size: found 4097 x 4096 pixels, expected"},
        {PG_ERROR_FORMAT, "{\"size\": {\"height\": 224.5, \"width\": 224}}", "size.height: found 224.5"},
        {PG_ERROR_FORMAT, "{\"size\": {\"height\": 224}}", "size.width: found nothing"},
        {PG_ERROR_FORMAT, "{\"size\": {\"height\": NaN, \"width\": 224}}", "preprocessor_config.json"},
        {PG_ERROR_FORMAT, "{\"size\": \"224\"}", "size: found \"224\""},
        {PG_ERROR_FORMAT, "{\"size\": null}", "size: found null"},
        {PG_ERROR_FORMAT, "{\"size\": [224]}", "size"},
        {PG_ERROR_UNSUPPORTED, "{\"size\": 224}", "size: found 224"},
        {PG_ERROR_UNSUPPORTED, "{\"size\": {\"shortest_edge\": 224}}", "size"},
        {PG_ERROR_UNSUPPORTED, "{\"resample\": 9}", "resample: found 9"},
        {PG_ERROR_FORMAT, "{\"resample\": \"bicubic\"}", "resample: found \"bicubic\""},
        {PG_ERROR_FORMAT, "{\"resample\": null}", "resample: found null"},
        {PG_ERROR_FORMAT, "{\"rescale_factor\": 1e38, \"image_seq_length\": 1}", "rescale_factor 1e+38"},
        {PG_ERROR_FORMAT, "{\"image_std\": 1e-40, \"image_seq_length\": 1}", "make pixels from"},
        {PG_ERROR_FORMAT, "{\"rescale_factor\": \"1/255\"}", "rescale_factor"},
        {PG_ERROR_FORMAT, "{\"image_std\": [0.5, 0, 0.5]}", "image_std: found 0"},
        {PG_ERROR_FORMAT, "{\"image_std\": 1e-60}", "image_std"},
        {PG_ERROR_FORMAT, "{\"image_mean\": 1e300}", "image_mean"},
        {PG_ERROR_FORMAT, "{\"image_mean\": [0.5, 0.5]}", "image_mean: found an array of 2"},
        {PG_ERROR_FORMAT, "{\"image_mean\": [0.5, 0.5, \"x\"]}", "image_mean: found \"x\""},
        {PG_ERROR_FORMAT, "{\"image_mean\": null}", "image_mean: found null"},
        {PG_ERROR_FORMAT, "{\"do_resize\": 1}", "do_resize: found 1"},
        {PG_ERROR_UNSUPPORTED, "{\"do_center_crop\": true}", "do_center_crop"},
        {PG_ERROR_UNSUPPORTED, "{\"do_pad\": true}", "do_pad"},
        {PG_ERROR_UNSUPPORTED, "{\"image_processor_type\": \"CLIPImageProcessor\"}", "CLIPImageProcessor"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pgi_image_settings s;
        pg_status status = load(NULL, cases[i].json, &s);
        if (status != cases[i].status || !strstr(pgi_error_text(), cases[i].text) ||
            !strstr(pgi_error_text(), "preprocessor_config.json"))
            fail_msg("%s: status %d, expected %d: %s", cases[i].json, status, cases[i].status, pgi_error_text());
    }
    pgi_image_settings s;
    assert_int_equal(load("{\"image_processor\": 5}", NULL, &s), PG_ERROR_FORMAT);
    assert_int_equal(load("{\"image_processor\": {\"size\": 1.5}}", NULL, &s), PG_ERROR_FORMAT);
    assert_non_null(strstr(pgi_error_text(), "processor_config.json: image_processor.size: found 1.5"));
}

/* cpu_mask of pg_processor_options holds the resize down, and changes no bit of the pixels. */
static void the_mask_of_a_processor_holds_its_resize_down(void **state) {
    (void)state;
    static uint8_t gradient[60][90][3];
    for (int y = 0; y < 60; y++)
        for (int x = 0; x < 90; x++)
            for (int c = 0; c < 3; c++) gradient[y][x][c] = (uint8_t)(y * 3 + x * 5 + c * 71);
    const uint64_t masks[] = {0, PG_CPU_BASELINE};
    pg_inputs *inputs[2] = {NULL, NULL};
    for (int i = 0; i < 2; i++) {
        pg_processor_options options;
        pg_processor *processor = NULL;
        pg_image image;
        assert_int_equal(pg_processor_options_init(&options, sizeof options), PG_OK);
        options.cpu_mask = masks[i];
        assert_int_equal(pg_processor_open(PGI_GOLDEN_FOLDER "/../../examples/demo/model", &options, &processor),
                         PG_OK);
        assert_int_equal(processor->kernels.cpu, masks[i] ? masks[i] : kernels.cpu);
        assert_true(!masks[i] || processor->kernels.resample_row != kernels.resample_row || kernels.cpu == masks[i]);
        assert_int_equal(pg_image_from_pixels(&image, sizeof image, PG_IMAGE_RGB8, 90, 60, gradient, 0), PG_OK);
        assert_int_equal(pg_processor_encode(processor, &image, "x", NULL, &inputs[i]), PG_OK);
        pg_processor_close(&processor);
    }
    pg_tensor a, b;
    assert_int_equal(pg_tensor_init(&a, sizeof a), PG_OK);
    assert_int_equal(pg_tensor_init(&b, sizeof b), PG_OK);
    assert_int_equal(pg_inputs_get_tensor(inputs[0], "pixel_values", &a), PG_OK);
    assert_int_equal(pg_inputs_get_tensor(inputs[1], "pixel_values", &b), PG_OK);
    assert_memory_equal(a.data, b.data, (size_t)(a.shape[0] * a.shape[1] * a.shape[2] * a.shape[3]) * sizeof(float));
    for (int i = 0; i < 2; i++) pg_inputs_close(&inputs[i]);

    pg_processor_options options;
    pg_processor *processor = NULL;
    assert_int_equal(pg_processor_options_init(&options, sizeof options), PG_OK);
    options.cpu_mask = UINT64_C(1) << 60; /* leaves nothing */
    assert_int_equal(pg_processor_open(PGI_GOLDEN_FOLDER "/../../examples/demo/model", &options, &processor),
                     PG_ERROR_ARGUMENT);
    assert_null(processor);
}

static void without_resize_pixels_have_the_size_of_the_image(void **state) {
    (void)state;
    pgi_image_settings s;
    uint8_t bytes[6] = {0, 0, 255};
    float out[6];
    pgi_rgb image = {bytes, 2, 1};
    const pgi_opened opened = opened_of(&image);
    assert_int_equal(load(NULL, "{\"do_resize\": false, \"size\": [2, 2], \"image_seq_length\": 1}", &s), PG_OK);
    assert_int_equal(pgi_image_to_pixels(&pgi_memory_default, &kernels, NULL, &s, &opened, out), PG_OK);
    assert_true(out[0] == -1.0f && out[4] == 1.0f && out[5] == -1.0f);
}

/* One direction of TensorFlow's resize, in its order of operations: sample i of n_out out of those at `in`. */
static float triangle(const float *in, size_t step, int32_t n_in, int32_t n_out, int32_t i) {
    const float inverse = 1.0f / ((float)n_out / (float)n_in), kernel = inverse > 1.0f ? inverse : 1.0f;
    const float center = ((float)i + 0.5f) * inverse, narrow = 1.0f / kernel;
    const float low = ceilf(center - kernel - 0.5f), high = floorf(center + kernel - 0.5f);
    const int32_t first = low < 0.0f ? 0 : (int32_t)low, last = high < (float)n_in ? (int32_t)high : n_in - 1;
    float sum = 0.0f, out = 0.0f;
    for (int32_t k = first; k <= last; k++) sum += fmaxf(1.0f - fabsf(((float)k + 0.5f - center) * narrow), 0.0f);
    const float share = 1.0f / sum;
    for (int32_t k = first; k <= last; k++)
        out += fmaxf(1.0f - fabsf(((float)k + 0.5f - center) * narrow), 0.0f) * share * in[(size_t)k * step];
    return out;
}

/* Parts of a row and rows that are copied change no bit. */
static void wide_images_of_big_vision(void **state) {
    (void)state;
    static const int32_t sizes[][2] = {{4095, 3}, {4096, 2}, {4097, 1}, {9000, 2}, {12288, 1}, {8193, 9}, {3, 4}};
    enum { WIDTH = 7, HEIGHT = 5 };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        const int32_t width = sizes[i][0], height = sizes[i][1];
        const size_t line = (size_t)width * 3, size = line * (size_t)height;
        pgi_rgb image = {test_image(width, height), width, height};
        float out[3][HEIGHT][WIDTH], *in = malloc(size * sizeof *in), *row = malloc(line * sizeof *row);
        assert_true(image.data && in && row);
        for (size_t k = 0; k < size; k++) in[k] = image.data[k];
        assert_int_equal(pgi_resize_float(&pgi_memory_default, NULL, &image, WIDTH, HEIGHT, out[0][0]), PG_OK);
        for (int32_t y = 0; y < HEIGHT; y++) {
            for (size_t k = 0; k < line; k++) row[k] = triangle(in + k, line, height, HEIGHT, y);
            for (int32_t x = 0; x < WIDTH; x++)
                for (int c = 0; c < 3; c++)
                    if (out[c][y][x] != triangle(row + c, 3, width, WIDTH, x))
                        fail_msg("%d x %d: (%d, %d)[%d]: %a, expected %a", width, height, x, y, c, (double)out[c][y][x],
                                 (double)triangle(row + c, 3, width, WIDTH, x));
        }
        free(row);
        free(in);
        free(image.data);
    }
}

/* Where each pixel of the stored image comes to lie, by EXIF's table of orientations. */
static void turns_of_all_sizes(void **state) {
    (void)state;
    static const int32_t sizes[][2] = {{1, 1}, {70, 1}, {1, 70}, {33, 65}, {64, 32}, {31, 100}, {129, 31}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int32_t orientation = 1; orientation <= 8; orientation++) {
            const int32_t w = sizes[i][0], h = sizes[i][1];
            uint8_t *stored = test_image(w, h);
            pgi_rgb turned = {pgi_alloc(&pgi_memory_default, (size_t)w * 3, (size_t)h), w, h};
            assert_true(stored && turned.data);
            memcpy(turned.data, stored, (size_t)w * (size_t)h * 3);
            assert_int_equal(pgi_exif_transpose(&pgi_memory_default, NULL, orientation, &turned), PG_OK);
            assert_int_equal(turned.width, orientation < 5 ? w : h);
            assert_int_equal(turned.height, orientation < 5 ? h : w);
            for (int32_t y = 0; y < h; y++)
                for (int32_t x = 0; x < w; x++) {
                    const int32_t right = w - 1 - x, below = h - 1 - y;
                    const int32_t to[9][2] = {{0},    {x, y},     {right, y},     {right, below}, {x, below},
                                              {y, x}, {below, x}, {below, right}, {y, right}};
                    const size_t at = (size_t)to[orientation][1] * (size_t)turned.width + (size_t)to[orientation][0];
                    assert_memory_equal(turned.data + at * 3, stored + ((size_t)y * (size_t)w + (size_t)x) * 3, 3);
                }
            pgi_rgb_free(&pgi_memory_default, &turned);
            free(stored);
        }
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_resizes),
        cmocka_unit_test(resize_refuses),
        cmocka_unit_test(wide_images_of_big_vision),
        cmocka_unit_test(turns_of_all_sizes),
        cmocka_unit_test(resizing_is_cancelled_between_bands),
        cmocka_unit_test(golden_pixels),
        cmocka_unit_test(settings_files_and_defaults),
        cmocka_unit_test(settings_that_are_refused),
        cmocka_unit_test(without_resize_pixels_have_the_size_of_the_image),
        cmocka_unit_test(the_mask_of_a_processor_holds_its_resize_down),
    };
    if (pgi_kernels_init(&kernels, 0) < 0) return 1;
    return RUN_TESTS(tests, make_folder, remove_folder);
}
