/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The world as the agent sees it, and as a map. */
#ifndef GAME_VIEW_H
#define GAME_VIEW_H

#include "canvas.h"
#include "world.h"

typedef struct painter painter; /* the shapes, cut out once */
painter *painter_create(void);  /* NULL: no memory */
void painter_free(painter *p);

void view_draw(const painter *p, const world *w, canvas *view); /* fills a square canvas */
void map_draw(const world *w, canvas *c, int x, int y, int side);

#endif
