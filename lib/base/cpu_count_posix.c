/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * How many CPUs this process may use: the affinity mask, bounded by the quota of the control groups, as Rust's
 * available_parallelism(), Java and Go 1.25 do. A container with --cpus=2 on a large machine has every CPU in its mask,
 * and the kernel stops all threads of the group when its time is used up. OMP_NUM_THREADS is not read: a program that
 * embeds the library may set it for others.
 *
 * Up to 1,024 CPU ids nothing is allocated, as every call without an n_threads asks.
 */
#include "base/cpu_count.h"

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/file_posix.h"

enum { MOST_CPUS = 1 << 20, LINE = 2048 };

typedef struct line_reader {
    int fd, skips; /* within a line that is too long */
    size_t begin, end;
    char data[LINE + 1];
} line_reader;

static int open_lines(line_reader *reader, const char *root, const char *path) {
    char whole[LINE];
    reader->begin = reader->end = 0;
    reader->skips = 0;
    int n = snprintf(whole, sizeof whole, "%s%s", root, path);
    reader->fd = n > 0 && n < LINE ? pgi_openat(AT_FDCWD, whole, O_RDONLY | O_CLOEXEC, 0) : -1;
    return reader->fd >= 0;
}

/* The next line, without its newline; NULL at the end. Lines that are too long, as the mounts of overlays may be, are
 * left out. */
static char *next_line(line_reader *reader) {
    for (;;) {
        char *line = reader->data + reader->begin, *newline = memchr(line, '\n', reader->end - reader->begin);
        if (newline) {
            *newline = '\0';
            reader->begin = (size_t)(newline + 1 - reader->data);
            if (!reader->skips) return line;
            reader->skips = 0;
            continue;
        }
        memmove(reader->data, line, reader->end - reader->begin);
        reader->end -= reader->begin;
        reader->begin = 0;
        if (reader->end == LINE) {
            reader->skips = 1;
            reader->end = 0;
        }
        ssize_t n = read(reader->fd, reader->data + reader->end, LINE - reader->end);
        if (n > 0) {
            reader->end += (size_t)n;
            continue;
        }
        if (n < 0 || reader->end == 0 || reader->skips) return NULL;
        reader->data[reader->end] = '\0';
        reader->end = 0; /* the last line has no newline */
        return reader->data;
    }
}

/* Whether a list with commas has the word. */
static int list_has(const char *list, const char *word) {
    size_t size = strlen(word);
    for (const char *at = list; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL)
        if (strncmp(at, word, size) == 0 && (at[size] == ',' || at[size] == '\0')) return 1;
    return 0;
}

/* mountinfo writes a space as \040, likewise tabs, newlines and backslashes. */
static void undo_escapes(char *text) {
    char *to = text;
    for (const char *from = text; *from; to++) {
        if (from[0] == '\\' && from[1] >= '0' && from[1] <= '3' && from[2] >= '0' && from[2] <= '7' && from[3] >= '0' &&
            from[3] <= '7') {
            *to = (char)((from[1] - '0') * 64 + (from[2] - '0') * 8 + from[3] - '0');
            from += 4;
        } else {
            *to = *from++;
        }
    }
    *to = '\0';
}

/* Where the hierarchy is mounted, and which group of it stands there. version: 1 (the one with the cpu controller), 2.
 */
static int find_mount(const char *root, int version, char group[LINE], char mount[LINE]) {
    line_reader reader;
    int found = 0;
    if (!open_lines(&reader, root, "/proc/self/mountinfo")) return 0;
    /* 31 23 0:28 GROUP MOUNT rw,relatime [shared:1 ...] - cgroup2 cgroup rw,nsdelegate */
    for (char *line; !found && (line = next_line(&reader));) {
        char *fields[5], *rest = NULL, *tail = strstr(line, " - ");
        int n = 0;
        for (char *field = strtok_r(line, " ", &rest); field && n < 5; field = strtok_r(NULL, " ", &rest))
            fields[n++] = field;
        if (!tail || n < 5) continue;
        char *type = strtok_r(tail + 3, " ", &rest), *source = strtok_r(NULL, " ", &rest);
        char *options = strtok_r(NULL, " ", &rest);
        if (!type || !source || strcmp(type, version == 2 ? "cgroup2" : "cgroup") != 0) continue;
        if (version == 1 && !(options && list_has(options, "cpu"))) continue;
        undo_escapes(fields[3]);
        undo_escapes(fields[4]);
        snprintf(group, LINE, "%s", fields[3]);
        snprintf(mount, LINE, "%s", fields[4]);
        found = 1;
    }
    close(reader.fd);
    return found;
}

/* The group of this process: "0::/a/b" of version 2, "4:cpu,cpuacct:/a/b" of version 1. */
static int find_group(const char *root, int version, char group[LINE]) {
    line_reader reader;
    int found = 0;
    if (!open_lines(&reader, root, "/proc/self/cgroup")) return 0;
    for (char *line; !found && (line = next_line(&reader));) {
        char *controllers = strchr(line, ':'), *path = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!path) continue;
        *path++ = '\0';
        *controllers++ = '\0';
        found = version == 2 ? strcmp(line, "0") == 0 && !*controllers : list_has(controllers, "cpu");
        if (found) snprintf(group, LINE, "%s", path);
    }
    close(reader.fd);
    return found;
}

/* The first line of folder/name. */
static int read_line(const char *root, const char *folder, const char *name, char out[64]) {
    char path[LINE];
    line_reader reader;
    int n = snprintf(path, sizeof path, "%s/%s", folder, name);
    if (n < 0 || n >= LINE || !open_lines(&reader, root, path)) return 0;
    const char *line = next_line(&reader);
    if (line) snprintf(out, 64, "%s", line);
    close(reader.fd);
    return line != NULL;
}

/* The whole number at *text, behind blanks; *text goes on behind it. 0: there is none. By hand: sscanf() and strtoll()
 * follow the host's locale. */
static int read_number(const char **text, long long *out) {
    const char *at = *text;
    long long value = 0;
    int negative;
    while (*at == ' ' || *at == '\t') at++;
    negative = *at == '-';
    at += negative;
    if (*at < '0' || *at > '9') return 0;
    for (; *at >= '0' && *at <= '9'; at++) value = value < 1000000000000000 ? value * 10 + (*at - '0') : value;
    *text = at;
    *out = negative ? -value : value;
    return 1;
}

/* CPUs that one group grants; 0: it does not bound them. */
static int quota_of(const char *root, const char *folder, int version) {
    char text[64], period_text[64];
    const char *at = text, *period_at = period_text;
    long long quota, period;
    if (version == 2) {
        if (!read_line(root, folder, "cpu.max", text) || !read_number(&at, &quota) || !read_number(&at, &period))
            return 0;
    } else {
        if (!read_line(root, folder, "cpu.cfs_quota_us", text) || !read_number(&at, &quota)) return 0;
        if (!read_line(root, folder, "cpu.cfs_period_us", period_text) || !read_number(&period_at, &period)) return 0;
    }
    if (quota <= 0 || period <= 0) return 0; /* -1: no bound */
    const long long cpus = quota / period + (quota % period != 0);
    return cpus < MOST_CPUS ? (int)cpus : 0;
}

/* The least of the group and its parents, up to where the hierarchy is mounted. */
static int quota_of_version(const char *root, int version) {
    char group[LINE], mounted[LINE], mount[LINE], folder[2 * LINE];
    int least = 0;
    if (!find_group(root, version, group) || !find_mount(root, version, mounted, mount)) return 0;
    /* A container may see its own group as the root of the mount, and its path from outside. */
    size_t shared = strcmp(mounted, "/") == 0 ? 0 : strlen(mounted);
    const char *below = group + shared;
    if (strncmp(group, mounted, shared) != 0 || (*below && *below != '/') || strstr(below, "/..")) below = "";
    snprintf(folder, sizeof folder, "%s%s", mount, below);
    const size_t top = strlen(mount);
    for (;;) {
        const int quota = quota_of(root, folder, version);
        if (quota > 0 && (least == 0 || quota < least)) least = quota;
        char *slash = strrchr(folder, '/');
        if (!slash || (size_t)(slash - folder) < top) return least;
        *slash = '\0';
    }
}

int pgi_cpu_quota(const char *root) {
    const int a = quota_of_version(root, 2), b = quota_of_version(root, 1);
    return a == 0 || (b > 0 && b < a) ? b : a;
}

/* CPUs of the affinity mask, however many ids the kernel has; 0: it does not say. */
static int affinity_count(void) {
#if defined(__linux__)
    cpu_set_t small;
    if (sched_getaffinity(0, sizeof small, &small) == 0) return CPU_COUNT(&small);
    for (int n = 4 * CPU_SETSIZE; n <= MOST_CPUS;
         n *= 4) { /* a mask smaller than the kernel's is refused with EINVAL */
        cpu_set_t *set = CPU_ALLOC((size_t)n);
        if (!set) return 0;
        const size_t size = CPU_ALLOC_SIZE((size_t)n);
        const int count = sched_getaffinity(0, size, set) == 0 ? CPU_COUNT_S(size, set) : 0;
        CPU_FREE(set);
        if (count > 0) return count;
    }
#endif
    return 0;
}

int pgi_cpu_count(void) {
    int n = affinity_count();
    if (n == 0) {
        const long online = sysconf(_SC_NPROCESSORS_ONLN);
        n = online > 0 && online < MOST_CPUS ? (int)online : 1;
    }
    const int quota = pgi_cpu_quota("");
    return quota > 0 && quota < n ? quota : n;
}
