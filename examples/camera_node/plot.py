#!/usr/bin/env python3
# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""Draws runs of camera_node: the latency of each answer over the time, and below it the frames that were dropped.

    plot.py RUN.jsonl... OUT.svg [--title TEXT]...     one panel for each run; a title for each, else the model's name

The picture is readable on light and dark pages. Needs nothing but Python.
"""
import argparse
import html
import json
import math
import os
import sys

WIDTH, PANEL, LEFT, RIGHT, TOP, BOTTOM, BAND = 860, 250, 62, 18, 46, 34, 16
REASONS = {"replaced": "a newer frame took its place", "late": "later than the deadline", "cancelled": "cancelled at the end",
           "failed": "failed"}
COLORS = {"answer": ("#0969da", "#58a6ff"), "replaced": ("#8c959f", "#6e7681"), "late": ("#bc4c00", "#f0883e"),
          "cancelled": ("#8250df", "#a371f7"), "failed": ("#cf222e", "#f85149")}


def rules(dark, page, ink, quiet, grid):
    """CSS of the light or the dark page; no variables, as not every reader of SVG knows them."""
    out = [f".page {{ fill: {page} }} .ink {{ fill: {ink} }} .quiet {{ fill: {quiet} }}",
           f".axis {{ stroke: {quiet} }} .grid {{ stroke: {grid} }}"]
    out += [f".{name} {{ stroke: {c[dark]} }}" for name, c in COLORS.items()]
    return "\n  ".join(out)


STYLE = (f"<style>\n  {rules(0, '#ffffff', '#1f2328', '#59636e', '#e3e7eb')}\n"
         " @media (prefers-color-scheme: dark) {\n  "
         f"{rules(1, '#0d1117', '#e6edf3', '#9198a1', '#2b3139')}\n }}\n</style>")


def read(path):
    """-> (start, frames, summary) of a run."""
    start, frames, summary = None, [], None
    with open(path, encoding="utf-8") as f:
        for number, line in enumerate(f, 1):
            try:
                row = json.loads(line)
                kind = row["kind"]
            except (ValueError, KeyError, TypeError):
                sys.exit(f"plot.py: {path}, line {number}: not a line of camera_node: {line.strip()[:80]!r}")
            if kind == "start":
                start = row
            elif kind == "summary":
                summary = row
            else:
                frames.append(row)
    if start is None or summary is None or not frames:
        sys.exit(f"plot.py: {path} is no whole run: it should begin with a line of kind start and end with the summary")
    return start, frames, summary


def ticks(high, most):
    """Round numbers from 0 to high, at most `most` steps."""
    step = 10.0 ** math.floor(math.log10(high / most))
    step *= next(m for m in (1, 2, 5, 10) if high / (m * step) <= most)
    return [i * step for i in range(int(high / step + 1e-9) + 1)]


def dots(name, points, width):
    """Round dots, or for height > 0 upright strokes: points (x, y, height)."""
    path = "".join(f"M{x:.1f} {y:.1f}v{height:g}" for x, y, height in points)
    return f'<path class="{name}" d="{path}" fill="none" stroke-width="{width}" stroke-linecap="round"/>' if path else ""


def legend(y, n):
    """The reasons that there are, with their numbers, from the left."""
    out, x = [], LEFT
    for name in ["answer", *REASONS]:
        if n.get(name):
            text = f"{n[name]} " + ("answered" if name == "answer" else f"dropped: {REASONS[name]}")
            out.append(dots(name, [(x + 3, y - 4, 0)], 6) + f'<text class="quiet" x="{x + 11}" y="{y}">{text}</text>')
            x += 26 + 6.0 * len(text)
    return "".join(out)


def panel(y, title, start, frames, summary):
    begin = min(f["stamp"] for f in frames)
    answers = [f for f in frames if f["kind"] == "answer"]
    length = max(f["stamp"] for f in frames) - begin or 1
    high = max([f["latency_ms"] for f in answers] + [1]) * 1.05
    base, top, right = y + PANEL - BOTTOM - BAND, y + TOP + 14, WIDTH - RIGHT

    def at_x(f):
        return LEFT + 4 + (right - LEFT - 8) * (f["stamp"] - begin) / length

    def at_y(ms):
        return base - (base - top) * ms / high
    ms = summary["latency_ms"]
    facts = (f'{start["width"]} x {start["height"]} NV12 at {start["hz"]:g} Hz; latency '
             + ", ".join(f"{key} {value:.{0 if value >= 100 else 1}f}" for key, value in ms.items()) + " ms")
    n = {name: sum(f.get("reason") == name for f in frames) for name in REASONS} | {"answer": len(answers)}
    out = [f'<text class="ink" x="{LEFT}" y="{y + 18}" font-weight="bold">{html.escape(title)}</text>',
           f'<text class="quiet" x="{LEFT}" y="{y + PANEL - 4}">{facts}</text>', legend(y + 36, n)]
    for value in ticks(high, 5):
        out.append(f'<path class="grid" d="M{LEFT} {at_y(value):.1f}H{right}"/><text class="quiet" x="{LEFT - 6}" '
                   f'y="{at_y(value) + 4:.1f}" text-anchor="end">{value:g}</text>')
    for value in ticks(length, 10):
        x = at_x({"stamp": begin + value})
        out.append(f'<text class="quiet" x="{x:.1f}" y="{base + BAND + 16}" text-anchor="middle">{value:g}</text>')
    out += [f'<path class="axis" d="M{LEFT} {base}H{right}"/>',
            f'<text class="quiet" x="{LEFT - 6}" y="{base + 13}" text-anchor="end">dropped</text>',
            f'<text class="quiet" x="14" y="{(base + top) / 2:.0f}" text-anchor="middle" '
            f'transform="rotate(-90 14 {(base + top) / 2:.0f})">latency, ms</text>',
            f'<text class="quiet" x="{right}" y="{base + BAND + 30}" text-anchor="end">seconds: when the frame was taken</text>']
    out += [dots(name, [(at_x(f), base + 5, 8) for f in frames if f.get("reason") == name], 1.2) for name in REASONS]
    out.append(dots("answer", [(at_x(f), at_y(f["latency_ms"]), 0) for f in answers], 4))
    return "\n".join(part for part in out if part)


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("runs", nargs="+", metavar="RUN.jsonl", help="what camera_node wrote")
    args.add_argument("out", metavar="OUT.svg")
    args.add_argument("--title", action="append", default=[], help="of the first, second, ... panel")
    args = args.parse_args()
    runs = [read(path) for path in args.runs]
    titles = args.title + [os.path.basename(os.path.normpath(start["model"])) for start, *_ in runs[len(args.title):]]
    height = PANEL * len(runs) + 4
    panels = "\n".join(panel(PANEL * i, title, *run) for i, (title, run) in enumerate(zip(titles, runs)))
    with open(args.out, "w", encoding="utf-8") as f:
        f.write(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
                f'font-family="system-ui, sans-serif" font-size="11">\n{STYLE}\n<rect class="page" width="{WIDTH}" '
                f'height="{height}" rx="6"/>\n{panels}\n</svg>\n')


if __name__ == "__main__":
    main()
