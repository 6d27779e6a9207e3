/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * What atomic_folder.h does on Windows. An open handle of the folder keeps others from opening it to the same end, and
 * the folder is renamed through it: from the lock to the new name there is no moment without it.
 */
#include "base/atomic_folder.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <windows.h>

#include "base/clock.h"
#include "base/wide_windows.h"

/* What Windows refuses while another program looks is tried again. */
enum { TRIES = 100, PAUSE = 10 /* ms */ };

static HANDLE handle_of(pgi_fd fd) { return (HANDLE)fd; }

/* 0 or an errno. */
static int remove_file(const char *path) {
    wchar_t wide[PGI_WIDE_PATH];
    const int number = pgi_wide_path(path, wide);
    return number ? number : DeleteFileW(wide) ? 0 : pgi_windows_error();
}

static int remove_folder(const char *path) {
    wchar_t wide[PGI_WIDE_PATH];
    const int number = pgi_wide_path(path, wide);
    return number ? number : RemoveDirectoryW(wide) ? 0 : pgi_windows_error();
}

static int make_folder(const char *path) {
    wchar_t wide[PGI_WIDE_PATH];
    const int number = pgi_wide_path(path, wide);
    return number ? number : CreateDirectoryW(wide, NULL) ? 0 : pgi_windows_error();
}

/* Of the name itself: links are not followed. 0: there is nothing, or *number says why it cannot be known. */
static DWORD attributes_of(const char *path, int *number) {
    wchar_t wide[PGI_WIDE_PATH];
    *number = pgi_wide_path(path, wide);
    if (*number) return 0;
    const DWORD attributes = GetFileAttributesW(wide);
    if (attributes != INVALID_FILE_ATTRIBUTES) return attributes;
    *number = pgi_windows_error();
    if (*number == ENOENT) *number = 0;
    return 0;
}

static int is_dots(const char *name) { return strcmp(name, ".") == 0 || strcmp(name, "..") == 0; }

static void count_entry(void *user, const char *name) { *(size_t *)user += !is_dots(name); }

typedef struct removal {
    const char *folder;
    int number; /* an errno; ENOTEMPTY: something else than files is there */
} removal;

static int join(const char *folder, const char *name, char path[PGI_PATH_SIZE]) {
    const int n = snprintf(path, PGI_PATH_SIZE, "%s/%s", folder, name);
    return n > 0 && n < PGI_PATH_SIZE ? 0 : ENAMETOOLONG;
}

static void remove_entry(void *user, const char *name) {
    removal *r = user;
    char path[PGI_PATH_SIZE];
    int number;
    if (is_dots(name) || strcmp(name, PGI_UNFINISHED) == 0) return;
    number = join(r->folder, name, path);
    if (!number && (attributes_of(path, &number) & FILE_ATTRIBUTE_DIRECTORY)) number = ENOTEMPTY;
    if (!number) number = remove_file(path);
    if (number) r->number = number;
}

/* Removes each file of the folder, the marker last. 0 or an errno. */
static int remove_files(const char *folder) {
    removal r = {folder, 0};
    char marker[PGI_PATH_SIZE];
    int number = pgi_folder_list(folder, remove_entry, &r);
    if (!number) number = r.number;
    if (!number) number = join(folder, PGI_UNFINISHED, marker);
    if (!number) number = remove_file(marker);
    return number == ENOENT ? 0 : number;
}

/* *is_there: an empty folder, which is to be replaced. */
static pg_status check_target(const char *path, int *is_there) {
    int number;
    const DWORD attributes = attributes_of(path, &number);
    *is_there = attributes != 0;
    if (number) return pgi_system_error(path, "look at it", number);
    if (!attributes) return PG_OK;
    if (!(attributes & FILE_ATTRIBUTE_DIRECTORY) || (attributes & FILE_ATTRIBUTE_REPARSE_POINT))
        return pgi_error(PG_ERROR_ARGUMENT, "%s: found a file or a link, expected no such file or an empty folder",
                         path);
    size_t n = 0;
    number = pgi_folder_list(path, count_entry, &n);
    if (number) return pgi_system_error(path, "read", number);
    if (n > 0)
        return pgi_error(PG_ERROR_ARGUMENT, "%s: found files in it, expected no such folder or an empty one", path);
    return PG_OK;
}

static pg_status lock_partial(pgi_atomic_folder *folder) {
    const char *partial = folder->partial;
    wchar_t wide[PGI_WIDE_PATH];
    BY_HANDLE_FILE_INFORMATION info;
    int number = pgi_wide_path(partial, wide);
    if (!number) {
        /* Others may list it, but not open it to rename or delete it. */
        folder->fd =
            (pgi_fd)CreateFileW(wide, DELETE | FILE_READ_ATTRIBUTES | SYNCHRONIZE, FILE_SHARE_READ | FILE_SHARE_WRITE,
                                NULL, OPEN_EXISTING, FILE_FLAG_BACKUP_SEMANTICS | FILE_FLAG_OPEN_REPARSE_POINT, NULL);
        if (folder->fd == -1) number = pgi_windows_error();
    }
    if (number == EBUSY) return pgi_error(PG_ERROR_IO, "%s: found another process writing it, expected none", partial);
    if (number) return pgi_system_error(partial, "open the folder", number);
    if (!GetFileInformationByHandle(handle_of(folder->fd), &info))
        return pgi_system_error(partial, "lock the folder", pgi_windows_error());
    if (!(info.dwFileAttributes & FILE_ATTRIBUTE_DIRECTORY) || (info.dwFileAttributes & FILE_ATTRIBUTE_REPARSE_POINT))
        return pgi_error(PG_ERROR_IO, "%s: found a file or a link, expected no such folder: move it away", partial);
    return PG_OK;
}

/* 0 or an errno; *handle is open for writing then. */
static int create_file(const char *path, DWORD how, HANDLE *handle) {
    wchar_t wide[PGI_WIDE_PATH];
    const int number = pgi_wide_path(path, wide);
    *handle = INVALID_HANDLE_VALUE;
    if (number) return number;
    *handle = CreateFileW(wide, GENERIC_WRITE, FILE_SHARE_READ, NULL, how, FILE_ATTRIBUTE_NORMAL, NULL);
    return *handle == INVALID_HANDLE_VALUE ? pgi_windows_error() : 0;
}

/* All but the marker goes. */
static pg_status empty_partial(const pgi_atomic_folder *folder) {
    char marker[PGI_PATH_SIZE];
    HANDLE handle = INVALID_HANDLE_VALUE;
    size_t n = 0;
    int number = join(folder->partial, PGI_UNFINISHED, marker);
    if (!number) number = pgi_folder_list(folder->partial, count_entry, &n);
    if (!number && n > 0) {
        if (!attributes_of(marker, &number))
            return pgi_error(PG_ERROR_IO,
                             "%s: found files that no cut-off conversion left, expected no such folder: move it away",
                             folder->partial);
        number = remove_files(folder->partial);
    }
    if (!number) number = create_file(marker, CREATE_ALWAYS, &handle);
    if (handle != INVALID_HANDLE_VALUE) CloseHandle(handle);
    return number ? pgi_system_error(folder->partial, "empty what a cut-off conversion left", number) : PG_OK;
}

pg_status pgi_atomic_folder_take(pgi_atomic_folder *folder) {
    int is_there, number;
    PGI_TRY(check_target(folder->path, &is_there));
    number = make_folder(folder->partial);
    if (number && number != EEXIST) return pgi_system_error(folder->partial, "make the folder", number);
    pg_status status = lock_partial(folder);
    if (status >= 0) status = empty_partial(folder);
    if (status < 0 && !number) { /* made here */
        if (folder->fd != -1) CloseHandle(handle_of(folder->fd));
        folder->fd = -1;
        (void)remove_folder(folder->partial); /* when it is empty, and so ours */
    }
    return status;
}

void pgi_atomic_folder_free(pgi_atomic_folder *folder) {
    if (folder->fd != -1) CloseHandle(handle_of(folder->fd)); /* the lock goes with it */
    pgi_free(folder->memory, folder->path);
    pgi_free(folder->memory, folder->partial);
    *folder = (pgi_atomic_folder){.fd = -1};
}

static pg_status check_files(const pgi_atomic_folder *folder) {
    size_t n = 0;
    const int number = pgi_folder_list(folder->partial, count_entry, &n);
    if (number) return pgi_system_error(folder->partial, "read", number);
    if (n > folder->n_files) return PG_OK; /* with the marker */
    return pgi_error(PG_ERROR_IO,
                     "%s: found %zu entries, expected the %zu files that were written and " PGI_UNFINISHED
                     ": another program removed some; convert again",
                     folder->partial, n, folder->n_files);
}

/* Renames the open folder. 0 or an errno. */
static int rename_folder(const pgi_atomic_folder *folder) {
    struct {
        FILE_RENAME_INFO info;
        wchar_t rest[PGI_WIDE_PATH]; /* of the name, which begins in `info` */
    } to;
    wchar_t wide[PGI_WIDE_PATH], full[PGI_WIDE_PATH];
    const int number = pgi_wide_path(folder->path, wide);
    if (number) return number;
    const DWORD n = GetFullPathNameW(wide, PGI_WIDE_PATH, full, NULL);
    if (n == 0 || n >= PGI_WIDE_PATH) return n == 0 ? pgi_windows_error() : ENAMETOOLONG;
    memset(&to.info, 0, sizeof to.info);
    to.info.FileNameLength = n * sizeof *full;
    memcpy(to.info.FileName, full, (n + 1) * sizeof *full);
    for (int i = 0;; i++) { /* scanners open what was just written, and the folder keeps its name for that time */
        if (SetFileInformationByHandle(handle_of(folder->fd), FileRenameInfo, &to, sizeof to)) return 0;
        const int refused = pgi_windows_error();
        if ((refused != EACCES && refused != EBUSY) || i == TRIES) return refused;
        Sleep(PAUSE);
    }
}

pg_status pgi_atomic_folder_commit(pgi_atomic_folder *folder) {
    char marker[PGI_PATH_SIZE];
    PGI_TRY(check_files(folder));
    /* An empty folder is replaced; one that got files meanwhile is not. */
    const int replaces = remove_folder(folder->path) == 0, number = rename_folder(folder);
    if (number) {
        if (replaces) (void)make_folder(folder->path);
        return pgi_system_error(folder->path, "rename to it", number);
    }
    if (join(folder->path, PGI_UNFINISHED, marker) == 0)
        (void)remove_file(marker); /* if it stays, it is one useless empty file */
    pgi_atomic_folder_free(folder);
    return PG_OK;
}

pg_status pgi_atomic_folder_abandon(pgi_atomic_folder *folder, pg_status status) {
    if (folder->fd != -1) {
        int number = remove_files(folder->partial);
        CloseHandle(handle_of(folder->fd)); /* it does not let its folder be deleted */
        folder->fd = -1;
        if (!number) number = remove_folder(folder->partial);
        if (number)
            status =
                pgi_error(status, "%s; %s could not be removed and does not open", pgi_error_text(), folder->partial);
    }
    if (folder->memory) pgi_atomic_folder_free(folder);
    return status;
}

/* A new file with room for `size` bytes on the disk. Returns 0 or an errno; then there is no such file. */
static int make_file(const char *path, uint64_t size, pgi_fd *fd) {
    FILE_ALLOCATION_INFO room = {.AllocationSize.QuadPart = (LONGLONG)size};
    HANDLE handle;
    int number = size > INT64_MAX ? EFBIG : create_file(path, CREATE_NEW, &handle);
    if (number) return number;
    *fd = (pgi_fd)handle;
    if (size == 0 || SetFileInformationByHandle(handle, FileAllocationInfo, &room, sizeof room)) return 0;
    number = pgi_windows_error();
    if (number != ENOSPC) return 0; /* a file system that cannot do it */
    CloseHandle(handle);
    *fd = -1;
    (void)remove_file(path);
    return number;
}

pg_status pgi_atomic_file_open(pgi_atomic_folder *folder, const char *name, uint64_t size, pgi_atomic_file *out) {
    *out = (pgi_atomic_file){.memory = folder->memory, .folder = folder, .fd = -1};
    out->path = pgi_path_join(folder->memory, folder->partial, name);
    if (!out->path) return PG_ERROR_MEMORY;
    const int number = make_file(out->path, size, &out->fd);
    if (number) return pgi_atomic_file_close(out, pgi_system_error(out->path, "write", number));
    folder->n_files++;
    return PG_OK;
}

pg_status pgi_atomic_file_write(const pgi_atomic_file *file, uint64_t at, const void *data, size_t size) {
    enum { MOST = 1 << 30 };
    const uint8_t *from = data;
    while (size > 0) {
        OVERLAPPED place = {.Offset = (DWORD)at, .OffsetHigh = (DWORD)(at >> 32)};
        DWORD n = 0;
        if (!WriteFile(handle_of(file->fd), from, size < MOST ? (DWORD)size : MOST, &n, &place))
            return pgi_system_error(file->path, "write", pgi_windows_error());
        if (n == 0) return pgi_system_error(file->path, "write", EIO);
        from += n;
        at += n;
        size -= n;
    }
    return PG_OK;
}

static pg_status sync_and_close(const pgi_atomic_file *file, pg_status status) {
    if (file->fd == -1) return status;
    if (status >= 0 && !FlushFileBuffers(handle_of(file->fd)))
        status = pgi_system_error(file->path, "write", pgi_windows_error());
    if (!CloseHandle(handle_of(file->fd)) && status >= 0)
        status = pgi_system_error(file->path, "write", pgi_windows_error());
    return status;
}

pg_status pgi_atomic_file_close(pgi_atomic_file *file, pg_status status) {
    status = sync_and_close(file, status);
    if (file->memory) pgi_free(file->memory, file->path);
    *file = (pgi_atomic_file){.fd = -1};
    return status;
}

/* "NUL", "COM1" and the like name devices in every folder. */
static int is_device(const char *path) {
    wchar_t wide[PGI_WIDE_PATH], full[PGI_WIDE_PATH];
    if (pgi_wide_path(path, wide) != 0) return 0;
    const DWORD n = GetFullPathNameW(wide, PGI_WIDE_PATH, full, NULL);
    return n > 4 && n < PGI_WIDE_PATH && wcsncmp(full, L"\\\\.\\", 4) == 0;
}

static pg_status check_replaced(const char *path) {
    int number;
    const DWORD attributes = attributes_of(path, &number);
    if (number) return pgi_system_error(path, "write", number);
    const char *found = is_device(path) ? "device" : (attributes & FILE_ATTRIBUTE_DIRECTORY) ? "folder" : NULL;
    return found ? pgi_error(PG_ERROR_ARGUMENT, "%s: found a %s, expected the name of a file", path, found) : PG_OK;
}

/* PATH.partial-NUMBER, a new one: two calls at once do not meet, and the later one stays. */
static pg_status make_partial(const char *path, uint64_t size, pgi_atomic_file *out) {
    const size_t n = strlen(path) + sizeof ".partial-0123456789";
    const uint32_t begin = (uint32_t)(int64_t)(pgi_now() * 1e6) ^ (uint32_t)GetCurrentProcessId() << 12;
    int number = EEXIST;
    out->path = pgi_alloc(out->memory, n, 1);
    if (!out->path) return PG_ERROR_MEMORY;
    for (uint32_t i = 0; number == EEXIST && i < 1000; i++) {
        snprintf(out->path, n, "%s.partial-%u", path, begin + i);
        number = make_file(out->path, size, &out->fd);
    }
    return number ? pgi_system_error(path, "write", number) : PG_OK;
}

/* While others read the old file, or put theirs in its place at the same moment, Windows refuses: it is tried for a
 * while. A program that has it open without sharing its name keeps it: EBUSY or EACCES. */
static int replace_file(const char *from, const char *to) {
    wchar_t wide_from[PGI_WIDE_PATH], wide_to[PGI_WIDE_PATH];
    int number = pgi_wide_path(from, wide_from);
    if (!number) number = pgi_wide_path(to, wide_to);
    if (number) return number;
    for (int i = 0;; i++) {
        if (MoveFileExW(wide_from, wide_to, MOVEFILE_REPLACE_EXISTING | MOVEFILE_WRITE_THROUGH)) return 0;
        number = pgi_windows_error();
        if ((number != EACCES && number != EBUSY) || i == TRIES) return number;
        Sleep(PAUSE);
    }
}

pg_status pgi_atomic_file_open_beside(const char *path, uint64_t size, pgi_atomic_file *out) {
    PGI_TRY(check_replaced(path));
    return make_partial(path, size, out);
}

pg_status pgi_atomic_file_take_place(const pgi_atomic_file *file, const char *path, pg_status status) {
    status = sync_and_close(file, status);
    if (status >= 0) {
        const int number = replace_file(file->path, path);
        if (number) status = pgi_system_error(path, "rename to it", number);
    }
    if (status < 0) (void)remove_file(file->path);
    return status;
}

pg_status pgi_folder_make(const pgi_memory *memory, const char *path, int *made) {
    (void)memory;
    const int number = make_folder(path);
    *made = number == 0;
    if (number == 0 || (number == EEXIST && pgi_folder_exists(path))) return PG_OK;
    if (number != EEXIST) return pgi_system_error(path, "make the folder", number);
    return pgi_error(PG_ERROR_ARGUMENT, "%s: found a file or a broken link, expected a folder or a new name", path);
}

void pgi_folder_unmake(const char *path) { (void)remove_folder(path); }
