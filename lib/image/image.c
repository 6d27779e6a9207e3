/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Any pg_image as rows of RGB: finds the codec by the first bytes, or opens raw pixels where they lie. */
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

static pg_status open_file(const pgi_memory *memory, const pg_image *image, const pgi_image_limits *limits,
                           pgi_rgb *out) {
    if (image->format == PG_IMAGE_PATH) return read_file(memory, image->path, limits, out);
    PGI_TRY(check_bytes(image));
    return decode(memory, image->planes[0], (size_t)image->n_bytes, "image bytes", limits, out);
}

static pg_status open_any(const pgi_memory *memory, const pgi_kernels *kernels, const pg_image *image,
                          const pgi_image_limits *limits, pgi_opened *out) {
    if (image->format != PG_IMAGE_PATH && image->format != PG_IMAGE_BYTES) {
        PGI_TRY(pgi_frame_open(memory, kernels, image, limits->max_pixels, limits->ground, &out->frame));
        out->width = image->width;
        out->height = image->height;
        out->rows = pgi_frame_rows(&out->frame);
        if (!limits->ground && limits->alpha_dropped && pgi_frame_has_transparent(&out->frame, limits->cancel))
            *limits->alpha_dropped = 1;
        return PG_OK;
    }
    pgi_rectangle roi;
    PGI_TRY(open_file(memory, image, limits, &out->decoded));
    out->width = out->decoded.width;
    out->height = out->decoded.height;
    PGI_TRY(pgi_image_roi(image, out->width, out->height, &roi));
    out->rows = pgi_rows_of(&out->decoded);
    out->rows.data += roi.y * out->rows.stride + 3 * (int64_t)roi.x;
    out->rows.width = roi.width;
    out->rows.height = roi.height;
    return PG_OK;
}

pg_status pgi_image_open(const pgi_memory *memory, const pgi_kernels *kernels, const pg_image *image,
                         const pgi_image_limits *limits, pgi_opened *out) {
    *out = (pgi_opened){.fit = image->fit};
    memcpy(out->background, image->background, sizeof out->background);
    PGI_TRY(pgi_image_check(image));
    pgi_image_limits own = *limits;
    if (image->flags & PG_IMAGE_OVER_BACKGROUND) own.ground = out->background;
    const pg_status status = open_any(memory, kernels, image, &own, out);
    if (status < 0) pgi_image_close(memory, out);
    return status;
}

void pgi_image_close(const pgi_memory *memory, pgi_opened *opened) {
    pgi_rgb_free(memory, &opened->decoded);
    pgi_frame_close(memory, &opened->frame);
}

/* The planes of raw pixels, one behind the other, dense. */
static pg_status copy_pixels(const pgi_memory *memory, const pg_image *image, int64_t max_pixels, pg_image *copy,
                             void **block) {
    pgi_frame frame;
    size_t size = 0;
    PGI_TRY(pgi_frame_check(image, max_pixels, &frame));
    const pgi_pixel_layout *layout = pgi_pixel_layout_of(image->format);
    for (int i = 0; i < layout->n_planes; i++)
        size += (size_t)pgi_plane_row(layout, i, image->width) * (size_t)pgi_plane_height(layout, i, image->height);
    uint8_t *to = pgi_alloc(memory, size, 1);
    if (!to) return PG_ERROR_MEMORY;
    *block = to;
    copy->n_bytes = size;
    for (int i = 0; i < layout->n_planes; i++) {
        const int64_t row = pgi_plane_row(layout, i, image->width);
        copy->planes[i] = to;
        copy->strides[i] = row;
        for (int32_t y = 0; y < pgi_plane_height(layout, i, image->height); y++, to += row)
            memcpy(to, frame.planes[i] + y * frame.strides[i], (size_t)row);
    }
    return PG_OK;
}

pg_status pgi_image_copy(const pgi_memory *memory, const pg_image *image, int64_t max_pixels, pg_image *copy,
                         void **block) {
    *copy = *image;
    *block = NULL;
    PGI_TRY(pgi_image_check(image));
    if (image->format == PG_IMAGE_PATH) {
        if (!image->path) return no_path();
        *block = pgi_copy_string(memory, image->path, strlen(image->path));
        copy->path = *block;
        return *block ? PG_OK : PG_ERROR_MEMORY;
    }
    if (image->format != PG_IMAGE_BYTES) return copy_pixels(memory, image, max_pixels, copy, block);
    PGI_TRY(check_bytes(image));
    *block = pgi_alloc(memory, (size_t)image->n_bytes, 1);
    if (!*block) return PG_ERROR_MEMORY;
    if (image->n_bytes) memcpy(*block, image->planes[0], (size_t)image->n_bytes);
    copy->planes[0] = *block;
    return PG_OK;
}
