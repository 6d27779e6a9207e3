/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Answers: four bytes of settings, then the text, which is also made ids of. */
#include "fuzz.h"

static void look(const pg_answer *answer, size_t text_size) {
    pg_object object = {.struct_size = sizeof object};
    const int64_t n = pg_answer_get_n_objects(answer);
    if (pg_answer_get_text(answer) == NULL) abort();
    for (int64_t i = -1; i <= n; i++) {
        const pg_status status = pg_answer_get_object(answer, i, &object);
        fuzz_ok("pg_answer_get_object", status);
        if ((status >= 0) != (i >= 0 && i < n)) abort();
        if (status < 0) continue;
        if (strlen(object.label) > object.label_size || object.text_begin < 0 || object.text_size < 0) abort();
        if ((size_t)(object.text_begin + object.text_size) > text_size) abort();
        if (object.duplicate_of >= n || object.n_locs > 4 || object.n_segs > 16) abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fuzz_input in = {data, size};
    pg_answer_options options;
    pg_answer *answer = NULL;
    pg_answer_options_init(&options, sizeof options);
    options.allocator = fuzz_allocator();
    const uint64_t how = fuzz_take(&in, 1);
    options.flags = how & 1;
    options.convention = how >> 1 & 1;
    options.max_iou = how & 4 ? 0.5f : 0.0f;
    options.width = (int32_t)fuzz_take(&in, 1) * 64;
    options.height = (int32_t)fuzz_take(&in, 2);
    char *text = fuzz_text(in.data, in.size);
    uint8_t *exact = fuzz_bytes(in.data, in.size);
    if (MADE(pg_answer_create_from_text((const char *)exact, in.size, &options, &answer), answer))
        look(answer, in.size);
    pg_answer_close(&answer);
    int64_t ids[256];
    float log_probs[256];
    size_t n = 0;
    const pg_processor *processor = fuzz_processor(how & 8 ? FUZZ_TODAY : FUZZ_OFFICIAL);
    if (OK(pg_processor_tokenize(processor, text, 0, ids, 256, &n)) && n <= 256) {
        for (size_t i = 0; i < n; i++) log_probs[i] = -(float)(i % 7);
        if (how & 16 && n) ids[n / 2] = (int64_t)how * 5;
        if (MADE(pg_answer_create_from_ids(processor, ids, how & 32 ? log_probs : NULL, n, &options, &answer), answer))
            look(answer, strlen(pg_answer_get_text(answer)));
    }
    pg_answer_close(&answer);
    free(text);
    free(exact);
    return fuzz_end();
}
