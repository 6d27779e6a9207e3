# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""Where a checkpoint lies: from_pretrained()'s arguments to a folder. The network is never used."""
from __future__ import annotations

import os
from typing import Any

from . import _library as c

# Arguments of transformers' from_pretrained() that change nothing here, with why. (The model reads attn_implementation,
# see its class; to a processor it means nothing.)
HARMLESS = {
    # how torch computes
    "attn_implementation", "experts_implementation", "use_kernels", "tp_plan", "tp_size", "device_mesh",
    # weights are mapped (of a model, disable_mmap is followed)
    "disable_mmap", "low_cpu_mem_usage", "max_memory", "offload_folder", "offload_state_dict", "offload_buffers",
    # no network
    "token", "use_auth_token", "proxies", "force_download", "resume_download", "local_files_only", "mirror",
    # nothing to choose from
    "trust_remote_code", "code_revision", "use_safetensors", "weights_only", "use_fast", "backend", "_from_auto",
    "ignore_mismatched_sizes", "_fast_init", "_commit_hash", "user_agent", "commit_message", "adapter_kwargs",
}
_QUANTIZED = "weights=\"int8\" or weights=\"int4\" quantizes on opening, and paligemma.convert() writes such a folder"
# Arguments that may be given as None or False only: they would change results, and are not followed. With what to do.
_REFUSED = {
    "quantization_config": _QUANTIZED, "load_in_8bit": _QUANTIZED, "load_in_4bit": _QUANTIZED,
    "variant": "it names files such as model.fp16.safetensors: give a folder with them as model.safetensors",
    "state_dict": "the weights are those of the folder", "config": "the config is that of the folder",
    "gguf_file": "weights are safetensors", "from_tf": "weights are safetensors", "from_flax": "weights are safetensors",
    "key_mapping": "save the folder with transformers, which renames the tensors", "fusion_config": "",
    "chat_template": "PaliGemma has none", "generation_config": "set model.generation_config",
    "output_loading_info": "the model alone knows it",
}
OF_FILES = ("revision", "cache_dir", "subfolder")  # which files of an id
_DTYPES = {"auto", "float32", "float", "bfloat16", "float16", "half", "float64", "double"}


NO_PUSH = ("push_to_hub() is not offered, libpaligemma never uses the network: call save_pretrained(folder), then "
           "huggingface_hub.upload_folder(folder_path=folder, repo_id=...)")


def check_arguments(arguments: dict[str, Any], call: str = "from_pretrained()") -> None:
    """Raises ValueError for what would change results or is unknown."""
    for name, value in arguments.items():
        if name in _REFUSED:
            if value is not None and value is not False:
                hint = _REFUSED[name]
                raise ValueError(f"{call} got {name}={value!r}, which libpaligemma does not follow"
                                 + (f": {hint}" if hint else ""))
        elif name == "device_map":
            _check_device_map(value)
        elif name in ("dtype", "torch_dtype"):
            _check_dtype(name, value)
        elif name not in HARMLESS:
            raise ValueError(f"{call} got an argument that it does not know, {name!r}")


def _check_dtype(name: str, value: Any) -> None:
    """Floating-point types change nothing (arithmetic is f32 on the stored weights), others are of quantized weights."""
    for dtype in value.values() if isinstance(value, dict) else [value]:
        if dtype is not None and str(dtype).removeprefix("torch.") not in _DTYPES:
            raise ValueError(f"{name} is {value!r}, expected a floating-point dtype or \"auto\", which change nothing: "
                             f"arithmetic is f32 on the stored weights; {_QUANTIZED}")


def _check_device_map(value: Any) -> None:
    devices = value.values() if isinstance(value, dict) else [value]
    for device in devices:
        if device is not None and str(device) not in ("auto", "balanced", "balanced_low_0", "sequential", "cpu"):
            raise ValueError(f"device_map is {value!r}, expected None, \"auto\" or \"cpu\": libpaligemma runs on the "
                             "CPU")


def find(model: str | os.PathLike[str], revision: str | None = None, cache_dir: str | os.PathLike[str] | None = None,
         subfolder: str = "") -> str:
    """The folder of a checkpoint: `model` itself, or where the model id lies in the local hub cache."""
    name = os.fsdecode(model)
    if revision and not os.path.isdir(name):
        name = f"{name}@{revision}"
    cache = os.fsencode(cache_dir) if cache_dir else None
    folder = c.copied_text(c.lib.pg_checkpoint_find, os.fsencode(name), cache)
    return os.path.join(folder, subfolder) if subfolder else folder
