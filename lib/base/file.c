/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Files and folders through POSIX calls. */
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

pg_status pgi_system_error(const char *path, const char *verb, int number) {
    char text[128] = "";
    /* The XSI and the GNU strerror_r differ; _GNU_SOURCE gives the one that returns the text. */
    const char *reason = strerror_r(number, text, sizeof text);
    pg_status status = number == ENOENT || number == ENOTDIR ? PG_ERROR_NOT_FOUND
                       : number == ENOMEM                    ? PG_ERROR_MEMORY
                                                             : PG_ERROR_IO;
    return pgi_error(status, "%s: cannot %s: %s", path, verb, reason);
}

/* A web address: letters, then "://". */
int pgi_path_is_url(const char *path) {
    size_t n = 0;
    while ((path[n] >= 'a' && path[n] <= 'z') || (path[n] >= 'A' && path[n] <= 'Z') ||
           (n > 0 && path[n] >= '0' && path[n] <= '9'))
        n++;
    return n > 1 && strncmp(path + n, "://", 3) == 0;
}

/* Why a file is not there: a link that leads nowhere, as a pruned hub cache has them, or an address of the web. */
static pg_status not_there(const char *path) {
    char target[1024];
    ssize_t n = readlink(path, target, sizeof target);
    if (n > 0)
        return pgi_error(PG_ERROR_NOT_FOUND,
                         "%s: found a link to %.*s, which is not there; download the file again (a part of the cache "
                         "was removed)",
                         path, (int)n, target);
    if (pgi_path_is_url(path))
        return pgi_error(PG_ERROR_NOT_FOUND, "%s: found a URL, expected a file; download it first", path);
    return pgi_system_error(path, "open", ENOENT);
}

/* Opens a regular file; a folder, pipe or device is refused (opening a pipe could block for ever). */
static pg_status open_regular(const char *path, int *out_fd, size_t *out_size) {
    struct stat info;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return errno == ENOENT ? not_there(path) : pgi_system_error(path, "open", errno);
    if (fstat(fd, &info) != 0) {
        int number = errno;
        close(fd);
        return pgi_system_error(path, "stat", number);
    }
    if (!S_ISREG(info.st_mode)) {
        close(fd);
        return pgi_error(PG_ERROR_IO, "%s: found a %s, expected a regular file", path,
                         S_ISDIR(info.st_mode) ? "folder" : "special file");
    }
    *out_fd = fd;
    *out_size = (size_t)info.st_size;
    return PG_OK;
}

static pg_status read_all(const char *path, int fd, uint8_t *data, size_t size) {
    for (size_t at = 0; at < size;) {
        ssize_t n = read(fd, data + at, size - at);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return pgi_system_error(path, "read", errno);
        if (n == 0) /* it shrank since fstat */
            return pgi_error(PG_ERROR_IO, "%s: ended after %zu of %zu bytes", path, at, size);
        at += (size_t)n;
    }
    return PG_OK;
}

pg_status pgi_file_read(const char *path, size_t max_size, pgi_buffer *out) {
    int fd = -1;
    size_t size = 0;
    PGI_TRY(open_regular(path, &fd, &size));
    pg_status status = PG_OK;
    if (size > max_size) {
        close(fd);
        return pgi_error(PG_ERROR_LIMIT, "%s: %zu bytes, expected at most %zu", path, size, max_size);
    }
    PGI_GOTO(pgi_buffer_reserve(out, size), done);
    PGI_GOTO(read_all(path, fd, out->data + out->size, size), done);
    out->size += size;
    out->data[out->size] = 0;
done:
    close(fd);
    return status;
}

int pgi_file_exists(const char *path) {
    struct stat info;
    if (stat(path, &info) == 0) return S_ISREG(info.st_mode);
    /* There, but it leads nowhere or may not be looked at: not the same as absent, so reading it says why. */
    if (errno == ENOENT || errno == ELOOP) return lstat(path, &info) == 0;
    return errno == EACCES || errno == EIO;
}

int pgi_folder_exists(const char *path) {
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

/* The file system cannot map it. */
static pg_status read_instead(const pgi_memory *memory, const char *path, int fd, size_t size, pgi_mapping *out) {
    uint8_t *data = pgi_alloc(memory, size, 1);
    if (!data) return PG_ERROR_MEMORY;
    pg_status status = read_all(path, fd, data, size);
    if (status < 0) {
        pgi_free(memory, data);
        return status;
    }
    *out = (pgi_mapping){data, size, memory};
    return PG_OK;
}

pg_status pgi_mapping_init(const pgi_memory *memory, const char *path, pgi_mapping *out) {
    int fd = -1;
    size_t size = 0;
    pg_status status = PG_OK;
    *out = (pgi_mapping){0};
    PGI_TRY(open_regular(path, &fd, &size));
    if (size > 0) {
        void *data = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
        if (data == MAP_FAILED) data = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (data != MAP_FAILED)
            *out = (pgi_mapping){.data = data, .size = size};
        else if (errno == ENOMEM) /* no address space: no memory for it either */
            status = pgi_system_error(path, "map", ENOMEM);
        else
            status = read_instead(memory, path, fd, size, out);
    }
    close(fd); /* the mapping stays */
    return status;
}

void pgi_mapping_forget(const void *data, size_t size) {
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), begin = ((uintptr_t)data + page - 1) / page * page;
    uintptr_t end = ((uintptr_t)data + size) / page * page;
    if (begin < end) madvise((void *)begin, end - begin, MADV_DONTNEED); /* a hint: it may fail */
}

void pgi_mapping_free(pgi_mapping *mapping) {
    if (mapping->memory)
        pgi_free(mapping->memory, (void *)(uintptr_t)mapping->data);
    else if (mapping->data)
        munmap((void *)(uintptr_t)mapping->data, mapping->size);
    *mapping = (pgi_mapping){0};
}

char *pgi_path_join(const pgi_memory *memory, const char *folder, const char *name) {
    size_t folder_size = strlen(folder), name_size = strlen(name);
    size_t slash = folder_size > 0 && folder[folder_size - 1] == '/' ? 0 : 1;
    char *path = pgi_alloc(memory, folder_size + slash + name_size + 1, 1);
    if (!path) return NULL;
    memcpy(path, folder, folder_size);
    if (slash) path[folder_size] = '/';
    memcpy(path + folder_size + slash, name, name_size + 1);
    return path;
}
