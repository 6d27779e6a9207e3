/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* What was found in an image, drawn on it: translucent masks, boxes, plates with label and score. Every line has a dark
 * rim, so that it is seen on a light ground as on a dark one. */
#include "draw.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tool.h"

/* Bright ones, for lines on photos, and black text is read on each; neighbours differ most. */
static const tool_color palette[] = {{255, 60, 60},  {40, 150, 255},  {60, 210, 70},  {255, 200, 20},
                                     {205, 95, 255}, {0, 215, 215},   {255, 140, 40}, {255, 110, 180},
                                     {170, 225, 20}, {130, 130, 255}, {0, 190, 140},  {215, 165, 120}};
enum { N_COLORS = sizeof palette / sizeof *palette };

/* Sizes in pixels that follow from the picture's. */
typedef struct sizes {
    int32_t line, rim;  /* widths */
    float text, margin; /* height of a capital, and what a plate has around the text */
} sizes;

static sizes sizes_of(const tool_picture *picture) {
    const float w = (float)picture->width, h = (float)picture->height;
    const float side = fminf((w + h) / 2, 2 * fminf(w, h)); /* a long and narrow picture counts by its short side */
    sizes s = {.line = (int32_t)fmaxf(side / 350 + .5f, side < 150 ? 1 : 2),
               .text = fmaxf(roundf(side * .0155f), side < 150 ? 7 : 9)};
    s.rim = s.line / 3 > 1 ? s.line / 3 : 1;
    s.margin = roundf(s.text * .4f);
    return s;
}

void tool_picture_free(tool_picture *picture) {
    free(picture->rgb);
    *picture = (tool_picture){0};
}

void tool_draw_pixel(tool_picture *picture, int32_t x, int32_t y, tool_color color, float alpha) {
    if (x < 0 || y < 0 || x >= picture->width || y >= picture->height) return;
    unsigned char *p = picture->rgb + 3 * ((size_t)y * (size_t)picture->width + (size_t)x);
    const unsigned char c[3] = {color.r, color.g, color.b};
    for (int i = 0; i < 3; i++) p[i] = (unsigned char)((float)p[i] + ((float)c[i] - (float)p[i]) * alpha + .5f);
}

static tool_color dark(tool_color c) {
    return (tool_color){(unsigned char)(c.r / 6), (unsigned char)(c.g / 6), (unsigned char)(c.b / 6)};
}

/* ---- boxes ---- */

/* x0 <= x < x1, y0 <= y < y1 */
static void fill(tool_picture *picture, int32_t x0, int32_t y0, int32_t x1, int32_t y1, tool_color color, float alpha) {
    if (x0 < 0) x0 = 0;
    if (y0 < 0) y0 = 0;
    if (x1 > picture->width) x1 = picture->width;
    if (y1 > picture->height) y1 = picture->height;
    for (int32_t y = y0; y < y1; y++)
        for (int32_t x = x0; x < x1; x++) tool_draw_pixel(picture, x, y, color, alpha);
}

static void frame(tool_picture *picture, const int32_t *r, int32_t width, tool_color color) {
    fill(picture, r[0], r[1], r[2], r[1] + width, color, 1);
    fill(picture, r[0], r[3] - width, r[2], r[3], color, 1);
    fill(picture, r[0], r[1], r[0] + width, r[3], color, 1);
    fill(picture, r[2] - width, r[1], r[2], r[3], color, 1);
}

static int32_t within(float value, int32_t least, int32_t most) {
    if (!(value > (float)least)) return least; /* NaN, too */
    return value < (float)most ? (int32_t)lroundf(value) : most;
}

/* The outer edges of a box's frame. The middle of its line is the box; at the picture's border it moves inside. */
static void frame_of(const tool_picture *picture, const float *box, const sizes *s, int32_t *r) {
    const int32_t out = s->rim + s->line / 2;
    const int32_t most[2] = {picture->width, picture->height};
    for (int i = 0; i < 2; i++) {
        const float low = fminf(box[i], box[i + 2]), high = fmaxf(box[i], box[i + 2]);
        r[i] = within(low - (float)out, 0, most[i] - 1);
        r[i + 2] = within(high + (float)out, r[i] + 1, most[i]);
        const int32_t least = 2 * s->rim + s->line; /* so that a box without area is seen */
        if (r[i + 2] - r[i] < least) r[i + 2] = r[i] + least;
    }
}

static void draw_box(tool_picture *picture, const tool_mark *mark, const sizes *s) {
    const tool_color color = palette[mark->color % N_COLORS];
    int32_t r[4];
    frame_of(picture, mark->box, s, r);
    frame(picture, r, s->line + 2 * s->rim, dark(color));
    const int32_t inner[4] = {r[0] + s->rim, r[1] + s->rim, r[2] - s->rim, r[3] - s->rim};
    frame(picture, inner, s->line, color);
}

/* ---- masks ---- */

static int inside(const tool_picture *picture, const uint8_t *mask, int32_t x, int32_t y) {
    return x >= 0 && y >= 0 && x < picture->width && y < picture->height &&
           mask[(size_t)y * (size_t)picture->width + (size_t)x] >= 128;
}

static void disc(tool_picture *picture, int32_t x, int32_t y, int32_t radius, tool_color color) {
    for (int32_t dy = -radius; dy <= radius; dy++)
        for (int32_t dx = -radius; dx <= radius; dx++)
            if (dx * dx + dy * dy <= radius * radius + radius) tool_draw_pixel(picture, x + dx, y + dy, color, 1);
}

static void contour(tool_picture *picture, const uint8_t *mask, int32_t radius, tool_color color) {
    for (int32_t y = 0; y < picture->height; y++)
        for (int32_t x = 0; x < picture->width; x++)
            if (inside(picture, mask, x, y) && !(inside(picture, mask, x - 1, y) && inside(picture, mask, x + 1, y) &&
                                                 inside(picture, mask, x, y - 1) && inside(picture, mask, x, y + 1)))
                disc(picture, x, y, radius, color);
}

static void draw_mask(tool_picture *picture, const tool_mark *mark, const sizes *s) {
    const tool_color color = palette[mark->color % N_COLORS];
    for (int32_t y = 0; y < picture->height; y++)
        for (int32_t x = 0; x < picture->width; x++)
            if (inside(picture, mark->mask, x, y)) tool_draw_pixel(picture, x, y, color, .45f);
    contour(picture, mark->mask, s->line / 2 + s->rim, dark(color));
    contour(picture, mark->mask, s->line / 2, color);
}

/* ---- labels ---- */

typedef struct plate {
    int32_t rect[4]; /* x0 y0 x1 y1 */
    char *text;
} plate;

/* The label, shortened until it fits, and the score. NULL: no memory; "": nothing fits. */
static char *label_text(const tool_mark *mark, float height, float width) {
    char score[16] = "";
    char *text = malloc(mark->label_size + 32);
    if (!text) return NULL;
    if (mark->score == mark->score) snprintf(score, sizeof score, "%.2f", (double)mark->score);
    for (size_t size = mark->label_size;;) {
        const char *cut = size < mark->label_size ? "\xE2\x80\xA6" : "", *space = size && *score ? " " : "";
        memcpy(text, mark->label, size);
        snprintf(text + size, 32, "%s%s%s", size ? cut : "", space, score);
        if (tool_text_width(text, strlen(text), height) <= width) return text;
        if (size == 0) break;
        do size--;
        while (size && ((unsigned char)mark->label[size] & 0xC0) == 0x80);
    }
    *text = '\0';
    return text;
}

static int64_t overlap(const int32_t *a, const int32_t *b) {
    const int64_t w = (int64_t)(a[2] < b[2] ? a[2] : b[2]) - (a[0] > b[0] ? a[0] : b[0]);
    const int64_t h = (int64_t)(a[3] < b[3] ? a[3] : b[3]) - (a[1] > b[1] ? a[1] : b[1]);
    return w > 0 && h > 0 ? w * h : 0;
}

/* Puts a plate of this size at its box r: above, else below, else inside, where it covers least of the plates before.
 * Returns how many of their pixels that are. */
static int64_t place(const tool_picture *picture, const int32_t *r, int32_t width, int32_t height, const plate *plates,
                     size_t n_before, int32_t *out) {
    const int small = 3 * height > r[3] - r[1] || width > r[2] - r[0]; /* it would hide what is in the box */
    const struct {
        int32_t x, y;
        int covers;
    } places[] = {{r[0], r[1] - height, 0},         {r[0], r[3], 0},
                  {r[2] - width, r[1] - height, 0}, {r[2] - width, r[3], 0},
                  {r[0], r[1], 1 + small},          {r[0], r[3] - height, 1 + small},
                  {r[2] - width, r[1], 1 + small},  {r[2], r[1], 0},
                  {r[0] - width, r[1], 0},          {r[0], (r[1] + r[3] - height) / 2, 1 + small}};
    int64_t best = INT64_MAX, covered = 0;
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        int32_t x = places[i].x, y = places[i].y;
        int64_t cost = (int64_t)i + (places[i].covers == 2 ? (int64_t)width * height / 4 : 0);
        if (x < 0 || x + width > picture->width) cost += (i == 7 || i == 8) ? (int64_t)width * height : 0;
        if (y < 0 || y + height > picture->height) cost += (int64_t)width * height;
        if (x + width > picture->width) x = picture->width - width;
        if (y + height > picture->height) y = picture->height - height;
        const int32_t rect[4] = {x < 0 ? 0 : x, y < 0 ? 0 : y, (x < 0 ? 0 : x) + width, (y < 0 ? 0 : y) + height};
        int64_t hidden = 0;
        for (size_t k = 0; k < n_before; k++) hidden += *plates[k].text ? overlap(rect, plates[k].rect) : 0;
        cost += 4 * hidden;
        if (cost >= best) continue;
        best = cost;
        covered = hidden;
        memcpy(out, rect, sizeof rect);
    }
    return covered;
}

static int make_plate(const tool_picture *picture, const tool_mark *mark, const sizes *s, plate *plates, size_t n) {
    plate *p = &plates[n];
    int32_t r[4];
    frame_of(picture, mark->box, s, r);
    const float most = fmaxf(fmaxf((float)(r[2] - r[0]), .5f * (float)picture->width), 12 * s->text);
    p->text = label_text(mark, s->text, fminf(most, (float)picture->width) - 2 * s->margin);
    if (!p->text) return 0;
    const int32_t width = (int32_t)ceilf(tool_text_width(p->text, strlen(p->text), s->text) + 2 * s->margin);
    const int32_t height = (int32_t)ceilf(s->text * 1.35f + 2 * s->margin); /* descenders */
    if (!*p->text || height > picture->height) {
        *p->text = '\0';
        return 1;
    }
    int64_t covered = place(picture, r, width, height, plates, n, p->rect);
    if (2 * covered > (int64_t)width * height) *p->text = '\0'; /* both could not be read */
    return 1;
}

static void draw_plate(tool_picture *picture, const tool_mark *mark, const sizes *s, const plate *p) {
    const tool_color color = palette[mark->color % N_COLORS];
    const tool_color ink = {0, 0, 0};
    const int32_t *r = p->rect;
    if (!*p->text) return;
    fill(picture, r[0], r[1], r[2], r[3], dark(color), 1);
    fill(picture, r[0] + s->rim, r[1] + s->rim, r[2] - s->rim, r[3] - s->rim, color, 1);
    tool_draw_text(picture, (float)r[0] + s->margin, roundf((float)r[1] + s->margin + s->text * 1.05f), s->text, ink,
                   p->text, strlen(p->text));
}

/* ---- all ---- */

static double area(const tool_mark *mark) {
    return fabs(((double)mark->box[2] - (double)mark->box[0]) * ((double)mark->box[3] - (double)mark->box[1]));
}

/* The largest first: what is small is not covered. */
static int by_area(const void *a, const void *b) {
    const double x = area(*(const tool_mark *const *)a), y = area(*(const tool_mark *const *)b);
    return (x < y) - (x > y);
}

int tool_draw_marks(tool_picture *picture, const tool_mark *marks, size_t n) {
    const sizes s = sizes_of(picture);
    const tool_mark **order = malloc((n + 1) * sizeof *order);
    plate *plates = calloc(n + 1, sizeof *plates);
    int done = order && plates;
    for (size_t i = 0; done && i < n; i++) order[i] = &marks[i];
    if (done) qsort(order, n, sizeof *order, by_area);
    for (size_t i = 0; done && i < n; i++)
        if (order[i]->mask) draw_mask(picture, order[i], &s);
    for (size_t i = 0; done && i < n; i++) draw_box(picture, order[i], &s);
    for (size_t i = 0; done && i < n; i++) done = make_plate(picture, order[i], &s, plates, i);
    for (size_t i = 0; done && i < n; i++) draw_plate(picture, order[i], &s, &plates[i]);
    for (size_t i = 0; plates && i < n; i++) free(plates[i].text);
    free(plates);
    free(order);
    return done;
}
