/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Beam search as GenerationMixin._beam_search has it, for one prompt at a time. In each step:
 *
 *   score    each running beam's logits become log-probabilities, which the settings of sampling change
 *   find     the best continuations of all beams, more than there are beams so that enough of them go on; or draw them
 *   finish   those of the first n_beams that end become hypotheses, where they are better than those there are
 *   go on    the best of the others run on, each with the KV cache of the beam that it continues
 *
 * Sums of scores are f32, as in HF; of equal ones the lower beam and id come first. HF's beams of a batch wait for one
 * another, which changes nothing in what each row gives.
 */
#include "generate/search.h"

#include <math.h>
#include <string.h>

#include "base/callback.h"
#include "base/clock.h"
#include "base/parallel.h"
#include "generate/probability.h"
#include "generate/random.h"

/* What HF adds to the score of a continuation that is not to be chosen. */
#define OUT (-1.0e9f)

enum { NO_NODE = -1 };

struct pgi_candidate {
    float score; /* of the whole continuation */
    float own;   /* what the token adds to it */
    int32_t beam;
    int32_t stop; /* PG_STOP_*; 0: it does not end */
    int64_t token;
    int64_t node; /* NO_NODE: none yet; only those that are kept have one */
};

static const pgi_memory *memory_of(const pgi_search *s) { return &s->setup.model->memory; }
static int64_t vocab_of(const pgi_search *s) { return s->setup.sampling->vocab_size; }

static int draws(const pgi_search *s) { return (s->setup.sampling->options.flags & PG_SAMPLING_RANDOM) != 0; }

void pgi_search_free(pgi_search *s) {
    if (!s->setup.model) return;
    const pgi_memory *memory = memory_of(s);
    for (int64_t i = 0; i < s->n_beams; i++) {
        if (s->decodings) pgi_decoding_free(&s->decodings[i], memory);
        for (int k = 0; k < 2; k++) {
            pgi_beam *beams = k ? s->next : s->beams;
            if (!beams) continue;
            pgi_id_list_free(&beams[i].ids);
            pgi_stop_tail_free(&beams[i].tail);
        }
    }
    void *const arrays[] = {s->decodings, s->beams,     s->next,  s->candidates, s->hypotheses, s->merged,
                            s->of_logits, s->of_scores, s->nodes, s->texts,      s->ends};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) pgi_free(memory, arrays[i]);
    pgi_stop_tail_free(&s->tail);
    pgi_step_scores_free(&s->history, memory);
    pgi_workspace_free(&s->workspace, memory);
    *s = (pgi_search){0};
}

/* HF: (1 + the number of eos ids, at least 1) * num_beams. */
static int64_t count_candidates(const pgi_sampling *sampling, int64_t n_beams) {
    const int64_t n_eos = pgi_sampling_count_eos(sampling);
    return pgi_min64(pgi_max64(2, 1 + n_eos), sampling->vocab_size) * n_beams;
}

/* A workspace for rows of s->n_tokens that come to s->n_keys. */
static pg_status reserve_workspace(pgi_search *s) {
    const int64_t vocab = vocab_of(s), settings = pgi_sampling_workspace_size(vocab), wide = (vocab + 15) / 16 * 16;
    const int64_t of_draws = draws(s) ? 3 * s->n_beams * wide : 0;
    const pgi_limits limits = {
        .n_tokens = s->n_tokens,
        .n_step_tokens = pgi_min64(s->n_beams, pgi_step_rows(s->setup.model)),
        .n_keys = s->n_keys,
        .n_logits = settings + wide + of_draws + s->n_beams * vocab,
    };
    PGI_TRY(pgi_workspace_reserve(&s->workspace, s->setup.run, s->setup.model, &limits));
    float *at = s->workspace.logits;
    s->scoring = pgi_sampling_workspace_in(at, vocab);
    at += settings;
    s->log_probs = at;
    at += wide;
    s->weights = (uint64_t *)(void *)at; /* at a multiple of 64 bytes */
    s->all_scores = draws(s) ? at + 2 * s->n_beams * wide : NULL;
    s->logits = at + of_draws;
    return PG_OK;
}

static pg_status new_beams(pgi_search *s, int64_t n_ids, pgi_beam **out) {
    const pgi_memory *memory = memory_of(s);
    pgi_beam *beams = pgi_alloc_zero(memory, (size_t)s->n_beams, sizeof *beams);
    if (!beams) return PG_ERROR_MEMORY;
    *out = beams;
    for (int64_t i = 0; i < s->n_beams; i++) pgi_id_list_init(&beams[i].ids, memory);
    for (int64_t i = 0; i < s->n_beams; i++) {
        PGI_TRY(pgi_id_list_reserve(&beams[i].ids, (size_t)n_ids));
        if (s->setup.stop->n > 0) PGI_TRY(pgi_stop_tail_init(s->setup.stop, NULL, 0, memory, &beams[i].tail));
    }
    return PG_OK;
}

static pg_status new_arrays(pgi_search *s) {
    const pgi_memory *memory = memory_of(s);
    const size_t n = (size_t)s->n_beams, all = (size_t)(s->n_beams + s->n_candidates);
    s->decodings = pgi_alloc_zero(memory, n, sizeof *s->decodings);
    s->candidates = pgi_alloc(memory, (size_t)s->n_candidates, sizeof *s->candidates);
    s->hypotheses = pgi_alloc(memory, n, sizeof *s->hypotheses);
    s->merged = pgi_alloc(memory, all, sizeof *s->merged);
    s->of_logits = pgi_alloc(memory, n, sizeof *s->of_logits);
    s->of_scores = pgi_alloc(memory, n, sizeof *s->of_scores);
    return s->decodings && s->candidates && s->hypotheses && s->merged && s->of_logits && s->of_scores
               ? PG_OK
               : PG_ERROR_MEMORY;
}

/* For texts of up to n_ids. */
static pg_status reserve_texts(pgi_search *s, int64_t n_ids) {
    if (!s->ends && !(s->ends = pgi_alloc(memory_of(s), (size_t)s->n_candidates, 1))) return PG_ERROR_MEMORY;
    return pgi_grow(memory_of(s), &s->texts, &s->texts_capacity, (size_t)(s->n_candidates * n_ids), sizeof *s->texts);
}

pg_status pgi_search_init(pgi_search *s, const pgi_search_setup *setup, int64_t n_tokens,
                          const pgi_decoding_limits *limits) {
    const int64_t n_beams = setup->options->beams->n_beams, n_rows = setup->merged->inputs->n_rows;
    int64_t n_new = 0; /* the most of a row, that memory is made for at first */
    *s = (pgi_search){.setup = *setup, .n_beams = n_beams, .n_candidates = count_candidates(setup->sampling, n_beams)};
    for (int64_t r = 0; r < n_rows; r++) {
        const int64_t n = setup->merged->inputs->rows[r].n_tokens;
        s->n_keys = pgi_max64(s->n_keys, pgi_decoding_first_capacity(&limits[r], n));
        n_new = pgi_max64(n_new, pgi_min64(limits[r].max_new_tokens, PGI_FIRST_NEW_TOKENS));
    }
    s->history.flags = setup->options->flags & (PG_GENERATE_LOGITS | PG_GENERATE_SCORES);
    s->history.n_alternatives = setup->options->n_alternatives;
    s->history.vocab_size = vocab_of(s);
    PGI_TRY(new_arrays(s));
    PGI_TRY(new_beams(s, n_tokens + n_new, &s->beams));
    PGI_TRY(new_beams(s, n_tokens + n_new, &s->next));
    if (setup->stop->n > 0) PGI_TRY(pgi_stop_tail_init(setup->stop, NULL, 0, memory_of(s), &s->tail));
    for (int64_t i = 0; i < n_beams; i++) PGI_TRY(pgi_decoding_reserve(&s->decodings[i], setup->model, s->n_keys));
    PGI_TRY(pgi_grow(memory_of(s), &s->nodes, &s->nodes_capacity, (size_t)(2 * n_new * n_beams), sizeof *s->nodes));
    if (setup->options->beams->on_texts) PGI_TRY(reserve_texts(s, n_tokens + n_new));
    s->n_tokens = n_tokens;
    return reserve_workspace(s);
}

/* ---- score: what each beam's next tokens are worth ---- */

/* Whether a comes before b. Those that are worth the same are in the order of beams and ids. */
static int precedes(const pgi_candidate *a, const pgi_candidate *b) {
    if (a->score != b->score) return a->score > b->score;
    return a->beam != b->beam ? a->beam < b->beam : a->token < b->token;
}

/* Puts `c` into the heap of n candidates, of which the root, whose place is free, comes after all others. */
static void sink(pgi_candidate *heap, int64_t n, pgi_candidate c) {
    int64_t at = 0, child;
    while ((child = 2 * at + 1) < n) {
        if (child + 1 < n && precedes(&heap[child], &heap[child + 1])) child++;
        if (precedes(&heap[child], &c)) break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = c;
}

/* Keeps a candidate where it is one of the best, in a heap; NaN is none. */
static void offer(pgi_search *s, pgi_candidate c) {
    pgi_candidate *heap = s->candidates;
    if (c.score != c.score) return;
    if (s->n_found == s->n_candidates) {
        if (precedes(&c, &heap[0])) sink(heap, s->n_found, c);
        return;
    }
    int64_t at = s->n_found++;
    for (; at > 0 && precedes(&heap[(at - 1) / 2], &c); at = (at - 1) / 2) heap[at] = heap[(at - 1) / 2];
    heap[at] = c;
}

/* From the heap into their order. */
static void sort_candidates(pgi_search *s) {
    for (int64_t n = s->n_found - 1; n > 0; n--) {
        const pgi_candidate last = s->candidates[n];
        s->candidates[n] = s->candidates[0];
        sink(s->candidates, n, last);
    }
}

static void offer_all(pgi_search *s, int64_t beam, const float *scores) {
    const float before = s->beams[beam].score;
    for (int64_t id = 0; id < vocab_of(s); id++) {
        const float score = scores[id] + before;
        if (s->all_scores) s->all_scores[beam * vocab_of(s) + id] = scores[id];
        if (s->n_found < s->n_candidates || score > s->candidates[0].score)
            offer(s, (pgi_candidate){
                         .score = score, .own = scores[id], .beam = (int32_t)beam, .token = id, .node = NO_NODE});
    }
}

/* Scores of beam `beam` by its log-probabilities. *left: an id is left; *stop: a callback wants to end the row. */
static pg_status score_beam(pgi_search *s, int64_t row, int64_t beam, int *left, int *stop) {
    const pgi_sampling *sampling = s->setup.sampling;
    const pgi_beam *b = &s->beams[beam];
    const pgi_softmax *softmax = &s->of_logits[beam];
    const float *logits = s->logits + beam * vocab_of(s);
    float *scores = sampling->greedy ? s->scoring.scores : s->log_probs;
    for (int64_t id = 0; id < vocab_of(s); id++) scores[id] = pgi_log_prob(softmax, logits[id]);
    *left = 1, *stop = 0;
    if (sampling->greedy) return PG_OK;
    const pgi_sampled_row of = {
        .row = row,
        .prompt = row,
        .ids = b->ids.data,
        .n_ids = (int64_t)b->ids.size,
        .n_prompt_tokens = s->setup.merged->inputs->rows[row].n_tokens,
        .n_new = s->n_new,
        .max_new = s->max_new,
    };
    return pgi_sampling_process(sampling, &of, s->log_probs, &s->scoring, left, stop);
}

static void take_softmax(void *context, int64_t begin, int64_t end, int thread) {
    pgi_search *s = context;
    (void)thread;
    for (int64_t i = begin; i < end; i++) s->of_logits[i] = pgi_softmax_of(s->logits + i * vocab_of(s), vocab_of(s));
}

/* Finds the candidates. n: beams that have logits; in the first step one has, and stands for all, of which HF lets the
 * others be chosen only where that one has too few. */
static pg_status score(pgi_search *s, int64_t row, int64_t n, int *stop) {
    const int log_probs = (s->setup.options->flags & PG_GENERATE_LOG_PROBS) != 0;
    int any_left = 0;
    s->n_found = 0;
    PGI_TRY(pgi_parallel_for(s->setup.run, n, 1, take_softmax, s));
    for (int64_t i = 0; i < s->n_beams; i++) {
        int left = 0;
        if (i < n) {
            PGI_TRY(score_beam(s, row, i, &left, stop));
            if (*stop) return PG_OK;
            if (log_probs) s->of_scores[i] = pgi_softmax_of(s->scoring.scores, vocab_of(s));
        } else {
            s->of_logits[i] = s->of_logits[0];
            if (log_probs) s->of_scores[i] = s->of_scores[0];
        }
        any_left |= left;
        const float *logits = s->logits + pgi_min64(i, n - 1) * vocab_of(s);
        PGI_TRY(pgi_step_scores_push(&s->history, memory_of(s), logits, s->scoring.scores, 0));
        offer_all(s, i, s->scoring.scores);
    }
    if (!any_left) return pgi_sampling_none_left(s->setup.sampling, row, s->n_new);
    sort_candidates(s);
    while (s->n_found < s->n_candidates) /* logits of NaN */
        s->candidates[s->n_found++] = (pgi_candidate){.score = -INFINITY, .own = -INFINITY, .node = NO_NODE};
    return PG_OK;
}

/* ---- find: the candidates by chance ---- */

/* Draws the candidates without replacement by the softmax of their scores, in whole numbers (docs/SAMPLING.md). What
 * is left when nothing has a weight any more are the best of the others: they stay as they were found. */
static void draw(pgi_search *s, int64_t row) {
    const pg_sampling_options *options = &s->setup.sampling->options;
    const int64_t vocab = vocab_of(s), n = s->n_beams * vocab;
    const float largest = s->candidates[0].score;
    uint64_t total = 0, of_beam[PGI_MOST_BEAMS] = {0}; /* sums of weights */
    if (largest == -INFINITY) return;
    for (int64_t i = 0; i < n; i++) {
        const double below = (double)(s->all_scores[i] + s->beams[i / vocab].score) - (double)largest;
        s->weights[i] = below <= 0 ? (uint64_t)(pgi_exp(below) * 0x1p32) : 0; /* sums stay below 2^62 */
        total += s->weights[i];
        of_beam[i / vocab] += s->weights[i];
    }
    const uint64_t stream = options->stream + (options->flags & PG_SAMPLING_ROW_STREAMS ? (uint64_t)row : UINT64_C(0));
    for (int64_t k = 0; k < s->n_candidates && total > 0; k++) {
        const uint64_t step = (uint64_t)k << 32 | (uint64_t)s->n_new;
        uint64_t rest = pgi_random_below(pgi_random(options->seed, stream, step), total);
        int64_t beam = 0;
        while (rest >= of_beam[beam]) rest -= of_beam[beam++];
        int64_t i = beam * vocab;
        while (rest >= s->weights[i]) rest -= s->weights[i++];
        s->candidates[k] = (pgi_candidate){.score = s->all_scores[i] + s->beams[beam].score,
                                           .own = s->all_scores[i],
                                           .beam = (int32_t)beam,
                                           .token = i % vocab,
                                           .node = NO_NODE};
        total -= s->weights[i];
        of_beam[beam] -= s->weights[i];
        s->weights[i] = 0;
    }
}

/* ---- finish: which candidates end ---- */

/* Has the host say in s->ends which of the candidates end. *stop: it wants to end the row. */
static pg_status ask_host(pgi_search *s, int64_t row, int *stop) {
    const pg_beam_options *beams = s->setup.options->beams;
    const int64_t n_ids = (int64_t)s->beams[0].ids.size + 1;
    int32_t answer = 0;
    PGI_TRY(reserve_texts(s, n_ids));
    for (int64_t k = 0; k < s->n_candidates; k++) {
        const pgi_candidate *c = &s->candidates[k];
        const pgi_id_list *before = &s->beams[c->beam].ids;
        int64_t *text = s->texts + k * n_ids;
        if (before->size > 0) memcpy(text, before->data, before->size * sizeof *text);
        text[n_ids - 1] = c->token;
    }
    memset(s->ends, 0, (size_t)s->n_candidates);
    PGI_TRY(pgi_callback_texts(beams->on_texts, beams->on_texts_user, row, s->texts, n_ids, s->n_candidates, s->ends,
                               &answer));
    *stop = answer != 0;
    return PG_OK;
}

/* asked: the host ended it. */
static pg_status find_stop(pgi_search *s, pgi_candidate *c, int asked, int late) {
    const pgi_beam *beam = &s->beams[c->beam];
    const pgi_stop_strings *stop = s->setup.stop;
    int completes = 0;
    if (stop->n > 0) {
        s->tail.text.size = 0;
        PGI_TRY(pgi_buffer_append(&s->tail.text, beam->tail.text.data, beam->tail.text.size));
        PGI_TRY(pgi_stop_tail_push(&s->tail, stop, c->token, &completes));
    }
    if (pgi_sampling_ends_row(s->setup.sampling, c->token))
        c->stop = PG_STOP_EOS;
    else if (completes)
        c->stop = PG_STOP_STRING;
    else if (asked)
        c->stop = PG_STOP_CALLBACK;
    else if (late)
        c->stop = PG_STOP_TIME;
    else if (s->n_new + 1 >= s->max_new)
        c->stop = s->ends_context ? PG_STOP_CONTEXT : PG_STOP_LENGTH;
    return PG_OK;
}

/* Gives a candidate that is kept its node. */
static pg_status need_node(pgi_search *s, pgi_candidate *c) {
    if (c->node != NO_NODE) return PG_OK;
    if (s->n_nodes == s->nodes_capacity)
        PGI_TRY(pgi_grow(memory_of(s), &s->nodes, &s->nodes_capacity, s->n_nodes + 1, sizeof *s->nodes));
    pgi_search_node *node = &s->nodes[s->n_nodes];
    *node = (pgi_search_node){.parent = s->beams[c->beam].node, .token = c->token, .beam = c->beam};
    if (s->setup.options->flags & PG_GENERATE_LOG_PROBS) {
        const int64_t of = s->n_new == 0 ? 0 : c->beam; /* in the first step one beam stands for all */
        node->log_prob = pgi_log_prob(&s->of_logits[c->beam], s->logits[of * vocab_of(s) + c->token]);
        node->score_log_prob = pgi_log_prob(&s->of_scores[c->beam], c->own);
    }
    c->node = (int64_t)s->n_nodes++;
    return PG_OK;
}

/* Sees which candidates end. *all: every one does; *stop: the host wants to end the row. */
static pg_status end_candidates(pgi_search *s, int64_t row, int *all, int *stop) {
    const int late = pgi_now() > s->setup.deadline, asks = s->setup.options->beams->on_texts != NULL;
    *all = 1;
    if (asks) PGI_TRY(ask_host(s, row, stop));
    if (*stop) return PG_OK;
    for (int64_t k = 0; k < s->n_candidates; k++) {
        pgi_candidate *c = &s->candidates[k];
        PGI_TRY(find_stop(s, c, asks && s->ends[k], late));
        *all &= c->stop != 0;
    }
    return PG_OK;
}

/* Sorts the best `n` of items to the front; of equal ones those that came first. */
static void keep_best(pgi_hypothesis *items, int64_t n_items, int64_t n) {
    for (int64_t i = 1; i < n_items; i++) {
        const pgi_hypothesis item = items[i];
        int64_t at = pgi_min64(i, n);
        if (at == n && !(item.score > items[n - 1].score)) continue;
        for (; at > 0 && item.score > items[at - 1].score; at--)
            if (at < n) items[at] = items[at - 1];
        items[at] = item;
    }
}

static int all_ended(const pgi_search *s) {
    for (int64_t i = 0; i < s->n_beams; i++)
        if (!s->hypotheses[i].stop) return 0;
    return 1;
}

/* What a sum of log-probabilities of n tokens is divided by. */
static float length_factor(const pgi_search *s, int64_t n) {
    return (float)pow((double)n, s->setup.options->beams->length_penalty);
}

/* Candidate k in place of a node, which is NO_NODE or more, and back. */
static int64_t of_candidate(int64_t k) { return NO_NODE - 1 - k; }

static pg_status finish(pgi_search *s) {
    const float factor = length_factor(s, s->n_new + 1);
    const int full = s->setup.options->beams->early_stopping == PG_EARLY_STOPPING_ON && all_ended(s);
    memcpy(s->merged, s->hypotheses, (size_t)s->n_beams * sizeof *s->merged);
    for (int64_t k = 0; k < s->n_candidates; k++) {
        const pgi_candidate *c = &s->candidates[k];
        const int ends = c->stop && k < s->n_beams;
        float score = c->score / factor;
        if (full) score += OUT;
        if (!s->improvable) score += OUT;
        if (!ends) score += OUT;
        s->merged[s->n_beams + k] =
            (pgi_hypothesis){.node = of_candidate(k), .score = score, .stop = ends ? c->stop : 0};
    }
    keep_best(s->merged, s->n_beams + s->n_candidates, s->n_beams);
    for (int64_t i = 0; i < s->n_beams; i++) {
        const int64_t k = of_candidate(s->merged[i].node);
        s->hypotheses[i] = s->merged[i];
        if (k < 0) continue; /* it was there before */
        PGI_TRY(need_node(s, &s->candidates[k]));
        s->hypotheses[i].node = s->candidates[k].node;
    }
    return PG_OK;
}

/* ---- go on ---- */

/* Makes next[i] of a candidate: its ids and the end of its text. */
static pg_status continue_beam(pgi_search *s, pgi_beam *next, const pgi_candidate *c, float score) {
    const pgi_beam *from = &s->beams[c->beam];
    int completes;
    next->decoding = NULL;
    next->node = c->node;
    next->score = score;
    next->ids.size = 0;
    PGI_TRY(pgi_id_list_reserve(&next->ids, from->ids.size + 1));
    if (from->ids.size > 0) memcpy(next->ids.data, from->ids.data, from->ids.size * sizeof *from->ids.data);
    next->ids.size = from->ids.size;
    PGI_TRY(pgi_id_list_push(&next->ids, c->token));
    if (s->setup.stop->n == 0) return PG_OK;
    next->tail.text.size = 0;
    PGI_TRY(pgi_buffer_append(&next->tail.text, from->tail.text.data, from->tail.text.size));
    return pgi_stop_tail_push(&next->tail, s->setup.stop, c->token, &completes);
}

/* Gives each of the next beams a decoding that stands where the beam does that it continues: the first of them that
 * one's own, the others those that nobody continues. n_prompt: tokens that all have in common. */
static pg_status hand_on_decodings(pgi_search *s, const int32_t *parents, int64_t n_prompt) {
    int64_t free = 0;
    for (int64_t i = 0; i < s->n_beams; i++) {
        pgi_beam *from = &s->beams[parents[i]];
        int first = 1;
        for (int64_t k = 0; k < i; k++) first &= parents[k] != parents[i];
        if (first) s->next[i].decoding = from->decoding;
    }
    for (int64_t i = 0; i < s->n_beams; i++) {
        if (s->next[i].decoding) continue;
        int taken = 1;
        for (; taken; free++) {
            taken = 0;
            for (int64_t k = 0; k < s->n_beams; k++) taken |= parents[k] == free;
            if (!taken) s->next[i].decoding = s->beams[free].decoding;
        }
        const pgi_decoding *from = s->beams[parents[i]].decoding;
        PGI_TRY(pgi_decoding_branch(s->next[i].decoding, from, s->setup.model, s->n_new == 0 ? 0 : n_prompt));
    }
    return PG_OK;
}

static pg_status go_on(pgi_search *s, int64_t n_prompt) {
    int32_t parents[PGI_MOST_BEAMS];
    for (int64_t k = 0; k < s->n_candidates; k++) {
        const pgi_candidate *c = &s->candidates[k];
        s->merged[k] = (pgi_hypothesis){.node = k, .score = c->stop ? c->score + OUT : c->score};
    }
    keep_best(s->merged, s->n_candidates, s->n_beams);
    for (int64_t i = 0; i < s->n_beams; i++) {
        pgi_candidate *c = &s->candidates[s->merged[i].node];
        PGI_TRY(need_node(s, c));
        parents[i] = s->n_new == 0 ? 0 : c->beam; /* in the first step one stands for all */
        PGI_TRY(continue_beam(s, &s->next[i], c, s->merged[i].score));
    }
    PGI_TRY(hand_on_decodings(s, parents, n_prompt));
    pgi_beam *before = s->beams;
    s->beams = s->next;
    s->next = before;
    for (int64_t i = 0; i < s->n_beams; i++)
        pgi_decoding_push(s->beams[i].decoding, s->beams[i].ids.data[s->beams[i].ids.size - 1]);
    s->n_new++;
    return PG_OK;
}

/* Whether the best that may still come is better than the worst hypothesis (HF: _check_early_stop_heuristic). */
static void look_ahead(pgi_search *s) {
    const pg_beam_options *beams = s->setup.options->beams;
    const int to_the_end = beams->early_stopping == PG_EARLY_STOPPING_NEVER && beams->length_penalty > 0;
    const int64_t n = to_the_end ? s->max_new : s->n_new;
    const float best = s->beams[0].score / length_factor(s, n), worst = s->hypotheses[s->n_beams - 1].score;
    int better = 0;
    for (int64_t i = 0; i < s->n_beams; i++) better |= best > (s->hypotheses[i].stop ? worst : OUT);
    s->improvable &= better;
}

/* Feeds the beams' last tokens, for their logits. */
static pg_status step(pgi_search *s) {
    const pg_model *model = s->setup.model;
    const int64_t most = pgi_step_rows(model);
    int64_t n_keys = s->n_keys;
    for (int64_t i = 0; i < s->n_beams; i++) {
        PGI_TRY(pgi_decoding_make_room(s->beams[i].decoding, model));
        n_keys = pgi_max64(n_keys, s->beams[i].decoding->cache.capacity);
    }
    if (n_keys > s->n_keys) {
        s->n_keys = n_keys;
        PGI_TRY(reserve_workspace(s));
    }
    for (int64_t first = 0; first < s->n_beams; first += most) {
        pgi_decoding *group[PGI_STEP_ROWS];
        const int64_t n = pgi_min64(most, s->n_beams - first);
        const pgi_pass_workspace *w = &s->workspace.step;
        for (int64_t i = 0; i < n; i++) group[i] = s->beams[first + i].decoding;
        PGI_TRY(pgi_decoding_step_group(s->setup.run, group, n, w));
        PGI_TRY(pgi_decoding_logits(s->setup.run, group, n, w->x, s->logits + first * vocab_of(s), &w->head));
    }
    return PG_OK;
}

/* ---- a row ---- */

/* The beams before the first step: HF's others begin with a score that keeps them out. */
static pg_status begin(pgi_search *s, int64_t row, const pgi_decoding_limits *limits) {
    const pg_inputs *inputs = s->setup.merged->inputs;
    const pgi_row *of = &inputs->rows[row];
    const int64_t *ids = inputs->ids ? inputs->ids + row * inputs->n_tokens + of->first_token : NULL;
    const int64_t n = ids ? of->n_tokens : 0;
    s->n_new = 0;
    s->n_nodes = 0;
    s->improvable = 1;
    pgi_step_scores_clear(&s->history);
    for (int64_t i = 0; i < s->n_beams; i++) {
        pgi_beam *beam = &s->beams[i];
        beam->decoding = &s->decodings[i];
        beam->node = -1;
        beam->score = i == 0 ? 0 : OUT;
        beam->ids.size = 0;
        for (int64_t k = 0; k < n; k++) PGI_TRY(pgi_id_list_push(&beam->ids, ids[k]));
        if (s->setup.stop->n > 0) PGI_TRY(pgi_stop_tail_begin(&beam->tail, s->setup.stop, ids, n));
        s->hypotheses[i] = (pgi_hypothesis){.node = -1, .score = OUT};
    }
    PGI_TRY(pgi_decoding_reset(s->beams[0].decoding, s->setup.merged, row, limits));
    s->max_new = s->beams[0].decoding->max_tokens;
    s->ends_context = s->beams[0].decoding->ends_context;
    return PG_OK;
}

/* Feeds the prompt, for the logits of the first beam. */
static pg_status prefill(pgi_search *s, int64_t row) {
    const int64_t n_layers = s->setup.model->config.text.n_layers;
    const pgi_pass_workspace *w = &s->workspace.pass;
    const int64_t n_rows = s->setup.merged->inputs->n_rows;
    const float *last; /* [hidden] */
    PGI_TRY(pgi_decoding_prefill(s->setup.run, s->setup.merged, row, 1, &s->beams[0].decoding, row * n_layers,
                                 n_rows * n_layers, w, &last));
    return pgi_decoding_logits(s->setup.run, &s->beams[0].decoding, 1, last, s->logits, &w->head);
}

/* A callback wants no further token: the beams that run are what there is, beside the hypotheses. */
static void end_here(pgi_search *s) {
    const float factor = s->n_new > 0 ? length_factor(s, s->n_new) : 1;
    memcpy(s->merged, s->hypotheses, (size_t)s->n_beams * sizeof *s->merged);
    for (int64_t i = 0; i < s->n_beams; i++) {
        const pgi_beam *beam = &s->beams[i];
        s->merged[s->n_beams + i] =
            (pgi_hypothesis){.node = beam->node, .score = beam->score / factor, .stop = PG_STOP_LOGITS};
    }
    keep_best(s->merged, 2 * s->n_beams, s->n_beams);
    memcpy(s->hypotheses, s->merged, (size_t)s->n_beams * sizeof *s->merged);
}

/* n_left: the most steps that this row may still take. */
static pg_status report_progress(const pgi_search *s, int64_t row, int64_t n_left, const pgi_decoding_limits *limits) {
    const int64_t done = s->n_done + s->n_new;
    int64_t total = done + n_left;
    for (int64_t r = row + 1; r < s->setup.merged->inputs->n_rows; r++) total += limits[r].max_new_tokens;
    return pgi_run_progress(s->setup.run, PG_PHASE_DECODE, done, total);
}

static pg_status search(pgi_search *s, int64_t row, const pgi_decoding_limits *limits) {
    const int64_t n_prompt = s->setup.merged->inputs->rows[row].n_tokens;
    for (int all_end = 0;;) {
        int stop = 0;
        PGI_TRY(score(s, row, s->n_new == 0 ? 1 : s->n_beams, &stop));
        if (!stop) {
            if (draws(s)) draw(s, row);
            PGI_TRY(end_candidates(s, row, &all_end, &stop));
        }
        if (stop) {
            end_here(s);
            return PG_OK;
        }
        PGI_TRY(finish(s));
        if (all_end) {
            s->n_new++; /* of texts that are complete now */
            return PG_OK;
        }
        PGI_TRY(go_on(s, n_prompt));
        look_ahead(s);
        if (!s->improvable) return PG_OK;
        if (s->setup.options->beams->early_stopping == PG_EARLY_STOPPING_ON && all_ended(s)) return PG_OK;
        PGI_TRY(report_progress(s, row, s->max_new - s->n_new, limits));
        PGI_TRY(step(s));
    }
}

pg_status pgi_search_run(pgi_search *s, int64_t row, const pgi_decoding_limits *limits, double *prefill_seconds) {
    const double start = pgi_now();
    PGI_TRY(begin(s, row, &limits[row]));
    if (s->max_new == 0) { /* the prompt is as long as the context */
        for (int64_t i = 0; i < s->n_beams; i++) s->hypotheses[i].stop = PG_STOP_CONTEXT, s->hypotheses[i].score = 0;
        return PG_OK;
    }
    PGI_TRY(prefill(s, row));
    *prefill_seconds += pgi_now() - start;
    PGI_TRY(search(s, row, limits));
    if (s->n_new > 0) PGI_TRY(report_progress(s, row, 0, limits));
    s->n_done += s->n_new;
    return PG_OK;
}

int64_t pgi_search_length(const pgi_search *s, const pgi_hypothesis *hypothesis) {
    int64_t n = 0;
    for (int64_t at = hypothesis->node; at >= 0; at = s->nodes[at].parent) n++;
    return n;
}

void pgi_search_path(const pgi_search *s, const pgi_hypothesis *hypothesis, int64_t n, const pgi_search_node **nodes) {
    for (int64_t at = hypothesis->node; at >= 0 && n > 0; at = s->nodes[at].parent) nodes[--n] = &s->nodes[at];
}
