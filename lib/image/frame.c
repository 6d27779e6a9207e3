/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Raw pixels: their layouts, the checks of sizes and strides, and each format's rows as RGB. */
#include "image/frame.h"

#include <limits.h>
#include <math.h>

/* ---- layouts ---- */

const pgi_pixel_layout *pgi_pixel_layout_of(int32_t format) {
    static const pgi_pixel_layout layouts[] = {
        [PG_IMAGE_RGB8] = {"RGB8", 1, {3}, {1}, {1}},
        [PG_IMAGE_BGR8] = {"BGR8", 1, {3}, {1}, {1}},
        [PG_IMAGE_RGBA8] = {"RGBA8", 1, {4}, {1}, {1}},
        [PG_IMAGE_BGRA8] = {"BGRA8", 1, {4}, {1}, {1}},
        [PG_IMAGE_GRAY8] = {"GRAY8", 1, {1}, {1}, {1}},
        [PG_IMAGE_RGB565] = {"RGB565", 1, {2}, {1}, {1}},
        [PG_IMAGE_GRAY16] = {"GRAY16", 1, {2}, {1}, {1}},
        [PG_IMAGE_NV12] = {"NV12", 2, {1, 2}, {1, 2}, {1, 2}},
        [PG_IMAGE_NV21] = {"NV21", 2, {1, 2}, {1, 2}, {1, 2}},
        [PG_IMAGE_I420] = {"I420", 3, {1, 1, 1}, {1, 2, 2}, {1, 2, 2}},
        [PG_IMAGE_YUYV] = {"YUYV", 1, {4}, {2}, {1}},
        [PG_IMAGE_UYVY] = {"UYVY", 1, {4}, {2}, {1}},
    };
    const int known = format > 0 && format < (int)(sizeof layouts / sizeof *layouts);
    return known && layouts[format].n_planes ? &layouts[format] : NULL;
}

int64_t pgi_plane_row(const pgi_pixel_layout *layout, int plane, int32_t width) {
    return ((int64_t)width + layout->across[plane] - 1) / layout->across[plane] * layout->unit[plane];
}

int32_t pgi_plane_height(const pgi_pixel_layout *layout, int plane, int32_t height) {
    return (int32_t)(((int64_t)height + layout->down[plane] - 1) / layout->down[plane]);
}

/* ---- rows ---- */

static const uint8_t *at(const pgi_frame *frame, int plane, int64_t row) {
    return frame->planes[plane] + row * frame->strides[plane];
}

static void alpha_row(const uint8_t *in, int32_t n, int swapped, const uint8_t *ground, uint8_t *restrict out) {
    const int r = swapped ? 2 : 0, b = 2 - r;
    for (int32_t x = 0; x < n; x++) {
        out[3 * x] = in[4 * x + r];
        out[3 * x + 1] = in[4 * x + 1];
        out[3 * x + 2] = in[4 * x + b];
    }
    for (int32_t x = 0; ground && x < n; x++)
        for (int c = 0; c < 3; c++) out[3 * x + c] = pgi_over(out[3 * x + c], ground[c], in[4 * x + 3]);
}

/* 5 and 6 bits to 8: 255 / 31 and 255 / 63 of them, rounded to the nearest. */
static void rgb565_row(const uint8_t *in, int32_t n, uint8_t *out) {
    for (int32_t x = 0; x < n; x++, in += 2, out += 3) {
        const unsigned value = in[0] | (unsigned)in[1] << 8;
        out[0] = (uint8_t)(((value >> 11) * 527 + 23) >> 6);
        out[1] = (uint8_t)(((value >> 5 & 63) * 259 + 33) >> 6);
        out[2] = (uint8_t)(((value & 31) * 527 + 23) >> 6);
    }
}

/* The scale is too large by less than 2^-40, so that a half is never missed; the next value is 2^-17 away. */
static void gray16_row(const pgi_frame *frame, const uint8_t *in, uint8_t *out) {
    for (int32_t x = 0; x < frame->part.width; x++, in += 2, out += 3) {
        int32_t value = (in[0] | in[1] << 8) - frame->gray_min;
        value = value < 0 ? 0 : value > frame->gray_range ? frame->gray_range : value;
        out[0] = out[1] = out[2] = (uint8_t)(((uint64_t)value * frame->gray_scale + (UINT64_C(1) << 39)) >> 40);
    }
}

/* What stands in even places and in odd ones: loops that compilers make vectors of. */
static void split(const uint8_t *in, int64_t n, uint8_t *restrict even, uint8_t *restrict odd) {
    for (int64_t i = 0; i < n; i++) {
        even[i] = in[2 * i];
        odd[i] = in[2 * i + 1];
    }
}

static void join(const uint8_t *even, const uint8_t *odd, int64_t n, uint8_t *restrict out) {
    for (int64_t i = 0; i < n; i++) {
        out[2 * i] = even[i];
        out[2 * i + 1] = odd[i];
    }
}

/* A row of the part; luma: its Y. */
static void yuv_row(const pgi_frame *frame, const uint8_t *luma, uint8_t *out) {
    const int16_t *terms = frame->terms + frame->part.x % 2;
    frame->kernels->yuv_row(&frame->yuv, luma, terms, frame->n_terms, frame->part.width, out);
}

/* pairs: a row of chroma, from the even column at or before the part on. */
static void take_terms(pgi_frame *frame, const uint8_t *pairs) {
    frame->kernels->yuv_terms(&frame->yuv, pairs, frame->n_terms / 2, frame->terms, frame->n_terms);
}

/* Two rows have the same chroma, whose terms are kept from the one to the other. */
static void planar_row(pgi_frame *frame, int32_t y, uint8_t *out) {
    const int32_t row = y / 2, first = frame->part.x / 2;
    if (frame->terms_row != row && frame->format == PG_IMAGE_I420) {
        join(at(frame, 1, row) + first, at(frame, 2, row) + first, frame->n_terms / 2, frame->pairs);
        take_terms(frame, frame->pairs);
    } else if (frame->terms_row != row) {
        take_terms(frame, at(frame, 1, row) + 2 * (int64_t)first);
    }
    frame->terms_row = row;
    yuv_row(frame, at(frame, 0, y) + frame->part.x, out);
}

static void packed_row(pgi_frame *frame, int32_t y, uint8_t *out) {
    const uint8_t *in = at(frame, 0, y) + 4 * (int64_t)(frame->part.x / 2);
    const int uyvy = frame->format == PG_IMAGE_UYVY;
    split(in, frame->n_terms, uyvy ? frame->pairs : frame->luma, uyvy ? frame->luma : frame->pairs);
    take_terms(frame, frame->pairs);
    yuv_row(frame, frame->luma + frame->part.x % 2, out);
}

static void make_row(pgi_frame *frame, int32_t y, uint8_t *out) {
    const int32_t x = frame->part.x, width = frame->part.width;
    switch (frame->format) {
        case PG_IMAGE_GRAY8: {
            const uint8_t *in = at(frame, 0, y) + x;
            for (int32_t i = 0; i < width; i++, out += 3) out[0] = out[1] = out[2] = in[i];
            break;
        }
        case PG_IMAGE_RGBA8:
        case PG_IMAGE_BGRA8:
            alpha_row(at(frame, 0, y) + 4 * (int64_t)x, width, frame->format == PG_IMAGE_BGRA8, frame->ground, out);
            break;
        case PG_IMAGE_RGB565: rgb565_row(at(frame, 0, y) + 2 * (int64_t)x, width, out); break;
        case PG_IMAGE_GRAY16: gray16_row(frame, at(frame, 0, y) + 2 * (int64_t)x, out); break;
        case PG_IMAGE_YUYV:
        case PG_IMAGE_UYVY: packed_row(frame, y, out); break;
        default: planar_row(frame, y, out);
    }
}

static void make_rows(void *source, int32_t first, int32_t n, uint8_t *out) {
    pgi_frame *frame = source;
    for (int32_t y = 0; y < n; y++, out += (size_t)frame->part.width * 3)
        make_row(frame, frame->part.y + first + y, out);
}

pgi_rows pgi_frame_rows(pgi_frame *frame) {
    const pgi_rectangle *part = &frame->part;
    pgi_rows rows = {.width = part->width, .height = part->height, .make = make_rows, .source = frame};
    if (frame->format == PG_IMAGE_RGB8 || frame->format == PG_IMAGE_BGR8) {
        rows.data = at(frame, 0, part->y) + 3 * (int64_t)part->x;
        rows.stride = frame->strides[0];
        rows.swapped = frame->format == PG_IMAGE_BGR8;
    }
    return rows;
}

int pgi_frame_has_transparent(const pgi_frame *frame, const pg_cancel *cancel) {
    const pgi_rectangle *part = &frame->part;
    int transparent = 0, seen = 0;
    if (frame->format != PG_IMAGE_RGBA8 && frame->format != PG_IMAGE_BGRA8) return 0;
    for (int32_t y = part->y; y < part->y + part->height && !pgi_cancel_requested(cancel); y++) {
        const uint8_t *in = at(frame, 0, y) + 4 * (int64_t)part->x;
        for (int32_t x = 0; x < part->width; x++) {
            const int alpha = in[4 * (int64_t)x + 3];
            transparent |= alpha < 255;
            seen |= alpha;
        }
    }
    return transparent && seen;
}

/* ---- opening ---- */

/* A factor with PGI_YUV_BITS fraction bits. */
static void set_factor(double factor, int16_t *high, int16_t *low) {
    const int32_t bits = (int32_t)lrint(factor * PGI_YUV_STEPS * (1 << PGI_YUV_BITS));
    *high = (int16_t)(bits >> PGI_YUV_LOW_BITS);
    *low = (int16_t)(bits & ((1 << PGI_YUV_LOW_BITS) - 1));
}

void pgi_yuv_init(int32_t matrix, int32_t range, int swapped, pgi_yuv *yuv) {
    const int full = range == PG_YUV_FULL;
    const double kr = matrix == PG_YUV_BT709 ? 0.2126 : 0.299, kb = matrix == PG_YUV_BT709 ? 0.0722 : 0.114;
    const double kg = 1 - kr - kb, chroma = full ? 1 : 255.0 / 224, r = 2 * (1 - kr) * chroma,
                 b = 2 * (1 - kb) * chroma;
    const double factors[3][2] = {{0, r}, {-kb / kg * b, -kr / kg * r}, {b, 0}}; /* of U and V */
    for (int c = 0; c < 3; c++)
        for (int i = 0; i < 2; i++) set_factor(factors[c][swapped ? 1 - i : i], &yuv->high[c][i], &yuv->low[c][i]);
    yuv->scale = full ? PGI_YUV_STEPS : 85;
    /* 73 / 2, and a little for the factors' own rounding: 24 is right for all four, 23 and 25 are not */
    yuv->start = PGI_YUV_STEPS * (1 << (PGI_YUV_BITS - 1)) + 24;
    yuv->offset = full ? 0 : -16 * 85;
}

static pg_status check_planes(const pg_image *image, const pgi_pixel_layout *layout, pgi_frame *frame) {
    static const char *const what[PGI_MAX_PLANES] = {"the top row of pixels", "the top row of chroma",
                                                     "the top row of V"};
    for (int i = 0; i < PGI_MAX_PLANES && i < layout->n_planes; i++) {
        if (!image->planes[i])
            return pgi_error(PG_ERROR_ARGUMENT, "pg_image.planes[%d] is NULL, expected %s", i, what[i]);
        const int64_t dense = pgi_plane_row(layout, i, image->width);
        const int32_t height = pgi_plane_height(layout, i, image->height);
        const int64_t stride = image->strides[i] ? image->strides[i] : dense;
        if (stride < dense && stride > -dense)
            return pgi_error(PG_ERROR_ARGUMENT,
                             "pg_image.strides[%d] is %lld bytes, expected at least %lld for %d pixels", i,
                             (long long)stride, (long long)dense, image->width);
        if (stride > PTRDIFF_MAX / height || stride < -(PTRDIFF_MAX / height))
            return pgi_error(PG_ERROR_ARGUMENT,
                             "pg_image.strides[%d] is %lld bytes, expected a buffer that fits in memory", i,
                             (long long)stride);
        frame->planes[i] = image->planes[i];
        frame->strides[i] = stride;
    }
    return PG_OK;
}

/* Whether all rows lie in the n_bytes bytes of the image. */
static pg_status check_buffer(const pg_image *image, const pgi_pixel_layout *layout, const pgi_frame *frame) {
    if (!image->n_bytes) return PG_OK;
    for (int i = 0; i < layout->n_planes; i++) {
        const int32_t height = pgi_plane_height(layout, i, image->height);
        const int64_t stride = frame->strides[i];
        if (stride < 0 && layout->n_planes > 1)
            return pgi_error(PG_ERROR_ARGUMENT,
                             "pg_image.strides[%d] is %lld and n_bytes is set, expected n_bytes 0 where a plane of %s "
                             "begins at its bottom row",
                             i, (long long)stride, layout->name);
        const uintptr_t begin = (uintptr_t)image->planes[i], first = (uintptr_t)image->planes[0];
        if (begin < first)
            return pgi_error(PG_ERROR_ARGUMENT,
                             "pg_image.planes[%d] lies before planes[0] and n_bytes is set, expected n_bytes 0 where "
                             "the planes are not one buffer",
                             i);
        const uint64_t size = (uint64_t)pgi_plane_row(layout, i, image->width) +
                              (uint64_t)(height - 1) * (uint64_t)(stride < 0 ? -stride : stride);
        const uint64_t needed = (begin - first) + size;
        if (image->n_bytes < needed)
            return pgi_error(PG_ERROR_ARGUMENT,
                             "pg_image.n_bytes is %llu, expected at least %llu for %d rows that lie %lld bytes apart",
                             (unsigned long long)image->n_bytes, (unsigned long long)needed, height, (long long)stride);
    }
    return PG_OK;
}

static void set_gray(const pg_image *image, pgi_frame *frame) {
    frame->gray_min = image->gray_min;
    frame->gray_range = image->gray_min || image->gray_max ? image->gray_max - image->gray_min : 65535;
    frame->gray_scale = ((UINT64_C(255) << 40) + (uint64_t)frame->gray_range - 1) / (uint64_t)frame->gray_range;
}

static pg_status new_scratch(const pgi_memory *memory, const pg_image *image, pgi_frame *frame) {
    const int64_t begin = frame->part.x / 2 * 2, end = (frame->part.x + (int64_t)frame->part.width + 1) / 2 * 2;
    frame->n_terms = end - begin;
    frame->terms_row = -1;
    pgi_yuv_init(image->yuv_matrix, image->yuv_range, image->format == PG_IMAGE_NV21, &frame->yuv);
    if (!(frame->terms = pgi_alloc(memory, (size_t)frame->n_terms, 3 * sizeof *frame->terms))) return PG_ERROR_MEMORY;
    if (image->format == PG_IMAGE_NV12 || image->format == PG_IMAGE_NV21) return PG_OK;
    if (!(frame->luma = pgi_alloc(memory, (size_t)frame->n_terms, 2))) return PG_ERROR_MEMORY;
    frame->pairs = frame->luma + frame->n_terms;
    return PG_OK;
}

pg_status pgi_frame_check(const pg_image *image, int64_t max_pixels, pgi_frame *frame) {
    const pgi_pixel_layout *layout = pgi_pixel_layout_of(image->format);
    const int32_t width = image->width, height = image->height;
    *frame = (pgi_frame){.format = image->format};
    if (!layout)
        return pgi_error(PG_ERROR_ARGUMENT, "pg_image.format is %d, expected one of PG_IMAGE_*", image->format);
    if (width < 1 || height < 1)
        return pgi_error(PG_ERROR_ARGUMENT, "pg_image is %d x %d pixels, expected at least 1 x 1", width, height);
    if (width > max_pixels / height)
        return pgi_error(PG_ERROR_LIMIT, "pg_image is %d x %d pixels, expected at most %lld in all", width, height,
                         (long long)max_pixels);
    PGI_TRY(check_planes(image, layout, frame));
    PGI_TRY(check_buffer(image, layout, frame));
    return pgi_image_roi(image, width, height, &frame->part);
}

pg_status pgi_frame_open(const pgi_memory *memory, const pgi_kernels *kernels, const pg_image *image,
                         int64_t max_pixels, const uint8_t *ground, pgi_frame *frame) {
    PGI_TRY(pgi_frame_check(image, max_pixels, frame));
    frame->kernels = kernels;
    frame->ground = ground;
    set_gray(image, frame);
    return image->format < PG_IMAGE_NV12 ? PG_OK : new_scratch(memory, image, frame);
}

void pgi_frame_close(const pgi_memory *memory, pgi_frame *frame) {
    pgi_free(memory, frame->terms);
    pgi_free(memory, frame->luma);
}
