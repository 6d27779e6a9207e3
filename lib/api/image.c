/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Describing images; they are read by image/image.c. */
#include <stdio.h>

#include "api/structs.h"
#include "image/frame.h"
#include "image/image_settings.h"

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

static pg_status raw_in(int32_t format, int32_t width, int32_t height, const pgi_pixel_layout **layout) {
    *layout = pgi_pixel_layout_of(format);
    if (!*layout)
        return pgi_error(PG_ERROR_ARGUMENT, "format is %d, expected PG_IMAGE_RGB8 to PG_IMAGE_UYVY (1 to 12)", format);
    if (width < 1 || height < 1)
        return pgi_error(PG_ERROR_ARGUMENT, "the image is %d x %d pixels, expected at least 1 x 1", width, height);
    return PG_OK;
}

static pg_status stride_error(const char *name, int64_t stride, int64_t dense, int32_t width) {
    return pgi_error(PG_ERROR_ARGUMENT, "%s is %lld bytes, expected 0 (dense) or at least %lld for %d pixels", name,
                     (long long)stride, (long long)dense, width);
}

/* The planes behind the first one, each behind the one before it. Rows of Y, and of U and V by turns, are as far apart;
 * those of U or V alone half as far. */
static pg_status add_planes(const pgi_pixel_layout *layout, int64_t stride, pg_image *image) {
    if (stride < 0)
        return pgi_error(PG_ERROR_ARGUMENT,
                         "stride is %lld, expected 0 (dense) or more for %s, whose planes lie one behind the other; "
                         "pg_image_from_planes() takes others",
                         (long long)stride, layout->name);
    for (int i = 1; i < layout->n_planes; i++) {
        const int32_t above = pgi_plane_height(layout, i - 1, image->height);
        if (image->strides[i - 1] > PTRDIFF_MAX / 4 / above)
            return pgi_error(PG_ERROR_ARGUMENT, "stride is %lld bytes, expected a buffer that fits in memory",
                             (long long)stride);
        const int64_t dense = pgi_plane_row(layout, i, image->width), of_plane = stride * layout->unit[i] / 2;
        if (stride && of_plane < dense)
            return stride_error("stride", stride, dense * 2 / layout->unit[i], image->width);
        image->strides[i] = stride ? of_plane : dense;
        image->planes[i] = image->planes[i - 1] + image->strides[i - 1] * above;
    }
    return PG_OK;
}

pg_status pg_image_from_pixels(pg_image *image, size_t struct_size, int32_t format, int32_t width, int32_t height,
                               const void *pixels, int64_t stride) {
    PGI_ENTER;
    PGI_NOT_NULL(pixels);
    const pgi_pixel_layout *layout;
    PGI_TRY(raw_in(format, width, height, &layout));
    const int64_t dense = pgi_plane_row(layout, 0, width);
    if (stride && stride < dense && stride > -dense) return stride_error("stride", stride, dense, width);
    pg_image value = {
        .struct_size = sizeof value,
        .format = format,
        .width = width,
        .height = height,
        .planes = {pixels},
        .strides = {stride ? stride : dense},
    };
    if (layout->n_planes > 1) PGI_TRY(add_planes(layout, stride, &value));
    return finish(image, struct_size, &value);
}

pg_status pg_image_from_planes(pg_image *image, size_t struct_size, int32_t format, int32_t width, int32_t height,
                               const void *const *planes, const int64_t *strides) {
    PGI_ENTER;
    PGI_NOT_NULL(planes);
    const pgi_pixel_layout *layout;
    PGI_TRY(raw_in(format, width, height, &layout));
    pg_image value = {.struct_size = sizeof value, .format = format, .width = width, .height = height};
    for (int i = 0; i < layout->n_planes; i++) {
        const int64_t dense = pgi_plane_row(layout, i, width), stride = strides && strides[i] ? strides[i] : dense;
        char name[24];
        snprintf(name, sizeof name, "strides[%d]", i);
        if (!planes[i])
            return pgi_error(PG_ERROR_ARGUMENT, "planes[%d] is NULL, expected the %d planes of %s", i, layout->n_planes,
                             layout->name);
        if (stride < dense && stride > -dense) return stride_error(name, stride, dense, width);
        value.planes[i] = planes[i];
        value.strides[i] = stride;
    }
    return finish(image, struct_size, &value);
}

static pg_status side_in(int32_t pixels, int32_t most, const char *name) {
    if (pixels >= 1 && pixels <= most) return PG_OK;
    return pgi_error(PG_ERROR_ARGUMENT, "%s is %d, expected 1 to %d", name, pixels, most);
}

pg_status pg_image_get_window(const pg_image *image, int32_t image_width, int32_t image_height, int32_t width,
                              int32_t height, pg_window *out) {
    PGI_ENTER;
    PGI_NOT_NULL(image);
    PGI_TRY(pgi_struct_out_check(out, PGI_STRUCT(pg_window)));
    pg_image complete = {.struct_size = sizeof complete};
    pgi_rectangle roi;
    PGI_TRY(pgi_struct_in(&complete, image, PGI_STRUCT(pg_image)));
    PGI_TRY(pgi_image_check(&complete));
    if (!image_width && !image_height) {
        if (!pgi_pixel_layout_of(complete.format))
            return pgi_error(PG_ERROR_ARGUMENT,
                             "image_width and image_height are 0, but a file does not say its size before it is read: "
                             "expected those of the inputs' \"image_sizes\"");
        image_width = complete.width;
        image_height = complete.height;
    }
    PGI_TRY(side_in(image_width, INT32_MAX, "image_width"));
    PGI_TRY(side_in(image_height, INT32_MAX, "image_height"));
    PGI_TRY(side_in(width, PGI_MAX_SIDE, "width"));
    PGI_TRY(side_in(height, PGI_MAX_SIDE, "height"));
    PGI_TRY(pgi_image_roi(&complete, image_width, image_height, &roi));
    const pg_window value = pgi_window_of(complete.fit, &roi, width, height);
    pgi_struct_out(out, &value, sizeof value);
    return PG_OK;
}
