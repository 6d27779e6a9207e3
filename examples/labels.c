/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* A row of training data, as a fine-tuning loop takes it: labels MODEL IMAGE PROMPT SUFFIX */
#include <inttypes.h>
#include <stdio.h>

#include <paligemma/paligemma.h>

/* Row 0 of an i64 tensor [1, T]. */
static pg_status print_row(const pg_inputs *inputs, const char *name) {
    pg_tensor tensor;
    pg_status status = pg_tensor_init(&tensor, sizeof tensor);
    if (status >= 0) status = pg_inputs_get_tensor(inputs, name, &tensor);
    if (status < 0) return status;
    const int64_t *row = (const int64_t *)tensor.data;
    printf("%s", name);
    for (int64_t i = 0; i < tensor.shape[1]; i++) printf(" %" PRId64, row[i]);
    putchar('\n');
    return PG_OK;
}

int main(int argc, char **argv) {
    pg_processor *processor = NULL;
    pg_inputs *inputs = NULL;
    pg_image image;
    pg_batch batch;
    pg_batch_init(&batch, sizeof batch);
    batch.n_prompts = batch.n_suffixes = batch.n_images = 1; /* a batch has as many of each as it has rows */
    batch.images = &image;
    if (argc == 5) {
        batch.prompts = (const char *const *)&argv[3];
        batch.suffixes = (const char *const *)&argv[4];
    }
    int failed = argc != 5 || pg_processor_open(argv[1], NULL, &processor) < 0 ||
                 pg_image_from_path(&image, sizeof image, argv[2]) < 0 ||
                 pg_processor_encode_batch(processor, &batch, NULL, &inputs) < 0 ||
                 print_row(inputs, "input_ids") < 0 || print_row(inputs, "token_type_ids") < 0 ||
                 print_row(inputs, "labels") < 0;
    if (failed)
        fprintf(stderr, "labels: %s\n", argc == 5 ? pg_last_error() : "usage: labels MODEL IMAGE PROMPT SUFFIX");
    pg_inputs_close(&inputs);
    pg_processor_close(&processor);
    return failed;
}
