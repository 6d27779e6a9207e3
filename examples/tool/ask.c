/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* paligemma ask: one image, and a prompt a line. The image is encoded once. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "images.h"
#include "lines.h"
#include "objects.h"
#include "tool.h"

static const char help[] =
    "usage: paligemma ask [options] MODEL IMAGE\n"
    "\n"
    "Answers a prompt for each line of stdin, all about one IMAGE, which the model looks at once. Every\n"
    "line is answered by itself: the model knows nothing of those before. On a terminal lines are edited\n"
    "and kept in a history (arrow keys; Ctrl-R searches), Ctrl-C cancels an answer, Ctrl-D ends, and boxes\n"
    "are also shown as 'detect' shows them.\n"
    "\n"
    "  MODEL    a checkpoint folder, or a model id in the local Hugging Face cache\n"
    "  IMAGE    a PNG or JPEG file, turned as its EXIF orientation says\n"
    "\n"
    "  /help         what the lines may be\n"
    "  /image FILE   look at another image\n"
    "  /quit         end, as Ctrl-D does\n"
    "\n"
    "  -n, --max-new-tokens N   stop after N tokens (default: what MODEL's generation_config.json says,\n"
    "                           else 128)\n"
    "      --json               a line of JSON for each prompt: prompt, text, ids, stop, prefill_s,\n"
    "                           decode_s; or prompt and error\n"
    "      --temperature T      draw tokens at random, from 0 (the likeliest) over 1 to 1000\n"
    "      --top-k K            draw from the K likeliest tokens (default 50; 0: all)\n"
    "      --top-p P            draw from the likeliest tokens that have P of the probability together\n"
    "      --seed N             the same N, the same answers (default 0); any of these four draws\n"
    "  -t, --threads N          compute on N threads (default: the CPUs this process may use)\n"
    "      --processor FOLDER   tokenizer and image settings from another folder or model id\n"
    "      --weights FORMAT     stored (default), int8 or int4: quantized when the model opens\n"
    "      --int8-layers LIST   beside int4: what is int8, such as embedding,attention\n"
    "      --adapter FOLDER     add a LoRA adapter of the model, or an id; may be given several times\n"
    "      --arithmetic KIND    f32, or bf16 in large products, where that is faster on this CPU\n"
    "      --kv KIND            KV cache in f32, or in bf16 (default beside int8 and int4)\n"
    "      --in-memory          read the weights into memory instead of mapping the files\n"
    "      --literal            take <eos>, <image> and other special tokens in prompts as plain "
    "text\n" TOOL_HELP_PIXELS
    "  -v, --verbose            what the library has to tell, on stderr\n"
    "      --                   what follows is no option\n"
    "\n"
    "Exit status: 0 done, 1 failed, also when a line did, 2 wrong usage; where stdin is no terminal it\n"
    "dies of SIGINT after Ctrl-C.\n";

static const char commands[] =
    "A line is a prompt, such as 'caption en', 'answer en what is this?', 'detect cat ; dog' or 'ocr';\n"
    "which ones a model knows depends on its training. Each is answered by itself.\n"
    "  /image FILE   look at another image\n"
    "  /quit         end, as Ctrl-D does; Ctrl-C cancels an answer\n"
    "  //...         a prompt that begins with /\n";

typedef struct ask_state {
    pg_model *model;
    pg_processor *processor;
    pg_features *features;
    pg_cancel *cancel;
    tool_lines *lines;
    tool_progress progress;
    tool_log log;
    tool_shared shared;
    tool_sampling sampling;
    const char *folder, *processor_folder; /* the latter NULL: the model's */
    int64_t max_new_tokens;
    uint32_t image_flags, prompt_flags;
    int32_t width, height; /* of the image */
    int json, printed;
    size_t n_failed;
} ask_state;

/* ---- the image ---- */

/* Replaces the features when all went well. Returns an exit status. */
static int look_at(ask_state *s, const char *path) {
    tool_source source = {.path = path};
    pg_inputs *inputs = NULL;
    pg_features *features = NULL;
    pg_encode_options encode;
    pg_run_options options;
    pg_encode_options_init(&encode, sizeof encode);
    pg_run_options_init(&options, sizeof options);
    encode.flags = s->image_flags;
    encode.cancel = options.cancel = s->cancel;
    options.n_threads = s->shared.n_threads;
    options.progress = tool_progress_update;
    options.progress_user = &s->progress;
    tool_stage stage = TOOL_STAGE_IMAGE;
    pg_status status = pg_image_from_path(&source.image, sizeof source.image, path);
    if (status >= 0) status = pg_processor_encode(s->processor, &source.image, NULL, &encode, &inputs);
    if (status >= 0 &&
        !s->model) { /* the image first: a mistake in its name must not cost the time to open the model */
        stage = TOOL_STAGE_MODEL;
        status = tool_open_model(s->folder, &s->shared, &s->log, s->cancel, &s->model);
    }
    if (status >= 0) {
        stage = TOOL_STAGE_GENERATE;
        status = pg_features_create(s->model, inputs, &options, &features);
    }
    tool_progress_clear(&s->progress);
    if (status >= 0) status = tool_image_size(inputs, &s->width, &s->height);
    if (status >= 0) {
        pg_features_close(&s->features);
        s->features = features;
    }
    pg_inputs_close(&inputs);
    return status < 0 ? tool_fail(status, stage) : TOOL_OK;
}

/* ---- a prompt ---- */

static int32_t on_text(void *user, int64_t row, const char *text, size_t size, int64_t token) {
    ask_state *s = user;
    (void)row;
    (void)token;
    tool_progress_clear(&s->progress);
    if (!size || s->json) return 0;
    s->printed = 1;
    return tool_write_text(text, size) ? 0 : 1;
}

/* For a person: why the answer ends where it does. */
static void tell_limit(const ask_state *s, const pg_result *result) {
    pg_result_info info = {.struct_size = sizeof info};
    if (!tool_lines_are_typed(s->lines) || pg_result_get_info(result, 0, &info) < 0 || info.stop != PG_STOP_LENGTH)
        return;
    fprintf(stderr, "[stopped at %lld tokens; --max-new-tokens allows more]\n", (long long)info.n_new_tokens);
}

/* For a person: the boxes of an answer, which says them in numbers of its own. */
static void tell_boxes(const ask_state *s, const pg_result *result) {
    pg_answer *answer = NULL;
    pg_answer_options options;
    pg_answer_options_init(&options, sizeof options);
    options.width = s->width;
    options.height = s->height;
    if (s->json || !tool_lines_are_typed(s->lines) || pg_answer_create(s->processor, result, 0, &options, &answer) < 0)
        return;
    for (int64_t i = 0; i < pg_answer_get_n_objects(answer); i++) {
        pg_object object = {.struct_size = sizeof object};
        if (i == 0) puts(TOOL_OBJECT_HEADING);
        if (pg_answer_get_object(answer, i, &object) >= 0) tool_print_object(&object, 0, -1);
    }
    pg_answer_close(&answer);
}

static int print_json(const char *prompt, const pg_result *result) {
    pg_tensor ids = {.struct_size = sizeof ids};
    pg_result_info info = {.struct_size = sizeof info};
    pg_status status = pg_result_get_ids(result, 0, &ids);
    if (status >= 0) status = pg_result_get_info(result, 0, &info);
    if (status < 0) return tool_fail(status, TOOL_STAGE_GENERATE);
    json_t *list = json_array();
    for (int64_t i = 0; i < info.n_new_tokens; i++)
        json_array_append_new(list, json_integer(((const int64_t *)ids.data)[i]));
    return tool_print_json(json_pack("{s:s, s:s, s:o, s:s, s:f, s:f}", "prompt", prompt, "text",
                                     pg_result_get_text(result, 0), "ids", list, "stop", tool_stop_name(info.stop),
                                     "prefill_s", info.prefill_seconds, "decode_s", info.decode_seconds));
}

static pg_status generate(ask_state *s, const char *prompt, pg_result **result) {
    pg_encode_options encode;
    pg_generate_options options;
    tool_sampling_options sampling;
    pg_inputs *inputs = NULL;
    pg_encode_options_init(&encode, sizeof encode);
    pg_generate_options_init(&options, sizeof options);
    encode.flags = s->prompt_flags;
    encode.cancel = s->cancel;
    pg_status status = pg_processor_encode(s->processor, NULL, prompt, &encode, &inputs);
    if (status >= 0) status = tool_sampling_apply(&s->sampling, s->model, &sampling, &options);
    options.flags |= PG_GENERATE_LOG_PROBS;
    options.max_new_tokens = (int32_t)s->max_new_tokens;
    options.n_threads = s->shared.n_threads;
    options.features = s->features;
    options.on_text = on_text;
    options.on_text_user = s;
    options.progress = tool_progress_update;
    options.progress_user = &s->progress;
    options.cancel = s->cancel;
    if (status >= 0) status = pg_generate(s->model, s->processor, inputs, &options, result);
    tool_progress_clear(&s->progress);
    pg_inputs_close(&inputs);
    return status;
}

/* Returns an exit status. */
static int answer(ask_state *s, const char *prompt) {
    pg_result *result = NULL;
    s->printed = 0;
    tool_json_prompt(prompt);
    const pg_status status = generate(s, prompt, &result);
    const int cancelled = tool_interrupted() == SIGINT && tool_lines_are_typed(s->lines);
    int exit_status = TOOL_OK;
    if (cancelled) tool_clear_stdout(); /* a write may have been interrupted */
    if (!tool_output_failed() && (s->printed || (status >= 0 && !s->json))) putchar('\n');
    if (result && !cancelled) tell_boxes(s, result);
    if (cancelled)
        fputs("[cancelled]\n", stderr);
    else if (tool_output_failed())
        exit_status = tool_close_stdout();
    else if (status < 0)
        exit_status = tool_fail(status, TOOL_STAGE_PROMPT);
    else
        exit_status = s->json ? print_json(prompt, result) : tool_close_stdout();
    if (result) tell_limit(s, result);
    tool_json_prompt(NULL);
    pg_result_close(&result);
    return exit_status;
}

/* ---- the conversation ---- */

/* The rest of a line that is this command; NULL: it is another. */
static const char *command_of(const char *line, const char *name) {
    const size_t size = strlen(name);
    if (strncmp(line, name, size) != 0 || (line[size] && line[size] != ' ')) return NULL;
    return line + size + strspn(line + size, " ");
}

/* Takes a line. Returns an exit status, TOOL_STOP: it is to end. */
static int take(ask_state *s, char *line) {
    size_t size = strlen(line);
    while (size && strchr(" \t\r", line[size - 1])) line[--size] = '\0';
    line += strspn(line, " \t");
    if (!*line) return TOOL_OK;
    if (*line != '/') return answer(s, line);
    if (line[1] == '/') return answer(s, line + 1);
    if (command_of(line, "/quit")) return TOOL_STOP;
    const char *path = command_of(line, "/image");
    if (path && *path) return look_at(s, path);
    if (command_of(line, "/help")) {
        fputs(commands, s->json ? stderr : stdout);
        return s->json ? TOOL_OK : tool_close_stdout();
    }
    return path ? tool_fail_text("/image needs the name of a file")
                : tool_fail_text("no such command: '%s'; /help lists them, // begins a prompt with /", line);
}

/* Ctrl-C of a person cancels what is being done, and no more. Returns whether it was that. */
static int is_cancelled(ask_state *s) { return tool_lines_are_typed(s->lines) && tool_interrupt_again(s->cancel); }

static int converse(ask_state *s) {
    for (;;) {
        char *line = tool_lines_read(s->lines);
        if (!line) {
            if (tool_lines_are_typed(s->lines)) fputc('\n', stderr);
            if (is_cancelled(s)) continue;
            break;
        }
        const int status = take(s, line);
        free(line);
        if (is_cancelled(s)) continue;
        if (status == TOOL_STOP || tool_interrupted()) break;
        if (tool_output_failed()) return TOOL_FAILED;
        s->n_failed += status != TOOL_OK;
    }
    return s->n_failed ? TOOL_FAILED : TOOL_OK;
}

static int ask_all(ask_state *s, const char *image) {
    int exit_status = tool_begin(s->folder, s->processor_folder, &s->log, &s->cancel, &s->processor);
    if (exit_status >= 0) return exit_status;
    exit_status = look_at(s, image);
    if (exit_status != TOOL_OK) return exit_status;
    if (!(s->lines = tool_lines_open("> "))) return tool_fail_text("no memory for lines");
    if (tool_lines_are_typed(s->lines)) fputs("/help tells what lines may be; Ctrl-D ends\n", stderr);
    return converse(s);
}

static int run(const tool_verb *verb, int argc, char **argv) {
    ask_state s = {.sampling = {.top_k = -1, .seed = -1}};
    int literal = 0;
    const char **arguments = calloc((size_t)argc + 3, sizeof *arguments); /* two and a NULL at the least */
    if (!arguments) return tool_fail_text("no memory for the arguments");
    const tool_option options[] = {
        {.name = "--max-new-tokens", .letter = "-n", .number = &s.max_new_tokens, .least = 1, .most = INT32_MAX},
        {.name = "--json", .flag = &s.json},
        {.name = "--processor", .text = &s.processor_folder},
        {.name = "--literal", .flag = &literal},
        {.name = "--temperature", .text = &s.sampling.temperature_text},
        {.name = "--top-k", .number = &s.sampling.top_k, .least = 0, .most = INT32_MAX},
        {.name = "--top-p", .text = &s.sampling.top_p_text},
        {.name = "--seed", .number = &s.sampling.seed, .least = 0, .most = INT64_MAX},
        {.name = "--verbose", .letter = "-v", .flag = &s.log.verbose},
    };
    int status = tool_parse(verb, argc, argv, options, sizeof options / sizeof options[0], arguments, &s.shared);
    if (status < 0) status = tool_sampling_parse(verb, &s.sampling);
    if (status < 0 && strcmp(arguments[1], "-") == 0)
        status = tool_usage_error(verb, "the image is '-': stdin has the prompts; give a file");
    if (status < 0 && arguments[2])
        status = tool_usage_error(verb, "prompts come from stdin: found '%s'; 'paligemma run' takes one as an argument",
                                  arguments[2]);
    const char *image = arguments[1];
    s.folder = arguments[0];
    free(arguments);
    if (status >= 0) return status;
    s.image_flags = s.shared.image_flags;
    s.prompt_flags = literal ? PG_ENCODE_LITERAL : 0u;
    tool_progress_init(&s.progress);
    s.log.progress = &s.progress;
    status = ask_all(&s, image);
    tool_lines_close(&s.lines);
    pg_features_close(&s.features);
    pg_processor_close(&s.processor);
    pg_model_close(&s.model);
    tool_interrupt_close(&s.cancel);
    return status;
}

const tool_verb tool_ask = {"ask", help, 2,
                            TOOL_OPTIONS_MODEL | TOOL_OPTIONS_THREADS | TOOL_OPTIONS_PIXELS | TOOL_MORE_ARGUMENTS, run};
