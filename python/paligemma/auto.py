# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""The Auto classes: each is another door to the class of its architecture."""
from __future__ import annotations

from typing import Any

from . import _hub
from .colpali import ColPaliProcessor, is_of_colpali
from .config import PaliGemmaConfig
from .image_processor import SiglipImageProcessor
from .model import PaliGemmaForConditionalGeneration
from .processor import PaliGemmaProcessor
from .tokenizer import PaliGemmaTokenizer


class AutoProcessor:
    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> PaliGemmaProcessor | ColPaliProcessor:
        of_files = {name: kwargs.get(name) for name in ("revision", "cache_dir")}
        folder = _hub.find(pretrained_model_name_or_path, of_files["revision"], of_files["cache_dir"],
                           kwargs.get("subfolder") or "")
        kind: Any = ColPaliProcessor if is_of_colpali(folder) else PaliGemmaProcessor
        return kind.from_pretrained(pretrained_model_name_or_path, **kwargs)


class AutoImageProcessor:
    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> SiglipImageProcessor:
        return SiglipImageProcessor.from_pretrained(pretrained_model_name_or_path, **kwargs)


class AutoConfig:
    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> PaliGemmaConfig:
        return PaliGemmaConfig.from_pretrained(pretrained_model_name_or_path, **kwargs)


class AutoTokenizer:
    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> PaliGemmaTokenizer:
        return PaliGemmaTokenizer.from_pretrained(pretrained_model_name_or_path, **kwargs)


class AutoModelForImageTextToText:
    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> PaliGemmaForConditionalGeneration:
        return PaliGemmaForConditionalGeneration.from_pretrained(pretrained_model_name_or_path, **kwargs)


AutoModelForVision2Seq = AutoModelForImageTextToText  # its name before transformers 5
