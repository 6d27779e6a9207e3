#!/usr/bin/env python3
# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""The demo checkpoint on fresh images: the library's text must be transformers' text on every one.

    demo.py [--seed S] [--count 500] [--build FOLDER] [--model FOLDER]
"""
import argparse
import os
import sys
import tempfile

import numpy as np
import torch
from PIL import Image

import compare
import pglib
import reference

DEMO = os.path.join(compare.ROOT, "examples", "demo")
N_NEW = 80  # three objects with masks have 69 tokens
sys.path.insert(0, DEMO)
import draw  # noqa: E402


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--seed", type=int, help="of the first image (default: fresh)")
    args.add_argument("--count", type=int, default=500)
    args.add_argument("--build", default=compare.default_build(), help="the build folder ($PG_BUILD or ./build)")
    args.add_argument("--model", default=os.path.join(DEMO, "model"))
    args = args.parse_args()
    first = args.seed if args.seed is not None else int.from_bytes(os.urandom(4), "little")
    print(f"seed {first}, {args.count} images", flush=True)
    torch.set_num_threads(1)  # the fastest for a model this small
    ref, library, failed, expected_answers = reference.Reference(args.model), pglib.Library(args.build), 0, 0
    with tempfile.TemporaryDirectory() as folder, pglib.Model(library, args.model) as model, \
            pglib.Processor(library, args.model) as processor, pglib.Session(model, max_new_tokens=N_NEW) as session:
        path = os.path.join(folder, "image.png")
        for i in range(args.count):
            scene = draw.scene(first + i)
            Image.fromarray(draw.render(scene)).save(path)
            rng = np.random.default_rng(first + i)
            asked = [draw.caption(scene), draw.question(scene, rng), draw.detection(scene, rng), draw.segmentation(scene, rng)]
            prompt, answer = asked[i % 4]
            result = ref.run(reference.open_image(path), prompt, N_NEW)
            with processor.encode(path, prompt) as inputs:
                ids, _ = session.generate(inputs)
            text = processor.decode(ids)
            expected_answers += result.text == answer
            if ids != result.ids or text != result.text:
                failed += 1
                print(f"FAIL seed {first + i}, {prompt!r}: found {text!r}, expected {result.text!r}, smallest margin "
                      f"{min(result.margins):.2e}", flush=True)
    print(f"{expected_answers} of {args.count} are the answer that the drawing script expects")
    print(f"{args.count - failed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
