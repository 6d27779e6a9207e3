/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* lib/checkpoint/hf_cache.h: model folders and the local Hugging Face cache. */
#include "run_tests.h"

#include <grp.h>
#include <sys/wait.h>

#include "checkpoint/hf_cache.h"
#include "checkpoint_files.h"

#ifdef _WIN32
#define HOME "USERPROFILE"
#else
#define HOME "HOME"
#endif
static const char *const cache_variables[] = {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME",
                                              HOME,           "PG_TEST_BASE"};

static void set_environment(const char *const values[6]) {
    for (size_t i = 0; i < COUNT(cache_variables); i++) {
        if (values && values[i])
            setenv(cache_variables[i], values[i], 1);
        else
            unsetenv(cache_variables[i]);
    }
}

static void make_folders(const char *path) {
    char partial[512];
    snprintf(partial, sizeof partial, "%s", in_folder(path));
    for (char *p = partial + strlen(folder) + 1; *p; p++)
        if (*p == '/') *p = '\0', mkdir(partial, 0700), *p = '/';
    mkdir(partial, 0700);
}

static void assert_found_in(const char *cache, const char *model, const char *below) {
    char *path = NULL;
    pg_status status = pgi_hf_cache_find(MEMORY, model, cache, &path);
    if (status < 0) fail_msg("%s: %s", pg_status_name(status), pgi_error_text());
    assert_string_equal(path, in_folder(below));
    pgi_free(MEMORY, path);
}

static void assert_found(const char *model, const char *below) { assert_found_in(NULL, model, below); }

static void hub_cache_is_found_by_environment(void **state) {
    (void)state;
    char base[64];
    strcpy(base, folder);
    static const char *const places[] = {"a", "b", "c/hub", "d/huggingface/hub", "e/.cache/huggingface/hub"};
    for (size_t i = 0; i < COUNT(places); i++) {
        char path[256], ref[256];
        snprintf(path, sizeof path, "%s/models--google--pali/snapshots/0123abc", places[i]);
        make_folders(path);
        snprintf(path, sizeof path, "%s/models--google--pali/refs/pr", places[i]);
        make_folders(path);
        snprintf(ref, sizeof ref, "%s/models--google--pali/refs/main", places[i]);
        write_text(ref, "0123abc\n");
    }
    write_text("a/models--google--pali/refs/pr/1", "fff");
    make_folders("a/models--google--pali/snapshots/fff");
    make_folders("a/models--plain/snapshots/main"); /* no ref: the name itself, as huggingface_hub does */

    char a[128], b[128], c[128], d[128], e[128];
    snprintf(a, sizeof a, "%s/a/", base);
    snprintf(b, sizeof b, "%s/b", base);
    snprintf(c, sizeof c, "%s/c", base);
    snprintf(d, sizeof d, "%s/d", base);
    snprintf(e, sizeof e, "%s/e", base);
    set_environment((const char *const[]){a, b, c, d, e, base});
    assert_found("google/pali", "a/models--google--pali/snapshots/0123abc");
    set_environment((const char *const[]){NULL, b, c, d, e, base});
    assert_found("google/pali", "b/models--google--pali/snapshots/0123abc");
    set_environment((const char *const[]){"", NULL, c, d, e, base});
    assert_found("google/pali", "c/hub/models--google--pali/snapshots/0123abc");
    set_environment((const char *const[]){NULL, NULL, NULL, d, e, base});
    assert_found("google/pali", "d/huggingface/hub/models--google--pali/snapshots/0123abc");
    set_environment((const char *const[]){NULL, NULL, NULL, NULL, e, base});
    assert_found("google/pali", "e/.cache/huggingface/hub/models--google--pali/snapshots/0123abc");
    set_environment((const char *const[]){"$PG_TEST_BASE/b", NULL, NULL, NULL, e, base});
    assert_found("google/pali", "b/models--google--pali/snapshots/0123abc");
    set_environment((const char *const[]){NULL, NULL, "${PG_TEST_BASE}/c", NULL, e, base});
    assert_found("google/pali", "c/hub/models--google--pali/snapshots/0123abc");
    set_environment((const char *const[]){"~/../a", NULL, NULL, NULL, e, base});
    assert_found("google/pali@0123abc", "e/../a/models--google--pali/snapshots/0123abc");
    assert_found("google/pali@pr/1", "e/../a/models--google--pali/snapshots/fff");
    assert_found("plain", "e/../a/models--plain/snapshots/main");
    assert_found(in_folder("a/models--plain"), "a/models--plain"); /* a folder is itself */
    set_environment(NULL);
}

static void hub_errors_say_where_it_looked(void **state) {
    (void)state;
    char *path, cache[512];
    snprintf(cache, sizeof cache, "%s/cache", folder);
    make_folders("cache/models--org--empty/refs");
    make_folders("cache/models--org--broken/refs");
    write_text("cache/models--org--broken/refs/main", "../../../etc");
    write_text("file", "x");
    set_environment((const char *const[]){cache, NULL, NULL, NULL, "/nowhere", NULL});
    assert_error(pgi_hf_cache_find(MEMORY, "google/nothing", NULL, &path), PG_ERROR_NOT_FOUND,
                 in_folder("cache/models--google--nothing"), "HF_HUB_CACHE");
    assert_null(path);
    assert_error(pgi_hf_cache_find(MEMORY, "org/empty", NULL, &path), PG_ERROR_NOT_FOUND,
                 in_folder("cache/models--org--empty/refs/main"), in_folder("cache/models--org--empty/snapshots/main"));
    assert_error(pgi_hf_cache_find(MEMORY, "org/empty@a/b", NULL, &path), PG_ERROR_NOT_FOUND, "revision a/b", NULL);
    assert_error(pgi_hf_cache_find(MEMORY, "org/broken", NULL, &path), PG_ERROR_FORMAT,
                 "refs/main: found \"../../../etc\"", NULL);
    assert_error(pgi_hf_cache_find(MEMORY, in_folder("file"), NULL, &path), PG_ERROR_ARGUMENT, "found a file", NULL);
    assert_error(pgi_hf_cache_find(MEMORY, "", NULL, &path), PG_ERROR_ARGUMENT, "empty", NULL);
    static const char *const no_ids[] = {
#ifndef _WIN32 /* where it is this folder, whether there is an `a` or not */
        "a/..",
#endif
        "a/b/c", "../not-there", "/absolute/folder", "./x",    "a--b/c",     "a..b",       "-a", "a/.b",
        "a/",    "a b",          "caf\xC3\xA9",      "org/x@", "org/x@../y", "org/x@a//b", "~"};
    for (size_t i = 0; i < COUNT(no_ids); i++)
        assert_error(pgi_hf_cache_find(MEMORY, no_ids[i], NULL, &path), PG_ERROR_NOT_FOUND, "no such folder",
                     "no model id");
    set_environment((const char *const[]){NULL, NULL, NULL, NULL, "/nowhere", NULL});
    assert_error(pgi_hf_cache_find(MEMORY, "google/nothing", NULL, &path), PG_ERROR_NOT_FOUND,
                 "/nowhere/.cache/huggingface/hub/models--google--nothing", "default");
    set_environment(NULL);
}

static void the_callers_cache_is_the_only_one(void **state) {
    (void)state;
    char given[512], other[512], *path;
    snprintf(given, sizeof given, "%s/$given//", folder); /* taken as it is written */
    snprintf(other, sizeof other, "%s/other", folder);
    make_folders("$given/models--org--name/snapshots/111");
    make_folders("$given/models--org--name/snapshots/222");
    make_folders("$given/models--org--name/refs");
    write_text("$given/models--org--name/refs/main", "111");
    write_text("$given/models--org--name/refs/float16", "222\n");
    make_folders("other/models--org--elsewhere/snapshots/main");
    set_environment((const char *const[]){other, other, other, other, other, NULL});
    assert_found_in(given, "org/name", "$given/models--org--name/snapshots/111");
    assert_found_in(given, "org/name@float16", "$given/models--org--name/snapshots/222");
    assert_found_in(given, "org/name@222", "$given/models--org--name/snapshots/222");
    assert_found_in(given, in_folder("other"), "other"); /* a folder is itself */
    assert_found("org/elsewhere", "other/models--org--elsewhere/snapshots/main");
    assert_error(pgi_hf_cache_find(MEMORY, "org/elsewhere", given, &path), PG_ERROR_NOT_FOUND,
                 in_folder("$given/models--org--elsewhere"), "comes from the caller");
    assert_error(pgi_hf_cache_find(MEMORY, "org/name@333", given, &path), PG_ERROR_NOT_FOUND, "revision 333",
                 in_folder("$given/models--org--name/snapshots/333"));
    assert_error(pgi_hf_cache_find(MEMORY, "org/name@../other", given, &path), PG_ERROR_NOT_FOUND, "no model id", NULL);
    assert_error(pgi_hf_cache_find(MEMORY, "org/name", "", &path), PG_ERROR_ARGUMENT, "cache is an empty string", NULL);
    assert_null(path);
    set_environment(NULL);
}

/* Root may look at everything; the exit status of a child that cannot become another user. */
enum { CANNOT = 77, NOBODY = 65534 };

/* 0: `model` gives status and a message that begins so. */
static int differs(const char *model, const char *cache, pg_status expected, const char *text) {
    char *path = NULL;
    const pg_status status = pgi_hf_cache_find(MEMORY, model, cache, &path);
    const char *found = status < 0 ? pgi_error_text() : path;
    const int same = status == expected && strncmp(found, text, strlen(text)) == 0;
    if (!same) fprintf(stderr, "%s: %d, %s\n", model, (int)status, found);
    pgi_free(MEMORY, path);
    return !same;
}

static int look_as_nobody(void) {
    char here[512], cache[512], locked[512], text[600], denied[600];
    if (geteuid() == 0 && (setgroups(0, NULL) != 0 || setgid(NOBODY) != 0 || setuid(NOBODY) != 0)) return CANNOT;
    snprintf(here, sizeof here, "%s", in_folder("locked/model"));
    snprintf(cache, sizeof cache, "%s", in_folder("cache"));
    if (access(cache, X_OK) != 0) return CANNOT; /* $TMPDIR is root's alone */
    snprintf(locked, sizeof locked, "%s", in_folder("locked"));
    snprintf(text, sizeof text, "%s: cannot open: Permission denied", here);
    snprintf(denied, sizeof denied, "%s/models--org--name: cannot open: Permission denied", locked);
    return differs(here, cache, PG_ERROR_IO, text) ||
           differs("locked/other", cache, PG_ERROR_IO, "locked/other: cannot open: Permission denied") ||
           differs("locked/other", locked, PG_ERROR_IO, "locked/other: cannot open: Permission denied") ||
           differs("org/name", locked, PG_ERROR_IO, denied) ||
           differs("locked/model", cache, PG_OK, in_folder("cache/models--locked--model/snapshots/main"));
}

static void what_may_not_be_looked_at_is_neither_absent_nor_a_file(void **state) {
    int how = 0;
    (void)state;
    make_folders("locked/model");
    make_folders("cache/models--locked--model/snapshots/main");
    for (char *path = strdup(in_folder("cache/models--locked--model/snapshots/main")); path;) {
        assert_int_equal(chmod(path, 0755), 0); /* others may look, whoever runs this */
        if (strlen(path) == strlen(folder)) {
            free(path);
            break;
        }
        *strrchr(path, '/') = 0;
    }
    assert_int_equal(chmod(in_folder("locked"), 0), 0);
    const pid_t child = fork();
    if (child == 0) _exit(chdir(folder) != 0 ? 2 : look_as_nobody());
    assert_int_equal(waitpid(child, &how, 0), child);
    assert_int_equal(chmod(in_folder("locked"), 0700), 0);
    assert_true(WIFEXITED(how));
    if (WEXITSTATUS(how) == CANNOT) skip();
    assert_int_equal(WEXITSTATUS(how), 0);
}

int main(int argc, char **argv) {
#define TEST(function) cmocka_unit_test_setup_teardown(function, make_folder, remove_folder)
    const struct CMUnitTest tests[] = {
        TEST(hub_cache_is_found_by_environment),
        TEST(hub_errors_say_where_it_looked),
        TEST(the_callers_cache_is_the_only_one),
        TEST(what_may_not_be_looked_at_is_neither_absent_nor_a_file),
    };
#undef TEST
    return RUN_TESTS(tests, NULL, NULL);
}
