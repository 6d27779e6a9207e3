/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Template: the group `quantized_products` of kernels.inc (layouts: quantized.h), on vectors of any width. The
 * including file first defines the vectors, Q_LANES, qint, qfloat and the functions q_*, as x86/quantized_ymm.h has
 * them; and Q_TILES: 1 for activations as CPUs with tiles of AMX have them.
 *
 * Q_OWN_GROUPS: it defines group_int8() and group_int4() too.
 *
 * The sums of a group stay in registers as integers, m rows x 16 or 32 outputs; after each group they are added in f32
 * to `c`, which lies in the first-level cache; or, of the tiles of `product_int8` where Q_KEEPS_SUMS is 1, in
 * registers.
 */
#include "kernels/kernels.h"
#include "kernels/quantized.h"
#include "kernels/simd/unroll.h"

/* Where the four of columns g of row i lies in a tile of m rows. */
#ifndef Q_TILES
#define Q_TILES 0
#endif
#ifndef Q_KEEPS_SUMS
#define Q_KEEPS_SUMS 0
#endif
#if Q_TILES
#define Q_FOUR(m, g, i) (PGI_GROUP_COLUMNS * (i) + 4 * (g))
#else
#define Q_FOUR(m, g, i) (4 * ((m) * (g) + (i)))
#endif

enum {
    Q_VECTORS = PGI_PANEL_ROWS / Q_LANES, /* of a panel */
    Q_WIDEST = 8,                         /* vectors side by side */
    Q_FOURS = PGI_GROUP_COLUMNS / 4,
    Q_SUBS = PGI_GROUP_COLUMNS / PGI_SUB_COLUMNS,
    Q_AHEAD = 2048,           /* bytes that streamed weights are prefetched ahead, of each panel; */
    Q_ONE_STREAM_AHEAD = 8192 /* the same where panels follow one another */
};

/* (Bounds that are constants before anything is inlined: otherwise clang keeps loops and spills, at a third of the
 * speed.) */
#define EACH_ROW(i, rows) UNROLL for (int i = 0; i < PGI_TILE_ROWS; i++) if (i < (rows))
#define EACH_VECTOR(v) UNROLL for (int v = 0; v < Q_WIDEST; v++) if (v < vectors)

/* The compiler may not move a load or store over this: left to itself gcc moves so many up that registers run out. */
#define IN_ORDER __asm__ volatile("" : : : "memory")

#ifndef Q_OWN_GROUPS
/* sum = the products of rows i0 .. i0 + rows of a tile of m and one block of each of `panels` panels. */
static ALWAYS_INLINE void dots_int8(const int64_t ahead, const int m, const int i0, const int rows, const int panels,
                                    const char *x, const char *w, int64_t panel_bytes,
                                    qint sum[PGI_TILE_ROWS][Q_WIDEST]) {
    const int vectors = panels * Q_VECTORS;
    EACH_ROW(i, rows) EACH_VECTOR(v) sum[i][v] = q_start(x + m * (PGI_GROUP_COLUMNS + 4) + 4 * (i0 + i));
    for (int f = 0; f < Q_FOURS; f += 2) {
        UNROLL for (int g = f; g < f + 2; g++) {
            qint block[Q_WIDEST];
            EACH_VECTOR(v) {
                const char *at = w + v / Q_VECTORS * panel_bytes + 64 + 64 * g + v % Q_VECTORS * 4 * Q_LANES;
                block[v] = q_load(at);
                if (ahead && v % Q_VECTORS == 0) __builtin_prefetch(at + ahead);
            }
            EACH_ROW(i, rows) {
                qint four = q_set1(x + Q_FOUR(m, g, i0 + i));
                EACH_VECTOR(v) sum[i][v] = q_dot(sum[i][v], block[v], four);
            }
        }
    }
}

/* c += rows i0 .. i0 + rows of a tile of m times one block of each of `panels` panels. */
static ALWAYS_INLINE void group_int8(const int64_t ahead, const int m, const int i0, const int rows, const int panels,
                                     const char *x, const char *w, int64_t panel_bytes, float *c) {
    const int vectors = panels * Q_VECTORS;
    qint sum[PGI_TILE_ROWS][Q_WIDEST];
    qfloat scale[Q_WIDEST], part[PGI_TILE_ROWS][Q_WIDEST];
    dots_int8(ahead, m, i0, rows, panels, x, w, panel_bytes, sum);
    EACH_VECTOR(v) {
        const char *at = w + v / Q_VECTORS * panel_bytes + v % Q_VECTORS * 4 * Q_LANES;
        scale[v] = q_load_f32(at);
        if (ahead && v % Q_VECTORS == 0) __builtin_prefetch(at + ahead);
        EACH_ROW(i, rows) part[i][v] = q_to_f32(sum[i][v]);
    }
    EACH_ROW(i, rows) {
        EACH_VECTOR(v) {
            float *out = c + ((i0 + i) * vectors + v) * Q_LANES;
            const char *factor = x + m * PGI_GROUP_COLUMNS + 4 * (i0 + i);
            q_store_f32(out, q_add_group(part[i][v], scale[v], factor, q_load_f32(out)));
            IN_ORDER;
        }
    }
}

/* group_int8() with int4 blocks. */
static ALWAYS_INLINE void group_int4(const int64_t ahead, const int m, const int i0, const int rows, const int panels,
                                     const char *x, const char *w, int64_t panel_bytes, float *c) {
    const int vectors = panels * Q_VECTORS;
    qint total[PGI_TILE_ROWS][Q_WIDEST];
    EACH_ROW(i, rows) EACH_VECTOR(v) total[i][v] = q_zero();
    for (int s = 0; s < Q_SUBS; s++) {
        const char *start = x + m * (PGI_GROUP_COLUMNS + 8 + 4 * s);
        EACH_VECTOR(v) {
            const char *panel = w + v / Q_VECTORS * panel_bytes;
            qint factors = q_load_factors(panel + 2 * PGI_PANEL_ROWS + 8 * s + v % Q_VECTORS * (Q_LANES / 2));
            qint sum[PGI_TILE_ROWS];
            EACH_ROW(i, rows) sum[i] = q_start_sub(start + 4 * (i0 + i));
            UNROLL for (int e = 0; e < 4; e++) {
                const char *at = panel + 64 + 64 * (4 * s + e) + v % Q_VECTORS * 4 * Q_LANES;
                qint both = q_load(at), low = q_low_nibbles(both), high = q_high_nibbles(both);
                if (ahead && v % Q_VECTORS == 0) __builtin_prefetch(at + ahead);
                EACH_ROW(i, rows) {
                    sum[i] = q_dot_sub(sum[i], low, q_set1(x + Q_FOUR(m, 8 * s + 2 * e, i0 + i)));
                    sum[i] = q_dot_sub(sum[i], high, q_set1(x + Q_FOUR(m, 8 * s + 2 * e + 1, i0 + i)));
                }
            }
            EACH_ROW(i, rows) total[i][v] = q_add_sub(total[i][v], sum[i], factors, start + 4 * (i0 + i));
        }
    }
    EACH_VECTOR(v) {
        const char *at = w + v / Q_VECTORS * panel_bytes + v % Q_VECTORS * 2 * Q_LANES;
        qfloat scale = q_load_bf16(at);
        if (ahead && v % Q_VECTORS == 0) __builtin_prefetch(at + ahead);
        EACH_ROW(i, rows) {
            float *out = c + ((i0 + i) * vectors + v) * Q_LANES;
            const char *factor = x + m * PGI_GROUP_COLUMNS + 4 * (i0 + i);
            q_store_f32(out, q_add_group(q_to_f32(total[i][v]), scale, factor, q_load_f32(out)));
        }
    }
}
#endif

/* Prefetches a share of what is read next, beside the first outputs, and of the rows of y that a tile writes: in each
 * group a few lines, for as many as are under way at once hold all others up. */
static ALWAYS_INLINE void fetch_share(const int m, int64_t g, const float *y, int64_t n, const pgi_row_product *p) {
    const int64_t each = pgi_ceil_div64(m, p->groups), end = pgi_min64(m, each * (g + 1));
    if (p->next_w && y == p->y) pgi_prefetch_step(p->next_w);
    for (int64_t i = each * g; i < end; i++) {
        __builtin_prefetch(y + i * p->y_stride, 1);
        __builtin_prefetch(y + i * p->y_stride + n - 1, 1);
    }
}

/* Outputs r .. r + 16 panels, or as many of them as there are. Tiles with more sums than registers are cut: `part` rows
 * meet a block, then the others do, which find it in the first-level cache. */
static ALWAYS_INLINE void tile(const int is_int4, const int64_t ahead, const int m, const int part, const int panels,
                               int64_t r, const pgi_row_product *p) {
    const int width = PGI_PANEL_ROWS * panels;
    const int64_t n = pgi_min64(p->n - r, width);
    const char *x = p->x, *w = (const char *)p->w + r / PGI_PANEL_ROWS * p->panel_bytes;
    float *y = p->y + r;
    __attribute__((aligned(64))) float sums[Q_SUMS * Q_LANES], *c = sums;
    __asm__("" : "+r"(c) : : "memory"); /* not for the compiler to keep in registers and spill */
    const int full = n == width;        /* copied in vectors, not by a call of memcpy() */
    for (int i = 0; i < m; i++) {
        const float *from = p->start ? p->start + r + i * p->start_stride : NULL;
        if (!from || !full) memset(c + i * width, 0, (size_t)width * sizeof(float));
        if (from && full)
            UNROLL for (int j = 0; j < width; j += Q_LANES) q_store_f32(c + i * width + j, q_load_f32(from + j));
        if (from && !full) memcpy(c + i * width, from, (size_t)n * sizeof(float));
    }
    for (int64_t g = 0; g < p->groups; g++) {
        if (!ahead) fetch_share(m, g, y, n, p);
        UNROLL for (int i = 0; i < m; i += part) {
            const int rows = m - i < part ? m - i : part;
            if (is_int4)
                group_int4(i == 0 ? ahead : 0, m, i, rows, panels, x, w, p->panel_bytes, c);
            else
                group_int8(i == 0 ? ahead : 0, m, i, rows, panels, x, w, p->panel_bytes, c);
        }
        x += PGI_TILE_ROW_BYTES * m, w += is_int4 ? PGI_INT4_BLOCK : PGI_INT8_BLOCK;
    }
    for (int i = 0; i < m; i++) {
        float *to = y + i * p->y_stride;
        if (full) UNROLL for (int j = 0; j < width; j += Q_LANES) q_store_f32(to + j, q_load_f32(c + i * width + j));
        if (!full) memcpy(to, c + i * width, (size_t)n * sizeof(float));
    }
}

#if Q_KEEPS_SUMS
/* tile() of int8 that was just read, whose f32 sums stay in registers beside those of a group. */
static ALWAYS_INLINE void kept_tile(const int m, const int panels, int64_t r, const pgi_row_product *p) {
    static const float zeros[Q_WIDEST * Q_LANES] = {0};
    const int vectors = panels * Q_VECTORS, width = PGI_PANEL_ROWS * panels;
    const int64_t n = pgi_min64(p->n - r, width);
    const char *x = p->x, *w = (const char *)p->w + r / PGI_PANEL_ROWS * p->panel_bytes;
    const float *from = p->start ? p->start + r : zeros;
    int64_t from_stride = p->start ? p->start_stride : 0, to_stride = p->y_stride;
    float *y = p->y + r, *to = y, edge[Q_TILE_ROWS * Q_TILE_PANELS * PGI_PANEL_ROWS];
    qfloat c[PGI_TILE_ROWS][Q_WIDEST];
    if (n < width) {
        memset(edge, 0, (size_t)(m * width) * sizeof(float));
        for (int i = 0; i < m; i++) memcpy(edge + i * width, from + i * from_stride, (size_t)n * sizeof(float));
        from = to = edge;
        from_stride = to_stride = width;
    }
    EACH_ROW(i, m) EACH_VECTOR(v) c[i][v] = q_load_f32(from + i * from_stride + v * Q_LANES);
    for (int64_t g = 0; g < p->groups; g++, x += PGI_TILE_ROW_BYTES * m, w += PGI_INT8_BLOCK) {
        qint sum[PGI_TILE_ROWS][Q_WIDEST];
        fetch_share(m, g, y, n, p);
        dots_int8(0, m, 0, m, panels, x, w, p->panel_bytes, sum);
        EACH_VECTOR(v) {
            const qfloat scale = q_load_f32(w + v / Q_VECTORS * p->panel_bytes + v % Q_VECTORS * 4 * Q_LANES);
            EACH_ROW(i, m)
            c[i][v] = q_add_group(q_to_f32(sum[i][v]), scale, x + m * PGI_GROUP_COLUMNS + 4 * i, c[i][v]);
        }
    }
    EACH_ROW(i, m) EACH_VECTOR(v) q_store_f32(to + i * to_stride + v * Q_LANES, c[i][v]);
    if (n < width)
        for (int i = 0; i < m; i++) memcpy(y + i * p->y_stride, edge + i * width, (size_t)n * sizeof(float));
}
#endif

static ALWAYS_INLINE void any_tile(const int is_int4, const int streamed, const int64_t ahead, const int m,
                                   const int part, const int panels, int64_t r, const pgi_row_product *p) {
#if Q_KEEPS_SUMS
    if (!streamed) {
        kept_tile(m, panels, r, p);
        return;
    }
#endif
    tile(is_int4, streamed ? ahead : 0, m, part, panels, r, p);
}

/* All n outputs: `panels` panels at a time, then one by one; in one stream all one by one. */
static ALWAYS_INLINE void product(const int is_int4, const int streamed, const int m, const int part, const int panels,
                                  const pgi_row_product *p) {
    const pgi_row_product copy = *p; /* which no store can change, as the compiler sees */
    const int64_t one_ahead = m == 1 && !is_int4 ? Q_ONE_STREAM_AHEAD / 2 : Q_ONE_STREAM_AHEAD; /* as measured */
    const int64_t ahead = copy.one_stream ? one_ahead : Q_AHEAD;
    int64_t r = 0;
    if (panels > 1 && !(streamed && copy.one_stream))
        for (; copy.n - r > PGI_PANEL_ROWS * (panels - 1); r += PGI_PANEL_ROWS * panels)
            any_tile(is_int4, streamed, Q_AHEAD, m, part, panels, r, &copy);
    for (; r < copy.n; r += PGI_PANEL_ROWS) any_tile(is_int4, streamed, ahead, m, part, 1, r, &copy);
}

/* One copy for each height, so that its sums stay in registers. */
#define DEFINE_PRODUCT(name, is_int4, streamed, m, part, panels)                 \
    static __attribute__((noinline)) void name##_##m(const pgi_row_product *p) { \
        product(is_int4, streamed, m, part, panels, p);                          \
    }
#define EACH_4(X) X(1) X(2) X(3) X(4)
#define EACH_6(X) EACH_4(X) X(5) X(6)
#define EACH_7(X) EACH_6(X) X(7)
#define EACH_8(X) EACH_7(X) X(8)
#define EACH_12(X) EACH_8(X) X(9) X(10) X(11) X(12)
#define EACH_16(X) EACH_12(X) X(13) X(14) X(15) X(16)
#define DEFINE_PRODUCT_INT8(m) DEFINE_PRODUCT(product_int8, 0, 0, m, m, Q_TILE_PANELS)
#define DEFINE_STREAM_INT8(m) DEFINE_PRODUCT(stream_int8, 0, 1, m, Q_PART_INT8(m), Q_STREAM_PANELS(m))
#define DEFINE_STREAM_INT4(m) DEFINE_PRODUCT(stream_int4, 1, 1, m, Q_PART_INT4(m), Q_STREAM_PANELS(m))
Q_EACH_TILE_ROW(DEFINE_PRODUCT_INT8)
Q_EACH_INT8_ROW(DEFINE_STREAM_INT8)
Q_EACH_INT4_ROW(DEFINE_STREAM_INT4)

#define DEFINE(name, CASES)                      \
    static void name(const pgi_row_product *p) { \
        switch (p->m) { CASES }                  \
    }
#define CASE(name, m)  \
    case m:            \
        name##_##m(p); \
        break;
#define CASE_PRODUCT_INT8(m) CASE(product_int8, m)
#define CASE_STREAM_INT8(m) CASE(stream_int8, m)
#define CASE_STREAM_INT4(m) CASE(stream_int4, m)
DEFINE(product_int8, Q_EACH_TILE_ROW(CASE_PRODUCT_INT8))
DEFINE(stream_int8, Q_EACH_INT8_ROW(CASE_STREAM_INT8))
DEFINE(stream_int4, Q_EACH_INT4_ROW(CASE_STREAM_INT4))

static void set_quantized_products(pgi_kernels *kernels) {
    kernels->quantized_rows = Q_TILE_ROWS;
    kernels->stream_rows_int8 = Q_INT8_ROWS;
    kernels->stream_rows_int4 = Q_INT4_ROWS;
#define K(type, name, parameters) kernels->name = name;
#include "kernels/lists/quantized_products.inc"
#undef K
}
