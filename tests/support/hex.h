/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Texts in hexadecimal: how test data holds what may be any bytes. */
#ifndef TESTS_HEX_H
#define TESTS_HEX_H

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

/* Turns the digits after the next '=' of *at into their bytes, in place, and moves *at behind them. Returns the bytes,
 * *size of them, or NULL when there is no '='. */
static inline char *hex_text(char **at, size_t *size) {
    char *equals = strchr(*at, '='), *text = equals ? equals + 1 : NULL, *digit = text;
    *size = 0;
    if (!text) return NULL;
    for (; digit[0] && digit[0] != ' ' && digit[1]; digit += 2) {
        char pair[3] = {digit[0], digit[1], 0};
        text[(*size)++] = (char)strtol(pair, NULL, 16);
    }
    *at = digit;
    return text;
}

#endif
