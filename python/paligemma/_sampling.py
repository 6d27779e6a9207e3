# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""transformers' settings of generate() that bend the choice of a token, as a pg_sampling_options."""
from __future__ import annotations

import ctypes
from typing import Any, Callable

import numpy as np

from . import _library as c
from .outputs import torch_if_loaded

_NUMBER = (int, float, np.integer, np.floating)
# Settings with the same name and meaning in the library, and their type. Those of _RANDOM count with do_sample alone.
_SAME = {"repetition_penalty": float, "no_repeat_ngram_size": int}
_RANDOM = {"temperature": float, "top_k": int, "top_p": float, "min_p": float, "top_h": float, "typical_p": float,
           "epsilon_cutoff": float, "eta_cutoff": float}
_OTHERS = {"do_sample", "seed", "num_return_sequences", "min_length", "min_new_tokens", "bad_words_ids",
           "forced_bos_token_id", "forced_eos_token_id", "suppress_tokens", "begin_suppress_tokens", "sequence_bias",
           "exponential_decay_length_penalty", "remove_invalid_values", "renormalize_logits"}
_MOST_SEQUENCES = 1024  # n_return of pg_generate_options
SETTINGS = {*_SAME, *_RANDOM, *_OTHERS}


class Sampling:
    """The settings of one call, in a form to be shared between the runs of its rows."""

    def __init__(self, get: Callable[[str], Any], has: Callable[[str], bool], width: int,
                 beams: bool = False) -> None:
        """get: a setting's value, None where it is not set; has: whether a keyword says it, be it None; width: tokens
        of the prompt, padding included, as transformers counts min_length; beams: whether there are any."""
        self.random = bool(get("do_sample"))
        n_sequences = get("num_return_sequences")
        self.n_sequences = whole("num_return_sequences", 1 if n_sequences is None else n_sequences, 1)
        if self.n_sequences > _MOST_SEQUENCES:
            raise ValueError(f"num_return_sequences is {self.n_sequences}, expected 1 to {_MOST_SEQUENCES}")
        if self.n_sequences > 1 and not (self.random or beams):
            raise ValueError("Greedy methods (do_sample != True) without beam search do not support "
                             f"`num_return_sequences` different than 1 (got {self.n_sequences}).")
        self._flags = ((c.SAMPLING_RANDOM | c.SAMPLING_ROW_STREAMS if self.random else 0)
                       | (c.SAMPLING_REMOVE_INVALID if get("remove_invalid_values") is True else 0)
                       | (c.SAMPLING_RENORMALIZE if get("renormalize_logits") is True else 0))
        self._numbers: dict[str, Any] = {"seed": _seed(get("seed")) if self.random else 0}
        self._lists: dict[str, tuple[Any, Any]] = {}  # field: its array's type, and values
        for name, kind in {**_SAME, **(_RANDOM if self.random else {})}.items():
            value = get(name)
            if value is not None:
                self._numbers[name] = number(name, value, kind)
            elif name == "top_k" and has(name):
                self._numbers[name] = 0  # None says: all of them
        if self._numbers.get("top_p") == 0:
            self._numbers["top_p"] = 1e-30  # the likeliest id alone, as there
        for name in ("typical_p", "top_p"):
            if self._numbers.get(name, 0) > 1:
                del self._numbers[name]  # off, as there
        for name in ("epsilon_cutoff", "eta_cutoff"):
            if not 0 < self._numbers.get(name, 0) < 1:
                self._numbers.pop(name, None)
        self._numbers["no_repeat_ngram_size"] = max(0, self._numbers.get("no_repeat_ngram_size", 0))
        at_least = whole("min_length", get("min_length") or 0) - width
        self._numbers["min_new_tokens"] = max(0, at_least, whole("min_new_tokens", get("min_new_tokens") or 0))
        if get("forced_bos_token_id") is not None:
            self._numbers["forced_bos_id"] = whole("forced_bos_token_id", get("forced_bos_token_id"))
        decay = get("exponential_decay_length_penalty")
        if decay is not None:
            if not isinstance(decay, (list, tuple)) or len(decay) != 2:
                raise ValueError(f"exponential_decay_length_penalty is {decay!r}, expected (start, factor)")
            self._numbers["decay_start"] = whole("exponential_decay_length_penalty[0]", decay[0], 0)
            self._numbers["decay_factor"] = number("exponential_decay_length_penalty[1]", decay[1], float)
        self._take_ids(get)

    def _take_ids(self, get: Callable[[str], Any]) -> None:
        for name, field in (("forced_eos_token_id", "forced_eos_ids"), ("suppress_tokens", "suppressed_ids"),
                            ("begin_suppress_tokens", "begin_suppressed_ids")):
            if get(name) is not None:
                self._lists[field] = (c.i64, _id_list(name, get(name), alone=name == "forced_eos_token_id"))
        words = get("bad_words_ids")
        if words is not None:
            if not isinstance(words, (list, tuple)) or not words:
                raise ValueError(f"`bad_words_ids` has to be a non-empty list, but is {words}.")
            words = [_id_list("bad_words_ids", word) for word in words]
            self._sequences("bad_word", [word for word in words if word])
        biases = get("sequence_bias")
        if biases is not None:
            pairs = list(biases.items()) if isinstance(biases, dict) else biases
            if not isinstance(pairs, (list, tuple)) or not pairs or not all(
                    isinstance(pair, (list, tuple)) and len(pair) == 2 and isinstance(pair[0], (list, tuple)) and
                    len(pair[0]) > 0 and isinstance(pair[1], _NUMBER) for pair in pairs):
                raise ValueError("sequence_bias: expected {(id, ...): number} or [[[id, ...], number]], not empty, but "
                                 f"is {biases}.")
            if any(bias != bias for _, bias in pairs):
                raise ValueError(f"sequence_bias has NaN, expected numbers, but is {biases}.")
            self._sequences("bias", [_id_list("sequence_bias", ids) for ids, _ in pairs])
            self._lists["biases"] = (c.f64, [float(bias) for _, bias in pairs])

    def _sequences(self, field: str, sequences: list[list[int]]) -> None:
        self._lists[f"{field}_ids"] = (c.i64, [i for ids in sequences for i in ids])
        self._lists[f"{field}_sizes"] = (c.i64, [len(ids) for ids in sequences])

    @property
    def bends(self) -> bool:
        """Whether anything is set."""
        numbers = {name: value for name, value in self._numbers.items() if name != "seed"}
        neutral = {"repetition_penalty": 1.0, "no_repeat_ngram_size": 0, "min_new_tokens": 0}
        return bool(self._flags or self._lists or {**neutral, **numbers} != neutral)

    def options(self, eos: list[int], ends_rows: bool, vocab_size: int) -> c.SamplingOptions:
        """eos: the eos ids; ends_rows: whether they end rows."""
        options = c.SamplingOptions()
        c.check(c.lib.pg_sampling_options_init(ctypes.byref(options), ctypes.sizeof(options)))
        options.flags = self._flags | (0 if eos and ends_rows else c.SAMPLING_IGNORE_EOS)
        for name, value in self._numbers.items():
            setattr(options, name, value)
            if isinstance(value, int) and getattr(options, name) != value:
                raise ValueError(f"{name} is {value}, expected at most {2**31 - 1}")
        eos = [i for i in eos if 0 <= i < vocab_size]  # others never come
        lists = {"eos_ids": (c.i64, eos), **self._lists}
        for field, (kind, values) in lists.items():
            if field in ("suppressed_ids", "begin_suppressed_ids"):
                values = [i for i in values if 0 <= i < vocab_size]
            setattr(options, field, (kind * max(1, len(values)))(*values))
            counts = {"bad_word_sizes": "n_bad_words", "biases": "n_biases"}
            count = counts.get(field, f"n_{field}")
            if hasattr(type(options), count):
                setattr(options, count, len(values))
        if not eos:
            options.flags |= c.SAMPLING_IGNORE_EOS
        return options


def number(name: str, value: Any, kind: type) -> Any:
    if isinstance(value, bool) or not isinstance(value, _NUMBER) or kind is int and int(value) != value:
        raise ValueError(f"{name} is {value!r}, expected " + ("an integer" if kind is int else "a number"))
    return kind(value)


def whole(name: str, value: Any, least: int | None = None) -> int:
    value = number(name, value, int)
    if least is not None and value < least:
        raise ValueError(f"{name} is {value}, expected {least} or more")
    return value


def _id_list(name: str, value: Any, alone: bool = False) -> list[int]:
    """ids: a list, array or tensor of them; alone: or one."""
    value = value.tolist() if hasattr(value, "tolist") else value
    if alone and isinstance(value, int):
        value = [value]
    if not isinstance(value, (list, tuple)) or not all(isinstance(i, int) and not isinstance(i, bool) for i in value):
        raise (ValueError if name.endswith("_ids") else TypeError)(f"{name} is {value!r}, expected lists of ids")
    return list(value)


def _seed(seed: Any) -> int:
    """Without one: from torch's generator, so that torch.manual_seed() and transformers.set_seed() count; without torch
    from numpy's."""
    if seed is not None:
        return whole("seed", seed) % 2**64
    torch = torch_if_loaded()
    if torch is not None:
        return int(torch.randint(2**63 - 1, ()))
    return int(np.random.randint(2**63 - 1, dtype=np.int64))
