# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""What generate()'s arguments ask for, after transformers' rules."""
from __future__ import annotations

import operator
import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ._beams import SETTINGS as BEAM_SETTINGS, Beams
from ._sampling import SETTINGS, Sampling
from .config import GenerationConfig

# Settings that change nothing here.
_HARMLESS = {"use_cache", "synced_gpus", "bos_token_id", "cache_implementation", "cache_config", "disable_compile",
             "use_model_defaults", "trust_remote_code",
             # of assistants, caches and serving, which transformers, too, ignores where they are not used
             "num_assistant_tokens", "num_assistant_tokens_schedule", "assistant_confidence_threshold",
             "assistant_lookbehind", "target_lookbehind", "assistant_ensemble_weight", "max_matching_ngram_size",
             "speculation_type", "max_cache_len", "continuous_batching_config", "decoder_start_token_id",
             "transformers_version", "compile_config", "logits_to_keep", "prefill_chunk_size", "is_assistant", "low_memory", "tokenizer"}
# Settings that are not followed, with the values at which they do nothing, and what to do.
_BEAMS = "beams are one group, without constraints; ask transformers for these"
_SETTINGS = "libpaligemma does not offer it; a logits_processor can do it"
_REFUSED: dict[str, tuple[tuple[Any, ...], str]] = {
    "num_beam_groups": ((1,), _BEAMS), "diversity_penalty": ((0.0,), _BEAMS),
    "force_words_ids": ((), _BEAMS), "constraints": ((), _BEAMS),
    "penalty_alpha": ((0.0,), "contrastive search is not offered"), "dola_layers": ((), "DoLa is not offered"),
    "guidance_scale": ((1, 1.0), "a second prompt is not followed"),
    "negative_prompt_ids": ((), "a second prompt is not followed"),
    "negative_prompt_attention_mask": ((), "a second prompt is not followed"),
    "assistant_model": ((), "it computes one model"), "prompt_lookup_num_tokens": ((), "it takes one token a step"),
    "assistant_early_exit": ((), "it takes one token a step"), "token_healing": ((), "end the prompt before the token"),
    "use_mtp": ((), "it takes one token a step"),
    "custom_generate": ((), "foreign code is not run; model.stream() gives each token as it comes"),
    "watermarking_config": ((), _SETTINGS),
    "output_attentions": ((), "model(..., output_attentions=True) on the sequences gives them"),
    "output_hidden_states": ((), "model(..., output_hidden_states=True) on the sequences gives them"),
    "past_key_values": ((), "a KV cache cannot be handed on"), "cache": ((), "a KV cache cannot be handed on"),
    # of encoder-decoder models: transformers' own effect on others is to look at the prompt twice
    "encoder_repetition_penalty": ((1.0,), _SETTINGS), "encoder_no_repeat_ngram_size": ((0,), _SETTINGS),
}
# Settings that plan() follows.
_FOLLOWED = {*SETTINGS, *BEAM_SETTINGS, "max_new_tokens", "max_length", "pad_token_id", "eos_token_id", "stop_strings", "max_time",
             "return_dict_in_generate", "output_scores", "output_logits"}
# Arguments of generate() alone.
_OBJECTS = {"logits_processor", "stopping_criteria", "prefix_allowed_tokens_fn"}
_MOST_TOKENS = 2**31 - 1
_DEFAULT_NEW_TOKENS = 20  # transformers' model-agnostic max_length, on top of the prompt


def is_whole(value: Any) -> bool:
    """An int, or a number of numpy or of torch that is one; not a bool."""
    try:
        return not isinstance(value, (bool, np.bool_)) and operator.index(value) is not None
    except TypeError:
        return False


@dataclass
class Plan:
    max_new_tokens: int
    pad_token_id: int
    arrays: dict[str, np.ndarray]  # with an attention mask where pad tokens ask for one
    eos_ids: list[int] | None  # None: no id ends a row, and rows that have ended go on until all have
    sampling: Sampling
    beams: Beams = Beams()
    stop_strings: list[str] = field(default_factory=list)
    max_time: float | None = None
    return_dict: bool = False
    scores: bool = False
    logits: bool = False
    processors: list[Any] = field(default_factory=list)
    criteria: list[Any] = field(default_factory=list)
    prefix_fn: Any = None

    @property
    def is_plain(self) -> bool:
        """Nothing but eos ids and the length ends a row, and nothing bends the choice."""
        return self.max_time is None and not (self.stop_strings or self.processors or self.criteria or self.prefix_fn
                                              or self.sampling.bends)

    @property
    def n_rows(self) -> int:
        return len(self.arrays.get("input_ids", self.arrays.get("inputs_embeds", ())))

    @property
    def prompt(self) -> np.ndarray:
        """i64 [B, T]; of given embeddings [B, 0]."""
        return self.arrays.get("input_ids", np.zeros((self.n_rows, 0), np.int64))


def ids_of(value: Any) -> list[int] | None:
    """eos_token_id as a list: of None, an int, a list, or an array or tensor of ids."""
    if value is None:
        return None
    value = value.tolist() if hasattr(value, "tolist") else value
    value = list(value) if isinstance(value, (list, tuple, set)) else [value]
    if not all(map(is_whole, value)):
        raise TypeError(f"eos_token_id is {value}, expected an id or a list of ids")
    return [int(i) for i in value]


class _Settings:
    """A setting's value by keyword, else on `given`, else on the model's generation_config; None there is no value."""

    def __init__(self, keywords: dict[str, Any], given: Any, defaults: Any) -> None:
        self._keywords = keywords
        self._sources = [source for source in (given, defaults) if source is not None]

    def get(self, name: str) -> Any:
        if name in self._keywords:
            return self._keywords[name]
        return next((v for v in (getattr(source, name, None) for source in self._sources) if v is not None), None)

    def length(self) -> tuple[Any, Any]:
        """max_new_tokens and max_length, of the first place that has one of them."""
        for get in (self._keywords.get, *(lambda name, of=source: getattr(of, name, None) for source in self._sources)):
            if get("max_new_tokens") is not None or get("max_length") is not None:
                return get("max_new_tokens"), get("max_length")
        return None, None


def _check(settings: _Settings, keywords: dict[str, Any]) -> None:
    for name, (neutral, hint) in _REFUSED.items():
        value = settings.get(name)
        if name.startswith("output_") and not settings.get("return_dict_in_generate"):
            continue  # of no effect, as in transformers
        if value is not None and value is not False and not any(value is v or value == v for v in neutral):
            raise ValueError(f"{name} is {value!r}: {hint}")
    unknown = keywords.keys() - _REFUSED.keys() - _HARMLESS - _FOLLOWED - _OBJECTS
    for name in sorted(unknown):
        if keywords[name] is not None:
            raise ValueError(f"The following `model_kwargs` are not used by the model: ['{name}'] (note: typos in the "
                             "generate arguments will also show up in this list)")


def _listed(name: str, value: Any) -> list[Any]:
    """A list of callables, such as transformers' LogitsProcessorList or StoppingCriteriaList."""
    if value is None:
        return []
    if not isinstance(value, (list, tuple)) or not all(map(callable, value)):
        raise TypeError(f"{name} is a {type(value).__name__}, expected a list of callables")
    return list(value)


def _new_tokens(settings: _Settings, width: int) -> int:
    new, length = settings.length()
    for name, value in (("max_new_tokens", new), ("max_length", length)):
        if value is not None and not is_whole(value):
            raise TypeError(f"{name} is {value!r}, expected an integer")
    if new is None and length is None:
        warnings.warn(f"Using the model-agnostic default of {_DEFAULT_NEW_TOKENS} new tokens. We recommend setting "
                      "`max_new_tokens` to control the maximum length of the generation.", stacklevel=5)
        new = _DEFAULT_NEW_TOKENS
    if new is None:
        new = length - width
        if new <= 0:
            raise ValueError(f"Input length of input_ids is {width}, but `max_length` is set to {length}. You should "
                             "consider increasing `max_length` or, better yet, setting `max_new_tokens`.")
    if new <= 0:
        raise ValueError(f"`max_new_tokens` must be greater than 0, but is {new}.")
    if new > _MOST_TOKENS:
        name, value = ("max_new_tokens", new) if length is None or new == settings.length()[0] else ("max_length", length)
        raise ValueError(f"{name} is {value}, expected at most {_MOST_TOKENS}")
    return int(new)


def _stop_strings(value: Any) -> list[str]:
    value = [value] if isinstance(value, str) else list(value or [])
    if not all(isinstance(text, str) for text in value):
        raise TypeError(f"stop_strings is {value}, expected a text or a list of texts")
    return value


def _max_time(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
        raise ValueError(f"max_time is {value!r}, expected seconds, 0 or more")
    return float(value)


def plan(defaults: GenerationConfig, given: Any, keywords: dict[str, Any], arrays: dict[str, np.ndarray]) -> Plan:
    """keywords win over `given`: generation_config (an object with attributes, or None), which wins over `defaults`:
    the model's.

    arrays: input_ids [B, T] or inputs_embeds [B, T, hidden], and the rest by name.
    """
    settings = _Settings(keywords, given, defaults)
    _check(settings, keywords)
    ids = arrays.get("input_ids")
    width = ids.shape[1] if ids is not None and ids.ndim == 2 else 0
    new = _new_tokens(settings, width)
    beams = Beams.of(settings.get)
    sampling = Sampling(settings.get, keywords.__contains__, width, beams.n > 1)
    eos, pad = ids_of(settings.get("eos_token_id")), settings.get("pad_token_id")
    first_eos = eos[0] if eos else None
    if pad is None:
        pad = first_eos if first_eos is not None else 0
    if not is_whole(pad):
        raise TypeError(f"pad_token_id is {pad!r}, expected an id")
    if not -2**63 <= pad < 2**63:
        raise ValueError(f"pad_token_id is {pad}, expected a number of 64 bits")
    if "attention_mask" not in arrays and ids is not None and pad != first_eos:
        mask = ids != pad  # GenerationMixin._prepare_attention_mask_for_generation
        if not mask.all():
            arrays = {**arrays, "attention_mask": mask.astype(np.int64)}
    as_dict = bool(settings.get("return_dict_in_generate"))
    return Plan(new, int(pad), arrays, eos, sampling, beams, _stop_strings(settings.get("stop_strings")),
                _max_time(settings.get("max_time")), as_dict, as_dict and bool(settings.get("output_scores")),
                as_dict and bool(settings.get("output_logits")),
                _listed("logits_processor", keywords.get("logits_processor")),
                _listed("stopping_criteria", keywords.get("stopping_criteria")),
                keywords.get("prefix_allowed_tokens_fn"))


def repeated(arrays: dict[str, np.ndarray], images: np.ndarray | None, n: int,
             image_token_id: int) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
    """Each row n times, one after the other, and its images likewise (num_return_sequences).

    images [n_images, ...]: pixels or features, those of the first row first, or in each row all of them.
    """
    rows = {name: np.repeat(values, n, axis=0) for name, values in arrays.items() if name != "pixel_values"}
    if images is None or len(arrays.get("input_ids", ())) == 0:
        return rows, images
    counts = (arrays["input_ids"] == image_token_id).sum(axis=1)
    per_image = max(1, int(counts.sum()) // len(images))
    first = np.concatenate([[0], np.cumsum(counts // per_image)])
    return rows, np.concatenate([images[first[row]:first[row + 1]] for row in range(len(counts)) for _ in range(n)])
