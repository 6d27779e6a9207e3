/*
 * Pictures: PNG and JPEG bytes or camera buffers to 8-bit RGB as Pillow's
 * Image.open(f).convert("RGB") gives it, bit for bit.
 */
#ifndef PGI_IMAGE_IMAGE_H
#define PGI_IMAGE_IMAGE_H

#include "base/memory.h"

typedef struct pgi_rgb {
    uint8_t *data; /* [height, width, 3], dense; from pgi_alloc */
    int32_t width, height;
} pgi_rgb;

void pgi_rgb_free(const pgi_memory *memory, pgi_rgb *rgb);

/* Twice PIL.Image.MAX_IMAGE_PIXELS: above this Pillow raises DecompressionBombError. */
#define PGI_DEFAULT_MAX_PIXELS INT64_C(178956970)

typedef struct pgi_image_limits {
    int64_t max_pixels; /* width x height above this: PG_ERROR_LIMIT; 1 or more */
    int32_t exif;       /* 1: apply the EXIF orientation, as PIL.ImageOps.exif_transpose */
} pgi_image_limits;

/* Any pg_image of this version's size (pgi_struct_in has seen it). On error *out needs no free. */
pg_status pgi_image_read(const pgi_memory *memory, const pg_image *image, const pgi_image_limits *limits, pgi_rgb *out);

/* The codecs, by file; `name` is the path or "image bytes", for messages. *orientation: EXIF, 1 to 8, 1 when none. */
pg_status pgi_png_decode(const pgi_memory *memory, const uint8_t *bytes, size_t size, const char *name,
                         int64_t max_pixels, pgi_rgb *out, int32_t *orientation);
pg_status pgi_jpeg_decode(const pgi_memory *memory, const uint8_t *bytes, size_t size, const char *name,
                          int64_t max_pixels, pgi_rgb *out, int32_t *orientation);

#endif
