/* The projector: one linear layer from the encoder's width to the decoder's (HF: PaliGemmaMultiModalProjector). */
#ifndef PGI_PROJECTOR_PROJECTOR_H
#define PGI_PROJECTOR_PROJECTOR_H

#include "base/run.h"
#include "kernels/matrix.h"

/* Bytes of workspace for pgi_projector_forward(). */
size_t pgi_projector_workspace(const pgi_run *run);

/* x [rows, vision hidden] to out [rows, text hidden]. The decoder takes the rows as they are:
 * only text embeddings are multiplied by sqrt(hidden). */
pg_status pgi_projector_forward(const pgi_run *run, const pgi_linear *projector, const float *x, int64_t rows,
                                float *out, void *workspace);

#endif
