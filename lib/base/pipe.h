/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Reading what a path names when it may be a pipe: /dev/stdin, `<(curl ...)` (/dev/fd/N), a FIFO. */
#ifndef PGI_BASE_PIPE_H
#define PGI_BASE_PIPE_H

#include "base/memory.h"
#include "base/run.h"

/* How long a pipe is waited for, in seconds: until somebody opens it to write, and from one byte to the next. */
typedef struct pgi_pipe_waits {
    double writer, byte;
} pgi_pipe_waits;
extern const pgi_pipe_waits pgi_pipe_waits_default;

/* As pgi_file_read(), of a pipe too: to its end, `max_size` bytes at the most (PG_ERROR_LIMIT). `cancel` (may be NULL)
 * is looked at while waiting. What is neither is refused (PG_ERROR_IO): devices, which may have no end, and sockets. */
pg_status pgi_file_or_pipe_read(const char *path, size_t max_size, const pgi_pipe_waits *waits, const pg_cancel *cancel,
                                pgi_buffer *out);

#endif
