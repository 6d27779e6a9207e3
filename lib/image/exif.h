/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The orientation of an image, from EXIF or XMP, as PIL.ImageOps.exif_transpose finds and applies it. */
#ifndef PGI_IMAGE_EXIF_H
#define PGI_IMAGE_EXIF_H

#include "base/run.h"
#include "image/rgb.h"

/* What PIL.Image.getexif() looks at; any part may be NULL. */
typedef struct pgi_exif_source {
    const uint8_t *exif; /* a TIFF structure, "Exif\0\0" before it or not */
    size_t exif_size;
    const char *xmp; /* an XMP packet; asked when EXIF has no orientation */
    size_t xmp_size;
} pgi_exif_source;

/* 1 to 8; 1 also for damaged data and values out of range. */
int32_t pgi_exif_orientation(const pgi_exif_source *source);

/* The orientation in the markers of a JPEG file. */
pg_status pgi_exif_of_jpeg(const pgi_memory *memory, const pg_cancel *cancel, const uint8_t *bytes, size_t size,
                           int32_t *orientation);

/* Turns the image so that it stands upright. 1: nothing to do. */
pg_status pgi_exif_transpose(const pgi_memory *memory, const pg_cancel *cancel, int32_t orientation, pgi_rgb *rgb);

#endif
