/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * What adapters add to a linear layer: LoRA (arXiv 2106.09685) and DoRA (arXiv 2402.09353). With y0 = x W^T + bias, the
 * layer of H inputs and N outputs gives
 *     y = (1 + gain) y0 + constant + B (A x)
 * A: [rank, H], B: [N, rank], in which the scale of the adapter is multiplied already. Of several adapters A and B are
 * theirs one after the other. Beside f32 arithmetic all of it is f32; beside int8 and int4 weights, and bf16
 * arithmetic, A and B are rounded to bf16, and for many rows so are the factors of the products where the CPU is faster
 * so. Many rows that quantized weights meet are int8 already, and A is int8 for them too.
 *
 * First A x of all rows, which is small: for few rows in pieces of A, for many by whoever has a tile of rows at hand. B
 * is multiplied by the task that has just computed a block of y0, while the block is in its cache; or, on tiles of AMX,
 * the sums of y0 begin with it.
 */
#ifndef PGI_OPS_LOW_RANK_H
#define PGI_OPS_LOW_RANK_H

#include "kernels/low_rank_start.h"
#include "ops/ops.h"

typedef struct pgi_low_rank {
    pgi_linear a;          /* [rank, H], without bias */
    pgi_linear a_blocks;   /* A as int8 blocks, beside int8 and int4 weights; no data elsewhere */
    const char *a_panels;  /* A, packed for products of many rows; NULL: of an embedding */
    const void *b_blocks;  /* B transposed, in blocks of outputs: [N / PGI_LOW_RANK_BLOCK, rank, that], of b_dtype */
    const char *b_panels;  /* B, packed likewise; NULL likewise */
    const float *gain;     /* [N], or NULL: 0 */
    const float *constant; /* [N], or NULL: 0 */
    int32_t b_dtype;       /* PG_DTYPE_F32 or _BF16 */
    int bf16;              /* the format of the panels, pgi_gemm_format */
    /* Of rows that have parts of their own (mixed.h): what is added to each row of x; an entry NULL: nothing. Then
     * a.weight.rows is the largest rank, and nothing else above is looked at. NULL: this one is added to all. */
    const struct pgi_low_rank *const *rows;
} pgi_low_rank;

enum {
    PGI_LOW_RANK_LAYERS = 3, /* that read the same x at the most */
    PGI_LOW_RANK_BLOCK = 64, /* outputs of a block */
    PGI_LOW_RANK_FEW = 16,   /* up to this many rows each is computed as it is alone */
    PGI_LOW_RANK_FUSED = 64, /* up to this rank a quantized MLP never writes its intermediate as f32 */
    PGI_MAX_LOW_RANK = 4096  /* of all adapters of a layer together */
};

/* Bytes of what pgi_low_rank_make() writes. is_embedding: A [rank, N] and B [H, rank] are of an embedding [N, H]. */
size_t pgi_low_rank_size(const struct pgi_kernels *kernels, int32_t weights, const pgi_matrix *a, int64_t n,
                         int is_embedding);
/* Lays out A and b [n, rank] in `block`, 64-byte aligned, which must live as long as *out; so must a->data. gain and
 * constant of *out stay as they are. PG_ERROR_ARGUMENT: a value of A that must be int8 is NaN or infinite. */
pg_status pgi_low_rank_make(const struct pgi_kernels *kernels, int32_t weights, const pgi_matrix *a, const float *b,
                            int64_t n, int is_embedding, void *block, pgi_low_rank *out);

/* A value of B. */
float pgi_low_rank_b(const pgi_low_rank *of, int64_t output, int64_t k);

/* Of rows that are under way: A x, and where the blocks of y are completed. */
typedef struct pgi_low_rank_rows {
    const pgi_low_rank *of; /* NULL: nothing is added */
    float *ax;              /* [rows, rank] */
    uint16_t *start;        /* room for A x as pgi_low_rank_start has it */
    void *tiles;            /* of the threads */
    int few;                /* the rows are few */
    int starts;             /* products begin with B (A x) */
    int64_t first_row;      /* those under way, of the rows of x */
    int64_t n_rows;
} pgi_low_rank_rows;

/* Bytes of the scratch for up to `rows` rows of PGI_LOW_RANK_LAYERS layers of kernels->low_rank; 0 where that is 0. */
size_t pgi_low_rank_scratch(const struct pgi_kernels *kernels, int n_threads, int64_t rows);
/* Where layer `index` of a group keeps its rows in that scratch. */
pgi_low_rank_rows pgi_low_rank_rows_in(const struct pgi_kernels *kernels, int n_threads, int64_t rows, void *scratch,
                                       int index, const pgi_linear *linear);
/* n rows of x from `first` on are under way: where they have parts of their own, up to PGI_LOW_RANK_FEW. on_tiles:
 * whether the product of many can begin with something. */
void pgi_low_rank_set_rows(const struct pgi_kernels *kernels, pgi_low_rank_rows *added, int64_t first, int64_t n,
                           int on_tiles);
/* The rank of what is added to a row of those under way; 0: nothing is. */
int64_t pgi_low_rank_of_row(const pgi_low_rank_rows *added, int64_t row);
/* A x of n layers that read the same x [rows, H], the rows under way, which must be whole before anything is added. Of
 * few rows: in so many items, each by any thread. */
int64_t pgi_low_rank_items(const pgi_low_rank_rows *added, int n);
void pgi_low_rank_item(const struct pgi_kernels *kernels, const pgi_low_rank_rows *added, int n, int thread,
                       int64_t item, const float *x, int64_t x_stride);
/* Of many rows that are copied already as products read them: of `columns` values of x from `column` on, a
 * multiple of kc. copy: [columns / kc rounded up][..., PGI_GEMM_A_ROW], `block` bytes from one to the next. */
void pgi_low_rank_copied(const struct pgi_kernels *kernels, const pgi_low_rank_rows *added, const char *copy,
                         int64_t block, int64_t column, int64_t columns, int64_t first_row, int64_t rows);
/* All of it, of one layer that is not quantized. */
pg_status pgi_low_rank_begin(const pgi_run *run, const pgi_low_rank_rows *added, const float *x, int64_t x_stride,
                             int64_t rows);
/* Whoever computed ax of a row otherwise lets products begin with it. */
void pgi_low_rank_round(const struct pgi_kernels *kernels, const pgi_low_rank_rows *added, int64_t row);
/* What the product of rows from `row` on and columns from `column` on, a multiple of 32, begins with; k is 0 where
 * pgi_low_rank_add() does it. */
pgi_low_rank_start pgi_low_rank_start_of(const struct pgi_kernels *kernels, const pgi_low_rank_rows *added, int64_t row,
                                         int64_t column);
/* What is read of B for n columns from `column` on, or for few rows of A for n columns of x, comes while something else
 * is computed. */
void pgi_low_rank_fetch(const struct pgi_kernels *kernels, const pgi_low_rank_rows *added, int64_t column, int64_t n);
void pgi_low_rank_fetch_partial(const pgi_low_rank_rows *added, int64_t column, int64_t n);
/* The gain and the constant alone: y0 [rows, n] from `column` on to (1 + gain) y0 + constant. */
void pgi_low_rank_scale(const pgi_low_rank *of, int64_t column, int64_t rows, int64_t n, float *y, int64_t y_stride);
/* Completes n columns of y from `column` on: y0 [rows, n] becomes y, unless the product began with it. Rows from
 * `first_row` on of those of A x. */
void pgi_low_rank_add(const struct pgi_kernels *kernels, const pgi_low_rank_rows *added, int thread, int64_t first_row,
                      int64_t rows, int64_t column, int64_t n, float *y, int64_t y_stride);
/* A x of few rows and some columns of x alone, to be summed: out [rows, rank] = x [rows, n] A[:, column .. column +
 * n]^T. Rows from `first_row` on of those under way. */
void pgi_low_rank_partial(const struct pgi_kernels *kernels, const pgi_low_rank_rows *added, int thread, const float *x,
                          int64_t x_stride, int64_t first_row, int64_t rows, int64_t column, int64_t n, float *out);
/* The same for a row of an embedding [N, columns], whose A is [rank, N] and whose B is [columns, rank]: x [columns] is
 * the row times `scale`. */
void pgi_low_rank_add_row(const struct pgi_kernels *kernels, const pgi_low_rank *of, int64_t row, int64_t columns,
                          float scale, float *x);

#endif
