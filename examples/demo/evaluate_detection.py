#!/usr/bin/env python3
# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""Measures the detections of the demo model with COCO's metrics (pycocotools), through the Python package of the
library.

    evaluate_detection.py model --images 500 --diagram reliability.svg
    evaluate_detection.py model --images 500 --more-boxes [--noise-model FOLDER]

Two questions about each image, which the model was not trained on: all its shapes ("there"), and all of them with
one that is not there in between ("one is not"). Each is asked freely and with constrain=True. Prints tables for
docs/ANSWERS.md: mAP, AP50 and AR for each way to make a score, what is broken, what leaving out duplicates does,
and the three of each class; --diagram draws how often boxes of a score are right.

--more-boxes prints what ways to get more boxes do to "there" instead: no end of the text before a number of tokens,
several drawn answers, and, with a model that train.py gave a share of the task "everything", the paper's noise
boxes.
"""
import argparse
import contextlib
import io
import time

import draw
import numpy as np
import paligemma
from evaluate import iou
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

END = 1  # eos
CLASSES = [f"{color} {shape}" for color in draw.COLORS for shape in draw.SHAPES]
SCORES = {"1 (no score)": lambda o: 1.0, "loc": lambda o: o.loc_score, "loc, product of four": lambda o: o.loc_score ** 4,
          "label": lambda o: o.label_score, "loc x label": lambda o: o.score}


def ask(model, seeds, absent, constrain, max_iou=None):
    """-> rows (seed, things asked for, objects of the scene that were asked for, Answer), seconds."""
    rows, seconds = [], 0.0
    for seed in seeds:
        scene = draw.scene(seed)
        image, rng = draw.render(scene), np.random.default_rng([seed, 3])
        names = [draw.name(o) for o in scene["objects"]]
        if absent:
            others = [name for name in CLASSES if name not in names]
            names.append(others[rng.integers(len(others))])
        names = [names[i] for i in rng.permutation(len(names))]
        begin = time.monotonic()
        found = model.detect(image, names, constrain=constrain, max_iou=max_iou)
        seconds += time.monotonic() - begin
        rows.append((seed, names, scene["objects"], found.answer))
    return rows, seconds


def usable(answer):
    return [o for o in answer if not o.broken and o.duplicate_of is None]


def coco(rows, score):
    """pycocotools' evaluation of the rows."""
    truth = dict(info={}, images=[dict(id=seed, width=draw.SIDE, height=draw.SIDE) for seed, *_ in rows], annotations=[],
                 categories=[dict(id=i + 1, name=name) for i, name in enumerate(CLASSES)])
    found = []
    for seed, _, objects, answer in rows:
        for o in objects:
            y0, x0, y1, x1 = o["box"]
            truth["annotations"].append(dict(
                id=len(truth["annotations"]) + 1, image_id=seed, category_id=CLASSES.index(draw.name(o)) + 1, iscrowd=0,
                bbox=[x0, y0, x1 - x0, y1 - y0], area=(x1 - x0) * (y1 - y0)))
        for o in usable(answer):
            if o.label in CLASSES:
                x0, y0, x1, y1 = o.box
                found.append(dict(image_id=seed, category_id=CLASSES.index(o.label) + 1, score=float(score(o)),
                                  bbox=[x0, y0, x1 - x0, y1 - y0]))
    with contextlib.redirect_stdout(io.StringIO()):
        of = COCO()
        of.dataset = truth
        of.createIndex()
        evaluation = COCOeval(of, of.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def right(rows, score):
    """(score, 0 or 1) of each box: it is the best one of an object that has its label, with an IoU of 0.5."""
    pairs = []
    for _, _, objects, answer in rows:
        left = list(objects)
        for o in sorted(usable(answer), key=score, reverse=True):
            x0, y0, x1, y1 = o.box
            hit = next((t for t in left if draw.name(t) == o.label and iou((y0, x0, y1, x1), t["box"]) >= 0.5), None)
            if hit is not None:
                left.remove(hit)
            pairs.append((score(o), float(hit is not None)))
    return np.array(pairs)


def calibration(pairs, n_bins=10):
    """Bins of (mean score, share of right ones, boxes), and the expected calibration error."""
    which = np.clip((pairs[:, 0] * n_bins).astype(int), 0, n_bins - 1)
    bins = [(*pairs[which == b].mean(0), int((which == b).sum())) for b in range(n_bins) if (which == b).any()]
    return bins, sum(abs(score - share) * n for score, share, n in bins) / len(pairs)


def broken(rows):
    """Answers with an object that is broken or without a label, those that the limit of tokens broke off left out; those;
    boxes of what was not asked for."""
    bad = sum(any((o.broken or not o.label) and "unfinished" not in o.flags for o in answer) for *_, answer in rows)
    cut = sum(any("unfinished" in o.flags for o in answer) for *_, answer in rows)
    return bad, cut, sum(o.label not in names for _, names, _, answer in rows for o in usable(answer))


def diagram(path, bins, error):
    """An SVG of 10 bins: how often boxes of a score are right."""
    side, pad = 320, 44
    at = lambda v: pad + v * side  # noqa: E731
    up = lambda v: pad + (1 - v) * side  # noqa: E731
    most = max(n for *_, n in bins)
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{side + 2 * pad}" height="{side + 2 * pad}" '
             'font-family="sans-serif" font-size="12">', '<rect width="100%" height="100%" fill="white"/>']
    for v in np.linspace(0, 1, 6):
        parts += [f'<path d="M{at(v)} {up(0)}V{up(1)}M{at(0)} {up(v)}H{at(1)}" stroke="#ddd"/>',
                  f'<text x="{at(v)}" y="{up(0) + 16}" text-anchor="middle">{v:.1f}</text>',
                  f'<text x="{at(0) - 6}" y="{up(v) + 4}" text-anchor="end">{v:.1f}</text>']
    parts.append(f'<path d="M{at(0)} {up(0)}L{at(1)} {up(1)}" stroke="#888" stroke-dasharray="4 4"/>')
    for score, share, n in bins:
        radius = 4 + 10 * (n / most) ** 0.5
        count = up(share) - radius - 5  # above its circle, or below where that would leave the square
        if count < up(1) + 10:
            count = up(share) + radius + 13
        parts.append(f'<circle cx="{at(score):.1f}" cy="{up(share):.1f}" r="{radius:.1f}" fill="#1f77b4" '
                     f'fill-opacity="0.6"/><text x="{at(score):.1f}" y="{count:.1f}" text-anchor="middle" '
                     f'fill="#555">{n}</text>')
    parts += [f'<text x="{at(0.5)}" y="{up(0) + 34}" text-anchor="middle">score</text>',
              f'<text x="14" y="{up(0.5)}" text-anchor="middle" transform="rotate(-90 14 {up(0.5)})">boxes that are right</text>',
              f'<text x="{at(0.5)}" y="{up(1) - 14}" text-anchor="middle">expected calibration error {error:.3f}</text>', "</svg>"]
    with open(path, "w") as f:
        f.write("\n".join(parts) + "\n")


def of_classes(evaluation, names):
    """'mAP / AP50 / AR' over the classes of these names."""
    which = [i for i, name in enumerate(CLASSES) if name in names]
    precision, recall = evaluation.eval["precision"][:, :, which, 0, 2], evaluation.eval["recall"][:, which, 0, 2]
    return " / ".join(f"{values[values > -1].mean():.3f}" for values in (precision, precision[:1], recall))


def class_table(evaluation):
    print("\n| | " + " | ".join(draw.SHAPES) + " | all shapes |\n|---" + "|---" * (len(draw.SHAPES) + 1) + "|")
    for color in [*draw.COLORS, None]:
        cells = [of_classes(evaluation, [f"{c} {s}" for c in ([color] if color else draw.COLORS)
                                         for s in ([shape] if shape else draw.SHAPES)]) for shape in [*draw.SHAPES, None]]
        print(f"| {color or 'all colours'} | " + " | ".join(cells) + " |")


# ---- ways to more boxes -------------------------------------------------------------------------------------------

class Merged(list):
    """Usable objects of several answers, of boxes with one label that overlap only the one with the best score."""

    def __init__(self, answers, score, max_iou=0.7):
        super().__init__()
        for o in sorted((o for answer in answers for o in usable(answer)), key=score, reverse=True):
            if not any(p.label == o.label and iou(p.box, o.box) > max_iou for p in self):  # x and y changed: the same
                self.append(o)


def generated(model, processor, image, prompt, **settings):
    """The answers that generate() gives with the settings, with scores of the model's own probabilities."""
    inputs = processor(images=image, text=prompt, return_tensors="np")
    out = model.generate(**inputs, return_dict_in_generate=True, output_logits=True, **settings)
    rows = out.sequences[:, inputs["input_ids"].shape[1]:]
    logits = np.stack(out.logits, 1).astype(np.float64)
    logs = logits - logits.max(-1, keepdims=True)
    logs -= np.log(np.exp(logs).sum(-1, keepdims=True))
    answers = []
    for ids, row_logs in zip(rows, logs):
        said = np.take_along_axis(row_logs, ids[:, None], 1)[:, 0]
        n = int((ids == END).argmax()) if (ids == END).any() else len(ids)
        answers.append(paligemma.parse_answer(ids[:n], (draw.SIDE, draw.SIDE), processor=processor, log_probs=said[:n]))
    return answers


def more_boxes(model, noise_model, processor, seeds):
    both, label = SCORES["loc x label"], SCORES["label"]
    free = dict(do_sample=False, max_new_tokens=64)
    ways = [("greedy", model, None, free, both), ("greedy, of duplicates the best", model, None, free, both)]
    for n in (24, 48):
        ways.append((f"no end before {n} tokens", model, None, free | dict(min_new_tokens=n), both))
    for n in (4, 16):
        drawn = dict(max_new_tokens=64, do_sample=True, num_return_sequences=n)
        ways.append((f"{n} drawn answers", model, None, drawn, both))
    if noise_model:
        noise = processor.tokenizer.convert_tokens_to_ids(draw.NOISE)
        ways += [("`detect all`", noise_model, "detect all", free, both),
                 ("`detect all`, score of the label alone", noise_model, "detect all", free, label)]
        settings = dict(do_sample=False, max_new_tokens=8 * draw.BOXES, suppress_tokens=[END, noise])
        ways += [("noise boxes, score of the label (the paper's way)", noise_model, "detect all classes", settings, label),
                 ("noise boxes, loc x label", noise_model, "detect all classes", settings, both)]
    print("| way | boxes | mAP | AP50 | AR | calibration error | ms an image |\n" + "|---" * 7 + "|")
    for name, asked, prompt, settings, score in ways:
        rows, begin = [], time.monotonic()
        for seed in seeds:
            scene = draw.scene(seed)
            image, rng = draw.render(scene), np.random.default_rng([seed, 3])
            names = [draw.name(scene["objects"][i]) for i in rng.permutation(len(scene["objects"]))]
            answers = generated(asked, processor, image, prompt or "detect " + " ; ".join(names),
                                **settings, **(dict(seed=seed) if settings.get("do_sample") else {}))
            found = usable(answers[0]) if name == "greedy" else Merged(answers, score)
            rows.append((seed, names, scene["objects"], found))
        stats = coco(rows, score).stats
        print(f"| {name} | {sum(len(a) for *_, a in rows)} | {stats[0]:.3f} | {stats[1]:.3f} | {stats[8]:.3f} | "
              f"{calibration(right(rows, score))[1]:.3f} | {(time.monotonic() - begin) / len(rows) * 1e3:.1f} |", flush=True)


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("model")
    args.add_argument("--images", type=int, default=500)
    args.add_argument("--first-seed", type=int, default=20000, help="training uses seeds from 1,000,000 up")
    args.add_argument("--diagram", help="SVG file to write")
    args.add_argument("--more-boxes", action="store_true", help="measure ways to get more boxes instead")
    args.add_argument("--noise-model", help="checkpoint folder that learned `everything`, with the same tokenizer")
    args.add_argument("--threads", type=int, default=1)
    args = args.parse_args()
    model = paligemma.PaliGemmaForConditionalGeneration.from_pretrained(args.model, n_threads=args.threads)
    seeds = range(args.first_seed, args.first_seed + args.images)
    if args.more_boxes:
        opened = args.noise_model and paligemma.PaliGemmaForConditionalGeneration.from_pretrained(args.noise_model)
        more_boxes(model, opened, paligemma.AutoProcessor.from_pretrained(args.model), seeds)
        return
    asked = {}
    for question, absent in (("there", False), ("one is not", True)):
        for constrain in (False, True):
            asked[question, constrain] = ask(model, seeds, absent, constrain)

    print("| asked for | score | mAP | AP50 | AR | calibration error |\n|---|---|---|---|---|---|")
    for (question, constrain), (rows, _) in asked.items():
        if not constrain:
            for name, score in SCORES.items():
                stats = coco(rows, score).stats
                print(f"| {question} | {name} | {stats[0]:.3f} | {stats[1]:.3f} | {stats[8]:.3f} | "
                      f"{calibration(right(rows, score))[1]:.3f} |")
    print("\n| asked for | | answers broken | broken off | boxes | not asked for | mAP | ms an image |\n" + "|---" * 8 + "|")
    for (question, constrain), (rows, seconds) in asked.items():
        bad, cut, other = broken(rows)
        print(f"| {question} | {'constrain' if constrain else 'free'} | {bad} of {len(rows)} | {cut} | "
              f"{sum(len(usable(a)) for *_, a in rows)} | {other} | {coco(rows, SCORES['loc x label']).stats[0]:.3f} | "
              f"{seconds / len(rows) * 1e3:.1f} |")
    print("\n| asked for | max_iou | boxes | mAP | calibration error |\n|---|---|---|---|---|")
    for question, absent in (("there", False), ("one is not", True)):
        for limit in (None, 0.9, 0.7, 0.5):
            rows = ask(model, seeds, absent, False, limit)[0]
            pairs = right(rows, SCORES["loc x label"])
            print(f"| {question} | {limit or 'off'} | {len(pairs)} | {coco(rows, SCORES['loc x label']).stats[0]:.3f} | "
                  f"{calibration(pairs)[1]:.3f} |")
    rows = ask(model, seeds, True, False, 0.7)[0]
    class_table(coco(asked["there", False][0], SCORES["loc x label"]))
    bins, error = calibration(right(rows, SCORES["loc x label"]))
    print("\n| score | right | boxes |\n|---|---|---|")
    for score, share, n in bins:
        print(f"| {score:.3f} | {share:.3f} | {n} |")
    if args.diagram:
        diagram(args.diagram, bins, error)


if __name__ == "__main__":
    main()
