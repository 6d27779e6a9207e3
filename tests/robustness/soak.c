/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Does everything again and again: opens, generations, steps, cancels, failures, in a seeded order. Memory, descriptors
 * and threads of the process must be at the end what they were after the first quarter.
 *
 *     soak [--minutes N | --seconds N] [--seed N]      30 minutes by default
 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fault_calls.h"
#include "sanitized.h"

enum { MAX_GROWTH_KIB = 4096, STEPS_BETWEEN_LOOKS = 50 };

typedef struct state {
    long resident_kib;
    int descriptors, threads;
} state;

static int count_entries(const char *path) {
    int n = 0;
    DIR *folder = opendir(path);
    if (!folder) return -1;
    while (readdir(folder)) n++;
    closedir(folder);
    return n;
}

static state look(void) {
    state s = {0, count_entries("/proc/self/fd"), count_entries("/proc/self/task")};
    long pages = 0, resident = 0;
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
    options.progress = NULL;
    if (pg_cancel_create(&cancel) < 0) return PG_ERROR_MEMORY;
    pg_cancel_request(cancel);
    options.cancel = cancel;
    status = pg_generate(w->model, w->processor, w->inputs, &options, &result);
    pg_cancel_close(&cancel);
    pg_result_close(&result);
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
    const int wrong =
        pg_model_open("/nowhere", NULL, &model) >= 0 || pg_processor_open("/dev", NULL, &processor) >= 0 ||
        pg_processor_encode(w->processor, &image, "x", NULL, &inputs) >= 0 ||
        pg_processor_encode(w->processor, NULL, "\xFF", NULL, &inputs) >= 0 ||
        pg_features_from_bytes(w->model, noise, sizeof noise, &features) >= 0 || pg_session_step(NULL, NULL) >= 0;
    return wrong ? PG_ERROR_STATE : PG_OK;
}

static int complain(const char *what, pg_status status) {
    say("FAIL %s: %s %s\n", what, pg_status_name(status), pg_last_error());
    return 1;
}

static int step(fault_world *w, rng *r) {
    const uint64_t which = rng_below(r, n_fault_calls + 8);
    if (which == 0) {
        fault_world_close(w);
        if (!counter_clean(&fault_memory)) return 1;
        fault_world_open(w);
        return 0;
    }
    if (which <= n_fault_calls) {
        const pg_status status = fault_calls[which - 1].run(w);
        return status < 0 ? complain(fault_calls[which - 1].name, status) : 0;
    }
    const pg_status status = which % 2 ? cancelled(w, (int)rng_below(r, 12)) : failing(w, r);
    return status < 0 ? complain(which % 2 ? "cancelled" : "failing", status) : 0;
}

/* 1: it grew. */
static int compare(state before, state after) {
    int grew = after.descriptors != before.descriptors || after.threads > before.threads;
#ifndef SANITIZED /* a sanitizer keeps what was released, for a while */
    grew |= after.resident_kib > before.resident_kib + MAX_GROWTH_KIB;
#endif
    return grew;
}

static void tell(const char *when, double seconds, long long n, state s) {
    say("%-14s %7.1f s %8lld steps: %ld KiB resident, %d descriptors, %d threads\n", when, seconds, n, s.resident_kib,
        s.descriptors, s.threads);
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
    fault_world world;
    rng r = {seed};
    int failed = 0;
    long long n = 0;
    state warm = {0};
    fault_files_make();
    fault_world_open(&world);
    const double begin = now_seconds();
    for (double now = 0; now < seconds && !failed; now = now_seconds() - begin) {
        for (int i = 0; i < STEPS_BETWEEN_LOOKS && !failed; i++, n++) failed = step(&world, &r);
        if (!warm.descriptors && now > seconds / 4) tell("after warming", now, n, warm = look());
    }
    const state end = look();
    tell("at the end", now_seconds() - begin, n, end);
    if (!failed && (!warm.descriptors || compare(warm, end))) {
        say("FAIL what the process holds grew (seed %llu)\n", (unsigned long long)seed);
        failed = 1;
    }
    fault_world_close(&world);
    if (!counter_clean(&fault_memory)) failed = 1;
    fault_files_remove();
    return failed;
}
