/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * config.json and generation_config.json: the fields that the networks need, checked, and the whole config with the
 * defaults of the HF classes filled in (transformers 5.23: PaliGemmaConfig, GemmaConfig, Gemma2Config,
 * SiglipVisionConfig).
 */
#ifndef PGI_CHECKPOINT_CONFIG_H
#define PGI_CHECKPOINT_CONFIG_H

#include "base/memory.h"
#include "checkpoint/generation_config.h"

typedef struct pgi_vision_config {
    int32_t hidden_size, intermediate_size, n_layers, n_heads, head_dim;
    int32_t image_size, patch_size, n_channels; /* n_channels is 3 */
    int32_t n_patches;                          /* (image_size / patch_size)^2: image tokens per image */
    int32_t activation;                         /* PGI_ACTIVATION_* of kernels/kernels.h */
    float layer_norm_eps;
} pgi_vision_config;

typedef struct pgi_text_config {
    int32_t gemma_version; /* 1: Gemma, 2: Gemma 2 */
    int32_t hidden_size, intermediate_size, n_layers, n_heads, n_kv_heads, head_dim, vocab_size;
    int32_t activation;          /* PGI_ACTIVATION_* */
    int32_t max_positions;       /* max_position_embeddings */
    int32_t sliding_window;      /* tokens; 0: no layer slides */
    const uint8_t *layer_slides; /* [n_layers], 1: sliding_attention, 0: full_attention; owned by the config */
    float rms_norm_eps, rope_theta;
    float query_scale;                        /* head_dim^-0.5, or query_pre_attn_scalar^-0.5 (Gemma 2) */
    float attention_soft_cap, final_soft_cap; /* 0: none */
    int32_t attention_bias;                   /* 0 or 1: q, k, v and out have biases */
    int32_t bidirectional; /* 0 or 1, use_bidirectional_attention: what sdpa's own mask is where HF gives it none */
} pgi_text_config;

enum { PGI_MAX_EOS = 64, PGI_MAX_VOCAB = 4 << 20, PGI_MAX_EMBEDDING = 65536 };

typedef struct pgi_config {
    pgi_vision_config vision;
    pgi_text_config text;
    int32_t projection_dim;      /* equals text.hidden_size */
    int32_t embedding_dim;       /* of ColPaliForRetrieval's embeddings; 0: the config is PaliGemma's */
    int32_t tie_word_embeddings; /* 0 or 1, as the config says */
    int64_t image_token_id;
    /* Where generate() of HF takes them from: generation_config.json, or without that file config.json (its top level,
     * else its text_config). */
    int64_t pad_id, bos_id; /* -1: none */
    int64_t eos_ids[PGI_MAX_EOS];
    int32_t n_eos; /* 0: nothing ends the text early */
    pgi_generation_config generation;
    pgi_json_doc json; /* of config.json */
    pgi_json resolved; /* config.json with every default filled in; in `json` */
    const pgi_memory *memory;
} pgi_config;

/* Reads `folder`/config.json, of a ColPali folder its vlm_config, and, when there, generation_config.json. On error
 * *out needs no free. */
pg_status pgi_config_load(const pgi_memory *memory, const char *folder, pgi_config *out);
void pgi_config_free(pgi_config *config);

/* The node of a dotted key ("text_config.hidden_size"; "" is the whole), or NULL. Borrowed. Keys that HF knows under
 * two names are found under both: image_token_id and image_token_index, torch_dtype and dtype, rope_scaling and
 * rope_parameters. */
const pgi_json *pgi_config_field(const pgi_config *config, const char *key);

#endif
