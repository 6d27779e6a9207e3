/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * fork() in every state: between the calls that lead to an answer, in each callback of a call, while other threads are
 * inside the library, and into PID namespaces, where a child has its parent's number. The child goes on where the
 * parent was, with threads of its own, to the same tokens, and closes what it inherited; so does the parent then.
 */
#include "run_tests.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "sanitized.h"
#include "support.h"
#include "tiny.h"

enum { N_TOKENS = 5, SECONDS = 60 };
enum { CANNOT = 77 }; /* exit status: this system does not let us */

static char folder[512];
static int64_t expected[N_TOKENS];

/* The steps to an answer, in their order. */
typedef enum { NOTHING, MODEL, PROCESSOR, INPUTS, FEATURES, SESSION, PREFILL, HALF, N_STATES } state;

typedef struct work {
    counter memory;
    pg_model *model;
    pg_processor *processor;
    pg_inputs *inputs;
    pg_features *features;
    pg_session *session;
    int n_tokens;
    int64_t tokens[N_TOKENS];
} work;

/* Not cmocka's: what fails in a child shows in its exit status. */
static int went_well(pg_status status) {
    if (status < 0) say("%s: %s\n", pg_status_name(status), pg_last_error());
    return status >= 0;
}

static int take(work *w, int n) {
    pg_sampling_options options;
    pg_sampling_options_init(&options, sizeof options);
    options.flags = PG_SAMPLING_IGNORE_EOS;
    for (; n > 0; n--)
        if (!went_well(pg_session_sample(w->session, &options, &w->tokens[w->n_tokens++]))) return 0;
    return 1;
}

static int open_image(const pg_processor *processor, pg_inputs **inputs) {
    static const uint8_t pixels[64 * 64 * 3] = {200, 100};
    pg_image image;
    return went_well(pg_image_from_pixels(&image, sizeof image, PG_IMAGE_RGB8, 64, 64, pixels, 0)) &&
           went_well(pg_processor_encode(processor, &image, "the cat", NULL, inputs));
}

static int create(const work *w, int n_threads, pg_session **session) {
    pg_session_options options;
    pg_session_options_init(&options, sizeof options);
    options.n_threads = n_threads;
    return went_well(pg_session_create(w->model, &options, session));
}

/* From the state before to this one. Non-zero: it went well. */
static int advance(work *w, state to) {
    pg_model_options model_options;
    pg_processor_options processor_options;
    pg_run_options run;
    switch (to) {
        case MODEL:
            pg_model_options_init(&model_options, sizeof model_options);
            model_options.allocator = &w->memory.hooks;
            return went_well(pg_model_open(folder, &model_options, &w->model));
        case PROCESSOR:
            pg_processor_options_init(&processor_options, sizeof processor_options);
            processor_options.allocator = &w->memory.hooks;
            return went_well(pg_processor_open(folder, &processor_options, &w->processor));
        case INPUTS: return open_image(w->processor, &w->inputs);
        case FEATURES:
            pg_run_options_init(&run, sizeof run);
            run.n_threads = 3;
            return went_well(pg_features_create(w->model, w->inputs, &run, &w->features));
        case SESSION: return create(w, 3, &w->session);
        case PREFILL: return went_well(pg_session_prefill(w->session, w->inputs, w->features));
        case HALF: return take(w, N_TOKENS / 2);
        default: return 1;
    }
}

/* The rest of the way from `from`; then all is closed. */
static int finish(work *w, state from) {
    int good = 1;
    for (state s = from + 1; s < N_STATES && good; s++) good = advance(w, s);
    good = good && take(w, N_TOKENS - w->n_tokens) && memcmp(w->tokens, expected, sizeof expected) == 0;
    w->n_tokens = 0; /* and once more */
    good = good && advance(w, PREFILL) && take(w, N_TOKENS) && memcmp(w->tokens, expected, sizeof expected) == 0;
    pg_session_close(&w->session);
    pg_features_close(&w->features);
    pg_inputs_close(&w->inputs);
    pg_processor_close(&w->processor);
    pg_model_close(&w->model);
    return counter_clean(&w->memory) && good;
}

static int setup(void **unused) {
    work w = {0};
    tiny_options options = tiny_official();
    (void)unused;
    options.image_size = 64; /* 256 image tokens: work for several threads */
    make_temp_folder(folder, sizeof folder);
    tiny_write(folder, &options);
    counter_init(&w.memory);
    for (state s = MODEL; s <= PREFILL; s++) assert_true(advance(&w, s));
    assert_true(take(&w, N_TOKENS));
    memcpy(expected, w.tokens, sizeof expected);
    w.n_tokens = 0;
    assert_true(finish(&w, PREFILL));
    return 0;
}

static int teardown(void **unused) {
    (void)unused;
    remove_folder(folder);
    return 0;
}

/* ---- children ---- */

static void give_up(int number) {
    (void)number;
    _exit(3);
}

/* A child hangs for SECONDS at most. The first process of a PID namespace ignores signals that have no handler. */
static pid_t fork_child(void) {
    const pid_t child = fork();
    if (child == 0) {
        signal(SIGALRM, give_up);
        alarm(SECONDS);
    }
    return child;
}

/* The exit status; negative: it ended by a signal. */
static int status_of(pid_t child) {
    int how = 0;
    if (child < 0 || waitpid(child, &how, 0) != child) return -1000;
    return WIFEXITED(how) ? WEXITSTATUS(how) : -WTERMSIG(how);
}

static void in_every_state(void **unused) {
    work w = {0};
    (void)unused;
    counter_init(&w.memory);
    for (state s = NOTHING; s < N_STATES; s++) {
        assert_true(advance(&w, s));
        const pid_t child = fork_child();
        if (child == 0) _exit(!finish(&w, s));
        const int status = status_of(child);
        if (status != 0) fail_msg("state %d: a child ends with %d", s, status);
    }
    assert_true(finish(&w, HALF));
}

/* ---- in callbacks ---- */

typedef struct forker {
    int n_calls, at;
    int is_child;
    int status; /* of the child */
    pg_allocator *behind;
} forker;

static void fork_at(forker *f) {
    if (++f->n_calls != f->at || f->is_child) return;
    const pid_t child = fork_child();
    f->is_child = child == 0;
    if (child != 0) f->status = status_of(child);
}

static void on_log(void *user, int32_t level, const char *line) {
    (void)level, (void)line;
    fork_at(user);
}
static int32_t on_progress(void *user, int32_t phase, int64_t done, int64_t total) {
    (void)phase, (void)done, (void)total;
    fork_at(user);
    return 0;
}
static int32_t on_text(void *user, int64_t row, const char *text, size_t size, int64_t token) {
    (void)row, (void)text, (void)size, (void)token;
    fork_at(user);
    return 0;
}
static int32_t on_logits(void *user, int64_t row, const int64_t *ids, int64_t n_ids, float *logits, int64_t n) {
    (void)row, (void)ids, (void)n_ids, (void)logits, (void)n;
    fork_at(user);
    return 0;
}
static void *on_alloc(void *user, size_t size, size_t alignment) {
    forker *f = user;
    fork_at(f);
    return f->behind->alloc(f->behind->user, size, alignment);
}
static void on_free(void *user, void *block) {
    forker *f = user;
    fork_at(f);
    f->behind->free(f->behind->user, block);
}

/* Everything with callbacks that fork, some at one call of them; whether all went well. */
static int with_callbacks(forker *logs, forker *progress, forker *text, forker *logits, forker *memory) {
    counter counted;
    pg_model_options options;
    pg_generate_options generate;
    pg_sampling_options sampling;
    pg_model *model = NULL;
    pg_processor *processor = NULL;
    pg_inputs *inputs = NULL;
    pg_result *result = NULL;
    pg_tensor ids = {.struct_size = sizeof ids};
    pg_allocator hooks = {.struct_size = sizeof hooks, .user = memory, .alloc = on_alloc, .free = on_free};
    counter_init(&counted);
    memory->behind = &counted.hooks;
    pg_model_options_init(&options, sizeof options);
    pg_generate_options_init(&generate, sizeof generate);
    pg_sampling_options_init(&sampling, sizeof sampling);
    options.allocator = &hooks;
    options.log = on_log, options.log_user = logs;
    options.progress = generate.progress = on_progress;
    options.progress_user = generate.progress_user = progress;
    options.n_threads = generate.n_threads = 3;
    sampling.flags = PG_SAMPLING_IGNORE_EOS;
    sampling.on_logits = on_logits, sampling.on_logits_user = logits;
    generate.sampling = &sampling;
    generate.on_text = on_text, generate.on_text_user = text;
    generate.max_new_tokens = N_TOKENS;
    int good = went_well(pg_model_open(folder, &options, &model)) &&
               went_well(pg_processor_open(folder, NULL, &processor)) && open_image(processor, &inputs) &&
               went_well(pg_generate(model, processor, inputs, &generate, &result)) &&
               went_well(pg_result_get_ids(result, 0, &ids));
    good = good && ids.shape[0] == N_TOKENS && memcmp(ids.data, expected, sizeof expected) == 0;
    pg_result_close(&result);
    pg_inputs_close(&inputs);
    pg_processor_close(&processor);
    pg_model_close(&model);
    return counter_clean(&counted) && good;
}

static void in_every_callback(void **unused) {
    enum { N_KINDS = 5, MOST = 8 };
    (void)unused;
    for (int kind = 0; kind < N_KINDS; kind++) {
        int n_forks = 0;
        for (int at = 1; at <= MOST; at++) {
            forker f[N_KINDS] = {0};
            /* the allocator's calls are many */
            f[kind].at = kind == 4 ? at * at * at : at;
            const int good = with_callbacks(&f[0], &f[1], &f[2], &f[3], &f[4]);
            if (f[kind].is_child) _exit(!good);
            assert_true(good);
            if (f[kind].status != 0) fail_msg("callback %d, call %d: a child ends with %d", kind, at, f[kind].status);
            n_forks += f[kind].n_calls >= f[kind].at;
        }
        assert_true(n_forks > 0);
    }
}

/* Parent and child save the same features to the same path: each writes a file of its own, and the last one stays. */
static void while_features_are_saved(void **unused) {
    counter counted;
    pg_model_options options;
    work w = {0};
    char path[600];
    int at = 1, n_calls = 1;
    (void)unused;
    snprintf(path, sizeof path, "%s.features", folder);
    counter_init(&w.memory);
    for (; at <= n_calls; at++) {
        forker f = {0};
        const pg_allocator hooks = {.struct_size = sizeof hooks, .user = &f, .alloc = on_alloc, .free = on_free};
        counter_init(&counted);
        f.behind = &counted.hooks;
        pg_model_options_init(&options, sizeof options);
        options.allocator = &hooks;
        assert_true(went_well(pg_model_open(folder, &options, &w.model)) && advance(&w, PROCESSOR) &&
                    advance(&w, INPUTS) && advance(&w, FEATURES));
        f.n_calls = 0, f.at = at;
        int good = went_well(pg_features_save(w.features, path));
        n_calls = f.n_calls, f.at = 0;
        pg_features_close(&w.features);
        good = good && went_well(pg_features_load(w.model, path, &w.features));
        pg_features_close(&w.features);
        pg_inputs_close(&w.inputs);
        pg_processor_close(&w.processor);
        pg_model_close(&w.model);
        good = counter_clean(&counted) && good;
        if (f.is_child) _exit(!good);
        assert_true(good);
        if (f.status != 0) fail_msg("call %d: a child ends with %d", at, f.status);
    }
    assert_true(at > 3);
    assert_int_equal(unlink(path), 0);
}

/* ---- trainings ---- */

enum { N_STEPS = 3 };

typedef struct training {
    counter memory;
    pg_model *model;
    pg_inputs *inputs;
    pg_trainer *trainer;
    forker forker; /* in the progress of its steps */
} training;

static int start_training(training *t) {
    static const uint8_t pixels[64 * 64 * 3] = {200, 100};
    static const char *const prompts[] = {"the"}, *const suffixes[] = {"cat in a cat"};
    pg_model_options model_options;
    pg_trainer_options options;
    pg_processor *processor = NULL;
    pg_image image;
    pg_batch batch;
    counter_init(&t->memory);
    pg_model_options_init(&model_options, sizeof model_options);
    model_options.allocator = &t->memory.hooks;
    pg_batch_init(&batch, sizeof batch);
    batch.n_prompts = batch.n_suffixes = batch.n_images = 1;
    batch.prompts = prompts, batch.suffixes = suffixes, batch.images = &image;
    pg_trainer_options_init(&options, sizeof options);
    options.target_modules = "q_proj,v_proj,fc1";
    options.dropout = 0.1;
    options.n_threads = 3;
    options.progress = on_progress, options.progress_user = &t->forker;
    const int good = went_well(pg_model_open(folder, &model_options, &t->model)) &&
                     went_well(pg_processor_open(folder, NULL, &processor)) &&
                     went_well(pg_image_from_pixels(&image, sizeof image, PG_IMAGE_RGB8, 64, 64, pixels, 0)) &&
                     went_well(pg_processor_encode_batch(processor, &batch, NULL, &t->inputs)) &&
                     went_well(pg_trainer_create(t->model, &options, &t->trainer));
    pg_processor_close(&processor);
    return good;
}

/* The steps from `from` on; then all is closed. *loss: of the trainer then. */
static int finish_training(training *t, int from, double *loss) {
    pg_train_result result = {.struct_size = sizeof result};
    int good = 1;
    for (int i = from; i < N_STEPS && good; i++) good = went_well(pg_trainer_step(t->trainer, t->inputs, NULL));
    good = good && went_well(pg_trainer_evaluate(t->trainer, t->inputs, &result));
    *loss = result.loss;
    pg_trainer_close(&t->trainer);
    pg_inputs_close(&t->inputs);
    pg_model_close(&t->model);
    return counter_clean(&t->memory) && good;
}

/* Between steps, and within one: parent and child both go on to the same loss. */
static void in_a_training(void **unused) {
    double wanted, loss;
    training t = {0};
    (void)unused;
    assert_true(start_training(&t) && finish_training(&t, 0, &wanted));
    for (int before = 0; before <= N_STEPS; before++) {
        t = (training){0};
        assert_true(start_training(&t));
        for (int i = 0; i < before; i++) assert_true(went_well(pg_trainer_step(t.trainer, t.inputs, NULL)));
        const pid_t child = fork_child();
        if (child == 0) _exit(!(finish_training(&t, before, &loss) && loss == wanted));
        const int status = status_of(child);
        if (status != 0) fail_msg("after %d steps: a child ends with %d", before, status);
        assert_true(finish_training(&t, before, &loss) && loss == wanted);
    }
    for (int at = 1; at <= 9; at += 4) {
        t = (training){.forker.at = at};
        const int good = start_training(&t) && finish_training(&t, 0, &loss) && loss == wanted;
        if (t.forker.is_child) _exit(!good);
        assert_true(good && t.forker.n_calls > at);
        if (t.forker.status != 0) fail_msg("progress %d: a child ends with %d", at, t.forker.status);
    }
}

/* ---- while others are in the library ---- */

typedef struct other {
    work *w;
    pg_session *session;
    atomic_int is_inside, is_over;
    int failed;
} other;

static int32_t stay_inside(void *user, int32_t phase, int64_t done, int64_t total) {
    other *o = user;
    (void)phase, (void)done, (void)total;
    atomic_store(&o->is_inside, 1);
    while (!atomic_load(&o->is_over)) nanosleep(&(struct timespec){0, 1000000}, NULL);
    return 0;
}

static void *wait_in_prefill(void *user) {
    other *o = user;
    o->failed = !went_well(pg_session_prefill(o->session, o->w->inputs, NULL));
    return NULL;
}

/* Opens, encodes and generates without end. */
static void *be_busy(void *user) {
    other *o = user;
    while (!atomic_load(&o->is_over) && !o->failed) {
        forker none[5] = {0};
        o->failed = !with_callbacks(&none[0], &none[1], &none[2], &none[3], &none[4]);
        atomic_store(&o->is_inside, 1);
    }
    return NULL;
}

/* The handle that was in use stays so; all others serve the child. */
static int use_the_rest(work *w, other *o) {
    int64_t token;
    if (pg_session_step(o->session, &token) != PG_ERROR_STATE) return 0;
    pg_session *session = NULL;
    const int good = create(w, 2, &session) && went_well(pg_session_prefill(session, w->inputs, w->features)) &&
                     went_well(pg_session_step(session, &token)) && token == expected[0];
    pg_session_close(&session);
    pg_session_close(&o->session); /* its memory is lost, the process is not */
    w->n_tokens = 0;
    return good && advance(w, PREFILL) && take(w, N_TOKENS) && memcmp(w->tokens, expected, sizeof expected) == 0;
}

static void while_others_are_inside(void **unused) {
    enum { N_BUSY = 2, N_FORKS = 30 };
    work w = {0};
    other waiting = {.w = &w}, busy[N_BUSY] = {{0}};
    pthread_t threads[N_BUSY + 1];
    pg_session_options options;
    (void)unused;
#ifdef SANITIZED
    skip(); /* their own locks are held, then */
#endif
    counter_init(&w.memory);
    for (state s = MODEL; s <= PREFILL; s++) assert_true(advance(&w, s));
    pg_session_options_init(&options, sizeof options);
    options.n_threads = 2;
    options.progress = stay_inside, options.progress_user = &waiting;
    assert_int_equal(pg_session_create(w.model, &options, &waiting.session), PG_OK);
    assert_int_equal(pthread_create(&threads[N_BUSY], NULL, wait_in_prefill, &waiting), 0);
    for (int i = 0; i < N_BUSY; i++) assert_int_equal(pthread_create(&threads[i], NULL, be_busy, &busy[i]), 0);
    while (!atomic_load(&waiting.is_inside) || !atomic_load(&busy[0].is_inside)) sched_yield();
    for (int i = 0; i < N_FORKS; i++) {
        const pid_t child = fork_child();
        if (child == 0) _exit(!use_the_rest(&w, &waiting));
        const int status = status_of(child);
        if (status != 0) fail_msg("fork %d: a child ends with %d", i, status);
    }
    atomic_store(&waiting.is_over, 1);
    for (int i = 0; i < N_BUSY; i++) atomic_store(&busy[i].is_over, 1);
    for (int i = 0; i <= N_BUSY; i++) assert_int_equal(pthread_join(threads[i], NULL), 0);
    assert_false(waiting.failed || busy[0].failed || busy[1].failed);
    pg_session_close(&waiting.session);
    assert_true(finish(&w, PREFILL));
}

/* ---- PID namespaces ---- */

#if defined(CLONE_NEWPID) && defined(CLONE_NEWUSER)
/* Children are then in a namespace of their own, the first of them with number 1. */
static int leave_namespace(void) { return unshare(CLONE_NEWPID) == 0 || unshare(CLONE_NEWUSER | CLONE_NEWPID) == 0; }

/* Process 1, and its child, process 1. */
static int be_first_twice(void) {
    work w = {0};
    counter_init(&w.memory);
    for (state s = MODEL; s <= HALF; s++)
        if (!advance(&w, s)) return 1;
    if (getpid() != 1 || !leave_namespace()) return CANNOT;
    const pid_t child = fork_child();
    if (child == 0) _exit(getpid() != 1 ? CANNOT : !finish(&w, HALF));
    const int status = status_of(child);
    if (status != 0) return status == CANNOT ? CANNOT : 4;
    return !finish(&w, HALF);
}
#else
static int leave_namespace(void) { return 0; }
static int be_first_twice(void) { return CANNOT; }
#endif

/* LLVM's OpenMP has it, which ends such a child inside fork() itself: it looks for its number in the old /proc. */
extern void kmp_set_blocktime(int) __attribute__((weak));

static void into_namespaces(void **unused) {
    (void)unused;
    if (kmp_set_blocktime) {
        say("LLVM's OpenMP knows no PID namespace without a /proc of its own\n");
        skip();
    }
    const pid_t child = fork_child();
    if (child == 0) {
        if (!leave_namespace()) _exit(CANNOT);
        const pid_t first = fork_child();
        if (first == 0) _exit(be_first_twice());
        const int status = status_of(first);
        _exit(status < 0 ? 5 : status);
    }
    const int status = status_of(child);
    if (status == CANNOT) {
        say("this system lets us make no PID namespace (unshare)\n");
        skip();
    }
    assert_int_equal(status, 0);
}

int main(int argc, char **argv) {
#ifdef THREAD_SANITIZED
    return CANNOT;
#endif
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(in_every_state),           cmocka_unit_test(in_every_callback),
        cmocka_unit_test(while_features_are_saved), cmocka_unit_test(while_others_are_inside),
        cmocka_unit_test(into_namespaces),          cmocka_unit_test(in_a_training),
    };
    return RUN_TESTS(tests, setup, teardown);
}
