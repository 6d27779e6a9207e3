#include "generate/generate.h"

void pgi_result_free(pg_result *result) {
    if (!result) return;
    pgi_memory memory = result->memory;
    pgi_buffer_free(&result->text);
    pgi_ids_free(&result->ids);
    pgi_free(&memory, result);
}

/* Hands the text that appeared since `before` to the host; returns non-zero when it wants to stop. */
static int32_t emit(const pg_generate_options *options, const pgi_buffer *text, size_t before, int64_t token) {
    if (!options->on_text) return 0;
    const char *piece = text->data ? (const char *)text->data + before : "";
    return options->on_text(options->on_text_user, piece, text->size - before, token);
}

static pg_status generate_text(pg_session *session, const pgi_tokenizer *tokenizer, const pg_generate_options *options,
                               pg_result *result) {
    pgi_stream_decoder decoder;
    pg_status status = PG_OK;
    pgi_stream_decoder_init(&decoder, tokenizer, 1);
    for (;;) {
        int64_t token;
        size_t before = result->text.size;
        pg_status event = pgi_session_step(session, &token);
        if (event < 0) {
            status = event;
            goto done;
        }
        if (event == PG_EVENT_LENGTH) {
            result->stop = PG_STOP_LENGTH;
            break;
        }
        PGI_GOTO(pgi_ids_push(&result->ids, token), done);
        PGI_GOTO(pgi_stream_decoder_push(&decoder, token, &result->text), done);
        int32_t wants_stop = emit(options, &result->text, before, token);
        if (event == PG_EVENT_EOS) {
            result->stop = PG_STOP_EOS;
            break;
        }
        if (wants_stop) {
            result->stop = PG_STOP_CALLBACK;
            break;
        }
    }
    size_t before = result->text.size;
    PGI_GOTO(pgi_stream_decoder_flush(&decoder, &result->text), done);
    if (result->text.size > before)
        emit(options, &result->text, before, result->ids.data[result->ids.size - 1]);
    status = PG_OK;
done:
    pgi_stream_decoder_free(&decoder);
    return status;
}

pg_status pgi_generate(pg_model *model, const pg_processor *processor, const pg_inputs *inputs,
                       const pg_generate_options *options, pg_result **out) {
    pg_session_options session_options = {
        .struct_size = sizeof session_options,
        .n_threads = options->n_threads,
        .max_new_tokens = options->max_new_tokens,
        .progress = options->progress,
        .progress_user = options->progress_user,
        .cancel = options->cancel,
    };
    pg_session *session = NULL;
    pg_status status;
    pg_result *result = pgi_alloc_zero(&model->memory, 1, sizeof *result);
    if (!result) return PG_ERROR_MEMORY;
    result->memory = model->memory;
    pgi_buffer_init(&result->text, &result->memory);
    pgi_ids_init(&result->ids, &result->memory);
    result->n_prompt_tokens = inputs->n_tokens;

    PGI_GOTO(pgi_session_create(model, &session_options, &session), done);
    PGI_GOTO(pgi_session_prefill(session, inputs, options->features), done);
    result->encode_seconds = session->encode_seconds;
    result->prefill_seconds = session->prefill_seconds;
    double start = pgi_now();
    PGI_GOTO(generate_text(session, processor->tokenizer, options, result), done);
    result->decode_seconds = pgi_now() - start;
done:
    pgi_session_free(session);
    if (status < 0)
        pgi_result_free(result);
    else
        *out = result;
    return status;
}
