/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The pixels of an image as rows of 8-bit RGB: rows that lie in memory, or that are made of a camera's as they are
 * asked for, so that no copy of a whole frame is ever written. */
#ifndef PGI_IMAGE_ROWS_H
#define PGI_IMAGE_ROWS_H

#include "base/run.h"
#include "image/rgb.h"

typedef struct pgi_rows {
    int32_t width, height;
    const uint8_t *data; /* the top row, [width, 3], or NULL: `make` writes it */
    int64_t stride;      /* bytes from a row in memory to the next */
    int swapped;         /* those in memory are B, G, R */
    /* Rows first .. first + n - 1 to out [n, width, 3]. One thread at a time. */
    void (*make)(void *source, int32_t first, int32_t n, uint8_t *out);
    void *source;
} pgi_rows;

static inline pgi_rows pgi_rows_of(const pgi_rgb *rgb) {
    return (pgi_rows){.width = rgb->width, .height = rgb->height, .data = rgb->data, .stride = (int64_t)rgb->width * 3};
}

/* Rows first .. first + n - 1 as they are to out [n, width, 3]: swapped rows stay swapped. */
void pgi_rows_get(const pgi_rows *rows, int32_t first, int32_t n, uint8_t *out);
/* R, G, B out of B, G, R. */
void pgi_swap_channels(uint8_t *pixels, size_t n);
/* All of them as a new image. On error *out needs no free. */
pg_status pgi_rows_copy(const pgi_memory *memory, const pg_cancel *cancel, const pgi_rows *rows, pgi_rgb *out);

#endif
