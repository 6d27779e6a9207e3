/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Structs that cross the border: they begin with struct_size and grow only at the end. */
#ifndef PGI_API_STRUCTS_H
#define PGI_API_STRUCTS_H

#include <stddef.h>

#include "base/environment.h"
#include "base/memory.h"

/* Every struct with a struct_size, and the last field that it had in its first release: no program has a smaller one.
 * What comes later grows by multiples of 8 bytes, and is not named here. tests/abi/check.py compares it with api.txt.
 */
#define PGI_STRUCTS(X)                     \
    X(pg_adapter_info, base)               \
    X(pg_adapter_options, cancel)          \
    X(pg_allocator, free)                  \
    X(pg_answer_options, window)           \
    X(pg_batch, image_counts)              \
    X(pg_beam_options, on_texts_user)      \
    X(pg_convert_options, reserved_end)    \
    X(pg_encode_options, max_text_bytes)   \
    X(pg_forward_options, n_row_models)    \
    X(pg_generate_options, n_row_models)   \
    X(pg_image, reserved)                  \
    X(pg_image_settings, rescale_factor)   \
    X(pg_input_arrays, allocator)          \
    X(pg_mask_decoder_options, allocator)  \
    X(pg_memory, kv_cache)                 \
    X(pg_model_info, reserved)             \
    X(pg_model_options, kv)                \
    X(pg_object, n_tokens)                 \
    X(pg_parameter, gradient)              \
    X(pg_processor_info, rescale_factor)   \
    X(pg_processor_options, cancel)        \
    X(pg_result_info, score)               \
    X(pg_request_options, reserved)        \
    X(pg_row_info, n_images)               \
    X(pg_run_options, cancel)              \
    X(pg_sampling_options, on_logits_user) \
    X(pg_score_info, mean_probability)     \
    X(pg_score_options, cancel)            \
    X(pg_session_options, threads_of)      \
    X(pg_tensor, data)                     \
    X(pg_train_result, n_tokens)           \
    X(pg_trainer_options, cancel)          \
    X(pg_window, height)                   \
    X(pg_worker_event, run_seconds)        \
    X(pg_worker_info, n_step_rows)         \
    X(pg_worker_options, n_cpus)

#define PGI_FIRST_SIZE(type, last) PGI_FIRST_##type = offsetof(type, last) + sizeof(((type *)0)->last),
enum { PGI_STRUCTS(PGI_FIRST_SIZE) PGI_N_FIRST_SIZES };

/* What is known of a struct: its name, and its size here and in its first release. */
typedef struct pgi_struct {
    const char *name;
    size_t size, first_size;
} pgi_struct;
#define PGI_STRUCT(type) ((pgi_struct){#type, sizeof(type), PGI_FIRST_##type})

/* `out` (known.size bytes, filled with defaults by the caller) takes over what the
 * caller's struct `in` has: the common part. A larger `in`, of a newer header,
 * is accepted when the part we do not know is zero. `in` NULL: all defaults. A size that no header gives, or that was
 * left unset, is PG_ERROR_ARGUMENT: nothing behind it is read. */
pg_status pgi_struct_in(void *out, const void *in, pgi_struct known);

/* Checks the struct_size of a struct that the library fills. */
pg_status pgi_struct_out_check(const void *out, pgi_struct known);
/* Copies `size` bytes of `value` to `out`, as much as fits in
 * out->struct_size; a larger out's tail is zeroed. struct_size stays the caller's. */
void pgi_struct_out(void *out, const void *value, size_t size);

/* The body of every pg_x_options_init(): `defaults` cut to, or zero-extended to, struct_size. */
pg_status pgi_struct_init(void *out, size_t struct_size, const void *defaults, pgi_struct known);

/* An options struct of the header: its defaults as designated initializers (struct_size among them), and its public
 * `type`_init(). PGI_OPTIONS_IN then takes over the caller's, NULL: all defaults. */
#define PGI_OPTIONS(type, ...)                                                        \
    static const type type##_defaults = {__VA_ARGS__};                                \
    pg_status type##_init(type *out, size_t struct_size) {                            \
        PGI_ENTER;                                                                    \
        return pgi_struct_init(out, struct_size, &type##_defaults, PGI_STRUCT(type)); \
    }
#define PGI_OPTIONS_IN(type, complete, options) \
    type complete = type##_defaults;            \
    PGI_TRY(pgi_struct_in(&complete, options, PGI_STRUCT(type)))

/* Takes over a host's allocator, of any version's size; NULL: the C library's. */
pg_status pgi_allocator_in(const pg_allocator *allocator, pgi_memory *out);

/* PG_ERROR_ARGUMENT when the field `reserved` of a struct that came in is set: it may mean something one day. */
pg_status pgi_reserved_in(uint32_t reserved, const char *name);

/* PG_ERROR_ARGUMENT when `flags` has bits that are not `known`; `expected` is for the message. */
pg_status pgi_flags_in(uint32_t flags, uint32_t known, const char *expected);

/* PG_ERROR_ARGUMENT when it is no PG_BOX_*. */
pg_status pgi_convention_in(int32_t convention);

/* PG_ERROR_ARGUMENT with a message when `pointer` is NULL. */
pg_status pgi_not_null(const void *pointer, const char *name);

#define PGI_NOT_NULL(pointer) PGI_TRY(pgi_not_null((pointer), #pointer))

/* max_new_tokens: 0 becomes the default; negative numbers are refused. */
pg_status pgi_new_tokens_in(int32_t *max_new_tokens);

/* Takes over settings of sampling; NULL: those of the model, and without a model the defaults. Their ranges are checked
 * where they are used. */
pg_status pgi_sampling_in(const pg_sampling_options *options, const pg_model *model, pg_sampling_options *complete);
/* max_context: negative numbers are refused; 0 means no limit. */
pg_status pgi_max_context_in(int64_t max_context);

/* 0 becomes the CPUs this process may use; negative and absurd numbers are refused. */
pg_status pgi_thread_count(int32_t asked, int *out);
/* The same for opening, where 0 becomes at most 64. */
pg_status pgi_open_thread_count(int32_t asked, int *out);

#endif
