# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""Opening a checkpoint's weights, for the model and for its config alone."""
from __future__ import annotations

import ctypes
import os
from typing import Iterable

from . import _library as c
from ._handle import Handle
from ._log import log_function
from ._run import CancelFlag, interruptible


def int8_layers_of(layers: str | Iterable[str] | None) -> bytes | None:
    """The argument int8_layers, "a,b" or ["a", "b"], as C takes it."""
    if layers is None:
        return None
    return (layers if isinstance(layers, str) else ",".join(layers)).encode()


def open_model(folder: str, cpu: str | None, weights: str, arithmetic: str | None, in_memory: bool,
               int8_layers: str | Iterable[str] | None = None, kv: str | None = None) -> Handle:
    """A pg_model; the arguments are those of PaliGemmaForConditionalGeneration. Ctrl-C stops it."""
    if weights not in c.WEIGHTS:
        raise ValueError(f"weights is {weights!r}, expected \"stored\", \"int8\" or \"int4\"")
    if arithmetic not in c.ARITHMETICS:
        raise ValueError(f"arithmetic is {arithmetic!r}, expected None, \"f32\" or \"bf16\"")
    if kv not in c.KV_KINDS:
        raise ValueError(f"kv is {kv!r}, expected None, \"f32\" or \"bf16\"")
    if cpu not in c.CPU_MASKS:
        raise ValueError(f"cpu is {cpu!r}, expected one of {list(c.CPU_MASKS)}")
    handle, cancel = Handle("model"), CancelFlag()
    options = c.ModelOptions(flags=c.MODEL_IN_MEMORY if in_memory else 0, cpu_mask=c.CPU_MASKS[cpu], log=log_function, cancel=cancel.pointer,
                             weights=c.WEIGHTS[weights], arithmetic=c.ARITHMETICS[arithmetic],
                             int8_layers=int8_layers_of(int8_layers), kv=c.KV_KINDS[kv])
    interruptible(lambda: c.check(c.lib.pg_model_open(os.fsencode(folder), ctypes.byref(options),
                                                      ctypes.byref(handle.pointer))), cancel)
    return handle
