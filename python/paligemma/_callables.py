# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""What a caller's logits_processor and prefix_allowed_tokens_fn are given, and what they may return."""
from __future__ import annotations

from typing import Any, Callable

import numpy as np

from .outputs import to_numpy

AsTensor = Callable[[np.ndarray, Any], Any]  # an array as the callable that is to read it takes it


def of_transformers(value: Any) -> bool:
    """Whether an object's class, or one that it is made from, is transformers': it needs tensors."""
    return any(kind.__module__.split(".")[0] == "transformers" for kind in type(value).__mro__)


def process(processor: Any, ids: np.ndarray, scores: np.ndarray, tensor: AsTensor) -> None:
    """Changes scores f32 [vocab_size]. The processor sees one row: ids i64 [1, T + n], with the prompt's padding, and
    scores f32 [1, vocab_size], a copy where it may write."""
    found = processor(tensor(ids[None], processor), tensor(scores[None].copy(), processor))
    result = np.asarray(to_numpy(found), np.float32)
    if result.shape != (1, len(scores)):
        raise ValueError(f"{type(processor).__name__} returned scores of the shape {list(result.shape)}, expected "
                         f"[1, {len(scores)}]")
    scores[:] = result[0]


def allow(prefix_fn: Any, row: int, ids: np.ndarray, bits: np.ndarray, vocab_size: int, tensor: AsTensor) -> None:
    """bits u32, all 0: sets a bit for each id that prefix_allowed_tokens_fn(row, ids i64 [T + n]) allows."""
    allowed = np.asarray(to_numpy(prefix_fn(row, tensor(ids, prefix_fn))), np.int64).reshape(-1)
    if len(allowed) == 0:
        raise ValueError(f"`prefix_allowed_tokens_fn` returned an empty list for batch ID {row}. This means that the "
                         "constraint is unsatisfiable. Please check your implementation of `prefix_allowed_tokens_fn`")
    if allowed.min() < 0 or allowed.max() >= vocab_size:
        raise ValueError(f"`prefix_allowed_tokens_fn` returned {allowed.tolist()}, expected ids of 0 to {vocab_size - 1}")
    np.bitwise_or.at(bits, allowed // 32, np.left_shift(np.uint32(1), (allowed % 32).astype(np.uint32)))
