/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Parts of `paligemma train`: the order of rows, the log that a training goes on from, and curves of any losses. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "loss_plot.h"
#include "run_tests.h"
#include "temp_template.h"
#include "train_data.h"

static void orders_are_permutations_that_follow_from_seed_and_epoch(void **state) {
    (void)state;
    enum { N = 1000 };
    size_t a[N], b[N], seen[N] = {0};
    tool_train_shuffle(a, N, 3, 7);
    for (size_t i = 0; i < N; i++) seen[a[i]]++;
    for (size_t i = 0; i < N; i++) assert_int_equal(seen[i], 1);
    tool_train_shuffle(b, N, 3, 7);
    assert_memory_equal(a, b, sizeof a);
    tool_train_shuffle(b, N, 3, 8);
    assert_memory_not_equal(a, b, sizeof a);
    tool_train_shuffle(b, N, 4, 7);
    assert_memory_not_equal(a, b, sizeof a);
    tool_train_shuffle(a, 1, 0, 0);
    assert_int_equal(a[0], 0);
}

/* A training goes on with a later version of the tool, too, and on another machine. */
static void orders_stay_what_they_are(void **state) {
    (void)state;
    static const size_t expected[2][8] = {{1, 0, 6, 4, 3, 5, 2, 7}, {7, 5, 3, 1, 4, 2, 0, 6}};
    for (uint64_t epoch = 0; epoch < 2; epoch++) {
        size_t order[8];
        tool_train_shuffle(order, 8, 0, epoch);
        assert_memory_equal(order, expected[epoch], sizeof order);
    }
}

static void every_order_comes(void **state) {
    (void)state;
    int seen[27] = {0}, n = 0;
    for (uint64_t epoch = 0; epoch < 200; epoch++) {
        size_t order[3];
        tool_train_shuffle(order, 3, 1, epoch);
        n += !seen[9 * order[0] + 3 * order[1] + order[2]]++;
    }
    assert_int_equal(n, 6);
}

/* ---- log ---- */

static json_t *settings_of(int batch) { return json_pack("{s:i}", "--batch", batch); }

static void add(tool_train_log *log, int64_t step, int is_validation, double loss) {
    const tool_train_point point = {.step = step, .is_validation = is_validation, .loss = loss};
    assert_true(tool_train_log_add(
        log, point,
        json_pack("{s:I, s:f}", "step", (json_int_t)step, is_validation ? "validation_loss" : "loss", loss)));
}

static void a_log_is_cut_where_its_state_ends(void **state) {
    (void)state;
    char folder[256];
    temp_template(folder, sizeof folder, "train");
    tool_train_log log;
    assert_non_null(mkdtemp(folder));
    assert_int_equal(tool_train_log_open(&log, folder, settings_of(8)), TOOL_OK);
    add(&log, 0, 1, 3);
    for (int64_t step = 1; step <= 6; step++) add(&log, step, 0, 10.0 / (double)step);
    add(&log, 6, 1, 2);
    add(&log, 7, 1, 2.5);
    assert_true(log.best == 2 && log.best_step == 6 && log.n_since_best == 1);
    assert_int_equal(tool_train_log_write(&log), TOOL_OK);
    FILE *file = fopen(log.name, "ab");
    assert_non_null(file);
    fputs("{\"step\":8,\"lo", file); /* broken off */
    fclose(file);
    tool_train_log_close(&log);

    assert_int_equal(tool_train_log_open(&log, folder, settings_of(8)), TOOL_OK);
    assert_int_equal(tool_train_log_resume(&log, 4), TOOL_OK);
    assert_int_equal(log.n, 5);
    assert_true(log.best == 3 && log.best_step == 0 && log.points[4].loss == 2.5);
    add(&log, 5, 0, 1);
    assert_int_equal(tool_train_log_write(&log), TOOL_OK);
    tool_train_log_close(&log);

    assert_int_equal(tool_train_log_open(&log, folder, settings_of(8)), TOOL_OK);
    assert_int_equal(tool_train_log_resume(&log, 100), TOOL_OK);
    assert_true(log.n == 6 && log.points[5].step == 5 && log.points[5].loss == 1);
    tool_train_log_close(&log);

    assert_int_equal(tool_train_log_open(&log, folder, settings_of(4)), TOOL_OK);
    assert_int_equal(tool_train_log_resume(&log, 100), TOOL_FAILED);
    remove(log.name);
    tool_train_log_close(&log);
    rmdir(folder);
}

/* ---- curves ---- */

static void draw(const tool_train_log *log) {
    char folder[256], path[sizeof folder + 16];
    temp_template(folder, sizeof folder, "train");
    static const struct { const char *name, *begin; } kinds[] = {{"a.png", "\x89PNG"}, {"a.SVG", "<svg"}};
    assert_non_null(mkdtemp(folder));
    for (size_t i = 0; i < 2; i++) {
        char begin[5] = "";
        snprintf(path, sizeof path, "%s/%s", folder, kinds[i].name);
        assert_true(tool_loss_plot(path, log));
        FILE *file = fopen(path, "rb");
        assert_non_null(file);
        assert_int_equal(fread(begin, 1, 4, file), 4);
        assert_string_equal(begin, kinds[i].begin);
        for (int c; i == 1 && (c = fgetc(file)) != EOF;) assert_true(c != '\0');
        fclose(file);
        remove(path);
    }
    rmdir(folder);
}

static void any_losses_have_a_curve(void **state) {
    (void)state;
    enum { MANY = 20000 };
    static tool_train_point points[MANY];
    tool_train_log log = {.points = points, .best_step = -1};
    draw(&log); /* none */
    static const double losses[] = {0, 1, -1, 1e-300, 1e300, 1e-9, 123456789};
    for (size_t i = 0; i < sizeof losses / sizeof *losses; i++) {
        points[0] = (tool_train_point){.step = 1, .loss = losses[i]};
        points[1] = (tool_train_point){.step = INT64_C(1) << 40, .loss = losses[i], .is_validation = 1};
        for (log.n = 1; log.n < 3; log.n++) draw(&log);
    }
    points[0] = (tool_train_point){.step = 0, .loss = -1e300};
    points[1] = (tool_train_point){.step = 1, .loss = 1e300};
    log.n = 2;
    draw(&log);
    for (log.n = 0; log.n < MANY; log.n++)
        points[log.n] = (tool_train_point){.step = (int64_t)log.n, .loss = 1 / (1 + (double)log.n)};
    draw(&log);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(orders_are_permutations_that_follow_from_seed_and_epoch),
        cmocka_unit_test(orders_stay_what_they_are),
        cmocka_unit_test(every_order_comes),
        cmocka_unit_test(a_log_is_cut_where_its_state_ends),
        cmocka_unit_test(any_losses_have_a_curve),
    };
    return RUN_TESTS(tests, NULL, NULL);
}
