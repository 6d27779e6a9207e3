#!/usr/bin/env python3
# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""Random image settings, given in every way to the Python package's image processor and to transformers' (its Pillow
backend); they must make the same of the same images, or both refuse.

    image_settings_live.py [--build BUILD] [--count N] [--seed S] [--write]

--write records python/tests/image_calls.json from transformers. Exit status 1 when anything differs.
"""
import argparse
import json
import os
import pathlib
import sys
import tempfile
import warnings

os.environ["TRANSFORMERS_VERBOSITY"] = "error"
ROOT = pathlib.Path(__file__).resolve().parents[2]
DEMO = ROOT / "examples" / "demo" / "model"
sys.path[:0] = [str(ROOT / "python"), str(ROOT / "python" / "tests")]
import image_cases as cases  # noqa: E402
import transformers  # noqa: E402

warnings.filterwarnings("ignore")
RECORDED = 240


def record():
    lines = []
    for seed in range(RECORDED):
        case = cases.draw(seed)
        with tempfile.TemporaryDirectory() as top:
            lines.append(json.dumps([case, cases.outcome(transformers, DEMO, case, top)]))
    (ROOT / "python" / "tests" / "image_calls.json").write_text("[" + ",\n".join(lines) + "]\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default=str(ROOT / "build"))
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    if arguments.write:
        record()
        return 0
    os.environ.setdefault("PALIGEMMA_LIBRARY", os.path.join(arguments.build, "lib"))
    import paligemma

    wrong = 0
    for seed in range(arguments.seed * 100000, arguments.seed * 100000 + arguments.count):
        case = cases.draw(seed)
        with tempfile.TemporaryDirectory() as top, tempfile.TemporaryDirectory() as other:
            expected = cases.outcome(transformers, DEMO, case, top)
            found = cases.outcome(paligemma, DEMO, case, other)
        if not cases.same(found, expected):
            wrong += 1
            print(f"FAIL {case}\n    found    {found}\n    expected {expected}", flush=True)
    print(f"{arguments.count - wrong} passed, {wrong} failed")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
