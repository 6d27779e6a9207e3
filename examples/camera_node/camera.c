/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The camera's thread. */
#include "camera.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#include "clock.h"

struct camera {
    scene *scene;
    uint8_t *rgb;
    nv12_frame pixels;
    double hz;
    camera_fn on_frame;
    void *user;
    int64_t begin, begin_stamp; /* the first frame, by both clocks */
    camera_counts counts;
    pthread_t thread;
    int started;
    atomic_int stop, ended;
};

/* In pieces, so that a slow camera (0.1 Hz) stops soon, too. */
static void sleep_until(camera *c, int64_t when) {
    const int64_t piece = 50000000;
    for (int64_t left = when - monotonic_ns(); left > 0 && !atomic_load(&c->stop); left = when - monotonic_ns()) {
        const struct timespec t = {0, (long)(left < piece ? left : piece)};
        nanosleep(&t, NULL);
    }
}

static void take(camera *c) {
    camera_frame frame = {.pixels = &c->pixels, .number = c->counts.taken++, .taken = monotonic_ns()};
    /* From one clock to the other only once: a wall clock that is set meanwhile makes no stamp go back. */
    frame.stamp = c->begin_stamp + (frame.taken - c->begin);
    frame.seconds = camera_seconds(c, frame.stamp);
    scene_draw(c->scene, frame.seconds, c->rgb);
    nv12_from_rgb(&c->pixels, c->rgb);
    c->on_frame(c->user, &frame);
}

static void *run(void *user) {
    camera *c = user;
    for (int64_t tick = 0; !atomic_load(&c->stop); tick++) {
        const double period = 1e9 / c->hz;
        const int64_t due = (int64_t)((double)(monotonic_ns() - c->begin) / period);
        if (due > tick) { /* frames whose time has passed do not come */
            c->counts.missed += due - tick;
            tick = due;
        }
        sleep_until(c, c->begin + (int64_t)((double)tick * period));
        if (!atomic_load(&c->stop)) take(c);
    }
    atomic_store(&c->ended, 1);
    return NULL;
}

camera *camera_start(int32_t width, int32_t height, double hz, camera_fn on_frame, void *user) {
    camera *c = calloc(1, sizeof *c);
    if (!c) return NULL;
    atomic_init(&c->stop, 0);
    atomic_init(&c->ended, 0);
    c->hz = hz;
    c->on_frame = on_frame;
    c->user = user;
    c->scene = scene_create(width, height);
    c->rgb = malloc(3 * (size_t)width * (size_t)height);
    c->begin = monotonic_ns();
    c->begin_stamp = wall_ns();
    c->started =
        c->scene && c->rgb && nv12_create(&c->pixels, width, height) && pthread_create(&c->thread, NULL, run, c) == 0;
    if (c->started) return c;
    camera_close(c);
    return NULL;
}

void camera_stop(camera *c) { atomic_store(&c->stop, 1); }

int camera_is_running(const camera *c) { return !atomic_load(&c->ended); }

camera_counts camera_get_counts(const camera *c) { return c->counts; }

const scene *camera_scene(const camera *c) { return c->scene; }

double camera_seconds(const camera *c, int64_t stamp) { return (double)(stamp - c->begin_stamp) * 1e-9; }

void camera_close(camera *c) {
    if (!c) return;
    camera_stop(c);
    if (c->started) pthread_join(c->thread, NULL);
    nv12_close(&c->pixels);
    free(c->rgb);
    scene_close(c->scene);
    free(c);
}
