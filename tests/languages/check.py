#!/usr/bin/env python3
# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""The library from other languages. Each check is one meson test:

    check.py warnings ROOT         paligemma.hpp and its tests compile without a warning: g++ and clang++, C++17 and C++20,
                                   with and without exceptions and RTTI
    check.py layout ROOT           what Rust and C# declare by hand is what tests/abi/api.txt says of the header; no compiler
                                   is needed
    check.py demo PROGRAM ROOT     a program streams the caption of the demo image, and fails with one line
    check.py rust ROOT LIBRARY     examples/rust compiles without a warning; its example and rust_checks.rs run with the
                                   library in the folder LIBRARY; what must not compile does not
    check.py csharp ROOT LIBRARY   the same of examples/csharp by Mono

Exit status 77, which Meson counts as skipped: there is no such compiler here.
"""
import glob
import os
import re
import shutil
import subprocess
import sys
import tempfile

from declarations import Header, layout, read_rust, read_sharp, rust_size, sharp_size

HERE = os.path.dirname(os.path.abspath(__file__))
SKIPPED = 77
CAPTION = "a red circle, a purple star and a yellow triangle\n"
# Debian 12's is what we promise; a newer one in the PATH must not hide it.
RUSTC = next((p for p in ("/usr/bin/rustc", shutil.which("rustc")) if p and os.path.exists(p)), None)
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


def read(*path):
    with open(os.path.join(*path), encoding="utf-8") as f:
        return f.read()


def rust_differences(header, text):
    """Lines of what is not as the header has it."""
    constants, structs, functions, callbacks = read_rust(text)
    found = [f"{n} is {constants.get(n)}, in the header {header.constants.get(n)}"
             for n in sorted(constants.keys() | header.constants.keys()) if constants.get(n) != header.constants.get(n)]
    for name, fields in header.structs.items():
        as_c, ours = structs.get(name, (False, []))
        if not as_c or [(n, t) for n, t in ours if n != "_"] != fields:
            wanted = "".join(f"    pub {n}: {t},\n" for n, t in fields)
            found.append(f"{name}: found {ours}{'' if as_c else ', and no repr(C)'}; expected\n{wanted}")
            continue
        placed, size = layout(ours, rust_size)
        if placed != header.c_structs[name] or size != header.sizes[name]:
            found.append(f"{name}: found {placed}, {size} bytes; expected {header.c_structs[name]}, {header.sizes[name]} bytes")
    for name, (parameters, given) in header.functions.items():
        if functions.get(name) != (parameters, given):
            wanted = f"    pub fn {name}({', '.join(f'{n}: {t}' for n, t in parameters)}){'' if given == 'c_void' else ' -> ' + given};"
            found.append(f"{name}: found {functions.get(name)}; expected\n{wanted}")
    found += [f"{n}: found {callbacks.get(n)}; expected {t}" for n, t in header.callbacks.items() if callbacks.get(n) != t]
    found += [f"{n}: the header has no such name" for n in sorted((functions.keys() - header.functions.keys())
                                                                  | (structs.keys() - header.structs.keys() - set(header.opaque)))]
    return found


def sharp_differences(header, text, version):
    """The same of C#, which has a part of the header."""
    constants, structs, functions = read_sharp(text)
    versions = {"PG_API_VERSION_MAJOR": version[0], "PG_API_VERSION_MINOR": version[1]}
    wanted = {**header.constants, **versions}
    found = [f"{n} is {v}, in the header {wanted.get(n)}" for n, v in constants.items() if v != wanted.get(n)]
    bound = f"libpaligemma.so.{version[0]}.{version[1]}" if version[0] == 0 else f"libpaligemma.so.{version[0]}"
    if f'"{bound}"' not in text:
        found.append(f"the library is not {bound}, its name of this API version")
    for name, (sequential, fields) in structs.items():
        expected = []
        for at, size, field in header.c_structs.get(name, []):
            pointers = re.fullmatch(r"\[\*.*; (\d+)\]", dict(header.structs[name])[field])
            # an array of pointers is a field for each: planes0, planes1, ...
            expected += [(at + 8 * i, 8, f"{field}{i}") for i in range(int(pointers[1]))] if pointers else [(at, size, field)]
        placed, size = layout(fields, sharp_size)
        if not sequential or placed != expected or size != header.sizes.get(name):
            found.append(f"{name}: found {placed}, {size} bytes; expected {expected}, {header.sizes.get(name)} bytes")
    widths = {"i32": {"int"}, "u32": {"uint"}, "i64": {"long"}, "u64": {"ulong"}, "usize": {"UIntPtr"}, "pg_status": {"int"},
              "c_void": {"void"}}
    for name, (given, parameters) in functions.items():
        expected = header.functions.get(name)
        kinds = [] if expected is None else [(t, p) for (_, t), p in zip(expected[0], parameters)]
        # a pointer is an IntPtr, a handle, or whatever C# passes by its address
        wrong = [f"{p} for {t}" for t, p in kinds if (p not in widths[t] if t in widths else not re.match(r"(ref|out) |IntPtr$|SafeHandle$|\w+\[\]$", p))]
        if expected is None or len(expected[0]) != len(parameters) or wrong or given not in widths.get(expected[1], {"IntPtr"}):
            found.append(f"{name}: found {given} of {parameters}; expected {expected}; wrong: {wrong}")
    return found, len(structs), len(functions)


def check_layout(root):
    text = read(root, "tests", "abi", "api.txt")
    header = Header(text)
    version = [int(n) for n in re.search(r"^version (\d+)\.(\d+)", text, flags=re.M).groups()]
    rust = "".join(read(p) for p in sorted(glob.glob(os.path.join(root, "examples", "rust", "paligemma-sys", "src", "*.rs"))))
    sharp = read(root, "examples", "csharp", "Native.cs")
    failed = any([fails("Rust", line) for line in rust_differences(header, rust)])
    differences, n_structs, n_functions = sharp_differences(header, sharp, version)
    failed |= any([fails("C#", line) for line in differences])
    # each of these must be noticed
    for old, new in [("pub n_prompts: i32", "pub n_prompts: i64"), ("pub flags: u32,\n    pub width", "pub width: i32,\n    pub flags"),
                     ("PG_IMAGE_BGR8: i32 = 2", "PG_IMAGE_BGR8: i32 = 1"), ("pub fn pg_score(", "pub fn pg_scored("),
                     ("-> pg_status;", "-> i64;"), ("ends: *mut u8", "ends: *mut i8"), ("#[repr(C)]\n#[derive", "#[derive")]:
        if old not in rust or not rust_differences(header, rust.replace(old, new, 1)):
            failed = fails("this edit of Rust passes", old, new)
    for old, new in [("public int n_dims;", "public long n_dims;"), ("PG_ENCODE_EXIF = 2", "PG_ENCODE_EXIF = 4"),
                     ("planes0, planes1", "planes1, planes0"), ("fixed long shape[4]", "fixed long shape[3]"),
                     ("SafeHandle result, long row, ref pg_result_info", "SafeHandle result, int row, ref pg_result_info"),
                     ("public static extern long pg_result_get_n_rows", "public static extern int pg_result_get_n_rows"),
                     (".so.0.1", ".so.0.2"), ("LayoutKind.Sequential", "LayoutKind.Auto")]:
        if old not in sharp or not sharp_differences(header, sharp.replace(old, new, 1), version)[0]:
            failed = fails("this edit of C# passes", old, new)
    print(f"Rust: {len(header.structs)} structs, {len(header.functions)} functions; C#: {n_structs}, {n_functions}")
    return failed or len(header.structs) < 25 or n_structs < 8 or n_functions < 30


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


# What a compiler must refuse, and its number for it.
NO_RUST = [
    ("E0505", "let answers = model.generate(None, inputs, Default::default()).unwrap(); let text = answers.text(0); drop(answers); println!(\"{}\", text);"),
    ("E0597", "let image = { let bytes = vec![0u8; 3]; Image::from_bytes(&bytes).unwrap() }; drop(image);"),
    ("E0277", "fn shared<T: Sync>(_: &T) {} let session = Session::new(model, Default::default()).unwrap(); shared(&session);"),
    ("E0499", "let mut s = Session::new(model, Default::default()).unwrap(); let logits = s.logits().unwrap(); s.step().unwrap(); drop(logits.as_f32());"),
    ("E0597", "let n = 0; let log: Box<LogFn> = Box::new(|_, _| println!(\"{}\", n)); Processor::open_with(\"a\", Some(log)).unwrap();"),
]


def rust(root, library):
    if not RUSTC:
        print("rustc is not installed (Debian: rustc)")
        return SKIPPED
    crates = os.path.join(root, "examples", "rust")
    with tempfile.TemporaryDirectory() as work:
        def compiles(name, source, *more):
            done = subprocess.run([RUSTC, "--edition", "2021", "-D", "warnings", "--crate-name", name, "-L", f"native={library}", "-L", work,
                                   "-C", f"link-arg=-Wl,-rpath,{library}", "--out-dir", work, *more, source], capture_output=True, text=True)
            return done.stderr if done.returncode else ""

        crate = ["--crate-type", "rlib"]
        errors = compiles("paligemma_sys", os.path.join(crates, "paligemma-sys", "src", "lib.rs"), *crate, "-l", "dylib=paligemma")
        errors = errors or compiles("paligemma", os.path.join(crates, "paligemma", "src", "lib.rs"), *crate,
                                    "--extern", f"paligemma_sys={work}/libpaligemma_sys.rlib")
        use = ["--extern", f"paligemma={work}/libpaligemma.rlib"]
        errors = errors or compiles("caption", os.path.join(crates, "paligemma", "examples", "caption.rs"), *use)
        errors = errors or compiles("rust_checks", os.path.join(HERE, "rust_checks.rs"), *use)
        if errors:
            return fails("it compiles", errors)
        failed = demo_program(os.path.join(work, "caption"), root)
        for number, body in NO_RUST:
            path = os.path.join(work, "refused.rs")
            with open(path, "w", encoding="utf-8") as f:
                f.write(f"#![allow(unused)]\nuse paligemma::*;\npub fn refused(model: &Model, inputs: &Inputs) {{ {body} }}\n")
            errors = compiles("refused", path, *crate, "--emit", "metadata", *use)
            failed |= f"error[{number}]" not in errors and fails(f"{number} is no error", body, errors)
        done = subprocess.run([os.path.join(work, "rust_checks"), *demo_files(root)], capture_output=True, text=True, timeout=120)
        failed |= (done.returncode != 0 or done.stdout != "rust: fine\n") and fails("rust_checks.rs", done)
    return failed


def demo_files(root):
    return [os.path.join(root, "examples", "demo", "model"), os.path.join(root, "examples", "demo", "images", "shapes.png")]


def csharp(root, library):
    compiler, runtime = shutil.which("mcs"), shutil.which("mono")
    if not compiler or not runtime:
        print("Mono is not installed (Debian: mono-mcs, mono-runtime)")
        return SKIPPED
    folder = os.path.join(root, "examples", "csharp")
    parts = [os.path.join(folder, name) for name in ("Native.cs", "Call.cs", "Paligemma.cs", "Processor.cs")]
    environment = {"LD_LIBRARY_PATH": library}
    failed = False
    with tempfile.TemporaryDirectory() as work:
        for main, source in (("Caption", os.path.join(folder, "Caption.cs")), ("Checks", os.path.join(HERE, "Checks.cs"))):
            done = subprocess.run([compiler, "-nologo", "-unsafe", "-warnaserror", f"-main:{main}", f"-out:{work}/{main}.exe", *parts, source],
                                  capture_output=True, text=True)
            if done.returncode:
                return fails(f"{main} compiles", done.stdout, done.stderr)
        failed |= demo([runtime, os.path.join(work, "Caption.exe")], root, environment)
        done = subprocess.run([runtime, os.path.join(work, "Checks.exe"), *demo_files(root)], capture_output=True, text=True, timeout=120,
                              env={**os.environ, **environment})
        failed |= (done.returncode != 0 or done.stdout != "csharp: fine\n") and fails("Checks.cs", done.stdout, done.stderr)
    return failed


def main():
    check, *rest = sys.argv[1:]
    return int({"warnings": warnings, "layout": check_layout, "demo": demo_program, "rust": rust, "csharp": csharp}[check](*rest))


if __name__ == "__main__":
    sys.exit(main())
