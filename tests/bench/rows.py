#!/usr/bin/env python3
# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""New tokens a second of batches: rows that take their decoding steps together, beside another build of the library.

    rows.py MODEL [--build build] [--beside BUILD] [--rows 1,4,8,16] [--beside-rows 4,16] [--rounds 3]

MODEL is a checkpoint folder, converted or not. Each row is a prompt of random ids. The builds take turns point by point
in one run, each in a process of its own; what is printed are medians, and of each point the median of its ratios to what
--beside (or else --build) gave with 4 rows in the same round. Prefills are not counted. On one thread the time is the
CPU's for the process, so that other work of the machine counts less; on several it is that of the clock.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import time

import numpy as np

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "oracle"))
import pglib  # noqa: E402

BASE_ROWS = 4


def work(args):
    """A line with a number of rows in; tokens a second out."""
    library = pglib.Library(args.build)
    clock, begin = time.process_time if args.threads == 1 else time.perf_counter, []

    @pglib.binding().TextFn
    def on_text(user, row, piece, size, token):  # the first token of a row comes out of its prefill: steps begin here
        begin.append(clock())
        return 0

    random = np.random.default_rng(1)
    with pglib.Model(library, args.model) as model, pglib.Processor(library, args.model) as processor:
        for line in sys.stdin:
            rows = int(line)
            ids = random.integers(1000, 200000, (rows, args.prompt_tokens))
            begin.clear()
            with library.make_inputs(input_ids=ids, token_type_ids=np.zeros_like(ids)) as inputs, \
                    model.result(processor, inputs, n_threads=args.threads, max_new_tokens=args.new_tokens,
                                 on_text=on_text):
                seconds = clock() - begin[0]
            print(json.dumps((len(begin) - rows) / seconds), flush=True)


class Worker:
    def __init__(self, args, build):
        command = [sys.executable, os.path.abspath(__file__), args.model, "--build", build, "--worker", "--threads",
                   str(args.threads), "--new-tokens", str(args.new_tokens), "--prompt-tokens", str(args.prompt_tokens)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def measure(self, rows):
        self.process.stdin.write(f"{rows}\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--build", default=os.path.join(ROOT, "build"))
    parser.add_argument("--beside", help="another build; without it --build's own 4 rows are the base")
    parser.add_argument("--rows", default="1,4,8,16")
    parser.add_argument("--beside-rows", default="4,16")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--prompt-tokens", type=int, default=16)
    parser.add_argument("--new-tokens", type=int, default=16)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return work(args)
    points = [("", int(n)) for n in args.rows.split(",")]
    workers = {"": Worker(args, args.build)}
    if args.beside:
        workers["beside"] = Worker(args, args.beside)
        points += [("beside", int(n)) for n in args.beside_rows.split(",")]
    base = ("beside" if args.beside else "", BASE_ROWS)
    points.sort(key=lambda p: p[1])
    found = {p: [] for p in points}
    for worker in workers.values():
        worker.measure(1)  # the pages of the weights
    for number in range(args.rounds):
        for build, rows in points:
            found[build, rows].append(workers[build].measure(rows))
        print(f"round {number + 1}, load {os.getloadavg()[0]:.1f}: " +
              ", ".join(f"{b} {n} rows {found[b, n][-1]:.1f}".strip() for b, n in points), flush=True)
    for build, rows in points:
        rates = found[build, rows]
        ratios = [a / b for a, b in zip(rates, found[base])] if base in found else []
        print(f"{build or 'build':6} {rows:2} rows: {statistics.median(rates):6.1f} tokens/s" +
              (f", {statistics.median(ratios):.2f} x {base[0]} {BASE_ROWS} rows" if ratios else ""))
    for worker in workers.values():
        worker.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
