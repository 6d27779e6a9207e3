#!/usr/bin/env python3
# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""Our linear layers beside oneDNN's, on the model's shapes, in turns in one run: a table for docs/SPEED.md.

    onednn.py [--threads 1] [--rounds 2] [--seconds 0.5] [--only f32,bf16,int8] [--json FILE] [--build FOLDER]

    f32    weights in bf16 and in f32 computed in f32 (`check --bench`'s bf16 and f32), against oneDNN's f32 product
    bf16   bf16 arithmetic (bf16:bf16), where this CPU and the library have it, against oneDNN's bf16 product
    int8   int8 weights in groups of 128, x quantized in the time, against oneDNN's u8 x s8 product, whose x is
           quantized beforehand and whose scales are one to a row of W: a yardstick on the strict side

oneDNN is called through torch: mkldnn::_linear_pointwise and onednn::qlinear_pointwise, weights packed beforehand. Both
sides rotate their weights over more than the caches; with one thread both are timed by that thread's CPU clock. Where the
fastest tenth of a shape's times ends is the figure that counts, the best of the rounds is shown. Exit status 1: `check
--bench` failed.
"""
import argparse
import datetime
import json
import os
import re
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
ROTATE = 256 << 20  # bytes of weights that are read before the first ones come again
KINDS = {"f32": ["bf16", "f32"], "bf16": ["bf16:bf16"], "int8": ["int8"]}  # oneDNN's product: ours


def bench_ours(args, name):
    """-> ({(m, in, out): seconds}, roofs)"""
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        done = subprocess.run([os.path.join(args.build, "tests", "kernels", "check"), "--bench", "--threads",
                               str(args.threads), "--only", name, "--json", file.name], stdout=subprocess.DEVNULL)
        if done.returncode:
            sys.exit("check --bench failed")
        bench = json.load(open(file.name, encoding="utf-8"))
    rows = {}
    for row in bench["rows"]:
        shape = re.match(r"linear +(\d+) x +(\d+) x +(\d+) +(\S+)$", row["name"])
        if shape and shape[4] == name:
            rows[tuple(map(int, shape.groups()[:3]))] = row["fast_s"]
    return rows, bench["roofs"]


def seconds(args, product, n):
    """product(i) with 0 <= i < n in turns, for --seconds: where the fastest tenth of the times ends"""
    clock = time.thread_time if args.threads == 1 else time.perf_counter
    for i in range(min(n, 2)):
        product(i)
    times, begin, i = [], time.perf_counter(), 0
    while len(times) < 3 or (time.perf_counter() - begin < args.seconds and len(times) < 4000):
        start = clock()
        product(i % n)
        times.append(clock() - start)
        i += 1
    return sorted(times)[len(times) // 10]


def onednn_product(kind, m, k, n):
    """-> (product(i), how many weights)"""
    import torch
    copies = max(1, min(64, ROTATE // (k * n * {"f32": 4, "bf16": 2, "int8": 1}[kind])))
    if kind == "int8":
        x = torch.randint(0, 256, (m, k), dtype=torch.uint8)
        weights = [torch.ops.onednn.qlinear_prepack(torch.randint(-127, 128, (n, k), dtype=torch.int8), [m, k])
                   for _ in range(copies)]
        scales, zeros = torch.rand(n), torch.zeros(n, dtype=torch.int64)
        return lambda i: torch.ops.onednn.qlinear_pointwise(x, 0.01, 128, weights[i], scales, zeros, None, 1.0, 0,
                                                            torch.float32, "none", [], ""), copies
    dtype = torch.float32 if kind == "f32" else torch.bfloat16
    x = torch.rand(m, k).sub_(0.5).to(dtype)
    weights = [torch.ops.mkldnn._reorder_linear_weight(torch.rand(n, k).sub_(0.5).to(dtype), m)
               for _ in range(copies)]
    return lambda i: torch.ops.mkldnn._linear_pointwise(x, weights[i], None, "none", [], ""), copies


def bench_onednn(args, kind, shapes):
    """In a process of its own, which prints a line of JSON for each shape."""
    code = "import sys; sys.argv = sys.argv[1:]; sys.path.insert(0, sys.argv[1]); import onednn; onednn.child()"
    settings = json.dumps(dict(kind=kind, shapes=shapes, threads=args.threads, seconds=args.seconds))
    done = subprocess.run([sys.executable, "-c", code, "onednn", os.path.dirname(os.path.abspath(__file__)), settings],
                          stdout=subprocess.PIPE, text=True, env=dict(os.environ, OMP_NUM_THREADS=str(args.threads)))
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode:
        print(f"oneDNN {kind}: ended early, with {len(rows)} of {len(shapes)} shapes", file=sys.stderr)
    return {tuple(row["shape"]): row["s"] for row in rows}


def child():
    import torch
    args = argparse.Namespace(**json.loads(sys.argv[2]))
    torch.set_num_threads(args.threads)
    with torch.inference_mode():
        for shape in args.shapes:
            product, copies = onednn_product(args.kind, *shape)
            print(json.dumps(dict(shape=shape, s=seconds(args, product, copies))), flush=True)


def speed(shape, size, s):
    """Operations a second; for a few rows bytes of weights a second."""
    m, k, n = shape
    return f"{size * k * n / s / 1e9:.1f} GB/s" if m <= 4 else f"{2e-9 * m * k * n / s:.0f} G/s"


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--threads", type=int, default=1)
    args.add_argument("--rounds", type=int, default=2)
    args.add_argument("--seconds", type=float, default=0.5, help="for a shape of oneDNN's (default 0.5)")
    args.add_argument("--only", default="f32,bf16,int8")
    args.add_argument("--json", help="write all figures to this file")
    args.add_argument("--build", default=os.environ.get("PG_BUILD", os.path.join(ROOT, "build")))
    args = args.parse_args()
    best, roofs = {}, {}

    def keep(who, rows):
        for shape, s in rows.items():
            best[who, shape] = min(s, best.get((who, shape), s))

    for round_ in range(args.rounds):
        for kind in args.only.split(","):
            shapes = {}
            for name in KINDS[kind]:
                print(f"round {round_ + 1}: ours, {name}", file=sys.stderr)
                rows, roofs = bench_ours(args, name)
                keep(name, rows)
                shapes.update(rows)
            if shapes:
                print(f"round {round_ + 1}: oneDNN, {kind}", file=sys.stderr)
                keep("oneDNN " + kind, bench_onednn(args, kind, [list(s) for s in shapes]))
    print(f"\n{datetime.date.today()}, {args.threads} thread{'s' * (args.threads > 1)}, best of {args.rounds} rounds; "
          f"roofs f32 {roofs['f32'] / 1e9:.0f} GFLOP/s, int8 {roofs['int8'] / 1e9:.0f} GOP/s, read "
          f"{roofs['read'] / 1e9:.1f} GB/s\n")
    print("| rows x in -> out | ours | | oneDNN | | ours / oneDNN |\n|---|---|---|---|---|---|")
    bytes_of = {"bf16": 2, "f32": 4, "bf16:bf16": 2, "int8": 1, "oneDNN f32": 4, "oneDNN bf16": 2, "oneDNN int8": 1}
    out = []
    for kind in args.only.split(","):
        peer = "oneDNN " + kind
        for name in KINDS[kind]:
            for (who, shape), s in best.items():
                if who != name or (peer, shape) not in best:
                    continue
                theirs = best[peer, shape]
                out.append(dict(ours=name, peer=kind, shape=shape, ours_s=s, peer_s=theirs, ratio=theirs / s))
                print(f"| {shape[0]} x {shape[1]} -> {shape[2]} | {name} | {speed(shape, bytes_of[name], s)} | {kind} | "
                      f"{speed(shape, bytes_of[peer], theirs)} | {theirs / s:.2f} |")
    if args.json:
        with open(args.json, "w", encoding="utf-8") as f:
            json.dump(dict(threads=args.threads, roofs=roofs, rows=out), f, indent=1)


if __name__ == "__main__":
    main()
