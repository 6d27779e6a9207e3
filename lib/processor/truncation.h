/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Cutting a row to max_length as HF's `tokenizers` cuts a pair of texts (utils/truncation.rs, truncate_encodings),
 * or, with keep_ends, so that a model can still be trained on the row.
 */
#ifndef PGI_PROCESSOR_TRUNCATION_H
#define PGI_PROCESSOR_TRUNCATION_H

#include "tokenizer/id_list.h"

typedef struct pgi_truncation {
    int64_t max_length; /* 0: nothing is cut */
    int32_t part;       /* PG_TRUNCATION_* */
    int from_left;      /* tokens go from the head of each part, not from its tail */
    int keep_ends;      /* as PG_ENCODE_KEEP_ENDS */
    int as_one;         /* PG_TRUNCATION_LONGEST takes from the suffix as long as there is one (big_vision: tolen() of
                           pp/proj/paligemma/ops.py cuts the row as a whole) */
    int64_t image_id, bos_id; /* what keep_ends keeps of the prefix, beside its last token */
    int has_eos;              /* the suffix ends in eos */
} pgi_truncation;

/* The last n_prefix + n_suffix of `ids` are the row: a prefix (images, bos, prompt, newline) and a suffix (0: none).
 * Removes the tokens beyond max_length and adds PG_ROW_TRUNCATED, _TRUNCATED_EOS and _TRUNCATED_NEWLINE to *events. */
pg_status pgi_truncate(const pgi_truncation *truncation, pgi_id_list *ids, int64_t *n_prefix, int64_t *n_suffix,
                       uint32_t *events);

#endif
