/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Apart from support.c, so that a program that loads the library at run time can be linked without it. */
#include <stdio.h>
#include <string.h>

#include "support.h"

/* A decoder of its own, so that a defect of the library's does not hide itself. */
static int is_utf8(const unsigned char *p) {
    while (*p) {
        uint32_t code = *p, low;
        int n = *p < 0x80 ? 0 : *p >> 5 == 6 ? 1 : *p >> 4 == 14 ? 2 : *p >> 3 == 30 ? 3 : -1;
        if (n < 0) return 0;
        low = n == 0 ? 0 : n == 1 ? 0x80 : n == 2 ? 0x800 : 0x10000;
        if (n > 0) code &= 0x3Fu >> n;
        for (p++; n > 0; n--, p++) {
            if ((*p & 0xC0) != 0x80) return 0;
            code = code << 6 | (*p & 0x3Fu);
        }
        if (code < low || code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) return 0;
    }
    return 1;
}

const char *bad_error(pg_status status) {
    const char *text = pg_last_error(), *name = pg_status_name(status);
    if (status >= 0) return "the status is no error";
    if (status == PG_ERROR_INTERNAL) return "PG_ERROR_INTERNAL is a defect";
    if (!name || strncmp(name, "PG_ERROR_", 9) != 0) return "the status has no name";
    if (!text || !*text) return "pg_last_error() is empty";
    if (!is_utf8((const unsigned char *)text)) return "pg_last_error() is not UTF-8";
    for (const char *p = text; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7F) return "pg_last_error() is not one line";
    return NULL;
}

static char stale_text[1100];

void stale_error(void) {
    pg_model *model = NULL;
    pg_model_open(NULL, NULL, &model);
    snprintf(stale_text, sizeof stale_text, "%s", pg_last_error());
}

int error_is_stale(void) { return strcmp(stale_text, pg_last_error()) == 0; }
