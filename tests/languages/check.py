#!/usr/bin/env python3
# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""The library from other languages. Each check is one meson test:

    check.py warnings ROOT         paligemma.hpp and its tests compile without a warning: g++ and clang++, C++17 and C++20,
                                   with and without exceptions and RTTI
    check.py demo PROGRAM ROOT     a program streams the caption of the demo image, and fails with one line

Exit status 77, which Meson counts as skipped: there is no such compiler here.
"""
import os
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
SKIPPED = 77
CAPTION = "a red circle, a purple star and a yellow triangle\n"
WARNINGS = ["-Wall", "-Wextra", "-Werror", "-Wpedantic", "-Wconversion", "-Wshadow", "-fsyntax-only"]


def fails(name, *found):
    print(f"FAILED: {name}:", *found)
    return True


def warnings(root):
    include = [f"-I{os.path.join(root, folder)}" for folder in ("include", os.path.join("tests", "languages"))]
    throwing, returning = os.path.join(HERE, "test_cpp.cc"), os.path.join(HERE, "cpp_returning.cc")
    builds = [["-std=c++17", throwing], ["-std=c++20", "-fno-rtti", throwing], ["-std=c++17", "-fno-exceptions", "-fno-rtti", returning],
              ["-std=c++20", "-fno-exceptions", returning], ["-std=c++17", "-DPALIGEMMA_NO_EXCEPTIONS", returning]]
    compilers = [c for c in map(shutil.which, ("g++", "clang++")) if c]
    failed, n = False, 0
    for compiler in compilers:
        for build in builds:
            done = subprocess.run([compiler, *WARNINGS, *include, *build], capture_output=True, text=True)
            failed |= done.returncode != 0 and fails(" ".join([compiler, *build]), done.stderr)
            n += 1
        with tempfile.NamedTemporaryFile("w", suffix=".cc") as f:  # it would be seen
            f.write("#include <paligemma/paligemma.hpp>\nint narrowed(const paligemma::tensor &t) { return t.size(); }\n")
            f.flush()
            done = subprocess.run([compiler, *WARNINGS, *include, "-std=c++17", f.name], capture_output=True, text=True)
            failed |= "conversion" not in done.stderr and fails("a narrowing passes", compiler, done.stderr)
    print(f"{n} compilations")
    return SKIPPED if not compilers else failed


def demo(command, root, environment=None):
    """True: it does not do what it should."""
    model, image = (os.path.join(root, "examples", "demo", *path) for path in (("model",), ("images", "shapes.png")))

    def run(*arguments):
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=120, env={**os.environ, **(environment or {})})
        return done.returncode, done.stdout, done.stderr

    failed = False
    found = run(model, image)
    failed |= found != (0, CAPTION, "") and fails("the caption", found)
    found = run(model, image, "answer en what color is the star?")
    failed |= found != (0, "purple\n", "") and fails("an answer", found)
    for arguments, words in [((), "usage: "), ((model, "/nowhere.png"), "/nowhere.png"), (("/nowhere/at-all", image), "/nowhere/at-all")]:
        code, out, err = run(*arguments)
        failed |= (code != 1 or out != "" or words not in err or err.count("\n") != 1) and fails("an error of one line", arguments, code, out, err)
    return failed


def demo_program(program, root):
    failed = demo([program], root)
    model, image = os.path.join(root, "examples", "demo", "model"), os.path.join(root, "examples", "demo", "images", "shapes.png")
    with open("/dev/full", "w") as full:
        done = subprocess.run([program, model, image], stdout=full, stderr=subprocess.PIPE, timeout=60)
    return failed or done.returncode != 1 and fails("lost output is seen", done)


def main():
    check, *rest = sys.argv[1:]
    return int({"warnings": warnings, "demo": demo_program}[check](*rest))


if __name__ == "__main__":
    sys.exit(main())
