/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* What happens in a frame. Nothing here waits. */
#include "game.h"

#include <SDL.h>
#include <stdio.h>
#include <string.h>

static const uint32_t dark = RGB(24, 28, 34), quiet = RGB(139, 148, 158), bright = RGB(230, 237, 243),
                      good = RGB(86, 211, 100), bad = RGB(248, 81, 73);

double now(void) { return (double)SDL_GetPerformanceCounter() / (double)SDL_GetPerformanceFrequency(); }

int game_create(game *g, mind *m, int is_scripted) {
    memset(g, 0, sizeof *g);
    world_create(&g->world);
    g->mind = m;
    g->is_scripted = is_scripted;
    g->painter = painter_create();
    return g->painter && canvas_create(&g->view, VIEW_SIDE, VIEW_SIDE) &&
           canvas_create(&g->screen, SCREEN_WIDTH, SCREEN_HEIGHT);
}

void game_free(game *g) {
    painter_free(g->painter);
    canvas_free(&g->view);
    canvas_free(&g->screen);
}

/* ---- what is asked, and what comes back ---- */

static void on_answer(void *user, const answer *a) {
    game *g = user;
    const int is_right = answer_is_right(a);
    if (a->status < 0) snprintf(g->failure, sizeof g->failure, "%s", a->text);
    if (a->question.is_known) {
        g->n_known++;
        g->n_right += is_right;
    }
    if (a->question.step != g->walk.step + 1 || g->walk.is_answered) return;
    g->walk.is_answered = 1;
    g->n_steps++;
    g->steps_right += is_right;
    memmove(g->log[1], g->log[0], sizeof g->log - sizeof g->log[0]);
    snprintf(g->log[0], sizeof g->log[0], "%.80s: %.90s (%s)", a->question.prompt, a->text,
             is_right ? "right" : "wrong");
    puts(g->log[0]);
}

static void type(game *g, const controls *c) {
    if (c->other_question) {
        g->typed[0] = 0;
        g->kind = (question_kind)((g->kind + 1) % N_KINDS);
    }
    const size_t old = strlen(g->typed);
    if (old + strlen(c->typed) < sizeof g->typed) snprintf(g->typed + old, sizeof g->typed - old, "%s", c->typed);
    for (int i = 0; i < c->erase && g->typed[0]; i++) {
        size_t used = strlen(g->typed);
        while (used > 1 && (g->typed[used - 1] & 0xC0) == 0x80) used--; /* a whole character of UTF-8 */
        g->typed[used - 1] = 0;
    }
    if (!c->ask) return;
    g->kind = g->typed[0] ? ASK_TYPED : ASK_CAPTION;
    memcpy(g->asked, g->typed, sizeof g->asked);
    g->typed[0] = 0;
}

static void choose_question(game *g, int step) {
    question_about(&g->world, g->is_scripted ? (question_kind)(g->walk.step % N_KINDS) : g->kind, &g->question);
    g->question.step = step;
    if (g->is_scripted || g->kind != ASK_TYPED) return;
    g->question = (question){.kind = ASK_TYPED};
    snprintf(g->question.prompt, sizeof g->question.prompt, "%s", g->asked);
}

static pg_status think(game *g, float seconds, double spent[N_PARTS]) {
    const double begin = now();
    pg_status status = mind_listen(g->mind, on_answer, g);
    const double middle = now();
    g->since_asked += seconds;
    if (status >= 0 && g->since_asked >= g->every) {
        status = mind_ask(g->mind, &g->view, &g->question);
        g->since_asked = 0;
    }
    spent[FRAME_LISTEN] = middle - begin;
    spent[FRAME_ASK] = now() - middle;
    return status;
}

/* ---- what is drawn ---- */

/* The text without its location tokens, which are drawn as boxes. */
static void without_tokens(const char *text, char *out, size_t size) {
    size_t n = 0;
    for (; *text && n + 1 < size; text++) {
        const char *end = *text == '<' ? strchr(text, '>') : NULL;
        if (end)
            text = end;
        else if (*text != ' ' || (n > 0 && out[n - 1] != ' '))
            out[n++] = *text;
    }
    out[n] = 0;
}

static void draw_boxes(canvas *c, int x, int y, const answer *a) {
    const float side = VIEW_SIDE * VIEW_SCALE;
    for (int i = 0; i < a->n_boxes; i++) {
        const float *b = a->boxes[i].box;
        const int x0 = (int)(b[0] * side), y0 = (int)(b[1] * side);
        canvas_frame(c, x + x0, y + y0, (int)(b[2] * side) - x0, (int)(b[3] * side) - y0, 2, bright);
        canvas_fill(c, x + x0, y + y0 - 16, (int)strlen(a->boxes[i].label) * 2 * LETTER_WIDTH + 4, 16, bright);
        draw_text(c, x + x0 + 3, y + y0 - 15, 2, dark, a->boxes[i].label);
    }
}

static void draw_answer(const game *g, canvas *c, int x, int y) {
    const answer *a = &g->mind->shown;
    char text[sizeof a->text];
    y += LETTER_HEIGHT * 2 * draw_paragraph(c, x, y, 2, 25, bright, a->question.prompt) + 6;
    without_tokens(a->text, text, sizeof text);
    const uint32_t color = a->status < 0                          ? bad
                           : !a->is_done || !a->question.is_known ? quiet
                           : answer_is_right(a)                   ? good
                                                                  : bad;
    y += LETTER_HEIGHT * 2 * draw_paragraph(c, x, y, 2, 25, color, text) + 6;
    if (a->is_done && a->status >= 0) {
        snprintf(text, sizeof text, "%.3f s, %d tokens", a->run_seconds, (int)a->n_tokens);
        draw_text(c, x, y, 1, quiet, text);
    }
}

/* The last frames as bars; the line is where 60 of them make a second. */
static void draw_times(canvas *c, int x, int y, int width, int height, const frame_times *t) {
    const int first = t->n > width / 2 ? t->n - width / 2 : 0;
    char text[64];
    for (int i = first; i < t->n; i++) {
        const int bar = (int)(t->us[i][FRAME_WHOLE] / 1000 * (float)height / 20),
                  work = (int)(t->us[i][FRAME_WORK] / 1000 * (float)height / 20);
        const int shown = bar < height ? bar : height;
        canvas_fill(c, x + 2 * (i - first), y + height - shown, 1, shown,
                    t->us[i][FRAME_WHOLE] > 1000 * FRAME_LATE ? bad : RGB(60, 68, 78));
        canvas_fill(c, x + 2 * (i - first), y + height - work, 1, work < height ? work : height, RGB(56, 139, 253));
    }
    canvas_fill(c, x, y + height - height * 1667 / 2000, width, 1, quiet);
    snprintf(text, sizeof text, "frames %d, over %d ms %d", t->n, FRAME_LATE, t->n_late);
    draw_text(c, x, y - 12, 1, quiet, text);
}

static void draw_screen(const game *g, const frame_times *times) {
    canvas *c = (canvas *)&g->screen;
    const int left = 16, right = 32 + VIEW_SIDE * VIEW_SCALE, width = SCREEN_WIDTH - right - 16;
    canvas_fill(c, 0, 0, c->width, c->height, dark);
    canvas_paste(c, left, 16, VIEW_SCALE, &g->view);
    if (g->mind) {
        draw_boxes(c, left, 16, &g->mind->shown);
        draw_answer(g, c, right, 16);
    }
    if (g->typed[0]) draw_text(c, left + 8, 440, 2, bright, g->typed);
    map_draw(&g->world, c, right, 216, 180);
    for (int i = 0, line = 14; i < N_LOG && g->log[i][0] && line < 22; i++) {
        char text[sizeof g->log[i]];
        without_tokens(g->log[i], text, sizeof text);
        line += draw_paragraph(c, right, line * LETTER_HEIGHT - 10, 1, 50, quiet, text);
    }
    draw_times(c, right, 424, width, 40, times);
}

pg_status game_frame(game *g, const controls *c, float seconds, const frame_times *times, double spent[N_PARTS]) {
    pg_status status = PG_OK;
    int step = 0;
    if (g->is_scripted) {
        step = walk_go(&g->walk, &g->world.agent, seconds);
        if (!g->mind) g->walk.is_answered = 1;
    } else {
        agent_move(&g->world.agent, c->turn * 1.5f * seconds, c->walk * 3 * seconds);
        type(g, c);
    }
    view_draw(g->painter, &g->world, &g->view);
    choose_question(g, step);
    if (g->mind) status = think(g, seconds, spent);
    draw_screen(g, times);
    return status;
}
