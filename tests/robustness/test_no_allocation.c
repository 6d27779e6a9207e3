/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Once a session is made, prompts and steps allocate nothing: every request after it fails, and the texts are the same.
 * The same of pg_generate(), of beam search too, and of pg_score(), from its first step on. Where the C library lets a
 * program count its calls, malloc itself is counted too, so that what the library or those it calls take past
 * pg_allocator shows.
 */
#include "run_tests.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sanitized.h"
#include "support.h"
#include "tiny.h"

#if defined(__GLIBC__) && !defined(SANITIZED)
#define COUNTS_MALLOC 1
#endif

/* ---- the C library's own calls ---- */

static atomic_int counting;
static atomic_llong n_mallocs; /* while counting */

#ifdef COUNTS_MALLOC
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *block, size_t size);
void *__libc_memalign(size_t alignment, size_t size);

static void count(void) {
    if (atomic_load(&counting)) atomic_fetch_add(&n_mallocs, 1);
}
/* A program's definitions stand before those of every library in it. */
void *malloc(size_t size) {
    count();
    return __libc_malloc(size);
}
void *calloc(size_t n, size_t size) {
    count();
    return __libc_calloc(n, size);
}
void *realloc(void *block, size_t size) {
    count();
    return __libc_realloc(block, size);
}
void *aligned_alloc(size_t alignment, size_t size) {
    count();
    return __libc_memalign(alignment, size);
}
int posix_memalign(void **out, size_t alignment, size_t size) {
    count();
    *out = __libc_memalign(alignment, size);
    return *out ? 0 : 12;
}
#endif

/* ---- what is run ---- */

enum { NEW_TOKENS = 24, N_ROWS = 6, MAX_TEXT = 4096 };

typedef struct setting {
    tiny_options tiny;
    int32_t weights, n_threads;
} setting;

typedef struct fixture {
    counter memory;
    pg_model *model;
    pg_processor *processor;
    pg_inputs *image, *words, *rows; /* one row with pixels, a shorter one without, and several */
    pg_features *features;           /* of `image` */
} fixture;

#define OK(call)                                                                                  \
    do {                                                                                          \
        pg_status status_ = (call);                                                               \
        if (status_ < 0) fail_msg("%s: %s: %s", #call, pg_status_name(status_), pg_last_error()); \
    } while (0)

static void set_up(fixture *f, const setting *s) {
    static const uint8_t pixels[20 * 20 * 3] = {10, 200, 30, 40, 90};
    const char *prompts[N_ROWS] = {"a cat", "the", "cat cat cat", "", "\xC3\xA9 \xF0\x9F\x90\xB1", "the cat <loc0001>"};
    char folder[512];
    pg_model_options model_options;
    pg_processor_options processor_options;
    pg_image image, images[N_ROWS];
    pg_batch batch;
    memset(f, 0, sizeof *f);
    counter_init(&f->memory);
    make_temp_folder(folder, sizeof folder);
    tiny_write(folder, &s->tiny);
    OK(pg_model_options_init(&model_options, sizeof model_options));
    OK(pg_processor_options_init(&processor_options, sizeof processor_options));
    model_options.allocator = processor_options.allocator = &f->memory.hooks;
    model_options.weights = s->weights;
    OK(pg_model_open(folder, &model_options, &f->model));
    OK(pg_processor_open(folder, &processor_options, &f->processor));
    remove_folder(folder);
    OK(pg_image_from_pixels(&image, sizeof image, PG_IMAGE_RGB8, 20, 20, pixels, 0));
    OK(pg_processor_encode(f->processor, &image, "the cat <loc0001> \xC3\xA9", NULL, &f->image));
    OK(pg_processor_encode(f->processor, NULL, "cat", NULL, &f->words));
    OK(pg_features_create(f->model, f->image, NULL, &f->features));
    for (int r = 0; r < N_ROWS; r++) images[r] = image;
    OK(pg_batch_init(&batch, sizeof batch));
    batch.n_prompts = N_ROWS;
    batch.prompts = prompts;
    batch.images = images;
    batch.n_images = N_ROWS;
    OK(pg_processor_encode_batch(f->processor, &batch, NULL, &f->rows));
}

static void tear_down(fixture *f) {
    pg_features_close(&f->features);
    pg_inputs_close(&f->rows);
    pg_inputs_close(&f->words);
    pg_inputs_close(&f->image);
    pg_processor_close(&f->processor);
    pg_model_close(&f->model);
    assert_true(counter_clean(&f->memory));
}

static void open_session(const fixture *f, const setting *s, int32_t max_prompt_tokens, pg_session **session) {
    pg_session_options options;
    OK(pg_session_options_init(&options, sizeof options));
    options.n_threads = s->n_threads;
    options.max_new_tokens = NEW_TOKENS;
    options.max_prompt_tokens = max_prompt_tokens;
    OK(pg_session_create(f->model, &options, session));
}

static int32_t on_logits(void *user, int64_t row, const int64_t *ids, int64_t n_ids, float *logits,
                         int64_t vocab_size) {
    (void)user, (void)row, (void)ids, (void)n_ids, (void)vocab_size;
    logits[5] -= 1;
    return 0;
}

static int32_t on_mask(void *user, int64_t row, const int64_t *ids, int64_t n_ids, uint32_t *mask, int64_t vocab_size) {
    (void)user, (void)row, (void)ids, (void)n_ids;
    memset(mask, 0xFF, (size_t)(vocab_size + 31) / 32 * sizeof *mask);
    return 0;
}

/* Greedy, by every setting, and fed, in turn. */
static pg_status step(pg_session *session, int i, int64_t *token) {
    static const int64_t ids[] = {7, 8, 9}, sizes[] = {1, 2};
    static const double biases[] = {1, -1};
    static uint32_t all[256]; /* bits of more ids than the vocabulary has */
    memset(all, 0xFF, sizeof all);
    pg_sampling_options s;
    if (i % 3 == 0) return pg_session_step(session, token);
    if (i % 3 == 1) {
        *token = 7 + i % 5;
        return pg_session_feed(session, token, 1);
    }
    OK(pg_sampling_options_init(&s, sizeof s));
    s.flags = PG_SAMPLING_RANDOM | PG_SAMPLING_REMOVE_INVALID | PG_SAMPLING_RENORMALIZE;
    s.temperature = 2, s.top_h = 0.99, s.top_p = 0.99, s.min_p = 1e-6, s.typical_p = 0.99, s.epsilon_cutoff = 1e-7;
    s.eta_cutoff = 1e-7, s.repetition_penalty = 1.1, s.decay_factor = 1.01, s.no_repeat_ngram_size = 3;
    s.min_new_tokens = 5;
    s.flags |= PG_SAMPLING_ADD_EOS;
    s.eos_ids = ids, s.n_eos_ids = 2;
    s.suppressed_ids = s.begin_suppressed_ids = ids, s.n_suppressed_ids = s.n_begin_suppressed_ids = 2;
    s.bad_word_ids = s.bias_ids = ids, s.bad_word_sizes = s.bias_sizes = sizes, s.n_bad_words = s.n_biases = 2;
    s.biases = biases;
    s.on_logits = on_logits;
    s.on_mask = on_mask;
    s.token_mask = all;
    return pg_session_sample(session, &s, token);
}

/* Adds the answer to `text`, ids as numbers and the pieces of text. */
static pg_status answer(pg_session *session, pg_detokenizer *detokenizer, const pg_inputs *inputs,
                        const pg_features *features, char *text) {
    pg_status status = pg_session_prefill(session, inputs, features);
    const char *piece;
    int64_t token;
    for (int i = 0; status == PG_OK; i++) {
        status = step(session, i, &token);
        if (status == PG_ERROR_LIMIT) status = PG_EVENT_LENGTH; /* the last token is not fed */
        if (status < 0 || status == PG_EVENT_LENGTH) break;
        pg_status pushed = pg_detokenizer_push(detokenizer, token, &piece, NULL);
        if (pushed < 0) return pushed;
        size_t n = strlen(text);
        snprintf(text + n, MAX_TEXT - n, "%lld%s ", (long long)token, piece);
    }
    if (status < 0) return status;
    status = pg_detokenizer_flush(detokenizer, &piece, NULL);
    strncat(text, piece, MAX_TEXT - 1 - strlen(text));
    return status;
}

/* An image to encode, one that is encoded, a short prompt, and the first one again. */
static pg_status answers(const fixture *f, pg_session *session, pg_detokenizer *detokenizer, char *text) {
    text[0] = 0;
    pg_status status = answer(session, detokenizer, f->image, NULL, text);
    if (status >= 0) status = answer(session, detokenizer, f->image, f->features, text);
    if (status >= 0) status = answer(session, detokenizer, f->words, f->features, text);
    if (status >= 0) status = answer(session, detokenizer, f->image, NULL, text);
    return status;
}

static void a_session(const setting *s) {
    fixture f;
    pg_session *session = NULL;
    pg_detokenizer *detokenizer = NULL;
    char expected[MAX_TEXT], text[MAX_TEXT];
    set_up(&f, s);
    OK(pg_detokenizer_create(f.processor, 0, &detokenizer));
    open_session(&f, s, 0, &session);
    OK(answers(&f, session, detokenizer, expected));
    pg_session_close(&session);
    pg_detokenizer_close(&detokenizer);

    atomic_store(&n_mallocs, 0);
    atomic_store(&counting, 1);
    open_session(&f, s, 0, &session);
    atomic_store(&counting, 0);
#ifdef COUNTS_MALLOC
    assert_true(n_mallocs > 0); /* or the counting itself is broken */
#endif
    OK(pg_detokenizer_create(f.processor, 0, &detokenizer));
    int64_t before = f.memory.n_allocs;
    f.memory.fail_from = before + 1;
    atomic_store(&n_mallocs, 0);
    atomic_store(&counting, 1);
    pg_status status = answers(&f, session, detokenizer, text);
    atomic_store(&counting, 0);
    if (status < 0) fail_msg("%s: %s", pg_status_name(status), pg_last_error());
    assert_int_equal(f.memory.n_allocs, before);
    if (n_mallocs) fail_msg("%lld calls of malloc past the allocator", (long long)n_mallocs);
    assert_string_equal(text, expected);
    f.memory.fail_from = 0;
    pg_session_close(&session);
    pg_detokenizer_close(&detokenizer);
    tear_down(&f);
}

static void sessions(void **state) {
    static const int32_t weights[] = {PG_WEIGHTS_STORED, PG_WEIGHTS_INT8, PG_WEIGHTS_INT4};
    (void)state;
    for (int i = 0; i < 12; i++) {
        setting s = {i % 2 ? tiny_saved_today() : tiny_official(), weights[i / 2 % 3], 1 + i / 6};
        if (s.n_threads > 1) s.tiny.image_size = 96; /* enough tokens for threads to have work */
        a_session(&s);
    }
#ifndef COUNTS_MALLOC
    say("malloc itself is not counted in this build\n");
#endif
}

/* A session that is too small for a prompt grows for it, once. */
static void a_small_session(void **state) {
    setting s = {tiny_official(), PG_WEIGHTS_STORED, 1};
    fixture f;
    pg_session *session = NULL;
    pg_detokenizer *detokenizer = NULL;
    char expected[MAX_TEXT], text[MAX_TEXT];
    (void)state;
    set_up(&f, &s);
    OK(pg_detokenizer_create(f.processor, 0, &detokenizer));
    open_session(&f, &s, 0, &session);
    OK(answers(&f, session, detokenizer, expected));
    pg_session_close(&session);
    open_session(&f, &s, 1, &session);
    f.memory.fail_from = f.memory.n_allocs + 1;
    assert_int_equal(answers(&f, session, detokenizer, text), PG_ERROR_MEMORY);
    f.memory.fail_from = 0;
    OK(answers(&f, session, detokenizer, text));
    assert_string_equal(text, expected);
    f.memory.fail_from = f.memory.n_allocs + 1;
    OK(answers(&f, session, detokenizer, text));
    assert_string_equal(text, expected);
    f.memory.fail_from = 0;
    pg_session_close(&session);
    pg_detokenizer_close(&detokenizer);
    tear_down(&f);
}

static void prompt_lengths(void **state) {
    setting s = {tiny_official(), PG_WEIGHTS_STORED, 1};
    fixture f;
    pg_session *session = NULL;
    pg_session_options options;
    (void)state;
    set_up(&f, &s);
    OK(pg_session_options_init(&options, sizeof options));
    static const int32_t wrong[] = {-1, (1 << 24) + 1, INT32_MAX};
    for (int i = 0; i < 3; i++) {
        options.max_prompt_tokens = wrong[i];
        assert_int_equal(pg_session_create(f.model, &options, &session), PG_ERROR_ARGUMENT);
        assert_null(session);
        assert_non_null(strstr(pg_last_error(), "max_prompt_tokens"));
    }
    options.max_prompt_tokens = 8193;
    OK(pg_session_create(f.model, &options, &session));
    pg_session_close(&session);
    tear_down(&f);
}

/* ---- pg_generate ---- */

typedef struct generation {
    counter *memory;
    int64_t allocs; /* at the first step; -1: not yet */
    int fails;      /* from then on */
    int n_steps;    /* after it */
    int n_threads;
} generation;

static int32_t on_progress(void *user, int32_t phase, int64_t done, int64_t total) {
    generation *g = user;
    (void)done, (void)total;
    if (phase != PG_PHASE_DECODE || g->allocs >= 0) return 0;
    g->allocs = g->memory->n_allocs;
    if (g->fails) g->memory->fail_from = g->allocs + 1;
    atomic_store(&n_mallocs, 0);
    atomic_store(&counting, 1);
    return 0;
}

static int32_t on_text(void *user, int64_t row, const char *text, size_t size, int64_t token) {
    (void)user, (void)row, (void)text, (void)size, (void)token;
    return 0;
}

static void rows_of_generate(void **state) {
    (void)state;
    for (int i = 0; i < 4; i++) {
        setting s = {i % 2 ? tiny_saved_today() : tiny_official(), PG_WEIGHTS_STORED, 1 + i / 2};
        fixture f;
        pg_result *results[2] = {NULL, NULL};
        set_up(&f, &s);
        for (int k = 0; k < 2; k++) {
            generation g = {.memory = &f.memory, .allocs = -1, .fails = k};
            pg_generate_options options;
            OK(pg_generate_options_init(&options, sizeof options));
            options.n_threads = s.n_threads;
            options.max_new_tokens = NEW_TOKENS;
            options.max_running = N_ROWS; /* those that wait begin with memory of their own */
            options.progress = on_progress;
            options.progress_user = &g;
            options.on_text = on_text;
            pg_status status = pg_generate(f.model, f.processor, f.rows, &options, &results[k]);
            atomic_store(&counting, 0);
            if (status < 0) fail_msg("%s: %s", pg_status_name(status), pg_last_error());
            assert_true(g.allocs >= 0);
            assert_int_equal(f.memory.n_allocs, g.allocs);
            if (n_mallocs) fail_msg("%lld calls of malloc past the allocator", (long long)n_mallocs);
            f.memory.fail_from = 0;
        }
        for (int64_t r = 0; r < N_ROWS; r++)
            assert_string_equal(pg_result_get_text(results[0], r), pg_result_get_text(results[1], r));
        pg_result_close(&results[0]);
        pg_result_close(&results[1]);
        tear_down(&f);
    }
}

/* ---- beam search ---- */

/* Allocations since the first step, as each later one sees them: what a search hands over at its end is not counted.
 * Threads of the call may still be made meanwhile, past the allocator: calls of malloc count with one thread alone. */
static int32_t on_search(void *user, int32_t phase, int64_t done, int64_t total) {
    generation *g = user;
    if (phase == PG_PHASE_DECODE && g->allocs >= 0) {
        const long long beyond = g->n_threads == 1 ? n_mallocs : 0;
        g->n_steps++;
        if (g->memory->n_allocs != g->allocs || beyond > 0)
            fail_msg("step %lld of %lld: %lld allocations, %lld calls of malloc", (long long)done, (long long)total,
                     (long long)(g->memory->n_allocs - g->allocs), beyond);
    }
    return on_progress(user, phase, done, total);
}

static void a_search(fixture *f, int32_t n_threads, int32_t n_beams, uint32_t sampling_flags) {
    generation g = {.memory = &f->memory, .allocs = -1, .n_threads = n_threads};
    pg_generate_options options;
    pg_beam_options beams;
    pg_sampling_options sampling;
    pg_result *result = NULL;
    const char *stop = "never to be seen";
    OK(pg_generate_options_init(&options, sizeof options));
    OK(pg_beam_options_init(&beams, sizeof beams));
    OK(pg_sampling_options_init(&sampling, sizeof sampling));
    beams.n_beams = n_beams;
    beams.early_stopping = PG_EARLY_STOPPING_NEVER;
    sampling.flags = PG_SAMPLING_IGNORE_EOS | sampling_flags;
    sampling.repetition_penalty = 1.2;
    sampling.no_repeat_ngram_size = 3;
    sampling.on_logits = on_logits;
    options.features = f->features;
    options.beams = &beams;
    options.sampling = &sampling;
    options.stop_strings = &stop;
    options.n_stop_strings = 1;
    options.flags = PG_GENERATE_LOG_PROBS;
    options.n_threads = n_threads;
    options.max_new_tokens = NEW_TOKENS;
    options.progress = on_search;
    options.progress_user = &g;
    const pg_status status = pg_generate(f->model, f->processor, f->words, &options, &result);
    atomic_store(&counting, 0);
    if (status < 0) fail_msg("%s: %s", pg_status_name(status), pg_last_error());
    assert_int_equal(g.n_steps, NEW_TOKENS - 1); /* all but the first; the last token, not fed, is the end */
    pg_result_close(&result);
}

static void beams_of_generate(void **state) {
    (void)state;
    for (int i = 0; i < 8; i++) {
        setting s = {i % 2 ? tiny_saved_today() : tiny_official(), PG_WEIGHTS_STORED, 1 + i / 2 % 2};
        fixture f;
        set_up(&f, &s);
        a_search(&f, s.n_threads, i < 4 ? 3 : 9, i / 2 % 2 ? PG_SAMPLING_RANDOM : 0);
        tear_down(&f);
    }
}

/* ---- scores ---- */

/* All that pg_score() takes is made before its prompt is run; the texts were made ids before that. */
static void branches_of_score(void **state) {
    static char long_text[2000];
    static const char *const answers[] = {"cat", "the cat", long_text, "a", "", "the cat <loc0001>"};
    (void)state;
    for (size_t i = 0; i + 5 <= sizeof long_text; i += 4) memcpy(long_text + i, "cat ", 5);
    for (int i = 0; i < 12; i++) {
        static const int32_t weights[] = {PG_WEIGHTS_STORED, PG_WEIGHTS_INT8, PG_WEIGHTS_INT4};
        setting s = {i % 2 ? tiny_saved_today() : tiny_official(), weights[i / 2 % 3], 1 + i / 6};
        fixture f;
        pg_score_options options;
        pg_scores *scores = NULL;
        set_up(&f, &s);
        generation g = {.memory = &f.memory, .allocs = -1, .fails = 1, .n_threads = s.n_threads};
        OK(pg_score_options_init(&options, sizeof options));
        options.features = f.features;
        options.n_threads = s.n_threads;
        options.progress = on_search;
        options.progress_user = &g;
        const pg_status status = pg_score(f.model, f.processor, f.words, answers, 6, &options, &scores);
        atomic_store(&counting, 0);
        if (status < 0) fail_msg("%s: %s", pg_status_name(status), pg_last_error());
        assert_true(g.n_steps >= 3); /* the prompt, a pass, and those of the long answer */
        assert_int_equal(f.memory.n_allocs, g.allocs);
        f.memory.fail_from = 0;
        pg_scores_close(&scores);
        tear_down(&f);
    }
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sessions),         cmocka_unit_test(a_small_session),   cmocka_unit_test(prompt_lengths),
        cmocka_unit_test(rows_of_generate), cmocka_unit_test(beams_of_generate), cmocka_unit_test(branches_of_score),
    };
    return RUN_TESTS(tests, NULL, NULL);
}
