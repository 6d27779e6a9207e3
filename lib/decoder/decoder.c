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
 * weights are read once for all of them. Attention looks at one sequence after the other.
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

/*
 * One layer over x [T, h]. Only the wanted tokens are needed afterwards: keys and values are made for all tokens, the
 * rest for those alone. Listed ones come to the front of x.
 */
static pg_status layer_forward(const pgi_run *run, const pgi_text_config *config, const pgi_text_layer *layer,
                               int32_t index, const pgi_pass *pass, const wanted *outs, const workspace *w) {
    const int64_t first_out = outs->first, n_out = outs->n;
    const int64_t h = config->hidden_size, half = config->head_dim / 2;
    const int64_t width = (int64_t)config->n_heads * config->head_dim;
    const int64_t kv_width = (int64_t)config->n_kv_heads * config->head_dim;
    const pgi_linear_job kvq[] = {{&layer->k, w->k, kv_width}, {&layer->v, w->v, kv_width}, {&layer->q, w->q, width}};
    const pgi_mlp mlp = {config->activation, &layer->gate, &layer->up, &layer->down};
    float *x = pass->x + first_out * h;

    PGI_TRY(pgi_rms_norm(run, pass->x, pass->n_tokens, h, layer->input_norm, config->rms_norm_eps, w->normed));
    PGI_TRY(pgi_linear_group(run, w->normed, h, pass->n_tokens, kvq, n_out == pass->n_tokens ? 3 : 2, w->linear));
    PGI_TRY(pgi_rope(run, w->k, kv_width, pass->n_tokens, config->n_kv_heads, config->head_dim, w->cos, w->sin));
    if (outs->listed) gather_all(config, outs, pass->x, w);
    if (n_out < pass->n_tokens)
        PGI_TRY(pgi_linear_forward(run, w->normed + first_out * h, h, n_out, &layer->q, w->q, width, w->linear));
    PGI_TRY(pgi_rope(run, w->q, width, n_out, config->n_heads, config->head_dim, w->cos + first_out * half,
                     w->sin + first_out * half));
    PGI_TRY(attend(run, config, index, pass, outs, w));
    PGI_TRY(pgi_linear_forward(run, w->attention_out, width, n_out, &layer->out, w->residual, h, w->linear));
    if (config->gemma_version == 2)
        PGI_TRY(
            pgi_rms_norm(run, w->residual, n_out, h, layer->post_attention_norm, config->rms_norm_eps, w->residual));
    PGI_TRY(pgi_add(run, x, w->residual, n_out * h));

    const float *mlp_norm = config->gemma_version == 2 ? layer->pre_mlp_norm : layer->post_attention_norm;
    PGI_TRY(pgi_rms_norm(run, x, n_out, h, mlp_norm, config->rms_norm_eps, w->normed));
    PGI_TRY(pgi_mlp_forward(run, &mlp, w->normed, n_out, w->residual, w->intermediate, w->linear));
    if (config->gemma_version == 2)
        PGI_TRY(pgi_rms_norm(run, w->residual, n_out, h, layer->post_mlp_norm, config->rms_norm_eps, w->residual));
    return pgi_add(run, x, w->residual, n_out * h);
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
        if (total) PGI_TRY(pgi_run_progress(run, PG_PHASE_PREFILL, pass->layers_done + i, total));
        PGI_TRY(layer_forward(run, config, &weights->layers[i], i, pass, &outs, w));
        if (total) pgi_run_trace(run, "decoder_layer", i, pass->x + outs.first * h, outs.n, h);
        if (pass->hidden_states && !last)
            memcpy(pass->hidden_states + i * pass->hidden_stride, pass->x,
                   (size_t)(pass->n_tokens * h) * sizeof(float));
    }
    PGI_TRY(pgi_rms_norm(run, out, pass->n_out, h, weights->norm, config->rms_norm_eps, out));
    if (total) pgi_run_trace(run, "decoder_norm", -1, out, pass->n_out, h);

    for (int64_t s = 0; s < pass->n_sequences; s++) {
        const pgi_sequence *sequence = &pass->sequences[s];
        if (!sequence->cache) continue;
        sequence->cache->next_position = position_of(sequence, sequence->n_tokens - sequence->n_right - 1) + 1;
        sequence->cache->n_tokens += n_new_tokens(sequence);
    }
    return total ? pgi_run_progress(run, PG_PHASE_PREFILL, pass->layers_done + config->n_layers, total) : PG_OK;
}
