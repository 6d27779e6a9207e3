/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Asks the same about several images at once: batch MODEL PROMPT IMAGE... */
#include <inttypes.h>
#include <stdio.h>

#include <paligemma/paligemma.h>

enum { MOST = 16 };

int main(int argc, char **argv) {
    pg_model *model = NULL;
    pg_processor *processor = NULL;
    pg_inputs *inputs = NULL;
    pg_result *result = NULL;
    const char *prompts[MOST];
    pg_image images[MOST]; /* one for each row; pg_batch.image_counts could say otherwise */
    pg_batch batch;
    int n_rows = argc - 3, usage = n_rows < 1 || n_rows > MOST;
    int failed = usage || pg_batch_init(&batch, sizeof batch) < 0;
    for (int row = 0; row < n_rows && !failed; row++) {
        prompts[row] = argv[2];
        failed = pg_image_from_path(&images[row], sizeof images[row], argv[3 + row]) < 0;
    }
    if (!failed) {
        batch.n_prompts = batch.n_images = n_rows;
        batch.prompts = prompts;
        batch.images = images;
        failed = pg_model_open(argv[1], NULL, &model) < 0 || pg_processor_open(argv[1], NULL, &processor) < 0 ||
                 pg_processor_encode_batch(processor, &batch, NULL, &inputs) < 0 ||
                 pg_generate(model, processor, inputs, NULL, &result) < 0;
    }
    for (int64_t row = 0; row < pg_result_get_n_rows(result) && !failed; row++) {
        pg_result_info info;
        info.struct_size = sizeof info;
        failed = pg_result_get_info(result, row, &info) < 0;
        if (!failed)
            printf("%s: %s (%" PRId64 " tokens%s)\n", argv[3 + row], pg_result_get_text(result, row), info.n_new_tokens,
                   info.stop == PG_STOP_LENGTH ? ", cut off" : "");
    }
    if (failed)
        fprintf(stderr, "batch: %s\n", usage ? "usage: batch MODEL PROMPT IMAGE... (at most 16)" : pg_last_error());
    pg_result_close(&result);
    pg_inputs_close(&inputs);
    pg_processor_close(&processor);
    pg_model_close(&model);
    return failed;
}
