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
    pgi_tokenizer *tokenizer; /* NULL with PG_PROCESSOR_IMAGES_ONLY */
    pgi_kernels kernels;
    uint32_t flags;           /* PG_PROCESSOR_* */
    pgi_image_settings image; /* zero with PG_PROCESSOR_TEXT_ONLY */
    pgi_log log;
};

/* The error of a call that needs the part which the processor was opened without, or PG_OK. */
pg_status pgi_processor_needs_text(const pg_processor *processor);
pg_status pgi_processor_needs_images(const pg_processor *processor);

/* options: complete. model: NULL with PG_PROCESSOR_IMAGES_ONLY alone. On error *out needs no release. */
pg_status pgi_processor_open(const pgi_memory *memory, const char *model, const pg_processor_options *options,
                             pg_processor **out);
/* The same handle, which now counts one more reference. Handles that never change are const everywhere else: only their
 * count does. */
pg_processor *pgi_processor_retain(const pg_processor *processor);
void pgi_processor_release(pg_processor *processor); /* NULL is ignored */

#endif
