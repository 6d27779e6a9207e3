/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The projector: one linear layer from the encoder's width to the decoder's (HF: PaliGemmaMultiModalProjector). */
#ifndef PGI_PROJECTOR_PROJECTOR_H
#define PGI_PROJECTOR_PROJECTOR_H

#include "base/memory.h"
#include "base/run.h"
#include "kernels/matrix.h"

/* Memory of a pass, of any number of rows. */
typedef struct pgi_projector_workspace {
    void *linear; /* scratch of pgi_linear_forward() */
} pgi_projector_workspace;

pgi_projector_workspace pgi_projector_lay_out(pgi_arena *arena, const pgi_run *run);

/* x [n_tokens, vision hidden] to out [n_tokens, text hidden]. The decoder takes them as they are:
 * only text embeddings are multiplied by sqrt(hidden). */
pg_status pgi_projector_forward(const pgi_run *run, const pgi_linear *projector, const float *x, int64_t n_tokens,
                                float *out, const pgi_projector_workspace *workspace);

#endif
