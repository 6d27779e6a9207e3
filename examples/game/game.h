/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* One game: the world, the agent's mind, and the picture of both. */
#ifndef GAME_GAME_H
#define GAME_GAME_H

#include "canvas.h"
#include "frame_times.h"
#include "mind.h"
#include "view.h"
#include "walk.h"
#include "world.h"

enum { SCREEN_WIDTH = 800, SCREEN_HEIGHT = 480, VIEW_SIDE = 224, VIEW_SCALE = 2, N_LOG = 5 };

typedef struct controls { /* of one frame */
    float turn, walk;     /* -1 to 1 */
    int other_question, ask;
    int erase;      /* characters */
    char typed[32]; /* UTF-8 */
} controls;

typedef struct game {
    world world;
    painter *painter;
    canvas view, screen;
    mind *mind;      /* NULL: nobody answers */
    float every;     /* seconds between two askings; 0: each frame */
    int is_scripted; /* the walk of --demo */
    walk walk;
    question_kind kind;
    char typed[64], asked[64]; /* what is being typed, and what was when Return was pressed */
    question question;         /* the one of this frame */
    float since_asked;         /* seconds */
    int n_known, n_right;      /* answers of which the world knows what is right, and those that are */
    int n_steps, steps_right;  /* the first answers to the walk's questions, and the right ones of them */
    char log[N_LOG][192];      /* the last of these, the newest first */
    char failure[256];         /* of the last answer that ended with an error; "": none did */
} game;

int game_create(game *g, mind *m, int is_scripted); /* 0: no memory */
void game_free(game *g);

/* A frame: the agent moves, its view is drawn and asked about, what came of answers is taken in, and all is drawn on
 * the screen. seconds: since the frame before. spent: FRAME_ASK and FRAME_LISTEN are set. */
pg_status game_frame(game *g, const controls *c, float seconds, const frame_times *times, double spent[N_PARTS]);

double now(void); /* seconds, of a clock that never goes back */

#endif
