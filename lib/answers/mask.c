/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * A decoded mask of 64 x 64 in its box of the image, as the training code's evaluator puts it there (big_vision:
 * transfers/segmentation.py): Pillow's bilinear resize of the f32 values; inside is what is above 0. Run lengths as in
 * COCO's maskApi.c.
 */
#include "answers/mask.h"

#include <math.h>
#include <string.h>

#include "base/int64.h"

/* ---- Pillow's Image.resize(BILINEAR) of a mode "F" image (ImagingResample) ---- */

/* What each of n_out pixels takes from n_in: `taps` weights from the pixel `first` on. */
typedef struct line_filter {
    int32_t taps;
    int32_t *first; /* [n_out] */
    double *weight; /* [n_out, taps] */
} line_filter;

/* The outputs from .. to - 1 of the n_out; here they are numbered from 0 on. */
static pg_status make_filter(const pgi_memory *memory, int64_t n_out, int64_t from, int64_t to, line_filter *f) {
    const int32_t n_in = PGI_MASK_SIDE;
    const double scale = (double)(float)n_in / (double)n_out, support = scale < 1 ? 1 : scale;
    f->taps = (int32_t)ceil(support) * 2 + 1;
    f->first = pgi_alloc(memory, (size_t)(to - from), sizeof *f->first);
    f->weight = pgi_alloc_zero(memory, (size_t)(to - from) * (size_t)f->taps, sizeof *f->weight);
    if (!f->first || !f->weight) return PG_ERROR_MEMORY;
    for (int64_t i = 0; i < to - from; i++) {
        const double center = ((double)(from + i) + 0.5) * scale;
        const int32_t begin = (int32_t)fmax(center - support + 0.5, 0);
        const int32_t end = (int32_t)pgi_min64((int64_t)(center + support + 0.5), n_in);
        double *w = f->weight + (size_t)i * (size_t)f->taps, sum = 0;
        for (int32_t k = 0; k < end - begin; k++) {
            const double x = fabs((k + begin - center + 0.5) / support);
            w[k] = x < 1 ? 1 - x : 0;
            sum += w[k];
        }
        for (int32_t k = 0; sum != 0 && k < end - begin; k++) w[k] /= sum;
        f->first[i] = begin;
    }
    return PG_OK;
}

static void free_filter(const pgi_memory *memory, line_filter *f) {
    pgi_free(memory, f->first);
    pgi_free(memory, f->weight);
}

/* One output value of the pixels in[k * stride]. */
static float filtered(const line_filter *f, int32_t i, const float *in, int64_t stride, int32_t n_in) {
    const double *w = f->weight + (size_t)i * (size_t)f->taps;
    const int32_t n = (int32_t)pgi_min64(f->taps, n_in - f->first[i]);
    double sum = 0;
    for (int32_t k = 0; k < n; k++) sum += (double)in[(f->first[i] + k) * stride] * w[k];
    return (float)sum;
}

/* 128 to 255 for what is above 0, 127 to 0 for the rest, in steps of 1/128. */
static uint8_t level(float x) {
    const float steps = fminf(127, floorf(fabsf(x) * 128));
    if (x != x) return 0;
    return (uint8_t)(x > 0 ? 128 + (int)steps : 127 - (int)steps);
}

typedef struct box {
    int64_t x0, y0, x1, y1; /* pixels, x0 < x1, y0 < y1 */
} box;

/* The part of a box that lies in the image is painted: its rows and columns. across [64, width of the part] is made of
 * mask [64, 64], a row of out after the other of that. */
static void paint(const float *mask, const line_filter *columns, const line_filter *rows, const box *part,
                  int64_t width, float *across, uint8_t *out) {
    const int32_t w = (int32_t)(part->x1 - part->x0), h = (int32_t)(part->y1 - part->y0);
    for (int32_t y = 0; y < PGI_MASK_SIDE; y++)
        for (int32_t x = 0; x < w; x++)
            across[(int64_t)y * w + x] = filtered(columns, x, mask + y * PGI_MASK_SIDE, 1, PGI_MASK_SIDE);
    for (int32_t y = 0; y < h; y++)
        for (int32_t x = 0; x < w; x++)
            out[(part->y0 + y) * width + part->x0 + x] = level(filtered(rows, y, across + x, w, PGI_MASK_SIDE));
}

static pg_status paint_box(const pg_mask_decoder *decoder, const int32_t *codes, const box *b, const box *part,
                           int64_t width, uint8_t *out) {
    const pgi_memory *memory = &decoder->memory;
    float mask[PGI_MASK_SIDE * PGI_MASK_SIDE];
    line_filter columns = {0}, rows = {0};
    PGI_TRY(pgi_mask_decode(decoder, codes, mask));
    float *across = pgi_alloc(memory, (size_t)PGI_MASK_SIDE * (size_t)(part->x1 - part->x0), sizeof *across);
    pg_status status = PG_ERROR_MEMORY;
    if (across) status = make_filter(memory, b->x1 - b->x0, part->x0 - b->x0, part->x1 - b->x0, &columns);
    if (status >= 0) status = make_filter(memory, b->y1 - b->y0, part->y0 - b->y0, part->y1 - b->y0, &rows);
    if (status >= 0) paint(mask, &columns, &rows, part, width, across, out);
    free_filter(memory, &columns);
    free_filter(memory, &rows);
    pgi_free(memory, across);
    return status;
}

/* A loc in pixels, `size` of them from `start` on: cut off as big_vision does, or rounded as Hugging Face's demos. */
static int64_t pixel(int32_t loc, double start, double size, int32_t convention) {
    const double at = start + (double)loc / (convention == PG_BOX_1023 ? 1023 : 1024) * size, nearest = rint(at);
    /* of a window that begins elsewhere, a whole pixel may come out next to it */
    const int is_whole = start != 0 && fabs(at - nearest) < 1e-6;
    return (int64_t)(convention == PG_BOX_1023 && !is_whole ? floor(at) : nearest);
}

static int64_t within(int64_t x, int64_t most) { return x < 0 ? 0 : pgi_min64(x, most); }

pg_status pgi_mask_of_object(const pg_mask_decoder *decoder, const pg_answer *answer, int64_t index, uint8_t *out) {
    const pg_object *object = &answer->objects.data[index].object;
    const uint32_t wrong = PG_OBJECT_PARTIAL | PG_OBJECT_OUT_OF_RANGE | PG_OBJECT_OUT_OF_ORDER | PG_OBJECT_STRAY_SEG |
                           PG_OBJECT_SEG_PARTIAL;
    if (object->n_segs < PGI_MASK_SEGS || object->n_locs < PGI_BOX_LOCS || object->flags & wrong)
        return pgi_error(PG_ERROR_NOT_FOUND,
                         "object %lld has no mask: it has %d locs and %d segs with flags %u, expected a box (4 locs in "
                         "order) and 16 segs, all in their range",
                         (long long)index, object->n_locs, object->n_segs, object->flags);
    const int32_t *locs = object->locs, width = answer->width, height = answer->height;
    const pg_window *window = &answer->window;
    const box b = {
        .x0 = pixel(locs[1], window->x, window->width, answer->convention),
        .y0 = pixel(locs[0], window->y, window->height, answer->convention),
        .x1 = pixel(locs[3], window->x, window->width, answer->convention),
        .y1 = pixel(locs[2], window->y, window->height, answer->convention),
    };
    const box part = {within(b.x0, width), within(b.y0, height), within(b.x1, width), within(b.y1, height)};
    memset(out, 0, (size_t)width * (size_t)height);
    if (part.x1 <= part.x0 || part.y1 <= part.y0) return PG_OK;
    return paint_box(decoder, object->segs, &b, &part, width, out);
}

/* ---- run lengths ---- */

enum { SQUARE = 64 };

/* The columns x .. x + n - 1, n <= SQUARE, one behind the other: 1 is inside. In squares, as the caches like it. */
static void take_columns(const uint8_t *mask, int64_t width, int64_t height, int64_t x, int64_t n, uint8_t *out) {
    uint8_t square[SQUARE][SQUARE];
    for (int64_t top = 0; top < height; top += SQUARE) {
        const int64_t rows = pgi_min64(height - top, SQUARE);
        for (int64_t y = 0; y < rows; y++)
            for (int64_t k = 0; k < n; k++) square[k][y] = mask[(top + y) * width + x + k] >= 128;
        for (int64_t k = 0; k < n; k++) memcpy(out + k * height + top, square[k], (size_t)rows);
    }
}

pg_status pgi_mask_counts(const uint8_t *mask, int64_t width, int64_t height, pgi_buffer *out) {
    uint32_t count = 0;
    uint8_t inside = 0;
    pg_status status = PG_OK;
    uint8_t *columns = pgi_alloc(&pgi_memory_default, (size_t)pgi_min64(width, SQUARE), (size_t)height);
    if (!columns) return PG_ERROR_MEMORY;
    for (int64_t x = 0, n; x < width && status >= 0; x += n) {
        n = pgi_min64(width - x, SQUARE);
        take_columns(mask, width, height, x, n, columns);
        for (int64_t i = 0; i < n * height && status >= 0; i++, count++) {
            if (columns[i] == inside) continue;
            status = pgi_buffer_append(out, &count, sizeof count);
            count = 0;
            inside = !inside;
        }
    }
    pgi_free(&pgi_memory_default, columns);
    return status < 0 ? status : pgi_buffer_append(out, &count, sizeof count);
}

pg_status pgi_mask_rle(const pgi_buffer *counts, pgi_buffer *out) {
    const size_t n = counts->size / sizeof(uint32_t);
    for (size_t i = 0; i < n; i++) {
        uint32_t pair[2] = {0, 0};
        memcpy(&pair[0], counts->data + i * sizeof *pair, sizeof *pair);
        if (i > 2) memcpy(&pair[1], counts->data + (i - 2) * sizeof *pair, sizeof *pair);
        int64_t x = (int64_t)pair[0] - pair[1];
        for (int more = 1; more;) { /* five bits a character, the lowest first; the last one's fifth is the sign */
            int c = (int)(x & 31);
            x = x < 0 ? -((-x + 31) / 32) : x / 32;
            more = c & 16 ? x != -1 : x != 0;
            const uint8_t letter = (uint8_t)((more ? c | 32 : c) + 48);
            PGI_TRY(pgi_buffer_append(out, &letter, 1));
        }
    }
    return PG_OK;
}
