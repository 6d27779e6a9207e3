/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Options structs. The first byte is the call; then come fields, ten bytes each: which struct and field, how the value
 * is meant, and the value. Pointers stay as they are: what lies behind them is the host's. Numbers of threads stay
 * small where they are sound, for the fuzzer's time.
 */
#include <math.h>
#include <stdio.h>
#include <unistd.h>

#include "fuzz.h"
#include "mask_files.h"

typedef enum field_type { U32, I32, I64, F32, F64, THREADS } field_type;
typedef struct field {
    size_t offset;
    field_type type;
} field;
typedef struct shape {
    const field *fields;
    size_t n_fields, size;
} shape;

/* clang-format off */
#define AT(type, name, kind) {offsetof(type, name), kind}
#define SHAPE(type, fields) {fields, sizeof fields / sizeof *fields, sizeof(type)}
#define T pg_model_options
static const field model_fields[] = {AT(T, struct_size, U32), AT(T, flags, U32), AT(T, cpu_mask, I64), AT(T, weights, I32),
    AT(T, arithmetic, I32), AT(T, n_threads, THREADS), AT(T, kv, I32)};
static const shape model_shape = SHAPE(T, model_fields);
#undef T
#define T pg_processor_options
static const field processor_fields[] = {AT(T, struct_size, U32), AT(T, flags, U32), AT(T, cpu_mask, I64)};
static const shape processor_shape = SHAPE(T, processor_fields);
#undef T
#define T pg_encode_options
static const field encode_fields[] = {AT(T, struct_size, U32), AT(T, flags, U32), AT(T, max_image_pixels, I64), AT(T, mode, I32),
    AT(T, padding, I32), AT(T, padding_side, I32), AT(T, pad_to_multiple_of, I32), AT(T, max_length, I64),
    AT(T, truncation, I32), AT(T, truncation_side, I32), AT(T, max_tokens, I64), AT(T, max_text_bytes, I64)};
static const shape encode_shape = SHAPE(T, encode_fields);
#undef T
#define T pg_image_settings
static const field settings_fields[] = {AT(T, struct_size, U32), AT(T, height, I32), AT(T, width, I32), AT(T, resample, I32),
    AT(T, do_resize, U32), AT(T, do_rescale, U32), AT(T, do_normalize, U32), AT(T, do_convert_rgb, U32),
    AT(T, n_image_tokens, I32), AT(T, reserved, U32), AT(T, image_mean[1], F32), AT(T, image_std[2], F32),
    AT(T, rescale_factor, F64)};
static const shape settings_shape = SHAPE(T, settings_fields);
#undef T
#define T pg_sampling_options
static const field sampling_fields[] = {AT(T, struct_size, U32), AT(T, flags, U32), AT(T, seed, I64), AT(T, stream, I64),
    AT(T, temperature, F64), AT(T, top_h, F64), AT(T, top_p, F64), AT(T, min_p, F64), AT(T, typical_p, F64),
    AT(T, epsilon_cutoff, F64), AT(T, eta_cutoff, F64), AT(T, repetition_penalty, F64), AT(T, decay_factor, F64),
    AT(T, decay_start, I32), AT(T, top_k, I32), AT(T, no_repeat_ngram_size, I32), AT(T, min_new_tokens, I32),
    AT(T, min_length, I32), AT(T, reserved, U32), AT(T, forced_bos_id, I64),
    AT(T, n_eos_ids, I64), AT(T, n_forced_eos_ids, I64), AT(T, n_suppressed_ids, I64), AT(T, n_begin_suppressed_ids, I64),
    AT(T, n_bad_words, I64), AT(T, n_biases, I64)}; /* of lists that are NULL */
static const shape sampling_shape = SHAPE(T, sampling_fields);
#undef T
#define T pg_beam_options
static const field beam_fields[] = {AT(T, struct_size, U32), AT(T, n_beams, I32), AT(T, early_stopping, I32), AT(T, reserved, U32),
    AT(T, length_penalty, F64)};
static const shape beam_shape = SHAPE(T, beam_fields);
#undef T
#define T pg_generate_options
static const field generate_fields[] = {AT(T, struct_size, U32), AT(T, flags, U32), AT(T, max_new_tokens, I32),
    AT(T, n_threads, THREADS), AT(T, n_stop_strings, I32), AT(T, n_alternatives, I32), AT(T, max_seconds, F64),
    AT(T, max_context, I64), AT(T, n_return, I32), AT(T, max_running, I32)};
static const shape generate_shape = SHAPE(T, generate_fields);
#undef T
#define T pg_forward_options
static const field forward_fields[] = {AT(T, struct_size, U32), AT(T, flags, U32), AT(T, n_threads, THREADS), AT(T, reserved, U32),
    AT(T, logits_to_keep, I64), AT(T, attention_queries, I64), AT(T, attention_layer, I32), AT(T, reserved_end, U32)};
static const shape forward_shape = SHAPE(T, forward_fields);
#undef T
#define T pg_score_options
static const field score_fields[] = {AT(T, struct_size, U32), AT(T, flags, U32), AT(T, n_threads, THREADS), AT(T, reserved, U32),
    AT(T, max_context, I64)};
static const shape score_shape = SHAPE(T, score_fields);
#undef T
#define T pg_session_options
static const field session_fields[] = {AT(T, struct_size, U32), AT(T, n_threads, THREADS), AT(T, max_new_tokens, I32),
    AT(T, max_prompt_tokens, I32), AT(T, max_context, I64)};
static const shape session_shape = SHAPE(T, session_fields);
#undef T
#define T pg_run_options
static const field run_fields[] = {AT(T, struct_size, U32), AT(T, n_threads, THREADS)};
static const shape run_shape = SHAPE(T, run_fields);
#undef T
#define T pg_answer_options
static const field answer_fields[] = {AT(T, struct_size, U32), AT(T, flags, U32), AT(T, width, I32), AT(T, height, I32),
    AT(T, convention, I32), AT(T, max_iou, F32)};
static const shape answer_shape = SHAPE(T, answer_fields);
#undef T
#define T pg_memory
static const field memory_fields[] = {AT(T, struct_size, U32), AT(T, n_threads, I32), AT(T, n_tokens, I64), AT(T, n_images, I64)};
static const shape memory_shape = SHAPE(T, memory_fields);
#undef T
#define T pg_convert_options
static const field convert_fields[] = {AT(T, struct_size, U32), AT(T, weights, I32), AT(T, n_threads, THREADS),
    AT(T, reserved, U32), AT(T, max_file_bytes, I64)};
static const shape convert_shape = SHAPE(T, convert_fields);
#undef T
#define T pg_mask_decoder_options
static const field decoder_fields[] = {AT(T, struct_size, U32), AT(T, reserved, U32), AT(T, cpu_mask, I64)};
static const shape decoder_shape = SHAPE(T, decoder_fields);
#undef T
#define T pg_batch
static const field batch_fields[] = {AT(T, struct_size, U32), AT(T, n_prompts, I32), AT(T, n_suffixes, I32),
    AT(T, n_images, I32), AT(T, n_image_counts, I32), AT(T, reserved, U32)};
static const shape batch_shape = SHAPE(T, batch_fields);
#undef T
#define T pg_image
static const field image_fields[] = {AT(T, struct_size, U32), AT(T, format, I32)};
static const shape image_shape = SHAPE(T, image_fields);
#undef T
/* clang-format on */

static double number(uint64_t how, uint64_t value) {
    static const double special[] = {0, 1, -1, 0.5, 1e-300, 1e300, NAN, INFINITY, -INFINITY, 2};
    double d;
    if (how & 1) return special[value % 10];
    memcpy(&d, &value, sizeof d);
    return d;
}

static int64_t integer(uint64_t how, uint64_t value) {
    if (how & 1) return (int64_t)(value % 67) - 2;
    return how & 2 ? INT64_C(1) << (value % 63) : (int64_t)value;
}

static void set(const shape *s, void *options, fuzz_input *in) {
    const field *f = &s->fields[fuzz_take(in, 1) % s->n_fields];
    const uint64_t how = fuzz_take(in, 1), value = fuzz_take(in, 7);
    void *at = (char *)options + f->offset;
    const float f32 = (float)number(how, value);
    const double f64 = number(how, value << 8);
    const int64_t i64 = integer(how, value);
    int32_t i32 = (int32_t)i64;
    /* a size is the host's to know; a larger one says that there are more bytes */
    if (f->offset == 0 && i32 > (int32_t)s->size && i32 <= 4096) i32 %= (int32_t)s->size + 1;
    if (f->type == THREADS && i32 > 4 && i32 <= 1024) i32 %= 5;
    switch (f->type) {
        case F32: memcpy(at, &f32, sizeof f32); break;
        case F64: memcpy(at, &f64, sizeof f64); break;
        case I64: memcpy(at, &i64, sizeof i64); break;
        default: memcpy(at, &i32, sizeof i32); break;
    }
}

/* The options of a call, all of which the input may change. */
typedef struct part {
    const shape *shape;
    void *options;
} part;
static void set_all(fuzz_input *in, const part *parts, size_t n) {
    while (in->size) {
        const part *p = &parts[fuzz_take(in, 1) % n];
        set(p->shape, p->options, in);
    }
}
#define SET(...) set_all(in, (const part[]){__VA_ARGS__}, sizeof((const part[]){__VA_ARGS__}) / sizeof(part))

static void try_open(fuzz_input *in) {
    pg_model_options options;
    pg_processor_options processor_options;
    pg_model *model = NULL;
    pg_processor *processor = NULL;
    pg_memory memory = {.struct_size = sizeof memory};
    pg_model_options_init(&options, sizeof options);
    pg_processor_options_init(&processor_options, sizeof processor_options);
    options.n_threads = 1;
    SET({&model_shape, &options}, {&processor_shape, &processor_options}, {&memory_shape, &memory});
    options.allocator = processor_options.allocator = fuzz_allocator();
    const fuzz_folder_kind kind = options.cpu_mask % 3 == 0 ? FUZZ_INT8 : FUZZ_OFFICIAL;
    if (MADE(pg_model_open(fuzz_folder(kind), &options, &model), model)) OK(pg_model_get_memory(model, &memory));
    MADE(pg_processor_open(fuzz_folder(kind), &processor_options, &processor), processor);
    pg_model_close(&model);
    pg_processor_close(&processor);
}

static void try_encode(fuzz_input *in) {
    static const uint8_t grey[8 * 8 * 3];
    pg_encode_options options;
    pg_image_settings settings = {.struct_size = sizeof settings};
    pg_image image;
    pg_inputs *inputs = NULL;
    pg_encode_options_init(&options, sizeof options);
    pg_processor_get_image_settings(fuzz_processor(FUZZ_OFFICIAL), &settings);
    options.image_settings = &settings;
    SET({&encode_shape, &options}, {&settings_shape, &settings});
    /* sound, and large: the host has its way, the fuzzer no time */
    if (settings.height > 0 && settings.height <= 16384) settings.height %= 300;
    if (settings.width > 0 && settings.width <= 16384) settings.width %= 300;
    if (options.max_length > 100000) options.max_length %= 100000;
    if (options.pad_to_multiple_of > 100000) options.pad_to_multiple_of %= 100000;
    pg_image_from_pixels(&image, sizeof image, PG_IMAGE_RGB8, 8, 8, grey, 0);
    if (MADE(pg_processor_encode(fuzz_processor(FUZZ_OFFICIAL), &image, "the cat\n", &options, &inputs), inputs)) {
        pg_result *result = NULL;
        pg_generate_options generate;
        pg_generate_options_init(&generate, sizeof generate);
        generate.max_new_tokens = generate.n_threads = 1;
        MADE(pg_generate(fuzz_model(FUZZ_OFFICIAL), fuzz_processor(FUZZ_OFFICIAL), inputs, &generate, &result), result);
        pg_result_close(&result);
    }
    pg_inputs_close(&inputs);
}

static void try_generate(fuzz_input *in) {
    static const char *const stops[] = {"cat", "\xC3\xA9", "never"};
    pg_generate_options options;
    pg_sampling_options sampling;
    pg_beam_options beams;
    pg_result *result = NULL;
    int32_t left = 40;
    pg_generate_options_init(&options, sizeof options);
    pg_sampling_options_init(&sampling, sizeof sampling);
    pg_beam_options_init(&beams, sizeof beams);
    options.sampling = &sampling;
    options.beams = &beams;
    options.max_new_tokens = 3;
    options.n_threads = 1;
    options.progress = fuzz_progress;
    options.progress_user = &left;
    SET({&generate_shape, &options}, {&sampling_shape, &sampling}, {&beam_shape, &beams});
    if (options.n_stop_strings > 3) options.n_stop_strings = 3; /* the array's */
    options.stop_strings = stops;
    if (options.max_new_tokens > 5000) options.max_new_tokens %= 5000;
    /* 1024 texts with all that a result can keep are sound, and take the sanitizers seconds */
    if (options.n_return > 64 && options.n_return <= 1024) options.n_return %= 65;
    MADE(pg_generate(fuzz_model(FUZZ_OFFICIAL), fuzz_processor(FUZZ_OFFICIAL), fuzz_inputs(FUZZ_OFFICIAL), &options,
                     &result),
         result);
    pg_result_close(&result);
}

static void try_forward(fuzz_input *in) {
    static const char *const answers[] = {"cat", "the dog"};
    pg_forward_options options;
    pg_score_options score;
    pg_run_options run;
    pg_outputs *outputs = NULL;
    pg_scores *scores = NULL;
    pg_features *features = NULL;
    pg_forward_options_init(&options, sizeof options);
    pg_score_options_init(&score, sizeof score);
    pg_run_options_init(&run, sizeof run);
    options.n_threads = score.n_threads = run.n_threads = 1;
    SET({&forward_shape, &options}, {&score_shape, &score}, {&run_shape, &run});
    const pg_model *model = fuzz_model(FUZZ_TODAY);
    const pg_inputs *inputs = fuzz_inputs(FUZZ_TODAY);
    MADE(pg_forward(model, inputs, &options, &outputs), outputs);
    MADE(pg_score(model, fuzz_processor(FUZZ_TODAY), inputs, answers, 2, &score, &scores), scores);
    MADE(pg_features_create(model, inputs, &run, &features), features);
    pg_outputs_close(&outputs);
    pg_scores_close(&scores);
    pg_features_close(&features);
}

static void try_session(fuzz_input *in) {
    pg_session_options options;
    pg_sampling_options sampling;
    pg_session *session = NULL;
    int64_t token;
    pg_session_options_init(&options, sizeof options);
    pg_sampling_options_init(&sampling, sizeof sampling);
    options.n_threads = 1;
    SET({&session_shape, &options}, {&sampling_shape, &sampling});
    if (options.max_new_tokens > 5000) options.max_new_tokens %= 5000;
    if (options.max_prompt_tokens > 5000) options.max_prompt_tokens %= 5000;
    if (MADE(pg_session_create(fuzz_model(FUZZ_OFFICIAL), &options, &session), session)) {
        OK(pg_session_prefill(session, fuzz_inputs(FUZZ_OFFICIAL), NULL));
        OK(pg_session_sample(session, &sampling, &token));
        OK(pg_session_sample(session, &sampling, &token));
        OK(pg_session_step(session, &token));
    }
    pg_session_close(&session);
}

static void try_answer(fuzz_input *in) {
    static const char text[] = "<loc0100><loc0200><loc0300><loc0400> cat ; <loc0100><loc0200><loc0300><loc0401> cat";
    pg_answer_options options;
    pg_answer *answer = NULL;
    pg_object object = {.struct_size = sizeof object};
    pg_answer_options_init(&options, sizeof options);
    options.width = options.height = 100;
    SET({&answer_shape, &options});
    if (MADE(pg_answer_create_from_text(text, sizeof text - 1, &options, &answer), answer))
        OK(pg_answer_get_object(answer, 1, &object));
    pg_answer_close(&answer);
}

static void try_convert(fuzz_input *in) {
    pg_convert_options options;
    char out[512];
    int32_t left = 200;
    pg_convert_options_init(&options, sizeof options);
    options.n_threads = 1;
    SET({&convert_shape, &options});
    options.allocator = fuzz_allocator();
    options.progress = fuzz_progress;
    options.progress_user = &left;
    make_temp_folder(out, sizeof out);
    OK(pg_model_convert(fuzz_folder(FUZZ_TODAY), out, &options));
    remove_folder(out);
}

static void try_decoder(fuzz_input *in) {
    static char folder[512];
    pg_mask_decoder_options options;
    pg_mask_decoder *decoder = NULL;
    if (!folder[0]) {
        strcpy(folder, fuzz_folder(FUZZ_OFFICIAL));
        bytes file = make_safetensors(LAYOUT_SOUND);
        write_file(folder, "vae-oid.safetensors", file.data, file.size);
        bytes_free(&file);
    }
    pg_mask_decoder_options_init(&options, sizeof options);
    SET({&decoder_shape, &options});
    options.allocator = fuzz_allocator();
    MADE(pg_mask_decoder_open(folder, &options, &decoder), decoder);
    pg_mask_decoder_close(&decoder);
}

/* The counts of a batch, up to as many as its arrays have; the first byte is the number of images of the second row. */
static void try_batch(fuzz_input *in) {
    enum { N = 4 };
    static const uint8_t grey[4 * 4 * 4];
    const char *texts[N] = {"the cat", NULL, "a", "<image>"};
    int32_t counts[N] = {1, (int8_t)fuzz_take(in, 1), 1, 1};
    pg_batch batch;
    pg_image images[N];
    pg_inputs *inputs = NULL;
    pg_batch_init(&batch, sizeof batch);
    for (int i = 0; i < N; i++) pg_image_from_pixels(&images[i], sizeof images[i], PG_IMAGE_RGB8, 4, 4, grey, 0);
    batch.n_prompts = batch.n_images = 2;
    SET({&batch_shape, &batch}, {&image_shape, &images[0]}, {&image_shape, &images[1]});
    int32_t *const all[] = {&batch.n_prompts, &batch.n_suffixes, &batch.n_images, &batch.n_image_counts};
    for (int i = 0; i < 4; i++)
        if (*all[i] > N) *all[i] %= N + 1;
    if (batch.n_prompts) batch.prompts = texts;
    if (batch.n_suffixes) batch.suffixes = texts;
    if (batch.n_images) batch.images = images;
    if (batch.n_image_counts) batch.image_counts = counts;
    MADE(pg_processor_encode_batch(fuzz_processor(FUZZ_TODAY), &batch, NULL, &inputs), inputs);
    pg_inputs_close(&inputs);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static void (*const calls[])(fuzz_input *) = {try_open,   try_encode,  try_generate, try_forward, try_session,
                                                  try_answer, try_convert, try_decoder,  try_batch};
    fuzz_input in = {data, size};
    if (size > 400) return 0;
    calls[fuzz_take(&in, 1) % (sizeof calls / sizeof *calls)](&in);
    return fuzz_end();
}
