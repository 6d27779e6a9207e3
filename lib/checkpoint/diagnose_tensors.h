/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* diagnose.h for the tensors of a folder; above the readers of files, which diagnose.h lies below. */
#ifndef PGI_CHECKPOINT_DIAGNOSE_TENSORS_H
#define PGI_CHECKPOINT_DIAGNOSE_TENSORS_H

#include "checkpoint/safetensors.h"

/* Weights without a tensor that is needed, by the names and sizes of those that are there: adapters, compiled and
 * wrapped modules, models that have a PaliGemma inside, shells of ZeRO-3. is_colpali: config.json says so, and "vlm."
 * is expected. */
pg_status pgi_diagnose_tensors(pg_status status, pgi_tensor_files *files, int is_colpali);

#endif
