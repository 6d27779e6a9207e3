# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""transformers as the reference: one image and one prompt through a checkpoint in f32, every stage kept.

Stages are named as the library's observer names them (lib/base/run.h), "name" or "name.layer":
    pixels, patches, encoder_layer.i, encoder_norm, features, embeddings, decoder_layer.i, decoder_norm, logits.step
each a float32 array [rows, columns]; decoder stages are those of the prefill.
"""
import contextlib
import math
import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np  # noqa: E402
import torch  # noqa: E402
from PIL import Image, ImageOps  # noqa: E402
from transformers import AutoProcessor, PaliGemmaForConditionalGeneration, logging  # noqa: E402

logging.set_verbosity_error()
logging.disable_progress_bar()

UNIT_ROUNDOFF = 2.0 ** -24
# How far two f32 implementations may lie apart, in units of the probe below; see README.md.
FACTOR = 8.0
N_PROBES, MORE_PROBES = 2, 16  # draws of the noise, and before a stage is called wrong


def open_image(path, exif=True):
    """The image as the library reads it: exif_transpose where asked (as load_image), then Pillow's convert("RGB").

    Pillow keeps a PNG's transparent colour (tRNS) in the info of the converted image, and transformers 5.23 lays it over
    white where do_convert_rgb is true.
    """
    image = Image.open(path)
    if exif:
        image = ImageOps.exif_transpose(image)
    return image.convert("RGB")


class Result:
    """What the reference gave: inputs, stages, ids, text, margins."""

    def __init__(self, inputs, stages, ids, text):
        self.prompt_ids = inputs["input_ids"][0].tolist()
        self.pixels = inputs["pixel_values"].numpy()
        self.inputs, self.stages, self.ids, self.text = inputs, stages, ids, text
        ordered = [np.sort(stages[f"logits.{t}"][0])[-2:] for t in range(len(ids))]
        self.margins = [float(best - second) for second, best in ordered]


class Reference:
    def __init__(self, folder, attention="eager", dtype=torch.float32):
        self.processor = AutoProcessor.from_pretrained(folder)
        self.model = PaliGemmaForConditionalGeneration.from_pretrained(
            folder, dtype=dtype, attn_implementation=attention).eval()
        self.tokenizer = self.processor.tokenizer

    def inputs(self, image, prompt):
        """image: PIL. -> what the processor builds."""
        return self.processor(images=image, text=prompt, return_tensors="pt")

    def run(self, image, prompt, max_new_tokens=16):
        inputs = self.inputs(image, prompt)
        with torch.inference_mode(), self._watched() as stages:
            out = self.model.generate(
                input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"],
                token_type_ids=inputs["token_type_ids"], pixel_values=inputs["pixel_values"].to(self.model.dtype),
                max_new_tokens=max_new_tokens, do_sample=False, output_logits=True, return_dict_in_generate=True)
        stages["pixels"] = _rows(inputs["pixel_values"])
        for t, logits in enumerate(out.logits):
            stages[f"logits.{t}"] = _rows(logits)
        ids = out.sequences[0, inputs["input_ids"].shape[1]:].tolist()
        return Result(inputs, stages, ids, self.tokenizer.decode(ids, skip_special_tokens=True))

    def probe(self, result, n_probes=N_PROBES):
        """-> {stage: (relative L2, max abs)} of the rounding noise that an f32 implementation of this very
        computation is expected to have. The tokens of `result` are forced; see _Noise."""
        ids = torch.tensor([result.prompt_ids + result.ids[:-1]])
        n = len(result.prompt_ids)
        types = (torch.arange(ids.shape[1]) >= n).long()[None]
        # A generated <image> is text: only those of the prompt take features.
        places = ((ids == self.model.config.image_token_id) & (types == 0))[..., None]
        self.model.model.get_placeholder_mask = lambda *_args, **_kwargs: places
        noise = {}
        for seed in range(n_probes):
            with torch.inference_mode(), self._watched() as stages, _Noise(self.model, seed):
                logits = self.model(input_ids=ids, token_type_ids=types, attention_mask=torch.ones_like(ids),
                                    pixel_values=result.inputs["pixel_values"].to(self.model.dtype),
                                    use_cache=False, logits_to_keep=ids.shape[1] - n + 1).logits[0]
            for t in range(len(result.ids)):
                stages[f"logits.{t}"] = _rows(logits[t])
            for name, exact in result.stages.items():
                if name == "pixels":
                    continue
                noisy = stages[name][:exact.shape[0]]
                relative, largest = distance(noisy, exact)
                relative = max(relative, distance(noisy[-1:], exact[-1:])[0])  # the library may run the last row alone
                old = noise.get(name, (0.0, 0.0))
                noise[name] = (max(relative, old[0]), max(largest, old[1]))
        del self.model.model.get_placeholder_mask
        return noise

    @contextlib.contextmanager
    def _watched(self):
        """Collects each stage the first time its module runs (that is, in the prefill)."""
        stages, hooks = {}, []

        def keep(name):
            def hook(_module, _inputs, output):
                stages.setdefault(name, _rows(output[0] if isinstance(output, tuple) else output))
            return hook

        def keep_input(_module, args, kwargs):
            stages.setdefault("embeddings", _rows(args[0] if args else kwargs["hidden_states"]))

        m = self.model.model
        vision = getattr(m.vision_tower, "vision_model", m.vision_tower)
        watched = [("patches", vision.embeddings), ("encoder_norm", vision.post_layernorm),
                   ("features", m.multi_modal_projector), ("decoder_norm", m.language_model.norm)]
        watched += [(f"encoder_layer.{i}", layer) for i, layer in enumerate(vision.encoder.layers)]
        watched += [(f"decoder_layer.{i}", layer) for i, layer in enumerate(m.language_model.layers)]
        for name, module in watched:
            hooks.append(module.register_forward_hook(keep(name)))
        hooks.append(m.language_model.layers[0].register_forward_pre_hook(keep_input, with_kwargs=True))
        try:
            yield stages
        finally:
            for hook in hooks:
                hook.remove()


class _Noise:
    """Rounding errors of f32, injected at random where an implementation makes them.

    A dot product of k terms summed in any order has an error of at most about u sqrt(k / 6) of its typical size
    (u = 2^-24; independent roundings, partial sums growing like a random walk); elementwise functions one of a few u;
    a rotary angle is wrong by its own rounding and by that of the frequency. Each is a normal deviate of that size,
    scaled by the root mean square of the row it falls on; equal rows get equal ones, as rounding is a function.
    """

    def __init__(self, model, seed):
        self.model, self.random, self.hooks = model, torch.Generator().manual_seed(seed), []

    def _add(self, x, size):
        scale = x.float().pow(2).mean(-1, keepdim=True).sqrt() * (size * UNIT_ROUNDOFF)
        rows, same_as = torch.unique(x.reshape(-1, x.shape[-1]), dim=0, return_inverse=True)
        deviates = torch.randn(rows.shape, generator=self.random)[same_as].reshape(x.shape)
        return x + (scale * deviates).to(x.dtype)

    def _linear(self, module, _args, output):
        terms = module.weight[0].numel()
        if output.dim() == 4:  # the patch convolution: [1, hidden, rows, columns]
            return self._add(output.movedim(1, -1), math.sqrt(terms / 6)).movedim(-1, 1)
        return self._add(output, math.sqrt(terms / 6))

    def _norm(self, _module, _args, output):
        return self._add(output, 2)

    def _attended(self, _module, args):  # softmax and the sum over the keys
        return (self._add(args[0], math.sqrt(args[0].shape[1] / 6) + 3),)

    def _activated(self, _module, args):
        return (self._add(args[0], 3),)

    def _rotary(self, module, args, kwargs, output):
        positions = kwargs.get("position_ids", args[-1])
        frequency = module.inv_freq.double()
        frequency = frequency * (1 + UNIT_ROUNDOFF * torch.randn(frequency.shape, generator=self.random))
        angle = positions.double()[..., None] * frequency
        angle = angle * (1 + UNIT_ROUNDOFF * torch.randn(angle.shape, generator=self.random))
        angle = torch.cat([angle, angle], -1)
        return angle.cos().to(output[0].dtype), angle.sin().to(output[1].dtype)

    def __enter__(self):
        for name, module in self.model.named_modules():
            last = name.rsplit(".", 1)[-1]
            if isinstance(module, (torch.nn.Linear, torch.nn.Conv2d)):
                self.hooks.append(module.register_forward_hook(self._linear))
            elif "norm" in last:
                self.hooks.append(module.register_forward_hook(self._norm))
            elif last == "rotary_emb":
                self.hooks.append(module.register_forward_hook(self._rotary, with_kwargs=True))
            if last in ("o_proj", "out_proj"):
                self.hooks.append(module.register_forward_pre_hook(self._attended))
            if last in ("down_proj", "fc2"):
                self.hooks.append(module.register_forward_pre_hook(self._activated))

    def __exit__(self, *_):
        for hook in self.hooks:
            hook.remove()


def _rows(x):
    x = x.detach().float()
    return x.reshape(-1, x.shape[-1]).numpy().copy()


def distance(ours, exact):
    """-> (relative L2, largest absolute difference)"""
    difference = ours.astype(np.float64) - exact
    norm = np.linalg.norm(exact.astype(np.float64))
    return float(np.linalg.norm(difference) / (norm or 1.0)), float(np.abs(difference).max(initial=0.0))


def bounds(noise):
    """{stage: (relative L2, max abs)} within which another f32 implementation must lie."""
    return {name: (FACTOR * relative, FACTOR * largest) for name, (relative, largest) in noise.items()}


def compare_stages(ours, result, limits):
    """-> [(stage, relative L2, its bound, max abs, its bound, sound)] in the order of the computation.
    A stage that `ours` lacks is not listed; one with fewer rows is compared with the last rows."""
    table = []
    for name, exact in sorted(result.stages.items(), key=lambda item: _order(item[0])):
        if name not in ours:
            continue
        mine = ours[name]
        if mine.shape[-1] != exact.shape[-1] or mine.shape[0] > exact.shape[0]:
            table.append((name, math.inf, 0.0, math.inf, 0.0, False))
            continue
        relative, largest = distance(mine, exact[-mine.shape[0]:])
        limit = limits.get(name, (0.0, 0.0))  # pixels: equal to the last bit
        sound = bool(np.isfinite(mine).all()) and relative <= limit[0] and largest <= limit[1]
        table.append((name, relative, limit[0], largest, limit[1], sound))
    return table


def first_open_step(result, limits):
    """The first step whose choice is within float noise: ids must be equal before it (both logits may be off)."""
    for t, margin in enumerate(result.margins):
        if margin <= 2 * limits[f"logits.{t}"][1]:
            return t
    return len(result.ids)


ORDER = ["pixels", "patches", "encoder_layer", "encoder_norm", "features", "embeddings", "decoder_layer",
         "decoder_norm", "logits"]


def _order(name):
    stage, _, layer = name.partition(".")
    return ORDER.index(stage), int(layer or 0)
