/* A picture and a prompt to inputs, as HF's PaliGemmaProcessor.__call__ with one text and one image. */
#include "processor/processor.h"

#include <string.h>

#include "checkpoint/hub.h"
#include "processor/layout.h"

static void processor_free(pg_processor *processor) {
    pgi_memory memory = processor->memory;
    pgi_tokenizer_close(&processor->tokenizer);
    pgi_free(&memory, processor);
}

pg_status pgi_processor_open(const pgi_memory *memory, const char *model, const pg_processor_options *options,
                             pg_processor **out) {
    char *folder = NULL;
    pg_status status;
    pg_processor *processor = pgi_alloc_zero(memory, 1, sizeof *processor);
    if (!processor) return PG_ERROR_MEMORY;
    atomic_init(&processor->references, 1);
    processor->memory = *memory;
    memory = &processor->memory; /* the parts keep the pointer: it must live as long as they do */
    processor->log = (pgi_log){options->log, options->log_user};

    PGI_GOTO(pgi_hub_find(memory, model, &folder), fail);
    PGI_GOTO(pgi_image_settings_load(memory, folder, &processor->image), fail);
    PGI_GOTO(pgi_tokenizer_open(memory, folder, &processor->tokenizer), fail);
    pgi_log_line(&processor->log, PG_LOG_INFO, "opened the processor of %s: %lld ids, %d x %d pixels, %d image tokens",
                 folder, (long long)pgi_tokenizer_n_ids(processor->tokenizer), processor->image.width,
                 processor->image.height, processor->image.n_image_tokens);
    pgi_free(memory, folder);
    *out = processor;
    return PG_OK;
fail:
    pgi_free(memory, folder);
    processor_free(processor);
    return status;
}

void pgi_processor_retain(pg_processor *processor) {
    atomic_fetch_add_explicit(&processor->references, 1, memory_order_relaxed);
}

void pgi_processor_release(pg_processor *processor) {
    if (processor && atomic_fetch_sub_explicit(&processor->references, 1, memory_order_acq_rel) == 1)
        processor_free(processor);
}

static pg_status add_ids(const pg_processor *processor, const char *prompt, int literal, pg_inputs *inputs,
                         int32_t *n_images) {
    const pgi_memory *memory = &processor->memory;
    pgi_ids ids;
    pg_status status;
    pgi_ids_init(&ids, memory);
    PGI_GOTO(pgi_layout_prompt(processor->tokenizer, processor->image.n_image_tokens, prompt, literal, &ids, n_images),
             done);
    PGI_GOTO(pgi_inputs_add_rows(inputs, 1, (int64_t)ids.size), done);
    inputs->ids = pgi_inputs_new_numbers(inputs);
    inputs->labels = pgi_inputs_new_numbers(inputs);
    inputs->image_counts = pgi_alloc(memory, 1, sizeof(int64_t));
    if (!inputs->ids || !inputs->labels || !inputs->image_counts) {
        status = PG_ERROR_MEMORY;
        goto done;
    }
    memcpy(inputs->ids, ids.data, ids.size * sizeof(int64_t));
    for (size_t i = 0; i < ids.size; i++) inputs->labels[i] = -100;
    inputs->image_counts[0] = *n_images;
    inputs->rows[0] = (pgi_row){.n_tokens = inputs->n_tokens, .n_images = *n_images};
    pgi_inputs_fill_rows(inputs);
done:
    pgi_ids_free(&ids);
    return status;
}

static pg_status add_pixels(const pg_processor *processor, const pg_image *image, const pg_encode_options *options,
                            pg_inputs *inputs) {
    const pgi_memory *memory = &processor->memory;
    pgi_image_limits limits = {.max_pixels = options->max_image_pixels, .exif = (options->flags & PG_IMAGE_EXIF) != 0};
    pgi_rgb rgb;
    PGI_TRY(pgi_image_read(memory, image, &limits, &rgb));
    pg_status status = pgi_inputs_add_pixels(inputs, 1, processor->image.width, processor->image.height);
    if (status >= 0) status = pgi_image_to_pixels(memory, &processor->image, &rgb, inputs->pixels);
    pgi_rgb_free(memory, &rgb);
    return status;
}

pg_status pgi_processor_encode(const pg_processor *processor, const pg_image *image, const char *prompt,
                               const pg_encode_options *options, pg_inputs **out) {
    int32_t n_images = 0;
    pg_status status;
    pg_inputs *inputs = NULL;
    PGI_TRY(pgi_inputs_new(&processor->memory, &inputs));
    PGI_GOTO(add_ids(processor, prompt, (options->flags & PG_TEXT_LITERAL) != 0, inputs, &n_images), fail);
    if (image) {
        if (n_images != 1) {
            status = pgi_error(PG_ERROR_ARGUMENT,
                               "the prompt has %d `<image>` tokens, expected none or 1 for one picture "
                               "(PG_TEXT_LITERAL takes them as text)", n_images);
            goto fail;
        }
        PGI_GOTO(add_pixels(processor, image, options, inputs), fail);
    }
    *out = inputs;
    return PG_OK;
fail:
    pgi_inputs_release(inputs);
    return status;
}
