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

    PGI_GOTO(pgi_kernels_init(&processor->kernels, options->cpu_mask), fail);
    PGI_GOTO(pgi_hf_cache_find(memory, model, NULL, &folder), fail);
    PGI_GOTO(pgi_image_settings_load(memory, folder, &processor->image), fail);
    PGI_GOTO(pgi_tokenizer_open(memory, folder, options->cancel, &processor->tokenizer), fail);
    pgi_log_line(&processor->log, PG_LOG_INFO, "opened the processor of %s: %lld ids, %d x %d pixels, %d image tokens",
                 folder, (long long)pgi_tokenizer_n_ids(processor->tokenizer), processor->image.width,
                 processor->image.height, processor->image.n_image_tokens);
    if (processor->tokenizer->differs_from_model >= 0)
        pgi_log_line(
            &processor->log, PG_LOG_WARNING,
            "%s: tokenizer.json and tokenizer.model differ from the piece %lld on; tokenizer.json is used, as in "
            "transformers",
            folder, (long long)processor->tokenizer->differs_from_model);
    pgi_free(memory, folder);
    *out = processor;
    return PG_OK;
fail:
    pgi_free(memory, folder);
    processor_free(processor);
    return status;
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
