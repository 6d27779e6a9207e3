/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* paligemma run: an image and a prompt go in, text comes out as it is made. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tool.h"

static const char help[] =
    "usage: paligemma run [options] MODEL IMAGE PROMPT\n"
    "\n"
    "Answers PROMPT about IMAGE, by default greedily, and prints the text as it is made.\n"
    "\n"
    "  MODEL    a checkpoint folder, or a model id in the local Hugging Face cache\n"
    "  IMAGE    a PNG or JPEG file, or a pipe that gives one; - reads stdin. It is turned as its EXIF orientation\n"
    "           says, as transformers' load_image does (--no-exif leaves it as it is stored)\n"
    "  PROMPT   such as 'caption en', 'answer en what is this?', 'detect cat ; dog', 'ocr'\n"
    "\n"
    "  -n, --max-new-tokens N   stop after N tokens (default: what MODEL's generation_config.json says,\n"
    "                           else 128)\n"
    "      --max-context N      stop when prompt and text have N tokens (default: memory decides)\n"
    "  -t, --threads N          compute on N threads (default: the CPUs this process may use);\n"
    "                           the text does not depend on it\n"
    "      --processor FOLDER   tokenizer and image settings from another folder or model id, such as\n"
    "                           the base model's when MODEL has none\n"
    "      --json               print nothing but one line of JSON at the end: text, ids, prompt_ids,\n"
    "                           stop (eos, length, context, string or time), load_s, image_s, prefill_s, decode_s, "
    "tokens_per_s;\n"
    "                           error alone when it fails\n"
    "      --temperature T      draw tokens at random, from 0 (the likeliest) over 1 to 1000\n"
    "      --top-k K            draw from the K likeliest tokens (default 50; 0: all)\n"
    "      --top-p P            draw from the likeliest tokens that have P of the probability together\n"
    "      --seed N             the same N, the same answer (default 0); any of these four draws\n"
    "      --stop TEXT          stop with the token that completes TEXT\n"
    "      --scores             with --json: log_probs of the tokens, and alternatives: [id, log-probability]\n"
    "                           of the 5 likeliest at every step\n"
    "      --weights FORMAT     stored (default), int8 or int4: quantized when the model opens\n"
    "      --arithmetic KIND    f32, or bf16 in large products, where that is faster on this CPU\n"
    "      --in-memory          read the weights into memory instead of mapping the files: for files that may\n"
    "                           change or fail while it runs\n"
    "      --literal            take <eos>, <image> and other special tokens in PROMPT as plain text\n"
    "      --no-exif            do not apply the EXIF orientation\n"
    "  -v, --verbose            times, and what the library has to tell, on stderr\n"
    "      --                   what follows is no option\n"
    "\n"
    "Exit status: 0 done, 1 failed, 2 wrong usage; after Ctrl-C it dies of SIGINT.\n";

typedef struct run_state {
    pg_model *model;
    pg_processor *processor;
    pg_inputs *inputs;
    pg_result *result;
    pg_cancel *cancel;
    unsigned char *image_bytes; /* stdin's */
    tool_progress progress;
    tool_shared shared;
    const char *processor_folder; /* NULL: the model's */
    tool_sampling sampling;
    int64_t max_new_tokens, max_context;
    int json;
    char *text; /* with --json: the pieces so far; they may hold NUL bytes */
    size_t size, capacity;
    int printed; /* some text went to stdout */
    int failed;  /* the error of on_text: 'w' stdout, 'm' memory */
    double load_s, image_s;
} run_state;

static int32_t on_text(void *user, int64_t row, const char *text, size_t size, int64_t token) {
    run_state *s = user;
    (void)row;
    (void)token;
    tool_progress_clear(&s->progress);
    if (!size) return 0;
    if (!s->json) {
        s->printed = 1;
        if (tool_write_text(text, size)) return 0;
        s->failed = 'w';
        return 1;
    }
    if (size > s->capacity - s->size) {
        size_t capacity = 2 * s->capacity + size;
        char *grown = realloc(s->text, capacity);
        if (!grown) {
            s->failed = 'm';
            return 1;
        }
        s->text = grown;
        s->capacity = capacity;
    }
    memcpy(s->text + s->size, text, size);
    s->size += size;
    return 0;
}

static void on_log(void *user, int32_t level, const char *message) {
    tool_progress_clear(user);
    if (level <= PG_LOG_INFO) fprintf(stderr, "%s\n", message);
}

static json_t *ids_to_json(const pg_tensor *ids) {
    json_t *list = json_array();
    const int64_t *data = ids->data;
    int64_t n = ids->n_dims == 2 ? ids->shape[0] * ids->shape[1] : ids->shape[0];
    for (int64_t i = 0; i < n; i++) json_array_append_new(list, json_integer(data[i]));
    return list;
}

static double tokens_per_second(const pg_result_info *info) {
    return info->n_new_tokens > 1 && info->decode_seconds > 0 ? (double)(info->n_new_tokens - 1) / info->decode_seconds
                                                              : 0;
}

static int print_json(const run_state *s, const pg_result_info *info) {
    pg_tensor ids = {.struct_size = sizeof ids}, prompt_ids = {.struct_size = sizeof prompt_ids};
    pg_status status = pg_result_get_ids(s->result, 0, &ids);
    if (status >= 0) status = pg_inputs_get_tensor(s->inputs, "input_ids", &prompt_ids);
    if (status < 0) return tool_fail(status, TOOL_STAGE_GENERATE);
    json_t *object = json_pack("{s:o, s:o, s:o, s:s, s:f, s:f, s:f, s:f, s:f}", "text",
                               json_stringn(s->size ? s->text : "", s->size), "ids", ids_to_json(&ids), "prompt_ids",
                               ids_to_json(&prompt_ids), "stop", tool_stop_name(info->stop), "load_s", s->load_s,
                               "image_s", s->image_s + info->vision_seconds, "prefill_s", info->prefill_seconds,
                               "decode_s", info->decode_seconds, "tokens_per_s", tokens_per_second(info));
    if (object && s->sampling.scores) status = tool_scores_to_json(s->result, object);
    if (status >= 0) return tool_print_json(object);
    json_decref(object);
    return tool_fail(status, TOOL_STAGE_GENERATE);
}

static int report(run_state *s, int verbose) {
    pg_result_info info = {.struct_size = sizeof info};
    pg_status status = pg_result_get_info(s->result, 0, &info);
    if (status < 0) return tool_fail(status, TOOL_STAGE_GENERATE);
    int exit_status = TOOL_OK;
    if (s->json) {
        exit_status = print_json(s, &info);
    } else {
        putchar('\n');
        exit_status = tool_close_stdout();
    }
    if (!s->json && info.stop == PG_STOP_LENGTH && (verbose || isatty(STDERR_FILENO)))
        fprintf(stderr, "[stopped at %lld tokens; --max-new-tokens allows more]\n", (long long)info.n_new_tokens);
    if (!s->json && info.stop == PG_STOP_CONTEXT && (verbose || isatty(STDERR_FILENO)))
        fprintf(stderr, "[stopped at %lld tokens with the prompt; --max-context allows more]\n",
                (long long)(info.n_prompt_tokens + info.n_new_tokens));
    if (verbose)
        fprintf(stderr,
                "load %.3f s, image %.3f s, %lld prompt tokens %.3f s, %lld new tokens %.3f s (%.1f a second)\n",
                s->load_s, s->image_s + info.vision_seconds, (long long)info.n_prompt_tokens, info.prefill_seconds,
                (long long)info.n_new_tokens, info.decode_seconds, tokens_per_second(&info));
    return exit_status;
}

static int run_with(run_state *s, const char **arguments, uint32_t flags, int verbose) {
    pg_image image;
    size_t n_bytes = 0;
    pg_status status =
        strcmp(arguments[1], "-") == 0 && !(s->image_bytes = tool_read_stdin(&n_bytes)) ? PG_ERROR_IO : PG_OK;
    if (status < 0) return TOOL_FAILED; /* told already */
    if ((status = tool_interrupt_open(&s->cancel)) < 0) return tool_fail(status, TOOL_STAGE_MODEL);

    pg_model_options model_options = s->shared.model;
    pg_processor_options processor_options;
    pg_processor_options_init(&processor_options, sizeof processor_options);
    model_options.cancel = s->cancel;
    model_options.progress = tool_progress_update;
    model_options.log = processor_options.log = verbose ? on_log : NULL;
    model_options.progress_user = model_options.log_user = processor_options.log_user = &s->progress;
    processor_options.cancel = s->cancel;

    /* The image first: a mistake in its name must not cost the time to open, and perhaps to quantize, the model. */
    tool_stage stage;
    double start = tool_seconds();
    status = tool_open_processor(arguments[0], s->processor_folder, &processor_options, &s->processor, &stage);
    if (status < 0) return tool_fail(status, stage);
    double opened = tool_seconds();
    s->load_s = opened - start;

    pg_encode_options encode_options;
    pg_encode_options_init(&encode_options, sizeof encode_options);
    encode_options.flags = flags;
    encode_options.cancel = s->cancel;
    status = s->image_bytes ? pg_image_from_bytes(&image, sizeof image, s->image_bytes, n_bytes)
                            : pg_image_from_path(&image, sizeof image, arguments[1]);
    if (status >= 0) status = pg_processor_encode(s->processor, &image, arguments[2], &encode_options, &s->inputs);
    if (status < 0) return tool_fail(status, TOOL_STAGE_IMAGE);
    double encoded = tool_seconds();
    s->image_s = encoded - opened;

    status = pg_model_open(arguments[0], &model_options, &s->model);
    tool_progress_clear(&s->progress);
    if (status < 0) return tool_fail(status, TOOL_STAGE_MODEL);
    s->load_s += tool_seconds() - encoded;

    pg_generate_options options;
    pg_sampling_options sampling;
    pg_generate_options_init(&options, sizeof options);
    status = tool_sampling_apply(&s->sampling, s->model, &sampling, &options);
    if (status < 0) return tool_fail(status, TOOL_STAGE_GENERATE);
    options.max_new_tokens = (int32_t)s->max_new_tokens;
    options.max_context = s->max_context;
    options.n_threads = s->shared.n_threads;
    options.on_text = on_text;
    options.on_text_user = s;
    options.progress = tool_progress_update;
    options.progress_user = &s->progress;
    options.cancel = s->cancel;
    status = pg_generate(s->model, s->processor, s->inputs, &options, &s->result);
    tool_progress_clear(&s->progress);
    if (s->failed == 'm') return tool_fail_text("no memory for the text");
    if (s->failed) return tool_close_stdout();
    if (status < 0) {
        if (s->printed) putchar('\n'), fflush(stdout);
        return tool_fail(status, TOOL_STAGE_GENERATE);
    }
    return report(s, verbose);
}

static int run(const tool_verb *verb, int argc, char **argv) {
    int json = 0, literal = 0, no_exif = 0, verbose = 0;
    int64_t max_new_tokens = 0, max_context = 0;
    tool_sampling sampling = {.top_k = -1, .seed = -1};
    const char *arguments[3], *processor_folder = NULL;
    tool_shared shared;
    const tool_option options[] = {
        {.name = "--max-new-tokens", .letter = "-n", .number = &max_new_tokens, .least = 1, .most = INT32_MAX},
        {.name = "--max-context", .number = &max_context, .least = 1, .most = INT32_MAX},
        {.name = "--json", .flag = &json},
        {.name = "--processor", .text = &processor_folder},
        {.name = "--literal", .flag = &literal},
        {.name = "--no-exif", .flag = &no_exif},
        {.name = "--temperature", .text = &sampling.temperature_text},
        {.name = "--top-k", .number = &sampling.top_k, .least = 0, .most = INT32_MAX},
        {.name = "--top-p", .text = &sampling.top_p_text},
        {.name = "--seed", .number = &sampling.seed, .least = 0, .most = INT64_MAX},
        {.name = "--stop", .text = &sampling.stop},
        {.name = "--scores", .flag = &sampling.scores},
        {.name = "--verbose", .letter = "-v", .flag = &verbose},
    };
    int status = tool_parse(verb, argc, argv, options, sizeof options / sizeof options[0], arguments, &shared);
    if (status < 0) status = tool_sampling_parse(verb, &sampling);
    if (status < 0 && sampling.scores && !json) status = tool_usage_error(verb, "--scores needs --json");
    if (status >= 0) return status;

    run_state s = {.sampling = sampling,
                   .json = json,
                   .shared = shared,
                   .processor_folder = processor_folder,
                   .max_new_tokens = max_new_tokens,
                   .max_context = max_context};
    if (json) tool_json_errors();
    tool_progress_init(&s.progress);
    uint32_t flags = (literal ? PG_ENCODE_LITERAL : 0u) | (no_exif ? 0u : PG_ENCODE_EXIF);
    status = run_with(&s, arguments, flags, verbose);
    pg_result_close(&s.result);
    pg_inputs_close(&s.inputs);
    pg_processor_close(&s.processor);
    pg_model_close(&s.model);
    free(s.image_bytes);
    free(s.text);
    tool_interrupt_close(&s.cancel);
    return status;
}

const tool_verb tool_run = {"run", help, 3, TOOL_OPTIONS_MODEL | TOOL_OPTIONS_THREADS, run};
