/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* target_modules and modules_to_save as options give them: one text each. */
#ifndef PGI_TRAIN_TARGETS_H
#define PGI_TRAIN_TARGETS_H

#include "train/state.h"
#include "train/trained.h"

/* Memory of what the texts say. */
typedef struct pgi_target_texts {
    char *texts;        /* copies, cut at the commas */
    const char **names; /* into it */
    struct pgi_name_pattern *pattern;
} pgi_target_texts;

/* Fills in the lists of `choice` and `config`, which point into *out. NULL texts: the defaults. On error too,
 * pgi_target_texts_free() is due. PG_ERROR_ARGUMENT: an empty name; PG_ERROR_UNSUPPORTED, _FORMAT: of a pattern. */
pg_status pgi_targets_read(const pgi_memory *memory, const char *target_modules, const char *modules_to_save,
                           const char *base, pgi_train_choice *choice, pgi_train_config *config, pgi_target_texts *out);
void pgi_target_texts_free(const pgi_memory *memory, pgi_target_texts *texts);

#endif
