/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* What weights are that lack a tensor which is needed: by the names, shapes and sizes of those that are there. */
#include "checkpoint/diagnose_tensors.h"

#include <string.h>

#include "checkpoint/diagnose.h"

#define MERGE_ADAPTER \
    "load both with peft's PeftModel.from_pretrained(), save merge_and_unload() with save_pretrained() and open that"

static const struct {
    const char *part; /* of a name, where a name begins or behind a dot */
    const char *what;
} wrappers[] = {
    {"lora_", "a LoRA adapter; " MERGE_ADAPTER},
    {"base_model.", "a PEFT model with its adapter; " MERGE_ADAPTER},
    {"paligemma_with_expert.", "a pi0 policy, which has a PaliGemma inside; give a PaliGemma checkpoint"},
    {"gemma_expert.", "a pi0 policy, which has a PaliGemma inside; give a PaliGemma checkpoint"},
    {"vlm.",
     "a ColPali checkpoint, which has a PaliGemma inside; give a PaliGemma checkpoint, or put ColPali's own "
     "config.json "
     "beside them (model_type \"colpali\")"},
    {"_orig_mod.", "a compiled module (torch.compile); save its _orig_mod with save_pretrained() and open that"},
    {"_fsdp_wrapped_module.", "a module wrapped by FSDP; gather its state dict, then " PGI_DIAGNOSE_SAVE_AGAIN},
    {"_forward_module.", "a module wrapped by Lightning; " PGI_DIAGNOSE_SAVE_AGAIN},
    {"module.", "a module wrapped by DataParallel or DeepSpeed; save its .module with save_pretrained() and open that"},
    {"params/", "a big_vision checkpoint; convert it with transformers' convert_paligemma_weights_to_hf.py"},
};

static int has_part(const char *name, const char *part) {
    for (const char *at = strstr(name, part); at; at = strstr(at + 1, part))
        if (at == name || at[-1] == '.') return 1;
    return 0;
}

pg_status pgi_diagnose_tensors(pg_status status, pgi_tensor_files *files, int is_colpali) {
    const char *folder = pgi_tensor_files_folder(files);
    size_t n = pgi_tensor_files_count(files), n_empty = 0;
    if (!pgi_diagnose_helps(status)) return status;
    for (size_t w = 0; w < sizeof wrappers / sizeof *wrappers; w++)
        for (size_t i = 0; i < n; i++) {
            const char *name = pgi_tensor_files_at(files, i)->name;
            if (is_colpali && strcmp(wrappers[w].part, "vlm.") == 0) continue;
            if (has_part(name, wrappers[w].part))
                return pgi_error(PG_ERROR_UNSUPPORTED, "%s: found tensors named like %s: %s", folder, name,
                                 wrappers[w].what);
        }
    for (size_t i = 0; i < n; i++) {
        const pgi_stored_tensor *t = pgi_tensor_files_at(files, i);
        n_empty += t->n_dims == 1 && t->shape[0] == 0; /* torch.empty(0) */
    }
    if (n_empty > 0)
        return pgi_error(
            PG_ERROR_UNSUPPORTED,
            "%s: found %zu of %zu tensors without contents: the shell of a model trained with ZeRO-3; set "
            "stage3_gather_16bit_weights_on_model_save, or make weights with zero_to_fp32.py, and save again",
            folder, n_empty, n);
    return status;
}
