/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Features of images: what the projector gives, reusable for any prompt. The public handle is this struct. */
#ifndef PGI_MODEL_FEATURES_H
#define PGI_MODEL_FEATURES_H

#include "model/workspace.h"
#include "processor/inputs.h"

struct pg_features {
    atomic_int references;
    pg_model *model; /* counted */
    float *data;     /* [n_images, n_patches, hidden] */
    int64_t n_images;
    _Atomic(pg_model *) also_of; /* counted; the first other model that pgi_features_check() took; NULL: none */
};

/* With memory for n_images, nothing in it yet. */
pg_status pgi_features_new(const pg_model *model, int64_t n_images, pg_features **out);
/* `status`, with a message, when a number is not finite. */
pg_status pgi_features_check_finite(const pg_features *features, pg_status status);
/* PG_ERROR_ARGUMENT: the inputs have no pixels, or not of the model's size. */
pg_status pgi_features_check_pixels(const pg_model *model, const pg_inputs *inputs);
/* Computes the features of all images of `inputs`, which must have pixels of the model's size. image_models [n_images]:
 * the handle of each, on the model's base; NULL: the model is that of all. */
pg_status pgi_features_create(const pgi_run *run, const pg_model *model, const pg_model *const *image_models,
                              const pg_inputs *inputs, pg_features **out);
/* A copy of values [n_images, n_patches, hidden], which are checked. */
pg_status pgi_features_from_tensor(const pg_model *model, const pg_tensor *values, pg_features **out);
/* The same handle, which now counts one more reference. Handles that never change are const everywhere else: only their
 * count does. */
pg_features *pgi_features_retain(const pg_features *features);
void pgi_features_release(pg_features *features); /* NULL is ignored */

/* Whether `model` would give the same features: it made them, or it is the same checkpoint opened in the same way. Else
 * PG_ERROR_ARGUMENT. Handles of the same unchanged files cost nothing; of copies the encoders are compared whole the
 * first time. */
pg_status pgi_features_check(const pg_model *model, const pg_features *features);

/* The same into memory of the caller: out [n_images, n_patches, hidden]. workspace: one that runs the encoder. */
pg_status pgi_features_compute(const pgi_run *run, const pg_model *model, const pg_model *const *image_models,
                               const pg_inputs *inputs, float *out, const pgi_workspace *workspace);

#endif
