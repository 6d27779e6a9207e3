/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The layers of decoder/decoder.c, Gemma 1 and Gemma 2, one operation after the other as layers.h has them. */
#include "train/decoder.h"

#include <string.h>

#include "kernels/kernels.h"

static const pgi_text_config *config_of(const pgi_train_decoder *d) { return &d->trained->model->config.text; }

static pgi_text_kept lay_out_kept(pgi_arena *arena, const pgi_text_config *config, size_t t) {
    const size_t h = (size_t)config->hidden_size, d = (size_t)config->head_dim;
    const size_t width = (size_t)config->n_heads * d, kv_width = (size_t)config->n_kv_heads * d;
    const size_t inner = (size_t)config->intermediate_size, of_2 = config->gemma_version == 2 ? t * h : 0;
    pgi_text_kept k;
    k.normed = pgi_arena_take(arena, t * h, sizeof(float));
    k.q = pgi_arena_take(arena, t * width, sizeof(float));
    k.k = pgi_arena_take(arena, t * kv_width, sizeof(float));
    k.v = pgi_arena_take(arena, t * kv_width, sizeof(float));
    k.attended = pgi_arena_take(arena, t * width, sizeof(float));
    k.projected = pgi_arena_take(arena, of_2, sizeof(float));
    k.middle = pgi_arena_take(arena, t * h, sizeof(float));
    k.mlp_normed = pgi_arena_take(arena, t * h, sizeof(float));
    k.gate = pgi_arena_take(arena, t * inner, sizeof(float));
    k.up = pgi_arena_take(arena, t * inner, sizeof(float));
    k.down = pgi_arena_take(arena, of_2, sizeof(float));
    return k;
}

static size_t attention_scratch(const pgi_run *run, const pgi_text_config *config, int64_t n_tokens) {
    const pgi_attention shape = {.n_heads = config->n_heads,
                                 .n_kv_heads = config->n_kv_heads,
                                 .head_dim = config->head_dim,
                                 .n_queries = n_tokens,
                                 .n_keys = n_tokens};
    const size_t forward = pgi_attention_scratch(run->kernels, &shape, run->n_threads);
    const size_t back = pgi_train_attention_scratch(n_tokens);
    return forward > back ? forward : back;
}

pgi_train_decoder pgi_train_decoder_lay_out(pgi_arena *arena, const pgi_train_pass *pass,
                                            const pgi_trained_model *trained, int checkpoints, int64_t n_tokens,
                                            pgi_text_kept *kept) {
    const pgi_text_config *config = &trained->model->config.text;
    const size_t t = (size_t)n_tokens, h = (size_t)config->hidden_size, half = (size_t)config->head_dim / 2;
    const size_t width = (size_t)config->n_heads * (size_t)config->head_dim;
    const size_t kv_width = (size_t)config->n_kv_heads * (size_t)config->head_dim;
    pgi_train_decoder d = {
        .pass = pass, .trained = trained, .checkpoints = checkpoints, .kept = kept, .max_tokens = n_tokens};
    d.inputs = pgi_arena_take(arena, ((size_t)config->n_layers + 1) * t * h, sizeof(float));
    const pgi_text_kept shared = lay_out_kept(arena, config, t);
    for (int32_t i = 0; i < config->n_layers; i++)
        kept[i] = checkpoints || i < trained->first_text || i == config->n_layers - 1 ? shared
                                                                                      : lay_out_kept(arena, config, t);
    d.cos = pgi_arena_take(arena, t * half, sizeof(float));
    d.sin = pgi_arena_take(arena, t * half, sizeof(float));
    d.minus_sin = pgi_arena_take(arena, t * half, sizeof(float));
    d.ranges = pgi_key_ranges_lay_out(arena, n_tokens);
    d.residual = pgi_arena_take(arena, t * h, sizeof(float));
    for (int i = 0; i < 2; i++)
        d.hidden[i] = pgi_arena_take(arena, t * (size_t)config->intermediate_size, sizeof(float));
    d.normed_back = pgi_arena_take(arena, t * h, sizeof(float));
    d.attended_back = pgi_arena_take(arena, t * width, sizeof(float));
    d.q_back = pgi_arena_take(arena, t * width, sizeof(float));
    d.k_back = pgi_arena_take(arena, t * kv_width, sizeof(float));
    d.v_back = pgi_arena_take(arena, t * kv_width, sizeof(float));
    d.attention = pgi_arena_take(arena, attention_scratch(pass->run, config, n_tokens), 1);
    return d;
}

/* The output of a block, through Gemma 2's norm where there is one: to r [T, h]. kept: what the norm reads. */
static pg_status block_output(const pgi_train_decoder *d, const pgi_trained_linear *layer, const pgi_trained_norm *norm,
                              const float *x, float *kept, float *r) {
    const pgi_text_config *config = config_of(d);
    const int of_2 = config->gemma_version == 2;
    PGI_TRY(pgi_train_linear(d->pass, layer, x, d->n_tokens, of_2 ? kept : r));
    return of_2 ? pgi_train_norm(d->pass, norm, kept, d->n_tokens, config->hidden_size, config->rms_norm_eps, r)
                : PG_OK;
}

/* Its gradient: dr [T, h] to that of x. */
static pg_status block_output_back(const pgi_train_decoder *d, const pgi_trained_linear *layer,
                                   const pgi_trained_norm *norm, const float *x, const float *kept, const float *dr,
                                   float *dx) {
    const pgi_text_config *config = config_of(d);
    const int64_t n = d->n_tokens;
    if (config->gemma_version != 2) return pgi_train_linear_back(d->pass, layer, x, n, dr, dx, 0);
    PGI_TRY(pgi_train_norm_back(d->pass, norm, kept, n, config->hidden_size, config->rms_norm_eps, dr, d->residual, 0));
    return pgi_train_linear_back(d->pass, layer, x, n, d->residual, dx, 0);
}

static const pgi_trained_norm *mlp_norm_of(const pgi_train_decoder *d, const pgi_trained_text_layer *layer) {
    return config_of(d)->gemma_version == 2 ? &layer->pre_mlp_norm : &layer->post_attention_norm;
}

/* x [T, h] of layer `index` to what the layer keeps. */
static pg_status attend(const pgi_train_decoder *d, int32_t index, const float *x) {
    const pgi_text_config *config = config_of(d);
    const pgi_trained_text_layer *layer = &d->trained->text[index];
    const pgi_text_kept *k = &d->kept[index];
    const pgi_train_pass *pass = d->pass;
    const int64_t n = d->n_tokens, h = config->hidden_size;
    const int64_t width = (int64_t)config->n_heads * config->head_dim;
    const int64_t kv_width = (int64_t)config->n_kv_heads * config->head_dim;
    const pgi_attention shape = pgi_decoder_attention(config, index, 0, n, n, &d->ranges, 0);
    const pgi_attention_rows rows = {.q = k->q,
                                     .k = k->k,
                                     .v = k->v,
                                     .out = k->attended,
                                     .q_stride = width,
                                     .k_stride = kv_width,
                                     .v_stride = kv_width,
                                     .out_stride = width};
    PGI_TRY(pgi_train_norm(pass, &layer->input_norm, x, n, h, config->rms_norm_eps, k->normed));
    PGI_TRY(pgi_train_linear(pass, &layer->q, k->normed, n, k->q));
    PGI_TRY(pgi_train_linear(pass, &layer->k, k->normed, n, k->k));
    PGI_TRY(pgi_train_linear(pass, &layer->v, k->normed, n, k->v));
    PGI_TRY(pgi_rope(pass->run, k->q, width, n, config->n_heads, config->head_dim, d->cos, d->sin));
    PGI_TRY(pgi_rope(pass->run, k->k, kv_width, n, config->n_kv_heads, config->head_dim, d->cos, d->sin));
    PGI_TRY(pgi_attention_forward(pass->run, &shape, &rows, d->attention));
    PGI_TRY(block_output(d, &layer->out, &layer->post_attention_norm, k->attended, k->projected, d->residual));
    memcpy(k->middle, x, (size_t)(n * h) * sizeof *x);
    return pgi_add(pass->run, k->middle, d->residual, n * h);
}

/* k->middle to the gate and up of the MLP. */
static pg_status open_mlp(const pgi_train_decoder *d, int32_t index) {
    const pgi_text_config *config = config_of(d);
    const pgi_trained_text_layer *layer = &d->trained->text[index];
    const pgi_text_kept *k = &d->kept[index];
    PGI_TRY(pgi_train_norm(d->pass, mlp_norm_of(d, layer), k->middle, d->n_tokens, config->hidden_size,
                           config->rms_norm_eps, k->mlp_normed));
    PGI_TRY(pgi_train_linear(d->pass, &layer->gate, k->mlp_normed, d->n_tokens, k->gate));
    return pgi_train_linear(d->pass, &layer->up, k->mlp_normed, d->n_tokens, k->up);
}

/* act(gate) up of layer `index` to hidden[0] [T, I]. */
static pg_status close_gate(const pgi_train_decoder *d, int32_t index) {
    const pgi_text_kept *k = &d->kept[index];
    const int64_t n = d->n_tokens * config_of(d)->intermediate_size;
    memcpy(d->hidden[0], k->gate, (size_t)n * sizeof(float));
    return pgi_gate(d->pass->run, config_of(d)->activation, d->hidden[0], k->up, n);
}

static pg_status layer_forward(const pgi_train_decoder *d, int32_t index) {
    const pgi_trained_text_layer *layer = &d->trained->text[index];
    const pgi_text_kept *k = &d->kept[index];
    const int64_t size = d->n_tokens * config_of(d)->hidden_size;
    float *out = pgi_train_decoder_input(d, index + 1);
    PGI_TRY(attend(d, index, pgi_train_decoder_input(d, index)));
    PGI_TRY(open_mlp(d, index));
    PGI_TRY(close_gate(d, index));
    PGI_TRY(block_output(d, &layer->down, &layer->post_mlp_norm, d->hidden[0], k->down, d->residual));
    memcpy(out, k->middle, (size_t)size * sizeof *out);
    return pgi_add(d->pass->run, out, d->residual, size);
}

/* What the layer kept, once more. Of the MLP's end nothing is kept but what Gemma 2's norm reads. */
static pg_status layer_again(const pgi_train_decoder *d, int32_t index) {
    PGI_TRY(attend(d, index, pgi_train_decoder_input(d, index)));
    PGI_TRY(open_mlp(d, index));
    if (config_of(d)->gemma_version != 2) return PG_OK;
    PGI_TRY(close_gate(d, index));
    return pgi_train_linear(d->pass, &d->trained->text[index].down, d->hidden[0], d->n_tokens, d->kept[index].down);
}

/* dx: of the layer's output, becomes that of `middle`. */
static pg_status mlp_back(const pgi_train_decoder *d, int32_t index, float *dx) {
    const pgi_text_config *config = config_of(d);
    const pgi_trained_text_layer *layer = &d->trained->text[index];
    const pgi_text_kept *k = &d->kept[index];
    const pgi_train_pass *pass = d->pass;
    const int64_t n = d->n_tokens;
    float *hidden = d->hidden[0], *back = d->hidden[1];
    PGI_TRY(close_gate(d, index));
    PGI_TRY(block_output_back(d, &layer->down, &layer->post_mlp_norm, hidden, k->down, dx, back));
    PGI_TRY(pgi_train_gate_back(pass->run, config->activation, k->gate, k->up, n * config->intermediate_size, back,
                                hidden, back));
    PGI_TRY(pgi_train_linear_back(pass, &layer->gate, k->mlp_normed, n, hidden, d->normed_back, 0));
    PGI_TRY(pgi_train_linear_back(pass, &layer->up, k->mlp_normed, n, back, d->normed_back, 1));
    return pgi_train_norm_back(pass, mlp_norm_of(d, layer), k->middle, n, config->hidden_size, config->rms_norm_eps,
                               d->normed_back, dx, 1);
}

/* dx: of `middle`, becomes that of the layer's input; wanted 0: nobody needs that. */
static pg_status attention_back(const pgi_train_decoder *d, int32_t index, float *dx, int wanted) {
    const pgi_text_config *config = config_of(d);
    const pgi_trained_text_layer *layer = &d->trained->text[index];
    const pgi_text_kept *k = &d->kept[index];
    const pgi_train_pass *pass = d->pass;
    const int64_t n = d->n_tokens;
    const pgi_train_attention attention = {pgi_decoder_attention(config, index, 0, n, n, &d->ranges, 0), k->q, k->k,
                                           k->v};
    float *dn = wanted || layer->input_norm.weight ? d->normed_back : NULL;
    PGI_TRY(block_output_back(d, &layer->out, &layer->post_attention_norm, k->attended, k->projected, dx,
                              d->attended_back));
    PGI_TRY(
        pgi_train_attention_back(pass, &attention, d->attended_back, d->q_back, d->k_back, d->v_back, d->attention));
    PGI_TRY(pgi_rope(pass->run, d->q_back, (int64_t)config->n_heads * config->head_dim, n, config->n_heads,
                     config->head_dim, d->cos, d->minus_sin));
    PGI_TRY(pgi_rope(pass->run, d->k_back, (int64_t)config->n_kv_heads * config->head_dim, n, config->n_kv_heads,
                     config->head_dim, d->cos, d->minus_sin));
    PGI_TRY(pgi_train_linear_back(pass, &layer->q, k->normed, n, d->q_back, dn, 0));
    PGI_TRY(pgi_train_linear_back(pass, &layer->k, k->normed, n, d->k_back, dn, 1));
    PGI_TRY(pgi_train_linear_back(pass, &layer->v, k->normed, n, d->v_back, dn, 1));
    if (!dn) return PG_OK;
    return pgi_train_norm_back(pass, &layer->input_norm, pgi_train_decoder_input(d, index), n, config->hidden_size,
                               config->rms_norm_eps, dn, wanted ? dx : NULL, 1);
}

pg_status pgi_train_decoder_forward(pgi_train_decoder *d, const pgi_sequence *sequence, int64_t done, int64_t total) {
    const pgi_text_config *config = config_of(d);
    d->n_tokens = sequence->n_tokens;
    pgi_decoder_rotation(config, sequence, d->cos, d->sin);
    for (int64_t i = 0; i < sequence->n_tokens * config->head_dim / 2; i++) d->minus_sin[i] = -d->sin[i];
    pgi_decoder_key_ranges(config, sequence, 0, &d->ranges);
    for (int32_t i = 0; i < config->n_layers; i++) {
        PGI_TRY(pgi_run_progress(d->pass->run, PG_PHASE_TRAIN, done + i, total));
        PGI_TRY(layer_forward(d, i));
    }
    return PG_OK;
}

pg_status pgi_train_decoder_back(pgi_train_decoder *d, float *dx, int64_t done, int64_t total) {
    const pgi_trained_model *trained = d->trained;
    const int wants_input = trained->trains_features || trained->trains_embedding;
    const int32_t last = config_of(d)->n_layers - 1;
    for (int32_t i = last; i >= trained->first_text; i--) {
        PGI_TRY(pgi_run_progress(d->pass->run, PG_PHASE_TRAIN, done + last - i, total));
        if (d->checkpoints && i < last) PGI_TRY(layer_again(d, i)); /* the last has what it kept still */
        PGI_TRY(mlp_back(d, i, dx));
        PGI_TRY(attention_back(d, i, dx, i > trained->first_text || wants_input));
    }
    return PG_OK;
}
