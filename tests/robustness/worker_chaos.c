/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * A worker in a storm, seeded: 8 producers submit, cancel and ask; images and prompts are bad, deadlines short, streams
 * replaced, allocations fail, the model's folder vanishes, the process forks, and the worker is closed in the midst of
 * it, from outside or by a callback. Each accepted request must end exactly once, last of its events, with an end that
 * it had a reason for and the words of it; the answers are those of pg_generate(); nothing is left behind.
 *
 *     worker_chaos [--seconds N] [--seed N]      4 seconds by default
 */
#include <dirent.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "left_out.h"
#include "sanitized.h"
#include "support.h"
#include "tiny.h"

enum {
    N_PRODUCERS = 8,
    N_ACTIONS = 40, /* of a producer in a round */
    MOST_TICKETS = N_PRODUCERS * N_ACTIONS + 1,
    N_PROMPTS = 4,
    MOST_TOKENS = 6,
    TEXT = 512
};

static const char *const prompts[N_PROMPTS] = {"the", "the cat", "cat in the", "in the the the"};

/* Why a request may end without an answer. */
typedef enum flaw { SOUND, JUNK_IMAGE, NO_IMAGE, BAD_PROMPT, N_FLAWS } flaw;

/* What is known of a ticket. Its producer writes what it asked for before it submits, as events may come at once: so
 * the record is found by `user`, not by the ticket. */
typedef struct record {
    atomic_int accepted, cancelled, n_done;
    flaw flaw;
    int prompt, n_tokens, has_deadline, has_stream, polls;
    int64_t ticket;
    char pieces[TEXT];
} record;

static uint64_t seed = 1;
static char answers[N_PROMPTS][MOST_TOKENS + 1][TEXT]; /* of pg_generate() */
static record records[MOST_TICKETS];
static bytes png;
static counter memory;
static long long n_ends, n_by_status[100], n_rounds, n_forks, n_refused_memory;

#define CHECK(condition, ...)                                                         \
    do {                                                                              \
        if (!(condition)) {                                                           \
            fprintf(stderr, "seed %llu: %s: ", (unsigned long long)seed, #condition); \
            fprintf(stderr, __VA_ARGS__);                                             \
            fprintf(stderr, "\n");                                                    \
            exit(1);                                                                  \
        }                                                                             \
    } while (0)

/* ---- memory that fails at random ---- */

static pg_allocator hooks;
static atomic_int fails;              /* one in so many allocations; 0: none */
static _Atomic uint64_t fail_numbers; /* seeded anew in each round */

static void *failing_alloc(void *user, size_t size, size_t alignment) {
    const int one_in = atomic_load(&fails);
    if (one_in > 0) {
        rng r = {atomic_fetch_add(&fail_numbers, UINT64_C(0x9E3779B97F4A7C15))};
        if (rng_below(&r, (uint64_t)one_in) == 0) return NULL;
    }
    return memory.hooks.alloc(user, size, alignment);
}

/* ---- requests ---- */

typedef struct round {
    pg_worker *worker;
    atomic_int closing; /* from here on a request may be cancelled by closing, and those to be polled may not end */
    atomic_int armed;   /* allocations failed in this round */
    int vanishes, closes_in_callback, n_threads;
    atomic_int n_ended;
    pthread_rwlock_t handle; /* of the worker, for those that use it */
} round_state;

static round_state now;

static void check_words(const pg_worker_event *event) {
    CHECK(event->size > 0 && event->size == strlen(event->text), "%s without words", pg_status_name(event->status));
    for (const char *p = event->text; *p; p++) CHECK((unsigned char)*p >= 0x20, "words are not one line");
}

/* Whether the request had a reason to end so. */
static int has_reason(const record *r, pg_status status) {
    switch (status) {
        case PG_OK: return r->flaw == SOUND;
        case PG_ERROR_CANCELLED: return atomic_load(&r->cancelled) || atomic_load(&now.closing);
        case PG_ERROR_REPLACED: return r->has_stream;
        case PG_ERROR_DEADLINE: return r->has_deadline;
        case PG_ERROR_FORMAT: return r->flaw == JUNK_IMAGE;
        case PG_ERROR_NOT_FOUND: return r->flaw == NO_IMAGE;
        case PG_ERROR_ARGUMENT: return r->flaw == BAD_PROMPT;
        case PG_ERROR_MEMORY: return atomic_load(&now.armed);
        case PG_ERROR_IO: return now.vanishes;
        default: return 0;
    }
}

static void take(const pg_worker_event *event) {
    CHECK(event->user >= 1 && event->user < MOST_TICKETS, "user %llu", (unsigned long long)event->user);
    record *r = &records[event->user];
    CHECK(atomic_load(&r->n_done) == 0, "ticket %lld: an event behind DONE", (long long)event->ticket);
    if (event->kind == PG_WORKER_EVENT_TEXT) {
        CHECK(event->size > 0, "an empty piece");
        snprintf(r->pieces + strlen(r->pieces), sizeof r->pieces - strlen(r->pieces), "%s", event->text);
        return;
    }
    CHECK(event->kind == PG_WORKER_EVENT_DONE, "kind %d", event->kind);
    CHECK(has_reason(r, event->status), "ticket %lld: %s: %s", (long long)event->ticket, pg_status_name(event->status),
          event->text);
    if (event->status == PG_OK) {
        CHECK(strcmp(event->text, answers[r->prompt][r->n_tokens]) == 0, "\"%s\", expected \"%s\"", event->text,
              answers[r->prompt][r->n_tokens]);
        CHECK(strcmp(event->text, r->pieces) == 0, "pieces \"%s\" of \"%s\"", r->pieces, event->text);
    } else {
        check_words(event);
    }
    atomic_fetch_add(&r->n_done, 1);
    atomic_fetch_add(&now.n_ended, 1);
}

static void on_event(void *user, const pg_worker_event *event) {
    (void)user;
    take(event);
    if (event->kind != PG_WORKER_EVENT_DONE || !now.closes_in_callback || atomic_load(&now.n_ended) < 40) return;
    if (pthread_rwlock_trywrlock(&now.handle) != 0) return; /* somebody is just using it */
    if (!atomic_load(&now.closing)) {
        atomic_store(&now.closing, 1);
        pg_worker_close(&now.worker);
    }
    pthread_rwlock_unlock(&now.handle);
}

static void fill_image(record *r, pg_image *image) {
    static const uint8_t junk[] = "no image";
    pg_image_from_bytes(image, sizeof *image, png.data, png.size);
    if (r->flaw == JUNK_IMAGE) pg_image_from_bytes(image, sizeof *image, junk, sizeof junk);
    if (r->flaw == NO_IMAGE) pg_image_from_path(image, sizeof *image, "/no/such/image.png");
}

static void submit(rng *random, record *r, uint64_t number) {
    pg_image image;
    pg_request_options options;
    static const double deadlines[] = {1e-5, 1e-3, 5e-3, 100};
    pg_request_options_init(&options, sizeof options);
    r->flaw = rng_below(random, 10) == 0 ? (flaw)rng_below(random, N_FLAWS) : SOUND;
    r->prompt = (int)rng_below(random, N_PROMPTS);
    r->n_tokens = 1 + (int)rng_below(random, MOST_TOKENS);
    r->has_deadline = rng_below(random, 4) == 0;
    r->has_stream = rng_below(random, 4) == 0;
    r->polls = rng_below(random, 2) == 0;
    fill_image(r, &image);
    options.priority = (int32_t)rng_below(random, 3);
    options.max_new_tokens = r->n_tokens;
    options.user = number;
    if (r->has_deadline) options.deadline = deadlines[rng_below(random, 4)];
    if (r->has_stream) options.stream = 1 + (int64_t)rng_below(random, 2);
    if (rng_below(random, 2)) options.flags |= PG_REQUEST_BORROW;
    if (rng_below(random, 2)) options.flags |= PG_REQUEST_CANCEL_RUNNING;
    if (!r->polls) options.on_event = on_event;
    int64_t ticket = 0;
    const char *prompt = r->flaw == BAD_PROMPT ? "a\xff" : prompts[r->prompt];
    const pg_status status = pg_worker_submit(now.worker, &image, prompt, &options, &ticket);
    CHECK(status == PG_OK || status == PG_ERROR_BUSY || (status == PG_ERROR_MEMORY && atomic_load(&now.armed)),
          "%s: %s", pg_status_name(status), pg_last_error());
    CHECK((status == PG_OK) == (ticket > 0), "ticket %lld with %s", (long long)ticket, pg_status_name(status));
    if (status < 0) CHECK(!bad_error(status), "%s", bad_error(status));
    r->ticket = ticket;
    atomic_store(&r->accepted, status == PG_OK);
}

/* One of the requests of this producer, whether it has ended or not. */
static void cancel_one(rng *random, record *mine, int n) {
    record *r = &mine[rng_below(random, (uint64_t)n)];
    if (!atomic_load(&r->accepted)) return;
    atomic_store(&r->cancelled, 1);
    const pg_status status = pg_worker_cancel(now.worker, r->ticket);
    CHECK(status == PG_OK, "cancel: %s", pg_last_error());
}

static void *produce(void *user) {
    const int number = (int)(intptr_t)user, first = 1 + number * N_ACTIONS;
    rng random = {seed * 1000003 + (uint64_t)n_rounds * 101 + (uint64_t)number};
    for (int i = 0; i < N_ACTIONS; i++) {
        if (rng_below(&random, 3) == 0) usleep((useconds_t)rng_below(&random, 2000));
        pthread_rwlock_rdlock(&now.handle);
        if (atomic_load(&now.closing)) {
            pthread_rwlock_unlock(&now.handle);
            break;
        }
        submit(&random, &records[first + i], (uint64_t)(first + i));
        if (rng_below(&random, 4) == 0) cancel_one(&random, &records[first], i + 1);
        pg_worker_info info = {.struct_size = sizeof info};
        if (rng_below(&random, 8) == 0) CHECK(pg_worker_get_info(now.worker, &info) == PG_OK, "info");
        pthread_rwlock_unlock(&now.handle);
    }
    return NULL;
}

/* ---- fork ---- */

#ifndef SANITIZED /* another thread may hold a lock of its malloc when the process forks */
static void child(void) {
    pg_image image;
    pg_worker_event event = {.struct_size = sizeof event};
    pg_worker_info info = {.struct_size = sizeof info};
    pg_worker *worker = now.worker;
    alarm(60); /* ends a child that hangs */
    pg_image_from_bytes(&image, sizeof image, png.data, png.size);
    int refused = pg_worker_submit(worker, &image, "the", NULL, NULL) == PG_ERROR_STATE &&
                  strstr(pg_last_error(), "fork()") && pg_worker_poll(worker, &event) == PG_ERROR_STATE &&
                  pg_worker_wait(worker, 1, &event) == PG_ERROR_STATE &&
                  pg_worker_cancel(worker, 1) == PG_ERROR_STATE && pg_worker_get_info(worker, &info) == PG_ERROR_STATE;
    pg_worker_close(&worker);
    _exit(refused ? 0 : 3);
}

static void fork_now(void) {
    int status = -1;
    const pid_t process = fork();
    if (process == 0) child();
    CHECK(process > 0 && waitpid(process, &status, 0) == process, "fork");
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the child ended with status 0x%x", (unsigned)status);
    n_forks++;
}
#endif

/* ---- rounds ---- */

/* Polls what is there; 0: the worker is closed. */
static int poll_some(rng *random) {
    pg_worker_event event = {.struct_size = sizeof event};
    pthread_rwlock_rdlock(&now.handle);
    const int closed = atomic_load(&now.closing);
    while (!closed) {
        const pg_status status =
            rng_below(random, 2) ? pg_worker_poll(now.worker, &event) : pg_worker_wait(now.worker, 1e-4, &event);
        CHECK(status >= 0, "poll: %s", pg_last_error());
        if (status == PG_EVENT_NONE) break;
        n_by_status[event.kind == PG_WORKER_EVENT_DONE ? -event.status : 99]++;
        take(&event);
    }
    pthread_rwlock_unlock(&now.handle);
    return !closed;
}

static pg_model *open_model(char *folder, size_t size) {
    tiny_options tiny = tiny_saved_today();
    pg_model_options options;
    pg_model *model = NULL;
    tiny.n_layers = 1;
    make_temp_folder(folder, size);
    tiny_write(folder, &tiny);
    pg_model_options_init(&options, sizeof options);
    options.allocator = &hooks;
    CHECK(pg_model_open(folder, &options, &model) == PG_OK, "%s", pg_last_error());
    return model;
}

static void begin_round(const pg_model *model, const pg_processor *processor, rng *random) {
    pg_worker_options options;
    memset(records, 0, sizeof records);
    pg_worker_options_init(&options, sizeof options);
    options.n_threads = now.n_threads = 1 + (int32_t)rng_below(random, 2);
    options.n_workers = 1 + (int32_t)rng_below(random, 2);
    options.max_running = 1 + (int32_t)rng_below(random, 4);
    options.max_waiting = 1 + (int32_t)rng_below(random, 12);
    options.max_new_tokens = MOST_TOKENS;
    options.flags = rng_below(random, 2) ? PG_WORKER_LEAVE_CPU_FREE : 0;
    atomic_store(&now.closing, 0);
    atomic_store(&now.armed, 0);
    atomic_store(&now.n_ended, 0);
    now.closes_in_callback = rng_below(random, 4) == 0;
    pg_status status = PG_ERROR_MEMORY;
    const int fails_here = rng_below(random, 3) == 0;
    if (fails_here) {
        atomic_store(&now.armed, 1);
        atomic_store(&fail_numbers, rng_next(random));
        atomic_store(&fails, 50 + (int)rng_below(random, 300));
        status = pg_worker_create(model, processor, &options, &now.worker);
        CHECK(status == PG_OK || (status == PG_ERROR_MEMORY && !now.worker), "%s", pg_last_error());
        n_refused_memory += status < 0;
    }
    if (status < 0) {
        atomic_store(&fails, 0);
        CHECK(pg_worker_create(model, processor, &options, &now.worker) == PG_OK, "%s", pg_last_error());
    }
}

/* Whether all that was accepted has ended; of a worker that was closed, what its callbacks were told. */
static void check_ends(int closed) {
    for (int i = 1; i < MOST_TICKETS; i++) {
        const record *r = &records[i];
        const int n = atomic_load(&r->n_done);
        if (!atomic_load(&r->accepted))
            CHECK(n == 0, "a refused request has an end");
        else
            CHECK(n == 1 || (n == 0 && closed && r->polls), "ticket %lld: %d ends", (long long)r->ticket, n);
        n_ends += n;
    }
}

/* After a close in a callback the threads end by themselves, and call on_event of what was accepted until then. */
static int callbacks_ended(void) {
    for (int i = 1; i < MOST_TICKETS; i++)
        if (atomic_load(&records[i].accepted) && !records[i].polls && atomic_load(&records[i].n_done) == 0) return 0;
    return 1;
}

static void check_info(void) {
    pg_worker_info info = {.struct_size = sizeof info};
    CHECK(pg_worker_get_info(now.worker, &info) == PG_OK, "info");
    CHECK(info.n_waiting == 0 && info.n_running == 0 && info.n_not_polled == 0, "%d wait, %d run, %d not polled",
          info.n_waiting, info.n_running, info.n_not_polled);
    CHECK(info.n_accepted == info.n_done + info.n_cancelled + info.n_replaced + info.n_late + info.n_failed, "sums");
    CHECK(info.n_accepted == atomic_load(&now.n_ended), "%lld accepted, %d ended", (long long)info.n_accepted,
          atomic_load(&now.n_ended));
}

static int all_ended(void) {
    int n = 0;
    for (int i = 1; i < MOST_TICKETS; i++) n += atomic_load(&records[i].accepted);
    return n == atomic_load(&now.n_ended);
}

/* The model's files are gone; or they are there, but as somebody else left them. */
static void vanish(const char *folder, int changed) {
    DIR *files = changed ? opendir(folder) : NULL;
    for (struct dirent *entry; files && (entry = readdir(files));) {
        if (entry->d_name[0] == '.') continue;
        CHECK(utimensat(dirfd(files), entry->d_name, (const struct timespec[2]){{1, 0}, {1, 0}}, 0) == 0, "utimensat");
    }
    if (files) closedir(files);
    if (!changed) remove_folder(folder);
}

static void run_round(rng *random, const pg_processor *processor) {
    char folder[512];
    pthread_t producers[N_PRODUCERS];
    pg_model *model = open_model(folder, sizeof folder);
    const int closes = rng_below(random, 3) == 0, before = count_threads();
    now.vanishes = rng_below(random, 5) == 0;
    begin_round(model, processor, random);
    pg_model_close(&model); /* the worker keeps it */
    for (int i = 0; i < N_PRODUCERS; i++)
        CHECK(pthread_create(&producers[i], NULL, produce, (void *)(intptr_t)i) == 0, "pthread_create");
    const double end = now_seconds() + 0.05 * (double)rng_below(random, 8);
    if (now.vanishes) vanish(folder, rng_below(random, 2) == 0);
#ifndef SANITIZED /* another thread may hold a lock of its malloc when the process forks */
    if (rng_below(random, 3) == 0 && !is_left_out("forks_in_a_storm")) {
        pthread_rwlock_rdlock(&now.handle);
        if (!atomic_load(&now.closing)) fork_now();
        pthread_rwlock_unlock(&now.handle);
    }
#endif
    while (poll_some(random) && now_seconds() < end) continue;
    if (closes) {
        pthread_rwlock_wrlock(&now.handle);
        atomic_store(&now.closing, 1);
        pg_worker_close(&now.worker);
        pthread_rwlock_unlock(&now.handle);
    }
    const double late = now_seconds() + 100;
    for (int i = 0; i < N_PRODUCERS; i++) { /* they may wait for room in the queue of what is to be polled */
        while (pthread_tryjoin_np(producers[i], NULL) != 0) {
            CHECK(now_seconds() < late, "a producer hangs");
            if (!poll_some(random)) usleep(100);
        }
    }
    while (poll_some(random) && !all_ended()) CHECK(now_seconds() < late, "some requests do not end");
    pthread_rwlock_wrlock(&now.handle); /* from here on no callback closes it */
    const int closed = atomic_load(&now.closing);
    if (!closed) {
        check_info();
        pg_worker_close(&now.worker);
    }
    pthread_rwlock_unlock(&now.handle);
    /* a callback does not wait for the threads when it closes; a sanitizer starts one of its own in the first round,
     * and LLVM's OpenMP keeps those of a pool for later */
    if (before > 0 && n_rounds > 0 && now.n_threads == 1) CHECK(wait_for_threads(before) <= before, "threads are left");
    while (!callbacks_ended()) {
        CHECK(now_seconds() < late, "on_event was not called with an end");
        usleep(100);
    }
    check_ends(closed);
    atomic_store(&fails, 0);
    if (access(folder, F_OK) == 0) remove_folder(folder);
    n_rounds++;
}

static void find_answers(const pg_model *model, const pg_processor *processor) {
    pg_image image;
    pg_image_from_bytes(&image, sizeof image, png.data, png.size);
    for (int p = 0; p < N_PROMPTS; p++)
        for (int n = 1; n <= MOST_TOKENS; n++) {
            pg_inputs *inputs = NULL;
            pg_result *result = NULL;
            pg_generate_options options;
            pg_generate_options_init(&options, sizeof options);
            options.max_new_tokens = n;
            CHECK(pg_processor_encode(processor, &image, prompts[p], NULL, &inputs) == PG_OK &&
                      pg_generate(model, processor, inputs, &options, &result) == PG_OK,
                  "%s", pg_last_error());
            snprintf(answers[p][n], TEXT, "%s", pg_result_get_text(result, 0));
            pg_result_close(&result);
            pg_inputs_close(&inputs);
        }
}

int main(int argc, char **argv) {
    double seconds = 4;
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--seconds") == 0) seconds = atof(argv[i + 1]);
        if (strcmp(argv[i], "--seed") == 0) seed = strtoull(argv[i + 1], NULL, 10);
    }
    rng random = {seed};
    char folder[512];
    pg_processor *processor = NULL;
    counter_init(&memory);
    hooks = memory.hooks;
    hooks.alloc = failing_alloc;
    pthread_rwlock_init(&now.handle, NULL);
    png = tiny_image(IMAGE_PNG, 24, 18, 1);
    pg_model *model = open_model(folder, sizeof folder);
    CHECK(pg_processor_open(folder, NULL, &processor) == PG_OK, "%s", pg_last_error());
    find_answers(model, processor);
    pg_model_close(&model);
    for (const double begin = now_seconds(); now_seconds() < begin + seconds || n_rounds < 3;)
        run_round(&random, processor);
    pg_processor_close(&processor);
    remove_folder(folder);
    bytes_free(&png);
    CHECK(counter_clean(&memory), "memory is left");
    CHECK(n_ends > 0 && n_by_status[0] > 0, "nothing was answered");
    printf(
        "%lld rounds, %lld requests ended, %lld forks, %lld workers refused for lack of memory; of those polled: "
        "%lld answered, %lld cancelled, %lld replaced, %lld late, %lld bad images, %lld bad prompts, %lld without "
        "memory, %lld after the model's files changed\n",
        n_rounds, n_ends, n_forks, n_refused_memory, n_by_status[0], n_by_status[70], n_by_status[72], n_by_status[71],
        n_by_status[40] + n_by_status[31], n_by_status[10], n_by_status[20], n_by_status[30]);
    return 0;
}
