/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Lines and folders become jobs. */
#include "batch_jobs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "json_lines.h"
#include "system.h"

enum { BLOCK = 1 << 16 /* bytes of a read */, PATIENCE = 100 /* ms between two looks at `end` */ };

static const char *const task_names[TOOL_N_TASKS] = {"text", "detect"};

/* ---- one line ---- */

static char *take_id(tool_job *job) {
    job->id = json_object_get(job->object, "id");
    if (!job->id || json_is_string(job->id) || json_is_integer(job->id)) return NULL;
    char *why = tool_line_reason("\"id\": found %s, expected a text or a whole number",
                                 json_is_real(job->id) ? "a number that is not whole" : tool_json_kind(job->id));
    job->id = NULL;
    return why;
}

static char *take_most_tokens(tool_job *job) {
    const json_t *value = json_object_get(job->object, "max_new_tokens");
    if (!value) return NULL;
    job->most_tokens = json_integer_value(value);
    if (json_is_integer(value) && job->most_tokens >= 1 && job->most_tokens <= INT32_MAX) return NULL;
    return json_is_integer(value)
               ? tool_line_reason("\"max_new_tokens\": found %lld, expected a whole number from 1 to %d",
                                  (long long)job->most_tokens, INT32_MAX)
               : tool_line_reason("\"max_new_tokens\": found %s, expected a whole number", tool_json_kind(value));
}

int tool_task_of(const char *name, tool_task *out) {
    for (int i = 0; i < TOOL_N_TASKS; i++)
        if (strcmp(name, task_names[i]) == 0) {
            *out = (tool_task)i;
            return 1;
        }
    return 0;
}

static char *take_task(tool_job *job) {
    const char *name = NULL;
    char *why = tool_json_take_text(job->object, "task", &name);
    if (why || !name || tool_task_of(name, &job->task)) return why;
    return tool_line_reason("\"task\": found \"%s\", expected text or detect", name);
}

char *tool_job_error(void) {
    static const char row[] = "row 0: ";
    const char *text = pg_last_error();
    if (strncmp(text, row, sizeof row - 1) == 0) text += sizeof row - 1;
    char *named = tool_with_names(text);
    return named ? named : strdup("no memory");
}

/* Returns NULL, or why the object is no job. */
static char *take_job(const tool_jobs *jobs, tool_job *job) {
    if (!json_is_object(job->object))
        return tool_line_reason("found %s, expected an object with image and prompt in each line",
                                tool_json_kind(job->object));
    char *why = take_id(job);
    if (!why) why = tool_json_take_text(job->object, "image", &job->image);
    if (!why) why = tool_json_take_text(job->object, "prompt", &job->prompt);
    if (!why) why = take_most_tokens(job);
    if (!why) why = take_task(job);
    if (why) return why;
    if (!job->image || !*job->image) return tool_line_reason("found no \"image\", expected the name of a file");
    if (!job->prompt) job->prompt = jobs->prompt;
    if (!job->prompt)
        return tool_line_reason("found no \"prompt\", expected what is asked; --prompt TEXT is for lines without one");
    job->path = strstr(job->image, "://") ? strdup(job->image) /* a URL: the library says what it thinks of it */
                                          : tool_line_image_path(jobs->name, jobs->images, job->image);
    return job->path ? NULL : tool_line_reason("no memory");
}

void tool_job_parse(const tool_jobs *jobs, const char *line, size_t size, tool_job *job) {
    job->task = jobs->task;
    job->object = tool_line_parse(line, size, &job->error);
    if (job->object) job->error = take_job(jobs, job);
    job->is_bad = !job->object || job->error;
}

void tool_job_free(tool_job *job) {
    json_decref(job->object);
    free(job->path);
    free(job->error);
    *job = (tool_job){0};
}

void tool_job_warn(const tool_jobs *jobs, const tool_job *job) {
    const char *why = job->error ? job->error : "no memory";
    if (job->line)
        tool_warn("%s, line %llu: %s", strcmp(jobs->name, "-") == 0 ? "stdin" : jobs->name,
                  (unsigned long long)job->line, why);
    else
        tool_warn("%s", why);
}

/* ---- the file ---- */

/* Reads more behind what is there. 1: done, 0: the end, -1: errno. */
static int fill(tool_jobs *jobs) {
    jobs->begin = jobs->filled = 0;
    while (!atomic_load(jobs->end)) {
        const int n = tool_wait_to_read(jobs->fd, PATIENCE);
        if (n == 0) continue;
        const ssize_t size = n < 0 ? -1 : read(jobs->fd, jobs->buffer, BLOCK);
        if (size < 0 && (errno == EINTR || errno == EAGAIN)) continue;
        if (size > 0) jobs->filled = (size_t)size;
        return size < 0 ? -1 : size > 0;
    }
    return 0;
}

/* Reads a line without its end into jobs->text. *size: TOOL_LINE_MOST + 1 is a longer one, which is read to its end,
 * too. 1: there is one, 0: there is none, -1: errno. */
static int read_line(tool_jobs *jobs, size_t *size) {
    size_t n = 0, n_read = 0;
    int ended = 0;
    while (!ended) {
        if (jobs->begin == jobs->filled) {
            const int more = fill(jobs);
            if (more < 0) return -1;
            if (more == 0) break;
        }
        const char *from = jobs->buffer + jobs->begin;
        const size_t there = jobs->filled - jobs->begin;
        const char *end = memchr(from, '\n', there);
        const size_t part = end ? (size_t)(end - from) : there, room = TOOL_LINE_MOST + 1 - n;
        memcpy(jobs->text + n, from, part < room ? part : room);
        n += part < room ? part : room;
        n_read += part + (end != NULL);
        jobs->begin += part + (end != NULL);
        ended = end != NULL;
    }
    if (n_read == 0 || atomic_load(jobs->end)) return 0; /* a part of a line is none */
    jobs->line++;
    while (n > 0 && n <= TOOL_LINE_MOST && memchr(" \t\r", jobs->text[n - 1], 3)) n--;
    *size = n;
    return 1;
}

static int next_line(tool_jobs *jobs, tool_job *out) {
    static const char mark[] = "\xEF\xBB\xBF"; /* of UTF-8, which some editors put in front */
    size_t size;
    int there;
    while ((there = read_line(jobs, &size)) > 0) {
        const size_t skipped = jobs->line == 1 && size >= 3 && memcmp(jobs->text, mark, 3) == 0 ? 3 : 0;
        if (size == skipped) continue; /* such as behind the last line */
        *out = (tool_job){.line = jobs->line};
        tool_job_parse(jobs, jobs->text + skipped, size - skipped, out);
        return 1;
    }
    return there;
}

/* Lines that are not blank, from here to the end. What fails is told when they are read. */
static uint64_t count_lines(int fd) {
    char block[BLOCK];
    uint64_t n = 0;
    int is_blank = 1;
    ssize_t size;
    off_t at = lseek(fd, 0, SEEK_CUR);
    while (at >= 0 && (size = pread(fd, block, sizeof block, at)) > 0) {
        for (ssize_t i = 0; i < size; i++) {
            if (is_blank && !memchr(" \t\r\n", block[i], 4)) {
                n++;
                is_blank = 0;
            }
            if (block[i] == '\n') is_blank = 1;
        }
        at += size;
    }
    return n;
}

/* ---- the folder ---- */

static int next_image(tool_jobs *jobs, tool_job *out) {
    if (jobs->next_image == jobs->list.n || atomic_load(jobs->end)) return 0;
    const tool_listed *item = &jobs->list.items[jobs->next_image++];
    *out = (tool_job){.image = item->path, .prompt = jobs->prompt, .task = jobs->task};
    out->path = strdup(item->path);
    if (item->error || !out->path) out->error = strdup(item->error ? item->error : "no memory");
    return 1;
}

static int open_folder(tool_jobs *jobs) {
    if (!tool_list_add(&jobs->list, jobs->name)) return tool_fail_text("no memory for the list of images");
    if (jobs->list.n_left_out)
        fprintf(stderr, "paligemma: %zu files that are no PNG or JPEG are left out\n", jobs->list.n_left_out);
    jobs->is_folder = 1;
    jobs->n_jobs = jobs->list.n;
    return TOOL_OK;
}

/* ---- both ---- */

int tool_jobs_open(tool_jobs *jobs) {
    struct stat found;
    const int is_stdin = strcmp(jobs->name, "-") == 0;
    jobs->fd = -1;
    if (!is_stdin && stat(jobs->name, &found) == 0 && S_ISDIR(found.st_mode)) return open_folder(jobs);
    jobs->buffer = malloc(BLOCK);
    jobs->text = malloc(TOOL_LINE_MOST + 1);
    if (!jobs->buffer || !jobs->text) return tool_fail_text("%s: no memory for a line", jobs->name);
    jobs->fd = is_stdin ? STDIN_FILENO : open(jobs->name, O_RDONLY | O_CLOEXEC);
    if (jobs->fd < 0 || fstat(jobs->fd, &found) != 0) return tool_fail_system(is_stdin ? "stdin" : jobs->name, errno);
    if (S_ISREG(found.st_mode)) jobs->n_jobs = count_lines(jobs->fd);
    return TOOL_OK;
}

void tool_jobs_close(tool_jobs *jobs) {
    if (jobs->fd > STDIN_FILENO) close(jobs->fd);
    free(jobs->buffer);
    free(jobs->text);
    tool_list_free(&jobs->list);
    jobs->fd = -1;
    jobs->buffer = jobs->text = NULL;
}

int tool_jobs_next(tool_jobs *jobs, tool_job *out) {
    return jobs->is_folder ? next_image(jobs, out) : next_line(jobs, out);
}
