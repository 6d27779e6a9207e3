/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The options of a training that are texts: target_modules, modules_to_save and base, with newlines between them. A
 * trainer is made or refused; the adapter_config.json of one that was made is read as it was meant.
 */
#include "fuzz.h"

#include "checkpoint/json.h"
#include "train/trainer.h"

enum { MOST = 300 }; /* bytes of all, for the fuzzer's time */

/* The texts of a list, as the JSON has them; what is no UTF-8 is written as U+FFFD. */
static void check_list(const pgi_json *list, const char *const *names, size_t n) {
    if (pgi_json_n_items(list) != n) abort();
    for (size_t i = 0; i < n; i++) {
        const char *text = pgi_json_text(pgi_json_item(list, i));
        if (!text || !*text) abort();
        if (!strstr(text, "\xEF\xBF\xBD") && strcmp(text, names[i]) != 0) abort();
    }
}

static void check_config(const pg_trainer *trainer) {
    const pgi_train_config *config = &trainer->config;
    const pgi_json *json;
    pgi_json_doc doc;
    pgi_buffer text;
    pgi_buffer_init(&text, &trainer->memory);
    pgi_json_doc_init(&doc, &trainer->memory);
    if (pgi_peft_config_write(config, &text) < 0) abort();
    if (pgi_json_parse(&doc, "adapter_config.json", text.data, text.size, PGI_JSON_STRICT, &json) < 0) abort();
    const pgi_json *targets = pgi_json_get(json, "target_modules"), *saved = pgi_json_get(json, "modules_to_save");
    if (config->target_pattern)
        check_list(&(pgi_json){.kind = PGI_JSON_ARRAY, .size = 1, .as.items = (pgi_json *)(uintptr_t)targets},
                   &config->target_pattern, 1);
    else
        check_list(targets, config->targets, config->n_targets);
    if (config->n_saved) check_list(saved, config->saved, config->n_saved);
    if (!config->n_saved && pgi_json_is_set(saved)) abort();
    pgi_json_doc_free(&doc);
    pgi_buffer_free(&text);
}

/* The text up to the next newline; NULL: there is none left. */
static char *take_text(fuzz_input *in) {
    if (!in->size) return NULL;
    const uint8_t *end = memchr(in->data, '\n', in->size);
    const size_t n = end ? (size_t)(end - in->data) : in->size;
    char *text = fuzz_text(in->data, n);
    in->data += n + (end != NULL);
    in->size -= n + (end != NULL);
    return text;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static pg_model *model; /* with the allocator, which a trainer's memory comes from then */
    static long long live;
    const counter *memory = (const counter *)(const void *)fuzz_allocator();
    fuzz_input in = {data, size < MOST ? size : MOST};
    char *texts[] = {take_text(&in), take_text(&in), take_text(&in)};
    pg_trainer_options options;
    pg_trainer *trainer = NULL;
    size_t n = 0;
    if (!model) {
        pg_model_options opening;
        pg_model_options_init(&opening, sizeof opening);
        opening.allocator = fuzz_allocator();
        if (!MADE(pg_model_open(fuzz_folder(FUZZ_TODAY), &opening, &model), model)) abort();
        live = memory->n_live;
    }
    pg_trainer_options_init(&options, sizeof options);
    options.rank = 2;
    options.n_threads = 1;
    options.target_modules = texts[0];
    options.modules_to_save = texts[1];
    options.base = texts[2];
    if (MADE(pg_trainer_create(model, &options, &trainer), trainer)) {
        if (!OK(pg_trainer_count_parameters(trainer, &n)) || n < 1) abort();
        check_config(trainer);
    }
    pg_trainer_close(&trainer);
    for (int i = 0; i < 3; i++) free(texts[i]);
    if (memory->n_live != live || memory->n_bad) abort();
    return 0;
}
