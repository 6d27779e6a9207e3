/* paligemma tokens: what the model is fed for a prompt. No weights are opened. */
#include <stdio.h>

#include "tool.h"

static const char help[] =
    "usage: paligemma tokens [options] MODEL PROMPT\n"
    "\n"
    "Lists position, id and piece of everything the model is fed for PROMPT: the image tokens, bos,\n"
    "the prompt, the newline. A space is written U+2581 in a piece. Only the tokenizer and the image\n"
    "settings of MODEL are opened, not the weights.\n"
    "\n"
    "      --json      one line of JSON: ids, pieces\n"
    "      --literal   take <eos>, <image> and other special tokens in PROMPT as plain text\n"
    "      --          what follows is no option\n"
    "\n"
    "Exit status: 0 done, 1 failed, 2 wrong usage.\n";

/* A piece on one line of a terminal: control characters as escapes. */
static void print_piece(const char *piece) {
    for (const unsigned char *p = (const unsigned char *)piece; *p; p++) {
        if (*p == '\n')
            fputs("\\n", stdout);
        else if (*p < 32 || *p == 127)
            printf("\\x%02X", (unsigned)*p);
        else
            putchar(*p);
    }
    putchar('\n');
}

/* A run of one id, such as the image tokens, is one line: "0-255". */
static pg_status print_table(const pg_processor *processor, const int64_t *ids, int64_t n) {
    for (int64_t i = 0, next; i < n; i = next) {
        const char *piece;
        pg_status status = pg_processor_piece(processor, ids[i], &piece);
        if (status < 0) return status;
        for (next = i + 1; next < n && ids[next] == ids[i]; next++) continue;
        printf("%lld", (long long)i);
        if (next > i + 1) printf("-%lld", (long long)next - 1);
        printf("\t%lld\t", (long long)ids[i]);
        print_piece(piece);
    }
    return PG_OK;
}

static json_t *make_json(const pg_processor *processor, const int64_t *ids, int64_t n) {
    json_t *id_list = json_array(), *piece_list = json_array();
    for (int64_t i = 0; i < n; i++) {
        const char *piece;
        if (pg_processor_piece(processor, ids[i], &piece) < 0) piece = "";
        json_array_append_new(id_list, json_integer(ids[i]));
        json_array_append_new(piece_list, json_string(piece));
    }
    return json_pack("{s:o, s:o}", "ids", id_list, "pieces", piece_list);
}

static int tokens(const tool_verb *verb, int argc, char **argv) {
    int json = 0, literal = 0;
    const char *arguments[2];
    const tool_option options[] = {{.name = "--json", .flag = &json}, {.name = "--literal", .flag = &literal}};
    int exit_status = tool_parse(verb, argc, argv, options, sizeof options / sizeof options[0], arguments);
    if (exit_status >= 0) return exit_status;

    pg_processor *processor = NULL;
    pg_inputs *inputs = NULL;
    pg_tensor ids = {.struct_size = sizeof ids};
    pg_encode_options encode_options;
    pg_encode_options_init(&encode_options, sizeof encode_options);
    encode_options.flags = literal ? PG_TEXT_LITERAL : 0;
    tool_stage stage = TOOL_STAGE_MODEL;
    pg_status status = pg_processor_open(arguments[0], NULL, &processor);
    if (status >= 0) {
        stage = TOOL_STAGE_PROMPT;
        status = pg_processor_encode(processor, NULL, arguments[1], &encode_options, &inputs);
    }
    if (status >= 0) status = pg_inputs_get(inputs, "input_ids", &ids);
    if (status >= 0 && !json) status = print_table(processor, ids.data, ids.shape[1]);
    if (status < 0)
        exit_status = tool_fail(status, stage);
    else
        exit_status = json ? tool_print_json(make_json(processor, ids.data, ids.shape[1])) : tool_close_stdout();
    pg_inputs_close(&inputs);
    pg_processor_close(&processor);
    return exit_status;
}

const tool_verb tool_tokens = {"tokens", help, 2, tokens};
