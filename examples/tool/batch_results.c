/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Lines of results: written one by one, and read again by the run that goes on. */
#include "batch_results.h"
#include "system.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SYNC_SECONDS = 5 /* of results that the loss of power may cost; the run that goes on makes them again */ };

/* ---- which job a line is of ---- */

/* FNV-1a: http://www.isthe.com/chongo/tech/comp/fnv/ */
static uint64_t hash(uint64_t before, const char *text) {
    uint64_t sum = before ? before : UINT64_C(0xCBF29CE484222325);
    do sum = (sum ^ (unsigned char)*text) * UINT64_C(0x100000001B3);
    while (*text++); /* the NUL, too: it ends the text */
    return sum;
}

static tool_done describe(const tool_results *results, uint64_t line, const char *image, const char *prompt) {
    return (tool_done){
        .which = results->is_folder ? hash(0, image) : line,
        .asked = image && prompt ? hash(hash(0, image), prompt) : 0,
    };
}

static int by_which(const void *a, const void *b) {
    const uint64_t x = ((const tool_done *)a)->which, y = ((const tool_done *)b)->which;
    return (x > y) - (x < y);
}

int tool_results_have(const tool_results *results, const tool_job *job) {
    const tool_done key = describe(results, job->line, job->image, job->prompt);
    const tool_done *found =
        results->n_done ? bsearch(&key, results->done, results->n_done, sizeof key, by_which) : NULL;
    if (!found) return 0;
    return found->asked && found->asked != key.asked ? -1 : 1;
}

/* ---- lines that are there ---- */

static int add(tool_results *results, tool_done done) {
    if (results->n_done == results->capacity) {
        const size_t capacity = results->capacity ? 2 * results->capacity : 1024;
        tool_done *grown = realloc(results->done, capacity * sizeof *grown);
        if (!grown) return tool_fail_text("%s: no memory for its lines", results->name);
        results->done = grown;
        results->capacity = capacity;
    }
    results->done[results->n_done++] = done;
    return TOOL_OK;
}

/* 1: taken, 0: it is no line of results, -1: told. */
static int take(tool_results *results, const char *line, size_t size) {
    json_t *object = json_loadb(line, size, JSON_ALLOW_NUL, NULL);
    const json_int_t number = json_integer_value(json_object_get(object, "line"));
    const char *prompt = json_string_value(json_object_get(object, "prompt"));
    const int failed = json_object_get(object, "error") != NULL;
    char *image = tool_json_get_image(object);
    const int is_ours =
        (failed || json_object_get(object, "text")) && (results->is_folder ? image != NULL : number >= 1);
    int status = TOOL_OK;
    if (is_ours) {
        tool_done done = describe(results, (uint64_t)number, image, prompt);
        done.failed = failed;
        status = add(results, done);
    }
    free(image);
    json_decref(object);
    return status == TOOL_OK ? is_ours : -1;
}

/* What a write of ours leaves that was stopped: the beginning of a line, and NUL bytes where the power failed. Another
 * file, which may have no newline at its end, is not cut. */
static int is_torn(const tool_results *results, const char *line, size_t size) {
    const char *begin = results->is_folder ? "{\"image\":" : "{\"line\":";
    const size_t text = strnlen(line, size), n = strlen(begin);
    for (size_t i = text; i < size; i++)
        if (line[i]) return 0;
    return memcmp(line, begin, text < n ? text : n) == 0;
}

static int cut(tool_results *results, off_t at) {
    tool_warn("%s: the last line is broken off; its job is done again", results->name);
    return ftruncate(fileno(results->file), at) == 0 ? TOOL_OK : tool_fail_system(results->name, errno);
}

/* Of a line that is there twice the first counts. */
static void sort(tool_results *results) {
    size_t n = 0;
    if (results->n_done) qsort(results->done, results->n_done, sizeof *results->done, by_which);
    for (size_t i = 0; i < results->n_done; i++) {
        if (n > 0 && results->done[n - 1].which == results->done[i].which) continue;
        results->done[n++] = results->done[i];
        results->n_failed += (size_t)results->done[n - 1].failed;
    }
    results->n_done = n;
}

static int read_lines(tool_results *results) {
    char *line = NULL;
    size_t capacity = 0, number = 0;
    ssize_t size;
    off_t at = 0;
    int status = TOOL_OK;
    while (status == TOOL_OK && (size = getline(&line, &capacity, results->file)) > 0) {
        const int is_whole = line[size - 1] == '\n', taken = is_whole ? take(results, line, (size_t)size) : 0;
        number++;
        if (taken < 0)
            status = TOOL_FAILED;
        else if (!is_whole && is_torn(results, line, (size_t)size))
            status = cut(results, at);
        else if (!taken)
            status = tool_fail_text(
                "%s, line %zu: found no result of this command, as --resume needs it%s; is this "
                "another file?",
                results->name, number, results->is_folder ? " (of an image in a folder)" : " (of a line of JOBS)");
        at += size;
    }
    if (status == TOOL_OK && ferror(results->file)) status = tool_fail_system(results->name, errno);
    free(line);
    sort(results);
    return status;
}

/* ---- the file ---- */

static int open_file(tool_results *results, int resume) {
    struct stat found;
    /* what is no file, such as a pipe, is only written: its other end is somebody else's */
    const int is_other = stat(results->name, &found) == 0 && !S_ISREG(found.st_mode);
    const int file = open(results->name, (is_other ? O_WRONLY : O_RDWR | O_CREAT) | O_CLOEXEC | O_APPEND, 0666);
    results->file = file < 0 ? NULL : fdopen(file, is_other ? "a" : "a+");
    if (!results->file || fstat(file, &found) != 0) return tool_fail_system(results->name, errno);
    results->is_regular = S_ISREG(found.st_mode);
    if (resume && !results->is_regular)
        return tool_fail_text("%s: found no file, expected one with the results so far, as --resume needs it",
                              results->name);
    if (results->is_regular && tool_lock_is_taken(file))
        return tool_fail_text("%s: another 'paligemma batch' is writing to it", results->name);
    if (results->is_regular && !resume && found.st_size > 0)
        return tool_fail_text("%s: found a file with lines in it, expected a new one; --resume goes on with it",
                              results->name);
    return TOOL_OK;
}

int tool_results_open(tool_results *results, int resume) {
    if (!results->name) return TOOL_OK;
    int status = open_file(results, resume);
    if (status == TOOL_OK && resume) {
        rewind(results->file);
        status = read_lines(results);
        fseek(results->file, 0, SEEK_END);
    }
    if (status == TOOL_OK) tool_json_output(results->file, results->name);
    results->synced = tool_seconds();
    return status;
}

static int sync_file(tool_results *results) {
    results->synced = tool_seconds();
    return !results->is_regular || tool_sync(fileno(results->file)) == 0 ? TOOL_OK
                                                                         : tool_fail_system(results->name, errno);
}

int tool_results_close(tool_results *results) {
    int status = TOOL_OK;
    tool_json_output(NULL, NULL);
    if (results->file) {
        if (!ferror(results->file)) status = sync_file(results);
        fclose(results->file); /* each line was flushed, and looked at */
    }
    free(results->done);
    *results = (tool_results){0};
    return status;
}

/* Errors name files, whose names may be any bytes. */
static json_t *text_of_error(const char *error) {
    json_t *text = json_string(error);
    char *shown = text ? NULL : tool_escaped(error, strlen(error), 0);
    if (!text) text = json_string(shown ? shown : "no memory");
    free(shown);
    return text;
}

int tool_results_write(tool_results *results, const tool_job *job, json_t *answer) {
    json_t *object = json_object();
    if (job->line) json_object_set_new(object, "line", json_integer((json_int_t)job->line));
    if (job->id) json_object_set(object, "id", (json_t *)job->id);
    if (job->image) tool_json_set_image(object, job->image);
    if (job->prompt) json_object_set_new(object, "prompt", json_string(job->prompt));
    if (answer)
        json_object_update(object, answer);
    else
        json_object_set_new(object, "error", text_of_error(job->error ? job->error : "no memory"));
    json_decref(answer);
    const int status = tool_print_json(object);
    if (status != TOOL_OK || tool_seconds() - results->synced < SYNC_SECONDS || !results->file) return status;
    return sync_file(results);
}
