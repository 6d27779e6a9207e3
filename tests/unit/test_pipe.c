/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* An image path that is a pipe, a FIFO or something else that is no file: read, waited for, or refused, and never for
 * ever. */
#include "run_tests.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/pipe.h"
#include "support.h"

static char folder[256], path[300];

static int setup(void **state) {
    (void)state;
    make_temp_folder(folder, sizeof folder);
    snprintf(path, sizeof path, "%s/pipe", folder);
    return mkfifo(path, 0600);
}

static int teardown(void **state) {
    (void)state;
    remove_folder(folder);
    return 0;
}

/* Somebody who writes to the FIFO. */
typedef struct writer {
    int after_ms, n_parts, part_bytes, between_ms, keeps_open_ms;
    pg_cancel *cancel; /* requested then, in place of writing; may be NULL */
} writer;

static void sleep_ms(int ms) { usleep((useconds_t)ms * 1000); }

static void *write_to_pipe(void *user) {
    const writer *w = user;
    static uint8_t part[1 << 20];
    memset(part, 'x', sizeof part);
    sleep_ms(w->after_ms);
    if (w->cancel) {
        pg_cancel_request(w->cancel);
        return NULL;
    }
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    for (int i = 0; i < w->n_parts; i++) {
        if (write(fd, part, (size_t)w->part_bytes) < 0) break;
        sleep_ms(w->between_ms);
    }
    sleep_ms(w->keeps_open_ms);
    close(fd);
    return NULL;
}

static pg_status read_with(writer *w, size_t most, pgi_pipe_waits waits, size_t *size) {
    pthread_t thread;
    pgi_buffer buffer;
    pgi_buffer_init(&buffer, &pgi_memory_default);
    if (w) assert_int_equal(pthread_create(&thread, NULL, write_to_pipe, w), 0);
    pg_status status = pgi_file_or_pipe_read(path, most, &waits, w ? w->cancel : NULL, &buffer);
    if (w) pthread_join(thread, NULL);
    *size = buffer.size;
    for (size_t i = 0; i < buffer.size; i++) assert_int_equal(buffer.data[i], 'x');
    if (buffer.size) assert_int_equal(buffer.data[buffer.size], 0);
    pgi_buffer_free(&buffer);
    return status;
}

#define ERROR(call, expected, text)                                              \
    do {                                                                         \
        stale_error();                                                           \
        pg_status status_ = (call);                                              \
        assert_int_equal(status_, expected);                                     \
        assert_null(bad_error(status_));                                         \
        if (!strstr(pg_last_error(), text)) fail_msg("\"%s\"", pg_last_error()); \
    } while (0)

static void a_pipe_is_read_to_its_end(void **state) {
    static const pgi_pipe_waits waits = {20, 20};
    size_t size;
    (void)state;
    signal(SIGPIPE, SIG_IGN);
    assert_int_equal(read_with(&(writer){.after_ms = 120, .n_parts = 5, .part_bytes = 1000, .between_ms = 40}, 1 << 20,
                               waits, &size),
                     PG_OK);
    assert_int_equal(size, 5000);
    assert_int_equal(read_with(&(writer){.n_parts = 3, .part_bytes = 1 << 20}, 3 << 20, waits, &size), PG_OK);
    assert_int_equal(size, 3 << 20);
    assert_int_equal(read_with(&(writer){.after_ms = 50, .keeps_open_ms = 50}, 100, waits, &size), PG_OK);
    assert_int_equal(size, 0); /* a writer that came and left */
    assert_int_equal(read_with(&(writer){.after_ms = 50}, 100, waits, &size), PG_OK);
    assert_int_equal(size, 0);
    ERROR(read_with(&(writer){.n_parts = 100, .part_bytes = 1000}, 5000, waits, &size), PG_ERROR_LIMIT,
          "more than 5000 bytes");
}

static void nobody_waits_for_ever(void **state) {
    pg_cancel *cancel = NULL;
    size_t size;
    (void)state;
    double begin = now_seconds();
    ERROR(read_with(NULL, 100, (pgi_pipe_waits){0.2, 9}, &size), PG_ERROR_IO, "nobody opened to write");
    assert_true(now_seconds() - begin < 5);
    ERROR(
        read_with(&(writer){.n_parts = 1, .part_bytes = 7, .keeps_open_ms = 600}, 100, (pgi_pipe_waits){9, 0.2}, &size),
        PG_ERROR_IO, "gave nothing for 0.2 seconds after 7 bytes");
    assert_int_equal(pg_cancel_create(&cancel), PG_OK);
    begin = now_seconds();
    ERROR(read_with(&(writer){.after_ms = 200, .cancel = cancel}, 100, (pgi_pipe_waits){9, 9}, &size),
          PG_ERROR_CANCELLED, "cancelled");
    assert_true(now_seconds() - begin < 5);
    pg_cancel_close(&cancel);
}

/* What the shell makes of <(...) and of a pipe to /dev/stdin; the writer may be gone already. */
static void an_open_pipe_by_its_name(void **state) {
    static const pgi_pipe_waits waits = {20, 20};
    char name[64];
    (void)state;
    for (int n = 0; n < 2; n++) {
        int ends[2];
        pgi_buffer buffer;
        pgi_buffer_init(&buffer, &pgi_memory_default);
        assert_int_equal(pipe(ends), 0);
        snprintf(name, sizeof name, "/dev/fd/%d", ends[0]);
        if (n) assert_int_equal(write(ends[1], "12345", 5), 5);
        close(ends[1]);
        if (access(name, R_OK) == 0) {
            double begin = now_seconds();
            assert_int_equal(pgi_file_or_pipe_read(name, 100, &waits, NULL, &buffer), PG_OK);
            assert_int_equal(buffer.size, n ? 5 : 0);
            assert_true(now_seconds() - begin < 5);
        }
        close(ends[0]);
        pgi_buffer_free(&buffer);
    }
}

static void what_is_no_pipe(void **state) {
    static const pgi_pipe_waits waits = {20, 20};
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char name[300];
    pgi_buffer buffer;
    (void)state;
    pgi_buffer_init(&buffer, &pgi_memory_default);
    write_text(folder, "file", "12");
    snprintf(name, sizeof name, "%s/file", folder);
    assert_int_equal(pgi_file_or_pipe_read(name, 2, &waits, NULL, &buffer), PG_OK);
    assert_int_equal(buffer.size, 2);
    ERROR(pgi_file_or_pipe_read(name, 1, &waits, NULL, &buffer), PG_ERROR_LIMIT, "expected at most 1");
    ERROR(pgi_file_or_pipe_read(folder, 9, &waits, NULL, &buffer), PG_ERROR_IO, "found a folder, expected a file");
    ERROR(pgi_file_or_pipe_read("/dev/zero", 9, &waits, NULL, &buffer), PG_ERROR_IO, "found a character device");
    snprintf(name, sizeof name, "%s/none", folder);
    ERROR(pgi_file_or_pipe_read(name, 9, &waits, NULL, &buffer), PG_ERROR_NOT_FOUND, "cannot open");
    snprintf(address.sun_path, sizeof address.sun_path, "%.90s/socket", folder);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof address) == 0)
        ERROR(pgi_file_or_pipe_read(address.sun_path, 9, &waits, NULL, &buffer), PG_ERROR_IO, "found a socket");
    close(fd);
    pgi_buffer_free(&buffer);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_pipe_is_read_to_its_end),
        cmocka_unit_test(nobody_waits_for_ever),
        cmocka_unit_test(an_open_pipe_by_its_name),
        cmocka_unit_test(what_is_no_pipe),
    };
    return RUN_TESTS(tests, setup, teardown);
}
