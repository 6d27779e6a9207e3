# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""Beam search in transformers' shape (GenerationMixin._beam_search): its settings, callbacks, and what it returns."""
from __future__ import annotations

import ctypes
import math
import sys
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Callable

import numpy as np

from . import _callables, _library as c
from ._handle import Handle, array
from .outputs import GenerateBeamDecoderOnlyOutput, like_inputs, to_numpy, torch_if_loaded

_EARLY_STOPPING = {False: c.EARLY_STOPPING_OFF, True: c.EARLY_STOPPING_ON, "never": c.EARLY_STOPPING_NEVER}
_MOST_BEAMS = 64  # n_beams of pg_beam_options
SETTINGS = {"num_beams", "length_penalty", "early_stopping"}


@dataclass(frozen=True)
class Beams:
    """The settings of one call; n = 1: no search."""

    n: int = 1
    length_penalty: float = 1.0
    early_stopping: int = c.EARLY_STOPPING_OFF

    @staticmethod
    def of(get: Callable[[str], Any]) -> Beams:
        n, penalty, stopping = get("num_beams"), get("length_penalty"), get("early_stopping")
        n, penalty, stopping = (default if value is None else value
                                for value, default in ((n, 1), (penalty, 1.0), (stopping, False)))
        if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1:
            raise ValueError(f"num_beams is {n!r}, expected an integer of at least 1")
        if n > _MOST_BEAMS:
            raise ValueError(f"num_beams is {n}, expected 1 to {_MOST_BEAMS}")
        if isinstance(penalty, bool) or not isinstance(penalty, (int, float, np.floating)) or not math.isfinite(penalty):
            raise ValueError(f"length_penalty is {penalty!r}, expected a finite number")
        if not isinstance(stopping, (bool, str)) or stopping not in _EARLY_STOPPING:
            raise ValueError(f"`early_stopping` must be a boolean or 'never', but is {stopping}.")
        return Beams(int(n), float(penalty), _EARLY_STOPPING[stopping])

    def struct(self, on_texts: Any = None) -> c.BeamOptions:
        return c.BeamOptions(n_beams=self.n, early_stopping=self.early_stopping, length_penalty=self.length_penalty,
                             on_texts=on_texts or c.TextsFn())

    def check(self, n_return: int, streamer: Any) -> None:
        """Raises for what transformers, or the library, has no beams for."""
        if n_return > self.n:
            raise ValueError(f"`num_return_sequences` ({n_return}) has to be smaller or equal to `num_beams` ({self.n}).")
        if streamer is not None:
            raise ValueError("`streamer` cannot be used with beam search (yet!). Make sure that `num_beams` is set to 1.")


class Callbacks:
    """logits_processor and prefix_allowed_tokens_fn, called for each beam, and stopping_criteria, called for the texts that
    may go on. They never raise: what was raised is `error`."""

    def __init__(self, chosen: Any, as_torch: bool) -> None:
        self.error: BaseException | None = None
        self._processors, self._prefix_fn, self._prompt = chosen.processors, chosen.prefix_fn, chosen.prompt
        self._criteria, self._scores = chosen.criteria, () if chosen.return_dict and chosen.scores else None
        self._n_tokens: dict[int, int] = {}  # of each prompt that was searched, without its padding
        self._torch = torch_if_loaded() if as_torch or "transformers" in sys.modules else None
        self._as_torch = as_torch

    def functions(self) -> tuple[Any, Any, Any]:
        """on_mask, on_logits and on_texts, NULL where nothing asks. To be kept during the call."""
        def mask(user: Any, row: int, ids: Any, n_ids: int, bits: Any, vocab_size: int) -> int:
            return self._guarded(_callables.allow, self._prefix_fn, row, self._ids(row, ids, n_ids),
                                 np.ctypeslib.as_array(bits, ((vocab_size + 31) // 32,)), vocab_size, self._tensor)

        def logits(user: Any, row: int, ids: Any, n_ids: int, values: Any, vocab_size: int) -> int:
            return self._guarded(self._process, self._ids(row, ids, n_ids), np.ctypeslib.as_array(values, (vocab_size,)))

        def texts(user: Any, row: int, ids: Any, n_ids: int, n_texts: int, ends: Any) -> int:
            n = self._n_tokens.setdefault(row, n_ids - 1)  # the first texts have one new token
            new = np.ctypeslib.as_array(ids, (n_texts, n_ids))[:, n:]
            batch = np.concatenate([np.repeat(self._prompt[row][None], n_texts, axis=0), new], axis=1)
            return self._guarded(self._judge, batch, np.ctypeslib.as_array((ctypes.c_uint8 * n_texts).from_address(ends)))

        return (c.MaskFn(mask) if self._prefix_fn else c.MaskFn(),
                c.LogitsFn(logits) if self._processors else c.LogitsFn(),
                c.TextsFn(texts) if self._criteria else c.TextsFn())

    def _ids(self, row: int, ids: Any, n_ids: int) -> np.ndarray:
        """i64 [T + n]: the prompt as it was given, its padding too, and the new ids of a beam."""
        n = self._n_tokens.setdefault(row, n_ids)  # a search begins with the prompt alone
        new = np.ctypeslib.as_array(ids, (n_ids,))[n:] if n_ids > n else np.zeros(0, np.int64)
        return np.concatenate([self._prompt[row], new])

    def _guarded(self, call: Callable[..., None], *arguments: Any) -> int:
        if self.error is not None:
            return 1
        try:
            with self._torch.no_grad() if self._torch else nullcontext():
                call(*arguments)
            return 0
        except BaseException as error:  # must not leave a callback of C
            self.error = error
            return 1

    def _tensor(self, values: np.ndarray, reader: Any) -> Any:
        return like_inputs(values, self._as_torch or (self._torch is not None and _callables.of_transformers(reader)))

    def _judge(self, batch: np.ndarray, ends: np.ndarray) -> None:
        """batch i64 [texts, T + n]; ends u8 [texts], all 0."""
        for criterion in self._criteria:
            ends |= np.asarray(to_numpy(criterion(self._tensor(batch, criterion), self._scores)), bool)

    def _process(self, ids: np.ndarray, scores: np.ndarray) -> None:
        for processor in self._processors:
            _callables.process(processor, ids, scores, self._tensor)


def _steps(result: Handle, name: str, n_prompts: int, n_return: int) -> tuple[np.ndarray, ...]:
    """For each step f32 [B * beams, vocab_size]; NaN where the search of a row had ended."""
    rows = [array(result, c.lib.pg_result_get_tensor, p * n_return, name.encode()) for p in range(n_prompts)]
    n_steps, shape = max(len(row) for row in rows), rows[0].shape[1:]
    none = np.full(shape, np.nan, np.float32)
    return tuple(np.concatenate([row[t] if t < len(row) else none for row in rows]) for t in range(n_steps))


def answer(result: Handle, chosen: Any, as_torch: bool) -> Any:
    """What generate() returns of a search."""
    n_return, n_beams = chosen.sampling.n_sequences, chosen.beams.n
    n_rows = chosen.n_rows * n_return
    ids = [array(result, c.lib.pg_result_get_ids, row) for row in range(n_rows)]
    prompt, longest = np.repeat(chosen.prompt, n_return, axis=0), max(map(len, ids))
    # transformers takes a pad id of 0 for none
    fill = -1 if not chosen.eos_ids else chosen.pad_token_id or chosen.eos_ids[0]
    sequences = np.full((n_rows, prompt.shape[1] + longest), fill, np.int64)
    sequences[:, :prompt.shape[1]] = prompt
    indices, scores = np.full((n_rows, longest), -1, np.int32), np.zeros(n_rows, np.float32)
    for row, new in enumerate(ids):
        sequences[row, prompt.shape[1]:prompt.shape[1] + len(new)] = new
        beams = array(result, c.lib.pg_result_get_tensor, row, b"beam_indices")
        indices[row, :len(new)] = beams + row // n_return * n_beams
        info = c.ResultInfo()
        with result.use() as pointer:
            c.check(c.lib.pg_result_get_info(pointer, row, info))
        scores[row] = info.score
    if not chosen.return_dict:
        return like_inputs(sequences, as_torch)

    def of_steps(name: str) -> tuple[Any, ...]:
        return tuple(like_inputs(step, as_torch) for step in _steps(result, name, chosen.n_rows, n_return))

    return GenerateBeamDecoderOnlyOutput(
        sequences=like_inputs(sequences, as_torch), sequences_scores=like_inputs(scores, as_torch) if chosen.scores else None,
        scores=of_steps("beam_scores") if chosen.scores else None,
        logits=of_steps("beam_logits") if chosen.logits else None, beam_indices=like_inputs(indices, as_torch),
        attentions=None, hidden_states=None, past_key_values=None)


def transition_scores(ids: np.ndarray, scores: np.ndarray, beam_indices: np.ndarray) -> np.ndarray:
    """f32 [B, new] of scores [steps, B * beams, vocab_size], the rows cut to their longest; 0 behind a row's end."""
    inside = beam_indices >= 0
    longest = int(inside.sum(axis=1).max())
    inside, beams = inside[:, :longest], np.where(inside, beam_indices, 0)[:, :longest]
    new = ids[:, ids.shape[1] - longest:]
    return np.where(inside, scores[np.arange(longest)[None], beams, new], np.float32(0)).astype(np.float32)
