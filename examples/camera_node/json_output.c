/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The lines of JSON. */
#include "json_output.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static void print_string(const char *text) {
    putchar('"');
    for (; *text; text++) {
        const unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\')
            printf("\\%c", c);
        else if (c < 32)
            printf("\\u%04x", c);
        else
            putchar(c);
    }
    putchar('"');
}

static void end_line(json_output *out) {
    puts("}");
    if (fflush(stdout)) out->failed = 1;
}

/* The stamp as seconds since 1970, digit by digit: a double has no room for nanoseconds. */
static void print_stamp(const char *name, int64_t stamp) {
    printf(", \"%s\": %" PRId64 ".%09" PRId64, name, stamp / 1000000000, stamp % 1000000000);
}

static void print_object(int first, const char *category, double x, double y, double width, double height) {
    printf("%s{\"category\": ", first ? "" : ", ");
    print_string(category);
    printf(", \"bbox\": [%.3f, %.3f, %.3f, %.3f]", x, y, width, height);
}

void json_start(json_output *out, const json_run *run) {
    printf("{\"kind\": \"start\", \"model\": ");
    print_string(run->model);
    printf(", \"prompt\": ");
    print_string(run->prompt);
    printf(", \"width\": %d, \"height\": %d, \"hz\": %g, \"deadline_ms\": %g", run->width, run->height, run->hz,
           run->deadline * 1e3);
    end_line(out);
}

static void keep_latency(json_output *out, double latency) {
    if (out->n_latencies == out->capacity) {
        const size_t capacity = 2 * out->capacity + 256;
        double *grown = realloc(out->latencies, capacity * sizeof *grown);
        if (!grown) {
            out->failed = 1;
            return;
        }
        out->latencies = grown;
        out->capacity = capacity;
    }
    out->latencies[out->n_latencies++] = latency;
}

void json_answer(json_output *out, const node_report *report, const scene_object *truth, int32_t n_truth) {
    keep_latency(out, report->latency);
    printf("{\"kind\": \"answer\", \"frame\": %" PRId64, report->number);
    print_stamp("stamp", report->stamp);
    print_stamp("published", report->stamp + (int64_t)(report->latency * 1e9));
    printf(", \"latency_ms\": %.3f, \"wait_ms\": %.3f, \"run_ms\": %.3f, \"text\": ", report->latency * 1e3,
           report->wait * 1e3, report->run * 1e3);
    print_string(report->text);
    printf(", \"objects\": [");
    for (int32_t i = 0; i < report->n_objects; i++) {
        const node_object *o = &report->objects[i];
        print_object(i == 0, o->label, o->x_min, o->y_min, o->x_max - o->x_min, o->y_max - o->y_min);
        if (isnan(o->score))
            printf(", \"score\": null}");
        else
            printf(", \"score\": %.6f}", o->score);
    }
    printf("], \"truth\": [");
    for (int32_t i = 0; i < n_truth; i++) {
        print_object(i == 0, truth[i].name, truth[i].x, truth[i].y, truth[i].width, truth[i].height);
        putchar('}');
    }
    putchar(']');
    end_line(out);
}

static const char *reason(pg_status status) {
    switch (status) {
        case PG_ERROR_REPLACED: return "replaced";
        case PG_ERROR_DEADLINE: return "late";
        case PG_ERROR_CANCELLED: return "cancelled";
        default: return "failed";
    }
}

void json_dropped(json_output *out, const node_report *report) {
    printf("{\"kind\": \"dropped\", \"frame\": %" PRId64, report->number);
    print_stamp("stamp", report->stamp);
    printf(", \"age_ms\": %.3f, \"reason\": \"%s\", \"message\": ", report->latency * 1e3, reason(report->status));
    print_string(report->text);
    end_line(out);
}

static int ascending(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The smallest latency that `part` of the answers do not exceed. */
static double percentile(const json_output *out, double part) {
    const size_t n = out->n_latencies, at = (size_t)(part * (double)n + 0.999999);
    return n ? out->latencies[at == 0 ? 0 : at - 1] * 1e3 : 0;
}

void json_summary(json_output *out, double seconds, const camera_counts *taken, const node_counts *counts) {
    if (out->n_latencies) qsort(out->latencies, out->n_latencies, sizeof *out->latencies, ascending);
    printf("{\"kind\": \"summary\", \"seconds\": %.3f, \"captured\": %" PRId64 ", \"missed\": %" PRId64, seconds,
           taken->taken, taken->missed);
    printf(", \"answered\": %" PRId64 ", \"replaced\": %" PRId64 ", \"late\": %" PRId64 ", \"cancelled\": %" PRId64
           ", \"failed\": %" PRId64 ", \"busy\": %" PRId64,
           counts->answered, counts->replaced, counts->late, counts->cancelled, counts->failed, counts->busy);
    printf(", \"latency_ms\": {\"p50\": %.3f, \"p90\": %.3f, \"p99\": %.3f, \"max\": %.3f}", percentile(out, 0.5),
           percentile(out, 0.9), percentile(out, 0.99), percentile(out, 1));
    end_line(out);
}

void json_close(json_output *out) {
    free(out->latencies);
    out->latencies = NULL;
}
