# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""Long calls that Ctrl-C stops at once.

Python runs signal handlers on the main thread between its own instructions, so not while that thread is inside a C
call. A long call made on the main thread therefore runs on a worker thread, and the main thread waits on a lock, which
a signal can interrupt; on KeyboardInterrupt (or whatever a handler raises) the call is cancelled through pg_cancel, its
end awaited, and the exception goes on. Calls made on other threads run where they are. ctypes releases the GIL in both.
"""
from __future__ import annotations

import ctypes
import os
import queue
import threading
from typing import Any, Callable

from . import _library as c
from ._handle import Handle


class CancelFlag(Handle):
    """A pg_cancel. request() from any thread stops the calls that were given the flag; they raise Cancelled."""

    def __init__(self) -> None:
        super().__init__("cancel", "cancel flag")
        c.check(c.lib.pg_cancel_create(ctypes.byref(self.pointer)))

    def request(self) -> None:
        with self.use() as pointer:
            c.lib.pg_cancel_request(pointer)

    def clear(self) -> None:
        with self.use() as pointer:
            c.lib.pg_cancel_clear(pointer)


class _Job:
    def __init__(self, work: Callable[[], Any]) -> None:
        self.work = work
        self.result: Any = None
        self.error: BaseException | None = None
        self.lock = threading.Lock()
        self.started = self.dropped = False
        self.done = threading.Event()

    def run(self) -> None:
        with self.lock:
            if self.dropped:
                return
            self.started = True
        try:
            self.result = self.work()
        except BaseException as error:  # handed to the waiting thread
            self.error = error
        finally:
            self.done.set()


class _Worker:
    """One thread for the main thread's calls, kept between them: OpenMP keeps a pool of threads for each caller."""

    def __init__(self) -> None:
        self.jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self.thread: threading.Thread | None = None
        self.busy = False

    def submit(self, job: _Job) -> None:
        if self.thread is None:
            self.thread = threading.Thread(target=self._loop, name="paligemma", daemon=True)
            self.thread.start()
        self.jobs.put(job)

    def _loop(self) -> None:
        while True:
            job = self.jobs.get()
            job.run()
            del job  # its result is not kept alive until the next call


_worker = _Worker()


def _new_worker() -> None:
    global _worker
    _worker = _Worker()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_worker)  # threads do not survive a fork


def _give_up(job: _Job, cancel: CancelFlag) -> None:
    """Ends a job at once: it is not started any more, or cancelled and awaited."""
    with job.lock:
        job.dropped = True
        if not job.started:
            return
    cancel.request()
    while not job.done.is_set():
        try:
            job.done.wait()
        except KeyboardInterrupt:
            pass  # already on its way out


def interruptible(work: Callable[[], Any], cancel: CancelFlag) -> Any:
    """Runs work(), a call that was given `cancel`; see above."""
    worker = _worker
    if threading.current_thread() is not threading.main_thread() or worker.busy:
        return work()  # busy: this is a signal handler of the main thread, whose own call is running
    job = _Job(work)
    worker.busy = True
    try:
        worker.submit(job)
        job.done.wait()
    except BaseException:
        _give_up(job, cancel)
        raise
    finally:
        worker.busy = False
    error = job.error
    if error is not None:
        job.error = None
        try:
            raise error
        finally:
            del error  # no cycle through this frame's traceback
    return job.result
