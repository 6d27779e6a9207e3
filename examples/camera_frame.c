/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Finds objects in a camera's frame: camera_frame MODEL PROMPT up|down < FRAME
 * FRAME: 480 rows of 640 pixels, bytes B G R, each row filled up to 2048 bytes; "up": the bottom row comes first. */
#include <stdio.h>
#include <string.h>

#include <paligemma/paligemma.h>

enum { WIDTH = 640, HEIGHT = 480, STRIDE = 2048 };
static uint8_t frame[HEIGHT * STRIDE];

/* A box is <locNNNN> four times, y0 x0 y1 x1, in units of 1/1023 of the frame, and then a name; " ; " parts two boxes.
 * The model saw the frame squeezed to a square: x counts along the width, y along the height, whatever their ratio. */
static void print_boxes(const char *text) {
    int y0, x0, y1, x1;
    for (; (text = strstr(text, "<loc")) != NULL; text++) {
        int n = 0; /* stays 0 where the fourth number has no ">" */
        if (sscanf(text, "<loc%4d><loc%4d><loc%4d><loc%4d> %n", &y0, &x0, &y1, &x1, &n) < 4 || n == 0) continue;
        printf("x %.0f to %.0f, y %.0f to %.0f: %.*s\n", x0 * WIDTH / 1023.0, x1 * WIDTH / 1023.0, y0 * HEIGHT / 1023.0,
               y1 * HEIGHT / 1023.0, (int)strcspn(text + n, ";"), text + n);
    }
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
        pg_generate(model, processor, inputs, NULL, &result) < 0;
    if (failed)
        fprintf(stderr, "camera_frame: %s\n",
                usage ? "usage: camera_frame MODEL PROMPT up|down < FRAME" : pg_last_error());
    else
        print_boxes(pg_result_get_text(result, 0));
    pg_result_close(&result);
    pg_inputs_close(&inputs);
    pg_processor_close(&processor);
    pg_model_close(&model);
    return failed;
}
