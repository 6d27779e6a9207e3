/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Files and folders of Windows. Others may write, rename and delete what is open here, as far as Windows lets them: a
 * file that is mapped cannot be cut, so no page of it goes missing under those that read it.
 */
#include "base/file.h"

#include <errno.h>
#include <string.h>
#include <windows.h>

#include "base/wide_windows.h"

enum { SHARE_ALL = FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE };

pg_status pgi_system_error(const char *path, const char *verb, int number) {
    char text[128] = "unknown error";
    const char *reason = text;
    switch (number) {
        case EBUSY: reason = "another program uses it"; break;
        case EILSEQ: reason = "the path is no UTF-8"; break;
        case ELOOP: reason = "Too many levels of symbolic links"; break;
        default: (void)strerror_s(text, sizeof text, number); break;
    }
    const pg_status status = number == ENOENT || number == ENOTDIR ? PG_ERROR_NOT_FOUND
                             : number == ENOMEM                    ? PG_ERROR_MEMORY
                                                                   : PG_ERROR_IO;
    return pgi_error(status, "%s: cannot %s: %s", path, verb, reason);
}

static HANDLE handle_of(const pgi_file *file) { return (HANDLE)file->fd; }

/* Opens a file, folder or device. 0 or an errno. */
static int open_any(const char *path, DWORD access, HANDLE *out) {
    wchar_t wide[PGI_WIDE_PATH];
    const int number = pgi_wide_path(path, wide);
    *out = INVALID_HANDLE_VALUE;
    if (number) return number;
    *out = CreateFileW(wide, access, SHARE_ALL, NULL, OPEN_EXISTING, FILE_FLAG_BACKUP_SEMANTICS, NULL);
    return *out == INVALID_HANDLE_VALUE ? pgi_windows_error() : 0;
}

/* Of the name itself: a link is not followed. INVALID_FILE_ATTRIBUTES: *number says why. */
static DWORD attributes_of(const char *path, int *number) {
    wchar_t wide[PGI_WIDE_PATH];
    *number = pgi_wide_path(path, wide);
    if (*number) return INVALID_FILE_ATTRIBUTES;
    const DWORD attributes = GetFileAttributesW(wide);
    if (attributes == INVALID_FILE_ATTRIBUTES) *number = pgi_windows_error();
    return attributes;
}

static pg_status not_opened(const char *path, int number) {
    int unused;
    if (number == ENOENT && attributes_of(path, &unused) != INVALID_FILE_ATTRIBUTES)
        return pgi_error(PG_ERROR_NOT_FOUND,
                         "%s: found a link to something that is not there; download the file again (a part of the "
                         "cache was removed)",
                         path);
    if (number == ENOENT && pgi_path_is_url(path))
        return pgi_error(PG_ERROR_NOT_FOUND, "%s: found a URL, expected a file; download it first", path);
    return pgi_system_error(path, "open", number);
}

static void read_id(const BY_HANDLE_FILE_INFORMATION *info, pgi_file_id *id) {
    const uint64_t ticks = (uint64_t)info->ftLastWriteTime.dwHighDateTime << 32 | info->ftLastWriteTime.dwLowDateTime;
    *id = (pgi_file_id){.device = info->dwVolumeSerialNumber,
                        .inode = (uint64_t)info->nFileIndexHigh << 32 | info->nFileIndexLow,
                        .size = (uint64_t)info->nFileSizeHigh << 32 | info->nFileSizeLow,
                        .seconds = (int64_t)(ticks / 10000000),
                        .nanoseconds = (int64_t)(ticks % 10000000) * 100};
}

/* A folder, pipe or device is refused. */
static pg_status look_at_file(pgi_file *file) {
    BY_HANDLE_FILE_INFORMATION info;
    const DWORD type = GetFileType(handle_of(file));
    if (type != FILE_TYPE_DISK)
        return pgi_error(PG_ERROR_IO, "%s: found a %s, expected a regular file%s", file->path,
                         type == FILE_TYPE_PIPE ? "pipe" : "character device",
                         type == FILE_TYPE_PIPE ? "; write what it gives to a file first" : "");
    if (!GetFileInformationByHandle(handle_of(file), &info))
        return pgi_system_error(file->path, "stat", pgi_windows_error());
    if (info.dwFileAttributes & FILE_ATTRIBUTE_DIRECTORY)
        return pgi_error(PG_ERROR_IO, "%s: found a folder, expected a file", file->path);
    read_id(&info, &file->id);
    file->size = (size_t)file->id.size;
    return PG_OK;
}

pg_status pgi_file_open(const char *path, pgi_file *out) {
    HANDLE handle;
    const int number = open_any(path, GENERIC_READ, &handle);
    *out = (pgi_file){.path = path, .fd = (pgi_fd)handle};
    if (number) return not_opened(path, number);
    const pg_status status = look_at_file(out);
    if (status < 0) pgi_file_close(out);
    return status;
}

pg_status pgi_file_unchanged(const pgi_file *file) {
    BY_HANDLE_FILE_INFORMATION info;
    pgi_file_id now;
    if (!GetFileInformationByHandle(handle_of(file), &info))
        return pgi_system_error(file->path, "stat", pgi_windows_error());
    read_id(&info, &now);
    if (now.size != file->id.size)
        return pgi_error(PG_ERROR_IO, "%s: found %llu bytes, expected the %llu that it had when it was opened",
                         file->path, (unsigned long long)now.size, (unsigned long long)file->id.size);
    if (now.seconds == file->id.seconds && now.nanoseconds == file->id.nanoseconds) return PG_OK;
    return pgi_error(PG_ERROR_IO, "%s: found it written to since it was opened, expected it to stay as it was",
                     file->path);
}

void pgi_file_close(pgi_file *file) {
    if (file->fd != -1) CloseHandle(handle_of(file));
    file->fd = -1;
}

/* Up to `size` bytes from `at` on; *n 0: the end. 0 or an errno. */
static int read_some(HANDLE handle, uint64_t at, size_t size, void *out, DWORD *n) {
    enum { MOST = 1 << 30 };
    OVERLAPPED place = {.Offset = (DWORD)at, .OffsetHigh = (DWORD)(at >> 32)};
    *n = 0;
    if (ReadFile(handle, out, size < MOST ? (DWORD)size : MOST, n, &place)) return 0;
    return GetLastError() == ERROR_HANDLE_EOF ? 0 : pgi_windows_error();
}

pg_status pgi_file_read_at(const pgi_file *file, uint64_t at, size_t size, void *out) {
    for (size_t done = 0; done < size;) {
        DWORD n;
        const int number = read_some(handle_of(file), at + done, size - done, (uint8_t *)out + done, &n);
        if (number) return pgi_system_error(file->path, "read", number);
        if (n == 0)
            return pgi_error(PG_ERROR_IO, "%s: ended after %llu of %zu bytes: it was cut while it was read", file->path,
                             (unsigned long long)(at + done), file->size);
        done += n;
    }
    return PG_OK;
}

size_t pgi_file_head(const char *path, void *out, size_t size) {
    HANDLE handle;
    DWORD n = 0;
    if (open_any(path, GENERIC_READ, &handle) != 0) return 0;
    if (GetFileType(handle) != FILE_TYPE_DISK || read_some(handle, 0, size, out, &n) != 0) n = 0;
    CloseHandle(handle);
    return n;
}

void pgi_file_ask(const pgi_file *file, uint64_t at, size_t size) { (void)file, (void)at, (void)size; }

int pgi_file_exists(const char *path) {
    int number;
    const DWORD attributes = attributes_of(path, &number);
    if (attributes != INVALID_FILE_ATTRIBUTES) return !(attributes & FILE_ATTRIBUTE_DIRECTORY);
    return number == EACCES || number == EBUSY || number == EIO;
}

int pgi_folder_look(const char *path, int *number) {
    const DWORD attributes = attributes_of(path, number);
    if (attributes != INVALID_FILE_ATTRIBUTES) return (attributes & FILE_ATTRIBUTE_DIRECTORY) != 0;
    if (*number == ENOENT || *number == ENOTDIR || *number == ENAMETOOLONG) *number = 0;
    return 0;
}

/* Not FindFirstFileW(): Wine's does not share the folder with a handle that may rename it. */
int pgi_folder_list(const char *path, void (*entry)(void *user, const char *name), void *user) {
    union {
        FILE_FULL_DIR_INFO first;
        char bytes[4096];
    } entries;
    char name[MAX_PATH * 3];
    HANDLE handle;
    int number = open_any(path, FILE_LIST_DIRECTORY | SYNCHRONIZE, &handle);
    if (number) return number;
    while (GetFileInformationByHandleEx(handle, FileFullDirectoryInfo, &entries, sizeof entries)) {
        const FILE_FULL_DIR_INFO *info = &entries.first;
        for (;;) {
            const int units = (int)(info->FileNameLength / sizeof *info->FileName);
            const int n = WideCharToMultiByte(CP_UTF8, 0, info->FileName, units, name, sizeof name - 1, NULL, NULL);
            name[n] = '\0';
            if (n > 0) entry(user, name);
            if (info->NextEntryOffset == 0) break;
            info = (const FILE_FULL_DIR_INFO *)((const char *)info + info->NextEntryOffset);
        }
    }
    number = GetLastError() == ERROR_NO_MORE_FILES ? 0 : pgi_windows_error();
    CloseHandle(handle);
    return number;
}

int pgi_path_real(const char *path, char real[PGI_PATH_SIZE]) {
    static const wchar_t share[] = L"\\\\?\\UNC\\";
    enum { PREFIX = 4 /* \\?\ */, OF_SHARE = 7 };
    wchar_t wide[PGI_WIDE_PATH], *from = wide;
    HANDLE handle;
    int number = open_any(path, 0, &handle);
    if (number) return number;
    const DWORD n = GetFinalPathNameByHandleW(handle, wide, PGI_WIDE_PATH, FILE_NAME_NORMALIZED);
    number = n == 0 ? pgi_windows_error() : n >= PGI_WIDE_PATH ? ENAMETOOLONG : 0;
    CloseHandle(handle);
    if (number) return number;
    if (wcsncmp(wide, share, OF_SHARE + 1) == 0)
        *(from += OF_SHARE - 1) = '\\'; /* \\server\share */
    else if (wcsncmp(wide, share, PREFIX) == 0)
        from += PREFIX;
    if (WideCharToMultiByte(CP_UTF8, 0, from, -1, real, PGI_PATH_SIZE, NULL, NULL) == 0) return ENAMETOOLONG;
    for (char *c = real; *c; c++)
        if (*c == '\\') *c = '/';
    return 0;
}

pg_status pgi_file_map(const pgi_file *file, pgi_mapping *out) {
    *out = (pgi_mapping){0};
    if (file->size == 0) return PG_OK;
    const HANDLE mapping = CreateFileMappingW(handle_of(file), NULL, PAGE_READONLY, 0, 0, NULL);
    const void *data = mapping ? MapViewOfFile(mapping, FILE_MAP_READ, 0, 0, file->size) : NULL;
    const int number = data ? 0 : pgi_windows_error();
    if (mapping) CloseHandle(mapping); /* the view keeps it */
    if (number == ENOMEM) return pgi_system_error(file->path, "map", number);
    if (data) *out = (pgi_mapping){data, file->size};
    return PG_OK;
}

int pgi_mapping_huge_pages(const pgi_mapping *mapping) {
    (void)mapping;
    return 0;
}

void pgi_mapping_ask(const void *data, size_t size) {
    WIN32_MEMORY_RANGE_ENTRY range = {(void *)(uintptr_t)data, size};
    (void)PrefetchVirtualMemory(GetCurrentProcess(), 1, &range, 0);
}

/* Windows has no call for it, and touching a page raises an exception where it cannot be read. */
void pgi_mapping_fetch(const void *data, size_t size) { (void)data, (void)size; }

void pgi_mapping_free(pgi_mapping *mapping) {
    if (mapping->data) UnmapViewOfFile(mapping->data);
    *mapping = (pgi_mapping){0};
}
