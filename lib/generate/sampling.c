/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Settings of sampling: their ranges, eos ids, and the logits callback. */
#include "generate/sampling.h"

static pg_status check_ids(const char *name, const int64_t *ids, int64_t n, int64_t vocab_size) {
    if (n < 0 || n > vocab_size)
        return pgi_error(PG_ERROR_ARGUMENT, "n_%s is %lld, expected 0 to %lld", name, (long long)n,
                         (long long)vocab_size);
    if (n > 0 && !ids) return pgi_error(PG_ERROR_ARGUMENT, "%s is NULL, expected %lld ids", name, (long long)n);
    for (int64_t i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= vocab_size)
            return pgi_error(PG_ERROR_ARGUMENT, "%s[%lld] is %lld, expected 0 to %lld", name, (long long)i,
                             (long long)ids[i], (long long)vocab_size - 1);
    return PG_OK;
}

pg_status pgi_sampling_init(const pg_sampling_options *options, const pg_model *model, pgi_sampling *out) {
    const int64_t vocab_size = model->config.text.vocab_size;
    *out = (pgi_sampling){.options = *options, .config = &model->config, .vocab_size = vocab_size};
    return check_ids("eos_ids", options->eos_ids, options->n_eos_ids, vocab_size);
}

int pgi_sampling_is_greedy(const pgi_sampling *sampling) { return !sampling->options.on_logits; }

int pgi_sampling_is_eos(const pgi_sampling *sampling, int64_t id) {
    const pg_sampling_options *options = &sampling->options;
    if (options->flags & PG_SAMPLING_IGNORE_EOS) return 0;
    for (int64_t i = 0; i < options->n_eos_ids; i++)
        if (options->eos_ids[i] == id) return 1;
    if (options->n_eos_ids > 0 && !(options->flags & PG_SAMPLING_ADD_EOS)) return 0;
    for (int32_t i = 0; i < sampling->config->n_eos; i++)
        if (sampling->config->eos_ids[i] == id) return 1;
    return 0;
}

pg_status pgi_sampling_score(const pgi_sampling *sampling, const pgi_sampled_row *row, float *logits, int *stop) {
    const pg_sampling_options *options = &sampling->options;
    *stop = options->on_logits &&
            options->on_logits(options->on_logits_user, row->row, row->ids, row->n_ids, logits, sampling->vocab_size);
    return PG_OK;
}
