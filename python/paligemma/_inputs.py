# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""From the arrays of a batch to pg_inputs."""
from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from . import _library as c
from ._handle import Handle, tensor_of
from .outputs import is_torch_tensor, to_numpy

INTEGERS = ("input_ids", "attention_mask", "token_type_ids", "labels", "position_ids")
FLOATS = ("inputs_embeds", "pixel_values")
NAMES = INTEGERS + FLOATS


def any_torch(*values: Any) -> bool:
    return any(is_torch_tensor(value) for value in values)


def _checked(name: str, value: Any) -> np.ndarray:
    try:
        values = to_numpy(value)
    except ValueError:
        raise ValueError(f"{name}: rows of different lengths, expected one length (padding=True makes it so)") from None
    if name in FLOATS:
        if values.dtype.kind not in "fiu":
            raise ValueError(f"{name} holds {values.dtype}, expected floats")
        values = np.ascontiguousarray(values, np.float32)
    else:
        if values.dtype.kind not in "iub":
            raise ValueError(f"{name} holds {values.dtype}, expected integers (rows of one length)")
        values = np.ascontiguousarray(values, np.int64)
    if not 1 <= values.ndim <= 4:
        raise ValueError(f"{name} has {values.ndim} dimensions, expected [B, T]" if name in INTEGERS
                         else f"{name} has {values.ndim} dimensions, expected 3 or 4")
    return values


def checked(arrays: dict[str, Any]) -> dict[str, np.ndarray]:
    """Arrays, tensors or lists by their names as arrays of the library's types; None is left out."""
    return {name: _checked(name, value) for name, value in arrays.items() if value is not None}


def create(arrays: dict[str, np.ndarray]) -> Handle:
    """pg_inputs of what checked() returned."""
    tensors = {name: ctypes.pointer(tensor_of(values, c.DTYPE_F32 if name in FLOATS else c.DTYPE_I64))
               for name, values in arrays.items()}
    inputs = Handle("inputs")
    c.check(c.lib.pg_inputs_create(ctypes.byref(c.InputArrays(**tensors)), ctypes.byref(inputs.pointer)))
    return inputs
