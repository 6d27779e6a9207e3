/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Options of `run` that say how tokens are chosen, and their scores as JSON. */
#include <stdlib.h>

#include "tool.h"

/* Decimal, within the bounds; returns -1, or the exit status. */
static int parse_real(const tool_verb *verb, const char *name, const char *text, double least, double most,
                      double *out) {
    char *end;
    *out = strtod(text, &end);
    if (end != text && !*end && *out >= least && *out <= most) return -1;
    return tool_usage_error(verb, "%s: found '%s', expected a number from %g to %g", name, text, least, most);
}

int tool_sampling_parse(const tool_verb *verb, tool_sampling *s) {
    int status =
        s->temperature_text ? parse_real(verb, "--temperature", s->temperature_text, 0, 1000, &s->temperature) : -1;
    if (status < 0 && s->top_p_text) status = parse_real(verb, "--top-p", s->top_p_text, 0, 1, &s->top_p);
    if (status < 0 && s->length_penalty_text)
        status = parse_real(verb, "--length-penalty", s->length_penalty_text, -1000, 1000, &s->length_penalty);
    if (status >= 0) return status;
    if (s->top_p_text && s->top_p == 0) return tool_usage_error(verb, "--top-p: found '0', expected more than 0");
    if (s->stop && !*s->stop) return tool_usage_error(verb, "--stop: found '', expected a text");
    if (s->length_penalty_text && s->n_beams < 2)
        return tool_usage_error(verb, "--length-penalty needs --beams of at least 2");
    if (s->n_beams > 0 && s->n_texts > s->n_beams)
        return tool_usage_error(verb, "--texts: found '%lld', expected at most --beams, %lld", (long long)s->n_texts,
                                (long long)s->n_beams);
    return -1;
}

static void apply_beams(const tool_sampling *s, pg_beam_options *beams, pg_generate_options *options) {
    options->n_return = s->n_texts > 0 ? (int32_t)s->n_texts : 1;
    if (s->n_beams == 0) return;
    pg_beam_options_init(beams, sizeof *beams);
    beams->n_beams = (int32_t)s->n_beams;
    if (s->length_penalty_text) beams->length_penalty = s->length_penalty;
    options->beams = beams;
}

pg_status tool_sampling_apply(const tool_sampling *s, const pg_model *model, tool_sampling_options *memory,
                              pg_generate_options *options) {
    pg_sampling_options *sampling = &memory->sampling;
    apply_beams(s, &memory->beams, options);
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

pg_status tool_texts_to_json(const pg_result *result, json_t *object) {
    json_t *texts = json_array();
    for (int64_t row = 0; row < pg_result_get_n_rows(result); row++) {
        pg_tensor ids = {.struct_size = sizeof ids}, beams = ids;
        pg_result_info info = {.struct_size = sizeof info};
        pg_status status = pg_result_get_ids(result, row, &ids);
        if (status >= 0) status = pg_result_get_info(result, row, &info);
        if (status < 0) {
            json_decref(texts);
            return status;
        }
        json_t *text = json_pack("{s:s, s:o, s:s}", "text", pg_result_get_text(result, row), "ids",
                                 tool_ids_to_json(&ids), "stop", tool_stop_name(info.stop));
        if (pg_result_get_tensor(result, row, "beam_indices", &beams) >= 0)
            json_object_set_new(text, "score", json_real(info.score));
        json_array_append_new(texts, text);
    }
    json_object_set_new(object, "texts", texts);
    return PG_OK;
}

json_t *tool_ids_to_json(const pg_tensor *ids) {
    json_t *list = json_array();
    const int64_t *data = ids->data;
    int64_t n = ids->n_dims == 2 ? ids->shape[0] * ids->shape[1] : ids->shape[0];
    for (int64_t i = 0; i < n; i++) json_array_append_new(list, json_integer(data[i]));
    return list;
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
