/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* lib/base: status text, memory, buffers, UTF-8, half floats, files, progress. */
#include "run_tests.h"

#include <ftw.h>
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cpu_count.h"
#include "base/file.h"
#include "base/float16.h"
#include "base/hash.h"
#include "base/memory.h"
#include "base/run.h"
#include "base/status.h"
#include "base/utf8.h"
#include "temp_template.h"

/* ------------------------------------------------------------------------------------------------------- status */

static void status_text_is_one_line_of_utf8(void **state) {
    (void)state;
    assert_int_equal(pgi_error(PG_ERROR_FORMAT,
                               "a\nb\tc\x01\x7f"
                               "d %s",
                               "\xC3\xA9\xFF\xC3"),
                     PG_ERROR_FORMAT);
    assert_string_equal(pgi_error_text(), "a b c  d \xC3\xA9??");
    /* the old text may be an argument of the new one */
    pgi_error(PG_ERROR_IO, "again: %s", pgi_error_text());
    assert_string_equal(pgi_error_text(), "again: a b c  d \xC3\xA9??");
    assert_int_equal(pgi_error_row(), -1);
    assert_int_equal(pgi_error_of_row(PG_ERROR_IO, 7), PG_ERROR_IO);
    assert_int_equal(pgi_error_row(), 7);
    assert_int_equal(pgi_error_context(PG_ERROR_IO, "file %d", 7), PG_ERROR_IO);
    assert_string_equal(pgi_error_text(), "file 7: again: a b c  d \xC3\xA9??");
}

static void status_text_is_cut_at_a_character(void **state) {
    (void)state;
    char text[4096];
    for (size_t shift = 0; shift < 4; shift++) { /* a 4-byte character lies across any limit for some shift */
        memset(text, 'x', shift);
        for (size_t i = shift; i + 4 < sizeof text; i += 4) memcpy(text + i, "\xF0\x9F\x90\xB1", 5);
        pgi_error(PG_ERROR_FORMAT, "%s", text);
        const char *kept = pgi_error_text();
        size_t size = strlen(kept);
        assert_in_range(size, 200, sizeof text);
        assert_int_equal(pgi_utf8_valid_prefix((const uint8_t *)kept, size), size);
        for (int again = 0; again < 3; again++) {
            pgi_error_context(PG_ERROR_FORMAT, "%s", text);
            size = strlen(pgi_error_text());
            assert_int_equal(pgi_utf8_valid_prefix((const uint8_t *)pgi_error_text(), size), size);
        }
    }
}

/* ------------------------------------------------------------------------------------------------------- memory */

static size_t last_size, last_alignment;
static int n_freed, fail;

static void *hook_alloc(void *user, size_t size, size_t alignment) {
    assert_ptr_equal(user, &n_freed);
    last_size = size;
    last_alignment = alignment;
    return fail ? NULL : aligned_alloc(alignment, size);
}
static void hook_free(void *user, void *memory) {
    assert_ptr_equal(user, &n_freed);
    assert_non_null(memory);
    n_freed++;
    free(memory);
}

static void memory_from_allocator(void **state) {
    (void)state;
    pgi_memory memory;
    pg_allocator hooks = {sizeof hooks, 0, &n_freed, hook_alloc, hook_free};
    assert_int_equal(pgi_memory_from_allocator(NULL, &memory), PG_OK);
    assert_ptr_equal(memory.alloc, pgi_memory_default.alloc);
    pg_allocator bad = hooks;
    bad.alloc = NULL;
    assert_int_equal(pgi_memory_from_allocator(&bad, &memory), PG_ERROR_ARGUMENT);
    bad = hooks;
    bad.free = NULL;
    assert_int_equal(pgi_memory_from_allocator(&bad, &memory), PG_ERROR_ARGUMENT);
    bad = hooks;
    bad.struct_size = 8;
    assert_int_equal(pgi_memory_from_allocator(&bad, &memory), PG_ERROR_ARGUMENT);

    assert_int_equal(pgi_memory_from_allocator(&hooks, &memory), PG_OK);
    n_freed = 0;
    void *block = pgi_alloc(&memory, 3, 5);
    assert_non_null(block);
    assert_in_range(last_size, 15, 64);
    assert_int_equal((uintptr_t)block % 64, 0);
    assert_int_equal(last_alignment, 64);
    pgi_free(&memory, block);
    pgi_free(&memory, NULL);
    assert_int_equal(n_freed, 1);
    block = pgi_alloc(&memory, 0, 5); /* zero bytes give a pointer */
    assert_non_null(block);
    pgi_free(&memory, block);
    fail = 1;
    pgi_error(PG_ERROR_IO, "-");
    assert_null(pgi_alloc(&memory, 1, 1));
    assert_non_null(strstr(pgi_error_text(), "memory"));
    assert_null(pgi_alloc_zero(&memory, 1, 1));
    assert_null(pgi_copy_string(&memory, "abc", 3));
    pgi_buffer buffer;
    pgi_buffer_init(&buffer, &memory);
    assert_int_equal(pgi_buffer_append(&buffer, "abc", 3), PG_ERROR_MEMORY);
    assert_int_equal(buffer.size, 0);
    pgi_buffer_free(&buffer);
    fail = 0;
}

static void memory_sizes_that_overflow(void **state) {
    (void)state;
    size_t product = 1;
    assert_true(pgi_mul_size(0, SIZE_MAX, &product));
    assert_int_equal(product, 0);
    assert_true(pgi_mul_size(SIZE_MAX, 1, &product));
    assert_true(pgi_mul_size((size_t)1 << 32, ((size_t)1 << 32) - 1, &product));
    assert_false(pgi_mul_size((size_t)1 << 32, (size_t)1 << 32, &product));
    assert_false(pgi_mul_size(SIZE_MAX, 2, &product));
    assert_false(pgi_mul_size(2, SIZE_MAX, &product));
    static const size_t sizes[][2] = {{SIZE_MAX, 1},       {SIZE_MAX / 2, 2},  {SIZE_MAX / 2 + 1, 2},
                                      {SIZE_MAX / 4, 8},   {SIZE_MAX - 63, 1}, {SIZE_MAX / 2 - 3, 1},
                                      {SIZE_MAX, SIZE_MAX}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        assert_null(pgi_alloc(&pgi_memory_default, sizes[i][0], sizes[i][1]));
        assert_null(pgi_alloc_zero(&pgi_memory_default, sizes[i][0], sizes[i][1]));
    }
    assert_null(pgi_copy_string(&pgi_memory_default, "", SIZE_MAX));
    pgi_buffer buffer;
    pgi_buffer_init(&buffer, &pgi_memory_default);
    assert_int_equal(pgi_buffer_append(&buffer, "abc", 3), PG_OK);
    assert_int_equal(pgi_buffer_reserve(&buffer, SIZE_MAX), PG_ERROR_MEMORY);
    assert_int_equal(pgi_buffer_reserve(&buffer, SIZE_MAX - 3), PG_ERROR_MEMORY);
    assert_int_equal(pgi_buffer_reserve(&buffer, SIZE_MAX / 2), PG_ERROR_MEMORY);
    assert_string_equal((char *)buffer.data, "abc"); /* what was there stays */
    pgi_buffer_free(&buffer);
}

static void memory_zero_and_copies(void **state) {
    (void)state;
    unsigned char *zero = pgi_alloc_zero(&pgi_memory_default, 1000, 3);
    assert_non_null(zero);
    for (int i = 0; i < 3000; i++) assert_int_equal(zero[i], 0);
    pgi_free(&pgi_memory_default, zero);
    char *copy = pgi_copy_string(&pgi_memory_default, "a\0b", 3);
    assert_memory_equal(copy, "a\0b", 4);
    pgi_free(&pgi_memory_default, copy);
    copy = pgi_copy_string(&pgi_memory_default, NULL, 0);
    assert_string_equal(copy, "");
    pgi_free(&pgi_memory_default, copy);
}

static void buffer_grows_and_stays_terminated(void **state) {
    (void)state;
    pgi_buffer buffer;
    pgi_buffer_init(&buffer, &pgi_memory_default);
    for (int i = 0; i < 5000; i++) {
        uint8_t byte = (uint8_t)(i * 7 + 1);
        assert_int_equal(pgi_buffer_append(&buffer, &byte, 1), PG_OK);
        assert_int_equal(buffer.size, i + 1);
        assert_true(buffer.capacity > buffer.size);
        assert_int_equal(buffer.data[buffer.size], 0);
    }
    for (int i = 0; i < 5000; i++) assert_int_equal(buffer.data[i], (uint8_t)(i * 7 + 1));
    pgi_buffer_free(&buffer);
    assert_int_equal(pgi_buffer_append(&buffer, NULL, 0), PG_OK);
    assert_non_null(buffer.data);
    char want[700];
    memset(want, 'y', 699);
    want[699] = 0;
    assert_int_equal(pgi_buffer_printf(&buffer, "%s", want), PG_OK);
    assert_int_equal(pgi_buffer_printf(&buffer, "%d-%s", 12, "z"), PG_OK);
    assert_int_equal(buffer.size, 699 + 4);
    assert_string_equal((char *)buffer.data + 699, "12-z");
    pgi_buffer_free(&buffer);
}

static void copying_text_out(void **state) {
    (void)state;
    char text[8];
    size_t needed = 0;
    assert_int_equal(pgi_copy_text_out("abc", 3, NULL, 0, &needed), PG_OK);
    assert_int_equal(needed, 4);
    memset(text, '#', sizeof text);
    assert_int_equal(pgi_copy_text_out("abc", 3, text, 4, NULL), PG_OK);
    assert_memory_equal(text, "abc\0####", 8);
    memset(text, '#', sizeof text);
    needed = 0;
    pgi_copy_text_out("abc", 3, text, 3, &needed); /* too small: never past `capacity`, and terminated */
    assert_int_equal(needed, 4);
    assert_memory_equal(text + 3, "#####", 5);
    assert_non_null(memchr(text, 0, 3));
}

/* -------------------------------------------------------------------------------------------------------- utf-8 */

/* Slow and from the definition: decode without any check, then compare with the one right encoding of that value. */
static size_t oracle_length(const uint8_t *p, size_t size, uint32_t *code) {
    static const uint32_t lowest[5] = {0, 0, 0x80, 0x800, 0x10000};
    size_t n = p[0] < 0x80 ? 1 : (p[0] & 0xE0) == 0xC0 ? 2 : (p[0] & 0xF0) == 0xE0 ? 3 : (p[0] & 0xF8) == 0xF0 ? 4 : 0;
    if (n == 0 || n > size) return 0;
    uint32_t value = n == 1 ? p[0] : p[0] & (0x7Fu >> n);
    for (size_t i = 1; i < n; i++) {
        if ((p[i] & 0xC0) != 0x80) return 0;
        value = value << 6 | (p[i] & 0x3Fu);
    }
    if (value < lowest[n] || value > 0x10FFFF || (value >= 0xD800 && value <= 0xDFFF)) return 0;
    *code = value;
    return n;
}

static void utf8_against_the_definition(void **state) {
    (void)state;
    /* All first two bytes, with thirds and fourths at the borders of what can be valid. */
    static const uint8_t tails[] = {0x00, 0x41, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xE2, 0xFF};
    uint8_t p[4];
    for (int pair = 0; pair < 65536; pair++)
        for (size_t i = 0; i < sizeof tails; i++)
            for (size_t j = 0; j < sizeof tails; j++)
                for (size_t size = 1; size <= 4; size++) {
                    uint32_t want = 0, code = 0;
                    memcpy(p, (uint8_t[]){(uint8_t)(pair >> 8), (uint8_t)pair, tails[i], tails[j]}, 4);
                    uint8_t *exact = p + 0;
                    size_t n = oracle_length(exact, size, &want);
                    if (pgi_utf8_next(exact, size, &code) != n || (n && code != want))
                        fail_msg("%02x %02x %02x %02x, %zu bytes", p[0], p[1], p[2], p[3], size);
                }
    assert_int_equal(pgi_utf8_next(p, 0, NULL), 0);
}

static void utf8_encodes_every_code_point(void **state) {
    (void)state;
    for (uint32_t code = 0; code <= 0x10FFFF; code++) {
        uint8_t out[4];
        uint32_t back = 0;
        if (code >= 0xD800 && code <= 0xDFFF) continue;
        size_t n = pgi_utf8_encode(code, out);
        if (n < 1 || n > 4 || pgi_utf8_next(out, n, &back) != n || back != code) fail_msg("U+%04X", code);
        if (pgi_utf8_valid_prefix(out, n) != n || pgi_utf8_valid_prefix(out, n - 1) != 0) fail_msg("U+%04X", code);
    }
}

/* A struct of 12 bytes: growing must neither mix up elements nor bytes. */
static void growing_arrays(void **state) {
    (void)state;
    struct triple {
        int32_t a, b, c;
    } *data = NULL;
    size_t capacity = 0, n_grown = 0;
    for (int32_t i = 0; i < 1000; i++) {
        size_t before = capacity;
        assert_int_equal(pgi_grow(&pgi_memory_default, &data, &capacity, (size_t)i + 1, sizeof *data), PG_OK);
        n_grown += capacity != before;
        data[i] = (struct triple){i, -i, 3 * i};
    }
    assert_true(capacity >= 1000 && n_grown < 10);
    for (int32_t i = 0; i < 1000; i++) assert_true(data[i].a == i && data[i].b == -i && data[i].c == 3 * i);
    struct triple *same = data;
    size_t before = capacity;
    assert_int_equal(pgi_grow(&pgi_memory_default, &data, &capacity, SIZE_MAX, sizeof *data), PG_ERROR_MEMORY);
    assert_int_equal(pgi_grow(&pgi_memory_default, &data, &capacity, SIZE_MAX / 12, sizeof *data), PG_ERROR_MEMORY);
    assert_true(data == same && capacity == before);
    pgi_free(&pgi_memory_default, data);
}

static void utf8_valid_prefix_ends_before_the_first_fault(void **state) {
    (void)state;
    assert_int_equal(pgi_utf8_valid_prefix((const uint8_t *)"ab\xC3\xA9\xC3", 5), 4);
    assert_int_equal(pgi_utf8_valid_prefix((const uint8_t *)"a\0b", 3), 3);
}

/* --------------------------------------------------------------------------------------------------------- half */

/* Any binary format of 1 + e + f bits, by its definition in doubles. */
static double half_oracle(uint16_t bits, int n_exponent, int n_fraction) {
    int exponent = bits >> n_fraction & ((1 << n_exponent) - 1), bias = (1 << (n_exponent - 1)) - 1;
    int fraction = bits & ((1 << n_fraction) - 1);
    double value;
    if (exponent == (1 << n_exponent) - 1)
        value = fraction ? NAN : INFINITY;
    else if (exponent == 0)
        value = ldexp(fraction, 1 - bias - n_fraction);
    else
        value = ldexp(fraction + (1 << n_fraction), exponent - bias - n_fraction);
    return bits & 0x8000 ? -value : value;
}

static void check_half(uint16_t bits, float got, double want) {
    if (isnan(want) ? !isnan(got) : (double)got != want || !signbit(got) != !signbit(want))
        fail_msg("0x%04x gives %a, expected %a", bits, (double)got, want);
}

static void float16_all_values(void **state) {
    (void)state;
    for (uint32_t bits = 0; bits < 65536; bits++) {
        check_half((uint16_t)bits, pgi_f32_from_f16((uint16_t)bits), half_oracle((uint16_t)bits, 5, 10));
        check_half((uint16_t)bits, pgi_f32_from_bf16((uint16_t)bits), half_oracle((uint16_t)bits, 8, 7));
    }
    uint8_t odd[9] = {0};
    memcpy(odd + 1, &(float){1.5f}, 4);
    assert_true(pgi_load_f32(odd + 1) == 1.5f);
    memcpy(odd + 1, &(uint16_t){0x1234}, 2);
    assert_int_equal(pgi_load_u16(odd + 1), 0x1234);
}

/* -------------------------------------------------------------------------------------------------------- files */

/* Vectors of SipHash-1-3: those that its other implementations have; the first is in the tests of Rust's. */
static void hash_is_siphash(void **state) {
    (void)state;
    const pgi_hash_key key = {{UINT64_C(0x0706050403020100), UINT64_C(0x0F0E0D0C0B0A0908)}};
    const uint8_t bytes[15] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14};
    assert_int_equal(pgi_hash_bytes(&key, bytes, 0), UINT64_C(0xABAC0158050FC4DC));
    assert_int_equal(pgi_hash_bytes(&key, bytes, 15), UINT64_C(0xD320D86D2A519956));
    const pgi_hash_key a = pgi_hash_key_new(), b = pgi_hash_key_new();
    assert_true(a.words[0] != b.words[0] && a.words[1] != b.words[1]);
}

static void file_reading(void **state) {
    (void)state;
    char folder[256];
    pgi_buffer buffer;
    pgi_mapping mapping;
    pgi_file opened;
    char part[8];
    temp_template(folder, sizeof folder, "base");
    assert_non_null(mkdtemp(folder));
    char *path = pgi_path_join(&pgi_memory_default, folder, "f");
    char *slash = pgi_path_join(&pgi_memory_default, "a/", "f");
    assert_string_equal(slash, "a/f");
    pgi_free(&pgi_memory_default, slash);
    pgi_buffer_init(&buffer, &pgi_memory_default);

    assert_false(pgi_file_exists(path));
    assert_int_equal(pgi_file_read(path, 100, &buffer), PG_ERROR_NOT_FOUND);
    assert_non_null(strstr(pgi_error_text(), path));
    assert_int_equal(pgi_file_open(path, &opened), PG_ERROR_NOT_FOUND);
    assert_int_equal(pgi_file_read(folder, 100, &buffer), PG_ERROR_IO); /* a folder */
    assert_int_equal(pgi_file_open(folder, &opened), PG_ERROR_IO);
    assert_true(pgi_folder_exists(folder));
    assert_false(pgi_folder_exists(path));

    assert_int_equal(mkfifo(path, 0600), 0); /* a pipe without a writer must not block */
    assert_int_equal(pgi_file_read(path, 100, &buffer), PG_ERROR_IO);
    assert_int_equal(pgi_file_open(path, &opened), PG_ERROR_IO);
    assert_int_equal(opened.fd, -1);
    unlink(path);

    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    fclose(file);
    assert_true(pgi_file_exists(path));
    assert_false(pgi_folder_exists(path));
    assert_int_equal(pgi_file_read(path, 100, &buffer), PG_OK); /* empty */
    assert_int_equal(buffer.size, 0);
    assert_int_equal(pgi_file_open(path, &opened), PG_OK);
    assert_int_equal(pgi_file_map(&opened, &mapping), PG_OK);
    assert_int_equal(mapping.size, 0);
    assert_int_equal(pgi_mapping_huge_pages(&mapping), 0); /* nothing is mapped */
    pgi_file_close(&opened);
    pgi_mapping_free(&mapping);

    file = fopen(path, "wb");
    assert_non_null(file);
    fputs("0123456789", file);
    fclose(file);
    assert_int_equal(pgi_file_read(path, 9, &buffer), PG_ERROR_LIMIT);
    assert_non_null(strstr(pgi_error_text(), "10"));
    assert_int_equal(pgi_file_read(path, 10, &buffer), PG_OK);
    assert_string_equal((char *)buffer.data, "0123456789");
    assert_int_equal(pgi_file_open(path, &opened), PG_OK);
    assert_int_equal(pgi_file_map(&opened, &mapping), PG_OK);
    pgi_file_ask(&opened, 3, 1000); /* a hint: past the end it asks for less, and what is read stays the same */
    (void)pgi_mapping_huge_pages(&mapping);
    assert_memory_equal(mapping.data, "0123456789", 10);
    assert_int_equal(pgi_file_read_at(&opened, 3, 7, part), PG_OK);
    assert_memory_equal(part, "3456789", 7);
    assert_int_equal(truncate(path, 5),
                     0); /* it is cut after it was opened: a status, where the mapping would be a signal */
    assert_int_equal(pgi_file_read_at(&opened, 3, 7, part), PG_ERROR_IO);
    assert_non_null(strstr(pgi_error_text(), "ended after 5 of 10 bytes"));
    assert_int_equal(pgi_file_read_at(&opened, 3, 2, part), PG_OK);
    pgi_file_close(&opened);
    file = fopen(path, "wb");
    fputs("0123456789", file);
    fclose(file);
    assert_int_equal(mapping.size, 10);
    assert_memory_equal(mapping.data, "0123456789", 10);
    pgi_mapping_free(&mapping);
    assert_null(mapping.data);
    pgi_mapping_free(&mapping);

    pgi_buffer_free(&buffer);
    unlink(path);
    rmdir(folder);
    pgi_free(&pgi_memory_default, path);
}

/* The reason is behind the name, and what was going on is before it. */
static void long_messages_keep_both_ends(void **state) {
    (void)state;
    char name[3000];
    memset(name, 'n', sizeof name);
    name[sizeof name - 1] = 0;
    for (size_t size = 1000; size < sizeof name; size += 333) {
        assert_int_equal(pgi_error(PG_ERROR_IO, "%.*s: found a cat, expected a dog", (int)size, name), PG_ERROR_IO);
        const char *text = pgi_error_text();
        assert_true(strlen(text) < 1024 && strncmp(text, "nnn", 3) == 0 && strstr(text, " ... nnn"));
        assert_non_null(strstr(text, "n: found a cat, expected a dog"));
        pgi_error_context(PG_ERROR_IO, "row %d", 7);
        text = pgi_error_text();
        assert_true(strlen(text) < 1024 && strncmp(text, "row 7: nnn", 10) == 0);
        assert_non_null(strstr(text, "n: found a cat, expected a dog"));
    }
}

/* ---------------------------------------------------------------------------------------------------------- run */

static int32_t stop_at_three(void *user, int32_t phase, int64_t done, int64_t total) {
    (void)user;
    return phase == PG_PHASE_VISION && done == 3 && total == 9;
}

static void progress_can_cancel(void **state) {
    (void)state;
    pg_cancel cancel = {.references = 1};
    pgi_run run = {.n_threads = 1, .progress = stop_at_three, .cancel = &cancel};
    assert_int_equal(pgi_run_progress(&run, PG_PHASE_VISION, 2, 9), PG_OK);
    assert_int_equal(pgi_run_progress(&run, PG_PHASE_VISION, 3, 9), PG_ERROR_CANCELLED);
    atomic_store(&cancel.requested, 1);
    assert_int_equal(pgi_run_progress(&run, PG_PHASE_VISION, 4, 9), PG_ERROR_CANCELLED);
    run.progress = NULL;
    assert_int_equal(pgi_run_progress(&run, PG_PHASE_VISION, 4, 9), PG_ERROR_CANCELLED);
    run.cancel = NULL;
    assert_int_equal(pgi_run_progress(&run, PG_PHASE_VISION, 4, 9), PG_OK);
    assert_true(pgi_cpu_count() >= 1);
}

/* A tree of files below `folder`: pairs of path and contents, up to a NULL. */
static void write_tree(const char *folder, const char *const files[][2]) {
    for (size_t i = 0; files[i][0]; i++) {
        char path[1024];
        snprintf(path, sizeof path, "%s/%s", folder, files[i][0]);
        for (char *p = path + strlen(folder) + 1; *p; p++)
            if (*p == '/') *p = '\0', mkdir(path, 0700), *p = '/';
        FILE *file = fopen(path, "wb");
        assert_non_null(file);
        fputs(files[i][1], file);
        fclose(file);
    }
}

static int remove_entry(const char *path, const struct stat *info, int type, struct FTW *at) {
    (void)info, (void)type, (void)at;
    return remove(path);
}

#define PROC_CGROUP "proc/self/cgroup"
#define PROC_MOUNTS "proc/self/mountinfo"
#define V2_MOUNT \
    "24 1 0:21 / /proc rw - proc proc rw\n30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw\n"
#define V1_MOUNTS                                                                 \
    "31 23 0:27 /docker/abc /sys/fs/cgroup/cpuset ro - cgroup cgroup rw,cpuset\n" \
    "32 23 0:28 /docker/abc /sys/fs/cgroup/cpu,cpuacct ro master:3 - cgroup cgroup rw,cpu,cpuacct\n"

/* What containers and batch systems write; the values are of Docker, systemd and the kernel's documents. */
static void cpu_quota_of_control_groups(void **state) {
    (void)state;
    static const struct {
        const char *files[8][2];
        int cpus;
    } cases[] = {
        {{{NULL, NULL}}, 0}, /* no /proc */
        {{{PROC_CGROUP, "0::/\n"}, {PROC_MOUNTS, V2_MOUNT}}, 0},
        {{{PROC_CGROUP, "0::/\n"}, {PROC_MOUNTS, V2_MOUNT}, {"sys/fs/cgroup/cpu.max", "200000 100000\n"}}, 2},
        {{{PROC_CGROUP, "0::/\n"}, {PROC_MOUNTS, V2_MOUNT}, {"sys/fs/cgroup/cpu.max", "max 100000\n"}}, 0},
        {{{PROC_CGROUP, "0::/\n"}, {PROC_MOUNTS, V2_MOUNT}, {"sys/fs/cgroup/cpu.max", "250000 100000\n"}}, 3}, /* up */
        {{{PROC_CGROUP, "0::/\n"}, {PROC_MOUNTS, V2_MOUNT}, {"sys/fs/cgroup/cpu.max", "1000 100000\n"}}, 1},
        {{{PROC_CGROUP, "0::/\n"}, {PROC_MOUNTS, V2_MOUNT}, {"sys/fs/cgroup/cpu.max", "200000 0\n"}}, 0},
        {{{PROC_CGROUP, "0::/\n"}, {PROC_MOUNTS, V2_MOUNT}, {"sys/fs/cgroup/cpu.max", "damaged"}}, 0},
        /* the least of the parents counts */
        {{{PROC_CGROUP, "0::/a.slice/b.scope\n"},
          {PROC_MOUNTS, V2_MOUNT},
          {"sys/fs/cgroup/a.slice/b.scope/cpu.max", "800000 100000\n"},
          {"sys/fs/cgroup/a.slice/cpu.max", "400000 100000\n"},
          {"sys/fs/cgroup/cpu.max", "max 100000\n"}},
         4},
        {{{PROC_CGROUP, "0::/a.slice/b.scope"}, /* no newline */
          {PROC_MOUNTS, V2_MOUNT},
          {"sys/fs/cgroup/a.slice/b.scope/cpu.max", "300000 100000"},
          {"sys/fs/cgroup/a.slice/cpu.max", "400000 100000\n"}},
         3},
        /* of another name space: the mount's own group */
        {{{PROC_CGROUP, "0::/../other\n"}, {PROC_MOUNTS, V2_MOUNT}, {"sys/fs/cgroup/cpu.max", "500000 100000\n"}}, 5},
        /* version 1 in a container: the path is seen from outside */
        {{{PROC_CGROUP, "5:cpuset:/docker/abc\n4:cpu,cpuacct:/docker/abc\n"},
          {PROC_MOUNTS, V1_MOUNTS},
          {"sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "150000\n"},
          {"sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"}},
         2},
        {{{PROC_CGROUP, "4:cpu,cpuacct:/docker/abc/inner\n"},
          {PROC_MOUNTS, V1_MOUNTS},
          {"sys/fs/cgroup/cpu,cpuacct/inner/cpu.cfs_quota_us", "700000\n"},
          {"sys/fs/cgroup/cpu,cpuacct/inner/cpu.cfs_period_us", "100000\n"}},
         7},
        {{{PROC_CGROUP, "4:cpu,cpuacct:/docker/abc\n"},
          {PROC_MOUNTS, V1_MOUNTS},
          {"sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n"},
          {"sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"}},
         0},
        {{{PROC_CGROUP, "5:cpuset:/docker/abc\n"}, /* "cpu" within "cpuset" is none */
          {PROC_MOUNTS, V1_MOUNTS},
          {"sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "100000\n"},
          {"sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"}},
         0},
        /* both versions at once: the lesser */
        {{{PROC_CGROUP, "4:cpu,cpuacct:/docker/abc\n0::/\n"},
          {PROC_MOUNTS, V1_MOUNTS "40 23 0:30 / /sys/fs/cgroup/uni\\040fied rw - cgroup2 cgroup2 rw\n"},
          {"sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "600000\n"},
          {"sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"},
          {"sys/fs/cgroup/uni fied/cpu.max", "300000 100000\n"}},
         3},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char folder[256];
        temp_template(folder, sizeof folder, "cgroup");
        assert_non_null(mkdtemp(folder));
        write_tree(folder, cases[i].files);
        int found = pgi_cpu_quota(folder);
        assert_int_equal(nftw(folder, remove_entry, 16, FTW_DEPTH | FTW_PHYS), 0);
        if (found != cases[i].cpus) fail_msg("case %zu: found %d CPUs, expected %d", i, found, cases[i].cpus);
    }
    assert_int_equal(pgi_cpu_quota("/nowhere/at-all"), 0);

    /* The mount of an overlay before it, of any length. */
    for (size_t length = 2000; length < 6300; length += length < 2100 ? 1 : 397) {
        static char mounts[8192];
        char folder[256];
        memset(mounts, 'x', length);
        snprintf(mounts + length, sizeof mounts - length, "\n%s", V2_MOUNT);
        const char *const files[][2] = {
            {PROC_CGROUP, "0::/\n"}, {PROC_MOUNTS, mounts}, {"sys/fs/cgroup/cpu.max", "200000 100000\n"}, {NULL, NULL}};
        temp_template(folder, sizeof folder, "cgroup");
        assert_non_null(mkdtemp(folder));
        write_tree(folder, files);
        int found = pgi_cpu_quota(folder);
        assert_int_equal(nftw(folder, remove_entry, 16, FTW_DEPTH | FTW_PHYS), 0);
        if (found != 2) fail_msg("a line of %zu bytes: found %d CPUs", length, found);
    }
}

/* What overlays share a place, what follows lies behind the longest; too much stays too much. */
static void overlays_lie_one_over_the_other(void **state) {
    static uint8_t block[1024];
    pgi_arena arena = {.base = block};
    (void)state;
    assert_ptr_equal(pgi_arena_take(&arena, 3, 1), block);
    pgi_overlay outer = pgi_overlay_begin(&arena);
    assert_ptr_equal(pgi_arena_take(&arena, 100, 1), block + 64);
    pgi_overlay inner = pgi_overlay_begin(&arena);
    assert_ptr_equal(pgi_arena_take(&arena, 5, 64), block + 192);
    pgi_overlay_next(&arena, &inner);
    assert_ptr_equal(pgi_arena_take(&arena, 1, 64), block + 192);
    pgi_overlay_end(&arena, &inner);
    assert_ptr_equal(pgi_arena_take(&arena, 1, 64), block + 512);
    pgi_overlay_next(&arena, &outer);
    assert_ptr_equal(pgi_arena_take(&arena, 1, 1), block + 64);
    pgi_overlay_end(&arena, &outer);
    assert_int_equal(arena.used, 576);

    for (int big = 0; big < 2; big++) {
        pgi_arena measured = {0};
        pgi_overlay overlay = pgi_overlay_begin(&measured);
        pgi_arena_take(&measured, big ? 1 : SIZE_MAX, 1);
        pgi_overlay_next(&measured, &overlay);
        pgi_arena_take(&measured, big ? SIZE_MAX : 1, 1);
        pgi_overlay_end(&measured, &overlay);
        assert_true(measured.used == SIZE_MAX);
    }
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(status_text_is_one_line_of_utf8),
        cmocka_unit_test(status_text_is_cut_at_a_character),
        cmocka_unit_test(memory_from_allocator),
        cmocka_unit_test(memory_sizes_that_overflow),
        cmocka_unit_test(memory_zero_and_copies),
        cmocka_unit_test(overlays_lie_one_over_the_other),
        cmocka_unit_test(buffer_grows_and_stays_terminated),
        cmocka_unit_test(copying_text_out),
        cmocka_unit_test(growing_arrays),
        cmocka_unit_test(utf8_against_the_definition),
        cmocka_unit_test(utf8_encodes_every_code_point),
        cmocka_unit_test(utf8_valid_prefix_ends_before_the_first_fault),
        cmocka_unit_test(float16_all_values),
        cmocka_unit_test(hash_is_siphash),
        cmocka_unit_test(file_reading),
        cmocka_unit_test(long_messages_keep_both_ends),
        cmocka_unit_test(progress_can_cancel),
        cmocka_unit_test(cpu_quota_of_control_groups),
    };
    return RUN_TESTS(tests, NULL, NULL);
}
