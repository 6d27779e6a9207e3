/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Searches, draws, scores, attentions, sampled sessions and trainings: what their progress says, and that a progress
 * callback, a flag that another thread sets, and a flag that a callback sets each end them, with nothing kept. */
#include "run_tests.h"

#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "support.h"
#include "tiny.h"

enum { N_ROWS = 3, N_ANSWERS = 5, NEW_TOKENS = 6, MOST_PHASES = 8, MOST_TEXT = 2048 };

#define OK(call)                                                                                  \
    do {                                                                                          \
        pg_status status_ = (call);                                                               \
        if (status_ < 0) fail_msg("%s: %s: %s", #call, pg_status_name(status_), pg_last_error()); \
    } while (0)

static counter memory;
static pg_model *model;
static pg_processor *processor;
static pg_inputs *inputs, *rows; /* one row with an image, and several */
static pg_inputs *labelled;      /* several with answers to learn */

static int setup(void **state) {
    static const char *const prompts[N_ROWS] = {"a cat", "the", "cat cat cat"};
    tiny_options tiny = tiny_saved_today();
    pg_model_options model_options;
    pg_processor_options processor_options;
    pg_image images[N_ROWS];
    pg_batch batch;
    char folder[512];
    (void)state;
    counter_init(&memory);
    make_temp_folder(folder, sizeof folder);
    tiny_write(folder, &tiny);
    OK(pg_model_options_init(&model_options, sizeof model_options));
    OK(pg_processor_options_init(&processor_options, sizeof processor_options));
    model_options.allocator = processor_options.allocator = &memory.hooks;
    OK(pg_model_open(folder, &model_options, &model));
    OK(pg_processor_open(folder, &processor_options, &processor));
    remove_folder(folder);
    bytes file = tiny_image(IMAGE_PNG, 30, 20, 1);
    for (int i = 0; i < N_ROWS; i++) OK(pg_image_from_bytes(&images[i], sizeof images[i], file.data, file.size));
    OK(pg_processor_encode(processor, &images[0], "the cat", NULL, &inputs));
    OK(pg_batch_init(&batch, sizeof batch));
    batch.n_prompts = batch.n_images = N_ROWS;
    batch.prompts = prompts;
    batch.images = images;
    OK(pg_processor_encode_batch(processor, &batch, NULL, &rows));
    batch.n_suffixes = N_ROWS;
    batch.suffixes = prompts;
    OK(pg_processor_encode_batch(processor, &batch, NULL, &labelled));
    bytes_free(&file);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    pg_inputs_close(&inputs);
    pg_inputs_close(&rows);
    pg_inputs_close(&labelled);
    pg_processor_close(&processor);
    pg_model_close(&model);
    return !counter_clean(&memory);
}

/* ---- the calls: what they found is appended to `text`, when they end well ---- */

typedef struct hooks {
    pg_progress_fn progress;
    void *user;
    pg_cancel *cancel;
    int cancels_at; /* a callback of sampling or text sets the flag at its call of this number; 0: none */
    int n_calls;    /* of those */
    int n_threads;
} hooks;

static int32_t count_call(hooks *h) {
    if (++h->n_calls == h->cancels_at) pg_cancel_request(h->cancel);
    return 0;
}

static int32_t on_logits(void *user, int64_t row, const int64_t *ids, int64_t n_ids, float *logits,
                         int64_t vocab_size) {
    (void)row, (void)ids, (void)n_ids, (void)vocab_size;
    logits[1] -= 1;
    return count_call(user);
}

static int32_t on_mask(void *user, int64_t row, const int64_t *ids, int64_t n_ids, uint32_t *mask, int64_t vocab_size) {
    (void)row, (void)ids, (void)n_ids;
    memset(mask, 0xFF, (size_t)(vocab_size + 31) / 32 * sizeof *mask);
    return count_call(user);
}

static int32_t on_text(void *user, int64_t row, const char *text, size_t size, int64_t token) {
    (void)row, (void)text, (void)size, (void)token;
    return count_call(user);
}

static void add(char *text, const void *numbers, size_t size) {
    uint64_t hash = 14695981039346656037u;
    for (size_t i = 0; i < size; i++) hash = (hash ^ ((const uint8_t *)numbers)[i]) * 1099511628211u;
    snprintf(text + strlen(text), MOST_TEXT - strlen(text), "%016llx ", (unsigned long long)hash);
}

/* A generation of several rows. Without ends, so that each step is there. */
static pg_status generate(hooks *h, char *text, int32_t n_beams, int32_t n_return, uint32_t flags, int by_text) {
    pg_generate_options options;
    pg_sampling_options sampling;
    pg_beam_options beams;
    pg_result *result = NULL;
    OK(pg_generate_options_init(&options, sizeof options));
    OK(pg_sampling_options_init(&sampling, sizeof sampling));
    OK(pg_beam_options_init(&beams, sizeof beams));
    sampling.flags = flags | PG_SAMPLING_IGNORE_EOS;
    sampling.top_p = 0.9, sampling.repetition_penalty = 1.1;
    sampling.on_logits = n_return > 1 ? on_logits : NULL, sampling.on_logits_user = h;
    sampling.on_mask = n_return > 1 ? NULL : on_mask, sampling.on_mask_user = h;
    beams.n_beams = n_beams, beams.early_stopping = PG_EARLY_STOPPING_NEVER;
    if (by_text) sampling.on_logits = NULL, sampling.on_mask = NULL;
    options.on_text = by_text ? on_text : NULL, options.on_text_user = h;
    options.sampling = &sampling, options.beams = &beams;
    options.n_return = n_return, options.max_running = 2;
    options.max_new_tokens = NEW_TOKENS, options.flags = PG_GENERATE_LOG_PROBS;
    options.progress = h->progress, options.progress_user = h->user, options.cancel = h->cancel;
    options.n_threads = h->n_threads;
    const pg_status status = pg_generate(model, processor, rows, &options, &result);
    if (status < 0) assert_null(result);
    for (int64_t r = 0; r < pg_result_get_n_rows(result); r++) {
        pg_tensor ids = {.struct_size = sizeof ids};
        OK(pg_result_get_ids(result, r, &ids));
        add(text, ids.data, (size_t)ids.shape[0] * sizeof(int64_t));
    }
    pg_result_close(&result);
    return status;
}

static pg_status search(hooks *h, char *text) { return generate(h, text, 3, 1, 0, 0); }
static pg_status drawn_search(hooks *h, char *text) { return generate(h, text, 3, 2, PG_SAMPLING_RANDOM, 0); }
static pg_status draws(hooks *h, char *text) { return generate(h, text, 1, 4, PG_SAMPLING_RANDOM, 0); }
static pg_status waves(hooks *h, char *text) { return generate(h, text, 1, 1, 0, 1); }

static pg_status score_by(hooks *h, char *text, int by_ids) {
    static char long_text[4 * 400 + 1]; /* several passes */
    static const char *const answers[N_ANSWERS] = {"cat", "the cat", long_text, "a", ""};
    static const int64_t sizes[N_ANSWERS] = {1, 7, 700, 20, 2};
    int64_t ids[730];
    pg_score_options options;
    pg_scores *scores = NULL;
    for (int i = 0; i < 400; i++) memcpy(long_text + i * 4, "cat ", 4);
    for (int i = 0; i < 730; i++) ids[i] = 7 + i % 60;
    OK(pg_score_options_init(&options, sizeof options));
    options.progress = h->progress, options.progress_user = h->user, options.cancel = h->cancel;
    options.n_threads = h->n_threads;
    const pg_status status = by_ids ? pg_score_ids(model, inputs, ids, sizes, N_ANSWERS, &options, &scores)
                                    : pg_score(model, processor, inputs, answers, N_ANSWERS, &options, &scores);
    if (status < 0) assert_null(scores);
    for (int64_t i = 0; i < pg_scores_get_n_answers(scores); i++) {
        pg_score_info info = {.struct_size = sizeof info};
        OK(pg_scores_get_info(scores, i, &info));
        add(text, &info.log_prob, sizeof info.log_prob);
    }
    pg_scores_close(&scores);
    return status;
}

static pg_status score(hooks *h, char *text) { return score_by(h, text, 0); }
static pg_status score_ids(hooks *h, char *text) { return score_by(h, text, 1); }

static pg_status attentions(hooks *h, char *text) {
    pg_forward_options options;
    pg_outputs *outputs = NULL;
    OK(pg_forward_options_init(&options, sizeof options));
    options.flags = PG_FORWARD_ATTENTIONS | PG_FORWARD_ATTENTION_LAYER_MEAN;
    options.progress = h->progress, options.progress_user = h->user, options.cancel = h->cancel;
    options.n_threads = h->n_threads;
    const pg_status status = pg_forward(model, rows, &options, &outputs);
    if (status < 0) assert_null(outputs);
    if (status >= 0) {
        pg_tensor t = {.struct_size = sizeof t};
        OK(pg_outputs_get_tensor(outputs, "attentions", &t));
        add(text, t.data, (size_t)(t.shape[0] * t.shape[1] * t.shape[2] * t.shape[3]) * sizeof(float));
    }
    pg_outputs_close(&outputs);
    return status;
}

static void add_parameter(const pg_trainer *trainer, size_t i, char *text) {
    pg_parameter p = {.struct_size = sizeof p};
    OK(pg_trainer_get_parameter(trainer, i, &p));
    add(text, p.value, (size_t)(p.shape[0] * p.shape[1] * p.shape[2] * p.shape[3]) * sizeof *p.value);
}

static pg_status session(hooks *h, char *text) {
    pg_session_options options;
    pg_sampling_options sampling;
    pg_session *made = NULL;
    int64_t token[NEW_TOKENS] = {0};
    OK(pg_session_options_init(&options, sizeof options));
    OK(pg_sampling_options_init(&sampling, sizeof sampling));
    options.max_new_tokens = NEW_TOKENS;
    options.progress = h->progress, options.progress_user = h->user, options.cancel = h->cancel;
    options.n_threads = h->n_threads;
    sampling.flags = PG_SAMPLING_IGNORE_EOS | PG_SAMPLING_RANDOM;
    sampling.on_mask = on_mask, sampling.on_mask_user = h;
    OK(pg_session_create(model, &options, &made));
    pg_status status = pg_session_prefill(made, inputs, NULL);
    for (int i = 0; i < NEW_TOKENS && status >= 0; i++) status = pg_session_sample(made, &sampling, &token[i]);
    if (status >= 0) add(text, token, sizeof token);
    pg_session_close(&made);
    return status;
}

/* A step, or an evaluation. What a step that was stopped leaves is what it found. */
static pg_status train(hooks *h, char *text, int learns) {
    pg_trainer_options options;
    pg_trainer *trainer = NULL;
    pg_train_result result = {.struct_size = sizeof result};
    size_t n;
    OK(pg_trainer_options_init(&options, sizeof options));
    options.target_modules = "q_proj,fc1,embed_tokens";
    options.modules_to_save = "multi_modal_projector";
    options.dropout = 0.1;
    options.progress = h->progress, options.progress_user = h->user, options.cancel = h->cancel;
    options.n_threads = h->n_threads;
    OK(pg_trainer_create(model, &options, &trainer));
    OK(pg_trainer_count_parameters(trainer, &n));
    char before[MOST_TEXT] = "", after[MOST_TEXT] = "";
    for (size_t i = 0; i < n; i++) add_parameter(trainer, i, before);
    const pg_status status =
        learns ? pg_trainer_step(trainer, labelled, &result) : pg_trainer_evaluate(trainer, labelled, &result);
    for (size_t i = 0; i < n; i++) add_parameter(trainer, i, after);
    if (learns && status >= 0)
        assert_string_not_equal(before, after);
    else
        assert_string_equal(before, after);
    if (status >= 0) add(text, &result.loss, sizeof result.loss), add(text, after, strlen(after));
    pg_trainer_close(&trainer);
    return status;
}

static pg_status train_step(hooks *h, char *text) { return train(h, text, 1); }
static pg_status train_evaluate(hooks *h, char *text) { return train(h, text, 0); }

static const struct {
    const char *name;
    pg_status (*call)(hooks *h, char *text);
    int has_callback; /* of sampling or text, that may set the flag */
    int ends_full;    /* the last progress of the last phase is the whole of it */
} calls[] = {
    {"search", search, 1, 0},
    {"drawn search", drawn_search, 1, 0},
    {"draws", draws, 1, 0},
    {"waves", waves, 1, 0},
    {"score", score, 0, 1},
    {"score_ids", score_ids, 0, 1},
    {"attentions", attentions, 0, 1},
    {"session", session, 1, 0},
    {"a step of a training", train_step, 0, 1},
    {"an evaluation", train_evaluate, 0, 1},
};
enum { N_CALLS = sizeof calls / sizeof *calls };

/* ---- progress ---- */

typedef struct watch {
    pthread_t caller;
    int64_t done[MOST_PHASES], total[MOST_PHASES];
    int32_t last_phase;
    int n_calls, stop_at;
    const char *wrong;
} watch;

static int32_t on_progress(void *user, int32_t phase, int64_t done, int64_t total) {
    watch *w = user;
    w->n_calls++;
    if (phase < 1 || phase >= MOST_PHASES) {
        w->wrong = "an unknown phase";
        return 0;
    }
    if (!pthread_equal(w->caller, pthread_self())) w->wrong = "another thread";
    if (total < 1 || done < 0 || done > total) w->wrong = "done is not within 0 and total";
    if (w->total[phase] && (done < w->done[phase] || total != w->total[phase])) w->wrong = "it goes back";
    w->done[phase] = done, w->total[phase] = total, w->last_phase = phase;
    return w->n_calls == w->stop_at;
}

/* Forward alone, of one total; and each of its calls may end the whole. */
static void progress_goes_forward(void **state) {
    (void)state;
    for (int c = 0; c < N_CALLS; c++) {
        char text[MOST_TEXT] = "";
        watch all = {.caller = pthread_self()};
        hooks h = {.progress = on_progress, .user = &all, .n_threads = 2};
        OK(calls[c].call(&h, text));
        if (all.wrong) fail_msg("%s: %s", calls[c].name, all.wrong);
        assert_true(all.n_calls > 3);
        for (int phase = 1; phase < all.last_phase; phase++)
            if (all.total[phase] && all.done[phase] != all.total[phase])
                fail_msg("%s: phase %d ends at %lld of %lld", calls[c].name, phase, (long long)all.done[phase],
                         (long long)all.total[phase]);
        if (calls[c].ends_full) assert_int_equal(all.done[all.last_phase], all.total[all.last_phase]);
        for (int at = 1; at <= all.n_calls; at++) {
            const long long live = memory.n_live;
            watch w = {.caller = pthread_self(), .stop_at = at};
            h = (hooks){.progress = on_progress, .user = &w, .n_threads = 1 + at % 2};
            stale_error();
            const pg_status status = calls[c].call(&h, text);
            if (status != PG_ERROR_CANCELLED || bad_error(status) || error_is_stale() || w.n_calls != at)
                fail_msg("%s stopped at %d of %d: %s %s, %d calls", calls[c].name, at, all.n_calls,
                         pg_status_name(status), pg_last_error(), w.n_calls);
            assert_int_equal(memory.n_live, live);
        }
    }
}

/* ---- the flag ---- */

/* At its call of the number `at` it waits until another thread has set the flag. */
typedef struct remote {
    pg_cancel *cancel;
    sem_t go, is_set;
    int n_calls, at;
} remote;

static void *set_flag(void *user) {
    remote *r = user;
    sem_wait(&r->go);
    pg_cancel_request(r->cancel);
    sem_post(&r->is_set);
    return NULL;
}

static int32_t wait_for_flag(void *user, int32_t phase, int64_t done, int64_t total) {
    remote *r = user;
    (void)phase, (void)done, (void)total;
    if (++r->n_calls == r->at) {
        sem_post(&r->go);
        sem_wait(&r->is_set);
    }
    return 0;
}

static void another_thread_sets_it(void **state) {
    (void)state;
    for (int c = 0; c < N_CALLS; c++) {
        char text[MOST_TEXT] = "";
        watch all = {.caller = pthread_self()};
        hooks h = {.progress = on_progress, .user = &all, .n_threads = 2};
        OK(calls[c].call(&h, text));
        const int step = 1 + all.n_calls / 6;
        for (int at = 1; at <= all.n_calls; at += step) {
            const long long live = memory.n_live;
            remote r = {.at = at};
            pthread_t thread;
            sem_init(&r.go, 0, 0);
            sem_init(&r.is_set, 0, 0);
            OK(pg_cancel_create(&r.cancel));
            assert_int_equal(pthread_create(&thread, NULL, set_flag, &r), 0);
            h = (hooks){.progress = wait_for_flag, .user = &r, .cancel = r.cancel, .n_threads = 2};
            const pg_status status = calls[c].call(&h, text);
            pthread_join(thread, NULL);
            if (status != PG_ERROR_CANCELLED || r.n_calls != at)
                fail_msg("%s, flag set at progress %d of %d: %s after %d", calls[c].name, at, all.n_calls,
                         pg_status_name(status), r.n_calls);
            assert_int_equal(memory.n_live, live);
            pg_cancel_close(&r.cancel);
            sem_destroy(&r.go);
            sem_destroy(&r.is_set);
        }
    }
}

/* Before the call; and cleared again, the results are those of a call without one. */
static void a_flag_is_set_before_and_cleared(void **state) {
    (void)state;
    for (int c = 0; c < N_CALLS; c++) {
        char expected[MOST_TEXT] = "", text[MOST_TEXT] = "";
        hooks h = {.n_threads = 1};
        OK(calls[c].call(&h, expected));
        assert_true(strlen(expected) > 16);
        h = (hooks){.n_threads = 2};
        OK(pg_cancel_create(&h.cancel));
        pg_cancel_request(h.cancel);
        assert_int_equal(calls[c].call(&h, text), PG_ERROR_CANCELLED);
        assert_int_equal(h.n_calls, 0); /* nothing was sampled */
        assert_string_equal(text, "");
        pg_cancel_clear(h.cancel);
        OK(calls[c].call(&h, text));
        assert_string_equal(text, expected);
        pg_cancel_close(&h.cancel);
    }
}

/* In on_logits, on_mask and on_text. A search tells its texts at the end alone, so it has none here. */
static void a_callback_sets_it(void **state) {
    (void)state;
    for (int c = 0; c < N_CALLS; c++) {
        char text[MOST_TEXT] = "";
        hooks h = {.n_threads = 1};
        if (!calls[c].has_callback) continue;
        OK(calls[c].call(&h, text));
        const int n_calls = h.n_calls;
        assert_true(n_calls >= NEW_TOKENS);
        for (int at = 1; at <= n_calls / 2; at++) {
            const long long live = memory.n_live;
            h = (hooks){.n_threads = 1 + at % 2, .cancels_at = at};
            OK(pg_cancel_create(&h.cancel));
            const pg_status status = calls[c].call(&h, text);
            if (status != PG_ERROR_CANCELLED || h.n_calls > at + 2 * N_ROWS)
                fail_msg("%s, flag set in callback %d of %d: %s after %d", calls[c].name, at, n_calls,
                         pg_status_name(status), h.n_calls);
            assert_int_equal(memory.n_live, live);
            pg_cancel_close(&h.cancel);
        }
    }
}

/* ---- how soon ---- */

typedef struct stopping {
    pg_cancel *cancel;
    double delay, set_at;
} stopping;

static void *set_later(void *user) {
    stopping *s = user;
    nanosleep(&(struct timespec){(time_t)s->delay, (long)((s->delay - (double)(time_t)s->delay) * 1e9)}, NULL);
    s->set_at = now_seconds();
    pg_cancel_request(s->cancel);
    return NULL;
}

/* Seconds of a step; with a flag, from when it was set. */
static double time_step(const pg_model *of, const pg_inputs *in, stopping *s) {
    pg_trainer_options options;
    pg_trainer *trainer = NULL;
    pthread_t thread;
    OK(pg_trainer_options_init(&options, sizeof options));
    options.target_modules = "regex:.*(_proj|fc.|_embedding|embed_tokens|lm_head)";
    options.rank = 96;
    options.n_threads = 1;
    options.cancel = s ? s->cancel : NULL;
    OK(pg_trainer_create(of, &options, &trainer));
    if (s) assert_int_equal(pthread_create(&thread, NULL, set_later, s), 0);
    const double begin = now_seconds();
    const pg_status status = pg_trainer_step(trainer, in, NULL);
    const double end = now_seconds();
    if (s) pthread_join(thread, NULL);
    pg_trainer_close(&trainer);
    if (!s) OK(status);
    if (!s) return end - begin;
    return status == PG_ERROR_CANCELLED ? end - s->set_at : 0; /* it was over before */
}

/* Wherever a step is, it stops within a tenth of what all of it takes. Other programs only make it longer. */
static void a_training_stops_soon(void **state) {
    static const char *const prompts[] = {"the cat"};
    const char *suffixes[] = {"the cat in a cat"};
    tiny_options tiny = tiny_official();
    char folder[512];
    pg_model *of = NULL;
    pg_processor *own = NULL;
    pg_inputs *in = NULL;
    pg_batch batch;
    pg_image image;
    bytes file = tiny_image(IMAGE_PNG, 30, 20, 1);
    (void)state;
    tiny.image_size = 96; /* 576 patches */
    make_temp_folder(folder, sizeof folder);
    tiny_write(folder, &tiny);
    OK(pg_model_open(folder, NULL, &of));
    OK(pg_processor_open(folder, NULL, &own));
    OK(pg_image_from_bytes(&image, sizeof image, file.data, file.size));
    OK(pg_batch_init(&batch, sizeof batch));
    batch.n_prompts = batch.n_suffixes = batch.n_images = 1;
    batch.prompts = prompts, batch.suffixes = suffixes, batch.images = &image;
    OK(pg_processor_encode_batch(own, &batch, NULL, &in));
    double whole = time_step(of, in, NULL);
    for (int at = 1; at < 12; at += 2) {
        double least = 1e9, bound = 0;
        for (int i = 0; i < 8 && least > bound; i++) {
            stopping s = {.delay = whole * at / 12};
            OK(pg_cancel_create(&s.cancel));
            const double took = time_step(of, in, &s);
            if (took < least) least = took;
            pg_cancel_close(&s.cancel);
            bound = whole / 10 + 0.001;
        }
        if (least > bound) fail_msg("at %d / 12 of %.3f s: it stops after %.4f s", at, whole, least);
    }
    bytes_free(&file);
    pg_inputs_close(&in);
    pg_processor_close(&own);
    pg_model_close(&of);
    remove_folder(folder);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(progress_goes_forward),
        cmocka_unit_test(another_thread_sets_it),
        cmocka_unit_test(a_flag_is_set_before_and_cleared),
        cmocka_unit_test(a_callback_sets_it),
        cmocka_unit_test(a_training_stops_soon),
    };
    return RUN_TESTS(tests, setup, teardown);
}
