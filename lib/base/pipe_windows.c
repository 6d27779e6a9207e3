/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Windows has no pipes among its files: a path names a file there, and pgi_file_read() refuses what is none. */
#include "base/file.h"
#include "base/pipe.h"

const pgi_pipe_waits pgi_pipe_waits_default = {.writer = 10, .byte = 60};

pg_status pgi_file_or_pipe_read(const char *path, size_t max_size, const pgi_pipe_waits *waits, const pg_cancel *cancel,
                                pgi_buffer *out) {
    (void)waits, (void)cancel;
    return pgi_file_read(path, max_size, out);
}
