/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The walk of --demo: from place to place, and at each of them every kind of question. */
#ifndef GAME_WALK_H
#define GAME_WALK_H

#include "quiz.h"

typedef struct walk {
    int step;      /* the question, counted from 0 over all places */
    float seconds; /* since it was asked first; below 0: the agent is still on its way */
    int is_answered;
} walk;

/* Moves the agent to where it is after `seconds` more. Returns 0 on the way, else the question's number, from 1. */
int walk_go(walk *w, agent *a, float seconds);

#endif
