#!/usr/bin/env python3
# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""Compares the library with transformers on a checkpoint of yours, stage by stage.

    compare.py MODEL IMAGE... [--prompt P]... [--max-new-tokens N] [--build FOLDER]

MODEL is a checkpoint folder or an id in the local Hugging Face cache. Prints a table of distances per stage (largest
absolute difference, relative L2, their bounds; see README.md) and the texts. Exit status 0: all within bounds and the
same ids wherever the reference's margin is above float noise; 1: not. transformers runs in f32: 4 bytes a parameter.
"""
import argparse
import os
import subprocess
import sys
import tempfile

import numpy as np

import reference

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def default_build():
    return os.environ.get("PG_BUILD", os.path.join(ROOT, "build"))


def read_stages(path):
    """-> {name: array}; safetensors' own reader refuses no alignment, but this one needs no torch."""
    import json
    with open(path, "rb") as f:
        data = f.read()
    size = int.from_bytes(data[:8], "little")
    kinds = {"F32": np.float32, "I64": np.int64, "U8": np.uint8}
    return {name: np.frombuffer(data, kinds[t["dtype"]], offset=8 + size + t["data_offsets"][0],
                                count=int(np.prod(t["shape"]))).reshape(t["shape"])
            for name, t in json.loads(data[8:8 + size]).items()}


def run_stages(build, model, image, prompt, out, max_new_tokens, *options):
    """Runs our side. -> {stage: array}; RuntimeError with its message when it fails."""
    tool = os.path.join(build, "tests", "oracle", "stages")
    done = subprocess.run([tool, "--max-new-tokens", str(max_new_tokens), *options, model, image, prompt, out],
                          capture_output=True)
    if done.returncode != 0:
        raise RuntimeError(f"stages, status {done.returncode}: {done.stderr.decode(errors='replace').strip()}")
    return read_stages(out)


def check(ours, result, limits):
    """-> (table, [what is wrong])"""
    wrong = []
    ids, same = ours["ids"].tolist(), 0
    while same < min(len(ids), len(result.ids)) and ids[same] == result.ids[same]:
        same += 1
    if ours["prompt_ids"].tolist() != result.prompt_ids:
        wrong.append(f"prompt ids: found {ours['prompt_ids'].tolist()}, expected {result.prompt_ids}")
    comparable = {name: value for name, value in ours.items()
                  if not name.startswith("logits.") or int(name.split(".")[1]) <= same}
    table = reference.compare_stages(comparable, result, limits)
    wrong += [f"{row[0]}: relative L2 {row[1]:.2e} (bound {row[2]:.2e}), max abs {row[3]:.2e} (bound {row[4]:.2e})"
              for row in table if not row[-1]]
    missing = [stage for stage in reference.ORDER if not any(row[0].split(".")[0] == stage for row in table)]
    if missing:
        wrong.append(f"stages that were not written: {missing}")
    if same < reference.first_open_step(result, limits):
        wrong.append(f"ids: found {ids}, expected {result.ids}, margin {result.margins[same]:.2e} at step {same}, "
                     f"bound on a logit {limits[f'logits.{same}'][1]:.2e}")
    text = bytes(ours["text"]).decode()
    if ids == result.ids and text != result.text:
        wrong.append(f"text: found {text!r}, expected {result.text!r}")
    return table, wrong


def show(table):
    print(f"{'stage':<18}{'max abs':>12}{'bound':>12}{'relative L2':>14}{'bound':>12}  verdict")
    for name, relative, relative_limit, largest, largest_limit, sound in table:
        print(f"{name:<18}{largest:>12.2e}{largest_limit:>12.2e}{relative:>14.2e}{relative_limit:>12.2e}"
              f"  {'ok' if sound else 'FAR'}")


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("model")
    args.add_argument("image", nargs="+")
    args.add_argument("--prompt", action="append", help="may be repeated (default: 'caption en')")
    args.add_argument("--max-new-tokens", type=int, default=32)
    args.add_argument("--build", default=default_build(), help="the build folder (default: $PG_BUILD or ./build)")
    args.add_argument("--threads", type=int, default=0)
    args.add_argument("--cpu", default="0", help="instruction sets, as PG_CPU_* in paligemma.h")
    args = args.parse_args()
    ref, failed = reference.Reference(args.model), 0
    with tempfile.TemporaryDirectory() as folder:
        for image in args.image:
            for prompt in args.prompt or ["caption en"]:
                print(f"\n{image}, {prompt!r}")
                result = ref.run(reference.open_image(image), prompt, args.max_new_tokens)
                limits = reference.bounds(ref.probe(result))
                try:
                    ours = run_stages(args.build, args.model, image, prompt, os.path.join(folder, "stages"),
                                      args.max_new_tokens, "--threads", str(args.threads), "--cpu", args.cpu)
                    table, wrong = check(ours, result, limits)
                    show(table)
                    print(f"text: {bytes(ours['text']).decode()!r}")
                except RuntimeError as error:
                    wrong = [str(error)]
                for line in wrong:
                    print("WRONG " + line)
                failed += bool(wrong)
    print(f"\n{'all within bounds' if not failed else f'{failed} cases out of bounds'}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
