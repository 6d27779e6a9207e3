/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The scores that settings of sampling leave, against those of transformers' processors, bit for bit: make_sampling.py.
 * The settings come to us as they stand in generation_config.json. */
#include "run_tests.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoint/generation_config.h"
#include "generate/sampling.h"
#include "golden.h"

enum { MOST_IDS = 64, MOST_VOCAB = 256 };

static int64_t read_ids(const json_t *list, int64_t *ids) {
    const size_t n = json_array_size(list);
    for (size_t i = 0; i < n; i++) ids[i] = json_integer_value(json_array_get(list, i));
    return (int64_t)n;
}

static void read_floats(const json_t *list, float *out) {
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *value = json_array_get(list, i);
        out[i] = json_is_null(value) ? -INFINITY : (float)json_number_value(value);
    }
}

static void replay(const json_t *one, int64_t vocab_size) {
    static pg_model model;
    pgi_sampling sampling;
    int64_t ids[MOST_IDS], eos[MOST_IDS];
    float logits[MOST_VOCAB], wanted[MOST_VOCAB];
    json_t *settings = json_object_get(one, "settings");
    const int64_t n_prompt = read_ids(json_object_get(one, "prompt"), ids);
    const int64_t n_new = read_ids(json_object_get(one, "new"), ids + n_prompt);
    model.config.text.vocab_size = (int32_t)vocab_size;
    pgi_generation_config *config = &model.config.generation;
    char *written = json_dumps(settings, JSON_COMPACT | JSON_REAL_PRECISION(17));
    pgi_generation_config_init(config, &pgi_memory_default);
    CHECK(pgi_json_parse(&config->doc, "settings", written, strlen(written), PGI_JSON_STRICT, &config->json));
    CHECK(pgi_generation_config_read(config, vocab_size));
    free(written);
    pg_sampling_options options = config->sampling;
    options.eos_ids = eos;
    options.n_eos_ids = read_ids(json_object_get(settings, "eos_token_id"), eos);
    CHECK(pgi_sampling_init(&options, &model, &sampling));
    CHECK(pgi_sampling_make_eos(&sampling, &pgi_memory_default));
    read_floats(json_object_get(one, "logits"), logits);
    read_floats(json_object_get(one, "scores"), wanted);
    float *memory = aligned_alloc(64, (size_t)pgi_sampling_workspace_size(vocab_size) * sizeof *memory);
    const pgi_sampling_workspace workspace = pgi_sampling_workspace_in(memory, vocab_size);
    const pgi_sampled_row row = {
        .ids = ids,
        .n_ids = n_prompt + n_new,
        .n_prompt_tokens = n_prompt,
        .n_new = n_new,
        .max_new = json_integer_value(json_object_get(one, "max_new")),
    };
    int stop;
    CHECK(pgi_sampling_score(&sampling, &row, logits, &workspace, &stop));
    for (int64_t i = 0; i < vocab_size; i++)
        if (workspace.scores[i] != wanted[i]) {
            char *text = json_dumps(settings, JSON_COMPACT);
            fail_msg("id %d: found %g, expected %g; %s", (int)i, (double)workspace.scores[i], (double)wanted[i], text);
        }
    free(memory);
    pgi_free(&pgi_memory_default, sampling.eos);
    pgi_generation_config_free(config);
}

static void scores_are_transformers(void **state) {
    json_error_t error;
    json_t *file = json_load_file(GOLDEN_FOLDER "/sampling.json", 0, &error), *one;
    size_t i;
    (void)state;
    assert_non_null(file);
    const json_t *cases = json_object_get(file, "cases");
    assert_true(json_array_size(cases) >= 100);
    json_array_foreach(cases, i, one) replay(one, json_integer_value(json_object_get(file, "vocab_size")));
    json_decref(file);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(scores_are_transformers)};
    return RUN_TESTS(tests, NULL, NULL);
}
