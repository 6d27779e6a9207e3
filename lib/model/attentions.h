/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The attention weights that pg_forward() keeps on request: of which layers, heads, queries and keys. */
#ifndef PGI_MODEL_ATTENTIONS_H
#define PGI_MODEL_ATTENTIONS_H

#include "model/merged_inputs.h"

typedef struct pgi_attentions {
    const pgi_merged_inputs *merged; /* borrowed; NULL: nothing is kept */
    uint32_t flags;                  /* PG_FORWARD_* */
    int32_t layer, n_layers;         /* the layers of the model that are looked at */
    int64_t shape[4];                /* [layers kept x B, heads kept, queries, keys] */
    float *weights;                  /* of that shape, 0 until rows are run */
    int64_t *columns;                /* [T]: see pgi_attention_weights */
    float factor;
} pgi_attentions;

/* Whether the options ask for something that there is. options: complete. */
pg_status pgi_attentions_check(const pg_model *model, const pg_inputs *inputs, const pg_forward_options *options);
/* Memory for them, if any are asked for. On error, too, *out needs to be freed. */
pg_status pgi_attentions_init(const pgi_merged_inputs *merged, const pg_forward_options *options, pgi_attentions *out);
void pgi_attentions_free(pgi_attentions *attentions); /* the weights too, unless they were taken */

/* Where those of batch row `row` go; tokens begin .. end of it are run. kept->n 0: nowhere. Valid until the next row.
 */
void pgi_attentions_row(pgi_attentions *attentions, int64_t row, int64_t begin, int64_t end, pgi_kept_attention *kept);
/* The first token of every row whose weights are kept; T: none are. */
int64_t pgi_attentions_first(const pgi_attentions *attentions, int64_t n_tokens);
/* Zeros for token t of the row as a query. */
void pgi_attentions_clear(const pgi_attentions *attentions, int64_t row, int64_t t);

#endif
