/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * pg_model_convert() on a disk that fails, and in a process that is killed: at each of its system calls in turn. What
 * is there afterwards is the whole folder or none that opens, and the next conversion needs no help.
 *
 * The calls are defined here, in the program, and so found before the C library's.
 */
#include "run_tests.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support.h"
#include "tiny.h"

enum { COUNT, FAIL_ONE, FAIL_ALL, KILL, SHORT_WRITES }; /* what happens at call `fault_at` */

static int armed, fault, fault_number;
static int64_t n_calls, fault_at;

/* 1: this call fails, with errno set. */
static int faulty(void) {
    if (!armed) return 0;
    n_calls++;
    if (fault == KILL && n_calls == fault_at) _exit(9);
    if (fault == FAIL_ONE ? n_calls != fault_at : fault != FAIL_ALL || n_calls < fault_at) return 0;
    errno = fault_number;
    return 1;
}

int open(const char *path, int flags, ...) {
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(arguments, mode_t) : 0;
    va_end(arguments);
    return faulty() ? -1 : (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}
int openat(int folder, const char *path, int flags, ...) {
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(arguments, mode_t) : 0;
    va_end(arguments);
    return faulty() ? -1 : (int)syscall(SYS_openat, folder, path, flags, mode);
}
int mkdir(const char *path, mode_t mode) { return faulty() ? -1 : (int)syscall(SYS_mkdirat, AT_FDCWD, path, mode); }
int rmdir(const char *path) { return faulty() ? -1 : (int)syscall(SYS_unlinkat, AT_FDCWD, path, AT_REMOVEDIR); }
int flock(int fd, int operation) { return faulty() ? -1 : (int)syscall(SYS_flock, fd, operation); }
int fsync(int fd) { return faulty() ? -1 : fd < 0 ? -1 : 0; } /* nothing here loses power */
int fallocate(int fd, int mode, off_t at, off_t size) {
    return faulty() ? -1 : (int)syscall(SYS_fallocate, fd, mode, at, size);
}
int unlinkat(int folder, const char *path, int flags) {
    return faulty() ? -1 : (int)syscall(SYS_unlinkat, folder, path, flags);
}
int rename(const char *from, const char *to) {
    return faulty() ? -1 : (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
}
ssize_t read(int fd, void *data, size_t size) { return faulty() ? -1 : syscall(SYS_read, fd, data, size); }
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
    if (faulty()) return -1;
    if (armed && fault == SHORT_WRITES) {
        if (n_calls % 3 == 0) return errno = EINTR, -1;
        size = (size + 1) / 2;
    }
    return syscall(SYS_pwrite64, fd, data, size, at);
}

static char base[512], source[600], out[600], partial[620];

static int setup(void **state) {
    tiny_options options = tiny_official();
    (void)state;
    make_temp_folder(base, sizeof base);
    snprintf(source, sizeof source, "%s/source", base);
    snprintf(out, sizeof out, "%s/out", base);
    snprintf(partial, sizeof partial, "%s.partial", out);
    if (mkdir(source, 0777) != 0) return -1;
    options.n_layers = 1;
    tiny_write(source, &options);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    remove_folder(source);
    remove_folder(base);
    return 0;
}

static int is_there(const char *path) { return access(path, F_OK) == 0; }

/* A conversion with a fault at call n. */
static pg_status convert(int what, int64_t n, int number) {
    pg_convert_options options;
    pg_convert_options_init(&options, sizeof options);
    options.n_threads = 1;
    options.max_file_bytes = 60000; /* several files, with an index */
    fault = what;
    fault_at = n;
    fault_number = number;
    n_calls = 0;
    armed = 1;
    pg_status status = pg_model_convert(source, out, &options);
    armed = 0;
    return status;
}

/* 1: it opens, 0: it does not; what opens has to be whole. */
static int opens(const char *folder, int64_t n) {
    pg_model *model = NULL;
    pg_processor *processor = NULL;
    pg_model_options options;
    pg_model_options_init(&options, sizeof options);
    if (pg_model_open(folder, &options, &model) < 0) return 0;
    pg_model_close(&model);
    options.flags = PG_MODEL_VERIFY;
    if (pg_model_open(folder, &options, &model) < 0 || pg_processor_open(folder, NULL, &processor) < 0)
        fail_msg("a fault at call %lld: %s opens and is not whole: %s", (long long)n, folder, pg_last_error());
    pg_model_close(&model);
    pg_processor_close(&processor);
    return 1;
}

/* Returns whether OUT.partial opens: only when nothing but its renaming was left to do. */
static int check_what_is_left(int64_t n) {
    if (is_there(out) && !opens(out, n)) fail_msg("a fault at call %lld: OUT does not open", (long long)n);
    return is_there(partial) && opens(partial, n);
}

/* Converts without a fault, and clears away. */
static void check_the_next(int64_t n) {
    if (is_there(out)) remove_folder(out);
    if (convert(COUNT, 0, 0) < 0) fail_msg("after a fault at call %lld: %s", (long long)n, pg_last_error());
    if (is_there(partial)) fail_msg("after a fault at call %lld: OUT.partial is left", (long long)n);
    if (!opens(out, n)) fail_msg("after a fault at call %lld: %s", (long long)n, pg_last_error());
    remove_folder(out);
}

static int64_t count_calls(void) {
    check_the_next(0);
    int64_t total = n_calls;
    assert_in_range(total, 60, 5000); /* fewer: the calls above are not what the library calls */
    return total;
}

/* One call fails: all is undone, or it did not matter. */
static void a_call_that_fails(void **state) {
    static const int numbers[] = {EIO, ENOSPC, EDQUOT};
    int64_t total = count_calls(), n_failed = 0;
    (void)state;
    for (int64_t n = 1; n <= total; n++) {
        stale_error();
        pg_status status = convert(FAIL_ONE, n, numbers[n % 3]);
        if (status < 0 && (bad_error(status) || error_is_stale() || is_there(out) || is_there(partial)))
            fail_msg("call %lld: %s %s, left:%s%s", (long long)n, pg_status_name(status), pg_last_error(),
                     is_there(out) ? " OUT" : "", is_there(partial) ? " OUT.partial" : "");
        n_failed += status < 0;
        check_what_is_left(n);
        check_the_next(n);
    }
    assert_in_range(n_failed, total * 3 / 4, total);
}

/* From a call on everything fails, cleaning up too. */
static void a_disk_that_is_gone(void **state) {
    int64_t total = count_calls();
    (void)state;
    for (int64_t n = 1; n <= total; n++) {
        stale_error();
        pg_status status = convert(FAIL_ALL, n, EIO);
        if (status < 0 && (bad_error(status) || error_is_stale()))
            fail_msg("call %lld: %s %s", (long long)n, pg_status_name(status), pg_last_error());
        check_what_is_left(n);
        check_the_next(n);
    }
}

static void killed(void **state) {
    int64_t total = count_calls(), n_partial = 0, n_whole = 0;
    (void)state;
    for (int64_t n = 1; n <= total; n++) {
        int status = 0;
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            convert(KILL, n, 0);
            _exit(0);
        }
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 9);
        n_partial += is_there(partial);
        n_whole += check_what_is_left(n);
        check_the_next(n);
    }
    assert_in_range(n_partial, total / 2, total);
    assert_in_range(n_whole, 0, 3); /* config.json, the folder and its name are brought to the disk */
}

static void writes_that_are_cut_short(void **state) {
    (void)state;
    if (convert(SHORT_WRITES, 0, 0) < 0) fail_msg("%s", pg_last_error());
    check_what_is_left(0);
    check_the_next(0);
}

int main(int argc, char **argv) {
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_call_that_fails),
        cmocka_unit_test(a_disk_that_is_gone),
        cmocka_unit_test(killed),
        cmocka_unit_test(writes_that_are_cut_short),
    };
    return RUN_TESTS(tests, setup, teardown);
}
