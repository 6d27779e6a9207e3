# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""The keywords of a processor's call, sorted as transformers' ProcessorMixin._merge_kwargs sorts them."""
from __future__ import annotations

import warnings
from typing import Any

from .image_processor import KEYWORDS as IMAGE_KEYWORDS

# Of the text: those that the processor follows beside its own parameters, those that change nothing, those refused.
_TEXT_FOLLOWED = ("return_attention_mask", "return_mm_token_type_ids")
_TEXT_IGNORED = {"add_special_tokens", "return_token_type_ids", "verbose", "sanitize_control_tokens", "return_metadata",
                 "split_special_tokens"}
_NOT_OFFERED = {"return_overflowing_tokens", "return_special_tokens_mask", "return_offsets_mapping", "return_length",
                "return_text_replacement_offsets", "stride", "is_split_into_words", "text_pair", "text_target",
                "text_pair_target", "videos", "audio"}
_GROUPS = ("text_kwargs", "images_kwargs")
_OTHER_GROUPS = ("videos_kwargs", "audio_kwargs")  # of transformers' processors for other models


class Arguments:
    """text: the value of each text keyword; images: the image settings that the call gives; tensors and image_tensors:
    return_tensors of all, and of pixel_values."""

    def __init__(self, own: dict[str, Any], kwargs: dict[str, Any], tokenizer: dict[str, Any]) -> None:
        """own: the values of the processor's named parameters, None where not given; kwargs: all others; tokenizer: what
        it was opened with, for what the call does not say."""
        self.text: dict[str, Any] = {**own, **dict.fromkeys(_TEXT_FOLLOWED)}
        self.images: dict[str, Any] = {}
        for name in _OTHER_GROUPS:
            if kwargs.pop(name, None):
                raise NotImplementedError(f"processor() does not follow {name}: PaliGemma takes images and text")
        groups = {name: dict(kwargs.pop(name, None) or {}) for name in ("common_kwargs", *_GROUPS)}
        for name, value in groups["common_kwargs"].items():  # weakest, and for whom they fit
            if name not in self.text and name not in IMAGE_KEYWORDS:
                raise TypeError(f"common_kwargs got an unexpected keyword argument {name!r}")
            if name in self.text and own.get(name) is None:
                self.text[name] = value
            if name in IMAGE_KEYWORDS:
                self.images[name] = value
        for group in _GROUPS:
            for name, value in groups[group].items():
                if name in kwargs or own.get(name) is not None:
                    raise ValueError(f"Keyword argument {name} was passed two times:\nin a dictionary for {group} and "
                                     "as a **kwarg.")
                self._take(group, name, value)
        for name, value in kwargs.items():
            self._take("images_kwargs" if name in IMAGE_KEYWORDS else "text_kwargs", name, value, plain=True)
        for name in ("padding", "truncation", "pad_to_multiple_of", "return_tensors"):
            if self.text[name] is None:
                self.text[name] = tokenizer.get(name)
        self.tensors = self.text["return_tensors"]
        self.image_tensors = self.tensors if self.tensors is not None else self.images.get("return_tensors")

    def _take(self, group: str, name: str, value: Any, plain: bool = False) -> None:
        if group == "images_kwargs":
            if name not in IMAGE_KEYWORDS:
                raise TypeError(f"images_kwargs got an unexpected keyword argument {name!r}")
            self.images[name] = value
        elif name in self.text:
            self.text[name] = value
        elif name in _NOT_OFFERED:
            if value not in (None, False, 0):
                raise NotImplementedError(f"processor() does not follow {name}={value!r}")
        elif name not in _TEXT_IGNORED:
            where = "this processor" if plain else group
            warnings.warn(f"Keyword argument `{name}` is not a valid argument for {where} and will be ignored.",
                          stacklevel=4)
