/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Reading an answer takes time that grows with its length and no faster, whatever it holds: four times the text, about
 * four times the time. */
#include "run_tests.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "support.h"

/* Memory that was touched before: what the system takes to hand out new pages is not the library's time. */
static struct {
    uint8_t *memory;
    size_t used, size;
} pool = {.size = (size_t)96 << 20};

static void *take(void *user, size_t size, size_t alignment) {
    (void)user;
    const size_t at = (pool.used + alignment - 1) / alignment * alignment;
    if (size > pool.size - at) return NULL;
    pool.used = at + size;
    return pool.memory + at;
}

static void leave(void *user, void *memory) { (void)user, (void)memory; }

static double cpu_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

#define BOX "<loc0010><loc0020><loc0030><loc0040>"
#define SEGS "<seg000><seg001><seg002><seg003><seg004><seg005><seg006><seg007>"

/* The least of some runs, in seconds: other programs only make it longer. */
static double seconds_for(const char *unit, int n, const char *end) {
    pg_answer_options options;
    bytes text = {0};
    double least = 1e9;
    pg_answer_options_init(&options, sizeof options);
    pg_allocator allocator = {.struct_size = sizeof allocator, .alloc = take, .free = leave};
    options.allocator = &allocator;
    options.width = options.height = 100;
    for (int i = 0; i < n; i++) bytes_text(&text, unit);
    bytes_text(&text, end);
    for (int run = 0; run < 5; run++) {
        pg_answer *answer = NULL;
        pool.used = 0;
        const double begin = cpu_seconds();
        const pg_status status = pg_answer_create_from_text((char *)text.data, text.size, &options, &answer);
        const double took = cpu_seconds() - begin;
        if (status != PG_OK) fail_msg("%s", pg_last_error());
        pg_answer_close(&answer);
        if (took < least) least = took;
    }
    bytes_free(&text);
    return least;
}

static void time_grows_with_the_text(void **state) {
    static const struct {
        const char *unit, *end;
    } kinds[] = {
        {BOX " cat ; ", ""}, {BOX, " cats"},  {"cat " BOX " ", ""},        {"<loc0001>;", ""}, {"<loc0001> ", "x"},
        {SEGS, ""},          {SEGS " ", "x"}, {"a very long label ", BOX}, {BOX "x", BOX},     {"<loc", ">"},
        {";", ""},           {" \n", BOX},    {"\xE2\x80\x83", "x"},       {"<loc9999>", ""}};
    (void)state;
    pool.memory = malloc(pool.size);
    assert_non_null(pool.memory);
    memset(pool.memory, 1, pool.size);
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        const double one = seconds_for(kinds[k].unit, 20000, kinds[k].end);
        const double four = seconds_for(kinds[k].unit, 80000, kinds[k].end);
        if (four > 10 * one + 0.005) fail_msg("\"%s\": %.4f s, four times as much %.4f s", kinds[k].unit, one, four);
        if (four > 0.5) fail_msg("\"%s\": %.4f s", kinds[k].unit, four);
    }
    free(pool.memory);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(time_grows_with_the_text)};
    return RUN_TESTS(tests, NULL, NULL);
}
