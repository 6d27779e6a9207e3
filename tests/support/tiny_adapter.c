/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
#include "tiny_adapter.h"

#include <string.h>

static void put_value(bytes *b, float value, int dtype) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    const uint16_t half = (uint16_t)(bits >> 16);
    bytes_add(b, dtype == PG_DTYPE_F32 ? (const void *)&bits : &half, dtype == PG_DTYPE_F32 ? 4 : 2);
}

static void write_adapter(const char *folder, const char *config, const adapter_tensor *tensors, int n, int dtype,
                          uint64_t seed, const float *const *values) {
    bytes header = {0}, data = {0}, file = {0};
    rng r = {seed};
    bytes_text(&header, "{\"__metadata__\":{\"format\":\"pt\"}");
    for (int i = 0; i < n; i++) {
        const adapter_tensor *t = &tensors[i];
        const size_t start = data.size;
        int64_t count = 1;
        bytes_printf(&header, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[", t->name, dtype == PG_DTYPE_F32 ? "F32" : "BF16");
        for (int d = 0; d < t->n_dims; d++) {
            bytes_printf(&header, "%s%lld", d ? "," : "", (long long)t->shape[d]);
            count *= t->shape[d];
        }
        for (int64_t k = 0; k < count; k++)
            put_value(&data, values ? values[i][k] : t->offset + t->scale * rng_unit(&r), dtype);
        bytes_printf(&header, "],\"data_offsets\":[%zu,%zu]}", start, data.size);
    }
    bytes_text(&header, "}");
    while (header.size % 8) bytes_text(&header, " ");
    const uint64_t size = header.size;
    bytes_add(&file, &size, 8);
    bytes_add(&file, header.data, header.size);
    bytes_add(&file, data.data, data.size);
    write_file(folder, "adapter_model.safetensors", file.data, file.size);
    write_text(folder, "adapter_config.json", config);
    bytes_free(&header);
    bytes_free(&data);
    bytes_free(&file);
}

void adapter_write(const char *folder, const char *config, const adapter_tensor *tensors, int n, int dtype,
                   uint64_t seed) {
    write_adapter(folder, config, tensors, n, dtype, seed, NULL);
}

void adapter_write_values(const char *folder, const char *config, const adapter_tensor *tensors, int n,
                          const float *const *values) {
    write_adapter(folder, config, tensors, n, PG_DTYPE_F32, 0, values);
}

#define TEXT "base_model.model.model.language_model.layers.0."
#define VISION "base_model.model.model.vision_tower.encoder.layers.0."
#define A(module, rank, in) \
    { module ".lora_A.weight", 2, {rank, in}, 0, 0.2f }
#define B(module, out, rank) \
    { module ".lora_B.weight", 2, {out, rank}, 0, 0.2f }
#define MAGNITUDE(module, out) \
    { module ".lora_magnitude_vector", 1, {out}, 0.8f, 0.1f }

void tiny_adapter_write(const char *folder, int kind, int64_t vocab_size, uint64_t seed) {
    enum { H = TINY_T_HIDDEN, I = TINY_T_INTER, V = TINY_V_HIDDEN };
    static const char plain[] = "{\"peft_type\":\"LORA\",\"r\":3,\"lora_alpha\":6,\"base_model_name_or_path\":\"a/b\"}";
    static const char dora[] = "{\"peft_type\":\"LORA\",\"r\":3,\"lora_alpha\":6,\"use_dora\":true}";
    const adapter_tensor lora[] = {A(TEXT "self_attn.q_proj", 3, H), B(TEXT "self_attn.q_proj", H, 3),
                                   A(TEXT "self_attn.o_proj", 3, H), B(TEXT "self_attn.o_proj", H, 3),
                                   A(TEXT "mlp.gate_proj", 3, H),    B(TEXT "mlp.gate_proj", I, 3),
                                   A(TEXT "mlp.up_proj", 3, H),      B(TEXT "mlp.up_proj", I, 3),
                                   A(TEXT "mlp.down_proj", 3, I),    B(TEXT "mlp.down_proj", H, 3)};
    const adapter_tensor with_dora[] = {
        A(TEXT "self_attn.q_proj", 3, H),
        B(TEXT "self_attn.q_proj", H, 3),
        MAGNITUDE(TEXT "self_attn.q_proj", H),
        A(TEXT "mlp.down_proj", 3, I),
        B(TEXT "mlp.down_proj", H, 3),
        MAGNITUDE(TEXT "mlp.down_proj", H),
        {"base_model.model.model.language_model.embed_tokens.lora_embedding_A", 2, {3, vocab_size}, 0, 0.2f},
        {"base_model.model.model.language_model.embed_tokens.lora_embedding_B", 2, {H, 3}, 0, 0.2f},
        MAGNITUDE("base_model.model.model.language_model.embed_tokens", H)};
    const adapter_tensor whole[] = {{"base_model.model.model.multi_modal_projector.linear.weight", 2, {H, V}, 0, 0.2f},
                                    {"base_model.model.model.multi_modal_projector.linear.bias", 1, {H}, 0, 0.1f},
                                    {"base_model.model.model.language_model.norm.weight", 1, {H}, 0, 0.2f},
                                    A(VISION "self_attn.q_proj", 3, V),
                                    B(VISION "self_attn.q_proj", V, 3)};
    if (kind == ADAPTER_LORA)
        adapter_write(folder, plain, lora, sizeof lora / sizeof *lora, PG_DTYPE_F32, seed);
    else if (kind == ADAPTER_DORA)
        adapter_write(folder, dora, with_dora, sizeof with_dora / sizeof *with_dora, PG_DTYPE_F32, seed);
    else
        adapter_write(folder, plain, whole, sizeof whole / sizeof *whole, PG_DTYPE_BF16, seed);
}
