#!/usr/bin/env python3
# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""Answers read by supervision and by the library.

    answers_live.py --build BUILD [--count 5000] [--seed N]

Well-formed random answers must give the same boxes and names, to the last bit of an f32. Then the answers in which the two
differ on purpose: what supervision says of them is compared with what docs/ANSWERS.md says that it says.
Needs `pip install supervision`.
"""
import argparse
import os
import random
import sys

import numpy as np

NAMES = ["cat", "dog", "traffic light", "t-shirt", "red_ball", "Katze", "été", "猫", "person 2", "a b c"]
B1, B2 = "<loc0010><loc0020><loc0030><loc0040>", "<loc0100><loc0200><loc0300><loc0400>"
# answer: names and first numbers of supervision's boxes, and of ours that can be used
DIFFERENCES = {
    f"{B1} traffic light (red)": (["traffic light"], ["traffic light (red)"]),  # a label ends at the first other character
    f"{B1} mother's cat ; {B2} dog": (["mother", "dog"], ["mother's cat", "dog"]),
    f"{B1}cat": ([], ["cat"]),  # one space must stand before the label
    f"{B1} <seg000> cat": ([], ["cat"]),  # what is segmented has no label
    f"{B1}{'<seg000>' * 16} cat ; {B2}{'<seg127>' * 16} dog": ([], ["cat", "dog"]),  # nor has a whole answer to segment
    B1: ([], [""]),  # no label, no box
    f"cat {B1}": ([], ["cat"]),
    f"{B1}{B2} cats": ([], ["cats", "cats"]),  # a run of eight is none
    f"{B1}<loc0001> cat": ([], ["cat"]),
    f"<loc0001>{B1} cat": ([], ["cat"]),  # five locs: ours are the first four, 1 10 20 30, and a partial one
    "<loc0010><loc0020><loc2000><loc0040> cat": (["cat"], []),  # a number that no token has: a box beyond the image
    "<loc0030><loc0020><loc0010><loc0040> cat": (["cat"], []),  # y1 < y0: a box of negative height
    "<loc0010><loc0020><loc0010><loc0040> cat": (["cat"], []),  # of no height
}


def random_answer(rng):
    parts = []
    for _ in range(rng.randrange(6)):
        y, x = sorted(rng.sample(range(1024), 2)), sorted(rng.sample(range(1024), 2))
        parts.append("".join(f"<loc{v:04d}>" for v in (y[0], x[0], y[1], x[1])) + " " + rng.choice(NAMES))
    return rng.choice([" ; ", ";", "; "]).join(parts)


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--build", required=True)
    args.add_argument("--count", type=int, default=5000)
    args.add_argument("--seed", type=int, default=20260101)
    args = args.parse_args()
    root = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
    os.environ["PALIGEMMA_LIBRARY"] = os.path.abspath(os.path.join(args.build, "lib"))
    sys.path.insert(0, os.path.join(root, "python"))
    import paligemma
    import supervision
    from supervision.detection.vlm import from_paligemma

    rng, failed, n_boxes = random.Random(args.seed), 0, 0
    for _ in range(args.count):
        text, size = random_answer(rng), (rng.randrange(1, 5000), rng.randrange(1, 5000))
        boxes, _, names = from_paligemma(text, size)
        ours = paligemma.parse_answer(text, size).detections()
        same = np.array_equal(boxes.astype(np.float32), ours["xyxy"]) and list(names) == list(ours["data"]["class_name"])
        n_boxes += len(names)
        if not same:
            failed += 1
            print(f"FAILED: {text!r} at {size}: {names} {boxes}, here {ours}")
        made = supervision.Detections(**ours)
        failed += len(made) != len(names)
    for text, (theirs, wanted) in DIFFERENCES.items():
        names = list(from_paligemma(text, (100, 100))[2])
        ours = list(paligemma.parse_answer(text, (100, 100)).detections()["data"]["class_name"])
        if (names, ours) != (theirs, wanted):
            failed += 1
            print(f"FAILED: {text!r}: supervision {names}, expected {theirs}; here {ours}, expected {wanted}")
    print(f"supervision {supervision.__version__}: {args.count} answers with {n_boxes} boxes, "
          f"{len(DIFFERENCES)} known differences")
    print(f"{args.count - failed} passed, {failed} failed")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
