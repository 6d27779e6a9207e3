"""Generation piece by piece, on pg_session and pg_detokenizer."""
from __future__ import annotations

import ctypes
from typing import Any, Iterator

from . import _library as c
from ._handle import Handle
from ._run import CancelFlag, interruptible


def pieces(model: Handle, processor: Handle, inputs: Handle, features: Any, cancel: CancelFlag, max_new_tokens: int,
           n_threads: int, skip_special_tokens: bool) -> Iterator[str]:
    """The pieces of text of one row, as they become whole. The sum of all is the text of all ids."""
    session, detokenizer = Handle("session"), Handle("detokenizer")

    def prefill() -> None:
        with model.use() as weights, inputs.use() as given, features as encoded, cancel.use() as flag:
            options = c.SessionOptions(n_threads=n_threads, max_new_tokens=max_new_tokens, cancel=flag)
            c.check(c.lib.pg_session_create(weights, ctypes.byref(options), ctypes.byref(session.pointer)))
            c.check(c.lib.pg_session_prefill(session.pointer, given, encoded))

    def step() -> tuple[int, int]:
        token = ctypes.c_int64()
        with model.use(), session.use() as pointer:
            event = c.check(c.lib.pg_session_step(pointer, ctypes.byref(token)))
        return event, token.value

    def text_of(call: Any, *arguments: Any) -> str:
        text, size = ctypes.c_void_p(), ctypes.c_size_t()
        with detokenizer.use() as pointer:
            c.check(call(pointer, *arguments, ctypes.byref(text), ctypes.byref(size)))
            return ctypes.string_at(text.value, size.value).decode("utf-8") if size.value else ""

    try:
        interruptible(prefill, cancel)
        with processor.use() as pointer:
            flags = c.SKIP_SPECIAL if skip_special_tokens else 0
            c.check(c.lib.pg_detokenizer_create(pointer, flags, ctypes.byref(detokenizer.pointer)))
        while True:
            event, token = interruptible(step, cancel)
            if event == c.EVENT_LENGTH:
                break
            piece = text_of(c.lib.pg_detokenizer_push, token)
            if piece:
                yield piece
            if event == c.EVENT_EOS:
                break
        piece = text_of(c.lib.pg_detokenizer_flush)
        if piece:
            yield piece
    finally:
        session.close()
        detokenizer.close()
