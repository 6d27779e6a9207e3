#!/usr/bin/env python3
# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""A word for the demo model to learn: hearts, which it never saw.

    new_word.py data --count 1500                        writes data/train.jsonl, data/validation.jsonl and their images
    paligemma train examples/demo/model data/train.jsonl --out heart ...       (README.md has the whole command)
    new_word.py --measure examples/demo/model --adapter heart                  how much of it was learned

Scenes are those of draw.py with one shape more, which is in two of three of them. Each line has an image, a prompt (the
caption, what is where, what colour it has) and what the model should say. --measure asks for fresh images, with hearts and
without, through the Python package: what is exactly right, and of detections the mean IoU.
"""
import argparse
import json
import os

import numpy as np
from PIL import Image

import draw

NEW = "heart"
KINDS = draw.SHAPES + [NEW] * 3
TRAINING, VALIDATION, MEASURED = 3_000_000, 4_000_000, 5_000_000  # seeds; draw.py's training counts up from 1,000,000


def prompts(s, rng):
    """-> [(prompt, suffix)] of a scene."""
    return [draw.caption(s), draw.detection(s, rng), draw.question(s, rng, ["color", "shape", "count"])]


def write(folder, name, first, count):
    os.makedirs(os.path.join(folder, name), exist_ok=True)
    with open(os.path.join(folder, name + ".jsonl"), "w") as lines:
        for seed in range(first, first + count):
            s, rng = draw.scene(seed, KINDS), np.random.default_rng([seed, 9])
            image = f"{name}/{seed - first:05d}.png"
            Image.fromarray(draw.render(s)).save(os.path.join(folder, image))
            prefix, suffix = prompts(s, rng)[int(rng.choice(3, p=[0.4, 0.45, 0.15]))]
            lines.write(json.dumps({"image": image, "prefix": prefix, "suffix": suffix}) + "\n")


def boxes(answer):
    return {o.label: (o.box[1], o.box[0], o.box[3], o.box[2]) for o in answer if not o.broken and o.duplicate_of is None}


def iou(a, b):
    height, width = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    both = max(height, 0) * max(width, 0)
    area = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return both / (area - both)


def measure(model, kinds, count):
    """-> captions that are right, of all; mean IoU of the boxes asked for."""
    from paligemma import AutoProcessor  # here: without it the data can be drawn
    processor = AutoProcessor.from_pretrained(model.name_or_path)
    right, found = 0, []
    for seed in range(MEASURED, MEASURED + count):
        s, rng = draw.scene(seed, kinds), np.random.default_rng([seed, 9])
        image = Image.fromarray(draw.render(s))
        prompt, suffix = draw.caption(s)
        ids = model.generate(**processor(image, prompt, return_tensors="np"), max_new_tokens=40)
        right += processor.decode(ids[0], skip_special_tokens=True).split("\n")[-1] == suffix
        asked = draw.asked_for(s, rng)
        answer = model.detect(np.asarray(image), [draw.name(o) for o in asked]).answer
        said = boxes(answer)
        for o in asked:
            box = said.get(draw.name(o))
            found.append(iou(box, o["box"]) if box else 0.0)
    return right, float(np.mean(found))


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("folder", nargs="?", help="where the data go")
    args.add_argument("--count", type=int, default=1500, help="images to train on (default 1500)")
    args.add_argument("--measure", metavar="MODEL", help="ask this model in place of drawing")
    args.add_argument("--adapter", help="of the model")
    args.add_argument("--images", type=int, default=200, help="to ask about (default 200)")
    args = args.parse_args()
    if not args.measure:
        if not args.folder:
            raise SystemExit("new_word.py: a folder for the data, or --measure MODEL")
        write(args.folder, "train", TRAINING, args.count)
        write(args.folder, "validation", VALIDATION, 100)
        return
    from paligemma import PaliGemmaForConditionalGeneration
    model = PaliGemmaForConditionalGeneration.from_pretrained(args.measure)
    if args.adapter:
        model.load_adapter(args.adapter)
    for what, kinds in (("with hearts", [NEW] * 3 + draw.SHAPES), ("without", draw.SHAPES)):
        right, mean_iou = measure(model, kinds, args.images)
        print(f"{what}: {right} of {args.images} captions right, mean IoU {mean_iou:.3f}")


if __name__ == "__main__":
    main()
