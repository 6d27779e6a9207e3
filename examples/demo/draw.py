#!/usr/bin/env python3
# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""The world of the demo model: coloured shapes on varied backgrounds, drawn from a seed.

A scene is 1 to 3 shapes that do not overlap. All lengths are in units of a 112 x 112 image and boxes lie on
a grid of 4, so that a box is always exactly representable by the answer's <loc> tokens; `render` can draw the
same scene larger. Everything follows from the seed: scene(7) is the same image on every machine.

    draw.py --seed 7 --scale 2 image.png      draws one image and prints what the model should say
"""
import argparse
import functools
import json
import math
import os

import numpy as np
from PIL import Image, ImageDraw

SIDE, GRID = 112, 4
SHAPES = ["circle", "square", "triangle", "star", "cross"]
COLORS = {"red": (220, 35, 35), "green": (30, 160, 60), "blue": (35, 75, 220),
          "yellow": (250, 215, 30), "purple": (150, 40, 185), "orange": (250, 130, 20)}
BACKGROUNDS = ["plain", "gradient", "stripes", "checks", "grain", "clouds"]


def scene(seed, kinds=SHAPES):
    """-> dict(objects=[dict(shape, color, box=(y0, x0, y1, x1))], left to right; rng for the drawing). kinds: the shapes
    to draw from, one as likely as the other."""
    rng = np.random.default_rng(seed)
    wanted = int(rng.integers(1, 4))
    objects = []
    while len(objects) < wanted:
        size = GRID * int(rng.integers(5, 13))  # 20..48
        y0, x0 = (GRID * int(v) for v in rng.integers(0, (SIDE - size) // GRID + 1, 2))
        new = dict(shape=kinds[rng.integers(len(kinds))], color=list(COLORS)[rng.integers(len(COLORS))],
                   box=(y0, x0, y0 + size, x0 + size))
        if all(_compatible(new, old) for old in objects):
            objects.append(new)
        elif rng.random() < 0.02:  # two large shapes can leave no room for a third: begin again
            objects = []
    objects.sort(key=lambda o: o["box"][1] + o["box"][3])
    return dict(seed=seed, objects=objects, rng=rng)


def _compatible(a, b):
    (ay0, ax0, ay1, ax1), (by0, bx0, by1, bx1) = a["box"], b["box"]
    apart = ax1 + GRID <= bx0 or bx1 + GRID <= ax0 or ay1 + GRID <= by0 or by1 + GRID <= ay0
    # A caption names the shapes from left to right, so the order must be visible; "the red circle" must be one.
    ordered = abs((ax0 + ax1) - (bx0 + bx1)) >= 2 * 8
    return apart and ordered and (a["shape"], a["color"]) != (b["shape"], b["color"])


@functools.lru_cache(maxsize=None)
def coverage(shape, size):
    """How much of each pixel the shape covers, 0..1, [size, size]; every shape touches all four sides of its box."""
    over = 8
    n = size * over
    image = Image.new("L", (n, n))
    pen = ImageDraw.Draw(image)
    if shape == "circle":
        pen.ellipse((0, 0, n - 1, n - 1), fill=255)
    elif shape == "square":
        pen.rectangle((0, 0, n, n), fill=255)
    elif shape == "triangle":
        pen.polygon([(n / 2, 0), (n, n), (0, n)], fill=255)
    elif shape == "cross":
        pen.rectangle((n / 3, 0, 2 * n / 3, n), fill=255)
        pen.rectangle((0, n / 3, n, 2 * n / 3), fill=255)
    elif shape == "heart":  # new_word.py
        t = np.linspace(0, 2 * math.pi, 200, endpoint=False)
        points = np.stack([16 * np.sin(t) ** 3, 5 * np.cos(2 * t) + 2 * np.cos(3 * t) + np.cos(4 * t) - 13 * np.cos(t)], 1)
        low, high = points.min(0), points.max(0)
        pen.polygon([tuple(p) for p in (points - low) / (high - low) * n], fill=255)
    else:  # star
        points = np.array([[r * math.sin(k * math.pi / 5), -r * math.cos(k * math.pi / 5)]
                           for k in range(10) for r in [1.0 if k % 2 == 0 else 0.45]])
        low, high = points.min(0), points.max(0)
        pen.polygon([tuple(p) for p in (points - low) / (high - low) * n], fill=255)
    return np.asarray(image.reduce(over), np.float32) / 255


@functools.lru_cache(maxsize=None)
def _grid(n):
    axis = ((np.arange(n) + 0.5) / n).astype(np.float32)
    return axis[:, None] + 0 * axis[None], axis[None] + 0 * axis[:, None]


def _background(rng, n):
    """Muted colours only, so that no background can be taken for a shape."""
    kind = BACKGROUNDS[rng.integers(len(BACKGROUNDS))]
    base = rng.uniform(70, 215) + rng.uniform(-18, 18, 3)
    other = base + rng.choice([-1, 1]) * rng.uniform(15, 40) + rng.uniform(-8, 8, 3)
    y, x = _grid(n)
    angle, phase, count = rng.uniform(0, 2 * math.pi), rng.random(), int(rng.integers(3, 10))
    along = x * math.cos(angle) + y * math.sin(angle)
    if kind == "plain":
        mix = np.zeros((n, n), np.float32)
    elif kind == "gradient":
        mix = along / 2.83 + 0.5
    elif kind == "stripes":
        mix = ((along * count + phase) % 1 < 0.5).astype(np.float32)
    elif kind == "checks":
        mix = ((np.floor(x * count + phase) + np.floor(y * count + phase)) % 2).astype(np.float32)
    elif kind == "grain":
        mix = rng.random((n, n), np.float32)
    else:  # clouds
        coarse = Image.fromarray((rng.random((6, 6)) * 255).astype(np.uint8))
        mix = np.asarray(coarse.resize((n, n), Image.Resampling.BICUBIC), np.float32) / 255
    base, other = base.astype(np.float32), other.astype(np.float32)
    return base + mix[:, :, None] * (other - base)


def render(s, scale=1):
    """-> uint8 [112 * scale, 112 * scale, 3]. Uses up the scene's rng: call it once per scene."""
    rng = s["rng"]
    canvas = _background(rng, SIDE * scale)
    for o in s["objects"]:
        y0, x0, y1, x1 = (v * scale for v in o["box"])
        color = np.clip(np.array(COLORS[o["color"]]) + rng.uniform(-14, 14, 3), 0, 255).astype(np.float32)
        part = canvas[y0:y1, x0:x1]
        part += coverage(o["shape"], y1 - y0)[:, :, None] * (color - part)
    return np.clip(canvas + 0.5, 0, 255).astype(np.uint8)


# What there is to say about a scene: (prompt, suffix) pairs in PaliGemma's own prompt style.

def name(o):
    return f"{o['color']} {o['shape']}"


def locations(o):
    return "".join(f"<loc{round(v / SIDE * 1023):04d}>" for v in o["box"])


def caption(s):
    names = ["a " + name(o) if o["color"] != "orange" else "an " + name(o) for o in s["objects"]]
    return "caption en", " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


QUESTIONS = ["color", "color", "shape", "count", "count_shape", "count_shape", "count_color"]


def question(s, rng, kinds=QUESTIONS):
    shapes, colors = [o["shape"] for o in s["objects"]], [o["color"] for o in s["objects"]]
    single_shape = [o for o in s["objects"] if shapes.count(o["shape"]) == 1]
    single_color = [o for o in s["objects"] if colors.count(o["color"]) == 1]
    kind = rng.choice(kinds)
    if kind == "color" and single_shape:
        o = single_shape[rng.integers(len(single_shape))]
        return f"answer en what color is the {o['shape']}?", o["color"]
    if kind == "shape" and single_color:
        o = single_color[rng.integers(len(single_color))]
        return f"answer en what shape is the {o['color']} object?", o["shape"]
    if kind == "count_shape":  # half of the questions ask for something that is there
        shape = SHAPES[rng.integers(len(SHAPES))] if rng.random() < 0.5 else shapes[rng.integers(len(shapes))]
        plural = shape + ("es" if shape == "cross" else "s")
        return f"answer en how many {plural} are there?", str(shapes.count(shape))
    if kind == "count_color":
        color = list(COLORS)[rng.integers(len(COLORS))] if rng.random() < 0.5 else colors[rng.integers(len(colors))]
        return f"answer en how many {color} objects are there?", str(colors.count(color))
    return "answer en how many objects are there?", str(len(shapes))


def asked_for(s, rng):
    asked = rng.permutation(len(s["objects"]))[:rng.integers(1, len(s["objects"]) + 1)]
    return [s["objects"][i] for i in asked]


def detection(s, rng):
    asked = asked_for(s, rng)
    return ("detect " + " ; ".join(name(o) for o in asked),
            " ; ".join(f"{locations(o)} {name(o)}" for o in asked))


@functools.lru_cache(maxsize=None)
def mask_codes():
    """{shape: its 16 codes}: every shape fills its box, so that a shape has the same codes wherever it lies."""
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "mask_codes.json")) as f:
        return json.load(f)


def codes(o):
    return "".join(f"<seg{code:03d}>" for code in mask_codes()[o["shape"]])


def segmentation(s, rng):
    asked = asked_for(s, rng)
    return ("segment " + " ; ".join(name(o) for o in asked),
            " ; ".join(f"{locations(o)}{codes(o)} {name(o)}" for o in asked))


NOISE, BOXES = "<mask>", 6


def everything(s, rng):
    """An experiment that the shipped model has not learned (docs/ANSWERS.md): all objects, in random order; or the paper's
    way to more boxes, which goes on with boxes of anything that are named NOISE, up to BOXES."""
    said = [f"{locations(s['objects'][i])} {name(s['objects'][i])}" for i in rng.permutation(len(s["objects"]))]
    if rng.random() < 0.5:
        return "detect all", " ; ".join(said)
    while len(said) < BOXES:
        size = GRID * int(rng.integers(5, 13))
        y0, x0 = (GRID * int(v) for v in rng.integers(0, (SIDE - size) // GRID + 1, 2))
        said.append(locations(dict(box=(y0, x0, y0 + size, x0 + size))) + NOISE)
    return "detect all classes", " ; ".join(said)


def mask(o, scale=1):
    """bool [112 * scale, 112 * scale]: the pixels of `render` that are more than half the object's."""
    y0, x0, y1, x1 = (v * scale for v in o["box"])
    whole = np.zeros((SIDE * scale, SIDE * scale), bool)
    whole[y0:y1, x0:x1] = coverage(o["shape"], y1 - y0) > 0.5
    return whole


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--seed", type=int, required=True)
    args.add_argument("--scale", type=int, default=1, help="the image's side is 112 * SCALE pixels")
    args.add_argument("--quality", type=int, default=92, help="of a JPEG")
    args.add_argument("image", help="file to write; its ending chooses the format")
    args = args.parse_args()
    s = scene(args.seed)
    options = dict(quality=args.quality) if args.image.lower().endswith((".jpg", ".jpeg")) else {}
    Image.fromarray(render(s, args.scale)).save(args.image, **options)
    rng = np.random.default_rng(args.seed)
    for prompt, suffix in [caption(s), question(s, rng), detection(s, rng), segmentation(s, rng)]:
        print(f"{prompt}\t{suffix}")


if __name__ == "__main__":
    main()
