/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * pg_calibration and a conversion that rounds by it: the sums against sums of the test's own, rounding without feedback
 * as plain rounding, with it nearer in what a layer computes; saved and gone on from, torn, damaged and foreign ones.
 */
#include "run_tests.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/run.h"
#include "checkpoint/calibration.h"
#include "expect_status.h"
#include "support.h"
#include "tiny.h"

enum { N = PGI_FEEDBACK_COLUMNS, N_ROWS = 4 };

static char base[512], source[600], out[600], saved[600];
static pg_processor *processor;
static pg_inputs *rows[N_ROWS];

static int setup(void **state) {
    (void)state;
    make_temp_folder(base, sizeof base);
    snprintf(source, sizeof source, "%s/source", base);
    snprintf(out, sizeof out, "%s/out", base);
    snprintf(saved, sizeof saved, "%s/saved", base);
    if (mkdir(source, 0777) != 0) return -1;
    tiny_options options = tiny_official();
    tiny_write(source, &options);
    OK(pg_processor_open(source, NULL, &processor));
    for (int i = 0; i < N_ROWS; i++) {
        static uint8_t pixels[16 * 16 * 3];
        rng r = {(uint64_t)i + 1};
        for (size_t k = 0; k < sizeof pixels; k++) pixels[k] = (uint8_t)rng_below(&r, 256);
        pg_image image;
        OK(pg_image_from_pixels(&image, sizeof image, PG_IMAGE_RGB8, 16, 16, pixels, 0));
        OK(pg_processor_encode(processor, &image, i % 2 ? "the cat" : "a", NULL, &rows[i]));
    }
    return 0;
}

static int teardown(void **state) {
    (void)state;
    for (int i = 0; i < N_ROWS; i++) pg_inputs_close(&rows[i]);
    pg_processor_close(&processor);
    if (access(out, F_OK) == 0) remove_folder(out);
    if (access(saved, F_OK) == 0) remove_file(base, "saved");
    remove_folder(source);
    remove_folder(base);
    return 0;
}

static pg_model *opened(const pg_allocator *allocator) {
    pg_model *model = NULL;
    pg_model_options options;
    OK(pg_model_options_init(&options, sizeof options));
    options.allocator = allocator;
    OK(pg_model_open(source, &options, &model));
    return model;
}

/* With the rows first .. end. */
static pg_calibration *calibrated(int first, int end, int32_t n_threads) {
    pg_model *model = opened(NULL);
    pg_calibration *calibration = NULL;
    pg_run_options options;
    OK(pg_run_options_init(&options, sizeof options));
    options.n_threads = n_threads;
    OK(pg_calibration_create(model, &calibration));
    pg_model_close(&model); /* the calibration keeps it */
    for (int i = first; i < end; i++) OK(pg_calibration_add(calibration, rows[i], &options));
    return calibration;
}

static pg_status convert(const pg_calibration *calibration, const char *int8_layers, int32_t n_threads) {
    pg_convert_options options;
    OK(pg_convert_options_init(&options, sizeof options));
    options.weights = PG_WEIGHTS_INT4;
    options.int8_layers = int8_layers;
    options.calibration = calibration;
    options.n_threads = n_threads;
    return pg_model_convert(source, out, &options);
}

/* ------------------------------------------------------------------------------------------------------------- sums */

/* The patches' sums are those of the pixels, and each has the tokens that there are. */
static void sums_of_patches(void **state) {
    pg_calibration *calibration = calibrated(0, N_ROWS, 1);
    pg_tensor pixels = {.struct_size = sizeof pixels};
    const pgi_calibration_site *site =
        pgi_calibration_site_of(calibration, &(pgi_matrix_role){PGI_PART_PATCHES, -1, -1});
    enum { SIDE = 12, PATCH = 4, COLUMNS = 3 * PATCH * PATCH };
    static double sums[COLUMNS][COLUMNS];
    int64_t n = 0;
    (void)state;
    memset(sums, 0, sizeof sums);
    assert_int_equal(site->columns, COLUMNS);
    for (int i = 0; i < N_ROWS; i++) {
        OK(pg_inputs_get_tensor(rows[i], "pixel_values", &pixels));
        assert_int_equal(pixels.shape[3], SIDE);
        for (int patch = 0; patch < SIDE / PATCH * (SIDE / PATCH); patch++) {
            float x[COLUMNS];
            for (int c = 0; c < COLUMNS; c++) {
                const int plane = c / (PATCH * PATCH), y = patch / (SIDE / PATCH) * PATCH + c / PATCH % PATCH,
                          at = patch % (SIDE / PATCH) * PATCH + c % PATCH;
                x[c] = ((const float *)pixels.data)[(plane * SIDE + y) * SIDE + at];
            }
            for (int a = 0; a < COLUMNS; a++)
                for (int b = 0; b < COLUMNS; b++) sums[a][b] += (double)x[a] * (double)x[b];
        }
    }
    for (int a = 0; a < N; a++)
        for (int b = 0; b < N; b++) {
            const double expected = a < COLUMNS && b < COLUMNS ? sums[a][b] : 0;
            if (fabs((double)site->sums[a * N + b] - expected) > 1e-4 * fabs(sums[0][0]))
                fail_msg("%d, %d: %g, expected %g", a, b, (double)site->sums[a * N + b], expected);
        }
    for (int32_t i = 0; i < calibration->n_sites; i++) { /* none was forgotten */
        assert_non_null(calibration->sites[i].linear);
        for (int64_t c = 0; c < calibration->sites[i].columns && c < N; c++)
            assert_true(calibration->sites[i].sums[c * N + c] > 0);
    }
    OK(pg_calibration_get_rows(calibration, &n));
    assert_int_equal(n, N_ROWS);
    pg_calibration_close(&calibration);
    assert_null(calibration);
}

static void the_same_for_any_threads(void **state) {
    pg_calibration *a = calibrated(0, N_ROWS, 1), *b = calibrated(0, N_ROWS, 3);
    bytes files[2];
    (void)state;
    assert_memory_equal(a->sums, b->sums, a->n_blocks * N * N * sizeof(float));
    for (int i = 0; i < 2; i++) {
        OK(convert(i ? a : b, NULL, 1 + 2 * i));
        files[i] = read_file(out, "model.safetensors");
        remove_folder(out);
    }
    assert_int_equal(files[0].size, files[1].size);
    assert_memory_equal(files[0].data, files[1].data, files[0].size);
    for (int i = 0; i < 2; i++) bytes_free(&files[i]);
    pg_calibration_close(&a);
    pg_calibration_close(&b);
}

/* --------------------------------------------------------------------------------------------------------- rounding */

enum { OUTPUTS = 40, TOKENS = 600 };

static void random_values(float *x, size_t n, uint64_t seed) {
    rng r = {seed};
    for (size_t i = 0; i < n; i++) x[i] = (float)rng_below(&r, 20001) / 10000 - 1;
}

static void no_feedback_is_plain(void **state) {
    static const int64_t widths[] = {1, 31, 128, 129, 256, 257, 600};
    (void)state;
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++) {
        const int64_t columns = widths[i], panels = pgi_quantized_panels(OUTPUTS);
        const size_t size = (size_t)pgi_quantized_bytes(PGI_DTYPE_INT4_BLOCKS, OUTPUTS, columns);
        float *w = malloc((size_t)(OUTPUTS * columns) * sizeof *w);
        float *factors = calloc((size_t)((columns + N - 1) / N) * N * N, sizeof *factors);
        uint8_t *plain = malloc(size), *feeding = malloc(size);
        const pgi_matrix matrix = {w, PG_DTYPE_F32, OUTPUTS, columns, NULL};
        random_values(w, (size_t)(OUTPUTS * columns), i + 1);
        OK(pgi_quantize_panels(&matrix, 0, PGI_DTYPE_INT4_BLOCKS, 0, panels, plain));
        memset(feeding, 0x5A, size);
        OK(pgi_quantize_panels_feeding(&matrix, 0, factors, 0, 1, feeding)); /* in two parts */
        OK(pgi_quantize_panels_feeding(&matrix, 0, factors, 1, panels, feeding + size / (size_t)panels));
        assert_memory_equal(plain, feeding, size);
        w[OUTPUTS * columns - 1] = NAN;
        assert_int_equal(pgi_quantize_panels_feeding(&matrix, 0, factors, 0, panels, feeding), PG_ERROR_ARGUMENT);
        assert_non_null(strstr(pg_last_error(), "row 39"));
        free(w);
        free(factors);
        free(plain);
        free(feeding);
    }
}

/* |x (w - q)|^2 over all tokens and outputs. */
static double output_error(const float *x, const float *w, const uint8_t *blocks, int64_t columns) {
    const pgi_matrix q = {blocks, PGI_DTYPE_INT4_BLOCKS, OUTPUTS, columns, NULL};
    float *row = malloc((size_t)columns * sizeof *row);
    double error = 0;
    for (int64_t o = 0; o < OUTPUTS; o++) {
        pgi_quantized_row(&q, o, 1, row);
        for (int64_t t = 0; t < TOKENS; t++) {
            double y = 0;
            for (int64_t c = 0; c < columns; c++)
                y += (double)x[t * columns + c] * ((double)w[o * columns + c] - (double)row[c]);
            error += y * y;
        }
    }
    free(row);
    return error;
}

/* Inputs that go together, as those of trained models do: the error of what the layer computes is less than half. */
static void feedback_is_nearer(void **state) {
    static const int64_t widths[] = {96, 256, 300};
    static const pgi_run alone = {.n_threads = 1};
    (void)state;
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++) {
        const int64_t columns = widths[i], blocks = (columns + N - 1) / N;
        const size_t size = (size_t)pgi_quantized_bytes(PGI_DTYPE_INT4_BLOCKS, OUTPUTS, columns);
        float *w = malloc((size_t)(OUTPUTS * columns) * sizeof *w), *x = malloc((size_t)(TOKENS * columns) * sizeof *x);
        float *sums = calloc((size_t)blocks * N * N, sizeof *sums),
              *factors = malloc((size_t)blocks * N * N * sizeof *x);
        uint8_t *plain = malloc(size), *feeding = malloc(size);
        const pgi_matrix matrix = {w, PG_DTYPE_F32, OUTPUTS, columns, NULL};
        random_values(w, (size_t)(OUTPUTS * columns), i + 7);
        random_values(x, (size_t)(TOKENS * columns), i + 70);
        for (int64_t t = 0; t < TOKENS; t++)
            for (int64_t c = 1; c < columns; c++) x[t * columns + c] += 0.9f * x[t * columns + c - 1];
        for (int64_t a = 0; a < columns; a++)
            for (int64_t b = a / N * N; b < columns && b < a / N * N + N; b++)
                for (int64_t t = 0; t < TOKENS; t++) sums[a * N + b % N] += x[t * columns + a] * x[t * columns + b];
        const pgi_calibration_site site = {.columns = columns, .sums = sums};
        OK(pgi_calibration_factors(&pgi_memory_default, &alone, &site, factors));
        OK(pgi_quantize_panels(&matrix, 0, PGI_DTYPE_INT4_BLOCKS, 0, pgi_quantized_panels(OUTPUTS), plain));
        OK(pgi_quantize_panels_feeding(&matrix, 0, factors, 0, pgi_quantized_panels(OUTPUTS), feeding));
        const double before = output_error(x, w, plain, columns), after = output_error(x, w, feeding, columns);
        if (!(after < 0.5 * before)) fail_msg("%lld columns: error %g, plain %g", (long long)columns, after, before);
        free(w);
        free(x);
        free(sums);
        free(factors);
        free(plain);
        free(feeding);
    }
}

/* Sums that say nothing, and numbers that overflow, still give blocks of finite numbers. */
static void odd_sums(void **state) {
    static const float values[] = {0, NAN, INFINITY, -1, 1e30f};
    static const pgi_run alone = {.n_threads = 1};
    static float sums[N * N], factors[N * N], w[OUTPUTS * N], row[N];
    static uint8_t blocks[3 * 2 * PGI_INT4_BLOCK];
    (void)state;
    for (size_t i = 0; i < 2 * sizeof values / sizeof *values; i++) {
        const pgi_calibration_site site = {.columns = N, .sums = sums};
        for (int k = 0; k < N * N; k++) sums[k] = values[i / 2];
        for (int k = 0; k < OUTPUTS * N; k++) w[k] = i % 2 ? (k % 3 ? 3e38f : -3e38f) : (float)(k % 17) - 8;
        OK(pgi_calibration_factors(&pgi_memory_default, &alone, &site, factors));
        const pgi_matrix matrix = {w, PG_DTYPE_F32, OUTPUTS, N, NULL};
        OK(pgi_quantize_panels_feeding(&matrix, 0, factors, 0, 3, blocks));
        for (int64_t o = 0; o < OUTPUTS && !(i % 2); o++) {
            pgi_quantized_row(&(pgi_matrix){blocks, PGI_DTYPE_INT4_BLOCKS, OUTPUTS, N, NULL}, o, 1, row);
            for (int c = 0; c < N; c++) assert_true(isfinite(row[c]));
        }
    }
}

/* ------------------------------------------------------------------------------------------------------- conversion */

static bytes converted(const pg_calibration *calibration, const char *int8_layers) {
    OK(convert(calibration, int8_layers, 2));
    bytes file = read_file(out, "model.safetensors");
    pg_model *model = NULL;
    pg_model_options options;
    OK(pg_model_options_init(&options, sizeof options));
    options.flags = PG_MODEL_VERIFY;
    OK(pg_model_open(out, &options, &model));
    pg_model_close(&model);
    remove_folder(out);
    return file;
}

static void conversions(void **state) {
    pg_calibration *calibration = calibrated(0, N_ROWS, 2);
    bytes plain = converted(NULL, NULL), mixed = converted(calibration, PG_INT8_LAYERS_MIX),
          file = converted(calibration, NULL);
    (void)state;
    assert_int_equal(plain.size, file.size); /* at equal bytes */
    assert_true(memcmp(plain.data, file.data, plain.size) != 0);
    assert_true(mixed.size > file.size);
    bytes_free(&plain);
    bytes_free(&mixed);
    bytes_free(&file);
    pg_calibration_close(&calibration);
}

/* Interrupted, and gone on from what was saved: the same folder. */
static void gone_on_from(void **state) {
    pg_calibration *whole = calibrated(0, N_ROWS, 1), *part = calibrated(0, 2, 1);
    pg_model *model = opened(NULL);
    int64_t n = 0;
    (void)state;
    OK(pg_calibration_save(part, saved, 77));
    pg_calibration_close(&part);
    OK(pg_calibration_load(model, saved, 77, &part));
    OK(pg_calibration_get_rows(part, &n));
    assert_int_equal(n, 2);
    for (int i = 2; i < N_ROWS; i++) OK(pg_calibration_add(part, rows[i], NULL));
    assert_memory_equal(whole->sums, part->sums, whole->n_blocks * N * N * sizeof(float));
    OK(pg_calibration_save(part, saved, 78)); /* over what is there */
    pg_calibration_close(&part);
    ERROR(pg_calibration_load(model, saved, 77, &part), PG_ERROR_ARGUMENT, "tag 4e", "expected 4d");
    assert_null(part);
    pg_calibration_close(&whole);
    pg_model_close(&model);
}

/* --------------------------------------------------------------------------------------------------------- refusals */

static int32_t stop_at(void *user, int32_t phase, int64_t done, int64_t total) {
    int64_t *calls = user;
    (void)phase, (void)done, (void)total;
    return --*calls == 0;
}

static void torn_sums(void **state) {
    pg_calibration *calibration = calibrated(0, 1, 1);
    pg_run_options options;
    int64_t calls = 5;
    (void)state;
    OK(pg_run_options_init(&options, sizeof options));
    options.progress = stop_at;
    options.progress_user = &calls;
    ERROR(pg_calibration_add(calibration, rows[1], &options), PG_ERROR_CANCELLED, "progress", "");
    ERROR(pg_calibration_add(calibration, rows[1], NULL), PG_ERROR_STATE, "calibration", "begin anew");
    ERROR(pg_calibration_save(calibration, saved, 0), PG_ERROR_STATE, "calibration", "begin anew");
    ERROR(convert(calibration, NULL, 1), PG_ERROR_STATE, "calibration", "begin anew");
    assert_int_not_equal(access(saved, F_OK), 0);
    assert_int_not_equal(access(out, F_OK), 0);
    pg_calibration_close(&calibration);
}

static void foreign_models(void **state) {
    pg_calibration *calibration = calibrated(0, 1, 1), *loaded = NULL;
    (void)state;
    OK(pg_calibration_save(calibration, saved, 1));
    remove_folder(source);
    mkdir(source, 0777);
    tiny_options options = tiny_official();
    options.seed = 99; /* a fine-tune: the same shapes */
    tiny_write(source, &options);
    ERROR(convert(calibration, NULL, 1), PG_ERROR_ARGUMENT, "calibration is of another model", source);
    pg_model *model = opened(NULL);
    ERROR(pg_calibration_load(model, saved, 1, &loaded), PG_ERROR_ARGUMENT, "of another model", saved);
    pg_model_close(&model);
    pg_model_options o;
    OK(pg_model_options_init(&o, sizeof o));
    o.weights = PG_WEIGHTS_INT8;
    OK(pg_model_open(source, &o, &model));
    ERROR(pg_calibration_create(model, &loaded), PG_ERROR_UNSUPPORTED, "int8 weights", "stored");
    assert_null(loaded);
    pg_model_close(&model);
    pg_calibration_close(&calibration);
}

static void wrong_arguments(void **state) {
    pg_calibration *calibration = calibrated(0, 0, 1), *none = NULL;
    pg_model *model = opened(NULL);
    pg_run_options options;
    int64_t n = 0;
    (void)state;
    ERROR(convert(calibration, NULL, 1), PG_ERROR_ARGUMENT, "no rows", "expected some");
    pg_convert_options o;
    OK(pg_convert_options_init(&o, sizeof o));
    o.calibration = calibration;
    ERROR(pg_model_convert(source, out, &o), PG_ERROR_ARGUMENT, "pg_convert_options.calibration", "PG_WEIGHTS_INT4");
    ERROR(pg_calibration_create(NULL, &none), PG_ERROR_ARGUMENT, "model", "NULL");
    ERROR(pg_calibration_create(model, NULL), PG_ERROR_ARGUMENT, "out", "NULL");
    ERROR(pg_calibration_add(NULL, rows[0], NULL), PG_ERROR_ARGUMENT, "calibration", "NULL");
    ERROR(pg_calibration_add(calibration, NULL, NULL), PG_ERROR_ARGUMENT, "inputs", "NULL");
    ERROR(pg_calibration_get_rows(calibration, NULL), PG_ERROR_ARGUMENT, "n_rows", "NULL");
    ERROR(pg_calibration_get_rows(NULL, &n), PG_ERROR_ARGUMENT, "calibration", "NULL");
    ERROR(pg_calibration_save(calibration, NULL, 0), PG_ERROR_ARGUMENT, "path", "NULL");
    ERROR(pg_calibration_save(calibration, source, 0), PG_ERROR_ARGUMENT, source, "folder");
    ERROR(pg_calibration_load(model, "/nowhere/at-all", 0, &none), PG_ERROR_NOT_FOUND, "/nowhere/at-all", "");
    OK(pg_run_options_init(&options, sizeof options));
    options.n_threads = -1;
    ERROR(pg_calibration_add(calibration, rows[0], &options), PG_ERROR_ARGUMENT, "n_threads", "-1");
    OK(pg_calibration_add(calibration, rows[0], NULL)); /* nothing was torn */
    pg_calibration_close(NULL);
    pg_calibration_close(&none);
    pg_calibration_close(&calibration);
    pg_model_close(&model);
}

/* A bit of the file's beginning, one of its sums, and its end. */
static void damaged_files(void **state) {
    pg_calibration *calibration = calibrated(0, 1, 1), *loaded = NULL;
    pg_model *model = opened(NULL);
    rng r = {3};
    (void)state;
    OK(pg_calibration_save(calibration, saved, 0));
    bytes file = read_file(base, "saved");
    for (size_t i = 0; i < 56 + 20; i++) {
        const size_t at = i < 56 ? i : 56 + rng_below(&r, file.size - 56);
        const uint8_t bit = (uint8_t)(1u << rng_below(&r, 8));
        file.data[at] ^= bit;
        write_file(base, "saved", file.data, file.size);
        ERROR(pg_calibration_load(model, saved, 0, &loaded), PG_ERROR_FORMAT, saved, "remove it to begin anew");
        file.data[at] ^= bit;
    }
    for (size_t i = 0; i < 80; i++) {
        const size_t size = i < 60 ? i : rng_below(&r, file.size);
        write_file(base, "saved", file.data, size);
        ERROR(pg_calibration_load(model, saved, 0, &loaded), PG_ERROR_FORMAT, saved, "");
        assert_null(loaded);
    }
    bytes_free(&file);
    pg_calibration_close(&calibration);
    pg_model_close(&model);
}

/* Everything that allocates, once for each allocation. */
static pg_status everything(const pg_model *model, counter *memory) {
    pg_calibration *calibration = NULL, *loaded = NULL;
    pg_convert_options options;
    OK(pg_convert_options_init(&options, sizeof options));
    options.weights = PG_WEIGHTS_INT4;
    options.allocator = &memory->hooks;
    options.n_threads = 1;
    const pg_run_options run = {.struct_size = sizeof run, .n_threads = 1};
    pg_status status = pg_calibration_create(model, &calibration);
    if (status >= 0) status = pg_calibration_add(calibration, rows[0], &run);
    if (status >= 0) status = pg_calibration_save(calibration, saved, 5);
    if (status >= 0) status = pg_calibration_load(model, saved, 5, &loaded);
    options.calibration = loaded;
    if (status >= 0) status = pg_model_convert(source, out, &options);
    pg_calibration_close(&loaded);
    pg_calibration_close(&calibration);
    return status;
}

static void every_failing_allocation(void **state) {
    counter memory;
    (void)state;
    counter_init(&memory);
    pg_model *model = opened(&memory.hooks);
    const int64_t before = memory.n_allocs;
    OK(everything(model, &memory));
    const int64_t total = memory.n_allocs - before;
    assert_in_range(total, 30, 10000);
    remove_folder(out);
    for (int64_t n = 1; n <= total; n = next_fault(n)) {
        memory.fail_at = memory.n_allocs + n;
        ERROR(everything(model, &memory), PG_ERROR_MEMORY, "", "");
        assert_int_not_equal(access(out, F_OK), 0);
    }
    pg_model_close(&model);
    assert_true(counter_clean(&memory));
}

int main(int argc, char **argv) {
    static const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        TEST(sums_of_patches),
        TEST(the_same_for_any_threads),
        TEST(no_feedback_is_plain),
        TEST(feedback_is_nearer),
        TEST(odd_sums),
        TEST(conversions),
        TEST(gone_on_from),
        TEST(torn_sums),
        TEST(foreign_models),
        TEST(wrong_arguments),
        TEST(damaged_files),
        TEST(every_failing_allocation),
    };
    return RUN_TESTS(tests, NULL, NULL);
}
