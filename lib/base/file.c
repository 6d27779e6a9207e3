/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Files and folders: what is the same on every system. The rest is in file_posix.c and file_windows.c. */
#include "base/file.h"

#include <string.h>

/* A web address: letters, then "://". */
int pgi_path_is_url(const char *path) {
    size_t n = 0;
    while ((path[n] >= 'a' && path[n] <= 'z') || (path[n] >= 'A' && path[n] <= 'Z') ||
           (n > 0 && path[n] >= '0' && path[n] <= '9'))
        n++;
    return n > 1 && strncmp(path + n, "://", 3) == 0;
}

pg_status pgi_file_read(const char *path, size_t max_size, pgi_buffer *out) {
    pgi_file file;
    PGI_TRY(pgi_file_open(path, &file));
    pg_status status = PG_OK;
    if (file.size > max_size) {
        pgi_file_close(&file);
        return pgi_error(PG_ERROR_LIMIT, "%s: %zu bytes, expected at most %zu", path, file.size, max_size);
    }
    PGI_GOTO(pgi_buffer_reserve(out, file.size), done);
    PGI_GOTO(pgi_file_read_at(&file, 0, file.size, out->data + out->size), done);
    out->size += file.size;
    out->data[out->size] = 0;
done:
    pgi_file_close(&file);
    return status;
}

int pgi_folder_exists(const char *path) {
    int number;
    return pgi_folder_look(path, &number);
}

char *pgi_path_join(const pgi_memory *memory, const char *folder, const char *name) {
    size_t folder_size = strlen(folder), name_size = strlen(name);
    size_t slash = folder_size > 0 && pgi_path_is_slash(folder[folder_size - 1]) ? 0 : 1;
    char *path = pgi_alloc(memory, folder_size + slash + name_size + 1, 1);
    if (!path) return NULL;
    memcpy(path, folder, folder_size);
    if (slash) path[folder_size] = '/';
    memcpy(path + folder_size + slash, name, name_size + 1);
    return path;
}
