/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Faults of the system under each public call: memory, mappings, files and threads. For every call and every kind of
 * fault, the fault comes at the first call of its kind, then at the second, and so on until the public call gets
 * through; then everything is closed. Each time a status comes back, with a message; descriptors, mappings and memory
 * are as many as before; and the same handles serve the next try. A process that dies is a failure, but for the reasons
 * listed in `known`.
 *
 *     faults                    all calls
 *     faults CALL [KIND]        one; says what each fault gave
 *
 * The functions of the C library are defined here, in the program, and so found before its own. With a sanitizer, which
 * has a malloc of its own, malloc does not fail.
 */
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fault_calls.h"
#include "sanitized.h"

#if defined(__GLIBC__) && !defined(SANITIZED)
#define OWN_MALLOC 1
#endif

typedef enum fault {
    MALLOC,
    MMAP,
    OPEN,
    OPEN_EINTR,
    READ,
    READ_SHORT,
    READ_EINTR,
    WRITE,
    FSYNC,
    RENAME,
    THREAD,
    N_FAULTS
} fault;

static const char *const fault_names[] = {"malloc",     "mmap",  "open",  "open-eintr", "read",  "read-short",
                                          "read-eintr", "write", "fsync", "rename",     "thread"};

/* Where a process may die, or keep memory, through no code of ours. */
typedef enum harm { DIES, KEEPS_MEMORY } harm;
static const struct {
    fault fault;
    harm harm;
    const char *call; /* a part of its name */
    const char *why;
} known[] = {
#ifdef WITH_LIBGOMP
    {MALLOC, DIES, "threads", "libgomp: \"Out of memory allocating N bytes\", exit(1)"},
    {THREAD, DIES, "threads", "libgomp: \"Thread creation failed\", exit(1)"},
#endif
#ifdef PGI_SENTENCEPIECE
    {MALLOC, DIES, "processor_open_sentencepiece", "protobuf's destructor of a half-made message ends the process"},
    {MALLOC, KEEPS_MEMORY, "tokenize_sentencepiece", "a half-made message of protobuf is given up"},
#endif
    {N_FAULTS, DIES, NULL, NULL}, /* the end: a build without both has no other line */
};

static const char *known_reason(fault kind, harm what, const char *call) {
    for (size_t i = 0; known[i].call; i++)
        if (known[i].fault == kind && known[i].harm == what && strstr(call, known[i].call)) return known[i].why;
    return NULL;
}

/* ------------------------------------------------------------------------------------------------- interposition */

static atomic_int armed;
static atomic_llong n_calls, fail_at, n_blocks, n_mapped;

/* 1: this call is the one that fails. */
static int faulty(fault kind) {
    if (atomic_load(&armed) != (int)kind + 1) return 0;
    return atomic_fetch_add(&n_calls, 1) + 1 == atomic_load(&fail_at);
}

#ifdef OWN_MALLOC
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *block, size_t size);
void *__libc_memalign(size_t alignment, size_t size);
void __libc_free(void *block);

static void *counted(void *block) {
    if (block) atomic_fetch_add(&n_blocks, 1);
    return block;
}
static int refused(void) {
    if (!faulty(MALLOC)) return 0;
    errno = ENOMEM;
    return 1;
}
void *malloc(size_t size) { return refused() ? NULL : counted(__libc_malloc(size)); }
void *calloc(size_t n, size_t size) { return refused() ? NULL : counted(__libc_calloc(n, size)); }
void *realloc(void *block, size_t size) {
    if (refused()) return NULL;
    void *moved = __libc_realloc(block, size);
    return block ? moved : counted(moved);
}
void *aligned_alloc(size_t alignment, size_t size) {
    return refused() ? NULL : counted(__libc_memalign(alignment, size));
}
int posix_memalign(void **out, size_t alignment, size_t size) {
    if (refused()) return ENOMEM;
    *out = counted(__libc_memalign(alignment, size));
    return *out ? 0 : ENOMEM;
}
void free(void *block) {
    if (block) atomic_fetch_sub(&n_blocks, 1);
    __libc_free(block);
}
#endif

void *mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset) {
    if (faulty(MMAP)) {
        errno = ENOMEM;
        return MAP_FAILED;
    }
    void *mapped = (void *)syscall(SYS_mmap, at, size, protection, flags, fd, offset); /* NOLINT */
    if (mapped != MAP_FAILED) atomic_fetch_add(&n_mapped, 1);
    return mapped;
}
/* What malloc maps, and ends, it does inside of the C library. */
int munmap(void *at, size_t size) {
    atomic_fetch_sub(&n_mapped, 1);
    return (int)syscall(SYS_munmap, at, size);
}

static int open_fault(void) {
    if (faulty(OPEN))
        errno = EMFILE;
    else if (faulty(OPEN_EINTR))
        errno = EINTR;
    else
        return 0;
    return 1;
}
int open(const char *path, int flags, ...) {
    va_list arguments;
    va_start(arguments, flags);
    const mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(arguments, mode_t) : 0;
    va_end(arguments);
    return open_fault() ? -1 : (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}
int openat(int folder, const char *path, int flags, ...) {
    va_list arguments;
    va_start(arguments, flags);
    const mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(arguments, mode_t) : 0;
    va_end(arguments);
    return open_fault() ? -1 : (int)syscall(SYS_openat, folder, path, flags, mode);
}

/* How many of `size` bytes are to be read; -1: none, with errno. */
static ssize_t read_fault(size_t size) {
    if (faulty(READ)) return errno = EIO, -1;
    if (faulty(READ_EINTR)) return errno = EINTR, -1;
    return faulty(READ_SHORT) ? (ssize_t)((size + 1) / 2) : (ssize_t)size;
}
ssize_t read(int fd, void *data, size_t size) {
    const ssize_t n = read_fault(size);
    return n < 0 ? n : syscall(SYS_read, fd, data, (size_t)n);
}
ssize_t pread(int fd, void *data, size_t size, off_t at) {
    const ssize_t n = read_fault(size);
    return n < 0 ? n : syscall(SYS_pread64, fd, data, (size_t)n, at);
}
static int write_fault(void) {
    if (!faulty(WRITE)) return 0;
    errno = ENOSPC;
    return 1;
}
ssize_t write(int fd, const void *data, size_t size) { return write_fault() ? -1 : syscall(SYS_write, fd, data, size); }
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
    return write_fault() ? -1 : syscall(SYS_pwrite64, fd, data, size, at);
}
int fsync(int fd) {
    (void)fd; /* nothing here loses power */
    if (!faulty(FSYNC)) return 0;
    errno = EIO;
    return -1;
}
int rename(const char *from, const char *to) {
    if (!faulty(RENAME)) return (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
    errno = EIO;
    return -1;
}

#ifdef OWN_MALLOC /* sanitizers have a pthread_create of their own too */
typedef int (*thread_create_fn)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *argument) {
    static thread_create_fn real;
    if (faulty(THREAD)) return EAGAIN;
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "pthread_create");
    return real(thread, attributes, start, argument);
}
#endif

/* ---------------------------------------------------------------------------------------------------- one trial */

enum { MAX_FAULTS = 20000, MAX_BLOCKS_KEPT = 40, TRIAL_SECONDS = 60, MAX_DEATHS = 20 };

/* What the child tells: where it is, and what came of it. */
typedef struct report {
    int64_t at, n_failed;
    int done, bad;
} report;
static report *shared;
static int verbose;

static int count_descriptors(void) {
    int n = 0;
    DIR *folder = opendir("/proc/self/fd");
    if (!folder) return 0;
    while (readdir(folder)) n++;
    closedir(folder);
    return n;
}

static void bad(const char *call, fault kind, int64_t n, const char *what) {
    say("FAIL %s, %s number %lld: %s (%s)\n", call, fault_names[kind], (long long)n, what, pg_last_error());
    shared->bad++;
}

/* May the call get through in spite of this fault? It must where a second try is what it takes. */
static void check_status(const fault_call *call, fault kind, int64_t n, pg_status status) {
    const int harmless = kind == OPEN_EINTR || kind == READ_SHORT || kind == READ_EINTR || kind == THREAD;
    if (verbose)
        say("  %s %lld: %s %s\n", fault_names[kind], (long long)n, pg_status_name(status),
            status < 0 ? pg_last_error() : "");
    if (status >= 0) return;
    shared->n_failed++;
    const char *wrong = bad_error(status);
    if (wrong)
        bad(call->name, kind, n, wrong);
    else if (error_is_stale())
        bad(call->name, kind, n, "failed without a message of its own");
    else if (harmless && !(kind == THREAD && n == 1 && strcmp(call->name, "worker") == 0)) /* which needs one */
        bad(call->name, kind, n, "needs no failure");
    else if (kind == MALLOC && status != PG_ERROR_MEMORY)
        bad(call->name, kind, n, "is not PG_ERROR_MEMORY");
}

/* In a child: faults from `first` on, until the call gets through without one. */
static void try_all(const fault_call *call, fault kind, int64_t first) {
    fault_world world;
    capture_begin(); /* the library is silent, whatever happens */
    fault_world_open(&world);
    if (call->run(&world) < 0) {
        bad(call->name, kind, 0, "fails without a fault");
        _exit(0);
    }
    const int descriptors = count_descriptors();
    const long long mapped = n_mapped, blocks = n_blocks, live = fault_memory.n_live;
    for (int64_t n = first; n < MAX_FAULTS; n = next_fault(n)) {
        shared->at = n;
        alarm(TRIAL_SECONDS);
        stale_error();
        atomic_store(&n_calls, 0);
        atomic_store(&fail_at, n);
        atomic_store(&armed, (int)kind + 1);
        const pg_status status = call->run(&world);
        atomic_store(&armed, 0);
        if (atomic_load(&n_calls) < n) break;
        check_status(call, kind, n, status);
        if (fault_memory.n_live != live) bad(call->name, kind, n, "keeps memory of the allocator");
        if (count_descriptors() != descriptors) bad(call->name, kind, n, "leaves a descriptor");
        if (n_mapped != mapped) bad(call->name, kind, n, "leaves a mapping");
        if (shared->bad > 5) _exit(0);
    }
    if (call->run(&world) < 0) bad(call->name, kind, shared->at, "the same handles do not serve a next call");
    if (n_blocks - blocks > MAX_BLOCKS_KEPT && !known_reason(kind, KEEPS_MEMORY, call->name)) {
        say("%lld blocks of malloc more than before\n", (long long)(n_blocks - blocks));
        bad(call->name, kind, shared->at, "memory of malloc is kept");
    }
    fault_world_close(&world);
    if (!counter_clean(&fault_memory)) bad(call->name, kind, shared->at, "something is kept after closing");
    if (capture_end()) bad(call->name, kind, shared->at, "something was printed");
    shared->done = 1;
    _exit(0);
}

/* Returns the number of failures. A death whose reason is known costs a new process, and the next fault. */
static int run_call(const fault_call *call, fault kind) {
    int deaths = 0;
    int64_t first = 1;
    memset(shared, 0, sizeof *shared);
    while (!shared->done) {
        int status = 0;
        const pid_t child = fork();
        if (child < 0) return 1;
        if (child == 0) try_all(call, kind, first);
        if (waitpid(child, &status, 0) != child) return 1;
        if (WIFEXITED(status) && WEXITSTATUS(status) == 0) break;
        if (++deaths > MAX_DEATHS) break;
        if (!known_reason(kind, DIES, call->name)) {
            say("FAIL %s, %s number %lld: the process dies (%s %d)\n", call->name, fault_names[kind],
                (long long)shared->at, WIFSIGNALED(status) ? "signal" : "exit",
                WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
            return shared->bad + 1;
        }
        first = shared->at + 1;
    }
    if (deaths)
        say("known: %s, %s: the process dies, %d times%s: %s\n", call->name, fault_names[kind], deaths,
            deaths > MAX_DEATHS ? " and no more tried" : "", known_reason(kind, DIES, call->name));
    return shared->bad;
}

int main(int argc, char **argv) {
    int failures = 0, found = 0;
    long long total = 0, survived[N_FAULTS] = {0};
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED) return 99;
    verbose = argc > 1;
    fault_files_make();
    for (size_t i = 0; i < n_fault_calls; i++) {
        if (argc > 1 && strcmp(argv[1], fault_calls[i].name) != 0) continue;
        found = 1;
        for (fault kind = 0; kind < N_FAULTS; kind++) {
            if (argc > 2 && strcmp(argv[2], fault_names[kind]) != 0) continue;
#ifndef OWN_MALLOC
            if (kind == MALLOC || kind == THREAD) continue;
#endif
            failures += run_call(&fault_calls[i], kind);
            survived[kind] += shared->n_failed;
            total += shared->at;
        }
    }
    fault_files_remove();
    for (fault kind = 0; kind < N_FAULTS; kind++) say("%s: %lld errors came back\n", fault_names[kind], survived[kind]);
    say("%lld faults, %d failures\n", total, failures);
    return failures || !found || (argc == 1 && total < 500);
}
