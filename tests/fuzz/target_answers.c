/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Answers: four bytes of settings, then the text, which is also made ids of; or ids of two bytes (bit 6). With bit 7
 * the masks of small images too. */
#include "fuzz.h"
#include "mask_files.h"

enum { MAX_IDS = 256, MOST_PIXELS = 1 << 15 };

/* text_size: at the most. That of ids may hold a byte 0, so that nobody knows its size: its objects are read. */
static void look(const pg_answer *answer, size_t text_size) {
    pg_object object = {.struct_size = sizeof object};
    const int64_t n = pg_answer_get_n_objects(answer);
    const char *text = pg_answer_get_text(answer);
    if (text == NULL) abort();
    for (int64_t i = -1; i <= n; i++) {
        const pg_status status = pg_answer_get_object(answer, i, &object);
        fuzz_ok("pg_answer_get_object", status);
        if ((status >= 0) != (i >= 0 && i < n)) abort();
        if (status < 0) continue;
        if (strlen(object.label) > object.label_size || object.text_begin < 0 || object.text_size < 0) abort();
        if ((size_t)(object.text_begin + object.text_size) > text_size) abort();
        for (int64_t k = 0; k <= object.text_size; k++) (void)*(const volatile char *)(text + object.text_begin + k);
        if (object.duplicate_of >= n || object.n_locs > 4 || object.n_segs > 16) abort();
    }
}

static pg_mask_decoder *decoder;

static void close_decoder(void) { pg_mask_decoder_close(&decoder); }

static void open_decoder(void) {
    char folder[512];
    make_temp_folder(folder, sizeof folder);
    bytes file = make_safetensors(LAYOUT_SOUND);
    write_file(folder, "vae-oid.safetensors", file.data, file.size);
    if (pg_mask_decoder_open(folder, NULL, &decoder) < 0) abort();
    remove_folder(folder);
    bytes_free(&file);
    atexit(close_decoder);
}

/* The mask of the first object, and its run lengths, which have to cover the image. */
static void look_at_mask(const pg_answer *answer, const pg_answer_options *options) {
    const size_t size = (size_t)options->width * (size_t)options->height;
    size_t n = 0, needed = 0;
    if (size > MOST_PIXELS) return;
    if (!decoder) open_decoder();
    uint8_t *mask = calloc(1, size);
    uint32_t *counts = calloc(size + 1, sizeof *counts);
    char *rle = malloc(8 * size + 8);
    if (!mask || !counts || !rle) abort();
    if (OK(pg_answer_get_mask(answer, 0, decoder, mask, size))) {
        uint64_t sum = 0;
        if (!OK(pg_mask_get_counts(mask, options->width, options->height, counts, size + 1, &n))) abort();
        for (size_t i = 0; i < n; i++) sum += counts[i];
        if (sum != size) abort();
        if (!OK(pg_mask_get_rle(mask, options->width, options->height, rle, 8 * size + 8, &needed))) abort();
        if (strlen(rle) + 1 != needed) abort();
    }
    free(mask);
    free(counts);
    free(rle);
}

static void use_ids(const pg_processor *processor, fuzz_input *in, const pg_answer_options *options) {
    int64_t ids[MAX_IDS];
    size_t n = 0;
    pg_answer *answer = NULL;
    while (in->size && n < MAX_IDS) ids[n++] = (int16_t)fuzz_take(in, 2);
    if (MADE(pg_answer_create_from_ids(processor, ids, NULL, n, options, &answer), answer)) look(answer, SIZE_MAX);
    pg_answer_close(&answer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fuzz_input in = {data, size};
    pg_answer_options options;
    pg_answer *answer = NULL;
    pg_answer_options_init(&options, sizeof options);
    options.allocator = fuzz_allocator();
    const uint64_t how = fuzz_take(&in, 1);
    options.flags = how & 1;
    options.convention = how >> 1 & 1;
    options.max_iou = how & 4 ? 0.5f : 0.0f;
    options.width = (int32_t)fuzz_take(&in, 1) * 64;
    options.height = (int32_t)fuzz_take(&in, 2);
    const pg_window window = {.struct_size = sizeof window,
                              .x = -7.5,
                              .y = options.height / 3.0,
                              .width = 1.5 * options.width,
                              .height = options.height - 20.0};
    if (options.height % 3 == 2) options.window = &window;
    const pg_processor *processor = fuzz_processor(how & 8 ? FUZZ_TODAY : FUZZ_OFFICIAL);
    if (how & 64) {
        use_ids(processor, &in, &options);
        return fuzz_end();
    }
    char *text = fuzz_text(in.data, in.size);
    uint8_t *exact = fuzz_bytes(in.data, in.size);
    if (MADE(pg_answer_create_from_text((const char *)exact, in.size, &options, &answer), answer)) {
        look(answer, in.size);
        if (how & 128) look_at_mask(answer, &options);
    }
    pg_answer_close(&answer);
    int64_t ids[MAX_IDS];
    float log_probs[MAX_IDS];
    size_t n = 0;
    if (OK(pg_processor_tokenize(processor, text, 0, ids, MAX_IDS, &n)) && n <= MAX_IDS) {
        for (size_t i = 0; i < n; i++) log_probs[i] = -(float)(i % 7);
        if (how & 16 && n) ids[n / 2] = (int64_t)how * 5;
        if (MADE(pg_answer_create_from_ids(processor, ids, how & 32 ? log_probs : NULL, n, &options, &answer), answer))
            look(answer, SIZE_MAX);
    }
    pg_answer_close(&answer);
    free(text);
    free(exact);
    return fuzz_end();
}
