/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Folders of MLX that are not quantized: the patch convolution is channels last. They give the bits that the same
 * weights give in the layout of Hugging Face. */
#include "run_tests.h"

#include "forward_fixture.h"

typedef struct heard_log {
    int n;
    char text[400];
} heard_log;

static void on_log(void *user, int32_t level, const char *message) {
    heard_log *log = user;
    if (!strstr(message, "MLX")) return;
    assert_int_equal(level, PG_LOG_INFO);
    log->n++;
    snprintf(log->text, sizeof log->text, "%s", message);
}

static void open_again(tiny *m, int32_t weights, heard_log *log) {
    pg_model_options options;
    pg_model_close(&m->model);
    OK(pg_model_options_init(&options, sizeof options));
    options.weights = weights;
    options.log = on_log;
    options.log_user = log;
    OK(pg_model_open(m->folder, &options, &m->model));
}

static void same_outputs(const tiny *a, const tiny *of) {
    batch b;
    make_batch(&b, a, specs, 4, LEFT, 1);
    pg_outputs *x = forward(a, &b, 0, 0), *y = forward(of, &b, 0, 0);
    const size_t size = (size_t)(b.n_rows * b.n_tokens * a->info.vocab_size) * sizeof(float);
    assert_memory_equal(logits_of(x, &b, a), logits_of(y, &b, of), size);
    pg_outputs_close(&x);
    pg_outputs_close(&y);
    free(b.pixels);
}

/* Every dtype, layout and number of files; 3 x 3 patches look the same both ways, and "format" decides. */
static void the_bits_of_the_other_layout(void **state) {
    static const int dtypes[] = {PG_DTYPE_F32, PG_DTYPE_BF16, PG_DTYPE_F16};
    (void)state;
    for (int i = 0; i < 12; i++) {
        tiny_options options = i % 2 ? tiny_saved_today() : tiny_official();
        tiny a = {0}, b = {0};
        heard_log of_a = {0}, of_b = {0};
        options.dtype = dtypes[i % 3];
        options.patch = i < 6 ? 4 : 3;
        open_tiny(&a, &options, NULL);
        options.mlx = 1;
        open_tiny(&b, &options, NULL);
        for (int32_t weights = PG_WEIGHTS_STORED; weights <= PG_WEIGHTS_INT4; weights++) {
            of_a.n = of_b.n = 0;
            open_again(&a, weights, &of_a);
            open_again(&b, weights, &of_b);
            assert_int_equal(of_a.n, 0);
            assert_int_equal(of_b.n, 1);
            assert_non_null(strstr(of_b.text, "patch_embedding.weight"));
            assert_non_null(strstr(of_b.text, "transposed"));
            same_outputs(&a, &b);
        }
        close_tiny(&a);
        close_tiny(&b);
    }
}

/* A converted folder is in the layout of Hugging Face, bit for bit that of the other. */
static void it_converts(void **state) {
    (void)state;
    for (int32_t weights = PG_WEIGHTS_INT8; weights <= PG_WEIGHTS_INT4; weights++) {
        tiny_options options = tiny_official();
        tiny m[2] = {0}, out[2] = {0};
        bytes files[2];
        for (int i = 0; i < 2; i++) {
            pg_convert_options convert;
            heard_log log = {0};
            options.mlx = i;
            open_tiny(&m[i], &options, NULL);
            make_temp_folder(out[i].folder, sizeof out[i].folder);
            OK(pg_convert_options_init(&convert, sizeof convert));
            convert.weights = weights;
            OK(pg_model_convert(m[i].folder, out[i].folder, &convert));
            open_tiny(&out[i], NULL, NULL);
            open_again(&out[i], PG_WEIGHTS_STORED, &log);
            assert_int_equal(log.n, 0);
            open_again(&m[i], weights, &log);
            files[i] = read_file(out[i].folder, "model.safetensors");
            same_outputs(&m[i], &out[i]);
        }
        assert_int_equal(files[0].size, files[1].size);
        assert_memory_equal(files[0].data, files[1].data, files[0].size);
        for (int i = 0; i < 2; i++) {
            bytes_free(&files[i]);
            close_tiny(&m[i]);
            close_tiny(&out[i]);
        }
    }
}

/* Features of one serve the other: the weights are the same. */
static void features_are_shared(void **state) {
    tiny_options options = tiny_official();
    tiny a = {0}, b = {0};
    batch rows;
    pg_inputs *in = NULL;
    pg_features *features = NULL;
    pg_outputs *out = NULL;
    (void)state;
    open_tiny(&a, &options, NULL);
    options.mlx = 1;
    open_tiny(&b, &options, NULL);
    make_batch(&rows, &a, specs, 1, LEFT, 0);
    OK(create(&rows, &a, 0, NULL, &in));
    OK(pg_features_create(b.model, in, NULL, &features));
    pg_forward_options forward_options = options_of(0);
    forward_options.features = features;
    OK(pg_forward(a.model, in, &forward_options, &out));
    pg_outputs_close(&out);
    pg_features_close(&features);
    pg_inputs_close(&in);
    free(rows.pixels);
    close_tiny(&a);
    close_tiny(&b);
}

/* Shapes that are neither layout are refused with both numbers, and nothing is guessed. */
static void other_shapes(void **state) {
    static const struct {
        const char *shape; /* of 24 x 4 x 4 x 3 values */
        pg_status status;
        const char *found;
    } cases[] = {
        {"[24,4,3,4]", PG_ERROR_FORMAT, "found shape [24, 4, 3, 4], expected [24, 3, 4, 4]"},
        {"[24,2,8,3]", PG_ERROR_FORMAT, "found shape [24, 2, 8, 3]"},
        {"[24,8,2,3]", PG_ERROR_FORMAT, "found shape [24, 8, 2, 3]"},
        {"[12,8,4,3]", PG_ERROR_FORMAT, "found shape [12, 8, 4, 3]"},
        {"[4,4,3,24]", PG_ERROR_FORMAT, "found shape [4, 4, 3, 24]"},
        {"[24,4,12] ", PG_ERROR_FORMAT, "found shape [24, 4, 12]"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        tiny_options options = tiny_official();
        tiny m = {0};
        pg_model *model_of = NULL;
        options.mlx = 1;
        open_tiny(&m, &options, NULL);
        bytes file = read_file(m.folder, "model.safetensors");
        char *at = strstr((char *)file.data + 8, "[24,4,4,3]");
        assert_non_null(at);
        memcpy(at, cases[i].shape, strlen(cases[i].shape));
        write_file(m.folder, "model.safetensors", file.data, file.size);
        bytes_free(&file);
        ERROR(pg_model_open(m.folder, NULL, &model_of), cases[i].status);
        if (!strstr(pg_last_error(), cases[i].found)) fail_msg("case %zu: %s", i, pg_last_error());
        close_tiny(&m);
    }
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_bits_of_the_other_layout),
        cmocka_unit_test(it_converts),
        cmocka_unit_test(features_are_shared),
        cmocka_unit_test(other_shapes),
    };
    (void)open_models, (void)close_models; /* of the other programs */
    return RUN_TESTS(tests, NULL, NULL);
}
