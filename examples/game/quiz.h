/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* What the agent is asked, and what the world knows to be right. */
#ifndef GAME_QUIZ_H
#define GAME_QUIZ_H

#include "world.h"

typedef enum question_kind { ASK_CAPTION, ASK_BOX, ASK_COLOR, ASK_COUNT, N_KINDS, ASK_TYPED } question_kind;

typedef struct question {
    question_kind kind;
    char prompt[128];
    char expected[128]; /* the right answer; of ASK_BOX the label of the only box */
    float box[4];       /* of ASK_BOX: where it is right, in parts of the view */
    int is_known;       /* 0: there is no right answer, as where something is in view by half */
    int step;           /* of the scripted walk: which of its questions this is; 0: none */
} question;

/* A question about what the agent sees now. */
void question_about(const world *w, question_kind kind, question *out);

/* How much two boxes are one: 0 to 1. */
float box_overlap(const float a[4], const float b[4]);

#endif
