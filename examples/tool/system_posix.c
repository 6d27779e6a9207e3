/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The tool's system calls, by POSIX. */
#include "system.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

/* Closed descriptors 0 to 2 would be given to the next files that are opened, and messages written into those. These
 * take no writing either, so a closed stdout stays an error. */
static void fill_standard_files(void) {
    for (int fd = 0; fd <= 2; fd++)
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF && open("/dev/null", O_RDONLY) < 0) return;
}

void tool_system_start(void) {
    fill_standard_files();
    signal(SIGPIPE, SIG_IGN); /* a closed pipe is then a write error: status 1, no signal */
    signal(SIGXFSZ, SIG_IGN); /* and so is a file that the limits do not allow */
}

int tool_terminal_columns(void) {
    struct winsize window;
    return ioctl(STDERR_FILENO, TIOCGWINSZ, &window) == 0 ? window.ws_col : 0;
}

int tool_cpu_count(void) { return (int)sysconf(_SC_NPROCESSORS_ONLN); }

void *tool_pages_alloc(size_t size) {
    void *pages = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return pages == MAP_FAILED ? NULL : pages;
}

void tool_pages_huge(void *pages, size_t size) {
#ifdef MADV_HUGEPAGE
    (void)madvise(pages, size, MADV_HUGEPAGE);
#else
    (void)pages, (void)size;
#endif
}

void tool_pages_free(void *pages, size_t size) { munmap(pages, size); }

int tool_wait_to_read(int file, int milliseconds) {
    struct pollfd waiting = {.fd = file, .events = POLLIN};
    const int n = poll(&waiting, 1, milliseconds);
    return n < 0 && errno == EINTR ? 0 : n;
}

int tool_lock_is_taken(int file) { return flock(file, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK; }

int tool_sync(int file) { return fdatasync(file); }

int tool_folder_of(const char *path, const struct stat *found, tool_folder *out) {
    (void)path;
    *out = (tool_folder){(uint64_t)found->st_dev, (uint64_t)found->st_ino};
    return 1;
}

int tool_thread_start(pthread_t *thread, void *(*body)(void *user), void *user) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    const int error = pthread_create(thread, NULL, body, user);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error;
}

void tool_condition_init(pthread_cond_t *condition) {
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(condition, &monotonic);
    pthread_condattr_destroy(&monotonic);
}

int tool_condition_wait(pthread_cond_t *condition, pthread_mutex_t *mutex, int milliseconds) {
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += milliseconds * 1000000L;
    until.tv_sec += until.tv_nsec / 1000000000L;
    until.tv_nsec %= 1000000000L;
    return pthread_cond_timedwait(condition, mutex, &until);
}

int tool_is_slash(char c) { return c == '/'; }

char *tool_last_slash(const char *path) { return strrchr(path, '/'); }

int tool_is_absolute(const char *path) { return *path == '/'; }
