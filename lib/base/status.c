/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The thread-local error text: a fixed buffer, so that reporting an error never allocates. */
#include "base/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/utf8.h"

enum {
    TEXT_SIZE = 1024,
    LONG_SIZE = 6144, /* a path may have 4096 bytes, and the message says more than it */
    BEGIN = 400       /* of a text that is too long: its middle is left out, as both ends say something */
};

static _Thread_local struct {
    char text[TEXT_SIZE];
    int64_t row_plus_1; /* 0: of no row */
} last_error;

/* File names and keys come from the outside: a line break or a broken UTF-8
 * sequence in them must not reach a host that logs lines or decodes UTF-8. */
static void make_one_line(char *text) {
    size_t size = strlen(text);
    for (size_t i = 0; i < size;) {
        size_t n = pgi_utf8_next((const uint8_t *)text + i, size - i, NULL);
        if (n == 0) {
            text[i++] = '?';
        } else {
            if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f) text[i] = ' ';
            i += n;
        }
    }
}

/* Takes a text that may be longer than the buffer. */
static void keep(char *text) {
    static const char gap[] = " ... ";
    const size_t size = strlen(text);
    if (size >= TEXT_SIZE) {
        const size_t rest = TEXT_SIZE - 1 - BEGIN - (sizeof gap - 1);
        memcpy(text + BEGIN, gap, sizeof gap - 1);
        memmove(text + BEGIN + sizeof gap - 1, text + size - rest, rest + 1);
    }
    make_one_line(text); /* characters that were cut, too */
    memcpy(last_error.text, text, strlen(text) + 1);
}

pg_status pgi_error(pg_status status, const char *format, ...) {
    char text[LONG_SIZE]; /* the arguments may point into last_error.text */
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    keep(text);
    last_error.row_plus_1 = 0;
    return status;
}

pg_status pgi_error_context(pg_status status, const char *format, ...) {
    char text[LONG_SIZE + TEXT_SIZE + 2];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, LONG_SIZE, format, arguments);
    va_end(arguments);
    size_t size = strlen(text);
    memcpy(text + size, ": ", 2);
    memcpy(text + size + 2, last_error.text, strlen(last_error.text) + 1);
    keep(text);
    return status;
}

pg_status pgi_error_of_row(pg_status status, int64_t row) {
    last_error.row_plus_1 = row + 1;
    return status;
}

int64_t pgi_error_row(void) { return last_error.row_plus_1 - 1; }

const char *pgi_error_text(void) { return last_error.text; }
