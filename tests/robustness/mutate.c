/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
#include "mutate.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

/* b[at, at + n) becomes data[0, size). */
static void replace(bytes *b, size_t at, size_t n, const void *data, size_t size) {
    bytes out = {0};
    bytes_add(&out, b->data, at);
    bytes_add(&out, data, size);
    bytes_add(&out, b->data + at + n, b->size - at - n);
    bytes_free(b);
    *b = out;
}

static size_t some_offset(rng *r, const bytes *b) {
    /* the beginning of a file is where its structure lies: half of all damage is done to the first 64 bytes */
    size_t limit = rng_below(r, 2) && b->size > 64 ? 64 : b->size;
    return limit ? rng_below(r, limit) : 0;
}

static size_t some_length(rng *r, const bytes *b, size_t at) {
    size_t most = b->size - at, limit = most < 64 || rng_below(r, 4) == 0 ? most : 64;
    return limit ? rng_below(r, limit) + 1 : 0;
}

static void damage_once(rng *r, bytes *b) {
    /* clang-format off */
    static const uint64_t extremes[] = {0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF,
                                        UINT64_C(0x7FFFFFFFFFFFFFFF), UINT64_C(0x8000000000000000), UINT64_MAX,
                                        UINT64_MAX - 7};
    /* clang-format on */
    size_t at = some_offset(r, b), n = some_length(r, b, at);
    uint64_t value = extremes[rng_below(r, sizeof extremes / sizeof *extremes)];
    uint8_t junk[256];
    bytes chunk = {0};
    switch (rng_below(r, 13)) {
        case 0:
        case 1: /* bits */
            for (uint64_t i = rng_below(r, 8) + 1; i > 0 && b->size; i--)
                b->data[some_offset(r, b)] ^= (uint8_t)(1u << rng_below(r, 8));
            break;
        case 2: /* a byte */
            if (b->size) b->data[at] = (uint8_t)value;
            break;
        case 3: /* a little-endian integer */
        case 4: /* a big-endian integer */ {
            size_t width = (size_t)1 << rng_below(r, 4);
            int big = (int)rng_below(r, 2);
            for (size_t i = 0; i < width && at + i < b->size; i++)
                b->data[at + i] = (uint8_t)(value >> 8 * (big ? width - 1 - i : i));
            break;
        }
        case 5: /* truncated */ b->size = at; break;
        case 6: /* truncated near the end */
            b->size -= b->size ? rng_below(r, b->size < 16 ? b->size : 16) + 1 : 0;
            break;
        case 7: /* zeroed */ memset(b->data + at, 0, n); break;
        case 8: /* doubled */
            bytes_add(&chunk, b->data + at, n);
            replace(b, at, 0, chunk.data, n);
            break;
        case 9: /* removed */ replace(b, at, n, "", 0); break;
        case 10: /* moved */
            bytes_add(&chunk, b->data + at, n);
            replace(b, at, n, "", 0);
            replace(b, b->size ? rng_below(r, b->size) : 0, 0, chunk.data, n);
            break;
        case 11: /* swapped with what follows */
            bytes_add(&chunk, b->data + at, n);
            replace(b, at, n, "", 0);
            replace(b, b->size - at < n ? b->size : at + n, 0, chunk.data, n);
            break;
        default: /* appended */
            for (size_t i = 0; i < sizeof junk; i++) junk[i] = (uint8_t)rng_next(r);
            bytes_add(b, junk, rng_below(r, sizeof junk) + 1);
            break;
    }
    bytes_free(&chunk);
}

void mutate_bytes(rng *r, bytes *b) {
    bytes_add(b, "", 0); /* data is never NULL */
    for (uint64_t i = rng_below(r, 3) + 1; i > 0; i--) damage_once(r, b);
    b->data[b->size] = 0;
}

/* -------------------------------------------------------------------------------------------------------- JSON */

typedef struct span {
    size_t begin, end; /* of the value */
    size_t start;      /* of its key; begin when it is an element */
    int depth;
} span;

typedef struct spans {
    span *at;
    size_t n, capacity;
    const uint8_t *text;
    size_t size;
} spans;

static size_t skip_space(const spans *s, size_t i) {
    while (i < s->size && strchr(" \t\r\n", s->text[i])) i++;
    return i;
}

static size_t skip_string(const spans *s, size_t i) {
    for (i++; i < s->size && s->text[i] != '"'; i++)
        if (s->text[i] == '\\') i++;
    return i + 1;
}

/* Records the value that begins at i and those in it; returns where it ends. Damaged text ends somewhere too. */
static size_t collect(spans *s, size_t start, size_t i, int depth) {
    size_t begin = i, mine = s->n;
    if (s->n == s->capacity) {
        s->capacity = s->capacity * 2 + 64;
        s->at = realloc(s->at, s->capacity * sizeof *s->at);
        if (!s->at) abort();
    }
    s->n++;
    if (i < s->size && (s->text[i] == '{' || s->text[i] == '[') && depth < 64) {
        int object = s->text[i] == '{';
        i = skip_space(s, i + 1);
        while (i < s->size && s->text[i] != '}' && s->text[i] != ']') {
            size_t key = i, before = i;
            if (object && s->text[i] == '"') {
                i = skip_space(s, skip_string(s, i));
                if (i < s->size && s->text[i] == ':') i = skip_space(s, i + 1);
            }
            i = skip_space(s, collect(s, key, i, depth + 1));
            if (i < s->size && s->text[i] == ',') i = skip_space(s, i + 1);
            if (i == before) break;
        }
        i++;
    } else if (i < s->size && s->text[i] == '"') {
        i = skip_string(s, i);
    } else {
        while (i < s->size && !strchr(" \t\r\n,]}:", s->text[i])) i++;
    }
    if (i > s->size) i = s->size;
    s->at[mine] = (span){begin, i, start, depth};
    return i;
}

static void put_value(rng *r, bytes *out, const uint8_t *old, size_t size) {
    /* clang-format off */
    static const char *const values[] = {
        "-1", "0", "1", "2", "3", "7", "16", "255", "1000", "65536", "1000000", "2147483647", "2147483648", "-2147483648", "4294967295",
        "4294967296", "9223372036854775807", "-9223372036854775808", "9223372036854775808", "1e308", "1e400", "-1e308", "0.5", "-0.0",
        "1e-320", "NaN", "Infinity", "-Infinity", "null", "true", "false", "[]", "{}", "\"\"", "\"1\"", "\"x\"", "[1]", "[null]",
        "[[[[]]]]", "{\"a\":1}", "\"\\u0000\"", "\"\\ud800\"", "\"\\udc00\\ud800\"", "\"\xFF\xFE\"", "\"\xC3\"",
        "\"a line\\nand another\\u001b[31m\"", "\"../../../../etc/passwd\"", "\"/dev/zero\"", "\"%s%n%d\"", "\"gelu\"", "\"gemma\"",
        "\"gemma2\"", "\"float16\"", "\"F16\"", "\"F64\"", "\"I8\"", "", "00", "0x10", "1.", "'x'", "[1,2,3,4,5,6,7,8,9]",
        "[0,0]", "[-1,-1]", "[4611686018427387904,4]", "[0,18446744073709551615]"};
    /* clang-format on */
    uint64_t choice = rng_below(r, 12);
    if (choice == 0) { /* very deep */
        size_t depth = rng_below(r, 2) ? 100000 : 500;
        for (size_t i = 0; i < depth; i++) bytes_text(out, i % 2 ? "{\"a\":" : "[");
    } else if (choice == 1) { /* very long */
        bytes_text(out, "\"");
        for (int i = 0; i < 5000; i++) bytes_text(out, "A long piece of text. ");
        bytes_text(out, "\"");
    } else if (choice == 2) { /* very many digits */
        for (int i = 0; i < 400; i++) bytes_text(out, "9");
    } else if (choice <= 5 && size && ((old[0] >= '0' && old[0] <= '9') || old[0] == '-')) { /* another number */
        double value = strtod((const char *)old, NULL), factors[] = {-1, 2, 0.5, 1000, 1e9};
        static const int steps[] = {1, -1, 2, 10};
        if (rng_below(r, 2))
            bytes_printf(out, "%.0f", value * factors[rng_below(r, 5)]);
        else
            bytes_printf(out, "%.0f", value + steps[rng_below(r, 4)]);
    } else {
        bytes_text(out, values[rng_below(r, sizeof values / sizeof *values)]);
    }
}

void mutate_json(rng *r, bytes *b) {
    spans s = {.text = b->data, .size = b->size};
    bytes out = {0};
    collect(&s, skip_space(&s, 0), skip_space(&s, 0), 0);
    /* the outer levels have few values and matter most: a random limit of depth gives them their share */
    int deepest = 0;
    for (size_t i = 0; i < s.n; i++)
        if (s.at[i].depth > deepest) deepest = s.at[i].depth;
    int limit = 1 + (int)rng_below(r, (uint64_t)deepest + 1);
    span one = s.at[rng_below(r, s.n)], other = s.at[rng_below(r, s.n)];
    for (int tries = 0; tries < 10000 && (one.depth > limit || (one.depth == 0 && rng_below(r, 20))); tries++)
        one = s.at[rng_below(r, s.n)];
    size_t size = one.end - one.begin, next = skip_space(&s, one.end);
    switch (rng_below(r, 10)) {
        case 0: /* the key or element goes, its comma too */
            if (next < b->size && b->data[next] == ',')
                next++;
            else
                next = one.end;
            replace(b, one.start, next - one.start, "", 0);
            break;
        case 1: /* it comes twice, the second time with another value */
            bytes_add(&out, b->data + one.start, one.begin - one.start);
            put_value(r, &out, b->data + one.begin, size);
            bytes_text(&out, ",");
            replace(b, one.start, 0, out.data, out.size);
            break;
        case 2: /* another name */
            if (one.begin > one.start + 2) b->data[one.start + 1 + rng_below(r, 2)] ^= 1;
            break;
        case 3: /* another value of the same file */
            bytes_add(&out, b->data + other.begin, other.end - other.begin);
            replace(b, one.begin, size, out.data, out.size);
            break;
        case 4: /* any byte */ mutate_bytes(r, b); break;
        default:
            put_value(r, &out, b->data + one.begin, size);
            replace(b, one.begin, size, out.data, out.size);
            break;
    }
    free(s.at);
    bytes_free(&out);
}

/* --------------------------------------------------------------------------------------------------------- zip */

static uint32_t number_at(const bytes *b, size_t at, int n) {
    uint32_t value = 0;
    while (n-- > 0) value = value << 8 | (at + (size_t)n < b->size ? b->data[at + (size_t)n] : 0);
    return value;
}

/* Where the directory lies; past the end: there is none. */
static size_t directory_of(const bytes *b) {
    for (size_t at = b->size < 22 ? 0 : b->size - 22; at > 0; at--)
        if (memcmp(b->data + at, "PK\5\6", 4) == 0) return number_at(b, at + 16, 4);
    return b->size;
}

void mutate_zip(rng *r, bytes *b) {
    enum { HEADERS = 160 }; /* of a member: its own, and that of the array in it */
    size_t begin = directory_of(b), end = b->size;
    bytes part = {0};
    if (begin >= b->size || rng_below(r, 20) == 0) {
        mutate_bytes(r, b);
        return;
    }
    if (rng_below(r, 2)) { /* of some member */
        for (uint64_t n = rng_below(r, 25); n > 0 && number_at(b, begin, 4) == 0x02014B50; n--)
            begin += 46 + number_at(b, begin + 28, 2) + number_at(b, begin + 30, 2) + number_at(b, begin + 32, 2);
        begin = number_at(b, begin + 42, 4);
        end = begin + HEADERS;
        if (end > b->size) begin = 0, end = b->size;
    }
    bytes_add(&part, b->data + begin, end - begin);
    do mutate_bytes(r, &part);
    while (end < b->size && part.size != end - begin && rng_below(r, 4));
    replace(b, begin, end - begin, part.data, part.size);
    bytes_free(&part);
}

/* --------------------------------------------------------------------------------------------------- checksums */

static uint32_t crc32_of(const uint8_t *data, size_t size) { return (uint32_t)crc32(0, data, (unsigned)size); }

void repair_png(bytes *b) {
    for (size_t at = 8; at + 12 <= b->size;) {
        const uint8_t *p = b->data + at;
        size_t length = (size_t)p[0] << 24 | (size_t)p[1] << 16 | (size_t)p[2] << 8 | p[3];
        if (length > b->size - at - 12) return;
        uint32_t crc = crc32_of(b->data + at + 4, length + 4);
        for (int i = 0; i < 4; i++) b->data[at + 8 + length + (size_t)i] = (uint8_t)(crc >> (24 - 8 * i));
        at += length + 12;
    }
}

void repair_converted(bytes *b) {
    static const char key[] = "\"header_crc32\":\"";
    uint64_t size = 0;
    if (b->size < 8) return;
    for (int i = 7; i >= 0; i--) size = size << 8 | b->data[i];
    if (size > b->size - 8) return;
    uint8_t *digits = memmem(b->data + 8, size, key, sizeof key - 1);
    if (!digits || (size_t)(b->data + 8 + size - (digits += sizeof key - 1)) < 8) return;
    char text[9];
    memcpy(digits, "00000000", 8);
    snprintf(text, sizeof text, "%08x", crc32_of(b->data, 8 + size));
    memcpy(digits, text, 8);
}

void repair_calibration(bytes *b) {
    enum { HEADER = 56, OF_SUMS = 48, OF_HEADER = 52 };
    if (b->size < HEADER) return;
    uint32_t crc = crc32_of(b->data + HEADER, b->size - HEADER);
    memcpy(b->data + OF_SUMS, &crc, 4);
    memset(b->data + OF_HEADER, 0, 4);
    crc = crc32_of(b->data, HEADER);
    memcpy(b->data + OF_HEADER, &crc, 4);
}

void repair_zip(bytes *b) {
    for (size_t at = directory_of(b), next; at < b->size && number_at(b, at, 4) == 0x02014B50; at = next) {
        const size_t size = number_at(b, at + 20, 4), local = number_at(b, at + 42, 4);
        const size_t data = local + 30 + number_at(b, local + 26, 2) + number_at(b, local + 28, 2);
        next = at + 46 + number_at(b, at + 28, 2) + number_at(b, at + 30, 2) + number_at(b, at + 32, 2);
        if (data > b->size || size > b->size - data || b->size - at < 46) continue;
        const uint32_t crc = crc32_of(b->data + data, size);
        for (int i = 0; i < 4; i++) b->data[at + 16 + (size_t)i] = (uint8_t)(crc >> 8 * i);
    }
}
