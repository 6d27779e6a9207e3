/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Questions in the words that the demo model has learned, with answers that follow from where things are. */
#include "quiz.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* The demo model knows one to three things, whole, apart from each other, at least 20 of 112 pixels wide, whose order
 * from left to right is clear. */
static int is_clear(const sight *s, int n) {
    if (n < 1 || n > 3) return 0;
    for (int i = 0; i < n; i++) {
        const float *b = s[i].box;
        if (b[0] < 0 || b[1] < 0 || b[2] > 1 || b[3] > 1 || b[2] - b[0] < 20 / 112.f || s[i].depth > fog - 1) return 0;
        for (int k = 0; k < i; k++) {
            const float *a = s[k].box;
            const int apart = a[2] < b[0] || b[2] < a[0] || a[3] < b[1] || b[3] < a[1];
            if (!apart || fabsf(a[0] + a[2] - b[0] - b[2]) < 16 / 112.f) return 0;
        }
    }
    return 1;
}

static void add(char *text, size_t size, const char *more) {
    const size_t used = strlen(text);
    snprintf(text + used, size - used, "%s", more);
}

/* "a red circle, a blue star and a yellow triangle", from left to right */
static void say_all(const sight *s, int n, char *text, size_t size) {
    int order[MAX_THINGS];
    for (int i = 0; i < n; i++) {
        int at = i;
        for (; at > 0 && s[order[at - 1]].box[0] + s[order[at - 1]].box[2] > s[i].box[0] + s[i].box[2]; at--)
            order[at] = order[at - 1];
        order[at] = i;
    }
    text[0] = 0;
    for (int i = 0; i < n; i++) {
        const thing *t = s[order[i]].thing;
        if (i > 0) add(text, size, i < n - 1 ? ", " : " and ");
        add(text, size, t->color == ORANGE ? "an " : "a ");
        add(text, size, color_names[t->color]);
        add(text, size, " ");
        add(text, size, shape_names[t->shape]);
    }
}

static int count_shape(const sight *s, int n, shape kind) {
    int count = 0;
    for (int i = 0; i < n; i++) count += s[i].thing->shape == kind;
    return count;
}

void question_about(const world *w, question_kind kind, question *out) {
    sight s[MAX_THINGS];
    const int n = world_look(w, s);
    const sight *best =
        n > 0 ? &s[n - 1] : NULL; /* the nearest; of a shape that no other has, if its color is asked for */
    int is_unique = 0;
    for (int i = n - 1; kind == ASK_COLOR && !is_unique && i >= 0; i--) {
        is_unique = count_shape(s, n, s[i].thing->shape) == 1;
        if (is_unique) best = &s[i];
    }
    memset(out, 0, sizeof *out);
    out->kind = !best && (kind == ASK_BOX || kind == ASK_COLOR) ? ASK_CAPTION : kind; /* nothing to ask for */
    out->is_known = is_clear(s, n) && (out->kind != ASK_COLOR || is_unique);
    switch (out->kind) {
        case ASK_BOX:
            snprintf(out->expected, sizeof out->expected, "%s %s", color_names[best->thing->color],
                     shape_names[best->thing->shape]);
            snprintf(out->prompt, sizeof out->prompt, "detect %.60s", out->expected);
            memcpy(out->box, best->box, sizeof out->box);
            break;
        case ASK_COLOR:
            snprintf(out->prompt, sizeof out->prompt, "answer en what color is the %s?",
                     shape_names[best->thing->shape]);
            snprintf(out->expected, sizeof out->expected, "%s", color_names[best->thing->color]);
            break;
        case ASK_COUNT:
            snprintf(out->prompt, sizeof out->prompt, "answer en how many objects are there?");
            snprintf(out->expected, sizeof out->expected, "%d", n);
            break;
        default:
            snprintf(out->prompt, sizeof out->prompt, "caption en");
            say_all(s, n, out->expected, sizeof out->expected);
    }
}

float box_overlap(const float a[4], const float b[4]) {
    const float width = fminf(a[2], b[2]) - fmaxf(a[0], b[0]), height = fminf(a[3], b[3]) - fmaxf(a[1], b[1]);
    if (width <= 0 || height <= 0) return 0;
    const float both = width * height;
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both);
}
