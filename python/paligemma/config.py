# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""PaliGemmaConfig and GenerationConfig: a checkpoint's settings with the defaults of transformers filled in."""
from __future__ import annotations

import ctypes
import json
import os
from typing import Any, Iterator

from . import _hub, _library as c
from ._checkpoint import open_model

_ALIASES = {"image_token_id": "image_token_index"}  # as in transformers' PaliGemmaConfig.attribute_map


class Config:
    """A JSON object whose keys are attributes; nested objects are Configs. Read-only."""

    def __init__(self, values: dict[str, Any]) -> None:
        wrapped = {k: Config(v) if isinstance(v, dict) else v for k, v in values.items()}
        object.__setattr__(self, "_values", wrapped)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_values":
            raise AttributeError(name)
        name = name if name in self._values else _ALIASES.get(name, name)
        try:
            return self._values[name]
        except KeyError:
            raise AttributeError(f"the config has no {name!r}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"the config cannot be changed ({name!r}): the model was opened with it")

    def __getitem__(self, name: str) -> Any:
        try:
            return getattr(self, name)
        except AttributeError as error:
            raise KeyError(str(error)) from None

    def __contains__(self, name: object) -> bool:
        return name in self._values or _ALIASES.get(name) in self._values  # type: ignore[call-overload]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._values]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Config) and self.to_dict() == other.to_dict()

    def __repr__(self) -> str:
        return f"{type(self).__name__} {json.dumps(self.to_dict(), indent=2)}"

    def get(self, name: str, default: Any = None) -> Any:
        return getattr(self, name, default)

    def to_dict(self) -> dict[str, Any]:
        return {k: v.to_dict() if isinstance(v, Config) else v for k, v in self._values.items()}


class PaliGemmaConfig(Config):
    """The whole config.json, defaults filled in: config.text_config.hidden_size, config.vision_config.image_size."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike[str], *, revision: str | None = None,
                        cache_dir: str | os.PathLike[str] | None = None, subfolder: str = "", n_threads: int = 0,
                        cpu: str | None = None, weights: str = "stored", arithmetic: str | None = None,
                        **kwargs: Any) -> PaliGemmaConfig:
        """The config of a checkpoint folder or cached model id. Arguments: as PaliGemmaForConditionalGeneration's."""
        _hub.check_arguments(kwargs)
        folder = _hub.find(pretrained_model_name_or_path, revision, cache_dir, subfolder)
        handle = open_model(folder, cpu, weights, arithmetic)
        try:
            return cls._of_model(handle.pointer)
        finally:
            handle.close()

    @classmethod
    def _of_model(cls, pointer: ctypes.c_void_p) -> PaliGemmaConfig:
        return cls(json.loads(c.copied_text(c.lib.pg_model_get_config, pointer, b"")))

    def get_text_config(self, decoder: bool = True) -> Config:
        return self.text_config


class GenerationConfig:
    """What generate() does when it is not told: read from generation_config.json, and may be changed."""

    def __init__(self, /, **values: Any) -> None:  # a file may have a key "self"
        self.max_new_tokens: int | None = None
        self.max_length: int | None = None
        self.do_sample: bool = False
        self.num_beams: int = 1
        self.bos_token_id: int | None = None
        self.eos_token_id: int | list[int] | None = None
        self.pad_token_id: int | None = None
        self.__dict__.update(values)

    @classmethod
    def _of_folder(cls, folder: str, config: Config) -> GenerationConfig:
        """generation_config.json where it is there; the ids that it lacks are those of config.json."""
        values = {}
        path = os.path.join(folder, "generation_config.json")
        if os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                values = json.load(file)
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            if values.get(name) is None:
                values[name] = config.get(name)
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        return dict(self.__dict__)

    def __repr__(self) -> str:
        return f"GenerationConfig {json.dumps(self.to_dict(), indent=2, sort_keys=True, default=str)}"
