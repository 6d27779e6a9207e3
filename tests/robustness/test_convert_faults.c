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
    assert_in_range(n_whole, 0,
                    4); /* config.json, the folder and its name are brought to the disk; its files counted */
}

static void writes_that_are_cut_short(void **state) {
    (void)state;
    if (convert(SHORT_WRITES, 0, 0) < 0) fail_msg("%s", pg_last_error());
    check_what_is_left(0);
    check_the_next(0);
}

/* ---- callbacks that fork ---- */

enum { SECONDS = 60 };

/* What the callbacks of a conversion do: fork at call number `at`. */
typedef struct forker {
    int at, n_calls;
    int cancels;      /* the child stops the call; else it goes on */
    int parent_first; /* the child waits until the parent's call has ended; else the parent waits for the child */
    int gate[2];      /* a pipe that ends when the parent lets go of it */
    pid_t child;      /* 0 in the child; -1: not forked yet */
    int status;       /* of the child */
} forker;

static void wait_for(forker *f) {
    int how = 0;
    assert_int_equal(waitpid(f->child, &how, 0), f->child);
    f->status = WIFEXITED(how) ? WEXITSTATUS(how) : -WTERMSIG(how);
}

static void fork_at(forker *f) {
    char end;
    if (++f->n_calls != f->at || f->child >= 0) return;
    f->child = fork();
    assert_true(f->child >= 0);
    if (f->child > 0) {
        if (!f->parent_first) wait_for(f);
        return;
    }
    alarm(SECONDS);
    close(f->gate[1]);
    if (f->parent_first && read(f->gate[0], &end, 1) != 0) _exit(3);
}

static int32_t on_progress(void *user, int32_t phase, int64_t done, int64_t total) {
    forker *f = user;
    (void)phase, (void)done, (void)total;
    fork_at(f);
    return f->child == 0 && f->cancels;
}

static void on_log(void *user, int32_t level, const char *line) {
    (void)level, (void)line;
    fork_at(user);
}

/* The child ends here, with 0 when its call said that the conversion is the parent's, or that it was cancelled. */
static pg_status convert_forking(forker *f, int in_log) {
    pg_convert_options options;
    pg_convert_options_init(&options, sizeof options);
    options.n_threads = 2;
    options.max_file_bytes = 60000;
    options.progress = on_progress;
    options.log = on_log;
    *(in_log ? &options.log_user : &options.progress_user) = f;
    forker none = {.child = -1};
    *(in_log ? &options.progress_user : &options.log_user) = &none;
    const pg_status status = pg_model_convert(source, out, &options);
    if (f->child != 0) return status;
    if (status == (f->cancels ? PG_ERROR_CANCELLED : PG_ERROR_STATE)) _exit(0);
    say("call %d: a child has %s %s\n", f->at, pg_status_name(status), pg_last_error());
    _exit(1);
}

/* The parent's conversion is whole, whatever the child does, and whoever of them is first. */
static int forks_at(int at, int in_log, int cancels, int parent_first) {
    forker f = {.at = at, .cancels = cancels, .parent_first = parent_first, .child = -1};
    assert_int_equal(pipe(f.gate), 0);
    const pg_status status = convert_forking(&f, in_log);
    close(f.gate[1]);
    if (status < 0) fail_msg("call %d: %s", at, pg_last_error());
    if (!opens(out, at)) fail_msg("call %d: %s", at, pg_last_error());
    if (f.child > 0 && parent_first) wait_for(&f);
    close(f.gate[0]);
    if (f.status != 0) fail_msg("call %d, cancels %d: the child ends with %d", at, cancels, f.status);
    if (is_there(partial) || !opens(out, at)) fail_msg("call %d: the child changed the folder", at);
    remove_folder(out);
    return f.child > 0;
}

static void a_fork_in_a_callback(void **state) {
    int n_forks = 0;
    (void)state;
    for (int i = 0; i < 6; i++) {
        const int in_log = i >= 4;
        int at = 1;
        while (forks_at(at, in_log, !in_log && i & 1, i / 2 & 1)) at++;
        assert_true(at > (in_log ? 1 : 5));
        n_forks += at - 1;
    }
    say("%d forks\n", n_forks);
}

/* Another program's removals are noticed before the folder gets its name. */
static int32_t remove_one(void *user, int32_t phase, int64_t done, int64_t total) {
    char path[700];
    (void)phase;
    snprintf(path, sizeof path, "%s/model-00001-of-%05d.safetensors", partial, *(const int *)user);
    if (done == total) unlink(path);
    return 0;
}

static void a_file_that_is_removed(void **state) {
    int n_files = 2;
    pg_convert_options options;
    (void)state;
    pg_convert_options_init(&options, sizeof options);
    options.max_file_bytes = 60000;
    assert_int_equal(pg_model_convert(source, out, &options), PG_OK);
    for (char name[64]; n_files < 100; n_files++) {
        snprintf(name, sizeof name, "model-00001-of-%05d.safetensors", n_files);
        if (has_file(out, name)) break;
    }
    assert_in_range(n_files, 2, 99);
    remove_folder(out);
    options.progress = remove_one, options.progress_user = &n_files;
    stale_error();
    const pg_status status = pg_model_convert(source, out, &options);
    assert_int_equal(status, PG_ERROR_IO);
    assert_null(bad_error(status));
    assert_non_null(strstr(pg_last_error(), "convert again"));
    assert_false(is_there(out) || is_there(partial));
}

int main(int argc, char **argv) {
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_call_that_fails),
        cmocka_unit_test(a_disk_that_is_gone),
        cmocka_unit_test(killed),
        cmocka_unit_test(writes_that_are_cut_short),
        cmocka_unit_test(a_fork_in_a_callback),
        cmocka_unit_test(a_file_that_is_removed),
    };
    return RUN_TESTS(tests, setup, teardown);
}
