/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * A call runs the encoder over its images, then row after row through decoder and head and back, and at last the
 * images' gradients through projector and encoder. Gradients are those of the sum of the losses; an update divides them
 * by the number of labels.
 */
#include "train/trainer.h"

#include <math.h>
#include <string.h>

#include "model/loss.h"
#include "model/merged_inputs.h"
#include "train/random.h"

/* -------------------------------------------------------------------------------------------------- the handle */

void pgi_trainer_close(pg_trainer *trainer) {
    const pgi_memory memory = trainer->memory;
    pg_model *model = trainer->model;
    pgi_run_free(&trainer->run);
    pgi_trained_free(&trainer->trained);
    pgi_parameters_free(&trainer->parameters);
    pgi_target_texts_free(&memory, &trainer->texts);
    pgi_free(&memory, trainer->kept);
    pgi_free(&memory, trainer->workspace.block);
    pgi_cancel_release(trainer->cancel);
    pgi_free(&memory, trainer);
    pgi_model_release(model);
}

/* What the options choose, and the parameters for it. */
static pg_status make_parameters(pg_trainer *trainer, const pg_trainer_options *options) {
    const double rank = options->rank;
    pgi_train_choice choice = {.rank = options->rank, .seed = options->seed};
    trainer->config = (pgi_train_config){.rank = options->rank,
                                         .rslora = (options->flags & PG_TRAIN_RSLORA) != 0,
                                         .alpha = options->alpha,
                                         .dropout = options->dropout};
    if (options->rank > 0) choice.scale = (float)(options->alpha / (trainer->config.rslora ? sqrt(rank) : rank));
    PGI_TRY(pgi_targets_read(&trainer->memory, options->target_modules, options->modules_to_save,
                             options->base ? options->base : pgi_tensor_files_folder(trainer->model->files), &choice,
                             &trainer->config, &trainer->texts));
    return pgi_trained_make(trainer->model, &choice, &trainer->parameters, &trainer->trained);
}

pg_status pgi_trainer_create(const pg_model *model, const pg_trainer_options *options, pg_trainer **out) {
    pg_trainer *trainer = pgi_alloc_zero(&model->memory, 1, sizeof *trainer);
    if (!trainer) return PG_ERROR_MEMORY;
    atomic_init(&trainer->in_use, 0);
    trainer->memory = model->memory;
    trainer->model = pgi_model_retain(model);
    trainer->kernels = model->kernels;
    trainer->kernels.bf16_linear = trainer->kernels.bf16_attention = 0;
    trainer->run = pgi_run_init(&trainer->pool, &trainer->kernels, PGI_RUN_OPTIONS(options));
    trainer->cancel = options->cancel;
    pgi_cancel_retain(trainer->cancel);
    trainer->checkpoints = (options->flags & PG_TRAIN_CHECKPOINT) != 0;
    trainer->accumulation = options->accumulation;
    trainer->seed = options->seed;
    trainer->optimizer = (pgi_optimizer){.learning_rate = options->learning_rate,
                                         .weight_decay = options->weight_decay,
                                         .beta1 = options->beta1,
                                         .beta2 = options->beta2,
                                         .epsilon = options->epsilon,
                                         .max_gradient_norm = options->max_gradient_norm,
                                         .schedule = options->schedule,
                                         .warmup_steps = options->warmup_steps,
                                         .total_steps = options->total_steps};
    pgi_parameters_init(&trainer->parameters, &trainer->memory);
    trainer->kept = pgi_alloc(&trainer->memory, (size_t)model->config.text.n_layers, sizeof *trainer->kept);
    const pg_status status = trainer->kept ? make_parameters(trainer, options) : PG_ERROR_MEMORY;
    if (status < 0)
        pgi_trainer_close(trainer);
    else
        *out = trainer;
    return status;
}

/* -------------------------------------------------------------------------------------------------- the memory */

static void lay_out(pg_trainer *trainer, pgi_arena *arena, int64_t n_tokens) {
    pgi_train_workspace *w = &trainer->workspace;
    const pgi_config *config = &trainer->model->config;
    const int64_t rows = pgi_max64(pgi_max64(n_tokens, config->vision.n_patches), PGI_TRAIN_LABELS);
    w->pass = pgi_train_pass_lay_out(arena, &trainer->run, &trainer->trained, &trainer->parameters,
                                     trainer->config.rank > 0 ? trainer->config.dropout : 0, rows);
    w->encoder = pgi_train_encoder_lay_out(arena, &w->pass, &trainer->trained);
    w->decoder =
        pgi_train_decoder_lay_out(arena, &w->pass, &trainer->trained, trainer->checkpoints, n_tokens, trainer->kept);
    w->head = pgi_train_head_lay_out(arena, &w->pass, &trainer->trained);
    w->dx = pgi_arena_take(arena, (size_t)n_tokens * (size_t)config->text.hidden_size, sizeof(float));
}

/* Memory for rows of up to n_tokens; what is there is kept where it is enough. */
static pg_status reserve(pg_trainer *trainer, int64_t n_tokens) {
    pgi_train_workspace *w = &trainer->workspace;
    if (w->block && n_tokens <= w->n_tokens) return PG_OK;
    pgi_arena arena = {0};
    lay_out(trainer, &arena, n_tokens);
    pgi_free(&trainer->memory, w->block);
    w->block = pgi_alloc(&trainer->memory, arena.used, 1);
    if (!w->block) return PG_ERROR_MEMORY;
    arena = (pgi_arena){.base = w->block};
    lay_out(trainer, &arena, n_tokens);
    w->n_tokens = n_tokens;
    return PG_OK;
}

/* ------------------------------------------------------------------------------------------------------ a call */

/* A call under way. */
typedef struct call {
    pg_trainer *trainer;
    const pg_inputs *inputs;
    int learn;
    pg_features *features;    /* of all images; NULL: there are none */
    float *feature_gradients; /* as they; NULL: none are wanted */
    pgi_merged_inputs merged; /* merged.model NULL: not made */
    pgi_train_label *labels;  /* [T]: of a row */
    int64_t *positions;       /* [T]: 1, 2, and so on: padding on the left is counted, as in HF's forward() */
    int64_t done, total;      /* layers, for the progress */
    double loss;              /* the sum */
    int64_t n_labels, n_tokens;
} call;

static const pgi_config *config_of(const call *c) { return &c->trainer->model->config; }

/* The labels of a row and the tokens before them, counted within its tokens. */
static int64_t labels_of(const call *c, int64_t row) {
    const pg_inputs *inputs = c->inputs;
    const pgi_row *of = &inputs->rows[row];
    int64_t n = 0;
    for (int64_t t = 1; t < of->n_tokens; t++) {
        const int64_t id = inputs->labels[row * inputs->n_tokens + of->first_token + t];
        if (id != PGI_NO_LABEL) c->labels[n++] = (pgi_train_label){t - 1, id};
    }
    return n;
}

static pg_status check_mask(const pg_inputs *inputs) {
    for (int64_t r = 0; r < inputs->n_rows; r++)
        if (inputs->rows[r].n_hidden > 0)
            return pgi_error_of_row(pgi_error(PG_ERROR_UNSUPPORTED,
                                              "row %lld: found tokens that attention_mask hides between others, "
                                              "expected padding before or after the row alone",
                                              (long long)r),
                                    r);
    return PG_OK;
}

/* Checks rows and images against the model and each other, before anything is computed. */
static pg_status merge(call *c) {
    const pg_inputs *inputs = c->inputs;
    const pg_model *model = c->trainer->model;
    if (inputs->pixels && inputs->n_images > 0) {
        PGI_TRY(pgi_features_check_pixels(model, inputs));
        PGI_TRY(pgi_features_new(model, inputs->n_images, &c->features));
    }
    pgi_merged_inputs merged; /* on error it needs no free */
    PGI_TRY(pgi_merged_inputs_init_own(&c->trainer->run, model, inputs, c->features, &merged));
    c->merged = merged;
    pgi_merged_inputs_pack(&c->merged);
    if (c->merged.packed)
        return pgi_error(PG_ERROR_UNSUPPORTED,
                         "found rows of several texts (position_ids that start again), expected one text a row");
    return PG_OK;
}

/* Checks the inputs, and makes what a call needs beside the workspace. */
static pg_status begin(call *c) {
    const pg_inputs *inputs = c->inputs;
    const pgi_config *config = config_of(c);
    const pgi_trained_model *trained = &c->trainer->trained;
    const pgi_memory *memory = &c->trainer->memory;
    int64_t longest = 1;
    if (!inputs->labels || inputs->n_rows < 1)
        return pgi_error(PG_ERROR_ARGUMENT,
                         "found inputs without labels, expected those of a suffix "
                         "(pg_processor_encode_batch()) or labels of pg_inputs_create()");
    PGI_TRY(check_mask(inputs));
    PGI_TRY(pgi_loss_check_labels(c->trainer->model, inputs));
    c->labels = pgi_alloc(memory, (size_t)inputs->n_tokens, sizeof *c->labels);
    c->positions = pgi_alloc(memory, (size_t)inputs->n_tokens, sizeof *c->positions);
    if (!c->labels || !c->positions) return PG_ERROR_MEMORY;
    for (int64_t t = 0; t < inputs->n_tokens; t++) c->positions[t] = t + 1;
    for (int64_t r = 0; r < inputs->n_rows; r++) {
        longest = pgi_max64(longest, inputs->rows[r].n_tokens);
        c->n_labels += labels_of(c, r);
    }
    if (c->n_labels == 0)
        return pgi_error(PG_ERROR_ARGUMENT, "found no label in any row, expected at least one that is not -100");
    PGI_TRY(merge(c));
    PGI_TRY(reserve(c->trainer, longest));
    const int64_t n_images = c->features ? c->features->n_images : 0;
    const int goes_back = n_images > 0 && c->learn && trained->trains_features;
    const int64_t image_passes = goes_back ? 3 * n_images - 1 : n_images;
    c->total = inputs->n_rows * config->text.n_layers * (c->learn ? 2 : 1) + image_passes * config->vision.n_layers;
    if (!goes_back) return PG_OK;
    const size_t size = pgi_features_count(c->trainer->model, n_images);
    c->feature_gradients = pgi_alloc_zero(memory, size, sizeof(float));
    return c->feature_gradients ? PG_OK : PG_ERROR_MEMORY;
}

static void end(call *c) {
    const pgi_memory *memory = &c->trainer->memory;
    if (c->merged.model) pgi_merged_inputs_free(&c->merged);
    if (c->features) pgi_features_release(c->features);
    pgi_free(memory, c->feature_gradients);
    pgi_free(memory, c->positions);
    pgi_free(memory, c->labels);
}

static int64_t feature_size(const call *c) {
    return (int64_t)config_of(c)->vision.n_patches * config_of(c)->text.hidden_size;
}

/* Another dropout for each row, and for each image, of each call; the same when one is run again. item: a row, or -1 -
 * an image. */
static void set_dropout(const call *c, int64_t item) {
    const pg_trainer *trainer = c->trainer;
    pgi_train_pass *pass = &c->trainer->workspace.pass;
    const uint64_t of_step = pgi_mix64(pgi_mix64(trainer->seed ^ 0x64726f70) + (uint64_t)trainer->step);
    pass->dropout = c->learn && trainer->config.rank > 0 ? trainer->config.dropout : 0;
    pass->dropout_key = pgi_mix64(pgi_mix64(of_step + (uint64_t)trainer->n_calls) + (uint64_t)item);
}

static pg_status encode_image(call *c, int64_t image) {
    const int64_t size = 3 * (int64_t)c->inputs->image_width * c->inputs->image_height;
    set_dropout(c, -1 - image);
    PGI_TRY(pgi_train_encoder_forward(&c->trainer->workspace.encoder, c->inputs->pixels + image * size,
                                      c->features->data + image * feature_size(c), c->done, c->total));
    c->done += config_of(c)->vision.n_layers;
    return PG_OK;
}

/* The gradients of all images, each of which is encoded again unless it was the last. */
static pg_status images_back(call *c) {
    const int64_t n_images = c->features->n_images;
    for (int64_t i = n_images - 1; i >= 0; i--) {
        if (i < n_images - 1) PGI_TRY(encode_image(c, i));
        set_dropout(c, -1 - i);
        PGI_TRY(pgi_train_encoder_back(&c->trainer->workspace.encoder, c->feature_gradients + i * feature_size(c),
                                       c->done, c->total));
        c->done += config_of(c)->vision.n_layers;
    }
    return PG_OK;
}

/* The embeddings of a row, to what the first layer reads. */
static pg_status embed(const call *c, int64_t row) {
    const pgi_train_workspace *w = &c->trainer->workspace;
    const pgi_row *of = &c->inputs->rows[row];
    const int64_t h = config_of(c)->text.hidden_size;
    float *x = pgi_train_decoder_input(&w->decoder, 0);
    pgi_merged_inputs_embed(&c->trainer->run, &c->merged, row, of->first_token, of->n_tokens, x);
    for (int64_t t = 0; t < of->n_tokens && c->trainer->trained.trains_embedding && c->inputs->ids; t++) {
        PGI_TRY(pgi_cancel_check(c->trainer->run.cancel));
        if (!pgi_is_image_token(&c->merged, row, of->first_token + t))
            pgi_train_embedding_row(&w->pass, &c->trainer->trained.embedding,
                                    c->inputs->ids[row * c->inputs->n_tokens + of->first_token + t],
                                    (float)sqrt((double)h), x + t * h);
    }
    return PG_OK;
}

/* dx [T, h] of a row's embeddings to the features and the embedding. */
static pg_status embed_back(const call *c, int64_t row, const float *dx) {
    const pgi_train_workspace *w = &c->trainer->workspace;
    const pgi_row *of = &c->inputs->rows[row];
    const int64_t h = config_of(c)->text.hidden_size, end = of->first_token + of->n_tokens;
    int64_t feature = c->merged.first_feature[row];
    for (int64_t t = 0; t < of->first_token; t++) feature += pgi_is_image_token(&c->merged, row, t);
    for (int64_t t = of->first_token; t < end; t++) {
        const float *of_token = dx + (t - of->first_token) * h;
        if (pgi_is_image_token(&c->merged, row, t)) {
            float *to = c->feature_gradients ? c->feature_gradients + feature * h : NULL;
            for (int64_t i = 0; i < h && to; i++) to[i] += of_token[i];
            feature++;
        } else if (c->trainer->trained.trains_embedding && c->inputs->ids) {
            pgi_train_embedding_row_back(&w->pass, &c->trainer->trained.embedding,
                                         c->inputs->ids[row * c->inputs->n_tokens + t], (float)sqrt((double)h),
                                         of_token);
        }
        PGI_TRY(pgi_cancel_check(c->trainer->run.cancel));
    }
    return PG_OK;
}

static pg_status run_row(call *c, int64_t row) {
    pgi_train_workspace *w = &c->trainer->workspace;
    const pgi_text_config *config = &config_of(c)->text;
    const pgi_row *of = &c->inputs->rows[row];
    const int64_t n_labels = labels_of(c, row), n_layers = config->n_layers;
    const int64_t told = c->done + n_layers * (c->learn ? 2 : 1);
    double loss;
    if (n_labels > 0) {
        pgi_sequence sequence = pgi_merged_inputs_sequence(&c->merged, row, of->first_token, of->n_tokens);
        if (!sequence.positions) sequence.positions = c->positions + of->first_token;
        set_dropout(c, row);
        PGI_TRY(embed(c, row));
        PGI_TRY(pgi_train_decoder_forward(&w->decoder, &sequence, c->done, c->total));
        if (c->learn) memset(w->dx, 0, (size_t)(of->n_tokens * config->hidden_size) * sizeof *w->dx);
        PGI_TRY(pgi_train_head_run(&w->head, pgi_train_decoder_input(&w->decoder, config->n_layers), c->labels,
                                   n_labels, &loss, c->learn ? w->dx : NULL));
        if (!isfinite(loss))
            return pgi_error_of_row(pgi_error(PG_ERROR_FORMAT,
                                              "row %lld: the loss is %f after %lld updates, expected a finite number; "
                                              "a smaller learning rate may help",
                                              (long long)row, loss, (long long)c->trainer->step),
                                    row);
        c->loss += loss;
        c->n_tokens += of->n_tokens;
        if (c->learn) {
            PGI_TRY(pgi_train_decoder_back(&w->decoder, w->dx, c->done + n_layers, c->total));
            if (c->trainer->trained.first_text == 0) PGI_TRY(embed_back(c, row, w->dx));
        }
    }
    c->done = told;
    return PG_OK;
}

static pg_status run_rows(call *c) {
    const int64_t n_images = c->features ? c->features->n_images : 0;
    for (int64_t i = 0; i < n_images; i++) PGI_TRY(encode_image(c, i));
    for (int64_t r = 0; r < c->inputs->n_rows; r++) PGI_TRY(run_row(c, r));
    if (c->feature_gradients) PGI_TRY(images_back(c));
    return pgi_run_progress(&c->trainer->run, PG_PHASE_TRAIN, c->total, c->total);
}

/* ------------------------------------------------------------------------------------------------------ update */

static void clear_gradients(pg_trainer *trainer) {
    memset(trainer->parameters.gradients, 0, trainer->parameters.n_values * sizeof(float));
}

/* Nothing can fail once the values begin to change. */
static pg_status update(pg_trainer *trainer, pg_train_result *result) {
    pgi_parameters *parameters = &trainer->parameters;
    const float scale = 1 / (float)trainer->n_labels;
    double norm;
    for (size_t i = 0; i < parameters->n_values; i++) parameters->gradients[i] *= scale;
    PGI_TRY(pgi_gradient_norm(&trainer->run, parameters, &norm));
    if (!isfinite(norm))
        return pgi_error(PG_ERROR_FORMAT,
                         "the norm of the gradients is %f after %lld updates, expected a finite number; a smaller "
                         "learning rate may help",
                         norm, (long long)trainer->step);
    result->gradient_norm = norm;
    result->learning_rate = pgi_optimizer_rate(&trainer->optimizer, trainer->step);
    PGI_TRY(pgi_optimizer_update(&trainer->run, &trainer->optimizer, trainer->step, norm, parameters));
    result->updated = 1;
    trainer->step++;
    trainer->n_calls = trainer->n_labels = 0;
    return PG_OK;
}

pg_status pgi_trainer_run(pg_trainer *trainer, const pg_inputs *inputs, int learn, pg_train_result *result) {
    call c = {.trainer = trainer, .inputs = inputs, .learn = learn};
    *result = (pg_train_result){.struct_size = sizeof *result};
    if (learn && trainer->n_calls == 0) clear_gradients(trainer);
    pg_status status = pgi_tensor_files_unchanged(trainer->model->files);
    if (status >= 0) status = begin(&c);
    if (status >= 0) status = run_rows(&c);
    end(&c);
    if (status >= 0) {
        result->loss = c.loss / (double)c.n_labels;
        result->n_labels = c.n_labels;
        result->n_tokens = c.n_tokens;
    }
    if (status >= 0 && learn) {
        trainer->n_calls++;
        trainer->n_labels += c.n_labels;
        if (trainer->n_calls == trainer->accumulation) status = update(trainer, result);
    }
    if (status < 0 && learn) {
        clear_gradients(trainer);
        trainer->n_calls = trainer->n_labels = 0;
    }
    result->step = trainer->step;
    return status;
}

/* ------------------------------------------------------------------------------------------------------ saving */

static pg_status check_finite(const pg_trainer *trainer, const pgi_parameter *p, const float *vector) {
    for (size_t i = 0; i < p->n; i++)
        if (!isfinite(vector[p->at + i]))
            return pgi_error(PG_ERROR_FORMAT,
                             "%s: value %zu, or a mean of its gradients, is %g after %lld updates, expected a finite "
                             "number; go on from an older state, with a smaller learning rate",
                             p->name, i, (double)vector[p->at + i], (long long)trainer->step);
    return PG_OK;
}

pg_status pgi_trainer_save(const pg_trainer *trainer, const char *folder) {
    const pgi_parameters *all = &trainer->parameters;
    for (size_t i = 0; i < all->n; i++) {
        PGI_TRY(check_finite(trainer, &all->list[i], all->values));
        PGI_TRY(check_finite(trainer, &all->list[i], all->mean));
        PGI_TRY(check_finite(trainer, &all->list[i], all->square));
    }
    return pgi_train_save(&trainer->memory, folder, &trainer->config, all, trainer->step);
}
