/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The way from logits to scores, and from scores to a token. */
#include "generate/sampling.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "generate/probability.h"
#include "generate/processors.h"
#include "generate/random.h"
#include "generate/sampler.h"
#include "generate/warpers.h"

static int any_left(const float *logits, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        if (logits[i] > -INFINITY) return 1;
    return 0;
}

/* The names of the settings that can keep ids out and are in use, ", " between them. */
static void name_limits(const pgi_sampling *sampling, char *text, size_t size) {
    const pg_sampling_options *o = &sampling->options;
    const struct {
        const char *name;
        int used;
    } limits[] = {
        {"PG_GENERATE_DETECT", sampling->detect && sampling->detect->n_segs == 0},
        {"PG_GENERATE_SEGMENT", sampling->detect && sampling->detect->n_segs > 0},
        {"biases", o->n_biases > 0},
        {"repetition_penalty", o->repetition_penalty != 1},
        {"no_repeat_ngram_size", o->no_repeat_ngram_size > 0},
        {"bad_word_ids", o->n_bad_words > 0},
        {"min_new_tokens", o->min_new_tokens > 0},
        {"min_length", o->min_length > 0},
        {"token_mask", o->token_mask != NULL},
        {"on_mask", o->on_mask != NULL},
        {"forced_bos_id", o->forced_bos_id >= 0},
        {"forced_eos_ids", o->n_forced_eos_ids > 0},
        {"suppressed_ids", o->n_suppressed_ids > 0},
        {"begin_suppressed_ids", o->n_begin_suppressed_ids > 0},
        {"on_logits", o->on_logits != NULL},
    };
    size_t at = 0;
    text[0] = 0;
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++)
        if (limits[i].used && at < size)
            at += (size_t)snprintf(text + at, size - at, "%s%s", at > 0 ? ", " : "", limits[i].name);
}

pg_status pgi_sampling_none_left(const pgi_sampling *sampling, int64_t row, int64_t n_new) {
    char limits[320];
    name_limits(sampling, limits, sizeof limits);
    return pgi_error_of_row(
        pgi_error(PG_ERROR_ARGUMENT,
                  "row %lld: the settings of sampling leave no id as new token %lld, expected at least 1: all are kept "
                  "out by %s",
                  (long long)row, (long long)n_new, limits),
        row);
}

pg_status pgi_sampling_process(const pgi_sampling *sampling, const pgi_sampled_row *row, const float *logits,
                               const pgi_sampling_workspace *w, int *left, int *stop) {
    const pg_sampling_options *options = &sampling->options;
    const int64_t vocab_size = sampling->vocab_size;
    *left = *stop = 0;
    memcpy(w->scores, logits, (size_t)vocab_size * sizeof *w->scores);
    if (sampling->detect)
        pgi_detect_mask_apply(sampling->detect, row->ids + row->n_ids - row->n_new, (size_t)row->n_new, w->scores);
    PGI_TRY(pgi_process_logits(sampling, row, w, stop));
    if (*stop) return PG_OK;
    *left = any_left(w->scores, vocab_size) || !any_left(logits, vocab_size);
    if (!*left) return PG_OK;
    if (options->flags & PG_SAMPLING_RANDOM) pgi_warp(options, pgi_max64(1, sampling->least_kept), vocab_size, w);
    if (options->flags & PG_SAMPLING_RENORMALIZE) {
        const pgi_softmax softmax = pgi_softmax_of(w->scores, vocab_size);
        for (int64_t i = 0; i < vocab_size; i++) w->scores[i] = pgi_log_prob(&softmax, w->scores[i]);
    }
    return PG_OK;
}

pg_status pgi_sampling_score(const pgi_sampling *sampling, const pgi_sampled_row *row, const float *logits,
                             const pgi_sampling_workspace *w, int *stop) {
    int left;
    PGI_TRY(pgi_sampling_process(sampling, row, logits, w, &left, stop));
    return left || *stop ? PG_OK : pgi_sampling_none_left(sampling, row->prompt, row->n_new);
}

int64_t pgi_sampling_choose(const pgi_sampling *sampling, const pgi_sampled_row *row, const float *scores) {
    const pg_sampling_options *options = &sampling->options;
    if (!(options->flags & PG_SAMPLING_RANDOM)) return pgi_sample(scores, sampling->vocab_size);
    const int64_t series = options->flags & PG_SAMPLING_ROW_STREAMS ? row->row : row->text;
    const uint64_t stream = options->stream + (uint64_t)series;
    return pgi_draw(scores, sampling->vocab_size, pgi_random(options->seed, stream, (uint64_t)row->n_new));
}
