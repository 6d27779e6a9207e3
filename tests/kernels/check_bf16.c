/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The checks of the kernels that work in bf16. Roundings are exact to the bit; the products have a bound. */
#include "check.h"

#include <math.h>
#include <string.h>

/* bf16 nearest to x, ties to even, by powers of two; a NaN as the kernels keep it. */
static uint16_t nearest_bf16(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
    if (isnan(x)) return (uint16_t)(bits >> 16 | 0x40);
    if (isinf(x)) return (uint16_t)(sign | 0x7F80);
    if (fabsf(x) < 0x1p-126f) return sign;
    int exponent;
    double fraction = frexp(fabs((double)x), &exponent) * 256; /* 128 to 256 */
    double whole = nearbyint(fraction);                        /* the mode is ties to even */
    if (whole == 256) whole = 128, exponent++;
    if (exponent > 128) return (uint16_t)(sign | 0x7F80);
    return (uint16_t)(sign | (exponent + 126) << 7 | ((int)whole - 128));
}

double rounded_bf16(float x) {
    uint16_t bits = nearest_bf16(x);
    return weight_value(&bits, PG_DTYPE_BF16, 0);
}

static void expect_bits(check *c, uint16_t got, uint16_t want, const char *where, int64_t i, int64_t j) {
    if (got != want) fail(c, "%s [%d][%d]: found 0x%04X, expected 0x%04X", where, (int)i, (int)j, got, want);
}

/* 64 bytes of slack; no value in it is what a test expects. */
static uint16_t *guarded_bf16(check *c, int64_t n) {
    uint16_t *x = guarded(c, (size_t)n * sizeof *x, 64);
    memset(x, 0xFF, (size_t)n * sizeof *x);
    return x;
}

/* Now and then what is easily rounded wrong: ties, the largest values, subnormals, NaN with digits in the lower half.
 */
static void spoil_some(check *c, float *x, int64_t n) {
    static const uint32_t special[] = {0x3F808000, 0x3F818000, 0x3F808001, 0x3F807FFF, 0x7F7F7FFF, 0x7F7F8000,
                                       0xFF7FFFFF, 0x7F800000, 0xFF800000, 0x7F800001, 0xFFC12345, 0x7FBFFFFF,
                                       0x00000001, 0x807FFFFF, 0x00800000, 0x80000000, 0x00FFFFFF, 0x007F8000};
    for (int64_t i = 0; i < n; i++)
        if (random_below(c, 3) == 0) memcpy(&x[i], &special[random_below(c, 18)], sizeof x[i]);
}

void check_round_bf16(check *c) {
    for (int64_t n = 0; next_length(&n);) {
        for (int kind = 0; kind < 3; kind++) {
            float *x = guarded_floats(c, n), scale = kind == 2 ? 0.3f : 1;
            uint16_t *out = guarded_bf16(c, n);
            random_fill(c, x, n);
            if (kind) spoil_some(c, x, n);
            c->kernels->round_bf16(x, n, scale, out);
            for (int64_t i = 0; i < n; i++) expect_bits(c, out[i], nearest_bf16(x[i] * scale), "out", n, i);
            release_all(c);
        }
    }
}

typedef void (*pack_fn)(const void *w, int64_t w_bytes, int rows, int64_t k, uint16_t *panel);

static void check_pack_pairs(check *c, pack_fn pack, int32_t dtype) {
    const int nr = c->kernels->gemm_bf16_nr;
    int64_t size = (int64_t)pgi_dtype_size(dtype);
    for (int rows = 1; rows <= nr; rows++) {
        for (int64_t k = 0; next_length(&k);) {
            if (k > 300) break;
            int64_t gap = random_below(c, 3) ? 0 : random_below(c, 40) + 1, w_bytes = k * size + gap;
            char *w = guarded(c, (size_t)(w_bytes * (rows - 1) + k * size), (size_t)random_below(c, 2));
            int64_t n_panel = (k + 1) / 2 * 2 * nr;
            uint16_t *panel = guarded_bf16(c, n_panel);
            for (int r = 0; r < rows; r++) {
                float row[300];
                random_weights(c, w + r * w_bytes, dtype, k);
                if (dtype != PG_DTYPE_F32) continue;
                memcpy(row, w + r * w_bytes, (size_t)(k * size));
                spoil_some(c, row, k);
                memcpy(w + r * w_bytes, row, (size_t)(k * size));
            }
            if (dtype == PG_DTYPE_BF16) /* kept as they are, even the signalling NaN */
                for (int64_t i = 0; i < k; i++)
                    if (random_below(c, 3) == 0)
                        memcpy(w + 2 * i, (const uint16_t[]){0x7F81, 0x0001, 0x8000, 0xFF80} + random_below(c, 4), 2);
            pack(w, w_bytes, rows, k, panel);
            for (int64_t i = 0; i < n_panel; i++) {
                int64_t l = i / (2 * nr) * 2 + i % 2, r = i % (2 * nr) / 2;
                uint16_t want = 0;
                if (r < rows && l < k && dtype == PG_DTYPE_BF16)
                    memcpy(&want, w + r * w_bytes + 2 * l, 2);
                else if (r < rows && l < k)
                    want = nearest_bf16((float)weight_value(w + r * w_bytes, dtype, l));
                if (r < rows && l < k && dtype == PG_DTYPE_F32) { /* NaN with its digits */
                    float value;
                    memcpy(&value, w + r * w_bytes + 4 * l, 4);
                    want = nearest_bf16(value);
                }
                expect_bits(c, panel[i], want, "panel", l, r);
            }
            release_all(c);
        }
    }
    if (dtype != PG_DTYPE_F16) return;
    for (int first = 0; first < 65536; first += 256) { /* every f16; NaN by its kind alone */
        uint16_t *all = guarded(c, 256 * 2, 0), *panel = guarded_bf16(c, (int64_t)256 * nr);
        for (int i = 0; i < 256; i++) all[i] = (uint16_t)(first + i);
        pack(all, 512, 1, 256, panel);
        for (int i = 0; i < 256; i++) {
            float value = (float)weight_value(all, dtype, i);
            uint16_t got = panel[i / 2 * 2 * nr + i % 2];
            if (isnan(value))
                expect_bits(c, (got & 0x7FFF) > 0x7F80, 1, "NaN", first, i);
            else
                expect_bits(c, got, nearest_bf16(value), "f16", first, i);
        }
        release_all(c);
    }
}
void check_pack_pairs_f32(check *c) { check_pack_pairs(c, c->kernels->pack_pairs_f32, PG_DTYPE_F32); }
void check_pack_pairs_bf16(check *c) { check_pack_pairs(c, c->kernels->pack_pairs_bf16, PG_DTYPE_BF16); }
void check_pack_pairs_f16(check *c) { check_pack_pairs(c, c->kernels->pack_pairs_f16, PG_DTYPE_F16); }

void check_pair_rows(check *c) {
    const int nr = c->kernels->gemm_bf16_nr;
    for (int n = 1; n <= nr; n++) {
        for (int kind = 0; kind < 4; kind++) {
            float *a = guarded_floats(c, n), *b = kind & 1 ? guarded_floats(c, n) : NULL;
            uint16_t *panel = guarded_bf16(c, 2 * nr);
            random_fill(c, a, n);
            if (b) random_fill(c, b, n);
            if (kind & 2) spoil_some(c, a, n);
            if (b && kind & 2) spoil_some(c, b, n);
            c->kernels->pair_rows(a, b, n, panel);
            for (int r = 0; r < nr; r++) {
                expect_bits(c, panel[2 * r], r < n ? nearest_bf16(a[r]) : 0, "first", n, r);
                expect_bits(c, panel[2 * r + 1], r < n && b ? nearest_bf16(b[r]) : 0, "second", n, r);
            }
            release_all(c);
        }
    }
}

static void random_bf16(check *c, uint16_t *x, int64_t n, int tiny) {
    for (int64_t i = 0; i < n; i++) x[i] = nearest_bf16((float)(random_unit(c) * (tiny ? 0x1p-64 : 1)));
}

static void check_gemm_shape(check *c, int m, int n, int64_t k) {
    const int nr = c->kernels->gemm_bf16_nr;
    const int64_t n_a = (int64_t)(m - 1) * PGI_GEMM_BF16_LDA + k, n_panel = (k + 1) / 2 * 2 * nr;
    const int tiny = random_below(c, 6) == 0; /* products near the subnormal */
    int accumulate = (int)random_below(c, 2), with_bias = (int)random_below(c, 2);
    int64_t stride = n + random_below(c, 5);
    uint16_t *a = guarded(c, (size_t)n_a * 2, 0), *panel = guarded(c, (size_t)n_panel * 2, 0);
    float *out = guarded_output(c, stride * (m - 1) + n), *bias = guarded_floats(c, n);
    float before[PGI_GEMM_MR_MAX * (PGI_GEMM_NR_MAX + 8)];
    random_bf16(c, a, n_a, tiny);
    random_bf16(c, panel, n_panel, tiny);
    if (k & 1) /* as pack_pairs leaves it */
        for (int j = 0; j < nr; j++) panel[(k - 1) * nr + 2 * j + 1] = 0;
    random_fill(c, bias, n);
    for (int i = 0; i < m; i++) random_fill(c, out + i * stride, accumulate ? n : 0);
    memcpy(before, out, sizeof(float) * (size_t)(stride * (m - 1) + n));
    /* Not both: an infinity times a subnormal is one or NaN. */
    if (random_below(c, 8) == 0)
        a[random_below(c, k)] = (const uint16_t[]){0x7FC0, 0x7F80, 0xFF80, 0x0001}[random_below(c, 4)];
    else if (random_below(c, 8) == 0)
        panel[random_below(c, k / 2 + 1) / 2 * 2 * nr] = 0x807F; /* subnormal */
    c->kernels->gemm_bf16_begin();
    c->kernels->gemm_bf16(m, n, k, a, panel, out, stride, accumulate, with_bias ? bias : NULL);
    c->kernels->gemm_bf16_end();
    for (int i = 0; i < m; i++) {
        for (int j = 0; j < n; j++) {
            double start = accumulate ? before[i * stride + j] : with_bias ? bias[j] : 0;
            double want = start, magnitudes = fabs(start), squares = start * start, flushed = 0;
            for (int64_t l = 0; l < k; l++) {
                double x = weight_value(a + i * PGI_GEMM_BF16_LDA, PG_DTYPE_BF16, l);
                double w = weight_value(panel, PG_DTYPE_BF16, l / 2 * 2 * nr + 2 * j + l % 2), product = x * w;
                want += product, magnitudes += fabs(product), squares += product * product;
                /* A subnormal factor may count as 0, and so may the product and the sum with it. */
                flushed += 2 * 0x1p-126;
                if (fabs(x) < 0x1p-126 || fabs(w) < 0x1p-126) flushed += isfinite(product) ? fabs(product) : 0;
            }
            /* At most as many roundings as of f32 factors: the products themselves are exact in f32. */
            expect_near(c, out[i * stride + j], want, sum_bound((double)k + 1, magnitudes, squares) + flushed, "c", i,
                        j);
        }
        for (int64_t j = n; j < stride && i + 1 < m; j++)
            if (!isnan(out[i * stride + j])) fail(c, "%d x %d: wrote between the rows", m, n);
    }
    release_all(c);
}

/* Blocks of a with rows and values of zeros behind them, and panels with values of zeros. */
static void check_panels(check *c, int m, int n, int64_t k) {
    const int nr = c->kernels->gemm_bf16_nr, n_panels = (n + nr - 1) / nr;
    const int64_t rows = (m + 15) / 16 * 16, whole = (k + 31) / 32 * 32, panel = whole * nr;
    const int64_t blocks = (whole + PGI_GEMM_BF16_KC - 1) / PGI_GEMM_BF16_KC, block = rows * PGI_GEMM_BF16_LDA;
    const int accumulate = (int)random_below(c, 2), with_bias = (int)random_below(c, 2);
    const int64_t stride = n + random_below(c, 5), last = stride * (m - 1) + n;
    uint16_t *a = guarded(c, (size_t)(blocks * block) * 2, 0), *w = guarded(c, (size_t)(n_panels * panel) * 2, 0);
    float *out = guarded_output(c, last), *bias = guarded_floats(c, n), *before = guarded_floats(c, last);
    pgi_low_rank_start low = {0};
    if (c->kernels->gemm_bf16_deep) low = random_low_rank(c, m, n, nr);
    memset(a, 0, (size_t)(blocks * block) * 2);
    memset(w, 0, (size_t)(n_panels * panel) * 2);
    for (int i = 0; i < m; i++)
        for (int64_t l = 0; l < k; l += PGI_GEMM_BF16_KC)
            random_bf16(c, a + l / PGI_GEMM_BF16_KC * block + i * PGI_GEMM_BF16_LDA, pgi_min64(k - l, PGI_GEMM_BF16_KC),
                        0);
    for (int j = 0; j < n; j++)
        for (int64_t l = 0; l < k; l++)
            random_bf16(c, w + j / nr * panel + l / 2 * 2 * nr + 2 * (j % nr) + l % 2, 1, 0);
    random_fill(c, bias, n);
    for (int i = 0; i < m; i++) random_fill(c, out + i * stride, accumulate ? n : 0);
    memcpy(before, out, sizeof(float) * (size_t)last);
    c->kernels->gemm_bf16_panels(&(pgi_panel_product){.m = m,
                                                      .n = n,
                                                      .k = k,
                                                      .a = a,
                                                      .a_block = block,
                                                      .panels = w,
                                                      .panel = panel,
                                                      .c = out,
                                                      .c_stride = stride,
                                                      .accumulate = accumulate,
                                                      .bias = with_bias ? bias : NULL,
                                                      .low = low});
    for (int i = 0; i < m; i++) {
        for (int j = 0; j < n; j++) {
            double start = accumulate ? before[i * stride + j] : with_bias ? bias[j] : 0;
            double want = start, magnitudes = fabs(start), squares = start * start;
            for (int64_t l = 0; l < low.k; l++) {
                const double product = low_rank_product(&low, i, j, l, nr);
                want += product, magnitudes += fabs(product), squares += product * product;
            }
            for (int64_t l = 0; l < k; l++) {
                const uint16_t *row = a + l / PGI_GEMM_BF16_KC * block + i * PGI_GEMM_BF16_LDA;
                double product = weight_value(row, PG_DTYPE_BF16, l % PGI_GEMM_BF16_KC) *
                                 weight_value(w + j / nr * panel, PG_DTYPE_BF16, l / 2 * 2 * nr + 2 * (j % nr) + l % 2);
                want += product, magnitudes += fabs(product), squares += product * product;
            }
            expect_near(c, out[i * stride + j], want, sum_bound((double)(k + low.k) + 1, magnitudes, squares), "c", i,
                        j);
        }
        for (int64_t j = n; j < stride && i + 1 < m; j++)
            if (!isnan(out[i * stride + j])) fail(c, "%d x %d: wrote between the rows", m, n);
    }
    release_all(c);
}

void check_gemm_bf16_panels(check *c) {
    static const int rows[] = {1, 4, 5, 15, 16, 17, 31, 32}, columns[] = {1, 15, 16, 17, 31, 32, 33, 47, 49, 63, 64};
    static const int64_t depths[] = {1, 31, 32, 40, 256, 300};
    for (size_t r = 0; r < sizeof rows / sizeof *rows && rows[r] <= c->kernels->gemm_bf16_mr; r++)
        for (size_t n = 0; n < sizeof columns / sizeof *columns; n++)
            check_panels(c, rows[r], columns[n], depths[random_below(c, 6)]);
    check_panels(c, c->kernels->gemm_bf16_mr, PGI_PANEL_COLUMNS, PGI_PANEL_VALUES);
    check_panels(c, 3, 20, PGI_GEMM_BF16_KC + 300);
}

void check_gemm_bf16(check *c) {
    static const int64_t depths[] = {1, 2, 3, 17, 72, 75};
    const int mr = c->kernels->gemm_bf16_mr, nr = c->kernels->gemm_bf16_nr;
    for (int m = 1; m <= mr; m++)
        for (int n = 1; n <= nr; n++)
            for (int twice = 0; twice < 2; twice++) check_gemm_shape(c, m, n, depths[random_below(c, 6)]);
    check_gemm_shape(c, mr, nr, PGI_GEMM_BF16_KC);
    check_gemm_shape(c, mr - 1, nr - 1, PGI_GEMM_BF16_KC - 1);
}
