/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * A folder that appears whole or not at all: its files are written to PATH.partial beside it, which is renamed to PATH
 * at the end. The empty file PGI_UNFINISHED marks it until then: what a killed process left behind is known by it and
 * removed by the next call for the same PATH. Of two calls at once the second is refused. A child that a callback
 * forked has the folder open, too, but it stays the parent's: the child's calls are refused. And the same for a file.
 */
#ifndef PGI_BASE_ATOMIC_FOLDER_H
#define PGI_BASE_ATOMIC_FOLDER_H

#include "base/file.h"
#include "base/process_mark.h"

#define PGI_UNFINISHED "unfinished"

typedef struct pgi_atomic_folder {
    const pgi_memory *memory;
    char *path, *partial;
    const pgi_process_mark *owner; /* the caller's */
    pgi_fd fd;                     /* of `partial`, locked; -1: none */
    size_t n_files;                /* that were made in it */
} pgi_atomic_folder;

/* `path`: new, or an empty folder (else PG_ERROR_ARGUMENT). `owner`: set in the process that is to write it, by the
 * call before its first callback, and kept until the end; PG_ERROR_STATE in a child of it. Then commit or abandon it;
 * on error *out needs neither. */
pg_status pgi_atomic_folder_begin(const pgi_memory *memory, const char *path, const pgi_process_mark *owner,
                                  pgi_atomic_folder *out);
/* Renames; after an error it can still be abandoned. PG_ERROR_IO: files are missing; PG_ERROR_STATE: in a child. */
pg_status pgi_atomic_folder_commit(pgi_atomic_folder *folder);
/* Removes what was written; in a child nothing, which is the parent's. Returns `status`; what could not be removed is
 * added to its message. */
pg_status pgi_atomic_folder_abandon(pgi_atomic_folder *folder, pg_status status);

/* A file of the folder, open for writing. */
typedef struct pgi_atomic_file {
    char *path; /* owned */
    const pgi_memory *memory;
    const pgi_atomic_folder *folder; /* NULL: a single file */
    pgi_fd fd;
} pgi_atomic_file;

/* `size`: reserved on the disk at once, where the file system can do that, so that a full disk is noticed early.
 * Opening and writing: PG_ERROR_STATE in a child. */
pg_status pgi_atomic_file_open(pgi_atomic_folder *folder, const char *name, uint64_t size, pgi_atomic_file *out);
pg_status pgi_atomic_file_write(const pgi_atomic_file *file, uint64_t at, const void *data, size_t size);
/* status < 0: only closes. Else the file is on the disk when this returns PG_OK. */
pg_status pgi_atomic_file_close(pgi_atomic_file *file, pg_status status);

/* Writes a single file, `head` and then `size` bytes, and puts it in the place of the regular file `path`, if one is
 * there: readers find the old one or the new one, whole. What is written first is PATH.partial-NUMBER, of which a
 * killed process may leave one. Errors: PG_ERROR_IO, _NOT_FOUND (the folder), _ARGUMENT (`path` is a folder, a device).
 */
pg_status pgi_replace_file(const pgi_memory *memory, const char *path, const pgi_buffer *head, const void *data,
                           size_t size);

/* The same for parts that lie anywhere in memory, one behind the other in the file. */
typedef struct pgi_file_part {
    const void *data;
    size_t size;
} pgi_file_part;
pg_status pgi_replace_file_of_parts(const pgi_memory *memory, const char *path, const pgi_file_part *parts, size_t n);

/* Makes a folder where there is none; *made: there was none. PG_ERROR_ARGUMENT: `path` is a file; _NOT_FOUND: the
 * folder that it is to be in; _IO, _MEMORY. */
pg_status pgi_folder_make(const pgi_memory *memory, const char *path, int *made);
/* Removes the folder if it is empty. */
void pgi_folder_unmake(const char *path);

/* ---- between atomic_folder.c and the file for the system ---- */

/* Of a folder with its two paths: checks that `path` may be made, and makes, or empties, and locks `partial`. */
pg_status pgi_atomic_folder_take(pgi_atomic_folder *folder);
/* Unlocks it, and frees the paths. */
void pgi_atomic_folder_free(pgi_atomic_folder *folder);

/* Makes PATH.partial-NUMBER for what is to take the place of `path`, if that may be replaced. out has its memory, and
 * owns its path afterwards, on error too. */
pg_status pgi_atomic_file_open_beside(const char *path, uint64_t size, pgi_atomic_file *out);
/* Closes it and renames it to `path`; where status < 0, or that fails, it removes it. */
pg_status pgi_atomic_file_take_place(const pgi_atomic_file *file, const char *path, pg_status status);

#endif
