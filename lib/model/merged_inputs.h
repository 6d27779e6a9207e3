/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The rows of pg_inputs as the decoder takes them: checked, features computed, embeddings merged. */
#ifndef PGI_MODEL_MERGED_INPUTS_H
#define PGI_MODEL_MERGED_INPUTS_H

#include "decoder/decoder.h"
#include "model/features.h"

typedef struct pgi_merged_inputs {
    const pg_model *model;             /* borrowed */
    const pg_model *const *row_models; /* [B], borrowed: the handle of each row, on the model's base; NULL: the model */
    const pg_inputs *inputs;           /* borrowed */
    pg_features *features;             /* counted; NULL: no row has an image, or its rows lie in a workspace */
    const float *embedded;             /* [image tokens, hidden]: the features; NULL: no row has an image */
    int64_t *first_feature;            /* [B]: which of them the row's first image token gets */
    float *image_row;      /* [hidden], with row_models [B, hidden]: given embeddings that equal it are image tokens;
                              NULL: ids say which are */
    double vision_seconds; /* 0 with given features */
    int sees_all;          /* no types were given, and each token sees its whole row */
    int packed;            /* rows of several texts; see pgi_merged_inputs_pack() */
    int in_workspace;      /* the arrays lie in a workspace, which must live as long as this does */
} pgi_merged_inputs;

/* The handle of a row. */
static inline const pg_model *pgi_merged_inputs_model(const pgi_merged_inputs *merged, int64_t row) {
    return merged->row_models ? merged->row_models[row] : merged->model;
}

/* Checks every row against the model. row_models: as above; without a workspace. features (borrowed): of the inputs'
 * images; NULL: computed from their pixels, where there are any. workspace: for the rows and for features that are
 * computed; NULL: memory is allocated. On error *out needs no free. */
pg_status pgi_merged_inputs_init(const pgi_run *run, const pg_model *model, const pg_model *const *row_models,
                                 const pg_inputs *inputs, const pg_features *features, const pgi_workspace *workspace,
                                 pgi_merged_inputs *out);
/* The same with features of the inputs' own images, whose numbers may come later: each image is of one row. NULL: there
 * are no images. */
pg_status pgi_merged_inputs_init_own(const pgi_run *run, const pg_model *model, const pg_inputs *inputs,
                                     const pg_features *features, pgi_merged_inputs *out);
void pgi_merged_inputs_free(pgi_merged_inputs *merged);

/* For a pass without a cache: as HF's forward(), texts that the caller's own positions set apart are kept apart when no
 * attention_mask was given. Its generate() always makes a mask and never does so. */
void pgi_merged_inputs_pack(pgi_merged_inputs *merged);

/* Whether token t of the T of batch row `row` is where an image goes. */
int pgi_is_image_token(const pgi_merged_inputs *merged, int64_t row, int64_t t);

/* x [n, hidden]: embeddings of the tokens `first` .. `first` + n of the T of batch row `row`. */
void pgi_merged_inputs_embed(const pgi_run *run, const pgi_merged_inputs *merged, int64_t row, int64_t first, int64_t n,
                             float *x);

/* What the decoder must know of the same tokens; they hold all of the row but padding. */
pgi_sequence pgi_merged_inputs_sequence(const pgi_merged_inputs *merged, int64_t row, int64_t first, int64_t n);

#endif
