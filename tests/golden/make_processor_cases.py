#!/usr/bin/env python3
# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""Writes processor/cases.json: what transformers' processor makes of 100 batches.

    make_processor_cases.py [--list]

The batches are drawn as those of tests/oracle/processor_live.py (batches.py), for the models of make_golden.py; their
images are noise from a generator that test_processor.c has too. Arrays are kept as runs [[value, length], ...] over
all rows, positions and pixels as a hash. --list shows what the cases cover. The numbers of formats and sides are
looked up in the Python package, which loads the library of $PG_BUILD or ./build.
"""
import argparse
import collections
import json
import os
import sys

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, os.path.join(ROOT, "tests", "oracle"))
import batches  # noqa: E402
import pglib  # noqa: E402

N_CASES, MAX_ERRORS = 100, 14
MODELS = {"gemma1": os.path.join(HERE, "models", "gemma1"), "gemma2": os.path.join(HERE, "models", "gemma2"),
          "demo": os.path.join(ROOT, "examples", "demo", "model")}


def noise(seed, n):
    """n bytes of Marsaglia's xorshift32, the high byte of each state."""
    state, out = seed, bytearray()
    for _ in range(n):
        state ^= state << 13 & 0xFFFFFFFF
        state ^= state >> 17
        state ^= state << 5 & 0xFFFFFFFF
        out.append(state >> 24)
    return np.frombuffer(bytes(out), np.uint8)


def image_pixels(image):
    """-> u8 [H, W, 3], as the library must understand the bytes."""
    channels = {pglib.IMAGE_GRAY8: 1, pglib.IMAGE_RGBA8: 4, pglib.IMAGE_BGRA8: 4}.get(image["format"], 3)
    raw = noise(image["seed"], image["height"] * image["width"] * channels)
    raw = raw.reshape(image["height"], image["width"], channels)
    if channels == 1:
        return np.repeat(raw, 3, -1)
    rgb = raw[:, :, 2::-1] if image["format"] in (pglib.IMAGE_BGR8, pglib.IMAGE_BGRA8) else raw[:, :, :3]
    return np.ascontiguousarray(rgb)


def fnv(data):
    """FNV-1a, 64 bits, as 16 hexadecimal digits."""
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return f"{value:016x}"


def runs(array):
    out = []
    for value in array.ravel().tolist():
        if out and out[-1][0] == value:
            out[-1][1] += 1
        else:
            out.append([value, 1])
    return out


def make_case(model, hf, seed):
    """-> the case as JSON"""
    rng = np.random.default_rng([seed, 41])
    case = batches.draw(rng, hf)
    images = [dict(width=int(rng.integers(1, 40)), height=int(rng.integers(1, 40)),
                   format=batches.draw_format(rng), seed=int(rng.integers(1, 1 << 32)))
              for _ in range(case.n_images)]
    out = dict(seed=seed, model=model, prompts=case.text, suffixes=case.suffix, images=images,
               image_counts=batches.image_counts(case), padding=pglib.padding(case.padding),
               padding_side=pglib.side(case.side), pad_to_multiple_of=case.multiple, max_length=case.max_length,
               truncate=int(case.truncate is not None), truncation=pglib.TRUNCATIONS[case.truncate or "longest_first"],
               truncation_side=pglib.side(case.truncation_side))
    try:
        arrays, reports = hf.run(case, [(image_pixels(i), pglib.IMAGE_RGB8) for i in images])
    except batches.Accident:
        return None
    except batches.REFUSALS as error:
        return dict(out, error=f"{type(error).__name__}: {error}")
    kept = {name: dict(shape=list(arrays[name].shape), runs=runs(arrays[name])) for name in
            ["input_ids", "attention_mask", "token_type_ids", "labels"] if name in arrays}
    for name in ["position_ids", "pixel_values"]:
        if name in arrays:
            kept[name] = dict(shape=list(arrays[name].shape), hash=fnv(arrays[name].tobytes()),
                              first=arrays[name].ravel()[:4].tolist())
    return dict(out, arrays=kept, rows=reports)


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--list", action="store_true")
    args = args.parse_args()
    hf = {name: batches.HfProcessor(folder) for name, folder in MODELS.items()}
    cases, errors, seed, covered = [], 0, 0, collections.Counter()
    while len(cases) < N_CASES:
        model = list(MODELS)[seed % len(MODELS)]
        case = make_case(model, hf[model], seed)
        seed += 1
        if case is None or len(json.dumps(case)) > 6000 or "error" in case and errors == MAX_ERRORS:
            continue
        errors += "error" in case
        cases.append(case)
        covered.update([f"{key} {case[key]}" for key in ["model", "padding", "padding_side", "truncate", "truncation", "truncation_side"]] +
                       ["error"] * ("error" in case) +
                       [f"event {1 << b}" for row in case.get("rows", []) for b in range(6) if row["events"] >> b & 1])
    os.makedirs(os.path.join(HERE, "processor"), exist_ok=True)
    with open(os.path.join(HERE, "processor", "cases.json"), "w") as f:
        f.write("[\n" + ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases) + "\n]\n")
    if args.list:
        for what, n in sorted(covered.items()):
            print(f"{n:4} {what}")


if __name__ == "__main__":
    main()
