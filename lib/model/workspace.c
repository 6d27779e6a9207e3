/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The layout of a workspace: what is alive at once lies side by side, what is not lies one over the other. */
#include "model/workspace.h"

size_t pgi_features_count(const pg_model *model, int64_t n_images) {
    size_t count;
    size_t one = (size_t)model->config.vision.n_patches * (size_t)model->config.text.hidden_size;
    return pgi_mul_size(one, (size_t)n_images, &count) ? count : SIZE_MAX;
}

static void lay_out_encoder(pgi_arena *arena, const pgi_run *run, const pg_model *model, pgi_workspace *w) {
    const pgi_vision_config *vision = &model->config.vision;
    w->encoded = pgi_arena_take(arena, (size_t)vision->n_patches * (size_t)vision->hidden_size, sizeof(float));
    pgi_overlay overlay = pgi_overlay_begin(arena);
    w->encoder = pgi_encoder_lay_out(arena, run, vision);
    pgi_overlay_next(arena, &overlay);
    w->projector = pgi_projector_lay_out(arena, run);
    pgi_overlay_end(arena, &overlay);
}

static void lay_out_pass(pgi_arena *arena, const pgi_run *run, const pg_model *model, int64_t n_tokens, int64_t n_keys,
                         pgi_pass_workspace *w) {
    const pgi_text_config *text = &model->config.text;
    w->x = pgi_arena_take(arena, (size_t)n_tokens * (size_t)text->hidden_size, sizeof(float));
    pgi_overlay overlay = pgi_overlay_begin(arena);
    w->decoder = pgi_decoder_lay_out(arena, run, text, n_tokens, n_keys);
    pgi_overlay_next(arena, &overlay);
    w->head = pgi_head_lay_out(arena, run);
    pgi_overlay_end(arena, &overlay);
}

static void lay_out(pgi_arena *arena, const pgi_run *run, const pg_model *model, const pgi_limits *limits,
                    pgi_workspace *w) {
    if (limits->n_logits > 0) w->logits = pgi_arena_take(arena, (size_t)limits->n_logits, sizeof(float));
    if (limits->n_rows > 0) {
        w->first_feature = pgi_arena_take(arena, (size_t)limits->n_rows, sizeof(int64_t));
        w->image_row = pgi_arena_take(arena, (size_t)model->config.text.hidden_size, sizeof(float));
    }
    if (limits->n_images > 0)
        w->features = pgi_arena_take(arena, pgi_features_count(model, limits->n_images), sizeof(float));
    pgi_overlay overlay = pgi_overlay_begin(arena);
    if (limits->runs_encoder) lay_out_encoder(arena, run, model, w);
    pgi_overlay_next(arena, &overlay);
    if (limits->n_tokens > 0) lay_out_pass(arena, run, model, limits->n_tokens, limits->n_keys, &w->pass);
    pgi_overlay_next(arena, &overlay);
    if (limits->n_step_tokens > 0) lay_out_pass(arena, run, model, limits->n_step_tokens, limits->n_keys, &w->step);
    pgi_overlay_end(arena, &overlay);
}

size_t pgi_workspace_size(const pgi_run *run, const pg_model *model, const pgi_limits *limits) {
    pgi_arena measured = {0};
    pgi_workspace unused = {0};
    lay_out(&measured, run, model, limits, &unused);
    return measured.used;
}

pg_status pgi_workspace_reserve(pgi_workspace *workspace, const pgi_run *run, const pg_model *model,
                                const pgi_limits *limits) {
    pgi_workspace w = {.block = workspace->block, .size = workspace->size};
    const size_t size = pgi_workspace_size(run, model, limits);
    if (!w.block || w.size < size) {
        pgi_workspace_free(workspace, &model->memory);
        w.block = pgi_alloc(&model->memory, size, 1);
        w.size = size;
        if (!w.block) return PG_ERROR_MEMORY;
    }
    pgi_arena arena = {.base = w.block};
    lay_out(&arena, run, model, limits, &w);
    *workspace = w;
    return PG_OK;
}

void pgi_workspace_free(pgi_workspace *workspace, const pgi_memory *memory) {
    pgi_free(memory, workspace->block);
    *workspace = (pgi_workspace){0};
}
