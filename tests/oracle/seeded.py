# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""What the live comparisons share: a case drawn from a seed, whose checks are counted and which says how to replay it."""
import os
import sys

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
