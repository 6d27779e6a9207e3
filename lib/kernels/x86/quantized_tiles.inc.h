/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Template: product_tiles on tiles of AMX (tiles_amx.h) or on those of tiles_c.h. A signed block of weights is two
 * tiles as it lies in memory, s8 [2][16 fours][16 rows][4], and a group of 16 rows of activations is two, s8
 * [16][2][64].
 *
 * A step is one group of one panel for 16 rows: two products of tiles, whose sums leave their tile as integers and are
 * added in f32. Three instructions add 16 sums, and beside products of tiles one port is left for them: 48 cycles a
 * step, against 32 of the products. So nothing else may be in their way: the f32 sums of a panel stay in registers, and
 * what a step waits for is far behind. While a panel is multiplied, the sums of the one before leave the tiles, and two
 * steps later they are added, a few rows after each instruction on tiles, because the CPU does not look far enough
 * ahead to mix them. The panels of all rows follow each other without a gap.
 */
#include <string.h>

#include "kernels/kernels.h"
#include "kernels/quantized.h"
#include "kernels/simd/unroll.h"

enum {
    X_STEP = PGI_TILE_ROW_BYTES * PGI_TILE_ROWS, /* bytes of a group of a tile of x */
    SUM_TILES = 4,                               /* groups of a place */
    BLOCK_TILES = 6,
    BLOCK_PANELS = 2 /* of x, and of w, whose f32 sums stay in the first-level cache */
};

typedef struct tile_job {
    int64_t rows, n, groups; /* of y, outputs, groups of the sum */
    const char *x, *w;
    int64_t x_tile, panel_bytes; /* bytes from one tile of x, and from one panel, to the next */
    const float *start;          /* or NULL */
    int64_t start_stride;
    float *y;
    int64_t y_stride;
    float *sums; /* [BLOCK_TILES][BLOCK_PANELS][16][16] */
} tile_job;

/* Some groups of a panel and of 16 rows of x. The last 16 rows and columns need not be there as a whole. */
typedef struct place {
    int64_t block, first_group, tile, panel; /* the tile is one of the block */
    int groups, rows, columns;
    const char *x, *w;
    const float *from; /* NULL: zeros */
    float *to;
    int64_t from_stride, to_stride;
} place;

static ALWAYS_INLINE place place_at(const tile_job *job, int64_t block, int64_t first_group, int64_t tile,
                                    int64_t panel) {
    place at = {block, first_group, tile, panel, 0, 0, 0, NULL, NULL, NULL, NULL, PGI_PANEL_ROWS, PGI_PANEL_ROWS};
    const int64_t row = (block * BLOCK_TILES + tile) * PGI_TILE_ROWS, column = panel * PGI_PANEL_ROWS;
    at.groups = (int)pgi_min64(job->groups - first_group, SUM_TILES);
    at.rows = (int)pgi_min64(job->rows - row, PGI_TILE_ROWS);
    at.columns = (int)pgi_min64(job->n - column, PGI_PANEL_ROWS);
    at.x = job->x + (block * BLOCK_TILES + tile) * job->x_tile + first_group * X_STEP;
    at.w = job->w + panel * job->panel_bytes + first_group * PGI_INT8_BLOCK;
    at.from = at.to = job->sums + (tile * BLOCK_PANELS + panel) * PGI_TILE_ROWS * PGI_PANEL_ROWS;
    if (first_group == 0) {
        at.from = job->start ? job->start + row * job->start_stride + column : NULL;
        at.from_stride = job->start_stride;
    }
    if (first_group + SUM_TILES >= job->groups) {
        at.to = job->y + row * job->y_stride + column;
        at.to_stride = job->y_stride;
    }
    return at;
}

/* All panels, then all tiles of a block, all groups, all blocks. */
static ALWAYS_INLINE place next_place(const tile_job *job, const place *at) {
    int64_t block = at->block, first_group = at->first_group, tile = at->tile, panel = at->panel + 1;
    if (panel * PGI_PANEL_ROWS >= job->n) panel = 0, tile++;
    if (tile == BLOCK_TILES || (block * BLOCK_TILES + tile) * PGI_TILE_ROWS >= job->rows)
        tile = 0, first_group += panel == 0 ? SUM_TILES : 0;
    if (first_group >= job->groups) first_group = 0, block++;
    return place_at(job, block, first_group, tile, panel);
}

static ALWAYS_INLINE void load_sums(const place *at, tile_row c[PGI_TILE_ROWS]) {
    if (!at->from) {
        UNROLL for (int i = 0; i < PGI_TILE_ROWS; i++) c[i] = tile_row_zero();
    } else if (at->rows == PGI_TILE_ROWS && at->columns == PGI_PANEL_ROWS) {
        UNROLL for (int i = 0; i < PGI_TILE_ROWS; i++) c[i] =
            tile_row_load(at->from + i * at->from_stride, PGI_PANEL_ROWS);
    } else {
        UNROLL for (int i = 0; i < PGI_TILE_ROWS; i++) c[i] =
            i < at->rows ? tile_row_load(at->from + i * at->from_stride, at->columns) : tile_row_zero();
    }
}

static ALWAYS_INLINE void store_sums(const place *at, const tile_row c[PGI_TILE_ROWS]) {
    if (at->rows == PGI_TILE_ROWS && at->columns == PGI_PANEL_ROWS) {
        UNROLL for (int i = 0; i < PGI_TILE_ROWS; i++) tile_row_store(at->to + i * at->to_stride, c[i], PGI_PANEL_ROWS);
    } else {
        UNROLL for (int i = 0; i < PGI_TILE_ROWS; i++) if (i < at->rows)
            tile_row_store(at->to + i * at->to_stride, c[i], at->columns);
    }
}

/* What is added in a step: group g of a panel. */
typedef struct added {
    const int32_t *sums;
    const char *factors; /* of the rows of x */
    tile_row scales;     /* of the panel */
} added;

static ALWAYS_INLINE added added_group(const place *at, int g, const int32_t *sums) {
    const char *x = at->x + g * X_STEP + PGI_TILE_ROWS * PGI_GROUP_COLUMNS;
    return (added){sums, x, tile_row_load((const float *)(at->w + g * PGI_INT8_BLOCK), PGI_PANEL_ROWS)};
}

/* c += the sums of rows i .. i + n: fma(sum, scale of w * scale of x, c), as quantized.h has it. */
static ALWAYS_INLINE void add_rows(int i, int n, const added *from, tile_row c[PGI_TILE_ROWS]) {
    UNROLL for (int k = i; k < i + n; k++) c[k] =
        tile_row_add(c[k], from->sums + k * PGI_PANEL_ROWS, from->scales, from->factors + 4 * k);
}

/* Group g of the place at[0], of n; its tile still has the sums of at[1]. Added is what was stored two steps ago: a
 * group of at[1], or before that one of at[2]. */
#define STEP(g, n, n1, n2)                                                                         \
    do {                                                                                           \
        const int from = ((g) + SUM_TILES - 2) % SUM_TILES, adds = from < ((g) < 2 ? (n2) : (n1)); \
        added now;                                                                                 \
        if ((g) == 2 && (n1) > 0) load_sums(&at[1], c);                                            \
        if (adds) {                                                                                \
            now = added_group(&at[(g) < 2 ? 2 : 1], from, sums[from]);                             \
            add_rows(0, 4, &now, c);                                                               \
        }                                                                                          \
        tile_store(g, sums[g], 4 * PGI_PANEL_ROWS);                                                \
        tile_zero(g);                                                                              \
        if ((g) < (n)) {                                                                           \
            tile_load(4, at[0].x + (g)*X_STEP, PGI_GROUP_COLUMNS);                                 \
        }                                                                                          \
        if (adds) add_rows(4, 3, &now, c);                                                         \
        if ((g) < (n)) {                                                                           \
            tile_load(6, at[0].w + (g)*PGI_INT8_BLOCK + 64, 64);                                   \
            tile_dot_s8(g, 4, 6);                                                                  \
        }                                                                                          \
        if (adds) add_rows(7, 4, &now, c);                                                         \
        if ((g) < (n)) {                                                                           \
            tile_load(5, at[0].x + (g)*X_STEP + 64, PGI_GROUP_COLUMNS);                            \
        }                                                                                          \
        if (adds) add_rows(11, 3, &now, c);                                                        \
        if ((g) < (n)) {                                                                           \
            tile_load(7, at[0].w + (g)*PGI_INT8_BLOCK + 64 + 1024, 64);                            \
            tile_dot_s8(g, 5, 7);                                                                  \
        }                                                                                          \
        if (adds) add_rows(14, 2, &now, c);                                                        \
        if ((g) == 1 && (n2) > 0) store_sums(&at[2], c);                                           \
    } while (0)

/* n groups of at[0]; n1 and n2 are those of the two places before. */
static ALWAYS_INLINE void multiply_place(const place at[3], const int n, const int n1, const int n2,
                                         int32_t sums[SUM_TILES][PGI_TILE_ROWS * PGI_PANEL_ROWS],
                                         tile_row c[PGI_TILE_ROWS]) {
    STEP(0, n, n1, n2);
    STEP(1, n, n1, n2);
    STEP(2, n, n1, n2);
    STEP(3, n, n1, n2);
}

static void product_tiles(int64_t rows, int64_t n, int64_t groups, const void *x, int64_t x_tile, const void *w,
                          int64_t panel_bytes, const float *start, int64_t start_stride, float *y, int64_t y_stride) {
    __attribute__((aligned(64))) int32_t sums[SUM_TILES][PGI_TILE_ROWS * PGI_PANEL_ROWS];
    __attribute__((aligned(64))) float block_sums[BLOCK_TILES * BLOCK_PANELS * PGI_TILE_ROWS * PGI_PANEL_ROWS];
    const tile_job all = {rows, n, groups, x, w, x_tile, panel_bytes, start, start_stride, y, y_stride, block_sums};
    const tile_job *job = &all;
    const int64_t n_places =
        pgi_ceil_div64(rows, PGI_TILE_ROWS) * pgi_ceil_div64(n, PGI_PANEL_ROWS) * pgi_ceil_div64(groups, SUM_TILES);
    place at[3] = {place_at(job, 0, 0, 0, 0)}; /* what is multiplied, and the two before */
    tile_row c[PGI_TILE_ROWS];
    UNROLL for (int i = 0; i < PGI_TILE_ROWS; i++) c[i] = tile_row_zero();
    tiles_begin();
    for (int64_t i = 0; i < n_places + 2; i++) {
        if (at[0].groups == SUM_TILES && at[1].groups == SUM_TILES && at[2].groups == SUM_TILES && i < n_places)
            multiply_place(at, SUM_TILES, SUM_TILES, SUM_TILES, sums, c);
        else
            multiply_place(at, i < n_places ? at[0].groups : 0, at[1].groups, at[2].groups, sums, c);
        at[2] = at[1], at[1] = at[0];
        if (i + 1 < n_places)
            at[0] = next_place(job, &at[1]);
        else
            at[0].groups = 0;
    }
    tiles_end();
}
