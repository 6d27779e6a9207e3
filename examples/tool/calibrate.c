/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* What `paligemma convert --calibrate` runs before it converts. */
#include "calibrate.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "walk.h"

enum { MAX_NEW_TOKENS = 32, SAVE_SECONDS = 60 };

static const char *const usual_prompts[] = {"caption en", "describe en", "answer en what is this?",
                                            "answer en what color is it?"};

typedef struct calibrate_state {
    const tool_calibrate *settings;
    tool_progress *progress;
    pg_cancel *cancel;
    tool_list images;
    char **prompts, **answers; /* of an answer that is not given: NULL */
    size_t n_prompts;
    uint64_t tag;
    pg_model *model;
    pg_processor *processor;
    pg_calibration *calibration;
    double saved; /* when */
} calibrate_state;

/* ---- what is asked ---- */

static int add_prompt(calibrate_state *s, const char *line) {
    char **prompts = realloc(s->prompts, (s->n_prompts + 1) * sizeof *prompts);
    if (prompts) s->prompts = prompts;
    char **answers = prompts ? realloc(s->answers, (s->n_prompts + 1) * sizeof *answers) : NULL;
    if (answers) s->answers = answers;
    char *copy = answers ? strdup(line) : NULL;
    if (!copy) return 0;
    char *tab = strchr(copy, '\t');
    if (tab) *tab++ = '\0';
    s->answers[s->n_prompts] = tab;
    s->prompts[s->n_prompts++] = copy;
    return 1;
}

static int read_prompts(calibrate_state *s) {
    const char *name = s->settings->prompts;
    char *line = NULL;
    size_t capacity = 0;
    ssize_t size;
    if (!name) {
        for (size_t i = 0; i < sizeof usual_prompts / sizeof *usual_prompts; i++)
            if (!add_prompt(s, usual_prompts[i])) return tool_fail_text("no memory for the prompts");
        return TOOL_OK;
    }
    FILE *file = fopen(name, "r");
    if (!file) return tool_fail_system(name, errno);
    int status = TOOL_OK;
    while (status == TOOL_OK && (size = getline(&line, &capacity, file)) >= 0) {
        while (size > 0 && (line[size - 1] == '\n' || line[size - 1] == '\r')) line[--size] = '\0';
        if (size > 0 && !add_prompt(s, line)) status = tool_fail_text("no memory for the prompts");
    }
    if (status == TOOL_OK && ferror(file)) status = tool_fail_system(name, errno);
    if (status == TOOL_OK && s->n_prompts == 0)
        status = tool_fail_text("%s: found no prompts, expected one a line", name);
    free(line);
    fclose(file);
    return status;
}

static void add_to_tag(calibrate_state *s, const char *text) {
    for (const unsigned char *c = (const unsigned char *)text;; c++) {
        s->tag = (s->tag ^ *c) * UINT64_C(0x100000001b3); /* FNV-1a, of the NUL too */
        if (!*c) return;
    }
}

/* Images and prompts, and a number for them. */
static int list_rows(calibrate_state *s) {
    if (!tool_list_add(&s->images, s->settings->images)) return tool_fail_text("no memory for the list of images");
    if (s->images.n == 0) return tool_fail_text("%s: found no PNG or JPEG images", s->settings->images);
    const int status = read_prompts(s);
    if (status != TOOL_OK) return status;
    s->tag = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < s->images.n; i++) {
        if (s->images.items[i].error)
            return tool_fail_text("%s: %s", s->images.items[i].path, s->images.items[i].error);
        add_to_tag(s, s->images.items[i].path);
    }
    for (size_t i = 0; i < s->n_prompts; i++) {
        add_to_tag(s, s->prompts[i]);
        add_to_tag(s, s->answers[i] ? s->answers[i] : "\t");
    }
    return TOOL_OK;
}

/* ---- one row ---- */

/* The model's own answer. */
static pg_status generate(const calibrate_state *s, const pg_image *image, const char *prompt, pg_result **out) {
    pg_inputs *inputs = NULL;
    pg_encode_options encode;
    pg_generate_options options;
    pg_encode_options_init(&encode, sizeof encode);
    encode.flags = PG_ENCODE_EXIF;
    pg_generate_options_init(&options, sizeof options);
    options.max_new_tokens = MAX_NEW_TOKENS;
    options.n_threads = s->settings->n_threads;
    options.cancel = s->cancel;
    pg_status status = pg_processor_encode(s->processor, image, prompt, &encode, &inputs);
    if (status >= 0) status = pg_generate(s->model, s->processor, inputs, &options, out);
    pg_inputs_close(&inputs);
    return status;
}

static pg_status add_answered(const calibrate_state *s, const pg_image *image, const char *prompt, const char *answer) {
    pg_inputs *inputs = NULL;
    pg_batch batch;
    pg_encode_options encode;
    pg_run_options run;
    pg_encode_options_init(&encode, sizeof encode);
    encode.flags = PG_ENCODE_EXIF;
    pg_run_options_init(&run, sizeof run);
    run.n_threads = s->settings->n_threads;
    pg_batch_init(&batch, sizeof batch);
    batch.n_prompts = batch.n_suffixes = batch.n_images = 1;
    batch.prompts = &prompt;
    batch.suffixes = &answer;
    batch.images = image;
    pg_status status = pg_processor_encode_batch(s->processor, &batch, &encode, &inputs);
    if (status >= 0) status = pg_calibration_add(s->calibration, inputs, &run); /* whole: a flag would tear the sums */
    pg_inputs_close(&inputs);
    return status;
}

static pg_status add_row(const calibrate_state *s, size_t row, tool_stage *stage) {
    const char *prompt = s->prompts[row % s->n_prompts], *answer = s->answers[row % s->n_prompts];
    pg_image image;
    pg_result *result = NULL;
    *stage = TOOL_STAGE_IMAGE;
    pg_status status = pg_image_from_path(&image, sizeof image, s->images.items[row / s->n_prompts].path);
    if (status >= 0 && !answer) {
        status = generate(s, &image, prompt, &result);
        answer = pg_result_get_text(result, 0);
    }
    if (status >= 0) status = add_answered(s, &image, prompt, answer);
    pg_result_close(&result);
    return status;
}

/* ---- all rows ---- */

static pg_status save(calibrate_state *s) {
    s->saved = tool_seconds();
    return pg_calibration_save(s->calibration, s->settings->saved, s->tag);
}

static pg_status add_rows(calibrate_state *s, tool_stage *stage) {
    const size_t n = s->images.n * s->n_prompts;
    int64_t done = 0;
    pg_status status = pg_calibration_get_rows(s->calibration, &done);
    s->saved = tool_seconds();
    tool_progress_images(s->progress, 0, n, 0);
    for (size_t row = (size_t)done; row < n && status >= 0 && !tool_interrupted(); row++) {
        status = add_row(s, row, stage);
        if (status < 0) break;
        tool_progress_images(s->progress, row + 1, n, 0);
        if (tool_seconds() - s->saved > SAVE_SECONDS) status = save(s);
    }
    *stage = TOOL_STAGE_CONVERT;
    /* an answer that was interrupted added nothing */
    if (status >= 0 || status == PG_ERROR_CANCELLED) {
        const pg_status kept = save(s);
        if (kept < 0) status = kept;
    }
    s->progress->n_images = 0; /* what comes is no image */
    tool_progress_clear(s->progress);
    return status >= 0 && tool_interrupted() ? PG_ERROR_CANCELLED : status;
}

static pg_status open_all(calibrate_state *s, const char *model, tool_log *log, tool_stage *stage) {
    pg_processor_options options;
    tool_shared stored = {0};
    pg_model_options_init(&stored.model, sizeof stored.model);
    pg_processor_options_init(&options, sizeof options);
    options.cancel = s->cancel;
    options.log = tool_log_line;
    options.log_user = log;
    pg_status status = tool_open_processor(model, NULL, &options, &s->processor, stage);
    if (status < 0) return status;
    *stage = TOOL_STAGE_CONVERT;
    status = tool_open_model(model, &stored, log, s->cancel, &s->model);
    if (status < 0) return status;
    if (access(s->settings->saved, F_OK) == 0)
        return pg_calibration_load(s->model, s->settings->saved, s->tag, &s->calibration);
    return pg_calibration_create(s->model, &s->calibration);
}

pg_status tool_calibrate_run(const tool_calibrate *settings, const char *model, tool_log *log, pg_cancel *cancel,
                             pg_calibration **out, tool_stage *stage) {
    calibrate_state s = {.settings = settings, .progress = log->progress, .cancel = cancel};
    *out = NULL;
    pg_status status = list_rows(&s) == TOOL_OK ? PG_OK : TOOL_TOLD;
    if (status >= 0) status = open_all(&s, model, log, stage);
    if (status >= 0) status = add_rows(&s, stage);
    if (status < 0)
        pg_calibration_close(&s.calibration);
    else
        *out = s.calibration;
    pg_processor_close(&s.processor);
    pg_model_close(&s.model);
    for (size_t i = 0; i < s.n_prompts; i++) free(s.prompts[i]);
    free(s.prompts);
    free(s.answers);
    tool_list_free(&s.images);
    return status;
}
