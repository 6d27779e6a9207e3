/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* paligemma batch: many images and prompts, at full speed. batch_jobs.c reads the jobs, batch_queue.c prepares them,
 * batch_run.c answers them, batch_results.c keeps what was said. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "batch_run.h"
#include "objects.h"

static const char help[] =
    "usage: paligemma batch [options] MODEL JOBS\n"
    "\n"
    "Answers many prompts about many images in one process: images are read and resized beside the model,\n"
    "and several jobs share each reading of the weights. Each gets the text that it gets from 'paligemma run'.\n"
    "\n"
    "  MODEL    a checkpoint folder, or a model id in the local Hugging Face cache\n"
    "  JOBS     JSON Lines: an object a line, such as {\"image\": \"cat.jpg\", \"prompt\": \"caption en\"}; - reads "
    "them\n"
    "           from stdin. image is a PNG or JPEG file, relative to the folder of JOBS. A line may also have id\n"
    "           (the result has it, too), max_new_tokens and task. Or a folder: all images in it\n"
    "\n"
    "  -o, --out FILE           where the results go: for each job a line of JSON with line (its number in JOBS), id,\n"
    "                           image, prompt, text, ids and stop; or with line and error (default: stdout)\n"
    "      --resume             go on with FILE: jobs that have a line there are left out, whatever stopped the last "
    "run\n"
    "      --unordered          results as they come (default: in the order of the jobs)\n"
    "      --prompt TEXT        the prompt of jobs that have none, and of the images of a folder\n"
    "      --images FOLDER      images are relative to this folder\n"
    "      --task KIND          of jobs that say none: text (default), or detect: the result has width, height,\n"
    "                           objects and broken as that of 'paligemma detect'; the prompt is to begin with detect\n"
    "      --max-iou X          of two boxes with one label that overlap more (0 to 1), keep the better one\n"
    "      --convention N       a loc is NNNN/1024 of the side (default), or NNNN/1023, as the training\n"
    "                           code has it\n"
    "      --batch N            jobs that run together (default 16; fewer where their keys and values would take more\n"
    "                           than 4 GiB)\n"
    "      --readers N          threads that read images and prompts beside those of the model (default 2)\n"
    "  -n, --max-new-tokens N   stop after N tokens (default: what MODEL's generation_config.json says,\n"
    "                           else 128; task detect: 256)\n"
    "      --max-context N      stop when prompt and text have N tokens (default: memory decides)\n"
    "      --temperature T      draw tokens at random, from 0 (the likeliest) over 1 to 1000\n"
    "      --top-k K            draw from the K likeliest tokens (default 50; 0: all)\n"
    "      --top-p P            draw from the likeliest tokens that have P of the probability together\n"
    "      --seed N             the same N, the same answers (default 0); any of these four draws\n"
    "      --stop TEXT          stop with the token that completes TEXT\n"
    "      --beams N            follow the N likeliest texts at once, 2 to 64; jobs then run one by one\n"
    "      --length-penalty X   with --beams: above 0 favours long texts (default 1)\n"
    "  -t, --threads N          compute on N threads (default: the CPUs this process may use); no text depends on it\n"
    "      --processor FOLDER   tokenizer and image settings from another folder or model id\n"
    "      --weights FORMAT     stored (default), int8 or int4: quantized when the model opens\n"
    "      --int8-layers LIST   beside int4: what is int8, such as embedding,attention\n"
    "      --adapter FOLDER     add a LoRA adapter of the model, or an id; may be given several times\n"
    "      --arithmetic KIND    f32, or bf16 in large products, where that is faster on this CPU\n"
    "      --kv KIND            KV cache in f32, or in bf16 (default beside int8 and int4)\n"
    "      --in-memory          read the weights into memory instead of mapping the files\n"
    "      --literal            take <eos>, <image> and other special tokens in prompts as plain "
    "text\n" TOOL_HELP_PIXELS
    "  -v, --verbose            what the library has to tell, and how long it took, on stderr\n"
    "      --                   what follows is no option\n"
    "\n"
    "Ctrl-C finishes the jobs that run and writes their results, but for those that wait for an earlier job, which\n"
    "--resume does again (not with --unordered); a second one ends at once. Exit status: 0 all jobs have an answer,\n"
    "3 all are done and some have an error, 1 it failed before all were done, 2 wrong usage; after\n"
    "Ctrl-C it dies of SIGINT.\n";

enum {
    MOST_TOLD = 10,          /* jobs that fail and are told one by one */
    PLACES = 128,            /* jobs that are prepared ahead, or fewer: */
    PREPARED_BYTES = 1 << 28 /* of their pixels */
};

typedef struct batch_state {
    const char *model_name, *processor_name; /* the latter NULL: the model's */
    tool_shared shared;
    tool_jobs jobs;
    tool_results results;
    tool_queue queue;
    tool_batch_runner runner;
    tool_progress progress;
    tool_log log, reader_log;
    pg_cancel *cancel;
    pg_processor *processor;
    pg_model *model; /* opened when the first job is ready */
    int64_t rows;    /* --batch; 0: not given */
    int64_t n_readers;
    int resume, literal;
    size_t n_running;                 /* in this call of the library */
    int told_waiting;                 /* that Ctrl-C waits for them */
    uint64_t n_done, n_failed, n_bad; /* of this run; failed ones that are bad lines */
    double begun;
} batch_state;

/* ---- what is told ---- */

static void show(batch_state *s) {
    const double seconds = tool_seconds() - s->begun;
    if (s->n_done > 0 && seconds > 0)
        snprintf(s->progress.note, sizeof s->progress.note, ", %.3g a second", (double)s->n_done / seconds);
    tool_progress_images(&s->progress, s->results.n_done + s->n_done, s->progress.n_images,
                         s->results.n_failed + s->n_failed);
}

/* Ctrl-C does not stop a call: its jobs are nearly done. */
static int32_t on_progress(void *user, int32_t phase, int64_t done, int64_t total) {
    batch_state *s = user;
    if (tool_interrupted() && !s->told_waiting) {
        s->told_waiting = 1;
        tool_progress_clear(&s->progress);
        fprintf(stderr, "paligemma: finishing the %zu job%s that run%s; a second Ctrl-C ends at once\n", s->n_running,
                s->n_running == 1 ? "" : "s", s->n_running == 1 ? "s" : "");
    }
    return tool_progress_update(&s->progress, phase, done, total);
}

/* "12 of 30 jobs are done; --resume goes on from here". */
static void tell_rest(const batch_state *s, const char *what) {
    const unsigned long long n_done = s->results.n_done + s->n_done, n = s->jobs.n_jobs;
    char of[40] = "";
    if (n > 0) snprintf(of, sizeof of, " of %llu", n);
    fprintf(stderr, "paligemma: %s%llu%s jobs are done%s\n", what, n_done, of,
            s->results.is_regular ? "; the same command with --resume goes on from here" : "");
}

static void tell_failed(const batch_state *s) {
    const unsigned long long n_failed = s->results.n_failed + s->n_failed;
    char bad[64] = "";
    if (s->n_bad > 0) snprintf(bad, sizeof bad, ", %llu of them bad lines", (unsigned long long)s->n_bad);
    fprintf(stderr, "paligemma: %llu of %llu jobs failed%s; their results say why\n", n_failed,
            (unsigned long long)(s->results.n_done + s->n_done), bad);
}

/* ---- jobs ---- */

/* Writes the results that are there. */
static int write_done(batch_state *s) {
    tool_work *work;
    while ((work = tool_queue_next_done(&s->queue))) {
        json_t *answer = work->answer;
        work->answer = NULL;
        if (!answer) {
            s->n_bad += (uint64_t)work->job.is_bad;
            if (s->n_failed++ < MOST_TOLD) {
                tool_progress_clear(&s->progress);
                tool_job_warn(&s->jobs, &work->job);
            }
        }
        if (!s->results.name && isatty(STDOUT_FILENO)) tool_progress_clear(&s->progress);
        if (tool_results_write(&s->results, &work->job, answer) != TOOL_OK) return TOOL_FAILED;
        tool_queue_written(&s->queue, work);
        s->n_done++;
    }
    show(s);
    return TOOL_OK;
}

/* After the first job is ready: a mistake in JOBS must not cost the time to open the model. */
static int open_model(batch_state *s) {
    const pg_status status = tool_open_model(s->model_name, &s->shared, &s->log, s->cancel, &s->model);
    tool_progress_clear(&s->progress);
    if (status < 0) return status == PG_ERROR_CANCELLED ? TOOL_FAILED : tool_fail(status, TOOL_STAGE_MODEL);
    s->runner.model = s->model;
    if (!s->rows) s->rows = (int64_t)tool_batch_rows(s->model);
    s->begun = tool_seconds();
    return TOOL_OK;
}

static int run_some(batch_state *s, tool_work *const *works, size_t n) {
    if (!s->model && open_model(s) != TOOL_OK) return TOOL_FAILED;
    const size_t most = (size_t)s->rows;
    for (size_t at = 0; at < n && !tool_interrupted(); at += s->n_running) {
        s->n_running = n - at < most ? n - at : most;
        const pg_status status = tool_batch_run(&s->runner, works + at, s->n_running);
        if (status < 0) {
            tool_progress_clear(&s->progress);
            return tool_fail(status, TOOL_STAGE_GENERATE);
        }
        for (size_t i = 0; i < s->n_running; i++) works[at + i]->state = TOOL_WORK_DONE;
        if (write_done(s) != TOOL_OK) return TOOL_FAILED;
    }
    return TOOL_OK;
}

static int answer_jobs(batch_state *s) {
    const size_t first = s->rows ? (size_t)s->rows : TOOL_BATCH_ROWS;
    tool_work **works = calloc(first, sizeof *works);
    int is_over = 0, status = works ? TOOL_OK : tool_fail_text("no memory for a batch");
    while (status == TOOL_OK && !is_over && !tool_interrupted()) {
        const size_t n = tool_queue_take(&s->queue, s->rows ? (size_t)s->rows : first, works, &is_over);
        status = n > 0 ? run_some(s, works, n) : write_done(s);
    }
    free(works);
    return status;
}

/* ---- begin and end ---- */

static int open_queue(batch_state *s) {
    pg_image_settings settings = {.struct_size = sizeof settings};
    const pg_status status = pg_processor_get_image_settings(s->processor, &settings);
    if (status < 0) return tool_fail(status, TOOL_STAGE_PROCESSOR);
    const size_t rows = s->rows ? (size_t)s->rows : TOOL_BATCH_ROWS;
    size_t n = PREPARED_BYTES / (3 * sizeof(float) * (size_t)settings.height * (size_t)settings.width);
    if (n > PLACES) n = PLACES;
    if (n < 2 * rows) n = 2 * rows; /* one batch is prepared while another runs */
    tool_queue *q = &s->queue;
    q->jobs = &s->jobs;
    q->results = &s->results;
    q->processor = s->runner.processor = s->processor;
    q->cancel = s->cancel;
    q->image_flags = s->shared.image_flags;
    q->prompt_flags = s->literal ? PG_ENCODE_LITERAL : 0u;
    q->n_readers = (size_t)s->n_readers;
    q->n_places = n;
    return tool_queue_open(q);
}

/* What is to be said at the end. Returns the exit status. */
static int finish(batch_state *s, int status) {
    const tool_queue *q = &s->queue;
    const char *jobs = strcmp(s->jobs.name, "-") == 0 ? "stdin" : s->jobs.name;
    tool_progress_clear(&s->progress);
    if (tool_interrupted()) {
        tool_interrupt_told();
        tell_rest(s, "interrupted; ");
        return TOOL_FAILED;
    }
    if (status == TOOL_OK && q->error) status = tool_fail_system(jobs, q->error);
    if (status == TOOL_OK && q->changed)
        status = tool_fail_text(
            "%s, line %llu: %s has the result of another image or prompt for it; is one of them "
            "another file?",
            jobs, (unsigned long long)q->changed_line, s->results.name);
    if (status == TOOL_OK && s->results.n_done + s->n_done == 0)
        return tool_fail_text("%s: found no job, expected an object with image and prompt in each line", jobs);
    if (status != TOOL_OK) {
        if (s->results.is_regular) tell_rest(s, "");
        return status;
    }
    if (s->log.verbose && s->n_done > 0)
        fprintf(stderr, "%llu jobs in %.2f s, %.3g a second\n", (unsigned long long)s->n_done,
                tool_seconds() - s->begun, (double)s->n_done / (tool_seconds() - s->begun));
    if (s->n_failed + s->results.n_failed == 0) return TOOL_OK;
    tell_failed(s);
    return TOOL_PARTLY;
}

static int run_all(batch_state *s) {
    int status = tool_jobs_open(&s->jobs);
    if (status != TOOL_OK) return status;
    status = tool_begin(s->model_name, s->processor_name, &s->reader_log, &s->cancel, &s->processor);
    if (status >= 0) return status;
    s->results.is_folder = s->jobs.is_folder;
    status = tool_results_open(&s->results, s->resume);
    if (status != TOOL_OK) return status;
    s->begun = tool_seconds();
    s->progress.is_open = s->jobs.n_jobs == 0;
    tool_progress_begin(&s->progress, "jobs", s->results.n_done, s->jobs.n_jobs);
    if (open_queue(s) != TOOL_OK) return TOOL_FAILED;
    return finish(s, answer_jobs(s));
}

/* ---- options ---- */

static int take_task(const tool_verb *verb, const char *name, tool_task *out) {
    if (!name || tool_task_of(name, out)) return -1;
    return tool_usage_error(verb, "--task: found '%s', expected text or detect", name);
}

/* Rules of several options. Returns -1, or the exit status. */
static int check_options(const tool_verb *verb, const batch_state *s) {
    struct stat found;
    const int is_folder = stat(s->jobs.name, &found) == 0 && S_ISDIR(found.st_mode);
    json_t *prompt = s->jobs.prompt ? json_string(s->jobs.prompt) : json_null();
    json_decref(prompt);
    if (!prompt) return tool_usage_error(verb, "--prompt: found no UTF-8, expected a text in it");
    if (s->resume && !s->results.name)
        return tool_usage_error(verb, "--resume needs --out FILE, where it sees what is done");
    if (is_folder && !s->jobs.prompt)
        return tool_usage_error(verb, "'%s' is a folder: give --prompt TEXT, what is asked about its images",
                                s->jobs.name);
    if (is_folder && s->jobs.images)
        return tool_usage_error(verb, "--images: '%s' is a folder of images itself", s->jobs.name);
    if (!is_folder && tool_has_image_bytes(s->jobs.name))
        return tool_usage_error(verb, "'%s' is an image, expected JSON Lines or a folder; 'paligemma run' takes images",
                                s->jobs.name);
    return -1;
}

/* Returns -1 to go on, else the exit status. */
static int parse_options(const tool_verb *verb, int argc, char **argv, batch_state *s) {
    const char *arguments[2], *task = NULL, *max_iou = NULL, *convention = NULL;
    tool_sampling *const sampling = &s->runner.sampling;
    const tool_option options[] = {
        {.name = "--out", .letter = "-o", .text = &s->results.name},
        {.name = "--resume", .flag = &s->resume},
        {.name = "--unordered", .flag = &s->queue.unordered},
        {.name = "--prompt", .text = &s->jobs.prompt},
        {.name = "--images", .text = &s->jobs.images},
        {.name = "--task", .text = &task},
        {.name = "--max-iou", .text = &max_iou},
        {.name = "--convention", .text = &convention},
        {.name = "--batch", .number = &s->rows, .least = 1, .most = 1024},
        {.name = "--readers", .number = &s->n_readers, .least = 1, .most = 256},
        {.name = "--max-new-tokens",
         .letter = "-n",
         .number = &s->runner.max_new_tokens,
         .least = 1,
         .most = INT32_MAX},
        {.name = "--max-context", .number = &s->runner.max_context, .least = 1, .most = INT32_MAX},
        {.name = "--temperature", .text = &sampling->temperature_text},
        {.name = "--top-k", .number = &sampling->top_k, .least = 0, .most = INT32_MAX},
        {.name = "--top-p", .text = &sampling->top_p_text},
        {.name = "--seed", .number = &sampling->seed, .least = 0, .most = INT64_MAX},
        {.name = "--stop", .text = &sampling->stop},
        {.name = "--beams", .number = &sampling->n_beams, .least = 1, .most = 64},
        {.name = "--length-penalty", .text = &sampling->length_penalty_text},
        {.name = "--processor", .text = &s->processor_name},
        {.name = "--literal", .flag = &s->literal},
        {.name = "--verbose", .letter = "-v", .flag = &s->log.verbose},
    };
    int status = tool_parse(verb, argc, argv, options, sizeof options / sizeof options[0], arguments, &s->shared);
    if (status < 0) status = tool_sampling_parse(verb, sampling);
    if (status < 0) status = take_task(verb, task, &s->jobs.task);
    if (status < 0 && !tool_answer_options(verb, max_iou, convention, &s->runner.answer)) status = TOOL_USAGE;
    if (status >= 0) return status;
    s->model_name = arguments[0];
    s->jobs.name = arguments[1];
    s->runner.n_threads = s->shared.n_threads;
    if (s->results.name && strcmp(s->results.name, "-") == 0) s->results.name = NULL;
    return check_options(verb, s);
}

static int batch(const tool_verb *verb, int argc, char **argv) {
    batch_state s = {.n_readers = 2, .runner = {.sampling = {.top_k = -1, .seed = -1}}};
    int status = parse_options(verb, argc, argv, &s);
    if (status >= 0) return status;
    tool_progress_init(&s.progress);
    s.log.progress = &s.progress;
    s.reader_log = (tool_log){.verbose = s.log.verbose, .clears = s.progress.enabled};
    s.runner.progress = on_progress;
    s.runner.progress_user = &s;
    status = run_all(&s);
    tool_queue_close(&s.queue);
    if (tool_results_close(&s.results) != TOOL_OK) status = TOOL_FAILED;
    tool_jobs_close(&s.jobs);
    pg_processor_close(&s.processor);
    pg_model_close(&s.model);
    tool_interrupt_close(&s.cancel);
    return status;
}

const tool_verb tool_batch = {"batch", help, 2, TOOL_OPTIONS_MODEL | TOOL_OPTIONS_THREADS | TOOL_OPTIONS_PIXELS, batch};
