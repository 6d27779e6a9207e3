/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * lib/train/matmul.h against sums in double: every layout and type of the factors, strides, scales, sums that are added
 * to, sizes from 0 to several blocks, on every instruction set; the same bits for every number of threads; cancelling.
 * A sum of k products in f32 is off by at most (k + 2) 2^-24 of the sum of their magnitudes, in any order; with AMX
 * there are three times as many.
 */
#include "run_tests.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/int64.h"
#include "expect_status.h"
#include "kernels/kernels.h"
#include "support.h"
#include "train/matmul.h"

typedef struct size {
    int64_t m, n, k;
} size;

/* Blocks are of 512 rows and 128 columns; four of 512 or, for AMX, of 1024 products. */
static const size sizes[] = {{1, 1, 1},     {3, 5, 7},      {16, 32, 64},   {33, 129, 65}, {130, 257, 300},
                             {515, 33, 70}, {20, 40, 2100}, {7, 130, 4200}, {0, 5, 5},     {5, 0, 5},
                             {5, 5, 0},     {1, 300, 17},   {300, 1, 17},   {2, 3, 1025},  {1100, 5, 3}};
enum { N_SIZES = sizeof sizes / sizeof *sizes, GAP = 3 /* values between rows */ };

/* One product, with its factors as they lie in memory and as doubles. */
typedef struct problem {
    pgi_matmul p;
    float *a, *c, *before; /* c before the product */
    void *b;
    double *wanted, *bound; /* [m, n] */
} problem;

static uint32_t bits_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static float float_of(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Stores x at b[i], cut to the type, and returns what was stored. */
static float store(void *b, int32_t dtype, int64_t i, float x) {
    const uint32_t bits = bits_of(x);
    if (dtype == PG_DTYPE_F32) return ((float *)b)[i] = x;
    if (dtype == PG_DTYPE_BF16) {
        ((uint16_t *)b)[i] = (uint16_t)(bits >> 16);
        return float_of(bits & 0xFFFF0000u);
    }
    const int exponent = (int)(bits >> 23 & 0xFF) - 112; /* too small for a normal number: 0 */
    if (exponent < 1) {
        ((uint16_t *)b)[i] = 0;
        return 0;
    }
    ((uint16_t *)b)[i] = (uint16_t)((bits >> 16 & 0x8000) | (uint32_t)exponent << 10 | (bits >> 13 & 0x3FF));
    return float_of(bits & 0xFFFFE000u);
}

static void *allocate(int64_t n, size_t element) {
    void *block = calloc((size_t)n + 1, element);
    assert_non_null(block);
    return block;
}

/* Values of many magnitudes, so that a product that loses low bits of a factor is seen. */
static float draw(rng *r) { return ldexpf(rng_unit(r), (int)rng_below(r, 12) - 6); }

static void make(problem *q, size s, int32_t dtype, int a_transposed, int b_transposed, int accumulate, float scale,
                 uint64_t seed) {
    rng r = {seed};
    const int64_t a_rows = a_transposed ? s.k : s.m, b_rows = b_transposed ? s.n : s.k;
    pgi_matmul *p = &q->p;
    *p = (pgi_matmul){.m = s.m,
                      .n = s.n,
                      .k = s.k,
                      .a_stride = (a_transposed ? s.m : s.k) + GAP,
                      .a_transposed = a_transposed,
                      .b_dtype = dtype,
                      .b_stride = (b_transposed ? s.k : s.n) + GAP,
                      .b_transposed = b_transposed,
                      .c_stride = s.n + GAP,
                      .accumulate = accumulate,
                      .scale = scale};
    q->a = allocate(a_rows * p->a_stride, sizeof(float));
    q->b = allocate(b_rows * p->b_stride, sizeof(float));
    q->c = allocate(s.m * p->c_stride, sizeof(float));
    q->before = allocate(s.m * p->c_stride, sizeof(float));
    q->wanted = allocate(s.m * s.n, sizeof(double));
    q->bound = allocate(s.m * s.n, sizeof(double));
    float *b = allocate(b_rows * p->b_stride, sizeof(float));
    for (int64_t i = 0; i < a_rows * p->a_stride; i++) q->a[i] = draw(&r);
    for (int64_t i = 0; i < b_rows * p->b_stride; i++) b[i] = store(q->b, dtype, i, draw(&r));
    for (int64_t i = 0; i < s.m * p->c_stride; i++) q->before[i] = draw(&r);
    for (int64_t i = 0; i < s.m; i++)
        for (int64_t j = 0; j < s.n; j++) {
            const double first = accumulate ? (double)q->before[i * p->c_stride + j] : 0;
            double sum = first, magnitude = fabs(first);
            for (int64_t k = 0; k < s.k; k++) {
                const double x = q->a[a_transposed ? k * p->a_stride + i : i * p->a_stride + k];
                const double y = b[b_transposed ? j * p->b_stride + k : k * p->b_stride + j];
                sum += (double)scale * x * y;
                magnitude += fabs((double)scale * x * y);
            }
            q->wanted[i * s.n + j] = sum;
            q->bound[i * s.n + j] = (double)(s.k + 2) * 0x1p-24 * magnitude;
        }
    free(b);
    p->a = q->a;
    p->b = q->b;
    p->c = q->c;
}

static void release(problem *q) {
    free(q->a);
    free(q->b);
    free(q->c);
    free(q->before);
    free(q->wanted);
    free(q->bound);
}

static size_t c_bytes(const problem *q) { return (size_t)(q->p.m * q->p.c_stride) * sizeof(float); }

/* On a pool of n_threads. */
static pg_status run(const pgi_kernels *kernels, problem *q, int n_threads, const pg_cancel *cancel) {
    pgi_thread_pool pool;
    pgi_run run = {.kernels = kernels, .n_threads = n_threads, .pool = &pool, .cancel = cancel};
    char *scratch = aligned_alloc(64, (pgi_matmul_scratch(kernels, n_threads) + 63) / 64 * 64);
    assert_non_null(scratch);
    pgi_thread_pool_init(&pool, n_threads);
    memcpy(q->c, q->before, c_bytes(q));
    const pg_status status = pgi_matmul_run(&run, &q->p, scratch);
    pgi_thread_pool_free(&pool);
    free(scratch);
    return status;
}

/* times: as many products as k says. */
static void expect_product(const problem *q, uint64_t cpu, int times) {
    const pgi_matmul *p = &q->p;
    for (int64_t i = 0; i < p->m; i++)
        for (int64_t j = 0; j < p->c_stride; j++) {
            const float found = q->c[i * p->c_stride + j];
            if (j >= p->n) {
                assert_true(bits_of(found) == bits_of(q->before[i * p->c_stride + j])); /* it is not c's */
            } else if (!(fabs((double)found - q->wanted[i * p->n + j]) <= times * q->bound[i * p->n + j])) {
                fail_msg(
                    "cpu %#llx, [%lld, %lld, %lld], dtype %d, transposed %d %d, accumulate %d, scale %g: c[%lld, "
                    "%lld] is %.9g, expected %.9g within %g",
                    (unsigned long long)cpu, (long long)p->m, (long long)p->n, (long long)p->k, p->b_dtype,
                    p->a_transposed, p->b_transposed, p->accumulate, (double)p->scale, (long long)i, (long long)j,
                    (double)found, q->wanted[i * p->n + j], times * q->bound[i * p->n + j]);
            }
        }
}

/* Each set that this CPU has, and the plain one. */
static uint64_t next_mask(uint64_t before) {
    for (uint64_t bit = before ? before << 1 : PG_CPU_BASELINE; bit; bit <<= 1)
        if (bit & (pgi_cpu_features() | PG_CPU_BASELINE)) return bit;
    return 0;
}

static void one(const pgi_kernels *kernels, uint64_t mask, size s, int32_t dtype, int layout, uint64_t seed) {
    const int accumulate = layout >> 2 & 1;
    const float scale = layout >> 3 & 1 ? 0.375f : 1;
    problem q;
    make(&q, s, dtype, layout & 1, layout >> 1 & 1, accumulate, scale, seed);
    OK(run(kernels, &q, 1 + (int)(seed % 3), NULL));
    expect_product(&q, mask, dtype == PG_DTYPE_BF16 && kernels->gemm_bf16_deep ? 3 : 1);
    release(&q);
}

/* Small ones in every layout, type and set; the larger ones in turn. */
static void products_are_those_of_doubles(void **state) {
    static const int32_t dtypes[] = {PG_DTYPE_F32, PG_DTYPE_BF16, PG_DTYPE_F16};
    uint64_t seed = 1;
    (void)state;
    for (uint64_t mask = next_mask(0); mask; mask = next_mask(mask)) {
        pgi_kernels kernels;
        OK(pgi_kernels_init(&kernels, mask));
        for (int i = 0; i < N_SIZES; i++)
            for (int layout = 0; layout < 16; layout++)
                for (int d = 0; d < 3; d++) {
                    const size s = sizes[i];
                    seed++;
                    if (s.m * s.n * s.k > 100000 && seed * 7 % 16 != 0) continue;
                    one(&kernels, mask, s, dtypes[d], layout, seed);
                }
    }
    pgi_kernels fastest;
    OK(pgi_kernels_init(&fastest, 0));
    for (int i = 0; i < N_SIZES; i++)
        for (int layout = 0; layout < 4; layout++)
            one(&fastest, 0, sizes[i], PG_DTYPE_BF16, layout + (int)(seed % 4) * 4, seed), seed++;
}

static void threads_do_not_change_it(void **state) {
    static const size large[] = {{700, 40, 700}, {30, 700, 1100}, {140, 300, 2100}};
    static const int32_t dtypes[] = {PG_DTYPE_F32, PG_DTYPE_BF16};
    (void)state;
    pgi_kernels kernels;
    OK(pgi_kernels_init(&kernels, 0));
    for (int i = 0; i < 3; i++)
        for (int d = 0; d < 2; d++) {
            problem q;
            make(&q, large[i], dtypes[d], i & 1, d, 1, 1, 7);
            OK(run(&kernels, &q, 1, NULL));
            float *first = allocate(q.p.m * q.p.c_stride, sizeof(float));
            memcpy(first, q.c, c_bytes(&q));
            for (int n_threads = 2; n_threads <= 9; n_threads += 1 + n_threads / 3) {
                OK(run(&kernels, &q, n_threads, NULL));
                assert_memory_equal(first, q.c, c_bytes(&q));
            }
            free(first);
            release(&q);
        }
}

static void products_can_be_cancelled(void **state) {
    const pg_cancel cancel = {.requested = 1};
    pgi_kernels kernels;
    problem q;
    (void)state;
    OK(pgi_kernels_init(&kernels, 0));
    make(&q, (size){60, 200, 600}, PG_DTYPE_BF16, 0, 1, 0, 1, 3);
    for (int n_threads = 1; n_threads <= 3; n_threads += 2)
        ERROR(run(&kernels, &q, n_threads, &cancel), PG_ERROR_CANCELLED, "cancelled", "");
    release(&q);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_are_those_of_doubles),
        cmocka_unit_test(threads_do_not_change_it),
        cmocka_unit_test(products_can_be_cancelled),
    };
    return RUN_TESTS(tests, NULL, NULL);
}
