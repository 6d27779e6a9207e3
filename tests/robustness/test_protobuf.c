/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * A host that brings its own protobuf, as TensorFlow does: this program exports a function of it, and the loader binds
 * libsentencepiece's calls to that one. The tokenizer must do without sentencepiece, and give what it gives with it.
 */
#include "run_tests.h"

#include "support.h"
#include "tiny.h"

/* google::protobuf::MessageLite::ParseFromArray(void const *, int) */
int parse_from_array(const void *self, const void *data,
                     int size) __asm__("_ZN6google8protobuf11MessageLite14ParseFromArrayEPKvi")
    __attribute__((visibility("default"), used));

int parse_from_array(const void *self, const void *data, int size) {
    (void)self, (void)data, (void)size;
    fail_msg("sentencepiece called the host's protobuf");
    return 0;
}

static void test_own_protobuf(void **state) {
    (void)state;
    static const char text[] = "the cat <loc0001> \xC3\xA9\n\nsat";
    char folder[512], back[64];
    pg_processor *processor = NULL;
    int64_t ids[64];
    size_t n = 0;
    tiny_options options = tiny_official();
    make_temp_folder(folder, sizeof folder);
    tiny_write(folder, &options);
    assert_int_equal(pg_processor_open(folder, NULL, &processor), PG_OK);
    assert_int_equal(pg_processor_tokenize(processor, text, 0, ids, 64, &n), PG_OK);
    assert_in_range(n, 2, 64);
    assert_int_equal(pg_processor_decode(processor, ids, n, 0, back, sizeof back, NULL), PG_OK);
    assert_string_equal(back, text);
    pg_processor_close(&processor);
    remove_folder(folder);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_own_protobuf)};
    return RUN_TESTS(tests, NULL, NULL);
}
