/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The smallest program that an application could be. check.sh compiles it as C
 * and as C++, against the installed shared and static library, and runs it.
 * With MODEL and IMAGE it captions the image too.
 */
#include <paligemma/paligemma.h>

#include <stdio.h>
#include <string.h>

static int caption(const char *folder, const char *path) {
    pg_model *model = NULL;
    pg_processor *processor = NULL;
    pg_inputs *inputs = NULL;
    pg_result *result = NULL;
    pg_image image;
    pg_generate_options options;
    pg_status status = pg_generate_options_init(&options, sizeof options);
    options.n_threads = 2;
    if (status >= 0) status = pg_model_open(folder, NULL, &model);
    if (status >= 0) status = pg_processor_open(folder, NULL, &processor);
    if (status >= 0) status = pg_image_from_path(&image, sizeof image, path);
    if (status >= 0) status = pg_processor_encode(processor, &image, "caption en", NULL, &inputs);
    if (status >= 0) status = pg_generate(model, processor, inputs, &options, &result);
    printf("%s\n", status < 0 ? pg_last_error() : pg_result_get_text(result, 0));
    pg_model_close(&model); /* any order */
    pg_processor_close(&processor);
    pg_inputs_close(&inputs);
    pg_result_close(&result);
    return status >= 0;
}

int main(int argc, char **argv) {
    pg_model *model = NULL;
    pg_cancel *cancel = NULL;
    pg_status status;
    uint32_t expected = (uint32_t)PG_API_VERSION_MAJOR << 16 | PG_API_VERSION_MINOR << 8 | PG_API_VERSION_PATCH;

    if (!PG_API_COMPATIBLE(pg_version_api())) {
        printf("version: not compatible: the library says %#x, the header %#x\n", (unsigned)pg_version_api(),
               (unsigned)expected);
        return 1;
    }
    if (pg_version_api() != expected || !*pg_version_string()) {
        printf("version: the library says %#x, the header %#x\n", (unsigned)pg_version_api(), (unsigned)expected);
        return 1;
    }
    status = pg_model_open("/nowhere/at-all", NULL, &model);
    if (status != PG_ERROR_NOT_FOUND || model || !strstr(pg_last_error(), "/nowhere/at-all")) {
        printf("a missing folder: %s, '%s'\n", pg_status_name(status), pg_last_error());
        return 1;
    }
    if (pg_cancel_create(&cancel) != PG_OK) return 1;
    pg_cancel_request(cancel);
    pg_cancel_close(&cancel);
    pg_model_close(&model); /* NULL inside is fine */
    if (cancel || (argc == 3 && !caption(argv[1], argv[2]))) return 1;
    printf("consumer: ok\n");
    return 0;
}
