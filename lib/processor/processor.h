/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Tokenizer and image settings of one checkpoint, counted. The public handle is this struct. */
#ifndef PGI_PROCESSOR_PROCESSOR_H
#define PGI_PROCESSOR_PROCESSOR_H

#include <stdatomic.h>

#include "base/log.h"
#include "image/image_settings.h"
#include "kernels/kernels.h"
#include "processor/inputs.h"
#include "tokenizer/tokenizer.h"

struct pg_processor {
    atomic_int references;
    pgi_memory memory;
    pgi_tokenizer *tokenizer;
    pgi_kernels kernels;
    int text_only;            /* PG_PROCESSOR_TEXT_ONLY */
    pgi_image_settings image; /* zero when text_only */
    pgi_log log;
};

/* options: complete. On error *out needs no release. */
pg_status pgi_processor_open(const pgi_memory *memory, const char *model, const pg_processor_options *options,
                             pg_processor **out);
/* The same handle, which now counts one more reference. Handles that never change are const everywhere else: only their
 * count does. */
pg_processor *pgi_processor_retain(const pg_processor *processor);
void pgi_processor_release(pg_processor *processor); /* NULL is ignored */

#endif
