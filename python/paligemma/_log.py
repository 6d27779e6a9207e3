# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""The library's log lines go to logging.getLogger("paligemma")."""
from __future__ import annotations

import logging

from . import _library as c
from ._errors import in_python

logger = logging.getLogger("paligemma")
_LEVELS = {c.LOG_ERROR: logging.ERROR, c.LOG_WARNING: logging.WARNING, c.LOG_INFO: logging.INFO,
           c.LOG_DEBUG: logging.DEBUG}


@c.LogFn
def log_function(user: object, level: int, message: bytes) -> None:
    """A pg_log_fn; as a module's global it lives as long as any handle."""
    logger.log(_LEVELS.get(level, logging.INFO), "%s", in_python(message.decode("utf-8", "replace")))
