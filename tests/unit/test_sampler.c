/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The head and pgi_sample_rows() on several threads against one thread and pgi_sample(): the same tokens, with ties,
 * NaN, infinities, a soft cap that makes ties, every weight format.
 */
#include "run_tests.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/parallel.h"
#include "decoder/head.h"
#include "generate/decoding.h"
#include "generate/sampler.h"
#include "kernels/kernels.h"
#include "ops/ops.h"
#include "kernels/quantized.h"

enum { VOCAB = 2 * 6000 + 1000, HIDDEN = 40, ROWS = PGI_STEP_ROWS };

static float drawn(uint32_t *state) { /* -1 .. 1 */
    *state = *state * 1664525u + 1013904223u;
    return (float)(*state >> 8) / (float)(1 << 23) - 1;
}

typedef struct head {
    pgi_kernels kernels;
    pgi_text_config config;
    pgi_text_weights weights;
    float *w;        /* [VOCAB, HIDDEN] */
    void *quantized; /* the same, or NULL */
    float x[ROWS * HIDDEN];
} head;

static void make(head *h, uint64_t cpu_mask) {
    uint32_t state = 5;
    memset(h, 0, sizeof *h);
    assert_int_equal(pgi_kernels_init(&h->kernels, cpu_mask), PG_OK);
    h->config.hidden_size = HIDDEN;
    h->config.vocab_size = VOCAB;
    h->w = malloc(sizeof(float) * VOCAB * HIDDEN);
    assert_non_null(h->w);
    for (int i = 0; i < VOCAB * HIDDEN; i++) h->w[i] = drawn(&state);
    for (int i = 0; i < ROWS * HIDDEN; i++) h->x[i] = drawn(&state);
    h->weights.head.weight = (pgi_matrix){h->w, PG_DTYPE_F32, VOCAB, HIDDEN, NULL};
}

static void quantize(head *h, int32_t dtype) {
    h->quantized = realloc(h->quantized, (size_t)pgi_quantized_bytes(dtype, VOCAB, HIDDEN));
    const pgi_matrix from = {h->w, PG_DTYPE_F32, VOCAB, HIDDEN, NULL};
    assert_int_equal(pgi_quantize_panels(&from, 0, dtype, 0, pgi_quantized_panels(VOCAB), h->quantized), PG_OK);
    h->weights.head.weight = (pgi_matrix){h->quantized, dtype, VOCAB, HIDDEN, NULL};
}

static void done(head *h) {
    free(h->w);
    free(h->quantized);
}

/* Logits of the first rows of x, and the token of each. */
static void head_tokens(head *h, int n_threads, int64_t rows, float *logits, int64_t *tokens) {
    pgi_thread_pool pool;
    pgi_run run = pgi_run_init(&pool, &h->kernels, &(pg_run_options){.n_threads = n_threads});
    pgi_arena arena = {0};
    pgi_head_lay_out(&arena, &run);
    void *memory = NULL;
    assert_int_equal(posix_memalign(&memory, 64, arena.used), 0);
    arena = (pgi_arena){.base = memory};
    const pgi_head_workspace workspace = pgi_head_lay_out(&arena, &run);
    assert_int_equal(pgi_head_forward(&run, &h->config, &h->weights, h->x, rows, logits, &workspace), PG_OK);
    assert_int_equal(pgi_sample_rows(&run, logits, rows, VOCAB, tokens), PG_OK);
    free(memory);
    pgi_run_free(&run);
}

/* found [ROWS] receives the tokens. */
static void compare(head *h, int64_t *found) {
    float *logits = malloc(sizeof(float) * ROWS * VOCAB), *alone = malloc(sizeof(float) * ROWS * VOCAB);
    int64_t again[ROWS];
    assert_true(logits && alone);
    for (int64_t rows = 1; rows <= ROWS; rows++) {
        memset(found, 0x5A, ROWS * sizeof *found);
        head_tokens(h, 1, rows, alone, again);
        head_tokens(h, 3, rows, logits, found);
        assert_memory_equal(alone, logits, sizeof(float) * (size_t)(rows * VOCAB));
        for (int64_t r = 0; r < rows; r++) {
            assert_int_equal(found[r], again[r]);
            assert_int_equal(found[r], pgi_sample(logits + r * VOCAB, VOCAB));
        }
    }
    free(logits);
    free(alone);
}

static void threads_give_what_one_gives(void **state) {
    static const uint64_t masks[] = {PG_CPU_BASELINE, PG_CPU_BASELINE | PG_CPU_AVX2 | PG_CPU_NEON, 0};
    (void)state;
    for (size_t i = 0; i < sizeof masks / sizeof *masks; i++) {
        head h;
        int64_t found[ROWS];
        make(&h, masks[i]);
        compare(&h, found);
        h.config.final_soft_cap = 0.01f; /* nearly all logits are capped to one of two values */
        compare(&h, found);
        quantize(&h, PGI_DTYPE_INT8_BLOCKS);
        compare(&h, found);
        h.config.final_soft_cap = 0;
        compare(&h, found);
        quantize(&h, PGI_DTYPE_INT4_BLOCKS);
        compare(&h, found);
        done(&h);
    }
}

/* The lowest of equal ones, wherever they lie. */
static void lowest_of_equals(void **state) {
    static const int64_t places[][2] = {{0, VOCAB - 1}, {5999, 6000}, {6000, 12000}, {5, 6}, {11000, 12999}};
    (void)state;
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        head h;
        int64_t found[ROWS];
        make(&h, 0);
        for (int p = 0; p < 2; p++) /* along the first row of x, and far beyond the others */
            for (int j = 0; j < HIDDEN; j++) h.w[places[i][p] * HIDDEN + j] = 100 * h.x[j];
        compare(&h, found);
        assert_int_equal(found[0], places[i][0]);
        done(&h);
    }
}

static void nan_never_wins(void **state) {
    head h;
    int64_t found[ROWS];
    (void)state;
    make(&h, 0);
    for (int i = 0; i < 6000 * HIDDEN; i++) h.w[i] = NAN;
    compare(&h, found);
    assert_true(found[0] >= 6000);
    for (int i = 6000 * HIDDEN; i < VOCAB * HIDDEN; i++) h.w[i] = NAN;
    compare(&h, found);
    assert_int_equal(found[0], 0);
    for (int j = 0; j < HIDDEN; j++) h.w[9000 * HIDDEN + j] = h.x[j] > 0 ? -INFINITY : INFINITY; /* the only number */
    compare(&h, found);
    assert_int_equal(found[0], 9000);
    done(&h);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_give_what_one_gives),
        cmocka_unit_test(lowest_of_equals),
        cmocka_unit_test(nan_never_wins),
    };
    return RUN_TESTS(tests, NULL, NULL);
}
