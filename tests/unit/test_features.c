/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Features that are saved: what comes back, what is refused, damage, files that are in the way, and threads. */
#include "run_tests.h"

#include <pthread.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "api_fixture.h"
#include "mutate.h"

static pg_features *features; /* of `inputs` */
static char scratch[512];     /* a folder for files */

static int make_features(void **state) {
    setup(state);
    make_temp_folder(scratch, sizeof scratch);
    OK(pg_features_create(model, inputs, NULL, &features));
    return 0;
}

static int drop_features(void **state) {
    pg_features_close(&features);
    remove_folder(scratch);
    return teardown(state);
}

static const char *path_of(const char *name) {
    static char path[2][700];
    static int which;
    which = !which;
    snprintf(path[which], sizeof path[which], "%s/%s", scratch, name);
    return path[which];
}

static bytes bytes_of(const pg_features *of) {
    bytes out = {0};
    size_t n = 0, again = 0;
    OK(pg_features_to_bytes(of, NULL, 0, &n));
    uint8_t *data = malloc(n);
    OK(pg_features_to_bytes(of, data, n, &again));
    assert_int_equal(n, again);
    bytes_add(&out, data, n);
    free(data);
    return out;
}

static void same_features(const pg_features *a, const pg_features *b) {
    pg_tensor x = {.struct_size = sizeof x}, y = {.struct_size = sizeof y};
    OK(pg_features_get_tensor(a, &x));
    OK(pg_features_get_tensor(b, &y));
    assert_memory_equal(x.shape, y.shape, sizeof x.shape);
    assert_memory_equal(x.data, y.data, (size_t)(x.shape[0] * x.shape[1] * x.shape[2]) * sizeof(float));
}

static pg_model *opened(const char *from, int32_t weights, uint32_t flags, const pg_allocator *allocator) {
    pg_model_options options;
    pg_model *out = NULL;
    OK(pg_model_options_init(&options, sizeof options));
    options.weights = weights, options.flags = flags, options.allocator = allocator;
    OK(pg_model_open(from, &options, &out));
    return out;
}

static void come_back(void **state) {
    (void)state;
    pg_features *loaded = NULL, *taken = NULL;
    pg_generate_options options;
    pg_result *expected = NULL, *result = NULL;
    bytes made = bytes_of(features);
    OK(pg_features_save(features, path_of("a.features")));
    bytes file = read_file(scratch, "a.features");
    assert_int_equal(file.size, made.size);
    assert_memory_equal(file.data, made.data, file.size);
    OK(pg_features_load(model, path_of("a.features"), &loaded));
    OK(pg_features_from_bytes(model, made.data, made.size, &taken));
    same_features(features, loaded);
    same_features(features, taken);
    remove_file(scratch, "a.features"); /* not needed afterwards */
    memset(made.data, 0, made.size);
    OK(pg_generate_options_init(&options, sizeof options));
    OK(pg_generate(model, processor, inputs, NULL, &expected));
    options.features = loaded;
    OK(pg_generate(model, processor, text_only, &options, &result));
    assert_string_equal(pg_result_get_text(result, 0), pg_result_get_text(expected, 0));
    pg_result_close(&result);
    pg_result_close(&expected);
    /* what was loaded is saved to the same bytes */
    bytes again = bytes_of(loaded);
    assert_memory_equal(file.data, again.data, file.size);
    pg_features_close(&loaded);
    pg_features_close(&taken);
    bytes_free(&file), bytes_free(&made), bytes_free(&again);
}

/* A part of the bytes is their beginning. */
static void are_copied_out(void **state) {
    (void)state;
    bytes all = bytes_of(features);
    uint8_t *part = malloc(all.size + 8);
    const size_t sizes[] = {1, 7, 8, 100, all.size - 1, all.size, all.size + 8};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        const size_t n = sizes[i] < all.size ? sizes[i] : all.size;
        size_t needed = 0;
        memset(part, 0xEE, all.size + 8);
        OK(pg_features_to_bytes(features, part, sizes[i], &needed));
        assert_int_equal(needed, all.size);
        assert_memory_equal(part, all.data, n);
        for (size_t k = n; k < all.size + 8; k++) assert_int_equal(part[k], 0xEE);
    }
    OK(pg_features_to_bytes(features, part, all.size, NULL));
    free(part);
    bytes_free(&all);
}

/* The same weights: of another handle, in another key layout and sharding, in memory; int8 of a converted folder. */
static void of_the_same_model(void **state) {
    (void)state;
    char copy[512], int8[512];
    tiny_options options = tiny_saved_today();
    options.layout = 0, options.n_shards = 1;
    make_temp_folder(copy, sizeof copy);
    make_temp_folder(int8, sizeof int8);
    tiny_write(copy, &options);
    OK(pg_model_convert(folder, int8, NULL));
    const struct {
        const char *from, *to;
        int32_t weights;
        uint32_t flags;
    } ways[] = {{folder, folder, PG_WEIGHTS_STORED, 0},
                {folder, copy, PG_WEIGHTS_STORED, 0},
                {copy, folder, PG_WEIGHTS_STORED, PG_MODEL_IN_MEMORY},
                {folder, int8, PG_WEIGHTS_INT8, 0},
                {int8, copy, PG_WEIGHTS_INT8, PG_MODEL_IN_MEMORY}};
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        pg_model *a = opened(ways[i].from, ways[i].weights, 0, NULL);
        pg_model *b = opened(ways[i].to, ways[i].weights, ways[i].flags, NULL);
        pg_features *made = NULL, *loaded = NULL;
        OK(pg_features_create(a, inputs, NULL, &made));
        OK(pg_features_save(made, path_of("b.features")));
        pg_model_close(&a); /* features hold it */
        OK(pg_features_load(b, path_of("b.features"), &loaded));
        pg_model_close(&b);
        same_features(made, loaded);
        pg_features_close(&made);
        pg_features_close(&loaded);
    }
    remove_folder(copy);
    remove_folder(int8);
}

/* Refused from the file and from the bytes, with a message that has `text`. */
static void refused(const pg_model *by, const bytes *saved, pg_status status, const char *text) {
    pg_features *out = NULL;
    write_file(scratch, "bad.features", saved->data, saved->size);
    const char *path = path_of("bad.features");
    ERROR(pg_features_load(by, path, &out), status);
    assert_null(out);
    if (!strstr(pg_last_error(), text) || !strstr(pg_last_error(), path))
        fail_msg("expected \"%s\" of %s, found: %s", text, path, pg_last_error());
    ERROR(pg_features_from_bytes(by, saved->data, saved->size, &out), status);
    assert_null(out);
    if (!strstr(pg_last_error(), text)) fail_msg("expected \"%s\", found: %s", text, pg_last_error());
}

/* Other weights, one number of a bias or of a matrix alone, another size, other settings. */
static void of_another_model(void **state) {
    (void)state;
    char other[512];
    bytes saved = bytes_of(features);
    tiny_options options = tiny_saved_today();
    options.n_shards = 1;
    make_temp_folder(other, sizeof other);
    options.seed++;
    tiny_write(other, &options);
    pg_model *by = opened(other, PG_WEIGHTS_STORED, 0, NULL);
    refused(by, &saved, PG_ERROR_ARGUMENT, "the features are of another model: found the hash ");
    assert_non_null(strstr(pg_last_error(), other));
    pg_model_close(&by);
    options = tiny_saved_today();
    options.image_size *= 2, options.n_shards = 1;
    tiny_write(other, &options);
    by = opened(other, PG_WEIGHTS_STORED, 0, NULL);
    refused(by, &saved, PG_ERROR_ARGUMENT, "expected 36 rows of ");
    pg_model_close(&by);
    by = opened(folder, PG_WEIGHTS_INT4, 0, NULL);
    refused(by, &saved, PG_ERROR_ARGUMENT, "a model with weights stored, expected int4");
    pg_model_close(&by);
    remove_folder(other);
    bytes_free(&saved);
}

/* One bit of any tensor that features depend on; one of the decoder does not matter. */
static void one_bit_of_the_weights(void **state) {
    (void)state;
    char other[512];
    bytes saved = bytes_of(features);
    tiny_options options = tiny_saved_today();
    options.n_shards = 1;
    make_temp_folder(other, sizeof other);
    tiny_write(other, &options);
    bytes file = read_file(other, "model.safetensors");
    uint64_t size = 0;
    int n_refused = 0, n_taken = 0;
    memcpy(&size, file.data, 8);
    const char *header = (const char *)file.data + 8;
    char *text = calloc(1, size + 1);
    memcpy(text, header, size);
    for (char *at = text; (at = strstr(at, "\"data_offsets\":[")) != NULL; at++) {
        const unsigned long long begin = strtoull(at + 16, NULL, 10);
        char *name = at;
        while (name > text && strncmp(name, "},\"", 3) != 0) name--;
        const char *end = strchr(name + 3, '"');
        const int vision = memmem(name, (size_t)(end - name), "vision_tower", 12) != NULL ||
                           memmem(name, (size_t)(end - name), "multi_modal_projector", 21) != NULL;
        file.data[8 + size + begin] ^= 1;
        write_file(other, "model.safetensors", file.data, file.size);
        file.data[8 + size + begin] ^= 1;
        pg_model *by = opened(other, PG_WEIGHTS_STORED, 0, NULL);
        pg_features *out = NULL;
        if (vision)
            refused(by, &saved, PG_ERROR_ARGUMENT, "another model");
        else
            OK(pg_features_from_bytes(by, saved.data, saved.size, &out));
        *(vision ? &n_refused : &n_taken) += 1;
        pg_features_close(&out);
        pg_model_close(&by);
    }
    assert_true(n_refused > 20 && n_taken > 10);
    free(text);
    bytes_free(&file);
    bytes_free(&saved);
    remove_folder(other);
}

/* Each byte flipped in two ways, each length, one byte more: all are seen. */
static void damaged(void **state) {
    (void)state;
    bytes saved = bytes_of(features);
    for (size_t i = 0; i < saved.size; i++)
        for (int k = 0; k < 2; k++) {
            const uint8_t flip = k ? 0xFF : (uint8_t)(1 << i % 8);
            pg_features *out = NULL;
            saved.data[i] ^= flip;
            stale_error();
            pg_status status = pg_features_from_bytes(model, saved.data, saved.size, &out);
            saved.data[i] ^= flip;
            if ((status != PG_ERROR_FORMAT && status != PG_ERROR_UNSUPPORTED) || bad_error(status) || error_is_stale())
                fail_msg("byte %zu: %s: %s", i, pg_status_name(status), pg_last_error());
            assert_null(out);
        }
    for (size_t n = 0; n < saved.size; n++) {
        pg_features *out = NULL;
        uint8_t *cut = malloc(n + 1); /* so that a sanitizer sees what is read behind it */
        memcpy(cut, saved.data, n);
        ERROR(pg_features_from_bytes(model, cut, n, &out), PG_ERROR_FORMAT);
        free(cut);
    }
    bytes_add(&saved, "", 1);
    refused(model, &saved, PG_ERROR_FORMAT, "bytes of data, expected");
    bytes_free(&saved);
}

/* A header of one's own, with a right checksum. */
static bytes forged(const char *from, const char *to) {
    bytes saved = bytes_of(features), out = {0};
    uint64_t size = 0;
    memcpy(&size, saved.data, 8);
    const char *text = (const char *)saved.data + 8, *at = memmem(text, size, from, strlen(from));
    assert_non_null(at);
    const uint64_t now = size - strlen(from) + strlen(to);
    bytes_add(&out, &now, 8);
    bytes_add(&out, text, (size_t)(at - text));
    bytes_text(&out, to);
    bytes_add(&out, at + strlen(from), size - (size_t)(at - text) - strlen(from));
    bytes_add(&out, saved.data + 8 + size, saved.size - 8 - size);
    repair_converted(&out);
    bytes_free(&saved);
    return out;
}

/* Whoever knows the checksum: sizes that the file does not have cost no memory; numbers are finite. */
static void forged_headers(void **state) {
    (void)state;
    counter memory;
    counter_init(&memory);
    pg_model *counted = opened(folder, PG_WEIGHTS_STORED, 0, &memory.hooks);
    static const struct {
        const char *from, *to;
        pg_status status;
        const char *text;
    } cases[] = {
        {"\"shape\":[1,", "\"shape\":[2147483647,", PG_ERROR_FORMAT, "bytes in data_offsets, expected"},
        {"\"shape\":[1,", "\"shape\":[4611686018427387904,", PG_ERROR_FORMAT, "does not fit"},
        {"\"shape\":[1,", "\"shape\":[0,", PG_ERROR_FORMAT, "data_offsets"},
        {"\"shape\":[1,", "\"shape\":[1,1,", PG_ERROR_FORMAT, "F32 of 4 dimensions, expected F32 of 3"},
        {"\"shape\":[1,", "\"shape\":[-1,", PG_ERROR_FORMAT, "shape[0]"},
        {"\"dtype\":\"F32\"", "\"dtype\":\"I32\"", PG_ERROR_FORMAT, "found I32"},
        {"\"data_offsets\":[0,", "\"data_offsets\":[4,", PG_ERROR_FORMAT, "data_offsets"},
        {"\"layout_version\":\"1\"", "\"layout_version\":\"2\"", PG_ERROR_UNSUPPORTED, "a newer libpaligemma"},
        {"\"weights\":\"stored\"", "\"weights\":\"int8\"", PG_ERROR_ARGUMENT, "weights int8, expected stored"},
        {"\"arithmetic\":\"f32\"", "\"arithmetic\":\"bf16\"", PG_ERROR_ARGUMENT, "arithmetic bf16, expected f32"},
        {"\"arithmetic\":\"f32\",", "", PG_ERROR_FORMAT, "arithmetic"},
        {"\"model\":\"", "\"model\":\"0", PG_ERROR_ARGUMENT, "found the hash 0"},
        {"\"model\":", "\"moodel\":", PG_ERROR_FORMAT, "16 hexadecimal digits"},
        {"libpaligemma-features", "libpaligemma", PG_ERROR_FORMAT, "no format \"libpaligemma-features\""},
        {"\"features\":{", "\"pixels\":{", PG_ERROR_FORMAT, "features"},
    };
    const int64_t largest = memory.largest;
    atomic_store(&memory.largest, 0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bytes saved = forged(cases[i].from, cases[i].to);
        refused(counted, &saved, cases[i].status, cases[i].text);
        bytes_free(&saved);
    }
    assert_true(memory.largest < 65536);
    assert_true(largest > 0);

    bytes saved = bytes_of(features);
    memset(saved.data, 0xFF, 8); /* a header of 2^64 bytes */
    refused(counted, &saved, PG_ERROR_FORMAT, "a header of more than 4096 bytes");
    bytes_free(&saved);
    bytes weights = read_file(folder, "model-00001-of-00003.safetensors"); /* sound, and something else */
    refused(counted, &weights, PG_ERROR_FORMAT, "expected features that were saved");
    bytes_free(&weights);
    pg_model_close(&counted);
    assert_true(counter_clean(&memory));
}

static void in_the_way(void **state) {
    (void)state;
    pg_features *out = NULL;
    char path[700];
    ERROR(pg_features_load(model, path_of("none.features"), &out), PG_ERROR_NOT_FOUND);
    ERROR(pg_features_load(model, scratch, &out), PG_ERROR_IO);
    ERROR(pg_features_load(model, "/dev/zero", &out), PG_ERROR_IO);
    ARGUMENT(pg_features_save(features, scratch));
    assert_non_null(strstr(pg_last_error(), "found a folder"));
    ARGUMENT(pg_features_save(features, "/dev/null")); /* which stays what it is */
    ERROR(pg_features_save(features, path_of("none/a.features")), PG_ERROR_NOT_FOUND);
    ERROR(pg_features_save(features, ""), PG_ERROR_NOT_FOUND);
    snprintf(path, sizeof path, "%s/pipe", scratch);
    assert_int_equal(mkfifo(path, 0600), 0);
    ARGUMENT(pg_features_save(features, path));
    ERROR(pg_features_load(model, path, &out), PG_ERROR_IO);
    assert_int_equal(unlink(path), 0);
    write_text(scratch, "old.features", "something else"); /* replaced */
    snprintf(path, sizeof path, "%s/old.features", scratch);
    struct rlimit limit, small; /* no room: the old file stays */
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    small = limit;
    small.rlim_cur = 500;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    pg_status status = pg_features_save(features, path);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    assert_int_equal(status, PG_ERROR_IO);
    bytes old = read_file(scratch, "old.features");
    assert_string_equal((const char *)old.data, "something else");
    bytes_free(&old);
    for (int i = 0; i < 3; i++) OK(pg_features_save(features, path));
    OK(pg_features_load(model, path, &out));
    same_features(features, out);
    pg_features_close(&out);
    remove_file(scratch, "old.features");
    remove_file(scratch, "bad.features");
    if (has_file(scratch, "b.features")) remove_file(scratch, "b.features");
    assert_int_equal(rmdir(scratch), 0); /* nothing else was left behind */
    assert_int_equal(mkdir(scratch, 0700), 0);
}

static void arguments(void **state) {
    (void)state;
    pg_features *out = NULL;
    bytes saved = bytes_of(features);
    ARGUMENT(pg_features_save(NULL, "x"));
    ARGUMENT(pg_features_save(features, NULL));
    ARGUMENT(pg_features_to_bytes(NULL, NULL, 0, NULL));
    ARGUMENT(pg_features_to_bytes(features, NULL, 1, NULL));
    ARGUMENT(pg_features_load(NULL, "x", &out));
    ARGUMENT(pg_features_load(model, NULL, &out));
    ARGUMENT(pg_features_load(model, "x", NULL));
    ARGUMENT(pg_features_from_bytes(NULL, saved.data, saved.size, &out));
    ARGUMENT(pg_features_from_bytes(model, NULL, saved.size, &out));
    ARGUMENT(pg_features_from_bytes(model, saved.data, saved.size, NULL));
    bytes_free(&saved);
}

/* One handle, several threads at once: each with a prompt, some with another handle of a copy of the model. */
typedef struct worker {
    pthread_t thread;
    const pg_model *by;
    const pg_features *shared;
    char text[4096];
    pg_status status;
} worker;

static void *work(void *of) {
    worker *w = of;
    pg_generate_options options;
    pg_generate_options_init(&options, sizeof options);
    options.features = w->shared, options.n_threads = 1, options.max_new_tokens = 6;
    for (int i = 0; i < 4 && w->status >= 0; i++) {
        pg_result *result = NULL;
        size_t n = 0;
        w->status = pg_generate(w->by, processor, text_only, &options, &result);
        snprintf(w->text, sizeof w->text, "%s", pg_result_get_text(result, 0));
        pg_result_close(&result);
        if (w->status >= 0) w->status = pg_features_to_bytes(w->shared, NULL, 0, &n);
    }
    return NULL;
}

static void many_threads(void **state) {
    (void)state;
    enum { N = 8 };
    char copy[512];
    tiny_options options = tiny_saved_today();
    make_temp_folder(copy, sizeof copy);
    tiny_write(copy, &options);
    pg_model *other = opened(copy, PG_WEIGHTS_STORED, 0, NULL);
    bytes saved = bytes_of(features);
    pg_features *loaded = NULL;
    static worker workers[N];
    OK(pg_features_from_bytes(model, saved.data, saved.size, &loaded));
    for (int i = 0; i < N; i++) {
        workers[i] = (worker){.by = i % 2 ? other : model, .shared = loaded};
        assert_int_equal(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
    }
    for (int i = 0; i < N; i++) {
        assert_int_equal(pthread_join(workers[i].thread, NULL), 0);
        assert_int_equal(workers[i].status, PG_OK);
        assert_string_equal(workers[i].text, workers[0].text);
    }
    pg_features_close(&loaded);
    pg_model_close(&other);
    bytes_free(&saved);
    remove_folder(copy);
}

/* Several write one file while others read it: it is whole at any moment, and nothing else stays behind. */
static void *save_again_and_again(void *of) {
    worker *w = of;
    for (int i = 0; i < 30 && w->status >= 0; i++) w->status = pg_features_save(w->shared, w->text);
    return NULL;
}

static void saved_by_many(void **state) {
    (void)state;
    enum { N = 4 };
    static worker workers[N];
    const char *path = path_of("shared.features");
    OK(pg_features_save(features, path));
    for (int i = 0; i < N; i++) {
        workers[i] = (worker){.shared = features};
        snprintf(workers[i].text, sizeof workers[i].text, "%s", path);
        assert_int_equal(pthread_create(&workers[i].thread, NULL, save_again_and_again, &workers[i]), 0);
    }
    for (int i = 0; i < 100; i++) {
        pg_features *loaded = NULL;
        OK(pg_features_load(model, workers[0].text, &loaded));
        pg_features_close(&loaded);
    }
    for (int i = 0; i < N; i++) {
        assert_int_equal(pthread_join(workers[i].thread, NULL), 0);
        assert_int_equal(workers[i].status, PG_OK);
    }
    remove_file(scratch, "shared.features");
    if (has_file(scratch, "b.features")) remove_file(scratch, "b.features");
    if (has_file(scratch, "bad.features")) remove_file(scratch, "bad.features");
    assert_int_equal(rmdir(scratch), 0);
    assert_int_equal(mkdir(scratch, 0700), 0);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(come_back),
        cmocka_unit_test(are_copied_out),
        cmocka_unit_test(of_the_same_model),
        cmocka_unit_test(of_another_model),
        cmocka_unit_test(one_bit_of_the_weights),
        cmocka_unit_test(damaged),
        cmocka_unit_test(forged_headers),
        cmocka_unit_test(in_the_way),
        cmocka_unit_test(arguments),
        cmocka_unit_test(many_threads),
        cmocka_unit_test(saved_by_many),
    };
    return RUN_TESTS(tests, make_features, drop_features);
}
