/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The losses of a training, in memory and in ADAPTER/log.jsonl. */
#include "train_log.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int tool_train_log_open(tool_train_log *log, const char *folder, json_t *settings) {
    *log = (tool_train_log){.settings = settings, .best = INFINITY, .best_step = -1, .is_new = 1};
    if (!settings || asprintf(&log->name, "%s/log.jsonl", folder) < 0) {
        log->name = NULL;
        return tool_fail_text("no memory for the log");
    }
    return TOOL_OK;
}

void tool_train_log_close(tool_train_log *log) {
    json_decref(log->settings);
    free(log->name);
    free(log->points);
    free(log->unwritten);
    *log = (tool_train_log){0};
}

static int add_point(tool_train_log *log, tool_train_point point) {
    if (log->n == log->capacity) {
        const size_t capacity = log->capacity ? 2 * log->capacity : 256;
        tool_train_point *points = realloc(log->points, capacity * sizeof *points);
        if (!points) return 0;
        log->points = points;
        log->capacity = capacity;
    }
    log->points[log->n++] = point;
    if (!point.is_validation) return 1;
    log->n_since_best++;
    if (log->best_step >= 0 && point.loss >= log->best) return 1;
    log->best = point.loss;
    log->best_step = point.step;
    log->n_since_best = 0;
    return 1;
}

static int add_line(tool_train_log *log, json_t *line) {
    char *text = line ? json_dumps(line, JSON_COMPACT | JSON_REAL_PRECISION(17)) : NULL;
    const size_t size = text ? strlen(text) : 0;
    char *all = text ? realloc(log->unwritten, log->n_unwritten + size + 1) : NULL;
    json_decref(line);
    if (all) {
        memcpy(all + log->n_unwritten, text, size);
        all[log->n_unwritten + size] = '\n';
        log->unwritten = all;
        log->n_unwritten += size + 1;
    }
    free(text);
    return all != NULL;
}

int tool_train_log_add(tool_train_log *log, tool_train_point point, json_t *line) {
    const int added = add_point(log, point);
    return add_line(log, line) && added;
}

int tool_train_log_write(tool_train_log *log) {
    if (log->is_new) {
        char *lines = log->unwritten;
        const size_t n = log->n_unwritten;
        log->unwritten = NULL;
        log->n_unwritten = 0;
        if (!add_line(log, json_pack("{s:O}", "settings", log->settings)))
            return tool_fail_text("no memory for the log");
        char *all = realloc(log->unwritten, log->n_unwritten + n);
        if (!all) return tool_fail_text("no memory for the log");
        if (n > 0) memcpy(all + log->n_unwritten, lines, n);
        log->unwritten = all;
        log->n_unwritten += n;
        free(lines);
    }
    FILE *file = fopen(log->name, log->is_new ? "wbe" : "abe");
    if (!file) return tool_fail_system(log->name, errno);
    int error = fwrite(log->unwritten, 1, log->n_unwritten, file) == log->n_unwritten ? 0 : errno;
    if (fclose(file) != 0 && !error) error = errno;
    if (error) return tool_fail_system(log->name, error);
    log->is_new = 0;
    log->n_unwritten = 0;
    return TOOL_OK;
}

/* ---- going on ---- */

/* What was given now must be what the file has. */
static int same_settings(const tool_train_log *log, const json_t *settings) {
    const char *key;
    json_t *value;
    json_object_foreach(log->settings, key, value) {
        const json_t *found = json_object_get(settings, key);
        if (json_equal(found, value)) continue;
        char *was = found ? json_dumps(found, JSON_ENCODE_ANY) : NULL, *is = json_dumps(value, JSON_ENCODE_ANY);
        tool_fail_text(
            "%s: found %s of %s, expected %s as before: with another one the rows would not go on in their "
            "order",
            log->name, key, is ? is : "nothing", was ? was : "nothing");
        free(was);
        free(is);
        return 0;
    }
    return 1;
}

/* Whether the line belongs to what is gone on from; *failed: told. */
static int take_line(tool_train_log *log, const json_t *line, int64_t step, int *failed) {
    const json_t *number = json_object_get(line, "step"), *loss = json_object_get(line, "loss");
    const json_t *validation = json_object_get(line, "validation_loss"), *settings = json_object_get(line, "settings");
    if (json_is_object(settings)) {
        *failed = !same_settings(log, settings);
        return !*failed;
    }
    if (!json_is_integer(number) || json_integer_value(number) > step) return 0;
    tool_train_point point = {.step = json_integer_value(number), .is_validation = json_is_number(validation)};
    if (!point.is_validation && !json_is_number(loss)) return 1;
    point.loss = json_number_value(point.is_validation ? validation : loss);
    if (!add_point(log, point)) *failed = tool_fail_text("no memory for the log");
    return !*failed;
}

int tool_train_log_resume(tool_train_log *log, int64_t step) {
    char *line = NULL;
    size_t capacity = 0;
    ssize_t size;
    off_t end = 0;
    int failed = 0;
    FILE *file = fopen(log->name, "rbe");
    if (!file && errno == ENOENT) return TOOL_OK;
    if (!file) return tool_fail_system(log->name, errno);
    while (!failed && (size = getline(&line, &capacity, file)) > 0 && line[size - 1] == '\n') {
        json_t *object = json_loadb(line, (size_t)size, 0, NULL);
        const int taken = object && take_line(log, object, step, &failed);
        json_decref(object);
        if (!taken) break;
        end += size;
    }
    if (!failed && ferror(file)) failed = tool_fail_system(log->name, errno);
    free(line);
    fclose(file);
    if (!failed && end > 0 && truncate(log->name, end) != 0) failed = tool_fail_system(log->name, errno);
    log->is_new = end == 0;
    return failed ? TOOL_FAILED : TOOL_OK;
}
