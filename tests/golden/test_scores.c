/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* pg_score() and pg_score_ids() against transformers' log-softmax in f64, of make_scores.py, with 1 and 3 threads. */
#include "run_tests.h"

#include <math.h>
#include <string.h>

#include "json_cases.h"

enum { N_MODELS = 3, MOST_ANSWERS = 16, DEMO = 2 };

/* Of the largest log-probability of a case. Measured with AVX-512: at most 8.3e-7. */
static const double BOUND = 5e-6;

static const char *const names[N_MODELS] = {"gemma1", "gemma2", "demo"};
static pg_model *models[N_MODELS];
static pg_processor *processor; /* of the demo model */

static int open_models(void **state) {
    (void)state;
    for (int i = 0; i < N_MODELS; i++) {
        char folder[512];
        snprintf(folder, sizeof folder, "%s/models/%s", GOLDEN_FOLDER, names[i]);
        OK(pg_model_open(i == DEMO ? DEMO_FOLDER : folder, NULL, &models[i]));
    }
    OK(pg_processor_open(DEMO_FOLDER, NULL, &processor));
    return 0;
}

static int close_models(void **state) {
    (void)state;
    for (int i = 0; i < N_MODELS; i++) pg_model_close(&models[i]);
    pg_processor_close(&processor);
    return 0;
}

/* Of each answer: its ids, the logarithms of its tokens, their sum and mean; and the answers' shares. */
static void expect_scores(const pg_scores *scores, const json_t *one) {
    const json_t *all_ids = json_object_get(one, "ids"), *all = json_object_get(one, "log_probs");
    double sums[MOST_ANSWERS], largest = 1, total = 0, best = -INFINITY;
    const size_t n = json_array_size(all);
    assert_int_equal(pg_scores_get_n_answers(scores), n);
    assert_true(n > 0 && n <= MOST_ANSWERS);
    for (size_t i = 0; i < n; i++) {
        const json_t *answer = json_array_get(all, i);
        sums[i] = 0;
        for (size_t t = 0; t < json_array_size(answer); t++) {
            const double value = json_number_value(json_array_get(answer, t));
            sums[i] += value;
            largest = fmax(largest, fabs(value));
        }
        best = fmax(best, sums[i]);
    }
    for (size_t i = 0; i < n; i++) total += exp(sums[i] - best);
    for (size_t i = 0; i < n; i++) {
        int64_t wanted[MOST_IDS];
        pg_tensor ids = {.struct_size = sizeof ids}, log_probs = ids;
        pg_score_info info = {.struct_size = sizeof info};
        const int64_t n_ids = read_ids(json_array_get(all_ids, i), wanted);
        OK(pg_scores_get_info(scores, (int64_t)i, &info));
        OK(pg_scores_get_tensor(scores, (int64_t)i, "ids", &ids));
        OK(pg_scores_get_tensor(scores, (int64_t)i, "log_probs", &log_probs));
        assert_int_equal(ids.shape[0], n_ids);
        assert_int_equal(info.n_tokens, n_ids);
        assert_memory_equal(ids.data, wanted, (size_t)n_ids * sizeof *wanted);
        for (int64_t t = 0; t < n_ids; t++) {
            const double value = json_number_value(json_array_get(json_array_get(all, i), (size_t)t));
            assert_true(fabs((double)((const float *)log_probs.data)[t] - value) <= BOUND * largest);
        }
        assert_true(fabs(info.log_prob - sums[i]) <= BOUND * largest * (double)n_ids);
        assert_true(fabs(info.mean_log_prob - sums[i] / (double)n_ids) <= BOUND * largest);
        assert_true(fabs(info.probability - exp(sums[i] - best) / total) <= 1e-4);
    }
}

static pg_scores *score_ids(const json_t *one, int model, int32_t n_threads) {
    int64_t prompt[MOST_IDS], ids[MOST_ANSWERS * MOST_IDS], sizes[MOST_ANSWERS], n_ids = 0;
    const json_t *answers = json_object_get(one, "ids");
    const int64_t n = (int64_t)json_array_size(answers);
    pg_score_options options;
    pg_scores *scores = NULL;
    pg_inputs *inputs = inputs_of(prompt, 1, read_ids(json_object_get(one, "prompt"), prompt));
    assert_true(n <= MOST_ANSWERS);
    for (int64_t i = 0; i < n; i++) {
        sizes[i] = read_ids(json_array_get(answers, (size_t)i), ids + n_ids);
        n_ids += sizes[i];
    }
    OK(pg_score_options_init(&options, sizeof options));
    options.n_threads = n_threads;
    OK(pg_score_ids(models[model], inputs, ids, sizes, n, &options, &scores));
    pg_inputs_close(&inputs);
    return scores;
}

static pg_scores *score_texts(const json_t *one, int32_t n_threads) {
    const char *answers[MOST_ANSWERS];
    const json_t *texts = json_object_get(one, "answers");
    const size_t n = json_array_size(texts);
    char path[512];
    pg_score_options options;
    pg_image image;
    pg_scores *scores = NULL;
    pg_inputs *inputs = NULL;
    assert_true(n <= MOST_ANSWERS);
    for (size_t i = 0; i < n; i++) answers[i] = json_string_value(json_array_get(texts, i));
    snprintf(path, sizeof path, "%s/../images/%s", DEMO_FOLDER, json_string_value(json_object_get(one, "image")));
    OK(pg_image_from_path(&image, sizeof image, path));
    OK(pg_processor_encode(processor, &image, json_string_value(json_object_get(one, "prompt")), NULL, &inputs));
    OK(pg_score_options_init(&options, sizeof options));
    options.n_threads = n_threads;
    OK(pg_score(models[DEMO], processor, inputs, answers, (int64_t)n, &options, &scores));
    pg_inputs_close(&inputs);
    return scores;
}

static void scores_are_transformers(void **state) {
    json_t *file = read_cases("scores.json"), *one;
    size_t i;
    (void)state;
    const json_t *cases = json_object_get(file, "cases");
    assert_true(json_array_size(cases) >= 20);
    json_array_foreach(cases, i, one) {
        int model = 0;
        while (strcmp(json_string_value(json_object_get(one, "model")), names[model]) != 0) model++;
        for (int32_t n_threads = 1; n_threads <= 3; n_threads += 2) {
            pg_scores *scores = model == DEMO ? score_texts(one, n_threads) : score_ids(one, model, n_threads);
            expect_scores(scores, one);
            pg_scores_close(&scores);
        }
    }
    json_decref(file);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(scores_are_transformers)};
    return RUN_TESTS(tests, open_models, close_models);
}
