# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""What Python decides at each step of a generation: logits processors, stopping criteria, streamers.

The library calls on_logits for each row before its token is chosen and on_text after it. Where transformers looks at
the whole batch after a step (criteria, streamers), or keeps the scores of rows that have ended (output_scores), the
rows run on together as they do there: one that has ended is fed pad tokens until all have.
"""
from __future__ import annotations

import sys
import time
from contextlib import nullcontext
from typing import Any, Callable

import numpy as np

from . import _callables, _library as c
from ._generate import Plan
from .outputs import like_inputs, to_numpy, torch_if_loaded


class Steps:
    """The callbacks of one pg_generate(). They never raise: what was raised is in `error`."""

    def __init__(self, chosen: Plan, as_torch: bool, streamer: Any = None, lengths: list[int] | None = None) -> None:
        """lengths: where each row ends, where that is known."""
        self.error: BaseException | None = None
        self.chosen, self.streamer, self.lengths = chosen, streamer, lengths
        self.new: list[list[int]] = [[] for _ in range(chosen.n_rows)]
        self.ended_scores: list[list[np.ndarray]] = [[] for _ in range(chosen.n_rows)]  # of the rows that have ended
        self.ended = np.zeros(chosen.n_rows, bool)
        self.n_looked = 0  # steps after which the batch was looked at
        self.run_on = chosen.n_rows > 1 and bool(chosen.criteria or chosen.scores or chosen.logits or streamer)
        self._seen: list[np.ndarray] = []  # the scores of each step, for criteria
        self._pending: dict[int, np.ndarray] = {}
        self._start = time.monotonic()
        self._torch = torch_if_loaded() if as_torch or "transformers" in sys.modules else None
        self._as_torch = as_torch

    @property
    def _keeps_scores(self) -> bool:
        return bool(self.chosen.criteria) and self.chosen.scores

    def callbacks(self) -> tuple[Any, Any, Any]:
        """on_text, on_mask and on_logits as ctypes functions, NULL where nothing asks. To be kept during the call."""
        chosen = self.chosen

        def text(user: Any, row: int, piece: bytes, size: int, token: int) -> int:
            return self._guarded(self._take, row, token)

        def mask(user: Any, row: int, ids: Any, n_ids: int, bits: Any, vocab_size: int) -> int:
            return self._guarded(self._allow, row, np.ctypeslib.as_array(bits, ((vocab_size + 31) // 32,)), vocab_size)

        def logits(user: Any, row: int, ids: Any, n_ids: int, values: Any, vocab_size: int) -> int:
            return self._guarded(self._score, row, np.ctypeslib.as_array(values, (vocab_size,)))

        hears = self.run_on or self.streamer or chosen.criteria or chosen.processors or chosen.prefix_fn
        return (c.TextFn(text) if hears else c.TextFn(), c.MaskFn(mask) if chosen.prefix_fn else c.MaskFn(),
                c.LogitsFn(logits) if self.run_on or chosen.processors or self._keeps_scores else c.LogitsFn())

    def _guarded(self, call: Callable[..., int], *arguments: Any) -> int:
        if self.error is not None:
            return 1
        try:
            with self._torch.no_grad() if self._torch else nullcontext():
                return int(call(*arguments))
        except BaseException as error:  # must not leave a callback of C
            self.error = error
            return 1

    def _tensor(self, values: np.ndarray, reader: Any) -> Any:
        return like_inputs(values, self._as_torch or (self._torch is not None and _callables.of_transformers(reader)))

    # -- after a token

    def _take(self, row: int, token: int) -> bool:
        self.new[row].append(token)
        if self.chosen.n_rows > 1:
            return False  # the batch is looked at before the next step
        self._look(len(self.new[0]))
        return bool(self.ended[0])

    def _batch(self, n: int) -> np.ndarray:
        """i64 [B, T + n]: the ids after n steps."""
        pad = self.chosen.pad_token_id
        new = [row[:n] + [pad] * (n - len(row[:n])) for row in self.new]
        return np.concatenate([self.chosen.prompt, np.array(new, np.int64).reshape(len(new), n)], axis=1)

    def _look(self, n: int) -> None:
        """Once after step n: which rows have ended, and what the streamer gets."""
        if n <= self.n_looked:
            return
        self.n_looked = n
        chosen = self.chosen
        if self._pending:
            self._seen.append(np.stack([self._pending[row] for row in range(chosen.n_rows)]))
        batch = self._batch(n)
        ended = np.zeros(chosen.n_rows, bool)
        if self.run_on:
            ended |= np.isin(batch[:, -1], chosen.eos_ids or [])
            ended |= chosen.max_time is not None and time.monotonic() - self._start > chosen.max_time
        if self.lengths is not None:
            ended |= np.array(self.lengths) <= n
        for criterion in chosen.criteria:
            scores = tuple(self._tensor(each, criterion) for each in self._seen) if self._keeps_scores else None
            ended |= np.asarray(to_numpy(criterion(self._tensor(batch, criterion), scores)), bool)
        self.ended |= ended
        if self.streamer is not None:
            self.streamer.put(self._tensor(batch[:, -1].copy(), self.streamer))

    def finish(self) -> None:
        """After the call: the last step of a batch, and the streamer's end."""
        if self.error is not None:
            raise self.error
        if self.streamer is not None:
            self._look(max(map(len, self.new)))
            self.streamer.end()

    # -- before a token

    def _is_over(self, row: int) -> bool:
        """Before row's next token: the batch is looked at, once a step."""
        n = len(self.new[row])
        if self.run_on and n > 0:
            self._look(n)
        return self.run_on and bool(self.ended.all())

    def _score(self, row: int, logits: np.ndarray) -> bool:
        """logits f32 [vocab_size], the library's own memory."""
        if self._is_over(row):
            return True
        for processor in self.chosen.processors:
            _callables.process(processor, self._row(row), logits, self._tensor)
        if self._keeps_scores:
            self._pending[row] = logits.copy()
        if self.ended[row] and self.chosen.eos_ids is not None:
            if self.chosen.scores:
                self.ended_scores[row].append(logits.copy())
            logits[:] = -np.inf
            logits[self.chosen.pad_token_id] = 0
        return False

    def _row(self, row: int) -> np.ndarray:
        return np.concatenate([self.chosen.prompt[row], np.array(self.new[row], np.int64)])

    def _allow(self, row: int, bits: np.ndarray, vocab_size: int) -> bool:
        """bits u32, all 0: a bit for each id that prefix_allowed_tokens_fn allows."""
        if self._is_over(row):
            return True
        _callables.allow(self.chosen.prefix_fn, row, self._row(row), bits, vocab_size, self._tensor)
        return False
