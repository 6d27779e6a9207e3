/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* What fault_calls.h describes. */
#include "fault_calls.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "mask_files.h"
#include "tiny_adapter.h"

counter fault_memory;

static char official[512], today[512], int8[512], masks[512], adapters[N_TINY_ADAPTERS][512];
static bytes png, jpeg;

/* ---- files and handles ---- */

static void save_features(void);

static void make_adapters(void) {
    pg_model *model = NULL;
    pg_model_info info = {.struct_size = sizeof info};
    if (pg_model_open(official, NULL, &model) < 0 || pg_model_get_info(model, &info) < 0) abort();
    pg_model_close(&model);
    for (int i = 0; i < N_TINY_ADAPTERS; i++) {
        make_temp_folder(adapters[i], sizeof adapters[i]);
        tiny_adapter_write(adapters[i], i, info.vocab_size, 7);
    }
}

void fault_files_make(void) {
    tiny_options options = tiny_official();
    bytes file;
    options.n_layers = 1;
    make_temp_folder(official, sizeof official);
    tiny_write(official, &options);
    remove_file(official, "tokenizer.json");
    options = tiny_saved_today();
    options.n_layers = 1;
    make_temp_folder(today, sizeof today);
    tiny_write(today, &options);
    make_temp_folder(int8, sizeof int8);
    if (pg_model_convert(official, int8, NULL) < 0) abort();
    make_temp_folder(masks, sizeof masks);
    file = make_npz(&(npz_options)NPZ_PLAIN);
    write_file(masks, "plain.npz", file.data, file.size);
    bytes_free(&file);
    file = make_npz(&(npz_options){.cut_shape = -1, .drop = -1, .deflated = 1});
    write_file(masks, "deflated.npz", file.data, file.size);
    bytes_free(&file);
    file = make_safetensors(LAYOUT_SOUND);
    write_file(masks, "copy.safetensors", file.data, file.size);
    bytes_free(&file);
    png = tiny_image(IMAGE_PNG, 24, 18, 1);
    jpeg = tiny_image(IMAGE_JPEG_PROGRESSIVE, 24, 18, 1);
    write_file(official, "image.png", png.data, png.size);
    save_features();
    make_adapters();
}

void fault_files_remove(void) {
    remove_folder(official);
    remove_folder(today);
    remove_folder(int8);
    remove_folder(masks);
    for (int i = 0; i < N_TINY_ADAPTERS; i++) remove_folder(adapters[i]);
    bytes_free(&png);
    bytes_free(&jpeg);
}

static pg_status open_model(const char *folder, uint32_t flags, int32_t weights, pg_model **out) {
    pg_model_options options;
    pg_model_options_init(&options, sizeof options);
    options.allocator = &fault_memory.hooks;
    options.flags = flags;
    options.weights = weights;
    options.n_threads = 1;
    return pg_model_open(folder, &options, out);
}

static pg_status open_processor(const char *folder, uint32_t flags, pg_processor **out) {
    pg_processor_options options;
    pg_processor_options_init(&options, sizeof options);
    options.allocator = &fault_memory.hooks;
    options.flags = flags;
    return pg_processor_open(folder, &options, out);
}

static pg_status open_decoder(const char *name, pg_mask_decoder **out) {
    pg_mask_decoder_options options;
    char path[600];
    pg_mask_decoder_options_init(&options, sizeof options);
    options.allocator = &fault_memory.hooks;
    snprintf(path, sizeof path, "%s/%s", masks, name);
    return pg_mask_decoder_open(path, &options, out);
}

static pg_status create_session(const pg_model *model, int32_t n_threads, pg_session **out) {
    pg_session_options options;
    pg_session_options_init(&options, sizeof options);
    options.n_threads = n_threads;
    options.max_new_tokens = 4;
    return pg_session_create(model, &options, out);
}

/* One row or two: each an image, a prompt, and its answer. */
static pg_status encode_labelled(const pg_processor *processor, int32_t n_rows, pg_inputs **out) {
    static const char *const prompts[] = {"the", "the cat"}, *const suffixes[] = {"cat in", "in"};
    pg_image images[2];
    pg_batch batch;
    pg_batch_init(&batch, sizeof batch);
    batch.n_prompts = batch.n_suffixes = batch.n_images = n_rows;
    batch.prompts = prompts;
    batch.suffixes = suffixes;
    batch.images = images;
    pg_status status = PG_OK;
    for (int32_t i = 0; i < n_rows && status >= 0; i++)
        status = pg_image_from_bytes(&images[i], sizeof images[i], png.data, png.size);
    return status < 0 ? status : pg_processor_encode_batch(processor, &batch, NULL, out);
}

static pg_status generate(const fault_world *w, const pg_generate_options *options, pg_result **out) {
    return pg_generate(w->model, w->processor, w->inputs, options, out);
}

static pg_generate_options small(void) {
    pg_generate_options options;
    pg_generate_options_init(&options, sizeof options);
    options.max_new_tokens = 2;
    options.n_threads = 1;
    options.flags = PG_GENERATE_LOG_PROBS;
    return options;
}

static pg_status open_by_sentencepiece(pg_processor **out) {
#ifdef PGI_SENTENCEPIECE
    return open_processor(today, PG_PROCESSOR_SENTENCEPIECE, out);
#else
    *out = NULL;
    return PG_OK;
#endif
}

/* A file or folder that no other thread writes. */
static void own_path(char *path, size_t size, const char *name) {
    snprintf(path, size, "%s.%s-%lx", masks, name, (unsigned long)pthread_self());
}
static void converted_path(char *path, size_t size) { own_path(path, size, "converted"); }

void fault_world_open(fault_world *w) {
    char left[600];
    pg_image image;
    const pg_generate_options options = small();
    memset(w, 0, sizeof *w);
    counter_init(&fault_memory);
    converted_path(left, sizeof left); /* by a process that died in convert_threads */
    remove_folder(left);
    if (open_model(official, 0, PG_WEIGHTS_STORED, &w->model) < 0 || open_processor(today, 0, &w->processor) < 0 ||
        open_by_sentencepiece(&w->by_sentencepiece) < 0 ||
        pg_image_from_bytes(&image, sizeof image, png.data, png.size) < 0 ||
        pg_processor_encode(w->processor, &image, "the cat", NULL, &w->inputs) < 0 ||
        pg_processor_encode(w->processor, NULL, "the", NULL, &w->text_only) < 0 ||
        encode_labelled(w->processor, 1, &w->labelled) < 0 ||
        pg_features_create(w->model, w->inputs, NULL, &w->features) < 0 ||
        create_session(w->model, 1, &w->session) < 0 || generate(w, &options, &w->result) < 0 ||
        open_decoder("plain.npz", &w->decoder) < 0) {
        say("no world: %s\n", pg_last_error());
        _Exit(99);
    }
}

void fault_world_close(fault_world *w) {
    pg_mask_decoder_close(&w->decoder);
    pg_result_close(&w->result);
    pg_session_close(&w->session);
    pg_features_close(&w->features);
    pg_inputs_close(&w->labelled);
    pg_inputs_close(&w->text_only);
    pg_inputs_close(&w->inputs);
    pg_processor_close(&w->by_sentencepiece);
    pg_processor_close(&w->processor);
    pg_model_close(&w->model);
}

/* ---- the calls ---- */

/* A status; a handle that is left in spite of an error shows as memory that is kept. */
#define OPENING(name, type, close, ...)         \
    static pg_status name(fault_world *w) {     \
        type *handle = NULL;                    \
        (void)w;                                \
        const pg_status status = (__VA_ARGS__); \
        if (status >= 0) close(&handle);        \
        return status;                          \
    }

OPENING(model_open, pg_model, pg_model_close, open_model(official, 0, PG_WEIGHTS_STORED, &handle))
OPENING(model_open_shards, pg_model, pg_model_close, open_model(today, 0, PG_WEIGHTS_STORED, &handle))
OPENING(model_open_in_memory, pg_model, pg_model_close,
        open_model(today, PG_MODEL_IN_MEMORY, PG_WEIGHTS_STORED, &handle))
OPENING(model_open_quantizing, pg_model, pg_model_close, open_model(official, 0, PG_WEIGHTS_INT4, &handle))
OPENING(model_open_verifying, pg_model, pg_model_close, open_model(int8, PG_MODEL_VERIFY, PG_WEIGHTS_INT8, &handle))
OPENING(processor_open_model, pg_processor, pg_processor_close, open_processor(official, 0, &handle))
OPENING(processor_open_json, pg_processor, pg_processor_close, open_processor(today, 0, &handle))
#ifdef PGI_SENTENCEPIECE
OPENING(processor_open_sentencepiece, pg_processor, pg_processor_close, open_by_sentencepiece(&handle))
#endif
OPENING(processor_open_images, pg_processor, pg_processor_close,
        open_processor(today, PG_PROCESSOR_IMAGES_ONLY, &handle))
OPENING(decoder_open, pg_mask_decoder, pg_mask_decoder_close, open_decoder("plain.npz", &handle))
OPENING(decoder_open_deflated, pg_mask_decoder, pg_mask_decoder_close, open_decoder("deflated.npz", &handle))
OPENING(decoder_open_copy, pg_mask_decoder, pg_mask_decoder_close, open_decoder("copy.safetensors", &handle))
OPENING(cancel_create, pg_cancel, pg_cancel_close, pg_cancel_create(&handle))
OPENING(session_create, pg_session, pg_session_close, create_session(w->model, 1, &handle))
OPENING(session_create_threads, pg_session, pg_session_close, create_session(w->model, 3, &handle))
OPENING(detokenizer_create, pg_detokenizer, pg_detokenizer_close, pg_detokenizer_create(w->processor, 0, &handle))

static pg_status encode(fault_world *w, const pg_image *image) {
    pg_inputs *inputs = NULL;
    const pg_status status = pg_processor_encode(w->processor, image, "the cat \xC3\xA9", NULL, &inputs);
    pg_inputs_close(&inputs);
    return status;
}
static pg_status encode_path(fault_world *w) {
    pg_image image;
    char path[600];
    snprintf(path, sizeof path, "%s/image.png", official);
    pg_image_from_path(&image, sizeof image, path);
    return encode(w, &image);
}
static pg_status encode_jpeg(fault_world *w) {
    pg_image image;
    pg_image_from_bytes(&image, sizeof image, jpeg.data, jpeg.size);
    return encode(w, &image);
}
static pg_status encode_pixels(fault_world *w) {
    static const uint8_t pixels[4 * 5 * 7] = {200, 100, 50, 128};
    pg_image image;
    pg_encode_options options;
    pg_inputs *inputs = NULL;
    pg_encode_options_init(&options, sizeof options);
    options.flags = PG_ENCODE_OVER_WHITE | PG_ENCODE_EXIF;
    options.mode = PG_MODE_BIG_VISION;
    pg_status status = pg_image_from_pixels(&image, sizeof image, PG_IMAGE_RGBA8, 5, 7, pixels, 0);
    if (status >= 0) status = pg_processor_encode(w->processor, &image, "the cat", &options, &inputs);
    pg_inputs_close(&inputs);
    return status;
}
static pg_status encode_frame(fault_world *w) {
    static const uint8_t y[40 * 30] = {1}, u[20 * 15] = {2}, v[20 * 15] = {3};
    static const void *const planes[] = {y, u, v};
    pg_image image;
    pg_window window = {.struct_size = sizeof window};
    pg_inputs *inputs = NULL;
    pg_status status = pg_image_from_planes(&image, sizeof image, PG_IMAGE_I420, 40, 30, planes, NULL);
    image.fit = PG_FIT_LETTERBOX;
    image.roi[0] = image.roi[1] = 3, image.roi[2] = image.roi[3] = 21;
    if (status >= 0) status = pg_image_get_window(&image, 0, 0, 16, 16, &window);
    if (status >= 0) status = pg_processor_encode(w->processor, &image, "the cat", NULL, &inputs);
    pg_inputs_close(&inputs);
    return status;
}
static pg_status encode_batch(fault_world *w) {
    static const char *const prompts[] = {"the cat", "in"}, *const suffixes[] = {"cat", "a <loc0001>"};
    pg_inputs *inputs = NULL;
    pg_batch batch;
    pg_batch_init(&batch, sizeof batch);
    batch.n_prompts = batch.n_suffixes = 2;
    batch.prompts = prompts;
    batch.suffixes = suffixes;
    const pg_status status = pg_processor_encode_batch(w->processor, &batch, NULL, &inputs);
    pg_inputs_close(&inputs);
    return status;
}
static pg_status inputs_create(fault_world *w) {
    pg_tensor ids = {.struct_size = sizeof ids};
    pg_input_arrays arrays;
    pg_inputs *inputs = NULL;
    pg_input_arrays_init(&arrays, sizeof arrays);
    pg_status status = pg_inputs_get_tensor(w->text_only, "input_ids", &ids);
    int64_t own[64]; /* the inputs may be closed meanwhile */
    if (status >= 0) memcpy(own, ids.data, (size_t)ids.shape[1] * sizeof *own);
    ids.data = own;
    arrays.input_ids = &ids;
    arrays.allocator = &fault_memory.hooks;
    if (status >= 0) status = pg_inputs_create(&arrays, &inputs);
    pg_inputs_close(&inputs);
    return status;
}
static pg_status tokenize_and_decode(fault_world *w) {
    int64_t ids[64], id;
    size_t n = 0, needed;
    char text[256];
    const char *piece;
    uint32_t flags;
    pg_status status = pg_processor_tokenize(w->processor, "the cat <loc0001> \xF0\x9F\x90\xB1", 0, ids, 64, &n);
    if (status >= 0) status = pg_processor_decode(w->processor, ids, n, 0, text, sizeof text, &needed);
    if (status >= 0) status = pg_processor_get_piece(w->processor, ids[0], &piece);
    if (status >= 0) status = pg_processor_get_token_id(w->processor, piece, &id);
    if (status >= 0) status = pg_processor_get_token_flags(w->processor, id, &flags);
    return status;
}
#ifdef PGI_SENTENCEPIECE
static pg_status tokenize_sentencepiece(fault_world *w) {
    int64_t ids[64];
    size_t n = 0;
    return pg_processor_tokenize(w->by_sentencepiece, "the cat <loc0001> \xF0\x9F\x90\xB1", 0, ids, 64, &n);
}
#endif
static pg_status config_of_model(fault_world *w) {
    char text[64];
    size_t needed;
    int64_t value;
    double number;
    pg_status status = pg_model_get_config(w->model, "", text, sizeof text, &needed);
    if (status >= 0) status = pg_model_get_config_int(w->model, "text_config.hidden_size", &value);
    if (status >= 0) status = pg_model_get_config_float(w->model, "text_config.rms_norm_eps", &number);
    return status;
}
static pg_status config_of_checkpoint(fault_world *w) {
    char text[64];
    size_t needed;
    (void)w;
    return pg_checkpoint_get_config(today, text, sizeof text, &needed);
}
static pg_status checkpoint_find(fault_world *w) {
    char path[600];
    size_t needed;
    (void)w;
    return pg_checkpoint_find(today, NULL, path, sizeof path, &needed);
}
static pg_status infos(fault_world *w) {
    pg_model_info info = {.struct_size = sizeof info};
    pg_memory need = {.struct_size = sizeof need};
    pg_processor_info what = {.struct_size = sizeof what};
    pg_image_settings settings = {.struct_size = sizeof settings};
    pg_sampling_options sampling;
    pg_row_info row = {.struct_size = sizeof row};
    pg_result_info result = {.struct_size = sizeof result};
    pg_status status = pg_model_get_info(w->model, &info);
    pg_sampling_options_init(&sampling, sizeof sampling);
    if (status >= 0) status = pg_model_get_memory(w->model, &need);
    if (status >= 0) status = pg_model_get_sampling(w->model, &sampling);
    if (status >= 0) status = pg_processor_get_info(w->processor, &what);
    if (status >= 0) status = pg_processor_get_image_settings(w->processor, &settings);
    if (status >= 0) status = pg_inputs_get_row_info(w->inputs, 0, &row);
    if (status >= 0) status = pg_result_get_info(w->result, 0, &result);
    return status;
}
static pg_status embed(fault_world *w) {
    float out[4096];
    return pg_model_embed(w->model, (const int64_t[]){1, 2}, 2, out);
}

static pg_status generate_with(fault_world *w, const pg_generate_options *options) {
    pg_result *result = NULL;
    pg_tensor tensor = {.struct_size = sizeof tensor};
    pg_status status = generate(w, options, &result);
    if (status >= 0) status = pg_result_get_ids(result, 0, &tensor);
    if (status >= 0) status = pg_result_get_tensor(result, 0, "log_probs", &tensor);
    pg_result_close(&result);
    return status;
}
static pg_status generate_greedy(fault_world *w) {
    const pg_generate_options options = small();
    return generate_with(w, &options);
}
static pg_status generate_threads(fault_world *w) {
    pg_generate_options options = small();
    options.n_threads = 3;
    return generate_with(w, &options);
}
static pg_status generate_waves(fault_world *w) {
    pg_generate_options options = small();
    pg_sampling_options sampling;
    pg_sampling_options_init(&sampling, sizeof sampling);
    sampling.flags = PG_SAMPLING_RANDOM;
    options.sampling = &sampling;
    options.n_return = 3;
    options.max_running = 1;
    return generate_with(w, &options);
}
static pg_status generate_beams(fault_world *w) {
    pg_generate_options options = small();
    pg_beam_options beams;
    pg_beam_options_init(&beams, sizeof beams);
    beams.n_beams = 2;
    options.beams = &beams;
    return generate_with(w, &options);
}
static pg_status generate_drawing(fault_world *w) {
    static const char *const stops[] = {"never said"};
    pg_generate_options options = small();
    pg_sampling_options sampling;
    pg_sampling_options_init(&sampling, sizeof sampling);
    sampling.flags = PG_SAMPLING_RANDOM;
    sampling.top_p = 0.9;
    options.sampling = &sampling;
    options.stop_strings = stops;
    options.n_stop_strings = 1;
    options.n_alternatives = 2;
    options.n_return = 2;
    options.flags |= PG_GENERATE_LOGITS | PG_GENERATE_SCORES;
    options.features = w->features;
    return generate_with(w, &options);
}
static pg_status score_with(fault_world *w, int32_t n_threads) {
    static const char *const answers[] = {"cat", "the dog"};
    pg_score_options options;
    pg_scores *scores = NULL;
    pg_score_info info = {.struct_size = sizeof info};
    pg_tensor tensor = {.struct_size = sizeof tensor};
    pg_score_options_init(&options, sizeof options);
    options.n_threads = n_threads;
    pg_status status = pg_score(w->model, w->processor, w->inputs, answers, 2, &options, &scores);
    if (status >= 0) status = pg_scores_get_info(scores, 1, &info);
    if (status >= 0) status = pg_scores_get_tensor(scores, 1, "log_probs", &tensor);
    pg_scores_close(&scores);
    if (status < 0) return status;
    status =
        pg_score_ids(w->model, w->inputs, (const int64_t[]){5, 6, 7}, (const int64_t[]){1, 2}, 2, &options, &scores);
    pg_scores_close(&scores);
    return status;
}
static pg_status score(fault_world *w) { return score_with(w, 1); }
static pg_status score_threads(fault_world *w) { return score_with(w, 3); }
static pg_status forward_with(fault_world *w, int32_t n_threads) {
    pg_forward_options options;
    pg_outputs *outputs = NULL;
    pg_tensor tensor = {.struct_size = sizeof tensor};
    pg_forward_options_init(&options, sizeof options);
    options.n_threads = n_threads;
    options.flags = PG_FORWARD_ATTENTIONS | PG_FORWARD_HIDDEN_STATES;
    pg_status status = pg_forward(w->model, w->inputs, &options, &outputs);
    if (status >= 0) status = pg_outputs_get_tensor(outputs, "logits", &tensor);
    pg_outputs_close(&outputs);
    return status;
}
static pg_status forward(fault_world *w) { return forward_with(w, 1); }
static pg_status forward_threads(fault_world *w) { return forward_with(w, 3); }
static pg_status features_create_with(fault_world *w, int32_t n_threads) {
    pg_run_options options;
    pg_features *features = NULL, *again = NULL;
    pg_tensor tensor = {.struct_size = sizeof tensor};
    pg_run_options_init(&options, sizeof options);
    options.n_threads = n_threads;
    pg_status status = pg_features_create(w->model, w->inputs, &options, &features);
    if (status >= 0) status = pg_features_get_tensor(features, &tensor);
    if (status >= 0) status = pg_features_from_tensor(w->model, &tensor, &again);
    pg_features_close(&features);
    pg_features_close(&again);
    return status;
}
static pg_status features_create(fault_world *w) { return features_create_with(w, 1); }
static pg_status features_create_threads(fault_world *w) { return features_create_with(w, 3); }
static void features_path(char *path, size_t size) { snprintf(path, size, "%s/image.features", masks); }
static pg_status features_save(fault_world *w) {
    char path[600];
    own_path(path, sizeof path, "features");
    const pg_status status = pg_features_save(w->features, path);
    unlink(path);
    return status;
}
static void save_features(void) {
    fault_world world;
    char path[600];
    features_path(path, sizeof path);
    fault_world_open(&world);
    if (pg_features_save(world.features, path) < 0) abort();
    fault_world_close(&world);
}
static pg_status features_load(fault_world *w) {
    char path[600];
    pg_features *features = NULL;
    features_path(path, sizeof path);
    const pg_status status = pg_features_load(w->model, path, &features);
    pg_features_close(&features);
    return status;
}
static pg_status features_from_bytes(fault_world *w) {
    uint8_t kept[1 << 16];
    size_t needed = 0;
    pg_features *features = NULL;
    pg_status status = pg_features_to_bytes(w->features, kept, sizeof kept, &needed);
    if (status >= 0) status = pg_features_from_bytes(w->model, kept, needed, &features);
    pg_features_close(&features);
    return status;
}
static pg_status session_steps(fault_world *w) {
    int64_t token;
    pg_tensor logits = {.struct_size = sizeof logits};
    pg_status status = pg_session_prefill(w->session, w->text_only, w->features);
    if (status >= 0) status = pg_session_prefill(w->session, w->inputs, NULL);
    if (status >= 0) status = pg_session_step(w->session, &token);
    if (status >= 0 && status != PG_EVENT_EOS) status = pg_session_sample(w->session, NULL, &token);
    if (status >= 0 && status != PG_EVENT_EOS) status = pg_session_feed(w->session, (const int64_t[]){5}, 1);
    if (status >= 0) status = pg_session_get_logits(w->session, &logits);
    return status;
}
/* Two sessions on the threads of the first. */
static pg_status step_together(fault_world *w) {
    pg_session *sessions[2] = {NULL, NULL};
    pg_session_options options;
    int64_t tokens[2];
    pg_status statuses[2];
    pg_session_options_init(&options, sizeof options);
    options.n_threads = 1;
    options.max_new_tokens = 4;
    pg_status status = pg_session_create(w->model, &options, &sessions[0]);
    options.threads_of = sessions[0];
    if (status >= 0) status = pg_session_create(w->model, &options, &sessions[1]);
    for (int i = 0; i < 2 && status >= 0; i++) status = pg_session_prefill(sessions[i], w->inputs, NULL);
    for (int i = 0; i < 2 && status >= 0; i++) status = pg_session_step_together(sessions, 2, tokens, statuses);
    for (int i = 0; i < 2; i++) pg_session_close(&sessions[i]);
    return status;
}
/* The ends of n requests, which come whatever fails, with their words. */
static void await_ends(pg_worker *worker, int n) {
    pg_worker_event event;
    pg_worker_event_init(&event, sizeof event);
    while (n > 0) {
        if (pg_worker_poll(worker, &event) != PG_OK && pg_worker_wait(worker, 60, &event) != PG_OK) abort();
        if (event.kind != PG_WORKER_EVENT_DONE) continue;
        if (event.status < 0 && event.size == 0) abort();
        n--;
    }
}
/* A request, and one that is cancelled. */
static pg_status worker(fault_world *w) {
    pg_worker *worker = NULL;
    pg_worker_options options;
    pg_request_options request;
    pg_worker_info info = {.struct_size = sizeof info};
    pg_image image;
    int64_t cancelled;
    pg_worker_options_init(&options, sizeof options);
    pg_request_options_init(&request, sizeof request);
    options.n_threads = 1;
    options.n_workers = 2;
    options.max_new_tokens = 2;
    options.max_running = 2;
    request.flags = PG_REQUEST_OBJECTS;
    pg_status status = pg_image_from_bytes(&image, sizeof image, png.data, png.size);
    if (status >= 0) status = pg_worker_create(w->model, w->processor, &options, &worker);
    if (status >= 0) status = pg_worker_submit(worker, &image, "the", &request, NULL);
    int n = status >= 0;
    if (status >= 0) status = pg_worker_submit(worker, &image, "the cat", NULL, &cancelled);
    n += n && status >= 0;
    if (status >= 0) status = pg_worker_cancel(worker, cancelled);
    await_ends(worker, n);
    if (status >= 0) status = pg_worker_get_info(worker, &info);
    pg_worker_close(&worker);
    return status;
}
static pg_status detokenize(fault_world *w) {
    pg_detokenizer *detokenizer = NULL;
    const char *text;
    pg_status status = pg_detokenizer_create(w->processor, 0, &detokenizer);
    for (int64_t id = 0; id < 40 && status >= 0; id++) status = pg_detokenizer_push(detokenizer, id, &text, NULL);
    if (status >= 0) status = pg_detokenizer_flush(detokenizer, &text, NULL);
    pg_detokenizer_close(&detokenizer);
    return status;
}
static pg_status answers(fault_world *w) {
    static const char text[] =
        "<loc0256><loc0512><loc0768><loc1023><seg000><seg127><seg003><seg004><seg005><seg060><seg007><seg008><seg009>"
        "<seg010><seg110><seg012><seg013><seg014><seg015><seg064> cat";
    pg_answer_options options;
    pg_answer *answer = NULL, *other = NULL;
    pg_object object = {.struct_size = sizeof object};
    uint8_t mask[20 * 10];
    uint32_t counts[201];
    char rle[1500];
    size_t needed;
    const pg_window window = {.struct_size = sizeof window, .x = 2, .y = -5, .width = 15, .height = 20};
    pg_answer_options_init(&options, sizeof options);
    options.width = 20;
    options.height = 10;
    options.window = &window;
    options.allocator = &fault_memory.hooks;
    pg_status status = pg_answer_create_from_text(text, sizeof text - 1, &options, &answer);
    if (status >= 0) status = pg_answer_get_object(answer, 0, &object);
    if (status >= 0) status = pg_answer_get_mask(answer, 0, w->decoder, mask, sizeof mask);
    if (status >= 0) status = pg_mask_get_counts(mask, 20, 10, counts, 201, &needed);
    if (status >= 0) status = pg_mask_get_rle(mask, 20, 10, rle, sizeof rle, &needed);
    pg_answer_close(&answer);
    if (status >= 0) status = pg_answer_create(w->processor, w->result, 0, &options, &answer);
    if (status >= 0)
        status = pg_answer_create_from_ids(w->processor, (const int64_t[]){10, 11, 12, 13}, NULL, 4, &options, &other);
    pg_answer_close(&answer);
    pg_answer_close(&other);
    return status;
}
static pg_status masks_decoded(fault_world *w) {
    static const int32_t codes[16] = {0, 127, 3};
    float mask[64 * 64];
    return pg_mask_decoder_decode(w->decoder, codes, mask);
}
static pg_status convert_with(int32_t n_threads, int32_t weights, int32_t n_adapters) {
    const char *const merged[] = {adapters[ADAPTER_DORA], adapters[ADAPTER_WHOLE]};
    pg_convert_options options;
    char out[600];
    pg_convert_options_init(&options, sizeof options);
    options.n_threads = n_threads;
    options.max_file_bytes = 40000;
    options.weights = weights;
    options.adapters = merged;
    options.n_adapters = n_adapters;
    options.allocator = &fault_memory.hooks;
    converted_path(out, sizeof out);
    const pg_status status = pg_model_convert(official, out, &options);
    remove_folder(out);
    return status;
}

/* Made, filled, saved and read again; unit test calibration converts by it. */
static pg_status calibrate(fault_world *w) {
    pg_calibration *calibration = NULL, *loaded = NULL;
    const pg_run_options run = {.struct_size = sizeof run, .n_threads = 1};
    char path[600];
    int64_t n_rows;
    own_path(path, sizeof path, "calibration");
    pg_status status = pg_calibration_create(w->model, &calibration);
    if (status >= 0) status = pg_calibration_add(calibration, w->inputs, &run);
    if (status >= 0) status = pg_calibration_get_rows(calibration, &n_rows);
    if (status >= 0) status = pg_calibration_save(calibration, path, 7);
    if (status >= 0) status = pg_calibration_load(w->model, path, 7, &loaded);
    unlink(path);
    pg_calibration_close(&loaded);
    pg_calibration_close(&calibration);
    return status;
}

static pg_status open_adapter(const fault_world *w, int kind, int32_t n_threads, pg_adapter **out) {
    pg_adapter_options options;
    pg_adapter_options_init(&options, sizeof options);
    options.n_threads = n_threads;
    return pg_adapter_open(w->model, adapters[kind], &options, out);
}
OPENING(adapter_open, pg_adapter, pg_adapter_close, open_adapter(w, ADAPTER_LORA, 1, &handle))
OPENING(adapter_open_dora, pg_adapter, pg_adapter_close, open_adapter(w, ADAPTER_DORA, 3, &handle))
OPENING(adapter_open_whole, pg_adapter, pg_adapter_close, open_adapter(w, ADAPTER_WHOLE, 1, &handle))

/* All three on the model: half of the first two. */
static pg_status adapt(const fault_world *w, pg_adapter *open[N_TINY_ADAPTERS], pg_model **out) {
    const float weights[N_TINY_ADAPTERS] = {0.5f, 0.5f, 1.0f};
    const pg_adapter *used[N_TINY_ADAPTERS];
    pg_status status = PG_OK;
    for (int i = 0; i < N_TINY_ADAPTERS && status >= 0; i++) {
        status = open_adapter(w, i, 1, &open[i]);
        used[i] = open[i];
    }
    return status < 0 ? status : pg_model_adapt(w->model, used, weights, N_TINY_ADAPTERS, out);
}

static pg_status adapted(fault_world *w) {
    pg_adapter *open[N_TINY_ADAPTERS] = {NULL};
    pg_adapter_info info = {.struct_size = sizeof info};
    pg_memory memory = {.struct_size = sizeof memory, .n_threads = 1};
    pg_generate_options options = small();
    pg_model *model = NULL;
    pg_inputs *inputs = NULL;
    pg_result *result = NULL;
    char base[16];
    pg_status status = adapt(w, open, &model);
    const pg_model *rows[2] = {NULL, model}; /* of which one has features of its own */
    options.row_models = rows;
    options.n_row_models = 2;
    if (status >= 0) status = pg_adapter_get_info(open[0], &info);
    if (status >= 0) status = pg_adapter_find_base(adapters[0], base, sizeof base, NULL);
    if (status >= 0) status = pg_model_get_memory(model, &memory);
    for (int i = 0; i < N_TINY_ADAPTERS; i++) pg_adapter_close(&open[i]);
    if (status >= 0) status = encode_labelled(w->processor, 2, &inputs);
    if (status >= 0) status = pg_generate(w->model, w->processor, inputs, &options, &result);
    pg_inputs_close(&inputs);
    pg_result_close(&result);
    pg_model_close(&model);
    return status;
}

static pg_trainer_options training(const char *target_modules, int32_t n_threads) {
    pg_trainer_options options;
    pg_trainer_options_init(&options, sizeof options);
    options.rank = 2;
    options.dropout = 0.1;
    options.target_modules = target_modules;
    options.modules_to_save = "multi_modal_projector";
    options.n_threads = n_threads;
    return options;
}
static pg_status create_trainer(const fault_world *w, const char *target_modules, pg_trainer **out) {
    const pg_trainer_options options = training(target_modules, 1);
    return pg_trainer_create(w->model, &options, out);
}
OPENING(trainer_create, pg_trainer, pg_trainer_close, create_trainer(w, "all-linear", &handle))
OPENING(trainer_create_by_pattern, pg_trainer, pg_trainer_close, create_trainer(w, "regex:.*q_proj", &handle))

static pg_status train_with(fault_world *w, int32_t n_threads) {
    const pg_trainer_options options = training("q_proj,embed_tokens,fc1", n_threads);
    pg_train_result result = {.struct_size = sizeof result};
    pg_parameter parameter = {.struct_size = sizeof parameter};
    pg_trainer *trainer = NULL;
    size_t n;
    pg_status status = pg_trainer_create(w->model, &options, &trainer);
    if (status >= 0) status = pg_trainer_step(trainer, w->labelled, &result);
    if (status >= 0) status = pg_trainer_evaluate(trainer, w->labelled, &result);
    int64_t step;
    if (status >= 0) status = pg_trainer_get_step(trainer, &step);
    if (status >= 0) status = pg_trainer_count_parameters(trainer, &n);
    if (status >= 0) status = pg_trainer_get_parameter(trainer, n - 1, &parameter);
    pg_trainer_close(&trainer);
    return status;
}
static pg_status train(fault_world *w) { return train_with(w, 1); }
static pg_status train_threads(fault_world *w) { return train_with(w, 3); }

/* Saved, saved over, and gone on from. */
static pg_status train_and_save(fault_world *w) {
    const pg_trainer_options options = training("q_proj", 1);
    pg_trainer *trainer = NULL, *again = NULL;
    char path[600];
    own_path(path, sizeof path, "trained");
    pg_status status = pg_trainer_create(w->model, &options, &trainer);
    if (status >= 0) status = pg_trainer_save(trainer, path);
    if (status >= 0) status = pg_trainer_save(trainer, path);
    if (status >= 0) status = pg_trainer_resume(w->model, path, &options, &again);
    remove_folder(path);
    pg_trainer_close(&again);
    pg_trainer_close(&trainer);
    return status;
}

static pg_status convert(fault_world *w) { return (void)w, convert_with(1, PG_WEIGHTS_INT8, 0); }
static pg_status convert_threads(fault_world *w) { return (void)w, convert_with(3, PG_WEIGHTS_INT8, 0); }
static pg_status convert_merging(fault_world *w) { return (void)w, convert_with(1, PG_WEIGHTS_STORED, 2); }

const fault_call fault_calls[] = {
    {"model_open", model_open},
    {"model_open_shards", model_open_shards},
    {"model_open_in_memory", model_open_in_memory},
    {"model_open_quantizing", model_open_quantizing},
    {"model_open_verifying", model_open_verifying},
    {"processor_open_model", processor_open_model},
    {"processor_open_json", processor_open_json},
#ifdef PGI_SENTENCEPIECE
    {"processor_open_sentencepiece", processor_open_sentencepiece},
    {"tokenize_sentencepiece", tokenize_sentencepiece},
#endif
    {"processor_open_images", processor_open_images},
    {"decoder_open", decoder_open},
    {"decoder_open_deflated", decoder_open_deflated},
    {"decoder_open_copy", decoder_open_copy},
    {"cancel_create", cancel_create},
    {"session_create", session_create},
    {"session_create_threads", session_create_threads},
    {"detokenizer_create", detokenizer_create},
    {"encode_path", encode_path},
    {"encode_jpeg", encode_jpeg},
    {"encode_pixels", encode_pixels},
    {"encode_frame", encode_frame},
    {"encode_batch", encode_batch},
    {"inputs_create", inputs_create},
    {"tokenize_and_decode", tokenize_and_decode},
    {"config_of_model", config_of_model},
    {"config_of_checkpoint", config_of_checkpoint},
    {"checkpoint_find", checkpoint_find},
    {"infos", infos},
    {"embed", embed},
    {"generate_greedy", generate_greedy},
    {"generate_threads", generate_threads},
    {"generate_waves", generate_waves},
    {"generate_beams", generate_beams},
    {"generate_drawing", generate_drawing},
    {"score", score},
    {"score_threads", score_threads},
    {"forward", forward},
    {"forward_threads", forward_threads},
    {"features_create", features_create},
    {"features_create_threads", features_create_threads},
    {"features_save", features_save},
    {"features_load", features_load},
    {"features_from_bytes", features_from_bytes},
    {"session_steps", session_steps},
    {"step_together", step_together},
    {"worker", worker},
    {"detokenize", detokenize},
    {"answers", answers},
    {"masks_decoded", masks_decoded},
    {"calibrate", calibrate},
    {"adapter_open", adapter_open},
    {"adapter_open_dora", adapter_open_dora},
    {"adapter_open_whole", adapter_open_whole},
    {"adapted", adapted},
    {"trainer_create", trainer_create},
    {"trainer_create_by_pattern", trainer_create_by_pattern},
    {"train", train},
    {"train_threads", train_threads},
    {"train_and_save", train_and_save},
    {"convert", convert},
    {"convert_threads", convert_threads},
    {"convert_merging", convert_merging},
};
const size_t n_fault_calls = sizeof fault_calls / sizeof *fault_calls;
