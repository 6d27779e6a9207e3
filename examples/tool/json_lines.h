/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* JSON Lines that name images: what verbs that read them share. */
#ifndef PALIGEMMA_TOOL_JSON_LINES_H
#define PALIGEMMA_TOOL_JSON_LINES_H

#include "tool.h"

enum { TOOL_LINE_MOST = 1 << 20 /* bytes of a line */ };

/* Why a line is bad: formatted and malloc'ed; NULL only where there is no memory at all. */
char *tool_line_reason(const char *format, ...) TOOL_PRINTF(1, 2);

/* The JSON value of a line. NULL: *why says what was found, malloc'ed; size TOOL_LINE_MOST + 1 is a longer line. */
json_t *tool_line_parse(const char *line, size_t size, char **why);

/* "a text", "a number", ...: what a value is, for a reason. */
const char *tool_json_kind(const json_t *value);

/* A text of the object. Returns NULL, or the reason why it is none; *out stays as it is when the key is not there. */
char *tool_json_take_text(const json_t *object, const char *key, const char **out);

/* The path of an image that the lines of the file `lines` name: relative to the folder `images`, or, when that is NULL,
 * to that of the file. malloc'ed; NULL: no memory. */
char *tool_line_image_path(const char *lines, const char *images, const char *image);

#endif
