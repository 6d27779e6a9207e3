#!/usr/bin/env python3
# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""Adapters (pg_adapter_open, pg_model_adapt) against PEFT, on random checkpoints of both generations.

    adapters_live.py [--seed S] [--count N] [--build FOLDER]

Each of the N adapters (seeds S, S + 1, ...; four follow one another on a checkpoint of checkpoints.py) is made by PEFT with
a LoraConfig drawn from all that changes what an adapter computes: targets by names, full names, regex and "all-linear",
excluded modules, layers; ranks, alphas and their patterns; rsLoRA, DoRA, lora_bias, bias, modules_to_save, tied weights.
Its tensors are random, in f32, bf16 or f16, under the keys of several versions. The reference is
PeftModel.from_pretrained() on the base in f32. Checked are features, hidden states and logits of a batch, thread counts,
rows alone, instruction sets, generated ids, scores of answers; what pg_adapter_get_info() says; several adapters at once,
with and without weights; int8, int4 and bf16 beside the same of the base; what is refused. Bounds as README.md says.
"""
import contextlib
import copy
import json
import math
import os
import re
import shutil
import tempfile
import traceback
import types
import warnings

import checkpoints  # before torch: it sets the environment
import numpy as np
import torch
from peft import IA3Config, LoHaConfig, LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file
from transformers import PaliGemmaForConditionalGeneration

import batch_reference
import batches
import forward_live
import pglib
import reference
import seeded

PER_CHECKPOINT = 4
FEW_TOKENS = 16  # so many or fewer are summed in another order (pg_forward, with adapters)
PREFIX = "base_model.model."
SHORT_NAMES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "fc1", "fc2", "out_proj",
               "linear", "patch_embedding", "position_embedding", "embed_tokens", "lm_head", "self_attn.q_proj", "mlp.fc1",
               "multi_modal_projector.linear", "layers.0.self_attn.v_proj"]
REGEXES = [r".*\.(q|k|v)_proj", r"model\.language_model\.layers\.\d+\.self_attn\.(q|o)_proj", r".*language_model.*_proj",
           r".*vision_tower.*\.(fc[12]|out_proj)", r"(?:.*\.)?(embed_tokens|lm_head)", r".*\.layers\.[02]\.mlp\.\w+",
           r"(?!.*vision).*(gate|up|down)_proj$", r".*\.linear|.*patch_embedding|.*\.0\.mlp\.fc1", r".*embedding|.*q_proj"]
PATTERNS = ["q_proj", "self_attn.q_proj", "mlp.fc1", "linear", "embed_tokens", "lm_head", "proj", r"[a-z]+_proj",
            "patch_embedding", "^model.language_model.*", r".*\.layers\.(0|2)\..*", "(fc1|q_proj|linear)",
            "layers.0.mlp.gate_proj", r".*\.fc\d", r"language_model\.layers\.\d+\.mlp\.\w+", "^lm_head",
            r"vision_tower\..+?\.(k|v)_proj", "position_embedding"]
SAVED = ["multi_modal_projector", "multi_modal_projector.linear", "norm", "input_layernorm", "layer_norm1", "post_layernorm",
         "embed_tokens", "lm_head", "layers.0.mlp", "layers.0.self_attn", "layers.0", "position_embedding", "patch_embedding",
         "embeddings", "q_proj", "k_proj", "vision_tower", "fc2"]
# What is refused, by the name that the message has; all but layer_replication PEFT saves.
REFUSED = {"peft_type": [IA3Config(target_modules=["q_proj", "fc2"], feedforward_modules=["fc2"]),
                         LoHaConfig(r=2, target_modules=["q_proj"])],
           "init_lora_weights": [{"init_lora_weights": name} for name in ("pissa", "pissa_niter_2", "olora")],
           "trainable_token_indices": [{"trainable_token_indices": [1, 2]}],
           "target_parameters": [{"target_parameters": ["q_proj.weight"], "target_modules": []}],
           "alora_invocation_tokens": [{"alora_invocation_tokens": [5, 6]}], "use_qalora": [{"use_qalora": True}],
           "layer_replication": [{"layer_replication": [[0, 1], [0, 1]]}]}
# Of the distance of the base that is quantized, or rounds to bf16, from the one in f32, and beside it: relative L2.
TIMES, LITTLE = 6.0, 0.02


class NotDrawn(Exception):
    """PEFT does not make, or not load, what was drawn."""


@contextlib.contextmanager
def quiet():
    """PEFT warns of much; when a tensor of the adapter is missing, it only warns, too."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        yield
    missing = [str(line.message) for line in said if "missing adapter keys" in str(line.message)]
    if missing:
        raise NotDrawn(missing[0])


# ---- drawing

def draw_targets(rng, names):
    kind = rng.random()
    if kind < 0.15:
        return "all-linear"
    if kind < 0.35:
        return str(rng.choice(REGEXES))
    if kind < 0.55:
        return rng.choice(names, int(rng.integers(1, min(14, len(names)))), replace=False).tolist()
    return rng.choice(SHORT_NAMES, int(rng.integers(1, 7)), replace=False).tolist()


def draw_pattern(rng, names, draw_value):
    """Sorted, for PEFT sorts its file: of patterns in another order an adapter may not fit itself any more."""
    keys = rng.choice(PATTERNS + names, int(rng.integers(1, 5)), replace=False).tolist()
    return {key: draw_value() for key in sorted(keys)}


def draw_config(rng, names, plain=False):
    """-> keywords of LoraConfig. plain: what add_weighted_adapter() can add up."""
    def rank():
        return int(rng.integers(1, 41) if rng.random() < 0.4 else rng.integers(1, 9))

    def alpha():
        return round(float(rng.uniform(0.5, 64)), 2) if rng.random() < 0.3 else int(rng.integers(1, 65))

    config = dict(r=rank(), lora_alpha=alpha(), target_modules=draw_targets(rng, names))
    if rng.random() < 0.35:
        config["rank_pattern"] = draw_pattern(rng, names, rank)
    if rng.random() < 0.35:
        config["alpha_pattern"] = draw_pattern(rng, names, alpha)
    config["use_rslora"] = bool(rng.random() < 0.3)
    if plain:
        return config
    if rng.random() < 0.15:
        config["exclude_modules"] = str(rng.choice(REGEXES)) if rng.random() < 0.5 else [str(rng.choice(SHORT_NAMES))]
    if isinstance(config["target_modules"], list) and rng.random() < 0.2:
        config["layers_to_transform"] = 0 if rng.random() < 0.5 else rng.integers(0, 4, 2).tolist()
        config["layers_pattern"] = [None, "layers", ["layers"], ["h", "layers"]][rng.integers(4)]
    config["use_dora"] = bool(rng.random() < 0.35)
    config["lora_bias"] = bool(rng.random() < 0.2)
    config["bias"] = str(rng.choice(["none", "all", "lora_only"], p=[0.75, 0.13, 0.12]))
    config["init_lora_weights"] = [True, False, "gaussian", "orthogonal", "eva", "mica"][rng.choice(6, p=[.6] + [.08] * 5)]
    config["lora_dropout"] = float(rng.choice([0.0, 0.1]))
    config["fan_in_fan_out"] = bool(rng.random() < 0.05)
    if rng.random() < 0.3:
        config["modules_to_save"] = rng.choice(SAVED, int(rng.integers(1, 3)), replace=False).tolist()
    has_embedding = any("embed" in str(config.get(key)) or "lm_head" in str(config.get(key))
                        for key in ("target_modules", "modules_to_save"))
    config["ensure_weight_tying"] = bool(rng.random() < (0.3 if has_embedding else 0.03))
    return config


def fill(model, rng):
    """Values as training leaves them: PEFT's own add nothing. Each layer's outputs change by 5 to 50 percent."""
    random = torch.Generator().manual_seed(int(rng.integers(1 << 60)))

    def normal(tensor, size):
        tensor.data.copy_(size * torch.randn(tensor.shape, generator=random))

    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:  # biases and modules saved whole; the others are overwritten below
                p += (0.2 * torch.nan_to_num(p.std(), 0.0) + 0.02) * torch.randn(p.shape, generator=random)
        for module in model.modules():
            if not isinstance(module, LoraLayer):
                continue
            name, weight = "default", module.get_base_layer().weight
            size = float(rng.uniform(0.05, 0.5)) / (abs(module.scaling[name]) * math.sqrt(module.r[name]))
            if name in module.lora_embedding_A:
                normal(module.lora_embedding_A[name], 1.0)
                normal(module.lora_embedding_B[name], size * float(weight.std()))
            else:
                normal(module.lora_A[name].weight, weight[0].numel() ** -0.5)
                normal(module.lora_B[name].weight, size)
                if module.lora_bias[name]:
                    normal(module.lora_B[name].bias, 0.2 / abs(module.scaling[name]))
            if name in module.lora_magnitude_vector:
                magnitude = module.lora_magnitude_vector[name].weight
                magnitude *= 1 + 0.25 * torch.randn(magnitude.shape, generator=random)


def tensors_of(folder):
    return load_file(os.path.join(folder, "adapter_model.safetensors"))


def used(folder):
    """-> {name: tensor} without what PEFT writes beside modules_to_save with bias="all": the biases again, and the base's."""
    return {name: tensor for name, tensor in tensors_of(folder).items()
            if ".modules_to_save." not in name and ".original_module." not in name}


def cast(tensors, rng):
    kind = str(rng.choice(["F32", "BF16", "F16", "mixed"], p=[0.4, 0.25, 0.2, 0.15]))
    kinds = {name: kind if kind != "mixed" else list(checkpoints.TORCH)[rng.integers(3)] for name in tensors}
    for name in kinds if kind == "mixed" else ():  # what PEFT ties has the same values, or the last to be loaded would count
        if "embed_tokens" in name or "lm_head" in name:
            kinds[name] = "BF16"
        kinds[name] = kinds.get(name.replace(".modules_to_save.", "."), kinds[name])  # a bias that PEFT writes twice
    return kind, {name: tensor.to(checkpoints.TORCH[kinds[name]]) for name, tensor in tensors.items()}


def make(base, config, rng, folder):
    """Writes a random adapter of `base` with PEFT. -> the dtype of the file; raises NotDrawn."""
    try:
        with quiet():
            model = get_peft_model(copy.deepcopy(base), LoraConfig(**copy.deepcopy(config)))
            fill(model, rng)
            model.save_pretrained(folder)
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise NotDrawn(f"{type(error).__name__}: {error}") from None
    kind, tensors = cast(tensors_of(folder), rng)
    save_file(tensors, os.path.join(folder, "adapter_model.safetensors"), {"format": "pt"})
    return kind


def draw_adapter(base, names, rng, folder, plain=False, keeps_modules=False):
    """An adapter that PEFT makes, in `folder`. keeps_modules: it replaces none. -> (config, dtype, PEFT's model of it)"""
    while True:
        shutil.rmtree(folder, ignore_errors=True)
        config = draw_config(rng, names, plain)
        if keeps_modules:
            config.update(modules_to_save=None, bias="none")
        try:
            return config, make(base, config, rng, folder), load(base, [folder])
        except NotDrawn:
            continue


def rename(folder, out, layout, parts=()):
    """Writes the adapter with the keys of another version of transformers, or without the prefix ("bare"). parts: {part of
    a key: what it becomes}."""
    os.makedirs(out)
    shutil.copy(os.path.join(folder, "adapter_config.json"), out)
    tensors = {}
    for name, tensor in tensors_of(folder).items():
        name = name.removeprefix(PREFIX)
        name = name if layout == "bare" else PREFIX + (checkpoints.renamed(name, layout) if layout else name)
        for old in parts:
            name = name.replace(old, parts[old])
        tensors[name] = tensor
    save_file(tensors, os.path.join(out, "adapter_model.safetensors"), {"format": "pt"})


def peft_loads(folder, layout):
    """Whether PEFT 0.21 loads the adapter with these keys. Measured with transformers 5.23 and 5.24: of keys other than its
    own it finds those of LoRA alone; and as it takes a change that only removes the beginning of a key for none at all
    (convert_peft_adapter_state_dict_for_transformers), of those before 4.52 neither those of the projector nor of the head.
    Biases and the weights of embeddings it then leaves out without a word, modules_to_save raise KeyError. Ours takes all."""
    lost = () if layout == "bare" else ("multi_modal_projector", "lm_head")
    names = tensors_of(folder)
    return layout != "5.23" and all(".lora_" in name and not any(part in name for part in lost) for name in names)


# ---- the reference

def load(base, folders, order=None):
    """-> PEFT's model with the adapters, named "a0", "a1" and so on, all active in this order. One that has biases must be
    the first: of a layer that another adapter has, PEFT knows them under another key, and leaves them out without a word."""
    try:
        with quiet():
            model = PeftModel.from_pretrained(copy.deepcopy(base), folders[0], adapter_name="a0")
            for i, folder in enumerate(folders[1:]):
                loaded = model.load_adapter(folder, adapter_name=f"a{i + 1}")
                if loaded.missing_keys or any(".lora_" in name for name in loaded.unexpected_keys):
                    raise NotDrawn("PEFT leaves out LoRA in what another adapter has whole")
            model.base_model.set_adapter([f"a{i}" for i in order or range(len(folders))], inference_mode=True)
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise NotDrawn(f"{type(error).__name__}: {error}") from None
    return model.eval()


class _Noise(reference._Noise):
    """And of what PEFT's layers do beside their base, A and B, which are layers with deviates of their own: the sum of the
    parts, products of an embedding's A and B, and the norms of DoRA, whose error is one for all rows."""

    def _adapted(self, module, _args, output):
        adapters = [name for name in module.active_adapters if name in module.scaling]
        if not adapters:
            return output
        is_image = output.dim() == 4
        output = output.movedim(1, -1) if is_image else output
        output = self._add(output, math.sqrt(sum(module.r[name] for name in adapters) / 6) + 3)
        if any(name in module.lora_magnitude_vector for name in adapters):
            size = math.sqrt(module.get_base_layer().weight[0].numel() / 6) + 2
            output = output * (1 + size * reference.UNIT_ROUNDOFF * torch.randn(output.shape[-1:], generator=self.random))
        return output.movedim(-1, 1) if is_image else output

    def __enter__(self):
        super().__enter__()
        for module in self.model.modules():
            if isinstance(module, LoraLayer):
                self.hooks.append(module.register_forward_hook(self._adapted))


class Adapted(batch_reference.BatchReference):
    def __init__(self, base, peft_model):
        """base: the BatchReference of the base, whose processor this has."""
        self.processor, self.tokenizer = base.processor, base.tokenizer
        self.model = peft_model.get_base_model()

    def forward(self, arrays, **options):
        return super().forward(arrays, output_attentions=False, **options)

    def noise(self, arrays, n_probes=reference.N_PROBES, **options):
        out = []
        for seed in range(n_probes):
            with _Noise(self.model, seed):
                out.append(self.forward(arrays, **options))
        return out


def weigh(model, weights):
    """Multiplies what the adapters add. PEFT has scaling for it; in DoRA that would act on the norms too, so there the
    difference that the adapter makes is multiplied."""
    def weighed(forward, weight):
        def variant(_self, module, active_adapter, x, result, **kwargs):
            return result + weight * (forward(module, active_adapter=active_adapter, x=x, result=result, **kwargs) - result)
        return variant

    for module in model.modules():
        for name, weight in weights.items() if isinstance(module, LoraLayer) else ():
            if name in module.lora_magnitude_vector:
                variant = module.lora_variant[name]
                variant.forward = types.MethodType(weighed(variant.forward, weight), variant)
            elif name in module.scaling:
                module.scaling[name] *= weight


def module_of(name):
    return re.sub(r"\.lora_.*|(\.base_layer)?\.(weight|bias)$", "", name.removeprefix(PREFIX))


def base_layers(folder, is_tied):
    """The modules whose base layer's weight is in the file. That of one of two tied modules is that of both."""
    modules = {module_of(name) for name in used(folder) if name.endswith(".base_layer.weight")}
    tied = {"lm_head", "model.language_model.embed_tokens"}
    return modules | (tied if is_tied and modules & tied else set())


def replaced_by(base, folder, is_tied=False):
    """The modules that the adapter has whole, or their bias. A base layer that is the base's own does not count."""
    own, whole = base.state_dict(), set()
    for name, tensor in used(folder).items():
        of_base = own.get(module_of(name) + ".weight") if name.endswith(".base_layer.weight") else None
        if ".lora_" not in name and (of_base is None or not torch.equal(tensor.float(), of_base.float())):
            whole |= {module_of(name)} | (base_layers(folder, is_tied) if of_base is not None else set())
    return whole


# ---- the checks

class Base:
    """What four cases have in common: a checkpoint, and both sides' model of it."""

    def __init__(self, seed, folder):
        self.seed, self.folder = seed, folder
        self.spec = checkpoints.draw(seed)
        checkpoints.write(self.spec, folder)
        self.ref, self.hf = batch_reference.BatchReference(folder), batches.HfProcessor(folder)
        kinds = (torch.nn.Linear, torch.nn.Conv2d, torch.nn.Embedding)
        self.names = [name for name, module in self.ref.model.named_modules() if isinstance(module, kinds)]


class Case(forward_live.Case):
    """One adapter. `model` is the adapted one, so that forward_live's checks are those of a model."""
    n_several = n_weighted = n_cat = n_peft_loads = n_generated = 0
    kinds, quantized = {}, {}

    def __init__(self, seed, library, temporary, base):
        super().__init__(seed, library, temporary)
        self.base, self.adapter_folder = base, self.folder
        self.folder, self.rng = base.folder, np.random.default_rng([seed, 101])
        self.config = base.ref.model.config.get_text_config()

    def run(self):
        self.saved = os.path.join(self.adapter_folder, "saved")
        settings, kind, peft_model = draw_adapter(self.base.ref.model, self.base.names, self.rng, self.saved)
        self.ref = Adapted(self.base.ref, peft_model)
        layout = str(self.rng.choice(["", "", "before 4.52", "4.52", "5.23", "bare"]))
        self.file = self.saved
        if layout:
            self.file = os.path.join(self.adapter_folder, "renamed")
            magnitude = ".lora_magnitude_vector"
            rename(self.saved, self.file, layout, {magnitude: magnitude + ".weight"} if self.rng.random() < 0.5 else {})
        self.settings = {k: v for k, v in settings.items() if v not in (None, False, "none")}
        if self.settings.get("init_lora_weights") is True:
            del self.settings["init_lora_weights"]
        case, images, arrays = forward_live.draw_batch(self.rng, self.base.hf)
        self.arrays, given = arrays, forward_live.model_arrays(arrays)
        self.exact, self.probes = self.ref.forward(given), self.ref.noise(given)
        self.plain = self.base.ref.forward(given, output_attentions=False)
        what = f"; {self.settings}, {kind}, {layout or 'as saved'}; {arrays['input_ids'].shape}"
        for key in (*self.settings, kind, layout or "as saved"):
            Case.kinds[key] = Case.kinds.get(key, 0) + 1
        if layout and peft_loads(self.saved, layout):
            self.expect(self.check_peft(given), "PEFT, other keys" + what)
        with pglib.Model(self.library, self.folder) as self.base_model, \
                pglib.Processor(self.library, self.folder) as self.processor, \
                batches.run_library(self.processor, case, images) as self.inputs:
            try:
                adapter = pglib.Adapter(self.base_model, self.file)
            except pglib.Error as error:
                self.expect([str(error)], "open" + what)
                return
            with adapter, self.base_model.adapt([adapter]) as self.model:
                self.adapter = adapter
                self.attempt("info" + what, self.check_info)
                self.attempt("forward" + what, self.check_forward)
                self.attempt("threads" + what, self.check_threads)
                self.attempt("rows alone" + what, self.check_rows)
                self.attempt("given features" + what, self.check_features, case)
                self.attempt("base" + what, self.check_base, case)
                if self.seed % 3 == 0:
                    Case.n_generated += 1
                    self.attempt("generate" + what, self.check_generate,
                                 *forward_live.draw_batch(self.rng, self.base.hf, generate=True)[:2])
                self.once("score" + what, self.check_score, self.model)
                self.once("weights" + what, self.check_weights)
                name = ("int8", "int4", "bf16")[self.seed % 3]
                self.once(name + what, self.check_quantized, name)
                if self.seed % 2 == 0:
                    self.once("several" + what, self.check_several)
                else:
                    self.once("weighted sum" + what, self.check_cat)
            self.attempt("instruction sets" + what, self.check_cpus)
        if self.seed % PER_CHECKPOINT == 0:
            self.expect(self.check_refusals(), "refusals")

    def once(self, what, check, *args):
        """A check that draws, and would draw something else if attempt() came back with more probes."""
        try:
            self.expect(check(*args), what)
        except pglib.Error as error:
            self.expect([str(error)], what)

    def check_peft(self, given):
        """PEFT finds the same in the file with the other keys."""
        Case.n_peft_loads += 1
        found = Adapted(self.base.ref, load(self.base.ref.model, [self.file])).forward(given)
        return [f"{name} differs" for name, stage in found.stages.items()
                if not forward_live.same(stage, self.exact.stages[name])]

    def alike(self, stage, row, found, expected):
        """As forward_live has it, of more few tokens."""
        tokens = self.arrays["attention_mask"][row] == 1
        if forward_live.same(found, expected) or tokens.sum() > FEW_TOKENS:
            return forward_live.same(found, expected)
        noise = max(np.abs(p.stages[stage] - self.exact.stages[stage])[row][tokens].max() for p in self.probes)
        return bool(np.abs(found - expected).max() <= 2 * reference.FACTOR * noise)

    def check_info(self):
        tensors, info = used(self.saved), self.adapter.info()
        ranks = [tensor.shape[0] for name, tensor in tensors.items() if "lora_A" in name or "lora_embedding_A" in name]
        expected = dict(rank=max(ranks, default=0), n_parameters=sum(tensor.numel() for tensor in tensors.values()),
                        n_modules=len({module_of(name) for name in tensors}), base=os.fsencode(self.base.folder),
                        adapts_images=int(any("vision_tower" in name or "projector" in name for name in tensors)))
        return [f"{name}: found {getattr(info, name)}, expected {value}" for name, value in expected.items()
                if getattr(info, name) != value]

    def check_forward(self):
        with self.model.forward(self.inputs, flags=pglib.FORWARD_HIDDEN_STATES) as outputs:
            return self.within(outputs, self.exact, self.probes, self.arrays)

    def check_cpus(self):
        wrong = []
        for name, mask in pglib.cpu_masks().items():
            with pglib.Model(self.library, self.folder, mask) as base, pglib.Adapter(base, self.file, 2) as adapter, \
                    base.adapt([adapter]) as self.model:
                wrong += [f"{name}: {line}" for line in self.check_forward()]
        return wrong

    def outputs_of(self, model, **options):
        with model.forward(self.inputs, flags=pglib.FORWARD_HIDDEN_STATES, **options) as outputs:
            return forward_live.stages_of(outputs)

    def check_base(self, case):
        """It is as if it had no adapter. An adapted model lives without the handles that it was made of, and of an adapted
        one its base counts. Features are shared where the adapter leaves them alone, and refused where it does not."""
        wrong, adapted = [], self.outputs_of(self.model)
        with pglib.Model(self.library, self.folder) as fresh:
            expected = self.outputs_of(fresh)
            with pglib.Adapter(fresh, self.file, n_threads=3) as adapter, fresh.adapt([adapter]) as once:
                again = once.adapt([adapter])
        with again:
            for what, model, right in (("base", self.base_model, expected), ("adapted twice", again, adapted)):
                found = self.outputs_of(model)
                wrong += [f"{what}: {name} differs" for name in right if not forward_live.same(found[name], right[name])]
        changed = any(not forward_live.same(adapted[name], expected[name]) for name in adapted)
        if not changed:
            wrong.append("the adapter changes nothing")
        with self.base_model.encode_image(self.inputs) as features, \
                batches.run_library(self.processor, case, None, self.arrays["image_counts"].tolist()) as inputs:
            try:
                with self.model.forward(inputs, features) as outputs:
                    if self.adapter.info().adapts_images:
                        wrong.append("the base's features are accepted, though the adapter changes them")
                    elif not forward_live.same(outputs["logits"], adapted["logits"]):
                        wrong.append("the base's features give other logits")
            except pglib.Error as error:
                if not self.adapter.info().adapts_images or error.status != pglib.ERROR_ARGUMENT:
                    wrong.append(str(error))
        return wrong

    def against(self, peft_model, model, threads=1):
        """-> what of our model lies outside the bounds of PEFT's"""
        given, ref = forward_live.model_arrays(self.arrays), Adapted(self.base.ref, peft_model)
        exact = ref.forward(given)
        for n_probes in (reference.N_PROBES, reference.MORE_PROBES):
            probes = ref.noise(given, n_probes)
            with model.forward(self.inputs, flags=pglib.FORWARD_HIDDEN_STATES, n_threads=threads) as outputs:
                wrong = self.within(outputs, exact, probes, self.arrays)
            if not wrong:
                break
        return wrong

    def check_weights(self):
        """One adapter with a weight. What it has whole cannot be weighed."""
        weight = round(float(self.rng.choice([self.rng.uniform(-1.5, -0.1), self.rng.uniform(0.1, 0.9), 1.75])), 2)
        whole = replaced_by(self.base.ref.model, self.saved)
        try:
            with self.base_model.adapt([self.adapter], [weight]) as model:
                if whole:
                    return [f"weight {weight} is accepted, though the adapter replaces {sorted(whole)[:3]}"]
                peft_model = load(self.base.ref.model, [self.saved])
                weigh(peft_model, {"a0": weight})
                Case.n_weighted += 1
                wrong = self.against(peft_model, model, 2)
        except pglib.Error as error:
            if whole and error.status == pglib.ERROR_UNSUPPORTED:
                return []
            raise
        with self.base_model.adapt([self.adapter], [0.0]) as model:
            found, right = self.outputs_of(model), self.outputs_of(self.base_model)
            wrong += [f"weight 0: {name} differs from the base's" for name in right
                      if not forward_live.same(found[name], right[name])]
        return [f"weight {weight}: {line}" for line in wrong]

    def check_several(self):
        """This adapter and others, all active at once, in any order."""
        folders, settings, wrong = [self.saved], [], []
        for i in range(int(self.rng.integers(1, 3))):
            folder = os.path.join(self.adapter_folder, f"other{i}")
            settings.append(draw_adapter(self.base.ref.model, self.base.names, self.rng, folder, keeps_modules=True)[0])
            folders.append(folder)
        order = self.rng.permutation(len(folders)).tolist()
        try:
            peft_model = load(self.base.ref.model, folders, order)
        except NotDrawn:
            return []
        is_tied = self.base.spec["head"] != "own"
        base = self.base.ref.model
        twice, tied_twice = (len(set().union(*modules)) < sum(map(len, modules)) for modules in
                             ([replaced_by(base, folder, tied) for folder in folders] for tied in (False, is_tied)))
        whole = set().union(*(replaced_by(base, folder, is_tied) for folder in folders))
        if not tied_twice and any(sum(module in base_layers(folder, is_tied) for folder in folders) > 1 for module in whole):
            return []  # PEFT takes the last that it loads, be it the base's own
        with contextlib.ExitStack() as stack:
            adapters = [stack.enter_context(pglib.Adapter(self.base_model, folders[i])) for i in order]
            try:
                with self.base_model.adapt(adapters) as model:
                    if twice:
                        wrong.append("accepted, though two adapters replace one module")
                    Case.n_several += 1
                    wrong += self.against(peft_model, model)
            except pglib.Error as error:
                if not tied_twice or error.status != pglib.ERROR_UNSUPPORTED:  # of tied ones PEFT takes the last loaded
                    wrong.append(str(error))
        return wrong and [f"order {order} with {settings}", *wrong]

    def check_cat(self):
        """A weighted sum, beside add_weighted_adapter(combination_type="cat"), which knows A and B alone, and which gives a
        wrong sum where the first adapter has use_rslora (its r / sqrt(r) is not 1), and none of targets of two kinds."""
        folders = [os.path.join(self.adapter_folder, f"plain{i}") for i in range(int(self.rng.integers(2, 4)))]
        settings = [draw_adapter(self.base.ref.model, self.base.names, self.rng, folder, plain=True)[0] for folder in folders]
        weights = [round(float(weight), 2) for weight in self.rng.uniform(-1, 2, len(folders))]
        if any(replaced_by(self.base.ref.model, folder) for folder in folders):  # embeddings that the file's dtype rounds
            return []
        peft_model = load(self.base.ref.model, folders)
        weighted = {f"a{i}": weight for i, weight in enumerate(weights)}
        kinds = {type(config.target_modules) for config in peft_model.peft_config.values()}
        if settings[0]["use_rslora"] or len(kinds) > 1:
            weigh(peft_model, weighted)
        else:
            Case.n_cat += 1
            peft_model.base_model.add_weighted_adapter(list(weighted), weights, "sum", "cat")
            peft_model.base_model.set_adapter("sum", inference_mode=True)
        with contextlib.ExitStack() as stack:
            adapters = [stack.enter_context(pglib.Adapter(self.base_model, folder)) for folder in folders]
            with self.base_model.adapt(adapters, weights) as model:
                wrong = self.against(peft_model.eval(), model)
                return wrong and [f"{weights} of {settings}", *wrong]

    def check_score(self, model):
        """An answer has the same log-probabilities, to the last bit, whatever other answers are given."""
        image_id, vocab = self.base.ref.model.config.image_token_id, model.info().vocab_size
        answers = [[int(i) for i in self.rng.integers(0, vocab, n) if i != image_id] or [0]
                   for n in self.rng.integers(1, 20, int(self.rng.integers(2, 6)))]
        images = [(self.rng.integers(0, 256, (30, 40, 3)).astype(np.uint8), pglib.IMAGE_RGB8)]
        with self.processor.encode_batch(["answer en"], images=images, image_counts=[1]) as inputs:
            together = model.score(self.processor, inputs, answers)
            alone = [model.score(self.processor, inputs, [answer], n_threads=2)[0] for answer in answers]
        return [f"answer of {len(answer)} tokens: {np.abs(a - b).max():.2e} apart" for answer, (_, a), (_, b) in
                zip(answers, together, alone) if not forward_live.same(a, b)]

    def check_quantized(self, name):
        """As near to the adapted model in f32 as the base is to its own, by as much as the adapter lets noise grow, and rows
        and threads as anywhere."""
        options = {"int8": dict(weights=pglib.WEIGHTS_INT8), "int4": dict(weights=pglib.WEIGHTS_INT4),
                   "bf16": dict(arithmetic=pglib.ARITHMETIC_BF16)}[name]
        wrong, mask = [], self.arrays["attention_mask"] == 1
        base_probes = self.base.ref.noise(forward_live.model_arrays(self.arrays), output_attentions=False)
        with pglib.Model(self.library, self.folder, **options) as base, pglib.Adapter(base, self.file) as adapter, \
                base.adapt([adapter]) as model:
            ours = {what: self.outputs_of(m) for what, m in (("base", base), ("adapted", model))}
            for stage, found in ours["adapted"].items():
                def distance(ours, right):
                    return reference.distance(*(x if stage == "features" else x[mask] for x in (ours, right.stages[stage])))[0]

                noise = [max(distance(probe.stages[stage], right) for probe in probes) for probes, right in
                         ((base_probes, self.plain), (self.probes, self.exact))]
                of_base, of_ours = distance(ours["base"][stage], self.plain), distance(found, self.exact)
                limit = TIMES * of_base * max(1.0, noise[1] / max(noise[0], 1e-12)) + LITTLE
                Case.quantized[name] = max(Case.quantized.get(name, 0.0), of_ours / limit)
                if not of_ours <= limit:
                    wrong.append(f"{stage}: {of_ours:.3g} from f32, the base {of_base:.3g}, noise {noise[1]:.3g} and "
                                 f"{noise[0]:.3g}")
            again = self.outputs_of(model, n_threads=2)
            wrong += [f"2 threads: {stage} differs" for stage in again
                      if not forward_live.same(again[stage], ours["adapted"][stage])]
            alone = {what: self.differ_alone(m, ours[what], mask) for what, m in (("base", base), ("adapted", model))}
            wrong += [f"row {row} alone: {stage} differs, not so of the base" for row, stage in
                      sorted(alone["adapted"]) if row not in {row for row, _ in alone["base"]}]
            wrong += [f"score, {line}" for line in self.check_score(model)]
        return wrong

    def differ_alone(self, model, batch, mask):
        """-> {(row, stage)} that have other bits in the batch than alone"""
        found = set()
        for row in np.flatnonzero(mask.sum(1) > FEW_TOKENS):
            with self.alone(self.arrays, row) as inputs, \
                    model.forward(inputs, flags=pglib.FORWARD_HIDDEN_STATES) as outputs:
                single = forward_live.stages_of(outputs)
            found |= {(int(row), stage) for stage in single if stage != "features"
                      and not forward_live.same(single[stage][0], batch[stage][row][mask[row]])}
        return found

    def refused(self, what, folder, status, *names):
        try:
            with pglib.Adapter(self.base_model, folder):
                return [f"{what}: accepted"]
        except pglib.Error as error:
            text = str(error)
            return [] if error.status == status and all(name in text for name in names) else [f"{what}: {text}"]

    def check_refusals(self):
        wrong, folder = [], os.path.join(self.adapter_folder, "refused")
        with pglib.Model(self.library, self.folder) as self.base_model:
            for field, configs in REFUSED.items():
                for config in configs:
                    self.save_refused(config, folder)
                    wrong += self.refused(config, folder, pglib.ERROR_UNSUPPORTED, field)
            for version in (1, 2):
                wrong += self.refused_of_another(version, folder)
            if self.base.spec["gemma_version"] == 1:  # of a norm that Gemma 2 alone has; PEFT says nothing
                self.save_refused({"modules_to_save": ["input_layernorm"]}, folder)
                rename(folder, folder + "2", "", {"input_layernorm": "pre_feedforward_layernorm"})
                wrong += self.refused("a norm of Gemma 2", folder + "2", pglib.ERROR_NOT_FOUND, "pre_feedforward_layernorm")
        return wrong

    def save_refused(self, config, folder):
        shutil.rmtree(folder, ignore_errors=True)
        by_hand = isinstance(config, dict) and "layer_replication" in config  # PEFT knows no layers of PaliGemma for it
        if isinstance(config, dict):
            config = LoraConfig(**dict(dict(r=2, target_modules=["q_proj"]), **({} if by_hand else config)))
        get_peft_model(copy.deepcopy(self.base.ref.model), copy.deepcopy(config)).save_pretrained(folder)
        if by_hand:
            path = os.path.join(folder, "adapter_config.json")
            with open(path) as f:
                written = json.load(f)
            with open(path, "w") as f:
                json.dump(dict(written, layer_replication=[[0, 1], [0, 1]]), f)

    def refused_of_another(self, version, folder):
        """An adapter of a base with another hidden size: PEFT raises, ours names tensor and shapes."""
        spec = next(s for s in map(checkpoints.draw, range(self.seed, self.seed + 1000)) if s["gemma_version"] == version
                    and s["text"]["hidden_size"] != self.base.spec["text"]["hidden_size"])
        other = PaliGemmaForConditionalGeneration(checkpoints.build_config(spec, 1500))
        shutil.rmtree(folder, ignore_errors=True)
        get_peft_model(other, LoraConfig(r=2, target_modules=r".*language_model.*\.q_proj")).save_pretrained(folder)
        wrong = self.refused(f"an adapter of another Gemma {version}", folder, pglib.ERROR_FORMAT, "shape",
                             PREFIX + "model.language_model.layers.0.self_attn.q_proj.lora_A.weight",
                             f"[2, {spec['text']['hidden_size']}]", f"[2, {self.base.spec['text']['hidden_size']}]")
        try:
            PeftModel.from_pretrained(copy.deepcopy(self.base.ref.model), folder)
        except RuntimeError:
            return wrong
        return wrong + [f"PEFT takes an adapter of another Gemma {version}"]


def main():
    args = seeded.arguments(__doc__, 24, "adapters").parse_args()
    torch.set_num_threads(1)  # the fastest for models this small
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # waiting threads leave the CPU to the others
    library, base, passed, failed, closest = pglib.Library(args.build), None, 0, 0, 0.0
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as temporary:
        for seed in seeded.seeds(args.seed, args.count, "adapters"):
            of_base = seed - seed % PER_CHECKPOINT
            if base is None or base.seed != of_base:
                shutil.rmtree(os.path.join(temporary, "base"), ignore_errors=True)
                base = Base(of_base, os.path.join(temporary, "base"))
            case = Case(seed, library, temporary, base)
            try:
                case.run()
            except Exception:  # a defect of one adapter must not hide the rest
                case.expect([traceback.format_exc()], "stopped")
            passed, failed, closest = passed + case.passed, failed + case.failed, max(closest, case.closest)
            shutil.rmtree(case.adapter_folder, ignore_errors=True)
    print("drawn: " + ", ".join(f"{name} {n}" for name, n in sorted(Case.kinds.items())))
    print(f"{Case.n_generated} generated, {Case.n_several} sums of several, {Case.n_weighted} weighed, {Case.n_cat} of "
          f"add_weighted_adapter(), {Case.n_peft_loads} with other keys in PEFT too")
    print("nearest to its bound: " + ", ".join(f"{name} {value:.2f}" for name, value in
                                               [("f32", closest), *sorted(Case.quantized.items())]))
    seeded.end(passed, failed)


if __name__ == "__main__":
    main()
