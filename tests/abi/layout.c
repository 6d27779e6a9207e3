/*
 * Prints the layout of every public struct and the value of every public constant; check.py compares that with the
 * committed layout-<data model>.txt. A struct or constant that stands in the header but not here fails the check, as
 * does a struct whose fields do not fill it (a padding hole).
 */
#include <paligemma/paligemma.h>
#include <stddef.h>
#include <stdio.h>

#define STRUCTS(S, F)                                                                                                  \
    S(pg_allocator)                                                                                                    \
    F(pg_allocator, struct_size) F(pg_allocator, reserved) F(pg_allocator, user) F(pg_allocator, alloc)                \
    F(pg_allocator, free)                                                                                              \
    S(pg_tensor)                                                                                                       \
    F(pg_tensor, struct_size) F(pg_tensor, dtype) F(pg_tensor, n_dims) F(pg_tensor, reserved) F(pg_tensor, shape)      \
    F(pg_tensor, data)                                                                                                 \
    S(pg_image)                                                                                                        \
    F(pg_image, struct_size) F(pg_image, format) F(pg_image, width) F(pg_image, height) F(pg_image, planes)            \
    F(pg_image, strides) F(pg_image, path) F(pg_image, n_bytes)                                                        \
    S(pg_model_options)                                                                                                \
    F(pg_model_options, struct_size) F(pg_model_options, reserved) F(pg_model_options, cpu_mask)                       \
    F(pg_model_options, allocator) F(pg_model_options, log) F(pg_model_options, log_user)                              \
    F(pg_model_options, progress) F(pg_model_options, progress_user) F(pg_model_options, cancel)                       \
    F(pg_model_options, weights) F(pg_model_options, flags) F(pg_model_options, arithmetic)                            \
    F(pg_model_options, reserved2)                                                                                     \
    S(pg_model_info)                                                                                                   \
    F(pg_model_info, struct_size) F(pg_model_info, gemma_version) F(pg_model_info, n_parameters)                          \
    F(pg_model_info, n_bytes_mapped) F(pg_model_info, cpu_used) F(pg_model_info, n_files) F(pg_model_info, n_tensors)  \
    F(pg_model_info, dtypes) F(pg_model_info, image_size) F(pg_model_info, n_image_tokens) F(pg_model_info, vocab_size)\
    F(pg_model_info, weights) F(pg_model_info, arithmetic)                                                             \
    S(pg_convert_options)                                                                                              \
    F(pg_convert_options, struct_size) F(pg_convert_options, weights) F(pg_convert_options, n_threads)                 \
    F(pg_convert_options, reserved) F(pg_convert_options, max_file_bytes) F(pg_convert_options, allocator)             \
    F(pg_convert_options, log) F(pg_convert_options, log_user) F(pg_convert_options, progress)                         \
    F(pg_convert_options, progress_user) F(pg_convert_options, cancel)                                                 \
    S(pg_memory)                                                                                                       \
    F(pg_memory, struct_size) F(pg_memory, n_threads) F(pg_memory, n_tokens) F(pg_memory, n_images)                    \
    F(pg_memory, weights) F(pg_memory, weights_copied) F(pg_memory, activations) F(pg_memory, kv_cache)                \
    S(pg_processor_options)                                                                                            \
    F(pg_processor_options, struct_size) F(pg_processor_options, reserved) F(pg_processor_options, allocator)          \
    F(pg_processor_options, log) F(pg_processor_options, log_user)                                                     \
    S(pg_encode_options)                                                                                               \
    F(pg_encode_options, struct_size) F(pg_encode_options, flags) F(pg_encode_options, max_image_pixels)               \
    F(pg_encode_options, mode) F(pg_encode_options, padding) F(pg_encode_options, padding_side)                        \
    F(pg_encode_options, pad_to_multiple_of) F(pg_encode_options, max_length) F(pg_encode_options, truncation)                \
    F(pg_encode_options, truncation_side)                                                                                     \
    S(pg_batch)                                                                                                        \
    F(pg_batch, struct_size) F(pg_batch, n_prompts) F(pg_batch, n_suffixes) F(pg_batch, n_images)                      \
    F(pg_batch, n_image_counts) F(pg_batch, reserved) F(pg_batch, prompts) F(pg_batch, suffixes)                       \
    F(pg_batch, prompt_sizes) F(pg_batch, suffix_sizes) F(pg_batch, images) F(pg_batch, image_counts)                  \
    S(pg_row_info)                                                                                                     \
    F(pg_row_info, struct_size) F(pg_row_info, events) F(pg_row_info, first_token) F(pg_row_info, n_tokens)            \
    F(pg_row_info, n_suffix) F(pg_row_info, n_truncated) F(pg_row_info, first_image) F(pg_row_info, n_images)                \
    S(pg_input_arrays)                                                                                                 \
    F(pg_input_arrays, struct_size) F(pg_input_arrays, reserved) F(pg_input_arrays, input_ids)                         \
    F(pg_input_arrays, inputs_embeds) F(pg_input_arrays, attention_mask) F(pg_input_arrays, token_type_ids)            \
    F(pg_input_arrays, labels) F(pg_input_arrays, position_ids) F(pg_input_arrays, pixel_values)                       \
    F(pg_input_arrays, allocator)                                                                                      \
    S(pg_processor_info)                                                                                               \
    F(pg_processor_info, struct_size) F(pg_processor_info, image_size) F(pg_processor_info, n_image_tokens)            \
    F(pg_processor_info, resample) F(pg_processor_info, vocab_size) F(pg_processor_info, tokenizer_source)             \
    F(pg_processor_info, pad_id) F(pg_processor_info, eos_id) F(pg_processor_info, bos_id)                             \
    F(pg_processor_info, unk_id) F(pg_processor_info, image_id) F(pg_processor_info, image_mean)                       \
    F(pg_processor_info, image_std) F(pg_processor_info, rescale_factor) F(pg_processor_info, do_resize)               \
    F(pg_processor_info, do_rescale) F(pg_processor_info, do_normalize) F(pg_processor_info, reserved)                 \
    S(pg_generate_options)                                                                                             \
    F(pg_generate_options, struct_size) F(pg_generate_options, flags) F(pg_generate_options, max_new_tokens)           \
    F(pg_generate_options, n_threads) F(pg_generate_options, features) F(pg_generate_options, on_text)                 \
    F(pg_generate_options, on_text_user) F(pg_generate_options, progress) F(pg_generate_options, progress_user)        \
    F(pg_generate_options, cancel) F(pg_generate_options, on_row_text) F(pg_generate_options, on_row_text_user)        \
    S(pg_result_info)                                                                                                  \
    F(pg_result_info, struct_size) F(pg_result_info, stop) F(pg_result_info, n_prompt_tokens)                          \
    F(pg_result_info, n_new_tokens) F(pg_result_info, encode_seconds) F(pg_result_info, prefill_seconds)               \
    F(pg_result_info, decode_seconds)                                                                                  \
    S(pg_forward_options)                                                                                              \
    F(pg_forward_options, struct_size) F(pg_forward_options, flags) F(pg_forward_options, n_threads)                   \
    F(pg_forward_options, reserved) F(pg_forward_options, logits_to_keep) F(pg_forward_options, features)              \
    F(pg_forward_options, progress) F(pg_forward_options, progress_user) F(pg_forward_options, cancel)                 \
    S(pg_run_options)                                                                                                  \
    F(pg_run_options, struct_size) F(pg_run_options, n_threads) F(pg_run_options, progress)                            \
    F(pg_run_options, progress_user) F(pg_run_options, cancel)                                                         \
    S(pg_session_options)                                                                                              \
    F(pg_session_options, struct_size) F(pg_session_options, n_threads) F(pg_session_options, max_new_tokens)          \
    F(pg_session_options, max_prompt_tokens) F(pg_session_options, progress) F(pg_session_options, progress_user)      \
    F(pg_session_options, cancel)

#define CONSTANTS(C)                                                                                                   \
    C(PG_OK) C(PG_EVENT_EOS) C(PG_EVENT_LENGTH)                                                                        \
    C(PG_ERROR_ARGUMENT) C(PG_ERROR_MEMORY) C(PG_ERROR_IO) C(PG_ERROR_NOT_FOUND) C(PG_ERROR_FORMAT)                    \
    C(PG_ERROR_UNSUPPORTED) C(PG_ERROR_LIMIT) C(PG_ERROR_CANCELLED) C(PG_ERROR_STATE) C(PG_ERROR_INTERNAL)             \
    C(PG_LOG_ERROR) C(PG_LOG_WARNING) C(PG_LOG_INFO) C(PG_LOG_DEBUG)                                                   \
    C(PG_PHASE_LOAD) C(PG_PHASE_ENCODE) C(PG_PHASE_PREFILL) C(PG_PHASE_DECODE) C(PG_PHASE_CONVERT) C(PG_PHASE_VERIFY)  \
    C(PG_WEIGHTS_STORED) C(PG_WEIGHTS_INT8) C(PG_WEIGHTS_INT4) C(PG_MODEL_VERIFY)                                      \
    C(PG_ARITHMETIC_DEFAULT) C(PG_ARITHMETIC_F32) C(PG_ARITHMETIC_BF16)                                                \
    C(PG_DTYPE_F32) C(PG_DTYPE_BF16) C(PG_DTYPE_F16) C(PG_DTYPE_I64) C(PG_DTYPE_U8) C(PG_DTYPE_I32)                    \
    C(PG_IMAGE_RGB8) C(PG_IMAGE_BGR8) C(PG_IMAGE_RGBA8) C(PG_IMAGE_BGRA8) C(PG_IMAGE_GRAY8) C(PG_IMAGE_PATH)           \
    C(PG_IMAGE_BYTES)                                                                                                  \
    C(PG_CPU_BASELINE) C(PG_CPU_AVX2) C(PG_CPU_AVX512) C(PG_CPU_AVX_VNNI) C(PG_CPU_AVX512_VNNI)                        \
    C(PG_CPU_AVX512_BF16)                                                                                              \
    C(PG_TEXT_LITERAL) C(PG_IMAGE_EXIF) C(PG_SKIP_SPECIAL) C(PG_TRUNCATE) C(PG_TRUNCATE_KEEP_ENDS) C(PG_SUFFIX_OPEN)   \
    C(PG_MODE_HF) C(PG_MODE_BIG_VISION)                                                                                \
    C(PG_PADDING_LONGEST) C(PG_PADDING_MAX_LENGTH) C(PG_PADDING_NONE)                                                  \
    C(PG_SIDE_DEFAULT) C(PG_SIDE_LEFT) C(PG_SIDE_RIGHT)                                                                \
    C(PG_TRUNCATION_LONGEST) C(PG_TRUNCATION_PROMPT) C(PG_TRUNCATION_SUFFIX)                                                                \
    C(PG_ROW_TRUNCATED) C(PG_ROW_TRUNCATED_EOS) C(PG_ROW_TRUNCATED_NEWLINE) C(PG_ROW_TRUNCATED_IMAGE) C(PG_ROW_BOS_MISPLACED)                  \
    C(PG_ROW_NEWLINE_MERGED)                                                                                           \
    C(PG_STOP_EOS) C(PG_STOP_LENGTH) C(PG_STOP_CALLBACK)                                                               \
    C(PG_FORWARD_NO_LOGITS) C(PG_FORWARD_HIDDEN_STATES) C(PG_FORWARD_LAST_HIDDEN) C(PG_FORWARD_LOSS_PER_ROW)           \
    C(PG_FORWARD_SKIP_PADDING)

static size_t filled; /* bytes of the fields of the struct being printed */

int main(void) {
#define S(type)                                                                     \
    printf("struct %s: %zu bytes, aligned to %zu\n", #type, sizeof(type), _Alignof(type)); \
    filled = 0;
#define F(type, field)                                                                                              \
    if (filled != offsetof(type, field)) printf("  HOLE of %d bytes\n", (int)offsetof(type, field) - (int)filled); \
    printf("  %3zu %2zu %s\n", offsetof(type, field), sizeof(((type *)0)->field), #field);                            \
    filled = offsetof(type, field) + sizeof(((type *)0)->field);                                                    \
    if (filled == sizeof(type)) printf("  complete\n");
    STRUCTS(S, F)
#define C(name) printf("%s = %lld\n", #name, (long long)(name));
    CONSTANTS(C)
    return 0;
}
