/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* A robot's camera node, without robot and camera: what it finds in the newest frame goes to stdout. README.md tells
 * more. Two threads of this program, beside the worker's: the camera's puts frames in, the main thread prints. */
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "clock.h"
#include "json_output.h"
#include "options.h"

typedef struct program {
    program_options options;
    node *node;
    camera *camera;
    json_output out;
    atomic_int refused; /* the library took a frame not */
    char message[512];  /* and why; set before `refused` */
} program;

static volatile sig_atomic_t interrupted;

/* The second time the program ends at once. */
static void on_signal(int signal_number) {
    interrupted = 1;
    signal(signal_number, SIG_DFL);
}

/* On the camera's thread. The node copies the frame: the camera has a single buffer. */
static void on_frame(void *user, const camera_frame *frame) {
    program *p = user;
    const nv12_frame *pixels = frame->pixels;
    const void *const planes[] = {pixels->luma, pixels->chroma};
    const int64_t strides[] = {pixels->stride, pixels->stride};
    pg_image image;
    pg_status status =
        pg_image_from_planes(&image, sizeof image, PG_IMAGE_NV12, pixels->width, pixels->height, planes, strides);
    if (status >= 0) status = node_put_frame(p->node, &image, frame->number, frame->stamp, frame->taken);
    if (status >= 0 || status == PG_ERROR_BUSY || atomic_load(&p->refused)) return;
    snprintf(p->message, sizeof p->message, "%s", pg_last_error());
    atomic_store(&p->refused, 1);
}

static void on_answer(void *user, const node_report *report) {
    program *p = user;
    scene_object truth[SCENE_N_OBJECTS];
    scene_get_objects(camera_scene(p->camera), camera_seconds(p->camera, report->stamp), truth);
    json_answer(&p->out, report, truth, SCENE_N_OBJECTS);
}

static void on_dropped(void *user, const node_report *report) { json_dropped(&((program *)user)->out, report); }

/* Publishes until it is time to end, then what is still under way: at a signal that is cancelled, else it is waited
 * for. */
static pg_status spin(program *p, double *seconds) {
    const int64_t begin = monotonic_ns();
    pg_status status = PG_OK;
    *seconds = 0;
    while (status >= 0 && !interrupted && !p->out.failed && !atomic_load(&p->refused) &&
           (p->options.seconds == 0 || *seconds < p->options.seconds)) {
        status = node_spin(p->node, 0.02);
        *seconds = (double)(monotonic_ns() - begin) * 1e-9;
    }
    camera_stop(p->camera);
    while (status >= 0 && (camera_is_running(p->camera) || node_get_counts(p->node).under_way > 0)) {
        if (interrupted) node_cancel(p->node);
        status = node_spin(p->node, 0.02);
    }
    return status;
}

static int fail(const char *message) {
    fprintf(stderr, "camera_node: %s\n", message);
    return 1;
}

static int run(program *p) {
    const program_options *o = &p->options;
    const json_run about = {o->model, o->prompt, o->width, o->height, o->hz, o->deadline};
    const node_options options = {.model = o->model,
                                  .prompt = o->prompt,
                                  .deadline = o->deadline,
                                  .nice = o->nice,
                                  .leave_cpu = o->leave_cpu,
                                  .publisher = {p, on_answer, on_dropped}};
    double seconds = 0;
    if (node_open(&options, &p->node) < 0) return fail(pg_last_error());
    json_start(&p->out, &about);
    p->camera = camera_start(o->width, o->height, o->hz, on_frame, p);
    if (!p->camera) return fail("no memory or no thread for the camera");
    if (spin(p, &seconds) < 0) return fail(pg_last_error());
    const camera_counts taken = camera_get_counts(p->camera);
    const node_counts counts = node_get_counts(p->node);
    json_summary(&p->out, seconds, &taken, &counts);
    if (atomic_load(&p->refused)) return fail(p->message);
    return p->out.failed ? fail("stdout cannot be written, or no memory") : 0;
}

int main(int argc, char **argv) {
    program p;
    memset(&p, 0, sizeof p);
    int status = options_read(argc, argv, &p.options);
    if (status >= 0) return status;
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    status = run(&p);
    camera_close(p.camera); /* first: its thread uses the node */
    node_close(&p.node);
    json_close(&p.out);
    return status;
}
