# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""What generate()'s arguments ask for, after transformers' rules."""
from __future__ import annotations

import operator
import warnings
from dataclasses import dataclass
from typing import Any, Iterable, Iterator

import numpy as np

from .config import GenerationConfig

# Settings of sampling: transformers ignores them, too, unless do_sample=True.
_SAMPLING = {"temperature", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff",
             "renormalize_logits"}
# Settings that change nothing here.
_HARMLESS = {"use_cache", "synced_gpus", "bos_token_id", "cache_implementation", "cache_config", "disable_compile",
             "custom_generate", "use_model_defaults", "num_return_sequences", "early_stopping", "length_penalty",
             "trust_remote_code", "compile_config", "logits_to_keep"}
# Settings that bend or report greedy decoding: not followed, with the values at which they do nothing.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "num_beams": (1,), "num_beam_groups": (1,), "diversity_penalty": (0.0,), "repetition_penalty": (1.0,),
    "encoder_repetition_penalty": (1.0,), "no_repeat_ngram_size": (0,), "encoder_no_repeat_ngram_size": (0,),
    "min_length": (0,), "min_new_tokens": (0,), "bad_words_ids": (), "force_words_ids": (), "constraints": (),
    "forced_bos_token_id": (), "forced_eos_token_id": (), "suppress_tokens": (), "begin_suppress_tokens": (),
    "sequence_bias": (), "guidance_scale": (1.0,), "penalty_alpha": (0.0,), "dola_layers": (),
    "watermarking_config": (), "exponential_decay_length_penalty": (), "remove_invalid_values": (), "token_healing": (),
    "prompt_lookup_num_tokens": (), "max_time": (), "stop_strings": (), "logits_processor": ([],),
    "stopping_criteria": ([],), "prefix_allowed_tokens_fn": (), "assistant_model": (), "negative_prompt_ids": (),
    "output_scores": (), "output_logits": (), "output_attentions": (), "output_hidden_states": (),
    "past_key_values": (),
}
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
    stop_ids: frozenset[int]  # a row ends after the first of them; the library ends at the checkpoint's by itself

    def until_stop(self, ids: Iterable[int]) -> Iterator[int]:
        """The ids up to the first stop id, it included."""
        for token in ids:
            yield token
            if int(token) in self.stop_ids:
                return


def _ids(value: Any) -> list[int]:
    """eos_token_id as a list: of None, an int, a list, or an array or tensor of ids."""
    if value is None:
        return []
    value = value.tolist() if hasattr(value, "tolist") else value
    return [int(i) for i in (value if isinstance(value, (list, tuple)) else [value])]


def _stop_ids(eos: Any, checkpoint_eos: Any) -> list[int]:
    """The ids of eos_token_id. The library ends at the checkpoint's; further ids can be added, none taken away."""
    ids = _ids(eos)
    if not set(_ids(checkpoint_eos)) <= set(ids):
        raise ValueError(f"eos_token_id is {eos}, expected the checkpoint's {checkpoint_eos}, alone or with further "
                         "ids: the library always ends there")
    return ids


def _first(name: str, *sources: Any) -> Any:
    """The value of a setting in the first object that has one."""
    return next((v for v in (getattr(source, name, None) for source in sources) if v is not None), None)


def _check_settings(settings: dict[str, Any]) -> None:
    if settings.get("do_sample"):
        raise ValueError("do_sample is True, expected False: libpaligemma decodes greedily, and offers no sampling")
    for name, value in settings.items():
        if value is None or value is False or name == "do_sample" or name in _SAMPLING or name in _HARMLESS:
            if name == "num_return_sequences" and value not in (None, 1):
                raise ValueError(f"num_return_sequences is {value}, expected 1: greedy decoding has one answer")
        elif name in _NEUTRAL:
            if value not in _NEUTRAL[name]:
                raise ValueError(f"{name} is {value!r}: libpaligemma decodes greedily (do_sample=False, num_beams=1), "
                                 "and follows no other setting")
        else:
            raise ValueError(f"The following `model_kwargs` are not used by the model: ['{name}'] (note: typos in the "
                             "generate arguments will also show up in this list)")


def plan(defaults: GenerationConfig, given: Any, settings: dict[str, Any], arrays: dict[str, np.ndarray],
         checkpoint_eos: Any) -> Plan:
    """settings: keywords, which win over `given`: generation_config (an object with attributes, or None), which wins
    over `defaults`: the model's. checkpoint_eos: the eos ids at which the library ends.

    arrays: input_ids [B, T] or inputs_embeds [B, T, hidden], and the rest by name.
    """
    settings = dict(settings)
    sources = [source for source in (given, defaults) if source is not None]
    new, length = settings.pop("max_new_tokens", None), settings.pop("max_length", None)
    pad, eos = settings.pop("pad_token_id", None), settings.pop("eos_token_id", None)
    _check_settings(settings)
    reports = {name for name in _NEUTRAL if name.startswith("output_")}  # of no effect without a dictionary of results
    names = {"do_sample", "num_return_sequences", *_NEUTRAL} - reports
    _check_settings({name: _first(name, *sources) for name in names if settings.get(name) is None})
    eos = _stop_ids(_first("eos_token_id", *sources) if eos is None else eos, checkpoint_eos)
    for config in sources:
        if new is None and length is None:
            new, length = getattr(config, "max_new_tokens", None), getattr(config, "max_length", None)

    ids = arrays.get("input_ids")
    width = ids.shape[1] if ids is not None and ids.ndim == 2 else 0
    for name, value in (("max_new_tokens", new), ("max_length", length)):
        if value is not None and not is_whole(value):
            raise TypeError(f"{name} is {value!r}, expected an integer")
    if new is None and length is None:
        warnings.warn(f"Using the model-agnostic default of {_DEFAULT_NEW_TOKENS} new tokens. We recommend setting "
                      "`max_new_tokens` to control the maximum length of the generation.", stacklevel=3)
        new = _DEFAULT_NEW_TOKENS
    if new is None:
        new = length - width
        if new <= 0:
            raise ValueError(f"Input length of input_ids is {width}, but `max_length` is set to {length}. You should "
                             "consider increasing `max_length` or, better yet, setting `max_new_tokens`.")
    if new <= 0:
        raise ValueError(f"`max_new_tokens` must be greater than 0, but is {new}.")

    first_eos = eos[0] if eos else None
    if pad is None:
        pad = _first("pad_token_id", *sources)
    if pad is None:
        pad = first_eos if first_eos is not None else 0
    if "attention_mask" not in arrays and ids is not None and pad != first_eos:
        mask = ids != pad  # GenerationMixin._prepare_attention_mask_for_generation
        if not mask.all():
            arrays = {**arrays, "attention_mask": mask.astype(np.int64)}
    return Plan(int(new), int(pad), arrays, frozenset(eos))
