#!/usr/bin/env python3
# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""Tests the gate itself: edits a copy of the public headers and looks what api.py says of it.

    seeded.py PROGRAM SEEDED_PROGRAM FOLDER COMPILER...

An edit is a pattern and what takes its place, applied to the first place of the headers that fits (comments taken out),
whatever is declared there. A pattern that fits nowhere is a failure: choose another.
"""
import os
import re
import subprocess
import sys
import tempfile

import api

FUNCTION = r"(?<=\n)PG_API (?!pg_status \w+_init\()"  # an _init of another form is refused before anything is compared
POINTER = r"(?:const )?\w+ \*"
# what is edited, the pattern, its replacement, how the gate must take it
EDITS = [
    ("a parameter's type", rf"({FUNCTION}[^;]*)\bint64_t \*", r"\1int32_t *", api.BREAK),
    ("a parameter by value", rf"({FUNCTION}[^;]*[(,]\s*)int32_t (\w+)(?=[,)])", r"\1int64_t \2", api.BREAK),
    ("a parameter's const", rf"({FUNCTION}[^;]*\()const (\w+ \*)", r"\1\2", api.BREAK),
    ("one parameter more", rf"({FUNCTION}pg_status \w+\([^;()]+)\)", r"\1, int32_t more)", api.BREAK),
    ("one parameter less", rf"({FUNCTION}pg_status \w+\([^;()]+), [^;(),]+\)", r"\1)", api.BREAK),
    ("parameters of two types swapped", rf"({FUNCTION}\w+ \w+\()({POINTER}\w+), (\w+ \w+)(?=[,)])", r"\1\3, \2", api.BREAK),
    ("parameters of one type swapped", rf"({FUNCTION}[^;]*[(,]\s*)((?:const )?\w+ \**)(\w+),\s*\2(\w+)(?=[,)])",
     r"\1\2\4, \2\3", api.BREAK),
    ("a return type", rf"({FUNCTION})int64_t ", r"\1int32_t ", api.BREAK),
    ("a return type that was void", rf"({FUNCTION})void ", r"\1pg_status ", api.BREAK),
    ("a function removed", rf"{FUNCTION}[^;]*;", "", api.BREAK),
    ("a function renamed", rf"({FUNCTION}pg_status pg_\w+)\(", r"\1_2(", api.BREAK),
    ("a callback's parameter", r"(typedef \w+ \(\*\w+\)\([^;]*)\bint64_t ", r"\1int32_t ", api.BREAK),
    ("a callback's return type", r"typedef int32_t (\(\*\w+\)\()", r"typedef void \1", api.BREAK),
    ("a callback in a struct reordered", r"(\n    [\w *]+\(\*\w+\)\()([^,;]+), ([^;]+)\);", r"\1\3, \2);", api.BREAK),
    ("a callback in a struct, parameters of one type swapped", r"(\(\*\w+\)\([^;]*, )(\w+) (\w+), \2 (\w+)\);",
     r"\1\2 \4, \2 \3);", api.BREAK),
    ("a typedef", r"typedef int32_t pg_status;", "typedef int64_t pg_status;", api.BREAK),
    ("a field, int32_t to uint32_t", r"(\{[^}]*;\s*)int32_t (\w+;)", r"\1uint32_t \2", api.BREAK),
    ("a field, double to uint64_t", r"(\{[^}]*;\s*)double (\w+;)", r"\1uint64_t \2", api.BREAK),
    ("a field, float array to int32_t", r"(\{[^}]*;\s*)float (\w+\[)", r"\1int32_t \2", api.BREAK),
    ("an array's length", r"(\{[^}]*;\s*\w+ \w+)\[(\d+)\]", r"\1[8]", api.BREAK),
    ("a pointer's target", r"(\{[^}]*;\s*)const char (\*\w+;)", r"\1const void \2", api.BREAK),
    ("two fields of one size swapped", r"(\{[^}]*;\s*)(int32_t \w+;)(\s*)(int32_t \w+;)", r"\1\4\3\2", api.BREAK),
    ("a field removed", r"(\{[^}]*;)\s*int32_t \w+;(\s*int32_t \w+;)", r"\1\2", api.BREAK),
    ("the last field removed", r"(\{[^}]*;)\s*\w+ \*?\w+;(\s*\} pg_\w+;)", r"\1\2", api.BREAK),
    ("a field renamed", r"(\{[^}]*;\s*int32_t \w+);", r"\1_2;", api.BREAK),
    ("a field in the middle", r"(\{\s*uint32_t struct_size;)(\s*uint32_t reserved;)", r"\1 uint64_t more;\2", api.BREAK),
    ("an enum's value", r"(\bPG_\w+ = )(-?[1-9]\d*)", r"\g<1>1000", api.BREAK),
    ("an enum's constant removed", r"\bPG_\w+ = -?\d+,", "", api.BREAK),
    ("a macro's value", r"(#define PG_\w+ \(UINT64_C\(1\) << )\d+", r"\g<1>40", api.BREAK),
    ("a macro's type", r"(#define PG_\w+ )\(UINT64_C\(1\) << (\d+)\)", r"\1(1 << \2)", api.BREAK),
    ("a macro removed", r"#define PG_\w+ \(UINT64_C\(1\) << \d+\)", "", api.BREAK),
    ("a macro with arguments", r"(#define PG_API_COMPATIBLE\(version\).*?)>>", r"\1<<", api.BREAK),
    ("a new function", rf"(?={FUNCTION}pg_status \w+\()", "PG_API pg_status pg_added(int32_t number);\n", api.ADDED),
    ("a new handle", rf"(?={FUNCTION}\w+ \w+\()", "typedef struct pg_added pg_added;\n", api.ADDED),
    ("a new constant", r"(enum \{\s*)(?=PG_)", r"\1PG_ADDED = 77, ", api.ADDED),
    ("a new macro", rf"(?={FUNCTION}\w+ \w+\()", "#define PG_ADDED 77\n", api.ADDED),
    ("a new field at the end of options", r"(?=\} pg_\w+_options;)", "uint64_t added; ", api.ADDED),
    ("a parameter renamed", rf"({FUNCTION}\w+ \w+\({POINTER}\w+)(?=[,)])", r"\1_2", api.RENAMED),
    ("spaces and another order of const", rf"({FUNCTION}\w+ \w+\()const (\w+) \*", r"\1 \2  const* ", None),
]


def without_comments(text):
    return re.sub(r"[ \t]*(?:/\*.*?\*/|//[^\n]*)", "", text, flags=re.S)


def edited(headers, pattern, replacement):
    """The headers with the first place that fits edited, or None."""
    for name, text in headers.items():
        new = re.sub(pattern, replacement, text, count=1, flags=re.S if "PG_API_COMPATIBLE" in pattern else 0)
        if new != text:
            return {**headers, name: new}
    return None


def read(headers, work, compiler):
    """The API of a copy of the headers; without defaults, as there is no library of them."""
    folder = os.path.join(work, "paligemma")
    os.makedirs(folder, exist_ok=True)
    for name, text in headers.items():
        with open(os.path.join(folder, name), "w") as f:
            f.write(text)
    source, program = os.path.join(work, "program.c"), os.path.join(work, "program")
    with open(source, "w") as f:
        f.write(api.program(api.parse(work, compiler)))
    built = subprocess.run([*compiler, "-std=c11", "-O0", "-I", work, source, "-o", program], capture_output=True, text=True)
    if built.returncode:
        raise api.Unreadable(f"the edited headers do not compile: {built.stderr}")
    return api.read(work, compiler, subprocess.run([program], check=True, capture_output=True, text=True).stdout)


def output_of(program):
    return subprocess.run([program], check=True, capture_output=True, text=True).stdout


def verdict_of(changes):
    """The worst of the changes, or None when there are none."""
    kinds = [kind for kind, _ in changes]
    return next((kind for kind in (api.BREAK, api.ADDED, api.RENAMED) if kind in kinds), None)


def check_edits(baseline, headers, compiler):
    failures = 0
    for what, pattern, replacement, wanted in EDITS:
        copy = edited(headers, pattern, replacement)
        if copy is None:
            print(f"FAILED: {what}: fits nowhere in the headers")
            failures += 1
            continue
        with tempfile.TemporaryDirectory() as work:
            changes = api.compare(baseline, read(copy, work, compiler))
        found = verdict_of(changes)
        print(f"{'ok' if found == wanted else 'FAILED'}: {what}: {found}; {'; '.join(text for _, text in changes)}")
        failures += found != wanted
    return failures


def check_defaults(baseline, seeded):
    changes = api.compare(baseline, seeded)
    kinds = [(kind, text.split(" ")[0]) for kind, text in changes]
    print(f"a default of an _init: {changes}")
    return kinds != [(api.BREAK, "default")]


def check_versions():
    """What may follow a release: its version, the new one, the changes, allowed?"""
    change, addition, rename = (api.BREAK, ""), (api.ADDED, ""), (api.RENAMED, "")
    cases = [([0, 1, 0], [0, 1, 1], [], True), ([0, 1, 0], [0, 1, 0], [rename], True), ([0, 1, 0], [0, 1, 1], [change], False),
             ([0, 1, 0], [0, 1, 1], [addition], False), ([0, 1, 0], [0, 2, 0], [change, addition], True),
             ([0, 2, 0], [0, 1, 9], [], False), ([0, 9, 0], [1, 0, 0], [change], True), ([1, 0, 0], [1, 1, 0], [change], False),
             ([1, 0, 0], [1, 1, 0], [addition], True), ([1, 0, 0], [1, 0, 1], [addition], False), ([1, 4, 0], [2, 0, 0], [change], True)]
    failures = 0
    for released, version, changes, allowed in cases:
        if (api.version_refused(released, version, changes) is None) != allowed:
            print(f"FAILED: {released} to {version} with {changes}: expected {'allowed' if allowed else 'refused'}")
            failures += 1
    return failures


def main():
    dump, seeded_dump, folder, *compiler = sys.argv[1:]
    headers = {}
    for name in sorted(os.listdir(os.path.join(folder, "paligemma"))):
        with open(os.path.join(folder, "paligemma", name)) as f:
            headers[name] = without_comments(f.read())
    baseline = api.read(folder, compiler, output_of(dump))
    if api.compare(baseline, api.load(api.save(baseline))):
        print("FAILED: what is saved is not what is loaded")
        return 1
    failures = check_edits(baseline, headers, compiler)
    failures += check_defaults(baseline, api.read(folder, compiler, output_of(seeded_dump)))
    failures += check_versions()
    print(f"{len(EDITS)} edits, {failures} failures")
    return failures > 0


if __name__ == "__main__":
    sys.exit(main())
