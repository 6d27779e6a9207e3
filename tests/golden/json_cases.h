/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* What the tests share that replay cases of JSON. run_tests.h comes before it. */
#ifndef PGI_GOLDEN_JSON_CASES_H
#define PGI_GOLDEN_JSON_CASES_H

#include <jansson.h>
#include <paligemma/paligemma.h>

enum { MOST_IDS = 64 };

#define OK(call)                                                                                  \
    do {                                                                                          \
        pg_status status_ = (call);                                                               \
        if (status_ < 0) fail_msg("%s: %s: %s", #call, pg_status_name(status_), pg_last_error()); \
    } while (0)

static inline json_t *read_cases(const char *name) {
    char path[512];
    json_error_t error;
    snprintf(path, sizeof path, "%s/%s", GOLDEN_FOLDER, name);
    json_t *file = json_load_file(path, 0, &error);
    assert_non_null(file);
    return file;
}

static inline int64_t read_ids(const json_t *list, int64_t *ids) {
    const size_t n = json_array_size(list);
    assert_true(n <= MOST_IDS);
    for (size_t i = 0; i < n; i++) ids[i] = json_integer_value(json_array_get(list, i));
    return (int64_t)n;
}

/* Rows of ids, nothing of them a suffix. */
static inline pg_inputs *inputs_of(const int64_t *ids, int64_t n_rows, int64_t n) {
    static const int64_t types[MOST_IDS * 4];
    pg_tensor of_ids, of_types;
    pg_input_arrays arrays;
    pg_inputs *inputs = NULL;
    OK(pg_tensor_init(&of_ids, sizeof of_ids));
    of_ids.dtype = PG_DTYPE_I64;
    of_ids.n_dims = 2;
    of_ids.shape[0] = n_rows;
    of_ids.shape[1] = n;
    of_types = of_ids;
    of_ids.data = ids;
    of_types.data = types;
    OK(pg_input_arrays_init(&arrays, sizeof arrays));
    arrays.input_ids = &of_ids;
    arrays.token_type_ids = &of_types;
    OK(pg_inputs_create(&arrays, &inputs));
    return inputs;
}

#endif
