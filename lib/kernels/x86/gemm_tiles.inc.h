/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Template: gemm_bf16 on tiles of AMX (tiles_amx.h) or on those of tiles_c.h, 32 x 32 sums at once. Rows of `a`, 32
 * values long, are tiles as they lie in memory, and so are 16 pairs of lines of a panel, [16][32 columns][2].
 *
 * gemm_bf16_panels does so for up to four panels and many values. It takes PANEL_STEP values at once: those of the
 * rows stay in the first-level cache for the other panels, and those of a panel come from the second. Meanwhile sums
 * are tiles in memory.
 *
 * Sums begin with what they are added to, and with the low-rank part of gemm_bf16_panels. Rows, columns and values that
 * do not fill a tile go through copies that are filled up with zeros: nothing is read or written outside of the
 * operands.
 */
#include <string.h>

#include "kernels/kernels.h"
#include "kernels/prefetch.h"
#include "kernels/simd/unroll.h"

enum {
    TILE_ROWS = 16,
    TILE_VALUES = 32,           /* of the summed dimension */
    GEMM_ROWS = 2 * TILE_ROWS,  /* of a call at the most, and its columns */
    PANEL_LINE = 2 * GEMM_ROWS, /* values of a pair of lines of a panel */
    A_BYTES = 2 * PGI_GEMM_BF16_LDA,
    LINE_BYTES = 2 * PANEL_LINE,
    TILE_BYTES = 2 * TILE_VALUES,
    COPIED_VALUES = 8 * TILE_VALUES, /* of rows that are copied, at once */
    PANEL_STEP = 8 * TILE_VALUES     /* of gemm_bf16_panels at once */
};

/* 16 rows, `bytes` apart, and what follows the last whole tile, [16][32]. */
typedef struct tile_rows {
    const uint16_t *whole, *rest;
    int64_t bytes;
} tile_rows;

/* 16 x 16 sums, or fewer: where they begin, where they go, and bytes from row to row. */
typedef struct tile_sums {
    const void *from; /* NULL: zeros */
    float *to;
    int64_t from_stride, to_stride;
} tile_sums;

/* What does not fill a tile. (The stack of a thread may have 64 KiB.) */
typedef struct tile_copies {
    __attribute__((aligned(64))) uint16_t a[TILE_ROWS * COPIED_VALUES]; /* of the rows that are no 16 */
    __attribute__((aligned(64))) uint16_t a_rest[2][TILE_ROWS * TILE_VALUES];
    __attribute__((aligned(64))) uint16_t panel_rest[TILE_ROWS * PANEL_LINE];
    __attribute__((aligned(64))) float sums[2][2][TILE_ROWS * TILE_ROWS];
} tile_copies;

static tile_rows rows_of(const uint16_t *a, int rows, int64_t k, uint16_t *copy, uint16_t *rest) {
    const int64_t whole = k / TILE_VALUES * TILE_VALUES;
    if (k > whole) {
        memset(rest, 0, TILE_ROWS * TILE_BYTES);
        for (int i = 0; i < rows; i++)
            memcpy(rest + i * TILE_VALUES, a + i * PGI_GEMM_BF16_LDA + whole, (size_t)(k - whole) * sizeof *a);
    }
    if (rows == TILE_ROWS) return (tile_rows){a, rest, A_BYTES};
    memset(copy, 0, TILE_ROWS * COPIED_VALUES * sizeof *copy);
    for (int i = 0; i < rows; i++)
        memcpy(copy + i * COPIED_VALUES, a + i * PGI_GEMM_BF16_LDA, (size_t)whole * sizeof *a);
    return (tile_rows){copy, rest, COPIED_VALUES * sizeof *copy};
}

static tile_sums sums_of(float *c, int64_t c_stride, int rows, int columns, int accumulate, const float *bias,
                         float *copy) {
    const int64_t stride = c_stride * (int64_t)sizeof(float), copied = TILE_ROWS * (int64_t)sizeof(float);
    if (rows == TILE_ROWS && columns == TILE_ROWS)
        return (tile_sums){accumulate ? c : bias, c, accumulate ? stride : 0, stride};
    memset(copy, 0, (size_t)(TILE_ROWS * copied));
    const size_t bytes = (size_t)columns * sizeof *c;
    for (int i = 0; i < rows && (accumulate || bias); i++)
        memcpy(copy + i * TILE_ROWS, accumulate ? c + i * c_stride : bias, bytes);
    return (tile_sums){copy, copy, copied, copied};
}

static void copy_sums(const tile_sums *sums, float *c, int64_t c_stride, int rows, int columns) {
    for (int i = 0; i < rows && sums->to != c; i++)
        memcpy(c + i * c_stride, sums->to + i * TILE_ROWS, (size_t)columns * sizeof *c);
}

#define START(t, sums)                                     \
    do {                                                   \
        if ((sums).from) {                                 \
            tile_load(t, (sums).from, (sums).from_stride); \
        } else {                                           \
            tile_zero(t);                                  \
        }                                                  \
    } while (0)
#define MULTIPLY(a0, a0_bytes, a1, a1_bytes, lines)          \
    do {                                                     \
        tile_load(4, a0, a0_bytes);                          \
        tile_load(6, lines, LINE_BYTES);                     \
        tile_dot_bf16(0, 4, 6);                              \
        if (vectors == 2) {                                  \
            tile_load(7, (lines) + TILE_VALUES, LINE_BYTES); \
            tile_dot_bf16(1, 4, 7);                          \
        }                                                    \
        if (tiles_high == 2) {                               \
            tile_load(5, a1, a1_bytes);                      \
            tile_dot_bf16(2, 5, 6);                          \
            if (vectors == 2) {                              \
                tile_dot_bf16(3, 5, 7);                      \
            }                                                \
        }                                                    \
    } while (0)

/* tiles_high x vectors tiles of sums: tile 2 i + v is s[i][v]. low: NULL, or a product that comes first. */
static ALWAYS_INLINE void multiply_tiles(const int tiles_high, const int vectors, int64_t k, const tile_rows a[2],
                                         const uint16_t *panel, const uint16_t *panel_rest, const tile_sums s[2][2],
                                         const pgi_low_rank_start *low) {
    tiles_see_memory();
    START(0, s[0][0]);
    if (vectors == 2) START(1, s[0][1]);
    if (tiles_high == 2) START(2, s[1][0]);
    if (tiles_high == 2 && vectors == 2) START(3, s[1][1]);
    const int64_t low_k = low ? low->k : 0;
    for (int64_t l = 0; l < low_k; l += TILE_VALUES)
        MULTIPLY(low->a + l, 2 * low_k, low->a + l + TILE_ROWS * low_k, 2 * low_k, low->b + l * GEMM_ROWS);
    int64_t l = 0;
    for (; l + TILE_VALUES <= k; l += TILE_VALUES)
        MULTIPLY(a[0].whole + l, a[0].bytes, a[1].whole + l, a[1].bytes, panel + l * GEMM_ROWS);
    if (l < k) MULTIPLY(a[0].rest, TILE_BYTES, a[1].rest, TILE_BYTES, panel_rest);
    tile_store(0, s[0][0].to, s[0][0].to_stride);
    if (vectors == 2) {
        tile_store(1, s[0][1].to, s[0][1].to_stride);
    }
    if (tiles_high == 2) {
        tile_store(2, s[1][0].to, s[1][0].to_stride);
    }
    if (tiles_high == 2 && vectors == 2) {
        tile_store(3, s[1][1].to, s[1][1].to_stride);
    }
}

static int at_most_16(int n) { return n < TILE_ROWS ? n : TILE_ROWS; }

/* gemm_bf16, but where m is no multiple of 16, k <= COPIED_VALUES */
static void multiply(int m, int n, int64_t k, const uint16_t *a, const uint16_t *panel, float *c, int64_t c_stride,
                     int accumulate, const float *bias, tile_copies *copies) {
    tile_rows rows[2] = {{NULL, NULL, 0}, {NULL, NULL, 0}};
    tile_sums sums[2][2];
    const int tiles_high = m > TILE_ROWS ? 2 : 1, vectors = n > TILE_ROWS ? 2 : 1;
    const int64_t whole = k / TILE_VALUES * TILE_VALUES;
    if (k > whole) {
        memset(copies->panel_rest, 0, sizeof copies->panel_rest);
        memcpy(copies->panel_rest, panel + whole * GEMM_ROWS, (size_t)((k - whole + 1) / 2 * LINE_BYTES));
    }
    for (int i = 0; i < tiles_high; i++) {
        const int height = at_most_16(m - i * TILE_ROWS);
        rows[i] = rows_of(a + i * TILE_ROWS * PGI_GEMM_BF16_LDA, height, k, copies->a, copies->a_rest[i]);
        for (int v = 0; v < vectors; v++)
            sums[i][v] =
                sums_of(c + i * TILE_ROWS * c_stride + v * TILE_ROWS, c_stride, height, at_most_16(n - v * TILE_ROWS),
                        accumulate, bias ? bias + v * TILE_ROWS : NULL, copies->sums[i][v]);
    }
    if (tiles_high == 2 && vectors == 2)
        multiply_tiles(2, 2, k, rows, panel, copies->panel_rest, sums, NULL);
    else if (tiles_high == 2)
        multiply_tiles(2, 1, k, rows, panel, copies->panel_rest, sums, NULL);
    else if (vectors == 2)
        multiply_tiles(1, 2, k, rows, panel, copies->panel_rest, sums, NULL);
    else
        multiply_tiles(1, 1, k, rows, panel, copies->panel_rest, sums, NULL);
    for (int i = 0; i < tiles_high; i++)
        for (int v = 0; v < vectors; v++)
            copy_sums(&sums[i][v], c + i * TILE_ROWS * c_stride + v * TILE_ROWS, c_stride,
                      at_most_16(m - i * TILE_ROWS), at_most_16(n - v * TILE_ROWS));
}

/* Sums that wait in `c` for more values are what they were in the tile. */
static void gemm_bf16(int m, int n, int64_t k, const uint16_t *a, const uint16_t *panel, float *c, int64_t c_stride,
                      int accumulate, const float *bias) {
    tile_copies copies;
    const int64_t at_once = m % TILE_ROWS ? COPIED_VALUES : k;
    for (int64_t l = 0; l < k; l += at_once)
        multiply(m, n, pgi_min64(k - l, at_once), a + l, panel + l * GEMM_ROWS, c, c_stride, accumulate || l > 0,
                 l > 0 ? NULL : bias, &copies);
}

/* Sums of a panel: what they are before the first values, between, and after the last. */
typedef struct panel_sums {
    __attribute__((aligned(64))) float between[2][2][TILE_ROWS * TILE_ROWS];
    tile_sums ends[2][2]; /* those that are not whole begin and end in `between` */
} panel_sums;

static void begin_sums(const pgi_panel_product *p, int first, panel_sums *sums) {
    for (int i = 0; i < 2; i++)
        for (int v = 0; v < 2; v++) {
            const int column = first + v * TILE_ROWS, rows = at_most_16(p->m - i * TILE_ROWS);
            const int columns = at_most_16(p->n - column);
            if (rows > 0 && columns > 0)
                sums->ends[i][v] = sums_of(p->c + i * TILE_ROWS * p->c_stride + column, p->c_stride, rows, columns,
                                           p->accumulate, p->bias ? p->bias + column : NULL, sums->between[i][v]);
            else /* nobody looks at these */
                sums->ends[i][v] = (tile_sums){NULL, sums->between[i][v], 0, TILE_ROWS * (int64_t)sizeof(float)};
        }
}

static void end_sums(const pgi_panel_product *p, int first, const panel_sums *sums) {
    for (int i = 0; i < 2; i++)
        for (int v = 0; v < 2; v++) {
            const int column = first + v * TILE_ROWS, columns = at_most_16(p->n - column);
            if (columns > 0)
                copy_sums(&sums->ends[i][v], p->c + i * TILE_ROWS * p->c_stride + column, p->c_stride,
                          at_most_16(p->m - i * TILE_ROWS), columns);
        }
}

static ALWAYS_INLINE void multiply_panel(const int tiles_high, const uint16_t *a, const uint16_t *panel, int64_t k,
                                         const pgi_low_rank_start *low, int is_first, int is_last, panel_sums *sums) {
    const int64_t bytes = TILE_ROWS * (int64_t)sizeof(float);
    const tile_rows rows[2] = {{a, NULL, A_BYTES}, {a + TILE_ROWS * PGI_GEMM_BF16_LDA, NULL, A_BYTES}};
    tile_sums here[2][2];
    UNROLL for (int t = 0; t < 4; t++) {
        const tile_sums *ends = &sums->ends[t / 2][t % 2];
        float *between = sums->between[t / 2][t % 2];
        here[t / 2][t % 2] = (tile_sums){is_first ? ends->from : between, is_last ? ends->to : between,
                                         is_first ? ends->from_stride : bytes, is_last ? ends->to_stride : bytes};
    }
    multiply_tiles(tiles_high, 2, k, rows, panel, NULL, here, is_first ? low : NULL);
}

static void gemm_bf16_panels(const pgi_panel_product *p) {
    panel_sums sums[PGI_PANEL_COLUMNS / GEMM_ROWS];
    const int n_panels = (p->n + GEMM_ROWS - 1) / GEMM_ROWS;
    for (int q = 0; q < n_panels; q++) begin_sums(p, q * GEMM_ROWS, &sums[q]);
    pgi_prefetch sums_ahead =
        pgi_prefetch_start((const char *)p->c, p->c_stride * (int64_t)sizeof *p->c, p->m, p->n * (int64_t)sizeof *p->c,
                           n_panels * pgi_ceil_div64(p->k, PANEL_STEP));
    tiles_begin();
    for (int64_t l = 0; l < p->k; l += PANEL_STEP) {
        const uint16_t *a = p->a + l / PGI_GEMM_BF16_KC * p->a_block + l % PGI_GEMM_BF16_KC;
        const int64_t k = (pgi_min64(p->k - l, PANEL_STEP) + TILE_VALUES - 1) / TILE_VALUES * TILE_VALUES;
        for (int q = 0; q < n_panels; q++) {
            pgi_prefetch_step(&sums_ahead);
            const uint16_t *panel = p->panels + q * p->panel + l * GEMM_ROWS;
            const pgi_low_rank_start low = {p->low.a, p->low.k ? p->low.b + q * p->low.k * GEMM_ROWS : NULL, p->low.k};
            if (p->m > TILE_ROWS)
                multiply_panel(2, a, panel, k, &low, l == 0, l + k >= p->k, &sums[q]);
            else
                multiply_panel(1, a, panel, k, &low, l == 0, l + k >= p->k, &sums[q]);
        }
    }
    tiles_end();
    for (int q = 0; q < n_panels; q++) end_sums(p, q * GEMM_ROWS, &sums[q]);
}
