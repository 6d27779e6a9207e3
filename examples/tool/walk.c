/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Which images there are: arguments, folders with all that lies in them, lists of names. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "walk.h"

enum { DEEPEST = 200 /* folders in folders */ };

/* Takes `path` and `error`, both malloc'ed. 0: no memory. */
static int add(tool_list *list, char *path, size_t base, char *error) {
    if (path && list->n == list->capacity) {
        const size_t capacity = 2 * list->capacity + 16;
        tool_listed *grown = realloc(list->items, capacity * sizeof *grown);
        if (grown) list->items = grown, list->capacity = capacity;
    }
    if (!path || list->n == list->capacity) {
        free(path);
        free(error);
        return 0;
    }
    list->items[list->n++] = (tool_listed){.path = path, .base = base, .error = error};
    return 1;
}

static int add_failed(tool_list *list, const char *path, size_t base, const char *what) {
    char *error = NULL;
    if (asprintf(&error, "%s: %s", path, what) < 0) return 0;
    return add(list, strdup(path), base, error);
}

int tool_list_visited(tool_list *list, const char *path, const struct stat *found) {
    tool_folder folder;
    if (!tool_folder_of(path, found, &folder)) return 0;
    for (size_t i = 0; i < list->n_visited; i++)
        if (list->visited[i].device == folder.device && list->visited[i].number == folder.number) return 1;
    if ((list->n_visited & (list->n_visited + 1)) == 0) { /* 1, 3, 7, ... are full */
        tool_folder *grown = realloc(list->visited, 2 * (list->n_visited + 1) * sizeof *grown);
        if (!grown) return 1;
        list->visited = grown;
    }
    list->visited[list->n_visited++] = folder;
    return 0;
}

static int has_image_name(const char *name) {
    static const char *const endings[] = {".png", ".jpg", ".jpeg", ".jpe", ".jfif"};
    const char *dot = strrchr(name, '.');
    for (size_t i = 0; dot && i < sizeof endings / sizeof *endings; i++)
        if (strcasecmp(dot, endings[i]) == 0) return 1;
    return 0;
}

int tool_is_image_name(const char *argument) {
    struct stat found;
    return has_image_name(argument) || (strpbrk(argument, "./") && stat(argument, &found) == 0);
}

int tool_has_image_bytes(const char *path) {
    unsigned char first[8] = {0};
    const int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file < 0) return 0;
    const ssize_t n = read(file, first, sizeof first);
    close(file);
    return (n == 8 && memcmp(first, "\x89PNG\r\n\x1A\n", 8) == 0) || (n >= 3 && memcmp(first, "\xFF\xD8\xFF", 3) == 0);
}

static int by_bytes(const struct dirent **a, const struct dirent **b) { return strcmp((*a)->d_name, (*b)->d_name); }

static int is_shown(const struct dirent *entry) { return entry->d_name[0] != '.'; }

static int walk(tool_list *list, const char *folder, size_t base, int depth);

static int walk_entry(tool_list *list, const char *path, size_t base, int depth) {
    struct stat found;
    if (stat(path, &found) != 0) /* a link to nothing; one that promises an image is told */
        return has_image_name(path) ? add_failed(list, path, base, strerror(errno)) : 1;
    if (S_ISDIR(found.st_mode)) {
        if (tool_list_visited(list, path, &found)) return 1; /* a link back to it: once is enough */
        return depth == DEEPEST ? add_failed(list, path, base, "too many folders in folders")
                                : walk(list, path, base, depth + 1);
    }
    if (!S_ISREG(found.st_mode)) return 1; /* a pipe in a folder would be waited for */
    if (has_image_name(path) || tool_has_image_bytes(path)) return add(list, strdup(path), base, NULL);
    list->n_left_out++;
    return 1;
}

static int walk(tool_list *list, const char *folder, size_t base, int depth) {
    struct dirent **entries = NULL;
    const size_t size = strlen(folder);
    const int n = scandir(folder, &entries, is_shown, by_bytes);
    if (n < 0) return errno == ENOMEM ? 0 : add_failed(list, folder, base, strerror(errno));
    int done = 1;
    for (int i = 0; i < n; i++) {
        char *path = NULL;
        if (done && asprintf(&path, "%s%s%s", folder, size && tool_is_slash(folder[size - 1]) ? "" : "/",
                             entries[i]->d_name) < 0)
            path = NULL;
        done = done && path && walk_entry(list, path, base, depth);
        free(path);
        free(entries[i]);
    }
    free(entries);
    return done;
}

int tool_list_add(tool_list *list, const char *path) {
    struct stat found;
    const size_t size = strlen(path), before = list->n;
    if (strcmp(path, "-") == 0 || stat(path, &found) != 0 || !S_ISDIR(found.st_mode)) {
        const char *slash = tool_last_slash(path);
        return add(list, strdup(path), slash ? (size_t)(slash + 1 - path) : 0, NULL);
    }
    list->n_folders++;
    if (tool_list_visited(list, path, &found)) return 1;
    const int done = walk(list, path, size + (size && !tool_is_slash(path[size - 1])), 0);
    return done && list->n == before ? add_failed(list, path, 0, "no PNG or JPEG file in this folder") : done;
}

/* All bytes of a list, with a closing NUL. NULL: told. */
static char *read_list(FILE *file, const char *name, size_t *size) {
    char *text = NULL;
    size_t used = 0, capacity = 0;
    do {
        if (used == capacity) {
            char *grown = realloc(text, (capacity = 2 * capacity + (1 << 16)) + 1);
            if (!grown) {
                tool_fail_text("%s: no memory for the list of images", name);
                free(text);
                return NULL;
            }
            text = grown;
        }
        used += fread(text + used, 1, capacity - used, file);
    } while (used == capacity);
    if (ferror(file)) {
        tool_fail_text("%s: %s", name, strerror(errno));
        free(text);
        return NULL;
    }
    text[ *size = used] = '\0';
    return text;
}

int tool_list_add_from(tool_list *list, const char *name) {
    const int is_stdin = strcmp(name, "-") == 0;
    size_t size = 0;
    FILE *file = is_stdin ? stdin : fopen(name, "rbe");
    if (!file) return tool_fail_text("%s: %s", name, strerror(errno)) == TOOL_OK;
    char *text = read_list(file, is_stdin ? "stdin" : name, &size);
    if (!is_stdin) fclose(file);
    if (!text) return 0;
    const char separator = memchr(text, '\0', size) ? '\0' : '\n'; /* find -print0 */
    int done = 1;
    for (size_t from = 0; done && from < size;) {
        const char *end = memchr(text + from, separator, size - from);
        const size_t next = end ? (size_t)(end - text) : size;
        text[next] = '\0';
        if (separator == '\n' && next > from && text[next - 1] == '\r') text[next - 1] = '\0';
        if (text[from]) done = tool_list_add(list, text + from);
        from = next + 1;
    }
    free(text);
    if (!done) tool_fail_text("no memory for the list of images");
    return done;
}

void tool_list_free(tool_list *list) {
    for (size_t i = 0; i < list->n; i++) {
        free(list->items[i].path);
        free(list->items[i].error);
        free(list->items[i].picture);
    }
    free(list->items);
    free(list->visited);
    *list = (tool_list){0};
}
