/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Beam search: the likeliest continuations of a prompt as a whole (HF: GenerationMixin._beam_search). */
#ifndef PGI_GENERATE_SEARCH_H
#define PGI_GENERATE_SEARCH_H

#include "generate/decoding.h"
#include "generate/probability.h"
#include "generate/sampling.h"
#include "generate/step_scores.h"
#include "generate/stop_strings.h"

enum { PGI_MOST_BEAMS = 64 };

/* What a search is made for. */
typedef struct pgi_search_setup {
    const pgi_run *run;
    const pg_model *model;
    const pgi_merged_inputs *merged;
    const pgi_sampling *sampling;
    const pgi_stop_strings *stop;
    const pg_generate_options *options; /* complete; options->beams: n_beams > 1 */
    double deadline;                    /* by pgi_now(); INFINITY: none */
} pgi_search_setup;

/* A token that was looked at: those of a hypothesis are found from its last one back. */
typedef struct pgi_search_node {
    int64_t parent; /* -1: the first new token */
    int64_t token;
    int32_t beam;                   /* the one that it continued, of those that ran */
    float log_prob, score_log_prob; /* with PG_GENERATE_LOG_PROBS */
} pgi_search_node;

/* A continuation and its score, the sum of its tokens' log-probabilities / n ^ length_penalty. */
typedef struct pgi_hypothesis {
    int64_t node; /* its last token; -1: it has none */
    float score;
    int32_t stop; /* PG_STOP_*; 0: not ended */
} pgi_hypothesis;

typedef struct pgi_beam {
    pgi_decoding *decoding; /* one of the search */
    pgi_id_list ids;        /* of the prompt, and the new ones */
    pgi_stop_tail tail;
    int64_t node;
    float score; /* the sum of log-probabilities */
} pgi_beam;

typedef struct pgi_candidate pgi_candidate;

typedef struct pgi_search {
    pgi_search_setup setup;
    int64_t n_beams, n_candidates;
    pgi_decoding *decodings;   /* [n_beams] */
    pgi_beam *beams, *next;    /* [n_beams] */
    pgi_candidate *candidates; /* [n_candidates], those of a step, the best first unless drawn */
    int64_t n_found;           /* of them */
    int64_t *texts;            /* [n_candidates, ids], of on_texts: what the host sees of them */
    size_t texts_capacity;
    uint8_t *ends;              /* [n_candidates], of on_texts: those that it ended */
    pgi_hypothesis *hypotheses; /* [n_beams], the best first */
    pgi_hypothesis *merged;     /* [n_beams + n_candidates] */
    pgi_search_node *nodes;     /* [n_nodes] */
    size_t n_nodes, nodes_capacity;
    pgi_stop_tail tail;                 /* of the candidate that is looked at */
    pgi_softmax *of_logits, *of_scores; /* [n_beams] */
    pgi_workspace workspace;            /* its logits: the settings' memory, and these: */
    pgi_sampling_workspace scoring;
    float *logits;            /* [n_beams, vocab_size] */
    float *log_probs;         /* [vocab_size] */
    float *all_scores;        /* [n_beams, vocab_size], of draws: what each token adds */
    uint64_t *weights;        /* [n_beams * vocab_size], of draws */
    int64_t n_tokens, n_keys; /* that the workspace is for */
    int64_t max_new;          /* tokens of the row at the most, and why no more */
    int32_t ends_context;
    int64_t n_new;           /* tokens of the beams that run */
    int64_t n_done;          /* steps of the rows before this one, for progress */
    int improvable;          /* a beam that runs may come before a hypothesis */
    pgi_step_scores history; /* [n_steps * n_beams] logits, scores and alternatives of the beams that ran */
} pgi_search;

/* Memory for rows of up to n_tokens and their new tokens. limits [n_rows]: each row's. After an error, too,
 * pgi_search_free() is due. */
pg_status pgi_search_init(pgi_search *search, const pgi_search_setup *setup, int64_t n_tokens,
                          const pgi_decoding_limits *limits);
void pgi_search_free(pgi_search *search);

/* Searches row `row`; limits [n_rows]. Then search->hypotheses has its continuations. *prefill_seconds is added to. */
pg_status pgi_search_run(pgi_search *search, int64_t row, const pgi_decoding_limits *limits, double *prefill_seconds);

/* Tokens of a hypothesis, and the last n of them in their order: nodes [n]. */
int64_t pgi_search_length(const pgi_search *search, const pgi_hypothesis *hypothesis);
void pgi_search_path(const pgi_search *search, const pgi_hypothesis *hypothesis, int64_t n,
                     const pgi_search_node **nodes);

#endif
