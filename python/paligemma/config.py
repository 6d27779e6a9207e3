# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""PaliGemmaConfig and GenerationConfig: a checkpoint's settings with the defaults of transformers filled in."""
from __future__ import annotations

import ctypes
import json
import os
from typing import Any, Iterator

from . import _hub, _library as c

_ATTRIBUTE_MAP = {"image_token_id": "image_token_index"}  # as transformers' PaliGemmaConfig has it
_ALIASES = {**_ATTRIBUTE_MAP, "name_or_path": "_name_or_path", "torch_dtype": "dtype"}


# Settings that change nothing of what a model computes, here as in transformers once it is open; generate() goes by
# its generation_config.
_WITHOUT_EFFECT = {
    "use_cache", "return_dict", "dtype", "torch_dtype", "architectures", "transformers_version", "name_or_path",
    "_name_or_path", "bos_token_id", "eos_token_id", "pad_token_id", "attention_dropout", "hidden_dropout",
    "hidden_dropout_prob", "initializer_range", "chunk_size_feed_forward", "is_encoder_decoder", "id2label", "label2id",
    "num_labels", "problem_type", "pretraining_tp", "max_length", "max_new_tokens",
}
# What transformers' to_diff_dict() leaves out.
_DEFAULTS = {"output_hidden_states": False, "output_attentions": False, "return_dict": True, "dtype": None,
             "architectures": None, "chunk_size_feed_forward": 0, "is_encoder_decoder": False, "problem_type": None,
             "id2label": {"0": "LABEL_0", "1": "LABEL_1"}, "label2id": {"LABEL_0": 0, "LABEL_1": 1}}


def _plain(value: Any) -> Any:
    """A copy that JSON can hold."""
    if isinstance(value, Config):
        return value.to_dict()
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value).removeprefix("torch.")


class Config:
    """A JSON object whose keys are attributes; nested objects are Configs.

    Those of an open model take changes that have no effect, such as use_cache, and refuse others; by itself a config
    may be changed and saved.
    """

    def __init__(self, values: dict[str, Any], of_model: bool = False) -> None:
        wrapped = {k: Config(v, of_model) if isinstance(v, dict) else v for k, v in values.items()}
        object.__setattr__(self, "_values", wrapped)
        object.__setattr__(self, "_of_model", of_model)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_values":
            raise AttributeError(name)
        name = self._key(name)
        try:
            return self._values[name]
        except KeyError:
            raise AttributeError(f"the config has no {name!r}") from None

    def _key(self, name: str) -> str:
        return name if name in self._values else _ALIASES.get(name, name)

    def __setattr__(self, name: str, value: Any) -> None:
        key = self._key(name)
        if self._of_model and name.lstrip("_") == "attn_implementation":
            raise AttributeError(f"the config cannot be changed ({name!r}): it is an argument of from_pretrained()")
        if self._of_model and key in self._values and name not in _WITHOUT_EFFECT and self._values[key] != value:
            raise AttributeError(f"the config cannot be changed ({name!r}), as the model was opened with it; "
                                 "AutoConfig.from_pretrained() gives one that can be changed and saved")
        self._values[key] = Config(value, self._of_model) if isinstance(value, dict) else value

    def __reduce__(self) -> Any:
        return _remade, (type(self), self.to_dict(), self._of_model)

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
        if not isinstance(other, Config):
            return NotImplemented
        one, two = self.to_dict(), other.to_dict()
        return {**one, "_name_or_path": None} == {**two, "_name_or_path": None}  # wherever they were read from

    def __repr__(self) -> str:
        return f"{type(self).__name__} {json.dumps(self.to_dict(), indent=2)}"

    def get(self, name: str, default: Any = None) -> Any:
        return getattr(self, name, default)

    def update(self, config_dict: dict[str, Any]) -> None:
        """Sets each attribute."""
        for name, value in config_dict.items():
            setattr(self, name, value)

    def to_dict(self) -> dict[str, Any]:
        """All fields, as JSON can hold them; a copy."""
        return {name: _plain(value) for name, value in self._values.items()}

    def to_diff_dict(self) -> dict[str, Any]:
        """Without the fields of no model in particular that have their defaults."""
        kept = {name: value for name, value in self._values.items()
                if name != "_name_or_path" and (name not in _DEFAULTS or _plain(value) != _DEFAULTS[name])}
        return {name: value.to_diff_dict() if isinstance(value, Config) else _plain(value)
                for name, value in kept.items()}

    def to_json_string(self, use_diff: bool = True) -> str:
        return json.dumps(self.to_diff_dict() if use_diff else self.to_dict(), indent=2, sort_keys=True) + "\n"

    def to_json_file(self, json_file_path: str | os.PathLike[str], use_diff: bool = True) -> None:
        with open(json_file_path, "w", encoding="utf-8") as file:
            file.write(self.to_json_string(use_diff))


def _remade(cls: type[Config], values: dict[str, Any], of_model: bool) -> Config:
    return cls(values, of_model)


class PaliGemmaConfig(Config):
    """The whole config.json, defaults filled in: config.text_config.hidden_size, config.vision_config.image_size."""

    attribute_map = dict(_ATTRIBUTE_MAP)
    keys_to_ignore_at_inference = ["past_key_values"]
    use_return_dict = property(lambda self: self._values.get("return_dict", True), doc="As return_dict.")

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike[str], *, revision: str | None = None,
                        cache_dir: str | os.PathLike[str] | None = None, subfolder: str = "",
                        **kwargs: Any) -> PaliGemmaConfig:
        """The config of a checkpoint folder, of one with config.json alone, of a cached model id or of a config.json.

        kwargs: fields in place of those of the file; other arguments of transformers' from_pretrained() are taken where
        they change nothing and refused with a ValueError where they would. No weights are opened.
        """
        name = os.fspath(pretrained_model_name_or_path)
        if os.path.isfile(name):
            if os.path.basename(name) != "config.json":
                raise ValueError(f"{name}: expected a folder or a file config.json")
            name = os.path.dirname(os.path.abspath(name))
        folder = _hub.find(name, revision, cache_dir, subfolder)
        made = cls(json.loads(c.copied_text(c.lib.pg_checkpoint_get_config, os.fsencode(folder))))
        made._values["_name_or_path"] = os.fspath(pretrained_model_name_or_path)
        for field in [field for field in kwargs if field in made]:
            setattr(made, field, kwargs.pop(field))
        _hub.check_arguments(kwargs)
        return made

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any]) -> PaliGemmaConfig:
        """Of what to_dict() gave."""
        return cls(config_dict)

    @classmethod
    def _of_handle(cls, pointer: ctypes.c_void_p, name: str) -> PaliGemmaConfig:
        values = json.loads(c.copied_text(c.lib.pg_model_get_config, pointer, b""))
        return cls({**values, "_name_or_path": name}, of_model=True)

    def save_pretrained(self, save_directory: str | os.PathLike[str], push_to_hub: bool = False, **unused: Any) -> None:
        """Writes config.json."""
        if push_to_hub:
            self.push_to_hub()
        if os.path.isfile(save_directory):
            raise AssertionError(f"Provided path ({save_directory}) should be a directory, not a file")
        os.makedirs(save_directory, exist_ok=True)
        self.to_json_file(os.path.join(save_directory, "config.json"))

    def push_to_hub(self, *unused: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(_hub.NO_PUSH)

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

    def to_diff_dict(self) -> dict[str, Any]:
        """What differs from the defaults."""
        defaults = GenerationConfig().__dict__
        return {name: value for name, value in self.__dict__.items() if name not in defaults or value != defaults[name]}

    def __repr__(self) -> str:
        return f"GenerationConfig {json.dumps(self.to_dict(), indent=2, sort_keys=True, default=str)}"
