# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""meson-python, whose wheels are tagged py3-none-PLATFORM here: ctypes opens the library, which knows no Python.

meson-python takes what lies beside a package's modules for an extension module of the Python that built it.
"""
import subprocess
import sys
from pathlib import Path

import mesonpy
from mesonpy import (build_editable, build_sdist, get_requires_for_build_editable, get_requires_for_build_sdist,
                     get_requires_for_build_wheel)

__all__ = ["build_editable", "build_sdist", "build_wheel", "get_requires_for_build_editable",
           "get_requires_for_build_sdist", "get_requires_for_build_wheel"]


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    name = mesonpy.build_wheel(wheel_directory, config_settings, metadata_directory)
    tags = subprocess.run([sys.executable, "-m", "wheel", "tags", "--remove", "--python-tag", "py3", "--abi-tag", "none",
                           str(Path(wheel_directory, name))], check=True, stdout=subprocess.PIPE, text=True)
    return tags.stdout.split()[-1]
