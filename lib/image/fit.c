/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* How an image is fitted into the pixels of a model: stretched, or with its shape kept and bars around it. */
#include "image/fit.h"

/* As Python's int(side / ratio) in double, which now and then gives one pixel less than fits. Where nothing would be
 * left, openpi fails; here one pixel is. */
static int32_t scaled(int32_t side, double ratio) {
    const int32_t pixels = (int32_t)(side / ratio);
    return pixels < 1 ? 1 : pixels;
}

pgi_rectangle pgi_fit(int32_t fit, int32_t width, int32_t height, int32_t out_width, int32_t out_height) {
    pgi_rectangle to = {0, 0, out_width, out_height};
    if (fit == PG_FIT_STRETCH || (width == out_width && height == out_height)) return to;
    const double across = (double)width / out_width, down = (double)height / out_height;
    const double ratio = across > down ? across : down;
    to.width = scaled(width, ratio);
    to.height = scaled(height, ratio);
    to.x = out_width - to.width;
    to.y = out_height - to.height;
    if (fit == PG_FIT_LETTERBOX) {
        to.x /= 2;
        to.y /= 2;
    }
    return to;
}

static pg_status check_choice(int32_t value, int32_t last, const char *name, const char *expected) {
    if (value >= 0 && value <= last) return PG_OK;
    return pgi_error(PG_ERROR_ARGUMENT, "pg_image.%s is %d, expected 0 to %d (%s)", name, value, last, expected);
}

pg_status pgi_image_check(const pg_image *image) {
    const int32_t gray_max = image->gray_min || image->gray_max ? image->gray_max : 65535;
    PGI_TRY(check_choice(image->yuv_matrix, PG_YUV_BT709, "yuv_matrix", "PG_YUV_BT601, PG_YUV_BT709"));
    PGI_TRY(check_choice(image->yuv_range, PG_YUV_FULL, "yuv_range", "PG_YUV_VIDEO, PG_YUV_FULL"));
    PGI_TRY(check_choice(image->fit, PG_FIT_PAD_TOP_LEFT, "fit", "PG_FIT_*"));
    if (image->flags & ~(uint32_t)PG_IMAGE_OVER_BACKGROUND)
        return pgi_error(PG_ERROR_ARGUMENT, "pg_image.flags is 0x%x, expected PG_IMAGE_OVER_BACKGROUND or 0",
                         image->flags);
    if (image->background[3])
        return pgi_error(PG_ERROR_ARGUMENT, "pg_image.background[3] is %d, expected 0: a background is R, G, B, 0",
                         image->background[3]);
    if (image->gray_min < 0 || gray_max > 65535 || image->gray_min >= gray_max)
        return pgi_error(PG_ERROR_ARGUMENT,
                         "pg_image.gray_min is %d and gray_max %d, expected 0 <= gray_min < gray_max <= 65535, or both "
                         "0: 0 to 65535",
                         image->gray_min, image->gray_max);
    if (image->reserved) return pgi_error(PG_ERROR_ARGUMENT, "pg_image.reserved is %u, expected 0", image->reserved);
    return PG_OK;
}

pg_status pgi_image_roi(const pg_image *image, int32_t width, int32_t height, pgi_rectangle *roi) {
    const int32_t *r = image->roi;
    *roi = (pgi_rectangle){0, 0, width, height};
    if (!r[0] && !r[1] && !r[2] && !r[3]) return PG_OK;
    if (r[2] < 1 || r[3] < 1)
        return pgi_error(PG_ERROR_ARGUMENT,
                         "pg_image.roi is %d x %d pixels at %d, %d, expected at least 1 x 1, or four zeros: the whole",
                         r[2], r[3], r[0], r[1]);
    if (r[0] < 0 || r[1] < 0 || r[0] > width - r[2] || r[1] > height - r[3])
        return pgi_error(PG_ERROR_ARGUMENT,
                         "pg_image.roi is %d x %d pixels at %d, %d, expected a part of the image, which is %d x %d",
                         r[2], r[3], r[0], r[1], width, height);
    *roi = (pgi_rectangle){r[0], r[1], r[2], r[3]};
    return PG_OK;
}

pg_window pgi_window_of(int32_t fit, const pgi_rectangle *roi, int32_t out_width, int32_t out_height) {
    const pgi_rectangle to = pgi_fit(fit, roi->width, roi->height, out_width, out_height);
    /* products first: they are exact, and without bars so are the quotients */
    return (pg_window){.struct_size = sizeof(pg_window),
                       .x = roi->x - (double)to.x * roi->width / to.width,
                       .y = roi->y - (double)to.y * roi->height / to.height,
                       .width = (double)out_width * roi->width / to.width,
                       .height = (double)out_height * roi->height / to.height};
}
