#!/usr/bin/env python3
# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""The mask decoder against a plain reimplementation in torch, with random weights of the published shapes.

    masks_live.py [--seed S] [--count 500] [--build FOLDER]

Each of the N cases has random codes, an image of up to 5000 pixels a side and a box: any, tiny, thin, at the edges,
empty, of the whole image, or out of order, which must have no mask. Every 25 cases new weights are drawn and written
anew: as .npz stored or deflated, in C's order or Fortran's or as f8, or as safetensors in f32, f16 or bf16. The reference
decodes with torch's convolutions, and puts the mask into the box with Pillow, as the training code's evaluator
(big_vision: transfers/segmentation.py) or Hugging Face's demo cut the box. A pixel must be inside where the reference's
value is above NEAR, and outside where it is below -NEAR; those between are counted. Run lengths must be those of
pycocotools.
"""
import ctypes
import os
import tempfile

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from pycocotools import mask as coco
from safetensors.torch import save_file

import pglib
import seeded

NEAR = 1e-4  # of values of about 1
CONVOLUTIONS = {"decoder.0": (128, 512, 1), "decoder.12": (1, 16, 1)}
for block in ("decoder.2.net", "decoder.3.net"):
    CONVOLUTIONS.update({f"{block}.0": (128, 128, 3), f"{block}.2": (128, 128, 3), f"{block}.4": (128, 128, 1)})
TRANSPOSED = {"decoder.4": (128, 128), "decoder.6": (128, 64), "decoder.8": (64, 32), "decoder.10": (32, 16)}


def draw_weights(seed):
    """Weights under which values keep their size from layer to layer, and change their sign over the mask."""
    g = torch.Generator().manual_seed(seed)
    weights = {"_vq_vae._embedding": torch.randn(128, 512, generator=g)}
    for name, (out, of, side) in CONVOLUTIONS.items():
        weights[name + ".weight"] = torch.randn(out, of, side, side, generator=g) * (2 / (of * side * side)) ** 0.5
    for name, (of, out) in TRANSPOSED.items():
        weights[name + ".weight"] = torch.randn(of, out, 4, 4, generator=g) * (2 / (of * 4)) ** 0.5
    for name in [*CONVOLUTIONS, *TRANSPOSED]:
        n = CONVOLUTIONS[name][0] if name in CONVOLUTIONS else TRANSPOSED[name][1]
        weights[name + ".bias"] = torch.randn(n, generator=g) * 0.1
    return weights


def decode(w, codes):
    """codes [16] -> f32 [64, 64]"""
    def layer(name, x, padding=0):
        return F.conv2d(x, w[name + ".weight"], w[name + ".bias"], padding=padding)

    x = w["_vq_vae._embedding"][torch.as_tensor(codes, dtype=torch.long)].view(1, 4, 4, 512).permute(0, 3, 1, 2)
    x = layer("decoder.0", x).relu()
    for block in ("decoder.2.net", "decoder.3.net"):
        y = layer(f"{block}.0", x, 1).relu()
        x = x + layer(f"{block}.4", layer(f"{block}.2", y, 1).relu())
    for name in TRANSPOSED:
        x = F.conv_transpose2d(x, w[name + ".weight"], w[name + ".bias"], stride=2, padding=1).relu()
    return layer("decoder.12", x)[0, 0].numpy()


def write(weights, seed, folder):
    """-> the path, and the weights as they were rounded"""
    kind = ("npz", "npz deflated", "npz f8", "F32", "F16", "BF16", "npz fortran")[seed % 7]
    if kind.startswith("npz"):
        path = os.path.join(folder, "vae-oid.npz")
        arrays = {name: t.numpy().astype(np.float64 if kind.endswith("f8") else np.float32) for name, t in weights.items()}
        if kind.endswith("fortran"):
            arrays = {name: np.asfortranarray(a) for name, a in arrays.items()}
        arrays["encoder.0.weight"] = np.zeros((3, 5), np.int64)  # the published file has an encoder, too
        (np.savez_compressed if kind.endswith("deflated") else np.savez)(path, **arrays)
        return path, weights
    dtype = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}[kind]
    path = os.path.join(folder, "vae-oid.safetensors")
    stored = {name: t.to(dtype).contiguous() for name, t in weights.items()}
    save_file(stored, path)
    return path, {name: t.float() for name, t in stored.items()}


def draw_box(rng):
    kind = rng.integers(6)
    a, b = np.sort(rng.integers(0, 1024, (2, 2)), axis=0)  # y0 x0, y1 x1
    if kind == 0:
        b = np.minimum(a + rng.integers(0, 12, 2), 1023)
    elif kind == 1:
        b[rng.integers(2)] = min(1023, a[rng.integers(2)] + 3)
    elif kind == 2:
        a, b = np.array([0, 0]), np.array([1023, 1023])
    elif kind == 3:
        a[rng.integers(2)], b[rng.integers(2)] = 0, 1023
    elif kind == 4 and rng.integers(2):
        a, b = (b, a) if rng.integers(2) else (np.array([a[0], b[1]]), np.array([b[0], a[1]]))
    return [int(v) for v in (a[0], a[1], b[0], b[1])]


class Case(seeded.SeededCase):
    n_pixels, n_near, n_refused, worst = 0, 0, 0, 0.0

    def run(self, library, decoder, weights):
        rng = np.random.default_rng([self.seed, 79])
        codes = [int(c) for c in rng.integers(0, 128, 16)]
        height, width = (int(2 ** rng.uniform(0, 10)) if rng.integers(20) else int(rng.integers(1024, 5000)) for _ in range(2))
        locs, convention = draw_box(rng), int(rng.integers(2))
        reference = decode(weights, codes)
        c, ours = pglib.binding(), np.empty((64, 64), np.float32)
        library.call("pg_mask_decoder_decode", decoder, (c.i32 * 16)(*codes), ours.ctypes.data_as(c.P(c.f32)))
        size = max(1.0, np.abs(reference).max())
        Case.worst = max(Case.worst, float(np.abs(ours - reference).max() / size))
        wrong = [] if np.abs(ours - reference).max() < NEAR * size else [f"decoded: {np.abs(ours - reference).max()} apart"]
        wrong += self.in_image(library, decoder, reference / size, codes, locs, height, width, convention)
        self.expect(wrong, f"{codes} {locs} of {height} x {width}, convention {(1024, 1023)[convention]}")

    def in_image(self, library, decoder, reference, codes, locs, height, width, convention):
        c = pglib.binding()
        text = "".join(f"<loc{v:04d}>" for v in locs) + "".join(f"<seg{v:03d}>" for v in codes) + " cat"
        options = c.AnswerOptions(width=width, height=height, convention=convention)
        answer, mask = c.c_void_p(), np.full((height, width), 7, np.uint8)
        library.call("pg_answer_create_from_text", text.encode(), len(text), ctypes.byref(options), ctypes.byref(answer))
        try:
            if locs[2] < locs[0] or locs[3] < locs[1]:
                Case.n_refused += 1
                status = c.lib.pg_answer_get_mask(answer, 0, decoder, mask.ctypes.data, mask.size)
                return [] if status == c.ERROR_NOT_FOUND and (mask == 7).all() else [f"a box out of order gave {status}"]
            library.call("pg_answer_get_mask", answer, 0, decoder, mask.ctypes.data, mask.size)
        finally:
            pglib.binding().lib.pg_answer_close(ctypes.byref(answer))
        sides = (height, width, height, width)
        y0, x0, y1, x1 = ([int(v / 1023 * n) for v, n in zip(locs, sides)] if convention
                          else [round(v / 1024 * n) for v, n in zip(locs, sides)])
        whole = np.full((height, width), -1.0, np.float32)
        if y1 > y0 and x1 > x0:
            whole[y0:y1, x0:x1] = np.asarray(Image.fromarray(reference).resize((x1 - x0, y1 - y0), Image.Resampling.BILINEAR))
        inside, near = mask >= 128, np.abs(whole) <= NEAR
        Case.n_pixels, Case.n_near = Case.n_pixels + mask.size, Case.n_near + int(near.sum())
        wrong = int(((inside != (whole > 0)) & ~near).sum())
        rle = coco.encode(np.asfortranarray(inside.astype(np.uint8)))
        found = ctypes.create_string_buffer(len(rle["counts"]) + 64)
        needed = c.c_size_t()
        library.call("pg_mask_get_rle", mask.ctypes.data, width, height, found, len(found), ctypes.byref(needed))
        return ([f"{wrong} pixels of {mask.size} are on the other side"] if wrong else []) + (
            [] if found.value == rle["counts"] and needed.value == len(rle["counts"]) + 1 else ["another run-length text"])


def main():
    args = seeded.arguments(__doc__, 500).parse_args()
    torch.set_num_threads(1)
    library, passed, failed, decoder = pglib.Library(args.build), 0, 0, ctypes.c_void_p()
    seeds = seeded.seeds(args.seed, args.count)
    for seed in seeds:
        if seed % 25 == 0 or seed == seeds[0]:
            pglib.binding().lib.pg_mask_decoder_close(ctypes.byref(decoder))
            with tempfile.TemporaryDirectory() as folder:
                path, weights = write(draw_weights(seed), seed // 25, folder)
                library.call("pg_mask_decoder_open", (path if seed % 2 else folder).encode(), None, ctypes.byref(decoder))
        case = Case(seed, "")
        case.run(library, decoder, weights)
        passed, failed = passed + case.passed, failed + case.failed
    pglib.binding().lib.pg_mask_decoder_close(ctypes.byref(decoder))
    print(f"{Case.n_pixels} pixels, {Case.n_near} of them within {NEAR} of the edge; decoded values at most {Case.worst:.1e} apart;"
          f" {Case.n_refused} boxes out of order")
    seeded.end(passed, failed)


if __name__ == "__main__":
    main()
