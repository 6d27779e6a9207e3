/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* How soon a cancel flag is seen in images whose work lies where no row of pixels comes by: in headers, and in the
 * weights of a resize. It looks inside the library, as a call of the public header may see the flag before it begins.
 */
#include "run_tests.h"

#include <stdlib.h>
#include <time.h>

#include "bounds_inputs.h"
#include "image/image.h"
#include "image/resize.h"
#include "image/resize_float.h"
#include "opened.h"

enum { SIDE = 224, BIG_VISION = -1 /* a filter */ };

static pgi_kernels kernels;

static double cpu_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static pg_status decode(const bytes *file, const pg_cancel *cancel) {
    pg_image image = {.struct_size = sizeof image, .format = PG_IMAGE_BYTES, .n_bytes = file->size};
    const pgi_image_limits limits = {.max_pixels = PGI_DEFAULT_MAX_PIXELS, .exif = 1, .cancel = cancel};
    pgi_rgb rgb;
    image.planes[0] = file->data;
    const pg_status status = read_image(&pgi_memory_default, &image, &limits, &rgb);
    if (status == PG_OK) pgi_rgb_free(&pgi_memory_default, &rgb);
    return status;
}

static pg_status resize(const pgi_rgb *in, int32_t filter, const pg_cancel *cancel) {
    static float planes[3 * SIDE * SIDE];
    pgi_rgb out;
    if (filter == BIG_VISION) return pgi_resize_float(&pgi_memory_default, cancel, in, SIDE, SIDE, planes);
    const pgi_rows rows = pgi_rows_of(in);
    const pg_status status = pgi_resize(&pgi_memory_default, &kernels, cancel, &rows, SIDE, SIDE, filter, &out);
    if (status == PG_OK) pgi_rgb_free(&pgi_memory_default, &out);
    return status;
}

static const struct image_case {
    const char *name;
    int64_t n;
    bytes (*make)(int64_t n); /* NULL: a resize of an image of n pixels, one pixel wide or high */
    int32_t filter, is_tall;
    pg_status status; /* where nothing is cancelled */
} cases[] = {
    {"PNG, empty chunks", 200000, png_unknown, 0, 0, PG_OK},
    {"JPEG, tables", 200000, jpeg_tables, 0, 0, PG_OK},
    {"JPEG, begin and end", 1000000, jpeg_empty, 0, 0, PG_ERROR_FORMAT},
    {"a wide image, Lanczos", 300000, NULL, PGI_LANCZOS, 0, PG_OK},
    {"a tall image, Lanczos", 300000, NULL, PGI_LANCZOS, 1, PG_OK},
    {"a wide image, big_vision", 2000000, NULL, BIG_VISION, 0, PG_OK},
    {"a tall image, big_vision", 2000000, NULL, BIG_VISION, 1, PG_OK},
};

/* The least of some runs. */
static double measure(const struct image_case *c, const bytes *file, const pgi_rgb *rgb, const pg_cancel *cancel) {
    const pg_status expected = cancel ? PG_ERROR_CANCELLED : c->status;
    double least = 1e9;
    for (int run = 0; run < 3; run++) {
        const double begin = cpu_seconds();
        const pg_status status = c->make ? decode(file, cancel) : resize(rgb, c->filter, cancel);
        const double took = cpu_seconds() - begin;
        if (status != expected)
            fail_msg("%s: %s, expected %s: %s", c->name, pg_status_name(status), pg_status_name(expected),
                     pgi_error_text());
        if (took < least) least = took;
    }
    return least;
}

/* Against the time of the same call without it, so that a slow machine is no failure. */
static void a_flag_that_is_set_is_seen(void **state) {
    const pg_cancel cancel = {.references = 1, .requested = 1};
    (void)state;
    assert_int_equal(pgi_kernels_init(&kernels, UINT64_MAX), PG_OK);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct image_case *c = &cases[i];
        bytes file = c->make ? c->make(c->n) : (bytes){0};
        pgi_rgb rgb = {.width = c->is_tall ? 1 : (int32_t)c->n, .height = c->is_tall ? (int32_t)c->n : 1};
        if (!c->make) assert_non_null(rgb.data = calloc((size_t)c->n, 3));
        const double whole = measure(c, &file, &rgb, NULL), stopped = measure(c, &file, &rgb, &cancel);
        if (stopped > whole / 4)
            fail_msg("%s: %.5f s of %.5f s until the flag was seen, expected a quarter at most", c->name, stopped,
                     whole);
        free(rgb.data);
        bytes_free(&file);
    }
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_flag_that_is_set_is_seen)};
    return RUN_TESTS(tests, NULL, NULL);
}
