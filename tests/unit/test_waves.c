/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* pg_generate with more rows than run at a time: the same texts, the memory of those that run. */
#include "run_tests.h"

#include "forward_fixture.h"

enum { N_IDS = 9, NEW = 100, MOST_ROWS = 64 };

/* n rows of drawn ids, padded on the left to different lengths. */
static pg_inputs *drawn_rows(const tiny *m, int n) {
    static int64_t ids[MOST_ROWS * N_IDS], mask[MOST_ROWS * N_IDS];
    for (int r = 0; r < n; r++) {
        rng random = {(uint64_t)r + 1};
        for (int k = 0; k < N_IDS; k++) {
            ids[r * N_IDS + k] = 4 + (int64_t)rng_below(&random, (uint64_t)m->image_id - 4);
            mask[r * N_IDS + k] = k >= r % 5;
        }
    }
    pg_tensor of_ids = {
        .struct_size = sizeof of_ids, .dtype = PG_DTYPE_I64, .n_dims = 2, .shape = {n, N_IDS, 1, 1}, .data = ids};
    pg_tensor of_mask = of_ids;
    of_mask.data = mask;
    pg_input_arrays arrays;
    pg_inputs *in = NULL;
    OK(pg_input_arrays_init(&arrays, sizeof arrays));
    arrays.input_ids = &of_ids;
    arrays.attention_mask = &of_mask;
    OK(pg_inputs_create(&arrays, &in));
    return in;
}

typedef struct watched {
    int n_tokens[MOST_ROWS];
    int n_running, most_running, n_begun;
} watched;

/* Rows are stopped after 1 to 7 tokens. */
static int32_t watch_text(void *user, int64_t row, const char *text, size_t size, int64_t token) {
    watched *w = user;
    (void)text, (void)size, (void)token;
    if (w->n_tokens[row]++ == 0) {
        w->n_begun++;
        w->n_running++;
    }
    const int ends = w->n_tokens[row] == 1 + (int)(row * 5 % 7);
    if (w->n_running > w->most_running) w->most_running = w->n_running;
    w->n_running -= ends;
    return ends;
}

static pg_result *run_rows(const tiny *m, const pg_inputs *in, int32_t max_running, int32_t n_return, watched *w) {
    pg_generate_options options;
    pg_sampling_options sampling;
    pg_result *result = NULL;
    OK(pg_generate_options_init(&options, sizeof options));
    OK(pg_sampling_options_init(&sampling, sizeof sampling));
    *w = (watched){.n_begun = 0};
    sampling.flags = PG_SAMPLING_IGNORE_EOS | (n_return > 1 ? PG_SAMPLING_RANDOM : 0);
    options.sampling = &sampling;
    options.flags = PG_GENERATE_LOG_PROBS;
    options.n_return = n_return;
    options.max_running = max_running;
    options.max_new_tokens = NEW;
    options.n_threads = 1;
    options.on_text = watch_text;
    options.on_text_user = w;
    OK(pg_generate(m->model, m->processor, in, &options, &result));
    return result;
}

static void expect_same(const pg_result *a, const pg_result *b, int n) {
    static const char *const names[] = {"ids", "log_probs"};
    assert_int_equal(pg_result_get_n_rows(a), n);
    for (int r = 0; r < n; r++) {
        assert_string_equal(pg_result_get_text(a, r), pg_result_get_text(b, r));
        for (int k = 0; k < 2; k++) {
            pg_tensor x = {.struct_size = sizeof x}, y = x;
            OK(pg_result_get_tensor(a, r, names[k], &x));
            OK(pg_result_get_tensor(b, r, names[k], &y));
            assert_int_equal(x.shape[0], y.shape[0]);
            assert_int_equal(x.shape[0], 1 + r * 5 % 7);
            assert_memory_equal(x.data, y.data, (size_t)x.shape[0] * (k ? sizeof(float) : sizeof(int64_t)));
        }
    }
}

static void texts_are_those_of_all_at_once(void **state) {
    static const int32_t at_a_time[] = {1, 2, 3, 7, 0, 1000};
    (void)state;
    for (int i = 0; i < 4; i++) {
        const tiny *m = &models[i % 2];
        const int32_t n_return = i / 2 ? 5 : 1;
        const int n_prompts = 23 / n_return, n = n_prompts * n_return;
        pg_inputs *in = drawn_rows(m, n_prompts);
        watched w;
        pg_result *all = run_rows(m, in, n, n_return, &w);
        assert_int_equal(w.most_running, n - (n + 6) / 7); /* each seventh ends with its first token */
        for (size_t k = 0; k < sizeof at_a_time / sizeof *at_a_time; k++) {
            const int most = at_a_time[k] == 0 ? 4 : at_a_time[k] < n ? at_a_time[k] : n;
            pg_result *waves = run_rows(m, in, at_a_time[k], n_return, &w);
            assert_in_range(w.most_running, (most + 1) / 2, most);
            assert_int_equal(w.n_begun, n);
            expect_same(waves, all, n);
            pg_result_close(&waves);
        }
        pg_result_close(&all);
        pg_inputs_close(&in);
    }
}

/* 16 rows of int8 and int4 in one step give what each gives alone, draws of one prefill too. */
static void quantized_rows_take_16_a_step(void **state) {
    (void)state;
    for (int i = 0; i < 4; i++) {
        tiny m = models[i % 2];
        const int32_t n_return = i / 2 ? 8 : 1;
        pg_model_options options;
        watched w;
        OK(pg_model_options_init(&options, sizeof options));
        options.weights = i % 2 ? PG_WEIGHTS_INT4 : PG_WEIGHTS_INT8;
        OK(pg_model_open(m.folder, &options, &m.model));
        pg_inputs *in = drawn_rows(&m, 32 / n_return);
        pg_result *alone = run_rows(&m, in, 1, n_return, &w);
        pg_result *waves = run_rows(&m, in, 0, n_return, &w);
        assert_int_equal(w.most_running, 16);
        expect_same(waves, alone, 32);
        pg_result_close(&alone);
        pg_result_close(&waves);
        pg_inputs_close(&in);
        pg_model_close(&m.model);
    }
}

/* The logits of each token of a text, kept while its beam ran with others, to the bit those of a session, which feeds
 * one token a step; and its score the sum of their log-probabilities. */
static void expect_as_alone(pg_session *session, const pg_inputs *in, const pg_result *result, int64_t row) {
    pg_tensor ids = {.struct_size = sizeof ids}, logits = ids, log_probs = ids, alone = ids;
    pg_result_info info = {.struct_size = sizeof info};
    double sum = 0;
    OK(pg_result_get_ids(result, row, &ids));
    OK(pg_result_get_tensor(result, row, "logits", &logits));
    OK(pg_result_get_tensor(result, row, "log_probs", &log_probs));
    OK(pg_result_get_info(result, row, &info));
    assert_int_equal(logits.shape[0], ids.shape[0]);
    assert_true(ids.shape[0] > 0);
    OK(pg_session_prefill(session, in, NULL));
    for (int64_t t = 0; t < ids.shape[0]; t++) {
        OK(pg_session_get_logits(session, &alone));
        assert_int_equal(alone.shape[0], logits.shape[1]);
        assert_memory_equal((const float *)logits.data + t * logits.shape[1], alone.data,
                            (size_t)logits.shape[1] * sizeof(float));
        OK(pg_session_feed(session, (const int64_t *)ids.data + t, 1));
        sum += (double)((const float *)log_probs.data)[t];
    }
    assert_true(fabs(sum / (double)ids.shape[0] - info.score) < 1e-4);
}

/* 16 beams are one step of int8 and int4, 19 are a step of 16 and one of 3: none sees the others. */
static void quantized_beams_take_16_a_step(void **state) {
    static const int32_t n_beams[] = {16, 16, 19, 19};
    (void)state;
    for (int i = 0; i < 4; i++) {
        tiny m = models[i % 2];
        pg_model_options model_options;
        pg_generate_options options;
        pg_beam_options beams;
        pg_result *result = NULL;
        pg_session *session = NULL;
        OK(pg_model_options_init(&model_options, sizeof model_options));
        OK(pg_generate_options_init(&options, sizeof options));
        OK(pg_beam_options_init(&beams, sizeof beams));
        model_options.weights = i == 0 || i == 3 ? PG_WEIGHTS_INT8 : PG_WEIGHTS_INT4;
        OK(pg_model_open(m.folder, &model_options, &m.model));
        OK(pg_session_create(m.model, NULL, &session));
        beams.n_beams = n_beams[i];
        options.beams = &beams;
        options.n_return = n_beams[i];
        options.max_new_tokens = 9;
        options.flags = PG_GENERATE_LOGITS | PG_GENERATE_LOG_PROBS;
        pg_inputs *in = drawn_rows(&m, 1);
        OK(pg_generate(m.model, m.processor, in, &options, &result));
        assert_int_equal(pg_result_get_n_rows(result), n_beams[i]);
        for (int64_t row = 0; row < n_beams[i]; row++) expect_as_alone(session, in, result, row);
        pg_result_close(&result);
        pg_session_close(&session);
        pg_inputs_close(&in);
        pg_model_close(&m.model);
    }
}

/* Bytes that a call takes at the most. */
static long long peak_of(const tiny *m, counter *memory, int n, int32_t max_running) {
    watched w;
    pg_inputs *in = drawn_rows(m, n);
    const long long before = memory->live_bytes;
    memory->peak_bytes = before;
    pg_result *result = run_rows(m, in, max_running, 1, &w);
    const long long peak = memory->peak_bytes - before;
    pg_result_close(&result);
    pg_inputs_close(&in);
    assert_int_equal(memory->live_bytes, before);
    return peak;
}

static void memory_is_that_of_the_rows_that_run(void **state) {
    const tiny_options written = tiny_official();
    counter memory;
    tiny m = {.folder = ""};
    (void)state;
    counter_init(&memory);
    open_tiny(&m, &written, &memory);
    int64_t n_heads, head_dim;
    OK(pg_model_get_config_int(m.model, "text_config.num_key_value_heads", &n_heads));
    OK(pg_model_get_config_int(m.model, "text_config.head_dim", &head_dim));
    const long long cache = 2 * m.n_layers * n_heads * head_dim * (N_IDS + NEW - 1) * (long long)sizeof(float);
    const long long few = peak_of(&m, &memory, 16, 2), many = peak_of(&m, &memory, 64, 2);
    assert_true(many - few < 48 * cache / 4); /* results alone */
    assert_true(peak_of(&m, &memory, 64, 64) - many > 60 * cache);
    assert_true(peak_of(&m, &memory, 64, 4) == peak_of(&m, &memory, 64, 0));
    close_tiny(&m);
    assert_true(counter_clean(&memory));
}

/* An allocation that fails anywhere gives the error or, where one only gives memory back, the texts. */
static void allocations_may_fail(void **state) {
    const tiny_options written = tiny_saved_today();
    counter memory;
    tiny m = {.folder = ""};
    watched w;
    (void)state;
    counter_init(&memory);
    open_tiny(&m, &written, &memory);
    pg_inputs *in = drawn_rows(&m, 7);
    pg_generate_options options;
    pg_sampling_options sampling;
    OK(pg_generate_options_init(&options, sizeof options));
    OK(pg_sampling_options_init(&sampling, sizeof sampling));
    sampling.flags = PG_SAMPLING_RANDOM;
    options.sampling = &sampling;
    options.max_new_tokens = 100;
    options.n_return = 3;
    options.max_running = 2;
    options.n_threads = 1;
    options.on_text = watch_text;
    options.on_text_user = &w;
    const long long live = memory.n_live;
    int n_errors = 0;
    for (int at = 1; at == 1 || memory.n_allocs >= memory.fail_at; at++) {
        pg_result *result = NULL;
        memory.n_allocs = 0;
        memory.fail_at = at;
        w = (watched){.n_begun = 0};
        const pg_status status = pg_generate(m.model, m.processor, in, &options, &result);
        assert_true(status == PG_OK || status == PG_ERROR_MEMORY);
        n_errors += status < 0;
        pg_result_close(&result);
        assert_int_equal(memory.n_live, live);
    }
    memory.fail_at = 0;
    assert_in_range(n_errors, 30, 1000);
    pg_inputs_close(&in);
    close_tiny(&m);
}

typedef struct progress_watch {
    int64_t done[2], total[2]; /* of PREFILL and DECODE */
    int n_calls, stop_at;
} progress_watch;

static int32_t watch_progress(void *user, int32_t phase, int64_t done, int64_t total) {
    progress_watch *w = user;
    const int k = phase == PG_PHASE_DECODE;
    assert_true(k || phase == PG_PHASE_PREFILL);
    assert_true(done >= w->done[k] && done <= total && (w->total[k] == 0 || w->total[k] >= total));
    w->done[k] = done, w->total[k] = total;
    return ++w->n_calls == w->stop_at;
}

/* Each phase goes on where it was when the other one came between; each call may cancel. */
static void progress_counts_all_rows(void **state) {
    const tiny *m = &models[0];
    pg_generate_options options;
    pg_result *result = NULL;
    progress_watch w = {.n_calls = 0};
    (void)state;
    pg_inputs *in = drawn_rows(m, 6);
    OK(pg_generate_options_init(&options, sizeof options));
    options.max_running = 2;
    options.max_new_tokens = 3;
    options.progress = watch_progress;
    options.progress_user = &w;
    OK(pg_generate(m->model, m->processor, in, &options, &result));
    pg_result_close(&result);
    assert_int_equal(w.total[0], 6 * m->n_layers);
    assert_int_equal(w.done[0], w.total[0]);
    assert_int_equal(w.total[1], 6 * 3);
    assert_int_equal(w.done[1], w.total[1]);
    for (int at = 1, n = w.n_calls; at <= n; at++) {
        w = (progress_watch){.stop_at = at};
        ERROR(pg_generate(m->model, m->processor, in, &options, &result), PG_ERROR_CANCELLED);
        assert_null(result);
    }
    pg_inputs_close(&in);
}

static int32_t end_at_once(void *user, int64_t row, const char *text, size_t size, int64_t token) {
    (void)user, (void)text, (void)size, (void)token;
    return row % 2;
}

static int32_t end_third(void *user, int64_t row, const int64_t *ids, int64_t n_ids, float *logits, int64_t n) {
    (void)user, (void)ids, (void)n_ids, (void)logits, (void)n;
    return row == 2;
}

/* Rows that end early give up the tokens that they might have had: the last report is of all that there are. */
static void progress_reaches_its_total(void **state) {
    static const int32_t n_beams[] = {1, 1, 3, 3}, n_new[] = {5, 1, 5, 1};
    const tiny *m = &models[0];
    (void)state;
    pg_inputs *in = drawn_rows(m, 6);
    for (int i = 0; i < 4; i++) {
        pg_generate_options options;
        pg_sampling_options sampling;
        pg_beam_options beams;
        pg_result *result = NULL;
        progress_watch w = {.n_calls = 0};
        OK(pg_generate_options_init(&options, sizeof options));
        OK(pg_sampling_options_init(&sampling, sizeof sampling));
        OK(pg_beam_options_init(&beams, sizeof beams));
        beams.n_beams = n_beams[i];
        sampling.on_logits = end_third;
        options.max_running = 2;
        options.max_new_tokens = n_new[i];
        options.on_text = end_at_once;
        options.sampling = &sampling;
        options.beams = &beams;
        options.progress = watch_progress;
        options.progress_user = &w;
        OK(pg_generate(m->model, m->processor, in, &options, &result));
        int64_t n_tokens = 0;
        for (int64_t r = 0; r < pg_result_get_n_rows(result); r++) {
            pg_result_info info = {.struct_size = sizeof info};
            OK(pg_result_get_info(result, r, &info));
            n_tokens += info.n_new_tokens;
        }
        assert_int_equal(w.done[0], w.total[0]);
        assert_int_equal(w.done[1], w.total[1]);
        assert_true(w.done[1] > 0);
        if (n_beams[i] == 1) assert_int_equal(w.done[1], n_tokens);
        pg_result_close(&result);
    }
    pg_inputs_close(&in);
}

static void less_than_one_is_refused(void **state) {
    pg_generate_options options;
    pg_result *result = NULL;
    (void)state;
    pg_inputs *in = drawn_rows(&models[0], 1);
    OK(pg_generate_options_init(&options, sizeof options));
    options.max_running = -1;
    ERROR(pg_generate(models[0].model, NULL, in, &options, &result), PG_ERROR_ARGUMENT);
    assert_string_equal(pg_last_error(), "max_running is -1, expected 0 (default) or more");
    pg_inputs_close(&in);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts_are_those_of_all_at_once), cmocka_unit_test(quantized_rows_take_16_a_step),
        cmocka_unit_test(quantized_beams_take_16_a_step), cmocka_unit_test(memory_is_that_of_the_rows_that_run),
        cmocka_unit_test(allocations_may_fail),           cmocka_unit_test(progress_counts_all_rows),
        cmocka_unit_test(progress_reaches_its_total),     cmocka_unit_test(less_than_one_is_refused),
    };
    return RUN_TESTS(tests, open_models, close_models);
}
