/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Any pg_image to dense RGB: finds the codec by the first bytes, checks and converts camera buffers. */
#include "image/image.h"

#include <string.h>

#include "base/file.h"
#include "base/pipe.h"
#include "image/codecs.h"
#include "image/exif.h"
#include "image/format.h"

#define MAX_FILE_SIZE ((size_t)1 << 30)

static pg_status decode(const pgi_memory *memory, const uint8_t *bytes, size_t size, const char *name,
                        const pgi_image_limits *limits, pgi_rgb *out) {
    int32_t orientation = 1, *wanted = limits->exif ? &orientation : NULL;
    if (size == 0) return pgi_error(PG_ERROR_FORMAT, "%s: found no bytes, expected a PNG or JPEG image", name);
    if (size >= 4 && memcmp(bytes, "\x89PNG", 4) == 0) {
        PGI_TRY(pgi_png_decode(memory, bytes, size, name, limits, out, wanted));
    } else if (size >= 3 && memcmp(bytes, "\xFF\xD8\xFF", 3) == 0) {
        PGI_TRY(pgi_jpeg_decode(memory, bytes, size, name, limits, out, wanted));
    } else {
        return pgi_unknown_image_error(bytes, size, name);
    }
    pg_status status = pgi_exif_transpose(memory, limits->cancel, orientation, out);
    if (status < 0) pgi_rgb_free(memory, out);
    return status;
}

/* What has been given in place of a path, once it could not be read. Both may be too long to be printed whole. */
static pg_status no_path_error(pg_status status, const char *path) {
    if (pgi_path_is_url(path))
        return pgi_error(
            PG_ERROR_NOT_FOUND,
            "%.200s: found a URL, expected a path; download it first, as the library never uses the network", path);
    if (strncmp(path, "data:", 5) == 0)
        return pgi_error(PG_ERROR_NOT_FOUND,
                         "%.40s: found a data: URL, expected a path; decode its base64 text and give the bytes", path);
    return status;
}

static pg_status no_path(void) {
    return pgi_error(PG_ERROR_ARGUMENT, "pg_image.path is NULL, expected the path of an image");
}

/* Checks an image that is the bytes of a file. */
static pg_status check_bytes(const pg_image *image) {
    if (!image->planes[0] && image->n_bytes)
        return pgi_error(PG_ERROR_ARGUMENT, "pg_image.planes[0] is NULL, expected the bytes of an image");
    if (image->n_bytes > PTRDIFF_MAX)
        return pgi_error(PG_ERROR_ARGUMENT, "pg_image.n_bytes is %llu, expected a size that fits in memory",
                         (unsigned long long)image->n_bytes);
    return PG_OK;
}

static pg_status read_file(const pgi_memory *memory, const char *path, const pgi_image_limits *limits, pgi_rgb *out) {
    if (!path) return no_path();
    pgi_buffer file;
    pgi_buffer_init(&file, memory);
    pg_status status = pgi_file_or_pipe_read(path, MAX_FILE_SIZE, &pgi_pipe_waits_default, limits->cancel, &file);
    if (status == PG_OK) {
        status = decode(memory, file.data, file.size, path, limits, out);
    } else if (status != PG_ERROR_MEMORY) {
        status = no_path_error(status, path);
    }
    pgi_buffer_free(&file);
    return status;
}

/* Whether alpha says something that is lost with it. Where it is 0 everywhere, it is a spare byte. */
static int has_transparent(const uint8_t *top, int64_t stride, int32_t width, int32_t height, const pg_cancel *cancel) {
    int transparent = 0, seen = 0;
    for (int32_t y = 0; y < height && !pgi_cancel_requested(cancel); y++)
        for (int32_t x = 0; x < width; x++) {
            int alpha = top[y * stride + 4 * (int64_t)x + 3];
            transparent |= alpha < 255;
            seen |= alpha;
        }
    return transparent && seen;
}

/* How the pixels of a raw format lie. */
typedef struct pixel_layout {
    int channels, r, g, b;
} pixel_layout;

static const pixel_layout layouts[] = {[PG_IMAGE_RGB8] = {3, 0, 1, 2},
                                       [PG_IMAGE_BGR8] = {3, 2, 1, 0},
                                       [PG_IMAGE_RGBA8] = {4, 0, 1, 2},
                                       [PG_IMAGE_BGRA8] = {4, 2, 1, 0},
                                       [PG_IMAGE_GRAY8] = {1, 0, 0, 0}};

/* Checks an image of pixels; *row_stride is that of the rows. */
static pg_status check_pixels(const pg_image *image, int64_t max_pixels, int64_t *row_stride) {
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
    const uint64_t needed = (uint64_t)dense + (uint64_t)(height - 1) * (uint64_t)(stride < 0 ? -stride : stride);
    if (image->n_bytes && image->n_bytes < needed)
        return pgi_error(PG_ERROR_ARGUMENT,
                         "pg_image.n_bytes is %llu, expected at least %llu for %d rows that lie %lld bytes apart",
                         (unsigned long long)image->n_bytes, (unsigned long long)needed, height, (long long)stride);
    *row_stride = stride;
    return PG_OK;
}

pg_status pgi_image_copy(const pgi_memory *memory, const pg_image *image, int64_t max_pixels, pg_image *copy,
                         void **block) {
    *copy = *image;
    *block = NULL;
    if (image->format == PG_IMAGE_PATH) {
        if (!image->path) return no_path();
        *block = pgi_copy_string(memory, image->path, strlen(image->path));
        copy->path = *block;
        return *block ? PG_OK : PG_ERROR_MEMORY;
    }
    if (image->format == PG_IMAGE_BYTES) {
        PGI_TRY(check_bytes(image));
        *block = pgi_alloc(memory, (size_t)image->n_bytes, 1);
        if (!*block) return PG_ERROR_MEMORY;
        if (image->n_bytes) memcpy(*block, image->planes[0], (size_t)image->n_bytes);
        copy->planes[0] = *block;
        return PG_OK;
    }
    int64_t stride;
    PGI_TRY(check_pixels(image, max_pixels, &stride));
    const size_t dense = (size_t)image->width * (size_t)layouts[image->format].channels;
    uint8_t *to = pgi_alloc(memory, dense, (size_t)image->height);
    if (!to) return PG_ERROR_MEMORY;
    for (int32_t y = 0; y < image->height; y++) memcpy(to + (size_t)y * dense, image->planes[0] + y * stride, dense);
    *block = to;
    copy->planes[0] = to;
    copy->strides[0] = (int64_t)dense;
    copy->n_bytes = (uint64_t)dense * (uint64_t)image->height;
    return PG_OK;
}

static pg_status read_pixels(const pgi_memory *memory, const pg_image *image, const pgi_image_limits *limits,
                             pgi_rgb *out) {
    int64_t stride;
    PGI_TRY(check_pixels(image, limits->max_pixels, &stride));
    const int32_t width = image->width, height = image->height;
    const int channels = layouts[image->format].channels;
    out->data = pgi_alloc(memory, (size_t)width * 3, (size_t)height);
    if (!out->data) return PG_ERROR_MEMORY;
    out->width = width;
    out->height = height;
    if (channels == 4 && !limits->alpha_over_white && limits->alpha_dropped &&
        has_transparent(image->planes[0], stride, width, height, limits->cancel))
        *limits->alpha_dropped = 1;
    int r = layouts[image->format].r, g = layouts[image->format].g, b = layouts[image->format].b;
    uint8_t *to = out->data;
    for (int32_t y = 0; y < height; y++) {
        if (pgi_cancel_requested(limits->cancel)) {
            pgi_rgb_free(memory, out);
            return pgi_run_cancelled_error();
        }
        const uint8_t *from = image->planes[0] + y * stride;
        for (int32_t x = 0; x < width; x++, from += channels, to += 3) {
            to[0] = from[r];
            to[1] = from[g];
            to[2] = from[b];
            if (channels == 4 && limits->alpha_over_white)
                for (int c = 0; c < 3; c++) to[c] = pgi_over_white(to[c], from[3]);
        }
    }
    return PG_OK;
}

pg_status pgi_image_read(const pgi_memory *memory, const pg_image *image, const pgi_image_limits *limits,
                         pgi_rgb *out) {
    *out = (pgi_rgb){0};
    if (image->format == PG_IMAGE_PATH) return read_file(memory, image->path, limits, out);
    if (image->format != PG_IMAGE_BYTES) return read_pixels(memory, image, limits, out);
    PGI_TRY(check_bytes(image));
    return decode(memory, image->planes[0], (size_t)image->n_bytes, "image bytes", limits, out);
}
