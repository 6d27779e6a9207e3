/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Does everything again and again: opens, generations, steps, cancels, failures, refused allocations, in a seeded
 * order, by turns on this thread and on one that is made for some steps. After the first quarter and at the end all
 * handles are closed and the process is looked at: its memory, descriptors, mappings and threads must be the same.
 *
 *     soak [--minutes N | --seconds N] [--seed N]      30 minutes by default
 */
#include <dirent.h>
#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fault_calls.h"
#include "left_out.h"
#include "sanitized.h"

enum {
    STEPS_BETWEEN_LOOKS = 50,
    STEPS_WITH_ONE_WORLD = 500,
    /* what may come and go between two looks: arenas, and what malloc keeps for each thread */
    MAX_RESIDENT_KIB = 16384,
    MAX_HEAP_KIB = 64,
    MAX_MAPPINGS = 8
};

/* What was done, for the last line. */
typedef enum kind { GENERATIONS, OPENS, CANCELS, FAILURES, REFUSALS, OTHERS, N_KINDS } kind;
static const char *const kind_names[N_KINDS] = {"generations", "opens",       "cancels",
                                                "failures",    "allocations", "other calls"};
static long long n_done[N_KINDS];

typedef struct state {
    long resident_kib, heap_kib; /* heap: what malloc has given and not got back; 0 where it does not say */
    int descriptors, threads, mappings;
} state;

static int count_entries(const char *path) {
    int n = 0;
    DIR *folder = opendir(path);
    if (!folder) return -1;
    for (struct dirent *entry; (entry = readdir(folder));) n += entry->d_name[0] != '.';
    closedir(folder);
    return n;
}

static int count_lines(const char *path) {
    int n = 0;
    FILE *file = fopen(path, "r");
    if (!file) return -1;
    for (int c; (c = getc(file)) != EOF;) n += c == '\n';
    fclose(file);
    return n;
}

static long heap_kib(void) {
#if defined(__GLIBC_PREREQ)
#define HAS_MALLINFO2 __GLIBC_PREREQ(2, 33)
#else
#define HAS_MALLINFO2 0
#endif
#if HAS_MALLINFO2
    const struct mallinfo2 heap = mallinfo2();
    return (long)((heap.uordblks + heap.hblkhd) / 1024);
#else
    return 0;
#endif
}

static state look(int expected_threads) {
    state s = {.threads = wait_for_threads(expected_threads)};
    long pages = 0, resident = 0;
#ifdef __GLIBC__
    malloc_trim(0); /* what it keeps of memory that came back says which call came last, not what is lost */
#endif
    s.heap_kib = heap_kib();
    s.descriptors = count_entries("/proc/self/fd");
    s.mappings = count_lines("/proc/self/maps");
    FILE *file = fopen("/proc/self/statm", "r");
    if (file && fscanf(file, "%ld %ld", &pages, &resident) == 2)
        s.resident_kib = resident * (sysconf(_SC_PAGESIZE) / 1024);
    if (file) fclose(file);
    return s;
}

/* ---- what goes wrong on purpose ---- */

static int32_t stop_at(void *user, int32_t phase, int64_t done, int64_t total) {
    int *left = user;
    (void)phase, (void)done, (void)total;
    return (*left)-- == 0;
}

/* Cancelled somewhere: PG_OK where it was done before. */
static pg_status cancelled(const fault_world *w, int at) {
    pg_generate_options options;
    pg_result *result = NULL;
    pg_cancel *cancel = NULL;
    pg_generate_options_init(&options, sizeof options);
    options.max_new_tokens = 3;
    options.n_threads = 1 + at % 2;
    options.progress = stop_at;
    options.progress_user = &at;
    pg_status status = pg_generate(w->model, w->processor, w->inputs, &options, &result);
    pg_result_close(&result);
    if (status < 0 && status != PG_ERROR_CANCELLED) return status;
    n_done[status < 0 ? CANCELS : GENERATIONS]++;
    options.progress = NULL;
    if (pg_cancel_create(&cancel) < 0) return PG_ERROR_MEMORY;
    pg_cancel_request(cancel);
    options.cancel = cancel;
    status = pg_generate(w->model, w->processor, w->inputs, &options, &result);
    pg_cancel_close(&cancel);
    pg_result_close(&result);
    n_done[CANCELS]++;
    return status == PG_ERROR_CANCELLED ? PG_OK : PG_ERROR_STATE;
}

/* Calls that have to fail. */
static pg_status failing(const fault_world *w, rng *r) {
    pg_model *model = NULL;
    pg_processor *processor = NULL;
    pg_inputs *inputs = NULL;
    pg_features *features = NULL;
    pg_image image;
    uint8_t noise[200];
    for (size_t i = 0; i < sizeof noise; i++) noise[i] = (uint8_t)rng_next(r);
    memcpy(noise, "\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\4\0\0\0\4\10\2\0\0\0", 29);
    pg_image_from_bytes(&image, sizeof image, noise, sizeof noise);
    const int n_right =
        (pg_model_open("/nowhere", NULL, &model) < 0) + (pg_processor_open("/dev", NULL, &processor) < 0) +
        (pg_processor_encode(w->processor, &image, "x", NULL, &inputs) < 0) +
        (pg_processor_encode(w->processor, NULL, "\xFF", NULL, &inputs) < 0) +
        (pg_features_from_bytes(w->model, noise, sizeof noise, &features) < 0) + (pg_session_step(NULL, NULL) < 0);
    n_done[FAILURES] += n_right;
    return n_right == 6 && !model && !processor && !inputs && !features ? PG_OK : PG_ERROR_STATE;
}

/* One allocation of some call is refused: PG_OK, too, where it was over before. */
static pg_status starved(fault_world *w, rng *r) {
    const fault_call *call = &fault_calls[rng_below(r, n_fault_calls)];
    fault_memory.fail_at = fault_memory.n_allocs + 1 + (int64_t)rng_below(r, 80);
    const pg_status status = call->run(w);
    fault_memory.fail_at = 0;
    n_done[REFUSALS] += status == PG_ERROR_MEMORY;
    return status == PG_ERROR_MEMORY ? PG_OK : status;
}

/* ---- one after the other ---- */

static int complain(const char *what, pg_status status) {
    say("FAIL %s: %s %s\n", what, pg_status_name(status), pg_last_error());
    return 1;
}

static kind kind_of(const char *call) {
    return strncmp(call, "generate", 8) == 0 ? GENERATIONS : strstr(call, "_open") ? OPENS : OTHERS;
}

static int step(fault_world *w, rng *r) {
    const uint64_t which = rng_below(r, n_fault_calls + 9);
    pg_status status;
    if (which < n_fault_calls) {
        const fault_call *call = &fault_calls[which];
        status = call->run(w);
        n_done[kind_of(call->name)]++;
        return status < 0 ? complain(call->name, status) : 0;
    }
    switch (which % 3) {
        case 0: return (status = cancelled(w, (int)rng_below(r, 12))) < 0 ? complain("cancelled", status) : 0;
        case 1: return (status = failing(w, r)) < 0 ? complain("failing", status) : 0;
        default: return (status = starved(w, r)) < 0 ? complain("starved", status) : 0;
    }
}

typedef struct batch {
    fault_world *world;
    rng *r;
    int failed;
} batch;

static void *run_batch(void *user) {
    batch *b = user;
    for (int i = 0; i < STEPS_BETWEEN_LOOKS && !b->failed; i++) b->failed = step(b->world, b->r);
    return NULL;
}

/* Non-zero: something failed. */
static int run_here_or_elsewhere(fault_world *w, rng *r) {
    batch b = {.world = w, .r = r};
    pthread_t thread;
    if (rng_below(r, 2))
        run_batch(&b);
    else if (pthread_create(&thread, NULL, run_batch, &b) != 0 || pthread_join(thread, NULL) != 0)
        return 1;
    return b.failed;
}

/* Non-zero: it grew. */
static int compare(state before, state after) {
    if (after.descriptors != before.descriptors || after.threads > before.threads) return 1;
#ifdef SANITIZED /* a sanitizer keeps what was released, for a while, and maps as it likes */
    return 0;
#else
    if (is_left_out("memory_does_not_grow")) return 0;
    return after.resident_kib > before.resident_kib + MAX_RESIDENT_KIB ||
           after.heap_kib > before.heap_kib + MAX_HEAP_KIB || after.mappings > before.mappings + MAX_MAPPINGS;
#endif
}

static void tell(const char *when, double seconds, state s) {
    say("%-14s %7.1f s: %ld KiB resident, %ld KiB of malloc, %d descriptors, %d mappings, %d threads\n", when, seconds,
        s.resident_kib, s.heap_kib, s.descriptors, s.mappings, s.threads);
}

/* Non-zero: something failed. */
static int soak(double seconds, uint64_t seed) {
    fault_world world;
    rng r = {seed};
    state warm = {0};
    int failed = 0;
    const int own_threads = count_threads();
    fault_world_open(&world);
    /* Each has been seen before the first look, however short the run is. */
    for (size_t i = 0; i < n_fault_calls; i++) {
        const pg_status status = fault_calls[i].run(&world);
        if (status < 0) return complain(fault_calls[i].name, status);
    }
    const double begin = now_seconds();
    for (long long n = 0; now_seconds() - begin < seconds && !failed; n += STEPS_BETWEEN_LOOKS) {
        failed = run_here_or_elsewhere(&world, &r);
        const int is_to_look = !warm.descriptors && now_seconds() - begin >= seconds / 4;
        if (failed || (!is_to_look && n % STEPS_WITH_ONE_WORLD)) continue;
        fault_world_close(&world);
        if (!counter_clean(&fault_memory)) return 1;
        if (is_to_look) tell("after warming", now_seconds() - begin, warm = look(own_threads));
        fault_world_open(&world);
    }
    fault_world_close(&world);
    if (failed || !counter_clean(&fault_memory)) return 1;
    const state end = look(warm.threads);
    tell("at the end", now_seconds() - begin, end);
    if (warm.descriptors && !compare(warm, end)) return 0;
    say("FAIL what the process holds grew (seed %llu)\n", (unsigned long long)seed);
    return 1;
}

int main(int argc, char **argv) {
    double seconds = 30 * 60;
    uint64_t seed = 1;
    for (int i = 1; i + 1 < argc; i += 2) {
        if (!strcmp(argv[i], "--minutes")) seconds = 60 * (double)strtoul(argv[i + 1], NULL, 10);
        if (!strcmp(argv[i], "--seconds")) seconds = (double)strtoul(argv[i + 1], NULL, 10);
        if (!strcmp(argv[i], "--seed")) seed = strtoull(argv[i + 1], NULL, 10);
    }
    if (argc % 2 == 0 || seconds <= 0) {
        fprintf(stderr, "usage: soak [--minutes N | --seconds N] [--seed N]\n");
        return 2;
    }
#ifdef __GLIBC__ /* large blocks go back to the system: the arenas of threads keep theirs, malloc_trim() or not */
    mallopt(M_MMAP_THRESHOLD, 1 << 20);
#endif
    fault_files_make();
    const int failed = soak(seconds, seed);
    for (int i = 0; i < N_KINDS; i++) say("%s%lld %s", i ? ", " : "", n_done[i], kind_names[i]);
    say("\n");
    fault_files_remove();
    return failed;
}
