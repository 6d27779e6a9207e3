/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Draws what the agent sees: sky, chequered ground, and things as pictures that stand upright. Things are drawn as the
 * demo model has learned them: flat colours that touch all four sides of their box, before a muted background. */
#include "view.h"

#include <math.h>
#include <stdlib.h>

enum { CUT = 128, SAMPLES = 4 }; /* points of a cut-out's side; samples across each, for soft edges */
struct painter {
    uint8_t cover[N_SHAPES][CUT][CUT]; /* how many samples of each point the shape covers */
};

static const float pi = 3.14159265f;
static const uint32_t sky = RGB(140, 152, 164), haze = RGB(131, 138, 144), ground = RGB(112, 116, 112),
                      field = RGB(122, 126, 121);

/* Is the point inside the shape? x, y: 0 to 1, y downwards. */
static int inside_star(float x, float y) {
    /* Its points lie at 1 and .45 of the middle, every 36 degrees from the top; then it is stretched to its box. */
    const float top = -1, bottom = cosf(pi / 5), side = sinf(2 * pi / 5);
    const float px = (2 * x - 1) * side, py = top + y * (bottom - top);
    const float angle = fmodf(fabsf(atan2f(px, -py)), 2 * pi / 5), turn = angle > pi / 5 ? 2 * pi / 5 - angle : angle;
    /* The edge from (1, 0 degrees) to (.45, 36 degrees): which side of it is the point on? */
    const float r = hypotf(px, py), qx = r * cosf(turn), qy = r * sinf(turn);
    const float ex = .45f * cosf(pi / 5) - 1, ey = .45f * sinf(pi / 5);
    return ex * qy - ey * (qx - 1) >= 0;
}

static int inside(shape s, float x, float y) {
    switch (s) {
        case CIRCLE: return hypotf(x - .5f, y - .5f) <= .5f;
        case TRIANGLE: return fabsf(x - .5f) <= y / 2;
        case STAR: return inside_star(x, y);
        case CROSS: return fabsf(x - .5f) <= 1 / 6.f || fabsf(y - .5f) <= 1 / 6.f;
        default: return 1;
    }
}

painter *painter_create(void) {
    painter *p = calloc(1, sizeof *p);
    for (int s = 0; p && s < N_SHAPES; s++)
        for (int y = 0; y < CUT * SAMPLES; y++)
            for (int x = 0; x < CUT * SAMPLES; x++) {
                const float side = CUT * SAMPLES;
                p->cover[s][y / SAMPLES][x / SAMPLES] +=
                    (uint8_t)inside((shape)s, ((float)x + .5f) / side, ((float)y + .5f) / side);
            }
    return p;
}

void painter_free(painter *p) { free(p); }

/* The cover of a point between those of the cut-out; x, y: 0 to 1. Outside there is nothing. */
static float cover_at(const uint8_t cover[CUT][CUT], float x, float y) {
    const float cx = x * CUT - .5f, cy = y * CUT - .5f;
    const int column = (int)floorf(cx), row = (int)floorf(cy);
    float sum = 0;
    for (int r = row; r <= row + 1; r++)
        for (int c = column; c <= column + 1; c++)
            if (r >= 0 && r < CUT && c >= 0 && c < CUT)
                sum += (float)cover[r][c] * (1 - fabsf(cx - (float)c)) * (1 - fabsf(cy - (float)r));
    return sum / (SAMPLES * SAMPLES);
}

static void draw_thing(const painter *p, const sight *s, canvas *view) {
    const float side = (float)view->width;
    const float x0 = s->box[0] * side, y0 = s->box[1] * side, size = (s->box[2] - s->box[0]) * side;
    const float clear = s->depth < fog - 1 ? 1 : fog - s->depth; /* fades in the last metre before the fog */
    const int top = (int)fmaxf(y0, 0), bottom = (int)fminf(y0 + size + 1, side);
    const int left = (int)fmaxf(x0, 0), right = (int)fminf(x0 + size + 1, side);
    for (int y = top; y < bottom; y++)
        for (int x = left; x < right; x++) {
            const float part =
                cover_at(p->cover[s->thing->shape], ((float)x + .5f - x0) / size, ((float)y + .5f - y0) / size);
            uint32_t *pixel = &view->pixels[y * view->width + x];
            if (part > 0) *pixel = color_mix(*pixel, color_values[s->thing->color], clear * part);
        }
}

static void draw_ground(const world *w, canvas *view) {
    const float side = (float)view->width, ahead_x = sinf(w->agent.heading), ahead_z = cosf(w->agent.heading);
    for (int y = view->height / 2; y < view->height; y++) {
        const float depth = eye_zoom * eye_height / (((float)y + .5f) / side - .5f);
        const float mist = fminf(depth / fog, 1);
        const uint32_t colors[2] = {color_mix(ground, haze, mist), color_mix(field, haze, mist)};
        for (int x = 0; x < view->width; x++) {
            const float right = (((float)x + .5f) / side - .5f) * depth / eye_zoom;
            const int at_x = (int)floorf(w->agent.x + depth * ahead_x + right * ahead_z);
            const int at_z = (int)floorf(w->agent.z + depth * ahead_z - right * ahead_x);
            view->pixels[y * view->width + x] = colors[(at_x + at_z) & 1];
        }
    }
}

void view_draw(const painter *p, const world *w, canvas *view) {
    sight sights[MAX_THINGS];
    for (int y = 0; y < view->height / 2; y++)
        canvas_fill(view, 0, y, view->width, 1, color_mix(sky, haze, 2 * (float)y / (float)view->height));
    draw_ground(w, view);
    const int n = world_look(w, sights);
    for (int i = 0; i < n; i++) draw_thing(p, &sights[i], view);
}

void map_draw(const world *w, canvas *c, int x, int y, int side) {
    const float scale = (float)side / (2 * world_radius), middle_x = (float)x + (float)side / 2,
                middle_y = (float)y + (float)side / 2;
    const float ax = middle_x + w->agent.x * scale, ay = middle_y - w->agent.z * scale, reach = fog * scale;
    const float half_angle = atanf(.5f / eye_zoom);
    canvas_fill(c, x, y, side, side, RGB(38, 44, 52));
    canvas_frame(c, x, y, side, side, 1, RGB(80, 88, 98));
    for (int i = -1; i <= 1; i += 2) {
        const float at = w->agent.heading + (float)i * half_angle;
        canvas_line(c, ax, ay, ax + reach * sinf(at), ay - reach * cosf(at), RGB(150, 160, 172));
    }
    for (int i = 0; i < w->n_things; i++) {
        const thing *t = &w->things[i];
        canvas_fill(c, (int)(middle_x + t->x * scale) - 3, (int)(middle_y - t->z * scale) - 3, 7, 7,
                    color_values[t->color]);
    }
    canvas_fill(c, (int)ax - 3, (int)ay - 3, 7, 7, RGB(240, 244, 248));
}
