# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""The C library: where it is found, its constants, structs and functions. The only module that knows ctypes prototypes.

Everything in include/paligemma/paligemma.h is declared once here: a PG_NAME as NAME, a pg_some_struct as SomeStruct.
python/tests/test_library.py compares the two.
"""
from __future__ import annotations

import ctypes
import ctypes.util
import os
from pathlib import Path
from typing import Any

from . import _errors

API_MAJOR, API_MINOR = 0, 1  # what this package was written for; see _compatible()
SONAME = f"libpaligemma.so.{API_MAJOR}" if API_MAJOR else f"libpaligemma.so.0.{API_MINOR}"

c_char_p, c_void_p, c_size_t = ctypes.c_char_p, ctypes.c_void_p, ctypes.c_size_t
u8, i32, i64, u32, u64 = ctypes.c_uint8, ctypes.c_int32, ctypes.c_int64, ctypes.c_uint32, ctypes.c_uint64
f32, f64 = ctypes.c_float, ctypes.c_double
P = ctypes.POINTER

# The header's constants, in its order
OK, EVENT_EOS, EVENT_LENGTH, EVENT_CONTEXT, EVENT_STOP, EVENT_NONE = 0, 1, 2, 3, 4, 5
ERROR_ARGUMENT, ERROR_MEMORY, ERROR_IO, ERROR_NOT_FOUND, ERROR_FORMAT = -10, -20, -30, -31, -40
ERROR_UNSUPPORTED, ERROR_LIMIT, ERROR_CANCELLED, ERROR_STATE, ERROR_INTERNAL = -50, -60, -70, -80, -90
ERROR_BUSY, ERROR_DEADLINE, ERROR_REPLACED = -61, -71, -72
LOG_ERROR, LOG_WARNING, LOG_INFO, LOG_DEBUG = 1, 2, 3, 4
PHASE_LOAD, PHASE_VISION, PHASE_PREFILL, PHASE_DECODE, PHASE_CONVERT, PHASE_VERIFY, PHASE_TRAIN = 1, 2, 3, 4, 5, 6, 7
DTYPE_F32, DTYPE_BF16, DTYPE_F16, DTYPE_I64 = 1, 2, 3, 4
IMAGE_RGB8, IMAGE_BGR8, IMAGE_RGBA8, IMAGE_BGRA8, IMAGE_GRAY8, IMAGE_RGB565, IMAGE_GRAY16 = 1, 2, 3, 4, 5, 6, 7
IMAGE_NV12, IMAGE_NV21, IMAGE_I420, IMAGE_YUYV, IMAGE_UYVY, IMAGE_PATH, IMAGE_BYTES = 8, 9, 10, 11, 12, 100, 101
YUV_BT601, YUV_BT709 = 0, 1
YUV_VIDEO, YUV_FULL = 0, 1
FIT_STRETCH, FIT_LETTERBOX, FIT_PAD_TOP_LEFT = 0, 1, 2
IMAGE_OVER_BACKGROUND = 1
WEIGHTS_STORED, WEIGHTS_INT8, WEIGHTS_INT4 = 0, 1, 2
ARITHMETIC_DEFAULT, ARITHMETIC_F32, ARITHMETIC_BF16 = 0, 1, 2
KV_DEFAULT, KV_F32, KV_BF16 = 0, 1, 2
MODEL_VERIFY, MODEL_IN_MEMORY = 1, 2
PROCESSOR_TEXT_ONLY, PROCESSOR_IMAGES_ONLY, PROCESSOR_SENTENCEPIECE = 1, 2, 4
ENCODE_LITERAL, ENCODE_EXIF, ENCODE_TRUNCATE, ENCODE_KEEP_ENDS, ENCODE_OPEN_SUFFIX, ENCODE_OVER_WHITE = 1, 2, 4, 8, 16, 32
DECODE_SKIP_SPECIAL = 1
MODE_HF, MODE_BIG_VISION = 0, 1
PADDING_LONGEST, PADDING_MAX_LENGTH, PADDING_NONE = 0, 1, 2
SIDE_DEFAULT, SIDE_LEFT, SIDE_RIGHT = 0, 1, 2
TRUNCATION_LONGEST, TRUNCATION_PROMPT, TRUNCATION_SUFFIX = 0, 1, 2
STOP_EOS, STOP_LENGTH, STOP_CALLBACK, STOP_CONTEXT, STOP_STRING, STOP_TIME, STOP_LOGITS = 1, 2, 3, 4, 5, 6, 7
SAMPLING_ADD_EOS, SAMPLING_IGNORE_EOS, SAMPLING_RANDOM, SAMPLING_ROW_STREAMS = 1, 2, 4, 8
SAMPLING_REMOVE_INVALID, SAMPLING_RENORMALIZE = 16, 32
GENERATE_LOG_PROBS, GENERATE_LOGITS, GENERATE_SCORES, GENERATE_IGNORE_CONFIG, GENERATE_DETECT = 1, 2, 4, 8, 16
GENERATE_SEGMENT = 32
EARLY_STOPPING_OFF, EARLY_STOPPING_ON, EARLY_STOPPING_NEVER = 0, 1, 2
SCORE_NO_EOS, SCORE_LITERAL = 1, 2
BOX_1024, BOX_1023 = 0, 1
ANSWER_POINTS = 1
OBJECT_PARTIAL, OBJECT_OUT_OF_RANGE, OBJECT_OUT_OF_ORDER, OBJECT_EMPTY, OBJECT_STRAY_SEG = 1, 2, 4, 8, 16
OBJECT_BROKEN, OBJECT_NO_LABEL, OBJECT_LABEL_BEFORE, OBJECT_LABEL_SHARED = 31, 32, 64, 128
OBJECT_SEG_PARTIAL, OBJECT_SEG_MORE, OBJECT_UNFINISHED, OBJECT_DUPLICATE = 256, 512, 1024, 2048
ROW_TRUNCATED, ROW_TRUNCATED_EOS, ROW_TRUNCATED_NEWLINE, ROW_TRUNCATED_IMAGE = 1, 2, 4, 8
ROW_BOS_MISPLACED, ROW_NEWLINE_MERGED = 16, 32
TOKEN_ADDED, TOKEN_SPECIAL, TOKEN_NORMALIZED, TOKEN_SINGLE_WORD, TOKEN_LSTRIP, TOKEN_RSTRIP = 1, 2, 4, 8, 16, 32
RESAMPLE_NEAREST, RESAMPLE_LANCZOS, RESAMPLE_BILINEAR, RESAMPLE_BICUBIC, RESAMPLE_BOX, RESAMPLE_HAMMING = range(6)
FORWARD_NO_LOGITS, FORWARD_HIDDEN_STATES, FORWARD_LAST_HIDDEN, FORWARD_LOSS_PER_ROW = 1, 2, 4, 8
FORWARD_SKIP_PADDING, FORWARD_NO_LOSS, FORWARD_EMBEDDINGS, FORWARD_RETRIEVAL = 16, 32, 53, 64
FORWARD_ATTENTIONS, FORWARD_ATTENTION_HEAD_MEAN, FORWARD_ATTENTION_LAYER_MEAN, FORWARD_ATTENTION_TO_IMAGE = 128, 256, \
    512, 1024
WORKER_LEAVE_CPU_FREE = 1
WORKER_EVENT_TEXT, WORKER_EVENT_OBJECT, WORKER_EVENT_DONE = 1, 2, 3
REQUEST_OBJECTS, REQUEST_BORROW, REQUEST_CANCEL_RUNNING = 1, 2, 4
SCHEDULE_CONSTANT, SCHEDULE_LINEAR, SCHEDULE_COSINE = 0, 1, 2
TRAIN_RSLORA, TRAIN_CHECKPOINT = 1, 2
CPU_BASELINE, CPU_AVX2, CPU_AVX512, CPU_AVX_VNNI, CPU_AVX512_VNNI, CPU_AVX512_BF16 = 1, 2, 4, 8, 16, 32
CPU_AMX_INT8, CPU_AMX_BF16 = 64, 128
CPU_NEON, CPU_NEON_DOTPROD, CPU_NEON_I8MM, CPU_NEON_BF16 = 1 << 16, 1 << 17, 1 << 18, 1 << 19

# What the package's arguments call them
MODES = {"hf": MODE_HF, "big_vision": MODE_BIG_VISION}
SIDES = {"left": SIDE_LEFT, "right": SIDE_RIGHT}
TRUNCATIONS = {True: TRUNCATION_LONGEST, "longest_first": TRUNCATION_LONGEST, "only_first": TRUNCATION_PROMPT,
               "only_second": TRUNCATION_SUFFIX}
ROW_EVENTS = {ROW_TRUNCATED: "truncated", ROW_TRUNCATED_EOS: "truncated_eos",
              ROW_TRUNCATED_NEWLINE: "truncated_newline", ROW_TRUNCATED_IMAGE: "truncated_image",
              ROW_BOS_MISPLACED: "bos_misplaced", ROW_NEWLINE_MERGED: "newline_merged"}
CPU_MASKS = {None: 0, "baseline": CPU_BASELINE, "avx2": CPU_BASELINE | CPU_AVX2,
             "avx512": CPU_BASELINE | CPU_AVX2 | CPU_AVX512, "neon": CPU_BASELINE | CPU_NEON}
WEIGHTS = {"stored": WEIGHTS_STORED, "int8": WEIGHTS_INT8, "int4": WEIGHTS_INT4}
KV_KINDS = {None: KV_DEFAULT, "f32": KV_F32, "bf16": KV_BF16}
ARITHMETICS = {None: ARITHMETIC_DEFAULT, "f32": ARITHMETIC_F32, "bf16": ARITHMETIC_BF16}

LogFn = ctypes.CFUNCTYPE(None, c_void_p, i32, c_char_p)
ProgressFn = ctypes.CFUNCTYPE(i32, c_void_p, i32, i64, i64)
TextFn = ctypes.CFUNCTYPE(i32, c_void_p, i64, c_char_p, c_size_t, i64)
MaskFn = ctypes.CFUNCTYPE(i32, c_void_p, i64, P(i64), i64, P(u32), i64)
TextsFn = ctypes.CFUNCTYPE(i32, c_void_p, i64, P(i64), i64, i64, c_void_p)
LogitsFn = ctypes.CFUNCTYPE(i32, c_void_p, i64, P(i64), i64, P(f32), i64)
AllocFn = ctypes.CFUNCTYPE(c_void_p, c_void_p, c_size_t, c_size_t)
FreeFn = ctypes.CFUNCTYPE(None, c_void_p, c_void_p)


class Struct(ctypes.Structure):
    """A struct that begins with struct_size, which is filled in. An integer that its field cannot hold: ValueError."""

    def __init__(self, **values: Any) -> None:
        unknown = values.keys() - {field[0] for field in self._fields_}
        if unknown:  # ctypes would keep them as attributes of Python
            raise TypeError(f"{type(self).__name__} has no {', '.join(sorted(unknown))}")
        super().__init__(struct_size=ctypes.sizeof(type(self)), **values)
        for name, value in values.items():
            if isinstance(value, int) and getattr(self, name) != value:  # ctypes cuts silently
                bits = 8 * getattr(type(self), name).size
                raise ValueError(f"{name} is {value}, which is no {bits}-bit integer of its kind")


class Allocator(Struct):
    _fields_ = [("struct_size", u32), ("reserved", u32), ("user", c_void_p), ("alloc", AllocFn), ("free", FreeFn)]


class Tensor(Struct):
    _fields_ = [("struct_size", u32), ("dtype", i32), ("n_dims", i32), ("reserved", u32), ("shape", i64 * 4),
                ("data", c_void_p)]


class Image(Struct):
    _fields_ = [("struct_size", u32), ("format", i32), ("width", i32), ("height", i32), ("planes", c_void_p * 4),
                ("strides", i64 * 4), ("path", c_char_p), ("n_bytes", u64), ("yuv_matrix", i32), ("yuv_range", i32),
                ("fit", i32), ("flags", u32), ("background", u8 * 4), ("roi", i32 * 4), ("gray_min", i32),
                ("gray_max", i32), ("reserved", u32)]


class Window(Struct):
    _fields_ = [("struct_size", u32), ("reserved", u32), ("x", f64), ("y", f64), ("width", f64), ("height", f64)]


class ModelOptions(Struct):
    _fields_ = [("struct_size", u32), ("flags", u32), ("cpu_mask", u64), ("allocator", P(Allocator)), ("log", LogFn),
                ("log_user", c_void_p), ("progress", ProgressFn), ("progress_user", c_void_p), ("cancel", c_void_p),
                ("int8_layers", c_char_p), ("weights", i32), ("arithmetic", i32), ("n_threads", i32), ("kv", i32)]


class ModelInfo(Struct):
    _fields_ = [("struct_size", u32), ("gemma_version", i32), ("n_parameters", u64), ("n_bytes_mapped", u64),
                ("cpu_used", u64), ("n_files", u32), ("n_tensors", u32), ("dtypes", u32), ("image_size", i32),
                ("n_image_tokens", i32), ("vocab_size", i32), ("weights", i32), ("arithmetic", i32),
                ("embedding_dim", i32), ("n_int8_matrices", u32), ("kv", i32), ("reserved", u32)]


class Memory(Struct):
    _fields_ = [("struct_size", u32), ("n_threads", i32), ("n_tokens", i64), ("n_images", i64), ("weights", u64),
                ("weights_copied", u64), ("activations", u64), ("kv_cache", u64)]


class ConvertOptions(Struct):
    _fields_ = [("struct_size", u32), ("weights", i32), ("n_threads", i32), ("reserved", u32),
                ("max_file_bytes", u64), ("allocator", P(Allocator)), ("log", LogFn), ("log_user", c_void_p),
                ("progress", ProgressFn), ("progress_user", c_void_p), ("cancel", c_void_p), ("int8_layers", c_char_p),
                ("calibration", c_void_p), ("adapters", P(c_char_p)), ("adapter_weights", P(f32)), ("n_adapters", i32),
                ("reserved_end", u32)]


class AdapterOptions(Struct):
    _fields_ = [("struct_size", u32), ("n_threads", i32), ("progress", ProgressFn), ("progress_user", c_void_p),
                ("cancel", c_void_p)]


class AdapterInfo(Struct):
    _fields_ = [("struct_size", u32), ("rank", i32), ("n_parameters", u64), ("n_bytes", u64), ("n_modules", i32),
                ("adapts_images", i32), ("base", c_char_p)]


class ProcessorOptions(Struct):
    _fields_ = [("struct_size", u32), ("flags", u32), ("cpu_mask", u64), ("allocator", P(Allocator)), ("log", LogFn),
                ("log_user", c_void_p), ("cancel", c_void_p)]


class ProcessorInfo(Struct):
    _fields_ = [("struct_size", u32), ("image_size", i32), ("n_image_tokens", i32), ("resample", i32),
                ("vocab_size", i32), ("n_model_ids", i32), ("flags", u32), ("do_resize", u32), ("do_rescale", u32),
                ("do_normalize", u32), ("padding_side", i32), ("truncation_side", i32), ("max_length", i64),
                ("model_max_length", i64), ("pad_to_multiple_of", i64), ("pad_id", i64), ("eos_id", i64),
                ("bos_id", i64), ("unk_id", i64), ("image_id", i64), ("image_mean", f32 * 3), ("image_std", f32 * 3),
                ("rescale_factor", f64)]


class ImageSettings(Struct):
    _fields_ = [("struct_size", u32), ("height", i32), ("width", i32), ("resample", i32), ("do_resize", u32),
                ("do_rescale", u32), ("do_normalize", u32), ("do_convert_rgb", u32), ("n_image_tokens", i32),
                ("reserved", u32), ("image_mean", f32 * 3), ("image_std", f32 * 3), ("rescale_factor", f64)]


class EncodeOptions(Struct):
    _fields_ = [("struct_size", u32), ("flags", u32), ("max_image_pixels", i64), ("mode", i32), ("padding", i32),
                ("padding_side", i32), ("pad_to_multiple_of", i32), ("max_length", i64), ("truncation", i32),
                ("truncation_side", i32), ("cancel", c_void_p), ("image_settings", P(ImageSettings)), ("max_tokens", i64),
                ("max_text_bytes", i64)]


class Batch(Struct):
    _fields_ = [("struct_size", u32), ("n_prompts", i32), ("n_suffixes", i32), ("n_images", i32),
                ("n_image_counts", i32), ("reserved", u32), ("prompts", P(c_char_p)), ("suffixes", P(c_char_p)),
                ("prompt_sizes", P(u64)), ("suffix_sizes", P(u64)), ("images", P(Image)),
                ("image_counts", P(i32))]


class RowInfo(Struct):
    _fields_ = [("struct_size", u32), ("events", u32), ("first_token", i64), ("n_tokens", i64), ("n_suffix", i64),
                ("n_truncated", i64), ("first_image", i64), ("n_images", i64)]


class InputArrays(Struct):
    _fields_ = [("struct_size", u32), ("reserved", u32), ("input_ids", P(Tensor)), ("inputs_embeds", P(Tensor)),
                ("attention_mask", P(Tensor)), ("token_type_ids", P(Tensor)), ("labels", P(Tensor)),
                ("position_ids", P(Tensor)), ("pixel_values", P(Tensor)), ("allocator", P(Allocator))]


class SamplingOptions(Struct):
    _fields_ = [("struct_size", u32), ("flags", u32), ("seed", u64), ("stream", u64), ("temperature", f64),
                ("top_h", f64), ("top_p", f64), ("min_p", f64), ("typical_p", f64), ("epsilon_cutoff", f64),
                ("eta_cutoff", f64), ("repetition_penalty", f64), ("decay_factor", f64), ("decay_start", i32),
                ("top_k", i32), ("no_repeat_ngram_size", i32), ("min_new_tokens", i32), ("min_length", i32),
                ("reserved", u32), ("forced_bos_id", i64), ("eos_ids", P(i64)), ("n_eos_ids", i64),
                ("forced_eos_ids", P(i64)), ("n_forced_eos_ids", i64), ("suppressed_ids", P(i64)),
                ("n_suppressed_ids", i64), ("begin_suppressed_ids", P(i64)), ("n_begin_suppressed_ids", i64),
                ("bad_word_ids", P(i64)), ("bad_word_sizes", P(i64)), ("n_bad_words", i64), ("bias_ids", P(i64)),
                ("bias_sizes", P(i64)), ("biases", P(f64)), ("n_biases", i64), ("token_mask", P(u32)),
                ("on_mask", MaskFn), ("on_mask_user", c_void_p), ("on_logits", LogitsFn), ("on_logits_user", c_void_p)]


class BeamOptions(Struct):
    _fields_ = [("struct_size", u32), ("n_beams", i32), ("early_stopping", i32), ("reserved", u32),
                ("length_penalty", f64), ("on_texts", TextsFn), ("on_texts_user", c_void_p)]


class GenerateOptions(Struct):
    _fields_ = [("struct_size", u32), ("flags", u32), ("max_new_tokens", i32), ("n_threads", i32),
                ("features", c_void_p), ("on_text", TextFn), ("on_text_user", c_void_p), ("progress", ProgressFn),
                ("progress_user", c_void_p), ("cancel", c_void_p), ("sampling", P(SamplingOptions)),
                ("stop_strings", P(c_char_p)), ("n_stop_strings", i32), ("n_alternatives", i32), ("max_seconds", f64),
                ("max_context", i64), ("beams", P(BeamOptions)), ("n_return", i32), ("max_running", i32),
                ("row_models", P(c_void_p)), ("n_row_models", i64)]


class ResultInfo(Struct):
    _fields_ = [("struct_size", u32), ("stop", i32), ("n_prompt_tokens", i64), ("n_new_tokens", i64),
                ("vision_seconds", f64), ("prefill_seconds", f64), ("decode_seconds", f64),
                ("score", f64)]


class AnswerOptions(Struct):
    _fields_ = [("struct_size", u32), ("flags", u32), ("width", i32), ("height", i32), ("convention", i32),
                ("max_iou", f32), ("allocator", P(Allocator)), ("window", P(Window))]


class MaskDecoderOptions(Struct):
    _fields_ = [("struct_size", u32), ("reserved", u32), ("cpu_mask", u64), ("allocator", P(Allocator))]


class Object(Struct):
    _fields_ = [("struct_size", u32), ("flags", u32), ("label", c_char_p), ("label_size", u64), ("box", f32 * 4),
                ("point", f32 * 2), ("score", f32), ("loc_score", f32), ("label_score", f32), ("n_locs", i32),
                ("locs", i32 * 4), ("n_segs", i32), ("segs", i32 * 16), ("duplicate_of", i32), ("text_begin", i64),
                ("text_size", i64), ("first_token", i64), ("n_tokens", i64)]


class TrainerOptions(Struct):
    _fields_ = [("struct_size", u32), ("flags", u32), ("rank", i32), ("schedule", i32), ("alpha", f64),
                ("dropout", f64), ("target_modules", c_char_p), ("modules_to_save", c_char_p), ("learning_rate", f64),
                ("weight_decay", f64), ("beta1", f64), ("beta2", f64), ("epsilon", f64), ("max_gradient_norm", f64),
                ("warmup_steps", i64), ("total_steps", i64), ("accumulation", i64), ("seed", u64), ("base", c_char_p),
                ("n_threads", i32), ("reserved", u32), ("progress", ProgressFn), ("progress_user", c_void_p),
                ("cancel", c_void_p)]


class TrainResult(Struct):
    _fields_ = [("struct_size", u32), ("updated", i32), ("loss", f64), ("gradient_norm", f64), ("learning_rate", f64),
                ("step", i64), ("n_labels", i64), ("n_tokens", i64)]


class Parameter(Struct):
    _fields_ = [("struct_size", u32), ("decays", i32), ("n_dims", i32), ("reserved", u32), ("shape", i64 * 4),
                ("name", c_char_p), ("value", P(f32)), ("gradient", P(f32))]


class ForwardOptions(Struct):
    _fields_ = [("struct_size", u32), ("flags", u32), ("n_threads", i32), ("reserved", u32), ("logits_to_keep", i64),
                ("features", c_void_p), ("progress", ProgressFn), ("progress_user", c_void_p), ("cancel", c_void_p),
                ("attention_queries", i64), ("attention_layer", i32), ("reserved_end", u32), ("row_models", P(c_void_p)),
                ("n_row_models", i64)]


class RunOptions(Struct):
    _fields_ = [("struct_size", u32), ("n_threads", i32), ("progress", ProgressFn), ("progress_user", c_void_p),
                ("cancel", c_void_p)]


class ScoreOptions(Struct):
    _fields_ = [("struct_size", u32), ("flags", u32), ("n_threads", i32), ("reserved", u32), ("features", c_void_p),
                ("max_context", i64), ("progress", ProgressFn), ("progress_user", c_void_p), ("cancel", c_void_p)]


class ScoreInfo(Struct):
    _fields_ = [("struct_size", u32), ("reserved", u32), ("n_tokens", i64), ("log_prob", f64), ("mean_log_prob", f64),
                ("probability", f64), ("mean_probability", f64)]


class SessionOptions(Struct):
    _fields_ = [("struct_size", u32), ("n_threads", i32), ("max_new_tokens", i32), ("max_prompt_tokens", i32),
                ("progress", ProgressFn), ("progress_user", c_void_p), ("cancel", c_void_p), ("max_context", i64),
                ("threads_of", c_void_p)]


class WorkerOptions(Struct):
    _fields_ = [("struct_size", u32), ("flags", u32), ("n_threads", i32), ("n_workers", i32), ("max_waiting", i32),
                ("max_running", i32), ("max_new_tokens", i32), ("nice", i32), ("cpus", P(i32)), ("n_cpus", i64)]


class WorkerEvent(Struct):
    _fields_ = [("struct_size", u32), ("kind", i32), ("ticket", i64), ("user", u64), ("status", i32), ("stop", i32),
                ("text", c_char_p), ("size", u64), ("object", P(Object)), ("n_new_tokens", i64), ("wait_seconds", f64),
                ("run_seconds", f64)]


WorkerFn = ctypes.CFUNCTYPE(None, c_void_p, P(WorkerEvent))


class RequestOptions(Struct):
    _fields_ = [("struct_size", u32), ("flags", u32), ("priority", i32), ("max_new_tokens", i32), ("stream", i64),
                ("deadline", f64), ("sampling", P(SamplingOptions)), ("encode", P(EncodeOptions)), ("on_event", WorkerFn),
                ("on_event_user", c_void_p), ("user", u64), ("convention", i32), ("reserved", u32)]


class WorkerInfo(Struct):
    _fields_ = [("struct_size", u32), ("n_waiting", i32), ("n_running", i32), ("n_not_polled", i32), ("n_accepted", i64),
                ("n_done", i64), ("n_cancelled", i64), ("n_replaced", i64), ("n_late", i64), ("n_failed", i64),
                ("n_busy", i64), ("n_steps", i64), ("n_step_rows", i64)]


_H = c_void_p  # a handle
_OUT = P(c_void_p)  # where a handle is written
# name: arguments, for functions that return a pg_status
STATUS_FUNCTIONS = {
    **{f"pg_{name}_init": [P(kind), c_size_t] for name, kind in (
        ("tensor", Tensor), ("model_options", ModelOptions), ("processor_options", ProcessorOptions),
        ("encode_options", EncodeOptions), ("sampling_options", SamplingOptions), ("beam_options", BeamOptions),
        ("generate_options", GenerateOptions), ("batch", Batch), ("input_arrays", InputArrays),
        ("forward_options", ForwardOptions), ("score_options", ScoreOptions), ("run_options", RunOptions), ("session_options", SessionOptions),
        ("worker_options", WorkerOptions), ("worker_event", WorkerEvent), ("request_options", RequestOptions),
        ("answer_options", AnswerOptions), ("convert_options", ConvertOptions))},
    "pg_cancel_create": [_OUT],
    "pg_model_open": [c_char_p, P(ModelOptions), _OUT],
    "pg_model_get_config": [_H, c_char_p, c_char_p, c_size_t, P(c_size_t)],
    "pg_model_get_config_int": [_H, c_char_p, P(i64)],
    "pg_model_get_config_float": [_H, c_char_p, P(f64)],
    "pg_model_embed": [_H, P(i64), c_size_t, P(f32)],
    "pg_model_get_memory": [_H, P(Memory)],
    "pg_model_get_sampling": [_H, P(SamplingOptions)],
    "pg_model_get_info": [_H, P(ModelInfo)],
    "pg_model_convert": [c_char_p, c_char_p, P(ConvertOptions)],
    "pg_adapter_options_init": [P(AdapterOptions), c_size_t],
    "pg_adapter_open": [_H, c_char_p, P(AdapterOptions), _OUT],
    "pg_adapter_get_info": [_H, P(AdapterInfo)],
    "pg_adapter_find_base": [c_char_p, c_char_p, c_size_t, P(c_size_t)],
    "pg_trainer_options_init": [P(TrainerOptions), c_size_t],
    "pg_trainer_create": [_H, P(TrainerOptions), _OUT],
    "pg_trainer_step": [_H, _H, P(TrainResult)],
    "pg_trainer_evaluate": [_H, _H, P(TrainResult)],
    "pg_trainer_save": [_H, c_char_p],
    "pg_trainer_resume": [_H, c_char_p, P(TrainerOptions), _OUT],
    "pg_trainer_get_step": [_H, P(i64)],
    "pg_trainer_count_parameters": [_H, P(c_size_t)],
    "pg_trainer_get_parameter": [_H, c_size_t, P(Parameter)],
    "pg_model_adapt": [_H, P(c_void_p), P(f32), c_size_t, _OUT],
    "pg_calibration_create": [_H, _OUT],
    "pg_calibration_add": [_H, _H, P(RunOptions)],
    "pg_calibration_get_rows": [_H, P(i64)],
    "pg_calibration_save": [_H, c_char_p, u64],
    "pg_calibration_load": [_H, c_char_p, u64, _OUT],
    "pg_checkpoint_get_config": [c_char_p, c_char_p, c_size_t, P(c_size_t)],
    "pg_checkpoint_find": [c_char_p, c_char_p, c_char_p, c_size_t, P(c_size_t)],
    "pg_image_from_path": [P(Image), c_size_t, c_char_p],
    "pg_image_from_bytes": [P(Image), c_size_t, c_void_p, c_size_t],
    "pg_image_from_pixels": [P(Image), c_size_t, i32, i32, i32, c_void_p, i64],
    "pg_image_from_planes": [P(Image), c_size_t, i32, i32, i32, P(c_void_p), P(i64)],
    "pg_image_get_window": [P(Image), i32, i32, i32, i32, P(Window)],
    "pg_processor_open": [c_char_p, P(ProcessorOptions), _OUT],
    "pg_processor_get_info": [_H, P(ProcessorInfo)],
    "pg_processor_get_image_settings": [_H, P(ImageSettings)],
    "pg_processor_encode": [_H, P(Image), c_char_p, P(EncodeOptions), _OUT],
    "pg_processor_encode_batch": [_H, P(Batch), P(EncodeOptions), _OUT],
    "pg_processor_tokenize": [_H, c_char_p, u32, P(i64), c_size_t, P(c_size_t)],
    "pg_processor_decode": [_H, P(i64), c_size_t, u32, c_char_p, c_size_t, P(c_size_t)],
    "pg_processor_get_piece": [_H, i64, P(c_char_p)],
    "pg_processor_get_token_id": [_H, c_char_p, P(i64)],
    "pg_processor_get_token_flags": [_H, i64, P(u32)],
    "pg_inputs_get_tensor": [_H, c_char_p, P(Tensor)],
    "pg_inputs_get_row_info": [_H, i64, P(RowInfo)],
    "pg_inputs_create": [P(InputArrays), _OUT],
    "pg_generate": [_H, _H, _H, P(GenerateOptions), _OUT],
    "pg_result_get_ids": [_H, i64, P(Tensor)],
    "pg_result_get_tensor": [_H, i64, c_char_p, P(Tensor)],
    "pg_result_get_info": [_H, i64, P(ResultInfo)],
    "pg_answer_create": [_H, _H, i64, P(AnswerOptions), _OUT],
    "pg_answer_create_from_ids": [_H, P(i64), P(f32), c_size_t, P(AnswerOptions), _OUT],
    "pg_answer_create_from_text": [c_char_p, c_size_t, P(AnswerOptions), _OUT],
    "pg_answer_get_object": [_H, i64, P(Object)],
    "pg_mask_decoder_options_init": [P(MaskDecoderOptions), c_size_t],
    "pg_mask_decoder_open": [c_char_p, P(MaskDecoderOptions), _OUT],
    "pg_mask_decoder_decode": [_H, P(i32), P(f32)],
    "pg_answer_get_mask": [_H, i64, _H, c_void_p, c_size_t],
    "pg_mask_get_counts": [c_void_p, i32, i32, P(u32), c_size_t, P(c_size_t)],
    "pg_mask_get_rle": [c_void_p, i32, i32, c_char_p, c_size_t, P(c_size_t)],
    "pg_forward": [_H, _H, P(ForwardOptions), _OUT],
    "pg_outputs_get_tensor": [_H, c_char_p, P(Tensor)],
    "pg_score": [_H, _H, _H, P(c_char_p), i64, P(ScoreOptions), _OUT],
    "pg_score_ids": [_H, _H, P(i64), P(i64), i64, P(ScoreOptions), _OUT],
    "pg_scores_get_info": [_H, i64, P(ScoreInfo)],
    "pg_scores_get_tensor": [_H, i64, c_char_p, P(Tensor)],
    "pg_features_create": [_H, _H, P(RunOptions), _OUT],
    "pg_features_from_tensor": [_H, P(Tensor), _OUT],
    "pg_features_get_tensor": [_H, P(Tensor)],
    "pg_features_save": [_H, c_char_p],
    "pg_features_to_bytes": [_H, c_void_p, c_size_t, P(c_size_t)],
    "pg_features_load": [_H, c_char_p, _OUT],
    "pg_features_from_bytes": [_H, c_void_p, c_size_t, _OUT],
    "pg_session_create": [_H, P(SessionOptions), _OUT],
    "pg_session_prefill": [_H, _H, _H],
    "pg_session_step": [_H, P(i64)],
    "pg_session_sample": [_H, P(SamplingOptions), P(i64)],
    "pg_session_step_together": [P(c_void_p), i64, P(i64), P(i32)],
    "pg_session_feed": [_H, P(i64), c_size_t],
    "pg_session_get_logits": [_H, P(Tensor)],
    "pg_worker_create": [_H, _H, P(WorkerOptions), _OUT],
    "pg_worker_submit": [_H, P(Image), c_char_p, P(RequestOptions), P(i64)],
    "pg_worker_cancel": [_H, i64],
    "pg_worker_poll": [_H, P(WorkerEvent)],
    "pg_worker_wait": [_H, f64, P(WorkerEvent)],
    "pg_worker_get_info": [_H, P(WorkerInfo)],
    "pg_detokenizer_create": [_H, u32, _OUT],
    "pg_detokenizer_push": [_H, i64, P(c_void_p), P(c_size_t)],
    "pg_detokenizer_flush": [_H, P(c_void_p), P(c_size_t)],
}
# name: (result, arguments), for the others
OTHER_FUNCTIONS = {
    "pg_version_api": (u32, []),
    "pg_version_string": (c_char_p, []),
    "pg_last_error": (c_char_p, []),
    "pg_last_error_row": (i64, []),
    "pg_status_name": (c_char_p, [i32]),
    "pg_result_get_text": (c_char_p, [_H, i64]),
    "pg_answer_get_text": (c_char_p, [_H]),
    "pg_answer_get_n_objects": (i64, [_H]),
    "pg_cancel_request": (None, [c_void_p]),
    "pg_cancel_clear": (None, [c_void_p]),
    "pg_result_get_n_rows": (i64, [_H]),
    "pg_scores_get_n_answers": (i64, [_H]),
    **{f"pg_{kind}_close": (None, [_OUT]) for kind in
       ("cancel", "model", "processor", "inputs", "result", "outputs", "features", "session", "worker", "detokenizer",
        "answer", "mask_decoder", "scores", "calibration", "adapter", "trainer")},
}


def _candidates() -> list[tuple[str, str]]:
    """(what it is, path or name for dlopen) in the order of trial. $PALIGEMMA_LIBRARY, when set, is the only one."""
    chosen = os.environ.get("PALIGEMMA_LIBRARY")
    if chosen:
        if os.sep in chosen or os.path.isdir(chosen):  # a bare name is the loader's to find
            chosen = os.path.abspath(chosen)
        os.environ["PALIGEMMA_LIBRARY"] = chosen  # processes started from here find it, whatever their folder
        if os.path.isdir(chosen):
            chosen = os.path.join(chosen, SONAME)
        return [("$PALIGEMMA_LIBRARY", chosen)]
    bundled = Path(__file__).parent / "lib" / SONAME
    found = [("bundled with the package", str(bundled))] if bundled.exists() else []
    found.append(("the system's library path", SONAME))
    other = ctypes.util.find_library("paligemma")
    if other and other != SONAME:
        found.append(("the system's library path", other))
    return found


def _open() -> ctypes.CDLL:
    tried = []
    for what, path in _candidates():
        try:
            return ctypes.CDLL(path)
        except OSError as error:
            tried.append(f"{path} ({what}): {error}")
    if not os.environ.get("PALIGEMMA_LIBRARY"):
        tried.insert(0, "$PALIGEMMA_LIBRARY is not set")
        bundled = Path(__file__).parent / "lib" / SONAME
        if not bundled.exists():
            tried.insert(1, f"{bundled} (bundled with the package): not there")
    raise OSError("libpaligemma was not found. Looked at: " + "; ".join(tried) + ". Install it, or set "
                  "PALIGEMMA_LIBRARY to the path of " + SONAME + " or to its folder.")


def _compatible(major: int, minor: int) -> bool:
    """PG_API_COMPATIBLE() of version.h: while MAJOR is 0, another MINOR may have other structs, which ctypes cannot see."""
    return major == API_MAJOR and (minor >= API_MINOR if API_MAJOR else minor == API_MINOR)


def _load() -> ctypes.CDLL:
    library = _open()
    try:
        library.pg_version_api.restype = u32
        version = library.pg_version_api()
        major, minor = version >> 16, version >> 8 & 0xFF
        if not _compatible(major, minor):
            needed = f"{API_MAJOR}.{API_MINOR}" + (f" or later of {API_MAJOR}.x" if API_MAJOR else "")
            raise OSError(f"{library._name} has API version {major}.{minor}, this package needs {needed}")
        for name, arguments in STATUS_FUNCTIONS.items():
            function = getattr(library, name)
            function.restype, function.argtypes = i32, arguments
        for name, (result, arguments) in OTHER_FUNCTIONS.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
    except AttributeError as error:
        raise OSError(f"{library._name} is not a libpaligemma of API {API_MAJOR}.{API_MINOR}: {error}") from None
    return library


lib = _load()


def version() -> str:
    """The version of the library that is loaded."""
    return lib.pg_version_string().decode()


def library_path() -> str:
    """The name by which the library was loaded."""
    return lib._name


def check(status: int) -> int:
    """Raises for a negative status. To be called on the thread of the failing call, right after it."""
    if status < 0:
        name, text, row = lib.pg_status_name(status), lib.pg_last_error(), lib.pg_last_error_row()
        raise _errors.exception(status, name.decode(), text.decode("utf-8", "replace"), None if row < 0 else row)
    return status


def copied_text(function: Any, *arguments: Any) -> str:
    """The text that a function of the kind (..., text, capacity, needed) copies out."""
    needed = c_size_t()
    check(function(*arguments, None, 0, ctypes.byref(needed)))
    buffer = ctypes.create_string_buffer(needed.value)
    check(function(*arguments, buffer, needed.value, ctypes.byref(needed)))
    return buffer.raw[:needed.value - 1].decode("utf-8")
