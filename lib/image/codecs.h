/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The image formats: one decoder each, png.c and jpeg.c. */
#ifndef PGI_IMAGE_CODECS_H
#define PGI_IMAGE_CODECS_H

#include "base/log.h"
#include "base/run.h"
#include "image/rgb.h"

typedef struct pgi_image_limits {
    int64_t max_pixels;      /* width x height above this: PG_ERROR_LIMIT; 1 or more */
    int32_t exif;            /* 1: apply the EXIF orientation, as PIL.ImageOps.exif_transpose */
    const pg_cancel *cancel; /* looked at after each row, and each 64 KiB of the file; may be NULL */
    int32_t over_white;      /* 1: the transparent colour of a PNG becomes white, as with do_convert_rgb */
    const uint8_t *ground;   /* RGB: all that is transparent is laid over it, white as in an image that Pillow has
                              * opened; NULL: alpha is dropped */
    int32_t *alpha_dropped;  /* set to 1 where a transparent pixel became opaque; may be NULL */
    const pgi_log *log;      /* told of pixels that lose what is in them; may be NULL */
} pgi_image_limits;

/* `name` is the path or "image bytes", for messages. *orientation: EXIF, 1 to 8, 1 when none. */
pg_status pgi_png_decode(const pgi_memory *memory, const uint8_t *bytes, size_t size, const char *name,
                         const pgi_image_limits *limits, pgi_rgb *out, int32_t *orientation);
pg_status pgi_jpeg_decode(const pgi_memory *memory, const uint8_t *bytes, size_t size, const char *name,
                          const pgi_image_limits *limits, pgi_rgb *out, int32_t *orientation);

#endif
