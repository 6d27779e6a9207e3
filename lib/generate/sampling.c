/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The way from logits to scores, and from scores to a token. */
#include "generate/sampling.h"

#include <math.h>
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

pg_status pgi_sampling_none_left(int64_t row, int64_t n_new) {
    return pgi_error_of_row(
        pgi_error(PG_ERROR_ARGUMENT,
                  "row %lld: the settings of sampling leave no id as new token %lld, expected at least 1",
                  (long long)row, (long long)n_new),
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
    return left || *stop ? PG_OK : pgi_sampling_none_left(row->prompt, row->n_new);
}

int64_t pgi_sampling_choose(const pgi_sampling *sampling, const pgi_sampled_row *row, const float *scores) {
    const pg_sampling_options *options = &sampling->options;
    if (!(options->flags & PG_SAMPLING_RANDOM)) return pgi_sample(scores, sampling->vocab_size);
    const int64_t series = options->flags & PG_SAMPLING_ROW_STREAMS ? row->row : row->text;
    const uint64_t stream = options->stream + (uint64_t)series;
    return pgi_draw(scores, sampling->vocab_size, pgi_random(options->seed, stream, (uint64_t)row->n_new));
}
