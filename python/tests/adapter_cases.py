# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""Adapters and the models that they make, written with numpy alone: PEFT's files, and checkpoints whose weights are the
sum, for comparison."""
import json
import pathlib
import shutil

import numpy as np

TEXT, VISION = "language_model.model", "vision_tower"  # as the demo model names its modules
CONFIG = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "bias": "none", "use_dora": False, "use_rslora": False,
          "lora_bias": False, "modules_to_save": None, "rank_pattern": {}, "alpha_pattern": {}, "target_modules": ["q_proj"],
          "task_type": None, "revision": None, "inference_mode": True}
_DTYPES = {"F32": np.float32, "I64": np.int64}


def write(path, tensors):
    """f32 arrays as safetensors."""
    header, parts, at = {"__metadata__": {"format": "pt"}}, [], 0
    for name, values in tensors.items():
        data = np.ascontiguousarray(values, np.float32).tobytes()
        header[name] = {"dtype": "F32", "shape": list(values.shape), "data_offsets": [at, at + len(data)]}
        parts.append(data)
        at += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    pathlib.Path(path).write_bytes(len(text).to_bytes(8, "little") + text + b"".join(parts))


def read(path):
    """{name: f32 array} of bf16 and f32 tensors."""
    data = pathlib.Path(path).read_bytes()
    size = int.from_bytes(data[:8], "little")
    found = {}
    for name, entry in json.loads(data[8:8 + size]).items():
        if name == "__metadata__":
            continue
        start, end = (8 + size + offset for offset in entry["data_offsets"])
        if entry["dtype"] == "BF16":
            values = (np.frombuffer(data[start:end], np.uint16).astype(np.uint32) << 16).view(np.float32)
        else:
            values = np.frombuffer(data[start:end], _DTYPES[entry["dtype"]])
        found[name] = values.reshape(entry["shape"]).astype(np.float32)
    return found


def of_peft(module):
    """PEFT's name of a module of the demo model."""
    return "base_model.model." + (module if module.startswith("custom_") else
                                  "model." + module.replace("language_model.model", "language_model"))


def modules(text=("q_proj", "v_proj"), vision=()):
    """Names of the demo model's modules: of its 3 decoder layers and of its 4 encoder layers."""
    parts = {"q_proj": "self_attn", "k_proj": "self_attn", "v_proj": "self_attn", "o_proj": "self_attn",
             "out_proj": "self_attn"}
    found = [f"{TEXT}.layers.{i}.{parts.get(name, 'mlp')}.{name}" for i in range(3) for name in text]
    return found + [f"{VISION}.encoder.layers.{i}.{parts.get(name, 'mlp')}.{name}" for i in range(4) for name in vision]


class Case:
    """A random LoRA adapter of the demo model, and what it makes of the weights."""

    def __init__(self, folder, base, seed, names, *, whole=(), size=0.2, **config):
        """folder: where it is to be; base: the demo model's folder; names: its modules; whole: modules that it replaces."""
        self.folder, self.base = pathlib.Path(folder), pathlib.Path(base)
        self.folder.mkdir(parents=True)
        self.config = {**CONFIG, "base_model_name_or_path": str(base), **config}
        rng = np.random.default_rng(seed)
        self.weights = read(self.base / "model.safetensors")
        self.parts, tensors = {}, {}
        for name in names:
            weight = self.weights[f"{name}.weight"]
            rank = self._pattern("rank_pattern", name, self.config["r"])
            alpha = self._pattern("alpha_pattern", name, self.config["lora_alpha"])
            a = (rng.standard_normal((rank, weight.shape[1])) * 0.2).astype(np.float32)
            b = (rng.standard_normal((weight.shape[0], rank)) * size).astype(np.float32)
            self.parts[name] = a, b, alpha / (rank ** 0.5 if self.config["use_rslora"] else rank)
            tensors.update({f"{of_peft(name)}.lora_A.weight": a, f"{of_peft(name)}.lora_B.weight": b})
            if self.config["use_dora"]:
                self.parts[name] += (self._norms(name) * rng.uniform(0.8, 1.25, len(weight)).astype(np.float32),)
                tensors[f"{of_peft(name)}.lora_magnitude_vector"] = self.parts[name][3]
        self.whole = {f"{name}.weight": self.weights[f"{name}.weight"] + np.float32(0.1) * rng.standard_normal(
            self.weights[f"{name}.weight"].shape).astype(np.float32) for name in whole}
        tensors.update({of_peft(name): values for name, values in self.whole.items()})
        write(self.folder / "adapter_model.safetensors", tensors)
        (self.folder / "adapter_config.json").write_text(json.dumps(self.config))

    def _pattern(self, key, name, otherwise):
        return next((value for end, value in self.config[key].items() if name.endswith(end)), otherwise)

    def _sum(self, name):
        a, b, scale = self.parts[name][:3]
        return self.weights[f"{name}.weight"] + np.float32(scale) * (b @ a)

    def _norms(self, name):
        return np.linalg.norm(self._sum(name), axis=1).astype(np.float32)

    def delta(self, name):
        """What is added to the weight of a module."""
        if self.config["use_dora"]:
            gained = (self.parts[name][3] / self._norms(name))[:, None] * self._sum(name)
            return gained - self.weights[f"{name}.weight"]
        return self._sum(name) - self.weights[f"{name}.weight"]


def merged(out, *cases):
    """A checkpoint with the weights of (case, weight) pairs added; its folder."""
    out = pathlib.Path(out)
    shutil.copytree(cases[0][0].base, out)
    weights = dict(cases[0][0].weights)
    for case, factor in cases:
        weights.update(case.whole)
        for name in case.parts:
            weights[f"{name}.weight"] = weights[f"{name}.weight"] + np.float32(factor) * case.delta(name)
    (out / "model.safetensors").unlink()
    write(out / "model.safetensors", weights)
    return out
