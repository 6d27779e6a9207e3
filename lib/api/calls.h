/* What a call was given stays while it is under way: a callback of the host may close the handles. */
#ifndef PGI_API_CALLS_H
#define PGI_API_CALLS_H

#include "base/run.h"
#include "model/model.h"
#include "processor/inputs.h"

/* model, cancel: NULL where the call has none, or something else keeps them. */
static inline void pgi_call_begin(pg_model *model, const pg_inputs *inputs, pg_cancel *cancel) {
    pgi_model_retain(model);
    pgi_inputs_retain((pg_inputs *)(uintptr_t)inputs);
    pgi_cancel_retain(cancel);
}

static inline void pgi_call_end(pg_model *model, const pg_inputs *inputs, pg_cancel *cancel) {
    pgi_cancel_release(cancel);
    pgi_inputs_release((pg_inputs *)(uintptr_t)inputs);
    pgi_model_release(model);
}

#endif
