/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Options that nobody can mean: each gets a status, and a message with the option's name, what was found, and its
 * range. */
#include "run_tests.h"

#include <math.h>

#include "api_fixture.h"

enum { MOST_FIELDS = 3 };

/* A field and what is written to it. */
typedef struct field {
    size_t at;
    enum { NONE, I32, I64, F64, POINTER } type;
    double number;
    const void *pointer;
} field;

typedef struct row {
    const char *text; /* in the message: what is wrong; the range is in it */
    field fields[MOST_FIELDS];
} row;

#define F_I32(type, name, value) \
    { offsetof(type, name), I32, (value), NULL }
#define F_I64(type, name, value) \
    { offsetof(type, name), I64, (double)(value), NULL }
#define F_F64(type, name, value) \
    { offsetof(type, name), F64, (value), NULL }
#define F_PTR(type, name, value) \
    { offsetof(type, name), POINTER, 0, (const void *)(value) }

static void put_fields(void *options, const row *r) {
    for (int i = 0; i < MOST_FIELDS; i++) {
        const field *f = &r->fields[i];
        uint8_t *to = (uint8_t *)options + f->at;
        if (f->type == I32) memcpy(to, &(int32_t){(int32_t)(int64_t)f->number}, 4);
        if (f->type == I64) memcpy(to, &(int64_t){(int64_t)f->number}, 8);
        if (f->type == F64) memcpy(to, &f->number, 8);
        if (f->type == POINTER) memcpy(to, &f->pointer, sizeof f->pointer);
    }
}

/* The status, one line, and the text in it; where the text begins with a name, the message has it as a whole word. */
static void expect(pg_status status, pg_status wanted, const char *text) {
    const char *bad = status == wanted ? bad_error(status) : "another status";
    if (bad) fail_msg("\"%s\": %s: %s: %s", text, bad, pg_status_name(status), pg_last_error());
    if (error_is_stale()) fail_msg("\"%s\": no message of its own", text);
    if (!strstr(pg_last_error(), text)) fail_msg("found \"%s\", expected \"%s\" in it", pg_last_error(), text);
    if (!strstr(pg_last_error(), "expected")) fail_msg("\"%s\" does not say what was expected", pg_last_error());
}

/* ---- sampling ---- */

static const int64_t ids_below[] = {1, -1}, ids_beyond[] = {0, 1000000}, sizes_empty[] = {1, 0}, sizes_two[] = {1, 1};
static const double bias_nan[] = {1, NAN}, bias_ones[] = {1, 1};
static const uint32_t nothing[64];

#define S pg_sampling_options
static const row sampling_rows[] = {
    {"temperature is 0, expected 1e-30 to 1e30", {F_F64(S, temperature, 0)}},
    {"temperature is -1, expected 1e-30 to 1e30", {F_F64(S, temperature, -1)}},
    {"temperature is nan, expected 1e-30 to 1e30", {F_F64(S, temperature, NAN)}},
    {"temperature is inf, expected 1e-30 to 1e30", {F_F64(S, temperature, INFINITY)}},
    {"top_p is 0, expected more than 0, at most 1", {F_F64(S, top_p, 0)}},
    {"top_p is 2, expected more than 0, at most 1", {F_F64(S, top_p, 2)}},
    {"top_p is 1.0000000099999999, expected more than 0, at most 1", {F_F64(S, top_p, 1.00000001)}},
    {"min_p is -1e-09, expected 0 (off) to 1", {F_F64(S, min_p, -1e-9)}},
    {"top_k is -2147483648, expected 0 (off) or more", {F_I32(S, top_k, INT32_MIN)}},
    {"top_p is -0.5, expected more than 0, at most 1", {F_F64(S, top_p, -0.5)}},
    {"top_p is nan, expected more than 0, at most 1", {F_F64(S, top_p, NAN)}},
    {"top_k is -1, expected 0 (off) or more", {F_I32(S, top_k, -1)}},
    {"top_h is 1.5, expected 0 (off) to 1", {F_F64(S, top_h, 1.5)}},
    {"top_h is nan, expected 0 (off) to 1", {F_F64(S, top_h, NAN)}},
    {"min_p is -0.1, expected 0 (off) to 1", {F_F64(S, min_p, -0.1)}},
    {"min_p is 1.1, expected 0 (off) to 1", {F_F64(S, min_p, 1.1)}},
    {"min_p is nan, expected 0 (off) to 1", {F_F64(S, min_p, NAN)}},
    {"typical_p is 0, expected more than 0, at most 1", {F_F64(S, typical_p, 0)}},
    {"typical_p is 1.5, expected more than 0, at most 1", {F_F64(S, typical_p, 1.5)}},
    {"typical_p is nan, expected more than 0, at most 1", {F_F64(S, typical_p, NAN)}},
    {"epsilon_cutoff is 1, expected 0 (off) or more, less than 1", {F_F64(S, epsilon_cutoff, 1)}},
    {"epsilon_cutoff is -1, expected 0 (off) or more, less than 1", {F_F64(S, epsilon_cutoff, -1)}},
    {"eta_cutoff is 1, expected 0 (off) or more, less than 1", {F_F64(S, eta_cutoff, 1)}},
    {"eta_cutoff is nan, expected 0 (off) or more, less than 1", {F_F64(S, eta_cutoff, NAN)}},
    {"repetition_penalty is 0, expected 1e-30 to 1e30", {F_F64(S, repetition_penalty, 0)}},
    {"repetition_penalty is -2, expected 1e-30 to 1e30", {F_F64(S, repetition_penalty, -2)}},
    {"repetition_penalty is inf, expected 1e-30 to 1e30", {F_F64(S, repetition_penalty, INFINITY)}},
    {"decay_factor is 0, expected 1e-30 to 1e30", {F_F64(S, decay_factor, 0)}},
    {"decay_start is -1, expected 0 or more", {F_I32(S, decay_start, -1)}},
    {"no_repeat_ngram_size is -1, expected 0 (off) or more", {F_I32(S, no_repeat_ngram_size, -1)}},
    {"min_new_tokens is -5, expected 0 or more", {F_I32(S, min_new_tokens, -5)}},
    {"min_length is -5, expected 0 or more", {F_I32(S, min_length, -5)}},
    {"flags is 0x40000000, expected PG_SAMPLING_*", {F_I32(S, flags, 0x40000000)}},
    {"pg_sampling_options.reserved is 9, expected 0", {F_I32(S, reserved, 9)}},
    {"forced_bos_id is -2, expected -1 (none) to ", {F_I64(S, forced_bos_id, -2)}},
    {"forced_bos_id is 1000000, expected -1 (none) to ", {F_I64(S, forced_bos_id, 1000000)}},
    {"eos_ids[1] is 1000000, expected 0 to ", {F_PTR(S, eos_ids, ids_beyond), F_I64(S, n_eos_ids, 2)}},
    {"eos_ids[1] is -1, expected 0 to ", {F_PTR(S, eos_ids, ids_below), F_I64(S, n_eos_ids, 2)}},
    {"n_eos_ids is -1, expected 0 or more", {F_PTR(S, eos_ids, ids_below), F_I64(S, n_eos_ids, -1)}},
    {"eos_ids is NULL, expected 2 ids", {F_I64(S, n_eos_ids, 2)}},
    {"forced_eos_ids[1] is 1000000, expected 0 to ",
     {F_PTR(S, forced_eos_ids, ids_beyond), F_I64(S, n_forced_eos_ids, 2)}},
    {"n_forced_eos_ids is -3, expected 0 or more", {F_I64(S, n_forced_eos_ids, -3)}},
    {"suppressed_ids[1] is 1000000, expected 0 to ",
     {F_PTR(S, suppressed_ids, ids_beyond), F_I64(S, n_suppressed_ids, 2)}},
    {"suppressed_ids[1] is -1, expected 0 to ", {F_PTR(S, suppressed_ids, ids_below), F_I64(S, n_suppressed_ids, 2)}},
    {"suppressed_ids is NULL, expected 2 ids", {F_I64(S, n_suppressed_ids, 2)}},
    {"begin_suppressed_ids[1] is -1, expected 0 to ",
     {F_PTR(S, begin_suppressed_ids, ids_below), F_I64(S, n_begin_suppressed_ids, 2)}},
    {"n_bad_words is -1, expected 0 or more", {F_I64(S, n_bad_words, -1)}},
    {"bad_word_sizes is NULL, expected 2", {F_PTR(S, bad_word_ids, ids_beyond), F_I64(S, n_bad_words, 2)}},
    {"bad_word_ids is NULL, expected 2 ids", {F_PTR(S, bad_word_sizes, sizes_two), F_I64(S, n_bad_words, 2)}},
    {"bad_word_sizes[1] is 0, expected 1 or more",
     {F_PTR(S, bad_word_ids, ids_beyond), F_PTR(S, bad_word_sizes, sizes_empty), F_I64(S, n_bad_words, 2)}},
    {"bad_word_ids[1] is 1000000, expected 0 to ",
     {F_PTR(S, bad_word_ids, ids_beyond), F_PTR(S, bad_word_sizes, sizes_two), F_I64(S, n_bad_words, 2)}},
    {"n_biases is -1, expected 0 or more", {F_I64(S, n_biases, -1)}},
    {"bias_sizes is NULL, expected 1", {F_PTR(S, bias_ids, sizes_two), F_I64(S, n_biases, 1)}},
    {"biases is NULL, expected 1 numbers",
     {F_PTR(S, bias_ids, sizes_two), F_PTR(S, bias_sizes, sizes_two), F_I64(S, n_biases, 1)}},
    {"token_mask allows no id, expected at least 1 of 0 to ", {F_PTR(S, token_mask, nothing)}},
};
#undef S

static pg_status with_sampling(const pg_sampling_options *sampling) {
    pg_generate_options options;
    OK(pg_generate_options_init(&options, sizeof options));
    options.sampling = sampling;
    options.max_new_tokens = 3;
    return with_generate(&options);
}

/* In a generation, in a search, and step by step; a session goes on afterwards. */
static void sampling(void **state) {
    pg_session *session = NULL;
    pg_generate_options options;
    pg_beam_options beams;
    int64_t token = -7, next = 0;
    (void)state;
    OK(pg_generate_options_init(&options, sizeof options));
    OK(pg_beam_options_init(&beams, sizeof beams));
    beams.n_beams = 2;
    options.beams = &beams;
    options.max_new_tokens = 3;
    OK(pg_session_create(model, NULL, &session));
    OK(pg_session_prefill(session, inputs, NULL));
    for (size_t i = 0; i < sizeof sampling_rows / sizeof *sampling_rows; i++) {
        pg_sampling_options s;
        OK(pg_sampling_options_init(&s, sizeof s));
        put_fields(&s, &sampling_rows[i]);
        options.sampling = &s;
        stale_error();
        expect(with_sampling(&s), PG_ERROR_ARGUMENT, sampling_rows[i].text);
        stale_error();
        expect(with_generate(&options), PG_ERROR_ARGUMENT, sampling_rows[i].text);
        stale_error();
        expect(pg_session_sample(session, &s, &token), PG_ERROR_ARGUMENT, sampling_rows[i].text);
        assert_int_equal(token, -7);
    }
    pg_sampling_options s;
    OK(pg_sampling_options_init(&s, sizeof s));
    s.bias_ids = sizes_two, s.bias_sizes = sizes_two, s.biases = bias_nan, s.n_biases = 2;
    stale_error();
    expect(with_sampling(&s), PG_ERROR_ARGUMENT, "biases[1] is NaN, expected a number");
    s.biases = bias_ones;
    OK(with_sampling(&s));
    OK(pg_session_sample(session, NULL, &token));
    OK(pg_session_step(session, &next));
    pg_session_close(&session);
}

/* ---- masks and callbacks that leave nothing ---- */

static int32_t allow_nothing(void *user, int64_t r, const int64_t *ids, int64_t n_ids, uint32_t *mask,
                             int64_t vocab_size) {
    (void)user, (void)r, (void)ids, (void)n_ids, (void)mask, (void)vocab_size;
    return 0;
}

static int32_t allow_seven(void *user, int64_t r, const int64_t *ids, int64_t n_ids, uint32_t *mask,
                           int64_t vocab_size) {
    (void)user, (void)r, (void)ids, (void)n_ids, (void)vocab_size;
    mask[0] = 1u << 7;
    return 0;
}

static int32_t fill_logits(void *user, int64_t r, const int64_t *ids, int64_t n_ids, float *logits,
                           int64_t vocab_size) {
    (void)r, (void)ids, (void)n_ids;
    for (int64_t i = 0; i < vocab_size; i++) logits[i] = *(const float *)user;
    return 0;
}

static void nothing_is_left(void **state) {
    static const uint32_t eight[64] = {1u << 8};
    static const int64_t seven = 7;
    static float infinite = -INFINITY;
    pg_sampling_options s[5];
    pg_beam_options beams;
    static const char *const texts[5] = {
        "row 0: on_mask allows no id as new token 0, expected at least 1",
        "leave no id as new token 0, expected at least 1: all are kept out by token_mask, on_mask",
        "leave no id as new token 0, expected at least 1: all are kept out by on_mask, suppressed_ids",
        "leave no id as new token 0, expected at least 1: all are kept out by on_logits",
        "leave no id as new token 0, expected at least 1: all are kept out by on_logits",
    };
    (void)state;
    for (int i = 0; i < 5; i++) OK(pg_sampling_options_init(&s[i], sizeof s[i]));
    s[0].on_mask = allow_nothing;
    s[1].on_mask = allow_seven, s[1].token_mask = eight;
    s[2].on_mask = allow_seven, s[2].suppressed_ids = &seven, s[2].n_suppressed_ids = 1;
    s[3].on_logits = fill_logits, s[3].on_logits_user = &infinite;
    s[4] = s[3], s[4].flags = PG_SAMPLING_RANDOM;
    OK(pg_beam_options_init(&beams, sizeof beams));
    beams.n_beams = 2;
    for (int i = 0; i < 5; i++)
        for (int k = 0; k < 2; k++) {
            pg_generate_options options;
            pg_result *result = NULL;
            OK(pg_generate_options_init(&options, sizeof options));
            options.sampling = &s[i];
            options.max_new_tokens = 3;
            options.beams = k ? &beams : NULL;
            stale_error();
            const pg_status status = pg_generate(model, processor, inputs, &options, &result);
            assert_null(result);
            expect(status, PG_ERROR_ARGUMENT, texts[i]);
            assert_int_equal(pg_last_error_row(), 0);
        }
}

/* ---- beams and the rest of a generation ---- */

#define B pg_beam_options
static const row beam_rows[] = {
    {"n_beams is 0, expected 1 (no search) to 64", {F_I32(B, n_beams, 0)}},
    {"n_beams is -1, expected 1 (no search) to 64", {F_I32(B, n_beams, -1)}},
    {"n_beams is 65, expected 1 (no search) to 64", {F_I32(B, n_beams, 65)}},
    {"n_beams is 2147483647, expected 1 (no search) to 64", {F_I32(B, n_beams, INT32_MAX)}},
    {"early_stopping is 3, expected 0 (off), 1 (on) or 2 (never)", {F_I32(B, early_stopping, 3)}},
    {"early_stopping is -1, expected 0 (off), 1 (on) or 2 (never)", {F_I32(B, early_stopping, -1)}},
    {"length_penalty is nan, expected a finite number", {F_F64(B, length_penalty, NAN)}},
    {"length_penalty is inf, expected a finite number", {F_F64(B, length_penalty, INFINITY)}},
    {"pg_beam_options.reserved is 1, expected 0", {F_I32(B, reserved, 1)}},
};
#undef B

static const char *const empty_stop[] = {"fine", ""}, *const null_stop[] = {NULL}, *const bad_stop[] = {"a\xFF"};

#define G pg_generate_options
static const row generate_rows[] = {
    {"flags is 0x40000000, expected PG_GENERATE_*", {F_I32(G, flags, 0x40000000)}},
    {"flags has PG_GENERATE_DETECT and PG_GENERATE_SEGMENT, expected one of them",
     {F_I32(G, flags, PG_GENERATE_DETECT | PG_GENERATE_SEGMENT)}},
    {"max_new_tokens is -1, expected 0 (default) or more", {F_I32(G, max_new_tokens, -1)}},
    {"n_threads is -1, expected 0 (all CPUs) to 1024", {F_I32(G, n_threads, -1)}},
    {"n_threads is 1025, expected 0 (all CPUs) to 1024", {F_I32(G, n_threads, 1025)}},
    {"n_alternatives is -1, expected 0 to ", {F_I32(G, n_alternatives, -1)}},
    {"n_alternatives is 1025, expected 0 to ", {F_I32(G, n_alternatives, 1025)}},
    {"n_stop_strings is -1, expected 0 or more", {F_I32(G, n_stop_strings, -1)}},
    {"stop_strings is NULL, expected 2 texts", {F_I32(G, n_stop_strings, 2)}},
    {"stop_strings[1] is empty, expected a text of at least one character",
     {F_PTR(G, stop_strings, empty_stop), F_I32(G, n_stop_strings, 2)}},
    {"stop_strings[0] is NULL, expected a text", {F_PTR(G, stop_strings, null_stop), F_I32(G, n_stop_strings, 1)}},
    {"stop_strings[0] is not valid UTF-8: byte 1 is 0xFF, expected UTF-8",
     {F_PTR(G, stop_strings, bad_stop), F_I32(G, n_stop_strings, 1)}},
    {"max_seconds is -1, expected 0 (no limit) or more", {F_F64(G, max_seconds, -1)}},
    {"max_seconds is nan, expected 0 (no limit) or more", {F_F64(G, max_seconds, NAN)}},
    {"max_context is -1, expected 0 (no limit) or more", {F_I64(G, max_context, -1)}},
    {"n_return is -1, expected 1 to 1024", {F_I32(G, n_return, -1)}},
    {"n_return is 1025, expected 1 to 1024", {F_I32(G, n_return, 1025)}},
    {"n_return is 2, but without beams and PG_SAMPLING_RANDOM", {F_I32(G, n_return, 2)}},
    {"max_running is -1, expected 0 (default) or more", {F_I32(G, max_running, -1)}},
};
#undef G

static void generation(void **state) {
    pg_generate_options options;
    (void)state;
    for (size_t i = 0; i < sizeof beam_rows / sizeof *beam_rows; i++) {
        pg_beam_options beams;
        OK(pg_beam_options_init(&beams, sizeof beams));
        OK(pg_generate_options_init(&options, sizeof options));
        options.beams = &beams;
        put_fields(&beams, &beam_rows[i]);
        stale_error();
        expect(with_generate(&options), PG_ERROR_ARGUMENT, beam_rows[i].text);
    }
    for (size_t i = 0; i < sizeof generate_rows / sizeof *generate_rows; i++) {
        OK(pg_generate_options_init(&options, sizeof options));
        put_fields(&options, &generate_rows[i]);
        stale_error();
        expect(with_generate(&options), PG_ERROR_ARGUMENT, generate_rows[i].text);
    }
}

/* What one option says of another, and what needs a processor. */
static void generation_together(void **state) {
    static const char *const stop = "x";
    pg_generate_options options;
    pg_beam_options beams;
    pg_result *result = NULL;
    (void)state;
    OK(pg_generate_options_init(&options, sizeof options));
    OK(pg_beam_options_init(&beams, sizeof beams));
    beams.n_beams = 3;
    options.beams = &beams;
    options.n_return = 4;
    stale_error();
    expect(with_generate(&options), PG_ERROR_ARGUMENT, "n_return is 4, expected 1 to 3, n_beams");
    OK(pg_generate_options_init(&options, sizeof options));
    options.stop_strings = &stop, options.n_stop_strings = 1;
    stale_error();
    expect(pg_generate(model, NULL, inputs, &options, &result), PG_ERROR_ARGUMENT,
           "processor is NULL, but stop_strings need a text");
    for (int i = 0; i < 2; i++) {
        OK(pg_generate_options_init(&options, sizeof options));
        options.flags = i ? PG_GENERATE_SEGMENT : PG_GENERATE_DETECT;
        stale_error();
        expect(
            pg_generate(model, NULL, inputs, &options, &result), PG_ERROR_ARGUMENT,
            i ? "processor is NULL, but PG_GENERATE_SEGMENT needs" : "processor is NULL, but PG_GENERATE_DETECT needs");
    }
    OK(pg_generate_options_init(&options, sizeof options));
    options.max_context = 1;
    stale_error();
    expect(with_generate(&options), PG_ERROR_LIMIT, "max_context");
}

/* ---- scores ---- */

#define S pg_score_options
static const row score_rows[] = {
    {"flags is 0x40000000, expected PG_SCORE_*", {F_I32(S, flags, 0x40000000)}},
    {"n_threads is -1, expected 0 (all CPUs) to 1024", {F_I32(S, n_threads, -1)}},
    {"n_threads is 1025, expected 0 (all CPUs) to 1024", {F_I32(S, n_threads, 1025)}},
    {"max_context is -1, expected 0 (no limit) or more", {F_I64(S, max_context, -1)}},
    {"pg_score_options.reserved is 5, expected 0", {F_I32(S, reserved, 5)}},
};
#undef S

static void expect_score(const char *const *answers, int64_t n, const pg_score_options *options, pg_status wanted,
                         const char *text) {
    pg_scores *scores = NULL;
    stale_error();
    const pg_status status = pg_score(model, processor, inputs, answers, n, options, &scores);
    assert_null(scores);
    expect(status, wanted, text);
}

static void expect_score_ids(const int64_t *ids, const int64_t *sizes, int64_t n, const char *text) {
    pg_scores *scores = NULL;
    stale_error();
    const pg_status status = pg_score_ids(model, inputs, ids, sizes, n, NULL, &scores);
    assert_null(scores);
    expect(status, PG_ERROR_ARGUMENT, text);
}

static void scores(void **state) {
    static const char *const two[] = {"cat", "the cat the cat"}, *const empty[] = {"cat", ""};
    static const char *const without[] = {"cat", NULL}, *const image[] = {"<image>"}, *const bad[] = {"cat", "\xC3("};
    static const int64_t ids[] = {7, 1000000, -1, 8}, negative[] = {1, -1}, zero[] = {1, 0}, ones[] = {1, 1};
    static const int64_t huge[] = {1, INT64_MAX};
    pg_row_info prompt = {.struct_size = sizeof prompt};
    pg_score_options options;
    pg_scores *made = NULL;
    pg_score_info info = {.struct_size = sizeof info};
    pg_tensor tensor = {.struct_size = sizeof tensor};
    (void)state;
    for (size_t i = 0; i < sizeof score_rows / sizeof *score_rows; i++) {
        OK(pg_score_options_init(&options, sizeof options));
        put_fields(&options, &score_rows[i]);
        expect_score(two, 2, &options, PG_ERROR_ARGUMENT, score_rows[i].text);
    }
    OK(pg_score_options_init(&options, sizeof options));
    expect_score(two, 0, NULL, PG_ERROR_ARGUMENT, "n_answers is 0, expected 1 to 2147483647");
    expect_score(two, -1, NULL, PG_ERROR_ARGUMENT, "n_answers is -1, expected 1 to 2147483647");
    expect_score(without, 2, NULL, PG_ERROR_ARGUMENT, "answers[1] is NULL, expected a text");
    expect_score(image, 1, NULL, PG_ERROR_ARGUMENT, "answers[0]");
    expect_score(bad, 2, NULL, PG_ERROR_ARGUMENT, "answers[1]");
    OK(pg_inputs_get_row_info(inputs, 0, &prompt));
    options.max_context = prompt.n_tokens + 2; /* room for "cat" and its eos */
    expect_score(two, 2, &options, PG_ERROR_LIMIT, ", max_context");
    assert_non_null(strstr(pg_last_error(), "answers[1] has "));
    options.max_context = 0;
    options.flags = PG_SCORE_NO_EOS;
    expect_score(empty, 2, &options, PG_ERROR_ARGUMENT, "answers[1] has no tokens, expected at least 1");
    expect_score_ids(ids, ones, 0, "n_answers is 0, expected 1 to ");
    expect_score_ids(ids, ones, 2, "answers[1]: token 0 has id 1000000, expected 0 to ");
    expect_score_ids(ids + 2, ones, 1, "answers[0]: token 0 has id -1, expected 0 to ");
    expect_score_ids(ids, negative, 2, "sizes[1] is -1, expected 1 to 16777216 ids");
    expect_score_ids(ids, zero, 2, "sizes[1] is 0, expected 1 to 16777216 ids");
    expect_score_ids(ids, huge, 2, "sizes[1] is 9223372036854775807, expected 1 to 16777216 ids");
    OK(pg_score(model, processor, inputs, two, 2, NULL, &made));
    stale_error();
    expect(pg_scores_get_info(made, 2, &info), PG_ERROR_ARGUMENT, "index is 2, expected 0 to 1");
    stale_error();
    expect(pg_scores_get_info(made, -1, &info), PG_ERROR_ARGUMENT, "index is -1, expected 0 to 1");
    expect(pg_scores_get_tensor(made, 0, "logits", &tensor), PG_ERROR_NOT_FOUND,
           "\"logits\", expected ids or log_probs");
    pg_scores_close(&made);
}

/* ---- features ---- */

static void features(void **state) {
    pg_features *made = NULL, *out = NULL;
    char path[600], text[16384];
    size_t size = 0;
    (void)state;
    OK(pg_features_create(model, inputs, NULL, &made));
    OK(pg_features_to_bytes(made, text, sizeof text, &size));
    assert_in_range(size, 100, sizeof text);
    stale_error();
    expect(pg_features_from_bytes(model, text, 0, &out), PG_ERROR_FORMAT, "less than 8 bytes, expected features");
    expect(pg_features_from_bytes(model, text, 40, &out), PG_ERROR_FORMAT, "found 40 bytes, expected a header of ");
    expect(pg_features_from_bytes(model, text, size - 1, &out), PG_ERROR_FORMAT, "expected");
    expect(pg_features_from_bytes(model, "neither at all", 14, &out), PG_ERROR_FORMAT,
           "expected features that were saved");
    text[size - 3] ^= 1;
    expect(pg_features_from_bytes(model, text, size, &out), PG_ERROR_FORMAT, "data with checksum ");
    snprintf(path, sizeof path, "%s/none", folder);
    assert_int_equal(pg_features_load(model, path, &out), PG_ERROR_NOT_FOUND);
    assert_non_null(strstr(pg_last_error(), path));
    assert_int_equal(pg_features_load(model, folder, &out), PG_ERROR_IO);
    assert_non_null(strstr(pg_last_error(), folder));
    assert_int_equal(pg_features_save(made, folder), PG_ERROR_ARGUMENT);
    snprintf(path, sizeof path, "%s/none/there", folder);
    assert_int_equal(pg_features_save(made, path), PG_ERROR_NOT_FOUND);
    assert_null(out);
    pg_features_close(&made);
}

/* ---- answers and masks ---- */

static pg_status with_answer(const row *r) {
    pg_answer_options options;
    pg_answer *answer = NULL;
    OK(pg_answer_options_init(&options, sizeof options));
    options.width = options.height = 10;
    put_fields(&options, r);
    stale_error();
    const pg_status status = pg_answer_create_from_text("x", 1, &options, &answer);
    pg_answer_close(&answer);
    return status;
}

#define A pg_answer_options
static const row answer_rows[] = {
    {"flags is 0x40000000, expected PG_ANSWER_POINTS or 0", {F_I32(A, flags, 0x40000000)}},
    {"width is 0, expected at least 1", {F_I32(A, width, 0)}},
    {"height is -4, expected at least 1", {F_I32(A, height, -4)}},
    {"convention is 2, expected 0 (PG_BOX_1024) or 1 (PG_BOX_1023)", {F_I32(A, convention, 2)}},
    {"max_iou is 1, expected more than 0 and less than 1, or 0", {F_I32(A, max_iou, 0x3F800000)}},
    {"max_iou is nan, expected more than 0 and less than 1, or 0", {F_I32(A, max_iou, 0x7FC00000)}},
    {"max_iou is -1, expected more than 0 and less than 1, or 0", {F_I32(A, max_iou, 0xBF800000)}},
};
#undef A

static void answers(void **state) {
    pg_mask_decoder_options options;
    pg_mask_decoder *decoder = NULL;
    uint8_t mask[4] = {0};
    uint32_t counts[2];
    size_t needed;
    (void)state;
    for (size_t i = 0; i < sizeof answer_rows / sizeof *answer_rows; i++)
        expect(with_answer(&answer_rows[i]), PG_ERROR_ARGUMENT, answer_rows[i].text);
    OK(pg_mask_decoder_options_init(&options, sizeof options));
    options.reserved = 3;
    stale_error();
    expect(pg_mask_decoder_open(folder, &options, &decoder), PG_ERROR_ARGUMENT,
           "pg_mask_decoder_options.reserved is 3, expected 0");
    expect(pg_mask_decoder_open(folder, NULL, &decoder), PG_ERROR_NOT_FOUND,
           "has no mask decoder, expected vae-oid.npz");
    assert_null(decoder);
    pg_answer *answer = NULL;
    pg_answer_options sides;
    OK(pg_answer_options_init(&sides, sizeof sides));
    sides.width = sides.height = 2;
    OK(pg_answer_create_from_text("no boxes", 8, &sides, &answer));
    pg_object object = {.struct_size = sizeof object};
    assert_int_equal(pg_answer_get_object(answer, 0, &object), PG_ERROR_ARGUMENT);
    assert_non_null(strstr(pg_last_error(), "index is 0, but the answer has no objects"));
    pg_answer_close(&answer);
    expect(pg_mask_get_counts(mask, 0, 2, counts, 2, &needed), PG_ERROR_ARGUMENT, "width is 0 and height 2, expected");
    expect(pg_mask_get_counts(mask, 2, -2, counts, 2, &needed), PG_ERROR_ARGUMENT, "height -2, expected");
    expect(pg_mask_get_counts(mask, INT32_MAX, INT32_MAX, counts, 2, &needed), PG_ERROR_ARGUMENT, "at most 2^32 - 1");
    mask[0] = mask[3] = 255;
    expect(pg_mask_get_counts(mask, 2, 2, counts, 2, &needed), PG_ERROR_LIMIT, "capacity is 2, expected at least 4");
}

/* ---- attentions ---- */

#define F pg_forward_options
static const row forward_rows[] = {
    {"flags is 0x40000000, expected PG_FORWARD_*", {F_I32(F, flags, 0x40000000)}},
    {"attention_layer is 99, expected -1 (all) to ",
     {F_I32(F, flags, PG_FORWARD_ATTENTIONS), F_I32(F, attention_layer, 99)}},
    {"attention_layer is -2, expected -1 (all) to ",
     {F_I32(F, flags, PG_FORWARD_ATTENTIONS), F_I32(F, attention_layer, -2)}},
    {"attention_queries is -1, expected 0 (all) to ",
     {F_I32(F, flags, PG_FORWARD_ATTENTIONS), F_I64(F, attention_queries, -1)}},
    {"attention_queries is 1000000, expected 0 (all) to ",
     {F_I32(F, flags, PG_FORWARD_ATTENTIONS), F_I64(F, attention_queries, 1000000)}},
    {"logits_to_keep is -1, expected ", {F_I64(F, logits_to_keep, -1)}},
    {"logits_to_keep is 1000000, expected ", {F_I64(F, logits_to_keep, 1000000)}},
};
#undef F

static void attentions(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof forward_rows / sizeof *forward_rows; i++) {
        pg_forward_options options;
        pg_outputs *outputs = NULL;
        OK(pg_forward_options_init(&options, sizeof options));
        put_fields(&options, &forward_rows[i]);
        stale_error();
        expect(pg_forward(model, inputs, &options, &outputs), PG_ERROR_ARGUMENT, forward_rows[i].text);
        assert_null(outputs);
    }
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sampling),   cmocka_unit_test(nothing_is_left),
        cmocka_unit_test(generation), cmocka_unit_test(generation_together),
        cmocka_unit_test(scores),     cmocka_unit_test(features),
        cmocka_unit_test(answers),    cmocka_unit_test(attentions),
    };
    return RUN_TESTS(tests, setup, teardown);
}
