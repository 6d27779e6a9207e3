/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Pillow's Image.resize for 8-bit RGB: the fixed-point convolution of
 * libImaging/Resample.c (ImagingResample) and, for NEAREST, the scaling of
 * libImaging/Geometry.c (ImagingScaleAffine). The order of the floating-point
 * operations is theirs, as the coefficients must agree to the last bit. The two
 * passes are kernels (kernels/resample.h), of the same bits in every instruction set.
 */
#include "image/resize.h"

#include <limits.h>
#include <math.h>
#include <string.h>

static double box_filter(double x) { return x > -0.5 && x <= 0.5 ? 1.0 : 0.0; }

static double bilinear_filter(double x) {
    x = fabs(x);
    return x < 1.0 ? 1.0 - x : 0.0;
}

static double hamming_filter(double x) {
    x = fabs(x);
    if (x == 0.0) return 1.0;
    if (x >= 1.0) return 0.0;
    x = x * M_PI;
    return sin(x) / x * (0.54f + 0.46f * cos(x)); /* f32 constants, as in Pillow */
}

static double bicubic_filter(double x) {
    const double a = -0.5;
    x = fabs(x);
    if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
    if (x < 2.0) return (((x - 5) * x + 8) * x - 4) * a;
    return 0.0;
}

static double sinc(double x) {
    if (x == 0.0) return 1.0;
    x = x * M_PI;
    return sin(x) / x;
}

static double lanczos_filter(double x) { return -3.0 <= x && x < 3.0 ? sinc(x) * sinc(x / 3) : 0.0; }

typedef struct filter {
    double (*value)(double x);
    double support;
} filter;

static const filter *find_filter(int32_t number) {
    static const filter box = {box_filter, 0.5}, bilinear = {bilinear_filter, 1.0}, hamming = {hamming_filter, 1.0},
                        bicubic = {bicubic_filter, 2.0}, lanczos = {lanczos_filter, 3.0};
    switch (number) {
        case PGI_LANCZOS: return &lanczos;
        case PGI_BILINEAR: return &bilinear;
        case PGI_BICUBIC: return &bicubic;
        case PGI_BOX: return &box;
        case PGI_HAMMING: return &hamming;
        default: return NULL;
    }
}

typedef struct resizer {
    const pgi_memory *memory;
    const pgi_kernels *kernels;
    const pg_cancel *cancel; /* may be NULL */
} resizer;

static void coefficients_free(const pgi_memory *memory, pgi_resample *c) {
    pgi_free(memory, c->first);
    pgi_free(memory, c->n);
    pgi_free(memory, c->weights);
}

/* Between two looks at the cancel flag. A long row has millions of weights, each of two sines. */
enum { CHECKED_WEIGHTS = 1 << 14 };

/* precompute_coeffs() and normalize_coeffs_8bpc(). *c needs coefficients_free(), after an error too. */
static pg_status coefficients_make(const resizer *r, const filter *f, int32_t n_in, int32_t n_out, pgi_resample *c) {
    const pgi_memory *memory = r->memory;
    pg_status status = PG_OK;
    *c = (pgi_resample){.n_out = n_out};
    double scale = (double)(float)n_in / n_out;
    double filter_scale = scale < 1.0 ? 1.0 : scale;
    double support = f->support * filter_scale;
    double reach = ceil(support) * 2 + 1;
    if (n_out > INT_MAX / (reach * sizeof(double))) /* where Pillow raises MemoryError */
        return pgi_error(PG_ERROR_LIMIT, "image: resizing %d pixels to %d, expected a smaller ratio", n_in, n_out);
    c->n_max = (int32_t)reach;
    c->first = pgi_alloc(memory, (size_t)n_out, sizeof *c->first);
    c->n = pgi_alloc(memory, (size_t)n_out, sizeof *c->n);
    c->weights = pgi_alloc(memory, (size_t)n_out * (size_t)c->n_max, sizeof *c->weights);
    double *w = pgi_alloc(memory, (size_t)c->n_max, sizeof *w);
    if (!c->first || !c->n || !c->weights || !w) {
        pgi_free(memory, w);
        return PG_ERROR_MEMORY;
    }
    double inverse = 1.0 / filter_scale;
    for (int32_t i = 0; i < n_out; i++) {
        double center = 0.0 + (i + 0.5) * scale;
        int32_t first = (int32_t)(center - support + 0.5);
        if (first < 0) first = 0;
        int32_t end = (int32_t)(center + support + 0.5);
        if (end > n_in) end = n_in;
        int32_t n = end - first;
        double sum = 0.0;
        for (int32_t k = 0; k < n; k++) {
            if (k % CHECKED_WEIGHTS == 0) PGI_GOTO(pgi_cancel_check(r->cancel), done);
            w[k] = f->value((k + first - center + 0.5) * inverse);
            sum += w[k];
        }
        int32_t *weights = c->weights + (size_t)i * (size_t)c->n_max;
        for (int32_t k = 0; k < n; k++) {
            double share = sum != 0.0 ? w[k] / sum : w[k];
            weights[k] = (int32_t)((share < 0 ? -0.5 : 0.5) + share * (1 << PGI_RESAMPLE_BITS));
        }
        c->first[i] = first;
        c->n[i] = n;
    }
done:
    pgi_free(memory, w);
    return status;
}

/* Between two looks at the cancel flag: a few milliseconds. */
enum { BAND_PIXELS = 1 << 18, BAND_WEIGHTS = 1 << 22 };
/* Rows that are made stay in the second cache until they are used; kernels like four of them. */
enum { MADE_BYTES = 1 << 17, LEAST_MADE = 4 };

/* Rows first .. first + n - 1 of a source, in memory, the next ones `stride` bytes on. */
typedef struct some_rows {
    const pgi_rows *in;
    uint8_t *made;    /* [capacity, width, 3], where the rows are not in memory */
    int32_t first, n; /* that are made */
    int32_t capacity;
} some_rows;

static pg_status some_rows_init(const pgi_memory *memory, const pgi_rows *in, int32_t capacity, some_rows *rows) {
    *rows = (some_rows){.in = in, .capacity = capacity < in->height ? capacity : in->height};
    if (in->data) return PG_OK;
    rows->made = pgi_alloc(memory, (size_t)in->width * 3, (size_t)rows->capacity);
    return rows->made ? PG_OK : PG_ERROR_MEMORY;
}

/* first never falls from call to call; n <= capacity. Of rows that are made, those still there are not made again. */
static const uint8_t *take_rows(some_rows *rows, int32_t first, int32_t n, int64_t *stride) {
    const pgi_rows *in = rows->in;
    if (in->data) {
        *stride = in->stride;
        return in->data + first * in->stride;
    }
    *stride = (int64_t)in->width * 3;
    const int32_t end = rows->first + rows->n;
    if (first + n > rows->first + rows->capacity || rows->n == 0) {
        const int32_t kept = end > first ? end - first : 0;
        memmove(rows->made, rows->made + (int64_t)(rows->n - kept) * *stride, (size_t)(kept * *stride));
        rows->first = first;
        rows->n = kept;
    }
    const int32_t missing = first + n - (rows->first + rows->n);
    if (missing > 0 && in->make) {
        in->make(in->source, rows->first + rows->n, missing, rows->made + rows->n * *stride);
        rows->n += missing;
    }
    return rows->made + (first - rows->first) * *stride;
}

/* out: [c->n_out, in->width, 3] */
static pg_status pass_vertical(const resizer *r, const pgi_resample *c, const pgi_rows *in, uint8_t *out) {
    const int64_t line = (int64_t)in->width * 3;
    pg_status status = PG_OK;
    some_rows rows;
    PGI_TRY(some_rows_init(r->memory, in, c->n_max > in->height / 2 ? in->height : 2 * c->n_max, &rows));
    for (int32_t y = 0; y < c->n_out; y++, out += line) {
        int64_t stride;
        PGI_GOTO(pgi_cancel_check(r->cancel), done);
        const uint8_t *from = take_rows(&rows, c->first[y], c->n[y], &stride);
        r->kernels->resample_row(c->weights + (size_t)y * (size_t)c->n_max, c->n[y], from, stride, line, out);
    }
done:
    pgi_free(r->memory, rows.made);
    return status;
}

/* One row whose samples are made of so many pixels that the cancel flag is looked at within it. */
static pg_status pass_long_row(const resizer *r, const pgi_resample *c, const uint8_t *in, int64_t width,
                               uint8_t *out) {
    const int32_t n = BAND_WEIGHTS / c->n_max + 1;
    for (int32_t x = 0; x < c->n_out; x += n) {
        const pgi_resample part = {.first = c->first + x,
                                   .n = c->n + x,
                                   .weights = c->weights + (size_t)x * (size_t)c->n_max,
                                   .n_max = c->n_max,
                                   .n_out = c->n_out - x < n ? c->n_out - x : n};
        PGI_TRY(pgi_cancel_check(r->cancel));
        r->kernels->resample_columns(&part, in, width * 3, width, 1, out + (size_t)x * 3);
    }
    return PG_OK;
}

/* How many rows are resized at a time. In bands, which change no bit: each row is for itself. */
static int32_t band_of(const pgi_resample *c, const pgi_rows *in) {
    if ((int64_t)c->n_max * c->n_out > BAND_WEIGHTS) return 1;
    int32_t band = BAND_PIXELS / (in->width > c->n_out ? in->width : c->n_out) + 1;
    if (band > LEAST_MADE) band -= band % LEAST_MADE;
    const int32_t made = MADE_BYTES / 3 / in->width / LEAST_MADE * LEAST_MADE;
    if (in->data || band <= LEAST_MADE || band <= made) return band;
    return made > LEAST_MADE ? made : LEAST_MADE;
}

/* Rows first .. first + n - 1 of `in` to out [n, c->n_out, 3]. */
static pg_status pass_horizontal(const resizer *r, const pgi_resample *c, const pgi_rows *in, int32_t first, int32_t n,
                                 uint8_t *out) {
    const int32_t band = band_of(c, in);
    const int64_t line = (int64_t)c->n_out * 3;
    pg_status status = PG_OK;
    some_rows rows;
    PGI_TRY(some_rows_init(r->memory, in, band, &rows));
    for (int32_t y = 0, size; y < n; y += size, out += size * line) {
        int64_t stride;
        size = n - y < band ? n - y : band;
        PGI_GOTO(pgi_cancel_check(r->cancel), done);
        const uint8_t *from = take_rows(&rows, first + y, size, &stride);
        if ((int64_t)c->n_max * c->n_out > BAND_WEIGHTS)
            PGI_GOTO(pass_long_row(r, c, from, in->width, out), done);
        else
            r->kernels->resample_columns(c, from, stride, in->width, size, out);
    }
done:
    pgi_free(r->memory, rows.made);
    return status;
}

static pg_status new_rgb(const pgi_memory *memory, int32_t width, int32_t height, pgi_rgb *out) {
    size_t size;
    *out = (pgi_rgb){.width = width, .height = height};
    if (!pgi_mul_size((size_t)width * 3, (size_t)height, &size))
        return pgi_error(PG_ERROR_LIMIT, "image: %d x %d pixels, expected fewer", width, height);
    out->data = pgi_alloc(memory, size, 1);
    return out->data ? PG_OK : PG_ERROR_MEMORY;
}

/* Since Pillow 13 an image that loses more than twice as many rows as columns is resized vertically first, which
 * rounds differently in the last bit; before, the horizontal pass was always the first. Found by comparing with 13.0.
 */
static int vertical_goes_first(const pgi_rows *in, const pgi_rgb *out) {
    return out->height < in->height && (int64_t)in->height - out->height > 2 * ((int64_t)in->width - out->width);
}

static pg_status convolve(const resizer *r, const pgi_rows *in, const filter *f, pgi_rgb *out) {
    const pgi_memory *memory = r->memory;
    pgi_resample horizontal = {0}, vertical = {0};
    pgi_rgb between = {0}; /* what the first of two passes makes */
    int resize_width = out->width != in->width, resize_height = out->height != in->height;
    int both = resize_width && resize_height, vertical_first = both && vertical_goes_first(in, out);
    pg_status status = PG_OK;
    if (resize_width) PGI_GOTO(coefficients_make(r, f, in->width, out->width, &horizontal), done);
    if (resize_height) PGI_GOTO(coefficients_make(r, f, in->height, out->height, &vertical), done);
    if (vertical_first) {
        PGI_GOTO(new_rgb(memory, in->width, out->height, &between), done);
        PGI_GOTO(pass_vertical(r, &vertical, in, between.data), done);
        const pgi_rows rows = pgi_rows_of(&between);
        status = pass_horizontal(r, &horizontal, &rows, 0, out->height, out->data);
    } else if (both) { /* only the rows that the second pass reads */
        int32_t first = vertical.first[0], end = vertical.first[out->height - 1] + vertical.n[out->height - 1];
        PGI_GOTO(new_rgb(memory, out->width, end - first, &between), done);
        PGI_GOTO(pass_horizontal(r, &horizontal, in, first, end - first, between.data), done);
        const pgi_rows rows = pgi_rows_of(&between);
        for (int32_t y = 0; y < out->height; y++) vertical.first[y] -= first;
        status = pass_vertical(r, &vertical, &rows, out->data);
    } else if (resize_width) {
        status = pass_horizontal(r, &horizontal, in, 0, in->height, out->data);
    } else {
        status = pass_vertical(r, &vertical, in, out->data);
    }
done:
    pgi_rgb_free(memory, &between);
    coefficients_free(memory, &horizontal);
    coefficients_free(memory, &vertical);
    return status;
}

/* Steps are summed up, not multiplied: the rounding of the sum decides which pixel is nearest. */
static pg_status nearest(const resizer *r, const pgi_rows *in, pgi_rgb *out) {
    some_rows rows;
    int32_t *columns = pgi_alloc(r->memory, (size_t)out->width, sizeof *columns); /* -1: outside, which stays black */
    if (!columns) return PG_ERROR_MEMORY;
    pg_status status = some_rows_init(r->memory, in, 1, &rows);
    double step_x = (double)(float)in->width / out->width, step_y = (double)(float)in->height / out->height;
    double x_in = step_x * 0.5, y_in = step_y * 0.5;
    for (int32_t x = 0; x < out->width; x++, x_in += step_x)
        columns[x] = (int32_t)x_in < in->width ? (int32_t)x_in : -1;
    size_t line = (size_t)out->width * 3;
    memset(out->data, 0, line * (size_t)out->height);
    for (int32_t y = 0; y < out->height && status >= 0; y++, y_in += step_y) {
        if ((int32_t)y_in >= in->height) continue;
        int64_t stride;
        const uint8_t *source = take_rows(&rows, (int32_t)y_in, 1, &stride);
        uint8_t *target = out->data + (size_t)y * line;
        for (int32_t x = 0; x < out->width; x++)
            if (columns[x] >= 0) memcpy(target + (size_t)x * 3, source + (size_t)columns[x] * 3, 3);
    }
    pgi_free(r->memory, columns);
    pgi_free(r->memory, rows.made);
    return status;
}

pg_status pgi_resize(const pgi_memory *memory, const pgi_kernels *kernels, const pg_cancel *cancel, const pgi_rows *in,
                     int32_t width, int32_t height, int32_t filter_number, pgi_rgb *out) {
    *out = (pgi_rgb){0};
    const filter *f = find_filter(filter_number);
    if (!f && filter_number != PGI_NEAREST)
        return pgi_error(PG_ERROR_UNSUPPORTED, "resample filter: found %d, expected 0 to 5", filter_number);
    if (width < 1 || height < 1 || in->width < 1 || in->height < 1)
        return pgi_error(PG_ERROR_ARGUMENT, "image: resizing %d x %d to %d x %d, expected at least 1 x 1", in->width,
                         in->height, width, height);
    if (width == in->width && height == in->height) return pgi_rows_copy(memory, cancel, in, out);
    PGI_TRY(new_rgb(memory, width, height, out));
    const resizer r = {memory, kernels, cancel};
    const pg_status status = f ? convolve(&r, in, f, out) : nearest(&r, in, out);
    if (status < 0) pgi_rgb_free(memory, out);
    if (status >= 0 && in->swapped) pgi_swap_channels(out->data, (size_t)width * (size_t)height);
    return status;
}
