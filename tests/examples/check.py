#!/usr/bin/env python3
# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""The examples, and the page that quotes them.

    check.py run ROOT NAME PROGRAM...       each example prints what it should about the demo model's images, fails with
                                            one line of error where it must, and is valid C++ as well
    check.py page ROOT -- CC... -- CXX...   docs/EMBEDDING.md quotes the examples to the letter, and the rest of its C and
                                            C++ compiles without a warning
    check.py write ROOT                     puts the text of the examples into the page
"""
import os
import re
import struct
import subprocess
import sys
import tempfile
import zlib

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import tool_checks
from tool_checks import expect

PAGE = os.path.join("docs", "EMBEDDING.md")
QUOTED = ["stream", "ask_many", "session_loop", "camera_frame", "batch", "choose", "segment"]
QUOTE = re.compile(r"(<!-- examples/(\w+)\.c -->\n```c\n)(.*?)(```\n)", re.DOTALL)
BLOCK = re.compile(r"^(?!<!-- examples)([^\n]*)\n```(c|cpp)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
# What a piece that is not a whole program may speak of.
AROUND = """#include <stdio.h>
#include <paligemma/paligemma.h>
int piece(const pg_model *model, const pg_processor *processor, const pg_inputs *inputs, const pg_result *result);
int piece(const pg_model *model, const pg_processor *processor, const pg_inputs *inputs, const pg_result *result) {
    (void)model, (void)processor, (void)inputs, (void)result;
#line 1 "EMBEDDING.md"
%s    return 0;
}
"""


def read(root, *path):
    with open(os.path.join(root, *path), encoding="utf-8") as f:
        return f.read()


def example(root, name):
    """Its text as a page shows it: without the line of the license."""
    return re.sub(r"\A/\*[^\n]*SPDX[^\n]*\n", "", read(root, "examples", name + ".c"))


def compiles(compiler, text, suffix, include):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "piece" + suffix)
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)
        standard = "-std=c++17" if suffix == ".cc" else "-std=gnu11"
        done = subprocess.run([*compiler, standard, "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-I", include, path],
                              capture_output=True, text=True)
        return done.stderr if done.returncode else ""


def page(root, cc, cxx):
    text, include = read(root, PAGE), os.path.join(root, "include")
    quotes = {name: quote for _, name, quote, _ in QUOTE.findall(text)}
    expect("the page quotes the examples", sorted(quotes) == sorted(QUOTED), sorted(quotes))
    for name, quote in quotes.items():
        expect(f"the page's examples/{name}.c is the file", quote == example(root, name), "check.py write ROOT puts it there")
    pieces = [(language, piece) for _, language, piece in BLOCK.findall(text)]
    fences = len(re.findall(r"^```(?:c|cpp)$", text, re.MULTILINE))
    expect("every block is a quote or is compiled", len(pieces) + len(quotes) == fences and len(pieces) >= 4, len(pieces), fences)
    for language, piece in pieces:
        whole = piece if "#include" in piece else AROUND % piece
        errors = compiles(cc, whole, ".c", include) if language == "c" else compiles(cxx, whole, ".cc", include)
        expect("a piece of the page compiles", not errors, piece, errors)
    expect("a wrong piece would not", compiles(cc, AROUND % "pg_generate(model);\n", ".c", include))
    for name in QUOTED + ["caption", "labels"]:
        errors = compiles(cxx, read(root, "examples", name + ".c"), ".cc", include)
        expect(f"{name}.c is C++, too", not errors, errors)


def write(root):
    text = QUOTE.sub(lambda m: m[1] + example(root, m[2]) + m[4], read(root, PAGE))
    with open(os.path.join(root, PAGE), "w", encoding="utf-8") as f:
        f.write(text)


def decode_png(path):
    """Width, height and the rows of an 8-bit RGB PNG, as lists of (r, g, b)."""
    with open(path, "rb") as f:
        data = f.read()
    at, packed = 8, b""
    while at < len(data):
        size, kind = struct.unpack(">I4s", data[at:at + 8])
        body = data[at + 8:at + 8 + size]
        if kind == b"IHDR":
            width, height, depth, color, _, _, interlaced = struct.unpack(">IIBBBBB", body)
            assert (depth, color, interlaced) == (8, 2, 0), "not an image of this test"
        packed += body if kind == b"IDAT" else b""
        at += 12 + size
    raw, stride, rows = zlib.decompress(packed), 3 * width, []
    above = bytearray(stride)
    for y in range(height):
        kind, *line = raw[y * (stride + 1):(y + 1) * (stride + 1)]
        for i in range(stride):
            a, b, c = line[i - 3] if i >= 3 else 0, above[i], above[i - 3] if i >= 3 else 0
            paeth = min((abs(b - c), 0, a), (abs(a - c), 1, b), (abs(a + b - 2 * c), 2, c))[2]
            line[i] = (line[i] + (0, a, b, (a + b) // 2, paeth)[kind]) & 255
        rows.append([tuple(line[i:i + 3]) for i in range(0, stride, 3)])
        above = line
    return width, height, rows


def camera_frame(path, bottom_up):
    """The image stretched to 640 x 480, as examples/camera_frame.c wants it: the model sees it as it was."""
    width, height, rows = decode_png(path)
    lines = []
    for y in range(480):
        row = rows[y * height // 480]
        line = b"".join(bytes(row[x * width // 640][::-1]) for x in range(640))
        lines.append(line + b"\xff" * (2048 - len(line)))
    return b"".join(lines[::-1] if bottom_up else lines)


def run_all(root, programs):
    images = os.path.join(root, "examples", "demo", "images")
    model, shapes = os.path.join(root, "examples", "demo", "model"), os.path.join(images, "shapes.png")

    def run(name, *arguments, stdin=b""):
        done = subprocess.run([programs[name], *arguments], input=stdin, capture_output=True, timeout=1200)
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    def says(name, wanted, *arguments):
        found = run(name, *arguments)
        expect(f"{name} {arguments}", found == (0, wanted, ""), found, wanted)

    caption, other = "a red circle, a purple star and a yellow triangle", "a blue star, a yellow circle and a blue square"
    question, color = "answer en what color is the star?", "purple"
    boxes = "<loc0073><loc0000><loc0365><loc0292> red circle ; <loc0000><loc0512><loc0402><loc0913> yellow triangle"
    says("caption", f"{caption}\n", model, shapes)
    says("stream", f"{caption}\n", model, shapes, "caption en")
    says("session_loop", f"{color}\n", model, shapes, question)
    says("session_loop", f"{boxes}\n", model, shapes, "detect red circle ; yellow triangle")
    says("ask_many", f"caption en: {caption}\n{question}: {color}\ncaption en: {caption}\n", model, shapes, "caption en", question,
         "caption en")
    plain = os.path.join(images, "plain.png")
    says("batch", f"{shapes}: {caption} (12 tokens)\n{plain}: {other} (12 tokens)\n", model, "caption en", shapes, plain)

    says("choose", "0.000 red\n1.000 purple\n0.000 yellow\n", model, shapes, question, "red", "purple", "yellow")

    says("segment", "red circle: no mask\n", model, shapes, "detect red circle")
    code, out, err = run("segment", model, shapes, "segment red circle ; yellow triangle")
    found = re.findall(r"([a-z ]+): (\d+) pixels of 336 x 336, \d+ runs\n", out)
    expect("segment: the names", code == 0 and err == "" and [f[0] for f in found] == ["red circle", "yellow triangle"], code, out, err)
    # a circle of 96 pixels across, and half of the triangle's box
    expect("segment: the areas", all(abs(int(f[1]) - area) < area * 0.1 for f, area in zip(found, [7238, 8712])), out)

    code, out, err = run("labels", model, shapes, question, color)
    lines = {line.split()[0]: [int(n) for n in line.split()[1:]] for line in out.splitlines()}
    learned = [label for label in lines.get("labels", []) if label != -100]
    expect("labels", code == 0 and err == "" and list(lines) == ["input_ids", "token_type_ids", "labels"] and learned
           and lines["input_ids"][-len(learned):] == learned and sum(lines["token_type_ids"]) == len(learned), code, out, err)

    expected = [("red circle", (0, 96, 24, 120)), ("yellow triangle", (168, 300, 0, 132))]  # in the file's 336 x 336 pixels
    for order in ["down", "up"]:
        code, out, err = run("camera_frame", model, "detect red circle ; yellow triangle", order,
                             stdin=camera_frame(shapes, order == "up"))
        found = re.findall(r"x (\d+) to (\d+), y (\d+) to (\d+): ([a-z ]+?) ?\n", out)
        expect(f"frame {order}: the names", code == 0 and err == "" and [f[4] for f in found] == [e[0] for e in expected]
               and out.count("\n") == 2, code, out, err)
        for (*box, name), (_, pixels) in zip(found, expected):
            wanted = [p * (640 if i < 2 else 480) / 336 for i, p in enumerate(pixels)]
            expect(f"frame {order}: the box of the {name}", all(abs(int(b) - w) <= 12 for b, w in zip(box, wanted)), box, wanted)

    for name in programs:
        code, out, err = run(name)
        expect(f"{name} tells how to use it", code == 1 and out == "" and "usage: " + name in err and err.count("\n") == 1, code, err)
    for name, arguments, *words in [
            ("caption", (model, "/nowhere.png"), "/nowhere.png"), ("stream", (model, "/nowhere.png", "a"), "/nowhere.png"),
            ("stream", ("/nowhere/at-all", shapes, "a"), "/nowhere/at-all"), ("ask_many", (model, shapes, b"a\xff"), "UTF-8"),
            ("session_loop", (model, shapes, b"a\xff"), "UTF-8"), ("batch", (model, "a", shapes, "/nowhere.png"), "/nowhere.png"),
            ("labels", (model, shapes, "a", b"a\xff"), "UTF-8"), ("choose", (model, shapes, "a", b"a\xff"), "UTF-8"),
            ("segment", (model, "/nowhere.png", "a"), "/nowhere.png")]:
        code, out, err = run(name, *arguments)
        expect(f"{name} fails in one line", code == 1 and out == "" and err.startswith(name + ": ") and err.count("\n") == 1
               and all(word in err for word in words), code, out, err)
    with open("/dev/full", "w") as full:
        done = subprocess.run([programs["stream"], model, shapes, "caption en"], stdout=full, stderr=subprocess.PIPE, timeout=1200)
        expect("stream sees that its output is lost", done.returncode == 1, done)


def main():
    check, root, *rest = sys.argv[1:]
    if check == "run":
        run_all(root, dict(zip(rest[::2], rest[1::2])))
    elif check == "page":
        at = len(rest) - 1 - rest[::-1].index("--")
        page(root, rest[1:at], rest[at + 1:])
    else:
        write(root)
    print(f"{tool_checks.failures} failed")
    return 1 if tool_checks.failures else 0


if __name__ == "__main__":
    sys.exit(main())
