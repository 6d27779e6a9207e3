/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Prompts and suffixes: six bytes of settings, then texts that end at byte 0xFF. The first is the prompt, the second
 * its suffix, and so on. Both tokenizers. */
#include "fuzz.h"

enum { MAX_ROWS = 4 };

static void use_ids(const pg_processor *processor, const char *text, uint32_t flags) {
    int64_t ids[128];
    size_t n = 0, needed = 0;
    if (!OK(pg_processor_tokenize(processor, text, flags, ids, 128, &n)) || n > 128) return;
    char out[600];
    if (OK(pg_processor_decode(processor, ids, n, PG_DECODE_SKIP_SPECIAL, out, sizeof out, &needed)) &&
        needed <= sizeof out && strlen(out) + 1 != needed)
        abort();
}

static void look(const pg_inputs *inputs) {
    static const char *const names[] = {"input_ids", "attention_mask", "token_type_ids", "labels", "pixel_values"};
    pg_tensor tensor = {.struct_size = sizeof tensor};
    pg_row_info info = {.struct_size = sizeof info};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) OK(pg_inputs_get_tensor(inputs, names[i], &tensor));
    for (int64_t row = 0; row <= MAX_ROWS; row++) OK(pg_inputs_get_row_info(inputs, row, &info));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const uint8_t grey[4 * 4 * 3];
    fuzz_input in = {data, size};
    pg_batch batch;
    pg_encode_options options;
    pg_image image[MAX_ROWS];
    pg_inputs *inputs = NULL;
    char *texts[2 * MAX_ROWS] = {0};
    const char *prompts[MAX_ROWS], *suffixes[MAX_ROWS];
    uint64_t prompt_sizes[MAX_ROWS], suffix_sizes[MAX_ROWS];
    pg_batch_init(&batch, sizeof batch);
    pg_encode_options_init(&options, sizeof options);
    const uint64_t how = fuzz_take(&in, 1);
    options.flags = (uint32_t)fuzz_take(&in, 1) & 63;
    const uint64_t choices = fuzz_take(&in, 2);
    options.mode = choices & 1;
    options.padding = choices >> 1 & 3;
    options.padding_side = choices >> 3 & 3;
    options.truncation = choices >> 5 & 3;
    options.truncation_side = choices >> 7 & 3;
    options.pad_to_multiple_of = choices >> 9 & 15;
    options.max_length = (int64_t)fuzz_take(&in, 2);
    const pg_processor *processor = fuzz_processor(how & 1 ? FUZZ_TODAY : FUZZ_OFFICIAL);
    int n = 0;
    for (const uint8_t *end; n < 2 * MAX_ROWS && (in.size || n < 2); n++) {
        end = in.size ? memchr(in.data, 0xFF, in.size) : NULL;
        const size_t length = end ? (size_t)(end - in.data) : in.size;
        texts[n] = fuzz_text(in.data, length);
        (n % 2 ? suffixes : prompts)[n / 2] = texts[n];
        (n % 2 ? suffix_sizes : prompt_sizes)[n / 2] = length;
        in.data += length + (end != NULL);
        in.size -= length + (end != NULL);
    }
    batch.n_prompts = n / 2;
    batch.prompts = prompts;
    if (how & 2) batch.n_suffixes = n / 2, batch.suffixes = suffixes;
    if (how & 4) batch.prompt_sizes = prompt_sizes;
    if ((how & 6) == 6) batch.suffix_sizes = suffix_sizes;
    if (how & 8) batch.n_images = n / 2, batch.images = image;
    for (int i = 0; i < n / 2; i++) OK(pg_image_from_pixels(&image[i], sizeof image[i], PG_IMAGE_RGB8, 4, 4, grey, 0));
    if (MADE(pg_processor_encode_batch(processor, &batch, &options, &inputs), inputs)) look(inputs);
    pg_inputs_close(&inputs);
    if (MADE(pg_processor_encode(processor, NULL, texts[0], &options, &inputs), inputs)) look(inputs);
    pg_inputs_close(&inputs);
    use_ids(processor, texts[0], (uint32_t)(how >> 4 & 1));
    for (int i = 0; i < n; i++) free(texts[i]);
    return 0;
}
