# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""Random images in the forms that files have: PNG and JPEG of many modes, sizes and options."""
import numpy as np
from PIL import Image, ImageFile

ImageFile.MAXBLOCK = 1 << 24  # Pillow's JPEG encoder needs room for the whole file when it optimizes

PNG_MODES = ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"]
JPEG_MODES = ["L", "RGB", "CMYK"]


def _pixels(rng, width, height, channels):
    """Smooth, noisy or flat, so that resampling and chroma have something to do."""
    kind = rng.integers(4)
    if kind == 0:
        return rng.integers(0, 256, (height, width, channels), dtype=np.uint8)
    coarse = rng.integers(0, 256, (int(rng.integers(1, 9)), int(rng.integers(1, 9)), channels), dtype=np.uint8)
    filters = [Image.Resampling.NEAREST, Image.Resampling.BILINEAR, Image.Resampling.BICUBIC]
    planes = [Image.fromarray(coarse[:, :, i]).resize((width, height), filters[kind - 1]) for i in range(channels)]
    return np.stack([np.asarray(p) for p in planes], -1)


def draw(rng, mode):
    width, height = (int(v) for v in np.exp(rng.uniform(0, np.log(400), 2)).astype(int))
    if mode == "1":
        return Image.fromarray(_pixels(rng, width, height, 1)[:, :, 0]).convert("1")
    if mode == "I;16":
        return Image.fromarray(rng.integers(0, 65536, (height, width), dtype=np.uint16))
    if mode == "P":
        image = Image.fromarray(_pixels(rng, width, height, 3))
        return image.quantize(int(rng.integers(2, 257)))
    channels = len(mode)
    pixels = _pixels(rng, width, height, channels)
    return Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels, mode=mode)


def write(rng, stem):
    """Writes a random image to stem.png or stem.jpg. -> (path, what it is)"""
    options, exif = {}, Image.Exif()
    if rng.random() < 0.4:
        exif[0x0112] = int(rng.integers(1, 9))
    if rng.random() < 0.55:
        mode = PNG_MODES[rng.integers(len(PNG_MODES))]
        image, path = draw(rng, mode), f"{stem}.png"
        options["compress_level"] = int(rng.integers(0, 10))
        if mode in ("L", "RGB") and rng.random() < 0.3:
            options["transparency"] = 7 if mode == "L" else (7, 8, 9)
        if mode == "P" and rng.random() < 0.5:
            options["transparency"] = int(rng.integers(2))
    else:
        mode = JPEG_MODES[rng.choice(3, p=[0.25, 0.55, 0.2])]
        image, path = draw(rng, mode), f"{stem}.jpg"
        options.update(quality=int(rng.integers(5, 101)), progressive=bool(rng.integers(2)),
                       optimize=bool(rng.integers(2)), subsampling=int(rng.integers(3)))
        if rng.random() < 0.2:
            options["restart_marker_blocks"] = int(rng.integers(1, 9))
    image.save(path, exif=exif, **options)
    return path, f"{mode} {image.width}x{image.height} orientation {exif.get(0x0112, 1)} {options}"
