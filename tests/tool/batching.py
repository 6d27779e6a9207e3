#!/usr/bin/env python3
# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""`paligemma batch` as a person and a script use it, on a tiny random checkpoint.

    batching.py TOOL MAKE_TINY SOURCE
"""
import fcntl
import json
import os
import pty
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

TOOL, MAKE_TINY, SOURCE = map(os.path.abspath, sys.argv[1:4])
sys.path.insert(0, os.path.join(SOURCE, "tests", "support"))
import signals
import tool_checks
from tool_checks import expect, one_error_line, shown_on, write_lines

PROMPTS = ["a b", "caption en", "", "the cat " * 9, "answer en what is this?", "a"]


def run(*arguments, **more):
    done = subprocess.run([TOOL, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=1200, **more)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def contents(*path):
    with open(os.path.join(*path), "rb") as f:
        return f.read()


def results(text):
    return [json.loads(line) for line in text.split("\n") if line]


def job(n=0, **more):
    return {"image": "image.png" if n % 3 else "image.jpg", "prompt": PROMPTS[n % len(PROMPTS)], "id": n, **more}


def answers(model, jobs, temporary):
    """Each job gets what `run` says of it alone, however many run together."""
    alone = {}
    for n in range(len(PROMPTS)):
        given = job(n)
        found = json.loads(run("run", "--json", "-n", "7", "--", model, os.path.join(model, given["image"]), given["prompt"])[1])
        alone[n] = {key: found[key] for key in ("text", "ids", "stop")}
    expected = [{"line": n + 1, "id": n, "image": job(n)["image"], "prompt": job(n)["prompt"], **alone[n % len(PROMPTS)]} for n in range(40)]
    for options in [(), ("--batch", "1"), ("--batch", "3", "-t", "2"), ("--batch=40", "--readers", "7"), ("-t1", "--readers=1")]:
        code, out, err = run("batch", model, jobs, "-n7", *options)
        expect(f"the answers of run {options}", code == 0 and err == "" and results(out) == expected, code, out, err)
    code, out, err = run("batch", model, jobs, "-n7", "--unordered")
    expect("--unordered", code == 0 and sorted(results(out), key=lambda line: line["line"]) == expected, code, out, err)
    texts = results(run("batch", model, jobs, "-n7", "--weights", "int8", "--batch", "16")[1])
    expect("int8 together and alone", len(texts) == 40 and texts == results(run("batch", model, jobs, "-n7", "--weights", "int8", "--batch", "1")[1]), texts)
    drawn = [results(run("batch", model, jobs, "-n7", "--temperature", "3", "--seed", seed, "--batch", rows)[1]) for seed, rows in [("1", "1"), ("1", "16"), ("2", "16")]]
    expect("--seed is the draw", drawn[0] == drawn[1] != drawn[2], drawn)
    given = json.loads(run("run", "--json", "-n7", "--beams", "3", model, os.path.join(model, "image.jpg"), "a b")[1])
    found = results(run("batch", model, jobs, "-n7", "--beams", "3")[1])
    expect("--beams", len(found) == 40 and found[0]["ids"] == given["ids"], found, given)

    of_lines = write_lines(os.path.join(model, "lines.jsonl"), b"\xef\xbb\xbf" + json.dumps(job(0)).encode() + b"\r", b"", b" \t",
                           job(1, max_new_tokens=2), job(2, other=[1]), job(3, id="\u00e9\u2028"), {"image": "image.png", "max_new_tokens": 3})
    with open(of_lines, "ab") as f:
        f.write(json.dumps(job(4, task="detect")).encode())  # no newline
    code, out, err = run("batch", model, of_lines, "-n7", "--prompt", "a b")
    found = results(out)
    expect("odd lines", code == 0 and err == "" and [line["line"] for line in found] == [1, 4, 5, 6, 7, 8], code, out, err)
    expect("max_new_tokens of a line", found[1]["ids"] == alone[1]["ids"][:2] and found[2]["ids"] == alone[2]["ids"] and len(found[4]["ids"]) <= 3, found)
    expect("id, and none", found[3]["id"] == "\u00e9\u2028" and "id" not in found[4] and found[4]["prompt"] == "a b", found)
    expect("objects", found[5]["ids"] == alone[4]["ids"] and {"width", "height", "objects", "broken"} <= set(found[5]) and "objects" not in found[4], found)
    inside = os.path.join(temporary, "moved.jsonl")
    shutil.copy(jobs, inside)
    code, out, err = run("batch", model, inside, "-n7", "--images", model)
    expect("--images", code == 0 and results(out) == expected, code, err)
    demo = os.path.join(SOURCE, "examples", "demo")
    lines = write_lines(os.path.join(temporary, "demo.jsonl"), *({"image": name, "prompt": f"detect {thing}"} for name in ("shapes.png", "stripes.jpg") for thing in ("red circle", "purple star")))
    code, out, err = run("batch", os.path.join(demo, "model"), lines, "--images", os.path.join(demo, "images"), "--task", "detect")
    for line in results(out):
        given = json.loads(run("detect", "--json", os.path.join(demo, "model"), os.path.join(demo, "images", line["image"]), line["prompt"])[1])
        expect("detect", code == 0 and all(given[key] == line[key] for key in ("width", "height", "objects", "broken", "text", "stop")) and len(results(out)) == 4, line, given)


def bad_lines(model, temporary):
    """What cannot be done: an error in its place, and the others are done."""
    damaged = os.path.join(temporary, "damaged.png")
    with open(damaged, "wb") as f:
        f.write(contents(model, "image.png")[:-40])
    lines = os.path.join(model, "bad.jsonl")
    bad = [(b"nonsense", "no JSON"), (b'{"image": "image.png"', "no JSON"), ([1], "a list", "an object"), (b"7", "no JSON"), (b'"a"', "no JSON"),
           (job(image=None), "image", "null", "a text"), (job(image=""), "no \"image\""), ({"prompt": "a"}, "no \"image\""),
           ({"image": "image.png"}, "no \"prompt\"", "--prompt"), (job(prompt=["a"]), "prompt", "a list"), (job(id=[1]), "id", "a list"),
           (job(id=1.5), "id", "not whole"), (job(id=None), "id", "null"), (job(max_new_tokens=0), "max_new_tokens", "0"), (job(max_new_tokens="9"), "max_new_tokens", "a text"),
           (job(max_new_tokens=1 << 40), "max_new_tokens", str(1 << 40)), (job(task="fly"), "task", "fly", "detect"), (job(task=1), "task", "a number"),
           (b'{"image": "image.png", "prompt": "\xff"}', "no JSON"), (b"\0", "no JSON"), (b"x" * 1100000, "1048576 bytes"), (b'{"a":' + b"[" * 5000, "no JSON"),
           (b'{"image": "image.png", "prompt": "a\\u0000"}', "no JSON")]
    others = [(job(image="none.png"), "none.png", "No such file"), (job(image=temporary), temporary), (job(image="https://x/y.png"), "a URL", "download"),
              (job(image=damaged), "damaged.png"), (job(image="config.json"), "config.json"), (job(prompt="<image><image>"), "--literal"),
              (job(prompt="word " * 9000), "--max-context")]
    write_lines(lines, job(0), *(line for line, *_ in bad), job(1), *(line for line, *_ in others), job(2))
    out_name = os.path.join(temporary, "bad.out")
    for batch in ("1", "16"):
        code, out, err = run("batch", model, lines, "-n3", "--batch", batch, "--out", out_name, "--max-context", "4000")
        found = results(contents(out_name).decode())
        expect("some fail", code == 3 and out == "" and [line["line"] for line in found] == list(range(1, len(found) + 1)) and len(found) == 3 + len(bad) + len(others), code, err)
        expect("the others are done", [line["line"] for line in found if "text" in line] == [1, 2 + len(bad), len(found)], found)
        told = err.splitlines()
        expect("ten are told, and how many", len(told) == 11 and f"{len(bad) + len(others)} of {len(found)} jobs failed, {len(bad)} of them bad lines" in told[-1]
               and all(line.startswith(f"paligemma: warning: {lines}, line ") for line in told[:10]), err)
        for line, (_, *words) in zip(found[1:1 + len(bad)] + found[2 + len(bad):-1], bad + others):
            expect(f"why line {line['line']} is bad", "text" not in line and all(word in line["error"] for word in words), line, words)
        code, out, err = run("batch", model, lines, "-n3", "--out", out_name, "--resume", "--max-context", "4000")
        expect("earlier failures count", code == 3 and results(contents(out_name).decode()) == found and err.count("\n") == 1 and f"{len(bad) + len(others)} of {len(found)}" in err, code, err)
        os.remove(out_name)
    write_lines(lines, b"{}", b"nonsense")
    code, out, err = run("batch", "/nowhere/at-all", lines)
    one_error_line("no model", (code, out, err), 1, "/nowhere/at-all")
    code, out, err = run("batch", model, lines)
    expect("nothing but bad lines", code == 3 and out.count("error") == 2 and "2 of 2 jobs failed" in err, code, out, err)
    for text in (b"", b"\n \n"):
        with open(lines, "wb") as f:
            f.write(text)
        one_error_line("no job", run("batch", model, lines), 1, lines, "no job")
    one_error_line("no jobs", run("batch", model, "/nowhere.jsonl"), 1, "/nowhere.jsonl")


def usage(model, jobs, temporary):
    out = os.path.join(temporary, "usage.out")
    for arguments in [(), (model,), (model, jobs, "a"), (model, jobs, "--resume"), (model, jobs, "--resume", "-o", "-"), (model, jobs, "--batch", "0"), (model, jobs, "--readers", "0"),
                      (model, jobs, "-n", "0"), (model, jobs, "--task", "fly"), (model, jobs, "--task", ""), (model, jobs, "--convention", "1"), (model, jobs, "--max-iou", "2"),
                      (model, jobs, "--top-p", "0"), (model, jobs, "--stop", ""), (model, jobs, "--weights", "int5"), (model, model), (model, model, "--prompt", "a", "--images", model),
                      (model, os.path.join(model, "image.png")), (model, jobs, "--prompt", b"\xff"), (model, jobs, "--json")]:
        code, text, err = run("batch", *arguments, *(("--out", out) if "-o" not in arguments and "--resume" not in arguments else ()))
        expect(f"usage {arguments}", code == 2 and text == "" and err.startswith("paligemma batch: ") and not os.path.exists(out), code, text, err)
    one_error_line("no folder for the results", run("batch", model, jobs, "--out", "/nowhere/at-all"), 1, "/nowhere/at-all")
    one_error_line("a folder for the results", run("batch", model, jobs, "--out", temporary), 1, temporary)
    for precious in (b"precious\n", b"precious", b'{"a": 1, "precious": 2}', b'{"image": "a.jpg", "prompt": "of a job"}', b"{"):
        with open(out, "wb") as file:
            file.write(precious)
        for more, word in [((), "--resume"), (("--resume",), "another file")]:
            if precious == b"{" and more:
                continue  # a line of results may begin so
            code, text, err = run("batch", model, jobs, "--out", out, *more)
            expect(f"another file {more}", code == 1 and text == "" and out in err and word in err and contents(out) == precious, code, err)
    with open(out, "wb") as f:
        f.write(b"precious")
    expect("no file is cut", run("batch", model, jobs, "--out", out, "--resume")[0] == 1 and contents(out) == b"precious")
    os.remove(out)
    os.mkfifo(out)
    threading.Thread(target=lambda: contents(out), daemon=True).start()
    one_error_line("a pipe to resume", run("batch", model, jobs, "--out", out, "--resume"), 1, out, "--resume")
    os.remove(out)


def folders(model, temporary):
    """A folder in place of JOBS: the lines have no number, and go on by the names."""
    photos, out = os.path.join(temporary, "photos"), os.path.join(temporary, "photos.out")
    os.makedirs(os.path.join(photos, "more"))
    names = [b"a.png", b"b.jpg", b"more/c.png", b"no\xff.png"]
    for name in names:
        shutil.copy(os.path.join(model, "image.jpg" if name.endswith(b"jpg") else "image.png"), os.fsencode(photos) + b"/" + name)
    write_lines(os.path.join(photos, "list.txt"), b"no image")
    code, text, err = run("batch", model, photos, "--prompt", "a b", "-n5", "--out", out)
    found = results(contents(out).decode())
    expect("a folder", code == 0 and len(found) == 4 and "1 files" in err and [os.fsencode(line["image"]) if "image_bytes" not in line else bytes.fromhex(line["image_bytes"]) for line in found]
           == [os.fsencode(photos) + b"/" + name for name in names] and all("line" not in line for line in found), code, found, err)
    shutil.copy(os.path.join(model, "image.png"), os.path.join(photos, "aa.png"))
    with open(os.path.join(photos, "d.png"), "wb") as f:
        f.write(b"\x89PNG\r\n\x1a\n")
    code, text, err = run("batch", model, photos, "--prompt", "a b", "-n5", "--out", out, "--resume")
    more = results(contents(out).decode())
    expect("a folder that has grown", code == 3 and more[:4] == found and [os.path.basename(line["image"]) for line in more[4:]] == ["aa.png", "d.png"]
           and more[4]["ids"] == found[0]["ids"] and "error" in more[5] and "1 of 6 jobs failed;" in err, code, more, err)
    code, text, err = run("batch", model, photos, "--prompt", "b a", "--out", out, "--resume")
    expect("another prompt", code == 1 and "another" in err and results(contents(out).decode()) == more, code, err)
    empty = os.path.join(temporary, "empty")
    os.mkdir(empty)
    code, text, err = run("batch", model, empty, "--prompt", "a")
    expect("an empty folder", code == 3 and "no PNG or JPEG" in results(text)[0]["error"], code, text, err)


def pipelines(model, jobs):
    """stdin and stdout: a result comes when it is known, however slowly jobs do."""
    code, out, err = run("batch", model, "-", "--images", model, "-n3", input=contents(jobs))
    expect("from stdin", code == 0 and err == "" and out == run("batch", model, jobs, "-n3")[1], code, err)
    code, again, err = run("batch", model, "-", "-o", "-", "-n3", input=contents(jobs), cwd=model)
    expect("relative to the folder where one is", code == 0 and again == out, code, err)
    process = subprocess.Popen([TOOL, "batch", model, "-", "--images", model, "-n3"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    for n in range(3):
        process.stdin.write(json.dumps(job(n)).encode() + b"\n")
        process.stdin.flush()
        expect("one after the other", json.loads(process.stdout.readline())["line"] == n + 1)
    process.send_signal(signal.SIGINT)
    err = process.stderr.read()
    expect("Ctrl-C while it waits for jobs", process.wait(1200) == -signal.SIGINT and err == b"paligemma: interrupted; 3 jobs are done\n", process.returncode, err)
    for pipe in (process.stdin, process.stdout, process.stderr):
        pipe.close()
    once = os.path.join(model, "once.png")  # a pipe gives its image once
    os.mkfifo(once)

    def write_once():
        with open(once, "wb") as f:
            f.write(contents(model, "image.png"))

    threading.Thread(target=write_once, daemon=True).start()
    lines = write_lines(os.path.join(model, "once.jsonl"), *(job(1, image="once.png", max_new_tokens=3 + n % 2) for n in range(8)))
    code, out, err = run("batch", model, lines, "--batch", "2")
    expect("an image of several lines is read once", code == 0 and [line["ids"] for line in results(out)] == [results(out)[n % 2]["ids"] for n in range(8)]
           and results(out)[0]["ids"] == json.loads(run("run", "--json", "-n3", model, os.path.join(model, "image.png"), job(1)["prompt"])[1])["ids"], code, out, err)
    os.remove(once)
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([TOOL, "batch", model, jobs], stdout=writer, stderr=subprocess.PIPE, timeout=1200)
    os.close(writer)
    expect("a closed pipe", done.returncode == 1 and done.stderr == b"", done)
    if os.path.exists("/dev/full"):
        for arguments, stdout in [(("--out", "/dev/full"), subprocess.PIPE), ((), open("/dev/full", "w"))]:
            done = subprocess.run([TOOL, "batch", model, jobs, *arguments], stdout=stdout, stderr=subprocess.PIPE, timeout=1200)
            expect("a full disk", done.returncode == 1 and b"No space left" in done.stderr and done.stderr.count(b"\n") == 1, done)


def going_on(model, temporary):
    """Cut, killed, interrupted or out of room at any place, and gone on from: the bytes of a run that was not."""
    jobs = write_lines(os.path.join(model, "many.jsonl"), *(job(n, image="none.png") if n % 50 == 7 else b"{" if n % 50 == 9 else job(n) for n in range(119)),
                       job(119, image="last.png"))
    last = os.path.join(model, "last.png")

    def have_last():
        if os.path.exists(last):
            os.remove(last)
        shutil.copy(os.path.join(model, "image.png"), last)

    def last_is_waited_for():
        """A pipe that is open and gives nothing: no run comes to its end, however slowly this test goes on."""
        os.remove(last)
        os.mkfifo(last)
        return os.open(last, os.O_RDWR)

    have_last()
    whole, out = os.path.join(temporary, "whole.out"), os.path.join(temporary, "parts.out")
    base = ("batch", model, jobs, "-n", "30", "--batch", "4")
    expect("whole", run(*base, "--out", whole)[0] == 3)
    expected = contents(whole)
    expect("all lines", [line["line"] for line in results(expected.decode())] == list(range(1, 121)))
    draw = random.Random(1)
    second = expected.index(b"\n") + 1
    for size in [0, 1, second - 1, second, second + 1, len(expected) - 1, len(expected)] + [draw.randrange(len(expected)) for _ in range(3)]:
        for tail in (b"", b"\0" * 40):
            with open(out, "wb") as f:
                f.write(expected[:size] + tail)
            code, text, err = run(*base, "--out", out, "--resume")
            torn = tail or (size and expected[size - 1:size] != b"\n")
            expect(f"cut at {size}", code == 3 and contents(out) == expected and ("the last line is broken off" in err) == bool(torn), size, tail, code, err)
    for place, text in [("in the middle", expected[:second] + b"{\n" + expected[second:]), ("before the end", expected[:second] + b"\0\0{\0"), ("of another kind", b'{"a": 1}\n')]:
        with open(out, "wb") as f:
            f.write(text)
        code, _, err = run(*base, "--out", out, "--resume")
        expect(f"damaged {place}", code == 1 and out in err and "found no result" in err and contents(out) == text, code, err)

    os.remove(out)
    pipe = last_is_waited_for()
    n_killed = done = 0
    while done < 119:
        process = subprocess.Popen([TOOL, *base, "--out", out, "--resume"], stderr=subprocess.DEVNULL)
        while not os.path.exists(out) or contents(out).count(b"\n") < min(119, done + 6):
            time.sleep(0.001)
        time.sleep(draw.random() * 0.01)
        process.kill()
        expect("killed", process.wait() == -signal.SIGKILL, process.returncode)
        n_killed, done = n_killed + 1, contents(out).count(b"\n")
    os.close(pipe)
    have_last()
    expect("killed again and again", run(*base, "--out", out, "--resume")[0] == 3 and contents(out) == expected, n_killed)

    for number in (signal.SIGINT, signal.SIGTERM):
        os.remove(out)
        pipe = last_is_waited_for()
        process = subprocess.Popen([TOOL, *base, "--out", out], stderr=subprocess.PIPE)
        while not os.path.exists(out) or os.path.getsize(out) < 3000:
            time.sleep(0.001)
        process.send_signal(number)
        err = process.communicate(timeout=1200)[1].decode()
        os.close(pipe)
        have_last()
        there = contents(out)
        expect(f"signal {number}", process.returncode == -number and f"interrupted; {there.count(10)} of 120 jobs are done; the same command with --resume" in err
               and expected.startswith(there) and there.endswith(b"\n"), process.returncode, err)
        expect(f"gone on from signal {number}", run(*base, "--out", out, "--resume")[0] == 3 and contents(out) == expected)

    os.remove(out)
    slow = os.path.join(model, "slow.png")
    os.mkfifo(slow)  # a reader waits for it, and is stopped: that is no failure of the job
    lines = write_lines(os.path.join(model, "slow.jsonl"), job(1), job(2, image="slow.png"), job(4))
    process = subprocess.Popen([TOOL, "batch", model, lines, "-n3", "--out", out], stderr=subprocess.PIPE)
    while not os.path.exists(out) or os.path.getsize(out) == 0:
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    err = process.communicate(timeout=1200)[1].decode()
    expect("stopped while it reads", process.returncode == -signal.SIGINT and "1 of 3 jobs" in err and [line["line"] for line in results(contents(out).decode())] == [1], err, contents(out))
    os.remove(slow)
    shutil.copy(os.path.join(model, "image.png"), slow)
    expect("and read again", run("batch", model, lines, "-n3", "--out", out, "--resume")[0] == 0 and [line["line"] for line in results(contents(out).decode())] == [1, 2, 3], contents(out))

    os.remove(out)
    code, text, err = run(*base, "--out", out, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (10000, 10000)))
    expect("no room", code == 1 and out in err and "File too large" in err and "--resume goes on" in err and 0 < os.path.getsize(out) <= 10000, code, err)
    expect("room again", run(*base, "--out", out, "--resume")[0] == 3 and contents(out) == expected)

    with open(out, "wb") as f:
        f.write(b"".join(sorted(expected.splitlines(True)[:60], key=lambda line: draw.random())))
    code, text, err = run(*base, "--out", out, "--resume", "--unordered")
    expect("gone on in another order", code == 3 and sorted(contents(out).splitlines()) == sorted(expected.splitlines()), code, err)
    lines = contents(jobs).splitlines()
    write_lines(jobs, *lines[:20], json.dumps(job(20, prompt="b")).encode(), *lines[21:])
    with open(out, "wb") as f:
        f.write(b"".join(expected.splitlines(True)[:30]))
    code, text, err = run(*base, "--out", out, "--resume")
    expect("other jobs", code == 1 and f"{jobs}, line 21" in err and out in err and contents(out).count(10) == 30, code, err)

    os.remove(out)
    first = subprocess.Popen([TOOL, "batch", model, "-", "--out", out], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
    locked = False
    while not locked and first.poll() is None:
        time.sleep(0.3)
        if os.path.exists(out):
            with open(out) as f:
                try:
                    fcntl.flock(f, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    locked = True
    one_error_line("two at once", run(*base, "--out", out, "--resume"), 1, out, "another 'paligemma batch'")
    first.communicate(timeout=1200)


def resident(pid):
    """The most that a process had in memory, in KiB. (getrusage() counts what its parent had before the exec, too.)"""
    for line in contents(f"/proc/{pid}/status").splitlines():
        if line.startswith(b"VmHWM:"):
            return int(line.split()[1])
    return 0  # it has ended


def memory(model):
    """What many jobs take is what some take."""
    if b"__asan_init" in contents(TOOL) or b"__tsan_init" in contents(TOOL):
        return  # they keep what was freed
    peaks = []
    for n in (500, 10000):
        jobs = write_lines(os.path.join(model, "memory.jsonl"), *(job(i, note="x" * 4000) for i in range(n)))
        process = subprocess.Popen([TOOL, "batch", model, jobs, "-n2", "-t1", "--batch", "16"], stdout=subprocess.PIPE)
        lines = peak = 0
        for lines, _ in enumerate(process.stdout, 1):
            if lines % 100 == 0:
                peak = resident(process.pid) or peak
        process.stdout.close()
        expect(f"{n} jobs", process.wait(1200) == 0 and lines == n, process.returncode, lines)
        peaks.append(peak)
    expect("memory does not grow with the jobs", peaks[1] < peaks[0] + 8000, peaks)  # the queue may be full or not: 128 images of 38 KB


def terminal(model, jobs, temporary):
    """On a terminal: a bar with the rate and the time that is left; of a pipe nobody knows how long."""
    for more, words in [((jobs,), (b"/40 jobs", b" a second", b"[===")), (("-", "--images", model), (b" jobs, ", b" a second"))]:
        master, slave = pty.openpty()
        process = subprocess.Popen([TOOL, "batch", model, *more, "--batch", "4", "--out", os.path.join(temporary, f"terminal{len(more)}")],
                                   stdin=subprocess.PIPE, stdout=slave, stderr=slave, env={**os.environ, "TERM": "xterm"})
        os.close(slave)
        process.stdin.write(contents(jobs) * (20 if "-" in more else 1))  # long enough for a second look at the clock
        process.stdin.close()
        shown = shown_on(master)
        os.close(master)
        expect("a bar", process.wait(1200) == 0 and all(word in shown for word in words), shown)


def main():
    signals.restore()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        model = os.path.join(temporary, "model")
        subprocess.run([MAKE_TINY, model, "today"], check=True)
        jobs = write_lines(os.path.join(model, "jobs.jsonl"), *(job(n) for n in range(40)))
        answers(model, jobs, temporary)
        bad_lines(model, temporary)
        usage(model, jobs, temporary)
        folders(model, temporary)
        pipelines(model, jobs)
        going_on(model, temporary)
        memory(model)
        terminal(model, jobs, temporary)
    print(f"{tool_checks.failures} failed after {time.monotonic() - begun:.0f} s")
    return 1 if tool_checks.failures else 0


sys.exit(main())
