/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Scores of given answers: beside pg_forward() and pg_generate(), whatever runs with them, and what is refused. */
#include "run_tests.h"

#include <math.h>

#include "api_fixture.h"

enum { MOST = 64 };

/* One model with one image's inputs. */
typedef struct scored {
    char folder[512];
    pg_model *model;
    pg_processor *processor;
    pg_inputs *inputs;
    pg_image image;
    bytes file;
    int32_t vocab_size;
} scored;

static void open_scored(scored *s, const tiny_options *options, int32_t weights) {
    pg_model_options model_options;
    pg_model_info info = {.struct_size = sizeof info};
    OK(pg_model_options_init(&model_options, sizeof model_options));
    model_options.weights = weights;
    make_temp_folder(s->folder, sizeof s->folder);
    tiny_write(s->folder, options);
    s->file = tiny_image(IMAGE_PNG, 30, 20, 3);
    OK(pg_model_open(s->folder, &model_options, &s->model));
    OK(pg_processor_open(s->folder, NULL, &s->processor));
    OK(pg_image_from_bytes(&s->image, sizeof s->image, s->file.data, s->file.size));
    OK(pg_processor_encode(s->processor, &s->image, "the cat", NULL, &s->inputs));
    OK(pg_model_get_info(s->model, &info));
    s->vocab_size = info.vocab_size;
}

static void close_scored(scored *s) {
    pg_inputs_close(&s->inputs);
    pg_processor_close(&s->processor);
    pg_model_close(&s->model);
    bytes_free(&s->file);
    remove_folder(s->folder);
}

static pg_score_info info_of(const pg_scores *scores, int64_t index) {
    pg_score_info info = {.struct_size = sizeof info};
    OK(pg_scores_get_info(scores, index, &info));
    return info;
}

static const float *log_probs_of(const pg_scores *scores, int64_t index, int64_t *n) {
    pg_tensor tensor = {.struct_size = sizeof tensor};
    OK(pg_scores_get_tensor(scores, index, "log_probs", &tensor));
    assert_int_equal(tensor.dtype, PG_DTYPE_F32);
    assert_int_equal(tensor.n_dims, 1);
    *n = tensor.shape[0];
    return tensor.data;
}

static const int64_t *ids_of(const pg_scores *scores, int64_t index, int64_t *n) {
    pg_tensor tensor = {.struct_size = sizeof tensor};
    OK(pg_scores_get_tensor(scores, index, "ids", &tensor));
    assert_int_equal(tensor.dtype, PG_DTYPE_I64);
    *n = tensor.shape[0];
    return tensor.data;
}

/* The same by pg_forward() on prompt, newline and suffix. Returns the tokens of the suffix. */
static int64_t by_forward(const scored *s, const char *answer, uint32_t flags, int64_t *ids, double *log_probs) {
    const char *prompt = "the cat";
    pg_batch batch;
    pg_encode_options options;
    pg_inputs *in = NULL;
    pg_outputs *out = NULL;
    pg_tensor logits = {.struct_size = sizeof logits}, given = logits;
    pg_row_info row = {.struct_size = sizeof row};
    OK(pg_batch_init(&batch, sizeof batch));
    OK(pg_encode_options_init(&options, sizeof options));
    batch.n_prompts = batch.n_suffixes = batch.n_images = 1;
    batch.prompts = &prompt, batch.suffixes = &answer, batch.images = &s->image;
    options.flags =
        (flags & PG_SCORE_NO_EOS ? PG_ENCODE_OPEN_SUFFIX : 0) | (flags & PG_SCORE_LITERAL ? PG_ENCODE_LITERAL : 0);
    OK(pg_processor_encode_batch(s->processor, &batch, &options, &in));
    OK(pg_inputs_get_row_info(in, 0, &row));
    OK(pg_inputs_get_tensor(in, "input_ids", &given));
    OK(pg_forward(s->model, in, NULL, &out));
    OK(pg_outputs_get_tensor(out, "logits", &logits));
    for (int64_t i = 0; i < row.n_suffix; i++) {
        const int64_t at = row.first_token + row.n_tokens - row.n_suffix + i;
        const float *x = (const float *)logits.data + (at - 1) * logits.shape[2];
        double sum = 0;
        for (int64_t v = 0; v < logits.shape[2]; v++) sum += exp((double)x[v]);
        ids[i] = ((const int64_t *)given.data)[at];
        log_probs[i] = (double)x[ids[i]] - log(sum);
    }
    pg_outputs_close(&out);
    pg_inputs_close(&in);
    return row.n_suffix;
}

static char long_text[3000]; /* more tokens than a pass has */

static const char *const texts[] = {"a",
                                    "cat",
                                    "the cat",
                                    "",
                                    "a dog on the cat and the",
                                    "12",
                                    "the the the the the the the the",
                                    "<loc0001><loc0002>",
                                    "cat",
                                    "dog",
                                    "is it",
                                    "no<eos>",
                                    "caf\xC3\xA9",
                                    "x",
                                    "yes",
                                    long_text};
enum { N_TEXTS = sizeof texts / sizeof *texts };

static void fill_long_text(void) {
    for (size_t i = 0; i + 5 < sizeof long_text; i += 4) memcpy(long_text + i, i % 12 ? "cat " : "the ", 5);
}

static void agree_with_forward(void **state) {
    static const struct {
        int which;
        int32_t weights;
        double tolerance; /* beside rounding of f32: what int8 groups lose is the same in both */
    } kinds[] = {{0, PG_WEIGHTS_STORED, 1e-4}, {1, PG_WEIGHTS_STORED, 1e-4}, {0, PG_WEIGHTS_INT8, 2e-2}};
    static int64_t ids[2000];
    static double log_probs[2000];
    (void)state;
    fill_long_text();
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        const tiny_options options = kinds[k].which ? tiny_saved_today() : tiny_official();
        scored s;
        open_scored(&s, &options, kinds[k].weights);
        for (uint32_t flags = 0; flags < 4; flags++) {
            pg_score_options score_options;
            pg_scores *scores = NULL;
            const char *given[N_TEXTS];
            int64_t n_given = 0;
            OK(pg_score_options_init(&score_options, sizeof score_options));
            score_options.flags = flags;
            for (int i = 0; i < N_TEXTS; i++)
                if (*texts[i] || !(flags & PG_SCORE_NO_EOS)) given[n_given++] = texts[i];
            OK(pg_score(s.model, s.processor, s.inputs, given, n_given, &score_options, &scores));
            assert_int_equal(pg_scores_get_n_answers(scores), n_given);
            for (int64_t i = 0; i < n_given; i++) {
                int64_t n, n_ids;
                double total = 0;
                const float *found = log_probs_of(scores, i, &n);
                const int64_t *found_ids = ids_of(scores, i, &n_ids);
                const pg_score_info info = info_of(scores, i);
                assert_int_equal(n, by_forward(&s, given[i], flags, ids, log_probs));
                assert_int_equal(n, n_ids);
                assert_int_equal(n, info.n_tokens);
                for (int64_t t = 0; t < n; t++) {
                    assert_int_equal(found_ids[t], ids[t]);
                    if (!(fabs((double)found[t] - log_probs[t]) < kinds[k].tolerance))
                        fail_msg("model %zu, flags %u, answer %lld, token %lld: %.9g, expected %.9g", k, flags,
                                 (long long)i, (long long)t, (double)found[t], log_probs[t]);
                    total += (double)found[t];
                }
                assert_true(info.log_prob == total && info.mean_log_prob == total / (double)n);
            }
            pg_scores_close(&scores);
        }
        close_scored(&s);
    }
}

/* What was generated has the probabilities that generating said. */
static void agree_with_generate(void **state) {
    (void)state;
    pg_generate_options options;
    pg_result *result = NULL;
    pg_scores *scores = NULL;
    pg_tensor ids = {.struct_size = sizeof ids}, expected = ids;
    int64_t n;
    OK(pg_generate_options_init(&options, sizeof options));
    options.flags = PG_GENERATE_LOG_PROBS, options.max_new_tokens = 40;
    OK(pg_generate(model, processor, inputs, &options, &result));
    OK(pg_result_get_ids(result, 0, &ids));
    OK(pg_result_get_tensor(result, 0, "log_probs", &expected));
    OK(pg_score_ids(model, inputs, ids.data, &ids.shape[0], 1, NULL, &scores));
    const float *found = log_probs_of(scores, 0, &n), *said = expected.data;
    assert_int_equal(n, ids.shape[0]);
    assert_true(found[0] == said[0]);
    for (int64_t i = 0; i < n; i++) assert_true(fabs((double)found[i] - (double)said[i]) < 1e-4);
    assert_true(info_of(scores, 0).probability == 1 && info_of(scores, 0).mean_probability == 1);
    pg_scores_close(&scores);
    pg_result_close(&result);
}

/* Random ids of random lengths, some longer than a pass. */
static int64_t random_answers(rng *r, int32_t vocab_size, int64_t n, int64_t *sizes, int64_t **ids) {
    int64_t total = 0;
    for (int64_t i = 0; i < n; i++)
        total += sizes[i] = 1 + (int64_t)rng_below(r, rng_below(r, 12) == 0 ? 600 : rng_below(r, 3) ? 9 : 90);
    *ids = malloc((size_t)total * sizeof **ids);
    for (int64_t i = 0; i < total; i++) (*ids)[i] = (int64_t)rng_below(r, (uint64_t)vocab_size - 40);
    return total;
}

/* Each answer alone, all together, some of them in another order, on several threads: the same bits. */
static void bits_depend_on_nothing_else(void **state) {
    static const int32_t threads[] = {1, 2, 5};
    (void)state;
    for (int k = 0; k < 3; k++) {
        const tiny_options options = k == 1 ? tiny_saved_today() : tiny_official();
        scored s;
        rng r = {77 + (uint64_t)k};
        int64_t sizes[MOST], begin[MOST + 1] = {0}, *ids = NULL;
        pg_scores *all = NULL;
        pg_features *features = NULL;
        open_scored(&s, &options, k == 2 ? PG_WEIGHTS_INT4 : PG_WEIGHTS_STORED);
        OK(pg_features_create(s.model, s.inputs, NULL, &features));
        random_answers(&r, s.vocab_size, MOST, sizes, &ids);
        for (int i = 0; i < MOST; i++) begin[i + 1] = begin[i] + sizes[i];
        OK(pg_score_ids(s.model, s.inputs, ids, sizes, MOST, NULL, &all));
        for (int round = 0; round < 80; round++) {
            const int64_t n = round < MOST ? 1 : 2 + (int64_t)rng_below(&r, MOST);
            int64_t chosen[MOST + 2], some_sizes[MOST + 2], *some = malloc((MOST + 2) * 601 * sizeof *some), at = 0;
            pg_scores *scores = NULL;
            pg_score_options score_options;
            OK(pg_score_options_init(&score_options, sizeof score_options));
            score_options.n_threads = threads[round % 3];
            if (round % 2) score_options.features = features;
            for (int64_t i = 0; i < n; i++) {
                chosen[i] = round < MOST ? round : (int64_t)rng_below(&r, MOST); /* some twice */
                some_sizes[i] = sizes[chosen[i]];
                memcpy(some + at, ids + begin[chosen[i]], (size_t)some_sizes[i] * sizeof *some);
                at += some_sizes[i];
            }
            OK(pg_score_ids(s.model, s.inputs, some, some_sizes, n, &score_options, &scores));
            for (int64_t i = 0; i < n; i++) {
                int64_t m, m_all;
                const float *found = log_probs_of(scores, i, &m), *expected = log_probs_of(all, chosen[i], &m_all);
                assert_int_equal(m, m_all);
                assert_memory_equal(found, expected, (size_t)m * sizeof *found);
            }
            pg_scores_close(&scores);
            free(some);
        }
        pg_scores_close(&all);
        pg_features_close(&features);
        free(ids);
        close_scored(&s);
    }
}

static void probabilities_share_one(void **state) {
    (void)state;
    static const char *const answers[] = {"cat", "the dog", "cat", "a"};
    pg_scores *scores = NULL;
    double sum = 0, mean_sum = 0, all = 0;
    OK(pg_score(model, processor, inputs, answers, 4, NULL, &scores));
    for (int i = 0; i < 4; i++) all += exp(info_of(scores, i).log_prob);
    for (int i = 0; i < 4; i++) {
        const pg_score_info info = info_of(scores, i);
        sum += info.probability, mean_sum += info.mean_probability;
        assert_true(fabs(info.probability - exp(info.log_prob) / all) < 1e-12);
        assert_true(info.log_prob < 0 && info.mean_log_prob >= info.log_prob);
    }
    assert_true(fabs(sum - 1) < 1e-12 && fabs(mean_sum - 1) < 1e-12);
    assert_true(info_of(scores, 0).log_prob == info_of(scores, 2).log_prob); /* given twice, it counts twice */
    pg_scores_close(&scores);
    assert_null(scores);
}

static void arguments(void **state) {
    (void)state;
    static const char *const one[] = {"cat"}, *const null[] = {"cat", NULL}, *const invalid[] = {"cat", "a\xFF"};
    static const char *const empty[] = {"a", "b", ""}, *const image[] = {"cat <image>"};
    const int64_t ids[] = {5, 6, 7, 8}, sizes[] = {1, 3}, no_size[] = {4, 0}, negative[] = {-1};
    pg_scores *out = NULL;
    pg_score_options options;
    pg_score_info info = {.struct_size = sizeof info};
    pg_tensor tensor = {.struct_size = sizeof tensor};
    pg_row_info row = {.struct_size = sizeof row};
    OK(pg_score_options_init(&options, sizeof options));
#define REFUSED(status, call, text)                                                                        \
    do {                                                                                                   \
        ERROR(call, status);                                                                               \
        assert_null(out);                                                                                  \
        if (!strstr(pg_last_error(), text)) fail_msg("expected \"%s\", found: %s", text, pg_last_error()); \
    } while (0)
#define WRONG(call, text) REFUSED(PG_ERROR_ARGUMENT, call, text)
    WRONG(pg_score(NULL, processor, inputs, one, 1, NULL, &out), "model");
    WRONG(pg_score(model, NULL, inputs, one, 1, NULL, &out), "processor");
    WRONG(pg_score(model, processor, NULL, one, 1, NULL, &out), "inputs");
    WRONG(pg_score(model, processor, inputs, NULL, 1, NULL, &out), "answers");
    WRONG(pg_score(model, processor, inputs, one, 1, NULL, NULL), "out");
    WRONG(pg_score(model, processor, inputs, one, 0, NULL, &out), "n_answers is 0, expected 1 to 2147483647");
    WRONG(pg_score(model, processor, inputs, one, -3, NULL, &out), "n_answers is -3");
    WRONG(pg_score(model, processor, inputs, null, 2, NULL, &out), "answers[1] is NULL");
    WRONG(pg_score(model, processor, inputs, invalid, 2, NULL, &out),
          "answers[1]: the suffix is not valid UTF-8: byte 1");
    WRONG(pg_score(model, processor, inputs, image, 1, NULL, &out), "is `<image>`, expected none");
    WRONG(pg_score(model, processor, text_only, one, 1, NULL, &out), "features");
    options.flags = PG_SCORE_LITERAL;
    OK(pg_score(model, processor, inputs, image, 1, &options, &out));
    pg_scores_close(&out);
    options.flags = PG_SCORE_NO_EOS;
    WRONG(pg_score(model, processor, inputs, empty, 3, &options, &out),
          "answers[2] has no tokens, expected at least 1");
    options.flags = 4;
    WRONG(pg_score(model, processor, inputs, one, 1, &options, &out), "flags");
    options.flags = 0, options.reserved = 1;
    WRONG(pg_score(model, processor, inputs, one, 1, &options, &out), "reserved");
    options.reserved = 0, options.n_threads = 1025;
    WRONG(pg_score(model, processor, inputs, one, 1, &options, &out), "n_threads");
    options.n_threads = 0, options.max_context = -1;
    WRONG(pg_score(model, processor, inputs, one, 1, &options, &out), "max_context is -1");
    OK(pg_inputs_get_row_info(inputs, 0, &row));
    options.max_context = row.n_tokens + 2;
    OK(pg_score_ids(model, inputs, ids, sizes, 1, &options, &out));
    pg_scores_close(&out);
    REFUSED(PG_ERROR_LIMIT, pg_score_ids(model, inputs, ids, sizes, 2, &options, &out), "answers[1] has 3 tokens");
    assert_non_null(strstr(pg_last_error(), "max_context"));
    options.max_context = row.n_tokens - 1;
    REFUSED(PG_ERROR_LIMIT, pg_score_ids(model, inputs, ids, sizes, 1, &options, &out), "max_context");

    WRONG(pg_score_ids(NULL, inputs, ids, sizes, 2, NULL, &out), "model");
    WRONG(pg_score_ids(model, NULL, ids, sizes, 2, NULL, &out), "inputs");
    WRONG(pg_score_ids(model, inputs, NULL, sizes, 2, NULL, &out), "ids");
    WRONG(pg_score_ids(model, inputs, ids, NULL, 2, NULL, &out), "sizes");
    WRONG(pg_score_ids(model, inputs, ids, sizes, 2, NULL, NULL), "out");
    WRONG(pg_score_ids(model, inputs, ids, no_size, 2, NULL, &out), "sizes[1] is 0, expected 1 to 16777216");
    WRONG(pg_score_ids(model, inputs, negative, sizes, 1, NULL, &out), "answers[0]: token 0 has id -1, expected 0 to ");
    WRONG(pg_score_ids(model, inputs, (const int64_t[]){4, 5, 9999999, 1}, sizes, 2, NULL, &out),
          "answers[1]: token 1 has id 9999999, expected 0 to ");
#undef WRONG
#undef REFUSED
    OK(pg_score_ids(model, inputs, ids, sizes, 2, NULL, &out));
    ARGUMENT(pg_scores_get_info(out, 2, &info));
    ARGUMENT(pg_scores_get_info(out, -1, &info));
    ARGUMENT(pg_scores_get_info(NULL, 0, &info));
    ARGUMENT(pg_scores_get_info(out, 0, NULL));
    ARGUMENT(pg_scores_get_tensor(NULL, 0, "ids", &tensor));
    ARGUMENT(pg_scores_get_tensor(out, 2, "ids", &tensor));
    ARGUMENT(pg_scores_get_tensor(out, 0, NULL, &tensor));
    ARGUMENT(pg_scores_get_tensor(out, 0, "ids", NULL));
    ERROR(pg_scores_get_tensor(out, 0, "logits", &tensor), PG_ERROR_NOT_FOUND);
    pg_scores_close(&out);
    pg_scores_close(&out);
    pg_scores_close(NULL);
    assert_int_equal(pg_scores_get_n_answers(NULL), 0);
}

static void one_row_alone(void **state) {
    (void)state;
    static const char *const prompts[] = {"a", "the"}, *const one[] = {"cat"};
    pg_batch batch;
    pg_inputs *two = NULL;
    pg_scores *out = NULL;
    pg_image images[2];
    bytes file = tiny_image(IMAGE_PNG, 9, 9, 1);
    OK(pg_batch_init(&batch, sizeof batch));
    for (int i = 0; i < 2; i++) OK(pg_image_from_bytes(&images[i], sizeof images[i], file.data, file.size));
    batch.n_prompts = batch.n_images = 2, batch.prompts = prompts, batch.images = images;
    OK(pg_processor_encode_batch(processor, &batch, NULL, &two));
    ARGUMENT(pg_score(model, processor, two, one, 1, NULL, &out));
    assert_non_null(strstr(pg_last_error(), "the inputs have 2 rows, scoring takes 1"));
    pg_inputs_close(&two);
    bytes_free(&file);
}

/* Progress counts every token of the answers; a callback ends the call at any of its calls. */
typedef struct watch {
    int64_t done, total, last_phase;
    int n_calls, stop_at;
} watch;

static int32_t on_progress(void *user, int32_t phase, int64_t done, int64_t total) {
    watch *w = user;
    assert_true(done <= total && phase >= w->last_phase);
    w->last_phase = phase, w->done = done, w->total = total;
    return ++w->n_calls == w->stop_at;
}

static void progress_and_cancel(void **state) {
    (void)state;
    fill_long_text();
    const char *const answers[] = {"cat", long_text, "a"};
    pg_score_options options;
    pg_scores *scores = NULL;
    pg_cancel *cancel = NULL;
    watch w = {0};
    int64_t n_tokens = 0;
    OK(pg_score_options_init(&options, sizeof options));
    options.progress = on_progress, options.progress_user = &w;
    OK(pg_score(model, processor, inputs, answers, 3, &options, &scores));
    for (int i = 0; i < 3; i++) n_tokens += info_of(scores, i).n_tokens;
    assert_int_equal(w.last_phase, PG_PHASE_DECODE);
    assert_int_equal(w.done, n_tokens);
    assert_int_equal(w.total, n_tokens);
    pg_scores_close(&scores);
    const int n_calls = w.n_calls;
    for (int i = 1; i <= n_calls; i++) {
        w = (watch){.stop_at = i};
        ERROR(pg_score(model, processor, inputs, answers, 3, &options, &scores), PG_ERROR_CANCELLED);
        assert_null(scores);
        assert_int_equal(w.n_calls, i);
    }
    OK(pg_cancel_create(&cancel));
    pg_cancel_request(cancel);
    options.progress = NULL, options.cancel = cancel;
    ERROR(pg_score(model, processor, inputs, answers, 3, &options, &scores), PG_ERROR_CANCELLED);
    pg_cancel_close(&cancel);
}

/* Four times the answers: no more memory but for the results. */
static void memory_does_not_grow(void **state) {
    (void)state;
    enum { N = 400 };
    counter memory;
    pg_model_options model_options;
    pg_model *counted = NULL;
    int64_t peaks[2], ids[N * 3], sizes[N];
    counter_init(&memory);
    OK(pg_model_options_init(&model_options, sizeof model_options));
    model_options.allocator = &memory.hooks;
    OK(pg_model_open(folder, &model_options, &counted));
    for (int i = 0; i < N * 3; i++) ids[i] = i % 50;
    for (int i = 0; i < N; i++) sizes[i] = 3;
    for (int k = 0; k < 2; k++) {
        pg_scores *scores = NULL;
        const int64_t before = memory.live_bytes;
        atomic_store(&memory.peak_bytes, before);
        OK(pg_score_ids(counted, inputs, ids, sizes, k ? N : N / 4, NULL, &scores));
        peaks[k] = memory.peak_bytes - before - (memory.live_bytes - before);
        pg_scores_close(&scores);
        assert_int_equal(memory.live_bytes, before);
    }
    assert_int_equal(peaks[0], peaks[1]);
    pg_model_close(&counted);
    assert_true(counter_clean(&memory));
}

/* Results outlive everything they were made of. */
static void scores_outlive_all(void **state) {
    (void)state;
    static const char *const answers[] = {"cat", "a dog"};
    const tiny_options options = tiny_official();
    scored s;
    pg_scores *scores = NULL;
    int64_t n;
    open_scored(&s, &options, PG_WEIGHTS_STORED);
    OK(pg_score(s.model, s.processor, s.inputs, answers, 2, NULL, &scores));
    close_scored(&s);
    assert_true(log_probs_of(scores, 1, &n)[0] < 0);
    assert_true(n > 1 && info_of(scores, 0).probability > 0);
    pg_scores_close(&scores);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(agree_with_forward),
        cmocka_unit_test(agree_with_generate),
        cmocka_unit_test(bits_depend_on_nothing_else),
        cmocka_unit_test(probabilities_share_one),
        cmocka_unit_test(arguments),
        cmocka_unit_test(one_row_alone),
        cmocka_unit_test(progress_and_cancel),
        cmocka_unit_test(memory_does_not_grow),
        cmocka_unit_test(scores_outlive_all),
    };
    return RUN_TESTS(tests, setup, teardown);
}
