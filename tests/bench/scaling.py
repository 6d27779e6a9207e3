#!/usr/bin/env python3
"""How cost grows with image size, prompt length, batch and threads: a table for docs/SPEED.md and a plot.

    scaling.py MODEL [MODEL of another image size]... [--weights stored,int8] [--svg docs/scaling.svg]

The first MODEL is asked with prompts of --prompts text tokens, in batches of --batches rows, and on 1 to --threads
threads; every MODEL gives a point of the image sizes. Times are the best of --rounds rounds after one that is not
counted, by `paligemma bench`; batches by pg_generate. The SVG is written by this script alone.
"""
import argparse
import ctypes
import datetime
import json
import os
import subprocess
import sys

import numpy as np

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "oracle"))
import pglib  # noqa: E402

COLORS = {"stored": "#0072b2", "int8": "#d55e00", "int4": "#009e73"}
ResultInfo = pglib.structure("ResultInfo", "stop:i32 n_prompt:i64 n_new:i64 encode:f64 prefill:f64 decode:f64")


def bench(args, model, weights, threads, prompt):
    """-> {quantity: best}"""
    command = [os.path.join(args.build, "examples", "paligemma"), "bench", model, "--json", "--no-roofs",
               "--weights", weights, "--threads", str(threads), "--prompt-tokens", str(prompt),
               "--rounds", str(args.rounds), "--new-tokens", "8"]
    b = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return dict(picture=b["image_s"]["best"], prompt=b["prefill_s"]["best"], decode=1 / b["step_s"]["best"],
                size=b["image_size"], memory=b["memory"]["resident_peak"] / 2 ** 20)


def batches(args, weights, rows):
    """-> {quantity: best}: the whole batch's prompt, and new tokens a second of all rows together"""
    library, best = pglib.Library(args.build), dict(prompt=1e30, decode=0.0)
    picture = np.linspace(0, 255, 240 * 320 * 3).astype(np.uint8).reshape(240, 320, 3)
    with pglib.Model(library, args.model[0], weights=pglib.WEIGHTS[weights]) as model, \
            pglib.Processor(library, args.model[0]) as processor, \
            processor.encode_batch(["caption en"] * rows, images=[(picture, pglib.RGB8)] * rows) as inputs:
        for _ in range(args.rounds + 1):
            options = library.options(pglib.GenerateOptions, "generate_options", n_threads=args.threads,
                                      max_new_tokens=8)
            result, info = ctypes.c_void_p(), ResultInfo(struct_size=ctypes.sizeof(ResultInfo))
            library.call("pg_generate", model.pointer, processor.pointer, inputs.pointer, ctypes.byref(options),
                         ctypes.byref(result))
            library.call("pg_result_get_info", result, ctypes.byref(info))
            library.so.pg_result_close(ctypes.byref(result))
            best["prompt"] = min(best["prompt"], info.prefill)
            if info.n_new > 1:
                best["decode"] = max(best["decode"], rows * (info.n_new - 1) / info.decode)
    return best


def panel(x, y, title, unit, series):
    """One plot of 300 x 190 at x, y. series: {name: (color, dashed, [(x, y)])}; both axes begin at 0."""
    points = [p for _, _, list_ in series.values() for p in list_]
    right, top = max(p[0] for p in points), max(p[1] for p in points) * 1.05 or 1

    def place(p):
        return x + 46 + 244 * p[0] / right, y + 160 - 130 * p[1] / top
    out = [f'<text x="{x + 46}" y="{y + 14}" font-weight="bold">{title}</text>',
           f'<path d="M{x + 46} {y + 30}V{y + 160}H{x + 290}" fill="none" stroke="#888"/>']
    for value in (0.5 * top, top):
        at = place((0, value))[1]
        out.append(f'<text x="{x + 42}" y="{at + 4:.1f}" text-anchor="end">{value:.3g}</text>')
    out.append(f'<text x="{x + 42}" y="{y + 164}" text-anchor="end">0 {unit}</text>')
    for value in sorted({p[0] for p in points}):
        if value > 0.12 * right or value == right:
            out.append(f'<text x="{place((value, 0))[0]:.1f}" y="{y + 174}" text-anchor="middle">{value:g}</text>')
    for i, (name, (color, dashed, list_)) in enumerate(series.items()):
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in map(place, list_))
        dash = ' stroke-dasharray="5 3"' if dashed else ""
        out.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"{dash}/>')
        out += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="{color}"/>' for a, b in map(place, list_)]
        out.append(f'<text x="{x + 56}" y="{y + 30 + 13 * i}" fill="{color}">{name}{" (dashed)" if dashed else ""}'
                   "</text>")
    return "\n".join(out)


def svg(panels):
    """panels: [(title, unit, series)]"""
    height = 200 * ((len(panels) + 1) // 2) + 8
    body = "\n".join(panel(310 * (i % 2), 4 + 200 * (i // 2), *p) for i, p in enumerate(panels))
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="630" height="{height}" viewBox="0 0 630 {height}" '
            f'font-family="sans-serif" font-size="11">\n<rect width="630" height="{height}" fill="#fff"/>\n{body}\n'
            "</svg>\n")


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("model", nargs="+")
    args.add_argument("--weights", default="stored", help="formats, with commas")
    args.add_argument("--prompts", default="16,128,512")
    args.add_argument("--batches", default="1,2,4,8")
    args.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    args.add_argument("--rounds", type=int, default=2)
    args.add_argument("--svg", help="write the plot to this file")
    args.add_argument("--build", default=os.environ.get("PG_BUILD", os.path.join(ROOT, "build")))
    args = args.parse_args()
    rows, sizes, prompts, threads, batch = [], {}, {}, {}, {}
    for weights in args.weights.split(","):
        color = COLORS[weights]

        def keep(panels, name, dashed, x, y):
            panels.setdefault(f"{name}, {weights}", (color, dashed, []))[2].append((x, y))

        def table(what, value, m):
            rows.append(f"| {what} | {weights} | {value} | " + " | ".join(
                f"{m[k]:.3g}" if k in m else "" for k in ("picture", "prompt", "decode")) + " |")
            print(rows[-1], flush=True)

        for model in args.model:
            m = bench(args, model, weights, args.threads, 16)
            table("image size, px", m["size"], m)
            keep(sizes, "picture", False, m["size"], m["picture"])
            keep(sizes, "prompt", True, m["size"], m["prompt"])
        for n in map(int, args.prompts.split(",")):
            m = bench(args, args.model[0], weights, args.threads, n)
            table("text tokens", n, m)
            keep(prompts, "prompt", False, n, m["prompt"])
        for n in range(1, args.threads + 1):
            m = bench(args, args.model[0], weights, n, 16)
            table("threads", n, m)
            keep(threads, "picture + prompt", False, n, 1 / (m["picture"] + m["prompt"]))
            keep(threads, "decode", True, n, m["decode"])
        for n in map(int, args.batches.split(",")):
            m = batches(args, weights, n)
            table("rows of a batch", n, m)
            keep(batch, "decode", False, n, m["decode"])
    print(f"\n{datetime.date.today()}, {', '.join(os.path.basename(os.path.abspath(m)) for m in args.model)}, "
          f"{args.threads} threads unless said, best of {args.rounds} rounds.\n")
    print("| grows | weights | to | picture s | prompt s | new tokens a second, all rows |\n" + "|---" * 6 + "|")
    print("\n".join(rows))
    if args.svg:
        with open(args.svg, "w", encoding="utf-8") as f:
            f.write(svg([("seconds by image size", "s", sizes), ("prompt seconds by text tokens", "s", prompts),
                         ("a second, by threads", "/s", threads), ("new tokens a second by rows", "/s", batch)]))


if __name__ == "__main__":
    main()
