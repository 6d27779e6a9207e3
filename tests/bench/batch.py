#!/usr/bin/env python3
# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""Images a second of `paligemma batch`: processes, threads, and jobs that run together.

    batch.py MODEL [--tool build/paligemma] [--points 1x2:1,1x2:16,2x1:16] [--jobs 32] [--new-tokens 16] [--rounds 2]

A point is PROCESSESxTHREADS:BATCH. Its processes begin at once and have the same number of jobs each: photos of 1600 x
1200 pixels, all different, "caption en". Points take turns; what is printed are images a second from the moment that
the models are open to the end of the last process, of each round, and the best. Answers of random weights reach
--new-tokens; where one ends before, that is told. Needs Pillow.
"""
import argparse
import json
import os
import re
import subprocess
import sys
import tempfile

import numpy as np
from PIL import Image

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def make_jobs(folder, first, n):
    """JSON Lines about images first to first + n - 1."""
    path = os.path.join(folder, f"jobs{first}-{n}.jsonl")
    with open(path, "w") as f:
        for i in range(first, first + n):
            name = f"{i}.jpg"
            if not os.path.exists(os.path.join(folder, name)):
                coarse = np.random.default_rng(i).integers(0, 256, (60, 80, 3), np.uint8)
                Image.fromarray(coarse).resize((1600, 1200), Image.Resampling.BICUBIC).save(os.path.join(folder, name), quality=90)
            f.write(json.dumps({"image": name, "prompt": "caption en"}) + "\n")
    return path


def measure(args, folder, n_processes, n_threads, batch):
    each = args.jobs // n_processes
    started = [subprocess.Popen([args.tool, "batch", args.model, make_jobs(folder, p * each, each), "-n", str(args.new_tokens), "-t", str(n_threads),
                                 "--batch", str(batch), "-v"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for p in range(n_processes)]
    seconds = []
    for process in started:
        out, err = process.communicate()
        if process.returncode:
            sys.exit(err)
        short = sum(len(json.loads(line)["ids"]) < args.new_tokens for line in out.splitlines())
        if short:
            print(f"{short} of {each} answers are shorter than {args.new_tokens} tokens")
        seconds.append(float(re.search(r"jobs in ([\d.]+) s", err).group(1)))
    return each * n_processes / max(*seconds, 0.01)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--tool", default=os.path.join(ROOT, "build", "paligemma"))
    parser.add_argument("--points", default="1x2:1,1x2:16,2x1:16")
    parser.add_argument("--jobs", type=int, default=32)
    parser.add_argument("--new-tokens", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=2)
    args = parser.parse_args()
    points = [(point, *(int(n) for n in re.fullmatch(r"(\d+)x(\d+):(\d+)", point).groups())) for point in args.points.split(",")]
    found = {point: [] for point, *_ in points}
    with tempfile.TemporaryDirectory() as folder:
        make_jobs(folder, 0, args.jobs)
        subprocess.run([args.tool, "batch", args.model, make_jobs(folder, 0, 1)], stdout=subprocess.DEVNULL, check=True)  # the pages of the weights
        for _ in range(args.rounds):
            for point, *numbers in points:
                found[point].append(measure(args, folder, *numbers))
                print(f"{point}: {found[point][-1]:.3f}", flush=True)
    for point, rates in found.items():
        print(f"{point:8} best {max(rates):.2f} images a second of {', '.join(f'{rate:.2f}' for rate in rates)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
