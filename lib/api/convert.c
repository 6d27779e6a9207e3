/* pg_model_convert(). */
#include "api/structs.h"
#include "base/parallel.h"
#include "checkpoint/convert.h"

static const pg_convert_options default_options = {.struct_size = sizeof default_options, .weights = PG_WEIGHTS_INT8};
static const uint64_t DEFAULT_FILE_BYTES = 5000000000u; /* as transformers cuts checkpoints */

pg_status pg_convert_options_init(pg_convert_options *options, size_t struct_size) {
    return pgi_struct_init(options, struct_size, &default_options, sizeof default_options, "pg_convert_options");
}

pg_status pg_model_convert(const char *model, const char *out, const pg_convert_options *options) {
    PGI_NOT_NULL(model);
    PGI_NOT_NULL(out);
    pg_convert_options complete = default_options;
    PGI_TRY(pgi_struct_in(&complete, sizeof complete, options, "pg_convert_options"));
    PGI_TRY(pgi_reserved_in(complete.reserved, "pg_convert_options"));
    if (complete.weights != PG_WEIGHTS_INT8 && complete.weights != PG_WEIGHTS_INT4)
        return pgi_error(PG_ERROR_ARGUMENT,
                         "pg_convert_options.weights is %d, expected PG_WEIGHTS_INT8 (1) or PG_WEIGHTS_INT4 (2)",
                         (int)complete.weights);
    pgi_memory memory;
    PGI_TRY(pgi_allocator_in(complete.allocator, &memory));
    PGI_TRY(pgi_thread_count(complete.n_threads, &complete.n_threads));
    pgi_thread_pool pool;
    pgi_run run = pgi_run_init(&pool, NULL, PGI_RUN_OPTIONS(&complete));
    const pgi_log log = {complete.log, complete.log_user};
    pgi_cancel_retain(complete.cancel); /* the host may close it while the call is under way */
    pg_status status = pgi_convert(&memory, &run, &log, model, out, complete.weights,
                                   complete.max_file_bytes ? complete.max_file_bytes : DEFAULT_FILE_BYTES);
    pgi_run_free(&run);
    pgi_cancel_release(complete.cancel);
    return status;
}
