"""The library's log lines go to logging.getLogger("paligemma")."""
from __future__ import annotations

import logging

from . import _library as c

logger = logging.getLogger("paligemma")
_LEVELS = {1: logging.ERROR, 2: logging.WARNING, 3: logging.INFO, 4: logging.DEBUG}


@c.LogFn
def log_function(user: object, level: int, message: bytes) -> None:
    """A pg_log_fn; as a module's global it lives as long as any handle."""
    logger.log(_LEVELS.get(level, logging.INFO), "%s", message.decode("utf-8", "replace"))
