/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The transparent colour of a PNG: found in its tRNS chunk, laid over white in its pixels. */
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

typedef struct pgi_png_key {
    int found;
    uint8_t rgb[3]; /* compared with the pixels as they are after convert("RGB") */
} pgi_png_key;

/* bytes: a PNG whose header is sound. PG_ERROR_FORMAT when a chunk is too short for its colour type. */
pg_status pgi_png_find_key(const uint8_t *bytes, size_t size, const char *name, const pgi_png_kind *kind,
                           pgi_png_key *key);
/* Pixels of that colour become white. */
pg_status pgi_png_lay_over_white(const pgi_png_key *key, const pg_cancel *cancel, pgi_rgb *rgb);

#endif
