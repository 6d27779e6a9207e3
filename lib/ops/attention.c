/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * pgi_attention_forward(): scaled dot-product attention with grouped KV heads,
 * soft capping, and for each query the keys that it sees: a range, and perhaps
 * a prefix before it (eager_attention_forward of modeling_siglip.py,
 * modeling_gemma.py and modeling_gemma2.py).
 *
 * Several queries: keys and values of a few KV heads are packed to panels, then
 * a task takes one head and a block of queries, and goes through the keys in
 * blocks: scores, exponentials against the largest score so far, the weighted
 * sum of values; when a larger score turns up, what was summed shrinks (the
 * online softmax of arXiv 1805.02867, as in FlashAttention, arXiv 2205.14135),
 * so that no row of scores is longer than a block. With kernels->bf16_attention
 * scaled queries, keys, values and softmax weights are rounded to bf16; scores and
 * all sums stay f32. Few queries (decode): a task takes one query, some heads of a KV head
 * and KEY_BLOCK keys, and reads keys and values in place, as f32 or bf16; where there are more
 * keys, what the blocks gave is added up, each beside the largest score of all.
 *
 * pgi_attention_keep_weights(): the softmax weights themselves, which the above never has side by side. They are
 * computed a second time, one query after the other, so that nobody who does not ask for them pays.
 */
#include "ops/ops.h"

#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "base/parallel.h"
#include "kernels/kernels.h"
#include "ops/gemm_format.h"

enum {
    TILES = 4,                     /* a query block is so many gemm tiles high */
    KEY_BLOCK = 512,               /* keys whose scores are under way; at most PGI_GEMM_KC, a multiple of gemm_nr.
                                      It does not depend on the threads, so the sums of a row do not either */
    STREAMED_QUERIES = 4,          /* up to here keys and values are read in place */
    VALUE_BLOCK = 64,              /* of those: values that are read for one head after the other */
    AHEAD = 8,                     /* rows of queries prefetched ahead */
    LINE = 64,                     /* bytes of a line of the cache */
    PACKED_BYTES = 8 * 1024 * 1024 /* of packed keys and values, unless one head has more */
};

typedef struct attention_task {
    const pgi_run *run;
    const pgi_attention *shape;
    pgi_attention_rows rows;
    const pgi_attention_weights *kept;
    /* Of few queries: */
    int64_t head_batch; /* query heads of a KV head taken together */
    int64_t n_splits;   /* blocks of keys */
    float *parts;       /* what each gave [n_queries, n_heads, n_splits, part_stride()]; NULL: there is one block */
    /* The heads packed now: kv_begin <= KV head < kv_begin + kv_count. */
    int64_t kv_begin, kv_count;
    pgi_gemm_format format;
    char *packed_k;    /* [kv_count, key panels, head_dim, nr] */
    char *packed_v;    /* [kv_count, value panels, n_keys, nr] */
    char *threads;     /* scratch of the threads */
    size_t per_thread; /* bytes of each */
    atomic_int stopped;
} attention_task;

static size_t align64(size_t bytes) { return (bytes + 63) & ~(size_t)63; }

static int streamed(const pgi_attention *shape) { return shape->n_queries <= STREAMED_QUERIES; }

static int64_t query_block(const pgi_gemm_format *f) { return TILES * f->mr; }

/* Bytes of the packed keys, and of the packed values, of one KV head. */
static int64_t packed_k_bytes(const pgi_gemm_format *f, const pgi_attention *shape) {
    return pgi_ceil_div64(shape->n_keys, f->nr) * pgi_gemm_panel_bytes(f, shape->head_dim);
}
static int64_t packed_v_bytes(const pgi_gemm_format *f, const pgi_attention *shape) {
    return pgi_ceil_div64(shape->head_dim, f->nr) * pgi_gemm_panel_bytes(f, shape->n_keys);
}
static int64_t heads_at_once(const pgi_gemm_format *f, const pgi_attention *shape) {
    int64_t bytes = packed_k_bytes(f, shape) + packed_v_bytes(f, shape);
    return pgi_max64(1, pgi_min64(bytes ? PACKED_BYTES / bytes : shape->n_kv_heads, shape->n_kv_heads));
}

/* Bytes of a block of rows cut into column blocks, each an A tile: [blocks, rows, PGI_GEMM_A_ROW]. */
static size_t block_bytes(const pgi_gemm_format *f, int64_t columns) {
    return (size_t)(pgi_ceil_div64(columns, f->kc) * query_block(f) * PGI_GEMM_A_ROW);
}

/* Of the sums of a block of queries, from row to row: no power of two, for the cache's sets. */
static int64_t sum_stride(const pgi_attention *shape) { return pgi_ceil_div64(shape->head_dim, 16) * 16 + 16; }

/* What a block of keys gives for a query of a head: weighted values [head_dim], and a softmax_state. */
static int64_t part_stride(const pgi_attention *shape) { return pgi_ceil_div64(shape->head_dim + 2, 16) * 16; }

static int64_t key_splits(const pgi_attention *shape) { return pgi_max64(1, pgi_ceil_div64(shape->n_keys, KEY_BLOCK)); }

/* Bytes of the parts of all queries, or of as many as are taken one by one. */
static size_t parts_bytes(const pgi_attention *shape) {
    const int64_t n = pgi_min64(shape->n_queries, STREAMED_QUERIES) * shape->n_heads;
    return key_splits(shape) == 1 ? 0 : (size_t)(n * key_splits(shape) * part_stride(shape)) * sizeof(float);
}

/* A thread's scratch for queries that are taken one by one. */
static size_t streamed_bytes(const pgi_attention *shape) {
    const size_t keys = (size_t)shape->n_keys, d = (size_t)shape->head_dim;
    return align64(sizeof(float) * (PGI_GEMV_ROWS * (keys + d + PGI_GEMV_UNIT) + (PGI_GEMV_ROWS + 1) * d));
}

static size_t thread_bytes(const pgi_gemm_format *f, const pgi_attention *shape) {
    const size_t few = streamed_bytes(shape);
    if (streamed(shape)) return few;
    const size_t many = (size_t)(1 + f->bf16) * block_bytes(f, KEY_BLOCK) + block_bytes(f, shape->head_dim) +
                        (size_t)(query_block(f) * sum_stride(shape)) * sizeof(float);
    return many > few ? many : few; /* enough for fewer queries too */
}

/* With fewer keys more heads are packed at once, which can take more bytes than with all keys. So this is a bound that
 * only rises with the keys: all heads, but at most PACKED_BYTES or one head. */
size_t pgi_attention_scratch(const pgi_kernels *kernels, const pgi_attention *shape, int n_threads) {
    const pgi_gemm_format f = pgi_gemm_format_of(kernels, kernels->bf16_attention);
    size_t packed = 0;
    if (!streamed(shape)) {
        size_t head = (size_t)(packed_k_bytes(&f, shape) + packed_v_bytes(&f, shape));
        size_t at_once = head > PACKED_BYTES ? head : PACKED_BYTES, all = (size_t)shape->n_kv_heads * head;
        packed = all < at_once ? all : at_once;
    }
    return align64(packed) + (size_t)n_threads * thread_bytes(&f, shape) + parts_bytes(shape);
}

/* The keys that a query sees: 0 <= j < prefix and begin <= j < end, prefix <= begin <= end. */
typedef struct visible_keys {
    int64_t prefix, begin, end;
} visible_keys;

static visible_keys keys_of(const pgi_attention *shape, int64_t query) {
    visible_keys keys = {
        .prefix = shape->prefix_end ? shape->prefix_end[query] : 0,
        .begin = shape->key_begin ? shape->key_begin[query] : 0,
        .end = shape->key_end ? shape->key_end[query] : shape->n_keys,
    };
    if (keys.begin == keys.end) keys.begin = keys.end = keys.prefix; /* the prefix alone, or nothing */
    if (keys.prefix == keys.begin) keys.begin = keys.prefix = 0;     /* one range */
    return keys;
}

/* Keys from j on that a query sees all of (*visible) or none of; returns where they end, at hi at the latest. */
static int64_t stretch_end(visible_keys seen, int64_t j, int64_t hi, int *visible) {
    *visible = j < seen.prefix || (j >= seen.begin && j < seen.end);
    int64_t end = j < seen.prefix ? seen.prefix : j < seen.begin ? seen.begin : j < seen.end ? seen.end : hi;
    return pgi_min64(end, hi);
}

static int sees_any(visible_keys seen, int64_t lo, int64_t hi) {
    return lo < seen.prefix || pgi_min64(seen.end, hi) > pgi_max64(seen.begin, lo);
}

/* The state of the online softmax after some keys: their largest score, and the sum of exp(score - max). */
typedef struct softmax_state {
    float max, sum;
} softmax_state;

/* Adds the keys lo..hi to the state. Their scores x become weights exp(score - max), 0 where the query does not see the
 * key: in x itself, or as bf16 in `rounded` if that is not NULL. Returns the factor for all earlier weighted values. */
static float softmax_keys(const pgi_kernels *kernels, float *x, uint16_t *rounded, visible_keys seen, int64_t lo,
                          int64_t hi, float soft_cap, softmax_state *state) {
    float max = state->max, factor = 1;
    int visible;
    for (int64_t j = lo, stop; j < hi; j = stop) {
        stop = stretch_end(seen, j, hi, &visible);
        if (!visible) continue;
        if (soft_cap > 0) kernels->soft_cap(x + j - lo, stop - j, soft_cap);
        float here = kernels->row_max(x + j - lo, stop - j);
        if (here > max) max = here;
    }
    if (state->sum != 0 && max > state->max) { /* by the kernel that makes all other weights */
        factor = state->max;
        kernels->exp_sum(&factor, 1, max);
    }
    state->max = max;
    state->sum *= factor;
    if (max == -INFINITY) max = 0; /* every weight so far is 0 */
    for (int64_t j = lo, stop; j < hi; j = stop) {
        stop = stretch_end(seen, j, hi, &visible);
        if (visible && rounded)
            state->sum += kernels->exp_sum_bf16(x + j - lo, stop - j, max, rounded + j - lo);
        else if (visible)
            state->sum += kernels->exp_sum(x + j - lo, stop - j, max);
        else if (rounded)
            memset(rounded + j - lo, 0, (size_t)(stop - j) * sizeof(uint16_t));
        else
            memset(x + j - lo, 0, (size_t)(stop - j) * sizeof(float));
    }
    return factor;
}

/* Row `row` of the keys or values of a KV head. */
static const void *kv_at(const attention_task *task, const void *kv, int64_t stride, int64_t row, int64_t head) {
    const int64_t head_stride = task->rows.kv_head_stride ? task->rows.kv_head_stride : task->shape->head_dim;
    return (const char *)kv + (row * stride + head * head_stride) * (task->rows.kv_bf16 ? 2 : 4);
}

/* out [m, d] = scores [m, n] values [n, d], those of a KV head from row `first` on: a few values for all the heads, so
 * that they are read from memory once. sum: [d] of scratch. */
static void weighted_values(const attention_task *task, int64_t m, int64_t n, const float *scores, int64_t first,
                            int64_t kv, float *sum, float *out, int64_t out_stride) {
    const pgi_kernels *kernels = task->run->kernels;
    const int64_t d = task->shape->head_dim, stride = task->rows.v_stride;
    for (int64_t j = 0; j < n; j += VALUE_BLOCK) {
        const int64_t width = pgi_min64(VALUE_BLOCK, n - j);
        const void *values = kv_at(task, task->rows.v, stride, first + j, kv);
        for (int64_t i = 0; i < m; i++) {
            float *to = j == 0 ? out + i * out_stride : sum;
            if (task->rows.kv_bf16)
                kernels->weighted_sum_bf16(width, d, scores + i * n + j, values, stride, to);
            else
                kernels->weighted_sum(width, d, scores + i * n + j, values, stride, to);
            if (j > 0) kernels->add(out + i * out_stride, sum, d);
        }
    }
}

/* scores [m, n]: of the heads `head` .. `head` + m of one KV head, exp(score - max) of the keys that `query` sees, of n
 * from `first` on, 0 at the others; states: the largest score of these keys, and the sum. scaled: [m, head_dim] of
 * scratch; scores: [m, n], and behind them what gemv reads of the scaled queries. */
static void unscaled_weights(const attention_task *task, int64_t query, int64_t head, int64_t m, visible_keys seen,
                             int64_t first, int64_t n, float *scaled, float *scores, softmax_state *states) {
    const pgi_attention *shape = task->shape;
    const pgi_kernels *kernels = task->run->kernels;
    const int64_t d = shape->head_dim, kv = head / (shape->n_heads / shape->n_kv_heads);
    const void *keys = kv_at(task, task->rows.k, task->rows.k_stride, first, kv);
    kernels->expand_f32(task->rows.q + query * task->rows.q_stride + head * d, m * d, shape->scale, scaled);
    float *queries = scores + m * n;
    if (task->rows.kv_bf16) {
        kernels->gemv_x_bf16((int)m, d, scaled, d, queries);
        kernels->gemv_bf16((int)m, n, d, queries, keys, task->rows.k_stride * 2, NULL, scores, n);
    } else {
        kernels->gemv_x_f32((int)m, d, scaled, d, queries);
        kernels->gemv_f32((int)m, n, d, queries, keys, task->rows.k_stride * 4, NULL, scores, n);
    }
    const visible_keys here = {seen.prefix - first, seen.begin - first, seen.end - first};
    for (int64_t i = 0; i < m; i++) {
        states[i] = (softmax_state){-INFINITY, 0};
        softmax_keys(kernels, scores + i * n, NULL, here, 0, n, shape->soft_cap, &states[i]);
    }
}

/* Item: (query, KV head, batch of its query heads, block of keys). The batch reads the keys once; its size does not
 * change results. */
static void streamed_heads(void *context, int64_t begin, int64_t end, int thread) {
    const attention_task *task = context;
    const pgi_attention *shape = task->shape;
    const pgi_kernels *kernels = task->run->kernels;
    const int64_t d = shape->head_dim, group = shape->n_heads / shape->n_kv_heads, n_splits = task->n_splits;
    const int64_t batch = task->head_batch, n_batches = pgi_ceil_div64(group, batch);
    float *scaled = (float *)(task->threads + (size_t)thread * task->per_thread); /* [PGI_GEMV_ROWS, head_dim] */
    float *sum = scaled + PGI_GEMV_ROWS * d;                                      /* [head_dim] */
    float *scores = sum + d;                                                      /* [PGI_GEMV_ROWS, n] */
    for (int64_t item = begin; item < end; item++) {
        const int64_t split = item % n_splits, heads = item / n_splits;
        const int64_t kv = heads / n_batches % shape->n_kv_heads, query = heads / n_batches / shape->n_kv_heads;
        const int64_t head = kv * group + heads % n_batches * batch, m = pgi_min64(batch, (kv + 1) * group - head);
        const visible_keys seen = keys_of(shape, query);
        const int64_t first = pgi_max64(seen.prefix > 0 ? 0 : seen.begin, split * KEY_BLOCK);
        const int64_t n = pgi_min64(seen.end, (split + 1) * KEY_BLOCK) - first;
        const int64_t stride = task->parts ? n_splits * part_stride(shape) : d;
        float *out = task->parts ? task->parts + (query * shape->n_heads + head) * stride + split * part_stride(shape)
                                 : task->rows.out + query * task->rows.out_stride + head * d;
        softmax_state states[PGI_GEMV_ROWS];
        if (n > 0) {
            unscaled_weights(task, query, head, m, seen, first, n, scaled, scores, states);
            weighted_values(task, m, n, scores, first, kv, sum, out, stride);
        }
        for (int64_t i = 0; i < m; i++, out += stride) {
            if (n <= 0) memset(out, 0, (size_t)d * sizeof(float)), states[i] = (softmax_state){-INFINITY, 0};
            if (task->parts)
                memcpy(out + d, &states[i], sizeof states[i]);
            else if (n > 0)
                kernels->scale(out, d, 1 / states[i].sum);
        }
    }
}

/* Item: (query, head). What its blocks of keys gave, added up. */
static void add_parts(void *context, int64_t begin, int64_t end, int thread) {
    const attention_task *task = context;
    const pgi_attention *shape = task->shape;
    const pgi_kernels *kernels = task->run->kernels;
    const int64_t d = shape->head_dim, stride = part_stride(shape);
    (void)thread;
    for (int64_t item = begin; item < end; item++) {
        const int64_t query = item / shape->n_heads;
        float *part = task->parts + item * task->n_splits * stride;
        float *out = task->rows.out + query * task->rows.out_stride + item % shape->n_heads * d;
        softmax_state all = {-INFINITY, 0}, state;
        memset(out, 0, (size_t)d * sizeof(float));
        if (keys_of(shape, query).end == 0) continue;
        for (int64_t s = 0; s < task->n_splits; s++) {
            memcpy(&state, part + s * stride + d, sizeof state);
            if (state.max > all.max) all.max = state.max;
        }
        for (int64_t s = 0; s < task->n_splits; s++, part += stride) {
            memcpy(&state, part + d, sizeof state);
            if (state.sum == 0) continue; /* it sees none of these keys */
            float factor = state.max;
            kernels->exp_sum(&factor, 1, all.max == -INFINITY ? 0 : all.max);
            kernels->scale(part, d, factor);
            kernels->add(out, part, d);
            all.sum += factor * state.sum;
        }
        kernels->scale(out, d, 1 / all.sum);
    }
}

/* As many heads together as leave something for every thread. */
static pg_status streamed_forward(attention_task *task, char *scratch) {
    const pgi_run *run = task->run;
    const pgi_attention *shape = task->shape;
    const int64_t group = shape->n_heads / shape->n_kv_heads, n_heads = shape->n_queries * shape->n_heads;
    task->n_splits = key_splits(shape);
    task->head_batch =
        pgi_max64(1, pgi_min64(pgi_min64(PGI_GEMV_ROWS, group), n_heads * task->n_splits / run->n_threads));
    task->threads = scratch;
    if (task->n_splits > 1) task->parts = (float *)(scratch + (size_t)run->n_threads * task->per_thread);
    const int64_t n_batches = shape->n_queries * shape->n_kv_heads * pgi_ceil_div64(group, task->head_batch);
    PGI_TRY(pgi_parallel_for(run, n_batches * task->n_splits, 1, streamed_heads, task));
    if (!task->parts) return PG_OK;
    pgi_run alone;
    const double sums = 3.0 * (double)n_heads * (double)task->n_splits * (double)shape->head_dim;
    return pgi_parallel_for(pgi_run_for_work(run, sums, &alone), n_heads, 1, add_parts, task);
}

/* Item: a query. Its heads one after the other, in an order that the threads do not change. */
static void kept_weights(void *context, int64_t begin, int64_t end, int thread) {
    const attention_task *task = context;
    const pgi_attention *shape = task->shape;
    const pgi_attention_weights *kept = task->kept;
    const int64_t d = shape->head_dim, group = shape->n_heads / shape->n_kv_heads;
    float *scaled = (float *)(task->threads + (size_t)thread * task->per_thread);
    float *scores = scaled + (PGI_GEMV_ROWS + 1) * d;
    for (int64_t query = begin; query < end; query++) {
        visible_keys seen = keys_of(shape, query);
        int64_t first = seen.prefix > 0 ? 0 : seen.begin, n = seen.end - first;
        for (int64_t head = 0, m; n > 0 && head < shape->n_heads; head += m) {
            softmax_state states[PGI_GEMV_ROWS];
            m = pgi_min64(PGI_GEMV_ROWS, group - head % group);
            unscaled_weights(task, query, head, m, seen, first, n, scaled, scores, states);
            for (int64_t i = 0; i < m; i++) {
                float *to = kept->out + (head + i) * kept->head_stride + query * kept->query_stride;
                const float factor = kept->factor / states[i].sum;
                for (int64_t j = 0; j < n; j++)
                    if (kept->columns[first + j] >= 0) to[kept->columns[first + j]] += factor * scores[i * n + j];
            }
        }
    }
}

/* Fetches a row of a head that will be read soon: rows are too far apart for the CPU to see what comes. */
static inline void fetch_row(const char *row, int64_t bytes) {
    for (int64_t i = 0; i < bytes; i += LINE) __builtin_prefetch(row + i);
    __builtin_prefetch(row + bytes - 1);
}

/* A line of packed values: of `width` columns, from row `row`, and for bf16 of the next one too (NULL: there is none).
 */
static void pack_values(const attention_task *task, const void *row, const void *next, int width, char *to) {
    const pgi_kernels *kernels = task->run->kernels;
    const int64_t nr = task->format.nr;
    float expanded[2][PGI_GEMM_NR_MAX];
    if (task->rows.kv_bf16) {
        kernels->expand_bf16(row, width, 1, expanded[0]);
        if (next) kernels->expand_bf16(next, width, 1, expanded[1]);
        row = expanded[0], next = next ? expanded[1] : NULL;
    }
    if (task->format.bf16) {
        kernels->pair_rows(row, next, width, (uint16_t *)to);
    } else {
        memcpy(to, row, (size_t)width * sizeof(float));
        memset((float *)to + width, 0, (size_t)(nr - width) * sizeof(float));
    }
}

/* Item: (KV head, panel of keys). */
static void pack_heads(void *context, int64_t begin, int64_t end, int thread) {
    const attention_task *task = context;
    const pgi_attention *shape = task->shape;
    const pgi_kernels *kernels = task->run->kernels;
    const pgi_gemm_format *f = &task->format;
    const int64_t d = shape->head_dim, nr = f->nr, n_panels = pgi_ceil_div64(shape->n_keys, nr);
    const pgi_attention_rows *rows = &task->rows;
    const int64_t element = rows->kv_bf16 ? 2 : 4, pair = f->bf16 ? 2 : 1;
    (void)thread;
    for (int64_t item = begin; item < end; item++) {
        int64_t head = item / n_panels, key = item % n_panels * nr, n = pgi_min64(nr, shape->n_keys - key);
        const int64_t kv = task->kv_begin + head;
        char *packed = task->packed_k + head * packed_k_bytes(f, shape) + key / nr * pgi_gemm_panel_bytes(f, d);
        for (int64_t i = 0; i < n; i++) fetch_row(kv_at(task, rows->v, rows->v_stride, key + i, kv), d * element);
        pgi_gemm_pack(kernels, f, rows->kv_bf16 ? PG_DTYPE_BF16 : PG_DTYPE_F32,
                      kv_at(task, rows->k, rows->k_stride, key, kv), rows->k_stride * element, n, d, packed);
        packed = task->packed_v + head * packed_v_bytes(f, shape) + pgi_gemm_panel_bytes(f, key);
        for (int64_t column = 0; column < d; column += nr, packed += pgi_gemm_panel_bytes(f, shape->n_keys)) {
            const int width = (int)pgi_min64(nr, d - column);
            for (int64_t i = 0; i < n; i += pair) {
                const char *row = (const char *)kv_at(task, rows->v, rows->v_stride, key + i, kv) + column * element;
                const void *next = pair == 2 && i + 1 < n ? row + rows->v_stride * element : NULL;
                pack_values(task, row, next, width, packed + i * nr * f->element);
            }
        }
    }
}

/* c [rows, n] = a [rows, k] panel [k, n], or is added to; rows: any number, in tiles of nearly equal height. */
static void product(const pgi_kernels *kernels, const pgi_gemm_format *f, int64_t rows, int64_t n, int64_t k,
                    const char *a, const char *panel, float *c, int64_t c_stride, int accumulate) {
    const int64_t n_tiles = pgi_gemm_tiles(f, rows);
    for (int64_t t = 0; t < n_tiles; t++) {
        const int64_t row = pgi_gemm_tile_row(f, rows, t, n_tiles);
        pgi_gemm_tile(kernels, f, pgi_gemm_tile_row(f, rows, t + 1, n_tiles) - row, n, k, a + row * PGI_GEMM_A_ROW,
                      panel, c + row * c_stride, c_stride, accumulate, NULL);
    }
}

/* A block of queries of a head: its part of the scratch, and its sums so far. */
typedef struct query_rows {
    int64_t first, n; /* the queries */
    int64_t head, kv; /* kv: of those packed now */
    char *queries;    /* scaled: [dim blocks, block, PGI_GEMM_A_ROW] */
    float *scores;    /* [block, PGI_GEMM_LDA] */
    char *weights;    /* [block, PGI_GEMM_A_ROW]: the scores themselves, or their exponentials as bf16 */
    float *sums;      /* weighted values so far: [block, sum_stride] */
    int64_t lo, hi;   /* the keys that any of the queries sees */
    softmax_state states[TILES * PGI_GEMM_MR_MAX];
} query_rows;

/* Scales the queries and finds the keys that they see. */
static void start_block(const attention_task *task, query_rows *b) {
    const pgi_attention *shape = task->shape;
    const pgi_kernels *kernels = task->run->kernels;
    const pgi_gemm_format *f = &task->format;
    const int64_t d = shape->head_dim;
    b->lo = shape->n_keys, b->hi = 0;
    for (int64_t i = 0; i < b->n; i++) {
        visible_keys seen = keys_of(shape, b->first + i);
        if (seen.end > 0) b->lo = pgi_min64(b->lo, seen.prefix > 0 ? 0 : seen.begin);
        b->hi = pgi_max64(b->hi, seen.end);
        b->states[i] = (softmax_state){-INFINITY, 0};
        if (i + AHEAD < b->n)
            fetch_row((const char *)(task->rows.q + (b->first + i + AHEAD) * task->rows.q_stride + b->head * d),
                      d * (int64_t)sizeof(float));
        for (int64_t c = 0; c < d; c += f->kc) {
            const float *q = task->rows.q + (b->first + i) * task->rows.q_stride + b->head * d + c;
            char *row = b->queries + (c / f->kc * query_block(f) + i) * PGI_GEMM_A_ROW;
            if (f->bf16)
                kernels->round_bf16(q, pgi_min64(f->kc, d - c), shape->scale, (uint16_t *)row);
            else
                kernels->expand_f32(q, pgi_min64(f->kc, d - c), shape->scale, (float *)row);
        }
    }
    b->lo -= b->lo % f->pair;
}

/* Adds the keys from..to, of the key block that begins at `base`, to the sums of a block of queries. */
static void next_keys(const attention_task *task, query_rows *b, int64_t base, int64_t from, int64_t to) {
    const pgi_attention *shape = task->shape;
    const pgi_kernels *kernels = task->run->kernels;
    const pgi_gemm_format *f = &task->format;
    const int64_t d = shape->head_dim, nr = f->nr;
    const char *keys = task->packed_k + b->kv * packed_k_bytes(f, shape);
    const char *values = task->packed_v + b->kv * packed_v_bytes(f, shape) + pgi_gemm_panel_bytes(f, from);
    for (int64_t key = from / nr * nr; key < to; key += nr)
        for (int64_t k0 = 0; k0 < d; k0 += f->kc)
            product(kernels, f, b->n, pgi_min64(nr, shape->n_keys - key), pgi_min64(f->kc, d - k0),
                    b->queries + k0 / f->kc * query_block(f) * PGI_GEMM_A_ROW,
                    keys + key / nr * pgi_gemm_panel_bytes(f, d) + pgi_gemm_panel_bytes(f, k0), b->scores + key - base,
                    PGI_GEMM_LDA, k0 > 0);
    char *weights = b->weights + (from - base) * f->element;
    for (int64_t i = 0; i < b->n; i++) {
        float factor = softmax_keys(kernels, b->scores + i * PGI_GEMM_LDA + from - base,
                                    f->bf16 ? (uint16_t *)(weights + i * PGI_GEMM_A_ROW) : NULL,
                                    keys_of(shape, b->first + i), from, to, shape->soft_cap, &b->states[i]);
        if (factor != 1) kernels->scale(b->sums + i * sum_stride(shape), d, factor);
    }
    for (int64_t column = 0; column < d; column += nr, values += pgi_gemm_panel_bytes(f, shape->n_keys))
        product(kernels, f, b->n, pgi_min64(nr, d - column), to - from, weights, values, b->sums + column,
                sum_stride(shape), from > b->lo);
}

/* Item: (head, block of queries), the heads of a KV head one after the other. */
static void multiply_blocks(attention_task *task, int64_t first_item, int64_t last_item, int thread) {
    const pgi_attention *shape = task->shape;
    const pgi_kernels *kernels = task->run->kernels;
    const pgi_gemm_format *f = &task->format;
    const int64_t d = shape->head_dim, n_blocks = pgi_ceil_div64(shape->n_queries, query_block(f));
    const int64_t group = shape->n_heads / shape->n_kv_heads;
    char *scratch = task->threads + (size_t)thread * task->per_thread;
    query_rows b = {.scores = (float *)scratch, .weights = scratch + (f->bf16 ? block_bytes(f, KEY_BLOCK) : 0)};
    b.queries = b.weights + block_bytes(f, KEY_BLOCK);
    b.sums = (float *)(b.queries + block_bytes(f, d));

    for (int64_t item = first_item; item < last_item; item++) {
        b.head = task->kv_begin * group + item / n_blocks;
        b.kv = b.head / group - task->kv_begin;
        b.first = item % n_blocks * shape->n_queries / n_blocks; /* blocks of nearly equal height */
        b.n = (item % n_blocks + 1) * shape->n_queries / n_blocks - b.first;
        start_block(task, &b);
        for (int64_t base = b.lo / KEY_BLOCK * KEY_BLOCK; base < b.hi; base += KEY_BLOCK) {
            if (pgi_run_cancelled(task->run)) {
                atomic_store_explicit(&task->stopped, 1, memory_order_relaxed);
                return;
            }
            const int64_t from = pgi_max64(b.lo, base), to = pgi_min64(b.hi, base + KEY_BLOCK);
            int any = 0; /* no key may be seen between a prefix and a window */
            for (int64_t i = 0; i < b.n && !any; i++) any = sees_any(keys_of(shape, b.first + i), from, to);
            if (any) next_keys(task, &b, base, from, to);
        }
        float *out = task->rows.out + b.first * task->rows.out_stride + b.head * d;
        for (int64_t i = 0; i < b.n; i++, out += task->rows.out_stride) {
            if (keys_of(shape, b.first + i).end > 0)
                kernels->expand_f32(b.sums + i * sum_stride(shape), d, 1 / b.states[i].sum, out);
            else
                memset(out, 0, (size_t)d * sizeof(float));
        }
    }
}

static void query_blocks(void *context, int64_t begin, int64_t end, int thread) {
    attention_task *task = context;
    if (task->format.bf16) task->run->kernels->gemm_bf16_begin();
    multiply_blocks(task, begin, end, thread);
    if (task->format.bf16) task->run->kernels->gemm_bf16_end();
}

pg_status pgi_attention_forward(const pgi_run *run, const pgi_attention *shape, const pgi_attention_rows *rows,
                                void *scratch) {
    const pgi_kernels *kernels = run->kernels;
    const int64_t group = shape->n_heads / shape->n_kv_heads;
    if (shape->n_queries <= 0) return PG_OK;
    pgi_run alone;
    double products = (double)shape->n_queries * (double)shape->n_keys * shape->n_heads * shape->head_dim;
    run = pgi_run_for_work(run, 4.0 * products, &alone);
    attention_task task = {.run = run, .shape = shape, .rows = *rows};
    task.format = pgi_gemm_format_of(kernels, kernels->bf16_attention);
    const pgi_gemm_format *f = &task.format;
    task.per_thread = thread_bytes(f, shape);
    if (streamed(shape)) return streamed_forward(&task, scratch);
    int64_t at_once = heads_at_once(f, shape);
    task.packed_k = scratch;
    task.packed_v = task.packed_k + at_once * packed_k_bytes(f, shape);
    task.threads = (char *)scratch + align64((size_t)(at_once * (packed_k_bytes(f, shape) + packed_v_bytes(f, shape))));
    for (int64_t head = 0; head < shape->n_kv_heads; head += at_once) {
        task.kv_begin = head;
        task.kv_count = pgi_min64(at_once, shape->n_kv_heads - head);
        PGI_TRY(pgi_parallel_for(run, task.kv_count * pgi_ceil_div64(shape->n_keys, f->nr), 4, pack_heads, &task));
        PGI_TRY(pgi_parallel_for(run, task.kv_count * group * pgi_ceil_div64(shape->n_queries, query_block(f)), 1,
                                 query_blocks, &task));
        if (atomic_load(&task.stopped)) return pgi_run_cancelled_error();
    }
    return PG_OK;
}

pg_status pgi_attention_keep_weights(const pgi_run *run, const pgi_attention *shape, const pgi_attention_rows *rows,
                                     const pgi_attention_weights *kept, void *scratch) {
    attention_task task = {.run = run, .shape = shape, .rows = *rows, .kept = kept, .threads = scratch};
    task.per_thread = streamed_bytes(shape);
    return pgi_parallel_for(run, shape->n_queries, 1, kept_weights, &task);
}
