/*
 * Template: products of quantised weights and activations (layouts: quantized.h) on the vectors of quantized_ymm.h or
 * quantized_zmm.h, one of which is included before this file.
 *
 * The sums of a group stay in registers as integers, m rows x 16 or 32 outputs; after each group they are added in f32
 * to `c`, which lies in the first-level cache.
 */
#include "kernels/kernels.h"
#include "kernels/quantized.h"
#include "kernels/x86/unroll.h"

enum {
    Q_VECTORS = PGI_PANEL_ROWS / Q_LANES, /* of a panel */
    Q_WIDEST = 4,                         /* vectors side by side */
    Q_FOURS = PGI_GROUP_COLUMNS / 4,
    Q_SUBS = PGI_GROUP_COLUMNS / PGI_SUB_COLUMNS,
    Q_AHEAD = 2048 /* bytes that streamed weights are prefetched ahead, of each panel */
};

/* c[i][..] += m rows of x times `panels` panels of int8 blocks. c: [m][16 panels]. */
static ALWAYS_INLINE void tile_int8(const int m, const int panels, int64_t groups, const char *x, const char *w,
                                    int64_t panel_bytes, float *c) {
    const int vectors = panels * Q_VECTORS, streamed = m <= PGI_GEMV_ROWS;
    for (; groups > 0; groups--, x += PGI_TILE_ROW_BYTES * m, w += PGI_INT8_BLOCK) {
        qint sum[Q_TILE_ROWS][Q_WIDEST];
        UNROLL for (int i = 0; i < m; i++) UNROLL for (int v = 0; v < vectors; v++) sum[i][v] =
            q_start(x + m * (PGI_GROUP_COLUMNS + 4) + 4 * i);
        for (int f = 0; f < Q_FOURS; f++) {
            qint block[Q_WIDEST];
            UNROLL for (int v = 0; v < vectors; v++) {
                const char *at = w + v / Q_VECTORS * panel_bytes + 64 + 64 * f + v % Q_VECTORS * 4 * Q_LANES;
                block[v] = q_load(at);
                if (streamed && v % Q_VECTORS == 0) __builtin_prefetch(at + Q_AHEAD);
            }
            UNROLL for (int i = 0; i < m; i++) {
                qint four = q_set1(x + 4 * (m * f + i));
                UNROLL for (int v = 0; v < vectors; v++) sum[i][v] = q_dot(sum[i][v], block[v], four);
            }
        }
        UNROLL for (int v = 0; v < vectors; v++) {
            const char *at = w + v / Q_VECTORS * panel_bytes + v % Q_VECTORS * 4 * Q_LANES;
            qfloat scale = q_load_f32(at);
            if (streamed && v % Q_VECTORS == 0) __builtin_prefetch(at + Q_AHEAD);
            UNROLL for (int i = 0; i < m; i++) {
                float *out = c + (i * vectors + v) * Q_LANES;
                q_store_f32(out, q_add_group(sum[i][v], scale, x + m * PGI_GROUP_COLUMNS + 4 * i, q_load_f32(out)));
            }
        }
    }
}

/* The same of int4 blocks, m <= PGI_GEMV_ROWS. */
static ALWAYS_INLINE void tile_int4(const int m, const int panels, int64_t groups, const char *x, const char *w,
                                    int64_t panel_bytes, float *c) {
    const int vectors = panels * Q_VECTORS;
    for (; groups > 0; groups--, x += PGI_TILE_ROW_BYTES * m, w += PGI_INT4_BLOCK) {
        qint total[PGI_GEMV_ROWS][Q_WIDEST];
        UNROLL for (int i = 0; i < m; i++) UNROLL for (int v = 0; v < vectors; v++) total[i][v] = q_zero();
        for (int s = 0; s < Q_SUBS; s++) {
            const char *start = x + m * (PGI_GROUP_COLUMNS + 8 + 4 * s);
            UNROLL for (int v = 0; v < vectors; v++) {
                const char *panel = w + v / Q_VECTORS * panel_bytes;
                qint factors = q_load_factors(panel + 2 * PGI_PANEL_ROWS + 8 * s + v % Q_VECTORS * (Q_LANES / 2));
                qint sum[PGI_GEMV_ROWS];
                UNROLL for (int i = 0; i < m; i++) sum[i] = q_start_sub(start + 4 * i);
                UNROLL for (int e = 0; e < 4; e++) {
                    const char *at = panel + 64 + 64 * (4 * s + e) + v % Q_VECTORS * 4 * Q_LANES;
                    qint both = q_load(at), low = q_low_nibbles(both), high = q_high_nibbles(both);
                    if (v % Q_VECTORS == 0) __builtin_prefetch(at + Q_AHEAD);
                    UNROLL for (int i = 0; i < m; i++) {
                        const char *fours = x + 4 * (m * (8 * s + 2 * e) + i);
                        sum[i] = q_dot_sub(sum[i], low, q_set1(fours));
                        sum[i] = q_dot_sub(sum[i], high, q_set1(fours + 4 * m));
                    }
                }
                UNROLL for (int i = 0; i < m; i++) total[i][v] = q_add_sub(total[i][v], sum[i], factors, start + 4 * i);
            }
        }
        UNROLL for (int v = 0; v < vectors; v++) {
            const char *at = w + v / Q_VECTORS * panel_bytes + v % Q_VECTORS * 2 * Q_LANES;
            qfloat scale = q_load_bf16(at);
            if (v % Q_VECTORS == 0) __builtin_prefetch(at + Q_AHEAD);
            UNROLL for (int i = 0; i < m; i++) {
                float *out = c + (i * vectors + v) * Q_LANES;
                q_store_f32(out, q_add_group(total[i][v], scale, x + m * PGI_GROUP_COLUMNS + 4 * i, q_load_f32(out)));
            }
        }
    }
}

/* Outputs from y on, the first n <= 16 panels of them wanted. */
static ALWAYS_INLINE void tile(const int is_int4, const int m, const int panels, int64_t n, int64_t groups,
                               const char *x, const char *w, int64_t panel_bytes, float *y, int64_t y_stride,
                               int accumulate, const float *bias) {
    const int width = PGI_PANEL_ROWS * panels;
    __attribute__((aligned(64))) float c[Q_TILE_ROWS * Q_WIDEST * Q_LANES];
    const int full = n >= width; /* copied in vectors, not by a call of memcpy() */
    for (int i = 0; i < m; i++) {
        const float *start = accumulate ? y + i * y_stride : bias;
        if (!start || !full) memset(c + i * width, 0, (size_t)width * sizeof(float));
        if (start && full) UNROLL for (int j = 0; j < width; j += Q_LANES) q_store_f32(c + i * width + j, q_load_f32(start + j));
        if (start && !full) memcpy(c + i * width, start, (size_t)n * sizeof(float));
    }
    if (is_int4)
        tile_int4(m, panels, groups, x, w, panel_bytes, c);
    else
        tile_int8(m, panels, groups, x, w, panel_bytes, c);
    for (int i = 0; i < m; i++) {
        if (full) UNROLL for (int j = 0; j < width; j += Q_LANES) q_store_f32(y + i * y_stride + j, q_load_f32(c + i * width + j));
        if (!full) memcpy(y + i * y_stride, c + i * width, (size_t)n * sizeof(float));
    }
}

/* All n outputs: `panels` panels at a time, then one by one. */
static ALWAYS_INLINE void product(const int is_int4, const int m, const int panels, int64_t n, int64_t groups,
                                  const char *x, const char *w, int64_t panel_bytes, float *y, int64_t y_stride,
                                  int accumulate, const float *bias) {
    int64_t r = 0;
    for (; n - r > PGI_PANEL_ROWS * (panels - 1) && panels > 1; r += PGI_PANEL_ROWS * panels)
        tile(is_int4, m, panels, n - r, groups, x, w + r / PGI_PANEL_ROWS * panel_bytes, panel_bytes, y + r, y_stride,
             accumulate, bias ? bias + r : NULL);
    for (; r < n; r += PGI_PANEL_ROWS)
        tile(is_int4, m, 1, n - r, groups, x, w + r / PGI_PANEL_ROWS * panel_bytes, panel_bytes, y + r, y_stride,
             accumulate, bias ? bias + r : NULL);
}

/* One copy for each height, so that its sums stay in registers. */
#define DEFINE_PRODUCT(format, is_int4, m)                                                                             \
    static __attribute__((noinline)) void product_##format##_##m(int64_t n, int64_t groups, const void *x,             \
                                                                 const void *w, int64_t panel_bytes, float *y,         \
                                                                 int64_t y_stride, int accumulate, const float *bias) { \
        product(is_int4, m, m <= PGI_GEMV_ROWS ? Q_STREAM_PANELS : Q_TILE_PANELS, n, groups, x, w, panel_bytes, y,     \
                y_stride, accumulate, bias);                                                                           \
    }
#define EACH_STREAMED(X) X(1) X(2) X(3) X(4)
#if Q_HAS_TALL_TILES == 12
#define EACH_TALL(X) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12)
#elif Q_HAS_TALL_TILES == 6
#define EACH_TALL(X) X(5) X(6)
#else
#define EACH_TALL(X)
#endif
#define DEFINE_INT8(m) DEFINE_PRODUCT(int8, 0, m)
#define DEFINE_INT4(m) DEFINE_PRODUCT(int4, 1, m)
EACH_STREAMED(DEFINE_INT8)
EACH_TALL(DEFINE_INT8)
EACH_STREAMED(DEFINE_INT4)

#define CASE_INT8(m) \
    case m: product_int8_##m(n, groups, x, w, panel_bytes, y, y_stride, accumulate, bias); break;
#define CASE_INT4(m) \
    case m: product_int4_##m(n, groups, x, w, panel_bytes, y, y_stride, accumulate, bias); break;

static void product_int8(int m, int64_t n, int64_t groups, const void *x, const void *w, int64_t panel_bytes, float *y,
                         int64_t y_stride, int accumulate, const float *bias) {
    switch (m) { EACH_STREAMED(CASE_INT8) EACH_TALL(CASE_INT8) }
}

static void product_int4(int m, int64_t n, int64_t groups, const void *x, const void *w, int64_t panel_bytes, float *y,
                         int64_t y_stride, int accumulate, const float *bias) {
    switch (m) { EACH_STREAMED(CASE_INT4) }
}

static void set_quantized_products(pgi_kernels *kernels) {
    kernels->quantized_rows = Q_TILE_ROWS;
    kernels->product_int8 = product_int8;
    kernels->product_int4 = product_int4;
}
