/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* paligemma run: an image and a prompt go in, text comes out as it is made. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "images.h"
#include "tool.h"

static const char help[] =
    "usage: paligemma run [options] MODEL IMAGE... PROMPT\n"
    "\n"
    "Answers PROMPT about IMAGE, by default greedily, and prints the text as it is made. With several\n"
    "images each gets a line: its name, a colon and the text.\n"
    "\n"
    "  MODEL    a checkpoint folder, or a model id in the local Hugging Face cache\n"
    "  IMAGE    PNG or JPEG files, or folders, of which all are taken, or a pipe that gives an image; -\n"
    "           reads one from stdin. They are turned as their EXIF orientation says, as transformers'\n"
    "           load_image does (--no-exif leaves them as they are stored)\n"
    "  PROMPT   such as 'caption en', 'answer en what is this?', 'detect cat ; dog', 'ocr'\n"
    "\n"
    "  -n, --max-new-tokens N   stop after N tokens (default: what MODEL's generation_config.json says,\n"
    "                           else 128)\n"
    "      --max-context N      stop when prompt and text have N tokens (default: memory decides)\n"
    "  -t, --threads N          compute on N threads (default: the CPUs this process may use);\n"
    "                           the text does not depend on it\n"
    "      --processor FOLDER   tokenizer and image settings from another folder or model id, such as\n"
    "                           the base model's when MODEL has none\n"
    "      --json               print nothing but one line of JSON for each image: image, text, ids,\n"
    "                           prompt_ids (with one image), stop (eos, length, context, string or time),\n"
    "                           load_s, image_s, prefill_s, decode_s, tokens_per_s; an image that fails:\n"
    "                           error, with several images also image\n" TOOL_HELP_IMAGES
    "      --temperature T      draw tokens at random, from 0 (the likeliest) over 1 to 1000\n"
    "      --top-k K            draw from the K likeliest tokens (default 50; 0: all)\n"
    "      --top-p P            draw from the likeliest tokens that have P of the probability together\n"
    "      --seed N             the same N, the same answer (default 0); any of these four draws\n"
    "      --stop TEXT          stop with the token that completes TEXT\n"
    "      --beams N            follow the N likeliest texts at once, 2 to 64, and print the best (1: none;\n"
    "                           default: what generation_config.json says)\n"
    "      --length-penalty X   with --beams: above 0 favours long texts (default 1)\n"
    "      --texts N            print N texts, a line each: of --beams, or drawn; with --json texts: text,\n"
    "                           ids, stop and, of beams, score; with several images needs --json\n"
    "      --scores             with --json: log_probs of the tokens, and alternatives: [id, log-probability]\n"
    "                           of the 5 likeliest at every step\n"
    "      --attention OUT      draw what the new tokens attend to in the image, as a heat map over it, and write\n"
    "                           a PNG file of its size; several images: into a folder. One more pass\n"
    "      --attention-layer N  of layer N, 0 the first (default: the mean over all; over heads in any case)\n"
    "      --weights FORMAT     stored (default), int8 or int4: quantized when the model opens\n"
    "      --int8-layers LIST   beside int4: what is int8, such as embedding,attention\n"
    "      --adapter FOLDER     add a LoRA adapter of the model, or an id; may be given several times\n"
    "      --arithmetic KIND    f32, or bf16 in large products, where that is faster on this CPU\n"
    "      --kv KIND            KV cache in f32, or in bf16 (default beside int8 and int4)\n"
    "      --in-memory          read the weights into memory instead of mapping the files: for files that may\n"
    "                           change or fail while it runs\n"
    "      --literal            take <eos>, <image> and other special tokens in PROMPT as plain text\n" TOOL_HELP_PIXELS
        TOOL_HELP_FIT
    "  -v, --verbose            times, and what the library has to tell, on stderr\n"
    "      --                   what follows is no option\n"
    "\n" TOOL_HELP_STATUS;

typedef struct run_state {
    pg_model *model; /* opened when the first image is read */
    pg_processor *processor;
    pg_cancel *cancel;
    tool_progress progress;
    tool_log log;
    tool_shared shared;
    tool_images *images;
    const char *folder, *prompt;
    const char *processor_folder; /* NULL: the model's */
    tool_sampling sampling;
    const char *attention; /* --attention, or NULL */
    int64_t max_new_tokens, max_context, attention_layer;
    uint32_t encode_flags;
    int json, verbose;
    double processor_s, load_s;
} run_state;

/* What one image gave. */
typedef struct run_answer {
    run_state *s;
    tool_source *source;
    pg_inputs *inputs;
    pg_features *features; /* with --attention: two passes take them */
    pg_result *result;
    char *text; /* with --json and for many images: the pieces so far; they may hold NUL bytes */
    size_t size, capacity;
    int printed; /* some text went to stdout */
    int failed;  /* the error of on_text: 'w' stdout, 'm' memory */
    double image_s;
} run_answer;

static int is_streamed(const run_state *s) {
    return !s->json && !tool_images_many(s->images) && s->sampling.n_texts < 2;
}

static int32_t on_text(void *user, int64_t row, const char *text, size_t size, int64_t token) {
    run_answer *a = user;
    (void)token;
    if (!size || row > 0) return 0; /* other texts are read from the result */
    if (is_streamed(a->s)) {
        tool_progress_clear(&a->s->progress);
        a->printed = 1;
        if (tool_write_text(text, size)) return 0;
        a->failed = 'w';
        return 1;
    }
    if (size > a->capacity - a->size) {
        size_t capacity = 2 * a->capacity + size;
        char *grown = realloc(a->text, capacity);
        if (!grown) {
            a->failed = 'm';
            return 1;
        }
        a->text = grown;
        a->capacity = capacity;
    }
    memcpy(a->text + a->size, text, size);
    a->size += size;
    return 0;
}

static double tokens_per_second(const pg_result_info *info) {
    return info->n_new_tokens > 1 && info->decode_seconds > 0 ? (double)(info->n_new_tokens - 1) / info->decode_seconds
                                                              : 0;
}

static int print_json(const run_answer *a, const pg_result_info *info) {
    const run_state *s = a->s;
    pg_tensor ids = {.struct_size = sizeof ids}, prompt_ids = {.struct_size = sizeof prompt_ids};
    pg_status status = pg_result_get_ids(a->result, 0, &ids);
    if (status >= 0) status = pg_inputs_get_tensor(a->inputs, "input_ids", &prompt_ids);
    if (status < 0) return tool_fail(status, TOOL_STAGE_GENERATE);
    json_t *object = json_object();
    tool_json_set_image(object, a->source->path);
    json_object_set_new(object, "text", json_stringn(a->size ? a->text : "", a->size));
    json_object_set_new(object, "ids", tool_ids_to_json(&ids));
    if (!tool_images_many(s->images)) json_object_set_new(object, "prompt_ids", tool_ids_to_json(&prompt_ids));
    json_object_update_new(
        object,
        json_pack("{s:s, s:f, s:f, s:f, s:f, s:f}", "stop", tool_stop_name(info->stop), "load_s",
                  s->processor_s + s->load_s, "image_s", a->image_s + info->vision_seconds, "prefill_s",
                  info->prefill_seconds, "decode_s", info->decode_seconds, "tokens_per_s", tokens_per_second(info)));
    if (s->sampling.scores) status = tool_scores_to_json(a->result, object);
    if (status >= 0 && s->sampling.n_texts > 1) status = tool_texts_to_json(a->result, object);
    if (status >= 0) return tool_print_json(object);
    json_decref(object);
    return tool_fail(status, TOOL_STAGE_GENERATE);
}

/* Several texts: a line each. */
static void print_texts(const run_answer *a) {
    for (int64_t row = 0; row < pg_result_get_n_rows(a->result); row++) {
        const char *text = pg_result_get_text(a->result, row);
        if (row > 0) putchar('\n');
        tool_write_text(text, strlen(text));
    }
}

/* "photos/cat.jpg: a cat". */
static void print_line(const run_answer *a) {
    char *name = tool_escaped(a->source->path, strlen(a->source->path), 0);
    if (isatty(STDOUT_FILENO) && name)
        printf("%s: ", name);
    else
        printf("%s: ", a->source->path);
    tool_write_text(a->size ? a->text : "", a->size);
    free(name);
}

static int report(const run_answer *a) {
    const run_state *s = a->s;
    pg_result_info info = {.struct_size = sizeof info};
    pg_status status = pg_result_get_info(a->result, 0, &info);
    if (status < 0) return tool_fail(status, TOOL_STAGE_GENERATE);
    int exit_status = TOOL_OK;
    if (s->json) {
        exit_status = print_json(a, &info);
    } else {
        if (!is_streamed(s) && tool_images_many(s->images)) print_line(a);
        if (!is_streamed(s) && !tool_images_many(s->images)) print_texts(a);
        putchar('\n');
        exit_status = tool_close_stdout();
    }
    if (!s->json && info.stop == PG_STOP_LENGTH && (s->verbose || isatty(STDERR_FILENO)))
        fprintf(stderr, "[stopped at %lld tokens; --max-new-tokens allows more]\n", (long long)info.n_new_tokens);
    if (!s->json && info.stop == PG_STOP_CONTEXT && (s->verbose || isatty(STDERR_FILENO)))
        fprintf(stderr, "[stopped at %lld tokens with the prompt; --max-context allows more]\n",
                (long long)(info.n_prompt_tokens + info.n_new_tokens));
    if (s->verbose)
        fprintf(stderr,
                "load %.3f s, image %.3f s, %lld prompt tokens %.3f s, %lld new tokens %.3f s (%.1f a second)\n",
                s->processor_s + s->load_s, a->image_s + info.vision_seconds, (long long)info.n_prompt_tokens,
                info.prefill_seconds, (long long)info.n_new_tokens, info.decode_seconds, tokens_per_second(&info));
    return exit_status;
}

/* ---- one image ---- */

static pg_status encode(run_answer *a) {
    const run_state *s = a->s;
    const double start = tool_seconds();
    pg_encode_options options;
    pg_encode_options_init(&options, sizeof options);
    options.flags = s->encode_flags;
    options.cancel = s->cancel;
    pg_status status = tool_source_open(a->source, s->processor, s->encode_flags, s->cancel);
    if (a->source->picture) options.flags &= ~(uint32_t)PG_ENCODE_EXIF; /* the pixels are turned */
    tool_fit_image(&s->shared, &a->source->image);
    if (status >= 0) status = pg_processor_encode(s->processor, &a->source->image, s->prompt, &options, &a->inputs);
    a->image_s = tool_seconds() - start;
    return status;
}

/* After the first image: a mistake in its name must not cost the time to open, and perhaps to quantize, the model. */
static pg_status open_model(run_state *s) {
    if (s->model) return PG_OK;
    const double start = tool_seconds();
    const pg_status status = tool_open_model(s->folder, &s->shared, &s->log, s->cancel, &s->model);
    tool_progress_clear(&s->progress);
    s->load_s = tool_seconds() - start;
    return status;
}

static pg_status make_features(run_answer *a) {
    run_state *s = a->s;
    pg_run_options options;
    const double start = tool_seconds();
    pg_run_options_init(&options, sizeof options);
    options.n_threads = s->shared.n_threads;
    options.progress = tool_progress_update;
    options.progress_user = &s->progress;
    options.cancel = s->cancel;
    pg_status status = pg_features_create(s->model, a->inputs, &options, &a->features);
    a->image_s += tool_seconds() - start;
    return status;
}

static pg_status draw_attention(run_answer *a) {
    run_state *s = a->s;
    pg_forward_options options;
    float *map = NULL;
    int side;
    pg_forward_options_init(&options, sizeof options);
    options.n_threads = s->shared.n_threads;
    options.features = a->features;
    options.progress = tool_progress_update;
    options.progress_user = &s->progress;
    options.cancel = s->cancel;
    options.attention_layer = (int32_t)s->attention_layer;
    pg_status status = tool_attention_map(s->model, a->inputs, a->result, &options, &map, &side);
    tool_progress_clear(&s->progress);
    if (status < 0) return status;
    tool_draw_heat(&a->source->pixels, map, side);
    free(map);
    a->failed = tool_png_write(a->source->picture, &a->source->pixels) ? 0 : 'p';
    return PG_OK;
}

static pg_status generate(run_answer *a) {
    run_state *s = a->s;
    pg_generate_options options;
    tool_sampling_options sampling;
    pg_generate_options_init(&options, sizeof options);
    pg_status status = tool_sampling_apply(&s->sampling, s->model, &sampling, &options);
    if (status < 0) return status;
    options.max_new_tokens = (int32_t)s->max_new_tokens;
    options.max_context = s->max_context;
    options.n_threads = s->shared.n_threads;
    options.on_text = on_text;
    options.on_text_user = a;
    options.progress = tool_progress_update;
    options.progress_user = &s->progress;
    options.cancel = s->cancel;
    if (a->source->picture) {
        status = make_features(a);
        if (status < 0) return status;
        options.features = a->features;
    }
    status = pg_generate(s->model, s->processor, a->inputs, &options, &a->result);
    tool_progress_clear(&s->progress);
    return status >= 0 && !a->failed && a->source->picture ? draw_attention(a) : status;
}

static int fail(const run_answer *a, pg_status status, tool_stage stage) {
    if (a->failed == 'm') return tool_fail_text("no memory for the text");
    if (a->failed == 'w') return tool_close_stdout();
    if (a->printed) putchar('\n'), fflush(stdout);
    if (a->failed) return TOOL_FAILED; /* the picture; that was told */
    return tool_source_fail(a->s->images, a->source, status, stage);
}

static int run_in(void *user, tool_source *source) {
    run_answer a = {.s = user, .source = source};
    tool_stage stage = TOOL_STAGE_IMAGE;
    pg_status status = encode(&a);
    if (status >= 0) {
        stage = TOOL_STAGE_MODEL;
        status = open_model(a.s);
    }
    if (status >= 0) {
        stage = TOOL_STAGE_GENERATE;
        status = generate(&a);
    }
    const int exit_status = status < 0 || a.failed ? fail(&a, status, stage) : report(&a);
    pg_result_close(&a.result);
    pg_features_close(&a.features);
    pg_inputs_close(&a.inputs);
    free(a.text);
    return exit_status;
}

static int run_all(run_state *s) {
    const double start = tool_seconds();
    const int exit_status = tool_begin(s->folder, s->processor_folder, &s->log, &s->cancel, &s->processor);
    s->processor_s = tool_seconds() - start;
    return exit_status >= 0 ? exit_status : tool_images_run(s->images, &s->progress, run_in, s);
}

static int run(const tool_verb *verb, int argc, char **argv) {
    int literal = 0;
    run_state s = {.sampling = {.top_k = -1, .seed = -1}, .attention_layer = -1};
    tool_sampling *const sampling = &s.sampling;
    const char **arguments = calloc((size_t)argc + 1, sizeof *arguments);
    if (!arguments) return tool_fail_text("no memory for the arguments");
    const tool_option options[] = {
        {.name = "--max-new-tokens", .letter = "-n", .number = &s.max_new_tokens, .least = 1, .most = INT32_MAX},
        {.name = "--max-context", .number = &s.max_context, .least = 1, .most = INT32_MAX},
        {.name = "--json", .flag = &s.json},
        {.name = "--processor", .text = &s.processor_folder},
        {.name = "--literal", .flag = &literal},
        {.name = "--temperature", .text = &sampling->temperature_text},
        {.name = "--top-k", .number = &sampling->top_k, .least = 0, .most = INT32_MAX},
        {.name = "--top-p", .text = &sampling->top_p_text},
        {.name = "--seed", .number = &sampling->seed, .least = 0, .most = INT64_MAX},
        {.name = "--stop", .text = &sampling->stop},
        {.name = "--beams", .number = &sampling->n_beams, .least = 1, .most = 64},
        {.name = "--length-penalty", .text = &sampling->length_penalty_text},
        {.name = "--texts", .number = &sampling->n_texts, .least = 1, .most = 1024},
        {.name = "--scores", .flag = &sampling->scores},
        {.name = "--attention", .text = &s.attention},
        {.name = "--attention-layer", .number = &s.attention_layer, .least = 0, .most = INT32_MAX},
        {.name = "--verbose", .letter = "-v", .flag = &s.verbose},
    };
    int status = tool_parse(verb, argc, argv, options, sizeof options / sizeof options[0], arguments, &s.shared);
    if (status < 0) status = tool_sampling_parse(verb, sampling);
    if (s.shared.output) s.json = 1;
    if (status < 0 && sampling->scores && !s.json) status = tool_usage_error(verb, "--scores needs --json");
    if (status < 0 && s.attention_layer >= 0 && !s.attention)
        status = tool_usage_error(verb, "--attention-layer needs --attention");
    if (status < 0 && s.attention && (s.shared.letterbox || s.shared.roi[2]))
        status = tool_usage_error(verb, "--attention lays its map over the whole image, expected no %s beside it",
                                  s.shared.letterbox ? "--letterbox" : "--roi");
    size_t n = 0;
    while (status < 0 && arguments[n]) n++;
    if (status < 0) status = tool_images_open(verb, &s.shared, s.attention, arguments + 1, n - 2, s.json, &s.images);
    if (status < 0 && sampling->n_texts > 1 && tool_images_many(s.images) && !s.json)
        status = tool_usage_error(verb, "--texts with several images needs --json");
    if (status < 0) {
        s.folder = arguments[0];
        s.prompt = arguments[n - 1];
        tool_progress_init(&s.progress);
        s.log = (tool_log){.progress = &s.progress, .verbose = s.verbose};
        s.encode_flags = (literal ? PG_ENCODE_LITERAL : 0u) | s.shared.image_flags;
        status = run_all(&s);
    }
    free(arguments);
    tool_images_close(&s.images);
    pg_processor_close(&s.processor);
    pg_model_close(&s.model);
    tool_interrupt_close(&s.cancel);
    return status;
}

const tool_verb tool_run = {"run", help, 3,
                            TOOL_OPTIONS_MODEL | TOOL_OPTIONS_THREADS | TOOL_OPTIONS_IMAGES | TOOL_OPTIONS_PIXELS |
                                TOOL_OPTIONS_FIT | TOOL_MORE_ARGUMENTS,
                            run};
