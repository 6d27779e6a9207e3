#!/usr/bin/env python3
# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""Makes the OpenVINO contenders of compare.py from a checkpoint folder, once, into a folder beside it.

    openvino_model.py MODEL [--cache FOLDER] [--only STEP,STEP] [--images 8] [--check [TOKENS]]

It runs in an environment of its own: torch, openvino, nncf, optimum-intel and the transformers that it wants (4.57 for
optimum-intel 2.2.0). Only public calls of these packages are used. The steps, each skipped when its files are there:

    text        decoder and head by optimum-intel's exporter, stateful (the KV cache is inside), bf16 weights. It takes
                embeddings, since those of an image stand among them, and a 4D mask, since image and prompt see each other;
                the head sees the last position alone
    embeddings  the table of the tokens, int8 as optimum-intel stores it for other models that see images
    vision      encoder and projector by openvino.convert_model, f16
    vision-int8 the same by nncf.quantize: weights and activations int8, ranges from --images random images
    text-int8   nncf.compress_weights, int8 symmetric: the CPU plugin quantizes activations while it runs
    text-int4   nncf.compress_weights, int4 symmetric, groups of 128, every layer, the head too
    text-w8a8   nncf.quantize as for vision-int8, on random prompts: only where --only names it

A step that fails leaves nothing that the next run takes for done. --check compares `text` and `vision`, computed in
f32, with transformers in f32: features and logits within 1e-3 of the largest, and the same TOKENS (8) new ones, or exit
status 1. For 3B it needs the memory of transformers in f32, 12 GB. --remove-text deletes the uncompressed `text` (5 GB for
3B) at the end. 3B takes 11 GB of disk; at most 7.3 GiB were resident, files that are mapped counted, in text-int8.
"""
import argparse
import gc
import json
import os
import resource
import subprocess
import sys
import time

import numpy as np

STEPS = ("text", "embeddings", "vision", "vision-int8", "text-int8", "text-int4", "text-w8a8")
GROUP = 128  # columns that share a scale in int4
KINDS = {"f32": ("text", "vision"), "int8": ("text-int8", "vision-int8"), "int4": ("text-int4", "vision-int8"),
         "w8a8": ("text-w8a8", "vision-int8")}
# columns of the activations that the CPU plugin quantizes together: the fastest found; 0: they stay floats
DYNAMIC_GROUP = {"f32": 0, "int8": 256, "int4": GROUP, "w8a8": 0}


def ir(cache, part):
    return os.path.join(cache, part + ".xml")


def read_json(folder, name):
    with open(os.path.join(folder, name), encoding="utf-8") as f:
        return json.load(f)


def disk_mib(cache, kind):
    files = [ir(cache, part) for part in KINDS[kind] + ("embeddings",)]
    return sum(os.path.getsize(f) + os.path.getsize(f[:-3] + "bin") for f in files) / 2 ** 20


# ---- running: numpy and openvino alone ----

class Processor:
    """Prompt and image as transformers' PaliGemmaProcessor gives them, with neither it nor torch in the process."""

    def __init__(self, model):
        from tokenizers import Tokenizer
        self.tokenizer = Tokenizer.from_file(os.path.join(model, "tokenizer.json"))
        config = read_json(model, "config.json")
        self.image = read_json(model, "preprocessor_config.json")
        vision = config["vision_config"]
        self.before = [config["image_token_index"]] * (vision["image_size"] // vision["patch_size"]) ** 2 + \
            [config.get("bos_token_id", 2)]

    def __call__(self, image, prompt):
        """-> (ids, pixels [1, 3, size, size])"""
        from PIL import Image, ImageOps
        pixels = ImageOps.exif_transpose(Image.open(image)).convert("RGB")
        size = self.image["size"]
        pixels = np.asarray(pixels.resize((size["width"], size["height"]), self.image["resample"]), dtype=np.float32)
        pixels = (pixels * np.float32(self.image["rescale_factor"]) - np.float32(self.image["image_mean"])) / \
            np.float32(self.image["image_std"])
        return self.before + self.tokenizer.encode(prompt + "\n", add_special_tokens=False).ids, \
            np.ascontiguousarray(pixels.transpose(2, 0, 1))[None]


def text_inputs(embeddings, past=0):
    """What the decoder is given: rows [1, n, hidden_size] that all see each other and `past` ones. Positions begin at 1."""
    n = embeddings.shape[1]
    return {"inputs_embeds": embeddings, "attention_mask": np.zeros((1, 1, n, past + n), np.float32),
            "position_ids": np.arange(past + 1, past + n + 1, dtype=np.int64)[None], "beam_idx": np.zeros(1, np.int32)}


class Model:
    """What compare.py times. kind: one of KINDS; precision: what the plugin calls INFERENCE_PRECISION_HINT."""

    def __init__(self, model, cache, kind, threads, precision="f32"):
        import openvino
        if kind not in KINDS:
            sys.exit(f"openvino contenders are {', '.join(KINDS)}")
        parts = {part: ir(cache, part) for part in KINDS[kind] + ("embeddings",)}
        missing = [path for path in parts.values() if not os.path.exists(path)]
        if missing:
            sys.exit(f"{', '.join(missing)}: not there; openvino_model.py makes it")
        config = read_json(model, "config.json")
        self.image_id = config["image_token_index"]
        eos = config.get("eos_token_id", config["text_config"].get("eos_token_id", 1))
        self.eos = set(eos if isinstance(eos, list) else [eos])
        self.window = config["text_config"].get("sliding_window", 4096) if \
            config["text_config"]["model_type"] == "gemma2" else None
        settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision,
                    "DYNAMIC_QUANTIZATION_GROUP_SIZE": str(DYNAMIC_GROUP[kind]),
                    "KV_CACHE_PRECISION": "f32" if kind == "f32" else "u8"}
        core = openvino.Core()
        self.vision, self.embeddings, self.text = (
            core.compile_model(parts[part], "CPU", settings).create_infer_request()
            for part in (KINDS[kind][1], "embeddings", KINDS[kind][0]))
        compiled = self.text.get_compiled_model()
        values = {key: compiled.get_property(key) for key in settings}
        self.settings = f"openvino {openvino.__version__.partition('-')[0]}, " + ", ".join(
            f"{key} {value.get_type_name() if isinstance(value, openvino.Type) else value}"
            for key, value in values.items())
        self.past = 0

    def encode_image(self, pixels):
        """pixels [1, 3, size, size] -> features [1, tokens, hidden_size], scaled as the decoder wants them"""
        return self.vision.infer([np.asarray(pixels, dtype=np.float32)])[0].copy()

    def embed(self, ids):
        return self.embeddings.infer([np.asarray([ids], dtype=np.int64)])[0]

    def step(self, embeddings):
        """Rows that all see each other and all before them, as image and prompt do -> logits of the last one."""
        n = embeddings.shape[1]
        if self.window and self.past + n > self.window:
            sys.exit("prompts beyond Gemma 2's sliding window: no mask for them here")
        logits = self.text.infer(text_inputs(embeddings, self.past), share_inputs=True)["logits"][0, -1]
        self.past += n
        return logits

    def prefill(self, ids, features):
        self.text.reset_state()
        self.past = 0
        ids = np.asarray(ids)
        embeddings = self.embed(ids).copy()
        embeddings[0, ids == self.image_id] = features[0]
        return self.step(embeddings)

    def answer(self, ids, pixels, tokens, clock=time.perf_counter):
        """-> (when the image was done, when each token was, the tokens)"""
        features = self.encode_image(pixels)
        image, times, out = clock(), [], []
        logits = self.prefill(ids, features)
        while True:
            out.append(int(logits.argmax()))
            times.append(clock())
            if len(out) == tokens or out[-1] in self.eos:
                return image, times, out
            logits = self.step(self.embed(out[-1:]))


# ---- converting ----

def load(folder, dtype="bfloat16"):
    """The checkpoint (5.9 GB for 3B in bf16)."""
    import torch
    from transformers import PaliGemmaForConditionalGeneration, logging
    logging.set_verbosity_error()
    # sdpa leaves Gemma 2's soft caps out
    attention = "eager" if read_json(folder, "config.json")["text_config"]["model_type"] == "gemma2" else "sdpa"
    return PaliGemmaForConditionalGeneration.from_pretrained(
        folder, dtype=getattr(torch, dtype), attn_implementation=attention, low_cpu_mem_usage=True).eval()


def language_model(model):
    """The decoder with its head as the causal model that the exporter knows; no weight is copied."""
    import torch
    from transformers import AutoModelForCausalLM
    with torch.device("meta"):
        text = AutoModelForCausalLM.from_config(model.config.text_config, dtype=torch.bfloat16,
                                                attn_implementation=model.config.text_config._attn_implementation)
    text.model, text.lm_head = model.model.language_model, model.lm_head
    text.generation_config = None
    return text.eval()


def text_config(config):
    """optimum-intel's export of the decoder from embeddings, with the mask as a matrix of what is added."""
    import torch
    from optimum.exporters.openvino.model_configs import LMInputEmbedsConfigHelper
    from optimum.exporters.tasks import TasksManager

    class WithMask(LMInputEmbedsConfigHelper):
        @property
        def inputs(self):
            return dict(super().inputs, attention_mask={0: "batch_size", 2: "sequence_length", 3: "total_length"})

        def generate_dummy_inputs(self, framework="pt", **kwargs):
            inputs = super().generate_dummy_inputs(framework, **kwargs)
            batch, total = inputs["attention_mask"].shape
            inputs["attention_mask"] = torch.zeros(batch, 1, inputs["inputs_embeds"].shape[1], total)
            return inputs

    make = TasksManager.get_exporter_config_constructor(
        exporter="openvino", task="text-generation-with-past", model_type=config.model_type, library_name="transformers")
    return WithMask(make(config, use_past=True, use_past_in_inputs=True), task="text-generation-with-past")


def write_text(args, path, model):
    from optimum.exporters.openvino.convert import export_pytorch
    text = language_model(model)
    export_pytorch(text, text_config(text.config), path, stateful=True, patch_16bit_model=True,
                   model_kwargs={"logits_to_keep": 1}, library_name="transformers")


def write_embeddings(args, path, model):
    import nncf
    import openvino
    import torch

    class Rows(torch.nn.Module):
        def __init__(self, table):
            super().__init__()
            self.table = table

        def forward(self, input_ids):
            return self.table(input_ids)

    table = torch.nn.Embedding.from_pretrained(model.get_input_embeddings().weight.detach().float())
    ir_ = openvino.convert_model(Rows(table), example_input=torch.zeros(1, 2, dtype=torch.int64),
                                 input=[openvino.PartialShape([1, -1])])
    save(nncf.compress_weights(ir_, mode=nncf.CompressWeightsMode.INT8_SYM), path)


def write_vision(args, path, model):
    import openvino
    import torch

    class Features(torch.nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, pixel_values):
            return self.model.get_image_features(pixel_values)

    # the decoder would be turned into f32 with the rest
    model.model.language_model, model.lm_head = None, None
    gc.collect()
    size = model.config.vision_config.image_size
    with torch.no_grad():
        save(openvino.convert_model(Features(model.model.float()), example_input=torch.zeros(1, 3, size, size),
                                    input=[openvino.PartialShape([1, 3, size, size])]), path)


def random_images(args, shape):
    rng = np.random.default_rng(0)
    return [rng.uniform(-1, 1, shape).astype(np.float32) for _ in range(args.images)]


def quantize(model, inputs, path):
    """Weights and activations int8; ranges of activations are those that the inputs give."""
    import nncf
    # without smoothing, whose copies of the head in f32 would be many times the model; the kernels are the same
    advanced = nncf.AdvancedQuantizationParameters(
        smooth_quant_alphas=nncf.AdvancedSmoothQuantParameters(convolution=-1, matmul=-1))
    save(nncf.quantize(model, nncf.Dataset(inputs), model_type=nncf.ModelType.TRANSFORMER, subset_size=len(inputs),
                       preset=nncf.QuantizationPreset.PERFORMANCE, advanced_parameters=advanced), path)


def write_vision_int8(args, path, _):
    import openvino
    vision = openvino.Core().read_model(ir(args.cache, "vision"))
    quantize(vision, random_images(args, vision.input(0).get_shape()), path)


def write_text_w8a8(args, path, _):
    import openvino
    core, prompts = openvino.Core(), []
    vision, table = (core.compile_model(ir(args.cache, part), "CPU") for part in ("vision", "embeddings"))
    for i, image in enumerate(random_images(args, vision.input(0).get_shape())):
        text = table(np.random.default_rng(i).integers(3, 2000, (1, 16)))[0]
        prompts.append(text_inputs(np.concatenate([vision(image)[0], text], axis=1)))
    del vision, table
    quantize(core.read_model(ir(args.cache, "text")), prompts, path)


def write_text_int8(args, path, _):
    import nncf
    import openvino
    save(nncf.compress_weights(openvino.Core().read_model(ir(args.cache, "text")),
                               mode=nncf.CompressWeightsMode.INT8_SYM), path)


def write_text_int4(args, path, _):
    import nncf
    import openvino
    save(nncf.compress_weights(openvino.Core().read_model(ir(args.cache, "text")), ratio=1.0, group_size=GROUP,
                               mode=nncf.CompressWeightsMode.INT4_SYM, all_layers=True), path)


def save(model, path):
    import openvino
    openvino.save_model(model, path, compress_to_fp16=True)


WRITERS = {"text": write_text, "embeddings": write_embeddings, "vision": write_vision,
           "vision-int8": write_vision_int8, "text-int8": write_text_int8, "text-int4": write_text_int4,
           "text-w8a8": write_text_w8a8}
FROM_CHECKPOINT = ("text", "embeddings", "vision")
NEEDS = {"vision-int8": ["vision"], "text-int8": ["text"], "text-int4": ["text"],
         "text-w8a8": ["text", "vision", "embeddings"]}


def step(args, name):
    """Writes one part under another name first, so that what has its name is whole."""
    path, start = ir(args.cache, name), time.perf_counter()
    needed = [n for n in NEEDS.get(name, []) if not os.path.exists(ir(args.cache, n))]
    if needed:
        sys.exit(f"openvino_model: {name} needs the step {needed[0]}")
    part = ir(args.cache, name + ".part")
    WRITERS[name](args, part, load(args.model) if name in FROM_CHECKPOINT else None)
    os.replace(part[:-3] + "bin", path[:-3] + "bin")
    os.replace(part, path)
    print(f"{name}: {time.perf_counter() - start:.0f} s, {os.path.getsize(path[:-3] + 'bin') / 2 ** 20:,.0f} MiB on "
          f"disk, peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2 ** 20:.1f} GiB resident", flush=True)


def step_apart(args, name):
    """A step in a process of its own, so that its memory is gone after it and its peak is its own."""
    if os.path.exists(ir(args.cache, name)):
        print(f"{name}: there", flush=True)
        return
    print(f"{name} ...", flush=True)
    command = [sys.executable, "-W", "ignore", os.path.abspath(__file__), args.model, "--cache", args.cache,
               "--images", str(args.images), "--step", name]
    status = subprocess.run(command, env=dict(os.environ, HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")).returncode
    if status:
        why = f"killed by signal {-status}, 9: out of memory" if status < 0 else f"status {status}"
        sys.exit(f"openvino_model: step {name} failed ({why}); the next run goes on from it")


# ---- checking: the uncompressed model against transformers, both in f32 ----

def check(args):
    """-> whether they agree"""
    import torch
    import transformers
    model = load(args.model, "float32")
    size, rng = model.config.vision_config.image_size, np.random.default_rng(1)
    count = (size // model.config.vision_config.patch_size) ** 2
    pixels = rng.uniform(-1, 1, (1, 3, size, size)).astype(np.float32)
    ids = [model.config.image_token_id] * count + [model.config.bos_token_id or 2] + \
        rng.integers(3, min(model.config.text_config.vocab_size, 2000), 8).tolist()
    given = dict(input_ids=torch.tensor([ids]), pixel_values=torch.from_numpy(pixels),
                 attention_mask=torch.ones(1, len(ids), dtype=torch.int64),
                 token_type_ids=torch.zeros(1, len(ids), dtype=torch.int64))
    with torch.inference_mode():
        features = model.model.get_image_features(given["pixel_values"]).numpy()
        out = model.generate(**given, max_new_tokens=args.check, do_sample=False, return_dict_in_generate=True,
                             output_logits=True)
    want, reference = out.sequences[0, len(ids):].tolist(), out.logits[0][0].float().numpy()
    table = model.get_input_embeddings().weight.detach().numpy()
    del model
    peer = Model(args.model, args.cache, "f32", args.threads)
    peer.embed = lambda ids: table[ids][None]  # the int8 table would be most of the distance
    found = peer.encode_image(pixels)
    logits = peer.prefill(ids, found)
    off = {"features": np.abs(found - features).max() / np.abs(features).max(),
           "logits": np.abs(logits - reference).max() / np.abs(reference).max()}
    got = peer.answer(ids, pixels, args.check)[2]
    for what, distance in off.items():
        print(f"check: {what}: {distance:.1e} of the largest away from transformers {transformers.__version__}")
    print(f"check: tokens {got}" + ("" if got == want else f", transformers {want}"))
    return max(off.values()) <= 1e-3 and got == want


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("model")
    args.add_argument("--cache", help="the folder that the OpenVINO files go to (default MODEL-openvino)")
    args.add_argument("--only", default=",".join(STEPS[:-1]), help="these steps")
    args.add_argument("--images", type=int, default=8, help="for the ranges of vision-int8 (default 8)")
    args.add_argument("--threads", type=int, default=2, help="of --check (default 2)")
    args.add_argument("--check", type=int, nargs="?", const=8, metavar="TOKENS")
    args.add_argument("--remove-text", action="store_true")
    args.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    args = args.parse_args()
    args.cache = args.cache or os.path.abspath(args.model) + "-openvino"
    os.makedirs(args.cache, exist_ok=True)
    if args.step:
        return step(args, args.step)
    names = args.only.split(",") if args.only else []
    if set(names) - set(STEPS):
        sys.exit(f"openvino_model: steps are {', '.join(STEPS)}")
    for name in (n for n in STEPS if n in names):
        step_apart(args, name)
    agrees = check(args) if args.check else True
    if args.remove_text:
        for file in (ir(args.cache, "text"), ir(args.cache, "text")[:-3] + "bin"):
            if os.path.exists(file):
                os.remove(file)
    return not agrees


if __name__ == "__main__":
    sys.exit(main())
