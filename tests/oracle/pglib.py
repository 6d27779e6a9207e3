"""A thin ctypes wrapper of libpaligemma for the scripts of this folder: open, encode, generate, step."""
import ctypes as c
import os

import numpy as np

OK, EOS, LENGTH = 0, 1, 2
EXIF, SKIP_SPECIAL = 2, 4
DTYPES = {1: np.float32, 2: np.uint16, 3: np.float16, 4: np.int64, 5: np.uint8, 6: np.int32}


class Error(Exception):
    pass


class Tensor(c.Structure):
    _fields_ = [("struct_size", c.c_uint32), ("dtype", c.c_int32), ("n_dims", c.c_int32), ("reserved", c.c_uint32),
                ("shape", c.c_int64 * 4), ("data", c.c_void_p)]

    def array(self):
        """A copy."""
        shape, dtype = tuple(self.shape[:self.n_dims]), np.dtype(DTYPES[self.dtype])
        n = int(np.prod(shape)) * dtype.itemsize
        return np.frombuffer(c.string_at(self.data, n), dtype).reshape(shape).copy()


class Image(c.Structure):
    _fields_ = [("struct_size", c.c_uint32), ("format", c.c_int32), ("width", c.c_int32), ("height", c.c_int32),
                ("planes", c.c_void_p * 4), ("strides", c.c_int64 * 4), ("path", c.c_char_p), ("n_bytes", c.c_uint64)]


class ModelOptions(c.Structure):
    _fields_ = [("struct_size", c.c_uint32), ("reserved", c.c_uint32), ("cpu_mask", c.c_uint64)] + \
               [(name, c.c_void_p) for name in ["allocator", "log", "log_user", "progress", "progress_user", "cancel"]]


class EncodeOptions(c.Structure):
    _fields_ = [("struct_size", c.c_uint32), ("flags", c.c_uint32), ("max_image_pixels", c.c_int64)]


class SessionOptions(c.Structure):
    _fields_ = [("struct_size", c.c_uint32), ("n_threads", c.c_int32), ("max_new_tokens", c.c_int32),
                ("reserved", c.c_uint32)] + [(n, c.c_void_p) for n in ["progress", "progress_user", "cancel"]]


def find_library(build):
    path = os.path.join(build, "lib", "libpaligemma.so")
    return path if os.path.exists(path) else build


class Library:
    def __init__(self, path):
        self.so = c.CDLL(find_library(path))
        self.so.pg_last_error.restype = c.c_char_p
        self.so.pg_version_string.restype = c.c_char_p

    def call(self, name, *args):
        status = getattr(self.so, name)(*args)
        if status < 0:
            raise Error(f"{name}: {self.so.pg_last_error().decode()}")
        return status

    def options(self, kind, name, **values):
        options = kind()
        self.call(f"pg_{name}_options_init", c.byref(options), c.c_size_t(c.sizeof(options)))
        for key, value in values.items():
            setattr(options, key, value)
        return options


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


class Model(_Handle):
    def __init__(self, library, folder, cpu_mask=0):
        super().__init__(library, "model")
        options = library.options(ModelOptions, "model", cpu_mask=cpu_mask)
        library.call("pg_model_open", os.fsencode(folder), c.byref(options), c.byref(self.pointer))


class Processor(_Handle):
    def __init__(self, library, folder):
        super().__init__(library, "processor")
        library.call("pg_processor_open", os.fsencode(folder), None, c.byref(self.pointer))

    def encode(self, path, prompt, flags=0):
        """-> an open handle of the inputs for the picture at `path`."""
        inputs, image, name = Inputs(self.library), Image(), os.fsencode(path)  # the image borrows the name
        self.library.call("pg_image_from_path", c.byref(image), c.c_size_t(c.sizeof(image)), name)
        options = self.library.options(EncodeOptions, "encode", flags=flags)
        self.library.call("pg_processor_encode", self.pointer, c.byref(image), prompt.encode(), c.byref(options),
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
        tensor = Tensor(struct_size=c.sizeof(Tensor))
        self.library.call("pg_inputs_get", self.pointer, name.encode(), c.byref(tensor))
        return tensor.array()


class Session(_Handle):
    def __init__(self, model, n_threads=0, max_new_tokens=128):
        super().__init__(model.library, "session")
        options = self.library.options(SessionOptions, "session", n_threads=n_threads, max_new_tokens=max_new_tokens)
        self.library.call("pg_session_create", model.pointer, c.byref(options), c.byref(self.pointer))

    def prefill(self, inputs):
        self.library.call("pg_session_prefill", self.pointer, inputs.pointer, None)

    def logits(self):
        tensor = Tensor(struct_size=c.sizeof(Tensor))
        self.library.call("pg_session_logits", self.pointer, c.byref(tensor))
        return tensor.array()

    def generate(self, inputs, with_logits=False):
        """-> ids, and the logits that each was picked from"""
        self.prefill(inputs)
        ids, logits, token, status = [], [], c.c_int64(), OK
        while status == OK:
            status = self.library.call("pg_session_step", self.pointer, c.byref(token))
            if status != LENGTH:
                ids.append(token.value)
                if with_logits:
                    logits.append(self.logits())
        return ids, logits
