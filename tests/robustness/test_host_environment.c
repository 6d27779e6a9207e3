/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The host's floating-point environment: no result depends on it, nothing dies of its traps, callbacks see it, and it
 * is what it was when a call returns. */
#include "run_tests.h"

#include <fenv.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "support.h"
#include "tiny.h"

enum { NORMAL, EXTREME, N_FOLDERS }; /* EXTREME: NaN, infinite, huge and denormal numbers among the weights */

static char folders[N_FOLDERS][512];
static bytes images[2]; /* files: JPEG and PNG */

static fenv_t before;

static void restore(void) { fesetenv(&before); }

#define OK(call)                                                                     \
    do {                                                                             \
        pg_status status_ = (call);                                                  \
        if (status_ != PG_OK) {                                                      \
            restore();                                                               \
            fail_msg("%s: %s: %s", #call, pg_status_name(status_), pg_last_error()); \
        }                                                                            \
    } while (0)

/* ------------------------------------------------------------------------------------------------ environments */

/* What a host may set, and what must be the same after a call. */
typedef struct environment {
    int rounding, traps, flags;
    unsigned machine; /* everything that the machine keeps, flushing included; 0 where we cannot look */
} environment;

typedef struct mode {
    int rounding, flush, traps;
} mode;

#if defined(__x86_64__)
static unsigned machine(void) { return __builtin_ia32_stmxcsr(); }
static void flush_denormals(void) { __builtin_ia32_ldmxcsr(machine() | 0x8040); /* FTZ and DAZ */ }
/* Sticky flags, without the traps that raising them would spring. */
static void set_flags(void) { __builtin_ia32_ldmxcsr(machine() | 0x15); }
#elif defined(__aarch64__)
static unsigned machine(void) {
    uint64_t control, status;
    __asm__ volatile("mrs %0, fpcr" : "=r"(control));
    __asm__ volatile("mrs %0, fpsr" : "=r"(status));
    return (unsigned)(control ^ (status << 8));
}
static void flush_denormals(void) {
    uint64_t control;
    __asm__ volatile("mrs %0, fpcr" : "=r"(control));
    __asm__ volatile("msr fpcr, %0" : : "r"(control | (1u << 24)));
}
static void set_flags(void) { feraiseexcept(FE_INVALID); }
#else
static unsigned machine(void) { return 0; }
static void flush_denormals(void) {}
static void set_flags(void) {}
#endif

static void set_mode(const mode *m) {
    restore();
    set_flags();
    fesetround(m->rounding);
    if (m->flush) flush_denormals();
    if (m->traps) feenableexcept(FE_ALL_EXCEPT); /* CPUs that have no traps refuse */
}

static environment look(void) {
    return (environment){fegetround(), fegetexcept(), fetestexcept(FE_ALL_EXCEPT), machine()};
}

static int same(environment a, environment b) {
    return a.rounding == b.rounding && a.traps == b.traps && a.flags == b.flags && a.machine == b.machine;
}

/* Every rounding, with and without flushing, with and without traps. */
enum { N_MODES = 16 };
static mode mode_of(int i) {
    static const int roundings[] = {FE_TONEAREST, FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO};
    return (mode){roundings[i % 4], i / 4 % 2, i / 8};
}

/* ----------------------------------------------------------------------------------------------------- folders */

/* Numbers at the edges, in the place of some of the weights of a file with f32. */
static void make_extreme(const char *folder, const char *name) {
    static const uint32_t numbers[] = {0x7fc00000 /* NaN */,  0x7f7fffff /* largest */,  0x00000001 /* denormal */,
                                       0x80400000 /* same */, 0x7f800000 /* infinite */, 0x00ffffff /* small */};
    bytes file = read_file(folder, name);
    uint64_t header;
    memcpy(&header, file.data, sizeof header);
    size_t n = 0;
    for (size_t at = 8 + header + 4 * 31; at + 4 <= file.size; at += (size_t)4 * 397)
        memcpy(file.data + at, &numbers[n++ % 6], 4);
    write_file(folder, name, file.data, file.size);
    bytes_free(&file);
}

static int setup(void **state) {
    (void)state;
    fegetenv(&before);
    for (int i = 0; i < N_FOLDERS; i++) {
        tiny_options options = i == NORMAL ? tiny_official() : tiny_saved_today();
        options.n_shards = 1;
        options.image_size = 32;
        make_temp_folder(folders[i], sizeof folders[i]);
        tiny_write(folders[i], &options);
    }
    make_extreme(folders[EXTREME], "model.safetensors");
    images[0] = tiny_image(IMAGE_JPEG, 53, 41, 7);
    images[1] = tiny_image(IMAGE_PNG, 19, 80, 8);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    for (int i = 0; i < N_FOLDERS; i++) remove_folder(folders[i]);
    for (int i = 0; i < 2; i++) bytes_free(&images[i]);
    return 0;
}

/* -------------------------------------------------------------------------------------------------- everything */

/* A host whose callbacks look at the environment. */
typedef struct host {
    environment expected;
    int64_t n_log, n_progress, n_text, n_logits, n_mask, n_alloc, n_free, n_bad;
    const pg_processor *processor; /* a callback calls it */
    int interferes;                /* callbacks set another rounding and raise a flag */
} host;

static void see(host *h, int64_t *count) {
    ++*count;
    if (!same(look(), h->expected)) h->n_bad++;
}

static void on_log(void *user, int32_t level, const char *message) {
    host *h = user;
    (void)level, (void)message;
    see(h, &h->n_log);
}

static int32_t on_progress(void *user, int32_t phase, int64_t done, int64_t total) {
    host *h = user;
    int64_t ids[8];
    size_t n;
    (void)phase, (void)done, (void)total;
    see(h, &h->n_progress);
    if (h->processor) {
        OK(pg_processor_tokenize(h->processor, "a cat", 0, ids, 8, &n));
        if (!same(look(), h->expected)) h->n_bad++;
    }
    if (h->interferes) {
        fesetround(FE_UPWARD);
        set_flags();
        h->expected = look();
    }
    return 0;
}

static int32_t on_text(void *user, int64_t row, const char *text, size_t size, int64_t token) {
    host *h = user;
    (void)row, (void)text, (void)size, (void)token;
    see(h, &h->n_text);
    return 0;
}

static int32_t on_logits(void *user, int64_t row, const int64_t *ids, int64_t n_ids, float *logits,
                         int64_t vocab_size) {
    host *h = user;
    (void)row, (void)ids, (void)n_ids, (void)logits, (void)vocab_size;
    see(h, &h->n_logits);
    return 0;
}

static int32_t on_mask(void *user, int64_t row, const int64_t *ids, int64_t n_ids, uint32_t *mask, int64_t vocab_size) {
    host *h = user;
    (void)row, (void)ids, (void)n_ids;
    memset(mask, 0xFF, (size_t)(vocab_size + 31) / 32 * sizeof *mask);
    see(h, &h->n_mask);
    return 0;
}

static void *on_alloc(void *user, size_t size, size_t alignment) {
    host *h = user;
    void *block = NULL;
    see(h, &h->n_alloc);
    return posix_memalign(&block, alignment, size) == 0 ? block : NULL;
}

static void on_free(void *user, void *block) {
    host *h = user;
    see(h, &h->n_free);
    free(block);
}

static void add_tensor(bytes *out, const pg_tensor *tensor) {
    size_t n = tensor->dtype == PG_DTYPE_I64 ? 8 : 4;
    for (int i = 0; i < tensor->n_dims; i++) n *= (size_t)tensor->shape[i];
    bytes_add(out, tensor->data, n);
}

static void add_config(const pg_model *model, bytes *out) {
    static char text[16384];
    double eps;
    OK(pg_model_get_config(model, "", text, sizeof text, NULL));
    bytes_add(out, text, strlen(text));
    OK(pg_model_get_config_float(model, "text_config.rms_norm_eps", &eps));
    bytes_add(out, &eps, sizeof eps);
}

/* way: PG_MODE_HF or _BIG_VISION. */
static pg_inputs *encode(const pg_processor *processor, int32_t way, bytes *out) {
    pg_encode_options options;
    pg_inputs *inputs = NULL;
    pg_image file;
    pg_tensor tensor = {.struct_size = sizeof tensor};
    OK(pg_encode_options_init(&options, sizeof options));
    OK(pg_image_from_bytes(&file, sizeof file, images[way].data, images[way].size));
    options.mode = way;
    OK(pg_processor_encode(processor, &file, "the cat", &options, &inputs));
    OK(pg_inputs_get_tensor(inputs, "pixel_values", &tensor));
    add_tensor(out, &tensor);
    OK(pg_inputs_get_tensor(inputs, "input_ids", &tensor));
    add_tensor(out, &tensor);
    return inputs;
}

static void forward(const pg_model *model, const pg_inputs *inputs, int n_threads, host *h, bytes *out) {
    static const char *const names[] = {"logits", "hidden_states", "image_hidden_states"};
    pg_forward_options options;
    pg_outputs *outputs = NULL;
    pg_tensor tensor = {.struct_size = sizeof tensor};
    OK(pg_forward_options_init(&options, sizeof options));
    options.flags = PG_FORWARD_HIDDEN_STATES;
    options.n_threads = n_threads;
    options.progress = on_progress;
    options.progress_user = h;
    OK(pg_forward(model, inputs, &options, &outputs));
    for (int i = 0; i < 3; i++) {
        OK(pg_outputs_get_tensor(outputs, names[i], &tensor));
        add_tensor(out, &tensor);
    }
    pg_outputs_close(&outputs);
}

static void generate(const pg_model *model, const pg_processor *processor, const pg_inputs *inputs, int n_threads,
                     host *h, bytes *out) {
    static const char *const names[] = {"ids", "log_probs", "score_log_probs", "logits", "scores"};
    pg_generate_options options;
    pg_sampling_options sampling;
    pg_result *result = NULL;
    pg_tensor tensor = {.struct_size = sizeof tensor};
    OK(pg_generate_options_init(&options, sizeof options));
    OK(pg_sampling_options_init(&sampling, sizeof sampling));
    sampling.flags = PG_SAMPLING_RANDOM | PG_SAMPLING_RENORMALIZE | PG_SAMPLING_REMOVE_INVALID;
    sampling.temperature = 0.7;
    sampling.top_p = 0.9;
    sampling.min_p = 0.001;
    sampling.typical_p = 0.95;
    sampling.eta_cutoff = 1e-4;
    sampling.repetition_penalty = 1.1;
    sampling.decay_factor = 1.01;
    sampling.on_logits = on_logits;
    sampling.on_mask = on_mask;
    sampling.on_logits_user = sampling.on_mask_user = h;
    if (n_threads > 1) options.sampling = &sampling; /* of the two calls one is greedy */
    options.flags = PG_GENERATE_LOG_PROBS | PG_GENERATE_LOGITS | PG_GENERATE_SCORES;
    options.n_threads = n_threads;
    options.max_new_tokens = 5;
    options.progress = on_progress;
    options.on_text = on_text;
    options.progress_user = options.on_text_user = h;
    OK(pg_generate(model, processor, inputs, &options, &result));
    for (int i = 0; i < 5; i++) {
        OK(pg_result_get_tensor(result, 0, names[i], &tensor));
        add_tensor(out, &tensor);
    }
    bytes_text(out, pg_result_get_text(result, 0));
    pg_result_close(&result);
}

static void step(const pg_model *model, const pg_inputs *inputs, int n_threads, bytes *out) {
    pg_session_options options;
    pg_run_options run;
    pg_session *session = NULL;
    pg_features *features = NULL;
    pg_tensor tensor = {.struct_size = sizeof tensor};
    int64_t token;
    OK(pg_session_options_init(&options, sizeof options));
    OK(pg_run_options_init(&run, sizeof run));
    options.n_threads = run.n_threads = n_threads;
    OK(pg_features_create(model, inputs, &run, &features));
    OK(pg_features_get_tensor(features, &tensor));
    add_tensor(out, &tensor);
    OK(pg_session_create(model, &options, &session));
    OK(pg_session_prefill(session, inputs, features));
    for (int i = 0; i < 3; i++) {
        OK(pg_session_get_logits(session, &tensor));
        add_tensor(out, &tensor);
        if (pg_session_step(session, &token) != PG_OK) break;
        bytes_add(out, &token, sizeof token);
    }
    pg_session_close(&session);
    pg_features_close(&features);
}

static void convert(const char *folder, int32_t weights, bytes *out) {
    char name[600];
    pg_convert_options options;
    OK(pg_convert_options_init(&options, sizeof options));
    options.weights = weights;
    options.n_threads = 2;
    make_temp_folder(name, sizeof name);
    OK(pg_model_convert(folder, name, &options));
    bytes file = read_file(name, "model.safetensors");
    bytes_add(out, file.data, file.size);
    bytes_free(&file);
    remove_folder(name);
}

/* All that is computed from a folder in the mode that is set, appended to `out`. */
static void everything(const char *folder, uint64_t cpu_mask, int32_t weights, host *h, bytes *out) {
    pg_allocator allocator = {.struct_size = sizeof allocator, .user = h, .alloc = on_alloc, .free = on_free};
    pg_model_options options;
    pg_processor_options processor_options;
    pg_model *model = NULL;
    pg_processor *processor = NULL;
    OK(pg_model_options_init(&options, sizeof options));
    OK(pg_processor_options_init(&processor_options, sizeof processor_options));
    options.cpu_mask = processor_options.cpu_mask = cpu_mask;
    options.allocator = processor_options.allocator = &allocator;
    options.weights = weights;
    options.log = processor_options.log = on_log;
    options.progress = on_progress;
    options.log_user = options.progress_user = processor_options.log_user = h;
    options.n_threads = 2;
    OK(pg_model_open(folder, &options, &model));
    OK(pg_processor_open(folder, &processor_options, &processor));
    h->processor = processor;
    add_config(model, out);
    for (int i = 0; i < 2; i++) {
        pg_inputs *inputs = encode(processor, i, out);
        forward(model, inputs, 1 + i, h, out);
        generate(model, processor, inputs, 1 + i, h, out);
        step(model, inputs, 3, out);
        pg_inputs_close(&inputs);
    }
    h->processor = NULL;
    pg_processor_close(&processor);
    pg_model_close(&model);
}

/* ------------------------------------------------------------------------------------------------------- tests */

static void check_modes(const char *folder, uint64_t cpu_mask, int32_t weights) {
    bytes expected = {0};
    host calm = {.expected = (restore(), look())};
    everything(folder, cpu_mask, weights, &calm, &expected);
    assert_true(expected.size > 10000);
    for (int i = 0; i < N_MODES; i++) {
        const mode m = mode_of(i);
        bytes found = {0};
        set_mode(&m);
        host h = {.expected = look()};
        everything(folder, cpu_mask, weights, &h, &found);
        environment after = look();
        restore();
        if (!same(after, h.expected)) fail_msg("mode %d: the environment is another after the calls", i);
        if (h.n_bad) fail_msg("mode %d: %lld callbacks saw another environment", i, (long long)h.n_bad);
        assert_true(h.n_log && h.n_progress > 4 && h.n_text && h.n_logits && h.n_mask && h.n_alloc && h.n_free);
        if (found.size != expected.size || memcmp(found.data, expected.data, found.size) != 0)
            fail_msg("mode %d: other results", i);
        bytes_free(&found);
    }
    bytes_free(&expected);
}

static void results_are_the_same_in_every_mode(void **state) {
    (void)state;
    for (int f = 0; f < N_FOLDERS; f++) {
        check_modes(folders[f], 0, PG_WEIGHTS_STORED);
        check_modes(folders[f], PG_CPU_BASELINE, PG_WEIGHTS_STORED);
    }
}

static void quantized_too(void **state) {
    (void)state;
    for (int32_t weights = PG_WEIGHTS_INT8; weights <= PG_WEIGHTS_INT4; weights++) {
        check_modes(folders[NORMAL], 0, weights);
        check_modes(folders[NORMAL], PG_CPU_BASELINE, weights);
    }
}

static void converted_bytes_are_the_same_in_every_mode(void **state) {
    bytes expected = {0};
    (void)state;
    convert(folders[NORMAL], PG_WEIGHTS_INT8, &expected);
    convert(folders[NORMAL], PG_WEIGHTS_INT4, &expected);
    for (int i = 0; i < N_MODES; i++) {
        const mode m = mode_of(i);
        bytes found = {0};
        set_mode(&m);
        const environment set = look();
        convert(folders[NORMAL], PG_WEIGHTS_INT8, &found);
        convert(folders[NORMAL], PG_WEIGHTS_INT4, &found);
        environment after = look();
        restore();
        assert_true(same(after, set));
        assert_int_equal(found.size, expected.size);
        assert_memory_equal(found.data, expected.data, found.size);
        bytes_free(&found);
    }
    bytes_free(&expected);
}

/* Numbers that no file has, given by the host: the edges of what is finite run, and what is not is refused. */
static void given_numbers_spring_no_trap(void **state) {
    static const float edges[] = {3e38f, -3e38f, 1e-40f, -1e-45f, 1e-20f};
    const uint32_t signalling = 0x7fa00000; /* a NaN: comparing and converting it traps */
    enum { N = 8, HIDDEN_MOST = 4096 };
    static float rows[N * HIDDEN_MOST], pixels[3 * 32 * 32];
    const mode m = {FE_UPWARD, 1, 1};
    pg_model *model = NULL;
    pg_inputs *inputs = NULL;
    pg_outputs *outputs = NULL;
    pg_input_arrays arrays, squares;
    int64_t hidden;
    (void)state;
    OK(pg_model_open(folders[NORMAL], NULL, &model));
    OK(pg_model_get_config_int(model, "text_config.hidden_size", &hidden));
    assert_true(hidden <= HIDDEN_MOST);
    for (int64_t i = 0; i < N * hidden; i++) rows[i] = edges[i % 5];
    memcpy(&pixels[17], &signalling, sizeof signalling);
    OK(pg_input_arrays_init(&arrays, sizeof arrays));
    OK(pg_input_arrays_init(&squares, sizeof squares));
    arrays.inputs_embeds = &(pg_tensor){
        .struct_size = sizeof(pg_tensor), .dtype = PG_DTYPE_F32, .n_dims = 3, .shape = {1, N, hidden, 1}, .data = rows};
    squares.pixel_values = &(pg_tensor){
        .struct_size = sizeof(pg_tensor), .dtype = PG_DTYPE_F32, .n_dims = 4, .shape = {1, 3, 32, 32}, .data = pixels};
    set_mode(&m);
    pg_status status[4] = {pg_inputs_create(&arrays, &inputs), PG_ERROR_STATE};
    if (inputs) status[1] = pg_forward(model, inputs, NULL, &outputs);
    pg_outputs_close(&outputs);
    pg_inputs_close(&inputs);
    memcpy(&rows[3], &signalling, sizeof signalling);
    status[2] = pg_inputs_create(&arrays, &inputs);
    status[3] = pg_inputs_create(&squares, &inputs);
    restore();
    assert_int_equal(status[0], PG_OK);
    assert_int_equal(status[1], PG_OK);
    assert_int_equal(status[2], PG_ERROR_ARGUMENT);
    assert_int_equal(status[3], PG_ERROR_ARGUMENT);
    pg_model_close(&model);
}

/* What a callback sets stays set for the host; the call computes on as before. */
static void a_callback_may_change_it(void **state) {
    bytes expected = {0}, found = {0};
    (void)state;
    host calm = {.expected = (restore(), look())}, h = calm;
    everything(folders[NORMAL], 0, PG_WEIGHTS_STORED, &calm, &expected);
    h.interferes = 1;
    everything(folders[NORMAL], 0, PG_WEIGHTS_STORED, &h, &found);
    environment after = look();
    restore();
    assert_int_equal(after.rounding, FE_UPWARD);
    assert_true(same(after, h.expected));
    assert_int_equal(h.n_bad, 0);
    assert_int_equal(found.size, expected.size);
    assert_memory_equal(found.data, expected.data, found.size);
    bytes_free(&expected);
    bytes_free(&found);
}

/* The x87 unit of a host that uses long double: its precision, its sticky flags, an exception that is pending. */
static void the_x87_unit_stays(void **state) {
    (void)state;
#if defined(__x86_64__)
    const uint16_t controls[] = {0x37F, 0x27F /* double precision */, 0xF7F /* towards zero */, 0x360 /* traps */};
    for (size_t i = 0; i < sizeof controls / sizeof *controls; i++) {
        for (int raised = 0; raised < 2; raised++) {
            struct {
                uint16_t control, unused1, status, unused2, rest[10];
            } unit, seen;
            char text[8192];
            pg_model *model = NULL;
            __asm__ volatile("fnstenv %0" : "=m"(unit));
            unit.control = controls[i];
            unit.status = raised ? 0x25 : 0; /* pending where traps are on: the next x87 instruction that looks dies */
            __asm__ volatile("fldenv %0" : : "m"(unit));
            pg_status opened = pg_model_open(folders[NORMAL], NULL, &model);
            pg_status copied = pg_model_get_config(model, "", text, sizeof text, NULL);
            pg_model_close(&model);
            __asm__ volatile("fnstenv %0" : "=m"(seen));
            restore();
            assert_int_equal(opened, PG_OK);
            assert_int_equal(copied, PG_OK);
            assert_int_equal(seen.control, controls[i]);
            assert_int_equal(seen.status & 0x3F, raised ? 0x25 : 0);
        }
    }
#else
    skip();
#endif
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(results_are_the_same_in_every_mode),
        cmocka_unit_test(quantized_too),
        cmocka_unit_test(converted_bytes_are_the_same_in_every_mode),
        cmocka_unit_test(given_numbers_spring_no_trap),
        cmocka_unit_test(a_callback_may_change_it),
        cmocka_unit_test(the_x87_unit_stays),
    };
    return RUN_TESTS(tests, setup, teardown);
}
