/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* What mingw-w64 lacks of POSIX, for the tool and the tests: the build includes this file before each of theirs. */
#ifndef PALIGEMMA_WINDOWS_POSIX_H
#define PALIGEMMA_WINDOWS_POSIX_H
#ifndef __cplusplus /* names such as rename() are std's there */

#define tell io_tell /* a word that is free elsewhere */
#include <direct.h>
#include <dirent.h>
#include <fcntl.h>
#include <io.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#undef tell

#define O_CLOEXEC O_NOINHERIT
#define O_NONBLOCK 0 /* opening waits for nothing here */

ssize_t getline(char **line, size_t *capacity, FILE *file);
char *stpcpy(char *to, const char *from);
char *strndup(const char *text, size_t size);
int scandir(const char *folder, struct dirent ***entries, int (*is_wanted)(const struct dirent *entry),
            int (*compare)(const struct dirent **a, const struct dirent **b));
ssize_t pread(int file, void *out, size_t size, int64_t at);
#define getc_unlocked(file) getc(file)

/* Modes with 'e', which closes a file where a program is started. */
FILE *windows_fopen(const char *path, const char *mode);
#define fopen windows_fopen

/* In the place of a file that is there, too. */
int windows_rename(const char *from, const char *to);
#define rename windows_rename

/* Of folders, too. */
int windows_remove(const char *path);
#define remove windows_remove

/* Folders have no mode. */
static inline int windows_mkdir(const char *path, int mode) {
    (void)mode;
    return _mkdir(path);
}
#define mkdir(path, mode) windows_mkdir(path, mode)

#endif
#endif
