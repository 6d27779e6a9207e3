#!/usr/bin/env python3
# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""How cost grows with image size, prompt length, batch and threads: a table for docs/SPEED.md and its plot.

    scaling.py MODEL... [--svg docs/scaling.svg] [--json FILE] [--parts sizes,prompts,threads,batches] [--limit 350]

A MODEL is a checkpoint folder, converted or not. Each gives a point of the image sizes; the first one of each weight
format is asked with prompts of --prompts text tokens, on 1 to --threads threads, and in batches of --batches rows.
Times are the best of --rounds rounds after one that is not counted, by `paligemma bench`; batches by pg_generate.

Points that would begin after --limit seconds are left out (the largest images come last). --json keeps the points: a
run that finds FILE adds to it and draws them all, so that parts can be measured one by one; without a MODEL it only
draws. The SVG is written by this script alone, and is readable on light and dark pages.
"""
import argparse
import datetime
import json
import math
import os
import subprocess
import sys
import time

import numpy as np

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "oracle"))
import pglib  # noqa: E402

PARTS = ["prompts", "threads", "batches", "sizes"]  # in the order of measuring
TEXT_TOKENS = 16


# ---- measuring: a point is {part, weights, at, image, prompt, first, decode}, s and new tokens a second ----

def bench(args, model, threads, text_tokens):
    command = [os.path.join(args.build, "paligemma"), "bench", model, "--json", "--no-roofs", "--threads",
               str(threads), "--prompt-tokens", str(text_tokens), "--rounds", str(args.rounds), "--new-tokens", "8"]
    b = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return dict(weights=b["weights"], size=b["image_size"], image=b["image_s"]["best"], prompt=b["prefill_s"]["best"],
                first=b["first_token_s"]["best"], decode=1 / b["step_s"]["best"])


def bench_batch(args, model, processor, rows):
    image = np.linspace(0, 255, 240 * 320 * 3).astype(np.uint8).reshape(240, 320, 3)
    best = dict(image=math.inf, prompt=math.inf, decode=0.0)
    with processor.encode_batch(["caption en"] * rows, images=[(image, pglib.IMAGE_RGB8)] * rows) as inputs:
        for _ in range(args.rounds + 1):
            with model.result(processor, inputs, n_threads=args.threads, max_new_tokens=8) as result:
                info = result.info()
            best["image"] = min(best["image"], info.vision_seconds)
            best["prompt"] = min(best["prompt"], info.prefill_seconds)
            if info.n_new_tokens > 1:
                best["decode"] = max(best["decode"], rows * (info.n_new_tokens - 1) / info.decode_seconds)
    return dict(best, first=best["image"] + best["prompt"])


class Run:
    """Keeps each point as it comes, in the file too."""

    def __init__(self, args):
        self.args, self.points, self.begin, self.left_out = args, [], time.perf_counter(), 0
        if args.json and os.path.exists(args.json):
            with open(args.json, encoding="utf-8") as f:
                self.points = json.load(f)["points"]

    def late(self):
        late = time.perf_counter() - self.begin > self.args.limit
        self.left_out += late
        return late

    def keep(self, part, at, point):
        point = dict(point, part=part, at=at)
        self.points = [p for p in self.points
                       if (p["part"], p["at"], p["weights"]) != (part, at, point["weights"])] + [point]
        print(f"{part} {at} {point['weights']}: " +
              ", ".join(f"{k} {point[k]:.3g}" for k in ("image", "prompt", "first", "decode")), flush=True)
        if self.args.json:
            with open(self.args.json, "w", encoding="utf-8") as f:
                json.dump(dict(points=self.points), f, indent=1)

    def measure(self):
        args, first_of, at_sizes = self.args, {}, []
        for model in args.model:
            command = [os.path.join(args.build, "paligemma"), "info", "--json", model]
            info = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
            first_of.setdefault(info["weights"], model)
            at_sizes.append((info["image"]["size"], model))
        for part in [p for p in PARTS if p in args.parts.split(",")]:
            if part == "sizes":
                for size, model in sorted(at_sizes):
                    if not self.late():
                        self.keep(part, size, bench(args, model, args.threads, TEXT_TOKENS))
                continue
            for weights, model in first_of.items():
                if part == "batches":
                    if not self.late():
                        self.measure_batches(weights, model)
                    continue
                for n in map(int, args.prompts.split(",")) if part == "prompts" else range(1, args.threads + 1):
                    if not self.late():
                        threads, tokens = (args.threads, n) if part == "prompts" else (n, TEXT_TOKENS)
                        self.keep(part, n, bench(args, model, threads, tokens))
        if self.left_out:
            print(f"{self.left_out} left out: --limit {args.limit} was over")

    def measure_batches(self, weights, folder):
        library = pglib.Library(self.args.build)
        with pglib.Model(library, folder) as model, pglib.Processor(library, folder) as processor:
            for rows in map(int, self.args.batches.split(",")):
                if not self.late():
                    self.keep("batches", rows, dict(bench_batch(self.args, model, processor, rows),
                                                    weights=weights))


# ---- drawing ----

COLORS = {"stored": ("#0969da", "#58a6ff"), "int8": ("#bc4c00", "#f0883e"), "int4": ("#1a7f37", "#3fb950")}


def rules(dark, page, ink, quiet, grid):
    """CSS of the light or the dark page; no variables, as not every reader of SVG knows them."""
    out = [f".page {{ fill: {page} }} .ink {{ fill: {ink} }} .quiet {{ fill: {quiet} }}",
           f".axis {{ stroke: {quiet} }} .grid {{ stroke: {grid} }}"]
    out += [f".{name} .line {{ stroke: {c[dark]} }} .{name} .mark {{ fill: {c[dark]} }}" for name, c in COLORS.items()]
    return "\n  ".join(out)


STYLE = (f"<style>\n .line {{ fill: none; stroke-width: 2 }}\n  {rules(0, '#ffffff', '#1f2328', '#59636e', '#e3e7eb')}\n"
         " @media (prefers-color-scheme: dark) {\n  "
         f"{rules(1, '#0d1117', '#e6edf3', '#9198a1', '#2b3139')}\n }}\n</style>")
PANEL_W, PANEL_H, LEFT, RIGHT, TOP, BOTTOM = 300, 220, 44, 84, 34, 40


def ticks(low, high, log):
    if log:
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        return [t for t in (m * 10.0 ** d for d in decades for m in (1, 3)) if low <= t <= high]
    step = 10.0 ** math.floor(math.log10(high / 2))
    step *= next(m for m in (1, 2, 5, 10) if high / (m * step) <= 4.5)
    return [i * step for i in range(int(high / step + 1e-9) + 1)]


def panel(x, y, title, x_label, y_label, series, log):
    """series: [(name, weights, dashed, [(x, y)])]; log: the axes ("", "x", "xy") that are so, the others begin at 0."""
    points = [p for *_, list_ in series for p in list_]
    xs = sorted({p[0] for p in points})
    x0, x1 = (xs[0], xs[-1] if xs[-1] > xs[0] else 2 * xs[0]) if "x" in log else (0, xs[-1])
    y_log = "y" in log
    y0, y1 = (min(p[1] for p in points) * 0.7 if y_log else 0), max(p[1] for p in points) * (1.4 if y_log else 1.08)

    def part(value, low, high, axis):
        return math.log(value / low) / math.log(high / low) if axis in log else (value - low) / (high - low)

    def place(p):
        return (x + LEFT + (PANEL_W - LEFT - RIGHT) * part(p[0], x0, x1, "x"),
                y + PANEL_H - BOTTOM - (PANEL_H - TOP - BOTTOM) * part(p[1], y0, y1, "y"))
    right, base = x + PANEL_W - RIGHT, y + PANEL_H - BOTTOM
    out = [f'<text class="ink" x="{x + 8}" y="{y + 16}" font-weight="bold">{title}</text>',
           f'<text class="quiet" x="{x + 8}" y="{y + 29}">{y_label}</text>']
    for value in ticks(y0, y1, y_log):
        at = place((x1, value))[1]
        out.append(f'<path class="grid" d="M{x + LEFT} {at:.1f}H{right}"/><text class="quiet" x="{x + LEFT - 5}" '
                   f'y="{at + 4:.1f}" text-anchor="end">{value:g}</text>')
    out.append(f'<path class="axis" d="M{x + LEFT} {base}H{right}"/>')
    shown = None
    for value in xs:
        at = place((value, y1))[0]
        if shown is None or at - shown > 22:
            out.append(f'<text class="quiet" x="{at:.1f}" y="{base + 14}" text-anchor="middle">{value:g}</text>')
            shown = at
    out.append(f'<text class="quiet" x="{(x + LEFT + right) / 2:.1f}" y="{base + 29}" text-anchor="middle">{x_label}'
               '</text>')
    names = []
    for name, weights, dashed, list_ in series:
        path = " ".join("{:.1f},{:.1f}".format(*place(p)) for p in sorted(list_))
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        out.append(f'<g class="{weights}"><polyline class="line" points="{path}"{dash}/>' + "".join(
            '<circle class="mark" cx="{:.1f}" cy="{:.1f}" r="3"/>'.format(*place(p)) for p in list_) + "</g>")
        names.append([place(max(list_)), weights, name])
    below = -math.inf
    for (at_x, at_y), weights, name in sorted(names, key=lambda n: n[0][1]):
        below = max(at_y + 4, below + 13)
        out.append(f'<g class="{weights}"><text class="mark" x="{at_x + 7:.1f}" y="{below:.1f}">{name}</text></g>')
    return "\n".join(out)


def draw(points):
    formats = [w for w in ("stored", "int8", "int4") if any(p["weights"] == w for p in points)]

    def lines(part, keys):
        """keys: [(what, text, dashed)]"""
        out = []
        for weights in formats:
            mine = [p for p in points if p["part"] == part and p["weights"] == weights]
            out += [(f"{weights} {text}".strip(), weights, dashed, [(p["at"], p[key]) for p in mine])
                    for key, text, dashed in keys if mine]
        return out
    decode, first, prompt = [[(key, "", False)] for key in ("decode", "first", "prompt")]
    panels = [("Image and prompt", "image size, px", "seconds (log)",
               lines("sizes", [("prompt", "prompt", False), ("image", "image", True)]), "xy"),
              ("Prompt", "tokens of text beside the image", "seconds", lines("prompts", prompt), ""),
              ("First token", "threads", "seconds", lines("threads", first), ""),
              ("Decoding", "image size, px", "new tokens a second", lines("sizes", decode), "x"),
              ("Decoding a batch", "rows", "new tokens a second, all rows", lines("batches", decode), ""),
              ("Decoding", "threads", "new tokens a second", lines("threads", decode), "")]
    panels = [p for p in panels if p[3]]
    width, height = PANEL_W * min(3, len(panels)), PANEL_H * ((len(panels) + 2) // 3)
    body = "\n".join(panel(PANEL_W * (i % 3), PANEL_H * (i // 3), *p) for i, p in enumerate(panels))
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
            f'font-family="system-ui, sans-serif" font-size="11">\n{STYLE}\n<rect class="page" width="{width}" '
            f'height="{height}" rx="6"/>\n{body}\n</svg>\n')


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("model", nargs="*")
    args.add_argument("--parts", default=",".join(PARTS))
    args.add_argument("--prompts", default="16,128,512")
    args.add_argument("--batches", default="1,2,4,8")
    args.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    args.add_argument("--rounds", type=int, default=1)
    args.add_argument("--limit", type=float, default=350, help="seconds (default 350)")
    args.add_argument("--json", help="keep the points in this file")
    args.add_argument("--svg", help="write the plot to this file")
    args.add_argument("--build", default=os.environ.get("PG_BUILD", os.path.join(ROOT, "build")))
    args = args.parse_args()
    run = Run(args)
    run.measure()
    names = {"sizes": "image size, px", "prompts": "text tokens", "threads": "threads", "batches": "rows of a batch"}
    print(f"\n{datetime.date.today()}, {args.threads} threads unless said, best of {args.rounds} rounds.\n")
    print("| grows | to | weights | image s | prompt s | new tokens a second, all rows |\n" + "|---" * 6 + "|")
    for p in sorted(run.points, key=lambda p: (list(names).index(p["part"]), p["weights"], p["at"])):
        print(f"| {names[p['part']]} | {p['at']} | {p['weights']} | {p['image']:.3g} | {p['prompt']:.3g} | "
              f"{p['decode']:.3g} |")
    if args.svg and run.points:
        with open(args.svg, "w", encoding="utf-8") as f:
            f.write(draw(run.points))


if __name__ == "__main__":
    main()
