/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* What changes scores before a random draw (HF: logits warpers). */
#ifndef PGI_GENERATE_WARPERS_H
#define PGI_GENERATE_WARPERS_H

#include "generate/settings.h"

/* Temperature, then everything that keeps unlikely ids out, in workspace->scores; `least` (>= 1) of them stay. */
void pgi_warp(const pg_sampling_options *options, int64_t least, int64_t vocab_size,
              const pgi_sampling_workspace *workspace);

#endif
