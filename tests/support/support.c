/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
#include "support.h"
#include "temp_template.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static int real_stdout = -1, real_stderr = -1, captured = -1, capturing;

static void die(const char *what, const char *which) {
    say("test support: %s %s: %s\n", what, which, strerror(errno));
    _exit(99); /* meson: an error, not a failure */
}

/* --- Numbers */

uint64_t rng_next(rng *r) {
    uint64_t z = r->state += UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
    return z ^ z >> 31;
}

uint64_t rng_below(rng *r, uint64_t n) { return rng_next(r) % n; }

float rng_unit(rng *r) { return (float)(int64_t)(rng_next(r) >> 40) / 8388608.0f - 1.0f; }

/* --- Bytes */

static void bytes_room(bytes *b, size_t extra) {
    if (b->size + extra + 1 <= b->capacity) return;
    b->capacity = (b->size + extra + 1) * 2;
    b->data = realloc(b->data, b->capacity);
    if (!b->data) die("cannot allocate", "a buffer");
}

void bytes_add(bytes *b, const void *data, size_t size) {
    bytes_room(b, size);
    if (size) memcpy(b->data + b->size, data, size);
    b->size += size;
    b->data[b->size] = 0;
}

void bytes_text(bytes *b, const char *text) { bytes_add(b, text, strlen(text)); }

void bytes_printf(bytes *b, const char *format, ...) {
    char text[2048];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    bytes_text(b, text);
}

void bytes_free(bytes *b) {
    free(b->data);
    *b = (bytes){0};
}

/* --- Files */

void make_temp_folder(char *path, size_t size) {
    temp_template(path, size, "test");
    if (!mkdtemp(path)) die("cannot make the folder", path);
}

static void join(char *path, size_t size, const char *folder, const char *name) {
    snprintf(path, size, "%s/%s", folder, name);
}

void remove_folder(const char *path) {
    DIR *folder = opendir(path);
    struct dirent *entry;
    char name[4096];
    if (!folder) return;
    while ((entry = readdir(folder))) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
        join(name, sizeof name, path, entry->d_name);
        if (unlink(name) != 0) rmdir(name);
    }
    closedir(folder);
    rmdir(path);
}

void write_file(const char *folder, const char *name, const void *data, size_t size) {
    char path[4096];
    join(path, sizeof path, folder, name);
    /* A new file each time: a mapping of the old one that outlived its model must not be cut off by the rewrite. */
    unlink(path);
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(data, 1, size, file) != size || fclose(file) != 0) die("cannot write", path);
}

void write_text(const char *folder, const char *name, const char *text) {
    write_file(folder, name, text, strlen(text));
}

bytes read_file(const char *folder, const char *name) {
    char path[4096], block[65536];
    bytes all = {0};
    size_t n;
    join(path, sizeof path, folder, name);
    FILE *file = fopen(path, "rb");
    if (!file) die("cannot open", path);
    bytes_add(&all, "", 0);
    while ((n = fread(block, 1, sizeof block, file)) > 0) bytes_add(&all, block, n);
    if (ferror(file)) die("cannot read", path);
    fclose(file);
    return all;
}

int has_file(const char *folder, const char *name) {
    char path[4096];
    join(path, sizeof path, folder, name);
    return access(path, F_OK) == 0;
}

void remove_file(const char *folder, const char *name) {
    char path[4096];
    join(path, sizeof path, folder, name);
    if (unlink(path) != 0) die("cannot remove", path);
}

/* --- The counting allocator: each block lies between a header and a trailing guard. */

enum { GUARD_SIZE = 32, GUARD_BYTE = 0xA5 };
static const uint64_t header_magic = UINT64_C(0x70616C6967656D6D);

typedef struct header {
    uint64_t magic;
    size_t size;
    void *base;
} header;

/* Relaxed, as numbers alone need it: what threads do must not be ordered by an allocator that counts, or a sanitizer
 * sees none of their races. Returns what was there before. */
static long long add(atomic_llong *to, long long n) { return atomic_fetch_add_explicit(to, n, memory_order_relaxed); }

static void raise_to(atomic_llong *most, long long n) {
    long long seen = atomic_load_explicit(most, memory_order_relaxed);
    while (n > seen &&
           !atomic_compare_exchange_weak_explicit(most, &seen, n, memory_order_relaxed, memory_order_relaxed)) {
    }
}

static void *counter_alloc(void *user, size_t size, size_t alignment) {
    counter *c = user;
    if (c->on_alloc) c->on_alloc();
    int64_t number = add(&c->n_allocs, 1) + 1;
    long long bytes_wanted = size > (size_t)INT64_MAX ? INT64_MAX : (long long)size;
    raise_to(&c->largest, bytes_wanted);
    if (alignment == 0 || (alignment & (alignment - 1)) || alignment > 4096 || size == 0) add(&c->n_bad, 1);
    if (number == c->fail_at || (c->fail_from && number >= c->fail_from)) return NULL;
    if (c->refuse_above && bytes_wanted > c->refuse_above) return NULL;
    uint8_t *base = malloc(size + alignment + sizeof(header) + GUARD_SIZE);
    if (!base) return NULL;
    uintptr_t address = ((uintptr_t)base + sizeof(header) + alignment - 1) & ~(uintptr_t)(alignment - 1);
    uint8_t *block = base + (address - (uintptr_t)base);
    header h = {header_magic, size, base};
    memcpy(block - sizeof h, &h, sizeof h);
    memset(block, 0xCD, size); /* so that a use of contents never written shows */
    memset(block + size, GUARD_BYTE, GUARD_SIZE);
    add(&c->n_live, 1);
    raise_to(&c->peak_bytes, add(&c->live_bytes, bytes_wanted) + bytes_wanted);
    return block;
}

static void counter_free(void *user, void *memory) {
    counter *c = user;
    header h;
    if (c->on_free) c->on_free();
    if (!memory) {
        add(&c->n_bad, 1);
        return;
    }
    memcpy(&h, (uint8_t *)memory - sizeof h, sizeof h);
    if (h.magic != header_magic) {
        add(&c->n_bad, 1);
        say("the allocator was given a block that it did not make, or that is already released\n");
        return;
    }
    for (size_t i = 0; i < GUARD_SIZE; i++)
        if (((uint8_t *)memory)[h.size + i] != GUARD_BYTE) {
            add(&c->n_bad, 1);
            say("a block of %zu bytes was written to behind its end\n", h.size);
            break;
        }
    memset(memory, 0xA5, h.size);
    memset((uint8_t *)memory - sizeof h, 0, sizeof h);
    add(&c->n_live, -1);
    add(&c->live_bytes, -(long long)h.size);
    free(h.base);
}

void counter_init(counter *c) {
    memset(c, 0, sizeof *c);
    c->hooks.struct_size = sizeof c->hooks;
    c->hooks.user = c;
    c->hooks.alloc = counter_alloc;
    c->hooks.free = counter_free;
}

int64_t next_fault(int64_t n) {
    const char *text = getenv("TEST_FAULT_STEP");
    const int64_t step = text && n >= 8 ? strtoll(text, NULL, 10) : 1;
    return n + (step > 1 ? step : 1);
}

int counter_clean(const counter *c) {
    if (c->n_live == 0 && c->live_bytes == 0 && c->n_bad == 0) return 1;
    say("the allocator is left with %lld blocks, %lld bytes, %lld bad calls\n", c->n_live, c->live_bytes, c->n_bad);
    return 0;
}

/* --- Capture */

/* Both sanitizer runtimes have this; without one it is absent. */
void __sanitizer_set_report_fd(void *fd) __attribute__((weak));

void capture_begin(void) {
    fflush(stdout);
    fflush(stderr);
    if (captured < 0) {
        char path[4096];
        temp_template(path, sizeof path, "capture");
        captured = mkstemp(path);
        if (captured < 0) die("cannot make", path);
        unlink(path);
        real_stdout = dup(STDOUT_FILENO);
        real_stderr = dup(STDERR_FILENO);
        if (real_stdout < 0 || real_stderr < 0) die("cannot duplicate", "stdout and stderr");
        if (__sanitizer_set_report_fd) __sanitizer_set_report_fd((void *)(intptr_t)real_stderr);
    }
    if (ftruncate(captured, 0) != 0 || lseek(captured, 0, SEEK_SET) < 0) die("cannot empty", "the capture file");
    capturing = 1;
    if (dup2(captured, STDOUT_FILENO) < 0 || dup2(captured, STDERR_FILENO) < 0)
        die("cannot redirect", "stdout and stderr");
}

size_t capture_size(void) {
    fflush(stdout);
    fflush(stderr);
    off_t size = lseek(captured, 0, SEEK_END);
    return size > 0 ? (size_t)size : 0;
}

size_t capture_end(void) {
    char text[4096];
    size_t size = capture_size();
    capturing = 0;
    dup2(real_stdout, STDOUT_FILENO);
    dup2(real_stderr, STDERR_FILENO);
    if (size > 0) {
        ssize_t n = pread(captured, text, sizeof text - 1, 0);
        say("written to stdout or stderr: %.*s\n", (int)(n > 0 ? n : 0), text);
    }
    return size;
}

int capture_end_if_on(void **state) {
    (void)state;
    if (capturing) capture_end();
    return 0;
}

void say(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vdprintf(real_stderr >= 0 ? real_stderr : STDERR_FILENO, format, arguments);
    va_end(arguments);
}

/* In both sanitizer runtimes; absent without one. */
void __sanitizer_set_death_callback(void (*callback)(void)) __attribute__((weak));

static void (*death_callback)(void);

static void die_by_signal(int number) {
    (void)number; /* SA_RESETHAND: returning repeats the fault, or abort() raises again, and the process ends by it */
    death_callback();
    if (number == SIGALRM) _exit(1);
}

void on_death(void (*callback)(void)) {
    static const int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
    struct sigaction action = {.sa_handler = die_by_signal, .sa_flags = (int)SA_RESETHAND};
    death_callback = callback;
    sigaction(SIGALRM, &action, NULL); /* a test's own alarm(): it hangs */
    if (__sanitizer_set_death_callback) {
        __sanitizer_set_death_callback(callback);
        return;
    }
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) sigaction(signals[i], &action, NULL);
}

int count_threads(void) {
    DIR *tasks = opendir("/proc/self/task");
    int n = 0;
    if (!tasks) return 0;
    for (struct dirent *entry; (entry = readdir(tasks));) n += entry->d_name[0] != '.';
    closedir(tasks);
    return n;
}

int wait_for_threads(int most) {
    int n = count_threads();
    for (int i = 0; i < 400 && n > most; i++, n = count_threads()) nanosleep(&(struct timespec){0, 5000000}, NULL);
    return n;
}

int settled_threads(void) {
    enum { SAME = 10 }; /* times 5 ms */
    int n = count_threads();
    for (int same = 0; same < SAME; same++) {
        nanosleep(&(struct timespec){0, 5000000}, NULL);
        const int now = count_threads();
        if (now != n) n = now, same = 0;
    }
    return n;
}

double now_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}
