/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The modules of the networks by their names in transformers, as adapters name them. */
#ifndef PGI_CHECKPOINT_MODULES_H
#define PGI_CHECKPOINT_MODULES_H

#include "checkpoint/weights.h"

/* A module of the networks: what has a weight, and perhaps a bias, under one name. Pointers lead into the weights, so
 * that a copy of those may be given another weight. */
typedef struct pgi_module {
    pgi_linear *linear;           /* a linear layer, or the patch convolution as one; NULL: none of them */
    pgi_matrix *matrix;           /* an embedding: of tokens or of positions; NULL: none */
    const float **weight, **bias; /* a norm [n]; NULL: none, or it has no bias */
    int64_t n;                    /* of a norm */
    int is_convolution;           /* stored as [out, 3, patch, patch] */
    int is_vision;                /* what the features of images depend on: encoder and projector */
    char name[96];                /* in transformers 5.23: "model.language_model.layers.0.self_attn.q_proj" */
} pgi_module;

/* The weight of one that is no norm. */
static inline pgi_matrix *pgi_module_matrix(const pgi_module *module) {
    return module->matrix ? module->matrix : &module->linear->weight;
}

/* The module of a tensor name that ends in ".weight" or ".bias", whatever the layout of keys. 0: there is none. */
int pgi_module_find(pgi_weights *weights, const pgi_config *config, const char *tensor, pgi_module *out);

#endif
