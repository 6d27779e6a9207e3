/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The node: frames go in on the camera's thread, answers about the newest of them come out on another. It knows neither
 * camera nor format of the output: main.c and ros2_node.cc bring both. */
#ifndef CAMERA_NODE_NODE_H
#define CAMERA_NODE_NODE_H
#include <paligemma/paligemma.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct node node;

/* An object that the model named, with its box in pixels of the frame. */
typedef struct node_object {
    const char *label;
    double score; /* 0 to 1, how sure the model was; NaN: not known */
    double x_min, y_min, x_max, y_max;
} node_object;

/* What became of a frame. */
typedef struct node_report {
    int64_t number, stamp;      /* as node_put_frame() got them */
    double latency;             /* seconds from taking the frame to this report */
    double wait, run;           /* of these, until the worker began, and what the answer took it */
    pg_status status;           /* PG_OK, or why there is no answer: PG_ERROR_REPLACED, _DEADLINE, _CANCELLED, ... */
    const char *text;           /* the answer, or the error's words */
    const node_object *objects; /* in the order of the answer; broken ones are left out */
    int32_t n_objects;
} node_report;

/* Where reports go. Both are called in node_spin() alone, and what they are given is valid until they return. */
typedef struct node_publisher {
    void *user;
    void (*answer)(void *user, const node_report *report);
    void (*dropped)(void *user, const node_report *report); /* a frame without an answer */
} node_publisher;

typedef struct node_options {
    const char *model;  /* a checkpoint's folder */
    const char *prompt; /* such as "detect red circle ; blue star"; copied */
    double deadline;    /* seconds from a frame's coming to its answer; 0: none */
    int32_t nice;       /* 0 to 19: how far the model steps back behind the rest of the robot */
    int leave_cpu;      /* 1: the model leaves a CPU free */
    node_publisher publisher;
} node_options;

/* Every frame is in exactly one of these. There are no reports of `busy` and of what failed in node_put_frame(). */
typedef struct node_counts {
    int64_t answered, replaced, late, cancelled, failed, busy, under_way;
} node_counts;

pg_status node_open(const node_options *options, node **out);
/* Any raw format; the pixels are copied. Never waits for the model: a frame that is still waiting is replaced by this
 * one. stamp: of the frame, handed back; taken: monotonic_ns() when it was taken. PG_ERROR_BUSY: reports wait that
 * node_spin() did not publish yet, and this frame is left out; the next may go in again. */
pg_status node_put_frame(node *n, const pg_image *image, int64_t number, int64_t stamp, int64_t taken);
/* Waits for an event, `seconds` at the most, and publishes what it says. PG_EVENT_NONE: there was none. One thread at a
 * time. */
pg_status node_spin(node *n, double seconds);
/* All frames that are under way end soon, as cancelled; node_spin() still reports them. */
void node_cancel(node *n);
node_counts node_get_counts(node *n);
void node_close(node **n);

#ifdef __cplusplus
}
#endif
#endif
