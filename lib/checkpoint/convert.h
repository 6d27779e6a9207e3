/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* pg_model_convert(): a checkpoint folder with quantized weights, as docs/FORMATS.md describes it. */
#ifndef PGI_CHECKPOINT_CONVERT_H
#define PGI_CHECKPOINT_CONVERT_H

#include "base/log.h"
#include "base/run.h"
#include "base/memory.h"

/* weights: PG_WEIGHTS_INT8 or _INT4. As pg_model_convert() in paligemma.h says. */
pg_status pgi_convert(const pgi_memory *memory, const pgi_run *run, const pgi_log *log, const char *model,
                      const char *out, int32_t weights, uint64_t max_file_bytes);

#endif
