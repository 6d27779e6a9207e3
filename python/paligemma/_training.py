# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""The loop of Trainer.train(): the order of the data, evaluation, saving, the history."""
from __future__ import annotations

from itertools import islice
from typing import Any, Callable, Iterable, Iterator, Mapping

import numpy as np

from ._errors import Cancelled

_KEYS = ("image", "prefix", "suffix")


def collator(processor: Any) -> Callable[[list[Any]], Mapping[str, Any]]:
    """From rows of image, prefix and suffix to a batch with labels."""

    def collate(rows: list[Any]) -> Mapping[str, Any]:
        for row in rows:
            if not isinstance(row, Mapping):
                raise TypeError(f"the data set has a {type(row).__name__}, expected {{\"image\": ..., \"prefix\": ..., "
                                "\"suffix\": ...}, or a data_collator that reads it")
            missing = [key for key in _KEYS if key not in row]
            if missing:
                raise ValueError(f"a row of the data set has {', '.join(map(str, row))}, expected {', '.join(_KEYS)}; a "
                                 "data_collator reads other rows")
        images = [list(row["image"]) if isinstance(row["image"], (list, tuple)) else [row["image"]] for row in rows]
        return processor(images=images, text=[row["prefix"] for row in rows], suffix=[row["suffix"] for row in rows],
                         padding=True, padding_side="right", return_tensors="np")

    return collate


class Batches:
    """Lists of rows of a data set, pass after pass."""

    def __init__(self, dataset: Iterable[Any], size: int, seed: int | None) -> None:
        """seed: of the order; None: as it is."""
        self.dataset: Any = dataset
        self.size, self.seed = size, seed
        self.is_indexed = hasattr(type(dataset), "__len__") and hasattr(type(dataset), "__getitem__")
        try:
            if isinstance(dataset, (Mapping, str, bytes)):
                raise TypeError
            self.is_iterator = not self.is_indexed and iter(dataset) is dataset
        except TypeError:
            raise TypeError(f"the data set is a {type(dataset).__name__}, expected a list or another iterable of "
                            "rows") from None
        if self.is_indexed and len(self.dataset) == 0:
            raise ValueError("the data set is empty, expected one row or more")

    def n_in_a_pass(self) -> int:
        """Of a data set that is indexed."""
        return -(-len(self.dataset) // self.size)

    def __call__(self, n_passes: int, n_done: int = 0) -> Iterator[list[Any]]:
        """n_passes: 0 is no end; n_done: batches that are left out, unless they come from an iterator, which stands
        where it stands."""
        if self.is_indexed:
            at, n_done = divmod(n_done, self.n_in_a_pass())
        else:
            at, n_done = 0, 0 if self.is_iterator else n_done
        while n_passes == 0 or at < n_passes:
            n_found = 0
            for batch in self._one_pass(at, n_done if self.is_indexed else 0):
                n_found += 1
                if self.is_indexed or n_done == 0:
                    yield batch
                else:
                    n_done -= 1
            if n_found == 0 and not self.is_indexed:
                if at == 0:
                    raise ValueError("the data set gave no row, expected one or more")
                return
            if self.is_iterator:
                return
            at, n_done = at + 1, 0 if self.is_indexed else n_done

    def _one_pass(self, at: int, n_done: int) -> Iterator[list[Any]]:
        if not self.is_indexed:
            rows = iter(self.dataset)
            while batch := list(islice(rows, self.size)):
                yield batch
            return
        n = len(self.dataset)
        order = np.arange(n) if self.seed is None else np.random.default_rng([self.seed, at]).permutation(n)
        for first in range(n_done * self.size, n, self.size):
            yield [self.dataset[int(i)] for i in order[first:first + self.size]]


def _evaluate(trainer: Any, batches: Batches, collate: Callable[[list[Any]], Mapping[str, Any]]) -> float:
    """The mean over all labels of a data set."""
    loss = n_labels = 0.0
    for rows in batches(1):
        found, n = trainer._evaluated(collate(rows))
        loss, n_labels = loss + found * n, n_labels + n
    return loss / n_labels


def train(trainer: Any, batches: Batches, held: Batches | None, collate: Callable[[list[Any]], Mapping[str, Any]],
          n_passes: int, eval_steps: int, save_steps: int, output_dir: str | None,
          callback: Callable[[dict[str, Any]], Any] | None) -> list[dict[str, Any]]:
    """Trainer.train(); n_passes: 0 where max_steps says when it ends."""
    if held is not None and held.is_iterator:
        raise TypeError("eval_dataset is an iterator, expected what can be gone through again, such as a list")
    if save_steps and output_dir is None:
        raise ValueError(f"save_steps is {save_steps}, expected an output_dir beside it")
    history, ends, evaluated, saved = trainer.log_history, False, -1, -1
    accumulation, n_updates = trainer.gradient_accumulation_steps, trainer.max_steps
    n_done = trainer.global_step * accumulation + trainer._n_calls
    if n_passes and batches.is_indexed:  # whole updates: the last may reach into the next pass
        n_updates, n_passes = -(-n_passes * batches.n_in_a_pass() // accumulation), 0

    def note(entry: dict[str, Any]) -> bool:
        history.append(entry)
        return callback is not None and callback(entry) is True

    def is_due(every: int, at: int) -> bool:
        return at != trainer.global_step and (ends or bool(every) and trainer.global_step % every == 0)

    try:
        loss, n_labels, is_cut = 0.0, 0.0, False
        source = batches(n_passes, n_done)
        while not ends:
            is_done = 0 < n_updates <= trainer.global_step
            rows = None if is_done else next(source, None)
            ends = rows is None
            is_cut = ends and not is_done and trainer._n_calls > 0
            if rows is not None:
                found = trainer.step(collate(rows))
                loss, n_labels = loss + found.loss * found.n_labels, n_labels + found.n_labels
                if not found.updated:
                    continue
                ends = note({"step": found.step, "loss": loss / n_labels, "grad_norm": found.grad_norm,
                             "learning_rate": found.learning_rate})
                ends, loss, n_labels = ends or found.step == n_updates, 0.0, 0.0
            if held is not None and is_due(eval_steps, evaluated):
                evaluated = trainer.global_step
                ends = note({"step": evaluated, "eval_loss": _evaluate(trainer, held, collate)}) or ends
            if output_dir is not None and is_due(save_steps, saved):
                trainer.save_pretrained(output_dir)
                saved = trainer.global_step
    except (KeyboardInterrupt, Cancelled):
        if output_dir is not None:
            trainer.save_pretrained(output_dir)
        raise
    if is_cut:
        raise ValueError(f"the data set ended after {trainer._n_calls} of the {accumulation} batches of an update, which "
                         "learned nothing; expected gradient_accumulation_steps that divides its batches, or a list, "
                         "which goes on into its next pass")
    return history
