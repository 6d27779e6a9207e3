#!/usr/bin/env python3
# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""`paligemma train` as a person and a script use it, on a tiny random checkpoint.

    training.py TOOL MAKE_TINY SOURCE
"""
import json
import os
import pty
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import xml.dom.minidom
import zlib

TOOL, MAKE_TINY, SOURCE = sys.argv[1:4]
sys.path.insert(0, os.path.join(SOURCE, "tests", "support"))
import signals
import tool_checks
from tool_checks import expect, one_error_line, shown_on, write_lines



def run(*arguments, **more):
    done = subprocess.run([TOOL, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=1200, **more)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def row(n=0, **more):
    return {"image": "image.png" if n % 2 else "image.jpg", "prefix": "a b", "suffix": "the cat"[:3 + n % 5], "id": n, **more}


def log_of(adapter):
    with open(os.path.join(adapter, "log.jsonl")) as f:
        return [json.loads(line) for line in f]


def losses(adapter):
    return {line["step"]: line["loss"] for line in log_of(adapter) if "loss" in line}


def contents(*path):
    with open(os.path.join(*path), "rb") as f:
        return f.read()


def bad_data(model, temporary):
    """What cannot be learned: one line that names file and line, or --skip-bad."""
    damaged = os.path.join(temporary, "damaged.png")
    with open(damaged, "wb") as f:
        f.write(contents(model, "image.png")[:-40])
    data, out = os.path.join(model, "bad.jsonl"), os.path.join(temporary, "bad")
    cases = [(b"nonsense", "no JSON"), (b'{"image": "image.png"', "no JSON"), ([1], "a list", "an object"),
             (row(image=None), "image", "null", "a text"), (row(image=""), "no \"image\""), ({"prefix": "a", "suffix": "b"}, "no \"image\""),
             (row(image="none.png"), "none.png", "No such file"), (row(image=temporary), "no file"), (row(image="https://x/y.png"), "a URL", "download"),
             (row(image=damaged), "damaged.png"), (row(image="config.json"), "config.json", "PNG or JPEG"),
             ({"image": "image.png", "suffix": "b"}, "no \"prefix\"", "--prefix"), (row(prefix=["a"]), "prefix", "a list"),
             (row(suffix=""), "no \"suffix\""), ({"image": "image.png", "prefix": "a"}, "no \"suffix\""), (row(suffix=7), "suffix", "a number"),
             (row(suffix=["a", "b"]), "suffix", "a list"), (row(suffix="<image>"), "suffix", "<image>"),
             (b'{"image": "image.png", "prefix": "a", "suffix": "\xff"}', "no JSON"), (b"\0", "no JSON"), (b"x" * 1100000, "1048576 bytes"),
             (b'{"a":' + b"[" * 5000, "no JSON")]
    for line, *words in cases:
        write_lines(data, row(), b"", line, row())
        one_error_line(f"bad data {line!r:.80}", run("train", model, data, "--out", out), 1, data + ", line 3: ", *words)
        expect("nothing is made", not os.path.exists(out))
    write_lines(data, b"\xef\xbb\xbf" + json.dumps(row()).encode() + b"\r", *(line for line, *_ in cases), row(1))
    code, text, err = run("train", model, data, "--out", out, "--skip-bad", "--epochs", "1")
    expect("--skip-bad", code == 0 and f"{len(cases)} bad lines are left out, 2 stay" in err and err.count("\n") == 11
           and log_of(out)[0]["settings"]["rows"] == 2, code, text, err)
    shutil.rmtree(out)
    write_lines(data, b"{}", b"")
    code, text, err = run("train", model, data, "--out", out, "--skip-bad")
    expect("nothing but bad lines", code == 1 and "no line that can be learned" in err, code, text, err)
    write_lines(data, {"image": "image.png", "suffix": "the"})
    code, text, err = run("train", model, data, "--out", out, "--prefix", "caption en", "--epochs", "1")
    expect("--prefix", code == 0 and err == "", code, text, err)
    shutil.rmtree(out)
    moved = write_lines(os.path.join(temporary, "moved.jsonl"), row())
    one_error_line("another folder", run("train", model, moved, "--out", out), 1, os.path.join(temporary, "image.jpg"))
    code, text, err = run("train", model, moved, "--out", out, "--images", model, "--epochs", "1")
    expect("--images", code == 0 and err == "", code, text, err)
    shutil.rmtree(out)
    one_error_line("no data", run("train", model, "/nowhere.jsonl", "--out", out), 1, "/nowhere.jsonl")
    one_error_line("a folder for data", run("train", model, temporary, "--out", out), 1, temporary)


def strange_data(model, temporary):
    """Damaged lines never do more than fail: the model is not there, so that all do."""
    sound = json.dumps(row(image=os.path.join(model, "image.png"))).encode()
    draw = random.Random(1)
    path = os.path.join(temporary, "strange.jsonl")
    for i in range(300):
        line = bytearray(sound)
        for _ in range(draw.randint(1, 4)):
            at, what = draw.randrange(len(line)), draw.randrange(4)
            if what == 0:
                line[at] = draw.randrange(256)
            elif what == 1:
                del line[at:at + draw.randint(1, 9)]
            elif what == 2:
                line[at:at] = draw.choice([b'"', b"\\u0000", b"\\ud800", b"{", b"[", b"\n", b"\0", b"\r", b"\\", b"1e999", b"\xc3"])
            else:
                line[at:at] = line[draw.randrange(len(line)):][:20]
        write_lines(path, bytes(line))
        one_error_line(f"strange data {i}: {bytes(line)!r}", run("train", "/nowhere", path, "--out", os.path.join(temporary, "x")), 1)


def usage(model, data, temporary):
    out = os.path.join(temporary, "usage")
    for arguments in [(), ("--out", ""), ("--steps", "3", "--epochs", "2"), ("--steps", "0"), ("--batch", "0"), ("--rank", "0"), ("--rank", "5000"),
                      ("--validation", data, "--validation-split", "0.5"), ("--validation-split", "1"), ("--validation-split", "0"),
                      ("--early-stop", "2"), ("--evaluate-every", "2"), ("--dropout", "1"), ("--dropout", "nan"), ("--learning-rate", "-1"),
                      ("--learning-rate", "fast"), ("--schedule", "steep"), ("--plot", "a.jpg"), ("--plot", "plot"), ("--lora-alpha", "0"),
                      ("--weights", "int5"), ("--adapter", "a"), ("--arithmetic", "f32"), ("--alpha", "16"), ("--seed", "-1")]:
        given = ("--out", out) if arguments and arguments[0] != "--out" else ()
        code, text, err = run("train", model, data, *given, *arguments)
        expect(f"usage {arguments}", code == 2 and text == "" and err.startswith("paligemma train: ") and not os.path.exists(out), code, text, err)
    code, text, err = run("train", model, data, "--out", out, "--json", "--steps", "x")
    expect("a usage error as JSON", code == 2 and "--steps" in json.loads(text)["error"], text)
    one_error_line("no model", run("train", "/nowhere/at-all", data, "--out", out), 1, "/nowhere/at-all")
    one_error_line("no folder for ADAPTER", run("train", model, data, "--out", "/nowhere/at-all/a"), 1, "/nowhere/at-all/a")
    one_error_line("no such module", run("train", model, data, "--out", out, "--target-modules", "nose"), 1, "paligemma: --target-modules: ", "nose")
    one_error_line("no pattern", run("train", model, data, "--out", out, "--target-modules", "regex:("), 1, "paligemma: --target-modules: ")
    one_error_line("no such module to save", run("train", model, data, "--out", out, "--save-modules", "nose"), 1, "paligemma: --save-modules: ")
    one_error_line("ADAPTER has files", run("train", model, data, "--out", model), 1, model, "--resume")
    one_error_line("nothing to resume", run("train", model, data, "--out", out, "--resume"), 1, out, "'paligemma train'")


def adapters(model, data, temporary):
    """Steps, lines, files; the adapter is one that the other verbs take, and that knows more than before."""
    out = os.path.join(temporary, "adapter")
    code, text, err = run("train", model, data, "--out", out, "--json", "--batch", "4", "--epochs", "20", "--learning-rate", "3e-2", "--rank", "4",
                          "--target-modules", "q_proj,v_proj", "--schedule", "cosine", "--warmup", "3")
    lines = [json.loads(line) for line in text.splitlines()]
    steps = [line for line in lines if "loss" in line]
    expect("train --json", code == 0 and err == "" and [s["step"] for s in steps] == list(range(1, 61)) and lines[-1]["done"] == "steps"
           and lines[-1]["adapter"] == out, code, lines[-1:], err)
    expect("epochs", steps[2]["epoch"] == 1 and steps[-1]["epoch"] == 20, steps[-1])
    expect("a schedule", steps[0]["learning_rate"] < steps[5]["learning_rate"] > steps[-1]["learning_rate"], steps[0], steps[-1])
    expect("it learns", sum(s["loss"] for s in steps[-6:]) < 0.8 * sum(s["loss"] for s in steps[:6]), steps[0], steps[-1])
    expect("the log", len(log_of(out)) == 61 and losses(out).keys() == {s["step"] for s in steps}, log_of(out)[:2])
    xml.dom.minidom.parse(os.path.join(out, "loss.svg"))
    told = json.loads(run("info", model, "--adapter", out, "--json")[1])["adapters"][0]
    expect("info --adapter", told["rank"] == 4, told)
    image = os.path.join(model, "image.png")
    plain, learned = (json.loads(run("score", model, image, "a b", "the cat", "--json", *more)[1])["scores"][0]["log_prob"]
                      for more in [(), ("--adapter", out)])
    expect("score --adapter", learned > plain, plain, learned)
    one_error_line("ADAPTER is there", run("train", model, data, "--out", out), 1, out, "--resume")

    text_out = os.path.join(temporary, "text")
    code, text, err = run("train", model, data, "--out", text_out, "--steps", "3", "--accumulate", "2", "--plot", text_out + ".png", "--batch", "3",
                          "--checkpoint-gradients", "--rslora", "--dropout", "0.1", "--weights", "int8", "--cpu", "baseline", "-t", "2")
    expect("train", code == 0 and err == "" and re.match(r"step 1/3  epoch 0\.50  loss \d", text) and text.endswith(f"{text_out}: the adapter of step 3\n")
           and text.count("\n") == 4, code, text, err)
    png = contents(text_out + ".png")
    at, pixels = 8, b""
    while at < len(png):
        size = int.from_bytes(png[at:at + 4], "big")
        if png[at + 4:at + 8] == b"IDAT":
            pixels += png[at + 8:at + 8 + size]
        at += size + 12
    expect("--plot PNG", png[:8] == b"\x89PNG\r\n\x1a\n" and len(zlib.decompress(pixels)) == 540 * (1 + 3 * 960))
    shutil.rmtree(text_out)
    code, text, err = run("train", model, data, "--out", text_out, "--steps", "2", "--plot", "/nowhere/a.svg")
    expect("a curve that cannot be written", code == 1 and err.count("\n") == 1 and "/nowhere/a.svg" in err
           and os.path.exists(os.path.join(text_out, "adapter_model.safetensors")), code, text, err)
    shutil.rmtree(text_out)


def validations(model, data, temporary):
    out = os.path.join(temporary, "validated")
    base = ("train", model, data, "--out", out, "--batch", "4", "--validation-split", "0.2")
    code, text, err = run(*base, "--json", "--steps", "6", "--evaluate-every", "2")
    found = [json.loads(line) for line in text.splitlines()]
    looks = [line for line in found if "best" in line]
    expect("validations", code == 0 and [line["step"] for line in looks] == [0, 2, 4, 6] and log_of(out)[0]["settings"] ==
           {"rows": 10, "validation rows": 2, "--batch": 4, "--accumulate": 1, "--seed": 0}, code, text, err)
    least = min(looks, key=lambda line: line["validation_loss"])
    expect("the least", found[-1]["best_step"] == least["step"] and found[-1]["validation_loss"] == least["validation_loss"]
           and found[-1]["last"] == os.path.join(out, "last"), found[-1], least)
    for folder in (out, os.path.join(out, "last")):
        expect("an adapter", run("info", model, "--adapter", folder)[0] == 0, folder)
    one_error_line("resumed without validation", run(*base[:-2], "--resume"), 1, "--validation")
    one_error_line("resumed with another batch", run(*base, "--resume", "--batch", "5"), 1, "--batch", "4")
    shutil.rmtree(out)
    # Nothing is learned, so that no validation is better than the first one.
    code, text, err = run(*base, "--learning-rate", "0", "--evaluate-every", "3", "--early-stop", "2", "--epochs", "100")
    expect("--early-stop", code == 0 and "stopped early: 2 evaluations" in text and "adapter of step 0, " in text and "that of step 6" in text, code, text, err)
    shutil.rmtree(out)
    code, text, err = run(*base[:-2], "--validation", data, "--steps", "1")
    expect("--validation", code == 0 and text.count("validation loss") == 3, code, text, err)
    shutil.rmtree(out)


def unfinished_validation(model, data, temporary):
    """Stopped within the last validation, of a step that is no multiple of --evaluate-every: it is done at --resume, and
    the log has it only when the adapter is saved."""
    out = os.path.join(temporary, "unfinished")
    log, adapter = os.path.join(out, "log.jsonl"), os.path.join(out, "adapter_model.safetensors")
    base = ("train", model, data, "--out", out, "--validation", data, "--steps", "1", "--evaluate-every", "100")
    expect("a validated step", run(*base)[0] == 0)
    before = [line for line in log_of(out) if "validation_loss" not in line]
    write_lines(log, *before)
    os.remove(adapter)
    os.mkdir(adapter)  # in the way
    code, text, err = run(*base, "--resume")
    expect("an adapter that cannot be saved", code == 1 and adapter in err and log_of(out) == before, code, text, err, log_of(out))
    os.rmdir(adapter)
    code, text, err = run(*base, "--resume")
    expect("the last validation is done", code == 0 and text.startswith("step 1/1 ") and f"{out}: the adapter of step 1, " in text, code, text, err)
    expect("its adapter", contents(adapter) == contents(out, "last", "adapter_model.safetensors") and log_of(out)[:-1] == before
           and log_of(out)[-1]["validation_loss"] > 0, log_of(out))
    code, text, err = run(*base, "--resume")
    expect("it is done once", code == 0 and text.startswith(f"{out}: the adapter of step 1, "), code, text, err)
    shutil.rmtree(out)


def going_on(model, data, temporary):
    """Interrupted, killed, and gone on from: the numbers of a training that was not."""
    whole, out = os.path.join(temporary, "whole"), os.path.join(temporary, "parts")
    base = ("train", model, data, "--batch", "5", "--schedule", "constant", "--learning-rate", "1e-2", "--dropout", "0.1", "--seed", "5")
    expect("whole", run(*base, "--out", whole, "--steps", "7")[0] == 0)
    expect("a part", run(*base, "--out", out, "--steps", "4")[0] == 0)
    code, text, err = run(*base, "--out", out, "--steps", "7", "--resume")
    expect("--resume", code == 0 and text.startswith("step 5/7") and losses(out) == losses(whole), text, err, losses(out), losses(whole))
    expect("--resume: the same bytes", contents(out, "adapter_model.safetensors") == contents(whole, "adapter_model.safetensors"))
    code, text, err = run(*base, "--out", out, "--steps", "7", "--resume")
    expect("there is nothing left to do", code == 0 and text == f"{out}: the adapter of step 7\n", code, text, err)
    one_error_line("another seed", run(*base[:-1], "6", "--out", out, "--steps", "9", "--resume"), 1, "--seed", "5")

    for number, name in [(signal.SIGINT, "interrupted; step "), (signal.SIGTERM, "interrupted; step "), (signal.SIGKILL, "")]:
        shutil.rmtree(out)
        process = subprocess.Popen([TOOL, *base, "--out", out, "--steps", "100000000", "--save-every", "2"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(5):
            process.stdout.readline()
        process.send_signal(number)
        text, err = process.communicate(timeout=1200)
        log = log_of(out) if number != signal.SIGKILL else []
        expect(f"signal {number}", process.returncode == -number and err.decode().startswith(f"paligemma: {name}" if name else "")
               and err.count(b"\n") == bool(name) and (not name or f"step {log[-1]['step']} of" in err.decode()), process.returncode, err)
        code, text, err = run(*base, "--out", out, "--steps", str(10 + max(losses(out))), "--resume")
        shared = losses(whole).keys() & losses(out).keys()
        expect(f"gone on from signal {number}", code == 0 and len(shared) >= 7 and all(losses(whole)[s] == losses(out)[s] for s in shared), code, text, err)

    shutil.rmtree(out)
    code, text, err = run(*base, "--out", out, "--steps", "20", "--learning-rate", "1e30", "--save-every", "1")
    expect("a loss that is no number", code == 1 and "finite" in err and err.count("\n") == 1 and (f"is in {out}" in err or "nothing was saved" in err),
           code, text, err)


def terminal(model, data, temporary):
    """On a terminal: a bar, and no line for each step."""
    out = os.path.join(temporary, "terminal")
    master, slave = pty.openpty()
    process = subprocess.Popen([TOOL, "train", model, data, "--out", out, "--batch", "4", "--validation-split", "0.2"], stdout=slave, stderr=slave,
                               env={**os.environ, "TERM": "xterm"})
    os.close(slave)
    shown = shown_on(master)
    os.close(master)
    expect("a bar", process.wait(60) == 0 and b"/9 steps" in shown and b", loss " in shown and b"rows read" in shown and b"epoch 1.00  loss" not in shown
           and shown.count(b"validation loss") == 5, shown)


def main():
    signals.restore()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        model = os.path.join(temporary, "model")
        subprocess.run([MAKE_TINY, model, "today"], check=True)
        data = write_lines(os.path.join(model, "data.jsonl"), *(row(n) for n in range(12)))
        bad_data(model, temporary)
        strange_data(model, temporary)
        usage(model, data, temporary)
        adapters(model, data, temporary)
        validations(model, data, temporary)
        unfinished_validation(model, data, temporary)
        going_on(model, data, temporary)
        terminal(model, data, temporary)
    print(f"{tool_checks.failures} failed after {time.monotonic() - begun:.0f} s")
    return 1 if tool_checks.failures else 0


sys.exit(main())
