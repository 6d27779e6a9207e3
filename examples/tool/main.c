/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* paligemma: the command-line tool. Each verb is one file: run.c, info.c, ... */
#include <stdio.h>
#include <string.h>

#include "system.h"
#include "tool.h"

static const tool_verb *const verbs[] = {&tool_run,   &tool_ask,   &tool_detect, &tool_segment,
                                         &tool_score, &tool_info,  &tool_tokens, &tool_convert,
                                         &tool_bench, &tool_train, &tool_batch};
enum { N_VERBS = sizeof verbs / sizeof verbs[0] };

static const char help[] =
    "usage: paligemma VERB ...\n"
    "\n"
    "Runs PaliGemma and PaliGemma 2 on the CPU, straight from a Hugging Face checkpoint folder.\n"
    "\n"
    "  paligemma run MODEL IMAGE... PROMPT\n"
    "                                     answer a prompt about an image, or about many\n"
    "  paligemma ask MODEL IMAGE          answer one prompt after the other about an image\n"
    "  paligemma detect MODEL IMAGE... THINGS\n"
    "                                     boxes of things in images, with labels and scores\n"
    "  paligemma segment MODEL IMAGE... THINGS\n"
    "                                     the same with masks\n"
    "  paligemma score MODEL IMAGE... PROMPT ANSWER...\n"
    "                                     how likely given answers are\n"
    "  paligemma info MODEL               what a checkpoint is and what memory it needs\n"
    "  paligemma tokens MODEL PROMPT      the ids and pieces that the model sees\n"
    "  paligemma convert MODEL OUT        a checkpoint folder with int8 or int4 weights\n"
    "  paligemma bench MODEL              how fast it runs here, and how fast this machine could be\n"
    "  paligemma train MODEL DATA         a LoRA adapter of a checkpoint, learned from images and texts\n"
    "  paligemma batch MODEL JOBS         many images and prompts, at full speed, a line of JSON each\n"
    "\n"
    "MODEL is a folder, or a model id such as google/paligemma2-3b-mix-224 that is already in the local\n"
    "Hugging Face cache. Nothing is ever downloaded.\n"
    "\n"
    "'paligemma VERB --help' tells more; --version prints the versions.\n"
    "Exit status: 0 done, 1 failed, 2 wrong usage.\n";

static const tool_verb *find_verb(const char *name) {
    for (size_t i = 0; i < N_VERBS; i++)
        if (strcmp(verbs[i]->name, name) == 0) return verbs[i];
    return NULL;
}

static int print(const char *text) {
    fputs(text, stdout);
    return tool_close_stdout();
}

int main(int argc, char **argv) {
    tool_system_start();
    const char *word = argc > 1 ? argv[1] : NULL;
    if (!word) {
        fputs(help, stderr);
        return TOOL_USAGE;
    }
    if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0) return print(help);
    if (strcmp(word, "help") == 0) {
        const tool_verb *verb = argc > 2 ? find_verb(argv[2]) : NULL;
        if (argc == 2 || verb) return print(verb ? verb->help : help);
        word = argv[2];
    }
    if (strcmp(word, "--version") == 0) {
        uint32_t api = pg_version_api();
        printf("paligemma %s (API %u.%u.%u)\n", pg_version_string(), api >> 16, api >> 8 & 0xFF, api & 0xFF);
        return tool_close_stdout();
    }
    const tool_verb *verb = find_verb(word);
    if (!verb) {
        tool_fail_text(
            "no such verb: '%s'; expected run, ask, detect, segment, score, info, tokens, convert, bench, train or "
            "batch; "
            "see 'paligemma --help'",
            word);
        return TOOL_USAGE;
    }
    return verb->run(verb, argc - 2, argv + 2);
}
