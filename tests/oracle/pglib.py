# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""A thin ctypes wrapper of libpaligemma for the scripts of this folder: every call takes and gives numpy arrays."""
import ctypes as c
import os

import numpy as np

OK, EOS, LENGTH = 0, 1, 2
LITERAL, EXIF, TRUNCATE, KEEP_ENDS, SUFFIX_OPEN = 1, 2, 4, 8, 16
SKIP_SPECIAL = 1
PADDINGS = {"longest": 0, "max_length": 1, "none": 2}
SIDES = {None: 0, "left": 1, "right": 2}
TRUNCATIONS = {"longest_first": 0, "only_first": 1, "only_second": 2}
RGB8, BGR8, RGBA8, BGRA8, GRAY8 = 1, 2, 3, 4, 5
ROW_TRUNCATED, ROW_TRUNCATED_EOS, ROW_TRUNCATED_NEWLINE, ROW_TRUNCATED_IMAGE, ROW_BOS_MISPLACED, ROW_NEWLINE_MERGED = 1, 2, 4, 8, 16, 32
NO_LOGITS, HIDDEN_STATES, LAST_HIDDEN, LOSS_PER_ROW, SKIP_PADDING = 1, 2, 4, 8, 16
EMBEDDINGS = 53
WEIGHTS = {"stored": 0, "int8": 1, "int4": 2}
ARITHMETIC_BF16 = 2
CPU_MASKS = {"plain C": 1, "AVX2": 3, "AVX-512": 7}
DTYPES = {1: np.float32, 2: np.uint16, 3: np.float16, 4: np.int64}
NUMBERS = {np.dtype(kind): number for number, kind in DTYPES.items()}


class Error(Exception):
    pass


def structure(name, fields, first="struct_size:u32"):
    """A ctypes structure from "name:type name:type ..."; types as in TYPES."""
    types = {"u32": c.c_uint32, "i32": c.c_int32, "i64": c.c_int64, "u64": c.c_uint64, "ptr": c.c_void_p,
             "f64": c.c_double, "i64x4": c.c_int64 * 4, "ptrx4": c.c_void_p * 4}
    pairs = [field.split(":") for field in f"{first} {fields}".split()]
    return type(name, (c.Structure,), {"_fields_": [(key, types[kind]) for key, kind in pairs]})


class Tensor(structure("Tensor", "dtype:i32 n_dims:i32 reserved:u32 shape:i64x4 data:ptr")):
    def array(self):
        """A copy."""
        shape, dtype = tuple(self.shape[:self.n_dims]), np.dtype(DTYPES[self.dtype])
        n = int(np.prod(shape)) * dtype.itemsize
        return np.frombuffer(c.string_at(self.data, n), dtype).reshape(shape).copy()

    @classmethod
    def of(cls, array):
        """A view; the array must live on."""
        tensor = cls(struct_size=c.sizeof(cls), dtype=NUMBERS[array.dtype], n_dims=array.ndim, data=array.ctypes.data)
        tensor.shape[:] = list(array.shape) + [1] * (4 - array.ndim)
        return tensor


Image = structure("Image", "format:i32 width:i32 height:i32 planes:ptrx4 strides:i64x4 path:ptr n_bytes:u64")
RUN = "progress:ptr progress_user:ptr cancel:ptr"
ModelOptions = structure("ModelOptions", f"flags:u32 cpu_mask:u64 allocator:ptr log:ptr log_user:ptr {RUN} "
                                         "weights:i32 arithmetic:i32 n_threads:i32 reserved:u32")
ModelInfo = structure("ModelInfo", "gemma_version:i32 n_parameters:u64 n_bytes_mapped:u64 cpu_used:u64 n_files:u32 "
                                   "n_tensors:u32 dtypes:u32 image_size:i32 n_image_tokens:i32 vocab_size:i32 "
                                   "weights:i32 arithmetic:i32")
EncodeOptions = structure("EncodeOptions", "flags:u32 max_image_pixels:i64 mode:i32 padding:i32 padding_side:i32 "
                                           "pad_to_multiple_of:i32 max_length:i64 truncation:i32 truncation_side:i32 cancel:ptr")
Batch = structure("Batch", "n_prompts:i32 n_suffixes:i32 n_images:i32 n_image_counts:i32 reserved:u32 prompts:ptr "
                           "suffixes:ptr prompt_sizes:ptr suffix_sizes:ptr images:ptr image_counts:ptr")
RowInfo = structure("RowInfo", "events:u32 first_token:i64 n_tokens:i64 n_suffix:i64 n_truncated:i64 first_image:i64 "
                               "n_images:i64")
InputArrays = structure("InputArrays", "reserved:u32 input_ids:ptr inputs_embeds:ptr attention_mask:ptr "
                                       "token_type_ids:ptr labels:ptr position_ids:ptr pixel_values:ptr allocator:ptr")
SessionOptions = structure("SessionOptions", f"n_threads:i32 max_new_tokens:i32 max_prompt_tokens:i32 {RUN}")
GenerateOptions = structure("GenerateOptions", f"flags:u32 max_new_tokens:i32 n_threads:i32 features:ptr on_text:ptr "
                                               f"on_text_user:ptr {RUN}")
ForwardOptions = structure("ForwardOptions", f"flags:u32 n_threads:i32 reserved:u32 logits_to_keep:i64 features:ptr "
                                             f"{RUN}")
RunOptions = structure("RunOptions", f"n_threads:i32 {RUN}")


def find_library(build):
    path = os.path.join(build, "lib", "libpaligemma.so")
    return path if os.path.exists(path) else build


class Library:
    def __init__(self, path):
        self.so = c.CDLL(find_library(path))
        self.so.pg_last_error.restype = c.c_char_p
        self.so.pg_version_string.restype = c.c_char_p
        self.so.pg_result_get_n_rows.restype = c.c_int64

    def call(self, name, *args):
        status = getattr(self.so, name)(*args)
        if status < 0:
            raise Error(f"{name}: {self.so.pg_last_error().decode()}")
        return status

    def options(self, kind, name, **values):
        """The struct `kind`, filled by pg_<name>_init."""
        options = kind()
        self.call(f"pg_{name}_init", c.byref(options), c.c_size_t(c.sizeof(options)))
        for key, value in values.items():
            if not hasattr(options, key):
                raise TypeError(f"{name} has no {key}")
            setattr(options, key, value)
        return options

    def make_inputs(self, **arrays):
        """pg_inputs_create() from arrays by name. -> Inputs"""
        inputs, options = Inputs(self), self.options(InputArrays, "input_arrays")
        kept = {}
        for name, array in arrays.items():
            kind = np.float32 if name in ("inputs_embeds", "pixel_values") else np.int64
            array = np.ascontiguousarray(array, kind)
            kept[name] = array, Tensor.of(array)
            setattr(options, name, c.addressof(kept[name][1]))
        self.call("pg_inputs_create", c.byref(options), c.byref(inputs.pointer))
        return inputs


class _Handle:
    """A handle that is closed with `pg_<name>_close`."""

    def __init__(self, library, name):
        self.library, self.name, self.pointer = library, name, c.c_void_p()

    def close(self):
        getattr(self.library.so, f"pg_{self.name}_close")(c.byref(self.pointer))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _tensor(self, function, *args):
        tensor = Tensor(struct_size=c.sizeof(Tensor))
        self.library.call(function, self.pointer, *args, c.byref(tensor))
        return tensor.array()


class Model(_Handle):
    def __init__(self, library, folder, cpu_mask=0, weights=0, arithmetic=0):
        super().__init__(library, "model")
        options = library.options(ModelOptions, "model_options", cpu_mask=cpu_mask, weights=weights,
                                  arithmetic=arithmetic)
        library.call("pg_model_open", os.fsencode(folder), c.byref(options), c.byref(self.pointer))

    def info(self):
        info = ModelInfo(struct_size=c.sizeof(ModelInfo))
        self.library.call("pg_model_get_info", self.pointer, c.byref(info))
        return info

    def cpu_used(self):
        return self.info().cpu_used

    def forward(self, inputs, features=None, embed=False, n_threads=1, **options):
        """pg_forward(); one thread is the fastest for models this small. -> Outputs"""
        outputs = Outputs(self.library)
        if embed:
            options["flags"] = EMBEDDINGS
        options = self.library.options(ForwardOptions, "forward_options", n_threads=n_threads, **options)
        options.features = features.pointer if features else None
        self.library.call("pg_forward", self.pointer, inputs.pointer, c.byref(options),
                          c.byref(outputs.pointer))
        return outputs

    def generate(self, processor, inputs, features=None, n_threads=1, **options):
        """pg_generate(). -> [(ids, text)] of the rows"""
        options = self.library.options(GenerateOptions, "generate_options", n_threads=n_threads, **options)
        options.features = features.pointer if features else None
        result = _Handle(self.library, "result")
        self.library.call("pg_generate", self.pointer, processor.pointer, inputs.pointer, c.byref(options),
                          c.byref(result.pointer))
        so, rows = self.library.so, []
        so.pg_result_get_text.restype = c.c_char_p
        with result:
            for row in range(so.pg_result_get_n_rows(result.pointer)):
                ids = result._tensor("pg_result_get_ids", c.c_int64(row))
                rows.append((ids.tolist(), so.pg_result_get_text(result.pointer, c.c_int64(row)).decode()))
        return rows

    def encode_image(self, inputs, n_threads=1):
        """-> Features"""
        features = Features(self.library)
        options = self.library.options(RunOptions, "run_options", n_threads=n_threads)
        self.library.call("pg_features_create", self.pointer, inputs.pointer, c.byref(options),
                          c.byref(features.pointer))
        return features


class _Texts:
    """Strings as pointers and sizes, NUL allowed within; keep it until the call has returned."""

    def __init__(self, texts):
        self.bytes = [text.encode() for text in texts]
        self.pointers = (c.c_char_p * len(texts))(*self.bytes)
        self.sizes = (c.c_size_t * len(texts))(*map(len, self.bytes))


def _swizzled(array, kind):
    """array: u8 [H, W, 3] -> the same image in the format `kind`, alpha as noise; GRAY8 takes the red channel."""
    if kind == GRAY8:
        return np.ascontiguousarray(array[:, :, 0])
    if kind in (BGR8, BGRA8):
        array = array[:, :, ::-1]
    if kind in (RGBA8, BGRA8):
        alpha = (array[:, :, :1].astype(int) * 7 + 13).astype(np.uint8)
        array = np.concatenate([array, alpha], -1)
    return np.ascontiguousarray(array)


class Processor(_Handle):
    def __init__(self, library, folder):
        super().__init__(library, "processor")
        library.call("pg_processor_open", os.fsencode(folder), None, c.byref(self.pointer))

    def encode(self, path, prompt, flags=0):
        """-> an open handle of the inputs for the image at `path`."""
        inputs, image, name = Inputs(self.library), Image(), os.fsencode(path)  # the image borrows the name
        self.library.call("pg_image_from_path", c.byref(image), c.c_size_t(c.sizeof(image)), name)
        options = self.library.options(EncodeOptions, "encode_options", flags=flags)
        self.library.call("pg_processor_encode", self.pointer, c.byref(image), prompt.encode(), c.byref(options),
                          c.byref(inputs.pointer))
        return inputs

    def encode_batch(self, prompts, suffixes=None, images=None, image_counts=None, **options):
        """pg_processor_encode_batch(). images: [(u8 [H, W, 3], format)] -> Inputs"""
        inputs, kept = Inputs(self.library), []
        batch = self.library.options(Batch, "batch")
        for name, texts in [("prompt", prompts), ("suffix", suffixes)]:
            if texts is None:
                continue
            kept.append(_Texts(texts))
            plural = "prompts" if name == "prompt" else "suffixes"
            setattr(batch, f"n_{plural}", len(texts))
            setattr(batch, plural, c.addressof(kept[-1].pointers))
            setattr(batch, f"{name}_sizes", c.addressof(kept[-1].sizes))
        if images:
            array = (Image * len(images))()
            for image, (pixels, kind) in zip(array, images):
                kept.append(_swizzled(pixels, kind))
                self.library.call("pg_image_from_pixels", c.byref(image), c.c_size_t(c.sizeof(Image)),
                                  c.c_int32(kind), c.c_int32(pixels.shape[1]), c.c_int32(pixels.shape[0]),
                                  c.c_void_p(kept[-1].ctypes.data), c.c_int64(0))
            batch.n_images, batch.images = len(images), c.addressof(array)
        if image_counts is not None:
            kept.append((c.c_int32 * len(image_counts))(*image_counts))
            batch.n_image_counts, batch.image_counts = len(image_counts), c.addressof(kept[-1])
        options = self.library.options(EncodeOptions, "encode_options", **options)
        self.library.call("pg_processor_encode_batch", self.pointer, c.byref(batch), c.byref(options),
                          c.byref(inputs.pointer))
        return inputs

    def decode(self, ids, flags=SKIP_SPECIAL):
        array, needed = (c.c_int64 * len(ids))(*ids), c.c_size_t()
        args = (self.pointer, array, c.c_size_t(len(ids)), c.c_uint32(flags))
        self.library.call("pg_processor_decode", *args, None, c.c_size_t(0), c.byref(needed))
        text = c.create_string_buffer(needed.value)
        self.library.call("pg_processor_decode", *args, text, needed, None)
        return text.raw[:-1].decode()


class Inputs(_Handle):
    def __init__(self, library):
        super().__init__(library, "inputs")

    def __getitem__(self, name):
        return self._tensor("pg_inputs_get_tensor", name.encode())

    def get(self, name):
        """None when the inputs have no such tensor."""
        try:
            return self[name]
        except Error:
            return None

    def row(self, row):
        info = RowInfo(struct_size=c.sizeof(RowInfo))
        self.library.call("pg_inputs_get_row_info", self.pointer, c.c_int64(row), c.byref(info))
        return {name: getattr(info, name) for name, _ in RowInfo._fields_ if name != "struct_size"}


class Outputs(_Handle):
    def __init__(self, library):
        super().__init__(library, "outputs")

    def __getitem__(self, name):
        return self._tensor("pg_outputs_get_tensor", name.encode())

    def get(self, name):
        try:
            return self[name]
        except Error:
            return None


class Features(_Handle):
    def __init__(self, library):
        super().__init__(library, "features")

    def array(self):
        return self._tensor("pg_features_get_tensor")


class Session(_Handle):
    def __init__(self, model, n_threads=0, max_new_tokens=128):
        super().__init__(model.library, "session")
        options = self.library.options(SessionOptions, "session_options", n_threads=n_threads,
                                       max_new_tokens=max_new_tokens)
        self.library.call("pg_session_create", model.pointer, c.byref(options), c.byref(self.pointer))

    def prefill(self, inputs, features=None):
        self.library.call("pg_session_prefill", self.pointer, inputs.pointer, features.pointer if features else None)

    def logits(self):
        return self._tensor("pg_session_get_logits")

    def generate(self, inputs, with_logits=False):
        """-> ids, and the logits that each was picked from"""
        self.prefill(inputs)
        return self.steps(with_logits)

    def steps(self, with_logits=False):
        """After a prefill, to the end of the text. -> as generate()"""
        ids, logits, token, status = [], [], c.c_int64(), OK
        while status == OK:
            status = self.library.call("pg_session_step", self.pointer, c.byref(token))
            if status != LENGTH:
                ids.append(token.value)
                if with_logits:
                    logits.append(self.logits())
        return ids, logits
