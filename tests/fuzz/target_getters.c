/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Structs that the library fills in, with any struct_size: of the getters, and of the _init functions. A byte says
 * which; then come a row, the size (4 bytes), and what stands in the struct before. The memory ends where the size
 * says.
 */
#include "fuzz.h"

static void get(int which, int64_t row, void *out) {
    const pg_model *model = fuzz_model(FUZZ_TODAY);
    const pg_processor *processor = fuzz_processor(FUZZ_TODAY);
    const pg_inputs *inputs = fuzz_inputs(FUZZ_TODAY);
    pg_answer *answer = NULL;
    switch (which) {
        case 0: OK(pg_model_get_info(model, out)); break;
        case 1: OK(pg_model_get_sampling(model, out)); break;
        case 2: OK(pg_model_get_memory(model, out)); break;
        case 3: OK(pg_processor_get_info(processor, out)); break;
        case 4: OK(pg_processor_get_image_settings(processor, out)); break;
        case 5: OK(pg_inputs_get_row_info(inputs, row, out)); break;
        case 6: OK(pg_inputs_get_tensor(inputs, row & 1 ? "input_ids" : "image_sizes", out)); break;
        default: {
            pg_answer_options options;
            pg_answer_options_init(&options, sizeof options);
            options.width = options.height = 10;
            if (MADE(pg_answer_create_from_text("<loc0100> cat", 13, &options, &answer), answer))
                OK(pg_answer_get_object(answer, row, out));
            pg_answer_close(&answer);
        }
    }
}

static void get_of_a_run(int which, int64_t row, void *out) {
    static const char *const answers[] = {"cat", "the dog"};
    pg_generate_options options;
    pg_result *result = NULL;
    pg_scores *scores = NULL;
    pg_generate_options_init(&options, sizeof options);
    options.max_new_tokens = options.n_threads = 1;
    const pg_model *model = fuzz_model(FUZZ_TODAY);
    const pg_processor *processor = fuzz_processor(FUZZ_TODAY);
    const pg_inputs *inputs = fuzz_inputs(FUZZ_TODAY);
    if (which < 3) {
        if (!MADE(pg_generate(model, processor, inputs, &options, &result), result)) return;
        if (which == 0) OK(pg_result_get_info(result, row, out));
        if (which == 1) OK(pg_result_get_ids(result, row, out));
        if (which == 2) OK(pg_result_get_tensor(result, row, "ids", out));
    } else if (MADE(pg_score(model, processor, inputs, answers, 2, NULL, &scores), scores)) {
        if (which == 3) OK(pg_scores_get_info(scores, row, out));
        if (which == 4) OK(pg_scores_get_tensor(scores, row, "log_probs", out));
    }
    pg_result_close(&result);
    pg_scores_close(&scores);
}

static void initialize(int which, size_t size, void *out) {
    switch (which) {
#define INIT(number, type) \
    case number: OK(pg_##type##_init(out, size)); break
        INIT(0, model_options);
        INIT(1, processor_options);
        INIT(2, encode_options);
        INIT(3, sampling_options);
        INIT(4, beam_options);
        INIT(5, generate_options);
        INIT(6, score_options);
        INIT(7, answer_options);
        INIT(8, mask_decoder_options);
        INIT(9, batch);
        INIT(10, input_arrays);
        INIT(11, forward_options);
        INIT(12, run_options);
        INIT(13, session_options);
        INIT(14, convert_options);
        default: OK(pg_tensor_init(out, size)); break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_of_data) {
    fuzz_input in = {data, size_of_data};
    enum { MOST = 1024 /* no struct is as large, nor may a newer one be */ };
    const int which = (int)fuzz_take(&in, 1) % 29;
    const int64_t row = (int8_t)fuzz_take(&in, 1);
    const uint32_t said = (uint32_t)fuzz_take(&in, 4);
    const size_t size = said < sizeof said ? sizeof said : said > MOST ? MOST : said;
    uint8_t *out = calloc(1, size);
    if (!out) abort();
    memcpy(out, in.data, in.size < size ? in.size : size);
    memcpy(out, &said, sizeof said);
    if (which < 8)
        get(which, row, out);
    else if (which < 13)
        get_of_a_run(which - 8, row, out);
    else
        initialize(which - 13, said, out);
    free(out);
    return 0;
}
