/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * What pg_trainer_save() writes, and what pg_trainer_resume() reads:
 *
 *   adapter_config.json          LoraConfig of PEFT
 *   adapter_model.safetensors    the parameters, f32
 *   trainer_state.safetensors    the parameters once more, as NAME, and NAME.mean and NAME.square of AdamW; f32. The
 *                                metadata: "format" "libpaligemma trainer", "version", "step", "options", which is
 *                                adapter_config.json's text, and "crc32" of NAME, NAME.mean, NAME.square of one
 *                                parameter after the other, in the order of their names, then "step" and "options"
 *
 * The state is written first and is enough to resume: of a save that was cut off, one state or the other is whole.
 */
#ifndef PGI_TRAIN_STATE_H
#define PGI_TRAIN_STATE_H

#include "base/run.h"
#include "train/parameters.h"
#include "train/peft_config.h"

/* folder: made where there is none; its parent must be there. PG_ERROR_ARGUMENT: a name of a file is a folder there,
 * or the other way round; _NOT_FOUND, _IO, _MEMORY. */
pg_status pgi_train_save(const pgi_memory *memory, const char *folder, const pgi_train_config *config,
                         const pgi_parameters *parameters, int64_t step);

/* Reads values, mean and square of `parameters`, which are made, and the step. PG_ERROR_NOT_FOUND: no state is there;
 * _ARGUMENT: a parameter that the state has and these have not, or the other way round, or with another shape; with
 * LoRA, another alpha or rslora than those of `config`; _FORMAT: damaged, not finite; _UNSUPPORTED: of a later version;
 * _LIMIT, _IO, _MEMORY, _CANCELLED. On error the values are undefined. */
pg_status pgi_train_load(const pgi_memory *memory, const pgi_run *run, const char *folder,
                         const pgi_train_config *config, pgi_parameters *parameters, int64_t *step);

#endif
