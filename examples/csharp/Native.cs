// Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
// What Paligemma.cs uses of paligemma.h, as C has it: kept by hand, and held against the header by tests/languages. Fields
// have the names of the header, which says what they mean; a pointer or a callback is an IntPtr.
using System;
using System.Runtime.InteropServices;

namespace Paligemma
{
    [StructLayout(LayoutKind.Sequential)]
    internal unsafe struct pg_tensor
    {
        public uint struct_size;
        public int dtype;
        public int n_dims;
        public uint reserved;
        public fixed long shape[4];
        public IntPtr data;
    }

    [StructLayout(LayoutKind.Sequential)]
    internal unsafe struct pg_image
    {
        public uint struct_size;
        public int format;
        public int width;
        public int height;
        public IntPtr planes0, planes1, planes2, planes3;
        public fixed long strides[4];
        public IntPtr path;
        public ulong n_bytes;
        public int yuv_matrix;
        public int yuv_range;
        public int fit;
        public uint flags;
        public fixed byte background[4];
        public fixed int roi[4];
        public int gray_min;
        public int gray_max;
        public uint reserved;
    }

    [StructLayout(LayoutKind.Sequential)]
    internal struct pg_model_options
    {
        public uint struct_size;
        public uint flags;
        public ulong cpu_mask;
        public IntPtr allocator;
        public IntPtr log;
        public IntPtr log_user;
        public IntPtr progress;
        public IntPtr progress_user;
        public IntPtr cancel;
        public IntPtr int8_layers;
        public int weights;
        public int arithmetic;
        public int n_threads;
        public int kv;
    }

    [StructLayout(LayoutKind.Sequential)]
    internal struct pg_processor_options
    {
        public uint struct_size;
        public uint flags;
        public ulong cpu_mask;
        public IntPtr allocator;
        public IntPtr log;
        public IntPtr log_user;
        public IntPtr cancel;
    }

    [StructLayout(LayoutKind.Sequential)]
    internal struct pg_encode_options
    {
        public uint struct_size;
        public uint flags;
        public long max_image_pixels;
        public int mode;
        public int padding;
        public int padding_side;
        public int pad_to_multiple_of;
        public long max_length;
        public int truncation;
        public int truncation_side;
        public IntPtr cancel;
        public IntPtr image_settings;
        public long max_tokens;
        public long max_text_bytes;
    }

    [StructLayout(LayoutKind.Sequential)]
    internal struct pg_run_options
    {
        public uint struct_size;
        public int n_threads;
        public IntPtr progress;
        public IntPtr progress_user;
        public IntPtr cancel;
    }

    [StructLayout(LayoutKind.Sequential)]
    internal struct pg_sampling_options
    {
        public uint struct_size;
        public uint flags;
        public ulong seed;
        public ulong stream;
        public double temperature;
        public double top_h;
        public double top_p;
        public double min_p;
        public double typical_p;
        public double epsilon_cutoff;
        public double eta_cutoff;
        public double repetition_penalty;
        public double decay_factor;
        public int decay_start;
        public int top_k;
        public int no_repeat_ngram_size;
        public int min_new_tokens;
        public int min_length;
        public uint reserved;
        public long forced_bos_id;
        public IntPtr eos_ids;
        public long n_eos_ids;
        public IntPtr forced_eos_ids;
        public long n_forced_eos_ids;
        public IntPtr suppressed_ids;
        public long n_suppressed_ids;
        public IntPtr begin_suppressed_ids;
        public long n_begin_suppressed_ids;
        public IntPtr bad_word_ids;
        public IntPtr bad_word_sizes;
        public long n_bad_words;
        public IntPtr bias_ids;
        public IntPtr bias_sizes;
        public IntPtr biases;
        public long n_biases;
        public IntPtr token_mask;
        public IntPtr on_mask;
        public IntPtr on_mask_user;
        public IntPtr on_logits;
        public IntPtr on_logits_user;
    }

    [StructLayout(LayoutKind.Sequential)]
    internal struct pg_generate_options
    {
        public uint struct_size;
        public uint flags;
        public int max_new_tokens;
        public int n_threads;
        public IntPtr features;
        public IntPtr on_text;
        public IntPtr on_text_user;
        public IntPtr progress;
        public IntPtr progress_user;
        public IntPtr cancel;
        public IntPtr sampling;
        public IntPtr stop_strings;
        public int n_stop_strings;
        public int n_alternatives;
        public double max_seconds;
        public long max_context;
        public IntPtr beams;
        public int n_return;
        public int max_running;
        public IntPtr row_models;
        public long n_row_models;
    }

    [StructLayout(LayoutKind.Sequential)]
    internal struct pg_result_info
    {
        public uint struct_size;
        public int stop;
        public long n_prompt_tokens;
        public long n_new_tokens;
        public double vision_seconds;
        public double prefill_seconds;
        public double decode_seconds;
        public double score;
    }

    [StructLayout(LayoutKind.Sequential)]
    internal struct pg_answer_options
    {
        public uint struct_size;
        public uint flags;
        public int width;
        public int height;
        public int convention;
        public float max_iou;
        public IntPtr allocator;
        public IntPtr window;
    }

    [StructLayout(LayoutKind.Sequential)]
    internal unsafe struct pg_object
    {
        public uint struct_size;
        public uint flags;
        public IntPtr label;
        public ulong label_size;
        public fixed float box[4];
        public fixed float point[2];
        public float score;
        public float loc_score;
        public float label_score;
        public int n_locs;
        public fixed int locs[4];
        public int n_segs;
        public fixed int segs[16];
        public int duplicate_of;
        public long text_begin;
        public long text_size;
        public long first_token;
        public long n_tokens;
    }

    [UnmanagedFunctionPointer(CallingConvention.Cdecl)]
    internal delegate void LogFn(IntPtr user, int level, IntPtr message);

    [UnmanagedFunctionPointer(CallingConvention.Cdecl)]
    internal delegate int ProgressFn(IntPtr user, int phase, long done, long total);

    [UnmanagedFunctionPointer(CallingConvention.Cdecl)]
    internal delegate int TextFn(IntPtr user, long row, IntPtr text, UIntPtr size, long token);

    [UnmanagedFunctionPointer(CallingConvention.Cdecl)]
    internal delegate int LogitsFn(IntPtr user, long row, IntPtr ids, long n_ids, IntPtr logits, long vocab_size);

    internal static class Native
    {
        // The soname: of this API version, and there without the -dev package.
        private const string Library = "libpaligemma.so.0.1";

        public const int PG_OK = 0;
        public const int PG_ERROR_ARGUMENT = -10;
        public const int PG_WEIGHTS_STORED = 0;
        public const int PG_WEIGHTS_INT8 = 1;
        public const int PG_WEIGHTS_INT4 = 2;
        public const int PG_DTYPE_F32 = 1;
        public const int PG_DTYPE_I64 = 4;
        public const uint PG_ENCODE_LITERAL = 1;
        public const uint PG_ENCODE_EXIF = 2;
        public const uint PG_SAMPLING_RANDOM = 4;
        public const uint PG_GENERATE_LOG_PROBS = 1;
        public const uint PG_OBJECT_BROKEN = 31;
        public const int PG_BOX_1024 = 0;
        public const int PG_BOX_1023 = 1;
        public const int PG_API_VERSION_MAJOR = 0;
        public const int PG_API_VERSION_MINOR = 1;

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern uint pg_version_api();

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern IntPtr pg_version_string();

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern IntPtr pg_last_error();

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern long pg_last_error_row();

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern int pg_cancel_create(out IntPtr made);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern void pg_cancel_request(SafeHandle cancel);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern void pg_cancel_close(ref IntPtr cancel);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern int pg_image_from_path(ref pg_image image, UIntPtr struct_size, IntPtr path);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern int pg_image_from_bytes(ref pg_image image, UIntPtr struct_size, IntPtr bytes, UIntPtr n_bytes);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern int pg_image_from_pixels(ref pg_image image, UIntPtr struct_size, int format, int width, int height, IntPtr pixels, long stride);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern int pg_model_options_init(ref pg_model_options options, UIntPtr struct_size);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern int pg_model_open(byte[] model, ref pg_model_options options, out IntPtr made);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern void pg_model_close(ref IntPtr model);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern int pg_model_get_sampling(SafeHandle model, ref pg_sampling_options options);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern int pg_processor_options_init(ref pg_processor_options options, UIntPtr struct_size);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern int pg_processor_open(byte[] model, ref pg_processor_options options, out IntPtr made);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern void pg_processor_close(ref IntPtr processor);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern int pg_encode_options_init(ref pg_encode_options options, UIntPtr struct_size);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern int pg_processor_encode(SafeHandle processor, IntPtr image, byte[] prompt, ref pg_encode_options options, out IntPtr made);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern void pg_inputs_close(ref IntPtr inputs);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern int pg_inputs_get_tensor(SafeHandle inputs, byte[] name, ref pg_tensor tensor);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern int pg_run_options_init(ref pg_run_options options, UIntPtr struct_size);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern int pg_features_create(SafeHandle model, SafeHandle inputs, ref pg_run_options options, out IntPtr made);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern void pg_features_close(ref IntPtr features);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern int pg_sampling_options_init(ref pg_sampling_options options, UIntPtr struct_size);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern int pg_generate_options_init(ref pg_generate_options options, UIntPtr struct_size);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern int pg_generate(SafeHandle model, SafeHandle processor, SafeHandle inputs, ref pg_generate_options options, out IntPtr made);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern void pg_result_close(ref IntPtr result);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern long pg_result_get_n_rows(SafeHandle result);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern IntPtr pg_result_get_text(SafeHandle result, long row);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern int pg_result_get_tensor(SafeHandle result, long row, byte[] name, ref pg_tensor tensor);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern int pg_result_get_info(SafeHandle result, long row, ref pg_result_info info);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern int pg_tensor_init(ref pg_tensor tensor, UIntPtr struct_size);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern int pg_answer_options_init(ref pg_answer_options options, UIntPtr struct_size);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern int pg_answer_create(SafeHandle processor, SafeHandle result, long row, ref pg_answer_options options, out IntPtr made);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern void pg_answer_close(ref IntPtr answer);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern long pg_answer_get_n_objects(SafeHandle answer);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern int pg_answer_get_object(SafeHandle answer, long index, ref pg_object found);
    }
}
