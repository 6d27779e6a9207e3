/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* A training: steps, evaluation, saving. The public handle is this struct. */
#ifndef PGI_TRAIN_TRAINER_H
#define PGI_TRAIN_TRAINER_H

#include "base/in_use.h"
#include "kernels/kernels.h"
#include "train/decoder.h"
#include "train/encoder.h"
#include "train/head.h"
#include "train/optimizer.h"
#include "train/state.h"
#include "train/targets.h"

/* The memory of a row. */
typedef struct pgi_train_workspace {
    void *block;
    size_t size;
    int64_t n_tokens; /* of the rows it does for */
    pgi_train_pass pass;
    pgi_train_decoder decoder;
    pgi_train_encoder encoder;
    pgi_train_head head;
    float *dx; /* [n_tokens, h] */
} pgi_train_workspace;

struct pg_trainer {
    pgi_in_use in_use;
    pg_model *model;   /* counted */
    pg_cancel *cancel; /* counted, or NULL */
    pgi_memory memory;
    pgi_kernels kernels; /* of f32 arithmetic */
    pgi_thread_pool pool;
    pgi_run run;
    /* as the options were: */
    pgi_train_config config; /* its strings are in `texts` */
    pgi_target_texts texts;
    int checkpoints;
    int64_t accumulation;
    uint64_t seed;
    pgi_optimizer optimizer;

    pgi_parameters parameters;
    pgi_trained_model trained;
    pgi_text_kept *kept; /* [text layers] */
    pgi_train_workspace workspace;
    int64_t step;     /* updates */
    int64_t n_calls;  /* since the last */
    int64_t n_labels; /* of these */
};

/* options: complete and checked. On error *out needs no free. */
pg_status pgi_trainer_create(const pg_model *model, const pg_trainer_options *options, pg_trainer **out);
void pgi_trainer_close(pg_trainer *trainer);
/* learn 0: the loss alone. */
pg_status pgi_trainer_run(pg_trainer *trainer, const pg_inputs *inputs, int learn, pg_train_result *result);
/* PG_ERROR_FORMAT: a value is not finite, and nothing was written: a sound state may be there. */
pg_status pgi_trainer_save(const pg_trainer *trainer, const char *folder);

#endif
