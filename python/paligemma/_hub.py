"""Where a checkpoint lies: from_pretrained()'s arguments to a folder. The network is never used."""
from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from . import _library as c

# Arguments of transformers' from_pretrained() that change nothing here, with why.
HARMLESS = {
    # arithmetic is f32 on the stored weights whatever is asked for
    "torch_dtype", "dtype",
    # how torch computes
    "attn_implementation", "experts_implementation", "use_kernels", "tp_plan", "tp_size", "device_mesh",
    # weights are mapped
    "low_cpu_mem_usage", "max_memory", "offload_folder", "offload_state_dict", "offload_buffers",
    # no network
    "token", "use_auth_token", "proxies", "force_download", "resume_download", "local_files_only", "mirror",
    # nothing to choose from
    "trust_remote_code", "code_revision", "use_safetensors", "weights_only", "use_fast", "backend", "_from_auto",
    "ignore_mismatched_sizes", "_fast_init", "_commit_hash", "user_agent", "commit_message", "adapter_kwargs",
}
# Arguments that may be given as None or False only: they would change results, and are not followed.
_REFUSED = {
    "quantization_config", "load_in_8bit", "load_in_4bit", "state_dict", "config", "variant", "gguf_file",
    "key_mapping", "generation_config", "output_loading_info", "from_tf", "from_flax", "fusion_config", "chat_template",
}


def check_arguments(arguments: dict[str, Any]) -> None:
    """Raises ValueError for what would change results or is unknown."""
    for name, value in arguments.items():
        if name in _REFUSED:
            if value not in (None, False):
                raise ValueError(f"from_pretrained() got {name}={value!r}, which libpaligemma does not follow")
        elif name == "device_map":
            _check_device_map(value)
        elif name not in HARMLESS:
            raise ValueError(f"from_pretrained() got an argument that it does not know, {name!r}")


def _check_device_map(value: Any) -> None:
    devices = value.values() if isinstance(value, dict) else [value]
    for device in devices:
        if device is not None and str(device) not in ("auto", "balanced", "balanced_low_0", "sequential", "cpu"):
            raise ValueError(f"device_map is {value!r}, expected None, \"auto\" or \"cpu\": libpaligemma runs on the "
                             "CPU")


def cache_folder() -> Path:
    """The local hub cache, as pg_checkpoint_find() looks for it."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if os.environ.get(name):
            return Path(os.environ[name])
    if os.environ.get("HF_HOME"):
        return Path(os.environ["HF_HOME"]) / "hub"
    root = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(root) / "huggingface" / "hub"


def find(model: str | os.PathLike[str], revision: str | None = None, cache_dir: str | os.PathLike[str] | None = None,
         subfolder: str = "") -> str:
    """The folder of a checkpoint: `model` itself, or where the model id lies in the local hub cache."""
    name = os.fspath(model)
    if not isinstance(name, str):
        name = os.fsdecode(name)
    if os.path.isdir(name) or (revision in (None, "main") and cache_dir is None):
        folder = c.copied_text(c.lib.pg_checkpoint_find, os.fsencode(name))
    else:
        folder = _find_revision(name, revision or "main", Path(cache_dir) if cache_dir else cache_folder())
    return os.path.join(folder, subfolder) if subfolder else folder


def _find_revision(name: str, revision: str, cache: Path) -> str:
    """snapshots/<refs/REVISION> or snapshots/REVISION of models--ORG--NAME, as huggingface_hub lays them out."""
    root = cache / ("models--" + name.replace("/", "--"))
    reference = root / "refs" / revision
    commit = reference.read_text().strip() if reference.is_file() else revision
    folder = root / "snapshots" / commit
    if not folder.is_dir():
        raise FileNotFoundError(f"model \"{name}\", revision \"{revision}\": it is not in the local cache, looked at "
                                f"{reference} and {folder}")
    return str(folder)


