/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The part of the fuzz targets that fuzz.h describes: folders, checks, and what is done with a folder that opens. */
#include "fuzz.h"

#include <stdio.h>

enum { REFUSED_BYTES = 64 << 20, MAX_PIXELS = 1 << 20 };

/* The second of each is never damaged: models and processors are opened from it. */
static char folders[2 * FUZZ_N_FOLDERS][512];
static pg_model *models[FUZZ_N_FOLDERS];
static pg_processor *processors[FUZZ_N_FOLDERS];
static pg_inputs *inputs[FUZZ_N_FOLDERS];
static counter memory;
_Thread_local pg_status fuzz_status;

static void die(const char *call, const char *what) {
    say("\n%s: %s (%s)\n", call, what, pg_last_error());
    abort();
}

static void close_all(void) {
    for (int i = 0; i < FUZZ_N_FOLDERS; i++) {
        pg_inputs_close(&inputs[i]);
        pg_processor_close(&processors[i]);
        pg_model_close(&models[i]);
    }
    for (int i = 0; i < 2 * FUZZ_N_FOLDERS; i++)
        if (folders[i][0]) remove_folder(folders[i]);
}

static const char *folder_at(fuzz_folder_kind kind, int sound);

static void make_folder(fuzz_folder_kind kind, char *folder, size_t size) {
    static int registered;
    if (!registered) atexit(close_all);
    registered = 1;
    make_temp_folder(folder, size);
    if (kind <= FUZZ_COLPALI) {
        tiny_options options = kind == FUZZ_TODAY ? tiny_saved_today() : tiny_official();
        options.n_layers = 1;
        options.colpali = kind == FUZZ_COLPALI ? TINY_COLPALI : TINY_NO_COLPALI;
        tiny_write(folder, &options);
        if (kind != FUZZ_TODAY) remove_file(folder, "tokenizer.json");
        return;
    }
    pg_convert_options options;
    pg_convert_options_init(&options, sizeof options);
    options.weights = kind == FUZZ_INT8 ? PG_WEIGHTS_INT8 : PG_WEIGHTS_INT4;
    options.n_threads = 1;
    options.max_file_bytes = kind == FUZZ_INT4 ? 30000 : 0;
    options.int8_layers = kind == FUZZ_MIX ? PG_INT8_LAYERS_MIX : NULL;
    if (pg_model_convert(folder_at(kind == FUZZ_INT4 ? FUZZ_TODAY : FUZZ_OFFICIAL, 1), folder, &options) < 0)
        die("pg_model_convert", "failed on a sound folder");
}

static const char *folder_at(fuzz_folder_kind kind, int sound) {
    char *folder = folders[2 * kind + sound];
    if (!folder[0]) make_folder(kind, folder, sizeof folders[0]);
    return folder;
}

const char *fuzz_folder(fuzz_folder_kind kind) { return folder_at(kind, 0); }

const pg_model *fuzz_model(fuzz_folder_kind kind) {
    if (!models[kind] && pg_model_open(folder_at(kind, 1), NULL, &models[kind]) < 0) die("pg_model_open", "failed");
    return models[kind];
}

const pg_processor *fuzz_processor(fuzz_folder_kind kind) {
    if (!processors[kind] && pg_processor_open(folder_at(kind, 1), NULL, &processors[kind]) < 0)
        die("pg_processor_open", "failed");
    return processors[kind];
}

const pg_inputs *fuzz_inputs(fuzz_folder_kind kind) {
    static const uint8_t grey[16 * 16 * 3];
    pg_image image;
    if (inputs[kind]) return inputs[kind];
    if (pg_image_from_pixels(&image, sizeof image, PG_IMAGE_RGB8, 16, 16, grey, 0) < 0 ||
        pg_processor_encode(fuzz_processor(kind), &image, "the cat", NULL, &inputs[kind]) < 0)
        die("pg_processor_encode", "failed");
    return inputs[kind];
}

const pg_allocator *fuzz_allocator(void) {
    if (!memory.hooks.alloc) {
        counter_init(&memory);
        memory.refuse_above = REFUSED_BYTES;
    }
    return &memory.hooks;
}

int fuzz_end(void) {
    if (memory.hooks.alloc && !counter_clean(&memory)) die("the end", "something was kept, or written outside");
    return 0;
}

int fuzz_ok(const char *call, pg_status status) {
    if (status >= 0) return 1;
    const char *bad = bad_error(status);
    if (bad) die(call, bad);
    if (getenv("FUZZ_SAY")) say("%s: %s\n", call, pg_last_error());
    return 0;
}

int fuzz_made(const char *call, pg_status status, const void *handle) {
    const int ok = fuzz_ok(call, status);
    if (ok != (handle != NULL)) die(call, ok ? "succeeded without a handle" : "failed and left a handle");
    return ok;
}

uint64_t fuzz_take(fuzz_input *in, size_t n_bytes) {
    uint64_t value = 0;
    for (size_t i = 0; i < n_bytes && in->size; i++, in->size--) value |= (uint64_t)*in->data++ << 8 * i;
    return value;
}

uint8_t *fuzz_bytes(const void *data, size_t size) {
    uint8_t *copy = malloc(size ? size : 1);
    if (!copy) abort();
    if (size) memcpy(copy, data, size);
    return copy;
}

char *fuzz_text(const void *data, size_t size) {
    char *text = malloc(size + 1);
    if (!text) abort();
    if (size) memcpy(text, data, size);
    text[size] = 0;
    return text;
}

int32_t fuzz_progress(void *user, int32_t phase, int64_t done, int64_t total) {
    int32_t *left = user;
    if (phase < PG_PHASE_LOAD || phase > PG_PHASE_VERIFY || done < 0 || done > total) die("progress", "is no progress");
    return (*left)-- <= 0;
}

static void generate(const pg_model *model, const pg_processor *processor) {
    static const uint8_t grey[16 * 16 * 3];
    pg_generate_options options;
    pg_image image;
    pg_inputs *made = NULL;
    pg_result *result = NULL;
    int32_t left = 100;
    pg_generate_options_init(&options, sizeof options);
    options.max_new_tokens = 2;
    options.n_threads = 1;
    options.progress = fuzz_progress;
    options.progress_user = &left;
    pg_image_from_pixels(&image, sizeof image, PG_IMAGE_RGB8, 16, 16, grey, 0);
    if (MADE(pg_processor_encode(processor, &image, "the cat", NULL, &made), made))
        MADE(pg_generate(model, processor, made, &options, &result), result);
    pg_result_close(&result);
    pg_inputs_close(&made);
}

void fuzz_open_model(const char *folder, uint32_t flags) {
    pg_model_options options;
    pg_model *model = NULL;
    pg_memory need = {.struct_size = sizeof need};
    pg_model_info info = {.struct_size = sizeof info};
    char text[256];
    size_t needed;
    pg_model_options_init(&options, sizeof options);
    options.allocator = fuzz_allocator();
    options.n_threads = 1;
    options.flags = flags;
    if (MADE(pg_model_open(folder, &options, &model), model)) {
        OK(pg_model_get_info(model, &info));
        OK(pg_model_get_memory(model, &need));
        OK(pg_model_get_config(model, "", text, sizeof text, &needed));
        generate(model, fuzz_processor(FUZZ_OFFICIAL));
    }
    pg_model_close(&model);
}

static void use_tokenizer(const pg_processor *processor) {
    static const char text[] = "the cat in a caf\xC3\xA9 <loc0001> \xF0\x9F\x90\xB1 <eos>\n\n 12<image>";
    int64_t ids[256];
    size_t n = 0, needed;
    char out[512];
    const char *piece;
    pg_detokenizer *detokenizer = NULL;
    if (!OK(pg_processor_tokenize(processor, text, 0, ids, 256, &n))) return;
    OK(pg_processor_decode(processor, ids, n < 256 ? n : 256, 0, out, sizeof out, &needed));
    if (MADE(pg_detokenizer_create(processor, PG_DECODE_SKIP_SPECIAL, &detokenizer), detokenizer)) {
        for (size_t i = 0; i < n && i < 256; i++) OK(pg_detokenizer_push(detokenizer, ids[i], &piece, NULL));
        OK(pg_detokenizer_flush(detokenizer, &piece, NULL));
    }
    pg_detokenizer_close(&detokenizer);
}

void fuzz_open_processor(const char *folder, uint32_t flags) {
    pg_processor_options options;
    pg_processor *processor = NULL;
    pg_processor_info info = {.struct_size = sizeof info};
    pg_processor_options_init(&options, sizeof options);
    options.allocator = fuzz_allocator();
    options.flags = flags;
    if (MADE(pg_processor_open(folder, &options, &processor), processor)) {
        OK(pg_processor_get_info(processor, &info));
        use_tokenizer(processor);
        generate(fuzz_model(FUZZ_OFFICIAL), processor);
    }
    pg_processor_close(&processor);
}

void fuzz_encode_image(const pg_image *image, uint32_t flags) {
    static pg_processor *processor;
    static long long live;
    pg_encode_options options;
    pg_inputs *made = NULL;
    if (!processor) { /* with the allocator, which the image's memory comes from then */
        pg_processor_options opening;
        pg_processor_options_init(&opening, sizeof opening);
        opening.allocator = fuzz_allocator();
        opening.flags = PG_PROCESSOR_IMAGES_ONLY;
        if (!MADE(pg_processor_open(folder_at(FUZZ_OFFICIAL, 1), &opening, &processor), processor))
            die("pg_processor_open", "failed");
        live = memory.n_live;
    }
    pg_batch batch;
    pg_batch_init(&batch, sizeof batch);
    pg_encode_options_init(&options, sizeof options);
    batch.images = image;
    batch.n_images = 1;
    options.max_image_pixels = MAX_PIXELS;
    options.flags = flags;
    MADE(pg_processor_encode_batch(processor, &batch, &options, &made), made);
    pg_inputs_close(&made);
    if (memory.n_live != live || memory.n_bad) die("pg_processor_encode_batch", "something was kept");
}
