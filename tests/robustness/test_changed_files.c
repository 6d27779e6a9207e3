/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* A mapped weight file that changed since the model was opened is noticed where a call begins to compute: before, a
 * file that was cut ended the process by SIGBUS, and one that was written over gave wrong answers. */
#include "run_tests.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "support.h"
#include "tiny.h"

static char folder[512];
static bytes original;

static void ok(pg_status status) {
    if (status < 0) fail_msg("%s: %s", pg_status_name(status), pg_last_error());
}

static int setup(void **state) {
    tiny_options options = tiny_official();
    options.n_shards = 1;
    (void)state;
    make_temp_folder(folder, sizeof folder);
    tiny_write(folder, &options);
    original = read_file(folder, "model.safetensors");
    return 0;
}

static int teardown(void **state) {
    (void)state;
    bytes_free(&original);
    remove_folder(folder);
    return 0;
}

typedef struct opened {
    pg_model *model;
    pg_processor *processor;
    pg_inputs *inputs;
    pg_session *session;
} opened;

static opened open_all(uint32_t flags) {
    static const uint8_t pixels[16 * 16 * 3];
    opened o = {0};
    pg_model_options options;
    pg_image image;
    write_file(folder, "model.safetensors", original.data, original.size);
    ok(pg_model_options_init(&options, sizeof options));
    options.flags = flags;
    ok(pg_model_open(folder, &options, &o.model));
    ok(pg_processor_open(folder, NULL, &o.processor));
    ok(pg_image_from_pixels(&image, sizeof image, PG_IMAGE_RGB8, 16, 16, pixels, 0));
    ok(pg_processor_encode(o.processor, &image, "the cat", NULL, &o.inputs));
    ok(pg_session_create(o.model, NULL, &o.session));
    return o;
}

static void close_all(opened *o) {
    pg_session_close(&o->session);
    pg_inputs_close(&o->inputs);
    pg_processor_close(&o->processor);
    pg_model_close(&o->model);
}

enum { N_CALLS = 7 };

/* Call `i` of those that compute. */
static pg_status compute(const opened *o, int i) {
    static const char *const answer = "yes";
    const int64_t id = 5;
    pg_result *result = NULL;
    pg_outputs *outputs = NULL;
    pg_features *features = NULL;
    pg_session *session = NULL;
    pg_scores *scores = NULL;
    pg_status status = PG_OK;
    if (i == 0) status = pg_generate(o->model, o->processor, o->inputs, NULL, &result);
    if (i == 1) status = pg_forward(o->model, o->inputs, NULL, &outputs);
    if (i == 2) status = pg_features_create(o->model, o->inputs, NULL, &features);
    if (i == 3) status = pg_session_create(o->model, NULL, &session);
    if (i == 4) status = pg_session_prefill(o->session, o->inputs, NULL);
    if (i == 5) status = pg_score(o->model, o->processor, o->inputs, &answer, 1, NULL, &scores);
    if (i == 6) {
        pg_model_info info = {.struct_size = sizeof info};
        float row[4096];
        ok(pg_model_get_info(o->model, &info));
        status = pg_model_embed(o->model, &id, 1, row);
    }
    assert_true(status == PG_OK || (!result && !outputs && !features && !session && !scores));
    pg_result_close(&result);
    pg_outputs_close(&outputs);
    pg_features_close(&features);
    pg_session_close(&session);
    pg_scores_close(&scores);
    return status;
}

enum { CUT, LONGER, WRITTEN_OVER, N_CHANGES };

static void change(int how) {
    char path[600];
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    const struct timespec later[2] = {{.tv_sec = 2000000000}, {.tv_sec = 2000000000}};
    if (how == CUT) assert_int_equal(truncate(path, 4096), 0);
    if (how == LONGER) assert_int_equal(truncate(path, (off_t)original.size + 1), 0);
    if (how == WRITTEN_OVER) assert_int_equal(utimensat(AT_FDCWD, path, later, 0), 0);
}

/* Call i names the file and says what to do. */
static void fails(opened *o, int i) {
    stale_error();
    const pg_status status = compute(o, i);
    assert_int_equal(status, PG_ERROR_IO);
    assert_null(bad_error(status));
    assert_non_null(strstr(pg_last_error(), "model.safetensors"));
    assert_non_null(strstr(pg_last_error(), "open the model again"));
}

static void a_changed_file_is_noticed(void **state) {
    (void)state;
    for (int how = 0; how < N_CHANGES; how++) {
        opened o = open_all(0);
        for (int i = 0; i < N_CALLS; i++) ok(compute(&o, i));
        change(how);
        for (int i = 0; i < N_CALLS; i++) {
            fails(&o, i);
        }
        close_all(&o);
    }
}

static void in_memory_nothing_matters(void **state) {
    (void)state;
    for (int how = 0; how < N_CHANGES; how++) {
        opened o = open_all(PG_MODEL_IN_MEMORY);
        change(how);
        for (int i = 0; i < N_CALLS; i++) ok(compute(&o, i));
        close_all(&o);
    }
}

/* Another file in its place, and none: the mapping is of the old one, which is whole. */
static void replacing_by_name_is_fine(void **state) {
    char path[600], other[600];
    (void)state;
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    snprintf(other, sizeof other, "%s/other", folder);
    opened o = open_all(0);
    write_text(folder, "other", "no weights at all");
    assert_int_equal(rename(other, path), 0);
    for (int i = 0; i < N_CALLS; i++) ok(compute(&o, i));
    assert_int_equal(unlink(path), 0);
    for (int i = 0; i < N_CALLS; i++) ok(compute(&o, i));
    close_all(&o);
}

/* ---- a host that closes all descriptors ---- */

static int lowest_free(void) {
    const int fd = open("/dev/null", O_RDONLY);
    assert_true(fd >= 0);
    close(fd);
    return fd;
}

/* Closes what was opened since the descriptor `first` was free; `again`: other files get the numbers. */
static void close_from(int first, int last, int again) {
    for (int fd = first; fd < last; fd++) close(fd);
    for (int fd = first; again && fd < last; fd++) assert_int_equal(open("/dev/null", O_RDONLY), fd);
}

static void a_host_that_closes_descriptors(void **state) {
    (void)state;
    for (int again = 0; again < 2; again++) {
        const int first = lowest_free();
        opened o = open_all(0);
        const int last = lowest_free();
        assert_true(last > first); /* one for the weight file */
        for (int i = 0; i < N_CALLS; i++) ok(compute(&o, i));
        close_from(first, last, again);
        for (int i = 0; i < N_CALLS; i++) {
            fails(&o, i);
            assert_non_null(strstr(pg_last_error(), "the host closed it"));
        }
        close_all(&o);
        assert_int_equal(lowest_free(), again ? last : first);
        for (int fd = first; again && fd < last; fd++) assert_int_equal(close(fd), 0);
        opened next = open_all(0);
        for (int i = 0; i < N_CALLS; i++) ok(compute(&next, i));
        close_all(&next);
        assert_int_equal(lowest_free(), first);
    }
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_changed_file_is_noticed),
        cmocka_unit_test(in_memory_nothing_matters),
        cmocka_unit_test(replacing_by_name_is_fine),
        cmocka_unit_test(a_host_that_closes_descriptors),
    };
    return RUN_TESTS(tests, setup, teardown);
}
