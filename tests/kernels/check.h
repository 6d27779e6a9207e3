/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* What the parts of the kernel check share: random numbers, guarded memory, comparison. */
#ifndef PGI_TESTS_KERNELS_CHECK_H
#define PGI_TESTS_KERNELS_CHECK_H

#include <stddef.h>
#include <stdint.h>

#include "base/parallel.h"
#include "kernels/kernels.h"
#include "ops/ops.h"

#define EPSILON 0x1p-24 /* half an ulp of 1 in f32: the relative error of one rounding */

enum { MAX_BLOCKS = 192, MAX_THREADS = 4 };

typedef struct check {
    const pgi_kernels *kernels; /* under test */
    const char *name;           /* of the kernel or operation under test */
    uint64_t random;
    int failures, quiet;
    double worst; /* largest error seen, as a part of its bound */
    struct block {
        unsigned char *map, *data;
        size_t map_bytes, bytes, slack;
    } blocks[MAX_BLOCKS];
    int n_blocks;
} check;

uint64_t random_bits(check *c);
double random_unit(check *c);                    /* -1 to 1 */
int64_t random_below(check *c, int64_t n);       /* 0 to n - 1 */
void random_fill(check *c, float *x, int64_t n); /* random_unit() */

/* A run on 1 to MAX_THREADS threads, which stay until the program ends. */
pgi_run run_on(const pgi_kernels *kernels, int n_threads);

/* Memory between two pages that cannot be touched: it ends `slack` bytes before the second. The slack and what lies
 * before the block hold a pattern that release_all() looks at. */
void *guarded(check *c, size_t bytes, size_t slack);
float *guarded_floats(check *c, int64_t n); /* for input: no slack */
float *guarded_output(check *c, int64_t n); /* 64 bytes of slack, filled with NaN */
void release_all(check *c);

void fail(check *c, const char *format, ...) __attribute__((format(__printf__, 2, 3)));

/* |got - want| <= bound, NaN where NaN is wanted, infinity where infinity is. */
void expect_near(check *c, float got, double want, double bound, const char *where, int64_t i, int64_t j);

/* The error that a sum of n rounded products may have, from the sum of their magnitudes and of their squares: the worst
 * case n eps sum |p|, or six deviations of a random walk, whichever is smaller. */
double sum_bound(double n, double magnitudes, double squares);

/* Weights of a dtype: random ones, and what they mean (by ldexp, not by the library's own conversion). */
void random_weights(check *c, void *w, int32_t dtype, int64_t n);
double weight_value(const void *w, int32_t dtype, int64_t i);
const char *dtype_name(int32_t dtype);

/* Of half of the products on tiles: a low-rank part that they begin with, of whole numbers, so that its sums are exact
 * in any order. n: columns, in panels of nr. One of the products of a value, and the
 * value. */
pgi_low_rank_start random_low_rank(check *c, int64_t rows, int64_t n, int nr);
double low_rank_product(const pgi_low_rank_start *low, int64_t row, int64_t column, int64_t l, int nr);
double low_rank_value(const pgi_low_rank_start *low, int64_t row, int64_t column, int nr);

/* check_kernels.c: the checks by kernel name, in the order of kernels.inc. */
typedef struct kernel_check {
    const char *name;
    void (*run)(check *c);
} kernel_check;
extern const kernel_check kernel_checks[];
extern const int n_kernel_checks;

/* Puts product_tiles, gemm_bf16 and gemm_bf16_panels on tiles in plain C into a table (tiles_in_c.c). */
void tiles_in_c(pgi_kernels *kernels);
/* Puts quantize_rows as AMX has it into a table; needs AVX2 (tile_rows_avx2.c; where the compiler has that). */
void tile_rows_avx2(pgi_kernels *kernels);

/* A length that is tested after *n, from 0 on: all small ones, head dims, a width of the model, the tail of 4304. 0:
 * none.
 */
int next_length(int64_t *n);
/* Puts a NaN or an infinity into one of n values, now and then. */
void spoil_one(check *c, float *x, int64_t n);

/* check_bf16.c */
double rounded_bf16(float x); /* the bf16 nearest to it */
void check_round_bf16(check *c);
void check_pack_pairs_f32(check *c);
void check_pack_pairs_bf16(check *c);
void check_pack_pairs_f16(check *c);
void check_pair_rows(check *c);
void check_gemm_bf16(check *c);
void check_gemm_bf16_panels(check *c);

/* check_resample.c */
void check_resample_columns(check *c);
void check_resample_row(check *c);

/* check_yuv.c */
void check_yuv_terms(check *c);
void check_yuv_row(check *c);

/* check_quantized.c */
void check_quantize_rows(check *c);
void check_product_int8(check *c);
void check_stream_int8(check *c);
void check_stream_int4(check *c);
void check_product_tiles(check *c);
void check_unpack_int4(check *c);
void check_linear_quantized(check *c); /* an operation, quantizing weights too */

/* check_mlp.c: operations of several layers */
void check_group(check *c);
void check_mlp(check *c);

/* check_low_rank.c */
void check_low_rank(check *c);

/* broken.c: `table` with kernel number `kernel` damaged: 0 a wrong value, 1 the last value not computed, 2 a value
 * written behind the end. */
enum { N_DAMAGES = 3 };
void break_kernel(pgi_kernels *table, int kernel, int damage);
extern const char *const damage_names[N_DAMAGES];

/* check_ops.c: the operations of ops.h. */
extern const kernel_check operation_checks[];
extern const int n_operation_checks;

/* bench.c. only: the linear layers of weights of this name ("int8"), NULL: everything. most_rows: of x, of those
 * layers. json: a file for the figures, or NULL. */
int bench(const pgi_kernels *kernels, int n_threads, int64_t buffer_mib, const char *only, int most_rows,
          const char *json);

#endif
