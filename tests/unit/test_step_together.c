/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* pg_session_step_together(): each session gets the bits that it gets alone, and what befalls one does nothing to the
 * others. Sessions that share threads. */
#include "run_tests.h"

#include "api_fixture.h"

enum { MOST = 21, N_STEPS = 12 };

static const char *const prompts[] = {"the", "the cat", "cat in the", "in", "the the the cat"};

static const struct {
    int gemma_version;
    int32_t weights;
} kinds[] = {{1, PG_WEIGHTS_STORED}, {2, PG_WEIGHTS_STORED}, {2, PG_WEIGHTS_INT8}, {1, PG_WEIGHTS_INT4}};

typedef struct world {
    char folder[512];
    pg_model *model;
    pg_processor *processor;
    int64_t vocab_size;
} world;

static world open_world(int kind) {
    world w = {.model = NULL};
    tiny_options tiny = kinds[kind].gemma_version == 1 ? tiny_official() : tiny_saved_today();
    pg_model_options options;
    pg_model_info info = {.struct_size = sizeof info};
    make_temp_folder(w.folder, sizeof w.folder);
    tiny_write(w.folder, &tiny);
    OK(pg_model_options_init(&options, sizeof options));
    options.weights = kinds[kind].weights;
    OK(pg_model_open(w.folder, &options, &w.model));
    OK(pg_processor_open(w.folder, NULL, &w.processor));
    OK(pg_model_get_info(w.model, &info));
    w.vocab_size = info.vocab_size;
    return w;
}

static void close_world(world *w) {
    pg_processor_close(&w->processor);
    pg_model_close(&w->model);
    remove_folder(w->folder);
}

/* Session `i` with its own image and prompt, ready for its first token. */
static pg_session *begin_session(const world *w, int i, pg_session_options *options) {
    pg_session *session = NULL;
    pg_inputs *in = NULL;
    pg_image image;
    bytes file = tiny_image(IMAGE_PNG, 20 + i, 16, (uint64_t)i);
    OK(pg_image_from_bytes(&image, sizeof image, file.data, file.size));
    OK(pg_processor_encode(w->processor, i % 4 == 3 ? NULL : &image, prompts[i % 5], NULL, &in));
    OK(pg_session_create(w->model, options, &session));
    if (i % 4 == 3) { /* an image that another session has, too */
        pg_features *features = NULL;
        pg_inputs *with_image = NULL;
        OK(pg_processor_encode(w->processor, &image, "the", NULL, &with_image));
        OK(pg_features_create(w->model, with_image, NULL, &features));
        OK(pg_session_prefill(session, in, features));
        pg_features_close(&features);
        pg_inputs_close(&with_image);
    } else {
        OK(pg_session_prefill(session, in, NULL));
    }
    pg_inputs_close(&in);
    bytes_free(&file);
    return session;
}

static pg_session_options session_options(void) {
    pg_session_options options;
    OK(pg_session_options_init(&options, sizeof options));
    options.max_new_tokens = N_STEPS - 2; /* the last steps give PG_EVENT_LENGTH */
    options.n_threads = 2;
    return options;
}

/* What each session gives alone, by steps of which every third draws. */
typedef struct told {
    int64_t token;
    pg_status status;
    float *logits;
} told;

static pg_status draw(pg_session *session, int i, int step, int64_t *token) {
    pg_sampling_options drawn;
    OK(pg_sampling_options_init(&drawn, sizeof drawn));
    drawn.flags = PG_SAMPLING_RANDOM;
    drawn.seed = (uint64_t)(100 * i + step);
    return pg_session_sample(session, &drawn, token);
}

static void keep_logits(const world *w, pg_session *session, told *out) {
    pg_tensor logits = {.struct_size = sizeof logits};
    OK(pg_session_get_logits(session, &logits));
    out->logits = malloc((size_t)w->vocab_size * sizeof(float));
    memcpy(out->logits, logits.data, (size_t)w->vocab_size * sizeof(float));
}

static void alone(const world *w, int i, told *out) {
    pg_session_options options = session_options();
    pg_session *session = begin_session(w, i, &options);
    int ended = 0;
    for (int s = 0; s < N_STEPS; s++) {
        out[s] = (told){-1, PG_OK, NULL};
        if (ended) continue;
        out[s].status = s % 3 == 2 ? draw(session, i, s, &out[s].token) : pg_session_step(session, &out[s].token);
        ended = out[s].status == PG_EVENT_EOS;
        keep_logits(w, session, &out[s]);
    }
    pg_session_close(&session);
}

static void check_step(const world *w, pg_session *session, const told *wanted, int64_t token, pg_status status) {
    told found;
    assert_int_equal(status, wanted->status);
    assert_true(token == wanted->token);
    keep_logits(w, session, &found);
    assert_memory_equal(found.logits, wanted->logits, (size_t)w->vocab_size * sizeof(float));
    free(found.logits);
}

static void together(const world *w, int n, told (*wanted)[N_STEPS], int shares_threads) {
    pg_session *sessions[MOST];
    pg_session_options options = session_options();
    for (int i = 0; i < n; i++) {
        sessions[i] = begin_session(w, i, &options);
        if (shares_threads) options.threads_of = sessions[0];
    }
    for (int s = 0; s < N_STEPS; s++) {
        pg_session *running[MOST];
        int64_t tokens[MOST];
        pg_status statuses[MOST];
        int of[MOST], m = 0;
        for (int i = 0; i < n; i++)
            if (wanted[i][s].logits) {
                of[m] = i;
                tokens[m] = -1;
                running[m++] = sessions[i];
            }
        if (m == 0) break;
        const int draws = s % 3 == 2;
        OK(pg_session_step_together(running, m, draws ? NULL : tokens, statuses));
        for (int k = 0; k < m; k++) {
            if (draws && statuses[k] == PG_OK) statuses[k] = draw(running[k], of[k], s, &tokens[k]);
            check_step(w, running[k], &wanted[of[k]][s], tokens[k], statuses[k]);
        }
    }
    for (int i = 0; i < n; i++) pg_session_close(&sessions[i]);
}

static void sessions_together_are_the_single_ones(void **state) {
    (void)state;
    for (int kind = 0; kind < 4; kind++) {
        static told wanted[MOST][N_STEPS];
        world w = open_world(kind);
        for (int i = 0; i < MOST; i++) alone(&w, i, wanted[i]);
        static const int sizes[] = {1, 2, 5, MOST};
        for (int k = 0; k < 4; k++) together(&w, sizes[k], wanted, k % 2);
        for (int i = 0; i < MOST; i++)
            for (int s = 0; s < N_STEPS; s++) free(wanted[i][s].logits);
        close_world(&w);
    }
}

static void one_that_fails_leaves_the_others(void **state) {
    (void)state;
    world w = open_world(2);
    told wanted[N_STEPS];
    pg_session_options options = session_options();
    pg_cancel *cancel = NULL;
    OK(pg_cancel_create(&cancel));
    alone(&w, 0, wanted);
    pg_session *sessions[4];
    pg_status statuses[4];
    int64_t tokens[4] = {-1, -1, -1, -1};
    sessions[0] = begin_session(&w, 0, &options);
    options.cancel = cancel;
    sessions[1] = begin_session(&w, 1, &options);
    options.cancel = NULL;
    OK(pg_session_create(w.model, &options, &sessions[2])); /* no prompt */
    sessions[3] = sessions[0];                              /* twice */
    ERROR(pg_session_step_together(sessions, 4, tokens, statuses), PG_ERROR_STATE);
    assert_int_equal(pg_last_error_row(), 3);
    assert_non_null(strstr(pg_last_error(), "sessions[3]"));
    assert_int_equal(statuses[0], wanted[0].status);
    assert_true(tokens[0] == wanted[0].token && tokens[2] == -1 && tokens[3] == -1);
    assert_int_equal(statuses[1], PG_OK);
    assert_int_equal(statuses[2], PG_ERROR_STATE);
    assert_int_equal(statuses[3], PG_ERROR_STATE);
    pg_cancel_request(cancel);
    ERROR(pg_session_step_together(sessions, 2, tokens, statuses), PG_ERROR_CANCELLED);
    assert_int_equal(pg_last_error_row(), 1);
    assert_int_equal(statuses[1], PG_ERROR_CANCELLED);
    check_step(&w, sessions[0], &wanted[1], tokens[0], statuses[0]);
    ERROR(pg_session_step_together(sessions + 1, 1, tokens, statuses), PG_ERROR_STATE); /* it has no prompt any more */
    for (int i = 0; i < 3; i++) pg_session_close(&sessions[i]);
    for (int s = 0; s < N_STEPS; s++) free(wanted[s].logits);
    pg_cancel_close(&cancel);
    close_world(&w);
}

static void bad_groups(void **state) {
    (void)state;
    world w = open_world(0), other = open_world(1);
    pg_session_options options = session_options();
    pg_session *sessions[2] = {begin_session(&w, 0, &options), NULL};
    pg_status statuses[2];
    int64_t token = -1;
    ARGUMENT(pg_session_step_together(NULL, 1, &token, statuses));
    ARGUMENT(pg_session_step_together(sessions, 1, &token, NULL));
    ARGUMENT(pg_session_step_together(sessions, 0, &token, statuses));
    ARGUMENT(pg_session_step_together(sessions, 1025, &token, statuses));
    ARGUMENT(pg_session_step_together(sessions, 2, &token, statuses));
    assert_non_null(strstr(pg_last_error(), "sessions[1] is NULL"));
    sessions[1] = begin_session(&other, 0, &options);
    ARGUMENT(pg_session_step_together(sessions, 2, &token, statuses));
    assert_non_null(strstr(pg_last_error(), "another base model"));
    assert_int_equal(pg_last_error_row(), 1);
    options.threads_of = sessions[0];
    pg_session *refused = NULL;
    ARGUMENT(pg_session_create(other.model, &options, &refused));
    options.n_threads = 3;
    ARGUMENT(pg_session_create(w.model, &options, &refused));
    assert_non_null(strstr(pg_last_error(), "n_threads is 3, expected 0 or 2"));
    assert_int_equal(token, -1);
    pg_session_close(&sessions[0]);
    pg_session_close(&sessions[1]);
    close_world(&other);
    close_world(&w);
}

/* A callback of one session uses another on the same threads. */
static pg_session *sharing[2];
static pg_status refused;

static int32_t use_the_other(void *user, int32_t phase, int64_t done, int64_t total) {
    int64_t token, tokens[2];
    pg_status statuses[2];
    (void)user, (void)phase, (void)done, (void)total;
    if (!sharing[0] || refused < 0) return 0;
    refused = pg_session_step(sharing[1], &token);
    if (refused == PG_ERROR_STATE) refused = pg_session_step_together(&sharing[1], 1, tokens, statuses);
    assert_non_null(strstr(pg_last_error(), "threads"));
    return 0;
}

static void shared_threads(void **state) {
    (void)state;
    world w = open_world(0);
    pg_session_options options = session_options();
    options.n_threads = 3;
    options.progress = use_the_other;
    sharing[0] = NULL;
    pg_session *first = begin_session(&w, 0, &options);
    options.n_threads = 0;
    options.threads_of = first;
    options.progress = NULL;
    const int with_first = count_threads();
    pg_session *second = begin_session(&w, 1, &options);
    assert_int_equal(count_threads(), with_first);
    sharing[1] = second;
    sharing[0] = first;
    int64_t token;
    refused = PG_OK;
    OK(pg_session_step(first, &token));
    OK(pg_session_step(first, &token)); /* now there is a token to feed */
    assert_int_equal(refused, PG_ERROR_STATE);
    sharing[0] = NULL;
    pg_session_close(&first); /* the second still has the threads */
    OK(pg_session_step(second, &token));
    OK(pg_session_step(second, &token));
    pg_session_close(&second);
    close_world(&w);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sessions_together_are_the_single_ones),
        cmocka_unit_test(one_that_fails_leaves_the_others),
        cmocka_unit_test(bad_groups),
        cmocka_unit_test(shared_threads),
    };
    return RUN_TESTS(tests, NULL, NULL);
}
