/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * lib/checkpoint/config.h: config.json with HF's defaults. What the defaults, the aliases and the special
 * ids have to be was taken from transformers 5.23 by running it.
 */
#include "run_tests.h"

#include <locale.h>
#include <math.h>

#include "checkpoint/config.h"
#include "checkpoint/json.h"
#include "checkpoint_files.h"
#include "kernels/kernels.h"

/* -------------------------------------------------------------------------------------------------------- config */

static double number(const pgi_config *config, const char *key) {
    const pgi_json *node = pgi_config_field(config, key);
    if (!pgi_json_is_number(node)) fail_msg("%s is no number", key);
    return pgi_json_number(node);
}

static void official_config_gets_defaults(void **state) {
    (void)state;
    write_text(
        "config.json",
        "{\"architectures\":[\"PaliGemmaForConditionalGeneration\"],\"bos_token_id\":2,\"eos_token_id\":1,"
        "\"pad_token_id\":0,\"hidden_size\":2048,\"ignore_index\":-100,\"image_token_index\":257152,"
        "\"model_type\":\"paligemma\",\"projection_dim\":2048,\"text_config\":{\"hidden_size\":2048,"
        "\"intermediate_size\":16384,\"model_type\":\"gemma\",\"num_attention_heads\":8,\"num_hidden_layers\":18,"
        "\"num_image_tokens\":256,\"num_key_value_heads\":1,\"torch_dtype\":\"float32\",\"vocab_size\":257216},"
        "\"torch_dtype\":\"float32\",\"vision_config\":{\"hidden_size\":1152,\"image_size\":448,"
        "\"intermediate_size\":4304,\"model_type\":\"siglip_vision_model\",\"num_attention_heads\":16,"
        "\"num_hidden_layers\":27,\"patch_size\":14,\"projector_hidden_act\":\"gelu_fast\","
        "\"vision_use_head\":false}}");
    pgi_config c;
    assert_int_equal(pgi_config_load(MEMORY, folder, &c), PG_OK);
    assert_int_equal(c.text.gemma_version, 1);
    assert_int_equal(c.text.head_dim, 256);
    assert_int_equal(c.text.vocab_size, 257216);
    assert_int_equal(c.text.activation, PGI_ACTIVATION_GELU_TANH);
    assert_int_equal(c.text.max_positions, 8192);
    assert_int_equal(c.text.sliding_window, 0);
    assert_true(c.text.rope_theta == 10000.0f && c.text.rms_norm_eps == 1e-6f && c.text.query_scale == 0.0625f);
    assert_true(c.text.attention_soft_cap == 0 && c.text.final_soft_cap == 0);
    for (int i = 0; i < 18; i++) assert_int_equal(c.text.layer_slides[i], 0);
    assert_int_equal(c.vision.n_patches, 1024);
    assert_int_equal(c.vision.head_dim, 72);
    assert_int_equal(c.vision.activation, PGI_ACTIVATION_GELU_TANH);
    assert_true(c.vision.layer_norm_eps == 1e-6f);
    assert_int_equal(c.tie_word_embeddings, 1);
    assert_int_equal(c.image_token_id, 257152);
    assert_int_equal(c.n_eos, 1);
    assert_int_equal(c.eos_ids[0], 1);
    assert_int_equal(c.pad_id, 0);
    assert_int_equal(c.bos_id, 2);

    assert_true(number(&c, "text_config.num_image_tokens") == 1024); /* derived, the file's 256 does not count */
    assert_true(number(&c, "vision_config.projection_dim") == 2048);
    assert_true(number(&c, "vision_config.num_channels") == 3);
    assert_true(number(&c, "text_config.initializer_range") == 0.02);
    assert_true(number(&c, "text_config.rope_parameters.rope_theta") == 10000);
    assert_true(number(&c, "text_config.rope_scaling.rope_theta") == 10000); /* the old name of rope_parameters */
    assert_true(number(&c, "image_token_index") == 257152);
    assert_true(number(&c, "image_token_id") == 257152);
    assert_true(number(&c, "vocab_size") == 257152);
    assert_true(number(&c, "ignore_index") == -100);
    assert_string_equal(pgi_json_text(pgi_config_field(&c, "text_config.dtype")), "float32");
    assert_string_equal(pgi_json_text(pgi_config_field(&c, "torch_dtype")), "float32");
    assert_string_equal(pgi_json_text(pgi_config_field(&c, "vision_config.projector_hidden_act")), "gelu_fast");
    assert_true(pgi_json_is(pgi_config_field(&c, "text_config.use_bidirectional_attention"), PGI_JSON_TRUE));
    assert_true(pgi_json_is(pgi_config_field(&c, "vision_config.dtype"), PGI_JSON_NULL));
    assert_string_equal(pgi_json_text(pgi_config_field(&c, "id2label.1")), "LABEL_1");
    assert_ptr_equal(pgi_config_field(&c, ""), &c.resolved);
    static const char *const absent[] = {"nothing",
                                         "text_config.",
                                         ".text_config",
                                         "text_config.hidden_size.x",
                                         "text_config.torch_dtypes",
                                         "text_config.image_token_id"};
    for (size_t i = 0; i < COUNT(absent); i++) assert_null(pgi_config_field(&c, absent[i]));
    pgi_config_free(&c);
}

static void config_without_parts_is_paligemma_3b(void **state) {
    (void)state;
    pgi_config c;
    write_text("config.json", "{\"model_type\": \"paligemma\", \"text_config\": null}");
    assert_int_equal(pgi_config_load(MEMORY, folder, &c), PG_OK);
    assert_int_equal(c.text.n_layers, 18);
    assert_int_equal(c.vision.intermediate_size, 4096); /* HF's default for a vision part that is not there */
    assert_int_equal(c.image_token_id, 256000);
    assert_int_equal(c.n_eos, 0); /* as in HF: defaults of the class end no text */
    pgi_config_free(&c);
    write_text("config.json", "{\"text_config\": {\"hidden_size\": 2048}, \"vision_config\": {}}");
    assert_int_equal(pgi_config_load(MEMORY, folder, &c), PG_OK);
    assert_int_equal(c.text.n_layers, 28);
    assert_int_equal(c.vision.n_layers, 12);
    assert_int_equal(c.vision.n_patches, 196);
    pgi_config_free(&c);
}

static void gemma2_config(void **state) {
    (void)state;
    pgi_config c;
    write_config(2, "\"num_hidden_layers_\":0,\"query_pre_attn_scalar\":144,", "\"image_token_id\":7,");
    assert_int_equal(pgi_config_load(MEMORY, folder, &c), PG_OK);
    assert_int_equal(c.text.gemma_version, 2);
    assert_true(c.text.query_scale == (float)(1.0 / 12));
    assert_true(c.text.attention_soft_cap == 50 && c.text.final_soft_cap == 30);
    assert_int_equal(c.text.sliding_window, 4096);
    assert_int_equal(c.text.layer_slides[0], 1);
    assert_int_equal(c.text.layer_slides[1], 0);
    assert_int_equal(c.image_token_id, 7); /* beside image_token_index, as HF: the alias is assigned last */
    assert_int_equal(pgi_json_n_items(pgi_config_field(&c, "text_config.layer_types")), LAYERS);
    pgi_config_free(&c);

    write_config(
        2,
        "\"layer_types\":[\"attention\",\"sliding_attention\"],\"sliding_window\":16,\"attn_logit_softcapping\":"
        "null,\"final_logit_softcapping\":1e1,\"hidden_activation\":\"gelu\",\"hidden_act\":\"relu\","
        "\"rope_theta\":1e6,\"rms_norm_eps\":1,\"max_position_embeddings\":8192.0,",
        "");
    assert_int_equal(pgi_config_load(MEMORY, folder, &c), PG_OK);
    assert_int_equal(c.text.layer_slides[0], 0);
    assert_int_equal(c.text.layer_slides[1], 1);
    assert_int_equal(c.text.sliding_window, 16);
    assert_true(c.text.attention_soft_cap == 0 && c.text.final_soft_cap == 10);
    assert_int_equal(c.text.activation, PGI_ACTIVATION_GELU_ERF); /* hidden_activation counts, hidden_act does not */
    assert_true(c.text.rope_theta == 1e6f && c.text.rms_norm_eps == 1);
    assert_int_equal(c.text.max_positions, 8192);
    assert_string_equal(pgi_json_text(pgi_json_item(pgi_config_field(&c, "text_config.layer_types"), 0)),
                        "full_attention");
    pgi_config_free(&c);

    write_config(2, "\"sliding_window\":null,", "");
    assert_int_equal(pgi_config_load(MEMORY, folder, &c), PG_OK);
    assert_int_equal(c.text.sliding_window, 0);
    assert_int_equal(c.text.layer_slides[0], 0);
    pgi_config_free(&c);
}

static void gemma1_activation_and_rope(void **state) {
    (void)state;
    pgi_config c;
    write_config(1,
                 "\"hidden_act\":\"gelu\",\"hidden_activation\":\"relu\",\"rope_scaling\":null,\"rope_parameters\":"
                 "{\"rope_theta\":500,\"rope_type\":\"default\"},\"rope_theta\":7,",
                 "");
    assert_int_equal(pgi_config_load(MEMORY, folder, &c), PG_OK);
    assert_int_equal(c.text.activation, PGI_ACTIVATION_GELU_TANH); /* in Gemma 1 "gelu" means the tanh form */
    assert_string_equal(pgi_json_text(pgi_config_field(&c, "text_config.hidden_act")), "gelu_pytorch_tanh");
    assert_string_equal(pgi_json_text(pgi_config_field(&c, "text_config.hidden_activation")), "relu");
    assert_true(c.text.rope_theta == 500); /* inside rope_parameters it counts more than beside it */
    assert_null(pgi_config_field(&c, "text_config.rope_theta"));
    pgi_config_free(&c);
}

static void special_ids_come_from_where_hf_takes_them(void **state) {
    (void)state;
    static const struct {
        const char *top, *text, *generation;
        int n_eos;
        int64_t eos, last_eos, pad, bos;
    } cases[] = {
        {"", "", NULL, 0, 0, 0, -1, -1},
        {"", "\"eos_token_id\":9,\"pad_token_id\":3,", NULL, 1, 9, 9, 3, -1},
        {"\"eos_token_id\":7,\"bos_token_id\":2,", "\"eos_token_id\":9,", NULL, 1, 7, 7, -1, 2},
        {"\"eos_token_id\":null,", "\"eos_token_id\":[9,3],", NULL, 2, 9, 3, -1, -1},
        {"\"eos_token_id\":7,", "", "{}", 0, 0, 0, -1, -1},
        {"\"eos_token_id\":7,", "", "{\"eos_token_id\":[1,4,107],\"pad_token_id\":0}", 3, 1, 107, 0, -1},
        {"\"eos_token_id\":7,", "", "{\"eos_token_id\":5}", 1, 5, 5, -1, -1},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        pgi_config c;
        write_config(1, cases[i].text, cases[i].top);
        if (cases[i].generation) write_text("generation_config.json", cases[i].generation);
        assert_int_equal(pgi_config_load(MEMORY, folder, &c), PG_OK);
        assert_int_equal(c.n_eos, cases[i].n_eos);
        if (c.n_eos) assert_int_equal(c.eos_ids[0], cases[i].eos);
        if (c.n_eos) assert_int_equal(c.eos_ids[c.n_eos - 1], cases[i].last_eos);
        assert_int_equal(c.pad_id, cases[i].pad);
        assert_int_equal(c.bos_id, cases[i].bos);
        pgi_config_free(&c);
        delete_file("generation_config.json");
    }
    pgi_config c;
    write_config(1, "", "");
    write_text("generation_config.json", "{\"eos_token_id\": \"one\"}");
    assert_error(pgi_config_load(MEMORY, folder, &c), PG_ERROR_FORMAT, "generation_config.json: eos_token_id",
                 "\"one\"");
    char many[400] = "{\"eos_token_id\": [0";
    for (int i = 0; i < PGI_MAX_EOS; i++) strcat(many, ",1");
    write_text("generation_config.json", strcat(many, "]}"));
    assert_error(pgi_config_load(MEMORY, folder, &c), PG_ERROR_LIMIT, "found 65 ids", "at most 64");
    write_text("generation_config.json", "{");
    assert_error(pgi_config_load(MEMORY, folder, &c), PG_ERROR_FORMAT, "generation_config.json: line 1", NULL);
}

/* What changes the text is followed, or named; what has no effect is neither. */
static void generation_settings_are_followed_or_named(void **state) {
    static const struct {
        const char *json, *unfollowed;
    } cases[] = {
        {"{\"num_beams\": 1, \"bad_words_ids\": null, \"min_length\": 0, \"use_cache\": true}", NULL},
        {"{\"guidance_scale\": 4}", "guidance_scale"},
        {"{\"num_return_sequences\": 2, \"num_beams\": 3, \"early_stopping\": \"never\", \"length_penalty\": 0}", NULL},
        {"{\"early_stopping\": \"soon\"}", "early_stopping"},
        {"{\"num_beams\": \"many\"}", "num_beams"},
        {"{\"guidance_scale\": 1.5}", "guidance_scale"},
        {"{\"top_k\": \"a\", \"num_beams\": 2, \"num_beam_groups\": 2, \"dola_layers\": \"high\", \"token_healing\": "
         "false}",
         "top_k, num_beam_groups, dola_layers"},
        {"{\"watermarking_config\": {}}", "watermarking_config"},
        {"{\"temperature\": \"hot\"}", "temperature"},
        {"{\"top_k\": -1}", "top_k"},
        {"{\"top_k\": 2.5}", "top_k"},
        {"{\"do_sample\": \"yes\"}", "do_sample"},
        {"{\"suppress_tokens\": [\"a\"]}", "suppress_tokens"},
        {"{\"bad_words_ids\": 3}", "bad_words_ids"},
        {"{\"bad_words_ids\": [[]]}", "bad_words_ids"},
        {"{\"bad_words_ids\": [[1], [1, 9999999]]}", "bad_words_ids"},
        {"{\"sequence_bias\": [[[1, 2], \"x\"]]}", "sequence_bias"},
        {"{\"exponential_decay_length_penalty\": [1]}", "exponential_decay_length_penalty"},
        {"{\"stop_strings\": [\"\"]}", "stop_strings"},
    };
    (void)state;
    write_config(1, "", "");
    for (size_t i = 0; i < COUNT(cases); i++) {
        pgi_config c;
        write_text("generation_config.json", cases[i].json);
        assert_int_equal(pgi_config_load(MEMORY, folder, &c), PG_OK);
        if (cases[i].unfollowed)
            assert_string_equal(c.generation.unfollowed, cases[i].unfollowed);
        else
            assert_string_equal(c.generation.unfollowed, "");
        pgi_config_free(&c);
    }
    pgi_config c;
    write_text(
        "generation_config.json",
        "{\"do_sample\": true, \"temperature\": 0.5, \"top_k\": 7, \"top_p\": null, \"repetition_penalty\": 1.5, "
        "\"suppress_tokens\": [5, -1, 99999999, 6], \"bad_words_ids\": [[1], [2, 3]], \"stop_strings\": \"end\", "
        "\"sequence_bias\": [[[4, 5], -2.5]], \"forced_eos_token_id\": 1, \"forced_bos_token_id\": 2, "
        "\"exponential_decay_length_penalty\": [3, 1.5], \"max_new_tokens\": 9, \"max_length\": 20, "
        "\"max_time\": 1.5, \"min_new_tokens\": 2, \"renormalize_logits\": true}");
    assert_int_equal(pgi_config_load(MEMORY, folder, &c), PG_OK);
    const pgi_generation_config *g = &c.generation;
    const pg_sampling_options *s = &g->sampling;
    assert_string_equal(g->unfollowed, "");
    assert_int_equal(s->flags, PG_SAMPLING_RANDOM | PG_SAMPLING_RENORMALIZE);
    assert_true(s->temperature == 0.5 && s->top_k == 7 && s->top_p == 1 && s->repetition_penalty == 1.5);
    assert_true(s->n_suppressed_ids == 2 && s->suppressed_ids[0] == 5 && s->suppressed_ids[1] == 6);
    assert_true(s->n_bad_words == 2 && s->bad_word_sizes[0] == 1 && s->bad_word_sizes[1] == 2);
    assert_true(s->bad_word_ids[0] == 1 && s->bad_word_ids[1] == 2 && s->bad_word_ids[2] == 3);
    assert_true(s->n_biases == 1 && s->bias_sizes[0] == 2 && s->bias_ids[1] == 5 && s->biases[0] == -2.5);
    assert_true(s->n_forced_eos_ids == 1 && s->forced_eos_ids[0] == 1 && s->forced_bos_id == 2);
    assert_true(s->decay_start == 3 && s->decay_factor == 1.5 && s->min_new_tokens == 2 && s->min_length == 0);
    assert_true(g->max_new_tokens == 9 && g->max_length == 20 && g->max_seconds == 1.5);
    assert_int_equal(g->n_stop_strings, 1);
    assert_string_equal(g->stop_strings[0], "end");
    pgi_config_free(&c);
    delete_file("generation_config.json");
}

static void config_errors_name_the_key(void **state) {
    (void)state;
    static const struct {
        int gemma_version;
        const char *text, *top;
        pg_status status;
        const char *first, *second;
    } cases[] = {
        {1, "\"head_dim_\":0", "", PG_ERROR_FORMAT, "config.json: line 1", NULL}, /* no comma: not JSON */
        {1, "", "\"projection_dim_\":1,\"tie_word_embeddings\":null,", PG_ERROR_FORMAT,
         "tie_word_embeddings: found null", "true or false"},
        {1, "", "\"image_token_id\":-1,", PG_ERROR_FORMAT, "image_token_index: found -1", NULL},
        {1, "", "\"quantization_config\":{\"quant_method\":\"bitsandbytes\"},", PG_ERROR_UNSUPPORTED,
         "quantization_config", "bitsandbytes"},
        {1, "\"rope_scaling\":{\"type\":\"linear\",\"factor\":2.0},", "", PG_ERROR_UNSUPPORTED,
         "text_config.rope_scaling", "\"linear\""},
        {1, "\"rope_parameters\":{\"rope_type\":\"yarn\"},", "", PG_ERROR_UNSUPPORTED, "text_config.rope_parameters",
         "\"yarn\""},
        {2, "\"rope_parameters\":{\"full_attention\":{}},", "", PG_ERROR_UNSUPPORTED, "per layer type", NULL},
        {1, "\"rope_parameters\":[],", "", PG_ERROR_FORMAT, "text_config.rope_parameters", "an array of 0"},
        {1, "\"rope_theta\":0,", "", PG_ERROR_FORMAT, "text_config.rope_parameters.rope_theta: found 0", "positive"},
        {1, "\"rope_theta\":1e300,", "", PG_ERROR_FORMAT, "rope_theta: found 1e300", NULL},
        {1, "\"rms_norm_eps\":\"1e-6\",", "", PG_ERROR_FORMAT, "text_config.rms_norm_eps: found \"1e-6\"", NULL},
        {1, "\"rms_norm_eps\":{\"__float__\":\"NaN\"},", "", PG_ERROR_FORMAT,
         "text_config.rms_norm_eps: found an object", NULL},
        {1, "\"hidden_act\":\"quick_gelu\",", "", PG_ERROR_UNSUPPORTED, "text_config.hidden_act: found \"quick_gelu\"",
         NULL},
        {1, "\"hidden_act\":3,", "", PG_ERROR_FORMAT, "text_config.hidden_act: found 3", NULL},
        {1, "\"max_position_embeddings\":1.5,", "", PG_ERROR_FORMAT, "max_position_embeddings: found 1.5", "integer"},
        {1, "\"max_position_embeddings\":0,", "", PG_ERROR_FORMAT, "max_position_embeddings: found 0", "from 1"},
        {1, "\"max_position_embeddings\":3000000000,", "", PG_ERROR_LIMIT, "max_position_embeddings: found 3000000000",
         NULL},
        {1, "\"max_position_embeddings\":99999999999999999999,", "", PG_ERROR_FORMAT, "config.json: line 1", "integer"},
        {1, "\"attention_bias\":1,", "", PG_ERROR_FORMAT, "text_config.attention_bias: found 1", NULL},
        {1, "\"per_layer_config\":{\"0\":{}},", "", PG_ERROR_UNSUPPORTED, "per_layer_config", NULL},
        {1, "\"id2label\":3,", "", PG_ERROR_FORMAT, "text_config.id2label: found 3", NULL},
        {1, "\"num_labels\":1e9,", "", PG_ERROR_FORMAT, "text_config.num_labels", NULL},
        {2, "\"layer_types\":[\"full_attention\"],", "", PG_ERROR_FORMAT, "layer_types: found 1 entries",
         "num_hidden_layers, 2"},
        {2, "\"layer_types\":[\"full_attention\",\"conv\"],", "", PG_ERROR_UNSUPPORTED, "layer_types: found \"conv\"",
         NULL},
        {2, "\"layer_types\":[\"full_attention\",4],", "", PG_ERROR_FORMAT, "layer_types: found 4", NULL},
        {2, "\"layer_types\":\"all\",", "", PG_ERROR_FORMAT, "layer_types: found \"all\"", NULL},
        {2, "\"sliding_window\":0,", "", PG_ERROR_FORMAT, "sliding_window: found 0", NULL},
        {2, "\"attn_logit_softcapping\":0.0,", "", PG_ERROR_FORMAT, "attn_logit_softcapping: found 0.0", NULL},
        {2, "\"final_logit_softcapping\":-3,", "", PG_ERROR_FORMAT, "final_logit_softcapping: found -3", NULL},
        {1, "\"final_logit_softcapping\":-3,", "", PG_ERROR_FORMAT, "final_logit_softcapping: found -3", NULL},
        {2, "\"query_pre_attn_scalar\":0,", "", PG_ERROR_FORMAT, "query_pre_attn_scalar: found 0", NULL},
        {2, "\"hidden_activation\":null,", "", PG_ERROR_FORMAT, "hidden_activation: found null", NULL},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        pgi_config c;
        write_config(cases[i].gemma_version, cases[i].text, cases[i].top);
        assert_error(pgi_config_load(MEMORY, folder, &c), cases[i].status, cases[i].first, cases[i].second);
        assert_message("config.json");
    }
    /* Whole files: keys that write_config() sets itself. */
    static const struct {
        const char *text;
        pg_status status;
        const char *first, *second;
    } files[] = {
        {"{\"model_type\":\"gemma3\"}", PG_ERROR_UNSUPPORTED, "model_type: found \"gemma3\"", "\"paligemma\""},
        {"{\"model_type\":3}", PG_ERROR_FORMAT, "model_type: found 3", NULL},
        {"{\"text_config\":{\"model_type\":\"llama\"}}", PG_ERROR_UNSUPPORTED,
         "text_config.model_type: found \"llama\"", "gemma2"},
        {"{\"vision_config\":{\"model_type\":\"clip_vision_model\"}}", PG_ERROR_UNSUPPORTED, "vision_config.model_type",
         "clip"},
        {"{\"vision_config\":7}", PG_ERROR_FORMAT, "vision_config: found 7", NULL},
        {"{\"vision_config\":{\"image_size\":[224,224]}}", PG_ERROR_FORMAT,
         "vision_config.image_size: found an array of 2", NULL},
        {"{\"vision_config\":{\"image_size\":13}}", PG_ERROR_FORMAT, "vision_config.patch_size: found 16",
         "image_size, 13"},
        {"{\"vision_config\":{\"image_size\":16384,\"patch_size\":2}}", PG_ERROR_LIMIT, "67108864 patches", NULL},
        {"{\"vision_config\":{\"image_size\":1e300}}", PG_ERROR_FORMAT, "vision_config.image_size", NULL},
        {"{\"vision_config\":{\"image_size\":9223372036854775807,\"patch_size\":1}}", PG_ERROR_LIMIT,
         "vision_config.image_size", NULL},
        {"{\"vision_config\":{\"num_channels\":4}}", PG_ERROR_UNSUPPORTED, "vision_config.num_channels: found 4", NULL},
        {"{\"vision_config\":{\"num_attention_heads\":7}}", PG_ERROR_FORMAT, "vision_config.hidden_size: found 768",
         "7"},
        {"{\"vision_config\":{\"hidden_size\":65536,\"num_attention_heads\":1}}", PG_ERROR_LIMIT, "heads of 65536",
         NULL},
        {"{\"vision_config\":{\"layer_norm_eps\":null}}", PG_ERROR_FORMAT, "layer_norm_eps: found null", NULL},
        {"{\"text_config\":{\"head_dim\":7}}", PG_ERROR_FORMAT, "text_config.head_dim: found 7", "even"},
        {"{\"text_config\":{\"head_dim\":null}}", PG_ERROR_FORMAT, "text_config.head_dim: found null", NULL},
        {"{\"text_config\":{\"num_key_value_heads\":5}}", PG_ERROR_FORMAT, "num_attention_heads: found 16", "5"},
        {"{\"text_config\":{\"hidden_size\":1000000}}", PG_ERROR_LIMIT, "text_config.hidden_size: found 1000000",
         "65536"},
        {"{\"text_config\":{\"hidden_size\":-5}}", PG_ERROR_FORMAT, "text_config.hidden_size: found -5", NULL},
        {"{\"text_config\":{\"num_hidden_layers\":1e15,\"model_type\":\"gemma2\"}}", PG_ERROR_LIMIT,
         "num_hidden_layers", NULL},
        {"{\"text_config\":{\"num_hidden_layers\":4000000000,\"model_type\":\"gemma2\"}}", PG_ERROR_LIMIT,
         "num_hidden_layers", NULL},
        {"{\"text_config\":{\"vocab_size\":5000000}}", PG_ERROR_LIMIT, "text_config.vocab_size: found 5000000", NULL},
        {"{\"text_config\":{}}", PG_ERROR_FORMAT, "projection_dim: found 2048", "text_config.hidden_size, 3072"},
        {"[]", PG_ERROR_FORMAT, "config.json: found an array of 0", NULL},
        {"{\"a\":\"\\ud800\"}", PG_ERROR_FORMAT, "config.json: line 1", NULL},
    };
    pgi_config c;
    for (size_t i = 0; i < COUNT(files); i++) {
        write_text("config.json", files[i].text);
        assert_error(pgi_config_load(MEMORY, folder, &c), files[i].status, files[i].first, files[i].second);
        assert_message("config.json");
    }
    delete_file("config.json");
    assert_error(pgi_config_load(MEMORY, folder, &c), PG_ERROR_NOT_FOUND, in_folder("config.json"), NULL);
}

static void either_gemma_may_cap_its_logits(void **state) {
    (void)state;
    static const struct {
        int gemma_version;
        const char *text;
        float cap;
    } cases[] = {{1, "", 0},
                 {1, "\"final_logit_softcapping\":null,", 0},
                 {1, "\"final_logit_softcapping\":2.5,", 2.5f},
                 {2, "", 30},
                 {2, "\"final_logit_softcapping\":null,", 0}};
    for (size_t i = 0; i < COUNT(cases); i++) {
        pgi_config c;
        write_config(cases[i].gemma_version, cases[i].text, "");
        assert_int_equal(pgi_config_load(MEMORY, folder, &c), PG_OK);
        assert_true(c.text.final_soft_cap == cases[i].cap);
        pgi_config_free(&c);
    }
}

static void config_does_not_depend_on_the_locale(void **state) {
    (void)state;
    static const char *const names[] = {"de_DE.UTF-8", "de_DE.utf8", "fr_FR.UTF-8", "de_DE"};
    const char *set = NULL;
    for (size_t i = 0; i < COUNT(names) && !set; i++) set = setlocale(LC_NUMERIC, names[i]);
    if (!set) skip(); /* no locale with a decimal comma is installed */
    pgi_config c;
    pgi_buffer text;
    pgi_buffer_init(&text, MEMORY);
    write_config(2, "\"final_logit_softcapping\":30.5,", "");
    assert_int_equal(pgi_config_load(MEMORY, folder, &c), PG_OK);
    assert_true(c.text.final_soft_cap == 30.5f);
    assert_int_equal(pgi_json_dump(pgi_config_field(&c, "text_config.final_logit_softcapping"), &text), PG_OK);
    assert_string_equal(text.data, "30.5");
    pgi_buffer_free(&text);
    pgi_config_free(&c);
    setlocale(LC_NUMERIC, "C");
}

int main(int argc, char **argv) {
#define TEST(function) cmocka_unit_test_setup_teardown(function, make_folder, remove_folder)
    const struct CMUnitTest tests[] = {
        TEST(official_config_gets_defaults),
        TEST(config_without_parts_is_paligemma_3b),
        TEST(gemma2_config),
        TEST(gemma1_activation_and_rope),
        TEST(special_ids_come_from_where_hf_takes_them),
        TEST(generation_settings_are_followed_or_named),
        TEST(config_errors_name_the_key),
        TEST(either_gemma_may_cap_its_logits),
        TEST(config_does_not_depend_on_the_locale),
    };
#undef TEST
    return RUN_TESTS(tests, NULL, NULL);
}
