"""From a pg_status to a Python exception, with the words of pg_last_error()."""
from __future__ import annotations


class Cancelled(RuntimeError):
    """A cancel request stopped the call (PG_ERROR_CANCELLED)."""


# pg_status -> exception class; the values are those of paligemma.h
_CLASSES = {
    -10: ValueError,  # PG_ERROR_ARGUMENT
    -20: MemoryError,  # PG_ERROR_MEMORY
    -30: OSError,  # PG_ERROR_IO
    -31: FileNotFoundError,  # PG_ERROR_NOT_FOUND
    -40: OSError,  # PG_ERROR_FORMAT
    -50: NotImplementedError,  # PG_ERROR_UNSUPPORTED
    -60: ValueError,  # PG_ERROR_LIMIT
    -70: Cancelled,  # PG_ERROR_CANCELLED
    -80: RuntimeError,  # PG_ERROR_STATE
    -90: RuntimeError,  # PG_ERROR_INTERNAL
}

NOT_FOUND = -31


def exception(status: int, text: str) -> Exception:
    """The exception for a negative pg_status; its attribute `pg_status` keeps the number."""
    error = _CLASSES.get(status, RuntimeError)(text)
    error.pg_status = status  # type: ignore[attr-defined]
    return error
