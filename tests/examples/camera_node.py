#!/usr/bin/env python3
# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""The robot's camera node on the demo model: camera_node.py ROOT CAMERA_NODE ROS2_NODE

Every line is JSON, every frame is accounted for, boxes lie where the shapes are, stamps grow, signals end it with its
summary. ROS2_NODE is ros2_node.cc on the stand-in of ros2_stub/, so this says nothing about ROS itself.
"""
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import xml.dom.minidom

from check import decode_png  # which finds the next one
import tool_checks
from tool_checks import expect

ROOT, PROGRAM, ROS2_NODE = sys.argv[1:4]
MODEL = os.path.join(ROOT, "examples", "demo", "model")
ASKED = ["red circle", "blue star"]
# Of the asked shapes in a run this share, or one, may lack a box with an IoU above 0.7. None does in these seconds (scene.c), but an IoU is
# near 0.7 at times, as the model's boxes lie on a grid of 23 of these pixels, and other CPUs round otherwise.
MOST_MISSED = 0.1


def rows_of(name, text):
    """The lines of a run, each as JSON whose numbers of nanoseconds are kept: stamps become whole nanoseconds."""
    rows = []
    for line in text.splitlines():
        row = json.loads(line, parse_float=str)
        for key in ("stamp", "published"):
            if key in row:
                seconds, fraction = row[key].split(".")
                expect(f"{name}: nanoseconds", len(fraction) == 9, row)
                row[key] = int(seconds) * 1000000000 + int(fraction)
        rows.append(row)
    expect(f"{name}: begins and ends", rows[0]["kind"] == "start" and rows[-1]["kind"] == "summary", rows[:1], rows[-1:])
    return rows[0], sorted(rows[1:-1], key=lambda r: r["frame"]), rows[1:-1], rows[-1]


def check_rows(name, text):
    """What holds for every run. -> (answers, summary)"""
    start, frames, as_printed, summary = rows_of(name, text)
    numbers = [f["frame"] for f in frames]
    expect(f"{name}: the numbers of the frames", len(set(numbers)) == len(numbers) == summary["captured"] - summary["busy"] and
           set(numbers) <= set(range(summary["captured"])), numbers, summary)
    reasons = ["replaced", "late", "cancelled", "failed"]
    expect(f"{name}: every frame is accounted for",
           summary["captured"] == summary["answered"] + summary["busy"] + sum(summary[r] for r in reasons), summary)
    for reason in reasons:
        expect(f"{name}: {reason}", summary[reason] == sum(f.get("reason") == reason for f in frames), summary)
    expect(f"{name}: nothing fails", summary["failed"] == 0, frames)
    expect(f"{name}: stamps grow", all(a["stamp"] < b["stamp"] for a, b in zip(frames, frames[1:])), frames)
    answers = [f for f in as_printed if f["kind"] == "answer"]
    expect(f"{name}: answered", len(answers) == summary["answered"], summary)
    expect(f"{name}: answers come in order", [a["frame"] for a in answers] == sorted(a["frame"] for a in answers), answers)
    for a in answers:
        latency = float(a["latency_ms"])
        expect(f"{name}: latency", abs((a["published"] - a["stamp"]) / 1e6 - latency) < 0.002, a)
        expect(f"{name}: waiting and running are parts of it", float(a["wait_ms"]) + float(a["run_ms"]) <= latency, a)
    latencies = sorted(float(a["latency_ms"]) for a in answers)
    for key, part in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0)]:
        wanted = latencies[-(-len(latencies) * int(part * 100) // 100) - 1] if latencies else 0.0
        expect(f"{name}: {key}", float(summary["latency_ms"][key]) == wanted, summary, wanted)
    return start, answers, summary


def iou(a, b):
    """Of two boxes [x, y, width, height]."""
    (ax, ay, aw, ah), (bx, by, bw, bh) = ([float(v) for v in box] for box in (a, b))
    width, height = min(ax + aw, bx + bw) - max(ax, bx), min(ay + ah, by + bh) - max(ay, by)
    inside = max(width, 0) * max(height, 0)
    return inside / (aw * ah + bw * bh - inside)


def check_boxes(name, start, answers):
    found = []
    for a in answers:
        expect(f"{name}: text", a["text"].count("<loc") == 4 * len(a["objects"]), a)
        for o in a["objects"]:
            expect(f"{name}: a score", 0 < float(o["score"]) <= 1, a)
            x, y, width, height = (float(v) for v in o["bbox"])
            expect(f"{name}: a box within the frame", 0 <= x <= x + width <= start["width"] + 0.01 and
                   0 <= y <= y + height <= start["height"] + 0.01, a)
        for t in a["truth"]:
            if t["category"] in ASKED:
                found.append(max([iou(o["bbox"], t["bbox"]) for o in a["objects"] if o["category"] == t["category"]], default=0))
    right = sum(v > 0.7 for v in found)
    print(f"{name}: {len(answers)} answers, {right} of {len(found)} boxes with an IoU above 0.7, mean {sum(found) / max(len(found), 1):.3f}")
    expect(f"{name}: boxes", found and len(found) - right <= max(1, MOST_MISSED * len(found)), found)


def run(*arguments, **options):
    done = subprocess.run([PROGRAM, *arguments], capture_output=True, text=True, timeout=100, **options)
    return done.returncode, done.stdout, done.stderr


def runs(folder):
    code, text, err = run(MODEL, "--seconds", "2")
    expect("a run", (code, err) == (0, ""), code, err)
    start, answers, summary = check_rows("a run", text)
    expect("a run: what it is", (start["width"], start["height"], start["hz"]) == (640, 480, 30), start)
    expect("a run: as long as asked for", 2 <= float(summary["seconds"]) < 20 and 0 < summary["captured"] <= 20 * 30, summary)
    check_boxes("a run", start, answers)
    plots(folder, text, summary)

    code, text, err = run(MODEL, "--seconds", "0.5", "--size", "361x481", "--nice", "3", "--leave-cpu-free")
    expect("an odd size", (code, err) == (0, ""), code, err)
    start, answers, _ = check_rows("an odd size", text)
    check_boxes("an odd size", start, answers)

    # A camera that is faster than the model: the newest frame wins, so none waits for longer than an answer takes. (In a
    # queue the median would wait for a tenth of a second.)
    code, text, err = run(MODEL, "--seconds", "0.5", "--size", "64x48", "--hz", "1000",
                          "--prompt", "detect red circle ; blue star ; green square ; yellow triangle ; purple circle")
    expect("a fast camera", (code, err) == (0, ""), code, err)
    _, answers, summary = check_rows("a fast camera", text)
    expect("a fast camera: frames are replaced", summary["replaced"] > 0 and summary["answered"] > 0, summary)
    each = 1000 * float(summary["seconds"]) / summary["answered"]
    expect("a fast camera: the newest wins", float(summary["latency_ms"]["p50"]) < 3 * each, each, summary)

    # Nobody reads what it prints, for a while: the camera goes on, and frames are left out.
    process = subprocess.Popen([PROGRAM, MODEL, "--seconds", "0.7", "--size", "64x48", "--hz", "1000"], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True, pipesize=4096)
    time.sleep(0.8)
    text, err = process.communicate(timeout=60)
    expect("a reader that sleeps", (process.returncode, err) == (0, ""), process.returncode, err)
    _, answers, summary = check_rows("a reader that sleeps", text)
    expect("a reader that sleeps: nothing piles up", summary["busy"] > summary["answered"], summary)

    code, text, err = run(MODEL, "--seconds", "0.5", "--hz", "20", "--deadline", "1")
    expect("a deadline", (code, err) == (0, ""), code, err)
    _, _, summary = check_rows("a deadline", text)
    expect("a deadline: answers come too late", summary["late"] > 0, summary)


def signals():
    for number in (signal.SIGINT, signal.SIGTERM):
        process = subprocess.Popen([PROGRAM, MODEL, "--hz", "60"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        lines = [process.stdout.readline() for _ in range(4)]
        process.send_signal(number)
        rest, err = process.stdout.read(), process.stderr.read()  # communicate() loses what readline() read ahead
        expect(f"{number.name}: ends well", (process.wait(60), err) == (0, ""), process.returncode, err)
        check_rows(number.name, "".join(lines) + rest)


def plots(folder, text, summary):
    plot = os.path.join(ROOT, "examples", "camera_node", "plot.py")
    lines, picture = os.path.join(folder, "run.jsonl"), os.path.join(folder, "run.svg")
    with open(lines, "w", encoding="utf-8") as f:
        f.write(text)
    subprocess.run([sys.executable, plot, lines, picture, "--title", "a < b"], check=True, timeout=60)
    svg = xml.dom.minidom.parse(picture)
    dots = [p.getAttribute("d") for p in svg.getElementsByTagName("path") if p.getAttribute("class") == "answer"]
    expect("a picture: a dot for each answer", dots[-1].count("M") == summary["answered"], dots, summary)
    expect("a picture: its title", "a < b" in [t.firstChild.data for t in svg.getElementsByTagName("text")])
    for wrong in ("{}\n", text.split("\n", 1)[1], text.rsplit("\n", 2)[0]):
        with open(lines, "w", encoding="utf-8") as f:
            f.write(wrong)
        done = subprocess.run([sys.executable, plot, lines, picture], capture_output=True, text=True, timeout=60)
        expect("a picture of no run", done.returncode == 1 and done.stderr.count("\n") == 1 and lines in done.stderr, done)


def refused():
    for arguments, what in [(["--hz", "0"], "--hz"), (["--hz", "nan"], "--hz"), (["--size", "640"], "--size"),
                            (["--size", "640x"], "--size"), (["--size", "31x480"], "--size"), (["--size", "64.5x64"], "--size"),
                            (["--seconds", "-1"], "--seconds"), (["--deadline", "x"], "--deadline"), (["--nice", "1.5"], "--nice"),
                            (["--nice"], "--nice"), (["--frames", "1"], "--frames"), (["again"], "MODEL")]:
        code, out, err = run(MODEL, *arguments)
        expect(f"{arguments}", code == 2 and out == "" and what in err and err.count("\n") == 1, code, out, err)
    code, out, err = run()
    expect("no model", code == 2 and out == "" and err.startswith("usage:"), code, out, err)
    code, out, err = run("--help")
    expect("help", code == 0 and out.startswith("usage:") and err == "", code, out, err)
    code, out, err = run("/nowhere")
    expect("a model that is not there", code == 1 and out == "" and "/nowhere" in err and err.count("\n") == 1, code, out, err)
    with open("/dev/full", "w") as full:
        done = subprocess.run([PROGRAM, MODEL], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    expect("nowhere to write to", done.returncode == 1 and "stdout" in done.stderr, done)


def nv12(rows):
    """The planes of an image of even size, one behind the other. BT.601, luma 16 to 235."""
    luma, chroma = bytearray(), bytearray()
    for row in rows:
        luma += bytes(round(16 + (65.481 * r + 128.553 * g + 24.966 * b) / 255) for r, g, b in row)
    for y in range(0, len(rows), 2):
        for x in range(0, len(rows[0]), 2):
            r, g, b = (sum(rows[y + v][x + u][c] for v in (0, 1) for u in (0, 1)) / 4 for c in range(3))
            chroma += bytes([round(128 + (-37.797 * r - 74.203 * g + 112 * b) / 255), round(128 + (112 * r - 93.786 * g - 18.214 * b) / 255)])
    return bytes(luma + chroma)


def ros2():
    """Images on the stand-in's standard input; boxes, texts and what is logged on its standard output."""
    width, height, rows = decode_png(os.path.join(ROOT, "examples", "demo", "images", "shapes.png"))
    bgr = b"".join(bytes(v for p in row for v in p[::-1]) for row in rows)
    images = [("bgr8", 3 * width, bgr), ("nv12", width, nv12(rows)), ("bayer_rggb8", width, bytes(width * height)),
              ("bgr8", 3 * width, bgr[:-1])]
    told = b"".join(f"{encoding} {width} {height} {step} 12 {i} left_eye {len(data)}\n".encode() + data
                    for i, (encoding, step, data) in enumerate(images))
    done = subprocess.run([ROS2_NODE, f"model:={MODEL}", "prompt:=detect red circle ; yellow triangle"], input=told,
                          capture_output=True, timeout=100)
    lines = done.stdout.decode().splitlines()
    expect("ros2: ends well", done.returncode == 0 and done.stderr == b"" and len(lines) >= 6, done)
    kinds = [line.split()[0] for line in lines if "[DEBUG]" not in line]
    expect("ros2: what it publishes", kinds == ["detections", "answer"] * 2 + ["[ERROR]"] * 2, lines)
    for i, line in enumerate(line for line in lines if line.startswith("detections")):
        head, *objects = line.split("; ")
        expect("ros2: the image's header", head == f"detections 12.{i} left_eye", head)
        expect("ros2: two boxes", [" ".join(o.split()[:2]) for o in objects] == ["red circle", "yellow triangle"], line)
        # The circle reaches from x 0 to 96 and from y 24 to 120.
        x, y, size_x, size_y = (float(v) for v in objects[0].split()[2:])
        expect("ros2: a box in pixels", iou([x - size_x / 2, y - size_y / 2, size_x, size_y], [0, 24, 96, 96]) > 0.9, line)
    errors = [line for line in lines if line.startswith("[ERROR]")]
    expect("ros2: an encoding that is not known", "bayer_rggb8" in errors[0], errors)
    expect("ros2: an image that is cut off", str(len(bgr) - 1) in errors[-1], errors)
    done = subprocess.run([ROS2_NODE, "model:=/nowhere"], input=b"", capture_output=True, timeout=60)
    expect("ros2: a model that is not there", done.returncode == 1 and b"/nowhere" in done.stdout, done)


def main():
    with tempfile.TemporaryDirectory() as folder:
        runs(folder)
    signals()
    refused()
    ros2()
    print("FAILED" if tool_checks.failures else "ok")
    return 1 if tool_checks.failures else 0


if __name__ == "__main__":
    sys.exit(main())
