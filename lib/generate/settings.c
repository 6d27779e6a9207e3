/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Settings of sampling: their ranges, eos ids, and their memory. */
#include "generate/settings.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "generate/decoding.h"

int pgi_mask_has(const uint32_t *mask, int64_t id) { return (int)(mask[id / 32] >> (id % 32) & 1); }

static pg_status check_ids(const char *name, const int64_t *ids, int64_t n, int64_t vocab_size) {
    if (n < 0) return pgi_error(PG_ERROR_ARGUMENT, "n_%s is %lld, expected 0 or more", name, (long long)n);
    if (n > 0 && !ids) return pgi_error(PG_ERROR_ARGUMENT, "%s is NULL, expected %lld ids", name, (long long)n);
    for (int64_t i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= vocab_size)
            return pgi_error(PG_ERROR_ARGUMENT, "%s[%lld] is %lld, expected 0 to %lld", name, (long long)i,
                             (long long)ids[i], (long long)vocab_size - 1);
    return PG_OK;
}

/* n sequences, which lie one after the other in ids. */
static pg_status check_sequences(const char *name, const char *names, const int64_t *ids, const int64_t *sizes,
                                 int64_t n, int64_t vocab_size) {
    char text[32];
    int64_t total = 0;
    if (n < 0) return pgi_error(PG_ERROR_ARGUMENT, "n_%s is %lld, expected 0 or more", names, (long long)n);
    if (n > 0 && !sizes) return pgi_error(PG_ERROR_ARGUMENT, "%s_sizes is NULL, expected %lld", name, (long long)n);
    for (int64_t i = 0; i < n; i++) {
        if (sizes[i] < 1 || sizes[i] > INT32_MAX || total > INT32_MAX)
            return pgi_error(PG_ERROR_ARGUMENT, "%s_sizes[%lld] is %lld, expected 1 or more, all together at most %d",
                             name, (long long)i, (long long)sizes[i], INT32_MAX);
        total += sizes[i];
    }
    snprintf(text, sizeof text, "%s_ids", name);
    return check_ids(text, ids, total, vocab_size);
}

/* Digits enough to tell a number from the bound that it is beyond, and to write a whole one. */
static int digits_of(double value, double least, double most) {
    enum { FEW = 6, WHOLE = 10, ALL = 17 };
    const double close = 1e-5;
    if ((value > most && value < most * (1 + close)) || (value < least && value > least * (1 - close))) return ALL;
    return value == floor(value) && fabs(value) < 1e10 ? WHOLE : FEW;
}

static pg_status check_numbers(const pg_sampling_options *o) {
    enum { ABOVE = 1, BELOW = 2 }; /* the bound itself is out */
    const struct {
        const char *name;
        double value, least, most;
        int open;
        const char *expected;
    } numbers[] = {
        {"temperature", o->temperature, 1e-30, 1e30, 0, "1e-30 to 1e30 (without PG_SAMPLING_RANDOM it has no effect)"},
        {"top_h", o->top_h, 0, 1, 0, "0 (off) to 1"},
        {"top_p", o->top_p, 0, 1, ABOVE, "more than 0, at most 1 (off)"},
        {"min_p", o->min_p, 0, 1, 0, "0 (off) to 1"},
        {"typical_p", o->typical_p, 0, 1, ABOVE, "more than 0, at most 1 (off)"},
        {"epsilon_cutoff", o->epsilon_cutoff, 0, 1, BELOW, "0 (off) or more, less than 1"},
        {"eta_cutoff", o->eta_cutoff, 0, 1, BELOW, "0 (off) or more, less than 1"},
        {"repetition_penalty", o->repetition_penalty, 1e-30, 1e30, 0, "1e-30 to 1e30 (1: off)"},
        {"decay_factor", o->decay_factor, 1e-30, 1e30, 0, "1e-30 to 1e30 (1: off)"},
        {"top_k", o->top_k, 0, INT32_MAX, 0, "0 (off) or more"},
        {"no_repeat_ngram_size", o->no_repeat_ngram_size, 0, INT32_MAX, 0, "0 (off) or more"},
        {"min_new_tokens", o->min_new_tokens, 0, INT32_MAX, 0, "0 or more"},
        {"min_length", o->min_length, 0, INT32_MAX, 0, "0 or more"},
        {"decay_start", o->decay_start, 0, INT32_MAX, 0, "0 or more"},
    };
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        const double value = numbers[i].value, least = numbers[i].least, most = numbers[i].most;
        const int inside = value >= least && value <= most;
        if (inside && !(numbers[i].open == ABOVE && value == least) && !(numbers[i].open == BELOW && value == most))
            continue;
        char found[32];
        snprintf(found, sizeof found, "%.*g", digits_of(value, least, most), value);
        return pgi_error(PG_ERROR_ARGUMENT, "%s is %s, expected %s", numbers[i].name, found, numbers[i].expected);
    }
    return PG_OK;
}

static pg_status check_id_lists(const pg_sampling_options *o, int64_t vocab_size) {
    if (o->forced_bos_id < -1 || o->forced_bos_id >= vocab_size)
        return pgi_error(PG_ERROR_ARGUMENT, "forced_bos_id is %lld, expected -1 (none) to %lld",
                         (long long)o->forced_bos_id, (long long)vocab_size - 1);
    PGI_TRY(check_ids("eos_ids", o->eos_ids, o->n_eos_ids, vocab_size));
    PGI_TRY(check_ids("forced_eos_ids", o->forced_eos_ids, o->n_forced_eos_ids, vocab_size));
    PGI_TRY(check_ids("suppressed_ids", o->suppressed_ids, o->n_suppressed_ids, vocab_size));
    PGI_TRY(check_ids("begin_suppressed_ids", o->begin_suppressed_ids, o->n_begin_suppressed_ids, vocab_size));
    PGI_TRY(check_sequences("bad_word", "bad_words", o->bad_word_ids, o->bad_word_sizes, o->n_bad_words, vocab_size));
    PGI_TRY(check_sequences("bias", "biases", o->bias_ids, o->bias_sizes, o->n_biases, vocab_size));
    if (o->n_biases > 0 && !o->biases)
        return pgi_error(PG_ERROR_ARGUMENT, "biases is NULL, expected %lld numbers", (long long)o->n_biases);
    for (int64_t i = 0; i < o->n_biases; i++)
        if (o->biases[i] != o->biases[i])
            return pgi_error(PG_ERROR_ARGUMENT, "biases[%lld] is NaN, expected a number", (long long)i);
    int64_t id = 0;
    while (o->token_mask && id < vocab_size && !pgi_mask_has(o->token_mask, id)) id++;
    if (id == vocab_size)
        return pgi_error(PG_ERROR_ARGUMENT, "token_mask allows no id, expected at least 1 of 0 to %lld",
                         (long long)vocab_size - 1);
    return PG_OK;
}

static int is_greedy(const pg_sampling_options *o) {
    if (o->flags & (PG_SAMPLING_RANDOM | PG_SAMPLING_REMOVE_INVALID | PG_SAMPLING_RENORMALIZE)) return 0;
    if (o->repetition_penalty != 1 || o->decay_factor != 1) return 0;
    if (o->no_repeat_ngram_size || o->min_new_tokens || o->min_length || o->forced_bos_id >= 0) return 0;
    if (o->n_forced_eos_ids || o->n_suppressed_ids || o->n_begin_suppressed_ids) return 0;
    return !o->n_bad_words && !o->n_biases && !o->token_mask && !o->on_mask && !o->on_logits;
}

pg_status pgi_sampling_init(const pg_sampling_options *options, const pg_model *model, pgi_sampling *out) {
    const int64_t vocab_size = model->config.text.vocab_size;
    *out = (pgi_sampling){.options = *options, .config = &model->config, .vocab_size = vocab_size};
    out->greedy = is_greedy(options);
    PGI_TRY(check_numbers(options));
    return check_id_lists(options, vocab_size);
}

/* Of a bit for each id. */
static int64_t words_of(int64_t vocab_size) { return (vocab_size + 31) / 32; }

void pgi_sampling_mark_eos(pgi_sampling *sampling, uint32_t *marks) {
    const pg_sampling_options *options = &sampling->options;
    sampling->eos = NULL;
    if (options->n_eos_ids == 0) return;
    memset(marks, 0, (size_t)words_of(sampling->vocab_size) * sizeof *marks);
    for (int64_t i = 0; i < options->n_eos_ids; i++)
        marks[options->eos_ids[i] / 32] |= UINT32_C(1) << options->eos_ids[i] % 32;
    sampling->eos = marks;
}

pg_status pgi_sampling_make_eos(pgi_sampling *sampling, const pgi_memory *memory) {
    if (sampling->options.n_eos_ids == 0) return PG_OK;
    uint32_t *marks = pgi_alloc(memory, (size_t)words_of(sampling->vocab_size), sizeof *marks);
    if (!marks) return PG_ERROR_MEMORY;
    pgi_sampling_mark_eos(sampling, marks);
    return PG_OK;
}

int64_t pgi_sampling_count_eos(const pgi_sampling *sampling) {
    const pg_sampling_options *o = &sampling->options;
    if (o->flags & PG_SAMPLING_IGNORE_EOS) return o->n_eos_ids;
    return o->n_eos_ids + (o->n_eos_ids == 0 || o->flags & PG_SAMPLING_ADD_EOS ? sampling->config->n_eos : 0);
}

int pgi_sampling_is_eos(const pgi_sampling *sampling, int64_t id) {
    const pg_sampling_options *options = &sampling->options;
    if (sampling->eos && pgi_mask_has(sampling->eos, id)) return 1;
    if (options->flags & PG_SAMPLING_IGNORE_EOS) return 0;
    if (options->n_eos_ids > 0 && !(options->flags & PG_SAMPLING_ADD_EOS)) return 0;
    return pgi_is_eos(sampling->config, id);
}

int pgi_sampling_ends_row(const pgi_sampling *sampling, int64_t id) {
    return !(sampling->options.flags & PG_SAMPLING_IGNORE_EOS) && pgi_sampling_is_eos(sampling, id);
}

/* Rows of the workspace begin at multiples of 64 bytes. */
static int64_t rounded(int64_t vocab_size) { return (vocab_size + 15) / 16 * 16; }

int64_t pgi_sampling_workspace_size(int64_t vocab_size) {
    return 5 * rounded(vocab_size) + 2 * rounded(words_of(vocab_size));
}

pgi_sampling_workspace pgi_sampling_workspace_in(float *memory, int64_t vocab_size) {
    float *keys = memory + rounded(vocab_size), *marks = keys + 4 * rounded(vocab_size);
    return (pgi_sampling_workspace){
        .scores = memory,
        .keys = (uint64_t *)(void *)keys,
        .biases = keys,
        .marks = (uint32_t *)(void *)marks,
        .eos = (uint32_t *)(void *)(marks + rounded(words_of(vocab_size))),
    };
}
