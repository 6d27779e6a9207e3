/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * File systems that cannot map a file shared, or not at all (FUSE, 9p, some of the network), reads that fail, and files
 * that shrink while they are read. The linker sends the library's calls of mmap() and pread() here (--wrap).
 */
#include "run_tests.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/file.h"
#include "support.h"
#include "tiny.h"

enum { SHARED, PRIVATE_ONLY, NOT_AT_ALL, NO_ADDRESSES };
static int kind, n_shared, n_private;

/* The linker wants these names. NOLINTBEGIN(bugprone-reserved-identifier) */
void *__real_mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset);
void *__wrap_mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset);
void *__wrap_mmap64(void *at, size_t size, int protection, int flags, int fd, off_t offset);
/* NOLINTEND(bugprone-reserved-identifier) */

void *__wrap_mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset) {
    if (fd >= 0) {
        const int is_shared = (flags & MAP_SHARED) != 0;
        ++*(is_shared ? &n_shared : &n_private);
        if (kind == NO_ADDRESSES || kind == NOT_AT_ALL || (kind == PRIVATE_ONLY && is_shared)) {
            errno = kind == NO_ADDRESSES ? ENOMEM : ENODEV;
            return MAP_FAILED;
        }
    }
    return __real_mmap(at, size, protection, flags, fd, offset);
}

void *__wrap_mmap64(void *at, size_t size, int protection, int flags, int fd, off_t offset) {
    return __wrap_mmap(at, size, protection, flags, fd, offset);
}

/* What happens to the calls of pread() by their number, from 1 on. */
typedef struct reads {
    long n, fail_at; /* fail_at: from this call on they fail with EIO; 0: none does */
    long cut_at;     /* before this call the file `cut` loses all its bytes; 0: never */
    const char *cut;
    int short_of; /* each call gives no more than so many bytes, and every other one is interrupted; 0: all */
} reads;
static reads pread_of;

/* NOLINTBEGIN(bugprone-reserved-identifier) */
ssize_t __real_pread(int fd, void *out, size_t size, off_t at);
ssize_t __wrap_pread(int fd, void *out, size_t size, off_t at);
ssize_t __wrap_pread64(int fd, void *out, size_t size, off_t at);
/* NOLINTEND(bugprone-reserved-identifier) */

ssize_t __wrap_pread(int fd, void *out, size_t size, off_t at) {
    reads *r = &pread_of;
    r->n++;
    if (r->fail_at && r->n >= r->fail_at) {
        errno = EIO;
        return -1;
    }
    if (r->n == r->cut_at && truncate(r->cut, 0) != 0) return -1;
    if (r->short_of && r->n % 2) {
        errno = EINTR;
        return -1;
    }
    return __real_pread(fd, out, r->short_of && size > (size_t)r->short_of ? (size_t)r->short_of : size, at);
}

ssize_t __wrap_pread64(int fd, void *out, size_t size, off_t at) { return __wrap_pread(fd, out, size, at); }

static void a_file_is_mapped_where_it_can_be(void **state) {
    (void)state;
    char folder[256], path[300];
    make_temp_folder(folder, sizeof folder);
    write_text(folder, "f", "0123456789");
    snprintf(path, sizeof path, "%s/f", folder);
    for (kind = SHARED; kind <= NO_ADDRESSES; kind++) {
        pgi_file file;
        pgi_mapping mapping;
        n_shared = n_private = 0;
        assert_int_equal(pgi_file_open(path, &file), PG_OK);
        assert_int_equal(pgi_file_map(&file, &mapping), kind == NO_ADDRESSES ? PG_ERROR_MEMORY : PG_OK);
        pgi_file_close(&file);
        assert_int_equal(n_shared, 1);
        assert_int_equal(n_private, kind != SHARED);
        assert_int_equal(mapping.size, kind < NOT_AT_ALL ? 10 : 0);
        if (kind < NOT_AT_ALL) assert_memory_equal(mapping.data, "0123456789", 10);
        pgi_mapping_free(&mapping);
        assert_null(mapping.data);
    }
    kind = SHARED;
    remove_folder(folder);
}

static char logged[1024];

static void keep_warnings(void *user, int32_t level, const char *message) {
    (void)user;
    if (level == PG_LOG_WARNING) snprintf(logged, sizeof logged, "%s", message);
}

static pg_status open_model(const char *folder, uint32_t flags, int32_t format, counter *memory, pg_model **out) {
    pg_model_options options;
    pg_model_options_init(&options, sizeof options);
    counter_init(memory);
    options.flags = flags;
    options.allocator = &memory->hooks;
    options.log = keep_warnings;
    options.weights = format;
    options.n_threads = 1;
    logged[0] = '\0';
    return pg_model_open(folder, &options, out);
}

/* A folder opens, is quantized on opening and converted; the bytes are those of a mapped one. What stays in use alone
 * is loaded: to quantize on opening takes no copy of the originals. */
static void models_are_the_same_either_way(void **state) {
    (void)state;
    char source[256], out[300];
    bytes converted[NO_ADDRESSES] = {{0}};
    tiny_options options = tiny_official();
    make_temp_folder(source, sizeof source);
    tiny_write(source, &options);
    bytes weights = read_file(source, "model.safetensors");
    snprintf(out, sizeof out, "%s-out", source);
    for (kind = SHARED; kind < NO_ADDRESSES; kind++) {
        for (int32_t format = PG_WEIGHTS_STORED; format <= PG_WEIGHTS_INT8; format++) {
            counter c;
            pg_model *model = NULL;
            pg_memory need = {.struct_size = sizeof need};
            pg_model_info info = {.struct_size = sizeof info};
            assert_int_equal(open_model(source, 0, format, &c, &model), PG_OK);
            assert_int_equal(pg_model_get_memory(model, &need), PG_OK);
            assert_int_equal(pg_model_get_info(model, &info), PG_OK);
            const long long live = atomic_load(&c.live_bytes);
            assert_true(live >= (long long)need.weights_copied && live < (long long)need.weights_copied + 65536);
            if (kind == NOT_AT_ALL) {
                assert_non_null(strstr(logged, "bytes were read into memory instead"));
                assert_int_equal(need.weights, 0);
                assert_int_equal(info.n_bytes_mapped, 0);
            } else {
                assert_string_equal(logged, "");
                assert_int_equal(info.n_bytes_mapped, weights.size);
            }
            pg_model_close(&model);
            assert_true(counter_clean(&c));
        }
        assert_int_equal(pg_model_convert(source, out, NULL), PG_OK);
        converted[kind] = read_file(out, "model.safetensors");
        assert_int_equal(converted[kind].size, converted[SHARED].size);
        assert_memory_equal(converted[kind].data, converted[SHARED].data, converted[SHARED].size);
        remove_folder(out);
    }
    kind = SHARED;
    for (int k = 0; k < NO_ADDRESSES; k++) bytes_free(&converted[k]);
    bytes_free(&weights);
    remove_folder(source);
}

/* ---- PG_MODEL_IN_MEMORY, and reads that go wrong */

/* The logits of a text of four ids. */
static void add_logits(const pg_model *model, bytes *out) {
    static const int64_t ids[] = {2, 5, 6, 7};
    const pg_tensor rows = {
        .struct_size = sizeof rows, .dtype = PG_DTYPE_I64, .n_dims = 2, .shape = {1, 4, 1, 1}, .data = ids};
    pg_input_arrays arrays;
    pg_inputs *inputs = NULL;
    pg_outputs *outputs = NULL;
    pg_tensor logits = {.struct_size = sizeof logits};
    pg_input_arrays_init(&arrays, sizeof arrays);
    arrays.input_ids = &rows;
    assert_int_equal(pg_inputs_create(&arrays, &inputs), PG_OK);
    assert_int_equal(pg_forward(model, inputs, NULL, &outputs), PG_OK);
    assert_int_equal(pg_outputs_get_tensor(outputs, "logits", &logits), PG_OK);
    bytes_add(out, logits.data, (size_t)(logits.shape[1] * logits.shape[2]) * sizeof(float));
    pg_outputs_close(&outputs);
    pg_inputs_close(&inputs);
}

/* A checkpoint as stored, and a converted one. */
static void make_folders(char stored[280], char converted[280]) {
    tiny_options options = tiny_official();
    make_temp_folder(stored, 256);
    tiny_write(stored, &options);
    snprintf(converted, 280, "%.256s-int8", stored);
    assert_int_equal(pg_model_convert(stored, converted, NULL), PG_OK);
}

static void nothing_happens_to_what_was_read(void **state) {
    (void)state;
    char folders[2][280];
    make_folders(folders[0], folders[1]);
    for (int i = 0; i < 3; i++) { /* as stored, quantized on opening, converted */
        const char *folder = folders[i == 2];
        const int32_t format = i == 1 ? PG_WEIGHTS_INT8 : PG_WEIGHTS_STORED;
        bytes file = read_file(folder, "model.safetensors"), expected = {0}, found = {0};
        pg_model *model = NULL;
        pg_memory need = {.struct_size = sizeof need};
        counter c;
        assert_int_equal(open_model(folder, 0, format, &c, &model), PG_OK);
        add_logits(model, &expected);
        pg_model_close(&model);
        n_shared = n_private = 0;
        pread_of = (reads){.short_of = 1000};
        assert_int_equal(open_model(folder, PG_MODEL_IN_MEMORY, format, &c, &model), PG_OK);
        pread_of = (reads){0};
        assert_int_equal(n_shared + n_private, 0);
        assert_string_equal(logged, "");
        assert_int_equal(pg_model_get_memory(model, &need), PG_OK);
        assert_int_equal(need.weights, 0);
        const long long live = atomic_load(&c.live_bytes);
        assert_true(live >= (long long)need.weights_copied && live < (long long)need.weights_copied + 65536);
        write_file(folder, "model.safetensors", "", 0); /* a mapping would raise SIGBUS now */
        add_logits(model, &found);
        pg_model_close(&model);
        assert_true(counter_clean(&c));
        write_file(folder, "model.safetensors", file.data, file.size);
        assert_int_equal(found.size, expected.size);
        assert_memory_equal(found.data, expected.data, found.size);
        bytes_free(&file);
        bytes_free(&found);
        bytes_free(&expected);
    }
    remove_folder(folders[0]);
    remove_folder(folders[1]);
}

/* Reads fail from each one on that opening and converting make, and the file is cut before each. */
static void each_read_may_fail(void **state) {
    (void)state;
    char folders[2][300], out[310], path[330];
    make_folders(folders[0], folders[1]);
    snprintf(out, sizeof out, "%s-out", folders[0]);
    for (int way = 0; way < 10; way++) {
        const int converts = way == 8 || way == 9, cuts = way % 2;
        const char *folder = folders[way / 2 == 2 || way / 2 == 3];
        const uint32_t flags = (way / 2 == 3 ? PG_MODEL_VERIFY : 0) | (way / 2 == 1 ? PG_MODEL_IN_MEMORY : 0);
        bytes file = read_file(folder, "model.safetensors");
        snprintf(path, sizeof path, "%s/model.safetensors", folder);
        long n_failed = 0;
        for (long k = 1;; k++) {
            counter c;
            pg_model *model = NULL;
            counter_init(&c);
            pread_of = cuts ? (reads){.cut_at = k, .cut = path} : (reads){.fail_at = k};
            stale_error();
            pg_status status =
                converts ? pg_model_convert(folder, out, NULL)
                         : open_model(folder, flags, way < 2 ? PG_WEIGHTS_INT8 : PG_WEIGHTS_STORED, &c, &model);
            const int over = pread_of.n < k;
            pread_of = (reads){0};
            pg_model_close(&model);
            assert_true(counter_clean(&c));
            if (cuts) write_file(folder, "model.safetensors", file.data, file.size);
            if (over) {
                assert_int_equal(status, PG_OK);
                break;
            }
            if (status == PG_OK) { /* a file that is cut where it is read no more, or that was not the weights */
                assert_true(cuts);
                if (converts) remove_folder(out);
                continue;
            }
            n_failed++;
            if (bad_error(status) || error_is_stale() || (status != PG_ERROR_IO && !cuts))
                fail_msg("way %d, read %ld: %s: %s", way, k, pg_status_name(status), pg_last_error());
            assert_false(converts && has_file(out, "config.json"));
        }
        if (converts) remove_folder(out);
        if (n_failed < 20) fail_msg("way %d: %ld reads failed", way, n_failed);
        bytes_free(&file);
    }
    remove_folder(folders[0]);
    remove_folder(folders[1]);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_is_mapped_where_it_can_be),
        cmocka_unit_test(models_are_the_same_either_way),
        cmocka_unit_test(nothing_happens_to_what_was_read),
        cmocka_unit_test(each_read_may_fail),
    };
    return RUN_TESTS(tests, NULL, NULL);
}
