/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Adapters by the public API alone. That they compute what PEFT computes: tests/oracle/adapters_live.py. */
#include "run_tests.h"

#include "forward_fixture.h"
#include "tiny_adapter.h"

static char folders[2][N_TINY_ADAPTERS][512]; /* of each model */

static int open_all(void **state) {
    if (open_models(state) != 0) return -1;
    for (int i = 0; i < 2; i++)
        for (int k = 0; k < N_TINY_ADAPTERS; k++) {
            make_temp_folder(folders[i][k], sizeof folders[i][k]);
            tiny_adapter_write(folders[i][k], k, models[i].info.vocab_size, 11 + (uint64_t)k);
        }
    return 0;
}

static int close_all(void **state) {
    for (int i = 0; i < 2; i++)
        for (int k = 0; k < N_TINY_ADAPTERS; k++) remove_folder(folders[i][k]);
    return close_models(state);
}

/* The model with up to two adapters of its folders. */
static pg_model *adapt(const pg_model *base, int of, int first, float weight, int second, float other_weight) {
    pg_adapter *open[2] = {NULL};
    const float weights[2] = {weight, other_weight};
    pg_model *adapted = NULL;
    OK(pg_adapter_open(base, folders[of][first], NULL, &open[0]));
    if (second >= 0) OK(pg_adapter_open(base, folders[of][second], NULL, &open[1]));
    OK(pg_model_adapt(base, (const pg_adapter *const *)open, weights, second >= 0 ? 2 : 1, &adapted));
    for (int i = 0; i < 2; i++) pg_adapter_close(&open[i]);
    return adapted;
}

/* Padding left out: each row is run as it is alone. */
static pg_outputs *run(const pg_model *of, const tiny *m, const batch *b, int n_threads) {
    pg_forward_options options = options_of(PG_FORWARD_LAST_HIDDEN | PG_FORWARD_SKIP_PADDING);
    pg_inputs *in = NULL;
    pg_outputs *out = NULL;
    options.n_threads = n_threads;
    OK(create(b, m, 0, NULL, &in));
    OK(pg_forward(of, in, &options, &out));
    pg_inputs_close(&in);
    return out;
}

static size_t logit_bytes(const batch *b, const tiny *m) {
    return (size_t)(b->n_rows * b->n_tokens * m->info.vocab_size) * sizeof(float);
}

/* ---------------------------------------------------------------------------------------------------- what it adds */

/* Of a sum of adapters, the weights count: halves of one are the whole (but of DoRA, whose gains multiply), no weight
 * is the base to the last bit. */
static void weights_add_up(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++)
        for (int kind = ADAPTER_LORA; kind <= ADAPTER_DORA; kind++) {
            const tiny *m = &models[i];
            batch b;
            make_batch(&b, m, specs, 3, LEFT, 2);
            const int64_t n = b.n_rows * b.n_tokens * m->info.vocab_size;
            pg_model *whole = adapt(m->model, i, kind, 1, -1, 0), *halves = adapt(m->model, i, kind, 0.5f, kind, 0.5f);
            pg_model *nothing = adapt(m->model, i, kind, 0, -1, 0);
            pg_outputs *base = run(m->model, m, &b, 1), *one = run(whole, m, &b, 1), *two = run(halves, m, &b, 1);
            pg_outputs *none = run(nothing, m, &b, 1);
            if (kind == ADAPTER_LORA) expect_close(logits_of(two, &b, m), logits_of(one, &b, m), n, 1e-5);
            assert_memory_equal(logits_of(none, &b, m), logits_of(base, &b, m), logit_bytes(&b, m));
            double difference = 0;
            for (int64_t k = 0; k < n; k++)
                difference += fabs((double)logits_of(one, &b, m)[k] - (double)logits_of(base, &b, m)[k]);
            assert_true(difference / (double)n > 1e-3);
            pg_outputs_close(&base), pg_outputs_close(&one), pg_outputs_close(&two), pg_outputs_close(&none);
            pg_model_close(&whole), pg_model_close(&halves), pg_model_close(&nothing);
            free(b.pixels);
        }
}

/* The last hidden states of the rows of a batch, and of each alone. */
static void same_alone(const pg_model *of, const tiny *m, const batch *b, const row_spec *rows) {
    pg_outputs *all = run(of, m, b, 1), *threads = run(of, m, b, 3);
    assert_memory_equal(logits_of(threads, b, m), logits_of(all, b, m), logit_bytes(b, m));
    pg_outputs_close(&threads);
    for (int r = 0; r < b->n_rows; r++) {
        batch alone;
        make_batch(&alone, m, &rows[r], 1, LEFT, 1);
        pg_outputs *single = run(of, m, &alone, 1);
        assert_memory_equal(
            get(all, "last_hidden_state", 3, b->n_rows, b->n_tokens, m->hidden, 1) +
                (r * b->n_tokens + b->first[r]) * m->hidden,
            get(single, "last_hidden_state", 3, 1, alone.n_tokens, m->hidden, 1) + alone.first[0] * m->hidden,
            (size_t)(b->length[r] * m->hidden) * sizeof(float));
        pg_outputs_close(&single);
        free(alone.pixels);
    }
    pg_outputs_close(&all);
}

/* On stored, int8 and int4 weights a row has the same bits beside others and on any number of threads. */
static void rows_keep_their_bits(void **state) {
    static const row_spec rows[] = {{0, 5, 0, 1}, {0, 18, 2, 2}, {1, 16, 5, 3}, {0, 3, 0, 4}, {0, 20, 1, 5}};
    (void)state;
    for (int32_t weights = PG_WEIGHTS_STORED; weights <= PG_WEIGHTS_INT4; weights++)
        for (int i = 0; i < 2; i++) {
            const tiny *m = &models[i];
            pg_model *base = open_format(m, weights);
            pg_model *adapted = adapt(base, i, ADAPTER_LORA, 0.7f, ADAPTER_DORA, 1.5f);
            pg_model_close(&base);
            batch b;
            make_batch(&b, m, rows, 5, LEFT, 3);
            same_alone(adapted, m, &b, rows);
            pg_model_close(&adapted);
            free(b.pixels);
        }
}

/* Steps of many rows together give each the answer that it has alone. */
static void answers_keep_their_bits(void **state) {
    (void)state;
    for (int32_t weights = PG_WEIGHTS_STORED; weights <= PG_WEIGHTS_INT8; weights++) {
        tiny m = models[0];
        pg_model *base = open_format(&m, weights);
        batch b;
        m.model = adapt(base, 0, ADAPTER_LORA, 1, -1, 0);
        make_batch(&b, &m, specs, 7, LEFT, 0);
        pg_result *all = generate(&m, &b, WITHOUT_LABELS, 2, NULL);
        for (int r = 0; r < 7; r++) {
            batch alone;
            make_batch(&alone, &m, &specs[r], 1, LEFT, 1); /* padding: so that types say what is the prefix */
            pg_result *single = generate(&m, &alone, WITHOUT_LABELS, 1, NULL);
            same_row(all, r, single, 0);
            pg_result_close(&single);
            free(alone.pixels);
        }
        pg_result_close(&all);
        pg_model_close(&m.model);
        pg_model_close(&base);
        free(b.pixels);
    }
}

/* Features are shared by those whose encoder and projector are the same. */
static void features_of_another_encoder_are_refused(void **state) {
    const tiny *m = &models[1];
    batch b;
    pg_inputs *in = NULL;
    pg_features *features = NULL;
    pg_outputs *out = NULL;
    (void)state;
    make_batch(&b, m, specs, 1, LEFT, 0);
    OK(create(&b, m, 0, NULL, &in));
    pg_model *text = adapt(m->model, 1, ADAPTER_LORA, 1, -1, 0), *images = adapt(m->model, 1, ADAPTER_WHOLE, 1, -1, 0);
    pg_forward_options options = options_of(0);
    OK(pg_features_create(m->model, in, NULL, &features));
    options.features = features;
    OK(pg_forward(text, in, &options, &out));
    pg_outputs_close(&out);
    ARGUMENT(pg_forward(images, in, &options, &out));
    assert_non_null(strstr(pg_last_error(), "other adapters"));
    pg_features_close(&features);
    OK(pg_features_create(images, in, NULL, &features));
    options.features = features;
    OK(pg_forward(images, in, &options, &out));
    pg_outputs_close(&out);
    ARGUMENT(pg_forward(m->model, in, &options, &out));
    size_t size = 0; /* and so are those that were saved */
    OK(pg_features_to_bytes(features, NULL, 0, &size));
    char *saved = malloc(size);
    OK(pg_features_to_bytes(features, saved, size, NULL));
    pg_features_close(&features);
    ARGUMENT(pg_features_from_bytes(m->model, saved, size, &features));
    OK(pg_features_from_bytes(images, saved, size, &features));
    pg_features_close(&features);
    free(saved);
    pg_calibration *calibration = NULL;
    ERROR(pg_calibration_create(text, &calibration), PG_ERROR_UNSUPPORTED);
    pg_inputs_close(&in);
    pg_model_close(&text);
    pg_model_close(&images);
    free(b.pixels);
}

static void it_is_described_and_counted(void **state) {
    const tiny *m = &models[0];
    pg_adapter *adapter = NULL;
    pg_adapter_info info = {.struct_size = sizeof info};
    pg_memory before = {.struct_size = sizeof before, .n_threads = 1}, after = before;
    char base[16];
    size_t needed;
    (void)state;
    OK(pg_adapter_open(m->model, folders[0][ADAPTER_LORA], NULL, &adapter));
    OK(pg_adapter_get_info(adapter, &info));
    assert_int_equal(info.rank, 3);
    assert_int_equal(info.n_modules, 5);
    assert_int_equal(info.adapts_images, 0);
    assert_int_equal(info.n_parameters, 3 * (4 * 32 + 48 + 32 * 3 + 48 * 2));
    assert_string_equal(info.base, "a/b");
    OK(pg_adapter_find_base(folders[0][ADAPTER_LORA], base, sizeof base, &needed));
    assert_string_equal(base, "a/b");
    assert_int_equal(needed, 4);
    ERROR(pg_adapter_find_base(folders[0][ADAPTER_DORA], base, sizeof base, NULL), PG_ERROR_NOT_FOUND);
    pg_model *adapted = adapt(m->model, 0, ADAPTER_LORA, 1, -1, 0);
    OK(pg_model_get_memory(m->model, &before));
    OK(pg_model_get_memory(adapted, &after));
    assert_true(after.weights_copied >= before.weights_copied + info.n_bytes);
    assert_true(after.weights_copied < before.weights_copied + 2 * info.n_bytes + 65536);
    pg_adapter_close(&adapter);
    pg_adapter_close(&adapter);
    OK(pg_adapter_open(m->model, folders[0][ADAPTER_WHOLE], NULL, &adapter));
    OK(pg_adapter_get_info(adapter, &info));
    assert_int_equal(info.adapts_images, 1);
    assert_string_equal(info.base, "a/b");
    pg_adapter_close(&adapter);
    pg_model_close(&adapted);
}

/* ---- merging ---- */

static pg_status merge(const tiny *m, const char *const *adapters, int32_t n, int32_t weights, const char *out) {
    pg_convert_options options;
    OK(pg_convert_options_init(&options, sizeof options));
    options.weights = weights;
    options.adapters = adapters;
    options.n_adapters = n;
    options.max_file_bytes = 20000;
    return pg_model_convert(m->folder, out, &options);
}

/* A merged folder gives what the adapters beside the base give: stored to the rounding of its dtype, int8 to that of
 * int8. */
static void merged_folders_are_adapted_models(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++)
        for (int kind = 0; kind < N_TINY_ADAPTERS; kind++)
            for (int32_t weights = PG_WEIGHTS_STORED; weights <= PG_WEIGHTS_INT8; weights++) {
                const tiny *m = &models[i];
                const char *adapters[] = {folders[i][kind]};
                char out[600];
                batch b;
                pg_model *merged = NULL;
                snprintf(out, sizeof out, "%.500s.merged", m->folder);
                OK(merge(m, adapters, 1, weights, out));
                OK(pg_model_open(out, NULL, &merged));
                make_batch(&b, m, specs, 3, LEFT, 0);
                pg_model *base = open_format(m, weights), *adapted = adapt(base, i, kind, 1, -1, 0);
                pg_outputs *wanted = run(adapted, m, &b, 1), *found = run(merged, m, &b, 1);
                const double bound = weights != PG_WEIGHTS_STORED ? 0.1 : i == 0 ? 0.02 : 1e-5; /* bf16; f32 */
                expect_close(logits_of(found, &b, m), logits_of(wanted, &b, m),
                             b.n_rows * b.n_tokens * m->info.vocab_size, bound);
                pg_outputs_close(&wanted), pg_outputs_close(&found);
                pg_model_close(&base), pg_model_close(&adapted), pg_model_close(&merged);
                free(b.pixels);
                remove_folder(out);
            }
}

/* A head that is tied to the embedding gets a tensor of its own where an adapter changes the embedding alone. */
static void a_tied_head_stays(void **state) {
    tiny_options options = tiny_saved_today();
    tiny m = {.model = NULL};
    char out[600];
    batch b;
    pg_adapter *adapter = NULL;
    pg_model *adapted = NULL, *merged = NULL;
    (void)state;
    open_tiny(&m, &options, NULL);
    const char *adapters[] = {folders[1][ADAPTER_DORA]};
    OK(pg_adapter_open(m.model, adapters[0], NULL, &adapter));
    OK(pg_model_adapt(m.model, (const pg_adapter *const *)&adapter, NULL, 1, &adapted));
    snprintf(out, sizeof out, "%.500s.merged", m.folder);
    OK(merge(&m, adapters, 1, PG_WEIGHTS_STORED, out));
    OK(pg_model_open(out, NULL, &merged));
    make_batch(&b, &m, specs, 2, LEFT, 0);
    pg_outputs *wanted = run(adapted, &m, &b, 1), *found = run(merged, &m, &b, 1);
    expect_close(logits_of(found, &b, &m), logits_of(wanted, &b, &m), b.n_rows * b.n_tokens * m.info.vocab_size, 1e-5);
    pg_outputs_close(&wanted), pg_outputs_close(&found);
    pg_adapter_close(&adapter);
    pg_model_close(&adapted);
    pg_model_close(&merged);
    remove_folder(out);
    free(b.pixels);
    close_tiny(&m);
}

static void bad_merges_are_refused(void **state) {
    const tiny *m = &models[1];
    const char *none[] = {NULL}, *missing[] = {"/nowhere"}, *sound[] = {folders[1][ADAPTER_LORA]};
    char out[600];
    (void)state;
    snprintf(out, sizeof out, "%.500s.merged", m->folder);
    ARGUMENT(merge(m, none, 1, PG_WEIGHTS_INT8, out));
    ARGUMENT(merge(m, NULL, 1, PG_WEIGHTS_INT8, out));
    ARGUMENT(merge(m, sound, -1, PG_WEIGHTS_INT8, out));
    ARGUMENT(merge(m, sound, 0, PG_WEIGHTS_STORED, out));
    ERROR(merge(m, missing, 1, PG_WEIGHTS_STORED, out), PG_ERROR_NOT_FOUND);
    assert_false(has_file(out, "config.json"));
}

/* ---------------------------------------------------------------------------------------------------------- refusals
 */

#define Q "base_model.model.model.language_model.layers.0.self_attn.q_proj"
#define LORA_Q \
    {Q ".lora_A.weight", 2, {3, 32}, 0, 1}, { Q ".lora_B.weight", 2, {32, 3}, 0, 1 }

typedef struct bad_adapter {
    const char *config;
    adapter_tensor tensors[4];
    int n;
    pg_status status;
    const char *first, *second; /* parts of the message */
} bad_adapter;

#define PLAIN "{\"peft_type\":\"LORA\",\"r\":3,\"lora_alpha\":6}"
#define WITH(field) "{\"peft_type\":\"LORA\",\"r\":3,\"lora_alpha\":6," field "}"

static const bad_adapter bad_adapters[] = {
    {"{}", {LORA_Q}, 2, PG_ERROR_FORMAT, "peft_type", "\"LORA\""},
    {"[]", {LORA_Q}, 2, PG_ERROR_FORMAT, "adapter_config.json", ""},
    {"{\"peft_type\":\"IA3\"}", {LORA_Q}, 2, PG_ERROR_UNSUPPORTED, "IA3", "LORA"},
    {WITH("\"use_qalora\":true"), {LORA_Q}, 2, PG_ERROR_UNSUPPORTED, "use_qalora", "found true"},
    {WITH("\"layer_replication\":[[0,1]]"), {LORA_Q}, 2, PG_ERROR_UNSUPPORTED, "layer_replication", "array"},
    {WITH("\"trainable_token_indices\":[1]"), {LORA_Q}, 2, PG_ERROR_UNSUPPORTED, "trainable_token_indices", "array"},
    {WITH("\"target_parameters\":[\"x\"]"), {LORA_Q}, 2, PG_ERROR_UNSUPPORTED, "target_parameters", "array"},
    {WITH("\"init_lora_weights\":\"pissa_niter_4\""), {LORA_Q}, 2, PG_ERROR_UNSUPPORTED, "pissa", "base as it is"},
    {WITH("\"alpha_pattern\":{\"(\":1}"), {LORA_Q}, 2, PG_ERROR_FORMAT, "alpha_pattern", ""},
    {WITH("\"alpha_pattern\":{\"(?=a)\":1}"), {LORA_Q}, 2, PG_ERROR_UNSUPPORTED, "alpha_pattern", ""},
    {WITH("\"alpha_pattern\":{\"(a{1,1000}b){1,20}\":1}"), {LORA_Q}, 2, PG_ERROR_LIMIT, "alpha_pattern", "16384"},
    {WITH("\"rank_pattern\":{\"q_proj\":\"a\"}"), {LORA_Q}, 2, PG_ERROR_FORMAT, "rank_pattern", "number"},
    {WITH("\"rank_pattern\":{\"q_proj\":0}"), {LORA_Q}, 2, PG_ERROR_LIMIT, "rank_pattern", "q_proj"},
    {WITH("\"rank_pattern\":{\"q_proj\":4}"), {LORA_Q}, 2, PG_ERROR_FORMAT, "[3, 32]", "[4, 32]"},
    {"{\"peft_type\":\"LORA\",\"r\":0}", {LORA_Q}, 2, PG_ERROR_FORMAT, "r:", "found 0"},
    {"{\"peft_type\":\"LORA\",\"r\":100000}", {LORA_Q}, 2, PG_ERROR_LIMIT, "r:", "4096"},
    {WITH("\"use_dora\":true"), {LORA_Q}, 2, PG_ERROR_NOT_FOUND, "lora_magnitude_vector", "no such tensor"},
    {PLAIN, {LORA_Q}, 1, PG_ERROR_NOT_FOUND, "lora_B.weight", "no such tensor"},
    {PLAIN, {LORA_Q, {"base_model.model.x.y.weight", 1, {1}, 0, 1}}, 3, PG_ERROR_NOT_FOUND, "x.y", "base model"},
    {PLAIN, {LORA_Q, {Q ".oft_r", 1, {1}, 0, 1}}, 3, PG_ERROR_UNSUPPORTED, "oft_r", "none of a LoRA"},
    {PLAIN, {LORA_Q, {Q ".bias", 1, {32}, 0, 1}}, 3, PG_ERROR_UNSUPPORTED, "q_proj.bias", ""},
    {PLAIN, {LORA_Q, {Q ".lora_embedding_A", 2, {3, 32}, 0, 1}}, 3, PG_ERROR_UNSUPPORTED, "lora_embedding_A", ""},
    {PLAIN,
     {{Q ".lora_A.weight", 2, {3, 31}, 0, 1}, {Q ".lora_B.weight", 2, {32, 3}, 0, 1}},
     2,
     PG_ERROR_FORMAT,
     "[3, 31]",
     "[3, 32]"},
    {PLAIN,
     {{Q ".lora_A.weight", 1, {96}, 0, 1}, {Q ".lora_B.weight", 2, {32, 3}, 0, 1}},
     2,
     PG_ERROR_FORMAT,
     "[96]",
     "[3, 32]"},
    {PLAIN,
     {LORA_Q, {"base_model.model.language_model.model.layers.0.self_attn.q_proj.weight", 2, {32, 32}, 0, 1}},
     3,
     PG_ERROR_FORMAT,
     "under two names",
     "q_proj"},
    {PLAIN,
     {{Q ".lora_A.weight", 2, {3, 32}, NAN, 1}, {Q ".lora_B.weight", 2, {32, 3}, 0, 1}},
     2,
     PG_ERROR_FORMAT,
     "lora_A",
     "nan"},
    {PLAIN,
     {{Q ".lora_A.weight", 2, {3, 32}, 0, 1}, {Q ".lora_B.weight", 2, {32, 3}, INFINITY, 1}},
     2,
     PG_ERROR_FORMAT,
     "lora_B",
     "inf"},
    {PLAIN, {LORA_Q}, 0, PG_ERROR_FORMAT, "no tensors", ""},
    {PLAIN, {{Q ".modules_to_save.bias", 1, {32}, 0, 1}}, 1, PG_ERROR_FORMAT, "no tensors", ""},
};

static void bad_adapters_are_refused(void **state) {
    char path[512];
    pg_adapter *adapter = NULL;
    (void)state;
    make_temp_folder(path, sizeof path);
    for (size_t i = 0; i < sizeof bad_adapters / sizeof *bad_adapters; i++) {
        const bad_adapter *bad = &bad_adapters[i];
        adapter_write(path, bad->config, bad->tensors, bad->n, PG_DTYPE_F32, 3);
        ERROR(pg_adapter_open(models[1].model, path, NULL, &adapter), bad->status);
        assert_null(adapter);
        if (!strstr(pg_last_error(), bad->first) || !strstr(pg_last_error(), bad->second))
            fail_msg("%zu: found \"%s\", expected %s and %s", i, pg_last_error(), bad->first, bad->second);
    }
    remove_file(path, "adapter_model.safetensors");
    ERROR(pg_adapter_open(models[1].model, path, NULL, &adapter), PG_ERROR_NOT_FOUND);
    write_text(path, "adapter_model.bin", "x");
    ERROR(pg_adapter_open(models[1].model, path, NULL, &adapter), PG_ERROR_UNSUPPORTED);
    remove_file(path, "adapter_config.json");
    ERROR(pg_adapter_open(models[1].model, path, NULL, &adapter), PG_ERROR_NOT_FOUND);
    remove_folder(path);
}

/* An adapter of another size says which tensor; of another handle, that it is. */
/* PEFT writes some biases twice, and those of the base, and leaves them out when it loads. */
static void copies_are_left_out(void **state) {
    static const adapter_tensor tensors[] = {{Q ".original_module.bias", 1, {7}, 0, 1},
                                             LORA_Q,
                                             {Q ".modules_to_save.bias", 1, {7}, 0, 1},
                                             {"base_model.model.x.modules_to_save.bias", 1, {7}, 0, 1}};
    pg_adapter_info info = {.struct_size = sizeof info};
    pg_adapter *adapter = NULL;
    char path[512];
    (void)state;
    make_temp_folder(path, sizeof path);
    adapter_write(path, PLAIN, tensors, sizeof tensors / sizeof *tensors, PG_DTYPE_F32, 3);
    OK(pg_adapter_open(models[1].model, path, NULL, &adapter));
    OK(pg_adapter_get_info(adapter, &info));
    assert_int_equal(info.n_modules, 1);
    pg_adapter_close(&adapter);
    remove_folder(path);
}

static void of_another_base(void **state) {
    pg_adapter *adapter = NULL, *whole[2] = {NULL};
    pg_model *adapted = NULL, *other = open_format(&models[0], PG_WEIGHTS_STORED);
    const float weights[2] = {1, 1}, half = 0.5f, bad = NAN;
    (void)state;
    OK(pg_adapter_open(models[0].model, folders[0][ADAPTER_LORA], NULL, &adapter));
    ARGUMENT(pg_model_adapt(other, (const pg_adapter *const *)&adapter, NULL, 1, &adapted));
    ARGUMENT(pg_model_adapt(models[0].model, (const pg_adapter *const *)&adapter, NULL, 0, &adapted));
    ARGUMENT(pg_model_adapt(models[0].model, (const pg_adapter *const *)&adapter, &bad, 1, &adapted));
    ARGUMENT(pg_model_adapt(models[0].model, (const pg_adapter *const *)whole, NULL, 1, &adapted));
    OK(pg_model_adapt(models[0].model, (const pg_adapter *const *)&adapter, NULL, 1, &adapted));
    pg_model *again = NULL; /* of the adapted one its base is meant */
    OK(pg_model_adapt(adapted, (const pg_adapter *const *)&adapter, NULL, 1, &again));
    pg_model_close(&adapted);
    pg_model_close(&again);
    for (int i = 0; i < 2; i++) OK(pg_adapter_open(models[0].model, folders[0][ADAPTER_WHOLE], NULL, &whole[i]));
    ERROR(pg_model_adapt(models[0].model, (const pg_adapter *const *)whole, weights, 2, &adapted),
          PG_ERROR_UNSUPPORTED);
    ERROR(pg_model_adapt(models[0].model, (const pg_adapter *const *)whole, &half, 1, &adapted), PG_ERROR_UNSUPPORTED);
    assert_null(adapted);
    for (int i = 0; i < 2; i++) pg_adapter_close(&whole[i]);
    pg_adapter_close(&adapter);
    pg_model_close(&other);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(weights_add_up),
        cmocka_unit_test(rows_keep_their_bits),
        cmocka_unit_test(answers_keep_their_bits),
        cmocka_unit_test(features_of_another_encoder_are_refused),
        cmocka_unit_test(it_is_described_and_counted),
        cmocka_unit_test(merged_folders_are_adapted_models),
        cmocka_unit_test(a_tied_head_stays),
        cmocka_unit_test(bad_merges_are_refused),
        cmocka_unit_test(bad_adapters_are_refused),
        cmocka_unit_test(copies_are_left_out),
        cmocka_unit_test(of_another_base),
    };
    return RUN_TESTS(tests, open_all, close_all);
}
