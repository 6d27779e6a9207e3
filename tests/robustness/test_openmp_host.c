/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* A host that uses OpenMP itself: the library is called before, between and inside its regions, from each of their
 * threads. Its settings, its pool and what its threads keep are as they were, and its loops sum up as before. */
#include <omp.h>
#include <string.h>

#include "support.h"
#include "tiny.h"

enum { N_THREADS = 4, N_TOKENS = 6 };

static char folder[512];
static pg_model *model;
static pg_processor *processor;
static pg_inputs *inputs;
static int64_t expected[N_TOKENS];
static size_t n_expected;
static int n_failures;

/* What a thread of the host's pool keeps from region to region. */
static int kept;
#pragma omp threadprivate(kept)

static void expect(int ok, const char *what) {
    if (ok) return;
#pragma omp critical
    {
        n_failures++;
        say("FAIL: %s: %s\n", what, pg_last_error());
    }
}

static void generate(int n_threads, int64_t ids[N_TOKENS], size_t *n) {
    pg_generate_options options;
    pg_result *result = NULL;
    pg_tensor tensor = {.struct_size = sizeof tensor};
    *n = 0;
    pg_generate_options_init(&options, sizeof options);
    options.n_threads = n_threads;
    options.max_new_tokens = N_TOKENS;
    if (pg_generate(model, processor, inputs, &options, &result) == PG_OK &&
        pg_result_get_ids(result, 0, &tensor) == PG_OK) {
        *n = (size_t)tensor.shape[0];
        memcpy(ids, tensor.data, *n * sizeof *ids);
    }
    pg_result_close(&result);
}

static void generate_as_expected(int n_threads, const char *where) {
    int64_t ids[N_TOKENS];
    size_t n;
    generate(n_threads, ids, &n);
    expect(n == n_expected && memcmp(ids, expected, n * sizeof *ids) == 0, where);
}

static void open_all(void) {
    static const uint8_t pixels[64 * 64 * 3] = {9, 8, 7};
    tiny_options options = tiny_official();
    pg_image image;
    options.image_size = 64; /* 256 image tokens: work for several threads */
    make_temp_folder(folder, sizeof folder);
    tiny_write(folder, &options);
    pg_image_from_pixels(&image, sizeof image, PG_IMAGE_RGB8, 64, 64, pixels, 0);
    expect(pg_model_open(folder, NULL, &model) == PG_OK, "a model");
    expect(pg_processor_open(folder, NULL, &processor) == PG_OK, "a processor");
    expect(pg_processor_encode(processor, &image, "the cat", NULL, &inputs) == PG_OK, "inputs");
}

static void close_all(void) {
    pg_inputs_close(&inputs);
    pg_processor_close(&processor);
    pg_model_close(&model);
    remove_folder(folder);
}

static long sum_up(void) {
    long sum = 0;
#pragma omp parallel for num_threads(N_THREADS) reduction(+ : sum) schedule(dynamic, 7)
    for (long i = 0; i < 10000; i++) sum += i;
    return sum;
}

/* Each thread of the host notes its number; later it must be there again with it. */
static void note(void) {
#pragma omp parallel num_threads(N_THREADS)
    kept = 100 + omp_get_thread_num();
}

static void compare_notes(const char *where) {
#pragma omp parallel num_threads(N_THREADS)
    {
        expect(omp_get_num_threads() == N_THREADS, where);
        expect(kept == 100 + omp_get_thread_num(), where);
    }
}

static void from_inside_a_region(void) {
#pragma omp parallel num_threads(N_THREADS)
    {
        for (int i = 0; i < 3; i++) generate_as_expected(1 + omp_get_thread_num() % 3, "inside a region");
        expect(omp_in_parallel() && omp_get_num_threads() == N_THREADS && kept == 100 + omp_get_thread_num(),
               "the region of the host");
    }
#pragma omp parallel num_threads(N_THREADS)
#pragma omp single
    for (int i = 0; i < 6; i++) {
#pragma omp task
        generate_as_expected(2, "a task");
    }
}

int main(void) {
    open_all();
    omp_set_dynamic(0);
    omp_set_num_threads(3);
    generate(2, expected, &n_expected);
    expect(n_expected > 0, "the first answer");
    note();
    const int n_levels = omp_get_max_active_levels(), n_threads = count_threads();
    for (int i = 0; i < 3; i++) {
        generate_as_expected(1 + i, "between regions");
        expect(sum_up() == 49995000, "a loop of the host");
        compare_notes("after a call");
        from_inside_a_region();
        compare_notes("after calls inside a region");
    }
    expect(omp_get_max_threads() == 3 && !omp_get_dynamic() && !omp_in_parallel() &&
               omp_get_max_active_levels() == n_levels,
           "the settings of the host");
    (void)n_threads;
#ifndef __clang__ /* LLVM's OpenMP keeps threads, and lends them */
    expect(wait_for_threads(n_threads) == n_threads, "the threads of the host, and no others");
#endif
    close_all();
    say("%d failures\n", n_failures);
    return n_failures > 0;
}
