/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Lines of a training's data, and the order in which they are learned. */
#include "train_data.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "json_lines.h"

enum { MOST = TOOL_LINE_MOST, MOST_TOLD = 10 /* bad lines that are told one by one */ };

/* ---- one line ---- */

static char *take_image(const tool_train_data *data, const char *image, tool_train_example *out) {
    struct stat found;
    if (strstr(image, "://"))
        return tool_line_reason("\"image\": found a URL, '%s', expected a file: download it first", image);
    out->image = tool_line_image_path(data->name, data->images, image);
    if (!out->image) return tool_line_reason("no memory");
    if (stat(out->image, &found) != 0) return tool_line_reason("\"image\": %s: %s", out->image, strerror(errno));
    return S_ISREG(found.st_mode) ? NULL
                                  : tool_line_reason("\"image\": %s: found no file, expected PNG or JPEG", out->image);
}

/* Returns NULL, or why the object is no example. */
static char *take_example(const tool_train_data *data, tool_train_example *out) {
    const char *image = NULL;
    if (!json_is_object(out->object))
        return tool_line_reason("found %s, expected an object with image, prefix and suffix in each line",
                                tool_json_kind(out->object));
    char *why = tool_json_take_text(out->object, "image", &image);
    if (!why) why = tool_json_take_text(out->object, "prefix", &out->prefix);
    if (!why) why = tool_json_take_text(out->object, "suffix", &out->suffix);
    if (why) return why;
    if (!image || !*image) return tool_line_reason("found no \"image\", expected the name of a file");
    if (!out->suffix || !*out->suffix)
        return tool_line_reason("found no \"suffix\", expected what the model is to say");
    if (strstr(out->suffix, "<image>")) return tool_line_reason("\"suffix\": found <image>, expected it in no suffix");
    if (!out->prefix) out->prefix = data->prefix;
    if (!out->prefix)
        return tool_line_reason("found no \"prefix\", expected the prompt; --prefix TEXT is for lines that have none");
    return take_image(data, image, out);
}

static char *parse_line(const tool_train_data *data, size_t size, tool_train_example *out) {
    char *why;
    *out = (tool_train_example){0};
    out->object = tool_line_parse(data->line, size, &why);
    if (!out->object) return why;
    return take_example(data, out);
}

void tool_train_example_free(tool_train_example *example) {
    json_decref(example->object);
    free(example->image);
    *example = (tool_train_example){0};
}

/* ---- the file ---- */

/* Reads a line without its end into data->line. Returns its size, MOST + 1 for a longer one, which is read to its end,
 * too; -1: there is none. *n_read: bytes, with the end. */
static int64_t read_line(tool_train_data *data, int64_t *n_read) {
    size_t size = 0;
    int c;
    *n_read = 0;
    while ((c = getc_unlocked(data->file)) != EOF) {
        ++*n_read;
        if (c == '\n') break;
        if (size <= MOST) data->line[size++] = (char)c;
    }
    while (size > 0 && size <= MOST && strchr(" \t\r", data->line[size - 1]) && data->line[size - 1]) size--;
    return *n_read > 0 ? (int64_t)size : -1;
}

int tool_train_data_bad(tool_train_data *data, uint64_t line, char *why) {
    const char *told = why ? why : "no memory";
    int status = TOOL_OK;
    data->n_bad++;
    if (!data->skip_bad)
        status = tool_fail_text("%s, line %llu: %s", data->name, (unsigned long long)line, told);
    else if (data->n_bad <= MOST_TOLD)
        tool_warn("%s, line %llu: %s; it is left out", data->name, (unsigned long long)line, told);
    free(why);
    return status;
}

static int add_row(tool_train_data *data, int64_t at, uint64_t line) {
    if (data->n == data->capacity) {
        const size_t capacity = data->capacity ? 2 * data->capacity : 1024;
        tool_train_row *rows = realloc(data->rows, capacity * sizeof *rows);
        if (!rows) return tool_fail_text("%s: no memory for its lines", data->name);
        data->rows = rows;
        data->capacity = capacity;
    }
    data->rows[data->n++] = (tool_train_row){at, line};
    return TOOL_OK;
}

static int read_all(tool_train_data *data) {
    static const char mark[] = "\xEF\xBB\xBF"; /* of UTF-8, which some editors put in front */
    int64_t at = 0, n_read, size;
    int status = TOOL_OK;
    if (fread(data->line, 1, 3, data->file) == 3 && memcmp(data->line, mark, 3) == 0)
        at = 3;
    else
        rewind(data->file);
    for (uint64_t line = 1; status == TOOL_OK && (size = read_line(data, &n_read)) >= 0; line++, at += n_read) {
        tool_train_example example;
        if (size == 0) continue; /* such as behind the last line */
        char *why = parse_line(data, (size_t)size, &example);
        status = why ? tool_train_data_bad(data, line, why) : add_row(data, at, line);
        tool_train_example_free(&example);
    }
    return status == TOOL_OK && ferror(data->file) ? tool_fail_system(data->name, errno) : status;
}

int tool_train_data_open(tool_train_data *data) {
    struct stat found;
    data->line = malloc(MOST + 2);
    if (!data->line) return tool_fail_text("%s: no memory for a line", data->name);
    data->file = fopen(data->name, "rbe");
    if (!data->file || fstat(fileno(data->file), &found) != 0) return tool_fail_system(data->name, errno);
    if (!S_ISREG(found.st_mode))
        return tool_fail_text("%s: found no file, expected one whose lines can be read again and again", data->name);
    const int status = read_all(data);
    if (status == TOOL_OK && data->n == 0)
        return tool_fail_text("%s: found no line that can be learned, expected an object with image, prefix and suffix",
                              data->name);
    return status;
}

void tool_train_data_close(tool_train_data *data) {
    if (data->file) fclose(data->file);
    free(data->line);
    free(data->rows);
    data->file = NULL;
    data->line = NULL;
    data->rows = NULL;
}

int tool_train_data_read(tool_train_data *data, const tool_train_row *row, tool_train_example *out) {
    int64_t n_read;
    *out = (tool_train_example){0};
    if (fseeko(data->file, (off_t)row->at, SEEK_SET) != 0) return tool_fail_system(data->name, errno);
    const int64_t size = read_line(data, &n_read);
    if (ferror(data->file)) return tool_fail_system(data->name, errno);
    char *why =
        size < 0 ? tool_line_reason("found the end of the file: it has changed") : parse_line(data, (size_t)size, out);
    if (!why) return TOOL_OK;
    tool_train_example_free(out);
    tool_fail_text("%s, line %llu: %s", data->name, (unsigned long long)row->line, why);
    free(why);
    return TOOL_FAILED;
}

/* ---- order ---- */

/* splitmix64: https://prng.di.unimi.it/splitmix64.c */
static uint64_t next(uint64_t *state) {
    uint64_t z = *state += UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
    return z ^ z >> 31;
}

/* 0 .. n - 1, each as likely. */
static uint64_t below(uint64_t *state, uint64_t n) {
    const uint64_t most = UINT64_MAX - UINT64_MAX % n;
    uint64_t value;
    do value = next(state);
    while (value >= most);
    return value % n;
}

void tool_train_shuffle(size_t *order, size_t n, uint64_t seed, uint64_t epoch) {
    uint64_t state = seed;
    state = next(&state) ^ epoch;
    for (size_t i = 0; i < n; i++) order[i] = i;
    for (size_t i = n; i > 1; i--) {
        const size_t k = (size_t)below(&state, i), last = order[i - 1];
        order[i - 1] = order[k];
        order[k] = last;
    }
}
