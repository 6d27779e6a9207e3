/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Writing a folder, or a file, beside its place, and renaming it when it is whole: what is the same on every system. */
#include "base/atomic_folder.h"

#include <string.h>

#include "base/file.h"

pg_status pgi_atomic_folder_begin(const pgi_memory *memory, const char *path, const pgi_process_mark *owner,
                                  pgi_atomic_folder *out) {
    *out = (pgi_atomic_folder){.memory = memory, .owner = owner, .fd = -1};
    size_t size = strlen(path);
    while (size > 1 && pgi_path_is_slash(path[size - 1])) size--;
    const char *last = path + size;
    while (last > path && !pgi_path_is_slash(last[-1])) last--;
    size_t n = (size_t)(path + size - last);
    if (n == 0 || (n == 1 && last[0] == '.') || (n == 2 && last[0] == '.' && last[1] == '.'))
        return pgi_error(PG_ERROR_ARGUMENT, "\"%s\": expected the name of a new folder", path);
    pg_status status = PG_ERROR_MEMORY;
    out->path = pgi_copy_string(memory, path, size);
    out->partial = pgi_alloc(memory, size + sizeof ".partial", 1);
    if (out->path && out->partial) {
        memcpy(out->partial, path, size);
        memcpy(out->partial + size, ".partial", sizeof ".partial");
        status = pgi_atomic_folder_take(out);
    }
    if (status < 0) pgi_atomic_folder_free(out);
    return status;
}

static pg_status write_parts(const pgi_atomic_file *file, const pgi_file_part *parts, size_t n) {
    uint64_t at = 0;
    for (size_t i = 0; i < n; i++) {
        PGI_TRY(pgi_atomic_file_write(file, at, parts[i].data, parts[i].size));
        at += parts[i].size;
    }
    return PG_OK;
}

/* The allocator is called before the file is made and after it is renamed, not between: were it to fork there, the
 * child would go on with the parent's file. */
pg_status pgi_replace_file_of_parts(const pgi_memory *memory, const char *path, const pgi_file_part *parts, size_t n) {
    pgi_atomic_file file = {.memory = memory, .fd = -1};
    uint64_t size = 0;
    for (size_t i = 0; i < n; i++) size += parts[i].size;
    pg_status status = pgi_atomic_file_open_beside(path, size, &file);
    if (status >= 0) status = pgi_atomic_file_take_place(&file, path, write_parts(&file, parts, n));
    pgi_free(memory, file.path);
    return status;
}

pg_status pgi_replace_file(const pgi_memory *memory, const char *path, const pgi_buffer *head, const void *data,
                           size_t size) {
    const pgi_file_part parts[] = {{head->data, head->size}, {data, size}};
    return pgi_replace_file_of_parts(memory, path, parts, 2);
}
