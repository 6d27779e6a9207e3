/*
 * Gemma 1:
 *   for each layer:
 *       x = x + out(attention(rope(q), rope(k), v of norm_input(x)))
 *       x = x + down(gelu_tanh(gate n) * up n),  n = norm_post_attention(x)
 * Gemma 2:
 *   for each layer:
 *       x = x + norm_post_attention(out(attention(... of norm_input(x))))
 *       x = x + norm_post_mlp(down(gelu_tanh(gate n) * up n)),  n = norm_pre_mlp(x)
 *   attention scores and final logits pass cap * tanh(score / cap); some layers see a sliding window
 *
 *   logits = head(norm(x))
 *
 * T rows, H hidden, F intermediate, h query heads and g KV heads of d.
 * HF: modeling_gemma.py, modeling_gemma2.py, and for the prefix modeling_paligemma.py. Papers: arXiv 2407.07726,
 * 2412.03555.
 */
#include "decoder/decoder.h"

#include <math.h>
#include <string.h>

#include "kernels/ops.h"

/* The MLP's inside is 2 F wide: at 896 px that would be half a gigabyte for all
 * rows at once, so rows go through it in blocks, large enough that reading the
 * weights again costs little. */
enum { MLP_ROWS = 512 };

typedef struct workspace {
    float *normed;            /* [T, H] */
    float *branch;            /* [T, H]: what a block adds to x */
    float *q;                 /* [T, h * d] */
    float *attended;          /* [T, h * d] */
    float *gate, *up;         /* [min(T, MLP_ROWS), F] */
    float *cos, *sin;         /* [T, d / 2] */
    int64_t *begin, *end;     /* [T] key ranges of a full layer */
    int64_t *window_begin;    /* [T] first key in a sliding layer */
    void *linear, *attention; /* scratch of the operations */
} workspace;

static pgi_attention attention_shape(const pgi_text_config *config, int64_t n_queries, int64_t n_keys) {
    return (pgi_attention){
        .n_heads = config->n_heads,
        .n_kv_heads = config->n_kv_heads,
        .head_dim = config->head_dim,
        .scale = config->query_scale,
        .soft_cap = config->attention_soft_cap,
        .n_queries = n_queries,
        .n_keys = n_keys,
    };
}

static workspace lay_out(pgi_arena *arena, const pgi_run *run, const pgi_text_config *config, int64_t n_rows,
                         int64_t n_keys) {
    size_t t = (size_t)n_rows, h = (size_t)config->hidden_size, f = (size_t)config->intermediate_size;
    size_t width = (size_t)config->n_heads * (size_t)config->head_dim, half = (size_t)config->head_dim / 2;
    size_t mlp_rows = t < MLP_ROWS ? t : MLP_ROWS;
    pgi_attention shape = attention_shape(config, n_rows, n_keys);
    workspace w;
    w.normed = pgi_arena_take(arena, t * h, sizeof(float));
    w.branch = pgi_arena_take(arena, t * h, sizeof(float));
    w.q = pgi_arena_take(arena, t * width, sizeof(float));
    w.attended = pgi_arena_take(arena, t * width, sizeof(float));
    w.gate = pgi_arena_take(arena, mlp_rows * f, sizeof(float));
    w.up = pgi_arena_take(arena, mlp_rows * f, sizeof(float));
    w.cos = pgi_arena_take(arena, t * half, sizeof(float));
    w.sin = pgi_arena_take(arena, t * half, sizeof(float));
    w.begin = pgi_arena_take(arena, t, sizeof(int64_t));
    w.end = pgi_arena_take(arena, t, sizeof(int64_t));
    w.window_begin = pgi_arena_take(arena, t, sizeof(int64_t));
    w.linear = pgi_arena_take(arena, pgi_linear_scratch(run->kernels, run->n_threads), 1);
    w.attention = pgi_arena_take(arena, pgi_attention_scratch(run->kernels, &shape, run->n_threads), 1);
    return w;
}

size_t pgi_decoder_workspace(const pgi_run *run, const pgi_text_config *config, int64_t n_rows, int64_t n_keys) {
    pgi_arena arena = {0};
    lay_out(&arena, run, config, n_rows, n_keys);
    return arena.used;
}

size_t pgi_kv_cache_size(const pgi_text_config *config, int64_t capacity) {
    size_t width = (size_t)config->n_kv_heads * (size_t)config->head_dim * sizeof(float), size;
    if (!pgi_mul_size(width * (size_t)config->n_layers, (size_t)capacity, &size)) return SIZE_MAX;
    return size;
}

void pgi_decoder_embed(const pgi_run *run, const pgi_text_config *config, const pgi_text_weights *weights,
                       const int64_t *ids, int64_t n, float *out) {
    float scale = (float)sqrt((double)config->hidden_size);
    for (int64_t i = 0; i < n; i++)
        pgi_matrix_row(run->kernels, &weights->embedding, ids[i], scale, out + i * config->hidden_size);
}

/* cos, sin [n_rows, d / 2] of position * theta^(-2i/d), in f32 steps as HF takes
 * them (GemmaRotaryEmbedding). HF's PaliGemma counts positions from 1. */
static void rotation_angles(const pgi_text_config *config, int64_t first, int64_t n_rows, float *cos_out,
                            float *sin_out) {
    int32_t half = config->head_dim / 2;
    for (int32_t i = 0; i < half; i++) {
        float exponent = (float)(2 * i) / (float)config->head_dim;
        float frequency = 1.0f / (float)pow((double)config->rope_theta, (double)exponent);
        for (int64_t r = 0; r < n_rows; r++) {
            float angle = (float)(first + r + 1) * frequency;
            cos_out[r * half + i] = cosf(angle);
            sin_out[r * half + i] = sinf(angle);
        }
    }
}

/* Which keys each of the rows first .. first + n_rows sees; returns whether all rows see all keys in every layer. */
static int key_ranges(const pgi_text_config *config, const pgi_kv_cache *cache, int64_t n_rows, workspace *w) {
    int all = 1;
    int64_t first = cache->n_positions, n_keys = first + n_rows;
    for (int64_t r = 0; r < n_rows; r++) {
        int64_t position = first + r;
        int in_prefix = position < cache->n_prefix;
        int64_t window_begin = position - config->sliding_window + 1;
        w->begin[r] = 0;
        w->end[r] = in_prefix ? cache->n_prefix : position + 1;
        w->window_begin[r] = in_prefix || config->sliding_window == 0 || window_begin < 0 ? 0 : window_begin;
        if (w->end[r] != n_keys || w->window_begin[r] != 0) all = 0;
    }
    return all;
}

static pg_status mlp_forward(const pgi_run *run, const pgi_text_config *config, const pgi_text_layer *layer,
                             const float *x, int64_t n_rows, float *out, const workspace *w) {
    int64_t h = config->hidden_size, f = config->intermediate_size;
    for (int64_t row = 0; row < n_rows; row += MLP_ROWS) {
        int64_t n = n_rows - row < MLP_ROWS ? n_rows - row : MLP_ROWS;
        PGI_TRY(pgi_linear_forward(run, x + row * h, h, n, &layer->gate, w->gate, f, w->linear));
        PGI_TRY(pgi_linear_forward(run, x + row * h, h, n, &layer->up, w->up, f, w->linear));
        PGI_TRY(pgi_gate(run, config->activation, w->gate, w->up, n * f));
        PGI_TRY(pgi_linear_forward(run, w->gate, f, n, &layer->down, out + row * h, h, w->linear));
    }
    return PG_OK;
}

/*
 * One layer over x [n_rows, H]. Only the last `n_out` rows are needed
 * afterwards: keys and values are made for all rows, the rest for those alone.
 */
static pg_status layer_forward(const pgi_run *run, const pgi_text_config *config, const pgi_text_layer *layer,
                               int32_t index, const pgi_kv_cache *cache, float *x, int64_t n_rows, int64_t n_out,
                               int see_all, const workspace *w) {
    int64_t h = config->hidden_size, skip = n_rows - n_out;
    int64_t width = (int64_t)config->n_heads * config->head_dim;
    int64_t kv_width = (int64_t)config->n_kv_heads * config->head_dim;
    float *keys = cache->keys + index * cache->capacity * kv_width;
    float *values = cache->values + index * cache->capacity * kv_width;
    float *new_keys = keys + cache->n_positions * kv_width;
    float *new_values = values + cache->n_positions * kv_width;
    float *x_out = x + skip * h;
    int32_t half = config->head_dim / 2;

    PGI_TRY(pgi_rms_norm(run, x, n_rows, h, layer->input_norm, config->rms_norm_eps, w->normed));
    PGI_TRY(pgi_linear_forward(run, w->normed, h, n_rows, &layer->k, new_keys, kv_width, w->linear));
    PGI_TRY(pgi_linear_forward(run, w->normed, h, n_rows, &layer->v, new_values, kv_width, w->linear));
    PGI_TRY(pgi_linear_forward(run, w->normed + skip * h, h, n_out, &layer->q, w->q, width, w->linear));
    PGI_TRY(pgi_rope(run, new_keys, kv_width, n_rows, config->n_kv_heads, config->head_dim, w->cos, w->sin));
    PGI_TRY(pgi_rope(run, w->q, width, n_out, config->n_heads, config->head_dim, w->cos + skip * half,
                     w->sin + skip * half));

    pgi_attention shape = attention_shape(config, n_out, cache->n_positions + n_rows);
    if (!see_all) {
        shape.key_begin = (config->layer_slides[index] ? w->window_begin : w->begin) + skip;
        shape.key_end = w->end + skip;
    }
    PGI_TRY(pgi_attention_forward(run, &shape, w->q, width, keys, kv_width, values, kv_width, w->attended, width,
                                  w->attention));
    PGI_TRY(pgi_linear_forward(run, w->attended, width, n_out, &layer->out, w->branch, h, w->linear));
    if (config->generation == 2)
        PGI_TRY(pgi_rms_norm(run, w->branch, n_out, h, layer->post_attention_norm, config->rms_norm_eps, w->branch));
    PGI_TRY(pgi_add(run, x_out, w->branch, n_out * h));

    const float *mlp_norm = config->generation == 2 ? layer->pre_mlp_norm : layer->post_attention_norm;
    PGI_TRY(pgi_rms_norm(run, x_out, n_out, h, mlp_norm, config->rms_norm_eps, w->normed));
    PGI_TRY(mlp_forward(run, config, layer, w->normed, n_out, w->branch, w));
    if (config->generation == 2)
        PGI_TRY(pgi_rms_norm(run, w->branch, n_out, h, layer->post_mlp_norm, config->rms_norm_eps, w->branch));
    return pgi_add(run, x_out, w->branch, n_out * h);
}

pg_status pgi_decoder_forward(const pgi_run *run, const pgi_text_config *config, const pgi_text_weights *weights,
                              pgi_kv_cache *cache, float *x, int64_t n_rows, float *logits, void *memory) {
    int64_t h = config->hidden_size, first = cache->n_positions;
    int prefill = first < cache->n_prefix;
    pgi_arena arena = {.base = memory};
    workspace w = lay_out(&arena, run, config, n_rows, cache->capacity);

    rotation_angles(config, first, n_rows, w.cos, w.sin);
    int see_all = key_ranges(config, cache, n_rows, &w);
    for (int32_t i = 0; i < config->n_layers; i++) {
        int last = i == config->n_layers - 1;
        int64_t n_out = last ? 1 : n_rows;
        if (prefill)
            PGI_TRY(pgi_run_progress(run, PG_PHASE_PREFILL, i, config->n_layers));
        PGI_TRY(layer_forward(run, config, &weights->layers[i], i, cache, x, n_rows, n_out, see_all, &w));
        if (prefill) pgi_run_trace(run, "decoder_layer", i, x + (n_rows - n_out) * h, n_out, h);
    }

    float *last_row = x + (n_rows - 1) * h;
    PGI_TRY(pgi_rms_norm(run, last_row, 1, h, weights->norm, config->rms_norm_eps, last_row));
    if (prefill) pgi_run_trace(run, "decoder_norm", -1, last_row, 1, h);
    PGI_TRY(pgi_linear_forward(run, last_row, h, 1, &weights->head, logits, config->vocab_size, w.linear));
    if (config->final_soft_cap > 0) PGI_TRY(pgi_soft_cap(run, logits, config->vocab_size, config->final_soft_cap));
    cache->n_positions += n_rows;
    return prefill ? pgi_run_progress(run, PG_PHASE_PREFILL, config->n_layers, config->n_layers) : PG_OK;
}
