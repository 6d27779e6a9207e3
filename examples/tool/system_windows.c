/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The tool's system calls on Windows. paligemma.manifest makes UTF-8 the code page of the process, so names of files
 * and arguments are UTF-8 for the C library, too (Windows 10, version 1903).
 */
#include "system.h"

#include <errno.h>
#include <fcntl.h>
#include <io.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <windows.h>

static HANDLE handle_of(int file) { return (HANDLE)_get_osfhandle(file); }

static void show_escapes(DWORD which) {
    DWORD mode;
    const HANDLE console = GetStdHandle(which);
    if (GetConsoleMode(console, &mode)) SetConsoleMode(console, mode | ENABLE_VIRTUAL_TERMINAL_PROCESSING);
}

static UINT output_page, input_page; /* of the console, as they were; 0: there is none */

static void restore_pages(void) {
    if (output_page) SetConsoleOutputCP(output_page);
    if (input_page) SetConsoleCP(input_page);
}

void tool_system_start(void) {
    _fmode = _O_BINARY;
    _setmode(0, _O_BINARY);
    _setmode(1, _O_BINARY);
    _setmode(2, _O_BINARY);
    output_page = GetConsoleOutputCP();
    input_page = GetConsoleCP();
    atexit(restore_pages);
    SetConsoleOutputCP(CP_UTF8);
    SetConsoleCP(CP_UTF8);
    show_escapes(STD_OUTPUT_HANDLE);
    show_escapes(STD_ERROR_HANDLE); /* the line of the progress */
    setvbuf(stderr, NULL, _IONBF, 0);
}

int tool_terminal_columns(void) {
    CONSOLE_SCREEN_BUFFER_INFO info;
    if (!GetConsoleScreenBufferInfo(GetStdHandle(STD_ERROR_HANDLE), &info)) return 0;
    return info.srWindow.Right - info.srWindow.Left + 1;
}

int tool_cpu_count(void) { return (int)GetActiveProcessorCount(ALL_PROCESSOR_GROUPS); }

void *tool_pages_alloc(size_t size) { return VirtualAlloc(NULL, size, MEM_RESERVE | MEM_COMMIT, PAGE_READWRITE); }

/* They need a privilege that few users have. */
void tool_pages_huge(void *pages, size_t size) { (void)pages, (void)size; }

void tool_pages_free(void *pages, size_t size) {
    (void)size;
    VirtualFree(pages, 0, MEM_RELEASE);
}

/* A pipe cannot be waited for: it is looked at again and again. */
static int wait_for_pipe(HANDLE pipe, int milliseconds) {
    enum { SLICE = 5 };
    for (int waited = 0;; waited += SLICE) {
        DWORD n = 0;
        if (!PeekNamedPipe(pipe, NULL, 0, NULL, &n, NULL) || n > 0) return 1; /* failed: reading tells the end */
        if (waited >= milliseconds) return 0;
        Sleep(SLICE);
    }
}

int tool_wait_to_read(int file, int milliseconds) {
    const HANDLE handle = handle_of(file);
    switch (GetFileType(handle)) {
        case FILE_TYPE_PIPE: return wait_for_pipe(handle, milliseconds);
        case FILE_TYPE_CHAR: return WaitForSingleObject(handle, (DWORD)milliseconds) != WAIT_TIMEOUT;
        default: return 1;
    }
}

/* A byte far behind every file's end: locked bytes cannot be read by others here. */
int tool_lock_is_taken(int file) {
    OVERLAPPED at = {.Offset = 0, .OffsetHigh = 0x7FFFFFFF};
    return !LockFileEx(handle_of(file), LOCKFILE_EXCLUSIVE_LOCK | LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, &at) &&
           (GetLastError() == ERROR_LOCK_VIOLATION || GetLastError() == ERROR_IO_PENDING);
}

int tool_sync(int file) { return _commit(file); }

int tool_folder_of(const char *path, const struct stat *found, tool_folder *out) {
    BY_HANDLE_FILE_INFORMATION info;
    (void)found; /* st_ino is 0 */
    const HANDLE handle = CreateFileA(path, 0, FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE, NULL,
                                      OPEN_EXISTING, FILE_FLAG_BACKUP_SEMANTICS, NULL);
    if (handle == INVALID_HANDLE_VALUE) return 0;
    const int known = GetFileInformationByHandle(handle, &info);
    CloseHandle(handle);
    if (known)
        *out = (tool_folder){info.dwVolumeSerialNumber, (uint64_t)info.nFileIndexHigh << 32 | info.nFileIndexLow};
    return known;
}

int tool_thread_start(pthread_t *thread, void *(*body)(void *user), void *user) {
    return pthread_create(thread, NULL, body, user);
}

void tool_condition_init(pthread_cond_t *condition) { pthread_cond_init(condition, NULL); }

/* By the clock of the day: winpthreads has conditions of no other. */
int tool_condition_wait(pthread_cond_t *condition, pthread_mutex_t *mutex, int milliseconds) {
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += milliseconds * 1000000L;
    until.tv_sec += until.tv_nsec / 1000000000L;
    until.tv_nsec %= 1000000000L;
    return pthread_cond_timedwait(condition, mutex, &until);
}

int tool_is_slash(char c) { return c == '/' || c == '\\'; }

char *tool_last_slash(const char *path) {
    const char *last = NULL;
    for (; *path; path++)
        if (tool_is_slash(*path)) last = path;
    return (char *)last;
}

int tool_is_absolute(const char *path) {
    const int drive = ((path[0] | 0x20) >= 'a' && (path[0] | 0x20) <= 'z') && path[1] == ':';
    return drive || tool_is_slash(*path);
}
