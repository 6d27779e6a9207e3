/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes the first seeds of the fuzz targets: make_seeds FOLDER. They are what sound files and plain hosts look like;
 * what the fuzzer found beside them has names that begin with "found-".
 */
#include <stdio.h>
#include <sys/stat.h>

#include "fuzz.h"
#include "mask_files.h"
#include "tiny_adapter.h"
#include "train_state.h"

static const char *top;

static void seed(const char *target, const char *name, const char *before, const void *data, size_t size) {
    char folder[600];
    bytes b = {0};
    snprintf(folder, sizeof folder, "%s/%s", top, target);
    mkdir(top, 0777);
    mkdir(folder, 0777);
    bytes_text(&b, before);
    bytes_add(&b, data, size);
    write_file(folder, name, b.data, b.size);
    bytes_free(&b);
}

static void seed_text(const char *target, const char *name, const char *text) {
    seed(target, name, "", text, strlen(text));
}

/* A file of a folder, behind a letter. */
static void seed_file(const char *target, const char *name, const char *letter, const char *folder, const char *file) {
    if (!has_file(folder, file)) return;
    bytes b = read_file(folder, file);
    seed(target, name, letter, b.data, b.size);
    bytes_free(&b);
}

/* The JSON header of a safetensors file. */
static void seed_header(const char *target, const char *name, const char *letter, const bytes *file) {
    uint64_t size;
    memcpy(&size, file->data, 8);
    seed(target, name, letter, file->data + 8, size);
}

static void seed_folders(const char *const *folder) {
    seed_file("config", "config", "c", folder[FUZZ_OFFICIAL], "config.json");
    seed_file("config", "config-gemma2", "t", folder[FUZZ_TODAY], "config.json");
    seed_file("config", "config-colpali", "v", folder[FUZZ_COLPALI], "config.json");
    seed_file("config", "generation", "g", folder[FUZZ_OFFICIAL], "generation_config.json");
    seed_text("config", "generation-more",
              "g{\"eos_token_id\": [1, 2], \"suppress_tokens\": [5, 6], \"forced_bos_token_id\": 2, \"bad_words_ids\": "
              "[[8, 9]], \"sequence_bias\": [[[9], 1.5]], \"stop_strings\": [\"x\"], \"do_sample\": true, \"top_p\": "
              "0.5, \"num_beams\": 2, \"early_stopping\": \"never\", \"exponential_decay_length_penalty\": [3, 1.1]}");
    seed_text("config", "generation-beams",
              "G{\"num_beams\": 2, \"length_penalty\": 0.5, \"num_return_sequences\": 2, \"max_new_tokens\": 2, "
              "\"forced_eos_token_id\": [1], \"begin_suppress_tokens\": [4], \"no_repeat_ngram_size\": 2, "
              "\"min_length\": 3, \"repetition_penalty\": 1.2, \"remove_invalid_values\": true, \"max_time\": 9}");
    seed_text("config", "generation-drawn",
              "G{\"do_sample\": true, \"temperature\": 0.7, \"top_k\": 5, \"min_p\": 0.01, \"typical_p\": 0.9, "
              "\"epsilon_cutoff\": 0.001, \"eta_cutoff\": 0.001, \"top_h\": 0.5, \"renormalize_logits\": true, "
              "\"max_length\": 30, \"min_new_tokens\": 1, \"guidance_scale\": 2, \"eos_token_id\": 1}");
    seed_file("config", "index", "i", folder[FUZZ_TODAY], "model.safetensors.index.json");
    seed_file("config", "preprocessor", "p", folder[FUZZ_OFFICIAL], "preprocessor_config.json");
    seed_file("config", "processor", "P", folder[FUZZ_TODAY], "processor_config.json");
    seed_file("config", "tokenizer", "k", folder[FUZZ_OFFICIAL], "tokenizer_config.json");
    seed_file("config", "tokenizer-new", "K", folder[FUZZ_TODAY], "tokenizer_config.json");
    seed_text("config", "added-tokens", "a{\"<image>\": 338, \"<more>\": 339}");
    seed_text(
        "config", "special-tokens",
        "s{\"bos_token\": \"<bos>\", \"eos_token\": {\"content\": \"<eos>\", \"lstrip\": false, \"rstrip\": true, "
        "\"normalized\": false, \"single_word\": true}, \"additional_special_tokens\": [\"<image>\"]}");
    seed_text("config", "special-tokens-new",
              "S{\"pad_token\": \"<pad>\", \"unk_token\": null, \"eos_token\": \"more\"}");
    seed_text(
        "config", "tokenizer-own-pipeline",
        "K{\"tokenizer_class\": \"PreTrainedTokenizerFast\", \"added_tokens_decoder\": {\"0\": {\"content\": "
        "\"<pad>\", \"special\": true}}, \"extra_special_tokens\": {\"image_token\": \"<image>\"}, \"bos_token\": "
        "\"<bos>\", \"eos_token\": \"<eos>\", \"pad_token\": \"<pad>\", \"unk_token\": \"<unk>\", \"padding_side\": "
        "\"right\", \"truncation_side\": \"left\", \"model_max_length\": 99, \"pad_to_multiple_of\": 8}");
    seed_text("config", "tokenizer-lists",
              "k{\"tokenizer_class\": \"GemmaTokenizer\", \"additional_special_tokens\": [\"<image>\", {\"content\": "
              "\"more\", \"lstrip\": true}], \"bos_token\": {\"content\": \"<bos>\"}, \"eos_token\": \"<eos>\", "
              "\"add_bos_token\": true, \"split_special_tokens\": false, \"max_length\": 50}");
    seed_text("config", "added-tokens-new", "A{\"<image>\": 338, \"<more>\": 339, \"the\": 340}");
    bytes weights = read_file(folder[FUZZ_OFFICIAL], "model.safetensors");
    seed_header("safetensors", "header", "h", &weights);
    seed_header("safetensors", "header-in-memory", "H", &weights);
    seed("safetensors", "cut", "w", weights.data, 3000);
    bytes_free(&weights);
    seed("safetensors", "empty", "w", "\2\0\0\0\0\0\0\0{}", 10);
    seed_file("tokenizer_json", "tiny", "", folder[FUZZ_TODAY], "tokenizer.json");
    bytes json = read_file(folder[FUZZ_TODAY], "tokenizer.json");
    while (json.size % 6 != 2) bytes_text(&json, " "); /* the target goes by the size */
    seed("tokenizer_json", "tiny-own-pipeline", "", json.data, json.size);
    bytes_text(&json, "  ");
    seed("tokenizer_json", "tiny-beside-model", "", json.data, json.size);
    bytes_free(&json);
    seed_text(
        "tokenizer_json", "small",
        "{\"added_tokens\":[{\"id\":0,\"content\":\"<pad>\",\"single_word\":false,\"lstrip\":true,\"rstrip\":"
        "false,\"normalized\":true,\"special\":true}],\"normalizer\":{\"type\":\"Replace\",\"pattern\":"
        "{\"String\":\" \"},\"content\":\"\xE2\x96\x81\"},\"pre_tokenizer\":null,\"post_processor\":null,"
        "\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\",\"pattern\":{\"String\":"
        "\"\xE2\x96\x81\"},\"content\":\" \"},{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"}]},\"model\":"
        "{\"type\":\"BPE\",\"unk_token\":\"<pad>\",\"fuse_unk\":true,\"byte_fallback\":true,\"vocab\":{\"<pad>\":0,"
        "\"a\":1,\"b\":2,\"ab\":3},\"merges\":[\"a b\"]}}");
    seed_file("tokenizer_model", "tiny", "", folder[FUZZ_OFFICIAL], "tokenizer.model");
    bytes model = read_file(folder[FUZZ_OFFICIAL], "tokenizer.model");
    bytes_add(&model, "\x78\0", 2); /* field 15, which no file has: the target goes by the size */
    seed("tokenizer_model", "tiny-larger", "", model.data, model.size);
    bytes_free(&model);
    weights = read_file(folder[FUZZ_INT8], "model.safetensors");
    seed_header("converted", "int8", "8", &weights);
    seed_header("converted", "int8-raw", "b", &weights);
    bytes_free(&weights);
    weights = read_file(folder[FUZZ_MIX], "model.safetensors");
    seed_header("converted", "mix", "m", &weights);
    bytes_free(&weights);
    char name[64];
    for (int n = 2; n < 20; n++) {
        snprintf(name, sizeof name, "model-00001-of-%05d.safetensors", n);
        if (!has_file(folder[FUZZ_INT4], name)) continue;
        weights = read_file(folder[FUZZ_INT4], name);
        seed_header("converted", "int4", "4", &weights);
        bytes_free(&weights);
    }
    seed_text("converted", "list", "lembedding,decoder.0.mlp,attention,encoder.fc2");
    seed_file("converted", "config-int8", "c", folder[FUZZ_INT8], "config.json");
    seed_file("converted", "config-int4", "e", folder[FUZZ_INT4], "config.json");
    seed_file("converted", "index-int4", "i", folder[FUZZ_INT4], "model.safetensors.index.json");
}

static void seed_adapters(void) {
    static const struct {
        const char *name, *config, *header;
    } kinds[N_TINY_ADAPTERS] = {{"lora", "c", "l"}, {"dora", "d", "m"}, {"whole", "o", "w"}};
    pg_model_info info = {.struct_size = sizeof info};
    char folder[512], name[64];
    if (pg_model_get_info(fuzz_model(FUZZ_TODAY), &info) < 0) abort();
    make_temp_folder(folder, sizeof folder);
    for (int i = 0; i < N_TINY_ADAPTERS; i++) {
        tiny_adapter_write(folder, i, info.vocab_size, 5);
        bytes file = read_file(folder, "adapter_model.safetensors");
        snprintf(name, sizeof name, "%s-config", kinds[i].name);
        seed_file("adapter", name, kinds[i].config, folder, "adapter_config.json");
        snprintf(name, sizeof name, "%s-header", kinds[i].name);
        seed_header("adapter", name, kinds[i].header, &file);
        bytes_free(&file);
    }
    remove_folder(folder);
    seed_text("adapter", "patterns",
              "c{\"peft_type\":\"LORA\",\"r\":3,\"lora_alpha\":6,\"use_rslora\":true,\"rank_pattern\":{\"q_proj\":3,"
              "\"layers.[0-9]+.mlp\":4},\"alpha_pattern\":{\"o_proj\":2,\".*mlp\\\\.(gate|up)_proj\":7.5}}");
}

static void seed_images(void) {
    static const struct {
        const char *target, *name;
        int kind;
    } images[] = {{"png", "rgb", IMAGE_PNG},
                  {"png", "palette", IMAGE_PNG_PALETTE},
                  {"jpeg", "baseline", IMAGE_JPEG},
                  {"jpeg", "progressive", IMAGE_JPEG_PROGRESSIVE}};
    for (size_t i = 0; i < sizeof images / sizeof *images; i++) {
        bytes b = tiny_image(images[i].kind, 9, 7, 3);
        seed(images[i].target, images[i].name, "", b.data, b.size);
        bytes_free(&b);
    }
    static const uint8_t tiff[] = {'I', 'I', 42, 0, 8, 0, 0, 0, 1, 0, 0x12, 1, 3,
                                   0,   1,   0,  0, 0, 6, 0, 0, 0, 0, 0,    0, 0};
    static const uint8_t big[] = {'M', 'M', 0, 42, 0, 0, 0, 8, 0, 1, 1, 0x12, 0, 4, 0, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0, 0};
    static const char xmp[] = "s\xFF\xE1\0\x3Chttp://ns.adobe.com/xap/1.0/\0<x tiff:Orientation=\"8\"/>          ";
    seed("exif", "little", "1", tiff, sizeof tiff);
    seed("exif", "big", "1", big, sizeof big);
    seed("exif", "two", "2\x10", tiff, sizeof tiff);
    seed("exif", "xmp", "", xmp, sizeof xmp - 1);
    uint8_t pixels[14 + 48] = {PG_IMAGE_RGB8, 4, 0, 0, 0, 4};
    seed("pixels", "rgb", "", pixels, sizeof pixels);
    pixels[0] = PG_IMAGE_BGRA8;
    memcpy(pixels + 5, (uint8_t[]){3, 0, 0, 0, 0xF0, 0xFF, 0xFF, 0xFF}, 8);
    seed("pixels", "bgra-upside-down", "", pixels, sizeof pixels);
    pixels[0] = PG_IMAGE_GRAY8;
    seed("pixels", "grey", "", pixels, 30);
    uint8_t frame[14 + 17 + 96] = {PG_IMAGE_NV12, 7, 0, 0, 0, 5};
    memset(frame + 14, 90, sizeof frame - 14);
    seed("pixels", "nv12", "", frame, sizeof frame);
    frame[0] = PG_IMAGE_YUYV;
    seed("pixels", "yuyv", "", frame, sizeof frame);
    /* fitted: BT.709, full range, letterbox over a colour, a part */
    frame[13] = 128;
    memcpy(frame + 14, (uint8_t[]){1, 1, 1, 1, 200, 100, 50, 1, 0, 2, 0, 5, 0, 3, 0, 9, 200}, 17);
    seed("pixels", "yuyv-fitted", "", frame, sizeof frame);
    frame[0] = PG_IMAGE_I420;
    seed("pixels", "i420-fitted", "", frame, sizeof frame);
    frame[0] = PG_IMAGE_GRAY16;
    seed("pixels", "grey16-fitted", "", frame, sizeof frame);
}

static void seed_texts(void) {
    static const struct {
        const char *name;
        uint8_t settings[6];
        const char *text;
    } encodes[] = {
        {"prompt", {8}, "the cat"},
        {"suffixes",
         {11, 4, 0, 0, 20},
         "the cat\xFF"
         "dog\xFF"
         "in \xC3\xA9\xFF<loc0001>"},
        {"big-vision", {3, 0, 1}, "<image>the\xFF\xF0\x9F\x90\xB1\n"},
        {"sizes",
         {15, 12, 2, 0, 30},
         "a\0b\xFF<eos>\xFF"
         "12 ?"},
        {"truncated", {15, 4, 0, 0, 14}, "the cat in the cat\xFFthe cat in the cat"},
        {"truncated-prompt", {15, 4, 0x20, 1, 14}, "the cat in the cat\xFFin"},
        {"truncated-suffix", {15, 4, 0xC0, 0, 14}, "the\xFFthe cat in the cat"},
        {"truncated-ends-kept", {15, 12, 0x42, 2, 15}, "the cat in the cat\xFFthe cat in the cat"},
        {"literal", {17, 1}, "<image> <eos> \xE2\x96\x81  \n\n<b>"},
    };
    for (size_t i = 0; i < sizeof encodes / sizeof *encodes; i++) {
        bytes b = {0};
        bytes_add(&b, encodes[i].settings, 6);
        bytes_text(&b, encodes[i].text);
        seed("encode", encodes[i].name, "", b.data, b.size);
        bytes_free(&b);
    }
    seed_text("answers", "boxes",
              "\x05\x04\x80\x01<loc0100><loc0200><loc0300><loc0400> cat ; <loc0100><loc0200><loc0300><loc0401> cat");
    seed_text("answers", "duplicates",
              "\x04\x04\x80\x01<loc0100><loc0200><loc0300><loc0400> cat ; <loc0100><loc0200><loc0300><loc0401> cat");
    seed_text("answers", "masks",
              "\x2A\x04\x80\x01<loc0256><loc0512><loc0768><loc1023><seg000><seg127><seg003><seg004><seg005><seg060>"
              "<seg007><seg008><seg009><seg010><seg110><seg012><seg013><seg014><seg015><seg064> dog");
    seed_text("answers", "points", "\x01\x04\x80\x01<loc0100><loc0200> nose; ear <loc0001><loc1024>\xC3\xA9");
    seed_text("answers", "mask-of-a-box",
              "\x80\x01\x40\x01<loc0100><loc0200><loc0900><loc0800><seg000><seg127><seg003><seg004><seg005><seg060>"
              "<seg007><seg008><seg009><seg010><seg110><seg012><seg013><seg014><seg015><seg064> dog");
    seed("answers", "ids", "", "\x40\x02\x40\x01\x0A\x00\x0B\x00\x0C\x00\x20\x00\xFF\xFF\x01\x00", 16);
    seed_text("answers", "broken", "\x38\x04\x80\x01<loc0001><loc12><seg999>;;\n<loc0002><loc0001>\xF0\x9F");
}

static void seed_masks_and_features(void) {
    static const struct {
        const char *name, *end, *begin; /* a letter of the target: which part of the file is the seed */
        npz_options options;
    } archives[] = {{"directory", "n", NULL, NPZ_PLAIN},
                    {"directory-deflated", "d", NULL, {.cut_shape = -1, .drop = -1, .deflated = 1}},
                    {"directory-zip64", "6", NULL, {.cut_shape = -1, .drop = -1, .zip64 = 1}},
                    {"array", NULL, "b", NPZ_PLAIN},
                    {"array-fortran", NULL, "b", {.cut_shape = -1, .drop = -1, .fortran = 1}},
                    {"array-version-2", NULL, "b", {.cut_shape = -1, .drop = -1, .version = 1}}};
    for (size_t i = 0; i < sizeof archives / sizeof *archives; i++) {
        bytes npz = make_npz(&archives[i].options);
        const char *letter = archives[i].end ? archives[i].end : archives[i].begin;
        const size_t n = archives[i].end ? 2500 : 250;
        seed("masks", archives[i].name, letter, archives[i].end ? npz.data + npz.size - n : npz.data, n);
        bytes_free(&npz);
    }
    bytes tensors = make_safetensors(LAYOUT_SOUND);
    seed_header("masks", "safetensors", "h", &tensors);
    bytes_free(&tensors);
    pg_features *features = NULL;
    size_t size = 0;
    if (pg_features_create(fuzz_model(FUZZ_OFFICIAL), fuzz_inputs(FUZZ_OFFICIAL), NULL, &features) < 0 ||
        pg_features_to_bytes(features, NULL, 0, &size) < 0)
        abort();
    uint8_t *file = fuzz_bytes("", 0);
    file = realloc(file, size);
    if (pg_features_to_bytes(features, file, size, &size) < 0) abort();
    seed("features", "sound", "b", file, size);
    seed("features", "repaired", "r", file, size);
    seed("features", "file", "f", file, size);
    seed("features", "file-repaired", "R", file, size);
    pg_features_close(&features);
    free(file);
}

/* What newer ways in are given: settings of tokens and texts, answers to score, arrays, ids of models. */
static void seed_settings(void) {
    static const struct {
        const char *target, *name, *bytes;
        size_t size;
    } seeds[] = {
#define SEED(target, name, text) {target, name, text, sizeof text - 1}
#define CAFES                                                                                                      \
    "caf\xC3\xA9 caf\xC3\xA9 caf\xC3\xA9 caf\xC3\xA9 caf\xC3\xA9 caf\xC3\xA9 caf\xC3\xA9 caf\xC3\xA9 caf\xC3\xA9 " \
    "caf\xC3\xA9 "
        SEED("generate", "stop-strings",
             "\x06\x00\x00s\x03the"
             "s\x01 "
             "p\x03 a\n"),
        SEED("generate", "bad-words", "\x06\x00\x00w\x02\x0A\x00\x0B\x00w\x01\x0C\x00l\x0A\x02\x0C\x00\x0D\x00"),
        SEED("generate", "lists",
             "\x0C\x00\x24"
             "e\x02\x01\x00\x05\x00"
             "f\x01\x01\x00u\x02\x09\x00\x0A\x00"
             "b\x01\x04\x00"
             "1\x03\x00"),
        SEED("generate", "masks",
             "\x8A\x00\x04m\x00\x01\x02\x03\x04"
             "c\x0B"),
        SEED("generate", "beams",
             "\x5A\x07\x10r\x09g\x02n\x01"
             "d\x09\x01"),
        SEED("generate", "drawn",
             "\x06\x00\x04t\x00\xC0t\x01\xF0t\x07\x40t\x02\xE0t\x03\x01t\x04\xF0t\x05\x01t\x06\x01"),
        SEED("generate", "drawn-beams", "\x46\x00\x24t\x03\x01t\x05\x01t\x06\x01t\x02\x80"),
        SEED("generate", "detect",
             "\x0E\x10\x00p\x0A"
             "detect cat"),
        SEED("generate", "segment",
             "\x2F\x60\x04p\x0B"
             "segment cat"),
        SEED("scores", "texts",
             "\x00the cat\xFF"
             "a dog\xFF\xFF<eos> \xC3\xA9"),
        SEED("scores", "beginnings",
             "\x1F"
             "a\xFFthe\xFFthe cat"),
        SEED("scores", "ids", "\x80\x02\x0A\x00\x0B\x00\x01\x01\x00"),
        SEED("inputs", "ids", "\x00\x01\x01\x05\x00\x02\x0A\x0B\x0C\x01"),
        SEED("inputs", "labels",
             "\x84\x1D\x02\x03\x00\x02\x0A\x0B\x02\x0C\x0D\x00\x01\x01\x01\x00\x01\x01\x00\x00\x00\x01\x00"
             "\x00\x01\x00\xFF\xFF\x0B\xFF\x0C\x0D"),
        SEED("inputs", "embeddings", "\x01\x22\x01\x02\x00\x90\x70\x84\x00\x01\x02"),
        SEED("inputs", "pixels", "\x00\x40\x01\x00\x00\x90\x70\x84"),
        SEED("inputs", "odd", "\x00\x05\x02\x03\x01\x00\x80\x08\x05\x10\x09\x20\x30"),
        SEED("folder", "adapter",
             "\x13"
             "adapter_config.json{\"base_model_name_or_path\": \"google/paligemma\"}"),
        SEED("folder", "adapter-long",
             "\x13"
             "adapter_config.json{\"base_model_name_or_path\": \"" CAFES CAFES CAFES "\"}"),
        SEED("folder", "gguf",
             "\x09"
             "a-\xC3\xA9.ggufGGUF\3\0\0\0"),
        SEED("folder", "name-no-utf8",
             "\x09"
             "a-\xC3(.gguf"),
        SEED("folder", "name-of-two-lines",
             "\x08"
             "a\nbc.npzPK\3\4"),
        SEED("folder", "lfs",
             "\x11"
             "model.safetensorsversion https://git-lfs.github.com/spec/v1\n"),
        SEED("folder", "html",
             "\x0E"
             "tokenizer.json\r\n <!DOCTYPE html>"),
        SEED("folder", "pickle",
             "\x11"
             "pytorch_model.bin\x80\2}"),
        SEED("folder", "masks",
             "\x0B"
             "vae-oid.npzPK\5\6"),
        SEED("folder", "quantized",
             "\x0B"
             "config.json{\"model_type\": \"paligemma\", \"quantization_config\": {\"quant_method\": \"" CAFES "\"}}"),
#undef CAFES
        SEED("cache", "main",
             "\x08org/name"
             "0a1b\n"),
        SEED("cache", "revision", "\x0Dorg/name@0a1b"),
        SEED("cache", "out", "\x08org/name../../0a1b"),
        SEED("cache", "environment", "\x88org/name~/x/$HOME/${HF_HOME}/y"),
        SEED("cache", "path", "\x01."),
#undef SEED
    };
    for (size_t i = 0; i < sizeof seeds / sizeof *seeds; i++)
        seed(seeds[i].target, seeds[i].name, "", seeds[i].bytes, seeds[i].size);
    static const uint16_t sizes[] = {sizeof(pg_model_info),
                                     sizeof(pg_sampling_options),
                                     sizeof(pg_memory),
                                     sizeof(pg_processor_info),
                                     sizeof(pg_image_settings),
                                     sizeof(pg_row_info),
                                     sizeof(pg_tensor),
                                     sizeof(pg_object),
                                     sizeof(pg_result_info),
                                     sizeof(pg_tensor),
                                     sizeof(pg_tensor),
                                     sizeof(pg_score_info),
                                     sizeof(pg_tensor),
                                     sizeof(pg_model_options),
                                     sizeof(pg_processor_options),
                                     sizeof(pg_encode_options),
                                     sizeof(pg_sampling_options),
                                     sizeof(pg_beam_options),
                                     sizeof(pg_generate_options),
                                     sizeof(pg_score_options),
                                     sizeof(pg_answer_options),
                                     sizeof(pg_mask_decoder_options),
                                     sizeof(pg_batch),
                                     sizeof(pg_input_arrays),
                                     sizeof(pg_forward_options),
                                     sizeof(pg_run_options),
                                     sizeof(pg_session_options),
                                     sizeof(pg_convert_options),
                                     sizeof(pg_tensor)};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        char name[32];
        snprintf(name, sizeof name, "struct-%02d", (int)i);
        seed("getters", name, "", (uint8_t[]){(uint8_t)i, 0, (uint8_t)sizes[i], (uint8_t)(sizes[i] >> 8), 0, 0}, 6);
    }
}

/* What a calibration saved, and the same with numbers among its sums that no activations have. */
static void seed_calibration(void) {
    pg_calibration *calibration = NULL;
    char path[600];
    snprintf(path, sizeof path, "%s/sums", fuzz_folder(FUZZ_OFFICIAL));
    if (pg_calibration_create(fuzz_model(FUZZ_OFFICIAL), &calibration) < 0 ||
        pg_calibration_save(calibration, path, 7) < 0)
        abort();
    pg_calibration_close(&calibration);
    bytes file = read_file(fuzz_folder(FUZZ_OFFICIAL), "sums");
    seed("calibration", "header", "h", file.data, 56);
    seed("calibration", "header-repaired", "H", file.data, 56);
    seed("calibration", "file-cut", "w", file.data, 56);
    bytes_free(&file);
    seed("calibration", "cut", "c", "\x40\0\0\0", 4);
    seed("calibration", "nan", "s", "\0\0\0\0\0\xC0\x7F", 7);
    seed("calibration", "negative", "s", "\0\0\0\0\0\x80\xBF\1\1\0\0\0\x80\xBF", 14);
    seed("calibration", "large", "s", "\0\0\0\xFF\xFF\x7F\x7F\0\1\0\xFF\xFF\x7F\x7F", 14);
}

/* What a trainer saved, whole and its parts. */
static void seed_training(void) {
    seed_text("training", "default", "");
    seed_text("training", "names", "q_proj, v_proj ,multi_modal_projector.linear\nnorm\na/model");
    seed_text("training", "all-linear", "all-linear\nmulti_modal_projector");
    seed_text("training", "pattern", "regex:.*(language_model|encoder)\\.layers\\.0.*\\.(q|v)_proj\n\nx");
    seed_text("training", "embeddings", "embed_tokens,lm_head,patch_embedding\nposition_embedding,layers.0.mlp");
    seed_text("training", "none", "q_proj,,\nnothing");
    seed_text("training", "bytes", "q_proj\nnorm\ncaf\xE9 \"\\\t");
}

static void seed_train_state(void) {
    char folder[512];
    make_temp_folder(folder, sizeof folder);
    train_save_sound(folder);
    bytes file = read_file(folder, TRAIN_STATE);
    seed("train_state", "whole", "w", file.data, file.size);
    seed_header("train_state", "header", "h", &file);
    bytes_free(&file);
    seed("train_state", "values", "v", "\3\x3F\1\0", 4);
    seed("train_state", "nan", "v", "\2\xC0\3\x7F", 4);
    seed("train_state", "square-negative", "v", "\x23\xBF", 2);
    remove_folder(folder);
}

/* Each struct of each call with a size that cuts a field, and with one that no struct has. */
static void seed_sizes(void) {
    static const int n_parts[] = {3, 2, 3, 3, 2, 1, 1, 1, 3};
    char name[64];
    for (int call = 0; call < 9; call++) {
        for (int part = 0; part < n_parts[call]; part++) {
            bytes b = {0};
            bytes_add(&b, &(uint8_t){(uint8_t)call}, 1);
            if (call == 8) bytes_add(&b, "\1", 1); /* images of the second row */
            bytes_add(&b, (uint8_t[]){(uint8_t)part, 0, 0, 12, 0, 0, 0, 0, 0, 0}, 10);
            snprintf(name, sizeof name, "wrong-size-%d-%d-cut", call, part);
            seed("options", name, "", b.data, b.size);
            memcpy(b.data + b.size - 7, (uint8_t[]){0xF8, 0xFF, 0xFF, 0xFF}, 4);
            snprintf(name, sizeof name, "wrong-size-%d-%d-huge", call, part);
            seed("options", name, "", b.data, b.size);
            bytes_free(&b);
        }
    }
}

/* Each call with the first fields of its structs, and a few sequences; the fuzzer finds the others. */
static void seed_calls(void) {
    char name[32];
    for (int call = 0; call < 9; call++) {
        uint8_t b[41] = {(uint8_t)call};
        for (int i = 0; i < 4; i++) {
            b[1 + 10 * i] = (uint8_t)i; /* part */
            b[2 + 10 * i] = (uint8_t)(i + 1 + call);
            b[3 + 10 * i] = (uint8_t)(i % 3);
            b[4 + 10 * i] = (uint8_t)(5 * i + 3);
        }
        snprintf(name, sizeof name, "call-%d", call);
        seed("options", name, "", b, sizeof b);
    }
    static const uint8_t many_texts[] = {2,
#define FIELD(part, field, low, high) part, field, 0, low, high, 0, 0, 0, 0, 0
                                         FIELD(0, 2, 0x87, 0x13),
                                         FIELD(0, 8, 0, 4),
                                         FIELD(0, 9, 0, 4),
                                         FIELD(0, 1, 7, 0),
                                         FIELD(0, 5, 0x2C, 1),
                                         FIELD(1, 1, 4, 0)};
#undef FIELD
    seed("options", "many-texts", "", many_texts, sizeof many_texts);
    static const uint8_t life[] = {0,   0,   0,  1,       1,  0,   2,   3,   2,  1,   2, 3,  4, 9,   4,
                                   12,  4,   5,  128 + 2, 0,  130, 2,   140, 0,  131, 0, 64, 5, 221, 1,
                                   131, 1,   66, 2,       65, 1,   208, 0,   67, 100, 5, 1,  5, 0,   5,
                                   1,   133, 9,  134,     8,  131, 0,   250, 1,  251, 0, 64, 7, 131, 0};
    seed("calls", "life", "", life, sizeof life);
    static const uint8_t wrong[] = {131, 0, 130, 1, 133, 2, 64, 0, 65, 0, 66, 0, 67, 0, 135, 0, 136, 1, 137, 2, 138, 3};
    seed("calls", "without-handles", "", wrong, sizeof wrong);
    static const uint8_t shared[][2] = {{2, 3},     {130, 128}, {131, 129}, {132, 128}, {133, 129}, {135, 150},
                                        {136, 128}, {134, 128}, {131, 128}, {130, 129}, {131, 130}, {135, 200}};
    bytes together = {0}; /* by the three threads at once */
    for (size_t i = 0; i < 3 * sizeof shared / sizeof *shared; i++) bytes_add(&together, shared[i / 3], 2);
    seed("calls", "shared", "", together.data, together.size);
    bytes_free(&together);
    bytes long_life = {0};
    for (int i = 0; i < 12; i++) bytes_add(&long_life, (uint8_t[]){2, 3, 2, 1, 2, 3, 4, 41, 64, 80, 66, 65}, 12);
    seed("calls", "many", "", long_life.data, long_life.size);
    bytes_free(&long_life);
}

/* Options of a worker, then calls: submit with flags, priority, tokens, stream and deadline; cancel, poll, wait, close.
 */
static void seed_worker(void) {
    static const uint8_t sound[] = {1, 0, 0, 2, 5, 3, 7, 0}, one_row[] = {1, 1, 0, 2, 2, 2, 5, 1};
    static const uint8_t request[] = {0, 1, 5, 0, 128, 3, 0, 9, 2}, streamed[] = {0, 3, 5, 4, 130, 2, 1, 90, 9, 2};
    static const uint8_t settings[] = {0, 13, 200, 1, 120, 0, 0, 9, 2}, bad[] = {0, 45, 0xC3, 8, 1, 9, 3, 9, 0};
    static const uint8_t closing[] = {0, 1, 5, 0, 128, 3, 0, 9, 2, 255};
    const struct {
        const char *name;
        const uint8_t *options, *request;
        size_t size;
    } lives[] = {{"requests", sound, request, sizeof request},
                 {"streams", one_row, streamed, sizeof streamed},
                 {"settings", sound, settings, sizeof settings},
                 {"refused", one_row, bad, sizeof bad},
                 {"closed", sound, closing, sizeof closing}};
    for (size_t i = 0; i < sizeof lives / sizeof *lives; i++) {
        bytes b = {0};
        bytes_add(&b, lives[i].options, sizeof sound);
        for (int n = 0; n < 4; n++) {
            bytes_add(&b, lives[i].request, lives[i].size);
            bytes_add(&b, (uint8_t[]){130, (uint8_t)(n + 2), 170, 210, 60, 241}, 6);
        }
        seed("worker", lives[i].name, "", b.data, b.size);
        bytes_free(&b);
    }
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: make_seeds FOLDER\n");
        return 2;
    }
    top = argv[1];
    const char *folders[FUZZ_N_FOLDERS];
    for (int i = 0; i < FUZZ_N_FOLDERS; i++) folders[i] = fuzz_folder((fuzz_folder_kind)i);
    seed_folders(folders);
    seed_adapters();
    seed_images();
    seed_texts();
    seed_masks_and_features();
    seed_settings();
    seed_calibration();
    seed_train_state();
    seed_training();
    seed_sizes();
    seed_calls();
    seed_worker();
    return 0;
}
