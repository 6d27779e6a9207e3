/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* What a file or folder is that does not fit: by its first bytes, or the names in it. */
#include "checkpoint/diagnose.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "base/file.h"

enum { HEAD = 512, NAME = 256, MAX_ADAPTER_CONFIG = 1 << 20 };

int pgi_diagnose_helps(pg_status status) {
    return status == PG_ERROR_NOT_FOUND || status == PG_ERROR_FORMAT || status == PG_ERROR_UNSUPPORTED ||
           status == PG_ERROR_ARGUMENT;
}

/* ---------------------------------------------------------------------------------------------------- one file */

typedef struct beginning {
    const char *bytes;
    size_t size;
    pg_status status;
    const char *what;
} beginning;

#define BEGINNING(text) text, sizeof text - 1
/* What may stand where any file should be. */
static const beginning other_files[] = {
    {BEGINNING("version https://git-lfs.github.com/spec/"), PG_ERROR_FORMAT,
     "a Git LFS pointer instead of the file; fetch the file with 'git lfs pull'"},
    {BEGINNING("version https://hawser.github.com/spec/"), PG_ERROR_FORMAT,
     "a Git LFS pointer instead of the file; fetch the file with 'git lfs pull'"},
    {BEGINNING("\xEF\xBB\xBF"), PG_ERROR_FORMAT, "a byte order mark at its beginning; save it as UTF-8 without one"},
    {BEGINNING("\xFF\xFE"), PG_ERROR_FORMAT, "UTF-16 text; save it as UTF-8 without a byte order mark"},
    {BEGINNING("\xFE\xFF"), PG_ERROR_FORMAT, "UTF-16 text; save it as UTF-8 without a byte order mark"},
    {BEGINNING("\x1F\x8B"), PG_ERROR_UNSUPPORTED, "a file packed by gzip; unpack it first"},
};
/* Weights of other formats. */
static const beginning other_weights[] = {
    {BEGINNING("GGUF"), PG_ERROR_UNSUPPORTED, "a GGUF file, expected safetensors; " PGI_DIAGNOSE_OPEN_ORIGINAL},
    {BEGINNING("PK\3\4"), PG_ERROR_UNSUPPORTED,
     "a ZIP archive (weights of torch.save() or numpy.savez()), expected safetensors; " PGI_DIAGNOSE_SAVE_AGAIN},
    {BEGINNING("\x80\2"), PG_ERROR_UNSUPPORTED, "pickled weights, expected safetensors; " PGI_DIAGNOSE_SAVE_AGAIN},
    {BEGINNING("\x93NUMPY"), PG_ERROR_UNSUPPORTED, "a NumPy array, expected safetensors; " PGI_DIAGNOSE_OPEN_ORIGINAL},
    {BEGINNING("\x89HDF\r\n"), PG_ERROR_UNSUPPORTED, "an HDF5 file, expected safetensors; " PGI_DIAGNOSE_SAVE_AGAIN},
};
#undef BEGINNING

static pg_status say_beginning(pg_status status, const char *path, const void *data, size_t size,
                               const beginning *table, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (size >= table[i].size && memcmp(data, table[i].bytes, table[i].size) == 0)
            return pgi_error(table[i].status, "%s: found %s", path, table[i].what);
    return status;
}

/* A page that a server sent in place of the file. */
static int is_html(const char *text, size_t size) {
    static const char *const tags[] = {"<!doctype html", "<html", "<head"};
    while (size > 0 && strchr(" \t\r\n", *text)) text++, size--;
    for (size_t i = 0; i < sizeof tags / sizeof *tags; i++)
        if (size >= strlen(tags[i]) && strncasecmp(text, tags[i], strlen(tags[i])) == 0) return 1;
    return 0;
}

static int ends_in(const char *name, const char *end) {
    size_t size = strlen(name), end_size = strlen(end);
    return size >= end_size && strcmp(name + size - end_size, end) == 0;
}

pg_status pgi_diagnose_other_file(pg_status status, const char *path, const void *data, size_t size) {
    if (!pgi_diagnose_helps(status) || size == 0) return status;
    if (is_html(data, size))
        return pgi_error(PG_ERROR_FORMAT,
                         "%s: found an HTML page instead of the file; fetch the file again (of huggingface.co the "
                         "address has /resolve/, not /blob/, and a gated model needs a login)",
                         path);
    return say_beginning(status, path, data, size, other_files, sizeof other_files / sizeof *other_files);
}

pg_status pgi_diagnose_bytes(pg_status status, const char *path, const void *data, size_t size) {
    if (!pgi_diagnose_helps(status) || size == 0) return status;
    if (ends_in(path, ".npz") && size > 1 && memcmp(data, "PK", 2) == 0)
        return pgi_error(PG_ERROR_UNSUPPORTED,
                         "%s: found a big_vision checkpoint (.npz), expected safetensors; convert it with "
                         "transformers' convert_paligemma_weights_to_hf.py",
                         path);
    status = pgi_diagnose_other_file(status, path, data, size);
    return say_beginning(status, path, data, size, other_weights, sizeof other_weights / sizeof *other_weights);
}

pg_status pgi_diagnose_file(pg_status status, const char *path) {
    char head[HEAD];
    if (!pgi_diagnose_helps(status)) return status;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return status;
    ssize_t n = read(fd, head, sizeof head);
    close(fd);
    return n > 0 ? pgi_diagnose_bytes(status, path, head, (size_t)n) : status;
}

/* ---------------------------------------------------------------------------------------------------- a folder */

/* The adapter's base model as its config names it, cut to NAME; "" when it does not. */
static void read_base(const pgi_memory *memory, const char *path, char base[NAME]) {
    pgi_buffer text;
    pgi_buffer_init(&text, memory);
    json_t *config = NULL;
    if (pgi_file_read(path, MAX_ADAPTER_CONFIG, &text) >= 0)
        config = json_loadb(text.data ? (const char *)text.data : "", text.size, 0, NULL);
    const char *name = json_string_value(json_object_get(config, "base_model_name_or_path"));
    snprintf(base, NAME, "%s", name ? name : "");
    json_decref(config);
    pgi_buffer_free(&text);
}

static pg_status adapter_error(const pgi_memory *memory, const char *folder) {
    char base[NAME] = "";
    char *path = pgi_path_join(memory, folder, "adapter_config.json");
    if (!path) return PG_ERROR_MEMORY;
    read_base(memory, path, base);
    pgi_free(memory, path);
    return pgi_error(PG_ERROR_UNSUPPORTED,
                     "%s: found a PEFT adapter%s%s, which is no model by itself; " PGI_DIAGNOSE_MERGE_ADAPTER, folder,
                     *base ? " of " : "", base);
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
    if (pattern[0] == '*') return ends_in(name, pattern + 1);
    if (pattern[size - 1] == '*') return strncmp(name, pattern, size - 1) == 0;
    return strcmp(name, pattern) == 0;
}

pg_status pgi_diagnose_folder(pg_status status, const pgi_memory *memory, const char *folder) {
    char found[NAME] = "";
    size_t best = N_CONTENTS;
    int has_adapter = 0;
    if (!pgi_diagnose_helps(status)) return status;
    DIR *entries = opendir(folder);
    if (!entries) return status;
    for (const struct dirent *entry; (entry = readdir(entries));) {
        const char *name = entry->d_name;
        if (strcmp(name, "adapter_config.json") == 0 || strcmp(name, "adapter_model.safetensors") == 0 ||
            strcmp(name, "adapter_model.bin") == 0)
            has_adapter = 1;
        for (size_t i = 0; i <= best && i < N_CONTENTS; i++) {
            if (!name_fits(name, contents[i].name)) continue;
            /* The first by name of several, whatever their order on the disk. */
            if (i < best || strcmp(name, found) < 0) snprintf(found, sizeof found, "%s", name);
            best = i;
        }
    }
    closedir(entries);
    if (has_adapter) return adapter_error(memory, folder);
    if (best == N_CONTENTS) return status;
    char what[2 * NAME];
    const char *text = contents[best].what, *at = strstr(text, "%s");
    snprintf(what, sizeof what, "%.*s%s%s", at ? (int)(at - text) : (int)strlen(text), text, at ? found : "",
             at ? at + 2 : "");
    return pgi_error(PG_ERROR_UNSUPPORTED, "%s: found %s", folder, what);
}

/* ---------------------------------------------------------------------------------------------------- config.json */

pg_status pgi_diagnose_quantized(const char *path, const json_t *config) {
    /* MLX writes both keys; "quantization" is its own. */
    const json_t *mlx = json_object_get(config, "quantization");
    const json_t *other = json_object_get(config, "quantization_config");
    if (json_is_object(mlx)) {
        const json_t *bits = json_object_get(mlx, "bits");
        char text[32] = "";
        if (json_is_integer(bits)) snprintf(text, sizeof text, " to %lld bits", (long long)json_integer_value(bits));
        return pgi_error(PG_ERROR_UNSUPPORTED,
                         "%s: quantization: found weights that MLX quantized%s, expected f32, bf16 or "
                         "f16; " PGI_DIAGNOSE_OPEN_ORIGINAL ", and quantize it on opening",
                         path, text);
    }
    if (!other || json_is_null(other)) return PG_OK;
    const char *method = json_string_value(json_object_get(other, "quant_method"));
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
