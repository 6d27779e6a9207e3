/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Frame times are kept as they are, and counted when the game has ended: nothing is sorted in a frame. */
#include "frame_times.h"

#include <stdlib.h>

int frame_times_create(frame_times *t, int size) {
    *t = (frame_times){.us = calloc((size_t)size, sizeof *t->us), .size = size};
    return t->us != NULL;
}

void frame_times_free(frame_times *t) {
    free(t->us);
    t->us = NULL;
}

void frame_times_add(frame_times *t, const double seconds[N_PARTS]) {
    if (t->n == t->size) return;
    for (int part = 0; part < N_PARTS; part++) t->us[t->n][part] = (float)(seconds[part] * 1e6);
    t->n_late += seconds[FRAME_WHOLE] * 1000 > FRAME_LATE;
    t->n++;
}

static int compare(const void *a, const void *b) {
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

float frame_times_part(const frame_times *t, frame_part part, float at) {
    float *sorted = malloc(((size_t)t->n + 1) * sizeof *sorted), ms = 0;
    if (sorted && t->n > 0) {
        for (int i = 0; i < t->n; i++) sorted[i] = t->us[i][part];
        qsort(sorted, (size_t)t->n, sizeof *sorted, compare);
        ms = sorted[(int)(at * (float)(t->n - 1) + .5f)] / 1000;
    }
    free(sorted);
    return ms;
}

int frame_times_write(const frame_times *t, const char *path) {
    FILE *file = fopen(path, "w");
    if (!file) return 0;
    int written = fprintf(file, "frame_us\twork_us\task_us\tlisten_us\n") > 0;
    for (int i = 0; i < t->n && written; i++)
        written = fprintf(file, "%.1f\t%.1f\t%.1f\t%.1f\n", (double)t->us[i][FRAME_WHOLE], (double)t->us[i][FRAME_WORK],
                          (double)t->us[i][FRAME_ASK], (double)t->us[i][FRAME_LISTEN]) > 0;
    return fclose(file) == 0 && written;
}
