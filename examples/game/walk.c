/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* A question stays until it is answered, and long enough to be read. */
#include "walk.h"

static const float way_seconds = 1.5f, question_seconds = .4f;

/* Part of the way between two places, 0 to 1: straight on, while the head turns. */
static agent between(int place, float part) {
    const agent from = place_agent(place), to = place_agent(place + 1);
    const float soft = part * part * (3 - 2 * part);
    return (agent){.x = from.x + soft * (to.x - from.x),
                   .z = from.z + soft * (to.z - from.z),
                   .heading = from.heading + soft * (to.heading - from.heading)};
}

int walk_go(walk *w, agent *a, float seconds) {
    w->seconds += seconds;
    if (w->is_answered && w->seconds >= question_seconds) {
        w->step++;
        w->seconds = w->step % N_KINDS == 0 ? -way_seconds : 0;
        w->is_answered = 0;
    }
    const int place = w->step / N_KINDS;
    *a = w->seconds < 0 ? between(place - 1, 1 + w->seconds / way_seconds) : place_agent(place);
    return w->seconds < 0 ? 0 : w->step + 1;
}
