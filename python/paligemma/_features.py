# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""Features of images: as an object, and as transformers' mm_encoder_outputs."""
from __future__ import annotations

import ctypes
import os
from typing import Any

import numpy as np

from . import _library as c
from ._handle import Handle, array, tensor_of
from .outputs import to_numpy


class Features:
    """Encoded images, for any number of prompts: generate(..., features=features); close() or `with` frees them.

    pooler_output: f32 [n_images, n_image_tokens, hidden_size], the projector's output.
    """

    def __init__(self, handle: Handle) -> None:
        self._handle = handle

    @property
    def pooler_output(self) -> np.ndarray:
        values = array(self._handle, c.lib.pg_features_get_tensor)
        values.flags.writeable = False  # the memory that generate() reads
        return values

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes them to a file (safetensors with checksums, docs/FORMATS.md), whole or not at all."""
        with self._handle.use() as pointer:
            c.check(c.lib.pg_features_save(pointer, os.fsencode(path)))

    def to_bytes(self) -> bytes:
        """The same bytes, for a store of your own."""
        size = ctypes.c_size_t()
        with self._handle.use() as pointer:
            c.check(c.lib.pg_features_to_bytes(pointer, None, 0, ctypes.byref(size)))
            out = ctypes.create_string_buffer(size.value)
            c.check(c.lib.pg_features_to_bytes(pointer, out, size, ctypes.byref(size)))
        return out.raw

    @classmethod
    def load(cls, model: Any, source: str | os.PathLike[str] | bytes) -> Features:
        """Features of `model` that save() wrote to the path `source`, or to_bytes() gave. Those of another model are
        refused: by a hash of encoder and projector, weights and arithmetic (ValueError)."""
        handle = Handle("features", "Features object")
        with model._handle.use() as pointer:
            if isinstance(source, (bytes, bytearray, memoryview)):
                data = bytes(source)
                c.check(c.lib.pg_features_from_bytes(pointer, data, len(data), ctypes.byref(handle.pointer)))
            else:
                c.check(c.lib.pg_features_load(pointer, os.fsencode(source), ctypes.byref(handle.pointer)))
        return cls(handle)

    def __len__(self) -> int:
        """The number of images."""
        return len(self.pooler_output)

    @property
    def closed(self) -> bool:
        return self._handle.closed

    def close(self) -> None:
        self._handle.close()

    def __enter__(self) -> Features:
        self._handle.check_open()
        return self

    def __exit__(self, *unused: Any) -> None:
        self.close()


class use:
    """`with use(features) as pointer`: of Features, of a Handle, or None."""

    def __init__(self, owner: Features | Handle | None) -> None:
        if owner is not None and not isinstance(owner, (Features, Handle)):
            raise TypeError(f"features is a {type(owner).__name__}, expected what encode_image() returned")
        handle = owner._handle if isinstance(owner, Features) else owner
        self._lease = handle.use() if handle is not None else None

    def __enter__(self) -> Any:
        return self._lease.__enter__() if self._lease else None

    def __exit__(self, *exception: Any) -> None:
        if self._lease:
            self._lease.__exit__(*exception)


def given(model: Handle, features: Features | None, outputs: Any, pixel_values: Any = None) -> Features | None:
    """The features that a call was given: `features`, or the "image" of mm_encoder_outputs, transformers' name.

    outputs: {"image": an object whose pooler_output is f32 [n_images, n_image_tokens, hidden_size], as
        get_image_features() returns it, or that array or tensor itself, or Features}; None and {}: none were given.
    """
    if outputs is None:
        return features
    if not isinstance(outputs, dict) or "pooler_output" in outputs:
        raise TypeError(f"mm_encoder_outputs is a {type(outputs).__name__}, expected "
                        "{\"image\": what get_image_features() returned}")
    image = outputs.get("image")
    if image is None:
        return features
    if features is not None or pixel_values is not None:
        raise ValueError("You cannot pass both: raw pixels and pre-computed embeddings for input image" if
                         features is None else "found both features and mm_encoder_outputs, expected one of them")
    return image if isinstance(image, Features) else _of_values(model, getattr(image, "pooler_output", image))


def _of_values(model: Handle, values: Any) -> Features:
    """pg_features of an array or tensor with the elements of whole images; transformers, too, takes any shape."""
    values = np.ascontiguousarray(to_numpy(values), np.float32)
    info, width = c.ModelInfo(), ctypes.c_int64()
    with model.use() as pointer:
        c.check(c.lib.pg_model_get_info(pointer, ctypes.byref(info)))
        c.check(c.lib.pg_model_get_config_int(pointer, b"text_config.hidden_size", ctypes.byref(width)))
        if values.size == 0 or values.size % (info.n_image_tokens * width.value):
            raise ValueError(f"the image's pooler_output has the shape {list(values.shape)}, expected "
                             f"[images, {info.n_image_tokens}, {width.value}]")
        tensor = tensor_of(values.reshape(-1, info.n_image_tokens, width.value), c.DTYPE_F32)
        handle = Handle("features", "Features object")
        c.check(c.lib.pg_features_from_tensor(pointer, ctypes.byref(tensor), ctypes.byref(handle.pointer)))
    return Features(handle)
