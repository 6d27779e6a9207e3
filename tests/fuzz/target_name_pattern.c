/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * A name, a newline, and a pattern, which is what follows the last newline. A whole match is one of a beginning, too;
 * and the pattern as a group of its own, or with an end behind it, has the answers that it has alone.
 */
#include "fuzz.h"

#include "checkpoint/name_pattern.h"

enum { MOST = 200 }; /* bytes of a name, for the fuzzer's time */

typedef struct answers {
    int whole, begin;
} answers;

static int ask(const pgi_memory *memory, const bytes *pattern, const uint8_t *name, size_t size, answers *out) {
    pgi_name_pattern *compiled;
    uint8_t *exact = fuzz_bytes(pattern->data, pattern->size);
    const int is_made =
        MADE(pgi_name_pattern_compile(memory, "x.json: key", (const char *)exact, pattern->size, &compiled), compiled);
    free(exact);
    if (!is_made) return 0;
    out->whole = pgi_name_pattern_matches(compiled, (const char *)name, size, 1);
    out->begin = pgi_name_pattern_matches(compiled, (const char *)name, size, 0);
    pgi_name_pattern_free(compiled);
    return 1;
}

static int ask_between(const pgi_memory *memory, const char *before, const bytes *pattern, const char *behind,
                       const uint8_t *name, size_t size, answers *out) {
    bytes text = {0};
    bytes_text(&text, before);
    bytes_add(&text, pattern->data, pattern->size);
    bytes_text(&text, behind);
    const int is_made = ask(memory, &text, name, size, out);
    if (!is_made && fuzz_status != PG_ERROR_LIMIT) abort(); /* the pattern alone is sound */
    bytes_free(&text);
    return is_made;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    pgi_memory memory;
    bytes pattern = {0};
    answers alone, other;
    size_t n = size;
    while (n > 0 && data[n - 1] != '\n') n--;
    bytes_add(&pattern, data + n, size - n);
    n = n > 0 ? n - 1 : 0;
    if (n > MOST) n = MOST;
    uint8_t *name = fuzz_bytes(data, n);
    if (pgi_memory_from_allocator(fuzz_allocator(), &memory) != PG_OK) abort();
    if (ask(&memory, &pattern, name, n, &alone)) {
        if (alone.whole && !alone.begin) abort();
        if (ask_between(&memory, "(?:", &pattern, ")", name, n, &other) &&
            (other.whole != alone.whole || other.begin != alone.begin))
            abort();
        if (ask_between(&memory, "(", &pattern, ")\\Z", name, n, &other) &&
            (other.whole != alone.whole || other.begin != alone.whole))
            abort();
    }
    free(name);
    bytes_free(&pattern);
    return fuzz_end();
}
