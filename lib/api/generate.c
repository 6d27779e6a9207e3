/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* pg_generate(), pg_result, and the options of sampling. */
#include "generate/generate.h"

#include <math.h>
#include <string.h>

#include "api/calls.h"
#include "api/structs.h"
#include "model/read_ahead.h"
#include "model/row_models.h"
#include "generate/search.h"

enum { MOST_ALTERNATIVES = 1024, MOST_RETURNED = 1024 };

PGI_OPTIONS(pg_generate_options, .struct_size = sizeof(pg_generate_options))

pg_status pg_sampling_options_init(pg_sampling_options *out, size_t struct_size) {
    PGI_ENTER;
    return pgi_struct_init(out, struct_size, &pgi_sampling_defaults, PGI_STRUCT(pg_sampling_options));
}

pg_status pg_beam_options_init(pg_beam_options *out, size_t struct_size) {
    PGI_ENTER;
    return pgi_struct_init(out, struct_size, &pgi_beam_defaults, PGI_STRUCT(pg_beam_options));
}

/* The settings of generation_config.json. Some numbers that nobody can mean are off in transformers, and a top_p of 0
 * leaves the likeliest id alone. */
static pg_sampling_options sampling_of(const pg_model *model) {
    pg_sampling_options o = model->config.generation.sampling;
    if (o.top_p == 0) o.top_p = 1e-30;
    if (o.top_p > 1) o.top_p = 1;
    if (o.typical_p > 1) o.typical_p = 1;
    if (o.epsilon_cutoff < 0 || o.epsilon_cutoff >= 1) o.epsilon_cutoff = 0;
    if (o.eta_cutoff < 0 || o.eta_cutoff >= 1) o.eta_cutoff = 0;
    return o;
}

pg_status pg_model_get_sampling(const pg_model *model, pg_sampling_options *out) {
    PGI_ENTER;
    PGI_NOT_NULL(model);
    PGI_TRY(pgi_struct_out_check(out, PGI_STRUCT(pg_sampling_options)));
    const pg_sampling_options value = sampling_of(model);
    pgi_struct_out(out, &value, sizeof value);
    return PG_OK;
}

pg_status pgi_sampling_in(const pg_sampling_options *options, const pg_model *model, pg_sampling_options *complete) {
    *complete = options || !model ? pgi_sampling_defaults : sampling_of(model);
    PGI_TRY(pgi_struct_in(complete, options, PGI_STRUCT(pg_sampling_options)));
    PGI_TRY(pgi_reserved_in(complete->reserved, "pg_sampling_options"));
    if (!options && !(complete->flags & PG_SAMPLING_RANDOM)) { /* of no effect, and so of any value, as in HF */
        const pg_sampling_options *none = &pgi_sampling_defaults;
        complete->temperature = none->temperature, complete->top_h = none->top_h, complete->top_p = none->top_p;
        complete->min_p = none->min_p, complete->typical_p = none->typical_p;
        complete->epsilon_cutoff = none->epsilon_cutoff, complete->eta_cutoff = none->eta_cutoff;
    }
    return pgi_flags_in(complete->flags,
                        PG_SAMPLING_ADD_EOS | PG_SAMPLING_IGNORE_EOS | PG_SAMPLING_RANDOM | PG_SAMPLING_ROW_STREAMS |
                            PG_SAMPLING_REMOVE_INVALID | PG_SAMPLING_RENORMALIZE,
                        "PG_SAMPLING_*");
}

/* What generation_config.json says where the options say nothing. */
static void follow_config(const pg_model *model, pg_generate_options *options) {
    const pgi_generation_config *config = &model->config.generation;
    if (options->flags & PG_GENERATE_IGNORE_CONFIG) return;
    if (options->max_seconds == 0) options->max_seconds = config->max_seconds;
    if (options->n_return == 0) options->n_return = config->n_return;
    if (options->n_stop_strings != 0) return;
    options->stop_strings = config->stop_strings;
    options->n_stop_strings = config->n_stop_strings;
}

/* Takes over the settings of beam search; NULL: those of the model, where they are followed. */
static pg_status beams_in(const pg_model *model, const pg_generate_options *options, pg_beam_options *complete) {
    const int follows = !(options->flags & PG_GENERATE_IGNORE_CONFIG);
    *complete = options->beams || !follows ? pgi_beam_defaults : model->config.generation.beams;
    PGI_TRY(pgi_struct_in(complete, options->beams, PGI_STRUCT(pg_beam_options)));
    PGI_TRY(pgi_reserved_in(complete->reserved, "pg_beam_options"));
    if (complete->n_beams < 1 || complete->n_beams > PGI_MOST_BEAMS)
        return pgi_error(PG_ERROR_ARGUMENT, "n_beams is %d, expected 1 (no search) to %d", complete->n_beams,
                         PGI_MOST_BEAMS);
    if (complete->early_stopping < PG_EARLY_STOPPING_OFF || complete->early_stopping > PG_EARLY_STOPPING_NEVER)
        return pgi_error(PG_ERROR_ARGUMENT, "early_stopping is %d, expected 0 (off), 1 (on) or 2 (never)",
                         complete->early_stopping);
    if (!isfinite(complete->length_penalty))
        return pgi_error(PG_ERROR_ARGUMENT, "length_penalty is %g, expected a finite number", complete->length_penalty);
    return PG_OK;
}

/* n_return, by the other options, which are complete. */
static pg_status check_returned(const pg_generate_options *options) {
    const int32_t n_beams = options->beams->n_beams, most = n_beams > 1 ? n_beams : MOST_RETURNED;
    if (options->n_return < 1 || options->n_return > most)
        return pgi_error(PG_ERROR_ARGUMENT, "n_return is %d, expected 1 to %d%s (0: default)", options->n_return, most,
                         n_beams > 1 ? ", n_beams" : "");
    if (options->n_return > 1 && n_beams == 1 && !(options->sampling->flags & PG_SAMPLING_RANDOM))
        return pgi_error(PG_ERROR_ARGUMENT,
                         "n_return is %d, but without beams and PG_SAMPLING_RANDOM all texts of a row are the same: "
                         "expected 1, or one of these",
                         options->n_return);
    return PG_OK;
}

/* What the options say beside n_threads and sampling. */
static pg_status check_options(const pg_model *model, const pg_generate_options *options) {
    const int32_t most = (int32_t)pgi_min64(MOST_ALTERNATIVES, model->config.text.vocab_size);
    PGI_TRY(pgi_flags_in(options->flags,
                         PG_GENERATE_LOG_PROBS | PG_GENERATE_LOGITS | PG_GENERATE_SCORES | PG_GENERATE_IGNORE_CONFIG |
                             PG_GENERATE_DETECT | PG_GENERATE_SEGMENT,
                         "PG_GENERATE_*"));
    if (options->flags & PG_GENERATE_DETECT && options->flags & PG_GENERATE_SEGMENT)
        return pgi_error(PG_ERROR_ARGUMENT,
                         "flags has PG_GENERATE_DETECT and PG_GENERATE_SEGMENT, expected one of them");
    if (options->max_new_tokens < 0)
        return pgi_error(PG_ERROR_ARGUMENT, "max_new_tokens is %d, expected 0 (default) or more",
                         options->max_new_tokens);
    if (options->max_running < 0)
        return pgi_error(PG_ERROR_ARGUMENT, "max_running is %d, expected 0 (default) or more", options->max_running);
    if (options->n_alternatives < 0 || options->n_alternatives > most)
        return pgi_error(PG_ERROR_ARGUMENT, "n_alternatives is %d, expected 0 to %d", options->n_alternatives, most);
    if (options->n_stop_strings < 0)
        return pgi_error(PG_ERROR_ARGUMENT, "n_stop_strings is %d, expected 0 or more", options->n_stop_strings);
    if (options->n_stop_strings > 0 && !options->stop_strings)
        return pgi_error(PG_ERROR_ARGUMENT, "stop_strings is NULL, expected %d texts", options->n_stop_strings);
    if (!(options->max_seconds >= 0))
        return pgi_error(PG_ERROR_ARGUMENT, "max_seconds is %g, expected 0 (no limit) or more", options->max_seconds);
    return PG_OK;
}

pg_status pg_generate(const pg_model *model, const pg_processor *processor, const pg_inputs *inputs,
                      const pg_generate_options *options, pg_result **out) {
    PGI_ENTER;
    PGI_NOT_NULL(out);
    *out = NULL;
    PGI_NOT_NULL(model);
    if (processor) PGI_TRY(pgi_processor_needs_text(processor));
    PGI_NOT_NULL(inputs);
    PGI_OPTIONS_IN(pg_generate_options, complete, options);
    pg_sampling_options sampling;
    pg_beam_options beams;
    follow_config(model, &complete);
    PGI_TRY(check_options(model, &complete));
    if (!processor && complete.n_stop_strings > 0)
        return pgi_error(PG_ERROR_ARGUMENT, "processor is NULL, but stop_strings need a text: expected a processor");
    if (!processor && complete.flags & (PG_GENERATE_DETECT | PG_GENERATE_SEGMENT))
        return pgi_error(PG_ERROR_ARGUMENT, "processor is NULL, but %s needs its tokens: expected a processor",
                         complete.flags & PG_GENERATE_DETECT ? "PG_GENERATE_DETECT" : "PG_GENERATE_SEGMENT");
    PGI_TRY(pgi_sampling_in(complete.sampling, complete.flags & PG_GENERATE_IGNORE_CONFIG ? NULL : model, &sampling));
    complete.sampling = &sampling;
    PGI_TRY(beams_in(model, &complete, &beams));
    complete.beams = &beams;
    if (complete.n_return == 0) complete.n_return = 1;
    PGI_TRY(check_returned(&complete));
    PGI_TRY(pgi_max_context_in(complete.max_context));
    PGI_TRY(pgi_thread_count(complete.n_threads, &complete.n_threads));
    PGI_TRY(pgi_tensor_files_unchanged(model->files));
    pgi_call call = pgi_call_begin(model, inputs, complete.features, complete.cancel);
    pg_processor *kept = processor ? pgi_processor_retain(processor) : NULL;
    pg_model **row_models;
    pg_status status;
    PGI_GOTO(pgi_row_models_keep(model, complete.row_models, complete.n_row_models, inputs->n_rows, &row_models), done);
    complete.row_models = (const pg_model *const *)row_models;
    pgi_read_ahead(model, pgi_read_ahead_parts(inputs, complete.features));
    status = pgi_generate(model, processor, inputs, &complete, out);
    pgi_row_models_release(&model->memory, row_models, complete.n_row_models);
done:
    pgi_processor_release(kept);
    pgi_call_end(&call);
    return status;
}

void pg_result_close(pg_result **result) {
    if (!result) return;
    pg_result *closed = *result;
    *result = NULL; /* before its memory goes: the allocator's callback may close it, too */
    pgi_result_release(closed);
}

int64_t pg_result_get_n_rows(const pg_result *result) { return result ? result->n_rows : 0; }

const char *pg_result_get_text(const pg_result *result, int64_t row) {
    if (!result || row < 0 || row >= result->n_rows) return "";
    const pgi_buffer *text = &result->rows[row].text;
    return text->data ? (const char *)text->data : "";
}

static pg_status find_row(const pg_result *result, int64_t row, const pgi_result_row **out) {
    PGI_NOT_NULL(result);
    if (row < 0 || row >= result->n_rows)
        return pgi_error(PG_ERROR_ARGUMENT, "row is %lld, expected 0 to %lld", (long long)row,
                         (long long)result->n_rows - 1);
    *out = &result->rows[row];
    return PG_OK;
}

static pg_tensor ids_of(const pgi_result_row *row) {
    return (pg_tensor){
        .struct_size = sizeof(pg_tensor),
        .dtype = PG_DTYPE_I64,
        .n_dims = 1,
        .shape = {(int64_t)row->ids.size, 1, 1, 1},
        .data = row->ids.data,
    };
}

pg_status pg_result_get_ids(const pg_result *result, int64_t row, pg_tensor *out) {
    PGI_ENTER;
    const pgi_result_row *of = NULL;
    PGI_TRY(find_row(result, row, &of));
    PGI_TRY(pgi_struct_out_check(out, PGI_STRUCT(pg_tensor)));
    const pg_tensor value = ids_of(of);
    pgi_struct_out(out, &value, sizeof value);
    return PG_OK;
}

pg_status pg_result_get_tensor(const pg_result *result, int64_t row, const char *name, pg_tensor *out) {
    PGI_ENTER;
    const pgi_result_row *of = NULL;
    pg_tensor value;
    PGI_TRY(find_row(result, row, &of));
    PGI_NOT_NULL(name);
    PGI_TRY(pgi_struct_out_check(out, PGI_STRUCT(pg_tensor)));
    if (strcmp(name, "ids") == 0)
        value = ids_of(of);
    else if (strncmp(name, "beam_", 5) == 0)
        PGI_TRY(pgi_result_beams_tensor(result, row, name, &value));
    else
        PGI_TRY(pgi_step_scores_tensor(&of->kept, name, (int64_t)of->ids.size, &value));
    pgi_struct_out(out, &value, sizeof value);
    return PG_OK;
}

pg_status pg_result_get_info(const pg_result *result, int64_t row, pg_result_info *info) {
    PGI_ENTER;
    const pgi_result_row *of = NULL;
    PGI_TRY(find_row(result, row, &of));
    PGI_TRY(pgi_struct_out_check(info, PGI_STRUCT(pg_result_info)));
    pg_result_info value = {
        .struct_size = sizeof value,
        .stop = of->stop,
        .n_prompt_tokens = of->n_prompt_tokens,
        .n_new_tokens = (int64_t)of->ids.size,
        .vision_seconds = result->vision_seconds,
        .prefill_seconds = result->prefill_seconds,
        .decode_seconds = result->decode_seconds,
        .score = of->score,
    };
    pgi_struct_out(info, &value, sizeof value);
    return PG_OK;
}
