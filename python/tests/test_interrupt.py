# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""Ctrl-C: a real SIGINT to a process that is inside a long call of the library on its main thread."""
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEMO = ROOT / "examples" / "demo"

# SIGINT may come ignored, from a shell that runs the tests in the background; Python then raises no KeyboardInterrupt.
# say() writes a line at once: print() writes it in pieces, and an interrupt between them would leave a part of one.
LISTEN = """
import os, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
def say(text):
    os.write(1, (text + "\\n").encode())
"""

CHILD = LISTEN + """
import sys, time
import numpy as np
import paligemma
model = paligemma.PaliGemmaForConditionalGeneration.from_pretrained(sys.argv[1])
processor = paligemma.AutoProcessor.from_pretrained(sys.argv[1])
small = processor(sys.argv[2], "caption en", return_tensors="np")
before = model.generate(**small, max_new_tokens=20).tolist()
many = dict(input_ids=np.full((1000, 480), 300))  # far more than a second of work
calls = {
    "embed": lambda: model.embed(**many),
    "generate": lambda: model.generate(**many, max_new_tokens=20),
    "encode_image": lambda: model.encode_image(np.repeat(small.pixel_values, 2000, 0)),
}
say("ready")
try:
    calls[sys.argv[3]]()
    say("finished")
except KeyboardInterrupt:
    say("interrupted")
assert model.generate(**small, max_new_tokens=20).tolist() == before      # everything is sound
for signals_are_back in [1]:
    try:
        say("ready")
        time.sleep(60)
    except KeyboardInterrupt:
        say("again")
"""


def line(child):
    return child.stdout.readline().strip()


@pytest.mark.skipif(not hasattr(signal, "SIGINT") or os.name != "posix", reason="no SIGINT here")
@pytest.mark.parametrize("call", ["embed", "generate", "encode_image"])
def test_sigint(call):
    arguments = [str(DEMO / "model"), str(DEMO / "images/shapes.png"), call]
    child = subprocess.Popen([sys.executable, "-c", CHILD, *arguments], stdout=subprocess.PIPE, text=True,
                             env={**os.environ, "PYTHONPATH": str(ROOT / "python")})
    try:
        assert line(child) == "ready"
        time.sleep(1.0)
        assert child.poll() is None
        sent = time.monotonic()
        child.send_signal(signal.SIGINT)
        assert line(child) == "interrupted"
        assert time.monotonic() - sent < 5.0  # tens of milliseconds on an idle machine; the call takes much longer
        assert line(child) == "ready"
        child.send_signal(signal.SIGINT)
        assert line(child) == "again"
        assert child.wait(30) == 0
    finally:
        child.kill()
        child.wait()


STREAM = LISTEN + """
import sys
import paligemma
model = paligemma.PaliGemmaForConditionalGeneration.from_pretrained(sys.argv[1])
processor = paligemma.AutoProcessor.from_pretrained(sys.argv[1])
inputs = processor(sys.argv[2], "caption en", return_tensors="np")
try:
    while True:
        for piece in model.stream(inputs, processor, max_new_tokens=20):
            say("ready")
except KeyboardInterrupt:
    say("interrupted")
say("".join(model.stream(inputs, processor, max_new_tokens=20)))
"""


@pytest.mark.skipif(os.name != "posix", reason="no SIGINT here")
def test_sigint_in_a_stream():
    child = subprocess.Popen([sys.executable, "-c", STREAM, str(DEMO / "model"), str(DEMO / "images/shapes.png")],
                             env={**os.environ, "PYTHONPATH": str(ROOT / "python")}, stdout=subprocess.PIPE, text=True)
    try:
        assert line(child) == "ready"
        child.send_signal(signal.SIGINT)
        rest = child.stdout.read().split("\n")
        assert rest[-3:] == ["interrupted", "a red circle, a purple star and a yellow triangle", ""]
        assert child.wait(30) == 0
    finally:
        child.kill()
        child.wait()


def test_threads_at_the_end_of_the_program_do_not_crash():
    """The interpreter ends while a daemon thread is inside the library, and handles are still open."""
    code = ("import sys, threading, time, numpy as np, paligemma\n"
            "model = paligemma.PaliGemmaForConditionalGeneration.from_pretrained(sys.argv[1])\n"
            "threading.Thread(target=lambda: model.embed(input_ids=np.full((600, 480), 300)),\n"
            "                 daemon=True).start()\n"
            "time.sleep(0.5)\n"
            "print('end')\n")
    done = subprocess.run([sys.executable, "-c", code, str(DEMO / "model")], capture_output=True, text=True, timeout=60,
                          env={**os.environ, "PYTHONPATH": str(ROOT / "python")})
    assert (done.returncode, done.stdout, done.stderr) == (0, "end\n", "")
