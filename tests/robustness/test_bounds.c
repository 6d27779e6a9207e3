/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Time and memory are bounded by the input: each way in gets an input of size n and one of 4n, honest ones and those
 * that a stranger would make, and takes at most 6 times the processor's time, the process's memory and the allocator's.
 * Each call runs in a process of its own, as libjpeg and libpng have memory that the allocator does not see.
 */
#include "run_tests.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h> /* and with it __GLIBC__ */
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

#include "bounds_inputs.h"
#include "sanitized.h"
#include "support.h"
#include "tiny.h"

#define MOST 6 /* times as much for 4 times the input */
#define FREE_SECONDS 0.004
#define FREE_BYTES ((int64_t)3 << 20) /* pages and free lists of the C library */
#define COUNT(array) (sizeof(array) / sizeof *(array))

typedef enum way {
    IMAGE,
    PIXELS,
    ROW_OF_PIXELS,
    FRAME,
    WIDE_OF_BIG_VISION,
    PROMPT,
    LITERAL,
    BY_SENTENCEPIECE,
    BIG_VISION,
    SUFFIX,
    TRUNCATED,
    ROWS,
    PADDED_ROWS,
    PADDED_SUFFIXES,
    IMAGES_OF_A_ROW,
    DECODE,
    DETOKENIZE,
    PROCESSOR,
    MODEL,
    CONVERTED_MODEL,
    CONVERT,
    /* generating two tokens: with the lists of generation_config.json, or with one as an option */
    GENERATE,
    STOP_STRINGS,
    STOP_STRING,
    STOP_STRING_OF_BEAMS,
    BAD_WORDS,
    BAD_WORD,
    SUPPRESSED,
    BIASES,
    EOS_IDS,
    EOS_IDS_AND_BAD_WORDS,
    SCORE,
    TRAIN_ROWS, /* a step of a training: of rows, of a row's tokens, of a rank */
    TRAIN_TOKENS,
    TRAIN_RANK,
    FEATURES,
    ANSWER,
    ANSWER_IDS,
    ANSWER_BYTES,
    DUPLICATES, /* by max_iou: 0.5, 0.1, 0.001 */
    DUPLICATES_01,
    DUPLICATES_0001,
    COUNTS,
    RUN_LENGTHS,
    MASKS
} way;

typedef struct shape {
    const char *name;
    way way;
    int64_t n;                                     /* and 4n */
    bytes (*make)(int64_t n);                      /* what is handed in; NULL: nothing */
    void (*folder)(const char *folder, int64_t n); /* what becomes of the checkpoint; NULL: nothing */
    int today;                                     /* the checkpoint: 0 as the official ones, 1 as saved today */
    pg_status wanted;                              /* by both */
} shape;

typedef struct cost {
    double seconds;         /* the least of some runs, of the process */
    int64_t bytes, counted; /* the peak of the process's memory, and of the allocator's, above what was there before */
    int64_t status;
    char message[200];
} cost;

/* --- Calls */

static char folder[256];

static pg_status no_text(const shape *s, const bytes *input, const pg_processor *processor, pg_inputs **inputs) {
    pg_image image;
    pg_encode_options options;
    pg_encode_options_init(&options, sizeof options);
    options.flags = PG_ENCODE_EXIF;
    const int32_t n = (int32_t)input->size, side = (int32_t)sqrt(n / 1.5) / 2 * 2;
    if (s->way == WIDE_OF_BIG_VISION) options.mode = PG_MODE_BIG_VISION;
    if (s->way == PIXELS)
        pg_image_from_pixels(&image, sizeof image, PG_IMAGE_GRAY8, 5000, n / 5000, input->data, 0);
    else if (s->way == FRAME)
        pg_image_from_pixels(&image, sizeof image, PG_IMAGE_NV12, side, side, input->data, 0);
    else if (s->way == ROW_OF_PIXELS || s->way == WIDE_OF_BIG_VISION)
        pg_image_from_pixels(&image, sizeof image, PG_IMAGE_GRAY8, n, 1, input->data, 0);
    else
        pg_image_from_bytes(&image, sizeof image, input->data, input->size);
    return pg_processor_encode(processor, &image, "x", &options, inputs);
}

static pg_status batch(const shape *s, const bytes *input, const pg_processor *processor, pg_inputs **inputs) {
    pg_batch rows;
    pg_encode_options options;
    const int padded = s->way == PADDED_ROWS || s->way == PADDED_SUFFIXES;
    const int32_t n = s->way == ROWS ? (int32_t)input->size : padded ? 100 : 1;
    const char **texts = calloc((size_t)n, sizeof *texts);
    uint64_t *sizes = calloc((size_t)n * 2, sizeof *sizes); /* those of suffixes are 0 */
    if (!texts || !sizes) abort();
    pg_encode_options_init(&options, sizeof options);
    options.max_tokens = 1 << 24;
    if (s->way == LITERAL) options.flags = PG_ENCODE_LITERAL;
    if (s->way == TRUNCATED) {
        options.flags = PG_ENCODE_TRUNCATE;
        options.max_length = 100;
    }
    if (s->way == BIG_VISION) options.mode = PG_MODE_BIG_VISION;
    for (int32_t i = 0; i < n; i++) {
        texts[i] = (const char *)input->data;
        sizes[i] = s->way == ROWS || (padded && i > 0) ? 1 : input->size;
    }
    pg_batch_init(&rows, sizeof rows);
    rows.n_prompts = n;
    rows.prompts = texts;
    rows.prompt_sizes = sizes;
    if (s->way == SUFFIX || s->way == TRUNCATED) {
        static const char *const question[] = {"x"};
        rows.prompts = question;
        rows.prompt_sizes = NULL;
        rows.n_suffixes = 1;
        rows.suffixes = texts;
        rows.suffix_sizes = sizes;
    }
    if (s->way == PADDED_SUFFIXES) {
        rows.n_suffixes = n;
        rows.suffixes = texts;
        rows.suffix_sizes = sizes + n;
    }
    const pg_status status = pg_processor_encode_batch(processor, &rows, &options, inputs);
    free(texts);
    free(sizes);
    return status;
}

/* One row with many images, or many rows with one of a few bytes each. */
static pg_status images_of_a_row(const bytes *input, const pg_processor *processor, pg_inputs **inputs) {
    static const uint8_t pixel[3] = {1, 2, 3};
    static const char *const text[] = {"x"};
    const int32_t n = (int32_t)input->size;
    pg_batch rows;
    pg_encode_options options;
    pg_image *list = calloc((size_t)n, sizeof *list);
    if (!list) abort();
    for (int32_t i = 0; i < n; i++) pg_image_from_pixels(&list[i], sizeof *list, PG_IMAGE_RGB8, 1, 1, pixel, 0);
    pg_encode_options_init(&options, sizeof options);
    options.max_tokens = 1 << 24;
    pg_batch_init(&rows, sizeof rows);
    rows.n_prompts = rows.n_image_counts = 1;
    rows.prompts = text;
    rows.n_images = n;
    rows.images = list;
    rows.image_counts = &n;
    const pg_status status = pg_processor_encode_batch(processor, &rows, &options, inputs);
    free(list);
    return status;
}

static pg_status decode(const shape *s, const bytes *input, const pg_processor *processor) {
    const size_t n = input->size;
    int64_t *ids = malloc(n * sizeof *ids);
    uint64_t size = 0;
    pg_detokenizer *detokenizer = NULL;
    const char *piece;
    if (!ids) abort();
    for (size_t i = 0; i < n; i++) ids[i] = 200 + (int64_t)(i % 100);
    char *text = malloc(16 * n + 1);
    if (!text) abort();
    pg_status status = PG_OK;
    if (s->way == DECODE) {
        status = pg_processor_decode(processor, ids, n, 0, text, 16 * n + 1, &size);
    } else {
        status = pg_detokenizer_create(processor, 0, &detokenizer);
        for (size_t i = 0; i < n && status >= 0; i++) status = pg_detokenizer_push(detokenizer, ids[i], &piece, NULL);
        pg_detokenizer_close(&detokenizer);
    }
    free(ids);
    free(text);
    return status;
}

/* A prompt of the model's image. */
static pg_status ask(const pg_processor *processor, pg_inputs **inputs) {
    static const uint8_t pixel[3] = {1, 2, 3};
    pg_image image;
    pg_image_from_pixels(&image, sizeof image, PG_IMAGE_RGB8, 1, 1, pixel, 0);
    return pg_processor_encode(processor, &image, "a cat in a hat", NULL, inputs);
}

/* The lists that a host gives. */
static pg_status generate(const shape *s, const bytes *input, const pg_processor *processor, const pg_model *model) {
    pg_inputs *inputs = NULL;
    pg_result *result = NULL;
    pg_generate_options options;
    pg_sampling_options sampling;
    pg_beam_options beams;
    const int64_t n = (int64_t)input->size;
    int64_t *ids = malloc((size_t)(n + 1) * sizeof *ids), *sizes = malloc((size_t)(n + 1) * sizeof *sizes);
    double *biases = malloc((size_t)(n + 1) * sizeof *biases);
    const char **strings = malloc((size_t)(n + 1) * sizeof *strings);
    if (!ids || !sizes || !biases || !strings) abort();
    for (int64_t i = 0; i < n; i++) ids[i] = 250, sizes[i] = 1, biases[i] = 0.5, strings[i] = "qqzz";
    strings[n] = (const char *)input->data;
    sizes[n] = n;
    pg_generate_options_init(&options, sizeof options);
    pg_sampling_options_init(&sampling, sizeof sampling);
    pg_beam_options_init(&beams, sizeof beams);
    options.max_new_tokens = 2;
    options.n_threads = 1;
    if (s->way != GENERATE) options.sampling = &sampling;
    if (s->way == STOP_STRINGS) options.stop_strings = strings, options.n_stop_strings = (int32_t)n;
    if (s->way == STOP_STRING || s->way == STOP_STRING_OF_BEAMS)
        options.stop_strings = strings + n, options.n_stop_strings = 1;
    if (s->way == STOP_STRING_OF_BEAMS) options.beams = &beams, beams.n_beams = 64;
    if (s->way == SUPPRESSED) sampling.suppressed_ids = ids, sampling.n_suppressed_ids = n;
    if (s->way == EOS_IDS || s->way == EOS_IDS_AND_BAD_WORDS) {
        for (int64_t i = n / 2; i < n; i++) ids[i] = 251;
        sampling.eos_ids = ids;
        sampling.n_eos_ids = s->way == EOS_IDS ? n : n / 2;
        sampling.min_new_tokens = 2;
    }
    if (s->way == BAD_WORDS || s->way == BAD_WORD) {
        sampling.bad_word_ids = ids;
        sampling.bad_word_sizes = s->way == BAD_WORD ? sizes + n : sizes;
        sampling.n_bad_words = s->way == BAD_WORD ? 1 : n;
    }
    if (s->way == EOS_IDS_AND_BAD_WORDS) {
        sampling.bad_word_ids = ids + n / 2;
        sampling.bad_word_sizes = sizes;
        sampling.n_bad_words = n - n / 2;
    }
    if (s->way == BIASES) {
        sampling.bias_ids = ids;
        sampling.bias_sizes = sizes;
        sampling.biases = biases;
        sampling.n_biases = n;
    }
    pg_status status = ask(processor, &inputs);
    if (status >= 0) status = pg_generate(model, processor, inputs, &options, &result);
    pg_result_close(&result);
    pg_inputs_close(&inputs);
    free(ids);
    free(sizes);
    free(biases);
    free(strings);
    return status;
}

static pg_status score(const bytes *input, const pg_processor *processor, const pg_model *model) {
    pg_inputs *inputs = NULL;
    pg_scores *scores = NULL;
    pg_score_options options;
    const char **texts = malloc(input->size * sizeof *texts);
    if (!texts) abort();
    for (size_t i = 0; i < input->size; i++) texts[i] = "cat";
    pg_score_options_init(&options, sizeof options);
    options.n_threads = 1;
    pg_status status = ask(processor, &inputs);
    if (status >= 0) status = pg_score(model, processor, inputs, texts, (int64_t)input->size, &options, &scores);
    pg_scores_close(&scores);
    pg_inputs_close(&inputs);
    free(texts);
    return status;
}

static pg_status train(const shape *s, int64_t n, const pg_model *model, const counter *c) {
    const int64_t n_rows = s->way == TRAIN_ROWS ? n : 1, n_tokens = s->way == TRAIN_TOKENS ? n : 24;
    int64_t *ids = malloc((size_t)(n_rows * n_tokens) * sizeof *ids);
    if (!ids) abort();
    for (int64_t i = 0; i < n_rows * n_tokens; i++) ids[i] = 5 + i % 200;
    const pg_tensor tensor = {.struct_size = sizeof tensor,
                              .dtype = PG_DTYPE_I64,
                              .n_dims = 2,
                              .shape = {n_rows, n_tokens, 1, 1},
                              .data = ids};
    pg_input_arrays arrays;
    pg_trainer_options options;
    pg_inputs *inputs = NULL;
    pg_trainer *trainer = NULL;
    pg_input_arrays_init(&arrays, sizeof arrays);
    arrays.input_ids = arrays.labels = &tensor;
    arrays.allocator = &c->hooks;
    pg_trainer_options_init(&options, sizeof options);
    if (s->way == TRAIN_RANK) options.rank = (int32_t)n;
    options.n_threads = 1;
    pg_status status = pg_inputs_create(&arrays, &inputs);
    if (status >= 0) status = pg_trainer_create(model, &options, &trainer);
    if (status >= 0) status = pg_trainer_step(trainer, inputs, NULL);
    pg_trainer_close(&trainer);
    pg_inputs_close(&inputs);
    free(ids);
    return status;
}

/* Each byte by the piece that stands for it. */
static pg_status spelled_answer(const bytes *input, const pg_processor *processor, const pg_answer_options *options,
                                pg_answer **out) {
    int64_t *ids = malloc(input->size * sizeof *ids), of_byte[256];
    float *log_probs = malloc(input->size * sizeof *log_probs);
    pg_status status = PG_OK;
    if (!ids || !log_probs) abort();
    for (unsigned i = 0; i < 256 && status >= 0; i++) {
        char piece[8];
        snprintf(piece, sizeof piece, "<0x%02X>", i);
        status = pg_processor_get_token_id(processor, piece, &of_byte[i]);
    }
    for (size_t i = 0; i < input->size && status >= 0; i++) ids[i] = of_byte[input->data[i]], log_probs[i] = -0.1f;
    if (status >= 0) status = pg_answer_create_from_ids(processor, ids, log_probs, input->size, options, out);
    free(ids);
    free(log_probs);
    return status;
}

static pg_status answer(const shape *s, const bytes *input, const pg_processor *processor, const counter *c) {
    pg_answer *made = NULL;
    pg_answer_options options;
    pg_answer_options_init(&options, sizeof options);
    options.width = options.height = 100;
    options.allocator = &c->hooks;
    if (s->way == DUPLICATES) options.max_iou = 0.5f;
    if (s->way == DUPLICATES_01) options.max_iou = 0.1f;
    if (s->way == DUPLICATES_0001) options.max_iou = 0.001f;
    pg_status status = PG_OK;
    if (s->way == ANSWER_IDS) {
        int64_t *ids = malloc(input->size * sizeof *ids);
        if (!ids) abort();
        for (size_t i = 0; i < input->size; i++) ids[i] = i % 7 < 4 ? 10 + (int64_t)(i % 4) : 280 + (int64_t)(i % 47);
        status = pg_answer_create_from_ids(processor, ids, NULL, input->size, &options, &made);
        free(ids);
    } else if (s->way == ANSWER_BYTES) {
        status = spelled_answer(input, processor, &options, &made);
    } else {
        status = pg_answer_create_from_text((const char *)input->data, input->size, &options, &made);
    }
    pg_answer_close(&made);
    return status;
}

static pg_status run_lengths(const shape *s, const bytes *input) {
    const int32_t height = (int32_t)(input->size / 1000);
    size_t n = 0;
    if (s->way == COUNTS) return pg_mask_get_counts(input->data, 1000, height, NULL, 0, &n);
    return pg_mask_get_rle(input->data, 1000, height, NULL, 0, &n);
}

static void in_folder(char *path, size_t size, const char *name) { snprintf(path, size, "%s/%s", folder, name); }

static pg_status open_file(const shape *s, const pg_model *model, const counter *c) {
    char path[300];
    in_folder(path, sizeof path, "file");
    if (s->way == FEATURES) {
        pg_features *features = NULL;
        const pg_status status = pg_features_load(model, path, &features);
        pg_features_close(&features);
        return status;
    }
    pg_mask_decoder *decoder = NULL;
    pg_mask_decoder_options options;
    pg_mask_decoder_options_init(&options, sizeof options);
    options.allocator = &c->hooks;
    const pg_status status = pg_mask_decoder_open(path, &options, &decoder);
    pg_mask_decoder_close(&decoder);
    return status;
}

static pg_status convert(void) {
    char path[300];
    pg_convert_options options;
    pg_convert_options_init(&options, sizeof options);
    options.weights = PG_WEIGHTS_INT8;
    in_folder(path, sizeof path, CONVERTED);
    remove_folder(path); /* of the run before */
    return pg_model_convert(folder, path, &options);
}

/* The options of both, with the counter's allocator. */
static void opening_with(const counter *c, pg_processor_options *options, pg_model_options *model_options) {
    pg_processor_options_init(options, sizeof *options);
    pg_model_options_init(model_options, sizeof *model_options);
    options->allocator = &c->hooks;
    model_options->allocator = &c->hooks;
}

static pg_status open_folder(const shape *s, const counter *c) {
    char path[300];
    pg_processor *opened = NULL;
    pg_model *model = NULL;
    pg_processor_options options;
    pg_model_options model_options;
    opening_with(c, &options, &model_options);
    in_folder(path, sizeof path, s->way == CONVERTED_MODEL ? CONVERTED : "");
    const pg_status status = s->way == PROCESSOR ? pg_processor_open(folder, &options, &opened)
                                                 : pg_model_open(path, &model_options, &model);
    pg_processor_close(&opened);
    pg_model_close(&model);
    return status;
}

static pg_status call(const shape *s, const bytes *input, const pg_processor *processor, const pg_model *model,
                      const counter *c) {
    pg_inputs *inputs = NULL;
    pg_status status = PG_OK;
    switch (s->way) {
        case PROCESSOR:
        case MODEL:
        case CONVERTED_MODEL: return open_folder(s, c);
        case CONVERT: return convert();
        case DECODE:
        case DETOKENIZE: return decode(s, input, processor);
        case GENERATE:
        case STOP_STRINGS:
        case STOP_STRING:
        case STOP_STRING_OF_BEAMS:
        case BAD_WORDS:
        case BAD_WORD:
        case SUPPRESSED:
        case BIASES:
        case EOS_IDS:
        case EOS_IDS_AND_BAD_WORDS: return generate(s, input, processor, model);
        case SCORE: return score(input, processor, model);
        case TRAIN_ROWS:
        case TRAIN_TOKENS:
        case TRAIN_RANK: return train(s, (int64_t)input->size, model, c);
        case ANSWER:
        case ANSWER_IDS:
        case ANSWER_BYTES:
        case DUPLICATES:
        case DUPLICATES_01:
        case DUPLICATES_0001: return answer(s, input, processor, c);
        case COUNTS:
        case RUN_LENGTHS: return run_lengths(s, input);
        case FEATURES:
        case MASKS: return open_file(s, model, c);
        case IMAGES_OF_A_ROW: status = images_of_a_row(input, processor, &inputs); break;
        case IMAGE:
        case PIXELS:
        case ROW_OF_PIXELS:
        case FRAME:
        case WIDE_OF_BIG_VISION: status = no_text(s, input, processor, &inputs); break;
        default: status = batch(s, input, processor, &inputs);
    }
    pg_inputs_close(&inputs);
    return status;
}

/* What the measured call works on. */
static pg_status prepare(const shape *s, const bytes *input, const counter *c, pg_processor **processor,
                         pg_model **model) {
    char path[300];
    pg_inputs *inputs = NULL;
    pg_features *features = NULL;
    pg_processor_options options;
    pg_model_options model_options;
    opening_with(c, &options, &model_options);
    if (s->way >= PROCESSOR && s->way <= CONVERT) return PG_OK;
    in_folder(path, sizeof path, "file");
#ifdef PGI_SENTENCEPIECE /* else these shapes are merged as the others are */
    if (s->way == BY_SENTENCEPIECE) options.flags = PG_PROCESSOR_SENTENCEPIECE;
#endif
    if (s->way == MASKS) write_file(folder, "file", input->data, input->size);
    pg_status status = pg_processor_open(folder, &options, processor);
    if (status >= 0 && s->way >= GENERATE && s->way <= FEATURES) status = pg_model_open(folder, &model_options, model);
    if (status < 0 || s->way != FEATURES) return status;
    status = images_of_a_row(input, *processor, &inputs);
    if (status >= 0) status = pg_features_create(*model, inputs, NULL, &features);
    if (status >= 0) status = pg_features_save(features, path);
    pg_features_close(&features);
    pg_inputs_close(&inputs);
    return status;
}

/* Peak of the process's memory in bytes. */
static int64_t peak_of_process(void) {
    char line[128];
    long long kilobytes = 0;
    FILE *f = fopen("/proc/self/status", "r");
    while (f && fgets(line, sizeof line, f))
        if (strncmp(line, "VmHWM:", 6) == 0) kilobytes = strtoll(line + 6, NULL, 10);
    if (f) fclose(f);
    return kilobytes * 1024;
}

static void forget_peak(void) {
    FILE *f = fopen("/proc/self/clear_refs", "w");
    if (!f) return;
    fputs("5", f);
    fclose(f);
}

static double process_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void measure_here(const shape *s, int64_t n, cost *out) {
    counter c;
    counter_init(&c);
#ifdef __GLIBC__ /* later runs find their memory touched: what new pages cost is not the library's time */
    mallopt(M_MMAP_MAX, 0);
    mallopt(M_TRIM_THRESHOLD, 1 << 30);
#endif
    bytes input = s->make ? s->make(n) : (bytes){0};
    pg_processor *processor = NULL;
    pg_model *model = NULL;
    if (prepare(s, &input, &c, &processor, &model) < 0) {
        out->status = PG_ERROR_INTERNAL;
        snprintf(out->message, sizeof out->message, "%.190s", pg_last_error());
        return;
    }
#ifdef __GLIBC__
    malloc_trim(0); /* what making the input left behind would be taken again */
#endif
    forget_peak();
    const int64_t before = peak_of_process(), live = c.live_bytes;
    c.peak_bytes = live;
    out->seconds = 1e9;
    for (int run = 0; run < 3; run++) {
        const double begin = process_seconds();
        out->status = call(s, &input, processor, model, &c);
        const double took = process_seconds() - begin;
        if (took < out->seconds) out->seconds = took;
        if (run > 0) continue;
        out->bytes = peak_of_process() - before;
        out->counted = c.peak_bytes - live;
        if (out->status < 0) snprintf(out->message, sizeof out->message, "%.190s", pg_last_error());
    }
}

static cost measure(const shape *s, int64_t n) {
    const tiny_options today = tiny_saved_today(), official = tiny_official();
    int ends[2], status = 0;
    cost result = {0};
    char converted[300];
    make_temp_folder(folder, sizeof folder);
    tiny_write(folder, s->today ? &today : &official);
    if (s->folder) s->folder(folder, n);
    if (pipe(ends) != 0) abort();
    const pid_t child = fork();
    if (child == 0) {
        measure_here(s, n, &result);
        _exit(write(ends[1], &result, sizeof result) != (ssize_t)sizeof result);
    }
    close(ends[1]);
    const ssize_t got = read(ends[0], &result, sizeof result);
    close(ends[0]);
    if (waitpid(child, &status, 0) != child || status != 0 || got != (ssize_t)sizeof result)
        fail_msg("%s: of size %lld ended the process: %x", s->name, (long long)n, (unsigned)status);
    in_folder(converted, sizeof converted, CONVERTED);
    remove_folder(converted);
    remove_folder(folder);
    return result;
}

/* clang-format off */
static const shape shapes[] = {
    {"PNG, black", IMAGE, 2000000, png_black, NULL, 0, PG_OK},
    {"PNG, one row", IMAGE, 100000, png_one_row, NULL, 0, PG_OK},
    {"PNG, one column", IMAGE, 100000, png_one_column, NULL, 0, PG_OK},
    {"PNG, a header that promises", IMAGE, 20000000, png_promise, NULL, 0, PG_ERROR_FORMAT},
    {"PNG, interlaced, likewise", IMAGE, 20000000, png_promise_interlaced, NULL, 0, PG_ERROR_FORMAT},
    {"PNG, texts", IMAGE, 20000, png_texts, NULL, 0, PG_OK},
    {"PNG, unknown chunks", IMAGE, 20000, png_unknown, NULL, 0, PG_OK},
    {"PNG, transparent colours", IMAGE, 20000, png_keys, NULL, 0, PG_OK},
    {"PNG, empty pixel chunks", IMAGE, 20000, png_pixel_chunks, NULL, 0, PG_OK},
    {"PNG, packed text", IMAGE, 900000, png_packed_text, NULL, 0, PG_OK},
    {"PNG, packed texts", IMAGE, 16, png_packed_texts, NULL, 0, PG_OK},
    {"PNG, a chunk beyond the file", IMAGE, 500000000, png_long_chunk, NULL, 0, PG_ERROR_FORMAT},
    {"JPEG, empty scans", IMAGE, 20, jpeg_scans, NULL, 0, PG_OK},
    {"JPEG, more scans than there may be", IMAGE, 101, jpeg_scans, NULL, 0, PG_ERROR_LIMIT},
    {"JPEG, ten arithmetic scans", IMAGE, 500000, jpeg_arithmetic_rows, NULL, 0, PG_OK},
    {"JPEG, arithmetic scans of next to nothing", IMAGE, 8, jpeg_arithmetic_scans, NULL, 0, PG_ERROR_LIMIT},
    {"JPEG, a header that promises", IMAGE, 500000, jpeg_promise, NULL, 0, PG_OK},
    {"JPEG, progressive, likewise", IMAGE, 500000, jpeg_promise_progressive, NULL, 0, PG_OK},
    {"JPEG, too much is promised", IMAGE, 40000000, jpeg_promise_progressive, NULL, 0, PG_ERROR_LIMIT},
    {"JPEG, comments", IMAGE, 20000, jpeg_comments, NULL, 0, PG_OK},
    {"JPEG, EXIF", IMAGE, 20000, jpeg_exif, NULL, 0, PG_OK},
    {"JPEG, profiles", IMAGE, 20000, jpeg_profiles, NULL, 0, PG_OK},
    {"JPEG, tables", IMAGE, 20000, jpeg_tables, NULL, 0, PG_OK},
    {"JPEG, begin and end", IMAGE, 100000, jpeg_empty, NULL, 0, PG_ERROR_FORMAT},
    {"JPEG, fill bytes", IMAGE, 500000, jpeg_fill, NULL, 0, PG_OK},
    {"pixels", PIXELS, 1000000, size_of, NULL, 0, PG_OK},
    {"a row of pixels", ROW_OF_PIXELS, 100000, size_of, NULL, 0, PG_OK},
    {"a frame", FRAME, 1500000, size_of, NULL, 0, PG_OK},
    {"the same for big_vision", WIDE_OF_BIG_VISION, 100000, size_of, NULL, 0, PG_OK},
    {"JPEG, colour", IMAGE, 500000, jpeg_colour, NULL, 0, PG_OK},
    {"JPEG, colour, progressive", IMAGE, 500000, jpeg_colour_progressive, NULL, 0, PG_OK},
    {"JPEG, for print, progressive", IMAGE, 500000, jpeg_print_progressive, NULL, 0, PG_OK},
    {"a JPEG that is turned", IMAGE, 400000, jpeg_turned, NULL, 0, PG_OK},
    {"images of a row", IMAGES_OF_A_ROW, 500, size_of, NULL, 0, PG_OK},

    {"letters", PROMPT, 20000, letters, NULL, 0, PG_OK},
    {"letters, by the list", PROMPT, 20000, letters, NULL, 1, PG_OK},
    {"letters, by sentencepiece", BY_SENTENCEPIECE, 20000, letters, NULL, 0, PG_OK},
    {"spaces, by sentencepiece", BY_SENTENCEPIECE, 20000, spaces, NULL, 0, PG_OK},
    {"nearly a token, by sentencepiece", BY_SENTENCEPIECE, 10000, nearly, NULL, 0, PG_OK},
    {"words", PROMPT, 4000, words, NULL, 0, PG_OK},
    {"spaces", PROMPT, 20000, spaces, NULL, 0, PG_OK},
    {"spaces, today", PROMPT, 20000, spaces, NULL, 1, PG_OK},
    {"tabs", PROMPT, 20000, tabs, NULL, 0, PG_OK},
    {"newlines", PROMPT, 20000, newlines, NULL, 0, PG_OK},
    {"characters without a piece", PROMPT, 20000, snowmen, NULL, 0, PG_OK},
    {"added tokens", PROMPT, 20000, marks, NULL, 0, PG_OK},
    {"nearly an added token", PROMPT, 20000, nearly, NULL, 0, PG_OK},
    {"locations", PROMPT, 20000, places, NULL, 0, PG_OK},
    {"images", PROMPT, 5000, images, NULL, 0, PG_OK},
    {"images, literally", LITERAL, 5000, images, NULL, 0, PG_OK},
    {"words of big_vision", BIG_VISION, 4000, words, NULL, 0, PG_OK},
    {"tabs of big_vision", BIG_VISION, 20000, tabs, NULL, 0, PG_OK},
    {"spaces of big_vision", BIG_VISION, 20000, spaces, NULL, 0, PG_OK},
    {"added tokens of big_vision", BIG_VISION, 20000, marks, NULL, 0, PG_OK},
    {"a suffix that is truncated", TRUNCATED, 5000, words, NULL, 0, PG_OK},
    {"newlines that are truncated", TRUNCATED, 20000, newlines, NULL, 0, PG_OK},
    {"newlines of a suffix", SUFFIX, 20000, newlines, NULL, 0, PG_OK},
    {"a suffix", SUFFIX, 8000, pairs, NULL, 0, PG_OK},
    {"a row that pads the others", PADDED_ROWS, 500, marks, NULL, 0, PG_OK},
    {"the same with suffixes", PADDED_SUFFIXES, 500, marks, NULL, 0, PG_OK},
    {"rows", ROWS, 4000, letters, NULL, 0, PG_OK},
    {"ids", DECODE, 100000, size_of, NULL, 0, PG_OK},
    {"ids, one by one", DETOKENIZE, 100000, size_of, NULL, 0, PG_OK},

    {"a token of letters, beyond the limit", PROCESSOR, 20000, NULL, long_token, 0, PG_ERROR_LIMIT},
    {"many tokens that begin alike", PROMPT, 20000, letters, bushy_tokens, 0, PG_OK},
    {"the longest token", PROMPT, 20000, letters, longest_token, 0, PG_OK},
    {"nearly the longest token", PROMPT, 20000, letters, nearly_longest_token, 0, PG_OK},
    {"a tab that takes spaces along", PROMPT, 20000, tabs, greedy_tab, 0, PG_OK},
    {"the same, wide spaces", PROMPT, 20000, wide_spaces, greedy_tab, 0, PG_OK},
    {"the same, literally", LITERAL, 20000, tabs, greedy_tab, 0, PG_OK},

    {"many added tokens", PROCESSOR, 3000, NULL, many_tokens, 0, PG_OK},
    {"many added tokens, today", PROCESSOR, 3000, NULL, many_tokens, 1, PG_OK},
    {"many names of tokens", PROCESSOR, 3000, NULL, many_names, 1, PG_OK},
    {"many extra tokens", PROCESSOR, 3000, NULL, many_extra_tokens, 1, PG_OK},
    {"wide extra tokens, beyond the limit", PROCESSOR, 700, NULL, wide_extra_tokens, 1, PG_ERROR_LIMIT},
    {"wide extra tokens", PROCESSOR, 35, NULL, wide_extra_tokens, 1, PG_OK},
    {"a long piece", PROCESSOR, 20000, NULL, long_piece, 1, PG_ERROR_LIMIT},
    {"a long piece of tokenizer.model", PROCESSOR, 20000, NULL, model_long_piece, 0, PG_ERROR_LIMIT},
    {"long pieces of tokenizer.model", PROCESSOR, 30, NULL, model_long_pieces, 0, PG_OK},
    {"keys of config.json", MODEL, 10000, NULL, many_keys, 0, PG_OK},
    {"values of config.json", MODEL, 20000, NULL, many_empty_values, 0, PG_OK},
    {"pieces of tokenizer.model", PROCESSOR, 20000, NULL, model_many_pieces, 0, PG_OK},
    {"one merge many times", PROCESSOR, 20000, NULL, many_merges, 1, PG_OK},
    {"merges", PROCESSOR, 10000, NULL, new_merges, 1, PG_OK},
    {"a chat template", PROCESSOR, 20000, NULL, chat_template, 0, PG_OK},
    {"added_tokens.json", PROCESSOR, 3000, NULL, added_tokens_json, 0, PG_OK},
    {"special_tokens_map.json", PROCESSOR, 3000, NULL, map_of_tokens, 0, PG_OK},
    {"preprocessor_config.json", PROCESSOR, 10000, NULL, preprocessor_keys, 0, PG_OK},
    {"a key many times", PROCESSOR, 10000, NULL, same_keys, 0, PG_OK},

    {"digits of a number", MODEL, 200000, NULL, long_number, 0, PG_OK},
    {"zeros of a number", MODEL, 200000, NULL, long_zeros, 0, PG_OK},
    {"digits of an exponent", MODEL, 200000, NULL, long_exponent, 0, PG_OK},
    {"numbers", MODEL, 10000, NULL, many_numbers, 0, PG_OK},
    {"numbers beside the least", MODEL, 5000, NULL, hard_numbers, 0, PG_OK},
    {"a string", MODEL, 200000, NULL, long_string, 0, PG_OK},
    {"escapes", MODEL, 20000, NULL, escapes, 0, PG_OK},
    {"white space", MODEL, 100000, NULL, white_space, 0, PG_OK},
    {"nesting", MODEL, 100000, NULL, deep, 0, PG_ERROR_LIMIT},
    {"keys within keys", MODEL, 100000, NULL, keys_within_keys, 0, PG_OK},

    {"tensors", MODEL, 5000, NULL, many_tensors, 0, PG_OK},
    {"more tensors than there may be", MODEL, 100001, NULL, many_tensors, 0, PG_ERROR_LIMIT},
    {"tensors of alike names", MODEL, 2000, NULL, alike_tensor_names, 0, PG_OK},
    {"a long name of a tensor", MODEL, 200000, NULL, long_tensor_name, 0, PG_ERROR_LIMIT},
    {"long metadata", MODEL, 200000, NULL, long_metadata, 0, PG_OK},
    {"metadata", MODEL, 10000, NULL, many_metadata, 0, PG_OK},
    {"metadata of the index", MODEL, 10000, NULL, many_in_index_metadata, 1, PG_OK},
    {"tensors of the index alone", MODEL, 5000, NULL, many_in_index, 1, PG_ERROR_FORMAT},
    {"shards", MODEL, 100, NULL, many_shards, 1, PG_OK},
    {"shards that are one file", MODEL, 60, NULL, linked_shards, 1, PG_ERROR_LIMIT},
    {"shards of the index alone", MODEL, 1000, NULL, many_missing_shards, 1, PG_ERROR_NOT_FOUND},
    {"more shards than there may be", MODEL, 4097, NULL, many_missing_shards, 1, PG_ERROR_LIMIT},
    {"converting many tensors", CONVERT, 2000, NULL, many_tensors, 0, PG_OK},
    {"files of a folder without weights", MODEL, 500, NULL, many_files, 0, PG_ERROR_NOT_FOUND},
    {"tensors of a converted folder", CONVERTED_MODEL, 5000, NULL, converted_tensors, 0, PG_OK},
    {"a long key of a converted folder", CONVERTED_MODEL, 5000, NULL, converted_long_key, 0, PG_OK},

    {"bad words of the folder", GENERATE, 10000, letters, file_bad_words, 0, PG_OK},
    {"a bad word of the folder", GENERATE, 40000, letters, file_bad_word, 0, PG_OK},
    {"bad words that do not fit", MODEL, 10000, NULL, file_wrong_words, 0, PG_OK},
    {"suppressed ids of the folder", GENERATE, 40000, letters, file_suppressed, 0, PG_OK},
    {"biases of the folder", GENERATE, 5000, letters, file_biases, 0, PG_OK},
    {"stop strings of the folder", GENERATE, 10000, letters, file_stop_strings, 0, PG_OK},
    {"a stop string of the folder", GENERATE, 200000, letters, file_stop_string, 0, PG_OK},
    {"eos ids of the folder", MODEL, 10000, NULL, file_eos, 0, PG_ERROR_LIMIT},
    {"stop strings", STOP_STRINGS, 40000, letters, NULL, 0, PG_OK},
    {"a stop string", STOP_STRING, 200000, letters, NULL, 0, PG_OK},
    {"a stop string of beams", STOP_STRING_OF_BEAMS, 200000, letters, NULL, 0, PG_OK},
    {"bad words", BAD_WORDS, 100000, letters, NULL, 0, PG_OK},
    {"a bad word", BAD_WORD, 100000, letters, NULL, 0, PG_OK},
    {"suppressed ids", SUPPRESSED, 100000, letters, NULL, 0, PG_OK},
    {"biases", BIASES, 100000, letters, NULL, 0, PG_OK},
    {"eos ids", EOS_IDS, 25000, letters, NULL, 0, PG_OK},
    {"eos ids beside bad words", EOS_IDS_AND_BAD_WORDS, 20000, letters, NULL, 0, PG_OK},
    {"answers to score", SCORE, 20, letters, NULL, 0, PG_OK},
    {"rows to learn", TRAIN_ROWS, 40, letters, NULL, 0, PG_OK},
    {"tokens of a row to learn", TRAIN_TOKENS, 300, letters, NULL, 0, PG_OK},
    {"a rank", TRAIN_RANK, 256, letters, NULL, 0, PG_OK},
    {"features", FEATURES, 50, letters, NULL, 0, PG_OK},

    {"objects", ANSWER, 5000, boxes, NULL, 0, PG_OK},
    {"half objects", ANSWER, 5000, half_boxes, NULL, 0, PG_OK},
    {"semicolons", ANSWER, 40000, separators, NULL, 0, PG_OK},
    {"segments", ANSWER, 5000, segments, NULL, 0, PG_OK},
    {"a label", ANSWER, 200000, letters, NULL, 0, PG_OK},
    {"ids of an answer", ANSWER_IDS, 40000, letters, NULL, 0, PG_OK},
    {"an answer spelled in bytes", ANSWER_BYTES, 1000, boxes, NULL, 0, PG_OK},
    {"one object many times", DUPLICATES, 3000, boxes, NULL, 0, PG_OK},
    {"objects that are apart", DUPLICATES, 1500, apart_boxes, NULL, 0, PG_OK},
    {"objects that are apart, 0.001", DUPLICATES_0001, 4000, apart_boxes, NULL, 0, PG_OK},
    {"one object by many names, 0.001", DUPLICATES_0001, 4000, named_boxes, NULL, 0, PG_OK},
    {"one object by many names, 0.1", DUPLICATES_01, 4000, named_boxes, NULL, 0, PG_OK},
    {"small objects, 0.1", DUPLICATES_01, 4000, small_boxes, NULL, 0, PG_OK},
    {"small objects, 0.001", DUPLICATES_0001, 4000, small_boxes, NULL, 0, PG_OK},
    {"large objects on small ones, 0.001", DUPLICATES_0001, 4000, large_boxes, NULL, 0, PG_OK},
    {"counts of a mask", COUNTS, 500, rows_of_mask, NULL, 0, PG_OK},
    {"run lengths of a mask", RUN_LENGTHS, 500, rows_of_mask, NULL, 0, PG_OK},
    {"members of a mask decoder", MASKS, 900, npz_members, NULL, 0, PG_OK},
    {"tensors of a mask decoder", MASKS, 2000, mask_tensors, NULL, 0, PG_OK},
    {"ends of a zip file", MASKS, 200000, ends_of_zip, NULL, 0, PG_ERROR_FORMAT},
};
/* clang-format on */

/* Other programs only make it longer: a pair that fails is measured again. */
static int check(const shape *s) {
    cost one = {0}, four = {0};
    const int loud = getenv("BOUNDS_VERBOSE") != NULL,
              most = s->way == TRAIN_TOKENS ? 4 * MOST : MOST; /* they see each other */
    for (int attempt = 0; attempt < 4; attempt++) {
        one = measure(s, s->n);
        four = measure(s, 4 * s->n);
        if (four.seconds <= most * one.seconds + FREE_SECONDS) break;
    }
    if (loud)
        say("%-40s %8.2f %8.2f ms  %8.2f %8.2f MB  %8.2f %8.2f MB counted  %s\n", s->name, 1e3 * one.seconds,
            1e3 * four.seconds, (double)one.bytes / 1e6, (double)four.bytes / 1e6, (double)one.counted / 1e6,
            (double)four.counted / 1e6, four.message);
    if (one.status != s->wanted || four.status != s->wanted) {
        say("%s: status %d and %d, expected %d: %s\n", s->name, (int)one.status, (int)four.status, s->wanted,
            four.message[0] ? four.message : one.message);
        return 0;
    }
    if (four.seconds > most * one.seconds + FREE_SECONDS) {
        say("%s: %.4f s, four times as much %.4f s\n", s->name, one.seconds, four.seconds);
        return 0;
    }
    if (four.bytes > MOST * one.bytes + FREE_BYTES) {
        say("%s: %lld bytes, four times as much %lld\n", s->name, (long long)one.bytes, (long long)four.bytes);
        return 0;
    }
    if (four.counted > MOST * one.counted + 65536) {
        say("%s: %lld bytes of the allocator, four times as much %lld\n", s->name, (long long)one.counted,
            (long long)four.counted);
        return 0;
    }
    return 1;
}

static void time_and_memory_grow_with_the_input(void **state) {
    (void)state;
    int n_failures = 0;
    for (size_t i = 0; i < COUNT(shapes); i++)
        if (!getenv("BOUNDS_ONLY") || strstr(shapes[i].name, getenv("BOUNDS_ONLY"))) n_failures += !check(&shapes[i]);
    assert_int_equal(n_failures, 0);
}

/* The table of peak memory in EMBEDDING.md. */
static void memory_is_as_documented(void **state) {
#if defined(SANITIZED) || !defined(__GLIBC__)
    skip(); /* another malloc */
#endif
    static const struct {
        const char *name;
        int64_t n;         /* of the shape */
        double units, per; /* pixels, bytes or tokens; bytes for each */
    } peaks[] = {
        {"pixels", 20000000, 1e6, 1},
        {"PNG, black", 8000000, 8e6, 3},
        {"JPEG, a header that promises", 20000000, 2e7, 3},
        {"JPEG, colour", 20000000, 2e7, 3},
        {"JPEG, progressive, likewise", 20000000, 2e7, 5},
        {"JPEG, colour, progressive", 20000000, 2e7, 9},
        {"JPEG, for print, progressive", 20000000, 2e7, 11},
        {"a JPEG that is turned", 20000000, 2e7, 6},
        {"PNG, one row", 1000000, 1e6, 3 + 3 * 8},
        {"PNG, packed texts", 64, 1 << 20, 6.2}, /* MiB, however many there are */
        {"a row of pixels", 1000000, 1e6, 3 + 16},
        {"the same for big_vision", 1000000, 1e6, 3 + 8},
        {"spaces", 100000, 1e5, 180},
        {"letters, by sentencepiece", 100000, 1e5, 270},
        {"a row that pads the others", 10000, 100 * 10012.0, 40},
        {"the same with suffixes", 10000, 100 * 10013.0, 40},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(peaks); i++) {
        size_t k = 0;
        while (k < COUNT(shapes) && strcmp(shapes[k].name, peaks[i].name) != 0) k++;
        assert_true(k < COUNT(shapes));
        const cost c = measure(&shapes[k], peaks[i].n);
        const double found = (double)c.bytes / peaks[i].units;
        if (getenv("BOUNDS_VERBOSE"))
            say("%-40s %8.2f bytes each, documented %.2f\n", peaks[i].name, found, peaks[i].per);
        if (c.status != PG_OK || found > peaks[i].per * 1.05 ||
            (found < peaks[i].per * 0.9 && strcmp(peaks[i].name, "pixels") != 0 && /* less is fine */
             !strstr(peaks[i].name, "sentencepiece")))                             /* a build may be without */
            fail_msg("%s: %.2f bytes each, documented as %.2f: %s", peaks[i].name, found, peaks[i].per, c.message);
    }
}

/* What a stranger's added tokens cost a prompt, beside the same prompt without them. */
static void tokens_cost_a_prompt_little(void **state) {
    static const shape kinds[] = {{"letters", PROMPT, 0, letters, NULL, 0, PG_OK},
                                  {"nearly the longest token", PROMPT, 0, letters, nearly_longest_token, 0, PG_OK},
                                  {"many tokens that begin alike", PROMPT, 0, letters, bushy_tokens, 0, PG_OK}};
    enum { N = 80000, TIMES = 5 };
    (void)state;
    for (size_t i = 1; i < COUNT(kinds); i++) {
        double least = 1e9, without = 1e9;
        for (int attempt = 0; attempt < 4 && (attempt == 0 || least > TIMES * without + FREE_SECONDS); attempt++) {
            without = measure(&kinds[0], N).seconds;
            least = measure(&kinds[i], N).seconds;
        }
        if (least > TIMES * without + FREE_SECONDS)
            fail_msg("%s: %.4f s, %.4f s without it", kinds[i].name, least, without);
    }
}

/* However long a stop string is, its beams have memory for the text that there is. */
static void a_stop_string_costs_beams_nothing(void **state) {
    static const shape kind = {"a stop string of beams", STOP_STRING_OF_BEAMS, 0, letters, NULL, 0, PG_OK};
    (void)state;
    const cost usual = measure(&kind, 4096), endless = measure(&kind, 1000000);
    if (usual.status != PG_OK || endless.status != PG_OK) fail_msg("%s%s", usual.message, endless.message);
    if (endless.counted > usual.counted)
        fail_msg("%lld bytes of the allocator, %lld with a stop string of 1 MB", (long long)usual.counted,
                 (long long)endless.counted);
}

int main(int argc, char **argv) {
    /* Peaks first: what the others leave in this process's heap decides where its children's blocks lie, and a hole too
     * small by a little counts as memory that the library took. */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_is_as_documented), cmocka_unit_test(time_and_memory_grow_with_the_input),
        cmocka_unit_test(tokens_cost_a_prompt_little), cmocka_unit_test(a_stop_string_costs_beams_nothing)};
    return RUN_TESTS(tests, NULL, NULL);
}
