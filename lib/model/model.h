/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The opened model: config, mapped weights and kernels, counted. The public handle is this struct. */
#ifndef PGI_MODEL_MODEL_H
#define PGI_MODEL_MODEL_H

#include "base/background.h"
#include "base/log.h"
#include "base/run.h"
#include "checkpoint/config.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/weights.h"
#include "kernels/kernels.h"

/* A thread of read_ahead.h. */
typedef struct pgi_read_ahead_thread {
    pgi_background thread;
    const struct pg_model *model;
    int parts;
} pgi_read_ahead_thread;

/* Whether head and embedding are one weight. */
enum { PGI_TIES_UNKNOWN, PGI_TIES_NOT, PGI_TIES_HEAD };

struct pg_model {
    atomic_int references;
    struct {
        atomic_int claimed, n_threads; /* claimed: PGI_AHEAD_*; so there is at most one thread for each */
        pgi_read_ahead_thread threads[2];
    } ahead;
    pgi_memory memory;
    pgi_config config;
    pgi_tensor_files *files;
    pgi_weights weights;
    pgi_kernels kernels;
    int kv_bf16;          /* KV caches are of bf16 */
    atomic_int ties_head; /* PGI_TIES_*, of a base */
    pgi_log log;
    /* An adapted model (adapter.h) shares config, files and weights with its base, which it keeps. */
    struct pg_model *base;                       /* counted; NULL: this is one */
    void (*end_adapted)(struct pg_model *model); /* frees what it has beside its base */
    struct {
        struct pg_adapter **adapters; /* counted */
        size_t n_adapters;
        pgi_kept kept; /* the table of its weights, sums of adapters */
    } adapted;
    int adapts_vision; /* its features are not the base's */
    int replaces;      /* some of its weights stand in place of the base's */
};

/* options: complete (all defaults filled in). On error *out needs no release. */
pg_status pgi_model_open(const pgi_memory *memory, const char *model, const pg_model_options *options, pg_model **out);
/* quantize.c: makes int8 or int4 (PG_WEIGHTS_*, int8_layers: checkpoint/mix.h) of the matrices of a model that was
 * bound and has them as stored. In threads; reports PG_PHASE_CONVERT in bytes. */
pg_status pgi_model_quantize(pg_model *model, const pgi_run *run, int32_t weights, const char *int8_layers);
/* The same handle, which now counts one more reference. Handles that never change are const everywhere else: only their
 * count does. NULL is ignored. */
pg_model *pgi_model_retain(const pg_model *model);
/* The model whose weights an adapted one shares; of another: itself. */
const pg_model *pgi_model_base(const pg_model *model);
void pgi_model_release(pg_model *model); /* NULL is ignored */

#endif
