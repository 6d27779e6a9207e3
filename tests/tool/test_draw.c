/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Drawing of the tool: what is drawn where, and that nothing of an answer, however strange, leaves the picture. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "draw.h"
#include "run_tests.h"
#include "tool.h"

static tool_picture filled(int32_t width, int32_t height, unsigned char grey) {
    tool_picture picture = {width, height, malloc((size_t)width * (size_t)height * 3)};
    assert_non_null(picture.rgb);
    memset(picture.rgb, grey, (size_t)width * (size_t)height * 3);
    return picture;
}

static const unsigned char *at(const tool_picture *picture, int32_t x, int32_t y) {
    return picture->rgb + 3 * ((size_t)y * (size_t)picture->width + (size_t)x);
}

static void a_line_is_seen_on_every_ground(void **state) {
    (void)state;
    for (int grey = 0; grey < 256; grey += 5)
        for (int32_t color = 0; color < 12; color++) {
            tool_picture picture = filled(400, 300, (unsigned char)grey);
            tool_mark mark = {.box = {100, 100, 300, 250}, .label = "", .score = NAN, .color = color};
            assert_true(tool_draw_marks(&picture, &mark, 1));
            int most = 0; /* how far a channel of line or rim is from the ground */
            for (int32_t i = 0; i < 33; i++) {
                const int far = abs(at(&picture, 95 + i / 3, 200)[i % 3] - grey);
                most = far > most ? far : most;
            }
            assert_true(most > 80);
            assert_int_equal(at(&picture, 200, 180)[0], grey); /* the inside is left alone */
            tool_picture_free(&picture);
        }
}

static void a_mask_is_translucent_inside_and_nowhere_else(void **state) {
    (void)state;
    tool_picture picture = filled(200, 100, 100);
    uint8_t *mask = calloc(200 * 100, 1);
    assert_non_null(mask);
    for (int y = 20; y < 80; y++) memset(mask + y * 200 + 50, 255, 100);
    tool_mark mark = {.box = {50, 20, 150, 80}, .label = "", .score = NAN, .mask = mask};
    assert_true(tool_draw_marks(&picture, &mark, 1));
    const unsigned char *inside = at(&picture, 100, 50), *outside = at(&picture, 10, 50);
    assert_true(inside[0] > 150 && inside[0] < 200 && inside[1] < 100 && inside[1] > 60); /* red over grey, both seen */
    assert_true(outside[0] == 100 && outside[1] == 100 && outside[2] == 100);
    free(mask);
    tool_picture_free(&picture);
}

static void labels_keep_to_the_picture_and_apart(void **state) {
    (void)state;
    tool_picture picture = filled(640, 480, 128);
    tool_mark marks[2] = {{.box = {600, 2, 639, 60}, .label = "a cat", .label_size = 5, .score = .5f, .color = 0},
                          {.box = {600, 4, 639, 62}, .label = "a dog", .label_size = 5, .score = .5f, .color = 1}};
    assert_true(tool_draw_marks(&picture, marks, 2));
    size_t n[2] = {0, 0}; /* pixels of each color: a box has 400 */
    for (int32_t y = 0; y < 480; y++)
        for (int32_t x = 0; x < 640; x++) {
            const unsigned char *p = at(&picture, x, y);
            n[0] += p[0] == 255 && p[1] == 60 && p[2] == 60;
            n[1] += p[0] == 40 && p[1] == 150 && p[2] == 255;
        }
    assert_true(n[0] > 600 && n[1] > 600);
    tool_picture_free(&picture);
}

static float width(const char *text) { return tool_text_width(text, strlen(text), 20); }

static void what_the_font_lacks_is_a_box(void **state) {
    (void)state;
    const char *const texts[] = {"\xE7\x8C\xAB", "\xE0\xA4\x95", "\xF0\x9F\x98\x80", "\xFF",
                                 "\xC3"}; /* Chinese, Hindi, a face, no UTF-8 */
    tool_picture first = filled(40, 40, 255);
    tool_draw_text(&first, 5, 30, 20, (tool_color){0, 0, 0}, texts[0], strlen(texts[0]));
    for (size_t i = 1; i < sizeof texts / sizeof *texts; i++) {
        tool_picture other = filled(40, 40, 255);
        tool_draw_text(&other, 5, 30, 20, (tool_color){0, 0, 0}, texts[i], strlen(texts[i]));
        assert_memory_equal(first.rgb, other.rgb, 40 * 40 * 3);
        tool_picture_free(&other);
    }
    tool_picture_free(&first);
    assert_true(width("iiii") < width("mmmm") && width("ab") > width("a") && width("a b") > width("ab"));
    assert_true(width("e") == width("\xC3\xA9") && width("e\xCC\x81") == width("e")); /* marks take no room */
    assert_true(width("a\xE2\x80\x8B") == width("a"));                                /* nor does what is not seen */
}

static void every_character_of_the_font_is_its_own(void **state) {
    (void)state;
    enum { FIRST = 0x21, LAST = 0x17F, SIDE = 48 };
    static unsigned char seen[LAST + 1][SIDE * SIDE * 3];
    size_t n = 0;
    for (uint32_t code = FIRST; code <= LAST; code++) {
        if (code == 0xD0) continue; /* Eth looks as D with a stroke does */
        char text[3] = {(char)code, 0, 0};
        if (code >= 0x80) {
            text[0] = (char)(0xC0 | code >> 6);
            text[1] = (char)(0x80 | (code & 0x3F));
        }
        tool_picture picture = filled(SIDE, SIDE, 255);
        tool_draw_text(&picture, 8, 34, 20, (tool_color){0, 0, 0}, text, strlen(text));
        tool_picture box = filled(SIDE, SIDE, 255);
        tool_draw_text(&box, 8, 34, 20, (tool_color){0, 0, 0}, "\xFF", 1);
        const int missing = memcmp(picture.rgb, box.rgb, SIDE * SIDE * 3) == 0;
        if (code < 0x7F || (code >= 0xC0 && code < 0x100)) assert_false(missing);
        for (size_t i = 0; i < n && !missing; i++) assert_memory_not_equal(picture.rgb, seen[i], SIDE * SIDE * 3);
        if (!missing && (code < 0x7F || code >= 0xC0)) memcpy(seen[n++], picture.rgb, SIDE * SIDE * 3);
        tool_picture_free(&picture);
        tool_picture_free(&box);
    }
    assert_true(n > 94 + 64 + 100);
}

static uint32_t next(uint64_t *seed) {
    return (uint32_t)((*seed = *seed * 6364136223846793005u + 1442695040888963407u) >> 33);
}

static float strange(uint64_t *seed, int32_t size) {
    static const float values[] = {0, -1, 1e30f, -1e30f, INFINITY, -INFINITY, NAN, .5f};
    const uint32_t kind = next(seed) % 16;
    return kind < 8 ? values[kind] : (float)(next(seed) % (uint32_t)(2 * size + 2)) - (float)size / 2;
}

/* A guard behind the pixels, sanitizers, and that it ends. */
static void nothing_leaves_the_picture(void **state) {
    (void)state;
    uint64_t seed = 7;
    for (int round = 0; round < 400; round++) {
        const int32_t w = 1 + (int32_t)(next(&seed) % 300), h = 1 + (int32_t)(next(&seed) % (round % 2 ? 300 : 12));
        const size_t size = (size_t)w * (size_t)h * 3;
        tool_picture picture = {w, h, malloc(size + 64)};
        uint8_t *mask = malloc((size_t)w * (size_t)h);
        assert_true(picture.rgb && mask);
        memset(picture.rgb, round, size + 64);
        for (size_t i = 0; i < (size_t)w * (size_t)h; i++) mask[i] = (uint8_t)next(&seed);
        tool_mark marks[6];
        char labels[6][40];
        for (size_t i = 0; i < 6; i++) {
            for (size_t k = 0; k < sizeof labels[i]; k++) labels[i][k] = (char)(next(&seed) % (round % 3 ? 256 : 128));
            marks[i] = (tool_mark){.label = labels[i],
                                   .label_size = next(&seed) % sizeof labels[i],
                                   .score = strange(&seed, 1),
                                   .mask = next(&seed) % 3 ? NULL : mask,
                                   .color = (int32_t)(next(&seed) & 0x7FFFFFFF)};
            for (int c = 0; c < 4; c++) marks[i].box[c] = strange(&seed, c % 2 ? h : w);
        }
        assert_true(tool_draw_marks(&picture, marks, 6));
        for (size_t i = 0; i < 64; i++) assert_int_equal(picture.rgb[size + i], (unsigned char)round);
        free(mask);
        tool_picture_free(&picture);
    }
}

static float brightness(const unsigned char *p) {
    return .299f * (float)p[0] + .587f * (float)p[1] + .114f * (float)p[2];
}

/* A map of 2 x 2 on a picture that is not square: middles of its squares have its values, between them it is linear. */
static void heat_lies_where_its_patch_is(void **state) {
    (void)state;
    static const float map[] = {.25f, 1, .25f, .25f};
    for (int grey = 0; grey < 256; grey += 51) {
        tool_picture picture = filled(400, 100, (unsigned char)grey);
        tool_draw_heat(&picture, map, 2);
        const float hot = brightness(at(&picture, 300, 25)), cold = brightness(at(&picture, 100, 75));
        assert_true(hot > cold + 90);
        assert_memory_equal(at(&picture, 99, 24), at(&picture, 300, 75), 3);
        assert_memory_equal(at(&picture, 99, 24), at(&picture, 20, 90), 3);
        assert_memory_equal(at(&picture, 300, 24), at(&picture, 390, 5), 3); /* beyond the middles it goes on */
        for (int32_t x = 101; x < 300; x++)
            assert_true(brightness(at(&picture, x, 25)) + 2 >= brightness(at(&picture, x - 1, 25)));
        const unsigned char *half = at(&picture, 200, 25); /* viridis at 0.5: 33 144 141 */
        const float wanted[] = {33, 144, 141};
        for (int c = 0; c < 3; c++)
            assert_true(fabsf((float)half[c] - ((float)grey + .62f * (wanted[c] - (float)grey))) < 3);
        tool_picture_free(&picture);
        picture = filled(7, 3, (unsigned char)grey);
        const float one[] = {.5f}, flat[] = {0, 0, 0, 0};
        tool_draw_heat(&picture, one, 1);
        tool_draw_heat(&picture, flat, 2);
        for (int32_t x = 1; x < 7; x++) assert_memory_equal(at(&picture, x, 2), at(&picture, 0, 0), 3);
        tool_picture_free(&picture);
    }
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_line_is_seen_on_every_ground),
        cmocka_unit_test(a_mask_is_translucent_inside_and_nowhere_else),
        cmocka_unit_test(labels_keep_to_the_picture_and_apart),
        cmocka_unit_test(what_the_font_lacks_is_a_box),
        cmocka_unit_test(every_character_of_the_font_is_its_own),
        cmocka_unit_test(nothing_leaves_the_picture),
        cmocka_unit_test(heat_lies_where_its_patch_is),
    };
    return RUN_TESTS(tests, NULL, NULL);
}
