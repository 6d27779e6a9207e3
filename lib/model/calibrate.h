/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Adding up what the linear layers of a model read: checkpoint/calibration.h. */
#ifndef PGI_MODEL_CALIBRATE_H
#define PGI_MODEL_CALIBRATE_H

#include "checkpoint/calibration.h"
#include "model/model.h"
#include "processor/inputs.h"

/* With sums of zero. PG_ERROR_UNSUPPORTED: the model's weights are not as stored. */
pg_status pgi_calibration_create(const pg_model *model, pg_calibration **out);
void pgi_calibration_close(pg_calibration *calibration); /* NULL is ignored */

/* Around every call that has one: the handle serves one at a time. _end returns `status`; the handle may be gone then.
 */
pg_status pgi_calibration_begin(const pg_calibration *calibration);
pg_status pgi_calibration_end(const pg_calibration *calibration, pg_status status);

/* Runs all rows, padding left out, and adds them. After an error the sums are torn (PG_ERROR_STATE from then on). */
pg_status pgi_calibration_add(pg_calibration *calibration, const pg_inputs *inputs, const pg_run_options *options);
/* PG_ERROR_STATE: the sums are torn. */
pg_status pgi_calibration_check(const pg_calibration *calibration);

#endif
