/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Adapters as PEFT saves them: read, bound to the modules of a base, and added to it. The public handle is this struct.
 *
 * An adapted model is a pg_model whose weights are a copy of the base's table of pointers; its linear layers have
 * low-rank parts (ops/low_rank.h), and what an adapter saved whole stands in place of the base's. So everything that
 * takes a model takes an adapted one.
 */
#ifndef PGI_MODEL_ADAPTER_H
#define PGI_MODEL_ADAPTER_H

#include "checkpoint/adapter_config.h"
#include "checkpoint/modules.h"
#include "model/model.h"
#include "ops/low_rank.h"

/* What an adapter has for one module. */
typedef struct pgi_adapter_module {
    char name[112];      /* pgi_module_find() finds the module by it */
    pgi_low_rank added;  /* a.weight.data NULL: nothing */
    pgi_matrix weight;   /* in place of the module's; data NULL: none is */
    const float *vector; /* [n] in place of the weight of a norm; NULL: none is */
    const float *bias;   /* likewise; NULL: none is */
    int is_shared;       /* `weight` is that of the module that this one is tied to, too */
    int is_vision;       /* features of images depend on it */
} pgi_adapter_module;

/* Names of modules that may be tied. */
#define PGI_ADAPTER_EMBEDDING "model.language_model.embed_tokens.weight"
#define PGI_ADAPTER_HEAD "lm_head.weight"

struct pg_adapter {
    atomic_int references;
    pgi_memory memory;
    pg_model *model; /* the base, counted */
    pgi_adapter_config config;
    pgi_tensor_files *files;
    pgi_adapter_module *modules; /* sorted by name */
    size_t n_modules;
    pgi_kept kept; /* what was made for the modules */
    int64_t rank;  /* the largest */
    uint64_t n_parameters;
    int adapts_vision;
    const pgi_matrix *shared; /* in place of embedding and head, which the base ties; NULL: nothing is */
};

/* adapter: a folder or an id of the hub cache. model: a base, or an adapted model, whose base is meant. run: of its
 * threads; kernels those of the model. */
pg_status pgi_adapter_open(const pgi_run *run, const pg_model *model, const char *adapter, pg_adapter **out);
pg_adapter *pgi_adapter_retain(const pg_adapter *adapter);
void pgi_adapter_release(pg_adapter *adapter); /* NULL is ignored */

/* adapter_dora.c: `added` of a module, whose b holds s B [n, rank], for DoRA: the norms of the rows of W + s B A, and
 * from those and the magnitudes [n] gain and constant. bias: of the layer, or NULL. b is scaled in place. */
pg_status pgi_adapter_dora(const pgi_run *run, const pgi_memory *memory, const pgi_matrix *weight, const float *bias,
                           const pgi_matrix *a, const float *magnitude, float *b, float *gain, float *constant);
/* The same of an embedding, whose norms are those of its columns: a [rank, rows], b [columns, rank]. */
pg_status pgi_adapter_dora_embedding(const pgi_run *run, const pgi_memory *memory, const pgi_matrix *weight,
                                     const pgi_matrix *a, const float *magnitude, float *b, float *gain);

/* adapted.c: the base of the adapters with weights[i] times adapters[i] added. All n adapters are of this base. */
pg_status pgi_model_adapt(const pg_model *model, const pg_adapter *const *adapters, const float *weights, size_t n,
                          pg_model **out);

/* Bytes that an adapter holds: its tensors, and what was made of them. */
uint64_t pgi_adapter_bytes(const pg_adapter *adapter);
/* Bytes that an adapted model holds beside its base: its own, and its adapters', each once. 0 of a base. */
uint64_t pgi_adapted_bytes(const pg_model *model);

/* adapter_whole.c: a copy of the base's table of weights. memory, kept: for its arrays. */
pg_status pgi_adapter_table(const pg_model *base, const pgi_memory *memory, pgi_kept *kept, pgi_weights *out);
/* Puts what the adapters with a weight other than 0 saved whole into such a table. PG_ERROR_UNSUPPORTED: two replace
 * one module, or one has another weight than 1. */
pg_status pgi_adapters_replace(const pg_adapter *const *adapters, const float *weights, size_t n, pgi_weights *table);
/* Sets adapter->shared, once the modules are known. */
pg_status pgi_adapter_find_shared(const pgi_run *run, pg_adapter *adapter);
/* Whether the base's head is tied to its embedding, as transformers ties it: with tie_word_embeddings, where one of
 * them is stored, or both with the same values. Those are compared once. */
pg_status pgi_model_ties_head(const pgi_run *run, pg_model *base, int *ties);

/* What the adapter has for a module by its name in pgi_adapter_module, or NULL. */
const pgi_adapter_module *pgi_adapter_find(const pg_adapter *adapter, const char *name);

#endif
