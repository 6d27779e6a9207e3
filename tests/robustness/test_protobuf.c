/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * A host that brings its own protobuf, as TensorFlow does: this program exports a function of it, and the loader binds
 * libsentencepiece's calls to that one. A processor that was asked for sentencepiece must do without it.
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

static void open_and_read(uint32_t flags) {
    static const char text[] = "the cat <loc0001> \xC3\xA9\n\nsat";
    char folder[512], back[64];
    pg_processor *processor = NULL;
    int64_t ids[64];
    pg_processor_options opening;
    pg_processor_info info = {.struct_size = sizeof info};
    size_t n = 0;
    tiny_options options = tiny_official();
    make_temp_folder(folder, sizeof folder);
    tiny_write(folder, &options);
    assert_int_equal(pg_processor_options_init(&opening, sizeof opening), PG_OK);
    opening.flags = flags;
    assert_int_equal(pg_processor_open(folder, &opening, &processor), PG_OK);
    assert_int_equal(pg_processor_get_info(processor, &info), PG_OK);
    assert_int_equal(info.flags, 0);
    assert_int_equal(pg_processor_tokenize(processor, text, 0, ids, 64, &n), PG_OK);
    assert_in_range(n, 2, 64);
    assert_int_equal(pg_processor_decode(processor, ids, n, 0, back, sizeof back, NULL), PG_OK);
    assert_string_equal(back, text);
    pg_processor_close(&processor);
    remove_folder(folder);
}

static void test_own_protobuf(void **state) {
    (void)state;
    open_and_read(0);
#ifdef PGI_SENTENCEPIECE
    open_and_read(PG_PROCESSOR_SENTENCEPIECE);
#endif
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_own_protobuf)};
    return RUN_TESTS(tests, NULL, NULL);
}
