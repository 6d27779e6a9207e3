/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading files: whole into memory, in parts, or mapped. Paths are UTF-8 everywhere; on Windows both slashes divide
 * their parts.
 */
#ifndef PGI_BASE_FILE_H
#define PGI_BASE_FILE_H

#include "base/memory.h"

enum { PGI_PATH_SIZE = 4096 }; /* of a path that the system writes, with its NUL */

/* An open file or folder: a descriptor, or a HANDLE of Windows. */
#ifdef _WIN32
typedef intptr_t pgi_fd;
#else
typedef int pgi_fd;
#endif

/* The bytes of a regular file. `max_size` guards against absurd ones (PG_ERROR_LIMIT).
 * PG_ERROR_NOT_FOUND when there is no such file, PG_ERROR_IO when it cannot be read. */
pg_status pgi_file_read(const char *path, size_t max_size, pgi_buffer *out);

/* "path: cannot verb: reason" of an errno: PG_ERROR_NOT_FOUND, _MEMORY or _IO. */
pg_status pgi_system_error(const char *path, const char *verb, int number);

/* 1 when `path` is a regular file (links followed), or something that cannot be read because its link leads nowhere or
 * it may not be looked at: reading it is an error then, where taking it for absent would change what is computed. Else
 * 0. */
int pgi_file_exists(const char *path);
/* 1 when `path` is a folder (links followed), else 0. */
int pgi_folder_exists(const char *path);
/* The same. *number: an errno where it could not be looked at, which is not absence; else 0. */
int pgi_folder_look(const char *path, int *number);
/* Calls entry(user, name) for all that is in the folder, in no order ("." and ".." may be among it). 0 or an errno. */
int pgi_folder_list(const char *path, void (*entry)(void *user, const char *name), void *user);
/* The absolute path without links, divided by '/' alone. 0 or an errno. */
int pgi_path_real(const char *path, char real[PGI_PATH_SIZE]);

/* Whether the character divides the parts of a path. */
static inline int pgi_path_is_slash(char c) {
#ifdef _WIN32
    if (c == '\\') return 1;
#endif
    return c == '/';
}

/* 1 for "https://..." and the like: no path, though it is given as one. */
int pgi_path_is_url(const char *path);

/* What tells a file from others and from itself after a change. */
typedef struct pgi_file_id {
    uint64_t device, inode, size;
    int64_t seconds, nanoseconds; /* of the last change */
} pgi_file_id;

/* A regular file, open for reading. */
typedef struct pgi_file {
    const char *path; /* the caller's */
    pgi_fd fd;        /* -1: closed */
    size_t size;
    pgi_file_id id;
} pgi_file;

/* PG_ERROR_NOT_FOUND or _IO. On error *out is closed. */
pg_status pgi_file_open(const char *path, pgi_file *out);
/* Leaves a descriptor alone that the host closed, and gave to another file. */
void pgi_file_close(pgi_file *file);
/* PG_ERROR_IO when the file has another size or time of change than when it was opened, or the host closed it. */
pg_status pgi_file_unchanged(const pgi_file *file);
/* `size` bytes from offset `at` on. Whatever happens to the file meanwhile is a status, where touching a mapping would
 * raise SIGBUS: PG_ERROR_IO. Any number of threads may read. */
pg_status pgi_file_read_at(const pgi_file *file, uint64_t at, size_t size, void *out);
/* The first bytes of a file, `size` at the most, and how many these are; 0 where it cannot be read. The message of the
 * thread stays. */
size_t pgi_file_head(const char *path, void *out, size_t size);
/* Asks the system to begin reading `size` bytes from the disk, where it can; returns at once. */
void pgi_file_ask(const pgi_file *file, uint64_t at, size_t size);

/* A file mapped read-only: processes that map the same file share its pages. Where the file system cannot map it shared
 * (FUSE, 9p, some of the network), it is mapped privately, and where it cannot map at all, `data` is NULL. A page that
 * cannot be read when it is touched ends the process: SIGBUS; on Windows the exception EXCEPTION_IN_PAGE_ERROR. */
typedef struct pgi_mapping {
    const uint8_t *data;
    size_t size;
} pgi_mapping;

/* The file may be closed then. PG_ERROR_MEMORY: there is no address space. */
pg_status pgi_file_map(const pgi_file *file, pgi_mapping *out);
/* Asks for huge pages: those that come from the disk from now on are read and mapped 2 MiB at a time, where kernel and
 * file system can. Returns whether the system then reads ahead of page faults by as much. */
int pgi_mapping_huge_pages(const pgi_mapping *mapping);
/* Asks the system to begin reading these bytes of a mapping, whole pages, from the disk, where it can. */
void pgi_mapping_ask(const void *data, size_t size);
/* Reads and maps them now, where the system can. */
void pgi_mapping_fetch(const void *data, size_t size);
void pgi_mapping_free(pgi_mapping *mapping);

/* "folder/name" as a new string, or NULL (PG_ERROR_MEMORY). */
char *pgi_path_join(const pgi_memory *memory, const char *folder, const char *name);

#endif
