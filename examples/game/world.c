/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Where things are, and what of them the agent sees. */
#include "world.h"

#include <math.h>
#include <stdlib.h>

#include "canvas.h"

const char *const shape_names[N_SHAPES] = {"circle", "square", "triangle", "star", "cross"};
const char *const color_names[N_COLORS] = {"red", "green", "blue", "yellow", "purple", "orange"};
const uint32_t color_values[N_COLORS] = {RGB(220, 35, 35),  RGB(30, 160, 60),  RGB(35, 75, 220),
                                         RGB(250, 215, 30), RGB(150, 40, 185), RGB(250, 130, 20)};

const float eye_zoom = .9f, eye_height = 1.2f, fog = 7, world_radius = 14;
static const float nearest = .6f; /* what is nearer than this is behind the eye */

int world_look(const world *w, sight out[MAX_THINGS]) {
    const float ahead_x = sinf(w->agent.heading), ahead_z = cosf(w->agent.heading);
    int n = 0;
    for (int i = 0; i < w->n_things; i++) {
        const thing *t = &w->things[i];
        const float x = t->x - w->agent.x, z = t->z - w->agent.z;
        const float depth = x * ahead_x + z * ahead_z, right = x * ahead_z - z * ahead_x;
        if (depth < nearest || depth > fog) continue;
        const float half = eye_zoom * t->size / depth / 2;
        const float u = .5f + eye_zoom * right / depth, v = .5f - eye_zoom * (t->height - eye_height) / depth;
        if (u + half <= 0 || u - half >= 1 || v + half <= 0 || v - half >= 1) continue;
        int at = n++;
        for (; at > 0 && out[at - 1].depth < depth; at--) out[at] = out[at - 1];
        out[at] = (sight){.thing = t, .box = {u - half, v - half, u + half, v + half}, .depth = depth};
    }
    return n;
}

void agent_move(agent *a, float turn, float step) {
    a->heading += turn;
    const float x = a->x + step * sinf(a->heading), z = a->z + step * cosf(a->heading);
    if (hypotf(x, z) > world_radius) return;
    a->x = x;
    a->z = z;
}

/* Places lie on a ring and look outwards. A thing is given by where it is seen: the middle as parts of the view, and
 * the distance, from 2 to 5 m, which makes a thing of 1 m as large as the demo model has learned them. */
typedef struct seen_thing {
    shape shape;
    hue color;
    float u, v, depth;
} seen_thing;
static const seen_thing places[][3] = {
    {{CIRCLE, RED, .24f, .66f, 3.2f}, {STAR, BLUE, .5f, .35f, 3.2f}, {TRIANGLE, YELLOW, .78f, .66f, 2.7f}},
    {{SQUARE, GREEN, .3f, .6f, 2.6f}, {CROSS, ORANGE, .75f, .38f, 3.4f}},
    {{STAR, YELLOW, .18f, .4f, 3.8f}, {CIRCLE, PURPLE, .5f, .66f, 3.4f}, {SQUARE, RED, .8f, .35f, 3.f}},
    {{TRIANGLE, BLUE, .55f, .6f, 2.4f}},
    {{CROSS, GREEN, .22f, .64f, 3.2f}, {CIRCLE, ORANGE, .52f, .33f, 3.6f}, {CROSS, BLUE, .8f, .62f, 3.3f}},
};
static const float ring = 7; /* metres */

int n_places(void) { return sizeof places / sizeof *places; }

agent place_agent(int place) {
    const float heading = (float)place * 6.2831853f / (float)n_places();
    return (agent){.x = ring * sinf(heading), .z = ring * cosf(heading), .heading = heading};
}

void world_create(world *w) {
    w->n_things = 0;
    for (int place = 0; place < n_places(); place++)
        for (int i = 0; i < 3 && places[place][i].depth > 0; i++) {
            const seen_thing *s = &places[place][i];
            const agent a = place_agent(place);
            const float right = (s->u - .5f) * s->depth / eye_zoom, ahead_x = sinf(a.heading),
                        ahead_z = cosf(a.heading);
            w->things[w->n_things++] = (thing){.shape = s->shape,
                                               .color = s->color,
                                               .x = a.x + s->depth * ahead_x + right * ahead_z,
                                               .z = a.z + s->depth * ahead_z - right * ahead_x,
                                               .height = eye_height - (s->v - .5f) * s->depth / eye_zoom,
                                               .size = 1};
        }
    w->agent = place_agent(0);
}
