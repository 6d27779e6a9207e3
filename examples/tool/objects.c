/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The objects of an answer as text: a line of a table, of CSV, a member of JSON; and what verbs ask them by. */
#include "objects.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static double rounded(double value, double steps) { return round(value * steps) / steps; }

static const char *const flag_names[] = {"partial",     "out_of_range", "out_of_order", "empty",
                                         "stray_seg",   "no_label",     "label_before", "label_shared",
                                         "seg_partial", "seg_more",     "unfinished",   "duplicate"};
enum { N_FLAG_NAMES = sizeof flag_names / sizeof *flag_names };

static json_t *numbers_json(const int32_t *numbers, int32_t n) {
    json_t *list = json_array();
    for (int32_t i = 0; i < n; i++) json_array_append_new(list, json_integer(numbers[i]));
    return list;
}

json_t *tool_object_to_json(const pg_object *o) {
    json_t *json = json_pack("{s:o}", "category", json_stringn(o->label, (size_t)o->label_size));
    if (!(o->flags & PG_OBJECT_BROKEN))
        json_object_set_new(json, "bbox",
                            json_pack("[f, f, f, f]", rounded((double)o->box[0], 1e3), rounded((double)o->box[1], 1e3),
                                      rounded((double)o->box[2] - (double)o->box[0], 1e3),
                                      rounded((double)o->box[3] - (double)o->box[1], 1e3)));
    json_object_set_new(json, "score", o->score == o->score ? json_real(rounded((double)o->score, 1e6)) : json_null());
    json_object_set_new(json, "locs", numbers_json(o->locs, o->n_locs));
    if (o->n_segs) json_object_set_new(json, "segs", numbers_json(o->segs, o->n_segs));
    json_object_set_new(json, "flags", tool_names_json(o->flags, flag_names, N_FLAG_NAMES));
    return json;
}

json_t *tool_answer_to_json(const pg_answer *answer, const pg_answer_options *options,
                            json_t *(*to_json)(const void *user, int64_t i, const pg_object *object),
                            const void *user) {
    json_t *objects = json_array(), *broken = json_array();
    for (int64_t i = 0; i < pg_answer_get_n_objects(answer); i++) {
        pg_object o = {.struct_size = sizeof o};
        pg_answer_get_object(answer, i, &o);
        if (o.flags & PG_OBJECT_DUPLICATE) continue;
        json_array_append_new(o.flags & PG_OBJECT_BROKEN ? broken : objects,
                              to_json ? to_json(user, i, &o) : tool_object_to_json(&o));
    }
    return json_pack("{s:i, s:i, s:o, s:o}", "width", options->width, "height", options->height, "objects", objects,
                     "broken", broken);
}

pg_status tool_image_size(const pg_inputs *inputs, int32_t *width, int32_t *height) {
    pg_tensor sizes = {.struct_size = sizeof sizes};
    const pg_status status = pg_inputs_get_tensor(inputs, "image_sizes", &sizes);
    if (status < 0) return status;
    *height = (int32_t)((const int64_t *)sizes.data)[0];
    *width = (int32_t)((const int64_t *)sizes.data)[1];
    return status;
}

void tool_print_csv_field(const char *text, size_t size) {
    char *field = malloc(2 * size + 2), *to = field;
    int quote = 0;
    for (size_t i = 0; i < size; i++) quote |= strchr(",\"\r\n", text[i]) != NULL;
    if (field && quote) *to++ = '"';
    for (size_t i = 0; field && i < size; i++) {
        if (text[i] == '"') *to++ = '"';
        *to++ = text[i];
    }
    if (field && quote) *to++ = '"';
    if (field) tool_write_text(field, (size_t)(to - field));
    free(field);
}

void tool_print_object_csv(const char *image, const pg_object *o, int masks, int64_t area) {
    tool_print_csv_field(image, strlen(image));
    putchar(',');
    tool_print_csv_field(o->label, (size_t)o->label_size);
    printf(",%.6f,%.3f,%.3f,%.3f,%.3f", (double)o->score, (double)o->box[0], (double)o->box[1], (double)o->box[2],
           (double)o->box[3]);
    if (masks && area >= 0)
        printf(",%lld", (long long)area);
    else if (masks)
        putchar(',');
    putchar('\n');
}

void tool_print_object(const pg_object *o, int masks, int64_t area) {
    printf("%6.3f", (double)o->score);
    if (o->flags & PG_OBJECT_BROKEN)
        printf("  %32s  ", "no box");
    else
        printf("  %8.1f%8.1f%8.1f%8.1f  ", (double)o->box[0], (double)o->box[1], (double)o->box[2], (double)o->box[3]);
    if (masks && area >= 0)
        printf("%6lld  ", (long long)area);
    else if (masks)
        printf("no mask  ");
    tool_write_text(o->label, (size_t)o->label_size);
    if (o->flags & (PG_OBJECT_BROKEN | PG_OBJECT_UNFINISHED)) {
        printf("  [");
        tool_print_names(o->flags & (PG_OBJECT_BROKEN | PG_OBJECT_UNFINISHED), flag_names, N_FLAG_NAMES);
        printf("]");
    }
    putchar('\n');
}

int tool_answer_options(const tool_verb *verb, const char *max_iou, const char *convention, pg_answer_options *out) {
    char *end = NULL;
    pg_answer_options_init(out, sizeof *out);
    if (max_iou) {
        const double value = strtod(max_iou, &end);
        if (*end || end == max_iou || !(value > 0 && value < 1)) {
            tool_usage_error(verb, "--max-iou: found '%s', expected a number above 0 and below 1", max_iou);
            return 0;
        }
        out->max_iou = (float)value;
    }
    if (!convention || strcmp(convention, "1024") == 0) return 1;
    out->convention = PG_BOX_1023;
    if (strcmp(convention, "1023") == 0) return 1;
    tool_usage_error(verb, "--convention: found '%s', expected 1024 or 1023", convention);
    return 0;
}

int tool_task_prompt(const tool_verb *verb, const char *things, char **out) {
    static const char space[] = " \t\r\n", between[] = " ; ";
    const size_t task = strlen(verb->name), most = task + 1 + 3 * strlen(things) + sizeof between;
    const char *from = things + strspn(things, space);
    if (strncmp(from, verb->name, task) == 0 && from[task] && strchr(space, from[task])) from += task;
    char *prompt = *out = malloc(most), *to = prompt;
    if (!prompt) return tool_fail_text("no memory for the prompt");
    to = stpcpy(to, verb->name);
    const char *separator = " ";
    for (size_t size; *from; from += size + (from[size] == ';')) {
        size = strcspn(from, ";");
        const char *name = from + strspn(from, space), *end = from + size;
        while (end > name && strchr(space, end[-1])) end--;
        if (end <= name) continue; /* nothing between two ; */
        to = stpcpy(to, separator);
        to = (char *)memcpy(to, name, (size_t)(end - name)) + (end - name);
        separator = between;
    }
    *to = '\0';
    if (separator == between) return -1;
    return tool_usage_error(verb, "found '%s', expected names of things such as 'cat ; dog'", things);
}
