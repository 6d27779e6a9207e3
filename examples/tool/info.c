/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* paligemma info: what a checkpoint is and what it needs. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tool.h"

static const char help[] =
    "usage: paligemma info [options] MODEL\n"
    "\n"
    "Tells the architecture, sizes, dtypes, tokenizer and image settings of a checkpoint, and the memory\n"
    "that a run takes (one image and 64 + 128 tokens, unless --tokens says otherwise).\n"
    "\n"
    "      --json        one line of JSON, with the whole config, defaults filled in\n"
    "      --processor FOLDER  tokenizer and image settings from another folder or model id\n"
    "      --verify      read the whole of a converted folder, compare its checksums, and say that they match\n"
    "      --weights FORMAT  as a run with this option: stored (default), int8 or int4\n"
    "      --int8-layers LIST  likewise: beside int4, what is int8, such as embedding,attention\n"
    "      --adapter FOLDER  likewise: a LoRA adapter of the model, or an id; may be given several times\n"
    "      --arithmetic KIND  likewise: f32 or bf16\n"
    "      --kv KIND          likewise: f32 or bf16, of the KV cache\n"
    "      --in-memory   likewise: the weights are read, not mapped\n"
    "      --tokens N    prompt and new tokens to count memory for, image tokens included\n"
    "  -t, --threads N   threads to count memory for (default: the CPUs this process may use)\n"
    "\n"
    "Exit status: 0 done, 1 failed, 2 wrong usage.\n";

typedef struct facts {
    char *path;
    json_t *config; /* everything, defaults filled in */
    pg_model_info model;
    pg_processor_info processor;
    pg_memory memory;
    const tool_texts *adapters;
    pg_adapter_info of_adapters[TOOL_MAX_TEXTS];
    int verified; /* all checksums were compared; they match, or there would be no model */
} facts;

static const char *const dtype_names[] = {NULL, "f32", "bf16", "f16"};
static const char *const resample_names[] = {"nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"};

/* Whole number of a field such as "num_hidden_layers" of a part of the config; 0 when it is not there. */
static long long field(const facts *f, const char *part, const char *key) {
    return json_integer_value(json_object_get(json_object_get(f->config, part), key));
}

static const char *resample_name(const facts *f) {
    int32_t n = f->processor.resample;
    return n >= 0 && n < (int32_t)(sizeof resample_names / sizeof resample_names[0]) ? resample_names[n] : "unknown";
}

static const char *architecture(const pg_model_info *m) {
    if (m->embedding_dim > 0) return m->gemma_version == 2 ? "ColPali on PaliGemma 2" : "ColPali on PaliGemma";
    return m->gemma_version == 2 ? "PaliGemma 2" : "PaliGemma";
}

static void print_text(const facts *f) {
    const pg_model_info *m = &f->model;
    const pg_processor_info *p = &f->processor;
    char a[32], b[32], c[32];
    long long vision_heads = field(f, "vision_config", "num_attention_heads");
    fputs("folder        ", stdout);
    tool_write_text(f->path, strlen(f->path));
    putchar('\n');
    printf("architecture  %s: SigLIP encoder, Gemma %d decoder\n", architecture(m), (int)m->gemma_version);
    if (m->embedding_dim > 0) printf("embeddings    of %d values for each token\n", (int)m->embedding_dim);
    printf("weights       %.3f million parameters, ", (double)m->n_parameters / 1e6);
    if (m->weights != PG_WEIGHTS_STORED) printf("%s blocks, ", tool_weights_names[m->weights]);
    if (m->weights == PG_WEIGHTS_INT4 && m->n_int8_matrices > 0) printf("%u matrices in int8, ", m->n_int8_matrices);
    tool_print_names(m->dtypes, dtype_names, 4);
    printf("; %u tensors in %u file%s, %s\n", m->n_tensors, m->n_files, m->n_files == 1 ? "" : "s",
           tool_size_text(m->n_bytes_mapped ? m->n_bytes_mapped : f->memory.weights_copied, a));
    for (size_t i = 0; i < f->adapters->n; i++) {
        const pg_adapter_info *of = &f->of_adapters[i];
        fputs("adapter       ", stdout);
        tool_write_text(f->adapters->texts[i], strlen(f->adapters->texts[i]));
        printf(": rank %d, %d modules%s, %.3f million parameters, %s\n", (int)of->rank, (int)of->n_modules,
               of->adapts_images ? ", some of the encoder" : "", (double)of->n_parameters / 1e6,
               tool_size_text(of->n_bytes, a));
    }
    if (f->verified)
        printf("checksums     all %u tensors in %u file%s match\n", m->n_tensors, m->n_files,
               m->n_files == 1 ? "" : "s");
    printf("encoder       %lld layers, hidden %lld, %lld heads of %lld, MLP %lld, patch %lld\n",
           field(f, "vision_config", "num_hidden_layers"), field(f, "vision_config", "hidden_size"), vision_heads,
           vision_heads ? field(f, "vision_config", "hidden_size") / vision_heads : 0,
           field(f, "vision_config", "intermediate_size"), field(f, "vision_config", "patch_size"));
    printf("decoder       %lld layers, hidden %lld, %lld query and %lld KV heads of %lld, MLP %lld, vocabulary %d\n",
           field(f, "text_config", "num_hidden_layers"), field(f, "text_config", "hidden_size"),
           field(f, "text_config", "num_attention_heads"), field(f, "text_config", "num_key_value_heads"),
           field(f, "text_config", "head_dim"), field(f, "text_config", "intermediate_size"), (int)m->vocab_size);
    printf("tokenizer     %d ids; pad %lld, eos %lld, bos %lld, unk %lld, <image> %lld\n", (int)p->vocab_size,
           (long long)p->pad_id, (long long)p->eos_id, (long long)p->bos_id, (long long)p->unk_id,
           (long long)p->image_id);
    printf("image         %d x %d, %s%s; mean %g %g %g, std %g %g %g; %d image tokens\n", (int)p->image_size,
           (int)p->image_size, p->do_resize ? resample_name(f) : "no resize", p->do_normalize ? "" : ", not normalized",
           (double)p->image_mean[0], (double)p->image_mean[1], (double)p->image_mean[2], (double)p->image_std[0],
           (double)p->image_std[1], (double)p->image_std[2], (int)p->n_image_tokens);
    printf("memory        %s mapped from the files and shared between processes; a run of %lld tokens takes %s more:\n",
           tool_size_text(f->memory.weights, a), (long long)f->memory.n_tokens,
           tool_size_text(f->memory.weights_copied + f->memory.activations + f->memory.kv_cache, b));
    printf("              %s copied weights, ", tool_size_text(f->memory.weights_copied, a));
    printf("%s working memory, %s KV cache (%s)\n", tool_size_text(f->memory.activations, b),
           tool_size_text(f->memory.kv_cache, c), tool_kv_names[m->kv]);
    printf("kernels       ");
    tool_print_names(m->cpu_used, tool_cpu_names, tool_n_cpu_names);
    printf("\narithmetic    %s\n", tool_arithmetic_names[m->arithmetic]);
}

static json_t *floats(const float *values, int n) {
    json_t *list = json_array();
    for (int i = 0; i < n; i++) json_array_append_new(list, json_real((double)values[i]));
    return list;
}

/* NULL: none, and no key. */
static json_t *adapters_json(const facts *f) {
    json_t *list = f->adapters->n > 0 ? json_array() : NULL;
    for (size_t i = 0; i < f->adapters->n; i++) {
        const pg_adapter_info *of = &f->of_adapters[i];
        json_array_append_new(
            list, json_pack("{s:s, s:i, s:i, s:I, s:I, s:b}", "path", f->adapters->texts[i], "rank", (int)of->rank,
                            "n_modules", (int)of->n_modules, "n_parameters", (json_int_t)of->n_parameters, "n_bytes",
                            (json_int_t)of->n_bytes, "adapts_images", (int)of->adapts_images));
    }
    return list;
}

static json_t *make_json(const facts *f) {
    const pg_model_info *m = &f->model;
    const pg_processor_info *p = &f->processor;
    json_t *tokenizer =
        json_pack("{s:i, s:I, s:I, s:I, s:I, s:I}", "vocab_size", (int)p->vocab_size, "pad_id", (json_int_t)p->pad_id,
                  "eos_id", (json_int_t)p->eos_id, "bos_id", (json_int_t)p->bos_id, "unk_id", (json_int_t)p->unk_id,
                  "image_id", (json_int_t)p->image_id);
    json_t *image =
        json_pack("{s:i, s:i, s:s, s:f, s:o, s:o, s:b, s:b, s:b}", "size", (int)p->image_size, "tokens",
                  (int)p->n_image_tokens, "resample", resample_name(f), "rescale_factor", p->rescale_factor, "mean",
                  floats(p->image_mean, 3), "std", floats(p->image_std, 3), "do_resize", (int)p->do_resize,
                  "do_rescale", (int)p->do_rescale, "do_normalize", (int)p->do_normalize);
    json_t *memory =
        json_pack("{s:I, s:I, s:I, s:I, s:I}", "n_tokens", (json_int_t)f->memory.n_tokens, "weights",
                  (json_int_t)f->memory.weights, "weights_copied", (json_int_t)f->memory.weights_copied, "activations",
                  (json_int_t)f->memory.activations, "kv_cache", (json_int_t)f->memory.kv_cache);
    json_t *verified = f->verified ? json_true() : NULL; /* no key unless it was asked for */
    return json_pack(
        "{s:s, s:s, s:i, s:i, s:I, s:s, s:i, s:s, s:s, s:o, s:i, s:i, s:I, s:i, s:o, s:o, s:o, s:o, s:O, s:s, s:o*, "
        "s:o*}",
        "path", f->path, "architecture", architecture(m), "embedding_dim", (int)m->embedding_dim, "gemma_version",
        (int)m->gemma_version, "n_parameters", (json_int_t)m->n_parameters, "weights", tool_weights_names[m->weights],
        "n_int8_matrices", (int)m->n_int8_matrices, "arithmetic", tool_arithmetic_names[m->arithmetic], "kv",
        tool_kv_names[m->kv], "dtypes", tool_names_json(m->dtypes, dtype_names, 4), "n_tensors", (int)m->n_tensors,
        "n_files", (int)m->n_files, "n_bytes_mapped", (json_int_t)m->n_bytes_mapped, "vocab_size", (int)m->vocab_size,
        "kernels", tool_names_json(m->cpu_used, tool_cpu_names, tool_n_cpu_names), "tokenizer", tokenizer, "image",
        image, "memory", memory, "config", f->config, "version", pg_version_string(), "verified", verified, "adapters",
        adapters_json(f));
}

/* Text that a call copies out, asked for its size first; malloc'ed. */
static char *find_path(const char *model, pg_status *status) {
    size_t needed = 0;
    *status = pg_checkpoint_find(model, NULL, NULL, 0, &needed);
    char *text = *status < 0 ? NULL : malloc(needed);
    if (text) *status = pg_checkpoint_find(model, NULL, text, needed, NULL);
    return text;
}

static json_t *load_config(const pg_model *model, pg_status *status) {
    size_t needed = 0;
    *status = pg_model_get_config(model, "", NULL, 0, &needed);
    char *text = *status < 0 ? NULL : malloc(needed);
    if (text) *status = pg_model_get_config(model, "", text, needed, NULL);
    json_t *config = text && *status >= 0 ? json_loads(text, 0, NULL) : NULL;
    free(text);
    return config;
}

static int info(const tool_verb *verb, int argc, char **argv) {
    int json = 0, verify = 0;
    const char *name, *processor_folder = NULL;
    int64_t n_tokens = 0;
    tool_shared shared;
    const tool_option options[] = {
        {.name = "--json", .flag = &json},
        {.name = "--verify", .flag = &verify},
        {.name = "--processor", .text = &processor_folder},
        {.name = "--tokens", .number = &n_tokens, .least = 1, .most = INT32_MAX},
    };
    int exit_status = tool_parse(verb, argc, argv, options, sizeof options / sizeof options[0], &name, &shared);
    if (exit_status >= 0) return exit_status;

    pg_model *model = NULL;
    pg_processor *processor = NULL;
    tool_stage stage = TOOL_STAGE_MODEL;
    facts f;
    memset(&f, 0, sizeof f);
    f.model.struct_size = sizeof f.model;
    f.processor.struct_size = sizeof f.processor;
    f.memory.struct_size = sizeof f.memory;
    f.memory.n_tokens = n_tokens;
    f.memory.n_threads = shared.n_threads;
    pg_status status;
    f.path = find_path(name, &status);
    tool_progress progress;
    pg_model_options model_options = shared.model;
    tool_progress_init(&progress);
    if (verify) model_options.flags |= PG_MODEL_VERIFY;
    f.verified = verify;
    model_options.progress = tool_progress_update;
    model_options.progress_user = &progress;
    tool_log log = {.progress = &progress};
    pg_processor_options processor_options;
    pg_processor_options_init(&processor_options, sizeof processor_options);
    model_options.log = processor_options.log = tool_log_line;
    model_options.log_user = processor_options.log_user = &log;
    f.adapters = &shared.adapters;
    if (status >= 0) status = pg_model_open(name, &model_options, &model);
    if (status >= 0) status = tool_add_adapters(f.adapters, NULL, f.of_adapters, &model);
    tool_progress_clear(&progress);
    if (status >= 0) {
        status = tool_open_processor(name, processor_folder, &processor_options, &processor, &stage);
        if (status >= 0) stage = TOOL_STAGE_MODEL;
    }
    if (status >= 0) status = pg_model_get_info(model, &f.model);
    if (!n_tokens) f.memory.n_tokens = f.model.n_image_tokens + 64 + 128;
    if (status >= 0) status = pg_model_get_memory(model, &f.memory);
    if (status >= 0) status = pg_processor_get_info(processor, &f.processor);
    if (status >= 0) f.config = load_config(model, &status);
    if (status < 0) {
        exit_status = tool_fail(status, stage);
    } else if (!f.path || !f.config) {
        exit_status = tool_fail_text("no memory");
    } else if (json) {
        exit_status = tool_print_json(make_json(&f));
    } else {
        print_text(&f);
        exit_status = tool_close_stdout();
    }
    json_decref(f.config);
    free(f.path);
    pg_processor_close(&processor);
    pg_model_close(&model);
    return exit_status;
}

const tool_verb tool_info = {"info", help, 1, TOOL_OPTIONS_MODEL | TOOL_OPTIONS_THREADS, info};
