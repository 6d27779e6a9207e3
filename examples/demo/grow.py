#!/usr/bin/env python3
# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""Makes a wider and deeper checkpoint that computes what a demo checkpoint computes, for train.py to go on from.

    grow.py model GROWN                          twice as wide and twice as deep: 14 million parameters
    train.py --run RUN --init GROWN --first-step 20000 --dense-share 0 --minutes 35

Every value of the hidden rows is there twice, so that norms see what they saw. What reads a value twice has its weights
divided between the two at random (--spread 0: in halves): the copies learn different things from the first step.
New layers add nothing until they are trained: their last matrices are zero.
"""
import argparse
import copy
import math
import shutil

import torch
from transformers import PaliGemmaForConditionalGeneration, PaliGemmaProcessor


def twice_in(weight, spread):
    """[out, in] -> [out, 2 in] for inputs that are there twice."""
    share = 0.5 + spread * torch.randn_like(weight)
    return torch.cat([weight * share, weight * (1 - share)], 1)


def twice_out(x):
    """[out, ...] -> [2 out, ...]"""
    return torch.cat([x, x], 0)


def widen_linear(from_, to, spread, outputs=True):
    weight = twice_in(from_.weight, spread)
    to.weight.copy_(twice_out(weight) if outputs else weight)
    if from_.bias is not None:
        to.bias.copy_(twice_out(from_.bias) if outputs else from_.bias)


def widen_norm(from_, to):
    for name, value in from_.named_parameters():
        getattr(to, name).copy_(twice_out(value))


def grown_config(config, deeper):
    config = copy.deepcopy(config)
    for part in (config.vision_config, config.text_config):
        part.hidden_size *= 2
        part.intermediate_size *= 2
        part.num_attention_heads *= 2
        part.num_hidden_layers *= deeper
    config.vision_config.projection_dim = config.projection_dim = config.hidden_size = config.text_config.hidden_size
    return config


def grow_layers(from_, to, deeper, widen, silence):
    for i, layer in enumerate(to):
        widen(from_[i // deeper], layer)
        for linear in silence(layer) if i % deeper else []:
            linear.weight.zero_()
            if linear.bias is not None:
                linear.bias.zero_()


def grow(old, deeper, spread):
    new = PaliGemmaForConditionalGeneration(grown_config(old.config, deeper))
    vision = [getattr(m.model.vision_tower, "vision_model", m.model.vision_tower) for m in (old, new)]
    text = [m.model.language_model for m in (old, new)]

    def widen_vision(a, b):
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            widen_linear(getattr(a.self_attn, name), getattr(b.self_attn, name), spread)
        for name in ("fc1", "fc2"):
            widen_linear(getattr(a.mlp, name), getattr(b.mlp, name), spread)
        for name in ("layer_norm1", "layer_norm2"):
            widen_norm(getattr(a, name), getattr(b, name))

    def widen_text(a, b):
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):  # as many KV heads as before
            widen_linear(getattr(a.self_attn, name), getattr(b.self_attn, name), spread, name in ("q_proj", "o_proj"))
        for name in ("gate_proj", "up_proj", "down_proj"):
            widen_linear(getattr(a.mlp, name), getattr(b.mlp, name), spread)
        for name in ("input_layernorm", "post_attention_layernorm"):
            widen_norm(getattr(a, name), getattr(b, name))

    with torch.no_grad():
        a, b = (v.embeddings for v in vision)
        b.patch_embedding.weight.copy_(twice_out(a.patch_embedding.weight))
        b.patch_embedding.bias.copy_(twice_out(a.patch_embedding.bias))
        b.position_embedding.weight.copy_(torch.cat([a.position_embedding.weight] * 2, 1))
        widen_norm(vision[0].post_layernorm, vision[1].post_layernorm)
        grow_layers(vision[0].encoder.layers, vision[1].encoder.layers, deeper, widen_vision,
                    lambda layer: (layer.self_attn.out_proj, layer.mlp.fc2))
        grow_layers(text[0].layers, text[1].layers, deeper, widen_text,
                    lambda layer: (layer.self_attn.o_proj, layer.mlp.down_proj))
        widen_linear(old.model.multi_modal_projector.linear, new.model.multi_modal_projector.linear, spread)
        # sqrt(hidden_size) times the rows is what the decoder reads; the tied head sums over twice as many values
        text[1].embed_tokens.weight.copy_(torch.cat([text[0].embed_tokens.weight] * 2, 1) / math.sqrt(2))
        text[1].norm.weight.copy_((1 + twice_out(text[0].norm.weight)) / math.sqrt(2) - 1)
    return new


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("model", help="a folder that train.py wrote")
    args.add_argument("out", help="the folder to write, in f32")
    args.add_argument("--deeper", type=int, default=2, help="times as many layers (default 2)")
    args.add_argument("--spread", type=float, default=0.35, help="of the share that one of two copies gets (default 0.35)")
    args.add_argument("--seed", type=int, default=1)
    args = args.parse_args()
    torch.manual_seed(args.seed)
    old = PaliGemmaForConditionalGeneration.from_pretrained(args.model, dtype=torch.float32).eval()
    new = grow(old, args.deeper, args.spread).eval()
    config = new.config.text_config
    ids = torch.cat([torch.full((1, 64), new.config.image_token_index), torch.arange(2, 40)[None]], 1)
    pixels = torch.rand(1, 3, new.config.vision_config.image_size, new.config.vision_config.image_size) * 2 - 1
    with torch.no_grad():
        logits = [m(input_ids=ids, pixel_values=pixels, attention_mask=torch.ones_like(ids)).logits for m in (old, new)]
    print(f"{sum(p.numel() for p in new.parameters()):,} parameters, decoder {config.hidden_size} wide; logits differ by "
          f"{(logits[0] - logits[1]).abs().max().item():.1e} of {logits[0].abs().max().item():.1e}")
    new.save_pretrained(args.out)
    PaliGemmaProcessor.from_pretrained(args.model).save_pretrained(args.out)
    shutil.copy(f"{args.model}/tokenizer.model", args.out)
    shutil.copy(f"{args.model}/preprocessor_config.json", args.out)


if __name__ == "__main__":
    main()
