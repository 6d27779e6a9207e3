#!/usr/bin/env python3
# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""Measures what bf16 arithmetic and int8 and int4 weights cost in quality, and writes their section of docs/EXACTNESS.md.

    quality.py [--write] [--images 2000] [--count 8] [--big FOLDER[,int8=FOLDER,...]]... [--formats bf16,int8,int4]
               [--seed 7000] [--build FOLDER]

The stored weights computed in f32, which are transformers' results to float noise (exactness.py), are the measure; each
format is a folder that `paligemma convert` makes of the same checkpoint, or the one that --big names after it; bf16 is
the checkpoint itself in bf16 arithmetic (left out on a CPU where the library computes it in f32). int8 and int4 run as by
default: their attention is in bf16 where bf16 is.

    models    --count random small checkpoints, the demo checkpoint, and each --big one (make_random.py 3b-224)
    distance  relative L2 of features, layers, final norm and logits, in a forward pass over image, prompt and the text
              that the stored weights generate
    KL        of the next token's distribution at each of those positions, in nats
    top-1     positions where the likeliest token is the same;  text: generations that are the same to the end
    tasks     the demo checkpoint's captions, answers and detections that are exactly right, and its boxes' IoU, on
              --images images that it was not trained on

Exit status 1: the demo's tasks lose more than 1 point (bf16, int8) or 3 points (int4), or a format could not be made.
"""
import argparse
import collections
import datetime
import os
import subprocess
import sys
import tempfile

import numpy as np
import torch
from PIL import Image

import checkpoints
import compare
import exactness
import pglib

sys.path.insert(0, exactness.DEMO)
import draw  # noqa: E402
import evaluate  # noqa: E402

BEGIN, END = "<!-- tests/oracle/quality.py --write: begin -->", "<!-- quality.py: end -->"
FRESH_SEED, MAX_NEW = 500000, 40  # training draws from 1,000,000 up, evaluate.py from 0
ALLOWED_POINTS = {"bf16": 1.0, "int8": 1.0, "int4": 3.0}
STAGES = ["image features", "embeddings", "decoder layers", "final norm", "logits"]


def convert(build, folder, out, weights):
    """-> None, or why not"""
    done = subprocess.run([os.path.join(build, "paligemma"), "convert", folder, out, "--weights", weights],
                          capture_output=True, text=True)
    return done.stderr.strip() if done.returncode else None


def open_as(library, folder, kind):
    """`folder` in the arithmetic of a format."""
    return pglib.Model(library, folder, arithmetic=pglib.ARITHMETIC_BF16 if kind == "bf16" else 0)


def outputs_of(model, arrays, n_threads):
    """-> {stage: [arrays]}, logits of the prompt's last token and of the text's"""
    n_kept = int(arrays["token_type_ids"].sum()) + 1
    with model.library.make_inputs(**arrays) as inputs, \
            model.forward(inputs, n_threads=n_threads, flags=pglib.FORWARD_HIDDEN_STATES,
                          logits_to_keep=n_kept) as outputs:
        hidden = outputs["hidden_states"]
        return {"image features": [outputs["image_hidden_states"]], "embeddings": [hidden[0]],
                "decoder layers": list(hidden[1:-1]), "final norm": [hidden[-1]], "logits": [outputs["logits"][0]]}


def log_softmax(x):
    x = x.astype(np.float64)
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def divergence(exact, other):
    """KL(exact || other) of each row of logits."""
    p, q = log_softmax(exact), log_softmax(other)
    return (np.exp(p) * (p - q)).sum(-1)


class Row:
    """What one format does to one kind of model."""

    def __init__(self):
        self.distance, self.kl, self.same_top = collections.defaultdict(float), [], []
        self.texts, self.same_texts, self.tokens, self.same_tokens = 0, 0, 0, 0

    def add(self, exact, ours, ids, own_ids):
        for stage in STAGES:
            for a, b in zip(exact[stage], ours[stage]):
                self.distance[stage] = max(self.distance[stage], exactness.apart(b, a))
        self.kl += divergence(exact["logits"][0], ours["logits"][0]).tolist()
        self.same_top += (exact["logits"][0].argmax(-1) == ours["logits"][0].argmax(-1)).tolist()
        same = next((i for i, (a, b) in enumerate(zip(ids, own_ids)) if a != b), min(len(ids), len(own_ids)))
        self.texts += 1
        self.same_texts += ids == own_ids
        self.tokens += len(ids)
        self.same_tokens += same

    def markdown(self):
        cells = [f"{self.distance[stage]:.1e}" for stage in STAGES]
        cells += [f"{np.mean(self.kl):.1e}", f"{np.quantile(self.kl, 0.99):.1e}",
                  f"{100 * np.mean(self.same_top):.1f}% of {len(self.same_top)}",
                  f"{100 * self.same_tokens / self.tokens:.0f}% of {self.tokens}", f"{self.same_texts} of {self.texts}"]
        return " | ".join(cells)


def folder_of(temporary, folder, kind, converted=None):
    if kind == "bf16":
        return folder
    return (converted or {}).get(kind, os.path.join(temporary, f"{os.path.basename(os.path.abspath(folder))}-{kind}"))


def measure(library, build, folder, prompts, rows, formats, temporary, n_threads, max_new, converted=None):
    """Adds a checkpoint to rows[format]. prompts: [(path, text)]; converted: {format: folder} that are there already.
    -> why a format was left out"""
    cases, refused = [], []
    with pglib.Model(library, folder) as model, pglib.Processor(library, folder) as processor, \
            pglib.Session(model, n_threads=n_threads, max_new_tokens=max_new) as session:
        for path, text in prompts:
            with processor.encode(path, text, pglib.ENCODE_EXIF) as inputs:
                ids, _ = session.generate(inputs)
                prompt, pixels = inputs["input_ids"], inputs["pixel_values"]
            fed = ids[:-1]
            if prompt[0, 0] in fed:  # a random model may say <image>, which no forward pass takes without an image
                fed = fed[:fed.index(prompt[0, 0])]
            row = np.concatenate([prompt[0], fed]).astype(np.int64)[None]
            types = (np.arange(row.shape[1]) >= prompt.shape[1]).astype(np.int64)[None]
            arrays = dict(input_ids=row, token_type_ids=types, pixel_values=pixels)
            cases.append((path, text, ids, arrays, outputs_of(model, arrays, n_threads)))
    for weights in formats:
        out = folder_of(temporary, folder, weights, converted)
        why = None if os.path.exists(out) else convert(build, folder, out, weights)
        if why:
            refused.append(f"{weights}: {why}")
            continue
        with open_as(library, out, weights) as model, pglib.Processor(library, folder) as processor, \
                pglib.Session(model, n_threads=n_threads, max_new_tokens=max_new) as session:
            for path, text, ids, arrays, exact in cases:
                with processor.encode(path, text, pglib.ENCODE_EXIF) as inputs:
                    own_ids, _ = session.generate(inputs)
                rows[weights].add(exact, outputs_of(model, arrays, n_threads), ids, own_ids)
    return refused


def demo_tasks(library, folder, kind, n_images):
    """-> {task: [right]}, [IoU of each box asked for]"""
    right, overlaps = collections.defaultdict(list), []
    original = os.path.join(exactness.DEMO, "model")
    with open_as(library, folder, kind) as model, pglib.Processor(library, original) as processor, \
            pglib.Session(model, n_threads=1, max_new_tokens=MAX_NEW) as session:
        for seed in range(FRESH_SEED, FRESH_SEED + n_images):
            scene, rng = draw.scene(seed), np.random.default_rng([seed, 2])
            asked = [draw.caption(scene), draw.question(scene, rng), draw.detection(scene, rng)]
            image, features = (draw.render(scene), pglib.IMAGE_RGB8), None
            for task, (prompt, expected) in zip(["captions", "answers", "detections"], asked):
                with processor.encode_batch([prompt], images=[image]) as inputs:
                    features = features or model.encode_image(inputs)
                    session.prefill(inputs, features)
                    ids, _ = session.steps()
                text = processor.decode(ids)
                right[task].append(text == expected)
                if task == "detections":
                    found = evaluate.boxes(text)
                    overlaps += [evaluate.iou(box, found[name]) if name in found else 0.0
                                 for name, box in evaluate.boxes(expected).items()]
            features.close()
    return right, overlaps


def tasks_table(library, folders, n_images):
    """folders: {format: folder}, "stored" first. -> Markdown, [what lost too much]"""
    lines, wrong, base = ["| format | captions | answers | detections | all three | mean IoU | IoU >= 0.5 |",
                          "|---|---|---|---|---|---|---|"], [], None
    for weights, folder in folders.items():
        right, overlaps = demo_tasks(library, folder, weights, n_images)
        points = [100 * np.mean(right[task]) for task in ("captions", "answers", "detections")]
        points.append(100 * np.mean(sum(right.values(), [])))
        base = base or points
        cells = [f"{p:.2f}%" + (f" ({p - b:+.2f})" if weights != "stored" else "") for p, b in zip(points, base)]
        lines.append(f"| {weights} | " + " | ".join(cells) +
                     f" | {np.mean(overlaps):.4f} | {100 * np.mean(np.array(overlaps) >= 0.5):.2f}% |")
        if base[-1] - points[-1] > ALLOWED_POINTS.get(weights, 0):
            wrong.append(f"the demo's tasks with {weights}: {points[-1]:.2f}%, stored {base[-1]:.2f}%")
        print(lines[-1], flush=True)
    return "\n".join(lines), wrong


def write_page(text):
    with open(exactness.PAGE, encoding="utf-8") as f:
        page = f.read()
    if BEGIN not in page:
        page += f"\n## bf16, int8 and int4\n\n{BEGIN}{END}\n"
    before, _, rest = page.partition(BEGIN)
    with open(exactness.PAGE, "w", encoding="utf-8") as f:
        f.write(f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.partition(END)[2]}")


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--write", action="store_true", help="into docs/EXACTNESS.md")
    args.add_argument("--images", type=int, default=2000, help="of the demo's tasks (default 2000)")
    args.add_argument("--count", type=int, default=8, help="random small checkpoints (default 8)")
    args.add_argument("--seed", type=int, default=7000, help="the first of them (default 7000)")
    args.add_argument("--big", action="append", default=[], metavar="FOLDER[,int8=FOLDER,...]",
                      help="a checkpoint of real shapes, and folders converted from it; may be repeated")
    args.add_argument("--formats", default="bf16,int8,int4")
    args.add_argument("--build", default=compare.default_build(), help="the build folder ($PG_BUILD or ./build)")
    args = args.parse_args()
    torch.set_num_threads(1)
    library, formats, tables, refused = pglib.Library(args.build), args.formats.split(","), {}, []

    if "bf16" in formats:
        with open_as(library, os.path.join(exactness.DEMO, "model"), "bf16") as model:
            if model.info().arithmetic != pglib.ARITHMETIC_BF16:
                print("bf16 is left out: this CPU computes it in f32")
                formats.remove("bf16")

    def new_rows(title):
        return tables.setdefault(title, {weights: Row() for weights in formats})

    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as temporary:
        demo = os.path.join(exactness.DEMO, "model")
        draw_prompt = exactness.demo_prompts(temporary)
        refused += measure(library, args.build, demo, [draw_prompt(i) for i in range(40)], new_rows("the demo checkpoint"),
                           formats, temporary, 1, MAX_NEW)
        rows = new_rows(f"{args.count} random small checkpoints")
        for seed in range(args.seed, args.seed + args.count):
            folder = os.path.join(temporary, f"random{seed}")
            checkpoints.write(checkpoints.draw(seed), folder)
            draw_prompt = exactness.random_prompts(seed, temporary)
            refused += measure(library, args.build, folder, [draw_prompt(i) for i in range(4)], rows, formats, temporary,
                               1, 24)
        for i, big in enumerate(args.big):
            folder, *named = big.split(",")
            converted = {w: os.path.join(temporary, f"big{i}-{w}") for w in formats}  # "model" is the demo's name
            converted.update(pair.split("=", 1) for pair in named)
            path = os.path.join(temporary, "image.png")
            Image.linear_gradient("L").resize((640, 480)).convert("RGB").save(path)
            refused += measure(library, args.build, folder, [(path, "caption en"), (path, "answer en what is this?")],
                               new_rows(f"random weights in real shapes ({os.path.basename(os.path.abspath(folder))})"),
                               formats, temporary, 0, 16, converted)
        folders = {"stored": demo, **{w: folder_of(temporary, demo, w) for w in formats}}
        tasks, wrong = tasks_table(library, {w: f for w, f in folders.items() if os.path.exists(f)}, args.images)
    head = ("| model | format | " + " | ".join(STAGES) + " | KL, mean | KL, 99% | same top-1 | tokens before the first "
            "other one | same text |\n" + "|---" * 12 + "|")
    lines = [f"| {title} | {weights} | {row.markdown()} |" for title, rows in tables.items()
             for weights, row in rows.items() if row.texts]
    command = f"tests/oracle/quality.py --write --images {args.images} --count {args.count} --seed {args.seed}"
    text = "\n\n".join([
        f"Measured {datetime.date.today()} on {exactness.cpu_name()}, library {library.version()}, "
        "against the stored weights in f32, by", f"    {command}" + "".join(" --big FOLDER" for _ in args.big),
        "Distances are relative (L2), the largest of all prompts and layers; KL is that of the next token, in nats, along "
        "the text that the stored weights generate. Random weights have nothing to say, so that their likeliest tokens lie "
        "close together and change places easily; the demo checkpoint is trained.",
        head + "\n" + "\n".join(lines),
        f"The demo checkpoint's tasks on {args.images:,} images that it was not trained on, exactly right (points "
        "against the stored weights); bf16 and int8 may lose 1 point of all three, int4 3:", tasks])
    print("\n" + text)
    for line in refused + wrong:
        print("WRONG " + line)
    if args.write:
        write_page(text)
    sys.exit(1 if wrong or refused else 0)


if __name__ == "__main__":
    main()
