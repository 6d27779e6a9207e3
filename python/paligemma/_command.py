# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""The command `paligemma` of a wheel: the tool, which lies in the package, takes the place of this process."""
from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn


def main() -> NoReturn:
    tool = Path(__file__).parent / "bin" / "paligemma"
    try:
        os.execv(tool, ["paligemma", *sys.argv[1:]])
    except OSError as error:
        sys.exit(f"paligemma: {tool}: {error.strerror}. The tool comes inside the wheel: install that again, or build "
                 "the tool with Meson")
