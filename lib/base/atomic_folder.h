/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * A folder that appears whole or not at all: its files are written to PATH.partial beside it, which is renamed to PATH
 * at the end. The empty file PGI_UNFINISHED marks it until then: what a killed process left behind is known by it and
 * removed by the next call for the same PATH. Of two calls at once the second is refused. And the same for a file.
 */
#ifndef PGI_BASE_ATOMIC_FOLDER_H
#define PGI_BASE_ATOMIC_FOLDER_H

#include "base/memory.h"

#define PGI_UNFINISHED "unfinished"

typedef struct pgi_atomic_folder {
    const pgi_memory *memory;
    char *path, *partial;
    int fd; /* of `partial`, locked; -1: none */
} pgi_atomic_folder;

/* `path`: new, or an empty folder (else PG_ERROR_ARGUMENT). Then commit or abandon it; on error *out needs neither. */
pg_status pgi_atomic_folder_begin(const pgi_memory *memory, const char *path, pgi_atomic_folder *out);
/* Renames; after an error it can still be abandoned. */
pg_status pgi_atomic_folder_commit(pgi_atomic_folder *folder);
/* Removes what was written. Returns `status`; what could not be removed is added to its message. */
pg_status pgi_atomic_folder_abandon(pgi_atomic_folder *folder, pg_status status);

/* A file of the folder, open for writing. */
typedef struct pgi_atomic_file {
    char *path; /* owned */
    const pgi_memory *memory;
    int fd;
} pgi_atomic_file;

/* `size`: reserved on the disk at once, where the file system can do that, so that a full disk is noticed early. */
pg_status pgi_atomic_file_open(const pgi_atomic_folder *folder, const char *name, uint64_t size, pgi_atomic_file *out);
pg_status pgi_atomic_file_write(const pgi_atomic_file *file, uint64_t at, const void *data, size_t size);
/* status < 0: only closes. Else the file is on the disk when this returns PG_OK. */
pg_status pgi_atomic_file_close(pgi_atomic_file *file, pg_status status);

/* Writes a single file, `head` and then `size` bytes, and puts it in the place of the regular file `path`, if one is
 * there: readers find the old one or the new one, whole. What is written first is PATH.partial-NUMBER, of which a
 * killed process may leave one. Errors: PG_ERROR_IO, _NOT_FOUND (the folder), _ARGUMENT (`path` is a folder, a device).
 */
pg_status pgi_replace_file(const pgi_memory *memory, const char *path, const pgi_buffer *head, const void *data,
                           size_t size);

#endif
