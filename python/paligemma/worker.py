# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""Worker: requests of a loop that must not wait, on pg_worker."""
from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any, Sequence

from . import _errors, _images
from . import _library as c
from ._handle import Handle
from .answers import AnswerObject, convention_of, of_struct

_KINDS = {c.WORKER_EVENT_TEXT: "text", c.WORKER_EVENT_OBJECT: "object", c.WORKER_EVENT_DONE: "done"}


@dataclass(frozen=True)
class WorkerEvent:
    """What happened to a request."""

    kind: str  # "text": a piece of it; "object"; "done": the request has ended
    ticket: int
    text: str = ""  # "text": the piece; "done": the whole answer
    object: AnswerObject | None = None
    error: Exception | None = None  # "done": why there is no answer: Cancelled, TimeoutError (its deadline), ...
    n_new_tokens: int = 0  # "done", as what follows
    wait_seconds: float = 0.0
    run_seconds: float = 0.0


class Worker:
    """Background threads that answer prompts about images while a loop goes on; close() or `with` ends them.

        with Worker(model, processor) as worker:
            ticket = worker.submit(frame, "caption en", stream=1)
            while running:
                for event in worker.events():
                    ...

    Rows that run together step as one pass, each with the answer that it has alone. Settings are those of
    generation_config.json in the model's folder. n_threads: of the computation, None: the CPUs; n_workers: background
    threads; max_waiting: requests that may wait; max_running: rows that step together; max_new_tokens: the most that a
    request may ask for; nice: added to the threads' nice value; cpus: numbers of those that they are bound to;
    leave_cpu_free: one CPU is left to the loop. poll(), wait() and events() are for one thread at a time.
    """

    def __init__(self, model: Any, processor: Any = None, *, n_threads: int | None = None, n_workers: int = 1,
                 max_waiting: int = 16, max_running: int = 4, max_new_tokens: int = 128, nice: int = 0,
                 cpus: Sequence[int] | None = None, leave_cpu_free: bool = False) -> None:
        self.processor = model._folders_processor() if processor is None else processor
        numbers = None if cpus is None else (c.i32 * max(1, len(cpus)))(*cpus)
        options = c.WorkerOptions(
            flags=c.WORKER_LEAVE_CPU_FREE if leave_cpu_free else 0, n_threads=n_threads or 0, n_workers=n_workers,
            max_waiting=max_waiting, max_running=max_running, max_new_tokens=max_new_tokens, nice=nice, cpus=numbers,
            n_cpus=0 if cpus is None else len(cpus))
        self._handle = Handle("worker")
        with model._with_handle()._handle.use() as weights, self.processor._handle.use() as files:
            c.check(c.lib.pg_worker_create(weights, files, ctypes.byref(options), ctypes.byref(self._handle.pointer)))

    def submit(self, image: Any, prompt: str, *, priority: int = 0, max_new_tokens: int | None = None, stream: int = 0,
               deadline: float | None = None, objects: bool = False, convention: int = 1024, cancel_running: bool = False,
               exif: bool = True, alpha: str = "drop") -> int:
        """Hands over an image, of any kind that the processor takes, and a prompt: the request's ticket.

        priority: higher begins first. stream: a number of which only the newest request matters, which takes the place of
        the one that waits (with cancel_running, also of those that run). deadline: seconds from now. objects: objects of
        the answer as events, too, with boxes in this convention (1024 or 1023). Busy is raised when the queue is full."""
        if not isinstance(prompt, str):
            raise TypeError(f"prompt is {prompt!r}, expected a str")
        images = _images.convert([image], exif, alpha, True, True, None)
        encode = _images.encode_options(exif, alpha)
        options = c.RequestOptions(
            flags=(c.REQUEST_OBJECTS if objects else 0) | (c.REQUEST_CANCEL_RUNNING if cancel_running else 0),
            priority=priority, max_new_tokens=max_new_tokens or 0, stream=stream, deadline=deadline or 0.0,
            encode=ctypes.pointer(encode), convention=convention_of(convention))
        ticket = c.i64()
        with self._handle.use() as worker:
            c.check(c.lib.pg_worker_submit(worker, images.images, prompt.encode("utf-8"), ctypes.byref(options),
                                           ctypes.byref(ticket)))
        return ticket.value

    def cancel(self, ticket: int) -> None:
        """Ends a request; one that has ended stays as it is."""
        with self._handle.use() as worker:
            c.check(c.lib.pg_worker_cancel(worker, ticket))

    def poll(self) -> WorkerEvent | None:
        """The next event; None: there is none. Never waits."""
        return self._next(c.lib.pg_worker_poll)

    def wait(self, seconds: float = float("inf")) -> WorkerEvent | None:
        """The next event, waited for up to so many seconds."""
        end = None if seconds == float("inf") else seconds
        while True:  # in parts, so that Ctrl-C is seen
            part = 0.1 if end is None else min(0.1, end)
            event = self._next(c.lib.pg_worker_wait, part)
            if end is not None:
                end -= part
            if event is not None or (end is not None and end <= 0):
                return event

    def events(self) -> list[WorkerEvent]:
        """All events that are there."""
        found = []
        while (event := self.poll()) is not None:
            found.append(event)
        return found

    def _next(self, call: Any, *arguments: Any) -> WorkerEvent | None:
        event = c.WorkerEvent()
        with self._handle.use() as worker:
            if c.check(call(worker, *arguments, ctypes.byref(event))) == c.EVENT_NONE:
                return None
            address = ctypes.c_void_p.from_buffer(event, c.WorkerEvent.text.offset).value  # the field itself ends at a byte 0
            text = ctypes.string_at(address, event.size).decode("utf-8")
            kind = _KINDS[event.kind]
            found = of_struct(event.object.contents) if kind == "object" else None
        error = None
        if event.status < 0:
            name = c.lib.pg_status_name(event.status).decode("ascii")
            error, text = _errors.exception(event.status, name, text, None), ""
        return WorkerEvent(kind, event.ticket, text, found, error, event.n_new_tokens, event.wait_seconds,
                           event.run_seconds)

    def info(self) -> dict[str, int]:
        """How it stands: n_waiting, n_running, n_not_polled, and how many requests ended in which way."""
        info = c.WorkerInfo()
        with self._handle.use() as worker:
            c.check(c.lib.pg_worker_get_info(worker, ctypes.byref(info)))
        return {name: getattr(info, name) for name, *_ in info._fields_ if name != "struct_size"}

    @property
    def closed(self) -> bool:
        return self._handle.closed

    def close(self) -> None:
        """Cancels what waits and runs, and ends the threads."""
        self._handle.close()

    def __enter__(self) -> Worker:
        self._handle.check_open()
        return self

    def __exit__(self, *unused: Any) -> None:
        self.close()
