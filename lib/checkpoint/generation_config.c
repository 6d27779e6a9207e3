/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * generation_config.json to settings of sampling (HF: GenerationConfig; null counts as not set). Values that are of
 * another kind than theirs are not followed. What is out of range is refused where it would be used, as in HF: many
 * folders keep settings of random sampling beside "do_sample": false.
 */
#include "checkpoint/generation_config.h"

#include <stdio.h>
#include <string.h>

#include "checkpoint/json_field.h"

const pg_sampling_options pgi_sampling_defaults = {
    .struct_size = sizeof(pg_sampling_options),
    .temperature = 1,
    .top_p = 1,
    .typical_p = 1,
    .repetition_penalty = 1,
    .decay_factor = 1,
    .top_k = 50,
    .forced_bos_id = -1,
};

const pg_beam_options pgi_beam_defaults = {
    .struct_size = sizeof(pg_beam_options),
    .n_beams = 1,
    .length_penalty = 1,
};

/* Adds the key to the settings that are not followed, once. */
static void note_unfollowed(pgi_generation_config *config, const char *key) {
    const size_t used = strlen(config->unfollowed), size = strlen(key);
    for (const char *at = config->unfollowed; (at = strstr(at, key)) != NULL; at += size)
        if ((at == config->unfollowed || at[-1] == ' ') && (at[size] == ',' || !at[size])) return;
    (void)snprintf(config->unfollowed + used, sizeof config->unfollowed - used, "%s%s", used > 0 ? ", " : "", key);
}

/* The value of a setting; NULL: not there, or null. */
static const pgi_json *setting(const pgi_generation_config *config, const char *key) {
    const pgi_json *value = pgi_json_get(config->json, key);
    return value && !pgi_json_is(value, PGI_JSON_NULL) ? value : NULL;
}

static void read_number(pgi_generation_config *config, const char *key, double *out) {
    const pgi_json *value = setting(config, key);
    if (pgi_json_is_number(value))
        *out = pgi_json_number(value);
    else if (value)
        note_unfollowed(config, key);
}

static void read_integer(pgi_generation_config *config, const char *key, int32_t *out) {
    const pgi_json *value = setting(config, key);
    int64_t number;
    if (value && pgi_json_to_integer(value, &number) && number >= 0 && number <= INT32_MAX)
        *out = (int32_t)number;
    else if (value)
        note_unfollowed(config, key);
}

static void read_flag(pgi_generation_config *config, const char *key, uint32_t flag) {
    const pgi_json *value = setting(config, key);
    if (pgi_json_is(value, PGI_JSON_TRUE))
        config->sampling.flags |= flag;
    else if (value && !pgi_json_is(value, PGI_JSON_FALSE))
        note_unfollowed(config, key);
}

/* An id or a list of ids; those outside the vocabulary never come. */
static pg_status read_ids(pgi_generation_config *config, const char *key, int64_t vocab_size, const int64_t **ids,
                          int64_t *n_ids) {
    const pgi_json *value = setting(config, key);
    const size_t n = pgi_json_is(value, PGI_JSON_ARRAY) ? pgi_json_n_items(value) : 1;
    if (!value || n == 0) return PG_OK;
    int64_t *list = pgi_alloc(config->memory, n, sizeof *list), count = 0;
    if (!list) return PG_ERROR_MEMORY;
    *ids = list;
    for (size_t i = 0; i < n; i++) {
        int64_t id;
        if (!pgi_json_to_integer(pgi_json_is(value, PGI_JSON_ARRAY) ? pgi_json_item(value, i) : value, &id))
            note_unfollowed(config, key);
        else if (id >= 0 && id < vocab_size)
            list[count++] = id;
    }
    *n_ids = count;
    return PG_OK;
}

/* A list of lists of ids; with `biases`: of [list, number]. One that does not fit is left out. */
static pg_status read_sequences(pgi_generation_config *config, const char *key, int64_t vocab_size, const int64_t **ids,
                                const int64_t **sizes, const double **biases, int64_t *n) {
    const pgi_json *value = setting(config, key);
    const size_t n_entries = pgi_json_n_items(value);
    size_t total = 0;
    if (!value) return PG_OK;
    if (!pgi_json_is(value, PGI_JSON_ARRAY)) note_unfollowed(config, key);
    for (size_t i = 0; i < n_entries; i++) {
        const pgi_json *entry = pgi_json_item(value, i);
        total += pgi_json_n_items(biases ? pgi_json_item(entry, 0) : entry);
    }
    int64_t *all = pgi_alloc(config->memory, total + 1, sizeof *all);
    *ids = all;
    int64_t *lengths = pgi_alloc(config->memory, n_entries + 1, sizeof *lengths);
    *sizes = lengths;
    double *numbers = biases ? pgi_alloc(config->memory, n_entries + 1, sizeof *numbers) : NULL;
    if (biases) *biases = numbers;
    if (!all || !lengths || (biases && !numbers)) return PG_ERROR_MEMORY;
    for (size_t i = 0; i < n_entries; i++) {
        const pgi_json *entry = pgi_json_item(value, i);
        const pgi_json *sequence = biases ? pgi_json_item(entry, 0) : entry, *bias = pgi_json_item(entry, 1);
        const size_t size = pgi_json_n_items(sequence);
        size_t k = 0;
        while (k < size && pgi_json_to_integer(pgi_json_item(sequence, k), &all[k]) && all[k] >= 0 &&
               all[k] < vocab_size)
            k++;
        if (k < size || size == 0 || (biases && !pgi_json_is_number(bias))) {
            note_unfollowed(config, key);
            continue;
        }
        if (biases) numbers[*n] = pgi_json_number(bias);
        lengths[(*n)++] = (int64_t)size;
        all += size;
    }
    return PG_OK;
}

static pg_status read_stop_strings(pgi_generation_config *config) {
    const char *key = "stop_strings";
    const pgi_json *value = setting(config, key);
    const size_t n = pgi_json_is(value, PGI_JSON_ARRAY) ? pgi_json_n_items(value) : 1;
    if (!value || n == 0 || n > INT32_MAX) return PG_OK;
    config->stop_strings = pgi_alloc(config->memory, n, sizeof *config->stop_strings);
    if (!config->stop_strings) return PG_ERROR_MEMORY;
    for (size_t i = 0; i < n; i++) {
        const char *text = pgi_json_text(pgi_json_is(value, PGI_JSON_ARRAY) ? pgi_json_item(value, i) : value);
        if (text && *text)
            config->stop_strings[config->n_stop_strings++] = text;
        else
            note_unfollowed(config, key);
    }
    return PG_OK;
}

static void read_decay(pgi_generation_config *config) {
    const char *key = "exponential_decay_length_penalty";
    const pgi_json *value = setting(config, key), *factor = pgi_json_item(value, 1);
    int64_t start;
    if (!value) return;
    if (!pgi_json_to_integer(pgi_json_item(value, 0), &start) || start < 0 || start > INT32_MAX ||
        !pgi_json_is_number(factor)) {
        note_unfollowed(config, key);
        return;
    }
    config->sampling.decay_start = (int32_t)start;
    config->sampling.decay_factor = pgi_json_number(factor);
}

/* true, false or "never". */
static void read_early_stopping(pgi_generation_config *config) {
    const char *key = "early_stopping";
    const pgi_json *value = setting(config, key);
    if (pgi_json_is(value, PGI_JSON_TRUE))
        config->beams.early_stopping = PG_EARLY_STOPPING_ON;
    else if (pgi_json_is(value, PGI_JSON_STRING) && strcmp(pgi_json_text(value), "never") == 0)
        config->beams.early_stopping = PG_EARLY_STOPPING_NEVER;
    else if (value && !pgi_json_is(value, PGI_JSON_FALSE))
        note_unfollowed(config, key);
}

/* Settings that have no counterpart here; neutral: the number that changes nothing. */
static void find_unfollowed(pgi_generation_config *config) {
    static const struct {
        const char *key;
        double neutral;
    } settings[] = {
        {"num_beam_groups", 1},
        {"guidance_scale", 1},
        {"watermarking_config", 0},
        {"encoder_repetition_penalty", 1},
        {"encoder_no_repeat_ngram_size", 0},
        {"penalty_alpha", 0},
        {"dola_layers", 0},
        {"token_healing", 0},
    };
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
        const pgi_json *value = setting(config, settings[i].key);
        if (value && !pgi_json_is(value, PGI_JSON_FALSE) &&
            !(pgi_json_is_number(value) && pgi_json_number(value) == settings[i].neutral))
            note_unfollowed(config, settings[i].key);
    }
}

static void read_numbers(pgi_generation_config *config) {
    pg_sampling_options *s = &config->sampling;
    const struct {
        const char *key;
        double *out;
    } numbers[] = {
        {"temperature", &s->temperature},
        {"top_h", &s->top_h},
        {"top_p", &s->top_p},
        {"min_p", &s->min_p},
        {"typical_p", &s->typical_p},
        {"epsilon_cutoff", &s->epsilon_cutoff},
        {"eta_cutoff", &s->eta_cutoff},
        {"repetition_penalty", &s->repetition_penalty},
        {"max_time", &config->max_seconds},
        {"length_penalty", &config->beams.length_penalty},
    };
    const struct {
        const char *key;
        int32_t *out;
    } integers[] = {
        {"top_k", &s->top_k},
        {"no_repeat_ngram_size", &s->no_repeat_ngram_size},
        {"min_new_tokens", &s->min_new_tokens},
        {"min_length", &s->min_length},
        {"max_new_tokens", &config->max_new_tokens},
        {"max_length", &config->max_length},
        {"num_beams", &config->beams.n_beams},
        {"num_return_sequences", &config->n_return},
    };
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) read_number(config, numbers[i].key, numbers[i].out);
    for (size_t i = 0; i < sizeof integers / sizeof *integers; i++)
        read_integer(config, integers[i].key, integers[i].out);
}

void pgi_generation_config_init(pgi_generation_config *config, const pgi_memory *memory) {
    *config = (pgi_generation_config){
        .sampling = pgi_sampling_defaults, .beams = pgi_beam_defaults, .n_return = 1, .memory = memory};
    pgi_json_doc_init(&config->doc, memory);
}

pg_status pgi_generation_config_read(pgi_generation_config *out, int64_t vocab_size) {
    pg_sampling_options *s = &out->sampling;
    const int64_t *bos = NULL;
    int64_t n_bos = 0;
    read_numbers(out);
    read_decay(out);
    read_early_stopping(out);
    read_flag(out, "do_sample", PG_SAMPLING_RANDOM);
    read_flag(out, "remove_invalid_values", PG_SAMPLING_REMOVE_INVALID);
    read_flag(out, "renormalize_logits", PG_SAMPLING_RENORMALIZE);
    const pg_status status = read_ids(out, "forced_bos_token_id", vocab_size, &bos, &n_bos);
    if (n_bos == 1) s->forced_bos_id = bos[0];
    pgi_free(out->memory, (void *)(uintptr_t)bos);
    PGI_TRY(status);
    PGI_TRY(read_ids(out, "forced_eos_token_id", vocab_size, &s->forced_eos_ids, &s->n_forced_eos_ids));
    PGI_TRY(read_ids(out, "suppress_tokens", vocab_size, &s->suppressed_ids, &s->n_suppressed_ids));
    PGI_TRY(read_ids(out, "begin_suppress_tokens", vocab_size, &s->begin_suppressed_ids, &s->n_begin_suppressed_ids));
    PGI_TRY(
        read_sequences(out, "bad_words_ids", vocab_size, &s->bad_word_ids, &s->bad_word_sizes, NULL, &s->n_bad_words));
    PGI_TRY(read_sequences(out, "sequence_bias", vocab_size, &s->bias_ids, &s->bias_sizes, &s->biases, &s->n_biases));
    PGI_TRY(read_stop_strings(out));
    find_unfollowed(out);
    return PG_OK;
}

void pgi_generation_config_free(pgi_generation_config *config) {
    const pg_sampling_options *s = &config->sampling;
    const void *const arrays[] = {s->forced_eos_ids, s->suppressed_ids, s->begin_suppressed_ids,
                                  s->bad_word_ids,   s->bad_word_sizes, s->bias_ids,
                                  s->bias_sizes,     s->biases,         config->stop_strings};
    for (size_t i = 0; config->memory && i < sizeof arrays / sizeof *arrays; i++)
        pgi_free(config->memory, (void *)(uintptr_t)arrays[i]);
    pgi_json_doc_free(&config->doc);
    *config = (pgi_generation_config){0};
}
