# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""model.score(): how likely given answers are."""
from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any, Sequence

import numpy as np

from . import _inputs, _library as c
from ._features import Features, use
from ._handle import Handle, array
from ._images import as_rows
from ._run import CancelFlag, interruptible
from .outputs import to_ids


@dataclass(frozen=True)
class Score:
    """How likely an answer is, in natural logarithms.

    answer: as it was given; ids i64 [n] with the eos, log_probs f32 [n] of each. log_prob: their sum, of the whole answer;
    mean_log_prob: divided by n. probability, mean_probability: their softmax over the answers of the call."""
    answer: Any
    ids: np.ndarray
    log_probs: np.ndarray
    log_prob: float
    mean_log_prob: float
    probability: float
    mean_probability: float


def _texts(answers: Sequence[str]) -> Any:
    for i, answer in enumerate(answers):
        if "\0" in answer:
            raise ValueError(f"answers[{i}] has a character 0, expected none: give its ids")
    return (ctypes.c_char_p * len(answers))(*[answer.encode("utf-8") for answer in answers])


def _ids(answers: Sequence[Any]) -> tuple[Any, Any]:
    rows = [to_ids(f"answers[{i}]", answer) for i, answer in enumerate(answers)]
    for i, row in enumerate(rows):
        if row.ndim != 1:
            raise ValueError(f"answers[{i}] has {row.ndim} dimensions, expected a str or a list of ids")
    ids = np.concatenate(rows)
    sizes = [len(row) for row in rows]
    return (ctypes.c_int64 * max(len(ids), 1))(*ids.tolist()), (ctypes.c_int64 * len(sizes))(*sizes)


def _encode(processor: Any, image: Any, prompt: str, exif: bool, alpha: str,
            literal: bool) -> Handle:
    if isinstance(image, Features):
        made = processor(text=prompt, image_counts=len(image), literal=literal, return_tensors="np")
    elif isinstance(as_rows(image), list):
        raise ValueError("image is a list, expected one image: model.score() for each")
    else:
        made = processor(image, prompt, exif=exif, alpha=alpha, literal=literal, return_tensors="np")
    return _inputs.create(_inputs.checked({name: made[name] for name in _inputs.NAMES if name in made}))


def _read(scores: Handle, index: int, answer: Any) -> Score:
    info = c.ScoreInfo()
    c.check(c.lib.pg_scores_get_info(scores.pointer, index, ctypes.byref(info)))
    ids, log_probs = (array(scores, c.lib.pg_scores_get_tensor, index, name).copy() for name in (b"ids", b"log_probs"))
    return Score(answer, ids, log_probs, info.log_prob, info.mean_log_prob, info.probability, info.mean_probability)


def score(model: Any, image: Any, prompt: str, answers: Sequence[Any], *, eos: bool = True, literal: bool = False,
          processor: Any = None, exif: bool = True, alpha: str = "drop",
          max_context: int | None = None, cancel: CancelFlag | None = None) -> list[Score]:
    """How likely each of the answers to a prompt about an image is: closed questions, and classes that are known.

        max(model.score("street.jpg", "answer en is it day or night?", ["day", "night"]), key=lambda s: s.probability)

    image: of any kind that the processor takes, or Features. answers: str, or all of them lists of ids, which are taken as
    they are. eos: score whole answers, with their end, as transformers' suffix has it; False: as a beginning. literal:
    special tokens in texts are plain characters. exif, alpha: as of the processor. -> a Score for each, in the order given."""
    answers = [answers] if isinstance(answers, str) else list(answers)
    if not isinstance(prompt, str):
        raise TypeError(f"prompt is a {type(prompt).__name__}, expected a str")
    texts = [isinstance(answer, str) for answer in answers]
    if not answers or any(texts) != all(texts):
        raise ValueError(f"answers has {sum(texts)} texts of {len(answers)}, expected texts alone or ids alone, 1 or more")
    processor = model._folders_processor() if processor is None else processor
    given = _texts(answers) if texts[0] else _ids(answers)
    inputs, scores, cancel = _encode(processor, image, prompt, exif, alpha, literal), Handle("scores"), cancel or CancelFlag()

    def work() -> None:
        with model._handle.use() as network, processor._handle.use() as tokenizer, inputs.use() as row, \
                use(image if isinstance(image, Features) else None) as features, cancel.use() as flag:
            options = c.ScoreOptions(flags=(0 if eos else c.SCORE_NO_EOS) | (c.SCORE_LITERAL if literal else 0),
                                     n_threads=model.n_threads, features=features, max_context=max_context or 0,
                                     cancel=flag)
            rest = len(answers), ctypes.byref(options), ctypes.byref(scores.pointer)
            c.check(c.lib.pg_score(network, tokenizer, row, given, *rest) if texts[0]
                    else c.lib.pg_score_ids(network, row, *given, *rest))

    interruptible(work, cancel)
    return [_read(scores, index, answer) for index, answer in enumerate(answers)]
