#!/usr/bin/env python3
# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""Trains the demo's mask codes: an autoencoder whose middle is 16 of 128 codes (a VQ-VAE, masks.py says its layers).

    train_masks.py --run RUN --minutes 6        again after an interruption: goes on where RUN/masks.pt stands

Half of the masks are the demo world's five shapes as boxes of its sizes cut them out, half are drawn at random: polygons,
ellipses, crossed bars. RUN/vae-oid.safetensors (float16: codebook and decoder, named and laid out as in the published
vae-oid.npz) and RUN/codes.json (the 16 codes of each of the world's shapes, which train.py teaches) are written at each save.

The codebook follows the encoder by moving averages; a code that nothing has used for some steps is moved onto a row of the
batch. The loss is the squared distance to a mask of -1 and 1, which is what the published decoder gives too.
"""
import argparse
import json
import math
import os
import time

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from safetensors.torch import save_file

import draw
import masks

OVER = 4  # drawn so much larger


def world_mask(shape, size=masks.SIDE):
    """0..1 [64, 64]: the shape in a box of size pixels, resized as the evaluator resizes, the other way round."""
    whole = Image.fromarray(draw.coverage(shape, size))
    return np.asarray(whole.resize((masks.SIDE, masks.SIDE), Image.Resampling.BILINEAR))


def random_mask(rng):
    """0..1 [64, 64]: something drawn that touches all four sides."""
    kind, n = rng.integers(4), masks.SIDE * OVER
    if kind < 2:  # a polygon around a middle
        corners = int(rng.integers(3, 11))
        angle = np.sort(rng.uniform(0, 2 * math.pi, corners)) if kind else np.linspace(0, 2 * math.pi, corners, False) + rng.random()
        radius = rng.uniform(0.35, 1, corners)
        pieces = [np.stack([radius * np.sin(angle), radius * np.cos(angle)], 1)]
    elif kind == 2:  # an ellipse, turned
        angle, turn = np.linspace(0, 2 * math.pi, 60, False), rng.uniform(0, math.pi)
        y, x = np.sin(angle) * rng.uniform(0.3, 1), np.cos(angle)
        pieces = [np.stack([x * math.cos(turn) - y * math.sin(turn), x * math.sin(turn) + y * math.cos(turn)], 1)]
    else:  # two bars
        pieces = []
        for _ in range(2):
            (a, b), middle, turn = rng.uniform(0.15, 1, 2), rng.uniform(-0.4, 0.4, 2), rng.choice([0, 0, rng.uniform(0, math.pi)])
            corners = np.array([[-a, -b], [a, -b], [a, b], [-a, b]])
            turned = corners @ np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
            pieces.append(turned + middle)
    low, high = np.concatenate(pieces).min(0), np.concatenate(pieces).max(0)
    image = Image.new("L", (n, n))
    pen = ImageDraw.Draw(image)
    for piece in pieces:
        pen.polygon([tuple(p) for p in (piece - low) / np.maximum(high - low, 1e-3) * n], fill=255)
    return np.asarray(image.reduce(OVER), np.float32) / 255


def new_masks(seed, count):
    """float32 [count, 1, 64, 64] of -1..1, half of them the world's."""
    rng = np.random.default_rng([seed, 5])
    sizes = [masks.SIDE] * 2 + list(range(20, 49, draw.GRID))
    found = [world_mask(draw.SHAPES[rng.integers(len(draw.SHAPES))], int(rng.choice(sizes))) if i % 2 else random_mask(rng)
             for i in range(count)]
    return torch.from_numpy(np.stack(found))[:, None] * 2 - 1


def overlap(a, b):
    a, b = a.flatten(1) > 0, b.flatten(1) > 0
    return (a & b).sum(1) / (a | b).sum(1)


class Codebook:
    """Rows that are moving averages of what was nearest to them."""

    def __init__(self):
        self.rows, self.used = torch.randn(masks.CODES, masks.CODE_SIZE) * 0.1, torch.ones(masks.CODES)
        self.sums = self.rows.clone()

    def learn(self, rows, which, keep=0.98):
        hot = F.one_hot(which, masks.CODES).float()
        self.used = self.used * keep + hot.sum(0) * (1 - keep)
        self.sums = self.sums * keep + hot.T @ rows * (1 - keep)
        idle = self.used < 0.05
        if idle.any():
            self.sums[idle] = rows[torch.randint(len(rows), (int(idle.sum()),))]
            self.used[idle] = 1.0
        self.rows = self.sums / self.used[:, None]


def quantize(features, codebook):
    """-> codes' rows in place of the features' (gradients pass through), codes [B, 16], features' rows, how far they are."""
    b = len(features)
    rows = features.permute(0, 2, 3, 1).reshape(-1, masks.CODE_SIZE)
    which = masks.nearest(rows.detach(), codebook)
    taken = codebook[which]
    passed = rows + (taken - rows).detach()
    return (passed.view(b, masks.GRID, masks.GRID, -1).permute(0, 3, 1, 2), which.view(b, -1), rows.detach(),
            F.mse_loss(rows, taken))


def codes_of(encoder, codebook, pictures):
    with torch.no_grad():
        return quantize(encoder(pictures), codebook)[1]


def export(encoder, decoder, codebook, folder):
    tensors = {"decoder." + name: value for name, value in decoder.state_dict().items()} | {"_vq_vae._embedding": codebook}
    save_file({name: value.contiguous().half() for name, value in tensors.items()}, os.path.join(folder, "vae-oid.safetensors"))
    pictures = torch.from_numpy(np.stack([world_mask(shape) for shape in draw.SHAPES]))[:, None] * 2 - 1
    codes = codes_of(encoder, codebook, pictures).tolist()
    with open(os.path.join(folder, "codes.json"), "w") as f:
        f.write("{\n" + ",\n".join(f' "{shape}": {row}' for shape, row in zip(draw.SHAPES, codes)) + "\n}\n")


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--run", required=True)
    args.add_argument("--minutes", type=float, default=6)
    args.add_argument("--batch", type=int, default=64)
    args.add_argument("--rate", type=float, default=1.5e-3)
    args.add_argument("--threads", type=int, default=2)
    args.add_argument("--pool", type=int, default=8000, help="masks that are drawn; batches take them, turned and mirrored")
    args = args.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    os.makedirs(args.run, exist_ok=True)
    pool, fresh = new_masks(1, args.pool), new_masks(0, 400)
    encoder, decoder, codebook = masks.new_encoder(), masks.new_decoder(), Codebook()
    encoder.to(memory_format=torch.channels_last)
    decoder.to(memory_format=torch.channels_last)
    parameters = [*encoder.parameters(), *decoder.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=args.rate, betas=(0.9, 0.98), weight_decay=1e-4)
    state_file, spent, step = os.path.join(args.run, "masks.pt"), 0.0, 0
    if os.path.exists(state_file):
        state = torch.load(state_file, weights_only=True)
        encoder.load_state_dict(state["encoder"])
        decoder.load_state_dict(state["decoder"])
        optimizer.load_state_dict(state["optimizer"])
        codebook.rows, codebook.used, codebook.sums = state["codebook"]
        spent, step = state["spent"], state["step"]

    def save():
        torch.save(dict(encoder=encoder.state_dict(), decoder=decoder.state_dict(), optimizer=optimizer.state_dict(),
                        codebook=[codebook.rows, codebook.used, codebook.sums], spent=spent, step=step), state_file + ".new")
        os.replace(state_file + ".new", state_file)
        export(encoder, decoder, codebook.rows, args.run)

    began, saved = time.time() - spent, time.time()
    while spent < args.minutes * 60:
        rate = args.rate * min(1, (step + 1) / 50) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * spent / (args.minutes * 60))))
        for group in optimizer.param_groups:
            group["lr"] = rate
        pictures = pool[torch.randint(len(pool), (args.batch,))]
        turn = int(torch.randint(8, ()))
        if step % 2 and turn % 4:  # every other batch stands upright, as the world's shapes do
            pictures = torch.rot90(pictures, turn % 4, (2, 3))
        if step % 2 and turn >= 4:
            pictures = pictures.flip(3)
        rows, which, features, far = quantize(encoder(pictures.contiguous(memory_format=torch.channels_last)), codebook.rows)
        out = decoder(rows)
        loss = F.mse_loss(out, pictures)
        optimizer.zero_grad(set_to_none=True)
        (loss + 0.25 * far).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        codebook.learn(features, which.flatten())
        step += 1
        spent = time.time() - began
        if step % 50 == 0:
            with torch.no_grad():
                good = overlap(decoder(quantize(encoder(fresh), codebook.rows)[0]), fresh)
            print(f"step {step}, {spent / 60:.1f} min: loss {loss.item():.4f}, far {far.item():.4f}, codes {len(which.unique())}, "
                  f"IoU of fresh masks: drawn {good[0::2].mean():.3f}, the world's {good[1::2].mean():.3f}", flush=True)
        if time.time() - saved > 60:
            save()
            saved = time.time()
    save()


if __name__ == "__main__":
    main()
