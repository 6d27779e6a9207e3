#!/usr/bin/env python3
# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""Random small PaliGemma checkpoints, in every form that users have them in.

    checkpoints.py --seed 7 FOLDER      writes one and prints what was drawn

Everything follows from the seed: draw() chooses the architecture and the form of the files, write() makes them.
Weights are scaled so that activations stay near 1, the text depends on image and prompt, and greedy choices are
rarely close.
"""
import argparse
import json
import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np  # noqa: E402
import torch  # noqa: E402
from transformers import (Gemma2Config, GemmaConfig, PaliGemmaConfig, PaliGemmaForConditionalGeneration,  # noqa: E402
                          PaliGemmaProcessor, SiglipVisionConfig, logging)
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil  # noqa: E402

import vocabularies  # noqa: E402

logging.set_verbosity_error()
logging.disable_progress_bar()

TORCH = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
NAMES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
LAYOUTS = {  # how each layout writes the names of transformers 5.23's state dict
    "before 4.52": [("model.vision_tower.", "vision_tower.vision_model."),
                    ("model.multi_modal_projector.", "multi_modal_projector."),
                    ("model.language_model.", "language_model.model."), ("lm_head.", "language_model.lm_head.")],
    "4.52": [("model.vision_tower.", "model.vision_tower.vision_model.")],
    "5.23": [("model.vision_tower.", "vision_tower."), ("model.multi_modal_projector.", "multi_modal_projector."),
             ("model.language_model.", "language_model.model."), ("lm_head.", "language_model.lm_head.")],
}


def draw(seed):
    """-> the description of a checkpoint: plain JSON, so that it can be printed and changed."""
    rng = np.random.default_rng([seed, 1])

    def pick(values, p=None):
        return np.array(values, dtype=object)[rng.choice(len(values), p=p)]

    def between(low, high):
        return int(rng.integers(low, high + 1))

    patch = pick([7, 14])
    heads, head_dim = between(1, 4), pick([4, 12, 18, 33, 72])
    vision = dict(hidden_size=heads * head_dim, num_attention_heads=heads, num_hidden_layers=between(1, 4),
                  intermediate_size=between(17, 190), patch_size=patch, image_size=between(28, 112),
                  layer_norm_eps=pick([1e-6, 1e-5], [0.8, 0.2]))
    gemma_version = between(1, 2)
    heads = pick([1, 2, 3, 4, 6, 8])
    text = dict(hidden_size=heads * between(20 // heads + 1, 130 // heads), num_attention_heads=heads,
                num_key_value_heads=pick([h for h in range(1, heads + 1) if heads % h == 0]),
                head_dim=2 * between(2, 24), num_hidden_layers=between(1, 4), intermediate_size=between(17, 190),
                rms_norm_eps=pick([1e-6, 1e-5], [0.8, 0.2]))
    if gemma_version == 1:
        text["hidden_size"] += between(0, 5)  # Gemma 1 allows any
        if seed % 5 == 0:  # a key of Gemma 2, which PaliGemma's head follows in both
            text["final_logit_softcapping"] = float(1 + seed % 7)
    else:
        text.update(query_pre_attn_scalar=text["head_dim"] + between(1, 30),
                    sliding_window=pick([between(8, 64), between(8, 64), between(100, 300), 4096]),
                    attn_logit_softcapping=pick([50.0, float(between(2, 20)), None], [0.6, 0.3, 0.1]),
                    final_logit_softcapping=pick([30.0, float(between(3, 20)), None], [0.6, 0.3, 0.1]))
        if rng.random() < 0.2:
            text["layer_types"] = [pick(["sliding_attention", "full_attention"]) for _ in range(text["num_hidden_layers"])]
    if rng.random() < 0.2:  # "gelu" is the exact one, but in Gemma 1 a legacy name of the tanh approximation
        vision["hidden_act"] = pick(["gelu", "silu", "relu"])
        text["hidden_act" if gemma_version == 1 else "hidden_activation"] = pick(["gelu", "silu", "relu"])
    image = {}
    if rng.random() < 0.3:
        image = dict(image_mean=rng.uniform(0.2, 0.7, 3).round(8).tolist(), image_std=rng.uniform(0.2, 0.7, 3).tolist(),
                     rescale_factor=pick([1 / 255, 1 / 127.5, 0.004]), do_rescale=bool(rng.random() < 0.9),
                     do_normalize=bool(rng.random() < 0.8))
        if not image["do_rescale"]:
            image.update(image_mean=[100.0, 110.0, 120.5], image_std=[60.0, 55.5, 70.0], do_normalize=True)
    layout = pick(list(LAYOUTS))
    head = pick(["tied", "tied and written", "head only", "own"], [0.5, 0.2, 0.15, 0.15])
    return dict(
        seed=seed, gemma_version=gemma_version, vision=vision, text=text,
        rope_theta=pick([10000.0, float(between(100, 100000))], [0.75, 0.25]),
        n_learned=between(20, 900), extra_rows=pick([0, 1, 64, between(2, 100)]), padding_rows=pick(["zero", "random"]),
        layout=layout, dtype=pick(["F32", "BF16", "F16", "mixed"]),
        head=head,
        pooling_head=bool(rng.random() < 0.15), shards=pick([1, 1, between(2, 6)]), unaligned=bool(rng.random() < 0.3),
        config=pick(["sparse", "5.23", "full"]),
        files=pick(["official", "official", "no tokenizer.model", "5.23", "5.23"]), image=image,
        save_pretrained=layout == "5.23" and head in ("tied", "own") and bool(rng.random() < 0.7),
        resample=pick([3, 3, 3, 3, 0, 1, 2, 4, 5]), eos=pick([1, "list"]), generation_file=bool(rng.random() < 0.85))


def build_config(spec, n_pieces):
    text_class = {1: GemmaConfig, 2: Gemma2Config}[spec["gemma_version"]]
    rows = n_pieces + spec["extra_rows"]
    text = text_class(vocab_size=rows, rope_parameters={"rope_type": "default", "rope_theta": spec["rope_theta"]},
                      **spec["text"])
    vision = SiglipVisionConfig(vision_use_head=False, **spec["vision"])
    hidden = spec["text"]["hidden_size"]
    return PaliGemmaConfig(vision_config=vision, text_config=text, projection_dim=hidden, hidden_size=hidden,
                           image_token_index=n_pieces, vocab_size=n_pieces, bos_token_id=2, eos_token_id=1,
                           pad_token_id=0, tie_word_embeddings=spec["head"] != "own")


def scale_of(name, shape, gemma_version):
    """-> (mean, standard deviation) of the random weights of a tensor, by its role."""
    part = name.split(".")
    fan_in = int(np.prod(shape[1:]))
    if "vision_tower" in name and "norm" in part[-2]:
        return (1.0, 0.2) if part[-1] == "weight" else (0.0, 0.1)
    if part[-1] == "bias":
        return 0.0, 0.1
    if name.endswith("language_model.norm.weight"):
        return -1.0, 2.0  # signs of both kinds: a token does not predict itself
    if len(shape) == 1:
        return (1.0, 0.5) if gemma_version == 2 and "post_attention" in name else (0.0, 0.3)
    if "position_embedding" in name:
        return 0.0, 0.5
    if "embed_tokens" in name or "lm_head" in name:
        return 0.0, fan_in ** -0.5
    return 0.0, (2.5 if "language_model" in name and "self_attn" in name else 1.5) * fan_in ** -0.5


def fill(model, spec, n_pieces, quiet):
    """Random weights. `quiet`: ids of tokens that shall be chosen less often."""
    rng = np.random.default_rng([spec["seed"], 2])
    for name, p in model.named_parameters():
        mean, scale = scale_of(name, p.shape, spec["gemma_version"])
        value = torch.from_numpy((mean + scale * rng.standard_normal(tuple(p.shape))).astype(np.float32))
        if "embed_tokens" in name or "lm_head" in name:
            value[quiet] *= 0.7
            if spec["padding_rows"] == "zero":
                value[n_pieces + 1:] = 0
        p.data.copy_(value)
    model.tie_weights()


def renamed(name, layout):
    for old, new in LAYOUTS[layout]:
        if name.startswith(old):
            return new + name[len(old):]
    return name


def write_safetensors(path, tensors, unaligned=False):
    """tensors: {name: torch tensor}. unaligned: the data begins at an odd offset, which the format allows."""
    header, offset, blocks = {"__metadata__": {"format": "pt"}}, 0, []
    for name, tensor in tensors.items():
        block = tensor.contiguous().view(torch.uint8 if tensor.dim() else torch.int8).numpy().tobytes()
        kind = next(k for k, v in TORCH.items() if v == tensor.dtype)
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [offset, offset + len(block)]}
        offset += len(block)
        blocks.append(block)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8 + (5 if unaligned else 0))
    with open(path, "wb") as f:
        f.write(len(text).to_bytes(8, "little") + text + b"".join(blocks))


def write_weights(folder, model, spec):
    rng = np.random.default_rng([spec["seed"], 3])
    tensors = {}
    for name, value in model.state_dict().items():
        if name == "lm_head.weight" and spec["head"] == "tied":
            continue
        if name.endswith("embed_tokens.weight") and spec["head"] == "head only":
            continue
        kind = spec["dtype"] if spec["dtype"] != "mixed" else list(TORCH)[rng.integers(3)]
        if name.endswith("embed_tokens.weight"):
            embedding_kind = kind
        if name == "lm_head.weight" and spec["head"] == "tied and written":
            kind = embedding_kind  # the same values, whichever of the two a reader takes
        tensors[renamed(name, spec["layout"])] = value.to(TORCH[kind])
    if spec["pooling_head"]:  # a pooling head that nobody uses
        prefix = renamed("model.vision_tower.", spec["layout"])
        tensors[prefix + "head.probe"] = torch.zeros(1, 1, spec["vision"]["hidden_size"])
    names = list(tensors)
    rng.shuffle(names)
    n = min(spec["shards"], len(names))
    groups = [names[i::n] for i in range(n)]
    files = ["model.safetensors"] if n == 1 else [f"model-{i + 1:05d}-of-{n:05d}.safetensors" for i in range(n)]
    for file, group in zip(files, groups):
        write_safetensors(os.path.join(folder, file), {k: tensors[k] for k in group}, spec["unaligned"])
    if n > 1:
        size = sum(t.numel() * t.element_size() for t in tensors.values())
        write_json(folder, "model.safetensors.index.json", {
            "metadata": {"total_size": size}, "weight_map": {k: f for f, group in zip(files, groups) for k in group}})


def write_json(folder, name, value):
    with open(os.path.join(folder, name), "w") as f:
        json.dump(value, f, indent=2)


def write_config(folder, config, spec):
    dtype = NAMES.get(spec["dtype"], "float32")
    if spec["config"] == "5.23":
        config.dtype = dtype
        config.architectures = ["PaliGemmaForConditionalGeneration"]
        config.save_pretrained(folder)
        return
    whole = config.to_dict()
    if spec["config"] == "sparse":  # as the official ones: only what differs from the class's default, and a few more
        tokens = (spec["vision"]["image_size"] // spec["vision"]["patch_size"]) ** 2
        sparse = {}
        for part, default in [("text_config", type(config.text_config)()), ("vision_config", SiglipVisionConfig())]:
            default = default.to_dict()
            sparse[part] = {k: v for k, v in whole[part].items() if k in default and v != default[k]}
            sparse[part].update(model_type=whole[part]["model_type"], num_image_tokens=tokens)
            sparse[part].pop("use_bidirectional_attention", None)
            if part == "text_config" and spec["gemma_version"] == 2 and "layer_types" not in spec["text"]:
                sparse[part].pop("layer_types", None)
        sparse["text_config"]["torch_dtype"] = dtype
        sparse["vision_config"].update(projection_dim=config.projection_dim, projector_hidden_act="gelu_fast")
        keys = ["bos_token_id", "eos_token_id", "pad_token_id", "hidden_size", "image_token_index", "projection_dim"]
        whole = dict(sparse, **{k: getattr(config, k) for k in keys})
        if not config.tie_word_embeddings:
            whole["tie_word_embeddings"] = False
        rope = sparse["text_config"].pop("rope_parameters", None)
        if rope and rope["rope_theta"] != 10000.0:
            sparse["text_config"]["rope_theta"] = rope["rope_theta"]
    else:  # as 4.x dumped them: every default written out
        text = whole["text_config"]
        text["rope_theta"] = text.pop("rope_parameters")["rope_theta"]
        text["rope_scaling"] = None
        text["use_bidirectional_attention"] = None
        if spec["gemma_version"] == 1:
            text["hidden_activation"] = None
        whole["_vocab_size"] = whole.pop("vocab_size")
    whole.update(architectures=["PaliGemmaForConditionalGeneration"], model_type="paligemma", ignore_index=-100,
                 torch_dtype=dtype)
    write_json(folder, "config.json", whole)


def write_processor(folder, sentencepiece_model, tokenizer, spec):
    size, patch = spec["vision"]["image_size"], spec["vision"]["patch_size"]
    settings = dict(size={"height": size, "width": size}, resample=spec["resample"], image_mean=[0.5] * 3,
                    image_std=[0.5] * 3, do_normalize=True, do_rescale=True, rescale_factor=1 / 255)
    settings.update(spec["image"])
    images = SiglipImageProcessorPil(**settings)
    images.image_seq_length = (size // patch) ** 2
    if spec["files"] == "5.23":
        PaliGemmaProcessor(images, tokenizer).save_pretrained(folder)
        return
    vocabularies.save_official(folder, sentencepiece_model, tokenizer)
    if spec["files"] == "no tokenizer.model":
        os.remove(os.path.join(folder, "tokenizer.model"))
    write_json(folder, "preprocessor_config.json", dict(
        settings, do_convert_rgb=None, do_resize=True, image_processor_type="SiglipImageProcessor",
        image_seq_length=images.image_seq_length, processor_class="PaliGemmaProcessor"))


def write(spec, folder):
    """Writes the checkpoint that `spec` describes."""
    os.makedirs(folder, exist_ok=True)
    sentencepiece_model, tokenizer = vocabularies.build(spec["n_learned"])
    n_pieces = len(sentencepiece_model.pieces)
    config = build_config(spec, n_pieces)
    model = PaliGemmaForConditionalGeneration(config).eval()
    fill(model, spec, n_pieces, list(range(n_pieces - 1152, n_pieces)))
    eos = 1 if spec["eos"] == 1 else [1] + np.random.default_rng([spec["seed"], 4]).integers(4, n_pieces, 12).tolist()
    model.generation_config.eos_token_id = eos
    if spec["save_pretrained"] and spec["dtype"] != "mixed":
        size = sum(p.numel() for p in model.parameters()) * TORCH[spec["dtype"]].itemsize
        model.to(TORCH[spec["dtype"]]).save_pretrained(folder, max_shard_size=size // spec["shards"] + 4096)
    else:
        write_weights(folder, model, spec)
        write_config(folder, config, spec)
        model.generation_config.save_pretrained(folder)
    if not spec["generation_file"]:  # then the config's eos counts
        os.remove(os.path.join(folder, "generation_config.json"))
    write_processor(folder, sentencepiece_model, tokenizer, spec)


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--seed", type=int, required=True)
    args.add_argument("folder")
    args = args.parse_args()
    spec = draw(args.seed)
    write(spec, args.folder)
    print(json.dumps(spec, indent=1))


if __name__ == "__main__":
    main()
