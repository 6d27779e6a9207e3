/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Files and folders through POSIX calls. */
#include "base/file_posix.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

_Static_assert(PGI_PATH_SIZE >= PATH_MAX, "realpath() writes so much");

#if defined(__APPLE__)
#define st_mtim st_mtimespec /* the name that POSIX did not take */
#endif

/* strerror_r() is GNU's, which returns the text, or POSIX's (musl), which fills the buffer and returns a number. */
static const char *text_of_gnu(const char *returned, const char *filled) {
    (void)filled;
    return returned;
}

static const char *text_of_posix(int returned, const char *filled) { return returned == 0 ? filled : "unknown error"; }

#define STRERROR(number, text, size) \
    _Generic(strerror_r(number, text, size), char *: text_of_gnu, int: text_of_posix)(strerror_r(number, text, size), text)

pg_status pgi_system_error(const char *path, const char *verb, int number) {
    char text[128] = "";
    const char *reason = STRERROR(number, text, sizeof text);
    pg_status status = number == ENOENT || number == ENOTDIR ? PG_ERROR_NOT_FOUND
                       : number == ENOMEM                    ? PG_ERROR_MEMORY
                                                             : PG_ERROR_IO;
    return pgi_error(status, "%s: cannot %s: %s", path, verb, reason);
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

/* Why something else than a regular file is not read. */
static pg_status no_file(const char *path, mode_t mode) {
    if (S_ISDIR(mode)) return pgi_error(PG_ERROR_IO, "%s: found a folder, expected a file", path);
    const char *kind = S_ISFIFO(mode)   ? "pipe"
                       : S_ISSOCK(mode) ? "socket"
                       : S_ISCHR(mode)  ? "character device"
                       : S_ISBLK(mode)  ? "block device"
                                        : "special file";
    return pgi_error(PG_ERROR_IO, "%s: found a %s, expected a regular file%s", path, kind,
                     S_ISFIFO(mode) ? "; write what it gives to a file first" : "");
}

static pg_status not_opened(const char *path, int number) {
    struct stat info;
    if (number == ENOENT) return not_there(path);
    if (number == ENXIO && stat(path, &info) == 0 && !S_ISREG(info.st_mode)) return no_file(path, info.st_mode);
    return pgi_system_error(path, "open", number);
}

int pgi_openat(int folder, const char *path, int flags, unsigned mode) {
    int fd;
    do fd = openat(folder, path, flags, mode);
    while (fd < 0 && errno == EINTR);
    return fd;
}

/* A folder, pipe or device is refused (opening a pipe could block for ever). */
pg_status pgi_file_open(const char *path, pgi_file *out) {
    struct stat info;
    *out = (pgi_file){.path = path, .fd = pgi_openat(AT_FDCWD, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0)};
    if (out->fd < 0) return not_opened(path, errno);
    pg_status status = fstat(out->fd, &info) == 0 ? PG_OK : pgi_system_error(path, "stat", errno);
    if (status >= 0 && !S_ISREG(info.st_mode)) status = no_file(path, info.st_mode);
    if (status < 0) {
        close(out->fd); /* whose id is not known yet */
        out->fd = -1;
        return status;
    }
    out->size = (size_t)info.st_size;
    out->id = (pgi_file_id){.device = (uint64_t)info.st_dev,
                            .inode = (uint64_t)info.st_ino,
                            .size = (uint64_t)info.st_size,
                            .seconds = info.st_mtim.tv_sec,
                            .nanoseconds = info.st_mtim.tv_nsec};
    return PG_OK;
}

/* Whether the descriptor is that of the file still: a host that closes all descriptors, as daemons do when they start,
 * closes ours too, and the next file that it opens gets the number. *number: an errno, or 0. */
static int is_ours(const pgi_file *file, struct stat *info, int *number) {
    *number = fstat(file->fd, info) == 0 ? 0 : errno;
    return *number == 0 && (uint64_t)info->st_dev == file->id.device && (uint64_t)info->st_ino == file->id.inode;
}

pg_status pgi_file_unchanged(const pgi_file *file) {
    struct stat info;
    int number;
    if (!is_ours(file, &info, &number)) {
        if (number && number != EBADF) return pgi_system_error(file->path, "stat", number);
        return pgi_error(PG_ERROR_IO,
                         "%s: found descriptor %d, which it was opened with, %s: the host closed it (a daemon that "
                         "starts, closefrom()), expected it to stay the library's",
                         file->path, file->fd, number ? "closed" : "in use for another file");
    }
    const unsigned long long found = (unsigned long long)info.st_size, expected = (unsigned long long)file->size;
    if (found != expected)
        return pgi_error(PG_ERROR_IO, "%s: found %llu bytes, expected the %llu that it had when it was opened",
                         file->path, found, expected);
    if (info.st_mtim.tv_sec == file->id.seconds && info.st_mtim.tv_nsec == file->id.nanoseconds) return PG_OK;
    return pgi_error(PG_ERROR_IO, "%s: found it written to since it was opened, expected it to stay as it was",
                     file->path);
}

void pgi_file_close(pgi_file *file) {
    struct stat info;
    int number;
    if (file->fd >= 0 && is_ours(file, &info, &number)) close(file->fd);
    file->fd = -1;
}

pg_status pgi_file_read_at(const pgi_file *file, uint64_t at, size_t size, void *out) {
    for (size_t done = 0; done < size;) {
        ssize_t n = pread(file->fd, (uint8_t *)out + done, size - done, (off_t)(at + done));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return pgi_system_error(file->path, "read", errno);
        if (n == 0)
            return pgi_error(PG_ERROR_IO, "%s: ended after %llu of %zu bytes: it was cut while it was read", file->path,
                             (unsigned long long)(at + done), file->size);
        done += (size_t)n;
    }
    return PG_OK;
}

size_t pgi_file_head(const char *path, void *out, size_t size) {
    const int fd = pgi_openat(AT_FDCWD, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK, 0);
    if (fd < 0) return 0;
    const ssize_t n = read(fd, out, size);
    close(fd);
    return n > 0 ? (size_t)n : 0;
}

void pgi_file_ask(const pgi_file *file, uint64_t at, size_t size) {
#ifdef POSIX_FADV_WILLNEED
    (void)posix_fadvise(file->fd, (off_t)at, (off_t)size, POSIX_FADV_WILLNEED);
#else
    (void)file, (void)at, (void)size;
#endif
}

int pgi_file_exists(const char *path) {
    struct stat info;
    if (stat(path, &info) == 0) return S_ISREG(info.st_mode);
    /* There, but it leads nowhere or may not be looked at: not the same as absent, so reading it says why. */
    if (errno == ENOENT || errno == ELOOP) return lstat(path, &info) == 0;
    return errno == EACCES || errno == EPERM || errno == EIO;
}

int pgi_folder_look(const char *path, int *number) {
    struct stat info;
    *number = 0;
    if (stat(path, &info) == 0) return S_ISDIR(info.st_mode);
    if (errno != ENOENT && errno != ENOTDIR && errno != ENAMETOOLONG) *number = errno;
    return 0;
}

int pgi_folder_list(const char *path, void (*entry)(void *user, const char *name), void *user) {
    DIR *entries = opendir(path);
    if (!entries) return errno;
    for (const struct dirent *found; (found = readdir(entries));) entry(user, found->d_name);
    closedir(entries);
    return 0;
}

int pgi_path_real(const char *path, char real[PGI_PATH_SIZE]) { return realpath(path, real) ? 0 : errno; }

pg_status pgi_file_map(const pgi_file *file, pgi_mapping *out) {
    *out = (pgi_mapping){0};
    if (file->size == 0) return PG_OK;
    void *data = mmap(NULL, file->size, PROT_READ, MAP_SHARED, file->fd, 0);
    if (data == MAP_FAILED) data = mmap(NULL, file->size, PROT_READ, MAP_PRIVATE, file->fd, 0);
    if (data != MAP_FAILED)
        *out = (pgi_mapping){data, file->size};
    else if (errno == ENOMEM) /* no address space: no memory for it either */
        return pgi_system_error(file->path, "map", ENOMEM);
    return PG_OK;
}

#ifdef MADV_HUGEPAGE
/* The number at *text, which goes on behind it and the byte that ends it. */
static int take_number(const char **text) {
    int n = 0;
    for (; **text >= '0' && **text <= '9' && n < 1000; ++*text) n = 10 * n + (**text - '0');
    if (**text) ++*text;
    return n;
}
#endif

int pgi_mapping_huge_pages(const pgi_mapping *mapping) {
#ifdef MADV_HUGEPAGE
    /* Older kernels take the advice too and go on reading ahead by 128 KiB. */
    enum { FIRST_MAJOR = 5, FIRST_MINOR = 18 };
    struct utsname system;
    if (!mapping->data || madvise((void *)(uintptr_t)mapping->data, mapping->size, MADV_HUGEPAGE) != 0) return 0;
    if (uname(&system) != 0) return 0;
    const char *release = system.release;
    const int major = take_number(&release), minor = take_number(&release);
    return major > FIRST_MAJOR || (major == FIRST_MAJOR && minor >= FIRST_MINOR);
#else
    (void)mapping;
    return 0;
#endif
}

void pgi_mapping_ask(const void *data, size_t size) { (void)madvise((void *)(uintptr_t)data, size, MADV_WILLNEED); }

void pgi_mapping_fetch(const void *data, size_t size) {
#ifdef MADV_POPULATE_READ
    (void)madvise((void *)(uintptr_t)data, size,
                  MADV_POPULATE_READ); /* older kernels: not known, and no more is lost */
#else
    (void)data, (void)size;
#endif
}

void pgi_mapping_free(pgi_mapping *mapping) {
    if (mapping->data) munmap((void *)(uintptr_t)mapping->data, mapping->size);
    *mapping = (pgi_mapping){0};
}
