/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Keeping what was asked for of every step. */
#include "generate/step_scores.h"

#include <math.h>
#include <string.h>

#include "generate/probability.h"

int pgi_step_scores_any(const pgi_step_scores *kept) { return kept->flags != 0 || kept->n_alternatives > 0; }

static pg_status reserve(pgi_float_list *list, const pgi_memory *memory, size_t extra) {
    return list->size + extra <= list->capacity
               ? PG_OK
               : pgi_grow(memory, &list->data, &list->capacity, list->size + extra, sizeof(float));
}

static pg_status push(pgi_float_list *list, const pgi_memory *memory, const float *values, size_t n) {
    PGI_TRY(reserve(list, memory, n));
    memcpy(list->data + list->size, values, n * sizeof *values);
    list->size += n;
    return PG_OK;
}

static pg_status reserve_alternatives(pgi_step_scores *kept, const pgi_memory *memory, size_t extra) {
    const size_t needed = kept->n_alternative_ids + extra;
    PGI_TRY(reserve(&kept->alternative_log_probs, memory, extra));
    if (needed <= kept->alternatives_capacity) return PG_OK;
    return pgi_grow(memory, &kept->alternative_ids, &kept->alternatives_capacity, needed, sizeof(int64_t));
}

pg_status pgi_step_scores_reserve(pgi_step_scores *kept, const pgi_memory *memory, int64_t n) {
    if (kept->flags & PG_GENERATE_LOG_PROBS) {
        PGI_TRY(reserve(&kept->log_probs, memory, (size_t)n));
        PGI_TRY(reserve(&kept->score_log_probs, memory, (size_t)n));
    }
    return kept->n_alternatives > 0 ? reserve_alternatives(kept, memory, (size_t)(n * kept->n_alternatives)) : PG_OK;
}

static pg_status push_alternatives(pgi_step_scores *kept, const pgi_memory *memory, const float *logits,
                                   const pgi_softmax *softmax) {
    const int64_t k = kept->n_alternatives;
    PGI_TRY(reserve_alternatives(kept, memory, (size_t)k));
    int64_t *ids = kept->alternative_ids + kept->n_alternative_ids;
    pgi_largest(logits, kept->vocab_size, k, ids);
    kept->n_alternative_ids += (size_t)k;
    for (int64_t i = 0; i < k; i++) {
        const float value = ids[i] >= 0 ? pgi_log_prob(softmax, logits[ids[i]]) : -INFINITY;
        PGI_TRY(push(&kept->alternative_log_probs, memory, &value, 1));
    }
    return PG_OK;
}

static pg_status push_log_probs(pgi_step_scores *kept, const pgi_memory *memory, const float *logits,
                                const float *scores, const pgi_softmax *softmax, int64_t token) {
    const pgi_softmax of_scores = scores == logits ? *softmax : pgi_softmax_of(scores, kept->vocab_size);
    const float by_logits = pgi_log_prob(softmax, logits[token]), by_scores = pgi_log_prob(&of_scores, scores[token]);
    return pgi_step_scores_push_log_probs(kept, memory, by_logits, by_scores);
}

pg_status pgi_step_scores_push_log_probs(pgi_step_scores *kept, const pgi_memory *memory, float log_prob,
                                         float score_log_prob) {
    if (!(kept->flags & PG_GENERATE_LOG_PROBS)) return PG_OK;
    PGI_TRY(push(&kept->log_probs, memory, &log_prob, 1));
    return push(&kept->score_log_probs, memory, &score_log_prob, 1);
}

pg_status pgi_step_scores_take(pgi_step_scores *kept, const pgi_memory *memory, const pgi_step_scores *from,
                               int64_t i) {
    const size_t vocab_size = (size_t)from->vocab_size, k = (size_t)from->n_alternatives, at = (size_t)i;
    if (k > 0) {
        PGI_TRY(reserve_alternatives(kept, memory, k));
        memcpy(kept->alternative_ids + kept->n_alternative_ids, from->alternative_ids + at * k,
               k * sizeof *kept->alternative_ids);
        kept->n_alternative_ids += k;
        PGI_TRY(push(&kept->alternative_log_probs, memory, from->alternative_log_probs.data + at * k, k));
    }
    if (from->flags & PG_GENERATE_LOGITS)
        PGI_TRY(push(&kept->logits, memory, from->logits.data + at * vocab_size, vocab_size));
    if (from->flags & PG_GENERATE_SCORES)
        PGI_TRY(push(&kept->scores, memory, from->scores.data + at * vocab_size, vocab_size));
    return PG_OK;
}

void pgi_step_scores_clear(pgi_step_scores *kept) {
    pgi_float_list *const lists[] = {&kept->log_probs, &kept->score_log_probs, &kept->alternative_log_probs,
                                     &kept->logits, &kept->scores};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) lists[i]->size = 0;
    kept->n_alternative_ids = 0;
}

pg_status pgi_step_scores_push(pgi_step_scores *kept, const pgi_memory *memory, const float *logits,
                               const float *scores, int64_t token) {
    const size_t vocab_size = (size_t)kept->vocab_size;
    const int log_probs = (kept->flags & PG_GENERATE_LOG_PROBS) != 0;
    if (log_probs || kept->n_alternatives > 0) {
        const pgi_softmax softmax = pgi_softmax_of(logits, kept->vocab_size);
        if (log_probs) PGI_TRY(push_log_probs(kept, memory, logits, scores, &softmax, token));
        if (kept->n_alternatives > 0) PGI_TRY(push_alternatives(kept, memory, logits, &softmax));
    }
    if (kept->flags & PG_GENERATE_LOGITS) PGI_TRY(push(&kept->logits, memory, logits, vocab_size));
    if (kept->flags & PG_GENERATE_SCORES) PGI_TRY(push(&kept->scores, memory, scores, vocab_size));
    return PG_OK;
}

void pgi_step_scores_trim(pgi_step_scores *kept, const pgi_memory *memory) {
    pgi_float_list *const lists[] = {&kept->log_probs, &kept->score_log_probs, &kept->alternative_log_probs,
                                     &kept->logits, &kept->scores};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        pgi_trim(memory, &lists[i]->data, &lists[i]->capacity, lists[i]->size, sizeof(float));
    pgi_trim(memory, &kept->alternative_ids, &kept->alternatives_capacity, kept->n_alternative_ids, sizeof(int64_t));
}

void pgi_step_scores_free(pgi_step_scores *kept, const pgi_memory *memory) {
    pgi_float_list *const lists[] = {&kept->log_probs, &kept->score_log_probs, &kept->alternative_log_probs,
                                     &kept->logits, &kept->scores};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) pgi_free(memory, lists[i]->data);
    pgi_free(memory, kept->alternative_ids);
    *kept = (pgi_step_scores){0};
}

pg_status pgi_step_scores_tensor(const pgi_step_scores *kept, const char *name, int64_t n, pg_tensor *out) {
    const int log_probs = (kept->flags & PG_GENERATE_LOG_PROBS) != 0, alternatives = kept->n_alternatives > 0;
    const struct {
        const char *name, *option;
        const void *data;
        int32_t dtype;
        int kept;
        int64_t width; /* 0: one number a step */
    } tensors[] = {
        {"log_probs", "PG_GENERATE_LOG_PROBS", kept->log_probs.data, PG_DTYPE_F32, log_probs, 0},
        {"score_log_probs", "PG_GENERATE_LOG_PROBS", kept->score_log_probs.data, PG_DTYPE_F32, log_probs, 0},
        {"alternative_ids", "n_alternatives", kept->alternative_ids, PG_DTYPE_I64, alternatives, kept->n_alternatives},
        {"alternative_log_probs", "n_alternatives", kept->alternative_log_probs.data, PG_DTYPE_F32, alternatives,
         kept->n_alternatives},
        {"logits", "PG_GENERATE_LOGITS", kept->logits.data, PG_DTYPE_F32, (kept->flags & PG_GENERATE_LOGITS) != 0,
         kept->vocab_size},
        {"scores", "PG_GENERATE_SCORES", kept->scores.data, PG_DTYPE_F32, (kept->flags & PG_GENERATE_SCORES) != 0,
         kept->vocab_size},
    };
    for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++) {
        if (strcmp(name, tensors[i].name) != 0) continue;
        if (!tensors[i].kept)
            return pgi_error(PG_ERROR_NOT_FOUND, "the result has no %s, expected %s in the options", name,
                             tensors[i].option);
        const int64_t width = tensors[i].width;
        *out = (pg_tensor){
            .struct_size = sizeof *out,
            .dtype = tensors[i].dtype,
            .n_dims = width > 0 ? 2 : 1,
            .shape = {n, width > 0 ? width : 1, 1, 1},
            .data = tensors[i].data,
        };
        return PG_OK;
    }
    return pgi_error(PG_ERROR_NOT_FOUND,
                     "the result has no tensor \"%s\", expected ids, log_probs, score_log_probs, alternative_ids, "
                     "alternative_log_probs, logits, scores, beam_indices, beam_logits or beam_scores",
                     name);
}
