/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The functions of posix.h. */
#include "posix.h"

#include <errno.h>
#include <windows.h>

#undef fopen
#undef rename
#undef remove

ssize_t getline(char **line, size_t *capacity, FILE *file) {
    size_t n = 0;
    int c;
    do {
        c = getc(file);
        if (c == EOF && n == 0) return -1;
        if (n + 2 > *capacity) {
            char *grown = realloc(*line, 2 * *capacity + 128);
            if (!grown) return -1;
            *line = grown;
            *capacity = 2 * *capacity + 128;
        }
        if (c != EOF) (*line)[n++] = (char)c;
    } while (c != EOF && c != '\n');
    (*line)[n] = '\0';
    return ferror(file) ? -1 : (ssize_t)n;
}

char *stpcpy(char *to, const char *from) {
    const size_t n = strlen(from);
    memcpy(to, from, n + 1);
    return to + n;
}

char *strndup(const char *text, size_t size) {
    const size_t n = strnlen(text, size);
    char *copy = malloc(n + 1);
    if (!copy) return NULL;
    memcpy(copy, text, n);
    copy[n] = '\0';
    return copy;
}

static int add_entry(struct dirent ***list, int n, const struct dirent *entry) {
    struct dirent *copy = malloc(sizeof *copy), **grown = realloc(*list, ((size_t)n + 1) * sizeof **list);
    if (grown) *list = grown;
    if (!copy || !grown) {
        free(copy);
        errno = ENOMEM;
        return 0;
    }
    *copy = *entry;
    grown[n] = copy;
    return 1;
}

int scandir(const char *folder, struct dirent ***entries, int (*is_wanted)(const struct dirent *entry),
            int (*compare)(const struct dirent **a, const struct dirent **b)) {
    DIR *open = opendir(folder);
    int n = 0, done = 1;
    *entries = NULL;
    if (!open) return -1;
    for (struct dirent *entry; done && (entry = readdir(open));)
        if (!is_wanted || is_wanted(entry)) {
            done = add_entry(entries, n, entry);
            n += done;
        }
    closedir(open);
    if (!done) {
        while (n > 0) free((*entries)[--n]);
        free(*entries);
        return -1;
    }
    if (n > 0) qsort(*entries, (size_t)n, sizeof **entries, (int (*)(const void *, const void *))compare);
    return n;
}

ssize_t pread(int file, void *out, size_t size, int64_t at) {
    const int64_t before = _lseeki64(file, 0, SEEK_CUR);
    if (before < 0 || _lseeki64(file, at, SEEK_SET) < 0) return -1;
    const int n = _read(file, out, size < INT32_MAX ? (unsigned)size : INT32_MAX);
    return _lseeki64(file, before, SEEK_SET) < 0 ? -1 : n;
}

FILE *windows_fopen(const char *path, const char *mode) {
    char known[8];
    size_t n = 0;
    for (; *mode && n < sizeof known - 1; mode++)
        if (*mode != 'e') known[n++] = *mode;
    known[n] = '\0';
    return fopen(path, known);
}

int windows_rename(const char *from, const char *to) {
    if (MoveFileExA(from, to, MOVEFILE_REPLACE_EXISTING)) return 0;
    errno = GetLastError() == ERROR_FILE_NOT_FOUND || GetLastError() == ERROR_PATH_NOT_FOUND ? ENOENT : EACCES;
    return -1;
}

int windows_remove(const char *path) {
    const DWORD attributes = GetFileAttributesA(path);
    if (attributes != INVALID_FILE_ATTRIBUTES && (attributes & FILE_ATTRIBUTE_DIRECTORY)) return _rmdir(path);
    return remove(path);
}
