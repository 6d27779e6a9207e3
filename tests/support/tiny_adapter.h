/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Writes small adapters as PEFT saves them, for the folders of tiny.h with one decoder layer or more. Their values are
 * random; tests/oracle compares with PEFT. */
#ifndef TESTS_TINY_ADAPTER_H
#define TESTS_TINY_ADAPTER_H

#include "tiny.h"

/* Sizes of the models of tiny.h that the tensors of an adapter have. */
enum { TINY_V_HIDDEN = 24, TINY_V_INTER = 36, TINY_T_HIDDEN = 32, TINY_T_INTER = 48 };

typedef struct adapter_tensor {
    const char *name;
    int n_dims;
    int64_t shape[4];
    float offset, scale; /* values: offset + scale x (-1..1) */
} adapter_tensor;

/* adapter_config.json with `config`, and adapter_model.safetensors, whose tensors stand in the order given. dtype:
 * PG_DTYPE_F32 or _BF16. */
void adapter_write(const char *folder, const char *config, const adapter_tensor *tensors, int n, int dtype,
                   uint64_t seed);
/* The same in f32, with values[i] of each tensor in place of random ones. */
void adapter_write_values(const char *folder, const char *config, const adapter_tensor *tensors, int n,
                          const float *const *values);

enum {
    ADAPTER_LORA,  /* q, k, v, o, gate, up, down of layer 0, rank 3 */
    ADAPTER_DORA,  /* DoRA on q and down of layer 0 and on the embedding */
    ADAPTER_WHOLE, /* the projector and a norm saved whole; LoRA on q of the encoder's layer 0 */
    N_TINY_ADAPTERS
};
/* One of them. vocab_size: of the base. */
void tiny_adapter_write(const char *folder, int kind, int64_t vocab_size, uint64_t seed);

#endif
