# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""save_pretrained() of a model: the files that it was opened from, copied; generation_config.json as it is set now."""
from __future__ import annotations

import json
import os
import re
import shutil
from typing import Any, Iterator

from ._convert import convert

_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"
_OF_WEIGHTS = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?")
_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def n_bytes(size: int | str) -> int:
    """max_shard_size as bytes: 5000000000 or "5GB"."""
    found = re.fullmatch(r"\s*(\d+)\s*([KMG]?I?B?)\s*", str(size).upper())
    if isinstance(size, bool) or not found or found[2] not in _UNITS:
        raise ValueError(f"max_shard_size is {size!r}, expected bytes, or a text such as \"5GB\"")
    return int(found[1]) * _UNITS[found[2]]


def check_arguments(save_directory: Any, arguments: dict[str, Any]) -> None:
    """What save_pretrained() is given beside the folder and max_shard_size."""
    if arguments.pop("push_to_hub", False):
        raise NotImplementedError(f"push_to_hub: libpaligemma never uses the network; save_pretrained() the folder and "
                                  f"upload it with huggingface_hub.upload_folder(folder_path={str(save_directory)!r})")
    for name in ("state_dict", "variant", "distributed_checkpoint"):
        if arguments.pop(name, None):
            raise NotImplementedError(f"save_pretrained() got {name}, and copies the weights that the model was opened "
                                      "from: save others with transformers")
    harmless = {"safe_serialization", "token", "save_peft_format", "save_original_format", "save_function",
                "use_auth_token", "repo_id", "commit_message", "private"}
    unknown = arguments.keys() - harmless
    if unknown:
        raise TypeError(f"save_pretrained() got an argument that it does not know, {sorted(unknown)[0]!r}")


def _weight_files(folder: str) -> Iterator[str]:
    """In the order in which the library looks for them."""
    if os.path.exists(os.path.join(folder, _WEIGHTS)):
        yield _WEIGHTS
        return
    with open(os.path.join(folder, _INDEX), encoding="utf-8") as file:
        yield from dict.fromkeys(json.load(file)["weight_map"].values())
    yield _INDEX


def _is_converted(folder: str) -> bool:
    """Whether the folder holds int8 or int4 weights already (docs/FORMATS.md)."""
    with open(os.path.join(folder, next(_weight_files(folder))), "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return header.get("__metadata__", {}).get("format") == "libpaligemma"


def _copy(folder: str, out: str, max_shard_size: int) -> None:
    names = list(_weight_files(folder))
    for name in names:
        size = os.path.getsize(os.path.join(folder, name))
        if size > max_shard_size and name != _INDEX:
            raise ValueError(f"max_shard_size is {max_shard_size} bytes, but {name} has {size} and is copied as it is: "
                             "leave max_shard_size out")
    for name in [*names, "config.json"]:
        os.makedirs(os.path.dirname(os.path.join(out, name)), exist_ok=True)
        shutil.copyfile(os.path.join(folder, name), os.path.join(out, name))


def write_generation_config(folder: str, values: dict[str, Any]) -> None:
    with open(os.path.join(folder, "generation_config.json"), "w", encoding="utf-8") as file:
        file.write(json.dumps(values, indent=2, sort_keys=True) + "\n")


def _fill(out: str, made: str) -> None:
    """What lies whole in `made` goes to `out`. config.json last: nothing opens without it."""
    names = [*_weight_files(made), "generation_config.json", "config.json"]
    config = os.path.join(out, "config.json")
    if os.path.lexists(config):
        os.remove(config)
    for name in names:
        os.makedirs(os.path.dirname(os.path.join(out, name)), exist_ok=True)
        os.replace(os.path.join(made, name), os.path.join(out, name))
    for name in os.listdir(out):  # of a model that was saved there before
        if _OF_WEIGHTS.fullmatch(name) and name not in names:
            os.remove(os.path.join(out, name))


def save_model(folder: str, out: str, weights: str, int8_layers: str | list[str] | None,
               generation_config: dict[str, Any], max_shard_size: int) -> None:
    """folder: what the model was opened from; weights: "stored", or what it was to have; generation_config: the
    settings. What fails, such as a full disk, leaves `out` as it was."""
    if os.path.exists(out) and not os.path.isdir(out):
        raise NotADirectoryError(f"Provided path ({out}) should be a directory, not a file")
    os.makedirs(out, exist_ok=True)
    if os.path.samefile(folder, out):
        raise ValueError(f"{out} is the folder that the model was opened from, whose weights are mapped: save to "
                         "another one")
    made = os.path.join(out, f".{os.getpid()}.partial")
    try:
        if weights == "stored" or _is_converted(folder):
            os.mkdir(made)
            _copy(folder, made, max_shard_size)
        else:  # what was quantized while the model opened is saved quantized
            convert(folder, made, weights, int8_layers=int8_layers, max_file_bytes=max_shard_size)
        write_generation_config(made, generation_config)
        _fill(out, made)
    finally:
        shutil.rmtree(made, ignore_errors=True)
