/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* pg_inputs: reading its tensors and rows, and making one from the caller's arrays. */
#include "processor/inputs.h"

#include <string.h>

#include "api/structs.h"

void pg_inputs_close(pg_inputs **inputs) {
    if (!inputs) return;
    pg_inputs *closed = *inputs;
    *inputs = NULL; /* before its memory goes: the allocator's callback may close it, too */
    pgi_inputs_release(closed);
}

pg_status pg_inputs_get_tensor(const pg_inputs *inputs, const char *name, pg_tensor *out) {
    PGI_ENTER;
    PGI_NOT_NULL(inputs);
    PGI_NOT_NULL(name);
    PGI_TRY(pgi_struct_out_check(out, PGI_STRUCT(pg_tensor)));
    const struct {
        const char *name;
        int32_t dtype, n_dims;
        int64_t shape[4];
        const void *data; /* NULL: not there */
    } tensors[] = {
        {"input_ids", PG_DTYPE_I64, 2, {inputs->n_rows, inputs->n_tokens, 1, 1}, inputs->ids},
        {"attention_mask", PG_DTYPE_I64, 2, {inputs->n_rows, inputs->n_tokens, 1, 1}, inputs->attention_mask},
        {"token_type_ids", PG_DTYPE_I64, 2, {inputs->n_rows, inputs->n_tokens, 1, 1}, inputs->token_type_ids},
        {"labels", PG_DTYPE_I64, 2, {inputs->n_rows, inputs->n_tokens, 1, 1}, inputs->labels},
        {"position_ids", PG_DTYPE_I64, 2, {inputs->n_rows, inputs->n_tokens, 1, 1}, inputs->position_ids},
        {"pixel_values",
         PG_DTYPE_F32,
         4,
         {inputs->n_images, 3, inputs->image_height, inputs->image_width},
         inputs->pixels},
        {"image_counts", PG_DTYPE_I64, 1, {inputs->n_rows, 1, 1, 1}, inputs->image_counts},
        {"image_sizes", PG_DTYPE_I64, 2, {inputs->n_images, 2, 1, 1}, inputs->image_sizes},
        {"inputs_embeds", PG_DTYPE_F32, 3, {inputs->n_rows, inputs->n_tokens, inputs->embed_width, 1}, inputs->embeds},
    };
    for (size_t i = 0; i < sizeof tensors / sizeof tensors[0]; i++) {
        if (strcmp(name, tensors[i].name) != 0) continue;
        if (!tensors[i].data)
            return pgi_error(PG_ERROR_NOT_FOUND, "the inputs have no %s: they were made without it", name);
        pg_tensor value = {.struct_size = sizeof value,
                           .dtype = tensors[i].dtype,
                           .n_dims = tensors[i].n_dims,
                           .data = tensors[i].data};
        memcpy(value.shape, tensors[i].shape, sizeof value.shape);
        pgi_struct_out(out, &value, sizeof value);
        return PG_OK;
    }
    return pgi_error(PG_ERROR_NOT_FOUND,
                     "the inputs have no tensor \"%s\", expected input_ids, attention_mask, token_type_ids, labels, "
                     "position_ids, pixel_values, image_counts, image_sizes or inputs_embeds",
                     name);
}

pg_status pg_inputs_get_row_info(const pg_inputs *inputs, int64_t row, pg_row_info *info) {
    PGI_ENTER;
    PGI_NOT_NULL(inputs);
    PGI_TRY(pgi_struct_out_check(info, PGI_STRUCT(pg_row_info)));
    if (row < 0 || row >= inputs->n_rows)
        return pgi_error(PG_ERROR_ARGUMENT, "row is %lld, expected 0 to %lld", (long long)row,
                         (long long)inputs->n_rows - 1);
    const pgi_row *from = &inputs->rows[row];
    pg_row_info value = {
        .struct_size = sizeof value,
        .events = from->events,
        .first_token = from->first_token,
        .n_tokens = from->n_tokens,
        .n_suffix = from->n_suffix,
        .n_truncated = from->n_truncated,
        .first_image = from->first_image,
        .n_images = from->n_images,
    };
    pgi_struct_out(info, &value, sizeof value);
    return PG_OK;
}

PGI_OPTIONS(pg_input_arrays, .struct_size = sizeof(pg_input_arrays))

/* Replaces *tensor, of any version's size, by its complete copy in `copy`. */
static pg_status tensor_in(const pg_tensor **tensor, pg_tensor *copy, const char *name) {
    if (!*tensor) return PG_OK;
    *copy = (pg_tensor){.struct_size = sizeof *copy};
    pg_status status = pgi_struct_in(copy, *tensor, PGI_STRUCT(pg_tensor));
    if (status >= 0) status = pgi_reserved_in(copy->reserved, "pg_tensor");
    if (status < 0) return pgi_error_context(status, "%s", name);
    *tensor = copy;
    return PG_OK;
}

pg_status pg_inputs_create(const pg_input_arrays *arrays, pg_inputs **out) {
    PGI_ENTER;
    PGI_NOT_NULL(out);
    *out = NULL;
    PGI_NOT_NULL(arrays);
    PGI_OPTIONS_IN(pg_input_arrays, complete, arrays);
    pg_tensor tensors[7];
    pgi_memory memory;
    PGI_TRY(pgi_reserved_in(complete.reserved, "pg_input_arrays"));
    PGI_TRY(tensor_in(&complete.input_ids, &tensors[0], "input_ids"));
    PGI_TRY(tensor_in(&complete.inputs_embeds, &tensors[1], "inputs_embeds"));
    PGI_TRY(tensor_in(&complete.attention_mask, &tensors[2], "attention_mask"));
    PGI_TRY(tensor_in(&complete.token_type_ids, &tensors[3], "token_type_ids"));
    PGI_TRY(tensor_in(&complete.labels, &tensors[4], "labels"));
    PGI_TRY(tensor_in(&complete.position_ids, &tensors[5], "position_ids"));
    PGI_TRY(tensor_in(&complete.pixel_values, &tensors[6], "pixel_values"));
    PGI_TRY(pgi_allocator_in(complete.allocator, &memory));
    return pgi_inputs_create(&memory, &complete, out);
}
