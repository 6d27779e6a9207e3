/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* What is transparent in a PNG by its tRNS chunk: a colour, laid over white in its pixels, or entries of its palette.
 */
#ifndef PGI_IMAGE_PNG_KEY_H
#define PGI_IMAGE_PNG_KEY_H

#include "base/run.h"
#include "image/rgb.h"

/* Colour types of PNG that may have a tRNS chunk. */
enum { PGI_PNG_GRAY = 0, PGI_PNG_RGB = 2, PGI_PNG_PALETTE = 3 };

typedef struct pgi_png_kind {
    int color_type, bit_depth;
    const uint8_t (*palette)[3]; /* [256][3], black where the file has no entry */
} pgi_png_kind;

/* A number of the file, the most significant byte first. */
static inline uint32_t pgi_png_u32(const uint8_t *p) {
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

typedef struct pgi_png_key {
    int found;
    uint8_t rgb[3]; /* compared with the pixels as they are after convert("RGB") */
} pgi_png_key;

typedef struct pgi_png_trns {
    const uint8_t *data; /* within the file; NULL: there is none */
    size_t size;
} pgi_png_trns;

/* The tRNS chunk that counts. bytes: a PNG whose header is sound. PG_ERROR_FORMAT when a chunk is too short for its
 * colour type. */
pg_status pgi_png_find_trns(const uint8_t *bytes, size_t size, const char *name, int color_type,
                            const pg_cancel *cancel, pgi_png_trns *trns);
/* Its colour as it is after convert("RGB"); opened: as convert("RGBA") takes it, where a palette has no such colour. */
void pgi_png_read_key(const pgi_png_kind *kind, const pgi_png_trns *trns, int opened, pgi_png_key *key);
/* The alpha of each entry of a palette. PG_ERROR_FORMAT where the chunk has more than 256. */
pg_status pgi_png_palette_alpha(const pgi_png_trns *trns, const char *name, uint8_t alpha[256]);
/* *n_found (may be NULL): how many pixels have that colour; they become `ground` (RGB), where it is not NULL. */
pg_status pgi_png_lay_over(const pgi_png_key *key, const uint8_t *ground, const pg_cancel *cancel, pgi_rgb *rgb,
                           size_t *n_found);

#endif
