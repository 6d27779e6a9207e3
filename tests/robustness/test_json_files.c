/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Every JSON file of a folder, and the header of weights, as a stranger may write it: nested deep on a small stack,
 * full of small values, four times as large, and read while memory runs out.
 */
#include "run_tests.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sanitized.h"
#include "small_stack.h"
#include "support.h"
#include "tiny.h"

#ifdef SANITIZED
#define STACK ((size_t)1 << 20)
#else
#define STACK small_stack()
#endif

typedef enum { MODEL, PROCESSOR } opener;

static const struct file {
    const char *name;
    opener opener;
    int is_new; /* in the folder that transformers 5 saves; else in the older one */
    int is_header;
} files[] = {
    {"config.json", MODEL, 0, 0},
    {"generation_config.json", MODEL, 0, 0},
    {"model.safetensors", MODEL, 0, 1},
    {"model.safetensors.index.json", MODEL, 1, 0},
    {"preprocessor_config.json", PROCESSOR, 0, 0},
    {"processor_config.json", PROCESSOR, 1, 0},
    {"tokenizer_config.json", PROCESSOR, 0, 0},
    {"special_tokens_map.json", PROCESSOR, 0, 0},
    {"added_tokens.json", PROCESSOR, 0, 0},
    {"tokenizer.json", PROCESSOR, 1, 0},
};
enum { N_FILES = sizeof files / sizeof *files };

typedef struct visit {
    const struct file *file;
    char folder[512];
    counter memory;
    pg_status status;
    char message[1024];
} visit;

static void *open_it(void *user) {
    visit *v = user;
    pg_model *model = NULL;
    pg_processor *processor = NULL;
    if (v->file->opener == MODEL) {
        pg_model_options options;
        pg_model_options_init(&options, sizeof options);
        options.allocator = &v->memory.hooks;
        v->status = pg_model_open(v->folder, &options, &model);
    } else {
        pg_processor_options options;
        pg_processor_options_init(&options, sizeof options);
        options.allocator = &v->memory.hooks;
        v->status = pg_processor_open(v->folder, &options, &processor);
    }
    snprintf(v->message, sizeof v->message, "%s", v->status < 0 ? pg_last_error() : "");
    pg_model_close(&model);
    pg_processor_close(&processor);
    return NULL;
}

static void open_on_a_small_stack(visit *v) {
    pthread_attr_t attributes;
    pthread_t thread;
    counter_init(&v->memory);
    pthread_attr_init(&attributes);
    assert_int_equal(pthread_attr_setstacksize(&attributes, STACK), 0);
    assert_int_equal(pthread_create(&thread, &attributes, open_it, v), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    pthread_attr_destroy(&attributes);
    assert_true(counter_clean(&v->memory));
}

/* The folder that reads the file; a tokenizer_config.json that names no added tokens makes the older files count. */
static void begin(visit *v, const struct file *file) {
    tiny_options options = file->is_new ? tiny_saved_today() : tiny_official();
    v->file = file;
    make_temp_folder(v->folder, sizeof v->folder);
    tiny_write(v->folder, &options);
    if (strstr("special_tokens_map.json added_tokens.json", file->name))
        write_text(v->folder, "tokenizer_config.json", "{\"tokenizer_class\":\"GemmaTokenizer\"}");
}

static void write_json(const visit *v, const bytes *text) {
    bytes all = {0};
    uint8_t size[8];
    for (int i = 0; i < 8; i++) size[i] = (uint8_t)((uint64_t)text->size >> 8 * i);
    if (v->file->is_header) bytes_add(&all, size, 8);
    bytes_add(&all, text->data, text->size);
    write_file(v->folder, v->file->name, all.data, all.size);
    bytes_free(&all);
}

static void honest_folders_open_on_a_small_stack(void **state) {
    (void)state;
    for (size_t i = 0; i < N_FILES; i++) {
        visit v;
        begin(&v, &files[i]);
        open_on_a_small_stack(&v);
        if (v.status != PG_OK) fail_msg("%s: %s", files[i].name, v.message);
        remove_folder(v.folder);
    }
}

static void deep_files_are_refused(void **state) {
    (void)state;
    static const char *const opened[] = {"[", "{\"a\":"};
    for (size_t i = 0; i < N_FILES; i++)
        for (int depth = 33; depth < 300000; depth *= 29)
            for (int form = 0; form < 2; form++) {
                visit v;
                bytes text = {0};
                begin(&v, &files[i]);
                bytes_text(&text, "{\"zz\":");
                for (int k = 0; k < depth; k++) bytes_text(&text, opened[form]);
                if (depth == 33 && form == 0) { /* closed, too */
                    for (int k = 0; k < depth; k++) bytes_text(&text, "]");
                    bytes_text(&text, "}");
                }
                write_json(&v, &text);
                open_on_a_small_stack(&v);
                if (v.status != PG_ERROR_LIMIT || !strstr(v.message, files[i].name) ||
                    !strstr(v.message, "deeper than 32"))
                    fail_msg("%s, %d deep: %s: %s", files[i].name, depth, pg_status_name(v.status), v.message);
                bytes_free(&text);
                remove_folder(v.folder);
            }
}

/* The file with n small values in it. */
static void fill(const visit *v, int n) {
    bytes text = {0};
    bytes_text(&text, v->file->is_header ? "{\"__metadata__\":{\"zz\":[" : "{\"zz\":[");
    for (int k = 0; k < n; k++) bytes_text(&text, k % 2 ? "[]," : "{},");
    bytes_text(&text, v->file->is_header ? "0]}}" : "0]}");
    write_json(v, &text);
    bytes_free(&text);
}

static void many_values_are_refused(void **state) {
    (void)state;
    for (size_t i = 0; i < N_FILES; i++) {
        visit v;
        if (strcmp(files[i].name, "tokenizer.json") == 0) continue; /* its large parts make no tree */
        begin(&v, &files[i]);
        fill(&v, 500000); /* 1.5 MB, of which jansson made 110 */
        open_on_a_small_stack(&v);
        if (v.status != PG_ERROR_LIMIT || !strstr(v.message, files[i].name) ||
            !strstr(v.message, "more than 200000 values"))
            fail_msg("%s: %s: %s", files[i].name, pg_status_name(v.status), v.message);
        if (v.memory.peak_bytes > 32000000) fail_msg("%s: %lld bytes", files[i].name, (long long)v.memory.peak_bytes);
        remove_folder(v.folder);
    }
}

/* Four times the values: at most six times the memory and the time. */
static void files_cost_what_they_hold(void **state) {
    (void)state;
    for (size_t i = 0; i < N_FILES; i++) {
        visit v;
        long long peak[2];
        double seconds[2];
        pg_status status[2];
        begin(&v, &files[i]);
        for (int turn = 0; turn < 2; turn++) {
            fill(&v, turn ? 180000 : 45000);
            seconds[turn] = 1e9;
            for (int again = 0; again < 3; again++) {
                const double start = now_seconds();
                open_on_a_small_stack(&v);
                const double took = now_seconds() - start;
                if (took < seconds[turn]) seconds[turn] = took;
            }
            peak[turn] = v.memory.peak_bytes;
            status[turn] = v.status;
        }
        assert_int_equal(status[0], status[1]);
        assert_int_not_equal(status[0], PG_ERROR_LIMIT);
        if (peak[1] > 6 * peak[0]) fail_msg("%s: %lld bytes, then %lld", files[i].name, peak[0], peak[1]);
        /* 0.1 s: the pages of some MB are new to the process; quadratic would be 10 s */
        if (seconds[1] > 6 * seconds[0] + 0.1) fail_msg("%s: %g s, then %g s", files[i].name, seconds[0], seconds[1]);
        remove_folder(v.folder);
    }
}

/* Each allocation of a whole visit fails in its turn, for each file with something in it to read. */
static void short_memory_is_no_damage(void **state) {
    (void)state;
    for (size_t i = 0; i < N_FILES; i++) {
        visit v;
        begin(&v, &files[i]);
        if (!has_file(v.folder, files[i].name)) write_text(v.folder, files[i].name, "{}");
        counter_init(&v.memory);
        open_it(&v);
        if (v.status != PG_OK) fail_msg("%s: %s", files[i].name, v.message);
        const long long total = v.memory.n_allocs;
        for (long long n = 1; n <= total; n++) {
            counter_init(&v.memory);
            v.memory.fail_at = n;
            open_it(&v);
            if (v.status != PG_ERROR_MEMORY)
                fail_msg("%s, allocation %lld of %lld: %s: %s", files[i].name, n, total, pg_status_name(v.status),
                         v.message);
            assert_true(counter_clean(&v.memory));
        }
        remove_folder(v.folder);
    }
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(honest_folders_open_on_a_small_stack),
        cmocka_unit_test(deep_files_are_refused),
        cmocka_unit_test(many_values_are_refused),
        cmocka_unit_test(files_cost_what_they_hold),
        cmocka_unit_test(short_memory_is_no_damage),
    };
    return RUN_TESTS(tests, NULL, NULL);
}
