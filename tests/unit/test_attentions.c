/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* PG_FORWARD_ATTENTIONS: as transformers gave them, who sees whom, their means and parts, and requests for what there
 * is not. */
#include "run_tests.h"

#include "checkpoint/safetensors.h"
#include "forward_fixture.h"

enum {
    MEANS = PG_FORWARD_ATTENTION_HEAD_MEAN | PG_FORWARD_ATTENTION_LAYER_MEAN,
    LEAN = PG_FORWARD_NO_LOGITS | PG_FORWARD_NO_LOSS
};

static pg_tensor tensor_of(pgi_tensor_files *files, const char *name) {
    const pgi_stored_tensor *stored = pgi_tensor_files_find(files, name);
    assert_non_null(stored);
    pg_tensor tensor = {.struct_size = sizeof tensor,
                        .dtype = stored->dtype,
                        .n_dims = stored->n_dims,
                        .shape = {1, 1, 1, 1},
                        .data = stored->data};
    memcpy(tensor.shape, stored->shape, (size_t)stored->n_dims * sizeof(int64_t));
    return tensor;
}

static void as_transformers(void **state) {
    (void)state;
    for (int gemma = 1; gemma <= 2; gemma++) {
        char of[600], expected[600];
        pgi_tensor_files *files = NULL;
        pg_model *golden = NULL;
        pg_inputs *in = NULL;
        pg_outputs *out = NULL;
        pg_input_arrays arrays;
        snprintf(of, sizeof of, "%s/models/gemma%d", PGI_GOLDEN_FOLDER, gemma);
        snprintf(expected, sizeof expected, "%s/attentions/gemma%d", PGI_GOLDEN_FOLDER, gemma);
        OK(pg_model_open(of, NULL, &golden));
        OK(pgi_tensor_files_open(&pgi_memory_default, expected, 0, NULL, &files));
        pg_tensor ids = tensor_of(files, "input_ids"), mask = tensor_of(files, "attention_mask");
        pg_tensor types = tensor_of(files, "token_type_ids"), pixels = tensor_of(files, "pixel_values");
        pg_tensor wanted = tensor_of(files, "attentions"), bound = tensor_of(files, "bound");
        OK(pg_input_arrays_init(&arrays, sizeof arrays));
        arrays.input_ids = &ids;
        arrays.attention_mask = &mask;
        arrays.token_type_ids = &types;
        arrays.pixel_values = &pixels;
        OK(pg_inputs_create(&arrays, &in));
        pg_forward_options options = options_of(PG_FORWARD_ATTENTIONS | LEAN);
        options.attention_queries = wanted.shape[2];
        OK(pg_forward(golden, in, &options, &out));
        const int64_t *n = wanted.shape;
        const float *found = get(out, "attentions", 4, n[0], n[1], n[2], n[3]), *right = wanted.data;
        const float limit = *(const float *)bound.data;
        assert_true(limit > 0 && limit < 1e-3);
        for (int64_t i = 0; i < n[0] * n[1] * n[2] * n[3]; i++) assert_true(fabsf(found[i] - right[i]) <= limit);
        pg_outputs_close(&out);
        pg_inputs_close(&in);
        pgi_tensor_files_close(&files);
        pg_model_close(&golden);
    }
}

static int64_t n_heads_of(const tiny *m) {
    int64_t n;
    OK(pg_model_get_config_int(m->model, "text_config.num_attention_heads", &n));
    return n;
}

static const float *attentions_of(const pg_outputs *out, const batch *b, const tiny *m) {
    return get(out, "attentions", 4, m->n_layers * b->n_rows, n_heads_of(m), b->n_tokens, b->n_tokens);
}

/* Whether token t of row r sees token j in a layer without a window. */
static int sees(const batch *b, int64_t r, int64_t t, int64_t j) {
    const int64_t at = r * b->n_tokens;
    if (!b->mask[at + j]) return 0;
    return j <= t || (!b->types[at + t] && !b->types[at + j]);
}

static void each_token_attends_to_what_it_sees(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) {
        const tiny *m = &models[i];
        for (int side = LEFT; side <= RIGHT; side++) {
            batch b;
            make_batch(&b, m, specs, 7, side, 2);
            pg_outputs *out = forward(m, &b, 0, PG_FORWARD_ATTENTIONS | PG_FORWARD_SKIP_PADDING);
            const float *weights = attentions_of(out, &b, m);
            const int64_t heads = n_heads_of(m), n = b.n_tokens;
            for (int64_t k = 0; k < m->n_layers * b.n_rows * heads * n; k++, weights += n) {
                const int64_t t = k % n, r = k / n / heads % b.n_rows;
                double sum = 0;
                for (int64_t j = 0; j < n; j++) {
                    assert_true(weights[j] >= 0 && (weights[j] == 0 || sees(&b, r, t, j)));
                    sum += weights[j];
                }
                assert_true(fabs(sum - (b.mask[r * n + t] ? 1 : 0)) < 1e-5);
            }
            pg_outputs_close(&out);
            free(b.pixels);
        }
    }
}

/* Whoever asks gets the same other bits; the threads, and the rows beside a row, change none of the weights. */
static void nothing_else_changes(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) {
        const tiny *m = &models[i];
        const int64_t n_heads = n_heads_of(m);
        batch b, alone;
        pg_inputs *in = NULL;
        pg_outputs *out = NULL;
        make_batch(&b, m, specs, 5, LEFT, 2);
        pg_outputs *asked = forward(m, &b, 0, PG_FORWARD_ATTENTIONS), *plain = forward(m, &b, 0, 0);
        const size_t logits = (size_t)(b.n_rows * b.n_tokens * m->info.vocab_size) * sizeof(float);
        assert_memory_equal(logits_of(asked, &b, m), logits_of(plain, &b, m), logits);
        pg_tensor none = {.struct_size = sizeof none};
        ERROR(pg_outputs_get_tensor(plain, "attentions", &none), PG_ERROR_NOT_FOUND);
        OK(create(&b, m, 0, NULL, &in));
        const float *weights = attentions_of(asked, &b, m);
        const int64_t n = b.n_tokens, size = n_heads * n * n;
        for (int n_threads = 2; n_threads < 5; n_threads++) {
            pg_forward_options options = options_of(PG_FORWARD_ATTENTIONS);
            options.n_threads = n_threads;
            OK(pg_forward(m->model, in, &options, &out));
            assert_memory_equal(attentions_of(out, &b, m), weights,
                                (size_t)(m->n_layers * b.n_rows * size) * sizeof(float));
            pg_outputs_close(&out);
        }
        for (int r = 0; r < 5; r++) {
            make_batch(&alone, m, &specs[r], 1, LEFT, 0);
            out = forward(m, &alone, 0, PG_FORWARD_ATTENTIONS);
            const float *single = attentions_of(out, &alone, m);
            const int64_t few = alone.n_tokens, first = b.first[r];
            for (int64_t k = 0; k < m->n_layers * n_heads * few; k++) {
                const int64_t t = k % few, h = k / few % n_heads, l = k / few / n_heads;
                assert_memory_equal(single + k * few,
                                    weights + (l * b.n_rows + r) * size + (h * n + first + t) * n + first,
                                    (size_t)few * sizeof(float));
            }
            pg_outputs_close(&out);
            free(alone.pixels);
        }
        pg_inputs_close(&in);
        pg_outputs_close(&asked);
        pg_outputs_close(&plain);
        free(b.pixels);
    }
}

/* The mean over heads and layers first .. last of the weights [L, B, A, n, n] of row r, token t to token j. */
static double mean_weight(const float *weights, const batch *b, int64_t n_heads, int64_t first, int64_t last, int64_t r,
                          int64_t t, int64_t j) {
    const int64_t n = b->n_tokens;
    double sum = 0;
    for (int64_t l = first; l <= last; l++)
        for (int64_t h = 0; h < n_heads; h++) sum += weights[(((l * b->n_rows + r) * n_heads + h) * n + t) * n + j];
    return sum / (double)((last - first + 1) * n_heads);
}

/* From the last tokens to the image tokens, averaged. */
static void maps_of_the_images(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) {
        const tiny *m = &models[i];
        const int64_t n_heads = n_heads_of(m), per_image = m->info.n_image_tokens;
        for (int side = LEFT; side <= RIGHT; side++) {
            batch b;
            pg_inputs *in = NULL;
            make_batch(&b, m, specs, 5, side, 1); /* rows of one, no and two images */
            OK(create(&b, m, 0, NULL, &in));
            pg_outputs *all = forward(m, &b, 0, PG_FORWARD_ATTENTIONS), *out = NULL;
            const float *weights = attentions_of(all, &b, m);
            for (int layer = -1; layer < m->n_layers; layer++) {
                const int64_t n_queries = 4, most = 2 * per_image, l0 = layer < 0 ? 0 : layer;
                pg_forward_options options =
                    options_of(PG_FORWARD_ATTENTIONS | PG_FORWARD_ATTENTION_TO_IMAGE | MEANS | LEAN);
                options.attention_layer = layer;
                options.attention_queries = n_queries;
                OK(pg_forward(m->model, in, &options, &out));
                const float *map = get(out, "attentions", 4, b.n_rows, 1, n_queries, most);
                for (int64_t k = 0; k < b.n_rows * n_queries * most; k++) {
                    const int64_t r = k / most / n_queries, t = b.n_tokens - n_queries + k / most % n_queries;
                    const int64_t j = k % most, n_image = specs[r].n_images * per_image;
                    const double wanted = j < n_image
                                              ? mean_weight(weights, &b, n_heads, l0,
                                                            layer < 0 ? m->n_layers - 1 : layer, r, t, b.first[r] + j)
                                              : 0;
                    assert_true(fabs(map[k] - wanted) < 1e-6);
                }
                pg_outputs_close(&out);
            }
            pg_outputs_close(&all);
            pg_inputs_close(&in);
            free(b.pixels);
        }
    }
}

/* A token that the mask hides is padding to PG_FORWARD_SKIP_PADDING, and nobody attends to it. */
static void a_hole(void **state) {
    const row_spec row = {1, 6, 4, 9};
    (void)state;
    for (int i = 0; i < 2; i++) {
        const tiny *m = &models[i];
        batch b;
        make_batch(&b, m, &row, 1, LEFT, 2);
        const int64_t hole = b.first[0] + m->info.n_image_tokens + 2, n = b.n_tokens;
        b.mask[hole] = 0;
        pg_outputs *skipped = forward(m, &b, 0, PG_FORWARD_ATTENTIONS | PG_FORWARD_SKIP_PADDING);
        pg_outputs *all = forward(m, &b, 0, PG_FORWARD_ATTENTIONS);
        const float *x = attentions_of(skipped, &b, m), *y = attentions_of(all, &b, m);
        double of_hole = 0;
        for (int64_t k = 0; k < m->n_layers * n_heads_of(m) * n; k++, x += n, y += n) {
            assert_true(x[hole] == 0 && y[hole] == 0);
            for (int64_t j = 0; j < n; j++) {
                if (k % n == hole) of_hole += y[j];
                assert_true(k % n == hole || k % n < b.first[0] ? x[j] == 0 : fabsf(x[j] - y[j]) < 1e-5F);
            }
        }
        assert_true(of_hole > 0.5); /* with padding it is computed, as in transformers */
        pg_outputs_close(&skipped);
        pg_outputs_close(&all);
        free(b.pixels);
    }
}

static void impossible_requests(void **state) {
    const tiny *m = &models[0];
    static const struct {
        uint32_t flags;
        int32_t layer;
        int64_t queries;
        const char *says[3];
    } cases[] = {
        {PG_FORWARD_ATTENTION_HEAD_MEAN, -1, 0, {"flags is 0x100", "need PG_FORWARD_ATTENTIONS (0x80)", ""}},
        {PG_FORWARD_ATTENTION_TO_IMAGE, -1, 0, {"flags is 0x400", "0x700", ""}},
        {2048, -1, 0, {"flags is 0x800", "expected PG_FORWARD_*", ""}},
        {PG_FORWARD_ATTENTIONS, -2, 0, {"attention_layer is -2", "expected -1 (all) to 1", "2 layers"}},
        {PG_FORWARD_ATTENTIONS, 2, 0, {"attention_layer is 2", "expected -1 (all) to 1", "2 layers"}},
        {PG_FORWARD_ATTENTIONS, INT32_MAX, 0, {"attention_layer is 2147483647", "", ""}},
        {PG_FORWARD_ATTENTIONS, -1, -1, {"attention_queries is -1", "expected 0 (all) to 9", ""}},
        {0, -1, 10, {"attention_queries is 10", "expected 0 (all) to 9", ""}},
        {PG_FORWARD_ATTENTIONS, -1, INT64_MAX, {"attention_queries is 9223372036854775807", "", ""}},
        {PG_FORWARD_ATTENTIONS | PG_FORWARD_ATTENTION_TO_IMAGE, -1, 0, {"_TO_IMAGE", "no row has an image token", ""}},
    };
    batch b;
    pg_inputs *in = NULL;
    (void)state;
    assert_int_equal(m->n_layers, 2);
    make_batch(&b, m, &(row_spec){0, 6, 3, 2}, 1, LEFT, 0);
    OK(create(&b, m, 0, NULL, &in));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pg_forward_options options = options_of(cases[i].flags);
        pg_outputs *out = NULL;
        options.attention_layer = cases[i].layer;
        options.attention_queries = cases[i].queries;
        ERROR(pg_forward(m->model, in, &options, &out), PG_ERROR_ARGUMENT);
        assert_null(out);
        for (int k = 0; k < 3; k++) assert_non_null(strstr(pg_last_error(), cases[i].says[k]));
    }
    pg_inputs_close(&in);
    free(b.pixels);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(as_transformers),
        cmocka_unit_test(each_token_attends_to_what_it_sees),
        cmocka_unit_test(nothing_else_changes),
        cmocka_unit_test(maps_of_the_images),
        cmocka_unit_test(a_hole),
        cmocka_unit_test(impossible_requests),
    };
    return RUN_TESTS(tests, open_models, close_models);
}
