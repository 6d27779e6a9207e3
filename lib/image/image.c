/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Any pg_image to dense RGB: finds the codec by the first bytes, checks and converts camera buffers. */
#include "image/image.h"

#include <string.h>

#include "base/file.h"
#include "image/codecs.h"
#include "image/exif.h"

#define MAX_FILE_SIZE ((size_t)1 << 30)

typedef struct signature {
    const char *name;
    size_t at, size;
    const char *bytes;
} signature;

/* The name of an image format that we do not read, or NULL. */
static const char *known_format(const uint8_t *bytes, size_t size) {
    static const signature formats[] = {{"a WebP image", 8, 4, "WEBP"},
                                        {"a GIF image", 0, 4, "GIF8"},
                                        {"a BMP image", 0, 2, "BM"},
                                        {"a TIFF image", 0, 4, "II*\0"},
                                        {"a TIFF image", 0, 4, "MM\0*"},
                                        {"a HEIC image", 4, 8, "ftypheic"},
                                        {"a HEIC image", 4, 8, "ftypheix"},
                                        {"a HEIF image", 4, 8, "ftypmif1"},
                                        {"an AVIF image", 4, 8, "ftypavif"},
                                        {"a JPEG XL image", 0, 2, "\xFF\x0A"},
                                        {"a JPEG XL image", 4, 4, "JXL "},
                                        {"a JPEG 2000 image", 4, 4, "jP  "},
                                        {"a JPEG 2000 image", 0, 4, "\xFF\x4F\xFF\x51"},
                                        {"an icon file", 0, 4, "\0\0\1\0"},
                                        {"a Photoshop file", 0, 4, "8BPS"},
                                        {"a PDF file", 0, 4, "%PDF"},
                                        {"an SVG file", 0, 4, "<svg"},
                                        {"an XML or SVG file", 0, 5, "<?xml"},
                                        {"a video file", 4, 4, "ftyp"},
                                        {"a QOI image", 0, 4, "qoif"}};
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        const signature *s = &formats[i];
        if (size >= s->at + s->size && memcmp(bytes + s->at, s->bytes, s->size) == 0) return s->name;
    }
    return NULL;
}

static pg_status decode(const pgi_memory *memory, const uint8_t *bytes, size_t size, const char *name,
                        const pgi_image_limits *limits, pgi_rgb *out) {
    int32_t orientation = 1, *wanted = limits->exif ? &orientation : NULL;
    if (size == 0) return pgi_error(PG_ERROR_FORMAT, "%s: found no bytes, expected a PNG or JPEG image", name);
    if (size >= 4 && memcmp(bytes, "\x89PNG", 4) == 0) {
        PGI_TRY(pgi_png_decode(memory, bytes, size, name, limits, out, wanted));
    } else if (size >= 3 && memcmp(bytes, "\xFF\xD8\xFF", 3) == 0) {
        PGI_TRY(pgi_jpeg_decode(memory, bytes, size, name, limits, out, wanted));
    } else {
        const char *format = known_format(bytes, size);
        if (format) return pgi_error(PG_ERROR_UNSUPPORTED, "%s: found %s, expected PNG or JPEG", name, format);
        uint8_t first[4] = {0};
        memcpy(first, bytes, size < 4 ? size : 4);
        return pgi_error(PG_ERROR_FORMAT,
                         "%s: found %zu bytes that begin with %02x %02x %02x %02x, expected PNG or JPEG", name, size,
                         first[0], first[1], first[2], first[3]);
    }
    pg_status status = pgi_exif_transpose(memory, orientation, out);
    if (status < 0) pgi_rgb_free(memory, out);
    return status;
}

static pg_status read_file(const pgi_memory *memory, const char *path, const pgi_image_limits *limits, pgi_rgb *out) {
    if (!path) return pgi_error(PG_ERROR_ARGUMENT, "pg_image.path is NULL, expected the path of an image");
    pgi_buffer file;
    pgi_buffer_init(&file, memory);
    pg_status status = pgi_file_read(path, MAX_FILE_SIZE, &file);
    if (status == PG_OK) status = decode(memory, file.data, file.size, path, limits, out);
    pgi_buffer_free(&file);
    return status;
}

static pg_status read_pixels(const pgi_memory *memory, const pg_image *image, int64_t max_pixels, pgi_rgb *out) {
    static const struct {
        int channels, r, g, b;
    } layouts[] = {[PG_IMAGE_RGB8] = {3, 0, 1, 2},
                   [PG_IMAGE_BGR8] = {3, 2, 1, 0},
                   [PG_IMAGE_RGBA8] = {4, 0, 1, 2},
                   [PG_IMAGE_BGRA8] = {4, 2, 1, 0},
                   [PG_IMAGE_GRAY8] = {1, 0, 0, 0}};
    int32_t width = image->width, height = image->height;
    if (image->format < PG_IMAGE_RGB8 || image->format > PG_IMAGE_GRAY8)
        return pgi_error(PG_ERROR_ARGUMENT, "pg_image.format is %d, expected one of PG_IMAGE_*", image->format);
    if (width < 1 || height < 1)
        return pgi_error(PG_ERROR_ARGUMENT, "pg_image is %d x %d pixels, expected at least 1 x 1", width, height);
    if (width > max_pixels / height)
        return pgi_error(PG_ERROR_LIMIT, "pg_image is %d x %d pixels, expected at most %lld in all", width, height,
                         (long long)max_pixels);
    if (!image->planes[0])
        return pgi_error(PG_ERROR_ARGUMENT, "pg_image.planes[0] is NULL, expected the top row of pixels");
    int channels = layouts[image->format].channels;
    int64_t dense = (int64_t)width * channels, stride = image->strides[0];
    if (stride == 0) stride = dense;
    if (stride < dense && stride > -dense)
        return pgi_error(PG_ERROR_ARGUMENT, "pg_image.strides[0] is %lld bytes, expected at least %lld for %d pixels",
                         (long long)stride, (long long)dense, width);
    if (stride > PTRDIFF_MAX / height || stride < -(PTRDIFF_MAX / height))
        return pgi_error(PG_ERROR_ARGUMENT, "pg_image.strides[0] is %lld bytes, expected a buffer that fits in memory",
                         (long long)stride);
    out->data = pgi_alloc(memory, (size_t)width * 3, (size_t)height);
    if (!out->data) return PG_ERROR_MEMORY;
    out->width = width;
    out->height = height;
    int r = layouts[image->format].r, g = layouts[image->format].g, b = layouts[image->format].b;
    uint8_t *to = out->data;
    for (int32_t y = 0; y < height; y++) {
        const uint8_t *from = image->planes[0] + y * stride;
        for (int32_t x = 0; x < width; x++, from += channels, to += 3) {
            to[0] = from[r];
            to[1] = from[g];
            to[2] = from[b];
        }
    }
    return PG_OK;
}

pg_status pgi_image_read(const pgi_memory *memory, const pg_image *image, const pgi_image_limits *limits,
                         pgi_rgb *out) {
    *out = (pgi_rgb){0};
    if (image->format == PG_IMAGE_PATH) return read_file(memory, image->path, limits, out);
    if (image->format != PG_IMAGE_BYTES) return read_pixels(memory, image, limits->max_pixels, out);
    if (!image->planes[0] && image->n_bytes)
        return pgi_error(PG_ERROR_ARGUMENT, "pg_image.planes[0] is NULL, expected the bytes of an image");
    if (image->n_bytes > PTRDIFF_MAX)
        return pgi_error(PG_ERROR_ARGUMENT, "pg_image.n_bytes is %llu, expected a size that fits in memory",
                         (unsigned long long)image->n_bytes);
    return decode(memory, image->planes[0], (size_t)image->n_bytes, "image bytes", limits, out);
}
