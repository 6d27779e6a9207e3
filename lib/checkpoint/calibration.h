/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * What a calibrated conversion knows of a model: for the inputs x of its linear layers the sums of x x^T over the
 * tokens of calibration texts, within each PGI_FEEDBACK_COLUMNS inputs alone. So they take 1 KiB for each input of a
 * layer, 0.65 GB for a 3B model, where whole sums would take 23. Layers that read the same x share theirs. The
 * embedding and the head have none. model/calibrate.c fills them in. The public handle is this struct.
 */
#ifndef PGI_CHECKPOINT_CALIBRATION_H
#define PGI_CHECKPOINT_CALIBRATION_H

#include "base/in_use.h"
#include "checkpoint/weights.h"
#include "kernels/quantized.h"

/* Where the sums of an x lie. */
typedef struct pgi_calibration_site {
    const pgi_linear *linear; /* of a bound model: one that reads this x, for all tokens; NULL where there is none */
    int64_t columns;
    float *sums; /* [blocks][PGI_FEEDBACK_COLUMNS][PGI_FEEDBACK_COLUMNS]; zeros behind the last column */
} pgi_calibration_site;

struct pg_calibration {
    pgi_memory memory;
    pgi_calibration_site *sites;
    int32_t n_sites, n_vision_layers;
    float *sums;            /* of all sites */
    size_t n_blocks;        /* in them */
    int64_t n_rows;         /* texts that were added */
    int is_torn;            /* adding some was not finished: the sums have a part of them */
    uint64_t identity;      /* pgi_calibration_identity() of the model */
    struct pg_model *model; /* counted */
    pgi_in_use in_use;
};

/* Sums of zero for a model whose weights are bound; model and identity are left to the caller. */
pg_status pgi_calibration_new(const pgi_memory *memory, const pgi_weights *weights, const pgi_config *config,
                              pg_calibration **out);
void pgi_calibration_free(pg_calibration *calibration); /* NULL is ignored; the model is the caller's */

/* The site of a matrix; NULL: embedding and head. */
const pgi_calibration_site *pgi_calibration_site_of(const pg_calibration *calibration, const pgi_matrix_role *role);
static inline int64_t pgi_calibration_blocks(const pgi_calibration_site *site) {
    return (site->columns + PGI_FEEDBACK_COLUMNS - 1) / PGI_FEEDBACK_COLUMNS;
}

/* A number for the checkpoint: sizes, and samples of every matrix. */
pg_status pgi_calibration_identity(pgi_weights *weights, const pgi_config *config, const pgi_tensor_files *files,
                                   uint64_t *out);

/* The factors of pgi_quantize_panels_feeding() for a site: out [blocks][...] as its sums. */
pg_status pgi_calibration_factors(const pgi_memory *memory, const pgi_run *run, const pgi_calibration_site *site,
                                  float *out);

/* A file to go on from after an interruption; tag: the caller's number for what is being added. It appears whole or not
 * at all, and its checksums are compared. PG_ERROR_ARGUMENT: of another model or with another tag. */
pg_status pgi_calibration_save(const pg_calibration *calibration, const char *path, uint64_t tag);
pg_status pgi_calibration_load(pg_calibration *calibration, const char *path, uint64_t tag);

#endif
