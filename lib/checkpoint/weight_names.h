/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * What a tensor of a checkpoint, or a module of transformers, is called. Transformers renames keys on loading
 * (conversion_mapping.py, "llava"), so that checkpoints of all versions load; we do the reverse once and reduce every
 * name to (part, rest):
 *     [model.]vision_tower.[vision_model.]REST     [model.]multi_modal_projector.REST
 *     [model.]language_model.[model.]REST          [model.][language_model.]lm_head.REST
 *     [model.]custom_text_proj.REST                [model.]embedding_proj_layer.REST
 * A ColPali folder of transformers has "vlm." before all names but the projection's.
 */
#ifndef PGI_CHECKPOINT_WEIGHT_NAMES_H
#define PGI_CHECKPOINT_WEIGHT_NAMES_H

typedef enum pgi_weight_part {
    PGI_NAME_VISION,
    PGI_NAME_PROJECTOR,
    PGI_NAME_TEXT,
    PGI_NAME_HEAD,
    PGI_NAME_RETRIEVAL
} pgi_weight_part;

/* Whether *name begins with `prefix`, which is taken off then. */
int pgi_skip_prefix(const char **name, const char *prefix);
/* Splits a name; *rest lies within it. 0: it is of no part. */
int pgi_weight_name_split(const char *name, int is_colpali, pgi_weight_part *part, const char **rest);

#endif
