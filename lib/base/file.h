/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Reading files: whole into memory, or mapped. */
#ifndef PGI_BASE_FILE_H
#define PGI_BASE_FILE_H

#include "base/memory.h"

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

/* 1 for "https://..." and the like: no path, though it is given as one. */
int pgi_path_is_url(const char *path);

/* A file mapped read-only: processes that map the same file share its pages. Where the file system cannot map it shared
 * (FUSE, 9p, some of the network), it is mapped privately, and where it cannot map at all, read into memory. */
typedef struct pgi_mapping {
    const uint8_t *data; /* NULL when size is 0 */
    size_t size;
    const pgi_memory *memory; /* what `data` was allocated from when the file was read; NULL: it is mapped */
} pgi_mapping;

/* `memory` lives as long as the mapping. */
pg_status pgi_mapping_init(const pgi_memory *memory, const char *path, pgi_mapping *out);
/* The pages that lie within these bytes need not stay in memory; they are read again when touched. Only for bytes that
 * are mapped: of those that were read the contents would be lost. */
void pgi_mapping_forget(const void *data, size_t size);
void pgi_mapping_free(pgi_mapping *mapping);

/* "folder/name" as a new string, or NULL (PG_ERROR_MEMORY). */
char *pgi_path_join(const pgi_memory *memory, const char *folder, const char *name);

#endif
