/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Encodes an image once and asks about it often: ask_many MODEL IMAGE PROMPT... */
#include <stdio.h>

#include <paligemma/paligemma.h>

int main(int argc, char **argv) {
    pg_model *model = NULL;
    pg_processor *processor = NULL;
    pg_inputs *pixels = NULL;
    pg_features *features = NULL;
    pg_image image;
    pg_generate_options options;
    int failed = argc < 4 || pg_model_open(argv[1], NULL, &model) < 0 ||
                 pg_processor_open(argv[1], NULL, &processor) < 0 ||
                 pg_image_from_path(&image, sizeof image, argv[2]) < 0 ||
                 pg_processor_encode(processor, &image, NULL, NULL, &pixels) < 0 || /* any prompt: only pixels count */
                 pg_features_create(model, pixels, NULL, &features) < 0 ||
                 pg_generate_options_init(&options, sizeof options) < 0;
    for (int i = 3; i < argc && !failed; i++) {
        pg_inputs *question = NULL;
        pg_result *result = NULL;
        options.features = features; /* instead of pixels: the question is encoded without an image */
        failed = pg_processor_encode(processor, NULL, argv[i], NULL, &question) < 0 ||
                 pg_generate(model, processor, question, &options, &result) < 0;
        if (!failed) printf("%s: %s\n", argv[i], pg_result_get_text(result, 0));
        pg_result_close(&result);
        pg_inputs_close(&question);
    }
    if (failed) fprintf(stderr, "ask_many: %s\n", argc < 4 ? "usage: ask_many MODEL IMAGE PROMPT..." : pg_last_error());
    pg_features_close(&features);
    pg_inputs_close(&pixels);
    pg_processor_close(&processor);
    pg_model_close(&model);
    return failed;
}
