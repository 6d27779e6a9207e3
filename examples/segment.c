/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The masks of things in an image, as COCO writes them: segment MODEL IMAGE "segment cat" */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include <paligemma/paligemma.h>

/* Height and width of the image of `inputs`. */
static pg_status get_size(const pg_inputs *inputs, pg_answer_options *options) {
    pg_tensor sizes;
    pg_status status = pg_tensor_init(&sizes, sizeof sizes);
    if (status >= 0) status = pg_inputs_get_tensor(inputs, "image_sizes", &sizes);
    if (status < 0) return status;
    options->height = (int32_t)((const int64_t *)sizes.data)[0];
    options->width = (int32_t)((const int64_t *)sizes.data)[1];
    return PG_OK;
}

/* "LABEL: PIXELS pixels of WIDTH x HEIGHT, RUNS runs" of an object. mask: as many bytes as the image has pixels. */
static pg_status print_mask(const pg_answer *answer, int64_t index, const pg_mask_decoder *decoder,
                            const pg_answer_options *image, uint8_t *mask) {
    const size_t size = (size_t)image->width * (size_t)image->height;
    size_t n_pixels = 0, n_runs = 0;
    pg_object object;
    object.struct_size = sizeof object;
    pg_status status = pg_answer_get_object(answer, index, &object);
    if (status >= 0) status = pg_answer_get_mask(answer, index, decoder, mask, size);
    if (status >= 0) status = pg_mask_get_counts(mask, image->width, image->height, NULL, 0, &n_runs);
    if (status == PG_ERROR_NOT_FOUND) /* it has a box at most: pg_last_error() says what is missing */
        return printf("%s: no mask\n", object.label) < 0 ? PG_ERROR_IO : PG_OK;
    if (status < 0) return status;
    for (size_t i = 0; i < size; i++) n_pixels += mask[i] >= 128; /* the rest of the value says how sure */
    printf("%s: %zu pixels of %" PRId32 " x %" PRId32 ", %zu runs\n", object.label, n_pixels, image->width,
           image->height, n_runs);
    return PG_OK;
}

static pg_status print_masks(const pg_answer *answer, const pg_mask_decoder *decoder, const pg_answer_options *image) {
    uint8_t *mask = (uint8_t *)malloc((size_t)image->width * (size_t)image->height);
    pg_status status = mask ? PG_OK : PG_ERROR_MEMORY;
    for (int64_t i = 0; status >= 0 && i < pg_answer_get_n_objects(answer); i++)
        status = print_mask(answer, i, decoder, image, mask);
    free(mask);
    return status;
}

int main(int argc, char **argv) {
    pg_model *model = NULL;
    pg_processor *processor = NULL;
    pg_mask_decoder *decoder = NULL;
    pg_inputs *inputs = NULL;
    pg_result *result = NULL;
    pg_answer *answer = NULL;
    pg_image image;
    pg_answer_options options;
    pg_answer_options_init(&options, sizeof options);
    options.convention = PG_BOX_1023; /* boxes and masks as the training code has them */
    int failed =
        argc != 4 || pg_model_open(argv[1], NULL, &model) < 0 || pg_processor_open(argv[1], NULL, &processor) < 0 ||
        pg_mask_decoder_open(argv[1], NULL, &decoder) < 0 || /* vae-oid.npz or .safetensors in the folder */
        pg_image_from_path(&image, sizeof image, argv[2]) < 0 ||
        pg_processor_encode(processor, &image, argv[3], NULL, &inputs) < 0 ||
        pg_generate(model, processor, inputs, NULL, &result) < 0 || get_size(inputs, &options) < 0 ||
        pg_answer_create(processor, result, 0, &options, &answer) < 0 || print_masks(answer, decoder, &options) < 0;
    if (failed) fprintf(stderr, "segment: %s\n", argc == 4 ? pg_last_error() : "usage: segment MODEL IMAGE PROMPT");
    pg_answer_close(&answer);
    pg_result_close(&result);
    pg_inputs_close(&inputs);
    pg_mask_decoder_close(&decoder);
    pg_processor_close(&processor);
    pg_model_close(&model);
    return failed;
}
