# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""The files of an adapter: adapter_config.json, the base model that it names, and copies of them."""
from __future__ import annotations

import json
import os
import shutil
from contextlib import contextmanager
from typing import Any, Iterator

from . import _hub
from ._replacing import replacing

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_OF_A_MODEL = ("model.safetensors", "model.safetensors.index.json")


class PeftConfig(dict):  # type: ignore[type-arg]
    """An adapter_config.json: config.r, config["r"], config.base_model_name_or_path, ... as the file has them."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike[str], *, revision: str | None = None,
                        cache_dir: str | os.PathLike[str] | None = None, subfolder: str | None = None,
                        **kwargs: Any) -> PeftConfig:
        """Of an adapter's folder, or of an id in the local Hugging Face cache. kwargs: arguments that change nothing.
        Raises FileNotFoundError, OSError (no JSON object)."""
        _hub.check_arguments(kwargs)
        return read_config(_hub.find(pretrained_model_name_or_path, revision, cache_dir, subfolder or ""))

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"the adapter's config has no {name!r}") from None

    def to_dict(self) -> dict[str, Any]:
        return dict(self)


def is_adapter(folder: str) -> bool:
    return os.path.isfile(os.path.join(folder, CONFIG))


def read_config(folder: str) -> PeftConfig:
    path = os.path.join(folder, CONFIG)
    try:
        with open(path, encoding="utf-8") as file:
            values = json.load(file)
    except FileNotFoundError:
        raise FileNotFoundError(f"{folder}: found no {CONFIG}, expected an adapter as PEFT saves it") from None
    except ValueError as error:
        raise OSError(f"{path}: {error}") from None
    if not isinstance(values, dict):
        raise OSError(f"{path}: found a {type(values).__name__}, expected an object")
    return PeftConfig(values)


def base_and_adapter(name: str | os.PathLike[str], of_files: dict[str, Any],
                     of_adapter: dict[str, Any]) -> tuple[str, str | None]:
    """What from_pretrained(name) is to open: the folder of a model, and that of the adapter to add to it, None for none.
    As in transformers, an adapter lies on the model in its own folder, if that is a path and has one, and otherwise on
    its base_model_name_or_path: a folder, or an id in the cache, of the revision that the adapter's config names.

    of_files: revision, cache_dir and subfolder; of_adapter: those of the adapter's files, where they are others.
    Raises FileNotFoundError where the base is not there."""
    own = _hub.find(name, *map(of_files.get, _hub.OF_FILES))
    folder = _hub.find(name, *map({**of_files, **of_adapter}.get, _hub.OF_FILES)) if of_adapter else own
    if not is_adapter(folder):
        return own, None
    has = {file for file in ("config.json", *_OF_A_MODEL) if os.path.isfile(os.path.join(own, file))}
    if os.path.isdir(name) and "config.json" in has and len(has) > 1:
        return own, folder
    config = read_config(folder)
    base = config.get("base_model_name_or_path")
    advice = ("open its base yourself, model = PaliGemmaForConditionalGeneration.from_pretrained(...), and add the "
              f"adapter to it, model.load_adapter({os.fsdecode(name)!r})")
    if not isinstance(base, str) or not base:
        raise FileNotFoundError(f"{os.fsdecode(name)} is an adapter, and its {CONFIG} has no base_model_name_or_path: "
                                f"{advice}")
    try:
        return _hub.find(base, config.get("revision"), of_files["cache_dir"]), folder
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{os.fsdecode(name)} is an adapter of the base model {base!r}, which is not there: "
                                f"{advice}, or write its path into base_model_name_or_path of {CONFIG}. ({error})"
                                ) from None


@contextmanager
def naming_the_base(name: str | os.PathLike[str], folder: str, what: str) -> Iterator[None]:
    """Opens `what`, such as "a processor": where an adapter's folder has none, the error names the base, which has it."""
    try:
        yield
    except FileNotFoundError as error:
        if not is_adapter(folder):
            raise
        base = read_config(folder).get("base_model_name_or_path")
        raise FileNotFoundError(f"{os.fsdecode(name)} is an adapter without the files of {what}: open that of its base "
                                f"model, from_pretrained({base!r}). ({error})") from None


def save_adapter(folder: str, out: str) -> None:
    """Copies the adapter's files; each is there whole or not at all."""
    os.makedirs(out, exist_ok=True)
    for name in (WEIGHTS, CONFIG):  # nothing is an adapter without the second
        source, to = os.path.join(folder, name), os.path.join(out, name)
        if os.path.exists(to) and os.path.samefile(source, to):
            continue
        with replacing(to) as temporary:
            shutil.copyfile(source, temporary)
