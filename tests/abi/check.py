#!/usr/bin/env python3
"""Guards the ABI. Each check is one meson test:

    check.py symbols LIBRARY          exported symbols against symbols.txt
    check.py layout PROGRAM HEADER    structs and constants (printed by layout.c) against layout-lp64.txt, all of the header's
    check.py headers FOLDER COMPILER  every public header alone, as C99 to C++17, strict
    check.py imports ARCHIVE          what our own objects ask of the C library: nothing that prints, ends the process, ...
    check.py state ARCHIVE            writable data and load-time code of our own objects
    check.py abidiff LIBRARY HEADERS  against released/*.abi, the last release
    check.py structure FOLDER         of lib/: includes point one way, and api/ alone defines pg_ functions (docs/ARCHITECTURE.md)

`check.py symbols|layout ... --update` writes the committed list anew: only for an addition, and never quietly for a change
(docs/ABI.md).
"""
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
SKIPPED = 77  # meson's exit status for a skipped test


def run(*command, **options):
    return subprocess.run(command, check=True, capture_output=True, text=True, **options).stdout


def compare(name, found, update):
    path = os.path.join(HERE, name)
    if update:
        with open(path, "w") as f:
            f.write("".join(line + "\n" for line in found))
        return 0
    with open(path) as f:
        committed = f.read().splitlines()
    gone = [line for line in committed if line not in found]
    new = [line for line in found if line not in committed]
    for line in gone:
        print("gone, which breaks programs:", line)
    for line in new:
        print("new, not in the committed list:", line)
    if committed != found and not gone and not new:
        print("the same lines in another order")
    print(f"{name}: {len(committed)} lines committed, {len(found)} found")
    return committed != found


def symbols(library, update):
    found = []
    for line in run("nm", "-D", "--defined-only", library).splitlines():
        name = line.split()[-1].split("@")[0]
        kind = line.split()[-2]
        if kind != "A":  # the version's own name
            found.append(f"{kind} {name}")
    bad = [s for s in found if not re.fullmatch(r"T pg_[a-z0-9_]+", s)]
    for s in bad:
        print("exported, but no pg_ function:", s)
    return compare("symbols.txt", sorted(found), update) or bool(bad)


def without_comments(path):
    with open(path) as f:
        return re.sub(r"/\*.*?\*/|//[^\n]*", " ", f.read(), flags=re.S)


def layout(program, header, update):
    if struct.calcsize("l") != 8 or struct.calcsize("P") != 8 or sys.byteorder != "little":
        print("no committed list for this data model")
        return SKIPPED
    found = run(program).splitlines()
    text = without_comments(header)
    failed = False
    if any("HOLE" in line for line in found):
        print("\n".join(found))
        failed = True
    declared = re.findall(r"^typedef struct (pg_\w+) \{(.*?)^\} (pg_\w+);", text, flags=re.S | re.M)
    printed = {}
    for line in found:
        if line.startswith("struct "):
            current = printed.setdefault(line.split()[1].rstrip(":"), [])
        elif line.startswith("  "):
            current.append(line.split()[-1])
    for tag, body, name in declared:
        if tag != name or name not in printed:
            print("not in layout.c:", tag)
            failed = True
        elif "complete" not in printed[name]:
            print("fields of layout.c do not fill", name)
            failed = True
        body = re.sub(r"\(\*\w+\)\([^)]*\)", "function", body)  # what a pointer's function takes is no field
        for bad in re.findall(r"\b(bool|_Bool|long|enum|size_t|wchar_t|int|unsigned)\b", body):
            print(f"{name}: `{bad}` is no fixed-size plain type")
            failed = True
    if len(declared) < 10 or len(declared) != len(printed):
        print(f"{len(declared)} structs declared, {len(printed)} in layout.c")
        failed = True
    constants = set(re.findall(r"\b(PG_[A-Z0-9_]+) = ", text)) | set(re.findall(r"^#define (PG_CPU_\w+)", text, flags=re.M))
    for name in sorted(constants - {line.split(" = ")[0] for line in found}):
        print("not in layout.c:", name)
        failed = True
    if re.search(r"\binline\b|\bbool\b", text):
        print("the header has an inline function or a bool")
        failed = True
    return compare("layout-lp64.txt", found, update) or failed


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
    ("thread_pool.c", "pthread_create"): "the launcher of the pool, joined when its session or call ends",
    ("thread_pool.c", "fesetenv"): "in the pool's own threads: they take over the caller's",
    ("thread_pool.c", "pthread_sigmask"): "for the pool's own threads; the caller's is put back at once",
    ("thread_pool.c", "sched_setaffinity"): "of the pool's own threads",
    ("thread_pool.c", "kmp_set_blocktime"): "of the launcher of the pool, for its own regions",
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
            if kind == "U" and symbol in why and not any(name.endswith(file + ".o") and symbol == allowed for file, allowed in ALLOWED):
                print(f"{name} calls {symbol}, which {why[symbol]}")
                failed = True
    print(f"{len(table)} objects")
    return failed or len(table) < 10


# The only data of ours that may change while a process runs; each is atomic or thread-local.
STATE = {
    "error_text": "thread-local: pg_last_error()",
    "tried": "thread-local: threads that were asked for on trial",
    "found": "thread-local: and that the system gave",
    "thread_owner": "atomic: which process started OpenMP's threads (they do not survive fork)",
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


def abidiff(library, folder):
    if not shutil.which("abidiff"):
        print("abidiff is not installed (Debian: abigail-tools)")
        return SKIPPED
    released = os.path.join(HERE, "released")
    baselines = sorted((n for n in os.listdir(released) if n.endswith(".abi")) if os.path.isdir(released) else [])
    if not baselines:
        print("there is no release yet, so nothing to compare with; a release commits its `abidw` output here as released/VERSION.abi")
        return SKIPPED
    newest = max(baselines, key=lambda n: [int(part) for part in re.findall(r"\d+", n)])
    # 1: usage or failure, 4: changed, 8: changed incompatibly. Additions alone are what a minor version may bring.
    result = subprocess.run(["abidiff", "--no-added-syms", "--headers-dir2", folder, os.path.join(released, newest), library])
    print(f"compared with {newest}")
    return result.returncode != 0


# What the files of a folder of lib/ may include besides their own folder.
BELOW = {"base": "", "kernels": "base", "ops": "base kernels", "checkpoint": "base kernels ops"}
BELOW.update(dict.fromkeys(["image", "tokenizer", "encoder", "projector", "decoder"], " ".join(BELOW)))
BELOW["processor"] = "base kernels ops checkpoint image tokenizer"
for _folder in ("model", "generate", "api"):
    BELOW[_folder] = " ".join(BELOW)


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


def main():
    arguments = [a for a in sys.argv[1:] if a != "--update"]
    update = "--update" in sys.argv
    check, *rest = arguments
    if check in ("symbols", "layout"):
        return int(globals()[check](*rest, update))
    return int({"headers": headers, "imports": imports, "state": state, "abidiff": abidiff,
                "structure": structure}[check](*rest))


if __name__ == "__main__":
    sys.exit(main())
