/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Raw pixels, regions of interest and letterboxes (lib/image/frame.c, fit.c, resize.c) against a plain reference in
 * double, pixel by pixel. */
#include "run_tests.h"

#include <math.h>
#include <string.h>

#include "golden_images.h"
#include "image/preprocess.h"
#include "image/resize.h"
#include "opened.h"
#include "support.h"

#define MEMORY (&pgi_memory_default)
#define OK(call) assert_int_equal((call), PG_OK)

static pgi_kernels kernels;

static int start_kernels(void **state) {
    (void)state;
    return pgi_kernels_init(&kernels, 0) == PG_OK ? 0 : -1;
}

/* ---- the standards, in double ---- */

typedef struct standard {
    int32_t matrix, range;
} standard;

static const standard standards[] = {{PG_YUV_BT601, PG_YUV_VIDEO},
                                     {PG_YUV_BT601, PG_YUV_FULL},
                                     {PG_YUV_BT709, PG_YUV_VIDEO},
                                     {PG_YUV_BT709, PG_YUV_FULL}};

/* Rounded to the nearest, halves up: a few values are halves, which the doubles may miss by their own rounding, of less
 * than 1e-12. No other value is within 1e-7 of a half. */
static uint8_t rounded(double x) {
    const double y = floor(x * 255 + 0.5 + 1e-9);
    return (uint8_t)(y < 0 ? 0 : y > 255 ? 255 : y);
}

static void yuv_to_rgb(const standard *s, int y, int u, int v, uint8_t out[3]) {
    const int full = s->range == PG_YUV_FULL;
    const double kr = s->matrix == PG_YUV_BT709 ? 0.2126 : 0.299, kb = s->matrix == PG_YUV_BT709 ? 0.0722 : 0.114;
    const double luma = full ? y / 255.0 : (y - 16) / 219.0, chroma = full ? 255 : 224;
    const double r = luma + 2 * (1 - kr) * ((v - 128) / chroma), b = luma + 2 * (1 - kb) * ((u - 128) / chroma);
    out[0] = rounded(r);
    out[1] = rounded((luma - kr * r - kb * b) / (1 - kr - kb));
    out[2] = rounded(b);
}

/* All 2^24 of Y, U and V, in each of the four. */
static void every_color_is_exact(void **state) {
    (void)state;
    static uint8_t luma[256], chroma[256], out[256 * 3];
    static int16_t terms[3 * 256];
    for (int i = 0; i < 256; i++) luma[i] = (uint8_t)i;
    for (size_t k = 0; k < sizeof standards / sizeof *standards; k++) {
        pgi_yuv yuv;
        pgi_yuv_init(standards[k].matrix, standards[k].range, 0, &yuv);
        for (int u = 0; u < 256; u++)
            for (int v = 0; v < 256; v++) {
                for (int i = 0; i < 256; i += 2) chroma[i] = (uint8_t)u, chroma[i + 1] = (uint8_t)v;
                kernels.yuv_terms(&yuv, chroma, 128, terms, 256);
                kernels.yuv_row(&yuv, luma, terms, 256, 256, out);
                for (int y = 0; y < 256; y++) {
                    uint8_t want[3];
                    yuv_to_rgb(&standards[k], y, u, v, want);
                    if (memcmp(out + 3 * y, want, 3) != 0)
                        fail_msg("matrix %d, range %d: %d %d %d is %d %d %d, expected %d %d %d", standards[k].matrix,
                                 standards[k].range, y, u, v, out[3 * y], out[3 * y + 1], out[3 * y + 2], want[0],
                                 want[1], want[2]);
                }
            }
    }
}

/* ---- formats ---- */

enum { MOST_BYTES = 1 << 16 };

/* Any image of random bytes, in one buffer or in planes of their own; what is to be known of it. */
typedef struct frame_case {
    pg_image image;
    uint8_t buffers[3][MOST_BYTES];
    standard standard;
} frame_case;

static void make_case(rng *r, int32_t format, int32_t width, int32_t height, frame_case *c) {
    const void *planes[3];
    int64_t strides[3];
    const pgi_pixel_layout *layout = pgi_pixel_layout_of(format);
    for (int i = 0; i < 3; i++)
        for (int k = 0; k < MOST_BYTES; k++) c->buffers[i][k] = (uint8_t)rng_below(r, 256);
    for (int i = 0; i < layout->n_planes; i++) {
        strides[i] = pgi_plane_row(layout, i, width) + (int64_t)rng_below(r, 9);
        planes[i] = c->buffers[i];
        if (rng_below(r, 2) == 0) continue;
        planes[i] = c->buffers[i] + (pgi_plane_height(layout, i, height) - 1) * strides[i];
        strides[i] = -strides[i];
    }
    OK(pg_image_from_planes(&c->image, sizeof c->image, format, width, height, planes, strides));
    c->standard = standards[rng_below(r, 4)];
    c->image.yuv_matrix = c->standard.matrix;
    c->image.yuv_range = c->standard.range;
    if (rng_below(r, 2)) {
        c->image.gray_min = (int32_t)rng_below(r, 65535);
        c->image.gray_max = c->image.gray_min + 1 + (int32_t)rng_below(r, (uint64_t)(65535 - c->image.gray_min));
    }
}

/* The byte `at` of row y of a plane. */
static int byte_of(const pg_image *image, int plane, int64_t y, int64_t at) {
    return image->planes[plane][y * image->strides[plane] + at];
}

static void reference(const frame_case *c, int x, int y, uint8_t out[3]) {
    const pg_image *i = &c->image;
    const int pair = x / 2 * 4;
    switch (i->format) {
        case PG_IMAGE_RGB8:
        case PG_IMAGE_BGR8:
            for (int k = 0; k < 3; k++) out[k] = (uint8_t)byte_of(i, 0, y, 3 * x + (i->format == 1 ? k : 2 - k));
            break;
        case PG_IMAGE_RGBA8:
        case PG_IMAGE_BGRA8:
            for (int k = 0; k < 3; k++) out[k] = (uint8_t)byte_of(i, 0, y, 4 * x + (i->format == 3 ? k : 2 - k));
            break;
        case PG_IMAGE_GRAY8: out[0] = out[1] = out[2] = (uint8_t)byte_of(i, 0, y, x); break;
        case PG_IMAGE_RGB565: {
            const int value = byte_of(i, 0, y, 2 * x) + 256 * byte_of(i, 0, y, 2 * x + 1);
            out[0] = rounded((value >> 11) / 31.0);
            out[1] = rounded((value >> 5 & 63) / 63.0);
            out[2] = rounded((value & 31) / 31.0);
            break;
        }
        case PG_IMAGE_GRAY16: {
            const int value = byte_of(i, 0, y, 2 * x) + 256 * byte_of(i, 0, y, 2 * x + 1);
            const int most = i->gray_min || i->gray_max ? i->gray_max : 65535;
            out[0] = out[1] = out[2] = rounded((value - i->gray_min) / (double)(most - i->gray_min));
            break;
        }
        case PG_IMAGE_NV12:
        case PG_IMAGE_NV21:
            yuv_to_rgb(&c->standard, byte_of(i, 0, y, x),
                       byte_of(i, 1, y / 2, x / 2 * 2 + (i->format == PG_IMAGE_NV21)),
                       byte_of(i, 1, y / 2, x / 2 * 2 + (i->format == PG_IMAGE_NV12)), out);
            break;
        case PG_IMAGE_I420:
            yuv_to_rgb(&c->standard, byte_of(i, 0, y, x), byte_of(i, 1, y / 2, x / 2), byte_of(i, 2, y / 2, x / 2),
                       out);
            break;
        case PG_IMAGE_YUYV:
            yuv_to_rgb(&c->standard, byte_of(i, 0, y, pair + x % 2 * 2), byte_of(i, 0, y, pair + 1),
                       byte_of(i, 0, y, pair + 3), out);
            break;
        default:
            yuv_to_rgb(&c->standard, byte_of(i, 0, y, pair + 1 + x % 2 * 2), byte_of(i, 0, y, pair),
                       byte_of(i, 0, y, pair + 2), out);
    }
}

static void choose_roi(rng *r, pg_image *image) {
    int32_t *roi = image->roi;
    memset(roi, 0, sizeof image->roi);
    if (rng_below(r, 3) == 0) return;
    roi[0] = (int32_t)rng_below(r, (uint64_t)image->width);
    roi[1] = (int32_t)rng_below(r, (uint64_t)image->height);
    roi[2] = 1 + (int32_t)rng_below(r, (uint64_t)(image->width - roi[0]));
    roi[3] = 1 + (int32_t)rng_below(r, (uint64_t)(image->height - roi[1]));
}

/* A copy in memory of its own, which a worker takes, gives the same. */
static void copy_is_the_same(const pg_image *image, const pgi_rgb *want) {
    const pgi_image_limits limits = {.max_pixels = PGI_DEFAULT_MAX_PIXELS};
    pg_image copy;
    pgi_rgb found;
    void *block;
    OK(pgi_image_copy(MEMORY, image, PGI_DEFAULT_MAX_PIXELS, &copy, &block));
    OK(read_image(MEMORY, &copy, &limits, &found));
    assert_memory_equal(found.data, want->data, 3 * (size_t)want->width * (size_t)want->height);
    pgi_rgb_free(MEMORY, &found);
    pgi_free(MEMORY, block);
}

/* Each format, odd and even sizes, rows apart or from the bottom up, a region of interest that begins anywhere. */
static void every_format_is_that_of_the_reference(void **state) {
    (void)state;
    static frame_case c;
    const pgi_image_limits limits = {.max_pixels = PGI_DEFAULT_MAX_PIXELS};
    rng r = {1};
    for (int i = 0; i < 600; i++) {
        const int32_t format = PG_IMAGE_RGB8 + i % PG_IMAGE_UYVY;
        pgi_rgb rgb;
        make_case(&r, format, 1 + (int32_t)rng_below(&r, 75), 1 + (int32_t)rng_below(&r, 12), &c);
        choose_roi(&r, &c.image);
        const int32_t *roi = c.image.roi;
        OK(read_image(MEMORY, &c.image, &limits, &rgb));
        assert_int_equal(rgb.width, roi[2] ? roi[2] : c.image.width);
        assert_int_equal(rgb.height, roi[3] ? roi[3] : c.image.height);
        for (int y = 0; y < rgb.height; y++)
            for (int x = 0; x < rgb.width; x++) {
                const uint8_t *found = rgb.data + 3 * (y * rgb.width + x);
                uint8_t want[3];
                reference(&c, roi[0] + x, roi[1] + y, want);
                if (memcmp(found, want, 3) != 0)
                    fail_msg("format %d, %d x %d, roi at %d, %d: pixel %d, %d is %d %d %d, expected %d %d %d", format,
                             c.image.width, c.image.height, roi[0], roi[1], x, y, found[0], found[1], found[2], want[0],
                             want[1], want[2]);
            }
        copy_is_the_same(&c.image, &rgb);
        pgi_rgb_free(MEMORY, &rgb);
    }
}

/* Rows that are made while an image is resized give the bits of an image that was RGB before. */
static void resizing_made_rows_changes_nothing(void **state) {
    (void)state;
    static const int32_t sizes[][4] = {{60, 50, 16, 16}, {60, 50, 90, 80}, {30, 70, 28, 9},  {75, 12, 20, 12},
                                       {40, 60, 40, 13}, {33, 21, 33, 21}, {75, 3, 10, 200}, {1, 1, 7, 7}};
    static frame_case c;
    const pgi_image_limits limits = {.max_pixels = PGI_DEFAULT_MAX_PIXELS};
    rng r = {2};
    for (int i = 0; i < 12 * 6 * 8; i++) {
        const int32_t *s = sizes[i % 8], filter = i / 8 % 6, format = PG_IMAGE_RGB8 + i / 48;
        pgi_opened opened;
        pgi_rgb rgb, found, want;
        make_case(&r, format, s[0], s[1], &c);
        if (i % 3 == 0) choose_roi(&r, &c.image);
        OK(read_image(MEMORY, &c.image, &limits, &rgb));
        OK(pgi_image_open(MEMORY, &kernels, &c.image, &limits, &opened));
        const pgi_rows rows = pgi_rows_of(&rgb);
        OK(pgi_resize(MEMORY, &kernels, NULL, &opened.rows, s[2], s[3], filter, &found));
        OK(pgi_resize(MEMORY, &kernels, NULL, &rows, s[2], s[3], filter, &want));
        assert_memory_equal(found.data, want.data, (size_t)s[2] * (size_t)s[3] * 3);
        pgi_rgb_free(MEMORY, &found);
        pgi_rgb_free(MEMORY, &want);
        pgi_rgb_free(MEMORY, &rgb);
        pgi_image_close(MEMORY, &opened);
    }
}

/* A large frame, whose rows are made in several bands and windows, too. */
static void bands_of_a_large_frame(void **state) {
    (void)state;
    enum { WIDTH = 1500, HEIGHT = 1101 };
    static const int32_t sizes[][3] = {{224, 224, PGI_BICUBIC}, {1400, 30, PGI_LANCZOS}, {1500, 64, PGI_BICUBIC}};
    const pgi_image_limits limits = {.max_pixels = PGI_DEFAULT_MAX_PIXELS};
    uint8_t *pixels = test_image(WIDTH, HEIGHT);
    pg_image image;
    pgi_rgb rgb;
    assert_non_null(pixels);
    OK(pg_image_from_pixels(&image, sizeof image, PG_IMAGE_NV12, WIDTH, HEIGHT, pixels, 0));
    image.roi[0] = 3, image.roi[1] = 1, image.roi[2] = WIDTH - 3, image.roi[3] = HEIGHT - 1;
    OK(read_image(MEMORY, &image, &limits, &rgb));
    const pgi_rows rows = pgi_rows_of(&rgb);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        pgi_opened opened;
        pgi_rgb found, want;
        OK(pgi_image_open(MEMORY, &kernels, &image, &limits, &opened));
        OK(pgi_resize(MEMORY, &kernels, NULL, &opened.rows, sizes[i][0], sizes[i][1], sizes[i][2], &found));
        OK(pgi_resize(MEMORY, &kernels, NULL, &rows, sizes[i][0], sizes[i][1], sizes[i][2], &want));
        assert_memory_equal(found.data, want.data, (size_t)sizes[i][0] * (size_t)sizes[i][1] * 3);
        pgi_rgb_free(MEMORY, &found);
        pgi_rgb_free(MEMORY, &want);
        pgi_image_close(MEMORY, &opened);
    }
    pgi_rgb_free(MEMORY, &rgb);
    free(pixels);
}

/* ---- letterbox ---- */

/* By the rule as openpi's client has it, in double. */
static void fits_as_openpi_does(void **state) {
    (void)state;
    rng r = {3};
    for (int i = 0; i < 20000; i++) {
        const int32_t w = 1 + (int32_t)rng_below(&r, 4000), h = 1 + (int32_t)rng_below(&r, 4000);
        const int32_t to_w = 1 + (int32_t)rng_below(&r, 900), to_h = i % 2 ? to_w : 1 + (int32_t)rng_below(&r, 900);
        const double ratio = fmax((double)w / to_w, (double)h / to_h);
        const int32_t inner_w = (int32_t)fmax(floor(w / ratio), 1), inner_h = (int32_t)fmax(floor(h / ratio), 1);
        const pgi_rectangle middle = pgi_fit(PG_FIT_LETTERBOX, w, h, to_w, to_h);
        const pgi_rectangle end = pgi_fit(PG_FIT_PAD_TOP_LEFT, w, h, to_w, to_h);
        const pgi_rectangle whole = pgi_fit(PG_FIT_STRETCH, w, h, to_w, to_h);
        assert_true(middle.width == inner_w && middle.height == inner_h);
        assert_true(middle.x == (to_w - inner_w) / 2 && middle.y == (to_h - inner_h) / 2);
        assert_true(end.width == inner_w && end.height == inner_h && end.x == to_w - inner_w &&
                    end.y == to_h - inner_h);
        assert_true(whole.x == 0 && whole.y == 0 && whole.width == to_w && whole.height == to_h);
    }
}

/* Pillow's bytes (make_images.py). */
static void golden_letterboxes(void **state) {
    (void)state;
    FILE *file = open_golden("letterbox.txt");
    assert_non_null(file);
    int width, height, to_width, to_height, fit, filter, n = 0;
    unsigned long long expected;
    while (fscanf(file, "%d %d %d %d %d %d %llx", &width, &height, &to_width, &to_height, &fit, &filter, &expected) ==
           7) {
        const pgi_rgb rgb = {test_image(width, height), width, height};
        const size_t n_pixels = (size_t)to_width * (size_t)to_height;
        float *pixels = malloc(n_pixels * 3 * sizeof *pixels);
        uint8_t *samples = malloc(n_pixels * 3);
        pgi_opened opened = opened_of(&rgb);
        pgi_image_settings settings;
        assert_true(rgb.data && pixels && samples);
        pgi_image_settings_default(&settings);
        settings.width = to_width, settings.height = to_height, settings.resample = filter;
        settings.do_rescale = settings.do_normalize = 0;
        opened.fit = fit;
        memcpy(opened.background, (uint8_t[]){200, 100, 50}, 3);
        OK(pgi_image_to_pixels(MEMORY, &kernels, NULL, &settings, &opened, pixels));
        for (size_t i = 0; i < 3 * n_pixels; i++) samples[i] = (uint8_t)pixels[i % 3 * n_pixels + i / 3];
        if (digest(samples, 3 * n_pixels) != expected)
            fail_msg("%d x %d to %d x %d, fit %d, filter %d", width, height, to_width, to_height, fit, filter);
        free(samples);
        free(pixels);
        free(rgb.data);
        n++;
    }
    fclose(file);
    assert_int_equal(n, 72);
}

/* The bars have the background's colour, what is between them is the image, resized; in both modes. */
static void a_letterbox_is_the_image_and_its_background(void **state) {
    (void)state;
    enum { SIDE = 12 };
    static float found[3 * SIDE * SIDE], inner[3 * SIDE * SIDE];
    const pgi_image_limits limits = {.max_pixels = PGI_DEFAULT_MAX_PIXELS};
    pgi_image_settings settings;
    uint8_t *pixels = test_image(40, 21);
    assert_non_null(pixels);
    for (int i = 0; i < 4; i++) {
        const int32_t fit = i % 2 ? PG_FIT_PAD_TOP_LEFT : PG_FIT_LETTERBOX;
        const pgi_rectangle at = {0, i % 2 ? 6 : 3, SIDE, 6};
        pg_image image;
        pgi_opened opened;
        pgi_image_settings_default(&settings);
        settings.width = settings.height = SIDE;
        OK(pg_image_from_pixels(&image, sizeof image, PG_IMAGE_RGB8, 40, 21, pixels, 0));
        memcpy(image.background, "\x80\x00\xff", 4);
        image.fit = fit;
        OK(pgi_image_open(MEMORY, &kernels, &image, &limits, &opened));
        OK(i < 2 ? pgi_image_to_pixels(MEMORY, &kernels, NULL, &settings, &opened, found)
                 : pgi_big_vision_pixels(MEMORY, NULL, &settings, &opened, found));
        opened.fit = PG_FIT_STRETCH;
        settings.height = at.height;
        OK(i < 2 ? pgi_image_to_pixels(MEMORY, &kernels, NULL, &settings, &opened, inner)
                 : pgi_big_vision_pixels(MEMORY, NULL, &settings, &opened, inner));
        for (int c = 0; c < 3; c++)
            for (int y = 0; y < SIDE; y++)
                for (int x = 0; x < SIDE; x++) {
                    const int in = y >= at.y && y < at.y + at.height;
                    const float color = i < 2 ? pgi_pixel_value(&settings, c, image.background[c])
                                              : (float)image.background[c] / 127.5f - 1.0f;
                    const float want = in ? inner[(c * at.height + y - at.y) * SIDE + x] : color;
                    assert_true(found[(c * SIDE + y) * SIDE + x] == want);
                }
        pgi_image_close(MEMORY, &opened);
    }
    free(pixels);
}

static void transparent_pixels_over_a_color(void **state) {
    (void)state;
    static const uint8_t pixels[] = {200, 100, 0, 255, 200, 100, 0, 128, 7, 8, 9, 0};
    const pgi_image_limits limits = {.max_pixels = PGI_DEFAULT_MAX_PIXELS};
    pg_image image;
    pgi_rgb rgb;
    OK(pg_image_from_pixels(&image, sizeof image, PG_IMAGE_RGBA8, 3, 1, pixels, 0));
    image.flags = PG_IMAGE_OVER_BACKGROUND;
    memcpy(image.background, "\x00\x0a\xff", 4);
    OK(read_image(MEMORY, &image, &limits, &rgb));
    /* as Image.alpha_composite() of Pillow gives them */
    static const uint8_t want[] = {200, 100, 0, 100, 55, 127, 0, 10, 255};
    assert_memory_equal(rgb.data, want, sizeof want);
    pgi_rgb_free(MEMORY, &rgb);
}

/* ---- windows ---- */

static pg_window window_of(const pg_image *image, int32_t image_width, int32_t image_height, int32_t width,
                           int32_t height) {
    pg_window window = {.struct_size = sizeof window};
    OK(pg_image_get_window(image, image_width, image_height, width, height, &window));
    return window;
}

static void expect_window(pg_window found, double x, double y, double width, double height) {
    if (fabs(found.x - x) > 1e-9 || fabs(found.y - y) > 1e-9 || fabs(found.width - width) > 1e-9 ||
        fabs(found.height - height) > 1e-9)
        fail_msg("window %g %g %g %g, expected %g %g %g %g", found.x, found.y, found.width, found.height, x, y, width,
                 height);
}

static void windows(void **state) {
    (void)state;
    static const uint8_t pixel[1];
    pg_image image;
    OK(pg_image_from_pixels(&image, sizeof image, PG_IMAGE_GRAY8, 1920, 1080, pixel, 0));
    expect_window(window_of(&image, 0, 0, 224, 224), 0, 0, 1920, 1080);
    image.fit = PG_FIT_LETTERBOX; /* 224 x 126, at 49 */
    expect_window(window_of(&image, 0, 0, 224, 224), 0, -420, 1920, 1920);
    image.fit = PG_FIT_PAD_TOP_LEFT;
    expect_window(window_of(&image, 0, 0, 224, 224), 0, -840, 1920, 1920);
    memcpy(image.roi, (int32_t[]){100, 50, 300, 600}, sizeof image.roi); /* 112 x 224 */
    expect_window(window_of(&image, 0, 0, 224, 224), -200, 50, 600, 600);
    image.fit = PG_FIT_STRETCH;
    expect_window(window_of(&image, 0, 0, 224, 224), 100, 50, 300, 600);
    OK(pg_image_from_path(&image, sizeof image, "x.png"));
    image.fit = PG_FIT_LETTERBOX;
    expect_window(window_of(&image, 64, 32, 8, 8), 0, -16, 64, 64);
}

/* A window of the whole image changes no box of it: its numbers are those of the image, to the last bit. */
static void a_window_of_the_whole_is_exact(void **state) {
    (void)state;
    static const uint8_t pixel[1];
    static const int32_t sizes[] = {224, 448, 896};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
        for (int32_t side = 1; side <= 4096; side++) {
            pg_image image;
            OK(pg_image_from_pixels(&image, sizeof image, PG_IMAGE_GRAY8, side, 4097 - side, pixel, 0));
            const pg_window found = window_of(&image, 0, 0, sizes[s], sizes[s]);
            if (found.x != 0 || found.y != 0 || found.width != side || found.height != 4097 - side)
                fail_msg("%d of %d: window %.17g %.17g %.17g %.17g", side, sizes[s], found.x, found.y, found.width,
                         found.height);
        }
}

/* A point in the bar's last line is on the border of the image, not outside. */
static void points_on_the_border(void **state) {
    (void)state;
    static const int32_t sizes[][3] = {{100, 336, 896}, {137, 541, 224}, {640, 480, 224}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        static const uint8_t pixel[1];
        const int32_t width = sizes[i][0], height = sizes[i][1], side = sizes[i][2];
        pg_image image;
        OK(pg_image_from_pixels(&image, sizeof image, PG_IMAGE_GRAY8, width, height, pixel, 0));
        image.fit = PG_FIT_LETTERBOX;
        const pg_window window = window_of(&image, 0, 0, side, side);
        const int wide = width > height;
        const double begin = wide ? -window.y / window.height : -window.x / window.width;
        const int32_t loc = (int32_t)rint(begin * 1024);
        if (fabs(begin * 1024 - loc) > 1e-9) continue; /* no loc is exactly there */
        char text[64];
        snprintf(text, sizeof text, "<loc%04d><loc%04d> a", wide ? loc : 512, wide ? 512 : loc);
        pg_answer_options options;
        pg_answer *answer;
        pg_object object = {.struct_size = sizeof object};
        OK(pg_answer_options_init(&options, sizeof options));
        options.width = width, options.height = height;
        options.window = &window;
        OK(pg_answer_create_from_text(text, strlen(text), &options, &answer));
        OK(pg_answer_get_object(answer, 0, &object));
        assert_int_equal(object.flags & PG_OBJECT_EMPTY, 0);
        pg_answer_close(&answer);
    }
}

/* A box that a model finds in a letterbox lies where it lies in the image; bars are cut off. */
static void boxes_come_back(void **state) {
    (void)state;
    static const struct {
        const char *text;
        double x, y, width, height;
        float box[4];
        uint32_t flags;
    } cases[] = {
        {"<loc0512><loc0256><loc0768><loc0512> a", 0, 0, 64, 32, {16, 16, 32, 24}, 0},
        {"<loc0512><loc0256><loc0768><loc0512> a", 0, -16, 64, 64, {16, 16, 32, 32}, 0},
        {"<loc0000><loc0000><loc0512><loc0512> a", 0, -16, 64, 64, {0, 0, 32, 16}, 0},
        {"<loc0000><loc0000><loc0128><loc0512> a", 0, -16, 64, 64, {0, 0, 32, 0}, PG_OBJECT_EMPTY},
        {"<loc0256><loc0256><loc0512><loc0512> a", 10, 4, 16, 8, {14, 6, 18, 8}, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pg_window window = {.struct_size = sizeof window,
                            .x = cases[i].x,
                            .y = cases[i].y,
                            .width = cases[i].width,
                            .height = cases[i].height};
        pg_answer_options options;
        pg_answer *answer;
        pg_object object = {.struct_size = sizeof object};
        OK(pg_answer_options_init(&options, sizeof options));
        options.width = 64, options.height = 32;
        options.window = &window;
        OK(pg_answer_create_from_text(cases[i].text, strlen(cases[i].text), &options, &answer));
        OK(pg_answer_get_object(answer, 0, &object));
        assert_memory_equal(object.box, cases[i].box, sizeof object.box);
        assert_int_equal(object.flags, cases[i].flags);
        pg_answer_close(&answer);
    }
}

/* ---- what is refused ---- */

static void refused(pg_status status, const char *text) {
    if (status != PG_ERROR_ARGUMENT || !strstr(pg_last_error(), text))
        fail_msg("status %d, expected %d with \"%s\": %s", status, PG_ERROR_ARGUMENT, text, pg_last_error());
}

static pg_status open_image(const pg_image *image) {
    const pgi_image_limits limits = {.max_pixels = PGI_DEFAULT_MAX_PIXELS};
    pgi_rgb rgb;
    const pg_status status = read_image(MEMORY, image, &limits, &rgb);
    pgi_rgb_free(MEMORY, &rgb);
    return status;
}

static void frames_that_are_refused(void **state) {
    (void)state;
    static const uint8_t data[64];
    static const void *const planes[] = {data, data + 24, NULL};
    static const int64_t strides[] = {6, 5, 3};
    pg_image good, bad, made;
    refused(pg_image_from_pixels(&made, sizeof made, 13, 6, 4, data, 0), "format is 13, expected PG_IMAGE_RGB8 to");
    refused(pg_image_from_pixels(&made, sizeof made, PG_IMAGE_NV12, 0, 4, data, 0), "0 x 4 pixels");
    refused(pg_image_from_pixels(&made, sizeof made, PG_IMAGE_NV12, 6, 4, data, -6), "stride is -6, expected 0");
    refused(pg_image_from_pixels(&made, sizeof made, PG_IMAGE_NV12, 7, 4, data, 7),
            "stride is 7 bytes, expected 0 (dense) or at least 8 for 7 pixels");
    refused(pg_image_from_pixels(&made, sizeof made, PG_IMAGE_YUYV, 7, 4, data, 15), "at least 16 for 7 pixels");
    refused(pg_image_from_pixels(&made, sizeof made, PG_IMAGE_I420, 6, 4, data, INT64_MAX / 2), "fits in memory");
    refused(pg_image_from_planes(&made, sizeof made, PG_IMAGE_I420, 6, 4, planes, NULL),
            "planes[2] is NULL, expected the 3 planes of I420");
    refused(pg_image_from_planes(&made, sizeof made, PG_IMAGE_NV12, 6, 4, planes, strides),
            "strides[1] is 5 bytes, expected 0 (dense) or at least 6");
    refused(pg_image_from_planes(&made, sizeof made, PG_IMAGE_NV12, 6, 4, NULL, NULL), "planes is NULL");
    OK(pg_image_from_pixels(&good, sizeof good, PG_IMAGE_NV12, 6, 4, data, 0));
    OK(open_image(&good));
    good.n_bytes = 36;
    OK(open_image(&good));
    bad = good, bad.n_bytes = 35, refused(open_image(&bad), "n_bytes is 35, expected at least 36");
    bad = good, bad.planes[1] = NULL, refused(open_image(&bad), "planes[1] is NULL, expected the top row of chroma");
    bad = good, bad.planes[0] = data + 30, refused(open_image(&bad), "planes[1] lies before planes[0]");
    bad = good, bad.strides[1] = -6, refused(open_image(&bad), "strides[1] is -6 and n_bytes is set");
    bad = good, bad.strides[1] = 5, refused(open_image(&bad), "strides[1] is 5 bytes, expected at least 6");
    bad = good, bad.yuv_matrix = 2, refused(open_image(&bad), "yuv_matrix is 2, expected 0 to 1");
    bad = good, bad.yuv_range = -1, refused(open_image(&bad), "yuv_range is -1, expected 0 to 1");
    bad = good, bad.fit = 3, refused(open_image(&bad), "fit is 3, expected 0 to 2");
    bad = good, bad.flags = 2, refused(open_image(&bad), "flags is 0x2");
    bad = good, bad.background[3] = 255, refused(open_image(&bad), "background[3] is 255, expected 0");
    bad = good, bad.gray_min = 9, bad.gray_max = 9, refused(open_image(&bad), "gray_min is 9 and gray_max 9");
    bad = good, bad.gray_max = 65536, refused(open_image(&bad), "gray_max 65536");
    bad = good, bad.reserved = 1, refused(open_image(&bad), "pg_image.reserved is 1");
    static const int32_t rois[][4] = {{1, 0, 6, 4},         {0, 3, 6, 2}, {-1, 0, 2, 2},
                                      {0, 0, INT32_MAX, 1}, {5, 3, 0, 1}, {7, 0, 1, 1}};
    for (size_t i = 0; i < sizeof rois / sizeof *rois; i++) {
        pg_window window = {.struct_size = sizeof window};
        char text[100];
        snprintf(text, sizeof text, "pg_image.roi is %d x %d pixels at %d, %d", rois[i][2], rois[i][3], rois[i][0],
                 rois[i][1]);
        bad = good;
        memcpy(bad.roi, rois[i], sizeof bad.roi);
        refused(open_image(&bad), text);
        if (rois[i][2]) assert_non_null(strstr(pg_last_error(), "which is 6 x 4"));
        refused(pg_image_get_window(&bad, 0, 0, 8, 8, &window), text);
    }
}

static void windows_that_are_refused(void **state) {
    (void)state;
    static const uint8_t data[64];
    pg_image image, file;
    pg_window window = {.struct_size = sizeof window};
    OK(pg_image_from_pixels(&image, sizeof image, PG_IMAGE_GRAY8, 6, 4, data, 0));
    OK(pg_image_from_path(&file, sizeof file, "x.png"));
    refused(pg_image_get_window(NULL, 0, 0, 8, 8, &window), "image is NULL");
    refused(pg_image_get_window(&image, 0, 0, 8, 8, NULL), "pg_window is NULL");
    refused(pg_image_get_window(&file, 0, 0, 8, 8, &window), "a file does not say its size");
    refused(pg_image_get_window(&image, 6, 0, 8, 8, &window), "image_height is 0");
    refused(pg_image_get_window(&image, -6, 4, 8, 8, &window), "image_width is -6");
    refused(pg_image_get_window(&image, 0, 0, 0, 8, &window), "width is 0, expected 1 to 16384");
    refused(pg_image_get_window(&image, 0, 0, 8, 20000, &window), "height is 20000");
    window.struct_size = 12;
    refused(pg_image_get_window(&image, 0, 0, 8, 8, &window), "pg_window.struct_size is 12");
    static const struct {
        pg_window window;
        const char *text;
    } bad[] = {{{.width = 0, .height = 1}, "window.width is 0, expected pixels, more than 0"},
               {{.width = 1, .height = -1}, "window.height is -1"},
               {{.x = NAN, .width = 1, .height = 1}, "window.x is"},
               {{.y = 1e10, .width = 1, .height = 1}, "window.y is 1e+10"},
               {{.width = 1, .height = INFINITY}, "window.height is inf"},
               {{.reserved = 1, .width = 1, .height = 1}, "pg_window.reserved is 1"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        pg_window given = bad[i].window;
        pg_answer_options options;
        pg_answer *answer;
        given.struct_size = sizeof given;
        OK(pg_answer_options_init(&options, sizeof options));
        options.width = 64, options.height = 32;
        options.window = &given;
        refused(pg_answer_create_from_text("", 0, &options, &answer), bad[i].text);
        assert_null(answer);
    }
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_color_is_exact),
        cmocka_unit_test(every_format_is_that_of_the_reference),
        cmocka_unit_test(resizing_made_rows_changes_nothing),
        cmocka_unit_test(bands_of_a_large_frame),
        cmocka_unit_test(fits_as_openpi_does),
        cmocka_unit_test(golden_letterboxes),
        cmocka_unit_test(a_letterbox_is_the_image_and_its_background),
        cmocka_unit_test(transparent_pixels_over_a_color),
        cmocka_unit_test(windows),
        cmocka_unit_test(a_window_of_the_whole_is_exact),
        cmocka_unit_test(points_on_the_border),
        cmocka_unit_test(boxes_come_back),
        cmocka_unit_test(frames_that_are_refused),
        cmocka_unit_test(windows_that_are_refused),
    };
    return RUN_TESTS(tests, start_kernels, NULL);
}
