/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The layers of the decoder.
 *
 * Gemma 1:
 *   for each layer:
 *       x = x + out(attention(rope(q), rope(k), v of norm_input(x)))
 *       x = x + down(gelu_tanh(gate n) * up n),  n = norm_post_attention(x)
 * Gemma 2:
 *   for each layer:
 *       x = x + norm_post_attention(out(attention(... of norm_input(x))))
 *       x = x + norm_post_mlp(down(gelu_tanh(gate n) * up n)),  n = norm_pre_mlp(x)
 *   attention scores pass cap * tanh(score / cap); some layers see a sliding window
 *
 * last hidden states = norm(x); head.c makes logits of them.
 *
 * A pass takes tokens of any number of sequences. All operations but attention treat each token by itself, so the
 * weights are read once for all of them. Attention looks at one sequence after the other. In a decoding step each
 * sequence may be of a model with adapters of its own: what the models share is read once (ops/mixed.h).
 *
 * Shapes: T tokens, hidden_size h, A query heads and G KV heads of d = head_dim values.
 * HF: modeling_gemma.py, modeling_gemma2.py, and for the prefix modeling_paligemma.py. Papers: arXiv 2407.07726,
 * 2412.03555.
 */
#include "decoder/decoder.h"

#include <math.h>
#include <string.h>

#include "kernels/kernels.h"
#include "ops/low_rank.h"
#include "ops/mixed.h"
#include "ops/ops.h"

typedef pgi_decoder_workspace workspace;

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

pgi_key_ranges pgi_key_ranges_lay_out(pgi_arena *arena, int64_t n_tokens) {
    const size_t t = (size_t)n_tokens;
    pgi_key_ranges r;
    r.key_begin = pgi_arena_take(arena, t, sizeof(int64_t));
    r.key_end = pgi_arena_take(arena, t, sizeof(int64_t));
    r.window_prefix = pgi_arena_take(arena, t, sizeof(int64_t));
    r.window_begin = pgi_arena_take(arena, t, sizeof(int64_t));
    r.window_end = pgi_arena_take(arena, t, sizeof(int64_t));
    return r;
}

pgi_decoder_workspace pgi_decoder_lay_out(pgi_arena *arena, const pgi_run *run, const pgi_text_config *config,
                                          int64_t n_tokens, int64_t n_keys) {
    size_t t = (size_t)n_tokens, h = (size_t)config->hidden_size;
    size_t width = (size_t)config->n_heads * (size_t)config->head_dim, half = (size_t)config->head_dim / 2;
    size_t kv_width = (size_t)config->n_kv_heads * (size_t)config->head_dim;
    pgi_attention shape = attention_shape(config, n_tokens, n_keys);
    pgi_decoder_workspace w;
    w.linear = pgi_arena_take(arena, pgi_linear_scratch(run->kernels, run->n_threads), 1);
    w.normed = pgi_arena_take(arena, t * h, sizeof(float));
    w.residual = pgi_arena_take(arena, t * h, sizeof(float));
    w.q = pgi_arena_take(arena, t * width, sizeof(float));
    w.k = pgi_arena_take(arena, t * kv_width, sizeof(float));
    w.v = pgi_arena_take(arena, t * kv_width, sizeof(float));
    w.attention_out = pgi_arena_take(arena, t * width, sizeof(float));
    w.intermediate =
        pgi_arena_take(arena, pgi_mlp_intermediate(run->kernels, n_tokens, config->intermediate_size, 1), 1);
    w.cos = pgi_arena_take(arena, t * half, sizeof(float));
    w.sin = pgi_arena_take(arena, t * half, sizeof(float));
    w.ranges = pgi_key_ranges_lay_out(arena, n_tokens);
    w.attention = pgi_arena_take(arena, pgi_attention_scratch(run->kernels, &shape, run->n_threads), 1);
    return w;
}

size_t pgi_kv_cache_size(const pgi_text_config *config, int bf16, int64_t capacity) {
    size_t width = (size_t)config->n_kv_heads * (size_t)config->head_dim * (bf16 ? 2 : 4), size;
    if (!pgi_mul_size(width * (size_t)config->n_layers, (size_t)capacity, &size)) return SIZE_MAX;
    return size;
}

void pgi_decoder_embed(const pgi_run *run, const pgi_text_config *config, const pgi_text_weights *weights,
                       const int64_t *ids, int64_t n, float *out) {
    float scale = (float)sqrt((double)config->hidden_size);
    for (int64_t i = 0; i < n; i++, out += config->hidden_size) {
        pgi_matrix_row(run->kernels, &weights->embedding, ids[i], scale, out);
        if (weights->embedding_low_rank)
            pgi_low_rank_add_row(run->kernels, weights->embedding_low_rank, ids[i], config->hidden_size, scale, out);
    }
}

/* Tokens of earlier passes. */
static int64_t n_past(const pgi_sequence *sequence) { return sequence->cache ? sequence->cache->n_tokens : 0; }
/* Tokens of this pass that have keys: padding and hidden ones left out. */
static int64_t n_new_tokens(const pgi_sequence *sequence) {
    return sequence->n_tokens - sequence->n_left - sequence->n_right - sequence->n_hidden;
}

static int has_key(const pgi_sequence *sequence, int64_t t) {
    return t >= sequence->n_left && t < sequence->n_tokens - sequence->n_right &&
           (!sequence->mask || sequence->mask[t]);
}

/* The position of token t of this pass; t counts padding. */
static int64_t position_of(const pgi_sequence *sequence, int64_t t) {
    int64_t next = sequence->cache ? sequence->cache->next_position : 1;
    return sequence->positions ? sequence->positions[t] : next + t - sequence->n_left;
}

/* cos, sin [T, d / 2] of position * theta^(-2i/d), in f32 steps as HF takes
 * them (GemmaRotaryEmbedding). HF's PaliGemma counts positions from 1. */
void pgi_decoder_rotation(const pgi_text_config *config, const pgi_sequence *sequence, float *cos_out, float *sin_out) {
    int32_t half = config->head_dim / 2;
    for (int32_t i = 0; i < half; i++) {
        float exponent = (float)(2 * i) / (float)config->head_dim;
        float frequency = 1.0f / (float)pow((double)config->rope_theta, (double)exponent);
        for (int64_t t = 0; t < sequence->n_tokens; t++) {
            float angle = (float)position_of(sequence, t) * frequency;
            cos_out[t * half + i] = cosf(angle);
            sin_out[t * half + i] = sinf(angle);
        }
    }
}

/* Which of its sequence's keys each token sees (masking_utils.py: create_causal_mask and
 * create_sliding_window_causal_mask with block_sequence_ids). */
void pgi_decoder_key_ranges(const pgi_text_config *config, const pgi_sequence *sequence, int64_t first,
                            const pgi_key_ranges *ranges) {
    const int64_t window = config->sliding_window;
    int64_t end = n_past(sequence), n_behind = 0, text_begin = 0; /* n_behind: keys before the window, with a mask */
    for (int64_t t = 0; t < sequence->n_tokens; t++) {
        /* find_packed_sequence_indices() */
        if (sequence->packed && t > 0 && sequence->positions[t] - sequence->positions[t - 1] != 1) text_begin = t;
        end += has_key(sequence, t); /* its own is the last that causality lets it see */
        n_behind += sequence->mask && window > 0 && t >= window && has_key(sequence, t - window);
        int64_t in_prefix =
            has_key(sequence, t) ? end <= sequence->n_prefix : !sequence->types || sequence->types[t] == 0;
        int64_t prefix = in_prefix ? sequence->n_prefix : 0;
        /* the window counts hidden tokens */
        int64_t begin = sequence->mask ? n_behind : n_past(sequence) + t - sequence->n_left - window + 1;
        begin = window > 0 ? pgi_min64(begin, end) : 0;
        if (begin < text_begin) begin = text_begin;
        int one_range = prefix >= begin; /* prefix and window touch */
        ranges->key_begin[first + t] = in_prefix ? 0 : text_begin;
        ranges->key_end[first + t] = end > prefix ? end : prefix;
        ranges->window_prefix[first + t] = one_range ? 0 : prefix;
        ranges->window_begin[first + t] = one_range ? 0 : begin;
        ranges->window_end[first + t] = one_range ? ranges->key_end[first + t] : end;
    }
}

pgi_attention pgi_decoder_attention(const pgi_text_config *config, int32_t layer, int packed, int64_t n_queries,
                                    int64_t n_keys, const pgi_key_ranges *ranges, int64_t first) {
    pgi_attention shape = attention_shape(config, n_queries, n_keys);
    if (packed) shape.key_begin = ranges->key_begin + first;
    shape.key_end = ranges->key_end + first;
    if (config->layer_slides[layer]) {
        shape.prefix_end = ranges->window_prefix + first;
        shape.key_begin = ranges->window_begin + first;
        shape.key_end = ranges->window_end + first;
    }
    return shape;
}

/* Closes the gaps that hidden tokens leave. rows [n_tokens, width], from n_left on */
static void drop_hidden(const pgi_sequence *sequence, float *rows, int64_t width) {
    float *to = rows;
    for (int64_t t = sequence->n_left; t < sequence->n_tokens - sequence->n_right; t++, rows += width) {
        if (!has_key(sequence, t)) continue;
        if (to != rows) memcpy(to, rows, (size_t)width * sizeof *to);
        to += width;
    }
}

/* n rows [n, n_kv_heads * head_dim] of new tokens behind those of a layer: `to` is what its first head will have there.
 */
static void append(const pgi_run *run, const pgi_text_config *config, const pgi_kv_cache *cache, int64_t to, int64_t n,
                   const float *rows, void *kept) {
    const int64_t d = config->head_dim;
    for (int64_t t = 0; t < n; t++, to += d) {
        for (int64_t head = 0; head < config->n_kv_heads; head++, rows += d) {
            const int64_t at = to + head * cache->capacity * d;
            if (cache->bf16)
                run->kernels->round_bf16(rows, d, 1, (uint16_t *)kept + at);
            else
                memcpy((float *)kept + at, rows, (size_t)d * sizeof(float));
        }
    }
}

/* The new tokens' keys and values to the end of the cache's. */
static void extend_cache(const pgi_run *run, const pgi_text_config *config, int32_t index, const pgi_sequence *sequence,
                         const float *k, const float *v) {
    const pgi_kv_cache *cache = sequence->cache;
    const int64_t n = n_new_tokens(sequence);
    const int64_t to = (index * config->n_kv_heads * cache->capacity + cache->n_tokens) * config->head_dim;
    append(run, config, cache, to, n, k, cache->keys);
    append(run, config, cache, to, n, v, cache->values);
}

/* The keys and values that a sequence of a pass reads: those of its cache, but where the pass has them all in f32 and
 * the cache has rounded them, those of the pass. */
static void choose_keys(const pgi_text_config *config, int32_t index, const pgi_sequence *sequence,
                        pgi_attention_rows *rows) {
    const pgi_kv_cache *cache = sequence->cache;
    if (!cache || (cache->bf16 && cache->n_tokens == 0)) return;
    const int64_t head = cache->capacity * config->head_dim;
    const int64_t at = index * config->n_kv_heads * head * (cache->bf16 ? 2 : 4);
    rows->k = (const char *)cache->keys + at;
    rows->v = (const char *)cache->values + at;
    rows->k_stride = rows->v_stride = config->head_dim;
    rows->kv_head_stride = head;
    rows->kv_bf16 = cache->bf16;
}

/* The weights that are kept of a layer; shape and rows: of tokens from `begin` on, of the pass's only sequence. */
static pg_status keep_weights(const pgi_run *run, int32_t index, const pgi_kept_attention *kept, int64_t begin,
                              pgi_attention shape, pgi_attention_rows rows, const workspace *w) {
    const int32_t layer = index - kept->layer;
    const int64_t skipped = kept->first - begin;
    if (layer < 0 || layer >= kept->n_layers) return PG_OK;
    pgi_attention_weights weights = kept->weights;
    weights.out += layer * kept->layer_stride;
    rows.q += skipped * rows.q_stride;
    shape.n_queries = kept->n;
    shape.key_end += skipped;
    if (shape.key_begin) shape.key_begin += skipped;
    if (shape.prefix_end) shape.prefix_end += skipped;
    return pgi_attention_keep_weights(run, &shape, &rows, &weights, w->attention);
}

/* The tokens that a layer is wanted for: n from `first` on, or those listed, ascending. */
typedef struct wanted {
    int64_t first, n;
    const int64_t *listed; /* [n]; NULL: none is */
} wanted;

/* Those before token t of the pass. */
static int64_t wanted_before(const wanted *outs, int64_t t) {
    if (!outs->listed) return pgi_max64(0, pgi_min64(t - outs->first, outs->n));
    int64_t n = 0;
    while (n < outs->n && outs->listed[n] < t) n++;
    return n;
}

/* Rows `listed` of rows [.., n_bytes], to the front. */
static void gather(const wanted *outs, void *rows, int64_t n_bytes) {
    for (int64_t i = 0; i < outs->n; i++)
        memmove((char *)rows + i * n_bytes, (char *)rows + outs->listed[i] * n_bytes, (size_t)n_bytes);
}

/* Brings what the rest of a layer reads of the listed tokens to the front, in place of that of the first tokens. */
static void gather_all(const pgi_text_config *config, const wanted *outs, float *x, const workspace *w) {
    const int64_t h = config->hidden_size * (int64_t)sizeof(float);
    const int64_t half = config->head_dim / 2 * (int64_t)sizeof(float), range = sizeof(int64_t);
    gather(outs, x, h);
    gather(outs, w->normed, h);
    gather(outs, w->cos, half);
    gather(outs, w->sin, half);
    gather(outs, w->ranges.key_begin, range);
    gather(outs, w->ranges.key_end, range);
    gather(outs, w->ranges.window_prefix, range);
    gather(outs, w->ranges.window_begin, range);
    gather(outs, w->ranges.window_end, range);
}

/* Attention of the wanted tokens, whose queries are w->q, each over its own sequence, to w->attention_out. */
static pg_status attend(const pgi_run *run, const pgi_text_config *config, int32_t index, const pgi_pass *pass,
                        const wanted *outs, const workspace *w) {
    const int64_t width = (int64_t)config->n_heads * config->head_dim;
    const int64_t kv_width = (int64_t)config->n_kv_heads * config->head_dim;
    for (int64_t s = 0, first_token = 0; s < pass->n_sequences; first_token += pass->sequences[s].n_tokens, s++) {
        const pgi_sequence *sequence = &pass->sequences[s];
        float *k = w->k + (first_token + sequence->n_left) * kv_width;
        float *v = w->v + (first_token + sequence->n_left) * kv_width;
        if (sequence->n_hidden > 0) {
            drop_hidden(sequence, k, kv_width);
            drop_hidden(sequence, v, kv_width);
        }
        if (sequence->cache) extend_cache(run, config, index, sequence, k, v);
        const int64_t begin = wanted_before(outs, first_token);
        const int64_t end = wanted_before(outs, first_token + sequence->n_tokens);
        if (begin == end) continue;
        const int64_t ranges = outs->first + begin;
        const pgi_attention shape =
            pgi_decoder_attention(config, index, sequence->packed, end - begin,
                                  n_past(sequence) + n_new_tokens(sequence), &w->ranges, ranges);
        pgi_attention_rows rows = {.q = w->q + begin * width,
                                   .k = k,
                                   .v = v,
                                   .out = w->attention_out + begin * width,
                                   .q_stride = width,
                                   .k_stride = kv_width,
                                   .v_stride = kv_width,
                                   .out_stride = width};
        choose_keys(config, index, sequence, &rows);
        PGI_TRY(pgi_attention_forward(run, &shape, &rows, w->attention));
        if (pass->kept) PGI_TRY(keep_weights(run, index, pass->kept, ranges, shape, rows, w));
    }
    return PG_OK;
}

/* A layer that is under way. */
typedef struct layer_pass {
    const pgi_run *run;
    const pgi_text_config *config;
    const pgi_text_layer *layer; /* of all tokens; NULL: each has its own */
    int32_t index;
    const pgi_pass *pass;
    const workspace *w;
} layer_pass;

static const pgi_text_layer *layer_of(const layer_pass *l, int64_t token) {
    return l->layer ? l->layer : &l->pass->row_weights[token]->layers[l->index];
}

static const pgi_linear *linear_of(const pgi_text_layer *layer, int kind) {
    switch (kind) {
        case PGI_KIND_Q: return &layer->q;
        case PGI_KIND_K: return &layer->k;
        case PGI_KIND_V: return &layer->v;
        case PGI_KIND_OUT: return &layer->out;
        case PGI_KIND_GATE: return &layer->gate;
        case PGI_KIND_UP: return &layer->up;
        default: return &layer->down;
    }
}

/* The layers that read the same, PGI_KIND_*. */
static const int attention_inputs[] = {PGI_KIND_K, PGI_KIND_V, PGI_KIND_Q}, attention_output[] = {PGI_KIND_OUT},
                 mlp_layers[] = {PGI_KIND_GATE, PGI_KIND_UP, PGI_KIND_DOWN};

/* The n layers `kinds` of the tokens from `first` to `end`. Returns how many of them, the first ones, are one product.
 */
static int64_t take_layers(const layer_pass *l, const int *kinds, int n, int64_t first, int64_t end, pgi_mixed *out) {
    const pgi_linear *layers[PGI_MIXED_ROWS * PGI_MIXED_LAYERS];
    const int64_t rows = l->layer ? 1 : end - first;
    for (int64_t r = 0; r < rows; r++)
        for (int i = 0; i < n; i++) layers[r * n + i] = linear_of(layer_of(l, first + r), kinds[i]);
    if (!l->layer) return pgi_mixed_take(layers, rows, n, kinds == mlp_layers, out);
    for (int i = 0; i < n; i++) out->layers[i] = layers[i];
    return end - first;
}

enum { INPUT_NORM, POST_ATTENTION_NORM, PRE_MLP_NORM, POST_MLP_NORM };

static const float *norm_of(const pgi_text_layer *layer, int which) {
    switch (which) {
        case INPUT_NORM: return layer->input_norm;
        case POST_ATTENTION_NORM: return layer->post_attention_norm;
        case PRE_MLP_NORM: return layer->pre_mlp_norm;
        default: return layer->post_mlp_norm;
    }
}

/* y = norm(x) of n tokens; x, y [n, hidden]. */
static pg_status norm(const layer_pass *l, int which, const float *x, int64_t n, float *y) {
    const int64_t h = l->config->hidden_size;
    for (int64_t first = 0, end; first < n; first = end) {
        const float *weight = norm_of(layer_of(l, first), which);
        for (end = l->layer ? n : first + 1; end < n && norm_of(layer_of(l, end), which) == weight;) end++;
        PGI_TRY(pgi_rms_norm(l->run, x + first * h, end - first, h, weight, l->config->rms_norm_eps, y + first * h));
    }
    return PG_OK;
}

/* Keys and values of the n tokens whose normed x are in w->normed, and their queries where all are wanted. */
static pg_status project(const layer_pass *l, int64_t n, int with_queries) {
    const workspace *w = l->w;
    const int64_t h = l->config->hidden_size, width = (int64_t)l->config->n_heads * l->config->head_dim;
    const int64_t kv_width = (int64_t)l->config->n_kv_heads * l->config->head_dim;
    pgi_mixed m;
    for (int64_t i = 0, rows; i < n; i += rows) {
        rows = take_layers(l, attention_inputs, 3, i, n, &m);
        const pgi_linear_job kvq[] = {{m.layers[0], w->k + i * kv_width, kv_width},
                                      {m.layers[1], w->v + i * kv_width, kv_width},
                                      {m.layers[2], w->q + i * width, width}};
        PGI_TRY(pgi_linear_group(l->run, w->normed + i * h, h, rows, kvq, with_queries ? 3 : 2, w->linear));
    }
    return PG_OK;
}

/* The residual of attention of n tokens. */
static pg_status attention_out(const layer_pass *l, int64_t n) {
    const workspace *w = l->w;
    const int64_t h = l->config->hidden_size, width = (int64_t)l->config->n_heads * l->config->head_dim;
    pgi_mixed m;
    for (int64_t i = 0, rows; i < n; i += rows) {
        rows = take_layers(l, attention_output, 1, i, n, &m);
        PGI_TRY(pgi_linear_forward(l->run, w->attention_out + i * width, width, rows, m.layers[0], w->residual + i * h,
                                   h, w->linear));
    }
    if (l->config->gemma_version != 2) return PG_OK;
    return norm(l, POST_ATTENTION_NORM, w->residual, n, w->residual);
}

/* The residual of the MLP of n tokens, whose normed x are in w->normed. */
static pg_status mlp_out(const layer_pass *l, int64_t n) {
    const workspace *w = l->w;
    const int64_t h = l->config->hidden_size;
    pgi_mixed m;
    for (int64_t i = 0, rows; i < n; i += rows) {
        rows = take_layers(l, mlp_layers, 3, i, n, &m);
        const pgi_mlp mlp = {l->config->activation, m.layers[0], m.layers[1], m.layers[2]};
        PGI_TRY(
            pgi_mlp_forward(l->run, &mlp, w->normed + i * h, rows, w->residual + i * h, w->intermediate, w->linear));
    }
    if (l->config->gemma_version != 2) return PG_OK;
    return norm(l, POST_MLP_NORM, w->residual, n, w->residual);
}

/*
 * One layer over x [T, h]. Only the wanted tokens are needed afterwards: keys and values are made for all tokens, the
 * rest for those alone. Listed ones come to the front of x.
 */
static pg_status layer_forward(const layer_pass *l, const wanted *outs) {
    const pgi_run *run = l->run;
    const pgi_text_config *config = l->config;
    const pgi_pass *pass = l->pass;
    const workspace *w = l->w;
    const int64_t first_out = outs->first, n_out = outs->n;
    const int64_t h = config->hidden_size, half = config->head_dim / 2;
    const int64_t width = (int64_t)config->n_heads * config->head_dim;
    const int64_t kv_width = (int64_t)config->n_kv_heads * config->head_dim;
    float *x = pass->x + first_out * h;

    PGI_TRY(norm(l, INPUT_NORM, pass->x, pass->n_tokens, w->normed));
    PGI_TRY(project(l, pass->n_tokens, n_out == pass->n_tokens));
    PGI_TRY(pgi_rope(run, w->k, kv_width, pass->n_tokens, config->n_kv_heads, config->head_dim, w->cos, w->sin));
    if (outs->listed) gather_all(config, outs, pass->x, w);
    if (n_out < pass->n_tokens)
        PGI_TRY(pgi_linear_forward(run, w->normed + first_out * h, h, n_out, &l->layer->q, w->q, width, w->linear));
    PGI_TRY(pgi_rope(run, w->q, width, n_out, config->n_heads, config->head_dim, w->cos + first_out * half,
                     w->sin + first_out * half));
    PGI_TRY(attend(run, config, l->index, pass, outs, w));
    PGI_TRY(attention_out(l, n_out));
    PGI_TRY(pgi_add(run, x, w->residual, n_out * h));

    PGI_TRY(norm(l, config->gemma_version == 2 ? PRE_MLP_NORM : POST_ATTENTION_NORM, x, n_out, w->normed));
    PGI_TRY(mlp_out(l, n_out));
    return pgi_add(run, x, w->residual, n_out * h);
}

/* The norm after the layers, of the tokens that are wanted: x [n_out, hidden]. */
static pg_status last_norm(const pgi_run *run, const pgi_text_config *config, const pgi_text_weights *weights,
                           const pgi_pass *pass, float *x) {
    const int64_t h = config->hidden_size, n = pass->row_weights ? 1 : pass->n_out;
    for (int64_t i = 0; i < pass->n_out; i += n) {
        const float *weight = pass->row_weights ? pass->row_weights[i]->norm : weights->norm;
        PGI_TRY(pgi_rms_norm(run, x + i * h, n, h, weight, config->rms_norm_eps, x + i * h));
    }
    return PG_OK;
}

pg_status pgi_decoder_forward(const pgi_run *run, const pgi_text_config *config, const pgi_text_weights *weights,
                              const pgi_pass *pass, const pgi_decoder_workspace *w) {
    const int64_t h = config->hidden_size, half = config->head_dim / 2, total = pass->layers_total;
    for (int64_t s = 0, first = 0; s < pass->n_sequences; first += pass->sequences[s].n_tokens, s++) {
        pgi_decoder_rotation(config, &pass->sequences[s], w->cos + first * half, w->sin + first * half);
        pgi_decoder_key_ranges(config, &pass->sequences[s], first, &w->ranges);
    }

    float *out = pass->x + pass->first_out * h;
    for (int32_t i = 0; i < config->n_layers; i++) {
        const int last = i == config->n_layers - 1;
        const wanted outs =
            last ? (wanted){pass->first_out, pass->n_out, pass->outs} : (wanted){0, pass->n_tokens, NULL};
        const layer_pass layer = {run, config, pass->row_weights ? NULL : &weights->layers[i], i, pass, w};
        if (total) PGI_TRY(pgi_run_progress(run, PG_PHASE_PREFILL, pass->layers_done + i, total));
        PGI_TRY(layer_forward(&layer, &outs));
        if (total) pgi_run_trace(run, "decoder_layer", i, pass->x + outs.first * h, outs.n, h);
        if (pass->hidden_states && !last)
            memcpy(pass->hidden_states + i * pass->hidden_stride, pass->x,
                   (size_t)(pass->n_tokens * h) * sizeof(float));
    }
    PGI_TRY(last_norm(run, config, weights, pass, out));
    if (total) pgi_run_trace(run, "decoder_norm", -1, out, pass->n_out, h);

    for (int64_t s = 0; s < pass->n_sequences; s++) {
        const pgi_sequence *sequence = &pass->sequences[s];
        if (!sequence->cache) continue;
        sequence->cache->next_position = position_of(sequence, sequence->n_tokens - sequence->n_right - 1) + 1;
        sequence->cache->n_tokens += n_new_tokens(sequence);
    }
    return total ? pgi_run_progress(run, PG_PHASE_PREFILL, pass->layers_done + config->n_layers, total) : PG_OK;
}
