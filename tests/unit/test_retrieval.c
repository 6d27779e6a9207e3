/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* ColPali folders: both layouts, embeddings by hand and as transformers gave them, quantized, and folders that lie. */
#include "run_tests.h"

#include "checkpoint/safetensors.h"
#include "forward_fixture.h"

enum { DIM = TINY_EMBEDDING_DIM, LEAN = PG_FORWARD_NO_LOGITS | PG_FORWARD_NO_LOSS | PG_FORWARD_SKIP_PADDING };

/* Rewrites a part of a file of the folder, which must be there. */
static void replace(const char *of, const char *name, const char *old, const char *new_text) {
    bytes file = read_file(of, name), out = {0};
    char *at = strstr((char *)file.data, old);
    if (!at) fail_msg("%s lacks %s", name, old);
    bytes_add(&out, file.data, (size_t)(at - (char *)file.data));
    bytes_text(&out, new_text);
    bytes_text(&out, at + strlen(old));
    write_file(of, name, out.data, out.size);
    bytes_free(&file);
    bytes_free(&out);
}

static void open_colpali(tiny *m, int kind) {
    tiny_options options = kind == TINY_COLPALI ? tiny_saved_today() : tiny_official();
    options.colpali = kind;
    memset(m, 0, sizeof *m);
    open_tiny(m, &options, NULL);
}

/* The f32 values of a tensor of the folder. */
static float *stored_values(const char *of, const char *name, int64_t n) {
    pgi_tensor_files *files = NULL;
    float *values = malloc((size_t)n * sizeof *values);
    OK(pgi_tensor_files_open(&pgi_memory_default, of, 0, NULL, &files));
    const pgi_stored_tensor *tensor = pgi_tensor_files_find(files, name);
    assert_non_null(tensor);
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits;
        uint16_t half;
        if (tensor->dtype == PG_DTYPE_F32) {
            memcpy(&bits, (const char *)tensor->data + 4 * i, 4);
        } else {
            memcpy(&half, (const char *)tensor->data + 2 * i, 2);
            bits = (uint32_t)half << 16;
        }
        memcpy(&values[i], &bits, 4);
    }
    pgi_tensor_files_close(&files);
    return values;
}

static void embeddings_by_hand(void **state) {
    (void)state;
    for (int kind = TINY_COLPALI; kind <= TINY_COLPALI_ENGINE; kind++) {
        tiny m;
        batch b;
        open_colpali(&m, kind);
        assert_int_equal(m.info.embedding_dim, DIM);
        const char *proj = kind == TINY_COLPALI ? "embedding_proj_layer" : "custom_text_proj";
        char name[64];
        snprintf(name, sizeof name, "%s.weight", proj);
        float *weight = stored_values(m.folder, name, DIM * m.hidden);
        snprintf(name, sizeof name, "%s.bias", proj);
        float *bias = stored_values(m.folder, name, DIM);
        make_batch(&b, &m, specs, 5, kind == TINY_COLPALI ? LEFT : RIGHT, 2);
        pg_outputs *out = forward(&m, &b, 0, PG_FORWARD_RETRIEVAL | PG_FORWARD_LAST_HIDDEN);
        pg_outputs *lean = forward(&m, &b, 0, PG_FORWARD_RETRIEVAL | LEAN);
        const float *found = get(out, "embeddings", 3, b.n_rows, b.n_tokens, DIM, 1);
        const float *alone = get(lean, "embeddings", 3, b.n_rows, b.n_tokens, DIM, 1);
        const float *hidden = get(out, "last_hidden_state", 3, b.n_rows, b.n_tokens, m.hidden, 1);
        pg_tensor none = {.struct_size = sizeof none};
        ERROR(pg_outputs_get_tensor(lean, "last_hidden_state", &none), PG_ERROR_NOT_FOUND);
        ERROR(pg_outputs_get_tensor(lean, "logits", &none), PG_ERROR_NOT_FOUND);
        for (int64_t t = 0; t < b.n_rows * b.n_tokens; t++) {
            double wanted[DIM], norm = 0;
            for (int i = 0; i < DIM; i++) {
                wanted[i] = bias[i];
                for (int64_t k = 0; k < m.hidden; k++)
                    wanted[i] += (double)weight[i * m.hidden + k] * hidden[t * m.hidden + k];
                norm += wanted[i] * wanted[i];
            }
            for (int i = 0; i < DIM; i++) {
                const double value = b.mask[t] ? wanted[i] / sqrt(norm) : 0;
                assert_true(fabs(found[t * DIM + i] - value) < 2e-6);
                assert_true(fabs(alone[t * DIM + i] - value) < 1e-5);
            }
        }
        pg_outputs_close(&out);
        pg_outputs_close(&lean);
        free(weight);
        free(bias);
        free(b.pixels);
        close_tiny(&m);
    }
}

static void the_same_bits_for_every_number_of_threads(void **state) {
    tiny m;
    batch b;
    pg_inputs *in = NULL;
    pg_outputs *first = NULL, *out = NULL;
    (void)state;
    open_colpali(&m, TINY_COLPALI);
    make_batch(&b, &m, specs, 7, LEFT, 0);
    OK(create(&b, &m, 0, NULL, &in));
    pg_forward_options options = options_of(PG_FORWARD_RETRIEVAL | LEAN);
    OK(pg_forward(m.model, in, &options, &first));
    const float *wanted = get(first, "embeddings", 3, b.n_rows, b.n_tokens, DIM, 1);
    for (options.n_threads = 2; options.n_threads < 5; options.n_threads++) {
        OK(pg_forward(m.model, in, &options, &out));
        const float *found = get(out, "embeddings", 3, b.n_rows, b.n_tokens, DIM, 1);
        assert_memory_equal(found, wanted, (size_t)(b.n_rows * b.n_tokens * DIM) * sizeof *found);
        pg_outputs_close(&out);
    }
    pg_outputs_close(&first);
    pg_inputs_close(&in);
    free(b.pixels);
    close_tiny(&m);
}

/* The head is the embedding, as in the PaliGemma inside. */
static void it_generates_as_its_paligemma(void **state) {
    tiny colpali, plain = {0};
    tiny_options options = tiny_saved_today();
    batch b;
    (void)state;
    open_colpali(&colpali, TINY_COLPALI);
    open_tiny(&plain, &options, NULL);
    make_batch(&b, &plain, specs, 3, LEFT, 0);
    pg_result *found = generate(&colpali, &b, 0, 1, NULL), *wanted = generate(&plain, &b, 0, 1, NULL);
    for (int r = 0; r < 3; r++) same_row(found, r, wanted, r);
    pg_result_close(&found);
    pg_result_close(&wanted);
    free(b.pixels);
    close_tiny(&colpali);
    close_tiny(&plain);
}

static void no_projection_no_embeddings(void **state) {
    batch b;
    pg_inputs *in = NULL;
    pg_outputs *out = NULL;
    (void)state;
    for (int i = 0; i < 2; i++) {
        int64_t dim;
        assert_int_equal(models[i].info.embedding_dim, 0);
        ERROR(pg_model_get_config_int(models[i].model, "embedding_dim", &dim), PG_ERROR_NOT_FOUND);
        make_batch(&b, &models[i], specs, 2, LEFT, 0);
        OK(create(&b, &models[i], 0, NULL, &in));
        pg_forward_options options = options_of(PG_FORWARD_RETRIEVAL);
        ERROR(pg_forward(models[i].model, in, &options, &out), PG_ERROR_NOT_FOUND);
        assert_non_null(strstr(pg_last_error(), models[i].folder));
        assert_non_null(strstr(pg_last_error(), "no projection (embedding_proj_layer or custom_text_proj)"));
        options.flags = PG_FORWARD_RETRIEVAL | 0x8000;
        ARGUMENT(pg_forward(models[i].model, in, &options, &out));
        pg_inputs_close(&in);
        free(b.pixels);
    }
}

/* int8 and int4, on opening and converted: the same bits, and the projection is there as it was. */
static void quantized_folders_keep_it(void **state) {
    (void)state;
    for (int kind = TINY_COLPALI; kind <= TINY_COLPALI_ENGINE; kind++)
        for (int32_t weights = PG_WEIGHTS_INT8; weights <= PG_WEIGHTS_INT4; weights++) {
            tiny m, converted = {0};
            batch b;
            pg_model_options options;
            pg_convert_options convert;
            open_colpali(&m, kind);
            make_temp_folder(converted.folder, sizeof converted.folder);
            OK(pg_convert_options_init(&convert, sizeof convert));
            convert.weights = weights;
            OK(pg_model_convert(m.folder, converted.folder, &convert));
            open_tiny(&converted, NULL, NULL);
            assert_int_equal(converted.info.embedding_dim, DIM);
            assert_int_equal(converted.info.weights, weights);
            make_batch(&b, &m, specs, 4, RIGHT, 0);
            pg_model_close(&m.model);
            OK(pg_model_options_init(&options, sizeof options));
            options.weights = weights;
            OK(pg_model_open(m.folder, &options, &m.model));
            pg_outputs *found = forward(&converted, &b, 0, PG_FORWARD_RETRIEVAL),
                       *wanted = forward(&m, &b, 0, PG_FORWARD_RETRIEVAL);
            assert_memory_equal(get(found, "embeddings", 3, b.n_rows, b.n_tokens, DIM, 1),
                                get(wanted, "embeddings", 3, b.n_rows, b.n_tokens, DIM, 1),
                                (size_t)(b.n_rows * b.n_tokens * DIM) * sizeof(float));
            pg_outputs_close(&found);
            pg_outputs_close(&wanted);
            free(b.pixels);
            close_tiny(&m);
            close_tiny(&converted);
        }
}

static void the_config_is_that_of_the_vlm(void **state) {
    tiny m;
    int64_t value;
    (void)state;
    open_colpali(&m, TINY_COLPALI);
    OK(pg_model_get_config_int(m.model, "embedding_dim", &value));
    assert_int_equal(value, DIM);
    OK(pg_model_get_config_int(m.model, "text_config.hidden_size", &value));
    assert_int_equal(value, m.hidden);
    /* eos of config.json where there is no generation_config.json */
    remove_file(m.folder, "generation_config.json");
    pg_model *again = NULL;
    OK(pg_model_open(m.folder, NULL, &again));
    pg_model_close(&again);
    close_tiny(&m);
}

/* Each is one change of a sound folder. */
static void folders_that_lie(void **state) {
    static const struct {
        int kind;
        const char *file, *old, *new_text;
        pg_status status;
        const char *first, *second;
    } lies[] = {
        {TINY_COLPALI, "config.json", "\"embedding_dim\":10", "\"embedding_dim\":11", PG_ERROR_FORMAT,
         "embedding_proj_layer.weight: found shape [10, 32], expected [11, 32]", "config.json"},
        {TINY_COLPALI, "config.json", "\"embedding_dim\":10,", "", PG_ERROR_FORMAT, "found shape [10, 32]",
         "expected [128, 32]"},
        {TINY_COLPALI, "config.json", "\"embedding_dim\":10", "\"embedding_dim\":0", PG_ERROR_FORMAT, "embedding_dim",
         "found 0"},
        {TINY_COLPALI, "config.json", "\"embedding_dim\":10", "\"embedding_dim\":\"10\"", PG_ERROR_FORMAT,
         "embedding_dim", "integer"},
        {TINY_COLPALI, "config.json", "\"embedding_dim\":10", "\"embedding_dim\":1000000000", PG_ERROR_LIMIT,
         "embedding_dim", "1000000000"},
        {TINY_COLPALI, "config.json", "\"vlm_config\":{", "\"vlm_config\":3,\"x\":{", PG_ERROR_FORMAT, "vlm_config",
         "an object or null"},
        {TINY_COLPALI, "config.json", "\"model_type\":\"paligemma\"", "\"model_type\":\"qwen2_vl\"",
         PG_ERROR_UNSUPPORTED, "config.json: vlm_config: model_type", "qwen2_vl"},
        {TINY_COLPALI, "config.json", "\"num_key_value_heads\":2", "\"num_key_value_heads\":3", PG_ERROR_FORMAT,
         "config.json: vlm_config: text_config.num_attention_heads", "multiple"},
        {TINY_COLPALI, "config.json", "\"embedding_dim\":10", "\"embedding_dim\":10,\"quantization\":{\"bits\":4}",
         PG_ERROR_UNSUPPORTED, "MLX quantized to 4 bits", "config.json"},
        {TINY_COLPALI, "config.json", "\"model_type\":\"colpali\",\"embedding_dim\":10,\"vlm_config\":",
         "\"vlm_config\":", PG_ERROR_UNSUPPORTED, "a ColPali checkpoint", "model_type \"colpali\""},
        {TINY_COLPALI, "config.json", "\"model_type\":\"colpali\"", "\"model_type\":\"pi0\"", PG_ERROR_UNSUPPORTED,
         "pi0", "a pi0 policy"},
        {TINY_COLPALI, "model-00003-of-00003.safetensors", "embedding_proj_layer.bias", "embedding_proj_layer.bia2",
         PG_ERROR_FORMAT, "model-00003-of-00003.safetensors", "embedding_proj_layer.bias"},
        {TINY_COLPALI_ENGINE, "model.safetensors", "\"custom_text_proj.bias", "\"custom_text_proj.bia2",
         PG_ERROR_NOT_FOUND, "embedding_proj_layer.bias", "[10]"},
        {TINY_COLPALI_ENGINE, "model.safetensors", "\"shape\":[10,32]", "\"shape\":[32,10]", PG_ERROR_FORMAT,
         "custom_text_proj.weight: found shape [32, 10]", "[any, 32]"},
        {TINY_COLPALI_ENGINE, "model.safetensors", "\"dtype\":\"BF16\",\"shape\":[10,32]",
         "\"dtype\":\"I16\", \"shape\":[10,32]", PG_ERROR_UNSUPPORTED, "custom_text_proj.weight", "I16"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        tiny m;
        pg_model *model_of = NULL;
        open_colpali(&m, lies[i].kind);
        if (strcmp(lies[i].file, "config.json") == 0) {
            replace(m.folder, lies[i].file, lies[i].old, lies[i].new_text);
        } else { /* of the same size; the header is JSON and ends in NUL-free text */
            bytes file = read_file(m.folder, lies[i].file);
            char *at = NULL;
            for (size_t k = 0; k + strlen(lies[i].old) <= file.size && !at; k++)
                if (memcmp(file.data + k, lies[i].old, strlen(lies[i].old)) == 0) at = (char *)file.data + k;
            assert_non_null(at);
            assert_true(strlen(lies[i].new_text) <= strlen(lies[i].old) + 1);
            memcpy(at, lies[i].new_text, strlen(lies[i].old));
            write_file(m.folder, lies[i].file, file.data, file.size);
            bytes_free(&file);
        }
        stale_error();
        pg_status status = pg_model_open(m.folder, NULL, &model_of);
        if (status != lies[i].status || !strstr(pg_last_error(), lies[i].first) ||
            !strstr(pg_last_error(), lies[i].second))
            fail_msg("lie %zu: %s: %s", i, pg_status_name(status), pg_last_error());
        close_tiny(&m);
    }
}

/* tests/golden/colpali: folders, inputs and embeddings of transformers (tests/oracle/colpali_live.py --golden). */
static void as_transformers(void **state) {
    static const char *const cases[] = {"page", "query"};
    (void)state;
    for (int gemma = 1; gemma <= 2; gemma++) {
        char of[600], expected[700], name[64];
        pgi_tensor_files *files = NULL;
        pg_model *model_of = NULL;
        snprintf(of, sizeof of, "%s/colpali/gemma%d", PGI_GOLDEN_FOLDER, gemma);
        snprintf(expected, sizeof expected, "%s/expected", of);
        OK(pg_model_open(of, NULL, &model_of));
        OK(pgi_tensor_files_open(&pgi_memory_default, expected, 0, NULL, &files));
        for (int k = 0; k < 2; k++) {
            pg_tensor tensors[4];
            static const char *const parts[] = {"input_ids", "attention_mask", "token_type_ids", "pixel_values"};
            float *pixels = NULL;
            for (int i = 0; i < 4; i++) {
                snprintf(name, sizeof name, "%s.%s", cases[k], parts[i]);
                const pgi_stored_tensor *t = pgi_tensor_files_find(files, name);
                if (!t) continue;
                tensors[i] = (pg_tensor){.struct_size = sizeof tensors[i],
                                         .dtype = t->dtype,
                                         .n_dims = t->n_dims,
                                         .shape = {1, 1, 1, 1},
                                         .data = t->data};
                memcpy(tensors[i].shape, t->shape, (size_t)t->n_dims * sizeof(int64_t));
                if (i < 3) continue;
                int64_t n = 1;
                for (int d = 0; d < t->n_dims; d++) n *= t->shape[d];
                pixels = stored_values(expected, name, n);
                tensors[i].dtype = PG_DTYPE_F32;
                tensors[i].data = pixels;
            }
            pg_input_arrays arrays;
            pg_inputs *in = NULL;
            pg_outputs *out = NULL;
            OK(pg_input_arrays_init(&arrays, sizeof arrays));
            arrays.input_ids = &tensors[0];
            arrays.attention_mask = &tensors[1];
            arrays.token_type_ids = &tensors[2];
            arrays.pixel_values = pixels ? &tensors[3] : NULL;
            OK(pg_inputs_create(&arrays, &in));
            pg_forward_options options = options_of(PG_FORWARD_RETRIEVAL);
            OK(pg_forward(model_of, in, &options, &out));
            const int64_t b = tensors[0].shape[0], t = tensors[0].shape[1];
            const float *found = get(out, "embeddings", 3, b, t, 12, 1);
            snprintf(name, sizeof name, "%s.embeddings", cases[k]);
            float *wanted = stored_values(expected, name, b * t * 12);
            snprintf(name, sizeof name, "%s.bound", cases[k]);
            float *bound = stored_values(expected, name, 1);
            expect_close(found, wanted, b * t * 12, *bound);
            free(bound);
            pg_outputs_close(&out);
            pg_inputs_close(&in);
            free(wanted);
            free(pixels);
        }
        pgi_tensor_files_close(&files);
        pg_model_close(&model_of);
    }
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(embeddings_by_hand),
        cmocka_unit_test(the_same_bits_for_every_number_of_threads),
        cmocka_unit_test(it_generates_as_its_paligemma),
        cmocka_unit_test(no_projection_no_embeddings),
        cmocka_unit_test(quantized_folders_keep_it),
        cmocka_unit_test(the_config_is_that_of_the_vlm),
        cmocka_unit_test(folders_that_lie),
        cmocka_unit_test(as_transformers),
    };
    return RUN_TESTS(tests, open_models, close_models);
}
