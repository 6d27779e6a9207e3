/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * HF's logits processors in the order of GenerationMixin._get_logits_processor(), and the callbacks. A row's ids are
 * its own: HF counts the padding of a batch in min_length and no_repeat_ngram_size too.
 */
#include "generate/processors.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "base/callback.h"
#include "base/int64.h"

static void keep_out(float *scores, const int64_t *ids, int64_t n) {
    for (int64_t i = 0; i < n; i++) scores[ids[i]] = -INFINITY;
}

/* Whether the row goes on with the last of ids [n]: the others are its last ids. */
static int follows(const pgi_sampled_row *row, const int64_t *ids, int64_t n) {
    if (n - 1 > row->n_ids) return 0;
    return memcmp(row->ids + row->n_ids - (n - 1), ids, (size_t)(n - 1) * sizeof *ids) == 0;
}

/* Single ids first, as HF adds them up. */
static void add_biases(const pg_sampling_options *options, const pgi_sampled_row *row, int64_t vocab_size,
                       const pgi_sampling_workspace *w) {
    memset(w->biases, 0, (size_t)vocab_size * sizeof *w->biases);
    for (int longer = 0; longer < 2; longer++) {
        const int64_t *ids = options->bias_ids;
        for (int64_t i = 0; i < options->n_biases; ids += options->bias_sizes[i++]) {
            const int64_t n = options->bias_sizes[i];
            if ((n > 1) == longer && (n == 1 || follows(row, ids, n)))
                w->biases[ids[n - 1]] += (float)options->biases[i];
        }
    }
    for (int64_t i = 0; i < vocab_size; i++) w->scores[i] += w->biases[i];
}

static void penalize_repetition(double penalty, const pgi_sampled_row *row, int64_t vocab_size,
                                const pgi_sampling_workspace *w) {
    memset(w->marks, 0, (size_t)((vocab_size + 31) / 32) * sizeof *w->marks);
    for (int64_t i = 0; i < row->n_ids; i++) {
        const int64_t id = row->ids[i];
        if (id < 0 || id >= vocab_size || pgi_mask_has(w->marks, id)) continue;
        w->marks[id / 32] |= UINT32_C(1) << id % 32;
        w->scores[id] = w->scores[id] < 0 ? w->scores[id] * (float)penalty : w->scores[id] / (float)penalty;
    }
}

/* Where the largest of the endings of ids [n] begins, and its least period. order: 1, or -1 for the smallest. */
static int64_t largest_ending(const int64_t *ids, int64_t n, int order, int64_t *period) {
    int64_t begin = 0, other = 1, same = 0, p = 1; /* `same` ids of both endings are equal */
    while (other + same < n) {
        const int64_t a = ids[other + same], b = ids[begin + same];
        if (a == b) {
            if (++same == p) other += p, same = 0;
        } else if ((a < b) == (order > 0)) {
            other += same + 1, same = 0, p = other - begin;
        } else {
            begin = other++, same = 0, p = 1;
        }
    }
    *period = p;
    return begin;
}

/*
 * Finds the row's last size - 1 ids where they stood before, to keep out what followed: by the two-way search of
 * Crochemore and Perrin (1991), which takes linear time, whatever the ids are, and no memory. The ids that are looked
 * for are compared from `middle` on and then before it; the first `known` of them match already.
 */
static void keep_out_repeated_ngrams(int64_t size, const pgi_sampled_row *row, int64_t vocab_size, float *scores) {
    const int64_t n = size - 1, *last = row->ids + row->n_ids - n;
    int64_t period, other_period, known = 0;
    int64_t middle = largest_ending(last, n, 1, &period);
    const int64_t other = largest_ending(last, n, -1, &other_period);
    if (other > middle) middle = other, period = other_period;
    const int periodic =
        middle + period <= n && memcmp(last, last + period, (size_t)middle * sizeof *last) == 0; /* all of them are */
    if (!periodic) period = pgi_max64(middle, n - middle) + 1;
    for (int64_t at = 0; at + n < row->n_ids;) {
        const int64_t *ids = row->ids + at, id = ids[n];
        int64_t i = pgi_max64(middle, known);
        while (i < n && last[i] == ids[i]) i++;
        if (i < n) {
            at += i - middle + 1, known = 0;
            continue;
        }
        for (i = middle; i > known && last[i - 1] == ids[i - 1];) i--;
        if (i <= known && id >= 0 && id < vocab_size) scores[id] = -INFINITY;
        at += period, known = periodic ? n - period : 0;
    }
}

static void keep_out_bad_words(const pgi_sampling *sampling, const pgi_sampled_row *row, float *scores) {
    const pg_sampling_options *options = &sampling->options;
    const int64_t *ids = options->bad_word_ids;
    for (int64_t i = 0; i < options->n_bad_words; ids += options->bad_word_sizes[i++]) {
        const int64_t n = options->bad_word_sizes[i];
        if (n == 1 ? !pgi_sampling_is_eos(sampling, ids[0]) : follows(row, ids, n)) scores[ids[n - 1]] = -INFINITY;
    }
}

static void keep_out_eos(const pgi_sampling *sampling, float *scores) {
    const pg_sampling_options *options = &sampling->options;
    keep_out(scores, options->eos_ids, options->n_eos_ids);
    for (int32_t i = 0; i < sampling->config->n_eos; i++) {
        const int64_t id = sampling->config->eos_ids[i];
        if (id >= 0 && id < sampling->vocab_size && pgi_sampling_is_eos(sampling, id)) scores[id] = -INFINITY;
    }
}

static void apply_mask(const uint32_t *mask, int64_t vocab_size, float *scores) {
    for (int64_t i = 0; i < vocab_size; i++)
        if (!pgi_mask_has(mask, i)) scores[i] = -INFINITY;
}

static pg_status ask_for_mask(const pgi_sampling *sampling, const pgi_sampled_row *row, const pgi_sampling_workspace *w,
                              int *stop) {
    const pg_sampling_options *options = &sampling->options;
    const int64_t vocab_size = sampling->vocab_size;
    memset(w->marks, 0, (size_t)((vocab_size + 31) / 32) * sizeof *w->marks);
    int32_t answer;
    PGI_TRY(pgi_callback_mask(options->on_mask, options->on_mask_user, row->row, row->ids, row->n_ids, w->marks,
                              vocab_size, &answer));
    *stop = answer != 0;
    int64_t id = 0;
    while (!*stop && id < vocab_size && !pgi_mask_has(w->marks, id)) id++;
    if (id == vocab_size)
        return pgi_error_of_row(
            pgi_error(PG_ERROR_ARGUMENT, "row %lld: on_mask allows no id as new token %lld, expected at least 1",
                      (long long)row->prompt, (long long)row->n_new),
            row->prompt);
    if (!*stop) apply_mask(w->marks, vocab_size, w->scores);
    return PG_OK;
}

/* Leaves ids [n] alone. */
static void force(const int64_t *ids, int64_t n, int64_t vocab_size, float *scores) {
    for (int64_t i = 0; i < vocab_size; i++) scores[i] = -INFINITY;
    for (int64_t i = 0; i < n; i++) scores[ids[i]] = 0;
}

static void remove_invalid(int64_t vocab_size, float *scores) {
    for (int64_t i = 0; i < vocab_size; i++) {
        if (scores[i] != scores[i]) scores[i] = 0;
        if (scores[i] == INFINITY) scores[i] = FLT_MAX;
        if (scores[i] == -INFINITY) scores[i] = -FLT_MAX;
    }
}

/* Raises the scores of eos ids, the more the longer the answer is. */
static void favour_eos(const pgi_sampling *sampling, const pgi_sampled_row *row, float *scores) {
    const int64_t beyond = row->n_new - sampling->options.decay_start;
    if (beyond <= 0) return;
    const float factor = (float)(pow(sampling->options.decay_factor, (double)beyond) - 1);
    for (int64_t i = 0; i < sampling->vocab_size; i++)
        if (isfinite(scores[i]) && pgi_sampling_is_eos(sampling, i)) scores[i] += fabsf(scores[i]) * factor;
}

/* Up to the masks: what looks at the row's ids, and where it may end. */
static void process_by_ids(const pgi_sampling *sampling, const pgi_sampled_row *row, const pgi_sampling_workspace *w) {
    const pg_sampling_options *options = &sampling->options;
    const int64_t vocab_size = sampling->vocab_size, size = options->no_repeat_ngram_size;
    if (options->n_biases > 0) add_biases(options, row, vocab_size, w);
    if (options->repetition_penalty != 1) penalize_repetition(options->repetition_penalty, row, vocab_size, w);
    if (size > 0 && row->n_ids >= size) keep_out_repeated_ngrams(size, row, vocab_size, w->scores);
    if (options->n_bad_words > 0) keep_out_bad_words(sampling, row, w->scores);
    if (options->min_new_tokens > 0 ? row->n_new < options->min_new_tokens
                                    : row->n_prompt_tokens + row->n_new < options->min_length)
        keep_out_eos(sampling, w->scores);
}

pg_status pgi_process_logits(const pgi_sampling *sampling, const pgi_sampled_row *row, const pgi_sampling_workspace *w,
                             int *stop) {
    const pg_sampling_options *options = &sampling->options;
    const int64_t vocab_size = sampling->vocab_size;
    /* HF looks at the length of input_ids, which forced_bos_token_id makes one longer */
    const int64_t begin = row->n_ids - row->n_new <= 1 && options->forced_bos_id >= 0 ? 1 : 0;
    process_by_ids(sampling, row, w);
    if (options->token_mask) apply_mask(options->token_mask, vocab_size, w->scores);
    if (options->on_mask) PGI_TRY(ask_for_mask(sampling, row, w, stop));
    if (*stop) return PG_OK;
    if (options->forced_bos_id >= 0 && row->n_ids == 1) force(&options->forced_bos_id, 1, vocab_size, w->scores);
    if (options->n_forced_eos_ids > 0 && row->n_new == row->max_new - 1)
        force(options->forced_eos_ids, options->n_forced_eos_ids, vocab_size, w->scores);
    if (options->flags & PG_SAMPLING_REMOVE_INVALID) remove_invalid(vocab_size, w->scores);
    if (options->decay_factor != 1) favour_eos(sampling, row, w->scores);
    keep_out(w->scores, options->suppressed_ids, options->n_suppressed_ids);
    if (row->n_new == begin) keep_out(w->scores, options->begin_suppressed_ids, options->n_begin_suppressed_ids);
    if (options->on_logits) {
        int32_t answer;
        PGI_TRY(pgi_callback_logits(options->on_logits, options->on_logits_user, row->row, row->ids, row->n_ids,
                                    w->scores, vocab_size, &answer));
        *stop = answer != 0;
    }
    return PG_OK;
}
