/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Answers to score. A byte of settings; then texts that end at byte 0xFF, the first of which is the prompt; or with
 * bit 7 ids of two bytes, before each answer a byte that says how many. What the numbers say of each other is checked.
 */
#include <math.h>

#include "fuzz.h"

enum { MOST = 6, MAX_IDS = 64 };

static void look(const pg_scores *scores, int64_t n) {
    pg_score_info info = {.struct_size = sizeof info};
    pg_tensor ids = {.struct_size = sizeof ids}, log_probs = {.struct_size = sizeof log_probs};
    double sum = 0, mean_sum = 0;
    if (pg_scores_get_n_answers(scores) != n) abort();
    for (int64_t i = -1; i <= n; i++) {
        if (OK(pg_scores_get_info(scores, i, &info)) != (i >= 0 && i < n)) abort();
        if (i < 0 || i == n) continue;
        if (!OK(pg_scores_get_tensor(scores, i, "ids", &ids))) abort();
        if (!OK(pg_scores_get_tensor(scores, i, "log_probs", &log_probs))) abort();
        if (info.n_tokens < 1 || ids.shape[0] != info.n_tokens || log_probs.shape[0] != info.n_tokens) abort();
        double total = 0;
        for (int64_t j = 0; j < info.n_tokens; j++) total += (double)((const float *)log_probs.data)[j];
        if (!(fabs(total - info.log_prob) <= 1e-4 * (1 + fabs(total))) || !(info.log_prob <= 1e-3)) abort();
        sum += info.probability;
        mean_sum += info.mean_probability;
    }
    if (!(fabs(sum - 1) < 1e-6) || !(fabs(mean_sum - 1) < 1e-6)) abort();
}

static int64_t take_texts(fuzz_input *in, char **texts) {
    int64_t n = 0;
    for (; n < MOST && in->size; n++) {
        const uint8_t *end = memchr(in->data, 0xFF, in->size);
        const size_t length = end ? (size_t)(end - in->data) : in->size;
        texts[n] = fuzz_text(in->data, length);
        in->data += length + (end != NULL);
        in->size -= length + (end != NULL);
    }
    return n;
}

static void score_ids(fuzz_input *in, const pg_model *model, const pg_inputs *inputs, const pg_score_options *options) {
    int64_t ids[MAX_IDS], sizes[MOST], n = 0, n_ids = 0;
    pg_scores *scores = NULL;
    for (; n < MOST && in->size; n++) {
        sizes[n] = (int8_t)fuzz_take(in, 1);
        if (sizes[n] > MAX_IDS - n_ids) sizes[n] = MAX_IDS - n_ids;
        for (int64_t i = 0; i < sizes[n]; i++) ids[n_ids++] = (int16_t)fuzz_take(in, 2);
    }
    if (MADE(pg_score_ids(model, inputs, ids, sizes, n, options, &scores), scores)) look(scores, n);
    pg_scores_close(&scores);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const uint8_t grey[16 * 16];
    fuzz_input in = {data, size};
    pg_score_options options;
    pg_image image;
    pg_inputs *inputs = NULL;
    pg_scores *scores = NULL;
    char *texts[MOST] = {0};
    int32_t left = 100;
    if (size > 600) return 0;
    const int how = (int)fuzz_take(&in, 1);
    const fuzz_folder_kind kind = how & 1 ? FUZZ_TODAY : FUZZ_OFFICIAL;
    pg_score_options_init(&options, sizeof options);
    options.flags = (uint32_t)how >> 1 & 3;
    options.n_threads = 1 + (how >> 3 & 1);
    options.max_context = how & 16 ? 24 : 0;
    options.progress = fuzz_progress;
    options.progress_user = &left;
    const int64_t n = how & 128 ? 0 : take_texts(&in, texts);
    pg_image_from_pixels(&image, sizeof image, PG_IMAGE_GRAY8, 16, 16, grey, 0);
    if (MADE(pg_processor_encode(fuzz_processor(kind), &image, n ? texts[0] : "the cat", NULL, &inputs), inputs)) {
        if (how & 128)
            score_ids(&in, fuzz_model(kind), inputs, &options);
        else if (MADE(pg_score(fuzz_model(kind), fuzz_processor(kind), inputs, (const char *const *)texts + 1, n - 1,
                               &options, &scores),
                      scores))
            look(scores, n - 1);
    }
    pg_scores_close(&scores);
    pg_inputs_close(&inputs);
    for (int64_t i = 0; i < n; i++) free(texts[i]);
    return 0;
}
