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

enum { PGI_MAX_ADAPTERS = 1024 }; /* of a model, at once */

/* What a low-rank part is made of. */
typedef struct pgi_adapter_part {
    pgi_matrix a;               /* [rank, inputs]; data NULL: there is no part */
    const pgi_stored_tensor *b; /* [outputs, rank]; loaded where there is DoRA, else in the file until it is open */
    double scale;               /* of B */
    const float *magnitude;     /* DoRA's [outputs], or NULL */
    const float *b_bias;        /* [outputs], or NULL */
} pgi_adapter_part;

/* The weight and the bias that DoRA's gain and constant belong to. */
typedef struct pgi_adapter_made_of {
    const void *weight;
    const float *bias;
} pgi_adapter_made_of;

/* What an adapter has for one module. */
typedef struct pgi_adapter_module {
    char name[112]; /* pgi_module_find() finds the module by it */
    pgi_adapter_part part;
    pgi_low_rank added; /* made of it beside what the adapter itself replaces; a.weight.data NULL: nothing */
    pgi_adapter_made_of made_of;
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

/* n values of a tensor, from its first on. PG_ERROR_FORMAT: one is no number, or infinite. */
pg_status pgi_adapter_check_finite(const pgi_stored_tensor *tensor, const float *values, int64_t n);

/* adapter_dora.c: makes a low-rank part of a module, for DoRA beside the weight and the bias that the module has. kept:
 * for what *out has beside A. */
pg_status pgi_adapter_make(const pgi_run *run, const pg_adapter *adapter, const pgi_adapter_part *part,
                           const pgi_module *module, pgi_kept *kept, pgi_low_rank *out);
static inline pgi_adapter_made_of pgi_adapter_weights_of(const pgi_module *module) {
    return (pgi_adapter_made_of){pgi_module_matrix(module)->data, module->linear ? module->linear->bias : NULL};
}

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
/* Whether it saved something whole. */
int pgi_adapter_replaces(const pg_adapter *adapter);
/* Sets adapter->shared, once the modules are known. */
pg_status pgi_adapter_find_shared(const pgi_run *run, pg_adapter *adapter);
/* Whether the base's head is tied to its embedding, as transformers ties it: with tie_word_embeddings, where one of
 * them is stored, or both with the same values. Those are compared once. */
pg_status pgi_model_ties_head(const pgi_run *run, pg_model *base, int *ties);

/* What the adapter has for a module by its name in pgi_adapter_module, or NULL. */
const pgi_adapter_module *pgi_adapter_find(const pg_adapter *adapter, const char *name);

#endif
