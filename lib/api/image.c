/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Describing images; they are read by image/image.c. */
#include "api/structs.h"

static pg_status finish(pg_image *image, size_t struct_size, const pg_image *value) {
    return pgi_struct_init(image, struct_size, value, PGI_STRUCT(pg_image));
}

pg_status pg_image_from_path(pg_image *image, size_t struct_size, const char *path) {
    PGI_ENTER;
    PGI_NOT_NULL(path);
    pg_image value = {.struct_size = sizeof value, .format = PG_IMAGE_PATH, .path = path};
    return finish(image, struct_size, &value);
}

pg_status pg_image_from_bytes(pg_image *image, size_t struct_size, const void *bytes, size_t n_bytes) {
    PGI_ENTER;
    PGI_NOT_NULL(bytes);
    pg_image value = {.struct_size = sizeof value, .format = PG_IMAGE_BYTES, .planes = {bytes}, .n_bytes = n_bytes};
    return finish(image, struct_size, &value);
}

pg_status pg_image_from_pixels(pg_image *image, size_t struct_size, int32_t format, int32_t width, int32_t height,
                               const void *pixels, int64_t stride) {
    PGI_ENTER;
    PGI_NOT_NULL(pixels);
    int64_t channels;
    switch (format) {
        case PG_IMAGE_RGB8:
        case PG_IMAGE_BGR8: channels = 3; break;
        case PG_IMAGE_RGBA8:
        case PG_IMAGE_BGRA8: channels = 4; break;
        case PG_IMAGE_GRAY8: channels = 1; break;
        default:
            return pgi_error(PG_ERROR_ARGUMENT, "format is %d, expected PG_IMAGE_RGB8 to PG_IMAGE_GRAY8 (1 to 5)",
                             format);
    }
    if (width < 1 || height < 1)
        return pgi_error(PG_ERROR_ARGUMENT, "the image is %d x %d pixels, expected at least 1 x 1", width, height);
    const int64_t dense = width * channels;
    if (stride && stride < dense && stride > -dense)
        return pgi_error(PG_ERROR_ARGUMENT, "stride is %lld bytes, expected 0 (dense) or at least %lld for %d pixels",
                         (long long)stride, (long long)dense, width);
    pg_image value = {
        .struct_size = sizeof value,
        .format = format,
        .width = width,
        .height = height,
        .planes = {pixels},
        .strides = {stride ? stride : dense},
    };
    return finish(image, struct_size, &value);
}
