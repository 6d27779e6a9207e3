/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* What pg_generate keeps of every step, the logits callback, eos ids, and all ways in which a row stops. */
#include "run_tests.h"

#include <math.h>

#include "forward_fixture.h"
#include "generate/probability.h"
#include "generate/sampler.h"
#include "generate/stop_strings.h"
#include "processor/processor.h"

typedef struct setting {
    pg_generate_options options;
    pg_sampling_options sampling;
} setting;

static void init(setting *s) {
    OK(pg_generate_options_init(&s->options, sizeof s->options));
    OK(pg_sampling_options_init(&s->sampling, sizeof s->sampling));
    s->options.max_new_tokens = NEW_TOKENS;
    s->options.n_threads = 1;
    s->options.sampling = &s->sampling;
}

static pg_result *result_of(const tiny *m, const batch *b, const setting *s) {
    pg_inputs *in = NULL;
    pg_result *result = NULL;
    OK(create(b, m, 0, NULL, &in));
    OK(pg_generate(m->model, m->processor, in, &s->options, &result));
    pg_inputs_close(&in);
    return result;
}

static void refused(const tiny *m, const setting *s, const char *words) {
    pg_inputs *in = NULL;
    pg_result *result = NULL;
    batch b;
    make_batch(&b, m, specs, 1, LEFT, 0);
    OK(create(&b, m, 0, NULL, &in));
    ARGUMENT(pg_generate(m->model, m->processor, in, &s->options, &result));
    if (!strstr(pg_last_error(), words)) fail_msg("found \"%s\", expected \"%s\"", pg_last_error(), words);
    assert_null(result);
    pg_inputs_close(&in);
    free(b.pixels);
}

static pg_tensor tensor(const pg_result *result, int64_t row, const char *name, int dtype, int64_t n, int64_t width) {
    pg_tensor t = {.struct_size = sizeof t};
    OK(pg_result_get_tensor(result, row, name, &t));
    assert_int_equal(t.dtype, dtype);
    assert_int_equal(t.n_dims, width > 0 ? 2 : 1);
    assert_int_equal(t.shape[0], n);
    if (width > 0) assert_int_equal(t.shape[1], width);
    return t;
}

static pg_result_info info_of(const pg_result *result, int64_t row) {
    pg_result_info info = {.struct_size = sizeof info};
    OK(pg_result_get_info(result, row, &info));
    return info;
}

static const int64_t *ids_of(const pg_result *result, int64_t row) {
    pg_tensor t = {.struct_size = sizeof t};
    OK(pg_result_get_ids(result, row, &t));
    return t.data;
}

static double log_softmax(const float *logits, int64_t n, int64_t id) {
    double largest = -INFINITY, sum = 0;
    for (int64_t i = 0; i < n; i++) /* fmax() of a double and a float is too much for gcc 12's vectorizer on AArch64 */
        if (logits[i] > largest) largest = logits[i];
    for (int64_t i = 0; i < n; i++) sum += exp((double)logits[i] - largest);
    return (double)logits[id] - largest - log(sum);
}

/* Tensors of the steps against the definition; `plain`: the same without anything kept. */
static void check_row(const tiny *m, const pg_result *result, const pg_result *plain, int64_t row, int64_t k) {
    const int64_t v = m->info.vocab_size, n = info_of(result, row).n_new_tokens;
    same_row(result, row, plain, row);
    const int64_t *ids = tensor(result, row, "ids", PG_DTYPE_I64, n, 0).data;
    const float *logits = tensor(result, row, "logits", PG_DTYPE_F32, n, v).data;
    const float *scores = tensor(result, row, "scores", PG_DTYPE_F32, n, v).data;
    const float *log_probs = tensor(result, row, "log_probs", PG_DTYPE_F32, n, 0).data;
    const float *score_log_probs = tensor(result, row, "score_log_probs", PG_DTYPE_F32, n, 0).data;
    const int64_t *likely = tensor(result, row, "alternative_ids", PG_DTYPE_I64, n, k).data;
    const float *their = tensor(result, row, "alternative_log_probs", PG_DTYPE_F32, n, k).data;
    assert_memory_equal(logits, scores, (size_t)(n * v) * sizeof(float));
    for (int64_t t = 0; t < n; t++) {
        const float *step = logits + t * v;
        assert_int_equal(likely[t * k], ids[t]);
        assert_true(fabs(log_probs[t] - log_softmax(step, v, ids[t])) < 1e-5);
        assert_true(log_probs[t] == score_log_probs[t] && log_probs[t] == their[t * k]);
        for (int64_t i = 0; i < k; i++) {
            const int64_t id = likely[t * k + i];
            int64_t above = 0;
            for (int64_t j = 0; j < v; j++) above += step[j] > step[id] || (step[j] == step[id] && j < id);
            assert_int_equal(above, i);
            assert_true(fabs(their[t * k + i] - log_softmax(step, v, id)) < 1e-5);
        }
    }
}

static void steps_are_kept_on_request(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) {
        const tiny *m = &models[i];
        setting s;
        batch b;
        init(&s);
        make_batch(&b, m, specs, 6, LEFT, 0);
        pg_result *plain = result_of(m, &b, &s);
        s.options.flags = PG_GENERATE_LOG_PROBS | PG_GENERATE_LOGITS | PG_GENERATE_SCORES;
        s.options.n_alternatives = 5;
        pg_result *result = result_of(m, &b, &s);
        for (int64_t r = 0; r < 6; r++) check_row(m, result, plain, r, 5);

        pg_tensor t = {.struct_size = sizeof t};
        static const char *const names[] = {"log_probs", "score_log_probs", "alternative_ids", "alternative_log_probs",
                                            "logits",    "scores",          "nonsense"};
        for (size_t k = 0; k < sizeof names / sizeof *names; k++)
            ERROR(pg_result_get_tensor(plain, 0, names[k], &t), PG_ERROR_NOT_FOUND);
        ARGUMENT(pg_result_get_tensor(result, 6, "ids", &t));
        ARGUMENT(pg_result_get_tensor(result, -1, "ids", &t));
        ARGUMENT(pg_result_get_tensor(NULL, 0, "ids", &t));
        ARGUMENT(pg_result_get_tensor(result, 0, NULL, &t));
        ARGUMENT(pg_result_get_tensor(result, 0, "ids", NULL));
        pg_result_close(&result);
        pg_result_close(&plain);
        free(b.pixels);
    }
}

/* ------------------------------------------------------------------------------------------------------ callback */

typedef struct banning {
    const tiny *m;
    const batch *b;
    const pg_result *greedy;
    int stop_row, n_calls;
} banning;

/* Bans what the greedy answer says at this step; row stop_row ends at its third. */
static int32_t ban(void *user, int64_t row, const int64_t *ids, int64_t n_ids, float *logits, int64_t vocab_size) {
    banning *of = user;
    const int64_t n_prompt = of->b->length[row], step = n_ids - n_prompt;
    assert_int_equal(vocab_size, of->m->info.vocab_size);
    assert_memory_equal(ids, of->b->ids + row * of->b->n_tokens + of->b->first[row], (size_t)n_prompt * sizeof *ids);
    if (row == of->stop_row && step == 2) return 7;
    if (step == 0) assert_int_equal(pgi_sample(logits, vocab_size), ids_of(of->greedy, row)[0]);
    logits[pgi_sample(logits, vocab_size)] = -INFINITY;
    of->n_calls++;
    return 0;
}

static void a_callback_changes_the_logits(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) {
        const tiny *m = &models[i];
        const int64_t v = m->info.vocab_size;
        batch b;
        setting s;
        init(&s);
        make_batch(&b, m, specs, 5, i ? RIGHT : LEFT, 2);
        pg_result *greedy = result_of(m, &b, &s);
        banning of = {m, &b, greedy, 3, 0};
        s.sampling.on_logits = ban;
        s.sampling.on_logits_user = &of;
        s.sampling.flags = PG_SAMPLING_IGNORE_EOS;
        s.options.flags = PG_GENERATE_LOG_PROBS | PG_GENERATE_LOGITS | PG_GENERATE_SCORES;
        pg_result *result = result_of(m, &b, &s);
        assert_int_equal(of.n_calls, 4 * NEW_TOKENS + 2);
        for (int64_t r = 0; r < 5; r++) {
            const int64_t n = r == 3 ? 2 : NEW_TOKENS;
            assert_int_equal(info_of(result, r).stop, r == 3 ? PG_STOP_LOGITS : PG_STOP_LENGTH);
            assert_int_equal(info_of(result, r).n_new_tokens, n);
            const float *logits = tensor(result, r, "logits", PG_DTYPE_F32, n, v).data;
            const float *scores = tensor(result, r, "scores", PG_DTYPE_F32, n, v).data;
            const float *log_probs = tensor(result, r, "log_probs", PG_DTYPE_F32, n, 0).data;
            const float *of_scores = tensor(result, r, "score_log_probs", PG_DTYPE_F32, n, 0).data;
            for (int64_t t = 0; t < n; t++) { /* the second best is taken */
                int64_t two[2];
                pgi_largest(logits + t * v, v, 2, two);
                assert_int_equal(ids_of(result, r)[t], two[1]);
                assert_true(scores[t * v + two[0]] == -INFINITY);
                assert_true(fabs(log_probs[t] - log_softmax(logits + t * v, v, two[1])) < 1e-5);
                assert_true(fabs(of_scores[t] - log_softmax(scores + t * v, v, two[1])) < 1e-5);
            }
        }
        pg_result_close(&result);
        pg_result_close(&greedy);
        free(b.pixels);
    }
}

static int32_t stop_at_once(void *user, int64_t row, const int64_t *ids, int64_t n_ids, float *logits, int64_t n) {
    (void)user, (void)row, (void)ids, (void)n_ids, (void)logits, (void)n;
    return 1;
}

static void a_row_may_have_no_token(void **state) {
    const tiny *m = &models[0];
    batch b;
    setting s;
    heard h = {.stop_row = -1};
    (void)state;
    init(&s);
    make_batch(&b, m, specs, 2, LEFT, 0);
    s.sampling.on_logits = stop_at_once;
    s.options.on_text = hear;
    s.options.on_text_user = &h;
    s.options.flags = PG_GENERATE_LOGITS;
    pg_result *result = result_of(m, &b, &s);
    for (int64_t r = 0; r < 2; r++) {
        assert_int_equal(info_of(result, r).n_new_tokens, 0);
        assert_int_equal(info_of(result, r).stop, PG_STOP_LOGITS);
        assert_string_equal(pg_result_get_text(result, r), "");
        tensor(result, r, "logits", PG_DTYPE_F32, 0, m->info.vocab_size);
        assert_int_equal(h.n_tokens[r], 0);
    }
    pg_result_close(&result);
    free(b.pixels);
}

/* --------------------------------------------------------------------------------------------------- how it ends */

static void eos_ids_are_the_callers(void **state) {
    const tiny *m = &models[1];
    batch b;
    setting s;
    (void)state;
    init(&s);
    make_batch(&b, m, specs, 1, LEFT, 0);
    s.sampling.flags = PG_SAMPLING_IGNORE_EOS;
    pg_result *whole = result_of(m, &b, &s);
    assert_int_equal(info_of(whole, 0).n_new_tokens, NEW_TOKENS);
    const int64_t third = ids_of(whole, 0)[2];
    int64_t first = 0, ids[2] = {third, third};
    while (ids_of(whole, 0)[first] != third) first++;
    for (uint32_t flags = 0; flags <= (PG_SAMPLING_ADD_EOS | PG_SAMPLING_IGNORE_EOS); flags++) {
        s.sampling.flags = flags;
        s.sampling.eos_ids = ids;
        s.sampling.n_eos_ids = 2;
        pg_result *result = result_of(m, &b, &s);
        const int ignored = (flags & PG_SAMPLING_IGNORE_EOS) != 0;
        assert_int_equal(info_of(result, 0).n_new_tokens, ignored ? NEW_TOKENS : first + 1);
        assert_int_equal(info_of(result, 0).stop, ignored ? PG_STOP_LENGTH : PG_STOP_EOS);
        pg_result_close(&result);
    }
    s.sampling.flags = 0;
    ids[1] = m->info.vocab_size;
    refused(m, &s, "eos_ids[1] is ");
    ids[1] = -1;
    refused(m, &s, "eos_ids[1] is -1, expected 0 to ");
    s.sampling.eos_ids = NULL;
    refused(m, &s, "eos_ids is NULL");
    s.sampling.n_eos_ids = -1;
    refused(m, &s, "n_eos_ids is -1");
    s.sampling.n_eos_ids = 0;
    s.sampling.flags = 0x80000000;
    refused(m, &s, "flags is 0x80000000");
    pg_result_close(&whole);
    free(b.pixels);
}

static void the_time_may_be_over(void **state) {
    const tiny *m = &models[0];
    batch b;
    setting s;
    (void)state;
    init(&s);
    make_batch(&b, m, specs, 3, LEFT, 0);
    s.sampling.flags = PG_SAMPLING_IGNORE_EOS;
    s.options.max_seconds = 1e-9;
    pg_result *result = result_of(m, &b, &s);
    for (int64_t r = 0; r < 3; r++) {
        assert_int_equal(info_of(result, r).stop, PG_STOP_TIME);
        assert_int_equal(info_of(result, r).n_new_tokens, 1);
    }
    pg_result_close(&result);
    s.options.max_seconds = 1e9;
    result = result_of(m, &b, &s);
    assert_int_equal(info_of(result, 0).stop, PG_STOP_LENGTH);
    pg_result_close(&result);
    s.options.max_seconds = -1;
    refused(m, &s, "max_seconds is -1");
    s.options.max_seconds = NAN;
    refused(m, &s, "max_seconds is nan");
    free(b.pixels);
}

/* The token of `ids` [n] with which a row stops; -1: none. */
static int stops_at(const tiny *m, const char *const *strings, int n_strings, const int64_t *prompt, int n_prompt,
                    const int64_t *ids, int n) {
    pgi_stop_strings stop;
    pgi_stop_tail tail;
    int found = 0, at = -1;
    OK(pgi_stop_strings_init(strings, n_strings, m->processor->tokenizer, &stop));
    OK(pgi_stop_tail_init(&stop, prompt, n_prompt, &pgi_memory_default, &tail));
    for (int i = 0; i < n && at < 0; i++) {
        OK(pgi_stop_tail_push(&tail, &stop, ids[i], &found));
        if (found) at = i;
    }
    pgi_stop_tail_free(&tail);
    return at;
}

static int64_t id_of(const tiny *m, const char *piece) {
    int64_t id;
    OK(pg_processor_get_token_id(m->processor, piece, &id));
    return id;
}

/* transformers' StopStringCriteria ends at the same tokens: tests/oracle/sampling_live.py. */
static void stop_strings_are_matched_by_bytes(void **state) {
    const tiny *m = &models[1];
    const int64_t ids[] = {id_of(m, "\xE2\x96\x81the"),
                           id_of(m,
                                 "\xE2\x96\x81"
                                 "cat"),
                           id_of(m, "<0xC3>"),
                           id_of(m, "<0xA9>"),
                           id_of(m, "<loc0001>"),
                           id_of(m, "<eos>")};
    (void)state;
#define STOPS(wanted, n_prompt, ...)                                                                                  \
    do {                                                                                                              \
        const char *const strings_[] = {__VA_ARGS__};                                                                 \
        assert_int_equal(                                                                                             \
            stops_at(m, strings_, sizeof strings_ / sizeof *strings_, ids, n_prompt, ids + n_prompt, 6 - (n_prompt)), \
            wanted);                                                                                                  \
    } while (0)
    STOPS(0, 0, " ");
    STOPS(0, 0, "h");
    STOPS(1, 0, "e c");
    STOPS(1, 0, "the cat");
    STOPS(1, 0, " cat", "cat ");
    STOPS(-1, 0, "cat ", "tt", "catt");
    STOPS(3, 0, "\xC3\xA9");
    STOPS(3, 0, "t\xC3\xA9");
    STOPS(4, 0, "\xC3\xA9<l");
    STOPS(4, 0, "loc");
    STOPS(5, 0, "><eos");
    STOPS(5, 0, "the cat\xC3\xA9<loc0001><eos>");
    STOPS(0, 1, "the c");  /* it begins in the prompt */
    STOPS(-1, 2, "the c"); /* and here it ends there */
    STOPS(2, 2, "the cat\xC3\xA9<loc0001>");
#undef STOPS
    const int64_t broken[] = {ids[0], m->info.vocab_size - 1, ids[1]};
    assert_int_equal(stops_at(m, (const char *const[]){"the cat"}, 1, NULL, 0, broken, 3), -1);
}

/* Longer than what its memory is made for at first. */
static void long_stop_strings_are_matched(void **state) {
    enum { N = 5 * PGI_FIRST_STOP_BYTES / 4 }; /* tokens of 4 bytes */
    const tiny *m = &models[1];
    static int64_t ids[N + 8];
    bytes text = {0};
    (void)state;
    for (int i = 0; i < N; i++) bytes_text(&text, " the");
    bytes_add(&text, "", 1);
    const char *const whole = (const char *)text.data;
    for (int i = 0; i < N + 8; i++) ids[i] = id_of(m, "\xE2\x96\x81the");
    assert_int_equal(stops_at(m, &whole, 1, NULL, 0, ids, N + 8), N - 1);
    assert_int_equal(stops_at(m, &whole, 1, ids, N / 2, ids, N + 8), N - 1 - N / 2); /* it begins in the prompt */
    ids[5] = id_of(m,
                   "\xE2\x96\x81"
                   "cat");
    assert_int_equal(stops_at(m, &whole, 1, NULL, 0, ids, N + 6), N + 5);
    assert_int_equal(stops_at(m, &whole, 1, NULL, 0, ids, N + 5), -1);
    bytes_free(&text);
}

static void a_stop_string_ends_its_row(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) {
        const tiny *m = &models[i];
        batch b;
        setting s;
        init(&s);
        make_batch(&b, m, specs, 6, LEFT, 0);
        s.sampling.flags = PG_SAMPLING_IGNORE_EOS;
        pg_result *whole = result_of(m, &b, &s);
        int n_stopped = 0;
        for (int64_t r = 0; r < 6; r++) { /* what the third token of this row says ends every row that says it */
            char text[64];
            const char *piece = text;
            OK(pg_processor_decode(m->processor, ids_of(whole, r) + 2, 1, 0, text, sizeof text, NULL));
            if (!*text || strstr(text, "\xEF\xBF\xBD")) continue; /* no piece, or a byte alone */
            s.options.stop_strings = &piece;
            s.options.n_stop_strings = 1;
            pg_result *result = result_of(m, &b, &s);
            const pg_result_info info = info_of(result, r);
            assert_int_equal(info.stop, PG_STOP_STRING);
            assert_in_range(info.n_new_tokens, 1, 3);
            assert_memory_equal(ids_of(result, r), ids_of(whole, r), (size_t)info.n_new_tokens * sizeof(int64_t));
            n_stopped++;
            pg_result_close(&result);
        }
        assert_true(n_stopped > 0);
        pg_result_close(&whole);
        free(b.pixels);
    }
}

static void options_are_checked(void **state) {
    const tiny *m = &models[0];
    const char *strings[2] = {"a", ""};
    setting s;
    (void)state;
    init(&s);
    s.options.stop_strings = strings;
    s.options.n_stop_strings = 2;
    refused(m, &s, "stop_strings[1] is empty");
    strings[1] = NULL;
    refused(m, &s, "stop_strings[1] is NULL");
    strings[1] = "ab\xFFz";
    refused(m, &s, "stop_strings[1] is not valid UTF-8: byte 2 is");
    s.options.stop_strings = NULL;
    refused(m, &s, "stop_strings is NULL");
    s.options.n_stop_strings = -1;
    refused(m, &s, "n_stop_strings is -1");
    init(&s);
    s.options.n_alternatives = -1;
    refused(m, &s, "n_alternatives is -1, expected 0 to ");
    s.options.n_alternatives = 1 << 30;
    refused(m, &s, "n_alternatives is 1073741824");
    init(&s);
    s.options.flags = 0x80000000;
    refused(m, &s, "flags is 0x80000000");
}

/* ------------------------------------------------------------------------------------------------- probabilities */

static void exponentials(void **state) {
    (void)state;
    for (double x = 0; x > -708; x -= 0.00713) assert_true(fabs(pgi_exp(x) / exp(x) - 1) < 5e-16);
    assert_true(pgi_exp(0) == 1 && pgi_exp(-0.0) == 1);
    assert_true(pgi_exp(-709) == 0 && pgi_exp(-1e300) == 0 && pgi_exp(-INFINITY) == 0);
    assert_true(isnan(pgi_exp(NAN)));
}

static void the_largest(void **state) {
    const float logits[] = {1, NAN, 3, -INFINITY, 3, 2, INFINITY};
    int64_t ids[9];
    (void)state;
    pgi_largest(logits, 7, 9, ids);
    const int64_t wanted[] = {6, 2, 4, 5, 0, 3, -1, -1, -1};
    assert_memory_equal(ids, wanted, sizeof wanted);
    pgi_largest(logits, 7, 2, ids);
    assert_memory_equal(ids, wanted, 2 * sizeof *wanted);
    const pgi_softmax softmax = pgi_softmax_of((const float[]){-INFINITY, -INFINITY}, 2);
    assert_true(isnan(softmax.sum));
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(steps_are_kept_on_request),
        cmocka_unit_test(a_callback_changes_the_logits),
        cmocka_unit_test(a_row_may_have_no_token),
        cmocka_unit_test(eos_ids_are_the_callers),
        cmocka_unit_test(the_time_may_be_over),
        cmocka_unit_test(stop_strings_are_matched_by_bytes),
        cmocka_unit_test(long_stop_strings_are_matched),
        cmocka_unit_test(a_stop_string_ends_its_row),
        cmocka_unit_test(options_are_checked),
        cmocka_unit_test(exponentials),
        cmocka_unit_test(the_largest),
    };
    return RUN_TESTS(tests, open_models, close_models);
}
