/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* pg_score() and pg_scores: how likely given answers are. */
#include "generate/score.h"

#include <string.h>

#include "api/calls.h"
#include "api/structs.h"
#include "model/read_ahead.h"

PGI_OPTIONS(pg_score_options, .struct_size = sizeof(pg_score_options))

static pg_status check(pg_score_options *options, int64_t n_answers) {
    PGI_TRY(pgi_flags_in(options->flags, PG_SCORE_NO_EOS | PG_SCORE_LITERAL, "PG_SCORE_*"));
    PGI_TRY(pgi_reserved_in(options->reserved, "pg_score_options"));
    PGI_TRY(pgi_max_context_in(options->max_context));
    PGI_TRY(pgi_thread_count(options->n_threads, &options->n_threads));
    if (n_answers >= 1 && n_answers <= INT32_MAX) return PG_OK;
    return pgi_error(PG_ERROR_ARGUMENT, "n_answers is %lld, expected 1 to %d", (long long)n_answers, INT32_MAX);
}

/* What is scored: texts, or ids where they are NULL. */
typedef struct given_answers {
    const pg_processor *processor;
    const char *const *texts;
    const int64_t *ids, *sizes;
    int64_t n;
} given_answers;

/* options: complete. The handles stay while callbacks may close them. */
static pg_status score(const pg_model *model, const pg_inputs *inputs, const given_answers *answers,
                       const pg_score_options *options, pg_scores **out) {
    pg_scores *scores = NULL;
    PGI_TRY(pgi_tensor_files_unchanged(model->files));
    pgi_call call = pgi_call_begin(model, inputs, options->features, options->cancel);
    pg_processor *kept = answers->texts ? pgi_processor_retain(answers->processor) : NULL;
    pg_status status = pgi_scores_create(&model->memory, answers->n, &scores);
    if (status >= 0)
        status = answers->texts ? pgi_scores_tokenize(scores, answers->processor, answers->texts, options->flags)
                                : pgi_scores_copy_ids(scores, answers->ids, answers->sizes);
    if (status >= 0) pgi_read_ahead(model, pgi_read_ahead_parts(inputs, options->features));
    if (status >= 0) status = pgi_score(model, inputs, options, scores);
    if (status < 0)
        pgi_scores_close(scores);
    else
        *out = scores;
    pgi_processor_release(kept);
    pgi_call_end(&call);
    return status;
}

pg_status pg_score(const pg_model *model, const pg_processor *processor, const pg_inputs *inputs,
                   const char *const *answers, int64_t n_answers, const pg_score_options *options, pg_scores **out) {
    PGI_ENTER;
    PGI_NOT_NULL(out);
    *out = NULL;
    PGI_NOT_NULL(model);
    PGI_NOT_NULL(processor);
    PGI_TRY(pgi_processor_needs_text(processor));
    PGI_NOT_NULL(inputs);
    PGI_NOT_NULL(answers);
    PGI_OPTIONS_IN(pg_score_options, complete, options);
    PGI_TRY(check(&complete, n_answers));
    const given_answers given = {.processor = processor, .texts = answers, .n = n_answers};
    return score(model, inputs, &given, &complete, out);
}

pg_status pg_score_ids(const pg_model *model, const pg_inputs *inputs, const int64_t *ids, const int64_t *sizes,
                       int64_t n_answers, const pg_score_options *options, pg_scores **out) {
    PGI_ENTER;
    PGI_NOT_NULL(out);
    *out = NULL;
    PGI_NOT_NULL(model);
    PGI_NOT_NULL(inputs);
    PGI_NOT_NULL(ids);
    PGI_NOT_NULL(sizes);
    PGI_OPTIONS_IN(pg_score_options, complete, options);
    PGI_TRY(check(&complete, n_answers));
    const given_answers given = {.ids = ids, .sizes = sizes, .n = n_answers};
    return score(model, inputs, &given, &complete, out);
}

void pg_scores_close(pg_scores **scores) {
    if (!scores) return;
    pg_scores *closed = *scores;
    *scores = NULL; /* before its memory goes: the allocator's callback may close it, too */
    pgi_scores_close(closed);
}

int64_t pg_scores_get_n_answers(const pg_scores *scores) { return scores ? scores->n_answers : 0; }

static pg_status find_answer(const pg_scores *scores, int64_t index) {
    PGI_NOT_NULL(scores);
    if (index >= 0 && index < scores->n_answers) return PG_OK;
    return pgi_error(PG_ERROR_ARGUMENT, "index is %lld, expected 0 to %lld", (long long)index,
                     (long long)scores->n_answers - 1);
}

pg_status pg_scores_get_info(const pg_scores *scores, int64_t index, pg_score_info *info) {
    PGI_ENTER;
    PGI_TRY(find_answer(scores, index));
    PGI_TRY(pgi_struct_out_check(info, PGI_STRUCT(pg_score_info)));
    pgi_struct_out(info, &scores->scores[index], sizeof *scores->scores);
    return PG_OK;
}

pg_status pg_scores_get_tensor(const pg_scores *scores, int64_t index, const char *name, pg_tensor *out) {
    PGI_ENTER;
    PGI_TRY(find_answer(scores, index));
    PGI_NOT_NULL(name);
    PGI_TRY(pgi_struct_out_check(out, PGI_STRUCT(pg_tensor)));
    const int64_t begin = scores->begin[index];
    pg_tensor value = {.struct_size = sizeof value, .n_dims = 1, .shape = {scores->begin[index + 1] - begin, 1, 1, 1}};
    if (strcmp(name, "ids") == 0)
        value.dtype = PG_DTYPE_I64, value.data = scores->ids.data + begin;
    else if (strcmp(name, "log_probs") == 0)
        value.dtype = PG_DTYPE_F32, value.data = scores->log_probs + begin;
    else
        return pgi_error(PG_ERROR_NOT_FOUND, "the scores have no tensor \"%s\", expected ids or log_probs", name);
    pgi_struct_out(out, &value, sizeof value);
    return PG_OK;
}
