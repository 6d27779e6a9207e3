#!/usr/bin/env python3
# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""Measures a checkpoint folder of the demo through transformers, f32, greedy, on images it was not trained on.

    evaluate.py model --images 500 --out answers.jsonl

Each image is asked for its caption, one question, one detection and one segmentation. Prints how many captions and answers
are exactly right, the mean IoU of the boxes and that of the masks (an asked-for shape without a box, or a mask, of its name counts
as 0). Masks are decoded and put into the image as the training code's evaluator does (masks.py) and compared with the pixels of the
drawing, on its 112 x 112. Each line of the JSONL holds the image's seed, the prompt, the ids the model was given, the ids and the text it generated, and the text
expected: another implementation can be held against it token by token.
"""
import argparse
import json
import os
import re

import numpy as np
import torch
from transformers import AutoProcessor, PaliGemmaForConditionalGeneration

import draw
import masks


def boxes(text):
    """'<loc..> x 4 red circle ; ...' -> {name: (y0, x0, y1, x1)} in pixels."""
    found = {}
    for part in text.split(";"):
        match = re.fullmatch(r"\s*<loc(\d{4})><loc(\d{4})><loc(\d{4})><loc(\d{4})> ([a-z ]+?)\s*", part)
        if match:
            found[match[5]] = tuple(int(v) / 1023 * draw.SIDE for v in match.groups()[:4])
    return found


def segments(text):
    """'<loc..> x 4 <seg..> x 16 red circle ; ...' -> {name: (locs, codes)}."""
    found = {}
    for part in text.split(";"):
        match = re.fullmatch(r"\s*((?:<loc\d{4}>){4})((?:<seg\d{3}>){16}) ([a-z ]+?)\s*", part)
        if match:
            found[match[3]] = tuple([int(v) for v in re.findall(r"\d+", match[i])] for i in (1, 2))
    return found


def mask_ious(row, decoder):
    """Of every mask that was asked for, in the order of the question."""
    found, ious = segments(row["text"]), []
    objects = {draw.name(o): o for o in draw.scene(row["seed"])["objects"]}
    for name in segments(row["expected"]):
        overlap = 0.0
        if name in found:
            locs, codes = found[name]
            mine, truth = masks.in_image(decoder([codes])[0], locs, draw.SIDE, draw.SIDE), draw.mask(objects[name])
            overlap = float((mine & truth).sum() / (mine | truth).sum())
        ious.append(overlap)
    return ious


def iou(a, b):
    height = max(0, min(a[2], b[2]) - max(a[0], b[0]))
    width = max(0, min(a[3], b[3]) - max(a[1], b[1]))
    both = height * width
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("model")
    args.add_argument("--images", type=int, default=500)
    args.add_argument("--first-seed", type=int, default=0, help="training uses seeds from 1,000,000 up")
    args.add_argument("--out", help="JSONL file to write")
    args.add_argument("--batch", type=int, default=20)
    args.add_argument("--threads", type=int, default=2)
    args = args.parse_args()
    torch.set_num_threads(args.threads)

    model = PaliGemmaForConditionalGeneration.from_pretrained(args.model, dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(args.model)
    decoder = masks.Decoder(os.path.join(args.model, "vae-oid.safetensors"))
    rows = []
    for begin in range(args.first_seed, args.first_seed + args.images, args.batch):
        groups = {"caption": [], "answer": [], "detect": [], "segment": []}
        for seed in range(begin, min(begin + args.batch, args.first_seed + args.images)):
            s = draw.scene(seed)
            image, rng = draw.render(s), np.random.default_rng([seed, 2])
            pairs = [draw.caption(s), draw.question(s, rng), draw.detection(s, rng), draw.segmentation(s, rng)]
            for task, pair in zip(groups, pairs):
                groups[task].append((seed, image, *pair))
        for task, asked in groups.items():
            inputs = processor(images=[[a[1]] for a in asked], text=["<image>" + a[2] for a in asked],
                               padding=True, return_tensors="pt")
            inputs.pop("labels", None)
            with torch.inference_mode():
                out = model.generate(**inputs, max_new_tokens=80, do_sample=False)
            for (seed, _, prompt, expected), given, mask, full in zip(asked, inputs["input_ids"], inputs["attention_mask"], out):
                ids = full[len(given):].tolist()
                ids = ids[:ids.index(1) + 1] if 1 in ids else ids
                rows.append(dict(seed=seed, task=task, prompt=prompt, input_ids=given[mask == 1].tolist(), ids=ids,
                                 text=processor.tokenizer.decode(ids, skip_special_tokens=True), expected=expected))

    def exact(task):
        mine = [r["text"] == r["expected"] for r in rows if r["task"] == task]
        return f"{sum(mine)} of {len(mine)} ({100 * sum(mine) / len(mine):.1f}%)"

    overlaps, wrong_names = [], 0
    for r in rows:
        if r["task"] == "detect":
            wanted, found = boxes(r["expected"]), boxes(r["text"])
            overlaps += [iou(box, found[name]) if name in found else 0.0 for name, box in wanted.items()]
            wrong_names += list(wanted) != list(found)
    print(f"captions exact    {exact('caption')}\nanswers exact     {exact('answer')}\ndetections exact  {exact('detect')}")
    print(f"mean IoU          {np.mean(overlaps):.4f} over {len(overlaps)} boxes, {100 * np.mean(np.array(overlaps) >= 0.5):.1f}% "
          f"of them >= 0.5; {wrong_names} answers with missing, extra or misnamed boxes")
    overlaps = [overlap for r in rows if r["task"] == "segment" for overlap in mask_ious(r, decoder)]
    print(f"segments exact    {exact('segment')}\nmean mask IoU     {np.mean(overlaps):.4f} over {len(overlaps)} masks, "
          f"{100 * np.mean(np.array(overlaps) >= 0.75):.1f}% of them >= 0.75")
    if args.out:
        with open(args.out, "w") as f:
            f.writelines(json.dumps(r) + "\n" for r in rows)


if __name__ == "__main__":
    main()
