# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""Generation piece by piece, on pg_session and pg_detokenizer."""
from __future__ import annotations

import ctypes
import queue
import threading
from typing import Any, Callable, Iterator

from . import _library as c
from ._handle import Handle
from ._run import CancelFlag, interruptible


def tokens(model: Handle, inputs: Handle, features: Any, cancel: CancelFlag, max_new_tokens: int,
           n_threads: int) -> Iterator[int]:
    """The new ids of one row, the final eos included. features: a context manager of a pg_features or None."""
    session = Handle("session")

    def prefill() -> None:
        with model.use() as weights, inputs.use() as given, features as encoded, cancel.use() as flag:
            options = c.SessionOptions(n_threads=n_threads, max_new_tokens=max_new_tokens, cancel=flag)
            c.check(c.lib.pg_session_create(weights, ctypes.byref(options), ctypes.byref(session.pointer)))
            c.check(c.lib.pg_session_prefill(session.pointer, given, encoded))

    def step() -> tuple[int, int]:
        token = ctypes.c_int64()
        with model.use(), session.use() as pointer:  # the session keeps the weights, but a closed model is to raise
            event = c.check(c.lib.pg_session_step(pointer, ctypes.byref(token)))
        return event, token.value

    try:
        interruptible(prefill, cancel)
        event = c.OK
        while event == c.OK:
            event, token = interruptible(step, cancel)
            if event in (c.OK, c.EVENT_EOS):
                yield token
    finally:
        session.close()


class _Queue:
    """A streamer that another thread reads from."""

    def __init__(self) -> None:
        self.items: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.left = False  # nobody reads any more

    def put(self, ids: Any) -> None:
        if self.left:
            raise GeneratorExit
        self.items.put(int(ids[0]))

    def end(self) -> None:
        pass


def of_thread(generate: Callable[[_Queue], Any]) -> Iterator[int]:
    """The ids that generate(streamer) puts into its streamer, which runs on a thread of its own."""
    ids = _Queue()

    def run() -> None:
        try:
            generate(ids)
            ids.items.put(None)
        except BaseException as error:  # handed to the reader
            ids.items.put(error)

    thread = threading.Thread(target=run, name="paligemma stream", daemon=True)
    thread.start()
    try:
        while True:
            item = ids.items.get()
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        ids.left = True
        thread.join()


def pieces(ids: Iterator[int], processor: Handle, skip_special_tokens: bool,
           on_token: Callable[[int], Any] | None = None) -> Iterator[str]:
    """The text of ids, each piece as soon as it is whole. The sum of all is the text of all ids. on_token: is told each id."""
    detokenizer = Handle("detokenizer")

    def text_of(call: Any, *arguments: Any) -> str:
        text, size = ctypes.c_void_p(), ctypes.c_size_t()
        with detokenizer.use() as pointer:
            c.check(call(pointer, *arguments, ctypes.byref(text), ctypes.byref(size)))
            return ctypes.string_at(text, size.value).decode("utf-8") if size.value else ""

    try:
        with processor.use() as pointer:
            flags = c.DECODE_SKIP_SPECIAL if skip_special_tokens else 0
            c.check(c.lib.pg_detokenizer_create(pointer, flags, ctypes.byref(detokenizer.pointer)))
        for token in ids:
            if on_token is not None:
                on_token(token)
            piece = text_of(c.lib.pg_detokenizer_push, token)
            if piece:
                yield piece
        piece = text_of(c.lib.pg_detokenizer_flush)
        if piece:
            yield piece
    finally:
        detokenizer.close()
