/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The modules of the networks with what is trained of each: LoRA (arXiv 2106.09685) beside a frozen weight, or the
 * whole module. The values are those of pgi_parameters.
 */
#ifndef PGI_TRAIN_TRAINED_H
#define PGI_TRAIN_TRAINED_H

#include "checkpoint/weights.h"
#include "model/model.h"
#include "train/parameters.h"

/* y = x W^T + bias + scale (x A^T) B^T */
typedef struct pgi_trained_linear {
    pgi_linear frozen;                  /* its weight and bias are not read where they are parameters */
    const pgi_parameter *weight, *bias; /* [out, in], [out]; NULL: frozen */
    const pgi_parameter *a, *b;         /* [rank, in], [out, rank]; NULL: no LoRA */
    int64_t rank;
    float scale;
    uint32_t index; /* among all modules: its dropout differs from that of others */
} pgi_trained_linear;

/* A row: W[i] + scale B A[:, i]. */
typedef struct pgi_trained_embedding {
    const pgi_parameter *weight; /* [rows, columns]; NULL: frozen */
    const pgi_matrix *frozen;    /* [rows, columns] */
    const pgi_parameter *a, *b;  /* [rank, rows], [columns, rank]; NULL: no LoRA */
    int64_t rank;
    float scale;
    int64_t padding; /* torch's padding_idx, a row whose A gets no gradient; -1: none */
} pgi_trained_embedding;

typedef struct pgi_trained_norm {
    const float *frozen_weight, *frozen_bias; /* bias NULL: it has none */
    const pgi_parameter *weight, *bias;       /* NULL: frozen */
} pgi_trained_norm;

typedef struct pgi_trained_vision_layer {
    pgi_trained_norm norm1, norm2;
    pgi_trained_linear q, k, v, out, fc1, fc2;
} pgi_trained_vision_layer;

typedef struct pgi_trained_text_layer {
    pgi_trained_norm input_norm, post_attention_norm;
    pgi_trained_norm pre_mlp_norm, post_mlp_norm; /* of Gemma 2 */
    pgi_trained_linear q, k, v, out, gate, up, down;
} pgi_trained_text_layer;

/* Layers are counted from 0. What is below `first` has no parameters: no gradient goes there. */
typedef struct pgi_trained_model {
    const pg_model *model; /* borrowed */
    pgi_trained_linear patch, projector, head;
    pgi_trained_embedding position, embedding;
    pgi_trained_vision_layer *vision; /* [vision layers] */
    pgi_trained_text_layer *text;     /* [text layers] */
    pgi_trained_norm vision_norm, norm;
    int32_t first_vision, first_text; /* the lowest layers with parameters, in them or below; the number of layers:
                                         there are none */
    int trains_patches;               /* the patches or positions: gradients go through the whole encoder */
    int trains_encoder;               /* anything of the encoder, */
    int trains_features;              /* or the projector: images get gradients */
    int trains_embedding;
    int64_t max_rank;
} pgi_trained_model;

/* What chooses modules, as adapter_config.json has it. */
typedef struct pgi_train_targets {
    const char *const *names; /* [n] of modules, or their ends */
    size_t n;
    struct pgi_name_pattern *pattern; /* in their place; NULL: none */
    int all_linear;                   /* in place of both */
} pgi_train_targets;

typedef struct pgi_train_choice {
    pgi_train_targets lora;
    pgi_train_targets saved; /* modules_to_save: names alone */
    int32_t rank;            /* 0: no LoRA */
    float scale;
    uint64_t seed;
} pgi_train_choice;

/* Chooses the modules, makes the parameters (pgi_parameters_init() was called) with their first values, and binds them.
 * PG_ERROR_ARGUMENT: nothing is chosen, or a name fits no module; PG_ERROR_UNSUPPORTED: such a module is not trained.
 * On error too, pgi_trained_free() is due. */
pg_status pgi_trained_make(const pg_model *model, const pgi_train_choice *choice, pgi_parameters *parameters,
                           pgi_trained_model *out);
void pgi_trained_free(pgi_trained_model *trained);

#endif
