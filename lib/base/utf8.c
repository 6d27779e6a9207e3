/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Reading and writing UTF-8, one character at a time. */
#include "base/utf8.h"

/* Length of the character that `lead` begins (0: cannot begin one) and the range of its second byte. */
static size_t lead_byte(uint8_t lead, uint8_t *low, uint8_t *high) {
    *low = 0x80;
    *high = 0xBF;
    if (lead < 0x80) return 1;
    if (lead < 0xC2) return 0;
    if (lead < 0xE0) return 2;
    if (lead < 0xF0) {
        if (lead == 0xE0) *low = 0xA0;  /* overlong */
        if (lead == 0xED) *high = 0x9F; /* surrogates */
        return 3;
    }
    if (lead < 0xF5) {
        if (lead == 0xF0) *low = 0x90;  /* overlong */
        if (lead == 0xF4) *high = 0x8F; /* above U+10FFFF */
        return 4;
    }
    return 0;
}

size_t pgi_utf8_next(const uint8_t *text, size_t size, uint32_t *code) {
    uint8_t low, high;
    if (size == 0) return 0;
    const size_t length = lead_byte(text[0], &low, &high);
    if (length == 0 || length > size) return 0;
    for (size_t i = 1; i < length; i++) {
        if (text[i] < low || text[i] > high) return 0;
        low = 0x80;
        high = 0xBF;
    }
    if (code) {
        static const uint8_t lead_mask[5] = {0, 0x7F, 0x1F, 0x0F, 0x07};
        uint32_t value = text[0] & lead_mask[length];
        for (size_t i = 1; i < length; i++) value = value << 6 | (text[i] & 0x3F);
        *code = value;
    }
    return length;
}

size_t pgi_utf8_valid_prefix(const uint8_t *text, size_t size) {
    size_t at = 0;
    while (at < size) {
        size_t n = pgi_utf8_next(text + at, size - at, NULL);
        if (n == 0) break;
        at += n;
    }
    return at;
}

size_t pgi_utf8_encode(uint32_t code, uint8_t out[4]) {
    if (code < 0x80) {
        out[0] = (uint8_t)code;
        return 1;
    }
    if (code < 0x800) {
        out[0] = (uint8_t)(0xC0 | code >> 6);
        out[1] = (uint8_t)(0x80 | (code & 0x3F));
        return 2;
    }
    if (code < 0x10000) {
        out[0] = (uint8_t)(0xE0 | code >> 12);
        out[1] = (uint8_t)(0x80 | (code >> 6 & 0x3F));
        out[2] = (uint8_t)(0x80 | (code & 0x3F));
        return 3;
    }
    out[0] = (uint8_t)(0xF0 | code >> 18);
    out[1] = (uint8_t)(0x80 | (code >> 12 & 0x3F));
    out[2] = (uint8_t)(0x80 | (code >> 6 & 0x3F));
    out[3] = (uint8_t)(0x80 | (code & 0x3F));
    return 4;
}

size_t pgi_utf8_char_size(const char *text, size_t size) {
    size_t n = size ? pgi_utf8_next((const uint8_t *)text, size, NULL) : 0;
    return n ? n : size;
}
