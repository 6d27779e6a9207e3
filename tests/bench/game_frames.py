#!/usr/bin/env python3
# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""The frame times of examples/game while its agent is asked about every frame: a table and docs/game_frames.svg.

    game_frames.py MODEL... [--svg docs/game_frames.svg] [--json FILE] [--settings 1,2,...] [--seconds 10] [--work 6]

Each MODEL, a folder or TITLE=FOLDER, is played with each of the settings below, without a screen, --seconds long; --work is what the game does
besides in each frame, in ms. --json keeps what was measured: a run that finds FILE adds to it and draws all, so that parts
can be measured one by one; without a MODEL it only draws. "Over 17 ms" are frames that came later than a screen of 60 Hz
asks for; "ours" is the time that pg_worker_submit() and pg_worker_poll() took of the game's thread in a frame; "others" is
how much of a CPU other processes took meanwhile: a figure of more than a few hundredths spoils the rest.
"""
import argparse
import datetime
import json
import math
import os
import re
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SETTINGS = [("no worker", ["--no-worker"]),
            ("all CPUs, nice 0", ["--share-cpus", "--nice", "0"]),
            ("all CPUs, nice 10", ["--share-cpus", "--nice", "10"]),
            ("a CPU left free, nice 0", ["--nice", "0"]),
            ("a CPU left free, nice 10", ["--nice", "10"])]
LATE = 17.0  # ms
TICK = os.sysconf("SC_CLK_TCK")


def cpu_seconds():
    """Of all processes (Linux), and of those that this one has waited for."""
    with open("/proc/stat", encoding="utf-8") as f:
        fields = [int(v) for v in f.readline().split()[1:]]
    used = os.times()
    return sum(fields[:3] + fields[5:8]) / TICK, used.children_user + used.children_system


def measure(args, model, setting):
    name, options = SETTINGS[setting]
    title, _, folder_of = model.rpartition("=")
    with tempfile.TemporaryDirectory() as folder:
        times = os.path.join(folder, "times")
        command = [args.game, folder_of, "--demo", "--steps", "1000000", "--every", "0", "--seconds", str(args.seconds),
                   "--work", str(args.work), "--times", times, *options]
        before = cpu_seconds()
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True,
                              env=dict(os.environ, SDL_VIDEODRIVER="dummy"))
        with open(times, encoding="utf-8") as f:
            frames = [[float(v) / 1000 for v in line.split("\t")] for line in f.read().splitlines()[1:]]
    others = [b - a for a, b in zip(before, cpu_seconds())]
    answers = re.search(r"^answers: (\d+)", done.stdout, re.MULTILINE)
    return dict(model=title or os.path.basename(os.path.normpath(model)), setting=name, seconds=args.seconds, work=args.work,
                answers=int(answers[1]) if answers else 0, frames=[round(f[0], 3) for f in frames],
                others=round(max(others[0] - others[1], 0) / args.seconds, 3), ours=round(max(f[2] + f[3] for f in frames), 4), busy=sorted(f[1] for f in frames)[len(frames) // 2])


# ---- drawing ----

def rules(page, ink, quiet, grid, bar, late):
    return (f".page {{ fill: {page} }} .ink {{ fill: {ink} }} .quiet {{ fill: {quiet} }} .axis {{ stroke: {quiet} }} "
            f".grid {{ stroke: {grid} }} .bar {{ fill: {bar} }} .late {{ fill: {late} }}")


STYLE = (f"<style>\n {rules('#ffffff', '#1f2328', '#59636e', '#e3e7eb', '#0969da', '#cf222e')}\n"
         " @media (prefers-color-scheme: dark) {\n"
         f"  {rules('#0d1117', '#e6edf3', '#9198a1', '#2b3139', '#58a6ff', '#ff7b72')}\n }}\n</style>")
FIRST, LAST, BIN = 14.0, 26.0, 0.25  # ms; what is longer is counted in the last bin
PANEL_W, PANEL_H, GAP, MARGIN, HEAD = 400, 92, 16, 14, 44


def panel(x, y, run):
    n_bins = int((LAST - FIRST) / BIN)
    counts = [0] * n_bins
    for ms in run["frames"]:
        counts[min(max(int((ms - FIRST) / BIN), 0), n_bins - 1)] += 1
    top, base, width = y + 32, y + PANEL_H - 16, PANEL_W / n_bins
    most = math.log10(max(counts) + 1)
    late = sum(ms > LATE for ms in run["frames"])
    text = f"{late} of {len(run['frames'])} over 17 ms, longest {max(run['frames']):.1f} ms"
    answers = ""
    if run["answers"]:
        text += f"; submit and poll up to {run['ours']:.2f} ms"
        answers = f"{run['answers'] / run['seconds']:.1f} answers a second"
    out = [f'<text class="ink" x="{x}" y="{y + 12}" font-weight="bold">{run["setting"]}</text>',
           f'<text class="quiet" x="{x + PANEL_W}" y="{y + 12}" text-anchor="end">{answers}</text>',
           f'<text class="quiet" x="{x}" y="{y + 25}">{text}</text>']
    for ms in range(math.ceil(FIRST), int(LAST) + 1, 2):
        at = x + (ms - FIRST) / BIN * width
        name = f"{ms}" if ms < LAST else f"{ms}+"
        out.append(f'<path class="grid" d="M{at:.1f} {top}V{base}"/><text class="quiet" x="{at:.1f}" y="{base + 12}" '
                   f'text-anchor="{"end" if ms == LAST else "middle" if ms > FIRST else "start"}">{name}</text>')
    for i, count in enumerate(counts):
        if count:
            height = max((base - top) * math.log10(count + 1) / most, 2)
            kind = "late" if FIRST + i * BIN >= LATE else "bar"
            out.append(f'<rect class="{kind}" x="{x + i * width + .5:.1f}" y="{base - height:.1f}" width="{width - 1:.1f}" '
                       f'height="{height:.1f}"/>')
    out.append(f'<path class="axis" d="M{x} {base}h{PANEL_W}"/>')
    return "\n".join(out)


def draw(runs):
    models = list(dict.fromkeys(r["model"] for r in runs))
    names = [name for name, _ in SETTINGS if any(r["setting"] == name for r in runs)]
    width = 2 * MARGIN + len(models) * PANEL_W + (len(models) - 1) * GAP * 2
    height = HEAD + len(names) * (PANEL_H + GAP) + 18
    out = []
    for column, model in enumerate(models):
        x = MARGIN + column * (PANEL_W + 2 * GAP)
        out.append(f'<text class="ink" x="{x}" y="26" font-size="14" font-weight="bold">{model}</text>')
        for row, name in enumerate(names):
            out += [panel(x, HEAD + row * (PANEL_H + GAP), r) for r in runs if (r["model"], r["setting"]) == (model, name)]
    out.append(f'<text class="quiet" x="{MARGIN}" y="{height - 8}">milliseconds from frame to frame; heights are logarithms '
               "of how many frames</text>")
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
            f'font-family="system-ui, sans-serif" font-size="11">\n{STYLE}\n<rect class="page" width="{width}" '
            f'height="{height}" rx="6"/>\n' + "\n".join(out) + "\n</svg>\n")


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("model", nargs="*")
    args.add_argument("--settings", default=",".join(str(i + 1) for i in range(len(SETTINGS))),
                      help="numbers: " + ", ".join(f"{i + 1} {name}" for i, (name, _) in enumerate(SETTINGS)))
    args.add_argument("--seconds", type=float, default=10)
    args.add_argument("--work", type=float, default=6)
    args.add_argument("--json", help="keep what was measured in this file")
    args.add_argument("--svg", help="write the picture to this file")
    args.add_argument("--game", default=os.path.join(ROOT, "build", "examples", "game", "game"))
    args = args.parse_args()
    runs = []
    if args.json and os.path.exists(args.json):
        with open(args.json, encoding="utf-8") as f:
            runs = json.load(f)
    for setting in (int(s) - 1 for s in args.settings.split(",")):
        for model in args.model:
            run = measure(args, model, setting)
            runs = [r for r in runs if (r["model"], r["setting"]) != (run["model"], run["setting"])] + [run]
            if args.json:
                with open(args.json, "w", encoding="utf-8") as f:
                    json.dump(runs, f)
    order = [name for name, _ in SETTINGS]
    print(f"\n{datetime.date.today()}, {len(os.sched_getaffinity(0))} CPUs\n\n| model | setting | answers a second | frames | over 17 ms "
          "| over 20 ms | longest ms | ours ms | others |\n" + "|---" * 9 + "|")
    for r in sorted(runs, key=lambda r: (r["model"], order.index(r["setting"]))):
        late = [sum(ms > limit for ms in r["frames"]) for limit in (LATE, 20)]
        print(f"| {r['model']} | {r['setting']} | {r['answers'] / r['seconds']:.1f} | {len(r['frames'])} | {late[0]} | {late[1]} | "
              f"{max(r['frames']):.1f} | {r['ours']:.3f} | {r['others']:.2f} |")
    if args.svg and runs:
        with open(args.svg, "w", encoding="utf-8") as f:
            f.write(draw(runs))


sys.exit(main())
