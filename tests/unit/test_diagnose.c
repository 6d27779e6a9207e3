/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* lib/checkpoint/diagnose.h: files and folders that do not fit are named for what they are, with what to do. */
#include "run_tests.h"

#include "checkpoint/config.h"
#include "checkpoint/hf_cache.h"
#include "checkpoint/json.h"
#include "checkpoint/weights.h"
#include "checkpoint_files.h"
#include "tokenizer/tokenizer_load.h"

static const char lfs[] =
    "version https://git-lfs.github.com/spec/v1\n"
    "oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 4955319000\n";
static const char html[] = "\n <!DOCTYPE HTML><html><head><title>Sign in</title></head></html>";

/* Config, files and weights of the folder, as a model is opened. */
static pg_status open_model(void) {
    pgi_run run = {.n_threads = 1};
    pgi_config config;
    pgi_tensor_files *files = NULL;
    pgi_weights weights = {0};
    pg_status status = pgi_config_load(MEMORY, folder, &config);
    if (status < 0) return status;
    status = pgi_tensor_files_open(MEMORY, folder, 0, NULL, &files);
    if (status >= 0) status = pgi_weights_bind(MEMORY, &run, &config, files, PG_WEIGHTS_STORED, &weights);
    pgi_weights_free(&weights);
    pgi_tensor_files_close(&files);
    pgi_config_free(&config);
    return status;
}

static pg_status open_tokenizer(void) {
    pgi_tokenizer *tokenizer = NULL;
    pg_status status = pgi_tokenizer_open(MEMORY, folder, 0, NULL, &tokenizer);
    pgi_tokenizer_close(&tokenizer);
    return status;
}

/* One tensor of f32 under a name, the only one of its file. */
static void write_tensor(const char *name, const char *shape, size_t n) {
    static uint8_t data[1 << 20];
    char header[512];
    size_t size =
        (size_t)snprintf(header, sizeof header, "{\"%s\":{\"dtype\":\"F32\",\"shape\":%s,\"data_offsets\":[0,%zu]}}",
                         name, shape, 4 * n);
    for (int i = 0; i < 8; i++) data[i] = (uint8_t)((uint64_t)size >> 8 * i);
    memcpy(data + 8, header, size);
    assert_true(8 + size + 4 * n <= sizeof data);
    write_bytes("model.safetensors", data, 8 + size + 4 * n);
}

/* The whole message: what it is, and what to do behind the semicolon. */
static void assert_whole(pg_status found, pg_status expected, const char *name, const char *rest) {
    char wanted[1024];
    snprintf(wanted, sizeof wanted, "%s%s%s: %s", folder, *name ? "/" : "", name, rest);
    if (found != expected) fail_msg("found %s (%s)", pg_status_name(found), pgi_error_text());
    assert_string_equal(pgi_error_text(), wanted);
}

static void files_that_are_something_else(void **state) {
    (void)state;
    static const struct {
        const char *bytes;
        size_t size;
        pg_status status;
        const char *first, *second;
    } cases[] = {
#define BYTES(text) text, sizeof text - 1
        {BYTES(lfs), PG_ERROR_FORMAT, "Git LFS pointer", "git lfs pull"},
        {BYTES(html), PG_ERROR_FORMAT, "an HTML page", "/resolve/"},
        {BYTES("GGUF\3\0\0\0\0\0\0\0\0\0\0\0"), PG_ERROR_UNSUPPORTED, "GGUF", "give the folder"},
        {BYTES("PK\3\4\0\0\10\10\0\0\0\0\0\0"), PG_ERROR_UNSUPPORTED, "a ZIP archive", "save_pretrained"},
        {BYTES("\x80\2}q\0(X\0\0\0\0\0\0"), PG_ERROR_UNSUPPORTED, "pickled", "save_pretrained"},
        {BYTES("\x93NUMPY\1\0v\0{'descr'"), PG_ERROR_UNSUPPORTED, "NumPy", NULL},
        {BYTES("\x89HDF\r\n\032\n12345678"), PG_ERROR_UNSUPPORTED, "HDF5", NULL},
        {BYTES("\x1F\x8B\10\0\0\0\0\0\0\3abc"), PG_ERROR_UNSUPPORTED, "gzip", "unpack"},
        {BYTES("\xEF\xBB\xBF{\"model_type\":\"x\"}"), PG_ERROR_FORMAT, "byte order mark", "without one"},
        {BYTES("\xFF\xFE{\0\"\0m\0o\0d\0"), PG_ERROR_FORMAT, "UTF-16", "UTF-8"},
#undef BYTES
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        write_bytes("config.json", cases[i].bytes, cases[i].size);
        assert_error(open_model(), cases[i].status, cases[i].first, in_folder("config.json"));
        if (cases[i].second) assert_message(cases[i].second);
        write_config(1, "", "");
        write_bytes("model.safetensors", cases[i].bytes, cases[i].size);
        assert_error(open_model(), cases[i].status, cases[i].first, in_folder("model.safetensors"));
        delete_file("model.safetensors");
        write_text("model.safetensors.index.json", "{\"weight_map\":{\"a\":\"x.safetensors\"}}");
        write_bytes("x.safetensors", cases[i].bytes, cases[i].size);
        assert_error(open_model(), cases[i].status, cases[i].first, in_folder("x.safetensors"));
        write_bytes("model.safetensors.index.json", cases[i].bytes, cases[i].size);
        assert_error(open_model(), cases[i].status, cases[i].first, "index.json");
        delete_file("model.safetensors.index.json");
        write_bytes("tokenizer.json", cases[i].bytes, cases[i].size);
        assert_error(open_tokenizer(), cases[i].status, cases[i].first, in_folder("tokenizer.json"));
        delete_file("tokenizer.json");
        write_bytes("tokenizer.model", cases[i].bytes, cases[i].size);
        assert_error(open_tokenizer(), cases[i].status, cases[i].first, in_folder("tokenizer.model"));
        write_bytes("tokenizer_config.json", cases[i].bytes, cases[i].size);
        assert_error(open_tokenizer(), cases[i].status, cases[i].first, in_folder("tokenizer_config.json"));
        delete_file("tokenizer_config.json");
        delete_file("tokenizer.model");
    }
    /* What is merely damaged keeps its place in the message. */
    write_text("config.json", "{\"model_type\":");
    assert_error(open_model(), PG_ERROR_FORMAT, "line 1", "not valid JSON");
    write_text("config.json", "");
    assert_error(open_model(), PG_ERROR_FORMAT, "not valid JSON", NULL);
}

static void the_pointer_of_lfs_word_for_word(void **state) {
    (void)state;
    write_config(1, "", "");
    write_text("model.safetensors", lfs);
    assert_whole(open_model(), PG_ERROR_FORMAT, "model.safetensors",
                 "found a Git LFS pointer instead of the file; fetch the file with 'git lfs pull'");
}

static void adapters_name_their_base(void **state) {
    (void)state;
    static const char what_to_do[] =
        "open the model that it was trained on and add it (pg_adapter_open()), or write both into one folder with "
        "pg_model_convert()";
    char text[512];
    write_text("adapter_config.json",
               "{\"peft_type\":\"LORA\",\"base_model_name_or_path\":\"google/paligemma-3b-pt-224\"}");
    write_text("tokenizer.json", "{}");
    snprintf(text, sizeof text, "found a PEFT adapter of google/paligemma-3b-pt-224, which is no model by itself; %s",
             what_to_do);
    assert_whole(open_model(), PG_ERROR_UNSUPPORTED, "", text); /* no config.json */
    write_config(1, "", "");
    assert_whole(open_model(), PG_ERROR_UNSUPPORTED, "", text); /* no weights */
    snprintf(text, sizeof text, "found a PEFT adapter, which is no model by itself; %s", what_to_do);
    for (int i = 0; i < 4; i++) {
        static const char *const without[] = {"{}", "{\"base_model_name_or_path\":null}", "", "[1"};
        write_text("adapter_config.json", without[i]);
        assert_whole(open_model(), PG_ERROR_UNSUPPORTED, "", text);
    }
    delete_file("adapter_config.json");
    write_text("adapter_model.safetensors", "x");
    assert_whole(open_model(), PG_ERROR_UNSUPPORTED, "", text);
}

static void folders_of_other_formats(void **state) {
    (void)state;
    static const struct {
        const char *name, *first, *second;
    } cases[] = {
        {"paligemma-3b.Q4_K_M.gguf", "a GGUF file (paligemma-3b.Q4_K_M.gguf)", "give the folder"},
        {"pt_224.npz", "big_vision checkpoint (pt_224.npz)", "convert_paligemma_weights_to_hf.py"},
        {"zero_to_fp32.py", "a checkpoint of DeepSpeed", "zero_to_fp32.py"},
        {"pytorch_model.bin", "pickled weights (pytorch_model.bin)", "save_pretrained"},
        {"pytorch_model.bin.index.json", "pickled weights (pytorch_model.bin)", "save_pretrained"},
        {"tf_model.h5", "TensorFlow", NULL},
        {"flax_model.msgpack", "Flax", NULL},
        {"last.ckpt", "Lightning (last.ckpt)", NULL},
        {"model.pth", "pickled weights (model.pth)", NULL},
        {"model.pt", "pickled weights (model.pt)", NULL},
        {"snapshots", "a repository of the hub cache", "ORG/NAME"},
        {"checkpoint-500", "output folder of a Trainer", "checkpoint-500"},
    };
    for (int with_config = 0; with_config < 2; with_config++) {
        if (with_config) write_config(2, "", "");
        assert_error(open_model(), PG_ERROR_NOT_FOUND, with_config ? "neither model.safetensors nor" : "config.json",
                     NULL);
        for (size_t i = 0; i < COUNT(cases); i++) {
            write_text(cases[i].name, "x");
            assert_error(open_model(), PG_ERROR_UNSUPPORTED, cases[i].first, folder);
            if (cases[i].second) assert_message(cases[i].second);
            delete_file(cases[i].name);
        }
    }
    /* Of several, the one that tells more; of several of a kind, the first by name. */
    write_text("checkpoint-500", "x");
    write_text("b.gguf", "x");
    write_text("a.gguf", "x");
    write_text("c.gguf", "x");
    assert_error(open_model(), PG_ERROR_UNSUPPORTED, "(a.gguf)", NULL);
}

static void configs_of_others(void **state) {
    (void)state;
    static const struct {
        const char *extra, *first, *second;
    } cases[] = {
        {"\"quantization\":{\"group_size\":64,\"bits\":4},", "MLX quantized to 4 bits", "give the folder"},
        {"\"quantization\":{},\"quantization_config\":{\"bits\":4},", "MLX quantized,", "give the folder"},
        {"\"quantization_config\":{\"quant_method\":\"bitsandbytes\"},", "quantized by \"bitsandbytes\"",
         "give the folder"},
        {"\"quantization_config\":{\"quant_method\":\"gptq\"},", "quantized by \"gptq\"", "give the folder"},
        {"\"quantization_config\":{\"quant_method\":\"awq\"},", "quantized by \"awq\"", "give the folder"},
        {"\"quantization_config\":{\"bits\":4},", "an unknown method", "quantization_config"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        write_config(1, "", cases[i].extra);
        assert_error(open_model(), PG_ERROR_UNSUPPORTED, cases[i].first, cases[i].second);
    }
    write_config(1, "", "\"quantization_config\":null,");
    assert_error(open_model(), PG_ERROR_NOT_FOUND, "neither model.safetensors", NULL);
    static const char *const types[][2] = {
        {"pi0", "a pi0 policy"}, {"gemma2", "a language model alone"}, {"llava", "expected \"paligemma\""}};
    for (size_t i = 0; i < COUNT(types); i++) {
        char text[64];
        snprintf(text, sizeof text, "{\"model_type\":\"%s\"}", types[i][0]);
        write_text("config.json", text);
        assert_error(open_model(), PG_ERROR_UNSUPPORTED, types[i][0], types[i][1]);
    }
}

static void tensors_of_others(void **state) {
    (void)state;
    static const struct {
        const char *name, *first, *second;
    } cases[] = {
        {"_orig_mod.language_model.model.embed_tokens.weight", "torch.compile", "_orig_mod"},
        {"model._orig_mod.language_model.embed_tokens.weight", "torch.compile", "save_pretrained"},
        {"paligemma_with_expert.paligemma.language_model.lm_head.weight", "pi0", "give a PaliGemma"},
        {"model.paligemma_with_expert.gemma_expert.lm_head.weight", "pi0", NULL},
        {"vlm.model.language_model.embed_tokens.weight", "ColPali", "model_type \"colpali\""},
        {"module.language_model.model.embed_tokens.weight", "DataParallel", ".module"},
        {"_fsdp_wrapped_module.lm_head.weight", "FSDP", NULL},
        {"_forward_module.lm_head.weight", "Lightning", NULL},
        {"params/img/embedding/kernel", "big_vision", "convert_paligemma"},
        {"base_model.model.lm_head.weight", "PEFT", "merge_and_unload"},
        {"base_model.model.model.layers.0.lora_A.weight", "LoRA", "merge_and_unload"},
    };
    write_config(1, "", "");
    for (size_t i = 0; i < COUNT(cases); i++) {
        write_tensor(cases[i].name, "[2,3]", 6);
        assert_error(open_model(), PG_ERROR_UNSUPPORTED, cases[i].first, cases[i].name);
        if (cases[i].second) assert_message(cases[i].second);
    }
    write_tensor("some.other_module.weight", "[2,3]", 6); /* "module." within a word is none */
    assert_error(open_model(), PG_ERROR_NOT_FOUND, "embed_tokens.weight: found under none of its names",
                 "expected [any, 24]");
    write_tensor("language_model.model.embed_tokens.weight", "[0]", 0);
    assert_error(open_model(), PG_ERROR_UNSUPPORTED, "1 of 1 tensors without contents", "zero_to_fp32.py");
    write_tensor("vision_tower.vision_model.embeddings.patch_embedding.weight", "[16,3,14,14]", 16 * 14 * 14 * 3);
    assert_error(open_model(), PG_ERROR_NOT_FOUND, "found under none of its names", NULL);
}

/* A hub cache of which blobs were removed: an error for every file, be it one that may be absent. */
static void links_that_lead_nowhere(void **state) {
    (void)state;
    static const char *const of_model[] = {"config.json", "model.safetensors", "model.safetensors.index.json",
                                           "generation_config.json"};
    static const char *const of_tokenizer[] = {"tokenizer.json", "tokenizer.model", "tokenizer_config.json",
                                               "special_tokens_map.json", "added_tokens.json"};
    for (size_t i = 0; i < COUNT(of_model); i++) {
        if (i > 0) write_config(1, "", "");
        assert_int_equal(symlink("../../blobs/4d7a21", in_folder(of_model[i])), 0);
        assert_whole(open_model(), PG_ERROR_NOT_FOUND, of_model[i],
                     "found a link to ../../blobs/4d7a21, which is not there; download the file again (a part of the "
                     "cache was removed)");
        delete_file(of_model[i]);
    }
    for (size_t i = 0; i < COUNT(of_tokenizer); i++) {
        if (i > 1) write_text("tokenizer.model", "x");
        assert_int_equal(symlink("../../blobs/4d7a21", in_folder(of_tokenizer[i])), 0);
        assert_error(open_tokenizer(), PG_ERROR_NOT_FOUND, in_folder(of_tokenizer[i]), "a link to ../../blobs/4d7a21");
        delete_file(of_tokenizer[i]);
    }
    delete_file("config.json");
    assert_int_equal(symlink("config.json", in_folder("config.json")), 0); /* a loop */
    assert_error(open_model(), PG_ERROR_IO, in_folder("config.json"), "cannot open");
}

static void paths_that_are_none(void **state) {
    (void)state;
    char *path;
    pgi_buffer buffer;
    static const char *const urls[] = {"https://huggingface.co/google/paligemma-3b-pt-224", "http://x/y", "s3://a/b",
                                       "hf://google/x"};
    for (size_t i = 0; i < COUNT(urls); i++) {
        assert_error(pgi_hf_cache_find(MEMORY, urls[i], NULL, &path), PG_ERROR_NOT_FOUND, urls[i], "found a URL");
        assert_message("hf download");
        pgi_buffer_init(&buffer, MEMORY);
        assert_error(pgi_file_read(urls[i], 10, &buffer), PG_ERROR_NOT_FOUND, urls[i], "download it first");
        pgi_buffer_free(&buffer);
    }
    assert_false(pgi_path_is_url("C:/x") || pgi_path_is_url("://x") || pgi_path_is_url("a b://x") ||
                 pgi_path_is_url(""));
    write_text("model.gguf", "GGUF\3");
    assert_error(pgi_hf_cache_find(MEMORY, in_folder("model.gguf"), NULL, &path), PG_ERROR_UNSUPPORTED, "GGUF",
                 "model.gguf");
    write_text("pt_224.npz", "PK\3\4");
    assert_error(pgi_hf_cache_find(MEMORY, in_folder("pt_224.npz"), NULL, &path), PG_ERROR_UNSUPPORTED, "big_vision",
                 "convert_paligemma_weights_to_hf.py");
    write_text("plain", "text");
    assert_error(pgi_hf_cache_find(MEMORY, in_folder("plain"), NULL, &path), PG_ERROR_ARGUMENT, "found a file", NULL);
}

int main(int argc, char **argv) {
#define TEST(function) cmocka_unit_test_setup_teardown(function, make_folder, remove_folder)
    const struct CMUnitTest tests[] = {
        TEST(files_that_are_something_else),
        TEST(the_pointer_of_lfs_word_for_word),
        TEST(adapters_name_their_base),
        TEST(folders_of_other_formats),
        TEST(configs_of_others),
        TEST(tensors_of_others),
        TEST(links_that_lead_nowhere),
        TEST(paths_that_are_none),
    };
#undef TEST
    return RUN_TESTS(tests, NULL, NULL);
}
