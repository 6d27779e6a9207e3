/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Template: the kernels that read weights once, in their order: expand_*, gemv_x_* and gemv_*, for one format of
 * weights. Included by simd/products.inc.h once for each: DTYPE is f32, bf16 or f16, DTYPE_BYTES the size of a weight,
 * DTYPE_PAIRS whether two are unpacked from each word. A file and not a macro, so that a debugger can step through it.
 *
 * gemv takes 2 LANES columns in a step: weights `first` to one vector of sums and `second` to another. first are the
 * lower LANES columns, or with DTYPE_PAIRS the even ones, which saves half the loads and all shuffles. x lies in the
 * same order (gemv_x), the rows that take a step together side by side: one stream, which the sets of the cache bear. A
 * sum is the same both ways: v_sum() adds lanes that are half a vector apart, so lanes meet in the same order.
 *
 * A core waits for memory with a fixed number of loads and multiply-adds under way. Rows of W side by side share each
 * load of x, and are several streams; one row after the other is one stream, which AMD's memory gives faster
 * (gemv_one_stream), but has to load x for each: for one or two rows of x, which take few loads.
 */
#define NAME_OF_DTYPE(name, dtype) name##_##dtype
#define NAME_EXPANDED(name, dtype) NAME_OF_DTYPE(name, dtype)
#define NAME(name) NAME_EXPANDED(name, DTYPE) /* expand: expand_f32 */
#define LOAD_N_OF_DTYPE(dtype) v_load_##dtype##_n
#define LOAD_N_EXPANDED(dtype) LOAD_N_OF_DTYPE(dtype)
#define LOAD NAME(v_load)             /* LANES weights as f32 */
#define LOAD_N LOAD_N_EXPANDED(DTYPE) /* the first n < LANES */
#define STEP_BYTES (GEMV_STEP * DTYPE_BYTES)

#if DTYPE_PAIRS
static ALWAYS_INLINE vec NAME(first)(const char *p) { return v_low_bf16(i_load(p)); }
static ALWAYS_INLINE vec NAME(second)(const char *p) { return v_high_bf16(i_load(p)); }
static ALWAYS_INLINE vec NAME(first_n)(const char *p, int64_t n) { return v_low_bf16(i_load_halves(p, n)); }
static ALWAYS_INLINE vec NAME(second_n)(const char *p, int64_t n) { return v_high_bf16(i_load_halves(p, n)); }
static ALWAYS_INLINE float NAME(sum)(vec first, vec second) { return v_sum(first) + v_sum(second); }
#else
static ALWAYS_INLINE vec NAME(first)(const char *p) { return LOAD(p); }
static ALWAYS_INLINE vec NAME(second)(const char *p) { return LOAD(p + LANES * DTYPE_BYTES); }
static ALWAYS_INLINE vec NAME(first_n)(const char *p, int64_t n) { return n < LANES ? LOAD_N(p, n) : LOAD(p); }
static ALWAYS_INLINE vec NAME(second_n)(const char *p, int64_t n) {
    return n > LANES ? LOAD_N(p + LANES * DTYPE_BYTES, n - LANES) : v_zero();
}
static ALWAYS_INLINE float NAME(sum)(vec first, vec second) { return v_sum(v_add(first, second)); }
#endif

static void NAME(expand)(const void *w, int64_t n, float scale, float *out) {
    const vec factor = v_set1(scale);
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) v_store(out + i, v_mul(LOAD((const char *)w + i * DTYPE_BYTES), factor));
    if (i < n) v_store_n(out + i, v_mul(LOAD_N((const char *)w + i * DTYPE_BYTES, n - i), factor), n - i);
}
static ALWAYS_INLINE void NAME(gemv_x_step)(const float *x, float *out) {
    UNROLL for (int j = 0; j < LANES; j++) {
        out[j] = x[DTYPE_PAIRS ? 2 * j : j];
        out[LANES + j] = x[DTYPE_PAIRS ? 2 * j + 1 : LANES + j];
    }
}
static void NAME(gemv_x)(int m, int64_t k, const float *x, int64_t x_stride, float *out) {
    const int64_t whole = k / GEMV_STEP * GEMV_STEP;
    for (int i = 0; i < m; i++) {
        const float *row = x + i * x_stride;
        float last[GEMV_STEP] = {0}, *to = out + i * GEMV_STEP;
        for (int64_t l = 0; l < whole; l += GEMV_STEP, to += m * GEMV_STEP) NAME(gemv_x_step)(row + l, to);
        for (int64_t l = whole; l < k; l++) last[l - whole] = row[l];
        if (whole < k) NAME(gemv_x_step)(last, to);
    }
}

#ifndef GEMV_FETCH
#define GEMV_FETCH
/* Each row of W is fetched `ahead` bytes ahead (GEMV_AHEAD 0: the CPU's own prefetch does it); behind column `last`,
 * from `next` bytes further on: the row that this stream reads next. */
typedef struct gemv_fetch {
    int64_t last, ahead, next;
} gemv_fetch;
#endif

/* A step (2 LANES columns) of one vector of sums, `half` 0 or 1: `block` rows of W at p, times m rows of x at `at`.
 * What there is less of, rows of x or of W, is loaded at first and stays in registers. */
static ALWAYS_INLINE void NAME(gemv_step)(const int half, const int m, const int block, const float *at, const char *p,
                                          int64_t w_bytes, vec (*sums)[GEMV_W_MAX]) {
    vec a[PGI_GEMV_ROWS], b[GEMV_W_MAX];
    if (m < block) {
        UNROLL for (int i = 0; i < m; i++) {
            a[i] = v_load(at + i * GEMV_STEP + half * LANES);
            __asm__("" : "+" GEMV_REGISTER(a[i])); /* loaded once for all rows of W */
        }
        UNROLL for (int r = 0; r < block; r++) {
            b[0] = half ? NAME(second)(p + r * w_bytes) : NAME(first)(p + r * w_bytes);
            UNROLL for (int i = 0; i < m; i++) sums[i][r] = v_fma(a[i], b[0], sums[i][r]);
        }
    } else {
        UNROLL for (int r = 0; r < block; r++) b[r] =
            half ? NAME(second)(p + r * w_bytes) : NAME(first)(p + r * w_bytes);
        UNROLL for (int i = 0; i < m; i++) {
            a[0] = v_load(at + i * GEMV_STEP + half * LANES);
            __asm__("" : "+" GEMV_REGISTER(a[0]));
            UNROLL for (int r = 0; r < block; r++) sums[i][r] = v_fma(a[0], b[r], sums[i][r]);
        }
    }
}

/* A step of both vectors of sums of one row of W, of which each weight is loaded once: of a CPU's loads under way, none
 * is to take the place of one of the next weights. */
static ALWAYS_INLINE void NAME(gemv_row_step)(const int m, const float *at, const char *p, vec (*even)[GEMV_W_MAX],
                                              vec (*odd)[GEMV_W_MAX]) {
#if DTYPE_PAIRS
    ivec pairs = i_load(p);
    __asm__("" : "+" GEMV_REGISTER(pairs));
    const vec first = v_low_bf16(pairs), second = v_high_bf16(pairs);
#else
    const vec first = NAME(first)(p), second = NAME(second)(p);
#endif
    UNROLL for (int i = 0; i < m; i++) {
        vec a = v_load(at + i * GEMV_STEP), a2 = v_load(at + i * GEMV_STEP + LANES);
        __asm__("" : "+" GEMV_REGISTER(a), "+" GEMV_REGISTER(a2)); /* loads that wait for no weight */
        even[i][0] = v_fma(a, first, even[i][0]);
        odd[i][0] = v_fma(a2, second, odd[i][0]);
    }
}

/* Columns from <= l < to of `block` rows of W, times m rows of x, to the vectors of sums that `halves` names: 1 the
 * first, 2 the second, 3 both. When they take turns, each fetches every other row of W. */
static ALWAYS_INLINE void NAME(gemv_steps)(const int way, const int halves, const int m, const int block, int64_t from,
                                           int64_t to, gemv_fetch fetch, const float *x, const char *w, int64_t w_bytes,
                                           vec (*even)[GEMV_W_MAX], vec (*odd)[GEMV_W_MAX]) {
    vec e[PGI_GEMV_ROWS][GEMV_W_MAX], o[PGI_GEMV_ROWS][GEMV_W_MAX];
    UNROLL for (int i = 0; i < m; i++) UNROLL for (int r = 0; r < block; r++) e[i][r] = even[i][r], o[i][r] = odd[i][r];
    const float *at = x + m * from;
    (void)way; /* where nothing is fetched ahead */
    for (int64_t l = from; l < to;) {
        const int64_t stop = l < fetch.last ? pgi_min64(to, fetch.last) : to;
        const int64_t fetched = fetch.ahead + (l < fetch.last ? 0 : fetch.next);
        for (; l < stop; l += GEMV_STEP, at += m * GEMV_STEP) {
            const char *p = w + l * DTYPE_BYTES;
            if (GEMV_AHEAD(m, way) > 0 && (STEP_BYTES >= 64 || l * DTYPE_BYTES % 64 == 0))
                UNROLL for (int r = halves == 2; r < block; r += halves == 3 ? 1 : 2)
                    UNROLL for (int u = 0; u < STEP_BYTES; u += 64) __builtin_prefetch(p + r * w_bytes + fetched + u);
            if (block == 1 && halves == 3) {
                NAME(gemv_row_step)(m, at, p, e, o);
                continue;
            }
            if (halves & 1) NAME(gemv_step)(0, m, block, at, p, w_bytes, e);
            if (halves & 2) NAME(gemv_step)(1, m, block, at, p, w_bytes, o);
        }
    }
    UNROLL for (int i = 0; i < m; i++) UNROLL for (int r = 0; r < block; r++) even[i][r] = e[i][r], odd[i][r] = o[i][r];
}

/* `block` rows of W. Every sum is that of two vectors, so it depends on none of m, way and block. Where registers do
 * not hold both vectors, they take turns with a part of W and x, which stays in the first-level cache. */
static ALWAYS_INLINE void NAME(gemv_block)(const int m, const int way, const int block, int64_t k, const float *x,
                                           const char *w, int64_t w_bytes, const float *bias, float *y,
                                           int64_t y_stride) {
    const int64_t whole = k / GEMV_STEP * GEMV_STEP, ahead = GEMV_AHEAD(m, way);
    const int64_t steps = pgi_min64(whole, ahead / DTYPE_BYTES / GEMV_STEP * GEMV_STEP); /* never past a row */
    const gemv_fetch fetch = way == GEMV_ONE_STREAM
                                 ? (gemv_fetch){whole, ahead, 0}
                                 : (gemv_fetch){whole - steps, steps * DTYPE_BYTES, block * w_bytes - k * DTYPE_BYTES};
    vec even[PGI_GEMV_ROWS][GEMV_W_MAX], odd[PGI_GEMV_ROWS][GEMV_W_MAX];
    UNROLL for (int i = 0; i < m; i++) UNROLL for (int r = 0; r < block; r++) even[i][r] = odd[i][r] = v_zero();
    if (way == GEMV_IN_TURNS) {
        for (int64_t l = 0; l < whole; l += GEMV_PART) {
            const int64_t to = pgi_min64(whole, l + GEMV_PART);
            NAME(gemv_steps)(way, 1, m, block, l, to, fetch, x, w, w_bytes, even, odd);
            NAME(gemv_steps)(way, 2, m, block, l, to, fetch, x, w, w_bytes, even, odd);
        }
    } else {
        NAME(gemv_steps)(way, 3, m, block, 0, whole, fetch, x, w, w_bytes, even, odd);
    }
    if (whole < k) {
        UNROLL for (int r = 0; r < block; r++) {
            const char *p = w + r * w_bytes + whole * DTYPE_BYTES;
            vec b = NAME(first_n)(p, k - whole), b2 = NAME(second_n)(p, k - whole);
            UNROLL for (int i = 0; i < m; i++) {
                const float *at = x + m * whole + i * GEMV_STEP;
                even[i][r] = v_fma(v_load(at), b, even[i][r]);
                odd[i][r] = v_fma(v_load(at + LANES), b2, odd[i][r]);
            }
        }
    }
    UNROLL for (int i = 0; i < m; i++) {
        UNROLL for (int r = 0; r < block; r++) {
            float sum = NAME(sum)(even[i][r], odd[i][r]);
            y[i * y_stride + r] = bias ? sum + bias[r] : sum;
        }
    }
}
static ALWAYS_INLINE void NAME(gemv_all)(const int m, const int way, const int block, int64_t rows, int64_t k,
                                         const float *x, const char *w, int64_t w_bytes, const float *bias, float *y,
                                         int64_t y_stride) {
    int64_t r = 0;
    for (; r + block <= rows; r += block)
        NAME(gemv_block)(m, way, block, k, x, w + r * w_bytes, w_bytes, bias ? bias + r : NULL, y + r, y_stride);
    for (; r < rows; r++)
        NAME(gemv_block)(m, GEMV_TOGETHER, 1, k, x, w + r * w_bytes, w_bytes, bias ? bias + r : NULL, y + r, y_stride);
}
static void NAME(gemv)(int m, int64_t rows, int64_t k, const float *x, const void *w, int64_t w_bytes,
                       const float *bias, float *y, int64_t y_stride) {
#define GEMV_BY(m, way) NAME(gemv_all)(m, way, GEMV_W(m, way), rows, k, x, w, w_bytes, bias, y, y_stride)
/* Weights of 4 bytes are read too slowly for turns to pay. */
#define GEMV_ALL(m) (DTYPE_BYTES == 2 && GEMV_TURNS(m, k) ? GEMV_BY(m, GEMV_IN_TURNS) : GEMV_BY(m, GEMV_TOGETHER))
    switch (m) {
        case 1: GEMV_ALL(1); break;
        case 2: GEMV_ALL(2); break;
        case 3: GEMV_ALL(3); break;
        case 4: GEMV_ALL(4); break;
        default: break;
    }
#undef GEMV_ALL
#undef GEMV_BY
}

static void NAME(gemv_one_stream)(int m, int64_t rows, int64_t k, const float *x, const void *w, int64_t w_bytes,
                                  const float *bias, float *y, int64_t y_stride) {
    switch (m) {
        case 1: NAME(gemv_all)(1, GEMV_ONE_STREAM, 1, rows, k, x, w, w_bytes, bias, y, y_stride); break;
        case 2: NAME(gemv_all)(2, GEMV_ONE_STREAM, 1, rows, k, x, w, w_bytes, bias, y, y_stride); break;
        default: break;
    }
}

#undef NAME_OF_DTYPE
#undef NAME_EXPANDED
#undef NAME
#undef LOAD_N_OF_DTYPE
#undef LOAD_N_EXPANDED
#undef LOAD
#undef LOAD_N
#undef DTYPE
#undef DTYPE_BYTES
#undef DTYPE_PAIRS
#undef STEP_BYTES
