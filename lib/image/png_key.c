/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The tRNS chunk of a PNG, as transformers takes it. load_image() of a path: Image.convert("RGB") of Pillow keeps one
 * colour in the image's info, and convert_to_rgb() of SiglipImageProcessor lays the pixels that have it over white. An
 * opened image: convert_to_rgb() begins with convert("RGBA"), which knows all entries of a palette. The chunk is read
 * here, not by libpng, which drops forms that Pillow takes (a second chunk, one behind the pixels, one that is too
 * long).
 */
#include "image/png_key.h"

#include <string.h>

#include "base/status.h"

/* The index of the only entry that is 0 where all others are 255, else -1: the chunk that Pillow reduces to one index
 * (_simple_palette in PngImagePlugin.py, a pattern whose $ also stands before a newline, 10, at the end). */
static int64_t single_index(const uint8_t *alpha, size_t n) {
    const uint8_t *zero = n ? memchr(alpha, 0, n) : NULL;
    if (!zero) return -1;
    for (size_t i = 0; i < n; i++) {
        int newline = i == n - 1 && alpha[i] == '\n' && alpha + i > zero;
        if (alpha + i != zero && alpha[i] != 255 && !newline) return -1;
    }
    return zero - alpha;
}

static void set_rgb(pgi_png_key *key, int r, int g, int b) {
    key->found = 1;
    key->rgb[0] = (uint8_t)r;
    key->rgb[1] = (uint8_t)g;
    key->rgb[2] = (uint8_t)b;
}

void pgi_png_read_key(const pgi_png_kind *kind, const pgi_png_trns *trns, int opened, pgi_png_key *key) {
    const uint8_t *data = trns->data;
    *key = (pgi_png_key){0};
    if (!data) return;
    if (kind->color_type == PGI_PNG_PALETTE) { /* several entries: convert("RGB") drops them */
        int64_t index = opened ? -1 : single_index(data, trns->size);
        const uint8_t *color = kind->palette[index > 255 ? 255 : index < 0 ? 0 : index];
        if (index >= 0) set_rgb(key, color[0], color[1], color[2]);
        return;
    }
    int r = data[0] << 8 | data[1];
    if (kind->color_type == PGI_PNG_RGB) { /* the low bytes, also where the pixels have kept their high ones */
        set_rgb(key, data[1], data[3], data[5]);
    } else if (opened) { /* the low byte, also of samples that are spread over 0 to 255 or cut off at 255 */
        int grey = kind->bit_depth == 1 ? (r ? 255 : 0) : r & 255;
        set_rgb(key, grey, grey, grey);
    } else if (kind->bit_depth == 1) { /* mode "1": the number goes on as the red of a colour */
        set_rgb(key, r ? 255 : 0, 0, 0);
    } else if (kind->bit_depth == 16) { /* mode "I;16": likewise */
        set_rgb(key, r & 255, 0, 0);
    } else { /* as written, although samples of 2 and 4 bits are spread over 0 to 255 */
        int grey = r > 255 ? 255 : r;
        set_rgb(key, grey, grey, grey);
    }
}

pg_status pgi_png_palette_alpha(const pgi_png_trns *trns, const char *name, uint8_t alpha[256]) {
    memset(alpha, 255, 256);
    if (!trns->data) return PG_OK;
    if (trns->size > 256)
        return pgi_error(PG_ERROR_FORMAT, "%s: found a PNG whose tRNS chunk has %zu bytes, expected at most 256", name,
                         trns->size);
    int64_t single = single_index(trns->data, trns->size);
    if (single >= 0)
        alpha[single] = 0; /* also where the pattern of single_index() takes a newline for 255 */
    else
        memcpy(alpha, trns->data, trns->size);
    return PG_OK;
}

/* The last chunk of a file counts. */
pg_status pgi_png_find_trns(const uint8_t *bytes, size_t size, const char *name, int color_type,
                            const pg_cancel *cancel, pgi_png_trns *trns) {
    *trns = (pgi_png_trns){0};
    size_t needed = color_type == PGI_PNG_GRAY ? 2 : color_type == PGI_PNG_RGB ? 6 : 0;
    if (needed == 0 && color_type != PGI_PNG_PALETTE) return PG_OK; /* it has an alpha channel */
    int pixels = 0;                                                 /* an IDAT chunk was there */
    for (size_t at = 8; size - at >= 12;) {
        const uint8_t *chunk = bytes + at;
        size_t n = pgi_png_u32(chunk);
        PGI_TRY(pgi_cancel_check(cancel));
        if (n > size - at - 12 || memcmp(chunk + 4, "IEND", 4) == 0) break;
        if (memcmp(chunk + 4, "IDAT", 4) == 0) pixels = 1;
        if (pixels && memcmp(chunk + 4, "fcTL", 4) == 0) break; /* the next frame of an animation */
        if (memcmp(chunk + 4, "tRNS", 4) == 0) {
            if (n < needed) /* Pillow does not open the file */
                return pgi_error(PG_ERROR_FORMAT, "%s: found a PNG whose tRNS chunk has %zu bytes, expected %zu", name,
                                 n, needed);
            *trns = (pgi_png_trns){chunk + 8, n};
        }
        at += 12 + n;
    }
    return PG_OK;
}

pg_status pgi_png_lay_over(const pgi_png_key *key, const uint8_t *ground, const pg_cancel *cancel, pgi_rgb *rgb,
                           size_t *n_found) {
    const size_t n_pixels = key->found ? (size_t)rgb->width * (size_t)rgb->height : 0;
    uint8_t *p = rgb->data;
    size_t n = 0;
    for (size_t i = 0; i < n_pixels; i++, p += 3) {
        if (i % (1 << 16) == 0) PGI_TRY(pgi_cancel_check(cancel));
        if (memcmp(p, key->rgb, 3) != 0) continue;
        n++;
        if (ground) memcpy(p, ground, 3);
    }
    if (n_found) *n_found = n;
    return PG_OK;
}
