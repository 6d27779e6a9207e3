/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* pg_generate on batches, and sessions that go on from a suffix: each row gets what it gets alone. */
#include "run_tests.h"

#include "forward_fixture.h"
#include "generate/decoding.h"
#include "generate/sampler.h"

static void batches_generate_what_rows_do(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) {
        const tiny *m = &models[i];
        for (int n = 1; n <= 7; n += 2) {
            batch b, alone;
            heard h = {.stop_row = -1};
            make_batch(&b, m, specs, n, n % 4 == 1 ? LEFT : RIGHT, n == 3 ? 4 : 0);
            pg_result *together = generate(m, &b, 0, 1, &h);
            assert_int_equal(pg_result_get_n_rows(together), n);
            for (int r = 0; r < n; r++) {
                make_batch(&alone, m, &specs[r], 1, LEFT, 0);
                pg_result *single = generate(m, &alone, 0, 1, NULL);
                same_row(together, r, single, 0);
                assert_string_equal(h.text[r].data ? (char *)h.text[r].data : "", pg_result_get_text(single, 0));
                pg_result_info info = {.struct_size = sizeof info};
                OK(pg_result_get_info(single, 0, &info));
                assert_int_equal(info.n_prompt_tokens, b.length[r]);
                pg_result_close(&single);
                free(alone.pixels);
                bytes_free(&h.text[r]);
            }
            pg_tensor ids = {.struct_size = sizeof ids};
            pg_result_info info = {.struct_size = sizeof info};
            assert_string_equal(pg_result_get_text(together, n), "");
            ARGUMENT(pg_result_get_ids(together, n, &ids));
            ARGUMENT(pg_result_get_info(together, -1, &info));
            pg_result_close(&together);
            free(b.pixels);
        }
    }
    assert_int_equal(pg_result_get_n_rows(NULL), 0);
    assert_string_equal(pg_result_get_text(NULL, 0), "");
}

/* Without a processor: the ids are those of the whole call, and there is no text. */
static void ids_need_no_processor(void **state) {
    (void)state;
    const tiny *m = &models[0];
    pg_inputs *in = NULL;
    pg_result *alone = NULL;
    pg_generate_options options;
    heard h = {.stop_row = -1};
    batch b;
    make_batch(&b, m, specs, 5, LEFT, 0);
    pg_result *result = generate(m, &b, 0, 1, NULL);
    OK(create(&b, m, 0, NULL, &in));
    OK(pg_generate_options_init(&options, sizeof options));
    options.max_new_tokens = NEW_TOKENS;
    options.on_text = hear;
    options.on_text_user = &h;
    OK(pg_generate(m->model, NULL, in, &options, &alone));
    for (int r = 0; r < 5; r++) {
        pg_tensor ids = {.struct_size = sizeof ids}, expected = ids;
        OK(pg_result_get_ids(alone, r, &ids));
        OK(pg_result_get_ids(result, r, &expected));
        assert_int_equal(ids.shape[0], expected.shape[0]);
        assert_memory_equal(ids.data, expected.data, (size_t)ids.shape[0] * sizeof(int64_t));
        assert_int_equal(h.n_tokens[r], ids.shape[0]);
        assert_string_equal(pg_result_get_text(alone, r), "");
        bytes_free(&h.text[r]);
    }
    pg_result_close(&alone);
    const char *stop = "x";
    options.stop_strings = &stop;
    options.n_stop_strings = 1;
    ARGUMENT(pg_generate(m->model, NULL, in, &options, &alone));
    assert_non_null(strstr(pg_last_error(), "stop_strings"));
    pg_result_close(&result);
    pg_inputs_close(&in);
    free(b.pixels);
}

static void batches_take_features_too(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) {
        const tiny *m = &models[i];
        pg_inputs *in = NULL, *without = NULL;
        pg_features *features = NULL;
        pg_result *given = NULL;
        pg_generate_options options;
        batch b;
        make_batch(&b, m, specs, 5, RIGHT, 0);
        pg_result *result = generate(m, &b, 0, 1, NULL);
        OK(create(&b, m, 0, NULL, &in));
        OK(create(&b, m, WITHOUT_PIXELS, NULL, &without));
        OK(pg_features_create(m->model, in, NULL, &features));
        OK(pg_generate_options_init(&options, sizeof options));
        options.max_new_tokens = NEW_TOKENS;
        options.features = features;
        OK(pg_generate(m->model, m->processor, without, &options, &given));
        for (int r = 0; r < 5; r++) same_row(given, r, result, r);
        pg_result_info info = {.struct_size = sizeof info};
        OK(pg_result_get_info(given, 0, &info));
        assert_true(info.vision_seconds == 0 && info.prefill_seconds > 0 && info.decode_seconds > 0);
        pg_result_close(&given);
        pg_result_close(&result);
        pg_features_close(&features);
        pg_inputs_close(&in);
        pg_inputs_close(&without);
        free(b.pixels);
    }
}

/* RoPE is relative: positions that all count from elsewhere change nothing but rounding, and an answer goes on from the
 * last of them; positions twice as far apart change everything. */
static void positions_are_the_callers(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) {
        const tiny *m = &models[i];
        int64_t positions[MAX_ROWS * MAX_TOKENS];
        batch b;
        for (int side = LEFT; side <= RIGHT; side++) {
            make_batch(&b, m, specs, 4, side, 0);
            const int64_t n = b.n_rows * b.n_tokens * m->info.vocab_size;
            pg_outputs *counted = forward(m, &b, 0, PG_FORWARD_SKIP_PADDING);
            pg_result *result = generate(m, &b, 0, 1, NULL);
            for (int64_t t = 0; t < b.n_rows * b.n_tokens; t++) positions[t] = b.mask[t] ? 7 + t % b.n_tokens : 1;
            b.positions = positions;
            pg_outputs *given = forward(m, &b, 0, PG_FORWARD_SKIP_PADDING);
            pg_result *same = generate(m, &b, 0, 1, NULL);
            expect_close(logits_of(given, &b, m), logits_of(counted, &b, m), n, 1e-5);
            for (int r = 0; r < 4; r++) same_row(same, r, result, r);
            pg_outputs_close(&given);
            for (int64_t t = 0; t < b.n_rows * b.n_tokens; t++) positions[t] *= 2;
            given = forward(m, &b, 0, PG_FORWARD_SKIP_PADDING);
            double difference = 0;
            for (int64_t k = 0; k < n; k++)
                difference += fabs((double)logits_of(given, &b, m)[k] - logits_of(counted, &b, m)[k]);
            assert_true(difference / (double)n > 1e-3);
            pg_outputs_close(&given);
            pg_outputs_close(&counted);
            pg_result_close(&same);
            pg_result_close(&result);
            free(b.pixels);
        }
    }
}

/* Decodings that run twice: together with others, and alone. */
typedef struct step_test {
    const pg_model *model;
    pgi_run run;
    pgi_merged_inputs prompts;
    pgi_workspace workspace;
    pgi_decoding together[PGI_STEP_ROWS], alone[PGI_STEP_ROWS];
    float *logits; /* [PGI_STEP_ROWS + 1, vocab] */
} step_test;

/* The logits of the step that the decodings of `rows` take together, and of those that each takes alone. */
static void step_both(step_test *t, const int *rows, int n) {
    const int64_t v = t->model->config.text.vocab_size;
    const pgi_pass_workspace *step = &t->workspace.step;
    pgi_decoding *group[PGI_STEP_ROWS];
    float *alone = t->logits + PGI_STEP_ROWS * v;
    for (int i = 0; i < n; i++) group[i] = &t->together[rows[i]];
    OK(pgi_decoding_step_group(&t->run, group, n, step));
    OK(pgi_decoding_logits(&t->run, group, n, step->x, t->logits, &step->head));
    for (int i = 0; i < n; i++) {
        pgi_decoding *one = &t->alone[rows[i]];
        OK(pgi_decoding_step_group(&t->run, &one, 1, step));
        OK(pgi_decoding_logits(&t->run, &one, 1, step->x, alone, &step->head));
        assert_memory_equal(t->logits + i * v, alone, (size_t)v * sizeof(float));
        pgi_decoding_push(group[i], pgi_sample(t->logits + i * v, v));
        pgi_decoding_push(one, pgi_sample(alone, v));
    }
}

static void prefill_both(step_test *t, int64_t prompt, int row) {
    float *logits = t->logits;
    const float *last;
    for (int k = 0; k < 2; k++) {
        pgi_decoding *decoding = k ? &t->alone[row] : &t->together[row];
        decoding->pending = -1;
        OK(pgi_decoding_reset(decoding, &t->prompts, prompt, &(pgi_decoding_limits){2 * PGI_STEP_ROWS, 0}));
        OK(pgi_decoding_prefill(&t->run, &t->prompts, prompt, 1, &decoding, 0, 0, &t->workspace.pass, &last));
        OK(pgi_decoding_logits(&t->run, &decoding, 1, last, logits, &t->workspace.pass.head));
        pgi_decoding_push(decoding, pgi_sample(logits, t->model->config.text.vocab_size));
    }
}

/* The logits of a step that up to pgi_step_rows() answers take together are, to the last bit, those that each gets
 * alone: in groups of each size, which shrink as if rows ended, at the front and in the midst. */
static void steps_together_are_steps_alone(void **state) {
    enum { SPECS = sizeof specs / sizeof *specs };
    (void)state;
    for (int i = 0; i < 6; i++) {
        const tiny *m = &models[i % 2];
        const int32_t weights = i / 2 == 0 ? PG_WEIGHTS_STORED : i / 2 == 1 ? PG_WEIGHTS_INT8 : PG_WEIGHTS_INT4;
        pg_model_options options;
        pg_model *opened = NULL;
        OK(pg_model_options_init(&options, sizeof options));
        options.weights = weights;
        OK(pg_model_open(m->folder, &options, &opened));
        assert_int_equal(pgi_step_rows(opened), weights == PG_WEIGHTS_STORED ? 4 : 16);
        step_test t = {.model = opened, .run = {.kernels = &opened->kernels, .n_threads = 1}};
        pg_inputs *in = NULL;
        batch b;
        make_batch(&b, m, specs, SPECS, LEFT, 0);
        OK(create(&b, m, 0, NULL, &in));
        OK(pgi_merged_inputs_init(&t.run, opened, NULL, in, NULL, NULL, &t.prompts));
        t.logits = calloc((size_t)((PGI_STEP_ROWS + 1) * m->info.vocab_size), sizeof *t.logits);
        const pgi_limits limits = {
            .n_tokens = MAX_TOKENS, .n_step_tokens = PGI_STEP_ROWS, .n_keys = MAX_TOKENS + 2 * PGI_STEP_ROWS};
        OK(pgi_workspace_reserve(&t.workspace, &t.run, opened, &limits));
        int rows[PGI_STEP_ROWS], n = (int)pgi_step_rows(opened);
        for (int r = 0; r < n; r++) prefill_both(&t, r % SPECS, rows[r] = r);
        for (; n > 0; n--) {
            step_both(&t, rows, n);
            const int ends = n / 2 % 2 ? 0 : n / 2;
            memmove(rows + ends, rows + ends + 1, (size_t)(n - 1 - ends) * sizeof *rows);
        }
        for (int r = 0; r < PGI_STEP_ROWS; r++) {
            pgi_decoding_free(&t.together[r], &opened->memory);
            pgi_decoding_free(&t.alone[r], &opened->memory);
        }
        pgi_workspace_free(&t.workspace, &opened->memory);
        pgi_merged_inputs_free(&t.prompts);
        pg_inputs_close(&in);
        pg_model_close(&opened);
        free(t.logits);
        free(b.pixels);
    }
}

static void a_callback_ends_its_row_alone(void **state) {
    const tiny *m = &models[1];
    batch b;
    (void)state;
    make_batch(&b, m, specs, 6, LEFT, 0);
    pg_result *whole = generate(m, &b, 0, 1, NULL);
    for (int64_t stopped = 0; stopped < 6; stopped++) {
        heard h = {.stop_row = stopped};
        pg_result *result = generate(m, &b, 0, 2, &h);
        for (int64_t r = 0; r < 6; r++) {
            pg_result_info info = {.struct_size = sizeof info};
            bytes_free(&h.text[r]);
            OK(pg_result_get_info(result, r, &info));
            if (r != stopped) {
                same_row(result, r, whole, r);
                continue;
            }
            assert_int_equal(info.stop, PG_STOP_CALLBACK);
            assert_int_equal(info.n_new_tokens, 3);
        }
        pg_result_close(&result);
    }
    pg_result_close(&whole);
    free(b.pixels);
}

/* The prefix alone generates some tokens; forward on these as a suffix gives the logits that they were sampled from,
 * and a session that is given a part of them goes on with the rest. */
static void a_suffix_is_what_was_generated(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) {
        const tiny *m = &models[i];
        const int64_t v = m->info.vocab_size;
        for (int s = 0; s < 4; s++) {
            row_spec prefix = specs[s];
            prefix.n_suffix = 0;
            batch b, longer;
            pg_inputs *in = NULL;
            pg_session *session = NULL;
            pg_session_options options;
            int64_t tokens[NEW_TOKENS];
            float *logits = calloc((size_t)(NEW_TOKENS * v), sizeof *logits);
            OK(pg_session_options_init(&options, sizeof options));
            options.max_new_tokens = NEW_TOKENS;
            OK(pg_session_create(m->model, &options, &session));
            make_batch(&b, m, &prefix, 1, RIGHT, 2);
            OK(create(&b, m, 0, NULL, &in));
            OK(pg_session_prefill(session, in, NULL));
            pg_inputs_close(&in);
            pg_tensor now = {.struct_size = sizeof now};
            int n = 0;
            for (pg_status status = PG_OK; n < NEW_TOKENS && status == PG_OK; n++) {
                status = pg_session_step(session, &tokens[n]);
                OK(pg_session_get_logits(session, &now));
                memcpy(logits + n * v, now.data, (size_t)v * sizeof(float));
            }
            assert_int_equal(n, NEW_TOKENS);

            row_spec whole = prefix;
            whole.n_suffix = NEW_TOKENS - 1;
            make_batch(&longer, m, &whole, 1, LEFT, 1);
            int64_t *suffix = longer.ids + longer.n_tokens - whole.n_suffix;
            memcpy(suffix, tokens, (size_t)whole.n_suffix * sizeof *suffix);
            pg_outputs *out = forward(m, &longer, 0, 0);
            expect_close(logits_of(out, &longer, m) + (longer.n_tokens - NEW_TOKENS) * v, logits, NEW_TOKENS * v, 1e-5);
            pg_outputs_close(&out);
            free(longer.pixels);

            for (int given = 1; given < NEW_TOKENS; given++) {
                int64_t token;
                whole.n_suffix = given;
                make_batch(&longer, m, &whole, 1, given % 2 ? LEFT : RIGHT, 1);
                suffix = longer.ids + longer.first[0] + longer.length[0] - given;
                memcpy(suffix, tokens, (size_t)given * sizeof *suffix);
                OK(create(&longer, m, 0, NULL, &in));
                OK(pg_session_prefill(session, in, NULL));
                pg_inputs_close(&in);
                for (int k = given; k < NEW_TOKENS; k++) {
                    pg_status status = pg_session_step(session, &token);
                    assert_true(status >= 0);
                    OK(pg_session_get_logits(session, &now));
                    expect_close(now.data, logits + k * v, v, 1e-5);
                    assert_int_equal(token, tokens[k]);
                }
                free(longer.pixels);
            }
            pg_session_close(&session);
            free(logits);
            free(b.pixels);
        }
    }
}

/* -------------------------------------------------------------------------------------------------- long rows */

/* One row of n ids without images; the last n_suffix are suffix. */
static pg_inputs *text_row(const int64_t *ids, int64_t n, int64_t n_suffix) {
    int64_t *types = calloc((size_t)n, sizeof *types);
    for (int64_t t = n - n_suffix; t < n; t++) types[t] = 1;
    const pg_tensor rows = {
        .struct_size = sizeof rows, .dtype = PG_DTYPE_I64, .n_dims = 2, .shape = {1, n, 1, 1}, .data = ids};
    pg_tensor of_types = rows;
    of_types.data = types;
    pg_input_arrays arrays;
    pg_inputs *in = NULL;
    OK(pg_input_arrays_init(&arrays, sizeof arrays));
    arrays.input_ids = &rows;
    arrays.token_type_ids = &of_types;
    OK(pg_inputs_create(&arrays, &in));
    free(types);
    return in;
}

static void draw_ids(const tiny *m, uint64_t seed, int64_t *ids, int64_t n) {
    rng random = {seed};
    for (int64_t t = 0; t < n; t++) ids[t] = 4 + (int64_t)rng_below(&random, (uint64_t)m->image_id - 4);
}

static int64_t arg_max(const float *x, int64_t n) {
    int64_t best = 0;
    for (int64_t i = 1; i < n; i++)
        if (x[i] > x[best]) best = i;
    return best;
}

/* The ids that generation gives for a prompt, which one forward pass over prompt and ids must foretell: where the two
 * best logits are further apart than rounding. */
static void expect_foretold(const tiny *m, const int64_t *prompt, int64_t n_prompt, const int64_t *ids, int64_t n) {
    const int64_t v = m->info.vocab_size;
    int64_t *all = malloc((size_t)(n_prompt + n) * sizeof *all), differ = 0;
    memcpy(all, prompt, (size_t)n_prompt * sizeof *all);
    memcpy(all + n_prompt, ids, (size_t)n * sizeof *all);
    pg_inputs *in = text_row(all, n_prompt + n, n);
    pg_forward_options options = options_of(0);
    options.logits_to_keep = n + 1;
    pg_outputs *out = NULL;
    OK(pg_forward(m->model, in, &options, &out));
    const float *logits = get(out, "logits", 3, 1, n + 1, v, 1);
    for (int64_t i = 0; i < n; i++) {
        const float *x = logits + i * v;
        const float best = x[arg_max(x, v)];
        assert_true(best - x[ids[i]] <= 1e-4f * (1 + fabsf(best)));
        differ += arg_max(x, v) != ids[i];
    }
    assert_true(differ * 50 <= n);
    pg_outputs_close(&out);
    pg_inputs_close(&in);
    free(all);
}

/* The ids of a session with its limits; *last: what the last step returned. */
static int64_t step_through(const tiny *m, const pg_inputs *in, int32_t max_new_tokens, int64_t max_context,
                            int64_t *ids, pg_status *last) {
    pg_session_options options;
    pg_session *session = NULL;
    int64_t n = 0, token = -9;
    OK(pg_session_options_init(&options, sizeof options));
    options.max_new_tokens = max_new_tokens;
    options.max_context = max_context;
    options.n_threads = 1;
    OK(pg_session_create(m->model, &options, &session));
    OK(pg_session_prefill(session, in, NULL));
    while ((*last = pg_session_step(session, &token)) == PG_OK || *last == PG_EVENT_EOS) {
        ids[n++] = token;
        if (*last == PG_EVENT_EOS) break;
    }
    pg_session_close(&session);
    return n;
}

static pg_result *generate_row(const tiny *m, const pg_inputs *in, int32_t max_new_tokens, int64_t max_context) {
    pg_generate_options options;
    pg_result *result = NULL;
    OK(pg_generate_options_init(&options, sizeof options));
    options.max_new_tokens = max_new_tokens;
    options.max_context = max_context;
    options.n_threads = 1;
    OK(pg_generate(m->model, m->processor, in, &options, &result));
    return result;
}

/* Prompts and answers beyond 8192 tokens: no number of the model's is an end. */
static void rows_of_more_than_8192_tokens(void **state) {
    enum { PROMPT = 8300, NEW = 20 };
    static int64_t prompt[PROMPT], stepped[NEW];
    (void)state;
    for (int i = 0; i < 2; i++) {
        const tiny *m = &models[i];
        draw_ids(m, 31, prompt, PROMPT);
        pg_inputs *in = text_row(prompt, PROMPT, 0);
        pg_result *result = generate_row(m, in, NEW, 0);
        pg_tensor ids = {.struct_size = sizeof ids};
        pg_result_info info = {.struct_size = sizeof info};
        pg_status last;
        OK(pg_result_get_ids(result, 0, &ids));
        OK(pg_result_get_info(result, 0, &info));
        assert_int_equal(info.n_prompt_tokens, PROMPT);
        assert_true(info.stop == PG_STOP_EOS || (info.stop == PG_STOP_LENGTH && ids.shape[0] == NEW));
        assert_int_equal(step_through(m, in, NEW, 0, stepped, &last), ids.shape[0]);
        assert_memory_equal(stepped, ids.data, (size_t)ids.shape[0] * sizeof *stepped);
        expect_foretold(m, prompt, PROMPT, ids.data, ids.shape[0]);
        pg_result_close(&result);
        pg_inputs_close(&in);
    }
}

/* "No limit" as people write it takes no memory for two thousand million tokens, and what does come is right: the cache
 * grew on the way. Which prompt leads to no eos is found by trying. */
static void memory_grows_with_the_answer(void **state) {
    enum { NEW = PGI_FIRST_NEW_TOKENS + 300, PROMPT = 9, TRIES = 60 };
    static int64_t prompt[PROMPT], stepped[NEW];
    const tiny *m = &models[1];
    pg_inputs *in = NULL;
    pg_result *result = NULL;
    pg_tensor ids = {.struct_size = sizeof ids};
    pg_result_info info = {.struct_size = sizeof info};
    pg_status last;
    (void)state;
    for (uint64_t seed = 0;; seed++) {
        assert_true(seed < TRIES);
        draw_ids(m, seed, prompt, PROMPT);
        in = text_row(prompt, PROMPT, 0);
        result = generate_row(m, in, INT32_MAX, PROMPT + NEW);
        OK(pg_result_get_info(result, 0, &info));
        if (info.stop == PG_STOP_CONTEXT) break;
        pg_result_close(&result);
        pg_inputs_close(&in);
    }
    OK(pg_result_get_ids(result, 0, &ids));
    assert_int_equal(ids.shape[0], NEW);
    assert_int_equal(step_through(m, in, INT32_MAX, PROMPT + NEW, stepped, &last), NEW);
    assert_int_equal(last, PG_EVENT_CONTEXT);
    assert_memory_equal(stepped, ids.data, sizeof stepped);
    expect_foretold(m, prompt, PROMPT, ids.data, NEW);

    /* where it cannot grow, the session says so and can be prefilled again */
    counter memory;
    tiny counted = models[1];
    pg_session_options options;
    pg_session *session = NULL;
    int64_t token;
    counter_init(&memory);
    open_tiny(&counted, NULL, &memory);
    OK(pg_session_options_init(&options, sizeof options));
    options.max_prompt_tokens = PROMPT;
    options.max_new_tokens = NEW;
    options.n_threads = 1;
    OK(pg_session_create(counted.model, &options, &session));
    OK(pg_session_prefill(session, in, NULL));
    const int64_t n_allocs = memory.n_allocs;
    for (int i = 0; i < PGI_FIRST_NEW_TOKENS; i++) OK(pg_session_step(session, &token));
    assert_int_equal(memory.n_allocs, n_allocs);
    for (int i = 1; i <= 2; i++) { /* keys, values; the prefill left enough for the workspace */
        memory.fail_from = memory.n_allocs + i;
        ERROR(pg_session_step(session, &token), PG_ERROR_MEMORY);
        ERROR(pg_session_step(session, &token), PG_ERROR_STATE);
        memory.fail_from = 0;
        OK(pg_session_prefill(session, in, NULL));
        for (int k = 0; k < PGI_FIRST_NEW_TOKENS; k++) OK(pg_session_step(session, &token));
    }
    OK(pg_session_step(session, &token));
    assert_int_equal(token, stepped[PGI_FIRST_NEW_TOKENS]);
    pg_session_close(&session);
    pg_model_close(&counted.model);
    pg_processor_close(&counted.processor);
    assert_true(counter_clean(&memory));
    pg_result_close(&result);
    pg_inputs_close(&in);
}

static void the_context_ends_an_answer(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) {
        const tiny *m = &models[i];
        batch b;
        pg_inputs *in = NULL;
        pg_generate_options options;
        pg_result *limited = NULL;
        make_batch(&b, m, specs, 5, i ? RIGHT : LEFT, 2);
        pg_result *free_result = generate(m, &b, 0, 1, NULL);
        OK(create(&b, m, 0, NULL, &in));
        OK(pg_generate_options_init(&options, sizeof options));
        options.max_new_tokens = NEW_TOKENS;
        int64_t longest = 0;
        for (int r = 0; r < 5; r++) longest = b.length[r] > longest ? b.length[r] : longest;
        for (int64_t more = 0; more <= NEW_TOKENS; more++) {
            options.max_context = longest + more;
            OK(pg_generate(m->model, m->processor, in, &options, &limited));
            for (int r = 0; r < 5; r++) {
                pg_tensor few = {.struct_size = sizeof few}, all = few;
                pg_result_info info = {.struct_size = sizeof info}, free_info = info;
                const int64_t room = longest + more - b.length[r];
                OK(pg_result_get_ids(limited, r, &few));
                OK(pg_result_get_ids(free_result, r, &all));
                OK(pg_result_get_info(limited, r, &info));
                OK(pg_result_get_info(free_result, r, &free_info));
                const int ends = room < all.shape[0]; /* an eos that still fits ends the row as ever */
                assert_int_equal(few.shape[0], ends ? room : all.shape[0]);
                assert_memory_equal(few.data, all.data, (size_t)few.shape[0] * sizeof(int64_t));
                assert_int_equal(info.stop, ends ? PG_STOP_CONTEXT : free_info.stop);
                assert_int_equal(info.n_prompt_tokens, b.length[r]);
            }
            pg_result_close(&limited);
        }
        char numbers[128];
        options.max_context = longest - 1;
        ERROR(pg_generate(m->model, m->processor, in, &options, &limited), PG_ERROR_LIMIT);
        snprintf(numbers, sizeof numbers,
                 "is %lld tokens long, image tokens included, expected at most max_context, "
                 "%lld",
                 (long long)longest, (long long)longest - 1);
        assert_non_null(strstr(pg_last_error(), numbers));
        options.max_context = -1;
        ARGUMENT(pg_generate(m->model, m->processor, in, &options, &limited));
        assert_non_null(strstr(pg_last_error(), "max_context is -1"));
        pg_result_close(&free_result);
        pg_inputs_close(&in);
        free(b.pixels);
    }
}

static void the_context_ends_a_session(void **state) {
    (void)state;
    const tiny *m = &models[0];
    int64_t prompt[9], all[8], few[8];
    pg_status last;
    draw_ids(m, 3, prompt, 9);
    pg_inputs *in = text_row(prompt, 9, 2);
    const int64_t n = step_through(m, in, 8, 0, all, &last);
    for (int64_t room = 0; room <= 8; room++) {
        const int64_t n_few = step_through(m, in, 8, 9 + room, few, &last);
        assert_int_equal(n_few, n < room ? n : room);
        assert_memory_equal(few, all, (size_t)n_few * sizeof *few);
        if (room < n) assert_int_equal(last, PG_EVENT_CONTEXT);
        if (room == 8 && n == 8) assert_true(last == PG_EVENT_LENGTH || last == PG_EVENT_EOS);
    }
    pg_session_options options;
    pg_session *session = NULL;
    OK(pg_session_options_init(&options, sizeof options));
    options.max_context = 8;
    OK(pg_session_create(m->model, &options, &session));
    ERROR(pg_session_prefill(session, in, NULL), PG_ERROR_LIMIT);
    assert_non_null(strstr(pg_last_error(), "row 0 is 9 tokens long"));
    assert_non_null(strstr(pg_last_error(), "max_context, 8"));
    pg_session_close(&session);
    options.max_prompt_tokens = 9;
    ARGUMENT(pg_session_create(m->model, &options, &session));
    assert_non_null(strstr(pg_last_error(), "max_prompt_tokens is 9, expected 0 (default) to max_context, 8"));
    options.max_prompt_tokens = 0;
    options.max_context = -5;
    ARGUMENT(pg_session_create(m->model, &options, &session));
    pg_inputs_close(&in);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(batches_generate_what_rows_do),  cmocka_unit_test(batches_take_features_too),
        cmocka_unit_test(ids_need_no_processor),          cmocka_unit_test(positions_are_the_callers),
        cmocka_unit_test(steps_together_are_steps_alone), cmocka_unit_test(a_callback_ends_its_row_alone),
        cmocka_unit_test(a_suffix_is_what_was_generated), cmocka_unit_test(rows_of_more_than_8192_tokens),
        cmocka_unit_test(memory_grows_with_the_answer),   cmocka_unit_test(the_context_ends_an_answer),
        cmocka_unit_test(the_context_ends_a_session),
    };
    return RUN_TESTS(tests, open_models, close_models);
}
