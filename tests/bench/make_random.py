#!/usr/bin/env python3
# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""Makes a randomly filled checkpoint of the real shapes, streamed to disk in bf16.

    make_random.py VARIANT FOLDER       VARIANT: 3b-224, 3b-448, 3b-896, 2-3b-224, 2-3b-448, 2-3b-896, or small

Weights are normal, scaled by fan-in; the tokenizer is synthetic with the real special ids. 5.9 GB (PaliGemma 2:
6.1 GB), about a minute; at most a few hundred MB of memory. `small` has the same form at 1/2000 of the size.
"""
import argparse
import json
import os
import sys

import numpy as np
import torch
from transformers import Gemma2Config, GemmaConfig, PaliGemmaConfig, PaliGemmaForConditionalGeneration, SiglipVisionConfig

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "oracle"))
import checkpoints  # noqa: E402
import vocabularies  # noqa: E402

IMAGE_ID, ROWS, SHARD_BYTES, BLOCK = 257152, 257216, 2 * 10 ** 9, 1 << 22
TEXT = {1: dict(hidden_size=2048, intermediate_size=16384, num_hidden_layers=18, num_attention_heads=8,
                num_key_value_heads=1),
        2: dict(hidden_size=2304, intermediate_size=9216, num_hidden_layers=26, num_attention_heads=8,
                num_key_value_heads=4, query_pre_attn_scalar=256)}
SMALL = dict(hidden_size=64, intermediate_size=160, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
             head_dim=32)


def config_of(variant):
    """-> (the config's JSON as official folders write it, the config object, gemma_version)"""
    small, gemma_version = variant == "small", 2 if variant.startswith("2-") else 1
    text = dict(SMALL if small else TEXT[gemma_version], vocab_size=ROWS)
    size = 28 if small else int(variant.rsplit("-", 1)[1])
    vision = dict(hidden_size=72, intermediate_size=100, num_hidden_layers=2, num_attention_heads=1) if small else \
        dict(hidden_size=1152, intermediate_size=4304, num_hidden_layers=27, num_attention_heads=16)
    vision.update(image_size=size, patch_size=14, vision_use_head=False, projection_dim=text["hidden_size"])
    common = dict(projection_dim=text["hidden_size"], hidden_size=text["hidden_size"], image_token_index=IMAGE_ID,
                  bos_token_id=2, eos_token_id=1, pad_token_id=0)
    config = PaliGemmaConfig(text_config=(GemmaConfig if gemma_version == 1 else Gemma2Config)(**text),
                             vision_config=SiglipVisionConfig(**vision), **common)
    written = dict(common, architectures=["PaliGemmaForConditionalGeneration"], model_type="paligemma",
                   torch_dtype="bfloat16",
                   text_config=dict(text, model_type="gemma" if gemma_version == 1 else "gemma2", torch_dtype="bfloat16",
                                    num_image_tokens=(size // 14) ** 2),
                   vision_config=dict(vision, model_type="siglip_vision_model"))
    return written, config, gemma_version


def bf16(values):
    """f32 to the bits of bf16, rounded to nearest even."""
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def write_shard(path, tensors, gemma_version, rng):
    """tensors: [(name in the file, name in transformers, shape)]"""
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, _, shape in tensors:
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(len(text).to_bytes(8, "little") + text)
        for _, name, shape in tensors:
            mean, scale = checkpoints.scale_of(name, shape, gemma_version)
            left = int(np.prod(shape))
            while left:
                n = min(left, BLOCK)
                f.write(bf16(np.float32(mean) + np.float32(scale) * rng.standard_normal(n, dtype=np.float32)))
                left -= n


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("variant")
    args.add_argument("folder")
    args.add_argument("--seed", type=int, default=0)
    args = args.parse_args()
    os.makedirs(args.folder, exist_ok=True)
    written, config, gemma_version = config_of(args.variant)
    with torch.device("meta"):
        shapes = {k: tuple(v.shape) for k, v in PaliGemmaForConditionalGeneration(config).state_dict().items()
                  if k != "lm_head.weight"}
    shards, filled = [[]], 0
    for name, shape in shapes.items():
        size = 2 * int(np.prod(shape))
        if filled + size > SHARD_BYTES and shards[-1]:
            shards.append([])
            filled = 0
        shards[-1].append((checkpoints.renamed(name, "before 4.52"), name, shape))
        filled += size
    rng = np.random.Generator(np.random.SFC64(args.seed))
    weight_map = {}
    for i, tensors in enumerate(shards):
        file = f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors"
        write_shard(os.path.join(args.folder, file), tensors, gemma_version, rng)
        weight_map.update({name: file for name, _, _ in tensors})
        print(file, flush=True)
    total = sum(2 * int(np.prod(s)) for s in shapes.values())
    checkpoints.write_json(args.folder, "model.safetensors.index.json",
                           {"metadata": {"total_size": total}, "weight_map": weight_map})
    checkpoints.write_json(args.folder, "config.json", written)
    checkpoints.write_json(args.folder, "generation_config.json",
                           {"_from_model_config": True, "bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0})
    model, tokenizer = vocabularies.build(2000, real_size=True)
    checkpoints.write_processor(args.folder, model, tokenizer,
                                dict(vision=written["vision_config"], resample=3, image={}, files="official"))
    print(f"{sum(int(np.prod(s)) for s in shapes.values()):,} parameters, {total:,} bytes of weights")


if __name__ == "__main__":
    main()
