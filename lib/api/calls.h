/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* What a call was given stays while it is under way: a callback of the host may close the handles. */
#ifndef PGI_API_CALLS_H
#define PGI_API_CALLS_H

#include "base/run.h"
#include "model/features.h"
#include "model/model.h"
#include "processor/inputs.h"

/* The handles that a call keeps; any may be NULL: the call has none, or something else keeps it. */
typedef struct pgi_call {
    pg_model *model;
    pg_inputs *inputs;
    pg_features *features;
    pg_cancel *cancel;
} pgi_call;

static inline pgi_call pgi_call_begin(const pg_model *model, const pg_inputs *inputs, const pg_features *features,
                                      pg_cancel *cancel) {
    pgi_cancel_retain(cancel);
    return (pgi_call){pgi_model_retain(model), pgi_inputs_retain(inputs),
                      features ? pgi_features_retain(features) : NULL, cancel};
}

static inline void pgi_call_end(pgi_call *call) {
    pgi_cancel_release(call->cancel);
    pgi_features_release(call->features);
    pgi_inputs_release(call->inputs);
    pgi_model_release(call->model);
}

#endif
