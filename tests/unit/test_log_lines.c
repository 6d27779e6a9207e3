/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* What the log says when something in a folder is not followed, and that it says nothing of a sound one. */
#include "run_tests.h"

#include "api_fixture.h"

typedef struct warnings {
    int n;
    char text[2048];
} warnings;

static void on_warning(void *user, int32_t level, const char *message) {
    warnings *w = user;
    if (level != PG_LOG_WARNING) return;
    w->n++;
    snprintf(w->text + strlen(w->text), sizeof w->text - strlen(w->text), "%s\n", message);
}

/* Opens model and processor of a folder. */
static warnings open_both(const char *of) {
    warnings w = {0};
    pg_model_options model_options;
    pg_processor_options processor_options;
    pg_model *m = NULL;
    pg_processor *p = NULL;
    OK(pg_model_options_init(&model_options, sizeof model_options));
    OK(pg_processor_options_init(&processor_options, sizeof processor_options));
    model_options.log = processor_options.log = on_warning;
    model_options.log_user = processor_options.log_user = &w;
    OK(pg_model_open(of, &model_options, &m));
    OK(pg_processor_open(of, &processor_options, &p));
    pg_model_close(&m);
    pg_processor_close(&p);
    return w;
}

static void expect_warnings(const char *of, int n, const char *first, const char *second) {
    warnings w = open_both(of);
    if (w.n != n || (first && !strstr(w.text, first)) || (second && !strstr(w.text, second)))
        fail_msg("found %d warnings:\n%s", w.n, w.text);
}

static void make_folder(char of[512], tiny_options options) {
    make_temp_folder(of, 512);
    tiny_write(of, &options);
}

static void sound_folders_say_nothing(void **state) {
    char of[512];
    (void)state;
    for (int i = 0; i < 4; i++) {
        tiny_options options = i % 2 ? tiny_saved_today() : tiny_official();
        options.colpali = i / 2 ? TINY_COLPALI : TINY_NO_COLPALI;
        make_folder(of, options);
        expect_warnings(of, 0, NULL, NULL);
        remove_folder(of);
    }
}

static void no_eos_anywhere(void **state) {
    char of[512];
    (void)state;
    make_folder(of, tiny_official());
    write_text(of, "generation_config.json", "{\"bos_token_id\":2}");
    expect_warnings(of, 1, "found no eos_token_id", "max_new_tokens");
    write_text(of, "generation_config.json", "{\"eos_token_id\":null}");
    expect_warnings(of, 1, "found no eos_token_id", NULL);
    write_text(of, "generation_config.json", "{\"eos_token_id\":[]}");
    expect_warnings(of, 1, "found no eos_token_id", NULL);
    remove_file(of, "generation_config.json"); /* config.json has one */
    expect_warnings(of, 0, NULL, NULL);
    remove_folder(of);
}

static void all_settings_that_are_not_followed(void **state) {
    char of[512];
    (void)state;
    make_folder(of, tiny_saved_today());
    write_text(of, "generation_config.json",
               "{\"eos_token_id\":1,\"num_beams\":4,\"top_k\":\"a\",\"guidance_scale\":3,\"do_sample\":false}");
    expect_warnings(of, 1, "follows top_k, guidance_scale, this library does not", "generation_config.json");
    remove_folder(of);
}

/* The pieces of tokenizer.model are others than those of tokenizer.json: one letter, or one piece more. */
static void tokenizers_that_differ(void **state) {
    static const char cat[] =
        "\x0A\x03"
        "cat"; /* field 1, 3 bytes */
    char of[512];
    (void)state;
    make_folder(of, tiny_official());
    bytes file = read_file(of, "tokenizer.model");
    uint8_t *at = NULL;
    for (size_t i = 0; i + sizeof cat - 1 <= file.size && !at; i++)
        if (memcmp(file.data + i, cat, sizeof cat - 1) == 0) at = file.data + i;
    assert_non_null(at);
    at[2] = 'k';
    write_file(of, "tokenizer.model", file.data, file.size);
    expect_warnings(of, 1, "tokenizer.json and tokenizer.model differ", "tokenizer.json is used");
    at[2] = 'c';
    bytes more = {0}; /* a piece "zz" at the end */
    bytes_add(&more, file.data, file.size);
    bytes_add(&more, "\x0A\x04\x0A\x02zz", 6);
    write_file(of, "tokenizer.model", more.data, more.size);
    expect_warnings(of, 1, "tokenizer.json and tokenizer.model differ", NULL);
    write_file(of, "tokenizer.model", file.data, file.size);
    expect_warnings(of, 0, NULL, NULL);
    bytes_free(&file);
    bytes_free(&more);
    remove_folder(of);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sound_folders_say_nothing),
        cmocka_unit_test(no_eos_anywhere),
        cmocka_unit_test(all_settings_that_are_not_followed),
        cmocka_unit_test(tokenizers_that_differ),
    };
    (void)setup, (void)teardown; /* of the other programs */
    return RUN_TESTS(tests, NULL, NULL);
}
