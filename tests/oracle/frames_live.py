#!/usr/bin/env python3
# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""Random frames, regions of interest and letterboxes through the Python package, beside numpy in double and Pillow:
every byte must be the same.

    frames_live.py [--build BUILD] [--count N] [--seed S]

The reference converts each pixel by the standard's formula in f64, cuts the region out, resizes with Pillow and pastes
onto the background, by the rule of openpi-client's resize_with_pad (Pillow too) or of lerobot's, padded above and left.
"""
import argparse
import os
import pathlib
import sys

import numpy as np
from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "python")]
FORMATS = ["RGB8", "BGR8", "GRAY8", "RGB565", "GRAY16", "NV12", "NV21", "I420", "YUYV", "UYVY"]


def nearest(x):
    return np.clip(np.floor(x * 255 + 0.5 + 1e-9), 0, 255).astype(np.uint8)


def yuv_to_rgb(y, u, v, matrix, full):
    kr, kb = (0.2126, 0.0722) if matrix == "bt709" else (0.299, 0.114)
    luma = y / 255.0 if full else (y - 16.0) / 219.0
    u, v = (u - 128.0) / (255 if full else 224), (v - 128.0) / (255 if full else 224)
    r, b = luma + 2 * (1 - kr) * v, luma + 2 * (1 - kb) * u
    return nearest(np.stack([r, (luma - kr * r - kb * b) / (1 - kr - kb), b], axis=2))


def frame_of(rng, form, w, h, matrix, span, gray):
    """-> bytes of a frame, dense, and its RGB [h, w, 3]."""
    cw, ch = (w + 1) // 2, (h + 1) // 2
    full = span == "full"

    def draw(*shape):
        return rng.integers(0, 256, shape, dtype=np.uint8)

    if form in ("RGB8", "BGR8"):
        pixels = draw(h, w, 3)
        return pixels.tobytes(), pixels if form == "RGB8" else pixels[:, :, ::-1]
    if form == "GRAY8":
        pixels = draw(h, w)
        return pixels.tobytes(), np.repeat(pixels[:, :, None], 3, axis=2)
    if form in ("RGB565", "GRAY16"):
        pixels = rng.integers(0, 65536, (h, w), dtype=np.uint16)
        if form == "RGB565":
            return pixels.tobytes(), nearest(np.stack([(pixels >> 11) / 31, (pixels >> 5 & 63) / 63, (pixels & 31) / 31], 2))
        low, high = gray or (0, 65535)
        return pixels.tobytes(), np.repeat(nearest((pixels.astype(np.float64) - low) / (high - low))[:, :, None], 3, axis=2)
    if form in ("YUYV", "UYVY"):
        units = draw(h, cw, 4)
        y, u, v = (slice(0, 4, 2), 1, 3) if form == "YUYV" else (slice(1, 4, 2), 0, 2)
        luma = units[:, :, y].reshape(h, 2 * cw)[:, :w]
        spread = [np.repeat(units[:, :, k], 2, axis=1)[:, :w].astype(np.float64) for k in (u, v)]
        return units.tobytes(), yuv_to_rgb(luma.astype(np.float64), *spread, matrix, full)
    luma, u, v = draw(h, w), draw(ch, cw), draw(ch, cw)
    chroma = u.tobytes() + v.tobytes() if form == "I420" else np.stack([u, v] if form == "NV12" else [v, u], axis=2).tobytes()
    spread = [np.repeat(np.repeat(k, 2, axis=0)[:h], 2, axis=1)[:, :w].astype(np.float64) for k in (u, v)]
    return luma.tobytes() + chroma, yuv_to_rgb(luma.astype(np.float64), *spread, matrix, full)


def fitted(rgb, fit, width, height, resample, background):
    image = Image.fromarray(np.ascontiguousarray(rgb))
    if fit == "stretch" or image.size == (width, height):
        return np.asarray(image.resize((width, height), resample))
    ratio = max(image.width / width, image.height / height)
    w, h = max(int(image.width / ratio), 1), max(int(image.height / ratio), 1)
    canvas = Image.new("RGB", (width, height), background)
    at = ((width - w) // 2, (height - h) // 2) if fit == "letterbox" else (width - w, height - h)
    canvas.paste(image.resize((w, h), resample), at)
    return np.asarray(canvas)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default=str(ROOT / "build"))
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    os.environ.setdefault("PALIGEMMA_LIBRARY", os.path.join(arguments.build, "lib"))
    import paligemma

    processor = paligemma.AutoImageProcessor.from_pretrained(ROOT / "examples" / "demo" / "model")
    wrong = 0
    for seed in range(arguments.seed * 100000, arguments.seed * 100000 + arguments.count):
        rng = np.random.default_rng(seed)

        def one_of(*values):
            return values[int(rng.integers(len(values)))]

        form, (w, h) = FORMATS[seed % len(FORMATS)], (int(n) for n in rng.integers(1, 300, 2))
        matrix, span, fit = one_of("bt601", "bt709"), one_of("video", "full"), one_of("stretch", "letterbox", "pad_top_left")
        gray = one_of(None, (int(rng.integers(0, 30000)), int(rng.integers(30001, 65536))))
        x, y = int(rng.integers(w)), int(rng.integers(h))
        roi = one_of(None, (x, y, 1 + int(rng.integers(w - x)), 1 + int(rng.integers(h - y))))
        width, height, resample = int(rng.integers(1, 200)), int(rng.integers(1, 200)), int(rng.integers(0, 6))
        background = tuple(int(n) for n in rng.integers(0, 256, 3))
        data, rgb = frame_of(rng, form, w, h, matrix, span, gray)
        part = rgb if roi is None else rgb[roi[1]:roi[1] + roi[3], roi[0]:roi[0] + roi[2]]
        expected = fitted(part, fit, width, height, resample, background)
        frame = paligemma.Frame(data, form, w, h, matrix=matrix, range=span, gray=gray, roi=roi, fit=fit, background=background)
        found = processor(frame, size={"height": height, "width": width}, resample=resample, do_rescale=False,
                          do_normalize=False, return_tensors="np")["pixel_values"][0]
        if not np.array_equal(np.moveaxis(found, 0, -1), expected):
            wrong += 1
            print(f"FAIL seed {seed}: {form} {w} x {h}, {matrix}, {span}, roi {roi}, {fit} to {width} x {height}, filter "
                  f"{resample}", flush=True)
    print(f"{arguments.count - wrong} passed, {wrong} failed")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
