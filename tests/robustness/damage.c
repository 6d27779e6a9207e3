/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Damages each kind of file of a checkpoint, and images, in a few hundred seeded ways and runs the whole way from
 * open to generated text on them. Whatever the file holds, the library must return: with success, or with an error
 * status and one line of UTF-8 that names the file; it must print nothing, release everything it allocated, ask for no
 * absurd amount of memory, and not take for ever. One case in sixteen puts something else in the file's place: nothing
 * in it, a folder, a link that leads nowhere or to itself, a pipe, a device, a file of 3 GB of zeros.
 *
 *     damage                          all kinds, 300 cases each: more than 10,000
 *     damage --cases N                N cases each; the test suite has 60
 *     damage --kind KIND --seed N     one case again, as a failure report names it; says what came of it
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "mask_files.h"
#include "mutate.h"
#include "sanitized.h"
#include "support.h"
#include "tiny.h"

enum { CASE_SECONDS = 5 /* of the processor */, ALARM_SECONDS = 100, MAX_PIXELS = 1 << 22 };
#define MAX_ALLOCATION (INT64_C(256) << 20) /* the folders have 100 kB of weights */
#define MAX_PEAK (INT64_C(512) << 20)       /* of the process */

/* Which checkpoint; INT8, INT4 and MIX are converted from the first two. MASKS: files of a mask decoder alone. */
typedef enum target { OFFICIAL, TODAY, INT8, INT4, MIX, COLPALI, MLX, MASKS, N_TARGETS } target;
typedef enum style { BYTES, JSON, SAFETENSORS_HEADER, REPAIRED_HEADER, ZIP, REPAIRED_ZIP, IMAGE, EXIF } style;

#define FEATURES "image.features" /* of the folder's model */

typedef struct kind {
    const char *name;
    target target;
    const char *file;
    style style;
    int image;      /* IMAGE_* */
    int min_errors; /* of 100 cases: less means that the damage does not reach the reader */
} kind;

static const kind kinds[] = {
    {"config", OFFICIAL, "config.json", JSON, 0, 20},
    {"config-gemma2", TODAY, "config.json", JSON, 0, 20},
    {"config-bytes", TODAY, "config.json", BYTES, 0, 20},
    {"generation-config", OFFICIAL, "generation_config.json", JSON, 0, 10},
    {"index", TODAY, "model.safetensors.index.json", JSON, 0, 20},
    {"shard-header", TODAY, "model-00002-of-00003.safetensors", SAFETENSORS_HEADER, 0, 20},
    {"shard-bytes", TODAY, "model-00001-of-00003.safetensors", BYTES, 0, 20},
    {"weights-header", OFFICIAL, "model.safetensors", SAFETENSORS_HEADER, 0, 20},
    {"weights-bytes", OFFICIAL, "model.safetensors", BYTES, 0, 20},
    {"int8-header", INT8, "model.safetensors", SAFETENSORS_HEADER, 0, 100},
    {"int8-bytes", INT8, "model.safetensors", BYTES, 0, 20},
    {"int4-header", INT4, "model-00002-of-00003.safetensors", SAFETENSORS_HEADER, 0, 100},
    {"int4-bytes", INT4, "model-00001-of-00003.safetensors", BYTES, 0, 20},
    {"mix-header", MIX, "model.safetensors", SAFETENSORS_HEADER, 0, 100},
    {"mix-bytes", MIX, "model.safetensors", BYTES, 0, 20},
    {"int4-index", INT4, "model.safetensors.index.json", JSON, 0, 20},
    {"tokenizer-model", OFFICIAL, "tokenizer.model", BYTES, 0, 10},
    {"tokenizer-json", TODAY, "tokenizer.json", JSON, 0, 10},
    {"tokenizer-json-bytes", TODAY, "tokenizer.json", BYTES, 0, 10},
    {"tokenizer-config", OFFICIAL, "tokenizer_config.json", JSON, 0, 0},
    {"tokenizer-config-new", TODAY, "tokenizer_config.json", JSON, 0, 0},
    {"added-tokens", OFFICIAL, "added_tokens.json", JSON, 0, 0},
    {"special-tokens-map", OFFICIAL, "special_tokens_map.json", JSON, 0, 0},
    {"preprocessor-config", OFFICIAL, "preprocessor_config.json", JSON, 0, 10},
    {"processor-config", TODAY, "processor_config.json", JSON, 0, 10},
    {"png", OFFICIAL, "image", IMAGE, IMAGE_PNG, 20},
    {"png-palette", OFFICIAL, "image", IMAGE, IMAGE_PNG_PALETTE, 20},
    {"jpeg", OFFICIAL, "image", IMAGE, IMAGE_JPEG, 5},
    {"jpeg-progressive", OFFICIAL, "image", IMAGE, IMAGE_JPEG_PROGRESSIVE, 5},
    {"exif-jpeg", OFFICIAL, "image", EXIF, IMAGE_JPEG, 0},
    {"exif-png", OFFICIAL, "image", EXIF, IMAGE_PNG, 0},
    {"int8-header-repaired", INT8, "model.safetensors", REPAIRED_HEADER, 0, 90},
    {"int4-header-repaired", INT4, "model-00002-of-00003.safetensors", REPAIRED_HEADER, 0, 90},
    {"mix-header-repaired", MIX, "model.safetensors", REPAIRED_HEADER, 0, 90},
    {"int8-config", INT8, "config.json", JSON, 0, 20},
    {"int4-config", INT4, "config.json", JSON, 0, 20},
    {"colpali-config", COLPALI, "config.json", JSON, 0, 20},
    {"colpali-header", COLPALI, "model-00003-of-00003.safetensors", SAFETENSORS_HEADER, 0, 20},
    {"mlx-header", MLX, "model.safetensors", SAFETENSORS_HEADER, 0, 20},
    {"mlx-config", MLX, "config.json", JSON, 0, 20},
    {"features-bytes", OFFICIAL, FEATURES, BYTES, 0, 100},
    {"features-header", INT8, FEATURES, SAFETENSORS_HEADER, 0, 100},
    {"features-repaired", OFFICIAL, FEATURES, REPAIRED_HEADER, 0, 60},
    {"masks-npz", MASKS, "stored.npz", ZIP, 0, 60},
    {"masks-npz-repaired", MASKS, "stored.npz", REPAIRED_ZIP, 0, 50},
    {"masks-npz-deflated", MASKS, "deflated.npz", ZIP, 0, 60},
    {"masks-header", MASKS, "vae-oid.safetensors", SAFETENSORS_HEADER, 0, 60},
};
enum { N_KINDS = sizeof kinds / sizeof *kinds };

static char folders[N_TARGETS][512];
static counter memory;
static const kind *now_kind;
static uint64_t now_seed;
static int verbose, n_failures, n_errors; /* n_errors: of this case */
static struct {
    int64_t n, n_refused;
    double slowest; /* seconds of the processor */
    const char *slowest_kind;
    uint64_t slowest_seed;
} all;

static void tell_where(void) {
    say("\nthe process ends in this case: damage --kind %s --seed %llu\n", now_kind->name,
        (unsigned long long)now_seed);
}

static void failure(const char *what, const char *detail) {
    n_failures++;
    say("FAIL --kind %s --seed %llu: %s %s\n", now_kind->name, (unsigned long long)now_seed, what, detail);
}

/* Looks at what a call returned; 1 when it succeeded. `path`: what the message must name, or NULL. */
static int returned(const char *call, pg_status status, const char *path) {
    if (verbose) say("  %s: %s %s\n", call, pg_status_name(status), status < 0 ? pg_last_error() : "");
    if (status >= 0) return 1;
    const char *bad = bad_error(status);
    n_errors++;
    if (bad) failure(call, bad);
    if (error_is_stale()) failure(call, "failed without a message of its own");
    if (path && status != PG_ERROR_MEMORY && !strstr(pg_last_error(), path)) {
        failure(call, "names no file:");
        say("    %s\n", pg_last_error());
    }
    return 0;
}

/* The same of a call that makes a handle. */
static int made(const char *call, pg_status status, const void *handle, const char *path) {
    if (returned(call, status, path)) {
        if (!handle) failure(call, "succeeded without a handle");
        return handle != NULL;
    }
    if (handle) failure(call, "failed and left a handle");
    return 0;
}

/* The handle is looked at after the call. */
#define MADE(name, call, handle, path) (last_status = (call), made(name, last_status, handle, path))
static pg_status last_status;

static void use_processor(const pg_processor *processor) {
    static const char text[] = "the cat in a caf\xC3\xA9 <loc0001> \xF0\x9F\x90\xB1 <eos>\n\n 12";
    int64_t ids[256];
    size_t n = 0, needed = 0;
    char out[1024];
    pg_detokenizer *detokenizer = NULL;
    uint32_t flags;
    returned("flags", pg_processor_get_token_flags(processor, (int64_t)(now_seed % 300), &flags), NULL);
    if (!returned("tokenize", pg_processor_tokenize(processor, text, 0, ids, 256, &n), NULL)) return;
    returned("decode", pg_processor_decode(processor, ids, n < 256 ? n : 256, 0, out, sizeof out, &needed), NULL);
    if (MADE("detokenizer", pg_detokenizer_create(processor, PG_DECODE_SKIP_SPECIAL, &detokenizer), detokenizer,
             NULL)) {
        const char *piece;
        for (size_t i = 0; i < n && i < 256; i++)
            if (!returned("push", pg_detokenizer_push(detokenizer, ids[i], &piece, NULL), NULL)) break;
        returned("flush", pg_detokenizer_flush(detokenizer, &piece, NULL), NULL);
    }
    pg_detokenizer_close(&detokenizer);
}

static void use_model(const pg_model *model) {
    pg_memory need = {.struct_size = sizeof need};
    char text[64];
    size_t needed;
    returned("memory", pg_model_get_memory(model, &need), NULL);
    returned("config", pg_model_get_config(model, "", text, sizeof text, &needed), NULL);
}

/* A folder without a projection says so. */
static void embed(const pg_model *model, const pg_inputs *inputs) {
    pg_forward_options options;
    pg_outputs *outputs = NULL;
    pg_tensor embeddings = {.struct_size = sizeof embeddings};
    pg_forward_options_init(&options, sizeof options);
    options.flags = PG_FORWARD_RETRIEVAL;
    options.n_threads = 1;
    if (MADE("forward", pg_forward(model, inputs, &options, &outputs), outputs, NULL))
        returned("embeddings", pg_outputs_get_tensor(outputs, "embeddings", &embeddings), NULL);
    pg_outputs_close(&outputs);
}

/* The whole way, on a folder with one damaged file. */
static void run_folder(const char *folder) {
    static const uint8_t grey[16 * 16 * 3];
    pg_model *model = NULL;
    pg_processor *processor = NULL;
    pg_inputs *inputs = NULL;
    pg_result *result = NULL;
    pg_image image;
    pg_model_options model_options;
    pg_processor_options processor_options;
    pg_generate_options options;
    pg_model_options_init(&model_options, sizeof model_options);
    pg_processor_options_init(&processor_options, sizeof processor_options);
    pg_generate_options_init(&options, sizeof options);
    model_options.allocator = processor_options.allocator = &memory.hooks;
    options.max_new_tokens = 2;
    options.n_threads = 1;
    pg_image_from_pixels(&image, sizeof image, PG_IMAGE_RGB8, 16, 16, grey, 0);

    stale_error();
    if (MADE("model_open", pg_model_open(folder, &model_options, &model), model, folder)) use_model(model);
    processor_options.flags = now_seed % 3 == 0   ? PG_PROCESSOR_TEXT_ONLY
                              : now_seed % 8 == 1 ? PG_PROCESSOR_IMAGES_ONLY
                                                  : 0;
    stale_error();
    if (MADE("processor_open", pg_processor_open(folder, &processor_options, &processor), processor, folder)) {
        use_processor(processor);
        stale_error();
        if (MADE("encode", pg_processor_encode(processor, &image, "the cat", NULL, &inputs), inputs, NULL) && model) {
            stale_error();
            MADE("generate", pg_generate(model, processor, inputs, &options, &result), result, NULL);
            stale_error();
            if (now_kind->target == COLPALI || now_kind->target == MLX) embed(model, inputs);
        }
    }
    pg_result_close(&result);
    pg_model_close(&model);
    pg_processor_close(&processor);
    pg_inputs_close(&inputs);
}

static int is_features(const kind *k) { return strcmp(k->file, FEATURES) == 0; }

/* Damaged features, by path or as bytes: what loads serves a prompt. */
static void run_features(const char *folder, const bytes *file, int by_path) {
    pg_model *model = NULL;
    pg_processor *processor = NULL;
    pg_inputs *inputs = NULL;
    pg_features *features = NULL;
    pg_result *result = NULL;
    pg_model_options model_options;
    pg_generate_options options;
    char path[600];
    pg_model_options_init(&model_options, sizeof model_options);
    pg_generate_options_init(&options, sizeof options);
    model_options.allocator = &memory.hooks;
    options.max_new_tokens = 2;
    options.n_threads = 1;
    snprintf(path, sizeof path, "%s/" FEATURES, folder);
    if (!MADE("model_open", pg_model_open(folder, &model_options, &model), model, folder)) return;
    stale_error();
    const int loaded =
        by_path ? MADE("features_load", pg_features_load(model, path, &features), features, path)
                : MADE("from_bytes", pg_features_from_bytes(model, file->data, file->size, &features), features, NULL);
    if (loaded && MADE("processor_open", pg_processor_open(folder, NULL, &processor), processor, folder) &&
        MADE("encode", pg_processor_encode(processor, NULL, "the cat", NULL, &inputs), inputs, NULL)) {
        options.features = features;
        stale_error();
        MADE("generate", pg_generate(model, processor, inputs, &options, &result), result, NULL);
    }
    pg_result_close(&result);
    pg_inputs_close(&inputs);
    pg_processor_close(&processor);
    pg_features_close(&features);
    pg_model_close(&model);
}

/* The features of an image, beside the folder's model. */
static int write_features(const char *folder) {
    bytes file = tiny_image(IMAGE_PNG, 24, 17, 5);
    pg_model *model = NULL;
    pg_processor *processor = NULL;
    pg_inputs *inputs = NULL;
    pg_features *features = NULL;
    pg_image image;
    char path[4096 + sizeof FEATURES];
    snprintf(path, sizeof path, "%s/" FEATURES, folder);
    const int made = pg_image_from_bytes(&image, sizeof image, file.data, file.size) >= 0 &&
                     pg_model_open(folder, NULL, &model) >= 0 && pg_processor_open(folder, NULL, &processor) >= 0 &&
                     pg_processor_encode(processor, &image, "x", NULL, &inputs) >= 0 &&
                     pg_features_create(model, inputs, NULL, &features) >= 0 && pg_features_save(features, path) >= 0;
    pg_features_close(&features);
    pg_inputs_close(&inputs);
    pg_processor_close(&processor);
    pg_model_close(&model);
    bytes_free(&file);
    return made;
}

/* A damaged mask decoder: what opens decodes, into the box of an answer. */
static void run_masks(const char *folder, const char *name) {
    static const char text[] =
        "<loc0256><loc0512><loc0768><loc1023><seg000><seg127><seg003><seg004><seg005><seg060><seg007><seg008><seg009>"
        "<seg010><seg110><seg012><seg013><seg014><seg015><seg064> cat";
    pg_mask_decoder *decoder = NULL;
    pg_answer *answer = NULL;
    pg_mask_decoder_options options;
    pg_answer_options answer_options;
    uint8_t mask[20 * 10];
    char path[600];
    pg_mask_decoder_options_init(&options, sizeof options);
    pg_answer_options_init(&answer_options, sizeof answer_options);
    options.allocator = answer_options.allocator = &memory.hooks;
    answer_options.width = 20;
    answer_options.height = 10;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    stale_error();
    if (MADE("mask_decoder_open", pg_mask_decoder_open(path, &options, &decoder), decoder, path) &&
        MADE("answer", pg_answer_create_from_text(text, sizeof text - 1, &answer_options, &answer), answer, NULL))
        returned("get_mask", pg_answer_get_mask(answer, 0, decoder, mask, sizeof mask), NULL);
    pg_answer_close(&answer);
    pg_mask_decoder_close(&decoder);
}

static void write_masks(const char *folder) {
    bytes files[] = {make_npz(&(npz_options)NPZ_PLAIN),
                     make_npz(&(npz_options){.cut_shape = -1, .drop = -1, .deflated = 1}),
                     make_safetensors(LAYOUT_SOUND)};
    static const char *const names[] = {"stored.npz", "deflated.npz", "vae-oid.safetensors"};
    for (int i = 0; i < 3; i++) {
        write_file(folder, names[i], files[i].data, files[i].size);
        bytes_free(&files[i]);
    }
}

/* A damaged image, by path or as bytes. */
static void run_image(const char *folder, const bytes *file, int by_path) {
    static pg_processor *processor; /* opened once; outside the counted memory */
    pg_processor_options processor_options;
    pg_encode_options options;
    pg_inputs *inputs = NULL;
    pg_image image;
    char path[600];
    if (file == NULL) {
        pg_processor_close(&processor);
        return;
    }
    pg_processor_options_init(&processor_options, sizeof processor_options);
    processor_options.allocator = &memory.hooks;
    if (!processor &&
        !MADE("processor_open", pg_processor_open(folder, &processor_options, &processor), processor, NULL))
        return;
    pg_encode_options_init(&options, sizeof options);
    options.max_image_pixels = MAX_PIXELS;
    options.flags = (now_seed % 3 == 0 || now_kind->style == EXIF ? PG_ENCODE_EXIF : 0) |
                    (now_seed % 5 < 2 ? PG_ENCODE_OVER_WHITE : 0);
    snprintf(path, sizeof path, "%s/image", folder);
    if (by_path)
        pg_image_from_path(&image, sizeof image, path);
    else
        pg_image_from_bytes(&image, sizeof image, file->data, file->size);
    stale_error();
    MADE("encode", pg_processor_encode(processor, &image, "x", &options, &inputs), inputs, by_path ? path : NULL);
    pg_inputs_close(&inputs);
}

/* Damages the JSON header of a safetensors file; its length is mostly made right again. */
static void mutate_header(rng *r, bytes *file) {
    uint64_t size = 0;
    bytes header = {0}, out = {0};
    memcpy(&size, file->data, 8);
    bytes_add(&header, file->data + 8, size);
    mutate_json(r, &header);
    uint64_t said = rng_below(r, 8) ? header.size : size;
    bytes_add(&out, &said, 8);
    bytes_add(&out, header.data, header.size);
    bytes_add(&out, file->data + 8 + size, file->size - 8 - size);
    bytes_free(file);
    bytes_free(&header);
    *file = out;
}

/* What the damage is: the bytes between the longest beginning and the longest end that stayed. */
static void show_difference(const bytes *before, const bytes *after) {
    enum { MOST = 200 };
    size_t least = before->size < after->size ? before->size : after->size, begin = 0, end = 0;
    while (begin < least && before->data[begin] == after->data[begin]) begin++;
    while (end < least - begin && before->data[before->size - 1 - end] == after->data[after->size - 1 - end]) end++;
    size_t from = begin > 40 ? begin - 40 : 0;
    const bytes *both[] = {before, after};
    for (int i = 0; i < 2; i++) {
        size_t to = both[i]->size - end + 40, n;
        if (to > both[i]->size) to = both[i]->size;
        n = to - from < MOST ? to - from : MOST;
        char text[MOST + 1];
        for (size_t j = 0; j < n; j++) {
            uint8_t c = both[i]->data[from + j];
            text[j] = c >= 32 && c < 127 ? (char)c : '?';
        }
        text[n] = 0;
        say("  %s at byte %zu, %zu bytes: %s\n", i ? "after " : "before", begin, both[i]->size - end - begin, text);
    }
}

/* Damages the EXIF alone, which lies behind the first bytes of the file; its length is made right again. */
static void mutate_exif(rng *r, const kind *k, bytes *file) {
    const size_t head = k->image == IMAGE_JPEG ? 2 : 33; /* before its segment or chunk */
    const size_t begin = head + (k->image == IMAGE_JPEG ? 4 : 8);
    const size_t size = k->image == IMAGE_JPEG ? (size_t)(file->data[head + 2] << 8 | file->data[head + 3]) - 2
                                               : (size_t)(file->data[head + 2] << 8 | file->data[head + 3]);
    bytes part = {0}, out = {0};
    bytes_add(&part, file->data + begin, size);
    mutate_bytes(r, &part);
    if (part.size > 60000) part.size = 60000;
    bytes_add(&out, file->data, begin);
    const size_t said = part.size + (k->image == IMAGE_JPEG ? 2 : 0);
    out.data[head + 2] = (uint8_t)(said >> 8);
    out.data[head + 3] = (uint8_t)said;
    bytes_add(&out, part.data, part.size);
    bytes_add(&out, file->data + begin + size, file->size - begin - size);
    bytes_free(file);
    bytes_free(&part);
    *file = out;
    if (k->image == IMAGE_PNG) repair_png(file);
}

/* An image with EXIF: a text, an orientation, a ratio, a directory behind the first. */
static bytes image_with_exif(int image) {
    static const char exif[] =
        "Exif\0\0II*\0\x08\0\0\0\4\0\x0F\1\2\0\x0C\0\0\0\x3E\0\0\0\x12\1\3\0\1\0\0\0\6\0\0\0"
        "\x1A\1\5\0\1\0\0\0\x3E\0\0\0\x69\x87\4\0\1\0\0\0\x4A\0\0\0\0\0\0\0a camera 12\0\1\0"
        "\x12\1\3\0\1\0\0\0\x08\0\0\0\0\0\0\0";
    bytes plain = tiny_image(image, 24, 17, 5), out = {0};
    const size_t size = sizeof exif - 1, skipped = image == IMAGE_PNG ? 6 : 0, n = size - skipped;
    const size_t head = image == IMAGE_PNG ? 33 : 2;
    const uint8_t segment[] = {0xFF, 0xE1, (uint8_t)((n + 2) >> 8), (uint8_t)(n + 2)};
    const uint8_t chunk[] = {0, 0, (uint8_t)(n >> 8), (uint8_t)n, 'e', 'X', 'I', 'f'};
    bytes_add(&out, plain.data, head);
    bytes_add(&out, image == IMAGE_PNG ? chunk : segment, image == IMAGE_PNG ? sizeof chunk : sizeof segment);
    bytes_add(&out, exif + skipped, n);
    if (image == IMAGE_PNG) bytes_add(&out, "\0\0\0\0", 4);
    bytes_add(&out, plain.data + head, plain.size - head);
    if (image == IMAGE_PNG) repair_png(&out);
    bytes_free(&plain);
    return out;
}

static void damage_bytes(rng *r, const kind *k, bytes *file) {
    switch (k->style) {
        case JSON: mutate_json(r, file); break;
        case SAFETENSORS_HEADER: mutate_header(r, file); break;
        case REPAIRED_HEADER: /* one who means harm knows the checksum too */
            mutate_header(r, file);
            repair_converted(file);
            break;
        case ZIP: mutate_zip(r, file); break;
        case REPAIRED_ZIP:
            mutate_zip(r, file);
            repair_zip(file);
            break;
        case EXIF: mutate_exif(r, k, file); break;
        default: mutate_bytes(r, file); break;
    }
}

/* What may stand where a file should. A pipe that should be an image is waited for, so there is none. */
static const char *const states[] = {"nothing in it", "a folder", "a link to nowhere", "a link to itself", "a device",
                                     "3 GB of zeros", "a pipe"};
enum { N_STATES = sizeof states / sizeof *states };

static void put_state(const char *path, int state) {
    unlink(path);
    int failed = 0;
    FILE *file;
    switch (state) {
        case 1: failed = mkdir(path, 0755) != 0; break;
        case 2: failed = symlink("../no-such-folder/file", path) != 0; break;
        case 3: failed = symlink(strrchr(path, '/') + 1, path) != 0; break;
        case 4: failed = symlink("/dev/zero", path) != 0; break;
        case 6: failed = mkfifo(path, 0644) != 0; break;
        default:
            file = fopen(path, "wb");
            failed = !file || (state == 5 && ftruncate(fileno(file), (off_t)3 << 30) != 0) || fclose(file) != 0;
    }
    if (!failed) return;
    say("%s cannot be made %s\n", path, states[state]);
    n_failures++;
}

static double process_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int64_t process_peak(void) {
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) == 0 ? (int64_t)usage.ru_maxrss * 1024 : 0;
}

static void run_call(const kind *k, const char *folder, const bytes *file, int by_path) {
    if (k->style == IMAGE || k->style == EXIF)
        run_image(folder, file, by_path);
    else if (k->target == MASKS)
        run_masks(folder, k->file);
    else if (is_features(k))
        run_features(folder, file, by_path);
    else
        run_folder(folder);
}

/* What has to hold whatever came back. */
static void check_case(const kind *k, int64_t live_before, int64_t bad_before, double took) {
    char detail[128];
    if (memory.largest > MAX_ALLOCATION) {
        snprintf(detail, sizeof detail, "%lld bytes at once", (long long)memory.largest);
        failure("asked for", detail);
    }
    const int keeps = k->style == IMAGE || k->style == EXIF; /* its processor */
    if ((!keeps && memory.n_live != live_before) || memory.n_bad != bad_before) {
        snprintf(detail, sizeof detail, "%lld blocks", (long long)(memory.n_live - live_before));
        failure("kept", detail);
    }
    if (capture_size() > 0) {
        capture_end();
        capture_begin();
        failure("wrote to", "stdout or stderr");
    }
    if (took > CASE_SECONDS) failure("took", "too long");
    if (took > all.slowest) all.slowest = took, all.slowest_kind = k->name, all.slowest_seed = now_seed;
}

/* Returns whether an error came back. */
static int run_case(const kind *k, uint64_t seed, const bytes *pristine) {
    rng r = {seed * UINT64_C(0x9E3779B9) + (uint64_t)(k - kinds)};
    const char *folder = folders[k->target];
    char path[600];
    bytes file = {0};
    const int64_t live_before = memory.n_live, bad_before = memory.n_bad;
    now_kind = k;
    now_seed = seed;
    rng_next(&r);
    const int other = rng_below(&r, 16) == 0;
    const int state = other ? (int)rng_below(&r, N_STATES - (k->style == IMAGE || k->style == EXIF)) : 0;
    bytes_add(&file, pristine->data, pristine->size);
    do damage_bytes(&r, k, &file); /* some damage undoes itself, or writes what was there */
    while (file.size == pristine->size && memcmp(file.data, pristine->data, file.size) == 0);
    if (k->style == IMAGE && k->image <= IMAGE_PNG_PALETTE && rng_below(&r, 2)) repair_png(&file);
    snprintf(path, sizeof path, "%s/%s", folder, k->file);
    write_file(folder, k->file, file.data, file.size);
    if (other) put_state(path, state);
    if (verbose && other) say("  %s is %s\n", k->file, states[state]);
    if (verbose && !other) show_difference(pristine, &file);

    atomic_store(&memory.largest, 0);
    alarm(ALARM_SECONDS);
    n_errors = 0;
    const double begin = process_seconds();
    run_call(k, folder, &file, other || now_seed % 2);
    alarm(0);
    check_case(k, live_before, bad_before, process_seconds() - begin);
    if (other && unlink(path) != 0) rmdir(path);
    bytes_free(&file);
    all.n++;
    all.n_refused += n_errors > 0;
    return n_errors > 0;
}

static void run_kind(const kind *k, uint64_t first, uint64_t n) {
    const char *folder = folders[k->target];
    bytes pristine = k->style == IMAGE  ? tiny_image(k->image, 24, 17, 5)
                     : k->style == EXIF ? image_with_exif(k->image)
                                        : read_file(folder, k->file);
    int before = n_failures, n_refused = 0;
    double start = now_seconds();
    for (uint64_t seed = first; seed < first + n; seed++) n_refused += run_case(k, seed, &pristine);
    if (k->style == IMAGE || k->style == EXIF) run_image(NULL, NULL, 0);
    write_file(folder, k->file, pristine.data, pristine.size);
    bytes_free(&pristine);
    if (n >= 50 && (uint64_t)n_refused * 100 < n * (uint64_t)k->min_errors)
        failure("too few errors:", "the damage is not seen");
    say("%-22s %4llu cases from seed %llu, %4d refused, %d failures, %.1f s\n", k->name, (unsigned long long)n,
        (unsigned long long)first, n_refused, n_failures - before, now_seconds() - start);
}

int main(int argc, char **argv) {
    uint64_t n = 300, first = 1;
    const char *only = NULL;
    for (int i = 1; i + 1 < argc; i += 2) {
        if (!strcmp(argv[i], "--cases"))
            n = strtoull(argv[i + 1], NULL, 10);
        else if (!strcmp(argv[i], "--kind"))
            only = argv[i + 1];
        else if (!strcmp(argv[i], "--seed"))
            first = strtoull(argv[i + 1], NULL, 10), n = 1, verbose = 1;
        else
            argc = 0;
    }
    if (argc % 2 == 0 || n == 0) {
        fprintf(stderr, "usage: damage [--cases N] [--kind KIND] [--seed N]\n");
        return 2;
    }
    counter_init(&memory);
    memory.refuse_above = MAX_ALLOCATION;
    tiny_options options[N_TARGETS] = {tiny_official(),
                                       tiny_saved_today(), [COLPALI] = tiny_saved_today(), [MLX] = tiny_official()};
    options[COLPALI].colpali = TINY_COLPALI;
    options[MLX].mlx = 1;
    options[MLX].colpali = TINY_COLPALI_ENGINE;
    for (int i = 0; i < N_TARGETS; i++) {
        if (options[i].n_layers == 0) continue;
        make_temp_folder(folders[i], sizeof folders[i]);
        tiny_write(folders[i], &options[i]);
    }
    for (int i = INT8; i <= MIX; i++) {
        pg_convert_options convert;
        pg_convert_options_init(&convert, sizeof convert);
        convert.weights = i == INT8 ? PG_WEIGHTS_INT8 : PG_WEIGHTS_INT4;
        convert.max_file_bytes = i == INT4 ? 36000 : 0; /* three files */
        convert.int8_layers = i == MIX ? PG_INT8_LAYERS_MIX : NULL;
        make_temp_folder(folders[i], sizeof folders[i]);
        const char *file = i == INT4 ? "model-00002-of-00003.safetensors" : "model.safetensors";
        if (pg_model_convert(folders[i == INT4 ? TODAY : OFFICIAL], folders[i], &convert) < 0 ||
            !has_file(folders[i], file)) {
            say("converting failed: %s\n", pg_last_error());
            return 1;
        }
    }
    make_temp_folder(folders[MASKS], sizeof folders[MASKS]);
    write_masks(folders[MASKS]);
    for (int i = OFFICIAL; i <= INT8; i += INT8 - OFFICIAL)
        if (!write_features(folders[i])) {
            say("features failed: %s\n", pg_last_error());
            return 1;
        }
    remove_file(folders[OFFICIAL], "tokenizer.json"); /* so that tokenizer.model is what is read */
    capture_begin();
    on_death(tell_where);
    int found = 0;
    for (int i = 0; i < N_KINDS; i++)
        if (!only || !strcmp(only, kinds[i].name)) {
            run_kind(&kinds[i], first, n);
            found = 1;
        }
    capture_end();
    if (!counter_clean(&memory)) n_failures++;
#ifndef SANITIZED
    if (process_peak() > MAX_PEAK) {
        say("peak of the process: %lld bytes, expected at most %lld\n", (long long)process_peak(), (long long)MAX_PEAK);
        n_failures++;
    }
#endif
    for (int i = 0; i < N_TARGETS; i++) remove_folder(folders[i]);
    if (!found) say("no such kind: %s\n", only);
    say("%lld cases, %lld refused, %.1f s of the processor, the slowest %.2f s (--kind %s --seed %llu), peak of the "
        "process %lld MB\n%d failures\n",
        (long long)all.n, (long long)all.n_refused, process_seconds(), all.slowest, all.slowest_kind,
        (unsigned long long)all.slowest_seed, (long long)process_peak() / 1000000, n_failures);
    return n_failures || !found;
}
