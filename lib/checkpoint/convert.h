/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* pg_model_convert(): a checkpoint folder with quantized weights, as docs/FORMATS.md describes it. */
#ifndef PGI_CHECKPOINT_CONVERT_H
#define PGI_CHECKPOINT_CONVERT_H

#include "base/log.h"
#include "base/run.h"
#include "base/memory.h"

/* What is made of the source. */
typedef struct pgi_convert_target {
    const char *out;                          /* the folder */
    int32_t weights;                          /* PG_WEIGHTS_*; STORED beside adapters */
    const char *int8_layers;                  /* checkpoint/mix.h, or NULL */
    const struct pg_calibration *calibration; /* checkpoint/calibration.h, for what becomes int4, or NULL */
    uint64_t max_file_bytes;
    const struct pgi_weight_changes *changes; /* checkpoint/weight_changes.h: adapters that are merged, or NULL */
} pgi_convert_target;

/* As pg_model_convert() in paligemma.h says. */
pg_status pgi_convert(const pgi_memory *memory, const pgi_run *run, const pgi_log *log, const char *model,
                      const pgi_convert_target *target);

#endif
