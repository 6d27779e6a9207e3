/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Pipes are opened without blocking. Linux, measured: while nobody has opened a FIFO to write yet, read() says that it
 * ended and poll() waits; POLLHUP tells that a writer came and left. An anonymous pipe (/dev/fd/N) whose writer left
 * before it was opened here has no POLLHUP, but nobody can come to it either: there the end that read() tells is one.
 */
#include "base/pipe.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>
#if defined(__linux__)
#include <sys/vfs.h>
#endif

#include "base/clock.h"
#include "base/file_posix.h"

enum { SLICE = 20 /* milliseconds between two looks at the cancel flag */, PART = 64 << 10 };

const pgi_pipe_waits pgi_pipe_waits_default = {.writer = 10, .byte = 60};

typedef struct pipe_reader {
    const char *path;
    int fd;
    int has_writer; /* somebody writes to it, or did */
    const pgi_pipe_waits *waits;
    const pg_cancel *cancel;
    double since; /* the last byte, or the beginning */
} pipe_reader;

static int is_anonymous(int fd) {
#if defined(__linux__)
    enum { PIPEFS = 0x50495045 };
    struct statfs info;
    return fstatfs(fd, &info) == 0 && info.f_type == PIPEFS;
#else
    (void)fd;
    return 0;
#endif
}

/* Waits a little for something to read, for a writer, or for the end. */
static pg_status wait_a_little(pipe_reader *r, size_t size) {
    const double waited = pgi_now() - r->since;
    struct pollfd poll_fd = {.fd = r->fd, .events = POLLIN};
    PGI_TRY(pgi_cancel_check(r->cancel));
    if (!r->has_writer && waited >= r->waits->writer)
        return pgi_error(
            PG_ERROR_IO,
            "%s: found a pipe that nobody opened to write for %.1f seconds, expected somebody to write to it", r->path,
            waited);
    if (waited >= r->waits->byte)
        return pgi_error(PG_ERROR_IO, "%s: found a pipe that gave nothing for %.1f seconds after %zu bytes", r->path,
                         waited, size);
    if (poll(&poll_fd, 1, SLICE) > 0 && (poll_fd.revents & POLLHUP)) r->has_writer = 1;
    return PG_OK;
}

static pg_status read_pipe(pipe_reader *r, size_t max_size, pgi_buffer *out) {
    const size_t begin = out->size;
    for (;;) {
        PGI_TRY(pgi_buffer_reserve(out, PART));
        const ssize_t n = read(r->fd, out->data + out->size, PART);
        if (n > 0) {
            out->size += (size_t)n;
            out->data[out->size] = 0;
            r->since = pgi_now();
            r->has_writer = 1;
            if (out->size - begin > max_size)
                return pgi_error(PG_ERROR_LIMIT, "%s: found a pipe of more than %zu bytes, expected at most so many",
                                 r->path, max_size);
            PGI_TRY(pgi_cancel_check(r->cancel));
            continue;
        }
        if (n == 0 && r->has_writer) return PG_OK;
        if (n < 0 && errno != EINTR && errno != EAGAIN) return pgi_system_error(r->path, "read", errno);
        if (n < 0 && errno == EAGAIN) r->has_writer = 1;
        PGI_TRY(wait_a_little(r, out->size - begin));
    }
}

pg_status pgi_file_or_pipe_read(const char *path, size_t max_size, const pgi_pipe_waits *waits, const pg_cancel *cancel,
                                pgi_buffer *out) {
    struct stat info;
    if (stat(path, &info) != 0 || !S_ISFIFO(info.st_mode)) return pgi_file_read(path, max_size, out);
    pipe_reader r = {.path = path,
                     .fd = pgi_openat(AT_FDCWD, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK, 0),
                     .waits = waits,
                     .cancel = cancel,
                     .since = pgi_now()};
    if (r.fd < 0) return pgi_system_error(path, "open", errno);
    r.has_writer = is_anonymous(r.fd);
    /* Another file may have taken its place: then it is no pipe, and has its own way. */
    pg_status status = fstat(r.fd, &info) == 0 && S_ISFIFO(info.st_mode)
                           ? read_pipe(&r, max_size, out)
                           : pgi_error(PG_ERROR_IO, "%s: changed while it was opened", path);
    close(r.fd);
    return status;
}
