/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Replays the golden cases (cases/NAME: case.json and model.safetensors, written
 * by make_golden.py with transformers): every stage within its bound, ids and
 * text exact, on every instruction set and with 1, 2 and 3 threads, which must
 * agree to the last bit.
 */
#include "run_tests.h"

#include <dirent.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "checkpoint/safetensors.h"
#include "generate/session.h"
#include "golden.h"
#include "stage_name.h"

enum { MAX_CASES = 64, MAX_TOKENS = 256 };

typedef struct golden {
    json_t *json;
    pgi_tensor_files *files;
    char model[1024], image[1024];
} golden;

typedef struct watcher {
    const golden *g;
    uint64_t cpu_mask;
    int n_threads;
    int n_stages, n_wrong;
    uint64_t hash; /* of everything seen */
} watcher;

static void open_case(const char *name, golden *g) {
    char path[1024];
    json_error_t error;
    snprintf(path, sizeof path, "%s/cases/%s/case.json", GOLDEN_FOLDER, name);
    g->json = json_load_file(path, 0, &error);
    if (!g->json) fail_msg("%s: %s", path, error.text);
    snprintf(path, sizeof path, "%s/cases/%s", GOLDEN_FOLDER, name);
    CHECK(pgi_tensor_files_open(&pgi_memory_default, path, 0, NULL, &g->files));
    const char *model = json_string_value(json_object_get(g->json, "model"));
    if (strcmp(model, "demo") == 0)
        snprintf(g->model, sizeof g->model, "%s", DEMO_FOLDER);
    else
        snprintf(g->model, sizeof g->model, "%s/models/%s", GOLDEN_FOLDER, model);
    snprintf(g->image, sizeof g->image, "%s/photos/%s", GOLDEN_FOLDER,
             json_string_value(json_object_get(g->json, "image")));
}

static void close_case(golden *g) {
    pgi_tensor_files_close(&g->files);
    json_decref(g->json);
}

static double number(const json_t *object, const char *key) { return json_number_value(json_object_get(object, key)); }

/* Our rows are the last `rows` of the stage; the golden ones are every stride-th, the last among them. */
static void compare_rows(watcher *w, const char *name, const json_t *stage, const pgi_stored_tensor *golden_rows,
                         const float *data, int64_t rows, int64_t columns) {
    int64_t all = (int64_t)number(stage, "rows"), stride = (int64_t)number(stage, "stride");
    if (columns != golden_rows->shape[1] || rows < 1 || rows > all) {
        print_error("%s: found [%lld, %lld], expected [%lld, %lld]\n", name, (long long)rows, (long long)columns,
                    (long long)all, (long long)golden_rows->shape[1]);
        w->n_wrong++;
        return;
    }
    double difference = 0, norm = 0, largest = 0;
    const uint8_t *expected = golden_rows->data;
    for (int64_t i = 0; i < golden_rows->shape[0]; i++) {
        int64_t row = (all - 1) % stride + i * stride - (all - rows);
        for (int64_t j = 0; row >= 0 && j < columns; j++) {
            float golden_value;
            memcpy(&golden_value, expected + (i * columns + j) * (int64_t)sizeof golden_value, sizeof golden_value);
            double d = fabs((double)data[row * columns + j] - golden_value);
            difference += d * d;
            norm += (double)golden_value * golden_value;
            if (!(d <= largest)) largest = d; /* a NaN stays */
        }
    }
    double relative = sqrt(difference) / (norm > 0 ? sqrt(norm) : 1);
    if (!(largest <= number(stage, "largest")) || !(relative <= number(stage, "relative"))) {
        print_error("%s, cpu 0x%llx, %d threads: max abs %.2e (bound %.2e), relative L2 %.2e (bound %.2e)\n", name,
                    (unsigned long long)w->cpu_mask, w->n_threads, largest, number(stage, "largest"), relative,
                    number(stage, "relative"));
        w->n_wrong++;
    }
}

static void on_stage(void *user, const char *name, int layer, const float *data, int64_t rows, int64_t columns) {
    watcher *w = user;
    char full[64];
    stage_name(full, sizeof full, name, layer);
    const json_t *stage = json_object_get(json_object_get(w->g->json, "stages"), full);
    const pgi_stored_tensor *rows_stored = pgi_tensor_files_find(w->g->files, full);
    if (!stage || !rows_stored) {
        print_error("%s: a stage that the golden case does not have\n", full);
        w->n_wrong++;
        return;
    }
    w->hash = golden_hash(w->hash, data, (size_t)(rows * columns) * sizeof *data);
    compare_rows(w, full, stage, rows_stored, data, rows, columns);
    w->n_stages++;
}

static void check_ids(const golden *g, const char *key, const int64_t *ids, int64_t n) {
    const json_t *expected = json_object_get(g->json, key);
    assert_int_equal(n, json_array_size(expected));
    for (int64_t i = 0; i < n; i++) assert_int_equal(ids[i], json_integer_value(json_array_get(expected, (size_t)i)));
}

static void run_session(const golden *g, pg_model *model, const pg_inputs *inputs, watcher *w) {
    pg_session_options options;
    pg_session *session = NULL;
    pgi_trace trace = {.stage = on_stage, .user = w};
    int64_t ids[MAX_TOKENS], n = 0;
    pg_status status;
    CHECK(pg_session_options_init(&options, sizeof options));
    options.n_threads = w->n_threads;
    options.max_new_tokens = (int32_t)number(g->json, "max_new_tokens");
    assert_true(options.max_new_tokens < MAX_TOKENS);
    CHECK(pg_session_create(model, &options, &session));
    pgi_session_set_trace(session, &trace);
    CHECK(pg_session_prefill(session, inputs, NULL));
    do {
        CHECK(status = pg_session_step(session, &ids[n]));
        if (status != PG_EVENT_LENGTH) n++;
    } while (status == PG_OK);
    pg_session_close(&session);
    assert_int_equal(w->n_wrong, 0);
    assert_int_equal(w->n_stages, json_object_size(json_object_get(g->json, "stages")));
    check_ids(g, "ids", ids, n);
}

static void run_generate(const golden *g, pg_model *model, pg_processor *processor, const pg_inputs *inputs) {
    pg_generate_options options;
    pg_result *result = NULL;
    pg_result_info info = {.struct_size = sizeof info};
    pg_tensor ids = {.struct_size = sizeof ids};
    CHECK(pg_generate_options_init(&options, sizeof options));
    options.max_new_tokens = (int32_t)number(g->json, "max_new_tokens");
    CHECK(pg_generate(model, processor, inputs, &options, &result));
    assert_string_equal(pg_result_get_text(result, 0), json_string_value(json_object_get(g->json, "text")));
    CHECK(pg_result_get_ids(result, 0, &ids));
    check_ids(g, "ids", ids.data, ids.shape[0]);
    CHECK(pg_result_get_info(result, 0, &info));
    assert_string_equal(info.stop == PG_STOP_EOS ? "eos" : "length",
                        json_string_value(json_object_get(g->json, "stop")));
    pg_result_close(&result);
}

static void run_with_cpu(const golden *g, uint64_t cpu_mask) {
    pg_model_options options;
    pg_model *model = NULL;
    pg_processor *processor = NULL;
    pg_inputs *inputs = NULL;
    pg_image image;
    pg_tensor ids = {.struct_size = sizeof ids};
    uint64_t hash = 0;
    CHECK(pg_model_options_init(&options, sizeof options));
    options.cpu_mask = cpu_mask;
    CHECK(pg_model_open(g->model, &options, &model));
    CHECK(pg_processor_open(g->model, NULL, &processor));
    CHECK(pg_image_from_path(&image, sizeof image, g->image));
    CHECK(pg_processor_encode(processor, &image, json_string_value(json_object_get(g->json, "prompt")), NULL, &inputs));
    CHECK(pg_inputs_get_tensor(inputs, "input_ids", &ids));
    check_ids(g, "prompt_ids", ids.data, ids.shape[1]);
    for (int n_threads = 1; n_threads <= 3; n_threads++) {
        watcher w = {.g = g, .cpu_mask = cpu_mask, .n_threads = n_threads, .hash = GOLDEN_HASH_START};
        run_session(g, model, inputs, &w);
        if (n_threads == 1) hash = w.hash;
        assert_true(w.hash == hash); /* every stage to the last bit */
    }
    run_generate(g, model, processor, inputs);
    pg_inputs_close(&inputs);
    pg_processor_close(&processor);
    pg_model_close(&model);
}

static void test_case(void **state) {
    const uint64_t masks[] = {PG_CPU_BASELINE, PG_CPU_BASELINE | PG_CPU_AVX2,
                              PG_CPU_BASELINE | PG_CPU_AVX2 | PG_CPU_AVX512};
    golden g = {0};
    uint64_t features = pgi_cpu_features(), last = 0;
    open_case(*state, &g);
    for (size_t i = 0; i < sizeof masks / sizeof *masks; i++) {
        if ((masks[i] & features) == last) continue; /* this CPU has no more */
        last = masks[i] & features;
        run_with_cpu(&g, last);
    }
    close_case(&g);
}

static int has_kind(char names[][256], size_t n, const char *prefix) {
    for (size_t i = 0; i < n; i++)
        if (strncmp(names[i], prefix, strlen(prefix)) == 0) return 1;
    fprintf(stderr, "no golden case %s*\n", prefix);
    return 0;
}

static int by_name(const void *a, const void *b) { return strcmp(a, b); }

int main(int argc, char **argv) {
    static char names[MAX_CASES][256];
    struct CMUnitTest tests[MAX_CASES];
    size_t n = 0;
    DIR *folder = opendir(GOLDEN_FOLDER "/cases");
    if (!folder) {
        fprintf(stderr, "%s: no such folder\n", GOLDEN_FOLDER "/cases");
        return 1;
    }
    for (struct dirent *entry; n < MAX_CASES && (entry = readdir(folder));)
        if (entry->d_name[0] != '.') snprintf(names[n++], sizeof names[0], "%s", entry->d_name);
    closedir(folder);
    qsort(names, n, sizeof names[0], by_name);
    for (size_t i = 0; i < n; i++)
        tests[i] = (struct CMUnitTest){.name = names[i], .test_func = test_case, .initial_state = names[i]};
    struct stat demo; /* a checkout without the demo model has no cases of it either */
    if (!has_kind(names, n, "gemma1-") || !has_kind(names, n, "gemma2-")) return 1;
    if (stat(DEMO_FOLDER, &demo) == 0 && !has_kind(names, n, "demo-")) return 1;
    return run_matching_tests(argc, argv, tests, n, NULL, NULL);
}
