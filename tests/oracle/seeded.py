# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""What the live comparisons share: a case drawn from a seed, whose checks are counted and which says how to replay it."""
import argparse
import os
import shutil
import sys
import tempfile
import traceback

import compare

SHOWN = 12  # messages of a failed check at the most


def arguments(description, count, what="cases"):
    """The parser of a comparison that takes --seed, --count (of `what`, default `count`) and --build."""
    args = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--seed", type=int, help="of the first (default: a fresh one)")
    args.add_argument("--count", type=int, default=count, help=f"{what} (default {count})")
    args.add_argument("--build", default=compare.default_build(), help="the build folder ($PG_BUILD or ./build)")
    return args


def seeds(seed, count, what="cases"):
    """`count` seeds from `seed` on (None: a fresh one, which is printed)"""
    first = seed if seed is not None else int.from_bytes(os.urandom(4), "little")
    print(f"seed {first}, {count} {what}", flush=True)
    return range(first, first + count)


def end(passed, failed):
    """The last line, and the exit status."""
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


class SeededCase:
    def __init__(self, seed, folder):
        self.seed, self.folder = seed, os.path.join(folder, str(seed))
        self.passed, self.failed = 0, 0

    def expect(self, wrong, what):
        """wrong: a list of messages, empty when all is well."""
        if not wrong:
            self.passed += 1
            return
        self.failed += 1
        print(f"FAIL seed {self.seed}, {what}")
        for line in wrong[:SHOWN]:
            print("    " + line)
        print(f"    replay: {os.path.basename(sys.argv[0])} --seed {self.seed} --count 1", flush=True)


def run_cases(seed, count, make):
    """Yields `count` cases that have run, of the seeds from `seed` on (None: a fresh one, which is printed). make(seed,
    folder) -> a SeededCase with run(); its folder goes when the next is asked for."""
    with tempfile.TemporaryDirectory() as temporary:
        for seed in seeds(seed, count, "checkpoints"):
            case = make(seed, temporary)
            try:
                case.run()
            except Exception:  # a defect of one checkpoint must not hide the rest
                case.expect([traceback.format_exc()], "stopped")
            yield case
            shutil.rmtree(case.folder, ignore_errors=True)
