# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""PeftModel and PeftConfig, in the shape of PEFT's: adapters on an opened model.

    model = PaliGemmaForConditionalGeneration.from_pretrained(base_id)
    model = PeftModel.from_pretrained(model, adapter_id)
    output = model.generate(**inputs, max_new_tokens=20)
"""
from __future__ import annotations

import os
import warnings
from contextlib import AbstractContextManager
from typing import Any, Sequence

from ._adapter_files import PeftConfig
from ._adapters import AdapterMethods, save_adapters
from ._hub import OF_FILES
from ._save import check_arguments
from .outputs import ModelOutput

__all__ = ["PeftConfig", "PeftModel"]

# What PEFT's from_pretrained() and load_adapter() take, and what changes nothing here.
_HARMLESS = {"autocast_adapter_dtype", "ephemeral_gpu_offload", "offload_dir", "offload_index"}


def _load(model: AdapterMethods, path: Any, name: str, arguments: dict[str, Any], active: list[str] | None) -> None:
    arguments = {key: value for key, value in arguments.items() if key not in _HARMLESS}
    model.to(arguments.pop("torch_device", None))  # type: ignore[attr-defined]  # raises for another than the CPU
    of_files = {key: arguments.pop(key, None) for key in OF_FILES}
    model._load(path, name, of_files, arguments, True, active)


class PeftModel:
    """A model with adapters, as PEFT has it: from_pretrained() makes one. What it has not itself, such as generate(),
    stream() and config, is the model's. As in PEFT the model that was given is changed, and this is another name for it."""

    def __init__(self, model: AdapterMethods) -> None:
        """model: one that has adapters, or not yet."""
        if not isinstance(model, AdapterMethods):
            raise TypeError(f"model is a {type(model).__module__}.{type(model).__name__}, expected a model of paligemma, "
                            "such as PaliGemmaForConditionalGeneration.from_pretrained() gives")
        self._model: Any = model

    @classmethod
    def from_pretrained(cls, model: Any, model_id: str | os.PathLike[str], adapter_name: str = "default",
                        is_trainable: bool = False, config: None = None, **kwargs: Any) -> PeftModel:
        """Adds an adapter that PEFT saved to `model`, and makes it the one in use.

        model: a PaliGemmaForConditionalGeneration, a ColPaliForRetrieval or a PeftModel; model_id: a folder, or an id in
        the local Hugging Face cache; adapter_name: in place of the adapter that has the name, if one has. kwargs:
        revision, cache_dir, subfolder, and what changes nothing (torch_device="cpu", autocast_adapter_dtype, ...).
        Raises FileNotFoundError, OSError (damaged, or of another base: the shapes differ), NotImplementedError (another
        kind of adapter, is_trainable=True), ValueError (config, and arguments that are not followed).
        """
        if config is not None:
            raise ValueError("from_pretrained() got config: the config is that of the adapter's folder")
        made = cls(model.get_base_model() if isinstance(model, PeftModel) else model)
        _load(made._model, model_id, adapter_name, {**kwargs, "is_trainable": is_trainable}, [adapter_name])
        return made

    def load_adapter(self, model_id: str | os.PathLike[str], adapter_name: str, is_trainable: bool = False,
                     **kwargs: Any) -> ModelOutput:
        """Adds a further adapter, or one in place of that of the name; set_adapter() brings it into use. kwargs and
        errors: as from_pretrained()'s. -> .missing_keys and .unexpected_keys, always empty: what does not fit raises."""
        _load(self._model, model_id, adapter_name, {**kwargs, "is_trainable": is_trainable}, None)
        return ModelOutput(missing_keys=[], unexpected_keys=[])

    # -- which adapters are in use

    @property
    def peft_config(self) -> dict[str, PeftConfig]:
        """{name: adapter_config.json}; {} without adapters."""
        return getattr(self._model, "peft_config", {})

    @property
    def active_adapters(self) -> list[str]:
        """The names of the adapters in use, those that are switched off included."""
        return list(self._model._adapters.active)

    @property
    def active_adapter(self) -> str | list[str]:
        """The name of the adapter in use; a list of them, unless it is one."""
        active = self.active_adapters
        return active[0] if len(active) == 1 else active

    @property
    def active_peft_config(self) -> PeftConfig:
        return self.peft_config[self.active_adapters[0]]

    def set_adapter(self, adapter_name: str | Sequence[str], inference_mode: bool = False) -> None:
        """Which adapter is in use: a name, or a list of names, what they give is added up (PEFT takes lists in
        base_model.set_adapter() alone). inference_mode changes nothing. Raises ValueError (no such adapter)."""
        if isinstance(adapter_name, str) and adapter_name not in self.peft_config:
            raise ValueError(f"Adapter {adapter_name} not found.")
        self._model.set_adapter(adapter_name)

    def disable_adapter(self) -> AbstractContextManager[None]:
        """`with model.disable_adapter():` the base model as it is, for all threads."""
        return self._model.disable_adapter()

    def disable_adapter_layers(self) -> None:
        """The base model as it is, until enable_adapter_layers()."""
        self._model.disable_adapters()

    def enable_adapter_layers(self) -> None:
        self._model.enable_adapters()

    def delete_adapter(self, adapter_name: str) -> None:
        """Removes an adapter; see the model's delete_adapter(). Raises ValueError (no such adapter)."""
        if adapter_name not in self.peft_config:
            raise ValueError(f"Adapter {adapter_name} does not exist")
        self._model.delete_adapter(adapter_name)

    # -- the base

    @property
    def base_model(self) -> PeftModel:
        """In PEFT the object between this one and the model. All that it is asked for is here: itself."""
        return self

    @property
    def model(self) -> Any:
        """get_base_model(); PEFT's model.base_model.model."""
        return self._model

    def get_base_model(self) -> Any:
        """The model that was given, which has the adapters, too."""
        return self._model

    def unload(self) -> Any:
        """Removes all adapters. -> the base model."""
        if self.peft_config:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._model.delete_adapter(list(self.peft_config))
        return self._model

    def merge_and_unload(self, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError("merge_and_unload(): the weights of an opened model are mapped and stay as they are, and "
                                  "an adapter costs little beside them: go on without merging. For a merged checkpoint: "
                                  "paligemma.convert(model, out, \"stored\", adapters=...)")

    merge_adapter = unmerge_adapter = merge_and_unload

    # -- saving

    def save_pretrained(self, save_directory: str | os.PathLike[str], safe_serialization: bool = True,
                        selected_adapters: Sequence[str] | None = None, save_embedding_layers: Any = "auto",
                        is_main_process: bool = True, **kwargs: Any) -> None:
        """Copies the adapters' files as PEFT lays them out: those of "default" to the folder, those of others to folders
        of their names in it. selected_adapters: names, all unless given. Raises ValueError (no such adapter),
        NotImplementedError (a weighted adapter, which has no files; other formats)."""
        check_arguments(save_directory, kwargs)
        if not safe_serialization:
            raise NotImplementedError("safe_serialization=False: adapters are saved as safetensors")
        if os.path.isfile(save_directory):
            raise ValueError(f"Provided path ({os.fsdecode(save_directory)}) should be a directory, not a file")
        names = list(self.peft_config) if selected_adapters is None else list(selected_adapters)
        if any(name not in self.peft_config for name in names):
            raise ValueError("You passed an invalid `selected_adapters` arguments, current supported adapter names are "
                             f"{list(self.peft_config)} - got {names}.")
        if is_main_process:
            save_adapters(self._model, os.fsdecode(save_directory), names)

    def __reduce__(self) -> Any:
        """A copy has a copy of the model, with its adapters."""
        return type(self), (self._model,)

    # -- the model's

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._model.forward(*args, **kwargs)

    def __enter__(self) -> PeftModel:
        self._model.__enter__()
        return self

    def __exit__(self, *unused: Any) -> None:
        self._model.close()

    def __getattr__(self, name: str) -> Any:
        if name == "_model":  # before __init__, as copy and pickle look
            raise AttributeError(name)
        found = getattr(self._model, name)
        if name not in _RETURN_ITSELF:
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            found(*args, **kwargs)
            return self

        return call

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "generation_config":
            self._model.generation_config = value
        else:
            super().__setattr__(name, value)


_RETURN_ITSELF = {"eval", "train", "to", "cpu", "cuda", "float", "half", "bfloat16", "requires_grad_", "tie_weights"}
