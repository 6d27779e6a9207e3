/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* paligemma convert: a checkpoint folder with int8 or int4 weights, or with adapters merged. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "calibrate.h"
#include "system.h"

static const char help[] =
    "usage: paligemma convert [options] MODEL OUT\n"
    "\n"
    "Writes the checkpoint MODEL with quantized weights to the new folder OUT, which every verb takes as MODEL: int8\n"
    "makes it half as large as bf16, int4 a quarter; of int4 some matrices may be int8 (--int8-layers). OUT is new or "
    "empty; it appears when it is whole. Until then\n"
    "everything lies in OUT.partial, and what an interrupted conversion left there goes with the next one.\n"
    "\n"
    "      --weights KIND       int8 (default) or int4; with --adapter also stored, which is the default then\n"
    "      --adapter FOLDER     merge a LoRA adapter of MODEL into the weights; may be given several times. OUT is a\n"
    "                           model by itself, with --weights stored for others to read, too\n"
    "      --int8-layers LIST   beside int4: what is int8, names with commas between; embedding,attention is the mix\n"
    "                           to begin with. paligemma(1) has the names\n"
    "      --calibrate FOLDER   beside int4: round so that answers about these images stay near (an image or a folder; "
    "some\n"
    "                           dozens). It runs the model over each image with each prompt first. Interrupted, it "
    "keeps\n"
    "                           what it has in OUT.calibration, and the same command goes on from there\n"
    "      --prompts FILE       of --calibrate: a prompt a line, and behind a tab its answer; answers that are not "
    "given are\n"
    "                           the model's own (default: captions and two questions)\n"
    "      --max-file-size MB   larger weights are cut into several files (default: 5000)\n"
    "  -t, --threads N          threads (default: the CPUs this process may use)\n"
    "  -v, --verbose            tell what was written\n"
    "\n"
    "Exit status: 0 done, 1 failed, 2 wrong usage.\n";

/* OUT without slashes at its end, and ".calibration". malloc'ed; NULL: no memory */
static char *saved_name(const char *out) {
    char *name = NULL;
    size_t size = strlen(out);
    while (size > 1 && tool_is_slash(out[size - 1])) size--;
    return asprintf(&name, "%.*s.calibration", (int)size, out) < 0 ? NULL : name;
}

/* Calibrates when that is asked for, and converts. */
static int convert_to(const char *model, const char *out, pg_convert_options *options, tool_calibrate *calibrate,
                      tool_log *log) {
    tool_stage stage = TOOL_STAGE_CONVERT;
    pg_calibration *calibration = NULL;
    char *saved = saved_name(out);
    pg_status status = PG_OK;
    if (!saved) return tool_fail_text("no memory for a name");
    calibrate->saved = saved;
    if (calibrate->images) {
        status = tool_calibrate_run(calibrate, model, log, options->cancel, &calibration, &stage);
        options->calibration = calibration;
    }
    if (status >= 0) status = pg_model_convert(model, out, options);
    if (status >= 0 && calibration) unlink(saved);
    pg_calibration_close(&calibration);
    tool_progress_clear(log->progress);
    free(saved);
    return status == TOOL_TOLD ? TOOL_FAILED : status < 0 ? tool_fail(status, stage) : tool_close_stdout();
}

static int convert(const tool_verb *verb, int argc, char **argv) {
    const char *folders[2];
    int64_t megabytes = 0;
    tool_shared shared;
    tool_calibrate calibrate = {0};
    int verbose = 0;
    const tool_option list[] = {
        {.name = "--calibrate", .text = &calibrate.images},
        {.name = "--prompts", .text = &calibrate.prompts},
        {.name = "--max-file-size", .number = &megabytes, .least = 1, .most = 1000000000},
        {.name = "--verbose", .letter = "-v", .flag = &verbose},
    };
    int exit_status = tool_parse(verb, argc, argv, list, sizeof list / sizeof list[0], folders, &shared);
    if (exit_status >= 0) return exit_status;
    if (calibrate.images && shared.model.weights != PG_WEIGHTS_INT4)
        return tool_usage_error(verb, "--calibrate is for --weights int4");
    if (calibrate.images && shared.adapters.n > 0)
        return tool_usage_error(verb, "--calibrate is not for --adapter: merge first, then calibrate what was written");
    if (calibrate.prompts && !calibrate.images) return tool_usage_error(verb, "--prompts is for --calibrate");

    tool_progress progress;
    pg_cancel *cancel = NULL;
    pg_convert_options options;
    tool_progress_init(&progress);
    pg_convert_options_init(&options, sizeof options);
    options.weights = shared.model.weights;
    if (options.weights == PG_WEIGHTS_STORED && shared.adapters.n == 0) options.weights = PG_WEIGHTS_INT8;
    options.adapters = shared.adapters.texts;
    options.n_adapters = (int32_t)shared.adapters.n;
    options.int8_layers = shared.model.int8_layers;
    options.n_threads = calibrate.n_threads = shared.n_threads;
    options.max_file_bytes = (uint64_t)megabytes * 1000000;
    options.progress = tool_progress_update;
    options.progress_user = &progress;
    tool_log log = {.progress = &progress, .verbose = verbose};
    options.log = tool_log_line;
    options.log_user = &log;
    pg_status status = tool_interrupt_open(&cancel);
    options.cancel = cancel;
    exit_status = status < 0 ? tool_fail(status, TOOL_STAGE_CONVERT)
                             : convert_to(folders[0], folders[1], &options, &calibrate, &log);
    tool_interrupt_close(&cancel);
    return exit_status;
}

const tool_verb tool_convert = {"convert", help, 2, TOOL_OPTIONS_CONVERT | TOOL_OPTIONS_THREADS, convert};
