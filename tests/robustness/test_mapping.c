/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The weights of a converted folder are mapped, not read: opening leaves no more behind than the small tensors, the
 * mapping cannot be written to, and two processes that answer from it hold the same pages. Those parts ask /proc, so on
 * Linux alone.
 */
#include "run_tests.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support.h"
#include "tiny.h"

/* The mappings of a file, added up; in bytes. */
typedef struct mapping {
    int n, n_writable, n_private;
    long long size, resident, shared, dirty;
} mapping;

static int look(const char *path, mapping *out) {
    FILE *file = fopen("/proc/self/smaps", "r");
    char line[1024], key[64], flags[8], name[512];
    unsigned long long begin, end, kib;
    int ours = 0;
    memset(out, 0, sizeof *out);
    if (!file) return 0;
    while (fgets(line, sizeof line, file)) {
        name[0] = 0;
        if (sscanf(line, "%llx-%llx %7s %*s %*s %*s %511s", &begin, &end, flags, name) >= 3) {
            ours = strcmp(name, path) == 0;
            if (!ours) continue;
            out->n++;
            out->n_writable += flags[1] == 'w';
            out->n_private += flags[3] != 's';
            out->size += (long long)(end - begin);
        } else if (ours && sscanf(line, "%63[^:]: %llu kB", key, &kib) == 2) {
            long long bytes_of = (long long)kib * 1024;
            if (!strcmp(key, "Rss")) out->resident += bytes_of;
            if (!strcmp(key, "Shared_Clean") || !strcmp(key, "Shared_Dirty")) out->shared += bytes_of;
            if (!strcmp(key, "Private_Dirty")) out->dirty += bytes_of;
        }
    }
    fclose(file);
    return 1;
}

typedef struct answerer {
    pg_model *model;
    pg_processor *processor;
    pg_inputs *inputs;
    pg_result *result;
} answerer;

static pg_status answer(answerer *a, const char *folder, const pg_model_options *options) {
    static const uint8_t pixels[16 * 16 * 3];
    pg_image image;
    pg_generate_options generate;
    pg_status status = pg_image_from_pixels(&image, sizeof image, PG_IMAGE_RGB8, 16, 16, pixels, 0);
    memset(a, 0, sizeof *a);
    pg_generate_options_init(&generate, sizeof generate);
    generate.n_threads = 1;
    generate.max_new_tokens = 8;
    if (status >= 0) status = pg_model_open(folder, options, &a->model);
    if (status >= 0) status = pg_processor_open(folder, NULL, &a->processor);
    if (status >= 0) status = pg_processor_encode(a->processor, &image, "the cat", NULL, &a->inputs);
    if (status >= 0) status = pg_generate(a->model, a->processor, a->inputs, &generate, &a->result);
    return status;
}

static void done(answerer *a) {
    pg_result_close(&a->result);
    pg_inputs_close(&a->inputs);
    pg_processor_close(&a->processor);
    pg_model_close(&a->model);
}

/* Another process answers from the same folder, and waits with everything open until the pipe is closed. */
static void child(const char *folder, int ready, int wait_for) {
    answerer a;
    char byte = answer(&a, folder, NULL) >= 0 ? 'y' : 'n';
    if (write(ready, &byte, 1) != 1 || read(wait_for, &byte, 1) < 0) byte = 'n';
    done(&a);
    _exit(byte == 'n');
}

static void shared_between_processes(void **state) {
    static const int32_t formats[] = {PG_WEIGHTS_INT8, PG_WEIGHTS_INT4};
    (void)state;
    for (int i = 0; i < 2; i++) {
        tiny_options options = tiny_official();
        char source[512], folder[512], path[600];
        int to_us[2], to_child[2];
        pg_convert_options convert;
        pg_model_options model_options;
        pg_memory need = {.struct_size = sizeof need};
        counter memory;
        answerer a;
        mapping m;
        char byte = 0;
        options.n_layers = 6;
        make_temp_folder(source, sizeof source);
        make_temp_folder(folder, sizeof folder);
        tiny_write(source, &options);
        pg_convert_options_init(&convert, sizeof convert);
        convert.weights = formats[i];
        if (pg_model_convert(source, folder, &convert) < 0) fail_msg("%s", pg_last_error());
        remove_folder(source);
        snprintf(path, sizeof path, "%s/model.safetensors", folder);

        assert_int_equal(pipe(to_us), 0);
        assert_int_equal(pipe(to_child), 0);
        pid_t pid = fork();
        if (pid == 0) {
            close(to_us[0]);
            close(to_child[1]);
            child(folder, to_us[1], to_child[0]);
        }
        assert_true(pid > 0);
        close(to_us[1]);
        close(to_child[0]);
        assert_int_equal(read(to_us[0], &byte, 1), 1);
        assert_int_equal(byte, 'y');

        counter_init(&memory);
        pg_model_options_init(&model_options, sizeof model_options);
        model_options.allocator = &memory.hooks;
        pg_model *model = NULL;
        if (pg_model_open(folder, &model_options, &model) < 0) fail_msg("%s", pg_last_error());
        if (pg_model_get_memory(model, &need) < 0) fail_msg("%s", pg_last_error());
        /* no second copy of the weights: bookkeeping for each tensor, and the small ones as f32 */
        assert_true(memory.live_bytes < (long long)need.weights_copied + 65536);
        assert_true(need.weights > 2 * need.weights_copied);
        pg_model_close(&model);
        assert_true(counter_clean(&memory));

        if (answer(&a, folder, NULL) < 0) fail_msg("%s", pg_last_error());
        if (look(path, &m) && m.n) {
            say("%s: %lld bytes mapped, %lld resident, %lld of them shared with the other process\n",
                i ? "int4" : "int8", m.size, m.resident, m.shared);
            assert_int_equal(m.n_writable, 0);
            assert_int_equal(m.n_private, 0);
            assert_int_equal(m.dirty, 0);
            assert_true(m.size >= (long long)need.weights);
            assert_true(m.resident > 0);
            assert_int_equal(m.shared, m.resident);
        } else {
            say("no /proc/self/smaps here that names the file\n");
        }
        done(&a);
        close(to_child[1]);
        int status = 0;
        assert_true(waitpid(pid, &status, 0) == pid);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
        close(to_us[0]);
        remove_folder(folder);
    }
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(shared_between_processes)};
    return RUN_TESTS(tests, NULL, NULL);
}
