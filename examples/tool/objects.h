/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* What verbs that find objects share. */
#ifndef PALIGEMMA_TOOL_OBJECTS_H
#define PALIGEMMA_TOOL_OBJECTS_H

#include "tool.h"

/* category, bbox [x, y, width, height] unless broken, score, locs, segs, flags. */
json_t *tool_object_to_json(const pg_object *object);

/* width, height, objects and broken of an answer, duplicates left out. to_json: of object i; NULL: what
 * tool_object_to_json() makes. */
json_t *tool_answer_to_json(const pg_answer *answer, const pg_answer_options *options,
                            json_t *(*to_json)(const void *user, int64_t i, const pg_object *object), const void *user);

/* The size of the only image of the inputs. */
pg_status tool_image_size(const pg_inputs *inputs, int32_t *width, int32_t *height);

/* A line of the table, and one of CSV. */
#define TOOL_OBJECT_HEADING " score        x0      y0      x1      y1  label"
#define TOOL_OBJECT_CSV_HEADING "image,label,score,x0,y0,x1,y1"
#define TOOL_OBJECT_MASK_HEADING " score        x0      y0      x1      y1    area  label"
#define TOOL_OBJECT_MASK_CSV_HEADING "image,label,score,x0,y0,x1,y1,area"
/* masks: whether there is a column for `area`, pixels of the object's mask; -1: it has none. */
void tool_print_object(const pg_object *object, int masks, int64_t area);
void tool_print_object_csv(const char *image, const pg_object *object, int masks, int64_t area);

/* A field of CSV: quoted where it has to be (RFC 4180). */
void tool_print_csv_field(const char *text, size_t size);

/* The prompt of detect or segment: the verb's name in front of things, whatever white space stands about them and about
 * ";"; malloc'ed. Returns -1 to go on, else the exit status: no thing is named, told. */
int tool_task_prompt(const tool_verb *verb, const char *things, char **out);

/* Default options of answers with --max-iou and --convention, which may be NULL. 0: the usage error was told. */
int tool_answer_options(const tool_verb *verb, const char *max_iou, const char *convention, pg_answer_options *out);

#endif
