# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""Handles of the C library as Python objects that cannot be used after they were closed, and views of their arrays."""
from __future__ import annotations

import ctypes
import math
import sys
import threading
from contextlib import contextmanager
from typing import Any, Iterator

import numpy as np

from . import _library as c


class Handle:
    """One pg_x* and its pg_x_close().

    A call borrows the pointer with `with handle.use() as pointer:`, an array on the library's memory with a Loan;
    close() takes effect when the last of them is over, and whoever comes later gets a ValueError.
    """

    def __init__(self, kind: str, name: str | None = None) -> None:
        """kind: the x of pg_x; name: what an error message calls it."""
        self.pointer = ctypes.c_void_p()
        self.name = name or kind
        self._close = getattr(c.lib, f"pg_{kind}_close")
        self._lock = threading.RLock()  # reentrant: the garbage collector may end a loan anywhere
        self._users = 0
        self._closed = False

    @property
    def closed(self) -> bool:
        return self._closed

    def check_open(self) -> None:
        if self._closed:
            raise ValueError(f"the {self.name} is closed")

    def borrow(self) -> None:
        with self._lock:
            self.check_open()
            self._users += 1

    def give_back(self) -> None:
        with self._lock:
            self._users -= 1
            last = self._closed and self._users == 0
        if last:
            self._close(ctypes.byref(self.pointer))

    @contextmanager
    def use(self) -> Iterator[ctypes.c_void_p]:
        self.borrow()
        try:
            yield self.pointer
        finally:
            self.give_back()

    def close(self) -> None:
        """May be called twice, and from any thread."""
        with self._lock:
            idle = not self._closed and self._users == 0
            self._closed = True
        if idle:
            self._close(ctypes.byref(self.pointer))

    def __reduce__(self) -> Any:
        raise TypeError(f"the {self.name} cannot be copied or pickled: it lives in the C library")

    def __del__(self, _ending: Any = sys.is_finalizing) -> None:
        # At the interpreter's end another thread may still be inside the library; the process frees everything anyway.
        if not _ending() and hasattr(self, "_closed"):
            self.close()


class Loan:
    """Keeps a handle's memory for as long as it lives itself."""

    def __init__(self, handle: Handle) -> None:
        handle.borrow()
        self.handle = handle

    def __del__(self, _ending: Any = sys.is_finalizing) -> None:
        if not _ending() and hasattr(self, "handle"):
            self.handle.give_back()


_NUMPY_TYPES: dict[int, np.dtype[Any]] = {c.DTYPE_F32: np.dtype(np.float32), c.DTYPE_I64: np.dtype(np.int64)}


def array(owner: Handle, getter: Any, *arguments: Any) -> np.ndarray:
    """The pg_tensor that a getter fills, as an array on the library's own memory, which stays as long as the array.

    getter: pg_x_get; arguments: those between the handle and the tensor.
    """
    tensor, loan = c.Tensor(), Loan(owner)
    c.check(getter(owner.pointer, *arguments, ctypes.byref(tensor)))
    shape = tuple(tensor.shape[:tensor.n_dims])
    dtype = _NUMPY_TYPES[tensor.dtype]
    if math.prod(shape) == 0:
        return np.zeros(shape, dtype)
    return _view(loan, tensor.data, shape, dtype)


def view(owner: Handle, address: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    """An array on a handle's memory, which stays as long as the array."""
    return _view(Loan(owner), address, shape, dtype)


def _view(loan: Loan, address: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    memory = (ctypes.c_char * (math.prod(shape) * dtype.itemsize)).from_address(address)
    memory._loan = loan  # type: ignore[attr-defined]  # numpy keeps `memory`, and that the loan
    return np.frombuffer(memory, dtype).reshape(shape)


def tensor_of(values: np.ndarray, dtype: int) -> c.Tensor:
    """A pg_tensor on a C-contiguous array, which has to outlive it."""
    shape = tuple(values.shape) + (1,) * (4 - values.ndim)
    return c.Tensor(dtype=dtype, n_dims=values.ndim, shape=(ctypes.c_int64 * 4)(*shape), data=values.ctypes.data)
