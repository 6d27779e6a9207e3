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
 * so that no row of scores is longer than a block. Few queries (decode): a task
 * takes one query and some heads of a KV head, and reads keys and values in place.
 */
#include "kernels/ops.h"

#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "base/parallel.h"
#include "kernels/kernels.h"

enum {
    TILES = 4,                     /* a query block is so many gemm tiles high */
    KEY_BLOCK = 256,               /* keys whose scores are under way; at most PGI_GEMM_KC, a multiple of gemm_nr */
    STREAMED_QUERIES = 4,          /* up to here keys and values are read in place */
    VALUE_BLOCK = 64,              /* of those: values that are read for one head after the other */
    PACKED_BYTES = 8 * 1024 * 1024 /* of packed keys and values, unless one head has more */
};

typedef struct attention_task {
    const pgi_run *run;
    const pgi_attention *shape;
    const float *q, *k, *v;
    float *out;
    int64_t q_stride, k_stride, v_stride, out_stride;
    int64_t head_batch; /* of few queries: query heads of a KV head taken together */
    /* The heads packed now: kv_begin <= KV head < kv_begin + kv_count. */
    int64_t kv_begin, kv_count;
    float *packed_k;   /* [kv_count, key panels, head_dim, nr] */
    float *packed_v;   /* [kv_count, value panels, n_keys, nr] */
    char *threads;     /* scratch of the threads */
    size_t per_thread; /* bytes of each */
    atomic_int stopped;
} attention_task;

static int64_t max64(int64_t a, int64_t b) { return a > b ? a : b; }
static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
static size_t align64(size_t bytes) { return (bytes + 63) & ~(size_t)63; }

static int streamed(const pgi_attention *shape) { return shape->n_queries <= STREAMED_QUERIES; }
static int64_t query_block(const pgi_kernels *kernels) { return (int64_t)TILES * kernels->gemm_mr; }

/* Floats of the packed keys, and of the packed values, of one KV head. */
static size_t packed_k_floats(const pgi_kernels *kernels, const pgi_attention *shape) {
    return (size_t)(ceil_div(shape->n_keys, kernels->gemm_nr) * kernels->gemm_nr * shape->head_dim);
}
static size_t packed_v_floats(const pgi_kernels *kernels, const pgi_attention *shape) {
    return (size_t)(ceil_div(shape->head_dim, kernels->gemm_nr) * kernels->gemm_nr * shape->n_keys);
}
static int64_t heads_at_once(const pgi_kernels *kernels, const pgi_attention *shape) {
    size_t bytes = (packed_k_floats(kernels, shape) + packed_v_floats(kernels, shape)) * sizeof(float);
    int64_t n = bytes ? (int64_t)(PACKED_BYTES / bytes) : shape->n_kv_heads;
    return max64(1, pgi_min64(n, shape->n_kv_heads));
}

/* Floats of a block of rows cut into column blocks: [blocks, rows, PGI_GEMM_LDA]. */
static size_t block_floats(int64_t rows, int64_t columns) {
    return (size_t)(ceil_div(columns, PGI_GEMM_KC) * rows * PGI_GEMM_LDA);
}

static size_t thread_bytes(const pgi_kernels *kernels, const pgi_attention *shape) {
    size_t floats = streamed(shape) ? PGI_GEMV_ROWS * (size_t)shape->n_keys +
                                          (PGI_GEMV_ROWS + 1) * (size_t)shape->head_dim
                                    : block_floats(query_block(kernels), KEY_BLOCK) +
                                          block_floats(query_block(kernels), shape->head_dim);
    return align64(floats * sizeof(float));
}

/* Fewer keys can need more room for packing, as more heads are then packed at once; so this is the bound that rises
 * with the keys: all heads, but at most PACKED_BYTES or one head. */
size_t pgi_attention_scratch(const pgi_kernels *kernels, const pgi_attention *shape, int n_threads) {
    size_t packed = 0;
    if (!streamed(shape)) {
        size_t head = (packed_k_floats(kernels, shape) + packed_v_floats(kernels, shape)) * sizeof(float);
        size_t at_once = head > PACKED_BYTES ? head : PACKED_BYTES, all = (size_t)shape->n_kv_heads * head;
        packed = all < at_once ? all : at_once;
    }
    return align64(packed) + (size_t)n_threads * thread_bytes(kernels, shape);
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
    return lo < seen.prefix || pgi_min64(seen.end, hi) > max64(seen.begin, lo);
}

/* What the keys before have come to: sum of exp(score - max). */
typedef struct softmax_state {
    float max, sum;
} softmax_state;

/* Goes on with the keys lo..hi: their scores x become exp(score - max), 0 where the query does not see the key. Returns
 * the factor for everything that was weighted before. */
static float softmax_keys(const pgi_kernels *kernels, float *x, visible_keys seen, int64_t lo, int64_t hi,
                          float soft_cap, softmax_state *state) {
    float max = state->max, factor = 1;
    int visible;
    for (int64_t j = lo, stop; j < hi; j = stop) {
        stop = stretch_end(seen, j, hi, &visible);
        if (!visible) continue;
        if (soft_cap > 0) kernels->soft_cap(x + j - lo, stop - j, soft_cap);
        float here = kernels->row_max(x + j - lo, stop - j);
        if (here > max) max = here;
    }
    if (state->sum != 0 && max > state->max) { /* exp by the same kernel as all others */
        factor = state->max;
        kernels->exp_sum(&factor, 1, max);
    }
    state->max = max;
    state->sum *= factor;
    if (max == -INFINITY) max = 0; /* every weight so far is 0 */
    for (int64_t j = lo, stop; j < hi; j = stop) {
        stop = stretch_end(seen, j, hi, &visible);
        if (visible)
            state->sum += kernels->exp_sum(x + j - lo, stop - j, max);
        else
            memset(x + j - lo, 0, (size_t)(stop - j) * sizeof(float));
    }
    return factor;
}

/* out [m, d] = scores [m, n] values [n, d]: a few values for all the heads, so that they are read from memory once. */
static void weighted_values(const pgi_kernels *kernels, int64_t m, int64_t n, int64_t d, const float *scores,
                            const float *values, int64_t v_stride, float *part, float *out) {
    for (int64_t j = 0; j < n; j += VALUE_BLOCK) {
        int64_t width = pgi_min64(VALUE_BLOCK, n - j);
        for (int64_t i = 0; i < m; i++) {
            float *to = j == 0 ? out + i * d : part;
            kernels->weighted_sum(width, d, scores + i * n + j, values + j * v_stride, v_stride, to);
            if (j > 0) kernels->add(out + i * d, part, d);
        }
    }
}

/* Item: (query, KV head, batch of its query heads). The batch reads the keys once; its size does not change results. */
static void streamed_heads(void *context, int64_t begin, int64_t end, int thread) {
    const attention_task *task = context;
    const pgi_attention *shape = task->shape;
    const pgi_kernels *kernels = task->run->kernels;
    const int64_t d = shape->head_dim, group = shape->n_heads / shape->n_kv_heads;
    const int64_t batch = task->head_batch, n_batches = ceil_div(group, batch);
    float *scaled = (float *)(task->threads + (size_t)thread * task->per_thread); /* [PGI_GEMV_ROWS, head_dim] */
    float *part = scaled + PGI_GEMV_ROWS * d;                                     /* [head_dim] */
    float *scores = part + d;                                                     /* [PGI_GEMV_ROWS, n] */
    for (int64_t item = begin; item < end; item++) {
        int64_t kv = item / n_batches % shape->n_kv_heads, query = item / n_batches / shape->n_kv_heads;
        int64_t head = kv * group + item % n_batches * batch, m = pgi_min64(batch, (kv + 1) * group - head);
        visible_keys seen = keys_of(shape, query);
        int64_t first = seen.prefix > 0 ? 0 : seen.begin, n = seen.end - first;
        const float *keys = task->k + first * task->k_stride + kv * d;
        const float *values = task->v + first * task->v_stride + kv * d;
        float *out = task->out + query * task->out_stride + head * d;
        if (n == 0) {
            memset(out, 0, (size_t)(m * d) * sizeof(float));
            continue;
        }
        kernels->expand_f32(task->q + query * task->q_stride + head * d, m * d, shape->scale, scaled);
        kernels->gemv_f32((int)m, n, d, scaled, d, keys, task->k_stride * (int64_t)sizeof(float), NULL, scores, n);
        const visible_keys here = {seen.prefix, seen.begin - first, n};
        softmax_state states[PGI_GEMV_ROWS];
        for (int64_t i = 0; i < m; i++) {
            states[i] = (softmax_state){-INFINITY, 0};
            softmax_keys(kernels, scores + i * n, here, 0, n, shape->soft_cap, &states[i]);
        }
        weighted_values(kernels, m, n, d, scores, values, task->v_stride, part, out);
        for (int64_t i = 0; i < m; i++) kernels->scale(out + i * d, d, 1 / states[i].sum);
    }
}

/* Item: (KV head, panel of keys). */
static void pack_heads(void *context, int64_t begin, int64_t end, int thread) {
    const attention_task *task = context;
    const pgi_attention *shape = task->shape;
    const pgi_kernels *kernels = task->run->kernels;
    const int64_t d = shape->head_dim, nr = kernels->gemm_nr, n_panels = ceil_div(shape->n_keys, nr);
    (void)thread;
    for (int64_t item = begin; item < end; item++) {
        int64_t head = item / n_panels, key = item % n_panels * nr, n = pgi_min64(nr, shape->n_keys - key);
        const float *keys = task->k + key * task->k_stride + (task->kv_begin + head) * d;
        const float *values = task->v + key * task->v_stride + (task->kv_begin + head) * d;
        kernels->pack_f32(keys, task->k_stride * (int64_t)sizeof(float), (int)n, d,
                          task->packed_k + head * (int64_t)packed_k_floats(kernels, shape) + key * d);
        float *packed = task->packed_v + head * (int64_t)packed_v_floats(kernels, shape);
        for (int64_t column = 0; column < d; column += nr) {
            int64_t width = pgi_min64(nr, d - column);
            for (int64_t i = 0; i < n; i++) {
                float *row = packed + column * shape->n_keys + (key + i) * nr;
                memcpy(row, values + i * task->v_stride + column, (size_t)width * sizeof(float));
                memset(row + width, 0, (size_t)(nr - width) * sizeof(float));
            }
        }
    }
}

/* Item: (head, block of queries), the heads of a KV head one after the other. */
static void query_blocks(void *context, int64_t first_item, int64_t last_item, int thread) {
    attention_task *task = context;
    const pgi_attention *shape = task->shape;
    const pgi_kernels *kernels = task->run->kernels;
    const int64_t d = shape->head_dim, nr = kernels->gemm_nr, mr = kernels->gemm_mr, block = query_block(kernels);
    const int64_t n_blocks = ceil_div(shape->n_queries, block), group = shape->n_heads / shape->n_kv_heads;
    const int64_t block_stride = block * PGI_GEMM_LDA;
    float *scores = (float *)(task->threads + (size_t)thread * task->per_thread); /* [block, LDA] */
    float *queries = scores + block_floats(block, KEY_BLOCK);                     /* [dim blocks, block, LDA] */

    for (int64_t item = first_item; item < last_item; item++) {
        int64_t head = task->kv_begin * group + item / n_blocks, kv = head / group - task->kv_begin;
        int64_t q0 = item % n_blocks * block, rows = pgi_min64(block, shape->n_queries - q0);
        const float *packed_k = task->packed_k + kv * (int64_t)packed_k_floats(kernels, shape);
        const float *packed_v = task->packed_v + kv * (int64_t)packed_v_floats(kernels, shape);
        float *out = task->out + q0 * task->out_stride + head * d;
        int64_t lo = shape->n_keys, hi = 0; /* the keys that any query of the block sees */
        for (int64_t i = 0; i < rows; i++) {
            visible_keys seen = keys_of(shape, q0 + i);
            if (seen.end > 0) lo = pgi_min64(lo, seen.prefix > 0 ? 0 : seen.begin);
            hi = max64(hi, seen.end);
            for (int64_t c = 0; c < d; c += PGI_GEMM_KC) {
                float *row = queries + c / PGI_GEMM_KC * block_stride + i * PGI_GEMM_LDA;
                int64_t n = pgi_min64(PGI_GEMM_KC, d - c);
                kernels->expand_f32(task->q + (q0 + i) * task->q_stride + head * d + c, n, shape->scale, row);
            }
        }

        softmax_state states[TILES * PGI_GEMM_MR_MAX];
        for (int64_t i = 0; i < rows; i++) states[i] = (softmax_state){-INFINITY, 0};
        for (int64_t base = lo / KEY_BLOCK * KEY_BLOCK; base < hi; base += KEY_BLOCK) {
            if (pgi_run_cancelled(task->run)) {
                atomic_store_explicit(&task->stopped, 1, memory_order_relaxed);
                return;
            }
            const int64_t from = max64(lo, base), to = pgi_min64(hi, base + KEY_BLOCK);
            int any = 0;
            for (int64_t i = 0; i < rows && !any; i++) any = sees_any(keys_of(shape, q0 + i), from, to);
            if (!any) continue; /* between a prefix and a window */

            for (int64_t key = from / nr * nr; key < to; key += nr) {
                int n = (int)pgi_min64(nr, shape->n_keys - key);
                for (int64_t row = 0; row < rows; row += mr)
                    for (int64_t k0 = 0; k0 < d; k0 += PGI_GEMM_KC)
                        kernels->gemm((int)pgi_min64(mr, rows - row), n, pgi_min64(PGI_GEMM_KC, d - k0),
                                      queries + k0 / PGI_GEMM_KC * block_stride + row * PGI_GEMM_LDA,
                                      packed_k + key * d + k0 * nr, scores + row * PGI_GEMM_LDA + key - base,
                                      PGI_GEMM_LDA, k0 > 0, NULL);
            }
            for (int64_t i = 0; i < rows; i++) {
                float factor = softmax_keys(kernels, scores + i * PGI_GEMM_LDA + from - base, keys_of(shape, q0 + i),
                                            from, to, shape->soft_cap, &states[i]);
                if (factor != 1) kernels->scale(out + i * task->out_stride, d, factor);
            }
            for (int64_t column = 0; column < d; column += nr)
                for (int64_t row = 0; row < rows; row += mr)
                    kernels->gemm((int)pgi_min64(mr, rows - row), (int)pgi_min64(nr, d - column), to - from,
                                  scores + row * PGI_GEMM_LDA + from - base,
                                  packed_v + column * shape->n_keys + from * nr,
                                  out + row * task->out_stride + column, task->out_stride, from > lo, NULL);
        }
        for (int64_t i = 0; i < rows; i++) {
            if (keys_of(shape, q0 + i).end > 0)
                kernels->scale(out + i * task->out_stride, d, 1 / states[i].sum);
            else
                memset(out + i * task->out_stride, 0, (size_t)d * sizeof(float));
        }
    }
}

pg_status pgi_attention_forward(const pgi_run *run, const pgi_attention *shape, const float *q, int64_t q_stride,
                                const float *k, int64_t k_stride, const float *v, int64_t v_stride, float *out,
                                int64_t out_stride, void *scratch) {
    const pgi_kernels *kernels = run->kernels;
    const int64_t group = shape->n_heads / shape->n_kv_heads;
    if (shape->n_queries <= 0) return PG_OK;
    pgi_run alone;
    double products = (double)shape->n_queries * (double)shape->n_keys * shape->n_heads * shape->head_dim;
    run = pgi_run_for_work(run, 4.0 * products, &alone);
    attention_task task = {.run = run,
                           .shape = shape,
                           .q = q,
                           .k = k,
                           .v = v,
                           .out = out,
                           .q_stride = q_stride,
                           .k_stride = k_stride,
                           .v_stride = v_stride,
                           .out_stride = out_stride};
    task.per_thread = thread_bytes(kernels, shape);
    if (streamed(shape)) {
        int64_t n_heads = shape->n_queries * shape->n_heads; /* leave something for every thread */
        task.head_batch = max64(1, pgi_min64(pgi_min64(PGI_GEMV_ROWS, group), n_heads / run->n_threads));
        task.threads = scratch;
        return pgi_parallel_for(run, shape->n_queries * shape->n_kv_heads * ceil_div(group, task.head_batch), 1,
                                streamed_heads, &task);
    }
    int64_t at_once = heads_at_once(kernels, shape);
    task.packed_k = scratch;
    task.packed_v = task.packed_k + (size_t)at_once * packed_k_floats(kernels, shape);
    task.threads = (char *)scratch + align64((size_t)at_once * sizeof(float) *
                                             (packed_k_floats(kernels, shape) + packed_v_floats(kernels, shape)));
    for (int64_t head = 0; head < shape->n_kv_heads; head += at_once) {
        task.kv_begin = head;
        task.kv_count = pgi_min64(at_once, shape->n_kv_heads - head);
        PGI_TRY(pgi_parallel_for(run, task.kv_count * ceil_div(shape->n_keys, kernels->gemm_nr), 4, pack_heads, &task));
        PGI_TRY(pgi_parallel_for(run, task.kv_count * group * ceil_div(shape->n_queries, query_block(kernels)), 1,
                                 query_blocks, &task));
        if (atomic_load(&task.stopped)) return pgi_error(PG_ERROR_CANCELLED, "cancelled by request");
    }
    return PG_OK;
}
