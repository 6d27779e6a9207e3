#!/usr/bin/env python3
# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""Random PNG and JPEG files through the library and through transformers: every pixel must be the same.

    images_live.py [--seed S] [--count 1000] [--build FOLDER] [--only CASE]

Case S is drawn from seed S alone. PNGs are of every colour type, depth and interlace, with and without tRNS in its
forms, palettes of every length, pixels in several chunks; JPEGs of every sampling, progressive, with restart markers,
grey, RGB, YCC, CMYK and YCCK; both with and without EXIF. Half of the cases are whole, half damaged. Each is opened by
path in a folder whose do_convert_rgb is true and in one where it is null, and with PG_ENCODE_OVER_WHITE, against the
same file opened by Pillow. Images are at most SIDE pixels wide and high
and enlarged to SIDE x SIDE without interpolation, so each pixel of the file is compared.

What is whole, both must open. What is damaged, both must refuse or both open, but for the kinds of damage in STRICTER
(the library may refuse alone) and LAXER (Pillow may), see docs/PROCESSOR.md.
"""
import collections
import json
import os
import shutil
import struct
import sys
import tempfile
import traceback
import warnings
import zlib

import numpy as np
from PIL import Image, ImageOps
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

import compare
import pglib
import seeded

sys.path.insert(0, os.path.join(compare.ROOT, "tests", "golden"))
import make_images  # noqa: E402

SIDE = 48
DEMO = os.path.join(compare.ROOT, "examples", "demo", "model")
BEHIND = "truncated behind the last pixel"  # in checksums, or in a chunk that follows
STRICTER = {"PNG: checksum of IDAT", "PNG: a bit of IDAT", f"PNG: {BEHIND}"}
LAXER = {f"PNG: {BEHIND}"}
PNG_KINDS = [(0, 1), (0, 2), (0, 4), (0, 8), (0, 16), (2, 8), (2, 16), (3, 1), (3, 2), (3, 4), (3, 8), (4, 8), (4, 16),
             (6, 8), (6, 16)]
OPENED = "opened by Pillow"
SAMPLINGS = [(1, 1), (2, 1), (1, 2), (2, 2), (4, 1), (1, 4), (4, 2), (2, 4)]


def make_folder(folder, do_convert_rgb):
    """The demo's tokenizer, and settings that enlarge an image and do nothing else."""
    os.makedirs(folder)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        if os.path.exists(os.path.join(DEMO, name)):
            shutil.copy(os.path.join(DEMO, name), folder)
    settings = dict(image_processor_type="SiglipImageProcessor", image_seq_length=1, do_convert_rgb=do_convert_rgb,
                    do_resize=True, resample=0, size=dict(height=SIDE, width=SIDE), do_rescale=False,
                    do_normalize=False)
    with open(os.path.join(folder, "preprocessor_config.json"), "w") as file:
        json.dump(settings, file)
    return folder


# ---- PNG


def random_trns(rng, color, depth, samples):
    """A tRNS chunk of some form; its colour is often one of the image."""
    if color == 3:
        alpha = bytearray(rng.choice([0, 255, 128], int(rng.integers(0, 7)), p=[0.3, 0.5, 0.2]).astype(np.uint8))
        if rng.random() < 0.5:
            alpha = bytearray(b"\xff" * int(rng.integers(1, 5)))
            alpha[rng.integers(len(alpha))] = 0
        return bytes(alpha)
    pixel = samples[rng.integers(samples.shape[0]), rng.integers(samples.shape[1])].astype(int)
    kind = rng.random()
    if kind < 0.2:
        pixel = rng.integers(0, 65536, len(pixel))
    elif kind < 0.4 and depth == 16:  # what Pillow compares: high bytes of pixels with low bytes of the chunk
        pixel = pixel >> 8
    elif kind < 0.5 and depth < 8:
        pixel = pixel * (255 // ((1 << depth) - 1))
    return struct.pack(f">{len(pixel)}H", *(int(v) for v in pixel))


def random_png(rng):
    """-> (a PNG, what it is)"""
    color, depth = PNG_KINDS[rng.integers(len(PNG_KINDS))]
    interlace = int(rng.integers(2))
    width, height = (int(v) for v in rng.integers(1, SIDE + 1, 2))
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color]
    samples = rng.integers(0, 1 << depth, (height, width, channels))
    if rng.random() < 0.5:  # few colours
        samples = rng.integers(0, 1 << depth, 3)[rng.integers(0, 3, samples.shape)]
    if depth == 16 and color == 0:
        samples = np.where(rng.random(samples.shape) < 0.6, samples % 300, samples)
    n_colors = int(rng.integers(1, (1 << depth) + 1)) if color == 3 else 0
    palette = rng.integers(0, 256, 3 * n_colors, dtype=np.uint8).tobytes() if color == 3 else None
    before = after = b""
    what = f"PNG {color}/{depth}, interlace {interlace}, {width}x{height}"
    if color in (0, 2, 3) and rng.random() < 0.6:
        trns = random_trns(rng, color, depth, samples)
        before += make_images.chunk(b"tRNS", trns)
        what += f", tRNS {trns.hex()}"
    if rng.random() < 0.3:
        before += make_images.chunk(b"gAMA", struct.pack(">I", 22222))
    if rng.random() < 0.3:
        text = make_images.chunk(b"tEXt", b"Title\0some words")
        before, after = (before + text, after) if rng.random() < 0.5 else (before, after + text)
    if rng.random() < 0.4:
        orientation = int(rng.integers(1, 9))
        exif = make_images.chunk(b"eXIf", make_images.exif_bytes(orientation))
        before, after = (before + exif, after) if rng.random() < 0.5 else (before, after + exif)
        what += f", orientation {orientation}"
    split = int(rng.integers(1, 60)) if rng.random() < 0.3 else None
    data = make_images.png(rng, width, height, color, depth, interlace, before, after, palette, samples, split)
    return data, what


def png_chunks(data):
    """-> [(offset, kind, size)], the last one perhaps truncated"""
    out, at = [], 8
    while at + 8 <= len(data):
        size, = struct.unpack(">I", data[at : at + 4])
        out.append((at, data[at + 4 : at + 8], size))
        at += 12 + size
    return out


def unpacked_size(data):
    """The bytes that the pixels of a PNG, truncated or not, unpack to."""
    packed = b"".join(data[at + 8 : at + 8 + size] for at, kind, size in png_chunks(data) if kind == b"IDAT")
    return len(zlib.decompressobj().decompress(packed))


def damage_png(rng, data):
    """-> (the file damaged, how)"""
    chunks = png_chunks(data)
    pixels = [c for c in chunks if c[1] == b"IDAT"]
    others = [c for c in chunks if c[1] in (b"tEXt", b"gAMA", b"tRNS", b"eXIf", b"PLTE")]
    kind = rng.integers(5)
    if kind == 0:
        cut = data[: rng.integers(len(data))]
        return cut, BEHIND if unpacked_size(cut) == unpacked_size(data) else "truncated"
    if kind == 1 and others:  # a wrong checksum beside the pixels
        at, name, size = others[rng.integers(len(others))]
        where = "before" if at < pixels[0][0] else "after"
        return _flipped(data, at + 8 + size + int(rng.integers(4))), f"checksum of a chunk {where} IDAT"
    if kind == 2:
        at, _, size = pixels[rng.integers(len(pixels))]
        return _flipped(data, at + 8 + size + int(rng.integers(4))), "checksum of IDAT"
    if kind == 3:  # one bit of the compressed pixels, its checksum as it was
        at, _, size = pixels[rng.integers(len(pixels))]
        return (_flipped(data, at + 8 + int(rng.integers(size))), "a bit of IDAT") if size else (data, "")
    return data[:-12], "without IEND"


def _flipped(data, at):
    return data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :]


# ---- JPEG


def random_jpeg(rng):
    """-> (a JPEG, what it is)"""
    width, height = (int(v) for v in rng.integers(1, SIDE + 1, 2))
    exif = b""
    what = f"{width}x{height}"
    if rng.random() < 0.4:
        orientation = int(rng.integers(1, 9))
        exif = make_images.segment(0xE1, b"Exif\0\0" + make_images.exif_bytes(orientation))
        what += f", orientation {orientation}"
    if rng.random() < 0.5:  # random coefficients, in samplings that Pillow does not write
        n = int(rng.choice([1, 3, 4], p=[0.2, 0.5, 0.3]))
        sampling = [SAMPLINGS[rng.integers(len(SAMPLINGS))]] + [(1, 1)] * (n - 1)
        if rng.random() < 0.3:
            sampling[n - 1] = sampling[0]
        if sum(h * v for h, v in sampling) > 10:  # more blocks than an MCU may have
            sampling = [(1, 1)] * n
        adobe = int(rng.integers(0, 3)) if rng.random() < 0.5 else None
        ids = [82, 71, 66] if n == 3 and rng.random() < 0.2 else None
        restart = int(rng.integers(0, 4))
        data = make_images.jpeg(int(rng.integers(1 << 30)), width, height, sampling, ids, adobe, restart)
        what += f", sampling {sampling}, adobe {adobe}, ids {ids}, restart {restart}"
        return data[:2] + exif + data[2:], f"JPEG {what}"
    mode = str(rng.choice(["L", "RGB", "CMYK"], p=[0.2, 0.5, 0.3]))
    image = make_images.drawing(rng, width, height).convert(mode)
    options = dict(quality=int(rng.integers(1, 101)), progressive=bool(rng.integers(2)), optimize=bool(rng.integers(2)))
    if mode == "RGB":
        options.update([("keep_rgb", True) if rng.random() < 0.2 else ("subsampling", int(rng.integers(3)))])
    if rng.random() < 0.3:
        options["restart_marker_blocks"] = int(rng.integers(1, 5))
    data = make_images.saved(image, "JPEG", **options)
    return data[:2] + exif + data[2:], f"JPEG {mode} {what}, {options}"


def damage_jpeg(rng, data):
    kind = rng.integers(4)
    at = int(rng.integers(data.index(b"\xff\xda") + 10, len(data) - 2))  # behind the header of the first scan
    if kind == 0:
        return data[: rng.integers(len(data))], "truncated"
    if kind == 1:
        return _flipped(data, at), "a bit of the scans"
    if kind == 2:
        return data[:-2], "without EOI"
    return data[:at] + bytes(rng.integers(0, 255, int(rng.integers(1, 6)), dtype=np.uint8)) + data[at:], "bytes added"


# ---- both sides


def draw(seed):
    """-> (the file, what it is, how it is damaged or "")"""
    rng = np.random.default_rng([seed, 41])
    make, damage = (random_png, damage_png) if rng.random() < 0.6 else (random_jpeg, damage_jpeg)
    data, what = make(rng)
    how = ""
    if rng.random() < 0.5:
        data, how = damage(rng, data)
    return data, what, how


def theirs(processor, path):
    """-> pixels, or what transformers raises"""
    try:
        return processor(processor.fetch_images(path), return_tensors="np")["pixel_values"]
    except Exception as error:  # Pillow has many kinds
        return f"{type(error).__name__}: {error}"


def theirs_opened(processor, path):
    """-> pixels of the file as a PIL image, or what transformers raises"""
    try:
        with Image.open(path) as image:
            image.load()
            return processor(ImageOps.exif_transpose(image), return_tensors="np")["pixel_values"]
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def ours(processor, path, flags=0):
    try:
        with processor.encode(path, "", pglib.ENCODE_EXIF | flags) as inputs:
            return inputs["pixel_values"]
    except pglib.Error as error:
        return str(error)


def smooths(what, how):
    """libjpeg-turbo smooths the blocks of a progressive file whose scans contradict each other, version 2.1.5 otherwise
    than 3.2 in Pillow: its djpeg gives what the library gives."""
    return how and "'progressive': True" in what


def check(folders, path, seed):
    """-> (what it is, outcome, [what is wrong])"""
    data, what, how = draw(seed)
    with open(path, "wb") as file:
        file.write(data)
    wrong, outcome = [], ""
    damage = f"{what.split()[0]}: {how}" if how else ""
    for name, hf, processor in folders:
        if name == OPENED:
            expected, found = theirs_opened(hf, path), ours(processor, path, pglib.ENCODE_OVER_WHITE)
        else:
            expected, found = theirs(hf, path), ours(processor, path)
        outcome = "whole" if not how else f"{damage}: " + ("refused" if isinstance(expected, str) else "opens")
        if isinstance(expected, str):
            if not how:
                wrong.append(f"{name}: transformers refuses a whole file: {expected}")
            if not isinstance(found, str) and damage not in LAXER:
                wrong.append(f"{name}: opens, but transformers raises {expected}")
        elif isinstance(found, str):
            if damage not in STRICTER:
                wrong.append(f"{name}: refused: {found}")
            outcome += " by Pillow alone"
        elif not np.array_equal(expected, found) and smooths(what, how):
            outcome += ", smoothed otherwise"
        elif not np.array_equal(expected, found):
            far = np.abs(expected - found).max()
            wrong.append(f"{name}: {np.mean(expected != found):.1%} of the values differ, by {far}")
    return f"{what}{', damaged: ' * bool(how)}{how}", outcome, wrong


def main():
    args = seeded.arguments(__doc__, 1000)
    args.add_argument("--only", type=int, help="this case alone")
    args.add_argument("--show", type=int, default=20, help="failures that are printed (default 20)")
    args = args.parse_args()
    warnings.simplefilter("ignore")
    count = 1 if args.only is not None else args.count
    seeds = seeded.seeds(args.only if args.only is not None else args.seed, count)
    library, outcomes, failed = pglib.Library(args.build), collections.Counter(), 0
    with tempfile.TemporaryDirectory() as temporary:
        folders = []
        for name, value in (("do_convert_rgb true", True), ("do_convert_rgb null", None), (OPENED, True)):
            folder = make_folder(os.path.join(temporary, name), value)
            folders.append((name, SiglipImageProcessorPil.from_pretrained(folder), pglib.Processor(library, folder)))
        for seed in seeds:
            try:
                what, outcome, wrong = check(folders, os.path.join(temporary, "image"), seed)
            except Exception:  # a defect of this script must not hide the rest
                what, outcome, wrong = "", "stopped", [traceback.format_exc()]
            outcomes[outcome] += 1
            failed += bool(wrong)
            if wrong and failed <= args.show or args.only is not None:
                print(f"{'FAIL' if wrong else outcome}  {what}")
                print("".join(f"    {line}\n" for line in wrong) + f"    replay: images_live.py --only {seed}",
                      flush=True)
    for outcome, n in sorted(outcomes.items()):
        print(f"{n:6} {outcome}")
    seeded.end(count - failed, failed)


if __name__ == "__main__":
    main()
