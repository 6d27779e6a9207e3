/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Generates token by token: session_loop MODEL IMAGE PROMPT */
#include <stdio.h>

#include <paligemma/paligemma.h>

/* Prints the text that follows the prompt. Negative: what failed. */
static pg_status answer(pg_session *session, const pg_inputs *inputs, pg_detokenizer *detokenizer) {
    pg_status status = pg_session_prefill(session, inputs, NULL), event = PG_OK;
    while (status >= 0 && event == PG_OK) {
        const char *text = "";
        int64_t token;
        event = pg_session_step(session, &token); /* PG_OK: a token of the text. An event: the text is complete */
        if (event < 0) return event;
        status = event == PG_OK ? pg_detokenizer_push(detokenizer, token, &text, NULL) /* never half a character */
                                : pg_detokenizer_flush(detokenizer, &text, NULL);
        if (status >= 0) fputs(text, stdout);
        fflush(stdout);
    }
    return status;
}

int main(int argc, char **argv) {
    pg_model *model = NULL;
    pg_processor *processor = NULL;
    pg_inputs *inputs = NULL;
    pg_session *session = NULL;
    pg_detokenizer *detokenizer = NULL;
    pg_image image;
    int failed = argc != 4 || pg_model_open(argv[1], NULL, &model) < 0 ||
                 pg_processor_open(argv[1], NULL, &processor) < 0 ||
                 pg_image_from_path(&image, sizeof image, argv[2]) < 0 ||
                 pg_processor_encode(processor, &image, argv[3], NULL, &inputs) < 0 ||
                 pg_session_create(model, NULL, &session) < 0 ||
                 pg_detokenizer_create(processor, PG_DECODE_SKIP_SPECIAL, &detokenizer) < 0 ||
                 answer(session, inputs, detokenizer) < 0;
    if (failed)
        fprintf(stderr, "session_loop: %s\n", argc == 4 ? pg_last_error() : "usage: session_loop MODEL IMAGE PROMPT");
    else
        puts("");
    pg_detokenizer_close(&detokenizer);
    pg_session_close(&session);
    pg_inputs_close(&inputs);
    pg_processor_close(&processor);
    pg_model_close(&model);
    return failed;
}
