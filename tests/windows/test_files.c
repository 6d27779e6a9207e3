/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* lib/base on Windows: files that others use, names of any letters and lengths, folders that appear whole. */
#include "run_tests.h"

#include <windows.h>

#include "base/atomic_folder.h"
#include "base/file.h"
#include "base/system.h"
#include "base/variables.h"
#include "checkpoint/hf_cache.h"
#include "support.h"

#define MEMORY (&pgi_memory_default)
#define NAME "\xC3\xB6 \xE6\x97\xA5\xE6\x9C\xAC" /* ö 日本 */

static char folder[512], text[1024];

static int make(void **state) {
    (void)state;
    make_temp_folder(folder, sizeof folder);
    return 0;
}

static int clean(void **state) {
    (void)state;
    remove_folder(folder);
    return 0;
}

static const char *path_of(const char *name) {
    snprintf(text, sizeof text, "%s/%s", folder, name);
    return text;
}

#define REFUSED(call, expected, part)                                                       \
    do {                                                                                    \
        const pg_status found_ = (call);                                                    \
        if (found_ != (expected) || !strstr(pgi_error_text(), part))                        \
            fail_msg("%s: found %s (%s)", #call, pg_status_name(found_), pgi_error_text()); \
    } while (0)

static void a_mapped_file_is_others_too(void **state) {
    (void)state;
    pgi_file file;
    pgi_mapping mapping;
    char part[3] = "";
    write_file(folder, NAME, "abc", 3);
    assert_int_equal(pgi_file_open(path_of(NAME), &file), PG_OK);
    assert_int_equal(file.size, 3);
    assert_int_equal(pgi_file_map(&file, &mapping), PG_OK);
    assert_memory_equal(mapping.data, "abc", 3);
    assert_int_equal(pgi_file_unchanged(&file), PG_OK);
    assert_int_equal(pgi_file_read_at(&file, 1, 2, part), PG_OK);
    assert_memory_equal(part, "bc", 2);
    REFUSED(pgi_file_read_at(&file, 2, 2, part), PG_ERROR_IO, "ended after 3 of 3 bytes");
    /* renamed, and another one takes its name: the mapping stays as it is */
    char from[600];
    snprintf(from, sizeof from, "%s", path_of(NAME));
    assert_int_equal(rename(from, path_of("other")), 0);
    write_file(folder, NAME, "xyz", 3);
    assert_memory_equal(mapping.data, "abc", 3);
    pgi_mapping_free(&mapping);
    pgi_file_close(&file);
    pgi_file_close(&file); /* nothing */
}

static void a_change_is_noticed(void **state) {
    (void)state;
    pgi_file file;
    write_file(folder, "a", "abc", 3);
    assert_int_equal(pgi_file_open(path_of("a"), &file), PG_OK);
    FILE *other = fopen(path_of("a"), "ab");
    assert_non_null(other); /* shared, as nothing is mapped */
    fputs("d", other);
    fclose(other);
    REFUSED(pgi_file_unchanged(&file), PG_ERROR_IO, "found 4 bytes, expected the 3");
    pgi_file_close(&file);
}

static void what_is_no_file(void **state) {
    (void)state;
    pgi_file file;
    REFUSED(pgi_file_open(folder, &file), PG_ERROR_IO, "found a folder, expected a file");
    assert_int_equal(file.fd, -1);
    REFUSED(pgi_file_open("NUL", &file), PG_ERROR_IO, "character device");
    REFUSED(pgi_file_open(path_of("none"), &file), PG_ERROR_NOT_FOUND, "cannot open: No such file");
    REFUSED(pgi_file_open("https://example.com/a", &file), PG_ERROR_NOT_FOUND, "found a URL");
    REFUSED(pgi_file_open("a\xFF", &file), PG_ERROR_IO, "the path is no UTF-8");
    const HANDLE alone = CreateFileA(path_of("alone"), GENERIC_WRITE, 0, NULL, CREATE_NEW, 0, NULL);
    assert_true(alone != INVALID_HANDLE_VALUE);
    REFUSED(pgi_file_open(path_of("alone"), &file), PG_ERROR_IO, "another program uses it");
    CloseHandle(alone);
    const pgi_buffer nothing = {0};
    REFUSED(pgi_replace_file(MEMORY, "NUL", &nothing, "a", 1), PG_ERROR_ARGUMENT, "found a device");
    REFUSED(pgi_replace_file(MEMORY, folder, &nothing, "a", 1), PG_ERROR_ARGUMENT, "found a folder");
}

static void count(void *user, const char *name) {
    (void)name;
    ++*(size_t *)user;
}

static void files_are_replaced_whole(void **state) {
    (void)state;
    const pgi_buffer head = {.data = (uint8_t *)"ab", .size = 2};
    pgi_file file;
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pgi_replace_file(MEMORY, path_of(NAME), &head, i ? "x" : "y", 1), PG_OK);
        bytes found = read_file(folder, NAME);
        assert_string_equal((const char *)found.data, i ? "abx" : "aby");
        bytes_free(&found);
    }
    /* one that is open is not replaced, after a second, and nothing is left beside it */
    assert_int_equal(pgi_file_open(path_of(NAME), &file), PG_OK);
    REFUSED(pgi_replace_file(MEMORY, path_of(NAME), &head, "z", 1), PG_ERROR_IO, "cannot rename to it");
    pgi_file_close(&file);
    bytes found = read_file(folder, NAME);
    assert_string_equal((const char *)found.data, "abx");
    bytes_free(&found);
    size_t n = 0;
    assert_int_equal(pgi_folder_list(folder, count, &n), 0);
    assert_int_equal(n, 3); /* with . and .. */
}

static void folders_appear_whole(void **state) {
    (void)state;
    static const char *const names[] = {NAME, "with/slash\\both", "empty/"};
    assert_int_equal(CreateDirectoryA(path_of("with"), NULL), TRUE);
    assert_int_equal(CreateDirectoryA(path_of("empty"), NULL), TRUE);
    assert_int_equal(CreateDirectoryA(path_of("with/slash"), NULL), TRUE);
    for (size_t i = 0; i < 3; i++) {
        pgi_process_mark owner = {0};
        pgi_atomic_folder out, second;
        pgi_atomic_file file;
        char path[600], inside[700];
        snprintf(path, sizeof path, "%s", path_of(names[i]));
        pgi_process_mark_set(&owner);
        assert_int_equal(pgi_atomic_folder_begin(MEMORY, path, &owner, &out), PG_OK);
        REFUSED(pgi_atomic_folder_begin(MEMORY, path, &owner, &second), PG_ERROR_IO, "another process writing it");
        assert_int_equal(pgi_atomic_file_open(&out, "a", 5, &file), PG_OK);
        assert_int_equal(pgi_atomic_file_write(&file, 0, "abcde", 5), PG_OK);
        assert_int_equal(pgi_atomic_file_close(&file, PG_OK), PG_OK);
        snprintf(inside, sizeof inside, "%s/a", path);
        assert_false(pgi_file_exists(inside));
        if (i == 1) {
            assert_int_equal(pgi_atomic_folder_abandon(&out, PG_ERROR_CANCELLED), PG_ERROR_CANCELLED);
            assert_false(pgi_folder_exists(path));
            snprintf(inside, sizeof inside, "%s.partial", path);
            assert_false(pgi_folder_exists(inside));
            continue;
        }
        assert_int_equal(pgi_atomic_folder_commit(&out), PG_OK);
        assert_true(pgi_file_exists(inside));
        snprintf(inside, sizeof inside, "%s/" PGI_UNFINISHED, path);
        assert_false(pgi_file_exists(inside));
        REFUSED(pgi_atomic_folder_begin(MEMORY, path, &owner, &out), PG_ERROR_ARGUMENT, "found files in it");
        DeleteFileA(path_of(i == 0 ? NAME "/a" : "empty/a"));
        RemoveDirectoryA(path);
    }
    RemoveDirectoryA(path_of("with/slash"));
}

/* A process that was killed leaves PATH.partial with its mark; other folders of the name are not touched. */
static void what_a_killed_one_left(void **state) {
    (void)state;
    pgi_process_mark owner = {0};
    pgi_atomic_folder out;
    pgi_process_mark_set(&owner);
    assert_int_equal(CreateDirectoryA(path_of("out.partial"), NULL), TRUE);
    write_file(folder, "out.partial/a", "a", 1);
    char path[600];
    snprintf(path, sizeof path, "%s", path_of("out"));
    REFUSED(pgi_atomic_folder_begin(MEMORY, path, &owner, &out), PG_ERROR_IO, "move it away");
    write_file(folder, "out.partial/" PGI_UNFINISHED, "", 0);
    assert_int_equal(pgi_atomic_folder_begin(MEMORY, path, &owner, &out), PG_OK);
    assert_false(has_file(folder, "out.partial/a"));
    assert_int_equal(pgi_atomic_folder_abandon(&out, PG_OK), PG_OK);
}

/* As Windows' own functions without "\\?\" could not. */
static void long_names(void **state) {
    (void)state;
    char deep[2048], file[2100];
    int made;
    const pgi_buffer nothing = {0};
    snprintf(deep, sizeof deep, "%s", folder);
    for (int i = 0; i < 6; i++) {
        strcat(deep, "/sixty characters of one name, as some tools that unpack make \xE6\x97\xA5");
        assert_int_equal(pgi_folder_make(MEMORY, deep, &made), PG_OK);
        assert_true(made && pgi_folder_exists(deep));
    }
    snprintf(file, sizeof file, "%s/a", deep);
    assert_int_equal(pgi_replace_file(MEMORY, file, &nothing, "abc", 3), PG_OK);
    char head[8], real[PGI_PATH_SIZE];
    assert_int_equal(pgi_file_head(file, head, sizeof head), 3);
    wchar_t wide[2200] = L"\\\\?\\", full[2200];
    MultiByteToWideChar(CP_UTF8, 0, file, -1, full, 2200);
    assert_true(GetFullPathNameW(full, 2200, wide + 4, NULL) > 300);
    assert_true(DeleteFileW(wide));
    /* (of long names Wine 8 cannot tell the final path) */
    write_file(folder, "a", "abc", 3);
    assert_int_equal(pgi_path_real(path_of("./a"), real), 0);
    assert_string_equal(real + strlen(real) - 2, "/a");
    assert_int_equal(pgi_hf_cache_check_inside(folder, path_of("a")), PG_OK);
    for (int i = 0; i < 6; i++) {
        pgi_folder_unmake(deep);
        assert_false(pgi_folder_exists(deep));
        *strrchr(deep, '/') = 0;
    }
    memset(file, 'a', sizeof file - 1);
    file[sizeof file - 1] = 0;
    assert_false(pgi_file_exists(file));
}

static void the_system(void **state) {
    (void)state;
    pgi_buffer value;
    int found;
    uint64_t a = 0, b = 0;
    assert_true(pgi_system_random(&a, sizeof a) && pgi_system_random(&b, sizeof b) && a != b);
    assert_true(pgi_system_memory() > 1e8 && pgi_system_page_size() >= 4096);
    pgi_buffer_init(&value, MEMORY);
    SetEnvironmentVariableW(L"PG_TEST_VALUE", L"\u00f6 \u65e5\u672c");
    assert_int_equal(pgi_system_variable("PG_TEST_VALUE", &value, &found), PG_OK);
    assert_true(found);
    assert_string_equal((const char *)value.data, NAME);
    assert_int_equal(pgi_system_variable("PG_TEST_NONE", &value, &found), PG_OK);
    assert_false(found);
    value.size = 0;
    assert_int_equal(pgi_system_home(&value), PG_OK);
    assert_true(pgi_folder_exists((const char *)value.data));
    pgi_buffer_free(&value);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make, clean)

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        TEST(a_mapped_file_is_others_too),
        TEST(a_change_is_noticed),
        TEST(what_is_no_file),
        TEST(files_are_replaced_whole),
        TEST(folders_appear_whole),
        TEST(what_a_killed_one_left),
        TEST(long_names),
        TEST(the_system),
    };
    return RUN_TESTS(tests, NULL, NULL);
}
