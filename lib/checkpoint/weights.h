/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The weights by their role, bound from tensor names in any of the three key layouts (docs/ARCHITECTURE.md). Matrices
 * point into what is mapped or loaded; vectors (biases, norms) are small and become f32 once.
 */
#ifndef PGI_CHECKPOINT_WEIGHTS_H
#define PGI_CHECKPOINT_WEIGHTS_H

#include "base/run.h"
#include "checkpoint/config.h"
#include "checkpoint/safetensors.h"
#include "kernels/matrix.h"

typedef struct pgi_vision_layer {
    const float *norm1_weight, *norm1_bias; /* [hidden] */
    pgi_linear q, k, v, out;                /* [hidden, hidden] with bias */
    const float *norm2_weight, *norm2_bias; /* [hidden] */
    pgi_linear fc1;                         /* [intermediate, hidden] */
    pgi_linear fc2;                         /* [hidden, intermediate] */
} pgi_vision_layer;

typedef struct pgi_vision_weights {
    pgi_linear patch;    /* the convolution as a matrix: [hidden, 3 * patch * patch] with bias */
    pgi_matrix position; /* [n_patches, hidden] */
    pgi_vision_layer *layers;
    const float *norm_weight, *norm_bias; /* post_layernorm, [hidden] */
} pgi_vision_weights;

typedef struct pgi_text_layer {
    const float *input_norm; /* [hidden] */
    pgi_linear q;            /* [n_heads * head_dim, hidden] */
    pgi_linear k, v;         /* [n_kv_heads * head_dim, hidden] */
    pgi_linear out;          /* [hidden, n_heads * head_dim] */
    const float
        *post_attention_norm;   /* [hidden]. Gemma 1: the norm before the MLP. Gemma 2: on the attention's output */
    const float *pre_mlp_norm;  /* [hidden], Gemma 2 only (pre_feedforward_layernorm), else NULL */
    const float *post_mlp_norm; /* [hidden], Gemma 2 only (post_feedforward_layernorm), else NULL */
    pgi_linear gate, up;        /* [intermediate, hidden] */
    pgi_linear down;            /* [hidden, intermediate] */
} pgi_text_layer;

typedef struct pgi_text_weights {
    pgi_matrix embedding;                          /* [vocab, hidden] */
    const struct pgi_low_rank *embedding_low_rank; /* what adapters add to its rows; NULL: nothing */
    pgi_text_layer *layers;
    const float *norm; /* [hidden] */
    pgi_linear head;   /* [vocab, hidden]; the embedding when tied */
} pgi_text_weights;

typedef struct pgi_weights {
    pgi_vision_weights vision;
    pgi_linear projector; /* [text hidden, vision hidden] with bias */
    pgi_text_weights text;
    pgi_linear retrieval;   /* [dim, text hidden] with bias: ColPali's projection; weight.data NULL: there is none */
    const char *transposed; /* the name of the patch convolution where it was stored channels last; NULL: it was not */

    int32_t format;  /* PG_WEIGHTS_*: of the matrices that pgi_weights_each_matrix() visits */
    uint32_t n_int8; /* of these; a mix has both kinds, and INT4 as its format */
    uint64_t n_parameters, n_bytes_copied;
    uint32_t n_tensors, dtypes; /* dtypes: bit (1 << PG_DTYPE_x) */
    void *blocks;               /* of matrices that were quantized on opening; NULL: none were */
    void *arena;                /* the f32 vectors and the layer arrays */
    const pgi_memory *memory;
} pgi_weights;

/* Finds and checks every tensor. Reports PG_PHASE_LOAD progress through `run` (kernels unused, may be NULL). The
 * vocabulary is what the embedding has: config->text.vocab_size is corrected to its rows. wanted: PG_WEIGHTS_* that the
 * matrices are to be; those that must be quantized for it are not loaded. On error *out needs no free. */
pg_status pgi_weights_bind(const pgi_memory *memory, const pgi_run *run, pgi_config *config, pgi_tensor_files *files,
                           int32_t wanted, pgi_weights *out);
void pgi_weights_free(pgi_weights *weights);

/* What a matrix is for. */
enum { PGI_PART_EMBEDDING, PGI_PART_PATCHES, PGI_PART_PROJECTOR, PGI_PART_ENCODER, PGI_PART_DECODER };
enum { /* attention first */
       PGI_KIND_Q,
       PGI_KIND_K,
       PGI_KIND_V,
       PGI_KIND_OUT,
       PGI_KIND_FC1,
       PGI_KIND_FC2,
       PGI_KIND_GATE,
       PGI_KIND_UP,
       PGI_KIND_DOWN
};
typedef struct pgi_matrix_role {
    int32_t part;        /* PGI_PART_*; the head is PGI_PART_EMBEDDING too */
    int32_t layer, kind; /* PGI_KIND_*, of encoder and decoder; elsewhere -1 */
} pgi_matrix_role;

/* Calls `visit` for each matrix that int8 and int4 quantize, in order: the embedding and the head (once when they are
 * the same; then a changed *matrix holds for both), the patches, the linear layers of encoder, projector and decoder.
 * The position embedding is not quantized. Stops at the first error. */
typedef pg_status (*pgi_matrix_fn)(void *context, const pgi_matrix_role *role, pgi_matrix *matrix);
pg_status pgi_weights_each_matrix(pgi_weights *weights, const pgi_config *config, pgi_matrix_fn visit, void *context);

#endif
