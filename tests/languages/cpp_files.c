/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* What cpp_files.h describes. */
#include "cpp_files.h"

#include <stdio.h>
#include <stdlib.h>

#include "mask_files.h"
#include "tiny_adapter.h"

void cpp_files_make(cpp_files *files) {
    const tiny_options options = tiny_official();
    pg_model *model = NULL;
    pg_model_info info = {.struct_size = sizeof info};
    bytes file = tiny_image(IMAGE_PNG, 24, 18, 1);
    make_temp_folder(files->model, sizeof files->model);
    tiny_write(files->model, &options);
    write_file(files->model, "image.png", file.data, file.size);
    bytes_free(&file);
    if (pg_model_open(files->model, NULL, &model) < 0 || pg_model_get_info(model, &info) < 0) abort();
    pg_model_close(&model);
    make_temp_folder(files->adapter, sizeof files->adapter);
    tiny_adapter_write(files->adapter, ADAPTER_LORA, info.vocab_size, 7);
    make_temp_folder(files->work, sizeof files->work);
    file = make_npz(&(npz_options)NPZ_PLAIN);
    write_file(files->work, "masks.npz", file.data, file.size);
    bytes_free(&file);
    snprintf(files->masks, sizeof files->masks, "%s/masks.npz", files->work);
}

void cpp_files_remove(const cpp_files *files) {
    remove_folder(files->model);
    remove_folder(files->adapter);
    remove_folder(files->work);
}

void cpp_remove_folder(const char *path) { remove_folder(path); }
