# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""convert(): a checkpoint with int8 or int4 weights, written once and opened like any other."""
from __future__ import annotations

import ctypes
import os
from typing import Any, Callable, Iterable, Mapping

from . import _hub, _inputs, _library as c
from ._checkpoint import int8_layers_of, open_model
from ._handle import Handle
from ._log import log_function
from ._run import CancelFlag, interruptible


def convert(model: str | os.PathLike[str], out: str | os.PathLike[str], weights: str = "int8", *, n_threads: int = 0,
            int8_layers: str | Iterable[str] | None = None,
            calibrate: Iterable[Mapping[str, Any]] | None = None, max_file_bytes: int = 0,
            progress: Callable[[int, int], None] | None = None,
            adapters: str | os.PathLike[str] | Iterable[str | os.PathLike[str]] = (),
            adapter_weights: Iterable[float] | None = None) -> None:
    """Writes `model`, a checkpoint folder or an id in the local Hugging Face cache, to the new folder `out` with
    "int8" or "int4" weights. It computes to the bit what from_pretrained(model, weights=weights) computes, opens at
    once, and processes share its memory.

    int8_layers: of "int4", the matrices that are int8: names such as "embedding,attention" (the mix to begin with),
    "decoder.0" or "encoder.mlp", in one string or in a list.
    calibrate: of "int4", inputs of the model, such as processor(image, "caption en", suffix="a red circle",
    return_tensors="np"): some dozens of images with the prompts that it will be asked, best with answers. The model runs
    over them first, and the matrices that become int4 are rounded so that what they compute of these stays near.
    adapters: folders or ids of LoRA adapters of `model`, which are merged into the weights, each times its one of
    adapter_weights (1 unless given). Then weights may be "stored", too: a checkpoint that transformers reads.
    n_threads: 0 is the CPUs that this process may use. max_file_bytes: weights are cut into files of at most so many
    bytes, 0 is 5e9. progress(done, total), bytes of weights: what it raises ends the conversion and comes back to the
    caller. A conversion that fails leaves no `out`.
    Raises FileNotFoundError, OSError (damaged files, a full disk), NotImplementedError (already quantized),
    ValueError (`out` is not empty, a weight is not finite, int8_layers names nothing).
    """
    names = [adapters] if isinstance(adapters, (str, os.PathLike)) else list(adapters)
    factors = None if adapter_weights is None else [float(weight) for weight in adapter_weights]
    if weights not in ("int8", "int4") and not (weights == "stored" and names):
        raise ValueError(f"weights is {weights!r}, expected \"int8\" or \"int4\", or \"stored\" beside adapters")
    if factors is not None and len(factors) != len(names):
        raise ValueError(f"found {len(factors)} adapter_weights for {len(names)} adapters")
    folder = _hub.find(model)
    raised: list[BaseException] = []

    @c.ProgressFn
    def report(user: object, phase: int, done: int, total: int) -> int:
        if progress is not None and phase == c.PHASE_CONVERT and not raised:
            try:
                progress(done, total)
            except BaseException as error:  # must not leave a callback of C
                raised.append(error)
        return len(raised)

    cancel, calibration = CancelFlag(), None
    if calibrate is not None:
        if weights != "int4":
            raise ValueError(f"calibrate is given beside weights {weights!r}, expected \"int4\"")
        calibration = _calibration(folder, calibrate, n_threads)
    options = c.ConvertOptions(weights=c.WEIGHTS[weights], n_threads=n_threads, max_file_bytes=max_file_bytes,
                               log=log_function, progress=report, cancel=cancel.pointer, int8_layers=int8_layers_of(int8_layers),
                               calibration=calibration and calibration.pointer, n_adapters=len(names))
    if names:
        options.adapters = (ctypes.c_char_p * len(names))(*(os.fsencode(_hub.find(name)) for name in names))
    if factors:
        options.adapter_weights = (c.f32 * len(factors))(*factors)
    try:
        interruptible(lambda: c.check(c.lib.pg_model_convert(os.fsencode(folder), os.fsencode(out), ctypes.byref(options))),
                      cancel)
    except BaseException:
        if raised:
            raise raised.pop() from None
        raise
    finally:
        if calibration is not None:
            calibration.close()


def _calibration(folder: str, calibrate: Iterable[Mapping[str, Any]], n_threads: int) -> Handle:
    """A pg_calibration with these inputs."""
    model, made = open_model(folder, None, "stored", None, False), Handle("calibration")
    try:
        with model.use() as opened:
            c.check(c.lib.pg_calibration_create(opened, ctypes.byref(made.pointer)))
        for arrays in calibrate:
            cancel = CancelFlag()
            options = c.RunOptions(n_threads=n_threads, cancel=cancel.pointer)
            inputs = _inputs.create(_inputs.checked(dict(arrays)))
            with inputs.use() as given:
                interruptible(lambda: c.check(c.lib.pg_calibration_add(made.pointer, given, ctypes.byref(options))), cancel)
            inputs.close()
    except BaseException:
        made.close()
        raise
    finally:
        model.close()
    return made
