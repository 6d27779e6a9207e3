/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* What the tool asks the operating system for beside the C library: system_posix.c and system_windows.c. */
#ifndef PALIGEMMA_TOOL_SYSTEM_H
#define PALIGEMMA_TOOL_SYSTEM_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

/* The first call of the program: the standard files are open, a write that fails is an error and no signal, text is
 * UTF-8, and bytes are written as they are. */
void tool_system_start(void);

/* Columns of the terminal of stderr; 0: not known. */
int tool_terminal_columns(void);

int tool_cpu_count(void);

/* Zeroed memory of whole pages; NULL: there is none. */
void *tool_pages_alloc(size_t size);
/* Asks for huge pages, where the system has them. */
void tool_pages_huge(void *pages, size_t size);
void tool_pages_free(void *pages, size_t size);

/* Waits until there is something to read, or the end. 1: there is, 0: the time is over, or a signal came; -1: errno. */
int tool_wait_to_read(int file, int milliseconds);

/* Whether another process has locked the file; else it is ours now, where it can be locked at all. */
int tool_lock_is_taken(int file);
/* To the disk. 0, or -1 and errno. */
int tool_sync(int file);

/* Which folder it is, whatever its name; found: of its stat(). 0: it cannot be told. */
typedef struct tool_folder {
    uint64_t device, number;
} tool_folder;
int tool_folder_of(const char *path, const struct stat *found, tool_folder *out);

/* A thread that gets no signals. 0: it runs. */
int tool_thread_start(pthread_t *thread, void *(*body)(void *user), void *user);
void tool_condition_init(pthread_cond_t *condition);
/* 0: signalled. */
int tool_condition_wait(pthread_cond_t *condition, pthread_mutex_t *mutex, int milliseconds);

/* Paths. */
int tool_is_slash(char c);
/* The last of a path, or NULL. */
char *tool_last_slash(const char *path);
int tool_is_absolute(const char *path);

#endif
