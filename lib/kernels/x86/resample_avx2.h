/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The group `resample` for AVX2: exact integers, so the same bits as plain C. */
#include "kernels/resample.h"

#include <immintrin.h>
#include <string.h>

/* sum + a b, in pairs of 16 bits: one instruction with VNNI. */
#ifndef RESAMPLE_DOT
#define RESAMPLE_DOT(sum, a, b) _mm256_add_epi32(sum, _mm256_madd_epi16(a, b))
#endif

enum {
    TAPS = 4,        /* pixels of a step */
    STEP = 16,       /* bytes that it reads, of which it uses 12 */
    ROWS = 4,        /* rows that share the loads of weights */
    LOW_BITS = 11,   /* a weight is high * 2^LOW_BITS + low, both of 16 bits */
    MOST_STEPS = 256 /* whose weights are laid out at a time: 16 KiB, which stay in the first cache */
};

/* The weights of a step: of its first two pixels in the low half, for each channel. */
typedef struct step_weights {
    __m256i low, high;
} step_weights;

static int32_t steps_of(const pgi_resample *c, int32_t x) { return (c->n[x] + TAPS - 1) / TAPS; }

/* Lays the weights of output x out. 0: one does not fit in the 27 bits that a vector has for it. That does not happen,
 * as weights are shares; 27 bits are far beyond 1. */
static int lay_out(const pgi_resample *c, int32_t x, step_weights *to) {
    const int32_t *weights = c->weights + (int64_t)x * c->n_max, n = c->n[x];
    for (int32_t k = 0; k < n; k++) {
        const int32_t high = weights[k] >> LOW_BITS;
        if (high < INT16_MIN || high > INT16_MAX) return 0;
    }
    for (int32_t k = 0; k < n; k += TAPS, to++) {
        const __m128i there = _mm_cmpgt_epi32(_mm_set1_epi32(n - k), _mm_setr_epi32(0, 1, 2, 3));
        __m128i w = _mm_maskload_epi32(weights + k, there);
        w = _mm_packs_epi32(_mm_and_si128(w, _mm_set1_epi32((1 << LOW_BITS) - 1)), _mm_srai_epi32(w, LOW_BITS));
        const __m256i both = _mm256_castsi128_si256(w);
        to->low = _mm256_permutevar8x32_epi32(both, _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1));
        to->high = _mm256_permutevar8x32_epi32(both, _mm256_setr_epi32(2, 2, 2, 2, 3, 3, 3, 3));
    }
    return 1;
}

/* Output x of `rows` <= ROWS rows, the inputs `stride` bytes apart: pairs of pixels, channel by channel, by pairs of
 * weights. */
static inline __attribute__((always_inline)) void columns_of(const int rows, const pgi_resample *c, int32_t x,
                                                             const step_weights *weights, const uint8_t *in,
                                                             int64_t stride, uint8_t *out) {
    const __m256i channels = _mm256_setr_epi8(0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1, /* */
                                              6, -1, 9, -1, 7, -1, 10, -1, 8, -1, 11, -1, -1, -1, -1, -1);
    const uint8_t *p = in + (int64_t)c->first[x] * 3;
    __m256i low_sum[ROWS], high_sum[ROWS];
    for (int r = 0; r < rows; r++) low_sum[r] = high_sum[r] = _mm256_setzero_si256();
    for (int32_t k = 0, n = steps_of(c, x); k < n; k++, p += TAPS * 3) {
        const __m256i low = weights[k].low, high = weights[k].high;
        for (int r = 0; r < rows; r++) {
            __m256i pixels = _mm256_broadcastsi128_si256(_mm_loadu_si128((const void *)(p + r * stride)));
            pixels = _mm256_shuffle_epi8(pixels, channels);
            low_sum[r] = RESAMPLE_DOT(low_sum[r], pixels, low);
            high_sum[r] = RESAMPLE_DOT(high_sum[r], pixels, high);
        }
    }
    for (int r = 0; r < rows; r++) {
        __m256i sum = _mm256_add_epi32(low_sum[r], _mm256_slli_epi32(high_sum[r], LOW_BITS));
        __m128i s = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
        s = _mm_srai_epi32(_mm_add_epi32(s, _mm_set1_epi32(PGI_RESAMPLE_HALF)), PGI_RESAMPLE_BITS);
        s = _mm_packs_epi32(s, s);
        int32_t rgb = _mm_cvtsi128_si32(_mm_packus_epi16(s, s));
        memcpy(out + ((int64_t)r * c->n_out + x) * 3, &rgb, 3);
    }
}

/* Outputs first .. end - 1 of all rows, whose weights are laid out. */
static void some_columns(const pgi_resample *c, int32_t first, int32_t end, const step_weights *weights,
                         const uint8_t *in, int64_t stride, int64_t rows, uint8_t *out) {
    for (int64_t y = 0; y < rows;) {
        const int block = rows - y >= ROWS ? ROWS : 1;
        const step_weights *w = weights;
        for (int32_t x = first; x < end; w += steps_of(c, x++))
            if (block == ROWS)
                columns_of(ROWS, c, x, w, in, stride, out);
            else
                columns_of(1, c, x, w, in, stride, out);
        y += block;
        in += block * stride;
        out += (int64_t)block * c->n_out * 3;
    }
}

static void resample_columns(const pgi_resample *c, const uint8_t *in, int64_t stride, int64_t width, int64_t rows,
                             uint8_t *out) {
    step_weights weights[MOST_STEPS];
    int32_t first = 0, n_steps = 0;
    for (int32_t x = 0; x < c->n_out; x++) {
        const int32_t steps = steps_of(c, x);
        if (n_steps + steps > MOST_STEPS) {
            some_columns(c, first, x, weights, in, stride, rows, out);
            first = x;
            n_steps = 0;
        }
        const int64_t end = c->first[x] + (int64_t)steps * TAPS; /* a step would read behind the row */
        const int beyond = end * 3 + STEP - TAPS * 3 > width * 3;
        if (!beyond && steps <= MOST_STEPS && lay_out(c, x, weights + n_steps)) {
            n_steps += steps;
            continue;
        }
        some_columns(c, first, x, weights, in, stride, rows, out);
        for (int64_t y = 0; y < rows; y++) pgi_resample_pixel(c, x, in + y * stride, out + (y * c->n_out + x) * 3);
        first = x + 1;
        n_steps = 0;
    }
    some_columns(c, first, c->n_out, weights, in, stride, rows, out);
}

/* Adds `rows` <= SUMMED rows, each by its weight, to `size` sums, a multiple of 8. */
static inline __attribute__((always_inline)) void add_rows(const int rows, const int32_t *weights, const uint8_t *in,
                                                           int64_t stride, int64_t size, int32_t *sums) {
    for (int64_t i = 0; i < size; i += 8) {
        __m256i sum = _mm256_load_si256((const void *)(sums + i));
        for (int r = 0; r < rows; r++) {
            const __m256i x = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)(in + r * stride + i)));
            sum = _mm256_add_epi32(sum, _mm256_mullo_epi32(x, _mm256_set1_epi32(weights[r])));
        }
        _mm256_store_si256((void *)(sums + i), sum);
    }
}

/* Some rows of a long part at a time: an output row of a tall image is made of thousands, whose pages and lines the
 * caches would forget from one short part to the next. */
static void resample_row(const int32_t *weights, int32_t n, const uint8_t *in, int64_t stride, int64_t line,
                         uint8_t *out) {
    enum { PART = 1024, SUMMED = 8, GROUP = 32 };
    _Alignas(32) int32_t sums[PART];
    int64_t i = 0, size;
    for (; line - i >= GROUP; i += size) {
        size = line - i < PART ? (line - i) / GROUP * GROUP : PART;
        for (int64_t j = 0; j < size; j++) sums[j] = PGI_RESAMPLE_HALF;
        int32_t k = 0;
        for (; k + SUMMED <= n; k += SUMMED) add_rows(SUMMED, weights + k, in + k * stride + i, stride, size, sums);
        for (; k < n; k++) add_rows(1, weights + k, in + k * stride + i, stride, size, sums);
        for (int64_t j = 0; j < size; j += GROUP) {
            __m256i sum[4];
            for (int v = 0; v < 4; v++)
                sum[v] = _mm256_srai_epi32(_mm256_load_si256((const void *)(sums + j + 8 * v)), PGI_RESAMPLE_BITS);
            /* packing works on halves: the order of the 4-byte groups comes out as 0 2 4 6 1 3 5 7 */
            __m256i bytes = _mm256_packus_epi16(_mm256_packs_epi32(sum[0], sum[1]), _mm256_packs_epi32(sum[2], sum[3]));
            bytes = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
            _mm256_storeu_si256((void *)(out + i + j), bytes);
        }
    }
    for (; i < line; i++) {
        int32_t sum = PGI_RESAMPLE_HALF;
        for (int32_t k = 0; k < n; k++) sum += in[k * stride + i] * weights[k];
        out[i] = pgi_resample_clip(sum);
    }
}

static void set_resample(pgi_kernels *kernels) {
#define K(type, name, parameters) kernels->name = name;
#include "kernels/lists/resample.inc"
#undef K
}
