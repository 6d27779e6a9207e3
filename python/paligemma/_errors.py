# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""From a pg_status to a Python exception, with the words of pg_last_error()."""
from __future__ import annotations


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


def exception(status: int, name: str, text: str) -> Exception:
    """The exception for a negative pg_status and its name; its attribute `pg_status` keeps the number."""
    error = _CLASSES.get(name, RuntimeError)(text)
    error.pg_status = status  # type: ignore[attr-defined]
    return error
