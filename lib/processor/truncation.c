/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Cutting the ids of a row to max_length. */
#include "processor/truncation.h"

#include <string.h>

static int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

/* How many tokens of each part stay: "longest_first" takes from the longer part alone, and halves both when that is
 * not enough. "only_first" and "only_second" leave at least one token of theirs. */
static pg_status lengths(const pgi_truncation *t, int64_t n_prefix, int64_t n_suffix, int has_pair, int64_t *prefix,
                         int64_t *suffix) {
    int64_t too_many = n_prefix + n_suffix - t->max_length;
    *prefix = n_prefix;
    *suffix = n_suffix;
    if (t->part != PG_TRUNCATION_LONGEST) {
        int is_prefix = t->part == PG_TRUNCATION_PROMPT;
        int64_t *target = is_prefix ? prefix : suffix;
        if (*target <= too_many)
            return pgi_error(PG_ERROR_ARGUMENT,
                             "the row has %lld tokens, %lld of them %s, and max_length is %lld: "
                             "cutting the %s alone cannot do that",
                             (long long)(n_prefix + n_suffix), (long long)*target,
                             is_prefix ? "images and prompt" : "suffix", (long long)t->max_length,
                             is_prefix ? "prompt" : "suffix");
        *target -= too_many;
    } else if (!has_pair || t->as_one) {
        *suffix = larger(n_suffix - too_many, 0);
        *prefix = t->max_length - *suffix;
    } else {
        int64_t shorter = n_prefix < n_suffix ? n_prefix : n_suffix;
        int64_t longer = shorter > t->max_length ? shorter : larger(shorter, t->max_length - shorter);
        if (shorter + longer > t->max_length) {
            shorter = t->max_length / 2;
            longer = shorter + t->max_length % 2;
        }
        *prefix = n_prefix > n_suffix ? longer : shorter;
        *suffix = n_prefix > n_suffix ? shorter : longer;
    }
    return PG_OK;
}

/* Removes up to n_out of the n tokens at `at`, from the last one on, but never an image token or bos. Returns how many
 * are left. */
static int64_t drop(const pgi_truncation *t, int64_t *at, int64_t n, int64_t n_out) {
    int64_t write = n;
    for (int64_t i = n; i-- > 0;) {
        int keep = at[i] == t->image_id || at[i] == t->bos_id;
        if (keep || n_out == 0)
            at[--write] = at[i];
        else
            n_out--;
    }
    if (write > 0) memmove(at, at + write, (size_t)(n - write) * sizeof *at);
    return n - write;
}

/* The suffix's tail before its eos goes first, then the prompt's before its newline. */
static pg_status keep_ends(const pgi_truncation *t, int64_t *row, int64_t *n_prefix, int64_t *n_suffix) {
    int64_t too_many = *n_prefix + *n_suffix - t->max_length, n_eos = t->has_eos && *n_suffix > 0;
    int64_t of_suffix = t->part == PG_TRUNCATION_PROMPT ? 0 : *n_suffix - n_eos;
    if (of_suffix > too_many) of_suffix = too_many;
    int64_t suffix = *n_suffix - of_suffix, inner = *n_prefix - 1;
    int64_t of_prefix = too_many - of_suffix, kept = inner, free_tokens = 0;
    for (int64_t i = 0; i < inner; i++) free_tokens += row[i] != t->image_id && row[i] != t->bos_id;
    if (t->part == PG_TRUNCATION_SUFFIX) free_tokens = 0;
    if (of_prefix > free_tokens)
        return pgi_error(PG_ERROR_ARGUMENT,
                         "the row has %lld tokens, of which %lld cannot go (images, bos, newline, "
                         "eos and what is not to be cut), and max_length is %lld",
                         (long long)(*n_prefix + *n_suffix),
                         (long long)(*n_prefix + *n_suffix - of_suffix - free_tokens), (long long)t->max_length);
    if (of_suffix > 0 && n_eos) row[*n_prefix + suffix - 1] = row[*n_prefix + *n_suffix - 1];
    if (of_prefix > 0) {
        kept = drop(t, row, inner, of_prefix);
        memmove(row + kept, row + inner, (size_t)(1 + suffix) * sizeof *row);
    }
    *n_prefix = kept + 1;
    *n_suffix = suffix;
    return PG_OK;
}

pg_status pgi_truncate(const pgi_truncation *truncation, pgi_id_list *ids, int64_t *n_prefix, int64_t *n_suffix,
                       uint32_t *events) {
    int64_t n = *n_prefix + *n_suffix, prefix, suffix;
    if (truncation->max_length == 0 || n <= truncation->max_length) return PG_OK;
    int64_t *row = ids->data + ids->size - n;
    int has_pair = *n_suffix > 0;
    *events |= PG_ROW_TRUNCATED;
    if (truncation->keep_ends) {
        PGI_TRY(keep_ends(truncation, row, n_prefix, n_suffix));
    } else {
        PGI_TRY(lengths(truncation, *n_prefix, *n_suffix, has_pair, &prefix, &suffix));
        int left = truncation->from_left;
        if (prefix < *n_prefix && !left) *events |= PG_ROW_TRUNCATED_NEWLINE;
        if (suffix < *n_suffix && !left && truncation->has_eos) *events |= PG_ROW_TRUNCATED_EOS;
        if (left && prefix == 0) *events |= PG_ROW_TRUNCATED_NEWLINE;
        if (left && suffix == 0 && has_pair && truncation->has_eos) *events |= PG_ROW_TRUNCATED_EOS;
        memmove(row, row + (left ? *n_prefix - prefix : 0), (size_t)prefix * sizeof *row);
        memmove(row + prefix, row + *n_prefix + (left ? *n_suffix - suffix : 0), (size_t)suffix * sizeof *row);
        *n_prefix = prefix;
        *n_suffix = suffix;
    }
    ids->size -= (size_t)(n - *n_prefix - *n_suffix);
    return PG_OK;
}
