/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Reading target_modules and modules_to_save. */
#include "train/targets.h"

#include <string.h>

#include "checkpoint/name_pattern.h"

#define REGEX "regex:"

/* The decoder's linear layers. By their names alone those of the vision encoder would be meant, too. */
static const char default_targets[] =
    REGEX "model\\.language_model\\.layers\\..*\\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)";

static size_t count_names(const char *text) {
    size_t n = *text != 0;
    for (; *text; text++) n += *text == ',';
    return n;
}

/* Cuts `text` at its commas; spaces around a name are no part of it. */
static pg_status cut(const char *option, char *text, const char **names, size_t n) {
    for (size_t i = 0; i < n; i++) {
        char *end = text + strcspn(text, ",");
        char *next = *end ? end + 1 : end;
        while (*text == ' ') text++;
        while (end > text && end[-1] == ' ') end--;
        *end = 0;
        if (!*text)
            return pgi_error(PG_ERROR_ARGUMENT, "%s: found an empty name, expected names with commas between them",
                             option);
        names[i] = text;
        text = next;
    }
    return PG_OK;
}

static pg_status read_pattern(const pgi_memory *memory, const char *text, pgi_train_choice *choice,
                              pgi_train_config *config, pgi_target_texts *out) {
    config->target_pattern = text;
    PGI_TRY(pgi_name_pattern_compile(memory, "target_modules", text, strlen(text), &out->pattern));
    choice->lora.pattern = out->pattern;
    return PG_OK;
}

pg_status pgi_targets_read(const pgi_memory *memory, const char *target_modules, const char *modules_to_save,
                           const char *base, pgi_train_choice *choice, pgi_train_config *config,
                           pgi_target_texts *out) {
    const char *const texts[] = {target_modules ? target_modules : default_targets,
                                 modules_to_save ? modules_to_save : "", base};
    const size_t sizes[] = {strlen(texts[0]) + 1, strlen(texts[1]) + 1, strlen(texts[2]) + 1};
    const size_t n_targets = count_names(texts[0]), n_saved = count_names(texts[1]);
    *out = (pgi_target_texts){.texts = pgi_alloc(memory, sizes[0] + sizes[1] + sizes[2], 1),
                              .names = pgi_alloc(memory, n_targets + n_saved, sizeof *out->names)};
    if (!out->texts || !out->names) return PG_ERROR_MEMORY;
    char *targets = out->texts, *saved = targets + sizes[0], *copied_base = saved + sizes[1];
    memcpy(targets, texts[0], sizes[0]);
    memcpy(saved, texts[1], sizes[1]);
    memcpy(copied_base, texts[2], sizes[2]);
    config->base = copied_base;
    PGI_TRY(cut("modules_to_save", saved, out->names + n_targets, n_saved));
    config->saved = choice->saved.names = out->names + n_targets;
    config->n_saved = choice->saved.n = n_saved;
    if (choice->rank == 0) return PG_OK;
    if (strncmp(targets, REGEX, sizeof REGEX - 1) == 0)
        return read_pattern(memory, targets + sizeof REGEX - 1, choice, config, out);
    if (strcmp(targets, "all-linear") == 0) {
        choice->lora.all_linear = 1;
        config->target_pattern = targets;
        return PG_OK;
    }
    if (n_targets == 0) return pgi_error(PG_ERROR_ARGUMENT, "target_modules: found an empty text, expected names");
    PGI_TRY(cut("target_modules", targets, out->names, n_targets));
    config->targets = choice->lora.names = out->names;
    config->n_targets = choice->lora.n = n_targets;
    return PG_OK;
}

void pgi_target_texts_free(const pgi_memory *memory, pgi_target_texts *texts) {
    pgi_name_pattern_free(texts->pattern);
    pgi_free(memory, texts->names);
    pgi_free(memory, texts->texts);
    *texts = (pgi_target_texts){0};
}
