/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Files of pg_calibration_load(). 'w': the rest is a whole file. Else a file that was saved here, changed: 'h' and 'H':
 * the rest replaces its beginning; 'c': it ends at an offset of 4 bytes; 's': the sums at offsets of 3 bytes become
 * numbers of 4. 'H' and 's': both checksums are made right. What loads goes on, is saved as it was, and rounds. */
#include <stdio.h>
#include <unistd.h>

#include "fuzz.h"
#include "mutate.h"

enum { TAG = 7, HEADER = 56 };

static const bytes *saved_file(const char *path) {
    static bytes saved;
    pg_calibration *calibration = NULL;
    if (saved.size) return &saved;
    if (pg_calibration_create(fuzz_model(FUZZ_OFFICIAL), &calibration) < 0 ||
        pg_calibration_add(calibration, fuzz_inputs(FUZZ_OFFICIAL), NULL) < 0 ||
        pg_calibration_save(calibration, path, TAG) < 0)
        abort();
    pg_calibration_close(&calibration);
    saved = read_file(fuzz_folder(FUZZ_OFFICIAL), "sums");
    return &saved;
}

static void change(bytes *file, uint8_t how, fuzz_input in) {
    if (how == 'h' || how == 'H') {
        memcpy(file->data, in.data, in.size < file->size ? in.size : file->size);
    } else if (how == 'c') {
        file->size = fuzz_take(&in, 4) % file->size;
    } else {
        const size_t n_sums = (file->size - HEADER) / 4;
        while (in.size) {
            const size_t at = fuzz_take(&in, 3) % n_sums;
            const uint32_t sum = (uint32_t)fuzz_take(&in, 4);
            memcpy(file->data + HEADER + 4 * at, &sum, 4);
        }
    }
    if (how == 'H' || how == 's') repair_calibration(file);
}

static void use(pg_calibration *calibration, const char *path, const bytes *file) {
    pg_convert_options options;
    char out[600];
    int64_t n_rows = -1;
    if (!OK(pg_calibration_save(calibration, path, TAG))) abort();
    bytes again = read_file(fuzz_folder(FUZZ_OFFICIAL), "sums");
    if (again.size != file->size || memcmp(again.data, file->data, file->size)) abort();
    bytes_free(&again);
    pg_convert_options_init(&options, sizeof options);
    options.weights = PG_WEIGHTS_INT4;
    options.allocator = fuzz_allocator();
    options.calibration = calibration;
    options.n_threads = 1;
    snprintf(out, sizeof out, "%s/out", fuzz_folder(FUZZ_OFFICIAL));
    if (OK(pg_model_convert(fuzz_folder(FUZZ_OFFICIAL), out, &options))) remove_folder(out);
    OK(pg_calibration_add(calibration, fuzz_inputs(FUZZ_OFFICIAL), NULL));
    if (!OK(pg_calibration_get_rows(calibration, &n_rows)) || n_rows < 1) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (!size || !data[0] || !strchr("whHcs", data[0])) return 0;
    const char *folder = fuzz_folder(FUZZ_OFFICIAL);
    char path[600];
    snprintf(path, sizeof path, "%s/sums", folder);
    const bytes *saved = saved_file(path);
    bytes file = {0};
    if (data[0] == 'w') {
        bytes_add(&file, data + 1, size - 1);
    } else {
        bytes_add(&file, saved->data, saved->size);
        change(&file, data[0], (fuzz_input){data + 1, size - 1});
    }
    write_file(folder, "sums", file.data, file.size);
    pg_calibration *calibration = NULL;
    if (MADE(pg_calibration_load(fuzz_model(FUZZ_OFFICIAL), path, TAG, &calibration), calibration))
        use(calibration, path, &file);
    pg_calibration_close(&calibration);
    bytes_free(&file);
    return fuzz_end();
}
