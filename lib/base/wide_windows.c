/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Between UTF-8 and UTF-16, and from Windows' errors to those of C. */
#include "base/wide_windows.h"

#include <errno.h>
#include <string.h>
#include <windows.h>

int pgi_windows_error(void) {
    static const struct {
        DWORD found;
        int number;
    } errors[] = {
        {ERROR_FILE_NOT_FOUND, ENOENT},
        {ERROR_PATH_NOT_FOUND, ENOENT},
        {ERROR_INVALID_NAME, ENOENT},
        {ERROR_BAD_PATHNAME, ENOENT},
        {ERROR_INVALID_DRIVE, ENOENT},
        {ERROR_BAD_NETPATH, ENOENT},
        {ERROR_BAD_NET_NAME, ENOENT},
        {ERROR_ACCESS_DENIED, EACCES},
        {ERROR_SHARING_VIOLATION, EBUSY},
        {ERROR_LOCK_VIOLATION, EBUSY},
        {ERROR_USER_MAPPED_FILE, EBUSY},
        {ERROR_PIPE_BUSY, EBUSY},
        {ERROR_NOT_ENOUGH_MEMORY, ENOMEM},
        {ERROR_OUTOFMEMORY, ENOMEM},
        {ERROR_COMMITMENT_LIMIT, ENOMEM},
        {ERROR_NO_SYSTEM_RESOURCES, ENOMEM},
        {ERROR_DISK_FULL, ENOSPC},
        {ERROR_HANDLE_DISK_FULL, ENOSPC},
        {ERROR_ALREADY_EXISTS, EEXIST},
        {ERROR_FILE_EXISTS, EEXIST},
        {ERROR_DIR_NOT_EMPTY, ENOTEMPTY},
        {ERROR_DIRECTORY, ENOTDIR},
        {ERROR_FILENAME_EXCED_RANGE, ENAMETOOLONG},
        {ERROR_CANT_RESOLVE_FILENAME, ELOOP},
        {ERROR_WRITE_PROTECT, EROFS},
        {ERROR_TOO_MANY_OPEN_FILES, EMFILE},
        {ERROR_NOT_SAME_DEVICE, EXDEV},
    };
    const DWORD found = GetLastError();
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
        if (errors[i].found == found) return errors[i].number;
    return EIO;
}

int pgi_wide_path(const char *path, wchar_t wide[PGI_WIDE_PATH]) {
    enum { SHORT = 240 /* names of files in it still fit into 260 */ };
    static const wchar_t local[] = L"\\\\?\\", share[] = L"\\\\?\\UNC\\";
    wchar_t full[PGI_WIDE_PATH];
    if (MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, path, -1, wide, PGI_WIDE_PATH) == 0)
        return GetLastError() == ERROR_INSUFFICIENT_BUFFER ? ENAMETOOLONG : EILSEQ;
    const DWORD n = GetFullPathNameW(wide, PGI_WIDE_PATH, full, NULL);
    if (n < SHORT) return 0; /* 0: the call that wants the path says what is wrong with it */
    if (n + sizeof share / sizeof *share >= PGI_WIDE_PATH) return ENAMETOOLONG;
    const int is_share = full[0] == '\\' && full[1] == '\\';
    if (is_share && (full[2] == '?' || full[2] == '.')) return 0;
    wcscpy(wide, is_share ? share : local);
    wcscat(wide, full + (is_share ? 2 : 0));
    return 0;
}

pg_status pgi_wide_append(const wchar_t *wide, pgi_buffer *out) {
    const int size = WideCharToMultiByte(CP_UTF8, 0, wide, -1, NULL, 0, NULL, NULL); /* with the NUL */
    if (size <= 0) return pgi_error(PG_ERROR_IO, "a text of the system cannot be converted to UTF-8");
    PGI_TRY(pgi_buffer_reserve(out, (size_t)size));
    WideCharToMultiByte(CP_UTF8, 0, wide, -1, (char *)out->data + out->size, size, NULL, NULL);
    out->size += (size_t)size - 1;
    return PG_OK;
}
