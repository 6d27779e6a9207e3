/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * What mingw-w64 lacks of POSIX and tests use, beside examples/tool/windows/posix.h: the build includes it before each
 * file of theirs. What Windows can do is done here. What it cannot do (fork(), limits, links, signals) fails, so that a
 * file with one such test among others compiles; ../../windows_left_out.txt names these tests, and they do not run.
 */
#ifndef TESTS_SUPPORT_WINDOWS_LACKS_H
#define TESTS_SUPPORT_WINDOWS_LACKS_H

#include "../../../examples/tool/windows/posix.h"

#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/types.h>
#include <unistd.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- as POSIX has it ---- */

char *mkdtemp(char *name);
int windows_mkstemp(char *name); /* the file goes with its descriptor: an open one cannot be unlinked */
#undef mkstemp
#define mkstemp(name) windows_mkstemp(name)
/* The name is free at once, also of a file that is open: that goes under another name. */
int windows_unlink(const char *name);
#define unlink windows_unlink
int setenv(const char *name, const char *value, int overwrite);
int unsetenv(const char *name);
int vdprintf(int file, const char *format, va_list arguments);
#define dprintf windows_dprintf
int windows_dprintf(int file, const char *format, ...);
int fnmatch(const char *pattern, const char *text, int flags); /* with * and ? alone */
int pipe(int ends[2]);
ssize_t pwrite(int file, const void *data, size_t size, long long at);
int alphasort(const struct dirent **a, const struct dirent **b);
/* Of which free() knows, as it is here. */
void *aligned_alloc(size_t alignment, size_t size);
int posix_memalign(void **block, size_t alignment, size_t size);
#ifndef __cplusplus
void windows_free(void *block);
#define free windows_free
#endif
void *memmem(const void *data, size_t size, const void *key, size_t key_size);

/* Anonymous memory alone. */
enum { PROT_NONE = 0, PROT_READ = 1, PROT_WRITE = 2, MAP_PRIVATE = 2, MAP_ANONYMOUS = 0x20 };
#define MAP_FAILED ((void *)-1)
void *mmap(void *at, size_t size, int protection, int flags, int file, long long offset);
int mprotect(void *at, size_t size, int protection);
int munmap(void *at, size_t size);

#ifndef PTHREAD_STACK_MIN
#define PTHREAD_STACK_MIN 65536
#endif
enum { _SC_PAGESIZE = 1 };
long sysconf(int name);

/* signal(), and of SIGSEGV one that stays, and that siglongjmp() may leave. */
void windows_signal(int number, void (*handler)(int number));
#define signal windows_signal
typedef void *sigjmp_buf[5];
extern int windows_jump;
#define sigsetjmp(buffer, mask) (__builtin_setjmp(buffer) ? windows_jump : 0)
#define siglongjmp(buffer, number) (windows_jump = (number), __builtin_longjmp(buffer, 1))

/* ---- what fails ---- */

enum { SIGBUS = 107, SIGUSR1, SIGUSR2, SIGHUP, SIGPIPE, SIGKILL, SIGCHLD };
#ifndef SIGALRM
#define SIGALRM 14
#endif
enum { SA_RESETHAND = 1, SA_RESTART = 2, SIG_BLOCK = 0, SIG_UNBLOCK, SIG_SETMASK };
typedef struct sigset_none {
    char none;
} sigset_none;
#define sigset_t sigset_none
typedef struct siginfo_t {
    void *si_addr;
} siginfo_t;
struct sigaction {
    void (*sa_handler)(int number);
    int sa_flags;
    sigset_t sa_mask;
};
/* signal(), which is all that there is. */
int windows_sigaction(int number, const struct sigaction *action, struct sigaction *old);
#define sigaction(number, action, old) windows_sigaction(number, action, old)
static inline int sigemptyset(sigset_t *set) { return set ? 0 : -1; }
static inline int sigfillset(sigset_t *set) { return set ? 0 : -1; }
static inline int sigaddset(sigset_t *set, int number) { return set && number ? 0 : -1; }
#undef pthread_sigmask
static inline int windows_sigmask(int how, const sigset_t *set, sigset_t *old) { return how && set && old ? 0 : 0; }
#define pthread_sigmask windows_sigmask
#define sigprocmask windows_sigmask
static inline int kill(pid_t process, int number) { return process && number ? -1 : -1; }
#define alarm windows_alarm
static inline unsigned windows_alarm(unsigned seconds) { return seconds ? 0 : 0; }

static inline pid_t fork(void) { return -1; }
static inline pid_t waitpid(pid_t child, int *status, int how) {
    (void)child, (void)how;
    *status = -1;
    return -1;
}
#define WIFEXITED(status) ((status) == 0)
#define WEXITSTATUS(status) (status)
#define WIFSIGNALED(status) ((status) != 0)
#define WTERMSIG(status) (status)
#define WNOHANG 1
enum { RUSAGE_SELF, _SC_NPROCESSORS_ONLN = 2 };
struct rusage {
    long ru_maxrss;
};
static inline int getrusage(int who, struct rusage *usage) {
    usage->ru_maxrss = who;
    return -1;
}

static inline int symlink(const char *to, const char *name) { return to && name ? -1 : -1; }
static inline int mkfifo(const char *name, int mode) { return name && mode ? -1 : -1; }
enum { O_DIRECTORY = 0 };
enum { LOCK_EX = 2, LOCK_NB = 4 };
static inline int flock(int file, int how) { return file && how ? -1 : -1; }
static inline int geteuid(void) { return 1; }
static inline int setuid(int user) { return user ? -1 : -1; }
static inline int setgid(int group) { return group ? -1 : -1; }
static inline int setgroups(size_t n, const void *groups) { return n && groups ? -1 : -1; }

typedef unsigned long long rlim_t;
struct rlimit {
    rlim_t rlim_cur, rlim_max;
};
enum { RLIMIT_FSIZE, RLIMIT_NPROC, RLIMIT_AS, RLIMIT_NOFILE };
#define RLIM_INFINITY (~0ULL)
static inline int getrlimit(int what, struct rlimit *limit) {
    *limit = (struct rlimit){0, 0};
    return what ? -1 : -1;
}
static inline int setrlimit(int what, const struct rlimit *limit) { return what && limit ? -1 : -1; }

static inline int feenableexcept(int which) { return which ? -1 : -1; }
static inline int fedisableexcept(int which) { return which ? -1 : -1; }
static inline int fegetexcept(void) { return 0; }

#ifdef __cplusplus
}
#endif
#endif
