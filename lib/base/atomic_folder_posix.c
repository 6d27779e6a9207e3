/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* What atomic_folder.h does through POSIX calls. */
#include "base/atomic_folder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file_posix.h"

/* Removes each regular file of the folder, the marker last. 0, or an errno; ENOTEMPTY: something else is there. */
static int remove_files(int folder) {
    int copy = pgi_openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0), number = 0;
    DIR *list = copy < 0 ? NULL : fdopendir(copy);
    if (!list) {
        number = errno;
        if (copy >= 0) close(copy);
        return number;
    }
    for (struct dirent *entry; (entry = readdir(list)) != NULL;) {
        const char *name = entry->d_name;
        struct stat info;
        if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0 || strcmp(name, PGI_UNFINISHED) == 0) continue;
        if (fstatat(folder, name, &info, AT_SYMLINK_NOFOLLOW) != 0)
            number = errno;
        else if (!S_ISREG(info.st_mode))
            number = ENOTEMPTY;
        else if (unlinkat(folder, name, 0) != 0)
            number = errno;
    }
    closedir(list);
    if (!number && unlinkat(folder, PGI_UNFINISHED, 0) != 0 && errno != ENOENT) number = errno;
    return number;
}

/* The entries of a folder; an errno when it cannot be read. */
static int count_entries(int folder, size_t *n) {
    int copy = pgi_openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    DIR *list = copy < 0 ? NULL : fdopendir(copy);
    if (!list) {
        int number = errno;
        if (copy >= 0) close(copy);
        return number;
    }
    *n = 0;
    for (struct dirent *entry; (entry = readdir(list)) != NULL;)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) ++*n;
    closedir(list);
    return 0;
}

/* *info: of the empty folder that is there; a mode of 0: none is. */
static pg_status check_target(const char *path, struct stat *info) {
    info->st_mode = 0;
    if (lstat(path, info) != 0) return errno == ENOENT ? PG_OK : pgi_system_error(path, "look at it", errno);
    if (!S_ISDIR(info->st_mode))
        return pgi_error(PG_ERROR_ARGUMENT, "%s: found a file or a link, expected no such file or an empty folder",
                         path);
    size_t n = 0;
    int fd = pgi_openat(AT_FDCWD, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0),
        number = fd < 0 ? errno : count_entries(fd, &n);
    if (fd >= 0) close(fd);
    if (number) return pgi_system_error(path, "read", number);
    if (n > 0)
        return pgi_error(PG_ERROR_ARGUMENT, "%s: found files in it, expected no such folder or an empty one", path);
    return PG_OK;
}

static pg_status lock_partial(pgi_atomic_folder *folder) {
    const char *partial = folder->partial;
    struct stat ours, now;
    folder->fd = pgi_openat(AT_FDCWD, partial, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0);
    if (folder->fd < 0 && (errno == ENOTDIR || errno == ELOOP))
        return pgi_error(PG_ERROR_IO, "%s: found a file or a link, expected no such folder: move it away", partial);
    if (folder->fd < 0) return pgi_system_error(partial, "open the folder", errno);
    int number = flock(folder->fd, LOCK_EX | LOCK_NB) != 0 ? errno : 0;
    if (number && number != EWOULDBLOCK) return pgi_system_error(partial, "lock the folder", number);
    /* Another process may have finished between these lines: then the folder that is locked here is its result, under
     * its new name. */
    if (number || fstat(folder->fd, &ours) != 0 || lstat(partial, &now) != 0 || ours.st_dev != now.st_dev ||
        ours.st_ino != now.st_ino)
        return pgi_error(PG_ERROR_IO, "%s: found another process writing it, expected none", partial);
    return PG_OK;
}

/* All but the marker goes. */
static pg_status empty_partial(const pgi_atomic_folder *folder) {
    size_t n = 0;
    int number = count_entries(folder->fd, &n);
    if (!number && n > 0) {
        if (faccessat(folder->fd, PGI_UNFINISHED, F_OK, 0) != 0)
            return pgi_error(PG_ERROR_IO,
                             "%s: found files that no cut-off conversion left, expected no such folder: move it away",
                             folder->partial);
        number = remove_files(folder->fd);
    }
    int marker = number ? -1 : pgi_openat(folder->fd, PGI_UNFINISHED, O_CREAT | O_WRONLY | O_CLOEXEC, 0666);
    if (!number && marker < 0) number = errno;
    if (marker >= 0) close(marker);
    return number ? pgi_system_error(folder->partial, "empty what a cut-off conversion left", number) : PG_OK;
}

/* Makes folder->partial, or takes what was left behind. `target`: the empty folder that it is to replace. */
static pg_status take_partial(pgi_atomic_folder *folder, const struct stat *target) {
    const char *partial = folder->partial;
    struct stat ours;
    int made = mkdir(partial, 0777) == 0;
    if (!made && errno != EEXIST) return pgi_system_error(partial, "make the folder", errno);
    pg_status status = lock_partial(folder);
    if (status >= 0 && target->st_mode && fstat(folder->fd, &ours) == 0 && ours.st_dev != target->st_dev)
        status = pgi_error(PG_ERROR_ARGUMENT,
                           "%s: found a folder where a file system is mounted, which no other can replace; expected "
                           "the name of a new folder, such as one in it",
                           folder->path);
    if (status >= 0) status = empty_partial(folder);
    if (status >= 0 && target->st_mode) /* who kept others out of the empty folder meant that */
        fchmod(folder->fd, (target->st_mode & 07777) | S_IRWXU);
    if (status < 0 && made) rmdir(partial); /* when it is empty, and so ours */
    return status;
}

void pgi_atomic_folder_free(pgi_atomic_folder *folder) {
    if (folder->fd >= 0) close(folder->fd); /* the lock goes with it */
    pgi_free(folder->memory, folder->path);
    pgi_free(folder->memory, folder->partial);
    *folder = (pgi_atomic_folder){.fd = -1};
}

/* A child has the descriptors and the lock, and would write what the parent writes, or remove it. */
static pg_status check_owner(const pgi_atomic_folder *folder) {
    if (pgi_process_mark_is_here(folder->owner)) return PG_OK;
    return pgi_error(PG_ERROR_STATE,
                     "%s: found a process that a callback forked, expected the one that began the conversion: it is "
                     "the parent's, which goes on with it",
                     folder->path);
}

pg_status pgi_atomic_folder_take(pgi_atomic_folder *folder) {
    struct stat target;
    PGI_TRY(check_owner(folder));
    PGI_TRY(check_target(folder->path, &target));
    return take_partial(folder, &target);
}

/* Makes the entries of the folder that holds `path` last. */
static void sync_parent(const pgi_atomic_folder *folder) {
    int parent = pgi_openat(folder->fd, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    if (parent < 0) return;
    fsync(parent);
    close(parent);
}

static pg_status check_files(const pgi_atomic_folder *folder) {
    size_t n = 0;
    const int number = count_entries(folder->fd, &n);
    if (number) return pgi_system_error(folder->partial, "read", number);
    if (n > folder->n_files) return PG_OK; /* with the marker */
    return pgi_error(PG_ERROR_IO,
                     "%s: found %zu entries, expected the %zu files that were written and " PGI_UNFINISHED
                     ": another program removed some; convert again",
                     folder->partial, n, folder->n_files);
}

pg_status pgi_atomic_folder_commit(pgi_atomic_folder *folder) {
    PGI_TRY(check_owner(folder));
    PGI_TRY(check_files(folder));
    if (fsync(folder->fd) != 0 && errno != EINVAL) /* (network file systems have no such thing for folders) */
        return pgi_system_error(folder->partial, "write", errno);
    /* An empty folder is replaced; one that got files meanwhile is not. */
    if (rename(folder->partial, folder->path) != 0) return pgi_system_error(folder->path, "rename to it", errno);
    unlinkat(folder->fd, PGI_UNFINISHED, 0); /* if it stays, it is one useless empty file */
    fsync(folder->fd);
    sync_parent(folder);
    pgi_atomic_folder_free(folder);
    return PG_OK;
}

pg_status pgi_atomic_folder_abandon(pgi_atomic_folder *folder, pg_status status) {
    if (folder->fd >= 0 && pgi_process_mark_is_here(folder->owner)) {
        int number = remove_files(folder->fd);
        if (!number && rmdir(folder->partial) != 0) number = errno;
        if (number)
            status =
                pgi_error(status, "%s; %s could not be removed and does not open", pgi_error_text(), folder->partial);
    }
    if (folder->memory) pgi_atomic_folder_free(folder);
    return status;
}

/* Room on the disk for a file. Returns 0, or -1 and errno. */
static int reserve(int fd, off_t size) {
#if defined(__linux__)
    return fallocate(fd, 0, 0, size);
#elif defined(__APPLE__)
    fstore_t store = {.fst_flags = F_ALLOCATEALL, .fst_posmode = F_PEOFPOSMODE, .fst_length = size};
    return fcntl(fd, F_PREALLOCATE, &store) == -1 ? -1 : 0;
#else
    (void)fd, (void)size;
    return 0; /* a full disk is noticed by write() */
#endif
}

/* A new file of `folder`, with room for `size` bytes on the disk. Returns 0 or an errno. */
static int make_file(int folder, const char *name, uint64_t size, int *fd) {
    struct rlimit limit; /* a write beyond it would end the process with SIGXFSZ */
    if (size > INT64_MAX || (getrlimit(RLIMIT_FSIZE, &limit) == 0 && size > limit.rlim_cur)) return EFBIG;
    *fd = pgi_openat(folder, name, O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW | O_CLOEXEC, 0666);
    if (*fd < 0) return errno;
    if (size && reserve(*fd, (off_t)size) != 0 && (errno == ENOSPC || errno == EDQUOT || errno == EFBIG)) return errno;
    return 0;
}

pg_status pgi_atomic_file_open(pgi_atomic_folder *folder, const char *name, uint64_t size, pgi_atomic_file *out) {
    *out = (pgi_atomic_file){.memory = folder->memory, .folder = folder, .fd = -1};
    out->path = pgi_path_join(folder->memory, folder->partial, name);
    if (!out->path) return PG_ERROR_MEMORY;
    pg_status status = check_owner(folder);
    if (status >= 0) {
        const int number = make_file(folder->fd, name, size, &out->fd);
        if (number) status = pgi_system_error(out->path, "write", number);
    }
    if (status < 0) return pgi_atomic_file_close(out, status);
    folder->n_files++;
    return PG_OK;
}

pg_status pgi_atomic_file_write(const pgi_atomic_file *file, uint64_t at, const void *data, size_t size) {
    const uint8_t *from = data;
    if (file->folder) PGI_TRY(check_owner(file->folder));
    while (size > 0) {
        ssize_t n = pwrite(file->fd, from, size, (off_t)at);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return pgi_system_error(file->path, "write", n < 0 ? errno : EIO);
        from += n;
        at += (uint64_t)n;
        size -= (size_t)n;
    }
    return PG_OK;
}

static pg_status sync_and_close(const pgi_atomic_file *file, pg_status status) {
    if (file->fd < 0) return status;
    if (status >= 0 && fsync(file->fd) != 0) status = pgi_system_error(file->path, "write", errno);
    if (close(file->fd) != 0 && status >= 0) status = pgi_system_error(file->path, "write", errno);
    return status;
}

pg_status pgi_atomic_file_close(pgi_atomic_file *file, pg_status status) {
    status = sync_and_close(file, status);
    if (file->memory) pgi_free(file->memory, file->path);
    *file = (pgi_atomic_file){.fd = -1};
    return status;
}

/* Whatever is no regular file stays: a device or a pipe would become one, and a folder cannot. */
static pg_status check_replaced(const char *path) {
    struct stat info;
    if (stat(path, &info) != 0) {
        if (errno == ENOENT && lstat(path, &info) != 0 && errno == ENOENT) return PG_OK;
        return pgi_system_error(path, "write", errno);
    }
    if (S_ISREG(info.st_mode)) return PG_OK;
    return pgi_error(PG_ERROR_ARGUMENT, "%s: found a %s, expected the name of a file", path,
                     S_ISDIR(info.st_mode) ? "folder" : "device, pipe or socket");
}

/* PATH.partial-NUMBER, a new one: two calls at once do not meet, and the later one stays. */
static pg_status make_partial(const char *path, uint64_t size, pgi_atomic_file *out) {
    const size_t n = strlen(path) + sizeof ".partial-0123456789";
    const uint32_t begin = (uint32_t)(int64_t)(pgi_now() * 1e6) ^ (uint32_t)getpid() << 12;
    int number = EEXIST;
    out->path = pgi_alloc(out->memory, n, 1);
    if (!out->path) return PG_ERROR_MEMORY;
    for (uint32_t i = 0; number == EEXIST && i < 1000; i++) {
        snprintf(out->path, n, "%s.partial-%u", path, begin + i);
        number = make_file(AT_FDCWD, out->path, size, &out->fd);
    }
    if (!number) return PG_OK;
    if (out->fd >= 0) unlink(out->path);
    return pgi_system_error(path, "write", number);
}

static void sync_folder_of(char *path) {
    char *slash = strrchr(path, '/');
    if (slash) slash[slash == path ? 1 : 0] = 0;
    const int folder = pgi_openat(AT_FDCWD, slash ? path : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    if (folder < 0) return;
    fsync(folder);
    close(folder);
}

pg_status pgi_atomic_file_open_beside(const char *path, uint64_t size, pgi_atomic_file *out) {
    PGI_TRY(check_replaced(path));
    const pg_status status = make_partial(path, size, out);
    if (status < 0 && out->fd >= 0) close(out->fd);
    return status;
}

pg_status pgi_atomic_file_take_place(const pgi_atomic_file *file, const char *path, pg_status status) {
    status = sync_and_close(file, status);
    if (status >= 0 && rename(file->path, path) != 0) status = pgi_system_error(path, "rename to it", errno);
    if (status < 0)
        unlink(file->path);
    else
        sync_folder_of(file->path);
    return status;
}

pg_status pgi_folder_make(const pgi_memory *memory, const char *path, int *made) {
    size_t size = strlen(path);
    *made = 0;
    while (size > 1 && path[size - 1] == '/') size--;
    char *copy = pgi_copy_string(memory, path, size);
    if (!copy) return PG_ERROR_MEMORY;
    pg_status status = PG_OK;
    if (mkdir(path, 0777) == 0) {
        *made = 1;
        sync_folder_of(copy);
    } else if (errno != EEXIST) {
        status = pgi_system_error(path, "make the folder", errno);
    } else if (!pgi_folder_exists(path)) {
        status =
            pgi_error(PG_ERROR_ARGUMENT, "%s: found a file or a broken link, expected a folder or a new name", path);
    }
    pgi_free(memory, copy);
    return status;
}

void pgi_folder_unmake(const char *path) { rmdir(path); }
