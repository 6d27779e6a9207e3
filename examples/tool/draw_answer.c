/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The objects of an answer as marks on a picture. */
#include <stdlib.h>
#include <string.h>

#include "draw.h"
#include "tool.h"

/* Where the label stands among things such as "cat ; dog"; -1: nowhere. *n: how many things there are. */
static int32_t find_thing(const char *things, const char *label, size_t size, int32_t *n) {
    int32_t found = -1;
    *n = 0;
    for (const char *part = things; part; (*n)++) {
        const char *end = strchr(part, ';');
        size_t length = end ? (size_t)(end - part) : strlen(part);
        const size_t front = strspn(part, " ");
        const char *thing = front < length ? part + front : part;
        length -= front < length ? front : 0;
        while (length && thing[length - 1] == ' ') length--;
        if (found < 0 && length == size && memcmp(thing, label, size) == 0) found = *n;
        part = end ? end + 1 : NULL;
    }
    return found;
}

/* One color for each thing that was asked for; where one alone was, for each object. */
static int32_t color_of(const char *things, const pg_object *object, int64_t index) {
    int32_t n;
    const int32_t found = find_thing(things, object->label, (size_t)object->label_size, &n);
    uint32_t sum = 0;
    for (size_t i = 0; i < object->label_size; i++) sum = 31 * sum + (unsigned char)object->label[i];
    return n == 1 ? (int32_t)(index & 0xFFFF) : found >= 0 ? found : n + (int32_t)(sum % 5); /* not asked for */
}

int tool_draw_answer(const char *path, tool_picture *picture, const pg_answer *answer, const char *things,
                     const uint8_t *const *masks) {
    static const char prefixes[][9] = {"detect ", "segment "};
    const int64_t n = pg_answer_get_n_objects(answer);
    tool_mark *marks = calloc((size_t)n + 1, sizeof *marks);
    size_t n_marks = 0;
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++)
        if (strncmp(things, prefixes[i], strlen(prefixes[i])) == 0) things += strlen(prefixes[i]);
    for (int64_t i = 0; marks && i < n; i++) {
        pg_object o = {.struct_size = sizeof o};
        if (pg_answer_get_object(answer, i, &o) < 0 || o.flags & (PG_OBJECT_BROKEN | PG_OBJECT_DUPLICATE)) continue;
        tool_mark *mark = &marks[n_marks];
        *mark = (tool_mark){.label = o.label,
                            .label_size = (size_t)o.label_size,
                            .score = o.score,
                            .mask = masks ? masks[i] : NULL,
                            .color = color_of(things, &o, (int64_t)n_marks)};
        memcpy(mark->box, o.box, sizeof mark->box);
        n_marks++;
    }
    const int drawn = marks && tool_draw_marks(picture, marks, n_marks);
    free(marks);
    return drawn ? tool_png_write(path, picture) : tool_fail_text("%s: no memory for the picture", path) == TOOL_OK;
}
