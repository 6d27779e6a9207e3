/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Lines of jobs, as `paligemma batch` reads them; the first byte says what options there are. Each line that is not
 * blank is a job that can be done or one that says why not, in the order of the file.
 */
#include <stdio.h>
#include <unistd.h>

#include "fuzz.h"

#include "batch_jobs.h"

enum { WITH_PROMPT = 1, WITH_IMAGES = 2, WITH_TASK = 4 };

/* The bytes as a file that can be opened; the same one each time. */
static void put_file(const uint8_t *data, size_t size, char *name) { /* [32] */
    static FILE *file;
    if (!file && !(file = tmpfile())) abort();
    const int fd = fileno(file);
    if (ftruncate(fd, 0) != 0 || pwrite(fd, data, size, 0) != (ssize_t)size) abort();
    snprintf(name, 32, "/dev/fd/%d", fd);
}

static void check_job(const tool_job *job) {
    if (job->error) {
        if (!job->is_bad || !*job->error) abort();
        return;
    }
    if (job->is_bad || !job->image || !*job->image || !job->prompt || !job->path) abort();
    if (job->most_tokens < 0 || job->most_tokens > INT32_MAX) abort();
    if ((int)job->task < 0 || job->task >= TOOL_N_TASKS) abort();
    if (job->id && !json_is_string(job->id) && !json_is_integer(job->id)) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char name[32];
    const atomic_int end = 0;
    const uint8_t options = size ? *data : 0;
    if (size) put_file(data + 1, size - 1, name);
    if (!size) return 0;
    tool_jobs jobs = {.name = name,
                      .images = options & WITH_IMAGES ? "images" : NULL,
                      .prompt = options & WITH_PROMPT ? "caption en" : NULL,
                      .task = options & WITH_TASK ? TOOL_TASK_DETECT : TOOL_TASK_TEXT,
                      .end = &end};
    uint64_t n = 0, line = 0;
    tool_job job;
    if (tool_jobs_open(&jobs) != TOOL_OK) abort();
    while (tool_jobs_next(&jobs, &job) > 0) {
        if (job.line <= line) abort();
        line = job.line;
        n++;
        check_job(&job);
        tool_job_free(&job);
    }
    if (n > jobs.n_jobs || n + 1 < jobs.n_jobs) abort(); /* a line that is a mark of UTF-8 alone is counted */
    tool_jobs_close(&jobs);
    return fuzz_end();
}
