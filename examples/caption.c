/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Captions an image: caption MODEL IMAGE */
#include <stdio.h>

#include <paligemma/paligemma.h>

int main(int argc, char **argv) {
    pg_model *model = NULL;
    pg_processor *processor = NULL;
    pg_inputs *inputs = NULL;
    pg_result *result = NULL;
    pg_image image;
    pg_encode_options encode;
    int failed = argc != 3 || pg_encode_options_init(&encode, sizeof encode) < 0;
    encode.flags = PG_ENCODE_EXIF; /* photos of phones upright */
    failed = failed || pg_model_open(argv[1], NULL, &model) < 0 || pg_processor_open(argv[1], NULL, &processor) < 0 ||
             pg_image_from_path(&image, sizeof image, argv[2]) < 0 ||
             pg_processor_encode(processor, &image, "caption en", &encode, &inputs) < 0 ||
             pg_generate(model, processor, inputs, NULL, &result) < 0;
    if (failed)
        fprintf(stderr, "caption: %s\n", argc == 3 ? pg_last_error() : "usage: caption MODEL IMAGE");
    else
        puts(pg_result_get_text(result, 0));
    pg_result_close(&result);
    pg_inputs_close(&inputs);
    pg_processor_close(&processor);
    pg_model_close(&model);
    return failed;
}
