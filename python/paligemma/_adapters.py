# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""Adapters of a model: which are loaded, which are in use, and transformers' calls that change it.

The handle of a model, `_handle`, is that of its base or one with adapters added (pg_model_adapt()). A change puts
another in its place; the one before stays open for whoever uses it, and goes with the last of them.
"""
from __future__ import annotations

import ctypes
import functools
import inspect
import os
import threading
import warnings
import weakref
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Callable, Iterator, Sequence

from . import _adapter_rows, _hub, _library as c
from ._adapter_files import PeftConfig, read_config, save_adapter
from ._adapter_rows import BASE
from ._handle import Handle
from ._run import CancelFlag, interruptible
from .outputs import ModelOutput

_NONE = "No adapter loaded. Please load an adapter first."


class Adapter:
    """A pg_adapter, and where its files lie."""

    def __init__(self, base: Handle, folder: str, n_threads: int) -> None:
        self.folder, self.handle = os.path.abspath(folder), Handle("adapter")
        cancel = CancelFlag()

        def work() -> None:
            with base.use() as model, cancel.use() as flag:
                options = c.AdapterOptions(n_threads=n_threads, cancel=flag)
                c.check(c.lib.pg_adapter_open(model, os.fsencode(self.folder), ctypes.byref(options),
                                              ctypes.byref(self.handle.pointer)))

        interruptible(work, cancel)


@dataclass
class Entry:
    """What a name stands for: one adapter, or the weighted sum of several."""

    config: PeftConfig
    parts: list[tuple[Adapter, float]]
    folder: str | None = None  # of its files; a weighted sum has none


class Adapters:
    """The adapters of one model."""

    def __init__(self, base: Handle) -> None:
        self.base = base
        self.entries: dict[str, Entry] = {}
        self.active: list[str] = []
        self.enabled = True
        self.lock = threading.RLock()
        self._made: weakref.WeakSet[Handle] = weakref.WeakSet()  # all that close() is to close
        self._alone: dict[str, Handle] = {}  # of one adapter each, for switching between them

    def handle_of(self, names: Sequence[str], entries: dict[str, Entry] | None = None) -> Handle:
        """The base with these adapters added; none of them: the base. entries: in place of those that are loaded."""
        with self.lock:
            if entries is None or all(entries[name] is self.entries.get(name) for name in names):
                if len(names) == 1 and names[0] in self._alone:
                    return self._alone[names[0]]
            weights: dict[Adapter, float] = {}
            for name in names:
                for adapter, weight in (entries or self.entries)[name].parts:
                    weights[adapter] = weights.get(adapter, 0.0) + weight
            if not weights:
                return self.base
            made = Handle("model")
            with ExitStack() as stack:
                model = stack.enter_context(self.base.use())
                pointers = [stack.enter_context(adapter.handle.use()) for adapter in weights]
                n = len(pointers)
                c.check(c.lib.pg_model_adapt(model, (ctypes.c_void_p * n)(*[pointer.value for pointer in pointers]),
                                             (c.f32 * n)(*weights.values()), n, ctypes.byref(made.pointer)))
            self._made.add(made)
            return made

    def change(self, entries: dict[str, Entry] | None = None, active: Sequence[str] | None = None,
               enabled: bool | None = None) -> Handle:
        """What is given takes the place of what is; the handle to use from now on. What fails changes nothing."""
        with self.lock:
            self.base.check_open()
            entries = self.entries if entries is None else entries
            active = self.active if active is None else list(active)
            enabled = (self.enabled if enabled is None else enabled) or not entries
            handle = self.handle_of(active, entries) if enabled else self.base
            same = {name: made for name, made in self._alone.items() if entries.get(name) is self.entries.get(name)}
            self.entries, self.active, self.enabled, self._alone = entries, active, enabled, same
            if enabled and len(active) == 1:
                self._alone[active[0]] = handle
            return handle

    def of_row(self, name: str) -> Handle:
        """For a row of a batch: PEFT's adapter_names."""
        with self.lock:
            if name == BASE or not self.enabled:
                return self.base
            self._alone[name] = self.handle_of([name])
            return self._alone[name]

    def close(self) -> None:
        with self.lock:
            for made in list(self._made):
                made.close()
            for entry in self.entries.values():
                for adapter, _ in entry.parts:
                    adapter.handle.close()
            self.base.close()

    def recipe(self) -> dict[str, Any] | None:
        """All of it for another process; None: there are no adapters."""
        with self.lock:
            return {"active": self.active, "enabled": self.enabled, "entries": {
                name: (dict(entry.config), [(adapter.folder, weight) for adapter, weight in entry.parts], entry.folder)
                for name, entry in self.entries.items()}} if self.entries else None

    def restored(self, recipe: dict[str, Any], n_threads: int) -> Handle:
        """Opens again what recipe() told of; the handle to use."""
        opened: dict[str, Adapter] = {}
        entries = {}
        for name, (config, parts, folder) in recipe["entries"].items():
            for path, _ in parts:
                if path not in opened:
                    opened[path] = Adapter(self.base, path, n_threads)
            entries[name] = Entry(PeftConfig(config), [(opened[path], weight) for path, weight in parts], folder)
        return self.change(entries, recipe["active"], recipe["enabled"])


def one_handle(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method of the model all of whose steps take the handle that it began with. Where it has an argument
    adapter_names, that is followed here: the method itself never sees it."""
    signature = inspect.signature(method)

    @functools.wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        names = kwargs.pop("adapter_names", None) if "adapter_names" in signature.parameters else None
        if names is None:
            return method(self._with_handle(), *args, **kwargs)
        return _adapter_rows.run(self, method, names, signature.bind(self, *args, **kwargs).arguments)

    return call


def _names_of(names: str | Sequence[str]) -> list[str]:
    return [names] if isinstance(names, str) else list(names)


def _left_out(config: PeftConfig) -> list[str]:
    """What of an adapter PEFT leaves out of a weighted one, without a word."""
    return [name for name in ("use_dora", "lora_bias", "modules_to_save") if config.get(name)] + (
        ["bias"] if config.get("bias", "none") != "none" else [])


def _weighted_config(configs: list[PeftConfig]) -> PeftConfig:
    """PEFT's config of a weighted adapter: the first one's, with the ranks and modules of all."""
    rank = sum(max([config.get("r", 8), *(config.get("rank_pattern") or {}).values()]) for config in configs)
    targets = [config.get("target_modules") for config in configs]
    if all(isinstance(target, list) for target in targets):
        targets = sorted({name for target in targets for name in target})
    elif all(isinstance(target, str) for target in targets):
        targets = "|".join(f"({target})" for target in targets)
    return PeftConfig({**configs[0], "r": rank, "lora_alpha": rank, "target_modules": targets, "use_rslora": False,
                       "alpha_pattern": {}, "rank_pattern": {}})


class AdapterMethods:
    """The part of PaliGemmaForConditionalGeneration that transformers' PeftAdapterMixin has."""

    _handle: Handle
    _row_handles: list[Handle] | None = None  # of a call with adapter_names
    _adapters: Adapters
    n_threads: int
    generation_config: Any

    def load_adapter(self, peft_model_id: str | os.PathLike[str] | None = None, adapter_name: str | None = None,
                     peft_config: None = None, adapter_state_dict: None = None, low_cpu_mem_usage: bool = False,
                     is_trainable: bool = False, hotswap: bool | str = "auto", local_files_only: bool = False,
                     adapter_kwargs: dict[str, Any] | None = None, *, revision: str | None = None,
                     cache_dir: str | os.PathLike[str] | None = None, subfolder: str | None = None,
                     **kwargs: Any) -> ModelOutput:
        """Opens an adapter that PEFT saved, and makes it the one in use: LoRA and DoRA, of any rank and on any layers,
        with biases and modules that were saved whole. The base's weights are shared and stay as they are.

        peft_model_id: a folder, or an id in the local Hugging Face cache; adapter_name: a str, "default" unless given;
        revision, cache_dir, subfolder: of an id, also in adapter_kwargs; hotswap=True: in place of the adapter that has
        the name. low_cpu_mem_usage, local_files_only, token, ...: taken, and change nothing.
        -> .missing_keys, .unexpected_keys, .mismatched_keys, .error_msgs: always empty, what does not fit raises.
        Raises FileNotFoundError, OSError (damaged, or of another base: the shapes differ), NotImplementedError (another
        kind of adapter, is_trainable, peft_config, adapter_state_dict), ValueError (the name is taken).
        """
        name, replaces = "default" if adapter_name is None else adapter_name, hotswap is True
        for argument, value in (("peft_config", peft_config), ("adapter_state_dict", adapter_state_dict)):
            if value is not None:
                raise NotImplementedError(f"load_adapter() got {argument}: adapters are read from files, save it with "
                                          "PEFT's save_pretrained(folder) and give the folder")
        if peft_model_id is None:
            raise ValueError("You should either pass a `peft_model_id` or a `peft_config` and `adapter_state_dict` to "
                             "load an adapter.")
        if replaces and name not in self._adapters.entries:
            raise ValueError("To hotswap an adapter, there must already be an existing adapter with the same adapter "
                             "name.")
        of_files = {"revision": revision, "cache_dir": cache_dir, "subfolder": subfolder, **(adapter_kwargs or {})}
        self._load(peft_model_id, name, of_files, {**kwargs, "is_trainable": is_trainable}, replaces, [name])
        return ModelOutput(missing_keys=set(), unexpected_keys=set(), mismatched_keys=set(), error_msgs=[])

    def _load(self, path: str | os.PathLike[str], name: str, of_files: dict[str, Any], others: dict[str, Any],
              replaces: bool, active: list[str] | None) -> None:
        """of_files: revision, cache_dir, subfolder and what changes nothing, as `others`. replaces: whether the name may
        be taken; active: what is in use then, None: what was."""
        if others.pop("is_trainable", False):
            raise NotImplementedError("is_trainable=True: a loaded adapter is run as it is; paligemma.Trainer(model) trains "
                                      "one, and Trainer.resume() goes on with what it saved")
        if not isinstance(name, str):
            raise TypeError(f"adapter_name is a {type(name).__name__}, expected a str")
        if name == BASE:
            raise ValueError(f"adapter_name is {BASE!r}, which is the base model in adapter_names")
        of_files = dict(of_files)
        found = {key: of_files.pop(key, None) for key in _hub.OF_FILES}
        _hub.check_arguments({**of_files, **others}, "load_adapter()")
        self._check_free(name, replaces)
        folder = _hub.find(path, found["revision"], found["cache_dir"], found["subfolder"] or "")
        config = read_config(folder)
        adapter = Adapter(self._adapters.base, folder, self.n_threads)
        with self._adapters.lock:
            self._check_free(name, replaces)
            entry = Entry(config, [(adapter, 1.0)], adapter.folder)
            self._change({**self._adapters.entries, name: entry}, active)

    def _change(self, entries: dict[str, Entry] | None = None, active: Sequence[str] | None = None,
                enabled: bool | None = None) -> None:
        with self._adapters.lock:
            self._handle = self._adapters.change(entries, active, enabled)

    def _check_free(self, name: str, replaces: bool) -> None:
        if name in self._adapters.entries and not replaces:
            raise ValueError(f"Adapter with name {name} already exists. Please use a different name.")

    def _check_loaded(self) -> None:
        if not self._adapters.entries:
            raise ValueError(_NONE)

    @property
    def peft_config(self) -> dict[str, PeftConfig]:
        """{name: adapter_config.json} of the loaded adapters; as in transformers an AttributeError without any."""
        if not self._adapters.entries:
            raise AttributeError(_NONE)
        return {name: entry.config for name, entry in self._adapters.entries.items()}

    def set_adapter(self, adapter_name: str | Sequence[str]) -> None:
        """Which adapters are in use: a name, or a list of names, what they give is added up; []: none. Calls under way
        go on with those that they began with. Raises ValueError (no such adapter), NotImplementedError (two of them
        replace the same module). Of adapters with use_dora the order counts, as in PEFT."""
        self._check_loaded()
        names, loaded = _names_of(adapter_name), self._adapters.entries
        unknown = [name for name in names if name not in loaded]
        if unknown and isinstance(adapter_name, str):
            raise ValueError(f"Adapter with name {adapter_name} not found. Please pass the correct adapter name among "
                             f"{list(loaded)}")
        if unknown:
            raise ValueError(f"Following adapter(s) could not be found: {', '.join(map(str, unknown))}. Make sure you "
                             f"are passing the correct adapter name(s). current loaded adapters are: {list(loaded)}")
        self._change(active=names)

    def active_adapters(self) -> list[str]:
        """The names of the adapters in use, those that disable_adapters() switched off included."""
        self._check_loaded()
        return list(self._adapters.active)

    def disable_adapters(self) -> None:
        """The base model as it is, until enable_adapters()."""
        self._check_loaded()
        self._change(enabled=False)

    def enable_adapters(self) -> None:
        """Ends disable_adapters()."""
        self._check_loaded()
        self._change(enabled=True)

    @contextmanager
    def disable_adapter(self) -> Iterator[None]:
        """`with model.disable_adapter():` the base model as it is, for all threads."""
        was = self._adapters.enabled
        self.disable_adapters()
        try:
            yield
        finally:
            with self._adapters.lock:
                if was and not self._adapters.base.closed:
                    self._change(enabled=True)

    def delete_adapter(self, adapter_names: str | Sequence[str]) -> None:
        """Removes adapters by name, one or a list. When none in use is left, the alphabetically first of the others
        is in use, with a warning. Raises ValueError (no such adapter)."""
        self._check_loaded()
        names = _names_of(adapter_names)
        missing = [name for name in names if name not in self._adapters.entries]
        if missing:
            raise ValueError("The following adapter(s) are not present and cannot be deleted: "
                             f"{', '.join(map(str, missing))}")
        with self._adapters.lock:
            entries = {name: entry for name, entry in self._adapters.entries.items() if name not in names}
            was = self._adapters.active
            active = [name for name in was if name not in names]
            if was and entries and not active:
                active = [min(entries)]
                warnings.warn(f"Adapter {was[-1]} was active which is now deleted. Setting active adapter to "
                              f"{active[0]}.", stacklevel=2)
            self._change(entries, active)

    def add_weighted_adapter(self, adapters: Sequence[str], weights: Sequence[float], adapter_name: str,
                             combination_type: str = "cat", **unused: Any) -> None:
        """A new adapter that gives the sum of weights[i] times what adapters[i] gives: PEFT's "cat". It takes the sum of
        their ranks; set_adapter(adapter_name) brings it into use. A name that is taken is left as it is, with a warning,
        as in PEFT. unused: what the other kinds of PEFT ask for (svd_rank, density, ...).

        Raises ValueError (no such adapter, other numbers of weights), NotImplementedError (another combination_type, or
        adapters of which PEFT leaves a part out)."""
        loaded = self._adapters.entries
        if adapter_name in loaded:
            warnings.warn(f"add_weighted_adapter() does nothing: there is an adapter {adapter_name!r}; delete_adapter() "
                          "it first", stacklevel=2)
            return
        adapters, weights = list(adapters), [float(weight) for weight in weights]
        for name in adapters:
            if name not in loaded:
                raise ValueError(f"Adapter {name} does not exist")
        if not adapters or len(adapters) != len(weights):
            raise ValueError(f"found {len(adapters)} adapters and {len(weights)} weights, expected as many, 1 or more")
        if not isinstance(adapter_name, str) or adapter_name == BASE:
            raise ValueError(f"adapter_name is {adapter_name!r}, expected a str that is not {BASE!r}")
        if combination_type != "cat" and len(adapters) > 1:
            raise NotImplementedError(f"combination_type is {combination_type!r}, expected \"cat\", which gives the "
                                      "weighted sum of what the adapters give (\"svd\" comes near that sum with a lower "
                                      "rank, the others compute something else); or add_weighted_adapter() and "
                                      "save_pretrained() of PEFT, and load_adapter() here")
        for name in adapters:
            left_out = _left_out(loaded[name].config)
            if left_out:
                raise NotImplementedError(f"adapter {name!r} has {', '.join(left_out)}, which PEFT leaves out of a "
                                          f"weighted adapter; set_adapter({adapters!r}) adds all of them up")
        if loaded[adapters[0]].config.get("use_rslora"):
            warnings.warn(f"{adapters[0]!r}, the first, has use_rslora: PEFT 0.21 multiplies the weighted sum by the "
                          "square root of its rank; this is the sum itself", stacklevel=2)
        with self._adapters.lock:
            parts = [(adapter, weight * w) for name, weight in zip(adapters, weights)
                     for adapter, w in loaded[name].parts]
            entry = Entry(_weighted_config([loaded[name].config for name in adapters]), parts)
            entries = {**self._adapters.entries, adapter_name: entry}
            self._adapters.handle_of([adapter_name], entries)  # raises what would raise when it is used
            self._change(entries)

    def add_adapter(self, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError("add_adapter() begins an adapter to be trained: paligemma.Trainer(model, r=8, ...) does, "
                                  "and load_adapter() opens one that was")

    def get_adapter_state_dict(self, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError("the adapter's tensors are in the C library; they are those of its "
                                  "adapter_model.safetensors")

    # -- for the model

    def _with_handle(self, handle: Handle | None = None) -> Any:
        """The same model, with this handle for good; None: with the one that it has now."""
        view = object.__new__(type(self))
        vars(view).update(vars(self))
        if handle is not None:
            view._handle = handle
        return view

    def _saved_adapter(self) -> str | None:
        """The folder of the adapter that save_pretrained() is to write in place of the model, as in transformers; None:
        there are no adapters."""
        if not self._adapters.entries:
            return None
        active = self._adapters.active
        if len(active) != 1:
            raise ValueError(("Multiple active adapters detected, saving multiple active adapters is not supported yet."
                              if active else "No adapter is active.") + " You can save adapters separately one by one by "
                             "iteratively calling `model.set_adapter(adapter_name)` then `model.save_pretrained(...)`")
        return self._folder_of_adapter(active[0])

    def _folder_of_adapter(self, name: str) -> str:
        folder = self._adapters.entries[name].folder
        if folder is None:
            raise NotImplementedError(f"adapter {name!r} is a weighted one and has no files: save those that it was made "
                                      "from, and call add_weighted_adapter() where they are opened")
        return folder


def save_adapters(model: AdapterMethods, out: str, names: Sequence[str]) -> None:
    """As PeftModel.save_pretrained(): the files of "default" to `out`, those of others to folders of their names."""
    folders = {name: model._folder_of_adapter(name) for name in names}
    for name, folder in folders.items():
        save_adapter(folder, out if name == "default" else os.path.join(out, name))
