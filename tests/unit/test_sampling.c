/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Random draws: the generator, their frequencies, and that a row's answer depends on nothing but its own. Settings:
 * their ranges, and what a few of them do; their numbers are compared by golden and oracle tests. */
#include "run_tests.h"

#include <math.h>

#include "forward_fixture.h"
#include "generate/processors.h"
#include "generate/random.h"

/* The known answers of Random123's kat_vectors. */
static void philox_is_philox(void **state) {
    static const struct {
        uint32_t words[4], key[2], answer[4];
    } known[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    (void)state;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        uint32_t words[4];
        memcpy(words, known[i].words, sizeof words);
        pgi_philox(known[i].key, words);
        assert_memory_equal(words, known[i].answer, sizeof words);
    }
    assert_true(pgi_random(0, 0, 0) == UINT64_C(0xe169c58d6627e8d5));
    assert_true(pgi_random(UINT64_C(0x299f31d0a4093822), UINT64_C(0x0370734413198a2e), UINT64_C(0x85a308d3243f6a88)) ==
                UINT64_C(0x94fdccebd16cfe09));
}

static void draws_fall_where_they_should(void **state) {
    const float scores[] = {-INFINITY, 0, NAN, -0.6931472f, 0, -40};
    (void)state;
    assert_int_equal(pgi_draw(scores, 6, 0), 1);
    assert_int_equal(pgi_draw(scores, 6, UINT64_MAX), 4);
    assert_int_equal(pgi_draw(scores, 6, UINT64_C(0x6000000000000000)), 1);
    assert_int_equal(pgi_draw(scores, 6, UINT64_C(0x7000000000000000)), 3);
    assert_int_equal(pgi_draw(scores, 6, UINT64_C(0x9fffff0000000000)), 4);
    assert_int_equal(pgi_draw((const float[]){1, INFINITY, 2}, 3, UINT64_MAX), 1);
    assert_int_equal(pgi_draw((const float[]){-INFINITY, NAN}, 2, UINT64_MAX), 0);
}

/* Chi-square of 100,000 draws each, with 39 degrees of freedom: above 79.0 in 1 of 10,000. */
static void frequencies_are_probabilities(void **state) {
    enum { N = 40, DRAWS = 100000 };
    (void)state;
    for (uint64_t seed = 1; seed <= 5; seed++) {
        rng random = {seed};
        float scores[N];
        double p[N], sum = 0, chi = 0;
        int64_t counts[N] = {0};
        for (int i = 0; i < N; i++) scores[i] = 2 * rng_unit(&random), sum += p[i] = exp(scores[i]);
        for (uint64_t t = 0; t < DRAWS; t++) counts[pgi_draw(scores, N, pgi_random(seed, 3, t))]++;
        for (int i = 0; i < N; i++) {
            const double wanted = DRAWS * p[i] / sum;
            chi += ((double)counts[i] - wanted) * ((double)counts[i] - wanted) / wanted;
        }
        if (chi > 79.0 || chi < 10) fail_msg("seed %d: chi-square %g, expected about 39", (int)seed, chi);
    }
}

/* ------------------------------------------------------------------------------------------------- in a generation */

static pg_status sampled(const tiny *m, const batch *b, const pg_sampling_options *sampling, int n_threads,
                         pg_result **out) {
    pg_generate_options options;
    pg_inputs *in = NULL;
    OK(pg_generate_options_init(&options, sizeof options));
    options.max_new_tokens = NEW_TOKENS;
    options.n_threads = n_threads;
    options.sampling = sampling;
    options.flags = PG_GENERATE_SCORES;
    OK(create(b, m, 0, NULL, &in));
    pg_status status = pg_generate(m->model, m->processor, in, &options, out);
    pg_inputs_close(&in);
    return status;
}

static pg_sampling_options random_options(void) {
    pg_sampling_options s;
    OK(pg_sampling_options_init(&s, sizeof s));
    s.flags = PG_SAMPLING_RANDOM | PG_SAMPLING_IGNORE_EOS;
    s.seed = 5;
    s.temperature = 3;
    s.top_k = 0;
    return s;
}

static int differs(const pg_result *a, int64_t row_a, const pg_result *b, int64_t row_b) {
    pg_tensor x = {.struct_size = sizeof x}, y = x;
    OK(pg_result_get_ids(a, row_a, &x));
    OK(pg_result_get_ids(b, row_b, &y));
    return x.shape[0] != y.shape[0] || memcmp(x.data, y.data, (size_t)x.shape[0] * sizeof(int64_t)) != 0;
}

static void a_row_draws_what_it_draws_alone(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) {
        const tiny *m = &models[i];
        for (int streams = 0; streams < 2; streams++) {
            batch b, alone;
            pg_sampling_options s = random_options();
            pg_result *together = NULL, *threads = NULL, *other = NULL;
            if (streams) s.flags |= PG_SAMPLING_ROW_STREAMS;
            make_batch(&b, m, specs, 6, LEFT, 1);
            OK(sampled(m, &b, &s, 1, &together));
            OK(sampled(m, &b, &s, 3, &threads));
            s.seed = 6;
            OK(sampled(m, &b, &s, 1, &other));
            s.seed = 5;
            for (int r = 0; r < 6; r++) {
                pg_result *single = NULL;
                make_batch(&alone, m, &specs[r], 1, LEFT, 0);
                s.stream = streams ? (uint64_t)r : 0;
                OK(sampled(m, &alone, &s, 1, &single));
                s.stream = 0;
                same_row(together, r, single, 0);
                same_row(together, r, threads, r);
                assert_true(differs(together, r, other, r));
                pg_result_close(&single);
                free(alone.pixels);
            }
            pg_result_close(&together);
            pg_result_close(&threads);
            pg_result_close(&other);
            free(b.pixels);
        }
    }
}

static void equal_rows_differ_by_stream_alone(void **state) {
    const tiny *m = &models[0];
    const row_spec same[] = {specs[0], specs[0], specs[0]};
    batch b;
    pg_sampling_options s = random_options();
    pg_result *result = NULL;
    (void)state;
    make_batch(&b, m, same, 3, LEFT, 0);
    OK(sampled(m, &b, &s, 1, &result));
    assert_true(!differs(result, 0, result, 1) && !differs(result, 0, result, 2));
    pg_result_close(&result);
    s.flags |= PG_SAMPLING_ROW_STREAMS;
    OK(sampled(m, &b, &s, 1, &result));
    assert_true(differs(result, 0, result, 1) && differs(result, 0, result, 2) && differs(result, 1, result, 2));
    pg_result_close(&result);
    free(b.pixels);
}

/* Every token of a temperature near 0 is the greedy one. */
static void cold_is_greedy(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) {
        batch b;
        pg_sampling_options s = random_options();
        pg_result *cold = NULL;
        make_batch(&b, &models[i], specs, 4, LEFT, 0);
        pg_result *greedy = generate(&models[i], &b, 0, 1, NULL);
        s.temperature = 1e-5;
        s.flags = PG_SAMPLING_RANDOM;
        OK(sampled(&models[i], &b, &s, 1, &cold));
        for (int64_t r = 0; r < 4; r++) same_row(cold, r, greedy, r);
        pg_result_close(&cold);
        pg_result_close(&greedy);
        free(b.pixels);
    }
}

typedef struct masking {
    const tiny *m;
    int64_t allowed[2];
    int nothing_at; /* the step at which nothing is allowed; -1: none */
    int stop_at;
    int64_t n_prompt;
} masking;

static int32_t mask(void *user, int64_t row, const int64_t *ids, int64_t n_ids, uint32_t *bits, int64_t vocab_size) {
    const masking *of = user;
    const int64_t step = n_ids - of->n_prompt;
    (void)row, (void)ids;
    for (int64_t i = 0; i < (vocab_size + 31) / 32; i++) assert_int_equal(bits[i], 0);
    if (step == of->stop_at) return 1;
    if (step == of->nothing_at) return 0;
    for (int i = 0; i < 2; i++) bits[of->allowed[i] / 32] |= UINT32_C(1) << of->allowed[i] % 32;
    return 0;
}

/* No id ends a row, and min_new_tokens keeps out the ids that would. */
static void eos_ids_count_while_they_end_nothing(void **state) {
    const tiny *m = &models[1];
    batch b;
    pg_sampling_options s;
    pg_result *result = NULL;
    pg_tensor free_ids = {.struct_size = sizeof free_ids}, ids = {.struct_size = sizeof ids};
    (void)state;
    make_batch(&b, m, specs, 1, LEFT, 0);
    OK(pg_sampling_options_init(&s, sizeof s));
    s.flags = PG_SAMPLING_IGNORE_EOS;
    OK(sampled(m, &b, &s, 1, &result));
    OK(pg_result_get_ids(result, 0, &free_ids));
    const int64_t second = ((const int64_t *)free_ids.data)[1];
    pg_result_close(&result);
    s.eos_ids = &second;
    s.n_eos_ids = 1;
    for (int min = 0; min <= 2; min += 2) {
        s.min_new_tokens = min;
        OK(sampled(m, &b, &s, 1, &result));
        OK(pg_result_get_ids(result, 0, &ids));
        assert_int_equal(ids.shape[0], NEW_TOKENS);
        assert_true((((const int64_t *)ids.data)[1] == second) == (min == 0));
        pg_result_close(&result);
    }
    free(b.pixels);
}

/* The same ids end a session's text, wherever they lie in the list and in a word of bits, once the least is there. */
static void eos_ids_end_a_session(void **state) {
    const tiny *m = &models[1];
    batch b;
    pg_sampling_options s;
    pg_session_options options;
    pg_session *session = NULL;
    pg_inputs *in = NULL;
    int64_t greedy, token;
    (void)state;
    make_batch(&b, m, specs, 1, LEFT, 0);
    OK(create(&b, m, 0, NULL, &in));
    OK(pg_session_options_init(&options, sizeof options));
    OK(pg_session_create(m->model, &options, &session));
    OK(pg_session_prefill(session, in, NULL));
    OK(pg_session_step(session, &greedy));
    const int64_t other = greedy == 31 ? 30 : 31, last = m->info.vocab_size - 1;
    const int64_t lists[][3] = {
        {greedy, other, last}, {other, last, greedy}, {other, greedy, greedy}, {other, last, 0}};
    OK(pg_sampling_options_init(&s, sizeof s));
    s.n_eos_ids = 3;
    for (int i = 0; i < 4; i++)
        for (s.min_new_tokens = 0; s.min_new_tokens < 2; s.min_new_tokens++) {
            const int64_t *ids = s.eos_ids = lists[i];
            OK(pg_session_prefill(session, in, NULL));
            const pg_status status = pg_session_sample(session, &s, &token);
            const int held = i < 3 && s.min_new_tokens > 0;
            assert_int_equal(status, i < 3 && !held ? PG_EVENT_EOS : PG_OK);
            assert_int_equal(token == greedy, !held);
            if (held) assert_true(token != ids[0] && token != ids[1] && token != ids[2]);
        }
    pg_session_close(&session);
    pg_inputs_close(&in);
    free(b.pixels);
}

enum { FEW_IDS = 8 };

/* Scores of FEW_IDS ids, 0 or -INFINITY, behind ids [n]. */
static void scores_behind(const int64_t *ids, int64_t n, int64_t size, float *scores) {
    static float memory[4096];
    pgi_sampling sampling = {.vocab_size = FEW_IDS};
    const pgi_sampled_row row = {.ids = ids, .n_ids = n, .n_new = n};
    const pgi_sampling_workspace w = pgi_sampling_workspace_in(memory, FEW_IDS);
    int stop = 0;
    assert_true(pgi_sampling_workspace_size(FEW_IDS) <= 4096);
    OK(pg_sampling_options_init(&sampling.options, sizeof sampling.options));
    sampling.options.no_repeat_ngram_size = size;
    for (int i = 0; i < FEW_IDS; i++) w.scores[i] = 0;
    OK(pgi_process_logits(&sampling, &row, &w, &stop));
    memcpy(scores, w.scores, FEW_IDS * sizeof *scores);
}

/* The same ids are kept out as when each place is compared with the row's end. Ids beyond the vocabulary match, too. */
static void repeated_ngrams_are_found(void **state) {
    enum { MOST = 200 };
    (void)state;
    rng r = {11};
    for (int round = 0; round < 60000; round++) {
        int64_t ids[MOST];
        const uint64_t n_kinds = 1 + rng_below(&r, 4), period = 1 + rng_below(&r, 12);
        const int64_t n = 1 + (int64_t)rng_below(&r, round % 3 ? 24 : MOST);
        const int64_t size = 1 + (int64_t)rng_below(&r, (uint64_t)n + 1);
        for (int64_t i = 0; i < n; i++) { /* at random, or a period with a few ids that break it */
            const int again = i >= (int64_t)period && round % 2 && rng_below(&r, 20) > 0;
            ids[i] = again ? ids[i - (int64_t)period] : (int64_t)rng_below(&r, n_kinds) * 3 - 1; /* -1, 2, 5, 8 */
        }
        float wanted[FEW_IDS] = {0}, found[FEW_IDS];
        for (int64_t i = 0; i + size <= n; i++) {
            int64_t k = 0;
            while (k < size - 1 && ids[i + k] == ids[n - size + 1 + k]) k++;
            const int64_t id = ids[i + size - 1];
            if (k == size - 1 && id >= 0 && id < FEW_IDS) wanted[id] = -INFINITY;
        }
        scores_behind(ids, n, size, found);
        if (memcmp(found, wanted, sizeof wanted) != 0)
            fail_msg("round %d: %d ids, n-grams of %d", round, (int)n, (int)size);
    }
}

/* What takes milliseconds would take minutes if each place were compared. */
static void repeated_ngrams_take_linear_time(void **state) {
    enum { N = 1000000 };
    int64_t *ids = malloc(N * sizeof *ids);
    float scores[FEW_IDS];
    (void)state;
    assert_non_null(ids);
    for (int64_t unit = 1; unit <= 1000; unit *= 10) {
        for (int64_t i = 0; i < N; i++) ids[i] = i % unit == unit - 1 ? 5 : 2; /* 5 alone, then one of each 10 ... */
        for (int64_t size = 2; size < N; size = 2 * size + 1) {
            const int64_t next = N % unit == unit - 1 ? 5 : 2;
            scores_behind(ids, N, size, scores);
            assert_true(scores[next] == -INFINITY && scores[0] == 0 && scores[1] == 0);
        }
    }
    free(ids);
}

static void masks_keep_the_rest_out(void **state) {
    const tiny *m = &models[1];
    batch b;
    pg_sampling_options s = random_options();
    pg_result *result = NULL;
    pg_tensor t = {.struct_size = sizeof t};
    pg_result_info info = {.struct_size = sizeof info};
    masking of = {m, {7, m->info.vocab_size - 1}, -1, -1, 0};
    uint32_t *bits = calloc((size_t)m->info.vocab_size / 32 + 1, sizeof *bits);
    (void)state;
    make_batch(&b, m, specs, 1, LEFT, 0);
    of.n_prompt = b.length[0];
    s.on_mask = mask;
    s.on_mask_user = &of;
    for (int is_random = 0; is_random < 2; is_random++) {
        s.flags = is_random ? PG_SAMPLING_RANDOM : 0;
        s.flags |= PG_SAMPLING_IGNORE_EOS;
        OK(sampled(m, &b, &s, 1, &result));
        OK(pg_result_get_ids(result, 0, &t));
        for (int64_t i = 0; i < t.shape[0]; i++) {
            const int64_t id = ((const int64_t *)t.data)[i];
            assert_true(id == of.allowed[0] || id == of.allowed[1]);
        }
        pg_result_close(&result);
    }
    of.nothing_at = 3;
    ARGUMENT(sampled(m, &b, &s, 1, &result));
    assert_non_null(strstr(pg_last_error(), "row 0: on_mask allows no id as new token 3"));
    assert_int_equal(pg_last_error_row(), 0);
    of.stop_at = 2;
    OK(sampled(m, &b, &s, 1, &result));
    OK(pg_result_get_info(result, 0, &info));
    assert_int_equal(info.stop, PG_STOP_LOGITS);
    assert_int_equal(info.n_new_tokens, 2);
    pg_result_close(&result);
    of.stop_at = of.nothing_at = -1;
    bits[0] = 1 << 9; /* a token that the callback does not allow */
    s.token_mask = bits;
    ARGUMENT(sampled(m, &b, &s, 1, &result));
    assert_non_null(strstr(pg_last_error(), "leave no id as new token 0"));
    bits[0] |= 1 << 7;
    OK(sampled(m, &b, &s, 1, &result));
    OK(pg_result_get_ids(result, 0, &t));
    for (int64_t i = 0; i < t.shape[0]; i++) assert_int_equal(((const int64_t *)t.data)[i], 7);
    pg_result_close(&result);
    free(bits);
    free(b.pixels);
}

/* -------------------------------------------------------------------------------------------------------- sessions */

static pg_session *prefilled(const tiny *m, const pg_inputs *in, int32_t max_new_tokens) {
    pg_session_options options;
    pg_session *session = NULL;
    OK(pg_session_options_init(&options, sizeof options));
    options.n_threads = 1;
    options.max_new_tokens = max_new_tokens;
    OK(pg_session_create(m->model, &options, &session));
    OK(pg_session_prefill(session, in, NULL));
    return session;
}

static const float *session_logits(const pg_session *session) {
    pg_tensor t = {.struct_size = sizeof t};
    OK(pg_session_get_logits(session, &t));
    return t.data;
}

/* A session samples what pg_generate() samples; fed with that, it has the same logits at every step. */
static void a_session_samples_the_same(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) {
        const tiny *m = &models[i];
        const size_t size = (size_t)m->info.vocab_size * sizeof(float);
        batch b;
        pg_inputs *in = NULL;
        pg_result *result = NULL;
        pg_tensor t = {.struct_size = sizeof t};
        pg_sampling_options s = random_options();
        int64_t token = -1;
        s.repetition_penalty = 1.5;
        s.no_repeat_ngram_size = 2;
        s.forced_eos_ids = (const int64_t[]){9};
        s.n_forced_eos_ids = 1;
        make_batch(&b, m, specs, 1, LEFT, 0);
        OK(create(&b, m, 0, NULL, &in));
        OK(sampled(m, &b, &s, 1, &result));
        OK(pg_result_get_ids(result, 0, &t));
        const int64_t *ids = t.data;
        assert_int_equal(ids[NEW_TOKENS - 1], 9);
        pg_session *session = prefilled(m, in, NEW_TOKENS), *fed = prefilled(m, in, NEW_TOKENS);
        for (int k = 0; k < NEW_TOKENS; k++) {
            OK(pg_session_sample(session, &s, &token));
            assert_int_equal(token, ids[k]);
            assert_memory_equal(session_logits(session), session_logits(fed), size);
            if (k < NEW_TOKENS - 1) OK(pg_session_feed(fed, &ids[k], 1));
        }
        assert_int_equal(pg_session_sample(session, &s, &token), PG_EVENT_LENGTH);
        ERROR(pg_session_feed(fed, ids, 1), PG_ERROR_LIMIT);
        OK(pg_session_feed(fed, NULL, 0));
        OK(pg_session_sample(fed, &s, &token)); /* the draw of the last step, after tokens that were fed */
        assert_int_equal(token, ids[NEW_TOKENS - 1]);
        OK(pg_session_feed(fed, NULL, 0)); /* no tokens are left, and none is fed */
        ERROR(pg_session_feed(fed, ids, 1), PG_ERROR_LIMIT);
        assert_int_equal(pg_session_sample(fed, &s, &token), PG_EVENT_LENGTH);
        OK(pg_session_prefill(fed, in, NULL));
        OK(pg_session_feed(fed, ids, NEW_TOKENS - 1)); /* at once */
        assert_memory_equal(session_logits(session), session_logits(fed), size);
        pg_session_close(&session);
        pg_session_close(&fed);
        pg_result_close(&result);
        pg_inputs_close(&in);
        free(b.pixels);
    }
}

static int32_t never(void *user, int64_t row, const int64_t *ids, int64_t n_ids, float *logits, int64_t n) {
    (void)user, (void)row, (void)ids, (void)n_ids;
    for (int64_t i = 0; i < n; i++) logits[i] = -INFINITY;
    return user != NULL;
}

static void a_session_goes_on_after_a_refusal(void **state) {
    const tiny *m = &models[0];
    batch b;
    pg_inputs *in = NULL;
    pg_sampling_options s = random_options();
    int64_t token = -5, first, wrong[] = {4, m->info.vocab_size}, eos = 1;
    (void)state;
    make_batch(&b, m, specs, 1, LEFT, 0);
    OK(create(&b, m, 0, NULL, &in));
    pg_session *session = prefilled(m, in, NEW_TOKENS), *same = prefilled(m, in, NEW_TOKENS);
    OK(pg_session_sample(session, &s, &first));
    s.top_p = 2;
    ARGUMENT(pg_session_sample(session, &s, &token));
    s.top_p = 1;
    s.on_logits = never;
    ARGUMENT(pg_session_sample(session, &s, &token));
    s.on_logits_user = &s;
    assert_int_equal(pg_session_sample(session, &s, &token), PG_EVENT_STOP);
    assert_int_equal(token, -5);
    ARGUMENT(pg_session_feed(session, wrong, 2));
    ARGUMENT(pg_session_feed(session, NULL, 1));
    ARGUMENT(pg_session_feed(NULL, wrong, 1));
    ARGUMENT(pg_session_sample(session, NULL, NULL));
    ARGUMENT(pg_session_sample(NULL, NULL, &token));
    ERROR(pg_session_feed(session, (const int64_t[NEW_TOKENS]){0}, NEW_TOKENS), PG_ERROR_LIMIT);
    assert_non_null(strstr(pg_last_error(), " ids to feed, expected at most "));
    ERROR(pg_session_feed(session, (const int64_t[]){0}, SIZE_MAX), PG_ERROR_LIMIT); /* and reads none of them */
    s.on_logits = NULL;
    OK(pg_session_sample(session, &s, &token));
    OK(pg_session_sample(same, &s, &wrong[0]));
    assert_int_equal(wrong[0], first);
    OK(pg_session_sample(same, &s, &wrong[0]));
    assert_int_equal(wrong[0], token);
    OK(pg_session_feed(session, &eos, 1)); /* the host's choice ends nothing */
    for (pg_status status = PG_OK; status == PG_OK;) status = pg_session_sample(session, NULL, &token);
    pg_session_close(&session);
    session = NULL;
    OK(pg_session_create(m->model, NULL, &session));
    ERROR(pg_session_sample(session, NULL, &token), PG_ERROR_STATE);
    ERROR(pg_session_feed(session, &eos, 1), PG_ERROR_STATE);
    pg_session_close(&session);
    pg_session_close(&same);
    pg_inputs_close(&in);
    free(b.pixels);
}

/* --------------------------------------------------------------------------------------- generation_config.json */

/* The model again, with another generation_config.json beside it. */
static tiny with_config(const tiny *m, const char *json) {
    tiny other = *m;
    pg_model_options options;
    bytes old = read_file(m->folder, "generation_config.json");
    write_file(m->folder, "generation_config.json", json, strlen(json));
    OK(pg_model_options_init(&options, sizeof options));
    other.model = NULL;
    OK(pg_model_open(m->folder, &options, &other.model));
    write_file(m->folder, "generation_config.json", old.data, old.size);
    bytes_free(&old);
    return other;
}

static pg_result *unasked(const tiny *m, const batch *b, const pg_generate_options *options, const char *refusal) {
    pg_inputs *in = NULL;
    pg_result *result = NULL;
    OK(create(b, m, 0, NULL, &in));
    const pg_status status = pg_generate(m->model, m->processor, in, options, &result);
    if (refusal) {
        assert_int_equal(status, PG_ERROR_ARGUMENT);
        if (!strstr(pg_last_error(), refusal)) fail_msg("found \"%s\", expected \"%s\"", pg_last_error(), refusal);
    } else {
        assert_int_equal(status, PG_OK);
    }
    pg_inputs_close(&in);
    return result;
}

static void the_checkpoint_says_how(void **state) {
    static const int64_t suppressed[] = {5, 6};
    const tiny *m = &models[0];
    batch b;
    pg_generate_options options;
    pg_sampling_options s, theirs;
    pg_result *result = NULL;
    pg_session *session = NULL;
    (void)state;
    make_batch(&b, m, specs, 2, LEFT, 0);
    tiny other = with_config(m,
                             "{\"do_sample\": true, \"temperature\": 3.0, \"top_k\": 0, \"repetition_penalty\": 1.25, "
                             "\"suppress_tokens\": [5, 6, 99999999], \"max_new_tokens\": 7}");
    s = random_options(); /* the same by options */
    s.flags = PG_SAMPLING_RANDOM;
    s.seed = 0;
    s.repetition_penalty = 1.25;
    s.suppressed_ids = suppressed;
    s.n_suppressed_ids = 2;
    OK(pg_generate_options_init(&options, sizeof options));
    options.sampling = &s;
    options.max_new_tokens = 7;
    pg_result *wanted = unasked(m, &b, &options, NULL);
    result = unasked(&other, &b, NULL, NULL);
    for (int64_t r = 0; r < 2; r++) same_row(result, r, wanted, r);
    pg_result_close(&result);
    theirs.struct_size = sizeof theirs;
    OK(pg_model_get_sampling(other.model, &theirs));
    assert_true(theirs.temperature == 3 && theirs.n_suppressed_ids == 2 && theirs.flags == PG_SAMPLING_RANDOM);
    ARGUMENT(pg_model_get_sampling(other.model, NULL));
    ARGUMENT(pg_model_get_sampling(NULL, &theirs));
    batch one;
    pg_inputs *in = NULL;
    pg_tensor ids = {.struct_size = sizeof ids};
    int64_t token;
    make_batch(&one, m, specs, 1, LEFT, 0);
    OK(create(&one, m, 0, NULL, &in));
    OK(pg_session_create(other.model, NULL, &session));
    OK(pg_session_prefill(session, in, NULL));
    OK(pg_result_get_ids(wanted, 0, &ids));
    for (int64_t i = 0; i < ids.shape[0]; i++) {
        assert_true(pg_session_sample(session, NULL, &token) >= 0);
        assert_int_equal(token, ((const int64_t *)ids.data)[i]);
    }
    pg_session_close(&session);
    pg_inputs_close(&in);
    free(one.pixels);
    pg_result_close(&wanted);
    options.sampling = NULL;
    options.flags = PG_GENERATE_IGNORE_CONFIG;
    result = unasked(&other, &b, &options, NULL);
    pg_result *greedy = generate(m, &b, 0, 1, NULL);
    for (int64_t r = 0; r < 2; r++) same_row(result, r, greedy, r);
    pg_result_close(&result);
    pg_result_close(&greedy);
    pg_model_close(&other.model);
    free(b.pixels);
}

/* What transformers takes for off, or for the likeliest id alone, though no host may ask for it. */
static void what_is_off_in_the_checkpoint(void **state) {
    static const struct {
        const char *found, *same; /* the same in numbers that may be asked for */
    } files[] = {
        {"\"top_p\": 0.0", "\"top_p\": 1e-30"},
        {"\"top_p\": 2, \"typical_p\": 7.5", "\"top_p\": 1.0, \"typical_p\": 1.0"},
        {"\"epsilon_cutoff\": 2, \"eta_cutoff\": -1", "\"epsilon_cutoff\": 0, \"eta_cutoff\": 0"},
        {"\"epsilon_cutoff\": -0.5, \"eta_cutoff\": 1.0", "\"top_h\": 1.0"},
    };
    const tiny *m = &models[0];
    batch b;
    (void)state;
    make_batch(&b, m, specs, 2, LEFT, 0);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        pg_result *results[2];
        pg_sampling_options theirs = {.struct_size = sizeof theirs};
        for (int k = 0; k < 2; k++) {
            char json[200];
            snprintf(json, sizeof json, "{\"do_sample\": true, \"temperature\": 9.0, \"max_new_tokens\": 6, %s}",
                     k ? files[i].same : files[i].found);
            tiny other = with_config(m, json);
            results[k] = unasked(&other, &b, NULL, NULL);
            OK(pg_model_get_sampling(other.model, &theirs));
            pg_session *session = NULL;
            batch one;
            pg_inputs *in = NULL;
            int64_t token;
            make_batch(&one, m, specs, 1, LEFT, 0);
            OK(create(&one, m, 0, NULL, &in));
            OK(pg_session_create(other.model, NULL, &session));
            OK(pg_session_prefill(session, in, NULL));
            OK(pg_session_sample(session, &theirs, &token)); /* they may be handed on */
            pg_session_close(&session);
            pg_inputs_close(&in);
            free(one.pixels);
            pg_model_close(&other.model);
        }
        for (int64_t r = 0; r < 2; r++) same_row(results[0], r, results[1], r);
        for (int k = 0; k < 2; k++) pg_result_close(&results[k]);
    }
    free(b.pixels);
}

static void the_checkpoint_says_how_long(void **state) {
    const tiny *m = &models[0];
    batch b;
    pg_result *result;
    pg_generate_options options;
    char json[100];
    pg_result_info info = {.struct_size = sizeof info};
    (void)state;
    OK(pg_generate_options_init(&options, sizeof options));
    make_batch(&b, m, specs, 1, LEFT, 0);
    snprintf(json, sizeof json, "{\"max_length\": %d}", (int)b.length[0] + 4);
    tiny other = with_config(m, json);
    result = unasked(&other, &b, NULL, NULL);
    OK(pg_result_get_info(result, 0, &info));
    assert_true(info.n_new_tokens == 4 && info.stop == PG_STOP_LENGTH);
    pg_result_close(&result);
    options.max_new_tokens = 6;
    result = unasked(&other, &b, &options, NULL);
    OK(pg_result_get_info(result, 0, &info));
    assert_int_equal(info.n_new_tokens, 6);
    pg_result_close(&result);
    pg_model_close(&other.model);
    other = with_config(m, "{\"max_length\": 5}");
    assert_null(unasked(&other, &b, NULL, "generation_config.json says max_length 5"));
    pg_model_close(&other.model);
    /* of no effect without do_sample, impossible with it */
    other = with_config(m, "{\"temperature\": 0, \"top_p\": 7, \"max_new_tokens\": 2}");
    result = unasked(&other, &b, NULL, NULL);
    pg_result_close(&result);
    pg_model_close(&other.model);
    other = with_config(m, "{\"temperature\": 0, \"do_sample\": true}");
    assert_null(unasked(&other, &b, NULL, "temperature is 0, expected "));
    pg_model_close(&other.model);
    free(b.pixels);
}

/* ---------------------------------------------------------------------------------------------------- bad settings */

static void refused(const pg_sampling_options *s, const char *words) {
    pg_result *result = NULL;
    batch b;
    make_batch(&b, &models[0], specs, 1, LEFT, 0);
    ARGUMENT(sampled(&models[0], &b, s, 1, &result));
    if (!strstr(pg_last_error(), words)) fail_msg("found \"%s\", expected \"%s\"", pg_last_error(), words);
    assert_null(result);
    free(b.pixels);
}

#define REFUSED(field, wrong, words)               \
    do {                                           \
        pg_sampling_options s_ = random_options(); \
        s_.field = wrong;                          \
        refused(&s_, words);                       \
    } while (0)

static void numbers_out_of_range(void **state) {
    (void)state;
    REFUSED(temperature, 0, "temperature is 0, expected ");
    REFUSED(temperature, -1, "temperature is -1, expected ");
    REFUSED(temperature, NAN, "temperature is nan");
    REFUSED(temperature, INFINITY, "temperature is inf");
    REFUSED(top_h, -0.1, "top_h is -0.1, expected ");
    REFUSED(top_h, 1.5, "top_h is 1.5");
    REFUSED(top_p, 0, "top_p is 0, expected more than 0, at most 1");
    REFUSED(top_p, 2, "top_p is 2, expected more than 0, at most 1");
    REFUSED(top_p, NAN, "top_p is nan");
    REFUSED(min_p, -1, "min_p is -1");
    REFUSED(min_p, 1.01, "min_p is 1.01");
    REFUSED(typical_p, 0, "typical_p is 0");
    REFUSED(typical_p, 2, "typical_p is 2");
    REFUSED(epsilon_cutoff, 1, "epsilon_cutoff is 1");
    REFUSED(eta_cutoff, -1, "eta_cutoff is -1");
    REFUSED(repetition_penalty, 0, "repetition_penalty is 0");
    REFUSED(repetition_penalty, -2, "repetition_penalty is -2");
    REFUSED(decay_factor, 0, "decay_factor is 0");
    REFUSED(decay_start, -1, "decay_start is -1");
    REFUSED(top_k, -1, "top_k is -1");
    REFUSED(no_repeat_ngram_size, -1, "no_repeat_ngram_size is -1");
    REFUSED(min_new_tokens, -1, "min_new_tokens is -1");
    REFUSED(min_length, -1, "min_length is -1");
    REFUSED(reserved, 1, "reserved is 1");
    REFUSED(forced_bos_id, -2, "forced_bos_id is -2");
    REFUSED(forced_bos_id, 1 << 30, "forced_bos_id is 1073741824");
}

static void lists_that_do_not_fit(void **state) {
    const int64_t ids[] = {3, -1}, sizes[] = {1, 0}, one[] = {1};
    const double nan_bias[] = {NAN};
    const uint32_t *nothing = calloc((size_t)models[0].info.vocab_size / 32 + 1, sizeof *nothing);
    pg_sampling_options s;
    (void)state;
#define LIST(list)                                      \
    do {                                                \
        s = random_options();                           \
        s.n_##list = 1;                                 \
        refused(&s, #list " is NULL");                  \
        s.list = ids;                                   \
        s.n_##list = 2;                                 \
        refused(&s, #list "[1] is -1, expected 0 to "); \
        s.n_##list = -1;                                \
        refused(&s, "n_" #list " is -1");               \
    } while (0)
    LIST(eos_ids);
    LIST(forced_eos_ids);
    LIST(suppressed_ids);
    LIST(begin_suppressed_ids);
#undef LIST
    s = random_options();
    s.n_bad_words = -1;
    refused(&s, "n_bad_words is -1");
    s.n_bad_words = 1;
    refused(&s, "bad_word_sizes is NULL");
    s.bad_word_sizes = sizes;
    refused(&s, "bad_word_ids is NULL");
    s.bad_word_ids = ids;
    s.n_bad_words = 2;
    refused(&s, "bad_word_sizes[1] is 0, expected 1 or more");
    s.bad_word_sizes = (const int64_t[]){2};
    s.n_bad_words = 1;
    refused(&s, "bad_word_ids[1] is -1");
    s.bad_word_sizes = (const int64_t[]){INT64_MAX};
    refused(&s, "bad_word_sizes[0] is 9223372036854775807");
    s = random_options();
    s.n_biases = 1;
    s.bias_ids = ids;
    s.bias_sizes = one;
    refused(&s, "biases is NULL");
    s.biases = nan_bias;
    refused(&s, "biases[0] is NaN");
    s = random_options();
    s.token_mask = nothing;
    refused(&s, "token_mask allows no id");
    free((void *)(uintptr_t)nothing);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(philox_is_philox),
        cmocka_unit_test(draws_fall_where_they_should),
        cmocka_unit_test(frequencies_are_probabilities),
        cmocka_unit_test(a_row_draws_what_it_draws_alone),
        cmocka_unit_test(equal_rows_differ_by_stream_alone),
        cmocka_unit_test(cold_is_greedy),
        cmocka_unit_test(masks_keep_the_rest_out),
        cmocka_unit_test(eos_ids_count_while_they_end_nothing),
        cmocka_unit_test(eos_ids_end_a_session),
        cmocka_unit_test(repeated_ngrams_are_found),
        cmocka_unit_test(repeated_ngrams_take_linear_time),
        cmocka_unit_test(a_session_samples_the_same),
        cmocka_unit_test(a_session_goes_on_after_a_refusal),
        cmocka_unit_test(the_checkpoint_says_how),
        cmocka_unit_test(what_is_off_in_the_checkpoint),
        cmocka_unit_test(the_checkpoint_says_how_long),
        cmocka_unit_test(numbers_out_of_range),
        cmocka_unit_test(lists_that_do_not_fit),
    };
    return RUN_TESTS(tests, open_models, close_models);
}
