/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* paligemma score: how likely given answers are, of one image or of many. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "images.h"
#include "objects.h"
#include "tool.h"
#include "walk.h"

static const char help[] =
    "usage: paligemma score [options] MODEL IMAGE... PROMPT ANSWER...\n"
    "\n"
    "Says how likely each ANSWER to PROMPT about IMAGE is: closed questions, and classes that are known.\n"
    "Prints a line for each, the likeliest first: its probability among the given answers, the logarithm\n"
    "of its own probability, its tokens.\n"
    "\n"
    "  MODEL    a checkpoint folder, or a model id in the local Hugging Face cache\n"
    "  IMAGE    PNG or JPEG files, or folders, of which all are taken; - reads one from stdin. They are\n"
    "           turned as their EXIF orientation says. What follows the first is an image where it ends\n"
    "           in .png, .jpg or the like, or is a file or folder with a dot or slash in its name\n"
    "  PROMPT   such as 'answer en is it day or night?'\n"
    "  ANSWER   such as day night; each is scored as a whole, with the end of the text (--no-eos: as a\n"
    "           beginning)\n"
    "\n"
    "      --json               a line of JSON for each image: image, scores (answer, probability,\n"
    "                           mean_probability, log_prob, mean_log_prob, ids, log_probs) in the order\n"
    "                           given; an image that fails gets image and error\n"
    "      --csv                a line for each answer, in the order given:\n"
    "                           image,answer,probability,log_prob,mean_probability,mean_log_prob,tokens\n"
    "      --normalize          order by, and show, what is normalised by length: the mean of the tokens'\n"
    "                           logarithms in place of their sum\n"
    "      --no-eos             leave out the end of the text\n" TOOL_HELP_IMAGES
    "      --max-context N      no prompt and answer together of more than N tokens\n"
    "  -t, --threads N          compute on N threads (default: the CPUs this process may use); no number\n"
    "                           depends on it\n"
    "      --processor FOLDER   tokenizer and image settings from another folder or model id\n"
    "      --weights FORMAT     stored (default), int8 or int4: quantized when the model opens\n"
    "      --int8-layers LIST   beside int4: what is int8, such as embedding,attention\n"
    "      --adapter FOLDER     add a LoRA adapter of the model, or an id; may be given several times\n"
    "      --arithmetic KIND    f32, or bf16 in large products, where that is faster on this CPU\n"
    "      --kv KIND            KV cache in f32, or in bf16 (default beside int8 and int4)\n"
    "      --in-memory          read the weights into memory instead of mapping the files\n"
    "      --literal            take <eos>, <image> and other special tokens as plain text\n" TOOL_HELP_PIXELS
    "  -v, --verbose            what the library has to tell, on stderr\n"
    "      --                   what follows is no option\n"
    "\n" TOOL_HELP_STATUS;

typedef struct score_state {
    pg_model *model; /* opened when the first image is read */
    pg_processor *processor;
    pg_cancel *cancel;
    tool_progress progress;
    tool_log log;
    tool_shared shared;
    tool_images *images;
    const char *folder, *processor_folder, *prompt;
    const char *const *answers; /* [n_answers] */
    int64_t n_answers, max_context;
    int json, csv, normalize;
    uint32_t encode_flags, score_flags;
} score_state;

/* ---- output ---- */

/* An answer of the table. */
typedef struct ranked {
    int64_t index;
    double probability, log_prob;
    int64_t n_tokens;
} ranked;

static int by_probability(const void *a, const void *b) {
    const ranked *x = a, *y = b;
    if (x->probability != y->probability) return x->probability < y->probability ? 1 : -1;
    return x->index < y->index ? -1 : x->index > y->index;
}

static int print_table(const score_state *s, const tool_source *source, const pg_scores *scores) {
    ranked *list = calloc((size_t)s->n_answers, sizeof *list);
    if (!list) return tool_fail_text("no memory for the table");
    for (int64_t i = 0; i < s->n_answers; i++) {
        pg_score_info info = {.struct_size = sizeof info};
        pg_scores_get_info(scores, i, &info);
        list[i] = (ranked){i, s->normalize ? info.mean_probability : info.probability,
                           s->normalize ? info.mean_log_prob : info.log_prob, info.n_tokens};
    }
    qsort(list, (size_t)s->n_answers, sizeof *list, by_probability);
    if (tool_images_many(s->images)) {
        tool_write_text(source->path, strlen(source->path));
        putchar('\n');
    }
    printf("probability  %8s  tokens  answer\n", s->normalize ? "mean log" : "log");
    for (int64_t i = 0; i < s->n_answers; i++) {
        const char *answer = s->answers[list[i].index];
        printf("%11.6f  %8.3f  %6lld  ", list[i].probability, list[i].log_prob, (long long)list[i].n_tokens);
        tool_write_text(answer, strlen(answer));
        putchar('\n');
    }
    free(list);
    return tool_close_stdout();
}

static int print_csv(const score_state *s, const tool_source *source, const pg_scores *scores) {
    for (int64_t i = 0; i < s->n_answers; i++) {
        pg_score_info info = {.struct_size = sizeof info};
        pg_scores_get_info(scores, i, &info);
        tool_print_csv_field(source->path, strlen(source->path));
        putchar(',');
        tool_print_csv_field(s->answers[i], strlen(s->answers[i]));
        printf(",%.9g,%.9g,%.9g,%.9g,%lld\n", info.probability, info.log_prob, info.mean_probability,
               info.mean_log_prob, (long long)info.n_tokens);
    }
    return tool_close_stdout();
}

static json_t *score_to_json(const score_state *s, const pg_scores *scores, int64_t index) {
    pg_score_info info = {.struct_size = sizeof info};
    pg_tensor ids = {.struct_size = sizeof ids}, log_probs = {.struct_size = sizeof log_probs};
    json_t *id_list = json_array(), *log_prob_list = json_array();
    pg_scores_get_info(scores, index, &info);
    pg_scores_get_tensor(scores, index, "ids", &ids);
    pg_scores_get_tensor(scores, index, "log_probs", &log_probs);
    for (int64_t i = 0; i < info.n_tokens; i++) {
        json_array_append_new(id_list, json_integer(((const int64_t *)ids.data)[i]));
        json_array_append_new(log_prob_list, json_real((double)((const float *)log_probs.data)[i]));
    }
    return json_pack("{s:s, s:f, s:f, s:f, s:f, s:o, s:o}", "answer", s->answers[index], "probability",
                     info.probability, "mean_probability", info.mean_probability, "log_prob", info.log_prob,
                     "mean_log_prob", info.mean_log_prob, "ids", id_list, "log_probs", log_prob_list);
}

static int print_json(const score_state *s, const tool_source *source, const pg_scores *scores) {
    json_t *line = json_object(), *list = json_array();
    for (int64_t i = 0; i < s->n_answers; i++) json_array_append_new(list, score_to_json(s, scores, i));
    tool_json_set_image(line, source->path);
    json_object_set_new(line, "scores", list);
    return tool_print_json(line);
}

/* ---- one image ---- */

static pg_status open_model(score_state *s) {
    if (s->model) return PG_OK;
    return tool_open_model(s->folder, &s->shared, &s->log, s->cancel, &s->model);
}

static pg_status encode(const score_state *s, tool_source *source, pg_inputs **inputs) {
    pg_encode_options options;
    pg_encode_options_init(&options, sizeof options);
    options.flags = s->encode_flags;
    options.cancel = s->cancel;
    const pg_status status = tool_source_open(source, s->processor, s->encode_flags, s->cancel);
    return status < 0 ? status : pg_processor_encode(s->processor, &source->image, s->prompt, &options, inputs);
}

static pg_status score(score_state *s, const pg_inputs *inputs, pg_scores **scores) {
    pg_score_options options;
    pg_score_options_init(&options, sizeof options);
    options.flags = s->score_flags;
    options.n_threads = s->shared.n_threads;
    options.max_context = s->max_context;
    options.progress = tool_progress_update;
    options.progress_user = &s->progress;
    options.cancel = s->cancel;
    return pg_score(s->model, s->processor, inputs, s->answers, s->n_answers, &options, scores);
}

static int score_in(void *user, tool_source *source) {
    score_state *s = user;
    pg_inputs *inputs = NULL;
    pg_scores *scores = NULL;
    tool_stage stage = TOOL_STAGE_IMAGE;
    int exit_status;
    tool_json_image(source->path);
    pg_status status = encode(s, source, &inputs);
    if (status >= 0) {
        stage = TOOL_STAGE_MODEL;
        status = open_model(s);
    }
    if (status >= 0) {
        stage = TOOL_STAGE_GENERATE;
        status = score(s, inputs, &scores);
    }
    tool_progress_clear(&s->progress);
    if (status < 0)
        exit_status = tool_source_fail(s->images, source, status, stage);
    else
        exit_status = (s->json ? print_json : s->csv ? print_csv : print_table)(s, source, scores);
    pg_scores_close(&scores);
    pg_inputs_close(&inputs);
    return exit_status;
}

static int score_all(score_state *s) {
    const int exit_status = tool_begin(s->folder, s->processor_folder, &s->log, &s->cancel, &s->processor);
    if (exit_status >= 0) return exit_status;
    if (s->csv) puts("image,answer,probability,log_prob,mean_probability,mean_log_prob,tokens");
    return tool_images_run(s->images, &s->progress, score_in, s);
}

static int run(const tool_verb *verb, int argc, char **argv) {
    score_state s = {0};
    int literal = 0, no_eos = 0;
    const char **arguments = calloc((size_t)argc + 1, sizeof *arguments);
    if (!arguments) return tool_fail_text("no memory for the arguments");
    const tool_option options[] = {
        {.name = "--json", .flag = &s.json},
        {.name = "--csv", .flag = &s.csv},
        {.name = "--normalize", .flag = &s.normalize},
        {.name = "--no-eos", .flag = &no_eos},
        {.name = "--max-context", .number = &s.max_context, .least = 1, .most = INT64_MAX},
        {.name = "--processor", .text = &s.processor_folder},
        {.name = "--literal", .flag = &literal},
        {.name = "--verbose", .letter = "-v", .flag = &s.log.verbose},
    };
    int status = tool_parse(verb, argc, argv, options, sizeof options / sizeof options[0], arguments, &s.shared);
    if (status < 0 && s.json && s.csv) status = tool_usage_error(verb, "--json and --csv exclude each other");
    if (s.shared.output) s.json = !s.csv;
    size_t n = 0, n_images = s.shared.images_from ? 0 : 1;
    while (status < 0 && arguments[n]) n++;
    while (status < 0 && n_images + 3 < n && tool_is_image_name(arguments[1 + n_images])) n_images++;
    if (status < 0) status = tool_images_open(verb, &s.shared, NULL, arguments + 1, n_images, s.json, &s.images);
    if (status < 0) {
        s.folder = arguments[0];
        s.prompt = arguments[1 + n_images];
        s.answers = arguments + 2 + n_images;
        s.n_answers = (int64_t)(n - 2 - n_images);
        tool_progress_init(&s.progress);
        s.log.progress = &s.progress;
        s.encode_flags = s.shared.image_flags | (literal ? PG_ENCODE_LITERAL : 0u);
        s.score_flags = (no_eos ? PG_SCORE_NO_EOS : 0u) | (literal ? PG_SCORE_LITERAL : 0u);
        status = score_all(&s);
    }
    tool_images_close(&s.images);
    free(arguments);
    pg_processor_close(&s.processor);
    pg_model_close(&s.model);
    tool_interrupt_close(&s.cancel);
    return status;
}

const tool_verb tool_score = {
    "score", help, 4,
    TOOL_OPTIONS_MODEL | TOOL_OPTIONS_THREADS | TOOL_OPTIONS_IMAGES | TOOL_OPTIONS_PIXELS | TOOL_MORE_ARGUMENTS, run};
