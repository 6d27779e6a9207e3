/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Beam search against transformers': the ids, the beams and the scores of make_beams.py, with 1 and 3 threads; and what
 * a search does with memory, callbacks and settings. */
#include "run_tests.h"

#include <jansson.h>
#include <math.h>
#include <paligemma/paligemma.h>
#include <string.h>

#include "json_cases.h"
#include "support.h"

enum { N_MODELS = 2 };

static const char *const names[N_MODELS] = {"gemma1", "gemma2"};
static pg_model *models[N_MODELS];
static counter memory;

static int open_models(void **state) {
    pg_model_options options;
    (void)state;
    counter_init(&memory);
    OK(pg_model_options_init(&options, sizeof options));
    options.allocator = &memory.hooks;
    for (int i = 0; i < N_MODELS; i++) {
        char folder[512];
        snprintf(folder, sizeof folder, "%s/models/%s", GOLDEN_FOLDER, names[i]);
        OK(pg_model_open(folder, &options, &models[i]));
    }
    return 0;
}

static int close_models(void **state) {
    (void)state;
    for (int i = 0; i < N_MODELS; i++) pg_model_close(&models[i]);
    return counter_clean(&memory) ? 0 : 1;
}

static int32_t early_stopping_of(const json_t *value) {
    if (json_is_string(value)) return PG_EARLY_STOPPING_NEVER;
    return json_is_true(value) ? PG_EARLY_STOPPING_ON : PG_EARLY_STOPPING_OFF;
}

/* Options of a case; they point at each other. */
typedef struct options_of_case {
    int64_t eos[MOST_IDS];
    pg_sampling_options sampling;
    pg_beam_options beams;
    pg_generate_options generate;
} options_of_case;

static void read_options(const json_t *settings, options_of_case *o) {
    OK(pg_sampling_options_init(&o->sampling, sizeof o->sampling));
    OK(pg_beam_options_init(&o->beams, sizeof o->beams));
    OK(pg_generate_options_init(&o->generate, sizeof o->generate));
    o->sampling.eos_ids = o->eos;
    o->sampling.n_eos_ids = read_ids(json_object_get(settings, "eos_token_id"), o->eos);
    o->sampling.no_repeat_ngram_size = (int32_t)json_integer_value(json_object_get(settings, "no_repeat_ngram_size"));
    o->beams.n_beams = (int32_t)json_integer_value(json_object_get(settings, "num_beams"));
    o->beams.length_penalty = json_number_value(json_object_get(settings, "length_penalty"));
    o->beams.early_stopping = early_stopping_of(json_object_get(settings, "early_stopping"));
    o->generate.sampling = &o->sampling;
    o->generate.beams = &o->beams;
    o->generate.n_return = o->beams.n_beams;
    o->generate.max_new_tokens = (int32_t)json_integer_value(json_object_get(settings, "max_new_tokens"));
}

static pg_tensor tensor_of(const pg_result *result, int64_t row, const char *name) {
    pg_tensor tensor = {.struct_size = sizeof tensor};
    OK(pg_result_get_tensor(result, row, name, &tensor));
    return tensor;
}

static void expect_ids(const pg_result *result, int64_t row, const char *name, const json_t *wanted) {
    int64_t ids[MOST_IDS];
    const pg_tensor found = tensor_of(result, row, name);
    assert_int_equal(found.shape[0], read_ids(wanted, ids));
    assert_memory_equal(found.data, ids, (size_t)found.shape[0] * sizeof *ids);
}

static double score_of(const pg_result *result, int64_t row) {
    pg_result_info info = {.struct_size = sizeof info};
    OK(pg_result_get_info(result, row, &info));
    return info.score;
}

static void replay(const json_t *one, int32_t n_threads) {
    int64_t prompt[MOST_IDS];
    options_of_case o;
    pg_result *result = NULL;
    const pg_model *model = models[strcmp(json_string_value(json_object_get(one, "model")), names[0]) ? 1 : 0];
    const int64_t n = read_ids(json_object_get(one, "prompt"), prompt);
    pg_inputs *inputs = inputs_of(prompt, 1, n);
    read_options(json_object_get(one, "settings"), &o);
    o.generate.n_threads = n_threads;
    OK(pg_generate(model, NULL, inputs, &o.generate, &result));
    assert_int_equal(pg_result_get_n_rows(result), o.beams.n_beams);
    for (int64_t row = 0; row < o.beams.n_beams; row++) {
        const double wanted = json_number_value(json_array_get(json_object_get(one, "scores"), (size_t)row));
        assert_true(fabs(score_of(result, row) - wanted) <= 2e-4 * fmax(1, fabs(wanted)));
        expect_ids(result, row, "ids", json_array_get(json_object_get(one, "ids"), (size_t)row));
        expect_ids(result, row, "beam_indices", json_array_get(json_object_get(one, "beams"), (size_t)row));
    }
    pg_result_close(&result);
    pg_inputs_close(&inputs);
}

static void hypotheses_are_transformers(void **state) {
    json_t *file = read_cases("beams.json"), *one;
    size_t i;
    (void)state;
    const json_t *cases = json_object_get(file, "cases");
    assert_true(json_array_size(cases) >= 40);
    json_array_foreach(cases, i, one) {
        replay(one, 1);
        replay(one, 3);
    }
    json_decref(file);
}

/* ---- what is asked for beside the text ---- */

static const int64_t two_prompts[2 * 3] = {5, 9, 20, 7, 30, 11};

static options_of_case some_options(int32_t n_beams) {
    options_of_case o;
    OK(pg_sampling_options_init(&o.sampling, sizeof o.sampling));
    OK(pg_beam_options_init(&o.beams, sizeof o.beams));
    OK(pg_generate_options_init(&o.generate, sizeof o.generate));
    o.beams.n_beams = n_beams;
    o.generate.max_new_tokens = 6;
    return o;
}

static pg_status run_from(options_of_case *o, int64_t first, int64_t n_rows, pg_result **result) {
    pg_inputs *inputs = inputs_of(two_prompts + 3 * first, n_rows, 3);
    o->generate.sampling = &o->sampling;
    o->generate.beams = &o->beams;
    const pg_status status = pg_generate(models[0], NULL, inputs, &o->generate, result);
    pg_inputs_close(&inputs);
    return status;
}

static pg_status run(options_of_case *o, int64_t n_rows, pg_result **result) { return run_from(o, 0, n_rows, result); }

static void what_is_kept_adds_up(void **state) {
    options_of_case o = some_options(4);
    pg_result *result = NULL;
    (void)state;
    o.generate.n_return = 3;
    o.generate.n_alternatives = 2;
    o.generate.flags = PG_GENERATE_LOG_PROBS | PG_GENERATE_LOGITS | PG_GENERATE_SCORES;
    OK(run(&o, 2, &result));
    assert_int_equal(pg_result_get_n_rows(result), 6);
    for (int64_t row = 0; row < 6; row++) {
        const pg_tensor ids = tensor_of(result, row, "ids"), beams = tensor_of(result, row, "beam_indices");
        const pg_tensor scores = tensor_of(result, row, "scores"), all = tensor_of(result, row, "beam_scores");
        const pg_tensor log_probs = tensor_of(result, row, "log_probs"),
                        likely = tensor_of(result, row, "alternative_ids");
        const int64_t n = ids.shape[0], vocab = scores.shape[1];
        double sum = 0, by_log_probs = 0;
        assert_int_equal(all.n_dims, 3);
        assert_int_equal(all.shape[1], 4);
        assert_int_equal(all.shape[2], vocab);
        assert_int_equal(likely.shape[1], 2);
        for (int64_t t = 0; t < n; t++) {
            const int64_t id = ((const int64_t *)ids.data)[t], beam = ((const int64_t *)beams.data)[t];
            const float *of_beam = (const float *)all.data + (t * 4 + beam) * vocab;
            assert_memory_equal((const float *)scores.data + t * vocab, of_beam, (size_t)vocab * sizeof *of_beam);
            sum += (double)of_beam[id];
            by_log_probs += (double)((const float *)log_probs.data)[t];
        }
        assert_true(fabs(sum / (double)n - score_of(result, row)) < 1e-4);
        assert_true(fabs(by_log_probs - sum) < 1e-4);
        if (row % 3 > 0) assert_true(score_of(result, row) <= score_of(result, row - 1));
    }
    pg_result_close(&result);
}

/* Two prompts together, and each alone: of beams, of beams that are drawn, and of draws without beams. */
static void prompts_do_not_touch_each_other(void **state) {
    (void)state;
    for (int kind = 0; kind < 3; kind++) {
        options_of_case o = some_options(kind == 2 ? 1 : 5);
        pg_result *both = NULL;
        o.generate.n_return = 5;
        if (kind > 0) o.sampling.flags = PG_SAMPLING_RANDOM;
        OK(run(&o, 2, &both));
        for (int64_t prompt = 0; prompt < 2; prompt++) {
            pg_result *alone = NULL;
            OK(run_from(&o, prompt, 1, &alone));
            for (int64_t k = 0; k < 5; k++) {
                const pg_tensor a = tensor_of(both, 5 * prompt + k, "ids"), b = tensor_of(alone, k, "ids");
                assert_int_equal(a.shape[0], b.shape[0]);
                assert_memory_equal(a.data, b.data, (size_t)a.shape[0] * sizeof(int64_t));
                assert_true(score_of(both, 5 * prompt + k) == score_of(alone, k));
            }
            pg_result_close(&alone);
        }
        pg_result_close(&both);
    }
}

/* Texts of a prompt without beams: each is the one that the prompt gives with that stream. */
static void texts_have_their_own_draws(void **state) {
    options_of_case o = some_options(1);
    pg_result *many = NULL;
    int differ = 0;
    (void)state;
    o.sampling.flags = PG_SAMPLING_RANDOM;
    o.sampling.seed = 3;
    o.generate.n_return = 6;
    OK(run(&o, 1, &many));
    assert_int_equal(pg_result_get_n_rows(many), 6);
    for (int64_t row = 0; row < 6; row++) {
        pg_result *one = NULL;
        options_of_case alone = o;
        alone.generate.n_return = 1;
        alone.sampling.stream = (uint64_t)row;
        OK(run(&alone, 1, &one));
        const pg_tensor a = tensor_of(many, row, "ids"), b = tensor_of(one, 0, "ids");
        assert_int_equal(a.shape[0], b.shape[0]);
        assert_memory_equal(a.data, b.data, (size_t)a.shape[0] * sizeof(int64_t));
        if (row > 0) {
            const pg_tensor before = tensor_of(many, row - 1, "ids");
            differ |=
                before.shape[0] != a.shape[0] || memcmp(before.data, a.data, (size_t)a.shape[0] * sizeof(int64_t)) != 0;
        }
        pg_result_close(&one);
    }
    assert_true(differ);
    pg_result_close(&many);
}

/* Beam sampling: the same for every number of threads, and another for another seed. */
static void draws_are_repeatable(void **state) {
    options_of_case o = some_options(4);
    pg_result *first = NULL;
    int differ = 0;
    (void)state;
    o.sampling.flags = PG_SAMPLING_RANDOM;
    OK(run(&o, 1, &first));
    for (int32_t k = 0; k < 8; k++) {
        pg_result *again = NULL;
        options_of_case other = o;
        other.generate.n_threads = k % 4 + 1;
        other.sampling.seed = k < 4 ? 0 : (uint64_t)k;
        OK(run(&other, 1, &again));
        const pg_tensor a = tensor_of(first, 0, "ids"), b = tensor_of(again, 0, "ids");
        const int same = a.shape[0] == b.shape[0] && !memcmp(a.data, b.data, (size_t)a.shape[0] * sizeof(int64_t));
        if (k < 4) assert_true(same);
        differ |= !same;
        pg_result_close(&again);
    }
    assert_true(differ);
    pg_result_close(&first);
}

/* ---- callbacks, errors, memory ---- */

static int32_t stop_at_third(void *user, int64_t row, const int64_t *ids, int64_t n_ids, float *logits, int64_t vocab) {
    (void)user, (void)row, (void)ids, (void)logits, (void)vocab;
    return n_ids >= 3 + 2;
}

static int32_t cancel_later(void *user, int32_t phase, int64_t done, int64_t total) {
    int64_t *last = user;
    if (phase != PG_PHASE_DECODE) return 0;
    assert_true(done > *last && done <= total);
    *last = done;
    return done >= 3;
}

static void callbacks_end_a_search(void **state) {
    options_of_case o = some_options(3);
    pg_result *result = NULL;
    pg_result_info info = {.struct_size = sizeof info};
    int64_t last = 0;
    (void)state;
    o.sampling.on_logits = stop_at_third;
    OK(run(&o, 1, &result));
    OK(pg_result_get_info(result, 0, &info));
    assert_int_equal(info.stop, PG_STOP_LOGITS);
    assert_int_equal(info.n_new_tokens, 2);
    pg_result_close(&result);
    o = some_options(3);
    o.generate.progress = cancel_later;
    o.generate.progress_user = &last;
    assert_int_equal(run(&o, 1, &result), PG_ERROR_CANCELLED);
    assert_null(result);
    assert_int_equal(last, 3);
    o = some_options(3);
    o.generate.max_context = 3;
    OK(run(&o, 1, &result));
    OK(pg_result_get_info(result, 0, &info));
    assert_int_equal(info.stop, PG_STOP_CONTEXT);
    assert_int_equal(info.n_new_tokens, 0);
    pg_result_close(&result);
}

/* Ends every text of `ended_at` new tokens. */
typedef struct listener {
    int64_t n_prompt, ended_at, n_calls, least, refuses_at;
} listener;

static int32_t end_texts(void *user, int64_t row, const int64_t *ids, int64_t n_ids, int64_t n_texts, uint8_t *ends) {
    listener *l = user;
    assert_int_equal(row, 0);
    assert_int_equal(n_ids, l->n_prompt + ++l->n_calls); /* one token more in each step */
    assert_true(n_texts >= l->least);
    for (int64_t k = 0; k < n_texts; k++) {
        assert_int_equal(ends[k], 0);
        assert_memory_equal(ids + k * n_ids, ids, (size_t)l->n_prompt * sizeof *ids);
        for (int64_t other = 0; other < k; other++)
            assert_memory_not_equal(ids + k * n_ids, ids + other * n_ids, (size_t)n_ids * sizeof *ids);
        ends[k] = l->n_calls >= l->ended_at;
    }
    return l->refuses_at == l->n_calls;
}

static void texts_end_where_the_host_says(void **state) {
    options_of_case o = some_options(3);
    pg_result *result = NULL;
    pg_result_info info = {.struct_size = sizeof info};
    listener l = {.n_prompt = 3, .ended_at = 2, .least = 2 * 3};
    (void)state;
    o.generate.n_return = 3;
    o.beams.on_texts = end_texts;
    o.beams.on_texts_user = &l;
    OK(run(&o, 1, &result));
    assert_int_equal(l.n_calls, 2);
    for (int64_t r = 0; r < 3; r++) {
        OK(pg_result_get_info(result, r, &info));
        assert_int_equal(info.stop, PG_STOP_CALLBACK);
        assert_int_equal(info.n_new_tokens, 2);
    }
    pg_result_close(&result);
    l = (listener){.n_prompt = 3, .ended_at = 99, .least = 2 * 3, .refuses_at = 3};
    OK(run(&o, 1, &result));
    OK(pg_result_get_info(result, 0, &info));
    assert_int_equal(info.stop, PG_STOP_LOGITS);
    assert_int_equal(info.n_new_tokens, 2);
    pg_result_close(&result);
}

/* Allows nothing in the texts of the second prompt; *user: the first row that it is. */
static int32_t nothing_from(void *user, int64_t row, const int64_t *ids, int64_t n_ids, uint32_t *mask, int64_t vocab) {
    const int64_t *first = user;
    (void)ids, (void)n_ids;
    if (row < *first) memset(mask, 0xff, (size_t)((vocab + 31) / 32) * sizeof *mask);
    return 0;
}

static int32_t no_logits_from(void *user, int64_t row, const int64_t *ids, int64_t n_ids, float *logits, int64_t n) {
    const int64_t *first = user;
    (void)ids, (void)n_ids;
    for (int64_t i = 0; row >= *first && i < n; i++) logits[i] = -INFINITY;
    return 0;
}

/* Errors name the row of the inputs, however many texts it has. */
static void errors_name_the_prompt(void **state) {
    (void)state;
    for (int kind = 0; kind < 4; kind++) {
        const int of_beams = kind % 2;
        options_of_case o = some_options(of_beams ? 3 : 1);
        int64_t first = of_beams ? 1 : 3; /* row of the inputs, or of the result */
        pg_result *result = NULL;
        o.sampling.flags = PG_SAMPLING_RANDOM;
        o.generate.n_return = 3;
        if (kind < 2) {
            o.sampling.on_mask = nothing_from;
            o.sampling.on_mask_user = &first;
        } else {
            o.sampling.on_logits = no_logits_from;
            o.sampling.on_logits_user = &first;
        }
        assert_int_equal(run(&o, 2, &result), PG_ERROR_ARGUMENT);
        assert_int_equal(pg_last_error_row(), 1);
        const char *text = kind < 2 ? "row 1: on_mask allows no id" : "row 1: the settings of sampling leave no id";
        if (!strstr(pg_last_error(), text)) fail_msg("found \"%s\", expected %s in it", pg_last_error(), text);
        first = 6;
        OK(run(&o, 2, &result));
        pg_result_close(&result);
    }
}

static void refuse(options_of_case o, const char *text) {
    pg_result *result = NULL;
    assert_int_equal(run(&o, 1, &result), PG_ERROR_ARGUMENT);
    assert_null(result);
    if (!strstr(pg_last_error(), text)) fail_msg("found \"%s\", expected %s in it", pg_last_error(), text);
}

static void impossible_options_are_named(void **state) {
    static const double penalties[] = {NAN, INFINITY, -INFINITY};
    options_of_case o;
    pg_tensor tensor = {.struct_size = sizeof tensor};
    pg_result *result = NULL;
    (void)state;
    for (int32_t n = -1; n <= 65; n += n == 0 ? 65 : 1) {
        o = some_options(n);
        refuse(o, "n_beams is");
    }
    for (int i = 0; i < 3; i++) {
        o = some_options(2);
        o.beams.length_penalty = penalties[i];
        refuse(o, "length_penalty is");
    }
    o = some_options(2);
    o.beams.early_stopping = 3;
    refuse(o, "early_stopping is 3, expected 0 (off), 1 (on) or 2 (never)");
    o = some_options(2);
    o.generate.n_return = 3;
    refuse(o, "n_return is 3, expected 1 to 2, n_beams");
    o.generate.n_return = -1;
    refuse(o, "n_return is -1");
    o = some_options(1);
    o.generate.n_return = 2;
    refuse(o, "PG_SAMPLING_RANDOM");
    o = some_options(2);
    o.beams.reserved = 1;
    refuse(o, "reserved");
    o = some_options(1);
    OK(run(&o, 1, &result));
    assert_int_equal(pg_result_get_tensor(result, 0, "beam_indices", &tensor), PG_ERROR_NOT_FOUND);
    pg_result_close(&result);
    o = some_options(2);
    OK(run(&o, 1, &result));
    assert_int_equal(pg_result_get_tensor(result, 0, "beam_scores", &tensor), PG_ERROR_NOT_FOUND);
    assert_int_equal(pg_result_get_tensor(result, 0, "beam_", &tensor), PG_ERROR_NOT_FOUND);
    pg_result_close(&result);
}

static void every_allocation_may_fail(void **state) {
    (void)state;
    for (int kind = 0; kind < 3; kind++) {
        options_of_case o = some_options(kind == 2 ? 1 : 3);
        o.generate.flags = PG_GENERATE_LOG_PROBS | PG_GENERATE_SCORES;
        o.generate.n_return = 2;
        o.generate.max_new_tokens = 3;
        listener l = {0};
        if (kind == 0) o.beams.on_texts = end_texts, o.beams.on_texts_user = &l;
        if (kind > 0) o.sampling.flags = PG_SAMPLING_RANDOM;
        for (int64_t n = 1;; n++) {
            pg_result *result = NULL;
            memory.fail_at = memory.n_allocs + n;
            l = (listener){.n_prompt = 3, .ended_at = 99, .least = 2 * 3};
            const pg_status status = run(&o, 1, &result);
            memory.fail_at = 0;
            pg_result_close(&result);
            if (status == PG_OK) {
                assert_true(n > 10);
                break;
            }
            assert_int_equal(status, PG_ERROR_MEMORY);
        }
    }
}

/* Prompts are searched one after the other: four times as many need the same memory, but for their results. */
static void memory_is_that_of_one_prompt(void **state) {
    int64_t ids[MOST_IDS], peaks[2];
    options_of_case o = some_options(4);
    (void)state;
    for (int i = 0; i < MOST_IDS; i++) ids[i] = 5 + i;
    o.generate.max_new_tokens = 40;
    o.generate.beams = &o.beams;
    for (int k = 0; k < 2; k++) {
        const int64_t n_rows = k ? 16 : 4, live = memory.live_bytes;
        pg_inputs *inputs = inputs_of(ids, n_rows, 4);
        pg_result *result = NULL;
        memory.peak_bytes = live;
        OK(pg_generate(models[1], NULL, inputs, &o.generate, &result));
        peaks[k] = memory.peak_bytes - live;
        pg_result_close(&result);
        pg_inputs_close(&inputs);
    }
    assert_true(peaks[1] < 1.2 * (double)peaks[0]);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hypotheses_are_transformers),
        cmocka_unit_test(what_is_kept_adds_up),
        cmocka_unit_test(prompts_do_not_touch_each_other),
        cmocka_unit_test(texts_have_their_own_draws),
        cmocka_unit_test(draws_are_repeatable),
        cmocka_unit_test(callbacks_end_a_search),
        cmocka_unit_test(texts_end_where_the_host_says),
        cmocka_unit_test(errors_name_the_prompt),
        cmocka_unit_test(impossible_options_are_named),
        cmocka_unit_test(every_allocation_may_fail),
        cmocka_unit_test(memory_is_that_of_one_prompt),
    };
    return RUN_TESTS(tests, open_models, close_models);
}
