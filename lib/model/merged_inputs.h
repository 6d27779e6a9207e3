/* The rows of pg_inputs as the decoder takes them: checked, images encoded, embeddings merged. */
#ifndef PGI_MODEL_MERGED_INPUTS_H
#define PGI_MODEL_MERGED_INPUTS_H

#include "decoder/decoder.h"
#include "model/features.h"

typedef struct pgi_merged_inputs {
    const pg_model *model;   /* borrowed */
    const pg_inputs *inputs; /* borrowed */
    pg_features *features;   /* counted; NULL: no row has an image, or its rows lie in a room */
    const float *rows;       /* of the features, one after the other; NULL: no row has an image */
    int64_t *first_feature;  /* [B]: the row of the features that the row's first image token gets */
    float *image_row;        /* [hidden]: given embeddings that equal it are image tokens; NULL: ids say which are */
    double vision_seconds;   /* 0 with given features */
    int in_room;             /* the arrays lie in a room */
} pgi_merged_inputs;

/* Memory of the caller for merged inputs; it must live as long as they do. */
typedef struct pgi_merged_inputs_room {
    int64_t *first_feature; /* [B] */
    float *image_row;       /* [hidden] */
    float *features;        /* of the images of the inputs; not used with given features, nor is what follows */
    void *encoder;          /* pgi_features_scratch() bytes, free again once they are made */
} pgi_merged_inputs_room;

/* Checks every row against the model, and encodes the pixels when there are image tokens and no `features`
 * (borrowed, NULL: none). room NULL: memory is allocated, with one it is not. On error *out needs no close. */
pg_status pgi_merged_inputs_init(const pgi_run *run, pg_model *model, const pg_inputs *inputs,
                                 const pg_features *features, const pgi_merged_inputs_room *room,
                                 pgi_merged_inputs *out);
void pgi_merged_inputs_free(pgi_merged_inputs *merged);

/* x [n, hidden]: the rows `first` .. `first` + n of the T of batch row `row`. */
void pgi_merged_inputs_embed(const pgi_run *run, const pgi_merged_inputs *merged, int64_t row, int64_t first, int64_t n,
                             float *x);

/* What the decoder must know of the same rows, which hold all tokens of the batch row. */
pgi_sequence pgi_merged_inputs_sequence(const pgi_merged_inputs *merged, int64_t row, int64_t first, int64_t n);

#endif
