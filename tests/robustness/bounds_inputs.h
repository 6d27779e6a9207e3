/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* What test_bounds hands in, by its size n: images, texts, files, and what becomes of a checkpoint folder. */
#ifndef TESTS_BOUNDS_INPUTS_H
#define TESTS_BOUNDS_INPUTS_H

#include "support.h"

#define CONVERTED "converted" /* the folder in the folder that converted_tensors() makes */

bytes png_black(int64_t n);
bytes png_one_row(int64_t n);
bytes png_one_column(int64_t n);
bytes png_promise(int64_t n);
bytes png_promise_interlaced(int64_t n);
bytes png_texts(int64_t n);
bytes png_unknown(int64_t n);
bytes png_keys(int64_t n);
bytes png_pixel_chunks(int64_t n);
bytes png_packed_text(int64_t n);
bytes png_packed_texts(int64_t n);
bytes png_long_chunk(int64_t n);
bytes jpeg_scans(int64_t n);
bytes jpeg_arithmetic_rows(int64_t n);
bytes jpeg_arithmetic_scans(int64_t n);
bytes jpeg_promise(int64_t n);
bytes jpeg_promise_progressive(int64_t n);
bytes jpeg_colour(int64_t n);
bytes jpeg_colour_progressive(int64_t n);
bytes jpeg_print_progressive(int64_t n);
bytes jpeg_turned(int64_t n);
bytes jpeg_comments(int64_t n);
bytes jpeg_exif(int64_t n);
bytes jpeg_profiles(int64_t n);
bytes jpeg_tables(int64_t n);
bytes jpeg_empty(int64_t n);
bytes jpeg_fill(int64_t n);
bytes letters(int64_t n);
bytes words(int64_t n);
bytes spaces(int64_t n);
bytes tabs(int64_t n);
bytes newlines(int64_t n);
bytes snowmen(int64_t n);
bytes wide_spaces(int64_t n);
bytes marks(int64_t n);
bytes nearly(int64_t n);
bytes images(int64_t n);
bytes places(int64_t n);
bytes pairs(int64_t n);
bytes size_of(int64_t n);
void long_token(const char *folder, int64_t n);
void longest_token(const char *folder, int64_t n);
void nearly_longest_token(const char *folder, int64_t n);
void greedy_tab(const char *folder, int64_t n);
void many_tokens(const char *folder, int64_t n);
void many_names(const char *folder, int64_t n);
void many_extra_tokens(const char *folder, int64_t n);
void wide_extra_tokens(const char *folder, int64_t n);
void long_piece(const char *folder, int64_t n);
void many_keys(const char *folder, int64_t n);
void many_empty_values(const char *folder, int64_t n);
void model_long_piece(const char *folder, int64_t n);
void model_long_pieces(const char *folder, int64_t n);
void model_many_pieces(const char *folder, int64_t n);
void many_tensors(const char *folder, int64_t n);
void long_tensor_name(const char *folder, int64_t n);
void alike_tensor_names(const char *folder, int64_t n);
void long_metadata(const char *folder, int64_t n);
void many_metadata(const char *folder, int64_t n);
void many_in_index_metadata(const char *folder, int64_t n);
void many_in_index(const char *folder, int64_t n);
void many_shards(const char *folder, int64_t n);
void many_missing_shards(const char *folder, int64_t n);
void many_files(const char *folder, int64_t n);
void converted_tensors(const char *folder, int64_t n);
void converted_long_key(const char *folder, int64_t n);
void linked_shards(const char *folder, int64_t n);
void long_number(const char *folder, int64_t n);
void long_zeros(const char *folder, int64_t n);
void long_exponent(const char *folder, int64_t n);
void long_string(const char *folder, int64_t n);
void escapes(const char *folder, int64_t n);
void white_space(const char *folder, int64_t n);
void many_numbers(const char *folder, int64_t n);
void hard_numbers(const char *folder, int64_t n);
void deep(const char *folder, int64_t n);
void same_keys(const char *folder, int64_t n);
void keys_within_keys(const char *folder, int64_t n);
void file_bad_words(const char *folder, int64_t n);
void file_bad_word(const char *folder, int64_t n);
void file_wrong_words(const char *folder, int64_t n);
void file_suppressed(const char *folder, int64_t n);
void file_biases(const char *folder, int64_t n);
void file_stop_strings(const char *folder, int64_t n);
void file_stop_string(const char *folder, int64_t n);
void file_eos(const char *folder, int64_t n);
void many_merges(const char *folder, int64_t n);
void new_merges(const char *folder, int64_t n);
void chat_template(const char *folder, int64_t n);
void added_tokens_json(const char *folder, int64_t n);
void map_of_tokens(const char *folder, int64_t n);
void preprocessor_keys(const char *folder, int64_t n);
void bushy_tokens(const char *folder, int64_t n);
bytes boxes(int64_t n);
bytes separators(int64_t n);
bytes segments(int64_t n);
bytes half_boxes(int64_t n);
bytes apart_boxes(int64_t n);
bytes named_boxes(int64_t n);
bytes small_boxes(int64_t n);
bytes large_boxes(int64_t n);
bytes rows_of_mask(int64_t n);
bytes npz_members(int64_t n);
bytes mask_tensors(int64_t n);
bytes ends_of_zip(int64_t n);

#endif
