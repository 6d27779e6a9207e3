/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Greedy sampling (HF: GenerationMixin, do_sample=False): token = argmax(logits).
 */
#include "generate/sampler.h"

#include "base/parallel.h"

enum { LANES = 32 }; /* of a loop that compilers make vectors of */

/* Whether one of LANES values is larger than `than`. */
static int any_larger(const float *x, float than) {
    int larger = 0;
    for (int i = 0; i < LANES; i++) larger |= x[i] > than;
    return larger;
}

int64_t pgi_sample(const float *logits, int64_t vocab_size) {
    int64_t best = 0, i = 0;
    while (best < vocab_size && logits[best] != logits[best]) best++; /* NaN is never larger */
    if (best == vocab_size) return 0;
    for (; i < vocab_size; i++) {
        if (i % LANES == 0)
            while (i + LANES <= vocab_size && !any_larger(logits + i, logits[best])) i += LANES;
        if (i < vocab_size && logits[i] > logits[best]) best = i;
    }
    return best;
}

typedef struct sampler_task {
    const float *logits; /* [rows, vocab_size] */
    int64_t vocab_size;
    int64_t *tokens;
} sampler_task;

/* Item: a row. */
static void sample_rows(void *context, int64_t begin, int64_t end, int thread) {
    const sampler_task *task = context;
    (void)thread;
    for (int64_t r = begin; r < end; r++)
        task->tokens[r] = pgi_sample(task->logits + r * task->vocab_size, task->vocab_size);
}

pg_status pgi_sample_rows(const pgi_run *run, const float *logits, int64_t n_rows, int64_t vocab_size,
                          int64_t *tokens) {
    sampler_task task = {logits, vocab_size, tokens};
    pgi_run alone;
    return pgi_parallel_for(pgi_run_for_work(run, (double)n_rows * (double)vocab_size, &alone), n_rows, 1, sample_rows,
                            &task);
}
