#!/usr/bin/env python3
# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""int4 weights of models of the demo's world, at equal bytes: plain, mixes, calibrated, calibrated mixes.

    int4.py [--build FOLDER] [--kl-images 300] [--images 2000] [--calibrate-images 48] [MODEL...]

MODEL: folders of examples/demo/train.py; without one the demo checkpoint. Each format is a folder that `paligemma
convert` makes. The calibrated ones are rounded by drawn images (seeds from 900,000 up; training counts from 1,000,000,
what is asked here from 500,000) with the prompts of the world, answered by the model itself.

    KL, top-1   of the next token along what the stored weights answer, against the stored weights in f32, over captions,
                questions and detections of --kl-images fresh images
    tasks       captions, answers and detections that are exactly right, on --images fresh images

Exit status 1: calibrated int4 is not nearer than plain int4 by KL, or a mix not nearer than none.
"""
import argparse
import os
import subprocess
import sys
import tempfile

import numpy as np
from PIL import Image

import compare
import exactness
import pglib
import quality

sys.path.insert(0, exactness.DEMO)
import draw  # noqa: E402

MIX = ["--int8-layers", "embedding,attention"]
FORMATS = {"int8": ([], False), "int4": (["int4"], False), "int4 calibrated": (["int4"], True),
           "int4, embedding in int8": (["int4", "--int8-layers", "embedding"], False),
           "int4, embedding and attention in int8": (["int4", *MIX], False),
           "the same, calibrated": (["int4", *MIX], True)}
CALIBRATION_SEED, PROMPT_SEED = 900000, 910000
ORIGINAL = os.path.join(exactness.DEMO, "model")


def calibration(folder, n_images):
    """Images and prompts. -> options of the tool"""
    images, prompts = os.path.join(folder, "images"), os.path.join(folder, "prompts.txt")
    os.mkdir(images)
    for i in range(n_images):
        Image.fromarray(draw.render(draw.scene(CALIBRATION_SEED + i))).save(os.path.join(images, f"{i:04}.png"))
    rng = np.random.default_rng(3)
    questions = sorted({draw.question(draw.scene(PROMPT_SEED + i), rng)[0] for i in range(200)})
    detections = [draw.detection(draw.scene(PROMPT_SEED + 10000 + i), rng)[0] for i in range(10)]
    with open(prompts, "w", encoding="utf-8") as f:
        f.write("\n".join(["caption en", *questions[::2], *detections]) + "\n")
    return ["--calibrate", images, "--prompts", prompts]


def answered(library, folder, n_images):
    """[(arrays of prompt and answer, logits of the stored weights)]"""
    cases = []
    with pglib.Model(library, folder) as model, pglib.Processor(library, ORIGINAL) as processor, \
            pglib.Session(model, n_threads=1, max_new_tokens=quality.MAX_NEW) as session:
        for seed in range(quality.FRESH_SEED, quality.FRESH_SEED + n_images):
            scene, rng = draw.scene(seed), np.random.default_rng([seed, 2])
            for prompt, _ in (draw.caption(scene), draw.question(scene, rng), draw.detection(scene, rng)):
                with processor.encode_batch([prompt], images=[(draw.render(scene), pglib.IMAGE_RGB8)]) as inputs:
                    session.prefill(inputs)
                    ids, _ = session.steps()
                    asked, pixels = inputs["input_ids"], inputs["pixel_values"]
                row = np.concatenate([asked[0], ids[:-1]]).astype(np.int64)[None]
                types = (np.arange(row.shape[1]) >= asked.shape[1]).astype(np.int64)[None]
                arrays = dict(input_ids=row, token_type_ids=types, pixel_values=pixels)
                cases.append((arrays, quality.outputs_of(model, arrays, 1)["logits"][0]))
    return cases


def apart(library, folder, cases):
    """-> KL of every position, whether its likeliest token is the same"""
    kl, same = [], []
    with pglib.Model(library, folder) as model:
        for arrays, exact in cases:
            logits = quality.outputs_of(model, arrays, 1)["logits"][0]
            kl += np.maximum(quality.divergence(exact, logits), 0).tolist()
            same += (exact.argmax(-1) == logits.argmax(-1)).tolist()
    return np.array(kl), np.array(same)


def measure(library, build, model, args, temporary):
    """Prints the table of a model. -> what is wrong"""
    work = tempfile.mkdtemp(dir=temporary)
    options, cases, means = calibration(work, args.calibrate_images), answered(library, model, args.kl_images), {}
    print(f"\n| {os.path.basename(os.path.abspath(model))} | MB | KL, mean | KL, 99% | same top-1 | captions | answers | detections | "
          "all three | IoU |\n|---|---|---|---|---|---|---|---|---|---|")
    base = None
    for name, (weights, calibrated) in {"stored": ([], False), **FORMATS}.items():
        out = model if name == "stored" else os.path.join(work, name.replace(" ", "-"))
        if out != model:
            subprocess.run([os.path.join(build, "paligemma"), "convert", model, out, *(["--weights", *weights] if weights else []),
                            *(options if calibrated else [])], check=True)
        kl, same = apart(library, out, cases)
        means[name] = kl.mean()
        right, overlaps = quality.demo_tasks(library, out, name, args.images)
        points = [100 * np.mean(right[task]) for task in ("captions", "answers", "detections")]
        points.append(100 * np.mean(sum(right.values(), [])))
        base = base or points
        size = os.path.getsize(os.path.join(out, "model.safetensors")) / 1e6
        cells = [f"{p:.2f}%" + (f" ({p - b:+.2f})" if out != model else "") for p, b in zip(points, base)]
        print(f"| {name} | {size:.2f} | {kl.mean():.1e} | {np.quantile(kl, 0.99):.1e} | {100 * same.mean():.2f}% of {len(same)} | "
              + " | ".join(cells) + f" | {np.mean(overlaps):.4f} |", flush=True)
    plain, mixed = "int4", "int4, embedding and attention in int8"
    return [f"{a}: KL {means[a]:.2e}, not below that of {b}, {means[b]:.2e}"
            for a, b in [("int4 calibrated", plain), (mixed, plain), ("the same, calibrated", mixed)] if means[a] >= means[b]]


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("models", nargs="*", metavar="MODEL", default=[ORIGINAL])
    args.add_argument("--images", type=int, default=2000, help="of the tasks (default 2000)")
    args.add_argument("--kl-images", type=int, default=300, help="of KL and top-1 (default 300)")
    args.add_argument("--calibrate-images", type=int, default=48, help="(default 48)")
    args.add_argument("--build", default=compare.default_build(), help="the build folder ($PG_BUILD or ./build)")
    args = args.parse_args()
    library, wrong = pglib.Library(args.build), []
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as temporary:
        for model in args.models:
            wrong += measure(library, args.build, model, args, temporary)
    for line in wrong:
        print("WRONG " + line)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
