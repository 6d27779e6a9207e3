/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* What a folder is that does not fit, by the names in it, and a config.json of others. */
#include "checkpoint/diagnose.h"

#include <stdio.h>
#include <string.h>

#include "base/file.h"

enum { NAME = 256, MAX_ADAPTER_CONFIG = 1 << 20 };

/* ---------------------------------------------------------------------------------------------------- a folder */

/* The adapter's base model as its config names it, cut to NAME; "" when it does not. */
static pg_status read_base(const pgi_memory *memory, const char *path, char base[NAME]) {
    pgi_json_doc doc;
    const pgi_json *config = NULL;
    pgi_json_doc_init(&doc, memory);
    const pg_status status = pgi_json_load(&doc, path, MAX_ADAPTER_CONFIG, PGI_JSON_AS_PYTHON, &config);
    if (status < 0) config = NULL;
    const char *name = pgi_json_text(pgi_json_get(config, "base_model_name_or_path"));
    snprintf(base, NAME, "%s", name ? name : "");
    pgi_json_doc_free(&doc);
    return status == PG_ERROR_MEMORY ? status : PG_OK; /* whatever else is wrong with it does not matter here */
}

static pg_status adapter_error(const pgi_memory *memory, const char *folder) {
    char base[NAME] = "";
    char *path = pgi_path_join(memory, folder, "adapter_config.json");
    if (!path) return PG_ERROR_MEMORY;
    const pg_status status = read_base(memory, path, base);
    pgi_free(memory, path);
    if (status < 0) return status;
    return pgi_error(
        PG_ERROR_UNSUPPORTED,
        "%s: found a PEFT adapter%s%s, which is no model by itself; open the model that it was trained on and add it "
        "(pg_adapter_open()), or write both into one folder with pg_model_convert()",
        folder, *base ? " of " : "", base);
}

/* Names of a folder, those that tell more first. A star at the begin or the end stands for any text. */
static const struct {
    const char *name;
    const char *what; /* %s: the name found */
} contents[] = {
    {"*.gguf", "a GGUF file (%s), expected safetensors; " PGI_DIAGNOSE_OPEN_ORIGINAL},
    {"*.npz",
     "a big_vision checkpoint (%s), expected safetensors; convert it with transformers' "
     "convert_paligemma_weights_to_hf.py"},
    {"zero_to_fp32.py", "a checkpoint of DeepSpeed; make weights of it with its %s, then " PGI_DIAGNOSE_SAVE_AGAIN},
    {"pytorch_model.bin", "pickled weights (%s), expected model.safetensors; " PGI_DIAGNOSE_SAVE_AGAIN},
    {"pytorch_model.bin.index.json",
     "pickled weights (pytorch_model.bin), expected model.safetensors; " PGI_DIAGNOSE_SAVE_AGAIN},
    {"tf_model.h5", "weights of TensorFlow (%s), expected model.safetensors; " PGI_DIAGNOSE_SAVE_AGAIN},
    {"flax_model.msgpack", "weights of Flax (%s), expected model.safetensors; " PGI_DIAGNOSE_SAVE_AGAIN},
    {"*.ckpt", "a checkpoint of PyTorch Lightning (%s), expected model.safetensors; " PGI_DIAGNOSE_SAVE_AGAIN},
    {"*.pth", "pickled weights (%s), expected model.safetensors; " PGI_DIAGNOSE_SAVE_AGAIN},
    {"*.pt", "pickled weights (%s), expected model.safetensors; " PGI_DIAGNOSE_SAVE_AGAIN},
    {"snapshots", "a repository of the hub cache; give the model id ORG/NAME, or a folder below %s"},
    {"checkpoint-*", "the output folder of a Trainer; give a checkpoint in it, such as %s"},
};
enum { N_CONTENTS = sizeof contents / sizeof *contents };

static int name_fits(const char *name, const char *pattern) {
    size_t size = strlen(pattern);
    if (pattern[0] == '*') return pgi_diagnose_ends_in(name, pattern + 1);
    if (pattern[size - 1] == '*') return strncmp(name, pattern, size - 1) == 0;
    return strcmp(name, pattern) == 0;
}

typedef struct search {
    char found[NAME];
    size_t best; /* of the contents: what `found` is */
    int has_adapter;
} search;

static void look_at_name(void *user, const char *name) {
    search *s = user;
    if (strcmp(name, "adapter_config.json") == 0 || strcmp(name, "adapter_model.safetensors") == 0 ||
        strcmp(name, "adapter_model.bin") == 0)
        s->has_adapter = 1;
    for (size_t i = 0; i <= s->best && i < N_CONTENTS; i++) {
        if (!name_fits(name, contents[i].name)) continue;
        /* The first by name of several, whatever their order on the disk. */
        if (i < s->best || strcmp(name, s->found) < 0) snprintf(s->found, sizeof s->found, "%s", name);
        s->best = i;
    }
}

pg_status pgi_diagnose_folder(pg_status status, const pgi_memory *memory, const char *folder) {
    search s = {.best = N_CONTENTS};
    if (!pgi_diagnose_helps(status)) return status;
    if (pgi_folder_list(folder, look_at_name, &s) != 0) return status;
    if (s.has_adapter) return adapter_error(memory, folder);
    if (s.best == N_CONTENTS) return status;
    char what[2 * NAME];
    const char *text = contents[s.best].what, *at = strstr(text, "%s");
    snprintf(what, sizeof what, "%.*s%s%s", at ? (int)(at - text) : (int)strlen(text), text, at ? s.found : "",
             at ? at + 2 : "");
    return pgi_error(PG_ERROR_UNSUPPORTED, "%s: found %s", folder, what);
}

/* ---------------------------------------------------------------------------------------------------- config.json */

pg_status pgi_diagnose_quantized(const char *path, const pgi_json *config) {
    /* MLX writes both keys; "quantization" is its own. */
    const pgi_json *mlx = pgi_json_get(config, "quantization");
    const pgi_json *other = pgi_json_get(config, "quantization_config");
    if (pgi_json_is(mlx, PGI_JSON_OBJECT)) {
        const pgi_json *bits = pgi_json_get(mlx, "bits");
        char text[32] = "";
        if (pgi_json_is(bits, PGI_JSON_INTEGER))
            snprintf(text, sizeof text, " to %lld bits", (long long)pgi_json_integer(bits));
        return pgi_error(PG_ERROR_UNSUPPORTED,
                         "%s: quantization: found weights that MLX quantized%s, expected f32, bf16 or "
                         "f16; " PGI_DIAGNOSE_OPEN_ORIGINAL ", and quantize it on opening",
                         path, text);
    }
    if (!other || pgi_json_is(other, PGI_JSON_NULL)) return PG_OK;
    const char *method = pgi_json_text(pgi_json_get(other, "quant_method"));
    return pgi_error(PG_ERROR_UNSUPPORTED,
                     "%s: quantization_config: found weights quantized by %s%.40s%s, expected f32, bf16 or f16; "
                     "give the folder of the model that was quantized, and quantize it on opening",
                     path, method ? "\"" : "", method ? method : "an unknown method", method ? "\"" : "");
}

pg_status pgi_diagnose_model_type(const char *path, const char *type) {
    static const struct {
        const char *type, *what;
    } types[] = {
        {"pi0", "a pi0 policy"},
        {"pi05", "a pi0.5 policy"},
        {"siglip", "a SigLIP model alone"},
        {"gemma", "a language model alone"},
        {"gemma2", "a language model alone"},
        {"gemma3", "a Gemma 3 model"},
    };
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (strcmp(type, types[i].type) == 0)
            return pgi_error(PG_ERROR_UNSUPPORTED,
                             "%s: model_type: found \"%s\", %s, expected \"paligemma\"; give a PaliGemma checkpoint",
                             path, type, types[i].what);
    return pgi_error(PG_ERROR_UNSUPPORTED, "%s: model_type: found \"%.40s\", expected \"paligemma\"", path, type);
}
