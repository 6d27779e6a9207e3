#!/usr/bin/env python3
# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""examples/game without a screen: what the agent says of what it sees, that no frame waits for it, and the picture.

    game.py ROOT GAME
"""
import os
import re
import statistics
import subprocess
import sys
import tempfile

import check  # which finds the next one
import tool_checks

EXPECTED = """caption en: a red circle, a blue star and a yellow triangle (right)
detect yellow triangle: BOX yellow triangle (right)
answer en what color is the triangle?: yellow (right)
answer en how many objects are there?: 3 (right)
caption en: a green square and an orange cross (right)
detect green square: BOX green square (right)
"""
RED, GREEN, RIGHT = (220, 35, 35), (30, 160, 60), (86, 211, 100)  # two shapes; the text of a right answer


def run(game, *arguments, **more):
    return subprocess.run([game, *arguments], capture_output=True, text=True, timeout=300,
                          env=dict(os.environ, SDL_VIDEODRIVER="dummy"), **more)


def plays(root, game, folder):
    """Six questions at two places. The second is a walk away."""
    times, picture = os.path.join(folder, "times"), os.path.join(folder, "picture.png")
    model = os.path.join(root, "examples", "demo", "model")
    done = run(game, model, "--demo", "--steps", "6", "--every", "0", "--times", times, "--screenshot", picture)
    said, _, summary = done.stdout.partition("answers: ")
    tool_checks.expect("the agent is right", done.returncode == 0 and re.sub("(<loc....>){4}", "BOX", said) == EXPECTED
                 and done.stderr == "", done)
    counts = re.match(r"(\d+), (\d+) replaced by newer ones; of (\d+) with a known answer (\d+) right; of 6 steps 6 right\n"
                      r"frames: (\d+), over 17 ms: (\d+)\n", summary)
    tool_checks.expect("the summary", counts, summary)
    answers, _, known, right, frames, _ = (int(n) for n in counts.groups()) if counts else (0,) * 6
    tool_checks.expect("answers", answers >= known >= right >= 6, summary)
    with open(times, encoding="utf-8") as f:
        header, *lines = f.read().splitlines()
    rows = [dict(zip(header.split("\t"), map(float, line.split("\t")))) for line in lines]
    tool_checks.expect("a line for each frame", len(rows) == frames and list(rows[0]) == ["frame_us", "work_us", "ask_us", "listen_us"],
                 len(rows), header)
    # Six questions of 0.4 s, 1.5 s on the way, and none of the frames that a machine of our own would show is left out
    # for waiting: a game that waited for its answers would have the time of each in the frames' calls.
    tool_checks.expect("frames are shown all the time", frames >= 100 and statistics.median(r["frame_us"] for r in rows) < 40e3, frames)
    tool_checks.expect("frames last 1/60 s at least", min(r["frame_us"] for r in rows) > 16e3, min(r["frame_us"] for r in rows))
    for part in ["ask_us", "listen_us"]:
        tool_checks.expect(f"{part}: nothing waits", 0 < sum(r[part] for r in rows) and statistics.median(r[part] for r in rows) < 1e3,
                     statistics.median(r[part] for r in rows))

    width, height, pixels = check.decode_png(picture)
    tool_checks.expect("the picture", (width, height) == (800, 480), width, height)
    tool_checks.expect("the agent sees the green square", pixels[16 + 224 + 40][16 + 130] == GREEN, pixels[280][146])
    tool_checks.expect("the answer is drawn", sum(p == RIGHT for row in pixels[:110] for p in row[480:]) > 100)
    return model


def refuses(root, game, folder, model):
    nowhere = os.path.join(folder, "nowhere", "file")
    for arguments, *words in [((), "MODEL"), (("/nowhere/at-all",), "/nowhere/at-all"), ((model, "--jump"), "--jump"),
                              ((model, model), "one MODEL"), ((model, "--steps", "0"), "--steps", "1 to", "'0'"),
                              ((model, "--nice", "20"), "--nice", "0 to 19", "'20'"), ((model, "--work", "1ms"), "'1ms'"),
                              ((model, "--threads"), "--threads", "a number"), ((model, "--times"), "--times", "a file"),
                              ((model, "--every", "nan"), "--every", "'nan'")]:
        done = run(game, *arguments)
        tool_checks.expect(f"refuses {arguments}", done.returncode == 1 and done.stdout == "" and done.stderr.startswith("game: ")
                     and done.stderr.count("\n") == 1 and all(word in done.stderr for word in words), done)
    for option in ["--screenshot", "--times"]:
        done = run(game, "unread", "--no-worker", "--seconds", "0.1", option, nowhere)
        tool_checks.expect(f"{option} that cannot be written", done.returncode == 1 and nowhere in done.stderr
                     and "No such file" in done.stderr and "answers" not in done.stdout, done)
    done = subprocess.run([game, "unread", "--no-worker"], capture_output=True, text=True, timeout=60,
                          env=dict(os.environ, SDL_VIDEODRIVER="cinema"))
    tool_checks.expect("no such video", done.returncode == 1 and "SDL" in done.stderr and "cinema" in done.stderr, done)
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = subprocess.run([game, "unread", "--no-worker", "--seconds", "0.1"], stdout=full, stderr=subprocess.PIPE, text=True,
                              timeout=60, env=dict(os.environ, SDL_VIDEODRIVER="dummy"))
        tool_checks.expect("sees that its output is lost", done.returncode == 1 and "stdout" in done.stderr, done)
    done = run(game, "--help")
    with open(os.path.join(root, "examples", "game", "README.md"), encoding="utf-8") as f:
        readme = f.read()
    options = re.findall(r"^  (--[a-z-]+)", done.stdout, re.MULTILINE)
    tool_checks.expect("the README has each option", done.returncode == 0 and len(options) == 11
                 and all(option in readme for option in options), options)


def main():
    root, game = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        refuses(root, game, folder, plays(root, game, folder))
    print(f"{tool_checks.failures} failed")
    return 1 if tool_checks.failures else 0


sys.exit(main())
