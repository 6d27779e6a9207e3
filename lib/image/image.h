/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Images: PNG and JPEG bytes to 8-bit RGB as Pillow's Image.open(f).convert("RGB") gives it, bit for bit, and raw
 * pixels (frame.h).
 */
#ifndef PGI_IMAGE_IMAGE_H
#define PGI_IMAGE_IMAGE_H

#include "image/codecs.h"
#include "image/frame.h"

/* Twice PIL.Image.MAX_IMAGE_PIXELS: above this Pillow raises DecompressionBombError. */
#define PGI_DEFAULT_MAX_PIXELS INT64_C(178956970)

/* An image that is open: its rows, and how they are to be fitted. */
typedef struct pgi_opened {
    int32_t width, height; /* of the whole */
    pgi_rows rows;         /* of the region of interest; they may lie in the two below: it is not moved */
    pgi_rgb decoded;       /* of a file */
    pgi_frame frame;       /* of raw pixels */
    int32_t fit;           /* PG_FIT_* */
    uint8_t background[3];
} pgi_opened;

/* Any pg_image of this version's size (pgi_struct_in has seen it). What it borrows must stay until pgi_image_close(),
 * which is not due after an error. */
pg_status pgi_image_open(const pgi_memory *memory, const pgi_kernels *kernels, const pg_image *image,
                         const pgi_image_limits *limits, pgi_opened *out);
void pgi_image_close(const pgi_memory *memory, pgi_opened *opened);

/* A copy of what such an image borrows, in one block, which outlives it; pixels are made dense. A file is not looked
 * at. On error *block is NULL. */
pg_status pgi_image_copy(const pgi_memory *memory, const pg_image *image, int64_t max_pixels, pg_image *copy,
                         void **block);

#endif
