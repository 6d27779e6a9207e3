/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The agent's mind: views and questions go to a pg_worker, answers come back while they are made. All of it runs on
 * the game's thread and waits for nothing. This is the file to copy. */
#ifndef GAME_MIND_H
#define GAME_MIND_H

#include <paligemma/paligemma.h>

#include "canvas.h"
#include "quiz.h"

typedef struct found { /* a box of an answer, in parts of the view */
    char label[32];
    float box[4];
} found;

enum { MAX_FOUND = 8, MAX_ASKED = 8 };
typedef struct answer {
    question question;
    char text[256]; /* what has come so far */
    found boxes[MAX_FOUND];
    int n_boxes;
    int is_done;
    pg_status status;                 /* when it is done */
    double wait_seconds, run_seconds; /* likewise */
    int64_t n_tokens;                 /* likewise */
} answer;
int answer_is_right(const answer *a); /* against what the question knows */

typedef struct mind_options {
    int n_threads;      /* 0: as the worker decides */
    int nice;           /* of the worker's threads */
    int leave_cpu_free; /* one CPU is the game's alone */
} mind_options;

typedef struct mind {
    pg_model *model;
    pg_processor *processor;
    pg_worker *worker;
    struct {
        int is_used;
        float side; /* pixels of the view */
        answer answer;
    } asked[MAX_ASKED]; /* what the worker has not ended yet */
    answer shown;       /* the newest one with something to show */
    int n_asked, n_answered, n_replaced;
} mind;

pg_status mind_open(mind *m, const char *folder, const mind_options *options);
void mind_close(mind *m);

/* Asks about a view, which is copied. What was asked before and has not begun yet is forgotten: only the newest view
 * counts. So it may be called in every frame. */
pg_status mind_ask(mind *m, const canvas *view, const question *q);

/* Takes what has come since the last call. on_answer is told of answers that are whole or failed, not of those whose
 * place a newer one took. */
pg_status mind_listen(mind *m, void (*on_answer)(void *user, const answer *a), void *user);

#endif
