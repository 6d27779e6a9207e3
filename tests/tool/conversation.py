#!/usr/bin/env python3
# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""paligemma ask: lines of a pipe, and a person at a terminal.

    conversation.py TOOL MAKE_TINY SOURCE editor|plain
"""
import json
import os
import pty
import select
import signal
import subprocess
import sys
import tempfile
import termios
import time

TOOL, MAKE_TINY, SOURCE, KIND = sys.argv[1:5]
sys.path.insert(0, os.path.join(SOURCE, "tests", "support"))
import signals
import tool_checks
from tool_checks import expect

MODEL = os.path.join(SOURCE, "examples", "demo", "model")
SHAPES, PLAIN = (os.path.join(SOURCE, "examples", "demo", "images", n) for n in ("shapes.png", "plain.png"))
CAPTION = "a red circle, a purple star and a yellow triangle"


def ask(lines, *arguments, image=SHAPES):
    done = subprocess.run([TOOL, "ask", MODEL, image, *arguments], input=lines, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          timeout=1200)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def alone(prompt, image=SHAPES):
    return subprocess.run([TOOL, "run", MODEL, image, prompt], stdout=subprocess.PIPE, timeout=1200).stdout.decode()


def piped():
    prompts = ["caption en", "detect red circle", "answer en what color is the star?"]
    expected = "".join(alone(p) for p in prompts)
    code, out, err = ask("\n".join(prompts).encode())
    expect("the answers of run", (code, out, err) == (0, expected, ""), code, out, err)
    expect("blank lines, white space and CRLF", ask(b"\n  caption en \r\n\n\t\n")[1] == CAPTION + "\n")
    code, out, err = ask(f"caption en\n/image {PLAIN}\ncaption en\n/quit\ncaption en\n".encode())
    expect("another image", (code, out, err) == (0, alone("caption en") + alone("caption en", PLAIN), ""), code, out, err)
    code, out, err = ask(b"/image /nowhere.png\n/image\n/what\ncaption en\n")
    expect("mistakes are told, and it goes on", code == 1 and out == CAPTION + "\n" and err.count("\n") == 3
           and "/nowhere.png" in err and "'/what'" in err, code, out, err)
    expect("a prompt with a slash", ask(b"//x\n")[:2] == (0, alone("/x")))
    expect("/help", ask(b"/help\n")[0] == 0 and "/image FILE" in ask(b"/help\n")[1])
    code, out, err = ask(b"caption en\nno \xff UTF-8\n", "--json")
    lines = [json.loads(line) for line in out.splitlines()]
    expect("--json", code == 1 and lines[0]["prompt"] == "caption en" and lines[0]["text"] == CAPTION and lines[0]["stop"] == "eos"
           and lines[0]["ids"][-1] == 1 and "UTF-8" in lines[1]["error"], code, out, err)
    expect("nothing asked", ask(b"") == (0, "", ""))
    for arguments, status, word in [(("-",), 2, "stdin has the prompts"), (("/nowhere.png",), 1, "/nowhere.png")]:
        done = subprocess.run([TOOL, "ask", MODEL, *arguments], input=b"", stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=1200)
        expect(f"ask {arguments}", done.returncode == status and word in done.stderr.decode() and done.stderr.count(b"\n") == 1, done)
    expect("draws", ask(b"caption en\n", "--temperature", "3", "--seed", "1") == ask(b"caption en\n", "--temperature", "3", "--seed", "1"))
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([TOOL, "ask", MODEL, SHAPES], input=b"caption en\n" * 50, stdout=writer, stderr=subprocess.PIPE, timeout=1200)
    os.close(writer)
    expect("nobody reads", done.returncode == 1 and done.stderr == b"", done)


class Person:
    """At a terminal, with everything that it has shown since the last line."""

    def __init__(self, model, image, *arguments, terminal="xterm"):
        self.master, slave = pty.openpty()
        self.process = subprocess.Popen([TOOL, "ask", model, image, *arguments], stdin=slave, stdout=slave, stderr=slave,
                                        start_new_session=True, preexec_fn=lambda: __import__("fcntl").ioctl(0, termios.TIOCSCTTY, 0),
                                        env={**os.environ, "TERM": terminal, "LC_ALL": "C", "HOME": "/nowhere"})
        os.close(slave)
        self.shown, self.edits = b"", KIND == "editor" and terminal != "dumb"

    def wait_for(self, word, after=0):
        end = time.monotonic() + 30
        while word not in self.shown[after:] and time.monotonic() < end:
            if select.select([self.master], [], [], 0.2)[0]:
                try:
                    self.shown += os.read(self.master, 65536)
                except OSError:
                    break
        return word in self.shown[after:]

    def types(self, keys, word):
        """Whether `word` is shown from now on, and then a prompt: keys that come before it are not edited."""
        at = len(self.shown)
        os.write(self.master, keys)
        return self.wait_for(word, at) and self.wait_for(b"\n> ", self.shown.index(word, at)) and self.is_ready()

    def is_ready(self):
        """The editor has taken over the terminal; plain lines are being waited for."""
        end = time.monotonic() + 30
        while self.edits and termios.tcgetattr(self.master)[3] & termios.ICANON and time.monotonic() < end:
            time.sleep(0.01)
        time.sleep(0 if self.edits else 0.3)
        return time.monotonic() < end

    def asks_without_end(self, keys):
        at = len(self.shown)
        os.write(self.master, keys)
        self.wait_for(b"reading the prompt", at)
        time.sleep(0.5)

    def ends(self):
        """Its exit status; it must end by itself."""
        code = self.process.wait(30)
        os.close(self.master)
        return code


def at_a_terminal(temporary):
    person = Person(MODEL, SHAPES)
    expect("a hint and a prompt", person.wait_for(b"> ") and person.is_ready() and b"/help" in person.shown, person.shown)
    expect("an answer", person.types(b"caption en\r", CAPTION.encode()), person.shown)
    expect("boxes in pixels", person.types(b"detect red circle\r", b"119.8  red circle") and b"<loc0073>" in person.shown, person.shown)
    if KIND == "editor":
        expect("history: arrow up", person.types(b"\x1b[A\x1b[A\r", CAPTION.encode()), person.shown)
        expect("editing: left, delete", person.types(b"captiXon en\x1b[D\x1b[D\x1b[D\x1b[D\x1b[D\x7f\r", CAPTION.encode()), person.shown)
        expect("beginning of the line", person.types(b"aption en\x01c\r", CAPTION.encode()), person.shown)
        expect("UTF-8 is edited by characters", person.types("caption enäö\x7f\x7f\r".encode(), CAPTION.encode()), person.shown)
    at = len(person.shown)
    os.write(person.master, b"captiXX")
    person.wait_for(b"captiXX", at)
    person.is_ready()
    expect("Ctrl-C gives up a line", person.types(b"\x03", b"") and person.types(b"caption en\r", CAPTION.encode()), person.shown)
    os.write(person.master, b"\x04")
    expect("Ctrl-D ends", person.ends() == 0, person.process.returncode, person.shown)

    folder = os.path.join(temporary, "tiny")
    subprocess.run([MAKE_TINY, folder, "today"], check=True)
    person = Person(folder, os.path.join(folder, "image.png"), "-n", "2000000000")
    person.wait_for(b"> ")
    person.is_ready()
    for name in ["Ctrl-C cancels an answer", "and again"]:
        person.asks_without_end(b"a\r")
        expect(name, person.types(b"\x03", b"[cancelled]") and person.process.poll() is None, person.shown[-200:])
    os.write(person.master, b"/quit\r")
    expect("/quit", person.ends() == 0, person.process.returncode, person.shown[-200:])

    person = Person(MODEL, SHAPES, terminal="dumb")
    expect("a dumb terminal gets plain lines", person.wait_for(b"> ") and person.is_ready() and person.types(b"caption en\r", CAPTION.encode())
           and b"\x1b" not in person.shown, person.shown)
    os.write(person.master, b"\x04")
    expect("Ctrl-D ends there, too", person.ends() == 0, person.process.returncode)

    process = subprocess.Popen([TOOL, "ask", folder, os.path.join(folder, "image.png"), "-n", "2000000000"], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdin.write(b"a\nc d\n")
    process.stdin.flush()
    process.stdout.read(1)
    process.send_signal(signal.SIGINT)
    err = process.communicate(timeout=1200)[1]
    expect("no terminal: it dies of SIGINT", process.returncode == -signal.SIGINT and err == b"paligemma: interrupted\n",
           process.returncode, err)


def main():
    signals.restore()
    piped()
    with tempfile.TemporaryDirectory() as temporary:
        at_a_terminal(temporary)
    print(f"{tool_checks.failures} failed")
    return 1 if tool_checks.failures else 0


sys.exit(main())
