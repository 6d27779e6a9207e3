/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* adapter_config.json of an adapter that was trained here, as LoraConfig.save_pretrained() of PEFT 0.21.2 writes it.
 * checkpoint/adapter_config.h reads it. */
#ifndef PGI_TRAIN_PEFT_CONFIG_H
#define PGI_TRAIN_PEFT_CONFIG_H

#include "base/memory.h"

/* What adapter_config.json says of the training. Everything is borrowed. */
typedef struct pgi_train_config {
    const char *base;           /* base_model_name_or_path; NULL: null */
    int32_t rank, rslora;       /* rank 0: no LoRA, saved modules alone */
    double alpha, dropout;      /* finite */
    const char *const *targets; /* [n_targets] names of the modules with LoRA, or their ends */
    size_t n_targets;
    const char *target_pattern; /* in their place, a string: a pattern, or "all-linear"; NULL: the list */
    const char *const *saved;   /* [n_saved] modules_to_save, likewise */
    size_t n_saved;
} pgi_train_config;

/* Appends the text, which is ASCII: what is not UTF-8 in a name or a path becomes U+FFFD. */
pg_status pgi_peft_config_write(const pgi_train_config *config, pgi_buffer *out);

#endif
