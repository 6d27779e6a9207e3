/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* paligemma bench: how fast a model runs on this machine, beside what the machine can do at all. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tool.h"
#include "roof.h"
#include "system.h"

static const char help[] =
    "usage: paligemma bench [options] MODEL\n"
    "\n"
    "Times a drawn image and a prompt of random ids, and says what part that is of the machine's roofs:\n"
    "multiply-adds in registers and reads of memory, measured in the same run on the same threads. A frame\n"
    "is a camera's of 1920 x 1080 in NV12, which one thread makes pixels of.\n"
    "\n"
    "  MODEL    a checkpoint folder, or a model id in the local Hugging Face cache\n"
    "\n"
    "      --prompt-tokens N   tokens of text, bos and newline among them (default 16)\n"
    "      --new-tokens N      decoding steps that are timed in a round (default 16)\n"
    "      --rounds N          rounds, after one that is not counted (default 3)\n"
    "  -t, --threads N         compute on N threads (default: the CPUs this process may use)\n"
    "      --weights FORMAT    stored (default), int8 or int4: quantized when the model opens\n"
    "      --int8-layers LIST  beside int4: what is int8, such as embedding,attention\n"
    "      --adapter FOLDER    with a LoRA adapter of the model, or an id; may be given several times\n"
    "      --arithmetic KIND   f32, or bf16 in large products, where that is faster on this CPU\n"
    "      --kv KIND           KV cache in f32, or in bf16 (default beside int8 and int4)\n"
    "      --in-memory         read the weights into memory instead of mapping the files\n"
    "      --cpu SETS          use these instruction sets alone, such as baseline,avx2 ('paligemma info' names\n"
    "                          those in use, the manual page all)\n"
    "      --no-roofs          leave the roofs out\n"
    "      --json              one line of JSON, in seconds and bytes\n"
    "\n"
    "On a machine with other work, believe the best column. Exit status: 0 done, 1 failed, 2 wrong usage.\n";

enum { IMAGE_WIDTH = 640, IMAGE_HEIGHT = 480, MAX_REPEATS = 16 };
enum { FRAME_WIDTH = 1920, FRAME_HEIGHT = 1080, FRAME_BYTES = FRAME_WIDTH * FRAME_HEIGHT / 2 * 3 }; /* NV12 */

typedef struct samples {
    double *at;
    size_t n, capacity;
} samples;

typedef struct roofs { /* a second; 0: not measured */
    double f32, int8, bf16, read;
    roof_probe f32_probe, int8_probe, bf16_probe;
} roofs;

typedef struct bench_state {
    /* options */
    const char *path;
    tool_log log;
    tool_shared shared;
    int64_t prompt_tokens, new_tokens, rounds;
    int json, no_roofs;
    /* handles */
    pg_model *model;
    pg_processor *processor;
    pg_session *session;
    pg_inputs *inputs, *row;
    pg_features *features;
    pg_cancel *cancel;
    tool_progress progress;
    /* facts */
    pg_model_info info;
    pg_processor_info tokens;
    pg_memory memory;
    double image_flop, prefill_flop, step_bytes;
    /* results */
    double model_s, processor_s, cold_s; /* opening each; the first token of the first answer */
    samples frame, image, prefill, first, step;
    roofs roofs;
    long long rss_peak, rss_own, rss_mapped; /* bytes */
    unsigned char *pixels;
    uint64_t random;
} bench_state;

/* ---- samples ---- */

static int add_sample(samples *s, double value) {
    if (s->n == s->capacity) {
        size_t capacity = 2 * s->capacity + 64;
        double *grown = realloc(s->at, capacity * sizeof *grown);
        if (!grown) return 0;
        s->at = grown;
        s->capacity = capacity;
    }
    s->at[s->n++] = value;
    return 1;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* 0 without samples. */
static double median(const samples *s) {
    return !s->n ? 0 : s->n % 2 ? s->at[s->n / 2] : 0.5 * (s->at[s->n / 2 - 1] + s->at[s->n / 2]);
}
static double least(const samples *s) { return s->n ? s->at[0] : 0; }

/* ---- roofs ---- */

typedef struct roof_task {
    double (*probe)(void); /* or NULL: read */
    int way;
    const void *buffer;
    size_t begin, end;
} roof_task;

static void *roof_thread(void *argument) {
    enum { PROBES = 24 }; /* about 10 ms */
    const roof_task *task = argument;
    if (!task->probe) roof_read(task->way, task->buffer, task->begin, task->end);
    for (int i = 0; task->probe && i < PROBES; i++) task->probe();
    return NULL;
}

/* All threads at once; the caller is one of them. */
static double time_roof(roof_task *tasks, int n) {
    pthread_t threads[64];
    double start = tool_seconds();
    int started = 1;
    while (started < n && pthread_create(&threads[started], NULL, roof_thread, &tasks[started]) == 0) started++;
    roof_thread(&tasks[0]);
    for (int i = started; i < n; i++) roof_thread(&tasks[i]);
    for (int i = 1; i < started; i++) pthread_join(threads[i], NULL);
    return tool_seconds() - start;
}

static double probe_roof(roof_probe probe, int n) {
    enum { PROBES = 24, TRIES = 8 };
    roof_task tasks[64];
    double work = 0, best = 1e30;
    if (!probe.run) return 0;
    for (int i = 0; i < n; i++) tasks[i] = (roof_task){.probe = probe.run};
    work = probe.run() * PROBES * n;
    for (int i = 0; i < TRIES; i++) {
        double t = time_roof(tasks, n);
        if (t < best) best = t;
    }
    return work / best;
}

/* A buffer that the caches do not hold, one half of it in huge pages where the system has them, in slices that are read
 * before another program comes between. */
static double read_roof(int n) {
    const size_t slice = (size_t)64 << 20, slices = 16, bytes = slice * slices;
    roof_task tasks[64];
    double best = 1e30;
    char *buffer = tool_pages_alloc(bytes);
    if (!buffer) return 0;
    tool_pages_huge(buffer, bytes / 2);
    memset(buffer, 1, bytes); /* pages that were never written are all one */
    for (size_t i = 0; i < slices * ROOF_WAYS; i++) {
        const size_t chunks = slice / ROOF_CHUNK, at = i % slices * slice;
        for (int t = 0; t < n; t++)
            tasks[t] = (roof_task){.way = (int)(i / slices),
                                   .buffer = buffer + at,
                                   .begin = chunks * (size_t)t / (size_t)n,
                                   .end = chunks * (size_t)(t + 1) / (size_t)n};
        double t = time_roof(tasks, n);
        if (t < best) best = t;
    }
    tool_pages_free(buffer, bytes);
    return (double)slice / best;
}

/* Called before and after the rounds; the better one counts, as the machine may have other work. */
static void measure_roofs(bench_state *s) {
    if (s->no_roofs) return;
    int n = s->memory.n_threads < 64 ? (int)s->memory.n_threads : 64;
    roofs *r = &s->roofs;
    r->f32_probe = roof_f32(s->info.cpu_used);
    r->int8_probe = roof_int8(s->info.cpu_used);
    r->bf16_probe = roof_bf16(s->info.cpu_used);
    double f32 = probe_roof(r->f32_probe, n), int8 = probe_roof(r->int8_probe, n), bf16 = probe_roof(r->bf16_probe, n),
           bytes = read_roof(n);
    if (f32 > r->f32) r->f32 = f32;
    if (bf16 > r->bf16) r->bf16 = bf16;
    if (int8 > r->int8) r->int8 = int8;
    if (bytes > r->read) r->read = bytes;
}

/* ---- memory ---- */

/* A line of /proc/self/status in bytes; 0 where there is none. */
static long long process_bytes(const char *key) {
    FILE *file = fopen("/proc/self/status", "r");
    char line[256];
    long long kib = 0;
    while (file && fgets(line, sizeof line, file))
        if (strncmp(line, key, strlen(key)) == 0 && line[strlen(key)] == ':') kib = atoll(line + strlen(key) + 1);
    if (file) fclose(file);
    return kib * 1024;
}

/* So that the peak leaves out what the roofs took. */
static void forget_peak(void) {
    FILE *file = fopen("/proc/self/clear_refs", "w");
    if (!file) return;
    fputs("5\n", file);
    fclose(file);
}

/* ---- the work ---- */

static int64_t config_int(const bench_state *s, const char *key) {
    int64_t value = 0;
    return pg_model_get_config_int(s->model, key, &value) < 0 ? 0 : value;
}

/* Floating-point operations of the whole prompt, and bytes of a step: what the model asks for, whether or not an
 * implementation can leave some of it out. */
static void count_work(bench_state *s) {
    double n = s->info.n_image_tokens, t = n + (double)s->prompt_tokens, context = t + 0.5 * (double)s->new_tokens;
    double d = (double)config_int(s, "vision_config.hidden_size"),
           mlp = (double)config_int(s, "vision_config.intermediate_size"),
           layers = (double)config_int(s, "vision_config.num_hidden_layers"),
           patch = (double)config_int(s, "vision_config.patch_size"),
           hidden = (double)config_int(s, "text_config.hidden_size");
    s->image_flop =
        2 * n * (layers * (4 * d * d + 2 * d * mlp) + 3 * patch * patch * d + d * hidden) + layers * 4 * n * n * d;
    double heads = (double)config_int(s, "text_config.num_attention_heads"),
           kv_heads = (double)config_int(s, "text_config.num_key_value_heads"),
           head = (double)config_int(s, "text_config.head_dim");
    layers = (double)config_int(s, "text_config.num_hidden_layers");
    double matrices = layers * hidden *
                      (head * (2 * heads + 2 * kv_heads) + 3 * (double)config_int(s, "text_config.intermediate_size"));
    double output = hidden * s->info.vocab_size;
    s->prefill_flop = 2 * t * matrices + layers * 4 * t * t * heads * head + 2 * output;
    const uint64_t bytes = s->info.n_bytes_mapped ? s->info.n_bytes_mapped : s->memory.weights_copied;
    const int is_mix = s->info.weights == PG_WEIGHTS_INT4 && s->info.n_int8_matrices > 0; /* then: on average */
    double weight = s->info.weights == PG_WEIGHTS_INT8              ? 8.25 / 8
                    : s->info.weights == PG_WEIGHTS_INT4 && !is_mix ? 4.25 / 8
                                                                    : (double)bytes / (double)s->info.n_parameters;
    s->step_bytes = (matrices + output) * weight + context * (double)s->memory.kv_cache / (double)s->memory.n_tokens;
}

static void draw_image(unsigned char *p) {
    for (int y = 0; y < IMAGE_HEIGHT; y++)
        for (int x = 0; x < IMAGE_WIDTH; x++, p += 3) {
            p[0] = (unsigned char)(x * 255 / IMAGE_WIDTH);
            p[1] = (unsigned char)(y * 255 / IMAGE_HEIGHT);
            p[2] = (unsigned char)((x / 32 + y / 32) % 2 * 200);
        }
}

/* An id of plain text: none of the special ones. */
static int64_t draw_id(bench_state *s) {
    const pg_processor_info *t = &s->tokens;
    for (;;) {
        s->random = s->random * 6364136223846793005u + 1442695040888963407u;
        int64_t id = (int64_t)((s->random >> 33) % (uint64_t)s->info.vocab_size);
        if (id != t->pad_id && id != t->eos_id && id != t->bos_id && id != t->unk_id && id != t->image_id) return id;
    }
}

/* Image tokens, bos, random ids, newline; attention is full, as in every prompt. */
static pg_status make_row(bench_state *s) {
    pg_tensor empty = {.struct_size = sizeof empty};
    pg_status status = pg_inputs_get_tensor(s->inputs, "input_ids", &empty); /* of the empty prompt */
    if (status < 0) return status;
    int64_t n_empty = empty.shape[1], n = s->info.n_image_tokens + s->prompt_tokens;
    if (n_empty > n) n = n_empty;
    int64_t *ids = calloc((size_t)n * 2, sizeof *ids);
    if (!ids) return PG_ERROR_MEMORY;
    memcpy(ids, empty.data, (size_t)n_empty * sizeof *ids);
    for (int64_t i = n_empty - 1; i < n - 1; i++) ids[i] = draw_id(s);
    ids[n - 1] = ((const int64_t *)empty.data)[n_empty - 1];
    pg_tensor input_ids = {sizeof input_ids, PG_DTYPE_I64, 2, 0, {1, n, 1, 1}, ids}, types = input_ids;
    types.data = ids + n;
    pg_input_arrays arrays;
    pg_input_arrays_init(&arrays, sizeof arrays);
    arrays.input_ids = &input_ids;
    arrays.token_type_ids = &types;
    pg_inputs_close(&s->row);
    status = pg_inputs_create(&arrays, &s->row);
    free(ids);
    return status;
}

static pg_status encode(bench_state *s, double *seconds) {
    pg_image image;
    pg_run_options options;
    pg_run_options_init(&options, sizeof options);
    options.n_threads = s->shared.n_threads;
    options.cancel = s->cancel;
    options.progress = tool_progress_update;
    options.progress_user = &s->progress;
    pg_inputs_close(&s->inputs);
    pg_features_close(&s->features);
    double start = tool_seconds();
    pg_status status =
        pg_image_from_pixels(&image, sizeof image, PG_IMAGE_RGB8, IMAGE_WIDTH, IMAGE_HEIGHT, s->pixels, 0);
    if (status >= 0) status = pg_processor_encode(s->processor, &image, "", NULL, &s->inputs);
    if (status >= 0) status = pg_features_create(s->model, s->inputs, &options, &s->features);
    *seconds = tool_seconds() - start;
    return status;
}

/* A camera's frame becomes the pixels that the model takes, on the calling thread. */
static pg_status time_frame(bench_state *s) {
    enum { TIMES = 20 };
    pg_status status = PG_OK;
    unsigned char *frame = malloc(FRAME_BYTES);
    if (!frame) return PG_ERROR_MEMORY;
    for (size_t i = 0; i < FRAME_BYTES; i++) frame[i] = (unsigned char)(i * 2654435761u >> 13);
    for (int i = 0; i <= TIMES && status >= 0; i++) {
        pg_image image;
        pg_batch batch;
        pg_inputs *inputs = NULL;
        pg_batch_init(&batch, sizeof batch);
        batch.n_images = 1;
        batch.images = &image;
        const double start = tool_seconds();
        status = pg_image_from_pixels(&image, sizeof image, PG_IMAGE_NV12, FRAME_WIDTH, FRAME_HEIGHT, frame, 0);
        if (status >= 0) status = pg_processor_encode_batch(s->processor, &batch, NULL, &inputs);
        /* the first one is not counted */
        if (status >= 0 && i > 0 && !add_sample(&s->frame, tool_seconds() - start)) status = PG_ERROR_MEMORY;
        pg_inputs_close(&inputs);
    }
    free(frame);
    return status;
}

/* Prefill and up to n steps into s->step; the first step after a prefill only samples and is not counted. */
static pg_status prefill_and_decode(bench_state *s, int64_t *n, double *seconds) {
    double start = tool_seconds();
    pg_status status = pg_session_prefill(s->session, s->row, s->features);
    *seconds = tool_seconds() - start;
    int64_t token;
    if (status >= 0) status = pg_session_step(s->session, &token);
    while (status == PG_OK && *n > 0) {
        start = tool_seconds();
        status = pg_session_step(s->session, &token);
        if (status < 0 || status == PG_EVENT_LENGTH) break;
        if (!add_sample(&s->step, tool_seconds() - start)) return PG_ERROR_MEMORY;
        --*n;
    }
    return status < 0 ? status : PG_OK;
}

/* A model may end its text soon: it is then asked again with other ids. */
static pg_status one_round(bench_state *s) {
    double image, prefill;
    int64_t steps = s->new_tokens;
    pg_status status = encode(s, &image);
    for (int i = 0; status >= 0 && steps > 0 && i < MAX_REPEATS; i++) {
        status = make_row(s);
        if (status >= 0) status = prefill_and_decode(s, &steps, &prefill);
        if (status < 0) break;
        if (!add_sample(&s->prefill, prefill)) return PG_ERROR_MEMORY;
        if (!i && (!add_sample(&s->image, image) || !add_sample(&s->first, image + prefill))) return PG_ERROR_MEMORY;
    }
    tool_progress_clear(&s->progress);
    return status;
}

static pg_status all_rounds(bench_state *s) {
    pg_session_options options;
    pg_session_options_init(&options, sizeof options);
    options.n_threads = s->shared.n_threads;
    options.max_new_tokens = (int32_t)s->new_tokens + 1;
    options.max_prompt_tokens = s->info.n_image_tokens + (int32_t)s->prompt_tokens;
    options.cancel = s->cancel;
    options.progress = tool_progress_update;
    options.progress_user = &s->progress;
    pg_status status = pg_session_create(s->model, &options, &s->session);
    if (status >= 0) status = one_round(s);
    if (status < 0) return status;
    s->cold_s = s->first.at[0];
    s->image.n = s->prefill.n = s->first.n = s->step.n = 0;
    for (int64_t i = 0; status >= 0 && i < s->rounds; i++) status = one_round(s);
    s->rss_peak = process_bytes("VmHWM");
    s->rss_own = process_bytes("RssAnon");
    s->rss_mapped = process_bytes("RssFile");
    if (status >= 0) status = time_frame(s);
    samples *all[] = {&s->frame, &s->image, &s->prefill, &s->first, &s->step};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) qsort(all[i]->at, all[i]->n, sizeof(double), by_value);
    return status;
}

/* ---- what is told ---- */

static double share(double work, double seconds, double roof) {
    return seconds > 0 && roof > 0 ? work / seconds / roof : 0;
}

/* The roof of the products of linear layers (*name, may be NULL): quantized weights meet 8-bit activations. */
static double product_roof(const bench_state *s, const char **name) {
    const roofs *r = &s->roofs;
    const int quantized = s->info.weights != PG_WEIGHTS_STORED && r->int8 > 0;
    const int bf16 = !quantized && s->info.arithmetic == PG_ARITHMETIC_BF16 && r->bf16 > 0;
    if (name) *name = quantized ? "int8" : bf16 ? "bf16" : "f32";
    return quantized ? r->int8 : bf16 ? r->bf16 : r->f32;
}

/* Then memory is not what a step waits for. */
static int fits_caches(const bench_state *s) { return s->step_bytes < 256e6; }

static void print_row(const char *name, const samples *times, double work, double roof, const char *roof_name) {
    int small = least(times) < 0.1;
    printf("%-14s%9.3f %-2s%8.3f %-2s", name, median(times) * (small ? 1e3 : 1), small ? "ms" : "s",
           least(times) * (small ? 1e3 : 1), small ? "ms" : "s");
    if (share(work, least(times), roof) > 0)
        printf("   %.0f%% (best %.0f%%) of %s", 100 * share(work, median(times), roof),
               100 * share(work, least(times), roof), roof_name);
    putchar('\n');
}

static void print_text(const bench_state *s) {
    char a[32], b[32], c[32], d[32];
    const roofs *r = &s->roofs;
    const char *products;
    const double product = product_roof(s, &products);
    printf("model         %s: Gemma %d decoder, weights %s, arithmetic %s\n", s->path, (int)s->info.gemma_version,
           tool_weights_names[s->info.weights], tool_arithmetic_names[s->info.arithmetic]);
    printf("machine       %d threads, kernels ", (int)s->memory.n_threads);
    tool_print_names(s->info.cpu_used, tool_cpu_names, tool_n_cpu_names);
    putchar('\n');
    if (!s->no_roofs) {
        printf("roofs         f32 %.0f GFLOP/s (%s), int8 %.0f GOP/s (%s), ", r->f32 / 1e9, r->f32_probe.name,
               r->int8 / 1e9, r->int8_probe.name);
        if (r->bf16 > 0) printf("bf16 %.0f GFLOP/s (%s), ", r->bf16 / 1e9, r->bf16_probe.name);
        printf("read %.1f GB/s\n", r->read / 1e9);
    }
    printf("work          %d px, %d image and %lld text tokens, then %lld new; image %.4g, prompt %.4g GFLOP\n",
           (int)s->info.image_size, (int)s->info.n_image_tokens, (long long)s->prompt_tokens, (long long)s->new_tokens,
           s->image_flop / 1e9, s->prefill_flop / 1e9);
    printf(
        "load          model %.3f s, processor (the tokenizer) %.3f s; the first answer's first token then took %.3f "
        "s,\n"
        "              as it reads the files\n\n",
        s->model_s, s->processor_s, s->cold_s);
    printf("%-14s%12s%11s\n", "", "median ", "best ");
    print_row("a frame", &s->frame, 0, 0, "");
    print_row("image", &s->image, s->image_flop, product, products);
    print_row("prompt", &s->prefill, s->prefill_flop, product, products);
    print_row("first token", &s->first, s->image_flop + s->prefill_flop, product, products);
    print_row("a new token", &s->step, s->step_bytes, fits_caches(s) ? 0 : r->read, "read");
    if (s->step.n) printf("%-14s%9.2f /s%9.2f /s\n", "decode", 1 / median(&s->step), 1 / least(&s->step));
    if (s->rss_peak)
        printf(
            "\nmemory        %s resident at the most; at the end %s its own and %s mapped (shared between processes)\n",
            tool_size_text((uint64_t)s->rss_peak, a), tool_size_text((uint64_t)s->rss_own, b),
            tool_size_text((uint64_t)s->rss_mapped, c));
    printf("              KV cache %s, %s\n", tool_size_text(s->memory.kv_cache, d), tool_kv_names[s->info.kv]);
}

static json_t *times_json(const samples *s) {
    return json_pack("{s:f, s:f, s:i}", "median", median(s), "best", least(s), "n", (int)s->n);
}

static json_t *roof_json(const char *name, double value) {
    return json_pack("{s:f, s:s}", "per_s", value, "instruction", name);
}

static json_t *make_json(const bench_state *s) {
    const roofs *r = &s->roofs;
    json_t *object = json_pack(
        "{s:s, s:s, s:s, s:s, s:s, s:i, s:o, s:i, s:i, s:i, s:I, s:I, s:I, s:f, s:f, s:f, s:f, s:o, s:o, s:o, s:o, "
        "s:o}",
        "model", s->path, "version", pg_version_string(), "weights", tool_weights_names[s->info.weights], "arithmetic",
        tool_arithmetic_names[s->info.arithmetic], "kv", tool_kv_names[s->info.kv], "gemma_version",
        (int)s->info.gemma_version, "kernels", tool_names_json(s->info.cpu_used, tool_cpu_names, tool_n_cpu_names),
        "threads", (int)s->memory.n_threads, "image_size", (int)s->info.image_size, "image_tokens",
        (int)s->info.n_image_tokens, "prompt_tokens", (json_int_t)s->prompt_tokens, "new_tokens",
        (json_int_t)s->new_tokens, "rounds", (json_int_t)s->rounds, "load_s", s->model_s + s->processor_s,
        "model_open_s", s->model_s, "processor_open_s", s->processor_s, "first_answer_s", s->cold_s, "image_s",
        times_json(&s->image), "prefill_s", times_json(&s->prefill), "first_token_s", times_json(&s->first), "step_s",
        times_json(&s->step), "frame_s", times_json(&s->frame));
    json_object_set_new(object, "work",
                        json_pack("{s:f, s:f, s:f}", "image_flop", s->image_flop, "prefill_flop", s->prefill_flop,
                                  "step_bytes", s->step_bytes));
    json_object_set_new(object, "memory",
                        json_pack("{s:I, s:I, s:I, s:I, s:I}", "resident_peak", (json_int_t)s->rss_peak, "own",
                                  (json_int_t)s->rss_own, "mapped", (json_int_t)s->rss_mapped, "files",
                                  (json_int_t)s->info.n_bytes_mapped, "kv_cache", (json_int_t)s->memory.kv_cache));
    if (s->no_roofs) return object;
    const char *products;
    const double product = product_roof(s, &products);
    json_object_set_new(
        object, "roofs",
        json_pack("{s:o, s:o, s:o, s:o}", "f32", roof_json(r->f32_probe.name, r->f32), "int8",
                  roof_json(r->int8_probe.name, r->int8), "bf16", roof_json(r->bf16_probe.name, r->bf16), "read",
                  roof_json("the fastest of 1 to 8 streams", r->read)));
    json_object_set_new(
        object, "share_of_roof",
        json_pack("{s:f, s:f, s:f, s:s}", "image", share(s->image_flop, least(&s->image), product), "prefill",
                  share(s->prefill_flop, least(&s->prefill), product), "decode",
                  share(s->step_bytes, least(&s->step), fits_caches(s) ? 0 : r->read), "products", products));
    return object;
}

static int run_bench(bench_state *s) {
    pg_model_options options = s->shared.model;
    options.progress = tool_progress_update;
    options.progress_user = &s->progress;
    s->log.progress = &s->progress; /* kept: the processor tells of images while the rounds run */
    pg_processor_options processor_options;
    pg_processor_options_init(&processor_options, sizeof processor_options);
    options.log = processor_options.log = tool_log_line;
    options.log_user = processor_options.log_user = &s->log;
    pg_status status = tool_interrupt_open(&s->cancel);
    options.cancel = s->cancel;

    double start = tool_seconds();
    if (status >= 0) status = pg_model_open(s->path, &options, &s->model);
    if (status >= 0) status = tool_add_adapters(&s->shared.adapters, s->cancel, NULL, &s->model);
    s->model_s = tool_seconds() - start;
    if (status >= 0) status = pg_processor_open(s->path, &processor_options, &s->processor);
    s->processor_s = tool_seconds() - start - s->model_s;
    tool_progress_clear(&s->progress);
    s->info.struct_size = sizeof s->info;
    s->tokens.struct_size = sizeof s->tokens;
    s->memory.struct_size = sizeof s->memory;
    if (status >= 0) status = pg_model_get_info(s->model, &s->info);
    if (status >= 0) status = pg_processor_get_info(s->processor, &s->tokens);
    s->memory.n_threads = s->shared.n_threads;
    s->memory.n_tokens = s->info.n_image_tokens + s->prompt_tokens + s->new_tokens;
    if (status >= 0) status = pg_model_get_memory(s->model, &s->memory);
    if (status < 0) return tool_fail(status, TOOL_STAGE_MODEL);
    if (!s->memory.n_threads) s->memory.n_threads = tool_cpu_count();

    s->pixels = malloc((size_t)3 * IMAGE_WIDTH * IMAGE_HEIGHT);
    if (!s->pixels) return tool_fail_text("no memory");
    draw_image(s->pixels);
    count_work(s);
    measure_roofs(s);
    forget_peak();
    status = all_rounds(s);
    if (status < 0) return tool_fail(status, TOOL_STAGE_GENERATE);
    measure_roofs(s);
    if (s->json) return tool_print_json(make_json(s));
    print_text(s);
    return tool_close_stdout();
}

static int bench(const tool_verb *verb, int argc, char **argv) {
    bench_state s = {.prompt_tokens = 16, .new_tokens = 16, .rounds = 3, .random = 1};
    const tool_option options[] = {
        {.name = "--prompt-tokens", .number = &s.prompt_tokens, .least = 2, .most = 1 << 20},
        {.name = "--new-tokens", .number = &s.new_tokens, .least = 1, .most = 1 << 20},
        {.name = "--rounds", .number = &s.rounds, .least = 1, .most = 1000},
        {.name = "--no-roofs", .flag = &s.no_roofs},
        {.name = "--json", .flag = &s.json},
    };
    int status = tool_parse(verb, argc, argv, options, sizeof options / sizeof options[0], &s.path, &s.shared);
    if (status >= 0) return status;
    tool_progress_init(&s.progress);
    status = run_bench(&s);
    pg_features_close(&s.features);
    pg_inputs_close(&s.row);
    pg_inputs_close(&s.inputs);
    pg_session_close(&s.session);
    pg_processor_close(&s.processor);
    pg_model_close(&s.model);
    free(s.pixels);
    free(s.frame.at);
    free(s.image.at);
    free(s.prefill.at);
    free(s.first.at);
    free(s.step.at);
    tool_interrupt_close(&s.cancel);
    return status;
}

const tool_verb tool_bench = {"bench", help, 1, TOOL_OPTIONS_MODEL | TOOL_OPTIONS_MACHINE | TOOL_OPTIONS_THREADS,
                              bench};
