# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""Finding and checking the library."""
import ctypes
import ctypes.util
import os
import pathlib
import re
import subprocess
import sys

import pytest

import paligemma
from paligemma import _library

ROOT = pathlib.Path(__file__).resolve().parents[2]


def run(code, **environment):
    """A fresh interpreter with the package on its path -> (status, stdout, stderr)."""
    variables = {**os.environ, "PYTHONPATH": str(ROOT / "python"), **environment}
    variables = {k: v for k, v in variables.items() if v is not None}
    done = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout, done.stderr


def test_version():
    assert paligemma.version()
    assert paligemma.library_path()


def test_missing_library_names_the_places():
    status, _, text = run("import paligemma", PALIGEMMA_LIBRARY=f"/nowhere/{_library.SONAME}")
    assert status == 1
    assert "OSError: libpaligemma was not found" in text and f"/nowhere/{_library.SONAME}" in text


def test_a_folder_serves_too(tmp_path):
    status, _, text = run("import paligemma", PALIGEMMA_LIBRARY=str(tmp_path))
    assert status == 1 and str(tmp_path / _library.SONAME) in text
    (tmp_path / _library.SONAME).symlink_to(os.path.realpath(loaded_file()))
    status, printed, text = run("import paligemma; print(paligemma.library_path())", PALIGEMMA_LIBRARY=str(tmp_path))
    assert status == 0, text
    assert printed.strip() == str(tmp_path / _library.SONAME)


def test_a_relative_path_survives_a_change_of_folder():
    relative = os.path.relpath(os.path.realpath(loaded_file()))
    status, printed, text = run("import os, paligemma; os.chdir('/'); print(os.environ['PALIGEMMA_LIBRARY'])",
                                PALIGEMMA_LIBRARY=relative)
    assert status == 0, text
    assert printed.strip() == os.path.abspath(relative)


def test_without_the_variable_all_places_are_named():
    status, _, text = run("import paligemma._library as c; c.SONAME = 'libnothere.so.0.1'; c._open()",
                          PALIGEMMA_LIBRARY=str(pathlib.Path(loaded_file())))
    assert status == 0, text  # the variable wins
    status, _, text = run("import os, paligemma._library as c\n"
                          "del os.environ['PALIGEMMA_LIBRARY']\n"
                          "c.SONAME = 'libnothere.so.0.1'; c.ctypes.util.find_library = lambda name: None\n"
                          "c._open()", PALIGEMMA_LIBRARY=loaded_file())
    assert status == 1
    for place in ("$PALIGEMMA_LIBRARY is not set", "bundled with the package", "the system's library path"):
        assert place in text


def test_another_library_is_refused():
    other = ctypes.util.find_library("m")
    status, _, text = run("import paligemma", PALIGEMMA_LIBRARY=other)
    assert status == 1 and "OSError" in text and "not a libpaligemma" in text


@pytest.mark.parametrize("major, minor", [(1, 0), (1, 1), (0, _library.API_MINOR - 1), (0, _library.API_MINOR + 1)])
def test_another_version_is_refused(monkeypatch, major, minor):
    monkeypatch.setattr(_library, "API_MAJOR", major)
    monkeypatch.setattr(_library, "API_MINOR", minor)
    monkeypatch.setenv("PALIGEMMA_LIBRARY", loaded_file())
    with pytest.raises(OSError, match="API version 0"):
        _library._load()


@pytest.mark.parametrize("ours, library, fits", [((0, 1), (0, 1), True), ((0, 1), (0, 2), False), ((0, 2), (0, 1), False),
                                                 ((0, 1), (1, 1), False), ((1, 3), (1, 3), True), ((1, 3), (1, 9), True),
                                                 ((1, 3), (1, 2), False), ((1, 3), (2, 3), False)])
def test_which_versions_fit(monkeypatch, ours, library, fits):
    monkeypatch.setattr(_library, "API_MAJOR", ours[0])
    monkeypatch.setattr(_library, "API_MINOR", ours[1])
    assert _library._compatible(*library) == fits


def test_the_version_is_that_of_the_header():
    text = (ROOT / "include/paligemma/version.h").read_text()
    for part, number in (("MAJOR", _library.API_MAJOR), ("MINOR", _library.API_MINOR)):
        assert f"#define PG_API_VERSION_{part} {number}\n" in text


def loaded_file():
    """The file that this process has loaded."""
    with open("/proc/self/maps", encoding="utf-8") as maps:
        return next(line.split()[-1] for line in maps if "libpaligemma.so" in line)
