#!/usr/bin/env python3
# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""Guards the ABI. Each check is one meson test:

    check.py api PROGRAM FOLDER CC... the declarations of the public headers in FOLDER against api.txt and the last release;
                                      PROGRAM is what api.py wrote, compiled with -DABI_DEFAULTS and linked to the library
    check.py symbols LIBRARY FOLDER CC...   the library exports the functions of the headers, under the name of this version
    check.py version FOLDER CC...     PG_API_COMPATIBLE() of version.h, and of copies with other numbers
    check.py headers FOLDER COMPILER  every public header alone, as C99 to C++17, strict
    check.py imports ARCHIVE          what our own objects ask of the C library: nothing that prints, ends the process, ...
    check.py state ARCHIVE            writable data and load-time code of our own objects
    check.py musl ROOT                the C of lib/ compiles for musl, whose C library has less (skipped without musl-gcc);
                                      and it stops with one line on 32-bit systems
    check.py tried HEADER CALLS       every public function is among the calls under which faults.c lets the system fail
    check.py wrapped HEADER CPP       every public function is in paligemma.hpp, which asks nothing else of the library
    check.py structure FOLDER         of lib/: includes point one way, and api/ alone defines pg_ functions (docs/ARCHITECTURE.md)

`check.py api ... --update` writes api.txt anew: the commit says why (docs/ABI.md).
"""
import glob
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile

import api

HERE = os.path.dirname(os.path.abspath(__file__))
SKIPPED = 77  # meson's exit status for a skipped test


def run(*command, **options):
    return subprocess.run(command, check=True, capture_output=True, text=True, **options).stdout


def api_check(program, folder, *compiler, update):
    if struct.calcsize("l") != 8 or struct.calcsize("P") != 8 or sys.byteorder != "little":
        print("api.txt holds the sizes of another data model")
        return SKIPPED
    current = api.read(folder, compiler, run(program))
    problems = api.flaws(current)
    path = os.path.join(HERE, "api.txt")
    if update:
        with open(path, "w") as f:
            f.write(api.save(current))
    with open(path) as f:
        committed = f.read()
    changes = api.compare(api.load(committed), current)
    for kind, text in changes:
        print(f"{kind:8} {text}")
    if changes or committed != api.save(current):
        problems.append("the headers and the library are not what tests/abi/api.txt says. When that is meant: run "
                        "tests/abi/check.py api ... --update and say why in CHANGELOG.md (docs/ABI.md)")
    released = newest_release()
    if released:
        since = api.compare(released, current)
        why = api.version_refused(released.version, current.version, since)
        if why:
            problems += [f"since {'.'.join(map(str, released.version))}: {kind} {text}" for kind, text in since] + [why]
    print("\n".join(problems))
    print(f"{len(current.function)} functions, {len(current.struct)} structs, {len(current.constant) + len(current.macro)} values, "
          f"{len(current.default)} defaults")
    return bool(problems) or not (current.function and current.struct and current.default)


def newest_release():
    """released/VERSION.txt is the api.txt of a release."""
    folder = os.path.join(HERE, "released")
    releases = []
    for name in os.listdir(folder) if os.path.isdir(folder) else []:
        with open(os.path.join(folder, name)) as f:
            releases.append(api.load(f.read()))
    return max(releases, key=lambda release: release.version, default=None)


def symbols(library, folder, *compiler):
    headers_api = api.parse(folder, compiler)
    major, minor, _ = headers_api.version
    young = f"{major}.{minor}" if major == 0 else str(major)  # while MAJOR is 0, programs are bound to a MINOR
    node, soname = f"PALIGEMMA_{young}", f"libpaligemma.so.{young}"
    problems = []
    if f"SONAME               {soname}\n" not in run("objdump", "-p", library):
        problems.append(f"the library's SONAME is not {soname}")
    exported = {}
    for line in run("objdump", "-T", library).splitlines():
        # value, flags, section, size, version, name; "g    DO *ABS*" is the version's own name
        entry = re.match(r"[0-9a-f]{8,} (.{7}) (\S+)\t[0-9a-f]{8,}\s+(\S+)\s+(\S+)$", line)
        if entry and entry[2] not in ("*UND*", "*ABS*"):
            exported[entry[4]] = (entry[1], entry[3])
    for name, (flags, version) in exported.items():
        if "F" not in flags or version != node:
            problems.append(f"{name}: exported under {version} with flags `{flags}`, expected a function of {node}")
    problems += [f"{name} is exported, but no function of the headers" for name in exported if name not in headers_api.function]
    problems += [f"{name} stands in the headers, but is not exported" for name in headers_api.function if name not in exported]
    print("\n".join(problems))
    print(f"{len(exported)} symbols of {node}")
    return bool(problems) or not exported


# the version of a header, that of a library, may a program built with the one use the other?
COMPATIBLE = [((0, 1), (0, 1, 0), True), ((0, 1), (0, 1, 9), True), ((0, 1), (0, 2, 0), False), ((0, 2), (0, 1, 0), False),
              ((0, 1), (0, 0, 0), False), ((0, 0), (0, 0, 0), True), ((0, 1), (1, 1, 0), False), ((1, 1), (0, 1, 0), False),
              ((1, 3), (1, 3, 0), True), ((1, 3), (1, 255, 1), True), ((1, 3), (1, 2, 9), False), ((1, 0), (1, 0, 0), True),
              ((1, 3), (2, 3, 0), False), ((2, 3), (1, 3, 0), False)]


def version(folder, *compiler):
    with open(os.path.join(folder, "paligemma", "version.h")) as f:
        text = f.read()
    ours = tuple(int(re.search(rf"^#define PG_API_VERSION_{part} (\d+)$", text, flags=re.M)[1]) for part in api.VERSION)
    other = (ours[0], ours[1] + 1)
    table = [*COMPATIBLE, (ours[:2], ours, True), (other, ours, False)]
    failed = False
    with tempfile.TemporaryDirectory() as work:
        for header, library, wanted in table:
            copy = text
            for part, number in zip(api.VERSION, header):
                copy = re.sub(rf"(#define PG_API_VERSION_{part}) \d+", rf"\1 {number}", copy)
            with open(os.path.join(work, "version.h"), "w") as f:
                f.write(copy)
            with open(os.path.join(work, "program.c"), "w") as f:
                f.write('#include "version.h"\n#include <stdint.h>\n'
                        f"enum {{ LIBRARY = {library[0]} << 16 | {library[1]} << 8 | {library[2]} }};\n"
                        f"_Static_assert(PG_API_COMPATIBLE((uint32_t)LIBRARY) == {int(wanted)}, \"constant\");\n"
                        "extern uint32_t asked(void);\nint main(void) { return PG_API_COMPATIBLE(asked()); }\n")
            command = [*compiler, "-std=c11", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-fsyntax-only", "program.c"]
            result = subprocess.run(command, cwd=work, capture_output=True, text=True)
            if result.returncode:
                print(f"header {header}, library {library}: expected {wanted}", result.stderr, sep="\n")
                failed = True
    print(f"{len(table)} pairs of versions")
    return failed


def without_comments(path):
    with open(path) as f:
        return re.sub(r"/\*.*?\*/|//[^\n]*", " ", f.read(), flags=re.S)


def headers(folder, *compiler):
    failures = 0
    count = 0
    with tempfile.TemporaryDirectory() as work:
        names = sorted(n for n in os.listdir(os.path.join(folder, "paligemma")) if n.endswith(".h"))
        for name in names:
            for language, standards in (("c", ["c99", "c11", "c17"]), ("c++", ["c++11", "c++17", "c++20"])):
                source = os.path.join(work, "alone." + ("c" if language == "c" else "cc"))
                with open(source, "w") as f:
                    # twice: the guard works too
                    f.write(f"#include <paligemma/{name}>\n#include <paligemma/{name}>\nint main(void) {{ return 0; }}\n")
                for standard in standards:
                    command = [*compiler, "-x", language, f"-std={standard}", "-I", folder, "-Wall", "-Wextra", "-Werror",
                               "-pedantic", "-Wpadded", "-Wconversion", "-fsyntax-only", source]
                    result = subprocess.run(command, capture_output=True, text=True)
                    count += 1
                    if result.returncode:
                        failures += 1
                        print(" ".join(command), result.stderr, sep="\n")
    print(f"{len(names)} headers, {count} compilations, {failures} failures")
    return failures > 0 or count == 0


# What Microsoft's compiler is known to refuse, as words of the headers after preprocessing for it; clang takes them.
NOT_MSVC = r"\b(__attribute__|__builtin_\w+|__typeof__|typeof|__extension__|__asm__|asm|_Atomic|_Complex|__int128|__label__|restrict)\b|\(\s*\{"


def msvc(folder):
    """That compiler is not here: clang reads the C headers as it would, for its target, and as pedantic as it can."""
    clang = shutil.which("clang")
    if not clang:
        print("clang is not installed")
        return SKIPPED
    failures, count = 0, 0
    with tempfile.TemporaryDirectory() as work:
        # two more: one that must not pass, so that a check that sees nothing is seen
        for name, bad in [("paligemma.h", None), ("version.h", None), ("bad.h", "int pg_bad(void) __attribute__((const));"),
                          ("bad.h", "struct pg_bad { int n; int of[0]; };"), ("bad.h", "enum { A = ({ 1; }) };")]:
            include = f"#include <paligemma/{name}>\n" if not bad else bad + "\n"
            for language, standard in (("c", "c11"), ("c", "c17"), ("c++", "c++14"), ("c++", "c++17"), ("c++", "c++20")):
                source = os.path.join(work, "alone." + ("c" if language == "c" else "cc"))
                with open(source, "w") as f:
                    f.write(include + "int main(void) { return 0; }\n")
                command = [clang, "--target=x86_64-pc-windows-msvc", "-fms-compatibility", "-fms-compatibility-version=19.30",
                           "-ffreestanding", "-x", language, f"-std={standard}", "-I", folder, "-Wall", "-Wextra", "-Werror", "-pedantic",
                           "-Wvla", "-Wzero-length-array", "-Wgnu"]
                result = subprocess.run([*command, "-fsyntax-only", source], capture_output=True, text=True)
                text = subprocess.run([*command, "-E", "-P", source], capture_output=True, text=True).stdout
                ours = text[text.find("pg_"):] if not bad else text  # behind what stdint.h is
                found = re.search(NOT_MSVC, ours)
                count += 1
                if bool(result.returncode or found) != bool(bad):
                    failures += 1
                    print(f"{bad or name} as {standard}:", found[0] if found else result.stderr or "it was not noticed", sep="\n")
    # The C++ wrapper needs a C++ library for that target: its words alone are looked at.
    found = re.findall(NOT_MSVC.replace(r"|\(\s*\{", ""), without_comments(os.path.join(folder, "paligemma", "paligemma.hpp")))
    if found:
        failures += 1
        print("paligemma.hpp:", *found)
    print(f"{count} compilations, {failures} failures")
    return failures > 0


# Names that library code must not call, by what they would do to the host.
FORBIDDEN = {
    "ends the process": "exit _exit _Exit quick_exit abort raise kill __assert_fail __assert pthread_exit",
    "prints": "printf vprintf __printf_chk __vprintf_chk fprintf vfprintf __fprintf_chk __vfprintf_chk puts putchar fputs fputc "
              "putc perror psignal stdout stderr stdin dprintf vdprintf __dprintf_chk syslog write",
    "changes the host's settings": "setlocale uselocale fesetround fesetenv feenableexcept signal sigaction setenv putenv "
                                   "unsetenv chdir umask omp_set_num_threads omp_set_dynamic omp_set_schedule "
                                   "omp_set_max_active_levels kmp_set_blocktime kmp_set_defaults sigprocmask "
                                   "pthread_sigmask sched_setaffinity pthread_setaffinity_np json_set_alloc_funcs srand random srandom",
    "depends on the locale": "strtod strtof strtold atof scanf sscanf fscanf __isoc99_sscanf __isoc99_fscanf isalpha isdigit "
                             "isspace tolower toupper strcoll",
    "runs something": "system popen fork vfork execve dlopen pthread_create",
    "cannot be bounded": "gets strcpy strcat sprintf vsprintf alloca",
    "is shared between threads": "strerror strtok localtime gmtime asctime ctime rand getpwnam getpwuid readdir_r tmpnam",
}


# Where one of these is meant, and why it does no harm.
ALLOWED = {
    ("background.c", "pthread_create"): "a thread that reads ahead, joined when its model ends",
    ("background.c", "pthread_sigmask"): "for that thread; the caller's is put back at once",
    ("pool_threads_pthread.c", "pthread_create"): "each thread of a pool makes the next one and joins it",
    ("pool_threads_openmp.c", "pthread_create"): "threads that are tried before OpenMP makes them, and joined",
    ("own_thread.c", "pthread_create"): "a thread of a pool or a worker, joined when that ends",
    ("own_thread.c", "pthread_sigmask"): "for the thread that it starts; the caller's is put back at once",
    ("thread_settings_linux.c", "sched_setaffinity"): "for a background thread of a worker, which the host asked for",
    ("pool_threads_openmp.c", "sched_setaffinity"): "for the pool's own threads, by OMP_PROC_BIND",
    ("environment.c", "fesetenv"): "put back where a call returns and around callbacks",
    ("thread_pool.c", "pthread_sigmask"): "for the pool's own threads; the caller's is put back at once",
    ("pool_threads_openmp.c", "kmp_set_blocktime"): "of the first thread of the pool, for its own regions",
    ("spm_wrapper.cc", "dlopen"): "RTLD_NOLOAD: asks for the handle of a library that is loaded, and loads none",
}


def members(archive):
    """name: `nm` lines of each object of the archive (thin or not)."""
    table, current = {}, None
    for line in run("nm", archive).splitlines():
        if line.endswith(":"):
            current = table.setdefault(line[:-1], [])
        elif line.strip():
            current.append(line)
    return table


def imports(archive):
    why = {name: reason for reason, names in FORBIDDEN.items() for name in names.split()}
    failed = False
    table = members(archive)
    for name, lines in table.items():
        for line in lines:
            kind, symbol = line.split()[-2:]
            symbol = symbol.split("@")[0]
            if kind == "U" and symbol in why and not any(name.endswith((file + ".o", file + ".obj")) and symbol == allowed for file, allowed in ALLOWED):
                print(f"{name} calls {symbol}, which {why[symbol]}")
                failed = True
    print(f"{len(table)} objects")
    return failed or len(table) < 10


# The only data of ours that may change while a process runs; each is atomic or thread-local.
STATE = {
    "last_error": "thread-local: pg_last_error()",
    "current": "thread-local: the call of the host that is under way, while it is under way",
}


def state(archive):
    failed = False
    objects = set()
    current = None
    for line in run("objdump", "-t", archive).splitlines():
        if ":     file format" in line:
            current = line.split(":")[0]
            objects.add(current)
        # value, flags, section, size, name; .data.rel.ro holds constants that the loader alone writes
        entry = re.match(r"[0-9a-f]{8,} .{7} (\S+)\t[0-9a-f]{8,}\s+(?:\.hidden )?(\S+)$", line)
        if not entry or not re.match(r"\.(data|bss|tdata|tbss)\b(?!\.rel\.ro)|\*COM\*", entry[1]) or entry[1] == entry[2]:
            continue
        if entry[2].startswith(("$", ".LANCHOR")):  # marks of AArch64's assembler, beside the names of what lies there
            continue
        if entry[2].split(".")[0] not in STATE and not entry[2].startswith("DW.ref."):  # a reference to C++ type information
            print(f"{current}: {entry[2]} is writable data of the whole process ({entry[1]})")
            failed = True
    with tempfile.TemporaryDirectory() as work:
        sections = run("readelf", "-SW", os.path.abspath(archive), cwd=work)
    current = None
    for line in sections.splitlines():
        if line.startswith("File:"):
            current = line
        if re.search(r"\.(init_array|ctors|fini_array)", line):
            print(f"{current} runs code when the library is loaded or unloaded: {line.strip()}")
            failed = True
    print(f"{len(objects)} objects")
    return failed or len(objects) < 10


# What the files of a folder of lib/ may include besides their own folder.
BELOW = {"base": "", "kernels": "base", "ops": "base kernels", "checkpoint": "base kernels ops"}
BELOW.update(dict.fromkeys(["image", "tokenizer", "encoder", "projector", "decoder"], " ".join(BELOW)))
BELOW["processor"] = "base kernels ops checkpoint image tokenizer"
BELOW["answers"] = "base kernels ops checkpoint tokenizer"
BELOW["model"] = " ".join(BELOW)
BELOW.update(dict.fromkeys(["train", "generate"], " ".join(BELOW)))
BELOW["worker"] = "base"  # and the public header: an example of a program on it
BELOW["api"] = " ".join(BELOW)


def module_of(path):
    return re.sub(r"(\.inc)?\.(c|cc|h|inc)$", "", path)


def circle(includes):
    """The first circle of modules that include each other, as [[a, b, a]], or []."""
    done, path = set(), []

    def visit(module):
        if module in path:
            return path[path.index(module):] + [module]
        if module in done:
            return None
        path.append(module)
        for other in sorted(includes.get(module, ())):
            found = visit(other) if other != module else None
            if found:
                return found
        done.add(path.pop())
        return None

    for module in sorted(includes):
        found = visit(module)
        if found:
            return [found]
    return []


def structure(folder):
    failed = False
    count = 0
    includes = {}  # a module is a header and the source that implements it: what they include
    for path, _, names in os.walk(folder):
        for name in sorted(n for n in names if n.endswith((".c", ".cc", ".h", ".inc"))):
            source = os.path.relpath(os.path.join(path, name), folder)
            part = source.split(os.sep)[0]
            if part not in BELOW:
                print(f"{source}: lib/{part} has no place in the order of folders")
                failed = True
                continue
            text = without_comments(os.path.join(path, name))
            for target in re.findall(r'^\s*#\s*include\s+"([^"]+)"', text, flags=re.M):
                count += 1
                includes.setdefault(module_of(source), set()).add(module_of(target))
                if target.split("/")[0] not in [part, *BELOW[part].split()]:
                    print(f"{source} includes {target}; {part} may include: {BELOW[part] or 'itself alone'}")
                    failed = True
            for function in re.findall(r"^\w[\w *]*?\b(pg_\w+)\([^;{]*\{", text, flags=re.M):
                if part != "api":
                    print(f"{source} defines {function}; lib/api alone exports")
                    failed = True
    for module in circle(includes):
        print(f"{' -> '.join(module)}: these include each other in a circle")
        failed = True
    print(f"{count} includes")
    return failed or count < 100


def musl(root):
    """Headers of libraries are those of this system, so nothing is linked."""
    compiler = shutil.which("musl-gcc")
    if not compiler:
        print("musl-gcc is not installed")
        return SKIPPED
    failed, n = False, 0
    with tempfile.TemporaryDirectory() as folder:
        for name in ("png.h", "pngconf.h", "pnglibconf.h", "jpeglib.h", "jmorecfg.h", "jerror.h", "jconfig.h", "zlib.h", "zconf.h"):
            found = [path for base in ("/usr/include", *glob.glob("/usr/include/*-linux-gnu"))
                     if os.path.exists(path := os.path.join(base, name))]
            if found:
                os.symlink(found[0], os.path.join(folder, name))
        command = [compiler, "-std=c11", "-D_GNU_SOURCE", '-DPGI_PACKAGE_VERSION="0"', "-O1", "-Wall", "-Wextra", "-Werror",
                   "-fsyntax-only", "-I" + os.path.join(root, "include"), "-I" + os.path.join(root, "lib"), "-isystem", folder]
        for path in sorted(glob.glob(os.path.join(root, "lib", "**", "*.c"), recursive=True)):
            if path.endswith(("openmp.c", "_windows.c")) or os.path.basename(os.path.dirname(path)) in ("x86", "arm"):
                continue  # OpenMP is chosen where it is found; flags of instruction sets are the build's
            result = subprocess.run([*command, path], capture_output=True, text=True)
            n += 1
            if result.returncode:
                print(result.stderr)
                failed = True
        # what a 32-bit build would say
        result = subprocess.run([*command, "-m32", os.path.join(root, "lib", "base", "memory.c")], capture_output=True, text=True)
        if "needs a 64-bit system" not in result.stderr:
            print(result.stderr, "found no word about 64 bits")
            failed = True
    print(f"{n} files")
    return failed or n < 100


# Public functions that do not change over to the default floating-point environment: they compute nothing.
OUTSIDE = set("""pg_version_api pg_version_string pg_status_name pg_last_error pg_last_error_row pg_cancel_request pg_cancel_clear
    pg_answer_get_n_objects pg_answer_get_text pg_result_get_n_rows pg_result_get_text
    pg_scores_get_n_answers""".split())


def last_fields(listed):
    """The last field of each struct of an api.txt."""
    fields = {}
    for name, block in re.findall(r"^struct (pg_\w+):[^\n]*\n((?:[ ]+\d[^\n]*\n)+)", listed, flags=re.M):
        last = block.strip().split("\n")[-1]
        fields[name] = (re.search(r"\(\*(\w+)\)\(", last) or re.search(r"(\w+)(?:\[\d+\])?$", last)).group(1)
    return fields


def sizes(source, here):
    """lib/api/structs.h knows each struct by the last field of its first release, or of today where there is none."""
    released = os.path.join(here, "released")
    names = sorted(os.listdir(released), key=lambda n: [int(p) for p in re.findall(r"\d+", n)]) if os.path.isdir(released) else []
    expected = {}
    for name in [os.path.join(released, n) for n in names if n.endswith(".txt")] + [os.path.join(here, "api.txt")]:
        with open(name, encoding="utf-8") as f:
            expected = {**last_fields(f.read()), **expected}
    with open(source, encoding="utf-8") as f:
        found = dict(re.findall(r"^ +X\((pg_\w+), *(\w+)\)", f.read(), flags=re.M))
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            print(f"{name}: found {found.get(name)} as the last field of its first release, expected {expected.get(name)}")
    print(f"{len(found)} structs")
    return found != expected or len(found) < 20


def border(folder, header):
    """Each public function begins with PGI_ENTER, and each call of a host's function is made in base/callback.cc."""
    failed = False
    entered, calls = set(), 0
    public_text = without_comments(header)
    hooks = {"alloc", "free", "fn"} | set(re.findall(r"\bpg_\w+_fn (\w+);", public_text))
    hook = re.compile(rf"(?:->|\.)(?:{'|'.join(hooks)})\(")
    seam = os.path.join("base", "callback.cc")  # it catches what they throw, and gives them the host's environment
    for path, _, names in sorted(os.walk(folder), key=lambda at: not at[0].endswith("api")):  # the macro's definition first
        for name in sorted((n for n in names if n.endswith((".c", ".cc", ".h", ".inc"))), key=lambda n: not n.endswith(".h")):
            source = os.path.relpath(os.path.join(path, name), folder)
            text = without_comments(os.path.join(path, name)).replace("\\\n", "\n")
            for function, body in re.findall(r"^ *\w[\w *]*?\b(pg_\w+|type##_init)\([^;{]*\{\s*([^\n]*)", text, flags=re.M):
                if body.startswith("PGI_ENTER;"):
                    entered.add(function)
                elif not (function in OUTSIDE or re.fullmatch(r"pg_\w+_close", function)):
                    print(f"{source}: {function} does not begin with PGI_ENTER")
                    failed = True
            if "type##_init" in entered:
                entered.update(f"{options}_init" for options in re.findall(r"^PGI_OPTIONS\((pg_\w+)", text, flags=re.M))
            if source == seam:
                calls += len(re.findall(r"\[&\] \{.*\b(?:fn|alloc|release)\(", text))
            for line in text.split("\n"):
                if hook.search(line):
                    print(f"{source}: calls the host outside of {seam}: {line.strip()}")
                    failed = True
    public = set(re.findall(r"\bPG_API pg_status (pg_\w+)\(", public_text))
    for function in sorted(public - entered):
        print(f"{function}: found no definition that begins with PGI_ENTER")
        failed = True
    print(f"{len(public)} functions, {calls} calls of the host")
    return failed or len(public) < 40 or calls < 5


def tried(header, calls):
    """Each public function that gives a status, but for those that fill in defaults, is in the calls of faults.c."""
    public = set(re.findall(r"\bPG_API pg_status (pg_\w+)\(", without_comments(header)))
    public = {name for name in public if not name.endswith("_init")}
    missing = sorted(public - set(re.findall(r"\bpg_\w+", without_comments(calls))))
    for function in missing:
        print(f"{function}: found no call of it in {os.path.basename(calls)}, so no fault was tried under it")
    print(f"{len(public)} functions")
    return bool(missing) or len(public) < 40


def wrapped(header, cpp):
    """Each public function is used by paligemma.hpp outside its comments, and it uses none that is not there."""
    public = set(re.findall(r"\bPG_API [^;(]*?\b(pg_\w+)\(", without_comments(header)))
    used = set(re.findall(r"\bpg_\w+(?=[(),>])", without_comments(cpp)))
    types = set(re.findall(r"\bpg_\w+", without_comments(header))) - public
    missing, unknown = sorted(public - used), sorted(used - public - types)
    for function in missing:
        print(f"{function}: found no use of it in {os.path.basename(cpp)}; expected a function of C++ for each of C")
    for function in unknown:
        print(f"{function}: {os.path.basename(cpp)} uses it, but {os.path.basename(header)} has no such name")
    print(f"{len(public)} functions")
    return bool(missing or unknown) or len(public) < 100


def main():
    arguments = [a for a in sys.argv[1:] if a != "--update"]
    update = "--update" in sys.argv
    check, *rest = arguments
    if check == "api":
        return int(api_check(*rest, update=update))
    return int({"symbols": symbols, "version": version, "headers": headers, "imports": imports, "state": state,
                "structure": structure, "border": border, "musl": musl, "msvc": msvc, "sizes": sizes, "tried": tried, "wrapped": wrapped}[check](*rest))


if __name__ == "__main__":
    sys.exit(main())
