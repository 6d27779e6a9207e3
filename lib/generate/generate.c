/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * All rows of the inputs to text. So many as max_running says run at a time, each in a slot with a KV cache; when one
 * ends, the next begins in its slot. A row is prefilled by itself, or at first short ones together; then up to
 * pgi_step_rows() of those that run take each step together. Where several texts of a row are wanted, they go on from
 * one prefill. With beams each row is searched by itself (search.c), and its texts come at the end.
 */
#include "generate/generate.h"

#include <math.h>
#include <string.h>

#include "answers/detect_mask.h"
#include "base/callback.h"
#include "base/clock.h"
#include "base/parallel.h"
#include "generate/sampler.h"
#include "generate/sampling.h"
#include "generate/search.h"
#include "generate/stop_strings.h"
#include "model/row_models.h"
#include "tokenizer/stream_decoder.h"

/* What a row that runs has. */
typedef struct slot {
    pgi_decoding decoding;
    int64_t capacity; /* tokens of the KV cache that a row begins with */
    pgi_stream_decoder decoder;
    pgi_stop_tail tail;
    pgi_id_list ids; /* of the prompt, and the new ones; where logits are wanted */
    pgi_result_row *result;
    int64_t row;    /* of the result */
    int64_t place;  /* of its last hidden state among those of the step */
    int64_t prompt; /* row of the inputs */
    int runs;
} slot;

typedef struct generate_call {
    const pgi_run *run;
    const pg_model *model;
    const pg_generate_options *options;
    const pgi_merged_inputs *merged;
    const pgi_tokenizer *tokenizer;
    pgi_sampling sampling;
    pgi_sampling_workspace scoring; /* where the settings change logits */
    pgi_stop_strings stop;
    pgi_detect_mask detect; /* with PG_GENERATE_DETECT or _SEGMENT */
    double start;           /* of the call, by pgi_now() */
    int wants_logits;       /* all of them, to change or to keep; else the largest alone is looked for */
    pg_result *result;
    pgi_decoding_limits *limits; /* [rows of the inputs] */
    slot *slots;                 /* [n_slots] */
    int64_t n_slots;
    int64_t n_begun;         /* rows of the result, the first ones */
    int64_t n_done, n_total; /* tokens of all rows: sampled, and the most that there may still be with these */
    pgi_decoding stem;       /* with n_return > 1: the prefilled prompt, from which its texts go on */
    const float *last;       /* the last hidden states of the last prefill [rows of it, hidden], in `prefill` */
    int64_t group;           /* pgi_step_rows(), or the slots when they are fewer */
    pgi_workspace prefill;   /* for the longest row's prefill; empty when all rows have begun */
    int64_t pass_tokens;     /* the most of a prefill of several rows */
    pgi_workspace step;      /* for a step of a group; logits: the settings' memory, those of the group */
    int64_t n_keys;          /* tokens that a sequence may come to with these */
} generate_call;

static void generate_call_free(generate_call *g) {
    const pgi_memory *memory = &g->model->memory;
    for (int64_t i = 0; g->slots && i < g->n_slots; i++) {
        pgi_decoding_free(&g->slots[i].decoding, memory);
        if (g->tokenizer) pgi_stream_decoder_free(&g->slots[i].decoder);
        pgi_stop_tail_free(&g->slots[i].tail);
        pgi_id_list_free(&g->slots[i].ids);
    }
    pgi_free(memory, g->slots);
    pgi_free(memory, g->limits);
    pgi_decoding_free(&g->stem, memory);
    pgi_workspace_free(&g->prefill, memory);
    pgi_workspace_free(&g->step, memory);
}

/* The ids and the text that a row may come to, so that nothing is allocated while it grows. Only a tokenizer with
 * absurdly long pieces makes texts that grow beyond this, and so do more than PGI_FIRST_NEW_TOKENS. */
static pg_status reserve_result(const generate_call *g, slot *of) {
    enum { MOST_TEXT = 1 << 20 };
    const size_t n = (size_t)pgi_min64(of->decoding.max_tokens, PGI_FIRST_NEW_TOKENS);
    PGI_TRY(pgi_id_list_reserve(&of->result->ids, n));
    PGI_TRY(pgi_step_scores_reserve(&of->result->kept, &g->model->memory, (int64_t)n));
    if (!g->tokenizer) return PG_OK;
    const size_t piece = pgi_tokenizer_longest_text(g->tokenizer);
    PGI_TRY(pgi_stream_decoder_reserve(&of->decoder, n));
    return pgi_buffer_reserve(&of->result->text, n < MOST_TEXT / piece ? n * piece : MOST_TEXT);
}

/* What was reserved and is not needed goes back where rows wait: those that ended take the memory of their results
 * alone. */
static void trim_result(const generate_call *g, pgi_result_row *result) {
    if (g->result->n_rows <= g->n_slots) return;
    pgi_id_list_trim(&result->ids);
    pgi_buffer_trim(&result->text);
    pgi_step_scores_trim(&result->kept, &g->model->memory);
}

/* The ids of the prompt, which settings and callbacks look at, and the end of its text. Of given embeddings: none. */
static pg_status take_prompt(const generate_call *g, slot *of) {
    const pg_inputs *inputs = g->merged->inputs;
    const pgi_row *row = &inputs->rows[of->prompt];
    const int64_t *ids = inputs->ids ? inputs->ids + of->prompt * inputs->n_tokens + row->first_token : NULL;
    const int64_t n = ids ? row->n_tokens : 0;
    if (g->stop.n > 0) PGI_TRY(pgi_stop_tail_begin(&of->tail, &g->stop, ids, n));
    of->ids.size = 0;
    if (!g->wants_logits) return PG_OK;
    PGI_TRY(pgi_id_list_reserve(&of->ids, (size_t)(n + pgi_min64(of->decoding.max_tokens, PGI_FIRST_NEW_TOKENS))));
    for (int64_t i = 0; i < n; i++) PGI_TRY(pgi_id_list_push(&of->ids, ids[i]));
    return PG_OK;
}

static void set_kept(const generate_call *g, pgi_step_scores *kept) {
    kept->flags = g->options->flags & (PG_GENERATE_LOG_PROBS | PG_GENERATE_LOGITS | PG_GENERATE_SCORES);
    kept->n_alternatives = g->options->n_alternatives;
    kept->vocab_size = g->sampling.vocab_size;
}

static pg_status new_slots(generate_call *g, int64_t n) {
    const pgi_memory *memory = &g->model->memory;
    g->slots = pgi_alloc_zero(memory, (size_t)n, sizeof *g->slots);
    if (!g->slots) return PG_ERROR_MEMORY;
    g->n_slots = n;
    for (int64_t i = 0; i < n; i++) {
        slot *of = &g->slots[i];
        if (g->tokenizer) pgi_stream_decoder_init(&of->decoder, g->tokenizer, 1);
        pgi_id_list_init(&of->ids, memory);
    }
    for (int64_t i = 0; i < n && g->stop.n > 0; i++)
        PGI_TRY(pgi_stop_tail_init(&g->stop, NULL, 0, memory, &g->slots[i].tail));
    return PG_OK;
}

/* The row of the result that a slot has next. */
static void take_row(generate_call *g, slot *of, int64_t row) {
    of->row = row;
    of->prompt = row / g->options->n_return;
    of->result = &g->result->rows[row];
}

/* As many as the options say, else as generation_config.json does, else the default. */
static pg_status new_tokens_of_row(const generate_call *g, int64_t row, int64_t *n) {
    const pgi_generation_config *config = &g->model->config.generation;
    const int follows = !(g->options->flags & PG_GENERATE_IGNORE_CONFIG);
    const int64_t n_prompt = g->merged->inputs->rows[row].n_tokens;
    *n = g->options->max_new_tokens;
    if (*n == 0 && follows) *n = config->max_new_tokens;
    if (*n == 0 && follows && config->max_length > 0) {
        *n = config->max_length - n_prompt;
        if (*n < 1)
            return pgi_error_of_row(
                pgi_error(PG_ERROR_ARGUMENT,
                          "row %lld has %lld tokens, and generation_config.json says max_length %d: expected "
                          "max_new_tokens in the options, or PG_GENERATE_IGNORE_CONFIG",
                          (long long)row, (long long)n_prompt, config->max_length),
                row);
    }
    if (*n == 0) *n = PGI_DEFAULT_NEW_TOKENS;
    return PG_OK;
}

/* A workspace for steps of rows of n_keys. */
static pg_status reserve_step(generate_call *g) {
    int64_t n_logits = g->group * g->sampling.vocab_size;
    if (!g->sampling.greedy) n_logits += pgi_sampling_workspace_size(g->sampling.vocab_size);
    const pgi_limits step = {.n_step_tokens = g->group, .n_keys = g->n_keys, .n_logits = n_logits};
    PGI_TRY(pgi_workspace_reserve(&g->step, g->run, g->model, &step));
    g->scoring = pgi_sampling_workspace_in(g->step.logits, g->sampling.vocab_size);
    return PG_OK;
}

/* What may be generated of each row of the inputs. */
static pg_status new_limits(generate_call *g) {
    const int64_t n_prompts = g->merged->inputs->n_rows;
    g->limits = pgi_alloc(&g->model->memory, (size_t)n_prompts, sizeof *g->limits);
    if (!g->limits) return PG_ERROR_MEMORY;
    for (int64_t p = 0; p < n_prompts; p++) {
        g->limits[p] = (pgi_decoding_limits){.max_context = g->options->max_context};
        PGI_TRY(new_tokens_of_row(g, p, &g->limits[p].max_new_tokens));
    }
    return PG_OK;
}

/* A KV cache for each slot: the first rows have a slot each, any of the others may come into any slot. */
static pg_status reserve_caches(generate_call *g) {
    const int64_t n_return = g->options->n_return;
    const pgi_row *rows = g->merged->inputs->rows;
    int64_t n_tokens = 0, sum = 0; /* the most of a row; of the rows that begin first */
    for (int64_t r = g->result->n_rows - 1; r >= 0; r--) {
        const int64_t prompt = r / n_return, n = rows[prompt].n_tokens;
        int64_t max_tokens;
        PGI_TRY(pgi_decoding_max_tokens(g->merged, prompt, &g->limits[prompt], &max_tokens));
        g->n_total += max_tokens;
        n_tokens = pgi_max64(n_tokens, n);
        const int64_t capacity = pgi_decoding_first_capacity(&g->limits[prompt], n);
        g->n_keys = pgi_max64(g->n_keys, capacity);
        if (r >= g->n_slots) continue;
        sum += n;
        g->slots[r].capacity = g->result->n_rows > g->n_slots ? g->n_keys : capacity;
        PGI_TRY(pgi_decoding_reserve(&g->slots[r].decoding, g->model, g->slots[r].capacity));
    }
    if (n_return > 1) PGI_TRY(pgi_decoding_reserve(&g->stem, g->model, n_tokens));
    g->pass_tokens = pgi_min64(sum, PGI_TOGETHER_TOKENS);
    const pgi_limits prefill = {.n_tokens = pgi_max64(n_tokens, g->pass_tokens), .n_keys = g->n_keys};
    return pgi_workspace_reserve(&g->prefill, g->run, g->model, &prefill);
}

/* Memory for the rows that run, before anything is computed. On error too, generate_call_free() is due. */
static pg_status generate_call_init(generate_call *g) {
    const int64_t step_rows = pgi_step_rows(g->model), n_rows = g->result->n_rows;
    const int64_t most = g->options->max_running > 0 ? g->options->max_running : step_rows;
    g->wants_logits = !g->sampling.greedy || pgi_step_scores_any(&g->result->rows[0].kept);
    PGI_TRY(new_limits(g));
    PGI_TRY(new_slots(g, pgi_min64(n_rows, most)));
    g->group = pgi_min64(g->n_slots, step_rows);
    PGI_TRY(reserve_caches(g));
    return reserve_step(g);
}

/* Hands the text of a row that appeared since `before` to the host; *wants_stop: non-zero when it wants to stop. */
static pg_status emit(const generate_call *g, const slot *of, size_t before, int64_t token, int32_t *wants_stop) {
    const pg_generate_options *options = g->options;
    const pgi_buffer *text = &of->result->text;
    const char *piece = text->data ? (const char *)text->data + before : "";
    *wants_stop = 0;
    if (!options->on_text) return PG_OK;
    return pgi_callback_text(options->on_text, options->on_text_user, of->row, piece, text->size - before, token,
                             wants_stop);
}

/* Ends a row: what its decoder held back follows, with the last token. */
static pg_status end_row(generate_call *g, slot *of, int32_t stop) {
    pgi_buffer *text = &of->result->text;
    const pgi_id_list *ids = &of->result->ids;
    const size_t before = text->size;
    of->result->stop = stop;
    of->runs = 0;
    g->n_total -= of->decoding.max_tokens - of->decoding.n_returned; /* those that do not come any more */
    if (g->tokenizer) PGI_TRY(pgi_stream_decoder_flush(&of->decoder, text));
    if (text->size > before) {
        int32_t ends_anyway;
        PGI_TRY(emit(g, of, before, ids->data[ids->size - 1], &ends_anyway));
    }
    trim_result(g, of->result);
    return PG_OK;
}

static void push_token(generate_call *g, slot *of, int64_t token) {
    pgi_decoding_push(&of->decoding, token);
    g->n_done++;
}

/* Chooses the token that follows in a row by its logits [vocab_size]. The row may end instead. */
static pg_status sample_row(generate_call *g, slot *of, const float *logits) {
    const pgi_sampled_row row = {
        .row = of->row,
        .prompt = of->prompt,
        .text = of->row % g->options->n_return,
        .ids = of->ids.data,
        .n_ids = (int64_t)of->ids.size,
        .n_prompt_tokens = g->merged->inputs->rows[of->prompt].n_tokens,
        .n_new = of->decoding.n_returned,
        .max_new = of->decoding.max_tokens,
    };
    const float *scores = logits;
    if (!g->sampling.greedy) {
        int stop;
        PGI_TRY(pgi_sampling_score(&g->sampling, &row, logits, &g->scoring, &stop));
        if (stop) return end_row(g, of, PG_STOP_LOGITS);
        scores = g->scoring.scores;
    }
    const int64_t token = pgi_sampling_choose(&g->sampling, &row, scores);
    PGI_TRY(pgi_step_scores_push(&of->result->kept, &g->model->memory, logits, scores, token));
    push_token(g, of, token);
    return pgi_id_list_push(&of->ids, token);
}

/* Chooses the token that follows in each of n rows, by their last hidden states [n, hidden], which lie as decodings do.
 */
static pg_status sample(generate_call *g, slot *const *slots, pgi_decoding *const *decodings, int64_t n,
                        const float *last, const pgi_head_workspace *head) {
    float *logits = g->step.logits;
    if (!g->sampling.greedy) logits += pgi_sampling_workspace_size(g->sampling.vocab_size);
    PGI_TRY(pgi_decoding_logits(g->run, decodings, n, last, logits, head));
    if (!g->wants_logits) {
        int64_t tokens[PGI_STEP_ROWS];
        PGI_TRY(pgi_sample_rows(g->run, logits, n, g->sampling.vocab_size, tokens));
        for (int64_t i = 0; i < n; i++) push_token(g, slots[i], tokens[slots[i]->place]);
        return PG_OK;
    }
    for (int64_t i = 0; i < n; i++) PGI_TRY(sample_row(g, slots[i], logits + slots[i]->place * g->sampling.vocab_size));
    return PG_OK;
}

/* Prefills the prompts of n slots: into their own KV caches, or into the stem when several texts go on from one. */
static pg_status prefill_slots(generate_call *g, slot *of, int64_t n) {
    const int64_t n_layers = g->model->config.text.n_layers, total = g->merged->inputs->n_rows * n_layers;
    pgi_decoding *decodings[PGI_STEP_ROWS];
    const double start = pgi_now();
    for (int64_t i = 0; i < n; i++) {
        decodings[i] = g->options->n_return > 1 ? &g->stem : &of[i].decoding;
        PGI_TRY(pgi_decoding_begin(decodings[i], g->merged, of[i].prompt, &g->limits[of[i].prompt]));
    }
    PGI_TRY(pgi_decoding_prefill(g->run, g->merged, of->prompt, n, decodings, of->prompt * n_layers, total,
                                 &g->prefill.pass, &g->last));
    if (n > 1) PGI_TRY(pgi_run_progress(g->run, PG_PHASE_PREFILL, (of->prompt + n) * n_layers, total));
    g->result->prefill_seconds += pgi_now() - start;
    return PG_OK;
}

/* Begins the next rows of the result in n slots that are free, which follow one another: prefills them, and samples
 * their first tokens. */
static pg_status run_prompts(generate_call *g, slot *of, int64_t n) {
    const int64_t n_return = g->options->n_return;
    slot *slots[PGI_STEP_ROWS];
    pgi_decoding *decodings[PGI_STEP_ROWS];
    if (of->row % n_return == 0) PGI_TRY(prefill_slots(g, of, n));
    if (n_return > 1) PGI_TRY(pgi_decoding_branch(&of->decoding, &g->stem, g->model, 0));
    for (int64_t i = 0; i < n; i++) {
        slots[i] = &of[i];
        decodings[i] = &of[i].decoding;
        of[i].place = i;
        of[i].runs = 1;
        PGI_TRY(reserve_result(g, &of[i]));
        PGI_TRY(take_prompt(g, &of[i]));
    }
    PGI_TRY(sample(g, slots, decodings, n, g->last, &g->prefill.pass.head));
    if (g->n_begun == g->result->n_rows) pgi_workspace_free(&g->prefill, &g->model->memory);
    return PG_OK;
}

/* Gives a slot that is free the next row of the result. A row whose prompt is as long as the context ends at once. */
static pg_status begin_row(generate_call *g, slot *of, int *ends) {
    int64_t max_tokens;
    take_row(g, of, g->n_begun++);
    PGI_TRY(pgi_decoding_max_tokens(g->merged, of->prompt, &g->limits[of->prompt], &max_tokens));
    *ends = max_tokens == 0;
    if (*ends) {
        of->result->stop = PG_STOP_CONTEXT;
        return PG_OK;
    }
    if (of->decoding.cache.capacity > of->capacity) pgi_decoding_free(&of->decoding, &g->model->memory);
    return pgi_decoding_reserve(&of->decoding, g->model, of->capacity);
}

/* Begins up to n rows in slots that follow one another, together; *taken: how many slots were given a row. */
static pg_status begin_rows(generate_call *g, slot *of, int64_t n, int64_t *taken) {
    int64_t n_running = 0;
    int ends = 0;
    while (n_running < n && !ends) {
        PGI_TRY(begin_row(g, &of[n_running], &ends));
        n_running += !ends;
    }
    *taken = n_running + ends;
    return n_running > 0 ? run_prompts(g, of, n_running) : PG_OK;
}

/* Takes the token that was sampled last into the row's text, and sees whether the row ends. */
static pg_status take_token(generate_call *g, slot *of) {
    pgi_buffer *text = &of->result->text;
    const int64_t token = of->decoding.pending;
    const size_t before = text->size;
    int completes = 0;
    PGI_TRY(pgi_id_list_push(&of->result->ids, token));
    if (g->tokenizer) PGI_TRY(pgi_stream_decoder_push(&of->decoder, token, text));
    if (g->stop.n > 0) PGI_TRY(pgi_stop_tail_push(&of->tail, &g->stop, token, &completes));
    int32_t wants_stop;
    PGI_TRY(emit(g, of, before, token, &wants_stop));
    if (pgi_sampling_ends_row(&g->sampling, token)) return end_row(g, of, PG_STOP_EOS);
    if (completes) return end_row(g, of, PG_STOP_STRING);
    if (wants_stop) return end_row(g, of, PG_STOP_CALLBACK);
    if (g->options->max_seconds > 0 && pgi_now() - g->start > g->options->max_seconds)
        return end_row(g, of, PG_STOP_TIME);
    if (of->decoding.n_returned >= of->decoding.max_tokens)
        return end_row(g, of, of->decoding.ends_context ? PG_STOP_CONTEXT : PG_STOP_LENGTH);
    return PG_OK;
}

/* Takes the token of the row that runs in a slot. Where the row ends, or none runs, the next begin until one goes on.
 */
static pg_status advance_slot(generate_call *g, slot *of) {
    if (of->runs) PGI_TRY(take_token(g, of));
    int64_t taken;
    while (!of->runs && g->n_begun < g->result->n_rows) {
        PGI_TRY(begin_rows(g, of, 1, &taken));
        if (of->runs) PGI_TRY(take_token(g, of));
    }
    return PG_OK;
}

/* Room for one more token of each of n decodings. */
static pg_status make_room(generate_call *g, pgi_decoding *const *decodings, int64_t n) {
    int64_t n_keys = g->n_keys;
    for (int64_t i = 0; i < n; i++) {
        PGI_TRY(pgi_decoding_make_room(decodings[i], g->model));
        n_keys = pgi_max64(n_keys, decodings[i]->cache.capacity);
    }
    if (n_keys == g->n_keys) return PG_OK;
    g->n_keys = n_keys;
    return reserve_step(g);
}

/* The decodings of n slots in the order in which a step reads least: handles that replace nothing of the base first,
 * and rows of one handle side by side. */
static void order_step(slot *const *slots, int64_t n, pgi_decoding **decodings) {
    int64_t placed = 0;
    uint32_t is_placed = 0; /* bit i: slots[i] */
    for (int replaces = 0; replaces < 2; replaces++)
        for (int64_t i = 0; i < n; i++) {
            const pg_model *model = slots[i]->decoding.model;
            for (int64_t k = i; k < n && model->replaces == replaces; k++) {
                if (is_placed >> k & 1 || slots[k]->decoding.model != model) continue;
                is_placed |= UINT32_C(1) << k;
                slots[k]->place = placed;
                decodings[placed++] = &slots[k]->decoding;
            }
        }
}

/* Feeds the rows that run in the slots from *i on, up to a group of them, and samples the token that follows in each.
 */
static pg_status step_group(generate_call *g, int64_t *i) {
    slot *slots[PGI_STEP_ROWS];
    pgi_decoding *decodings[PGI_STEP_ROWS];
    int64_t n = 0;
    for (; *i < g->n_slots && n < g->group; ++*i)
        if (g->slots[*i].runs) slots[n++] = &g->slots[*i];
    if (n == 0) return PG_OK;
    order_step(slots, n, decodings);
    PGI_TRY(pgi_run_progress(g->run, PG_PHASE_DECODE, g->n_done, g->n_total));
    PGI_TRY(make_room(g, decodings, n));
    PGI_TRY(pgi_decoding_step_group(g->run, decodings, n, &g->step.step));
    return sample(g, slots, decodings, n, g->step.step.x, &g->step.step.head);
}

static pg_status decode_rows(generate_call *g) {
    for (int64_t i = 0, taken; i < g->n_slots; i += taken) { /* slot i has the size of row i */
        const int64_t n = pgi_min64(g->group, g->n_slots - i);
        const int64_t together =
            g->options->n_return > 1 ? 1 : pgi_prefill_rows(g->run, g->merged, i, n, g->pass_tokens);
        PGI_TRY(begin_rows(g, &g->slots[i], together, &taken));
    }
    for (int64_t n_running = g->n_slots; n_running > 0;) {
        n_running = 0;
        for (int64_t i = 0; i < g->n_slots; i++) {
            PGI_TRY(advance_slot(g, &g->slots[i]));
            n_running += g->slots[i].runs;
        }
        for (int64_t i = 0; i < g->n_slots;) PGI_TRY(step_group(g, &i));
    }
    return g->n_done > 0 ? pgi_run_progress(g->run, PG_PHASE_DECODE, g->n_done, g->n_total) : PG_OK;
}

/* ---- beams ---- */

/* Steps of a hypothesis as the row's text, ids and what is kept of them. */
static pg_status take_steps(generate_call *g, slot *of, const pgi_search *search, const pgi_hypothesis *hypothesis,
                            const pgi_search_node **steps, int64_t n) {
    pgi_result_row *result = of->result;
    PGI_TRY(pgi_id_list_reserve(&result->ids, (size_t)n + 1));
    PGI_TRY(pgi_id_list_reserve(&result->beams, (size_t)n + 1));
    for (int64_t i = 0; i < n; i++) {
        const size_t before = result->text.size;
        const int64_t entry = i * search->n_beams + steps[i]->beam;
        PGI_TRY(pgi_id_list_push(&result->ids, steps[i]->token));
        PGI_TRY(pgi_id_list_push(&result->beams, steps[i]->beam));
        PGI_TRY(pgi_step_scores_take(&result->kept, &g->model->memory, &search->history, entry));
        PGI_TRY(pgi_step_scores_push_log_probs(&result->kept, &g->model->memory, steps[i]->log_prob,
                                               steps[i]->score_log_prob));
        if (g->tokenizer) PGI_TRY(pgi_stream_decoder_push(&of->decoder, steps[i]->token, &result->text));
        int32_t wants_stop;
        PGI_TRY(emit(g, of, before, steps[i]->token, &wants_stop));
        if (wants_stop && i < n - 1) return end_row(g, of, PG_STOP_CALLBACK);
    }
    const int32_t stop = hypothesis->stop ? hypothesis->stop : PG_STOP_LENGTH; /* 0: one that HF, too, fills up with */
    if (n > 0) return end_row(g, of, stop);
    result->stop = stop;
    return PG_OK;
}

static pg_status take_hypothesis(generate_call *g, slot *of, const pgi_search *search,
                                 const pgi_hypothesis *hypothesis) {
    const pgi_memory *memory = &g->model->memory;
    const int64_t n = pgi_search_length(search, hypothesis);
    const pgi_search_node **steps = pgi_alloc(memory, (size_t)n + 1, sizeof *steps);
    if (!steps) return PG_ERROR_MEMORY;
    pgi_search_path(search, hypothesis, n, steps);
    of->result->score = (double)hypothesis->score;
    const pg_status status = take_steps(g, of, search, hypothesis, steps, n);
    pgi_free(memory, steps);
    return status;
}

/* What the result keeps of all beams of a prompt; the search begins the next with new memory. */
static void take_history(const generate_call *g, pg_result *result, int64_t prompt, pgi_search *search) {
    if (!(g->options->flags & (PG_GENERATE_LOGITS | PG_GENERATE_SCORES))) return;
    pgi_step_scores *history = &result->histories[prompt];
    *history = search->history;
    search->history = (pgi_step_scores){
        .flags = history->flags, .n_alternatives = history->n_alternatives, .vocab_size = history->vocab_size};
}

static pg_status search_prompts(generate_call *g, pgi_search *search) {
    const int64_t n_return = g->options->n_return;
    slot *of = &g->slots[0];
    for (int64_t p = 0; p < g->merged->inputs->n_rows; p++) {
        PGI_TRY(pgi_search_run(search, p, g->limits, &g->result->prefill_seconds));
        for (int64_t i = 0; i < n_return; i++) {
            take_row(g, of, p * n_return + i);
            PGI_TRY(take_hypothesis(g, of, search, &search->hypotheses[i]));
        }
        take_history(g, g->result, p, search);
    }
    return PG_OK;
}

static pg_status search_rows(generate_call *g) {
    const pg_inputs *inputs = g->merged->inputs;
    const double max_seconds = g->options->max_seconds;
    int64_t n_tokens = 0;
    pgi_search search = {0};
    PGI_TRY(new_limits(g));
    PGI_TRY(new_slots(g, 1));
    g->result->histories = pgi_alloc_zero(&g->model->memory, (size_t)inputs->n_rows, sizeof *g->result->histories);
    if (!g->result->histories) return PG_ERROR_MEMORY;
    for (int64_t p = 0; p < inputs->n_rows; p++) n_tokens = pgi_max64(n_tokens, inputs->rows[p].n_tokens);
    const pgi_search_setup setup = {
        .run = g->run,
        .model = g->model,
        .merged = g->merged,
        .sampling = &g->sampling,
        .stop = &g->stop,
        .options = g->options,
        .deadline = max_seconds > 0 ? g->start + max_seconds : INFINITY,
    };
    pg_status status = pgi_search_init(&search, &setup, n_tokens, g->limits);
    if (status >= 0) status = search_prompts(g, &search);
    pgi_search_free(&search);
    return status;
}

static pg_status generate(generate_call *g) {
    const int searches = g->options->beams->n_beams > 1;
    if (!searches) PGI_TRY(generate_call_init(g));
    const double start = pgi_now();
    PGI_TRY(searches ? search_rows(g) : decode_rows(g));
    g->result->vision_seconds = g->merged->vision_seconds;
    g->result->decode_seconds = pgi_now() - start - g->result->prefill_seconds;
    return PG_OK;
}

static pg_status run_call(generate_call *g, const pgi_merged_inputs *merged, pg_result **out) {
    pg_result *result = NULL;
    PGI_TRY(pgi_result_new(&g->model->memory, merged->inputs, g->options, &result));
    g->merged = merged;
    g->result = result;
    for (int64_t r = 0; r < result->n_rows; r++) set_kept(g, &result->rows[r].kept);
    pg_status status = generate(g);
    generate_call_free(g);
    if (status < 0)
        pgi_result_release(result);
    else
        *out = result;
    return status;
}

static int ends_row(const void *sampling, int64_t id) { return pgi_sampling_is_eos(sampling, id); }

static pg_status use_detect_mask(generate_call *g) {
    g->sampling.detect = &g->detect;
    g->sampling.greedy = 0;
    return pgi_detect_mask_init(g->tokenizer, g->sampling.vocab_size, (g->options->flags & PG_GENERATE_SEGMENT) != 0,
                                ends_row, &g->sampling, &g->model->memory, &g->detect);
}

pg_status pgi_generate(const pg_model *model, const pg_processor *processor, const pg_inputs *inputs,
                       const pg_generate_options *options, pg_result **out) {
    const pgi_decoding_limits limits = {.max_context = options->max_context};
    PGI_TRY(pgi_decoding_check(inputs, &limits));
    const pgi_kernels kernels = pgi_row_models_kernels(model, options->row_models, inputs->n_rows);
    pgi_thread_pool pool;
    pgi_run run = pgi_run_init(&pool, &kernels, PGI_RUN_OPTIONS(options));
    generate_call g = {.run = &run, .model = model, .options = options, .start = pgi_now()};
    pgi_merged_inputs merged;
    g.tokenizer = processor ? processor->tokenizer : NULL;
    pg_status status;
    PGI_GOTO(pgi_sampling_init(options->sampling, model, &g.sampling), done);
    PGI_GOTO(pgi_sampling_make_eos(&g.sampling, &model->memory), done);
    if (options->beams->n_beams > 1) /* HF's min_tokens_to_keep: enough to go on with beside eos */
        g.sampling.least_kept = pgi_max64(2, 1 + pgi_sampling_count_eos(&g.sampling));
    PGI_GOTO(pgi_stop_strings_init(options->stop_strings, options->n_stop_strings, g.tokenizer, &g.stop), done);
    if (options->flags & (PG_GENERATE_DETECT | PG_GENERATE_SEGMENT)) PGI_GOTO(use_detect_mask(&g), done);
    PGI_GOTO(pgi_merged_inputs_init(&run, model, options->row_models, inputs, options->features, NULL, &merged), done);
    status = run_call(&g, &merged, out);
    pgi_merged_inputs_free(&merged);
done:
    pgi_free(&model->memory, g.sampling.eos);
    pgi_detect_mask_free(&g.detect);
    pgi_run_free(&run);
    return status;
}
