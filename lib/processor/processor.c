/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Opening and closing: the tokenizer and the image settings of a checkpoint. */
#include "processor/processor.h"

#include "checkpoint/hf_cache.h"
#include "tokenizer/tokenizer_load.h"

static void processor_free(pg_processor *processor) {
    pgi_memory memory = processor->memory;
    pgi_tokenizer_close(&processor->tokenizer);
    pgi_free(&memory, processor);
}

pg_status pgi_processor_needs_text(const pg_processor *processor) {
    if (processor->tokenizer) return PG_OK;
    return pgi_error(PG_ERROR_ARGUMENT,
                     "the processor was opened with PG_PROCESSOR_IMAGES_ONLY, so it has no tokenizer");
}

pg_status pgi_processor_needs_images(const pg_processor *processor) {
    if (!(processor->flags & PG_PROCESSOR_TEXT_ONLY)) return PG_OK;
    return pgi_error(
        PG_ERROR_ARGUMENT,
        "found an image, expected none: the processor was opened with PG_PROCESSOR_TEXT_ONLY, so it has no "
        "image settings");
}

static pg_status log_opened(const pg_processor *processor, const char *folder) {
    const int has_text = processor->tokenizer != NULL;
    PGI_TRY(pgi_log_line(&processor->log, PG_LOG_INFO,
                         "opened the processor of %s: %lld ids, %d x %d pixels, %d image tokens", folder,
                         has_text ? (long long)pgi_tokenizer_n_ids(processor->tokenizer) : 0, processor->image.width,
                         processor->image.height, processor->image.n_image_tokens));
    if (!has_text || processor->tokenizer->differs_from_model < 0) return PG_OK;
    return pgi_log_line(&processor->log, PG_LOG_WARNING,
                        "%s: tokenizer.json and tokenizer.model differ from the piece %lld on; tokenizer.json is used, "
                        "as in transformers",
                        folder, (long long)processor->tokenizer->differs_from_model);
}

/* The parts that the flags ask for; model NULL: defaults. */
static pg_status open_parts(pg_processor *processor, const char *model, const pg_cancel *cancel) {
    const pgi_memory *memory = &processor->memory; /* the parts keep the pointer: it must live as long as they do */
    const uint32_t flags = processor->flags;
    const int images_only = (flags & PG_PROCESSOR_IMAGES_ONLY) != 0;
    char *folder = NULL;
    pg_status status = PG_OK;
    if (!model) {
        pgi_image_settings_default(&processor->image);
        return PG_OK;
    }
    PGI_TRY(pgi_hf_cache_find(memory, model, NULL, &folder));
    if (!(flags & PG_PROCESSOR_TEXT_ONLY))
        PGI_GOTO(pgi_image_settings_load(memory, folder, images_only, &processor->image), done);
    if (!images_only) {
        PGI_GOTO(pgi_tokenizer_open(memory, folder, flags, cancel, &processor->tokenizer), done);
        if (!pgi_bpe_uses_sentencepiece(processor->tokenizer->bpe)) processor->flags &= ~PG_PROCESSOR_SENTENCEPIECE;
    }
    status = log_opened(processor, folder);
done:
    pgi_free(memory, folder);
    return status;
}

pg_status pgi_processor_open(const pgi_memory *memory, const char *model, const pg_processor_options *options,
                             pg_processor **out) {
    pg_status status;
    pg_processor *processor = pgi_alloc_zero(memory, 1, sizeof *processor);
    if (!processor) return PG_ERROR_MEMORY;
    atomic_init(&processor->references, 1);
    processor->memory = *memory;
    processor->flags = options->flags;
    processor->log = (pgi_log){options->log, options->log_user};
    status = pgi_kernels_init(&processor->kernels, options->cpu_mask);
    if (status >= 0) status = open_parts(processor, model, options->cancel);
    if (status < 0) {
        processor_free(processor);
        return status;
    }
    *out = processor;
    return PG_OK;
}

pg_processor *pgi_processor_retain(const pg_processor *processor) {
    pg_processor *counted = (pg_processor *)(uintptr_t)processor;
    atomic_fetch_add_explicit(&counted->references, 1, memory_order_relaxed);
    return counted;
}

void pgi_processor_release(pg_processor *processor) {
    if (processor && atomic_fetch_sub_explicit(&processor->references, 1, memory_order_acq_rel) == 1)
        processor_free(processor);
}
