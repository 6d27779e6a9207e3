#!/usr/bin/env python3
# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""Writes the seeds of the fuzz targets png and jpeg that make_seeds has no code for: make_images.py FOLDER. They are
images of every kind that Pillow writes, and interlaced ones. Needs Pillow; other versions may write other bytes."""

import io
import os
import struct
import sys
import zlib

from PIL import Image, PngImagePlugin

WIDTH, HEIGHT = 9, 7
CHANNELS = {"1": 1, "L": 1, "P": 1, "LA": 2, "I;16": 2, "RGB": 3, "RGBA": 4, "CMYK": 4}


def picture(mode, size=(WIDTH, HEIGHT)):
    n = CHANNELS[mode] * size[0] * size[1]
    if mode == "1":
        return Image.frombytes("L", size, bytes(255 * (i * i % 3 == 1) for i in range(n))).convert("1")
    if mode == "P":
        image = Image.frombytes(mode, size, bytes(i % 8 for i in range(n)))
        image.putpalette([i * 67 % 256 for i in range(24)])
        return image
    return Image.frombytes(mode, size, bytes((i * 37 + i * i % 40) % 256 for i in range(n)))


def saved(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def interlaced(depth, color):
    """Pillow reads such files and writes none."""
    channels = {0: 1, 2: 3, 3: 1, 6: 4}[color]
    rows = b""
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    for x, y, dx, dy in passes:
        width, height = (WIDTH - x + dx - 1) // dx, (HEIGHT - y + dy - 1) // dy
        for row in range(height if width > 0 else 0):
            rows += bytes([row % 5]) + bytes((i * 53 + row) % 256 for i in range((width * channels * depth + 7) // 8))
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, depth, color, 0, 0, 1)
    palette = chunk(b"PLTE", bytes(range(48))) if color == 3 else b""
    image = chunk(b"IHDR", header) + palette + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + image


def png_images(exif):
    profile, xmp = PngImagePlugin.PngInfo(), PngImagePlugin.PngInfo()
    profile.add_text("Raw profile type exif", "\nexif\n%8d\n%s\n" % (len(exif), exif.hex()), zip=True)
    xmp.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="8"/>')
    settings = {
        "grey": ("L", {}), "bilevel": ("1", {}), "grey-alpha": ("LA", {}), "rgba": ("RGBA", {}),
        "grey-16-bit": ("I;16", {}), "palette-2-bit": ("P", {"bits": 4}),
        "grey-key": ("L", {"transparency": 37}), "bilevel-key": ("1", {"transparency": 1}),
        "rgb-key": ("RGB", {"transparency": (0, 38, 78)}), "grey-16-bit-key": ("I;16", {"transparency": 300}),
        "palette-alpha": ("P", {"transparency": bytes([0, 128, 255, 7])}),
        "exif": ("RGB", {"exif": exif}), "exif-raw-profile": ("RGB", {"pnginfo": profile}),
        "exif-xmp": ("L", {"pnginfo": xmp}),
    }
    images = {name: saved(picture(mode), "PNG", **options) for name, (mode, options) in settings.items()}
    for name, depth, color in [("rgb-16", 16, 2), ("grey-4", 4, 0), ("palette-1", 1, 3), ("rgba-16", 16, 6)]:
        images["interlaced-%s-bit" % name] = interlaced(depth, color)
    return images


def jpeg_images(exif):
    settings = {
        "grey": ("L", {}), "cmyk": ("CMYK", {}), "grey-progressive": ("L", {"progressive": True}),
        "cmyk-progressive": ("CMYK", {"progressive": True}), "colour-4-4-4": ("RGB", {"subsampling": 0}),
        "colour-4-2-2": ("RGB", {"subsampling": 1}), "rgb": ("RGB", {"keep_rgb": True}),
        "exif": ("RGB", {"exif": exif, "optimize": True}), "restarts": ("RGB", {"restart_marker_blocks": 1}),
    }
    return {name: saved(picture(mode), "JPEG", quality=30, **options) for name, (mode, options) in settings.items()}


def is_of_size(target, size, turned):
    """What a target does goes by the size: png repairs the checksums unless it is a multiple of 4, and turns the image
    by its EXIF data where it is one of 3; jpeg where it is odd."""
    return size % 2 == turned if target == "jpeg" else size % 4 != 0 and (size % 3 == 0) == turned


def main(folder):
    exif = Image.Exif()
    exif[0x112] = 6
    for target, images in [("png", png_images(exif.tobytes())), ("jpeg", jpeg_images(exif.tobytes()))]:
        os.makedirs(os.path.join(folder, target), exist_ok=True)
        for name, data in images.items():
            while not is_of_size(target, len(data), name.startswith("exif")):
                data += b"\0"
            with open(os.path.join(folder, target, name), "wb") as file:
                file.write(data)


if __name__ == "__main__":
    main(sys.argv[1])
