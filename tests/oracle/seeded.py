# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""What the live comparisons share: a case drawn from a seed, whose checks are counted and which says how to replay it."""
import os
import shutil
import sys
import tempfile
import traceback

SHOWN = 12  # messages of a failed check at the most


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
    first = seed if seed is not None else int.from_bytes(os.urandom(4), "little")
    print(f"seed {first}, {count} checkpoints", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        for seed in range(first, first + count):
            case = make(seed, temporary)
            try:
                case.run()
            except Exception:  # a defect of one checkpoint must not hide the rest
                case.expect([traceback.format_exc()], "stopped")
            yield case
            shutil.rmtree(case.folder, ignore_errors=True)
