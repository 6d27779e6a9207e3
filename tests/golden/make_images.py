# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""Makes tests/golden/images/: small images of every kind, and what Pillow makes of them.

Run with Pillow, numpy and transformers installed (the committed files: Pillow 13.0.0):  python make_images.py
The PNG writer and the JPEG writer below exist because Pillow cannot write interlaced PNG, 16-bit colour,
every chroma sampling or YCCK. index.txt has one line per image:
    FILE ok WIDTH HEIGHT DIGEST WIDTH HEIGHT DIGEST     as stored; turned as ImageOps.exif_transpose does
    FILE error STATUS                                   an image that the library refuses
over_white.txt has one line per PNG with a transparent colour: FILE DIGEST, of what SiglipImageProcessor makes of it
before its resize, given as a path, where do_convert_rgb is true (index.txt: where it is not).
opened.txt has one line per PNG with alpha or a transparent colour: FILE DIGEST, of what convert_to_rgb() of transformers
makes of it opened by Pillow, or FILE error, where that raises.
pixels.txt has one line per case of what HF's image processor (transformers 5.23.0) gives for test_image():
    WIDTH HEIGHT SIDE DIGEST SETTINGS       the digest is of the f32 values in little-endian order
letterbox.txt has one line per case, of test_image() too: WIDTH HEIGHT WIDTH HEIGHT FIT FILTER DIGEST, from and to.
resize.txt has one line per case, of test_image() too: WIDTH HEIGHT WIDTH HEIGHT FILTER DIGEST, from and to.
DIGEST is FNV-1a (64 bits) of the RGB bytes.
"""

import io
import json
import os
import random
import shutil
import struct
import warnings
import zlib

import numpy as np
from PIL import Image, ImageOps, PngImagePlugin

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "images")


def fnv1a(data):
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return f"{value:016x}"


# ---------------------------------------------------------------- PNG


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


PASSES = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]


def pack(samples, depth):
    """samples [n] of one row to bytes"""
    if depth == 16:
        return samples.astype(">u2").tobytes()
    if depth == 8:
        return samples.astype(np.uint8).tobytes()
    bits = "".join(format(int(v), f"0{depth}b") for v in samples)
    bits += "0" * (-len(bits) % 8)
    return bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8))


def filter_row(kind, row, above, pixel):
    out = bytearray([kind])
    for i, x in enumerate(row):
        a = row[i - pixel] if i >= pixel else 0
        b = above[i]
        c = above[i - pixel] if i >= pixel else 0
        pa, pb, pc = abs(b - c), abs(a - c), abs(a + b - 2 * c)
        paeth = a if pa <= pb and pa <= pc else b if pb <= pc else c
        out.append(x - (0, a, b, (a + b) // 2, paeth)[kind] & 255)
    return bytes(out)


def png(rng, width, height, color, depth, interlace=0, before=b"", after=b"", palette=None, samples=None, split=None):
    """A PNG of random samples, every filter type used. before, after: chunks around IDAT."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color]
    if samples is None:
        samples = rng.integers(0, 1 << depth, (height, width, channels))
        if depth == 16 and color == 0:  # Pillow cuts 16-bit grey at 255: have both sides
            samples = np.where(rng.random(samples.shape) < 0.6, samples % 300, samples)
    pixel = max(1, channels * depth // 8)
    raw = b""
    for x0, y0, dx, dy in PASSES if interlace else [(0, 0, 1, 1)]:
        part = samples[y0::dy, x0::dx]
        if part.size == 0:
            continue
        above = None
        for i, row in enumerate(part):
            packed = pack(row.reshape(-1), depth)
            raw += filter_row(i % 5, packed, above or bytes(len(packed)), pixel)
            above = packed
    data = zlib.compress(raw, 9)
    if palette is None and color == 3:
        palette = rng.integers(0, 256, 3 << depth, dtype=np.uint8).tobytes()
    parts = [data] if not split else [data[i : i + split] for i in range(0, len(data), split)]
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, interlace))
        + (chunk(b"PLTE", palette) if palette is not None else b"")
        + before
        + b"".join(chunk(b"IDAT", part) for part in parts)
        + after
        + chunk(b"IEND", b"")
    )


# ---------------------------------------------------------------- JPEG, baseline, of random coefficients

DC = {0: "00", 1: "010", 2: "011", 3: "100", 4: "101", 5: "110", 6: "1110", 7: "11110", 8: "111110"}
AC_SIZES = 5  # sizes 1 to 5 with runs 0 to 3, ZRL and EOB: 22 codes, all of 5 bits
AC_SYMBOLS = [0x00, 0xF0] + [run << 4 | size for run in range(4) for size in range(1, AC_SIZES + 1)]


def segment(marker, data):
    return bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data


def jpeg(seed, width, height, sampling, ids=None, adobe=None, restart=0, tables=b""):
    """sampling: (h, v) of each component. adobe: the transform of an Adobe marker. tables: segments put after SOI."""
    rng = random.Random(seed)
    n = len(sampling)
    ids = ids or list(range(1, n + 1))
    h_max, v_max = max(h for h, v in sampling), max(v for h, v in sampling)
    if n == 1:
        sampling, h_max, v_max = [(1, 1)], 1, 1
    columns, rows = -(-width // (8 * h_max)), -(-height // (8 * v_max))
    out = b"\xff\xd8" + tables
    if adobe is not None:
        out += segment(0xEE, b"Adobe\0\x64\0\0\0\0" + bytes([adobe]))
    out += segment(0xDB, b"\0" + bytes([6] + [9] * 63))
    components = b"".join(bytes([i, h << 4 | v, 0]) for i, (h, v) in zip(ids, sampling))
    out += segment(0xC0, struct.pack(">BHHB", 8, height, width, n) + components)
    counts = [0] * 16
    for code in DC.values():
        counts[len(code) - 1] += 1
    out += segment(0xC4, b"\0" + bytes(counts) + bytes(sorted(DC)))
    counts = [0] * 16
    counts[4] = len(AC_SYMBOLS)
    out += segment(0xC4, b"\x10" + bytes(counts) + bytes(AC_SYMBOLS))
    if restart:
        out += segment(0xDD, struct.pack(">H", restart))
    out += segment(0xDA, bytes([n]) + b"".join(bytes([i, 0]) for i in ids) + b"\0\x3f\0")

    def value_bits(value, size):
        return format(value if value > 0 else value + (1 << size) - 1, f"0{size}b") if size else ""

    bits, level = [], [0] * n
    count = 0
    data = b""

    def flush():
        text = "".join(bits)
        text += "1" * (-len(text) % 8)
        bits.clear()
        return bytes(int(text[i : i + 8], 2) for i in range(0, len(text), 8)).replace(b"\xff", b"\xff\0")

    for _ in range(columns * rows):
        if restart and count and count % restart == 0:
            data += flush() + bytes([0xFF, 0xD0 + (count // restart - 1) % 8])
            level = [0] * n
        count += 1
        for c, (h, v) in enumerate(sampling):
            for _ in range(h * v):
                target = rng.randint(-170, 170)
                difference = max(-255, min(255, target - level[c]))
                level[c] += difference
                size = abs(difference).bit_length()
                bits.append(DC[size] + value_bits(difference, size))
                at = 1
                while at < 64 and rng.random() < 0.85:
                    run, size = rng.randint(0, 3), rng.randint(1, 3 if at < 20 else 2)
                    if at + run > 63:
                        break
                    value = rng.randint(1 << size - 1, (1 << size) - 1) * rng.choice([-1, 1])
                    bits.append(format(AC_SYMBOLS.index(run << 4 | size), "05b") + value_bits(value, size))
                    at += run + 1
                if at < 64:
                    bits.append(format(0, "05b"))
    return out + data + flush() + b"\xff\xd9"


# ---------------------------------------------------------------- the collection


def drawing(rng, width, height):
    """An image with smooth parts, edges and noise."""
    y, x = np.mgrid[0:height, 0:width]
    image = np.stack([x * 255 // width, y * 255 // height, (x + y) * 5 % 256], axis=-1)
    image[height // 4 : height // 2, width // 5 : width // 2] = (250, 20, 60)
    image += rng.integers(-12, 13, image.shape)
    return Image.fromarray(np.clip(image, 0, 255).astype(np.uint8))


def saved(image, kind, **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def exif_bytes(orientation, order="<", kind=3, count=1, entries=b"", n_entries=0):
    magic = b"II*\0" if order == "<" else b"MM\0*"
    value = struct.pack(order + {3: "HH", 4: "I", 6: "bxxx", 9: "i", 1: "Bxxx"}[kind],
                        *((orientation, 0) if kind == 3 else (orientation,)))
    return (magic + struct.pack(order + "IH", 8, n_entries + 1) + entries
            + struct.pack(order + "HHI", 274, kind, count) + value + b"\0\0\0\0")


def xmp(orientation, attribute=True):
    element = f"><tiff:Orientation>{orientation}</tiff:Orientation>"
    inside = f' tiff:Orientation="{orientation}"/>' if attribute else element
    return f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description{inside}</x:xmpmeta>'.encode()


def png_writer(rng):
    """-> {} and png_of(NAME, ...), which puts NAME.png of png(rng, ...) into it."""
    good = {}

    def png_of(name, *arguments, **options):
        good[name + ".png"] = png(rng, *arguments, **options)

    return good, png_of


def png_kinds(rng):
    """Every colour type, depth, interlacing and kind of palette."""
    good, png_of = png_writer(rng)
    for color, depths in ((0, (1, 2, 4, 8, 16)), (2, (8, 16)), (3, (1, 2, 4, 8)), (4, (8, 16)), (6, (8, 16))):
        for depth in depths:
            for interlace in (0, 1):
                name = f"png_{ {0: 'grey', 2: 'rgb', 3: 'palette', 4: 'grey_alpha', 6: 'rgba'}[color]}_{depth}"
                png_of(name + ("_interlaced" if interlace else ""), 21, 13, color, depth, interlace)
    for width, height in ((1, 1), (2, 1), (1, 2), (3, 5), (5, 3), (1, 9), (9, 1), (4, 4)):
        png_of(f"png_interlaced_{width}x{height}", width, height, 3, 2, 1)
        png_of(f"png_interlaced_rgb_{width}x{height}", width, height, 2, 8, 1)
    for depth in (1, 2, 4, 8, 16):
        png_of(f"png_grey_{depth}_trns", 10, 6, 0, depth, before=chunk(b"tRNS", b"\0\1"))
    png_of("png_grey_8_trns_large", 10, 6, 0, 8, before=chunk(b"tRNS", b"\xff\xff"))
    for depth in (8, 16):
        png_of(f"png_rgb_{depth}_trns", 10, 6, 2, depth, before=chunk(b"tRNS", b"\0\1\0\2\0\3"))
    png_of("png_palette_4_trns", 10, 6, 3, 4, before=chunk(b"tRNS", b"\xff\x80\0\x40"))
    png_of("png_palette_8_trns_one", 10, 6, 3, 8, before=chunk(b"tRNS", b"\xff\xff\0\xff"))
    png_of("png_palette_8_short", 10, 6, 3, 8, palette=bytes(range(30)))
    png_of("png_palette_4_short", 10, 6, 3, 4, palette=bytes(range(100, 109)))
    png_of("png_palette_1_long", 10, 6, 3, 1, palette=bytes(range(60, 60 + 48)))
    png_of("png_rgb_with_plte", 10, 6, 2, 8, palette=bytes(range(30)))
    return good


def png_chunks(rng):
    """Chunks beside the image, animations, endings, and what Pillow writes."""
    good, png_of = png_writer(rng)
    png_of("png_gamma_icc", 10, 6, 2, 8, before=chunk(b"gAMA", struct.pack(">I", 22222)) + chunk(b"sRGB", b"\0")
           + chunk(b"pHYs", struct.pack(">IIB", 300, 300, 1)) + chunk(b"bKGD", b"\0\1\0\2\0\3"))
    png_of("png_many_idat", 30, 20, 2, 8, split=50)
    png_of("png_private_chunk", 10, 6, 2, 8, before=chunk(b"prVt", b"anything"), after=chunk(b"tEXt", b"Title\0after"))
    no_end = png(rng, 10, 6, 2, 8)
    good["png_without_iend.png"] = no_end[:-12]
    good["png_trailing_bytes.png"] = no_end + b"trailing bytes"
    frame = struct.pack(">IIIIIHHBB", 0, 12, 8, 0, 0, 1, 10, 0, 0)
    second = chunk(b"fcTL", struct.pack(">IIIIIHHBB", 1, 12, 8, 0, 0, 1, 10, 0, 0)) + chunk(
        b"fdAT", struct.pack(">I", 2) + zlib.compress(bytes(8 * 37)))
    animation = chunk(b"acTL", struct.pack(">II", 2, 0))
    png_of("apng", 12, 8, 2, 8, before=animation + chunk(b"fcTL", frame), after=second)
    first = chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 12, 8, 0, 0, 1, 10, 0, 0)) + chunk(
        b"fdAT", struct.pack(">I", 1) + zlib.compress(bytes(8 * 37)))
    png_of("apng_default_image", 12, 8, 2, 8, before=chunk(b"acTL", struct.pack(">II", 1, 0)), after=first)
    good["png_pillow.png"] = saved(drawing(rng, 64, 48), "PNG")
    good["png_pillow_palette.png"] = saved(drawing(rng, 64, 48).quantize(17), "PNG")
    return good


def jpeg_pillow(rng, image):
    """What Pillow writes."""
    good = {}
    good["jpeg_grey.jpg"] = saved(image.convert("L"), "JPEG", quality=80)
    for subsampling in (0, 1, 2):
        good[f"jpeg_sampling_{subsampling}.jpg"] = saved(image, "JPEG", quality=85, subsampling=subsampling)
        good[f"jpeg_progressive_{subsampling}.jpg"] = saved(image, "JPEG", quality=70, subsampling=subsampling,
                                                           progressive=True)
    good["jpeg_progressive_grey.jpg"] = saved(image.convert("L"), "JPEG", quality=60, progressive=True)
    good["jpeg_quality_5.jpg"] = saved(image, "JPEG", quality=5)
    good["jpeg_quality_100.jpg"] = saved(image, "JPEG", quality=100)
    good["jpeg_restart.jpg"] = saved(image, "JPEG", restart_marker_blocks=2)
    good["jpeg_rgb.jpg"] = saved(image, "JPEG", keep_rgb=True)
    good["jpeg_cmyk.jpg"] = saved(image.convert("CMYK"), "JPEG", quality=80)
    good["jpeg_cmyk_progressive.jpg"] = saved(image.convert("CMYK"), "JPEG", quality=80, progressive=True)
    good["jpeg_optimized.jpg"] = saved(image, "JPEG", optimize=True)
    for width, height in ((1, 1), (2, 1), (1, 2), (7, 9), (17, 1), (1, 17)):
        good[f"jpeg_{width}x{height}.jpg"] = saved(drawing(rng, width, height), "JPEG")
    return good


def jpeg_coefficients():
    """Every sampling, and colours as an Adobe marker or the components' ids tell them."""
    good = {}
    kinds = {"grey": [(1, 1)], "grey_2x2": [(2, 2)], "444": [(1, 1)] * 3, "422": [(2, 1), (1, 1), (1, 1)],
             "440": [(1, 2), (1, 1), (1, 1)], "420": [(2, 2), (1, 1), (1, 1)], "411": [(4, 1), (1, 1), (1, 1)],
             "410": [(4, 2), (1, 1), (1, 1)], "441": [(1, 4), (1, 1), (1, 1)], "mixed": [(2, 2), (2, 1), (1, 2)],
             "luma_small": [(1, 1), (2, 2), (2, 2)], "422_chroma": [(2, 2), (1, 2), (1, 2)]}
    for i, (name, sampling) in enumerate(kinds.items()):
        good[f"jpeg_coefficients_{name}.jpg"] = jpeg(i, 45, 37, sampling)
    good["jpeg_coefficients_restart.jpg"] = jpeg(50, 45, 37, kinds["420"], restart=3)
    good["jpeg_coefficients_odd.jpg"] = jpeg(51, 33, 17, kinds["420"])
    good["jpeg_coefficients_440_odd.jpg"] = jpeg(52, 17, 33, kinds["440"])
    good["jpeg_ids_rgb.jpg"] = jpeg(60, 20, 20, kinds["444"], ids=[82, 71, 66])
    good["jpeg_adobe_rgb.jpg"] = jpeg(61, 20, 20, kinds["444"], adobe=0)
    good["jpeg_adobe_ycc.jpg"] = jpeg(62, 20, 20, kinds["420"], adobe=1)
    good["jpeg_cmyk_no_adobe.jpg"] = jpeg(63, 20, 20, [(1, 1)] * 4)
    good["jpeg_cmyk_adobe.jpg"] = jpeg(64, 20, 20, [(1, 1)] * 4, adobe=0)
    good["jpeg_ycck.jpg"] = jpeg(65, 20, 20, [(1, 1)] * 4, adobe=2)
    good["jpeg_ycck_420.jpg"] = jpeg(66, 37, 29, [(2, 2), (1, 1), (1, 1), (2, 2)], adobe=2)
    return good


def jpeg_ends(image, small):
    """Bytes where none belong, and a second image."""
    good = {}
    good["jpeg_without_eoi.jpg"] = small[:-2] + bytes(8)
    good["jpeg_trailing_bytes.jpg"] = small + b"trailing" + small
    good["jpeg_junk_before_marker.jpg"] = small[:2] + b"\xff\xff\xff" + small[3:]
    second_image = saved(ImageOps.invert(image), "MPO", save_all=True, append_images=[image])
    good["mpo.jpg"] = second_image
    return good


def exif_values(stored):
    """Orientations of EXIF in a JPEG file, sound and damaged."""
    good = {}
    for i in range(0, 10):
        good[f"exif_jpeg_{i}.jpg"] = saved(stored, "JPEG", exif=b"Exif\0\0" + exif_bytes(i))
    for name, data in {
        "big_endian": exif_bytes(6, ">"),
        "long": exif_bytes(8, "<", 4),
        "signed_long": exif_bytes(5, ">", 9),
        "signed_byte": exif_bytes(7, "<", 6),
        "byte": exif_bytes(6, "<", 1),
        "two_values": exif_bytes(3, "<", 3, 2),
        "count_zero": exif_bytes(6, "<", 3, 0),
        "unknown_type": exif_bytes(6, entries=struct.pack("<HHII", 1, 99, 1, 0), n_entries=1),
        "offset_past_end": exif_bytes(6, entries=struct.pack("<HHII", 1, 3, 10, 9999), n_entries=1),
        "too_much_data": exif_bytes(6, entries=struct.pack("<HHII", 1, 3, 10000, 8), n_entries=1),
        "first_counts": exif_bytes(6, entries=struct.pack("<HHIHH", 274, 3, 1, 3, 0), n_entries=1),
        "cut": exif_bytes(6)[:-8],
        "twice": b"Exif\0\0" + exif_bytes(6),
    }.items():
        good[f"exif_{name}.jpg"] = saved(stored, "JPEG", exif=b"Exif\0\0" + data)
    return good


def exif_places(rng, stored, small):
    """EXIF and XMP in every place where Pillow looks."""
    good = {}
    whole = exif_bytes(6)
    good["exif_two_segments.jpg"] = (small[:2] + segment(0xE1, b"Exif\0\0" + whole[:11])
                                     + segment(0xE1, b"Exif\0\0" + whole[11:]) + small[2:])
    good["xmp.jpg"] = saved(stored, "JPEG", xmp=xmp(6))
    good["xmp_element.jpg"] = saved(stored, "JPEG", xmp=xmp(8, False))
    good["xmp_nine.jpg"] = saved(stored, "JPEG", xmp=xmp(9))
    good["xmp_and_exif.jpg"] = saved(stored, "JPEG", xmp=xmp(6), exif=b"Exif\0\0" + exif_bytes(3))
    good["exif.png"] = saved(stored, "PNG", exif=b"Exif\0\0" + exif_bytes(6))
    good["exif_after_idat.png"] = png(rng, 9, 5, 2, 8, after=chunk(b"eXIf", exif_bytes(8)))
    for zipped in (False, True):
        info = PngImagePlugin.PngInfo()
        text = (b"Exif\0\0" + exif_bytes(5)).hex()
        info.add_text("Raw profile type exif", f"\nexif\n{len(text) // 2:8}\n" + text[:72] + "\n" + text[72:] + "\n",
                      zip=zipped)
        good[f"exif_raw_profile_{'ztxt' if zipped else 'text'}.png"] = saved(stored, "PNG", pnginfo=info)
        info = PngImagePlugin.PngInfo()
        info.add_itxt("XML:com.adobe.xmp", xmp(7), zip=zipped)
        good[f"xmp_{'zipped' if zipped else 'plain'}.png"] = saved(stored, "PNG", pnginfo=info)
    return good


def png_transparent(rng):
    """tRNS in every form that Pillow tells apart; few colours, so that the transparent one is in use."""
    good = {}

    def add(name, color, depth, trns, samples, place="before", **options):
        for interlace in (0, 1):
            good[f"trns_{name}{'_interlaced' * interlace}.png"] = png(
                rng, 11, 9, color, depth, interlace, samples=samples, **{place: chunk(b"tRNS", trns)}, **options)

    for depth in (1, 2, 4, 8):
        few = rng.integers(0, min(1 << depth, 6), (9, 11, 1))
        add(f"palette_{depth}_first", 3, depth, b"\0", few)
        add(f"palette_{depth}_second", 3, depth, b"\xff\0\xff"[:1 << depth], few)
        add(f"palette_{depth}_several", 3, depth, b"\x80\0\xff"[:1 << depth], few)
    add("palette_two_of_a_colour", 3, 8, b"\0", few,
        palette=bytes([9, 8, 7, 1, 2, 3, 9, 8, 7, 4, 4, 4, 5, 5, 5, 6, 6, 6]))
    add("palette_past_its_end", 3, 8, b"\xff\xff\xff\0", few, palette=bytes(range(9)))
    add("palette_newline", 3, 8, b"\xff\0\n", few)
    add("palette_opaque", 3, 8, b"\xff\xff", few)
    add("palette_empty", 3, 8, b"", few)
    add("palette_too_long", 3, 8, b"\xff" * 300 + b"\0", np.where(few == 1, 255, few))
    add("palette_after_idat", 3, 8, b"\0", few, place="after")
    good["trns_palette_twice.png"] = png(rng, 11, 9, 3, 8, samples=few,
                                         before=chunk(b"tRNS", b"\0") + chunk(b"tRNS", b"\xff\0"))
    for depth, keys in ((1, (0, 1, 256)), (2, (0, 1, 85, 300)), (4, (0, 3, 17, 300)), (8, (2, 255, 258, 300)),
                        (16, (0, 2, 256, 512))):
        few = rng.integers(0, min(1 << depth, 5), (9, 11, 1))
        if depth == 16:
            few = np.where(few == 4, 300, few)
        for key in keys:
            add(f"grey_{depth}_{key}", 0, depth, struct.pack(">H", key), few)
    add("grey_8_too_long", 0, 8, b"\0\1\0\0", few % 256)
    add("grey_8_after_idat", 0, 8, b"\0\1", few % 256, place="after")
    few = rng.integers(0, 2, (9, 11, 3))
    add("rgb_8", 2, 8, struct.pack(">3H", 1, 0, 1), few)
    add("rgb_8_high_bytes", 2, 8, struct.pack(">3H", 257, 512, 1), few)
    few = few * 256 + rng.integers(0, 2, (9, 11, 3))
    add("rgb_16", 2, 16, struct.pack(">3H", 1, 0, 1), few)
    add("rgb_16_written", 2, 16, struct.pack(">3H", 257, 0, 256), few)
    few = rng.integers(0, 2, (9, 11, 2))
    add("grey_alpha", 4, 8, b"\0\0", few)
    few = rng.integers(0, 2, (9, 11, 4))
    add("rgba", 6, 8, b"\0\0\0\0\0\0", few)
    return good


# Refused, with the status that the library gives. Pillow refuses them too, where not noted.


def bad_png(rng):
    bad = {}
    sound = png(rng, 16, 12, 2, 8)
    bad["empty.png"] = b"", "FORMAT"
    bad["text.png"] = b"not a picture\n", "FORMAT"
    bad["signature_only.png"] = sound[:8], "FORMAT"
    bad["truncated.png"] = sound[: len(sound) // 2], "FORMAT"
    bad["header_only.png"] = sound[:33], "FORMAT"
    bad["no_idat.png"] = sound[:33] + chunk(b"IEND", b""), "FORMAT"
    bad["zero_width.png"] = png(rng, 0, 5, 2, 8), "FORMAT"
    bad["zero_height.png"] = png(rng, 5, 0, 2, 8), "FORMAT"
    bad["depth_3.png"] = sound[:24] + b"\3" + sound[25:29] + struct.pack(
        ">I", zlib.crc32(sound[12:24] + b"\3" + sound[25:29])) + sound[33:], "FORMAT"
    with_palette = png(rng, 5, 5, 3, 8, palette=bytes(30))
    bad["palette_missing.png"] = with_palette[:33] + with_palette[33 + 42 :], "FORMAT"  # Pillow: all black
    bad["header_crc.png"] = sound[:29] + b"\0\0\0\0" + sound[33:], "FORMAT"
    bad["text_crc.png"] = png(rng, 5, 5, 2, 8, before=chunk(b"tEXt", b"a\0b")[:-4] + b"\0\0\0\0"), "FORMAT"
    bad["idat_crc.png"] = sound[:-16] + b"\0\0\0\0" + sound[-12:], "FORMAT"  # Pillow does not look at this sum
    ihdr = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    bad["bomb.png"] = sound[:8] + chunk(b"IHDR", ihdr) + sound[33:], "LIMIT"
    ihdr = struct.pack(">IIBBBBB", 13000, 13000, 8, 2, 0, 0, 0)
    bad["lying_size.png"] = sound[:8] + chunk(b"IHDR", ihdr) + sound[33:], "FORMAT"
    for name, color, depth, size in (("grey", 0, 8, 1), ("grey_1", 0, 1, 0), ("rgb", 2, 8, 5)):
        bad[f"trns_short_{name}.png"] = png(np.random.default_rng(1), 5, 5, color, depth,
                                            before=chunk(b"tRNS", bytes(size))), "FORMAT"
    bad["filter_9.png"] = sound[:33] + chunk(b"IDAT", zlib.compress(b"\x09" + bytes(48))) + sound[-12:], "FORMAT"
    return bad


def bad_jpeg(small, progressive):
    bad = {}
    bad["truncated.jpg"] = small[: len(small) - 40], "FORMAT"
    bad["truncated_header.jpg"] = small[:100], "FORMAT"
    bad["truncated_progressive.jpg"] = progressive[: len(progressive) * 2 // 3], "FORMAT"
    bad["soi_only.jpg"] = b"\xff\xd8\xff", "FORMAT"
    sof = small.index(b"\xff\xc0")
    bad["bits_12.jpg"] = small[: sof + 4] + b"\x0c" + small[sof + 5 :], "UNSUPPORTED"
    bad["zero_height.jpg"] = small[: sof + 5] + b"\0\0" + small[sof + 7 :], "FORMAT"
    bad["bomb.jpg"] = small[: sof + 5] + b"\xff\x00\xff\x00" + small[sof + 9 :], "LIMIT"
    bad["two_components.jpg"] = jpeg(70, 16, 16, [(1, 1)] * 2), "UNSUPPORTED"
    bad["lossless.jpg"] = small[: sof + 1] + b"\xc3" + small[sof + 2 :], "UNSUPPORTED"
    scan = progressive.index(b"\xff\xda")
    end = progressive.index(b"\xff", scan + 12)
    while progressive[end + 1] == 0:
        end = progressive.index(b"\xff", end + 2)
    bad["many_scans.jpg"] = progressive[:scan] + progressive[scan:end] * 150 + b"\xff\xd9", "LIMIT"
    for name, kind in (("webp", "WEBP"), ("gif", "GIF"), ("bmp", "BMP"), ("tif", "TIFF"), ("avif", "AVIF")):
        bad[f"other.{name}"] = saved(Image.new("RGB", (4, 4)), kind), "UNSUPPORTED"
    return bad


def collect():
    """-> {name: bytes}, {name: (bytes, status)}. The order is that in which `rng` is drawn from."""
    rng = bad_rng = np.random.default_rng(20261123)
    good = {**png_kinds(rng), **png_chunks(rng)}
    image = drawing(rng, 61, 43)
    stored = image.crop((0, 0, 24, 16))
    small = saved(stored, "JPEG")
    good |= jpeg_pillow(rng, image) | jpeg_coefficients() | jpeg_ends(image, small)
    good |= exif_values(stored) | exif_places(rng, stored, small)
    rng = np.random.default_rng(20261125)
    good |= png_transparent(rng)
    exif = chunk(b"eXIf", exif_bytes(8))  # behind the pixels Pillow looks at no checksum
    text = chunk(b"tEXt", b"a\0b")
    good["exif_after_idat_crc.png"] = png(rng, 9, 5, 2, 8, after=text[:-4] + bytes(4) + exif[:-4] + bytes(4))
    good["exif_after_idat_cut.png"] = png(rng, 9, 5, 2, 8, after=exif)[:-14]  # without IEND, and 2 bytes
    return good, bad_png(bad_rng) | bad_jpeg(small, good["jpeg_progressive_2.jpg"])


def expected(data):
    image = Image.open(io.BytesIO(data))
    stored = image.convert("RGB")
    try:
        turned = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    except Exception as error:  # damaged EXIF: the library ignores it
        print("no orientation:", error)
        turned = stored
    return " ".join(f"{i.width} {i.height} {fnv1a(i.tobytes())}" for i in (stored, turned))


def over_white(path):
    """The pixels that SiglipImageProcessor resizes, of an image given as a path."""
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    processor = SiglipImageProcessorPil(do_convert_rgb=True)
    pixels = processor.process_image(processor.fetch_images(path), do_convert_rgb=True)
    return fnv1a(np.ascontiguousarray(np.moveaxis(pixels, 0, -1)).tobytes())


def opened(path):
    """The pixels that SiglipImageProcessor resizes, of an image that Pillow has opened; None without transparency."""
    from transformers.image_transforms import convert_to_rgb

    image = Image.open(path)
    image.load()  # a tRNS chunk behind the pixels is seen then
    if "A" not in image.getbands() and image.info.get("transparency") is None:
        return None
    try:
        return fnv1a(convert_to_rgb(image, return_numpy=True).tobytes())
    except ValueError:
        return "error"


def test_image(width, height):
    """The same as test_image() in tests/unit/test_resize.c."""
    state, out = width * 65537 + height, bytearray()
    for i in range(width * height * 3):
        state = (state * 1664525 + 1013904223) & 0xFFFFFFFF
        out.append(state >> 24 if i // 3 % 7 else 255 * (state >> 31))
    return Image.frombytes("RGB", (width, height), bytes(out))


def resize_cases():
    rng = random.Random(3)
    for filter_number in range(6):
        for width, height, to_width, to_height in (
            (1, 1, 5, 7), (5, 7, 1, 1), (31, 17, 31, 17), (31, 17, 31, 40), (31, 17, 56, 17), (97, 61, 28, 28),
            (61, 97, 28, 28), (20, 200, 14, 14), (200, 20, 14, 14), (3, 300, 28, 28), (300, 3, 28, 28),
            (13, 11, 56, 56), (40, 90, 15, 40), (40, 91, 15, 40), (1, 64, 16, 16), (64, 1, 16, 16), (2, 2, 1, 3),
        ):
            yield width, height, to_width, to_height, filter_number
        for _ in range(12):
            yield *(rng.randint(1, 90) for _ in range(4)), filter_number


def letterbox_cases():
    """By the rule of openpi-client's resize_with_pad (fit 1), and of lerobot's, padded above and left (fit 2), over a
    colour."""
    rng = random.Random(4)
    sizes = [(64, 48, 28, 28), (48, 64, 28, 28), (192, 108, 22, 22), (28, 28, 28, 28), (30, 7, 56, 56), (99, 70, 28, 14)]
    sizes += [tuple(rng.randint(1, 90) for _ in range(4)) for _ in range(30)]
    for width, height, to_width, to_height in sizes:
        ratio = max(width / to_width, height / to_height)
        w, h = max(int(width / ratio), 1), max(int(height / ratio), 1)
        for fit, at in ((1, ((to_width - w) // 2, (to_height - h) // 2)), (2, (to_width - w, to_height - h))):
            filter_number = rng.randint(0, 5)
            out = Image.new("RGB", (to_width, to_height), (200, 100, 50))
            out.paste(test_image(width, height).resize((w, h), filter_number), at)
            yield f"{width} {height} {to_width} {to_height} {fit} {filter_number} {fnv1a(out.tobytes())}"


def pixel_cases():
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    side = {"size": {"height": 28, "width": 28}, "image_seq_length": 4}
    for width, height, settings in (
        (61, 43, {"image_seq_length": 256}),
        (61, 43, side),
        (30, 170, side | {"resample": 2}),
        (28, 28, side | {"do_resize": False}),
        (28, 28, side | {"do_resize": None, "size": [28, 28]}),
        (61, 43, side | {"do_rescale": False}),
        (61, 43, side | {"do_normalize": False}),
        (61, 43, side | {"do_normalize": False, "image_mean": None, "image_std": None}),
        (61, 43, side | {"do_rescale": False, "do_normalize": False}),
        (61, 43, side | {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}),
        (61, 43, side | {"rescale_factor": 0.1, "image_mean": 0.3, "image_std": 1.7, "resample": 1}),
        (61, 43, side | {"rescale_factor": 0.00784313725490196, "image_mean": [1, 1, 1], "image_std": [1, -2, 3e-3]}),
    ):
        processor = SiglipImageProcessorPil(**settings)
        pixels = processor(test_image(width, height), return_tensors="np")["pixel_values"][0]
        digest = fnv1a(pixels.astype("<f4").tobytes())
        yield f"{width} {height} {pixels.shape[-1]} {digest} {json.dumps(settings)}"


def main():
    warnings.simplefilter("ignore")
    shutil.rmtree(HERE, ignore_errors=True)
    os.makedirs(HERE)
    good, bad = collect()
    lines = [f"{name} ok {expected(data)}" for name, data in good.items()]
    lines += [f"{name} error {status}" for name, (data, status) in bad.items()]
    for name, data in [*good.items(), *((name, data) for name, (data, _) in bad.items())]:
        with open(os.path.join(HERE, name), "wb") as file:
            file.write(data)
    with open(os.path.join(HERE, "index.txt"), "w") as file:
        file.write("\n".join(lines) + "\n")
    with open(os.path.join(HERE, "over_white.txt"), "w") as file:
        for name in good:
            if "trns" in name:
                file.write(f"{name} {over_white(os.path.join(HERE, name))}\n")
    with open(os.path.join(HERE, "opened.txt"), "w") as file:
        for name in good:
            digest = opened(os.path.join(HERE, name))
            if digest:
                file.write(f"{name} {digest}\n")
    with open(os.path.join(HERE, "resize.txt"), "w") as file:
        for width, height, to_width, to_height, number in resize_cases():
            out = test_image(width, height).resize((to_width, to_height), number)
            file.write(f"{width} {height} {to_width} {to_height} {number} {fnv1a(out.tobytes())}\n")
    with open(os.path.join(HERE, "letterbox.txt"), "w") as file:
        file.write("\n".join(letterbox_cases()) + "\n")
    with open(os.path.join(HERE, "pixels.txt"), "w") as file:
        file.write("\n".join(pixel_cases()) + "\n")


if __name__ == "__main__":
    main()
