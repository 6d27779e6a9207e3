#!/usr/bin/env python3
# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""Many images and drawn pictures, on the demo model, whose answers are known.

    pictures.py TOOL SOURCE
"""
import json
import os
import pty
import re
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import zlib

TOOL, SOURCE = sys.argv[1:3]
sys.path.insert(0, os.path.join(SOURCE, "tests", "support"))
import signals
import tool_checks
from tool_checks import expect, left_out, shown_on

MODEL = os.path.join(SOURCE, "examples", "demo", "model")
IMAGES = os.path.join(SOURCE, "examples", "demo", "images")
SHAPES, STRIPES, PLAIN = (os.path.join(IMAGES, n) for n in ("shapes.png", "stripes.jpg", "plain.png"))
SHORT = "TEST_SHORT" in os.environ  # a build whose instructions are slow


def run(*arguments, stdin=b"", cwd=None):
    done = subprocess.run([TOOL, *arguments], input=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=1200, cwd=cwd)
    return done.returncode, done.stdout.decode(errors="surrogateescape"), done.stderr.decode(errors="surrogateescape")


def read_png(path):
    """8-bit grey, RGB or RGBA, not interlaced: width, height, rows of pixels as tuples (RGB)."""
    with open(path, "rb") as f:
        data = f.read()
    at, packed = 8, b""
    while at < len(data):
        size, = struct.unpack(">I", data[at:at + 4])
        kind, body = data[at + 4:at + 8], data[at + 8:at + 8 + size]
        if kind == b"IHDR":
            width, height, depth, color = struct.unpack(">IIBB", body[:10])
        if kind == b"IDAT":
            packed += body
        at += 12 + size
    n = {0: 1, 2: 3, 6: 4}[color]
    raw, rows, before = zlib.decompress(packed), [], bytearray(width * n)
    for y in range(height):
        kind, line = raw[y * (width * n + 1)], bytearray(raw[y * (width * n + 1) + 1:(y + 1) * (width * n + 1)])
        for i in range(width * n):
            a, b, c = (line[i - n] if i >= n else 0), before[i], (before[i - n] if i >= n else 0)
            p = a + b - c
            paeth = min((a, b, c), key=lambda v: abs(p - v))
            line[i] = (line[i] + (0, a, b, (a + b) // 2, paeth)[kind]) & 255
        rows.append([tuple(line[x * n:x * n + 3]) if n >= 3 else (line[x],) * 3 for x in range(width)])
        before = line
    return width, height, rows


def lines_of(path):
    with open(path) as f:
        return [json.loads(line) for line in f]


def drawn(temporary):
    out = os.path.join(temporary, "out.png")
    code, table, err = run("detect", MODEL, SHAPES, "red circle ; yellow triangle", "--draw", out)
    expect("--draw", code == 0 and err == "" and table == run("detect", MODEL, SHAPES, "red circle ; yellow triangle")[1], code, err)
    width, height, rows = read_png(out)
    _, _, before = read_png(SHAPES)
    changed = [(x, y) for y in range(height) for x in range(width) if rows[y][x] != before[y][x]]
    expect("the picture has the image's size", (width, height) == (336, 336), width, height)
    expect("lines at the edges of the box", rows[119][50] != before[119][50] and rows[70][95] != before[70][95])
    expect("the rest is the image", rows[300][300] == before[300][300] and rows[70][50] == before[70][50]
           and 500 < len(changed) < 20000, len(changed))
    expect("two things have two colors", rows[119][50] != rows[131][250], rows[119][50], rows[131][250])
    run("detect", MODEL, SHAPES, "red circle", "-n", "1", "--draw", out)
    expect("no box, no change", read_png(out)[2] == before)
    with open(SHAPES, "rb") as f:
        content = f.read()
    first = os.path.join(temporary, "first.png")
    run("detect", MODEL, SHAPES, "red circle", "--draw", first)
    expect("an image of stdin", run("detect", MODEL, "-", "red circle", "--draw", out, stdin=content)[0] == 0
           and read_png(out) == read_png(first))
    fifo = os.path.join(temporary, "fifo")
    os.mkfifo(fifo)
    process = subprocess.Popen([TOOL, "detect", MODEL, fifo, "red circle", "--draw", out], stdout=subprocess.PIPE)
    with open(fifo, "wb") as f:
        f.write(content)
    expect("an image of a pipe, which can be read once", b"red circle" in process.communicate(timeout=1200)[0]
           and read_png(out) == read_png(first))
    os.remove(fifo)
    with open(STRIPES, "rb") as f:
        jpeg = f.read()
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    turned = os.path.join(temporary, "turned.jpg")
    with open(turned, "wb") as f:
        f.write(jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:])
    run("detect", MODEL, turned, "red circle", "-n", "1", "--draw", out)
    run("detect", MODEL, turned, "red circle", "-n", "1", "--no-exif", "--draw", first)
    expect("pictures are turned by EXIF", read_png(out)[2] == [list(r) for r in zip(*read_png(first)[2][::-1])])
    plain = json.loads(run("detect", MODEL, turned, "red circle", "--json")[1])
    expect("drawing changes no answer", json.loads(run("detect", MODEL, turned, "red circle", "--json", "--draw", out)[1]) == plain)
    same = os.path.join(temporary, "same.png")
    shutil.copy(SHAPES, same)
    code, _, err = run("detect", MODEL, same, "red circle", "--draw", same)
    expect("the image is not written over", code == 1 and "over its image" in err and contents(same) == contents(SHAPES), code, err)
    code, _, err = run("detect", MODEL, SHAPES, "red circle", "--draw", "/nowhere/out.png")
    expect("a folder that is not there", code == 1 and "/nowhere/out.png" in err and err.count("\n") == 1, code, err)
    for arguments, status, word in [(("out.jpg",), 2, ".png"), (("/nowhere/x/",), 1, "/nowhere/x"), ((SHAPES + "/",), 1, "shapes.png/")]:
        code, _, err = run("detect", MODEL, PLAIN, "red circle", "--draw", *arguments)
        expect(f"--draw {arguments}", code == status and word in err and err.count("\n") == 1, code, err)
    code, _, err = run("detect", MODEL, PLAIN, SHAPES, "red circle", "--draw", same)
    expect("and no file is made one", run("detect", MODEL, PLAIN, SHAPES, "red circle", "--draw", os.path.join(temporary, "x.png"))[0] == 2)
    expect("several images need a folder", code == 2 and "folder" in err and contents(same) == contents(SHAPES), code, err)
    run("detect", MODEL, SHAPES, "red circle", "--draw", os.path.join(temporary, "new") + "/")
    expect("a folder by its slash", os.listdir(os.path.join(temporary, "new")) == ["shapes.png"])
    if os.path.exists("/dev/full"):
        code, _, err = run("detect", MODEL, SHAPES, "red circle", "--draw", "/dev/full")
        expect("a full disk", code == 1 and "/dev/full" in err and err.count("\n") == 1, code, err)
    expect("nothing half made stays", not [n for n in os.listdir(temporary) if n.endswith(".partial")])


def of_the_readme(temporary):
    """README's picture is what its command draws; a demo model that was trained anew may move a line or a digit."""
    with open(os.path.join(SOURCE, "README.md")) as f:
        image, things, shown = re.search(r'`paligemma segment examples/demo/model (\S+) "([^"]*)" --draw (\S+)`', f.read()).groups()
    out, shown = os.path.join(temporary, "readme.png"), os.path.join(SOURCE, shown)
    run("segment", MODEL, os.path.join(SOURCE, image), things, "--draw", out)
    (w, h, rows), again = read_png(shown), read_png(out)
    differ = sum(a != b for line, other in zip(rows, again[2]) for a, b in zip(line, other))
    expect("README's picture: run the command that stands below it", (w, h) == again[:2] and differ < w * h // 30, differ, w * h)
    expect("README's picture is small", os.path.getsize(shown) < 60000, os.path.getsize(shown))


def contents(path):
    with open(path, "rb") as f:
        return f.read()


def make_folder(temporary):
    """b.jpg a.png notes.txt picture(a JPEG) .hidden.png sub/c.PNG sub/back -> .. sub/bad.png sub/pipe"""
    folder = os.path.join(temporary, "photos")
    os.makedirs(os.path.join(folder, "sub"))
    for source, name in [(SHAPES, "a.png"), (STRIPES, "b.jpg"), (STRIPES, "picture"), (SHAPES, ".hidden.png"), (PLAIN, "sub/c.PNG")]:
        shutil.copy(source, os.path.join(folder, name))
    for name in ["notes.txt", "sub/bad.png"]:
        with open(os.path.join(folder, name), "w") as f:
            f.write("no image")
    os.symlink("..", os.path.join(folder, "sub", "back"))
    os.symlink("nowhere", os.path.join(folder, "gone"))
    os.mkfifo(os.path.join(folder, "sub", "pipe"))
    return folder, [os.path.join(folder, n) for n in ("a.png", "b.jpg", "picture", "sub/bad.png", "sub/c.PNG")]


def folders(temporary):
    folder, names = make_folder(temporary)
    for verb in ("detect", "run"):
        prompt = "red circle" if verb == "detect" else "caption en"
        code, out, err = run(verb, MODEL, folder, prompt, "--json")
        lines = [json.loads(line) for line in out.splitlines()]
        expect(f"{verb}: a folder, sorted", code == 1 and [line["image"] for line in lines] == names, code, out, err)
        expect(f"{verb}: one bad image", [set(line) for line in lines if "error" in line] == [{"image", "error"}]
               and "1 of 5 images failed" in err and "1 files that are no PNG or JPEG" in err, out, err)
        for line in lines:
            if "error" not in line:
                alone = json.loads(run(verb, MODEL, line["image"], prompt, "--json")[1])
                expect(f"{verb}: as alone", line["text"] == alone["text"] and line.get("objects") == alone.get("objects"), line, alone)
    code, out, err = run("run", MODEL, SHAPES, PLAIN, "caption en")
    expect("lines of text", code == 0 and [line.split(": ")[0] for line in out.splitlines()] == [SHAPES, PLAIN], out, err)
    expect("one of a folder has its name, too", run("run", MODEL, os.path.join(folder, "sub", "back", "sub"), "caption en")[1]
           .startswith(os.path.join(folder, "sub", "back", "sub", "back", "a.png")))
    empty = os.path.join(temporary, "empty")
    os.mkdir(empty)
    code, out, err = run("detect", MODEL, empty, "red circle")
    expect("an empty folder", code == 1 and empty in err and "no PNG or JPEG" in err, code, err)
    code, out, err = run("run", MODEL, SHAPES, "answer", "en", "what is this?")
    expect("a prompt without quotes", code == 2 and "'answer'" in err and "quote" in err, code, err)
    pictures = os.path.join(temporary, "drawn")
    code, out, err = run("detect", MODEL, folder, SHAPES, "red circle", "--draw", pictures)
    made = sorted(os.path.relpath(os.path.join(at, n), pictures) for at, _, files in os.walk(pictures) for n in files)
    expect("a folder of pictures", code == 1 and made == ["a.png", "b.jpg.png", "picture.png", "shapes.png", "sub/c.png"], code, made, err)
    run("detect", MODEL, SHAPES, SHAPES, "red circle", "--draw", pictures)
    expect("no picture replaces another", os.path.exists(os.path.join(pictures, "shapes-2.png")))
    inside = os.path.join(folder, "drawn")
    for _ in range(2):
        code, out, err = run("detect", MODEL, folder, "red circle", "--draw", inside, "--json")
        expect("pictures in the folder are no images", len(out.splitlines()) == 5, out, err)
    code, out, err = run("detect", MODEL, folder, "red circle", "--draw", folder)
    expect("the folder itself is refused", code == 2 and "--draw" in err, code, err)
    shutil.rmtree(inside)
    return folder, names


def lists(temporary, names):
    text = "\n".join(names) + "\n"
    expected = run("detect", MODEL, *names, "red circle", "--json")
    expect("a list of stdin", run("detect", MODEL, "red circle", "--images-from", "-", "--json", stdin=text.encode()) == expected)
    expect("separated by NUL", run("detect", MODEL, "red circle", "--images-from", "-", "--json",
                                   stdin="\0".join(names).encode()) == expected)
    name = os.path.join(temporary, "list")
    with open(name, "w") as f:
        f.write("\n".join(names[1:]).replace("\n", "\r\n"))
    expect("a list of a file, after arguments", run("detect", MODEL, names[0], "red circle", "--images-from", name, "--json") == expected)
    for arguments, word in [(("--images-from", "/nowhere"), "/nowhere"), (("--images-from", os.devnull), "no images")]:
        code, out, err = run("detect", MODEL, "red circle", *arguments)
        expect(f"{arguments}", code == 1 and word in err and err.count("\n") == 1, code, err)


def resumes(temporary, folder, names):
    out = os.path.join(temporary, "out.jsonl")
    code, text, err = run("detect", MODEL, folder, "red circle", "--output", out)
    whole = contents(out)
    expect("--output", code == 1 and text == "" and whole.decode() == run("detect", MODEL, folder, "red circle", "--json")[1], code, text)
    expect("it is written anew", run("detect", MODEL, folder, "red circle", "-o", out)[0] == 1 and contents(out) == whole)
    ends = [i + 1 for i, c in enumerate(whole) if c == 10]
    for cut in [0, 1, ends[0] - 1, ends[0], ends[0] + 1, ends[1] - 2, ends[2] + 20, ends[3] - 1, len(whole) - 1, len(whole)]:
        with open(out, "wb") as f:
            f.write(whole[:cut])
        code, text, err = run("detect", MODEL, folder, "red circle", "--output", out, "--skip-existing")
        expect(f"resumed after {cut} bytes", contents(out) == whole and text == ""
               and ("broken off" in err) == (cut not in ends and cut + 1 not in ends and cut > 0), contents(out)[-200:], err)
    expect("nothing left to do", run("detect", MODEL, folder, "red circle", "--output", out, "--skip-existing")[0] == 0)
    for strange in [b"my notes", b"{}\n", b'{"image":7}\n', b"\n", whole + b"\0\n"]:
        with open(out, "wb") as f:
            f.write(strange)
        code, text, err = run("detect", MODEL, folder, "red circle", "--output", out, "--skip-existing")
        expect(f"another file is left alone: {strange[-9:]}", code == 1 and contents(out) == strange and out in err, code, err)
    pictures = os.path.join(temporary, "more")
    run("detect", MODEL, folder, "red circle", "--draw", pictures)
    os.remove(os.path.join(pictures, "b.jpg.png"))
    code, text, err = run("detect", MODEL, folder, "red circle", "--draw", pictures, "--skip-existing", "--json")
    expect("by the pictures", [json.loads(line)["image"] for line in text.splitlines()] == [names[1], names[3]], text, err)
    for arguments in [("--skip-existing",), ("--output", out, "--csv")]:
        code, text, err = run("detect", MODEL, SHAPES, "red circle", *arguments)
        expect(f"usage: {arguments}", code == 2 and arguments[0] in err, code, err)
    code, text, err = run("detect", MODEL, SHAPES, "red circle", "--output", "/nowhere/x")
    expect("no such folder", code == 1 and "/nowhere/x" in err and text == "", code, err)
    if os.path.exists("/dev/full"):
        code, text, err = run("detect", MODEL, SHAPES, PLAIN, "red circle", "--output", "/dev/full")
        expect("a full disk ends it", code == 1 and err.count("\n") == 1 and "/dev/full" in err, code, err)


def resumes_others(temporary, folder):
    """run and score share it with detect."""
    for verb, rest in [("run", ["caption en"]), ("score", ["answer en what color is the star?", "red", "purple"])]:
        out = os.path.join(temporary, f"{verb}.jsonl")
        run(verb, MODEL, folder, *rest, "--output", out)
        whole, lines = contents(out), lines_of(out)
        expect(f"{verb} of a folder", [sorted(line)[0] for line in lines].count("error") == 1 and len(lines) == 5, lines)
        with open(out, "wb") as f:
            f.write(whole[:whole.index(b"\n") + 30])
        code, text, err = run(verb, MODEL, folder, *rest, "--output", out, "--skip-existing")
        again = lines_of(out)
        expect(f"{verb} goes on", code == 1 and text == "" and [line["image"] for line in again] == [line["image"] for line in lines]
               and [line.get("text", line.get("scores")) for line in again] == [line.get("text", line.get("scores")) for line in lines],
               again, err)


def odd_names(temporary):
    folder = os.path.join(temporary, "odd").encode()
    os.mkdir(folder)
    names = [b"a\xff.png", b"b\xc3\xa9.png", b"c\n.png", b"d \"q\".png", b"e\x1b[31m.png"]
    for name in names:
        shutil.copy(SHAPES, os.path.join(folder, name))
    code, out, err = run("detect", MODEL, folder, "red circle", "--json")
    lines = [json.loads(line) for line in out.splitlines()]
    expect("names that are no text", code == 0 and len(lines) == 5 and lines[0]["image"].endswith("/a\ufffd.png")
           and bytes.fromhex(lines[0]["image_bytes"]) == os.path.join(folder, names[0])
           and all("image_bytes" not in line for line in lines[1:])
           and [line["image"].encode() for line in lines[1:]] == [os.path.join(folder, n) for n in names[1:]], code, out, err)
    out = os.path.join(temporary, "odd.jsonl")
    run("detect", MODEL, folder, "red circle", "--output", out, "--draw", os.path.join(temporary, "odd drawn"))
    expect("their pictures", sorted(os.listdir(os.path.join(temporary, "odd drawn").encode())) == names)
    with open(out, "rb") as f:
        whole = f.readlines()
    with open(out, "wb") as f:
        f.writelines(whole[:1])
    run("detect", MODEL, folder, "red circle", "--output", out, "--skip-existing")
    expect("they are known again", contents(out) == b"".join(whole))


def many(temporary):
    """As many as a person would leave alone with it: Ctrl-C, going on, memory, the bar."""
    folder = os.path.join(temporary, "many")
    os.mkdir(folder)
    n = 60 if SHORT else 300
    for i in range(n):
        os.link(os.path.join(temporary, "same.png"), os.path.join(folder, f"{i:03}.png"))
    out = os.path.join(temporary, "many.jsonl")
    process = subprocess.Popen([TOOL, "detect", MODEL, folder, "red circle", "--output", out], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE)
    while not os.path.exists(out) or not os.path.getsize(out):
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    err = process.communicate(timeout=1200)[1].decode()
    lines = lines_of(out)
    expect("Ctrl-C", process.returncode == -signal.SIGINT and 0 < len(lines) < n and all("objects" in line for line in lines)
           and f"{len(lines)} of {n} images are done" in err and "--skip-existing" in err and err.count("\n") == 1,
           process.returncode, len(lines), err)
    master, slave = pty.openpty()
    process = subprocess.Popen([TOOL, "detect", MODEL, folder, "red circle", "--output", out, "--skip-existing"], stderr=slave,
                               stdout=subprocess.PIPE, env={**os.environ, "TERM": "xterm"})
    os.close(slave)
    shown = shown_on(master)
    os.close(master)
    code = process.wait(60)
    expect("it goes on", code == 0 and sorted(line["image"] for line in lines_of(out)) ==
           [os.path.join(folder, f"{i:03}.png") for i in range(n)], code)
    rest = f"{n - len(lines)}"
    expect("a bar", f"{rest}/{rest} images".encode() in shown and b"\r[" in shown and b" left" in shown
           and b"were there already" in shown, shown[-300:])
    expect("no bar without a terminal", run("detect", MODEL, folder, "red circle", "-n", "1", "--images-from", os.devnull)[2] == "")

    def peak(n):
        no_quarantine = ":".join([os.environ.get("ASAN_OPTIONS", ""), "quarantine_size_mb=0:thread_local_quarantine_size_kb=0"])
        process = subprocess.Popen([TOOL, "detect", MODEL, *[SHAPES] * n, "red circle", "-n", "1"], stdout=subprocess.DEVNULL,
                                   env={**os.environ, "ASAN_OPTIONS": no_quarantine.lstrip(":")})
        return os.wait4(process.pid, 0)[2].ru_maxrss
    if not left_out("memory_does_not_grow"):
        few, more = peak(5), peak(100 if SHORT else 500)
        expect("memory does not grow", more < few + 4096, few, more)


def attention(temporary):
    """run --attention: over the object that is asked for, and nothing else of the answer changes."""
    out, other = os.path.join(temporary, "attention.png"), os.path.join(temporary, "other.png")

    def heat(things):
        """The middle of the yellow part, of a picture of the image's size."""
        code, text, err = run("run", MODEL, SHAPES, "detect " + things, "--attention", out)
        expect(f"--attention, {things}", (code, err) == (0, "") and text == run("run", MODEL, SHAPES, "detect " + things)[1], code, err)
        width, height, rows = read_png(out)
        expect("it has the image's size", (width, height) == read_png(SHAPES)[:2], width, height)
        hot = [(x, y) for y in range(height) for x in range(width) if rows[y][x][0] > rows[y][x][2] + 60]
        locs = [int(n) for n in re.findall(r"<loc(\d+)>", text)[:4]]
        x, y = (sum(p[i] for p in hot) / max(len(hot), 1) for i in (0, 1))
        return hot and (locs[1] - 60 < x * 1024 / width < locs[3] + 60) and (locs[0] - 60 < y * 1024 / height < locs[2] + 60)
    for things in ("red circle", "yellow triangle"):
        expect(f"the heat is on the {things}", heat(things))
    whole = read_png(out)
    pictures = []
    for layer in range(3):
        run("run", MODEL, SHAPES, "detect yellow triangle", "--attention", other, "--attention-layer", str(layer), "-t", "3")
        pictures.append(read_png(other))
    expect("layers differ", all(picture != whole for picture in pictures) and pictures[0] != pictures[1] != pictures[2])
    plain = json.loads(run("run", MODEL, SHAPES, "caption en", "--json")[1])
    asked = json.loads(run("run", MODEL, SHAPES, "caption en", "--json", "--attention", out)[1])
    expect("the same answer", all(plain[name] == asked[name] for name in ("text", "ids", "prompt_ids", "stop")), asked)
    with open(SHAPES, "rb") as f:
        content = f.read()
    run("run", MODEL, SHAPES, "caption en", "--attention", other)
    code, _, err = run("run", MODEL, "-", "caption en", "-n", "50", "--attention", out, stdin=content)
    expect("stdin, and an answer of any length", code == 0 and read_png(out) == read_png(other), code, err)
    expect("one token is enough", run("run", MODEL, SHAPES, "caption en", "-n", "1", "--attention", out)[0] == 0)
    turned = os.path.join(temporary, "turned.jpg")  # of drawn()
    run("run", MODEL, turned, "caption en", "--attention", out)
    run("run", MODEL, turned, "caption en", "--attention", other, "--no-exif")
    expect("turned by EXIF", read_png(out)[:2] == read_png(other)[1::-1])
    folder = os.path.join(temporary, "attended") + "/"
    code, _, err = run("run", MODEL, SHAPES, PLAIN, "caption en", "--json", "--attention", folder)
    expect("a folder of them", code == 0 and len(os.listdir(folder)) == 2, code, err)
    for arguments, status, word in [(("--attention-layer", "3", "--attention", out), 1, "--attention-layer is 3, expected -1 (all) to 2"),
                                    (("--attention-layer", "1"), 2, "--attention-layer needs --attention"),
                                    (("--attention-layer", "-1", "--attention", out), 2, "--attention-layer"),
                                    (("--attention", "x.jpg"), 2, "--attention: found 'x.jpg'"),
                                    (("--attention", "/nowhere/x.png"), 1, "/nowhere/x.png"),
                                    (("--attention", ""), 1, "")]:
        code, _, err = run("run", MODEL, SHAPES, "caption en", *arguments)
        expect(f"{arguments}", code == status and word in err and err.count("\n") == 1, code, err)


def main():
    signals.restore()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with tempfile.TemporaryDirectory() as temporary:
        drawn(temporary)
        attention(temporary)
        of_the_readme(temporary)
        folder, names = folders(temporary)
        lists(temporary, names)
        resumes(temporary, folder, names)
        resumes_others(temporary, folder)
        odd_names(temporary)
        many(temporary)
    print(f"{tool_checks.failures} failed")
    return 1 if tool_checks.failures else 0


sys.exit(main())
