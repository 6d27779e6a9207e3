/* What the processor built and the model is fed. The public handle is this struct. */
#ifndef PGI_PROCESSOR_INPUTS_H
#define PGI_PROCESSOR_INPUTS_H

#include <stdatomic.h>

#include "base/memory.h"

struct pg_inputs {
    atomic_int references;
    pgi_memory memory;
    int64_t n_tokens;
    int64_t *ids;            /* [1, n_tokens] */
    int64_t *attention_mask; /* [1, n_tokens], all 1: one row has no padding */
    int64_t *token_type_ids; /* [1, n_tokens], all 0: prefix only */
    int64_t n_images;        /* pictures that `pixels` holds */
    int32_t image_width, image_height;
    float *pixels; /* [n_images, 3, height, width], or NULL: the layout has image tokens but no pixels */
};

void pgi_inputs_release(pg_inputs *inputs); /* NULL is ignored */

#endif
