/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* What docs/EMBEDDING.md promises a host: threads, cancelling, forking, closing in any order, and nothing of its own
 * changed. */
#include "run_tests.h"

#include <locale.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "sanitized.h"
#include "support.h"
#include "tiny.h"

static char folders[2][512]; /* a tiny checkpoint of each generation */
static char large[512];      /* one whose encoder and prefill take a while: 8 layers, LARGE_SIDE^2 / 16 image tokens */

/* Sanitizers and -O0 make it take just as long with fewer. */
#ifdef SANITIZED
enum { LARGE_SIDE = 96 };
#else
enum { LARGE_SIDE = 192 };
#endif

static int setup(void **state) {
    (void)state;
    tiny_options options[3] = {tiny_official(), tiny_saved_today(), tiny_official()};
    options[0].image_size = options[1].image_size = 64; /* 256 image tokens: several chunks for several threads */
    options[2].image_size = LARGE_SIDE;
    options[2].n_layers = 8;
    for (int i = 0; i < 3; i++) {
        char *folder = i < 2 ? folders[i] : large;
        make_temp_folder(folder, sizeof folders[0]);
        tiny_write(folder, &options[i]);
    }
    return 0;
}

static int teardown(void **state) {
    (void)state;
    for (int i = 0; i < 3; i++) remove_folder(i < 2 ? folders[i] : large);
    return 0;
}

typedef struct host {
    counter memory;
    pg_model *model;
    pg_processor *processor;
    pg_inputs *inputs;
} host;

#define OK(call)                                                                                       \
    do {                                                                                               \
        pg_status status_ = (call);                                                                    \
        if (status_ != PG_OK) fail_msg("%s: %s: %s", #call, pg_status_name(status_), pg_last_error()); \
    } while (0)

static pg_inputs *make_inputs(const pg_processor *processor, uint64_t seed) {
    pg_inputs *inputs = NULL;
    pg_image image;
    bytes file = tiny_image(IMAGE_PNG, 50, 40, seed);
    OK(pg_image_from_bytes(&image, sizeof image, file.data, file.size));
    OK(pg_processor_encode(processor, &image, "the cat", NULL, &inputs));
    bytes_free(&file);
    return inputs;
}

static void open_host(host *h, const char *folder) {
    pg_model_options model_options;
    pg_processor_options processor_options;
    memset(h, 0, sizeof *h);
    counter_init(&h->memory);
    pg_model_options_init(&model_options, sizeof model_options);
    pg_processor_options_init(&processor_options, sizeof processor_options);
    model_options.allocator = processor_options.allocator = &h->memory.hooks;
    OK(pg_model_open(folder, &model_options, &h->model));
    OK(pg_processor_open(folder, &processor_options, &h->processor));
    h->inputs = make_inputs(h->processor, 7);
}

static void close_host(host *h) {
    pg_inputs_close(&h->inputs);
    pg_processor_close(&h->processor);
    pg_model_close(&h->model);
    assert_true(counter_clean(&h->memory));
}

/* The logits of a prefill and of two steps, appended. */
static void all_logits(const host *h, int n_threads, bytes *out) {
    pg_session_options options;
    pg_session *session = NULL;
    pg_tensor logits = {.struct_size = sizeof logits};
    int64_t token;
    OK(pg_session_options_init(&options, sizeof options));
    options.n_threads = n_threads;
    OK(pg_session_create(h->model, &options, &session));
    OK(pg_session_prefill(session, h->inputs, NULL));
    for (int step = 0; step < 3; step++) {
        OK(pg_session_get_logits(session, &logits));
        bytes_add(out, logits.data, (size_t)logits.shape[0] * sizeof(float));
        if (pg_session_step(session, &token) != PG_OK) break; /* eos */
        bytes_add(out, &token, sizeof token);
    }
    pg_session_close(&session);
}

/* ------------------------------------------------------------------------------------------------------- threads */

static void bit_equal_for_any_number_of_threads(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) {
        host h;
        bytes one = {0};
        open_host(&h, folders[i]);
        all_logits(&h, 1, &one);
        assert_true(one.size > 1000);
        for (int n = 2; n <= 7; n++) {
            bytes many = {0};
            all_logits(&h, n, &many);
            assert_int_equal(many.size, one.size);
            assert_memory_equal(many.data, one.data, one.size);
            bytes_free(&many);
        }
        bytes_free(&one);
        close_host(&h);
    }
}

typedef struct worker {
    const host *h;
    uint64_t image;
    int n_threads, rounds, differs;
    int64_t ids[32];
    size_t n;
} worker;

static void *generate_some(void *user) {
    worker *w = user;
    for (int i = 0; i < w->rounds; i++) {
        pg_generate_options options;
        pg_result *result = NULL;
        pg_tensor ids = {.struct_size = sizeof ids};
        pg_inputs *inputs = make_inputs(w->h->processor, w->image);
        pg_generate_options_init(&options, sizeof options);
        options.n_threads = w->n_threads;
        options.max_new_tokens = 16;
        if (pg_generate(w->h->model, w->h->processor, inputs, &options, &result) != PG_OK ||
            pg_result_get_ids(result, 0, &ids) != PG_OK) {
            w->differs = 1;
        } else if (w->n == 0) {
            w->n = (size_t)ids.shape[0];
            memcpy(w->ids, ids.data, w->n * sizeof *w->ids);
        } else if ((size_t)ids.shape[0] != w->n || memcmp(w->ids, ids.data, w->n * sizeof *w->ids)) {
            w->differs = 1;
        }
        pg_result_close(&result);
        pg_inputs_close(&inputs);
    }
    return NULL;
}

static void threads_share_a_model(void **state) {
    enum { N = 4 };
    host h;
    worker workers[N];
    pthread_t threads[N];
    (void)state;
    open_host(&h, folders[1]);
    for (int i = 0; i < N; i++) {
        workers[i] = (worker){.h = &h, .image = (uint64_t)i + 1, .n_threads = 1 + i % 2, .rounds = 1};
        generate_some(&workers[i]); /* alone */
        assert_true(workers[i].n > 0 && !workers[i].differs);
        workers[i].rounds = 5;
    }
    for (int i = 0; i < N; i++) assert_int_equal(pthread_create(&threads[i], NULL, generate_some, &workers[i]), 0);
    for (int i = 0; i < N; i++) pthread_join(threads[i], NULL);
    for (int i = 0; i < N; i++) assert_false(workers[i].differs);
    close_host(&h);
}

static void *fail_here(void *user) {
    pg_model *model = NULL;
    pg_model_open("/nonexistent/of-the-other-thread", NULL, &model);
    *(int *)user = strstr(pg_last_error(), "of-the-other-thread") != NULL;
    return NULL;
}

static void errors_belong_to_their_thread(void **state) {
    pthread_t thread;
    pg_model *model = NULL;
    int named = 0;
    (void)state;
    pg_model_open("/nonexistent/of-this-thread", NULL, &model);
    assert_int_equal(pthread_create(&thread, NULL, fail_here, &named), 0);
    pthread_join(thread, NULL);
    assert_true(named);
    assert_non_null(strstr(pg_last_error(), "of-this-thread"));
}

static void a_forked_child_generates(void **state) {
    host h;
    int64_t got[32];
    int channel[2], status;
    (void)state;
#ifdef THREAD_SANITIZED
    skip();
#endif
    open_host(&h, folders[0]);
    worker w = {.h = &h, .image = 3, .n_threads = 4, .rounds = 1};
    generate_some(&w); /* the parent's threads exist now; a child does not have them */
    assert_true(w.n > 0);
    assert_int_equal(pipe(channel), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        alarm(60); /* a hang ends by SIGALRM */
        w.rounds = 2;
        generate_some(&w);
        ssize_t written = w.differs ? 0 : write(channel[1], w.ids, w.n * sizeof *w.ids);
        _exit(written > 0 ? 0 : 1);
    }
    close(channel[1]);
    ssize_t n = read(channel[0], got, sizeof got);
    close(channel[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_int_equal(n, w.n * sizeof *w.ids);
    assert_memory_equal(got, w.ids, (size_t)n);
    w.rounds = 1;
    generate_some(&w); /* and the parent goes on */
    assert_false(w.differs);
    close_host(&h);
}

static pg_session *start_session(const host *h, int n_threads) {
    pg_session_options options;
    pg_session *session = NULL;
    OK(pg_session_options_init(&options, sizeof options));
    options.n_threads = n_threads;
    OK(pg_session_create(h->model, &options, &session));
    OK(pg_session_prefill(session, h->inputs, NULL));
    return session;
}

/* The logits after a step, appended. */
static void step_logits(pg_session *session, bytes *out) {
    pg_tensor logits = {.struct_size = sizeof logits};
    int64_t token;
    assert_true(pg_session_step(session, &token) >= 0);
    assert_true(pg_session_step(session, &token) >= 0);
    OK(pg_session_get_logits(session, &logits));
    bytes_add(out, logits.data, (size_t)logits.shape[0] * sizeof(float));
}

/* A session made before fork() goes on in the child, and there prefills anew, with threads of its own; so it does in
 * the parent, which does not notice. */
static void a_session_goes_on_in_a_forked_child(void **state) {
    host h;
    bytes wanted = {0}, again = {0};
    int status;
    (void)state;
#ifdef THREAD_SANITIZED
    skip();
#endif
    open_host(&h, large);
    pg_session *session = start_session(&h, 1);
    step_logits(session, &wanted);
    pg_session_close(&session);
    session = start_session(&h, 3);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        alarm(60);
        step_logits(session, &again);
        int good = again.size == wanted.size && memcmp(again.data, wanted.data, wanted.size) == 0;
        again.size = 0;
        good &= pg_session_prefill(session, h.inputs, NULL) == PG_OK;
        step_logits(session, &again);
        good &= again.size == wanted.size && memcmp(again.data, wanted.data, wanted.size) == 0;
        pg_session_close(&session);
        session = start_session(&h, 2);
        pg_session_close(&session);
        _exit(good ? 0 : 1);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    step_logits(session, &again);
    assert_int_equal(again.size, wanted.size);
    assert_memory_equal(again.data, wanted.data, wanted.size);
    pg_session_close(&session);
    bytes_free(&again);
    bytes_free(&wanted);
    close_host(&h);
}

static double cpu_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Between its calls a session costs the host no CPU, and after it there is no thread left. */
static void idle_threads_are_idle(void **state) {
    const struct timespec pause = {0, 100000000};
    host h;
    (void)state;
    open_host(&h, large);
    for (int n = 1; n <= 4; n++) {
        const int before = count_threads();
        pg_session *session = start_session(&h, n);
        assert_true(n > 1 || count_threads() == before); /* one thread starts none */
        for (int step = 0; step < 3; step++) {
            int64_t token;
            assert_true(pg_session_step(session, &token) >= 0);
            const double cpu = cpu_seconds();
            nanosleep(&pause, NULL);
            assert_true(cpu_seconds() - cpu < 0.002);
        }
        pg_session_close(&session);
#if defined(__clang__) && defined(PGI_THREADS_OPENMP) /* LLVM's OpenMP keeps threads for later, asleep */
        (void)before;
#else
        assert_true(wait_for_threads(before) <= before);
#endif
        const double cpu = cpu_seconds();
        nanosleep(&pause, NULL);
        assert_true(cpu_seconds() - cpu < 0.002);
    }
    close_host(&h);
}

/* ------------------------------------------------------------------------------------------- progress and cancel */

typedef struct watch {
    int64_t n_calls, stop_at;
    int n_of_phase[5];
    int out_of_order;
    int32_t phase;
    int64_t done;
    pg_cancel **close; /* closed at the second call */
    pthread_t caller;
    int foreign;
} watch;

static int32_t on_progress(void *user, int32_t phase, int64_t done, int64_t total) {
    watch *w = user;
    w->n_calls++;
    if (phase < PG_PHASE_LOAD || phase > PG_PHASE_DECODE || phase < w->phase || done < 0 || done > total || total < 1)
        w->out_of_order = 1;
    if (phase == w->phase && done < w->done) w->out_of_order = 1;
    if (!pthread_equal(pthread_self(), w->caller)) w->foreign = 1;
    w->phase = phase;
    w->done = done;
    if (phase >= 1 && phase <= 4) w->n_of_phase[phase]++;
    if (w->close && w->n_calls == 2) pg_cancel_close(w->close);
    return w->n_calls == w->stop_at;
}

static pg_status generate_watched(const host *h, watch *w, pg_cancel *cancel, int n_threads, pg_result **result) {
    pg_generate_options options;
    pg_generate_options_init(&options, sizeof options);
    options.max_new_tokens = 4;
    options.n_threads = n_threads;
    options.progress = on_progress;
    options.progress_user = w;
    options.cancel = cancel;
    return pg_generate(h->model, h->processor, h->inputs, &options, result);
}

static void progress_cancels_anywhere(void **state) {
    (void)state;
    host h;
    pg_result *result = NULL;
    watch all = {.caller = pthread_self()};
    open_host(&h, folders[1]);
    OK(generate_watched(&h, &all, NULL, 2, &result));
    pg_result_close(&result);
    assert_false(all.out_of_order);
    assert_false(all.foreign);
    assert_true(all.n_of_phase[PG_PHASE_VISION] >= 2);
    assert_true(all.n_of_phase[PG_PHASE_PREFILL] >= 2);
    assert_true(all.n_of_phase[PG_PHASE_DECODE] >= 1);
    for (int64_t k = 1; k <= all.n_calls; k++) {
        watch w = {.caller = pthread_self(), .stop_at = k};
        stale_error();
        pg_status status = generate_watched(&h, &w, NULL, 1 + (int)(k % 2), &result);
        if (status != PG_ERROR_CANCELLED || bad_error(status) || error_is_stale() || result || w.n_calls != k)
            fail_msg("stopped at call %lld of %lld: %s %s, %lld calls", (long long)k, (long long)all.n_calls,
                     pg_status_name(status), pg_last_error(), (long long)w.n_calls);
    }
    close_host(&h);

    /* and while loading */
    counter memory;
    counter_init(&memory);
    pg_model_options options;
    watch load = {.caller = pthread_self()};
    pg_model *model = NULL;
    pg_model_options_init(&options, sizeof options);
    options.allocator = &memory.hooks;
    options.progress = on_progress;
    options.progress_user = &load;
    OK(pg_model_open(folders[1], &options, &model));
    pg_model_close(&model);
    assert_true(load.n_of_phase[PG_PHASE_LOAD] >= 2);
    assert_int_equal(load.n_of_phase[PG_PHASE_LOAD], load.n_calls);
    assert_false(load.out_of_order);
    for (int64_t k = 1; k <= load.n_calls; k++) {
        watch w = {.caller = pthread_self(), .stop_at = k};
        options.progress_user = &w;
        assert_int_equal(pg_model_open(folders[1], &options, &model), PG_ERROR_CANCELLED);
        assert_null(model);
        assert_true(counter_clean(&memory));
    }
}

static void a_set_flag_stops_every_call(void **state) {
    host h;
    pg_cancel *cancel = NULL;
    pg_result *result = NULL;
    pg_features *features = NULL;
    pg_session *session = NULL;
    pg_model *model = NULL;
    pg_run_options run_options;
    pg_session_options session_options;
    pg_model_options model_options;
    watch w = {.caller = pthread_self()};
    int64_t token;
    (void)state;
    open_host(&h, folders[0]);
    OK(pg_cancel_create(&cancel));
    pg_run_options_init(&run_options, sizeof run_options);
    pg_session_options_init(&session_options, sizeof session_options);
    pg_model_options_init(&model_options, sizeof model_options);
    run_options.cancel = session_options.cancel = model_options.cancel = cancel;
    OK(pg_session_create(h.model, &session_options, &session));
    OK(pg_session_prefill(session, h.inputs, NULL));
    OK(pg_session_step(session, &token));
    pg_cancel_request(cancel);
    assert_int_equal(pg_session_step(session, &token), PG_ERROR_CANCELLED);
    assert_int_equal(pg_session_step(session, &token), PG_ERROR_STATE); /* as the header says: prefill again */
    assert_int_equal(pg_session_prefill(session, h.inputs, NULL), PG_ERROR_CANCELLED);
    assert_int_equal(generate_watched(&h, &w, cancel, 2, &result), PG_ERROR_CANCELLED);
    assert_int_equal(pg_features_create(h.model, h.inputs, &run_options, &features), PG_ERROR_CANCELLED);
    assert_int_equal(pg_model_open(folders[0], &model_options, &model), PG_ERROR_CANCELLED);
    assert_null(model);
    assert_null(features);
    assert_null(result);
    pg_cancel_clear(cancel);
    OK(pg_session_prefill(session, h.inputs, NULL));
    OK(generate_watched(&h, &(watch){.caller = pthread_self()}, cancel, 2, &result));
    pg_result_close(&result);
    pg_cancel_close(&cancel); /* the session keeps its own */
    assert_null(cancel);
    pg_status status = pg_session_step(session, &token);
    assert_true(status >= 0);
    pg_session_close(&session);
    close_host(&h);
}

/* "Calls under way keep their own reference": closed by the host in the middle of a call. */
static void the_flag_is_closed_during_a_call(void **state) {
    host h;
    pg_cancel *cancel = NULL;
    pg_result *result = NULL;
    pg_features *features = NULL;
    pg_model *model = NULL;
    pg_run_options run_options;
    pg_model_options model_options;
    (void)state;
    open_host(&h, folders[0]);
    OK(pg_cancel_create(&cancel));
    watch w = {.caller = pthread_self(), .close = &cancel};
    OK(generate_watched(&h, &w, cancel, 2, &result));
    pg_result_close(&result);
    assert_null(cancel);

    OK(pg_cancel_create(&cancel));
    w = (watch){.caller = pthread_self(), .close = &cancel};
    pg_run_options_init(&run_options, sizeof run_options);
    run_options.cancel = cancel;
    run_options.progress = on_progress;
    run_options.progress_user = &w;
    OK(pg_features_create(h.model, h.inputs, &run_options, &features));
    pg_features_close(&features);
    assert_null(cancel);

    OK(pg_cancel_create(&cancel));
    w = (watch){.caller = pthread_self(), .close = &cancel};
    pg_model_options_init(&model_options, sizeof model_options);
    model_options.cancel = cancel;
    model_options.progress = on_progress;
    model_options.progress_user = &w;
    OK(pg_model_open(folders[0], &model_options, &model));
    pg_model_close(&model);
    assert_null(cancel);
    close_host(&h);
}

typedef struct remote {
    pg_cancel *cancel;
    sem_t go;
    int32_t phase; /* the request comes once this phase has begun */
    int told;
    double requested;
} remote;

static int32_t tell_remote(void *user, int32_t phase, int64_t done, int64_t total) {
    remote *r = user;
    (void)total;
    if (phase == r->phase && done >= 1 && !r->told) {
        r->told = 1;
        sem_post(&r->go);
    }
    return 0;
}

static void *cancel_remotely(void *user) {
    remote *r = user;
    sem_wait(&r->go);
    r->requested = now_seconds();
    pg_cancel_request(r->cancel);
    return NULL;
}

static void another_thread_cancels(void **state) {
    host h;
    pg_result *result = NULL;
    pg_generate_options options;
    (void)state;
    open_host(&h, large);
    pg_generate_options_init(&options, sizeof options);
    options.max_new_tokens = 1;
    options.n_threads = 2;
    OK(pg_generate(h.model, h.processor, h.inputs, &options, &result));
    pg_result_info info = {.struct_size = sizeof info};
    OK(pg_result_get_info(result, 0, &info));
    pg_result_close(&result);
    for (int32_t phase = PG_PHASE_VISION; phase <= PG_PHASE_PREFILL; phase++) {
        double whole = phase == PG_PHASE_VISION ? info.vision_seconds : info.prefill_seconds;
        remote r = {.phase = phase};
        pthread_t thread;
        sem_init(&r.go, 0, 0);
        OK(pg_cancel_create(&r.cancel));
        assert_int_equal(pthread_create(&thread, NULL, cancel_remotely, &r), 0);
        options.cancel = r.cancel;
        options.progress = tell_remote;
        options.progress_user = &r;
        pg_status status = pg_generate(h.model, h.processor, h.inputs, &options, &result);
        double returned = now_seconds();
        pthread_join(thread, NULL);
        say("phase %d takes %.3f s; cancelled, it returned %.4f s after the request\n", phase, whole,
            returned - r.requested);
        assert_int_equal(status, PG_ERROR_CANCELLED);
        /* one of the 8 layers takes an eighth; machines that share their cores get some grace */
        assert_true(returned - r.requested < whole / 8 + 0.25);
        pg_cancel_close(&r.cancel);
        sem_destroy(&r.go);
    }
    close_host(&h);
}

/* One image, many prompts: features serve another prompt, and a session that had one starts over, to the last bit. */
static void features_serve_many_prompts(void **state) {
    static const char *const prompts[] = {"the cat", "a dog <loc0001>", "", "the cat"};
    (void)state;
    for (int i = 0; i < 2; i++) {
        host h;
        pg_features *features = NULL;
        pg_session *session = NULL;
        open_host(&h, folders[i]);
        OK(pg_features_create(h.model, h.inputs, NULL, &features));
        OK(pg_session_create(h.model, NULL, &session));
        for (size_t k = 0; k < sizeof prompts / sizeof *prompts; k++) {
            pg_inputs *text_only = NULL, *whole = NULL;
            pg_session *fresh = NULL;
            pg_tensor again = {.struct_size = sizeof again}, expected = again;
            pg_image image;
            bytes file = tiny_image(IMAGE_PNG, 50, 40, 7); /* that of open_host() */
            OK(pg_image_from_bytes(&image, sizeof image, file.data, file.size));
            OK(pg_processor_encode(h.processor, NULL, prompts[k], NULL, &text_only));
            OK(pg_processor_encode(h.processor, &image, prompts[k], NULL, &whole));
            OK(pg_session_create(h.model, NULL, &fresh));
            OK(pg_session_prefill(fresh, whole, NULL));
            OK(pg_session_prefill(session, text_only, features));
            for (int step = 0; step < 2; step++) {
                int64_t tokens[2];
                OK(pg_session_get_logits(session, &again));
                OK(pg_session_get_logits(fresh, &expected));
                assert_memory_equal(again.data, expected.data, (size_t)expected.shape[0] * sizeof(float));
                pg_status status = pg_session_step(fresh, &tokens[0]);
                assert_int_equal(pg_session_step(session, &tokens[1]), status);
                assert_int_equal(tokens[0], tokens[1]);
                if (status != PG_OK) break;
            }
            pg_session_close(&fresh);
            pg_inputs_close(&whole);
            pg_inputs_close(&text_only);
            bytes_free(&file);
        }
        pg_session_close(&session);
        pg_features_close(&features);
        close_host(&h);
    }
}

/* ------------------------------------------------------------------------------------------------------ closing */

static void handles_close_in_any_order(void **state) {
    enum { MODEL, PROCESSOR, INPUTS, FEATURES, SESSION, RESULT, DETOKENIZER, CANCEL, N };
    rng r = {11};
    (void)state;
    for (int round = 0; round < 150; round++) {
        host h;
        pg_features *features = NULL;
        pg_session *session = NULL;
        pg_result *result = NULL;
        pg_detokenizer *detokenizer = NULL;
        pg_cancel *cancel = NULL;
        pg_session_options options;
        pg_generate_options generate_options;
        int order[N], closed[N] = {0};
        int64_t token;
        const char *text;
        open_host(&h, folders[0]);
        OK(pg_cancel_create(&cancel));
        pg_session_options_init(&options, sizeof options);
        options.cancel = cancel;
        options.n_threads = 1;
        pg_generate_options_init(&generate_options, sizeof generate_options);
        generate_options.max_new_tokens = 2;
        generate_options.n_threads = 1;
        OK(pg_features_create(h.model, h.inputs, NULL, &features));
        OK(pg_session_create(h.model, &options, &session));
        OK(pg_session_prefill(session, h.inputs, features));
        generate_options.features = features;
        OK(pg_generate(h.model, h.processor, h.inputs, &generate_options, &result));
        OK(pg_detokenizer_create(h.processor, 0, &detokenizer));
        for (int i = 0; i < N; i++) order[i] = i;
        for (int i = N - 1; i > 0; i--) {
            int j = (int)rng_below(&r, (uint64_t)i + 1), swap = order[i];
            order[i] = order[j];
            order[j] = swap;
        }
        for (int i = 0; i < N; i++) {
            switch (order[i]) {
                case MODEL: pg_model_close(&h.model); break;
                case PROCESSOR: pg_processor_close(&h.processor); break;
                case INPUTS: pg_inputs_close(&h.inputs); break;
                case FEATURES: pg_features_close(&features); break;
                case SESSION: pg_session_close(&session); break;
                case RESULT: pg_result_close(&result); break;
                case DETOKENIZER: pg_detokenizer_close(&detokenizer); break;
                default: pg_cancel_close(&cancel); break;
            }
            closed[order[i]] = 1;
            /* whatever is still open works on */
            if (!closed[SESSION]) {
                if (!closed[INPUTS]) OK(pg_session_prefill(session, h.inputs, features));
                pg_status status = pg_session_step(session, &token);
                assert_true(status >= 0 || status == PG_ERROR_STATE);
            }
            if (!closed[DETOKENIZER]) OK(pg_detokenizer_push(detokenizer, 5, &text, NULL));
            if (!closed[RESULT]) assert_non_null(pg_result_get_text(result, 0));
            pg_tensor tensor = {.struct_size = sizeof tensor};
            if (!closed[FEATURES]) OK(pg_features_get_tensor(features, &tensor));
            if (!closed[INPUTS]) OK(pg_inputs_get_tensor(h.inputs, "pixel_values", &tensor));
        }
        assert_true(counter_clean(&h.memory));
    }
    pg_model_close(NULL);
    pg_processor_close(NULL);
    pg_inputs_close(NULL);
    pg_features_close(NULL);
    pg_session_close(NULL);
    pg_result_close(NULL);
    pg_detokenizer_close(NULL);
    pg_cancel_close(NULL);
    pg_cancel_request(NULL);
    pg_cancel_clear(NULL);
    assert_string_equal(pg_result_get_text(NULL, 0), "");
}

/* ------------------------------------------------------------------------------------- what belongs to the host */

/* Debian has no comma locale unless asked for, so one is made in a folder of its own. */
static int set_comma_locale(const char *folder) {
    static const char *const names[] = {"de_DE.UTF-8", "de_DE.utf8", "fr_FR.UTF-8", "de_DE"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (setlocale(LC_ALL, names[i])) return 1;
    char command[700];
    snprintf(command, sizeof command, "localedef -i de_DE -f UTF-8 %s/de_DE.UTF-8 >/dev/null 2>&1", folder);
    if (system(command) != 0) say("localedef made no locale\n");
    setenv("LOCPATH", folder, 1);
    return setlocale(LC_ALL, "de_DE.UTF-8") != NULL;
}

static void a_comma_locale_changes_nothing(void **state) {
    char folder[512], path[600], text[2][8192];
    bytes plain = {0}, comma = {0};
    host h;
    double eps = 0, scale = 0;
    (void)state;
    open_host(&h, folders[1]);
    all_logits(&h, 1, &plain);
    OK(pg_model_get_config(h.model, "", text[0], sizeof text[0], NULL));
    close_host(&h);
    make_temp_folder(folder, sizeof folder);
    int made = set_comma_locale(folder);
    if (made) {
        snprintf(text[1], sizeof text[1], "%.1f", 1.5);
        assert_string_equal(text[1], "1,5"); /* the locale is what it should be */
        char *name = strdup(setlocale(LC_ALL, NULL));
        open_host(&h, folders[1]);
        all_logits(&h, 1, &comma);
        OK(pg_model_get_config(h.model, "", text[1], sizeof text[1], NULL));
        OK(pg_model_get_config_float(h.model, "text_config.rms_norm_eps", &eps));
        pg_processor_info info = {.struct_size = sizeof info};
        OK(pg_processor_get_info(h.processor, &info));
        scale = info.rescale_factor;
        close_host(&h);
        assert_string_equal(setlocale(LC_ALL, NULL), name);
        free(name);
        setlocale(LC_ALL, "C");
        assert_int_equal(comma.size, plain.size);
        assert_memory_equal(comma.data, plain.data, plain.size);
        assert_string_equal(text[0], text[1]);
        assert_true(eps == 1e-6);
        assert_true(scale == 0.00392156862745098);
    }
    bytes_free(&plain);
    bytes_free(&comma);
    snprintf(path, sizeof path, "rm -rf %s", folder);
    if (system(path) != 0) say("%s failed\n", path);
    if (!made) {
        say("no comma locale here, and localedef (Debian: locales) cannot make one\n");
        skip();
    }
}

typedef struct lines {
    int n, bad;
} lines;

static void on_log(void *user, int32_t level, const char *message) {
    lines *l = user;
    l->n++;
    if (level < PG_LOG_ERROR || level > PG_LOG_DEBUG || !message || strchr(message, '\n')) l->bad++;
}

/* Also through the log: preformatted lines, and only to who asked for them. */
static void nothing_is_printed(void **state) {
    lines l = {0};
    pg_model_options model_options;
    pg_processor_options processor_options;
    pg_model *model = NULL;
    pg_processor *processor = NULL;
    host h;
    pg_result *result = NULL;
    (void)state;
    pg_model_options_init(&model_options, sizeof model_options);
    pg_processor_options_init(&processor_options, sizeof processor_options);
    model_options.log = processor_options.log = on_log;
    model_options.log_user = processor_options.log_user = &l;
    capture_begin();
    OK(pg_model_open(folders[0], &model_options, &model));
    OK(pg_processor_open(folders[0], &processor_options, &processor));
    pg_model_close(&model);
    pg_processor_close(&processor);
    for (int i = 0; i < 2; i++) {
        open_host(&h, folders[i]);
        OK(generate_watched(&h, &(watch){.caller = pthread_self()}, NULL, 2, &result));
        pg_result_close(&result);
        close_host(&h);
    }
    assert_int_equal(capture_end(), 0);
    assert_true(l.n > 0);
    assert_int_equal(l.bad, 0);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(bit_equal_for_any_number_of_threads, capture_end_if_on),
        cmocka_unit_test_teardown(threads_share_a_model, capture_end_if_on),
        cmocka_unit_test_teardown(errors_belong_to_their_thread, capture_end_if_on),
        cmocka_unit_test_teardown(a_forked_child_generates, capture_end_if_on),
        cmocka_unit_test_teardown(a_session_goes_on_in_a_forked_child, capture_end_if_on),
        cmocka_unit_test_teardown(idle_threads_are_idle, capture_end_if_on),
        cmocka_unit_test_teardown(progress_cancels_anywhere, capture_end_if_on),
        cmocka_unit_test_teardown(a_set_flag_stops_every_call, capture_end_if_on),
        cmocka_unit_test_teardown(the_flag_is_closed_during_a_call, capture_end_if_on),
        cmocka_unit_test_teardown(another_thread_cancels, capture_end_if_on),
        cmocka_unit_test_teardown(features_serve_many_prompts, capture_end_if_on),
        cmocka_unit_test_teardown(handles_close_in_any_order, capture_end_if_on),
        cmocka_unit_test_teardown(a_comma_locale_changes_nothing, capture_end_if_on),
        cmocka_unit_test_teardown(nothing_is_printed, capture_end_if_on),
    };
    return RUN_TESTS(tests, setup, teardown);
}
