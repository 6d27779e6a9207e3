/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Images: PNG and JPEG bytes or camera buffers to 8-bit RGB as Pillow's Image.open(f).convert("RGB") gives it, bit for
 * bit.
 */
#ifndef PGI_IMAGE_IMAGE_H
#define PGI_IMAGE_IMAGE_H

#include "image/codecs.h"

/* Twice PIL.Image.MAX_IMAGE_PIXELS: above this Pillow raises DecompressionBombError. */
#define PGI_DEFAULT_MAX_PIXELS INT64_C(178956970)

/* Any pg_image of this version's size (pgi_struct_in has seen it). On error *out needs no free. */
pg_status pgi_image_read(const pgi_memory *memory, const pg_image *image, const pgi_image_limits *limits, pgi_rgb *out);

/* A copy of what such an image borrows, in one block, which outlives it; pixels are made dense. A file is not looked
 * at. On error *block is NULL. */
pg_status pgi_image_copy(const pgi_memory *memory, const pg_image *image, int64_t max_pixels, pg_image *copy,
                         void **block);

#endif
