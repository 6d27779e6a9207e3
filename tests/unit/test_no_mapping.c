/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * File systems that cannot map a file shared, or not at all (FUSE, 9p, some of the network). The linker sends the
 * library's calls of mmap() here (--wrap=mmap), where they are refused as those do.
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

static void a_file_is_the_same_either_way(void **state) {
    (void)state;
    char folder[256], path[300];
    make_temp_folder(folder, sizeof folder);
    write_text(folder, "f", "0123456789");
    write_text(folder, "empty", "");
    for (kind = SHARED; kind < NO_ADDRESSES; kind++) {
        pgi_mapping mapping;
        counter c;
        counter_init(&c);
        pgi_memory memory;
        assert_int_equal(pgi_memory_from_allocator(&c.hooks, &memory), PG_OK);
        n_shared = n_private = 0;
        snprintf(path, sizeof path, "%s/f", folder);
        assert_int_equal(pgi_mapping_init(&memory, path, &mapping), PG_OK);
        assert_int_equal(n_shared, 1);
        assert_int_equal(n_private, kind != SHARED);
        assert_int_equal(mapping.size, 10);
        assert_memory_equal(mapping.data, "0123456789", 10);
        assert_int_equal(atomic_load(&c.n_live), kind == NOT_AT_ALL);
        pgi_mapping_free(&mapping);
        assert_null(mapping.data);
        assert_true(counter_clean(&c));
        snprintf(path, sizeof path, "%s/empty", folder);
        assert_int_equal(pgi_mapping_init(&memory, path, &mapping), PG_OK);
        assert_null(mapping.data);
        pgi_mapping_free(&mapping);
        if (kind != NOT_AT_ALL) continue;
        c.fail_from = 1;
        snprintf(path, sizeof path, "%s/f", folder);
        assert_int_equal(pgi_mapping_init(&memory, path, &mapping), PG_ERROR_MEMORY);
        assert_null(mapping.data);
    }
    pgi_mapping mapping;
    assert_int_equal(pgi_mapping_init(&pgi_memory_default, path, &mapping), PG_ERROR_MEMORY); /* NO_ADDRESSES */
    kind = SHARED;
    remove_folder(folder);
}

static char logged[1024];

static void keep_warnings(void *user, int32_t level, const char *message) {
    (void)user;
    if (level == PG_LOG_WARNING) snprintf(logged, sizeof logged, "%s", message);
}

/* A folder opens, is quantized on opening and converted; the bytes are those of a mapped one. What was read must not be
 * given back to the system as pages of a file can be: it would be zeros then. */
static void models_are_the_same_either_way(void **state) {
    (void)state;
    char source[256], out[300], size_text[64];
    bytes converted[NO_ADDRESSES] = {{0}};
    tiny_options options = tiny_official();
    make_temp_folder(source, sizeof source);
    tiny_write(source, &options);
    bytes weights = read_file(source, "model.safetensors");
    snprintf(size_text, sizeof size_text, "%zu bytes were read into memory", weights.size);
    snprintf(out, sizeof out, "%s-out", source);
    for (kind = SHARED; kind < NO_ADDRESSES; kind++) {
        for (int32_t format = PG_WEIGHTS_STORED; format <= PG_WEIGHTS_INT8; format++) {
            counter c;
            pg_model *model = NULL;
            pg_model_options open_options;
            counter_init(&c);
            pg_model_options_init(&open_options, sizeof open_options);
            open_options.allocator = &c.hooks;
            open_options.log = keep_warnings;
            open_options.weights = format;
            open_options.n_threads = 1;
            logged[0] = '\0';
            assert_int_equal(pg_model_open(source, &open_options, &model), PG_OK);
            if (kind == NOT_AT_ALL) {
                if (!strstr(logged, size_text)) fail_msg("logged \"%s\", expected \"%s\"", logged, size_text);
                assert_true(atomic_load(&c.live_bytes) >= (long long)weights.size);
            } else {
                assert_string_equal(logged, "");
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

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_is_the_same_either_way),
        cmocka_unit_test(models_are_the_same_either_way),
    };
    return RUN_TESTS(tests, NULL, NULL);
}
