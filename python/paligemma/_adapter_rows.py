# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""adapter_names of generate() and forward(): an adapter for each row of a batch, as PEFT has it.

All rows are one call of the library, which is told the handle of each (row_models).
"""
from __future__ import annotations

import ctypes
from contextlib import ExitStack
from typing import Any, Callable, Sequence

from ._handle import Handle
from .outputs import BatchFeature

BASE = "__base__"  # PEFT's name of a row without an adapter


def run(model: Any, method: Callable[..., Any], names: Sequence[str], arguments: dict[str, Any]) -> Any:
    """method: generate() or forward() of the model's class; arguments: that it was given, by name, and the model as
    "self"."""
    arguments = {name: value for name, value in arguments.items() if name != "self"}
    for kind in ("settings", "unused"):  # what their ** took
        arguments.update(arguments.pop(kind, {}))
    if isinstance(arguments.get("inputs"), (dict, BatchFeature)):
        return method(model, **arguments)  # raises
    given = (arguments.get(name) for name in ("inputs", "input_ids", "inputs_embeds"))
    rows = next((rows for rows in given if rows is not None), ())
    view = model._with_handle(model._adapters.base)
    view._row_handles = _handles(model, names, len(rows))
    return method(view, **arguments)


def _handles(model: Any, names: Sequence[str], n_rows: int) -> list[Handle]:
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise TypeError(f"adapter_names is {names!r}, expected a list of str, one for each row")
    if len(names) != n_rows:
        raise ValueError("Length of `adapter_names` should be the same as the number of inputs, but got "
                         f"{len(names)} and {n_rows} respectively.")
    adapters = model._adapters
    with adapters.lock:
        unknown = {*names} - {BASE, *adapters.entries}
        if unknown:
            raise ValueError(f"Trying to infer with non-existing adapter(s): {', '.join(sorted(unknown))}")
        handles = {name: adapters.of_row(name) for name in dict.fromkeys(names)}
        return [handles[name] for name in names]


class RowModels:
    """`with RowModels(handles, n_rows) as fields`: what pg_generate_options and pg_forward_options are to have for the
    handles of the rows, or nothing where there are none. Where n_rows are more (num_return_sequences), each row of the
    caller stands for as many that follow one another."""

    def __init__(self, handles: Sequence[Handle] | None, n_rows: int) -> None:
        handles = handles or []
        self._handles = [handle for handle in handles for _ in range(n_rows // len(handles))]
        self._stack = ExitStack()

    def __enter__(self) -> dict[str, Any]:
        if not self._handles:
            return {}
        pointers = {handle: self._stack.enter_context(handle.use()) for handle in dict.fromkeys(self._handles)}
        array = (ctypes.c_void_p * len(self._handles))(*[pointers[handle].value for handle in self._handles])
        return {"row_models": array, "n_row_models": len(self._handles)}

    def __exit__(self, *exception: Any) -> None:
        self._stack.close()
