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
static pg_status spans_make(const pgi_memory *memory, int32_t n_in, int32_t n_out, spans *s) {
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
    for (int32_t i = 0; i < n_out; i++) make_span(n_in, inverse, kernel, i, s);
    return PG_OK;
}

/* One row of the result before its columns are resized; in: [height, size], row: [size], size being width x 3. */
static void gather_rows(const spans *rows, int32_t y, const uint8_t *in, size_t size, float *restrict row) {
    const uint8_t *source = in + (size_t)rows->first[y] * size;
    const float *weights = rows->weights + (size_t)y * rows->n_max;
    memset(row, 0, size * sizeof *row);
    for (int32_t k = 0; k < rows->n[y]; k++, source += size)
        for (size_t i = 0; i < size; i++) row[i] += weights[k] * (float)source[i];
}

/* row: [in_width, 3]; out: the first of n_out samples of the red plane, green and blue following `plane` later. */
static void gather_columns(const spans *columns, const float *row, int32_t n_out, float *out, size_t plane) {
    for (int32_t x = 0; x < n_out; x++) {
        const float *source = row + (size_t)columns->first[x] * 3;
        const float *weights = columns->weights + (size_t)x * columns->n_max;
        float r = 0.0f, g = 0.0f, b = 0.0f;
        for (int32_t k = 0; k < columns->n[x]; k++, source += 3) {
            r += weights[k] * source[0];
            g += weights[k] * source[1];
            b += weights[k] * source[2];
        }
        out[x] = r;
        out[plane + (size_t)x] = g;
        out[2 * plane + (size_t)x] = b;
    }
}

pg_status pgi_resize_float(const pgi_memory *memory, const pg_cancel *cancel, const pgi_rgb *in, int32_t width,
                           int32_t height, float *out) {
    spans rows = {0}, columns = {0};
    float *row = NULL;
    pg_status status;
    size_t size;
    if (width < 1 || height < 1 || in->width < 1 || in->height < 1)
        return pgi_error(PG_ERROR_ARGUMENT, "image: resizing %d x %d to %d x %d, expected at least 1 x 1", in->width,
                         in->height, width, height);
    if (!pgi_mul_size((size_t)in->width, 3, &size))
        return pgi_error(PG_ERROR_LIMIT, "image: %d pixels wide, expected fewer", in->width);
    PGI_GOTO(spans_make(memory, in->height, height, &rows), done);
    PGI_GOTO(spans_make(memory, in->width, width, &columns), done);
    if (!(row = pgi_alloc(memory, size, sizeof *row))) {
        status = PG_ERROR_MEMORY;
        goto done;
    }
    for (int32_t y = 0; y < height; y++) {
        PGI_GOTO(pgi_cancel_check(cancel), done);
        gather_rows(&rows, y, in->data, size, row);
        gather_columns(&columns, row, width, out + (size_t)y * (size_t)width, (size_t)width * (size_t)height);
    }
done:
    pgi_free(memory, row);
    spans_free(memory, &rows);
    spans_free(memory, &columns);
    return status;
}
