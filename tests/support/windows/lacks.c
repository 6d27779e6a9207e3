/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The functions of lacks.h. */
#include "lacks.h"

#include <direct.h>
#include <errno.h>
#include <fcntl.h>
#include <io.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <windows.h>

#undef sigaction
#undef free
#undef signal
#undef unlink

/* Fills the XXXXXX at the end of a name anew. */
static void next_name(char *name) {
    static volatile LONG counter;
    const size_t n = strlen(name);
    uint32_t number =
        GetCurrentProcessId() * 2654435761u + (uint32_t)InterlockedIncrement(&counter) * 40503u + GetTickCount();
    for (size_t i = n - 6; i < n; i++, number /= 26) name[i] = (char)('a' + number % 26);
}

char *mkdtemp(char *name) {
    for (int i = 0; i < 1000; i++) {
        next_name(name);
        if (_mkdir(name) == 0) return name;
        if (errno != EEXIST) return NULL;
    }
    return NULL;
}

int windows_mkstemp(char *name) {
    for (int i = 0; i < 1000; i++) {
        next_name(name);
        const int file = _open(name, _O_RDWR | _O_CREAT | _O_EXCL | _O_BINARY | _O_TEMPORARY, _S_IREAD | _S_IWRITE);
        if (file >= 0 || errno != EEXIST) return file;
    }
    return -1;
}

int windows_unlink(const char *name) {
    static volatile LONG counter;
    char other[MAX_PATH + 32];
    snprintf(other, sizeof other, "%s.gone-%lu-%ld", name, GetCurrentProcessId(), InterlockedIncrement(&counter));
    if (GetFileAttributesA(name) == INVALID_FILE_ATTRIBUTES || !MoveFileExA(name, other, 0)) return _unlink(name);
    if (!DeleteFileA(other)) MoveFileExA(other, NULL, MOVEFILE_DELAY_UNTIL_REBOOT);
    return 0;
}

int setenv(const char *name, const char *value, int overwrite) {
    if (!overwrite && GetEnvironmentVariableA(name, NULL, 0)) return 0;
    return SetEnvironmentVariableA(name, value) ? 0 : -1;
}

int unsetenv(const char *name) {
    SetEnvironmentVariableA(name, NULL);
    return 0;
}

int vdprintf(int file, const char *format, va_list arguments) {
    char text[8192];
    int n = vsnprintf(text, sizeof text, format, arguments);
    if (n >= (int)sizeof text) n = sizeof text - 1;
    return n < 0 ? n : _write(file, text, (unsigned)n);
}

int windows_dprintf(int file, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    const int n = vdprintf(file, format, arguments);
    va_end(arguments);
    return n;
}

int fnmatch(const char *pattern, const char *text, int flags) {
    for (; *pattern; pattern++, text++) {
        if (*pattern == '*') {
            do
                if (fnmatch(pattern + 1, text, flags) == 0) return 0;
            while (*text++);
            return 1;
        }
        if (!*text || (*pattern != '?' && *pattern != *text)) return 1;
    }
    return *text != '\0';
}

void *memmem(const void *data, size_t size, const void *key, size_t key_size) {
    for (const char *at = data; size >= key_size; at++, size--)
        if (memcmp(at, key, key_size) == 0) return (void *)at;
    return NULL;
}

ssize_t pwrite(int file, const void *data, size_t size, long long at) {
    if (_lseeki64(file, at, SEEK_SET) < 0) return -1;
    return _write(file, data, (unsigned)size);
}

int alphasort(const struct dirent **a, const struct dirent **b) { return strcmp((*a)->d_name, (*b)->d_name); }

int pipe(int ends[2]) { return _pipe(ends, 65536, _O_BINARY); }

/* The blocks of aligned_alloc(). Few at a time: a list without order will do. */
enum { MOST_ALIGNED = 4096 };
static void *aligned[MOST_ALIGNED];
static SRWLOCK aligned_lock = SRWLOCK_INIT;

/* Replaces `old` in the list, NULL being a free place. */
static int replace_aligned(void *old, void *block) {
    int found = 0;
    AcquireSRWLockExclusive(&aligned_lock);
    for (size_t i = 0; !found && i < MOST_ALIGNED; i++)
        if (aligned[i] == old) aligned[i] = block, found = 1;
    ReleaseSRWLockExclusive(&aligned_lock);
    return found;
}

void *aligned_alloc(size_t alignment, size_t size) {
    void *block = _aligned_malloc(size, alignment);
    if (!block || replace_aligned(NULL, block)) return block;
    _aligned_free(block);
    return NULL;
}

int posix_memalign(void **block, size_t alignment, size_t size) {
    *block = aligned_alloc(alignment, size);
    return *block ? 0 : ENOMEM;
}

void windows_free(void *block) {
    if (block && replace_aligned(block, NULL))
        _aligned_free(block);
    else
        free(block);
}

static DWORD protection_of(int protection) {
    return (protection & PROT_WRITE) ? PAGE_READWRITE : (protection & PROT_READ) ? PAGE_READONLY : PAGE_NOACCESS;
}

void *mmap(void *at, size_t size, int protection, int flags, int file, long long offset) {
    (void)at, (void)offset;
    void *pages = file == -1 && (flags & MAP_ANONYMOUS)
                      ? VirtualAlloc(NULL, size, MEM_RESERVE | MEM_COMMIT, protection_of(protection))
                      : NULL;
    return pages ? pages : MAP_FAILED;
}

int mprotect(void *at, size_t size, int protection) {
    DWORD before;
    return VirtualProtect(at, size, protection_of(protection), &before) ? 0 : -1;
}

int munmap(void *at, size_t size) {
    (void)size;
    return VirtualFree(at, 0, MEM_RELEASE) ? 0 : -1;
}

long sysconf(int name) {
    SYSTEM_INFO info;
    (void)name;
    GetSystemInfo(&info);
    return (long)info.dwPageSize;
}

int windows_jump;
static void (*on_fault)(int);

/* The thread goes on in the handler, as if it had been called where the fault is. */
static LONG CALLBACK go_to_handler(EXCEPTION_POINTERS *exception) {
    enum { ALIGNED = 16, RETURN_ADDRESS = 8, RED_ZONE = 256 };
    CONTEXT *context = exception->ContextRecord;
    if (exception->ExceptionRecord->ExceptionCode != EXCEPTION_ACCESS_VIOLATION) return EXCEPTION_CONTINUE_SEARCH;
    context->Rsp = ((context->Rsp - RED_ZONE) & ~(DWORD64)(ALIGNED - 1)) - RETURN_ADDRESS;
    context->Rip = (DWORD64)(uintptr_t)on_fault;
    context->Rcx = SIGSEGV;
    return EXCEPTION_CONTINUE_EXECUTION;
}

void windows_signal(int number, void (*handler)(int number)) {
    if (number != SIGSEGV || handler == SIG_DFL) {
        signal(number, handler);
    } else {
        if (!on_fault) AddVectoredExceptionHandler(1, go_to_handler);
        on_fault = handler;
    }
}

int windows_sigaction(int number, const struct sigaction *action, struct sigaction *old) {
    void (*before)(int) = action ? signal(number, action->sa_handler) : SIG_DFL;
    if (before == SIG_ERR) return -1;
    if (old) *old = (struct sigaction){.sa_handler = before};
    return 0;
}
