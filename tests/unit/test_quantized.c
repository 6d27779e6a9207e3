/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Weights quantized while a model opens (pg_model_options.weights), and arithmetic in bf16: the golden answers of the
 * demo model in every format, on every instruction set; and what opening does when it is stopped, runs out of memory or
 * meets a NaN.
 */
#include "run_tests.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include <math.h>

#include "model/model.h"
#include "generate/session.h"
#include "kernels/ref/fma.h"

static const char *const golden_cases[] = {"demo-5", "demo-6"};
#define DEMO PGI_GOLDEN_FOLDER "/../../examples/demo/model"
#define BF16_SETS (PG_CPU_AVX512_BF16 | PG_CPU_AMX_BF16 | PG_CPU_NEON_BF16)

#define OK(call)                                                                                  \
    do {                                                                                          \
        pg_status status_ = (call);                                                               \
        if (status_ < 0) fail_msg("%s: %s: %s", #call, pg_status_name(status_), pg_last_error()); \
    } while (0)

/* The golden ids of a case; returns a hash of the bits of the first token's logits. */
static uint64_t run_with(const char *name, int32_t weights, int32_t arithmetic, uint64_t cpu_mask, int32_t n_threads,
                         int32_t kv) {
    char path[1024];
    pg_model_options options;
    pg_session_options session_options;
    pg_model *model = NULL;
    pg_processor *processor = NULL;
    pg_inputs *inputs = NULL;
    pg_session *session = NULL;
    pg_image image;
    snprintf(path, sizeof path, "%s/cases/%s/case.json", PGI_GOLDEN_FOLDER, name);
    json_t *json = json_load_file(path, 0, NULL), *expected = json_object_get(json, "ids");
    assert_non_null(expected);
    OK(pg_model_options_init(&options, sizeof options));
    OK(pg_session_options_init(&session_options, sizeof session_options));
    options.weights = weights;
    options.arithmetic = arithmetic;
    options.cpu_mask = cpu_mask;
    options.kv = kv;
    session_options.n_threads = n_threads;
    OK(pg_model_open(DEMO, &options, &model));
    OK(pg_processor_open(DEMO, NULL, &processor));
    snprintf(path, sizeof path, "%s/photos/%s", PGI_GOLDEN_FOLDER, json_string_value(json_object_get(json, "image")));
    OK(pg_image_from_path(&image, sizeof image, path));
    OK(pg_processor_encode(processor, &image, json_string_value(json_object_get(json, "prompt")), NULL, &inputs));
    OK(pg_session_create(model, &session_options, &session));
    OK(pg_session_prefill(session, inputs, NULL));
    uint64_t hash = 0xCBF29CE484222325u;
    const unsigned char *bytes = (const unsigned char *)session->logits;
    for (size_t i = 0; i < (size_t)model->config.text.vocab_size * sizeof(float); i++)
        hash = (hash ^ bytes[i]) * 0x100000001B3u;
    int64_t id = -1;
    for (size_t i = 0; i < json_array_size(expected); i++) {
        OK(pg_session_step(session, &id));
        if (id != json_integer_value(json_array_get(expected, i)))
            fail_msg("%s, weights %d: id %zu is %lld", name, (int)weights, i, (long long)id);
    }
    pg_model_info info = {.struct_size = sizeof info};
    OK(pg_model_get_info(model, &info));
    assert_int_equal(info.weights, weights);
    const int bf16 = (info.cpu_used & BF16_SETS) &&
                     (arithmetic == PG_ARITHMETIC_BF16 || (!arithmetic && weights != PG_WEIGHTS_STORED));
    assert_int_equal(info.arithmetic, bf16 ? PG_ARITHMETIC_BF16 : PG_ARITHMETIC_F32);
    assert_true(info.dtypes != 0 && info.n_bytes_mapped > 0);
    const int kv_bf16 = kv == PG_KV_BF16 || (kv == PG_KV_DEFAULT && weights != PG_WEIGHTS_STORED);
    assert_int_equal(info.kv, kv_bf16 ? PG_KV_BF16 : PG_KV_F32);
    pg_memory memory = {.struct_size = sizeof memory}; /* the originals are not what it takes to run */
    OK(pg_model_get_memory(model, &memory));
    const pgi_text_config *text = &model->config.text;
    assert_int_equal(memory.kv_cache, (uint64_t)memory.n_tokens * 2 * (uint64_t)text->n_layers *
                                          (uint64_t)text->n_kv_heads * (uint64_t)text->head_dim * (kv_bf16 ? 2 : 4));
    uint64_t bits = 8 * (memory.weights + memory.weights_copied);
    uint64_t least = weights == PG_WEIGHTS_STORED ? 16 : weights == PG_WEIGHTS_INT8 ? 8 : 4;
    assert_in_range(bits / info.n_parameters, least, 2 * least - 1); /* small matrices are padded much */
    pg_session_close(&session);
    pg_inputs_close(&inputs);
    pg_processor_close(&processor);
    pg_model_close(&model);
    json_decref(json);
    return hash;
}

static uint64_t run_case(const char *name, int32_t weights, int32_t arithmetic, uint64_t cpu_mask, int32_t n_threads) {
    return run_with(name, weights, arithmetic, cpu_mask, n_threads, PG_KV_DEFAULT);
}

/* The same ids with a KV cache of either kind, and the same bits of the first token, on every instruction set. */
static void test_kv_cache(void **state) {
    (void)state;
    const uint64_t all = pgi_cpu_features();
    const uint64_t masks[] = {all, all & (PG_CPU_BASELINE | PG_CPU_AVX2), PG_CPU_BASELINE};
    for (int c = 0; c < 3; c++) {
        for (int32_t weights = PG_WEIGHTS_STORED; weights <= PG_WEIGHTS_INT4; weights++) {
            const char *name = golden_cases[c % 2];
            uint64_t exact = run_with(name, weights, PG_ARITHMETIC_DEFAULT, masks[c], 1 + c, PG_KV_F32);
            assert_true(exact == run_with(name, weights, PG_ARITHMETIC_DEFAULT, masks[c], 2, PG_KV_BF16));
        }
    }
}

/* Encoder and attention are f32 kernels of each set; so one f32 set and several for int8: bits equal. Across f32 sets
 * the ids alone. */
static void test_golden_answers(void **state) {
    (void)state;
    const uint64_t all = pgi_cpu_features(), f32 = PG_CPU_BASELINE | PG_CPU_AVX2 | PG_CPU_AVX512 | PG_CPU_NEON;
    for (int c = 0; c < 2; c++) {
        for (int32_t weights = PG_WEIGHTS_INT8; weights <= PG_WEIGHTS_INT4; weights++) {
            uint64_t hash = run_case(golden_cases[c], weights, PG_ARITHMETIC_F32, all, 1);
            assert_true(hash == run_case(golden_cases[c], weights, PG_ARITHMETIC_F32, all & f32, 2));
            const uint64_t dot = all & (f32 | PG_CPU_AVX_VNNI | PG_CPU_NEON_DOTPROD);
            assert_true(hash == run_case(golden_cases[c], weights, PG_ARITHMETIC_F32, dot, 3));
            run_case(golden_cases[c], weights, PG_ARITHMETIC_DEFAULT,
                     c ? PG_CPU_BASELINE : all & (PG_CPU_BASELINE | PG_CPU_AVX2 | PG_CPU_NEON), 2);
        }
    }
}

/* The same ids, and bits for any number of threads; where the CPU has no bf16, those of f32. */
static void test_bf16_arithmetic(void **state) {
    (void)state;
    const uint64_t all = pgi_cpu_features(), f32 = all & ~BF16_SETS;
    for (int c = 0; c < 2; c++) {
        for (int32_t weights = PG_WEIGHTS_STORED; weights <= PG_WEIGHTS_INT4; weights++) {
            uint64_t hash = run_case(golden_cases[c], weights, PG_ARITHMETIC_BF16, all, 1);
            assert_true(hash == run_case(golden_cases[c], weights, PG_ARITHMETIC_BF16, all, 3));
            uint64_t exact = run_case(golden_cases[c], weights, PG_ARITHMETIC_F32, f32, 2);
            assert_true(exact == run_case(golden_cases[c], weights, PG_ARITHMETIC_BF16, f32, 2));
            if (weights == PG_WEIGHTS_STORED) {
                assert_true(exact == run_case(golden_cases[c], weights, PG_ARITHMETIC_DEFAULT, all, 1));
                if (all != f32) assert_true(exact != hash);
            }
        }
    }
}

static void test_arithmetic_is_checked(void **state) {
    (void)state;
    pg_model_options options;
    pg_model *model = NULL;
    for (int32_t bad = -1; bad <= PG_ARITHMETIC_BF16 + 1; bad += PG_ARITHMETIC_BF16 + 2) {
        OK(pg_model_options_init(&options, sizeof options));
        options.arithmetic = bad;
        assert_int_equal(pg_model_open(DEMO, &options, &model), PG_ERROR_ARGUMENT);
        assert_non_null(strstr(pg_last_error(), "pg_model_options.arithmetic"));
    }
    for (int32_t bad = -1; bad <= PG_KV_BF16 + 1; bad += PG_KV_BF16 + 2) {
        OK(pg_model_options_init(&options, sizeof options));
        options.kv = bad;
        assert_int_equal(pg_model_open(DEMO, &options, &model), PG_ERROR_ARGUMENT);
        assert_non_null(strstr(pg_last_error(), "pg_model_options.kv"));
    }
}

/* ---- opening that is stopped ---- */

typedef struct stopper {
    int64_t calls, stop_at; /* the call that stops */
    int64_t last, total;
} stopper;

static int32_t on_progress(void *user, int32_t phase, int64_t done, int64_t total) {
    stopper *s = user;
    if (phase != PG_PHASE_CONVERT) return 0;
    assert_true(done >= s->last && done <= total);
    s->last = done;
    s->total = total;
    return ++s->calls == s->stop_at;
}

static void test_progress_stops(void **state) {
    (void)state;
    pg_model_options options;
    pg_model *model = NULL;
    stopper s = {0};
    OK(pg_model_options_init(&options, sizeof options));
    options.weights = PG_WEIGHTS_INT8;
    options.progress = on_progress;
    options.progress_user = &s;
    OK(pg_model_open(DEMO, &options, &model));
    pg_model_close(&model);
    assert_true(s.calls > 10 && s.last == s.total && s.total > 0);
    const int64_t stops[] = {1, 2, s.calls / 2, s.calls};
    for (int i = 0; i < 4; i++) {
        s = (stopper){.stop_at = stops[i]};
        assert_int_equal(pg_model_open(DEMO, &options, &model), PG_ERROR_CANCELLED);
        assert_null(model);
    }
    options.progress = NULL;
    options.weights = 3;
    assert_int_equal(pg_model_open(DEMO, &options, &model), PG_ERROR_ARGUMENT);
}

/* ---- an allocator that counts, and fails at one call ---- */

typedef struct counter {
    int64_t calls, fail_at, live;
} counter;

static void *counted_alloc(void *user, size_t size, size_t alignment) {
    counter *c = user;
    void *block = NULL;
    if (++c->calls == c->fail_at || posix_memalign(&block, alignment, size)) return NULL;
    c->live++;
    return block;
}
static void counted_free(void *user, void *block) {
    ((counter *)user)->live--;
    free(block);
}

static void test_failing_memory(void **state) {
    (void)state;
    pg_model_options options;
    pg_model *model = NULL;
    counter c = {0};
    pg_allocator allocator = {
        .struct_size = sizeof allocator, .user = &c, .alloc = counted_alloc, .free = counted_free};
    OK(pg_model_options_init(&options, sizeof options));
    options.weights = PG_WEIGHTS_INT4;
    options.allocator = &allocator;
    OK(pg_model_open(DEMO, &options, &model));
    pg_model_close(&model);
    assert_int_equal(c.live, 0);
    const int64_t calls = c.calls;
    for (int64_t i = calls > 6 ? calls - 6 : 1; i <= calls; i++) { /* the blocks come last */
        c = (counter){.fail_at = i};
        assert_int_equal(pg_model_open(DEMO, &options, &model), PG_ERROR_MEMORY);
        assert_null(model);
        assert_int_equal(c.live, 0);
    }
}

/* What a C library's fmaf() gives that rounds once; Windows' does not, so some of its answers stand here. */
static void test_fma_rounds_once(void **state) {
    static const float known[][4] = {
        {0x1.be6db8p+10f, 0x1.778feep-4f, 0x1.479556p+12f, 0x1.51d10cp+12f},
        {0x1.4b76dcp+10f, 0x1.17a246p-4f, -0x1.9f0aaap+11f, -0x1.93ba24p+11f},
        {-0x1.479b6ep+10f, -0x1.75e206p-5f, -0x1.5168p+13f, -0x1.4f898ap+13f},
        {1, INFINITY, 1, INFINITY},
        {1, 1, -INFINITY, -INFINITY},
    };
    (void)state;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        const float found = pgi_fma_odd(known[i][0], known[i][1], known[i][2]);
        if (found != known[i][3]) fail_msg("%zu: found %a, expected %a", i, (double)found, (double)known[i][3]);
    }
    assert_true(isnan(pgi_fma_odd(NAN, 1, 1)) && isnan(pgi_fma_odd(INFINITY, 1, -INFINITY)));
#ifndef __MINGW32__
    uint32_t bits = 1;
    for (int i = 0; i < 300000; i++) {
        float x[3];
        for (int j = 0; j < 3; j++) {
            bits ^= bits << 13, bits ^= bits >> 17, bits ^= bits << 5;
            x[j] = ldexpf((float)(int32_t)bits, (int)(bits >> 3 & 15) - 40);
        }
        if (i % 3 == 0) x[2] = -x[0] * x[1]; /* little is left */
        const float found = pgi_fma_odd(x[0], x[1], x[2]), expected = fmaf(x[0], x[1], x[2]);
        if (found != expected)
            fail_msg("%a %a %a: found %a, expected %a", (double)x[0], (double)x[1], (double)x[2], (double)found,
                     (double)expected);
    }
#endif
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden_answers),        cmocka_unit_test(test_bf16_arithmetic),
        cmocka_unit_test(test_arithmetic_is_checked), cmocka_unit_test(test_progress_stops),
        cmocka_unit_test(test_failing_memory),        cmocka_unit_test(test_kv_cache),
        cmocka_unit_test(test_fma_rounds_once),
    };
    return RUN_TESTS(tests, NULL, NULL);
}
