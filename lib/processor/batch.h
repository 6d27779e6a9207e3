/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* A batch of prompts, images and suffixes to inputs (HF: PaliGemmaProcessor.__call__). */
#ifndef PGI_PROCESSOR_BATCH_H
#define PGI_PROCESSOR_BATCH_H

#include "processor/processor.h"

/* options: complete and in range; `settings` in place of their image_settings. batch: complete, counts and pointers fit
 * each other; `images` are complete. */
pg_status pgi_batch_encode(const pg_processor *processor, const pg_batch *batch, const pg_encode_options *options,
                           const pgi_image_settings *settings, pg_inputs **out);

#endif
