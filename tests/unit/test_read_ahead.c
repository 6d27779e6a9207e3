/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Reading weights ahead: every matrix once, in the order of use; none of weights in memory; the end of its threads. */
#include "run_tests.h"

#include <unistd.h>

#include "model/read_ahead.h"

#define DEMO PGI_GOLDEN_FOLDER "/../../examples/demo/model"

static pg_model *open_demo(uint32_t flags) {
    pg_model_options options;
    pg_model *model = NULL;
    assert_int_equal(pg_model_options_init(&options, sizeof options), PG_OK);
    options.flags = flags;
    assert_int_equal(pg_model_open(DEMO, &options, &model), PG_OK);
    return model;
}

static void test_order(void **state) {
    (void)state;
    pg_model *model = open_demo(0);
    const pgi_weights *w = &model->weights;
    const int64_t n_vision = model->config.vision.n_layers, n_text = model->config.text.n_layers;
    size_t n, sum[2] = {0, 0};
    int64_t i = 0;
    for (const pgi_matrix *m; (m = pgi_read_ahead_matrix(model, PGI_AHEAD_IMAGE, i, &n)); i++) {
        sum[0] += n;
        assert_int_equal(n, (size_t)(m->rows * m->columns) * pgi_dtype_size(m->dtype));
        if (i == 0) assert_ptr_equal(m, &w->vision.patch.weight);
        if (i == 1) assert_ptr_equal(m, &w->vision.position);
        if (i >= 2 && i < 2 + 6 * n_vision && (i - 2) % 6 == 4)
            assert_ptr_equal(m, &w->vision.layers[(i - 2) / 6].fc1.weight);
        if (i == 2 + 6 * n_vision) assert_ptr_equal(m, &w->projector.weight);
    }
    assert_int_equal(i, 2 + 6 * n_vision + 1);
    i = 0;
    for (const pgi_matrix *m; (m = pgi_read_ahead_matrix(model, PGI_AHEAD_TEXT, i, &n)); i++) {
        sum[1] += n;
        if (i < 7 * n_text && i % 7 == 6) assert_ptr_equal(m, &w->text.layers[i / 7].down.weight);
        if (i == 7 * n_text) assert_ptr_equal(m, &w->text.head.weight);
    }
    assert_int_equal(i, 7 * n_text + 1);

    atomic_int stop = 0;
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), steps = (size_t)(2 + 6 * n_vision + 1 + 7 * n_text + 1);
    const size_t image = pgi_read_ahead_now(model, PGI_AHEAD_IMAGE, &stop);
    assert_in_range(image, sum[0], sum[0] + steps * page);
    const size_t both = pgi_read_ahead_now(model, PGI_AHEAD_IMAGE | PGI_AHEAD_TEXT, &stop);
    assert_in_range(both, sum[0] + sum[1], sum[0] + sum[1] + steps * page);
    assert_int_equal(both - image, pgi_read_ahead_now(model, PGI_AHEAD_TEXT, &stop));
    stop = 1;
    assert_int_equal(pgi_read_ahead_now(model, PGI_AHEAD_IMAGE, &stop), 0);
    pg_model_close(&model);
}

/* A small model is worth no thread, weights in memory need none. */
static void test_what_starts(void **state) {
    (void)state;
    for (uint32_t flags = 0; flags <= PG_MODEL_IN_MEMORY; flags += PG_MODEL_IN_MEMORY) {
        pg_model *model = open_demo(flags);
        pgi_read_ahead(model, PGI_AHEAD_TEXT);
        pgi_read_ahead(model, PGI_AHEAD_IMAGE | PGI_AHEAD_TEXT);
        assert_int_equal(model->ahead.n_threads, 0);
        assert_int_equal(model->ahead.claimed, flags ? 0 : PGI_AHEAD_IMAGE | PGI_AHEAD_TEXT);
        pg_model_close(&model);
    }
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_order), cmocka_unit_test(test_what_starts)};
    return RUN_TESTS(tests, NULL, NULL);
}
