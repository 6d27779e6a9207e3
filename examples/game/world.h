/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The world: coloured shapes that stand on a plane or float above it, and an agent that walks among them. */
#ifndef GAME_WORLD_H
#define GAME_WORLD_H

#include <stdint.h>

typedef enum shape { CIRCLE, SQUARE, TRIANGLE, STAR, CROSS, N_SHAPES } shape;
typedef enum hue { RED, GREEN, BLUE, YELLOW, PURPLE, ORANGE, N_COLORS } hue;
extern const char *const shape_names[N_SHAPES];
extern const char *const color_names[N_COLORS];
extern const uint32_t color_values[N_COLORS]; /* as canvas.h has them */

enum { MAX_THINGS = 16 };
typedef struct thing { /* always turned to whoever looks */
    shape shape;
    hue color;
    float x, z, height; /* its middle; z: north, height: above the ground, metres */
    float size;         /* width and height, metres */
} thing;

typedef struct agent {
    float x, z;
    float heading; /* 0: north, growing to the east */
} agent;

typedef struct world {
    thing things[MAX_THINGS];
    int n_things;
    agent agent;
} world;

/* What the agent's eye makes of things: all lengths are parts of the view's side. */
extern const float eye_zoom;   /* a thing of 1 m in 1 m of distance */
extern const float eye_height; /* metres; the horizon is in the middle of the view */
extern const float fog;        /* metres: nothing is seen from here on */

typedef struct sight {
    const thing *thing;
    float box[4]; /* x0, y0, x1, y1; 0 to 1 is inside the view */
    float depth;  /* metres */
} sight;

/* The things whose box touches the view, the farthest first; returns how many. */
int world_look(const world *w, sight out[MAX_THINGS]);

/* Turns by `turn` radians, walks `step` metres. The plane has an edge where the agent stops. */
void agent_move(agent *a, float turn, float step);
extern const float world_radius;

/* Places with a view that is known: the scripted walk goes from one to the next. */
int n_places(void);
agent place_agent(int place);
void world_create(world *w); /* things at every place, the agent at the first */

#endif
