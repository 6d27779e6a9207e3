/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * tf.image.resize(method="bilinear", antialias=True): a triangle that is as wide as one output pixel (never narrower
 * than an input pixel) around the centre of each output pixel, its weights scaled to a sum of 1; rows first, then
 * columns. All in f32 in TensorFlow's order of operations, so that the results agree to the last bit. Unlike Pillow's
 * (resize.c) the weights are not rounded to fixed point and the reach of the kernel ends at the last sample inside it.
 */
#include "image/resize_float.h"

#include <float.h>
#include <limits.h>
#include <math.h>
#include <string.h>

/* Of one direction: 1 GiB, for images of a hundred million pixels in a row. Pillow stops here too (resize.c). */
#define MAX_WEIGHTS (INT_MAX / sizeof(double))

/* Which input samples make one output sample: first[i] .. first[i] + n[i] - 1, weighted by weights[i * n_max + ...]. */
typedef struct spans {
    int32_t *first, *n; /* [n_out] */
    float *weights;     /* [n_out, n_max] */
    size_t n_max;
} spans;

static void spans_free(const pgi_memory *memory, spans *s) {
    pgi_free(memory, s->first);
    pgi_free(memory, s->n);
    pgi_free(memory, s->weights);
}

static int32_t clamp_index(float x, int32_t n) {
    if (x < 0.0f) return 0;
    return x < (float)n && (int32_t)x < n ? (int32_t)x : n - 1;
}

/* The weights of output sample `i`; the triangle is `kernel` input samples high and twice as wide. */
static void make_span(int32_t n_in, float inverse, float kernel, int32_t i, spans *s) {
    float center = ((float)i + 0.5f) * inverse, narrow = 1.0f / kernel, sum = 0.0f;
    int32_t first = clamp_index(ceilf(center - kernel - 0.5f), n_in);
    int32_t last = clamp_index(floorf(center + kernel - 0.5f), n_in);
    float *weights = s->weights + (size_t)i * s->n_max;
    int32_t n = last < first ? 1 : last - first + 1;
    if ((size_t)n > s->n_max) n = (int32_t)s->n_max; /* centres of more than 2^23 pixels are not exact */
    for (int32_t k = 0; k < n; k++) {
        float at = fabsf(((float)(first + k) + 0.5f - center) * narrow);
        weights[k] = at < 1.0f ? 1.0f - at : 0.0f;
        sum += weights[k];
    }
    float share = sum >= 1000.0f * FLT_MIN ? 1.0f / sum : 0.0f;
    for (int32_t k = 0; k < n; k++) weights[k] *= share;
    s->first[i] = first;
    s->n[i] = n;
}

/* *s needs spans_free(), after an error too. */
static pg_status spans_make(const pgi_memory *memory, const pg_cancel *cancel, int32_t n_in, int32_t n_out, spans *s) {
    float inverse = 1.0f / ((float)n_out / (float)n_in); /* input samples per output sample, as TensorFlow rounds it */
    float kernel = inverse > 1.0f ? inverse : 1.0f;
    size_t reach = 2 * (size_t)ceilf(kernel) + 1, n_weights;
    *s = (spans){.n_max = reach < (size_t)n_in ? reach : (size_t)n_in};
    if (!pgi_mul_size((size_t)n_out, s->n_max, &n_weights) || n_weights > MAX_WEIGHTS)
        return pgi_error(PG_ERROR_LIMIT, "image: resizing %d pixels to %d, expected a smaller ratio", n_in, n_out);
    s->first = pgi_alloc(memory, (size_t)n_out, sizeof *s->first);
    s->n = pgi_alloc(memory, (size_t)n_out, sizeof *s->n);
    s->weights = pgi_alloc(memory, n_weights, sizeof *s->weights);
    if (!s->first || !s->n || !s->weights) return PG_ERROR_MEMORY;
    for (int32_t i = 0; i < n_out; i++) {
        PGI_TRY(pgi_cancel_check(cancel));
        make_span(n_in, inverse, kernel, i, s);
    }
    return PG_OK;
}

/* Some pixels of a row before its columns are resized. in: the first of them, `stride` bytes a row; part: [size] */
static void gather_rows(const spans *rows, int32_t y, const uint8_t *in, size_t stride, size_t size,
                        float *restrict part) {
    const uint8_t *source = in + (size_t)rows->first[y] * stride;
    const float *weights = rows->weights + (size_t)y * rows->n_max;
    memset(part, 0, size * sizeof *part);
    for (int32_t k = 0; k < rows->n[y]; k++, source += stride)
        for (size_t i = 0; i < size; i++) part[i] += weights[k] * (float)source[i];
}

/* Adds what the pixels begin .. end of a row give to sample x. part: [end - begin, 3]; out: the sample's red, green and
 * blue following `plane` later. */
static void add_columns(const spans *columns, int32_t x, const float *part, int32_t begin, int32_t end, float *out,
                        size_t plane) {
    const int32_t first = columns->first[x], from = first > begin ? first : begin;
    const int32_t to = first + columns->n[x] < end ? first + columns->n[x] : end;
    const float *source = part + (size_t)(from - begin) * 3;
    const float *weights = columns->weights + (size_t)x * columns->n_max + (from - first);
    float r = out[0], g = out[plane], b = out[2 * plane];
    for (int32_t k = 0; k < to - from; k++, source += 3) {
        r += weights[k] * source[0];
        g += weights[k] * source[1];
        b += weights[k] * source[2];
    }
    out[0] = r;
    out[plane] = g;
    out[2 * plane] = b;
}

enum { PART = 4096 /* pixels of a row that are resized at a time: they stay in the first caches */ };

/* out: [width], three planes. Each sample is summed from left to right, whatever the parts. */
static pg_status make_row(const spans *rows, const spans *columns, const pg_cancel *cancel, int32_t y,
                          const pgi_rgb *in, int32_t width, float *part, float *out, size_t plane) {
    for (int c = 0; c < 3; c++) memset(out + (size_t)c * plane, 0, (size_t)width * sizeof *out);
    int32_t x = 0; /* the first sample that is not done: neither end of their spans ever goes back */
    for (int32_t begin = 0, end; begin < in->width; begin = end) {
        end = in->width - begin < PART ? in->width : begin + PART;
        PGI_TRY(pgi_cancel_check(cancel));
        gather_rows(rows, y, in->data + (size_t)begin * 3, (size_t)in->width * 3, (size_t)(end - begin) * 3, part);
        while (x < width && columns->first[x] + columns->n[x] <= begin) x++;
        for (int32_t i = x; i < width && columns->first[i] < end; i++)
            add_columns(columns, i, part, begin, end, out + i, plane);
    }
    return PG_OK;
}

/* Whether row y is made of the same as the one before it, as most are where few rows become many. */
static int same_as_before(const spans *rows, int32_t y) {
    return y > 0 && rows->first[y] == rows->first[y - 1] && rows->n[y] == rows->n[y - 1] &&
           memcmp(rows->weights + (size_t)y * rows->n_max, rows->weights + (size_t)(y - 1) * rows->n_max,
                  (size_t)rows->n[y] * sizeof *rows->weights) == 0;
}

pg_status pgi_resize_float(const pgi_memory *memory, const pg_cancel *cancel, const pgi_rgb *in, int32_t width,
                           int32_t height, float *out) {
    const size_t plane = (size_t)width * (size_t)height;
    spans rows = {0}, columns = {0};
    float *part = NULL;
    pg_status status;
    if (width < 1 || height < 1 || in->width < 1 || in->height < 1)
        return pgi_error(PG_ERROR_ARGUMENT, "image: resizing %d x %d to %d x %d, expected at least 1 x 1", in->width,
                         in->height, width, height);
    PGI_GOTO(spans_make(memory, cancel, in->height, height, &rows), done);
    PGI_GOTO(spans_make(memory, cancel, in->width, width, &columns), done);
    if (!(part = pgi_alloc(memory, (size_t)(in->width < PART ? in->width : PART) * 3, sizeof *part))) {
        status = PG_ERROR_MEMORY;
        goto done;
    }
    for (int32_t y = 0; y < height; y++) {
        float *row = out + (size_t)y * (size_t)width;
        if (!same_as_before(&rows, y)) {
            PGI_GOTO(make_row(&rows, &columns, cancel, y, in, width, part, row, plane), done);
            continue;
        }
        for (int c = 0; c < 3; c++)
            memcpy(row + (size_t)c * plane, row + (size_t)c * plane - width, (size_t)width * sizeof *row);
    }
done:
    pgi_free(memory, part);
    spans_free(memory, &rows);
    spans_free(memory, &columns);
    return status;
}
