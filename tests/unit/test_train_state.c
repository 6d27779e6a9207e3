/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * lib/train/state.h and peft_config.h: what is saved comes back to the bit; PEFT's own text of adapter_config.json;
 * other parameters, damage, a save that is cut off or fails, refused memory.
 */
#include "run_tests.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "checkpoint/adapter_config.h"
#include "checkpoint/safetensors.h"
#include "expect_status.h"
#include "peft_config_cases.h"
#include "support.h"
#include "train/state.h"

#define STATE "trainer_state.safetensors"
#define Q "base_model.model.model.language_model.layers.0.self_attn.q_proj"

static char base[512], folder[600];
static const pgi_run alone = {.n_threads = 1};
static const char *const targets[] = {"q_proj", "v_proj"}, *const saved[] = {"norm"};
static const pgi_train_config config = {.base = "some/where",
                                        .rank = 3,
                                        .rslora = 1,
                                        .alpha = 6,
                                        .dropout = 0.05,
                                        .targets = targets,
                                        .n_targets = 2,
                                        .saved = saved,
                                        .n_saved = 1};

static int setup(void **state) {
    (void)state;
    make_temp_folder(base, sizeof base);
    snprintf(folder, sizeof folder, "%s/out", base);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    remove_folder(base);
    return 0;
}

static int remove_out(void **state) {
    (void)state;
    if (access(folder, F_OK) == 0) remove_folder(folder);
    return 0;
}

/* Parameters with values of a seed; 0: zeros. rank: of A and B. */
static void make(pgi_parameters *p, const pgi_memory *memory, int64_t rank, uint64_t seed) {
    pgi_parameters_init(p, memory);
    OK(pgi_parameters_add(p, Q ".lora_B.weight", 2, (int64_t[]){8, rank}, 1));
    OK(pgi_parameters_add(p, "base_model.model.model.language_model.norm.weight", 1, (int64_t[]){8}, 0));
    OK(pgi_parameters_add(p, Q ".lora_A.weight", 4, (int64_t[]){rank, 3, 2, 2}, 1));
    OK(pgi_parameters_make(p));
    rng r = {seed};
    for (size_t i = 0; i < p->n && seed; i++)
        for (size_t k = p->list[i].at; k < p->list[i].at + p->list[i].n; k++) {
            p->values[k] = rng_unit(&r);
            p->mean[k] = rng_unit(&r);
            p->square[k] = fabsf(rng_unit(&r));
        }
}

static void expect_same(const pgi_parameters *a, const pgi_parameters *b) {
    assert_int_equal(a->n_values, b->n_values);
    const size_t size = a->n_values * sizeof(float);
    assert_memory_equal(a->values, b->values, size);
    assert_memory_equal(a->mean, b->mean, size);
    assert_memory_equal(a->square, b->square, size);
}

static pg_status save(const pgi_parameters *p, int64_t step) {
    return pgi_train_save(&pgi_memory_default, folder, &config, p, step);
}

static pg_status load(pgi_parameters *p, int64_t *step) {
    return pgi_train_load(&pgi_memory_default, &alone, folder, &config, p, step);
}

/* The folder's state is that of a seed and a step. */
static void expect_state(uint64_t seed, int64_t expected) {
    pgi_parameters p, q;
    int64_t step = -1;
    make(&p, &pgi_memory_default, 3, seed);
    make(&q, &pgi_memory_default, 3, 0);
    OK(load(&q, &step));
    assert_int_equal(step, expected);
    expect_same(&p, &q);
    pgi_parameters_free(&p);
    pgi_parameters_free(&q);
}

static void save_seed(uint64_t seed, int64_t step) {
    pgi_parameters p;
    make(&p, &pgi_memory_default, 3, seed);
    OK(save(&p, step));
    pgi_parameters_free(&p);
}

/* ------------------------------------------------------------------------------------------------------------ sound */

static void what_is_saved_comes_back(void **state) {
    static const int64_t steps[] = {0, 1, 1234567, INT64_MAX};
    static const float odd[] = {-0.0f, FLT_MIN, 1e-45f, -FLT_MAX, FLT_MAX, 1 + FLT_EPSILON};
    pgi_parameters p, q;
    (void)state;
    make(&p, &pgi_memory_default, 3, 1);
    memcpy(p.values + p.list[0].at, odd, sizeof odd);
    memcpy(p.mean + p.list[1].at, odd, sizeof odd);
    for (int i = 0; i < 4; i++) {
        int64_t step = -1;
        OK(save(&p, steps[i]));
        make(&q, &pgi_memory_default, 3, 0);
        OK(load(&q, &step));
        assert_int_equal(step, steps[i]);
        expect_same(&p, &q);
        pgi_parameters_free(&q);
    }
    bytes first = read_file(folder, STATE);
    OK(save(&p, INT64_MAX)); /* the same bytes again */
    bytes again = read_file(folder, STATE);
    assert_int_equal(first.size, again.size);
    assert_memory_equal(first.data, again.data, first.size);
    bytes_free(&first);
    bytes_free(&again);
    pgi_parameters_free(&p);
}

/* With nothing to train, too. */
static void no_parameters_are_a_state(void **state) {
    pgi_parameters p;
    int64_t step = -1;
    (void)state;
    pgi_parameters_init(&p, &pgi_memory_default);
    OK(pgi_parameters_make(&p));
    OK(save(&p, 3));
    OK(load(&p, &step));
    assert_int_equal(step, 3);
    pgi_parameters_free(&p);
}

static void the_adapter_is_one_of_peft(void **state) {
    pgi_parameters p;
    pgi_tensor_files *files;
    pgi_adapter_config read;
    float values[64];
    int32_t rank;
    (void)state;
    make(&p, &pgi_memory_default, 3, 1);
    OK(save(&p, 5));
    OK(pgi_tensor_files_open_adapter(&pgi_memory_default, folder, NULL, &files));
    assert_int_equal(pgi_tensor_files_count(files), p.n);
    for (size_t i = 0; i < p.n; i++) {
        const pgi_stored_tensor *tensor = pgi_tensor_files_find(files, p.list[i].name);
        assert_non_null(tensor);
        assert_int_equal(tensor->dtype, PG_DTYPE_F32);
        assert_int_equal(tensor->n_dims, p.list[i].n_dims);
        assert_memory_equal(tensor->shape, p.list[i].shape, (size_t)tensor->n_dims * sizeof *tensor->shape);
        OK(pgi_tensor_files_read_f32(files, tensor, 0, (int64_t)p.list[i].n, values));
        assert_memory_equal(values, p.values + p.list[i].at, p.list[i].n * sizeof *values);
    }
    const pgi_tensor_file_info info = pgi_tensor_files_file(files, 0);
    assert_int_equal((info.header_size + 8) % 64, 0);
    assert_string_equal(pgi_json_text(pgi_json_get(info.metadata, "format")), "pt");
    pgi_tensor_files_close(&files);
    pgi_parameters_free(&p);
    OK(pgi_adapter_config_load(&pgi_memory_default, folder, &read));
    assert_string_equal(read.base, "some/where");
    assert_true(fabs(pgi_adapter_config_scale(&read, "x.q_proj", &rank) - 6 / sqrt(3.0)) < 1e-15);
    assert_int_equal(rank, 3);
    pgi_adapter_config_free(&read);
}

static void configs_are_those_of_peft(void **state) {
    static const char *const layer[] = {"model.language_model.layers.0.mlp.up_proj"};
    static const char *const two[] = {"lm_head", "multi_modal_projector.linear"};
    const pgi_train_config cases[] = {
        {.base = "google/paligemma-3b-mix-224", .rank = 8, .alpha = 8, .targets = targets, .n_targets = 2},
        {.base = "\xC3\xA9\xD0\x96\xE6\xBC\xA2\xF0\x9F\x98\x80 \"\\\t\n\r\1\x7F/",
         .rank = 64,
         .rslora = 1,
         .alpha = 128,
         .dropout = 0.05,
         .targets = layer,
         .n_targets = 1,
         .saved = two,
         .n_saved = 2},
        {.rank = 8, .alpha = 0.1, .dropout = 0.1 + 0.2, .target_pattern = ".*language_model.*\\.(q|v)_proj"},
        {.rank = 1, .alpha = 32, .dropout = 1e-4, .target_pattern = "all-linear"},
        {.rank = 0, .alpha = 8, .saved = saved, .n_saved = 1}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pgi_buffer text;
        pgi_buffer_init(&text, &pgi_memory_default);
        OK(pgi_peft_config_write(&cases[i], &text));
        assert_string_equal((const char *)text.data, peft_config_cases[i]);
        pgi_buffer_free(&text);
    }
}

/* A path of other bytes than UTF-8 does not make a file that nobody reads. */
static void any_path_gives_json(void **state) {
    pgi_parameters p;
    pgi_adapter_config read;
    pgi_train_config odd = config;
    (void)state;
    odd.base = "caf\xE9/\xF0\x9F";
    make(&p, &pgi_memory_default, 3, 1);
    OK(pgi_train_save(&pgi_memory_default, folder, &odd, &p, 1));
    OK(pgi_adapter_config_load(&pgi_memory_default, folder, &read));
    assert_string_equal(read.base, "caf\xEF\xBF\xBD/\xEF\xBF\xBD\xEF\xBF\xBD");
    pgi_adapter_config_free(&read);
    pgi_parameters_free(&p);
    expect_state(1, 1);
}

/* ---------------------------------------------------------------------------------------------------- other parameters
 */

static void other_parameters_are_told(void **state) {
    pgi_parameters p;
    int64_t step = -1;
    (void)state;
    save_seed(1, 5);
    make(&p, &pgi_memory_default, 4, 0);
    ERROR(load(&p, &step), PG_ERROR_ARGUMENT, Q ".lora_A.weight: found shape [3, 3, 2, 2]", "[4, 3, 2, 2]");
    pgi_parameters_free(&p);

    pgi_parameters_init(&p, &pgi_memory_default);
    OK(pgi_parameters_add(&p, Q ".lora_A.weight", 4, (int64_t[]){3, 3, 2, 2}, 1));
    OK(pgi_parameters_make(&p));
    ERROR(load(&p, &step), PG_ERROR_ARGUMENT, "lora_B.weight: found a parameter that these options do not train",
          "give");
    pgi_parameters_free(&p);

    pgi_parameters_init(&p, &pgi_memory_default);
    OK(pgi_parameters_add(&p, "more", 1, (int64_t[]){3}, 1));
    OK(pgi_parameters_make(&p));
    ERROR(load(&p, &step), PG_ERROR_ARGUMENT, "tensor more: found none", "give");
    pgi_parameters_free(&p);
    assert_int_equal(step, -1);
}

/* What changes what the parameters mean. */
static void other_options_are_told(void **state) {
    pgi_parameters p;
    pgi_train_config other = config;
    int64_t step = -1;
    (void)state;
    save_seed(1, 5);
    make(&p, &pgi_memory_default, 3, 0);
    other.alpha = 6.5;
    ERROR(pgi_train_load(&pgi_memory_default, &alone, folder, &other, &p, &step), PG_ERROR_ARGUMENT,
          "lora_alpha: found 6", "expected 6.5, the alpha of these options");
    other = config, other.rslora = 0;
    ERROR(pgi_train_load(&pgi_memory_default, &alone, folder, &other, &p, &step), PG_ERROR_ARGUMENT,
          "use_rslora: found true", "expected false");
    other = config, other.alpha = 1.0 / 3, other.rslora = 0;
    OK(pgi_train_save(&pgi_memory_default, folder, &other, &p, 7));
    OK(pgi_train_load(&pgi_memory_default, &alone, folder, &other, &p, &step));
    other.rslora = 1;
    ERROR(pgi_train_load(&pgi_memory_default, &alone, folder, &other, &p, &step), PG_ERROR_ARGUMENT,
          "use_rslora: found false", "expected true");
    other.alpha = nextafter(other.alpha, 1);
    ERROR(pgi_train_load(&pgi_memory_default, &alone, folder, &other, &p, &step), PG_ERROR_ARGUMENT,
          "lora_alpha: found 0.333", "expected 0.333");
    other.rank = 0; /* no parameter depends on them */
    OK(pgi_train_load(&pgi_memory_default, &alone, folder, &other, &p, &step));
    other = config, other.alpha = 1.0 / 3, other.rslora = 0, other.dropout = 0.5, other.base = "elsewhere";
    OK(pgi_train_load(&pgi_memory_default, &alone, folder, &other, &p, &step));
    pgi_parameters_free(&p);
}

/* ----------------------------------------------------------------------------------------------------------- damage */

/* Puts `text` in the place of `old`, of the same length, in the header of a state. */
static void change_state(const char *old, const char *text) {
    bytes file = read_file(folder, STATE);
    const size_t n = strlen(old);
    assert_int_equal(n, strlen(text));
    size_t at = 8;
    while (at + n <= file.size && memcmp(file.data + at, old, n) != 0) at++;
    assert_true(at + n <= file.size);
    memcpy(file.data + at, text, n);
    write_file(folder, STATE, file.data, file.size);
    bytes_free(&file);
}

static void wrong_states_are_told(void **state) {
    static const struct {
        const char *old, *text;
        pg_status status;
        const char *first, *second;
    } cases[] = {
        {"libpaligemma trainer", "libpaligemma trainee", PG_ERROR_FORMAT, "format: found \"libpaligemma trainee\"", ""},
        {"\"format\"", "\"formad\"", PG_ERROR_FORMAT, "format: found nothing", "pg_trainer_save()"},
        {"\"version\":\"1\"", "\"version\":\"2\"", PG_ERROR_UNSUPPORTED, "version: found \"2\"",
         "version of the library"},
        {"\"step\":\"41\"", "\"step\":\"42\"", PG_ERROR_FORMAT, "checksum", "damaged"},
        {"\"step\":\"41\"", "\"step\":\"04\"", PG_ERROR_FORMAT, "step: found \"04\"", "updates"},
        {"\"step\":\"41\"", "\"step\":\"-1\"", PG_ERROR_FORMAT, "step: found \"-1\"", "updates"},
        {"\"step\":\"41\"", "\"step\":41  ", PG_ERROR_FORMAT, "step: found 41", "text"},
        {"\"crc32\"", "\"crc33\"", PG_ERROR_FORMAT, "crc32: found nothing", "8 hex"},
        {"\"options\"", "\"option5\"", PG_ERROR_FORMAT, "options: found nothing", "adapter_config.json"},
        {"some/where", "some/there", PG_ERROR_FORMAT, "checksum", "damaged"},
        {"\"" Q ".lora_A.weight.mean\"", "\"" Q ".lora_A.weight.Mean\"", PG_ERROR_FORMAT, "mean: found none", "beside"},
        {"\"" Q ".lora_A.weight\"", "\"" Q ".lora_C.weight\"", PG_ERROR_ARGUMENT, "lora_A.weight: found none", "give"},
        {"square\":{\"dtype\":\"F32\"", "square\":{\"dtype\":\"I32\"", PG_ERROR_FORMAT, "dtype I32", "F32"},
        {"mean\":{\"dtype\":\"F32\",\"shape\":[3,3,2,2]", "mean\":{\"dtype\":\"F32\",\"shape\":[2,3,3,2]",
         PG_ERROR_FORMAT, "shape [2, 3, 3, 2]", "as its parameter has"},
        {"\"dtype\"", "\"dtipe\"", PG_ERROR_FORMAT, "dtype: found nothing", "name"},
    };
    pgi_parameters p;
    int64_t step;
    (void)state;
    make(&p, &pgi_memory_default, 3, 0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        save_seed(1, 41);
        change_state(cases[i].old, cases[i].text);
        ERROR(load(&p, &step), cases[i].status, cases[i].first, cases[i].second);
    }
    pgi_parameters_free(&p);
}

static void values_that_are_no_numbers_are_told(void **state) {
    static const float wrong[] = {NAN, INFINITY, -INFINITY, -1};
    pgi_parameters p, q;
    int64_t step;
    (void)state;
    make(&q, &pgi_memory_default, 3, 0);
    for (int i = 0; i < 4; i++)
        for (int kind = 0; kind < 3; kind++) {
            make(&p, &pgi_memory_default, 3, 1);
            float *vectors[] = {p.values, p.mean, p.square};
            vectors[kind][p.list[2].at + 4] = wrong[i];
            OK(save(&p, 2));
            if (wrong[i] == -1 && kind < 2)
                OK(load(&q, &step));
            else
                ERROR(load(&q, &step), PG_ERROR_FORMAT, "value 4 is ", "expected a finite number");
            pgi_parameters_free(&p);
        }
    pgi_parameters_free(&q);
}

/* No bit of the file can change without a word: what still loads is what was saved. */
static void damage_is_noticed(void **state) {
    pgi_parameters p, q;
    int n_loaded = 0;
    rng r = {1};
    (void)state;
    save_seed(1, 41);
    make(&p, &pgi_memory_default, 3, 1);
    make(&q, &pgi_memory_default, 3, 0);
    bytes file = read_file(folder, STATE);
    for (size_t at = 0; at < file.size; at++) {
        const uint8_t kept = file.data[at];
        int64_t step = -1;
        file.data[at] ^= (uint8_t)(1 << rng_below(&r, 8));
        write_file(folder, STATE, file.data, file.size);
        stale_error();
        const pg_status status = load(&q, &step);
        file.data[at] = kept;
        if (status < 0) {
            if (bad_error(status)) fail_msg("byte %zu: %s: %s", at, bad_error(status), pg_last_error());
            continue;
        }
        assert_int_equal(step, 41);
        expect_same(&p, &q);
        n_loaded++;
    }
    assert_true(n_loaded < 64); /* spaces behind the header */
    for (size_t size = 0; size < file.size; size += size < 200 ? 1 : 61) {
        int64_t step;
        write_file(folder, STATE, file.data, size);
        ERROR(load(&q, &step), PG_ERROR_FORMAT, STATE, "found");
    }
    bytes_free(&file);
    pgi_parameters_free(&p);
    pgi_parameters_free(&q);
}

/* ---------------------------------------------------------------------------------------------- folders and saving */

static void folders_that_are_none_are_told(void **state) {
    pgi_parameters p;
    int64_t step;
    char path[700];
    (void)state;
    make(&p, &pgi_memory_default, 3, 1);
    ERROR(load(&p, &step), PG_ERROR_NOT_FOUND, "out/" STATE, "pg_trainer_save()");
    write_text(base, "out", "a file");
    ERROR(save(&p, 1), PG_ERROR_ARGUMENT, "out: found a file", "expected a folder");
    ERROR(load(&p, &step), PG_ERROR_NOT_FOUND, "out/" STATE, "pg_trainer_save()");
    remove_file(base, "out");
    snprintf(path, sizeof path, "%s/none/out", base);
    ERROR(pgi_train_save(&pgi_memory_default, path, &config, &p, 1), PG_ERROR_NOT_FOUND, "none/out", "make the folder");
    snprintf(path, sizeof path, "%s//", folder);
    OK(pgi_train_save(&pgi_memory_default, path, &config, &p, 1));
    expect_state(1, 1);
    pgi_parameters_free(&p);
}

/* A folder has the name of a file: of the state, nothing was written; of another, the state is the new one. */
static void names_that_are_folders_are_told(void **state) {
    static const char *const names[] = {STATE, "adapter_model.safetensors", "adapter_config.json"};
    pgi_parameters p;
    char path[700];
    (void)state;
    make(&p, &pgi_memory_default, 3, 2);
    for (int i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        if (i == 0) assert_int_equal(mkdir(folder, 0777), 0);
        if (i > 0) save_seed(1, 1);
        if (i > 0) remove_file(folder, names[i]);
        assert_int_equal(mkdir(path, 0777), 0);
        ERROR(save(&p, 2), PG_ERROR_ARGUMENT, names[i], "found a folder");
        if (i > 0) expect_state(2, 2);
        assert_int_equal(rmdir(path), 0);
        if (i == 0) assert_int_equal(rmdir(folder), 0); /* it is empty */
    }
    pgi_parameters_free(&p);
}

/* Whichever of the files a killed process left as they were, and what it left half-written beside them. */
static void a_save_that_was_cut_off_is_no_loss(void **state) {
    static const char *const names[] = {STATE, "adapter_model.safetensors", "adapter_config.json"};
    bytes old[3];
    (void)state;
    save_seed(1, 10);
    for (int i = 0; i < 3; i++) old[i] = read_file(folder, names[i]);
    for (int n_new = 0; n_new <= 3; n_new++) {
        save_seed(2, 20);
        for (int i = n_new; i < 3; i++) write_file(folder, names[i], old[i].data, old[i].size);
        write_file(folder, STATE ".partial-7", old[0].data, old[0].size / 2);
        expect_state(n_new ? 2 : 1, n_new ? 20 : 10);
    }
    remove_file(folder, "adapter_model.safetensors"); /* it is not read */
    remove_file(folder, "adapter_config.json");
    expect_state(2, 20);
    for (int i = 0; i < 3; i++) bytes_free(&old[i]);
}

/* The disk is full: the state before stays, nothing half-written does. */
static void a_full_disk_keeps_the_old_state(void **state) {
    pgi_parameters p;
    struct rlimit kept, small;
    (void)state;
    save_seed(1, 10);
    make(&p, &pgi_memory_default, 3, 2);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &kept), 0);
    small = kept;
    small.rlim_cur = 2000;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    ERROR(save(&p, 20), PG_ERROR_IO, STATE, "too large");
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &kept), 0);
    expect_state(1, 10);
    for (int i = 0; i < 3; i++)
        remove_file(folder, (const char *[]){STATE, "adapter_model.safetensors", "adapter_config.json"}[i]);
    assert_int_equal(rmdir(folder), 0);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    ERROR(save(&p, 20), PG_ERROR_IO, STATE, "too large");
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &kept), 0);
    assert_int_not_equal(access(folder, F_OK), 0); /* it was made for nothing */
    pgi_parameters_free(&p);
}

static void refused_memory_keeps_a_state(void **state) {
    pgi_parameters p, q;
    (void)state;
    save_seed(1, 10);
    make(&p, &pgi_memory_default, 3, 2);
    make(&q, &pgi_memory_default, 3, 0);
    for (int loads = 0; loads < 2; loads++) {
        pg_status status = PG_ERROR_MEMORY;
        for (int64_t fail = 1; status < 0; fail++) {
            counter c;
            pgi_memory memory;
            int64_t step = -1;
            counter_init(&c);
            c.fail_at = fail;
            OK(pgi_memory_from_allocator(&c.hooks, &memory));
            status = loads ? pgi_train_load(&memory, &alone, folder, &config, &q, &step)
                           : pgi_train_save(&memory, folder, &config, &p, 20);
            if (status < 0) assert_int_equal(status, PG_ERROR_MEMORY);
            assert_true(counter_clean(&c));
            if (loads || status >= 0) continue;
            OK(load(&q, &step)); /* the old one or the new one */
            expect_state(step == 10 ? 1 : 2, step == 10 ? 10 : 20);
        }
        expect_state(2, 20);
    }
    pgi_parameters_free(&p);
    pgi_parameters_free(&q);
}

static void loading_can_be_cancelled(void **state) {
    pg_cancel cancel = {.requested = 1};
    const pgi_run run = {.n_threads = 1, .cancel = &cancel};
    pgi_parameters p;
    int64_t step;
    (void)state;
    save_seed(1, 10);
    make(&p, &pgi_memory_default, 3, 0);
    ERROR(pgi_train_load(&pgi_memory_default, &run, folder, &config, &p, &step), PG_ERROR_CANCELLED, "cancelled", "");
    pgi_parameters_free(&p);
}

#define TEST(name) cmocka_unit_test_teardown(name, remove_out)

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        TEST(what_is_saved_comes_back),
        TEST(no_parameters_are_a_state),
        TEST(the_adapter_is_one_of_peft),
        TEST(configs_are_those_of_peft),
        TEST(any_path_gives_json),
        TEST(other_parameters_are_told),
        TEST(other_options_are_told),
        TEST(wrong_states_are_told),
        TEST(values_that_are_no_numbers_are_told),
        TEST(damage_is_noticed),
        TEST(folders_that_are_none_are_told),
        TEST(names_that_are_folders_are_told),
        TEST(a_save_that_was_cut_off_is_no_loss),
        TEST(a_full_disk_keeps_the_old_state),
        TEST(refused_memory_keeps_a_state),
        TEST(loading_can_be_cancelled),
    };
    return RUN_TESTS(tests, setup, teardown);
}
