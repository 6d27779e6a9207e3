/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* What changes logits whether the token is drawn or not (HF: logits processors). */
#ifndef PGI_GENERATE_PROCESSORS_H
#define PGI_GENERATE_PROCESSORS_H

#include "generate/settings.h"

/* In workspace->scores. *stop: a callback wants to end the row. PG_ERROR_ARGUMENT: on_mask allows nothing. */
pg_status pgi_process_logits(const pgi_sampling *sampling, const pgi_sampled_row *row,
                             const pgi_sampling_workspace *workspace, int *stop);

#endif
