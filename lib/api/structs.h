/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Structs that cross the border: they begin with struct_size and grow only at the end. */
#ifndef PGI_API_STRUCTS_H
#define PGI_API_STRUCTS_H

#include "base/environment.h"
#include "base/memory.h"

/* `out` (`size` bytes, filled with defaults by the caller) takes over what the
 * caller's struct `in` has: the common part. A larger `in`, of a newer header,
 * is accepted when the part we do not know is zero. `in` NULL: all defaults. */
pg_status pgi_struct_in(void *out, size_t size, const void *in, const char *name);

/* Checks the struct_size of a struct that the library fills. */
pg_status pgi_struct_out_check(const void *out, const char *name);
/* Copies `size` bytes of `value` to `out`, as much as fits in
 * out->struct_size; a larger out's tail is zeroed. struct_size stays the caller's. */
void pgi_struct_out(void *out, const void *value, size_t size);

/* The body of every pg_x_options_init(): `defaults` cut to, or zero-extended to, struct_size. */
pg_status pgi_struct_init(void *out, size_t struct_size, const void *defaults, size_t size, const char *name);

/* An options struct of the header: its defaults as designated initializers (struct_size among them), and its public
 * `type`_init(). PGI_OPTIONS_IN then takes over the caller's, NULL: all defaults. */
#define PGI_OPTIONS(type, ...)                                                           \
    static const type type##_defaults = {__VA_ARGS__};                                   \
    pg_status type##_init(type *out, size_t struct_size) {                               \
        PGI_ENTER;                                                                       \
        return pgi_struct_init(out, struct_size, &type##_defaults, sizeof(type), #type); \
    }
#define PGI_OPTIONS_IN(type, complete, options) \
    type complete = type##_defaults;            \
    PGI_TRY(pgi_struct_in(&complete, sizeof complete, options, #type))

/* Takes over a host's allocator, of any version's size; NULL: the C library's. */
pg_status pgi_allocator_in(const pg_allocator *allocator, pgi_memory *out);

/* PG_ERROR_ARGUMENT when the field `reserved` of a struct that came in is set: it may mean something one day. */
pg_status pgi_reserved_in(uint32_t reserved, const char *name);

/* PG_ERROR_ARGUMENT when `flags` has bits that are not `known`; `expected` is for the message. */
pg_status pgi_flags_in(uint32_t flags, uint32_t known, const char *expected);

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

#endif
