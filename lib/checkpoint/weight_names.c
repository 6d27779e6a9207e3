/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Names of tensors: weight_names.h. */
#include "checkpoint/weight_names.h"

#include <string.h>

int pgi_skip_prefix(const char **name, const char *prefix) {
    size_t size = strlen(prefix);
    if (strncmp(*name, prefix, size) != 0) return 0;
    *name += size;
    return 1;
}

int pgi_weight_name_split(const char *name, int is_colpali, pgi_weight_part *part, const char **rest) {
    if (is_colpali) pgi_skip_prefix(&name, "vlm.");
    pgi_skip_prefix(&name, "model.");
    if (pgi_skip_prefix(&name, "vision_tower.")) {
        pgi_skip_prefix(&name, "vision_model.");
        *part = PGI_NAME_VISION;
    } else if (pgi_skip_prefix(&name, "multi_modal_projector.")) {
        *part = PGI_NAME_PROJECTOR;
    } else if (pgi_skip_prefix(&name, "lm_head.") || pgi_skip_prefix(&name, "language_model.lm_head.")) {
        *part = PGI_NAME_HEAD;
    } else if (pgi_skip_prefix(&name, "embedding_proj_layer.") || pgi_skip_prefix(&name, "custom_text_proj.")) {
        *part = PGI_NAME_RETRIEVAL;
    } else if (pgi_skip_prefix(&name, "language_model.")) {
        pgi_skip_prefix(&name, "model.");
        *part = PGI_NAME_TEXT;
    } else {
        return 0;
    }
    *rest = name;
    return 1;
}
