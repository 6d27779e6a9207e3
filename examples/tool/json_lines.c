/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Lines that are JSON objects: what they hold, and why one cannot be used. */
#include "json_lines.h"
#include "system.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

char *tool_line_reason(const char *format, ...) {
    char *text = NULL;
    va_list list;
    va_start(list, format);
    if (vasprintf(&text, format, list) < 0) text = NULL;
    va_end(list);
    return text ? text : strdup("no memory");
}

json_t *tool_line_parse(const char *line, size_t size, char **why) {
    json_error_t error;
    json_t *value = size > TOOL_LINE_MOST ? NULL : json_loadb(line, size, 0, &error);
    *why = NULL;
    if (size > TOOL_LINE_MOST)
        *why = tool_line_reason("found a line of more than %d bytes", (int)TOOL_LINE_MOST);
    else if (!value && size > 0 && line[0] == '{')
        *why = tool_line_reason("found no JSON: %s", error.text);
    else if (!value)
        *why = tool_line_reason("found no JSON, expected an object in each line (JSON Lines)");
    return value;
}

const char *tool_json_kind(const json_t *value) {
    switch (json_typeof(value)) {
        case JSON_OBJECT: return "an object";
        case JSON_ARRAY: return "a list";
        case JSON_STRING: return "a text";
        case JSON_NULL: return "null";
        case JSON_TRUE:
        case JSON_FALSE: return "true or false";
        default: return "a number";
    }
}

char *tool_json_take_text(const json_t *object, const char *key, const char **out) {
    const json_t *value = json_object_get(object, key);
    if (!value) return NULL;
    if (!json_is_string(value))
        return tool_line_reason("\"%s\": found %s, expected a text", key, tool_json_kind(value));
    *out = json_string_value(value);
    return NULL;
}

char *tool_line_image_path(const char *lines, const char *images, const char *image) {
    char *path = NULL;
    const char *slash = tool_last_slash(lines);
    if (tool_is_absolute(image)) return strdup(image);
    const int done = images  ? asprintf(&path, "%s/%s", images, image)
                     : slash ? asprintf(&path, "%.*s/%s", (int)(slash - lines), lines, image)
                             : asprintf(&path, "%s", image);
    return done < 0 ? NULL : path;
}
