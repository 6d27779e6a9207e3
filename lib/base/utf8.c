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

/* How many bytes at `text` are a prefix of a valid character whose length goes to *length. */
static size_t matched_bytes(const uint8_t *text, size_t size, size_t *length) {
    uint8_t low, high;
    *length = 0;
    if (size == 0) return 0;
    *length = lead_byte(text[0], &low, &high);
    if (*length == 0) return 0;
    size_t n = 1;
    while (n < *length && n < size) {
        if (text[n] < low || text[n] > high) break;
        low = 0x80;
        high = 0xBF;
        n++;
    }
    return n;
}

size_t pgi_utf8_next(const uint8_t *text, size_t size, uint32_t *code) {
    size_t length;
    size_t n = matched_bytes(text, size, &length);
    if (length == 0 || n < length) return 0;
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

size_t pgi_utf8_bad_subpart(const uint8_t *text, size_t size, int *incomplete) {
    size_t length;
    size_t n = matched_bytes(text, size, &length);
    if (incomplete) *incomplete = length > 0 && n < length && n == size;
    return n > 0 ? n : 1;
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
