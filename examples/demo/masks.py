#!/usr/bin/env python3
# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""The mask codes of PaliGemma's answers in torch: 16 codes <-> a mask of 64 x 64, and its place in the image.

The decoder is that of the training code (big_vision's segmentation evaluator): the same layers, shapes and, as the
modules are nested here, the same tensor names as in the published vae-oid.npz, weights in torch's layout. The encoder, which
only training needs, is this demo's own. A mask is -1 outside and 1 inside; the edge is at 0.
"""
import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

SIDE, CODES, CODE_SIZE, GRID = 64, 128, 512, 4


class Residual(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self.net = torch.nn.Sequential(
            torch.nn.Conv2d(width, width, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(width, width, 3, padding=1),
            torch.nn.ReLU(), torch.nn.Conv2d(width, width, 1))

    def forward(self, x):
        return x + self.net(x)


def new_decoder():
    """[B, 512, 4, 4] -> [B, 1, 64, 64]"""
    layers = [torch.nn.Conv2d(CODE_SIZE, 128, 1), torch.nn.ReLU(), Residual(128), Residual(128)]
    for old, new in [(128, 128), (128, 64), (64, 32), (32, 16)]:
        layers += [torch.nn.ConvTranspose2d(old, new, 4, stride=2, padding=1), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers, torch.nn.Conv2d(16, 1, 1))


def new_encoder():
    """[B, 1, 64, 64] -> [B, 512, 4, 4]"""
    layers = []
    for old, new in [(1, 16), (16, 32), (32, 64), (64, 128)]:
        layers += [torch.nn.Conv2d(old, new, 4, stride=2, padding=1), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers, Residual(128), Residual(128), torch.nn.Conv2d(128, CODE_SIZE, 1))


def nearest(rows, codebook):
    """Indices of the codebook's rows that are nearest to rows [N, 512]."""
    return (codebook.pow(2).sum(1) - 2 * rows @ codebook.T).argmin(1)


class Decoder:
    """The codes' masks, from a file of the published names."""

    def __init__(self, file):
        tensors = {name: tensor.float() for name, tensor in load_file(file).items()}
        self.codebook = tensors.pop("_vq_vae._embedding")
        self.network = new_decoder()
        self.network.load_state_dict({name.removeprefix("decoder."): tensor for name, tensor in tensors.items()})
        self.network.eval()

    def __call__(self, codes):
        """codes [B, 16] in reading order -> float32 [B, 64, 64]."""
        codes = torch.as_tensor(codes)
        with torch.inference_mode():
            rows = self.codebook[codes].view(-1, GRID, GRID, CODE_SIZE).permute(0, 3, 1, 2)
            return self.network(rows)[:, 0].numpy()


def in_image(mask, locs, height, width):
    """A decoded mask [64, 64] in its box of an image, as the training code's evaluator puts it: bool [height, width].

    locs: y0, x0, y1, x1 of 0..1023. An empty box gives an empty mask.
    """
    y0, x0, y1, x1 = (int(v / 1023 * n) for v, n in zip(locs, (height, width, height, width)))
    whole = np.zeros((height, width), bool)
    if y1 > y0 and x1 > x0:
        part = Image.fromarray(mask).resize((x1 - x0, y1 - y0), resample=Image.Resampling.BILINEAR)
        whole[y0:y1, x0:x1] = np.asarray(part) > 0
    return whole
