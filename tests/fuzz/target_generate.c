/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * What pg_generate() and pg_session_sample() are told of tokens and texts: prompt, stop strings, bad words, biases,
 * lists of ids, masks, callbacks, grammars. Three bytes say how; then come settings, each with a letter, how many and
 * its bytes. Ids have two bytes, so that some are not in the vocabulary. A token that was forbidden must not come.
 */
#include <math.h>

#include "fuzz.h"

enum { MOST = 8, MAX_IDS = 64 };

/* Ids of `n` sequences, one behind the other; or of one list. */
typedef struct id_lists {
    int64_t ids[MAX_IDS], sizes[MOST];
    int64_t n_ids, n;
} id_lists;

typedef struct settings {
    id_lists eos, forced_eos, suppressed, begin, bad_words, biased;
    double biases[MOST];
    char *stops[MOST], *prompt;
    int32_t n_stops;
    uint32_t *mask; /* as long as the vocabulary wants it */
    size_t mask_words;
    uint8_t of_callbacks;
    pg_sampling_options sampling;
} settings;

static char *take_text(fuzz_input *in) {
    size_t size = (size_t)fuzz_take(in, 1);
    if (size > in->size) size = in->size;
    char *text = fuzz_text(in->data, size);
    in->data += size;
    in->size -= size;
    return text;
}

/* The last list may be 0 or fewer ids long: that is for the library to see. */
static void take_list(fuzz_input *in, id_lists *out) {
    int64_t size = (int8_t)fuzz_take(in, 1);
    if (out->n == MOST || size > MAX_IDS - out->n_ids) return;
    out->sizes[out->n++] = size;
    for (int64_t i = 0; i < size; i++) out->ids[out->n_ids++] = (int16_t)fuzz_take(in, 2);
}

static void take_mask(fuzz_input *in, settings *s) {
    const uint64_t how = fuzz_take(in, 1);
    for (size_t i = 0; i < s->mask_words; i++)
        s->mask[i] = (uint32_t)(how & 1 ? fuzz_take(in, 4) : ~(fuzz_take(in, 1) << (i + how) % 24));
    s->sampling.token_mask = s->mask;
}

static double take_number(fuzz_input *in) {
    static const double special[] = {0, 1, -1, 0.5, 1e-300, 1e300, NAN, INFINITY, -INFINITY, 2, 100, -100};
    return special[fuzz_take(in, 1) % (sizeof special / sizeof *special)];
}

/* What a drawn token is chosen by; mostly in its range. */
static void take_warper(fuzz_input *in, pg_sampling_options *o) {
    double *const all[] = {&o->temperature, &o->top_h,          &o->top_p,      &o->min_p,
                           &o->typical_p,   &o->epsilon_cutoff, &o->eta_cutoff, NULL};
    const uint64_t which = fuzz_take(in, 1), value = fuzz_take(in, 1);
    if (all[which % 8])
        *all[which % 8] = which & 8 ? take_number(in) : (double)value / 256;
    else
        o->top_k = (int32_t)value - 1;
}

/* What is left of the input is settings. */
static void take_settings(fuzz_input *in, settings *s) {
    while (in->size) {
        switch (fuzz_take(in, 1)) {
            case 's':
                if (s->n_stops < MOST) s->stops[s->n_stops++] = take_text(in);
                break;
            case 'p':
                free(s->prompt);
                s->prompt = take_text(in);
                break;
            case 'e': take_list(in, &s->eos); break;
            case 'f': take_list(in, &s->forced_eos); break;
            case 'u': take_list(in, &s->suppressed); break;
            case 'b': take_list(in, &s->begin); break;
            case 'w': take_list(in, &s->bad_words); break;
            case 'l':
                s->biases[s->biased.n % MOST] = take_number(in);
                take_list(in, &s->biased);
                break;
            case 'm': take_mask(in, s); break;
            case 'c': s->of_callbacks = (uint8_t)fuzz_take(in, 1); break;
            case '1': s->sampling.forced_bos_id = (int16_t)fuzz_take(in, 2); break;
            case 'n': s->sampling.min_new_tokens = (int8_t)fuzz_take(in, 1); break;
            case 'd':
                s->sampling.decay_factor = take_number(in);
                s->sampling.decay_start = (int8_t)fuzz_take(in, 1);
                break;
            case 't': take_warper(in, &s->sampling); break;
            case 'r': s->sampling.repetition_penalty = take_number(in); break;
            case 'g': s->sampling.no_repeat_ngram_size = (int8_t)fuzz_take(in, 1); break;
            default: break;
        }
    }
}

static int32_t on_mask(void *user, int64_t row, const int64_t *ids, int64_t n_ids, uint32_t *mask, int64_t vocab) {
    const settings *s = user;
    const int64_t last = n_ids ? ids[n_ids - 1] : row;
    for (int64_t i = 0; i < (vocab + 31) / 32; i++) mask[i] = s->of_callbacks & 2 ? 0xA5u << (last + i) % 8 : ~0u;
    return s->of_callbacks & 4 && last % 16 == 3;
}

static int32_t on_logits(void *user, int64_t row, const int64_t *ids, int64_t n_ids, float *logits, int64_t vocab) {
    const settings *s = user;
    const int64_t at = (n_ids ? ids[n_ids - 1] : row) % vocab;
    logits[at < 0 ? 0 : at] = s->of_callbacks & 16 ? NAN : s->of_callbacks & 32 ? INFINITY : 3;
    for (int64_t i = 0; s->of_callbacks & 64 && i < vocab; i++) logits[i] = -INFINITY;
    return s->of_callbacks & 128 && at % 16 == 3;
}

static int32_t on_text(void *user, int64_t row, const char *text, size_t size, int64_t token) {
    if (row < 0 || strlen(text) > size || token < -1) abort();
    return *(int *)user == 1;
}

static int32_t on_texts(void *user, int64_t row, const int64_t *ids, int64_t n_ids, int64_t n_texts, uint8_t *ends) {
    const settings *s = user;
    for (int64_t k = 0; k < n_texts; k++) ends[k] = (ids[k * n_ids + n_ids - 1] + row) % 4 == 1;
    return s->of_callbacks & 128 && n_ids % 16 == 3;
}

static void give(settings *s) {
    pg_sampling_options *o = &s->sampling;
    o->eos_ids = s->eos.ids;
    o->n_eos_ids = s->eos.n_ids;
    o->forced_eos_ids = s->forced_eos.ids;
    o->n_forced_eos_ids = s->forced_eos.n_ids;
    o->suppressed_ids = s->suppressed.ids;
    o->n_suppressed_ids = s->suppressed.n_ids;
    o->begin_suppressed_ids = s->begin.ids;
    o->n_begin_suppressed_ids = s->begin.n_ids;
    o->bad_word_ids = s->bad_words.ids;
    o->bad_word_sizes = s->bad_words.sizes;
    o->n_bad_words = s->bad_words.n;
    o->bias_ids = s->biased.ids;
    o->bias_sizes = s->biased.sizes;
    o->biases = s->biases;
    o->n_biases = s->biased.n;
    if (s->of_callbacks & 1) o->on_mask = on_mask, o->on_mask_user = s;
    if (s->of_callbacks & 8) o->on_logits = on_logits, o->on_logits_user = s;
}

/* Whether an id may be the step'th new one: what forbids it comes behind all that could force it. */
static void check_id(const settings *s, int64_t id, int64_t step, int64_t vocab) {
    if (id < 0 || id >= vocab) abort();
    if (s->sampling.on_logits) return; /* it may give an id back */
    for (int64_t i = 0; i < s->suppressed.n_ids; i++)
        if (s->suppressed.ids[i] == id) abort();
    for (int64_t i = 0; i < s->begin.n_ids && step == 0; i++)
        if (s->begin.ids[i] == id) abort();
}

static void check_result(const settings *s, const pg_result *result, int64_t most, int has_beams, int64_t vocab) {
    pg_result_info info = {.struct_size = sizeof info};
    pg_tensor ids = {.struct_size = sizeof ids};
    for (int64_t row = 0; row < pg_result_get_n_rows(result); row++) {
        OK(pg_result_get_info(result, row, &info));
        OK(pg_result_get_ids(result, row, &ids));
        if (info.n_new_tokens > most || info.n_new_tokens != ids.shape[0] || info.stop < 1 || info.stop > 7) abort();
        for (int64_t i = 0; i < ids.shape[0] && !has_beams; i++) check_id(s, ((const int64_t *)ids.data)[i], i, vocab);
        if (strlen(pg_result_get_text(result, row)) > 100000) abort();
    }
}

static void use_session(const pg_model *model, const pg_inputs *inputs, const settings *s, int32_t n, int64_t vocab) {
    pg_session_options options;
    pg_session *session = NULL;
    int64_t token = 0;
    pg_session_options_init(&options, sizeof options);
    options.n_threads = 1;
    options.max_new_tokens = n;
    if (MADE(pg_session_create(model, &options, &session), session) && OK(pg_session_prefill(session, inputs, NULL)))
        for (int32_t i = 0; i < n; i++) {
            const pg_status status = pg_session_sample(session, &s->sampling, &token);
            if (!OK(status) || status != PG_OK) break;
            check_id(s, token, i, vocab);
        }
    pg_session_close(&session);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const uint8_t grey[16 * 16];
    fuzz_input in = {data, size};
    pg_generate_options options;
    pg_beam_options beams;
    pg_image image;
    pg_inputs *inputs = NULL;
    pg_result *result = NULL;
    settings s = {0};
    int32_t left = 100;
    if (size > 600) return 0;
    const int how = (int)fuzz_take(&in, 1), flags = (int)fuzz_take(&in, 1);
    const fuzz_folder_kind kind = how & 1 ? FUZZ_TODAY : FUZZ_OFFICIAL;
    const pg_model *model = fuzz_model(kind);
    pg_model_info info = {.struct_size = sizeof info};
    OK(pg_model_get_info(model, &info));
    pg_sampling_options_init(&s.sampling, sizeof s.sampling);
    pg_generate_options_init(&options, sizeof options);
    pg_beam_options_init(&beams, sizeof beams);
    s.sampling.flags = (uint32_t)fuzz_take(&in, 1) & 63;
    s.mask_words = (size_t)(info.vocab_size + 31) / 32;
    s.mask = calloc(s.mask_words, sizeof *s.mask);
    if (!s.mask) abort();
    take_settings(&in, &s);
    give(&s);
    options.sampling = &s.sampling;
    options.flags = (uint32_t)flags & 63;
    options.max_new_tokens = 1 + (how >> 1 & 7);
    options.n_threads = 1;
    options.stop_strings = (const char *const *)s.stops;
    options.n_stop_strings = s.n_stops;
    options.progress = fuzz_progress;
    options.progress_user = &left;
    options.n_return = how & 16 ? 2 : 0;
    options.n_alternatives = how & 32 ? 3 : 0;
    if (how & 64) beams.n_beams = 3, options.beams = &beams;
    if (s.of_callbacks & 4) beams.on_texts = on_texts, beams.on_texts_user = &s;
    int stop = flags >> 6;
    if (flags & 64) options.on_text = on_text, options.on_text_user = &stop;
    pg_image_from_pixels(&image, sizeof image, PG_IMAGE_GRAY8, 16, 16, grey, 0);
    if (MADE(pg_processor_encode(fuzz_processor(kind), &image, s.prompt ? s.prompt : "the cat", NULL, &inputs),
             inputs)) {
        if (how & 128)
            use_session(model, inputs, &s, options.max_new_tokens, info.vocab_size);
        else if (MADE(pg_generate(model, fuzz_processor(kind), inputs, &options, &result), result))
            check_result(&s, result, options.max_new_tokens, how & 64, info.vocab_size);
    }
    pg_result_close(&result);
    pg_inputs_close(&inputs);
    for (int32_t i = 0; i < s.n_stops; i++) free(s.stops[i]);
    free(s.prompt);
    free(s.mask);
    return 0;
}
