/* The image formats: one decoder each, png.c and jpeg.c. */
#ifndef PGI_IMAGE_CODECS_H
#define PGI_IMAGE_CODECS_H

#include "image/rgb.h"

/* `name` is the path or "image bytes", for messages. *orientation: EXIF, 1 to 8, 1 when none. */
pg_status pgi_png_decode(const pgi_memory *memory, const uint8_t *bytes, size_t size, const char *name,
                         int64_t max_pixels, pgi_rgb *out, int32_t *orientation);
pg_status pgi_jpeg_decode(const pgi_memory *memory, const uint8_t *bytes, size_t size, const char *name,
                          int64_t max_pixels, pgi_rgb *out, int32_t *orientation);

#endif
