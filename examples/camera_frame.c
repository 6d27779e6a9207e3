/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Finds objects in a camera's frame: camera_frame MODEL PROMPT up|down < FRAME
 * FRAME: 480 rows of 640 pixels, bytes B G R, each row filled up to 2048 bytes; "up": the bottom row comes first. */
#include <stdio.h>
#include <string.h>

#include <paligemma/paligemma.h>

enum { WIDTH = 640, HEIGHT = 480, STRIDE = 2048 };
static uint8_t frame[HEIGHT * STRIDE];

/* The boxes of the answer, in pixels of the frame. The demo model was trained with units of 1/1023; published
 * checkpoints are read with 1/1024 by Hugging Face's examples. */
static pg_status print_boxes(const pg_processor *processor, const pg_result *result) {
    pg_answer_options options;
    pg_answer *answer = NULL;
    pg_answer_options_init(&options, sizeof options);
    options.width = WIDTH;
    options.height = HEIGHT;
    options.convention = PG_BOX_1023;
    pg_status status = pg_answer_create(processor, result, 0, &options, &answer);
    for (int64_t i = 0; i < pg_answer_get_n_objects(answer); i++) {
        pg_object o;
        o.struct_size = sizeof o;
        pg_answer_get_object(answer, i, &o);
        if (o.flags & PG_OBJECT_BROKEN) continue; /* three numbers, say: docs/ANSWERS.md has all that can be wrong */
        printf("x %.0f to %.0f, y %.0f to %.0f: %s\n", (double)o.box[0], (double)o.box[2], (double)o.box[1],
               (double)o.box[3], o.label);
    }
    pg_answer_close(&answer);
    return status;
}

int main(int argc, char **argv) {
    pg_model *model = NULL;
    pg_processor *processor = NULL;
    pg_inputs *inputs = NULL;
    pg_result *result = NULL;
    pg_image image;
    int usage = argc != 4 || fread(frame, 1, sizeof frame, stdin) != sizeof frame;
    int up = !usage && strcmp(argv[3], "up") == 0;
    const uint8_t *top = up ? frame + (HEIGHT - 1) * STRIDE : frame; /* the row that is on top in the image */
    int failed =
        usage ||
        pg_image_from_pixels(&image, sizeof image, PG_IMAGE_BGR8, WIDTH, HEIGHT, top, up ? -STRIDE : STRIDE) < 0 ||
        pg_model_open(argv[1], NULL, &model) < 0 || pg_processor_open(argv[1], NULL, &processor) < 0 ||
        pg_processor_encode(processor, &image, argv[2], NULL, &inputs) < 0 || /* `frame` is free again */
        pg_generate(model, processor, inputs, NULL, &result) < 0 || print_boxes(processor, result) < 0;
    if (failed)
        fprintf(stderr, "camera_frame: %s\n",
                usage ? "usage: camera_frame MODEL PROMPT up|down < FRAME" : pg_last_error());
    pg_result_close(&result);
    pg_inputs_close(&inputs);
    pg_processor_close(&processor);
    pg_model_close(&model);
    return failed;
}
