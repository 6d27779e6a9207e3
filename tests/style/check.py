#!/usr/bin/env python3
# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""How the sources look. Each check takes the folder of the sources, prints all offenders, and is one meson test:

    check.py spdx ROOT             every source has its line with the license and the copyright holder
    check.py openings ROOT         every C and C++ file of lib/ opens with a comment that says what it implements
    check.py length ROOT           no file of lib/ and examples/ is longer than it should be
    check.py format ROOT           clang-format 14 would change nothing (.clang-format)
    check.py version ROOT VERSION  the version number, VERSION for the build, stands in one file
    check.py pyproject ROOT        the two pyproject.toml tell the same of the Python package
    check.py doxygen ROOT DOXYFILE every public name has its comment, and Doxygen understands all of them

and one that takes a minute, so tests/run.sh alone runs it:

    check.py tidy ROOT BUILD       clang-tidy 14 finds nothing in lib/ and examples/ (.clang-tidy)

Exit status 77, which Meson counts as skipped: the program that a check needs is not installed.
"""
import concurrent.futures
import glob
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET

SKIPPED = 77
FOLDERS = ["docs", "examples", "include", "lib", "packaging", "pkgconfig", "python", "tests"]
C_SUFFIXES = (".c", ".cc", ".h", ".hpp", ".inc")
SLASHED = (".rs", ".cs")  # their comments begin with //
SUFFIXES = C_SUFFIXES + SLASHED + (".py", ".sh")
NAMES = ("meson.build", "meson_options.txt")
MARK = "Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0"
MAX_LINES = 650
# Files that may be longer, and why: path from the root: reason.
LONGER = {}


def sources(root):
    """Paths from the root, sorted. Builds and what Python leaves behind are not sources."""
    found = [name for name in NAMES if os.path.exists(os.path.join(root, name))]
    for folder in FOLDERS:
        for path, folders, names in os.walk(os.path.join(root, folder)):
            folders[:] = [f for f in folders if not f.startswith((".", "build", "__pycache__")) and not f.endswith(".egg-info")]
            found += [os.path.relpath(os.path.join(path, n), root) for n in names if n.endswith(SUFFIXES) or n in NAMES]
    return sorted(found)


def in_folders(root, *folders, suffixes):
    return [n for n in sources(root) if n.startswith(tuple(f + os.sep for f in folders)) and n.endswith(suffixes)]


def read(root, name):
    with open(os.path.join(root, name), encoding="utf-8") as f:
        return f.read()


def spdx_line(name):
    return f"/* {MARK} */" if name.endswith(C_SUFFIXES) else f"// {MARK}" if name.endswith(SLASHED) else f"# {MARK}"


def has_spdx_line(name, text):
    """It is the first line, or the second behind a shebang."""
    lines = text.split("\n", 2)
    return spdx_line(name) == lines[1 if text.startswith("#!") and len(lines) > 1 else 0]


def report(offenders, n_looked_at, at_least):
    for line in offenders:
        print(line)
    print(f"{n_looked_at} files, {len(offenders)} offenders")
    return bool(offenders) or n_looked_at < at_least


def spdx(root):
    names = sources(root)
    return report([f"{n}: does not begin with: {spdx_line(n)}" for n in names if not has_spdx_line(n, read(root, n))],
                  len(names), 200)


def opening(text):
    """The words of the comment that a C file begins with, besides the line of the license; "" when there is none."""
    text = re.sub(r"\A/\*[^\n]*SPDX-License-Identifier[^\n]*\n", "", text).lstrip()
    comment = re.match(r"/\*(.*?)\*/|((?://[^\n]*\n)+)", text, flags=re.S)
    return " ".join(re.findall(r"\w+", comment[1] or comment[2])) if comment else ""


def openings(root):
    names = in_folders(root, "lib", suffixes=(".c", ".cc"))
    return report([f"{n}: opens without a comment that says what it implements" for n in names if not opening(read(root, n))],
                  len(names), 60)


def length(root):
    names = in_folders(root, "lib", "examples", suffixes=SUFFIXES)
    lines = {n: read(root, n).count("\n") for n in names}
    offenders = [f"{n}: {lines[n]} lines, more than {MAX_LINES}" for n in names if lines[n] > MAX_LINES and n not in LONGER]
    offenders += [f"{n}: needs no exception any more" for n in LONGER if lines.get(n, 0) <= MAX_LINES]
    return report(offenders, len(names), 100)


def llvm_14(name):
    """The program of this name of LLVM 14, whose findings and layout other versions do not share; None: not there."""
    for program in (name + "-14", name):
        path = shutil.which(program)
        if path and re.search(r"version 14\.", subprocess.run([path, "--version"], capture_output=True, text=True).stdout):
            return path
    print(f"{name} 14 is not installed (Debian 12: {name})")
    return None


def format(root):
    program = llvm_14("clang-format")
    if not program:
        return SKIPPED
    names = in_folders(root, "lib", "include", "examples", "tests", suffixes=C_SUFFIXES)
    found = subprocess.run([program, "--dry-run", *names], cwd=root, capture_output=True, text=True)
    places = {}
    for place in re.findall(r"^(\S+:\d+):\d+: warning: code should be clang-formatted", found.stderr, flags=re.M):
        name, line = place.rsplit(":", 1)
        places.setdefault(name, []).append(line)
    offenders = [f"{n}: lines {', '.join(dict.fromkeys(at))}" for n, at in sorted(places.items())]
    if offenders:
        print(f"to do it: {os.path.basename(program)} -i FILE")
    if found.returncode:
        print(found.stderr)
    return report(offenders, len(names), 200) or found.returncode != 0


def tidy(root, build):
    program = llvm_14("clang-tidy")
    if not program:
        return SKIPPED
    with open(os.path.join(build, "compile_commands.json")) as f:
        compiled = {os.path.realpath(os.path.join(entry["directory"], entry["file"])) for entry in json.load(f)}
    names = [n for n in in_folders(root, "lib", "examples", suffixes=(".c", ".cc"))
             if os.path.realpath(os.path.join(root, n)) in compiled]

    # Of each function the analyzer looks at so many states at the most: a quarter of its default, in two fifths of the time.
    limit = [f"--extra-arg={word}" for word in ("-Xclang", "-analyzer-config", "-Xclang", "max-nodes=50000")]

    def look(name):
        done = subprocess.run([program, "-p", build, "--quiet", *limit, os.path.join(root, name)], capture_output=True,
                              text=True)
        return name, done.returncode, done.stdout.strip()

    with concurrent.futures.ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        found = list(pool.map(look, names))
    return report([f"{name}:\n{text}" for name, status, text in found if status or "warning:" in text], len(names), 60)


def version(root, built):
    number = read(root, os.path.join("python", "paligemma", "VERSION"))
    offenders = []
    if number != built + "\n" or not re.fullmatch(r"\d+\.\d+\.\d+\n", number):
        offenders.append(f"python/paligemma/VERSION: {number!r}, and the build has {built!r}")
    names = [n for n in sources(root) if n.startswith(("lib", "python/paligemma")) or n.endswith("meson.build")]
    names += ["docs/paligemma.1", "python/pyproject.toml", "pyproject.toml"]
    offenders += [f"{n}: the version number stands here, too" for n in names if f"{built}\"" in read(root, n).replace("'", '"')]
    heads = re.findall(r"^## \[(.*?)\]", read(root, "CHANGELOG.md"), flags=re.M)
    if not heads or heads[0] not in ("Unreleased", built):
        offenders.append(f"CHANGELOG.md: its newest part is for {heads[:1]}, neither Unreleased nor {built}")
    return report(offenders, len(names), 100)


def pyproject(root):
    try:
        import tomllib
    except ImportError:  # Python 3.11
        print("this Python has no tomllib")
        return SKIPPED
    wheel, alone = (tomllib.loads(read(root, name))["project"] for name in ("pyproject.toml", "python/pyproject.toml"))
    # Of the wheel alone: the command, whose tool lies inside, and the forms of these that an older setuptools cannot read.
    own = {"readme", "license", "license-files", "scripts"}
    offenders = [f"pyproject.toml, python/pyproject.toml: [project] {key}: {wheel.get(key)!r}, {alone.get(key)!r}"
                 for key in sorted((wheel.keys() | alone.keys()) - own) if wheel.get(key) != alone.get(key)]
    return report(offenders, 2, 2)


def uncommented(folder):
    """The names in Doxygen's XML that have no comment."""
    found = set()
    for path in glob.glob(os.path.join(folder, "*_8h.xml")) + glob.glob(os.path.join(folder, "struct*.xml")):
        for element in ET.parse(path).getroot().iter():
            name = element.findtext("compoundname" if element.tag == "compounddef" else "name")
            if element.tag in ("compounddef", "memberdef", "enumvalue") and not any(
                    "".join(part.itertext()).strip() for part in element if part.tag in ("briefdescription", "detaileddescription")):
                found.add(f"warning: {name or 'an enum without a name'} has no comment")
    return sorted(found)


def doxygen(root, doxyfile):
    program = shutil.which("doxygen")
    if not program:
        print("doxygen is not installed")
        return SKIPPED
    with open(doxyfile, encoding="utf-8") as f:
        settings = f.read()
    headers = os.path.join(root, "include", "paligemma")

    def warnings(name, *more):
        with tempfile.TemporaryDirectory() as out:
            added = "".join(f"{line}\n" for line in [f'OUTPUT_DIRECTORY = "{out}"', "GENERATE_XML = YES", *more])
            done = subprocess.run([program, "-"], input=settings + added, capture_output=True, text=True)
            lines = [line for line in done.stderr.splitlines() if "warning:" in line or "error:" in line]
            lines += uncommented(os.path.join(out, "xml"))  # Doxygen 1.9 says nothing of enumerators
        return lines or [f"{name}: exit status {done.returncode}"] * (done.returncode != 0)

    offenders = warnings("doxygen")
    # It must see what it is there for: a function, a field and a constant without a comment, and a broken comment.
    text = read(root, os.path.join("include", "paligemma", "paligemma.h"))
    for name, found, instead in [
            ("pg_status_name", r"/\*\* The name of a status.*?\*/\n", ""),
            ("shape", r"(int64_t shape\[4\];) *///< the first[^\n]*", r"\1"),
            ("PG_ERROR_STATE", r"(PG_ERROR_STATE = -80,) *///<[^\n]*", r"\1"),
            ("nobody", r"The name of a status", "@ref nobody, the name of a status")]:
        with tempfile.TemporaryDirectory() as folder:
            copy = os.path.join(folder, "paligemma.h")
            seeded, n = re.subn(found, instead, text, flags=re.S)
            with open(copy, "w", encoding="utf-8") as f:
                f.write(seeded)
            seen = warnings(name, f'INPUT = "{copy}" "{headers}/version.h"')
        if n != 1 or not any(name in line for line in seen):
            offenders.append(f"a header with a fault in {name} ({n} seeded) passes, or for another reason does not: {seen}")
    return report(offenders, 2, 2)


def main():
    check, root, *rest = sys.argv[1:]
    return int({"spdx": spdx, "openings": openings, "length": length, "format": format, "version": version,
                "pyproject": pyproject, "doxygen": doxygen, "tidy": tidy}[check](os.path.abspath(root), *rest))


if __name__ == "__main__":
    sys.exit(main())
