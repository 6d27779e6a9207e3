/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The library as a plugin: loaded, used with threads and unloaded several times in a program that is not linked with
 * it, also while a session has threads and another thread is in a call. Nothing may be printed, and no environment,
 * locale or signal handler be different afterwards.
 *
 *     test_load LIBRARY
 */
#include <locale.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "loaded_calls.h"
#include "tiny.h"

static int n_failures;
static void expect(int ok, const char *what) {
    if (ok) return;
    n_failures++;
    say("FAIL: %s\n", what);
}

static int n_handlers(void) {
    int n = 0;
    for (int i = 1; i < 65; i++) {
        struct sigaction action;
        if (sigaction(i, NULL, &action) == 0 && action.sa_handler != SIG_DFL && action.sa_handler != SIG_IGN) n++;
    }
    return n;
}

/* Generates; the ids go to `ids`, their number is returned. */
static size_t use(const loaded_calls *c, const char *folder, int64_t ids[16]) {
    static const uint8_t grey[16 * 16 * 3];
    pg_model *model = NULL;
    pg_processor *processor = NULL;
    pg_inputs *inputs = NULL;
    pg_result *result = NULL;
    pg_image image;
    pg_generate_options options;
    pg_tensor tensor = {.struct_size = sizeof tensor};
    size_t n = 0;
    c->pg_generate_options_init(&options, sizeof options);
    options.n_threads = 3;
    options.max_new_tokens = 8;
    c->pg_image_from_pixels(&image, sizeof image, PG_IMAGE_RGB8, 16, 16, grey, 0);
    expect(c->pg_model_open("/nonexistent", NULL, &model) < 0 && strstr(c->pg_last_error(), "/nonexistent"),
           "the error of a missing folder");
    int ok = c->pg_model_open(folder, NULL, &model) == 0 && c->pg_processor_open(folder, NULL, &processor) == 0 &&
             c->pg_processor_encode(processor, &image, "the cat", NULL, &inputs) == 0 &&
             c->pg_generate(model, processor, inputs, &options, &result) == 0 &&
             c->pg_result_get_ids(result, 0, &tensor) == 0;
    expect(ok, "generating");
    if (ok) {
        n = (size_t)tensor.shape[0];
        memcpy(ids, tensor.data, n * sizeof *ids);
    } else {
        say("%s\n", c->pg_last_error());
    }
    c->pg_result_close(&result);
    c->pg_inputs_close(&inputs);
    c->pg_processor_close(&processor);
    c->pg_model_close(&model);
    return n;
}

/* ---- threads that outlive dlclose() ---- */

typedef struct stayer {
    const loaded_calls *calls;
    pg_session *session;
    const pg_inputs *inputs;
    sem_t is_inside, may_go_on;
    int stays, failed;
} stayer;

static int32_t stay(void *user, int32_t phase, int64_t done, int64_t total) {
    stayer *s = user;
    (void)phase, (void)done, (void)total;
    if (!s->stays) return 0;
    s->stays = 0;
    sem_post(&s->is_inside);
    sem_wait(&s->may_go_on);
    return 0;
}

static void *prefill(void *user) {
    stayer *s = user;
    s->failed = s->calls->pg_session_prefill(s->session, s->inputs, NULL) < 0;
    return NULL;
}

/* A session with threads that wait for work, and a call under way on another thread: the library is closed, loaded
 * again and closed again meanwhile, and both go on. */
static void close_under_threads(const char *path, const char *folder, const int64_t *ids, size_t n) {
    static const uint8_t grey[16 * 16 * 3];
    loaded_calls first, again;
    void *library = load(path, &first);
    pg_model *model = NULL;
    pg_processor *processor = NULL;
    pg_inputs *inputs = NULL;
    pg_image image;
    pg_session_options options;
    stayer s = {.calls = &first, .stays = 1};
    pthread_t thread;
    first.pg_image_from_pixels(&image, sizeof image, PG_IMAGE_RGB8, 16, 16, grey, 0);
    first.pg_session_options_init(&options, sizeof options);
    options.n_threads = 3;
    options.progress = stay, options.progress_user = &s;
    sem_init(&s.is_inside, 0, 0);
    sem_init(&s.may_go_on, 0, 0);
    expect(first.pg_model_open(folder, NULL, &model) == 0 && first.pg_processor_open(folder, NULL, &processor) == 0 &&
               first.pg_processor_encode(processor, &image, "the cat", NULL, &inputs) == 0 &&
               first.pg_session_create(model, &options, &s.session) == 0,
           "a session");
    s.inputs = inputs;
    expect(pthread_create(&thread, NULL, prefill, &s) == 0, "a thread");
    sem_wait(&s.is_inside);
    expect(dlclose(library) == 0, "dlclose during a call");
    library = load(path, &again);
    expect(again.pg_session_step == first.pg_session_step, "the copy that was there");
    sem_post(&s.may_go_on);
    expect(pthread_join(thread, NULL) == 0 && !s.failed, "the call that was under way");
    expect(dlclose(library) == 0, "dlclose with a session open");
    library = load(path, &again);
    for (size_t i = 0; i < n; i++) {
        int64_t id = -1;
        expect(again.pg_session_step(s.session, &id) >= 0 && id == ids[i], "a step afterwards");
    }
    again.pg_session_close(&s.session);
    again.pg_inputs_close(&inputs);
    again.pg_processor_close(&processor);
    again.pg_model_close(&model);
    expect(dlclose(library) == 0, "the last dlclose");
    sem_destroy(&s.is_inside);
    sem_destroy(&s.may_go_on);
}

int main(int argc, char **argv) {
    int64_t ids[3][16];
    size_t n[3];
    char folder[512];
    tiny_options options = tiny_official();
    if (argc != 2) return 2;
    make_temp_folder(folder, sizeof folder);
    tiny_write(folder, &options);
    int handlers = n_handlers();
    capture_begin();
    for (int round = 0; round < 3; round++) {
        loaded_calls calls;
        void *library = load(argv[1], &calls);
        expect(strcmp(setlocale(LC_ALL, NULL), "C") == 0, "loading changed the locale");
        expect(dlsym(library, "pgi_error") == NULL, "an internal name is exported");
        n[round] = use(&calls, folder, ids[round]);
        expect(n[round] > 0 && n[round] == n[0] && memcmp(ids[round], ids[0], n[0] * sizeof ids[0][0]) == 0,
               "the same ids each time");
        expect(dlclose(library) == 0, "dlclose");
    }
    for (int round = 0; round < 2; round++) close_under_threads(argv[1], folder, ids[0], n[0]);
    expect(n_handlers() == handlers, "signal handlers were changed");
    expect(strcmp(setlocale(LC_ALL, NULL), "C") == 0, "the locale was changed");
    expect(capture_end() == 0, "something was printed");
    remove_folder(folder);
    say("%d failures\n", n_failures);
    return n_failures > 0;
}
