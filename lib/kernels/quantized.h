/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Quantized weight matrices: int8 and int4, one layout for every CPU, read in place from a mapped file.
 *
 * W [rows, columns] ([out, in] of a linear layer) is cut into panels of 16 rows and groups of 128 columns; rows and
 * columns that do not fill the last ones are zero weights. A block is one group of one panel. Blocks lie in the order
 * they are read: panel after panel, and in a panel group after group.
 *
 *   W[r][c] ~ scale[r][c / 128] * sub[r][c / 32] * q[r][c]        (int8: sub is 1)
 *
 *   int8 block, 2112 bytes     scale: f32 [16]                                    64 bytes
 *                              q + 128: u8 [32 fours of columns][16 rows][4]    2048 bytes, q in -127..127
 *   int4 block, 1088 bytes     scale: bf16 [16]                                   32 bytes
 *                              sub: u4 [4][16], row 2 i low, 2 i + 1 high         32 bytes, 1..15
 *                              q + 8: u4 [16 eights][16 rows][4]                1024 bytes, q in -8..7; byte
 *                              [e][r][j] has column 8 e + j low, and 8 e + 4 + j high
 *
 * VNNI, AVX-VNNI and AMX read four columns of a row side by side; AVX2 widens two such fours. The weights are the
 * unsigned factor, so they are stored with an excess of 128 (int4: 8); the activations are the signed one. To take the
 * excess off, each sum starts at -128 (-8) times the sum of the activations. sub * q fits int8 (at most 15 * 8), so an
 * int4 block becomes an int8 block exactly, and one product serves both.
 *
 * The scale of int4 is bf16 for its range (small weights would make an f16 subnormal); its few digits cost nothing, as
 * the weights are rounded to the scale as stored.
 *
 * Activations are quantized on the way in, each row in groups of the same 128 columns: x ~ scale * q, scale the largest
 * |x| / 127; a group with a NaN or an infinity makes the results NaN, one below 2^-100 counts as zero. They are kept
 * in tiles of m rows, one block of (128 + 4 + 4 + 16) m bytes for each group:
 *
 *   q: s8 [32 fours of columns][m][4]   scale: f32 [m]   -128 times the sum of q: s32 [m]
 *   -8 times the sum of q of each 32 columns: s32 [4][m]
 *
 * CPUs with tiles of AMX have q as [m][128], and for many rows m = 16 always: the last tile is filled up with zeros.
 *
 * Products of a group are exact integers S; groups are added in their order, y = fma(S, scale of w * scale of x, y)
 * from the bias on. So a result is the same to the last bit for every instruction set, for any number of threads, and
 * whatever rows lie beside it.
 */
#ifndef PGI_KERNELS_QUANTIZED_H
#define PGI_KERNELS_QUANTIZED_H

#include "base/status.h"
#include "kernels/low_rank_start.h"
#include "kernels/matrix.h"
#include "kernels/prefetch.h"

enum {
    PGI_PANEL_ROWS = 16,
    PGI_GROUP_COLUMNS = 128,
    PGI_SUB_COLUMNS = 32,
    PGI_INT8_BLOCK = 64 + PGI_PANEL_ROWS * PGI_GROUP_COLUMNS,     /* bytes */
    PGI_INT4_BLOCK = 64 + PGI_PANEL_ROWS * PGI_GROUP_COLUMNS / 2, /* bytes */
    PGI_TILE_ROWS = 16,                                           /* rows of activations of a tile at the most */
    PGI_TILE_ROW_BYTES = 152,                                     /* of one row in a block of activations */
    PGI_PRODUCT_PANELS = 4,                                       /* of `product_tiles` at the most */
    PGI_QUANTIZED_VERSION = 1                                     /* of this layout, as converted files name it */
};

/* pgi_matrix.dtype of quantized matrices; no PG_DTYPE_*, since no array of such elements can be handed out. */
enum { PGI_DTYPE_INT8_BLOCKS = 101, PGI_DTYPE_INT4_BLOCKS = 102 };

/* Whether a matrix of this dtype is quantized. */
static inline int pgi_dtype_is_blocks(int32_t dtype) {
    return dtype == PGI_DTYPE_INT8_BLOCKS || dtype == PGI_DTYPE_INT4_BLOCKS;
}

static inline int64_t pgi_quantized_panels(int64_t rows) { return (rows + PGI_PANEL_ROWS - 1) / PGI_PANEL_ROWS; }
static inline int64_t pgi_quantized_groups(int64_t columns) {
    return (columns + PGI_GROUP_COLUMNS - 1) / PGI_GROUP_COLUMNS;
}
static inline int64_t pgi_quantized_block(int32_t dtype) {
    return dtype == PGI_DTYPE_INT8_BLOCKS ? PGI_INT8_BLOCK : PGI_INT4_BLOCK;
}
/* Bytes of a whole matrix; a multiple of 64. Sizes come from checked shapes, below 2^62. */
static inline int64_t pgi_quantized_bytes(int32_t dtype, int64_t rows, int64_t columns) {
    return pgi_quantized_panels(rows) * pgi_quantized_groups(columns) * pgi_quantized_block(dtype);
}

/*
 * Quantizes panels begin .. end of `from` (f32, bf16 or f16) to `out`, where panel `begin` goes. The same bytes on
 * every CPU: plain C, round half to even. int8: the scale is the largest |w| / 127. int4: scale and sub are those of
 * the least squared error among a few. from->data begins with row `first_row` and need hold those panels alone.
 * PG_ERROR_ARGUMENT: a weight is NaN or infinite; names row and column.
 */
pg_status pgi_quantize_panels(const pgi_matrix *from, int64_t first_row, int32_t dtype, int64_t begin, int64_t end,
                              void *out);

/* Rounding with feedback, as GPTQ does it (arXiv 2210.17323): what rounding a column leaves over is made up for in the
 * columns behind it that tend to be large together, within each PGI_FEEDBACK_COLUMNS columns. To int4; the rest as
 * above. factors: for each so many columns of W, [c][k], how much of what column c left over column k takes on; of k >
 * c alone are read. */
enum { PGI_FEEDBACK_COLUMNS = 2 * PGI_GROUP_COLUMNS };
pg_status pgi_quantize_panels_feeding(const pgi_matrix *from, int64_t first_row, const float *factors, int64_t begin,
                                      int64_t end, void *out);

/* What `product_int8`, `stream_int8` and `stream_int4` multiply: y [m, n] = start + x w, groups added in their order.
 */
typedef struct pgi_row_product {
    int m;
    int64_t n, groups;    /* n >= 1; groups: of the sum */
    const void *x;        /* a tile of m rows */
    const void *w;        /* blocks, n of their rows */
    int64_t panel_bytes;  /* from one panel to the next */
    int one_stream;       /* of `stream_*`: panels one after the other (pgi_kernels.one_stream); the same bits */
    const float *start;   /* a bias (stride 0), earlier sums [m, n] (y itself too), or NULL: zeros */
    int64_t start_stride; /* from one row to the next */
    float *y;
    int64_t y_stride;
    pgi_prefetch *next_w; /* of `product_int8`: what is read next, a step for each of `groups`; NULL: nothing. Plain C
                             prefetches nothing. */
} pgi_row_product;

/* What `product_tiles` multiplies: y [rows, n] = start + low + x w. */
typedef struct pgi_tile_product {
    int64_t rows, n, groups; /* n <= 16 PGI_PRODUCT_PANELS; groups: of the sum */
    const char *x;           /* tiles of 16 rows, [16][128] in each group, the last filled up with zeros */
    int64_t x_tile;          /* bytes from one to the next */
    const char *w;           /* int8 blocks */
    int64_t panel_bytes;     /* from one panel to the next */
    const float *start;      /* [rows, n]; NULL: zeros; may be y */
    int64_t start_stride;
    pgi_low_rank_start low; /* only where gemm_bf16_deep; its panels have 2 * PGI_PANEL_ROWS columns */
    float *y;
    int64_t y_stride;
    pgi_prefetch *next_w, *next_x; /* what is read next, a step for each of pgi_tile_product_steps() */
} pgi_tile_product;

static inline int64_t pgi_tile_product_steps(int64_t rows, int64_t n, int64_t groups) {
    return (rows + 2 * PGI_TILE_ROWS - 1) / (2 * PGI_TILE_ROWS) *
           ((n + 2 * PGI_PANEL_ROWS - 1) / (2 * PGI_PANEL_ROWS)) * groups;
}

/* out[c] = the value of W[row][c] as above, times `factor`. */
void pgi_quantized_row(const pgi_matrix *matrix, int64_t row, float factor, float *out);

/* Bytes of a matrix of any dtype. */
static inline int64_t pgi_matrix_bytes(const pgi_matrix *matrix) {
    if (pgi_dtype_is_blocks(matrix->dtype)) return pgi_quantized_bytes(matrix->dtype, matrix->rows, matrix->columns);
    return matrix->rows * matrix->columns * (int64_t)pgi_dtype_size(matrix->dtype);
}

#endif
