/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* lib/processor: image.c, png.c, jpeg.c and exif.c against Pillow's results (tests/golden/images), and damage. */
#include "run_tests.h"

#include <string.h>
#include <unistd.h>

#include "golden_images.h"
#include "opened.h"

/* An allocator that counts what is out and can fail at a given call. */
static struct { long live, calls, fail_at; } counts;

static void *counting_alloc(void *user, size_t size, size_t alignment) {
    (void)user;
    if (++counts.calls == counts.fail_at) return NULL;
    void *block = aligned_alloc(alignment, size);
    if (block) counts.live++;
    return block;
}

static void counting_free(void *user, void *block) {
    (void)user;
    counts.live--;
    free(block);
}

static const uint8_t white[3] = {255, 255, 255};
static const pgi_memory counting = {NULL, counting_alloc, counting_free};

static pg_status read_bytes(const void *bytes, size_t size, int64_t max_pixels, int32_t exif, pgi_rgb *out) {
    pg_image image = {.struct_size = sizeof image, .format = PG_IMAGE_BYTES, .n_bytes = size};
    image.planes[0] = bytes;
    pgi_image_limits limits = {.max_pixels = max_pixels ? max_pixels : PGI_DEFAULT_MAX_PIXELS, .exif = exif};
    return read_image(&counting, &image, &limits, out);
}

static pgi_buffer read_golden(const char *name) {
    char path[1024];
    pgi_buffer buffer;
    snprintf(path, sizeof path, GOLDEN_IMAGES "%s", name);
    pgi_buffer_init(&buffer, &pgi_memory_default);
    assert_int_equal(pgi_file_read(path, 1 << 20, &buffer), PG_OK);
    return buffer;
}

static void check(const char *name, const pgi_rgb *rgb, int width, int height, unsigned long long expected) {
    unsigned long long found = digest(rgb->data, (size_t)rgb->width * (size_t)rgb->height * 3);
    if (rgb->width != width || rgb->height != height || found != expected)
        fail_msg("%s: %d x %d, digest %016llx, expected %d x %d, %016llx", name, rgb->width, rgb->height, found, width,
                 height, expected);
}

static pg_status status_of(const char *name) {
    if (strcmp(name, "FORMAT") == 0) return PG_ERROR_FORMAT;
    if (strcmp(name, "UNSUPPORTED") == 0) return PG_ERROR_UNSUPPORTED;
    return strcmp(name, "LIMIT") == 0 ? PG_ERROR_LIMIT : PG_OK;
}

/* Every image of the index, by path and by bytes, as stored and turned. */
static void golden_images(void **state) {
    (void)state;
    FILE *index = open_golden("index.txt");
    assert_non_null(index);
    char line[512], name[128], word[32];
    int n_ok = 0, n_error = 0;
    while (fgets(line, sizeof line, index)) {
        int width[2], height[2], at;
        unsigned long long expected[2];
        char path[1024];
        pgi_rgb rgb;
        assert_int_equal(sscanf(line, "%127s %31s %n", name, word, &at), 2);
        pgi_buffer file = read_golden(name);
        snprintf(path, sizeof path, GOLDEN_IMAGES "%s", name);
        pg_image image = {.struct_size = sizeof image, .format = PG_IMAGE_PATH, .path = path};
        if (strcmp(word, "ok") == 0) {
            assert_int_equal(sscanf(line + at, "%d %d %llx %d %d %llx", &width[0], &height[0], &expected[0], &width[1],
                                    &height[1], &expected[1]),
                             6);
            for (int exif = 0; exif < 2; exif++) {
                pgi_image_limits limits = {.max_pixels = PGI_DEFAULT_MAX_PIXELS, .exif = exif};
                if (read_image(&counting, &image, &limits, &rgb) != PG_OK) fail_msg("%s", pgi_error_text());
                check(name, &rgb, width[exif], height[exif], expected[exif]);
                pgi_rgb_free(&counting, &rgb);
                assert_int_equal(read_bytes(file.data, file.size, 0, exif, &rgb), PG_OK);
                check(name, &rgb, width[exif], height[exif], expected[exif]);
                pgi_rgb_free(&counting, &rgb);
            }
            int64_t pixels = (int64_t)width[0] * height[0];
            assert_int_equal(read_bytes(file.data, file.size, pixels, 0, &rgb), PG_OK);
            pgi_rgb_free(&counting, &rgb);
            if (pixels > 1) assert_int_equal(read_bytes(file.data, file.size, pixels - 1, 0, &rgb), PG_ERROR_LIMIT);
            n_ok++;
        } else {
            pg_status expected_status = (assert_int_equal(sscanf(line + at, "%31s", word), 1), status_of(word));
            pgi_image_limits limits = {.max_pixels = PGI_DEFAULT_MAX_PIXELS, .exif = 1};
            assert_int_not_equal(expected_status, PG_OK);
            pg_status status = read_image(&counting, &image, &limits, &rgb);
            if (status != expected_status || !strstr(pgi_error_text(), path) || !strstr(pgi_error_text(), "expected"))
                fail_msg("%s: status %d, expected %d: %s", name, status, expected_status, pgi_error_text());
            assert_null(rgb.data);
            n_error++;
        }
        pgi_buffer_free(&file);
        assert_int_equal(counts.live, 0);
    }
    fclose(index);
    assert_true(n_ok >= 140 && n_error >= 30);
}

/* What transformers lays over white, where do_convert_rgb is true. */
static void transparent_colours(void **state) {
    (void)state;
    FILE *index = open_golden("over_white.txt");
    assert_non_null(index);
    char name[128];
    unsigned long long expected;
    int n = 0, n_changed = 0;
    while (fscanf(index, "%127s %llx", name, &expected) == 2) {
        pgi_buffer file = read_golden(name);
        pg_image image = {.struct_size = sizeof image, .format = PG_IMAGE_BYTES, .n_bytes = file.size};
        image.planes[0] = file.data;
        pgi_image_limits limits = {.max_pixels = PGI_DEFAULT_MAX_PIXELS, .exif = 1, .over_white = 1};
        pgi_rgb rgb, dropped;
        if (read_image(&counting, &image, &limits, &rgb) != PG_OK) fail_msg("%s", pgi_error_text());
        check(name, &rgb, rgb.width, rgb.height, expected);
        limits.over_white = 0;
        assert_int_equal(read_image(&counting, &image, &limits, &dropped), PG_OK);
        n_changed += memcmp(rgb.data, dropped.data, (size_t)rgb.width * (size_t)rgb.height * 3) != 0;
        pgi_rgb_free(&counting, &rgb);
        pgi_rgb_free(&counting, &dropped);
        pgi_buffer_free(&file);
        n++;
    }
    fclose(index);
    assert_true(n > 100 && n_changed > 40);
    assert_int_equal(counts.live, 0);
}

/* What transformers makes of an image that Pillow has opened: all that is transparent over white. */
static void opened_images(void **state) {
    (void)state;
    FILE *index = open_golden("opened.txt");
    assert_non_null(index);
    char name[128], word[32];
    int n = 0, n_told = 0, n_error = 0;
    while (fscanf(index, "%127s %31s", name, word) == 2) {
        pgi_buffer file = read_golden(name);
        pg_image image = {.struct_size = sizeof image, .format = PG_IMAGE_BYTES, .n_bytes = file.size};
        image.planes[0] = file.data;
        int32_t dropped = 0, dropped_too = 0;
        pgi_image_limits limits = {.max_pixels = PGI_DEFAULT_MAX_PIXELS, .ground = white, .alpha_dropped = &dropped};
        pgi_rgb rgb, without;
        pg_status status = read_image(&counting, &image, &limits, &rgb);
        if (strcmp(word, "error") == 0) {
            assert_int_equal(status, PG_ERROR_FORMAT);
            n_error++;
        } else {
            if (status != PG_OK) fail_msg("%s: %s", name, pgi_error_text());
            check(name, &rgb, rgb.width, rgb.height, strtoull(word, NULL, 16));
            assert_int_equal(dropped, 0);
            limits.ground = NULL;
            limits.alpha_dropped = &dropped_too;
            assert_int_equal(read_image(&counting, &image, &limits, &without), PG_OK);
            size_t size = (size_t)rgb.width * (size_t)rgb.height * 3;
            if (memcmp(rgb.data, without.data, size) != 0) assert_int_equal(dropped_too, 1);
            n_told += dropped_too;
            pgi_rgb_free(&counting, &rgb);
            pgi_rgb_free(&counting, &without);
        }
        pgi_buffer_free(&file);
        n++;
    }
    fclose(index);
    assert_true(n > 100 && n_told > 30 && n_error == 2);
    assert_int_equal(counts.live, 0);
}

typedef struct log_lines {
    int n;
    char last[512];
} log_lines;

static void keep_line(void *user, int32_t level, const char *text) {
    log_lines *lines = user;
    assert_int_equal(level, PG_LOG_WARNING);
    snprintf(lines->last, sizeof lines->last, "%s", text);
    lines->n++;
}

/* Each image of 16-bit grey that becomes white in part says so, once; others say nothing. */
static void clipped_grey(void **state) {
    (void)state;
    static const struct {
        const char *name, *text;
    } cases[] = {{"png_grey_16.png", " of 273 pixels are above 255 and become white"},
                 {"png_grey_16_interlaced.png", " of 273 pixels are above 255 and become white"},
                 {"png_grey_8.png", NULL},
                 {"png_grey_alpha_16.png", NULL},
                 {"png_rgb_16.png", NULL}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        log_lines lines = {0};
        char path[1024];
        snprintf(path, sizeof path, GOLDEN_IMAGES "%s", cases[i].name);
        pg_image image = {.struct_size = sizeof image, .format = PG_IMAGE_PATH, .path = path};
        pgi_log log = {keep_line, &lines};
        pgi_image_limits limits = {.max_pixels = PGI_DEFAULT_MAX_PIXELS, .log = &log};
        pgi_rgb rgb;
        assert_int_equal(read_image(&counting, &image, &limits, &rgb), PG_OK);
        assert_int_equal(lines.n, cases[i].text != NULL);
        if (cases[i].text && (!strstr(lines.last, cases[i].text) || !strstr(lines.last, path)))
            fail_msg("%s: %s", cases[i].name, lines.last);
        pgi_rgb_free(&counting, &rgb);
    }
    assert_int_equal(counts.live, 0);
}

static void camera_buffers(void **state) {
    (void)state;
    static const struct {
        int32_t format;
        int channels, r, g, b;
    } formats[] = {{PG_IMAGE_RGB8, 3, 0, 1, 2},
                   {PG_IMAGE_BGR8, 3, 2, 1, 0},
                   {PG_IMAGE_RGBA8, 4, 0, 1, 2},
                   {PG_IMAGE_BGRA8, 4, 2, 1, 0},
                   {PG_IMAGE_GRAY8, 1, 0, 0, 0}};
    enum { WIDTH = 5, HEIGHT = 3, LINE = 40 };
    uint8_t buffer[HEIGHT * LINE];
    for (size_t i = 0; i < sizeof buffer; i++) buffer[i] = (uint8_t)(i * 37 + 11);
    for (size_t f = 0; f < sizeof formats / sizeof *formats; f++) {
        int dense = WIDTH * formats[f].channels;
        const int64_t strides[] = {LINE, -LINE, dense, 0, -dense};
        for (size_t s = 0; s < sizeof strides / sizeof *strides; s++) {
            pg_image image = {
                .struct_size = sizeof image, .format = formats[f].format, .width = WIDTH, .height = HEIGHT};
            image.strides[0] = strides[s];
            int64_t stride = strides[s] ? strides[s] : dense;
            const uint8_t *top = stride < 0 ? buffer - stride * (HEIGHT - 1) : buffer;
            image.planes[0] = top;
            pgi_image_limits limits = {.max_pixels = PGI_DEFAULT_MAX_PIXELS, .exif = 1};
            pgi_rgb rgb;
            assert_int_equal(read_image(&counting, &image, &limits, &rgb), PG_OK);
            for (int y = 0; y < HEIGHT; y++) {
                for (int x = 0; x < WIDTH; x++) {
                    const uint8_t *p = top + y * stride + x * formats[f].channels;
                    const uint8_t *q = rgb.data + (y * WIDTH + x) * 3;
                    assert_int_equal(q[0], p[formats[f].r]);
                    assert_int_equal(q[1], p[formats[f].g]);
                    assert_int_equal(q[2], p[formats[f].b]);
                }
            }
            pgi_rgb_free(&counting, &rgb);
        }
    }
    assert_int_equal(counts.live, 0);
}

/* The bytes over white are those of Image.alpha_composite() of Pillow 13. */
static void camera_alpha(void **state) {
    (void)state;
    static const uint8_t pixels[] = {200, 100, 0, 255, 200, 100, 0, 128, 7, 8, 9, 0, 1, 254, 77, 3};
    static const uint8_t rgb_white[] = {200, 100, 0, 227, 177, 127, 255, 255, 255, 252, 255, 253};
    static const int32_t formats[] = {PG_IMAGE_RGBA8, PG_IMAGE_BGRA8};
    static const uint8_t spare[] = {200, 100, 0, 0, 200, 100, 0, 0}, opaque[] = {200, 100, 0, 255, 1, 2, 3, 255};
    for (int f = 0; f < 2; f++) {
        int32_t dropped = 0;
        pg_image image = {.struct_size = sizeof image, .format = formats[f], .width = 2, .height = 2};
        image.planes[0] = pixels;
        pgi_image_limits limits = {.max_pixels = PGI_DEFAULT_MAX_PIXELS, .ground = white, .alpha_dropped = &dropped};
        pgi_rgb rgb;
        assert_int_equal(read_image(&counting, &image, &limits, &rgb), PG_OK);
        for (int i = 0; i < 12; i++) assert_int_equal(rgb.data[i], rgb_white[f ? i / 3 * 3 + 2 - i % 3 : i]);
        assert_int_equal(dropped, 0);
        pgi_rgb_free(&counting, &rgb);
        limits.ground = NULL;
        const uint8_t *const buffers[] = {pixels, spare, opaque}; /* one whose alpha is lost, two without alpha */
        for (int b = 0; b < 3; b++) {
            image.planes[0] = buffers[b];
            image.height = b ? 1 : 2;
            dropped = 0;
            assert_int_equal(read_image(&counting, &image, &limits, &rgb), PG_OK);
            assert_int_equal(dropped, b == 0);
            pgi_rgb_free(&counting, &rgb);
        }
    }
    assert_int_equal(counts.live, 0);
}

static void refuse(pg_image image, int64_t max_pixels, pg_status expected, const char *text) {
    pgi_image_limits limits = {.max_pixels = max_pixels ? max_pixels : PGI_DEFAULT_MAX_PIXELS};
    pgi_rgb rgb;
    pg_status status = read_image(&counting, &image, &limits, &rgb);
    if (status != expected || !strstr(pgi_error_text(), text))
        fail_msg("status %d, expected %d with \"%s\": %s", status, expected, text, pgi_error_text());
    assert_null(rgb.data);
}

/* Right checksums for all chunks. */
static void repair_png(uint8_t *bytes, size_t size) {
    for (size_t at = 8; at + 12 <= size;) {
        size_t n = (size_t)bytes[at] << 24 | (size_t)bytes[at + 1] << 16 | (size_t)bytes[at + 2] << 8 | bytes[at + 3];
        if (n > size - at - 12) return;
        uint32_t crc = ~0u;
        for (size_t i = at + 4; i < at + 8 + n; i++) {
            crc ^= bytes[i];
            for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320u : 0);
        }
        for (int i = 0; i < 4; i++) bytes[at + 8 + n + (size_t)i] = (uint8_t)(~crc >> (24 - 8 * i));
        at += 12 + n;
    }
}

/* Chunks of many megabytes, as image editors write them, cost nothing but their bytes. The file is that of
 * exif_after_idat.png, the chunk behind its header: EXIF behind the pixels is still found. */
static void big_chunks(void **state) {
    (void)state;
    static const struct {
        const char *kind;
        uint32_t size;
    } cases[] = {{"tEXt", 5 << 20}, {"prVt", 5 << 20}, {"tEXt", 9 << 20}, {"iTXt", 9 << 20}};
    enum { HEADER = 33 };
    pgi_buffer file = read_golden("exif_after_idat.png");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint32_t n = cases[i].size;
        size_t size = file.size + n + 12;
        uint8_t *bytes = malloc(size), *chunk = bytes + HEADER;
        assert_non_null(bytes);
        memcpy(bytes, file.data, HEADER);
        for (int k = 0; k < 4; k++) chunk[k] = (uint8_t)(n >> (24 - 8 * k));
        memcpy(chunk + 4, cases[i].kind, 4);
        memset(chunk + 8, 'a', n);
        memcpy(chunk + 8, "Title\0\0\0\0\0", 10); /* of iTXt: not compressed, no language, no translation */
        memcpy(chunk + 12 + n, file.data + HEADER, file.size - HEADER);
        repair_png(bytes, size);
        for (int exif = 0; exif < 2; exif++) {
            pgi_rgb big, small;
            if (read_bytes(bytes, size, 0, exif, &big) != PG_OK)
                fail_msg("%u bytes of %s: %s", n, cases[i].kind, pgi_error_text());
            assert_int_equal(read_bytes(file.data, file.size, 0, exif, &small), PG_OK);
            assert_int_equal(big.width, exif ? 5 : 9); /* turned by 90 degrees */
            assert_int_equal(big.width, small.width);
            assert_memory_equal(big.data, small.data, (size_t)small.width * (size_t)small.height * 3);
            pgi_rgb_free(&counting, &big);
            pgi_rgb_free(&counting, &small);
        }
        free(bytes);
    }
    pgi_buffer_free(&file);
    assert_int_equal(counts.live, 0);
}

static void images_that_are_refused(void **state) {
    (void)state;
    uint8_t pixels[64] = {0};
    pg_image good = {.struct_size = sizeof good, .format = PG_IMAGE_RGB8, .width = 4, .height = 4}, bad;
    good.planes[0] = pixels;
    good.strides[0] = 12;
    bad = good, bad.format = 0, refuse(bad, 0, PG_ERROR_ARGUMENT, "format is 0");
    bad = good, bad.format = 13, refuse(bad, 0, PG_ERROR_ARGUMENT, "format is 13");
    bad = good, bad.format = -1, refuse(bad, 0, PG_ERROR_ARGUMENT, "format is -1");
    bad = good, bad.width = 0, refuse(bad, 0, PG_ERROR_ARGUMENT, "0 x 4");
    bad = good, bad.height = -4, refuse(bad, 0, PG_ERROR_ARGUMENT, "4 x -4");
    bad = good, bad.planes[0] = NULL, refuse(bad, 0, PG_ERROR_ARGUMENT, "planes[0] is NULL");
    bad = good, bad.strides[0] = 11, refuse(bad, 0, PG_ERROR_ARGUMENT, "strides[0] is 11");
    bad = good, bad.strides[0] = -11, refuse(bad, 0, PG_ERROR_ARGUMENT, "strides[0] is -11");
    bad = good, bad.strides[0] = INT64_MAX, refuse(bad, 0, PG_ERROR_ARGUMENT, "strides[0]");
    bad = good, bad.strides[0] = INT64_MIN, refuse(bad, 0, PG_ERROR_ARGUMENT, "strides[0]");
    bad = good, bad.n_bytes = 47, refuse(bad, 0, PG_ERROR_ARGUMENT, "n_bytes is 47, expected at least 48 for 4 rows");
    bad = good, bad.n_bytes = 63, bad.strides[0] = -16, bad.planes[0] = pixels + 48;
    refuse(bad, 1, PG_ERROR_LIMIT, "at most 1");
    bad.n_bytes = 59, refuse(bad, 0, PG_ERROR_ARGUMENT, "n_bytes is 59, expected at least 60 for 4 rows");
    bad = good, bad.width = INT32_MAX, bad.height = INT32_MAX, refuse(bad, 0, PG_ERROR_LIMIT, "178956970");
    refuse(good, 15, PG_ERROR_LIMIT, "at most 15");
    bad = good, bad.format = PG_IMAGE_PATH, refuse(bad, 0, PG_ERROR_ARGUMENT, "path is NULL");
    bad.path = "/nonexistent/a.png", refuse(bad, 0, PG_ERROR_NOT_FOUND, "/nonexistent/a.png");
    bad.path = "/", refuse(bad, 0, PG_ERROR_IO, "folder");
    bad = good, bad.format = PG_IMAGE_BYTES, refuse(bad, 0, PG_ERROR_FORMAT, "no bytes");
    bad.n_bytes = 64, refuse(bad, 0, PG_ERROR_FORMAT, "00 00 00 00");
    bad.n_bytes = UINT64_MAX, refuse(bad, 0, PG_ERROR_ARGUMENT, "n_bytes");
    bad.n_bytes = 1, bad.planes[0] = NULL, refuse(bad, 0, PG_ERROR_ARGUMENT, "planes[0]");
    assert_int_equal(counts.live, 0);
}

/* What stands in a file in place of a PNG or JPEG is named, whatever the file is called. */
static void other_formats(void **state) {
    (void)state;
#define BYTES(text) text, sizeof text - 1
    static const struct {
        const char *bytes;
        size_t size;
        pg_status status;
        const char *found, *advice;
    } cases[] = {
        {BYTES("\0\0\0\x18"
               "ftypheic\0\0\0\0mif1heic"),
         PG_ERROR_UNSUPPORTED, "a HEIC image", "save it as one"},
        {BYTES("\0\0\0\x18"
               "ftypheix\0\0\0\0mif1heix"),
         PG_ERROR_UNSUPPORTED, "a HEIC image", "save it as one"},
        {BYTES("\0\0\0\x18"
               "ftyphevc\0\0\0\0mif1hevc"),
         PG_ERROR_UNSUPPORTED, "a HEIC image", "save it as one"},
        {BYTES("\0\0\0\x18"
               "ftypheim\0\0\0\0mif1heim"),
         PG_ERROR_UNSUPPORTED, "a HEIC image", "save it as one"},
        {BYTES("\0\0\0\x18"
               "ftypheis\0\0\0\0mif1heis"),
         PG_ERROR_UNSUPPORTED, "a HEIC image", "save it as one"},
        {BYTES("\0\0\0\x18"
               "ftypmif1\0\0\0\0mif1heic"),
         PG_ERROR_UNSUPPORTED, "a HEIC image", "save it as one"},
        {BYTES("\0\0\0\x18"
               "ftypmif1\0\0\0\0mif1avif"),
         PG_ERROR_UNSUPPORTED, "an AVIF image", "save it as one"},
        {BYTES("\0\0\0\x14"
               "ftypmif1\0\0\0\0mif1"),
         PG_ERROR_UNSUPPORTED, "a HEIF image", "save it as one"},
        {BYTES("\0\0\0\x14"
               "ftypmsf1\0\0\0\0mif1avif"),
         PG_ERROR_UNSUPPORTED, "a HEIF image", "save it as one"},
        {BYTES("\0\0\0\x18"
               "ftypavif\0\0\0\0"),
         PG_ERROR_UNSUPPORTED, "an AVIF image", "save it as one"},
        {BYTES("\0\0\0\x18"
               "ftypavis"),
         PG_ERROR_UNSUPPORTED, "an AVIF image", "save it as one"},
        {BYTES("\xFF\xFF\xFF\xFF"
               "ftypmif1\0"),
         PG_ERROR_UNSUPPORTED, "a HEIF image", "save it as one"},
        {BYTES("\0\0\0\x18"
               "ftypisom\0\0\0\0avif"),
         PG_ERROR_UNSUPPORTED, "a video file", "save it as one"},
        {BYTES("RIFF\x10\0\0\0WEBPVP8 "), PG_ERROR_UNSUPPORTED, "a WebP image", "save it as one"},
        {BYTES("GIF87a"), PG_ERROR_UNSUPPORTED, "a GIF image", "save it as one"},
        {BYTES("BM\0\0"), PG_ERROR_UNSUPPORTED, "a BMP image", "save it as one"},
        {BYTES("II*\0\x08"), PG_ERROR_UNSUPPORTED, "a TIFF image", "save it as one"},
        {BYTES("MM\0+\0"), PG_ERROR_UNSUPPORTED, "a TIFF image", "save it as one"},
        {BYTES("<!DOCTYPE html>\n<html>"), PG_ERROR_FORMAT, "an HTML page", "fetch the file again"},
        {BYTES(" \n<HTML lang=en>"), PG_ERROR_FORMAT, "an HTML page", "fetch the file again"},
        {BYTES("version https://git-lfs.github.com/spec/v1\noid sha256:0"), PG_ERROR_FORMAT, "a Git LFS pointer",
         "git lfs pull"},
        {BYTES("{\"error\": \"not found\"}"), PG_ERROR_FORMAT, "JSON text", "a server may have sent"},
        {BYTES("[{\"a\": 1}]"), PG_ERROR_FORMAT, "JSON text", "a server may have sent"},
        {BYTES("data:image/png;base64,iVBORw0KGgo"), PG_ERROR_FORMAT, "base64 text", "decode it first"},
        {BYTES("/9j/4AAQSkZJRg"), PG_ERROR_FORMAT, "base64 text", "decode it first"},
        {BYTES("https://example.com/a.png\n"), PG_ERROR_FORMAT, "the address", "download"},
        {BYTES("\n"), PG_ERROR_FORMAT, "1 bytes that begin with 0a 00", "PNG or JPEG"},
        {BYTES("<a>"), PG_ERROR_FORMAT, "begin with 3c 61", "PNG or JPEG"},
    };
#undef BYTES
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        for (size_t cut = 0; cut < 2;
             cut++) { /* a block of its own size, so that a sanitizer sees reads past the end */
            size_t size = cases[i].size >> cut;
            uint8_t *bytes = malloc(size ? size : 1);
            assert_non_null(bytes);
            memcpy(bytes, cases[i].bytes, size);
            pgi_rgb rgb;
            pg_status status = read_bytes(bytes, size, 0, 1, &rgb);
            const char *text = pgi_error_text();
            if (cut) {
                assert_true(status == PG_ERROR_UNSUPPORTED || status == PG_ERROR_FORMAT);
            } else if (status != cases[i].status || !strstr(text, cases[i].found) || !strstr(text, cases[i].advice)) {
                fail_msg("%s, %s: status %d, %s", cases[i].found, cases[i].advice, status, text);
            }
            free(bytes);
        }
    }
    pg_image image = {.struct_size = sizeof image, .format = PG_IMAGE_PATH};
    image.path = "https://example.com/a.png", refuse(image, 0, PG_ERROR_NOT_FOUND, "a URL");
    image.path = "http://example.com/a.png", refuse(image, 0, PG_ERROR_NOT_FOUND, "never uses the network");
    image.path = "data:image/png;base64,iVBORw0KGgo", refuse(image, 0, PG_ERROR_NOT_FOUND, "data: URL");
    char url[6000] = "https://example.com/"; /* longer than a path may be */
    memset(url + strlen(url), 'a', sizeof url - 1 - strlen(url));
    image.path = url, refuse(image, 0, PG_ERROR_NOT_FOUND, "never uses the network");
    assert_int_equal(counts.live, 0);
}

/* ------------------------------------------------------------------------------------------------------- damage */

static uint32_t next_random(uint64_t *state) {
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(*state >> 33);
}

/* Copies `file` damaged as the seed says into `out` (room for file->size + 8 bytes) and returns its size. */
static size_t damage(const pgi_buffer *file, uint64_t seed, uint8_t *out) {
    uint64_t random = seed * 2 + 1;
    size_t size = file->size;
    for (int i = 0; i < 4; i++) next_random(&random);
    memcpy(out, file->data, size);
    switch (next_random(&random) % 6) {
        case 0: size = next_random(&random) % size; break;
        case 1: /* a few bytes more in the middle */
        {
            size_t at = next_random(&random) % size, n = 1 + next_random(&random) % 8;
            memmove(out + at + n, out + at, size - at);
            size += n;
            break;
        }
        case 2: /* a run of one value */
        {
            size_t at = next_random(&random) % size, n = 1 + next_random(&random) % 16;
            memset(out + at, next_random(&random) % 2 ? 0xFF : 0, n > size - at ? size - at : n);
            break;
        }
        default:
            for (uint32_t n = 1 + next_random(&random) % 6; n > 0; n--) {
                size_t at = next_random(&random) % size; /* headers are where the interesting fields are */
                if (next_random(&random) % 2) at %= 200;
                out[at % size] ^= (uint8_t)(1u << next_random(&random) % 8);
            }
    }
    if (next_random(&random) % 4) repair_png(out, size);
    return size;
}

static void damaged_images(void **state) {
    (void)state;
    enum { VARIANTS = 24 };
    FILE *index = open_golden("index.txt");
    assert_non_null(index);
    FILE *silence = tmpfile();
    assert_non_null(silence);
    fflush(NULL);
    int saved[2] = {dup(1), dup(2)};
    dup2(fileno(silence), 1);
    dup2(fileno(silence), 2);
    char line[512], name[128], problem[512] = "";
    int n = 0, n_ok = 0;
    while (!problem[0] && fgets(line, sizeof line, index)) {
        if (sscanf(line, "%127s", name) != 1) break;
        pgi_buffer file = read_golden(name);
        uint8_t *bytes = malloc(file.size + 8);
        for (uint64_t seed = 0; bytes && file.size && seed < VARIANTS && !problem[0]; seed++) {
            /* a block of its own size, so that a sanitizer sees reads past the end */
            size_t size = damage(&file, (uint64_t)n * 1000 + seed, bytes);
            uint8_t *exact = malloc(size ? size : 1);
            memcpy(exact, bytes, size);
            pgi_rgb rgb;
            pg_status status = read_bytes(exact, size, 1 << 20, 1, &rgb);
            if (status == PG_OK) {
                n_ok++;
                pgi_rgb_free(&counting, &rgb);
            } else if ((status != PG_ERROR_FORMAT && status != PG_ERROR_UNSUPPORTED && status != PG_ERROR_LIMIT) ||
                       !strstr(pgi_error_text(), "image bytes: ") || !strstr(pgi_error_text(), "expected")) {
                snprintf(problem, sizeof problem, "%s, seed %d: status %d, %s", name, (int)seed, status,
                         pgi_error_text());
            }
            if (counts.live != 0) snprintf(problem, sizeof problem, "%s, seed %d: a leak", name, (int)seed);
            free(exact);
        }
        free(bytes);
        pgi_buffer_free(&file);
        n++;
    }
    fflush(NULL);
    long printed = lseek(fileno(silence), 0, SEEK_END);
    dup2(saved[0], 1);
    dup2(saved[1], 2);
    close(saved[0]);
    close(saved[1]);
    fclose(silence);
    fclose(index);
    if (problem[0]) fail_msg("%s", problem);
    assert_int_equal(printed, 0);
    assert_true(n > 170 && n_ok > 100);
}

/* Each allocation fails once: the status says so and nothing is left behind. */
static void out_of_memory(void **state) {
    (void)state;
    static const char *const names[] = {"exif_jpeg_6.jpg", "jpeg_ycck.jpg", "png_palette_4_interlaced.png",
                                        "exif_raw_profile_ztxt.png", "exif.png"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        pgi_buffer file = read_golden(names[i]);
        pg_status status = PG_ERROR_MEMORY;
        for (long k = 1; status == PG_ERROR_MEMORY; k++) {
            pgi_rgb rgb;
            counts.calls = 0;
            counts.fail_at = k;
            status = read_bytes(file.data, file.size, 0, 1, &rgb);
            if (status == PG_OK) {
                assert_true(k > 2 && counts.calls < k);
                pgi_rgb_free(&counting, &rgb);
            }
            assert_int_equal(counts.live, 0);
        }
        counts.fail_at = 0;
        assert_int_equal(status, PG_OK);
        pgi_buffer_free(&file);
    }
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_images),  cmocka_unit_test(opened_images),
        cmocka_unit_test(camera_alpha),   cmocka_unit_test(transparent_colours),
        cmocka_unit_test(clipped_grey),   cmocka_unit_test(big_chunks),
        cmocka_unit_test(camera_buffers), cmocka_unit_test(images_that_are_refused),
        cmocka_unit_test(other_formats),  cmocka_unit_test(damaged_images),
        cmocka_unit_test(out_of_memory),
    };
    return RUN_TESTS(tests, NULL, NULL);
}
