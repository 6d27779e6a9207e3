# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""From a pg_status to a Python exception, with the words of pg_last_error()."""
from __future__ import annotations

from typing import Any


class Cancelled(RuntimeError):
    """A cancel request stopped the call (PG_ERROR_CANCELLED)."""


# pg_status_name() -> exception class; RuntimeError for the others: calls in the wrong order, a defect of the library
_CLASSES = {
    "PG_ERROR_ARGUMENT": ValueError,
    "PG_ERROR_MEMORY": MemoryError,
    "PG_ERROR_IO": OSError,
    "PG_ERROR_NOT_FOUND": FileNotFoundError,
    "PG_ERROR_FORMAT": OSError,
    "PG_ERROR_UNSUPPORTED": NotImplementedError,
    "PG_ERROR_LIMIT": ValueError,
    "PG_ERROR_CANCELLED": Cancelled,
}


def exception(status: int, name: str, text: str, row: int | None) -> Exception:
    """The exception for a negative pg_status, with the attributes status (the number), status_name and row: the row of
    the batch that it is about, None for none."""
    error: Any = _CLASSES.get(name, RuntimeError)(text)
    error.status, error.status_name, error.row = status, name, row
    return error
