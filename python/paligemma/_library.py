"""The C library: where it is found, its structs and its functions. The only module that knows ctypes prototypes.

Every struct and function is declared once, as in include/paligemma/paligemma.h.
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
i32, i64, u32, u64 = ctypes.c_int32, ctypes.c_int64, ctypes.c_uint32, ctypes.c_uint64
f32, f64 = ctypes.c_float, ctypes.c_double
P = ctypes.POINTER

DTYPE_F32, DTYPE_I64 = 1, 4
IMAGE_RGB8, IMAGE_GRAY8 = 1, 5

ENCODE_LITERAL, ENCODE_EXIF, ENCODE_TRUNCATE, ENCODE_KEEP_ENDS, ENCODE_OPEN_SUFFIX = 1, 2, 4, 8, 16
DECODE_SKIP_SPECIAL = 1
MODES = {"hf": 0, "big_vision": 1}
PADDING_LONGEST, PADDING_MAX_LENGTH, PADDING_NONE = 0, 1, 2
SIDES = {"left": 1, "right": 2}
TRUNCATIONS = {True: 0, "longest_first": 0, "only_first": 1, "only_second": 2}
ROW_EVENTS = {1: "truncated", 2: "truncated_eos", 4: "truncated_newline", 8: "truncated_image", 16: "bos_misplaced",
              32: "newline_merged"}
FORWARD_NO_LOGITS, FORWARD_HIDDEN_STATES, FORWARD_LAST_HIDDEN, FORWARD_LOSS_PER_ROW, FORWARD_SKIP_PADDING = (
    1, 2, 4, 8, 16)
FORWARD_EMBEDDINGS = 53
EVENT_EOS, EVENT_LENGTH = 1, 2
CPU_MASKS = {None: 0, "baseline": 1, "avx2": 3, "avx512": 7}
WEIGHTS = ("stored", "int8", "int4")  # PG_WEIGHTS_*
ARITHMETICS = {None: 0, "f32": 1, "bf16": 2}  # PG_ARITHMETIC_*
PHASE_CONVERT = 5

LogFn = ctypes.CFUNCTYPE(None, c_void_p, i32, c_char_p)
ProgressFn = ctypes.CFUNCTYPE(i32, c_void_p, i32, i64, i64)


class Struct(ctypes.Structure):
    """A struct that begins with struct_size, which is filled in. An integer that its field cannot hold: ValueError."""

    def __init__(self, **values: Any) -> None:
        super().__init__(struct_size=ctypes.sizeof(type(self)), **values)
        for name, value in values.items():
            if isinstance(value, int) and getattr(self, name) != value:  # ctypes cuts silently
                bits = 8 * getattr(type(self), name).size
                raise ValueError(f"{name} is {value}, which is no {bits}-bit integer of its kind")


class Tensor(Struct):
    _fields_ = [("struct_size", u32), ("dtype", i32), ("n_dims", i32), ("reserved", u32), ("shape", i64 * 4),
                ("data", c_void_p)]


class Image(Struct):
    _fields_ = [("struct_size", u32), ("format", i32), ("width", i32), ("height", i32), ("planes", c_void_p * 4),
                ("strides", i64 * 4), ("path", c_char_p), ("n_bytes", u64)]


class ModelOptions(Struct):
    _fields_ = [("struct_size", u32), ("flags", u32), ("cpu_mask", u64), ("allocator", c_void_p), ("log", LogFn),
                ("log_user", c_void_p), ("progress", c_void_p), ("progress_user", c_void_p), ("cancel", c_void_p),
                ("weights", i32), ("arithmetic", i32), ("n_threads", i32), ("reserved", u32)]


class ModelInfo(Struct):
    _fields_ = [("struct_size", u32), ("gemma_version", i32), ("n_parameters", u64), ("n_bytes_mapped", u64),
                ("cpu_used", u64), ("n_files", u32), ("n_tensors", u32), ("dtypes", u32), ("image_size", i32),
                ("n_image_tokens", i32), ("vocab_size", i32), ("weights", i32), ("arithmetic", i32)]


class ConvertOptions(Struct):
    _fields_ = [("struct_size", u32), ("weights", i32), ("n_threads", i32), ("reserved", u32),
                ("max_file_bytes", u64), ("allocator", c_void_p), ("log", LogFn), ("log_user", c_void_p),
                ("progress", ProgressFn), ("progress_user", c_void_p), ("cancel", c_void_p)]


class ProcessorOptions(Struct):
    _fields_ = [("struct_size", u32), ("reserved", u32), ("cpu_mask", u64), ("allocator", c_void_p), ("log", LogFn),
                ("log_user", c_void_p), ("cancel", c_void_p)]


class ProcessorInfo(Struct):
    _fields_ = [("struct_size", u32), ("image_size", i32), ("n_image_tokens", i32), ("resample", i32),
                ("vocab_size", i32), ("do_resize", u32), ("do_rescale", u32), ("do_normalize", u32), ("pad_id", i64),
                ("eos_id", i64), ("bos_id", i64), ("unk_id", i64), ("image_id", i64), ("image_mean", f32 * 3),
                ("image_std", f32 * 3), ("rescale_factor", f64)]


class EncodeOptions(Struct):
    _fields_ = [("struct_size", u32), ("flags", u32), ("max_image_pixels", i64), ("mode", i32), ("padding", i32),
                ("padding_side", i32), ("pad_to_multiple_of", i32), ("max_length", i64), ("truncation", i32),
                ("truncation_side", i32), ("cancel", c_void_p)]


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
                ("position_ids", P(Tensor)), ("pixel_values", P(Tensor)), ("allocator", c_void_p)]


class GenerateOptions(Struct):
    _fields_ = [("struct_size", u32), ("flags", u32), ("max_new_tokens", i32), ("n_threads", i32),
                ("features", c_void_p), ("on_text", c_void_p), ("on_text_user", c_void_p), ("progress", c_void_p),
                ("progress_user", c_void_p), ("cancel", c_void_p)]


class ForwardOptions(Struct):
    _fields_ = [("struct_size", u32), ("flags", u32), ("n_threads", i32), ("reserved", u32), ("logits_to_keep", i64),
                ("features", c_void_p), ("progress", c_void_p), ("progress_user", c_void_p), ("cancel", c_void_p)]


class RunOptions(Struct):
    _fields_ = [("struct_size", u32), ("n_threads", i32), ("progress", c_void_p), ("progress_user", c_void_p),
                ("cancel", c_void_p)]


class SessionOptions(Struct):
    _fields_ = [("struct_size", u32), ("n_threads", i32), ("max_new_tokens", i32), ("max_prompt_tokens", i32),
                ("progress", c_void_p), ("progress_user", c_void_p), ("cancel", c_void_p)]


_H = c_void_p  # a handle
_OUT = P(c_void_p)  # where a handle is written
# name: arguments, for functions that return a pg_status
_STATUS_FUNCTIONS = {
    "pg_cancel_create": [_OUT],
    "pg_model_open": [c_char_p, P(ModelOptions), _OUT],
    "pg_model_get_config": [_H, c_char_p, c_char_p, c_size_t, P(c_size_t)],
    "pg_model_get_info": [_H, P(ModelInfo)],
    "pg_model_convert": [c_char_p, c_char_p, P(ConvertOptions)],
    "pg_checkpoint_find": [c_char_p, c_char_p, c_char_p, c_size_t, P(c_size_t)],
    "pg_image_from_path": [P(Image), c_size_t, c_char_p],
    "pg_image_from_bytes": [P(Image), c_size_t, c_char_p, c_size_t],
    "pg_image_from_pixels": [P(Image), c_size_t, i32, i32, i32, c_void_p, i64],
    "pg_processor_open": [c_char_p, P(ProcessorOptions), _OUT],
    "pg_processor_get_info": [_H, P(ProcessorInfo)],
    "pg_processor_encode_batch": [_H, P(Batch), P(EncodeOptions), _OUT],
    "pg_processor_tokenize": [_H, c_char_p, u32, P(i64), c_size_t, P(c_size_t)],
    "pg_processor_decode": [_H, P(i64), c_size_t, u32, c_char_p, c_size_t, P(c_size_t)],
    "pg_processor_get_piece": [_H, i64, P(c_char_p)],
    "pg_processor_get_token_id": [_H, c_char_p, P(i64)],
    "pg_inputs_get_tensor": [_H, c_char_p, P(Tensor)],
    "pg_inputs_get_row_info": [_H, i64, P(RowInfo)],
    "pg_inputs_create": [P(InputArrays), _OUT],
    "pg_generate": [_H, _H, _H, P(GenerateOptions), _OUT],
    "pg_result_get_ids": [_H, i64, P(Tensor)],
    "pg_forward": [_H, _H, P(ForwardOptions), _OUT],
    "pg_outputs_get_tensor": [_H, c_char_p, P(Tensor)],
    "pg_features_create": [_H, _H, P(RunOptions), _OUT],
    "pg_features_get_tensor": [_H, P(Tensor)],
    "pg_session_create": [_H, P(SessionOptions), _OUT],
    "pg_session_prefill": [_H, _H, _H],
    "pg_session_step": [_H, P(i64)],
    "pg_detokenizer_create": [_H, u32, _OUT],
    "pg_detokenizer_push": [_H, i64, P(c_void_p), P(c_size_t)],
    "pg_detokenizer_flush": [_H, P(c_void_p), P(c_size_t)],
}
# name: (result, arguments), for the others
_OTHER_FUNCTIONS = {
    "pg_version_api": (u32, []),
    "pg_version_string": (c_char_p, []),
    "pg_last_error": (c_char_p, []),
    "pg_cancel_request": (None, [c_void_p]),
    "pg_cancel_clear": (None, [c_void_p]),
    "pg_result_get_n_rows": (i64, [_H]),
    **{f"pg_{kind}_close": (None, [_OUT]) for kind in
       ("cancel", "model", "processor", "inputs", "result", "outputs", "features", "session", "detokenizer")},
}


def _candidates() -> list[tuple[str, str]]:
    """(what it is, path or name for dlopen) in the order of trial. $PALIGEMMA_LIBRARY, when set, is the only one."""
    chosen = os.environ.get("PALIGEMMA_LIBRARY")
    if chosen:
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
        for name, arguments in _STATUS_FUNCTIONS.items():
            function = getattr(library, name)
            function.restype, function.argtypes = i32, arguments
        for name, (result, arguments) in _OTHER_FUNCTIONS.items():
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
        raise _errors.exception(status, lib.pg_last_error().decode("utf-8", "replace"))
    return status


def copied_text(function: Any, *arguments: Any) -> str:
    """The text that a function of the kind (..., text, capacity, needed) copies out."""
    needed = c_size_t()
    check(function(*arguments, None, 0, ctypes.byref(needed)))
    buffer = ctypes.create_string_buffer(needed.value)
    check(function(*arguments, buffer, needed.value, ctypes.byref(needed)))
    return buffer.raw[:needed.value - 1].decode("utf-8")
