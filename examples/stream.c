/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Prints the text as it comes: stream MODEL IMAGE PROMPT */
#include <stdio.h>

#include <paligemma/paligemma.h>

/* A piece of the text, never half a character. Any result but 0 would end the text here. */
static int32_t show(void *user, int64_t row, const char *text, size_t size, int64_t token) {
    (void)user, (void)row, (void)token;
    return fwrite(text, 1, size, stdout) != size || fflush(stdout) != 0;
}

int main(int argc, char **argv) {
    pg_model *model = NULL;
    pg_processor *processor = NULL;
    pg_inputs *inputs = NULL;
    pg_result *result = NULL;
    pg_image image;
    pg_encode_options encode;
    pg_generate_options options;
    int failed = argc != 4 || pg_encode_options_init(&encode, sizeof encode) < 0 ||
                 pg_generate_options_init(&options, sizeof options) < 0;
    if (!failed) {
        /* A phone stores a photo as its sensor lay, and notes in the file (EXIF) how to turn it. With this flag the
         * model sees it upright, as with transformers' load_image. Without, as stored: HF's processor does so. */
        encode.flags = PG_ENCODE_EXIF;
        options.on_text = show;
        failed = pg_model_open(argv[1], NULL, &model) < 0 || pg_processor_open(argv[1], NULL, &processor) < 0 ||
                 pg_image_from_path(&image, sizeof image, argv[2]) < 0 ||
                 pg_processor_encode(processor, &image, argv[3], &encode, &inputs) < 0 ||
                 pg_generate(model, processor, inputs, &options, &result) < 0;
    }
    if (failed)
        fprintf(stderr, "stream: %s\n", argc == 4 ? pg_last_error() : "usage: stream MODEL IMAGE PROMPT");
    else
        failed = puts("") < 0 || fflush(stdout) != 0;
    pg_result_close(&result);
    pg_inputs_close(&inputs);
    pg_processor_close(&processor);
    pg_model_close(&model);
    return failed;
}
