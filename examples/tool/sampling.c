/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Options of `run` that say how tokens are chosen, and their scores as JSON. */
#include <stdlib.h>

#include "tool.h"

/* Decimal, within the bounds (least itself only where it is 0); returns -1, or the exit status. */
static int parse_real(const tool_verb *verb, const char *name, const char *text, double most, double *out) {
    char *end;
    *out = strtod(text, &end);
    if (end != text && !*end && *out >= 0 && *out <= most) return -1;
    return tool_usage_error(verb, "%s: found '%s', expected a number from 0 to %g", name, text, most);
}

int tool_sampling_parse(const tool_verb *verb, tool_sampling *s) {
    int status =
        s->temperature_text ? parse_real(verb, "--temperature", s->temperature_text, 1000, &s->temperature) : -1;
    if (status < 0 && s->top_p_text) status = parse_real(verb, "--top-p", s->top_p_text, 1, &s->top_p);
    if (status >= 0) return status;
    if (s->top_p_text && s->top_p == 0) return tool_usage_error(verb, "--top-p: found '0', expected more than 0");
    if (s->stop && !*s->stop) return tool_usage_error(verb, "--stop: found '', expected a text");
    return -1;
}

pg_status tool_sampling_apply(const tool_sampling *s, const pg_model *model, pg_sampling_options *sampling,
                              pg_generate_options *options) {
    sampling->struct_size = sizeof *sampling;
    pg_status status = pg_model_get_sampling(model, sampling);
    if (status < 0) return status;
    const int is_cold = s->temperature_text && s->temperature == 0;
    if (s->temperature_text || s->top_p_text || s->top_k >= 0 || s->seed >= 0) sampling->flags |= PG_SAMPLING_RANDOM;
    if (is_cold) sampling->flags &= ~(uint32_t)PG_SAMPLING_RANDOM;
    if (s->temperature_text && !is_cold) sampling->temperature = s->temperature;
    if (s->top_p_text) sampling->top_p = s->top_p;
    if (s->top_k >= 0) sampling->top_k = (int32_t)s->top_k;
    if (s->seed >= 0) sampling->seed = (uint64_t)s->seed;
    /* What has no effect is neutral, so that no value of the file is refused. */
    if (!(sampling->flags & PG_SAMPLING_RANDOM)) {
        sampling->temperature = sampling->top_p = sampling->typical_p = 1;
        sampling->top_h = sampling->min_p = sampling->epsilon_cutoff = sampling->eta_cutoff = 0;
    }
    options->sampling = sampling;
    if (s->stop) options->stop_strings = &s->stop, options->n_stop_strings = 1;
    if (s->scores) options->flags |= PG_GENERATE_LOG_PROBS, options->n_alternatives = TOOL_ALTERNATIVES;
    return PG_OK;
}

pg_status tool_scores_to_json(const pg_result *result, json_t *object) {
    pg_tensor log_probs = {.struct_size = sizeof log_probs}, ids = log_probs, likely = log_probs;
    pg_status status = pg_result_get_tensor(result, 0, "log_probs", &log_probs);
    if (status >= 0) status = pg_result_get_tensor(result, 0, "alternative_ids", &ids);
    if (status >= 0) status = pg_result_get_tensor(result, 0, "alternative_log_probs", &likely);
    if (status < 0) return status;
    json_t *list = json_array(), *steps = json_array();
    const float *values = log_probs.data, *theirs = likely.data;
    const int64_t *alternatives = ids.data;
    for (int64_t t = 0; t < log_probs.shape[0]; t++) {
        json_t *step = json_array();
        for (int64_t i = 0; i < TOOL_ALTERNATIVES; i++) {
            const int64_t at = t * TOOL_ALTERNATIVES + i;
            if (alternatives[at] >= 0)
                json_array_append_new(step, json_pack("[I, f]", (json_int_t)alternatives[at], (double)theirs[at]));
        }
        json_array_append_new(steps, step);
        json_array_append_new(list, json_real((double)values[t]));
    }
    json_object_set_new(object, "log_probs", list);
    json_object_set_new(object, "alternatives", steps);
    return PG_OK;
}

const char *tool_stop_name(int32_t stop) {
    switch (stop) {
        case PG_STOP_EOS: return "eos";
        case PG_STOP_LENGTH: return "length";
        case PG_STOP_CONTEXT: return "context";
        case PG_STOP_STRING: return "string";
        case PG_STOP_TIME: return "time";
        default: return "other";
    }
}
