/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* paligemma tokens: what the model is fed for a prompt. No weights are opened. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tool.h"

static const char help[] =
    "usage: paligemma tokens [options] MODEL PROMPT\n"
    "\n"
    "Lists position, id and piece of everything the model is fed for PROMPT: the image tokens, bos,\n"
    "the prompt, the newline. A space is written U+2581 in a piece. Only the tokenizer and the image\n"
    "settings of MODEL are opened, not the weights.\n"
    "\n"
    "      --processor FOLDER  tokenizer and image settings from another folder or model id\n"
    "      --suffix TEXT  the answer to learn: its tokens and eos follow, marked as labels\n"
    "      --big-vision   prompt, newline and suffix tokenized apart, as big_vision does\n"
    "      --json         one line of JSON: ids, pieces; with --suffix also token_type_ids, labels\n"
    "      --literal      take <eos>, <image> and other special tokens in the texts as plain text\n"
    "      --             what follows is no option\n"
    "\n"
    "Exit status: 0 done, 1 failed, 2 wrong usage.\n";

/* A tensor [1, n] of the inputs. */
static pg_status get_row(const pg_inputs *inputs, const char *name, const int64_t **data, int64_t *n) {
    pg_tensor tensor = {.struct_size = sizeof tensor};
    pg_status status = pg_inputs_get_tensor(inputs, name, &tensor);
    *data = tensor.data;
    *n = tensor.shape[1];
    return status;
}

/* A run of one id, such as the image tokens, is one line: "0-255". Tokens of the suffix end in "\tlabel". */
static pg_status print_table(const pg_processor *processor, const pg_inputs *inputs) {
    const int64_t *ids, *labels;
    int64_t n;
    pg_status status = get_row(inputs, "input_ids", &ids, &n);
    if (status >= 0) status = get_row(inputs, "labels", &labels, &n);
    if (status < 0) return status;
    for (int64_t i = 0, next; i < n; i = next) {
        const char *piece;
        status = pg_processor_get_piece(processor, ids[i], &piece);
        if (status < 0) return status;
        for (next = i + 1; next < n && ids[next] == ids[i] && labels[next] == labels[i]; next++) continue;
        printf("%lld", (long long)i);
        if (next > i + 1) printf("-%lld", (long long)next - 1);
        printf("\t%lld\t", (long long)ids[i]);
        char *shown = tool_escaped(piece, strlen(piece), 0);
        fputs(shown ? shown : "", stdout);
        free(shown);
        puts(labels[i] >= 0 ? "\tlabel" : "");
    }
    return PG_OK;
}

static json_t *make_list(const pg_inputs *inputs, const char *name) {
    const int64_t *data;
    int64_t n;
    json_t *list = json_array();
    if (get_row(inputs, name, &data, &n) < 0) n = 0;
    for (int64_t i = 0; i < n; i++) json_array_append_new(list, json_integer(data[i]));
    return list;
}

static json_t *make_json(const pg_processor *processor, const pg_inputs *inputs, int with_labels) {
    json_t *ids = make_list(inputs, "input_ids"), *pieces = json_array();
    for (size_t i = 0; i < json_array_size(ids); i++) {
        const char *piece;
        if (pg_processor_get_piece(processor, json_integer_value(json_array_get(ids, i)), &piece) < 0) piece = "";
        json_array_append_new(pieces, json_string(piece));
    }
    json_t *object = json_pack("{s:o, s:o}", "ids", ids, "pieces", pieces);
    if (with_labels) {
        json_object_set_new(object, "token_type_ids", make_list(inputs, "token_type_ids"));
        json_object_set_new(object, "labels", make_list(inputs, "labels"));
    }
    return object;
}

static int tokens(const tool_verb *verb, int argc, char **argv) {
    int json = 0, literal = 0, big_vision = 0;
    const char *arguments[2], *suffix = NULL, *processor_folder = NULL;
    const tool_option options[] = {{.name = "--json", .flag = &json},
                                   {.name = "--literal", .flag = &literal},
                                   {.name = "--big-vision", .flag = &big_vision},
                                   {.name = "--suffix", .text = &suffix},
                                   {.name = "--processor", .text = &processor_folder}};
    int exit_status = tool_parse(verb, argc, argv, options, sizeof options / sizeof options[0], arguments, NULL);
    if (exit_status >= 0) return exit_status;

    pg_processor *processor = NULL;
    pg_inputs *inputs = NULL;
    pg_encode_options encode_options;
    pg_encode_options_init(&encode_options, sizeof encode_options);
    encode_options.flags = literal ? PG_ENCODE_LITERAL : 0;
    encode_options.mode = big_vision ? PG_MODE_BIG_VISION : PG_MODE_HF;
    pg_batch batch;
    pg_batch_init(&batch, sizeof batch);
    batch.n_prompts = 1;
    batch.prompts = &arguments[1];
    batch.n_suffixes = suffix != NULL;
    batch.suffixes = suffix ? &suffix : NULL;
    tool_stage stage;
    tool_log log = {0};
    pg_processor_options options_of_processor;
    pg_processor_options_init(&options_of_processor, sizeof options_of_processor);
    options_of_processor.log = tool_log_line;
    options_of_processor.log_user = &log;
    pg_status status = tool_open_processor(arguments[0], processor_folder, &options_of_processor, &processor, &stage);
    if (status >= 0) {
        stage = TOOL_STAGE_PROMPT;
        status = pg_processor_encode_batch(processor, &batch, &encode_options, &inputs);
    }
    if (status >= 0 && !json) status = print_table(processor, inputs);
    if (status < 0)
        exit_status = tool_fail(status, stage);
    else
        exit_status = json ? tool_print_json(make_json(processor, inputs, suffix != NULL)) : tool_close_stdout();
    pg_inputs_close(&inputs);
    pg_processor_close(&processor);
    return exit_status;
}

const tool_verb tool_tokens = {"tokens", help, 2, 0, tokens};
