/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* adapter_config.json of PEFT (LoraConfig of 0.21): what of it changes what an adapter computes. */
#ifndef PGI_CHECKPOINT_ADAPTER_CONFIG_H
#define PGI_CHECKPOINT_ADAPTER_CONFIG_H

#include "base/memory.h"
#include "checkpoint/name_pattern.h"

/* A rank or an alpha for the modules whose names fit a pattern. */
typedef struct pgi_adapter_pattern {
    char *name;                /* a KEY that is a name or the end of one; NULL: it is a pattern */
    pgi_name_pattern *pattern; /* (.*\.)?(KEY)$ */
    double value;
} pgi_adapter_pattern;

typedef struct pgi_adapter_patterns {
    pgi_adapter_pattern *items; /* in the order of the file: the first that fits counts */
    size_t n;
} pgi_adapter_patterns;

typedef struct pgi_adapter_config {
    pgi_memory memory;
    int32_t rank;                       /* r */
    double alpha;                       /* lora_alpha */
    int32_t rslora, dora, ties_weights; /* use_rslora, use_dora, ensure_weight_tying: 0 or 1 */
    pgi_adapter_patterns ranks, alphas;
    char *base; /* base_model_name_or_path; NULL: it names none */
} pgi_adapter_config;

/* Reads `folder`/adapter_config.json, at most 1 MiB. Of patterns that are no plain names there may be so many that all
 * of them together cost a name some milliseconds. What this library does not follow is PG_ERROR_UNSUPPORTED, by its
 * name. Errors too: PG_ERROR_NOT_FOUND, _IO, _FORMAT, _LIMIT, _MEMORY. On error *out needs no free. */
pg_status pgi_adapter_config_load(const pgi_memory *memory, const char *folder, pgi_adapter_config *out);
void pgi_adapter_config_free(pgi_adapter_config *config);

/* alpha / r, or alpha / sqrt(r), of a module (LoraLayer.update_layer()), and the rank that it must have. */
double pgi_adapter_config_scale(pgi_adapter_config *config, const char *module, int32_t *rank);

/* base_model_name_or_path of an adapter's folder alone, a new string (pgi_free); NULL: it names none. */
pg_status pgi_adapter_config_base(const pgi_memory *memory, const char *folder, char **out);

#endif
