/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The prompt is run once. Its last hidden state gives the probability of each answer's first token. The answers then
 * run as branches of it: an answer of k tokens feeds its first k - 1 as one causal block, as a suffix is fed, and many
 * answers take a pass together. In each layer the attention of a branch is done before the next branch begins, so that
 * all of them write their keys to one place, right behind the prompt's, and the cache is as long as the longest.
 *
 * What an answer gets depends on nothing beside it: each branch has its keys at the same place whatever runs with it,
 * and every product is one of more than pgi_linear_few_rows(), which are summed in one order however many they are.
 * A pass of fewer tokens is filled up.
 */
#include "generate/score.h"

#include <math.h>
#include <string.h>

#include "base/int64.h"
#include "base/parallel.h"
#include "generate/decoding.h"
#include "generate/probability.h"
#include "processor/layout.h"

enum {
    PASS_TOKENS = 256, /* of a pass; a longer answer takes several, alone */
    HEAD_ROWS = 16     /* of logits at once, or more: see head_rows */
};

/* ---------------------------------------------------------------------------------------------------------- answers */

pg_status pgi_scores_create(const pgi_memory *memory, int64_t n_answers, pg_scores **out) {
    pg_scores *scores = pgi_alloc_zero(memory, 1, sizeof *scores);
    if (!scores) return PG_ERROR_MEMORY;
    scores->memory = *memory;
    scores->n_answers = n_answers;
    pgi_id_list_init(&scores->ids, &scores->memory);
    scores->begin = pgi_alloc_zero(&scores->memory, (size_t)n_answers + 1, sizeof *scores->begin);
    if (scores->begin) scores->scores = pgi_alloc_zero(&scores->memory, (size_t)n_answers, sizeof *scores->scores);
    *out = scores;
    if (scores->scores) return PG_OK;
    pgi_scores_close(scores);
    *out = NULL;
    return PG_ERROR_MEMORY;
}

void pgi_scores_close(pg_scores *scores) {
    if (!scores) return;
    pgi_memory memory = scores->memory;
    pgi_id_list_free(&scores->ids);
    pgi_free(&memory, scores->begin);
    pgi_free(&memory, scores->log_probs);
    pgi_free(&memory, scores->scores);
    pgi_free(&memory, scores);
}

pg_status pgi_scores_tokenize(pg_scores *scores, const pg_processor *processor, const char *const *answers,
                              uint32_t flags) {
    const pgi_layout layout = {.tokenizer = processor->tokenizer, .literal = (flags & PG_SCORE_LITERAL) != 0};
    for (int64_t i = 0; i < scores->n_answers; i++) {
        if (!answers[i]) return pgi_error(PG_ERROR_ARGUMENT, "answers[%lld] is NULL, expected a text", (long long)i);
        const pgi_text text = {answers[i], strlen(answers[i])};
        const pg_status status = pgi_layout_suffix(&layout, text, (flags & PG_SCORE_NO_EOS) != 0, &scores->ids);
        if (status == PG_ERROR_ARGUMENT) return pgi_error_context(status, "answers[%lld]", (long long)i);
        if (status < 0) return status;
        scores->begin[i + 1] = (int64_t)scores->ids.size;
    }
    return PG_OK;
}

pg_status pgi_scores_copy_ids(pg_scores *scores, const int64_t *ids, const int64_t *sizes) {
    int64_t n = 0;
    for (int64_t i = 0; i < scores->n_answers; i++) {
        if (sizes[i] < 1 || sizes[i] > PGI_MAX_ROW_TOKENS)
            return pgi_error(PG_ERROR_ARGUMENT, "sizes[%lld] is %lld, expected 1 to %lld ids", (long long)i,
                             (long long)sizes[i], (long long)PGI_MAX_ROW_TOKENS);
        scores->begin[i + 1] = n += sizes[i];
    }
    PGI_TRY(pgi_id_list_reserve(&scores->ids, (size_t)n));
    memcpy(scores->ids.data, ids, (size_t)n * sizeof *ids);
    scores->ids.size = (size_t)n;
    return PG_OK;
}

/* Ids and lengths, before anything is computed. *longest: tokens of the longest answer. */
static pg_status check_answers(const pg_scores *scores, const pg_model *model, int64_t n_prompt, int64_t max_context,
                               int64_t *longest) {
    const int64_t most = max_context > 0 ? pgi_min64(max_context, PGI_MAX_ROW_TOKENS) : PGI_MAX_ROW_TOKENS;
    *longest = 0;
    for (int64_t i = 0; i < scores->n_answers; i++) {
        const int64_t n = scores->begin[i + 1] - scores->begin[i];
        if (n < 1)
            return pgi_error(PG_ERROR_ARGUMENT,
                             "answers[%lld] has no tokens, expected at least 1: an empty text has one without "
                             "PG_SCORE_NO_EOS",
                             (long long)i);
        for (int64_t k = 0; k < n; k++) {
            const int64_t id = scores->ids.data[scores->begin[i] + k];
            if (id < 0 || id >= model->config.text.vocab_size)
                return pgi_error(PG_ERROR_ARGUMENT, "answers[%lld]: token %lld has id %lld, expected 0 to %d",
                                 (long long)i, (long long)k, (long long)id, model->config.text.vocab_size - 1);
            if (id == model->config.image_token_id)
                return pgi_error(PG_ERROR_ARGUMENT,
                                 "answers[%lld]: token %lld is `<image>`, expected none (PG_SCORE_LITERAL takes it as "
                                 "text)",
                                 (long long)i, (long long)k);
        }
        if (n_prompt + n > most)
            return pgi_error(PG_ERROR_LIMIT,
                             "answers[%lld] has %lld tokens behind a prompt of %lld, expected at most %lld of both%s",
                             (long long)i, (long long)n, (long long)n_prompt, (long long)most,
                             max_context > 0 && most == max_context ? ", max_context" : "");
        *longest = n > *longest ? n : *longest;
    }
    return PG_OK;
}

/* ---------------------------------------------------------------------------------------------------------- a pass */

typedef struct score_call {
    const pgi_run *run;
    const pg_model *model;
    pg_scores *scores;
    pgi_decoding decoding; /* the prompt's; branches have its memory */
    pgi_workspace workspace;
    int64_t least_rows;            /* of a product */
    int64_t head_rows;             /* of logits at once: so many that least_rows can be left behind */
    pgi_kv_cache *caches;          /* [PASS_TOKENS]: of each sequence of a pass, all in the memory of the prompt's */
    pgi_sequence *sequences;       /* [PASS_TOKENS + 1] */
    int64_t *places;               /* [PASS_TOKENS]: in scores->ids, of the token that each one of the pass precedes */
    int64_t n_sequences, n_tokens; /* of the pass that is being gathered */
    int64_t n_done;                /* tokens that have their log-probability */
} score_call;

typedef struct logits_block {
    const score_call *call;
    int64_t first; /* token of the pass */
    int64_t n;
} logits_block;

static void block_log_probs(void *context, int64_t begin, int64_t end, int thread) {
    const logits_block *block = context;
    const score_call *s = block->call;
    const int64_t vocab = s->model->config.text.vocab_size;
    (void)thread;
    for (int64_t i = begin; i < end; i++) {
        const float *logits = s->workspace.logits + i * vocab;
        const int64_t place = s->places[block->first + i];
        const pgi_softmax softmax = pgi_softmax_of(logits, vocab);
        s->scores->log_probs[place] = pgi_log_prob(&softmax, logits[s->scores->ids.data[place]]);
    }
}

/* Of the tokens of the pass, whose last hidden states are x [n_rows, hidden], fillers at the end. */
static pg_status pass_log_probs(score_call *s, const float *x, int64_t n_rows) {
    const pgi_text_config *text = &s->model->config.text;
    for (int64_t first = 0, n; first < n_rows; first += n) {
        const int64_t left = n_rows - first;
        n = left <= s->head_rows ? left : pgi_min64(s->head_rows, left - s->least_rows);
        PGI_TRY(pgi_head_forward(s->run, text, &s->model->weights.text, x + first * text->hidden_size, n,
                                 s->workspace.logits, &s->workspace.pass.head));
        logits_block block = {s, first, pgi_min64(n, s->n_tokens - first)};
        if (block.n < 1) break; /* fillers alone */
        pgi_run alone;          /* an exp takes some 20 operations */
        PGI_TRY(pgi_parallel_for(pgi_run_for_work(s->run, 20.0 * (double)block.n * text->vocab_size, &alone), block.n,
                                 1, block_log_probs, &block));
    }
    return PG_OK;
}

/* Runs what was gathered. */
static pg_status run_pass(score_call *s) {
    const pgi_text_config *text = &s->model->config.text;
    const int64_t n_fill = pgi_max64(0, s->least_rows - s->n_tokens), n = s->n_tokens + n_fill;
    float *x = s->workspace.pass.x;
    if (s->n_tokens == 0) return PG_OK;
    for (int64_t i = 0; i < n; i++) /* a place is that of the token after the one that is fed */
        pgi_decoder_embed(s->run, text, &s->model->weights.text,
                          &s->scores->ids.data[s->places[pgi_min64(i, s->n_tokens - 1)] - 1], 1,
                          x + i * text->hidden_size);
    if (n_fill > 0) s->sequences[s->n_sequences++] = (pgi_sequence){.n_tokens = n_fill};
    const pgi_pass pass = {.x = x, .n_tokens = n, .sequences = s->sequences, .n_sequences = s->n_sequences, .n_out = n};
    PGI_TRY(pgi_decoder_forward(s->run, text, &s->model->weights.text, &pass, &s->workspace.pass.decoder));
    PGI_TRY(pass_log_probs(s, x, n));
    s->n_done += s->n_tokens;
    s->n_tokens = s->n_sequences = 0;
    return pgi_run_progress(s->run, PG_PHASE_DECODE, s->n_done, (int64_t)s->scores->ids.size);
}

/* Tokens `first` .. `first` + n of scores->ids, of one answer, behind what `cache` has. */
static void add_sequence(score_call *s, const pgi_kv_cache *cache, int64_t first, int64_t n) {
    pgi_kv_cache *own = &s->caches[s->n_sequences];
    *own = *cache;
    s->sequences[s->n_sequences++] = (pgi_sequence){.cache = own, .n_tokens = n};
    for (int64_t i = 0; i < n; i++) s->places[s->n_tokens++] = first + i + 1;
}

/* An answer that no pass holds: one pass after the other. */
static pg_status run_long_answer(score_call *s, int64_t first, int64_t n) {
    pgi_kv_cache cache = s->decoding.cache;
    for (int64_t at = 0; at < n; at += PASS_TOKENS) {
        add_sequence(s, &cache, first + at, pgi_min64(PASS_TOKENS, n - at));
        PGI_TRY(run_pass(s));
        cache = s->caches[0];
    }
    return PG_OK;
}

static pg_status run_branches(score_call *s) {
    for (int64_t i = 0; i < s->scores->n_answers; i++) {
        const int64_t first = s->scores->begin[i], n = s->scores->begin[i + 1] - first - 1; /* the last is not fed */
        if (n == 0) continue;
        if (s->n_tokens + n > PASS_TOKENS) PGI_TRY(run_pass(s));
        if (n > PASS_TOKENS)
            PGI_TRY(run_long_answer(s, first, n));
        else
            add_sequence(s, &s->decoding.cache, first, n);
    }
    return run_pass(s);
}

/* ---------------------------------------------------------------------------------------------------------- a call */

static double *log_prob_of(pg_score_info *score, int mean) { return mean ? &score->mean_log_prob : &score->log_prob; }
static double *probability_of(pg_score_info *score, int mean) {
    return mean ? &score->mean_probability : &score->probability;
}

/* Softmax over the answers. */
static void share_out(pg_score_info *scores, int64_t n, int mean) {
    double largest = -INFINITY, sum = 0;
    for (int64_t i = 0; i < n; i++)
        if (*log_prob_of(&scores[i], mean) > largest) largest = *log_prob_of(&scores[i], mean);
    for (int64_t i = 0; i < n; i++)
        sum += *probability_of(&scores[i], mean) = pgi_exp(*log_prob_of(&scores[i], mean) - largest);
    for (int64_t i = 0; i < n; i++) *probability_of(&scores[i], mean) /= sum;
}

static void sum_up(pg_scores *scores) {
    for (int64_t i = 0; i < scores->n_answers; i++) {
        pg_score_info *score = &scores->scores[i];
        *score = (pg_score_info){.struct_size = sizeof *score, .n_tokens = scores->begin[i + 1] - scores->begin[i]};
        for (int64_t k = scores->begin[i]; k < scores->begin[i + 1]; k++)
            score->log_prob += (double)scores->log_probs[k];
        score->mean_log_prob = score->log_prob / (double)score->n_tokens;
    }
    for (int mean = 0; mean < 2; mean++) share_out(scores->scores, scores->n_answers, mean);
}

/* The prompt, and the first token of each answer. */
static pg_status run_prompt(score_call *s, const pgi_merged_inputs *merged) {
    const pgi_text_config *text = &s->model->config.text;
    pg_scores *scores = s->scores;
    float *logits = s->workspace.logits;
    pgi_decoding *decoding = &s->decoding;
    const float *last; /* [hidden] */
    PGI_TRY(pgi_decoding_prefill(s->run, merged, 0, 1, &decoding, 0, text->n_layers, &s->workspace.pass, &last));
    PGI_TRY(pgi_decoding_logits(s->run, &decoding, 1, last, logits, &s->workspace.pass.head));
    const pgi_softmax softmax = pgi_softmax_of(logits, text->vocab_size);
    for (int64_t i = 0; i < scores->n_answers; i++)
        scores->log_probs[scores->begin[i]] = pgi_log_prob(&softmax, logits[scores->ids.data[scores->begin[i]]]);
    s->n_done = scores->n_answers;
    return pgi_run_progress(s->run, PG_PHASE_DECODE, s->n_done, (int64_t)scores->ids.size);
}

/* Memory for everything, before anything is computed. On error too, free_call() is due. */
static pg_status reserve(score_call *s, const pgi_merged_inputs *merged, int64_t longest, int64_t max_context) {
    const pgi_memory *memory = &s->model->memory;
    const int64_t n_prompt = merged->inputs->rows[0].n_tokens, vocab = s->model->config.text.vocab_size;
    const pgi_decoding_limits limits = {.max_new_tokens = longest, .max_context = max_context};
    PGI_TRY(pgi_decoding_reserve(&s->decoding, s->model, n_prompt + longest));
    PGI_TRY(pgi_decoding_reset(&s->decoding, merged, 0, &limits));
    const int64_t n_fed = pgi_min64((int64_t)s->scores->ids.size, PASS_TOKENS);
    const pgi_limits most = {.n_tokens = pgi_max64(s->least_rows, pgi_max64(n_fed, n_prompt)),
                             .n_keys = s->decoding.cache.capacity,
                             .n_logits = s->head_rows * vocab};
    PGI_TRY(pgi_workspace_reserve(&s->workspace, s->run, s->model, &most));
    s->caches = pgi_alloc(memory, PASS_TOKENS, sizeof *s->caches);
    s->sequences = pgi_alloc(memory, PASS_TOKENS + 1, sizeof *s->sequences);
    s->places = pgi_alloc(memory, PASS_TOKENS, sizeof *s->places);
    s->scores->log_probs = pgi_alloc(&s->scores->memory, s->scores->ids.size, sizeof(float));
    return s->caches && s->sequences && s->places && s->scores->log_probs ? PG_OK : PG_ERROR_MEMORY;
}

static void free_call(score_call *s) {
    const pgi_memory *memory = &s->model->memory;
    pgi_decoding_free(&s->decoding, memory);
    pgi_workspace_free(&s->workspace, memory);
    pgi_free(memory, s->caches);
    pgi_free(memory, s->sequences);
    pgi_free(memory, s->places);
}

pg_status pgi_score(const pg_model *model, const pg_inputs *inputs, const pg_score_options *options,
                    pg_scores *scores) {
    int64_t longest = 0;
    if (inputs->n_rows > 1)
        return pgi_error(PG_ERROR_ARGUMENT, "the inputs have %lld rows, scoring takes 1", (long long)inputs->n_rows);
    PGI_TRY(pgi_decoding_check(inputs, &(pgi_decoding_limits){.max_context = options->max_context}));
    const int64_t n_prompt = inputs->n_rows > 0 ? inputs->rows[0].n_tokens - inputs->rows[0].n_hidden : 0;
    PGI_TRY(check_answers(scores, model, n_prompt, options->max_context, &longest));
    pgi_thread_pool pool;
    pgi_run run = pgi_run_init(&pool, &model->kernels, PGI_RUN_OPTIONS(options));
    const int64_t least_rows = pgi_linear_few_rows(&model->kernels) + 1;
    score_call s = {.run = &run,
                    .model = model,
                    .scores = scores,
                    .decoding.pending = -1,
                    .least_rows = least_rows,
                    .head_rows = pgi_max64(HEAD_ROWS, 2 * least_rows)};
    pgi_merged_inputs merged;
    pg_status status = pgi_merged_inputs_init(&run, model, NULL, inputs, options->features, NULL, &merged);
    if (status >= 0) {
        status = reserve(&s, &merged, longest, options->max_context);
        if (status >= 0) status = run_prompt(&s, &merged);
        if (status >= 0) status = run_branches(&s);
        if (status >= 0) sum_up(scores);
        free_call(&s);
        pgi_merged_inputs_free(&merged);
    }
    pgi_run_free(&run);
    return status;
}
