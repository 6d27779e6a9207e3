/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Template: product_tiles on tiles of AMX (tiles_amx.h) or on those of tiles_c.h. An int8 block of weights is two
 * tiles as it lies in memory, u8 [2][16 fours][16 rows][4], and a group of 16 rows of activations is two, s8
 * [16][2][64].
 *
 * A unit is one group of two panels for two tiles of rows: eight products of tiles for eight that are loaded. Its sums
 * leave the tiles as integers and are added in f32, in order of the groups, by four instructions for 16 sums. Products
 * and these instructions want the same port of the CPU: a quarter of a unit takes 32 cycles of it for the first and 32
 * for the second. So nothing else may be in their way. While a unit is multiplied, the sums of the one before leave the
 * tiles, and those of the one before that are added, a few rows after each instruction on tiles, because the CPU does
 * not look far enough ahead to mix them.
 *
 * Operands come from the second-level cache, which gives a line in about three cycles. So a block is two tiles of rows
 * and all panels, group after group: what a group loads is used by the units of the other panels from the first-level
 * cache, where the f32 sums of the block are, too. Those begin with the low-rank part, a product of bf16 on the same
 * tiles.
 */
#include <string.h>

#include "kernels/kernels.h"
#include "kernels/quantized.h"
#include "kernels/simd/unroll.h"

enum {
    X_STEP = PGI_TILE_ROW_BYTES * PGI_TILE_ROWS, /* bytes of a group of a tile of x */
    SUMS = PGI_TILE_ROWS * PGI_PANEL_ROWS,       /* of a tile */
    UNIT_SUMS = 4 * SUMS,                        /* [tiles of x][panels][16][16] */
    UNIT_ROOM = UNIT_SUMS + 512,                 /* see `integers` */
    BLOCK_UNITS = PGI_PRODUCT_PANELS / 2
};

typedef struct tile_unit {
    const char *x[2], *w[2]; /* of its group; w[1] is w[0] where there is no second panel */
    float *sums;             /* f32 [2][2][16][16] */
    int64_t tile;            /* of the block */
    int first, last;         /* of the block */
} tile_unit;

/* Sums that have room in a tile: of rows of y from `tile` on, and outputs from `panel` on. */
static ALWAYS_INLINE int64_t rows_at(const pgi_tile_product *p, int64_t tile) {
    return pgi_min64(p->rows - tile * PGI_TILE_ROWS, PGI_TILE_ROWS);
}
static ALWAYS_INLINE int columns_at(const pgi_tile_product *p, int64_t panel) {
    return (int)pgi_max64(0, pgi_min64(p->n - panel * PGI_PANEL_ROWS, PGI_PANEL_ROWS));
}

/* What a block is added to. sums: [panels / 2][2][2][16][16] */
static ALWAYS_INLINE void begin_block(const pgi_tile_product *p, const int n_tiles, int64_t tile, float *sums) {
    const int is_whole = (tile + n_tiles) * PGI_TILE_ROWS <= p->rows && p->n % (2 * PGI_PANEL_ROWS) == 0;
    if (!p->start || !is_whole) memset(sums, 0, BLOCK_UNITS * UNIT_SUMS * sizeof *sums);
    if (!p->start) return;
    for (int64_t panel = 0; panel * PGI_PANEL_ROWS < p->n; panel++)
        for (int i = 0; i < n_tiles; i++) {
            const float *from = p->start + (tile + i) * PGI_TILE_ROWS * p->start_stride + panel * PGI_PANEL_ROWS;
            float *to = sums + panel / 2 * UNIT_SUMS + (2 * i + panel % 2) * SUMS;
            for (int64_t r = 0; r < rows_at(p, tile + i); r++)
                tile_row_store(to + r * PGI_PANEL_ROWS, tile_row_load(from + r * p->start_stride, columns_at(p, panel)),
                               PGI_PANEL_ROWS);
        }
}

/* The low-rank part of a block, on top of that or alone. The tiles of sums, 0 to 3, hold those of a unit, so others
 * take these. */
static ALWAYS_INLINE void add_low_rank(const pgi_tile_product *p, const int n_tiles, int64_t tile, float *sums) {
    enum { VALUES = 32, LINE = 2 * 2 * PGI_PANEL_ROWS }; /* values of a tile's row; of two lines of a panel */
    const int64_t k = p->low.k, row_bytes = 2 * k;
    const uint16_t *b = p->low.b;
    tiles_see_memory();
    for (int64_t panel = 0; panel * PGI_PANEL_ROWS < p->n; panel += 2, b += k * 2 * PGI_PANEL_ROWS, sums += UNIT_SUMS)
        for (int i = 0; i < n_tiles; i++) {
            const uint16_t *a = p->low.a + (tile + i) * PGI_TILE_ROWS * k;
            float *left = sums + 2 * i * SUMS, *right = left + SUMS;
            if (p->start) {
                tile_load(5, left, 4 * PGI_PANEL_ROWS);
                tile_load(7, right, 4 * PGI_PANEL_ROWS);
            } else {
                tile_zero(5);
                tile_zero(7);
            }
            for (int64_t l = 0; l < k; l += VALUES) {
                tile_load(4, a + l, row_bytes);
                tile_load(6, b + l / 2 * LINE, 2 * LINE);
                tile_dot_bf16(5, 4, 6);
                tile_load(6, b + l / 2 * LINE + VALUES, 2 * LINE);
                tile_dot_bf16(7, 4, 6);
            }
            tile_store(5, left, 4 * PGI_PANEL_ROWS);
            tile_store(7, right, 4 * PGI_PANEL_ROWS);
        }
}

static ALWAYS_INLINE void end_block(const pgi_tile_product *p, const int n_tiles, int64_t tile, const float *sums) {
    for (int i = 0; i < n_tiles; i++)
        for (int64_t r = 0; r < rows_at(p, tile + i); r++)
            for (int64_t panel = 0; panel * PGI_PANEL_ROWS < p->n; panel++)
                tile_row_store(
                    p->y + ((tile + i) * PGI_TILE_ROWS + r) * p->y_stride + panel * PGI_PANEL_ROWS,
                    tile_row_load(sums + panel / 2 * UNIT_SUMS + (2 * i + panel % 2) * SUMS + r * PGI_PANEL_ROWS,
                                  PGI_PANEL_ROWS),
                    columns_at(p, panel));
}

/* Adds n rows from row i of tile t = 2 * tile of x + panel of a unit: the excess of the weights comes off, then
 * fma(sum, scale of w * scale of x, f32 sum), as quantized.h has it. */
static ALWAYS_INLINE void add_rows(const tile_unit *unit, const int t, const int i, const int n, const int32_t *from) {
    const char *factors = unit->x[t / 2] + PGI_TILE_ROWS * PGI_GROUP_COLUMNS;
    const tile_row scales = tile_row_load((const float *)(const void *)unit->w[t % 2], PGI_PANEL_ROWS);
    UNROLL for (int k = i; k < i + n; k++) {
        float *sums = unit->sums + t * SUMS + k * PGI_PANEL_ROWS;
        tile_row_store(sums,
                       tile_row_add(tile_row_load(sums, PGI_PANEL_ROWS), from + t * SUMS + k * PGI_PANEL_ROWS,
                                    factors + 4 * (PGI_TILE_ROWS + k), scales, factors + 4 * k),
                       PGI_PANEL_ROWS);
    }
}

/* What is read two units later, and no tile has brought. */
static ALWAYS_INLINE void fetch_factors(const tile_unit *unit, const int n_tiles) {
    for (int i = 0; i < 2; i++) __builtin_prefetch(unit->w[i]);
    for (int i = 0; i < n_tiles; i++) {
        __builtin_prefetch(unit->x[i] + PGI_TILE_ROWS * PGI_GROUP_COLUMNS);
        __builtin_prefetch(unit->x[i] + PGI_TILE_ROWS * (PGI_GROUP_COLUMNS + 4));
    }
}

#define LOAD_X(t, i, half) tile_load(t, now->x[i] + 64 * (half), PGI_GROUP_COLUMNS)
#define LOAD_W(t, i, half) tile_load(t, now->w[i] + 64 + 1024 * (half), 64)
/* The sums of the unit before leave a tile, which then begins anew. */
#define RESTART(t, stored)                                      \
    do {                                                        \
        tile_store(t, (stored) + (t)*SUMS, 4 * PGI_PANEL_ROWS); \
        tile_zero(t);                                           \
    } while (0)
/* A quarter of a tile of the unit two before. */
#define ADD(quarter) add_rows(old, (quarter) / 4, (quarter) % 4 * 4, 4, added)

/* The unit `now`. stored: where the sums of the unit before go; added: those of `old`, which was two before. */
static ALWAYS_INLINE void multiply_unit(const int n_tiles, const tile_unit *now, const tile_unit *old, int32_t *stored,
                                        const int32_t *added) {
    LOAD_X(4, 0, 0);
    ADD(0);
    LOAD_W(6, 0, 0);
    ADD(1);
    RESTART(0, stored);
    tile_dot_su8(0, 4, 6);
    ADD(2);
    LOAD_W(7, 1, 0);
    ADD(3);
    RESTART(1, stored);
    tile_dot_su8(1, 4, 7);
    ADD(4);
    if (n_tiles == 2) {
        LOAD_X(5, 1, 0);
        ADD(8);
        RESTART(2, stored);
        tile_dot_su8(2, 5, 6);
        ADD(9);
        RESTART(3, stored);
        tile_dot_su8(3, 5, 7);
        ADD(10);
    }
    LOAD_X(4, 0, 1);
    ADD(5);
    LOAD_W(6, 0, 1);
    ADD(6);
    tile_dot_su8(0, 4, 6);
    ADD(7);
    LOAD_W(7, 1, 1);
    if (n_tiles == 2) ADD(11);
    tile_dot_su8(1, 4, 7);
    if (n_tiles == 2) {
        ADD(12);
        LOAD_X(5, 1, 1);
        ADD(13);
        tile_dot_su8(2, 5, 6);
        ADD(14);
        tile_dot_su8(3, 5, 7);
        ADD(15);
    }
}

static ALWAYS_INLINE void add_unit(const int n_tiles, const tile_unit *old, const int32_t *added) {
    UNROLL for (int quarter = 0; quarter < 8 * n_tiles; quarter++) ADD(quarter);
}

/* All units of tiles first .. end, n_tiles at once. */
static ALWAYS_INLINE void multiply_blocks(const pgi_tile_product *p, const int n_tiles, int64_t first, int64_t end,
                                          float sums[2][BLOCK_UNITS * UNIT_SUMS], int32_t integers[2][UNIT_ROOM]) {
    const int64_t n_pairs = (p->n + 2 * PGI_PANEL_ROWS - 1) / (2 * PGI_PANEL_ROWS);
    /* before there are two units, zeros are added to what the second block overwrites */
    const char *first_x = p->x + first * p->x_tile;
    tile_unit old = {{first_x, first_x}, {p->w, p->w}, sums[1], 0, 0, 0}, before = old, now;
    int64_t n = 0, block = 0;
    memset(integers, 0, 2 * UNIT_ROOM * sizeof **integers);
    memset(sums[1], 0, UNIT_SUMS * sizeof **sums);
    for (int64_t tile = first; tile < end; tile += n_tiles, block++)
        for (int64_t group = 0; group < p->groups; group++)
            for (int64_t pair = 0; pair < n_pairs; pair++, n++) {
                const char *x = p->x + tile * p->x_tile + group * X_STEP;
                const char *w = p->w + 2 * pair * p->panel_bytes + group * PGI_INT8_BLOCK;
                now = (tile_unit){{x, x + p->x_tile},
                                  {w, (2 * pair + 1) * PGI_PANEL_ROWS < p->n ? w + p->panel_bytes : w},
                                  sums[block % 2] + pair * UNIT_SUMS,
                                  tile,
                                  group + pair == 0,
                                  group == p->groups - 1 && pair == n_pairs - 1};
                fetch_factors(&now, n_tiles);
                pgi_prefetch_step(p->next_w);
                pgi_prefetch_step(p->next_x);
                multiply_unit(n_tiles, &now, &old, integers[(n + 1) % 2], integers[n % 2]);
                if (old.last) end_block(p, n_tiles, old.tile, sums[(old.tile - first) / n_tiles % 2]);
                if (now.first && (p->start || !p->low.k)) begin_block(p, n_tiles, tile, sums[block % 2]);
                if (now.first && p->low.k) add_low_rank(p, n_tiles, tile, sums[block % 2]);
                old = before, before = now;
            }
    add_unit(n_tiles, &old, integers[n % 2]);
    if (old.last) end_block(p, n_tiles, old.tile, sums[(old.tile - first) / n_tiles % 2]);
    int32_t *stored = integers[(n + 1) % 2];
    RESTART(0, stored);
    RESTART(1, stored);
    RESTART(2, stored);
    RESTART(3, stored);
    add_unit(n_tiles, &before, integers[(n + 1) % 2]);
    end_block(p, n_tiles, before.tile, sums[(before.tile - first) / n_tiles % 2]);
}

static void product_tiles(const pgi_tile_product *product) {
    const pgi_tile_product copy = *product, *p = &copy; /* which no store can change, as the compiler sees */
    __attribute__((aligned(64))) float sums[2][BLOCK_UNITS * UNIT_SUMS];
    /* Of the unit that is stored, and of the one that is added. What lies 4 KiB apart must not be in use at the same
     * time: a CPU takes a load for one of what was stored there. So they are 2 KiB apart from that. */
    __attribute__((aligned(4096))) int32_t integers[2][UNIT_ROOM];
    const int64_t n_tiles = (p->rows + PGI_TILE_ROWS - 1) / PGI_TILE_ROWS, in_pairs = n_tiles / 2 * 2;
    tiles_begin();
    if (in_pairs > 0) multiply_blocks(p, 2, 0, in_pairs, sums, integers);
    if (in_pairs < n_tiles) multiply_blocks(p, 1, in_pairs, n_tiles, sums, integers);
    tiles_end();
}
